--
-- What a claim costs: heap-only updates, and few pages however many jobs there are.
--
SELECT t.reset();
ALTER TABLE qml.live SET (autovacuum_enabled = false);

-- Claims and heartbeats are heap-only while the page has room
SELECT count(*) FROM qml_enqueue_many('m', array_fill('{"a": 1}'::jsonb, ARRAY[5]));
BEGIN;
SELECT count(*) FROM qml_fetch(batch => 5);
SELECT pg_stat_get_xact_tuples_updated('qml.live'::regclass) AS updated,
	pg_stat_get_xact_tuples_hot_updated('qml.live'::regclass) AS hot;
SELECT count(qml_heartbeat(id, attempt)) FROM qml.job;
SELECT pg_stat_get_xact_tuples_updated('qml.live'::regclass) AS updated,
	pg_stat_get_xact_tuples_hot_updated('qml.live'::regclass) AS hot;
COMMIT;
-- So is the way back; what is not flushed yet would be counted with it
SELECT pg_stat_force_next_flush();
BEGIN;
SELECT count(qml_release(id, attempt)) FROM qml.job;
SELECT pg_stat_get_xact_tuples_updated('qml.live'::regclass) AS updated,
	pg_stat_get_xact_tuples_hot_updated('qml.live'::regclass) AS hot;
COMMIT;

-- In single transactions, what claims leave behind is pruned, and there is room again
SELECT t.reset();
SELECT count(*) FROM qml_enqueue_many('m', array_fill('{"a": 1}'::jsonb, ARRAY[500]));
CREATE PROCEDURE t.work(rounds int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..rounds LOOP
		PERFORM qml_release(f.id, f.attempt) FROM qml_fetch() f;
		COMMIT;
	END LOOP;
END $$;
SELECT pg_stat_force_next_flush();
SELECT n_tup_upd AS upd, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relid = 'qml.live'::regclass \gset
CALL t.work(200);
SELECT pg_stat_force_next_flush();
SELECT n_tup_upd - :upd >= 400 AS updated, n_tup_hot_upd - :hot >= 300 AS mostly_hot
FROM pg_stat_user_tables WHERE relid = 'qml.live'::regclass;
DROP PROCEDURE t.work;

-- 200,000 ready jobs in three queues, and no statistics
SELECT t.reset();
SELECT q, sum((SELECT count(*) FROM qml_enqueue_many('m', array_fill(jsonb_build_object('n', n), ARRAY[10000]), 'q' || q)))
FROM (SELECT n, CASE WHEN n <= 10 THEN 1 WHEN n <= 19 THEN 2 ELSE 3 END AS q FROM generate_series(1, 20) n) x
GROUP BY q ORDER BY q;
SELECT reltuples FROM pg_class WHERE oid = 'qml.live'::regclass;

-- Pages touched by a query, planning left out
CREATE FUNCTION t.buffers(sql text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || sql INTO plan;
	plan := plan -> 0 -> 'Plan';
	IF (plan ->> 'Actual Rows')::numeric <> 1 THEN
		RAISE 'claimed % jobs', plan ->> 'Actual Rows';
	END IF;
	RETURN (plan ->> 'Shared Hit Blocks')::int + (plan ->> 'Shared Read Blocks')::int +
		(plan ->> 'Local Hit Blocks')::int + (plan ->> 'Local Read Blocks')::int;
END $$;
-- The first call of a session learns the queues; it is not what is measured
SELECT count(*) FROM qml_fetch();
CREATE TEMP TABLE cost (what text, pages int);
CREATE PROCEDURE t.measure(rounds int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..rounds LOOP
		INSERT INTO cost VALUES ('one queue', t.buffers('SELECT * FROM qml_fetch(queues => ''{q2}'')'));
		COMMIT;
		INSERT INTO cost VALUES ('two queues', t.buffers('SELECT * FROM qml_fetch(queues => ''{q3,q1}'')'));
		COMMIT;
		INSERT INTO cost VALUES ('all queues', t.buffers('SELECT * FROM qml_fetch()'));
		COMMIT;
	END LOOP;
END $$;
CALL t.measure(5);
SELECT what, count(*), max(pages) <= 50 AS few FROM cost GROUP BY what ORDER BY what;
-- With nothing ready in the first queue asked for
SELECT qml_create_queue('empty');
SELECT count(*) FROM qml_fetch('w', '{q1}');
SELECT t.buffers('SELECT * FROM qml_fetch(queues => ''{empty,q3}'')') <= 50 AS few;
-- One job of a high priority behind 200,000 others
SELECT qml_enqueue('m', queue => 'q3', priority => 1, id => t.id(1)) IS NOT NULL;
SELECT t.buffers('SELECT * FROM qml_fetch(queues => ''{q3}'')') <= 50 AS few;
SELECT state FROM qml_job(t.id(1));
SELECT count(*) AS claimed FROM qml.job WHERE state = 'processing';
SELECT reltuples FROM pg_class WHERE oid = 'qml.live'::regclass;

DROP PROCEDURE t.measure;
DROP FUNCTION t.buffers;
ALTER TABLE qml.live RESET (autovacuum_enabled);
SELECT t.reset();
