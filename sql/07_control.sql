--
-- Changing jobs by hand, and what each call leaves in the job.
--

-- Delete: with or without a reason, once; a running one loses its claim
SELECT t.reset();
SELECT t.make(t.id(n::int), s) IS NOT NULL AS claimed
FROM unnest(enum_range(NULL::qml.job_state)::text[]) WITH ORDINALITY u (s, n) WHERE s <> 'deleted' ORDER BY s = 'enqueued';
SELECT t.n(id), qml_delete(id, 'no longer wanted ' || t.n(id)) FROM qml.job ORDER BY id;
SELECT t.n(id), state, reason, attempt, worker, error, run_at, lease_expires_at, finished_at IS NOT NULL AS finished
FROM qml.job ORDER BY id;
SELECT qml_delete(t.id(1), 'again');
SELECT reason FROM qml_job(t.id(1));
SELECT t.code('SELECT qml_succeed(t.id(3), 1)');
SELECT t.try('SELECT qml_retry(t.id(1))');
SELECT qml_delete(t.id(2)) IS NOT NULL, (SELECT reason FROM qml_job(t.id(2)));
SELECT count(*) FROM qml.live;
-- Deleted jobs are kept as long as succeeded ones; one that had finished keeps its time
SELECT t.reset();
SELECT t.make(t.id(1), 'enqueued'), qml_delete(t.id(1));
SELECT t.make(t.id(2), 'failed', 'other');
SELECT expires_at AS failed_until FROM qml_job(t.id(2)) \gset
SELECT qml_delete(t.id(2), 'hopeless');
SELECT t.n(id), t.ttl(finished_at, expires_at) = interval '1 day' AS a_day, expires_at = :'failed_until' AS as_before, error, reason
FROM qml.job ORDER BY id;

-- Retry
SELECT t.reset();
SELECT t.make(t.id(n::int), s) IS NOT NULL AS claimed
FROM unnest(enum_range(NULL::qml.job_state)::text[]) WITH ORDINALITY u (s, n) ORDER BY s = 'enqueued';
SELECT t.n(id), t.try(format('SELECT qml_retry(%L)', id)) FROM qml.job ORDER BY id;
SELECT t.n(id), state, attempt, run_at FROM qml.job ORDER BY id;
-- Order is by age as before: a retried job is not a new one
SELECT t.n(id) FROM qml_fetch(batch => 10);

-- Schedule
SELECT t.reset();
SELECT t.make(t.id(1), 'scheduled');
SELECT qml_reschedule(t.id(1), '2100-01-01 00:00 UTC', 'later');
SELECT qml_reschedule(t.id(1), '2100-01-01 00:00 UTC');
SELECT state, run_at AT TIME ZONE 'UTC' AS run_at, reason FROM qml_job(t.id(1));
SELECT qml_reschedule(t.id(1), '2100-01-02 00:00 UTC');
SELECT state, run_at AT TIME ZONE 'UTC' AS run_at, reason FROM qml_job(t.id(1));
SELECT t.make(t.id(2), 'enqueued');
SELECT qml_reschedule(t.id(2), '2000-01-01 00:00 UTC', 'so that it is due');
SELECT state, run_at AT TIME ZONE 'UTC' AS run_at, reason FROM qml_job(t.id(2));
SELECT qml_promote_due();
SELECT state, run_at, reason FROM qml_job(t.id(2));

-- qml_set_state: returns the job as it is then
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(1), queue => 'q') IS NOT NULL;
SELECT state, run_at AT TIME ZONE 'UTC' AS run_at, reason
FROM qml_set_state(t.id(1), 'scheduled', '{"run_at": "2100-01-01 00:00+00", "reason": "by hand"}');
SELECT state, run_at, reason FROM qml_set_state(t.id(1), 'enqueued', '{"reason": "now"}');
SELECT state, attempt, worker, lease_expires_at - started_at AS lease
FROM qml_set_state(t.id(1), 'processing', '{"worker": "somebody", "lease": "7 min"}');
SELECT state, run_at AT TIME ZONE 'UTC' AS run_at, error, errors -> -1 ->> 'error_type' AS error_type,
	errors -> -1 ->> 'stack_trace' AS stack_trace, errors -> -1 ->> 'worker' AS worker
FROM qml_set_state(t.id(1), 'awaiting_retry',
	'{"run_at": "2100-01-01 00:00+00", "error": "e1", "error_type": "et", "stack_trace": "st"}');
SELECT state, run_at FROM qml_set_state(t.id(1), 'enqueued');
SELECT state, attempt, worker = current_user AS worker, lease_expires_at - started_at AS lease
FROM qml_set_state(t.id(1), 'processing');
SELECT state, finished_at IS NOT NULL AS finished, jsonb_array_length(errors) AS errors, error
FROM qml_set_state(t.id(1), 'failed', '{"error": "e2"}');
SELECT state, finished_at, expires_at, run_at BETWEEN now() AND clock_timestamp() AS due_now
FROM qml_set_state(t.id(1), 'awaiting_retry');
SELECT qml_promote_due();
SELECT attempt FROM qml_fetch();
SELECT state, result, finished_at IS NOT NULL AS finished FROM qml_set_state(t.id(1), 'succeeded', '{"result": {"a": [1, "x", null]}}');
SELECT state, reason, result FROM qml_set_state(t.id(1), 'deleted', '{"reason": "done with it"}');
SELECT (qml_job(t.id(1))).state;
-- By the same rules of retries: a failed job has all of them again
SELECT qml_enqueue('m', id => t.id(2), queue => 'q', max_retries => 1) IS NOT NULL;
SELECT state FROM qml_set_state(t.id(2), 'failed');
SELECT state, attempt FROM qml_set_state(t.id(2), 'enqueued');
SELECT qml_fail(t.id(2), attempt, 'e') FROM qml_fetch();
SELECT state FROM qml_set_state(t.id(2), 'enqueued');
SELECT qml_fail(t.id(2), attempt, 'e') FROM qml_fetch();
-- Where the result is a plain value
SELECT qml_enqueue('m', id => t.id(3), queue => 'q') IS NOT NULL;
SELECT state FROM qml_set_state(t.id(3), 'processing');
SELECT result FROM qml_set_state(t.id(3), 'succeeded', '{"result": 7.50}');

-- Options of each state: unknown ones and bad values are refused by name, and nothing changes
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(1), queue => 'q') IS NOT NULL;
SELECT t.everything() AS before \gset
\pset format unaligned
\pset tuples_only on
SELECT s, t.try(format('SELECT qml_set_state(t.id(1), %L, ''{"nosuch": 1}'')', s)) FROM unnest(enum_range(NULL::qml.job_state)) s;
SELECT s, o, t.try(format('SELECT qml_set_state(t.id(1), %L, %L)', s, o))
FROM (VALUES (1, 'scheduled', '{"run_at": "yesterdayish"}'), (2, 'scheduled', '{"run_at": "infinity"}'), (3, 'scheduled', '{"run_at": 5}'),
	(4, 'scheduled', '{"reason": 5}'), (5, 'scheduled', '{"worker": "w"}'),
	(7, 'processing', '{"lease": "0"}'), (8, 'processing', '{"lease": "-1 s"}'),
	(9, 'processing', '{"lease": "4000 days"}'), (10, 'processing', '{"lease": true}'), (11, 'processing', '{"lease": "soon"}'),
	(12, 'failed', '{"error": {}}'), (13, 'failed', '{"error": "e", "error_type": []}'),
	(14, 'failed', '{"error": "e", "stack_trace": 1}'), (15, 'deleted', '{"reason": ["x"]}'),
	(16, 'deleted', '[]'), (17, 'deleted', '"reason"')) v (n, s, o) ORDER BY n;
SELECT t.code('SELECT qml_set_state(t.id(1), ''processing'', jsonb_build_object(''worker'', repeat(''x'', 256)))');
SELECT t.code('SELECT qml_set_state(t.id(1), ''processing'', ''{"worker": 1}'')');
-- A worker's name is a name here too: not empty, without control characters, counted in characters
SELECT t.code('SELECT qml_set_state(t.id(1), ''processing'', ''{"worker": ""}'')');
SELECT t.code('SELECT qml_set_state(t.id(1), ''processing'', ''{"worker": "a\nb"}'')');
\pset format aligned
\pset tuples_only off
SELECT t.everything() = :'before' AS unchanged;
SELECT length(worker) FROM qml_set_state(t.id(1), 'processing', jsonb_build_object('worker', repeat('ü', 255)));
SELECT qml_release(t.id(1), 1);
-- An option that is null says nothing
SELECT state, reason, run_at IS NOT NULL AS run_at FROM qml_set_state(t.id(1), 'scheduled', '{"reason": null, "run_at": null}');

-- Reading
SELECT t.reset();
-- An unknown job is no row, and none of NULLs
SELECT count(*) FROM qml_job(t.id(1));
SELECT (qml_job(t.id(1))).id;
SELECT (SELECT state FROM qml_job(t.id(1))) IS NULL AS unknown;
SELECT * FROM qml_counts();
SELECT * FROM qml_queue_counts();
SELECT count(t.make(t.id(n::int), s)) FROM unnest(enum_range(NULL::qml.job_state)::text[]) WITH ORDINALITY u (s, n) WHERE s <> 'enqueued';
SELECT qml_enqueue('m', queue => 'b', id => t.id(20 + n)) IS NOT NULL FROM generate_series(1, 3) n;
SELECT * FROM qml_counts();
SELECT * FROM qml_queue_counts();
SELECT bool_and(f::text = j::text) AS same, count(*) FROM qml.job j, qml_job(j.id) f;

-- How many jobs of a queue are ready: not those that are delayed, in work or finished
SELECT t.reset();
SELECT count(t.make(t.id(n::int), s, 'deep')) FROM unnest(enum_range(NULL::qml.job_state)::text[]) WITH ORDINALITY u (s, n) WHERE s <> 'enqueued';
SELECT qml_queue_depth('deep');
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[300]), 'deep', priority => 3);
SELECT qml_enqueue('m', queue => 'other') IS NOT NULL;
SELECT qml_queue_depth('deep'), qml_queue_depth('other');
SELECT count(*) FROM qml_fetch('w', '{deep}', 100);
SELECT qml_queue_depth('deep');
-- Paused ones count
SELECT qml_pause_queue('deep'), qml_queue_depth('deep');
-- For each capability on the queue, and nobody else
CREATE ROLE regress_qml_deep;
GRANT USAGE ON SCHEMA t TO regress_qml_deep;
CREATE FUNCTION t.depth_as() RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text;
BEGIN
	SET LOCAL ROLE regress_qml_deep;
	answer := t.code('SELECT qml_queue_depth(''deep'')');
	RESET ROLE;
	RETURN answer;
END $$;
SELECT c, q, qml_grant('regress_qml_deep', c, q) IS NOT NULL AS granted, t.depth_as() AS answer,
	qml_revoke('regress_qml_deep', c, q) IS NOT NULL AS revoked
FROM unnest('{enqueue,work,monitor,admin}'::text[]) c, unnest('{deep,other}'::text[]) q;
DROP FUNCTION t.depth_as;
REVOKE USAGE ON SCHEMA t FROM regress_qml_deep;
DROP OWNED BY regress_qml_deep;
DROP ROLE regress_qml_deep;
