-- The matrix of rights: every role × every function, view and table × own and
-- foreign queue × own job, schedule or server and somebody else's.  Each cell is
-- tried as that role in a subtransaction, and compared with the one table of
-- expectations below.

\ir include/start.sql

-- The extension belongs to a role that is no superuser any more: what its owner
-- may must not rest on that.
DROP EXTENSION qml CASCADE;
CREATE ROLE t_owner SUPERUSER LOGIN;
SET LOCAL ROLE t_owner;
CREATE EXTENSION qml SCHEMA public;
RESET ROLE;
ALTER ROLE t_owner NOSUPERUSER;

-------------------------------------------------------------------------------
-- Roles: each capability for queue "own" alone, and for all queues
-------------------------------------------------------------------------------

CREATE TEMP TABLE actor (role name, capability text, scope text);
INSERT INTO actor
	SELECT format('t_%s_%s', c, s), c, s
	FROM unnest(ARRAY['enqueue', 'work', 'monitor', 'admin']) c, unnest(ARRAY['own', 'all']) s;
INSERT INTO actor VALUES
	('t_nobody', 'nobody', 'own'),
	-- All privileges that somebody could grant by hand on functions, views and the schema, but no
	-- capability.
	('t_doors', 'doors', 'own'),
	-- A member of the owner, and the superuser.
	('t_deputy', 'owner', 'all'),
	('t_owner', 'owner', 'all'),
	(current_user, 'owner', 'all');

CREATE ROLE t_other;
-- Whose handlers everybody could register, if it were not for the capability.
CREATE ROLE t_guise LOGIN;
CREATE ROLE t_runner LOGIN;
DO $$
DECLARE
	a record;
BEGIN
	FOR a IN SELECT * FROM actor WHERE to_regrole(role::text) IS NULL LOOP
		-- A worker must be able to run the hooks of the role.
		EXECUTE format('CREATE ROLE %I LOGIN', a.role);
	END LOOP;
	FOR a IN SELECT * FROM actor LOOP
		EXECUTE format('GRANT t_guise TO %I', a.role);
	END LOOP;
	GRANT t_owner TO t_deputy;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA qml TO t_doors;
	GRANT USAGE ON SCHEMA qml TO t_doors;
	FOR a IN SELECT p.oid::regprocedure AS f FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
		JOIN pg_extension e ON e.oid = d.refobjid AND d.deptype = 'e' AND e.extname = 'qml' LOOP
		EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO t_doors', a.f);
	END LOOP;
END $$;

-------------------------------------------------------------------------------
-- Jobs: of each role and of somebody else, in both queues, in several states
-------------------------------------------------------------------------------

CREATE SCHEMA probe;
GRANT USAGE ON SCHEMA probe TO PUBLIC;

CREATE FUNCTION probe.work(jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION probe.tell(qml.job, qml.job_state, qml.job_state) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION probe.after(jsonb) RETURNS void LANGUAGE sql AS '';
-- All may execute it: nobody else can decide what a function of the server does.
CREATE FUNCTION probe.wrap(qml.job) RETURNS jsonb LANGUAGE internal AS 'to_jsonb';
REVOKE EXECUTE ON FUNCTION probe.tell FROM PUBLIC;
GRANT EXECUTE ON FUNCTION probe.tell TO t_owner;

-- What a reader saw of a job.
CREATE FUNCTION probe.sight(j qml.job) RETURNS text LANGUAGE sql AS $$
	SELECT CASE
		WHEN j.id IS NULL THEN 'nothing'
		WHEN num_nonnulls(j.payload, j.result, j.progress, j.error, j.errors, j.metadata, j.reason) = 0 THEN 'outline'
		WHEN num_nonnulls(j.payload, j.metadata, j.reason)
			+ CASE WHEN j.attempt > 0 THEN num_nonnulls(j.progress) ELSE 1 END
			+ CASE WHEN j.state = 'succeeded' THEN num_nonnulls(j.result) ELSE 1 END
			+ CASE WHEN j.state IN ('failed', 'awaiting_retry') THEN num_nonnulls(j.error, j.errors) ELSE 2 END = 7
			THEN 'full'
		ELSE 'partly: ' || j::text END
$$;

CREATE TEMP TABLE job (role name, queue text, state text, id uuid DEFAULT gen_random_uuid());
INSERT INTO job (role, queue, state)
	SELECT role, queue, state
	FROM (SELECT role FROM actor UNION ALL VALUES ('t_other')) r,
		unnest(ARRAY['own', 'foreign']) queue,
		unnest(ARRAY['enqueued', 'scheduled', 'processing', 'succeeded', 'failed', 'awaiting_retry']) state;
-- In a queue that takes part in nothing else, for what one call does to all jobs.
INSERT INTO job (role, queue, state) VALUES ('t_other', 'bystander', 'enqueued');

-- A schedule of each role in each queue, not due before the year 2100, and a
-- server of each role.
CREATE TEMP TABLE schedule AS
	SELECT DISTINCT role, queue, format('%s in %s', role, queue) AS id FROM job WHERE queue <> 'bystander';
CREATE TEMP TABLE server AS SELECT DISTINCT role, NULL::text AS id FROM job;

-- What a reader saw of a schedule.
CREATE FUNCTION probe.sight(r qml.recurring) RETURNS text LANGUAGE sql AS $$
	SELECT CASE num_nonnulls(r.payload, r.metadata, r.error)
		WHEN 0 THEN 'outline'
		WHEN 3 THEN 'full'
		ELSE 'partly: ' || r::text END
$$;

CREATE FUNCTION pg_temp.make(s schedule) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', s.role);
	PERFORM qml_schedule_recurring(s.id, '0 0 0 1 1 * 2100', 'm', '{"secret": true}', s.queue, metadata => '{"secret": true}');
	RESET ROLE;
END $$;

CREATE FUNCTION pg_temp.register(role name) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	id text;
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	id := qml_register_server('s');
	RESET ROLE;
	RETURN id;
END $$;

CREATE FUNCTION pg_temp.make(j job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', j.role);
	PERFORM qml_enqueue('m', '{"secret": true}', j.queue, id => j.id, metadata => '{"secret": true}',
		run_at => CASE WHEN j.state = 'scheduled' THEN now() + interval '1 day' END);
	RESET ROLE;
	IF j.state IN ('processing', 'succeeded', 'failed', 'awaiting_retry') THEN
		PERFORM qml_set_state(j.id, 'processing', '{"worker": "w"}');
		PERFORM qml_progress(j.id, 1, '{"secret": true}');
	END IF;
	IF j.state = 'succeeded' THEN
		PERFORM qml_succeed(j.id, 1, '{"secret": true}');
	ELSIF j.state IN ('failed', 'awaiting_retry') THEN
		PERFORM qml_fail(j.id, 1, 'secret', retry => j.state = 'awaiting_retry');
	END IF;
END $$;

DO $$
DECLARE
	r record;
BEGIN
	-- Everybody could enqueue and work once; most cannot any more.
	INSERT INTO qml.acl_data (grantee, capability, grantor)
		SELECT role::regrole, capability, 't_owner' FROM (SELECT DISTINCT role FROM job) j, unnest(ARRAY['enqueue', 'work']) capability;
	FOR r IN SELECT DISTINCT role FROM job LOOP
		EXECUTE format('GRANT REFERENCES ON qml.capabilities_see_qml_drop_role_objects TO %I', r.role);
	END LOOP;
	GRANT USAGE ON SCHEMA qml TO PUBLIC;
	PERFORM pg_temp.make(job) FROM job;
	PERFORM pg_temp.make(schedule) FROM schedule;
	UPDATE qml.recurring_data SET error = 'secret';
	INSERT INTO qml.occurrence_data SELECT clock_timestamp(), id, gen_random_uuid(), clock_timestamp(), 0, 'on_time' FROM qml.recurring_data;
	UPDATE qml.live SET reason = 'secret';
	UPDATE qml.history SET reason = 'secret';
	UPDATE server SET id = pg_temp.register(role);
	REVOKE USAGE ON SCHEMA qml FROM PUBLIC;
	FOR r IN SELECT DISTINCT role FROM job LOOP
		EXECUTE format('REVOKE REFERENCES ON qml.capabilities_see_qml_drop_role_objects FROM %I', r.role);
	END LOOP;
	DELETE FROM qml.acl_data;
	PERFORM qml_grant(role::regrole, capability, CASE WHEN scope = 'own' THEN 'own' END)
		FROM actor WHERE capability IN ('enqueue', 'work', 'monitor', 'admin');
	-- A locked resource and an empty queue for each side.
	PERFORM qml_try_lock('resource', 'somebody', '1 hour');
	PERFORM qml_register_handler('registered', 'probe.work', '{"run_as": "t_runner"}');
	PERFORM qml_register_hook('registered', 'probe.tell', '{processing}'), qml_register_middleware('registered', 'probe.wrap');
	UPDATE qml.hook_data SET last_error = 'error';
	-- Of an administrator, as if registered then.
	INSERT INTO qml.hook_data (name, schema, function, argument_types, owner, run_as, registered_at, options)
		VALUES ('theirs', 'probe', 'after', '{jsonb}', current_user::regrole, 't_runner', now(), '{"after_commit": true}');
	INSERT INTO qml.alert_data (id, kind, queue_id, method, since, value, bound, detail)
		SELECT gen_random_uuid(), 'max_age', id, '', now(), 2, 1, 'old' FROM qml.queue_data WHERE name IN ('own', 'foreign')
		UNION ALL SELECT gen_random_uuid(), 'dead_servers', 0, '', now(), 1, 0, 'dead';
	INSERT INTO qml.middleware_data (name, schema, function, argument_types, owner, run_as, registered_at, "position")
		VALUES ('theirs', 'probe', 'wrap', '{qml.job}', current_user::regrole, 't_runner', now(), 0);
	INSERT INTO qml.bulk_data (id, made_at, state_at, not_before, made_by, state, action, timezone, query, options)
		VALUES ('00000000-0000-7000-8000-0000000000bb', now(), now(), 'infinity', 't_other', 'running', 'retry', 'UTC', 'queue:own', '{}');
	INSERT INTO qml.queue_data (name) VALUES ('own-empty'), ('foreign-empty');
	INSERT INTO qml.acl_data (grantee, capability, queue, grantor)
		SELECT grantee, capability, 'own-empty', grantor FROM qml.acl_data WHERE queue = 'own';
END $$;

-------------------------------------------------------------------------------
-- Expectations
-------------------------------------------------------------------------------

-- A call is tried for each queue and job that it names:
--   $queue               the queue; $empty and $new belong to it: one without jobs,
--                        one that does not exist yet
--   $enqueued, $failed…  a job of the queue in that state, one's own and another's
--   $recurring           a schedule of the queue, one's own and another's
--   $server              a server, one's own and another's
-- A word for each kind of role says how it ends:
--   refused   42501
--   allowed   it succeeds
--   granted   succeeds if the capability is held for the queue, 42501 otherwise
--   granted seen  the same, but QM001 where it is not held
--   mine      the same, and the job, schedule or server must be one's own
--   mine seen the same, but QM001 where no capability is held for the queue
--   mine/everywhere  succeeds if it is one's own or the capability is held for all
--             queues, 42501 otherwise
--   everywhere  succeeds if the capability is held for all queues, 42501 otherwise
--   mine everywhere  the same, and the schedule must be one's own
-- or, for calls that return what they saw of a job (nothing, outline, full):
--   nothing; full
--   full granted          full of jobs in granted queues, nothing of others
--   full mine             the same, and the job must be one's own
--   full granted/outline  full of jobs in granted queues, an outline of others
-- or the very value, after "=": of a role for queue "own" | of one for all queues;
-- "=held" is true where the capability is held for the queue, "=" and five
-- characters an SQLSTATE.
CREATE TEMP TABLE expectation (n int GENERATED ALWAYS AS IDENTITY, object text, call text,
	nobody text, doors text, enqueue text, work text, monitor text, admin text, owner text);

INSERT INTO expectation (object, call, nobody, doors, enqueue, work, monitor, admin, owner) VALUES
-- producers
('qml_enqueue', $$SELECT qml_enqueue('m', queue => $queue)$$,
	'refused', 'refused', 'granted', 'refused', 'refused', 'granted', 'allowed'),
('qml_enqueue', $$SELECT qml_enqueue('m', queue => $new)$$,
	'refused', 'refused', 'granted', 'refused', 'refused', 'granted', 'allowed'),
('qml_enqueue', $$SELECT qml_enqueue('m', queue => $queue, run_at => now() + interval '1 hour', id => gen_random_uuid())$$,
	'refused', 'refused', 'granted', 'refused', 'refused', 'granted', 'allowed'),
('qml_try_enqueue', $$SELECT created FROM qml_try_enqueue('m', queue => $queue, id => gen_random_uuid(), options => '{"on_duplicate_id": "return"}')$$,
	'refused', 'refused', 'granted', 'refused', 'refused', 'granted', 'allowed'),
('qml_enqueue_job', $$CALL qml_enqueue_job('m', queue => $queue)$$,
	'refused', 'refused', 'granted', 'refused', 'refused', 'granted', 'allowed'),
('qml_enqueue_job', $$CALL qml_enqueue_job('m', queue => $new)$$,
	'refused', 'refused', 'granted', 'refused', 'refused', 'granted', 'allowed'),
('qml_enqueue_many', $$SELECT count(*) FROM qml_enqueue_many('m', '{1,2}'::jsonb[], $queue)$$,
	'refused', 'refused', 'granted', 'refused', 'refused', 'granted', 'allowed'),
('qml_enqueue_many', $$SELECT count(*) FROM qml_enqueue_many('m', '{}'::jsonb[], $queue)$$,
	'refused', 'refused', 'granted', 'refused', 'refused', 'granted', 'allowed'),
-- workers
('qml_fetch', $$SELECT count(*) FROM qml_fetch('w', ARRAY[$queue])$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_fetch', $$SELECT count(*) FROM qml_fetch('w', $queue)$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_fetch', $$SELECT count(*) FROM qml_fetch('w', $queue, methods => '{m}')$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_fetch', $$SELECT count(*) FROM qml_fetch('w', ARRAY['own', $queue], 1)$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_fetch', $$SELECT count(*) FROM qml_fetch('w', ARRAY[$new])$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_fetch', $$SELECT string_agg(DISTINCT queue, ' ' ORDER BY queue) FROM qml_fetch('w', batch => 10000)$$,
	'refused', 'refused', 'refused', '=own|bystander foreign own', 'refused', '=own|bystander foreign own',
	'=|bystander foreign own'),
('qml_fetch', $$SELECT string_agg(DISTINCT queue, ' ' ORDER BY queue) FROM qml_fetch('w', batch => 10000, methods => (SELECT array_agg(DISTINCT method) FROM qml.job))$$,
	'refused', 'refused', 'refused', '=own|bystander foreign own', 'refused', '=own|bystander foreign own',
	'=|bystander foreign own'),
('qml_fetch_job', $$SELECT (qml_fetch_job($enqueued, 'w')).attempt = 1$$,
	'refused', 'refused', 'refused', 'granted seen', 'refused', 'granted', 'allowed'),
('qml_fetch_job', $$SELECT qml_fetch_job(gen_random_uuid())$$,
	'refused', 'refused', 'refused', '=QM001|QM001', 'refused', '=QM001|QM001', '=|QM001'),
-- nothing can be run here, where the current user is not the session user
('qml_run', $$SELECT qml_run(gen_random_uuid())$$,
	'refused', 'refused', 'refused', '=QM001|QM001', 'refused', '=QM001|QM001', '=|QM001'),
('qml_drain', $$SELECT qml_drain($queue)$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_drain', 'SELECT qml_drain()',
	'refused', 'refused', 'refused', '=0|0', 'refused', '=0|0', '=|0'),
('qml_heartbeat', 'SELECT qml_heartbeat($processing, 1)',
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_heartbeat_many', 'SELECT count(*) > 0 FROM qml_heartbeat_many(ARRAY[$processing], ARRAY[1])',
	'refused', 'refused', 'refused', '=held', 'refused', '=held', '=|true'),
('qml_progress', $$SELECT qml_progress($processing, 1, '1')$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_succeed', 'SELECT qml_succeed($processing, 1)',
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_succeed_many', 'SELECT count(*) > 0 FROM qml_succeed_many(ARRAY[$processing], ARRAY[1])',
	'refused', 'refused', 'refused', '=held', 'refused', '=held', '=|true'),
('qml_succeed_many', 'SELECT count(*) FROM qml_succeed_many(ARRAY[$processing], ARRAY[99])',
	'refused', 'refused', 'refused', '=0|0', 'refused', '=0|0', '=|0'),
-- both the queue of the job and that of the fetch count
('qml_succeed_fetch', 'SELECT count(*) FROM qml_succeed_fetch($processing, 1, queues => $queue)',
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_succeed_fetch', 'SELECT count(*) FROM qml_succeed_fetch($processing, 1)',
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_succeed_fetch', $$SELECT count(*) FROM qml_fetch('w', 'own') f, qml_succeed_fetch(f.id, f.attempt, queues => $queue)$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_succeed_fetch_many', 'SELECT count(*) FROM qml_succeed_fetch_many(ARRAY[$processing], ARRAY[1], queues => $queue)',
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_succeed_fetch_many', $$SELECT count(*) FROM set_config('client_min_messages', 'error', true), qml_succeed_fetch_many(ARRAY[$processing], ARRAY[99])$$,
	'refused', 'refused', 'refused', '=1|1', 'refused', '=1|1', '=|1'),
('qml_succeed_fetch_many', $$SELECT count(*) FROM qml_succeed_fetch_many('{}', '{}', queues => $queue)$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_fail', $$SELECT qml_fail($processing, 1, 'e')$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_fail_many', $$SELECT count(*) > 0 FROM qml_fail_many(ARRAY[$processing], ARRAY[1], '{e}')$$,
	'refused', 'refused', 'refused', '=held', 'refused', '=held', '=|true'),
('qml_fail_many', $$SELECT count(*) FROM qml_fail_many(ARRAY[$processing], ARRAY[99], NULL)$$,
	'refused', 'refused', 'refused', '=0|0', 'refused', '=0|0', '=|0'),
('qml_release', $$SELECT qml_release($processing, 1)$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_release', $$SELECT qml_release($processing, 1, '2100-01-01', 'r')$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_release_many', $$SELECT count(*) > 0 FROM qml_release_many(ARRAY[$processing], ARRAY[1])$$,
	'refused', 'refused', 'refused', '=held', 'refused', '=held', '=|true'),
('qml_release_many', $$SELECT count(*) FROM qml_release_many(ARRAY[$processing], ARRAY[99], '2100-01-01')$$,
	'refused', 'refused', 'refused', '=0|0', 'refused', '=0|0', '=|0'),
('qml_discard', $$SELECT qml_discard($processing, 1, 'r')$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_progress_job', $$CALL qml_progress_job($processing, 1, '1')$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_succeed_job', $$CALL qml_succeed_job($processing, 1)$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_fail_job', $$CALL qml_fail_job($processing, 1, 'e')$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_release_job', $$CALL qml_release_job($processing, 1)$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_discard_job', $$CALL qml_discard_job($processing, 1)$$,
	'refused', 'refused', 'refused', 'granted', 'refused', 'granted', 'allowed'),
('qml_try_lock', $$SELECT qml_try_lock('r', 'o', '1 minute')$$,
	'refused', 'refused', 'allowed', 'allowed', 'refused', 'allowed', 'allowed'),
('qml_unlock', $$SELECT qml_unlock('r', 'o')$$,
	'refused', 'refused', 'allowed', 'allowed', 'refused', 'allowed', 'allowed'),
-- control
('qml_can_transition', $$SELECT qml_can_transition('failed', 'enqueued')$$,
	'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed', 'allowed'),
('qml_delete', 'SELECT qml_delete($enqueued)',
	'refused', 'refused', 'mine seen', 'refused', 'refused', 'granted', 'allowed'),
('qml_delete', $$SELECT qml_delete($succeeded, 'reason')$$,
	'refused', 'refused', 'mine seen', 'refused', 'refused', 'granted', 'allowed'),
('qml_delete', 'SELECT qml_delete($processing)',
	'refused', 'refused', 'mine seen', 'refused', 'refused', 'granted', 'allowed'),
('qml_cancel', $$SELECT qml_cancel($enqueued, 'reason')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_cancel', 'SELECT qml_cancel($processing)',
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_retry', 'SELECT qml_retry($failed)',
	'refused', 'refused', 'mine seen', 'refused', 'refused', 'granted', 'allowed'),
('qml_retry', 'SELECT qml_retry($scheduled)',
	'refused', 'refused', 'mine seen', 'refused', 'refused', 'granted', 'allowed'),
('qml_reschedule', $$SELECT qml_reschedule($enqueued, now() + interval '1 hour')$$,
	'refused', 'refused', 'mine seen', 'refused', 'refused', 'granted', 'allowed'),
('qml_set_state', $$SELECT qml_set_state($enqueued, 'failed')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_set_state', $$SELECT qml_set_state($failed, 'deleted')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_update_job', $$SELECT qml_update_job($scheduled, '{"priority": 7}')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_update_job', $$SELECT qml_update_job($failed, '{"payload": 7}')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
-- the job is in queue "own": the other queue counts
('qml_update_job', $$SELECT qml_update_job((SELECT id FROM qml.job WHERE queue = 'own' AND state = 'enqueued' LIMIT 1), jsonb_build_object('queue', $new))$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
-- bulk operations
('qml_bulk', $$SELECT qml_bulk('retry', 'queue:' || $queue)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_bulk', $$SELECT qml_bulk('delete', 'state:failed -queue:' || $queue)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'allowed', 'allowed'),
('qml_bulk', $$SELECT qml_bulk('move', 'queue:own', jsonb_build_object('queue', $new))$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_bulk_preview', $$SELECT count(*) > 0 FROM qml_bulk_preview('delete', 'queue:' || $queue)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_bulk_preview', $$SELECT string_agg(DISTINCT queue, ' ') FROM qml_bulk_preview('delete', '') WHERE queue IN ('own', 'foreign')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', '=own|foreign own', '=|foreign own'),
('qml_pause_bulk', $$SELECT qml_pause_bulk('00000000-0000-7000-8000-0000000000bb')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', '=42704|true', '=|true'),
('qml_resume_bulk', $$SELECT qml_resume_bulk('00000000-0000-7000-8000-0000000000bb')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', '=42704|false', '=|false'),
('qml_cancel_bulk', $$SELECT qml_cancel_bulk('00000000-0000-7000-8000-0000000000bb')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', '=42704|true', '=|true'),
('dead_letter', $$SELECT string_agg(DISTINCT queue || coalesce(left(fingerprint, 0) || '!', '') || coalesce(left(error, 0) || '!', ''), ' ' ORDER BY queue || coalesce(left(fingerprint, 0) || '!', '') || coalesce(left(error, 0) || '!', '')) FROM qml.dead_letter WHERE queue IN ('own', 'foreign')$$,
	'refused', 'refused', 'refused', 'refused', '=foreign own!!|foreign!! own!!', '=foreign own!!|foreign!! own!!', '=|foreign!! own!!'),
('error_fingerprint', $$SELECT coalesce(qml.error_fingerprint(0, 'm', 'pg_monitor', '[{"error": "e"}]'), 'none')$$,
	'refused', 'refused', '=none|none', '=none|none', '=none|none', '=none|none', '=|none'),
('bulk', $$SELECT count(*) FROM qml.bulk WHERE made_by = 't_other'$$,
	'refused', 'refused', '=0|0', '=0|0', '=0|0', '=0|1', '=|1'),
('bulk_access', $$SELECT qml.bulk_access('t_other')$$,
	'refused', 'refused', '=false|false', '=false|false', '=false|false', '=false|true', '=|true'),
-- queues
('qml_create_queue', 'SELECT qml_create_queue($new)',
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_alter_queue', $$SELECT qml_alter_queue($queue, '{"max_retries": 1}')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_drop_queue', 'SELECT qml_drop_queue($empty)',
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_pause_queue', 'SELECT qml_pause_queue($queue)',
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_resume_queue', 'SELECT qml_resume_queue($queue)',
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_purge_queue', $$SELECT qml_purge_queue($queue, 'reason')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_purge_queue', 'SELECT qml_purge_queue($new, missing_ok => true)',
	'refused', 'refused', 'refused', 'refused', 'refused', 'granted', 'allowed'),
('qml_pause_all', 'SELECT qml_pause_all()',
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_resume_all', 'SELECT qml_resume_all()',
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
-- maintenance
('qml_promote_due', 'SELECT qml_promote_due()',
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_reclaim', 'SELECT qml_reclaim()',
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_cleanup', 'SELECT qml_cleanup()',
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_maintain', 'SELECT qml_maintain()',
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_adopt', 'SELECT qml_adopt()',
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
-- recurring jobs
('qml_schedule_recurring', $$SELECT qml_schedule_recurring('new', '@daily', 'm', queue => $queue)$$,
	'refused', 'refused', 'granted', 'refused', 'refused', 'granted', 'allowed'),
('qml_schedule_recurring', $$SELECT qml_schedule_recurring('new', '@daily', 'm', queue => $new)$$,
	'refused', 'refused', 'granted', 'refused', 'refused', 'granted', 'allowed'),
('qml_schedule_recurring', $$SELECT qml_schedule_recurring($recurring, '@daily', 'm', queue => $queue)$$,
	'refused', 'refused', 'mine', 'refused', 'refused', 'granted', 'allowed'),
-- to another queue: one needs to have both
('qml_schedule_recurring', $$SELECT qml_schedule_recurring($recurring, '@daily', 'm', queue => 'own')$$,
	'refused', 'refused', 'mine', 'refused', 'refused', 'granted', 'allowed'),
('qml_schedule_recurring', $$SELECT qml_schedule_recurring($recurring, '@daily', 'm', queue => 'bystander')$$,
	'refused', 'refused', 'mine everywhere', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_remove_recurring', 'SELECT qml_remove_recurring($recurring)',
	'refused', 'refused', 'mine seen', 'refused', 'refused', 'granted', 'allowed'),
('qml_pause_recurring', 'SELECT qml_pause_recurring($recurring)',
	'refused', 'refused', 'mine seen', 'refused', 'refused', 'granted', 'allowed'),
('qml_resume_recurring', 'SELECT qml_resume_recurring($recurring)',
	'refused', 'refused', 'mine seen', 'refused', 'refused', 'granted', 'allowed'),
('qml_run_recurring', 'SELECT qml_run_recurring($recurring)',
	'refused', 'refused', 'mine seen', 'refused', 'refused', 'granted', 'allowed'),
('qml_cron_next', $$SELECT qml_cron_next('@daily')$$,
	'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed', 'allowed'),
('qml_poll_recurring', 'SELECT qml_poll_recurring()',
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
-- there is no pg_cron here, which is told to whoever is let in
('qml_pg_cron_schedule', 'SELECT qml_pg_cron_schedule()',
	'refused', 'refused', 'refused', 'refused', 'refused', '=42501|55000', '=|55000'),
('qml_pg_cron_unschedule', 'SELECT qml_pg_cron_unschedule()',
	'refused', 'refused', 'refused', 'refused', 'refused', '=42501|55000', '=|55000'),
('qml_import_pg_cron', 'SELECT qml_import_pg_cron()',
	'refused', 'refused', 'refused', 'refused', 'refused', '=42501|55000', '=|55000'),
-- servers
('qml_register_server', $$SELECT qml_register_server('s', 3, ARRAY[$queue])$$,
	'refused', 'refused', 'refused', 'allowed', 'refused', 'allowed', 'allowed'),
('qml_heartbeat_server', 'SELECT qml_heartbeat_server($server)',
	'refused', 'refused', 'refused', 'mine', 'refused', 'mine/everywhere', 'allowed'),
('qml_unregister_server', 'SELECT qml_unregister_server($server)',
	'refused', 'refused', 'refused', 'mine', 'refused', 'mine/everywhere', 'allowed'),
('qml_reclaim_server', 'SELECT qml_reclaim_server($server)',
	'refused', 'refused', 'refused', 'mine', 'refused', 'mine/everywhere', 'allowed'),
('qml_heartbeat_server', $$SELECT qml_heartbeat_server('unknown')$$,
	'refused', 'refused', 'refused', '=42704|42704', 'refused', '=42704|42704', '=|42704'),
('qml_heartbeat_server', $$SELECT qml_heartbeat_server('unknown', missing_ok => true)$$,
	'refused', 'refused', 'refused', '=false|false', 'refused', '=false|false', '=|false'),
('qml_unregister_server', $$SELECT qml_unregister_server('unknown', missing_ok => true)$$,
	'refused', 'refused', 'refused', '=false|false', 'refused', '=false|false', '=|false'),
('qml_reclaim_server', $$SELECT qml_reclaim_server('unknown', missing_ok => true)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
-- handlers; who may register one that runs as another is for 19_handlers
('qml_register_handler', $$SELECT qml_register_handler('registered', 'probe.work'::regproc::oid::regprocedure, '{"run_as": "t_guise"}')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_register_handler', $$SELECT qml_register_handler('new', 'probe.work', '{"run_as": "t_guise"}')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_register_command', $$SELECT qml_register_command('registered', 'VACUUM', '{"run_as": "t_guise"}')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_unregister_handler', $$SELECT qml_unregister_handler('registered')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', '=42501|true', '=|true'),
('qml_unregister_handler', $$SELECT qml_unregister_handler('nonesuch', true)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', '=42501|false', '=|false'),
('handler', $$SELECT string_agg(method || ' ' || coalesce(problem, ''), '') FROM qml.handler$$,
	'refused', 'refused', 'refused', '=registered |registered ', '=registered |registered ', '=registered |registered ', '=|registered '),
('handler_problem', $$SELECT qml.handler_problem('registered') IS NULL$$,
	'refused', 'refused', 'refused', '=true|true', '=true|true', '=true|true', '=|true'),
-- hooks and middleware; what a function must be like is for 20_hooks
('qml_register_hook', $$SELECT qml_register_hook('new', 'probe.tell', '{failed}')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'allowed'),
('qml_register_hook', $$SELECT qml_register_hook('registered', 'probe.tell'::regproc::oid::regprocedure)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'allowed'),
('qml_register_hook', $$SELECT qml_register_hook('new', 'probe.after', '{failed}', '{"after_commit": true}')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
-- what the owner has registered is the owner's
('qml_register_hook', $$SELECT qml_register_hook('registered', 'probe.after'::regproc::oid::regprocedure, options => '{"after_commit": true, "with_payload": true}')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'allowed'),
('qml_register_hook', $$SELECT qml_register_hook('theirs', 'probe.after'::regproc::oid::regprocedure, options => '{"after_commit": true, "with_payload": true}')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_unregister_hook', $$SELECT qml_unregister_hook('registered')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '=|true'),
('qml_unregister_hook', $$SELECT qml_unregister_hook('theirs')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', '=42501|true', '=|true'),
('qml_unregister_hook', $$SELECT qml_unregister_hook('nonesuch', true)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', '=42501|false', '=|false'),
('qml_register_middleware', $$SELECT qml_register_middleware('new', 'probe.wrap')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_register_middleware', $$SELECT qml_register_middleware('registered', 'probe.wrap'::regproc::oid::regprocedure, 7)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'allowed'),
('qml_register_middleware', $$SELECT qml_register_middleware('theirs', 'probe.wrap'::regproc::oid::regprocedure, 7)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('qml_unregister_middleware', $$SELECT qml_unregister_middleware('registered')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '=|true'),
('qml_unregister_middleware', $$SELECT qml_unregister_middleware('theirs')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', '=42501|true', '=|true'),
('qml_unregister_middleware', $$SELECT qml_unregister_middleware('nonesuch', true)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', '=42501|false', '=|false'),
-- outside of a job there is nothing to go on with, which is told to whoever is let in
('qml_next', 'SELECT qml_next()',
	'refused', 'refused', 'refused', 'refused', 'refused', '=55000|55000', '=|55000'),
('qml_tracing', 'SELECT qml_tracing(NULL)',
	'refused', 'refused', 'refused', 'refused', 'refused', '=22004|22004', '=|22004'),
('hook', $$SELECT string_agg(name || ' ' || coalesce(problem, ''), '') FROM qml.hook WHERE name = 'registered'$$,
	'refused', 'refused', 'refused', '=registered |registered ', '=registered |registered ', '=registered |registered ', '=|registered '),
('middleware', $$SELECT string_agg(name || ' ' || coalesce(problem, ''), '') FROM qml.middleware WHERE name = 'registered'$$,
	'refused', 'refused', 'refused', '=registered |registered ', '=registered |registered ', '=registered |registered ', '=|registered '),
('hook_problem', $$SELECT qml.hook_problem('registered') IS NULL$$,
	'refused', 'refused', 'refused', '=true|true', '=true|true', '=true|true', '=|true'),
-- What a hook said may be about any queue; a hook of a role is that role's.
('hook', $$SELECT coalesce(string_agg(last_error, ''), 'none') FROM qml.hook$$,
	'refused', 'refused', 'refused', '=none|error', '=none|error', '=none|error', '=|error'),
('hook_access', $$SELECT qml.hook_access('t_other', false)$$,
	'refused', 'refused', 'refused', '=false|true', '=false|true', '=false|true', '=|true'),
('hook_access', $$SELECT qml.hook_access('t_other', true)$$,
	'refused', 'refused', 'refused', '=false|false', '=false|false', '=false|false', '=|true'),
('hook_access', $$SELECT qml.hook_access(current_user::text::regrole, true)$$,
	'refused', 'refused', 'refused', '=false|false', '=false|false', '=false|true', '=|true'),
('middleware_problem', $$SELECT qml.middleware_problem('registered') IS NULL$$,
	'refused', 'refused', 'refused', '=true|true', '=true|true', '=true|true', '=|true'),
-- waiting: qml is not preloaded here, which is told to whoever is let in
('qml_wait', 'CALL qml_wait()',
	'refused', 'refused', 'refused', '=55000|55000', 'refused', '=55000|55000', '=|55000'),
('qml_wait_for', 'CALL qml_wait_for($enqueued)',
	'refused', 'refused', '=55000|55000', '=55000|55000', '=55000|55000', '=55000|55000', '=|55000'),
('qml_watch', 'CALL qml_watch()',
	'refused', 'refused', 'refused', 'refused', '=55000|55000', '=55000|55000', '=|55000'),
-- inside a job: none of these runs one
('qml_current_job', 'SELECT qml_current_job() IS NULL',
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '=|true'),
('qml_progress', $$SELECT qml_progress('1')$$,
	'refused', 'refused', 'refused', '=55000|55000', 'refused', '=55000|55000', '=|55000'),
('qml_retry_later', $$SELECT qml_retry_later('1 s')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '=|55000'),
('qml_discard', 'SELECT qml_discard()',
	'refused', 'refused', 'refused', '=55000|55000', 'refused', '=55000|55000', '=|55000'),
-- rights
('qml_grant', $$SELECT qml_grant('t_nobody', 'work', $queue)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'allowed'),
('qml_grant', $$SELECT qml_grant(current_user::text::regrole, 'admin')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'allowed'),
('qml_revoke', $$SELECT qml_revoke('t_other', 'enqueue', $queue)$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'allowed'),
('qml_drop_role_objects', $$SELECT qml_drop_role_objects('t_nobody')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'allowed'),
('qml_drop_role_objects', 'SELECT qml_drop_role_objects(current_user::text::regrole)',
	'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed', 'allowed'),
-- reading
('qml_job', $$SELECT coalesce((SELECT probe.sight(j) FROM qml_job($enqueued) j), 'nothing')$$,
	'refused', 'refused', 'full mine', 'full granted', 'full granted/outline', 'full granted/outline', 'full'),
('qml_job', $$SELECT coalesce((SELECT probe.sight(j) FROM qml_job($processing) j), 'nothing')$$,
	'refused', 'refused', 'full mine', 'full granted', 'full granted/outline', 'full granted/outline', 'full'),
('qml_job', $$SELECT coalesce((SELECT probe.sight(j) FROM qml_job($awaiting_retry) j), 'nothing')$$,
	'refused', 'refused', 'full mine', 'full granted', 'full granted/outline', 'full granted/outline', 'full'),
('qml_job', $$SELECT coalesce((SELECT probe.sight(j) FROM qml_job($failed) j), 'nothing')$$,
	'refused', 'refused', 'full mine', 'full granted', 'full granted/outline', 'full granted/outline', 'full'),
('qml_job', $$SELECT coalesce((SELECT probe.sight(j) FROM qml_job($succeeded) j), 'nothing')$$,
	'refused', 'refused', 'full mine', 'full granted', 'full granted/outline', 'full granted/outline', 'full'),
('qml_job', $$SELECT coalesce((SELECT probe.sight(j) FROM qml_job(gen_random_uuid()) j), 'nothing')$$,
	'refused', 'refused', 'nothing', 'nothing', 'nothing', 'nothing', 'nothing'),
('qml_search', $$SELECT coalesce((SELECT probe.sight(j) FROM qml_search('id:' || $processing) j), 'nothing')$$,
	'refused', 'refused', 'refused', 'refused', 'full granted/outline', 'full granted/outline', 'full'),
('qml_search', $$SELECT coalesce((SELECT probe.sight(j) FROM qml_search('id:' || $failed) j), 'nothing')$$,
	'refused', 'refused', 'refused', 'refused', 'full granted/outline', 'full granted/outline', 'full'),
('qml_search', $$SELECT string_agg(DISTINCT queue, ' ' ORDER BY queue) FROM qml_search('', 1000)$$,
	'refused', 'refused', 'refused', 'refused', '=bystander foreign own|bystander foreign own',
	'=bystander foreign own|bystander foreign own', '=|bystander foreign own'),
('qml_counts', 'SELECT sum(count) > 0 FROM qml_counts()',
	'refused', 'refused', 'refused', 'refused', 'allowed', 'allowed', 'allowed'),
('qml_explain', $$SELECT reason <> 'no such job' FROM qml_explain($enqueued) LIMIT 1$$,
	'refused', 'refused', 'refused', 'refused', '=true|true', '=true|true', '=|true'),
('qml_explain', $$SELECT coalesce((SELECT CASE WHEN e.detail LIKE '%secret%' THEN 'full' ELSE 'outline' END FROM qml_explain($failed) e WHERE e.reason = 'failed'), 'nothing')$$,
	'refused', 'refused', 'refused', 'refused', 'full granted/outline', 'full granted/outline', 'full'),
('qml_explain', $$SELECT coalesce((SELECT CASE WHEN e.detail LIKE '%secret%' THEN 'full' ELSE 'outline' END FROM qml_explain($awaiting_retry) e WHERE e.reason IN ('waits for its retry', 'due but not ready')), 'nothing')$$,
	'refused', 'refused', 'refused', 'refused', 'full granted/outline', 'full granted/outline', 'full'),
('qml_explain', 'SELECT reason FROM qml_explain(gen_random_uuid())',
	'refused', 'refused', 'refused', 'refused', '=no such job|no such job', '=no such job|no such job', '=|no such job'),
('qml_explain_queue', 'SELECT count(*) > 0 FROM qml_explain_queue($queue)',
	'refused', 'refused', 'refused', 'refused', 'allowed', 'allowed', 'allowed'),
('qml_status', 'SELECT count(*) > 0 FROM qml_status()',
	'refused', 'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed'),
('qml_status', $$SELECT count(*) > 0 FROM qml_status() WHERE check_name = 'vacuum'$$,
	'refused', 'refused', 'refused', '=false|false', '=false|false', '=false|true', '=|true'),
('qml_queue_depth', 'SELECT qml_queue_depth($queue)',
	'refused', 'refused', 'granted', 'granted', 'granted', 'granted', 'allowed'),
('qml_queue_depth', 'SELECT qml_queue_depth($new, true)',
	'refused', 'refused', 'granted', 'granted', 'granted', 'granted', 'allowed'),
('qml_queue_counts', $$SELECT string_agg(DISTINCT queue, ' ' ORDER BY queue) FROM qml_queue_counts()$$,
	'refused', 'refused', 'refused', 'refused', '=bystander foreign own|bystander foreign own',
	'=bystander foreign own|bystander foreign own', '=|bystander foreign own'),
('qml_stats', 'SELECT count(*) FROM qml_stats()',
	'refused', 'refused', 'refused', 'refused', 'allowed', 'allowed', 'allowed'),
('qml_stats', $$SELECT count(*) FROM qml_stats('1 hour', $queue)$$,
	'refused', 'refused', 'refused', 'refused', 'granted', 'granted', 'allowed'),
('qml_stats', $$SELECT string_agg(DISTINCT queue, ' ' ORDER BY queue) FROM qml_stats()$$,
	'refused', 'refused', 'refused', 'refused', '=own|bystander foreign own', '=own|bystander foreign own', '=|bystander foreign own'),
('qml_metrics', $$SELECT string_agg(DISTINCT m[1], ' ' ORDER BY m[1]) FROM regexp_matches(qml_metrics(), 'qml_jobs.queue="(own|foreign|bystander)"', 'g') m$$,
	'refused', 'refused', 'refused', 'refused', '=own|bystander foreign own', '=own|bystander foreign own', '=|bystander foreign own'),
('qml_mark', $$SELECT qml_mark('m') > '2000-01-01'$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('stats_minute', 'SELECT count(*) FROM qml.stats_minute',
	'refused', 'refused', 'refused', 'refused', 'allowed', 'allowed', 'allowed'),
('mark', 'SELECT count(*) FROM qml.mark',
	'refused', 'refused', 'refused', 'refused', 'allowed', 'allowed', 'allowed'),
('alert', $$SELECT coalesce(string_agg(coalesce(queue, kind), ' ' ORDER BY coalesce(queue, kind)), '') FROM qml.alert$$,
	'refused', 'refused', 'refused', 'refused', '=own|dead_servers foreign own scheduler', '=own|dead_servers foreign own scheduler', '=|dead_servers foreign own scheduler'),
('scheduler_alert', 'SELECT count(*) FROM qml.scheduler_alert()',
	'refused', 'refused', 'refused', 'refused', '=0|1', '=0|1', '=|1'),
('stats_access', 'SELECT qml.stats_access(0)',
	'refused', 'refused', 'refused', 'refused', '=false|true', '=false|true', '=|true'),
('stats_quantile', $$SELECT qml.stats_quantile('', 0.5) IS NULL$$,
	'refused', 'refused', 'refused', 'refused', '=true|true', '=true|true', '=|true'),
('job', 'SELECT probe.sight(j) FROM qml.job j WHERE id = $processing',
	'refused', 'refused', 'full mine', 'full granted', 'full granted/outline', 'full granted/outline', 'full'),
('job', 'SELECT probe.sight(j) FROM qml.job j WHERE id = $awaiting_retry',
	'refused', 'refused', 'full mine', 'full granted', 'full granted/outline', 'full granted/outline', 'full'),
('job', 'SELECT probe.sight(j) FROM qml.job j WHERE id = $failed',
	'refused', 'refused', 'full mine', 'full granted', 'full granted/outline', 'full granted/outline', 'full'),
('job', 'SELECT probe.sight(j) FROM qml.job j WHERE id = $succeeded',
	'refused', 'refused', 'full mine', 'full granted', 'full granted/outline', 'full granted/outline', 'full'),
('job', $$SELECT coalesce(string_agg(DISTINCT queue, ' ' ORDER BY queue), '') FROM qml.job$$,
	'refused', 'refused', '=own|foreign own', '=own|bystander foreign own', '=bystander foreign own|bystander foreign own',
	'=bystander foreign own|bystander foreign own', '=|bystander foreign own'),
('job_access', $$SELECT qml.job_access(q, 't_other') FROM (VALUES (1), (2), (3)) v (q)$$,
	'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed', 'allowed'),
('job_document', $$SELECT qml.job_document(q, 'm', 't_other', 'payload', '1') FROM (VALUES (1), (2), (3)) v (q)$$,
	'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed', 'allowed'),
('job_text', $$SELECT qml.job_text(q, 'm', 't_other', 'error', 'x') FROM (VALUES (1), (2), (3)) v (q)$$,
	'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed', 'allowed'),
('queue_access', 'SELECT qml.queue_access($queue)',
	'refused', 'refused', '=held', '=held', '=true|true', '=true|true', '=|true'),
('queue', $$SELECT coalesce(string_agg(name, ' ' ORDER BY name), '') FROM qml.queue WHERE name NOT LIKE '%-empty'$$,
	'refused', 'refused', '=own|bystander foreign own', '=own|bystander foreign own',
	'=bystander foreign own|bystander foreign own', '=bystander foreign own|bystander foreign own',
	'=|bystander foreign own'),
('qml_peek', $$SELECT count(*) > 0 FROM qml_peek($queue, 10000)$$,
	'refused', 'refused', 'refused', 'refused', 'granted', 'granted', 'allowed'),
('qml_peek', $$SELECT count(*) FROM qml_peek(ARRAY[$new])$$,
	'refused', 'refused', 'refused', 'refused', 'granted', 'granted', 'allowed'),
('qml_peek', $$SELECT string_agg(DISTINCT queue || ' ' || probe.sight(j), ', ' ORDER BY queue || ' ' || probe.sight(j)) FROM qml_peek(lim => 10000) j$$,
	'refused', 'refused', 'refused', 'refused', '=own full|bystander full, foreign full, own full',
	'=own full|bystander full, foreign full, own full', '=|bystander full, foreign full, own full'),
('pause', 'SELECT count(*) FROM qml.pause',
	'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed', 'allowed'),
('audit', 'SELECT count(*) > 0 FROM qml.audit',
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('may_read', $$SELECT qml.may_read('audit')$$,
	'refused', 'refused', 'refused', 'refused', 'refused', 'everywhere', 'allowed'),
('recent', $$SELECT CASE count(*) FILTER (WHERE queue <> 'own') WHEN 0 THEN 'own' ELSE 'more' END FROM qml.recent$$,
	'refused', 'refused', '=own|more', '=own|more', '=more|more', '=more|more', '=|more'),
('recent', 'SELECT count(*) <= 50 FROM qml.recent',
	'refused', 'refused', '=true|true', '=true|true', '=true|true', '=true|true', '=|true'),
('one_line', $$SELECT qml.one_line('some text', 6)$$,
	'refused', 'refused', '=som...|som...', '=som...|som...', '=som...|som...', '=som...|som...', '=|som...'),
('brief', $$SELECT qml.brief('90 s')$$,
	'refused', 'refused', '=1min|1min', '=1min|1min', '=1min|1min', '=1min|1min', '=|1min'),
('lock', 'SELECT count(*) FROM qml.lock',
	'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed', 'allowed'),
('recurring', 'SELECT probe.sight(r) FROM qml.recurring r WHERE id = $recurring',
	'refused', 'refused', 'full mine', 'full granted', 'full granted/outline', 'full granted/outline', 'full'),
('recurring', $$SELECT coalesce(string_agg(DISTINCT queue, ' ' ORDER BY queue), '') FROM qml.recurring$$,
	'refused', 'refused', '=own|foreign own', '=own|foreign own', '=foreign own|foreign own', '=foreign own|foreign own', '=|foreign own'),
('recurring_tick', $$SELECT CASE count(*) WHEN 0 THEN 'nothing' ELSE 'full' END FROM qml.recurring_tick WHERE schedule = $recurring$$,
	'refused', 'refused', 'full mine', 'full granted', '=full|full', '=full|full', 'full'),
('next_runs', $$SELECT cardinality(qml.next_runs('@yearly', 'UTC', NULL, '2000-01-01', true)) = 5$$,
	'refused', 'refused', '=true|true', '=true|true', '=true|true', '=true|true', '=|true'),
('recurring_access', $$SELECT qml.recurring_access($queue, 't_other') > 1$$,
	'refused', 'refused', '=false|false', '=held', '=held', '=held', '=|true'),
('recurring_access', $$SELECT qml.recurring_access($queue, 't_other') > 0$$,
	'refused', 'refused', '=false|false', '=held', '=true|true', '=true|true', '=|true'),
('recurring_document', $$SELECT qml.recurring_document($queue, 'm', 't_other', 'payload', '1') IS NOT NULL$$,
	'refused', 'refused', '=false|false', '=held', '=held', '=held', '=|true'),
('server', 'SELECT count(*) > 0 FROM qml.server',
	'refused', 'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed'),
('database', 'SELECT count(*) > 0 FROM qml.database',
	'refused', 'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed'),
('background_databases', 'SELECT count(*) FROM qml.background_databases()',
	'refused', 'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed'),
('background_servers', 'SELECT count(*) FROM qml.background_servers()',
	'refused', 'refused', 'refused', 'allowed', 'allowed', 'allowed', 'allowed'),
('is_alive', 'SELECT qml.is_alive(now(), NULL)',
	'refused', 'refused', 'refused', '=true|true', '=true|true', '=true|true', '=|true'),
('may_read', $$SELECT qml.may_read('job')$$,
	'refused', 'refused', '=true|true', '=true|true', '=true|true', '=true|true', '=|true'),
('may_read', $$SELECT qml.may_read('handler')$$,
	'refused', 'refused', 'refused', '=true|true', '=true|true', '=true|true', '=|true'),
('may_read', $$SELECT qml.may_read('live')$$,
	'refused', 'refused', '=42P01|42P01', '=42P01|42P01', '=42P01|42P01', '=42P01|42P01', '=|42P01'),
('may_plan', $$SELECT qml.may_plan('hook')$$,
	'refused', 'refused', 'refused', '=true|true', '=true|true', '=true|true', '=|true'),
('unlogged_jobs', 'SELECT count(*) FROM qml.unlogged_jobs()',
	'refused', 'refused', '=0|0', '=0|0', '=0|0', '=0|0', '=|0'),
('is_admin', 'SELECT qml.is_admin()',
	'refused', 'refused', '=false|false', '=false|false', '=false|false', '=false|true', '=|true'),
('lease_end', $$SELECT qml.lease_end($processing, 1, '2000-01-01') = '2000-01-01'$$,
	'refused', 'refused', '=true|true', '=true|true', '=true|true', '=true|true', '=|true'),
('retries_left', $$SELECT qml.retries_left(0, 'm', 'pg_monitor', 2, 1)$$,
	'refused', 'refused', '=0|0', '=0|0', '=0|0', '=0|0', '=|0'),
('role_problem', $$SELECT qml.role_problem('t_nobody', false)$$,
	'refused', 'refused', '=the role, "t_nobody", has lost it by DROP OWNED|the role, "t_nobody", has lost it by DROP OWNED',
	'=the role, "t_nobody", has lost it by DROP OWNED|the role, "t_nobody", has lost it by DROP OWNED', '=the role, "t_nobody", has lost it by DROP OWNED|the role, "t_nobody", has lost it by DROP OWNED',
	'=the role, "t_nobody", has lost it by DROP OWNED|the role, "t_nobody", has lost it by DROP OWNED', '=|the role, "t_nobody", has lost it by DROP OWNED'),
('acl', $$SELECT bool_and(pg_has_role(grantee, 'usage')) || ' ' || (count(*) > 0) FROM qml.acl$$,
	'refused', 'refused', '=true true|true true', '=true true|true true', '=true true|true true', '=true true|false true', 'allowed'),
-- only triggers call it, and calling it so is an error for whoever is let in
('invalidate', 'SELECT qml.invalidate()',
	'refused', '=39P01', 'refused', 'refused', 'refused', 'refused', '=|39P01'),
('note_sql', 'SELECT qml.note_sql()',
	'refused', '=39P01', 'refused', 'refused', 'refused', 'refused', '=|39P01'),
-- indexes call these as the owner of the tables, who may be another one than that of the functions
('search_order', $$SELECT qml.search_order('00000000-0000-0000-0000-000000000000', '2000-01-01') > 0$$,
	'refused', '=true', '=true|true', '=true|true', '=true|true', '=true|true', '=|true'),
('search_key', $$SELECT qml.search_key(1, 'm') > 0$$,
	'refused', '=true', '=true|true', '=true|true', '=true|true', '=true|true', '=|true'),
('search_own', $$SELECT qml.search_own('00000000-0000-0000-0000-000000000000', '2000-01-01')$$,
	'refused', '=true', '=true|true', '=true|true', '=true|true', '=true|true', '=|true'),
('search_slow', $$SELECT qml.search_slow('2000-01-01', '2000-01-02')$$,
	'refused', '=true', '=true|true', '=true|true', '=true|true', '=true|true', '=|true');

-- No table or sequence is open to anybody but the owner, whatever the verb.
INSERT INTO expectation (object, call, nobody, doors, enqueue, work, monitor, admin, owner)
	SELECT c.relname, format(v.sql, c.oid::regclass,
			(SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = LEAST(3, c.relnatts))),
		'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'allowed'
	FROM pg_class c
	JOIN (VALUES
		('r', 'SELECT count(*) FROM %1$s'),
		('r', 'INSERT INTO %1$s SELECT WHERE false'),
		('r', 'UPDATE %1$s SET %2$I = %2$I WHERE false'),
		('r', 'DELETE FROM %1$s WHERE false'),
		('r', 'TRUNCATE %1$s'),
		('r', 'LOCK TABLE %1$s IN ACCESS SHARE MODE'),
		('S', 'SELECT last_value FROM %1$s'),
		('S', 'SELECT nextval(%1$L)'),
		('S', 'SELECT setval(%1$L, (SELECT last_value FROM %1$s))')) v (kind, sql) ON v.kind = CASE c.relkind WHEN 'p' THEN 'r' ELSE c.relkind END
	WHERE c.relnamespace = 'qml'::regnamespace AND c.relkind IN ('r', 'p', 'S');

-- Nor is any view, for writing.
INSERT INTO expectation (object, call, nobody, doors, enqueue, work, monitor, admin, owner)
	SELECT c.relname, format('DELETE FROM %s WHERE false', c.oid::regclass),
		'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'allowed'
	FROM pg_class c
	WHERE c.relnamespace = 'qml'::regnamespace AND c.relkind = 'v' AND pg_relation_is_updatable(c.oid, false) <> 0;

-------------------------------------------------------------------------------
-- The cells
-------------------------------------------------------------------------------

CREATE FUNCTION pg_temp.fill(call text, role name, queue text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	j record;
BEGIN
	call := replace(call, '$queue', quote_literal(queue));
	call := replace(call, '$empty', quote_literal(queue || '-empty'));
	call := replace(call, '$new', quote_literal(queue || '-new'));
	FOR j IN SELECT * FROM job WHERE job.role = fill.role AND job.queue = fill.queue LOOP
		call := replace(call, '$' || j.state, format('%L::uuid', j.id));
	END LOOP;
	call := replace(call, '$recurring', coalesce((SELECT quote_literal(s.id) FROM schedule s WHERE s.role = fill.role AND s.queue = fill.queue), '$'));
	RETURN replace(call, '$server', (SELECT quote_literal(s.id) FROM server s WHERE s.role = fill.role));
END $$;

-- "own-new" is held like "own".
INSERT INTO qml.acl_data (grantee, capability, queue, grantor)
	SELECT grantee, capability, 'own-new', grantor FROM qml.acl_data WHERE queue = 'own';

CREATE TEMP TABLE cell AS
	SELECT e.n, e.object, e.call, a.role, a.capability, a.scope, q.queue, w.whose,
		a.scope = 'all' OR q.queue = 'own' AS held,
		to_jsonb(e) ->> a.capability AS word,
		pg_temp.fill(e.call, CASE w.whose WHEN 'mine' THEN a.role ELSE 't_other' END, q.queue) AS filled
	FROM expectation e
	CROSS JOIN actor a
	CROSS JOIN (VALUES ('own'), ('foreign')) q (queue)
	CROSS JOIN (VALUES ('mine'), ('other')) w (whose)
	WHERE (q.queue = 'own' OR e.call ~ '\$(?!server)')
		AND (w.whose = 'other' OR e.call ~ '\$(enqueued|scheduled|processing|succeeded|failed|awaiting_retry|recurring|server)');

ALTER TABLE cell ADD state text, ADD value text, ADD expected_state text, ADD expected_value text;

-- The word's meaning.  Values are looked at where the word is about one.
UPDATE cell SET (expected_state, expected_value) = (
	SELECT CASE
			WHEN word IN ('refused', 'granted', 'granted seen', 'mine', 'mine seen', 'everywhere', 'mine everywhere', 'mine/everywhere', 'allowed') THEN
				CASE WHEN word = 'allowed' OR (word IN ('granted', 'granted seen') AND held) OR (word IN ('mine', 'mine seen') AND held AND whose = 'mine')
					OR (word = 'everywhere' AND scope = 'all') OR (word = 'mine everywhere' AND whose = 'mine' AND scope = 'all')
					OR (word = 'mine/everywhere' AND (whose = 'mine' OR scope = 'all')) THEN '00000'
					WHEN word IN ('granted seen', 'mine seen') AND NOT held THEN 'QM001' ELSE '42501' END
			WHEN v.value ~ '^[0-9A-Z]{5}$' THEN v.value
			ELSE '00000' END,
		CASE
			WHEN word IN ('nothing', 'full') THEN word
			WHEN word = 'full mine' THEN CASE WHEN held AND whose = 'mine' THEN 'full' ELSE 'nothing' END
			WHEN word = 'full granted' THEN CASE WHEN held THEN 'full' ELSE 'nothing' END
			WHEN word = 'full granted/outline' THEN CASE WHEN held THEN 'full' ELSE 'outline' END
			WHEN word LIKE '=%' AND v.value !~ '^[0-9A-Z]{5}$' THEN v.value END
	FROM (SELECT CASE
		WHEN word = '=held' THEN held::text
		WHEN word LIKE '=%' THEN split_part(substr(word, 2), '|', CASE scope WHEN 'own' THEN 1 ELSE 2 END) END) v (value));

UPDATE cell SET (state, value) = (SELECT t.state, t.value FROM pg_temp.try(cell.role, cell.filled) t);

SELECT is(
	CASE WHEN expected_value IS NULL THEN state ELSE concat_ws(' ', state, coalesce(value, 'nothing')) END,
	CASE WHEN expected_value IS NULL THEN expected_state ELSE concat_ws(' ', expected_state, expected_value) END,
	format('%s: %s%s: %s', role, queue, CASE WHEN whose = 'mine' THEN ' (mine)' END, call))
	FROM cell ORDER BY n, capability, scope DESC, role, queue DESC, whose;

-- Whoever adds an object adds its line.
SELECT set_eq(
	$$SELECT coalesce(p.proname, c.relname)
	  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
	  LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
	  LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
	  WHERE e.extname = 'qml' AND d.deptype = 'e' AND coalesce(p.proname, c.relname) IS NOT NULL
	  UNION SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND relnamespace = 'qml'::regnamespace$$,
	'SELECT DISTINCT object::name FROM expectation', 'the matrix has all functions, tables, views and sequences');
SELECT is_empty($$SELECT * FROM expectation WHERE num_nulls(nobody, doors, enqueue, work, monitor, admin, owner) > 0$$,
	'and a word for every kind of role');
SELECT is_empty($$SELECT role, call FROM cell WHERE filled ~ '\$[a-z]'$$, 'every call was filled in');

-------------------------------------------------------------------------------
-- A tick is enqueued as the owner of its schedule, while he may do so
-------------------------------------------------------------------------------

UPDATE qml.recurring_data SET next_run_at = date_trunc('second', now());
SET LOCAL client_min_messages = error;
SELECT lives_ok('SELECT qml_poll_recurring()', 'all schedules are due');
SET LOCAL client_min_messages = warning;
SELECT is(
	concat_ws(' ', r.last_job IS NOT NULL, r.error IS NULL, j.created_by, j.queue),
	CASE WHEN a.capability = 'owner' OR (a.capability IN ('enqueue', 'admin') AND (a.scope = 'all' OR s.queue = 'own'))
		THEN concat_ws(' ', 't t', s.role, s.queue) ELSE 'f f' END,
	format('%s: a tick of his schedule for queue %s', s.role, s.queue))
	FROM schedule s JOIN qml.recurring_data r ON r.id = s.id LEFT JOIN qml.job j ON j.id = r.last_job
	LEFT JOIN actor a ON a.role = s.role ORDER BY s.role, s.queue;

-------------------------------------------------------------------------------
-- A function in WHERE must not be shown what the view hides
-------------------------------------------------------------------------------

CREATE TABLE probe.leak (reader name DEFAULT current_user, view text, saw text);
GRANT INSERT ON probe.leak TO PUBLIC;
-- Cheaper than anything, so that the planner would love to call it first.
CREATE FUNCTION probe.leak(view text, saw text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
	INSERT INTO probe.leak (view, saw) VALUES (view, saw);
	RETURN true;
END $$;
CREATE OPERATOR probe.<~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = probe.leak);
INSERT INTO qml.lock_data (resource, owner, taken_by, fence, acquired_at, expires_at)
	VALUES ('expired', 'somebody', current_user::regrole, 0, now() - interval '2 hours', now() - interval '1 hour');

CREATE FUNCTION pg_temp.spy(role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	PERFORM FROM qml.job j WHERE probe.leak('job', j.id || ' ' || coalesce(j.payload::text, ''));
	-- Columns that the view shows as they are in the table, which cost nothing.
	PERFORM FROM qml.job j WHERE probe.leak('job', j.id || ' ' || j.method);
	PERFORM FROM qml.job j WHERE 'job' OPERATOR(probe.<~~) (j.id || ' ' || coalesce(j.error, ''));
	PERFORM FROM qml.job j JOIN qml.queue q ON q.name = j.queue AND probe.leak('job', j.id || ' ' || coalesce(j.metadata::text, ''));
	PERFORM FROM qml.recurring r WHERE probe.leak('recurring', r.id || ': ' || coalesce(r.payload::text, ''));
	PERFORM FROM qml.recurring r WHERE probe.leak('recurring', r.id || ': ' || r.method);
	PERFORM FROM qml.recurring r WHERE 'recurring' OPERATOR(probe.<~~) (r.id || ': ' || coalesce(r.metadata::text, ''));
	PERFORM FROM qml.queue WHERE probe.leak('queue', name);
	PERFORM FROM qml.acl WHERE probe.leak('acl', grantee::text);
	PERFORM FROM qml.recent r WHERE probe.leak('recent', r.id || ' ' || r.method || ' ' || coalesce(r.error, ''));
	PERFORM FROM qml.lock WHERE probe.leak('lock', resource);
	PERFORM FROM qml.pause WHERE probe.leak('pause', queue);
	RESET ROLE;
END $$;
DO $$ BEGIN PERFORM pg_temp.spy(role) FROM actor WHERE scope = 'own' AND capability NOT IN ('nobody', 'doors'); END $$;

CREATE TEMP VIEW spied AS
	SELECT l.reader, a.capability, l.view, j.queue, j.role AS owner, j.role = l.reader AS mine, l.saw LIKE '%secret%' AS contents, l.saw
	FROM probe.leak l JOIN actor a ON a.role = l.reader
	LEFT JOIN (
		SELECT 'job' AS view, id::text, role, queue FROM job
		UNION ALL SELECT 'job', last_job::text, s.role, s.queue FROM schedule s JOIN qml.recurring_data USING (id)
		UNION ALL SELECT 'recent', id::text, role, queue FROM job
		UNION ALL SELECT 'recent', last_job::text, s.role, s.queue FROM schedule s JOIN qml.recurring_data USING (id)
		UNION ALL SELECT 'recurring', id || ':', role, queue FROM schedule) j
		ON j.view = l.view AND l.saw LIKE j.id || ' %';

SELECT isnt_empty(format($$SELECT FROM spied WHERE capability = 'enqueue' AND view = %L AND contents$$, view), 'the spy sees what it may in ' || view)
	FROM unnest(ARRAY['job', 'recurring']) view;
SELECT isnt_empty(format($$SELECT FROM spied WHERE capability = 'monitor' AND view = %L AND queue = 'foreign'$$, view), 'outlines too')
	FROM unnest(ARRAY['job', 'recurring']) view;
SELECT pg_temp.ends('t_doors', format('SELECT FROM qml.%s v WHERE probe.leak(%L, v::text)', view, view), '42501', 'without a capability it is not called: ' || view)
	FROM unnest(ARRAY['job', 'recurring', 'queue', 'acl', 'lock', 'handler', 'hook', 'middleware', 'server', 'database', 'recurring_tick', 'pause', 'audit', 'stats_minute', 'mark', 'alert', 'recent', 'bulk', 'dead_letter']) view;
SELECT is_empty($$SELECT * FROM spied WHERE capability = 'doors'$$, 'nor shown anything');
SELECT is_empty($$SELECT * FROM spied WHERE capability = 'enqueue' AND view IN ('job', 'recurring', 'recent') AND (mine AND queue = 'own') IS NOT TRUE$$,
	'who enqueues is not shown the jobs and schedules of others');
SELECT is_empty($$SELECT * FROM spied WHERE capability = 'work' AND view IN ('job', 'recurring', 'recent') AND queue IS DISTINCT FROM 'own'$$,
	'a worker is not shown jobs and schedules of other queues');
SELECT is_empty($$SELECT * FROM spied WHERE view IN ('job', 'recurring', 'recent') AND queue IS DISTINCT FROM 'own' AND contents$$,
	'nobody is shown contents of a foreign queue');
SELECT is_empty($$SELECT * FROM spied WHERE capability IN ('enqueue', 'work') AND view = 'queue' AND saw NOT LIKE 'own%'$$,
	'foreign queues stay hidden');
SELECT is_empty($$SELECT * FROM spied WHERE view = 'acl' AND saw <> reader$$, 'capabilities of others stay hidden');
SELECT is_empty($$SELECT * FROM spied WHERE view = 'lock' AND saw = 'expired'$$, 'an expired lock stays hidden');

SELECT * FROM finish();
ROLLBACK;
