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

REVOKE EXECUTE ON FUNCTION k.tell FROM PUBLIC;
SELECT qml_register_hook('a', 'k.tell');
SELECT qml_register_hook('b', 'k.tell(qml.job, qml.job_state, qml.job_state)'::regprocedure, '{failed,deleted}');
SELECT name, function, states, run_as = current_user AS run_as, errors, broken, last_error, last_error_at, problem FROM qml.hook ORDER BY name;
SELECT now() - registered_at BETWEEN '0' AND '1 min' AS now FROM qml.hook;
SELECT qml_register_hook('b', 'k.tell', '{scheduled}');
SELECT name, states FROM qml.hook ORDER BY name;
SELECT qml_unregister_hook('b'), qml_unregister_hook('b', missing_ok => true);
SELECT qml_unregister_hook('b');

CREATE FUNCTION k.mw(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT qml_next()';
REVOKE EXECUTE ON FUNCTION k.mw FROM PUBLIC;
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
SELECT qml_register_hook('x', 'k.tell', options => '{"with_payload": true}');
SELECT qml_register_hook('x', 'k.tell', options => '{"after_commit": 1}');
SELECT qml_register_hook('x', 'k.tell', options => '{"after_commit": true}');
SELECT qml_register_hook('x', 'k.tell', options => '{"alerts": true}');
SELECT qml_register_hook('x', 'k.tell', options => '{"after_commit": true, "alerts": 1}');
SELECT qml_register_hook('x', 'k.tell', options => '{"after_commit": true, "alerts": true, "with_payload": true}');
SELECT qml_register_hook('x', 'k.tell', '{failed}', '{"after_commit": true, "alerts": true}');
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
SELECT qml_enqueue('back later', '{}') AS back \gset
SELECT qml_release(id, attempt, now() + interval '1 h', 'busy') FROM qml_fetch('w');
SELECT qml_retry(:'back');
SELECT qml_discard(id, attempt, 'enough') FROM qml_fetch('w');
SELECT count(*) FROM qml_enqueue_many('many back', ARRAY['{}', '{}', '{}']::jsonb[]);
SELECT count(*) FROM (SELECT qml_release_many(array_agg(id), array_agg(attempt)) FROM qml_fetch('w', batch => 3)) s;
SELECT count(*) FROM (SELECT qml_fail_many(array_agg(id), array_agg(attempt), NULL, retry => false) FROM qml_fetch('w', batch => 3)) s;
SELECT count(qml_delete(id)) FROM qml.job WHERE method = 'many back';
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
REVOKE EXECUTE ON FUNCTION k.second FROM PUBLIC;
SELECT qml_register_hook('c', 'k.second', '{enqueued,deleted}');
REVOKE EXECUTE ON FUNCTION k.strict FROM PUBLIC;
SELECT qml_register_hook('B', 'k.strict');
SELECT qml_delete(qml_enqueue('order', '{}'));
SELECT hook, old, new FROM k.take();
SELECT qml_unregister_hook('B'), qml_unregister_hook('c');

-- The job is as it is stored.
CREATE FUNCTION k.look(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql
AS $$ INSERT INTO k.told (hook, detail) SELECT 'look', new || ': ' || (j = job) FROM qml.job j WHERE j.id = job.id $$;
REVOKE EXECUTE ON FUNCTION k.look FROM PUBLIC;
SELECT qml_register_hook('a', 'k.look');
SELECT qml_enqueue('look', '{"a": [1, 2]}', metadata => '{"m": 1}', queue => 'looks', job_type => 'Look') IS NOT NULL;
SELECT qml_succeed(id, attempt, '{"ok": true}') FROM qml_fetch('w', '{looks}');
SELECT detail FROM k.take();

-------------------------------------------------------------------------------
-- Errors
-------------------------------------------------------------------------------

SELECT qml_unregister_hook('a');
SELECT qml_enqueue('send', '{}', id => '00000000-0000-4000-8000-000000000002') AS id \gset
REVOKE EXECUTE ON FUNCTION k.fail FROM PUBLIC;
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
REVOKE EXECUTE ON FUNCTION k.again FROM PUBLIC;
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
SELECT qml_grant('regress_qml_other', 'admin');
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
-- The capability admin is not enough to run in the sessions of others.
SELECT current_user AS owner \gset
CREATE FUNCTION k.hide(message text, owner text) RETURNS text LANGUAGE sql AS $$ SELECT replace(message, '"' || owner || '"', '"OWNER"') $$;
GRANT CREATE ON SCHEMA k TO regress_qml_other;
SET SESSION AUTHORIZATION regress_qml_other;
SELECT k.hide(t.try($$SELECT qml_register_hook('x', 'k.tell')$$), :'owner');
CREATE FUNCTION k.theirs(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION k.theirs(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT public.qml_next()';
SELECT k.hide(t.try($$SELECT qml_register_hook('x', 'k.theirs(qml.job, qml.job_state, qml.job_state)')$$), :'owner');
SELECT qml_register_middleware('x', 'k.theirs(qml.job)');
SELECT name, problem FROM qml.middleware;
SELECT qml_unregister_middleware('x');
RESET SESSION AUTHORIZATION;
-- Nor is the function of such a role.
SELECT k.hide(t.try($$SELECT qml_register_hook('x', 'k.theirs(qml.job, qml.job_state, qml.job_state)')$$), :'owner');
SELECT k.hide(t.try($$SELECT qml_register_middleware('x', 'k.theirs(qml.job)')$$), :'owner');
-- Nor may it switch off what the owner has registered, or take its name.
CREATE FUNCTION k.event(event jsonb) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_hook('owned', 'k.tell', '{failed}'), qml_register_middleware('owned', 'k.mw'),
	qml_register_hook('owned after', 'k.event', '{failed}', '{"after_commit": true}');
SET SESSION AUTHORIZATION regress_qml_other;
SELECT k.hide(t.try(s), :'owner') FROM unnest(ARRAY[$$SELECT qml_unregister_hook('owned')$$, $$SELECT qml_unregister_hook('owned', true)$$,
	$$SELECT qml_unregister_hook('owned after')$$, $$SELECT qml_unregister_middleware('owned')$$,
	$$SELECT qml_register_hook('owned', 'k.event', options => '{"after_commit": true}')$$,
	$$SELECT qml_register_hook('owned after', 'k.event', options => '{"after_commit": true}')$$,
	$$SELECT qml_register_middleware('owned', 'k.theirs(qml.job)')$$]) s;
SELECT name, function FROM qml.hook UNION ALL SELECT name, function FROM qml.middleware ORDER BY 1, 2;
RESET SESSION AUTHORIZATION;
-- The hooks and middleware of administrators are for all administrators; and for the owner.
SET SESSION AUTHORIZATION regress_qml_admin;
SELECT qml_register_hook('one', 'k.event', '{failed}', '{"after_commit": true}'), qml_register_hook('two', 'k.event', '{failed}', '{"after_commit": true}');
CREATE FUNCTION k.wrap(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT public.qml_next()';
SELECT qml_register_middleware('one', 'k.wrap'), qml_register_middleware('two', 'k.wrap');
SET SESSION AUTHORIZATION regress_qml_other;
SELECT qml_register_hook('one', 'k.event', '{deleted}', '{"after_commit": true}'), qml_register_middleware('one', 'k.theirs(qml.job)', 3);
SELECT qml_unregister_hook('two'), qml_unregister_middleware('two');
SELECT name, run_as FROM qml.hook WHERE name IN ('one', 'two') UNION ALL SELECT name, run_as FROM qml.middleware WHERE name IN ('one', 'two');
RESET SESSION AUTHORIZATION;
SELECT qml_unregister_hook('one'), qml_unregister_middleware('one'), qml_unregister_hook('owned'), qml_unregister_hook('owned after'), qml_unregister_middleware('owned');

-- A role with the privileges of the owner: who its hook is, and what it may.
SELECT format('GRANT %I TO regress_qml_admin', (SELECT relowner::regrole FROM pg_class WHERE oid = 'qml.live'::regclass)) AS make_owner \gset
SELECT format('REVOKE %I FROM regress_qml_admin', (SELECT relowner::regrole FROM pg_class WHERE oid = 'qml.live'::regclass)) AS make_other \gset
:make_owner;
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
		'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'PREPARE p AS SELECT 1', 'CREATE ROLE regress_qml_evil', 'DISCARD SEQUENCES',
		'NOTIFY x', 'SELECT pg_notify(''x'', ''y'')', 'SET CONSTRAINTS ALL IMMEDIATE', 'SELECT pg_advisory_lock(1)', 'SELECT pg_advisory_lock_shared(1, 2)',
		'SELECT pg_try_advisory_lock(1)', 'SELECT pg_advisory_unlock(1)', 'SELECT pg_advisory_unlock_all()', 'SELECT pg_advisory_xact_lock(1)'];
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
REVOKE EXECUTE ON FUNCTION k.who FROM PUBLIC;
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
REVOKE EXECUTE ON FUNCTION k.trap FROM PUBLIC;
SELECT qml_register_hook('who', 'k.trap', '{enqueued}');
RESET SESSION AUTHORIZATION;
SELECT qml_enqueue('send', '{}');
SELECT * FROM k.take();
-- A function of others that it may no longer execute, and one whose role is gone.
SELECT format('GRANT %I TO regress_qml_other', current_user) AS make_second, format('REVOKE %I FROM regress_qml_other', current_user) AS unmake_second \gset
:make_second;
ALTER FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) OWNER TO regress_qml_other;
REVOKE EXECUTE ON FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) FROM PUBLIC;
SET SESSION AUTHORIZATION regress_qml_admin;
SELECT qml_register_hook('who', 'k.tell', '{enqueued}');
RESET SESSION AUTHORIZATION;
GRANT EXECUTE ON FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) TO regress_qml_admin, regress_qml_app;
SET SESSION AUTHORIZATION regress_qml_admin;
SELECT t.code($$SELECT qml_register_hook('who', 'k.tell', '{enqueued}')$$);
RESET SESSION AUTHORIZATION;
REVOKE EXECUTE ON FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) FROM regress_qml_app;
SET SESSION AUTHORIZATION regress_qml_admin;
SELECT qml_register_hook('who', 'k.tell', '{enqueued}');
RESET SESSION AUTHORIZATION;
REVOKE EXECUTE ON FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) FROM regress_qml_admin;
SELECT qml_enqueue('send', '{}');
GRANT EXECUTE ON FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) TO regress_qml_admin;
SELECT qml_enqueue('send', '{}') IS NOT NULL;
SELECT method, old, new FROM k.take();
-- One whose owner is not the owner of the extension any more.
:unmake_second;
SELECT k.hide(problem, :'owner') FROM qml.hook;
SELECT t.code($$SELECT qml_enqueue('send', '{}')$$);
ALTER FUNCTION k.tell(qml.job, qml.job_state, qml.job_state) OWNER TO CURRENT_USER;
-- A role that has lost the right is passed over, and nobody else has to know.
:make_other;
SELECT name, k.hide(problem, :'owner') FROM qml.hook;
SELECT qml_enqueue('send', '{}') IS NOT NULL;
SELECT * FROM k.take();
:make_owner;
SELECT problem FROM qml.hook;
SELECT qml_enqueue('send', '{}') IS NOT NULL;
SELECT method, old, new FROM k.take();
-- So is one whose registration DROP OWNED has revoked: only the other one is told.
CREATE ROLE regress_qml_third;
SELECT format('GRANT %I TO regress_qml_third', :'owner') AS make_third \gset
:make_third;
SET SESSION AUTHORIZATION regress_qml_third;
SELECT qml_register_hook('third', 'k.tell', '{enqueued}');
RESET SESSION AUTHORIZATION;
SELECT problem FROM qml.hook WHERE name = 'third';
DROP OWNED BY regress_qml_third;
SELECT problem FROM qml.hook WHERE name = 'third';
SELECT count(*) FROM (SELECT qml_enqueue('send', '{}')) s;
SELECT count(*) FROM k.take();
SELECT qml_unregister_hook('third');
DROP ROLE regress_qml_third;
-- So is the middleware of a role that is no administrator any more.
SET SESSION AUTHORIZATION regress_qml_other;
SELECT qml_register_middleware('theirs', 'k.theirs(qml.job)');
RESET SESSION AUTHORIZATION;
SELECT qml_revoke('regress_qml_other', 'admin');
SELECT problem FROM qml.middleware;
SELECT qml_unregister_middleware('theirs');
SELECT qml_unregister_hook('who');
-- What the client has made of the function by calling it itself is not what is called: a
-- type under a name of the catalogs, and a backslash in a string.
CREATE FUNCTION k.plain(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
DECLARE t text := 'x';
BEGIN
	INSERT INTO k.told (hook, detail) VALUES ('plain', length('\n') || ' ' || pg_catalog.pg_typeof(t) || ' ' || (NULL = NULL IS NULL));
END $$;
REVOKE EXECUTE ON FUNCTION k.plain FROM PUBLIC;
SELECT qml_register_hook('plain', 'k.plain', '{enqueued}');
SET SESSION AUTHORIZATION regress_qml_app;
CREATE FUNCTION k.sing(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO k.told (hook, detail) VALUES ('domain', current_user); RETURN true; END $$;
RESET SESSION AUTHORIZATION;
CREATE SCHEMA regress_qml_evil AUTHORIZATION regress_qml_app;
-- In a new session: the one that made the function has compiled it.
\c -
SET SESSION AUTHORIZATION regress_qml_app;
CREATE DOMAIN regress_qml_evil.text AS text CHECK (k.sing(VALUE));
SET search_path = regress_qml_evil, pg_catalog;
SET escape_string_warning = off;
SET standard_conforming_strings = off;
SET transform_null_equals = on;
SELECT k.plain(NULL::qml.job, NULL, 'enqueued');
SELECT public.qml_enqueue('send', '{}') IS NOT NULL;
RESET SESSION AUTHORIZATION;
RESET ALL;
SET timezone = 'UTC';
SELECT hook, detail FROM k.take();
SELECT qml_unregister_hook('plain');
DROP SCHEMA regress_qml_evil CASCADE;
-- Nor are its settings those under which a hook runs, or it could make any hook fail.
CREATE FUNCTION k.settings(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
DECLARE n int;
BEGIN
	SELECT 1, 2 INTO n;
	INSERT INTO k.told (hook, detail) SELECT name, setting FROM pg_settings
	WHERE name IN ('lock_timeout', 'TimeZone', 'lc_time', 'lc_monetary', 'default_text_search_config', 'xmlbinary', 'gin_fuzzy_search_limit', 'plpgsql.extra_errors', 'plpgsql.check_asserts');
	ASSERT job.method <> 'forbidden', 'this is forbidden';
END $$;
REVOKE EXECUTE ON FUNCTION k.settings FROM PUBLIC;
SELECT qml_register_hook('settings', 'k.settings', '{enqueued}');
\c -
SET SESSION AUTHORIZATION regress_qml_app;
SET lock_timeout = '10s';
SET timezone = 'Asia/Tokyo';
SET lc_time = 'POSIX';
SET default_text_search_config = 'pg_catalog.german';
SET xmlbinary = hex;
SET gin_fuzzy_search_limit = 1;
SET plpgsql.extra_errors = 'all';
SET plpgsql.check_asserts = off;
SET lc_monetary = 'POSIX';
SELECT qml_enqueue('forbidden');
SELECT qml_enqueue('send', '{}') IS NOT NULL;
SHOW timezone;
SHOW plpgsql.extra_errors;
RESET SESSION AUTHORIZATION;
RESET ALL;
SET timezone = 'UTC';
SELECT hook, detail FROM k.take() ORDER BY hook COLLATE "C";
SELECT qml_unregister_hook('settings');
-- In a transaction that has sent a notification, or locked something for the session, all
-- plans are made again before a hook is called, and nothing that was made ready before is
-- called without a look; but not in the next one.
CREATE FUNCTION k.planned() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE NOTICE 'planned'; RETURN 1; END $$;
CREATE FUNCTION k.notify(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM k.say();
END $$;
CREATE FUNCTION k.say() RETURNS void LANGUAGE plpgsql AS $$
DECLARE said boolean;
BEGIN
	said := pg_catalog.pg_notify('x', 'y') IS NOT NULL;
END $$;
REVOKE EXECUTE ON FUNCTION k.notify, k.say FROM PUBLIC;
SELECT qml_register_hook('plain', 'k.tell', '{enqueued}');
PREPARE planned AS SELECT k.planned();
EXECUTE planned;
EXECUTE planned;
SELECT pg_notify('x', 'y');
SELECT count(*) FROM (SELECT qml_enqueue('send')) s;
EXECUTE planned;
SELECT pg_advisory_lock(1), pg_advisory_unlock(1);
SELECT count(*) FROM (SELECT qml_enqueue('send')) s;
EXECUTE planned;
BEGIN;
SELECT pg_notify('x', 'y');
ROLLBACK;
BEGIN;
SELECT count(*) FROM (SELECT qml_enqueue('send')) s;
EXECUTE planned;
SELECT k.say();
SELECT count(*) FROM (SELECT qml_enqueue('send')) s;
EXECUTE planned;
COMMIT;
SELECT qml_register_hook('plain', 'k.notify', '{enqueued}');
BEGIN;
SELECT k.say();
SELECT qml_enqueue('send');
ROLLBACK;
DEALLOCATE planned;
SELECT qml_unregister_hook('plain');
SELECT count(*) FROM k.take();

-------------------------------------------------------------------------------
-- Hooks after the commit: without a worker, their jobs wait
-------------------------------------------------------------------------------

SELECT qml_grant('regress_qml_other', 'admin');
CREATE FUNCTION k.after(event jsonb) RETURNS void LANGUAGE sql AS '';
TRUNCATE qml.live;
SET SESSION AUTHORIZATION regress_qml_other;
CREATE FUNCTION k.wrong(event json) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_hook('after', 'k.wrong', options => '{"after_commit": true}');
SELECT qml_register_hook('after', 'k.after', options => '{"after_commit": true}');
SELECT qml_register_hook('full', 'k.after', '{succeeded}', '{"after_commit": true, "with_payload": true}');
SELECT name, run_as, states, options, problem FROM qml.hook ORDER BY name;
RESET SESSION AUTHORIZATION;
SET timezone = 'Asia/Tokyo';
SET intervalstyle = 'iso_8601';
SELECT qml_enqueue('send', '{"secret": 1}', id => '00000000-0000-4000-8000-00000000000a', queue => 'watched', timeout => '90 s') AS id \gset
SELECT count(*) FROM (SELECT qml_succeed(id, attempt, '{"sum": 2}') FROM qml_fetch('w', '{watched}')) s;
RESET timezone;
RESET intervalstyle;
CREATE VIEW k.calls AS SELECT j.id, j.method, j.payload, j.created_by, j.state FROM qml.job j WHERE j.queue = 'qml.hooks';
SELECT method, created_by, state, payload ->> 'old' AS old, payload ->> 'new' AS new, payload -> 'attempt' AS attempt,
	payload #>> '{job,id}' = :'id' AS id, payload #> '{job,payload}' AS payload, payload #> '{job,result}' AS result, payload #>> '{job,timeout}' AS timeout,
	payload #>> '{job,created_at}' LIKE '%+00:00' AS utc,
	(payload ->> 'seq')::bigint > lag((payload ->> 'seq')::bigint) OVER (PARTITION BY method ORDER BY array_position('{enqueued,processing,succeeded}', payload ->> 'new')) AS grows
FROM k.calls ORDER BY method, array_position('{enqueued,processing,succeeded}', payload ->> 'new');
SELECT jsonb_object_keys(payload) FROM k.calls WHERE method = 'full';
SELECT string_agg(key, ' ' ORDER BY key) FROM k.calls, jsonb_object_keys(payload -> 'job') key WHERE payload ->> 'new' = 'processing';
-- They are no jobs of the users: neither counted nor given out, and nobody can add to them.
SELECT state, count FROM qml_counts() WHERE count > 0 AND state IN ('enqueued', 'scheduled');
SELECT count(*) FROM qml_queue_counts() WHERE queue LIKE 'qml.%';
SELECT count(*) FROM qml_fetch('w', batch => 100) WHERE queue LIKE 'qml.%';
SELECT t.try(s) FROM unnest(ARRAY[$$SELECT qml_enqueue('after', queue => 'qml.hooks')$$, $$SELECT qml_enqueue_many('after', '{"{}"}', 'qml.other')$$,
	$$SELECT qml_fetch('w', '{qml.hooks}')$$, $$SELECT qml_create_queue('qml.mine')$$, $$SELECT qml_drop_queue('qml.hooks')$$,
	$$SELECT qml_schedule_recurring('x', '@daily', 'after', queue => 'qml.hooks')$$, $$SELECT qml_grant('regress_qml_app', 'work', 'qml.hooks')$$,
	$$SELECT qml_register_handler('x', 'k.after', '{"queue": "qml.hooks"}')$$, $$SELECT qml_register_server('x', 1, '{qml.hooks}')$$]) s;
-- The owner alone may alter and pause it.
SELECT qml_pause_queue('qml.hooks'), qml_resume_queue('qml.hooks'), qml_alter_queue('qml.hooks', '{"max_retries": 1}');
SELECT name, options FROM qml.queue WHERE name LIKE 'qml.%';
SELECT qml_grant('regress_qml_app', 'admin');
SET SESSION AUTHORIZATION regress_qml_app;
SELECT t.try(s) FROM unnest(ARRAY[$$SELECT qml_pause_queue('qml.hooks')$$, $$SELECT qml_alter_queue('qml.hooks', '{}')$$]) s;
SELECT name FROM qml.queue WHERE name LIKE 'qml.%';
-- Who reads them: the role of the hook, as long as it may register hooks; and no other administrator.
SELECT count(*) FROM qml.job WHERE queue LIKE 'qml.%';
SELECT count(*) FROM qml.job WHERE queue = 'watched';
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION regress_qml_other;
SELECT count(*) FROM qml.job WHERE queue LIKE 'qml.%';
RESET SESSION AUTHORIZATION;
SELECT id AS call FROM k.calls LIMIT 1 \gset
SET SESSION AUTHORIZATION regress_qml_app;
SELECT count(*) FROM qml_job(:'call');
SELECT t.code(format('SELECT qml_delete(%L)', :'call'));
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION regress_qml_other;
SELECT qml_delete(:'call');
RESET SESSION AUTHORIZATION;
-- A role that has lost the right learns nothing more, and does not read what there is.
SELECT qml_revoke('regress_qml_other', 'admin');
SELECT qml_grant('regress_qml_other', 'admin', 'mine');
SELECT name, problem FROM qml.hook;
SELECT count(*) AS before FROM k.calls \gset
SELECT qml_enqueue('send', '{}', queue => 'watched') IS NOT NULL;
SELECT count(*) - :before FROM k.calls;
SELECT qml_enqueue('send', '{}', queue => 'mine') IS NOT NULL;
SELECT count(*) - :before FROM k.calls;
SET SESSION AUTHORIZATION regress_qml_other;
SELECT count(*) FROM qml.job WHERE queue LIKE 'qml.%';
RESET SESSION AUTHORIZATION;
SELECT qml_grant('regress_qml_other', 'admin');
-- Undone with the transition; and in bulk.
SELECT qml_unregister_hook('after'), qml_unregister_hook('full');
SELECT count(*) FROM k.calls;
SET SESSION AUTHORIZATION regress_qml_other;
SELECT qml_register_hook('after', 'k.after', '{enqueued}', '{"after_commit": true}');
RESET SESSION AUTHORIZATION;
BEGIN;
SELECT qml_enqueue('undone') IS NOT NULL;
SELECT count(*) FROM k.calls;
ROLLBACK;
SELECT count(*) FROM k.calls;
SELECT count(*) FROM qml_enqueue_many('many', array_fill('{}'::jsonb, ARRAY[1000]));
SELECT count(*), count(DISTINCT id), count(DISTINCT payload #>> '{job,id}'), count(DISTINCT payload ->> 'seq') > 1 AS seq FROM k.calls;
-- The calls of a hook that is gone are found by an index, however many other jobs there are.
TRUNCATE qml.live;
SELECT qml_unregister_hook('after');
SELECT count(*) FROM qml_enqueue_many('other', array_fill('{}'::jsonb, ARRAY[5000]));
BEGIN;
SELECT seq_scan AS seq_scans, idx_scan AS idx_scans FROM pg_stat_xact_user_tables WHERE relid = 'qml.live'::regclass \gset
SELECT qml_register_hook('after', 'k.after', '{enqueued}', '{"after_commit": true}');
SELECT qml_unregister_hook('after');
SELECT seq_scan - :seq_scans AS seq_scan, idx_scan > :idx_scans AS indexed FROM pg_stat_xact_user_tables WHERE relid = 'qml.live'::regclass;
ROLLBACK;
ANALYZE qml.live;
BEGIN;
SELECT qml_register_hook('after', 'k.after', '{deleted}', '{"after_commit": true}');
SELECT qml_delete(id) FROM qml.job WHERE method = 'other' LIMIT 1;
SELECT count(*) FROM k.calls;
SELECT seq_scan AS seq_scans FROM pg_stat_xact_user_tables WHERE relid = 'qml.live'::regclass \gset
SELECT qml_unregister_hook('after');
SELECT seq_scan - :seq_scans AS seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'qml.live'::regclass;
SELECT count(*) FROM k.calls;
ROLLBACK;
-- What a hook is told is bounded, or nobody could change a job with a large document.
SET SESSION AUTHORIZATION regress_qml_other;
SELECT qml_register_hook('after', 'k.after', '{enqueued}', '{"after_commit": true, "with_payload": true}');
RESET SESSION AUTHORIZATION;
TRUNCATE qml.live;
SET qml.max_payload_size = '32MB';
SELECT count(*) FROM qml_enqueue_many('many', array_fill(to_jsonb(repeat('x', 3000000)), ARRAY[4]), metadata => '{"a": 1}');
SELECT qml_enqueue('large', to_jsonb(repeat('x', 17000000))) IS NOT NULL;
SELECT qml_enqueue('huge', metadata => jsonb_build_object('a', repeat('x', 17000000))) IS NOT NULL;
RESET qml.max_payload_size;
SELECT payload #>> '{job,method}' AS method, count(*), min(length(payload #>> '{job,payload}')) AS payload, min(payload #>> '{job,metadata}') AS metadata
FROM k.calls GROUP BY 1 ORDER BY 1;
-- Another role's hook of that name does not get them.
SELECT qml_register_hook('after', 'k.after', '{deleted}', '{"after_commit": true}');
SELECT count(*) FROM k.calls;
-- A call that fails for good is shown, to those who see it.
TRUNCATE qml.live;
SELECT qml_delete(qml_enqueue('x'));
SELECT id AS call FROM k.calls \gset
UPDATE qml.live SET state = 'processing', attempt = 1 WHERE id = :'call';
SELECT state FROM qml_set_state(:'call', 'failed', '{"error": "a secret"}');
SELECT errors, broken, last_error, now() - last_error_at BETWEEN '0' AND '1 min' AS now FROM qml.hook;
SET SESSION AUTHORIZATION regress_qml_other;
SELECT errors, broken, last_error FROM qml.hook;
RESET SESSION AUTHORIZATION;
SELECT qml_unregister_hook('after');
-- What a hook in the transaction said is for those who see all jobs.
SELECT qml_register_hook('f', 'k.tell', '{failed}');
UPDATE qml.hook_data SET errors = 1, last_error = 'a secret';
SELECT last_error FROM qml.hook;
SELECT qml_revoke('regress_qml_app', 'admin'), qml_grant('regress_qml_app', 'monitor', 'default');
SET SESSION AUTHORIZATION regress_qml_app;
SELECT errors, last_error FROM qml.hook;
RESET SESSION AUTHORIZATION;
SELECT qml_grant('regress_qml_app', 'monitor');
SET SESSION AUTHORIZATION regress_qml_app;
SELECT errors, last_error FROM qml.hook;
RESET SESSION AUTHORIZATION;
SELECT qml_unregister_hook('f');
DROP VIEW k.calls;

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
:make_other;
DROP OWNED BY regress_qml_admin, regress_qml_app, regress_qml_other;
DROP ROLE regress_qml_admin, regress_qml_app, regress_qml_other;
