# More databases than slots for background processes: schedulers take turns, every
# database's jobs become ready and run, others keep their slots, and what lacks is told.

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

my $DATABASES = 20;
# The default of max_worker_processes, of which qml takes half.
my $PROCESSES = 4;
# Two schedulers at a time, each for a turn of two seconds at most: 20 s, were the machine idle.
my $BOUND = 60;

# Statistics are stored some time after the last job: up to ten minutes later there would be something due.
my $node = background_node('slots', bare => 1, conf => <<'CONF');
max_worker_processes = 8
max_connections = 100
autovacuum = off
fsync = off
qml.max_workers = -1
qml.enabled = off
qml.worker_idle_timeout = 2
qml.stats_series = 0
CONF
my @databases = map { "db$_" } 1 .. $DATABASES;

# A copy is quick, but must be adopted.
query($node, 'CREATE DATABASE model');
query($node, <<'SQL', 'model');
CREATE EXTENSION qml;
CREATE TABLE ledger (what text);
CREATE FUNCTION work(payload jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO ledger VALUES ('work') $$;
CREATE FUNCTION toil(payload jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO ledger VALUES ('toil'); SELECT pg_sleep(0.05) $$;
SELECT qml_register_handler('work', 'work'), qml_register_handler('toil', 'toil');
SELECT qml_create_queue('heard', '{"notify": true}');
SQL
foreach my $dbname (@databases)
{
	query($node, "CREATE DATABASE $dbname TEMPLATE model");
	query($node, 'SELECT qml_adopt()', $dbname);
}
query($node, 'DROP DATABASE model');

my %since; # when each process was seen first, by pid

# How many processes there are.  One that has given its slot back may still be on its way
# out when the next one is there, which therefore counts a moment later.
sub processes
{
	my %there = map { $_ => $since{$_} // time } split /\n/,
	  ask($node, "SELECT pid FROM pg_stat_activity WHERE backend_type ~ '^qml (look|scheduler|worker)'");

	%since = %there;
	return scalar grep { time - $_ >= 0.5 } values %since;
}

# A job for a handler, and one that is due a second later, in each database.
sub enqueue_everywhere
{
	query($node, <<'SQL', $_) foreach @databases;
TRUNCATE ledger;
SELECT qml_enqueue('work', priority => 1);
SELECT qml_enqueue('delayed', queue => 'outside', run_at => clock_timestamp() + interval '1 s');
SQL
	return;
}

# Waits until both have come about everywhere; how long it took, and the most processes at a time.
sub until_all_done
{
	my %left = map { $_ => 1 } @databases;
	my $most = 0;
	my $start = time;

	while (%left)
	{
		die "timed out waiting for @{[sort keys %left]}" if time > $start + $PostgreSQL::Test::Utils::timeout_default;
		foreach my $dbname (sort keys %left)
		{
			$most = max($most, processes());
			delete $left{$dbname} if query($node, <<'SQL', $dbname) eq 't';
SELECT EXISTS (SELECT FROM ledger WHERE what = 'work') AND NOT EXISTS (SELECT FROM qml.live WHERE state = 'scheduled')
SQL
		}
	}
	return (time - $start, $most);
}

sub all_are_served
{
	my ($name, $processes) = @_;
	enqueue_everywhere();
	my ($seconds, $most) = until_all_done();
	cmp_ok($seconds, '<=', $BOUND, sprintf '%s: jobs of all %d databases become ready and run (%.1f s)', $name, $DATABASES, $seconds);
	cmp_ok($most, '<=', $processes, "$name: never more than $processes processes ($most)");
	return;
}

sub states
{
	my ($where) = @_;
	return query($node, "SELECT count(*) FROM qml.database WHERE name ~ '^db' AND $where", 'db1');
}

# ---- turns

my $offset = -s $node->logfile;
my $began = time;
is(query($node, 'SELECT state, problem FROM qml.database', 'db1'), 'off|qml.enabled is off', 'the view says why nothing is served');
enqueue_everywhere();
set_config($node, 'qml.enabled' => undef);
{
	my ($seconds, $most) = until_all_done();
	cmp_ok($seconds, '<=', 2 * $BOUND, sprintf 'after the start all are served (%.1f s)', $seconds);
	cmp_ok($most, '<=', $PROCESSES, "with half of the server's slots ($most)");
}
all_are_served('again', $PROCESSES);

# One with much to do does not keep the others out, nor do all of them.
query($node, q{SELECT count(qml_enqueue('toil')) FROM generate_series(1, 100000)}, $_) foreach 'db1', 'db2', 'db3';
all_are_served('beside others with a backlog', $PROCESSES);

# Others keep their slots.
{
	query($node, 'CREATE TABLE large AS SELECT i FROM generate_series(1, 100000) i');
	my $plan = query($node, <<'SQL');
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT count(*) FROM large;
SQL
	like($plan, qr/Workers Launched: [12]/, 'a parallel query gets workers meanwhile') or diag($plan);
}
query($node, q{DELETE FROM qml.live WHERE method = 'toil'}, $_) foreach 'db1', 'db2', 'db3';

# ---- what is told

{
	my $log = slurp_file($node->logfile, $offset);
	my @lines = grep { /no free background worker slot for databases/ } split /\n/, $log;
	cmp_ok(scalar @lines, '>=', 1, 'the log tells that slots are missing');
	cmp_ok(scalar @lines, '<=', 1 + (time - $began) / 60, 'at most once a minute');
	my @named = ($lines[-1] // '') =~ /"(db\d+)" \(scheduler\)/g;
	cmp_ok(scalar @named, '>=', $DATABASES - 2 - 2, 'it names all databases that have none (' . scalar(@named) . ')');
	my $starts = () = $log =~ /qml scheduler started in database/g;
	cmp_ok($starts, '<=', 2 * $DATABASES, "the start of each turn is not told of ($starts)");
}

wait_for('the databases to rest', sub { states("state = 'resting'") >= $DATABASES - 2 });
cmp_ok(states("state = 'resting' AND problem = 'it has a scheduler only in turn: qml.max_workers allows 4 background processes'"),
	'>=', $DATABASES - 2, 'the view shows what they lack');
ok($node->poll_query_until('db1', "SELECT count(*) = 2 FROM qml.database WHERE name ~ '^db' AND state = 'served' AND problem IS NULL"),
	'and who has a scheduler');

query($node, q{CREATE ROLE watcher LOGIN; CREATE ROLE warden LOGIN IN ROLE pg_monitor});
query($node, q{SELECT qml_grant('watcher', 'monitor'), qml_grant('warden', 'monitor')}, 'db2');
is(query($node, q{SET ROLE watcher; SELECT string_agg(name, ' ') FROM qml.database}, 'db2'), 'db2', 'others see their own database');
is(query($node, q{SET ROLE warden; SELECT count(*) FROM qml.database WHERE name ~ '^db'}, 'db2'), $DATABASES, 'members of pg_monitor see all');
fails_with($node, '42501', 'SET ROLE warden; SELECT FROM qml.database', 'nobody does without a capability', dbname => 'db3');

# ---- what wakes a database that has no scheduler

sub resting
{
	return split /\n/, query($node, "SELECT name FROM qml.database WHERE name ~ '^db' AND state = 'resting' AND due_at IS NULL AND workers = 0 ORDER BY served_at DESC LIMIT 5", 'db1');
}

# The last to have been served: it would rest longest.
{
	my $dbname;
	my $seconds = best_of(
		5,
		sub {
			wait_for('a database that rests', sub { ($dbname) = resting() });
			query($node, q{TRUNCATE ledger; SELECT qml_enqueue('work')}, $dbname);
			return seconds_until('the job', sub { query($node, 'SELECT count(*) FROM ledger', $dbname) > 0 });
		});
	cmp_ok($seconds, '<=', 5, sprintf 'a commit gives a resting database a turn (%.2f s)', $seconds);

	wait_for('a database without workers', sub { ($dbname) = resting() });
	query($node, q{SELECT qml_enqueue('delayed', queue => 'outside', run_at => clock_timestamp() + interval '8 s')}, $dbname);
	wait_for('the database to rest', sub { query($node, "SELECT state FROM qml.database WHERE name = '$dbname'", $dbname) eq 'resting' });
	is(query($node, "SELECT due_at = (SELECT run_at FROM qml.live WHERE state = 'scheduled') FROM qml.database WHERE name = '$dbname'", $dbname),
		't', 'what is due later is known');
	$seconds = seconds_until('the delayed job', sub { query($node, "SELECT count(*) FROM qml.live WHERE state = 'scheduled'", $dbname) == 0 });
	cmp_ok($seconds, '<=', 20, sprintf 'and it is served then (%.2f s)', $seconds);

	wait_for('a database that rests', sub { ($dbname) = resting() });
	my $listener = new_session($node, $dbname);
	$listener->query_safe('LISTEN qml_heard');
	query($node, q{SELECT qml_enqueue('delayed', queue => 'heard')}, $dbname);
	wait_for('a notification', sub { $listener->query('SELECT 1') =~ /notification "qml_heard"/ });
	pass('listeners are notified');
	$listener->quit;

	# A claim that its session leaves behind.
	wait_for('a database that rests', sub { ($dbname) = resting() });
	query($node, q{SELECT qml_enqueue('bound', queue => 'bound')}, $dbname);
	query($node, q{SELECT attempt FROM qml_fetch('w', '{bound}', 1, '0')}, $dbname);
	$seconds = seconds_until('the job', sub { query($node, "SELECT count(*) FROM qml.job WHERE method = 'bound' AND state = 'enqueued'", $dbname) == 1 });
	cmp_ok($seconds, '<=', 20, sprintf 'the job of a session that ended is ready again (%.2f s)', $seconds);
}

# ---- nothing to do

# Who reads a page that is nearly full, and on which rows were changed or deleted, removes what is
# left of them, and writes that: a scheduler, in a later turn, or a process as it looks at
# catalogs.  That comes once after a change, and long after it.  VACUUM does it here.
sub remove_dead_rows
{
	my ($dbname) = @_;
	wait_for(
		"no dead row to be left in $dbname",
		sub {
			my ($rc, undef, $told) = $node->psql($dbname, 'VACUUM (VERBOSE)');
			die "VACUUM failed in $dbname: $told" if $rc != 0;
			# A transaction that could see them was open, or a page was being read.
			return $told !~ /\b[1-9]\d* are dead but not yet removable|tuples missed: [1-9]/;
		});
	return;
}

# What the server wrote from one place to another.
sub written
{
	my ($from, $to) = @_;
	# A commit waits until what was written before it is in the file.
	query($node, q{SELECT pg_logical_emit_message(true, 'qml', '')});
	my $file = query($node, "SELECT pg_walfile_name(pg_lsn '$from' + 1)");
	my ($out, $error) = run_command([ $node->config_data('--bindir') . '/pg_waldump', '-p', $node->data_dir . '/pg_wal', '-s', $from, '-e', $to, $file ]);
	my %databases = split /[|\n]/, query($node, 'SELECT oid, datname FROM pg_database');
	my %relations;
	foreach my $file ($out =~ m{\brel (\d+/\d+/\d+)}g)
	{
		my ($space, $database, $number) = split m{/}, $file;
		$relations{$file} //= ($databases{$database} // 'shared') . '.'
		  . (try_query($node, "SELECT pg_filenode_relation((SELECT CASE WHEN $space <> dattablespace THEN $space ELSE 0 END FROM pg_database WHERE datname = current_database()), $number)", $databases{$database}) // '?');
	}
	return join "\n", $out, $error, map { "$_ is $relations{$_}" } sort keys %relations;
}

{
	wait_for('the databases to rest', sub { states("state = 'resting' AND due_at IS NULL") >= $DATABASES - 2 });
	set_config($node, 'log_min_messages' => 'debug1');
	ok($node->poll_query_until('postgres', "SELECT current_setting('log_min_messages') = 'debug1'"), 'each start is logged');
	avoid_midnight();
	query($node, 'SELECT qml_maintain()', $_) foreach @databases;
	remove_dead_rows($_) foreach 'postgres', @databases;
	wait_for('the databases to rest again', sub { states("state = 'resting' AND due_at IS NULL AND workers = 0") >= $DATABASES - 2 });
	my $state = 'SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())';
	ask($node, 'CHECKPOINT');
	my $before = ask($node, $state);
	$offset = -s $node->logfile;
	my $start = time;
	my %starts;
	wait_for(
		'some of them to have a turn',
		sub {
			%starts = ();
			$starts{$_}++ foreach slurp_file($node->logfile, $offset) =~ /starting background worker process "qml scheduler: ([^"]+)"/g;
			return keys(%starts) >= 5 && time - $start >= 15;
		});
	my $seconds = time - $start;
	my $after = ask($node, $state);
	is($after, $before, 'databases that have nothing to do write no WAL and take no transaction ids')
	  or diag(written($before =~ /^(.*)\|/, $after =~ /^(.*)\|/));
	cmp_ok(max(values %starts), '<=', 1 + $seconds / 60, sprintf 'each has a turn about once a minute (%d starts in %.0f s)', scalar keys %starts, $seconds);
	set_config($node, 'log_min_messages' => undef);
}

# ---- settings

fails_with($node, '22023', "ALTER SYSTEM SET qml.max_workers = $_", "qml.max_workers = $_") foreach 0, 1, -2;
set_config($node, 'qml.max_workers' => 2);
wait_for('two processes', sub { processes() <= 2 });
all_are_served('with two processes', 2);

# More than the server has: the two launchers have slots too.
set_config($node, 'qml.max_workers' => 8);
all_are_served('with all slots of the server', 6);

# Under a load that never ends, all slots of the server would go to schedulers.
{
	my $start = time;
	my @waiting = @databases;
	query($node, 'TRUNCATE ledger', $_) foreach @databases;
	while (@waiting && time - $start < 2 * $BOUND)
	{
		query($node, q{SELECT qml_enqueue('work'); SELECT qml_enqueue('delayed', queue => 'outside', run_at => clock_timestamp() + interval '1 s')}, $_)
		  foreach @databases;
		@waiting = grep { query($node, 'SELECT count(*) FROM ledger', $_) == 0 } @waiting;
	}
	is("@waiting", '', sprintf 'handlers run everywhere under a steady load (%.1f s)', time - $start);
	query($node, q{DELETE FROM qml.live}, $_) foreach @databases;
}

# A name that leads nowhere.
{
	$offset = -s $node->logfile;
	set_config($node, 'qml.max_workers' => -1, 'qml.databases' => 'db1, nowhere, template1, db2');
	my %messages = (
		nowhere => 'database "nowhere" in qml.databases does not exist',
		template1 => 'database "template1" in qml.databases is not worked in');
	foreach my $name (sort keys %messages)
	{
		wait_for("a warning about $name", sub { log_count($node, "WARNING:  $messages{$name}", $offset) == 1 });
		pass("the log tells of $name");
	}
	ok($node->poll_query_until('db1', "SELECT string_agg(name || ' ' || state, ' ' ORDER BY name) FROM qml.database",
			'db1 served db2 served nowhere unknown template1 refused'), 'and the view does');
	like(query($node, 'SELECT name, state FROM qml.database', 'db3'), qr/^db3\|off$/m, 'a database that is not listed is off');
	query($node, 'CREATE DATABASE nowhere');
	wait_for('the database to be found', sub { query($node, q{SELECT count(*) FROM qml.database WHERE name = 'nowhere' AND state = 'unknown'}, 'db1') == 0 });
	is(log_count($node, $messages{$_}, $offset), 1, "$_ is told of once") foreach sort keys %messages;

	# The list is told of once a minute, if there is one; the launcher looks every ten seconds.
	ask($node, 'SELECT pg_sleep(75)');
	# The new database waits for its first turn, and may have to.
	my @told = grep { !/^"nowhere" / } map { split /, / }
	  slurp_file($node->logfile, $offset) =~ /no free background worker slot for databases: (.*)$/mg;
	is("@told", '', 'nothing is told of databases that are not served any more');
	set_config($node, 'qml.databases' => undef);
}
all_are_served('all again', $PROCESSES);

# A partition that waits for its readers does not prolong a turn.
{
	query($node, 'CREATE EXTENSION qml');
	expired_leaf($node, 2, 10);
	my $reader = new_session($node);
	$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qml.history');
	set_config($node, 'qml.max_workers' => 2, 'qml.databases' => 'postgres, db1');
	wait_for('the partition to be taken out of use', sub { ask($node, 'SELECT count(*) FROM pg_inherits WHERE inhdetachpending') == 1 });
	my $longest = 0;
	foreach my $dbname (('postgres', 'db1') x 3)
	{
		query($node, q{SELECT qml_enqueue('delayed', queue => 'outside', run_at => clock_timestamp() + interval '1 s')}, $dbname);
		$longest = max($longest, seconds_until("the delayed job of $dbname", sub { query($node, "SELECT count(*) FROM qml.live WHERE state = 'scheduled'", $dbname) == 0 }));
	}
	cmp_ok($longest, '<=', 20, sprintf 'another database has its turn while a partition waits (%.1f s)', $longest);
	$reader->quit;

	# All can be schedulers where there are no workers.
	set_config($node, 'qml.workers' => 0);
	ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'qml scheduler'"),
		'without workers all processes are schedulers');
}

# Too few processes for the launcher.
end_sessions($node);
set_config($node, 'max_worker_processes' => 1);
$node->restart;
is(query($node, 'SELECT state, problem FROM qml.database'), "off|the qml launcher does not run (max_worker_processes = 1): see the server's log",
	'the view says that there is no launcher');

done_testing();
