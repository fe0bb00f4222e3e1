--
-- Recurring jobs: what becomes of each tick, overlapping jobs, intervals.
--
SELECT t.reset();
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';

CREATE FUNCTION t.ago(seconds int) RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT date_trunc('second', now()) - seconds * interval '1 s' $$;
-- Makes a schedule due: its next tick was so many seconds ago.
CREATE FUNCTION t.due(schedule text, seconds int DEFAULT 1) RETURNS void LANGUAGE sql
AS $$ UPDATE qml.recurring_data SET next_run_at = t.ago(seconds) WHERE id = schedule $$;
-- A schedule that is due at once, each time that it is made due: not again by itself in this test.
CREATE FUNCTION t.poll(schedule text) RETURNS int LANGUAGE sql
AS $$ UPDATE qml.recurring_data SET last_run_at = NULL WHERE id = schedule;
	DELETE FROM qml.occurrence_data WHERE recurring = schedule;
	SELECT t.due(schedule);
	SELECT qml_poll_recurring() $$;
CREATE FUNCTION t.place(schedule text) RETURNS text LANGUAGE sql
AS $$ SELECT concat_ws(' ', xmin, ctid) FROM qml.recurring_data WHERE id = schedule $$;
CREATE FUNCTION t.finish(schedule text) RETURNS void LANGUAGE sql
AS $$ SELECT qml_succeed(f.id, f.attempt) FROM qml_fetch('w', ARRAY[schedule], 100) f $$;

-------------------------------------------------------------------------------
-- Overlap
-------------------------------------------------------------------------------

\pset format unaligned
\pset tuples_only on
SELECT t.try(format('SELECT qml_schedule_recurring(''r'', ''@yearly'', ''m'', overlap => %L)', overlap)) FROM unnest(ARRAY['', 'queue_two', 'forbid', NULL]) overlap;
SELECT t.try(format('SELECT qml_schedule_recurring(''r'', ''@yearly'', ''m'', job_type => %L)', job_type)) FROM unnest(ARRAY['', E'a\nb']) job_type;
\pset format aligned
\pset tuples_only off
SELECT count(*) FROM qml.recurring;
SELECT qml_schedule_recurring(id, '@yearly', 'm', queue => id, overlap => id, job_type => 'of ' || id) IS NOT NULL FROM unnest('{allow,skip,queue_one}'::text[]) id;
SELECT id, overlap, job_type FROM qml.recurring ORDER BY id;
SELECT qml_schedule_recurring('plain', '@yearly', 'm') IS NOT NULL;
SELECT overlap, job_type FROM qml.recurring WHERE id = 'plain';
-- The same again changes nothing; both count
SELECT t.place('skip') AS place \gset
SELECT qml_schedule_recurring('skip', '@yearly', 'm', queue => 'skip', overlap => 'skip', job_type => 'of skip') IS NOT NULL, t.place('skip') = :'place' AS not_written;
SELECT qml_schedule_recurring('skip', '@yearly', 'm', queue => 'skip', overlap => 'skip', job_type => 'other') IS NOT NULL, t.place('skip') = :'place' AS not_written;
SELECT qml_schedule_recurring('skip', '@yearly', 'm', queue => 'skip', overlap => 'allow', job_type => 'other') IS NOT NULL;
SELECT overlap, job_type FROM qml.recurring WHERE id = 'skip';
SELECT qml_schedule_recurring('skip', '@yearly', 'm', queue => 'skip', overlap => 'skip', job_type => 'of skip') IS NOT NULL;

-- While its job waits, is processed, and waits to be retried
SELECT t.poll('allow') AS allow, t.poll('skip') AS skip, t.poll('queue_one') AS queue_one;
SELECT queue, job_type FROM qml.job ORDER BY 1;
SELECT t.poll('allow') AS allow, t.poll('skip') AS skip, t.poll('queue_one') AS queue_one;
SELECT schedule, outcome, job IS NULL AS no_job FROM qml.recurring_tick ORDER BY 1;
SELECT count(*) FROM qml_fetch('w', '{skip,queue_one}', 10);
SELECT t.poll('skip') AS skip, t.poll('queue_one') AS queue_one, t.poll('queue_one') AS no_second;
SELECT qml_fail(id, 1, 'oops', retry_at => now() + interval '1 h') FROM qml.job WHERE queue = 'skip';
SELECT t.poll('skip') AS skip;
-- Two that run, and none that waits: a third one would run beside them
SELECT count(*) FROM qml_fetch('w', '{queue_one}', 10);
SELECT t.poll('queue_one') AS two_run;
SELECT qml_succeed(id, attempt) FROM qml.job WHERE queue = 'queue_one' ORDER BY id LIMIT 1;
SELECT t.poll('queue_one') AS one_runs, t.poll('queue_one') AS one_waits;
-- Finished, failed for good, or deleted, also if nothing of it is kept
SELECT qml_retry(id) FROM qml.job WHERE queue = 'skip';
SELECT t.poll('skip') AS none;
SELECT t.finish('skip');
SELECT t.poll('skip') AS one;
SELECT qml_fail(id, attempt, 'oops', retry => false) FROM qml_fetch('w', '{skip}');
SELECT t.poll('skip') AS one;
SELECT qml_delete(id) FROM qml.live WHERE id = (SELECT last_job FROM qml.recurring WHERE id = 'skip');
SELECT t.poll('skip') AS one;
SELECT qml_alter_queue('skip', '{"succeeded_ttl": 0}');
SELECT t.finish('skip');
SELECT count(*) FROM qml.job WHERE id = (SELECT last_job FROM qml.recurring WHERE id = 'skip');
SELECT t.poll('skip') AS one, t.poll('skip') AS none;
-- One that is retried by hand counts, until a tick has seen it finished
SELECT qml_fail(id, attempt, 'oops', retry => false) AS failed, id AS retried FROM qml_fetch('w', '{skip}') \gset
SELECT qml_retry(:'retried');
SELECT t.poll('skip') AS none;
SELECT qml_fail(id, attempt, 'oops', retry => false) FROM qml_fetch('w', '{skip}');
SELECT t.poll('skip') AS one;
SELECT qml_retry(:'retried');
SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{skip}', 10) WHERE id <> :'retried';
SELECT t.poll('skip') AS one;
SELECT t.finish('skip');
SELECT qml_succeed(:'retried', 3);
-- What is finished in a transaction that is prepared is unfinished
SELECT t.poll('skip') AS one;
BEGIN;
SELECT t.finish('skip');
PREPARE TRANSACTION 'regress_qml_ticks';
SELECT t.poll('skip') AS none;
COMMIT PREPARED 'regress_qml_ticks';
SELECT t.poll('skip') AS one;
-- At the stricter levels what is committed counts
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT t.poll('skip') AS none;
SELECT t.finish('skip');
SELECT t.poll('skip') AS one;
COMMIT;
SELECT t.finish('skip');
-- A run by hand is not asked, but counted
SELECT qml_run_recurring('skip') IS NOT NULL, qml_run_recurring('skip') IS NOT NULL;
SELECT t.poll('skip') AS none;
SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{skip}');
SELECT t.poll('skip') AS none;
SELECT t.finish('skip');
SELECT t.poll('skip') AS one;
-- Of ticks that are due at once, one fires
SELECT t.finish('skip');
SELECT qml_schedule_recurring('skip', '* * * * * *', 'm', queue => 'skip', overlap => 'skip', misfire => 'fire_all') IS NOT NULL;
UPDATE qml.recurring_data SET last_run_at = NULL WHERE id = 'skip';
DELETE FROM qml.occurrence_data;
SELECT t.due('skip', 200);
SELECT qml_poll_recurring() AS one;
SELECT outcome, count(*) >= 200 AS many, count(*) = 1 AS one, count(job) FROM qml.recurring_tick WHERE schedule = 'skip' GROUP BY 1 ORDER BY 1;
-- Begun later, it starts with the latest job
SELECT t.reset();
SELECT qml_schedule_recurring('a', '@yearly', 'm') IS NOT NULL;
SELECT t.poll('a') AS one, t.poll('a') AS one;
SELECT qml_schedule_recurring('a', '@yearly', 'm', overlap => 'skip') IS NOT NULL;
SELECT t.poll('a') AS none;
SELECT qml_delete(last_job) FROM qml.recurring;
SELECT t.poll('a') AS one;
-- A policy or an array that somebody wrote by hand
UPDATE qml.recurring_data SET open_jobs = '{NULL}' WHERE id = 'a';
SELECT t.poll('a') AS one;
UPDATE qml.recurring_data SET overlap = 'never' WHERE id = 'a';
SELECT t.poll('a') AS one;
-- Run by hand very often, it remembers the last hundred
SELECT qml_schedule_recurring('a', '@yearly', 'm', overlap => 'queue_one') IS NOT NULL;
SELECT count(qml_run_recurring('a')) FROM generate_series(1, 120);
SELECT cardinality(open_jobs) FROM qml.recurring_data;
SELECT open_jobs[100] = (SELECT id FROM qml.job ORDER BY id DESC LIMIT 1) AS with_the_last FROM qml.recurring_data;

-------------------------------------------------------------------------------
-- Intervals
-------------------------------------------------------------------------------

SELECT t.reset();
SELECT qml_cron_next('every 90 seconds', '2026-01-01 00:00:30.5Z', n => 3);
SELECT qml_cron_next('Every 2 Hours', '2026-03-29 00:30Z', 'Europe/Berlin', 3);
SELECT qml_cron_next('every 3650 days', '294276-01-01');
\pset format unaligned
\pset tuples_only on
SELECT t.try(format('SELECT qml_cron_next(%L)', cron)) FROM unnest(ARRAY['every', 'every 0 seconds', 'every 2 months', 'every 5m', 'every -5 minutes', 'every 90 seconds 5', 'every 3651 days', 'every ü', 'every 5 ' || repeat('x', 250), 'everyday', '@every 5 minutes']) WITH ORDINALITY c (cron, n) ORDER BY n;
\pset format aligned
\pset tuples_only off
-- Counted from the second in which it was defined
SELECT now() AS began \gset
SELECT qml_schedule_recurring('i', 'every 90 minutes', 'm', timezone => 'Europe/Berlin') - date_trunc('second', clock_timestamp()) BETWEEN '89 min 58 s' AND '90 min' AS in_time;
SELECT anchor BETWEEN date_trunc('second', timestamptz :'began') AND clock_timestamp() AS of_now, anchor = date_trunc('second', anchor) AS even, next_run_at - anchor AS first FROM qml.recurring_data;
SELECT cron, next_runs[1] = next_run_at AS first, next_runs[2] - next_runs[1] AS step, cardinality(next_runs) FROM qml.recurring;
-- The same again changes nothing; what is no time keeps the rhythm; new times begin anew
UPDATE qml.recurring_data SET anchor = anchor - interval '1000 min', next_run_at = anchor - interval '1000 min' + 12 * interval '90 min';
SELECT t.place('i') AS place, anchor, next_run_at FROM qml.recurring_data \gset
SELECT qml_schedule_recurring('i', 'every 90 minutes', 'm', timezone => 'Europe/Berlin') = :'next_run_at' AS kept, t.place('i') = :'place' AS not_written;
SELECT qml_schedule_recurring('i', 'every 90 minutes', 'm', '[1]', timezone => 'Europe/Berlin') = :'next_run_at' AS kept;
SELECT anchor = :'anchor' AS kept FROM qml.recurring_data;
SELECT qml_pause_recurring('i'), qml_resume_recurring('i');
SELECT anchor = :'anchor' AS kept, next_run_at = :'next_run_at' AS kept FROM qml.recurring_data;
-- Nor does one that could not fire
UPDATE qml.recurring_data SET error = 'x', next_run_at = NULL;
SELECT qml_schedule_recurring('i', 'every 90 minutes', 'm', '[1]', timezone => 'Europe/Berlin') = :'next_run_at' AS kept;
SELECT anchor = :'anchor' AS kept, error FROM qml.recurring_data;
SELECT qml_schedule_recurring('i', 'every 3 hours', 'm') - clock_timestamp() > interval '179 min' AS anew;
SELECT qml_schedule_recurring('i', '@yearly', 'm') IS NOT NULL;
SELECT anchor IS NULL AS no_anchor FROM qml.recurring_data;
SELECT qml_schedule_recurring('i', 'every 90 minutes', 'm') IS NOT NULL;
-- However late it fires, the next tick is even; the misfire policies hold
UPDATE qml.recurring_data SET anchor = t.ago(1000 * 60), next_run_at = t.ago(1000 * 60) + 11 * interval '90 min';
SELECT qml_poll_recurring() AS one;
SELECT next_run_at = anchor + 12 * interval '90 min' AS even, last_run_at = anchor + 11 * interval '90 min' AS last FROM qml.recurring_data;
SELECT outcome, late_by BETWEEN '10 min' AND '11 min' AS late_by FROM qml.recurring_tick;
SELECT qml_schedule_recurring(misfire, 'every 10 minutes', 'm', misfire => misfire) IS NOT NULL FROM unnest('{fire_once,skip,fire_all}'::text[]) misfire;
UPDATE qml.recurring_data SET anchor = t.ago(3600), next_run_at = t.ago(3000) WHERE id <> 'i';
SELECT qml_poll_recurring() >= 7 AS seven;
SELECT schedule, count(*) = 5 AS five, count(job) FILTER (WHERE fired_at - tick > interval '1 min') AS jobs, string_agg(DISTINCT outcome, ' ' ORDER BY outcome) AS outcomes FROM qml.recurring_tick WHERE schedule <> 'i' AND late_by > '1 min' GROUP BY 1 ORDER BY 1;
-- An anchor that somebody wrote by hand
UPDATE qml.recurring_data SET anchor = x.anchor, next_run_at = t.ago(1) FROM unnest('{fire_once,skip,fire_all,i}'::text[], '{infinity,-infinity,294276-12-31 23:55,1900-01-01}'::timestamptz[]) x (id, anchor) WHERE x.id = recurring_data.id;
SELECT count(*) FROM qml.recurring WHERE cardinality(next_runs) = 5;
SELECT qml_poll_recurring() BETWEEN 3 AND 4 AS fired;
SELECT id, next_run_at BETWEEN now() AND now() + interval '91 min' AS soon FROM qml.recurring_data ORDER BY id;

-------------------------------------------------------------------------------
-- The next ticks
-------------------------------------------------------------------------------

SELECT t.reset();
SELECT qml_schedule_recurring('a', '0 12 1 1 *', 'm', timezone => 'Asia/Tokyo') IS NOT NULL, qml_schedule_recurring('ends', '0 0 0 1 1 * ' || extract(year FROM now()) + 1 || '-' || extract(year FROM now()) + 2, 'm') IS NOT NULL, qml_schedule_recurring('paused', '@daily', 'm') IS NOT NULL;
SELECT qml_pause_recurring('paused');
SELECT id, next_run_at = next_runs[1] AS first, cardinality(next_runs), next_runs = ARRAY(SELECT t FROM qml_cron_next(cron, now(), timezone, 5) t) AS those FROM qml.recurring ORDER BY id;
-- Of rows that somebody edited there is as much as there can be
UPDATE qml.recurring_data SET cron = 'x' WHERE id = 'a';
UPDATE qml.recurring_data SET timezone = 'x', next_run_at = 'infinity' WHERE id = 'ends';
UPDATE qml.recurring_data SET enabled = true, next_run_at = NULL WHERE id = 'paused';
SELECT id, cardinality(next_runs) FROM qml.recurring ORDER BY id;

-------------------------------------------------------------------------------
-- What became of each tick
-------------------------------------------------------------------------------

SELECT t.reset();
SELECT qml_schedule_recurring('a', '* * * * * *', 'm') IS NOT NULL, qml_schedule_recurring('once', '* * * * * *', 'm') IS NOT NULL, qml_schedule_recurring('none', '* * * * * *', 'm', misfire => 'skip') IS NOT NULL;
SELECT t.due('a', 0), t.due('once', 86400 * 31), t.due('none', 20);
SELECT qml_poll_recurring() IS NOT NULL;
SELECT schedule, min(tick) FILTER (WHERE outcome = 'on_time') IS NOT NULL AS on_time, count(*) FILTER (WHERE outcome = 'late') AS late, count(*) FILTER (WHERE outcome = 'missed') BETWEEN 20 AND 100 AS missed,
	bool_and((job IS NULL) = (outcome = 'missed')) AS jobs, bool_and(fired_at >= tick AND late_by = fired_at - tick) AS times, count(through) AS through FROM qml.recurring_tick GROUP BY 1 ORDER BY 1;
-- The last that is named stands for the other 2.6 million
SELECT count(*), bool_and(through = fired_at AND tick < fired_at - interval '30 days') AS rest, count(DISTINCT tick) FROM qml.recurring_tick WHERE through IS NOT NULL;
SELECT count(*) FROM qml.recurring_tick WHERE schedule = 'once';
-- Days are counted from now on: not just before one ends
CREATE PROCEDURE t.await_new_day() LANGUAGE plpgsql AS $$
BEGIN
	WHILE (clock_timestamp() AT TIME ZONE 'UTC')::time > '23:59:30' LOOP
		PERFORM pg_sleep(0.1);
	END LOOP;
END $$;
CALL t.await_new_day();
-- Rows are in the partition that ends when a thousand more ticks have come, or thirty days have gone
SELECT qml_schedule_recurring(id, cron, 'm') IS NOT NULL FROM (VALUES ('hourly', '@hourly'), ('five', '*/5 * * * *'), ('work', '*/2 * * * 1-5'), ('monthly', '@monthly'), ('gap', '0 0 * * 1'), ('interval', 'every 86 seconds'), ('slow', 'every 87 seconds')) v (id, cron);
SELECT t.due(id) FROM qml.recurring_data;
SELECT qml_poll_recurring() >= 7 AS fired;
CREATE FUNCTION t.today() RETURNS int LANGUAGE sql STABLE AS $$ SELECT floor(extract(epoch FROM now() - '2000-01-01 UTC') / 86400)::int $$;
CREATE FUNCTION t.kept(partition int) RETURNS text LANGUAGE sql STABLE AS $$
	WITH day AS (SELECT t.today())
	SELECT CASE WHEN partition < 4 THEN CASE (partition - today % 4 + 4) % 4 WHEN 0 THEN 'today' WHEN 1 THEN 'a day' WHEN 2 THEN 'next' ELSE 'over' END
		ELSE CASE (partition - 4 - today / 10 % 6 + 6) % 6 WHEN 4 THEN 'next' WHEN 5 THEN 'over' ELSE 'days' END END FROM day $$;
SELECT recurring, t.kept(partition), array_agg(DISTINCT tableoid = ('qml.occurrence_' || partition)::regclass) AS there FROM qml.occurrence_data WHERE fired_at = (SELECT max(fired_at) FROM qml.occurrence_data) GROUP BY 1, 2 ORDER BY 1;
-- One removed and defined anew after the clock was set back fires at no tick at which the old one fired
SELECT t.reset();
SELECT qml_schedule_recurring('a', '* * * * * *', 'm') IS NOT NULL;
SELECT t.ago(0) AS first \gset
INSERT INTO qml.occurrence_data SELECT timestamptz :'first' + n * interval '1 s', 'a', CASE WHEN n <= 3600 THEN gen_random_uuid() END, now(), 4 + t.today() / 10 % 6, 'on_time' FROM generate_series(1, 7200) n;
INSERT INTO qml.occurrence_data VALUES ('infinity', 'a', gen_random_uuid(), now(), 4 + t.today() / 10 % 6, 'on_time');
UPDATE qml.recurring_data SET next_run_at = :'first';
SELECT qml_poll_recurring() AS one;
SELECT fired_through - :'first' AS fired_through, last_run_at = :'first' AS last FROM qml.recurring_data;
CREATE PROCEDURE t.poll_until(until timestamptz) LANGUAGE plpgsql AS $$
BEGIN
	WHILE (SELECT next_run_at <= until FROM qml.recurring_data) LOOP
		PERFORM qml_poll_recurring();
		COMMIT;
		PERFORM pg_sleep(0.05);
	END LOOP;
END $$;
CALL t.poll_until(timestamptz :'first' + interval '2 s');
SELECT count(*) AS one FROM qml.job;
-- Until it has passed them
DELETE FROM qml.occurrence_data o USING qml.recurring_data r WHERE o.occurrence >= r.next_run_at;
SELECT next_run_at AS next FROM qml.recurring_data \gset
CALL t.poll_until(:'next');
SELECT count(*) >= 2 AS more, bool_and(fired_through IS NULL) AS passed FROM qml.job, qml.recurring_data;

-- Also where the clock was ahead, and is of the day before now: what was written then is not over
CREATE PROCEDURE t.fired_ahead(partition int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO qml.occurrence_data VALUES (t.ago(0), 'b', gen_random_uuid(), now() + interval '1 day', partition, 'on_time');
	UPDATE qml.recurring_data SET next_run_at = t.ago(0) WHERE id = 'b';
END $$;
CALL t.await_new_day();
SELECT array_agg(n) AS next FROM generate_series(0, 9) n WHERE t.kept(n) = 'next' \gset
SELECT t.reset();
SELECT qml_schedule_recurring('b', '@yearly', 'm') IS NOT NULL;
CALL t.fired_ahead((:'next'::int[])[1]);
SELECT qml_cleanup() AS counts_no_ticks;
SELECT qml_poll_recurring() AS none;
SELECT t.reset();
SELECT qml_schedule_recurring('b', '@yearly', 'm') IS NOT NULL;
CALL t.fired_ahead((:'next'::int[])[2]);
SELECT qml_cleanup() AS counts_no_ticks;
SELECT qml_poll_recurring() AS none;

-- The last thousand, of thirty days, of the schedule as it is now
SELECT t.reset();
SELECT qml_schedule_recurring('a', '@yearly', 'm') IS NOT NULL;
UPDATE qml.recurring_data SET created_at = now() - interval '1 year';
INSERT INTO qml.occurrence_data SELECT now() - n * interval '29 min', 'a', gen_random_uuid(), now() - n * interval '29 min', n % 10, 'on_time' FROM generate_series(1, 2000) n;
SELECT count(*), now() - min(tick) BETWEEN '20 days 3 hours' AND '20 days 4 hours' AS oldest FROM qml.recurring_tick;
UPDATE qml.occurrence_data SET fired_at = fired_at - interval '20 days';
SELECT count(*) BETWEEN 490 AND 500 AS of_ten_days FROM qml.recurring_tick;
UPDATE qml.recurring_data SET created_at = now() - interval '20 days 2 hours';
SELECT count(*) FROM qml.recurring_tick;
SELECT qml_remove_recurring('a');
SELECT count(*) FROM qml.recurring_tick;
-- Times that somebody wrote by hand
SELECT qml_schedule_recurring('a', '@yearly', 'm') IS NOT NULL;
INSERT INTO qml.occurrence_data VALUES ('infinity', 'a', NULL, now(), 0, 'missed'), ('-infinity', 'a', NULL, now(), 0, 'missed');
SELECT tick, late_by FROM qml.recurring_tick ORDER BY 1;

-- Partitions whose days are over are emptied, the others are not; an idle server writes nothing
SELECT t.reset();
CALL t.await_new_day();
INSERT INTO qml.occurrence_data SELECT now() - interval '1 year', 'x', NULL, now(), n, 'on_time' FROM generate_series(0, 9) n;
SELECT t.kept(partition), count(*) FROM qml.occurrence_data GROUP BY 1 ORDER BY 1;
SELECT qml_cleanup() AS counts_no_ticks;
SELECT t.kept(partition), count(*) FROM qml.occurrence_data GROUP BY 1 ORDER BY 1;
SELECT array_agg(relfilenode ORDER BY oid) AS files FROM pg_class WHERE relname ~ '^occurrence_\d$' \gset
SELECT qml_cleanup() AS nothing;
SELECT array_agg(relfilenode ORDER BY oid) = :'files' AS same FROM pg_class WHERE relname ~ '^occurrence_\d$';
-- One that cannot be emptied is told of, and left alone
INSERT INTO qml.occurrence_data SELECT now() - interval '1 year', 'x', NULL, now(), n, 'on_time' FROM generate_series(0, 9) n;
SELECT 'qml.occurrence_' || n AS over FROM generate_series(0, 3) n WHERE t.kept(n) = 'over' \gset
BEGIN;
ALTER TABLE :over ADD UNIQUE (job);
CREATE TABLE t.refers (job uuid REFERENCES :over (job));
\set VERBOSITY sqlstate
SELECT qml_cleanup() AS nothing;
\set VERBOSITY default
ROLLBACK;
SELECT t.kept(partition), count(*) FROM qml.occurrence_data GROUP BY 1 ORDER BY 1;

-- Who sees them
SELECT t.reset();
CREATE ROLE regress_qml_owner;
CREATE ROLE regress_qml_monitor;
CREATE ROLE regress_qml_other;
SELECT qml_grant('regress_qml_owner', 'enqueue', 'q'), qml_grant('regress_qml_monitor', 'monitor', 'q'), qml_grant('regress_qml_other', 'enqueue', 'q');
SET ROLE regress_qml_owner;
SELECT qml_schedule_recurring('mine', '@yearly', 'm', queue => 'q') IS NOT NULL;
RESET ROLE;
SELECT qml_schedule_recurring('other', '@yearly', 'm', queue => 'other') IS NOT NULL;
SELECT t.due('mine'), t.due('other');
SELECT qml_poll_recurring() AS two;
SELECT schedule, outcome FROM qml.recurring_tick ORDER BY 1;
SET ROLE regress_qml_owner;
SELECT schedule, outcome FROM qml.recurring_tick ORDER BY 1;
SELECT id, cardinality(next_runs) FROM qml.recurring ORDER BY 1;
SET ROLE regress_qml_monitor;
SELECT schedule, outcome FROM qml.recurring_tick ORDER BY 1;
SET ROLE regress_qml_other;
SELECT schedule, outcome FROM qml.recurring_tick ORDER BY 1;
RESET ROLE;
-- Without the right, each tick is an error
SELECT qml_revoke('regress_qml_owner', 'enqueue', 'q'), t.due('mine', 0);
\set VERBOSITY sqlstate
SELECT qml_poll_recurring() AS none;
\set VERBOSITY default
SELECT schedule, outcome, job IS NULL AS no_job FROM qml.recurring_tick WHERE schedule = 'mine' ORDER BY tick;
-- A near miss of an id that one sees
\pset format unaligned
\pset tuples_only on
SELECT t.try('SELECT qml_run_recurring(''Mien'')');
GRANT USAGE ON SCHEMA t TO PUBLIC;
SET ROLE regress_qml_other;
SELECT t.try('SELECT qml_run_recurring(''mien'')');
RESET ROLE;
REVOKE USAGE ON SCHEMA t FROM PUBLIC;
\pset format aligned
\pset tuples_only off

SELECT t.reset();
DROP OWNED BY regress_qml_owner, regress_qml_monitor, regress_qml_other;
DROP ROLE regress_qml_owner, regress_qml_monitor, regress_qml_other;
DROP FUNCTION t.ago, t.due, t.poll, t.place, t.finish, t.kept, t.today;
DROP PROCEDURE t.await_new_day, t.poll_until;
