-- Bulk operations: what each action does to which jobs, options, rights, and what is refused.  They
-- are done by qml_maintain() here; 204_bulk.pl has them done in the background.

\ir include/start.sql

DELETE FROM qml.live;
DELETE FROM qml.history;
DELETE FROM qml.bulk_data;
CREATE TEMP TABLE made (n int PRIMARY KEY, id uuid);

-- A job in a state; its payload has its number.
CREATE FUNCTION pg_temp.make(n int, queue text, state qml.job_state) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
	job uuid := qml_enqueue('m' || n % 2, jsonb_build_object('n', n, 'sub', jsonb_build_object('a', 1, 'b', 2)), queue,
		run_at => CASE WHEN state IN ('scheduled', 'awaiting_retry') THEN now() + interval '1 day' END);
BEGIN
	IF state = 'awaiting_retry' THEN
		PERFORM qml_retry(job);
	END IF;
	IF state NOT IN ('scheduled', 'enqueued') THEN
		PERFORM qml_fetch_job(job, 'w');
	END IF;
	CASE state
		WHEN 'succeeded' THEN PERFORM qml_succeed(job, 1);
		WHEN 'failed' THEN PERFORM qml_fail(job, 1, 'no', retry => false);
		WHEN 'awaiting_retry' THEN PERFORM qml_fail(job, 1, 'again', retry_at => now() + interval '1 day');
		WHEN 'deleted' THEN PERFORM qml_delete(job);
		ELSE NULL;
	END CASE;
	INSERT INTO made VALUES (n, job);
	RETURN job;
END $$;
CREATE FUNCTION pg_temp.make_all(queue text, first int) RETURNS void LANGUAGE sql AS $$
	SELECT count(pg_temp.make(first + s.n::int, queue, s.state))
		FROM unnest('{scheduled,enqueued,processing,awaiting_retry,succeeded,failed,deleted}'::qml.job_state[]) WITH ORDINALITY s (state, n)
$$;
-- Makes an operation and does it; what became of the jobs.
CREATE FUNCTION pg_temp.bulk(action text, query text, options jsonb DEFAULT '{}') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	made uuid := qml_bulk(action, query, options);
	failed jsonb := qml_maintain() -> 'failed';
BEGIN
	RETURN (SELECT concat_ws(' ', state, outcomes, reason, last_error, nullif(failed, '[]')) FROM qml.bulk WHERE id = made);
END $$;
CREATE FUNCTION pg_temp.states(queue text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(state || ':' || count, ' ' ORDER BY state)
		FROM (SELECT state, count(*) FROM qml.job WHERE job.queue = states.queue GROUP BY 1) s
$$;

SELECT pg_temp.make_all('a', 0);
SELECT pg_temp.make_all('b', 10);
SELECT is(pg_temp.states('a'), 'scheduled:1 enqueued:1 processing:1 awaiting_retry:1 succeeded:1 failed:1 deleted:1', 'a job in each state');

-------------------------------------------------------------------------------
-- What each action is for, and what it does
-------------------------------------------------------------------------------

CREATE FUNCTION pg_temp.preview(action text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(state || ':' || count, ' ' ORDER BY state) FROM qml_bulk_preview(action, 'queue:a')
$$;
SELECT is(pg_temp.preview(a), e, 'jobs for ' || a) FROM (VALUES
	('retry', 'scheduled:1 awaiting_retry:1 failed:1'),
	('delete', 'scheduled:1 enqueued:1 processing:1 awaiting_retry:1 succeeded:1 failed:1'),
	('move', 'scheduled:1 enqueued:1 awaiting_retry:1 failed:1'),
	('priority', 'scheduled:1 enqueued:1 awaiting_retry:1 failed:1'),
	('redrive', 'failed:1')) v (a, e);
SELECT results_eq($$SELECT queue, method, state, count FROM qml_bulk_preview('move', 'queue:a|b')$$,
	$$VALUES ('a', 'm0', 'enqueued'::qml.job_state, 1::bigint), ('a', 'm0', 'awaiting_retry', 1), ('a', 'm0', 'failed', 1), ('a', 'm1', 'scheduled', 1),
		('b', 'm0', 'enqueued', 1), ('b', 'm0', 'awaiting_retry', 1), ('b', 'm0', 'failed', 1), ('b', 'm1', 'scheduled', 1)$$,
	'a preview is by queue, method and state');

SELECT is(pg_temp.bulk('priority', 'queue:a', '{"priority": -3}'), 'finished {"changed": 4}', 'a priority');
SELECT is(pg_temp.bulk('priority', 'queue:a', '{"priority": -3}'), 'finished {"unchanged": 4}', 'the same again');
SELECT is((SELECT string_agg(state::text, ' ' ORDER BY state) FROM qml.job WHERE queue = 'a' AND priority = -3), 'scheduled enqueued awaiting_retry failed', 'they have it');
SELECT is(pg_temp.bulk('move', 'queue:a', '{"queue": "c"}'), 'finished {"changed": 4}', 'another queue');
SELECT is(pg_temp.states('c'), 'scheduled:1 enqueued:1 awaiting_retry:1 failed:1', 'they are there');
SELECT is(pg_temp.bulk('move', 'queue:c', '{"queue": "a"}'), 'finished {"changed": 4}', 'and back');
SELECT is(pg_temp.bulk('retry', 'queue:a'), 'finished {"changed": 3}', 'retry');
SELECT is(pg_temp.states('a'), 'enqueued:4 processing:1 succeeded:1 deleted:1', 'they are ready');
SELECT is((SELECT count(*)::int FROM qml_fetch('w', 'a', 10)), 4, 'and given to workers');
SELECT is(pg_temp.bulk('delete', 'queue:a', '{"reason": "over"}'), 'finished {"changed": 6}', 'delete');
SELECT is(pg_temp.states('a'), 'deleted:7', 'all are deleted');
SELECT is((SELECT count(*)::int FROM qml.job WHERE queue = 'a' AND reason = 'over'), 6, 'with the reason');
SELECT is(pg_temp.states('b'), 'scheduled:1 enqueued:1 processing:1 awaiting_retry:1 succeeded:1 failed:1 deleted:1', 'others are left alone');
SELECT is(pg_temp.bulk('redrive', 'queue:b', '{"queue": "d", "patch": {"n": 0, "sub": {"a": null, "c": {"x": 1, "y": null}}, "new": [null], "sub2": null}}'),
	'finished {"changed": 1}', 'redrive with a patch');
SELECT is((SELECT concat_ws(' ', state, queue, retries_left, payload) FROM qml.job WHERE id = (SELECT id FROM made WHERE n = 16)),
	'enqueued d 5 {"n": 0, "new": [null], "sub": {"b": 2, "c": {"x": 1}}}', 'as a merge patch says it');
SELECT is((SELECT created_by FROM qml.job WHERE queue = 'd'), current_user, 'it is a job of who changed it');
SELECT is(pg_temp.bulk('redrive', 'queue:b'), 'finished {}', 'there is no other');

-- An operation meets each job once: one that fails again is not retried.
SELECT pg_temp.make(n, 'e', 'failed') FROM generate_series(100, 149) n;
SELECT qml_bulk('redrive', 'queue:e') AS redrive \gset
SELECT qml_bulk('priority', 'queue:e', '{"priority": 1}') AS priority \gset
SELECT pg_temp.make(n, 'e', 'failed') FROM generate_series(150, 159) n;
SELECT ok((qml_maintain() ->> 'bulk_jobs')::int = 100, 'both are done');
SELECT is((SELECT concat_ws(' ', string_agg(DISTINCT state, ' '), sum(changed), sum(skipped), sum(held)) FROM qml.bulk WHERE id IN (:'redrive', :'priority')), 'finished 100 0 0', 'of the jobs that were there');
SELECT is(pg_temp.states('e'), 'enqueued:50 failed:10', 'what came later is not touched');

-- A job that cannot be changed hides no other.
CREATE FUNCTION public.typed(n int) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_handler('m0', 'public.typed');
SELECT is(pg_temp.bulk('redrive', 'queue:e', '{"patch": {"sub": null, "n": "no number"}}') ~ '^finished \{"error": 5, "changed": 5\} job [-0-9a-f]+: .* \(SQLSTATE QM008\)$', true,
	'a payload that does not fit the handler');
SELECT qml_unregister_handler('m0');

-- Relative times are those of when it was made, local times of the zone of who made it.
SET LOCAL TimeZone = 'Asia/Tokyo';
UPDATE qml.live SET created_at = '2024-05-01 03:00:00+09' WHERE id = (SELECT id FROM qml.live WHERE state = 'enqueued' LIMIT 1);
SELECT qml_bulk('delete', 'created:2024-05-01') AS bulk \gset
SET LOCAL TimeZone = 'America/New_York';
SELECT ok(qml_maintain() IS NOT NULL);
SELECT is((SELECT concat_ws(' ', state, changed) FROM qml.bulk WHERE id = :'bulk'), 'finished 1', 'the zone is kept');
SET LOCAL TimeZone = 'UTC';

-------------------------------------------------------------------------------
-- Steering
-------------------------------------------------------------------------------

SELECT pg_temp.make(n, 'f', 'enqueued') FROM generate_series(200, 209) n;
SELECT qml_bulk('delete', 'queue:f') AS bulk \gset
SELECT ok(qml_pause_bulk(:'bulk', 'wait'), 'paused');
SELECT ok(NOT qml_pause_bulk(:'bulk'), 'it was paused already');
SELECT is((SELECT concat_ws(' ', state, reason, changed) FROM qml.bulk WHERE id = :'bulk'), 'paused wait 0', 'it says so');
SELECT is(qml_maintain() ->> 'bulk_jobs', '0', 'nothing is done');
SELECT ok(qml_resume_bulk(:'bulk'), 'resumed');
SELECT ok(NOT qml_resume_bulk(:'bulk'), 'it was running already');
SELECT is(qml_maintain() ->> 'bulk_jobs', '10', 'it is done');
SELECT throws_ok(format('SELECT qml_pause_bulk(%L)', :'bulk'), '55000', NULL, 'one that has ended is not paused');
SELECT throws_ok(format('SELECT qml_resume_bulk(%L)', :'bulk'), '55000', NULL, 'nor resumed');
SELECT throws_ok(format('SELECT qml_cancel_bulk(%L)', :'bulk'), '55000', NULL, 'nor canceled');
SELECT qml_bulk('delete', 'queue:e') AS bulk \gset
SELECT ok(qml_cancel_bulk(:'bulk', 'no'), 'canceled');
SELECT ok(NOT qml_cancel_bulk(:'bulk'), 'already');
SELECT is(qml_maintain() ->> 'bulk_jobs', '0', 'nothing is done');
SELECT throws_ok(format('SELECT qml_resume_bulk(%L)', :'bulk'), '55000', NULL, 'nor is it resumed');
SELECT is((SELECT string_agg(action || coalesce(' ' || (after ->> 'reason'), ''), ', ' ORDER BY at) FROM qml.audit WHERE object = :'bulk' AND object_type = 'bulk'),
	'qml_bulk, qml_cancel_bulk no', 'all of it is recorded');

-------------------------------------------------------------------------------
-- What is refused
-------------------------------------------------------------------------------

SELECT throws_ok(format('SELECT qml_bulk(%s)', call), code, NULL, call || ': ' || code) FROM (VALUES
	($$'destroy', 'queue:a'$$, '22023'),
	($$'', 'queue:a'$$, '22023'),
	($$NULL, 'queue:a'$$, '22004'),
	($$'retry', NULL$$, '22004'),
	($$'retry', 'queue:a', NULL$$, '22004'),
	($$'retry', ''$$, '22023'),
	($$'retry', '  '$$, '22023'),
	($$'retry', '', '{"all": false}'$$, '22023'),
	($$'retry', 'quue:a'$$, '22023'),
	($$'retry', 'queue:a', '[]'$$, '22023'),
	($$'retry', 'queue:a', '{"queue": "b"}'$$, 'QM005'),
	($$'retry', 'queue:a', '{"al": true}'$$, 'QM005'),
	($$'retry', 'queue:a', '{"all": 1}'$$, 'QM005'),
	($$'move', 'queue:a'$$, 'QM005'),
	($$'move', 'queue:a', '{"queue": null}'$$, 'QM005'),
	($$'move', 'queue:a', '{"queue": ""}'$$, 'QM005'),
	($$'move', 'queue:a', '{"queue": 1}'$$, 'QM005'),
	($$'move', 'queue:a', '{"queue": "qml.hooks"}'$$, 'QM005'),
	($$'priority', 'queue:a'$$, 'QM005'),
	($$'priority', 'queue:a', '{"priority": 1.5}'$$, 'QM005'),
	($$'priority', 'queue:a', '{"priority": 2147483648}'$$, 'QM005'),
	($$'priority', 'queue:a', '{"priority": "1"}'$$, 'QM005'),
	($$'delete', 'queue:a', '{"reason": 1}'$$, 'QM005'),
	($$'redrive', 'queue:a', '{"patch": 1}'$$, 'QM005'),
	($$'redrive', 'queue:a', '{"patch": []}'$$, 'QM005'),
	($$'redrive', 'queue:a', '{"priority": 1}'$$, 'QM005')) v (call, code);
SELECT throws_ok($$SELECT qml_pause_bulk('00000000-0000-7000-8000-000000000000')$$, '42704', NULL, 'there is no such operation');
SELECT throws_ok($$SELECT qml_cancel_bulk(NULL)$$, '22004', NULL, 'no id');
SELECT throws_ok($$SELECT * FROM qml_bulk_preview('destroy', 'queue:a')$$, '22023', NULL, 'a preview of no action');
SELECT throws_ok($$SELECT * FROM qml_bulk_preview('delete', 'nothing:a')$$, '22023', NULL, 'nor of no query');
SELECT is(pg_temp.bulk('priority', '', '{"all": true, "priority": 9}') ~ '^finished .*"changed"', true, 'all jobs, if they are meant');

-------------------------------------------------------------------------------
-- Rights: those of the role that made it, as they are when it is done
-------------------------------------------------------------------------------

DELETE FROM qml.live;
DELETE FROM qml.history;
CREATE ROLE t_bulk;
CREATE ROLE t_member;
GRANT t_bulk TO t_member;
SELECT qml_grant('t_bulk', 'admin', 'a'), qml_grant('t_bulk', 'monitor'), qml_grant('t_member', 'admin', 'z');
SELECT pg_temp.make(n, 'a', 'enqueued') FROM generate_series(300, 304) n;
SELECT pg_temp.make(n, 'b', 'enqueued') FROM generate_series(310, 314) n;
SELECT pg_temp.ends('t_bulk', $$SELECT qml_bulk('delete', 'queue:b')$$, '42501', 'a queue of others');
SELECT pg_temp.ends('t_bulk', $$SELECT qml_bulk('delete', 'queue:a|b')$$, '42501', 'nor one of several');
SELECT pg_temp.ends('t_bulk', $$SELECT qml_bulk('move', 'queue:a', '{"queue": "b"}')$$, '42501', 'nor as the target');
SELECT pg_temp.ends('t_bulk', $$SELECT string_agg(DISTINCT queue, ' ') FROM qml_bulk_preview('delete', '')$$, '=a', 'a preview has what it may change');
SET LOCAL ROLE t_bulk;
SELECT qml_bulk('priority', 'state:enqueued', '{"priority": 1}') AS bulk \gset
SELECT qml_bulk('priority', 'payload.n:>=300', '{"priority": 2}') AS contents \gset
RESET ROLE;
SELECT ok(qml_maintain() IS NOT NULL);
SELECT is((SELECT outcomes FROM qml.bulk WHERE id = :'bulk'), '{"changed": 5, "not_permitted": 5}', 'jobs that it may not change are counted');
SELECT is((SELECT outcomes FROM qml.bulk WHERE id = :'contents'), '{"changed": 5}', 'but not by their contents');
SELECT pg_temp.ends('t_member', 'SELECT count(*) FROM qml.bulk', '=2', 'a member of the role sees its operations');

SET LOCAL ROLE t_bulk;
SELECT qml_bulk('delete', 'queue:a') AS bulk \gset
SELECT qml_bulk('move', 'queue:a', '{"queue": "a"}') AS move \gset
RESET ROLE;
SELECT qml_revoke('t_bulk', 'admin', 'a');
SELECT ok(qml_maintain() IS NOT NULL);
SELECT is((SELECT concat_ws(': ', state, reason) FROM qml.bulk WHERE id = :'bulk'),
	'failed: role "t_bulk" has no capability "admin" on a queue that the query names any more', 'a right that was revoked');
SELECT is(pg_temp.states('a'), 'enqueued:5', 'nothing is done');
SELECT is((SELECT ok FROM qml_status() WHERE check_name = 'bulk'), false, 'the status says so');
SELECT qml_grant('t_bulk', 'admin', 'a');
SELECT ok(qml_resume_bulk(:'bulk'), 'it can be resumed');
SELECT ok(qml_maintain() IS NOT NULL);
SELECT is((SELECT concat_ws(' ', state, changed) FROM qml.bulk WHERE id = :'bulk'), 'finished 5', 'and goes on');
SELECT ok(qml_cancel_bulk(:'move'), 'the other one is canceled');
SELECT is((SELECT ok FROM qml_status() WHERE check_name = 'bulk'), true, 'all is well');

SET LOCAL ROLE t_bulk;
SELECT qml_bulk('delete', 'state:enqueued') AS bulk \gset
RESET ROLE;
SELECT qml_drop_role_objects('t_bulk') IS NOT NULL;
DROP ROLE t_bulk;
SELECT ok(qml_maintain() IS NOT NULL);
SELECT ok((SELECT state = 'failed' AND reason ~ '^the role that made it, with OID \d+, was dropped$' FROM qml.bulk WHERE id = :'bulk'), 'a role that was dropped');

-------------------------------------------------------------------------------
-- Dead letters
-------------------------------------------------------------------------------

DELETE FROM qml.live;
DELETE FROM qml.history;
SELECT qml_create_queue('u', '{"storage": "unlogged"}');
CREATE FUNCTION pg_temp.fail(method text, queue text, error text, type text DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	job uuid := qml_enqueue(method, queue => queue);
BEGIN
	PERFORM qml_fetch_job(job, 'w');
	PERFORM qml_fail(job, 1, error, type, retry => false);
END $$;
SELECT pg_temp.fail('mail', 'a', format('host "h%s" refused mail %s to %s', n, n, gen_random_uuid()), 'net') FROM generate_series(1, 30) n;
SELECT pg_temp.fail('mail', 'a', 'host "x" refused mail 1 for ever', 'net');
SELECT pg_temp.fail('mail', 'a', 'host "x" refused mail 1 to 0190f3c4-5b6a-7c8d-9e0f-a1b2c3d4e5f6', 'other') FROM generate_series(1, 2);
SELECT pg_temp.fail('post', 'a', 'host "x" refused mail 1 to 0190f3c4-5b6a-7c8d-9e0f-a1b2c3d4e5f6', 'net') FROM generate_series(1, 3);
SELECT pg_temp.fail('mail', 'b', 'host "x" refused mail 1 to 0190f3c4-5b6a-7c8d-9e0f-a1b2c3d4e5f6', 'net') FROM generate_series(1, 4);
SELECT pg_temp.fail('mail', 'u', 'host "x" refused mail 1 to 0190f3c4-5b6a-7c8d-9e0f-a1b2c3d4e5f6', 'net') FROM generate_series(1, 5);
SELECT pg_temp.fail('mail', 'a', NULL);
SELECT results_eq('SELECT queue, method, error_type, count FROM qml.dead_letter ORDER BY 1, 2, 3, 4',
	$$VALUES ('a', 'mail', 'net', 1::bigint), ('a', 'mail', 'net', 30), ('a', 'mail', 'other', 2), ('a', 'mail', NULL, 1), ('a', 'post', 'net', 3),
		('b', 'mail', 'net', 4), ('u', 'mail', 'net', 5)$$, 'groups');
SELECT is((SELECT count(DISTINCT fingerprint)::int FROM qml.dead_letter), 5, 'the same in another queue has the same fingerprint');
SELECT is((SELECT count(*)::int FROM qml.dead_letter d JOIN qml.job j ON j.id = d.sample
	WHERE j.error = d.error AND j.queue = d.queue AND j.state = 'failed' AND d.fingerprint ~ '^[0-9a-f]{16}$'
		AND (d.first_failed_at, d.last_failed_at) = (SELECT min(finished_at), max(finished_at) FROM qml_search('fingerprint:' || d.fingerprint || ' queue:' || d.queue, 100))),
	7, 'with a sample, and times');
SELECT fingerprint FROM qml.dead_letter WHERE count = 30 \gset
SELECT is((SELECT count(*)::int FROM qml_search('fingerprint:' || upper(:'fingerprint'), 100)), 39, 'its jobs are found');
SELECT is((SELECT count(*)::int FROM qml_search('state:failed -fingerprint:' || :'fingerprint', 100)), 7, 'and the others');
SELECT is(pg_temp.bulk('redrive', 'queue:a fingerprint:' || :'fingerprint'), 'finished {"changed": 30}', 'a group is redriven');
SELECT is((SELECT count(*)::int FROM qml.dead_letter WHERE fingerprint = :'fingerprint' AND queue = 'a'), 0, 'it is gone');
-- A role that monitors another queue sees how many there are, and nothing of their errors.
CREATE ROLE t_dead;
SELECT qml_grant('t_dead', 'monitor', 'b');
SELECT pg_temp.ends('t_dead', $$SELECT string_agg(concat_ws(' ', queue, method, count, fingerprint IS NOT NULL, error IS NOT NULL), ', ' ORDER BY queue, method) FROM qml.dead_letter$$,
	'=a mail 4 f f, a post 3 f f, b mail 4 t t, u mail 5 f f', 'without errors there is one group');
SELECT pg_temp.ends('t_dead', format('SELECT count(*) FROM qml_search(%L)', 'fingerprint:' || :'fingerprint'), '=4', 'nor is it found by them');

-- What is hidden cannot be guessed by operations, previews or fingerprints.
SELECT qml_create_queue('secret', '{"redact": ["payload.card"]}');
SELECT qml_enqueue('pay', jsonb_build_object('card', n), 'secret') FROM generate_series(1, 3) n;
SELECT count(qml_fail(id, attempt, 'card ' || (payload ->> 'card') || 'x refused', retry => false)) FROM qml_fetch('w', 'secret', 3);
SELECT qml_grant('t_dead', 'monitor'), qml_grant('t_dead', 'admin', 'b');
SELECT pg_temp.ends('t_dead', $$SELECT string_agg(concat_ws(' ', count, fingerprint IS NOT NULL, error IS NOT NULL), ', ') FROM qml.dead_letter WHERE queue = 'secret'$$, '=3 f f',
	'nor fingerprints nor errors are shown');
SELECT pg_temp.ends('t_dead', $$SELECT * FROM qml_search('queue:secret fingerprint:0000000000000000')$$, '42501', 'nor sought');
SELECT pg_temp.ends('t_dead', $$SELECT * FROM qml_bulk_preview('delete', 'queue:secret payload.card:1')$$, '42501', 'nor previewed');
SELECT pg_temp.ends('t_dead', $$SELECT count(*) FROM qml_bulk_preview('delete', 'payload.card:1')$$, '=0', 'nor among others');
SET LOCAL ROLE t_dead;
SELECT qml_bulk('retry', 'payload.card:1') AS guess \gset
SELECT qml_bulk('retry', 'error:refused') AS words \gset
RESET ROLE;
SELECT ok(qml_maintain() IS NOT NULL);
SELECT is((SELECT string_agg(outcomes::text, ' ' ORDER BY made_at) FROM qml.bulk WHERE id IN (:'guess', :'words')), '{} {"changed": 4}', 'nor counted');

-- Operations that have ended are kept for a week.
UPDATE qml.bulk_data SET state_at = now() - interval '8 days';
SELECT qml_bulk('delete', 'queue:nothing') AS bulk \gset
SELECT results_eq('SELECT state FROM qml.bulk ORDER BY made_at', $$VALUES ('running')$$, 'the others are gone');

SELECT * FROM finish();
ROLLBACK;
