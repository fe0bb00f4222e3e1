CALL qml_wait(:queue, '1 h');
SELECT coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(attempt), '{}') AS attempts
FROM qml_fetch('bench', :queue, 100) \gset
SELECT count(*) FROM qml_succeed_many(:ids, :attempts);
