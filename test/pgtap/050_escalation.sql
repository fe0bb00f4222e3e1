-- Attempts to run code, or to act, with the rights of another.
--
-- qml runs some SQL as the owner of its tables.  The caller chooses search_path
-- and other settings, owns schemas and temporary tables, and picks names; none of
-- that may reach what runs with the owner's rights.  A canary tells when a
-- function of the attacker runs as anybody but the attacker: it counts in a
-- sequence, which no rollback undoes.

\ir include/start.sql

CREATE ROLE t_evil LOGIN;
CREATE ROLE t_victim;
CREATE ROLE t_weak;
CREATE SCHEMA evil AUTHORIZATION t_evil;
CREATE SCHEMA canary;
GRANT USAGE ON SCHEMA canary, evil TO PUBLIC;
CREATE SEQUENCE canary.hits;
CREATE SEQUENCE canary.calls;
GRANT ALL ON canary.hits, canary.calls TO PUBLIC;

CREATE FUNCTION canary.sing() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_catalog.nextval('canary.calls');
	IF current_user OPERATOR(pg_catalog.<>) 't_evil'::pg_catalog.name THEN
		PERFORM pg_catalog.nextval('canary.hits');
	END IF;
END $$;
CREATE FUNCTION pg_temp.hits() RETURNS bigint LANGUAGE sql AS $$
	SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM canary.hits
$$;

-------------------------------------------------------------------------------
-- The attacker's schema: everything that an unqualified name could catch
-------------------------------------------------------------------------------

SET LOCAL ROLE t_evil;
CREATE FUNCTION evil.trap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM canary.sing();
	RETURN NULL;
END $$;
DO $$
DECLARE
	f record;
	o record;
BEGIN
	-- Each built-in function that qml's own SQL calls, by the same signature.
	FOR f IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS args, p.pronargs, p.prorettype::regtype AS result,
			p.proretset, ARRAY(SELECT t::regtype::text FROM unnest(p.proargtypes) t) AS types
		FROM pg_proc p
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.provariadic <> 0
			AND p.proname IN ('now', 'nextval', 'statement_timestamp', 'clock_timestamp', 'transaction_timestamp',
				'jsonb_strip_nulls', 'unnest', 'enum_range', 'pg_get_userbyid', 'current_database', 'has_table_privilege',
				'current_setting', 'set_config', 'pg_has_role', 'pg_control_system', 'array_to_string')
			AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) t WHERE t = 'internal'::regtype)
	LOOP
		EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS '
			'''BEGIN PERFORM canary.sing(); RETURN %s; END''', f.proname, array_to_string(f.types, ', '),
			CASE WHEN f.proretset THEN 'SETOF' END, f.result, CASE WHEN f.proretset THEN '' ELSE 'NULL' END);
	END LOOP;
	-- And the operators, also in forms that match better than the built-in ones.
	FOR o IN SELECT * FROM (VALUES ('=', 'text', 'text'), ('=', 'int4', 'int4'), ('=', 'oid', 'oid'), ('=', 'regrole', 'regrole'),
			('=', 'regrole', 'oid'), ('=', 'bool', 'bool'), ('=', 'uuid', 'uuid'), ('=', 'qml.job_state', 'qml.job_state'),
			('=', 'name', 'name'), ('=', 'name', 'text'), ('=', 'jsonb', 'jsonb'), ('<', 'int4', 'int4'), ('*', 'interval', 'int4'), ('-', 'timestamptz', 'interval'), ('=', 'int8', 'int8'), ('=', 'anyelement', 'anyelement'), ('=', 'anyenum', 'anyenum'),
			('<>', 'text', 'text'), ('<>', 'name', 'name'), ('<=', 'timestamptz', 'timestamptz'), ('>', 'timestamptz', 'timestamptz'),
			('<', 'timestamptz', 'timestamptz'), ('>=', 'timestamptz', 'timestamptz'), ('>', 'int4', 'int4'),
			('||', 'jsonb', 'jsonb'), ('->', 'jsonb', 'int4'), ('->>', 'jsonb', 'text'), ('*', 'int4', 'interval'),
			('+', 'timestamptz', 'interval'), ('-', 'int4', 'int4')) v (name, l, r)
		WHERE l <> 'qml.job_state'
	LOOP
		EXECUTE format('CREATE FUNCTION evil.%I(l %s, r %s) RETURNS %s LANGUAGE plpgsql AS '
			'''BEGIN PERFORM canary.sing(); RETURN NULL; END''', 'op ' || o.name, o.l, o.r,
			CASE WHEN o.name IN ('=', '<>', '<', '<=', '>', '>=') THEN 'bool' WHEN o.name = '->>' THEN 'text'
				WHEN o.name = '*' THEN 'interval' WHEN o.name = '+' THEN 'timestamptz' WHEN o.name = '-' THEN 'int4' ELSE 'jsonb' END);
		EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.%I)', o.name, o.l, o.r, 'op ' || o.name);
	END LOOP;
	CREATE FUNCTION evil.count_step(bigint) RETURNS bigint LANGUAGE plpgsql AS
		'BEGIN PERFORM canary.sing(); RETURN 0; END';
	CREATE AGGREGATE evil.count(*) (SFUNC = evil.count_step, STYPE = bigint, INITCOND = '0');
	CREATE FUNCTION evil.min_step(pg_catalog.timestamptz, pg_catalog.timestamptz) RETURNS pg_catalog.timestamptz LANGUAGE plpgsql AS
		'BEGIN PERFORM canary.sing(); RETURN NULL; END';
	CREATE AGGREGATE evil.min(pg_catalog.timestamptz) (SFUNC = evil.min_step, STYPE = pg_catalog.timestamptz);
	CREATE DOMAIN evil.text AS pg_catalog.text CHECK (canary.sing() IS NULL);
	CREATE DOMAIN evil.regrole AS pg_catalog.regrole CHECK (canary.sing() IS NULL);
	CREATE DOMAIN evil.timestamptz AS pg_catalog.timestamptz CHECK (canary.sing() IS NULL);
	CREATE DOMAIN evil.jsonb AS pg_catalog.jsonb CHECK (canary.sing() IS NULL);
	CREATE TYPE evil.job_state AS ENUM ('scheduled');
END $$;
-- Handlers of the attacker, with types whose conversion would call the trap.
CREATE TYPE evil.pair AS (x evil.text);
CREATE TYPE evil.spread AS RANGE (SUBTYPE = pg_catalog.int4);
CREATE FUNCTION evil.work(payload pg_catalog.jsonb) RETURNS void LANGUAGE sql AS 'SELECT canary.sing()';
CREATE FUNCTION evil.typed(a pg_catalog.int4, d evil.text, p evil.pair, l evil.text[], s evil.spread,
	e evil.text DEFAULT canary.sing()::pg_catalog.text) RETURNS void LANGUAGE sql AS 'SELECT canary.sing()';
RESET ROLE;

-- Tables under the names of qml's, in that schema and as temporary ones, with
-- triggers and defaults that sing.
CREATE FUNCTION pg_temp.shadow(schema text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	c record;
	temporary text := CASE schema WHEN 'pg_temp' THEN 'TEMP' ELSE '' END;
BEGIN
	FOR c IN SELECT relname, relkind FROM pg_class WHERE relnamespace = 'qml'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') LOOP
		IF c.relkind = 'S' THEN
			EXECUTE format('CREATE %s SEQUENCE %s.%I', temporary, schema, c.relname);
			EXECUTE format('GRANT ALL ON SEQUENCE %s.%I TO PUBLIC', schema, c.relname);
		ELSE
			EXECUTE format('CREATE %s TABLE %s.%I (LIKE qml.%I, extra bool DEFAULT (canary.sing() IS NULL))', temporary, schema,
				c.relname, c.relname);
			EXECUTE format('CREATE TRIGGER trap BEFORE INSERT OR UPDATE OR DELETE ON %s.%I EXECUTE FUNCTION evil.trap()',
				schema, c.relname);
			EXECUTE format('GRANT ALL ON %s.%I TO PUBLIC', schema, c.relname);
		END IF;
	END LOOP;
END $$;
DO $$ BEGIN PERFORM pg_temp.shadow('evil'), pg_temp.shadow('pg_temp'); END $$;

SET LOCAL ROLE t_evil;
SET LOCAL search_path = evil, pg_catalog;
SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text \g /dev/null
RESET ROLE;
SET LOCAL search_path = public, tap;
SELECT is((SELECT last_value FROM canary.calls), 1::bigint, 'the traps are set: the attacker springs one herself');
SELECT is(pg_temp.hits(), 0::bigint, 'which is no hit');

-------------------------------------------------------------------------------
-- Every path that runs SQL, with a hostile search_path
-------------------------------------------------------------------------------

DO $$ BEGIN PERFORM qml_grant('t_evil', 'admin'); END $$;
-- The attacker would be told of all that happens below, in whoever's session: by a hook and
-- a middleware from a time when she was a member of the owner.
SET LOCAL ROLE t_evil;
CREATE FUNCTION evil.after(pg_catalog.jsonb) RETURNS void LANGUAGE sql AS 'SELECT canary.sing()';
CREATE FUNCTION evil.tell(qml.job, qml.job_state, qml.job_state) RETURNS void LANGUAGE sql AS 'SELECT canary.sing()';
CREATE FUNCTION evil.wrap(qml.job) RETURNS pg_catalog.jsonb LANGUAGE sql AS 'SELECT canary.sing(); SELECT public.qml_next()';
SELECT qml_register_hook('after', 'evil.after', options => '{"after_commit": true}'), qml_register_middleware('evil', 'evil.wrap') \g /dev/null
RESET ROLE;
INSERT INTO qml.hook_data (name, schema, function, argument_types, owner, run_as, registered_at)
	VALUES ('evil', 'evil', 'tell', '{qml.job,qml.job_state,qml.job_state}', 't_evil', 't_evil', now());
SELECT is((SELECT problem FROM qml.hook WHERE name = 'evil'), format('hook "evil" is passed over: Role "t_evil", which registered it, '
	'does not have the privileges of role "%s", which owns the extension.', current_user), 'a hook of the attacker is not called');
-- Something for cleanup to drop, a tick to fire, and servers to beat and to give up.
INSERT INTO qml.occurrence_data VALUES ('2001-01-01', 'old', gen_random_uuid(), '2001-01-01',
	(floor(extract(epoch FROM now() - '2000-01-01 UTC') / 86400)::int + 2) % 3, 'late');
INSERT INTO qml.server_data (id, name, workers, registered_by, registered_at, heartbeat_at, dead_at) VALUES
	('evil:1', 'evil', 1, 't_evil', now(), now(), NULL),
	('old:1', 'old', 1, 't_evil', '2001-01-01', '2001-01-01', '2001-01-02'),
	('silent:1', 'silent', 1, 't_evil', '2001-01-01', '2001-01-01', NULL);
SELECT qml_schedule_recurring('due', '0 * * * * *', 'm', queue => 'a6') \g /dev/null
UPDATE qml.recurring_data SET next_run_at = date_trunc('minute', now());
CREATE TABLE qml.history_old PARTITION OF qml.history FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');
CREATE INDEX ON qml.history_old (id);
INSERT INTO qml.lock_data VALUES ('old', 'o', current_user::regrole, 0, '2001-01-01', '2001-01-02');

CREATE TEMP TABLE attack (n int GENERATED ALWAYS AS IDENTITY, call text, owner_only boolean DEFAULT false,
	evil_only boolean DEFAULT false);
INSERT INTO attack (call) VALUES
	($$SELECT public.qml_create_queue('a1', '{"max_retries": 1, "succeeded_ttl": "40 days", "failed_ttl": "400 days"}')$$),
	($$SELECT public.qml_alter_queue('a1', '{"max_retries": 2}')$$),
	($$SELECT public.qml_pause_queue('a1')$$),
	($$SELECT public.qml_resume_queue('a1')$$),
	($$SELECT public.qml_pause_all('r')$$),
	($$SELECT public.qml_resume_all()$$),
	($$SELECT public.qml_enqueue('m', queue => 'a2')$$),
	($$SELECT public.qml_enqueue('m', queue => 'a1', id => '00000000-0000-7000-8000-0000000000e1')$$),
	($$SELECT public.qml_enqueue_many('m', '{1,2}', queue => 'a3')$$),
	($$SELECT public.qml_fetch('w', '{a1}')$$),
	($$SELECT public.qml_heartbeat('00000000-0000-7000-8000-0000000000e1', 1)$$),
	($$SELECT public.qml_heartbeat_many('{00000000-0000-7000-8000-0000000000e1}', '{1}')$$),
	($$SELECT public.qml_progress('00000000-0000-7000-8000-0000000000e1', 1, '1')$$),
	($$SELECT public.qml_release('00000000-0000-7000-8000-0000000000e1', 1)$$),
	($$SELECT public.qml_reschedule('00000000-0000-7000-8000-0000000000e1', '2999-01-01')$$),
	($$SELECT public.qml_update_job('00000000-0000-7000-8000-0000000000e1', '{"payload": {"x": 1}, "run_at": null, "priority": 3, "metadata": {"a": 1}}')$$),
	($$SELECT public.qml_peek('a1')$$),
	($$SELECT public.qml_retry('00000000-0000-7000-8000-0000000000e1')$$),
	($$SELECT public.qml_fetch('w', '{a1}')$$),
	($$SELECT public.qml_fail('00000000-0000-7000-8000-0000000000e1', 2, 'e', retry => false)$$),
	($$SELECT public.qml_job('00000000-0000-7000-8000-0000000000e1')$$),
	($$SELECT public.qml_retry('00000000-0000-7000-8000-0000000000e1')$$),
	($$SELECT public.qml_fetch('w', '{a1}')$$),
	($$SELECT public.qml_succeed('00000000-0000-7000-8000-0000000000e1', 3, '1')$$),
	($$SELECT public.qml_delete('00000000-0000-7000-8000-0000000000e1')$$),
	($$SELECT public.qml_set_state(public.qml_enqueue('m', queue => 'a1'), 'failed')$$),
	($$SELECT public.qml_cancel(public.qml_enqueue('m', queue => 'a1'), 'r')$$),
	($$SELECT public.qml_enqueue('m', queue => 'a1', delay => '1 h')$$),
	($$SELECT public.qml_purge_queue('a1', 'r')$$),
	($$SELECT public.qml_pause_bulk(public.qml_bulk('redrive', 'queue:a1 payload.x:1', '{"queue": "a1", "patch": {"x": 2}}'), 'r')$$),
	($$SELECT public.qml_bulk_preview('retry', 'queue:a1')$$),
	($$SELECT public.qml_succeed_many('{}', '{}')$$),
	($$SELECT public.qml_succeed_fetch_many('{}', '{}', queues => 'a1')$$),
	($$SELECT public.qml_counts()$$),
	($$SELECT public.qml_queue_counts()$$),
	($$SELECT public.qml_try_lock('r', 'o', '1 minute')$$),
	($$SELECT public.qml_try_lock('old', 'o', '1 minute')$$),
	($$SELECT public.qml_unlock('r', 'o')$$),
	($$SELECT public.qml_promote_due()$$),
	($$SELECT public.qml_reclaim()$$),
	($$SELECT public.qml_cleanup()$$),
	($$SELECT public.qml_maintain()$$),
	($$SELECT public.qml_adopt()$$),
	($$SELECT public.qml_schedule_recurring('r', '@daily', 'm', queue => 'a4', misfire => 'fire_all')$$),
	($$SELECT public.qml_schedule_recurring('r', '@daily', 'm', queue => 'a4', misfire => 'fire_all')$$),
	($$SELECT public.qml_schedule_recurring('r', '@hourly', 'm', '1', queue => 'a5', metadata => '{"a": 1}')$$),
	($$SELECT public.qml_pause_recurring('r')$$),
	($$SELECT public.qml_resume_recurring('r')$$),
	($$SELECT public.qml_run_recurring('r')$$),
	($$SELECT public.qml_cron_next('@daily')$$),
	($$SELECT public.qml_poll_recurring()$$),
	($$SELECT public.qml_remove_recurring('r')$$),
	($$SELECT public.qml_register_server('s', 2, '{a1}')$$),
	($$SELECT public.qml_heartbeat_server('evil:1')$$),
	($$SELECT public.qml_reclaim_server('evil:1')$$),
	($$SELECT public.qml_heartbeat_server('evil:1')$$),
	($$SELECT public.qml_unregister_server('evil:1')$$),
	($$TABLE qml.recurring$$),
	($$TABLE qml.server$$),
	($$SELECT public.qml_register_handler('h1', 'evil.work(pg_catalog.jsonb)'::pg_catalog.regprocedure, '{"run_as": "t_evil"}')$$),
	($$SELECT public.qml_register_handler('h2', 'evil.typed', '{"run_as": "t_evil", "queue": "a7", "max_retries": 1}')$$),
	($$SELECT public.qml_register_handler('h2', 'evil.typed', '{"run_as": "t_evil", "queue": "a8"}')$$),
	($$CALL public.qml_enqueue_job('m', queue => 'a9')$$),
	($$SELECT public.qml_release_many(ARRAY[id], ARRAY[attempt]) FROM public.qml_fetch('w', '{a9}')$$),
	($$SELECT public.qml_release(id, attempt, '2000-01-01', 'r') FROM public.qml_fetch('w', '{a9}')$$),
	($$SELECT public.qml_fail_many(ARRAY[id], ARRAY[attempt], '{e}', retry_at => '2000-01-01') FROM public.qml_fetch('w', '{a9}')$$),
	($$SELECT public.qml_enqueue('h1', '{"a": 1}')$$),
	($$SELECT public.qml_enqueue('h2', '{"a": 1, "d": "x", "p": {"x": "y"}, "l": ["z"], "s": "[1,2]"}')$$),
	($$SELECT public.qml_enqueue_many('h2', ARRAY['{"a": 1, "d": "x", "p": {"x": "y"}, "l": ["z"], "s": "[1,2]", "e": "x"}']::pg_catalog.jsonb[])$$),
	($$SELECT public.qml_schedule_recurring('rh', '@daily', 'h2', '{"a": 1, "d": "x", "p": {"x": "y"}, "l": ["z"], "s": "[1,2]"}')$$),
	($$SELECT public.qml_run_recurring('rh')$$),
	($$SELECT public.qml_remove_recurring('rh')$$),
	($$SELECT public.qml_fail(id, attempt, 'e', 'E') FROM public.qml_fetch('w', '{default,a8}', 10)$$),
	($$TABLE qml.handler$$),
	($$TABLE qml.hook$$),
	($$TABLE qml.middleware$$),
	($$SELECT public.qml_unregister_hook('evil')$$),
	($$SELECT public.qml_unregister_middleware('evil')$$),
	($$SELECT public.qml_register_command('h3', 'SELECT evil.work()', '{"run_as": "t_evil"}')$$),
	($$SELECT public.qml_enqueue('h3')$$),
	($$SELECT public.qml_unregister_handler('h3')$$),
	($$SELECT public.qml_unregister_handler('h1')$$),
	($$SELECT public.qml_unregister_handler('h2')$$),
	($$SELECT public.qml_drop_queue('a1')$$),
	($$TABLE qml.job$$),
	($$TABLE qml.queue$$),
	($$TABLE qml.recent$$),
	($$TABLE qml.lock$$),
	($$TABLE qml.pause$$),
	($$TABLE qml.audit$$),
	($$TABLE qml.acl$$);
INSERT INTO attack (call, owner_only) VALUES
	($$SELECT public.qml_grant('t_weak', 'work', 'a2')$$, true),
	($$SELECT public.qml_grant('t_weak', 'enqueue')$$, true),
	($$SELECT public.qml_revoke('t_weak', 'work')$$, true),
	($$SELECT public.qml_drop_role_objects('t_weak')$$, true),
	($$SELECT public.qml_current_job()$$, true);

-- A superuser may not: the function is another's.
INSERT INTO attack (call, evil_only) VALUES
	($$SELECT public.qml_register_hook('k', 'evil.after', options => '{"after_commit": true}')$$, true),
	($$SELECT public.qml_register_hook('k', 'evil.after(pg_catalog.jsonb)'::pg_catalog.regprocedure, '{enqueued,processing,failed}', '{"after_commit": true, "with_payload": true}')$$, true),
	($$SELECT public.qml_register_middleware('k', 'evil.wrap')$$, true),
	($$SELECT public.qml_register_middleware('k', 'evil.wrap(qml.job)'::pg_catalog.regprocedure, 3)$$, true),
	($$SELECT public.qml_enqueue('m', queue => 'a2')$$, true);

-- One after the other in the hostile surroundings; says what went wrong.
CREATE FUNCTION pg_temp.assault(role name, path text, OUT call text, OUT problem text) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
	a record;
BEGIN
	BEGIN
		FOR a IN SELECT t.call FROM attack t WHERE CASE role WHEN 't_evil' THEN NOT t.owner_only ELSE NOT t.evil_only END ORDER BY t.n LOOP
			call := a.call;
			before := pg_temp.hits();
			problem := NULL;
			BEGIN
				EXECUTE format('SET LOCAL ROLE %I', role);
				PERFORM pg_catalog.set_config('search_path', path, true);
				EXECUTE a.call;
			EXCEPTION WHEN OTHERS THEN
				problem := sqlstate || ' ' || sqlerrm;
			END;
			PERFORM pg_catalog.set_config('search_path', 'public, tap', true);
			RESET ROLE;
			IF pg_temp.hits() > before THEN
				problem := concat_ws(', ', 'the canary sang', problem);
			END IF;
			RETURN NEXT;
		END LOOP;
		RAISE EXCEPTION USING errcode = 'T0000';
	EXCEPTION WHEN SQLSTATE 'T0000' THEN
		NULL;
	END;
END $$;

SELECT is(problem, NULL, format('%s, search_path %s: %s', a.role, a.path, call))
	FROM (VALUES
		('t_evil', 'evil, pg_catalog, pg_temp'),
		('t_evil', 'pg_temp, evil, pg_catalog'),
		(current_user::text, 'evil, pg_catalog, pg_temp'),
		(current_user::text, 'pg_temp, evil, pg_catalog'),
		(current_user::text, '')) a (role, path)
	CROSS JOIN LATERAL pg_temp.assault(a.role, a.path);
SELECT is(pg_temp.hits(), 0::bigint, 'the canary never sang');
SELECT is((SELECT last_value FROM canary.calls), 1::bigint, 'and nobody called the attacker''s functions');
SELECT qml_unregister_hook('evil'), qml_unregister_hook('after'), qml_unregister_middleware('evil') \g /dev/null
SELECT is_empty('TABLE evil.queue_data', 'nothing went into tables of the same name');
SELECT is_empty('TABLE evil.acl_data', 'nor rights');
SELECT is_empty('TABLE pg_temp.lock_data', 'nor locks into temporary ones');
SELECT is_empty('TABLE evil.recurring_data', 'nor schedules');
SELECT is_empty('TABLE pg_temp.occurrence_data', 'nor ticks');
SELECT is_empty('TABLE pg_temp.server_data', 'nor servers');
SELECT is_empty('TABLE evil.handler', 'nor handlers');
SELECT is_empty('TABLE evil.hook', 'nor hooks');
SELECT is_empty('TABLE pg_temp.middleware', 'nor middleware');

-- What the owner has registered, perhaps to watch her, she cannot switch off, nor with what she
-- puts in its place.
CREATE FUNCTION canary.watch(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION canary.wrap(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT public.qml_next()';
REVOKE EXECUTE ON FUNCTION canary.watch, canary.wrap FROM PUBLIC;
SELECT qml_register_hook('watch', 'canary.watch', '{deleted}'), qml_register_middleware('watch', 'canary.wrap') \g /dev/null
SELECT pg_temp.ends('t_evil', call, '42501', call)
	FROM unnest(ARRAY[
		$$SELECT qml_unregister_hook('watch')$$,
		$$SELECT qml_unregister_middleware('watch', true)$$,
		$$SELECT qml_register_hook('watch', 'evil.after', options => '{"after_commit": true}')$$,
		$$SELECT qml_register_hook('watch', 'evil.tell')$$,
		$$SELECT qml_register_middleware('watch', 'evil.wrap')$$,
		$$SELECT qml_register_middleware('watch', 'canary.wrap', 7)$$,
		format('SELECT qml_drop_role_objects(%L)', current_user)]) call;
SELECT bag_eq('SELECT name, run_as FROM qml.hook UNION ALL SELECT name, run_as FROM qml.middleware',
	format('VALUES (''watch'', %1$L), (''watch'', %1$L)', current_user), 'all of it is there');
SELECT qml_unregister_hook('watch'), qml_unregister_middleware('watch') \g /dev/null

-------------------------------------------------------------------------------
-- Settings of the caller
-------------------------------------------------------------------------------

-- Finishing a job makes a partition as the owner, who may use every tablespace
-- and access method; where it goes is not the caller's choice.
CREATE ACCESS METHOD evil_heap TYPE TABLE HANDLER heap_tableam_handler;
CREATE FUNCTION pg_temp.partition_with(setting text, value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	BEGIN
		PERFORM qml_create_queue('settings', '{"failed_ttl": "2000 days"}');
		SET LOCAL ROLE t_evil;
		PERFORM set_config(setting, value, true);
		PERFORM public.qml_enqueue('m', queue => 'settings', id => '00000000-0000-7000-8000-0000000000e2');
		PERFORM public.qml_set_state('00000000-0000-7000-8000-0000000000e2', 'failed');
		PERFORM pg_catalog.set_config('search_path', 'public, tap', true);
		RESET ROLE;
		SELECT format('%s, tablespace %s, owner %s', amname, reltablespace, relowner = (SELECT relowner FROM pg_class WHERE oid = 'qml.live'::regclass))
			INTO answer
			FROM qml.history h JOIN pg_class c ON c.oid = h.tableoid JOIN pg_am a ON a.oid = c.relam
			WHERE h.id = '00000000-0000-7000-8000-0000000000e2';
		RAISE EXCEPTION USING errcode = 'T0000';
	EXCEPTION WHEN SQLSTATE 'T0000' THEN
		NULL;
	WHEN OTHERS THEN
		answer := sqlstate || ' ' || sqlerrm;
	END;
	RETURN answer;
END $$;
SELECT is(pg_temp.partition_with(setting, value), 'heap, tablespace 0, owner t', format('a partition is made with %s = %L', setting, value))
	FROM (VALUES ('default_tablespace', 'pg_global'), ('default_table_access_method', 'evil_heap'), ('search_path', 'evil, pg_catalog'),
		('DateStyle', 'SQL, DMY'), ('IntervalStyle', 'sql_standard'), ('TimeZone', 'Pacific/Kiritimati'), ('TimeZone', 'Etc/GMT+12'),
		('standard_conforming_strings', 'off'), ('quote_all_identifiers', 'on'), ('transform_null_equals', 'on'),
		('row_security', 'off'), ('check_function_bodies', 'off'),
		('enable_partition_pruning', 'off')) v (setting, value);

-- Those of the background processes can only be set for the server as a whole.
SELECT pg_temp.ends('t_evil', format('SET LOCAL %s = DEFAULT', name), CASE context WHEN 'sighup' THEN '55P02' ELSE '42501' END,
	'an administrator of queues cannot set ' || name)
	FROM pg_settings WHERE name LIKE 'qml.%' AND context <> 'user';
SELECT set_eq($$SELECT name FROM pg_settings WHERE name LIKE 'qml.%' AND context = 'user'$$, ARRAY['qml.actor'],
	'but only what it says of itself');

-------------------------------------------------------------------------------
-- Names
-------------------------------------------------------------------------------

CREATE FUNCTION public.t_tell(qml.job, qml.job_state, qml.job_state) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION public.t_wrap(qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
REVOKE EXECUTE ON FUNCTION public.t_tell, public.t_wrap FROM PUBLIC;
CREATE TEMP TABLE odd_name (name text);
INSERT INTO odd_name VALUES ('a"b'), ('a''b'), ('a\b'), ('a;b'), ('$1'), ('$$'), ('$q$;DROP TABLE qml.live;$q$'), ('''; DROP TABLE qml.live; --'),
	('"; DROP SCHEMA qml CASCADE; --'), ('%s%n%I'), ('a/*b'), ('a  b'), ('*'), ('qml'), ('NULL'), ('ünï'), (repeat('ü', 128));

CREATE FUNCTION pg_temp.name_survives(name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	job uuid := gen_random_uuid();
	fetched qml.job;
	server text;
	good boolean;
BEGIN
	BEGIN
		PERFORM qml_create_queue(name);
		PERFORM qml_alter_queue(name, '{"max_retries": 0}');
		PERFORM qml_pause_queue(name);
		PERFORM qml_resume_queue(name);
		PERFORM qml_enqueue(name, queue => name, job_type => name, id => job);
		SELECT * INTO fetched FROM qml_fetch(name, ARRAY[name]);
		good := fetched.id = job AND fetched.queue = name AND fetched.method = name AND fetched.worker = name AND fetched.job_type = name;
		PERFORM qml_fail(job, 1, name, name, name);
		good := good AND (SELECT j.error = name AND j.errors -> 0 ->> 'error_type' = name FROM qml_job(job) j)
			AND (SELECT count(*) FROM qml_queue_counts() q WHERE q.queue = name) = 1
			AND qml_try_lock(name, name, '1 minute') IS NOT NULL
			AND qml_unlock(name, name)
			AND qml_schedule_recurring(name, '@daily', name, queue => name) > now();
		good := good AND (SELECT j.metadata -> 'recurring' ->> 'id' = name FROM qml_job(qml_run_recurring(name)) j)
			AND (SELECT count(*) FROM qml.recurring r WHERE r.id = name AND r.queue = name AND r.method = name) = 1
			AND qml_pause_recurring(name)
			AND qml_remove_recurring(name);
		PERFORM qml_register_handler(name, 'evil.work', jsonb_build_object('run_as', 't_evil', 'queue', name, 'non_retryable', jsonb_build_array(name)));
		good := good AND (SELECT count(*) FROM qml.handler h WHERE h.method = name AND h.problem IS NULL) = 1
			AND (SELECT j.queue = name FROM qml_job(qml_enqueue(name)) j)
			AND (SELECT qml_fail(id, attempt, 'e', name) FROM qml_fetch('w', ARRAY[name], 1, methods => ARRAY[name])) = 'failed'
			AND qml_unregister_handler(name);
		PERFORM qml_register_hook(name, 'public.t_tell'), qml_register_middleware(name, 'public.t_wrap');
		good := good AND (SELECT count(*) FROM qml.hook x WHERE x.name = name_survives.name AND x.problem IS NULL) = 1
			AND (SELECT count(*) FROM qml.middleware x WHERE x.name = name_survives.name AND x.problem IS NULL) = 1
			AND qml_delete(qml_enqueue(name))
			AND qml_unregister_hook(name)
			AND qml_unregister_middleware(name);
		server := qml_register_server(replace(name, '/', ''), queues => ARRAY[name]);
		SELECT * INTO fetched FROM qml_fetch(server || '/' || left(name, 100), ARRAY[name]);
		good := good AND fetched.server = server AND fetched.worker = server || '/' || left(name, 100)
			AND (SELECT count(*) FROM qml.server s WHERE s.id = server AND s.name = replace(name_survives.name, '/', '') AND s.queues = ARRAY[name_survives.name]) = 1
			AND qml_heartbeat_server(server)
			AND qml_reclaim_server(server) = 1
			AND qml_unregister_server(server);
		PERFORM qml_delete(fetched.id);
		PERFORM qml_drop_queue(name);
		RAISE EXCEPTION USING errcode = 'T0000';
	EXCEPTION WHEN SQLSTATE 'T0000' THEN
		NULL;
	END;
	RETURN good;
END $$;
SELECT ok(pg_temp.name_survives(name), 'everything named ' || to_json(left(name, 40))) FROM odd_name;

SELECT pg_temp.ends(NULL, format(c.call, quote_literal(n.name)), '22023', 'refused: ' || to_json(format(c.call, n.name)))
	FROM (VALUES (E'a\nb'), (E'a\tb'), (E'\x1b[31m'), (E'a\rb'), (E'\x7f'), (''), (' '), ('q ')) n (name)
	CROSS JOIN (VALUES
		('SELECT qml_enqueue(%s)'),
		('SELECT qml_enqueue(''m'', queue => %s)'),
		('SELECT qml_enqueue(''m'', job_type => %s)'),
		('SELECT qml_enqueue_many(%s, ''{1}'')'),
		('SELECT qml_fetch(worker => %s)'),
		('SELECT qml_fetch(queues => ARRAY[%s])'),
		('SELECT qml_fetch(queues => %s)'),
		('SELECT qml_fetch(methods => ARRAY[%s])'),
		('SELECT qml_create_queue(%s)'),
		('SELECT qml_try_lock(%s, ''o'', ''1 s'')'),
		('SELECT qml_try_lock(''r'', %s, ''1 s'')'),
		('SELECT qml_schedule_recurring(%s, ''@daily'', ''m'')'),
		('SELECT qml_schedule_recurring(''r'', ''@daily'', %s)'),
		('SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', queue => %s)'),
		('SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', timezone => %s)'),
		('SELECT qml_schedule_recurring(''r'', ''@daily'', ''m'', misfire => %s)'),
		('SELECT qml_remove_recurring(%s)'),
		('SELECT qml_pause_recurring(%s)'),
		('SELECT qml_resume_recurring(%s)'),
		('SELECT qml_run_recurring(%s)'),
		('SELECT qml_register_handler(%s, ''evil.work'')'),
		('SELECT qml_register_handler(%s, 0::oid::regprocedure)'),
		('SELECT qml_register_command(%s, ''VACUUM'')'),
		('SELECT qml_unregister_handler(%s)'),
		('SELECT qml_register_hook(%s, ''evil.tell'')'),
		('SELECT qml_register_hook(%s, 0::oid::regprocedure)'),
		('SELECT qml_unregister_hook(%s)'),
		('SELECT qml_register_middleware(%s, ''evil.wrap'')'),
		('SELECT qml_register_middleware(%s, 0::oid::regprocedure)'),
		('SELECT qml_unregister_middleware(%s)'),
		('SELECT qml_register_server(%s)'),
		('SELECT qml_register_server(''s'', 1, ARRAY[%s])'),
		('SELECT qml_heartbeat_server(%s)'),
		('SELECT qml_unregister_server(%s)'),
		('SELECT qml_reclaim_server(%s)'),
		('SELECT qml_grant(''t_weak'', ''work'', %s)')) c (call);
-- The same names on the way through an object of options.
SELECT pg_temp.ends(NULL, format($$SELECT qml_set_state(qml_enqueue('m'), %L, jsonb_build_object(%L, E'a\nb'))$$, state, key),
	'QM005', format('refused: a control character in %s of qml_set_state', key))
	FROM (VALUES ('processing', 'worker')) v (state, key);
SELECT pg_temp.ends(NULL, format($$SELECT qml_register_handler('m', 'evil.work', jsonb_build_object(%L, %s))$$, key, value),
	'QM005', format('refused: a control character in %s of qml_register_handler', key))
	FROM (VALUES ('queue', $$E'a\nb'$$), ('run_as', $$E'a\nb'$$), ('non_retryable', $$jsonb_build_array(E'a\nb')$$)) v (key, value);

-------------------------------------------------------------------------------
-- Who the caller is
-------------------------------------------------------------------------------

-- A SECURITY DEFINER function lends its owner's capabilities, no more and no less.
DO $$ BEGIN PERFORM qml_grant('t_victim', 'enqueue', 'lent'); END $$;
CREATE FUNCTION public.lend_enqueue(queue text) RETURNS uuid LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$SELECT public.qml_enqueue('m', queue => queue)$$;
CREATE FUNCTION public.lend_fetch() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$SELECT count(*) FROM public.qml_fetch()$$;
ALTER FUNCTION public.lend_enqueue OWNER TO t_victim;
ALTER FUNCTION public.lend_fetch OWNER TO t_victim;
SELECT pg_temp.ends('t_weak', $$SELECT public.lend_enqueue('lent') IS NOT NULL$$, '=true', 'the wrapper enqueues for whoever calls it');
SELECT pg_temp.ends('t_weak', $$SELECT public.lend_enqueue('other')$$, '42501', 'where its owner may');
SELECT pg_temp.ends('t_weak', 'SELECT public.lend_fetch()', '42501', 'and does not what its owner may not');
SELECT pg_temp.ends(NULL, 'SELECT public.lend_fetch()', '42501', 'not even for a superuser');
SELECT pg_temp.ends('t_weak', $$SELECT qml_enqueue('m', queue => 'lent')$$, '42501', 'the caller has nothing outside it');
SELECT public.lend_enqueue('lent') AS lent_job \gset
SELECT is((qml_job(:'lent_job')).created_by, 't_victim'::name, 'the job is the owner''s');

-- Answers follow the current role, however often it changes.
CREATE FUNCTION pg_temp.who_may() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg((pg_temp.try(r, $q$SELECT qml_enqueue('m', queue => 'lent')$q$)).state, ' ' ORDER BY n)
	FROM unnest(ARRAY['t_victim', 't_weak', 't_evil', 't_victim', 't_weak', 't_weak', 't_victim']) WITH ORDINALITY r (r, n)
$$;
SELECT is(pg_temp.who_may(), '00000 42501 00000 00000 42501 42501 00000', 'SET ROLE to and fro');
SET LOCAL SESSION AUTHORIZATION t_weak;
SELECT (pg_temp.try(NULL, $$SELECT qml_enqueue('m', queue => 'lent')$$)).state AS weak \gset
RESET SESSION AUTHORIZATION;
SET LOCAL SESSION AUTHORIZATION t_victim;
SELECT (pg_temp.try(NULL, $$SELECT qml_enqueue('m', queue => 'lent')$$)).state AS victim \gset
RESET SESSION AUTHORIZATION;
SELECT is(:'weak' || ' ' || :'victim', '42501 00000', 'SET SESSION AUTHORIZATION too');

-- A view or function of the attacker shows its readers what they see themselves.
SET LOCAL ROLE t_evil;
CREATE VIEW evil.jobs AS SELECT id, payload FROM qml.job;
GRANT SELECT ON evil.jobs TO PUBLIC;
RESET ROLE;
SELECT pg_temp.ends('t_weak', 'SELECT count(*) FROM evil.jobs', '42501', 'a view over qml.job lends nothing');

-------------------------------------------------------------------------------
-- After success and after an error the caller is who he was
-------------------------------------------------------------------------------

-- Errors inside of what runs as the owner: made by triggers of an administrator.
CREATE FUNCTION public.break() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'broken as %', current_user USING errcode = 'T0002';
END $$;
CREATE TRIGGER break BEFORE INSERT OR UPDATE OR DELETE ON qml.lock_data EXECUTE FUNCTION public.break();
CREATE TRIGGER break BEFORE INSERT OR UPDATE OR DELETE ON qml.queue_data EXECUTE FUNCTION public.break();
CREATE TRIGGER break BEFORE INSERT OR UPDATE OR DELETE ON qml.acl_data EXECUTE FUNCTION public.break();
CREATE TRIGGER break BEFORE INSERT OR UPDATE OR DELETE ON qml.handler_data EXECUTE FUNCTION public.break();
CREATE TRIGGER break BEFORE INSERT OR UPDATE OR DELETE ON qml.hook_data EXECUTE FUNCTION public.break();
CREATE TRIGGER break BEFORE INSERT OR UPDATE OR DELETE ON qml.middleware_data EXECUTE FUNCTION public.break();

CREATE FUNCTION pg_temp.identity_after(role name, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	raised text := 'no error';
	answer text;
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	SET LOCAL search_path = evil, public;
	BEGIN
		EXECUTE call;
	EXCEPTION WHEN OTHERS THEN
		raised := sqlstate;
	END;
	answer := format('%s, %s, %s', raised, current_user OPERATOR(pg_catalog.=) role, pg_catalog.current_setting('search_path'));
	-- Both are forbidden where the owner's rights are in use.
	CREATE TEMP TABLE still_here ();
	DROP TABLE still_here;
	SET LOCAL ROLE t_evil;
	RESET ROLE;
	SET LOCAL search_path = public, tap;
	RETURN answer;
END $$;
SELECT format('GRANT TEMP ON DATABASE %I TO t_evil', current_database()) \gexec
SELECT is(pg_temp.identity_after(v.role, v.call), v.raised || ', t, evil, public', 'unchanged after ' || v.call)
	FROM (VALUES
		('t_evil', $$SELECT public.qml_try_lock('r', 'o', '1 min')$$, 'T0002'),
		('t_evil', $$SELECT public.qml_enqueue('m', queue => 'never seen')$$, 'T0002'),
		('t_evil', $$SELECT public.qml_pause_queue('lent')$$, 'T0002'),
		-- Each of its steps stands alone: a broken one is a warning.
		('t_evil', $$SELECT public.qml_cleanup()$$, 'no error'),
		('t_evil', $$SELECT public.qml_register_handler('h', 'evil.work')$$, 'T0002'),
		('t_evil', $$SELECT public.qml_register_command('c', 'VACUUM')$$, 'T0002'),
		('t_evil', $$SELECT public.qml_unregister_handler('h')$$, 'T0002'),
		('t_evil', $$SELECT public.qml_register_hook('h', 'evil.after', options => '{"after_commit": true}')$$, 'T0002'),
		('t_evil', $$SELECT public.qml_register_hook('h', 'evil.tell')$$, '42501'),
		('t_evil', $$SELECT public.qml_unregister_middleware('h')$$, 'T0002'),
		(current_user::text, $$SELECT public.qml_grant('t_weak', 'work')$$, 'T0002'),
		('t_evil', $$SELECT public.qml_counts()$$, 'no error')) v (role, call, raised);
DROP TRIGGER break ON qml.lock_data;
DROP TRIGGER break ON qml.queue_data;
DROP TRIGGER break ON qml.acl_data;
DROP TRIGGER break ON qml.handler_data;
DROP TRIGGER break ON qml.hook_data;
DROP TRIGGER break ON qml.middleware_data;
SELECT is(pg_temp.identity_after(v.role, v.call), 'no error, t, evil, public', 'unchanged after ' || v.call)
	FROM (VALUES
		('t_evil', $$SELECT public.qml_try_lock('r', 'o', '1 min')$$),
		('t_evil', $$SELECT public.qml_enqueue('m', queue => 'never seen')$$),
		('t_evil', $$SELECT public.qml_pause_queue('lent')$$),
		('t_evil', $$SELECT public.qml_cleanup()$$),
		('t_evil', $$SELECT public.qml_register_handler('h', 'evil.work')$$),
		('t_evil', $$SELECT public.qml_unregister_handler('h')$$),
		('t_evil', $$SELECT public.qml_register_hook('h', 'evil.after', options => '{"after_commit": true}')$$),
		('t_evil', $$SELECT public.qml_register_middleware('h', 'evil.wrap')$$),
		('t_evil', $$SELECT public.qml_enqueue('m', queue => 'hooked')$$),
		('t_evil', $$SELECT public.qml_unregister_hook('h')$$),
		('t_evil', $$SELECT public.qml_unregister_middleware('h')$$),
		(current_user::text, $$SELECT public.qml_grant('t_weak', 'work')$$)) v (role, call);

-- Making a partition is DDL by the owner of the tables, and event triggers, which
-- only a superuser can make, run as who does the DDL: as the owner, and in a
-- security-restricted operation, from which there is no way to another role.
CREATE TABLE canary.ddl (cu name, restricted text);
CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
	restricted text := 'free';
BEGIN
	BEGIN
		SET LOCAL ROLE t_weak;
	EXCEPTION WHEN insufficient_privilege THEN
		restricted := 'restricted';
	END;
	INSERT INTO canary.ddl VALUES (current_user, restricted);
	IF current_setting('test.break_ddl', true) = 'on' THEN
		RAISE EXCEPTION 'no DDL' USING errcode = 'T0003';
	END IF;
END $$;
DO $$
BEGIN
	PERFORM qml_create_queue('ddl', '{"failed_ttl": "2500 days"}');
	PERFORM qml_enqueue('m', queue => 'ddl', id => '00000000-0000-7000-8000-0000000000e3');
END $$;
-- Without the partitions that came with the queue.
DO $$
DECLARE
	leaf regclass;
BEGIN
	FOR leaf IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'qml.history'::regclass LOOP
		EXECUTE format('DROP TABLE %s', leaf);
	END LOOP;
END $$;
CREATE EVENT TRIGGER on_ddl ON ddl_command_end EXECUTE FUNCTION public.on_ddl();
SET LOCAL test.break_ddl = 'on';
SELECT pg_temp.ends('t_evil', $$SELECT qml_set_state('00000000-0000-7000-8000-0000000000e3', 'failed')$$, '00000',
	'an event trigger that forbids DDL does not keep the job from being finished');
SET LOCAL test.break_ddl = 'off';
DO $$
BEGIN
	SET LOCAL ROLE t_evil;
	PERFORM qml_set_state('00000000-0000-7000-8000-0000000000e3', 'failed');
	PERFORM qml_cleanup();
	RESET ROLE;
END $$;
DROP EVENT TRIGGER on_ddl;
SELECT set_eq('SELECT cu, restricted FROM canary.ddl', format($$VALUES (%L::name, 'restricted')$$, relowner::regrole),
	'an event trigger runs as the owner of the tables, restricted') FROM pg_class WHERE oid = 'qml.live'::regclass;

-------------------------------------------------------------------------------
-- Objects that are there before the extension
-------------------------------------------------------------------------------

DROP VIEW evil.jobs;
DROP FUNCTION public.lend_enqueue, public.lend_fetch;
DROP EXTENSION qml CASCADE;
DROP TABLE pg_temp.queue_data, pg_temp.live, pg_temp.history, pg_temp.lock_data, pg_temp.acl_data, pg_temp.instance_data, pg_temp.recurring_data,
	pg_temp.occurrence_data, pg_temp.server_data;
SELECT is(to_regnamespace('qml')::text, NULL, 'DROP EXTENSION takes the schema along, partitions too');

CREATE SCHEMA qml AUTHORIZATION t_evil;
SELECT pg_temp.ends(NULL, 'CREATE EXTENSION qml', '42P06', 'a schema qml that somebody made stops CREATE EXTENSION');
SELECT is((SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'qml'), 't_evil', 'and stays his');
DROP SCHEMA qml;

SET LOCAL search_path = evil, pg_temp, pg_catalog;
CREATE EXTENSION qml SCHEMA public;
SET LOCAL search_path = public, tap;
SELECT is(pg_temp.hits(), 0::bigint, 'in a hostile search_path the script calls nobody else''s functions');
SELECT is_empty(
	$$SELECT pg_describe_object(d.classid, d.objid, 0), pg_describe_object(d.refclassid, d.refobjid, 0)
	  FROM pg_depend d
	  WHERE (d.refclassid, d.refobjid) IN (
			SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace = 'evil'::regnamespace
			UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator WHERE oprnamespace = 'evil'::regnamespace
			UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typnamespace = 'evil'::regnamespace)
		-- the attacker's tables have the names of qml's, too
		AND replace(pg_describe_object(d.classid, d.objid, 0), 'see_qml_drop_role_objects', '') ~ 'qml'$$,
	'nothing of it depends on the attacker''s objects');

CREATE TEMP TABLE signature AS
	SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments
	FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'qml'
	WHERE p.pronamespace = 'public'::regnamespace AND pg_get_function_identity_arguments(p.oid) !~ 'qml';
DROP EXTENSION qml CASCADE;

CREATE FUNCTION pg_temp.precreated(name name, arguments text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text := 'adopted';
BEGIN
	BEGIN
		EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS int LANGUAGE sql AS ''SELECT 1''', name, arguments);
		EXECUTE format('ALTER FUNCTION public.%I(%s) OWNER TO t_evil', name, arguments);
		BEGIN
			CREATE EXTENSION qml;
		EXCEPTION WHEN OTHERS THEN
			answer := sqlstate || CASE WHEN to_regnamespace('qml') IS NULL THEN ' clean' ELSE ' with leftovers' END;
		END;
		RAISE EXCEPTION USING errcode = 'T0000';
	EXCEPTION WHEN SQLSTATE 'T0000' THEN
		NULL;
	END;
	RETURN answer;
END $$;
-- Made with OUT arguments, a function is told apart by its IN arguments alone.
SELECT is(pg_temp.precreated(proname, regexp_replace(replace(arguments, 'INOUT', 'IN'), '\mOUT .*', '')), '42723 clean',
	format('a function %s(%s) that somebody made stops CREATE EXTENSION', proname, left(arguments, 20)))
	FROM signature;

SELECT * FROM finish();
ROLLBACK;
