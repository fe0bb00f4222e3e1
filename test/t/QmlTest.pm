# What the TAP tests share: servers with qml, servers killed and started again,
# clients of test/client, and the checker as an assertion.
#
# The driver names the installations to test in QML_INST_<VARIANT> and the
# built client's directory in QML_CLIENT_DIR; without them the installation in
# PATH and test/client are used.

package QmlTest;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QmlChecker;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  ask avoid_midnight check_ok client_file drop_and_create end_sessions expired_leaf fails_with
  finish_clients json
  kill_server log_size make_log_dir new_node new_session node_of_backup pick query seed start_again
  start_client try_query wait_for write_event $PAGES
);

# A function that tells the pages that a query touches.
our $PAGES = <<'SQL';
CREATE FUNCTION pages(query text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || query INTO plan;
	plan := plan -> 0 -> 'Plan';
	RETURN (plan ->> 'Shared Hit Blocks')::int + (plan ->> 'Shared Read Blocks')::int;
END $$;
SQL

my @nodes;
my $seed;
my $log_dirs = 0;
my %client_serial;
my %sessions;

# A node that is not started, made of a backup of another one.  Options: variant (release);
# others are for init_from_backup().
sub node_of_backup
{
	my ($name, $origin, $backup, %opt) = @_;
	my $install_path = $ENV{ 'QML_INST_' . uc(delete $opt{variant} // 'release') };
	my $node = PostgreSQL::Test::Cluster->new($name,
		defined $install_path ? (install_path => $install_path) : ());

	$node->init_from_backup($origin, $backup, %opt);
	return $node;
}

# The run's seed, the same for all calls; QML_SEED repeats a run.
sub seed
{
	if (!defined $seed)
	{
		$seed = $ENV{QML_SEED} // int(time) % 1_000_000;
		srand($seed);
		note("QML_SEED=$seed");
	}
	return $seed;
}

# A random whole number from $low to $high.
sub pick
{
	my ($low, $high) = @_;
	seed();
	return $low + int(rand($high - $low + 1));
}

# A running server with the extension in database postgres.  Options: variant
# (release), conf (lines for postgresql.conf), init (of Cluster::init),
# bare (without CREATE EXTENSION), stopped (only initialized).
sub new_node
{
	my ($name, %opt) = @_;
	my $install_path = $ENV{ 'QML_INST_' . uc($opt{variant} // 'release') };
	my $node = PostgreSQL::Test::Cluster->new($name,
		defined $install_path ? (install_path => $install_path) : ());

	# Whatever the locale is: the tests use characters that not all encodings have.
	$node->init(extra => ["--encoding=UTF8"], %{ $opt{init} // {} });
	$node->append_conf('postgresql.conf', <<"CONF");
log_line_prefix = '%m [%p] %e %q%a '
log_statement = none
restart_after_crash = on
max_connections = 60
max_prepared_transactions = 20
qml.new_queues = quiet
qml.warn_idle = off
CONF
	$node->append_conf('postgresql.conf', $opt{conf}) if defined $opt{conf};
	push @nodes, $node;
	return $node if $opt{stopped};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION qml') unless $opt{bare};
	return $node;
}

# A process that is killed leaves no counts of the lines that it ran, and the servers
# that a test leaves are ended so.
END
{
	if ($ENV{QML_COVERAGE})
	{
		local $?;
		$_->stop('fast', fail_ok => 1) foreach grep { defined $_->{_pid} } @nodes;
	}
}

sub drop_and_create
{
	my ($node, $dbname) = @_;
	$node->safe_psql($dbname // 'postgres',
		'DROP EXTENSION IF EXISTS qml CASCADE; CREATE EXTENSION qml');
	return;
}

# Partitions end at midnight, UTC; a test that counts them must not run across.
sub avoid_midnight
{
	my $left = 86400 - time % 86400;
	return if $left > 120;
	note("waiting $left s for the day to end");
	sleep $left + 1;
	return;
}

# Makes a partition of the history that ended some days ago, as qml would have
# made it in its time, with expired jobs of queue "old" in it; its name.
sub expired_leaf
{
	my ($node, $days_ago, $jobs) = @_;
	my $day = "(now() AT TIME ZONE 'UTC')::date - $days_ago - 1";
	my $leaf = 'history_p' . query($node, "SELECT to_char($day, 'YYYYMMDD')");

	query($node, "SELECT qml_create_queue('old')")
	  if query($node, "SELECT NOT EXISTS (SELECT FROM qml.queue_data WHERE name = 'old')") eq 't';
	query($node, <<"SQL");
BEGIN;
CREATE TABLE qml.$leaf (LIKE qml.history INCLUDING COMMENTS INCLUDING CONSTRAINTS);
INSERT INTO qml.$leaf (id, created_at, queue_id, priority, state, attempt, uncounted,
	max_retries, lineage, timeout_ms, created_by, finished_at, expires_at, method, payload)
SELECT gen_random_uuid(), t, q.id, 0, 'succeeded', 1, 0, 5, 0, 1000,
	current_user::regrole, t, t + interval '1 second', 'old', '{}'
FROM qml.queue_data q, generate_series(1, $jobs), (SELECT ($day)::timestamp AT TIME ZONE 'UTC' AS t) d
WHERE q.name = 'old';
CREATE INDEX ${leaf}_id ON qml.$leaf (id);
SELECT format('ALTER TABLE qml.history ATTACH PARTITION qml.$leaf FOR VALUES FROM (%L) TO (%L)',
	($day)::text || ' 00:00:00+00', ($day + 1)::text || ' 00:00:00+00') \\gexec
COMMIT;
SQL
	return $leaf;
}

sub query
{
	my ($node, $sql, $dbname) = @_;
	return $node->safe_psql($dbname // 'postgres', $sql);
}

# As query(), from a server that may be down, or be going down: undef then, or when the
# statement fails.
sub try_query
{
	my ($node, $sql, $dbname, %opt) = @_;
	my ($rc, $out);

	# A psql that finds no server may be gone before it is written to.
	eval {
		($rc, $out) = $node->psql($dbname // 'postgres', $sql, stderr => \my $ignored, %opt);
		1;
	} or do {
		die $@ if $@ !~ /Broken pipe/;
		return;
	};
	return $rc == 0 ? $out : undef;
}

# A session that stays open.
sub new_session
{
	my ($node, $dbname, %opt) = @_;
	my $session = $node->background_psql($dbname // 'postgres', %opt);
	# The time limit is for a statement, not for the session.
	$session->set_query_timer_restart;
	return $session;
}

# As query(), in a session that stays open: for many small statements.
sub ask
{
	my ($node, $sql, $dbname) = @_;
	$dbname //= 'postgres';
	my $session = $sessions{ $node->name }{$dbname} //= new_session($node, $dbname);
	return $session->query_safe($sql);
}

# Before a database is copied, or a server killed.
sub end_sessions
{
	my ($node) = @_;
	$_->quit foreach values %{ $sessions{ $node->name } // {} };
	delete $sessions{ $node->name };
	return;
}

# The only value of EXPLAIN (FORMAT JSON) and the like, decoded.
sub json
{
	my ($text) = @_;
	require JSON::PP;
	return JSON::PP::decode_json($text);
}

# Asserts that the SQL fails with the SQLSTATE.
sub fails_with
{
	my ($node, $sqlstate, $sql, $name, %params) = @_;
	my (undef, undef, $stderr) = $node->psql($params{dbname} // 'postgres',
		"\\set VERBOSITY verbose\n$sql", %params);
	like($stderr, qr/^(psql:.*)?(ERROR|FATAL):  \Q$sqlstate\E:/m, $name);
	return $stderr;
}

# Waits for a fact; dies when it does not come.
sub wait_for
{
	my ($what, $fact) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	until ($fact->())
	{
		die "timed out waiting for $what" if time > $end;
		sleep 0.05;
	}
	return;
}

sub children_of
{
	my ($parent) = @_;
	my @children;

	foreach my $file (glob '/proc/[0-9]*/stat')
	{
		open my $fh, '<', $file or next;
		my ($pid, $ppid) = (<$fh> // '') =~ /^(\d+) \(.*\) \S (\d+)/s;
		push @children, $pid if defined $ppid && $ppid == $parent;
		close $fh;
	}
	return @children;
}

# Kills the postmaster and its children, as a power failure does, and waits
# until they are gone: while one is left, the data directory cannot be used.
sub kill_server
{
	my ($node) = @_;
	end_sessions($node);
	my $postmaster = $node->{_pid};

	# It must not start another one after they are counted.
	kill 'STOP', $postmaster;
	wait_for('the postmaster to stop', sub { slurp_file("/proc/$postmaster/stat") =~ /\) T / });
	my @children = children_of($postmaster);

	$node->kill9;
	kill 'KILL', @children;
	wait_for('the killed server to be gone',
		sub { !grep { -e "/proc/$_" } $postmaster, @children });
	return;
}

# Starts a server that has crashed; one that is not yet quite gone makes the
# first tries fail.
sub start_again
{
	my ($node) = @_;
	wait_for(
		'the server to start',
		sub {
			$node->{_pid} = undef;
			return $node->start(fail_ok => 1);
		});
	return;
}

sub make_log_dir
{
	my $dir = sprintf '%s/events_%02d', $PostgreSQL::Test::Utils::tmp_check,
	  ++$log_dirs;
	$dir .= "_$$";
	mkdir $dir or die "could not create \"$dir\": $!";
	return $dir;
}

# The size of all event logs: how far the clients have come.
sub log_size
{
	my ($dir) = @_;
	my $size = 0;
	$size += -s $_ // 0 foreach glob "$dir/*.log";
	return $size;
}

# An event that the test itself brought about, for the checker.
sub write_event
{
	my ($dir, $event, $id, $attempt, $state, $detail) = @_;
	append_to_file(
		"$dir/test.log",
		sprintf("%.6f\ttest\t%s\t%s\t%s\t%s\t%s\n",
			time, $event, $id, $attempt // '-', $state // '-', $detail));
	return;
}

# What test/client makes.
sub client_file
{
	my ($name) = @_;
	my $dir = $ENV{QML_CLIENT_DIR} // dirname(__FILE__) . '/../client';
	my ($file) = grep { -x } "$dir/$name", "$dir/build/$name";
	die "no $name in \"$dir\": make -C test/client" unless defined $file;
	return $file;
}

# Starts "work" or "produce" with the arguments; the name is made from $kind.
sub start_client
{
	my ($node, $kind, $log_dir, @args) = @_;
	my $name = $kind . ++$client_serial{$kind};
	my %client = (name => $name, out => '', err => '');

	$client{handle} = IPC::Run::start(
		[
			client_file('qml_client'), $kind,
			'--conninfo', $node->connstr('postgres'),
			'--name', $name,
			'--log-dir', $log_dir,
			'--seed', seed() * 1000 + $client_serial{$kind},
			@args
		],
		'<', \undef, '>', \$client{out}, '2>', \$client{err});
	return \%client;
}

# Waits for the clients; asserts that each ended well.
sub finish_clients
{
	my ($name, @clients) = @_;
	my @failed;

	foreach my $client (@clients)
	{
		IPC::Run::finish($client->{handle});
		my $code = $client->{handle}->result(0);
		note($client->{out} =~ s/\s+\z//r);
		push @failed, "$client->{name} ended with $code: $client->{err}"
		  if $code != 0;
	}
	is(join("\n", @failed), '', $name);
	return;
}

# Asserts that the checker finds nothing.
sub check_ok
{
	my ($node, $name, $log_dir, %arg) = @_;
	my @bad = QmlChecker::check(
		logs => [$log_dir],
		database => $node->connstr('postgres'),
		server_logs => [ $node->logfile ],
		%arg);

	is(scalar @bad, 0, $name)
	  or diag(join "\n", @bad > 20 ? (@bad[ 0 .. 19 ], '...') : @bad);
	return;
}

1;
