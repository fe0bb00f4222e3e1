--
-- Since when a job waits, and how many retries may still follow.
--
SELECT t.reset();

-- What the function says; the view must say the same.
CREATE FUNCTION t.ready(n int) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', j.state, 'tries ' || j.tries, 'left ' || j.retries_left || ':',
		CASE WHEN j.ready_at = j.created_at THEN 'since created' WHEN j.ready_at = j.run_at THEN 'at run_at'
			WHEN j.ready_at > clock_timestamp() THEN 'in future' ELSE 'since ' || date_trunc('hour', clock_timestamp() - j.ready_at) END,
		CASE WHEN j.started_at >= j.ready_at THEN 'waited' WHEN j.started_at IS NOT NULL THEN 'waits again' END,
		CASE WHEN v.ready_at IS DISTINCT FROM j.ready_at OR v.retries_left IS DISTINCT FROM j.retries_left THEN 'but not in the view' END)
	FROM qml_job(t.id(n)) j JOIN qml.job v USING (id)
$$;
-- The time of a delayed job comes, and passed two hours ago.
CREATE FUNCTION t.due(n int) RETURNS int LANGUAGE sql AS $$
	UPDATE qml.live SET run_at = clock_timestamp() - interval '2 h 1 min' WHERE id = t.id(n) AND run_at IS NOT NULL;
	SELECT qml_promote_due()
$$;

-- Enqueued without a delay: nothing is stored, up to the end
SELECT qml_enqueue('m', id => t.id(1), max_retries => 2) IS NOT NULL, qml_enqueue('m', id => t.id(2), run_at => now() - interval '1 day') IS NOT NULL;
SELECT t.ready(1), t.ready(2);
SELECT t.n(id), ready_at = created_at AS ready, retries_left FROM qml_fetch('w', batch => 2);
SELECT t.ready(1), t.ready(2);
SELECT qml_succeed(t.id(2), 1) IS NOT NULL;
SELECT t.ready(2);
SELECT (SELECT count(ready_at) FROM qml.live) AS live, (SELECT count(ready_at) FROM qml.history) AS history;

-- Retries: since they were due, however late they were promoted
SELECT qml_fail(t.id(1), 1, 'e'), t.ready(1);
SELECT t.due(1), t.ready(1);
SELECT attempt, retries_left, started_at - ready_at BETWEEN '2 h' AND '3 h' AS waited FROM qml_fetch('w');
SELECT t.ready(1);
-- A retry by hand: since then
SELECT qml_fail(t.id(1), 2, 'e'), qml_retry(t.id(1)), t.ready(1);
SELECT attempt, retries_left FROM qml_fetch('w');
-- The last one
SELECT qml_fail(t.id(1), 3, 'e'), t.ready(1);
SELECT started_at >= ready_at AS waited FROM qml_job(t.id(1));
-- All retries are there again
SELECT qml_retry(t.id(1)), t.ready(1);

-- Released and reclaimed: since then
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(1)) IS NOT NULL;
SELECT attempt FROM qml_fetch('w');
SELECT started_at AS first FROM qml_job(t.id(1)) \gset
SELECT qml_release(t.id(1), 1) IS NOT NULL;
SELECT t.ready(1), ready_at > :'first' AS later FROM qml_job(t.id(1));
SELECT attempt, ready_at > :'first' AND started_at >= ready_at AS waited FROM qml_fetch('w', lease => '1 us');
SELECT started_at AS first FROM qml_job(t.id(1)) \gset
SELECT qml_reclaim(), t.ready(1);
SELECT ready_at > :'first' AS later FROM qml_job(t.id(1));
SELECT attempt, ready_at > :'first' AND started_at >= ready_at AS waited FROM qml_fetch('w');

-- Delayed: at its time; if it is made ready before, since then
SELECT t.reset();
SELECT qml_enqueue('m', id => t.id(n), run_at => now() + interval '1 h') IS NOT NULL FROM generate_series(1, 4) n;
SELECT t.ready(1);
SELECT t.due(1), t.ready(1);
SELECT qml_retry(t.id(2)), t.ready(2);
SELECT qml_reschedule(t.id(3), now() + interval '2 h'), t.ready(3);
SELECT qml_delete(t.id(4)), t.ready(4);
SELECT t.n(id), started_at >= ready_at AS waited FROM qml_fetch('w', batch => 2);
-- An enqueued one that is delayed waits from its new time on
SELECT qml_enqueue('m', id => t.id(5)) IS NOT NULL;
SELECT qml_reschedule(t.id(5), now() + interval '1 h'), t.ready(5);
SELECT t.due(5), t.ready(5);

-- A retry policy that allows none: the handler's, or else the queue's, as it is now
SELECT t.reset();
SELECT qml_create_queue('once', '{"retry": {"strategy": "none"}}'), qml_create_queue('often', '{"max_retries": 3}');
CREATE FUNCTION t.nothing(jsonb) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_handler('never', 't.nothing(jsonb)', '{"retry": {"strategy": "none"}}'),
	qml_register_handler('fixed', 't.nothing(jsonb)', '{"retry": {"strategy": "fixed"}}'), qml_register_handler('plain', 't.nothing(jsonb)');
SELECT qml_enqueue(m.method, queue => q.queue, max_retries => 3, id => t.id((3 * (q.n - 1) + m.n)::int)) IS NOT NULL
FROM unnest(ARRAY['never', 'fixed', 'plain']) WITH ORDINALITY m(method, n), unnest(ARRAY['once', 'often']) WITH ORDINALITY q(queue, n);
SELECT queue, method, t.ready(n) FROM generate_series(1, 6) n, qml_job(t.id(n));
SELECT queue, method, t.ready(t.n(id)) FROM qml_fetch('w', ARRAY['once', 'often'], batch => 6, methods => ARRAY['never', 'fixed', 'plain']);
SELECT n, qml_fail(t.id(n), 1, 'e'), t.ready(n) FROM generate_series(1, 6) n;
-- What is changed counts at once
SELECT qml_alter_queue('often', '{"retry": {"strategy": "none"}}'), t.ready(6);
SELECT qml_alter_queue('often', '{"retry": null}'), t.ready(6);
SELECT qml_unregister_handler(m) FROM unnest(ARRAY['never', 'fixed', 'plain']) m;
SELECT t.ready(2);
DROP FUNCTION t.nothing;

DROP FUNCTION t.ready, t.due;
