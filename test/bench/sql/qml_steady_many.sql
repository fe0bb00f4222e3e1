SELECT count(*) FROM qml_enqueue_many('bench.job',
	array_fill('{"customer": 4711, "template": "welcome"}'::jsonb, ARRAY[100]), 'bench');
\if :first
SELECT count(*) AS got, coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(attempt), '{}') AS attempts
FROM qml_fetch('bench', '{bench}', 100) \gset
\set first 0
\else
SELECT count(*) AS got, coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(attempt), '{}') AS attempts
FROM qml_succeed_fetch_many(:ids, :attempts, NULL, 'bench', '{bench}', 100) \gset
\endif
\if :got = 0
INSERT INTO empty_fetch VALUES (clock_timestamp());
\endif
