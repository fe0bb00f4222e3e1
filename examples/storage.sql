-- How jobs are stored: the same calls for each storage class, and what a class is for.  In a scratch
-- database that has qml, preloaded:
--
--     psql -X -f examples/storage.sql
--
-- It leaves nothing behind but finished jobs, which expire.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
SET client_min_messages = warning;
CREATE SCHEMA storage;
SET search_path = storage, public;
CREATE FUNCTION error_of(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
\set ECHO queries

\echo
\echo '== A queue is durable if you do not say otherwise: what is committed outlives a crash of the server.'
\echo '== A crash loses nothing.'
SELECT qml_create_queue('payments') AS created;

\echo '== "async": a commit of nothing but jobs does not wait for the disk.  A crash loses the last such'
\echo '== transactions, each as a whole: jobs, claims and ends of less than a second.  For jobs that can be'
\echo '== made again, and may run twice, such as resizing an image.'
SELECT qml_create_queue('thumbnails', '{"storage": "async"}') AS created;

\echo '== "unlogged": jobs are not written to the WAL.  A crash, or a failover, loses all of them, finished or'
\echo '== not; a clean restart loses none.  For jobs that nobody misses, such as filling a cache.'
SELECT qml_create_queue('cache', '{"storage": "unlogged"}') AS created;
SELECT name, coalesce(options ->> 'storage', 'durable') AS storage FROM qml.queue WHERE name IN ('payments', 'thumbnails', 'cache') ORDER BY name;

\echo '== Producers and workers do not notice: the calls are the same, for all three queues in one transaction too.'
SELECT qml_enqueue('charge', '{"order": 1}', queue => 'payments') IS NOT NULL AS enqueued;
SELECT count(*) AS enqueued FROM qml_enqueue_many('resize', ARRAY['{"image": 7}', '{"image": 8}']::jsonb[], 'thumbnails');
SELECT qml_enqueue('warm', '{"page": "/"}', queue => 'cache') IS NOT NULL AS enqueued;
CREATE TABLE work AS SELECT id, queue, method, payload, attempt FROM qml_fetch('my program', '{payments,thumbnails,cache}'::text[], 10);
SELECT queue, method, payload FROM work ORDER BY queue, payload::text;
SELECT count(qml_succeed(id, attempt)) AS done FROM work;

\echo '== What else a transaction writes is never at risk.  With a row of yours in it, it is durable, and so are'
\echo '== its jobs of async queues: after a crash the row and the job are there.  Only a job of an unlogged queue'
\echo '== is not there after a crash; the row is.'
CREATE TABLE images (id int PRIMARY KEY);
BEGIN;
INSERT INTO images VALUES (9);
SELECT qml_enqueue('resize', '{"image": 9}', queue => 'thumbnails') AS job \gset
SELECT qml_enqueue('warm', '{"image": 9}', queue => 'cache') AS other \gset
COMMIT;

\echo
\echo '== The class is fixed while the queue has unfinished jobs ...'
SELECT error_of($$SELECT qml_alter_queue('thumbnails', '{"storage": "durable"}')$$);

\echo '== ... and can be changed when it has none.'
SELECT qml_delete(:'job') AS deleted;
SELECT qml_alter_queue('thumbnails', '{"storage": "durable"}') AS altered;
SELECT name, coalesce(options ->> 'storage', 'durable') AS storage FROM qml.queue WHERE name IN ('payments', 'thumbnails', 'cache') ORDER BY name;

\set ECHO none
SELECT qml_delete(:'other') \g /dev/null
SELECT qml_drop_queue('payments'), qml_drop_queue('thumbnails'), qml_drop_queue('cache') \g /dev/null
SET client_min_messages = error;
DROP SCHEMA storage CASCADE;
