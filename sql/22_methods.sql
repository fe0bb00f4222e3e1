--
-- Which jobs a worker outside the database gets: those of the methods that it names, or all
-- that have no handler.  And how queues are named.
--
SELECT t.reset();

-- Only jobs of these methods, in the order of all others
SELECT count(qml_enqueue(m, id => t.id(n), priority => p))
FROM (VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 5), (4, 'b', 5), (5, 'a', -1), (6, 'd', 0), (7, 'ab', 0), (8, 'b', 0)) v (n, m, p);
SELECT t.n(id), method FROM qml_fetch('w', methods => '{b}');
SELECT t.n(id), method FROM qml_fetch('w', batch => 10, methods => '{a,nosuch,d,a}');
SELECT t.n(id), method FROM qml_fetch('w', batch => 10, methods => ARRAY['nosuch', 'B', 'b b'] || array_fill('x'::text, ARRAY[1000]));
SELECT t.n(id), method FROM qml_fetch('w', batch => 1, methods => ARRAY['b']);
SELECT t.n(id), method FROM qml_fetch('w', batch => 1, methods => ARRAY['b']);
SELECT count(*) FROM qml_fetch('w', batch => 1, methods => ARRAY['b']);
SELECT t.n(id), method FROM qml_fetch('w', batch => 10, methods => NULL);
-- A method among many, whatever its length
SELECT t.reset();
SELECT count(qml_enqueue(left(repeat('ü', 255), n), id => t.id(n))) FROM generate_series(1, 255) n;
SELECT string_agg(t.n(id)::text, ' ' ORDER BY id) FROM qml_fetch('w', batch => 300, methods => (SELECT array_agg(left(repeat('ü', 255), n)) FROM generate_series(255, 1, -50) n));
-- In several queues, in turn
SELECT t.reset();
SELECT count(qml_enqueue(CASE WHEN n < 3 THEN 'other' ELSE 'mine' END, id => t.id(q * 100 + n), queue => 'q' || q)) FROM generate_series(1, 3) q, generate_series(1, 4) n;
SELECT t.n(id) FROM qml_fetch('w', '{q3,q1}', 3, methods => '{mine}');
SELECT t.n(id) FROM qml_fetch('w', batch => 100, methods => '{mine}');
SELECT count(*) FROM qml_fetch('w', batch => 100, methods => '{mine}');
SELECT count(*) FROM qml_fetch('w', batch => 100);

-- A long backlog of others: more than the rows that a position stays behind
SELECT t.reset();
SELECT count(*) FROM qml_enqueue_many('other', array_fill('1'::jsonb, ARRAY[3000]));
SELECT count(*) FROM qml_enqueue_many('mine', array_fill('1'::jsonb, ARRAY[10]));
CREATE FUNCTION t.mine(batch int DEFAULT 100) RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM qml_fetch('w', batch => batch, methods => '{mine}') $$;
SELECT t.mine(4), t.mine(), t.mine();
-- ... what comes in behind it, or with a higher priority, is found at once
SELECT qml_enqueue('mine') IS NOT NULL, qml_enqueue('mine', priority => 1) IS NOT NULL, qml_enqueue('mine', priority => -1) IS NOT NULL;
SELECT priority FROM qml_fetch('w', batch => 1, methods => '{mine}');
SELECT priority FROM qml_fetch('w', batch => 2, methods => '{mine}');
-- ... also what an undone claim gives back
SELECT count(*) FROM qml_enqueue_many('mine', array_fill('1'::jsonb, ARRAY[600]));
BEGIN;
SELECT t.mine(599);
SAVEPOINT s;
SELECT t.mine();
ROLLBACK TO s;
SELECT t.mine();
ROLLBACK;
SELECT t.mine(1000);
-- ... and with the id of an earlier job, after some more calls
SELECT count(*) FROM qml_enqueue_many('other', array_fill('1'::jsonb, ARRAY[3000]));
SELECT t.mine();
SELECT qml_enqueue('mine', id => t.id(1)) IS NOT NULL;
SELECT sum(t.mine()) FROM generate_series(1, 70);
-- ... by another filter nothing is passed over
SELECT count(*) FROM qml_fetch('w', batch => 1, methods => '{mine,other}');
SELECT count(*) FROM qml_fetch('w', batch => 10000);
SELECT count(*) FROM qml_fetch('w');
-- ... nor by a session that uses more positions than there is room for
SELECT t.reset();
SELECT count(*) FROM generate_series(1, 70) p, qml_enqueue_many('other', array_fill('1'::jsonb, ARRAY[800]), priority => p);
SELECT qml_enqueue('mine', priority => -1) IS NOT NULL, qml_enqueue('mine', priority => 35) IS NOT NULL;
SELECT priority FROM qml_fetch('w', batch => 1, methods => '{mine}');
SELECT priority FROM qml_fetch('w', batch => 1, methods => '{mine}');
SELECT t.mine();
SELECT qml_enqueue('mine', priority => p) IS NOT NULL FROM unnest('{3,70}'::int[]) p;
SELECT priority FROM qml_fetch('w', batch => 9, methods => '{mine}');
DROP FUNCTION t.mine;

-- Jobs of methods that have a handler are left to it, unless they are named; said once
SELECT t.reset();
CREATE FUNCTION t.inside(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT qml_register_handler('inside', 't.inside(jsonb)');
SELECT count(qml_enqueue(CASE WHEN n % 2 = 0 THEN 'inside' ELSE 'outside' END, id => t.id(n))) FROM generate_series(1, 8) n;
SELECT t.n(id) FROM qml_fetch('w', batch => 3);
SELECT t.n(id) FROM qml_fetch('w', batch => 3);
SELECT t.n(id) FROM qml_fetch('w', methods => '{inside,outside}');
SELECT t.n(id) FROM qml_fetch('w', methods => '{inside}');
SELECT count(*) FROM qml_fetch('w');
-- ... also if it cannot run
DROP FUNCTION t.inside;
SELECT problem IS NOT NULL AS broken FROM qml.handler;
SELECT count(*) FROM qml_fetch('w');
-- ... as long as there is one
BEGIN;
SELECT qml_unregister_handler('inside');
SELECT t.n(id) FROM qml_fetch('w');
ROLLBACK;
SELECT count(*) FROM qml_fetch('w');
SELECT qml_unregister_handler('inside');
SELECT t.n(id) FROM qml_fetch('w', batch => 9);

-- What is no list of methods
SELECT sql, t.try(sql) FROM unnest(ARRAY[
	'SELECT qml_fetch(methods => ''{}'')', 'SELECT qml_fetch(methods => ''{a,NULL}'')', 'SELECT qml_fetch(methods => ''{{a,b}}'')',
	'SELECT qml_fetch(methods => ''a'')', 'SELECT qml_fetch(methods => ARRAY[repeat(''x'', 256)])', 'SELECT qml_fetch(methods => ARRAY[''''])',
	'SELECT qml_fetch(methods => ARRAY[E''a\nb''])'
]) WITH ORDINALITY s (sql, n) ORDER BY n;

-- Queues: an array of names, or a text.  A text that begins with a brace is an array literal
SELECT t.reset();
CREATE DOMAIN t.word AS text;
CREATE DOMAIN t.words AS text[];
CREATE PROCEDURE t.fill() LANGUAGE sql AS $$
	SELECT t.reset();
	SELECT qml_enqueue('m', queue => q) FROM unnest('{mail,sms,"{x","a,b"}'::text[]) q;
$$;
-- Each form gets the jobs of which queues
CREATE PROCEDURE t.forms(forms text[]) LANGUAGE plpgsql AS $$
DECLARE
	form text;
	got text;
BEGIN
	FOREACH form IN ARRAY forms LOOP
		CALL t.fill();
		BEGIN
			EXECUTE format('SELECT string_agg(queue, '' '' ORDER BY queue) FROM %s', form) INTO got;
		EXCEPTION WHEN OTHERS THEN
			got := format('%s: %s', SQLSTATE, SQLERRM);
		END;
		RAISE NOTICE '% -> %', form, got;
	END LOOP;
END $$;
\set VERBOSITY terse
\set SHOW_CONTEXT never
CALL t.forms(ARRAY[
	'qml_fetch(''w'', ''mail'', 9)', 'qml_fetch(''w'', ''{mail,sms}'', 9)', 'qml_fetch(''w'', '' {mail}'', 9)', 'qml_fetch(''w'', ARRAY[''mail'', ''sms''], 9)',
	'qml_fetch(''w'', ''mail'')', 'qml_fetch(''w'', ''{mail}'')', 'qml_fetch(''w'', NULL, 9)', 'qml_fetch()', 'qml_fetch(''w'')', 'qml_fetch(batch => 9)',
	'qml_fetch(queues => ''mail'')', 'qml_fetch(queues => ''{sms,mail}'')', 'qml_fetch(queues => ARRAY[''mail''])', 'qml_fetch(queues => NULL, batch => 9)',
	'qml_fetch(queues => NULL::text, batch => 9)', 'qml_fetch(queues => NULL::text[], batch => 9)', 'qml_fetch(queues => ''mail''::text, methods => ''{m}'')',
	'qml_fetch(''w'', ''mail''::varchar)', 'qml_fetch(''w'', ''mail''::varchar(20))', 'qml_fetch(''w'', ''mail''::name)', 'qml_fetch(''w'', ''mail''::char(20))', 'qml_fetch(''w'', ''mail''::t.word)', 'qml_fetch(''w'', ''{mail}''::t.word)',
	'qml_fetch(''w'', ''{mail}''::varchar[])', 'qml_fetch(''w'', ''{mail}''::name[])', 'qml_fetch(''w'', ''{mail}''::char(20)[])', 'qml_fetch(''w'', ''{mail}''::t.words)', 'qml_fetch(''w'', ARRAY[''mail''::t.word]::text[])',
	'qml_fetch(''w'', ''a,b'', 9)', 'qml_fetch(''w'', ''{"a,b"}'', 9)', 'qml_fetch(''w'', ARRAY[''{x''], 9)', 'qml_fetch(''w'', ''{"{x"}'', 9)',
	'qml_fetch(''w'', ''nosuch'')', 'qml_fetch(''w'', ''[1:1]={mail}'')',
	'qml_fetch(''w'', ''{x'')', 'qml_fetch(''w'', '''')', 'qml_fetch(''w'', ''{}'')', 'qml_fetch(''w'', ''{mail,NULL}'')', 'qml_fetch(''w'', ''{{mail},{sms}}'')', 'qml_fetch(''w'', ''qml.hooks'')', 'qml_fetch(''w'', ''{qml.hooks}'')',
	'qml_fetch(''w'', repeat(''x'', 129))', 'qml_fetch(''w'', E''a\tb'')', 'qml_fetch(''w'', 5)', 'qml_fetch(''w'', NULL::int)', 'qml_fetch(''w'', ''{1}''::int[])', 'qml_fetch(''w'', ''["mail"]''::jsonb)', 'qml_fetch(''w'', t.id(1))'
]);
\set VERBOSITY default
-- Parameters: whose type the server finds, and typed ones
PREPARE found AS SELECT queue FROM qml_fetch($1, $2, $3);
PREPARE named AS SELECT queue FROM qml_fetch(queues => $1, methods => $2, batch => $3);
PREPARE texts(text, text) AS SELECT queue FROM qml_fetch($1, $2);
PREPARE varchars(varchar, varchar) AS SELECT queue FROM qml_fetch($1, $2);
PREPARE arrays(text, text[]) AS SELECT queue FROM qml_fetch($1, $2, 9);
SELECT name, parameter_types FROM pg_prepared_statements ORDER BY name;
CALL t.fill();
EXECUTE found('w', 'mail', 9);
EXECUTE found('w', '{sms,mail}', 9);
EXECUTE found('w', NULL, 9);
CALL t.fill();
EXECUTE named('{mail,sms}', '{m}', 9);
EXECUTE named('a,b', NULL, 9);
CALL t.fill();
EXECUTE texts('w', 'mail');
EXECUTE texts('w', '{mail,sms}');
EXECUTE varchars(NULL, 'a,b');
EXECUTE varchars('w', '{"{x"}');
CALL t.fill();
EXECUTE arrays('w', ARRAY['sms', 'mail']);
EXECUTE arrays('w', '{"{x"}');
EXECUTE arrays('w', NULL);
DEALLOCATE ALL;
-- In PL/pgSQL, and in views
CALL t.fill();
DO $$
DECLARE
	one text := 'mail';
	several text[] := '{sms,"a,b"}';
BEGIN
	RAISE NOTICE '% %', (SELECT count(*) FROM qml_fetch('w', one)), (SELECT count(*) FROM qml_fetch('w', several, 9));
END $$;
CALL t.fill();
CREATE VIEW t.next AS SELECT queue FROM qml_fetch('w', 'mail');
SELECT * FROM t.next;
DROP VIEW t.next;
-- The same where queues are named elsewhere
SELECT qml_register_server('s', 1, 'mail') IS NOT NULL, qml_register_server('s', queues => '{a,b}') IS NOT NULL, qml_register_server('s', queues => ARRAY['c']) IS NOT NULL, qml_register_server('s') IS NOT NULL;
SELECT queues FROM qml.server ORDER BY 1;
SELECT t.code('SELECT qml_register_server(''s'', 1, 5)'), t.code('SELECT qml_register_server(''s'', 1, ''{}'')');

DROP PROCEDURE t.fill, t.forms;
DROP DOMAIN t.word, t.words;
SELECT t.reset();
