WITH picked AS MATERIALIZED (
	SELECT id FROM floor.live
	WHERE queue_id = 1 AND run_at IS NULL AND state = 'enqueued'
	ORDER BY priority DESC, id LIMIT 100 FOR UPDATE SKIP LOCKED),
claimed AS (
	UPDATE floor.live l
	SET state = 'processing', attempt = attempt + 1, started_at = now(),
		lease_expires_at = now() + interval '5 min', worker = 'bench'
	FROM picked WHERE l.id = picked.id
	RETURNING l.id, l.attempt)
SELECT array_agg(id) AS ids, array_agg(attempt) AS attempts FROM claimed \gset
WITH done AS (
	DELETE FROM floor.live l
	USING unnest((:ids)::uuid[], (:attempts)::int[]) AS t(id, attempt)
	WHERE l.id = t.id AND l.attempt = t.attempt AND l.state = 'processing'
	RETURNING l.*),
kept AS (
	INSERT INTO floor.history
	SELECT id, created_at, queue_id, priority, 'succeeded', attempt, max_retries, timeout_ms,
		created_by, now(), now() + interval '24 h', started_at, worker, server, method, job_type,
		metadata, progress, errors, reason, payload, NULL
	FROM done
	RETURNING id)
SELECT id FROM kept;
