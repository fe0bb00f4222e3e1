--
-- The record of acts of control.
--

-- What is told of each act; what another test left is not looked at.
CREATE FUNCTION t.forget() RETURNS void LANGUAGE sql AS 'TRUNCATE qml.audit_data, qml.audit_overflow';
CREATE VIEW t.acts AS
SELECT row_number() OVER (ORDER BY at) AS n, action, object_type, object, queue, before, after FROM qml.audit;
SELECT t.reset(), t.forget();

-- Queues
SELECT qml_create_queue('q', '{"max_retries": 1}'), qml_alter_queue('q', '{"max_retries": 2, "notify": true}'), qml_alter_queue('q', '{"notify": null}');
SELECT qml_pause_queue('q', 'why'), qml_resume_queue('q'), qml_drop_queue('q');
SELECT n, action, object_type, object, queue, before - '{paused_at,paused_by}'::text[] AS before, after - '{paused_at,paused_by}'::text[] AS after FROM t.acts ORDER BY n;
-- What changes nothing leaves nothing
SELECT qml_create_queue('q');
SELECT t.forget();
SELECT qml_alter_queue('q', '{}'), qml_alter_queue('q', '{"notify": null}'), qml_resume_queue('q'), qml_drop_queue('nosuch', true), qml_pause_queue('nosuch', missing_ok => true), qml_purge_queue('q'), qml_resume_all();
SELECT count(*) FROM qml.audit;
-- Nor does what is refused, or rolled back
SELECT t.code($$SELECT qml_create_queue('q')$$), t.code($$SELECT qml_alter_queue('q', '{"nosuch": 1}')$$), t.code('SELECT qml_delete(t.id(1))');
BEGIN;
SELECT qml_pause_queue('q');
SAVEPOINT s;
SELECT qml_pause_all();
SELECT count(*) FROM qml.audit;
ROLLBACK TO s;
SELECT count(*) FROM qml.audit;
ROLLBACK;
SELECT count(*) FROM qml.audit;

-- Jobs: what differs, as it was and as it is
SELECT t.n(qml_enqueue('m', '{"a": 1}', queue => 'q', id => t.id(n))) FROM generate_series(1, 4) n;
SELECT qml_update_job(t.id(1), '{"payload": {"a": 2}, "priority": 5, "metadata": {"k": "v"}}');
SELECT qml_reschedule(t.id(1), '2100-01-01 00:00 UTC', 'later');
SELECT qml_retry(t.id(1));
SELECT qml_cancel(t.id(1), 'enough');
SELECT qml_delete(t.id(2));
SELECT state FROM qml_set_state(t.id(3), 'failed', '{"error": "by hand"}');
SELECT qml_purge_queue('q', 'all');
SELECT n, action, object_type, t.n(object::uuid) AS job, queue, before, after FROM t.acts WHERE object_type = 'job' ORDER BY n;
SELECT n, action, object_type, object, queue, before, after FROM t.acts WHERE object_type <> 'job' ORDER BY n;
-- What producers and workers do is none
SELECT t.forget();
SELECT qml_enqueue('m', queue => 'q', id => t.id(10)) IS NOT NULL;
SELECT qml_succeed(id, attempt) FROM qml_fetch('w', 'q');
SELECT qml_try_lock('l', 'o', '1 s') IS NOT NULL, qml_unlock('l', 'o');
SELECT qml_promote_due(), qml_reclaim(), qml_poll_recurring();
SELECT count(*) FROM qml.audit;

-- All queues
SELECT qml_pause_all('deploy'), qml_pause_all('other'), qml_resume_all();
SELECT n, action, object_type, object, queue, before - '{paused_at,paused_by}'::text[] AS before, after - '{paused_at,paused_by}'::text[] AS after FROM t.acts ORDER BY n;

-- Schedules
SELECT t.forget();
SELECT qml_schedule_recurring('s', '@daily', 'm', queue => 'q') > now(), qml_schedule_recurring('s', '@daily', 'm', queue => 'q') > now();
SELECT qml_schedule_recurring('s', '@hourly', 'm', queue => 'q') > now();
SELECT qml_pause_recurring('s', 'why'), qml_pause_recurring('s'), qml_resume_recurring('s'), qml_resume_recurring('s');
SELECT qml_pause_recurring('s', 'holidays');
SELECT queue, schedule, paused_by = current_user AS by_me, pause_reason FROM qml.pause;
SELECT paused_by = current_user AS by_me, paused_at <= clock_timestamp() AS before_now FROM qml.recurring;
SELECT qml_resume_recurring('s');
SELECT enabled, paused_by, paused_at FROM qml.recurring;
SELECT count(*) FROM qml.pause;
SELECT qml_run_recurring('s') IS NOT NULL;
SELECT qml_remove_recurring('s'), qml_remove_recurring('s', true);
SELECT n, action, object_type, object, queue, before -> 'cron' AS was, after -> 'cron' AS "is", before -> 'enabled' AS was_on, after -> 'enabled' AS is_on, after -> 'pause_reason' AS reason, after ->> 'paused_by' = current_user AS by_me FROM t.acts ORDER BY n;

-- Handlers, hooks, middleware
SELECT t.forget();
CREATE FUNCTION t.work(jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION t.hook(qml.job, qml.job_state, qml.job_state) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION t.wrap(qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT qml_next()';
REVOKE EXECUTE ON FUNCTION t.hook, t.wrap FROM PUBLIC;
SELECT qml_register_handler('h', 't.work'), qml_register_handler('h', 't.work'), qml_register_handler('h', 't.work(jsonb)'::regprocedure, '{"max_retries": 1}');
SELECT qml_register_command('c', 'VACUUM'), qml_unregister_handler('c'), qml_unregister_handler('h'), qml_unregister_handler('h', true);
SELECT qml_register_hook('k', 't.hook', '{failed}'), qml_register_hook('k', 't.hook', '{failed}'), qml_unregister_hook('k'), qml_unregister_hook('k', true);
SELECT qml_register_middleware('m', 't.wrap'), qml_register_middleware('m', 't.wrap', 3), qml_unregister_middleware('m'), qml_unregister_middleware('m', true);
SELECT n, action, object_type, object, before - '{owner,run_as,registered_by,schema,argument_types}'::text[] AS before,
	after - '{owner,run_as,registered_by,schema,argument_types}'::text[] AS after FROM t.acts ORDER BY n;

-- Rights
SELECT t.forget();
CREATE ROLE regress_steer LOGIN;
SELECT qml_grant('regress_steer', 'work', 'q'), qml_grant('regress_steer', 'work', 'q'), qml_grant('regress_steer', 'work'), qml_grant('regress_steer', 'admin');
SELECT qml_revoke('regress_steer', 'work'), qml_revoke('regress_steer', 'work');
SELECT qml_register_handler('h', 't.work', '{"run_as": "regress_steer"}');
SELECT qml_drop_role_objects('regress_steer'), qml_drop_role_objects('regress_steer');
SELECT n, action, object_type, object, queue, before, after FROM t.acts WHERE object_type = 'role' ORDER BY n;

-- Servers: a server that ends unregisters itself; what others do is an act
SELECT t.forget();
SELECT qml_register_server('s') AS server \gset
SELECT qml_heartbeat_server(:'server'), qml_unregister_server(:'server');
SELECT count(*) FROM qml.audit;
SELECT qml_register_server('s') AS server \gset
SELECT qml_reclaim_server(:'server');
SELECT qml_grant('regress_steer', 'admin');
SET ROLE regress_steer;
SELECT qml_unregister_server(:'server');
RESET ROLE;
SELECT n, action, object_type, object = :'server' AS that, after FROM t.acts WHERE object_type = 'server' ORDER BY n;

-- Who: the role of the session, that whose rights counted, and what the client says of itself
SELECT t.forget();
CREATE FUNCTION t.lend(q text) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT qml_pause_queue(q)';
GRANT USAGE ON SCHEMA t TO regress_steer;
SET ROLE regress_steer;
SET qml.actor = 'alice@example.com';
SELECT t.lend('q'), qml_resume_queue('q');
RESET ROLE;
RESET qml.actor;
SELECT qml_pause_queue('q');
SELECT action, session_role = session_user AS session, effective_role = current_user AS mine, effective_role = 'regress_steer' AS theirs, claimed_actor, client_address IS NULL AS local,
	at <= clock_timestamp() AS before_now FROM qml.audit ORDER BY at;
SELECT t.code($$SET qml.actor = E'a\nb'$$), t.code($$SELECT set_config('qml.actor', repeat('x', 300), false)$$), t.code($$SELECT set_config('qml.actor', 'Zoë', true)$$);
-- Who may read it: administrators of all queues, as far as they still are
SET ROLE regress_steer;
SELECT count(*) > 0 FROM qml.audit;
RESET ROLE;
SELECT qml_grant('regress_steer', 'admin', 'q'), qml_revoke('regress_steer', 'admin'), qml_grant('regress_steer', 'admin', 'q');
SET ROLE regress_steer;
\pset format unaligned
\pset tuples_only on
SELECT t.try('SELECT count(*) FROM qml.audit'), t.code('SELECT count(*) FROM qml.audit_data');
\pset tuples_only off
\pset format aligned
RESET ROLE;

-- Months: where an act finds its partition, and what maintenance makes of the overflow
SELECT t.forget();
SELECT qml_cleanup() >= 0;
SET timezone = 'UTC';
SELECT count(*) FILTER (WHERE pg_get_expr(c.relpartbound, c.oid) = format('FOR VALUES FROM (%L) TO (%L)', m, m + interval '1 month')) AS as_expected, count(*)
FROM (SELECT date_trunc('month', now(), 'UTC') AS m UNION ALL SELECT date_trunc('month', now(), 'UTC') + interval '1 month') m
JOIN pg_class c ON c.relname = to_char(m AT TIME ZONE 'UTC', '"audit_y"YYYY"m"MM');
RESET timezone;
SELECT qml_resume_queue('q');
SELECT count(*) AS overflow FROM qml.audit_overflow;
SELECT count(*) AS partition FROM qml.audit_data;
INSERT INTO qml.audit_overflow (at, action, object_type, session_role, effective_role)
	SELECT now() - d * interval '1 month', 'earlier', 'queue', 'x', 'x' FROM generate_series(0, 3) d, generate_series(1, 3);
INSERT INTO qml.audit_overflow (at, action, object_type, session_role, effective_role) VALUES ('2001-01-01', 'long ago', 'queue', 'x', 'x');
SELECT count(*) FROM qml.audit;
SELECT qml_cleanup() >= 0;
SELECT count(*) FROM qml.audit_overflow;
SELECT count(*), count(DISTINCT tableoid) FROM qml.audit_data WHERE action = 'earlier';
SELECT count(*) FROM qml.audit WHERE action = 'long ago';
-- A partition is dropped when all of it has expired
CREATE TABLE qml.audit_old PARTITION OF qml.audit_data FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');
INSERT INTO qml.audit_data (at, action, object_type, session_role, effective_role) VALUES ('2001-01-02', 'long ago', 'queue', 'x', 'x');
SELECT qml_cleanup() >= 0;
SELECT to_regclass('qml.audit_old'), count(*) FROM qml.audit WHERE action = 'long ago';
-- One that is detached is nobody's business
DO $$ BEGIN EXECUTE format('ALTER TABLE qml.audit_data DETACH PARTITION qml.%I', to_char(now() AT TIME ZONE 'UTC', '"audit_y"YYYY"m"MM')); END $$;
SELECT qml_pause_queue('q', 'why');
SELECT action FROM qml.audit_overflow;
SET client_min_messages = error;
SELECT qml_cleanup() >= 0;
RESET client_min_messages;
SELECT action FROM qml.audit_overflow;
DO $$ BEGIN EXECUTE format('DROP TABLE qml.%I', to_char(now() AT TIME ZONE 'UTC', '"audit_y"YYYY"m"MM')); END $$;
SELECT qml_cleanup() >= 0;
SELECT count(*) FROM qml.audit_overflow;
SELECT action, after ->> 'pause_reason' AS reason FROM qml.audit WHERE action = 'qml_pause_queue';

SELECT t.reset(), t.forget();
DROP FUNCTION t.work, t.hook, t.wrap, t.lend;
DROP VIEW t.acts;
DROP FUNCTION t.forget;
DROP OWNED BY regress_steer;
DROP ROLE regress_steer;
