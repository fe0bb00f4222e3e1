-- One transaction: every line of the log becomes a job, or none does.
-- The log is this psql's standard input.

\set ON_ERROR_STOP on

BEGIN;

CREATE TEMP TABLE lines (
	n int GENERATED ALWAYS AS IDENTITY,
	line text NOT NULL
) ON COMMIT DROP;

-- Delimiter and quote that no line contains, so that lines come in as they are.
\copy lines (line) FROM pstdin WITH (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02')

SELECT count(qml_enqueue('parse_line', jsonb_build_object('line_no', n, 'line', line),
                         queue => 'access_log', max_retries => 2)) AS jobs_enqueued
FROM lines;

COMMIT;
