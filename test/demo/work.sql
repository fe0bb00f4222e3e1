-- One round of a worker: claims up to 20 jobs and does each.  The claim commits
-- by itself; \gexec then runs each row of its result as a statement, hence a
-- transaction, of its own: the acknowledgement of one job.
--
-- A line that cannot be parsed fails for good.  A status of 5xx counts as a
-- passing trouble: the first attempt fails, the next one succeeds.  The endless
-- report fails until no retry is left.  A job of the recurring report counts the
-- jobs by state.

SELECT CASE
	WHEN method = 'traffic_report' THEN
		format('SELECT ''succeeded'' FROM qml_succeed(%L, %s, (SELECT jsonb_object_agg(state, count)'
		       ' FROM qml_queue_counts() WHERE queue = ''access_log''))', id, attempt)
	WHEN m IS NULL THEN
		format('SELECT qml_fail(%L, %s, %L, %L, retry => false)',
		       id, attempt, 'line ' || (payload->>'line_no') || ' is not in the log format',
		       'malformed_line')
	WHEN m[4] = '/reports/endless' THEN
		format('SELECT qml_fail(%L, %s, %L, %L)',
		       id, attempt, 'the report did not come', 'timeout')
	WHEN m[5] LIKE '5%' AND attempt = 1 THEN
		format('SELECT qml_fail(%L, %s, %L, %L)',
		       id, attempt, 'status ' || m[5] || ', looking again later', 'upstream_error')
	ELSE
		format('SELECT ''succeeded'' FROM qml_succeed(%L, %s, %L)',
		       id, attempt,
		       jsonb_build_object('ip', m[1], 'at', m[2], 'method', m[3], 'path', m[4],
		                          'status', m[5]::int, 'bytes', m[6]::int))
END
FROM (
	SELECT id, attempt, method, payload,
	       regexp_match(payload->>'line',
	                    '^(\S+) - - \[([^]]+)\] "([A-Z]+) (\S+) HTTP/1\.1" (\d{3}) (\d+)$') AS m
	FROM qml_fetch(:'worker', ARRAY['reports', 'access_log'], 20)
) job
\gexec
\echo end of round
