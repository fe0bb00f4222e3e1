--
-- Claims: which jobs, in which order, how many, by whom and for how long.
--
SELECT t.reset();

-- Nothing there
SELECT count(*) FROM qml_fetch();
SELECT count(*) FROM qml_fetch('w', ARRAY['no such queue', 'default'], 100);

-- The least that a worker has to say
SELECT qml_enqueue('hello', '{"to": "you"}', id => t.id(1)) IS NOT NULL;
SELECT (qml_fetch()).id = t.id(1) AS got;
SELECT queue, method, payload, state, attempt, worker = current_user || '-' || pg_backend_pid() AS worker,
	started_at > created_at AS started, lease_expires_at - started_at AS lease, run_at, finished_at
FROM qml_job(t.id(1)) \gx
SELECT count(*) FROM qml_fetch();

-- A fetch returns what is stored
SELECT qml_enqueue('m', '[1]', id => t.id(2), metadata => '{"a": 1}', job_type => 'x') IS NOT NULL;
CREATE TEMP TABLE got AS SELECT * FROM qml_fetch('worker one');
SELECT to_jsonb(g) = to_jsonb(j) AS same, j.worker, j.attempt FROM got g JOIN qml.job j USING (id);
DROP TABLE got;

-- Within a queue: priority, then age
SELECT t.reset();
SELECT count(qml_enqueue('m', id => t.id(n), priority => p))
FROM (VALUES (1, 0), (2, 5), (3, -1), (4, 5), (5, 2147483647), (6, -2147483648), (7, 0)) v (n, p);
SELECT t.n(id), priority FROM qml_fetch(batch => 10);

-- Among queues: in the order given
SELECT t.reset();
SELECT count(qml_enqueue('m', id => t.id(n), queue => q, priority => p))
FROM (VALUES (1, 'a', 9), (2, 'b', 0), (3, 'c', 9), (4, 'b', 1), (5, 'a', 9), (6, 'd', 9)) v (n, q, p);
SELECT t.n(id), queue FROM qml_fetch(queues => '{b,nosuch,a,c}', batch => 4);
SELECT t.n(id), queue FROM qml_fetch(queues => '{b,a,c}', batch => 4);
SELECT t.n(id), queue FROM qml_fetch(queues => '{d,d,d}', batch => 4);
-- As a text: one name, or what it spells as an array
SELECT count(qml_enqueue('m', queue => 'text_1')) FROM generate_series(1, 5);
SELECT q, (SELECT string_agg(queue, ' ') FROM qml_fetch(queues => q)) AS got
FROM unnest(ARRAY['text_1', '{text_1}', ' {text_1}', '{ text_1 }', '{"text_1"}', '{text-1}']) q;
SELECT qml_fetch(queues => '{text_1'::text);
SELECT qml_fetch(queues => '{Null}'::text);
SELECT qml_fetch(queues => '{"null"}'::text);
SELECT qml_fetch(queues => '{}'::text);

-- NULL: all queues in turn, beginning after the one that was served last
SELECT t.reset();
SELECT count(qml_enqueue('m', id => t.id(q * 100 + n), queue => 'q' || q))
FROM generate_series(1, 3) q, generate_series(1, 4) n;
SELECT queue FROM qml_fetch(queues => '{q3}');
SELECT string_agg(f.queue, ' ' ORDER BY n) FROM generate_series(1, 8) n, qml_fetch('w' || n) f;
SELECT count(*) FROM qml_fetch(batch => 100);
-- A batch goes on with the next queue when one has no more
SELECT count(qml_enqueue('m', queue => 'q' || q)) FROM generate_series(1, 3) q, generate_series(1, 2) n;
SELECT count(*), count(DISTINCT queue) FROM qml_fetch(batch => 5);
SELECT count(*), count(DISTINCT queue) FROM qml_fetch(batch => 5);

-- Never more than the batch, and all there are when they are fewer
SELECT t.reset();
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[2000]), 'x');
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[2000]), 'y');
SELECT n, (SELECT count(*) FROM qml_fetch('w', ARRAY['x', 'y'], n)) AS got
FROM unnest(ARRAY[1, 2, 10, 999, 1000, 1001]) n;
SELECT count(*) FROM qml_fetch(batch => 10000);
SELECT state, count(*), count(DISTINCT id), max(attempt) FROM qml.job GROUP BY state;
-- ... whatever joins and limits are around it
SELECT t.reset();
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[50]));
SELECT count(*) FROM (SELECT 1 FROM qml_fetch(batch => 3) a, generate_series(1, 4)) x;
SELECT count(*) FROM qml.job WHERE state = 'processing';
-- ... and however few rows are read of it
SELECT count(*) FROM (SELECT id FROM qml_fetch(batch => 5) LIMIT 1) x;
SELECT count(*) FROM qml.job WHERE state = 'processing';
SELECT count(*) FROM (SELECT qml_fetch(batch => 5) LIMIT 1) x;
SELECT count(*) FROM qml.job WHERE state = 'processing';
SELECT EXISTS (SELECT qml_fetch(batch => 5));
SELECT count(*) FROM qml.job WHERE state = 'processing';
SELECT t.reset();
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[20]));
BEGIN;
DECLARE c CURSOR FOR SELECT state FROM qml_fetch(batch => 5);
FETCH 1 FROM c;
CLOSE c;
DECLARE c CURSOR FOR SELECT qml_fetch('w', NULL, 5);
MOVE 1 FROM c;
CLOSE c;
COMMIT;
SELECT count(*) FROM qml.job WHERE state = 'processing';

-- Only what is ready
SELECT t.reset();
SELECT t.make(t.id(n::int), s) IS NULL AS no_claim
FROM unnest(enum_range(NULL::qml.job_state)::text[]) WITH ORDINALITY u (s, n) WHERE s <> 'enqueued';
SELECT count(*) FROM qml_fetch(batch => 10);
-- What is due becomes ready by promotion alone
SELECT qml_reschedule(t.id(1), now() - interval '1 h');
SELECT count(*) FROM qml_fetch(batch => 10);
SELECT qml_promote_due();
SELECT t.n(id) FROM qml_fetch(batch => 10);

-- Paused queues give nothing, by name or by all, and take jobs
SELECT t.reset();
SELECT qml_create_queue('p');
SELECT qml_pause_queue('p');
SELECT qml_enqueue('m', id => t.id(1), queue => 'p') IS NOT NULL;
SELECT qml_enqueue('m', id => t.id(2), queue => 'other') IS NOT NULL;
SELECT count(*) FROM qml_fetch(queues => '{p}');
SELECT t.n(id) FROM qml_fetch(batch => 5);
SELECT qml_resume_queue('p');
SELECT t.n(id) FROM qml_fetch(batch => 5);
-- Whoever holds a job of a paused queue may finish it
SELECT qml_pause_queue('p');
SELECT qml_succeed(t.id(1), 1);

-- The lease: of the call, of the queue, of the setting
SELECT t.reset();
SELECT qml_create_queue('l', '{"lease": "7 minutes"}');
SELECT count(qml_enqueue('m', id => t.id(n), queue => q))
FROM (VALUES (1, 'l'), (2, 'l'), (3, 'x'), (4, 'x')) v (n, q);
SELECT t.n(id), lease_expires_at - started_at AS lease FROM qml_fetch('w', '{l}', 1, '2 h');
SELECT t.n(id), lease_expires_at - started_at AS lease FROM qml_fetch('w', '{l}');
SELECT t.n(id), lease_expires_at - started_at AS lease FROM qml_fetch('w', '{x}');
SET qml.lease = '30 s';
SELECT t.n(id), lease_expires_at - started_at AS lease FROM qml_fetch('w', '{x}');
RESET qml.lease;

-- A claim that is bound to its session, where qml is not preloaded: nothing but the end of
-- the session ends it
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(1), queue => 's', max_retries => 1) IS NOT NULL;
SELECT t.n(id), attempt, lease_expires_at, server ~ '^session:pid\.\d+\.\d+$' AS of_session FROM qml_fetch('w', '{s}', lease => '0');
SELECT qml_reclaim();
SELECT qml_heartbeat(t.id(1), 1) IS NULL AS no_lease;
\c
-- The session may not have ended quite yet
DO $$ BEGIN WHILE qml_reclaim() = 0 LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT state, attempt, error, errors -> 0 ->> 'error_type' AS error_type FROM qml_job(t.id(1));
-- What other forms say: an earlier start of the server, with qml preloaded or not
SELECT t.n(id) FROM qml_fetch('w', '{s}', lease => '0');
UPDATE qml.live SET server = 'session:00abcdef.3.5';
SELECT qml_reclaim();
SELECT state, attempt, error, errors -> 1 ->> 'error_type' AS error_type FROM qml_job(t.id(1));
SELECT qml_retry(t.id(1));
SELECT t.n(id) FROM qml_fetch('w', '{s}', lease => '0');
UPDATE qml.live SET server = format('session:pid.%s.%s', pg_backend_pid(), 0);
SELECT qml_reclaim();
SELECT state, attempt, errors -> 2 ->> 'error_type' AS error_type FROM qml_job(t.id(1));
-- One that is none of a session is left alone
SELECT t.n(id) FROM qml_fetch('w', '{s}', lease => '0');
UPDATE qml.live SET server = 'session:pid';
SELECT qml_reclaim();
SELECT t.reset();
