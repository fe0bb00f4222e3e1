-- Redaction of random documents by random paths: what is shown is what a plain implementation of the
-- paths gives, and a search is refused, or finds what it finds for who sees everything.

\ir include/start.sql

DELETE FROM qml.live;
DELETE FROM qml.history;

CREATE ROLE t_monitor;
SELECT qml_create_queue('q');
SELECT qml_grant('t_monitor', 'monitor', 'q');

-- The document without what one path, of steps, leads to.
CREATE FUNCTION pg_temp.hide(document jsonb, steps text[]) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	hidden jsonb;
	key text;
	element jsonb;
	n int := 0;
BEGIN
	IF cardinality(steps) = 0 THEN
		RETURN '"***"';
	ELSIF jsonb_typeof(document) = 'object' THEN
		hidden := '{}';
		FOR key, element IN SELECT * FROM jsonb_each(document) LOOP
			hidden := hidden || jsonb_build_object(key,
				CASE WHEN steps[1] IN (key, '*') THEN pg_temp.hide(element, steps[2:]) ELSE element END);
		END LOOP;
		RETURN hidden;
	ELSIF jsonb_typeof(document) = 'array' THEN
		hidden := '[]';
		FOR element IN SELECT * FROM jsonb_array_elements(document) LOOP
			element := pg_temp.hide(element, steps);
			IF steps[1] IN (n::text, '*') THEN
				element := pg_temp.hide(element, steps[2:]);
			END IF;
			hidden := hidden || jsonb_build_array(element);
			n := n + 1;
		END LOOP;
		RETURN hidden;
	END IF;
	RETURN document;
END $$;

CREATE FUNCTION pg_temp.pick(VARIADIC choices text[]) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT choices[1 + floor(random() * cardinality(choices))::int]
$$;
CREATE FUNCTION pg_temp.document(depth int) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	kind text := pg_temp.pick('object', 'object', 'array', 'scalar');
	document jsonb;
BEGIN
	IF depth = 0 OR kind = 'scalar' THEN
		RETURN to_jsonb(floor(random() * 3)::int);
	END IF;
	document := CASE kind WHEN 'array' THEN '[]' ELSE '{}' END;
	FOR i IN 1 .. 1 + floor(random() * 3)::int LOOP
		document := document || CASE kind WHEN 'array' THEN jsonb_build_array(pg_temp.document(depth - 1))
			ELSE jsonb_build_object(pg_temp.pick('a', 'b', 'c', '0', '1'), pg_temp.document(depth - 1)) END;
	END LOOP;
	RETURN document;
END $$;
CREATE FUNCTION pg_temp.steps(any_step boolean) RETURNS text[] LANGUAGE sql VOLATILE AS $$
	SELECT array_agg(CASE WHEN any_step AND random() < 0.15 THEN '*' ELSE pg_temp.pick('a', 'b', 'c', '0', '1') END)
	FROM generate_series(1, 1 + floor(random() * 3)::int)
$$;

SELECT setseed(0.271828);
CREATE TEMP TABLE document AS SELECT n, pg_temp.document(4) AS payload FROM generate_series(1, 120) n;
SELECT qml_enqueue('m', payload, 'q', metadata => jsonb_build_object('n', n)) IS NOT NULL FROM document ORDER BY n;

CREATE TABLE public.shown (payload jsonb, n int);
GRANT INSERT ON public.shown TO PUBLIC;
CREATE TEMP TABLE tried (redact jsonb, query text, state text, same boolean);
CREATE TEMP TABLE wrong (redact jsonb, document jsonb, shown jsonb, expected jsonb);
DO $$
DECLARE
	options jsonb;
	query text;
	mine record;
	theirs record;
BEGIN
	FOR i IN 1 .. 60 LOOP
		CREATE TEMP TABLE path AS SELECT pg_temp.steps(true) AS steps FROM generate_series(1, 1 + i % 3);
		SELECT jsonb_build_object('redact', jsonb_agg('payload.' || array_to_string(steps, '.'))) INTO options FROM path;
		PERFORM qml_alter_queue('q', options);
		CREATE TEMP TABLE expected AS SELECT n, payload FROM document;
		FOR mine IN SELECT steps FROM path LOOP
			UPDATE expected SET payload = pg_temp.hide(payload, mine.steps);
		END LOOP;
		TRUNCATE public.shown;
		SET LOCAL ROLE t_monitor;
		INSERT INTO public.shown SELECT payload, (metadata->>'n')::int FROM qml.job;
		RESET ROLE;
		INSERT INTO wrong SELECT options, d.payload, s.payload, e.payload
			FROM document d JOIN expected e USING (n) LEFT JOIN public.shown s USING (n) WHERE s.payload IS DISTINCT FROM e.payload;
		FOR j IN 1 .. 25 LOOP
			query := pg_temp.pick('', '-') || 'payload.' || array_to_string(pg_temp.steps(false), '.')
				|| pg_temp.pick(':0', ':1', ':>0', ':"***"', ':1|2', ':"[1]"', ':"{""a"": 1}"', ':01');
			query := replace(query, '""', '\"');
			SELECT * INTO theirs FROM pg_temp.try('t_monitor', format('SELECT string_agg(id::text, %L) FROM qml_search(%L, 1000)', ' ', query));
			SELECT * INTO mine FROM pg_temp.try(NULL, format('SELECT string_agg(id::text, %L) FROM qml_search(%L, 1000)', ' ', query));
			INSERT INTO tried VALUES (options, query, theirs.state, theirs.value IS NOT DISTINCT FROM mine.value);
		END LOOP;
		DROP TABLE path, expected;
	END LOOP;
END $$;
SELECT is_empty('TABLE wrong', 'documents are shown as a plain implementation of the paths hides them');
SELECT is_empty($$SELECT * FROM tried WHERE state NOT IN ('00000', '42501')$$, 'queries are answered or refused');
SELECT is_empty($$SELECT * FROM tried WHERE state = '00000' AND NOT same$$, 'what is not refused finds what it finds for who sees everything');
SELECT cmp_ok((SELECT count(*)::int FROM tried WHERE state = s), '>', 200, 'many end with ' || s) FROM unnest('{00000,42501}'::text[]) s;

SELECT * FROM finish();
ROLLBACK;
