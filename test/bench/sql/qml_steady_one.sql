SELECT qml_enqueue('bench.job', '{"customer": 4711, "template": "welcome"}', 'bench');
\if :first
SELECT count(*) AS got, coalesce(max(id::text), '') AS id, coalesce(max(attempt), 0) AS attempt
FROM qml_fetch('bench', '{bench}') \gset
\set first 0
\else
SELECT count(*) AS got, coalesce(max(id::text), '') AS id, coalesce(max(attempt), 0) AS attempt
FROM qml_succeed_fetch(:id, :attempt, NULL, 'bench', '{bench}') \gset
\endif
\if :got = 0
INSERT INTO empty_fetch VALUES (clock_timestamp());
\set first 1
\endif
