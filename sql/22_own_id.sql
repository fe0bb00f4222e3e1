--
-- Delays, options, and ids of the caller's own that are there already.
--
SELECT t.reset();
CREATE ROLE regress_qml_own NOLOGIN;
CREATE ROLE regress_qml_other NOLOGIN;
SELECT qml_grant('regress_qml_own', 'enqueue', 'q'), qml_grant('regress_qml_other', 'enqueue', 'q');

-- A delay counts from now(), in days of the calendar; one that is past is none
BEGIN;
SELECT qml_enqueue('m', id => t.id(1), delay => '90 s') IS NOT NULL;
SELECT state, run_at - now() AS after FROM qml_job(t.id(1));
SET LOCAL timezone = 'Europe/Berlin';
SELECT qml_enqueue('m', id => t.id(2), delay => '1 year 3 days -1 s') IS NOT NULL;
SELECT state, run_at = now() + interval '1 year 3 days -1 s' AS as_sql_says FROM qml_job(t.id(2));
SELECT qml_enqueue('m', id => t.id(3), delay => '0') IS NOT NULL, qml_enqueue('m', id => t.id(4), delay => '-1 day') IS NOT NULL;
SELECT id, state, run_at FROM qml.job WHERE id IN (t.id(3), t.id(4)) ORDER BY id;
SELECT count(*) FROM qml_enqueue_many('m', '{1,2}', 'q', delay => '1 h');
SELECT state, run_at - now() AS after, count(*) FROM qml.job WHERE queue = 'q' GROUP BY 1, 2;
ROLLBACK;
SELECT t.try($$SELECT qml_enqueue('m', run_at => now(), delay => '1 h')$$);
SELECT t.try($$SELECT qml_try_enqueue('m', run_at => now(), delay => '1 h')$$);
SELECT t.try($$SELECT qml_enqueue_many('m', '{1}', run_at => now(), delay => '1 h')$$);
SELECT t.code($$SELECT qml_enqueue('m', delay => '178000000 years')$$);

-- Options that there are not, and what they may have meant
SELECT t.try($$SELECT qml_enqueue('m', options => '{"on_duplicat_id": "return"}')$$);
SELECT t.try($$SELECT qml_enqueue('m', options => '{"On_Duplicate_ID": "return"}')$$);
SELECT t.try($$SELECT qml_enqueue_many('m', '{1}', options => '{"colour": 1}')$$);
SELECT t.try($$SELECT qml_try_enqueue('m', options => '[]')$$);
SELECT t.try($$SELECT qml_enqueue('m', id => t.id(1), options => '{"on_duplicate_id": "ignore"}')$$);
SELECT t.try($$SELECT qml_enqueue('m', id => t.id(1), options => '{"on_duplicate_id": 1}')$$);
SELECT t.try($$SELECT qml_enqueue('m', options => '{"on_duplicate_id": "return"}')$$);
SELECT t.try($$SELECT qml_enqueue_many('m', '{1}', options => '{"on_duplicate_id": "return"}')$$);
SELECT t.try($$SELECT qml_create_queue('x', '{"max_retry": 1}')$$);
SELECT t.try($$SELECT qml_create_queue('x', '{"retry": {"stratgy": "none"}}')$$);
-- ... as none is given
SELECT qml_enqueue('m', options => '{}') IS NOT NULL, qml_enqueue('m', options => '{"on_duplicate_id": null}') IS NOT NULL,
	qml_enqueue('m', options => '{"on_duplicate_id": "error"}') IS NOT NULL;
SELECT created, state, id IS NOT NULL AS id FROM qml_try_enqueue('tried', '{"n": 1}', 'q', delay => '1 h');
SELECT queue, payload, state FROM qml.job WHERE method = 'tried';

-- The same job again: its id and state, and nothing is written
SELECT t.reset();
CREATE FUNCTION t.again(n int, method text DEFAULT 'm', payload jsonb DEFAULT '{"n": 1}', queue text DEFAULT 'q', job_type text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	detail text;
	job record;
BEGIN
	SELECT * INTO job FROM qml_try_enqueue(method, payload, queue, job_type => job_type, id => t.id(n), options => '{"on_duplicate_id": "return"}');
	RETURN t.n(job.id) || CASE WHEN job.created THEN ' created ' ELSE ' was there ' END || job.state;
EXCEPTION WHEN unique_violation THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN SQLERRM || ': ' || detail;
END $$;
GRANT USAGE ON SCHEMA t TO regress_qml_own, regress_qml_other;
SELECT t.again(1);
SELECT t.everything() AS before \gset
SELECT t.again(1), t.again(1, payload => '{"n": 1.0}');
SELECT qml_enqueue('m', '{"n": 1}', 'q', 7, now() + interval '1 h', 3, '5 s', '{"k": 1}', id => t.id(1), options => '{"on_duplicate_id": "return"}') = t.id(1) AS the_same;
SELECT t.everything() = :'before' AS unchanged;
SELECT t.again(1, method => 'other'), t.again(1, payload => '{"n": 2}');
SELECT t.again(1, job_type => 'x'), t.again(1, queue => 'other');
-- ... in each state, unfinished, in the history and in the overflow
SELECT t.make(t.id(10), 'scheduled', 'q10'), t.make(t.id(11), 'processing', 'q11'), t.make(t.id(12), 'awaiting_retry', 'q12'),
	t.make(t.id(13), 'succeeded', 'q13'), t.make(t.id(14), 'failed', 'q14'), t.make(t.id(15), 'deleted', 'q15');
SELECT t.again(n, payload => '{}', queue => 'q' || n) FROM generate_series(10, 15) n;
SELECT t.make(t.id(16), 'processing', 'q16');
SELECT t.drop_leaves();
SELECT qml_fail(t.id(16), 1, 'e', retry => false);
SELECT count(*) FROM qml.history_overflow;
SELECT t.again(16, payload => '{}', queue => 'q16');
SELECT t.again(16, queue => 'q16');
SELECT t.try($$SELECT qml_enqueue('m', id => t.id(16))$$);
SELECT t.try($$SELECT qml_enqueue('m', id => t.id(1))$$);
-- ... and in one statement, and again when it was rolled back
SELECT t.again(20), t.again(20);
BEGIN;
SELECT t.again(21);
ROLLBACK;
SELECT t.again(21);
-- A job that is not kept frees its id
SELECT qml_create_queue('unkept', '{"succeeded_ttl": 0}');
SELECT t.make(t.id(22), 'succeeded', 'unkept');
SELECT t.again(22, payload => '{}', queue => 'unkept');
-- What a handler says about the queue counts
CREATE FUNCTION t.handle(n int) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT qml_register_handler('handled', 't.handle', '{"queue": "of_handler"}');
SELECT t.again(23, 'handled', queue => 'default'), t.again(23, 'handled', queue => 'default');
SELECT queue FROM qml_job(t.id(23));
SELECT t.code($$SELECT t.again(23, 'handled', '{"x": 1}', 'default')$$) AS unfit;

-- At the stricter levels: what the transaction itself has made, and what others had
SELECT t.again(30);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT t.again(30), t.again(31), t.again(31);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT t.again(30), t.again(31), t.again(32), t.again(32);
COMMIT;
BEGIN READ ONLY;
SELECT t.code($$SELECT qml_try_enqueue('m')$$);
COMMIT;

-- One's own jobs, and those of the roles that one is a member of
GRANT EXECUTE ON FUNCTION t.again, t.id, t.n TO regress_qml_own, regress_qml_other;
SELECT qml_grant('regress_qml_own', 'enqueue', 'q'), qml_grant('regress_qml_other', 'enqueue', 'q'), qml_grant('regress_qml_other', 'enqueue', 'q2');
SET ROLE regress_qml_own;
SELECT t.again(40), t.again(40);
-- Others are told that the id is taken, and neither whether they have guessed what it is nor whether it is done
SET ROLE regress_qml_other;
SELECT t.again(40);
SELECT t.again(40, payload => '{"guess": 1}'), t.again(40, method => 'guess');
SELECT t.again(40, queue => 'q2');
SELECT t.try($$SELECT qml_enqueue('m', queue => 'q', id => t.id(40))$$);
RESET ROLE;
SELECT qml_delete(t.id(40));
SET ROLE regress_qml_own;
SELECT t.again(40);
SET ROLE regress_qml_other;
SELECT t.again(40);
SELECT t.again(40, payload => '{"guess": 1}');
SELECT t.try($$SELECT qml_enqueue('m', queue => 'q', id => t.id(40))$$);
SELECT t.try($$SELECT qml_try_enqueue('m', queue => 'q', id => t.id(40))$$);
-- The right to the queue comes first
SELECT t.code($$SELECT t.again(40, queue => 'q3')$$);
RESET ROLE;
GRANT regress_qml_own TO regress_qml_other;
SET ROLE regress_qml_other;
SELECT t.again(40);
RESET ROLE;

SELECT qml_drop_role_objects('regress_qml_own') IS NOT NULL, qml_drop_role_objects('regress_qml_other') IS NOT NULL;
DROP FUNCTION t.again, t.handle;
REVOKE USAGE ON SCHEMA t FROM regress_qml_own, regress_qml_other;
REVOKE EXECUTE ON FUNCTION t.id, t.n FROM regress_qml_own, regress_qml_other;
DROP ROLE regress_qml_own, regress_qml_other;
SELECT t.reset();
