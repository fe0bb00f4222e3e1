# Each process is ended in each way, over and over: it is back, nothing is lost,
# and whoever is not concerned does not notice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $TIMES = 20;
my $CRASHES = 20;
my @DATABASES = qw(postgres a b c);

my $node = background_node('life');
foreach my $dbname (@DATABASES)
{
	next if $dbname eq 'postgres';
	query($node, "CREATE DATABASE $dbname");
	query($node, 'CREATE EXTENSION qml', $dbname);
}

# The launcher and the scheduler of postgres.
my %database = (launcher => undef, scheduler => 'postgres');

sub pids
{
	return map { $_ => wait_for_process($node, $_, $database{$_}) } keys %database;
}

promise_ticks($node);

# ---- signals that concern one process

# Who is not concerned: a session, with what it has in its memory.
my $witness = new_session($node);
$witness->query_safe('CREATE TEMP TABLE memory AS SELECT pg_postmaster_start_time() AS started');

my %strokes = (
	SIGTERM => sub { kill 'TERM', $_[0] },
	SIGINT => sub { kill 'INT', $_[0] },
	pg_terminate_backend => sub { query($node, "SELECT pg_terminate_backend($_[0])") },
	pg_cancel_backend => sub { query($node, "SELECT pg_cancel_backend($_[0])") });

# The processes that have come to their loops, where they sleep: pid by name of the
# database, '' for the launcher.
sub sleepers
{
	return map { split /\|/ } split /\n/, $witness->query_safe(<<'SQL');
SELECT datname, pid FROM pg_stat_activity
WHERE backend_type IN ('qml launcher', 'qml scheduler') AND wait_event_type = 'Extension'
SQL
}

# The processes that were struck and are not back: by name of the database, what
# pid was struck, and when.
my %struck;
my %slowest;

# Takes those that are back off the list; true when the ones named are.
sub are_back
{
	my ($ends, @names) = @_;
	my %pid = sleepers();

	foreach my $name (keys %struck)
	{
		my ($pid, $time) = @{ $struck{$name} };
		next if !defined $pid{$name} || ($pid == $pid{$name}) == $ends;
		$slowest{$name} = max($slowest{$name} // 0, time - $time);
		delete $struck{$name};
	}
	return !grep { exists $struck{$_} } @names;
}

# The launcher is struck in each round, and the schedulers in turn, so that their
# ends meet in all ways.
foreach my $stroke (sort keys %strokes)
{
	# Cancelling ends what a process does, and not the process.
	my $ends = $stroke =~ /TERM|terminate/ ? 1 : 0;
	my $offset = -s $node->logfile;

	%slowest = ();
	foreach my $round (1 .. $TIMES)
	{
		my $dbname = $DATABASES[ $round % @DATABASES ];

		promise($node) if $round % 5 == 0;
		my %pid;
		wait_for(
			'the processes to be back',
			sub {
				%pid = sleepers();
				return are_back($ends, '', $dbname) && defined $pid{''} && defined $pid{$dbname};
			});
		foreach my $name ('', $dbname)
		{
			$struck{$name} = [ $pid{$name}, time ];
			$strokes{$stroke}->($pid{$name});
		}
	}
	wait_for('all processes to be back', sub { are_back($ends, '', @DATABASES) });
	my $launcher = delete $slowest{''};
	cmp_ok($launcher, '<=', 5,
		sprintf '%s, %d times: the launcher is back after %.1f s at most', $stroke, $TIMES, $launcher);
	my $scheduler = max(values %slowest);
	cmp_ok($scheduler, '<=', 5,
		sprintf '%s, %d times: the scheduler is back after %.1f s at most', $stroke, $TIMES, $scheduler);
	unlike(slurp_file($node->logfile, $offset), qr/terminated by signal|PANIC|TRAP|qml.*failed/,
		"$stroke: nothing worse");
	nothing_is_lost($node, $stroke);
}
is($witness->query_safe('SELECT started = pg_postmaster_start_time() FROM memory'),
	't', 'other sessions are undisturbed');
$witness->quit;

# ---- a process that is killed: the server restarts by itself

foreach my $kind (sort keys %database)
{
	foreach (1 .. $CRASHES)
	{
		my %old = pids();
		my $offset = -s $node->logfile;

		promise($node);
		kill 'KILL', $old{$kind};
		wait_for('the crash', sub { log_count($node, 'was terminated by signal 9', $offset) > 0 });
		my $seconds = seconds_until(
			'all processes to be back',
			sub {
				!grep { (process($node, $_, $database{$_}) // $old{$_}) == $old{$_} } keys %database;
			});
		cmp_ok($seconds, '<=', 5, sprintf 'the %s is killed: all is back (%.1f s)', $kind, $seconds);
	}
	nothing_is_lost($node, "SIGKILL of the $kind");
}

# ---- the postmaster is killed

sub qml_processes
{
	my ($postmaster) = @_;
	return grep { slurp_cmdline($_) =~ /qml/ } split /\n/,
	  query($node, "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'qml %'");
}

sub slurp_cmdline
{
	my ($pid) = @_;
	open my $fh, '<', "/proc/$pid/cmdline" or return '';
	my $cmdline = <$fh> // '';
	close $fh;
	return $cmdline;
}

foreach (1 .. $CRASHES)
{
	pids();
	my @processes = qml_processes();
	cmp_ok(scalar @processes, '>=', 2, 'the processes are there');
	promise($node);
	end_sessions($node);
	$node->kill9;
	my $seconds = seconds_until('the end of the processes',
		sub { !grep { slurp_cmdline($_) =~ /qml/ } @processes });
	cmp_ok($seconds, '<=', 2, sprintf 'they end when the postmaster is killed (%.2f s)', $seconds);
	start_again($node);
	nothing_is_lost($node, 'SIGKILL of the postmaster');
}

end_sessions($node);
done_testing();
