--
-- State hooks, and what can be seen of middleware without a worker in the
-- background: registration, transitions by clients and by maintenance, errors,
-- rights.
--
SELECT t.reset();
SET timezone = 'UTC';
CREATE ROLE regress_qml_admin LOGIN;
CREATE ROLE regress_qml_app LOGIN;
CREATE ROLE regress_qml_other LOGIN;
CREATE SCHEMA k;
GRANT USAGE ON SCHEMA k, t TO PUBLIC;

-- What hooks were told.
CREATE TABLE k.told (n bigserial, hook text, method text, old qml.job_state, new qml.job_state,
	attempt int, detail text);
GRANT ALL ON k.told, k.told_n_seq TO PUBLIC;
CREATE FUNCTION k.tell(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql
AS $$ INSERT INTO k.told (hook, method, old, new, attempt, detail)
	VALUES ('tell', job.method, old, new, job.attempt, COALESCE(job.result::text, job.error, job.reason)) $$;
CREATE FUNCTION k.fail(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION 'no % here', new USING ERRCODE = 'QX001'; END $$;
-- Reads and empties.
CREATE FUNCTION k.take(OUT hook text, OUT method text, OUT old text, OUT new text, OUT attempt int, OUT detail text) RETURNS SETOF record LANGUAGE sql
AS $$ WITH d AS (DELETE FROM k.told RETURNING *) SELECT d.hook, d.method, d.old, d.new, d.attempt, d.detail FROM d ORDER BY n $$;

-------------------------------------------------------------------------------
-- Registration
-------------------------------------------------------------------------------

SELECT qml_register_hook('a', 'k.tell');
SELECT qml_register_hook('b', 'k.tell(qml.job, qml.job_state, qml.job_state)'::regprocedure, '{failed,deleted}');
SELECT name, function, states, run_as = current_user AS run_as, errors, broken, last_error, last_error_at, problem FROM qml.hook ORDER BY name;
SELECT now() - registered_at BETWEEN '0' AND '1 min' AS now FROM qml.hook;
SELECT qml_register_hook('b', 'k.tell', '{scheduled}');
SELECT name, states FROM qml.hook ORDER BY name;
SELECT qml_unregister_hook('b'), qml_unregister_hook('b', missing_ok => true);
SELECT qml_unregister_hook('b');

CREATE FUNCTION k.mw(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT qml_next()';
SELECT qml_register_middleware('outer', 'k.mw', -1);
SELECT qml_register_middleware('tracing', 'qml_tracing');
SELECT name, function, "position", run_as = current_user AS run_as, problem FROM qml.middleware ORDER BY "position", name;
SELECT qml_register_middleware('outer', 'k.mw'::regproc::regprocedure, 7);
SELECT name, "position" FROM qml.middleware ORDER BY "position", name;
SELECT qml_unregister_middleware('outer'), qml_unregister_middleware('outer', missing_ok => true), qml_unregister_middleware('tracing');

-- Functions that cannot be one.
CREATE FUNCTION k.two(job qml.job, old qml.job_state) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION k.texts(job qml.job, old text, new text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION k.many(job qml.job, old qml.job_state, new qml.job_state) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION k.variadic(job qml.job, old qml.job_state, VARIADIC new qml.job_state[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION k.polymorphic(job anyelement, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS '';
CREATE PROCEDURE k.procedure(job qml.job, old qml.job_state, new qml.job_state) LANGUAGE sql AS '';
CREATE FUNCTION k.mw_text(job qml.job) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$;
CREATE FUNCTION k.mw_set(job qml.job) RETURNS SETOF jsonb LANGUAGE sql AS $$ SELECT '1'::jsonb $$;
CREATE FUNCTION k.mw_payload(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE AGGREGATE k.aggregate(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);
SELECT f, t.try(format('SELECT qml_register_hook(%L, %L)', 'x', 'k.' || f))
FROM unnest(ARRAY['two', 'texts', 'many', 'variadic', 'polymorphic', 'procedure', 'aggregate', 'missing']) WITH ORDINALITY f (f, n) ORDER BY n;
SELECT f, t.try(format('SELECT qml_register_middleware(%L, %L)', 'x', 'k.' || f))
FROM unnest(ARRAY['tell', 'mw_text', 'mw_set', 'mw_payload', 'missing']) WITH ORDINALITY f (f, n) ORDER BY n;
SELECT qml_register_hook('x', 'k.procedure(qml.job, qml.job_state, qml.job_state)');

-- Bad arguments.
SELECT qml_register_hook(NULL, 'k.tell');
SELECT qml_register_hook('', 'k.tell');
SELECT qml_register_hook(repeat('x', 256), 'k.tell');
SELECT qml_register_hook(E'a\nb', 'k.tell');
SELECT qml_register_hook('x', NULL::text);
SELECT qml_register_hook('x', NULL::regprocedure);
SELECT qml_register_hook('x', 4294967295::oid::regprocedure);
SELECT qml_register_hook('x', 'k.tell', '{}');
SELECT qml_register_hook('x', 'k.tell', '{failed,NULL}');
SELECT qml_register_hook('x', 'k.tell', '{lost}');
SELECT qml_register_hook('x', 'k.tell', NULL, NULL);
SELECT qml_register_hook('x', 'k.tell', options => '[]');
SELECT qml_register_hook('x', 'k.tell', options => '{"after": true}');
SELECT qml_unregister_hook(NULL);
SELECT qml_unregister_hook('b', NULL);
SELECT qml_register_middleware(NULL, 'k.mw');
SELECT qml_register_middleware('x', NULL::text);
SELECT qml_register_middleware('x', 'k.mw', NULL);
SELECT qml_register_middleware('x', 'k.mw', 1, NULL);
SELECT qml_register_middleware('x', 'k.mw', options => '{"after": true}');
SELECT qml_unregister_middleware('x');
SELECT qml_unregister_middleware('');
SELECT count(*) FROM qml.hook_data WHERE name <> 'a';
SELECT count(*) FROM qml.middleware_data;
-- Outside of a job.
SELECT qml_next();
SELECT qml_tracing(NULL);
SELECT qml_tracing(NULL::qml.job);

-------------------------------------------------------------------------------
-- Each transition, once, in order
-------------------------------------------------------------------------------

SELECT qml_enqueue('send', '{}', id => '00000000-0000-4000-8000-000000000001') AS id \gset
SELECT state FROM qml_fetch('w');
SELECT qml_heartbeat(:'id', 1) IS NOT NULL;
SELECT qml_progress(:'id', 1, '{"at": 1}');
SELECT qml_fail(:'id', 1, 'oops', retry_at => now() + '1 h');
SELECT * FROM k.take();
-- By maintenance.
UPDATE qml.live SET run_at = now() - interval '1 s';
SELECT qml_promote_due();
SELECT state, attempt FROM qml_fetch('w', lease => '1 ms');
SELECT pg_sleep(0.01);
SELECT qml_reclaim();
SELECT * FROM k.take();
-- Into history and out of it, and what stays in it.
SELECT attempt FROM qml_fetch('w');
SELECT qml_fail(:'id', 3, 'final', retry => false);
SELECT qml_retry(:'id');
SELECT attempt FROM qml_fetch('w');
SELECT qml_succeed(:'id', 4, '{"sum": 3}');
SELECT qml_delete(:'id', 'no need');
SELECT * FROM k.take();
-- Given back; deleted while it waits; many at once.
SELECT qml_enqueue('back', '{}') AS back \gset
SELECT qml_release(id, attempt) FROM qml_fetch('w');
SELECT qml_delete(:'back');
SELECT count(*) FROM qml_enqueue_many('many', ARRAY['{}', '{}', '{}']::jsonb[]);
SELECT count(*) FROM (SELECT qml_succeed_many(array_agg(id), array_agg(attempt)) FROM qml_fetch('w', batch => 3)) s;
SELECT method, old, new, count(*) FROM k.take() GROUP BY method, old, new ORDER BY method, min(old), new;
-- In the transaction of the transition, and gone with it.
BEGIN;
SELECT qml_enqueue('undone', '{}') IS NOT NULL;
SELECT old, new FROM k.told;
ROLLBACK;
SELECT * FROM k.take();
-- Nothing changed: nobody is told.
SELECT qml_fetch('w');
SELECT qml_delete('00000000-0000-4000-8000-00000000000f');
SELECT * FROM k.take();
-- Schedules.
SELECT qml_schedule_recurring('r', '@hourly', 'tick') IS NOT NULL;
SELECT qml_run_recurring('r') IS NOT NULL;
SELECT qml_delete(id) FROM qml.job WHERE state = 'enqueued';
SELECT qml_remove_recurring('r');
SELECT method, old, new FROM k.take();

-- Only the states that were asked for; in the order of the names; old is NULL for a
-- new job, and what is STRICT is not called then.
CREATE FUNCTION k.second(job qml.job, old qml.job_state, new qml.job_state) RETURNS int LANGUAGE sql
AS $$ INSERT INTO k.told (hook, method, old, new) VALUES ('second', job.method, old, new) RETURNING 1 $$;
CREATE FUNCTION k.strict(job qml.job, old qml.job_state, new qml.job_state) RETURNS void STRICT LANGUAGE sql
AS $$ INSERT INTO k.told (hook, method, old, new) VALUES ('strict', job.method, old, new) $$;
SELECT qml_register_hook('c', 'k.second', '{enqueued,deleted}');
SELECT qml_register_hook('B', 'k.strict');
SELECT qml_delete(qml_enqueue('order', '{}'));
SELECT hook, old, new FROM k.take();
SELECT qml_unregister_hook('B'), qml_unregister_hook('c');

-- The job is as it is stored.
CREATE FUNCTION k.look(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql
AS $$ INSERT INTO k.told (hook, detail) SELECT 'look', new || ': ' || (j = job) FROM qml.job j WHERE j.id = job.id $$;
SELECT qml_register_hook('a', 'k.look');
SELECT qml_enqueue('look', '{"a": [1, 2]}', metadata => '{"m": 1}', queue => 'looks', job_type => 'Look') IS NOT NULL;
SELECT qml_succeed(id, attempt, '{"ok": true}') FROM qml_fetch('w', '{looks}');
SELECT detail FROM k.take();

-------------------------------------------------------------------------------
-- Errors
-------------------------------------------------------------------------------

SELECT qml_unregister_hook('a');
SELECT qml_enqueue('send', '{}', id => '00000000-0000-4000-8000-000000000002') AS id \gset
SELECT qml_register_hook('f', 'k.fail', '{processing,failed,awaiting_retry,deleted,scheduled}');
-- The call fails, and nothing has changed.
SELECT * FROM qml_fetch('w');
SELECT qml_delete(:'id');
SELECT qml_reschedule(:'id', now() + '1 h');
SELECT qml_enqueue('later', '{}', run_at => now() + '1 h');
SELECT qml_enqueue_many('later', '{"{}","{}"}', run_at => now() + '1 h');
SELECT method, state, attempt FROM qml.job WHERE state NOT IN ('succeeded', 'deleted');
SELECT errors, broken FROM qml.hook;
SELECT qml_enqueue('fine', '{}') IS NOT NULL;
SELECT t.code(format('SELECT qml_delete(%L)', :'id'));
-- Where nobody asked for the transition it goes on, and the hook is switched off.
SELECT qml_unregister_hook('f');
SELECT count(*) FROM qml_enqueue_many('due', array_fill('{}'::jsonb, ARRAY[3]), run_at => now() + '1 h');
UPDATE qml.live SET run_at = now() - interval '1 s' WHERE state = 'scheduled';
SELECT qml_register_hook('e', 'k.tell', '{enqueued}');
SELECT qml_register_hook('f', 'k.fail', '{enqueued}');
SELECT qml_promote_due();
SELECT hook, old, new FROM k.take();
SELECT name, errors, broken, last_error, now() - last_error_at BETWEEN '0' AND '1 min' AS now FROM qml.hook ORDER BY name;
SELECT qml_enqueue('no', '{}');
SELECT count(*) FROM qml_fetch('w', batch => 10, lease => '1 ms');
SELECT pg_sleep(0.01);
SELECT qml_reclaim();
SELECT name, errors, broken, last_error FROM qml.hook ORDER BY name;
SELECT count(*) FROM k.take();
-- Now that it is switched off, it stands in nobody's way.
SELECT qml_enqueue('yes', '{}') IS NOT NULL;
-- Mended and registered again.
CREATE OR REPLACE FUNCTION k.fail(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql
AS $$ BEGIN IF job.method = 'bad' THEN RAISE EXCEPTION 'bad'; END IF; END $$;
SELECT qml_register_hook('f', 'k.fail', '{enqueued}');
SELECT name, errors, broken, last_error, last_error_at FROM qml.hook ORDER BY name;
-- Errors count in a row.
SELECT qml_unregister_hook('e');
SELECT qml_unregister_hook('f');
TRUNCATE qml.live;
SELECT qml_enqueue(m, '{}', run_at => now() + '1 h') IS NOT NULL FROM unnest('{bad,bad,bad,bad}'::text[]) m;
UPDATE qml.live SET run_at = now() - interval '1 s';
SELECT qml_register_hook('f', 'k.fail', '{enqueued}');
SELECT qml_promote_due();
SELECT errors, broken FROM qml.hook;
SELECT qml_enqueue('good', '{}') IS NOT NULL;
UPDATE qml.live SET state = 'scheduled', run_at = now() - interval '1 s' WHERE method = 'good';
SELECT qml_promote_due();
SELECT errors, broken FROM qml.hook;
-- Its function is gone, or another's.
ALTER FUNCTION k.fail(qml.job, qml.job_state, qml.job_state) OWNER TO regress_qml_other;
SELECT problem FROM qml.hook;
SELECT qml_enqueue('x', '{}');
DROP FUNCTION k.fail(qml.job, qml.job_state, qml.job_state);
SELECT problem FROM qml.hook;
SELECT qml_enqueue('x', '{}');
SELECT qml_unregister_hook('f');

-- A hook that makes the transition that it is called for.
CREATE FUNCTION k.again(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql
AS $$ BEGIN PERFORM public.qml_enqueue('again', '{}'); END $$;
SELECT qml_register_hook('again', 'k.again', '{enqueued}');
\set VERBOSITY terse
SELECT qml_enqueue('first', '{}');
\set VERBOSITY default
-- One that goes on for some time is fine.
SELECT qml_register_hook('again', 'k.again', '{deleted}');
SELECT qml_delete(qml_enqueue('first', '{}'));
SELECT count(*) FROM qml.job WHERE method = 'again';
SELECT qml_unregister_hook('again');

-------------------------------------------------------------------------------
-- Rights: a hook is its registrant, and nobody else
-------------------------------------------------------------------------------

SELECT qml_grant('regress_qml_admin', 'admin');
SELECT qml_grant('regress_qml_app', 'enqueue', 'default');
GRANT CREATE ON SCHEMA k TO regress_qml_admin, regress_qml_app;
SET SESSION AUTHORIZATION regress_qml_app;
SELECT qml_register_hook('x', 'k.tell');
SELECT qml_unregister_hook('x');
SELECT qml_register_middleware('x', 'k.mw');
SELECT qml_next();
SELECT * FROM qml.hook;
SELECT * FROM qml.hook_data;
RESET SESSION AUTHORIZATION;

-- Who it is, and what it may.
CREATE FUNCTION k.deferred() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN INSERT INTO k.told (hook, detail) VALUES ('deferred', current_user); RETURN NEW; END $$;
SET SESSION AUTHORIZATION regress_qml_admin;
CREATE TABLE k.mine (who text, session text, path text);
CREATE TABLE k.traps (x int);
CREATE CONSTRAINT TRIGGER trap AFTER INSERT ON k.traps DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION k.deferred();
CREATE FUNCTION k.who(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
	attempts text[] := ARRAY['SET ROLE regress_qml_app', 'RESET ROLE', 'SET SESSION AUTHORIZATION regress_qml_app', 'RESET SESSION AUTHORIZATION',
		'SET LOCAL session_authorization = regress_qml_app', 'CREATE TEMP TABLE x (a int)', 'INSERT INTO k.traps VALUES (1)', 'LISTEN x',
		'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'PREPARE p AS SELECT 1', 'TABLE qml.hook_data', 'CREATE ROLE regress_qml_evil'];
	s text;
BEGIN
	INSERT INTO k.mine VALUES (current_user, session_user, current_setting('search_path'));
	FOREACH s IN ARRAY attempts LOOP
		BEGIN
			EXECUTE s;
			INSERT INTO k.told (hook, detail) VALUES ('done', s);
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO k.told (hook, detail) VALUES (SQLSTATE, s);
		END;
	END LOOP;
	PERFORM set_config('k.left', 'behind', false), set_config('search_path', 'k', false);
END $$;
SELECT qml_register_hook('who', 'k.who', '{enqueued}');
-- As a superuser it must not run what another one can replace.
RESET SESSION AUTHORIZATION;
SELECT qml_register_hook('evil', 'k.who');
-- The client's search_path is no way to the hook's rights, nor are its settings the client's.
SET SESSION AUTHORIZATION regress_qml_app;
SET search_path = k, public;
SELECT qml_enqueue('send', '{}') IS NOT NULL;
SHOW search_path;
SELECT current_setting('k.left', true) AS "left";
RESET search_path;
RESET SESSION AUTHORIZATION;
SELECT * FROM k.mine;
SELECT hook, detail FROM k.take();
-- The client sees nothing of it: not the table, and not through the function.
SET SESSION AUTHORIZATION regress_qml_app;
SELECT * FROM k.mine;
RESET SESSION AUTHORIZATION;
-- Triggers that wait for the end of the transaction would run as the client.
SET SESSION AUTHORIZATION regress_qml_admin;
CREATE FUNCTION k.trap(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS 'INSERT INTO k.traps VALUES (1)';
SELECT qml_register_hook('who', 'k.trap', '{enqueued}');
RESET SESSION AUTHORIZATION;
SELECT qml_enqueue('send', '{}');
SELECT * FROM k.take();
-- A function of others that it may no longer execute, and one whose role is gone.
REVOKE EXECUTE ON FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) FROM PUBLIC;
SET SESSION AUTHORIZATION regress_qml_admin;
SELECT qml_register_hook('who', 'k.tell', '{enqueued}');
RESET SESSION AUTHORIZATION;
GRANT EXECUTE ON FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) TO PUBLIC;
SET SESSION AUTHORIZATION regress_qml_admin;
SELECT qml_register_hook('who', 'k.tell', '{enqueued}');
RESET SESSION AUTHORIZATION;
REVOKE EXECUTE ON FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) FROM PUBLIC;
SELECT qml_enqueue('send', '{}');
GRANT EXECUTE ON FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) TO PUBLIC;
SELECT qml_enqueue('send', '{}') IS NOT NULL;
SELECT method, old, new FROM k.take();
SELECT qml_unregister_hook('who');

-------------------------------------------------------------------------------
-- The option notify
-------------------------------------------------------------------------------

SELECT qml_create_queue('told', '{"notify": true}');
SELECT options FROM qml.queue WHERE name = 'told';
SELECT qml_create_queue('x', '{"notify": 1}');
SELECT qml_create_queue(repeat('x', 60), '{"notify": true}');
SELECT qml_create_queue(repeat('x', 59), '{"notify": true}');
SELECT qml_alter_queue(repeat('x', 60), '{"notify": true}');
SELECT qml_register_handler('x', 'k.mw', '{"middleware": 1}');
SELECT qml_register_handler('x', 'k.mw', '{"middleware": false}');
SELECT options FROM qml.handler;

-- Kept, the number of a role that is gone would be written into a dump
SELECT qml_register_hook('gone', 'k.tell', '{failed}'), qml_register_middleware('gone', 'k.mw');
UPDATE qml.hook_data SET owner = 4294967295::oid::regrole, run_as = 4294967295::oid::regrole WHERE name = 'gone';
UPDATE qml.middleware_data SET owner = 4294967295::oid::regrole, run_as = 4294967295::oid::regrole WHERE name = 'gone';
SELECT problem FROM qml.hook WHERE name = 'gone' UNION ALL SELECT problem FROM qml.middleware WHERE name = 'gone';
SELECT qml_cleanup() >= 0 AS cleaned;
SELECT owner::oid, run_as::oid FROM qml.hook_data WHERE name = 'gone' UNION ALL SELECT owner::oid, run_as::oid FROM qml.middleware_data WHERE name = 'gone';
SELECT problem FROM qml.hook WHERE name = 'gone' UNION ALL SELECT problem FROM qml.middleware WHERE name = 'gone';
SELECT qml_unregister_hook('gone'), qml_unregister_middleware('gone');

SELECT t.reset();
SET client_min_messages = warning;
DROP SCHEMA k CASCADE;
RESET client_min_messages;
REVOKE ALL ON SCHEMA t FROM PUBLIC;
DROP OWNED BY regress_qml_admin, regress_qml_app, regress_qml_other;
DROP ROLE regress_qml_admin, regress_qml_app, regress_qml_other;
