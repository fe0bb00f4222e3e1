--
-- Recurring jobs: defining, changing, firing, and what becomes of those that
-- cannot fire.
--
SELECT t.reset();
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- Ticks of the calendar are used where it must not matter when the test runs:
-- @yearly has its last one at the begin of this year.
CREATE FUNCTION t.year(back int DEFAULT 0) RETURNS timestamptz LANGUAGE sql STABLE
AS $$ SELECT date_trunc('year', now()) - back * interval '1 year' $$;
-- Sets a schedule back, as if nobody had polled since.
CREATE FUNCTION t.missed(schedule text, since timestamptz) RETURNS void LANGUAGE sql
AS $$ UPDATE qml.recurring_data SET next_run_at = since WHERE id = schedule $$;
-- What a schedule made: ticks of its jobs in their order, years before this one.
CREATE FUNCTION t.fired(schedule text) RETURNS text LANGUAGE sql
AS $$ SELECT string_agg(COALESCE((extract(year FROM now()) - extract(year FROM tick))::text, 'off'), ' ' ORDER BY id)
	FROM (SELECT id, (metadata #>> '{recurring,tick}')::timestamptz AS tick FROM qml.job
		WHERE metadata #>> '{recurring,id}' = schedule) j $$;
-- Where its row is stored: another place after any change.
CREATE FUNCTION t.place(schedule text) RETURNS text LANGUAGE sql
AS $$ SELECT concat_ws(' ', xmin, ctid) FROM qml.recurring_data WHERE id = schedule $$;
-- Each job has one recorded tick and each tick one job, but for those off schedule.
CREATE FUNCTION t.one_job_a_tick() RETURNS boolean LANGUAGE sql
AS $$ SELECT NOT EXISTS (
	SELECT FROM (SELECT id, metadata #>> '{recurring,id}' AS recurring, (metadata #>> '{recurring,tick}')::timestamptz AS tick
		FROM qml.job WHERE metadata #> '{recurring,tick}' IS NOT NULL) j
	FULL JOIN (SELECT * FROM qml.occurrence_data WHERE outcome IN ('on_time', 'late')) o ON o.job = j.id AND o.recurring = j.recurring AND o.occurrence = j.tick
	WHERE j.id IS NULL OR o.job IS NULL) $$;

-------------------------------------------------------------------------------
-- The next times
-------------------------------------------------------------------------------

SELECT qml_cron_next('*/15 9-10 * * mon-fri', '2026-01-02 09:50:00Z', n => 6);
SELECT qml_cron_next('30 0 12 29 2 ?', '2096-03-01', n => 2);
SELECT qml_cron_next('0 0 0 L,15W * *', '2026-01-30', n => 4);
SELECT qml_cron_next('0 0 0 LW * ?', '2026-01-01', n => 3);
SELECT qml_cron_next('0 0 0 ? * tue#2,5L', '2026-03-01', n => 4);
SELECT qml_cron_next('0 0 0 13 * 5', '2026-01-30', n => 4);
-- Strictly later, to the second
SELECT qml_cron_next('0 0 12 * * *', t) FROM unnest('{2026-01-01 11:59:59.999999Z,2026-01-01 12:00:00Z,2026-01-01 12:00:00.000001Z}'::timestamptz[]) t;
-- From now on, by default
SELECT t > now() AND t <= now() + interval '1 s' AS next_second FROM qml_cron_next('* * * * * *') t;
SELECT qml_cron_next('@yearly') = t.year() + interval '1 year' AS next_year;
SELECT count(*), count(DISTINCT t), max(t) - min(t) AS span FROM qml_cron_next('* * * * * *', n => 10000) t;
-- Fewer when it ends, none when it has ended
SELECT qml_cron_next('0 0 0 1 1,7 * 2030', '2026-01-01', n => 10);
SELECT qml_cron_next('0 0 0 1 1 * 2030', '2030-01-01', n => 10);
SELECT qml_cron_next('0 0 0 30 2 *');
SELECT qml_cron_next('@yearly', '294276-06-01');
SELECT qml_cron_next('@yearly', '4713-06-01 BC') = '4712-01-01 BC' AS long_ago;
-- Every way to write the same
SELECT DISTINCT array(SELECT qml_cron_next(cron, '2026-01-01', n => 5)) FROM unnest(ARRAY['@weekly', '0 0 * * 0', '0 0 0 * * 7', '  0	0 0 ? * SUN *  ',
	'0 0 0 * * sun 1970-2199', '@WeekLy', '0-0 0,00 0-0/5 * 1-12/1 Sun-Sun']) cron;
-- In another time zone, whatever the session's is
SET timezone = 'Asia/Tokyo';
SELECT qml_cron_next('0 12 * * *', '2026-07-01 00:00Z', 'America/New_York') AT TIME ZONE 'UTC' AS utc;
SET timezone = 'UTC';
SELECT zone, qml_cron_next('0 12 * * *', '2026-07-01 00:00Z', zone) AS noon
FROM unnest('{UTC,GMT,Etc/GMT+5,Etc/UTC,Asia/Tokyo,Asia/Kolkata,Asia/Kathmandu,america/new_york,Europe/London}'::text[]) WITH ORDINALITY z (zone, n) ORDER BY n;

-- Daylight saving: fixed times once, at the end of the gap or the first time of the fold; elapsed time goes on
CREATE TEMP TABLE crossing (n serial, zone text, cron text, after timestamptz, count int DEFAULT 2);
INSERT INTO crossing (zone, cron, after, count) VALUES
	('Europe/Berlin', '30 2 * * *', '2026-03-28 12:00Z', 2), ('Europe/Berlin', '30 2 * * *', '2026-10-24 12:00Z', 2),
	('Europe/Berlin', '0 0,20,40 2 * * *', '2026-03-28 12:00Z', 2), ('Europe/Berlin', '30 * * * *', '2026-03-29 00:00Z', 3),
	('Europe/Berlin', '30 * * * *', '2026-10-24 23:00Z', 4), ('Europe/Berlin', '*/30 2 * * *', '2026-10-24 22:00Z', 5), ('Europe/Berlin', '*/30 2 * * *', '2026-03-28 12:00Z', 2),
	('America/New_York', '30 2 * * *', '2026-03-07 12:00Z', 2), ('America/New_York', '30 1 * * *', '2026-10-31 12:00Z', 2),
	('Australia/Lord_Howe', '15 2 * * *', '2026-10-03 00:00Z', 2), ('Australia/Lord_Howe', '45 1 * * *', '2026-04-04 00:00Z', 2),
	('Africa/Cairo', '0 0 * * *', '2026-04-23 12:00Z', 2), ('Africa/Cairo', '30 23 * * *', '2026-10-29 12:00Z', 2),
	('America/Sao_Paulo', '0 0 * * *', '2018-11-03 12:00Z', 2), ('Antarctica/Troll', '0 2 * * *', '2026-03-28 12:00Z', 2),
	('Pacific/Apia', '0 12 * * *', '2011-12-29 00:00Z', 3), ('Europe/Dublin', '30 1 * * *', '2026-10-24 12:00Z', 2);
SELECT zone, cron, tick AT TIME ZONE 'UTC' AS utc, tick AT TIME ZONE zone AS local
FROM crossing, qml_cron_next(cron, after, zone, count) WITH ORDINALITY t (tick, k) ORDER BY n, k;

-------------------------------------------------------------------------------
-- What is refused, and how
-------------------------------------------------------------------------------

\pset format unaligned
\pset tuples_only on
SELECT to_json(cron), t.try(format('SELECT qml_cron_next(%L)', cron)) FROM unnest(ARRAY['', ' ', '*', '* * * *', '* * * * * * * *', '@reboot', '@every 5m', '@daily x', 'daily', '@',
	'60 * * * * *', '-1 * * * * *', '*/0 * * * * *', '*/60 * * * * *', '1-0 * * * * *', '1, * * * * *', ',1 * * * * *', '1.5 * * * * *', '? * * * * *', 'L * * * * *', '99999999999999999999 * * * * *',
	'60 * * * *', '0 60 * * * *', '0 a * * * *', '0 24 * * *', '0 0 24 * * *', '0 0 ? * * *', '0 0 0-24 * * *',
	'0 0 0 0 * *', '0 0 0 32 * *', '0 0 0 LL * *', '0 0 0 L-3 * *', '0 0 0 32W * *', '0 0 0 1-5W * *', '0 0 0 W * *', '0 0 0 1? * *',
	'0 0 0 * 0 *', '0 0 0 * 13 *', '0 0 0 * janu *', '0 0 0 * dec-jan *', '0 0 0 * ? *',
	'0 0 0 * * 8', '0 0 0 * * sunday', '0 0 0 * * 1#6', '0 0 0 * * 1#0', '0 0 0 * * fri-mon', '0 0 0 * * L', '0 0 0 * * #1', '0 0 0 * * 1L2',
	'0 0 0 * * * 1969', '0 0 0 * * * 2200', '0 0 0 * * * jan', '0 0 0 * * * 2030-2029',
	E'* * * *\n*', E'* * * * \x01', 'ü * * * *', '* * * * ' || repeat('1,', 130) || '1', repeat(' ', 255) || '@daily', repeat('x', 100) || ' * * * *']) WITH ORDINALITY c (cron, n) ORDER BY n;
-- Those that never fire are no mistake to ask about, but to schedule
SELECT cron, t.try(format('SELECT qml_schedule_recurring(''r'', %L, ''m'')', cron)) FROM unnest(ARRAY['0 0 30 2 *', '0 0 31 2,4,6,9,11 *', '0 0 0 29 2 * 2100', '0 0 0 * * * 1970-2025', '0 0 0 31W 11 ?', '0 0 0 32 * *']) WITH ORDINALITY c (cron, n) ORDER BY n;
SELECT to_json(zone), replace(t.try(format('SELECT qml_cron_next(''@daily'', now(), %L)', zone)), 'Did you mean "EST5EDT"? ', '') FROM unnest(ARRAY['CEST', 'PST', 'EST6EDT', 'EST5EDT4', 'EST5EDT,M3.2.0,M11.1.0', ':CET', 'localtime', 'posixrules', 'posix/Europe/Berlin', 'right/Europe/Berlin', 'right/UTC', 'zone.tab', 'Etc/GMT+5:30', 'Etc/GMT+13', 'Etc/GMT-15', 'Etc/GMT-3EDT,M3.2.0,M11.1.0', 'etc/gmtx-3',
	'+02', '-05:30', '<+02>-2', 'UTC+3', '', ' ', 'Mars/Olympus', 'Europe', 'Europe/Berlin ', '../zoneinfo/UTC', '/etc/localtime', 'Europe/Berlin,M3.5.0', 'default', 'utc ', repeat('x', 255), repeat('x', 256), E'UTC\n']) WITH ORDINALITY z (zone, n) ORDER BY n;
-- Every full name that the server lists is accepted, however it is spelled, and means the same
-- for "SET timezone" (AT TIME ZONE 'CET' would take an abbreviation)
CREATE FUNCTION pg_temp.noon(zone text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('timezone', zone, true);
	RETURN to_char(qml_cron_next('0 12 1 7 *', '2026-01-01 00:00Z', zone), 'MM-DD HH24:MI');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLERRM;
END $$;
CREATE TEMP TABLE known AS SELECT name FROM pg_timezone_names WHERE name NOT LIKE 'posix/%' AND name NOT IN ('localtime', 'posixrules');
SELECT count(*) > 400 AS many,
	array_agg(name || ': ' || pg_temp.noon(name) ORDER BY name) FILTER (WHERE pg_temp.noon(name) <> '07-01 12:00') AS refused FROM known;
SHOW timezone;
SELECT sql, t.try(sql) FROM unnest(ARRAY[
	'SELECT qml_schedule_recurring(NULL, ''@daily'', ''m'')', 'SELECT qml_schedule_recurring(''r'', NULL, ''m'')', 'SELECT qml_schedule_recurring(''r'', ''@daily'', NULL)',
	'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', NULL)', 'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', queue => NULL)',
	'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', timezone => NULL)', 'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', priority => NULL)',
	'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', misfire => NULL)',
	'SELECT qml_remove_recurring(NULL)', 'SELECT qml_remove_recurring(''r'', NULL)', 'SELECT qml_pause_recurring(NULL)', 'SELECT qml_resume_recurring(NULL)', 'SELECT qml_run_recurring(NULL)',
	'SELECT qml_poll_recurring(NULL)', 'SELECT qml_cron_next(NULL)', 'SELECT qml_cron_next(''@daily'', NULL)', 'SELECT qml_cron_next(''@daily'', now(), NULL)', 'SELECT qml_cron_next(''@daily'', now(), ''UTC'', NULL)'
]) WITH ORDINALITY s (sql, n) ORDER BY n;
SELECT left(sql, 80), t.try(sql) FROM unnest(ARRAY[
	'SELECT qml_schedule_recurring('''', ''@daily'', ''m'')', 'SELECT qml_schedule_recurring(repeat(''ü'', 256), ''@daily'', ''m'')', E'SELECT qml_schedule_recurring(''a\tb'', ''@daily'', ''m'')',
	'SELECT qml_schedule_recurring(''r'', ''@daily'', '''')', 'SELECT qml_schedule_recurring(''r'', ''@daily'', repeat(''ü'', 256))',
	'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', queue => '''')', 'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', queue => repeat(''ü'', 129))',
	'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', max_retries => -1)', 'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', max_retries => 1001)',
	'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', timeout => ''0'')', 'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', timeout => ''25 days'')',
	'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', misfire => ''Skip'')', 'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', misfire => '''')', 'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', misfire => ''fire_twice'')',
	'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', metadata => ''[]'')', 'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', metadata => ''null'')',
	'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', to_jsonb(repeat(''x'', 1048576)))', 'SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', metadata => jsonb_build_object(''x'', repeat(''x'', 1048576)))',
	'SELECT qml_remove_recurring('''')', 'SELECT qml_remove_recurring(''no such'')', 'SELECT qml_resume_recurring(repeat(''x'', 256))', 'SELECT qml_run_recurring('''')', 'SELECT qml_run_recurring(''no such'')',
	'SELECT qml_poll_recurring(0)', 'SELECT qml_poll_recurring(-1)', 'SELECT qml_cron_next(''@daily'', n => 0)', 'SELECT qml_cron_next(''@daily'', n => 10001)',
	'SELECT qml_cron_next(''@daily'', ''infinity'')', 'SELECT qml_cron_next(''@daily'', ''-infinity'')', 'SELECT qml_pg_cron_schedule()', 'SELECT qml_pg_cron_unschedule()'
]) WITH ORDINALITY s (sql, n) ORDER BY n;
\pset format aligned
\pset tuples_only off
SELECT t.try('SELECT qml_pause_recurring(''no such'')'), t.try('SELECT qml_resume_recurring(''no such'')');
SELECT qml_remove_recurring('no such', missing_ok => true), qml_pause_recurring('no such', missing_ok => true), qml_resume_recurring('no such', missing_ok => true);
SELECT t.code('SELECT qml_pause_recurring(''no such'', NULL, NULL)'), t.code('SELECT qml_resume_recurring(''no such'', NULL)');
SELECT count(*) FROM qml.recurring_data;
SELECT count(*) FROM qml.queue_data;

-------------------------------------------------------------------------------
-- Defining
-------------------------------------------------------------------------------

SELECT qml_schedule_recurring('report', '@yearly', 'make_report', '{"a": 1}', 'q', 'Europe/Berlin', 7, 3, '90 s', 'skip', '{"m": 1}')
	= (t.year() + interval '1 year') AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Berlin' AS next_year;
SELECT id, cron, timezone, method, payload, queue, priority, max_retries, timeout, misfire, metadata, enabled, last_run_at, last_job, error, created_by FROM qml.recurring;
SELECT created_at = updated_at AS new, now() - created_at < interval '1 min' AS of_now FROM qml.recurring;
-- The queue is made with the schedule
SELECT count(*) FROM qml.queue_data;
-- All that can be left out
SELECT qml_schedule_recurring('plain', '@yearly', 'm') = t.year() + interval '1 year' AS next_year;
SELECT cron, timezone, method, payload, queue, priority, max_retries, timeout, misfire, metadata, enabled FROM qml.recurring WHERE id = 'plain';
-- Ids differ in case and blanks
SELECT qml_schedule_recurring('Plain', '@yearly', 'm') IS NOT NULL, qml_schedule_recurring('pl ain', '@yearly', 'm') IS NOT NULL, qml_schedule_recurring(repeat('ü', 255), '@yearly', repeat('ü', 255), queue => repeat('ü', 128)) IS NOT NULL;
SELECT count(*) FROM qml.recurring;
SELECT qml_remove_recurring('Plain', true), qml_remove_recurring('pl ain', true), qml_remove_recurring(repeat('ü', 255)), qml_remove_recurring(repeat('ü', 255), true);

-- The same again changes nothing, whatever has become of it meanwhile
SELECT qml_pause_recurring('report'), t.missed('report', t.year(-3)), t.missed('plain', t.year(2));
UPDATE qml.recurring_data SET last_run_at = t.year(7), last_job = t.id(7) WHERE id = 'plain';
SELECT t.everything() AS before, t.place('report') AS report, t.place('plain') AS plain \gset
SELECT qml_schedule_recurring('report', '@yearly', 'make_report', '{"a":1}', 'q', 'Europe/Berlin', 7, 3, '1 min 30 s', 'skip', '{"m":1}') = t.year(-3) AS kept;
SELECT qml_schedule_recurring('plain', '@yearly', 'm') = t.year(2) AS kept;
SELECT t.everything() = :'before' AS unchanged, t.place('report') = :'report' AS report_not_written, t.place('plain') = :'plain' AS plain_not_written;
-- It takes no transaction id for that
BEGIN;
SELECT qml_schedule_recurring('plain', '@yearly', 'm') = t.year(2) AS kept;
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_xid;
COMMIT;

-- Anything but the times changed: the next tick stays, also one that is due
CREATE FUNCTION t.put(changes text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	old qml.recurring_data;
	new qml.recurring_data;
BEGIN
	UPDATE qml.recurring_data SET next_run_at = t.year(2), enabled = false, updated_at = created_at WHERE id = 'plain';
	SELECT * INTO old FROM qml.recurring_data WHERE id = 'plain';
	EXECUTE format('SELECT qml_schedule_recurring(''plain'', %s)', changes);
	SELECT * INTO new FROM qml.recurring_data WHERE id = 'plain';
	RETURN concat_ws(', ', CASE WHEN new = old THEN 'unchanged' END, CASE WHEN new.next_run_at = old.next_run_at THEN 'next kept' ELSE 'next anew' END,
		CASE WHEN new.enabled THEN 'enabled' END, CASE WHEN new.last_run_at = old.last_run_at AND new.last_job = old.last_job THEN 'last kept' END,
		CASE WHEN new.updated_at > old.updated_at THEN 'updated' END, CASE WHEN new.created_at = old.created_at THEN 'created kept' END);
END $$;
SELECT changes, t.put(changes) FROM unnest(ARRAY['''@yearly'', ''m''', '''@yearly'', ''m'', ''{"b": 2}''', '''@yearly'', ''m2''', '''@yearly'', ''m2'', queue => ''q2''', '''@yearly'', ''m2'', priority => 1',
	'''@yearly'', ''m2'', max_retries => 0', '''@yearly'', ''m2'', max_retries => 1', '''@yearly'', ''m2'', timeout => ''1 s''', '''@yearly'', ''m2'', misfire => ''fire_all''', '''@yearly'', ''m2'', metadata => ''{}''', '''@yearly'', ''m2''',
	'''@monthly'', ''m2''', '''@yearly'', ''m2'', timezone => ''Asia/Tokyo''', '''0 0 0 1 1 *'', ''m2'', timezone => ''Asia/Tokyo''', '''@yearly'', ''m''', '''@yearly'', ''m''']) WITH ORDINALITY c (changes, n) ORDER BY n;
-- New times never give a tick again that there was already, even if the clock was set back
UPDATE qml.recurring_data SET last_run_at = t.year(-5) WHERE id = 'plain';
SELECT qml_schedule_recurring('plain', '@monthly', 'm') = t.year(-5) + interval '1 month' AS after_the_last;
-- What is refused changes nothing
SELECT t.everything() AS before \gset
SELECT t.code('SELECT qml_schedule_recurring(''plain'', ''x'', ''m'')'), t.code('SELECT qml_schedule_recurring(''plain'', ''@daily'', ''m'', timezone => ''CEST'')'), t.code('SELECT qml_schedule_recurring(''plain'', ''0 0 30 2 *'', ''m'')');
SELECT t.everything() = :'before' AS unchanged;

-- Enabling: ticks that passed meanwhile were not missed
SELECT qml_schedule_recurring('plain', '@yearly', 'm', misfire => 'fire_all') IS NOT NULL;
UPDATE qml.recurring_data SET last_run_at = t.year(9), next_run_at = t.year(8), enabled = false WHERE id = 'plain';
SELECT qml_poll_recurring() AS none;
SELECT t.place('plain') AS plain \gset
SELECT qml_pause_recurring('plain'), t.place('plain') = :'plain' AS not_written;
SELECT qml_resume_recurring('plain');
SELECT enabled, next_run_at = t.year(-1) AS next_year, updated_at > created_at AS updated FROM qml.recurring WHERE id = 'plain';
SELECT t.place('plain') AS plain \gset
SELECT qml_resume_recurring('plain'), t.place('plain') = :'plain' AS not_written;

-- The reason of a pause: kept until it is resumed, or paused again with another one.
SELECT qml_pause_recurring('plain', 'moving house');
SELECT enabled, pause_reason FROM qml.recurring WHERE id = 'plain';
SELECT t.place('plain') AS plain \gset
SELECT qml_pause_recurring('plain'), t.place('plain') = :'plain' AS not_written;
SELECT qml_pause_recurring('plain', reason => 'on holiday');
SELECT enabled, pause_reason FROM qml.recurring WHERE id = 'plain';
SELECT qml_resume_recurring('plain');
SELECT enabled, pause_reason, next_run_at = t.year(-1) AS next_year FROM qml.recurring WHERE id = 'plain';
SELECT qml_poll_recurring() AS none;

-- Off its schedule: a job now, no tick
SELECT enabled FROM qml.recurring WHERE id = 'report';
SELECT qml_run_recurring('report') AS job1 \gset
SELECT qml_run_recurring('report') AS job2 \gset
SELECT :'job1' <> :'job2' AS two, id = :'job1' AS first, queue, method, payload, state, priority, max_retries, timeout, metadata, created_by FROM qml.job ORDER BY id;
SELECT enabled, last_run_at, last_job, error, next_run_at = t.year(-3) AS next_kept FROM qml.recurring WHERE id = 'report';
SELECT count(*) FROM qml.occurrence_data;
SELECT qml_remove_recurring('report'), qml_remove_recurring('report', true);
SELECT t.code('SELECT qml_run_recurring(''report'')'), t.code('SELECT qml_resume_recurring(''report'')');
-- Its jobs stay
SELECT count(*) FROM qml.job;

-------------------------------------------------------------------------------
-- Firing
-------------------------------------------------------------------------------

-- A job of a tick is as the schedule says, and tells which tick it is; metadata are merged
SELECT t.reset();
SELECT qml_schedule_recurring('a', '@yearly', 'm', '[1, {"x": null}]', 'q', 'UTC', -3, 0, '1 h', metadata => '{"z": {"y": [1, 2]}, "recurring": "mine", "n": null}') IS NOT NULL;
SELECT qml_poll_recurring() AS not_due;
SELECT t.missed('a', t.year());
SELECT qml_poll_recurring() AS one, qml_poll_recurring() AS no_more;
SELECT queue, method, payload, state, priority, max_retries, timeout, attempt, run_at, job_type, server, metadata #- '{recurring,tick}' AS metadata,
	(metadata #>> '{recurring,tick}')::timestamptz = t.year() AS tick, metadata #>> '{recurring,tick}' ~ '^\d{4}-01-01T00:00:00\+00:00$' AS iso, created_by FROM qml.job;
SELECT r.last_run_at = t.year() AS last_run, r.last_job = j.id AS last_job, r.next_run_at = t.year(-1) AS next, r.error, r.updated_at = r.created_at AS not_redefined FROM qml.recurring r, qml.job j;
SELECT o.occurrence = t.year() AS tick, o.recurring, o.job = j.id AS job FROM qml.occurrence_data o, qml.job j;
-- Set back, the tick does not fire again; the schedule goes on
SELECT t.missed('a', t.year());
SELECT qml_poll_recurring() AS none;
SELECT next_run_at = t.year(-1) AS next, last_run_at = t.year() AS last_run, last_job = (SELECT id FROM qml.job) AS last_job, error FROM qml.recurring;
-- Removed and made again, neither
SELECT qml_remove_recurring('a'), qml_schedule_recurring('a', '@yearly', 'm') IS NOT NULL;
SELECT t.missed('a', t.year());
SELECT qml_poll_recurring() AS none, t.fired('a');
-- Of those missed, only the ones that were not fired do
SELECT qml_schedule_recurring('a', '@yearly', 'm', misfire => 'fire_all') IS NOT NULL, t.missed('a', t.year(3));
SELECT qml_poll_recurring() AS three, t.fired('a');
SELECT t.one_job_a_tick();
-- Two schedules with the same tick, and one of them that is fired for the other no more
SELECT qml_schedule_recurring('b', '@yearly', 'm') IS NOT NULL, qml_schedule_recurring('c', '@yearly', 'm') IS NOT NULL;
SELECT t.missed(id, t.year(4)) FROM unnest('{a,b,c}'::text[]) id;
SELECT qml_poll_recurring() AS three, t.fired('a') AS a, t.fired('b') AS b, t.fired('c') AS c;
SELECT t.one_job_a_tick();
-- At most so many schedules at once, those that are due the longest first
SELECT t.reset();
SELECT count(qml_schedule_recurring('s' || n, '@yearly', 'm', misfire => 'fire_all')), count(t.missed('s' || n, t.year(n))) FROM generate_series(1, 5) n;
SELECT qml_poll_recurring(2) AS eleven;
SELECT string_agg(DISTINCT metadata #>> '{recurring,id}', ' ' ORDER BY metadata #>> '{recurring,id}') FROM qml.job;
SELECT qml_poll_recurring(1) AS four, qml_poll_recurring() AS five, qml_poll_recurring() AS none;
SELECT id, t.fired(id) FROM qml.recurring_data ORDER BY id;
SELECT t.one_job_a_tick();

-- Missed ticks: one job, none, or one each
SELECT t.reset();
SELECT qml_schedule_recurring(misfire, '@yearly', 'm', misfire => misfire) IS NOT NULL, t.missed(misfire, t.year(5)) FROM unnest('{fire_once,skip,fire_all}'::text[]) misfire;
SELECT qml_poll_recurring() AS seven;
SELECT id, t.fired(id), extract(year FROM now()) - extract(year FROM last_run_at) AS last, next_run_at = t.year(-1) AS next, (last_job IS NULL) = (last_run_at IS NULL) AS told, error FROM qml.recurring ORDER BY id;
SELECT t.one_job_a_tick();
-- Late by no more than the time to the next tick, nor than 70 seconds, is not missed
SELECT t.reset();
CREATE FUNCTION t.ago(seconds int) RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT date_trunc('second', now()) - seconds * interval '1 s' $$;
CREATE FUNCTION t.cron_of(VARIADIC ticks timestamptz[]) RETURNS text LANGUAGE sql STABLE
AS $$ SELECT string_agg(DISTINCT extract(second FROM t)::int::text, ',') || ' ' || string_agg(DISTINCT extract(minute FROM t)::int::text, ',') || ' * * * *' FROM unnest(ticks) t $$;
BEGIN;
SELECT qml_schedule_recurring(misfire, t.cron_of(t.ago(45)), 'm', misfire => misfire) > now() AS later, t.missed(misfire, t.ago(45)) FROM unnest('{fire_once,skip,fire_all}'::text[]) misfire;
SELECT qml_poll_recurring() AS each;
SELECT id, last_run_at = t.ago(45) AS fired FROM qml.recurring_data ORDER BY id;
COMMIT;
-- Later than the next tick it is: of the ticks 45, 35 and 25 seconds ago
SELECT t.reset();
BEGIN;
SELECT qml_schedule_recurring(misfire, t.cron_of(t.ago(45), t.ago(35), t.ago(25)), 'm', misfire => misfire) > now() AS later, t.missed(misfire, t.ago(45)) FROM unnest('{fire_once,skip,fire_all}'::text[]) misfire;
SELECT qml_poll_recurring() >= 4 AS four;
SELECT id, t.ago(45) = ANY (ticks) AS first, t.ago(35) = ANY (ticks) AND t.ago(25) = ANY (ticks) AS others FROM qml.recurring_data,
	LATERAL (SELECT array_agg((metadata #>> '{recurring,tick}')::timestamptz) AS ticks FROM qml.job WHERE metadata #>> '{recurring,id}' = recurring_data.id) j ORDER BY id;
COMMIT;
-- Later than that they are missed, those of a moment ago as well
SELECT t.reset();
BEGIN;
SELECT qml_schedule_recurring(misfire, t.cron_of(t.ago(80), t.ago(10)), 'm', misfire => misfire) > now() AS later, t.missed(misfire, t.ago(80)) FROM unnest('{fire_once,skip,fire_all}'::text[]) misfire;
SELECT qml_poll_recurring() >= 3 AS some;
SELECT id, (SELECT (metadata #>> '{recurring,tick}')::timestamptz = t.ago(80) FROM qml.job WHERE metadata #>> '{recurring,id}' = recurring_data.id ORDER BY qml.job.id LIMIT 1) AS first,
	(SELECT count(*) FROM qml.job WHERE metadata #>> '{recurring,id}' = recurring_data.id) AS jobs FROM qml.recurring_data WHERE id <> 'fire_all' ORDER BY id;
COMMIT;
-- All of them are 1,000 at most, the first ones, and the schedule goes on from now
SELECT t.reset();
SELECT qml_schedule_recurring('often', '* * * * * *', 'm', misfire => 'fire_all') IS NOT NULL, t.missed('often', t.year(1));
SELECT qml_poll_recurring() AS thousand;
SELECT count(DISTINCT tick), min(tick) = t.year(1) AS first, max(tick) = t.year(1) + interval '999 s' AS last
FROM (SELECT (metadata #>> '{recurring,tick}')::timestamptz AS tick FROM qml.job) j;
SELECT next_run_at > now() - interval '1 min' AS goes_on, last_run_at = t.year(1) + interval '999 s' AS last FROM qml.recurring_data;
SELECT t.one_job_a_tick();

-- A schedule that ends
SELECT t.reset();
SELECT qml_schedule_recurring('last', '0 0 0 1 1 * ' || extract(year FROM now()) + 1, 'm') = t.year(-1) AS next;
UPDATE qml.recurring_data SET cron = '0 0 0 1 1 * ' || extract(year FROM now()), next_run_at = t.year();
SELECT qml_poll_recurring() AS one, t.fired('last');
SELECT enabled, next_run_at, last_run_at = t.year() AS last, error FROM qml.recurring;
SELECT qml_poll_recurring() AS none;
-- An application may go on to ask for it; a change that cannot fire is none
SELECT qml_schedule_recurring('last', cron, method) IS NULL AS ended, t.code(format('SELECT qml_schedule_recurring(''last'', %L, ''other'')', '0' || cron)) FROM qml.recurring_data;
SELECT qml_pause_recurring('last'), t.code('SELECT qml_resume_recurring(''last'')'), qml_run_recurring('last') IS NOT NULL AS by_hand;
-- With other years it goes on
SELECT qml_schedule_recurring('last', '@yearly', 'm') = t.year(-1) AS next;

-------------------------------------------------------------------------------
-- What cannot fire says so, and stops nobody
-------------------------------------------------------------------------------

SELECT t.reset();
GRANT USAGE ON SCHEMA t TO PUBLIC;
CREATE ROLE regress_qml_owner;
CREATE ROLE regress_qml_gone;
CREATE ROLE regress_qml_group;
CREATE ROLE regress_qml_member IN ROLE regress_qml_group;
SELECT qml_grant('regress_qml_owner', 'enqueue', 'q'), qml_grant('regress_qml_gone', 'enqueue'), qml_grant('regress_qml_group', 'enqueue', 'q');
SET ROLE regress_qml_owner;
SELECT qml_schedule_recurring('good', '@yearly', 'm', queue => 'q') IS NOT NULL, qml_schedule_recurring('owner', '@yearly', 'm', queue => 'q') IS NOT NULL;
SELECT t.code('SELECT qml_schedule_recurring(''other'', ''@yearly'', ''m'')');
SET ROLE regress_qml_gone;
SELECT qml_schedule_recurring('gone', '@yearly', 'm', queue => 'q') IS NOT NULL;
SET ROLE regress_qml_member;
SELECT qml_schedule_recurring('member', '@yearly', 'm', queue => 'q') IS NOT NULL;
RESET ROLE;
SELECT qml_schedule_recurring('cron', '@yearly', 'm') IS NOT NULL, qml_schedule_recurring('zone', '@yearly', 'm') IS NOT NULL;
UPDATE qml.recurring_data SET cron = '@fortnightly' WHERE id = 'cron';
UPDATE qml.recurring_data SET timezone = 'Atlantis/Capital' WHERE id = 'zone';
SELECT t.missed(id, t.year(2) + CASE WHEN id = 'good' THEN interval '1 h' ELSE '0' END) FROM qml.recurring_data;
DROP OWNED BY regress_qml_gone;
DROP ROLE regress_qml_gone;
SELECT qml_revoke('regress_qml_group', 'enqueue', 'q');
-- The one that can is the last to be due
\c
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set VERBOSITY default
SELECT qml_poll_recurring() AS two;
SELECT id, error, t.fired(id), last_run_at IS NOT NULL AS ran, next_run_at - t.year(-1) AS next FROM qml.recurring_data ORDER BY id;
SELECT metadata #>> '{recurring,id}' AS id, created_by FROM qml.job ORDER BY 1;
SELECT outcome, count(*), count(job) FROM qml.occurrence_data GROUP BY 1 ORDER BY 1;
-- The next poll has nothing to say
SELECT qml_poll_recurring() AS none;
-- Allowed again it fires at its next tick, and has no error any more
SELECT qml_grant('regress_qml_group', 'enqueue', 'q'), t.missed('member', t.year(1));
SELECT qml_poll_recurring() AS one;
SELECT error, t.fired(id) FROM qml.recurring_data WHERE id = 'member';
-- The very right counts that it needs: of its owner, not of whoever polls, for its queue
SELECT qml_revoke('regress_qml_owner', 'enqueue', 'q'), qml_grant('regress_qml_owner', 'work', 'q'), qml_grant('regress_qml_owner', 'enqueue', 'q2'), t.missed('owner', t.year(1));
SELECT qml_poll_recurring() AS none;
SELECT error, next_run_at = t.year(-1) AS next FROM qml.recurring_data WHERE id = 'owner';
SELECT qml_grant('regress_qml_owner', 'admin', 'q'), t.missed('owner', t.year(1));
SELECT qml_poll_recurring() AS one;
SELECT error, t.fired(id) FROM qml.recurring_data WHERE id = 'owner';
-- A schedule without a next tick, for it cannot be read, is mended by putting it anew: the same or another one
SELECT qml_schedule_recurring('cron', '@yearly', 'm') = t.year(-1) AS next, qml_schedule_recurring('zone', '@yearly', 'm') = t.year(-1) AS next;
SELECT id, error, next_run_at = t.year(-1) AS next FROM qml.recurring_data WHERE id IN ('cron', 'zone') ORDER BY id;
UPDATE qml.recurring_data SET error = 'e', next_run_at = NULL WHERE id = 'cron';
SELECT qml_schedule_recurring('cron', '@yearly', 'm') = t.year(-1) AS next;
UPDATE qml.recurring_data SET error = 'e' WHERE id = 'cron';
SELECT qml_pause_recurring('cron'), qml_resume_recurring('cron');
SELECT error FROM qml.recurring_data WHERE id = 'cron';

-- Something that no check foresees: told once, passed over, and nothing of it left; with the others nothing is wrong
SELECT t.reset();
SELECT count(qml_schedule_recurring('s' || n, '@yearly', 'm')) FROM generate_series(1, 5) n;
UPDATE qml.recurring_data SET metadata = '[1]' WHERE id IN ('s1', 's3');
SELECT t.missed(id, t.year(9)) FROM qml.recurring_data WHERE id IN ('s1', 's3');
SELECT t.missed(id, t.year()) FROM qml.recurring_data WHERE id IN ('s2', 's4', 's5');
\c
SET timezone = 'UTC';
SET datestyle = 'ISO';
\set VERBOSITY default
SELECT qml_poll_recurring(2) AS two;
SELECT qml_poll_recurring(2) AS one;
SELECT id, t.fired(id), next_run_at = t.year(9) AS still_due FROM qml.recurring_data ORDER BY id;
SELECT t.one_job_a_tick();
UPDATE qml.recurring_data SET metadata = '{}';
SELECT qml_poll_recurring() AS two;
SELECT t.one_job_a_tick();

-------------------------------------------------------------------------------
-- Transactions, and the other paths
-------------------------------------------------------------------------------

SELECT t.reset();
SELECT qml_schedule_recurring('a', '@yearly', 'm') IS NOT NULL;
SELECT t.everything() AS before \gset
BEGIN;
SELECT qml_schedule_recurring('b', '@yearly', 'm') IS NOT NULL, qml_schedule_recurring('a', '@monthly', 'm') IS NOT NULL;
SELECT t.missed('b', t.year());
SELECT qml_poll_recurring() AS one, qml_run_recurring('b') IS NOT NULL AS off_schedule;
SAVEPOINT s;
SELECT qml_remove_recurring('a'), qml_pause_recurring('b');
ROLLBACK TO s;
SELECT id, enabled, t.fired(id) FROM qml.recurring_data ORDER BY id;
ROLLBACK;
SELECT t.everything() = :'before' AS unchanged;
-- At the stricter levels
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT t.missed('a', t.year());
SELECT qml_poll_recurring() AS one, qml_poll_recurring() AS none;
SELECT qml_schedule_recurring('b', '@yearly', 'm') IS NOT NULL, qml_schedule_recurring('b', '@yearly', 'm2') IS NOT NULL, qml_pause_recurring('b'), qml_remove_recurring('b');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT t.missed('a', t.year(1));
SELECT qml_poll_recurring() AS one, qml_poll_recurring() AS none;
COMMIT;
SELECT t.fired('a'), t.one_job_a_tick();
-- Read-only transactions read
SELECT t.missed('a', t.year(2));
SELECT t.everything() AS before \gset
BEGIN READ ONLY;
SELECT id FROM qml.recurring;
SELECT qml_cron_next('@yearly') = t.year(-1) AS next;
SELECT qml_schedule_recurring('a', '@yearly', 'm') = t.year(2) AS as_it_is;
SELECT sql, t.code(sql) FROM unnest('{"SELECT qml_schedule_recurring(''a'', ''@daily'', ''m'')","SELECT qml_schedule_recurring(''n'', ''@daily'', ''m'')",SELECT qml_remove_recurring(''a''),
	"SELECT qml_pause_recurring(''a'')",SELECT qml_run_recurring(''a''),SELECT qml_poll_recurring()}'::text[]) WITH ORDINALITY s (sql, n) ORDER BY n;
COMMIT;
SELECT t.everything() = :'before' AS unchanged;
-- Prepared
BEGIN;
SELECT qml_poll_recurring() AS one;
PREPARE TRANSACTION 'regress_qml_recurring';
SELECT qml_poll_recurring() AS passed_over;
COMMIT PREPARED 'regress_qml_recurring';
SELECT qml_poll_recurring() AS none, t.fired('a'), t.one_job_a_tick();
-- Maintenance fires
SELECT t.missed('a', t.year(3));
SELECT qml_maintain() ->> 'recurring' AS recurring;
SELECT t.fired('a');
-- A copy fires nothing before it is adopted; schedules can be put nevertheless
SELECT t.missed('a', t.year(4));
UPDATE qml.instance_data SET system_identifier = 1;
SELECT t.code('SELECT qml_poll_recurring()'), t.code('SELECT qml_maintain()'), qml_schedule_recurring('b', '@yearly', 'm') IS NOT NULL;
SELECT qml_adopt();
SELECT qml_poll_recurring() AS one, t.fired('a');

-- What a monitor may see
CREATE ROLE regress_qml_monitor;
SELECT qml_schedule_recurring('c', '@yearly', 'm', '{"secret": 1}', 'seen', metadata => '{"secret": 1}') IS NOT NULL, qml_schedule_recurring('d', '@yearly', 'm', '{"secret": 1}', 'unseen', metadata => '{"secret": 1}') IS NOT NULL;
SELECT qml_grant('regress_qml_monitor', 'monitor', 'seen');
SET ROLE regress_qml_monitor;
SELECT id, cron, method, payload, queue, metadata, created_by FROM qml.recurring WHERE id IN ('c', 'd') ORDER BY id;
RESET ROLE;

-- In another time zone, written in another style, the same is meant
SET timezone = 'Pacific/Auckland';
SET datestyle = 'SQL, DMY';
SELECT qml_schedule_recurring('zone', '0 12 1 1 *', 'm', timezone => 'Asia/Kolkata') AT TIME ZONE 'Asia/Kolkata' = (date_trunc('year', now() AT TIME ZONE 'Asia/Kolkata') + interval '1 year 12 h') AS noon;
UPDATE qml.recurring_data SET next_run_at = '2020-01-01 12:00 Asia/Kolkata' WHERE id = 'zone';
SELECT qml_poll_recurring() AS one;
SELECT metadata #>> '{recurring,tick}' AS tick FROM qml.job WHERE metadata #>> '{recurring,id}' = 'zone';

REVOKE USAGE ON SCHEMA t FROM PUBLIC;
SELECT t.reset();
DROP OWNED BY regress_qml_owner, regress_qml_group, regress_qml_member, regress_qml_monitor;
DROP ROLE regress_qml_owner, regress_qml_group, regress_qml_member, regress_qml_monitor;
DROP FUNCTION t.year, t.missed, t.fired, t.place, t.one_job_a_tick, t.put, t.ago, t.cron_of;
