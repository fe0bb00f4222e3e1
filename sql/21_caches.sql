--
-- Every cache, by few statements: "make check-assert" runs this where nothing stays
-- cached for longer than it must, and each statement takes very long.
--
TRUNCATE qml.live, qml.acl_data, qml.handler_data, qml.hook_data, qml.middleware_data, qml.recurring_data;
CREATE ROLE regress_qml_caches;
SELECT qml_create_queue('caches', '{"max_retries": 1}');
SELECT qml_grant('regress_qml_caches', 'enqueue', 'caches'), qml_grant('regress_qml_caches', 'work', 'caches');
CREATE FUNCTION t.seen(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql
AS $$ BEGIN RAISE NOTICE '% -> %', old, new; END $$;
CREATE FUNCTION t.typed(a int) RETURNS int LANGUAGE sql RETURN a;
REVOKE EXECUTE ON FUNCTION t.seen FROM PUBLIC;
SELECT qml_register_hook('caches', 't.seen');
SELECT qml_register_handler('typed', 't.typed');
GRANT USAGE ON SCHEMA t TO regress_qml_caches;
SET ROLE regress_qml_caches;
SELECT qml_enqueue('typed', '{"b": 1}', 'caches');
SELECT qml_enqueue('typed', '{"a": 1}', 'caches', id => t.id(1)) IS NOT NULL;
SELECT id = t.id(1) AS fetched FROM qml_fetch('w', '{caches}', methods => '{typed}');
SELECT qml_fail(t.id(1), 1, 'e', retry_at => now());
SELECT qml_fetch('w', '{default}');
RESET ROLE;
SELECT qml_promote_due();
SELECT count(*) FROM qml_fetch('w');
SELECT id = t.id(1) AS fetched FROM qml_fetch('w', methods => '{typed,m}');
SELECT qml_succeed(t.id(1), 2);
SELECT state, tries FROM qml_job(t.id(1));
SELECT qml_schedule_recurring('caches', '@yearly', 'm', queue => 'caches') IS NOT NULL;
SELECT qml_run_recurring('caches') IS NOT NULL;
SELECT qml_unregister_hook('caches'), qml_unregister_handler('typed'), qml_remove_recurring('caches');
SELECT qml_delete(id) FROM qml.live;
SELECT qml_revoke('regress_qml_caches', 'enqueue', 'caches'), qml_revoke('regress_qml_caches', 'work', 'caches');
SELECT qml_drop_queue('caches');
DROP FUNCTION t.seen, t.typed;
DROP OWNED BY regress_qml_caches;
DROP ROLE regress_qml_caches;
