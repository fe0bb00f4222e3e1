-- What callers may rely on, read from the catalogs: names, signatures, types,
-- columns, settings; and what a new object must not lack: a comment, the dump's
-- mark, a security barrier.

\ir include/start.sql

CREATE TEMP VIEW member AS
	SELECT d.classid, d.objid, pg_catalog.pg_describe_object(d.classid, d.objid, 0) AS object
	FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'qml'
		AND NOT (d.classid = 'pg_type'::regclass AND d.objid IN (SELECT oid FROM implied_type));

CREATE TEMP VIEW member_function AS
	SELECT p.*, n.nspname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
	JOIN member m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass;

CREATE TEMP VIEW member_relation AS
	SELECT c.* FROM pg_class c
	JOIN member m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass;

-- Indexes are not members; they go with their tables.
CREATE TEMP VIEW member_index AS
	SELECT i.indexrelid, i.indrelid, pg_get_indexdef(i.indexrelid) AS definition
	FROM pg_index i JOIN member_relation r ON r.oid = i.indrelid;

-------------------------------------------------------------------------------
-- The extension
-------------------------------------------------------------------------------

SELECT is(
	(SELECT format('%s %s %s', extversion, extrelocatable, extnamespace::regnamespace) FROM pg_extension
	 WHERE extname = 'qml'),
	'1.0 f public', 'version 1.0, not relocatable, functions in public');
SELECT is(
	(SELECT format('%s %s %s', superuser, trusted, coalesce(array_to_string(requires, ','), 'nothing'))
	 FROM pg_available_extension_versions WHERE name = 'qml' AND version = '1.0'),
	't f nothing', 'for superusers only, not trusted, requires nothing');

-------------------------------------------------------------------------------
-- Functions: arguments with their defaults, result, volatility
-------------------------------------------------------------------------------

CREATE TEMP TABLE expected_function (schema name, name name, arguments text, result text, volatility "char");
INSERT INTO expected_function VALUES
-- producers
('public', 'qml_enqueue', 'method text, payload jsonb DEFAULT ''{}''::jsonb, queue text DEFAULT ''default''::text, priority integer DEFAULT 0, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, max_retries integer DEFAULT NULL::integer, timeout interval DEFAULT NULL::interval, metadata jsonb DEFAULT NULL::jsonb, job_type text DEFAULT NULL::text, id uuid DEFAULT NULL::uuid, delay interval DEFAULT NULL::interval, options jsonb DEFAULT NULL::jsonb', 'uuid', 'v'),
('public', 'qml_try_enqueue', 'method text, payload jsonb DEFAULT ''{}''::jsonb, queue text DEFAULT ''default''::text, priority integer DEFAULT 0, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, max_retries integer DEFAULT NULL::integer, timeout interval DEFAULT NULL::interval, metadata jsonb DEFAULT NULL::jsonb, job_type text DEFAULT NULL::text, id uuid DEFAULT NULL::uuid, delay interval DEFAULT NULL::interval, options jsonb DEFAULT NULL::jsonb', 'TABLE(id uuid, created boolean, state qml.job_state)', 'v'),
('public', 'qml_enqueue_job', 'IN method text, IN payload jsonb DEFAULT ''{}''::jsonb, IN queue text DEFAULT ''default''::text, IN priority integer DEFAULT 0, IN run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, IN max_retries integer DEFAULT NULL::integer, IN timeout interval DEFAULT NULL::interval, IN metadata jsonb DEFAULT NULL::jsonb, IN job_type text DEFAULT NULL::text, IN delay interval DEFAULT NULL::interval, IN options jsonb DEFAULT NULL::jsonb, INOUT id uuid DEFAULT NULL::uuid', NULL, 'v'),
('public', 'qml_enqueue_many', 'method text, payloads jsonb[], queue text DEFAULT ''default''::text, priority integer DEFAULT 0, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, max_retries integer DEFAULT NULL::integer, timeout interval DEFAULT NULL::interval, metadata jsonb DEFAULT NULL::jsonb, job_type text DEFAULT NULL::text, delay interval DEFAULT NULL::interval, options jsonb DEFAULT NULL::jsonb', 'SETOF uuid', 'v'),
-- workers
('public', 'qml_fetch', 'worker text DEFAULT NULL::text, queues anycompatible DEFAULT NULL::text, batch integer DEFAULT 1, lease interval DEFAULT NULL::interval, methods text[] DEFAULT NULL::text[]', 'SETOF qml.job', 'v'),
('public', 'qml_fetch_job', 'id uuid, worker text DEFAULT NULL::text', 'qml.job', 'v'),
('public', 'qml_succeed_fetch', 'id uuid, attempt integer, result jsonb DEFAULT NULL::jsonb, worker text DEFAULT NULL::text, queues anycompatible DEFAULT NULL::text, batch integer DEFAULT 1, lease interval DEFAULT NULL::interval, methods text[] DEFAULT NULL::text[]', 'SETOF qml.job', 'v'),
('public', 'qml_succeed_fetch_many', 'ids uuid[], attempts integer[], results jsonb[] DEFAULT NULL::jsonb[], worker text DEFAULT NULL::text, queues anycompatible DEFAULT NULL::text, batch integer DEFAULT 1, lease interval DEFAULT NULL::interval, methods text[] DEFAULT NULL::text[]', 'SETOF qml.job', 'v'),
('public', 'qml_heartbeat', 'id uuid, attempt integer, lease interval DEFAULT NULL::interval', 'timestamp with time zone', 'v'),
('public', 'qml_heartbeat_many', 'ids uuid[], attempts integer[], lease interval DEFAULT NULL::interval', 'TABLE(id uuid, lease_expires_at timestamp with time zone)', 'v'),
('public', 'qml_progress', 'id uuid, attempt integer, progress jsonb', 'boolean', 'v'),
('public', 'qml_succeed', 'id uuid, attempt integer, result jsonb DEFAULT NULL::jsonb', 'boolean', 'v'),
('public', 'qml_succeed_many', 'ids uuid[], attempts integer[], results jsonb[] DEFAULT NULL::jsonb[]', 'SETOF uuid', 'v'),
('public', 'qml_fail', 'id uuid, attempt integer, error text, error_type text DEFAULT NULL::text, stack_trace text DEFAULT NULL::text, retry boolean DEFAULT true, retry_at timestamp with time zone DEFAULT NULL::timestamp with time zone', 'qml.job_state', 'v'),
('public', 'qml_fail_many', 'ids uuid[], attempts integer[], errors text[], error_types text[] DEFAULT NULL::text[], stack_traces text[] DEFAULT NULL::text[], retry boolean DEFAULT true, retry_at timestamp with time zone DEFAULT NULL::timestamp with time zone', 'SETOF uuid', 'v'),
('public', 'qml_release', 'id uuid, attempt integer, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reason text DEFAULT NULL::text', 'boolean', 'v'),
('public', 'qml_release_many', 'ids uuid[], attempts integer[], run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reason text DEFAULT NULL::text', 'SETOF uuid', 'v'),
('public', 'qml_discard', 'id uuid, attempt integer, reason text DEFAULT NULL::text', 'boolean', 'v'),
('public', 'qml_progress_job', 'IN id uuid, IN attempt integer, IN progress jsonb', NULL, 'v'),
('public', 'qml_succeed_job', 'IN id uuid, IN attempt integer, IN result jsonb DEFAULT NULL::jsonb', NULL, 'v'),
('public', 'qml_fail_job', 'IN id uuid, IN attempt integer, IN error text, IN error_type text DEFAULT NULL::text, IN stack_trace text DEFAULT NULL::text, IN retry boolean DEFAULT true, IN retry_at timestamp with time zone DEFAULT NULL::timestamp with time zone', NULL, 'v'),
('public', 'qml_release_job', 'IN id uuid, IN attempt integer, IN run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, IN reason text DEFAULT NULL::text', NULL, 'v'),
('public', 'qml_discard_job', 'IN id uuid, IN attempt integer, IN reason text DEFAULT NULL::text', NULL, 'v'),
-- control and reading
('public', 'qml_can_transition', '"from" qml.job_state, "to" qml.job_state', 'boolean', 's'),
('public', 'qml_job', 'id uuid', 'SETOF qml.job', 'v'),
('public', 'qml_search', 'query text, lim integer DEFAULT 50, after text DEFAULT NULL::text', 'SETOF qml.job', 'v'),
('public', 'qml_counts', '', 'TABLE(state qml.job_state, count bigint)', 'v'),
('public', 'qml_queue_counts', '', 'TABLE(queue text, state qml.job_state, count bigint)', 'v'),
('public', 'qml_queue_depth', 'queue text, missing_ok boolean DEFAULT false', 'bigint', 'v'),
('public', 'qml_explain', 'id uuid', 'TABLE(reason text, detail text, remedy text)', 'v'),
('public', 'qml_explain_queue', 'queue text', 'TABLE(reason text, detail text, remedy text)', 'v'),
('public', 'qml_status', '', 'TABLE(check_name text, ok boolean, detail text, remedy text)', 'v'),
('public', 'qml_delete', 'id uuid, reason text DEFAULT NULL::text', 'boolean', 'v'),
('public', 'qml_cancel', 'id uuid, reason text DEFAULT NULL::text', 'boolean', 'v'),
('public', 'qml_retry', 'id uuid', 'boolean', 'v'),
('public', 'qml_reschedule', 'id uuid, run_at timestamp with time zone, reason text DEFAULT NULL::text', 'boolean', 'v'),
('public', 'qml_set_state', 'id uuid, state qml.job_state, data jsonb DEFAULT ''{}''::jsonb', 'qml.job', 'v'),
('public', 'qml_update_job', 'id uuid, changes jsonb', 'boolean', 'v'),
('public', 'qml_peek', 'queues anycompatible DEFAULT NULL::text, lim integer DEFAULT 10', 'SETOF qml.job', 'v'),
-- bulk operations
('public', 'qml_bulk', 'action text, query text, options jsonb DEFAULT ''{}''::jsonb', 'uuid', 'v'),
('public', 'qml_bulk_preview', 'action text, query text', 'TABLE(queue text, method text, state qml.job_state, count bigint)', 's'),
('public', 'qml_pause_bulk', 'id uuid, reason text DEFAULT NULL::text', 'boolean', 'v'),
('public', 'qml_resume_bulk', 'id uuid', 'boolean', 'v'),
('public', 'qml_cancel_bulk', 'id uuid, reason text DEFAULT NULL::text', 'boolean', 'v'),
-- statistics and metrics
('public', 'qml_stats', 'since interval DEFAULT ''01:00:00''::interval, queue text DEFAULT NULL::text, method text DEFAULT NULL::text', 'TABLE(queue text, method text, enqueued bigint, started bigint, succeeded bigint, failed bigint, deleted bigint, retried bigint, released bigint, lost bigint, enqueue_rate double precision, finish_rate double precision, failure_rate double precision, wait_p50 interval, wait_p95 interval, wait_p99 interval, run_p50 interval, run_p95 interval, run_p99 interval, depth bigint, running bigint, oldest_ready interval)', 'v'),
('public', 'qml_metrics', '', 'text', 'v'),
('public', 'qml_mark', 'label text', 'timestamp with time zone', 'v'),
-- queues
('public', 'qml_create_queue', 'name text, options jsonb DEFAULT ''{}''::jsonb', 'boolean', 'v'),
('public', 'qml_alter_queue', 'name text, options jsonb', 'boolean', 'v'),
('public', 'qml_drop_queue', 'name text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
('public', 'qml_pause_queue', 'name text, reason text DEFAULT NULL::text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
('public', 'qml_resume_queue', 'name text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
('public', 'qml_purge_queue', 'name text, reason text DEFAULT NULL::text, missing_ok boolean DEFAULT false', 'bigint', 'v'),
('public', 'qml_pause_all', 'reason text DEFAULT NULL::text', 'boolean', 'v'),
('public', 'qml_resume_all', '', 'boolean', 'v'),
-- maintenance
('public', 'qml_promote_due', 'max integer DEFAULT 1000', 'integer', 'v'),
('public', 'qml_reclaim', 'max integer DEFAULT 1000', 'integer', 'v'),
('public', 'qml_cleanup', '', 'bigint', 'v'),
('public', 'qml_maintain', '', 'jsonb', 'v'),
('public', 'qml_adopt', '', 'boolean', 'v'),
-- recurring jobs
('public', 'qml_schedule_recurring', 'id text, cron text, method text, payload jsonb DEFAULT ''{}''::jsonb, queue text DEFAULT ''default''::text, timezone text DEFAULT ''UTC''::text, priority integer DEFAULT 0, max_retries integer DEFAULT NULL::integer, timeout interval DEFAULT NULL::interval, misfire text DEFAULT ''fire_once''::text, metadata jsonb DEFAULT NULL::jsonb, overlap text DEFAULT ''allow''::text, job_type text DEFAULT NULL::text', 'timestamp with time zone', 'v'),
('public', 'qml_remove_recurring', 'id text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
('public', 'qml_pause_recurring', 'id text, reason text DEFAULT NULL::text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
('public', 'qml_resume_recurring', 'id text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
('public', 'qml_run_recurring', 'id text', 'uuid', 'v'),
('public', 'qml_cron_next', 'cron text, after timestamp with time zone DEFAULT now(), timezone text DEFAULT ''UTC''::text, n integer DEFAULT 1', 'SETOF timestamp with time zone', 's'),
('public', 'qml_poll_recurring', 'max integer DEFAULT 256', 'integer', 'v'),
('public', 'qml_pg_cron_schedule', '', 'SETOF bigint', 'v'),
('public', 'qml_pg_cron_unschedule', '', 'integer', 'v'),
('public', 'qml_import_pg_cron', '', 'TABLE(jobid bigint, jobname text, schedule text, problem text)', 'v'),
-- servers
('public', 'qml_register_server', 'name text, workers integer DEFAULT 1, queues anycompatible DEFAULT NULL::text', 'text', 'v'),
('public', 'qml_heartbeat_server', 'id text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
('public', 'qml_unregister_server', 'id text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
('public', 'qml_reclaim_server', 'id text, missing_ok boolean DEFAULT false', 'integer', 'v'),
-- handlers
('public', 'qml_register_handler', 'method text, function regprocedure, options jsonb DEFAULT ''{}''::jsonb', 'boolean', 'v'),
('public', 'qml_register_handler', 'method text, function text, options jsonb DEFAULT ''{}''::jsonb', 'boolean', 'v'),
('public', 'qml_register_command', 'method text, command text, options jsonb DEFAULT ''{}''::jsonb', 'boolean', 'v'),
('public', 'qml_unregister_handler', 'method text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
-- hooks and middleware
('public', 'qml_register_hook', 'name text, function regprocedure, states qml.job_state[] DEFAULT NULL::qml.job_state[], options jsonb DEFAULT ''{}''::jsonb', 'boolean', 'v'),
('public', 'qml_register_hook', 'name text, function text, states qml.job_state[] DEFAULT NULL::qml.job_state[], options jsonb DEFAULT ''{}''::jsonb', 'boolean', 'v'),
('public', 'qml_unregister_hook', 'name text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
('public', 'qml_register_middleware', 'name text, function regprocedure, "position" integer DEFAULT 0, options jsonb DEFAULT ''{}''::jsonb', 'boolean', 'v'),
('public', 'qml_register_middleware', 'name text, function text, "position" integer DEFAULT 0, options jsonb DEFAULT ''{}''::jsonb', 'boolean', 'v'),
('public', 'qml_unregister_middleware', 'name text, missing_ok boolean DEFAULT false', 'boolean', 'v'),
('public', 'qml_next', '', 'jsonb', 'v'),
('public', 'qml_tracing', 'job qml.job', 'jsonb', 'v'),
-- waiting; the procedures' INOUT arguments show in their results
('public', 'qml_wait', 'IN queues anycompatible DEFAULT NULL::text, IN timeout interval DEFAULT ''00:00:30''::interval, IN methods text[] DEFAULT NULL::text[], INOUT ready boolean DEFAULT NULL::boolean', NULL, 'v'),
('public', 'qml_wait_for', 'IN id uuid, IN timeout interval DEFAULT ''00:00:30''::interval, INOUT state qml.job_state DEFAULT NULL::qml.job_state', NULL, 'v'),
('public', 'qml_watch', 'INOUT version bigint DEFAULT NULL::bigint, IN timeout interval DEFAULT ''00:00:30''::interval', NULL, 'v'),
-- inside a job
('public', 'qml_current_job', '', 'qml.job', 'v'),
('public', 'qml_progress', 'progress jsonb', 'boolean', 'v'),
('public', 'qml_retry_later', 'delay interval, reason text DEFAULT NULL::text', 'boolean', 'v'),
('public', 'qml_discard', 'reason text DEFAULT NULL::text', 'boolean', 'v'),
-- tests of users
('public', 'qml_run', 'id uuid', 'qml.job', 'v'),
('public', 'qml_drain', 'queues anycompatible DEFAULT NULL::text, max integer DEFAULT 1000, scheduled boolean DEFAULT false', 'integer', 'v'),
-- locks
('public', 'qml_try_lock', 'resource text, owner text, ttl interval', 'bigint', 'v'),
('public', 'qml_unlock', 'resource text, owner text', 'boolean', 'v'),
-- rights
('public', 'qml_grant', 'grantee regrole, capability text, queue text DEFAULT NULL::text', 'boolean', 'v'),
('public', 'qml_revoke', 'grantee regrole, capability text, queue text DEFAULT NULL::text', 'boolean', 'v'),
('public', 'qml_drop_role_objects', 'role regrole', 'jsonb', 'v'),
-- for views and triggers
('qml', 'search_order', 'id uuid, created_at timestamp with time zone', 'bigint', 'i'),
('qml', 'search_key', 'queue_id integer, method text', 'bigint', 'i'),
('qml', 'search_own', 'id uuid, created_at timestamp with time zone', 'boolean', 'i'),
('qml', 'search_slow', 'created_at timestamp with time zone, finished_at timestamp with time zone', 'boolean', 'i'),
('qml', 'job_access', 'queue_id integer, created_by regrole', 'integer', 's'),
('qml', 'job_document', 'queue_id integer, method text, created_by regrole, name text, value jsonb', 'jsonb', 's'),
('qml', 'job_text', 'queue_id integer, method text, created_by regrole, name text, value text', 'text', 's'),
('qml', 'queue_access', 'queue text', 'boolean', 's'),
('qml', 'recurring_access', 'queue text, created_by regrole', 'integer', 's'),
('qml', 'recurring_document', 'queue text, method text, created_by regrole, name text, value jsonb', 'jsonb', 's'),
('qml', 'next_runs', 'cron text, timezone text, anchor timestamp with time zone, next_run_at timestamp with time zone, enabled boolean', 'timestamp with time zone[]', 's'),
('qml', 'background_databases', '', 'TABLE(name text, state text, workers integer, waiting_roles integer, served_at timestamp with time zone, due_at timestamp with time zone, problem text)', 's'),
('qml', 'background_servers', '', 'TABLE(id text, name text, kind text, run_as regrole, started_at timestamp with time zone, heartbeat_at timestamp with time zone)', 's'),
('qml', 'is_alive', 'heartbeat_at timestamp with time zone, dead_at timestamp with time zone', 'boolean', 's'),
('qml', 'handler_problem', 'method text', 'text', 's'),
('qml', 'hook_problem', 'name text', 'text', 's'),
('qml', 'hook_access', 'run_as regrole, after_commit boolean', 'boolean', 's'),
('qml', 'middleware_problem', 'name text', 'text', 's'),
('qml', 'role_problem', 'role regrole, registrations boolean', 'text', 's'),
('qml', 'is_admin', '', 'boolean', 's'),
('qml', 'lease_end', 'id uuid, attempt integer, lease_expires_at timestamp with time zone', 'timestamp with time zone', 's'),
('qml', 'retries_left', 'queue_id integer, method text, created_by regrole, max_retries integer, tries integer', 'integer', 's'),
('qml', 'error_fingerprint', 'queue_id integer, method text, created_by regrole, errors jsonb', 'text', 's'),
('qml', 'bulk_access', 'made_by regrole', 'boolean', 's'),
('qml', 'stats_access', 'queue_id integer', 'boolean', 's'),
('qml', 'scheduler_alert', '', 'TABLE(since timestamp with time zone, detail text)', 's'),
('qml', 'stats_quantile', 'histogram bytea, quantile double precision', 'interval', 'i'),
('qml', 'unlogged_jobs', '', 'TABLE(id uuid, created_at timestamp with time zone, queue_id integer, priority integer, state qml.job_state, attempt integer, uncounted integer, max_retries smallint, timeout_ms integer, created_by regrole, ready_at timestamp with time zone, run_at timestamp with time zone, started_at timestamp with time zone, finished_at timestamp with time zone, expires_at timestamp with time zone, lease_expires_at timestamp with time zone, worker text, server text, method text, job_type text, metadata jsonb, progress jsonb, errors jsonb, reason text, payload jsonb, result jsonb)', 's'),
('qml', 'may_plan', 'view text', 'boolean', 'i'),
('qml', 'one_line', 'value text, width integer', 'text', 's'),
('qml', 'brief', 'duration interval', 'text', 's'),
('qml', 'may_read', 'view text', 'boolean', 's'),
('qml', 'invalidate', '', 'trigger', 'v'),
('qml', 'note_sql', '', 'trigger', 'v');

-- OUT arguments are written as the TABLE that they amount to.
CREATE TEMP VIEW actual_function AS
	SELECT p.nspname AS schema, p.proname AS name,
		CASE WHEN o.columns IS NULL OR p.pronargs > 0 THEN pg_get_function_arguments(p.oid) ELSE '' END AS arguments,
		CASE WHEN o.columns IS NULL THEN pg_get_function_result(p.oid) ELSE 'TABLE(' || o.columns || ')' END AS result,
		p.provolatile AS volatility
	FROM member_function p
	CROSS JOIN LATERAL (SELECT string_agg(format('%s %s', a.name, format_type(a.type, NULL)), ', ' ORDER BY a.n) AS columns
		FROM unnest(p.proargnames, p.proallargtypes, p.proargmodes) WITH ORDINALITY a (name, type, mode, n)
		WHERE a.mode IN ('o', 't')) o;

SELECT set_eq('SELECT schema, name, arguments FROM actual_function', 'SELECT schema, name, arguments FROM expected_function',
	'the functions are those that this test knows, with their arguments');
SELECT is(a.result, e.result, format('result of %I.%I(%s)', e.schema, e.name, e.arguments))
	FROM expected_function e LEFT JOIN actual_function a USING (schema, name, arguments);
SELECT is(a.volatility, e.volatility, format('volatility of %I.%I(%s)', e.schema, e.name, e.arguments))
	FROM expected_function e LEFT JOIN actual_function a USING (schema, name, arguments);

SELECT set_eq(
	$$SELECT proname FROM member_function GROUP BY nspname, proname HAVING count(*) > 1$$,
	ARRAY['qml_register_handler', 'qml_progress', 'qml_discard', 'qml_register_hook', 'qml_register_middleware'],
	'no other function is overloaded');
SELECT is_empty(
	$$SELECT object FROM member m JOIN member_function p ON p.oid = m.objid
	  WHERE p.prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c') OR p.probin <> '$libdir/qml'
		OR p.prosrc <> CASE WHEN p.nspname = 'qml' THEN 'qml_' || p.proname
			WHEN p.proname IN ('qml_register_handler', 'qml_register_hook', 'qml_register_middleware') AND p.proargtypes[1] = 'text'::regtype
				THEN p.proname || '_name'
			WHEN p.proname = 'qml_progress' AND p.pronargs = 1 THEN 'qml_show_progress'
			WHEN p.proname = 'qml_discard' AND p.pronargs = 1 THEN 'qml_discard_current'
			ELSE p.proname END$$,
	'every function is C, and its symbol has its name');
SELECT is_empty(
	$$SELECT object FROM member m JOIN member_function p ON p.oid = m.objid
	  WHERE p.prokind = 'f' AND p.prorettype = 'void'::regtype$$,
	'no function returns void, which some clients do not know');
SELECT is_empty(
	$$SELECT object FROM member m JOIN member_function p ON p.oid = m.objid WHERE p.proparallel <> 'u' AND p.provolatile <> 'i'$$,
	'every function is parallel unsafe, but for those that compute values of indexes');
SELECT is_empty(
	$$SELECT object FROM member m JOIN member_function p ON p.oid = m.objid
	  WHERE p.prosecdef OR p.proleakproof OR p.prokind <> CASE WHEN p.proname IN ('qml_wait', 'qml_wait_for', 'qml_watch') OR p.proname ~ '^qml_[a-z]+_job$' AND p.proname NOT IN ('qml_current_job', 'qml_fetch_job', 'qml_update_job') THEN 'p' ELSE 'f' END OR p.provariadic <> 0 OR p.proconfig IS NOT NULL$$,
	'what waits, or is another form of a function, is a procedure, and nothing else; no function is SECURITY DEFINER, leakproof, variadic or brings settings');
SELECT is_empty(
	$$SELECT object FROM member m JOIN member_function p ON p.oid = m.objid
	  WHERE p.proisstrict AND p.nspname <> 'qml'$$,
	'no function for callers is strict: each says itself which argument must not be null');

-------------------------------------------------------------------------------
-- Types
-------------------------------------------------------------------------------

SELECT set_eq($$SELECT object FROM member WHERE classid = 'pg_type'::regclass$$,
	ARRAY['type qml.job_state'], 'there is one type');
SELECT enum_has_labels('qml', 'job_state',
	ARRAY['scheduled', 'enqueued', 'processing', 'awaiting_retry', 'succeeded', 'failed', 'deleted', 'awaiting_parents'],
	'labels of qml.job_state, in order');

-------------------------------------------------------------------------------
-- Relations and their columns
-------------------------------------------------------------------------------

CREATE TEMP TABLE expected_relation (kind "char", name name, columns text);
INSERT INTO expected_relation VALUES
('v', 'job', 'id uuid, queue text, method text, payload jsonb, state qml.job_state, priority integer, attempt integer, tries integer, max_retries integer, retries_left integer, run_at timestamp with time zone, created_at timestamp with time zone, ready_at timestamp with time zone, started_at timestamp with time zone, finished_at timestamp with time zone, expires_at timestamp with time zone, lease_expires_at timestamp with time zone, worker text, server text, timeout interval, result jsonb, progress jsonb, error text, errors jsonb, metadata jsonb, job_type text, reason text, created_by name'),
('v', 'queue', 'name text, paused boolean, options jsonb, created_at timestamp with time zone, paused_at timestamp with time zone, paused_by text, pause_reason text'),
('v', 'pause', 'queue text, schedule text, paused_at timestamp with time zone, paused_by text, pause_reason text'),
('v', 'audit', 'at timestamp with time zone, action text, object_type text, object text, queue text, session_role text, effective_role text, claimed_actor text, client_address inet, before jsonb, after jsonb'),
('v', 'recent', 'id uuid, queue text, method text, state qml.job_state, tries integer, age text, run_time text, error text'),
('v', 'lock', 'resource text, owner text, taken_by name, fence bigint, acquired_at timestamp with time zone, expires_at timestamp with time zone'),
('v', 'recurring', 'id text, cron text, timezone text, method text, payload jsonb, queue text, priority integer, max_retries integer, timeout interval, misfire text, overlap text, metadata jsonb, job_type text, enabled boolean, pause_reason text, next_run_at timestamp with time zone, next_runs timestamp with time zone[], last_run_at timestamp with time zone, last_job uuid, error text, created_by name, created_at timestamp with time zone, updated_at timestamp with time zone, paused_at timestamp with time zone, paused_by text'),
('v', 'recurring_tick', 'schedule text, tick timestamp with time zone, fired_at timestamp with time zone, job uuid, outcome text, late_by interval, through timestamp with time zone'),
('v', 'database', 'name text, state text, workers integer, waiting_roles integer, served_at timestamp with time zone, due_at timestamp with time zone, problem text'),
('v', 'server', 'id text, name text, kind text, workers integer, queues text[], registered_by name, started_at timestamp with time zone, heartbeat_at timestamp with time zone, alive boolean, run_as name'),
('v', 'handler', 'method text, function text, command text, run_as name, options jsonb, registered_by name, registered_at timestamp with time zone, problem text'),
('v', 'hook', 'name text, function text, states qml.job_state[], run_as name, options jsonb, registered_at timestamp with time zone, errors integer, broken boolean, last_error text, last_error_at timestamp with time zone, problem text'),
('v', 'middleware', 'name text, function text, position integer, run_as name, registered_at timestamp with time zone, problem text'),
('v', 'acl', 'grantee name, capability text, queue text, grantor name, granted_at timestamp with time zone, problem text'),
('r', 'queue_data', 'id integer!, name text!, paused boolean!, dropped boolean!, options jsonb!, created_at timestamp with time zone!, paused_at timestamp with time zone, paused_by text, pause_reason text'),
('r', 'pause_data', 'single boolean!, paused_at timestamp with time zone!, paused_by text!, pause_reason text'),
('p', 'audit_data', 'at timestamp with time zone!, action text!, object_type text!, object text, queue text, session_role text!, effective_role text!, claimed_actor text, client_address inet, before jsonb, after jsonb'),
('r', 'audit_overflow', 'at timestamp with time zone!, action text!, object_type text!, object text, queue text, session_role text!, effective_role text!, claimed_actor text, client_address inet, before jsonb, after jsonb'),
('v', 'stats_minute', 'at timestamp with time zone, span interval, queue text, method text, enqueued bigint, started bigint, succeeded bigint, failed bigint, deleted bigint, retried bigint, released bigint, lost bigint, waited interval, wait_p50 interval, wait_p95 interval, wait_p99 interval, ran interval, run_p50 interval, run_p95 interval, run_p99 interval'),
('v', 'dead_letter', 'fingerprint text, queue text, method text, error_type text, error text, count bigint, first_failed_at timestamp with time zone, last_failed_at timestamp with time zone, sample uuid'),
('v', 'bulk', 'id uuid, action text, query text, options jsonb, state text, state_at timestamp with time zone, reason text, made_by name, made_at timestamp with time zone, worked_at timestamp with time zone, reached timestamp with time zone, looked bigint, changed bigint, skipped bigint, outcomes jsonb, held integer, last_error text'),
('v', 'alert', 'id uuid, kind text, queue text, method text, since timestamp with time zone, until timestamp with time zone, value double precision, bound double precision, detail text'),
('v', 'mark', 'at timestamp with time zone, label text, made_by name'),
('r', 'live', 'id uuid!, created_at timestamp with time zone!, queue_id integer!, priority integer!, max_retries smallint!, lineage smallint!, created_by regrole!, state qml.job_state!, attempt integer, ready_at timestamp with time zone, run_at timestamp with time zone, started_at timestamp with time zone, lease_expires_at timestamp with time zone, timeout_ms integer, uncounted integer, worker text, server text, method text!, job_type text, metadata jsonb, progress jsonb, errors jsonb, reason text, payload jsonb!'),
('p', 'history', 'id uuid!, created_at timestamp with time zone!, queue_id integer!, priority integer!, max_retries smallint!, lineage smallint!, created_by regrole!, state qml.job_state!, attempt integer, ready_at timestamp with time zone, finished_at timestamp with time zone!, expires_at timestamp with time zone!, started_at timestamp with time zone, timeout_ms integer, uncounted integer, worker text, server text, method text!, job_type text, metadata jsonb, progress jsonb, errors jsonb, reason text, payload jsonb!, result jsonb'),
('r', 'history_overflow', 'id uuid!, created_at timestamp with time zone!, queue_id integer!, priority integer!, max_retries smallint!, lineage smallint!, created_by regrole!, state qml.job_state!, attempt integer, ready_at timestamp with time zone, finished_at timestamp with time zone!, expires_at timestamp with time zone!, started_at timestamp with time zone, timeout_ms integer, uncounted integer, worker text, server text, method text!, job_type text, metadata jsonb, progress jsonb, errors jsonb, reason text, payload jsonb!, result jsonb'),
('r', 'lock_data', 'resource text!, owner text!, taken_by regrole!, fence bigint!, acquired_at timestamp with time zone!, expires_at timestamp with time zone!'),
('r', 'recurring_data', 'id text!, created_at timestamp with time zone!, updated_at timestamp with time zone!, created_by regrole!, enabled boolean!, next_run_at timestamp with time zone, last_run_at timestamp with time zone, fired_through timestamp with time zone, anchor timestamp with time zone, last_job uuid, priority integer!, max_retries integer, timeout_ms integer, misfire text!, overlap text!, cron text!, timezone text!, queue text!, method text!, job_type text, metadata jsonb, error text, paused_at timestamp with time zone, paused_by text, pause_reason text, open_jobs uuid[], imported jsonb, payload jsonb!'),
('p', 'occurrence_data', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('r', 'occurrence_0', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('r', 'occurrence_1', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('r', 'occurrence_2', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('r', 'occurrence_3', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('r', 'occurrence_4', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('r', 'occurrence_5', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('r', 'occurrence_6', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('r', 'occurrence_7', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('r', 'occurrence_8', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('r', 'occurrence_9', 'occurrence timestamp with time zone!, recurring text!, job uuid, fired_at timestamp with time zone!, partition smallint!, outcome text!, through timestamp with time zone'),
('p', 'stats_data', 'at timestamp with time zone!, until timestamp with time zone!, partition smallint!, queue_id integer!, method text!, enqueued bigint!, started bigint!, succeeded bigint!, failed bigint!, deleted bigint!, retried bigint!, released bigint!, lost bigint!, waited bigint!, ran bigint!, waits bytea!, runs bytea!'),
('r', 'stats_0', 'at timestamp with time zone!, until timestamp with time zone!, partition smallint!, queue_id integer!, method text!, enqueued bigint!, started bigint!, succeeded bigint!, failed bigint!, deleted bigint!, retried bigint!, released bigint!, lost bigint!, waited bigint!, ran bigint!, waits bytea!, runs bytea!'),
('r', 'stats_1', 'at timestamp with time zone!, until timestamp with time zone!, partition smallint!, queue_id integer!, method text!, enqueued bigint!, started bigint!, succeeded bigint!, failed bigint!, deleted bigint!, retried bigint!, released bigint!, lost bigint!, waited bigint!, ran bigint!, waits bytea!, runs bytea!'),
('r', 'stats_2', 'at timestamp with time zone!, until timestamp with time zone!, partition smallint!, queue_id integer!, method text!, enqueued bigint!, started bigint!, succeeded bigint!, failed bigint!, deleted bigint!, retried bigint!, released bigint!, lost bigint!, waited bigint!, ran bigint!, waits bytea!, runs bytea!'),
('r', 'stats_3', 'at timestamp with time zone!, until timestamp with time zone!, partition smallint!, queue_id integer!, method text!, enqueued bigint!, started bigint!, succeeded bigint!, failed bigint!, deleted bigint!, retried bigint!, released bigint!, lost bigint!, waited bigint!, ran bigint!, waits bytea!, runs bytea!'),
('r', 'stats_4', 'at timestamp with time zone!, until timestamp with time zone!, partition smallint!, queue_id integer!, method text!, enqueued bigint!, started bigint!, succeeded bigint!, failed bigint!, deleted bigint!, retried bigint!, released bigint!, lost bigint!, waited bigint!, ran bigint!, waits bytea!, runs bytea!'),
('r', 'stats_5', 'at timestamp with time zone!, until timestamp with time zone!, partition smallint!, queue_id integer!, method text!, enqueued bigint!, started bigint!, succeeded bigint!, failed bigint!, deleted bigint!, retried bigint!, released bigint!, lost bigint!, waited bigint!, ran bigint!, waits bytea!, runs bytea!'),
('r', 'stats_6', 'at timestamp with time zone!, until timestamp with time zone!, partition smallint!, queue_id integer!, method text!, enqueued bigint!, started bigint!, succeeded bigint!, failed bigint!, deleted bigint!, retried bigint!, released bigint!, lost bigint!, waited bigint!, ran bigint!, waits bytea!, runs bytea!'),
('r', 'stats_7', 'at timestamp with time zone!, until timestamp with time zone!, partition smallint!, queue_id integer!, method text!, enqueued bigint!, started bigint!, succeeded bigint!, failed bigint!, deleted bigint!, retried bigint!, released bigint!, lost bigint!, waited bigint!, ran bigint!, waits bytea!, runs bytea!'),
('r', 'bulk_data', 'id uuid!, made_at timestamp with time zone!, state_at timestamp with time zone!, worked_at timestamp with time zone, not_before timestamp with time zone, held_until timestamp with time zone, made_by regrole!, walked boolean!, looked bigint!, cursor_order bigint, cursor_id uuid, state text!, action text!, timezone text!, outcomes jsonb!, held uuid[]!, query text!, options jsonb!, state_reason text, last_error text'),
('r', 'alert_data', 'id uuid!, kind text!, queue_id integer!, method text!, since timestamp with time zone!, until timestamp with time zone, calm_since timestamp with time zone, value double precision!, bound double precision!, detail text!'),
('r', 'mark_data', 'at timestamp with time zone!, label text!, made_by regrole!'),
('r', 'server_data', 'id text!, name text!, workers integer!, queues text[], registered_by regrole!, registered_at timestamp with time zone!, heartbeat_at timestamp with time zone!, dead_at timestamp with time zone'),
('r', 'handler_data', 'method text!, schema text!, name text!, argument_types text[]!, owner regrole!, run_as regrole!, registered_by regrole!, registered_at timestamp with time zone!, options jsonb!, command text!'),
('r', 'hook_data', 'name text!, schema text!, function text!, argument_types text[]!, owner regrole!, run_as regrole!, registered_at timestamp with time zone!, states qml.job_state[], errors integer!, broken boolean!, last_error text, last_error_at timestamp with time zone, options jsonb!'),
('r', 'middleware_data', 'name text!, schema text!, function text!, argument_types text[]!, owner regrole!, run_as regrole!, registered_at timestamp with time zone!, position integer!'),
('r', 'acl_data', 'grantee regrole!, capability text!, queue text, grantor regrole!, granted_at timestamp with time zone!'),
('r', 'capabilities_see_qml_drop_role_objects', 'empty boolean'),
('r', 'registrations_see_qml_drop_role_objects', 'empty boolean'),
('r', 'instance_data', 'system_identifier bigint!, database oid!, adopted_at timestamp with time zone!'),
('S', 'queue_data_id_seq', NULL),
('S', 'lock_fence', NULL),
('r', 'live_unlogged', NULL),
('p', 'history_unlogged', NULL),
('r', 'history_unlogged_overflow', NULL),
('S', 'lives', NULL),
('S', 'unlogged_life', NULL),
('S', 'async_life', NULL);

SELECT set_eq($$SELECT relkind, relname FROM member_relation WHERE relnamespace = 'qml'::regnamespace$$,
	'SELECT kind, name FROM expected_relation', 'the relations are those that this test knows');
SELECT is_empty($$SELECT relname FROM member_relation WHERE relnamespace <> 'qml'::regnamespace$$,
	'all relations are in schema qml');
-- Order counts: the rows of qml_fetch are read by position in many drivers.
SELECT is(
	(SELECT string_agg(format('%s %s%s', attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN '!' END),
		', ' ORDER BY attnum)
	 FROM pg_attribute WHERE attrelid = to_regclass('qml.' || e.name) AND attnum > 0 AND NOT attisdropped),
	e.columns, format('columns of qml.%s', e.name))
	FROM expected_relation e WHERE e.columns IS NOT NULL;

-- The tables of unlogged jobs are as those of others.
SELECT is(
	(SELECT string_agg(format('%s %s%s', attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN '!' END),
		', ' ORDER BY attnum)
	 FROM pg_attribute WHERE attrelid = to_regclass('qml.' || t.unlogged) AND attnum > 0 AND NOT attisdropped),
	e.columns, format('qml.%s has the columns of qml.%s', t.unlogged, t.logged))
	FROM (VALUES ('live', 'live_unlogged'), ('history', 'history_unlogged'), ('history', 'history_unlogged_overflow')) t (logged, unlogged)
	JOIN expected_relation e ON e.name = t.logged;
SELECT is((SELECT reloptions FROM pg_class WHERE oid = 'qml.live_unlogged'::regclass),
	(SELECT reloptions FROM pg_class WHERE oid = 'qml.live'::regclass), 'and they are stored alike');

-- The planner takes a view apart whose outermost query is a UNION ALL: it is no security
-- barrier then.  The set operation of the outermost query is the last one that is written.
SELECT is_empty($$SELECT c.relname FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
	WHERE c.relnamespace = 'qml'::regnamespace AND substring(r.ev_action::text FROM '.*:setOperations (<>|\{)') <> '<>'$$,
	'no view ends in a set operation');
SELECT is(cardinality(regexp_split_to_array(pg_get_viewdef('qml.job'::regclass), 'UNION ALL')), 4, 'qml.job reads three tables and a function');
SELECT is(pg_get_partkeydef(h), 'RANGE (expires_at)', format('%s is partitioned by expiry', h))
	FROM unnest(ARRAY['qml.history', 'qml.history_unlogged']::regclass[]) h;
SELECT is(pg_get_partkeydef('qml.audit_data'::regclass), 'RANGE (at)', 'acts are partitioned by time');
SELECT is(
	(SELECT string_agg(format('%s %s', inhrelid::regclass, pg_get_expr(relpartbound, oid)), ', ' ORDER BY relname)
	 FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'qml.occurrence_data'::regclass),
	(SELECT string_agg(format('qml.occurrence_%s FOR VALUES IN (''%s'')', n, n), ', ' ORDER BY n) FROM generate_series(0, 9) n),
	'ticks have ten partitions, each of one number');
SELECT is(
	(SELECT string_agg(format('%s %s', inhrelid::regclass, pg_get_expr(relpartbound, oid)), ', ' ORDER BY relname)
	 FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'qml.stats_data'::regclass),
	(SELECT string_agg(format('qml.stats_%s FOR VALUES IN (''%s'')', n, n), ', ' ORDER BY n) FROM generate_series(0, 7) n),
	'statistics have eight partitions, each of one number');
SELECT set_eq($$SELECT relname FROM member_relation WHERE relpersistence <> 'p'$$,
	$$VALUES ('live_unlogged'::name), ('history_unlogged_overflow'), ('unlogged_life'), ('async_life')$$,
	'no other table is unlogged: a crash empties none');
SELECT is_empty($$SELECT relname FROM member_relation WHERE relkind = 'v' AND NOT
		coalesce(reloptions @> ARRAY['security_barrier=true'], false)$$,
	'every view is a security barrier');
SELECT is_empty($$SELECT relname FROM member_relation WHERE relkind = 'v' AND reloptions @> ARRAY['security_invoker=true']$$,
	'every view reads as its owner');

SELECT set_eq(
	'SELECT definition FROM member_index',
	ARRAY[
		'CREATE UNIQUE INDEX queue_data_pkey ON qml.queue_data USING btree (id)',
		'CREATE UNIQUE INDEX queue_data_name_key ON qml.queue_data USING btree (name)',
		'CREATE UNIQUE INDEX live_pkey ON qml.live USING btree (id)',
		'CREATE INDEX live_ready ON qml.live USING btree (queue_id, priority DESC, id) WHERE (run_at IS NULL)',
		'CREATE INDEX history_overflow_id ON qml.history_overflow USING btree (id)',
		'CREATE UNIQUE INDEX live_unlogged_pkey ON qml.live_unlogged USING btree (id)',
		'CREATE INDEX live_unlogged_ready ON qml.live_unlogged USING btree (queue_id, priority DESC, id) WHERE (run_at IS NULL)',
		'CREATE INDEX live_unlogged_due ON qml.live_unlogged USING btree (run_at) WHERE (run_at IS NOT NULL)',
		'CREATE INDEX history_unlogged_overflow_id ON qml.history_unlogged_overflow USING btree (id)',
		'CREATE INDEX live_due ON qml.live USING btree (run_at) WHERE (run_at IS NOT NULL)',
		'CREATE INDEX history_overflow_search ON qml.history_overflow USING btree (qml.search_key(queue_id, method), qml.search_order(id, created_at))',
		'CREATE INDEX history_overflow_state ON qml.history_overflow USING btree (state, qml.search_order(id, created_at), qml.search_key(queue_id, method)) WHERE (state <> ''succeeded''::qml.job_state)',
		'CREATE INDEX history_overflow_own ON qml.history_overflow USING btree (qml.search_order(id, created_at)) WHERE qml.search_own(id, created_at)',
		'CREATE INDEX history_overflow_end ON qml.history_overflow USING btree (finished_at) WHERE qml.search_slow(created_at, finished_at)',
		'CREATE INDEX history_unlogged_overflow_search ON qml.history_unlogged_overflow USING btree (qml.search_key(queue_id, method), qml.search_order(id, created_at))',
		'CREATE INDEX history_unlogged_overflow_state ON qml.history_unlogged_overflow USING btree (state, qml.search_order(id, created_at), qml.search_key(queue_id, method)) WHERE (state <> ''succeeded''::qml.job_state)',
		'CREATE INDEX history_unlogged_overflow_own ON qml.history_unlogged_overflow USING btree (qml.search_order(id, created_at)) WHERE qml.search_own(id, created_at)',
		'CREATE INDEX history_unlogged_overflow_end ON qml.history_unlogged_overflow USING btree (finished_at) WHERE qml.search_slow(created_at, finished_at)',
		'CREATE INDEX live_later ON qml.live USING btree (queue_id, qml.search_order(id, created_at)) WHERE (run_at IS NOT NULL)',
		'CREATE INDEX live_own ON qml.live USING btree (qml.search_order(id, created_at), queue_id) WHERE qml.search_own(id, created_at)',
		'CREATE INDEX live_unlogged_later ON qml.live_unlogged USING btree (queue_id, qml.search_order(id, created_at)) WHERE (run_at IS NOT NULL)',
		'CREATE INDEX live_unlogged_own ON qml.live_unlogged USING btree (qml.search_order(id, created_at), queue_id) WHERE qml.search_own(id, created_at)',
		'CREATE UNIQUE INDEX recurring_data_pkey ON qml.recurring_data USING btree (id)',
		'CREATE INDEX recurring_due ON qml.recurring_data USING btree (next_run_at) WHERE (enabled AND (next_run_at IS NOT NULL))',
		'CREATE INDEX occurrence_0_tick ON qml.occurrence_0 USING btree (recurring, occurrence)',
		'CREATE INDEX occurrence_1_tick ON qml.occurrence_1 USING btree (recurring, occurrence)',
		'CREATE INDEX occurrence_2_tick ON qml.occurrence_2 USING btree (recurring, occurrence)',
		'CREATE INDEX occurrence_3_tick ON qml.occurrence_3 USING btree (recurring, occurrence)',
		'CREATE INDEX occurrence_4_tick ON qml.occurrence_4 USING btree (recurring, occurrence)',
		'CREATE INDEX occurrence_5_tick ON qml.occurrence_5 USING btree (recurring, occurrence)',
		'CREATE INDEX occurrence_6_tick ON qml.occurrence_6 USING btree (recurring, occurrence)',
		'CREATE INDEX occurrence_7_tick ON qml.occurrence_7 USING btree (recurring, occurrence)',
		'CREATE INDEX occurrence_8_tick ON qml.occurrence_8 USING btree (recurring, occurrence)',
		'CREATE INDEX occurrence_9_tick ON qml.occurrence_9 USING btree (recurring, occurrence)',
		'CREATE UNIQUE INDEX alert_data_pkey ON qml.alert_data USING btree (id)',
		'CREATE UNIQUE INDEX alert_data_active ON qml.alert_data USING btree (kind, queue_id, method) WHERE (until IS NULL)',
		'CREATE INDEX alert_data_until ON qml.alert_data USING btree (until) WHERE (until IS NOT NULL)',
		'CREATE UNIQUE INDEX pause_data_pkey ON qml.pause_data USING btree (single)',
		'CREATE UNIQUE INDEX bulk_data_pkey ON qml.bulk_data USING btree (id)',
		'CREATE INDEX stats_0_at ON qml.stats_0 USING btree (at)',
		'CREATE INDEX stats_1_at ON qml.stats_1 USING btree (at)',
		'CREATE INDEX stats_2_at ON qml.stats_2 USING btree (at)',
		'CREATE INDEX stats_3_at ON qml.stats_3 USING btree (at)',
		'CREATE INDEX stats_4_at ON qml.stats_4 USING btree (at)',
		'CREATE INDEX stats_5_at ON qml.stats_5 USING btree (at)',
		'CREATE INDEX stats_6_at ON qml.stats_6 USING btree (at)',
		'CREATE INDEX stats_7_at ON qml.stats_7 USING btree (at)',
		'CREATE UNIQUE INDEX server_data_pkey ON qml.server_data USING btree (id)',
		'CREATE UNIQUE INDEX handler_data_pkey ON qml.handler_data USING btree (method)',
		'CREATE UNIQUE INDEX hook_data_pkey ON qml.hook_data USING btree (name)',
		'CREATE UNIQUE INDEX middleware_data_pkey ON qml.middleware_data USING btree (name)',
		'CREATE UNIQUE INDEX lock_data_pkey ON qml.lock_data USING btree (resource)',
		'CREATE UNIQUE INDEX acl_queue ON qml.acl_data USING btree (grantee, capability, queue) WHERE (queue IS NOT NULL)',
		'CREATE UNIQUE INDEX acl_all ON qml.acl_data USING btree (grantee, capability) WHERE (queue IS NULL)'],
	'indexes');

-- A name that the script left unqualified would show here as what it caught.
SELECT is_empty(
	$$SELECT m.object, pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
	  FROM member m
	  JOIN pg_depend r ON r.refclassid = m.classid AND r.refobjid = m.objid AND r.deptype IN ('i', 'a')
	  JOIN pg_depend d ON d.classid = r.classid AND d.objid = r.objid
	  WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
		AND d.refobjid >= 16384
		AND NOT EXISTS (SELECT FROM member o WHERE o.classid = d.refclassid AND o.objid = d.refobjid)
		AND NOT EXISTS (SELECT FROM pg_type t JOIN member_relation c ON t.typrelid = c.oid WHERE t.oid = d.refobjid
			AND d.refclassid = 'pg_type'::regclass)$$,
	'views, defaults, checks and triggers use what is built in or qml''s own, nothing else');

-------------------------------------------------------------------------------
-- Comments
-------------------------------------------------------------------------------

SELECT is_empty($$SELECT object FROM member WHERE coalesce(obj_description(objid, classid::regclass::name), '') = ''$$,
	'every schema, type, function, table, view and sequence has a comment');
SELECT is_empty(
	$$SELECT c.relname, a.attname FROM member_relation c JOIN pg_attribute a ON a.attrelid = c.oid
	  WHERE c.relkind <> 'S' AND a.attnum > 0 AND NOT a.attisdropped
		AND coalesce(col_description(c.oid, a.attnum), '') = ''$$,
	'every column has a comment');
SELECT is_empty(
	$$SELECT definition FROM member_index i WHERE coalesce(obj_description(indexrelid, 'pg_class'), '') = ''
		AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)$$,
	'every index that is no constraint has a comment');
SELECT is_empty(
	$$SELECT tgrelid::regclass, tgname FROM pg_trigger t JOIN member_relation r ON r.oid = t.tgrelid
	  WHERE NOT tgisinternal AND coalesce(obj_description(t.oid, 'pg_trigger'), '') = ''$$,
	'every trigger has a comment');
-- Partitions of the history are no members.
DO $$ BEGIN PERFORM qml_create_queue('some'); END $$;
CREATE TEMP VIEW partition AS SELECT inhrelid AS oid FROM pg_inherits WHERE inhparent = 'qml.history'::regclass;
SELECT isnt_empty('TABLE partition', 'history has partitions');
SELECT is_empty(
	$$SELECT c.oid::regclass FROM (TABLE partition UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid IN (TABLE partition)) c
	  WHERE coalesce(obj_description(c.oid, 'pg_class'), '') = ''$$,
	'every partition has a comment, and so has its index');
SELECT isnt(obj_description(oid, 'pg_extension'), NULL, 'the extension has a comment')
	FROM pg_extension WHERE extname = 'qml';

-------------------------------------------------------------------------------
-- Dump
-------------------------------------------------------------------------------

-- Servers register with a database, and with no copy of it.  Marks of roles are privileges.
SELECT set_eq(
	$$SELECT unnest(extconfig)::regclass::text FROM pg_extension WHERE extname = 'qml'$$,
	$$SELECT oid::regclass::text FROM member_relation WHERE relkind IN ('r', 'S') AND relname <> 'server_data'
		AND relname NOT LIKE '%see_qml_drop_role_objects'$$,
	'the dump takes the rows of every table but that of servers, and the value of every sequence');
SELECT is_empty(
	$$SELECT c FROM pg_extension, unnest(extcondition) c WHERE extname = 'qml' AND c <> ''$$,
	'and all of the rows');
-- History's rows are in its partitions, which are dumped because they are no members.
SELECT lives_ok($$SELECT qml_enqueue('m', id => '00000000-0000-7000-8000-000000000001');
	SELECT qml_set_state('00000000-0000-7000-8000-000000000001', 'failed')$$, 'a job is finished');
SELECT isnt_empty($$SELECT inhrelid FROM pg_inherits WHERE inhparent = 'qml.history'::regclass$$,
	'history has a partition then');
SELECT is_empty(
	$$SELECT inhrelid::regclass FROM pg_inherits JOIN member_relation ON oid = inhrelid WHERE inhparent = 'qml.history'::regclass$$,
	'a partition of history is no member');

-------------------------------------------------------------------------------
-- Settings
-------------------------------------------------------------------------------

SELECT set_eq(
	$$SELECT concat_ws(' ', name, boot_val, unit, vartype, context, current_setting(name))
	  FROM pg_settings WHERE name LIKE 'qml.%'$$,
	ARRAY[
		'qml.actor  string user ',
		'qml.alert_interval 10 s integer sighup 10s',
		'qml.alert_limit 20 integer sighup 20',
		'qml.alert_max_age 3600 s integer sighup 1h',
		'qml.alert_max_failure_rate 0.5 real sighup 0.5',
		'qml.audit_ttl 31622400 s integer sighup 366d',
		'qml.cleanup_interval 60 s integer sighup 1min',
		'qml.databases * string sighup *',
		'qml.dead_server_timeout 60 s integer sighup 1min',
		'qml.enable_cleanup on bool sighup on',
		'qml.enable_recurring on bool sighup on',
		'qml.enable_scheduler on bool sighup on',
		'qml.enabled on bool sighup on',
		'qml.failed_ttl 604800 s integer superuser 7d',
		'qml.heartbeat_interval 10 s integer sighup 10s',
		'qml.job_timeout 300000 ms integer superuser 5min',
		'qml.lease 300000 ms integer superuser 5min',
		'qml.log_failures on bool superuser on',
		'qml.max_payload_size 1024 kB integer superuser 1MB',
		-- As the server of the tests has these two
		'qml.new_queues notice enum superuser quiet',
		'qml.ready_lists on bool superuser on',
		'qml.search_limit 10000 integer superuser 10000',
		'qml.warn_idle on bool superuser off',
		'qml.max_retries 5 integer superuser 5',
		'qml.max_workers -1 integer sighup -1',
		'qml.recurring_poll_interval 1000 ms integer sighup 1s',
		'qml.scheduler_poll_interval 1000 ms integer sighup 1s',
		'qml.server_name  string sighup ',
		'qml.shutdown_timeout 30 s integer sighup 30s',
		-- Where the library is not preloaded
		'qml.stats_series 1000 integer sighup 1000',
		'qml.succeeded_ttl 86400 s integer superuser 1d',
		'qml.worker_idle_timeout 60 s integer sighup 1min',
		'qml.workers 5 integer sighup 5'],
	'settings with their defaults, units and contexts');
SELECT is_empty($$SELECT name FROM pg_settings WHERE name LIKE 'qml.%' AND coalesce(short_desc, '') = ''$$,
	'every setting has a description');
SELECT throws_ok($$SET qml.no_such_setting = 1$$, '42602', NULL, 'the prefix is reserved: a misspelt setting is an error');

-------------------------------------------------------------------------------
-- The state machine
-------------------------------------------------------------------------------

SELECT set_eq(
	$$SELECT f::text, array_agg(t ORDER BY t)::text
	  FROM unnest(enum_range(NULL::qml.job_state)) f, unnest(enum_range(NULL::qml.job_state)) t
	  WHERE qml_can_transition(f, t) GROUP BY f$$,
	$$VALUES ('scheduled', '{enqueued,deleted}'),
		('enqueued', '{scheduled,processing,failed,deleted}'),
		('processing', '{enqueued,awaiting_retry,succeeded,failed,deleted}'),
		('awaiting_retry', '{enqueued,deleted}'),
		('failed', '{enqueued,awaiting_retry,deleted}'),
		('succeeded', '{deleted}'),
		('awaiting_parents', '{scheduled,enqueued,deleted}')$$,
	'the transitions');

SELECT * FROM finish();
ROLLBACK;
