--
-- The extension itself: dropped, created again, in another schema, beside a
-- schema that is in its way.
--
SELECT t.reset();
-- A session that has used it, with partitions made on the way
SELECT t.make(t.id(1), 'succeeded'), t.make(t.id(2), 'failed');
SELECT qml_cleanup();

-- What is part of it cannot go alone
SELECT t.try('DROP TABLE qml.live');
SELECT t.try('DROP SCHEMA qml');
SELECT t.code('DROP FUNCTION qml_fetch');
SELECT t.try('ALTER EXTENSION qml SET SCHEMA t');
-- Whoever depends on it is named
CREATE VIEW t.mine AS SELECT count(*) FROM qml.job;
SELECT t.try('DROP EXTENSION qml');
DROP VIEW t.mine;
SELECT count(*) AS partitions FROM pg_class WHERE relname ~ '^history_p\d' AND relkind = 'r';

-- A drop that is rolled back
BEGIN;
DROP EXTENSION qml;
SELECT t.code('SELECT qml_enqueue(''m'')');
ROLLBACK;
SELECT t.n(id), state FROM qml.job ORDER BY id;
SELECT t.make(t.id(3), 'succeeded');

-- Dropped, it leaves nothing behind
DROP EXTENSION qml;
SELECT count(*) FROM pg_class WHERE relname ~ '^(history|live|queue|lock|acl)' AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace);
SELECT count(*) FROM pg_proc WHERE proname ~ '^qml';
SELECT count(*) FROM pg_type WHERE typname ~ 'job';
SELECT count(*) FROM pg_namespace WHERE nspname = 'qml';
SELECT t.code('SELECT qml_enqueue(''m'')');

-- Created again in the same session, it is empty and works
CREATE EXTENSION qml;
SELECT * FROM qml_queue_counts();
SELECT count(*) FROM qml.queue;
SELECT t.make(t.id(1), 'succeeded'), t.make(t.id(2), 'failed'), t.make(t.id(3), 'processing');
SELECT qml_retry(t.id(2));
SELECT t.n(id), queue, state, attempt FROM qml.job ORDER BY id;
-- ... within one transaction too
BEGIN;
DROP EXTENSION qml;
CREATE EXTENSION qml;
SELECT t.make(t.id(4), 'succeeded');
SELECT t.n(id), state FROM qml.job ORDER BY id;
COMMIT;
SELECT t.n(id), state FROM qml.job ORDER BY id;
BEGIN;
DROP EXTENSION qml;
CREATE EXTENSION qml;
SELECT t.make(t.id(5), 'succeeded', 'elsewhere');
ROLLBACK;
SELECT t.n(id), queue, state FROM qml.job ORDER BY id;
SELECT t.make(t.id(6), 'failed', 'elsewhere');

-- Twice does not work
CREATE EXTENSION qml;

-- Its functions in a schema of the user's choice, its tables in qml always
DROP EXTENSION qml;
CREATE SCHEMA jobs;
CREATE EXTENSION qml SCHEMA jobs;
SELECT pronamespace::regnamespace, count(*) FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'qml')
WHERE proname ~ '^qml_' GROUP BY 1 ORDER BY 1;
SELECT t.code('SELECT qml_enqueue(''m'')');
SELECT jobs.qml_enqueue('m', queue => 'q', id => t.id(1)) = t.id(1) AS made;
SELECT t.n(id), method FROM jobs.qml_fetch('w');
SELECT jobs.qml_succeed(t.id(1), 1);
SELECT state FROM jobs.qml_job(t.id(1));
SELECT state FROM qml.job;
-- ... and for whoever is granted something
CREATE ROLE regress_qml_worker;
SELECT jobs.qml_grant('regress_qml_worker', 'work');
SELECT jobs.qml_enqueue('m', queue => 'q', id => t.id(2)) = t.id(2) AS made;
GRANT USAGE ON SCHEMA t TO regress_qml_worker;
SET ROLE regress_qml_worker;
SELECT method, queue, worker ~ '^regress_qml_worker-\d+$' AS worker FROM jobs.qml_fetch();
SELECT jobs.qml_succeed(id, attempt) FROM qml.job WHERE state = 'processing';
SELECT jobs.qml_enqueue('m');
RESET ROLE;
SELECT jobs.qml_revoke('regress_qml_worker', 'work');
REVOKE ALL ON SCHEMA t, jobs FROM regress_qml_worker;
-- Nothing is left of it in the role's rights
DROP ROLE regress_qml_worker;
-- Whatever the search path holds
SET search_path = pg_temp;
SELECT jobs.qml_enqueue('m', id => t.id(3)) = t.id(3) AS made;
SELECT jobs.qml_maintain() ->> 'promoted' AS promoted;
RESET search_path;
DROP EXTENSION qml;
DROP SCHEMA jobs;

-- A schema or objects of that name are not taken over.  From version 18 on the context is the statement in the script.
\set SHOW_CONTEXT never
CREATE SCHEMA qml;
CREATE TABLE qml.live (id int);
CREATE EXTENSION qml;
SELECT count(*) FROM pg_extension WHERE extname = 'qml';
SELECT count(*) FROM pg_proc WHERE proname ~ '^qml_';
SELECT count(*) FROM qml.live;
DROP SCHEMA qml CASCADE;
CREATE FUNCTION qml_fetch(worker text DEFAULT NULL, queues anycompatible DEFAULT NULL::text, batch int DEFAULT 1, lease interval DEFAULT NULL, methods text[] DEFAULT NULL)
	RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE EXTENSION qml;
SELECT count(*) FROM pg_namespace WHERE nspname = 'qml';
DROP FUNCTION qml_fetch;
\set SHOW_CONTEXT errors

-- With the library but without the extension
CREATE FUNCTION t.enqueue(method text, payload jsonb, queue text, priority int, run_at timestamptz, max_retries int, timeout interval,
	metadata jsonb, job_type text, id uuid, delay interval, options jsonb) RETURNS uuid AS '$libdir/qml', 'qml_enqueue' LANGUAGE C;
SELECT t.try('SELECT t.enqueue(''m'', ''{}'', ''q'', 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)');
CREATE SCHEMA qml;
CREATE TABLE qml.live (id int);
SELECT t.try('SELECT t.enqueue(''m'', ''{}'', ''q'', 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)');
DROP SCHEMA qml CASCADE;
DROP FUNCTION t.enqueue;

-- As it was
CREATE EXTENSION qml;
