SELECT id, attempt FROM qml_fetch('bench', '{bench}') \gset
SELECT qml_succeed(:id, :attempt, '{"sent": true}');
