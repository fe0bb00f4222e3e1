--
-- The state machine: the table, and that every way of changing a job obeys it.
--
SELECT t.reset();

-- The contract, written down once more
CREATE TEMP TABLE contract (source qml.job_state, target qml.job_state);
INSERT INTO contract SELECT s.source::qml.job_state, unnest(string_to_array(s.targets, ' '))::qml.job_state
FROM (VALUES ('scheduled', 'enqueued deleted'),
	('enqueued', 'processing scheduled failed deleted'),
	('processing', 'succeeded failed awaiting_retry enqueued deleted'),
	('awaiting_retry', 'enqueued deleted'),
	('failed', 'enqueued awaiting_retry deleted'),
	('succeeded', 'deleted'),
	('awaiting_parents', 'enqueued scheduled deleted')) s (source, targets);
CREATE TEMP TABLE pair AS
SELECT s.source, e.target, EXISTS (SELECT FROM contract c WHERE c.source = s.source AND c.target = e.target) AS allowed
FROM unnest(enum_range(NULL::qml.job_state)) s (source), unnest(enum_range(NULL::qml.job_state)) e (target);

SELECT count(*), count(*) FILTER (WHERE allowed) AS allowed FROM pair;
SELECT count(*) AS differences FROM pair WHERE qml_can_transition(source, target) <> allowed;
SELECT source, string_agg(target::text, ' ' ORDER BY target) FILTER (WHERE qml_can_transition(source, target)) AS targets
FROM pair GROUP BY source ORDER BY source;
SELECT t.try('SELECT qml_can_transition(NULL, ''deleted'')');
SELECT t.try('SELECT qml_can_transition(''deleted'', NULL)');

-- Each pair by qml_set_state, on a job that was brought to the first state by
-- the ordinary functions.  A refusal leaves the job as it was.
CREATE FUNCTION t.walk(source qml.job_state, target qml.job_state) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	job uuid := t.id(1);
	before jsonb;
	answer text;
BEGIN
	PERFORM t.reset();
	PERFORM t.make(job, source::text);
	before := (SELECT to_jsonb(j) FROM qml_job(job) j);
	answer := t.code(format('SELECT (qml_set_state(%L, %L)).state', job, target));
	IF (qml_job(job)).state <> (CASE WHEN answer ~ '^QM' THEN source ELSE target END) THEN
		answer := answer || ', but it is ' || (qml_job(job)).state;
	ELSIF answer ~ '^QM' AND (SELECT to_jsonb(j) FROM qml_job(job) j) <> before THEN
		answer := answer || ', but it changed';
	ELSIF (SELECT count(*) FROM qml.job) <> 1 THEN
		answer := answer || ', but there are ' || (SELECT count(*) FROM qml.job) || ' jobs';
	END IF;
	RETURN answer;
END $$;
CREATE TEMP TABLE walked AS SELECT source, target, allowed, t.walk(source, target) AS answer FROM pair;
SELECT count(*) AS wrong FROM walked WHERE answer <> CASE WHEN allowed THEN target::text ELSE 'QM002' END;
SELECT source, target, answer FROM walked ORDER BY source, target;
DROP FUNCTION t.walk;
-- What such an error says
SELECT t.reset();
SELECT t.make(t.id(1), 'succeeded');
SELECT t.try('SELECT qml_set_state(t.id(1), ''processing'')');

-- Every other function, on a job in each of the states
CREATE TEMP TABLE act (n int, what text, sql text);
INSERT INTO act VALUES
	(1, 'delete', 'SELECT qml_delete(%L)'),
	(2, 'retry', 'SELECT qml_retry(%L)'),
	(3, 'schedule', 'SELECT qml_reschedule(%L, now() + interval ''2 h'')'),
	(4, 'fetch', 'SELECT count(*) FROM qml_fetch(batch => 9) WHERE id = %L'),
	(5, 'heartbeat', 'SELECT qml_heartbeat(%L, 1) IS NOT NULL'),
	(6, 'progress', 'SELECT qml_progress(%L, 1, ''1'')'),
	(7, 'succeed', 'SELECT qml_succeed(%L, 1)'),
	(8, 'succeed_many', 'SELECT count(*) FROM qml_succeed_many(ARRAY[%L]::uuid[], ARRAY[1])'),
	(9, 'fail', 'SELECT qml_fail(%L, 1, ''e'')'),
	(10, 'fail for good', 'SELECT qml_fail(%L, 1, ''e'', retry => false)'),
	(11, 'release', 'SELECT qml_release(%L, 1)'),
	(12, 'promote', 'SELECT count(*) FROM (SELECT qml_promote_due() > 0 AS done) x WHERE done OR %L IS NULL'),
	(13, 'promote when due', 'UPDATE qml.live SET run_at = now() WHERE id = %L AND run_at IS NOT NULL'),
	(14, 'reclaim', 'SELECT count(*) FROM (SELECT qml_reclaim() > 0 AS done) x WHERE done OR %L IS NULL'),
	(15, 'reclaim when over', 'UPDATE qml.live SET lease_expires_at = now() WHERE id = %L AND lease_expires_at IS NOT NULL'),
	(16, 'enqueue again', 'SELECT qml_enqueue(''m'', id => %L)'),
	(17, 'release for later', 'SELECT qml_release(%L, 1, now() + interval ''2 h'')'),
	(18, 'discard', 'SELECT qml_discard(%L, 1)'),
	(19, 'fail_many', 'SELECT count(*) FROM qml_fail_many(ARRAY[%L]::uuid[], ARRAY[1], ARRAY[''e''])'),
	(20, 'release_many', 'SELECT count(*) FROM qml_release_many(ARRAY[%L]::uuid[], ARRAY[1])');
CREATE FUNCTION t.walk(source qml.job_state, what text, sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	job uuid := t.id(1);
	answer text;
	result qml.job_state;
BEGIN
	PERFORM t.reset();
	PERFORM t.make(job, source::text);
	IF what ~ ' when ' THEN
		EXECUTE format(sql, job);
		answer := CASE WHEN what ~ '^promote' THEN qml_promote_due() ELSE qml_reclaim() END;
	ELSE
		answer := t.code(format(sql, job));
	END IF;
	IF (SELECT count(*) FROM qml.job) <> 1 THEN
		RETURN answer || ', but there are ' || (SELECT count(*) FROM qml.job) || ' jobs';
	END IF;
	result := (qml_job(job)).state;
	RETURN answer || CASE WHEN result = source THEN '' ELSE ' -> ' || result END;
END $$;
-- A transaction for each: it drops partitions, and their locks last until it ends
CREATE TEMP TABLE acted (n int, what text, source qml.job_state, answer text);
DO $$
DECLARE
	a act;
BEGIN
	FOR a IN SELECT * FROM act ORDER BY n
	LOOP
		INSERT INTO acted
		SELECT a.n, a.what, source, t.walk(source, a.what, a.sql) FROM unnest(enum_range(NULL::qml.job_state)) source;
		COMMIT;
	END LOOP;
END $$;
SELECT what, source, answer FROM acted ORDER BY n, source;
-- Whatever they did, the table allows
SELECT count(*) AS not_allowed
FROM (SELECT source, substring(answer FROM '-> (.*)') AS target FROM acted) x
WHERE target IS NOT NULL AND NOT qml_can_transition(source, target::qml.job_state);
DROP FUNCTION t.walk;

-- What belongs to a state comes and goes with it
CREATE FUNCTION t.shape(job qml.job) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', job.state, 'attempt ' || job.attempt,
		CASE WHEN job.run_at IS NOT NULL THEN 'run_at' END,
		CASE WHEN job.started_at IS NOT NULL THEN 'started' END,
		CASE WHEN job.lease_expires_at IS NOT NULL THEN 'lease' END,
		CASE WHEN job.worker IS NOT NULL THEN 'worker' END,
		CASE WHEN job.finished_at IS NOT NULL THEN 'finished' END,
		CASE WHEN job.expires_at IS NOT NULL THEN 'expires' END,
		CASE WHEN job.result IS NOT NULL THEN 'result' END,
		CASE WHEN job.error IS NOT NULL THEN 'error' END)
$$;
SELECT t.reset();
SELECT count(t.make(t.id(n::int), s)) FROM unnest(enum_range(NULL::qml.job_state)::text[]) WITH ORDINALITY u (s, n)
WHERE s <> 'enqueued';
SELECT qml_enqueue('m', queue => 'x', id => t.id(2)) IS NOT NULL;
SELECT t.shape(j) FROM qml.job j ORDER BY state;
-- Back to enqueued: nothing is left but the count of attempts and the errors
SELECT qml_retry(t.id(1)), qml_retry(t.id(4)), qml_retry(t.id(6)), qml_release(t.id(3), 1);
SELECT t.n(id), t.shape(j) FROM qml.job j ORDER BY id;
DROP FUNCTION t.shape;
