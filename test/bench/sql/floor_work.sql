UPDATE floor.live
SET state = 'processing', attempt = attempt + 1, started_at = now(),
	lease_expires_at = now() + interval '5 min', worker = 'bench'
WHERE id = (
	SELECT id FROM floor.live
	WHERE queue_id = 1 AND run_at IS NULL AND state = 'enqueued'
	ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, attempt \gset
WITH done AS (
	DELETE FROM floor.live
	WHERE id = :id AND attempt = :attempt AND state = 'processing'
	RETURNING *)
INSERT INTO floor.history
SELECT id, created_at, queue_id, priority, 'succeeded', attempt, max_retries, timeout_ms,
	created_by, now(), now() + interval '24 h', started_at, worker, server, method, job_type,
	metadata, progress, errors, reason, payload, '{"sent": true}'
FROM done;
