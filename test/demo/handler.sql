-- A handler: a function that qml's workers call inside the server, as the role
-- web_stats, for each job of the method count_traffic.
--
-- It sums up what each host was sent.  The same lines are in trouble as in work.sql:
-- one that cannot be parsed fails for good, a status of 5xx is looked at again, the
-- endless report fails until no retry is left.  An error undoes what its attempt wrote.

\set ON_ERROR_STOP on

CREATE ROLE web_stats LOGIN;
CREATE SCHEMA web_stats AUTHORIZATION web_stats;
SET ROLE web_stats;

CREATE TABLE web_stats.host (
	ip inet PRIMARY KEY,
	requests int NOT NULL,
	bytes bigint NOT NULL
);

CREATE FUNCTION web_stats.count_traffic(line_no int, line text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m text[] := regexp_match(line, '^(\S+) - - \[([^]]+)\] "([A-Z]+) (\S+) HTTP/1\.1" (\d{3}) (\d+)$');
BEGIN
	IF m IS NULL THEN
		RAISE EXCEPTION 'line % is not in the log format', line_no USING ERRCODE = 'data_exception';
	END IF;

	INSERT INTO web_stats.host AS h VALUES (m[1]::inet, 1, m[6]::int)
	ON CONFLICT (ip) DO UPDATE SET requests = h.requests + 1, bytes = h.bytes + excluded.bytes;

	IF m[4] = '/reports/endless' THEN
		RAISE EXCEPTION 'the report did not come';
	ELSIF m[5] LIKE '5%' AND (qml_current_job()).error IS NULL THEN
		RAISE EXCEPTION 'status %, looking again later', m[5];
	END IF;
	RETURN jsonb_build_object('status', m[5]::int, 'bytes', m[6]::int);
END
$$;

RESET ROLE;

-- data_exception is 22000.
SELECT qml_register('count_traffic', 'web_stats.count_traffic',
                    '{"run_as": "web_stats", "non_retryable": ["22000"]}');
