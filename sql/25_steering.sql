--
-- Steering: changing, moving, cancelling and looking at jobs; purging a queue; the pause of all.
--

CREATE VIEW t.shown AS
SELECT t.n(id) AS n, queue, state, priority, max_retries, timeout, run_at AT TIME ZONE 'UTC' AS run_at, payload, metadata FROM qml.job;

CREATE FUNCTION t.reset_all() RETURNS void LANGUAGE sql AS
	'SELECT t.reset(); TRUNCATE qml.live_unlogged, qml.history_unlogged, qml.history_unlogged_overflow';

-- qml_update_job: each member, what null means, and whether anything is changed
SELECT t.reset_all();
SELECT qml_create_queue('q', '{"max_retries": 3, "timeout": "1 min"}'), qml_create_queue('other');
SELECT t.n(qml_enqueue('m', '{"a": 1}', queue => 'q', id => t.id(1), metadata => '{"by": "test"}'));
SELECT qml_update_job(t.id(1), '{"priority": 7, "payload": {"a": 2}, "max_retries": 9, "timeout": "2 min", "metadata": {"b": 1}}');
TABLE t.shown;
SELECT qml_update_job(t.id(1), '{"priority": 7, "payload": {"a": 2}, "max_retries": 9, "timeout": 120, "metadata": {"b": 1}}') AS changed;
SELECT qml_update_job(t.id(1), '{"max_retries": null, "timeout": null, "metadata": null, "payload": null}');
TABLE t.shown;
-- A job that waits for a time gets another one, or none
SELECT qml_update_job(t.id(1), '{"run_at": "2100-01-01 00:00+00"}');
SELECT n, state, run_at FROM t.shown;
SELECT qml_update_job(t.id(1), '{"run_at": "2100-01-02 00:00+00"}');
SELECT n, state, run_at FROM t.shown;
SELECT qml_update_job(t.id(1), '{"run_at": "2100-01-02 00:00+00"}') AS changed;
SELECT qml_update_job(t.id(1), '{"run_at": null}');
SELECT n, state, run_at FROM t.shown;
SELECT qml_update_job(t.id(1), '{"run_at": "2000-01-01 00:00+00"}') AS changed;
-- One that awaits a retry does so until then
SELECT t.make(t.id(2), 'awaiting_retry', 'r');
SELECT qml_update_job(t.id(2), '{"run_at": "2100-01-02 00:00+00"}');
SELECT n, state, run_at FROM t.shown WHERE n = 2;
SELECT qml_update_job(t.id(2), '{"run_at": null}');
SELECT n, state, run_at FROM t.shown WHERE n = 2;

-- Order: a higher priority is given out first, here and in the list in memory
SELECT t.reset_all();
SELECT t.n(qml_enqueue('m', queue => 'q', id => t.id(n))) FROM generate_series(1, 3) n;
SELECT t.n(id) FROM qml_peek('q');
SELECT qml_update_job(t.id(3), '{"priority": 1}'), qml_update_job(t.id(1), '{"priority": -1}');
SELECT t.n(id) FROM qml_peek('q');
SELECT t.n(id) FROM qml_fetch('w', 'q', 10);

-- Another queue: within the tables of one storage class, and between them
SELECT t.reset_all();
SELECT qml_create_queue('q'), qml_create_queue('u', '{"storage": "unlogged"}'), qml_create_queue('a', '{"storage": "async"}');
SELECT t.n(qml_enqueue('m', queue => 'q', id => t.id(1))), t.n(qml_enqueue('m', queue => 'q', id => t.id(2), run_at => '2100-01-01 00:00 UTC'));
SELECT queue, state, count FROM qml_queue_counts() ORDER BY 1, 2;
SELECT qml_update_job(t.id(n), '{"queue": "u", "priority": 1}') FROM generate_series(1, 2) n;
SELECT queue, state, count FROM qml_queue_counts() ORDER BY 1, 2;
SELECT count(*) AS logged FROM qml.live;
SELECT count(*) AS unlogged FROM qml.live_unlogged;
SELECT count(*) FROM qml_fetch('w', 'q');
SELECT t.n(id), attempt FROM qml_fetch('w', 'u');
SELECT qml_release(t.id(1), 1);
SELECT qml_update_job(t.id(n), '{"queue": "a"}') FROM generate_series(1, 2) n;
SELECT count(*) AS unlogged FROM qml.live_unlogged;
SELECT t.n(id), queue, state, priority, run_at IS NULL AS ready FROM qml.job ORDER BY id;
SELECT t.n(id), attempt > 1 AS later FROM qml_fetch('w', 'a');
SELECT queue, state, count FROM qml_queue_counts() ORDER BY 1, 2;
-- A queue that is not there comes into being, as by an enqueue
SELECT qml_update_job(t.id(2), '{"queue": "new"}');
SELECT queue FROM qml_job(t.id(2));
SET qml.new_queues = error;
SELECT t.code($$SELECT qml_update_job(t.id(2), '{"queue": "newer"}')$$);
RESET qml.new_queues;

-- A failed job is changed where it is, and retried as it is then
SELECT t.reset_all();
SELECT t.make(t.id(1), 'failed', 'q');
SELECT qml_create_queue('u', '{"storage": "unlogged"}');
SELECT qml_update_job(t.id(1), '{"payload": {"fixed": true}, "queue": "u", "priority": 5}');
SELECT n, queue, state, priority, payload FROM t.shown;
SELECT queue, state, count FROM qml_queue_counts() ORDER BY 1, 2;
SELECT qml_retry(t.id(1));
SELECT n, queue, state, priority, payload FROM t.shown;
SELECT count(*) FROM qml.live_unlogged;
SELECT queue, state, count FROM qml_queue_counts() ORDER BY 1, 2;

-- Whose job it is: of who gave it another payload or queue
SELECT t.reset_all();
CREATE ROLE regress_steer;
SELECT qml_grant('regress_steer', 'admin', 'q'), qml_grant('regress_steer', 'enqueue', 'other');
SELECT t.n(qml_enqueue('m', '1', queue => 'q', id => t.id(n))) FROM generate_series(1, 3) n;
GRANT USAGE ON SCHEMA t TO regress_steer;
SET ROLE regress_steer;
SELECT qml_update_job(t.id(1), '{"payload": 2}'), qml_update_job(t.id(2), '{"queue": "other"}'), qml_update_job(t.id(3), '{"priority": 1, "payload": 1}');
SELECT t.code($$SELECT qml_update_job(t.id(3), '{"queue": "third"}')$$);
RESET ROLE;
SELECT n, created_by = current_user AS mine, created_by = 'regress_steer' AS theirs FROM (SELECT t.n(id), created_by FROM qml.job) j ORDER BY n;

-- What does not run changes; nothing else does
SELECT t.reset_all();
SELECT t.make(t.id(n::int), s, 'q' || n) IS NOT NULL AS claimed
FROM unnest(enum_range(NULL::qml.job_state)::text[]) WITH ORDINALITY u (s, n);
\pset format unaligned
\pset tuples_only on
SELECT state, t.try(format('SELECT qml_update_job(%L, ''{"priority": 3}'')', id)) FROM qml.job ORDER BY id;
SELECT state, t.try(format('SELECT qml_update_job(%L, ''{"run_at": null}'')', id)) FROM qml.job WHERE state IN ('failed', 'awaiting_parents') ORDER BY id;
-- Bad input
SELECT t.everything() AS before \gset
SELECT t.try(format('SELECT qml_update_job(t.id(1), %L)', c)) FROM unnest(ARRAY[NULL, '{}', '[]', '7', '{"nosuch": 1}', '{"prioritty": 1}', '{"priority": null}', '{"priority": 1.5}',
	'{"priority": 3000000000}', '{"queue": null}', '{"queue": ""}', '{"queue": "qml.hooks"}', '{"max_retries": -1}', '{"timeout": 0}', '{"timeout": "x"}',
	'{"run_at": "infinity"}', '{"run_at": 7}', '{"metadata": 7}']) c;
SELECT t.try('SELECT qml_update_job(NULL, ''{"priority": 1}'')');
SELECT t.try('SELECT qml_update_job(t.id(99), ''{"priority": 1}'')');
SELECT t.code($$SELECT qml_update_job(t.id(1), jsonb_build_object('payload', repeat('x', 1100000)))$$);
SELECT t.code($$SELECT qml_update_job(t.id(1), jsonb_build_object('metadata', jsonb_build_object('x', repeat('x', 1100000))))$$);
SELECT t.everything() = :'before' AS unchanged;
\pset tuples_only off
\pset format aligned
-- The payload must be one for the handler
CREATE FUNCTION t.takes(a int) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_handler('typed', 't.takes');
SELECT t.n(qml_enqueue('typed', '{"a": 1}', queue => 'q', id => t.id(20)));
SELECT t.code($$SELECT qml_update_job(t.id(20), '{"payload": {"b": 1}}')$$), t.code($$SELECT qml_update_job(t.id(20), '{"payload": {"a": 2}}')$$);
SELECT qml_unregister_handler('typed');

-- qml_cancel
SELECT t.reset_all();
SELECT t.make(t.id(1), 'processing', 'q') IS NOT NULL;
SELECT qml_cancel(t.id(1), 'not wanted'), qml_cancel(t.id(1), 'again');
SELECT state, reason FROM qml_job(t.id(1));
SELECT t.code('SELECT qml_succeed(t.id(1), 1)'), t.code('SELECT qml_cancel(t.id(2))'), t.code('SELECT qml_cancel(NULL)');

-- qml_peek: what a fetch would give, in its order
SELECT t.reset_all();
SELECT t.n(qml_enqueue('m', queue => q, priority => p, id => t.id(n)))
FROM (VALUES ('a', 0, 1), ('a', 5, 2), ('b', 9, 3), ('u', 1, 4)) v (q, p, n);
SELECT t.n(qml_enqueue('m', queue => 'a', id => t.id(5), delay => '1 h'));
SELECT t.n(id), state, attempt FROM qml_peek('{b,a}');
SELECT t.n(id) FROM qml_peek('a', 1);
SELECT t.n(id) FROM qml_peek('{a,b,a}');
SELECT t.n(id) FROM qml_peek();
SELECT t.n(id) FROM qml_fetch('w', 'a');
SELECT t.n(id) FROM qml_peek(ARRAY['a', 'nosuch']);
SELECT qml_pause_queue('a');
SELECT t.n(id) FROM qml_peek('a');
SELECT t.n(id) FROM qml_peek();
SELECT t.code('SELECT qml_peek(lim => 0)'), t.code('SELECT qml_peek(lim => NULL)'), t.code('SELECT qml_peek(''{}'')'), t.code('SELECT qml_peek('''')');
SELECT count(*) FROM qml.job WHERE state = 'processing';

-- qml_purge_queue: all that wait, and none that run
SELECT t.reset_all();
SELECT t.make(t.id(n::int), s, 'q') IS NOT NULL AS claimed
FROM unnest('{succeeded,processing,enqueued,scheduled}'::text[]) WITH ORDINALITY u (s, n);
SELECT count(qml_enqueue('m', queue => 'q')) FROM generate_series(1, 300);
SELECT count(qml_enqueue('m', queue => 'beside', delay => '1 h')), count(qml_enqueue('m', queue => 'beside')) FROM generate_series(1, 3);
SELECT qml_purge_queue('q', 'too late');
SELECT queue, state, count FROM qml_queue_counts() ORDER BY 1, 2;
SELECT DISTINCT reason FROM qml.job WHERE state = 'deleted';
SELECT qml_purge_queue('q'), qml_purge_queue('nosuch', missing_ok => true);
SELECT t.code($$SELECT qml_purge_queue('nosuch')$$), t.code($$SELECT qml_purge_queue(NULL)$$), t.code($$SELECT qml_purge_queue('q', NULL, NULL)$$);
-- What is not kept is gone
SELECT qml_create_queue('brief', '{"succeeded_ttl": 0, "storage": "unlogged"}');
SELECT count(qml_enqueue('m', queue => 'brief')) FROM generate_series(1, 3);
SELECT qml_purge_queue('brief');
SELECT count(*) FROM qml.job WHERE queue = 'brief';
-- Hooks are called for each, and the error of one undoes all
CREATE TABLE t.told (id uuid, old text, new text);
CREATE FUNCTION t.tell(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO t.told VALUES (job.id, old, new);
	IF job.payload = '"poison"' THEN RAISE 'no'; END IF;
END $$;
REVOKE EXECUTE ON FUNCTION t.tell FROM PUBLIC;
SELECT t.reset_all();
SELECT qml_register_hook('tell', 't.tell', '{deleted,scheduled}');
SELECT t.n(qml_enqueue('m', queue => 'q', id => t.id(n))) FROM generate_series(1, 3) n;
SELECT qml_update_job(t.id(1), '{"run_at": "2100-01-01"}'), qml_update_job(t.id(2), '{"priority": 1}'), qml_cancel(t.id(3)), qml_purge_queue('q');
SELECT t.n(id), old, new FROM t.told ORDER BY id, new;
SELECT t.n(qml_enqueue('m', '"poison"', queue => 'q', id => t.id(4))), t.n(qml_enqueue('m', queue => 'q', id => t.id(5)));
SELECT t.code($$SELECT qml_purge_queue('q')$$);
SELECT count(*) FROM qml.live;
SELECT qml_unregister_hook('tell');

-- The pause of all: of each queue, also of one that comes later; those that were paused stay so
SELECT t.reset_all();
SELECT t.n(qml_enqueue('m', queue => 'a', id => t.id(1))), t.n(qml_enqueue('m', queue => 'b', id => t.id(2)));
SELECT qml_pause_queue('b', 'for long');
SELECT qml_pause_all('deploy'), qml_pause_all();
SELECT queue, paused_by = current_user AS by_me, pause_reason FROM qml.pause ORDER BY queue NULLS FIRST;
SELECT qml_pause_all('another deploy');
SELECT pause_reason FROM qml.pause WHERE queue IS NULL;
SELECT t.n(qml_enqueue('m', queue => 'c', id => t.id(3)));
SELECT count(*) FROM qml_fetch('w', batch => 10);
SELECT count(*) FROM qml_fetch('w', '{a,c}', 10);
SELECT count(*) FROM qml_peek();
SELECT paused FROM qml.queue WHERE name = 'a';
SELECT qml_resume_all(), qml_resume_all();
SELECT t.n(id) FROM qml_fetch('w', batch => 10);
SELECT queue, pause_reason FROM qml.pause;
-- A rollback takes it back, also of a savepoint
BEGIN;
SAVEPOINT s;
SELECT qml_pause_all();
SELECT count(*) FROM qml_peek('b'), qml_resume_queue('b');
ROLLBACK TO s;
SELECT t.n(id) FROM qml_resume_queue('b'), qml_fetch('w', 'b');
ROLLBACK;
-- By hand, too
INSERT INTO qml.pause_data (paused_at, paused_by) VALUES (now(), 'me');
SELECT qml_resume_queue('b');
SELECT count(*) FROM qml_fetch('w', 'b');
SELECT t.code($$INSERT INTO qml.pause_data (paused_at, paused_by) VALUES (now(), 'me')$$), t.code($$INSERT INTO qml.pause_data VALUES (false, now(), 'me')$$);
TRUNCATE qml.pause_data;
SELECT t.n(id) FROM qml_fetch('w', 'b');
SELECT t.reset_all();
DROP OWNED BY regress_steer;
DROP ROLE regress_steer;

-- So many that hooks are called for a part of them at a time; what they add stays
SELECT t.reset_all();
CREATE TABLE t.purged (id uuid);
CREATE FUNCTION t.note_purge(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS
	$$INSERT INTO t.purged VALUES (job.id); SELECT public.qml_enqueue('added', queue => 'many') WHERE job.priority = 3; SELECT public.qml_enqueue('added later', queue => 'many', delay => '1 h') WHERE old = 'scheduled'$$;
REVOKE EXECUTE ON FUNCTION t.note_purge FROM PUBLIC;
SELECT qml_register_hook('note_purge', 't.note_purge', '{deleted}');
SELECT count(*) FROM generate_series(1, 25) n, qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1000]), queue => 'many', priority => n % 4);
SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[10001]), queue => 'many', run_at => now() + interval '1 h');
SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[10]), queue => 'beside');
SELECT qml_purge_queue('many');
SELECT count(*), count(DISTINCT id) FROM t.purged;
SELECT queue, method, state, count(*) FROM qml.job WHERE state <> 'deleted' GROUP BY 1, 2, 3 ORDER BY 1, 2;
SELECT qml_unregister_hook('note_purge');
SELECT t.reset_all();
DROP TABLE t.purged;
DROP FUNCTION t.note_purge;

DROP VIEW t.shown;
DROP TABLE t.told;
DROP FUNCTION t.tell, t.takes, t.reset_all;
