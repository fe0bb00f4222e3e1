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
		(6, 'succeed_many', 'SELECT qml_succeed_many(ARRAY[%L]::uuid[], ARRAY[%s])')) f (n, what, sql)
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
	(11, 'job', 'SELECT qml_job(%L)')) f (n, what, sql)
ORDER BY f.n;
SELECT t.try('SELECT qml_succeed(t.id(99), 1)');

-- Succeed, with and without a result; once
SELECT qml_succeed(t.id(1), 1, '{"sum": 3}');
SELECT state, attempt, result, progress, worker, run_at, lease_expires_at, error,
	finished_at BETWEEN started_at AND clock_timestamp() AS finished, expires_at - finished_at AS kept
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
SELECT queue, count(*), expires_at - finished_at AS kept FROM qml.job GROUP BY 1, 3 ORDER BY 1;
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
SELECT error = '' AS empty FROM qml_job(t.id(1));

-- Texts are cut at a character's end: error at 8 KiB, stack trace at 16 KiB
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(n), queue => 'x') IS NOT NULL FROM generate_series(1, 4) n;
SELECT count(*) FROM qml_fetch('w', batch => 4);
SELECT qml_fail(t.id(1), 1, repeat('x', 8192), NULL, repeat('y', 16384));
SELECT qml_fail(t.id(2), 1, repeat('x', 8193), NULL, repeat('y', 16385));
SELECT qml_fail(t.id(3), 1, 'x' || repeat('ü', 5000), NULL, repeat('漢', 6000));
SELECT qml_fail(t.id(4), 1, repeat('😀', 3000), NULL, 'y' || repeat('😀', 5000));
SELECT t.n(id), octet_length(error) AS bytes, length(error) AS characters, right(error, 1) AS last,
	octet_length(errors -> 0 ->> 'stack_trace') AS trace_bytes, right(errors -> 0 ->> 'stack_trace', 1) AS trace_last
FROM qml.job ORDER BY id;
