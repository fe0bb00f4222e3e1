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
SELECT qml_create_queue('payments') AS created;

\echo '== "async": a commit of nothing but jobs does not wait for the disk.  After a crash the last moments'
\echo '== may be missing.  For jobs that can be made again, such as filling a cache.'
SELECT qml_create_queue('thumbnails', '{"storage": "async"}') AS created;
SELECT name, coalesce(options ->> 'storage', 'durable') AS storage FROM qml.queue WHERE name IN ('payments', 'thumbnails') ORDER BY name;

\echo '== Producers and workers do not notice: the calls are the same, for both queues in one transaction too.'
SELECT qml_enqueue('charge', '{"order": 1}', queue => 'payments') IS NOT NULL AS enqueued;
SELECT count(*) AS enqueued FROM qml_enqueue_many('resize', ARRAY['{"image": 7}', '{"image": 8}']::jsonb[], 'thumbnails');
CREATE TABLE work AS SELECT id, queue, method, payload, attempt FROM qml_fetch('my program', '{payments,thumbnails}'::text[], 10);
SELECT queue, method, payload FROM work ORDER BY queue, payload::text;
SELECT count(qml_succeed(id, attempt)) AS done FROM work;

\echo '== What else a transaction writes is never at risk: with a row of yours in it, it is durable, whatever the queue.'
CREATE TABLE images (id int PRIMARY KEY);
BEGIN;
INSERT INTO images VALUES (9);
SELECT qml_enqueue('resize', '{"image": 9}', queue => 'thumbnails') AS job \gset
COMMIT;

\echo
\echo '== The class is fixed while the queue has unfinished jobs ...'
SELECT error_of($$SELECT qml_alter_queue('thumbnails', '{"storage": "durable"}')$$);

\echo '== ... and can be changed when it has none.'
SELECT qml_delete(:'job') AS deleted;
SELECT qml_alter_queue('thumbnails', '{"storage": "durable"}') AS altered;
SELECT name, coalesce(options ->> 'storage', 'durable') AS storage FROM qml.queue WHERE name IN ('payments', 'thumbnails') ORDER BY name;

\set ECHO none
SELECT qml_drop_queue('payments'), qml_drop_queue('thumbnails') \g /dev/null
SET client_min_messages = error;
DROP SCHEMA storage CASCADE;
