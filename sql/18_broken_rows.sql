--
-- Rows that cannot be worked with, for somebody edited them: they are passed over,
-- told about once a minute in each session, and hide none of the others.
--
SELECT t.reset();
-- Who edits states takes this away first
ALTER TABLE qml.live DROP CONSTRAINT live_state;
-- Jobs as they are stored, in the order in which a scan of the table finds them
CREATE FUNCTION t.show() RETURNS TABLE (n int, state qml.job_state, attempt int, run_at boolean, lease boolean, errors text) LANGUAGE sql
AS $$ SELECT t.n(id), state, attempt, run_at IS NOT NULL, lease_expires_at IS NOT NULL, CASE WHEN errors @? '$[*]' THEN errors #>> '{-1,error_type}' ELSE errors::text END
	FROM qml.live ORDER BY ctid $$;

-------------------------------------------------------------------------------
-- Promotion
-------------------------------------------------------------------------------

SELECT count(qml_enqueue('m', '{"secret": 1}', 'q', id => t.id(n), run_at => now() + interval '1 h')) FROM generate_series(1, 9) n;
-- Due in the order of their numbers
UPDATE qml.live SET run_at = now() - (30 - t.n(id)) * interval '1 min';
-- States that nothing is due in; from processing and failed there is a way back, though
UPDATE qml.live SET state = 'enqueued' WHERE id = t.id(1);
UPDATE qml.live SET state = 'succeeded' WHERE id = t.id(2);
UPDATE qml.live SET state = 'deleted' WHERE id = t.id(3);
UPDATE qml.live SET state = 'processing' WHERE id = t.id(4);
UPDATE qml.live SET state = 'failed' WHERE id = t.id(5);
-- A queue that there is not, which promotion does not ask for
UPDATE qml.live SET queue_id = 0 WHERE id = t.id(6);
\c
\set VERBOSITY default
-- The three that cannot be changed are more than it may do, and come first
SELECT qml_promote_due(2);
SELECT * FROM t.show() ORDER BY n;
SELECT qml_promote_due(1), qml_promote_due(5), qml_promote_due(5);
SELECT * FROM t.show() ORDER BY n;
-- In a transaction that goes on, and one that is rolled back
SELECT qml_reschedule(t.id(9), now() - interval '1 min');
BEGIN;
SELECT qml_promote_due();
SELECT n, state FROM t.show() WHERE n = 9;
ROLLBACK;
SELECT n, state FROM t.show() WHERE n = 9;
SELECT qml_promote_due();
-- Mended, they are as good as any
UPDATE qml.live SET state = 'scheduled' WHERE id <= t.id(3);
SELECT qml_promote_due();

-------------------------------------------------------------------------------
-- Reclaim
-------------------------------------------------------------------------------

SELECT t.reset();
SELECT count(qml_enqueue('m', '{"secret": 1}', 'q', id => t.id(n), max_retries => CASE WHEN n = 9 THEN 0 END)) FROM generate_series(1, 9) n;
SELECT count(*) FROM qml_fetch('w', batch => 9, lease => '1 us');
UPDATE qml.live SET queue_id = 0 WHERE id = t.id(1);
UPDATE qml.live SET state = 'enqueued' WHERE id = t.id(2);
UPDATE qml.live SET state = 'succeeded' WHERE id = t.id(3);
UPDATE qml.live SET state = 'deleted' WHERE id = t.id(4);
UPDATE qml.live SET errors = '5' WHERE id = t.id(5);
UPDATE qml.live SET errors = '{"a": 1}' WHERE id = t.id(6);
UPDATE qml.live SET errors = '[["error", "error_type"]]' WHERE id = t.id(7);
SELECT n, (qml_job(t.id(n))).error, (qml_job(t.id(n))).errors FROM generate_series(5, 7) n;
-- The good ones come last
UPDATE qml.live SET progress = '1' WHERE id >= t.id(7);
SELECT * FROM t.show();
\c
\set VERBOSITY default
SELECT qml_reclaim(1), qml_reclaim(1);
SELECT * FROM t.show() ORDER BY n;
SELECT qml_reclaim(100), qml_reclaim(100);
SELECT * FROM t.show() ORDER BY n;
SELECT t.n(id), state, errors #>> '{-1,error_type}' AS error_type FROM qml.job WHERE state = 'failed';

-- A server that is gone, the same
SELECT t.reset();
SELECT qml_register_server('s') AS s \gset
SELECT count(qml_enqueue('m', '{"secret": 1}', 'q', id => t.id(n))) FROM generate_series(1, 4) n;
SELECT count(*) FROM qml_fetch(:'s' || '/w', batch => 9, lease => '1 day');
UPDATE qml.live SET queue_id = 0 WHERE id <= t.id(2);
UPDATE qml.live SET progress = '1' WHERE id > t.id(2);
\c
\set VERBOSITY default
SELECT qml_reclaim_server(:'s');
SELECT * FROM t.show();
SELECT qml_unregister_server(:'s');

-------------------------------------------------------------------------------
-- Numbers of attempts: the last one is given, and then the job fails
-------------------------------------------------------------------------------

SELECT t.reset();
SELECT count(qml_enqueue('m', queue => 'q', id => t.id(n))) FROM generate_series(1, 5) n;
UPDATE qml.live SET attempt = 2147483646, uncounted = 2147483646 WHERE id = t.id(1);
UPDATE qml.live SET attempt = 2147483647, uncounted = 2147483646 WHERE id = t.id(2);
-- Of another server or timeline
UPDATE qml.live SET lineage = lineage # 1, attempt = 2147483647 - 65537 WHERE id = t.id(3);
UPDATE qml.live SET lineage = lineage # 1, attempt = 2147483647 - 65536 WHERE id = t.id(4);
\set VERBOSITY default
SELECT qml_set_state(t.id(2), 'processing');
SELECT t.n(id), attempt, tries FROM qml_fetch('w', batch => 10);
SELECT t.n(id), state, attempt, error, errors #>> '{-1,error_type}' AS type FROM qml.job WHERE state = 'failed' ORDER BY id;
-- No retry helps
SELECT qml_retry(t.id(2));
SELECT count(*) FROM qml_fetch('w');
SELECT state, attempt FROM qml_job(t.id(2));

-------------------------------------------------------------------------------
-- All of it in one
-------------------------------------------------------------------------------

SELECT t.reset();
SELECT count(qml_enqueue('m', id => t.id(n), queue => 'q')) FROM generate_series(1, 2) n;
SELECT count(*) FROM qml_fetch('w', batch => 2, lease => '1 us');
SELECT count(qml_enqueue('m', id => t.id(n), queue => 'q', run_at => now() + interval '1 h')) FROM generate_series(3, 4) n;
SELECT qml_schedule_recurring('bad', '@yearly', 'm') IS NOT NULL, qml_schedule_recurring('good', '@yearly', 'm', queue => 'r') IS NOT NULL;
UPDATE qml.live SET queue_id = 0 WHERE id = t.id(1);
UPDATE qml.live SET run_at = now() - interval '1 h' WHERE id >= t.id(3);
UPDATE qml.live SET state = 'succeeded' WHERE id = t.id(3);
UPDATE qml.recurring_data SET next_run_at = date_trunc('year', now()), metadata = CASE id WHEN 'bad' THEN '[]' END::jsonb;
SELECT qml_try_lock('l', 'o', '1 us') IS NOT NULL;
\c
\set VERBOSITY default
SELECT qml_maintain() - '{partitions_created,partitions_dropped}'::text[] AS done;
SELECT t.n(id), state FROM qml.live WHERE id <= t.id(4) ORDER BY id;
SELECT queue, state, count FROM qml_queue_counts();

-- A step that fails undoes no other, whatever it had done itself
SELECT t.reset();
CREATE FUNCTION t.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF coalesce(current_setting('t.refuse', true), '') <> '' THEN
		RAISE EXCEPTION 'refused: %', tg_table_name USING ERRCODE = current_setting('t.refuse');
	END IF;
	RETURN CASE tg_op WHEN 'DELETE' THEN old ELSE new END;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON qml.server_data FOR EACH ROW EXECUTE FUNCTION t.refuse();
CREATE TRIGGER refuse BEFORE DELETE ON qml.lock_data FOR EACH ROW EXECUTE FUNCTION t.refuse();
CREATE FUNCTION t.make_due() RETURNS void LANGUAGE sql AS $$
	SELECT qml_enqueue('m', id => t.id(1), queue => 'q');
	SELECT id FROM qml_fetch('w', lease => '1 us');
	SELECT qml_enqueue('m', id => t.id(2), queue => 'q', run_at => now() + interval '1 h');
	UPDATE qml.live SET run_at = now() - interval '1 h' WHERE id = t.id(2);
	SELECT qml_register_server('s');
	UPDATE qml.server_data SET heartbeat_at = now() - interval '1 h';
	SELECT qml_try_lock('l', 'o', '1 us') $$;
\c
\set VERBOSITY default
SELECT t.make_due();
-- Not what concerns the whole call: a cancel, a conflict of transactions
SET t.refuse = '57014';
SELECT qml_maintain();
SET t.refuse = '40001';
SELECT qml_maintain();
SET t.refuse = '40P01';
SELECT qml_maintain();
RESET t.refuse;
SELECT t.n(id), state FROM qml.live ORDER BY id;
BEGIN;
SET LOCAL t.refuse = 'P0001';
SELECT qml_maintain() - '{partitions_created,partitions_dropped}'::text[] AS done;
COMMIT;
SELECT t.n(id), state FROM qml.live ORDER BY id;
SELECT count(*) AS alive FROM qml.server_data WHERE dead_at IS NULL;
-- The next call does what was left
SELECT qml_maintain() - '{partitions_created,partitions_dropped}'::text[] AS done;
SELECT count(*) AS alive FROM qml.server_data WHERE dead_at IS NULL;
DROP TRIGGER refuse ON qml.server_data;
DROP TRIGGER refuse ON qml.lock_data;
DROP FUNCTION t.refuse, t.make_due;

SELECT t.reset();
DROP FUNCTION t.show;
ALTER TABLE qml.live ADD CONSTRAINT live_state CHECK (state IN ('scheduled', 'enqueued', 'processing', 'awaiting_retry', 'awaiting_parents'));
