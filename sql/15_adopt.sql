--
-- A copy of a database takes jobs and gives none until it is adopted.
--
SELECT t.reset();
SELECT t.make(t.id(1), 'processing', 'p'), t.make(t.id(2), 'enqueued', 'q'), t.make(t.id(3), 'scheduled', 's'), t.make(t.id(4), 'failed', 'f'),
	t.make(t.id(5), 'awaiting_retry', 'r'), t.make(t.id(6), 'succeeded', 'd');
SELECT count(*), bool_and(system_identifier = (SELECT system_identifier FROM pg_control_system()) AND
	database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS here FROM qml.instance_data;
-- At home there is nothing to adopt
SELECT t.everything() AS before \gset
SELECT qml_adopt();
SELECT t.everything() = :'before' AS unchanged;

-- As a restored dump looks: the row of the original beside one's own
INSERT INTO qml.instance_data (system_identifier, database) VALUES (1, 1);
\pset format unaligned
\pset tuples_only on
SELECT sql, t.try(sql) FROM unnest('{SELECT qml_fetch(),SELECT qml_promote_due(),SELECT qml_reclaim(),SELECT qml_cleanup(),SELECT qml_maintain()}'::text[]) WITH ORDINALITY s (sql, n) ORDER BY n;
\pset format aligned
\pset tuples_only off
-- What people do by hand goes on: enqueueing, reading, changing
SELECT qml_enqueue('m', queue => 'q', id => t.id(7)) IS NOT NULL;
SELECT count(*) FROM qml.job;
SELECT qml_delete(t.id(3)), qml_retry(t.id(4));
SELECT qml_pause_queue('p'), qml_resume_queue('p');
SELECT t.n(id), state, attempt FROM qml.job ORDER BY id;

-- Adopted: what was processing in the original is enqueued again, its attempt counted; old tokens are void
SELECT qml_adopt();
SELECT count(*) FROM qml.instance_data;
SELECT t.n(id), state, attempt, worker, lease_expires_at FROM qml.job ORDER BY id;
SELECT t.code('SELECT qml_succeed(t.id(1), 1)');
SELECT t.n(id), attempt FROM qml_fetch('w', '{p}');
SELECT qml_maintain() IS NOT NULL AS works;

-- As CREATE DATABASE ... TEMPLATE leaves it: another database's row alone
UPDATE qml.instance_data SET database = 1;
SELECT t.code('SELECT qml_fetch()');
-- Rolled back, it is a copy still
BEGIN;
SELECT qml_adopt();
SELECT count(*) FROM qml_fetch('w', '{q}');
ROLLBACK;
SELECT t.code('SELECT qml_fetch()');
SELECT qml_adopt();
SELECT count(*) FROM qml_fetch('w', '{q}', 9);
-- Another server with the same database oid
UPDATE qml.instance_data SET system_identifier = 1;
SELECT t.code('SELECT qml_fetch()');
SELECT qml_adopt();
SELECT t.reset();
