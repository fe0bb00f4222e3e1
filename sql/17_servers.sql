--
-- Servers: groups of workers that register, beat, are found dead, and give their
-- jobs back.
--
SELECT t.reset();
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- A server, as if it had been silent for so long
CREATE FUNCTION t.silent(server text, since interval) RETURNS void LANGUAGE sql
AS $$ UPDATE qml.server_data SET heartbeat_at = clock_timestamp() - since WHERE id = server $$;
-- Jobs with what their attempts came to
CREATE FUNCTION t.jobs() RETURNS TABLE (n int, queue text, state qml.job_state, attempt int, server text, worker text, error text, types text, ready boolean) LANGUAGE sql
AS $$ SELECT t.n(id), queue, state, attempt, regexp_replace(server, ':.*', ''), regexp_replace(worker, ':\w*', ''), error,
		(SELECT string_agg(concat_ws(' ', e ->> 'attempt', e ->> 'error_type', regexp_replace(e ->> 'worker', ':\w*', '')), ', ' ORDER BY k) FROM jsonb_array_elements(errors) WITH ORDINALITY x (e, k)),
		run_at IS NULL AND lease_expires_at IS NULL
	FROM qml.job ORDER BY id $$;

-- Registering: an id of its own, also under a name that is there already
SELECT qml_register_server('alpha') AS alpha \gset
SELECT qml_register_server('alpha', 4, '{a,b}') AS alpha2 \gset
SELECT qml_register_server(repeat('ü', 128), 100000, '{c}') AS long \gset
SELECT :'alpha' ~ '^alpha:[0-9a-f]{12}$' AS id_of_name, :'alpha' <> :'alpha2' AS another, length(:'long');
SELECT left(name, 5) AS name, kind, workers, queues, registered_by, started_at = heartbeat_at AS new, now() - started_at < interval '1 min' AS of_now, alive FROM qml.server ORDER BY workers;
SELECT qml_unregister_server(:'long'), qml_unregister_server(:'long', missing_ok => true);
-- Queues need not exist
SELECT count(*) FROM qml.queue_data;

-- A heartbeat
SELECT t.silent(:'alpha', '59 s'), t.silent(:'alpha2', '61 s');
SELECT id = :'alpha' AS first, alive FROM qml.server ORDER BY workers;
SELECT qml_heartbeat_server(:'alpha2');
SELECT id = :'alpha2' AS second, alive, heartbeat_at > clock_timestamp() - interval '30 s' AS of_now, started_at < heartbeat_at AS later FROM qml.server ORDER BY workers;
SELECT t.try('SELECT qml_heartbeat_server(''alpha'')');
SELECT t.code('SELECT qml_unregister_server(''nosuch:1'')'), t.code('SELECT qml_reclaim_server(''nosuch:1'')'), t.code('SELECT qml_heartbeat_server(''nosuch:1'', NULL)');
SELECT qml_heartbeat_server('nosuch:1', missing_ok => true), qml_heartbeat_server(upper(:'alpha'), missing_ok => true);

-- Its workers name it, up to the first slash
SELECT count(qml_enqueue('m', id => t.id(n), queue => 'a', max_retries => CASE WHEN n = 3 THEN 0 ELSE 2 END)) FROM generate_series(1, 8) n;
SELECT t.n(id), server = :'alpha' AS of_alpha, worker = :'alpha' || '/w1' AS as_named FROM qml_fetch(:'alpha' || '/w1', batch => 3);
SELECT t.n(id), server = :'alpha' AS of_alpha, worker = :'alpha' || '/a/b' AS as_named FROM qml_fetch(:'alpha' || '/a/b');
SELECT t.n(id), server = :'alpha2' AS of_alpha2 FROM qml_fetch(:'alpha2' || '/');
-- No server: without a slash, or with nothing before it
SELECT t.n(id), server, worker = :'alpha' AS as_named FROM qml_fetch(:'alpha');
SELECT t.n(id), server, worker FROM qml_fetch('/w');
SELECT t.n(id), server, worker FROM qml_fetch('other/w');
SELECT qml_succeed(t.id(2), 1);

-- Given up: what its workers hold comes back, or fails for want of retries; nobody else's
SELECT t.everything() AS before \gset
BEGIN;
SELECT qml_reclaim_server(:'alpha') AS three;
SELECT * FROM t.jobs();
ROLLBACK;
SELECT t.everything() = :'before' AS unchanged;
SELECT qml_reclaim_server(:'alpha') AS three, qml_reclaim_server(:'alpha') AS none;
SELECT * FROM t.jobs();
SELECT id = :'alpha2' AS second, alive FROM qml.server ORDER BY workers;
-- The old tokens are void; others' are not
SELECT t.code('SELECT qml_succeed(t.id(1), 1)'), t.code('SELECT qml_heartbeat(t.id(3), 1)'), t.code('SELECT qml_fail(t.id(4), 1, ''e'')');
SELECT qml_heartbeat(t.id(5), 1) > now() AS holds;
-- It is told, once and for all, and registers again
SELECT qml_heartbeat_server(:'alpha'), qml_heartbeat_server(:'alpha');
SELECT alive FROM qml.server WHERE id = :'alpha';
SELECT qml_register_server('alpha') AS alpha3 \gset
SELECT qml_heartbeat_server(:'alpha3');
-- A worker that does not know yet takes jobs still; they come back with the next call
SELECT t.n(id), attempt FROM qml_fetch(:'alpha' || '/w1');
SELECT qml_reclaim_server(:'alpha') AS one;
-- A server that nobody registered may hold jobs as well
SELECT qml_reclaim_server('other', missing_ok => true) AS one, qml_reclaim_server('nosuch:1', missing_ok => true) AS none, qml_heartbeat_server('other', missing_ok => true);
SELECT * FROM t.jobs() WHERE n IN (1, 8);

-- Silent for longer than qml.dead_server_timeout: found by qml_reclaim, with no regard to leases
SELECT t.reset();
SELECT qml_register_server('a', 1) AS a \gset
SELECT qml_register_server('b', 2) AS b \gset
SELECT qml_register_server('c', 3) AS c \gset
SELECT count(qml_enqueue('m', id => t.id(n), queue => 'q', max_retries => 2)) FROM generate_series(1, 6) n;
SELECT count(*) FROM qml_fetch(:'a' || '/w', batch => 2, lease => '1 day');
SELECT count(*) FROM qml_fetch(:'b' || '/w', batch => 2, lease => '1 day');
SELECT count(*) FROM qml_fetch(:'c' || '/w', batch => 1, lease => '1 day');
SELECT count(*) FROM qml_fetch('w', batch => 1, lease => '1 us');
SELECT t.silent(:'a', '61 s'), t.silent(:'b', '59 s'), t.silent(:'c', '1 year');
SELECT name, alive FROM qml.server ORDER BY name;
-- What it counts: jobs of dead servers, and those whose lease is over
SELECT qml_reclaim() AS four, qml_reclaim() AS none;
SELECT * FROM t.jobs();
SELECT name, alive, qml_heartbeat_server(id) FROM qml.server ORDER BY name;
-- qml_maintain does so too
SELECT count(*) FROM qml_fetch(:'b' || '/w', batch => 9, lease => '1 day');
SELECT t.silent(:'b', '70 s');
SELECT qml_maintain() ->> 'reclaimed' AS six, qml_maintain() ->> 'reclaimed' AS none;
SELECT n, state, attempt, types FROM t.jobs();
-- Until no retry is left
SELECT qml_register_server('b', 2) AS b \gset
SELECT count(*) FROM qml_fetch(:'b' || '/w', batch => 9);
SELECT t.silent(:'b', '70 s');
SELECT qml_reclaim() AS six;
SELECT n, state, attempt, error, types FROM t.jobs();
SELECT name, alive, qml_heartbeat_server(id) FROM qml.server ORDER BY name, started_at;
-- A heartbeat with a clock that was set back: alive for as long as it says
SELECT qml_register_server('future') AS future \gset
SELECT t.silent(:'future', '-1 h');
SELECT alive FROM qml.server WHERE id = :'future';
SELECT qml_reclaim(), qml_heartbeat_server(:'future');
SELECT heartbeat_at < now() + interval '1 min' AS of_now FROM qml.server WHERE id = :'future';
-- The dead can be seen for a day
UPDATE qml.server_data SET dead_at = now() - interval '23 h' WHERE id = :'a';
UPDATE qml.server_data SET dead_at = now() - interval '25 h' WHERE id = :'c';
SELECT qml_cleanup() AS counts_no_servers;
SELECT name, alive FROM qml.server ORDER BY name, started_at;
-- One without jobs leaves no less
SELECT qml_reclaim_server(:'future') AS none, qml_heartbeat_server(:'future');

-- Leaving: jobs that are held still come back
SELECT t.reset();
SELECT qml_register_server('a') AS a \gset
SELECT count(qml_enqueue('m', id => t.id(n), queue => 'q', max_retries => n)) FROM generate_series(0, 2) n;
SELECT count(*) FROM qml_fetch(:'a' || '/w', batch => 3);
SELECT qml_succeed(t.id(2), 1);
SELECT qml_unregister_server(:'a'), qml_unregister_server(:'a', true), qml_heartbeat_server(:'a', true);
SELECT * FROM t.jobs();
SELECT count(*) FROM qml.server;
-- Also one that is dead
SELECT qml_register_server('a') AS a \gset
SELECT qml_reclaim_server(:'a');
SELECT qml_unregister_server(:'a');
SELECT count(*) FROM qml.server;

-- Whose server it is
SELECT t.reset();
CREATE ROLE regress_qml_a;
CREATE ROLE regress_qml_b;
SELECT qml_grant('regress_qml_a', 'work', 'q'), qml_grant('regress_qml_b', 'work', 'q');
SET ROLE regress_qml_a;
SELECT qml_register_server('s') AS s \gset
SELECT qml_heartbeat_server(:'s');
SELECT name, registered_by, alive FROM qml.server;
SET ROLE regress_qml_b;
SELECT qml_heartbeat_server(:'s');
SELECT qml_unregister_server(:'s');
SELECT qml_reclaim_server(:'s');
SELECT qml_reclaim_server('other', missing_ok => true);
RESET ROLE;
-- Without the capability it cannot go on, but administrators can
SELECT qml_revoke('regress_qml_a', 'work'), qml_revoke('regress_qml_b', 'work'), qml_grant('regress_qml_b', 'admin');
SET ROLE regress_qml_a;
SELECT qml_heartbeat_server(:'s');
SET ROLE regress_qml_b;
SELECT qml_heartbeat_server(:'s');
RESET ROLE;
-- The role is gone, the server is not
DROP OWNED BY regress_qml_a;
DROP ROLE regress_qml_a;
SELECT name, registered_by ~ '^unknown' AS unknown, alive FROM qml.server;
SELECT t.silent(:'s', '2 min');
SELECT qml_reclaim();
SELECT qml_heartbeat_server(:'s'), qml_unregister_server(:'s');
DROP OWNED BY regress_qml_b;
DROP ROLE regress_qml_b;

-- Bad input
SELECT qml_register_server('s') AS s \gset
SELECT t.everything() AS before \gset
\pset format unaligned
\pset tuples_only on
SELECT left(sql, 80), t.try(sql) FROM unnest(ARRAY[
	'SELECT qml_register_server(NULL)', 'SELECT qml_register_server(''s'', NULL)', 'SELECT qml_register_server(''s'', 1, ARRAY[''q'', NULL])',
	'SELECT qml_register_server('''')', 'SELECT qml_register_server(repeat(''ü'', 129))', E'SELECT qml_register_server(''a\tb'')', 'SELECT qml_register_server(''a/b'')', 'SELECT qml_register_server(''/'')',
	'SELECT qml_register_server(''s'', 0)', 'SELECT qml_register_server(''s'', -1)', 'SELECT qml_register_server(''s'', 100001)',
	'SELECT qml_register_server(''s'', 1, ''{}'')', 'SELECT qml_register_server(''s'', 1, ''{{q},{r}}'')', 'SELECT qml_register_server(''s'', 1, ARRAY[''''])', 'SELECT qml_register_server(''s'', 1, ARRAY[repeat(''q'', 129)])', E'SELECT qml_register_server(''s'', 1, ARRAY[''a\nb''])',
	'SELECT qml_heartbeat_server(NULL)', 'SELECT qml_heartbeat_server('''')', 'SELECT qml_heartbeat_server(repeat(''x'', 256))', E'SELECT qml_heartbeat_server(''a\nb'')',
	'SELECT qml_unregister_server(NULL)', 'SELECT qml_unregister_server('''')', 'SELECT qml_unregister_server(repeat(''x'', 256))',
	'SELECT qml_reclaim_server(NULL)', 'SELECT qml_reclaim_server('''')', 'SELECT qml_reclaim_server(repeat(''x'', 256))'
]) WITH ORDINALITY s (sql, n) ORDER BY n;
\pset format aligned
\pset tuples_only off
-- Read-only transactions, and a copy
BEGIN READ ONLY;
SELECT count(*) FROM qml.server;
SELECT t.code('SELECT qml_register_server(''s'')'), t.code(format('SELECT qml_heartbeat_server(%L)', :'s')), t.code(format('SELECT qml_unregister_server(%L)', :'s')), t.code(format('SELECT qml_reclaim_server(%L)', :'s'));
COMMIT;
SELECT t.everything() = :'before' AS unchanged;
UPDATE qml.instance_data SET system_identifier = 1;
SELECT t.code(format('SELECT qml_reclaim_server(%L)', :'s')), t.code(format('SELECT qml_heartbeat_server(%L)', :'s'));
SELECT qml_adopt();
-- What is asked of the view's functions
SELECT qml.is_alive(now(), NULL), qml.is_alive(now() - interval '61 s', NULL), qml.is_alive(now(), now()), qml.is_alive(NULL, NULL), qml.is_alive('infinity', NULL), qml.is_alive('-infinity', NULL);
-- Without the library preloaded there are no background processes
SELECT count(*) FROM qml.background_servers();
SELECT name = current_database() AS own, state, workers, waiting_roles, served_at, due_at, problem FROM qml.database;

SELECT t.reset();
DROP FUNCTION t.silent, t.jobs;
