# qml_run, qml_drain and qml_fetch_job beside other sessions: isolation levels, rows that others hold,
# cancels, prepared transactions, workers, and what memory and lists keep of it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlBackground;
use QmlTest;
use Test::More;

# Nothing runs jobs but what the test says.
my $node = background_node('test_mode', conf => "qml.workers = 0\n");
wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE ROLE app LOGIN;
CREATE TABLE tally (n int PRIMARY KEY, hits int NOT NULL DEFAULT 0);
INSERT INTO tally SELECT generate_series(1, 9);
GRANT ALL ON tally TO app;
CREATE FUNCTION hit(n int) RETURNS int LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
	total int;
BEGIN
	IF n = 0 THEN
		PERFORM pg_sleep(600);
	END IF;
	UPDATE tally SET hits = hits + 1 WHERE tally.n = n RETURNING hits INTO STRICT total;
	RETURN total;
END $$;
SELECT qml_register_handler('hit', 'hit', '{"run_as": "app", "retry": {"strategy": "fixed", "delay": "1 h", "jitter": 0}}');
SELECT qml_grant('app', 'enqueue'), qml_grant('app', 'work');
SQL

my $n = 0;

sub new_id { return sprintf '01890000-0000-7000-8000-%012d', ++$n; }

# A session of the application.
sub app_session
{
	my (%opt) = @_;
	return new_session($node, 'postgres', extra_params => [ '-U', 'app' ], %opt);
}

# What a statement of a session ends with, which may be an error.
sub answer
{
	my ($session, $sql) = @_;
	my $out = $session->query($sql);
	my $error = $session->{stderr};
	$session->{stderr} = '';
	return $error =~ /ERROR:\s+(.*)/ ? "ERROR: $1" : $out;
}

sub hits { return query($node, "SELECT hits FROM tally WHERE n = $_[0]"); }

# All isolation levels: the job and its effect, undone with a savepoint and kept with the rest.
foreach my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
{
	my $session = app_session();
	my ($first, $second) = (new_id(), new_id());
	my $before = hits(1);
	$session->query_safe("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM qml.job");
	$session->query_safe(qq(SELECT qml_enqueue('hit', '{"n": 1}', 'levels', id => id::uuid) FROM (VALUES ('$first'), ('$second')) v (id)));
	is($session->query_safe("SAVEPOINT s; SELECT state, result FROM qml_run('$first')"),
		'succeeded|' . ($before + 1), "$level: a job that is run");
	is($session->query_safe("ROLLBACK TO s; SELECT state, attempt FROM qml_job('$first')"), 'enqueued|0', "$level: and undone");
	is($session->query_safe("SELECT qml_drain('levels')"), '2', "$level: a drain of both");
	is($session->query_safe("SELECT qml_drain('levels')"), '0', "$level: nothing is left");
	is($session->query_safe("SELECT string_agg(state::text, ' ') FROM qml.job WHERE id IN ('$first', '$second')"),
		'succeeded succeeded', "$level: as the transaction sees it");
	is(query($node, "SELECT count(*) FROM qml.job WHERE id = '$first'"), '0', "$level: and nobody else");
	$session->query_safe('COMMIT');
	$session->quit;
	is(hits(1), $before + 2, "$level: each has taken effect once");
}

# A conflict with another transaction is the caller's where the snapshot stays, and the job's otherwise.
foreach my $level ('READ COMMITTED', 'REPEATABLE READ')
{
	my $session = app_session(on_error_stop => 0);
	my $id = new_id();
	$session->query_safe("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM tally");
	query($node, 'UPDATE tally SET hits = 10 WHERE n = 2');
	my $out = answer($session, qq(SELECT (qml_run(qml_enqueue('hit', '{"n": 2}', 'levels'))).result));
	$level eq 'READ COMMITTED' ?
	  is($out, '11', "$level: what others commit is seen") :
	  is($out, 'ERROR: could not serialize access due to concurrent update', "$level: a conflict ends the call");
	answer($session, 'ROLLBACK');
	$session->quit;
}
{
	my @sessions = (new_session($node, 'postgres', on_error_stop => 0), app_session(on_error_stop => 0));
	$sessions[0]->query_safe("BEGIN; SET deadlock_timeout = '1 h'");
	$sessions[1]->query_safe('BEGIN');
	$sessions[0]->query_safe('UPDATE tally SET hits = hits WHERE n = 3');
	$sessions[1]->query_safe('UPDATE tally SET hits = hits WHERE n = 4');
	# Only the second one looks for deadlocks.
	$sessions[0]->query_until(qr/waits/, "\\echo waits\nUPDATE tally SET hits = hits WHERE n = 4;\n");
	wait_for('the first one waits', sub { query($node, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") eq '1' });
	is(answer($sessions[1], q(SELECT state, error, errors -> 0 ->> 'error_type' FROM qml_run(qml_enqueue('hit', '{"n": 3}', 'levels')))),
		'awaiting_retry|deadlock detected|40P01', 'a deadlock fails the attempt');
	answer($sessions[1], 'ROLLBACK');
	answer($sessions[0], 'ROLLBACK');
	$_->quit foreach @sessions;
}

# A row that another transaction has: a run waits for it, a drain passes it by.
{
	my ($first, $second) = (new_id(), new_id());
	query($node, qq(SELECT qml_enqueue('hit', '{"n": 5}', 'held', id => '$_'))) foreach $first, $second;
	my $holder = new_session($node);
	$holder->query_safe("BEGIN; SELECT qml_reschedule('$first', now() + interval '1 h')");
	my $session = app_session(on_error_stop => 0);
	$session->query_safe('BEGIN');
	is(answer($session, "SELECT qml_drain('held', scheduled => true)"), '1', 'a drain passes over what another transaction has');
	is(answer($session, "SELECT state FROM qml_job('$second')"), 'succeeded', 'and runs the rest');
	like(answer($session, "SAVEPOINT s; SET LOCAL lock_timeout = '100 ms'; SELECT qml_run('$first')"), qr/lock timeout/, 'a run waits');
	like(answer($session, "ROLLBACK TO s; SET LOCAL lock_timeout = '100 ms'; SELECT qml_fetch_job('$first')"), qr/lock timeout/, 'and so does a claim');
	$holder->query_safe('ROLLBACK');
	is(answer($session, "ROLLBACK TO s; SELECT attempt FROM qml_fetch_job('$first')"), '1', 'until it is free');
	answer($session, 'ROLLBACK');
	$_->quit foreach $holder, $session;
	is(query($node, "SELECT count(*) FROM qml.job WHERE queue = 'held' AND state = 'enqueued'"), '2', 'all of it is undone');
	is(hits(5), '0', 'with its effects');
	query($node, "SELECT qml_delete('$first'), qml_delete('$second')");
}

# Cancels and timeouts of the statement are the caller's, whatever the job does.
{
	my $session = app_session(on_error_stop => 0);
	$session->query_safe('BEGIN');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $id = new_id();
	$session->query_safe(qq(SELECT qml_enqueue('hit', '{"n": 0}', 'levels', id => '$id'); SAVEPOINT s));
	$session->query_until(qr/runs/, "\\echo runs\nSELECT qml_run('$id');\n");
	wait_for('the job sleeps', sub { query($node, "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid") eq 'PgSleep' });
	query($node, "SELECT pg_cancel_backend($pid)");
	like(answer($session, 'ROLLBACK TO s'), qr/canceling statement due to user request/, 'a cancel ends the call');
	is(answer($session, "SELECT state, attempt FROM qml_job('$id')"), 'enqueued|0', 'which is no error of the job');
	is(answer($session, 'SELECT qml_current_job() IS NULL'), 't', 'no job runs then');
	is(answer($session, q(SELECT state FROM qml_run(qml_enqueue('hit', '{"n": 6}', 'levels')))), 'succeeded', 'and another one can');
	$session->query_until(qr/runs/, "\\echo runs\nSELECT qml_run('$id');\n");
	wait_for('the job sleeps', sub { query($node, "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid") eq 'PgSleep' });
	query($node, "SELECT pg_terminate_backend($pid)");
	wait_for('its session has ended', sub { query($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") eq '0' });
	is(query($node, "SELECT count(*) FROM qml.job WHERE id = '$id'"), '0', 'what ends the session leaves nothing');
	is(hits(6), '0', 'of what ran before, either');
}

# Errors of the same SQLSTATE that the handler raises are the job's.
query($node, <<'SQL');
CREATE FUNCTION stop(code text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'stopped' USING ERRCODE = code; END $$;
SELECT qml_register_handler('stop', 'stop', '{"run_as": "app", "retry": {"strategy": "fixed", "delay": "1 h", "jitter": 0}}');
SQL
foreach my $code ('57014', '57P01', '57P03')
{
	my $session = app_session(on_error_stop => 0);
	$session->query_safe('BEGIN');
	is(answer($session, qq(SELECT state, error, errors -> 0 ->> 'error_type' FROM qml_run(qml_enqueue('stop', '{"code": "$code"}', 'levels')))),
		"awaiting_retry|stopped|$code", "$code of the handler fails the attempt");
	is(answer($session, qq(SELECT count(qml_enqueue('stop', '{"code": "$code"}', 'stopped')) FROM generate_series(1, 2))), '2', "$code: two jobs");
	is(answer($session, q(SELECT qml_drain('stopped'))), '2', "$code does not end a drain");
	answer($session, 'ROLLBACK');
	$session->quit;
}
{
	my $session = app_session(on_error_stop => 0);
	$session->query_safe("BEGIN; SET LOCAL statement_timeout = '100 ms'");
	like(answer($session, q(SELECT qml_run(qml_enqueue('hit', '{"n": 0}', 'levels')))), qr/canceling statement due to statement timeout/,
		'a timeout of the statement is the caller\'s');
	answer($session, 'ROLLBACK');
	$session->quit;
}

# What a run leaves to the background: the retry, on time; and what the counters and lists know.
{
	my $id = new_id();
	my $session = app_session();
	$session->query_safe(qq(BEGIN; SELECT qml_enqueue('hit', '{"n": 77}', 'levels', id => '$id')));
	is($session->query_safe("SELECT state, error FROM qml_run('$id')"), 'awaiting_retry|query returned no rows', 'an attempt fails');
	$session->query_safe('COMMIT');
	query($node, 'INSERT INTO tally VALUES (77)');
	set_config($node, 'qml.workers' => 2);
	query($node, "SELECT qml_retry('$id')");
	wait_for('a worker runs the retry', sub { query($node, "SELECT state FROM qml_job('$id')") eq 'succeeded' });
	is(query($node, "SELECT attempt, jsonb_array_length(errors) FROM qml_job('$id')"), '2|1', 'as the second attempt');
	$session->quit;
	set_config($node, 'qml.workers' => 0);
}

# Prepared: a job that was run, and one that has failed.
foreach my $end ('COMMIT', 'ROLLBACK')
{
	my ($good, $bad) = (new_id(), new_id());
	my $before = hits(7);
	query($node, <<"SQL");
BEGIN;
SET LOCAL SESSION AUTHORIZATION app;
SELECT qml_enqueue('hit', '{"n": 7}', 'levels', id => '$good'), qml_enqueue('hit', '{"n": 99}', 'levels', id => '$bad');
SELECT qml_run('$good'), qml_run('$bad');
RESET SESSION AUTHORIZATION;
PREPARE TRANSACTION 'run';
SQL
	is(query($node, "SELECT count(*) FROM qml.job WHERE id IN ('$good', '$bad')"), '0', "prepared, $end: nothing is seen");
	query($node, "$end PREPARED 'run'");
	is(query($node, "SELECT string_agg(state::text, ' ' ORDER BY id) FROM qml.job WHERE id IN ('$good', '$bad')"),
		$end eq 'COMMIT' ? 'succeeded awaiting_retry' : '', "prepared, $end: then all or nothing");
	is(hits(7), $before + ($end eq 'COMMIT' ? 1 : 0), "prepared, $end: with its effects");
}

# Many, in one call and one transaction; lists and counters are as they were.
{
	my $counts = "SELECT state, count FROM qml_counts() WHERE count > 0 ORDER BY state";
	my $before = query($node, $counts);
	my $session = app_session();
	$session->query_safe(q(BEGIN; SELECT count(qml_enqueue('hit', jsonb_build_object('n', 1 + n % 9), 'many')) FROM generate_series(1, 500) n));
	is($session->query_safe("SELECT qml_drain('many', 499), qml_drain('many')"), '499|1', 'as many as are wanted');
	is($session->query_safe(q(SELECT state, count(*) FROM qml.job WHERE queue = 'many' GROUP BY 1)), 'succeeded|500', 'all of them');
	$session->query_safe('ROLLBACK');
	$session->quit;
	is(query($node, $counts), $before, 'the counters are as before');
	is(query($node, "SELECT count(*) FROM qml_fetch('w', 'many', methods => '{hit}')"), '0', 'nor is a job left in a list');
}

# It does not search for each job among all that it has ended: blocks of the table that are looked at.
foreach my $kind ([ 'ready', '', '' ], [ 'put off', q(, delay => '1 h'), ', scheduled => true' ], [ 'in a chain', '', '' ])
{
	my ($name, $option, $argument) = @$kind;
	my $session = app_session();
	my $blocks = q(SELECT pg_stat_get_xact_blocks_fetched('qml.live'::regclass));
	my $method = $name eq 'in a chain' ? 'chain' : 'hit';

	query($node, <<'SQL') if $name eq 'in a chain';
CREATE FUNCTION chain(n int) RETURNS void LANGUAGE sql AS $$ SELECT qml_enqueue('chain', jsonb_build_object('n', n - 1), 'long') WHERE n > 1 $$;
SELECT qml_register_handler('chain', 'chain', '{"run_as": "app"}');
SQL
	$session->query_safe('BEGIN; ' . ($method eq 'chain' ?
		q(SELECT qml_enqueue('chain', '{"n": 2000}', 'long')) :
		"SELECT count(qml_enqueue('hit', jsonb_build_object('n', 1 + i % 9), 'long'$option)) FROM generate_series(1, 2000) i"));
	my $before = $session->query_safe($blocks);
	is($session->query_safe("SELECT qml_drain('long', 5000$argument)"), '2000', "a drain of 2,000 jobs that are $name");
	my $looked = $session->query_safe($blocks) - $before;
	cmp_ok($looked, '<', 2000 * 60, "$name: it looks at few blocks for each ($looked)");
	cmp_ok($looked, '>=', 2000, "$name: the measure can tell");
	$session->query_safe('ROLLBACK');
	$session->quit;
}

# The order in which jobs come that others make: each priority before the lower ones.
{
	my $session = app_session();
	query($node, <<'SQL');
CREATE TABLE said (n serial, word text);
GRANT ALL ON said, said_n_seq TO app;
CREATE FUNCTION say(word text, makes jsonb) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_variable
BEGIN
	INSERT INTO said (word) VALUES (word);
	PERFORM qml_enqueue('say', m - 'priority' - 'delay' - 'queue', coalesce(m ->> 'queue', 'order'), priority => coalesce((m ->> 'priority')::int, 0),
		delay => (m ->> 'delay')::interval) FROM jsonb_array_elements(makes) m;
END $$;
SELECT qml_register_handler('say', 'say', '{"run_as": "app"}');
SQL
	$session->query_safe(<<'SQL');
BEGIN;
SELECT qml_enqueue('say', '{"word": "a", "makes": [{"word": "a1", "makes": []}, {"word": "high", "priority": 5, "makes": []}]}', 'order', priority => 1),
	qml_enqueue('say', '{"word": "b", "makes": [{"word": "soon", "delay": "1 min", "makes": []}, {"word": "late", "delay": "3 h", "makes": []}]}', 'order', priority => 1),
	qml_enqueue('say', '{"word": "c", "makes": []}', 'order'),
	qml_enqueue('say', '{"word": "hour", "makes": [{"word": "before", "delay": "30 min", "makes": []}, {"word": "at once", "makes": []}]}', 'order', delay => '1 h'),
	qml_enqueue('say', '{"word": "two hours", "makes": []}', 'order', delay => '2 h');
SELECT qml_drain('order', scheduled => true);
SQL
	is($session->query_safe("SELECT string_agg(word, ', ' ORDER BY n) FROM said"),
		'a, high, b, c, a1, soon, hour, at once, before, two hours, late', 'jobs that are made come in their order');
	$session->query_safe('ROLLBACK');
	$session->quit;
}

$node->stop;
done_testing();
