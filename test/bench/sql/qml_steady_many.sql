SELECT count(*) FROM qml_enqueue_many('bench.job',
	array_fill('{"customer": 4711, "template": "welcome"}'::jsonb, ARRAY[100]), 'bench');
\if :first
SELECT array_agg(id) AS ids, array_agg(attempt) AS attempts
FROM qml_fetch('bench', '{bench}', 100) \gset
\set first 0
\else
SELECT array_agg(id) AS ids, array_agg(attempt) AS attempts
FROM qml_succeed_fetch_many(:ids, :attempts, NULL, 'bench', '{bench}', 100) \gset
\endif
