--
-- Retries: when a failed attempt is tried again, and when no more.
--
SELECT t.reset();

-- Fails attempt after attempt, and shows what each waited for
CREATE FUNCTION t.fail(job uuid, queue text) RETURNS TABLE (attempt int, state qml.job_state, wait interval)
LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		SELECT f.attempt INTO attempt FROM qml_fetch('w', ARRAY[queue]) f;
		EXIT WHEN attempt IS NULL;
		state := qml_fail(job, attempt, 'e' || attempt);
		SELECT j.run_at - (j.errors -> -1 ->> 'at')::timestamptz INTO wait FROM qml_job(job) j;
		RETURN NEXT;
		EXIT WHEN state = 'failed';
		PERFORM qml_retry(job);
	END LOOP;
END $$;
CREATE FUNCTION t.policy(options jsonb, max_retries int) RETURNS TABLE (attempt int, state qml.job_state, wait interval)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM t.reset();
	PERFORM qml_create_queue('q', jsonb_build_object('retry', options));
	PERFORM qml_enqueue('m', queue => 'q', max_retries => max_retries, id => t.id(1));
	RETURN QUERY SELECT * FROM t.fail(t.id(1), 'q');
END $$;

-- The formulas, without jitter
SELECT * FROM t.policy('{"strategy": "none"}', 5);
SELECT * FROM t.policy('{"strategy": "fixed", "delay": 7.5, "jitter": 0}', 4);
SELECT * FROM t.policy('{"strategy": "linear", "delay": "10 s", "increment": "3 s", "jitter": 0}', 5);
SELECT * FROM t.policy('{"strategy": "exponential", "delay": "2 s", "multiplier": 3, "jitter": 0}', 6);
SELECT * FROM t.policy('{"strategy": "exponential", "delay": 1, "multiplier": 1.5, "max_delay": 4, "jitter": 0}', 6);
SELECT * FROM t.policy('{"strategy": "linear", "delay": 100, "increment": 100, "max_delay": 250, "jitter": 0}', 4);
SELECT * FROM t.policy('{"strategy": "fixed", "delay": 100, "max_delay": 50, "jitter": 0}', 1);
-- The default: 1 s * 2 ^ (n - 1), at most 15 minutes
SELECT * FROM t.policy('{"jitter": 0}', 12);
-- Parts that are not given keep their defaults
SELECT * FROM t.policy('{"strategy": "linear", "jitter": 0}', 3);
SELECT * FROM t.policy('{"strategy": "fixed", "jitter": 0}', 2);
-- No delay at all
SELECT * FROM t.policy('{"strategy": "exponential", "delay": 0}', 2);
-- Numbers that grow beyond all bounds end at the cap
SELECT attempt, state, wait FROM t.policy('{"strategy": "exponential", "delay": "3660 days", "multiplier": 1000, "max_delay": "3660 days", "jitter": 0}', 1000)
WHERE attempt IN (1, 2, 500, 1000, 1001);
SELECT max(wait), min(wait), count(*) FROM t.policy('{"delay": 0, "multiplier": 1000, "jitter": 0.5}', 1000);

-- max_retries: of the job, else of the queue, else of the setting; 0 is none
SELECT * FROM t.policy('{"delay": 1, "jitter": 0}', 0);
SELECT count(*) FROM t.policy('{"delay": 1}', 1);
SELECT count(*) FROM t.policy('{"delay": 1}', NULL);
SELECT t.reset();
SELECT qml_create_queue('q', '{"max_retries": 2}');
SELECT qml_enqueue('m', queue => 'q', id => t.id(1)) IS NOT NULL;
SELECT max_retries FROM qml_job(t.id(1));
SELECT attempt, state FROM t.fail(t.id(1), 'q');
SELECT qml_alter_queue('q', '{"max_retries": 0}');
SELECT qml_enqueue('m', queue => 'q', id => t.id(2)) IS NOT NULL;
SELECT attempt, state FROM t.fail(t.id(2), 'q');
SELECT qml_alter_queue('q', '{"max_retries": null}');
SET qml.max_retries = 1;
SELECT qml_enqueue('m', queue => 'q', id => t.id(3)) IS NOT NULL;
RESET qml.max_retries;
SELECT attempt, state FROM t.fail(t.id(3), 'q');
-- What the job had when it was enqueued counts, not what the queue says later
SELECT qml_enqueue('m', queue => 'q', id => t.id(4)) IS NOT NULL;
SELECT qml_alter_queue('q', '{"max_retries": 1}');
SELECT max_retries FROM qml_job(t.id(4));

-- errors keeps each attempt, in order
SELECT t.reset();
SELECT qml_enqueue('m', queue => 'q', max_retries => 3, id => t.id(1)) IS NOT NULL;
SELECT count(*) FROM t.fail(t.id(1), 'q');
SELECT error, jsonb_array_length(errors) AS entries,
	(SELECT string_agg(e ->> 'attempt' || ' ' || (e ->> 'error') || ' ' || (e ->> 'worker'), ', ') FROM jsonb_array_elements(errors) e) AS all,
	(SELECT bool_and(a ->> 'at' <= b ->> 'at') FROM jsonb_array_elements(errors) WITH ORDINALITY x (a, n)
		JOIN jsonb_array_elements(errors) WITH ORDINALITY y (b, m) ON m = n + 1) AS in_time
FROM qml_job(t.id(1));
-- A retry by hand gives all retries back; attempts go on, errors stay
SELECT qml_retry(t.id(1));
SELECT state, attempt, tries, finished_at, expires_at, jsonb_array_length(errors) FROM qml_job(t.id(1));
SELECT to_jsonb(qml_job(t.id(1))) = to_jsonb(j) AS same FROM qml.job j WHERE id = t.id(1);
SELECT attempt, state FROM t.fail(t.id(1), 'q');
SELECT jsonb_array_length(errors), error FROM qml_job(t.id(1));
-- The backoff begins anew with it
SELECT t.reset();
SELECT qml_create_queue('q', '{"retry": {"jitter": 0}}');
SELECT qml_enqueue('m', queue => 'q', max_retries => 2, id => t.id(1)) IS NOT NULL;
SELECT * FROM t.fail(t.id(1), 'q');
SELECT qml_retry(t.id(1));
SELECT * FROM t.fail(t.id(1), 'q');
-- ... and a released attempt has no part in it
SELECT qml_retry(t.id(1));
SELECT attempt, tries FROM qml_fetch('w', '{q}');
SELECT qml_release(t.id(1), 7);
SELECT attempt, tries FROM qml_job(t.id(1));
SELECT * FROM t.fail(t.id(1), 'q');

-- The worker's word: no retry, or a time of its own
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(n), queue => 'q', max_retries => 1) IS NOT NULL FROM generate_series(1, 4) n;
SELECT count(*) FROM qml_fetch('w', batch => 4);
SELECT qml_fail(t.id(1), 1, 'e', retry => false);
SELECT qml_fail(t.id(2), 1, 'e', retry_at => '2100-01-01 00:00 UTC');
SELECT run_at AT TIME ZONE 'UTC' FROM qml_job(t.id(2));
SELECT qml_fail(t.id(3), 1, 'e', retry_at => '2000-01-01 00:00 UTC');
SELECT qml_fail(t.id(4), 1, 'e', retry => false, retry_at => '2100-01-01 00:00 UTC');
SELECT t.n(id), state, run_at IS NOT NULL AS run_at FROM qml.job ORDER BY id;
SELECT qml_promote_due();
SELECT t.n(id), attempt FROM qml_fetch('w');
-- A time of its own gives no retry that is not there
SELECT qml_fail(t.id(3), 2, 'e', retry_at => '2100-01-01 00:00 UTC');

-- Jitter: within its bounds on both sides, never beyond the cap
CREATE FUNCTION t.draw(options jsonb, draws int) RETURNS TABLE (attempt int, wait interval) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM t.reset();
	PERFORM qml_create_queue('q', jsonb_build_object('retry', options));
	PERFORM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[draws]), 'q', max_retries => 100);
	FOR i IN 1..3 LOOP
		PERFORM qml_fail(f.id, f.attempt, 'e') FROM qml_fetch('w', '{q}', draws) f;
		RETURN QUERY SELECT j.attempt, j.run_at - (j.errors -> -1 ->> 'at')::timestamptz FROM qml.job j;
		PERFORM qml_retry(j.id) FROM qml.job j;
	END LOOP;
END $$;
SELECT attempt, count(*), min(wait) >= base * 0.75 AS lower, max(wait) <= base * 1.25 AS upper,
	min(wait) < base * 0.76 AS reaches_lower, max(wait) > base * 1.24 AS reaches_upper,
	avg(wait) BETWEEN base * 0.96 AND base * 1.04 AS middle, count(DISTINCT wait) > 990 AS all_different
FROM t.draw('{}', 1000), LATERAL (SELECT interval '1 s' * 2 ^ (attempt - 1) AS base) b
GROUP BY attempt, base ORDER BY attempt;
SELECT attempt, min(wait) < interval '1 s' AS down_to_nothing, min(wait) >= interval '0' AS not_negative,
	max(wait) > interval '19 s' AS up_to_twice, max(wait) <= interval '20 s' AS not_more
FROM t.draw('{"strategy": "fixed", "delay": "10 s", "jitter": 1}', 1000) GROUP BY attempt ORDER BY attempt;
SELECT attempt, max(wait) AS cap, min(wait) >= interval '7.5 s' AS lower, count(*) FILTER (WHERE wait = interval '10 s') > 300 AS many_at_cap
FROM t.draw('{"strategy": "fixed", "delay": "10 s", "max_delay": "10 s", "jitter": 0.25}', 1000) GROUP BY attempt ORDER BY attempt;

DROP FUNCTION t.draw, t.policy, t.fail;

--
-- Leases that are over: reclaimed, the attempt counted
--
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(1), max_retries => 2) IS NOT NULL;
SELECT qml_enqueue('m', id => t.id(2), max_retries => 0) IS NOT NULL;
SELECT qml_enqueue('m', id => t.id(3), priority => -1) IS NOT NULL;
SELECT t.n(id), attempt FROM qml_fetch('w1', batch => 2, lease => '1 us');
SELECT t.n(id), attempt FROM qml_fetch('w1', batch => 2, lease => '1 h');
SELECT qml_reclaim();
SELECT qml_reclaim();
SELECT t.n(id), state, attempt, worker, lease_expires_at IS NOT NULL AS lease, error FROM qml.job ORDER BY id;
SELECT e - 'at' AS entry FROM qml_job(t.id(1)), jsonb_array_elements(errors) e;
SELECT attempt FROM qml_fetch('w2', lease => '1 us');
SELECT qml_reclaim();
SELECT attempt FROM qml_fetch('w3', lease => '1 us');
SELECT qml_reclaim();
SELECT state, attempt, jsonb_array_length(errors), error, errors -> -1 ->> 'worker' AS worker FROM qml_job(t.id(1));
-- Failed so, it can be retried like any other
SELECT qml_retry(t.id(1));
SELECT attempt FROM qml_fetch('w4', lease => '1 us');
SELECT qml_reclaim();
SELECT state, attempt FROM qml_job(t.id(1));
-- Not more than were asked for
SELECT t.reset();
SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[10]));
SELECT count(*) FROM qml_fetch('w', batch => 10, lease => '1 us');
SELECT qml_reclaim(4), qml_reclaim(4), qml_reclaim(4);
SELECT state, count(*) FROM qml.job GROUP BY state;

--
-- Promotion: the longest due first, not more than were asked for
--
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(n), run_at => now() + interval '1 h') IS NOT NULL FROM generate_series(1, 6) n;
SELECT qml_promote_due();
SELECT qml_reschedule(t.id(n), now() - n * interval '1 min') FROM generate_series(1, 5) n;
SELECT qml_promote_due(2), qml_promote_due(2);
SELECT string_agg(t.n(id)::text, ' ' ORDER BY id), state FROM qml.job GROUP BY state ORDER BY state;
SELECT qml_promote_due();
SELECT run_at FROM qml.job WHERE state = 'enqueued' GROUP BY run_at;

-- Of very many failed attempts the last 100 are kept
SELECT t.reset();
SELECT qml_create_queue('often', '{"max_retries": 150, "retry": {"strategy": "fixed", "delay": 0}}');
SELECT qml_enqueue('m', queue => 'often', id => t.id(1)) IS NOT NULL AS enqueued;
DO $$
BEGIN
	FOR i IN 1..120 LOOP
		PERFORM qml_fail(id, attempt, 'failure ' || i) FROM qml_fetch('w', '{often}');
		PERFORM qml_promote_due();
	END LOOP;
END $$;
SELECT attempt, jsonb_array_length(errors) AS kept, errors -> 0 ->> 'attempt' AS first, error AS last FROM qml_job(t.id(1));
SELECT t.reset();
