#!/usr/bin/perl

# A worker for qml, with DBD::Pg:
#
#   worker.pl NAME QUEUE...
#   worker.pl --enqueue QUEUE METHOD PAYLOAD    enqueues a job and prints its id
#
# The connection comes from PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.
# SIGTERM ends the worker after its current job; it releases the others that it holds.

use strict;
use warnings;

use DBI;
use Encode qw(decode FB_DEFAULT);
use IO::Select;
use JSON::PP;
use Socket;
use Time::HiRes qw(sleep);

my $json = JSON::PP->new; # to and from characters, as DBD::Pg has them
my $batch = 10;
my $lease = $ENV{QML_LEASE} // 60; # seconds; a heartbeat comes each third
my $wait = 5; # seconds; SIGTERM takes effect after the wait, so it is short
my $release = 'SELECT qml_release_many(?::uuid[], ?::int[])'; # gives jobs back; their attempts do not count
my ($stopping, $pause) = (0, 0.1);
my $held = [ [], [] ]; # ids and attempts of the batch; the calls pass over those that have ended

my %methods = (
	# A job in the database: what it writes commits together with the end of the job.
	send_receipt => sub {
		my ($db, $payload) = @_;
		my $sql = 'UPDATE orders SET receipt_sent = true WHERE id = ? RETURNING customer';
		my ($customer) = $db->selectrow_array($sql, undef, $payload->{order});
		die "there is no order $payload->{order}\n" unless defined $customer;
		return { sent_to => $customer };
	},

	# A job outside: the log of another program, any bytes, must begin with "ok".
	check_log => sub {
		my ($db, $payload) = @_;
		open my $file, '<:raw', $payload->{path} or die "cannot open $payload->{path}: $!\n";
		my $log = do { local $/; <$file> };
		die "$log\n" unless $log =~ /^ok/;
		return { bytes => length $log };
	});

sub connect_db
{
	# Without prepared statements, which some poolers do not support.
	return DBI->connect('dbi:Pg:', undef, undef,
		{ AutoCommit => 1, RaiseError => 1, PrintError => 0, pg_server_prepare => 0 });
}

# The _many functions pass over a job that is not ours any more: that is no error.
sub do_job
{
	my ($db, $job) = @_;
	my @claim = @{$job}{qw(id attempt)};
	return if eval {
		$db->do('BEGIN');
		my $result = $methods{ $job->{method} }->($db, $json->decode($job->{payload}));
		$db->do('SELECT qml_succeed(?, ?, ?)', undef, @claim, $json->encode($result));
		$db->do('COMMIT');
	};
	my ($error, $sqlstate) = ($@, $db->state);
	$db->do('ROLLBACK'); # an error here: the connection is lost
	# Another transaction was in the way.
	return $db->do($release, undef, map { [$_] } @claim) if $sqlstate =~ /^(40001|40P01)$/;
	chomp $error;
	return $db->do('SELECT qml_fail_many(ARRAY[?::uuid], ARRAY[?::int], ARRAY[?])', undef, @claim, clean($error));
}

# Without zero bytes and what is not UTF-8, which PostgreSQL does not accept.
sub clean
{
	my ($text) = @_;
	$text = decode('UTF-8', $text, FB_DEFAULT) unless utf8::is_utf8($text);
	return $text =~ tr/\0//dr;
}

# Starts a process that extends the leases, on a connection of its own, because a program
# in Perl does one thing at a time.  It takes the claims of each batch.
sub start_beats
{
	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_SEQPACKET, PF_UNSPEC) or die "no sockets: $!\n";
	return $ours if fork // die "cannot fork: $!\n";
	close $ours;
	$SIG{$_} = 'IGNORE' foreach qw(TERM INT);
	my ($db, $claims) = (undef, [ [], [] ]);
	while (1)
	{
		if (IO::Select->new($theirs)->can_read($lease / 3))
		{
			recv $theirs, my $message, 65536, 0;
			$claims = $json->decode($message || exit 0); # their leases have just begun
		}
		elsif (@{ $claims->[0] })
		{
			eval {
				$db //= connect_db();
				$db->do('SELECT qml_heartbeat_many(?::uuid[], ?::int[], make_interval(secs => ?))',
					undef, @$claims, $lease);
			} or warn("no heartbeat: $@"), $db = undef;
		}
	}
}

sub work
{
	my ($db, $waiter, $beats, $name, @queues) = @_;
	while (!$stopping)
	{
		my $jobs = $db->selectall_arrayref(
			'SELECT * FROM qml_fetch(?, ?::text[], ?, make_interval(secs => ?), ?::text[])',
			{ Slice => {} }, $name, \@queues, $batch, $lease, [ keys %methods ]);
		$held = [ [ map { $_->{id} } @$jobs ], [ map { $_->{attempt} } @$jobs ] ];
		send $beats, $json->encode($held), 0 or die "no heartbeats: $!\n";
		$stopping or do_job($db, $_) foreach @$jobs;
		next if @$jobs;
		$waiter->do('CALL qml_wait(?::text[], make_interval(secs => ?), ?::text[])',
			undef, \@queues, $wait, [ keys %methods ]);
	}
}

my ($name, @queues) = @ARGV;
if ($name eq '--enqueue')
{
	my $sql = 'SELECT qml_enqueue(queue => ?, method => ?, payload => ?::jsonb)';
	print connect_db()->selectrow_array($sql, undef, @queues), "\n";
	exit 0;
}
my $beats = start_beats();
$SIG{$_} = sub { $stopping = 1 } foreach qw(TERM INT);
until ($stopping)
{
	my ($db, $waiter);
	next if eval {
		($db, $waiter) = (connect_db(), connect_db());
		$db->do($release, undef, @$held); # what it held when the last connection was lost
		$pause = 0.1;
		work($db, $waiter, $beats, $name, @queues);
		$db->do($release, undef, @$held);
	};
	# With a connection that is well it is a mistake, such as a right that is missing.
	die $@ if $db && $waiter && $db->ping && $waiter->ping;
	warn "no connection: $@";
	sleep $pause * (0.5 + rand 0.5);
	$pause = $pause < 5 ? 2 * $pause : 10;
}
