-- Privileges of everything that belongs to the extension, found through
-- pg_depend: nothing for PUBLIC, and for a capability exactly what the tables
-- below say.  A new function or relation fails the test until it stands there.

\ir include/start.sql

-- Members, and partitions of history, which are none.
CREATE TEMP VIEW object AS
	SELECT d.classid, d.objid, pg_catalog.pg_describe_object(d.classid, d.objid, 0) AS object
	FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'qml'
		AND NOT (d.classid = 'pg_type'::regclass AND d.objid IN (SELECT oid FROM implied_type))
	UNION ALL
	SELECT 'pg_class'::regclass, c.oid, pg_catalog.pg_describe_object('pg_class'::regclass, c.oid, 0)
	FROM pg_class c WHERE c.relispartition AND c.relkind = 'r' AND c.relnamespace = to_regnamespace('qml');

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

SELECT is_empty('TABLE public_privilege', 'PUBLIC has no privilege on anything');
SELECT is_empty('TABLE foreign_privilege', 'nor has any role but the owner');
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

-- Columns: may a role with only this capability, on one queue, call it at all?
CREATE TEMP TABLE expected_execute (name name, enqueue boolean, work boolean, monitor boolean, admin boolean);
INSERT INTO expected_execute VALUES
--                             enqueue work   monitor admin
	('qml_enqueue',            true,  false, false, true),
	('qml_enqueue_many',       true,  false, false, true),
	('qml_fetch',              false, true,  false, true),
	('qml_heartbeat',          false, true,  false, true),
	('qml_progress',           false, true,  false, true),
	('qml_succeed',            false, true,  false, true),
	('qml_succeed_many',       false, true,  false, true),
	('qml_fail',               false, true,  false, true),
	('qml_release',            false, true,  false, true),
	('qml_try_lock',           false, true,  false, true),
	('qml_unlock',             false, true,  false, true),
	('qml_can_transition',     true,  true,  true,  true),
	('qml_job',                true,  true,  true,  true),
	('qml_counts',             false, false, true,  true),
	('qml_queue_counts',       false, false, true,  true),
	('qml_delete',             true,  false, false, true),
	('qml_retry',              true,  false, false, true),
	('qml_reschedule',           true,  false, false, true),
	('qml_set_state',          false, false, false, true),
	('qml_create_queue',       false, false, false, true),
	('qml_alter_queue',        false, false, false, true),
	('qml_drop_queue',         false, false, false, true),
	('qml_pause_queue',        false, false, false, true),
	('qml_resume_queue',       false, false, false, true),
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
	('qml_register_server',    false, true,  false, true),
	('qml_heartbeat_server',   false, true,  false, true),
	('qml_unregister_server',  false, true,  false, true),
	('qml_reclaim_server',     false, true,  false, true),
	('qml_register_handler',           false, false, false, true),
	('qml_unregister_handler',         false, false, false, true),
	('qml_register_hook',           false, false, false, true),
	('qml_unregister_hook',        false, false, false, true),
	('qml_register_middleware',     false, false, false, true),
	('qml_unregister_middleware',  false, false, false, true),
	('qml_next',               false, false, false, true),
	('qml_tracing',            false, false, false, true),
	('qml_wait',               false, true,  false, true),
	('qml_wait_for',           true,  true,  true,  true),
	('qml_current_job',        false, false, false, false),
	('qml_retry_later',        false, false, false, false),
	('qml_discard',            false, false, false, false),
	('qml_grant',              false, false, false, false),
	('qml_revoke',             false, false, false, false),
	('job_access',             true,  true,  true,  true),
	('queue_access',           true,  true,  true,  true),
	('recurring_access',       true,  true,  true,  true),
	('background_servers',     false, true,  true,  true),
	('is_alive',               false, true,  true,  true),
	('handler_problem',        false, true,  true,  true),
	('hook_problem',           false, true,  true,  true),
	('middleware_problem',     false, true,  true,  true),
	('is_admin',               true,  true,  true,  true),
	('invalidate',             false, false, false, false);

-- The same for SELECT; a table or sequence that is missing here is closed.
CREATE TEMP TABLE expected_select (name name, enqueue boolean, work boolean, monitor boolean, admin boolean);
INSERT INTO expected_select VALUES
--                        enqueue work   monitor admin
	('job',               true,  true,  true,  true),
	('queue',             true,  true,  true,  true),
	('acl',               true,  true,  true,  true),
	('lock',              false, true,  true,  true),
	('recurring',         true,  true,  true,  true),
	('server',            false, true,  true,  true),
	('handler',           false, true,  true,  true),
	('hook',              false, true,  true,  true),
	('middleware',        false, true,  true,  true),
	('queue_data',        false, false, false, false),
	('live',              false, false, false, false),
	('history',           false, false, false, false),
	('lock_data',         false, false, false, false),
	('recurring_data',    false, false, false, false),
	('occurrence_data',   false, false, false, false),
	('server_data',       false, false, false, false),
	('handler_data',      false, false, false, false),
	('hook_data',         false, false, false, false),
	('middleware_data',   false, false, false, false),
	('acl_data',          false, false, false, false),
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

DO $$
BEGIN
	PERFORM qml_grant('t_enqueue', 'enqueue', 'q');
	PERFORM qml_grant('t_work', 'work', 'q');
	PERFORM qml_grant('t_monitor', 'monitor', 'q');
	PERFORM qml_grant('t_admin', 'admin', 'q');
END $$;

CREATE TEMP VIEW holder AS
	SELECT r.role, r.capability FROM (VALUES ('t_enqueue', 'enqueue'), ('t_work', 'work'), ('t_monitor', 'monitor'),
		('t_admin', 'admin'), ('t_none', 'none')) r (role, capability);

SELECT is(has_function_privilege(h.role, o.objid, 'EXECUTE'),
	coalesce((to_jsonb(e) ->> h.capability)::boolean, false),
	format('%s executes %s', h.capability, p.proname))
	FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	JOIN expected_execute e ON e.name = p.proname
	CROSS JOIN holder h;
SELECT is(
	CASE c.relkind WHEN 'S' THEN has_sequence_privilege(h.role, o.objid, 'SELECT') ELSE has_table_privilege(h.role, o.objid, 'SELECT') END,
	coalesce((to_jsonb(e) ->> h.capability)::boolean, false),
	format('%s selects from %s', h.capability, c.relname))
	FROM object o JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid
	LEFT JOIN expected_select e ON e.name = c.relname
	CROSS JOIN holder h;

SELECT is_empty(
	$$TABLE foreign_privilege EXCEPT SELECT object, grantee, privilege_type FROM foreign_privilege
	  WHERE (object ~ '^(function|procedure) ' AND privilege_type = 'EXECUTE')
		OR (object LIKE 'view %' AND privilege_type = 'SELECT')
		OR (object IN ('schema qml', 'type qml.job_state') AND privilege_type = 'USAGE')$$,
	'a capability brings EXECUTE on functions, SELECT on views, USAGE on schema and type, and nothing more');
SELECT set_eq(
	$$SELECT grantee, object FROM foreign_privilege WHERE privilege_type = 'USAGE'$$,
	$$SELECT role::name, o FROM holder, unnest(ARRAY['schema qml', 'type qml.job_state']) o WHERE role <> 't_none'$$,
	'every holder may use schema and type');
SELECT is_empty('SELECT object FROM privilege WHERE is_grantable AND grantee <> owner',
	'no privilege can be handed on');
SELECT is_empty('SELECT object FROM privilege WHERE grantor <> owner', 'the owner grants all of them');
SELECT is_empty('TABLE public_privilege', 'PUBLIC still has nothing');

-------------------------------------------------------------------------------
-- Several capabilities, and taking them back
-------------------------------------------------------------------------------

DO $$
BEGIN
	PERFORM qml_grant('t_none', 'enqueue', 'q');
	PERFORM qml_grant('t_none', 'work', 'q');
	PERFORM qml_grant('t_none', 'work', 'r');
END $$;
SELECT is_empty(
	$$SELECT p.proname FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	  JOIN expected_execute e ON e.name = p.proname
	  WHERE has_function_privilege('t_none', p.oid, 'EXECUTE') <> (e.enqueue OR e.work)$$,
	'two capabilities open what either opens');
DO $$ BEGIN PERFORM qml_revoke('t_none', 'work', 'q'); END $$;
SELECT ok(has_function_privilege('t_none', 'qml_fetch(text,text[],int,interval)', 'EXECUTE'),
	'the functions stay open while the capability is held for another queue');
DO $$ BEGIN PERFORM qml_revoke('t_none', 'work', 'r'); END $$;
SELECT is_empty(
	$$SELECT p.proname FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	  JOIN expected_execute e ON e.name = p.proname
	  WHERE has_function_privilege('t_none', p.oid, 'EXECUTE') <> e.enqueue$$,
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
INSERT INTO runs VALUES ('EXECUTE function qml_progress(jsonb)'), ('EXECUTE function qml_progress(uuid,integer,jsonb)'),
	('EXECUTE function qml_current_job()'), ('EXECUTE function qml_retry_later(interval,text)'), ('EXECUTE function qml_discard(text)'),
	('USAGE schema qml'), ('USAGE type qml.job_state');
DO $$ BEGIN PERFORM qml_register_handler('h1', 'public.t_handler', '{"run_as": "t_run"}'), qml_register_handler('h2', 'public.t_handler', '{"run_as": "t_run"}'); END $$;
SELECT set_eq('TABLE opened', $$SELECT 't_run'::text, what FROM runs$$, 'a handler opens to its role what its jobs may call, and no more');
SELECT pg_temp.ends('t_run', 'SELECT qml_current_job() IS NULL', '=true', 'outside of a job there is none');
SELECT pg_temp.ends('t_run', call, '55000', 'nor has it anything to say there: ' || call)
	FROM unnest(ARRAY[$$SELECT qml_progress('1')$$, $$SELECT qml_retry_later('1 s')$$, 'SELECT qml_discard()',
		'SELECT qml_progress(NULL)', 'SELECT qml_retry_later(NULL)']) call;
SELECT pg_temp.ends('t_run', $$SELECT qml_progress('00000000-0000-7000-8000-000000000001', 1, '1')$$, '42501', 'the form for workers needs the capability');
SELECT pg_temp.ends('t_run', call, '42501', 'refused: ' || call)
	FROM unnest(ARRAY[$$SELECT qml_enqueue('h1')$$, 'SELECT qml_fetch()', $$SELECT qml_job('00000000-0000-7000-8000-000000000001')$$,
		'TABLE qml.handler', 'TABLE qml.job', $$SELECT qml_unregister_handler('h1')$$, $$SELECT qml_register_handler('h1', 'public.t_handler')$$]) call;
DO $$ BEGIN PERFORM qml_unregister_handler('h1'); END $$;
SELECT set_eq('TABLE opened', $$SELECT 't_run'::text, what FROM runs$$, 'which stays while it has another one');
DO $$ BEGIN PERFORM qml_register_handler('h2', 'public.t_handler', '{"run_as": "t_run2"}'); END $$;
SELECT set_eq('TABLE opened', $$SELECT 't_run2'::text, what FROM runs$$, 'goes over with it to another role');
DO $$ BEGIN PERFORM qml_grant('t_run2', 'work', 'q'); END $$;
SELECT is_empty(
	$$SELECT p.proname FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	  JOIN expected_execute e ON e.name = p.proname
	  WHERE has_function_privilege('t_run2', p.oid, 'EXECUTE') <> (e.work OR e.name IN ('qml_current_job', 'qml_retry_later', 'qml_discard'))$$,
	'a capability is opened besides');
DO $$ BEGIN PERFORM qml_unregister_handler('h2'); END $$;
SELECT is_empty(
	$$SELECT p.proname FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
	  JOIN expected_execute e ON e.name = p.proname
	  WHERE has_function_privilege('t_run2', p.oid, 'EXECUTE') <> e.work$$,
	'and stays when the last handler goes');
DO $$ BEGIN PERFORM qml_register_handler('h3', 'public.t_handler', '{"run_as": "t_run2"}'), qml_revoke('t_run2', 'work'); END $$;
SELECT set_eq('TABLE opened', $$SELECT 't_run2'::text, what FROM runs$$, 'a handler keeps its part when the last capability goes');
DO $$ BEGIN PERFORM qml_unregister_handler('h3'); END $$;
SELECT is_empty('TABLE foreign_privilege', 'after the last handler no privilege is left');
SELECT lives_ok('DROP ROLE t_run, t_run2', 'and the roles can be dropped');
-- The owner's own privileges are not touched.
DO $$ BEGIN PERFORM qml_register_handler('h', 'public.t_handler'), qml_unregister_handler('h'); END $$;
SELECT is_empty($$SELECT object FROM object EXCEPT SELECT object FROM privilege WHERE grantee = owner$$, 'nor is anything taken from the owner');

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
SELECT is_empty('TABLE public_privilege', 'a new partition gives nothing to PUBLIC');
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
SELECT is_empty('TABLE public_privilege', 'a new extension gives nothing to PUBLIC');
SELECT is_empty('TABLE foreign_privilege', 'nor to a role that gets everything else');
SELECT bag_eq('SELECT DISTINCT object FROM privilege', 'SELECT object FROM object', 'and leaves the owner what is his');
SELECT is_empty($$SELECT p.privtype FROM pg_init_privs p JOIN object o ON o.classid = p.classoid AND o.objid = p.objoid
	CROSS JOIN LATERAL aclexplode(p.initprivs) a WHERE a.grantee::regrole::text LIKE '%t_reader%'$$,
	'nor does a dump take such a privilege for granted');
DO $$ BEGIN PERFORM qml_grant('t_reader', 'enqueue', 'q'); END $$;
SELECT throws_ok($$SET LOCAL ROLE t_reader; INSERT INTO qml.acl_data SELECT 't_reader', 'admin', NULL, 't_reader', now()$$,
	'42501', NULL, 'what is granted by function does not open the tables');
RESET ROLE;
SELECT is_empty($$SELECT * FROM foreign_privilege f WHERE f.object !~ '^(function|type|schema|view) '$$,
	'nor does it by privileges');

SELECT * FROM finish();
ROLLBACK;
