# Counting all jobs takes as long as it takes: a process of its own does it, slowly.  Meanwhile jobs
# become ready, lost ones are reclaimed and schedules fire on time, and nobody who needs a table,
# the extension, the database or the server alone has to wait.

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

# The count sleeps at each row: so many rows are a count of more than 15 seconds.
my $JOBS = 170;
my $SLOW = 'counting.rows:limit:1,counting.sleep_ms:limit:100,counting.pause_ms:limit:100';
# Seconds that something may come late meanwhile, on an idle machine; and what takes a moment.
my ($LATE, $LATE_TICK, $SOON) = (1, 0.5, 4);

my $node = background_node('count_process', variant => 'faults', conf => <<"CONF");
autovacuum = off
qml.workers = 0
qml.faults = '$SLOW'
log_min_messages = debug1
CONF

my $PAGES = <<'SQL';
CREATE FUNCTION pages(query text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || query INTO plan;
	plan := plan -> 0 -> 'Plan';
	RETURN (plan ->> 'Shared Hit Blocks')::int + (plan ->> 'Shared Read Blocks')::int;
END $$;
SQL

sub prepare
{
	my ($dbname) = @_;
	query($node, $PAGES, $dbname);
	query($node, "SELECT qml_create_queue('ballast', '{}')", $dbname);
	# Large ones, so that they take more pages than the numbers do.
	query($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill(jsonb_build_object('p', repeat('x', 1000)), ARRAY[$JOBS]), 'ballast')", $dbname);
	return;
}

# Whether the functions read no rows.
sub is_counted
{
	my ($dbname) = @_;
	ask($node, 'SELECT count(*) FROM qml_counts()', $dbname);
	return ask($node, "SELECT pages('SELECT * FROM qml_counts()')", $dbname) <= 5;
}

sub differences
{
	return ask($node, <<'SQL');
WITH said AS MATERIALIZED (SELECT state, count FROM qml_counts() WHERE count <> 0),
	rows AS MATERIALIZED (SELECT state, count(*) AS count FROM qml.job GROUP BY 1)
SELECT coalesce(string_agg(format('%s: %s for %s', state, s.count, r.count), ', '), 'none')
FROM said s FULL JOIN rows r USING (state) WHERE s.count IS DISTINCT FROM r.count
SQL
}

# Restarts the server, and waits until the process counts.
sub restart_count
{
	my ($dbname) = @_;
	end_sessions($node);
	$node->restart;
	return counting_process($dbname);
}

# Waits until the process counts: its pid.
sub counting_process
{
	my ($dbname, $other) = @_;
	my $pid;
	wait_for('a count', sub {
		$pid = try_query($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'qml count' AND datname = '$dbname' AND wait_event_type = 'Extension'") // '';
		return $pid ne '' && $pid != ($other // 0);
	});
	return $pid;
}

# How late a job becomes ready, in seconds: after the time that the SQL returns with its id, beyond
# what the machine is late by itself.
sub lateness
{
	my ($sql) = @_;
	my ($id, $due) = split /\|/, ask($node, $sql);
	my $lag;
	my $machine = machine_lag(0.2) / 1000;
	wait_for('a job to be ready', sub {
		$lag = ask($node, "SELECT extract(epoch FROM clock_timestamp() - '$due') FROM qml.live WHERE id = '$id' AND state = 'enqueued' AND clock_timestamp() > '$due'");
		return $lag ne '';
	});
	return max($lag - $machine, 0);
}

# ---- a long count holds up nothing

prepare('postgres');
query($node, "SELECT qml_schedule_recurring('r', '* * * * * *', 'tick', queue => 'ticks')");
my $begun = time;
restart_count('postgres');
ok(!is_counted(), 'while rows are counted the first time, functions read them');
my (@promoted, @reclaimed);
foreach (1 .. 5)
{
	push @promoted, lateness("SELECT qml_enqueue('m', queue => 'later', run_at => clock_timestamp() + interval '0.5 s'), clock_timestamp() + interval '0.5 s'");
	ask($node, "SELECT qml_enqueue('m', queue => 'leases')");
	push @reclaimed, lateness("SELECT id, lease_expires_at FROM qml_fetch('w', 'leases', lease => '0.5 s')");
}
is(process($node, 'count', 'postgres') // 0, counting_process('postgres'), 'the count goes on');
cmp_ok(max(@promoted), '<=', $LATE, sprintf 'jobs become ready on time meanwhile (%.3f s late)', max @promoted);
cmp_ok(max(@reclaimed), '<=', $LATE, sprintf 'and when a lease ends (%.3f s)', max @reclaimed);
my $tick = ask($node, <<'SQL');
SELECT max(extract(epoch FROM created_at - (metadata #>> '{recurring,tick}')::timestamptz)) FROM qml.job
WHERE method = 'tick' AND created_at BETWEEN pg_postmaster_start_time() + interval '3 s' AND now()
SQL
cmp_ok($tick, '<=', $LATE_TICK, sprintf 'schedules fire on time (%.3f s)', $tick);
cmp_ok(ask($node, q{SELECT count(*) FROM qml.job WHERE method = 'tick' AND created_at > now() - interval '4 s'}), '>=', 2, 'several times');

wait_for('the end of the count', sub { log_count($node, 'all jobs were counted', 0) > 1 || is_counted() });
cmp_ok(time - $begun, '>', 10, sprintf 'a count of %d s comes to its end', time - $begun);
ok(is_counted(), 'its numbers are used');
query($node, "SELECT qml_pause_recurring('r')");
is(differences(), 'none', 'they are those of the rows, with what was done meanwhile');
is(log_count($node, 'wrong, and w', 0), 0, 'no number was wrong');

# ---- those who need something alone

# Whether the SQL is done soon although a count is under way.
sub is_soon
{
	my ($name, $sql, $dbname) = @_;
	my $start = time;
	query($node, "SET statement_timeout = '60 s'; SET lock_timeout = '60 s'; $sql", 'template1') if $sql =~ /DATABASE/;
	query($node, "SET statement_timeout = '60 s'; $sql", $dbname) if $sql !~ /DATABASE/;
	my $took = time - $start;
	cmp_ok($took, '<', $SOON, sprintf '%s takes %.1f s during a count', $name, $took);
	return;
}

my $pid = restart_count('postgres');
is_soon('a lock on a table', 'BEGIN; LOCK TABLE qml.live IN ACCESS EXCLUSIVE MODE; COMMIT', 'postgres');
counting_process('postgres', $pid);
pass('the count is made again');

# A table that is rewritten after the snapshot was taken, and before it is read: the snapshot does
# not see its rows.
ask($node, "SELECT qml_enqueue('m', queue => 'done') FROM generate_series(1, 3)");
ask($node, "SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', 'done', 3)");
my $leaf = ask($node, "SELECT DISTINCT tableoid::regclass FROM qml.history WHERE state = 'succeeded'");
restart_count('postgres');
query($node, "ALTER TABLE $leaf SET UNLOGGED; ALTER TABLE $leaf SET LOGGED");
ok(!is_counted(), 'a table was rewritten during a count');
set_config($node, 'qml.faults' => 'counting.pause_ms:limit:100');
wait_for('the numbers', sub { is_counted() });
is(differences(), 'none', 'the numbers are those of its rows');

set_config($node, 'qml.faults' => $SLOW);
restart_count('postgres');
set_config($node, 'qml.scheduler_enabled' => 'off');
wait_for('the count to be given up', sub { !defined process($node, 'count', 'postgres') });
pass('a setting ends the count');
set_config($node, 'qml.scheduler_enabled' => undef);

restart_count('postgres');
is_soon('DROP EXTENSION', 'DROP EXTENSION qml CASCADE', 'postgres');
wait_for('the process to leave', sub { !defined process($node, 'count', 'postgres') });

query($node, 'CREATE DATABASE other');
query($node, 'CREATE EXTENSION qml', 'other');
prepare('other');
$pid = restart_count('other');
my $log = -s $node->logfile;
end_sessions($node);
kill 'KILL', $pid;
wait_for('the server', sub { log_count($node, 'all server processes terminated; reinitializing', $log) > 0 && (try_query($node, 'SELECT 1') // '') eq '1' });
counting_process('other', $pid);
pass('after the process was killed, the count is made again');

my $start = time;
$node->stop;
cmp_ok(time - $start, '<', $SOON, 'the server stops during a count');
$node->start;
counting_process('other');
is_soon('DROP DATABASE', 'DROP DATABASE other');
is(log_count($node, 'TRAP', 0) + log_count($node, 'PANIC', 0), 0, 'no process failed');
$node->stop;

# ---- no process to spare

$node = background_node('no_process', variant => 'faults', conf => <<'CONF');
autovacuum = off
max_worker_processes = 2
max_logical_replication_workers = 0
qml.workers = 0
CONF
prepare('postgres');
wait_for('the scheduler to be refused a process',
	sub { log_count($node, 'LOG:  no background process could be started to count the jobs in database "postgres"', 0) > 0 });
ok(!is_counted(), 'where no process is to spare, rows are counted');
is(differences(), 'none', 'which gives the same numbers');
ok(defined process($node, 'scheduler', 'postgres'), 'the scheduler goes on');
end_sessions($node);
$node->append_conf('postgresql.conf', 'max_worker_processes = 4');
$node->restart;
wait_for('the numbers', sub { is_counted() });
is(differences(), 'none', 'with one more process the jobs are counted');
end_sessions($node);
$node->stop;
done_testing();
