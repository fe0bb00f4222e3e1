-- One transaction: every line of the log becomes a job, or none does.  Each third
-- line is for the handler inside the database (handler.sql), the others are for the
-- psql sessions (work.sql).  Each tenth job is delayed by two to five seconds, and
-- its metadata tell when it is due.  The log is this psql's standard input.

\set ON_ERROR_STOP on

BEGIN;

CREATE TEMP TABLE lines (
	n int GENERATED ALWAYS AS IDENTITY,
	line text NOT NULL
) ON COMMIT DROP;

-- Delimiter and quote that no line contains, so that lines come in as they are.
\copy lines (line) FROM pstdin WITH (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02')

SELECT count(qml_enqueue(method, jsonb_build_object('line_no', n, 'line', line),
                         queue => queue, run_at => due, max_retries => 2,
                         metadata => CASE WHEN due IS NOT NULL THEN jsonb_build_object('due', due) END))
           AS jobs_enqueued,
       count(*) FILTER (WHERE queue = 'access_log') AS for_psql,
       count(*) FILTER (WHERE queue = 'traffic') AS for_the_handler,
       count(due) AS delayed
FROM (
	SELECT n, line,
	       CASE WHEN n % 3 = 0 THEN 'count_traffic' ELSE 'parse_line' END AS method,
	       CASE WHEN n % 3 = 0 THEN 'traffic' ELSE 'access_log' END AS queue,
	       CASE WHEN n % 10 = 0 THEN clock_timestamp() + (2 + n / 10 % 4) * interval '1 second' END AS due
	FROM lines
	OFFSET 0 -- so that the clock is read once a line
) jobs;

COMMIT;
