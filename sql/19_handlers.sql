--
-- Handlers: functions registered for methods, payloads checked against them, and
-- what their options mean for jobs.  Nothing runs a job here, because the server
-- does not preload qml; a worker outside fetches and acknowledges them.
--
SELECT t.reset();
SET timezone = 'UTC';
CREATE ROLE regress_qml_admin LOGIN;
CREATE ROLE regress_qml_app LOGIN;
CREATE ROLE regress_qml_other LOGIN;
CREATE ROLE regress_qml_nologin;
CREATE SCHEMA h;
GRANT USAGE ON SCHEMA h, t TO PUBLIC;

CREATE TYPE h.mood AS ENUM ('sad', 'happy');
CREATE TYPE h.pair AS (x int, y text);
CREATE TYPE h.spread AS RANGE (SUBTYPE = int);
CREATE DOMAIN h.positive AS int CHECK (VALUE > 0);
CREATE DOMAIN h.document AS jsonb;

-- What is registered.
-- What a type is called, and what a schema that is not there, depends on the version.
CREATE VIEW h.registered AS SELECT method, replace(function, '(pg_catalog.json)', '(json)') AS function, run_as, options, registered_by, problem FROM qml.handler;
-- Why a handler cannot run, without oids.
CREATE FUNCTION h.problem(method text) RETURNS text LANGUAGE sql
AS $$ SELECT COALESCE(regexp_replace(i.problem, 'OID \d\d+', 'OID NNN'), 'none') FROM qml.handler i WHERE i.method = problem.method $$;
-- What enqueueing a payload ends with.
CREATE FUNCTION h.put(method text, payload jsonb) RETURNS text LANGUAGE sql
AS $$ SELECT t.try(format('SELECT qml_enqueue(%L, %L)', method, payload)) $$;

-------------------------------------------------------------------------------
-- Every kind
-------------------------------------------------------------------------------

CREATE FUNCTION h.payload(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION h.named(payload jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION h.job(job qml.job) RETURNS text LANGUAGE sql AS 'SELECT job.queue';
CREATE FUNCTION h.typed(a int, b text DEFAULT 'x') RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION h.nothing() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.documents(a jsonb, b jsonb DEFAULT NULL) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.words(j json) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.inout(a int, INOUT b int, OUT c text) LANGUAGE sql AS 'SELECT b, a::text';
CREATE FUNCTION h.outs(OUT a int, OUT b int) LANGUAGE sql AS 'SELECT 1, 2';
CREATE FUNCTION h.strict(a int, b text DEFAULT 'x') RETURNS int STRICT LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION h.types(i int DEFAULT 0, big bigint DEFAULT 0, n numeric(4,2) DEFAULT 0, b boolean DEFAULT true, s varchar(3) DEFAULT '', t timestamptz DEFAULT now(),
	v interval DEFAULT '0', u uuid DEFAULT NULL, x bytea DEFAULT '', d jsonb DEFAULT '{}', l int[] DEFAULT '{}', m h.mood DEFAULT 'sad', ms h.mood[] DEFAULT '{}')
	RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION h.late(p h.positive DEFAULT 1, q h.pair DEFAULT NULL, r h.spread DEFAULT NULL, ps h.positive[] DEFAULT NULL, i int4range DEFAULT NULL) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION h."Odd ""Name"", really"("Key One" int, "k""2" text DEFAULT '') RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION h.definer(jsonb) RETURNS void SECURITY DEFINER LANGUAGE sql AS '';
CREATE PROCEDURE h.do_payload(jsonb) LANGUAGE sql AS '';
CREATE PROCEDURE h.do_job(j qml.job) LANGUAGE sql AS '';
CREATE PROCEDURE h.do_typed(a int, INOUT b int DEFAULT 1) LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE h.do_out(a int, OUT b int) LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE h.do_nothing() LANGUAGE sql AS '';

SELECT qml_register_handler(name, 'h.' || quote_ident(name)) FROM unnest(ARRAY['payload', 'named', 'job', 'typed', 'nothing', 'documents', 'words', 'inout', 'outs', 'strict', 'types', 'late',
	'Odd "Name", really', 'definer', 'do_payload', 'do_job', 'do_typed', 'do_out', 'do_nothing']) WITH ORDINALITY n (name, k) ORDER BY k;
SELECT method, function, problem FROM h.registered ORDER BY method;
SELECT DISTINCT run_as = current_user AS run_as, options, registered_by = current_user AS registered_by FROM h.registered;
SELECT count(*) AS of_now FROM qml.handler WHERE now() - registered_at BETWEEN '0' AND '1 min';

-- Both forms, however the function is given
CREATE FUNCTION h.twice(jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.twice(a int) RETURNS int LANGUAGE sql AS 'SELECT 2';
SELECT qml_register_handler('f1', 'h.twice(jsonb)'), qml_register_handler('f2', 'h.twice(int)'), qml_register_handler('f3', 'h.twice( integer )'), qml_register_handler('f4', 'h.twice(jsonb)'::regprocedure),
	qml_register_handler('f5', 'h.nothing'::regproc), qml_register_handler('f6', 'h.nothing()'::regprocedure::oid), qml_register_handler('f7', 'h.twice(int)'::regprocedure::oid::text),
	qml_register_handler('f8', function => 'h.twice(int4)'::varchar, options => '{}'), qml_register_handler(method => 'f9', function => '"h"."payload"');
CREATE FUNCTION h.twice(a h.positive) RETURNS int LANGUAGE sql AS 'SELECT 3';
SET search_path = h, public;
SELECT qml_register_handler('f10', 'payload'), qml_register_handler('f11', 'twice(positive)'::text), qml_register_handler('f12', 'do_out(int)');
RESET search_path;
SELECT method, function, problem FROM h.registered WHERE method ~ '^f\d' ORDER BY length(method), method;
SELECT t.try('SELECT qml_register_handler(''f'', ''h.twice'')');
SELECT count(*) FROM qml.handler_data;
SELECT count(*) FROM unnest(array(SELECT method FROM qml.handler_data WHERE method ~ '^f\d')) m WHERE qml_unregister_handler(m);

-- The same again, another function, other options: the last one counts
SELECT qml_register_handler('again', 'h.payload', '{"max_retries": 1}');
SELECT qml_register_handler('again', 'h.payload', '{"max_retries": 1}');
SELECT function, options, problem FROM h.registered WHERE method = 'again';
SELECT qml_register_handler('again', 'h.typed', '{"timeout": "3 s"}');
SELECT function, options, problem FROM h.registered WHERE method = 'again';
SELECT qml_unregister_handler('again'), qml_unregister_handler('again', missing_ok => true), qml_unregister_handler('never was', true), t.code('SELECT qml_unregister_handler(''never was'')');
SELECT count(*) FROM qml.handler_data WHERE method = 'again';
-- Methods differ in case and blanks
SELECT qml_register_handler('M', 'h.payload'), qml_register_handler('m', 'h.payload'), qml_register_handler('m x', 'h.payload'), qml_register_handler(repeat('ü', 255), 'h.payload');
SELECT qml_unregister_handler('M', true), qml_unregister_handler('m', true), qml_unregister_handler('m x', true), qml_unregister_handler(repeat('ü', 255));

-------------------------------------------------------------------------------
-- What is refused
-------------------------------------------------------------------------------

CREATE FUNCTION h.poly(a anyelement) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.poly_array(a int, b anyarray) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.poly_compatible(a anycompatible) RETURNS anycompatible LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION h.poly_result(a anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION h.poly_out(a anyelement, OUT b anyarray) LANGUAGE sql AS 'SELECT ARRAY[a]';
CREATE FUNCTION h.variadic(VARIADIC a int[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.variadic_json(VARIADIC a jsonb[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.set(jsonb) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.setof_job(job qml.job) RETURNS SETOF qml.job LANGUAGE sql AS 'SELECT job';
CREATE FUNCTION h.table(a int) RETURNS TABLE (b int) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION h.event_trigger() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE AGGREGATE h.aggregate(int) (SFUNC = int4pl, STYPE = int);
CREATE AGGREGATE h.document_aggregate(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);
CREATE FUNCTION h.record(r record) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE FUNCTION h.unnamed(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.half_named(a int, text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.unnamed_documents(jsonb, jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.unnamed_json(json) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.unnamed_domain(h.document) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.jobs(qml.job[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION h.row_of_table(qml.live) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE h.do_poly(a anyelement) LANGUAGE plpgsql AS 'BEGIN END';
CREATE PROCEDURE h.do_variadic(VARIADIC a int[]) LANGUAGE sql AS '';
CREATE PROCEDURE h.do_unnamed(int, INOUT text) LANGUAGE sql AS 'SELECT ''x''';

SELECT t.everything() AS before \gset
\pset format unaligned
\pset tuples_only on
SELECT f, t.try(format('SELECT qml_register_handler(''m'', %L)', f)) FROM unnest(ARRAY['h.poly', 'h.poly_array', 'h.poly_compatible', 'h.poly_result', 'h.poly_out', 'h.variadic', 'h.variadic_json',
	'h.set', 'h.setof_job', 'h.table', 'h.trigger', 'h.event_trigger', 'h.aggregate', 'h.document_aggregate', 'row_number', 'pg_catalog.rank()', 'h.record', 'h.unnamed', 'h.half_named', 'h.unnamed_documents', 'h.unnamed_json',
	'h.unnamed_domain', 'h.jobs', 'h.row_of_table', 'h.do_poly', 'h.do_variadic', 'h.do_unnamed',
	'int4in', 'int4out', 'int4recv', 'plpgsql_call_handler', 'row_to_json(record)', 'num_nulls', 'hashhandler', 'to_jsonb', 'jsonb_populate_record', 'jsonb_object_keys', 'record_in', 'fdw_handler_in',
	'h.nonesuch', 'h.payload(int)', 'h.payload(nonesuch)', 'h.payload(', 'payload', '', ' ', '(', 'h.', 'h.payload()', 'h.payload jsonb', 'count(*)', 'a.b.c.d', '-', '0', '4294967295',
	'h.payload; DROP SCHEMA h', repeat('x', 70), E'h.pay\nload']) WITH ORDINALITY u (f, n) ORDER BY n;
SELECT f, t.try(format('SELECT qml_register_handler(''m'', %L)', f)) IN ('3F000: schema "nonesuch" does not exist', format('42883: function "%s" does not exist', f)) AS refused FROM unnest(ARRAY['nonesuch.f', 'nonesuch.f(int)']) f;
SELECT sql, t.try(sql) FROM unnest(ARRAY['SELECT qml_register_handler(''m'', 0::oid::regprocedure)', 'SELECT qml_register_handler(''m'', 4294967295::oid::regprocedure)', 'SELECT qml_register_handler(''m'', ''pg_class''::regclass::oid::regprocedure)',
	'SELECT qml_register_handler(NULL, ''h.payload'')', 'SELECT qml_register_handler(''m'', NULL)', 'SELECT qml_register_handler(''m'', NULL::text)', 'SELECT qml_register_handler(''m'', NULL::regprocedure)',
	'SELECT qml_register_handler(''m'', ''h.payload'', NULL)', 'SELECT qml_register_handler(''m'', ''h.payload(jsonb)''::regprocedure, NULL)', 'SELECT qml_unregister_handler(NULL)',
	'SELECT qml_register_handler('''', ''h.payload'')', 'SELECT qml_register_handler(repeat(''ü'', 256), ''h.payload'')', E'SELECT qml_register_handler(''a\tb'', ''h.payload'')', E'SELECT qml_register_handler(''a\nb'', ''h.payload(jsonb)''::regprocedure)',
	'SELECT qml_unregister_handler('''')', 'SELECT qml_unregister_handler(repeat(''x'', 256))', E'SELECT qml_unregister_handler(''a\x7f'')',
	'SELECT qml_progress(''1'')', 'SELECT qml_progress(NULL)', 'SELECT qml_retry_later(''1 s'')', 'SELECT qml_retry_later(NULL)', 'SELECT qml_discard()', 'SELECT qml_discard(''why'')'
]) WITH ORDINALITY s (sql, n) ORDER BY n;
SELECT qml_current_job() IS NULL AS no_job;

-- Options
SELECT options, t.try(format('SELECT qml_register_handler(''m'', ''h.payload'', %L)', options)) FROM unnest(ARRAY['[]', '1', 'null', '"x"', '{"nonesuch": 1}', '{"Queue": "q"}', '{"lease": "1 s"}', '{"succeeded_ttl": 1}', '{"failed_ttl": 1}', '{"": 1}',
	'{"max_retries": -1}', '{"max_retries": 1001}', '{"max_retries": 1.5}', '{"max_retries": "1"}', '{"max_retries": true}', '{"max_retries": [1]}',
	'{"timeout": 0}', '{"timeout": "0"}', '{"timeout": -1}', '{"timeout": "-1 s"}', '{"timeout": "999 us"}', '{"timeout": "25 days"}', '{"timeout": "soon"}', '{"timeout": true}', '{"timeout": {}}', '{"timeout": 1e300}',
	'{"queue": ""}', '{"queue": 1}', '{"queue": ["q"]}', '{"queue": "a\tb"}',
	'{"run_as": ""}', '{"run_as": 10}', '{"run_as": "a\nb"}', '{"run_as": ["postgres"]}',
	'{"non_retryable": "E"}', '{"non_retryable": {}}', '{"non_retryable": [1]}', '{"non_retryable": [null]}', '{"non_retryable": ["E", ""]}', '{"non_retryable": [["E"]]}', '{"non_retryable": ["a\nb"]}',
	'{"redact": []}', '{"redact": "payload"}', '{"redact": ["ssn"]}', '{"redact": ["metadata.."]}',
	'{"concurrency": 0}', '{"concurrency": -1}', '{"concurrency": 1001}', '{"concurrency": 1.5}', '{"concurrency": "2"}',
	'{"max_wait": 0}', '{"max_age": "0"}', '{"max_run": "x"}', '{"max_failure_rate": 2}',
	'{"retry": "none"}', '{"retry": []}', '{"retry": {"nonesuch": 1}}', '{"retry": {"strategy": "some"}}', '{"retry": {"strategy": 1}}', '{"retry": {"delay": "-1 s"}}', '{"retry": {"delay": "11 years"}}',
	'{"retry": {"multiplier": 0.5}}', '{"retry": {"increment": true}}', '{"retry": {"max_delay": "x"}}', '{"retry": {"jitter": 2}}', '{"retry": {"retry": {}}}']) WITH ORDINALITY o (options, n) ORDER BY n;
SELECT left(options, 60), t.code(format('SELECT qml_register_handler(''m'', ''h.payload'', %L)', options)) FROM unnest(ARRAY[
	jsonb_build_object('queue', repeat('ü', 129)), jsonb_build_object('run_as', repeat('x', 64)), jsonb_build_object('non_retryable', jsonb_build_array(repeat('x', 256)))]::text[]) WITH ORDINALITY o (options, n) ORDER BY n;
SELECT t.everything() = :'before' AS unchanged;
\pset format aligned
\pset tuples_only off

-- All of them at once; null says nothing, and what stands there last holds
SELECT qml_register_handler('full', 'h.payload', '{"max_retries": 0, "timeout": "90 s", "queue": "q", "run_as": "regress_qml_app", "non_retryable": ["22012", "Über"], "concurrency": 1000, "redact": ["payload.a", "metadata"],
	"retry": {"strategy": "linear", "delay": 1, "multiplier": 1, "increment": "1 min", "max_delay": "1 h", "jitter": 0}}');
SELECT qml_register_handler('least', 'h.payload', '{"max_retries": null, "timeout": null, "queue": null, "run_as": null, "non_retryable": null, "concurrency": null, "retry": null}'),
	qml_register_handler('empty', 'h.payload', '{"non_retryable": [], "retry": {}, "max_retries": 1, "max_retries": 1000, "concurrency": 1, "timeout": 0.001}');
SELECT method, CASE run_as WHEN current_user THEN '(user)' ELSE run_as END AS run_as, options, problem FROM h.registered WHERE method IN ('full', 'least', 'empty') ORDER BY method;

-------------------------------------------------------------------------------
-- Roles
-------------------------------------------------------------------------------

-- By default whoever registers, who must be able to log in
SELECT qml_grant('regress_qml_admin', 'admin'), qml_grant('regress_qml_nologin', 'admin'), qml_grant('regress_qml_other', 'admin', 'q');
GRANT CREATE ON SCHEMA h TO regress_qml_admin, regress_qml_app;
SET ROLE regress_qml_admin;
CREATE FUNCTION h.mine(jsonb) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_handler('mine', 'h.mine'), qml_register_handler('borrowed', 'h.payload');
SELECT method, run_as, registered_by, problem FROM qml.handler WHERE method IN ('mine', 'borrowed') ORDER BY method;
-- Another role only if it is a member; whether it exists is no secret
SELECT t.try('SELECT qml_register_handler(''m'', ''h.mine'', ''{"run_as": "regress_qml_app"}'')');
SELECT t.try('SELECT qml_register_handler(''m'', ''h.mine'', ''{"run_as": "regress_qml_nobody"}'')');
SELECT t.try(format('SELECT qml_register_handler(''m'', ''h.payload'', ''{"run_as": "%s"}'')', session_user)) ~ '^42501' AS refused;
SELECT t.try('SELECT qml_register_handler(''m'', ''h.mine'', ''{"run_as": "public"}'')'), t.try('SELECT qml_register_handler(''m'', ''h.mine'', ''{"run_as": "current_user"}'')'), t.try('SELECT qml_register_handler(''m'', ''h.mine'', ''{"run_as": "none"}'')');
RESET ROLE;
GRANT regress_qml_app TO regress_qml_admin;
SET ROLE regress_qml_admin;
SELECT qml_register_handler('m', 'h.mine', '{"run_as": "regress_qml_app"}');
SELECT run_as, registered_by, problem FROM qml.handler WHERE method = 'm';
RESET ROLE;
-- The membership must last
SELECT h.problem('m');
REVOKE regress_qml_app FROM regress_qml_admin;
SELECT h.problem('m'), h.put('m', '1');
GRANT regress_qml_app TO regress_qml_admin;
SELECT h.problem('m');
REVOKE regress_qml_app FROM regress_qml_admin;
SET ROLE regress_qml_admin;
SELECT t.code('SELECT qml_register_handler(''m'', ''h.mine'', ''{"run_as": "regress_qml_app"}'')');
SELECT qml_unregister_handler('m');
RESET ROLE;
SET ROLE regress_qml_nologin;
SELECT t.try('SELECT qml_register_handler(''m'', ''h.payload'')');
RESET ROLE;
-- The capability on one queue is not enough
SET ROLE regress_qml_other;
SELECT t.try('SELECT qml_register_handler(''m'', ''h.payload'')'), t.code('SELECT qml_unregister_handler(''mine'')');
RESET ROLE;
SELECT qml_revoke('regress_qml_nologin', 'admin'), qml_revoke('regress_qml_other', 'admin');
SELECT t.try('SELECT qml_register_handler(''m'', ''h.payload'', ''{"run_as": "regress_qml_nologin"}'')');
-- One that may not execute the function, or not connect
REVOKE EXECUTE ON FUNCTION h.payload FROM PUBLIC;
SELECT t.try('SELECT qml_register_handler(''m'', ''h.payload'', ''{"run_as": "regress_qml_app"}'')');
SELECT h.problem('borrowed'), h.problem('payload');
GRANT EXECUTE ON FUNCTION h.payload TO regress_qml_app;
SELECT t.try('SELECT qml_register_handler(''m'', ''h.payload'', ''{"run_as": "regress_qml_app"}'')');
GRANT EXECUTE ON FUNCTION h.payload TO PUBLIC;
SELECT h.problem('borrowed');
BEGIN;
SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT t.try('SELECT qml_register_handler(''m'', ''h.payload'', ''{"run_as": "regress_qml_app"}'')'), h.problem('borrowed'), h.problem('payload');
SELECT format('GRANT CONNECT ON DATABASE %I TO regress_qml_admin', current_database()) \gexec
SELECT h.problem('borrowed');
ROLLBACK;
SELECT h.problem('borrowed');
ALTER ROLE regress_qml_admin NOLOGIN;
SELECT h.problem('borrowed');
ALTER ROLE regress_qml_admin LOGIN;
SELECT h.problem('borrowed');

-- What runs as a superuser must belong to one
CREATE ROLE regress_qml_root LOGIN SUPERUSER;
SELECT t.try('SELECT qml_register_handler(''m'', ''h.mine'', ''{"run_as": "regress_qml_root"}'')');
SELECT replace(t.try('SELECT qml_register_handler(''m'', ''h.mine'')'), session_user, '(user)');
SELECT t.try('SELECT qml_register_handler(''m'', ''h.mine'', ''{"run_as": "regress_qml_admin"}'')'), t.try('SELECT qml_register_handler(''m'', ''h.payload'', ''{"run_as": "regress_qml_root"}'')');
GRANT regress_qml_root TO regress_qml_admin;
SET ROLE regress_qml_admin;
SELECT t.code('SELECT qml_register_handler(''m'', ''h.mine'', ''{"run_as": "regress_qml_root"}'')'), t.code('SELECT qml_register_handler(''m'', ''h.payload'', ''{"run_as": "regress_qml_root"}'')');
RESET ROLE;
-- Nor later: the owner changes, or the role becomes a superuser, also when the session has asked before
SELECT qml_register_handler('root', 'h.payload', '{"run_as": "regress_qml_root"}');
ALTER FUNCTION h.payload OWNER TO regress_qml_admin;
SELECT h.problem('root'), h.problem('payload');
ALTER FUNCTION h.payload OWNER TO CURRENT_USER;
SELECT h.problem('root'), h.problem('mine');
ALTER ROLE regress_qml_admin SUPERUSER;
SELECT h.problem('mine'), h.problem('root');
ALTER ROLE regress_qml_admin NOSUPERUSER;
SELECT qml_register_handler('app', 'h.mine', '{"run_as": "regress_qml_app"}');
SELECT h.problem('app');
ALTER ROLE regress_qml_app SUPERUSER;
SELECT h.problem('app'), h.put('app', '1');
ALTER ROLE regress_qml_app NOSUPERUSER;
SELECT h.problem('app');
SELECT qml_unregister_handler('root'), qml_unregister_handler('m');

-------------------------------------------------------------------------------
-- What becomes of the function
-------------------------------------------------------------------------------

CREATE FUNCTION h.f(a int) RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT qml_register_handler('f', 'h.f', '{"run_as": "regress_qml_app"}');
SELECT h.problem('f'), h.put('f', '{"a": "x"}');
CREATE OR REPLACE FUNCTION h.f(a int) RETURNS int LANGUAGE sql AS 'SELECT 2';
SELECT h.problem('f');
-- Dropped: payloads are not checked, for it may be there when the job runs
DROP FUNCTION h.f;
SELECT h.problem('f'), h.put('f', '{"a": "x"}');
-- There again, the same by name, and of the same owner
CREATE FUNCTION h.f(a int) RETURNS int LANGUAGE sql AS 'SELECT 3';
SELECT h.problem('f'), h.put('f', '{"a": "x"}');
DROP FUNCTION h.f;
CREATE FUNCTION h.f(b int DEFAULT 1) RETURNS void LANGUAGE sql AS '';
SELECT h.problem('f'), h.put('f', '{"a": 1}');
DROP FUNCTION h.f;
CREATE PROCEDURE h.f(a int) LANGUAGE sql AS '';
SELECT h.problem('f'), h.put('f', '{"a": 1}');
DROP PROCEDURE h.f;
CREATE FUNCTION h.f(a bigint) RETURNS int LANGUAGE sql AS 'SELECT 3';
SELECT h.problem('f');
DROP FUNCTION h.f;
CREATE FUNCTION h.f(int) RETURNS int LANGUAGE sql AS 'SELECT 3';
SELECT h.problem('f');
DROP FUNCTION h.f;
CREATE FUNCTION h.f(a int) RETURNS SETOF int LANGUAGE sql AS 'SELECT 3';
SELECT h.problem('f');
DROP FUNCTION h.f;
CREATE AGGREGATE h.f(int) (SFUNC = int4pl, STYPE = int);
SELECT h.problem('f');
DROP AGGREGATE h.f(int);
-- A drop that is rolled back
CREATE FUNCTION h.f(a int) RETURNS int LANGUAGE sql AS 'SELECT 3';
BEGIN;
DROP FUNCTION h.f;
SELECT h.problem('f'), h.put('f', '{"a": "x"}');
ROLLBACK;
SELECT h.problem('f'), h.put('f', '{"a": "x"}');
-- Its name, its schema's name
ALTER FUNCTION h.f RENAME TO g;
SELECT h.problem('f');
ALTER FUNCTION h.g RENAME TO f;
ALTER FUNCTION h.f SET SCHEMA t;
SELECT h.problem('f');
ALTER FUNCTION t.f SET SCHEMA h;
ALTER SCHEMA h RENAME TO h2;
SELECT h2.problem('f');
ALTER SCHEMA h2 RENAME TO h;
SELECT h.problem('f');
-- Its owner: only one that the handler's role could be replaced by, or a superuser
ALTER FUNCTION h.f OWNER TO regress_qml_other;
SELECT h.problem('f'), h.put('f', '{"a": "x"}');
GRANT regress_qml_app TO regress_qml_other;
SELECT h.problem('f');
REVOKE regress_qml_app FROM regress_qml_other;
SELECT h.problem('f');
ALTER FUNCTION h.f OWNER TO regress_qml_app;
SELECT h.problem('f');
ALTER FUNCTION h.f OWNER TO regress_qml_root;
SELECT h.problem('f');
-- Somebody else puts his own in its place
DROP FUNCTION h.f;
GRANT CREATE ON SCHEMA h TO regress_qml_other;
SET ROLE regress_qml_other;
CREATE FUNCTION h.f(a int) RETURNS int LANGUAGE sql AS 'SELECT 4';
RESET ROLE;
SELECT h.problem('f');
-- Registered again, it is the new one's
SELECT qml_register_handler('f', 'h.f', '{"run_as": "regress_qml_app"}');
SELECT h.problem('f');
DROP FUNCTION h.f;
-- Types of its arguments
CREATE TYPE h.brief AS ENUM ('a');
CREATE FUNCTION h.f(a h.brief, b h.brief[]) RETURNS int LANGUAGE sql AS 'SELECT 4';
SELECT qml_register_handler('f', 'h.f');
SELECT h.problem('f'), h.put('f', '{"a": "b", "b": []}');
ALTER TYPE h.brief ADD VALUE 'b';
SELECT h.put('f', '{"a": "b", "b": ["a", "b"]}');
ALTER TYPE h.brief RENAME TO short;
SELECT h.problem('f');
ALTER TYPE h.short RENAME TO brief;
SELECT h.problem('f');
DROP TYPE h.brief CASCADE;
SELECT h.problem('f'), h.put('f', '1');
-- ... with a name that needs quotes
CREATE TYPE h."A ""b"", c[]" AS ENUM ('a');
CREATE FUNCTION h.f(a h."A ""b"", c[]", b h."A ""b"", c[]"[], c bpchar, d "char", e timestamp(3) with time zone, f bit varying) RETURNS int LANGUAGE sql AS 'SELECT 4';
SELECT qml_register_handler('f', 'h.f');
SELECT function, problem FROM h.registered WHERE method = 'f';
-- A role that is dropped
CREATE ROLE regress_qml_gone LOGIN;
SELECT qml_register_handler('gone', 'h.payload', '{"run_as": "regress_qml_gone"}');
SELECT t.code('DROP ROLE regress_qml_gone');
DROP OWNED BY regress_qml_gone;
DROP ROLE regress_qml_gone;
SELECT h.problem('gone'), h.put('gone', '1');
-- Kept, the number would be written into a dump, and there it may be another role's
SELECT qml_cleanup() >= 0 AS cleaned;
SELECT owner <> 0, run_as = 0, registered_by <> 0 FROM qml.handler_data WHERE method = 'gone';
SELECT h.problem('gone'), h.put('gone', '1');
SELECT qml_unregister_handler('gone');

-------------------------------------------------------------------------------
-- Payloads
-------------------------------------------------------------------------------

DELETE FROM qml.live;
\pset format unaligned
\pset tuples_only on
-- Handlers of the payload and of the job take whatever it is
SELECT method, payload, h.put(method, payload) FROM unnest(ARRAY['payload', 'named', 'job', 'do_payload', 'do_job']) method, unnest('{"null",1,"[]","{}"}'::jsonb[]) payload WHERE h.put(method, payload) <> 'ok';
-- Typed ones an object with the right keys
SELECT p, h.put('typed', p::jsonb) FROM unnest(ARRAY['{"a": 1}', '{"a": 1, "b": "y"}', '{"b": "y", "a": "1"}', '{"a": null}', '{"a": 1, "b": null}', '{"a": 2147483647}', '{"a": 1.0}', '{"a": "x", "a": 2}', '{"a": 1, "b": {"c": [1]}}', '{"a": 1, "b": 2}',
	'{}', '{"b": "y"}', '{"a": 1, "c": 1}', '{"A": 1}', '{"a ": 1}', '{"a": 1, "": 1}', '{"ab": 1, "a": 1}', '{"a": "x"}', '{"a": ""}', '{"a": 1.5}', '{"a": 2147483648}', '{"a": true}', '{"a": [1]}', '{"a": {}}', '{"a": {"a": 1}}',
	'[]', '[1]', '["a"]', '1', '"a"', 'null', 'true']) WITH ORDINALITY u (p, n) ORDER BY n;
-- What is too long for a message is cut
SELECT h.put('typed', jsonb_build_object('a', 1, repeat('ü', 100000), 1)), h.put('typed', jsonb_build_object('a', repeat('ü', 100000)));
SELECT p, h.put('nothing', p::jsonb), h.put('do_nothing', p::jsonb), h.put('outs', p::jsonb) FROM unnest(ARRAY['{}', '{"a": 1}', 'null']) WITH ORDINALITY u (p, n) ORDER BY n;
SELECT p, h.put('strict', p::jsonb) FROM unnest(ARRAY['{"a": 1}', '{"a": null}', '{"a": 1, "b": null}', '{"b": "x"}']) WITH ORDINALITY u (p, n) ORDER BY n;
-- Only what goes in
SELECT p, h.put('inout', p::jsonb) FROM unnest(ARRAY['{"a": 1, "b": 2}', '{"a": 1}', '{"a": 1, "b": 2, "c": "x"}']) WITH ORDINALITY u (p, n) ORDER BY n;
SELECT p, h.put('do_typed', p::jsonb) FROM unnest(ARRAY['{"a": 1}', '{"a": 1, "b": 2}', '{"b": 2}', '{"a": 1, "b": "x"}']) WITH ORDINALITY u (p, n) ORDER BY n;
SELECT p, h.put('do_out', p::jsonb) FROM unnest(ARRAY['{"a": 1}', '{"a": 1, "b": null}']) WITH ORDINALITY u (p, n) ORDER BY n;
SELECT p, h.put('documents', p::jsonb), h.put('words', p::jsonb) FROM unnest(ARRAY['{"a": {"b": 1}}', '{"a": null}', '{"j": [1, 2]}', '{"j": "x"}', '[]']) WITH ORDINALITY u (p, n) ORDER BY n;
SELECT p, h.put('Odd "Name", really', p::jsonb) FROM unnest(ARRAY['{"Key One": 1}', '{"Key One": 1, "k\"2": "x"}', '{"key one": 1}', '{"Key One": "x"}', '{"Key One": 1, "k": "x"}']) WITH ORDINALITY u (p, n) ORDER BY n;
-- Values of each type; numeric(4,2) and varchar(3) are no types of arguments
SELECT p, regexp_replace(h.put('types', p::jsonb), 'h\.types\([^)]*\)', 'h.types()') FROM unnest(ARRAY['{}', '{"i": null, "m": null, "ms": null, "l": null}', '{"big": 9223372036854775807}', '{"big": 9223372036854775808}', '{"big": 1e3}', '{"n": 12345.678}', '{"n": "NaN"}', '{"n": "x"}',
	'{"b": true}', '{"b": "yes"}', '{"b": 1}', '{"b": 2}', '{"b": "maybe"}', '{"s": "long enough"}', '{"s": 1}', '{"t": "2026-01-01"}', '{"t": "now"}', '{"t": "2026-02-30"}', '{"t": 1}', '{"t": "soon"}', '{"v": "1 day"}', '{"v": 1}', '{"v": "x"}',
	'{"u": "00000000-0000-7000-8000-000000000001"}', '{"u": "00000000-0000-7000-8000"}', '{"x": "\\x00ff"}', '{"x": "\\x0"}', '{"d": 1}', '{"d": null}',
	'{"l": [1, 2]}', '{"l": []}', '{"l": [[1], [2]]}', '{"l": [1, null]}', '{"l": "{1,2}"}', '{"l": [1, "x"]}', '{"l": [[1], 2]}', '{"l": [[1], [2, 3]]}', '{"l": 1}', '{"l": {}}', '{"l": "{1"}',
	'{"m": "happy"}', '{"m": "Happy"}', '{"m": 1}', '{"m": ["sad"]}', '{"ms": ["sad", "happy", null]}', '{"ms": ["sad", "glad"]}', '{"ms": "sad"}']) WITH ORDINALITY u (p, n) ORDER BY n;
-- Types made by users are converted when the job runs, as the role of the handler
SELECT p, h.put('late', p::jsonb) FROM unnest(ARRAY['{"p": 1}', '{"p": -1}', '{"p": "x"}', '{"q": {"x": 1}}', '{"q": 1}', '{"q": {"x": "x"}}', '{"r": "[1,2]"}', '{"r": "x"}', '{"ps": [0]}', '{"i": "x"}', '{"z": 1}']) WITH ORDINALITY u (p, n) ORDER BY n;
-- Types whose values are names, or have a syntax of their own; what is said of them differs between versions
CREATE FUNCTION h.names(c regclass DEFAULT NULL, r regrole DEFAULT NULL, p regprocedure DEFAULT NULL, y regtype DEFAULT NULL, v tsvector DEFAULT NULL, q tsquery DEFAULT NULL, j jsonpath DEFAULT NULL, a aclitem DEFAULT NULL, n name DEFAULT NULL,
	cs regclass[] DEFAULT NULL) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_handler('names', 'h.names') \g /dev/null
SELECT p, split_part(h.put('names', p::jsonb), E'\n', 1) FROM unnest(ARRAY['{"c": "pg_class"}', '{"c": "nonesuch"}', '{"c": "nonesuch.x"}', '{"c": "a.b.c.d"}', '{"c": ""}', '{"r": "regress_qml_admin"}', '{"r": "regress_qml_nobody"}', '{"p": "nonesuch(int)"}', '{"p": "x"}', '{"y": "int4"}', '{"y": "nonesuch"}', '{"y": "int4("}',
	'{"v": "''"}', '{"q": "a b"}', '{"j": "$.a"}', '{"j": "$$"}', '{"a": "x=y/z"}', '{"n": "x"}', '{"cs": ["pg_class", "nonesuch"]}']) WITH ORDINALITY u (p, n) ORDER BY n;
\pset format aligned
\pset tuples_only off
-- Nothing of a refused one is left; the queue is not made either
BEGIN;
DELETE FROM qml.live;
SELECT t.code('SELECT qml_enqueue(''typed'', ''{}'', queue => ''not yet'')');
SELECT count(*) FROM qml.job;
SELECT count(*) FROM qml.queue_data WHERE name = 'not yet';
ROLLBACK;
-- Many at once: all or none
DELETE FROM qml.live;
SELECT t.try('SELECT qml_enqueue_many(''typed'', ARRAY[''{"a": 1}'', ''{"a": 2}'', ''{"a": "x"}'']::jsonb[])');
SELECT t.try('SELECT qml_enqueue_many(''typed'', array_agg(jsonb_build_object(''a'', CASE WHEN n = 999 THEN ''x'' ELSE n::text END))) FROM generate_series(1, 1000) n');
SELECT count(*) FROM qml.job;
SELECT count(*) FROM qml_enqueue_many('typed', array(SELECT jsonb_build_object('a', n) FROM generate_series(1, 1000) n));
SELECT count(*), count(qml_delete(id)) AS deleted FROM qml.job WHERE method = 'typed';
-- Schedules are checked when they are made, not when they fire
SELECT t.try('SELECT qml_schedule_recurring(''r'', ''@yearly'', ''typed'')');
SELECT t.try('SELECT qml_schedule_recurring(''r'', ''@yearly'', ''typed'', ''{"a": "x"}'')');
SELECT count(*) FROM qml.recurring_data;
SELECT qml_schedule_recurring('r', '@yearly', 'typed', '{"a": 1}') > now() AS scheduled;
SELECT t.try('SELECT qml_schedule_recurring(''r'', ''@yearly'', ''typed'', ''{"a": 1, "c": 2}'')');
SELECT payload FROM qml.recurring;
SELECT qml_register_handler('typed', 'h.nothing');
UPDATE qml.recurring_data SET next_run_at = date_trunc('second', now());
SELECT qml_poll_recurring();
SELECT payload, (qml_job(last_job)).payload AS of_job, error FROM qml.recurring;
-- Whoever fires one himself is told
SELECT t.code('SELECT qml_run_recurring(''r'')');
SELECT qml_remove_recurring('r'), qml_register_handler('typed', 'h.typed');

-- Without a handler any payload will do; it is the state at the time of the call that counts
SELECT h.put('none', '1');
BEGIN;
SELECT qml_register_handler('none', 'h.typed');
SELECT h.put('none', '1');
SAVEPOINT s;
SELECT qml_unregister_handler('none');
SELECT h.put('none', '1');
ROLLBACK TO s;
SELECT h.put('none', '1');
ROLLBACK;
SELECT h.put('none', '1');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT h.put('none', '1');
SELECT qml_register_handler('none', 'h.typed');
SELECT h.put('none', '1');
COMMIT;
SELECT h.put('none', '1');
SELECT qml_unregister_handler('none');
SELECT h.put('none', '1');
BEGIN READ ONLY;
SELECT t.code('SELECT qml_register_handler(''none'', ''h.typed'')'), t.code('SELECT qml_unregister_handler(''typed'')');
SELECT count(*) > 0 AS readable FROM qml.handler;
COMMIT;
-- Jobs that are there already stay
SELECT qml_register_handler('none', 'h.typed');
SELECT method, payload, state FROM qml.job WHERE method = 'none' LIMIT 1;
SELECT qml_unregister_handler('none');

-------------------------------------------------------------------------------
-- Options of handlers and their jobs
-------------------------------------------------------------------------------

SELECT t.reset();
SELECT qml_create_queue('mail', '{"max_retries": 2, "timeout": "2 s", "retry": {"strategy": "fixed", "delay": "2 min", "jitter": 0}}');
SELECT qml_register_handler('send', 'h.payload', '{"queue": "mail", "max_retries": 7, "timeout": "7 s", "retry": {"strategy": "linear", "delay": "10 s", "increment": "5 s", "max_delay": "1 h", "jitter": 0}, "non_retryable": ["22012", "Bad"]}');
SELECT qml_register_handler('plain', 'h.payload', '{"queue": "mail"}');
SELECT qml_register_handler('here', 'h.payload', '{"max_retries": 0, "timeout": 100}');
-- The queue for those that nobody sends elsewhere; limits of the caller, the handler, the queue, the settings
SELECT call, j.queue, j.max_retries, j.timeout FROM unnest(ARRAY['''send''', '''send'', queue => ''default''', '''send'', queue => ''other''', '''send'', max_retries => 0, timeout => ''1 s''', '''send'', timeout => ''1 s''', '''plain''', '''plain'', queue => ''other''',
	'''here''', '''here'', queue => ''mail''', '''here'', max_retries => 1', '''nothing'', queue => ''mail''', '''nothing''']) WITH ORDINALITY c (call, n), LATERAL qml_job(t.code(format('SELECT qml_enqueue(%s)', call))::uuid) j ORDER BY n;
SELECT j.queue, j.max_retries, j.timeout, j.state FROM qml_enqueue_many('send', '{1,2}') id, qml_job(id) j;
SELECT j.queue, j.max_retries, j.timeout, j.state FROM qml_enqueue_many('send', '{1}', 'other', max_retries => 1, timeout => '1 s', run_at => now() + interval '1 h') id, qml_job(id) j;
-- A queue that is not there is made
SELECT qml_register_handler('new', 'h.payload', '{"queue": "made for it"}');
SELECT count(*) FROM qml.queue_data WHERE name = 'made for it';
SELECT queue FROM qml_job(qml_enqueue('new'));
-- Schedules: settled when they are made
SELECT qml_schedule_recurring('r', '@yearly', 'send') > now() AS scheduled, qml_schedule_recurring('r2', '@yearly', 'send', queue => 'other', max_retries => 1) > now() AS scheduled;
SELECT id, queue, max_retries, timeout FROM qml.recurring ORDER BY id;
SELECT queue, max_retries, timeout FROM qml_job(qml_run_recurring('r'));
SELECT queue, max_retries, timeout FROM qml_job(qml_run_recurring('r2'));
UPDATE qml.recurring_data SET next_run_at = date_trunc('second', now());
SELECT qml_poll_recurring();
SELECT r.id, j.queue, j.max_retries, j.timeout FROM qml.recurring r, qml_job(r.last_job) j ORDER BY r.id;
-- The same again changes nothing
SELECT t.everything() AS before \gset
SELECT qml_schedule_recurring('r', '@yearly', 'send') > now() AS scheduled;
SELECT t.everything() = :'before' AS unchanged;
SELECT qml_remove_recurring('r'), qml_remove_recurring('r2');
-- The right counts that is for the queue it goes to
SELECT qml_grant('regress_qml_other', 'enqueue', 'default');
SET ROLE regress_qml_other;
SELECT t.try('SELECT qml_enqueue(''send'')'), t.code('SELECT qml_enqueue_many(''send'', ''{1}'')'), t.code('SELECT qml_enqueue_many(''send'', ''{}'')'), t.code('SELECT qml_schedule_recurring(''r'', ''@daily'', ''send'')'), t.code('SELECT qml_enqueue(''here'') IS NOT NULL');
RESET ROLE;
SELECT qml_revoke('regress_qml_other', 'enqueue'), qml_grant('regress_qml_other', 'enqueue', 'mail');
SET ROLE regress_qml_other;
SELECT t.code('SELECT qml_enqueue(''send'') IS NOT NULL'), t.code('SELECT count(*) FROM qml_enqueue_many(''send'', ''{1}'')'), t.code('SELECT count(*) FROM qml_enqueue_many(''send'', ''{}'')'), t.code('SELECT qml_enqueue(''here'')'), t.code('SELECT qml_enqueue(''send'', queue => ''other'')');
-- It need neither be able to see nor to run the handler
SELECT t.code('SELECT count(*) FROM qml.handler'), t.code('SELECT qml.handler_problem(''send'')');
SELECT created_by, queue FROM qml_job(qml_enqueue('send'));
RESET ROLE;
SELECT qml_revoke('regress_qml_other', 'enqueue');

-- Retries as the handler says; an error that it names is final
CREATE FUNCTION h.fails(method text, queue text, error_type text DEFAULT NULL, failures int DEFAULT 1, retry_at timestamptz DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	job qml.job;
	state qml.job_state;
BEGIN
	DELETE FROM qml.live;
	PERFORM qml_enqueue(method, queue => queue);
	FOR i IN 1..failures LOOP
		SELECT * INTO STRICT job FROM qml_fetch('w', methods => ARRAY[fails.method]);
		state := qml_fail(job.id, job.attempt, 'e', error_type, retry_at => fails.retry_at);
		IF i < failures THEN
			PERFORM qml_retry(job.id);
		END IF;
	END LOOP;
	RETURN concat_ws(' ', state, date_trunc('second', (qml_job(job.id)).run_at - clock_timestamp() + interval '500 ms'));
END $$;
SELECT h.fails('send', 'default') AS first, h.fails('send', 'default', failures => 4) AS fourth, h.fails('send', 'other', 'Other') AS elsewhere, h.fails('plain', 'default') AS of_queue, h.fails('nothing', 'mail') AS of_queue;
SELECT h.fails('send', 'default', '22012'), h.fails('send', 'other', 'Bad'), h.fails('send', 'default', 'bad'), h.fails('send', 'default', 'Bad '), h.fails('plain', 'mail', 'Bad'), h.fails('here', 'default');
SELECT h.fails('send', 'default', 'Bad', retry_at => now() + interval '1 h'), h.fails('send', 'default', 'Good', retry_at => clock_timestamp() + interval '1 h');
-- As registered at the time of the failure
SELECT qml_register_handler('send', 'h.payload', '{"retry": {"strategy": "none"}}');
SELECT h.fails('send', 'mail');
SELECT qml_register_handler('send', 'h.payload', '{"retry": {"strategy": "fixed", "delay": 5, "jitter": 0}}');
SELECT h.fails('send', 'mail');
SELECT qml_unregister_handler('send');
SELECT h.fails('send', 'mail', 'Bad');
-- Lost claims, too
SELECT qml_register_handler('send', 'h.payload', '{"retry": {"strategy": "none"}}'), qml_register_handler('plain', 'h.payload');
DELETE FROM qml.live;
SELECT qml_enqueue('send', id => t.id(1)) IS NOT NULL, qml_enqueue('plain', id => t.id(2)) IS NOT NULL;
SELECT count(*) FROM qml_fetch('w', batch => 2, lease => '1 us', methods => '{send,plain}');
SELECT qml_reclaim();
SELECT t.n(id), state FROM qml.job WHERE id IN (t.id(1), t.id(2)) ORDER BY id;
-- A worker outside that names the method may work them and acknowledge
SELECT qml_succeed(id, attempt, '{"by": "hand"}') FROM qml_fetch('w', methods => '{plain}');
SELECT state, result FROM qml_job(t.id(2));

-------------------------------------------------------------------------------
-- Written by hand
-------------------------------------------------------------------------------

-- Options that are wrong do not hold, which is said whenever they are read; nobody is stopped
UPDATE qml.handler_data SET options = '{"max_retries": 3, "timeout": "never"}' WHERE method = 'here';
SELECT max_retries, timeout FROM qml_job(qml_enqueue('here'));
SELECT max_retries, timeout FROM qml_job(qml_enqueue('here'));
UPDATE qml.handler_data SET options = '[]' WHERE method = 'here';
SELECT h.problem('here');
UPDATE qml.handler_data SET options = '{"nonesuch": 1}' WHERE method = 'here';
SELECT h.problem('here'), h.put('here', '1');
UPDATE qml.handler_data SET options = '{"run_as": "regress_qml_root", "queue": "q"}' WHERE method = 'here';
SELECT run_as = current_user AS as_before, problem FROM h.registered WHERE method = 'here';
SELECT qml_register_handler('here', 'h.typed');
-- Functions that are none
CREATE FUNCTION h.broken(changes text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE 'UPDATE qml.handler_data SET ' || changes || ' WHERE method = ''here''';
	answer := h.problem('here') || ', ' || h.put('here', '{"a": "x"}');
	RAISE EXCEPTION USING errcode = 'T0000', message = answer;
EXCEPTION WHEN SQLSTATE 'T0000' THEN
	RETURN answer;
END $$;
\pset format unaligned
\pset tuples_only on
GRANT REFERENCES ON qml.registrations_see_qml_drop_role_objects TO regress_qml_nologin;
SELECT changes, left(replace(h.broken(changes), session_user, '(user)'), 200) FROM unnest(ARRAY['registered_at = now()', 'schema = ''nonesuch''', 'schema = ''''', 'name = ''''', 'name = repeat(''x'', 100)', 'schema = repeat(''ü'', 100)', 'argument_types = ''{}''', 'argument_types = ''{integer}''',
	'argument_types = ''{int,text}''', 'argument_types = ''{pg_catalog.int4,pg_catalog.text}''', 'argument_types = ''{integer,nonesuch}''',
	'argument_types = array_fill(''integer''::text, ARRAY[200])', 'argument_types = ''{{integer,text}}''', 'argument_types = ''{integer,h.table}''', 'argument_types = ''{integer,"numeric(("}''',
	'name = ''nothing'', argument_types = ''{}''', 'name = ''set'', argument_types = ''{jsonb}''', 'run_as = 0', 'registered_by = 0', 'owner = 0', 'owner = ''regress_qml_other''', 'run_as = ''regress_qml_nologin''']) WITH ORDINALITY c (changes, n) ORDER BY n;
\pset format aligned
\pset tuples_only off

-------------------------------------------------------------------------------
-- Many
-------------------------------------------------------------------------------

BEGIN;
DO $$
BEGIN
	FOR i IN 1..300 LOOP
		PERFORM qml_register_handler('many ' || i, 'h.typed', jsonb_build_object('queue', 'q' || i % 3, 'max_retries', i));
	END LOOP;
END $$;
-- What is remembered grows with their number, not with its square
SELECT sum(total_bytes) < 10000000 AS bounded FROM pg_backend_memory_contexts WHERE name ~ '^qml handler';
COMMIT;
SELECT sum(total_bytes) < 5000000 AS bounded FROM pg_backend_memory_contexts WHERE name ~ '^qml handler';
SELECT count(*), count(problem) FROM h.registered WHERE method ~ 'many';
SELECT count(*) FROM generate_series(1, 300) n, LATERAL qml_job(qml_enqueue('many ' || n, '{"a": 1}')) j WHERE j.queue = 'q' || n % 3 AND j.max_retries = n;
SELECT h.put('many 77', '{}');
-- Changes of other objects, which a function may depend on
BEGIN;
DO $$
BEGIN
	FOR i IN 1..200 LOOP
		EXECUTE format('CREATE TYPE h.e%s AS ENUM ()', i);
		PERFORM qml_enqueue('many 1', '{"a": 1}');
	END LOOP;
END $$;
SELECT sum(total_bytes) < 10000000 AS bounded FROM pg_backend_memory_contexts WHERE name ~ '^qml handler';
ROLLBACK;
-- ... or not: registered again and again
BEGIN;
DO $$
BEGIN
	FOR i IN 1..300 LOOP
		PERFORM qml_register_handler('many 1', CASE i % 2 WHEN 0 THEN 'h.typed' ELSE 'h.payload' END);
		PERFORM qml_enqueue('many 1', '{"a": 1}');
	END LOOP;
END $$;
SELECT sum(total_bytes) < 10000000 AS bounded FROM pg_backend_memory_contexts WHERE name ~ '^qml handler';
ROLLBACK;
SELECT h.put('many 1', '{}');
SELECT count(*) FROM unnest(array(SELECT method FROM qml.handler_data WHERE method ~ 'many')) m WHERE qml_unregister_handler(m);
SELECT h.put('many 1', '{}');
SELECT qml_register_handler('last', 'h.payload'), h.put('last', '1'), qml_unregister_handler('last');
SELECT h.put('last', '1');
SELECT count(*) < 100 AS few FROM pg_backend_memory_contexts WHERE name ~ '^qml handler';

-- A function that only this session has
CREATE FUNCTION pg_temp.mine(jsonb) RETURNS void LANGUAGE sql AS '';
SELECT split_part(t.try('SELECT qml_register_handler(''temporary'', ''pg_temp.mine'')'), E'\n', 2) AS refused;

SELECT t.reset();
SET client_min_messages = warning;
DROP SCHEMA h CASCADE;
RESET client_min_messages;
REVOKE ALL ON SCHEMA t FROM PUBLIC;
DROP OWNED BY regress_qml_admin, regress_qml_app, regress_qml_other, regress_qml_nologin, regress_qml_root;
DROP ROLE regress_qml_admin, regress_qml_app, regress_qml_other, regress_qml_nologin, regress_qml_root;
