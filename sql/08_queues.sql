--
-- Queues: life, options, and what jobs get from them.
--
SELECT t.reset();

-- Create
SELECT qml_create_queue('plain');
SELECT qml_create_queue('full', '{"max_retries": 3, "timeout": "90 s", "lease": 45.5, "succeeded_ttl": "2 days",
	"failed_ttl": "1 month", "retry": {"strategy": "linear", "delay": 5, "increment": "10 s", "multiplier": 3,
	"max_delay": "1 h", "jitter": 0.1}}');
SELECT name, paused, options FROM qml.queue ORDER BY name;
SELECT t.try($$SELECT qml_create_queue('plain')$$);
SELECT t.try($$SELECT qml_create_queue('plain', '{"max_retries": 1}')$$);
-- ... one that came by enqueueing exists as well
SELECT qml_enqueue('m', queue => 'implicit') IS NOT NULL;
SELECT t.try($$SELECT qml_create_queue('implicit')$$);
-- What it says goes for its jobs
SELECT qml_enqueue('m', queue => 'full', id => t.id(1)) IS NOT NULL;
SELECT max_retries, timeout FROM qml_job(t.id(1));
SELECT lease_expires_at - started_at AS lease FROM qml_fetch(queues => '{full}');
SELECT qml_succeed(t.id(1), 1);
SELECT t.ttl(finished_at, expires_at) AS kept FROM qml_job(t.id(1));
SELECT t.make(t.id(2), 'failed', 'full');
SELECT t.ttl(finished_at, expires_at) AS kept FROM qml_job(t.id(2));
-- What the call says goes first, and settings last
SELECT qml_enqueue('m', queue => 'full', id => t.id(3), max_retries => 7, timeout => '1 s') IS NOT NULL;
SELECT max_retries, timeout FROM qml_job(t.id(3));
SET qml.max_retries = 9;
SET qml.job_timeout = '2 min';
SET qml.succeeded_ttl = '3 h';
SET qml.failed_ttl = '5 h';
SELECT qml_enqueue('m', queue => 'plain', id => t.id(4)) IS NOT NULL;
SELECT max_retries, timeout FROM qml_job(t.id(4));
SELECT t.make(t.id(5), 'succeeded', 'p2'), t.make(t.id(6), 'failed', 'p2'), t.make(t.id(7), 'deleted', 'p2');
SELECT state, t.ttl(finished_at, expires_at) AS kept FROM qml.job WHERE queue = 'p2' ORDER BY id;
RESET ALL;

-- Alter: what is given replaces, null returns to the setting
SELECT qml_alter_queue('full', '{"max_retries": 4, "lease": null}');
SELECT options FROM qml.queue WHERE name = 'full';
SELECT qml_alter_queue('full', '{}');
SELECT qml_alter_queue('full', '{"max_retries": null, "timeout": null, "succeeded_ttl": null, "failed_ttl": null, "retry": null}');
SELECT options FROM qml.queue WHERE name = 'full';
SELECT qml_enqueue('m', queue => 'full', id => t.id(8)) IS NOT NULL;
SELECT max_retries, timeout FROM qml_job(t.id(8));
SELECT qml_alter_queue('full', '{"retry": {"strategy": "fixed"}}');
SELECT qml_alter_queue('full', '{"retry": {"delay": 3}}');
SELECT options FROM qml.queue WHERE name = 'full';

-- How jobs are stored: it changes while there are no unfinished jobs, in whatever state
SET client_min_messages = warning; -- whether qml is preloaded or not
SELECT qml_create_queue('stored', '{"storage": "async", "max_retries": 2}');
SELECT qml_alter_queue('stored', '{"max_retries": null}'), qml_alter_queue('stored', '{"storage": "async"}');
SELECT options FROM qml.queue WHERE name = 'stored';
SELECT qml_alter_queue('stored', '{"storage": null}');
SELECT options FROM qml.queue WHERE name = 'stored';
SELECT qml_alter_queue('stored', '{"storage": "durable"}');
SELECT qml_alter_queue('stored', '{"storage": "async"}');
SELECT s AS state, t.make(t.id(20 + n::int), s, 's' || s) IS NOT NULL AS claimed, t.try(format('SELECT qml_alter_queue(%L, %L)', 's' || s, '{"storage": "async"}'))
FROM unnest(enum_range(NULL::qml.job_state)::text[]) WITH ORDINALITY u (s, n) ORDER BY n;
SELECT t.make(t.id(40), 'enqueued', 'senqueued') IS NOT NULL, t.make(t.id(41), 'scheduled', 'senqueued') IS NOT NULL;
SELECT t.try($$SELECT qml_alter_queue('senqueued', '{"storage": "async", "max_retries": 3}')$$);
SELECT name, options FROM qml.queue WHERE name LIKE 's%' ORDER BY name;
-- ... but what it is may be said, and all else may change
SELECT qml_alter_queue('senqueued', '{"storage": "durable", "max_retries": 3}'), qml_alter_queue('senqueued', '{"storage": null}');
SELECT options FROM qml.queue WHERE name = 'senqueued';
-- ... also of the transaction itself
BEGIN;
SELECT qml_enqueue('m', queue => 'stored') IS NOT NULL;
SELECT t.try($$SELECT qml_alter_queue('stored', '{"storage": "durable"}')$$);
ROLLBACK;
BEGIN;
SELECT qml_alter_queue('stored', '{"storage": "durable"}');
SELECT qml_enqueue('m', queue => 'stored') IS NOT NULL;
ROLLBACK;
SELECT options FROM qml.queue WHERE name = 'stored';
SELECT count(qml_enqueue('m', queue => 'stored')) FROM generate_series(1, 1001);
SELECT t.try($$SELECT qml_alter_queue('stored', '{"storage": "durable"}')$$);
RESET client_min_messages;

-- Pause and resume: as often as one likes
SELECT qml_pause_queue('plain'), qml_pause_queue('plain');
SELECT name, paused FROM qml.queue WHERE name = 'plain';
-- They say who, when and why; another pause without a reason leaves that as it is
SELECT queue, paused_by = current_user AS by_me, paused_at <= clock_timestamp() AS before_now, pause_reason FROM qml.pause;
SELECT qml_pause_queue('plain', 'the provider is down');
SELECT paused_at FROM qml.queue WHERE name = 'plain' \gset
SELECT qml_pause_queue('plain'), paused_at = :'paused_at' AS same, pause_reason FROM qml.queue WHERE name = 'plain';
SELECT paused_at = :'paused_at' AS same, pause_reason FROM qml.queue WHERE name = 'plain';
SELECT qml_resume_queue('plain'), qml_resume_queue('plain');
SELECT name, paused, paused_at, paused_by, pause_reason FROM qml.queue WHERE name = 'plain';
SELECT count(*) FROM qml.pause;

-- Drop: refused while there are unfinished jobs, in whatever state
SELECT t.reset();
SELECT s AS state, t.make(t.id(n::int), s, 'q' || s) IS NOT NULL AS claimed, t.try(format('SELECT qml_drop_queue(%L)', 'q' || s))
FROM unnest(enum_range(NULL::qml.job_state)::text[]) WITH ORDINALITY u (s, n) ORDER BY n;
SELECT name FROM qml.queue ORDER BY name;
-- Finished jobs are still there, under its name, and count
SELECT queue, state FROM qml.job WHERE queue IN ('qsucceeded', 'qfailed', 'qdeleted') ORDER BY id;
SELECT queue, state, count FROM qml_queue_counts() ORDER BY 1;
SELECT (qml_job(t.id(5))).queue;
-- It is gone for all else
SELECT count(*) FROM qml_fetch(queues => '{qfailed}');
SELECT t.code('SELECT qml_alter_queue(''qfailed'', ''{}'')'), t.code('SELECT qml_pause_queue(''qfailed'')'),
	t.code('SELECT qml_resume_queue(''qfailed'')'), t.code('SELECT qml_drop_queue(''qfailed'')');
-- Until somebody enqueues to it, retries a job of it, or creates it
SELECT qml_retry(t.id(6));
SELECT name, paused, options FROM qml.queue WHERE name = 'qfailed';
SELECT t.n(id) FROM qml_fetch(queues => '{qfailed}');
SELECT qml_create_queue('qsucceeded', '{"max_retries": 2}');
SELECT qml_enqueue('m', queue => 'qdeleted') IS NOT NULL;
SELECT name, paused, options FROM qml.queue ORDER BY name;
-- A queue made anew has nothing of the old one
SELECT t.reset();
SELECT qml_create_queue('again', '{"max_retries": 1}'), qml_pause_queue('again'), qml_drop_queue('again');
SELECT count(*) FROM qml.queue;
SELECT qml_enqueue('m', queue => 'again', id => t.id(1)) IS NOT NULL;
SELECT name, paused, options FROM qml.queue;
SELECT max_retries FROM qml_job(t.id(1));

-- Queues that are not there
\pset format unaligned
\pset tuples_only on
SELECT t.try($$SELECT qml_alter_queue('nosuch', '{}')$$);
SELECT t.try($$SELECT qml_drop_queue('nosuch')$$);
SELECT t.try($$SELECT qml_pause_queue('nosuch')$$);
SELECT t.try($$SELECT qml_resume_queue('nosuch')$$);
SELECT t.try($$SELECT qml_queue_depth('nosuch')$$);
SELECT qml_drop_queue('nosuch', missing_ok => true), qml_pause_queue('nosuch', missing_ok => true),
	qml_resume_queue('nosuch', missing_ok => true), qml_queue_depth('nosuch', missing_ok => true);
SELECT t.code($$SELECT qml_drop_queue('nosuch', NULL)$$), t.code($$SELECT qml_pause_queue('nosuch', missing_ok => NULL)$$),
	t.code($$SELECT qml_resume_queue('nosuch', NULL)$$), t.code($$SELECT qml_queue_depth('nosuch', NULL)$$),
	t.code($$SELECT qml_queue_depth(NULL)$$), t.code($$SELECT qml_queue_depth('')$$), t.code($$SELECT qml_queue_depth('qml.hooks')$$);
SELECT count(*) FROM qml.queue WHERE name = 'nosuch';

-- Each option with values that are not allowed
CREATE TEMP TABLE bad (n serial, options jsonb);
INSERT INTO bad (options) VALUES ('[]'), ('"x"'), ('1'), ('null'), ('true'),
	('{"nosuch": 1}'), ('{"": 1}'), ('{"Lease": 1}'), ('{"retries": 1, "max_retries": 1}'),
	('{"max_retries": -1}'), ('{"max_retries": 1001}'), ('{"max_retries": 1.5}'), ('{"max_retries": "3"}'), ('{"max_retries": 1e30}'),
	('{"max_retries": true}'), ('{"max_retries": []}'),
	('{"timeout": 0}'), ('{"timeout": "0"}'), ('{"timeout": 0.0009}'), ('{"timeout": -1}'), ('{"timeout": "-1 s"}'), ('{"timeout": "25 days"}'),
	('{"timeout": "soon"}'), ('{"timeout": ""}'), ('{"timeout": {}}'),
	('{"lease": 0}'), ('{"lease": "0"}'), ('{"lease": -5}'), ('{"lease": "3661 days"}'), ('{"lease": 316224001}'), ('{"lease": false}'),
	('{"lease": "infinity"}'),
	('{"succeeded_ttl": -1}'), ('{"succeeded_ttl": "-1 day"}'), ('{"succeeded_ttl": "11 years"}'), ('{"succeeded_ttl": "178000000 years"}'),
	('{"succeeded_ttl": "x"}'),
	('{"failed_ttl": -0.1}'), ('{"failed_ttl": "1e30 s"}'), ('{"failed_ttl": [1]}'),
	('{"retry": 1}'), ('{"retry": "fixed"}'), ('{"retry": []}'), ('{"retry": {"nosuch": 1}}'), ('{"retry": {"max_retries": 1}}'),
	('{"retry": {"strategy": "random"}}'), ('{"retry": {"strategy": "Fixed"}}'), ('{"retry": {"strategy": ""}}'), ('{"retry": {"strategy": 1}}'),
	('{"retry": {"delay": -1}}'), ('{"retry": {"delay": "3661 days"}}'), ('{"retry": {"delay": "x"}}'), ('{"retry": {"delay": true}}'),
	('{"retry": {"multiplier": 0.99}}'), ('{"retry": {"multiplier": 1001}}'), ('{"retry": {"multiplier": "2"}}'), ('{"retry": {"multiplier": 1e30}}'),
	('{"retry": {"increment": -1}}'), ('{"retry": {"increment": "x"}}'), ('{"retry": {"increment": 1e12}}'),
	('{"retry": {"max_delay": -1}}'), ('{"retry": {"max_delay": {}}}'), ('{"retry": {"max_delay": "1 century"}}'),
	('{"max_wait": 0}'), ('{"max_age": "0"}'), ('{"max_run": -1}'), ('{"max_age": "3661 days"}'), ('{"max_wait": "soon"}'), ('{"max_run": true}'),
	('{"max_failure_rate": -0.1}'), ('{"max_failure_rate": 1.1}'), ('{"max_failure_rate": "0.5"}'), ('{"max_failure_rate": "1 s"}'),
	('{"storage": "fast"}'), ('{"storage": "Async"}'), ('{"storage": ""}'), ('{"storage": 1}'), ('{"storage": true}'), ('{"storage": {}}'),
	('{"redact": []}'), ('{"redact": "payload.a"}'), ('{"redact": {}}'), ('{"redact": 1}'), ('{"redact": [1]}'), ('{"redact": [["payload.a"]]}'), ('{"redact": [null]}'),
	('{"redact": [""]}'), ('{"redact": ["a"]}'), ('{"redact": ["Payload.a"]}'), ('{"redact": ["payloads.a"]}'), ('{"redact": ["result"]}'), ('{"redact": ["payload."]}'),
	('{"redact": ["payload..a"]}'), ('{"redact": ["payload.a", "payload.a."]}'), ('{"redact": ["payload.a\"b\""]}'), ('{"redact": ["payload.\"a"]}'), ('{"redact": ["payload.\"a\"b"]}'),
	('{"redact": ["payload.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u"]}'),
	('{"retry": {"jitter": -0.1}}'), ('{"retry": {"jitter": 1.1}}'), ('{"retry": {"jitter": "0.5"}}'), ('{"retry": {"jitter": 0.5, "delay": -1}}');
SELECT t.everything() AS before \gset
SELECT options, t.try(format('SELECT qml_create_queue(%L, %L)', 'new', options)) FROM bad ORDER BY n;
SELECT t.code(format('SELECT qml_create_queue(%L, %L)', 'new', jsonb_build_object('redact', array_fill('payload'::text, ARRAY[51]))));
SELECT t.code(format('SELECT qml_create_queue(%L, %L)', 'new', jsonb_build_object('redact', ARRAY['payload.' || repeat('x', 400)])));
SELECT DISTINCT t.try(format('SELECT qml_create_queue(%L, %L)', 'new', options)) =
	t.try(format('SELECT qml_alter_queue(%L, %L)', 'again', options)) AS alter_says_the_same FROM bad;
-- Numbers that no float holds
SELECT t.code('SELECT qml_create_queue(''new'', ''{"max_retries": 1e400}'')'), t.code('SELECT qml_create_queue(''new'', ''{"lease": 1e400}'')'),
	t.code('SELECT qml_create_queue(''new'', ''{"retry": {"multiplier": -1e400}}'')');
SELECT t.everything() = :'before' AS unchanged;
-- ... and the ends of what is allowed
SELECT t.try(format('SELECT qml_alter_queue(%L, %L)', 'again', o)) FROM unnest(ARRAY[
	'{"max_retries": 0}', '{"max_retries": 1000}', '{"max_retries": 3.0}', '{"timeout": 0.001}', '{"timeout": "1 ms"}', '{"timeout": "24 days"}',
	'{"lease": "1 us"}', '{"lease": "3660 days"}', '{"lease": 316224000}', '{"succeeded_ttl": 0}', '{"succeeded_ttl": "3660 days"}', '{"failed_ttl": 0}',
	'{"failed_ttl": "120 months"}', '{"retry": {}}', '{"retry": {"delay": 0, "max_delay": 0, "increment": 0, "jitter": 0, "multiplier": 1}}',
	'{"retry": {"delay": "3660 days", "max_delay": "3660 days", "increment": "3660 days", "jitter": 1, "multiplier": 1000}}',
	'{"retry": {"strategy": "none"}}', '{"retry": {"strategy": null}}', '{"max_wait": "1 us", "max_age": "3660 days", "max_run": 0.5, "max_failure_rate": 0}',
	'{"max_wait": null, "max_age": null, "max_run": null, "max_failure_rate": 1}']) o;
\pset format aligned
\pset tuples_only off

-- Settings have the same bounds, and unknown ones are refused
SELECT t.code('SET qml.max_retries = 1001'), t.code('SET qml.max_retries = -1'), t.code('SET qml.lease = 0'),
	t.code('SET qml.job_timeout = 0'), t.code('SET qml.succeeded_ttl = -1'), t.code('SET qml.failed_ttl = ''3661 d'''),
	t.code('SET qml.max_payload_size = 0'), t.code('SET qml.nosuch = 1');
-- Not for ordinary users
CREATE ROLE regress_qml_user;
SET ROLE regress_qml_user;
SET qml.max_retries = 1;
SET qml.max_payload_size = '100 MB';
RESET ROLE;
DROP ROLE regress_qml_user;
-- Options that were written by hand and are wrong: the settings hold, and a warning tells
SELECT qml_create_queue('odd', '{"max_retries": 1}');
UPDATE qml.queue_data SET options = '{"max_retries": 1, "zz": 1}' WHERE name = 'odd';
SELECT qml_enqueue('m', queue => 'odd') IS NOT NULL AS enqueued;
SELECT max_retries FROM qml_fetch('w', '{odd}');
UPDATE qml.queue_data SET options = '{"max_retries": 2}' WHERE name = 'odd';
SELECT qml_enqueue('m', queue => 'odd') IS NOT NULL AS enqueued;
SELECT max_retries FROM qml_fetch('w', '{odd}');
-- A queue that was rolled back is none; its name comes back with another id
BEGIN;
SELECT qml_enqueue('m', queue => 'never') IS NOT NULL AS enqueued;
SELECT name FROM qml.queue WHERE name = 'never';
ROLLBACK;
SELECT t.code($$SELECT qml_pause_queue('never')$$);
SELECT count(*) FROM qml_fetch('w', '{never}');
SELECT qml_enqueue('m', queue => 'never') IS NOT NULL AS enqueued;
SELECT queue FROM qml_fetch('w', '{never}');
-- Very many in one transaction: what the session remembers grows with their number only
DO $$
BEGIN
	FOR i IN 1..1000 LOOP
		PERFORM qml_enqueue('m', queue => 'many ' || i);
	END LOOP;
END $$;
SELECT count(*) < 20 AS few, sum(total_bytes) < 20000000 AS bounded FROM pg_backend_memory_contexts WHERE name LIKE 'qml%';
SELECT t.reset();
