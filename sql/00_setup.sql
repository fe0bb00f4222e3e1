--
-- The extension, and what the other tests use to look at it.  Output must not
-- hold ids that were generated, times or process numbers.
--
-- What depends on the server, or would be said in each test.
SET qml.new_queues = quiet;
SET qml.warn_idle = off;
DO $$
BEGIN
	EXECUTE format('ALTER DATABASE %I SET qml.new_queues = quiet', current_database());
	EXECUTE format('ALTER DATABASE %I SET qml.warn_idle = off', current_database());
END $$;
CREATE EXTENSION qml;
SELECT extversion, extnamespace::regnamespace, extrelocatable
FROM pg_extension WHERE extname = 'qml';

CREATE SCHEMA t;

-- Ids of tests: short, and in order of their numbers.
CREATE FUNCTION t.id(n int) RETURNS uuid LANGUAGE sql IMMUTABLE
AS $$ SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;

-- How long a finished job is kept, without what was added to its time to live so that jobs
-- expire together (src/core/retention.c).
CREATE FUNCTION t.ttl(finished_at timestamptz, expires_at timestamptz) RETURNS interval LANGUAGE sql IMMUTABLE AS $$
	SELECT justify_hours(floor(k / step) * step * interval '1 s')
	FROM extract(epoch FROM $2 - $1) k,
		LATERAL (SELECT coalesce(max(s), 1) FROM unnest('{86400,21600,3600,900,300,60,15,5}'::int[]) s WHERE s <= k / 60) x (step)
$$;
CREATE FUNCTION t.n(id uuid) RETURNS int LANGUAGE sql IMMUTABLE
AS $$ SELECT right(id::text, 12)::int $$;

-- An empty queue system, as if just created.
CREATE FUNCTION t.drop_leaves() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	leaf regclass;
BEGIN
	FOR leaf IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'qml.history'::regclass
	LOOP
		EXECUTE format('DROP TABLE %s', leaf);
	END LOOP;
END $$;
CREATE FUNCTION t.reset() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	TRUNCATE qml.live, qml.history_overflow, qml.live_unlogged, qml.history_unlogged, qml.history_unlogged_overflow, qml.lock_data, qml.acl_data, qml.recurring_data, qml.occurrence_data, qml.server_data, qml.handler_data, qml.hook_data, qml.middleware_data;
	DELETE FROM qml.queue_data;
	PERFORM t.drop_leaves();
END $$;

-- Runs a statement: 'ok', or the error without places in the source.
CREATE FUNCTION t.try(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE sql;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN state || ': ' || message ||
		CASE WHEN detail <> '' THEN E'\n  detail: ' || detail ELSE '' END ||
		CASE WHEN hint <> '' THEN E'\n  hint: ' || hint ELSE '' END;
END $$;

-- The same, the SQLSTATE alone; what the statement returned when it is right.
CREATE FUNCTION t.code(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	value text;
BEGIN
	EXECUTE sql INTO value;
	RETURN COALESCE(value, '-');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

-- All that qml stores, as one value: equal before and after what must not change anything.
CREATE FUNCTION t.everything() RETURNS text LANGUAGE sql AS $$
	SELECT md5(string_agg(x, '' ORDER BY x)) FROM (
		SELECT l::text FROM qml.live l UNION ALL SELECT h::text FROM qml.history h UNION ALL SELECT v::text FROM qml.history_overflow v
		UNION ALL SELECT q::text FROM qml.queue_data q UNION ALL SELECT k::text FROM qml.lock_data k
		UNION ALL SELECT a::text FROM qml.acl_data a
		UNION ALL SELECT r::text FROM qml.recurring_data r UNION ALL SELECT o::text FROM qml.occurrence_data o
		UNION ALL SELECT s::text FROM qml.server_data s UNION ALL SELECT h::text FROM qml.handler_data h
		UNION ALL SELECT h::text FROM qml.hook_data h UNION ALL SELECT m::text FROM qml.middleware_data m
		UNION ALL SELECT p::text FROM qml.pause_data p
		UNION ALL SELECT a::text FROM qml.audit_data a UNION ALL SELECT a::text FROM qml.audit_overflow a
		UNION ALL SELECT i.inhrelid::text FROM pg_inherits i
		WHERE i.inhparent = 'qml.history'::regclass) s (x)
$$;

-- A job in the state asked for, in a queue of its own, brought there by qml's functions.  None of them
-- leads to awaiting_parents.
CREATE FUNCTION t.make(job uuid, wanted text, queue text DEFAULT 'made') RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	attempt int;
BEGIN
	PERFORM qml_enqueue('m', id => job, queue => queue,
		run_at => CASE WHEN wanted = 'scheduled' THEN now() + interval '1 h' END);
	IF wanted IN ('processing', 'awaiting_retry', 'succeeded', 'failed') THEN
		SELECT f.attempt INTO STRICT attempt FROM qml_fetch('w', ARRAY[queue]) f;
	END IF;
	CASE wanted
		WHEN 'awaiting_retry' THEN PERFORM qml_fail(job, attempt, 'e', retry_at => now() + interval '1 h');
		WHEN 'succeeded' THEN PERFORM qml_succeed(job, attempt);
		WHEN 'failed' THEN PERFORM qml_fail(job, attempt, 'e', retry => false);
		WHEN 'deleted' THEN PERFORM qml_delete(job);
		WHEN 'awaiting_parents' THEN UPDATE qml.live SET state = 'awaiting_parents', run_at = 'infinity' WHERE id = job;
		ELSE NULL;
	END CASE;
	IF (qml_job(job)).state::text <> wanted THEN
		RAISE 'job is %, not %', (qml_job(job)).state, wanted;
	END IF;
	RETURN attempt;
END $$;
