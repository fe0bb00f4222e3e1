--
-- Roles that are dropped, or lose what they have: the server knows of what qml keeps of them.
--
SELECT t.reset();
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
CREATE ROLE regress_qml_app LOGIN;
CREATE ROLE regress_qml_other LOGIN;
CREATE ROLE regress_qml_member IN ROLE regress_qml_app;
CREATE ROLE regress_qml_apart NOINHERIT IN ROLE regress_qml_app;
GRANT USAGE ON SCHEMA t TO PUBLIC;

-- What DROP ROLE and qml_drop_role_objects say of a role, and who has which mark
CREATE FUNCTION t.marks() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(CASE WHEN relname LIKE 'cap%' THEN 'capabilities ' ELSE 'registrations ' END || replace(grantee::regrole::text, 'regress_qml_', ''), ', ' ORDER BY relname, grantee::regrole::text)
	FROM pg_class, aclexplode(relacl)
	WHERE relname LIKE '%see_qml_drop_role_objects' AND relnamespace = 'qml'::regnamespace AND grantee <> relowner AND privilege_type = 'REFERENCES'
$$;
-- The first lines alone: of many objects
CREATE FUNCTION t.drop_role(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
BEGIN
	EXECUTE format('DROP ROLE %I', name);
	RETURN 'dropped';
EXCEPTION WHEN dependent_objects_still_exist THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	RETURN message || E'\n' || array_to_string((string_to_array(detail, E'\n'))[1:3], E'\n') || CASE WHEN array_length(string_to_array(detail, E'\n'), 1) > 3 THEN E'\n...' ELSE '' END;
END $$;

-- Each kind of row marks its role, and the last one takes the mark away
SELECT qml_grant('regress_qml_app', 'enqueue', 'a'), qml_grant('regress_qml_app', 'enqueue', 'b');
SELECT t.marks();
SELECT t.drop_role('regress_qml_app');
SELECT obj_description('qml.capabilities_see_qml_drop_role_objects'::regclass), obj_description('qml.registrations_see_qml_drop_role_objects'::regclass);
SELECT qml_revoke('regress_qml_app', 'enqueue', 'a'), t.marks();
SELECT qml_create_queue('b'), qml_drop_queue('b');
SELECT t.marks() IS NULL AS none;

CREATE FUNCTION t.work(jsonb) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_handler('m1', 't.work', '{"run_as": "regress_qml_app"}'), qml_register_handler('m2', 't.work', '{"run_as": "regress_qml_app"}');
SELECT t.marks();
SELECT t.drop_role('regress_qml_app');
SELECT qml_register_handler('m1', 't.work', '{"run_as": "regress_qml_other"}');
SELECT t.marks();
SELECT qml_unregister_handler('m1'), t.marks();
SELECT qml_unregister_handler('m2');
SELECT t.marks() IS NULL AS none;

-- Also who registered it, for somebody else
SELECT qml_grant('regress_qml_app', 'admin');
GRANT regress_qml_other TO regress_qml_app;
SET ROLE regress_qml_app;
SELECT qml_register_handler('m', 't.work', '{"run_as": "regress_qml_other"}');
RESET ROLE;
SELECT t.marks();
SELECT qml_register_handler('m', 't.work', '{"run_as": "regress_qml_other"}');
SELECT t.marks();
SELECT qml_unregister_handler('m'), t.marks();
REVOKE regress_qml_other FROM regress_qml_app;

-- Schedules, by whom they were defined last
SELECT qml_grant('regress_qml_other', 'admin');
SET ROLE regress_qml_app;
SELECT qml_schedule_recurring('s1', '@yearly', 'm') IS NOT NULL, qml_schedule_recurring('s2', '@yearly', 'm') IS NOT NULL;
RESET ROLE;
SELECT t.marks();
SET ROLE regress_qml_other;
SELECT qml_schedule_recurring('s1', '@yearly', 'm') IS NOT NULL, qml_schedule_recurring('s2', '@monthly', 'm') IS NOT NULL;
RESET ROLE;
SELECT t.marks();
SELECT qml_remove_recurring('s1');
SELECT qml_remove_recurring('s2');
SELECT t.marks();
-- What is undone leaves no mark
BEGIN;
SET ROLE regress_qml_app;
SELECT qml_schedule_recurring('s', '@yearly', 'm') IS NOT NULL;
ROLLBACK;
SELECT t.marks();
-- The owner of the extension, and the superuser who cannot be dropped, need none
SELECT qml_grant(current_user::text::regrole, 'work'), qml_register_handler('m', 't.work'), qml_schedule_recurring('s', '@yearly', 'm') IS NOT NULL;
SELECT t.marks();
SELECT qml_revoke(current_user::text::regrole, 'work'), qml_unregister_handler('m'), qml_remove_recurring('s');
SELECT qml_revoke('regress_qml_app', 'admin'), qml_revoke('regress_qml_other', 'admin');
SELECT t.marks() IS NULL AS none;

-- All at once: who may, and what is left
CREATE FUNCTION t.fill() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM qml_grant('regress_qml_app', 'enqueue', 'q'), qml_grant('regress_qml_app', 'admin'), qml_grant('regress_qml_other', 'admin');
	PERFORM qml_register_handler('m', 't.work', '{"run_as": "regress_qml_app"}'), qml_register_handler('other', 't.work', '{"run_as": "regress_qml_other"}');
	SET LOCAL ROLE regress_qml_app;
	PERFORM qml_schedule_recurring('s1', '@yearly', 'm', queue => 'q'), qml_schedule_recurring('s2', '@yearly', 'm');
	PERFORM qml_enqueue('m', queue => 'q');
	SET LOCAL ROLE regress_qml_other;
	PERFORM qml_schedule_recurring('other', '@yearly', 'm');
	RESET ROLE;
END $$;
SELECT t.fill();
SELECT t.marks();
SET ROLE regress_qml_other;
SELECT t.try('SELECT qml_drop_role_objects(''regress_qml_app'')');
SET ROLE regress_qml_apart;
SELECT t.try('SELECT qml_drop_role_objects(''regress_qml_app'')');
RESET ROLE;
SELECT t.try('SELECT qml_drop_role_objects(NULL)');
SELECT t.try('SELECT qml_drop_role_objects(''-'')');
SELECT t.try('SELECT qml_drop_role_objects(''nosuch'')');
BEGIN;
SELECT qml_drop_role_objects('regress_qml_app');
ROLLBACK;
SELECT count(*) FROM qml.acl;
SET ROLE regress_qml_member;
SELECT qml_drop_role_objects('regress_qml_app');
RESET ROLE;
SELECT t.marks();
SELECT grantee, capability FROM qml.acl;
SELECT method, run_as FROM qml.handler;
SELECT id, created_by FROM qml.recurring;
SELECT method, state, created_by FROM qml.job;
SELECT qml_drop_role_objects('regress_qml_app');
SELECT t.drop_role('regress_qml_app');

-- DROP OWNED takes the marks away, and what the role had counts as revoked
DELETE FROM qml.live;
CREATE ROLE regress_qml_app LOGIN;
SELECT t.fill();
DROP OWNED BY regress_qml_app;
SELECT t.marks();
SELECT grantee, capability, queue, problem FROM qml.acl ORDER BY grantee, capability;
SELECT method, problem FROM qml.handler ORDER BY method;
SELECT id, error FROM qml.recurring ORDER BY id;
SELECT method, state FROM qml.job;
-- ... also where somebody opens the functions to it by hand
GRANT USAGE ON SCHEMA qml TO regress_qml_app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO regress_qml_app;
SET ROLE regress_qml_app;
SELECT t.code('SELECT qml_enqueue(''m'', queue => ''q'')'), t.code('SELECT qml_fetch()'), t.code('SELECT qml_schedule_recurring(''s3'', ''@yearly'', ''m'', queue => ''q'')');
RESET ROLE;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM regress_qml_app;
REVOKE ALL ON SCHEMA qml FROM regress_qml_app;
-- The schedules pass their ticks without jobs
UPDATE qml.recurring_data SET next_run_at = '2020-01-01' WHERE id IN ('s1', 'other');
SELECT qml_poll_recurring();
SELECT id, error, next_run_at > now() AS later FROM qml.recurring_data ORDER BY id;
-- What is granted later brings nothing of it back
SELECT qml_grant('regress_qml_app', 'monitor', 'q');
SELECT grantee, capability, queue, problem FROM qml.acl ORDER BY grantee, capability;
SET ROLE regress_qml_app;
SELECT t.code('SELECT qml_enqueue(''m'', queue => ''q'')'), t.code('SELECT count(*) FROM qml.job');
RESET ROLE;
SELECT qml_register_handler('m3', 't.work', '{"run_as": "regress_qml_app"}');
SELECT method, run_as, problem FROM qml.handler ORDER BY method;
SELECT id, created_by, error FROM qml.recurring ORDER BY id;
-- It is registered and defined again
SELECT qml_grant('regress_qml_app', 'enqueue', 'q'), qml_register_handler('m', 't.work', '{"run_as": "regress_qml_app"}');
SET ROLE regress_qml_app;
SELECT t.code('SELECT qml_schedule_recurring(''s1'', ''@yearly'', ''m'', queue => ''q'') > now()'), t.code('SELECT qml_schedule_recurring(''s3'', ''@yearly'', ''m'', queue => ''q'') > now()');
RESET ROLE;
SELECT t.code('SELECT qml_schedule_recurring(''s1'', ''@yearly'', ''m'', queue => ''q'') > now()');
SELECT method, problem FROM qml.handler ORDER BY method;
SELECT id, error FROM qml.recurring ORDER BY id;

-- Its own schedule it defines again itself, if that is the first that it does
DROP OWNED BY regress_qml_app;
SELECT qml_grant('regress_qml_app', 'enqueue', 'q');
SET ROLE regress_qml_app;
SELECT t.code('SELECT qml_schedule_recurring(''s3'', ''@yearly'', ''m'', queue => ''q'') > now()');
RESET ROLE;
SELECT id, error FROM qml.recurring ORDER BY id;

-- A role of which rows are left is dropped all the same, after DROP OWNED
DROP OWNED BY regress_qml_app;
SELECT 'regress_qml_app'::regrole::oid AS app \gset
SELECT t.drop_role('regress_qml_app');
SELECT grantee LIKE 'unknown (OID=%' AS unknown, capability, problem FROM qml.acl WHERE grantee <> 'regress_qml_other' ORDER BY 2;
SELECT method, run_as LIKE 'unknown (OID=%' AS unknown, problem FROM qml.handler ORDER BY method;
SELECT count(*) FROM qml.recurring WHERE error = 'its owner was dropped';
-- Cleanup leaves no number of it, which might be another role's where a dump is restored
SELECT qml_cleanup() >= 0 AS cleaned;
SELECT count(*) FROM qml.acl_data WHERE grantee = :app;
SELECT method, run_as = 0 AS nobody FROM qml.handler_data ORDER BY method;
SELECT id, created_by = 0 AS nobody FROM qml.recurring_data ORDER BY id;
SELECT method, problem FROM qml.handler ORDER BY method;
-- Before it, the owner can remove them by that number
UPDATE qml.handler_data SET run_as = :app, registered_by = :app WHERE method = 'm';
SELECT qml_drop_role_objects(:app::regrole);
SET ROLE regress_qml_other;
SELECT t.try('SELECT qml_drop_role_objects(''1'')');
RESET ROLE;

-- In other isolation levels the marks are as of now
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM qml.acl;
SELECT qml_drop_role_objects('regress_qml_other');
COMMIT;
SELECT t.marks() IS NULL AS none;
SELECT t.drop_role('regress_qml_other');
DROP ROLE regress_qml_member, regress_qml_apart;
REVOKE USAGE ON SCHEMA t FROM PUBLIC;
DROP FUNCTION t.work, t.marks, t.fill, t.drop_role;
SELECT t.reset();
