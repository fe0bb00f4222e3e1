-- Tests of jobs with pgTAP.
--
-- All of it is one transaction that is rolled back: no worker sees its jobs, and nothing is left.
-- An administrator becomes the role of the handlers by SET SESSION AUTHORIZATION: SET ROLE is not
-- enough, because a handler's role is the session user of what it does.
--
--     pg_prove shop.pgtap.sql        or        psql -XqAt -f shop.pgtap.sql

BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SELECT plan(9);

SET LOCAL SESSION AUTHORIZATION shop;
INSERT INTO orders VALUES (1, 'Ada');

-- A job: qml_run() returns it as it is afterwards.
SELECT results_eq(
	$$SELECT state::text, result FROM qml_run(qml_enqueue('send_receipt', '{"order": 1}', queue => 'mail'))$$,
	$$VALUES ('succeeded', '"Ada"'::jsonb)$$, 'the job succeeds');
SELECT is((SELECT customer FROM receipts), 'Ada', 'the receipt is sent');

-- One that fails: what it did is undone, and the transaction goes on.
CREATE TEMP TABLE ship AS SELECT id, error, state, errors FROM qml_run(qml_enqueue('ship', '{"order": 2}', queue => 'orders'));
SELECT is(error, 'there is no order 2', 'the error is recorded') FROM ship;
SELECT is(state || ' ' || (errors -> 0 ->> 'error_type'), 'awaiting_retry P0002', 'and will be retried') FROM ship;
INSERT INTO orders VALUES (2, 'Bob');
SELECT is((qml_run(id)).state, 'succeeded', 'the next attempt, without waiting for its time') FROM ship;

-- Jobs that make jobs, and those of tomorrow.
SELECT is(qml_drain(), 1, 'shipping has made one job');
SELECT is(qml_drain(scheduled => true), 2, 'two reminders are due tomorrow');
SELECT is(count(*)::int, 4, 'all receipts') FROM receipts;

-- A method without a handler: the test is the worker.
SELECT is(qml_fail(id, attempt, 'out of paper'), 'awaiting_retry', 'a worker outside the database')
	FROM qml_fetch_job(qml_enqueue('print_label', '{"order": 1}', queue => 'orders'), 'test');

SELECT * FROM finish();
ROLLBACK;
