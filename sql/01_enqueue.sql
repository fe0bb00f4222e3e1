--
-- Producers: what a job is made of, and where it goes.
--
SELECT t.reset();

-- Defaults
SELECT qml_enqueue('mail.send') AS id \gset
SELECT queue, method, payload, state, priority, attempt, max_retries, timeout, created_by,
	run_at, started_at, finished_at, expires_at, lease_expires_at, worker, server, result,
	progress, error, errors, metadata, job_type, reason
FROM qml.job WHERE id = :'id' \gx
SELECT created_at BETWEEN now() - interval '1 min' AND clock_timestamp() AS just_now
FROM qml.job WHERE id = :'id';
-- The view and the function show the same
SELECT qml_job(:'id') = j AS same FROM qml.job j WHERE id = :'id';
SELECT to_jsonb(qml_job(:'id')) = to_jsonb(j) AS same FROM qml.job j WHERE id = :'id';
-- ... and the same columns in the same order
SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
FROM pg_attribute WHERE attrelid = 'qml.job'::regclass AND attnum > 0;

-- Everything given
SELECT qml_enqueue('invoice.make', '{"customer": 7}', 'billing', -3, now() + interval '1 h', 0,
	'90 s', '{"trace": "x"}', 'nightly', t.id(1)) = t.id(1) AS own_id;
SELECT queue, method, payload, state, priority, max_retries, run_at > now() AS later, timeout,
	metadata, job_type
FROM qml_job(t.id(1)) \gx

-- A time that is past, or this very moment, is no delay
SELECT qml_enqueue('m', run_at => now() - interval '1 day', id => t.id(2)) IS NOT NULL;
SELECT state, run_at FROM qml_job(t.id(2));
SELECT qml_enqueue('m', run_at => now(), id => t.id(3)) IS NOT NULL;
SELECT state, run_at FROM qml_job(t.id(3));
SELECT qml_enqueue('m', run_at => clock_timestamp() + interval '9 s', id => t.id(4)) IS NOT NULL;
SELECT state, run_at IS NOT NULL FROM qml_job(t.id(4));

-- Extremes that are allowed
SELECT qml_enqueue(repeat('m', 255), queue => repeat('q', 128), priority => 2147483647,
	max_retries => 1000, timeout => '1 ms', job_type => repeat('t', 255), id => t.id(5)) IS NOT NULL;
SELECT length(method), length(queue), priority, max_retries, timeout, length(job_type)
FROM qml_job(t.id(5));
SELECT qml_enqueue('m', priority => -2147483648, timeout => '24 days', id => t.id(6),
	run_at => '294276-12-31 23:59:59 UTC') IS NOT NULL;
SELECT priority, timeout, state, run_at AT TIME ZONE 'UTC' FROM qml_job(t.id(6));
-- Lengths are of characters, not bytes
SELECT qml_enqueue(repeat('ü', 255), queue => repeat('漢', 128), job_type => repeat('😀', 255),
	id => t.id(7)) IS NOT NULL;
SELECT method = repeat('ü', 255), queue = repeat('漢', 128), job_type = repeat('😀', 255)
FROM qml_job(t.id(7));
-- Names are taken as they are
SELECT qml_enqueue('Größe "x"; DROP TABLE y --', queue => 'it''s a $queue\', id => t.id(8)) IS NOT NULL;
SELECT method, queue FROM qml_job(t.id(8));
SELECT method FROM qml_fetch(queues => ARRAY['it''s a $queue\']);
-- Any JSON is a payload
SELECT qml_enqueue('m', p::jsonb, id => t.id(n::int)) IS NOT NULL
FROM (VALUES ('null', 11), ('[]', 12), ('"text"', 13), ('1.50', 14), ('{"a": {"b": [1, null]}}', 15)) v (p, n);
SELECT payload FROM qml.job WHERE id BETWEEN t.id(11) AND t.id(15) ORDER BY id;

-- Ids are of version 7, and grow in a session
SELECT count(*), bool_and(substr(id::text, 15, 1) = '7') AS version,
	bool_and(substr(id::text, 20, 1) IN ('8', '9', 'a', 'b')) AS variant,
	bool_and(id > before OR before IS NULL) AS growing,
	bool_and(abs(extract(epoch FROM clock_timestamp()) * 1000 -
		('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint) < 60000) AS of_now
FROM (SELECT id, n, lag(id) OVER (ORDER BY n) AS before
	FROM (SELECT n, qml_enqueue('m', queue => 'ids') AS id FROM generate_series(1, 5000) n) x) y;

-- Many at once, in the order of the payloads
CREATE TEMP TABLE many AS SELECT * FROM
	qml_enqueue_many('m', (SELECT array_agg(to_jsonb(n) ORDER BY n) FROM generate_series(1, 1000) n),
		'many', 5, NULL, 2, '3 s', '{"k": 1}', 'kind') WITH ORDINALITY AS e (id, n);
SELECT count(*), bool_and(j.payload = to_jsonb(m.n)) AS in_order,
	bool_and(substr(m.id::text, 15, 1) = '7') AS version,
	count(DISTINCT (j.queue, j.priority, j.state, j.max_retries, j.timeout, j.metadata, j.job_type, j.method)) AS kinds
FROM many m JOIN qml.job j USING (id);
SELECT queue, priority, state, max_retries, timeout, metadata, job_type, method
FROM qml.job WHERE queue = 'many' LIMIT 1;
-- They are claimed in that order too
SELECT bool_and(payload = to_jsonb(n)) FROM qml_fetch(queues => '{many}', batch => 1000) WITH ORDINALITY
	AS f (id, queue, method, payload, state, priority, attempt, tries, max_retries, retries_left, run_at, created_at,
		ready_at, started_at, finished_at, expires_at, lease_expires_at, worker, server, timeout, result, progress,
		error, errors, metadata, job_type, reason, created_by, n);
SELECT count(*) FROM qml_enqueue_many('m', '{}'::jsonb[], 'none');
SELECT count(*) FROM qml_enqueue_many('m', ARRAY['1', '2']::jsonb[], run_at => now() + interval '1 h', queue => 'later');
SELECT state, count(*) FROM qml.job WHERE queue = 'later' GROUP BY 1;
-- A lower bound other than 1 is nothing special
SELECT count(*) FROM qml_enqueue_many('m', '[5:6]={"1","2"}'::jsonb[], 'bounds');

-- Queues came by themselves; an empty batch made none
SELECT CASE WHEN length(name) < 50 THEN name ELSE left(name, 1) || '...' END AS name, paused, options
FROM qml.queue ORDER BY name COLLATE "C";
SELECT * FROM qml_counts();
SELECT queue, state, count FROM qml_queue_counts() WHERE length(queue) < 50
ORDER BY queue COLLATE "C", state;

-- An id that is taken: by an unfinished job, by a finished one that is still to be seen
SELECT t.try($$SELECT qml_enqueue('again', id => t.id(2))$$);
SELECT qml_delete(t.id(2));
SELECT t.try($$SELECT qml_enqueue('again', id => t.id(2))$$);
SELECT method, state FROM qml_job(t.id(2));
-- ... and free again when that has expired, or was never kept
SELECT qml_create_queue('unkept', '{"succeeded_ttl": 0, "failed_ttl": 0}');
SELECT qml_enqueue('m', id => t.id(20), queue => 'unkept') = t.id(20) AS made;
SELECT id = t.id(20) AS got, attempt FROM qml_fetch('w', '{unkept}');
SELECT qml_succeed(t.id(20), 1);
SELECT count(*) FROM qml_job(t.id(20));
SELECT qml_enqueue('m', id => t.id(20), queue => 'unkept') = t.id(20) AS made_again;

-- As part of a statement
CREATE TEMP TABLE orders (n int, job uuid);
INSERT INTO orders SELECT n, qml_enqueue('order', jsonb_build_object('n', n), 'orders') FROM generate_series(1, 3) n;
SELECT o.n, j.payload FROM orders o JOIN qml.job j ON j.id = o.job ORDER BY 1;
