# The scheduler does what is due when it is due: woken at commit, not by polling;
# idle, it costs nothing; and whatever owners of databases and roles set does not
# reach it.

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

# Milliseconds that something may come late on an idle machine.
my $LATE = 20;

# Polling is out of the question here, so that only wake-ups are left.
my %HOURLY = (
	'qml.scheduler_poll_interval' => '1h',
	'qml.recurring_poll_interval' => '1h',
	'qml.cleanup_interval' => '1h');

my $node = background_node('scheduler', conf => <<'CONF');
track_commit_timestamp = on
autovacuum = off
max_prepared_transactions = 2
qml.stats_series = 0
CONF
set_config($node, %HOURLY);
ok($node->poll_query_until('postgres', "SHOW qml.scheduler_poll_interval", '1h'),
	'polling is as good as off');
my $scheduler = wait_for_process($node, 'scheduler', 'postgres');

# When a job got its present state: when the transaction that wrote it committed.
query($node, <<'SQL');
CREATE TABLE due (id uuid PRIMARY KEY, due timestamptz);
CREATE VIEW lag AS
	SELECT d.id, l.state, extract(epoch FROM pg_xact_commit_timestamp(l.xmin) - d.due) * 1000 AS ms
	FROM due d JOIN qml.live l USING (id) WHERE l.state = 'enqueued';
CREATE FUNCTION soon(seconds float8) RETURNS timestamptz
	RETURN clock_timestamp() + make_interval(secs => seconds);
SQL

# ---- jobs at random times

# The lags of jobs whose times are strewn over some seconds, and what the machine
# itself was late by meanwhile.
sub strew
{
	my ($jobs, $seconds) = @_;

	ask($node, <<"SQL");
TRUNCATE due;
WITH t AS MATERIALIZED (SELECT soon(0.3 + random() * $seconds) AS t FROM generate_series(1, $jobs))
INSERT INTO due SELECT qml_enqueue('strewn', run_at => t), t FROM t;
SQL
	my $machine = machine_lag($seconds);
	wait_for("$jobs jobs to be ready", sub { ask($node, 'SELECT count(*) FROM lag') == $jobs });
	return ($machine, split /\n/, ask($node, 'SELECT ms FROM lag'));
}

my $early = 0;
my $lag = best_of(
	$LATE,
	sub {
		my ($machine, @lags) = strew(100, 4);
		my $p99 = percentile(99, @lags);

		$early += grep { $_ < 0 } @lags;
		note(sprintf 'late by %.1f ms (median), %.1f ms (p99); the machine itself by %.1f ms (p99)',
			percentile(50, @lags), $p99, $machine);
		# What any process waits for its turn is not the scheduler's.
		return max($p99 - $machine, 0);
	});
cmp_ok($lag, '<=', $LATE, "99 of 100 jobs are ready within $LATE ms of their time");
is($early, 0, 'none of them is ready before');

# ---- woken at commit

# How late the one job is that the SQL makes: it inserts its id and time into due.
sub lag_of
{
	my ($sql) = @_;

	ask($node, "TRUNCATE due");
	return lag_of_due($sql);
}

# Here the SQL only commits it.
sub lag_of_due
{
	my ($sql) = @_;
	my $lag;

	ask($node, $sql);
	my $machine = machine_lag(0.2);
	wait_for('the job to be ready',
		sub { ($lag = ask($node, 'SELECT ms FROM lag')) ne '' });
	die "the job was ready $lag ms after its time" if $lag < 0;
	return max($lag - $machine, 0);
}

sub on_time
{
	my ($name, $sql, $late) = @_;
	$late //= $LATE;
	my $lag = best_of($late, sub { lag_of($sql) });
	cmp_ok($lag, '<=', $late, sprintf '%s is ready on time (%.1f ms)', $name, $lag);
	return;
}

my $enqueue = q{INSERT INTO due
	SELECT qml_enqueue('on time', run_at => t), t FROM (SELECT soon(%s) AS t OFFSET 0) s};
my $in_300_ms = sprintf $enqueue, 0.3;

on_time('a job due in 1.5 s', sprintf $enqueue, 1.5);
on_time('a job due in 0.3 s', $in_300_ms);
ask($node, "SELECT qml_enqueue('in an hour', run_at => soon(3600))");
on_time('one that is due before others', $in_300_ms);
on_time('one of a released subtransaction', "BEGIN; SAVEPOINT s; $in_300_ms; RELEASE s; COMMIT");
on_time('one beside a subtransaction that is rolled back', <<"SQL");
BEGIN;
$in_300_ms;
SAVEPOINT s;
SELECT qml_enqueue('never', run_at => soon(0.1));
ROLLBACK TO s;
COMMIT
SQL
on_time('one of a prepared transaction', <<"SQL");
BEGIN;
$in_300_ms;
PREPARE TRANSACTION 'p';
COMMIT PREPARED 'p';
SQL
on_time('one of a block with an exception handler', <<"SQL");
DO \$\$ BEGIN BEGIN $in_300_ms; EXCEPTION WHEN division_by_zero THEN NULL; END; END \$\$
SQL
on_time('one of many', <<'SQL');
WITH t AS MATERIALIZED (SELECT soon(0.3) AS t)
INSERT INTO due
SELECT id, t FROM t, LATERAL (SELECT id FROM qml_enqueue_many('many', ARRAY['{}']::jsonb[],
	run_at => t) id) m
SQL
on_time('a job that is scheduled anew', <<'SQL');
WITH j AS MATERIALIZED (
	SELECT qml_enqueue('moved', run_at => soon(3600)) AS id, soon(0.3) AS t),
i AS (INSERT INTO due SELECT id, t FROM j)
SELECT id FROM j;
SELECT qml_reschedule(id, due) FROM due
SQL
on_time('a retry', <<'SQL');
SELECT qml_enqueue('retried', queue => 'retry');
INSERT INTO due SELECT id, soon(0.3) FROM qml.job WHERE queue = 'retry' AND attempt = 0;
SELECT qml_fail(id, attempt, 'oops', retry_at => due) FROM due, LATERAL (
	SELECT attempt FROM qml_fetch('w', '{retry}') j WHERE j.id = due.id) a
SQL

# What is rolled back wakes nobody; what is committed does, if it is due before all
# else.
sub wakeups_of
{
	my ($end) = @_;
	my ($before, $base) = (wakeups($scheduler), time + 0.9);

	foreach (1 .. 15)
	{
		my $due = sprintf '%.6f', $base - $_ * 0.02;
		ask($node, "BEGIN; SELECT qml_enqueue('never', run_at => to_timestamp($due)); $end");
		sleep 0.03;
	}
	return wakeups($scheduler) - $before;
}

my $rolled_back = best_of(5, sub { wakeups_of('ROLLBACK') });
cmp_ok($rolled_back, '<=', 5, "transactions that are rolled back wake nobody ($rolled_back)");
is(query($node, "SELECT count(*) FROM qml.job WHERE method = 'never'"), 0, 'and leave nothing');
my $committed = -best_of(-8, sub { -wakeups_of('COMMIT') });
cmp_ok($committed, '>=', 8, "those that commit do ($committed)");

# ---- recurring jobs

# How late the first job of a schedule is that the SQL makes.
sub tick_on_time
{
	my ($name, $sql) = @_;
	my $lag = best_of(
		$LATE,
		sub {
			my $lag;
			ask($node, 'TRUNCATE qml.live');
			ask($node, $sql);
			my $machine = machine_lag(0.5);
			wait_for('the tick',
				sub { ($lag = ask($node, <<'SQL')) ne '' });
SELECT min(extract(epoch FROM pg_xact_commit_timestamp(l.xmin)
	- (metadata #>> '{recurring,tick}')::timestamptz) * 1000)
FROM qml.live l WHERE method = 'tick'
SQL
			ask($node, "SELECT qml_remove_recurring('r')");
			die "the tick was fired $lag ms after its time" if $lag < 0;
			return max($lag - $machine, 0);
		});
	cmp_ok($lag, '<=', $LATE, sprintf '%s fires on time (%.1f ms)', $name, $lag);
	return;
}

tick_on_time('a recurring job', "SELECT qml_schedule_recurring('r', '* * * * * *', 'tick')");
tick_on_time('one that is changed', <<'SQL');
SELECT qml_schedule_recurring('r', '@yearly', 'tick');
SELECT qml_schedule_recurring('r', '* * * * * *', 'tick')
SQL
tick_on_time('one that is enabled again', <<'SQL');
BEGIN;
SELECT qml_schedule_recurring('r', '* * * * * *', 'tick');
SELECT qml_pause_recurring('r');
COMMIT;
SELECT qml_resume_recurring('r')
SQL

# As after an update of the zone data: a new scheduler computes all next ticks anew.
ask($node, 'TRUNCATE qml.live');
ask($node, <<'SQL');
BEGIN;
SELECT qml_schedule_recurring('r', '* * * * * *', 'tick');
UPDATE qml.recurring_data SET next_run_at = next_run_at + interval '1 day 0.5 s';
COMMIT
SQL
query($node, "SELECT pg_terminate_backend($scheduler)");
wait_for('a tick after its next time was computed anew',
	sub { ask($node, "SELECT count(*) FROM qml.live WHERE method = 'tick'") > 0 });
ask($node, "SELECT qml_remove_recurring('r')");
$scheduler = wait_for_process($node, 'scheduler', 'postgres');
pass('a tick whose time is computed anew wakes the scheduler');

# ---- leases

# Not more than once in a second are all jobs looked at.
on_time('a job whose lease is over', <<'SQL', 1000 + $LATE);
SELECT qml_enqueue('lost', queue => 'lease');
INSERT INTO due SELECT id, lease_expires_at FROM qml_fetch('w', '{lease}', 1, '1 s')
SQL
on_time('one whose lease was extended', <<'SQL', 1000 + $LATE);
SELECT qml_enqueue('lost', queue => 'longer');
INSERT INTO due SELECT id, lease_expires_at FROM qml_fetch('w', '{longer}', 1, '0.5 s');
UPDATE due SET due = qml_heartbeat(id, 1, '2 s')
SQL

query($node, <<'SQL');
BEGIN;
SELECT qml_enqueue('never', run_at => soon(0.1));
PREPARE TRANSACTION 'p';
ROLLBACK PREPARED 'p';
SQL
is(query($node, "SELECT count(*) FROM qml.live WHERE method = 'never'"),
	0, 'a job of a prepared transaction that is rolled back is not there');

# The names of prepared transactions are not known after a restart, and the end of
# one that is rolled back takes nothing from the next.
$lag = best_of(
	$LATE,
	sub {
		ask($node, 'TRUNCATE due');
		ask($node, 'BEGIN; ' . sprintf($enqueue, 6) . "; PREPARE TRANSACTION 'p'");
		ask($node, "BEGIN; SELECT qml_enqueue('never'); PREPARE TRANSACTION 'q'");
		end_sessions($node);
		$node->restart;
		$scheduler = sleeping_scheduler($node, $scheduler);
		ask($node, "ROLLBACK PREPARED 'q'");
		return lag_of_due("COMMIT PREPARED 'p'");
	});
cmp_ok($lag, '<=', $LATE, 'one that was prepared before a restart is ready on time');

# ---- changes by hand: nobody is told, polling finds them

set_config($node, 'qml.scheduler_poll_interval' => '500ms');
ask($node, "SELECT qml_enqueue('by hand', run_at => soon(3600))");
on_time('a job that is changed by hand', <<'SQL', 500 + $LATE);
WITH j AS (UPDATE qml.live SET run_at = soon(0.3) WHERE method = 'by hand' RETURNING id, run_at)
INSERT INTO due SELECT * FROM j
SQL

# ---- an idle database

set_config($node, map { $_ => undef } keys %HOURLY);
query($node, 'TRUNCATE qml.live, qml.recurring_data');
query($node, "SELECT qml_enqueue('in an hour', run_at => soon(3600))");
query($node, "SELECT qml_schedule_recurring('yearly', '\@yearly', 'tick')");
is(process($node, 'scheduler', 'postgres'), $scheduler, 'all that is done by one process');

sub idle
{
	my ($seconds) = @_;
	my $launcher = process($node, 'launcher');
	my %before = map { $_ => wakeups($_) } $scheduler, $launcher;
	my $xmax = ask($node, 'SELECT pg_snapshot_xmax(pg_current_snapshot())');
	my $end = time + $seconds;
	my ($samples, $busy) = (0, 0);

	while (time < $end)
	{
		$samples++;
		$busy++ if ask($node, <<'SQL') ne 'f';
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'qml %'
		AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL OR xact_start IS NOT NULL))
	OR EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE a.backend_type LIKE 'qml %')
SQL
		sleep 0.2;
	}
	return (
		ids => ask($node, 'SELECT pg_snapshot_xmax(pg_current_snapshot())') - $xmax,
		busy => $busy / $samples,
		scheduler => (wakeups($scheduler) - $before{$scheduler}) / $seconds,
		launcher => (wakeups($launcher) - $before{$launcher}) / $seconds);
}

sleep 2;
my %idle = idle(10);
is($idle{ids}, 0, 'an idle database uses no transaction ids');
cmp_ok($idle{busy}, '<=', 0.2,
	'the processes hold no snapshot, no transaction and no lock while they sleep');
cmp_ok($idle{scheduler} + $idle{launcher}, '<', 2,
	sprintf 'they wake less than twice a second (%.2f and %.2f times)', @idle{qw(scheduler launcher)});

# ---- what it shows

# The scheduler wakes every second, for a moment.
wait_for('both to be seen asleep', sub {
	return query($node, <<'SQL') =~
SELECT backend_type, application_name, usename, datname, state, wait_event_type
FROM pg_stat_activity WHERE backend_type LIKE 'qml %' ORDER BY 1
SQL
	  qr/^qml\ launcher\|qml\ launcher\|\w+\|\|idle\|Extension\n
		qml\ scheduler\|qml\ scheduler\|\w+\|postgres\|idle\|Extension$/x;
});
pass('pg_stat_activity shows the processes');
{
	my $blocker = new_session($node);
	$blocker->query_safe('BEGIN; LOCK TABLE qml.live IN ACCESS EXCLUSIVE MODE');
	ok( $node->poll_query_until('postgres', <<'SQL'), 'and what they do');
SELECT state = 'active' AND query = 'promoting due jobs' AND wait_event_type = 'Lock'
FROM pg_stat_activity WHERE backend_type = 'qml scheduler'
SQL
	$blocker->query_safe('COMMIT');
	$blocker->quit;
	on_time('a job after that', $in_300_ms);
}

# Autovacuum learns of the writes.
my $updates = query($node, "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = 'qml.live'::regclass");
query($node, "SELECT qml_enqueue_many('count', array_fill('{}'::jsonb, ARRAY[50]), run_at => soon(0.1))");
ok( $node->poll_query_until('postgres', <<"SQL"), 'what it writes is counted');
SELECT n_tup_upd >= $updates + 50 FROM pg_stat_user_tables WHERE relid = 'qml.live'::regclass
SQL

# ---- settings

# A call's settings are a superuser's, the processes' come by reload.
is(query($node, <<'SQL'), <<'TXT' =~ s/\n\z//r, 'who may change which setting');
SELECT context, string_agg(substr(name, 5), ' ' ORDER BY name) FROM pg_settings
WHERE name LIKE 'qml.%' GROUP BY 1 ORDER BY 1
SQL
postmaster|stats_series
sighup|alert_interval alert_limit alert_max_age alert_max_failure_rate audit_ttl cleanup_interval databases dead_server_timeout enable_cleanup enable_recurring enable_scheduler enabled heartbeat_interval max_workers recurring_poll_interval scheduler_poll_interval server_name shutdown_timeout worker_idle_timeout workers
superuser|failed_ttl job_timeout lease log_failures max_payload_size max_retries new_queues ready_lists search_limit succeeded_ttl warn_idle
user|actor
TXT

# ---- hostile settings

my @SETTINGS = (
	"search_path = evil, pg_catalog",
	"statement_timeout = 1",
	"lock_timeout = 1",
	"idle_in_transaction_session_timeout = 1",
	"idle_session_timeout = 1",
	"default_transaction_read_only = on",
	"default_transaction_isolation = 'serializable'",
	"default_transaction_deferrable = on",
	"synchronous_commit = off",
	"row_security = off",
	"TimeZone = 'Australia/Lord_Howe'",
	"DateStyle = 'SQL, DMY'",
	"IntervalStyle = sql_standard",
	"standard_conforming_strings = off",
	"check_function_bodies = off",
	"client_encoding = 'SJIS'",
	"quote_all_identifiers = on",
	"transform_null_equals = on",
	"array_nulls = off",
	"bytea_output = escape",
	"extra_float_digits = -15",
	"enable_seqscan = off",
	"enable_indexscan = off",
	"work_mem = 64",
	"client_min_messages = debug5",
	"application_name = 'evil'",
	"exit_on_error = on");

query($node, <<'SQL');
CREATE ROLE mallory LOGIN;
CREATE ROLE keeper LOGIN;
CREATE DATABASE hostile OWNER mallory;
SQL
query($node, <<'SQL', 'hostile');
CREATE EXTENSION qml;
SET ROLE mallory;
CREATE SCHEMA evil;
GRANT ALL ON SCHEMA evil TO PUBLIC;
CREATE TABLE evil.caught (who name);
GRANT ALL ON evil.caught TO PUBLIC;
CREATE FUNCTION evil.catch() RETURNS void LANGUAGE sql AS 'INSERT INTO evil.caught VALUES (current_user)';
GRANT ALL ON FUNCTION evil.catch() TO PUBLIC;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.catch(); SELECT pg_catalog.now()';
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.catch(); SELECT pg_catalog.now()';
CREATE FUNCTION evil.current_database() RETURNS name LANGUAGE sql AS 'SELECT evil.catch(); SELECT pg_catalog.current_database()';
CREATE FUNCTION evil.to_char(timestamptz, text) RETURNS text LANGUAGE sql AS 'SELECT evil.catch(); SELECT pg_catalog.to_char($1, $2)';
CREATE FUNCTION evil.timestamptz_op(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT evil.catch(); SELECT true';
CREATE FUNCTION evil.text_op(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.catch(); SELECT true';
CREATE FUNCTION evil.oid_op(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT evil.catch(); SELECT true';
SELECT format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.%s_op)',
	op, type, type, type)
FROM unnest('{=,<,<=,>,>=,<>}'::text[]) op, unnest('{timestamptz,text,oid}'::text[]) type
\gexec
SQL

# All that the scheduler does goes on in the database.  Whoever asks for it must not
# suffer from the settings himself.
sub works_in
{
	my ($dbname, $name) = @_;
	my $was = query($node, 'SELECT clock_timestamp()');
	my @own = (connstr => $node->connstr($dbname) . q{ options='-c search_path=public}
		  . q{ -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c exit_on_error=off}
		  . q{ -c default_transaction_read_only=off}
		  . q{ -c standard_conforming_strings=on -c client_encoding=UTF8 -c TimeZone=UTC -c DateStyle=ISO}
		  . q{ -c client_min_messages=warning'});

	$node->safe_psql($dbname, <<"SQL", @own);
SELECT qml_enqueue('delayed', queue => 'd', run_at => clock_timestamp() + interval '0.3 s');
SELECT qml_enqueue('lost', queue => 'l');
SELECT qml_fetch('w', '{l}', 1, '0.5 s');
SELECT qml_schedule_recurring('$name', '* * * * * *', 'tick');
SELECT qml_try_lock('$name', 'w', '0.5 s');
SQL
	wait_for("$name: all work to go on",
		sub { $node->safe_psql($dbname, <<"SQL", @own) eq 't' });
SELECT (SELECT count(*) = 1 FROM qml.job WHERE method = 'delayed' AND state = 'enqueued')
	AND (SELECT count(*) = 1 FROM qml.job WHERE method = 'lost' AND state = 'enqueued')
	AND (SELECT count(*) > 1 FROM qml.occurrence_data WHERE occurrence > '$was')
	AND (SELECT count(*) = 0 FROM qml.lock_data)
SQL
	is($node->safe_psql($dbname, 'SELECT count(*) FROM evil.caught', @own),
		0, "$name: all work goes on, and calls nothing of others");
	$node->safe_psql($dbname, "SELECT qml_remove_recurring('$name'); TRUNCATE qml.live", @own);
	return;
}

# Connects anew, so that the settings have their chance.
sub restart_scheduler
{
	my ($dbname) = @_;
	my $old = wait_for_process($node, 'scheduler', $dbname);
	query($node, "SELECT pg_terminate_backend($old)");
	wait_for_process($node, 'scheduler', $dbname, $old);
	return;
}

my $offset = -s $node->logfile;
set_config($node, 'qml.cleanup_interval' => '1s');
works_in('hostile', 'before');

# As the database's owner, who is allowed to: none of this needs a superuser.
$node->safe_psql('postgres', join('', map { "ALTER DATABASE hostile SET $_;\n" } @SETTINGS),
	extra_params => [ '-U', 'mallory' ]);
restart_scheduler('hostile');
works_in('hostile', 'settings of a database');

# The settings of the role that owns the extension, who sets them for itself.
query($node, 'ALTER DATABASE hostile RESET ALL');
give_extension($node, 'hostile', 'keeper');
$node->safe_psql('postgres', join('', map { "ALTER ROLE keeper SET $_;\n" } @SETTINGS),
	extra_params => [ '-U', 'keeper' ]);
restart_scheduler('hostile');
ok( $node->poll_query_until('postgres', <<'SQL'), 'the scheduler is the new owner');
SELECT usename = 'keeper' FROM pg_stat_activity WHERE backend_type = 'qml scheduler' AND datname = 'hostile'
SQL
works_in('hostile', 'settings of a role');

my $log = slurp_file($node->logfile, $offset);
unlike($log, qr/qml (scheduler|launcher).*failed|passed over|skipped|cannot fire/, 'nothing failed');

end_sessions($node);
done_testing();
