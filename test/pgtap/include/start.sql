-- What every file begins with: a transaction that is rolled back at the end, the
-- extensions, and the functions that try a call as another role.

SET client_min_messages = warning;
SET statement_timeout = '1min';
BEGIN;
CREATE SCHEMA IF NOT EXISTS tap;
CREATE EXTENSION IF NOT EXISTS pgtap SCHEMA tap;
CREATE EXTENSION IF NOT EXISTS qml;
SET LOCAL search_path = public, tap;
SELECT * FROM no_plan();

-- The types that come with a relation or another type: from version 17 on they are
-- members of the extension like the others.
CREATE TEMP VIEW implied_type AS
	SELECT t.oid FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
	WHERE c.relkind <> 'c' OR EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid);

-- Makes a call as a role, or as whoever calls when that is NULL, and undoes what
-- it did; its value comes out, or its SQLSTATE.
CREATE FUNCTION pg_temp.try(role name, call text, OUT state text, OUT value text) LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		IF role IS NOT NULL THEN
			EXECUTE format('SET LOCAL ROLE %I', role);
		END IF;
		IF call ~* '^\s*(select|values|table|with)\M' THEN
			EXECUTE call INTO value;
		ELSE
			EXECUTE call;
		END IF;
		RAISE EXCEPTION USING errcode = 'T0000';
	EXCEPTION WHEN OTHERS THEN
		state := CASE sqlstate WHEN 'T0000' THEN '00000' ELSE sqlstate END;
	END;
END $$;

-- One assertion about such a call: a bare SQLSTATE, or the value after "=".
CREATE FUNCTION pg_temp.ends(role name, call text, expected text, description text) RETURNS text LANGUAGE sql AS $$
	SELECT is(CASE WHEN expected LIKE '=%' AND state = '00000' THEN '=' || coalesce(value, 'NULL') ELSE state END,
		expected, description)
	FROM pg_temp.try(role, call)
$$;
