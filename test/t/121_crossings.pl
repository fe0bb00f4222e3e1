# Where two things meet: a deletion that is undone and a job that runs, hooks within
# hooks, middleware that runs the rest again, procedures that leave something behind,
# short jobs and a long one.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

my $node = background_node('crossings', conf => <<'CONF');
qml.workers = 2
max_worker_processes = 20
CONF
wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE TABLE ledger (job uuid, what text);
CREATE TABLE secret AS SELECT 'secret' AS word;
CREATE ROLE adm LOGIN;
GRANT CREATE ON SCHEMA public TO adm;
SELECT qml_grant('adm', 'admin');
-- Hooks run in the sessions of others: only with the privileges of the owner.
GRANT postgres TO adm;
SELECT qml_create_queue('fast', '{"retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}');
SELECT qml_create_queue('outside');
SQL
handler($node, 'work', <<'SQL');
CREATE FUNCTION work(job qml.job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger VALUES ((job).id, 'work');
	PERFORM pg_sleep(((job).payload ->> 'sleep')::float8);
END $$
SQL

sub running
{
	my ($id) = @_;
	wait_for("job $id to run", sub { worker_pids($node, "query LIKE '%$id' AND wait_event = 'PgSleep'") == 1 });
	return;
}

# ---- a deletion that is undone cancels nothing

foreach my $undone (
	'SAVEPOINT a; SELECT qml_delete(%s); ROLLBACK TO a',
	'SAVEPOINT a; SAVEPOINT b; SELECT qml_delete(%s); RELEASE b; ROLLBACK TO a',
	'DO $$ BEGIN PERFORM qml_delete(%s); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END $$')
{
	my $id = enqueue($node, 'work', '{"sleep": 3}');
	running($id);
	query($node, sprintf("BEGIN; $undone; SELECT qml_enqueue('m', queue => 'outside'); COMMIT", "'$id'"));
	is(outcome_of($node, $id), 'succeeded|1', "undone: $undone");
}
{
	my $id = enqueue($node, 'work', '{"sleep": 60}');
	running($id);
	query($node, "BEGIN; SAVEPOINT a; SELECT 1; RELEASE a; SAVEPOINT b; SELECT qml_delete('$id'); RELEASE b; SAVEPOINT c; ROLLBACK TO c; COMMIT");
	wait_for('the job to be cancelled', sub { worker_pids($node, "query LIKE '%$id'") == 0 });
	is(outcome($node, $id), 'deleted|1', 'one that is not undone does');
}
# A cancel that was meant for one job hits no other.
{
	my @others = map { enqueue($node, 'work', '{"sleep": 0.01}', 'max_retries => 0') } 1 .. 200;
	foreach my $id (@others[ map { 4 * $_ } 0 .. 49 ])
	{
		ask($node, "SELECT qml_delete('$id')");
	}
	settle($node, 'work');
	is(ask($node, q{SELECT count(*) FROM qml.history WHERE method = 'work' AND state = 'failed'}), 0, 'deletions hit none but their own');
}

# ---- careful work within careful work

query($node, <<'SQL');
SET ROLE adm;
CREATE FUNCTION deep(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN IF public.qml_promote_due(1) = 0 THEN RAISE 'end' USING ERRCODE = '40001'; END IF; END $$;
-- An error that is raised again is in memory that goes with the subtransaction.
CREATE FUNCTION deeper(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF public.qml_promote_due(1) = 0 THEN RAISE 'end' USING ERRCODE = '40001'; END IF;
EXCEPTION WHEN OTHERS THEN
	RAISE;
END $$;
REVOKE EXECUTE ON FUNCTION deep, deeper FROM PUBLIC;
GRANT EXECUTE ON FUNCTION deep, deeper TO adm;
SQL
# An error that is the caller's goes through all of them; one too deep is the hook's.
set_config($node, 'qml.enable_scheduler' => 'off');
query($node, 'DELETE FROM qml.live');
foreach my $case (
	[ 'deep', 12, qr/ERROR:  end$/m ],
	[ 'deep', 30, qr/WARNING:  hook "deep" failed.*\n.*more than 16 levels deep/ ],
	[ 'deeper', 12, qr/ERROR:  end$/m ],
	[ 'deeper', 30, qr/WARNING:  hook "deep" failed.*\n.*more than 16 levels deep/ ])
{
	my ($function, $jobs, $expected) = @$case;
	query($node, "SET ROLE adm; SELECT qml_register_hook('deep', '$function', '{enqueued}')");
	my $pid = ask($node, 'SELECT pg_backend_pid()');
	query($node, "SELECT qml_enqueue('m', queue => 'outside', run_at => clock_timestamp() + '0.1 s') FROM generate_series(1, $jobs)");
	wait_for('the jobs to be due', sub { ask($node, 'SELECT bool_and(run_at < clock_timestamp()) FROM qml.live') eq 't' });
	my (undef, undef, $messages) = $node->psql('postgres', 'SET ROLE adm; SELECT qml_promote_due(1)');
	like($messages, $expected, "hooks that promote, one in the other, $jobs jobs, $function");
	is(ask($node, 'SELECT pg_backend_pid()'), $pid, 'and the server goes on');
	query($node, 'DELETE FROM qml.live');
}
query($node, q{SELECT qml_unregister_hook('deep')});
set_config($node, 'qml.enable_scheduler' => 'on');

# ---- a hook does not read what the client has open

query($node, <<'SQL');
SET ROLE adm;
CREATE TABLE stolen (what text);
CREATE FUNCTION steals(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
DECLARE c refcursor; word text; cursor_name text;
BEGIN
	FOREACH cursor_name IN ARRAY ARRAY['open', '<unnamed>', '<unnamed portal 1>', '<unnamed portal 2>', '<unnamed portal 3>'] LOOP
		c := cursor_name;
		BEGIN
			FETCH c INTO word;
			INSERT INTO public.stolen VALUES ('read ' || word);
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO public.stolen VALUES (SQLSTATE);
		END;
	END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION steals FROM PUBLIC;
SELECT qml_register_hook('steals', 'steals');
SQL
is(query($node, <<'SQL'), "secret", 'a hook leaves an open cursor as it is');
\o /dev/null
BEGIN;
DECLARE open CURSOR FOR SELECT word FROM secret;
DECLARE "<unnamed>" CURSOR FOR SELECT word FROM secret;
SELECT qml_enqueue('m', queue => 'outside');
\o
FETCH open;
COMMIT;
SQL
query($node, q{DO $$ DECLARE w text; BEGIN FOR w IN SELECT word FROM secret LOOP PERFORM qml_enqueue('m', queue => 'outside'); END LOOP; END $$});
is(ask($node, q{SELECT string_agg(DISTINCT what, ' ' ORDER BY what) FROM stolen}), '34000 55000', 'and cannot read it');
query($node, q{SELECT qml_unregister_hook('steals'); DELETE FROM qml.live});

# Nor what another hook has open, or has left open; nor can the client.
query($node, <<'SQL');
CREATE FUNCTION leaves_open(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
DECLARE c refcursor := 'left';
BEGIN OPEN c FOR SELECT word FROM public.secret; END $$;
REVOKE EXECUTE ON FUNCTION leaves_open FROM PUBLIC;
SELECT qml_register_hook('first', 'leaves_open');
TRUNCATE stolen;
SET ROLE adm;
CREATE FUNCTION tries() RETURNS void LANGUAGE plpgsql AS $$
DECLARE c refcursor := 'left'; word text;
BEGIN
	FETCH c INTO word;
	INSERT INTO public.stolen VALUES ('read ' || word);
EXCEPTION WHEN OTHERS THEN
	INSERT INTO public.stolen VALUES (SQLSTATE);
END $$;
CREATE FUNCTION takes(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN PERFORM public.tries(); END $$;
REVOKE EXECUTE ON FUNCTION takes FROM PUBLIC;
SELECT qml_register_hook('second', 'takes');
SQL
fails_with($node, '34000', q{BEGIN; SELECT qml_enqueue('m', queue => 'outside'); FETCH ALL FROM "left"}, 'what a hook leaves open is not the client\'s');
query($node, q{SELECT qml_enqueue('m', queue => 'outside')});
is(ask($node, 'SELECT string_agg(DISTINCT what, $$ $$) FROM stolen'), '34000', 'nor another hook\'s');
query($node, q{SELECT qml_unregister_hook('first'), qml_unregister_hook('second'); DELETE FROM qml.live; TRUNCATE stolen});

# Between middlewares: an outer one that is in the middle of its cursor, and an inner one
# that leaves one open.
query($node, <<'SQL');
CREATE FUNCTION has_open(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE c refcursor := 'left'; w text; r jsonb;
BEGIN OPEN c FOR SELECT word FROM public.secret; r := public.qml_next(); FETCH c INTO w; RETURN jsonb_build_object('word', w); END $$;
CREATE FUNCTION left_open(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE c refcursor := 'left';
BEGIN OPEN c FOR SELECT word FROM public.secret; RETURN public.qml_next(); END $$;
SET ROLE adm;
CREATE FUNCTION before_and_after(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE r jsonb;
BEGIN PERFORM public.tries(); r := public.qml_next(); PERFORM public.tries(); RETURN r; END $$;
REVOKE EXECUTE ON FUNCTION before_and_after FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION has_open, left_open FROM PUBLIC;
SELECT qml_register_middleware('tries', 'before_and_after', 5);
SQL
handler($node, 'nothing', 'CREATE FUNCTION nothing(payload jsonb) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$');
query($node, q{SELECT qml_register_middleware('opens', 'has_open', 1)});
{
	my $id = enqueue($node, 'nothing');
	is(outcome_of($node, $id), 'succeeded|1', 'a middleware with an open cursor around another one');
	is(ask($node, "SELECT result FROM qml_job('$id')"), '{"word": "secret"}', 'has it still');
}
is(ask($node, 'SELECT string_agg(DISTINCT what, $$ $$) FROM stolen'), '55000', 'which cannot read it');
query($node, q{TRUNCATE stolen; SELECT qml_unregister_middleware('opens'), qml_register_middleware('leaves', 'left_open', 9)});
is(run($node, 'nothing'), 'succeeded|1', 'a middleware that leaves a cursor open within another one');
is(ask($node, 'SELECT string_agg(DISTINCT what, $$ $$) FROM stolen'), '34000', 'which cannot read it');
query($node, q{TRUNCATE stolen; SELECT qml_unregister_middleware('leaves'), qml_unregister_middleware('tries')});

# ---- large objects, neither

query($node, <<'SQL');
SELECT lo_from_bytea(4711, 'secret');
SET ROLE adm;
CREATE FUNCTION reads(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.stolen VALUES ('read ' || encode(loread(0, 10), 'escape'));
EXCEPTION WHEN OTHERS THEN
	INSERT INTO public.stolen VALUES (SQLSTATE);
END $$;
REVOKE EXECUTE ON FUNCTION reads FROM PUBLIC;
SELECT qml_register_hook('reads', 'reads');
SQL
is(query($node, <<'SQL'), 'cret', 'a hook leaves a large object as it is');
\o /dev/null
BEGIN;
SELECT lo_open(4711, 262144), loread(0, 2);
SELECT qml_enqueue('m', queue => 'outside');
\o
SELECT encode(loread(0, 10), 'escape');
COMMIT;
SQL
is(ask($node, 'SELECT string_agg(DISTINCT what, $$ $$) FROM stolen'), '42501', 'and cannot read it');
# By a function that the client has called before, and that is ready therefore.
query($node, <<'SQL');
TRUNCATE stolen;
CREATE FUNCTION slurp(fd int) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN RETURN encode(loread(fd, 3), 'escape'); END $$;
SET ROLE adm;
CREATE OR REPLACE FUNCTION reads(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.stolen VALUES ('read ' || public.slurp(0));
EXCEPTION WHEN OTHERS THEN
	INSERT INTO public.stolen VALUES (SQLSTATE);
END $$;
RESET ROLE;
BEGIN;
SELECT lo_open(4711, 262144), slurp(0);
SELECT qml_enqueue('m', queue => 'outside');
COMMIT;
SQL
is(ask($node, 'SELECT string_agg(DISTINCT what, $$ $$) FROM stolen'), '42501', 'nor by a function that the client has used');
query($node, q{SELECT qml_unregister_hook('reads'); DELETE FROM qml.live});

# ---- a hook decides nothing for the job whose handler called it

handler($node, 'enqueues', <<'SQL');
CREATE FUNCTION enqueues(payload jsonb) RETURNS boolean LANGUAGE sql AS $$
	SELECT qml_enqueue('m', '{"told": 1}', 'outside') IS NOT NULL
$$
SQL
query($node, <<'SQL');
TRUNCATE stolen;
SET ROLE adm;
CREATE FUNCTION decides(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
DECLARE s text;
BEGIN
	IF NOT job.payload ? 'told' THEN RETURN; END IF;
	INSERT INTO public.stolen VALUES (coalesce((public.qml_current_job()).method, 'no job'));
	FOREACH s IN ARRAY ARRAY['qml_discard(''x'')', 'qml_retry_later(''1 h'', ''x'')', 'qml_progress(''1'')'] LOOP
		BEGIN
			EXECUTE 'SELECT public.' || s;
			INSERT INTO public.stolen VALUES (s);
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO public.stolen VALUES (SQLSTATE);
		END;
	END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION decides FROM PUBLIC;
SELECT qml_register_hook('decides', 'decides');
SQL
is(run($node, 'enqueues', '{}', 'max_retries => 0'), 'succeeded|1', 'a job whose hook would discard it');
is(ask($node, 'SELECT string_agg(DISTINCT what, $$ $$ ORDER BY what) FROM stolen'), '55000 no job', 'it is none of the hook\'s');
query($node, q{SELECT qml_unregister_hook('decides'); DELETE FROM qml.live});

# ---- what is deferred to the end of a job is part of it

query($node, <<'SQL');
CREATE TABLE later (a text);
CREATE FUNCTION at_the_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger VALUES ((qml_current_job()).id, 'deferred');
	IF NEW.a = 'discard' THEN PERFORM qml_discard('deferred'); END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_the_end();
SQL
foreach my $kind ('FUNCTION', 'PROCEDURE')
{
	my $method = lc "defers_$kind";
	my $returns = $kind eq 'FUNCTION' ? 'RETURNS void' : '';
	handler($node, $method, "CREATE $kind $method(payload jsonb) $returns LANGUAGE plpgsql AS \$\$ BEGIN INSERT INTO later VALUES (payload ->> 'a'); END \$\$");
	query($node, 'TRUNCATE ledger');
	my $id = enqueue($node, $method, '{"a": "x"}', 'max_retries => 0');
	is(outcome_of($node, $id), 'succeeded|1', "$kind: a deferred trigger");
	is(ask($node, q{SELECT job || ' ' || what FROM ledger}), "$id deferred", 'knows the job');
	is(run($node, $method, '{"a": "discard"}', 'max_retries => 0'), 'deleted|1', 'and may discard it');
}

# ---- middleware that runs the rest again after an error

handler($node, 'sql', <<'SQL');
CREATE FUNCTION sql(payload jsonb) RETURNS int LANGUAGE sql AS $$
	INSERT INTO ledger (what) VALUES ('one');
	INSERT INTO ledger (what) VALUES ('two');
	SELECT 1 / coalesce(nullif(current_setting('test.by', true), ''), '1')::int
$$
SQL
query($node, <<'SQL');
CREATE FUNCTION again(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('test.by', '1', true);
	PERFORM public.qml_next();
	BEGIN
		PERFORM set_config('test.by', '0', true);
		PERFORM public.qml_next();
	EXCEPTION WHEN division_by_zero THEN NULL;
	END;
	RETURN public.qml_next();
END $$;
CREATE FUNCTION inner_sql(job qml.job) RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO public.ledger (what) VALUES ('inner');
	SELECT public.qml_next();
$$;
REVOKE EXECUTE ON FUNCTION again FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION inner_sql FROM PUBLIC;
SELECT qml_register_middleware('again', 'again', 1), qml_register_middleware('inner', 'inner_sql', 2);
SQL
query($node, 'TRUNCATE ledger');
foreach my $round (1 .. 30)
{
	is(run($node, 'sql', '{}', 'max_retries => 0'), 'succeeded|1', "the rest runs three times, with an error between ($round)");
}
is(ask($node, q{SELECT string_agg(what || ' ' || n, ', ' ORDER BY what) FROM (SELECT what, count(*) AS n FROM ledger GROUP BY 1) l}),
	'inner 60, one 60, two 60', 'and has its effects twice');
query($node, q{SELECT qml_unregister_middleware('again'), qml_unregister_middleware('inner')});

# ---- what a procedure committed is not left to the next job

handler($node, 'leaves', <<'SQL');
CREATE PROCEDURE leaves(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('search_path', 'pg_catalog, public', false), set_config('test.left', 'left', false);
	CREATE TEMP TABLE left_behind ();
	COMMIT;
	IF payload ? 'sql' THEN EXECUTE payload ->> 'sql'; COMMIT; END IF;
	PERFORM pg_sleep((payload ->> 'sleep')::float8);
	IF payload ? 'fail' THEN RAISE 'fails'; END IF;
END $$
SQL
handler($node, 'looks', <<'SQL');
CREATE FUNCTION looks(payload jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', pg_backend_pid(), current_setting('search_path'), nullif(current_setting('test.left', true), ''),
		to_regclass('pg_temp.left_behind'), current_setting('default_transaction_read_only'), current_setting('default_transaction_isolation'))
$$
SQL
set_config($node, 'qml.workers' => 1);
wait_for('one worker to be left', sub { worker_pids($node) <= 1 });
sub looks_clean
{
	my ($name) = @_;
	my $id = enqueue($node, 'looks');
	outcome_of($node, $id);
	is(ask($node, "SELECT regexp_replace(result #>> '{}', '^\\d+ ', '') FROM qml_job('$id')"), '"$user", public off read committed', "$name: nothing is left");
	return;
}
looks_clean('at first');
{
	my $id = enqueue($node, 'leaves', '{"sleep": 60}');
	running($id);
	my ($pid) = worker_pids($node);
	query($node, "SELECT qml_delete('$id')");
	looks_clean('a procedure that was deleted');
	is(join(' ', worker_pids($node)), $pid, 'by the same worker');
	is(run($node, 'leaves', '{"fail": 1}', 'max_retries => 0'), 'failed|1|P0001|fails', 'a procedure that fails');
	looks_clean('then');
	foreach my $setting ('default_transaction_read_only = on', 'default_transaction_isolation = serializable', 'default_transaction_deferrable = on')
	{
		my $outcome = run($node, 'leaves', qq({"sql": "SET $setting", "fail": 1}), 'max_retries => 0');
		is($outcome, 'failed|1|P0001|fails', "one that leaves $setting, and fails");
		looks_clean('then');
		like(run($node, 'leaves', qq({"sql": "SET $setting"}), 'max_retries => 0'), $setting =~ /read_only/ ? qr/^failed\|1\|25006/ : qr/^succeeded\|1/,
			"one that leaves $setting, and ends");
		looks_clean('then');
	}
	is(join(' ', worker_pids($node)), $pid, 'all by the same worker');
}
set_config($node, 'qml.workers' => 2);

# ---- short jobs do not wait behind a long one

handler($node, 'mixed', <<'SQL');
CREATE FUNCTION mixed(job qml.job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF (job).payload ? 'once' AND (job).attempt = 1 THEN RAISE 'once'; END IF;
	PERFORM pg_sleep(((job).payload ->> 'sleep')::float8);
END $$
SQL
foreach my $payload ('{"once": 1, "sleep": 60}', '{"sleep": 60}')
{
	query($node, q{SELECT count(*) FROM qml_enqueue_many('mixed', array_fill('{}'::jsonb, ARRAY[300]))});
	settle($node, 'mixed');
	query($node, "SELECT qml_pause_queue('fast')");
	my $id = enqueue($node, 'mixed', $payload, q{queue => 'fast', priority => 1});
	query($node, q{SELECT count(*) FROM qml_enqueue_many('mixed', array_fill('{}'::jsonb, ARRAY[150]), queue => 'fast')});
	query($node, "SELECT qml_resume_queue('fast')");
	my $seconds = seconds_until('the short ones to end', sub { ask($node, q{SELECT count(*) FROM qml.live WHERE method = 'mixed'}) <= 1 });
	cmp_ok($seconds, '<=', 10, sprintf 'short jobs do not wait for a long one, %s (%.1f s)', $payload, $seconds);
	query($node, "SELECT qml_delete('$id')");
	settle($node, 'mixed');
}

# ---- progress, again and again

handler($node, 'tells', <<'SQL');
CREATE FUNCTION tells(payload jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE before bigint;
BEGIN
	FOR i IN 1 .. 20000 LOOP
		PERFORM qml_progress(jsonb_build_object('text', repeat('x', 3000), 'n', i));
		IF i = 1000 THEN SELECT sum(total_bytes) INTO before FROM pg_backend_memory_contexts; END IF;
	END LOOP;
	RETURN (SELECT sum(total_bytes) FROM pg_backend_memory_contexts) - before;
END $$
SQL
{
	my $id = enqueue($node, 'tells', '{}', 'max_retries => 0');
	is(outcome_of($node, $id), 'succeeded|1', 'progress in a loop');
	cmp_ok(ask($node, "SELECT result FROM qml_job('$id')"), '<=', 2_000_000, 'takes no memory each time');
	is(ask($node, "SELECT progress -> 'n' FROM qml_job('$id')"), '20000', 'and the last one counts');
}
handler($node, 'tells_and', <<'SQL');
CREATE FUNCTION tells_and(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM qml_progress('1');
	PERFORM qml_progress('2');
	IF payload ? 'sleep' THEN PERFORM pg_sleep(60); END IF;
	RAISE 'fails';
END $$
SQL
foreach my $payload ('{}', '{"sleep": 1}')
{
	my @ids = map { enqueue($node, 'tells_and', $payload, q{max_retries => 0, timeout => '1 s'}) } 1 .. 5;
	settle($node, 'tells_and');
	my $ids = join ',', map { "'$_'" } @ids;
	is(ask($node, "SELECT string_agg(DISTINCT progress::text, ' ') FROM qml.job WHERE id IN ($ids)"), '2',
		"also of one that fails, $payload");
}
# In groups, too.
{
	handler($node, 'tells_some', <<'SQL');
CREATE FUNCTION tells_some(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM qml_progress(payload);
	IF (payload ->> 'n')::int % 7 = 0 THEN RAISE 'fails'; END IF;
END $$
SQL
	query($node, q{SELECT count(qml_enqueue('tells_some', jsonb_build_object('n', n), max_retries => 0)) FROM generate_series(1, 700) n});
	settle($node, 'tells_some');
	is(ask($node, q{SELECT string_agg(concat_ws(' ', state, n), ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM qml.job WHERE method = 'tells_some' AND progress = payload GROUP BY 1) x}),
		'succeeded 600, failed 100', 'and of all in a group');
}

# ---- what is rolled back was not said

foreach my $case (
	[ 'FUNCTION', q{BEGIN PERFORM qml_discard('no'); RAISE 'x'; EXCEPTION WHEN raise_exception THEN NULL; END;}, 'succeeded' ],
	[ 'FUNCTION', q{BEGIN BEGIN PERFORM qml_discard('no'); EXCEPTION WHEN raise_exception THEN NULL; END; RAISE 'x'; EXCEPTION WHEN raise_exception THEN NULL; END;}, 'succeeded' ],
	[ 'FUNCTION', q{BEGIN PERFORM qml_discard('yes'); EXCEPTION WHEN raise_exception THEN NULL; END;}, 'deleted yes' ],
	[
		'FUNCTION',
		q{PERFORM qml_discard('yes'); BEGIN PERFORM qml_retry_later('1 h', 'no'); RAISE 'x'; EXCEPTION WHEN raise_exception THEN NULL; END;},
		'deleted yes'
	],
	[ 'FUNCTION', q{PERFORM qml_discard('no'); BEGIN PERFORM qml_retry_later('1 h', 'yes'); EXCEPTION WHEN raise_exception THEN NULL; END;}, 'awaiting_retry yes' ],
	[ 'PROCEDURE', q{PERFORM qml_discard('no'); ROLLBACK;}, 'succeeded' ],
	[ 'PROCEDURE', q{PERFORM qml_discard('yes'); COMMIT; PERFORM qml_retry_later('1 h', 'no'); ROLLBACK;}, 'deleted yes' ],
	[ 'PROCEDURE', q{PERFORM qml_discard('no'); COMMIT; PERFORM qml_retry_later('1 h', 'yes'); COMMIT;}, 'awaiting_retry yes' ])
{
	my ($kind, $body, $expected) = @$case;
	my $returns = $kind eq 'FUNCTION' ? 'RETURNS void' : '';
	handler($node, 'says', "CREATE OR REPLACE $kind says(payload jsonb) $returns LANGUAGE plpgsql AS \$\$ BEGIN $body END \$\$");
	my $id = enqueue($node, 'says', '{}', 'max_retries => 0');
	wait_for('it to run', sub { ask($node, "SELECT state FROM qml.job WHERE id = '$id'") !~ /^(enqueued|processing)$/ });
	is(ask($node, "SELECT concat_ws(' ', state, reason) FROM qml_job('$id')"), $expected, "$kind $body");
	query($node, "SELECT qml_unregister_handler('says'); DROP $kind says(jsonb)");
}

run_log_clean($node, 'no process crashed');
end_sessions($node);
done_testing();
