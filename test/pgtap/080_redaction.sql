-- Redaction: what the option "redact" hides from roles that only monitor, whatever shows jobs; and
-- attempts to guess it.  A new column or result of a text or a document fails the test until it
-- stands in the list below.

\ir include/start.sql

-- Jobs that others have left.
DELETE FROM qml.live;
DELETE FROM qml.history;

CREATE ROLE t_monitor; -- monitors the queues
CREATE ROLE t_all;     -- monitors all queues
CREATE ROLE t_else;    -- monitors another queue: sees outlines
CREATE ROLE t_work;
CREATE ROLE t_admin;
CREATE ROLE t_maker;   -- enqueues, and looks at its own jobs
CREATE ROLE t_both;    -- enqueues and monitors

-- The secret is s3cr3t, and the number 481516.
CREATE TABLE public.made (name text PRIMARY KEY, id uuid);
GRANT SELECT ON made TO PUBLIC;

SELECT qml_create_queue('pay', '{"redact": ["payload.ssn", "payload.cards.number", "payload.pin", "metadata.tenant"]}');
SELECT qml_create_queue('quick', '{"storage": "unlogged", "redact": ["payload.ssn", "payload.cards.number", "payload.pin", "metadata.tenant"]}');
SELECT qml_create_queue('open');
SELECT qml_create_queue('else');
CREATE FUNCTION public.redacted_handler(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload';
SELECT qml_register_handler('card', 'public.redacted_handler(jsonb)'::regprocedure,
	'{"redact": ["payload.ssn", "payload.cards.number", "payload.pin", "metadata.tenant"]}');
SELECT qml_grant(r, c, q) FROM (VALUES
	('t_monitor'::regrole, 'monitor', 'pay'), ('t_monitor', 'monitor', 'quick'), ('t_monitor', 'monitor', 'open'),
	('t_all', 'monitor', NULL), ('t_else', 'monitor', 'else'),
	('t_work', 'work', 'pay'), ('t_work', 'work', 'quick'), ('t_work', 'work', 'open'),
	('t_admin', 'admin', 'pay'), ('t_admin', 'admin', 'quick'), ('t_admin', 'admin', 'open'),
	('t_maker', 'enqueue', 'pay'), ('t_maker', 'enqueue', 'quick'), ('t_maker', 'enqueue', 'open'),
	('t_both', 'enqueue', 'pay'), ('t_both', 'monitor', 'pay')) v (r, c, q);

-- Jobs in all places that a job can be in, with the secret in each document and text.
CREATE FUNCTION pg_temp.make(name text, queue text, method text, what text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	job uuid;
	attempt int;
BEGIN
	SET LOCAL ROLE t_maker;
	job := qml_enqueue(method, '{"ssn": "s3cr3t", "pin": 481516, "n": 1,
		"cards": [{"number": "s3cr3t", "kind": "visa"}, {"number": {"first": "s3cr3t", "pin": 481516}}]}', queue,
		metadata => '{"tenant": "s3cr3t", "source": "web"}',
		run_at => CASE WHEN what = 'scheduled' THEN now() + interval '1 day' END);
	RESET ROLE;
	INSERT INTO made VALUES (name, job);
	IF what = 'scheduled' THEN
		PERFORM qml_reschedule(job, now() + interval '2 days', 'because of s3cr3t');
	END IF;
	IF what NOT IN ('enqueued', 'scheduled', 'deleted') THEN
		SELECT f.attempt INTO attempt FROM qml_fetch_job(job, 'w') f;
		PERFORM qml_progress(job, attempt, '{"at": "s3cr3t"}');
	END IF;
	CASE what
		WHEN 'awaiting_retry' THEN PERFORM qml_fail(job, attempt, 'no s3cr3t', 's3cr3t', 'at s3cr3t', retry_at => now() + interval '1 day');
		WHEN 'failed' THEN PERFORM qml_fail(job, attempt, 'no s3cr3t', 's3cr3t', 'at s3cr3t', retry => false);
		WHEN 'succeeded' THEN PERFORM qml_succeed(job, attempt, '{"got": "s3cr3t", "pin": 481516}');
		WHEN 'released' THEN PERFORM qml_release(job, attempt, now() + interval '1 day', 'because of s3cr3t');
		WHEN 'deleted' THEN PERFORM qml_delete(job, 'because of s3cr3t');
		ELSE NULL;
	END CASE;
END $$;
SELECT pg_temp.make(s || ' ' || q, q, m, s)
	FROM (VALUES ('pay', 'm'), ('quick', 'm'), ('open', 'card')) v (q, m),
		unnest('{enqueued,scheduled,processing,awaiting_retry,released,failed,succeeded,deleted}'::text[]) s;
SELECT pg_temp.make('other ' || s, 'open', 'm', s) FROM unnest('{enqueued,succeeded}'::text[]) s;
SET LOCAL ROLE t_maker;
SELECT qml_schedule_recurring('r_' || q, '@daily', m, '{"ssn": "s3cr3t", "n": 1}', q, metadata => '{"tenant": "s3cr3t"}')
	FROM (VALUES ('pay', 'm'), ('open', 'card')) v (q, m);
RESET ROLE;
-- A hook that quotes jobs, and fails where it is guarded.
CREATE FUNCTION public.redacted_hook(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'hook got %', job.payload;
END $$;
REVOKE ALL ON FUNCTION public.redacted_hook(qml.job, qml.job_state, qml.job_state) FROM PUBLIC;
SELECT qml_register_hook('quoting', 'public.redacted_hook(qml.job, qml.job_state, qml.job_state)'::regprocedure, '{enqueued}');
UPDATE qml.live SET run_at = now() - interval '1 second' WHERE id = (SELECT id FROM made WHERE name = 'released pay');
SELECT qml_promote_due();
SELECT isnt((SELECT last_error FROM qml.hook WHERE name = 'quoting'), NULL, 'a hook has failed with an error that quotes a job');

-------------------------------------------------------------------------------
-- Who sees what
-------------------------------------------------------------------------------

-- What a role sees of a job: of each column of contents, as one text.
CREATE FUNCTION public.contents(name text) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', j.payload, j.metadata, j.result, j.progress, j.error, j.errors, j.reason)
	FROM qml.job j JOIN made m USING (id) WHERE m.name = contents.name
$$;

SELECT is(s.value, '{"n": 1, "pin": "***", "ssn": "***", "cards": [{"kind": "visa", "number": "***"}, {"number": "***"}]} '
		|| '{"source": "web", "tenant": "***"}' || e.rest, v.role || ' sees *** in ' || v.job)
	FROM (VALUES ('t_monitor'), ('t_all')) r (role)
	CROSS JOIN (VALUES ('enqueued', ''), ('scheduled', ' ***'), ('processing', ' "***"'),
		('awaiting_retry', ' "***" *** [{"error": "***"}]'), ('failed', ' "***" *** [{"error": "***"}]'),
		('succeeded', ' "***" "***"'), ('deleted', ' ***')) e (state, rest)
	CROSS JOIN (VALUES ('pay'), ('quick'), ('open')) q (queue)
	CROSS JOIN LATERAL (VALUES (r.role, e.state || ' ' || q.queue)) v (role, job)
	CROSS JOIN LATERAL pg_temp.try(v.role::name, format('SELECT public.contents(%L)', v.job)) s;
SELECT ok(s.value LIKE '%s3cr3t%' AND s.value LIKE '%481516%' AND s.value NOT LIKE '%***%', r.role || ' sees all of ' || q.queue)
	FROM (VALUES ('t_work'), ('t_admin'), ('t_maker'), (NULL)) r (role), (VALUES ('pay'), ('quick'), ('open')) q (queue)
	CROSS JOIN LATERAL pg_temp.try(r.role::name, format('SELECT public.contents(%L)', 'failed ' || q.queue)) s;
SELECT is(s.value, '', 't_else sees an outline of ' || q.queue)
	FROM (VALUES ('pay'), ('quick'), ('open')) q (queue)
	CROSS JOIN LATERAL pg_temp.try('t_else', format('SELECT public.contents(%L)', 'failed ' || q.queue)) s;
SELECT ok(s.value LIKE '%s3cr3t%' AND s.value NOT LIKE '%***%', 'jobs of other queues and methods are shown')
	FROM pg_temp.try('t_monitor', $$SELECT public.contents('other succeeded')$$) s;
SELECT pg_temp.ends('t_monitor', $$SELECT payload->>'ssn' || (metadata->>'tenant') FROM qml.recurring WHERE id = 'r_pay'$$, '=******', 'a schedule of the queue is hidden');
SELECT pg_temp.ends('t_monitor', $$SELECT payload->>'ssn' || (metadata->>'tenant') FROM qml.recurring WHERE id = 'r_open'$$, '=******', 'and one of the method');
SELECT pg_temp.ends('t_maker', $$SELECT payload->>'ssn' || (metadata->>'tenant') FROM qml.recurring WHERE id = 'r_open'$$, '=s3cr3ts3cr3t', 'but not from who made it');
SELECT pg_temp.ends('t_work', $$SELECT (qml_fetch_job((SELECT id FROM made WHERE name = 'enqueued pay'), 'w')).payload->>'ssn'$$, '=s3cr3t', 'who works gets the payload');
SELECT pg_temp.ends('t_admin', $$SELECT (qml_peek('pay')).payload->>'ssn'$$, '=s3cr3t', 'who administers may look at it');

-------------------------------------------------------------------------------
-- Everything that shows something
-------------------------------------------------------------------------------

-- Columns of views, and results of functions, that can hold text or documents: what they are.
--  job: a job, or contents of one; it is called below, and must not show the secret
--  never: it has nothing of what is hidden
--  all: only for those who see all jobs as they are
--  given: what the caller gives, or has the capability "work" on
--  made: what its maker gave, and errors of jobs of queues that he administers; src/jobs/bulk_chunk.c hides them
CREATE TEMP TABLE known (object text, columns text, what text);
INSERT INTO known VALUES
	('qml.job', 'payload metadata result progress error errors reason', 'job'),
	('qml.job', 'queue method worker server job_type', 'never'),
	('qml.recent', 'error', 'job'),
	('qml.recent', 'queue method age run_time', 'never'),
	('qml.queue', 'name options paused_by pause_reason', 'never'),
	('qml.pause', 'queue schedule paused_by pause_reason', 'never'),
	('qml.audit', 'action object_type object queue session_role effective_role claimed_actor client_address before after', 'all'),
	('qml.bulk', 'action query options state reason outcomes last_error', 'made'),
	('qml.dead_letter', 'fingerprint error_type error', 'job'),
	('qml.dead_letter', 'queue method', 'never'),
	('qml.alert', 'kind queue method detail', 'never'),
	('qml.scheduler_alert', 'detail', 'never'),
	('qml.lock', 'resource owner', 'never'),
	('qml.recurring', 'payload metadata', 'job'),
	('qml.recurring', 'id cron timezone method queue misfire overlap job_type pause_reason paused_by error', 'never'),
	('qml.recurring_tick', 'schedule outcome', 'never'),
	('qml.server', 'id name kind queues', 'never'),
	('qml.database', 'name state problem', 'never'),
	('qml.handler', 'method function command options problem', 'never'),
	('qml.hook', 'name function options problem', 'never'),
	('qml.hook', 'last_error', 'all'),
	('qml.middleware', 'name function problem', 'never'),
	('qml.acl', 'capability queue problem', 'never'),
	('qml.stats_minute', 'queue method', 'never'),
	('qml.mark', 'label', 'never'),
	('qml_job', 'job', 'job'),
	('qml_search', 'job', 'job'),
	('qml_peek', 'job', 'job'),
	('qml.unlogged_jobs', 'metadata progress errors reason payload result', 'job'),
	('qml.unlogged_jobs', 'worker server method job_type', 'never'),
	('qml.job_document', 'result', 'given'),
	('qml.job_text', 'result', 'given'),
	('qml.recurring_document', 'result', 'given'),
	('qml.error_fingerprint', 'result', 'given'),
	('qml_bulk_preview', 'queue method', 'never'),
	('qml.one_line', 'result', 'given'),
	('qml.brief', 'result', 'never'),
	('qml_explain', 'reason detail remedy', 'job'),
	('qml_explain_queue', 'reason detail remedy', 'job'),
	('qml_status', 'check_name detail remedy', 'job'),
	('qml_queue_counts', 'queue', 'never'),
	('qml_stats', 'queue method', 'never'),
	('qml_metrics', 'result', 'never'),
	('qml_fetch', 'job', 'given'),
	('qml_fetch_job', 'job', 'given'),
	('qml_succeed_fetch', 'job', 'given'),
	('qml_succeed_fetch_many', 'job', 'given'),
	('qml_run', 'job', 'given'),
	('qml_current_job', 'job', 'given'),
	('qml_set_state', 'job', 'given'),
	('qml_next', 'result', 'given'),
	('qml_tracing', 'result', 'given'),
	('qml_maintain', 'result', 'never'),
	('qml_register_server', 'result', 'never'),
	('qml_import_pg_cron', 'jobname schedule problem', 'never'),
	('qml_drop_role_objects', 'result', 'never'),
	('qml.handler_problem', 'result', 'never'),
	('qml.hook_problem', 'result', 'never'),
	('qml.middleware_problem', 'result', 'never'),
	('qml.role_problem', 'result', 'never'),
	('qml.background_servers', 'id name kind', 'never'),
	('qml.background_databases', 'name state problem', 'never');

CREATE TEMP VIEW member AS
	SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'qml';
-- Whether values of a type can hold a text: strings, documents, bytes, rows; and arrays of them.
CREATE FUNCTION pg_temp.tells(type oid) RETURNS boolean LANGUAGE sql AS $$
	SELECT coalesce(e.typcategory, t.typcategory) IN ('S', 'U', 'C', 'P', 'I') AND coalesce(e.oid, t.oid)
		NOT IN ('uuid'::regtype, 'void'::regtype, 'trigger'::regtype, 'event_trigger'::regtype, 'name'::regtype)
		AND coalesce(e.oid, t.oid) <> 'record'::regtype
	FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' WHERE t.oid = type
$$;
CREATE TEMP VIEW shown AS
	SELECT c.oid::regclass::text AS object, a.attname::text AS column
	FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid AND c.relkind IN ('v', 'm')
	JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	WHERE pg_temp.tells(a.atttypid)
	UNION
	SELECT p.oid::regproc::text, coalesce(o.name, CASE WHEN p.prorettype = 'qml.job'::regtype THEN 'job' ELSE 'result' END)
	FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
	CROSS JOIN LATERAL (
		SELECT u.name, u.type FROM unnest(p.proallargtypes, p.proargmodes, p.proargnames) u (type, mode, name) WHERE u.mode IN ('o', 'b', 't')
		UNION ALL
		SELECT NULL, p.prorettype WHERE p.proallargtypes IS NULL OR NOT p.proargmodes && '{o,b,t}'::"char"[]) o
	WHERE pg_temp.tells(o.type);
SELECT bag_eq($$SELECT DISTINCT object, "column" FROM shown$$,
	$$SELECT object, c FROM known, regexp_split_to_table(columns, ' ') c$$,
	'what shows texts and documents is known');

-- All views, and all functions that show jobs, as roles that must not see the secret.
CREATE TEMP TABLE call (object text, sql text);
INSERT INTO call SELECT DISTINCT object, format('SELECT string_agg(v::text, %L) FROM %s v', ' ', object) FROM shown JOIN pg_class ON oid = to_regclass(object);
INSERT INTO call SELECT 'qml_job', format('SELECT j::text FROM qml_job(%L) j', id) FROM made;
INSERT INTO call SELECT 'qml_explain', format('SELECT string_agg(e::text, %L) FROM qml_explain(%L) e', ' ', id) FROM made;
INSERT INTO call SELECT 'qml_explain_queue', format('SELECT string_agg(e::text, %L) FROM qml_explain_queue(%L) e', ' ', q) FROM unnest('{pay,quick,open}'::text[]) q;
INSERT INTO call VALUES
	('qml_search', $$SELECT string_agg(j::text, ' ') FROM qml_search('', 1000) j$$),
	('qml_search', $$SELECT string_agg(j::text, ' ') FROM qml_search('queue:pay|quick', 1000) j$$),
	('qml_peek', $$SELECT string_agg(j::text, ' ') FROM qml_peek('{pay,quick,open}'::text[], 1000) j WHERE method <> 'm' OR queue <> 'open'$$),
	('qml_status', $$SELECT string_agg(s::text, ' ') FROM qml_status() s$$),
	('qml.unlogged_jobs', $$SELECT string_agg(s::text, ' ') FROM qml.unlogged_jobs() s$$),
	('qml_metrics', $$SELECT qml_metrics()$$),
	('qml_stats', $$SELECT string_agg(s::text, ' ') FROM qml_stats() s$$),
	('qml_queue_counts', $$SELECT string_agg(s::text, ' ') FROM qml_queue_counts() s$$);
SELECT is_empty($$SELECT object FROM known WHERE what = 'job' AND object NOT IN (SELECT object FROM call)$$, 'what shows jobs is called');
SELECT qml_delete(id) FROM made WHERE name = 'other enqueued';
DELETE FROM qml.live WHERE id = (SELECT id FROM made WHERE name = 'other enqueued');
DELETE FROM qml.history WHERE id IN (SELECT id FROM made WHERE name LIKE 'other%');
SELECT is_empty($$
	SELECT r.role, c.sql, t.state, t.value
	FROM unnest('{t_monitor,t_all,t_else,t_both}'::name[]) r (role), call c, pg_temp.try(r.role, c.sql) t
	WHERE t.value LIKE '%s3cr3t%' OR t.value LIKE '%481516%' OR t.state NOT IN ('00000', '42501')$$,
	'nothing shows what is hidden');
-- The same calls do show it to who may see it, so the test above sees where it would be.
SELECT bag_eq($$
	SELECT DISTINCT c.object FROM call c, pg_temp.try(NULL, c.sql) t WHERE t.value LIKE '%s3cr3t%'$$,
	$$VALUES ('qml.job'), ('qml.recent'), ('qml.recurring'), ('qml.hook'), ('qml.audit'), ('qml.dead_letter'), ('qml_job'), ('qml_explain'), ('qml_search'), ('qml_peek'), ('qml.unlogged_jobs')$$,
	'it is there to be shown');
SELECT pg_temp.ends(r, $$SELECT last_error FROM qml.hook WHERE name = 'quoting'$$, '=NULL', r || ' does not see what a hook quoted') FROM unnest('{t_monitor,t_all}'::name[]) r;
SELECT qml_unregister_hook('quoting');

-------------------------------------------------------------------------------
-- Guessing
-------------------------------------------------------------------------------

-- Search: by the path, by what it is in, by what is in it, by its place in an array, with a minus.
SELECT pg_temp.ends(r, format('SELECT count(*) FROM qml_search(%L)', q), '42501', r || ' may not search ' || q)
	FROM unnest('{t_monitor,t_all}'::name[]) r,
	unnest(ARRAY['payload.ssn:s3cr3t', 'payload.ssn:wrong', '-payload.ssn:s3cr3t', 'payload.pin:481516', 'payload.pin:>5', 'payload.pin:1..500000',
		'payload.cards:x', 'payload.cards.0:x', 'payload.cards.0.number:s3cr3t', 'payload.cards.number:s3cr3t', 'payload.cards.1.number.first:s3cr3t',
		'payload.cards.01.number:x', 'payload.ssn.deeper:x', 'metadata.tenant:s3cr3t', 'state:failed metadata."tenant":a|s3cr3t',
		'error:s3cr3t', 'error:"no s3cr3t"', '-error:x', 'error_type:s3cr3t', 'fingerprint:0123456789abcdef', '-fingerprint:0123456789abcdef', 'queue:pay payload.ssn:s3cr3t', 'queue:pay|else payload.ssn:x',
		'method:card payload.ssn:x', 'method:m queue:quick payload.ssn:x', '-queue:pay payload.ssn:x', '-queue:pay|quick -method:m payload.ssn:x']) q;
SELECT pg_temp.ends(r, format('SELECT count(*) FROM qml_search(%L)', q), '=0', r || ' finds nothing by ' || q)
	FROM unnest('{t_monitor,t_all}'::name[]) r, unnest(ARRAY['s3cr3t', '-m -card s3cr3t', 'queue:else -method:card payload.ssn:s3cr3t', '-queue:pay|quick -method:card payload.ssn:s3cr3t',
		'-queue:pay|quick -method:card error:s3cr3t', 'payload.cards.0.kind:***', 'payload.n:s3cr3t']) q;
SELECT pg_temp.ends('t_monitor', $$SELECT count(*) > 20 FROM qml_search('payload.n:1 payload.cards.0.kind:visa metadata.source:web')$$, '=true', 'what is not hidden is searched');
SELECT pg_temp.ends('t_else', $$SELECT count(*) FROM qml_search('-method:card payload.ssn:s3cr3t')$$, '=0', 'who sees an outline finds nothing');
SELECT pg_temp.ends('t_else', $$SELECT count(*) FROM qml_search('-method:card -payload.ssn:s3cr3t')$$, '=0', 'neither by what it is not');
SELECT pg_temp.ends(r, $$SELECT count(*) > 0 FROM qml_search('payload.ssn:s3cr3t error:s3cr3t')$$, '=true', 'who sees it may search it: ' || coalesce(r, 'owner'))
	FROM unnest('{t_admin,NULL}'::name[]) r;
SELECT throws_like($$SET LOCAL ROLE t_monitor; SELECT qml_search('payload.ssn:x')$$, 'permission denied to search by "payload.ssn"', 'the message names the path');
RESET ROLE;

-- Plain SQL over the views.  A condition is tested after the view has hidden what it hides, however
-- cheap its function says it is, and whatever operators it is made of.
CREATE TABLE public.leaked (value text);
GRANT ALL ON public.leaked TO PUBLIC;
GRANT CREATE ON SCHEMA public TO t_monitor;
SET LOCAL ROLE t_monitor;
CREATE FUNCTION public.leak(value anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000000001 AS $$
BEGIN
	INSERT INTO public.leaked VALUES (value::text);
	RETURN true;
END $$;
CREATE FUNCTION public.leak_operator(a jsonb, b jsonb) RETURNS boolean LANGUAGE plpgsql COST 0.0000000001 AS $$
BEGIN
	RETURN public.leak(a);
END $$;
CREATE OPERATOR public.=== (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = public.leak_operator);
SELECT count(*) FROM qml.job WHERE public.leak(payload) AND public.leak(error)
	AND public.leak(metadata) AND public.leak(result) AND public.leak(errors) OR public.leak(reason) OR public.leak(progress);
SELECT count(*) FROM qml.job WHERE payload OPERATOR(public.===) '{}';
SELECT count(*) FROM qml.job j WHERE public.leak(j);
SELECT count(*) FROM qml.recent r WHERE public.leak(error);
SELECT count(*) FROM qml.recurring r WHERE public.leak(payload) AND public.leak(metadata) AND public.leak(r);
SELECT count(*) FROM qml.job a JOIN qml.job b ON public.leak(a.payload) AND public.leak(b.payload) AND a.id = b.id;
RESET ROLE;
SELECT cmp_ok((SELECT count(*) FROM public.leaked)::int, '>', 100, 'functions and operators in conditions are called');
SELECT is_empty($$SELECT value FROM public.leaked WHERE value LIKE '%s3cr3t%' OR value LIKE '%481516%'$$, 'of which none was hidden');

-- What conditions, orders, groups and sizes of the values say.
SELECT pg_temp.ends(r, sql, expected, r || ': ' || sql)
	FROM unnest('{t_monitor,t_all}'::name[]) r,
	(VALUES ($$SELECT count(*) FROM qml.job WHERE payload->>'ssn' = 's3cr3t'$$, '=0'),
		($$SELECT count(*) FROM qml.job WHERE payload @> '{"pin": 481516}'$$, '=0'),
		($$SELECT count(*) FROM qml.job WHERE payload @? '$.cards[*].number ? (@ == "s3cr3t")'$$, '=0'),
		($$SELECT count(*) FROM qml.job WHERE error LIKE '%s3cr3t%' OR error = 'no s3cr3t' OR reason = 'because of s3cr3t'$$, '=0'),
		($$SELECT count(*) FROM qml.job WHERE result->>'got' > 'a' OR errors @> '[{"error_type": "s3cr3t"}]'$$, '=0'),
		($$SELECT count(DISTINCT payload->'pin') || ' ' || count(DISTINCT error) || ' ' || min(payload->>'ssn') || ' ' || max(error) FROM qml.job$$, '=1 1 *** ***'),
		($$SELECT string_agg(DISTINCT pg_column_size(result)::text, ' ') = pg_column_size('"***"'::jsonb)::text FROM qml.job$$, '=true'),
		($$SELECT (payload->>'pin')::int FROM qml.job WHERE payload->>'pin' IS NOT NULL$$, '22P02')) v (sql, expected);
SELECT throws_ok($$SET LOCAL ROLE t_monitor; SELECT (payload->>'ssn')::int FROM qml.job$$, '22P02', 'invalid input syntax for type integer: "***"', 'an error quotes what is shown');
RESET ROLE;

-- What the planner says of a guess: the same whether it is right or wrong, with statistics of the tables,
-- and of how many rows there were.
DO $$
BEGIN
	FOR i IN 1 .. 300 LOOP
		PERFORM pg_temp.make('many ' || i, 'pay', 'm', CASE WHEN i % 2 = 0 THEN 'enqueued' ELSE 'failed' END);
	END LOOP;
END $$;
ANALYZE qml.live;
ANALYZE qml.history;
SELECT isnt((SELECT sum(n_distinct)::int FROM pg_stats WHERE schemaname = 'qml' AND attname = 'payload'), NULL, 'there are statistics of payloads');
SELECT pg_temp.ends('t_monitor', $$SELECT count(*) FROM pg_stats WHERE schemaname = 'qml'$$, '=0', 'they are not shown');
SELECT pg_temp.ends('t_monitor', sql, '42501', sql) FROM unnest(ARRAY['SELECT count(stavalues1) FROM pg_statistic', 'SELECT payload FROM qml.live',
	'SELECT payload FROM qml.history', 'SELECT payload FROM qml.live_unlogged', 'SELECT payload FROM qml.recurring_data', 'SELECT before FROM qml.audit_data']) sql;
CREATE FUNCTION public.plan(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line text;
	lines text := '';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN ' || sql LOOP
		lines := lines || line || chr(10);
	END LOOP;
	RETURN lines;
END $$;
SELECT is(b.value, a.value, 'a plan tells nothing: ' || q.condition)
	FROM (VALUES ('error = %L', 'no s3cr3t', 'no s3cr3u'), ('reason = %L', 'because of s3cr3t', 'because of s3cr3u'),
		('payload @> %L', '{"ssn": "s3cr3t"}', '{"ssn": "s3cr3u"}'), ('payload->>''ssn'' = %L', 's3cr3t', 's3cr3u'),
		('errors->0->>''error_type'' = %L', 's3cr3t', 's3cr3u'), ('result->>''got'' = %L', 's3cr3t', 's3cr3u'),
		('payload->''pin'' < %L', '481517', '481515')) q (condition, right_guess, wrong_guess)
	CROSS JOIN unnest(ARRAY['', '(ANALYZE, TIMING off, SUMMARY off, BUFFERS off)']) o (options)
	CROSS JOIN LATERAL pg_temp.try('t_monitor', format('SELECT replace(public.plan(%L), %L, %L)',
		o.options || ' SELECT id FROM qml.job WHERE ' || format(q.condition, q.right_guess), q.right_guess, '')) a
	CROSS JOIN LATERAL pg_temp.try('t_monitor', format('SELECT replace(public.plan(%L), %L, %L)',
		o.options || ' SELECT id FROM qml.job WHERE ' || format(q.condition, q.wrong_guess), q.wrong_guess, '')) b;
SELECT ok(t.value LIKE '%rows=%' AND t.value NOT LIKE '%s3cr3t%', 'a verbose plan shows nothing')
	FROM pg_temp.try('t_monitor', $$SELECT public.plan('(ANALYZE, VERBOSE) SELECT * FROM qml.job')$$) t;

-- Errors that differ, and so have several fingerprints for who sees them, are one group.
SELECT pg_temp.make('other error', 'pay', 'm', 'enqueued');
SELECT qml_fail(f.id, f.attempt, 'another error of s3cr3t', 'other', retry => false) FROM made, qml_fetch_job(made.id, 'w') f WHERE name = 'other error';
SELECT pg_temp.ends(NULL, $$SELECT count(DISTINCT fingerprint) > 1 FROM qml.dead_letter WHERE queue = 'pay' AND method = 'm'$$, '=true', 'failed jobs have several fingerprints');
SELECT pg_temp.ends(r, $$SELECT count(*) || ' ' || count(fingerprint) || ' ' || count(error) || ' ' || count(error_type) || ' ' || max(count) FROM qml.dead_letter WHERE queue = 'pay' AND method = 'm'$$,
	'=1 0 0 0 ' || (SELECT count(*) FROM qml.job WHERE queue = 'pay' AND method = 'm' AND state = 'failed'), r || ' sees how many there are')
	FROM unnest('{t_monitor,t_all}'::name[]) r;
SELECT pg_temp.ends('t_monitor', format('SELECT qml.error_fingerprint(%s, %L, %L, %L)', q, 'm', 't_maker', errors), '=NULL', 'a fingerprint is not computed for him')
	FROM qml.job j JOIN made m USING (id), LATERAL (SELECT id FROM qml.queue_data WHERE name = j.queue) d (q) WHERE m.name = 'failed pay';

-- Operations and previews: of queues that one administers, whatever others hold.
SELECT qml_grant('t_both', 'admin', 'else');
SELECT pg_temp.ends('t_both', format('SELECT count(*) FROM qml_bulk_preview(%L, %L)', 'delete', q), e, 'no preview tells anything: ' || q)
	FROM (VALUES ('payload.ssn:s3cr3t', '=0'), ('-payload.ssn:s3cr3t', '=0'), ('error:s3cr3t', '=0'), ('queue:pay payload.ssn:s3cr3t', '42501'), ('queue:pay', '42501')) v (q, e);
SELECT pg_temp.ends('t_monitor', $$SELECT count(*) FROM qml_bulk_preview('delete', 'payload.ssn:s3cr3t')$$, '42501', 'nor one of who administers nothing');

-- What an operation says of a job that it could not change.
CREATE FUNCTION public.redacted_number(n int) RETURNS void LANGUAGE sql AS '';
SELECT pg_temp.make('number', 'pay', 'number', 'failed');
SELECT qml_register_handler('number', 'public.redacted_number(int)'::regprocedure);
SELECT qml_bulk('redrive', 'queue:pay method:number', '{"patch": {"n": "s3cr3t"}}') AS bulk \gset
SELECT qml_maintain() IS NOT NULL;
SELECT matches(last_error, '^job \S+: \*\*\* \(SQLSTATE QM008\)$', 'the error is hidden') FROM qml.bulk WHERE id = :'bulk';
SELECT qml_unregister_handler('number');

-- An id that is taken, by a job of which the caller sees only a part: a payload is not compared.
CREATE FUNCTION public.told(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE sql;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' ', sqlstate, sqlerrm, detail, hint);
END $$;
SELECT matches(t.value, '^23505 job \S+ already exists Key \(id\)=\(\S+\) is taken\. $', 'a payload is not guessed by the id of a job that is ' || j.name || ': ' || p.payload)
	FROM made j, unnest(ARRAY[(SELECT payload::text FROM qml.job WHERE id = (SELECT id FROM made WHERE name = 'enqueued pay')), '{"ssn": "wrong"}']) p (payload)
	CROSS JOIN LATERAL pg_temp.try('t_both', format('SELECT public.told(%L)',
		format('SELECT qml_enqueue(%L, %L, %L, id => %L, options => %L)', 'm', p.payload, 'pay', j.id, '{"on_duplicate_id": "return"}'))) t
	WHERE j.name IN ('scheduled pay', 'succeeded pay');
SELECT pg_temp.ends('t_maker', format('SELECT qml_enqueue(%L, %L, %L, id => %L, options => %L) = %L', 'm', j.payload, 'pay', j.id, '{"on_duplicate_id": "return"}', j.id), '=true', 'but it is who made it')
	FROM qml.job j JOIN made m USING (id) WHERE m.name = 'scheduled pay';

-- What changes jobs is not for those who monitor, whatever it would answer.
SELECT pg_temp.ends(r, format(sql, id), '42501', r || ' may not call ' || sql)
	FROM unnest('{t_monitor,t_both}'::name[]) r, made, unnest(ARRAY['SELECT qml_update_job(%L, ''{"payload": {"ssn": "s3cr3t"}}'')', 'SELECT qml_set_state(%L, ''deleted'')',
		'SELECT qml_cancel(%L)', 'SELECT qml_retry(%L)', 'SELECT qml_delete(%L)', 'SELECT qml_run(%L)', 'SELECT qml_fetch_job(%L)']) sql WHERE name = 'scheduled pay';

-------------------------------------------------------------------------------
-- As rights and options change
-------------------------------------------------------------------------------

CREATE FUNCTION pg_temp.sees(role name, name text, expected text, description text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.ends(role, format('SELECT payload->>%L FROM qml.job WHERE id = %L', 'ssn', id), '=' || expected, description) FROM made m WHERE m.name = sees.name
$$;
SELECT pg_temp.sees('t_monitor', 'failed pay', '***', 'hidden');
SELECT qml_grant('t_monitor', 'work', 'pay');
SELECT pg_temp.sees('t_monitor', 'failed pay', 's3cr3t', 'shown to who gets the capability');
SELECT pg_temp.ends('t_monitor', $$SELECT count(*) > 0 FROM qml_search('-method:card -queue:quick payload.ssn:s3cr3t')$$, '=true', 'who may search it, too');
SELECT qml_revoke('t_monitor', 'work', 'pay');
SELECT pg_temp.sees('t_monitor', 'failed pay', '***', 'and hidden when it is revoked');
SELECT qml_revoke('t_maker', 'enqueue', 'pay');
SELECT pg_temp.ends('t_maker', format('SELECT payload FROM qml_job(%L)', id), '=NULL', 'who made a job sees it as long as it may enqueue') FROM made WHERE name = 'failed pay';
SELECT qml_grant('t_maker', 'monitor', 'pay');
SELECT pg_temp.sees('t_maker', 'failed pay', '***', 'and then as who monitors');
SELECT qml_alter_queue('pay', '{"redact": ["payload.n", "payload.\"cards\".kind"]}');
SELECT pg_temp.ends('t_monitor', format('SELECT payload FROM qml.job WHERE id = %L', id), '={"n": "***", "pin": 481516, "ssn": "s3cr3t", "cards": [{"kind": "***", "number": "s3cr3t"}, {"number": {"pin": 481516, "first": "s3cr3t"}}]}',
	'other paths hide other members, of jobs that were there') FROM made WHERE name = 'failed pay';
SELECT pg_temp.ends('t_monitor', format('SELECT payload FROM qml.job WHERE id = %L', id), '=' || expected, option || ' hides ' || expected)
	FROM (VALUES ('["payload"]', '"***"'), ('["payload.*"]', '{"n": "***", "pin": "***", "ssn": "***", "cards": "***"}'),
			('["payload.cards.*", "payload.ssn", "payload.pin"]', '{"n": 1, "pin": "***", "ssn": "***", "cards": ["***", "***"]}'),
			('["payload.cards.1", "payload.ssn"]', '{"n": 1, "pin": 481516, "ssn": "***", "cards": [{"kind": "visa", "number": "s3cr3t"}, "***"]}'),
			('["payload.*.number.*", "metadata"]', '{"n": 1, "pin": 481516, "ssn": "s3cr3t", "cards": [{"kind": "visa", "number": "s3cr3t"}, {"number": {"pin": "***", "first": "***"}}]}'),
			('["payload.\"*\"", "payload.ssn.deeper", "payload.missing"]', '{"n": 1, "pin": 481516, "ssn": "s3cr3t", "cards": [{"kind": "visa", "number": "s3cr3t"}, {"number": {"pin": 481516, "first": "s3cr3t"}}]}')) v (option, expected)
	CROSS JOIN LATERAL (SELECT qml_alter_queue('pay', jsonb_build_object('redact', option::jsonb)) OFFSET 0) a (done), made WHERE name = 'failed pay' AND done;
SELECT pg_temp.ends('t_monitor', format('SELECT metadata FROM qml.job WHERE id = %L', id), '={"source": "web", "tenant": "s3cr3t"}', 'metadata is hidden by its own paths') FROM made WHERE name = 'failed pay';
SELECT qml_alter_queue('pay', '{"redact": ["payload.ssn"]}');

-- A queue that is dropped, and one that comes into being again.
SELECT qml_grant('t_both', 'enqueue', 'once');
SELECT qml_create_queue('once', '{"redact": ["payload.ssn"], "max_retries": 3}');
SELECT pg_temp.make('once', 'once', 'm', 'failed') FROM qml_grant('t_maker', 'enqueue', 'once');
SELECT qml_drop_queue('once');
SELECT pg_temp.sees('t_all', 'once', '***', 'jobs of a dropped queue stay hidden');
SELECT qml_grant('t_both', 'enqueue', 'once');
SET LOCAL ROLE t_both;
SELECT qml_enqueue('m', '{}', 'once');
RESET ROLE;
SELECT pg_temp.sees('t_all', 'once', '***', 'also when it is made again by an enqueue');
SELECT is(options, '{"redact": ["payload.ssn"]}', 'which gives it no other option') FROM qml.queue WHERE name = 'once';
SELECT qml_delete(id) FROM qml.job WHERE queue = 'once' AND state = 'enqueued';
SELECT qml_drop_queue('once');
SELECT qml_create_queue('once', '{"max_retries": 1}');
SELECT is(options, '{"redact": ["payload.ssn"], "max_retries": 1}', 'and when it is made again with other options') FROM qml.queue WHERE name = 'once';
SELECT qml_drop_queue('once');
SELECT qml_create_queue('once', '{"redact": null}');
SELECT is(options, '{}', 'but not if they say that nothing is to be hidden') FROM qml.queue WHERE name = 'once';
SELECT pg_temp.sees('t_all', 'once', 's3cr3t', 'which shows the jobs');

-- Options that were written by hand, and are not valid.
UPDATE qml.queue_data SET options = '{"redact": ["ssn"]}' WHERE name = 'pay';
SELECT pg_temp.ends('t_monitor', format('SELECT payload::text || metadata FROM qml.job WHERE id = %L', id), '="***""***"', 'hide everything') FROM made WHERE name = 'failed pay';
UPDATE qml.queue_data SET options = '{"redact": ["payload.ssn"], "lease": "x"}' WHERE name = 'pay';
SELECT pg_temp.ends('t_monitor', format('SELECT payload::text || metadata FROM qml.job WHERE id = %L', id), '="***""***"', 'whichever of them is not') FROM made WHERE name = 'failed pay';
UPDATE qml.handler_data SET options = '{"redact": 7}' WHERE method = 'card';
SELECT pg_temp.ends('t_monitor', format('SELECT payload::text || metadata FROM qml.job WHERE id = %L', id), '="***""***"', 'also those of a handler') FROM made WHERE name = 'failed open';
SELECT qml_unregister_handler('card');
SELECT pg_temp.sees('t_monitor', 'failed open', 's3cr3t', 'what a handler hides is shown when it is unregistered');

SELECT * FROM finish();
ROLLBACK;
