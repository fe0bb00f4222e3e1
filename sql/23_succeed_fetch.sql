--
-- qml_succeed_fetch and qml_succeed_fetch_many: the end of jobs and the next claim in one call.
--
SELECT t.reset();
SELECT count(qml_enqueue(CASE WHEN n % 4 = 0 THEN 'other' ELSE 'm' END, jsonb_build_object('n', n), CASE WHEN n > 8 THEN 'second' ELSE 'first' END, id => t.id(n))) FROM generate_series(1, 12) n;
SELECT t.n(id), attempt FROM qml_fetch('w', 'first');
-- A worker's loop
SELECT t.n(id), method, payload, state, attempt, worker FROM qml_succeed_fetch(t.id(1), 1, '{"done": 1}', 'w', 'first');
SELECT t.n(id), attempt FROM qml_succeed_fetch(t.id(2), 1, NULL, 'w', '{first}', 2, '1 h');
SELECT t.n(id), state, result, worker, finished_at IS NOT NULL AS finished, round(extract(epoch FROM lease_expires_at - started_at)) AS lease FROM qml.job WHERE id <= t.id(4) ORDER BY id;
-- By name; only some methods
SELECT t.n(id), worker = current_user || '-' || pg_backend_pid() AS named FROM qml_succeed_fetch(id => t.id(3), attempt => 1, batch => 10, queues => ARRAY['second', 'first'], methods => '{m}', result => '[1]');
SELECT t.n(id), worker FROM qml_succeed_fetch(t.id(4), 1, worker => 'v', queues => 'second');
-- There is nothing more: the job has ended all the same
SELECT count(*) FROM qml_succeed_fetch(t.id(5), 1, queues => 'first', methods => '{m}');
SELECT t.n(id), state, result, CASE WHEN worker = 'w' OR worker = 'v' THEN worker WHEN worker IS NOT NULL THEN 'named' END AS worker FROM qml.job ORDER BY id;
-- A stale claim, an unknown job: nothing is claimed
SELECT qml_release(t.id(6), 1);
SELECT sql, t.try(sql) FROM unnest(ARRAY['SELECT qml_succeed_fetch(t.id(5), 1)', 'SELECT qml_succeed_fetch(t.id(7), 2, ''1'')', 'SELECT qml_succeed_fetch(t.id(99), 1)']) WITH ORDINALITY s (sql, n) ORDER BY n;
SELECT state, count(*) FROM qml.job GROUP BY 1 ORDER BY 1;
-- What is wrong with the fetch keeps the job from ending
SELECT sql, t.try(sql) FROM unnest(ARRAY['SELECT qml_succeed_fetch(t.id(7), 1, batch => 0)', 'SELECT qml_succeed_fetch(t.id(7), 1, queues => ''{}'')', 'SELECT qml_succeed_fetch(t.id(7), 1, queues => 7)',
	'SELECT qml_succeed_fetch(t.id(7), 1, methods => ''{}'')', 'SELECT qml_succeed_fetch(t.id(7), 1, lease => ''-1 s'')', 'SELECT qml_succeed_fetch(t.id(7), 1, worker => '''')',
	'SELECT qml_succeed_fetch(NULL, 1)', 'SELECT qml_succeed_fetch(t.id(7), NULL)', 'SELECT qml_succeed_fetch_many(NULL, ''{1}'')', 'SELECT qml_succeed_fetch_many(ARRAY[t.id(7)], NULL)',
	'SELECT qml_succeed_fetch_many(ARRAY[t.id(7)], ''{1,2}'')', 'SELECT qml_succeed_fetch_many(ARRAY[t.id(7)], ''{1}'', ''{1,2}'')', 'SELECT qml_succeed_fetch_many(ARRAY[t.id(7), NULL], ''{1,1}'')',
	'SELECT qml_succeed_fetch_many(ARRAY[t.id(7)], ''{1}'', batch => NULL)', 'SELECT qml_succeed_fetch_many(ARRAY[t.id(7)], ''{1}'', queues => ''qml.hooks'')']) WITH ORDINALITY s (sql, n) ORDER BY n;
SELECT state, count(*) FROM qml.job WHERE id = t.id(7) GROUP BY 1;
-- All of it is one transaction
BEGIN;
SELECT t.n(id) FROM qml_succeed_fetch(t.id(7), 1, batch => 9);
ROLLBACK;
SELECT state, count(*) FROM qml.job GROUP BY 1 ORDER BY 1;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT t.n(id) FROM qml_succeed_fetch(t.id(7), 1, batch => 9);
SELECT t.n(id) FROM qml_succeed_fetch(t.id(6), 2, batch => 9);
COMMIT;
SELECT state, count(*) FROM qml.job GROUP BY 1 ORDER BY 1;

-- Many: stale, unknown and repeated ones are passed over, and told
SELECT t.reset();
SELECT count(qml_enqueue('m', id => t.id(n))) FROM generate_series(1, 400) n;
SELECT count(*) FROM qml_fetch('w', batch => 150);
SELECT t.n(id) FROM qml_succeed_fetch_many(ARRAY[t.id(3), t.id(1), t.id(2)], '{1,1,1}', '{3,1,null}', 'w', batch => 2);
SELECT t.n(id), state, result FROM qml.job WHERE id <= t.id(4) ORDER BY id;
SELECT t.n(id) FROM qml_succeed_fetch_many(ARRAY[t.id(4), t.id(1), t.id(5), t.id(999), t.id(6), t.id(4)], '{1,1,1,1,7,1}', NULL, 'w', batch => 2);
SELECT t.n(id), state FROM qml.job WHERE id BETWEEN t.id(4) AND t.id(6) ORDER BY id;
SELECT count(*) FROM qml_succeed_fetch_many(ARRAY[t.id(6), t.id(5)], '{1,1}', batch => 1);
-- ... many of them, not all by id
SELECT count(*), min(t.n(id)) FROM qml_succeed_fetch_many((SELECT array_agg(t.id(n) ORDER BY n) FROM generate_series(1, 150) n), array_fill(1, ARRAY[150]), batch => 10);
SELECT count(*) FROM qml_succeed_fetch_many((SELECT array_agg(t.id(n) ORDER BY n) FROM generate_series(2000, 2021) n), array_fill(1, ARRAY[22]), queues => 'no such queue');
-- None to end: a fetch
SELECT count(*) FROM qml_succeed_fetch_many('{}', '{}', worker => 'w', batch => 10, methods => '{m}');
SELECT count(*) FROM qml_succeed_fetch_many('{}', '{}', '{}');
-- The same in one statement, with the ids that were accepted; and after any other end of a job
WITH done AS MATERIALIZED (SELECT array_agg(t.n(id)) AS ids FROM qml_succeed_many(ARRAY[t.id(1), t.id(154), t.id(155)], '{1,1,1}') id)
SELECT done.ids, t.n(job.id) FROM done LEFT JOIN qml_fetch('w', batch => 2) job ON true;
WITH done AS MATERIALIZED (SELECT qml_fail(t.id(156), 1, 'broken', retry => false) AS state)
SELECT done.state, t.n(job.id) FROM done LEFT JOIN qml_fetch('w', methods => '{none}') job ON true;
SELECT t.reset();
