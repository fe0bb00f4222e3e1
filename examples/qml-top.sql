-- What goes on in the queues of this database, on one page: the busiest queues and the newest jobs,
-- again every two seconds until it is canceled:
--
--     \i qml-top.sql
--
-- The variable "interval" says how often, in seconds; with "once" it is shown once:
--
--     psql -X -v interval=10 -f qml-top.sql
--     psql -X -v once= -f qml-top.sql
--
-- "make install" puts it beside the extension's scripts: \i `pg_config --sharedir`/extension/qml-top.sql
-- The role needs the capability monitor, and sees its queues only.  It is one query, without a scan
-- of the jobs, and no line is longer than 120 characters.
\if :{?interval}
\else
	\set interval 2
\endif
WITH queue AS MATERIALIZED (
	SELECT c.queue, q.paused,
		coalesce(sum(c.count) FILTER (WHERE c.state = 'enqueued'), 0) AS ready,
		coalesce(sum(c.count) FILTER (WHERE c.state = 'processing'), 0) AS running,
		coalesce(sum(c.count) FILTER (WHERE c.state = 'scheduled'), 0) AS scheduled,
		coalesce(sum(c.count) FILTER (WHERE c.state = 'awaiting_retry'), 0) AS retried,
		coalesce(sum(c.count) FILTER (WHERE c.state = 'failed'), 0) AS failed,
		coalesce(sum(c.count) FILTER (WHERE c.state = 'succeeded'), 0) AS succeeded
	FROM qml_queue_counts() c
	JOIN qml.queue q ON q.name = c.queue
	GROUP BY c.queue, q.paused
), line (part, n, line) AS (
	SELECT 1, 0, format('%s  %s  background processes: %s', current_database(),
		to_char(statement_timestamp(), 'YYYY-MM-DD HH24:MI:SS'),
		coalesce((SELECT d.state FROM qml.database d WHERE d.name = current_database()), 'none'))
	UNION ALL
	SELECT 2, 0, format('%-30s %9s %9s %9s %9s %9s %11s', 'QUEUE', 'ready', 'running', 'scheduled', 'retried', 'failed', 'succeeded')
	UNION ALL
	SELECT 2, row_number() OVER busiest, format('%-30s %9s %9s %9s %9s %9s %11s%s', qml.one_line(queue, 30),
		ready, running, scheduled, retried, failed, succeeded, CASE WHEN paused THEN ' paused' END)
	FROM queue
	WINDOW busiest AS (ORDER BY running DESC, ready DESC, retried + scheduled DESC, queue)
	UNION ALL
	SELECT 3, 0, format('%-36s %-10s %-12s %-14s %5s %5s %5s %s', 'JOB', 'queue', 'method', 'state', 'tries', 'age', 'run', 'error')
	UNION ALL
	SELECT 3, row_number() OVER (), format('%-36s %-10s %-12s %-14s %5s %5s %5s %s', id, queue, method, state, tries, age, run_time,
		qml.one_line(error, 22))
	FROM qml.recent
)
SELECT line AS "qml" FROM line WHERE n <= CASE part WHEN 2 THEN 10 ELSE 20 END ORDER BY part, n
\if :{?once}
	\g
\else
	\watch :interval
\endif
