--
-- Acknowledgements: each carries the number of its attempt, and counts only
-- while that attempt holds the job.
--
SELECT t.reset();
SELECT t.make(t.id(1), 'processing');
SELECT lease_expires_at AS lease FROM qml_job(t.id(1)) \gset

-- Heartbeat: the lease given, else that of the queue or of the setting, from now on
SELECT qml_heartbeat(t.id(1), 1) > :'lease' AS longer;
SELECT qml_heartbeat(t.id(1), 1, '1 h') AS lease \gset
SELECT lease_expires_at = :'lease' AS same FROM qml_job(t.id(1));
SELECT qml_heartbeat(t.id(1), 1, '1 h') - clock_timestamp() BETWEEN interval '59 min' AND interval '1 h' AS an_hour;
SELECT qml_heartbeat(t.id(1), 1, '1 s') < clock_timestamp() + interval '2 s' AS shorter;
SELECT qml_alter_queue('made', '{"lease": "3 h"}');
SELECT qml_heartbeat(t.id(1), 1) - clock_timestamp() BETWEEN interval '179 min' AND interval '3 h' AS of_the_queue;
SELECT state, attempt, worker FROM qml_job(t.id(1));

-- Progress: what was said last
SELECT qml_progress(t.id(1), 1, '{"done": 1}');
SELECT qml_progress(t.id(1), 1, '0.5');
SELECT progress FROM qml_job(t.id(1));
SELECT qml_progress(t.id(1), 1, 'null');
SELECT progress FROM qml_job(t.id(1));

-- Another attempt: refused by each, and nothing changes
SELECT to_jsonb(qml_job(t.id(1)))::text AS before \gset
SELECT a.attempt, f.what, t.code(format(f.sql, t.id(1), a.attempt))
FROM unnest(ARRAY[0, 2, -1, 2147483647, -2147483648]) WITH ORDINALITY a (attempt, n),
	(VALUES (1, 'heartbeat', 'SELECT qml_heartbeat(%L, %s)'), (2, 'progress', 'SELECT qml_progress(%L, %s, ''1'')'),
		(3, 'succeed', 'SELECT qml_succeed(%L, %s)'), (4, 'fail', 'SELECT qml_fail(%L, %s, ''e'')'),
		(5, 'release', 'SELECT qml_release(%L, %s)'),
		(6, 'succeed_many', 'SELECT qml_succeed_many(ARRAY[%L]::uuid[], ARRAY[%s])'),
		(7, 'heartbeat_many', 'SELECT 1 / count(*) FROM qml_heartbeat_many(ARRAY[%L]::uuid[], ARRAY[%s])'),
		(8, 'release for later', 'SELECT qml_release(%L, %s, now() + interval ''1 h'', ''r'')'),
		(9, 'discard', 'SELECT qml_discard(%L, %s, ''r'')'),
		(10, 'fail_many', 'SELECT qml_fail_many(ARRAY[%L]::uuid[], ARRAY[%s], ARRAY[''e''])'),
		(11, 'release_many', 'SELECT qml_release_many(ARRAY[%L]::uuid[], ARRAY[%s])')) f (n, what, sql)
ORDER BY a.n, f.n;
SELECT to_jsonb(qml_job(t.id(1)))::text = :'before' AS unchanged;
SELECT t.try('SELECT qml_succeed(t.id(1), 2)');

-- Unknown jobs
SELECT f.what, t.code(format(f.sql, t.id(99), 1))
FROM (VALUES (1, 'heartbeat', 'SELECT qml_heartbeat(%L, %s)'), (2, 'progress', 'SELECT qml_progress(%L, %s, ''1'')'),
	(3, 'succeed', 'SELECT qml_succeed(%L, %s)'), (4, 'fail', 'SELECT qml_fail(%L, %s, ''e'')'),
	(5, 'release', 'SELECT qml_release(%L, %s)'),
	(6, 'succeed_many', 'SELECT qml_succeed_many(ARRAY[%L]::uuid[], ARRAY[%s])'),
	(7, 'delete', 'SELECT qml_delete(%L)'), (8, 'retry', 'SELECT qml_retry(%L)'),
	(9, 'schedule', 'SELECT qml_reschedule(%L, now())'), (10, 'set_state', 'SELECT qml_set_state(%L, ''deleted'')'),
	(11, 'job', 'SELECT qml_job(%L)'), (12, 'discard', 'SELECT qml_discard(%L, %s)'),
	(13, 'fail_many', 'SELECT qml_fail_many(ARRAY[%L]::uuid[], ARRAY[%s], ARRAY[''e''])'),
	(14, 'release_many', 'SELECT qml_release_many(ARRAY[%L]::uuid[], ARRAY[%s])')) f (n, what, sql)
ORDER BY f.n;
SELECT t.try('SELECT qml_succeed(t.id(99), 1)');

-- Succeed, with and without a result; once
SELECT qml_succeed(t.id(1), 1, '{"sum": 3}');
SELECT state, attempt, result, progress, worker, run_at, lease_expires_at, error,
	finished_at BETWEEN started_at AND clock_timestamp() AS finished, t.ttl(finished_at, expires_at) AS kept
FROM qml_job(t.id(1)) \gx
SELECT t.try('SELECT qml_succeed(t.id(1), 1)');
SELECT t.make(t.id(2), 'processing');
SELECT qml_succeed(t.id(2), 1);
SELECT state, result FROM qml_job(t.id(2));

-- Many: accepted ones in the order of the input; stale, unknown and repeated ones passed over
-- (the first of the repeated ones counts)
SELECT count(t.make(t.id(n), 'processing')) FROM generate_series(10, 19) n;
SELECT t.n(id) FROM qml_succeed_many(
	ARRAY[t.id(15), t.id(12), t.id(99), t.id(1), t.id(19), t.id(12), t.id(11), t.id(10)],
	ARRAY[1, 1, 1, 1, 2, 1, 1, 1],
	ARRAY['"15"', '"12"', '"99"', '"1"', '"19"', '"again"', NULL, 'null']::jsonb[]) id;
SELECT t.n(id), state, result FROM qml.job WHERE id >= t.id(10) ORDER BY id;
SELECT count(*) FROM qml_succeed_many('{}', '{}');
SELECT count(*) FROM qml_succeed_many('{}', '{}', '{}');
SELECT count(*) FROM qml_succeed_many(NULL::uuid[] || t.id(13), '{1}');
-- Heartbeats of many: those that are not lost, in the order of the input, also repeated
-- ones; NULL where there is nothing to extend (15 has succeeded, by attempt 1)
SELECT t.make(t.id(20), 'processing'), t.make(t.id(21), 'processing', 'missing'), t.make(t.id(22), 'failed', 'f'), t.make(t.id(23), 'enqueued', 'e'), t.make(t.id(24), 'awaiting_retry', 'a');
UPDATE qml.live SET lease_expires_at = NULL WHERE id = t.id(20);
SELECT t.n(id), lease_expires_at - clock_timestamp() BETWEEN interval '119 min' AND interval '2 h' AS extended FROM qml_heartbeat_many(
	ARRAY[t.id(21), t.id(20), t.id(99), t.id(19), t.id(15), t.id(15), t.id(22), t.id(23), t.id(24), t.id(19), t.id(21)],
	ARRAY[1, 1, 1, 1, 1, 2, 1, 0, 1, 2, 1], '2 h');
-- Without a lease: that of each queue
SELECT qml_alter_queue('missing', '{"lease": "3 h"}');
SELECT t.n(id), date_trunc('h', lease_expires_at - clock_timestamp() + interval '1 min') AS lease FROM qml_heartbeat_many(ARRAY[t.id(19), t.id(21)], ARRAY[1, 1]);
SELECT count(*) FROM qml_heartbeat_many('{}', '{}');
-- The same of one
SELECT qml_heartbeat(t.id(15), 1) IS NULL AS succeeded, qml_heartbeat(t.id(20), 1) IS NULL AS of_session, qml_heartbeat(t.id(21), 1) > now() AS extended;
SELECT t.code('SELECT qml_heartbeat(t.id(15), 2)'), t.code('SELECT qml_heartbeat(t.id(22), 1)'), t.code('SELECT qml_heartbeat(t.id(99), 1)');
-- One that has succeeded and was not kept is not known
SELECT qml_create_queue('gone', '{"succeeded_ttl": 0}'), t.make(t.id(25), 'succeeded', 'gone');
SELECT t.try('SELECT qml_heartbeat(t.id(25), 1)');
SELECT count(*) FROM qml_heartbeat_many(ARRAY[t.id(25)], ARRAY[1]);
-- More than are written at once
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[1000]), 'many');
CREATE TEMP TABLE got AS SELECT id, attempt, n FROM (SELECT id, attempt, row_number() OVER () AS n
	FROM qml_fetch('w', '{many}', 1000)) x;
SELECT count(*), array_agg(d.id) = (SELECT array_agg(id ORDER BY n DESC) FROM got) AS in_order
FROM (SELECT array_agg(id ORDER BY n DESC) AS ids, array_agg(attempt) AS attempts,
	array_agg(to_jsonb(n) ORDER BY n DESC) AS results FROM got) g,
	qml_succeed_many(g.ids, g.attempts, g.results) d (id);
SELECT count(*), bool_and(j.state = 'succeeded' AND j.result = to_jsonb(g.n)) AS right_result
FROM got g JOIN qml.job j USING (id);

-- Jobs of several queues, kept for different times, in one call
SELECT t.reset();
SELECT qml_create_queue('short', '{"succeeded_ttl": "1 h"}'), qml_create_queue('long', '{"succeeded_ttl": "100 days"}'),
	qml_create_queue('never', '{"succeeded_ttl": 0}');
SELECT count(t.make(t.id(n), 'processing', (ARRAY['short', 'long', 'never'])[1 + n % 3])) FROM generate_series(1, 9) n;
SELECT string_agg(t.n(id)::text, ' ') FROM (SELECT array_agg(t.id(n)) AS ids FROM generate_series(1, 9) n) g,
	qml_succeed_many(g.ids, array_fill(1, ARRAY[9])) id;
SELECT queue, count(*), t.ttl(finished_at, expires_at) AS kept FROM qml.job GROUP BY 1, 3 ORDER BY 1;
SELECT count(*) FROM qml.live;

-- A lease that is over is still good until it is reclaimed; then no longer
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(n), queue => 'x') IS NOT NULL FROM generate_series(1, 3) n;
SELECT t.n(id), attempt, lease_expires_at < clock_timestamp() AS over FROM qml_fetch('w', batch => 3, lease => '1 us');
SELECT qml_succeed(t.id(1), 1);
SELECT qml_heartbeat(t.id(2), 1) > now() AS extended;
SELECT qml_reclaim();
SELECT t.try('SELECT qml_succeed(t.id(3), 1)');
SELECT t.n(id), attempt FROM qml_fetch('v', batch => 3);
SELECT t.try('SELECT qml_succeed(t.id(3), 1)');
SELECT qml_succeed(t.id(3), 2);
SELECT t.n(id), state, attempt, worker FROM qml.job ORDER BY id;

-- Release: back at once, the attempt does not count, its number is not used again
SELECT t.reset();
SELECT qml_enqueue('m', max_retries => 1, id => t.id(1)) IS NOT NULL;
SELECT attempt FROM qml_fetch('w');
SELECT qml_release(t.id(1), 1);
SELECT state, attempt, worker, lease_expires_at, run_at, errors FROM qml_job(t.id(1));
SELECT attempt FROM qml_fetch('w');
SELECT t.code('SELECT qml_release(t.id(1), 1)');
SELECT qml_release(t.id(1), 2);
SELECT attempt FROM qml_fetch('w');
SELECT qml_fail(t.id(1), 3, 'first that counts');
SELECT qml_retry(t.id(1));
SELECT attempt FROM qml_fetch('w');
SELECT qml_fail(t.id(1), 4, 'second, the last');
SELECT state, attempt, jsonb_array_length(errors) FROM qml_job(t.id(1));

-- Release for later: the job waits without a claim, and the attempt does not count
SELECT t.reset();
SELECT qml_enqueue('m', max_retries => 0, id => t.id(1)) IS NOT NULL;
SELECT attempt FROM qml_fetch('w');
SELECT qml_release(t.id(1), 1, now() + interval '1 h', 'too many requests');
SELECT state, attempt, tries, worker, lease_expires_at, run_at BETWEEN now() + interval '59 min' AND now() + interval '1 h' AS in_an_hour, reason, errors FROM qml_job(t.id(1));
SELECT count(*) FROM qml_fetch('w');
SELECT t.code('SELECT qml_release(t.id(1), 1)');
UPDATE qml.live SET run_at = now() WHERE id = t.id(1);
SELECT qml_promote_due();
SELECT attempt, tries, reason FROM qml_fetch('w');
-- A time that is over is now; a reason stays until there is another one, and is cut like others
SELECT qml_release(t.id(1), 2, now() - interval '1 h');
SELECT state, run_at, reason FROM qml_job(t.id(1));
SELECT attempt, tries FROM qml_fetch('w');
SELECT qml_release(t.id(1), 3, NULL, repeat('ü', 5000));
SELECT state, octet_length(reason), right(reason, 9) AS end FROM qml_job(t.id(1));
SELECT attempt, tries FROM qml_fetch('w');
-- It can be made ready before its time
SELECT qml_release(t.id(1), 4, '2100-01-01');
SELECT t.code('SELECT qml_reschedule(t.id(1), ''2099-01-01'')');
SELECT qml_retry(t.id(1));
SELECT state, run_at FROM qml_job(t.id(1));
SELECT attempt, tries FROM qml_fetch('w');
-- It has no retry, and did not need one so far
SELECT qml_fail(t.id(1), 5, 'the first that counts');

-- Discard: ends as deleted, with a reason
SELECT t.make(t.id(n), 'processing') FROM generate_series(2, 4) n;
SELECT qml_discard(t.id(2), 1, 'no such customer');
SELECT state, attempt, worker, result, error, reason, finished_at IS NOT NULL AS finished, t.ttl(finished_at, expires_at) AS kept FROM qml_job(t.id(2));
SELECT t.try('SELECT qml_discard(t.id(2), 1)');
SELECT qml_discard(t.id(3), 1);
SELECT state, reason FROM qml_job(t.id(3));
-- Literals lead to the form that is meant: that of one argument is for handlers
SELECT qml_discard('00000000-0000-7000-8000-000000000004', '1');
SELECT sql, t.code(sql) FROM unnest(ARRAY['SELECT qml_discard()', 'SELECT qml_discard(NULL)', 'SELECT qml_discard(''why'')', 'SELECT qml_discard(''00000000-0000-7000-8000-000000000004'')',
	'SELECT qml_discard(reason => ''why'')', 'SELECT qml_discard(id => t.id(4), attempt => 1)', 'SELECT qml_discard(''00000000-0000-7000-8000-000000000004'', 1, ''why'')']) WITH ORDINALITY s (sql, n) ORDER BY n;

-- Failures of many: accepted ones in the order of the input; stale, unknown and repeated ones
-- passed over; each text as qml_fail has it
SELECT t.reset();
SELECT qml_create_queue('none', '{"retry": {"strategy": "none"}}');
SELECT count(t.make(t.id(n), 'processing', CASE n WHEN 5 THEN 'none' ELSE 'made' END)) FROM generate_series(1, 12) n;
SELECT t.n(id) FROM qml_fail_many(
	ARRAY[t.id(5), t.id(2), t.id(99), t.id(9), t.id(2), t.id(9), t.id(1), t.id(3), t.id(9)],
	ARRAY[1, 1, 1, 2, 1, 1, 1, 1, 1],
	ARRAY['fifth', 'second', 'unknown', 'stale', 'again', 'ninth', NULL, '', 'again'],
	ARRAY['A', E'a\tb', 'C', 'D', 'E', NULL, '', repeat('x', 300), 'F'],
	ARRAY['trace 5', NULL, NULL, NULL, NULL, NULL, NULL, repeat('y', 20000), NULL]) id;
-- retry and retry_at are for all of them
SELECT t.n(id) FROM qml_fail_many(ARRAY[t.id(6), t.id(4)], '{1,1}', '{six,four}', retry => false) id;
SELECT t.n(id) FROM qml_fail_many(ARRAY[t.id(7), t.id(8)], '{1,1}', NULL, retry => NULL, retry_at => '2100-01-01') id;
SELECT t.n(id) FROM qml_fail_many(ARRAY[t.id(10)], '{1}', ARRAY[repeat('ü', 5000)], retry_at => 'infinity') id;
SELECT t.n(j.id), state, CASE WHEN run_at = '2100-01-01' THEN 'as told' WHEN run_at > now() THEN 'backoff' END AS retry,
	left(e ->> 'error', 20) AS error, octet_length(e ->> 'error') AS bytes, left(e ->> 'error_type', 10) AS error_type, length(e ->> 'error_type') AS length,
	left(e ->> 'stack_trace', 10) AS trace, octet_length(e ->> 'stack_trace') AS bytes
FROM qml.job j LEFT JOIN LATERAL jsonb_array_elements(errors) e ON true ORDER BY j.id;
SELECT count(*) FROM qml_fail_many('{}', '{}', '{}');
SELECT count(*) FROM qml_fail_many('{}', '{}', NULL, '{}', '{}');

-- Releases of many
SELECT t.reset();
SELECT count(t.make(t.id(n), 'processing')) FROM generate_series(1, 6) n;
SELECT t.n(id) FROM qml_release_many(ARRAY[t.id(3), t.id(1), t.id(99), t.id(3), t.id(2)], ARRAY[1, 1, 1, 1, 7]) id;
SELECT t.n(id) FROM qml_release_many(ARRAY[t.id(5), t.id(4), t.id(5)], ARRAY[1, 1, 1], '2100-01-01', 'the rest') id;
SELECT t.n(id), state, attempt, tries, worker, run_at = '2100-01-01' AS as_told, reason FROM qml.job ORDER BY id;
SELECT count(*) FROM qml_release_many('{}', '{}', '2100-01-01', 'none');
-- More than are written at once, of several queues
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[500]), 'many');
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[500]), 'more', max_retries => 0);
SELECT count(*) FROM (SELECT array_agg(id ORDER BY md5(id::text)) AS ids, array_agg(attempt) AS attempts FROM qml_fetch('w', '{many,more}', 1000)) f, qml_release_many(f.ids, f.attempts);
SELECT count(*) FROM (SELECT array_agg(id ORDER BY md5(id::text)) AS ids, array_agg(attempt) AS attempts FROM qml_fetch('w', '{many,more}', 1000)) f, qml_fail_many(f.ids, f.attempts, NULL);
SELECT queue, state, attempt, tries, count(*), min(error), max(error) FROM qml.job WHERE queue <> 'made' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2;

-- Procedures: the same without a result, in the caller's transaction
SELECT t.reset();
CALL qml_enqueue_job('m', '{"n": 1}', 'p', 7, metadata => '{"a": 1}', job_type => 'j', max_retries => 3, timeout => '1 min', id => t.id(1));
SELECT t.n(id), queue, method, payload, state, priority, max_retries, timeout, metadata, job_type FROM qml.job;
CALL qml_enqueue_job('m', queue => 'q', run_at => '2100-01-01') \gset made_
SELECT state, queue FROM qml_job(:'made_id');
CALL qml_enqueue_job('m', queue => 'q', delay => '1 h') \gset later_
SELECT state, run_at BETWEEN now() + interval '59 min' AND now() + interval '1 h' AS in_an_hour FROM qml_job(:'later_id');
SELECT t.try('CALL qml_enqueue_job(''m'', id => t.id(1))');
SELECT t.code('CALL qml_enqueue_job(''m'', run_at => now(), delay => ''1 s'')');
SELECT t.code('CALL qml_enqueue_job(''m'', options => ''{"none": 1}'')');
-- One that is there already: its id
CALL qml_enqueue_job('m', '{"n": 1}', 'p', 7, metadata => '{"a": 1}', job_type => 'j', max_retries => 3, timeout => '1 min', id => t.id(1), options => '{"on_duplicate_id": "return"}');
DO $$
DECLARE
	job uuid;
BEGIN
	FOR n IN 2 .. 6 LOOP
		job := t.id(n);
		CALL qml_enqueue_job('m', queue => 'p', id => job);
	END LOOP;
	job := NULL;
	CALL qml_enqueue_job('m', queue => 'made up', id => job);
	IF (qml_job(job)).queue <> 'made up' THEN
		RAISE 'it is not there';
	END IF;
END $$;
SELECT count(*) FROM qml_fetch('w', '{p}', 9);
BEGIN;
CALL qml_enqueue_job('m', queue => 'undone', id => t.id(9));
CALL qml_progress_job(t.id(1), 1, '1');
CALL qml_succeed_job(t.id(1), 1);
CALL qml_fail_job(t.id(2), 1, 'e');
CALL qml_release_job(t.id(3), 1);
CALL qml_discard_job(t.id(4), 1);
SELECT state, count(*) FROM qml.job WHERE id <= t.id(9) GROUP BY 1 ORDER BY 1;
ROLLBACK;
SELECT state, count(*) FROM qml.job WHERE id <= t.id(9) GROUP BY 1 ORDER BY 1;
CALL qml_progress_job(t.id(1), 1, '{"percent": 50}');
CALL qml_succeed_job(t.id(1), 1, '{"sum": 3}');
CALL qml_fail_job(t.id(2), 1, 'it broke', 'io_error', 'line 1', retry => false);
CALL qml_fail_job(t.id(3), 1, NULL, retry_at => '2100-01-01');
CALL qml_release_job(t.id(4), 1);
CALL qml_release_job(t.id(5), 1, '2100-01-01', 'later');
CALL qml_discard_job(t.id(6), 1, 'never');
SELECT t.n(id), state, tries, run_at = '2100-01-01' AS as_told, progress, result, error, errors -> 0 ->> 'error_type' AS type, errors -> 0 ->> 'stack_trace' AS trace, reason
FROM qml.job WHERE id <= t.id(9) ORDER BY id;
SELECT c.call, left(t.try(format('CALL %s', c.call)), 5) AS stale FROM (VALUES (1, 'qml_progress_job(t.id(1), 1, ''1'')'), (2, 'qml_succeed_job(t.id(1), 1)'), (3, 'qml_fail_job(t.id(1), 1, ''e'')'),
	(4, 'qml_release_job(t.id(1), 1)'), (5, 'qml_discard_job(t.id(1), 1)'), (6, 'qml_succeed_job(t.id(99), 1)')) c (n, call) ORDER BY n;

-- Fail: what is kept of an error
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(1)) IS NOT NULL;
SELECT attempt FROM qml_fetch('worker 7');
SELECT qml_fail(t.id(1), 1, 'it broke', 'io_error', E'line 1\nline 2');
SELECT state, attempt, error, worker, lease_expires_at, finished_at, run_at > now() AS later FROM qml_job(t.id(1));
SELECT e - 'at' AS entry, (e ->> 'at')::timestamptz BETWEEN now() - interval '1 min' AND clock_timestamp() AS at_now
FROM qml_job(t.id(1)), jsonb_array_elements(errors) e;
SELECT qml_retry(t.id(1));
SELECT attempt FROM qml_fetch('worker 8');
SELECT qml_fail(t.id(1), 2, '');
SELECT e - 'at' AS entry FROM qml_job(t.id(1)), jsonb_array_elements(errors) e;
SELECT error FROM qml_job(t.id(1));

-- A worker that has failed can always say so, however it says it
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(n), queue => 'x', max_retries => 9) IS NOT NULL FROM generate_series(1, 9) n;
SELECT count(*) FROM qml_fetch('w', batch => 9);
SELECT qml_fail(t.id(1), 1, NULL);
SELECT qml_fail(t.id(2), 1, '', '', '');
SELECT qml_fail(t.id(3), 1, 'e', E'a\tb\u0085\u007fc');
SELECT qml_fail(t.id(4), 1, 'e', repeat('ü', 256));
SELECT qml_fail(t.id(5), 1, 'e', repeat('ü', 255));
SELECT qml_fail(t.id(6), 1, 'e', repeat('x', 5000000), retry => NULL);
SELECT qml_fail(t.id(7), 1, repeat('ü', 5000000), NULL, repeat('漢', 5000000));
SELECT qml_fail(t.id(8), 1, 'e', retry_at => 'infinity');
SELECT qml_fail(t.id(9), 1, 'e', retry_at => '-infinity');
SELECT t.n(j.id), state, j.run_at < now() + interval '1 min' AS soon, left(j.error, 20) AS error, length(j.error) AS length, left(e ->> 'error_type', 10) AS error_type,
	right(e ->> 'error_type', 9) AS end, length(e ->> 'error_type') AS length, right(e ->> 'stack_trace', 10) AS trace, octet_length(e ->> 'stack_trace') AS bytes
FROM qml.job j, jsonb_array_elements(errors) e ORDER BY j.id;
-- So can an administrator; reasons are cut alike
SELECT (qml_set_state(t.id(1), 'enqueued', jsonb_build_object('reason', repeat('ü', 5000)))).state;
SELECT (qml_set_state(t.id(1), 'processing')).attempt;
SELECT right(reason, 12) AS reason, octet_length(reason) FROM qml_job(t.id(1));
SELECT (qml_set_state(t.id(1), 'failed', jsonb_build_object('error', '', 'error_type', E'a\nb', 'stack_trace', repeat('s', 20000)))).error;
SELECT e ->> 'error_type' AS type, octet_length(e ->> 'stack_trace') AS bytes FROM qml_job(t.id(1)) j, jsonb_array_elements(j.errors) e ORDER BY e -> 'attempt' DESC LIMIT 1;
SELECT t.try('SELECT qml_set_state(t.id(2), ''failed'', ''{"error": 1}'')');
SELECT qml_delete(t.id(2), repeat('x', 8193));
SELECT octet_length(reason), right(reason, 12) AS reason FROM qml_job(t.id(2));

-- Texts are cut between two characters, and marked: error at 8 KiB, stack trace at 16 KiB
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(n), queue => 'x') IS NOT NULL FROM generate_series(1, 4) n;
SELECT count(*) FROM qml_fetch('w', batch => 4);
SELECT qml_fail(t.id(1), 1, repeat('x', 8192), NULL, repeat('y', 16384));
SELECT qml_fail(t.id(2), 1, repeat('x', 8193), NULL, repeat('y', 16385));
SELECT qml_fail(t.id(3), 1, 'x' || repeat('ü', 5000), NULL, repeat('漢', 6000));
SELECT qml_fail(t.id(4), 1, repeat('😀', 3000), NULL, 'y' || repeat('😀', 5000));
SELECT t.n(id), octet_length(error) AS bytes, length(error) AS characters, right(error, 10) AS last,
	octet_length(errors -> 0 ->> 'stack_trace') AS trace_bytes, right(errors -> 0 ->> 'stack_trace', 10) AS trace_last
FROM qml.job ORDER BY id;

-- Too many for one call
SELECT t.try(format('SELECT count(*) FROM %s', f)) FROM unnest(ARRAY[
	'qml_succeed_many(array_fill(t.id(1), ARRAY[1000001]), array_fill(1, ARRAY[1000001]))',
	'qml_heartbeat_many(array_fill(t.id(1), ARRAY[1000001]), array_fill(1, ARRAY[1000001]))']) f;

-- A role that has lost its right to one queue does not lose its jobs of others
CREATE ROLE regress_qml_revoked;
GRANT USAGE ON SCHEMA t TO regress_qml_revoked;
SELECT count(qml_grant('regress_qml_revoked', 'work', q)) FROM unnest('{kept,lost}'::text[]) q;
SELECT count(qml_enqueue('m', queue => q, id => t.id(n))) FROM (VALUES (901, 'kept'), (902, 'lost'), (903, 'kept'), (904, 'lost')) j (n, q);
SELECT count(*) FROM qml_fetch('w', '{kept,lost}', batch => 4);
SELECT qml_revoke('regress_qml_revoked', 'work', 'lost');
SET ROLE regress_qml_revoked;
SELECT t.n(id) FROM qml_heartbeat_many(ARRAY[t.id(901), t.id(902)], '{1,1}');
SELECT t.n(id) FROM qml_fail_many(ARRAY[t.id(904), t.id(903)], '{1,1}', '{e,e}', retry => false) id;
SELECT t.n(id) FROM qml_release_many(ARRAY[t.id(902), t.id(904)], '{1,1}') id;
SELECT count(*) FROM qml_succeed_fetch_many(ARRAY[t.id(901), t.id(902)], '{1,1}', queues => 'kept');
SELECT t.try(format('SELECT qml_succeed(%L, 1)', t.id(902)));
RESET ROLE;
REVOKE USAGE ON SCHEMA t FROM regress_qml_revoked;
SELECT t.n(id), queue, state FROM qml.job WHERE id BETWEEN t.id(901) AND t.id(904) ORDER BY id;
SELECT qml_drop_role_objects('regress_qml_revoked') ->> 'capabilities';
DROP ROLE regress_qml_revoked;
