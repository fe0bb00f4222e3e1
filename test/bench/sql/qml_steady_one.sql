SELECT qml_enqueue('bench.job', '{"customer": 4711, "template": "welcome"}', 'bench');
\if :first
SELECT id, attempt FROM qml_fetch('bench', '{bench}') \gset
\set first 0
\else
SELECT id, attempt FROM qml_succeed_fetch(:id, :attempt, '{"sent": true}', 'bench', '{bench}') \gset
\endif
