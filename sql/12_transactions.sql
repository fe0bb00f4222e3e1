--
-- Everything is part of the caller's transaction, at every isolation level.
--
SELECT t.reset();

-- One of everything, as lines
CREATE FUNCTION t.life() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	ids uuid[];
BEGIN
	PERFORM qml_create_queue('a', '{"retry": {"jitter": 0}}');
	RETURN NEXT 'enqueue ' || t.n(qml_enqueue('m', id => t.id(1), queue => 'a'));
	PERFORM qml_enqueue('m', id => t.id(n), queue => 'a') FROM generate_series(2, 6) n;
	ids := ARRAY(SELECT qml_enqueue_many('m', '{1,2,3}', 'b'));
	RETURN NEXT 'fetch ' || string_agg(t.n(id)::text, ' ') FROM qml_fetch('w', '{a}', 4);
	RETURN NEXT 'fetch ' || count(*) FROM qml_fetch('w', batch => 10) f;
	RETURN NEXT 'heartbeat ' || (qml_heartbeat(t.id(1), 1) > now());
	PERFORM qml_progress(t.id(1), 1, '1');
	RETURN NEXT 'progress ' || ((qml_job(t.id(1))).progress)::text;
	PERFORM qml_succeed(t.id(1), 1, '2');
	RETURN NEXT 'succeed ' || ((qml_job(t.id(1))).result)::text;
	RETURN NEXT 'succeed_many ' || count(*) FROM qml_succeed_many(ids, ARRAY[1, 1, 2]);
	RETURN NEXT 'fail ' || qml_fail(t.id(2), 1, 'e');
	RETURN NEXT 'fail ' || qml_fail(t.id(3), 1, 'e', retry => false);
	PERFORM qml_release(t.id(4), 1);
	RETURN NEXT 'release ' || (qml_job(t.id(4))).state;
	RETURN NEXT 'delete ' || qml_delete(t.id(4)) || ' ' || qml_delete(t.id(1)) || ' ' || qml_delete(t.id(1));
	RETURN NEXT 'retry ' || qml_retry(t.id(2)) || ' ' || qml_retry(t.id(3)) || ' ' || qml_retry(t.id(3));
	RETURN NEXT 'schedule ' || qml_reschedule(t.id(3), now() - interval '1 h');
	RETURN NEXT 'promote ' || qml_promote_due();
	RETURN NEXT 'fetch ' || string_agg(t.n(id)::text || '/' || attempt, ' ') FROM qml_fetch('w', '{a}', 9, '1 us');
	RETURN NEXT 'reclaim ' || qml_reclaim();
	RETURN NEXT 'set_state ' || (qml_set_state(t.id(2), 'failed')).state;
	RETURN NEXT 'lock ' || (qml_try_lock('l', 'o', '1 h') > 0) || ' ' || COALESCE(qml_try_lock('l', 'p', '1 h'), 0) || ' ' || qml_unlock('l', 'o');
	RETURN NEXT 'stale ' || t.code('SELECT qml_succeed(t.id(3), 1)') || ' ' || t.code('SELECT qml_succeed(t.id(99), 1)') || ' ' || t.code('SELECT qml_retry(t.id(1))');
	RETURN NEXT 'cleanup ' || qml_cleanup();
	RETURN NEXT 'maintain ' || (qml_maintain() ->> 'partitions_created');
	PERFORM qml_pause_queue('a'), qml_alter_queue('a', '{"max_retries": 1}');
	RETURN NEXT 'paused ' || count(*) FROM qml_fetch('w', '{a}', 9);
	PERFORM qml_resume_queue('a');
	RETURN NEXT 'drop ' || t.code('SELECT qml_drop_queue(''a'')');
	RETURN NEXT 'counts ' || string_agg(state || '=' || count, ' ') FROM qml_counts() WHERE count > 0;
	RETURN NEXT 'queues ' || string_agg(queue || '.' || state || '=' || count, ' ') FROM qml_queue_counts();
	RETURN NEXT 'view ' || string_agg(t.n(id) || '=' || state || '/' || attempt, ' ' ORDER BY id) FROM qml.job WHERE queue = 'a';
END $$;
CREATE TEMP TABLE lines AS SELECT 'read committed' AS level, n, line FROM t.life() WITH ORDINALITY x (line, n);
SELECT line FROM lines ORDER BY n;
SELECT t.reset();
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO lines SELECT 'repeatable read', n, line FROM t.life() WITH ORDINALITY x (line, n);
COMMIT;
SELECT count(*) FROM qml.job;
SELECT t.reset();
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO lines SELECT 'serializable', n, line FROM t.life() WITH ORDINALITY x (line, n);
COMMIT;
SELECT count(*) FROM qml.job;
SELECT n, level, line FROM lines l WHERE line <> (SELECT line FROM lines o WHERE o.level = 'read committed' AND o.n = l.n) ORDER BY n, level;
-- Single calls at the stricter levels
SELECT t.reset();
SET default_transaction_isolation = 'serializable';
SELECT count(*) FROM t.life();
SELECT t.n(id), attempt FROM qml_fetch('w', '{a}', 1);
SELECT qml_succeed(id, attempt) FROM qml.job WHERE state = 'processing' AND queue = 'a';
RESET default_transaction_isolation;

-- Rolled back, all of it leaves nothing
SELECT t.reset();
SELECT t.make(t.id(50), 'enqueued', 'kept'), t.make(t.id(51), 'failed', 'kept2');
SELECT t.everything() AS before \gset
BEGIN;
SELECT count(*) FROM t.life();
ROLLBACK;
SELECT t.everything() = :'before' AS unchanged;
SELECT t.n(id), state FROM qml.job ORDER BY id;
-- ... also what the session remembers: queues, partitions, rights
SELECT count(*) FROM t.life();
SELECT t.reset();
BEGIN;
SELECT qml_create_queue('new', '{"max_retries": 1, "succeeded_ttl": "40 days"}');
SELECT t.make(t.id(1), 'succeeded', 'new');
ROLLBACK;
SELECT t.code('SELECT qml_pause_queue(''new'')');
SELECT t.make(t.id(1), 'succeeded', 'new');
SELECT max_retries, t.ttl(finished_at, expires_at) AS kept FROM qml_job(t.id(1));
BEGIN;
SELECT qml_alter_queue('new', '{"max_retries": 2, "succeeded_ttl": 0}'), qml_pause_queue('new');
SAVEPOINT s;
SELECT qml_alter_queue('new', '{"max_retries": 3}'), qml_resume_queue('new');
SELECT qml_enqueue('m', queue => 'new', id => t.id(2)) IS NOT NULL;
SELECT max_retries FROM qml_job(t.id(2));
ROLLBACK TO s;
SELECT qml_enqueue('m', queue => 'new', id => t.id(2)) IS NOT NULL;
SELECT max_retries FROM qml_job(t.id(2));
SELECT count(*) FROM qml_fetch('w', '{new}');
ROLLBACK;
SELECT qml_enqueue('m', queue => 'new', id => t.id(2)) IS NOT NULL;
SELECT max_retries FROM qml_job(t.id(2));
SELECT count(*) FROM qml_fetch('w', '{new}');
BEGIN;
SELECT qml_succeed(t.id(2), 1);
SELECT qml_drop_queue('new');
SELECT count(*) FROM qml_fetch('w', '{new}');
ROLLBACK;
SELECT qml_succeed(t.id(2), 1);
SELECT name FROM qml.queue;

-- Savepoints: what is rolled back to is as it was then
SELECT t.reset();
BEGIN;
SELECT qml_enqueue('m', id => t.id(1)) IS NOT NULL;
SAVEPOINT a;
SELECT qml_enqueue('m', id => t.id(2)) IS NOT NULL;
SELECT qml_enqueue('m', id => t.id(3), queue => 'gone') IS NOT NULL;
ROLLBACK TO a;
SELECT t.n(id) FROM qml.job;
SELECT qml_enqueue('m', id => t.id(2)) IS NOT NULL;
SAVEPOINT b;
SELECT t.n(id), attempt FROM qml_fetch('w');
ROLLBACK TO b;
SELECT t.n(id), attempt FROM qml_fetch('w');
SAVEPOINT c;
SELECT qml_succeed(t.id(1), 1);
SELECT state FROM qml_job(t.id(1));
ROLLBACK TO c;
SELECT state FROM qml_job(t.id(1));
SELECT qml_fail(t.id(1), 1, 'e', retry => false);
SAVEPOINT d;
SELECT qml_retry(t.id(1));
ROLLBACK TO d;
SELECT state FROM qml_job(t.id(1));
RELEASE d;
SAVEPOINT e;
SELECT qml_delete(t.id(2));
RELEASE e;
COMMIT;
SELECT t.n(id), state FROM qml.job ORDER BY id;
SELECT name FROM qml.queue;
-- An error in between undoes its statement alone
BEGIN;
SELECT t.make(t.id(4), 'processing');
SAVEPOINT a;
SELECT qml_succeed(t.id(4), 7);
ROLLBACK TO a;
SELECT qml_succeed(t.id(4), 1);
COMMIT;
SELECT state FROM qml_job(t.id(4));
BEGIN;
SELECT t.make(t.id(5), 'processing');
SELECT qml_succeed(t.id(5), 7);
SELECT qml_succeed(t.id(5), 1);
COMMIT;
SELECT count(*) FROM qml_job(t.id(5));

-- Loops with EXCEPTION blocks
SELECT t.reset();
DO $$
DECLARE
	f qml.job;
	done int := 0;
BEGIN
	FOR n IN 1..100 LOOP
		BEGIN
			PERFORM qml_enqueue('m', to_jsonb(n), id => t.id(n));
			IF n % 3 = 0 THEN
				RAISE 'not this one';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
	LOOP
		BEGIN
			SELECT * INTO f FROM qml_fetch('w');
			EXIT WHEN f.id IS NULL;
			IF (f.payload::int) % 5 = 0 AND f.attempt = 1 THEN
				PERFORM 1 / 0;
			END IF;
			PERFORM qml_succeed(f.id, f.attempt);
			done := done + 1;
			IF f.payload::int % 7 = 0 AND f.metadata IS NULL THEN
				RAISE 'rolled back' USING ERRCODE = 'QM999';
			END IF;
		EXCEPTION
			WHEN division_by_zero THEN
				-- The claim went with the rest: this is another one
				SELECT * INTO f FROM qml_fetch('w');
				PERFORM qml_fail(f.id, f.attempt, SQLERRM, SQLSTATE, retry => false);
			WHEN SQLSTATE 'QM999' THEN
				SELECT * INTO f FROM qml_fetch('w');
				PERFORM qml_delete(f.id);
		END;
	END LOOP;
	RAISE NOTICE 'done %', done;
END $$;
SELECT state, count(*), max(attempt), count(*) FILTER (WHERE payload::int % 3 = 0) AS thirds,
	count(*) FILTER (WHERE payload::int % 5 = 0) AS fifths, count(*) FILTER (WHERE payload::int % 7 = 0) AS sevenths
FROM qml.job GROUP BY state ORDER BY state;

-- Cursors: held over a commit, moved in, read in part
SELECT t.reset();
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[30]));
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT attempt, state FROM qml_fetch('w', batch => 10);
FETCH 2 FROM c;
COMMIT;
SELECT state, count(*) FROM qml.job GROUP BY state ORDER BY state;
FETCH 2 FROM c;
CLOSE c;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT attempt FROM qml_fetch('w', batch => 5);
FETCH LAST FROM c;
FETCH FIRST FROM c;
MOVE ABSOLUTE 3 IN c;
ROLLBACK;
SELECT state, count(*) FROM qml.job GROUP BY state ORDER BY state;
BEGIN;
DECLARE c CURSOR FOR SELECT qml_succeed_many((SELECT array_agg(id) FROM qml.job WHERE state = 'processing'), array_fill(1, ARRAY[10]));
MOVE 1 FROM c;
COMMIT;
BEGIN;
DECLARE c CURSOR FOR SELECT qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[7]), 'other');
MOVE 1 FROM c;
COMMIT;
SELECT queue, state, count FROM qml_queue_counts();

-- A statement sees what was done before it, and what it did itself
SELECT t.reset();
WITH made AS MATERIALIZED (SELECT qml_enqueue('m', id => t.id(1)) AS id)
SELECT (qml_job(id)).state FROM made;
WITH got AS MATERIALIZED (SELECT * FROM qml_fetch('w'))
SELECT (SELECT state FROM qml_job(id)), qml_succeed(id, attempt), (SELECT state FROM qml_job(id)) FROM got;

-- Read-only transactions read
SELECT t.reset();
SELECT t.make(t.id(1), 'enqueued'), t.make(t.id(2), 'processing', 'p'), t.make(t.id(3), 'failed', 'f');
SELECT t.everything() AS before \gset
BEGIN READ ONLY;
SELECT (qml_job(t.id(1))).state;
SELECT count(*) FROM qml.job;
SELECT sum(count) FROM qml_counts();
SELECT sum(count) FROM qml_queue_counts();
SELECT qml_can_transition('failed', 'enqueued');
-- ... and change nothing
SELECT sql, t.code(sql) FROM unnest('{SELECT qml_enqueue(''m''),"SELECT qml_enqueue_many(''m'', ''{1}'')",SELECT qml_fetch(),
	"SELECT qml_heartbeat(t.id(2), 1)","SELECT qml_heartbeat_many(ARRAY[t.id(2)], ''{1}'')","SELECT qml_progress(t.id(2), 1, ''1'')","SELECT qml_succeed(t.id(2), 1)",
	"SELECT qml_succeed_many(ARRAY[t.id(2)], ''{1}'')","SELECT qml_fail(t.id(2), 1, ''e'')","SELECT qml_release(t.id(2), 1)",
	SELECT qml_delete(t.id(1)),SELECT qml_delete(t.id(3)),SELECT qml_retry(t.id(3)),"SELECT qml_reschedule(t.id(1), now())","SELECT qml_set_state(t.id(1), ''deleted'')",
	SELECT qml_create_queue(''n''),"SELECT qml_alter_queue(''p'', ''{}'')",SELECT qml_drop_queue(''f''),SELECT qml_pause_queue(''p''),SELECT qml_resume_queue(''p''),
	SELECT qml_promote_due(),SELECT qml_reclaim(),SELECT qml_cleanup(),SELECT qml_maintain(),"SELECT qml_try_lock(''r'', ''o'', ''1 s'')","SELECT qml_unlock(''r'', ''o'')",
	"SELECT qml_grant(''postgres'', ''work'')","SELECT qml_revoke(''postgres'', ''work'')"}'::text[]) WITH ORDINALITY s (sql, n) ORDER BY n;
COMMIT;
SELECT t.everything() = :'before' AS unchanged;

-- No subtransactions of its own, whatever the number of calls, and no multixacts
SELECT t.reset();
CHECKPOINT;
SELECT next_multixact_id AS multi FROM pg_control_checkpoint() \gset
SELECT count(*) FROM t.life();
BEGIN;
SELECT count(qml_enqueue('m', queue => 'x', id => t.id(n))) FROM generate_series(100, 299) n;
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[100]), 'x');
SELECT count(*) FROM qml_fetch('w', '{x}', 200);
SELECT count(qml_succeed(id, 1)) FROM qml.job WHERE queue = 'x' AND state = 'processing' AND id < t.id(200);
SELECT count(qml_fail(id, 1, 'e')) FROM qml.job WHERE queue = 'x' AND state = 'processing';
SELECT count(*), bool_and(l.xmin = pg_current_xact_id()::xid) AS own FROM qml.live l JOIN qml.queue_data q ON q.id = queue_id WHERE q.name = 'x';
SELECT count(*), bool_and(h.xmin = pg_current_xact_id()::xid) AS own FROM qml.history h JOIN qml.queue_data q ON q.id = queue_id WHERE q.name = 'x';
COMMIT;
CHECKPOINT;
SELECT next_multixact_id = :'multi' AS none FROM pg_control_checkpoint();

DROP FUNCTION t.life;
