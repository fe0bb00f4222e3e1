-- qml_search: each query gives the jobs that a condition of SQL gives, in the one order, as one page
-- and as many.

\ir include/start.sql

-- Jobs that others have left.
DELETE FROM qml.live;
DELETE FROM qml.history;
CREATE TEMP TABLE made (n int PRIMARY KEY, id uuid);

-- Jobs of all states, in several queues, of several methods; some with ids of their own: random ones,
-- ones of version 7 with another time, and some that were created at the same time.
SELECT qml_create_queue('u', '{"storage": "unlogged"}');
CREATE FUNCTION pg_temp.make(n int) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
	queue text := (ARRAY['a', 'b', 'c d', 'u'])[1 + n % 4];
	method text := CASE WHEN n = 77 THEN 'rare' ELSE (ARRAY['mail', 'Mail.send', 'resize', 'sum'])[1 + (n / 4) % 4] END;
	own uuid := CASE
		WHEN n % 7 = 0 THEN md5(n::text)::uuid
		WHEN n % 11 = 0 THEN ('018f0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid
		WHEN n % 13 = 0 THEN ('ffffffff-ffff-4fff-bfff-' || lpad(to_hex(n), 12, '0'))::uuid
	END;
	job uuid;
	attempt int;
BEGIN
	job := qml_enqueue(method, jsonb_build_object('n', n, 'tag', 'x' || n % 3, 'nest',
			jsonb_build_object('list', jsonb_build_array(n % 2, 'two', null, true, 1.50), 'a.b', 'dotted')),
		queue, priority => n % 5 - 2, id => own,
		metadata => CASE WHEN n % 2 = 0 THEN '{"tenant": "t' || n % 4 || '"}' END::jsonb,
		job_type => CASE WHEN n % 3 = 0 THEN 'even' END,
		run_at => CASE WHEN n % 10 IN (0, 1) THEN now() + interval '1 day' END);
	IF n % 10 BETWEEN 4 AND 9 THEN
		SELECT f.attempt INTO attempt FROM qml_fetch('w' || n % 2, ARRAY[queue], 100) f WHERE f.id = job;
		CASE n % 10
			WHEN 4 THEN NULL;
			WHEN 5 THEN PERFORM qml_succeed(job, attempt, '{"ok": true}');
			WHEN 6 THEN PERFORM qml_succeed(job, attempt);
			WHEN 7 THEN PERFORM qml_fail(job, attempt, 'Time out of ' || n, 'E' || n % 3, retry => false);
			WHEN 8 THEN PERFORM qml_fail(job, attempt, 'try Again', 'E0');
			ELSE PERFORM qml_delete(job);
		END CASE;
	END IF;
	RETURN job;
END $$;
INSERT INTO made SELECT n, pg_temp.make(n) FROM generate_series(1, 200) n;
-- The others that were fetched with one of them go back, but for some.
SELECT count(qml_release(j.id, j.attempt)) > 0 FROM qml.job j JOIN made m USING (id)
	WHERE j.state = 'processing' AND m.n % 10 <> 4;

-- Times of the past, so that jobs took long, and waited; none at the edge of what is sought.
UPDATE qml.live l SET created_at = created_at - m.n * interval '1 minute' - interval '30 s' FROM made m WHERE m.id = l.id AND m.n % 3 = 0;
UPDATE qml.history h SET created_at = created_at - m.n * interval '1 minute' - interval '30 s', started_at = started_at - interval '20 s'
	FROM made m WHERE m.id = h.id AND m.n % 3 <> 0;
UPDATE qml.history h SET finished_at = finished_at - m.n * interval '30 s' - interval '15 s' FROM made m WHERE m.id = h.id AND m.n % 2 = 0 AND m.n % 3 <> 0;
UPDATE qml.history_unlogged h SET created_at = created_at - m.n * interval '1 minute' - interval '30 s', finished_at = finished_at - m.n * interval '30 s' - interval '15 s'
	FROM made m WHERE m.id = h.id AND m.n % 3 = 1;

SELECT is((SELECT count(DISTINCT state)::int FROM qml.job), 7, 'there are jobs in all states but awaiting_parents');

-- What a query gives, page by page, from the last job of each.
CREATE FUNCTION pg_temp.pages(query text, size int, by_id boolean) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
	found uuid[] := '{}';
	page uuid[];
	last text;
BEGIN
	LOOP
		SELECT array_agg(j.id ORDER BY o), (array_agg(CASE WHEN by_id THEN j.id::text ELSE j.created_at || ' ' || j.id END ORDER BY o DESC))[1]
			INTO page, last
			FROM qml_search(query, size, last) WITH ORDINALITY AS j (id, queue, method, payload, state, priority, attempt, tries, max_retries,
				retries_left, run_at, created_at, ready_at, started_at, finished_at, expires_at, lease_expires_at, worker, server, timeout, result,
				progress, error, errors, metadata, job_type, reason, created_by, o);
		EXIT WHEN page IS NULL;
		found := found || page;
	END LOOP;
	RETURN found;
END $$;

CREATE FUNCTION pg_temp.check_query(query text, condition text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	wanted uuid[];
	found uuid[];
BEGIN
	EXECUTE format('SELECT coalesce(array_agg(id ORDER BY qml.search_order(id, created_at) DESC, id DESC), ''{}'') FROM qml.job WHERE %s', condition)
		INTO wanted;
	SELECT coalesce(array_agg(j.id ORDER BY qml.search_order(id, created_at) DESC, id DESC), '{}') INTO found FROM qml_search(query, 1000) j;
	RETURN NEXT ok(found = wanted, format('%s (%s jobs, found %s)', query, cardinality(wanted), cardinality(found)));
	SELECT coalesce(array_agg(id), '{}') INTO found FROM (SELECT id FROM qml_search(query, 1000)) j;
	RETURN NEXT ok(found = wanted, format('%s: in the right order', query));
	RETURN NEXT ok(pg_temp.pages(query, 7, true) = wanted, format('%s: in pages', query));
	RETURN NEXT ok(pg_temp.pages(query, 1, false) = wanted, format('%s: one by one', query));
END $$;

CREATE TEMP TABLE query (query text, condition text);
INSERT INTO query VALUES
	('', 'true'),
	('state:failed', $$state = 'failed'$$),
	('state:failed|deleted', $$state IN ('failed', 'deleted')$$),
	('-state:succeeded', $$state <> 'succeeded'$$),
	('state:scheduled', $$state = 'scheduled'$$),
	('state:awaiting_retry|scheduled', $$state IN ('awaiting_retry', 'scheduled')$$),
	('state:enqueued', $$state = 'enqueued'$$),
	('state:processing', $$state = 'processing'$$),
	('state:processing|succeeded', $$state IN ('processing', 'succeeded')$$),
	('state:awaiting_parents', 'false'),
	('state:failed -state:failed', 'false'),
	('queue:a', $$queue = 'a'$$),
	('queue:"c d"', $$queue = 'c d'$$),
	('queue:a|u', $$queue IN ('a', 'u')$$),
	('-queue:a', $$queue <> 'a'$$),
	('queue:nothing', 'false'),
	('queue:a queue:b', 'false'),
	('queue:a state:failed', $$queue = 'a' AND state = 'failed'$$),
	('queue:b state:scheduled', $$queue = 'b' AND state = 'scheduled'$$),
	('queue:u state:enqueued', $$queue = 'u' AND state = 'enqueued'$$),
	('method:mail', $$method = 'mail'$$),
	('method:rare', $$method = 'rare'$$),
	('method:mail|sum -state:failed', $$method IN ('mail', 'sum') AND state <> 'failed'$$),
	('method:mail state:failed', $$method = 'mail' AND state = 'failed'$$),
	('method:mail queue:a', $$method = 'mail' AND queue = 'a'$$),
	('method:mail queue:a|b state:deleted|failed', $$method = 'mail' AND queue IN ('a', 'b') AND state IN ('deleted', 'failed')$$),
	('-method:mail', $$method <> 'mail'$$),
	('type:even', $$job_type = 'even'$$),
	('-type:even', $$job_type IS DISTINCT FROM 'even'$$),
	('worker:w1', $$worker = 'w1'$$),
	('server:none', 'false'),
	('by:no_such_role', 'false'),
	('priority:1', 'priority = 1'),
	('priority:>0', 'priority > 0'),
	('priority:-2..-1|2', 'priority IN (-2, -1, 2)'),
	('attempt:>=1', 'attempt >= 1'),
	('attempt:0', 'attempt = 0'),
	('payload.n:77', $$payload ->> 'n' = '77'$$),
	('payload.n:77.0', $$(payload ->> 'n')::numeric = 77$$),
	('payload.n:>=190', $$(payload ->> 'n')::int >= 190$$),
	('payload.n:10..12', $$(payload ->> 'n')::int BETWEEN 10 AND 12$$),
	('payload.n:<3', $$(payload ->> 'n')::int < 3$$),
	('payload.tag:x1|x2', $$payload ->> 'tag' IN ('x1', 'x2')$$),
	('-payload.tag:x1', $$payload ->> 'tag' <> 'x1'$$),
	('payload.nest.list.0:1', $$payload #>> '{nest,list,0}' = '1'$$),
	('payload.nest.list.1:two', 'true'),
	('payload.nest.list.2:null', 'true'),
	('payload.nest.list.3:true', 'true'),
	('payload.nest.list.4:1.5', 'true'),
	('payload.nest.list.5:1.5', 'false'),
	('payload.nest."a.b":dotted', 'true'),
	('payload.nest.a.b:dotted', 'false'),
	('payload.tag.x:1', 'false'),
	('metadata.tenant:t2', $$metadata ->> 'tenant' = 't2'$$),
	('error:"time OUT"', $$error ILIKE '%time out%'$$),
	('error:again', $$error ILIKE '%again%'$$),
	('error_type:E0', $$errors -> -1 ->> 'error_type' = 'E0'$$),
	('-error_type:E0 state:failed', $$errors -> -1 ->> 'error_type' <> 'E0' AND state = 'failed'$$),
	('mail', $$method ILIKE '%mail%' OR error ILIKE '%mail%'$$),
	('again', $$method ILIKE '%again%' OR error ILIKE '%again%'$$),
	('-mail -again', $$NOT method ILIKE '%mail%' AND coalesce(NOT error ILIKE '%again%', true)$$),
	('created:<1h', $$created_at > clock_timestamp() - interval '1 hour'$$),
	('created:>1h', $$created_at < clock_timestamp() - interval '1 hour'$$),
	('created:2h..1h', $$created_at BETWEEN clock_timestamp() - interval '2 h' AND clock_timestamp() - interval '1 h'$$),
	('created:>1h queue:a', $$created_at < clock_timestamp() - interval '1 hour' AND queue = 'a'$$),
	('created:>1h state:failed', $$created_at < clock_timestamp() - interval '1 hour' AND state = 'failed'$$),
	('finished:<10m', $$finished_at > clock_timestamp() - interval '10 m'$$),
	('finished:30m..10m', $$finished_at BETWEEN clock_timestamp() - interval '30 m' AND clock_timestamp() - interval '10 m'$$),
	('finished:30m..10m state:failed', $$finished_at BETWEEN clock_timestamp() - interval '30 m' AND clock_timestamp() - interval '10 m' AND state = 'failed'$$),
	('finished:30m..10m queue:c|a|u', $$finished_at BETWEEN clock_timestamp() - interval '30 m' AND clock_timestamp() - interval '10 m' AND queue IN ('a', 'u')$$),
	('finished:<5m', $$finished_at > clock_timestamp() - interval '5 m'$$),
	('-finished:<10m', $$coalesce(finished_at <= clock_timestamp() - interval '10 m', true)$$),
	('finished:2001-01-01..2002', 'false'),
	('run:>10s', $$finished_at - started_at > interval '10 s'$$),
	('wait:>30m state:succeeded', $$started_at - ready_at > interval '30 m' AND state = 'succeeded'$$),
	('id:00000000-0000-0000-0000-000000000000', 'false');
INSERT INTO query SELECT format('by:%s', current_user), format('created_by = %L', current_user);
INSERT INTO query SELECT format('id:%s|%s|%s', a.id, b.id, a.id), format('id IN (%L, %L)', a.id, b.id)
	FROM made a, made b WHERE (a.n, b.n) IN ((7, 8), (75, 76), (99, 13), (166, 3));
INSERT INTO query SELECT id::text, format('id = %L', id) FROM made WHERE n IN (5, 7);
-- Relative times are those of the call: what is at the edge is told apart by more than the test takes.
SELECT pg_temp.check_query(query, condition) FROM query;

-- By dropped queues, too.
SELECT qml_create_queue('gone');
SELECT qml_enqueue('m', queue => 'gone') AS gone \gset
SELECT qml_succeed(id, attempt) FROM qml_fetch('w', 'gone');
SELECT qml_drop_queue('gone');
SELECT is((SELECT array_agg(id) FROM qml_search('queue:gone')), ARRAY[:'gone'::uuid], 'finished jobs of a dropped queue');

-------------------------------------------------------------------------------
-- Arguments
-------------------------------------------------------------------------------

SELECT throws_ok($$SELECT qml_search(NULL)$$, '22004');
SELECT throws_ok($$SELECT qml_search('', 0)$$, '22023');
SELECT throws_ok($$SELECT qml_search('', 10001)$$, '22023');
SELECT throws_ok($$SELECT qml_search('', NULL)$$, '22004');
SELECT throws_ok($$SELECT qml_search('', 1, '')$$, '22023');
SELECT throws_ok($$SELECT qml_search('', 1, 'x')$$, '22023');
SELECT throws_ok($$SELECT qml_search('', 1, 'yesterdays 018f0000-0000-7000-8000-000000000001')$$, '22023');
SELECT throws_ok($$SELECT qml_search('', 1, '@x 018f0000-0000-7000-8000-000000000001')$$, '22023');
SELECT throws_ok($$SELECT qml_search('', 1, '@99999999999999999999 018f0000-0000-7000-8000-000000000001')$$, '22023');
SELECT throws_ok($$SELECT qml_search('', 1, '00000000-0000-0000-0000-000000000000')$$, 'QM001', NULL, 'a job that never was, whose id does not say when');
SELECT throws_ok($$SELECT qml_search('', 1, 'fff00000-0000-7000-8000-000000000000')$$, 'QM001', NULL, 'nor one of the far future');
SELECT is((SELECT count(*)::int FROM qml_search('', 1, '018f0000-0000-7000-8000-000000000001')), 0, 'an id of version 7 says it: before all these jobs');
SELECT is((SELECT count(*)::int FROM qml_search('', 5, 'infinity 018f0000-0000-7000-8000-000000000001')), 5, 'behind the end of time');
SELECT throws_ok($$SELECT qml_search(repeat('x', 4001))$$, '22023');

CREATE TEMP TABLE wrong (query text, message text, hint text);
INSERT INTO wrong VALUES
	('stat:failed', 'invalid query at position 1, "stat": there is no such field', 'Did you mean "state"? Fields are %'),
	('queue:a  STATE:faild', 'invalid query at position 16, "faild": there is no such state', 'Did you mean "failed"? States are %'),
	('methd:x', '%"methd": there is no such field', 'Did you mean "method"?%'),
	('zzzzzz:x', '%"zzzzzz": there is no such field', 'Fields are %'),
	('äöü "x', 'invalid query at position 5, ""x": a quote is not closed', NULL),
	('created:1h', '%an age needs < or >', 'Allowed are times as %'),
	('queue:', 'invalid query at position 7: a value is missing', NULL),
	('payload:x', '%needs a path%', '%payload.name%');
CREATE FUNCTION pg_temp.refusal(query text, OUT message text, OUT hint text, OUT code text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM qml_search(query);
	message := 'none';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT, code = RETURNED_SQLSTATE;
END $$;
SELECT ok(r.message LIKE w.message AND coalesce(nullif(r.hint, ''), '-') LIKE coalesce(w.hint, '-') AND r.code = '22023',
		format('%s: %s (%s)', w.query, r.message, r.hint))
	FROM wrong w, pg_temp.refusal(w.query) r;

-------------------------------------------------------------------------------
-- Rights: what a role does not see, it does not find
-------------------------------------------------------------------------------

CREATE ROLE t_own LOGIN;
CREATE ROLE t_work LOGIN;
SELECT qml_grant('t_own', 'monitor', 'a');
SELECT qml_grant('t_work', 'work', 'a');
SELECT pg_temp.ends('t_own', $$SELECT (SELECT count(*) FROM qml_search('', 1000)) = (SELECT count(*) FROM qml.job)$$, '=true', 'who monitors one queue sees the outlines of the others');
SELECT pg_temp.ends('t_own', $$SELECT count(*) FROM qml_search('', 1000) WHERE queue <> 'a' AND num_nonnulls(payload, error, errors, metadata, reason, result, progress) > 0$$, '=0', 'without their contents');
SELECT pg_temp.ends('t_own', format('SELECT array_agg(DISTINCT queue) FROM qml_search(%L, 1000)', q), '={a}', format('%s finds only what is seen', q))
	FROM unnest(ARRAY['payload.n:>0', '-payload.n:0', 'payload.tag:x1|x2|x0', 'metadata.tenant:t0|t2', '-error_type:none', '-error:nothing', 'error_type:E0|E1|E2']) q;
SELECT pg_temp.ends('t_own', $$SELECT count(*) FROM qml_search('"time out"', 1000) WHERE queue <> 'a'$$, '=0', 'words are not sought in errors that are not seen');
SELECT pg_temp.ends('t_own', $$SELECT count(*) > 0 FROM qml_search('mail', 1000) WHERE queue <> 'a'$$, '=true', 'but in methods');
SELECT pg_temp.ends('t_own', $$SELECT count(*) FROM qml_search('queue:no_such_queue')$$, '=0', 'of a queue that is not there nothing is found, and nothing is said');
SELECT pg_temp.ends('t_work', $$SELECT qml_search('')$$, '42501', 'a worker does not search');
SELECT pg_temp.ends('t_work', $$SELECT qml_search('foo:')$$, '42501', 'and is told so before the query is read');

-------------------------------------------------------------------------------
-- The planner leaves out what cannot have a state
-------------------------------------------------------------------------------

CREATE FUNCTION pg_temp.plan(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line text;
	plan text := '';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
		plan := plan || line || E'\n';
	END LOOP;
	RETURN plan;
END $$;
SELECT unalike(pg_temp.plan($$SELECT id FROM qml.job WHERE state = 'failed' AND finished_at IS NOT NULL$$), '% on live%', 'finished jobs are not sought among unfinished ones');
SELECT alike(pg_temp.plan($$SELECT id FROM qml.job WHERE state = 'failed' AND finished_at IS NOT NULL$$), '% on history_p%', 'but in the history');
SELECT unalike(pg_temp.plan($$SELECT id FROM qml.job WHERE state IN ('enqueued', 'scheduled') AND finished_at IS NULL$$), '% on history_p%', 'unfinished jobs are not sought in the history');
SELECT alike(pg_temp.plan($$SELECT id FROM qml.job WHERE state IN ('enqueued', 'scheduled') AND finished_at IS NULL$$), '% on live%', 'but in their table');
-- The server pushes a condition into the view only if its function is marked as leakproof.
ALTER FUNCTION pg_catalog.enum_eq(anyenum, anyenum) LEAKPROOF;
SELECT unalike(pg_temp.plan($$SELECT id FROM qml.job WHERE state = 'failed'$$), '% on live%', 'with a leakproof comparison the state is enough');
SELECT unalike(pg_temp.plan($$SELECT id FROM qml.job WHERE state IN ('enqueued', 'scheduled')$$), '% on history_p%', 'for unfinished jobs, too');
ALTER FUNCTION pg_catalog.enum_eq(anyenum, anyenum) NOT LEAKPROOF;
SELECT throws_ok($$INSERT INTO qml.live SELECT (jsonb_populate_record(l, '{"id": "018f0000-0000-7000-8000-00000000ffff", "state": "failed"}')).* FROM qml.live l LIMIT 1$$,
	'23514', NULL, 'SQL cannot add a finished job to unfinished ones');

-------------------------------------------------------------------------------
-- A partial answer
-------------------------------------------------------------------------------

SET LOCAL qml.search_limit = 100;
SELECT set_config('client_min_messages', 'error', true);
SELECT is((SELECT count(*)::int FROM qml_search('payload.n:>0', 1000)) < 200, true, 'so many jobs are looked at, and not more');

SELECT * FROM finish();
ROLLBACK;
