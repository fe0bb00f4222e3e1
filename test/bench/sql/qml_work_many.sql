SELECT array_agg(id) AS ids, array_agg(attempt) AS attempts
FROM qml_fetch('bench', '{bench}', 100) \gset
SELECT qml_succeed_many(:ids, :attempts);
