--
-- Commands: which statements can run the jobs of a method, and what is refused when they are
-- registered.  Nothing runs a job here, because the server does not preload qml.
--
SELECT t.reset();
CREATE ROLE regress_qml_admin LOGIN;
CREATE ROLE regress_qml_app LOGIN;
CREATE ROLE regress_qml_nologin;
CREATE SCHEMA c;
GRANT USAGE ON SCHEMA c, t TO PUBLIC;
-- What the registration of a statement ends with.
CREATE FUNCTION c.put(command text, options jsonb DEFAULT '{}') RETURNS text LANGUAGE sql
AS $$ SELECT t.try(format('SELECT qml_register_command(%L, %L, %L)', 'm', command, options)) $$;

-------------------------------------------------------------------------------
-- One statement
-------------------------------------------------------------------------------

SELECT command, c.put(command) FROM unnest(ARRAY['VACUUM', 'vacuum (freeze) no.such_table;', '/* all */ REINDEX DATABASE CONCURRENTLY x -- now', 'CREATE DATABASE x', 'SELECT 1',
	'CALL p(1)', 'DO $x$ BEGIN END $x$', 'EXPLAIN SELECT 1', 'SHOW work_mem', 'NOTIFY x', 'CHECKPOINT', 'REFRESH MATERIALIZED VIEW x', 'COPY t TO ''/tmp/x''', 'COPY t FROM PROGRAM ''x''',
	'INSERT INTO t VALUES ('';'')', 'CREATE TEMP TABLE t (i int)', 'ALTER SYSTEM SET work_mem = 1', 'GRANT a TO b']) command;
SELECT method, function, command, options, registered_by = current_user AS registered_by, problem FROM qml.handler;
SELECT command, c.put(command) FROM unnest(ARRAY['', ' ', ';', '-- nothing', 'SELECT 1; SELECT 2', 'SELECT 1;; SELECT 2;', 'VACUM t', 'SELECT ''x', 'SELECT $1 +']) command;
SELECT command, c.put(command) FROM unnest(ARRAY['BEGIN', 'START TRANSACTION', 'COMMIT', 'END', 'ROLLBACK', 'ABORT', 'SAVEPOINT s', 'RELEASE s', 'ROLLBACK TO s', 'PREPARE TRANSACTION ''x''',
	'COMMIT PREPARED ''x''', 'ROLLBACK PREPARED ''x''', 'LISTEN x', 'UNLISTEN *', 'COPY t TO STDOUT', 'COPY t FROM STDIN', 'COPY (SELECT 1) TO STDOUT', 'PREPARE p AS SELECT 1', 'EXECUTE p',
	'DEALLOCATE ALL', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'FETCH c', 'MOVE c', 'CLOSE ALL', 'LOCK TABLE t', 'SET CONSTRAINTS ALL DEFERRED', 'SET work_mem = 1', 'SET LOCAL work_mem = 1',
	'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'RESET ALL', 'SET TRANSACTION READ ONLY', 'DISCARD ALL', 'LOAD ''x''']) command;
-- An error of the text is shown within the text.
SELECT qml_register_command('m', 'VACUM t');
SELECT qml_register_command('m', 'SELECT 1; VACUUM');
SELECT qml_register_command('m', 'LISTEN x');
-- It does not depend on the session how the text is read.
SET standard_conforming_strings = off;
SELECT c.put($$SELECT 'a\', 'b'$$), c.put($$SELECT 'a\'', 'b'; SELECT '$$);
RESET standard_conforming_strings;

SELECT t.try('SELECT qml_register_command(NULL, ''VACUUM'')'), t.try('SELECT qml_register_command(''m'', NULL)'), t.try('SELECT qml_register_command(''m'', ''VACUUM'', NULL)'),
	t.try('SELECT qml_register_command('''', ''VACUUM'')');
SELECT c.put('SELECT ' || repeat('1', 65529)), c.put('SELECT ' || repeat('1', 65530));

-------------------------------------------------------------------------------
-- Options, and jobs
-------------------------------------------------------------------------------

SELECT options, c.put('VACUUM', options) FROM unnest(ARRAY['{"middleware": true}', '{"middleware": false}', '{"middleware": null}', '{"nonesuch": 1}', '{"kind": "command"}', '{"max_retries": -1}',
	'{"run_as": "regress_qml_nobody"}', '{"run_as": "regress_qml_nologin"}', '{"queue": "night", "max_retries": 2, "timeout": "3 hours", "concurrency": 1, "non_retryable": ["42P01"], "retry": {"strategy": "fixed"}}']::jsonb[]) options;
SELECT state, queue, max_retries, timeout FROM qml_job(qml_enqueue('m'));
SELECT state, queue, max_retries, timeout FROM qml_job(qml_enqueue('m', max_retries => 5, timeout => '1 min', queue => 'other'));
SELECT qml_register_command('m', 'VACUUM');
SELECT method, function, command, options FROM qml.handler;
-- No retries, unless somebody says so.
SELECT qml_create_queue('retried', '{"max_retries": 9}');
SELECT queue, max_retries FROM qml_job(qml_enqueue('m')) UNION ALL SELECT queue, max_retries FROM qml_job(qml_enqueue('m', queue => 'retried'))
	UNION ALL SELECT queue, max_retries FROM qml_job(qml_enqueue('m', queue => 'retried', max_retries => 1));
-- No payload.
SELECT qml_enqueue('m', '{"a": 1}');
SELECT payload, t.code(format('SELECT qml_enqueue(%L, %L)', 'm', payload)) FROM unnest(ARRAY['[]', 'null', '1', '"x"', '{"a": null}']::jsonb[]) payload;
SELECT t.try($$SELECT count(*) FROM qml_enqueue_many('m', '{"{}","1"}')$$), t.try($$SELECT qml_schedule_recurring('r', '@daily', 'm', '{"a": 1}')$$);
SELECT qml_schedule_recurring('r', '@daily', 'm') > now() AS ahead;
-- A function takes its place, and the other way round.
CREATE FUNCTION c.f(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
-- A number that was the default of a queue or a function asks for no retry of a command.
SELECT count(qml_enqueue('before', '{"a": 1}', id => t.id(91))), count(qml_enqueue('before', '{"a": 1}', max_retries => 3, id => t.id(92)));
SELECT qml_register_handler('before', 'c.f', '{"max_retries": 4}');
SELECT count(qml_enqueue('before', '{"a": 1}', id => t.id(93)));
CREATE VIEW c.retries AS SELECT t.n(v.id), v.max_retries, v.retries_left, j.retries_left IS DISTINCT FROM v.retries_left OR j.max_retries IS DISTINCT FROM v.max_retries AS differs
	FROM qml.job v CROSS JOIN LATERAL qml_job(v.id) j WHERE v.method = 'before' ORDER BY v.id;
TABLE c.retries;
SELECT qml_register_command('before', 'VACUUM');
SELECT count(qml_enqueue('before', id => t.id(94))), count(qml_enqueue('before', max_retries => 1, id => t.id(95)));
TABLE c.retries;
SELECT qml_register_command('before', 'VACUUM', '{"max_retries": 2}');
SELECT count(qml_enqueue('before', id => t.id(96)));
TABLE c.retries;
SELECT qml_register_command('before', 'VACUUM', '{"retry": {"strategy": "none"}}');
SELECT sum(retries_left), bool_or(differs) FROM c.retries;
SELECT qml_register_command('before', 'VACUUM');
TABLE c.retries;
SELECT qml_unregister_handler('before');
TABLE c.retries;
SELECT qml_register_handler('m', 'c.f', '{"queue": "q"}');
SELECT method, function, command, options FROM qml.handler;
SELECT t.try($$SELECT qml_enqueue('m', '{}')$$), max_retries FROM qml_job(qml_enqueue('m', '{"a": 1}'));
SELECT qml_register_command('m', 'ANALYZE');
SELECT method, function, command, options FROM qml.handler;
SELECT qml_unregister_handler('m');
SELECT count(*) FROM qml.handler;
BEGIN;
SELECT qml_register_command('m', 'ANALYZE');
ROLLBACK;
SELECT max_retries FROM qml_job(qml_enqueue('m', '{"a": 1}'));

-------------------------------------------------------------------------------
-- Rights
-------------------------------------------------------------------------------

SELECT qml_grant('regress_qml_admin', 'admin'), qml_grant('regress_qml_app', 'monitor');
GRANT EXECUTE ON FUNCTION c.put TO regress_qml_admin, regress_qml_app;
SET ROLE regress_qml_app;
SELECT t.try($$SELECT qml_register_command('m', 'VACUUM')$$);
SET ROLE regress_qml_admin;
SELECT qml_register_command('m', 'VACUUM'), c.put('VACUUM', '{"run_as": "regress_qml_app"}');
SELECT c.put('VACUUM', format('{"run_as": "%s"}', (SELECT rolname FROM pg_roles WHERE oid = 10))::jsonb) ~ '^42501' AS superuser_refused;
SELECT method, command, run_as, problem FROM qml.handler;
RESET ROLE;
GRANT regress_qml_app TO regress_qml_admin;
SET ROLE regress_qml_admin;
SELECT qml_register_command('of_app', 'ANALYZE', '{"run_as": "regress_qml_app"}');
-- The text is for those who may run it themselves.
SELECT method, command FROM qml.handler ORDER BY method;
SET ROLE regress_qml_app;
SELECT method, command FROM qml.handler ORDER BY method;
RESET ROLE;
REVOKE regress_qml_app FROM regress_qml_admin;
SELECT method, problem FROM qml.handler ORDER BY method;
-- Roles that go.
SELECT * FROM qml_drop_role_objects('regress_qml_app');
SELECT method FROM qml.handler;
DROP OWNED BY regress_qml_admin;
SELECT method, problem FROM qml.handler ORDER BY method;
SELECT state FROM qml_job(qml_enqueue('m'));

-- A row that was edited by hand.
UPDATE qml.handler_data SET command = 'SELECT 1; COMMIT', options = '[]' WHERE method = 'm';
SET client_min_messages = error;
SELECT max_retries FROM qml_job(qml_enqueue('m'));
RESET client_min_messages;
UPDATE qml.handler_data SET command = '' WHERE method = 'm';
SELECT function, command FROM qml.handler;
SELECT qml_unregister_handler('m');

SELECT t.reset();
DROP SCHEMA c CASCADE;
DROP OWNED BY regress_qml_admin, regress_qml_app;
DROP ROLE regress_qml_admin, regress_qml_app, regress_qml_nologin;
