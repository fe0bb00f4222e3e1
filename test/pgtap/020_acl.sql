-- Privileges of everything that belongs to the extension, found through
-- pg_depend: for PUBLIC what asks for a capability before anything else, and for a
-- capability exactly what the tables below say.  A new function or relation fails the test
-- until it stands there.

\ir include/start.sql

-- Members, and partitions of the history, which are none.
CREATE TEMP VIEW object AS
	SELECT d.classid, d.objid, pg_catalog.pg_describe_object(d.classid, d.objid, 0) AS object
	FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'qml'
		AND NOT (d.classid = 'pg_type'::regclass AND d.objid IN (SELECT oid FROM implied_type))
	UNION ALL
	SELECT 'pg_class'::regclass, c.oid, pg_catalog.pg_describe_object('pg_class'::regclass, c.oid, 0)
	FROM pg_class c WHERE c.relispartition AND c.relkind = 'r' AND c.relnamespace = to_regnamespace('qml')
		AND NOT EXISTS (SELECT FROM pg_depend m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid AND m.deptype = 'e');

-- One row per privilege; an object without an ACL has the default one.
CREATE TEMP VIEW privilege AS
	SELECT o.object, s.owner, a.grantor, a.grantee, a.privilege_type, a.is_grantable
	FROM object o
	CROSS JOIN LATERAL (
		SELECT proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
		WHERE o.classid = 'pg_proc'::regclass AND oid = o.objid
		UNION ALL
		SELECT relowner, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) FROM pg_class
		WHERE o.classid = 'pg_class'::regclass AND oid = o.objid
		UNION ALL
		SELECT c.relowner, t.attacl FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid
		WHERE o.classid = 'pg_class'::regclass AND c.oid = o.objid AND t.attacl IS NOT NULL
		UNION ALL
		SELECT typowner, coalesce(typacl, acldefault('T', typowner)) FROM pg_type
		WHERE o.classid = 'pg_type'::regclass AND oid = o.objid
		UNION ALL
		SELECT nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
		WHERE o.classid = 'pg_namespace'::regclass AND oid = o.objid) s (owner, acl)
	CROSS JOIN LATERAL aclexplode(s.acl) a;

CREATE ROLE t_none;
CREATE ROLE t_enqueue;
CREATE ROLE t_work;
CREATE ROLE t_monitor;
CREATE ROLE t_admin;

-- History gets a partition to look at.
DO $$
BEGIN
	PERFORM qml_enqueue('m', id => '00000000-0000-7000-8000-000000000001');
	PERFORM qml_set_state('00000000-0000-7000-8000-000000000001', 'failed');
END $$;

-------------------------------------------------------------------------------
-- Before anything is granted
-------------------------------------------------------------------------------

SELECT is_empty($$SELECT object FROM object WHERE classid NOT IN
		('pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass, 'pg_namespace'::regclass)$$,
	'the extension has no kind of object that this test does not know');
SELECT isnt_empty($$SELECT object FROM object WHERE object LIKE 'table qml.history\_p%'$$, 'history has a partition');
SELECT bag_eq('SELECT DISTINCT object FROM privilege', 'SELECT object FROM object', 'every object has an owner''s privileges');

CREATE TEMP VIEW public_privilege AS SELECT object, privilege_type FROM privilege WHERE grantee = 0;
CREATE TEMP VIEW foreign_privilege AS
	SELECT object, pg_get_userbyid(grantee) AS grantee, privilege_type FROM privilege WHERE grantee NOT IN (0, owner);

SELECT is_empty('TABLE foreign_privilege', 'no role but the owner has a privilege');
SELECT is_empty(
	$$SELECT o.object FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	  WHERE p.prorettype IN ('internal'::regtype, 'cstring'::regtype)
		OR p.proargtypes::oid[] && ARRAY['internal'::regtype, 'cstring'::regtype]::oid[]$$,
	'no function takes or returns internal or cstring');
SELECT is_empty(
	$$SELECT o.object FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	  WHERE p.prosecdef$$,
	'no function is SECURITY DEFINER');
SELECT is_empty(
	$$SELECT o.object FROM object o JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid
	  JOIN pg_extension e ON e.extname = 'qml' WHERE c.relowner <> e.extowner$$,
	'every relation belongs to the owner of the extension, partitions too');

-------------------------------------------------------------------------------
-- What each capability opens
-------------------------------------------------------------------------------

-- Columns: is a role with only this capability let in?  Whoever is not is told how to get it,
-- and not by the server.
CREATE TEMP TABLE expected_execute (name name, enqueue boolean, work boolean, monitor boolean, admin boolean);
INSERT INTO expected_execute VALUES
--                             enqueue work   monitor admin
	('qml_enqueue',            true,  false, false, true),
	('qml_enqueue_job',        true,  false, false, true),
	('qml_try_enqueue',        true,  false, false, true),
	('qml_enqueue_many',       true,  false, false, true),
	('qml_fetch',              false, true,  false, true),
	('qml_fetch_job',          false, true,  false, true),
	('qml_run',                false, true,  false, true),
	('qml_drain',              false, true,  false, true),
	('qml_succeed_fetch',      false, true,  false, true),
	('qml_succeed_fetch_many', false, true,  false, true),
	('qml_heartbeat',          false, true,  false, true),
	('qml_heartbeat_many',     false, true,  false, true),
	('qml_progress',           false, true,  false, true),
	('qml_succeed',            false, true,  false, true),
	('qml_succeed_many',       false, true,  false, true),
	('qml_fail',               false, true,  false, true),
	('qml_fail_many',          false, true,  false, true),
	('qml_release',            false, true,  false, true),
	('qml_release_many',       false, true,  false, true),
	('qml_discard',            false, true,  false, true),
	('qml_progress_job',       false, true,  false, true),
	('qml_succeed_job',        false, true,  false, true),
	('qml_fail_job',           false, true,  false, true),
	('qml_release_job',        false, true,  false, true),
	('qml_discard_job',        false, true,  false, true),
	('qml_try_lock',           true,  true,  false, true),
	('qml_unlock',             true,  true,  false, true),
	('qml_can_transition',     true,  true,  true,  true),
	('qml_job',                true,  true,  true,  true),
	('qml_search',             false, false, true,  true),
	('qml_counts',             false, false, true,  true),
	('qml_queue_counts',       false, false, true,  true),
	('qml_queue_depth',        true,  true,  true,  true),
	('qml_explain',            false, false, true,  true),
	('qml_explain_queue',      false, false, true,  true),
	('qml_status',             false, true,  true,  true),
	('qml_bulk',               false, false, false, true),
	('qml_bulk_preview',       false, false, false, true),
	('qml_pause_bulk',         false, false, false, true),
	('qml_resume_bulk',        false, false, false, true),
	('qml_cancel_bulk',        false, false, false, true),
	('qml_stats',              false, false, true,  true),
	('qml_metrics',            false, false, true,  true),
	('qml_mark',               false, false, false, true),
	('qml_delete',             true,  false, false, true),
	('qml_cancel',             false, false, false, true),
	('qml_retry',              true,  false, false, true),
	('qml_reschedule',           true,  false, false, true),
	('qml_set_state',          false, false, false, true),
	('qml_update_job',         false, false, false, true),
	('qml_peek',               false, false, true,  true),
	('qml_create_queue',       false, false, false, true),
	('qml_alter_queue',        false, false, false, true),
	('qml_drop_queue',         false, false, false, true),
	('qml_pause_queue',        false, false, false, true),
	('qml_resume_queue',       false, false, false, true),
	('qml_purge_queue',        false, false, false, true),
	('qml_pause_all',          false, false, false, true),
	('qml_resume_all',         false, false, false, true),
	('qml_promote_due',        false, false, false, true),
	('qml_reclaim',            false, false, false, true),
	('qml_cleanup',            false, false, false, true),
	('qml_maintain',           false, false, false, true),
	('qml_adopt',              false, false, false, true),
	('qml_schedule_recurring', true,  false, false, true),
	('qml_remove_recurring',   true,  false, false, true),
	('qml_pause_recurring',    true,  false, false, true),
	('qml_resume_recurring',   true,  false, false, true),
	('qml_run_recurring',      true,  false, false, true),
	('qml_cron_next',          true,  true,  true,  true),
	('qml_poll_recurring',     false, false, false, true),
	('qml_pg_cron_schedule',   false, false, false, true),
	('qml_pg_cron_unschedule', false, false, false, true),
	('qml_import_pg_cron',     false, false, false, true),
	('qml_register_server',    false, true,  false, true),
	('qml_heartbeat_server',   false, true,  false, true),
	('qml_unregister_server',  false, true,  false, true),
	('qml_reclaim_server',     false, true,  false, true),
	('qml_register_handler',           false, false, false, true),
	('qml_register_command',           false, false, false, true),
	('qml_unregister_handler',         false, false, false, true),
	('qml_register_hook',           false, false, false, true),
	('qml_unregister_hook',        false, false, false, true),
	('qml_register_middleware',     false, false, false, true),
	('qml_unregister_middleware',  false, false, false, true),
	('qml_next',               false, false, false, true),
	('qml_tracing',            false, false, false, true),
	('qml_wait',               false, true,  false, true),
	('qml_wait_for',           true,  true,  true,  true),
	('qml_watch',              false, false, true,  true),
	('qml_current_job',        false, false, false, false),
	('qml_retry_later',        false, false, false, false),
	('qml_grant',              false, false, false, false),
	('qml_revoke',             false, false, false, false),
	('qml_drop_role_objects',  true,  true,  true,  true),
	('role_problem',           true,  true,  true,  true),
	('job_access',             true,  true,  true,  true),
	('job_document',           true,  true,  true,  true),
	('job_text',               true,  true,  true,  true),
	('queue_access',           true,  true,  true,  true),
	('recurring_access',       true,  true,  true,  true),
	('recurring_document',     true,  true,  true,  true),
	('next_runs',              true,  true,  true,  true),
	('background_databases',   false, true,  true,  true),
	('background_servers',     false, true,  true,  true),
	('is_alive',               false, true,  true,  true),
	('handler_problem',        false, true,  true,  true),
	('hook_problem',           false, true,  true,  true),
	('hook_access',            false, true,  true,  true),
	('middleware_problem',     false, true,  true,  true),
	('one_line',               true,  true,  true,  true),
	('brief',                  true,  true,  true,  true),
	('may_read',               true,  true,  true,  true),
	('may_plan',               true,  true,  true,  true),
	('error_fingerprint',      true,  true,  true,  true),
	('bulk_access',            true,  true,  true,  true),
	('stats_access',           false, false, true,  true),
	('scheduler_alert',        false, false, true,  true),
	('stats_quantile',         false, false, true,  true),
	('unlogged_jobs',          true,  true,  true,  true),
	('is_admin',               true,  true,  true,  true),
	('lease_end',              true,  true,  true,  true),
	('retries_left',           true,  true,  true,  true),
	('search_order',           true,  true,  true,  true),
	('search_key',             true,  true,  true,  true),
	('search_own',             true,  true,  true,  true),
	('search_slow',            true,  true,  true,  true),
	('invalidate',             false, false, false, false),
	('note_sql',               false, false, false, false);

-- The same for SELECT; a table or sequence that is missing here is closed.
CREATE TEMP TABLE expected_select (name name, enqueue boolean, work boolean, monitor boolean, admin boolean);
INSERT INTO expected_select VALUES
--                        enqueue work   monitor admin
	('job',               true,  true,  true,  true),
	('queue',             true,  true,  true,  true),
	('acl',               true,  true,  true,  true),
	('recent',            true,  true,  true,  true),
	('lock',              true,  true,  true,  true),
	('pause',             true,  true,  true,  true),
	('audit',             false, false, false, true),
	('recurring',         true,  true,  true,  true),
	('recurring_tick',    true,  true,  true,  true),
	('database',          false, true,  true,  true),
	('server',            false, true,  true,  true),
	('handler',           false, true,  true,  true),
	('hook',              false, true,  true,  true),
	('middleware',        false, true,  true,  true),
	('stats_minute',      false, false, true,  true),
	('mark',              false, false, true,  true),
	('bulk',              true,  true,  true,  true),
	('dead_letter',       false, false, true,  true),
	('alert',             false, false, true,  true),
	('stats_data',        false, false, false, false),
	('bulk_data',         false, false, false, false),
	('mark_data',         false, false, false, false),
	('alert_data',        false, false, false, false),
	('queue_data',        false, false, false, false),
	('pause_data',        false, false, false, false),
	('audit_data',        false, false, false, false),
	('audit_overflow',    false, false, false, false),
	('live',              false, false, false, false),
	('history',           false, false, false, false),
	('history_overflow',  false, false, false, false),
	('live_unlogged',     false, false, false, false),
	('history_unlogged',  false, false, false, false),
	('history_unlogged_overflow', false, false, false, false),
	('lives',             false, false, false, false),
	('unlogged_life',     false, false, false, false),
	('async_life',        false, false, false, false),
	('lock_data',         false, false, false, false),
	('recurring_data',    false, false, false, false),
	('occurrence_data',   false, false, false, false),
	('server_data',       false, false, false, false),
	('handler_data',      false, false, false, false),
	('hook_data',         false, false, false, false),
	('middleware_data',   false, false, false, false),
	('acl_data',          false, false, false, false),
	('capabilities_see_qml_drop_role_objects', false, false, false, false),
	('registrations_see_qml_drop_role_objects', false, false, false, false),
	('instance_data',     false, false, false, false),
	('queue_data_id_seq', false, false, false, false),
	('lock_fence',        false, false, false, false);

SELECT set_eq(
	$$SELECT p.proname FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid$$,
	'SELECT name FROM expected_execute', 'every function stands in the table');
SELECT set_eq(
	$$SELECT c.relname FROM object o JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid
	  WHERE NOT c.relispartition$$,
	'SELECT name FROM expected_select', 'every relation stands in the table');

-- Open to PUBLIC: functions that let somebody in, not those of triggers; those of indexes, as an owner that
-- the tables got later calls them; views, and the type of their columns.
CREATE TEMP VIEW expected_public AS
	SELECT o.object, 'EXECUTE' AS privilege_type FROM object o
	JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	WHERE p.proname NOT IN ('invalidate', 'note_sql')
	UNION ALL
	SELECT o.object, 'SELECT' FROM object o
	JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid WHERE c.relkind = 'v'
	UNION ALL VALUES ('type qml.job_state', 'USAGE');
SELECT bag_eq('TABLE public_privilege', 'TABLE expected_public', 'PUBLIC may call what asks for a capability, and nothing else');

DO $$
BEGIN
	PERFORM qml_grant('t_enqueue', 'enqueue', 'q');
	PERFORM qml_grant('t_work', 'work', 'q');
	PERFORM qml_grant('t_monitor', 'monitor', 'q');
	PERFORM qml_grant('t_admin', 'admin');
END $$;

CREATE TEMP VIEW holder AS
	SELECT r.role, r.capability FROM (VALUES ('t_enqueue', 'enqueue'), ('t_work', 'work'), ('t_monitor', 'monitor'),
		('t_admin', 'admin'), ('t_none', 'none')) r (role, capability);

-- Calls of a function: with nothing but NULL, which no function takes for an answer to the
-- question who may call it, unless it is not called at all; and with values that are none of
-- anybody's.
CREATE FUNCTION pg_temp.calls(function oid) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format(CASE WHEN p.prokind = 'p' THEN 'CALL %s(%s)' WHEN p.proretset THEN 'SELECT count(*) FROM %s(%s)' ELSE 'SELECT %s(%s)::text' END,
		p.oid::regproc, (
			SELECT string_agg(CASE WHEN v.use_null THEN 'NULL' ELSE CASE t.type
					WHEN 'uuid' THEN quote_literal(gen_random_uuid())
					WHEN 'jsonb' THEN quote_literal('{}')
					WHEN 'interval' THEN quote_literal('1 s')
					WHEN 'timestamp with time zone' THEN quote_literal('2040-01-01')
					WHEN 'integer' THEN '1'
					WHEN 'bigint' THEN '1'
					WHEN 'boolean' THEN 'true'
					WHEN 'regrole' THEN 'quote_ident(current_user)::regrole'
					WHEN 'regprocedure' THEN quote_literal('now()')
					WHEN 'qml.job_state' THEN quote_literal('enqueued')
					WHEN 'qml.job' THEN 'NULL'
					WHEN 'anycompatible' THEN quote_literal('q')
					WHEN 'bytea' THEN quote_literal('')
					WHEN 'double precision' THEN '0.5'
					WHEN 'text' THEN quote_literal('q')
					ELSE CASE WHEN t.type LIKE '%[]' THEN quote_literal('{}') END END END
				|| '::' || CASE t.type WHEN 'anycompatible' THEN 'text' ELSE t.type END, ', ' ORDER BY t.n)
			FROM (SELECT format_type(a.type, NULL), a.n FROM unnest(p.proargtypes) WITH ORDINALITY a (type, n)) t (type, n)))
	FROM pg_proc p, (VALUES (true), (false)) v (use_null)
	WHERE p.oid = function AND p.prorettype <> 'trigger'::regtype AND NOT (p.proisstrict AND v.use_null)
$$;

-- How a call ends: "let in", or the hint after SQLSTATE 42501.
CREATE FUNCTION pg_temp.answer(role name, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	EXECUTE call;
	RAISE EXCEPTION USING errcode = 'T0000';
EXCEPTION
	WHEN insufficient_privilege THEN
		GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
		RETURN CASE WHEN hint = '' THEN '42501: ' || SQLERRM ELSE hint END;
	WHEN OTHERS THEN
		RETURN 'let in';
END $$;

CREATE TEMP TABLE tried AS
	SELECT h.role, h.capability, p.proname, c.call, pg_temp.answer(h.role, c.call) AS answer,
		coalesce((to_jsonb(e) ->> h.capability)::boolean, false) AS let_in
	FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	JOIN expected_execute e ON e.name = p.proname
	CROSS JOIN LATERAL pg_temp.calls(p.oid) c (call)
	CROSS JOIN (SELECT * FROM holder WHERE capability <> 'none') h
	WHERE p.proname NOT IN ('invalidate', 'note_sql', 'search_order', 'search_key', 'search_own', 'search_slow');
-- The schema is opened by hand to one who has nothing, for the functions and views in it.
SELECT pg_temp.ends('t_none', call, '42501', 'the schema is closed: ' || call)
	FROM unnest(ARRAY['TABLE qml.job', 'TABLE qml.live', 'SELECT qml.is_admin()', $$PREPARE p AS SELECT FROM qml.live$$,
		$$PREPARE p AS DELETE FROM qml.acl_data$$, $$CREATE RULE r AS ON INSERT TO qml.live DO ALSO NOTHING$$]) call;
SELECT is_empty($$SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'qml.live'::regclass AND mode = 'AccessExclusiveLock'$$,
	'and the tables in it are not locked by that');
GRANT USAGE ON SCHEMA qml TO t_none;
INSERT INTO tried
	SELECT 't_none', 'none', p.proname, c.call, pg_temp.answer('t_none', c.call), false
	FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	CROSS JOIN LATERAL pg_temp.calls(p.oid) c (call)
	WHERE p.proname NOT IN ('invalidate', 'note_sql', 'search_order', 'search_key', 'search_own', 'search_slow');

SELECT is(array_remove(array_agg(DISTINCT answer), 'let in'), '{}', format('%s is let in: %s', capability, proname))
	FROM tried WHERE let_in AND call !~ 'qml_reclaim_server\(''q' GROUP BY capability, proname ORDER BY capability, proname;
SELECT matches(answer, CASE
		WHEN proname IN ('qml_grant', 'qml_revoke') THEN '^42501: permission denied to (grant|revoke) capabilities$'
		WHEN proname IN ('qml_current_job', 'qml_retry_later') THEN 'SELECT (public\.)?qml_register_handler\(.*"run_as": "' || role
		ELSE 'SELECT (public\.)?qml_grant\(''' || role END, format('%s is told how to be let in: %s', capability, call))
	FROM tried WHERE NOT let_in;
-- The least that would do.
SELECT is_empty($$SELECT t.proname, t.answer FROM tried t JOIN expected_execute e ON e.name = t.proname
	WHERE t.role = 't_none' AND t.answer !~ ('''t_none'', ''' || CASE WHEN e.enqueue THEN 'enqueue' WHEN e.work THEN 'work' WHEN e.monitor THEN 'monitor' ELSE 'admin' END)
		AND t.proname NOT IN ('qml_grant', 'qml_revoke', 'qml_current_job', 'qml_retry_later', 'may_read', 'may_plan')$$,
	'who has nothing is told to ask for the least that would do');
SELECT set_eq($$SELECT proname FROM tried WHERE role = 't_none'$$,
	$$SELECT p.proname FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	  WHERE has_function_privilege('t_none', p.oid, 'EXECUTE') AND p.proname NOT LIKE 'search\_%'$$,
	'all functions that are open were tried, but those that tell nothing');

-- What views ask for each row tells nothing of what they do not show.
SELECT id AS other_queue FROM qml.queue_data WHERE name = 'default' \gset
SELECT pg_temp.ends(role, format('SELECT qml.retries_left(%s, ''m'', %L, 3, 1)', :other_queue, role), expected, 'retries that are left on a queue, for ' || role)
	FROM (VALUES ('t_enqueue', '=0'), ('t_work', '=0'), ('t_monitor', '=3'), ('t_admin', '=3')) v (role, expected);

-- Whoever sees nothing of a queue is not told what is in it.
CREATE ROLE t_monitor_too;
DO $$
BEGIN
	PERFORM qml_schedule_recurring('hidden', '@yearly', 'm');
	PERFORM qml_grant('t_monitor_too', 'monitor', 'q'), qml_grant('t_monitor_too', 'enqueue', 'q');
END $$;
CREATE FUNCTION pg_temp.refusal(role name, call text, id text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	EXECUTE format(call, id);
	RAISE EXCEPTION USING errcode = 'T0000';
EXCEPTION WHEN OTHERS THEN
	RETURN replace(concat_ws(': ', sqlstate, sqlerrm), id, '<id>');
END $$;
SELECT is(pg_temp.refusal('t_enqueue', call, there), pg_temp.refusal('t_enqueue', call, missing), 'it is as if it were not there: ' || call)
	FROM (VALUES ('hidden', 'missing', '{"SELECT qml_remove_recurring(%L)","SELECT qml_remove_recurring(%L, true)","SELECT qml_pause_recurring(%L)",
			"SELECT qml_resume_recurring(%L)","SELECT qml_run_recurring(%L)"}'::text[]),
		('00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000009', '{"SELECT qml_delete(%L)","SELECT qml_retry(%L)",
			"SELECT qml_reschedule(%L, now())"}')) v (there, missing, calls), unnest(calls) call;
SELECT is(pg_temp.refusal('t_enqueue', 'SELECT qml_schedule_recurring(%L, ''@daily'', ''m'', queue => ''q'')', 'hidden'),
	'42501: permission denied for recurring job "<id>"', 'an id that is taken does not tell the queue');
SELECT is(pg_temp.refusal('t_monitor_too', call, id), '42501: permission denied for queue "default"', 'whoever sees outlines is told the queue: ' || call)
	FROM (VALUES ('SELECT qml_remove_recurring(%L)', 'hidden'), ('SELECT qml_delete(%L)', '00000000-0000-7000-8000-000000000001')) v (call, id);
DO $$ BEGIN PERFORM qml_remove_recurring('hidden'), qml_drop_role_objects('t_monitor_too'); END $$;
DROP ROLE t_monitor_too;

-- Views: when they are read, and when they are only planned; no row, no estimate.
SELECT ok(CASE WHEN coalesce((to_jsonb(e) ->> h.capability)::boolean, false) THEN answer = 'let in'
		ELSE answer ~ ('SELECT (public\.)?qml_grant\(.' || h.role || '., .' || CASE WHEN e.monitor THEN 'monitor' ELSE 'admin' END || '.') END,
	format('%s: %s: %s', h.capability, call, answer))
	FROM object o JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid AND c.relkind = 'v'
	JOIN expected_select e ON e.name = c.relname
	CROSS JOIN holder h
	CROSS JOIN LATERAL (SELECT call, pg_temp.answer(h.role, call) AS answer FROM unnest(ARRAY[
		format('SELECT * FROM %s', o.objid::regclass), format('SELECT count(*) FROM %s', o.objid::regclass),
		format('SELECT FROM %s LIMIT 1', o.objid::regclass), format('EXPLAIN SELECT * FROM %s', o.objid::regclass)]) call) a;
-- Also with a plan that was made for somebody else.
CREATE FUNCTION pg_temp.kept() RETURNS TABLE (name name, answer text) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
	FOR name IN SELECT c.relname FROM object o JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid AND c.relkind = 'v' LOOP
		EXECUTE format('PREPARE kept_%s AS SELECT count(*) FROM qml.%1$I', name);
		EXECUTE format('EXECUTE kept_%s', name);
		answer := pg_temp.answer('t_none', format('EXECUTE kept_%s', name));
		EXECUTE format('DEALLOCATE kept_%s', name);
		RETURN NEXT;
	END LOOP;
END $$;
SELECT matches(answer, 'qml_grant\(.t_none., .' || CASE WHEN e.monitor THEN 'monitor' ELSE 'admin' END || '.', 'a kept plan of qml.' || name)
	FROM pg_temp.kept() JOIN expected_select e USING (name);
SELECT is(
	CASE c.relkind WHEN 'S' THEN has_sequence_privilege(h.role, o.objid, 'SELECT') ELSE has_table_privilege(h.role, o.objid, 'SELECT') END,
	c.relkind = 'v',
	format('%s selects from %s', h.capability, c.relname))
	FROM object o JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid
	CROSS JOIN holder h;

-- Whoever is refused leaves nothing behind, whatever is named; and answers are kept up to a number.
DO $$ BEGIN PERFORM pg_temp.answer('t_none', format('SELECT qml_enqueue(''m'', queue => %L)', 'none' || n)) FROM generate_series(1, 2000) n; END $$;
SELECT cmp_ok((SELECT sum(used_bytes) FROM pg_backend_memory_contexts WHERE name = 'qml rights'), '<', 200000::numeric,
	'refusals are not remembered');
SELECT is(pg_temp.answer('t_enqueue', $$SELECT count(*) FILTER (WHERE qml.queue_access('none' || n)) FROM generate_series(1, 20000) n$$), 'let in',
	'who has a capability asks for many');
SELECT cmp_ok((SELECT sum(used_bytes) FROM pg_backend_memory_contexts WHERE name = 'qml rights'), '<', 16000000::numeric,
	'but not all are remembered');
REVOKE USAGE ON SCHEMA qml FROM t_none;

SELECT is_empty(
	$$TABLE foreign_privilege EXCEPT SELECT object, grantee, privilege_type FROM foreign_privilege
	  WHERE (object = 'schema qml' AND privilege_type = 'USAGE')
		OR (object = 'table qml.capabilities_see_qml_drop_role_objects' AND privilege_type = 'REFERENCES')$$,
	'a capability brings USAGE on the schema, a mark, and nothing more');
SELECT set_eq(
	$$SELECT grantee FROM foreign_privilege WHERE privilege_type = 'REFERENCES'$$,
	$$SELECT role::name FROM holder WHERE role <> 't_none'$$,
	'every holder is marked');
GRANT CREATE ON SCHEMA public TO t_admin;
SELECT throws_ok($$SET LOCAL ROLE t_admin; CREATE TABLE public.uses (x boolean REFERENCES qml.capabilities_see_qml_drop_role_objects (empty))$$,
	'42830', NULL, 'the mark allows nothing');
RESET ROLE;
REVOKE CREATE ON SCHEMA public FROM t_admin;
SELECT set_eq(
	$$SELECT grantee, object FROM foreign_privilege WHERE privilege_type = 'USAGE'$$,
	$$SELECT role::name, 'schema qml' FROM holder WHERE role <> 't_none'$$,
	'every holder may use the schema');
SELECT is_empty('SELECT object FROM privilege WHERE is_grantable AND grantee <> owner',
	'no privilege can be handed on');
SELECT is_empty('SELECT object FROM privilege WHERE grantor <> owner', 'the owner grants all of them');
SELECT bag_eq('TABLE public_privilege', 'TABLE expected_public', 'PUBLIC has what it had');

-------------------------------------------------------------------------------
-- Several capabilities, and taking them back
-------------------------------------------------------------------------------

DO $$
BEGIN
	PERFORM qml_grant('t_none', 'enqueue', 'q');
	PERFORM qml_grant('t_none', 'work', 'q');
	PERFORM qml_grant('t_none', 'work', 'r');
END $$;
CREATE FUNCTION pg_temp.opened(role name) RETURNS SETOF name LANGUAGE sql AS $$
	SELECT DISTINCT p.proname FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	CROSS JOIN LATERAL pg_temp.calls(p.oid) c (call) WHERE pg_temp.answer(role, c.call) = 'let in'
$$;
SELECT set_eq($$SELECT pg_temp.opened('t_none')$$, 'SELECT name FROM expected_execute WHERE enqueue OR work',
	'two capabilities open what either opens');
DO $$ BEGIN PERFORM qml_revoke('t_none', 'work', 'q'); END $$;
SELECT is(pg_temp.answer('t_none', 'SELECT qml_fetch(NULL, NULL, NULL)'), 'let in',
	'the functions stay open while the capability is held for another queue');
DO $$ BEGIN PERFORM qml_revoke('t_none', 'work', 'r'); END $$;
SELECT set_eq($$SELECT pg_temp.opened('t_none')$$, 'SELECT name FROM expected_execute WHERE enqueue',
	'with the last queue of a capability its functions are closed, those of the other stay open');

DO $$
BEGIN
	PERFORM qml_revoke('t_none', 'enqueue');
	PERFORM qml_revoke(role::regrole, capability) FROM holder WHERE capability <> 'none';
END $$;
SELECT is_empty('TABLE foreign_privilege', 'after the last capability no privilege is left');
SELECT lives_ok('DROP ROLE t_none, t_enqueue, t_work, t_monitor', 'and the roles can be dropped');

-- A capability may also end because its queue is dropped.
DO $$
BEGIN
	PERFORM qml_create_queue('gone');
	PERFORM qml_grant('t_admin', 'work', 'gone');
	PERFORM qml_drop_queue('gone');
END $$;
SELECT is_empty('TABLE foreign_privilege', 'a capability that goes with its queue leaves no privilege');

-------------------------------------------------------------------------------
-- What a handler opens to its role
-------------------------------------------------------------------------------

CREATE ROLE t_run LOGIN;
CREATE ROLE t_run2 LOGIN;
CREATE FUNCTION public.t_handler(jsonb) RETURNS void LANGUAGE sql AS '';
CREATE TEMP VIEW opened AS
	SELECT grantee::text, privilege_type || ' ' || object AS what FROM foreign_privilege WHERE grantee IN ('t_run', 't_run2');
CREATE TEMP TABLE runs (what text);
INSERT INTO runs VALUES ('REFERENCES table qml.registrations_see_qml_drop_role_objects'), ('USAGE schema qml');
CREATE TEMP TABLE run (name name);
INSERT INTO run VALUES ('qml_progress'), ('qml_progress_job'), ('qml_current_job'), ('qml_retry_later'), ('qml_discard'), ('qml_discard_job'),
	('qml_drop_role_objects'), ('search_order'), ('search_key'), ('search_own'), ('search_slow');
DO $$ BEGIN PERFORM qml_register_handler('h1', 'public.t_handler', '{"run_as": "t_run"}'), qml_register_handler('h2', 'public.t_handler', '{"run_as": "t_run"}'); END $$;
SELECT set_eq('TABLE opened', $$SELECT 't_run'::text, what FROM runs$$, 'a handler opens the schema to its role, and no more');
SELECT set_eq($$SELECT pg_temp.opened('t_run')$$, 'TABLE run', 'and what its jobs may call');
SELECT pg_temp.ends('t_run', 'SELECT qml_current_job() IS NULL', '=true', 'outside of a job there is none');
SELECT pg_temp.ends('t_run', call, '55000', 'nor has it anything to say there: ' || call)
	FROM unnest(ARRAY[$$SELECT qml_progress('1')$$, $$SELECT qml_retry_later('1 s')$$, 'SELECT qml_discard()',
		'SELECT qml_progress(NULL)', 'SELECT qml_retry_later(NULL)']) call;
SELECT pg_temp.ends('t_run', $$SELECT qml_progress('00000000-0000-7000-8000-000000000001', 1, '1')$$, '42501', 'the form for workers needs the capability');
SELECT pg_temp.ends('t_run', $$SELECT qml_discard('00000000-0000-7000-8000-000000000001', 1)$$, '42501', 'so does that of qml_discard');
SELECT pg_temp.ends('t_run', call, '42501', 'refused: ' || call)
	FROM unnest(ARRAY[$$SELECT qml_enqueue('h1')$$, 'SELECT qml_fetch()', $$SELECT qml_job('00000000-0000-7000-8000-000000000001')$$,
		'TABLE qml.handler', 'TABLE qml.job', $$SELECT qml_unregister_handler('h1')$$, $$SELECT qml_register_handler('h1', 'public.t_handler')$$]) call;
DO $$ BEGIN PERFORM qml_unregister_handler('h1'); END $$;
SELECT set_eq('TABLE opened', $$SELECT 't_run'::text, what FROM runs$$, 'which stays while it has another one');
DO $$ BEGIN PERFORM qml_register_handler('h2', 'public.t_handler', '{"run_as": "t_run2"}'); END $$;
SELECT set_eq('TABLE opened', $$SELECT 't_run2'::text, what FROM runs$$, 'goes over with it to another role');
SELECT set_eq($$SELECT pg_temp.opened('t_run2')$$, 'TABLE run', 'with what it opens');
SELECT is_empty($$SELECT pg_temp.opened('t_run')$$, 'which the other one has lost');
DO $$ BEGIN PERFORM qml_grant('t_run2', 'work', 'q'); END $$;
SELECT set_eq($$SELECT pg_temp.opened('t_run2')$$, 'SELECT name FROM expected_execute WHERE work UNION TABLE run', 'a capability is opened besides');
DO $$ BEGIN PERFORM qml_unregister_handler('h2'); END $$;
SELECT set_eq($$SELECT pg_temp.opened('t_run2')$$, 'SELECT name FROM expected_execute WHERE work', 'and stays when the last handler goes');
DO $$ BEGIN PERFORM qml_register_handler('h3', 'public.t_handler', '{"run_as": "t_run2"}'), qml_revoke('t_run2', 'work'); END $$;
SELECT set_eq('TABLE opened', $$SELECT 't_run2'::text, what FROM runs$$, 'a handler keeps its part when the last capability goes');
DO $$ BEGIN PERFORM qml_unregister_handler('h3'); END $$;
SELECT is_empty('TABLE foreign_privilege', 'after the last handler no privilege is left');
SELECT lives_ok('DROP ROLE t_run, t_run2', 'and the roles can be dropped');
-- The owner's own privileges are not touched.
DO $$ BEGIN PERFORM qml_register_handler('h', 'public.t_handler'), qml_unregister_handler('h'); END $$;
SELECT is_empty($$SELECT object FROM object EXCEPT SELECT object FROM privilege WHERE grantee = owner$$, 'nor is anything taken from the owner');

-------------------------------------------------------------------------------
-- Where PUBLIC has lost what the script gave it
-------------------------------------------------------------------------------

CREATE ROLE t_before;
CREATE ROLE "t ""After""";
CREATE ROLE t_owned;
CREATE ROLE t_stranger;
CREATE ROLE t_run LOGIN;
CREATE TEMP VIEW held AS SELECT grantee::text, object, privilege_type FROM foreign_privilege
	WHERE privilege_type <> 'REFERENCES' AND object <> 'schema qml';
DO $$ BEGIN PERFORM qml_grant('t_before', 'work', 'q'), qml_grant('t_owned', 'work', 'q'); END $$;
DROP OWNED BY t_owned;
SELECT is_empty('TABLE held', 'as long as PUBLIC has it, no role gets it');
REVOKE ALL ON ALL ROUTINES IN SCHEMA public, qml FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA qml FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.t_handler TO PUBLIC;
SELECT is(pg_temp.answer('t_before', call), '42501: permission denied for ' || what, 'then the server refuses: ' || call)
	FROM (VALUES ('SELECT qml_fetch()', 'function qml_fetch'), ('TABLE qml.job', 'view job')) v (call, what);
DO $$ BEGIN PERFORM qml_grant('"t ""After"""', 'enqueue', 'q'); END $$;
SELECT set_eq($$SELECT pg_temp.opened('t "After"')$$, 'SELECT name FROM expected_execute WHERE enqueue', 'qml_grant opens it to the grantee');
SELECT set_eq($$SELECT pg_temp.opened('t_before')$$, 'SELECT name FROM expected_execute WHERE work', 'and to those who have been granted something before');
SELECT is(pg_temp.answer(role, format('TABLE qml.%I', name)), 'let in', format('views too: %s for %s', name, role))
	FROM expected_select s JOIN (VALUES ('t "After"', 'enqueue'), ('t_before', 'work')) r (role, capability)
		ON (to_jsonb(s) ->> r.capability)::boolean;
SELECT set_eq($$SELECT DISTINCT grantee FROM held$$, ARRAY['t "After"', 't_before'], 'but to nobody else');
SELECT is(pg_temp.answer('t_stranger', 'SELECT qml_fetch()'), '42501: permission denied for function qml_fetch', 'whoever has no capability is told so by the server');
SELECT bag_eq($$SELECT object, privilege_type FROM held WHERE grantee = 't_before'$$,
	$$SELECT * FROM expected_public WHERE object <> 'type qml.job_state'$$, 'it is what PUBLIC had');
SELECT is_empty('SELECT object FROM privilege WHERE is_grantable AND grantee <> owner', 'and cannot be handed on');
DO $$ BEGIN PERFORM qml_register_handler('h', 'public.t_handler', '{"run_as": "t_run"}'); END $$;
SELECT set_eq($$SELECT pg_temp.opened('t_run')$$, 'TABLE run', 'a handler opens it to its role');
DO $$ BEGIN PERFORM qml_unregister_handler('h'), qml_revoke('t_before', 'work'); END $$;
SELECT set_eq($$SELECT DISTINCT grantee FROM held$$, ARRAY['t "After"'], 'it goes with the last handler or capability');
-- What was granted in another way stays.
GRANT EXECUTE ON FUNCTION qml_counts() TO "t ""After""" WITH GRANT OPTION;
DO $$ BEGIN PERFORM qml_revoke('"t ""After"""', 'enqueue'); END $$;
SELECT bag_eq('TABLE held', $$VALUES ('t "After"', 'function qml_counts()', 'EXECUTE')$$, 'and leaves what others granted');
REVOKE ALL ON FUNCTION qml_counts() FROM "t ""After""";
SELECT is_empty($$SELECT FROM qml.acl_data WHERE capability = 'open'$$, 'nothing of it is recorded');
GRANT EXECUTE ON FUNCTION qml_counts() TO t_before;
-- One function alone.
SELECT format('GRANT %s ON %s TO PUBLIC', privilege_type, regexp_replace(regexp_replace(object, '^view ', 'TABLE '), '^function ', 'ROUTINE '))
	FROM (TABLE expected_public EXCEPT TABLE public_privilege) lost \gexec
DO $$ BEGIN PERFORM qml_grant('t_before', 'work', 'q'), qml_revoke('t_before', 'work'); END $$;
SELECT bag_eq('TABLE held', $$VALUES ('t_before', 'function qml_counts()', 'EXECUTE')$$, 'what was granted by hand stays where qml has granted nothing');
REVOKE ALL ON FUNCTION qml_counts() FROM t_before;
REVOKE EXECUTE ON FUNCTION qml_current_job() FROM PUBLIC;
DO $$ BEGIN PERFORM qml_register_handler('h', 'public.t_handler', '{"run_as": "t_run"}'); END $$;
SELECT bag_eq('TABLE held', $$VALUES ('t_run', 'function qml_current_job()', 'EXECUTE')$$, 'only what is missing is granted');
DO $$ BEGIN PERFORM qml_drop_role_objects('t_run'); END $$;
GRANT EXECUTE ON FUNCTION qml_current_job() TO PUBLIC;
SELECT is_empty('TABLE foreign_privilege', 'afterwards no privilege is left');
SELECT lives_ok('DROP ROLE t_before, "t ""After""", t_owned, t_stranger, t_run', 'and the roles can be dropped');
SELECT bag_eq('TABLE public_privilege', 'TABLE expected_public', 'PUBLIC has what it had');

-------------------------------------------------------------------------------
-- Default privileges that give everything away must not reach qml
-------------------------------------------------------------------------------

CREATE ROLE t_reader;
SELECT count(*) + 1 AS partitions FROM pg_inherits WHERE inhparent = 'qml.history'::regclass \gset
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, t_reader;

DO $$
BEGIN
	PERFORM qml_create_queue('long', '{"failed_ttl": "3000 days"}');
	PERFORM qml_enqueue('m', queue => 'long', id => '00000000-0000-7000-8000-000000000002');
	PERFORM qml_set_state('00000000-0000-7000-8000-000000000002', 'failed');
END $$;
SELECT is((SELECT count(*) FROM object WHERE object LIKE 'table qml.history\_p%'), :partitions::bigint, 'history has another partition');
SELECT bag_eq('TABLE public_privilege', 'TABLE expected_public', 'a new partition gives nothing to PUBLIC');
SELECT is_empty($$SELECT * FROM foreign_privilege WHERE grantee = 't_reader'$$,
	'nor anything to a role that history itself is closed to');

-- Every kind of object that there are default privileges for, also by a role with
-- a name to be quoted, and such that could be handed on.
CREATE ROLE "t ""Reader""";
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO "t ""Reader""" WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC, t_reader, "t ""Reader""";
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC, t_reader, "t ""Reader""";
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO PUBLIC, t_reader, "t ""Reader""";
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC, t_reader, "t ""Reader""";
DROP EXTENSION qml CASCADE;
CREATE EXTENSION qml;
SELECT bag_eq('TABLE public_privilege', 'TABLE expected_public', 'a new extension gives PUBLIC no more');
SELECT is_empty('TABLE foreign_privilege', 'nor to a role that gets everything else');
SELECT bag_eq('SELECT DISTINCT object FROM privilege', 'SELECT object FROM object', 'and leaves the owner what is his');
SELECT is((SELECT count(*) FROM pg_init_privs p JOIN object o ON o.classid = p.classoid AND o.objid = p.objoid
		CROSS JOIN LATERAL aclexplode(p.initprivs) a WHERE a.grantee = 0), (SELECT count(*) FROM expected_public),
	'a dump takes what PUBLIC has for granted');
SELECT is_empty($$SELECT p.privtype FROM pg_init_privs p JOIN object o ON o.classid = p.classoid AND o.objid = p.objoid
	CROSS JOIN LATERAL aclexplode(p.initprivs) a WHERE a.grantee::regrole::text LIKE '%t_reader%'$$,
	'nor does a dump take such a privilege for granted');
DO $$ BEGIN PERFORM qml_grant('t_reader', 'enqueue', 'q'); END $$;
SELECT throws_ok($$SET LOCAL ROLE t_reader; INSERT INTO qml.acl_data SELECT 't_reader', 'admin', NULL, 't_reader', now()$$,
	'42501', NULL, 'what is granted by function does not open the tables');
RESET ROLE;
SELECT is_empty($$SELECT * FROM foreign_privilege f WHERE f.object <> 'schema qml'
		AND (f.object, f.privilege_type) <> ('table qml.capabilities_see_qml_drop_role_objects', 'REFERENCES')$$,
	'nor does it by privileges');

-- Default privileges that close everything must not reach it either.
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC;
DROP EXTENSION qml CASCADE;
CREATE EXTENSION qml;
SELECT bag_eq('TABLE public_privilege', 'TABLE expected_public', 'nor less, where default privileges take everything away');

SELECT * FROM finish();
ROLLBACK;
