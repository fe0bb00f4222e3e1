-- One job from beginning to end.  In a scratch database that has qml, preloaded:
--
--     psql -X -f examples/basic_job.sql
--
-- It leaves nothing behind but two finished jobs, which expire.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
SET client_min_messages = warning;
CREATE SCHEMA basic_job;
SELECT qml_create_queue('basic_job') \g /dev/null
\set ECHO queries

\echo
\echo '== A handler: a function that does the jobs of one method, inside the server.'
CREATE FUNCTION basic_job.greet(name text) RETURNS text LANGUAGE sql AS $$ SELECT 'Hello ' || name $$;
SELECT qml_register_handler('greet', 'basic_job.greet', '{"queue": "basic_job"}') AS registered;

\echo '== Enqueue a job.  It is part of your transaction: after a ROLLBACK there is none.'
BEGIN;
SELECT qml_enqueue('greet', '{"name": "Nobody"}') IS NOT NULL AS enqueued;
ROLLBACK;
SELECT qml_enqueue('greet', '{"name": "Ada"}') AS job \gset

\echo
\echo '== A worker does it as soon as that is committed.  Wait for it, and look at the result.'
CALL qml_wait_for(:'job');
SELECT method, payload, state, attempt, result FROM qml_job(:'job');

\echo '== Or a program of yours does the work: it fetches a job ...'
SELECT qml_enqueue('resize', '{"image": 7}', queue => 'basic_job') IS NOT NULL AS enqueued;
SELECT id, attempt, method, payload, state FROM qml_fetch('my program', 'basic_job') \gset my_
\echo my program got: :my_method :my_payload, :my_state
\echo
\echo '== ... and says how it ended.'
SELECT qml_succeed(:'my_id', :my_attempt, '{"width": 640}') AS accepted;

\echo '== Both stay in sight until they expire, after a day if you do not say otherwise.'
SELECT method, state, result, date_trunc('day', expires_at - finished_at) AS kept FROM qml.job WHERE id IN (:'job', :'my_id') ORDER BY id;

\set ECHO none
SELECT qml_unregister_handler('greet'), qml_drop_queue('basic_job') \g /dev/null
DROP SCHEMA basic_job CASCADE;
