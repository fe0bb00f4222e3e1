--
-- Hints: what was probably meant by a name that is not known, and what is allowed instead.
--
SELECT t.reset();
\pset format unaligned
\pset tuples_only on

-- Options, also members of the retry policy, in and out of their place
SELECT t.try(format('SELECT qml_create_queue(''q'', %L)', options)) FROM unnest(ARRAY['{"time_out": 1}', '{"max_retry": 1}', '{"MAX_RETRIES": 1}', '{"delay": 1}', '{"strategi": "none"}', '{"retry": {"dealy": 1}}', '{"retry": {"timeout": 1}}',
	'{"retry": 5}', '{"retry": []}', '{"priority": 1}', '{"": 1}', '{"x": 1}', '[]']) WITH ORDINALITY o (options, n) ORDER BY n;
SELECT t.try(format('SELECT qml_create_queue(''q'', %L)', jsonb_build_object(repeat('timeout', 100), 1)));
SELECT t.try('SELECT qml_register_hook(''h'', ''now'', options => ''{"with_payload": true}'')');
SELECT t.try('SELECT qml_register_middleware(''m'', ''now'', options => ''5'')');
SELECT t.try(format('SELECT qml_grant(CURRENT_USER::regrole, %L)', capability)) FROM unnest('{enqueu,worker,moniter,Admin,select,all}'::text[]) WITH ORDINALITY c (capability, n) ORDER BY n;

-- Time zones: also by the last part of the name, and none for abbreviations
SELECT t.try(format('SELECT qml_cron_next(''@daily'', timezone => %L)', zone)) FROM unnest('{Europa/Berlin,Berlin,berlin,New_York,Europe/Berlinn,PST,CEST,Nowhere/Atall}'::text[]) WITH ORDINALITY z (zone, n) ORDER BY n;

-- What may follow a state
SELECT s, t.try(format('SELECT qml_set_state(%L, %L)', t.id(n::int), CASE s WHEN 'succeeded' THEN 'failed' ELSE 'succeeded' END))
FROM (SELECT s, n, t.make(t.id(n::int), s, 'q' || s) FROM unnest('{scheduled,enqueued,awaiting_retry,succeeded,failed,deleted}'::text[]) WITH ORDINALITY x (s, n) OFFSET 0) made ORDER BY n;

-- Functions of which several have the name
CREATE SCHEMA regress_qml_hints;
SET search_path = regress_qml_hints, public;
CREATE FUNCTION two(a int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION two(a int, b text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION neither(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION neither(text, text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION one(jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION one(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION one(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
-- Beside functions of pg_catalog, which everybody has in the path
CREATE FUNCTION repeat(payload jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION length(payload jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION length(job qml.job) RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT t.try(format('SELECT qml_register_handler(%L, %L)', f, f)) FROM unnest('{two,neither,one,repeat,length,lower,"length(job)",regress_qml_hints.two,nothing}'::text[]) WITH ORDINALITY n (f, n) ORDER BY n;
SELECT method, function FROM qml.handler ORDER BY 1;
CREATE FUNCTION tell(qml.job, qml.job_state, qml.job_state) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION tell(jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION tell(int) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION wrap(qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION wrap(int) RETURNS void LANGUAGE sql AS '';
SELECT t.try('SELECT qml_register_hook(''tell'', ''tell'')');
SELECT t.try('SELECT qml_register_hook(''tell'', ''tell(qml.job, qml.job_state, qml.job_state)'')');
SELECT t.try('SELECT qml_register_middleware(''wrap'', ''wrap'')');
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA regress_qml_hints FROM PUBLIC;
SELECT t.try('SELECT qml_register_hook(''tell'', ''tell(qml.job, qml.job_state, qml.job_state)'')');
SELECT t.try('SELECT qml_register_middleware(''wrap'', ''wrap'')');
SELECT function FROM qml.hook UNION ALL SELECT function FROM qml.middleware;

-- Names of what is there: methods, hooks, middleware, queues
SELECT t.try('SELECT qml_unregister_handler(''repaet'')'), t.try('SELECT qml_unregister_hook(''tel'')'), t.try('SELECT qml_unregister_middleware(''warp'')'), t.try('SELECT qml_unregister_handler(''xyz'')');
SELECT count(qml_create_queue(q)) FROM unnest('{mail,invoices}'::text[]) q;
SELECT t.try('SELECT qml_pause_queue(''mial'')'), t.try('SELECT qml_alter_queue(''invoice'', ''{}'')'), t.try('SELECT qml_drop_queue(''letters'')');
CREATE ROLE regress_qml_hints;
GRANT USAGE ON SCHEMA t TO regress_qml_hints;
SELECT qml_grant('regress_qml_hints', 'admin', 'mails') \g /dev/null
SET ROLE regress_qml_hints;
SELECT t.try('SELECT qml_pause_queue(''mails'')');
-- What grants a right names the schema of the function, where its name alone is not found, or is that of another one
SELECT t.try('SELECT qml_enqueue(''m'', queue => ''mail'')');
RESET ROLE;
GRANT USAGE ON SCHEMA regress_qml_hints TO regress_qml_hints;
CREATE FUNCTION qml_grant(text) RETURNS int LANGUAGE sql AS 'SELECT 1';
SET ROLE regress_qml_hints;
SELECT t.try('SELECT qml_pause_queue(''mail'')');
RESET ROLE;
CREATE FUNCTION qml_grant(regrole, text, text DEFAULT NULL) RETURNS int LANGUAGE sql AS 'SELECT 1';
SET ROLE regress_qml_hints;
SELECT t.try('SELECT qml_pause_queue(''mail'')');
SET search_path = regress_qml_hints;
SELECT t.try('SELECT public.qml_fetch(''w'', ''{mail}'')');
SET search_path = pg_catalog;
SELECT t.try('SELECT public.qml_cleanup()'), t.try('SELECT public.qml_fetch(''w'', ''{mail}'')');
RESET ROLE;
SET search_path = regress_qml_hints, public;
REVOKE USAGE ON SCHEMA t FROM regress_qml_hints;

RESET search_path;
SELECT t.reset();
\pset format aligned
\pset tuples_only off
SET client_min_messages = warning;
DROP SCHEMA regress_qml_hints CASCADE;
DROP OWNED BY regress_qml_hints;
DROP ROLE regress_qml_hints;
