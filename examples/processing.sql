-- Queues, priorities, retries, failures, delays, schedules.  In a scratch database that has qml,
-- preloaded:
--
--     psql -X -f examples/processing.sql
--
-- It takes some seconds, and leaves nothing behind but finished jobs, which expire.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
SET client_min_messages = warning;
CREATE SCHEMA processing;
\set ECHO queries

\echo
\echo '== Two queues.  Jobs of the first are retried twice, after a fifth of a second.'
SELECT qml_create_queue('letters', '{"max_retries": 2, "retry": {"strategy": "fixed", "delay": "0.2 s"}}') AS letters,
	qml_create_queue('reports') AS reports;

\echo '== The work: who has no address gets no letter.  A report is one line.'
CREATE TABLE processing.address (name text PRIMARY KEY, road text);
CREATE TABLE processing.sent (number serial, name text, road text);
CREATE TABLE processing.report (number serial, letters bigint);
INSERT INTO processing.address VALUES ('Ada', 'Elm Road'), ('Grace', 'Oak Road'), ('Linus', 'Fir Road'), ('Alan', 'Ash Road');
CREATE FUNCTION processing.send_letter(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	road text := (SELECT a.road FROM processing.address a WHERE a.name = send_letter.name);
BEGIN
	IF road IS NULL THEN
		RAISE EXCEPTION '% has no address', name;
	ELSIF name = 'Alan' AND (qml_current_job()).tries = 1 THEN
		RAISE EXCEPTION 'the post office is closed';
	END IF;
	INSERT INTO processing.sent (name, road) VALUES (name, road);
	RETURN 'sent to ' || road;
END $$;
CREATE FUNCTION processing.report() RETURNS void LANGUAGE sql AS $$
	INSERT INTO processing.report (letters) SELECT count(*) FROM processing.sent
$$;
SELECT qml_register_handler('send_letter', 'processing.send_letter', '{"queue": "letters", "concurrency": 1}') AS letters,
	qml_register_handler('report', 'processing.report', '{"queue": "reports"}') AS reports;

\echo '== Priorities: three letters wait in a paused queue.  The most urgent one goes first.'
SELECT qml_pause_queue('letters') AS paused;
SELECT qml_enqueue('send_letter', '{"name": "Ada"}') AS job \gset
SELECT qml_enqueue('send_letter', '{"name": "Grace"}', priority => 5) IS NOT NULL AS grace,
	qml_enqueue('send_letter', '{"name": "Linus"}', priority => 9) IS NOT NULL AS linus;
SELECT qml_resume_queue('letters') AS resumed;
CALL qml_wait_for(:'job');
SELECT number, name, road FROM processing.sent ORDER BY number;

\echo '== A failure that passes: the letter to Alan goes at the second attempt.'
SELECT qml_enqueue('send_letter', '{"name": "Alan"}') AS job \gset
CALL qml_wait_for(:'job');
SELECT state, tries, result, error AS last_error FROM qml_job(:'job');

\echo '== A failure that stays: Eve has no address.  After two retries the job fails for good.'
SELECT qml_enqueue('send_letter', '{"name": "Eve"}') AS job \gset
CALL qml_wait_for(:'job');
SELECT state, tries, retries_left, jsonb_array_length(errors) AS errors, error AS last_error FROM qml_job(:'job');

\echo '== Mend the cause, and retry it by hand.'
INSERT INTO processing.address VALUES ('Eve', 'Bay Road');
SELECT qml_retry(:'job') AS retried;
CALL qml_wait_for(:'job');
SELECT state, tries, result FROM qml_job(:'job');

\echo '== Later: a job with a delay.'
SELECT qml_enqueue('send_letter', '{"name": "Ada"}', delay => '2 seconds') AS job \gset
SELECT state, run_at > now() AS waits FROM qml_job(:'job');
CALL qml_wait_for(:'job');
SELECT state, started_at >= ready_at AS not_before_its_time FROM qml_job(:'job');

\echo '== Again and again: a report each second, until there are two.'
SELECT qml_schedule_recurring('processing', '* * * * * *', 'report') > now() AS scheduled;
DO $$ BEGIN WHILE (SELECT count(*) FROM processing.report) < 2 LOOP PERFORM pg_sleep(0.1); END LOOP; END $$;
SELECT qml_remove_recurring('processing') AS removed;
SELECT number, letters FROM processing.report ORDER BY number LIMIT 2;

\set ECHO none
SELECT qml_unregister_handler('send_letter'), qml_unregister_handler('report') \g /dev/null
SELECT qml_drop_queue('letters'), qml_drop_queue('reports') \g /dev/null
DROP SCHEMA processing CASCADE;
