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
my $CRASHES = 3;
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

# A delayed job for the time of each stroke, and a tick each second.
query($node, <<'SQL');
SELECT qml_schedule_recurring('r', '* * * * * *', 'tick', misfire => 'fire_all');
CREATE TABLE promised (id uuid);
SQL
my $promised = 0;

sub promise
{
	$promised++;
	query($node, <<'SQL');
INSERT INTO promised SELECT qml_enqueue('delayed', run_at => clock_timestamp() + interval '1 s')
SQL
	return;
}

# Asserts that all jobs become ready, that ticks go on, and that each tick since
# the beginning made one job.
sub nothing_is_lost
{
	my ($name) = @_;
	my $now = query($node, 'SELECT clock_timestamp()');

	ok( $node->poll_query_until('postgres', <<"SQL"), "$name: jobs and ticks go on");
SELECT (SELECT count(*) = 0 FROM promised p LEFT JOIN qml.live l USING (id)
		WHERE l.state IS DISTINCT FROM 'enqueued')
	AND (SELECT max(occurrence) > '$now' FROM qml.occurrence)
SQL
	is(query($node, 'SELECT count(*) FROM promised'), $promised, "$name: no job is lost");
	is( query($node, <<'SQL'), '0', "$name: each tick made one job");
SELECT count(*) FROM generate_series(
	(SELECT min(occurrence) FROM qml.occurrence), (SELECT max(occurrence) FROM qml.occurrence),
	interval '1 s') AS s (tick)
FULL JOIN qml.occurrence o ON o.occurrence = s.tick
FULL JOIN (SELECT * FROM qml.live WHERE method = 'tick') j ON j.id = o.job
WHERE s.tick IS NULL OR o.job IS NULL OR j.id IS NULL
	OR (j.metadata #>> '{recurring,tick}')::timestamptz <> o.occurrence
SQL
	return;
}

# ---- signals that concern one process

# Who is not concerned: a session, with what it has in its memory.
my $witness = $node->background_psql('postgres');
$witness->set_query_timer_restart;
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

		promise() if $round % 5 == 0;
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
	nothing_is_lost($stroke);
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

		promise();
		kill 'KILL', $old{$kind};
		wait_for('the crash', sub { log_count($node, 'was terminated by signal 9', $offset) > 0 });
		my $seconds = seconds_until(
			'all processes to be back',
			sub {
				!grep { (process($node, $_, $database{$_}) // $old{$_}) == $old{$_} } keys %database;
			});
		cmp_ok($seconds, '<=', 5, sprintf 'the %s is killed: all is back (%.1f s)', $kind, $seconds);
	}
	nothing_is_lost("SIGKILL of the $kind");
}

# ---- switches

sub wait_for_switch
{
	my ($name, $value) = @_;
	set_config($node, $name => $value);
	ok($node->poll_query_until('postgres', "SHOW $name", $value // 'on'), "$name is " . ($value // 'on'));
	return;
}

wait_for_switch('qml.enabled', 'off');
my $seconds = seconds_until('no scheduler', sub { !defined process($node, 'scheduler', 'postgres') });
cmp_ok($seconds, '<=', 2, 'qml.enabled = off ends the scheduler');
promise();
sleep 2;
is(query($node, "SELECT count(*) FROM qml.live WHERE method = 'delayed' AND state = 'scheduled'"),
	1, 'nothing is done meanwhile');
ok(defined process($node, 'launcher'), 'the launcher waits');
wait_for_switch('qml.enabled', undef);
$seconds = seconds_until('a scheduler', sub { defined process($node, 'scheduler', 'postgres') });
cmp_ok($seconds, '<=', 2, 'qml.enabled = on starts it again');
nothing_is_lost('after a pause');

# What each kind of work does; all is due, whether it is done or not.
my %work = (
	'qml.enable_scheduler' => q{SELECT count(*) = 2 FROM qml.live
		WHERE method IN ('a delayed job', 'a lost job') AND state = 'enqueued'},
	'qml.enable_recurring' => q{SELECT max(occurrence) > (SELECT now FROM began) FROM qml.occurrence},
	'qml.enable_cleanup' => 'SELECT count(*) = 0 FROM qml.lock');

set_config($node, 'qml.cleanup_interval' => '1s');
query($node, 'CREATE TABLE began (now timestamptz)');
foreach my $switch (sort keys %work)
{
	wait_for_switch($switch, 'off');
	# Until the scheduler knows, too: what it does now it began before.
	sleep 1;
	query($node, <<'SQL');
TRUNCATE began;
INSERT INTO began SELECT clock_timestamp() + interval '0.5 s';
DELETE FROM qml.live WHERE method IN ('a delayed job', 'a lost job');
SELECT qml_try_lock('lock', 'w', '0.5 s');
SELECT qml_enqueue('a lost job', queue => 'lost');
SELECT qml_fetch('w', '{lost}', 1, '0.5 s');
SELECT qml_enqueue('a delayed job', queue => 'delayed', run_at => clock_timestamp() + interval '0.5 s');
SQL
	foreach my $other (grep { $_ ne $switch } sort keys %work)
	{
		ok($node->poll_query_until('postgres', $work{$other}), "$switch = off: not the work of $other");
	}
	is(query($node, $work{$switch}), 'f', "$switch = off: but its own stops");
	wait_for_switch($switch, undef);
	ok($node->poll_query_until('postgres', $work{$switch}), "$switch = on: it goes on");
}

# ---- the end of the server

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
	promise();
	end_sessions($node);
	$node->kill9;
	$seconds = seconds_until('the end of the processes',
		sub { !grep { slurp_cmdline($_) =~ /qml/ } @processes });
	cmp_ok($seconds, '<=', 2, sprintf 'they end when the postmaster is killed (%.2f s)', $seconds);
	start_again($node);
	nothing_is_lost('SIGKILL of the postmaster');
}

foreach my $mode ('fast', 'smart')
{
	pids();
	my $offset = -s $node->logfile;
	my $start = time;
	promise();
	$node->stop($mode);
	$seconds = time - $start;
	cmp_ok($seconds, '<=', 5, sprintf 'the server stops at once, %s (%.2f s)', $mode, $seconds);
	unlike(slurp_file($node->logfile, $offset), qr/terminated by signal|PANIC|TRAP|ERROR/, 'and without a word');
	$node->start;
	nothing_is_lost("a stop, $mode");
}

end_sessions($node);
done_testing();
