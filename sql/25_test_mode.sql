--
-- Jobs in the transaction of the caller: qml_fetch_job, qml_run, qml_drain.
--
SELECT t.reset();
CREATE ROLE regress_qml_app LOGIN;
CREATE ROLE regress_qml_other LOGIN;
CREATE SCHEMA r;
GRANT USAGE ON SCHEMA r, t TO PUBLIC;
GRANT CREATE ON SCHEMA r TO regress_qml_app;
SELECT qml_grant('regress_qml_app', c) FROM unnest('{enqueue,work}'::text[]) c;

-------------------------------------------------------------------------------
-- qml_fetch_job
-------------------------------------------------------------------------------

SELECT count(qml_enqueue('m', jsonb_build_object('n', n), 'q', id => t.id(n))) FROM generate_series(1, 6) n;
SELECT t.n(qml_enqueue('m', queue => 'q', id => t.id(7), delay => '1 h'));
-- In any order, with the lease of the queue
SELECT t.n(id), method, payload, state, attempt, tries, worker, server, round(extract(epoch FROM lease_expires_at - started_at)) AS lease FROM qml_fetch_job(t.id(3), 'some:1/w');
SELECT t.n(id), attempt, worker = current_user || '-' || pg_backend_pid() AS named FROM qml_fetch_job(id => t.id(2));
SELECT qml_succeed(t.id(3), 1), qml_fail(t.id(2), 1, 'no');
-- What is not ready, and why
SELECT sql, t.try(sql) FROM unnest(ARRAY['SELECT qml_fetch_job(t.id(3))', 'SELECT qml_fetch_job(t.id(2))', 'SELECT qml_fetch_job(t.id(7))', 'SELECT qml_fetch_job(t.id(99))',
	'SELECT qml_fetch_job(NULL)', 'SELECT qml_fetch_job(t.id(1), '''')', 'SELECT qml_fetch_job(t.id(1), repeat(''x'', 1000))']) WITH ORDINALITY s (sql, n) ORDER BY n;
SELECT qml_retry(t.id(2));
SELECT state, attempt, tries FROM qml_fetch_job(t.id(2));
SELECT t.try('SELECT qml_fetch_job(t.id(2))');
SELECT qml_pause_queue('q');
SELECT t.try('SELECT qml_fetch_job(t.id(1))');
SELECT qml_resume_queue('q');
BEGIN;
SELECT qml_pause_all('enough');
SELECT t.try('SELECT qml_fetch_job(t.id(1))');
SELECT qml_drain();
SELECT qml_resume_all();
SELECT t.n(id) FROM qml_fetch_job(t.id(1));
ROLLBACK;
-- The others are given out as ever, and what was claimed in vain as well
BEGIN;
SAVEPOINT s;
SELECT t.n(id), attempt FROM qml_fetch_job(t.id(1));
ROLLBACK TO s;
SELECT t.n(id), attempt FROM qml_fetch('w', 'q', 2);
ROLLBACK;
SELECT t.n(id) FROM qml_fetch_job(t.id(4));
SELECT t.n(id) FROM qml_fetch('w', 'q', 10);
SELECT count(*) FROM qml_fetch('w', 'q', 10);

-------------------------------------------------------------------------------
-- qml_run: as a worker would, in the caller's transaction
-------------------------------------------------------------------------------

CREATE TABLE r.done (n int PRIMARY KEY, note text);
GRANT ALL ON r.done TO regress_qml_app;
SET SESSION AUTHORIZATION regress_qml_app;
CREATE FUNCTION r.work(n int, note text DEFAULT 'done') RETURNS text LANGUAGE sql AS 'INSERT INTO r.done VALUES (n, note) RETURNING note';
CREATE FUNCTION r.act(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	me qml.job := qml_current_job();
BEGIN
	INSERT INTO r.done VALUES ((job.payload ->> 'n')::int, 'tried');
	CASE job.payload ->> 'do'
		WHEN 'raise' THEN RAISE EXCEPTION 'I will not' USING detail = 'No detail.', hint = 'No hint.', errcode = 'T1234';
		WHEN 'divide' THEN RETURN 1 / 0;
		WHEN 'later' THEN PERFORM qml_retry_later('1 h', 'not now');
		WHEN 'discard' THEN PERFORM qml_discard('not needed');
		WHEN 'progress' THEN PERFORM qml_progress('{"percent": 50}');
		WHEN 'progress and raise' THEN PERFORM qml_progress('{"percent": 7}'); RAISE EXCEPTION 'half way';
		WHEN 'undone wish' THEN
			BEGIN
				PERFORM qml_discard('not needed');
				RAISE EXCEPTION 'undo';
			EXCEPTION WHEN raise_exception THEN NULL;
			END;
		WHEN 'end' THEN PERFORM qml_succeed(job.id, job.attempt);
		WHEN 'enqueue' THEN PERFORM qml_enqueue('work', '{"n": 100}', 'q', id => t.id(100));
		WHEN 'sleep' THEN PERFORM pg_sleep(60);
		WHEN 'stubborn' THEN
			BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
		WHEN 'run' THEN PERFORM qml_run(job.id);
		WHEN 'drain' THEN PERFORM qml_drain();
		WHEN 'set' THEN PERFORM set_config('work_mem', '99MB', false), set_config('search_path', 'r', false);
		WHEN 'role' THEN SET ROLE regress_qml_app;
		WHEN 'session' THEN RESET SESSION AUTHORIZATION;
		ELSE NULL;
	END CASE;
	RETURN jsonb_build_object('me', me.id = job.id, 'seen', (SELECT j.state FROM qml.job j WHERE j.id = me.id));
END $$;
CREATE PROCEDURE r.proc(n int, INOUT twice int DEFAULT 0) LANGUAGE plpgsql AS 'BEGIN twice := 2 * n; IF n < 0 THEN COMMIT; END IF; END';
RESET SESSION AUTHORIZATION;
SELECT qml_register_handler(m, 'r.' || m, '{"run_as": "regress_qml_app", "retry": {"strategy": "fixed", "delay": "10 min", "jitter": 0}}') FROM unnest('{work,act,proc}'::text[]) m;
SET SESSION AUTHORIZATION regress_qml_app;

CREATE FUNCTION r.run(id uuid, OUT state qml.job_state, OUT attempt int, OUT tries int, OUT result jsonb, OUT error text, OUT error_type text, OUT stack_trace text) LANGUAGE sql AS $$
	SELECT j.state, j.attempt, j.tries, j.result, j.error, j.errors -> -1 ->> 'error_type', regexp_replace(regexp_replace(j.errors -> -1 ->> 'stack_trace', 'line \d+', 'line N', 'g'), '(SQL|PL/pgSQL) expression', 'expression', 'g') FROM qml_run(id) j $$;
CREATE FUNCTION r.put(n int, what text) RETURNS uuid LANGUAGE sql AS $$ SELECT qml_enqueue('act', jsonb_build_object('n', n, 'do', what), 'q', id => t.id(n)) $$;

-- Success: the job, and what it did
BEGIN;
SELECT t.n(qml_enqueue('work', '{"n": 11}', 'q', id => t.id(11)));
SELECT t.n(id), state, attempt, tries, result, finished_at >= started_at AS in_order, worker = current_user || '-' || pg_backend_pid() AS named FROM qml_run(t.id(11));
TABLE r.done;
SELECT state, result FROM qml_job(t.id(11));
ROLLBACK;
TABLE r.done;
SELECT count(*) FROM qml_job(t.id(11));

-- All ways to end
SELECT t.n(id), what, run.* FROM (SELECT r.put(20 + n::int, what) AS id, what FROM unnest(ARRAY['nothing', 'raise', 'divide', 'later', 'discard', 'progress', 'progress and raise', 'undone wish', 'end', 'run', 'drain', 'enqueue', 'role']) WITH ORDINALITY w (what, n)) j, r.run(id);
SELECT t.n(id), state, progress, reason, run_at - started_at BETWEEN '9 min' AND '61 min' AS later FROM qml.job WHERE method = 'act' AND (progress IS NOT NULL OR reason IS NOT NULL) ORDER BY id;
SELECT * FROM r.done ORDER BY n;
-- Again, before its time; until there are no retries left
SELECT r.run(t.id(22));
SELECT r.run(t.id(24));
SELECT t.n(qml_enqueue('act', '{"n": 41, "do": "divide"}', 'q', max_retries => 1, id => t.id(41), delay => '1 day'));
SELECT n, run.* FROM generate_series(1, 2) n, r.run(t.id(41 + 0 * n));
SELECT t.try('SELECT qml_run(t.id(41))');
SELECT attempt, tries, jsonb_array_length(errors) AS errors, retries_left FROM qml_job(t.id(41));
-- A payload that does not fit any more; a procedure, and one that commits
SELECT t.n(qml_enqueue('proc', '{"n": 21}', 'q', id => t.id(42))), t.n(qml_enqueue('proc', '{"n": -1}', 'q', id => t.id(43)));
SELECT r.run(t.id(42)), r.run(t.id(43));

-- The timeout of the job, whether it gives in or not; that of the statement is the caller's
SELECT t.n(qml_enqueue('act', '{"n": 51, "do": "sleep"}', 'q', timeout => '0.2 s', id => t.id(51))), t.n(qml_enqueue('act', '{"n": 52, "do": "stubborn"}', 'q', timeout => '0.2 s', id => t.id(52)));
SELECT n, run.* FROM generate_series(1, 2) n, r.run(t.id(50 + n));
SELECT t.n(r.put(53, 'sleep'));
SET statement_timeout = '200 ms';
SELECT r.run(t.id(53));
RESET statement_timeout;
SELECT state, attempt FROM qml_job(t.id(53));

-- Settings and cursors are the caller's again, after success and error
BEGIN;
DECLARE mine CURSOR FOR SELECT 1;
SELECT current_setting('work_mem') <> '99MB' AS before;
SELECT state, error FROM r.put(54, 'set') id, r.run(id);
SELECT current_setting('work_mem') <> '99MB' AS after, current_setting('search_path') <> 'r' AS path;
FETCH mine;
COMMIT;

-- Deferred constraints: the job's violation is its error, the caller's own is not
CREATE TABLE r.child (n int REFERENCES r.done DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION r.bear(n int, parent int DEFAULT NULL) RETURNS void LANGUAGE sql AS 'INSERT INTO r.child VALUES (n); INSERT INTO r.done SELECT parent WHERE parent IS NOT NULL';
RESET SESSION AUTHORIZATION;
SELECT qml_register_handler('bear', 'r.bear', '{"run_as": "regress_qml_app"}');
SET SESSION AUTHORIZATION regress_qml_app;
BEGIN;
SELECT error, errors -> 0 ->> 'error_type' AS type FROM qml_run(qml_enqueue('bear', '{"n": 200}', 'q'));
SELECT state FROM qml_run(qml_enqueue('bear', '{"n": 201, "parent": 201}', 'q'));
INSERT INTO r.child VALUES (202);
SELECT state FROM qml_run(qml_enqueue('bear', '{"n": 203}', 'q'));
INSERT INTO r.done VALUES (202);
SELECT * FROM r.child ORDER BY n;
COMMIT;
SELECT count(*) FROM r.child;

-- In a loop, in savepoints
DO $$
DECLARE
	job record;
	state qml.job_state;
BEGIN
	PERFORM r.put(n, CASE WHEN n % 2 = 0 THEN 'divide' END) FROM generate_series(61, 64) n;
	FOR job IN SELECT id FROM qml.job WHERE id BETWEEN t.id(61) AND t.id(64) ORDER BY id LOOP
		state := (qml_run(job.id)).state;
		RAISE NOTICE '% %', t.n(job.id), state;
	END LOOP;
END $$;
BEGIN;
SAVEPOINT s;
SELECT t.n(r.put(65, 'nothing')), (r.run(t.id(65))).state;
ROLLBACK TO s;
SELECT count(*) FROM qml_job(t.id(65));
SELECT t.n(r.put(65, 'divide')), (r.run(t.id(65))).state;
SAVEPOINT s;
SELECT (r.run(t.id(65))).attempt;
ROLLBACK TO s;
SELECT (r.run(t.id(65))).attempt;
COMMIT;
SELECT state, attempt FROM qml_job(t.id(65));

-------------------------------------------------------------------------------
-- Who may run what
-------------------------------------------------------------------------------

SELECT t.n(r.put(71, 'nothing')), t.n(qml_enqueue('none', queue => 'q', id => t.id(72)));
SELECT t.try('SELECT qml_run(t.id(72))'), t.try('SELECT qml_run(t.id(999))'), t.try('SELECT qml_run(NULL)');
RESET SESSION AUTHORIZATION;
SELECT t.try('SELECT qml_run(t.id(71))');
SELECT qml_run(t.id(71));
SET ROLE regress_qml_app;
SELECT t.try('SELECT qml_run(t.id(71))');
SELECT qml_drain();
RESET ROLE;
SET SESSION AUTHORIZATION regress_qml_other;
SELECT t.try('SELECT qml_run(NULL)'), t.try('SELECT qml_drain(''{}'')'), t.try('SELECT qml_fetch_job(NULL)');
RESET SESSION AUTHORIZATION;
SELECT qml_grant('regress_qml_other', 'work', 'elsewhere');
SET SESSION AUTHORIZATION regress_qml_other;
SELECT t.try('SELECT qml_run(t.id(71))'), t.try('SELECT qml_drain(''q'')'), t.try('SELECT qml_fetch_job(t.id(71))'), t.try('SELECT qml_drain()');
RESET SESSION AUTHORIZATION;
SELECT qml_grant('regress_qml_other', 'work');
SET SESSION AUTHORIZATION regress_qml_other;
SELECT t.try('SELECT qml_run(t.id(71))'), t.try('SELECT qml_drain(''q'')');
RESET SESSION AUTHORIZATION;
-- A handler cannot become who has authenticated; where that is its role, it may do as in a worker
SET SESSION AUTHORIZATION regress_qml_app;
SELECT run.* FROM r.put(73, 'session') id, r.run(id);
SELECT current_user, session_user;
RESET SESSION AUTHORIZATION;
-- A command commits; what is revoked waits; what is broken fails
SELECT qml_register_command('sweep', 'VACUUM r.done', '{"run_as": "regress_qml_app"}'), qml_register_handler('broken', 'r.work', '{"run_as": "regress_qml_app"}');
SET SESSION AUTHORIZATION regress_qml_app;
SELECT t.n(qml_enqueue('sweep', queue => 'q', id => t.id(74))), t.n(qml_enqueue('broken', '{"n": 75}', queue => 'q', id => t.id(75)));
SELECT t.try('SELECT qml_run(t.id(74))');
SELECT qml_run(t.id(74));
BEGIN;
ALTER FUNCTION r.work RENAME TO lost;
SELECT * FROM r.run(t.id(75));
ROLLBACK;
RESET SESSION AUTHORIZATION;

-------------------------------------------------------------------------------
-- Hooks and middleware
-------------------------------------------------------------------------------

CREATE FUNCTION r.hook(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF job.payload ->> 'do' = 'run in a hook' THEN
		PERFORM public.qml_run(job.id);
	END IF;
	RAISE NOTICE 'hook: % % -> %', t.n(job.id), old, new;
	IF job.payload ->> 'do' = 'hook fails' AND new = 'succeeded' THEN
		RAISE EXCEPTION 'no success for you';
	END IF;
END $$;
REVOKE EXECUTE ON FUNCTION r.hook FROM PUBLIC;
CREATE FUNCTION r.around(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'around %', t.n(job.id); RETURN public.qml_next() || '{"wrapped": true}'; END $$;
REVOKE EXECUTE ON FUNCTION r.around FROM PUBLIC;
SELECT qml_register_hook('told', 'r.hook'), qml_register_middleware('around', 'r.around');
SET SESSION AUTHORIZATION regress_qml_app;
SELECT run.* FROM r.put(81, 'nothing') id, r.run(id);
SELECT run.* FROM r.put(82, 'hook fails') id, r.run(id);
SELECT t.n(r.put(83, 'divide')), (r.run(t.id(83))).state;
SELECT r.run(t.id(83));
SELECT t.try('SELECT r.put(84, ''run in a hook'')');
RESET SESSION AUTHORIZATION;
SELECT qml_unregister_hook('told'), qml_unregister_middleware('around');

-------------------------------------------------------------------------------
-- qml_drain
-------------------------------------------------------------------------------

SELECT t.reset();
TRUNCATE r.done CASCADE;
CREATE FUNCTION r.theirs(jsonb) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_handler(m, 'r.' || m, '{"run_as": "regress_qml_app", "retry": {"strategy": "fixed", "delay": "10 min", "jitter": 0}}') FROM unnest('{work,act}'::text[]) m;
SELECT qml_register_command('sweep', 'VACUUM r.done', '{"run_as": "regress_qml_app"}'), qml_register_handler('theirs', 'r.theirs');
SELECT qml_grant('regress_qml_app', c) FROM unnest('{enqueue,work}'::text[]) c;
SET SESSION AUTHORIZATION regress_qml_app;
SELECT count(qml_enqueue(m, '{"n": 1000}', 'q')) FROM unnest('{none,theirs}'::text[]) m;
SELECT count(qml_enqueue('sweep', queue => 'q'));
SELECT qml_drain();
BEGIN;
SELECT count(r.put(n, CASE n WHEN 2 THEN 'divide' WHEN 3 THEN 'enqueue' WHEN 4 THEN 'later' END)) FROM generate_series(1, 5) n;
SELECT t.n(qml_enqueue('work', '{"n": 6}', 'other', priority => 9, id => t.id(6))), t.n(qml_enqueue('work', '{"n": 7}', 'q', delay => '1 day', id => t.id(7)));
SELECT qml_drain('none of these'), qml_drain('{other}'::text[]), qml_drain('q', 2), qml_drain();
SELECT t.n(id), state, attempt, error FROM qml.job WHERE method IN ('work', 'act') ORDER BY id;
SELECT * FROM r.done ORDER BY n;
-- What is put off, the earliest first; bounded, because some of it is put off for ever
SELECT qml_drain(scheduled => true, max => 3);
SELECT t.n(id), state, attempt FROM qml.job WHERE method IN ('work', 'act') AND state <> 'succeeded' ORDER BY id;
SELECT qml_drain(scheduled => true, max => 50);
SELECT state, count(*) FROM qml.job GROUP BY state ORDER BY state;
ROLLBACK;
SELECT count(*) FROM r.done;
-- What is due counts as ready, paused queues do not
SELECT t.n(qml_enqueue('work', '{"n": 8}', 'q', run_at => now() - interval '1 s', id => t.id(8))), t.n(qml_enqueue('work', '{"n": 9}', 'paused', id => t.id(9)));
RESET SESSION AUTHORIZATION;
SELECT qml_pause_queue('paused');
SET SESSION AUTHORIZATION regress_qml_app;
SELECT qml_drain(), qml_drain('paused');
SELECT sql, t.try(sql) FROM unnest(ARRAY['SELECT qml_drain(max => 0)', 'SELECT qml_drain(max => NULL)', 'SELECT qml_drain(scheduled => NULL)', 'SELECT qml_drain(''{}'')', 'SELECT qml_drain(7)',
	'SELECT qml_drain(''qml.hooks'')', 'SELECT qml_drain(ARRAY[''q'', NULL])']) WITH ORDINALITY s (sql, n) ORDER BY n;
RESET SESSION AUTHORIZATION;

-- Another database user's transaction, unlogged queues, read-only
SELECT qml_create_queue('u', '{"storage": "unlogged"}');
SET SESSION AUTHORIZATION regress_qml_app;
SELECT t.n(qml_enqueue('work', '{"n": 10}', 'u', id => t.id(10))), t.n(qml_enqueue('work', '{"n": 11}', 'u', id => t.id(11), delay => '1 h'));
SELECT qml_drain('u'), (qml_run(t.id(11))).state;
BEGIN READ ONLY;
SELECT qml_drain();
ROLLBACK;
BEGIN READ ONLY;
SELECT qml_run(t.id(9));
ROLLBACK;
RESET SESSION AUTHORIZATION;

SELECT t.reset();
DROP SCHEMA r CASCADE;
SELECT qml_drop_role_objects('regress_qml_app'), qml_drop_role_objects('regress_qml_other');
REVOKE USAGE ON SCHEMA t FROM PUBLIC;
DROP ROLE regress_qml_app, regress_qml_other;
