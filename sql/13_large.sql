--
-- Large documents and names in other scripts, from enqueueing to history and back.
--
SELECT t.reset();

-- 500 kB that do not compress
CREATE TEMP TABLE doc AS SELECT jsonb_build_object('a', string_agg(md5(n::text), '')) AS d FROM generate_series(1, 16000) n;
SELECT length(d ->> 'a') FROM doc;
SELECT qml_enqueue('m', d, metadata => d, max_retries => 0, id => t.id(1)) IS NOT NULL FROM doc;
SELECT pg_relation_size(reltoastrelid) > 1000000 AS toasted FROM pg_class WHERE oid = 'qml.live'::regclass;
SELECT j.payload = d AND j.metadata = d AS same FROM doc, qml_job(t.id(1)) j;
SELECT f.payload = d AND f.metadata = d AS same FROM doc, qml_fetch('w') f;
SELECT qml_progress(t.id(1), 1, d) FROM doc;
SELECT j.payload = d AND j.metadata = d AND j.progress = d AS same FROM doc, qml.job j;
SELECT qml_fail(t.id(1), 1, 'e', NULL, d ->> 'a') FROM doc;
SELECT state, j.payload = d AND j.metadata = d AND j.progress = d AS same, left(errors -> 0 ->> 'stack_trace', 16373) = left(d ->> 'a', 16373) AS trace, octet_length(errors -> 0 ->> 'stack_trace') AS bytes
FROM doc, qml_job(t.id(1)) j;
VACUUM qml.live;
SELECT state, j.payload = d AND j.metadata = d AND j.progress = d AS same FROM doc, qml_job(t.id(1)) j;
SELECT qml_retry(t.id(1));
SELECT state, j.payload = d AND j.metadata = d AND j.progress = d AS same FROM doc, qml_job(t.id(1)) j;
SELECT f.payload = d AS same, f.attempt FROM doc, qml_fetch('w') f;
SELECT qml_succeed(t.id(1), 2, d) FROM doc;
VACUUM qml.live;
SELECT state, j.payload = d AND j.metadata = d AND j.progress = d AND j.result = d AS same FROM doc, qml_job(t.id(1)) j;
SELECT state, j.payload = d AND j.metadata = d AND j.progress = d AND j.result = d AS same FROM doc, qml.job j;
SELECT qml_delete(t.id(1), 'large');
SELECT state, j.payload = d AND j.metadata = d AND j.progress = d AND j.result = d AS same FROM doc, qml_job(t.id(1)) j;

-- Many in one call, in either direction
SELECT t.reset();
SELECT count(*) FROM doc, qml_enqueue_many('m', (SELECT array_agg(d || jsonb_build_object('n', n)) FROM generate_series(1, 10) n));
CREATE TEMP TABLE got AS SELECT * FROM qml_fetch('w', batch => 10);
SELECT count(*), bool_and(g.payload ->> 'a' = d ->> 'a' AND g.payload = j.payload), array_agg(g.payload -> 'n' ORDER BY g.payload -> 'n') FROM doc, got g JOIN qml.job j USING (id);
SELECT count(*) FROM (SELECT array_agg(id) AS ids, array_agg(attempt) AS attempts, array_agg(payload) AS results FROM got) g,
	qml_succeed_many(g.ids, g.attempts, g.results);
SELECT count(*), bool_and(result = payload) FROM qml.job WHERE state = 'succeeded';
-- Compressed
SELECT qml_enqueue('m', to_jsonb(repeat('x', 1000000)), id => t.id(2)) IS NOT NULL;
SELECT length(payload #>> '{}') FROM qml_fetch('w');
SELECT qml_succeed(t.id(2), 1, to_jsonb(repeat('y', 1000000)));
SELECT length(payload #>> '{}'), length(result #>> '{}') FROM qml_job(t.id(2));

-- errors grows with each attempt, up to all of them at their largest
SELECT t.reset();
SELECT qml_enqueue('m', max_retries => 40, id => t.id(1)) IS NOT NULL;
DO $$
DECLARE
	f qml.job;
BEGIN
	LOOP
		SELECT * INTO f FROM qml_fetch('w');
		EXIT WHEN f.id IS NULL;
		PERFORM qml_fail(f.id, f.attempt, repeat(chr(64 + f.attempt % 26), 10000), 'type', repeat('s', 20000), retry_at => now());
		PERFORM qml_promote_due();
	END LOOP;
END $$;
SELECT state, attempt, jsonb_array_length(errors), length(error), right(error, 1),
	(SELECT bool_and(length(e ->> 'error') = 8192 AND length(e ->> 'stack_trace') = 16384) FROM jsonb_array_elements(errors) e) AS all_there
FROM qml_job(t.id(1));

-- Names and values in other scripts
SELECT t.reset();
SELECT qml_create_queue('очередь', '{"max_retries": 1}');
SELECT qml_enqueue('メール.送信', '{"ключ": "значение", "emoji": "😀", "escaped": "\u00fc"}', 'очередь', metadata => '{"ü": "ß"}', job_type => '漢字', id => t.id(1)) IS NOT NULL;
SELECT queue, method, payload, metadata, job_type, worker FROM qml_fetch('العامل', '{очередь}');
SELECT qml_fail(t.id(1), 1, 'ошибка 😀', 'Ünknown', 'строка 1');
SELECT error, errors #>> '{0,error_type}' AS error_type, errors #>> '{0,stack_trace}' AS stack_trace, errors #>> '{0,worker}' AS worker FROM qml_job(t.id(1));
SELECT qml_delete(t.id(1), 'причина');
SELECT queue, method, job_type, reason FROM qml_job(t.id(1));
SELECT queue, state, count FROM qml_queue_counts();
SELECT qml_try_lock('замок', 'владелец', '1 h') > 0 AS taken;
SELECT resource, owner FROM qml.lock;
SELECT t.try('SELECT qml_pause_queue(''нет такой'')');
SELECT t.reset();
