-- qml_grant and qml_revoke, and what becomes of a capability when roles are
-- renamed, dropped, made again, or members of one another.

\ir include/start.sql

CREATE ROLE t_a;
CREATE ROLE t_b;

CREATE TEMP VIEW row_of AS
	SELECT grantee::regrole::text AS grantee, capability, queue, grantor::regrole::text AS grantor FROM qml.acl_data;

-------------------------------------------------------------------------------
-- Arguments
-------------------------------------------------------------------------------

SELECT pg_temp.ends(NULL, $$SELECT qml_grant(NULL, 'work')$$, '22004', 'grant: no role');
SELECT pg_temp.ends(NULL, $$SELECT qml_grant('t_a', NULL)$$, '22004', 'grant: no capability');
SELECT pg_temp.ends(NULL, $$SELECT qml_revoke(NULL, 'work')$$, '22004', 'revoke: no role');
SELECT pg_temp.ends(NULL, $$SELECT qml_revoke('t_a', NULL)$$, '22004', 'revoke: no capability');
SELECT pg_temp.ends(NULL, $$SELECT qml_grant('t_missing', 'work')$$, '42704', 'grant: a role that does not exist');
SELECT pg_temp.ends(NULL, $$SELECT qml_grant(4294967295::oid, 'work')$$, '42704', 'grant: an oid that is no role''s');
SELECT pg_temp.ends(NULL, $$SELECT qml_grant('pg_class'::regclass::oid, 'work')$$, '42704', 'grant: the oid of a table');
SELECT pg_temp.ends(NULL, $$SELECT qml_grant('public', 'work')$$, '42704', 'grant: PUBLIC is no role');
SELECT pg_temp.ends(NULL, $$SELECT qml_grant('-', 'work')$$, '42704', 'grant: nor is oid 0, which stands for PUBLIC in an ACL');
SELECT pg_temp.ends(NULL, $$SELECT qml_grant(0::oid, 'work')$$, '42704', 'grant: as a number');
SELECT pg_temp.ends(NULL, $$SELECT qml_revoke('t_missing', 'work')$$, '42704', 'revoke: a role that does not exist');
SELECT pg_temp.ends(NULL, format('SELECT qml_grant(''t_a'', %L)', c), '22023', 'grant: capability ' || to_json(c))
	FROM unnest(ARRAY['owner', 'WORK', ' work', 'work;', '', E'work\n', repeat('x', 300)]) c;
SELECT pg_temp.ends(NULL, format('SELECT qml_revoke(''t_a'', %L)', c), '22023', 'revoke: capability ' || to_json(c))
	FROM unnest(ARRAY['owner', '']) c;
SELECT pg_temp.ends(NULL, $$SELECT qml_grant('t_a', 'work', '')$$, '22023', 'grant: an empty queue name is not all queues');
SELECT pg_temp.ends(NULL, $$SELECT qml_grant('t_a', 'work', repeat('q', 129))$$, '22023', 'grant: a queue name too long');
SELECT pg_temp.ends(NULL, $$SELECT qml_grant('t_a', 'work', repeat('ü', 128))$$, '00000', 'grant: 128 characters will do');
SELECT pg_temp.ends(NULL, $$SELECT qml_grant('t_a', 'work', E'a\nb')$$, '22023', 'grant: a control character in the queue name');
SELECT is_empty('TABLE row_of', 'nothing was granted so far');

-------------------------------------------------------------------------------
-- Giving and taking
-------------------------------------------------------------------------------

SELECT lives_ok($$SELECT qml_grant('t_a', 'work', 'q'), qml_grant('t_a', 'work', 'q'), qml_grant('t_a', 'work', 'q2')$$,
	'giving twice is no error');
SELECT set_eq('TABLE row_of', format($$VALUES ('t_a', 'work', 'q', %1$L), ('t_a', 'work', 'q2', %1$L)$$, current_user),
	'and makes one row');
SELECT lives_ok($$SELECT qml_grant('t_a', 'work'), qml_grant('t_a', 'work', NULL)$$, 'for all queues as well');
SELECT is((SELECT count(*)::int FROM row_of), 3, 'which is a row of its own');
SELECT is((SELECT count(*)::int FROM qml.acl WHERE grantee = 't_a' AND grantor = current_user AND granted_at = now()), 3,
	'qml.acl shows them');
SELECT lives_ok($$SELECT qml_revoke('t_a', 'work', 'q'), qml_revoke('t_a', 'work', 'q')$$, 'taking twice is no error');
SELECT pg_temp.ends('t_a', $$SELECT count(*) FROM qml_fetch(queues => '{q}')$$, '=0', 'all queues still include the one taken');
SELECT lives_ok($$SELECT qml_revoke('t_b', 'admin'), qml_revoke('t_a', 'enqueue', 'nowhere')$$, 'nor what was never given');
SELECT lives_ok($$SELECT qml_revoke('t_a', 'work')$$, 'with no queue');
SELECT is_empty('TABLE row_of', 'all go, single queues too');
SELECT is_empty($$SELECT * FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid IN ('t_a'::regrole, 't_b'::regrole)
		AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())$$,
	'and nothing in this database depends on the roles any more');

-- Whoever may not, may not hand on either.
SELECT lives_ok($$SELECT qml_grant('t_a', 'admin')$$, 't_a administers all queues');
SELECT pg_temp.ends('t_a', $$SELECT qml_grant('t_b', 'work')$$, '42501', 'an administrator cannot grant');
GRANT EXECUTE ON FUNCTION qml_grant, qml_revoke TO t_a;
SELECT pg_temp.ends('t_a', $$SELECT qml_grant('t_b', 'work')$$, '42501', 'not even with EXECUTE on qml_grant');
SELECT pg_temp.ends('t_a', $$SELECT qml_revoke('t_a', 'admin')$$, '42501', 'nor revoke');
REVOKE EXECUTE ON FUNCTION qml_grant, qml_revoke FROM t_a;
SELECT lives_ok($$SELECT qml_revoke('t_a', 'admin')$$, 't_a administers nothing');

-- In the same session each change counts at once, also when it is undone.
CREATE FUNCTION pg_temp.may(role name, queue text DEFAULT 'q') RETURNS boolean LANGUAGE sql AS $$
	SELECT CASE state WHEN '00000' THEN true WHEN '42501' THEN false END
	FROM pg_temp.try(role, format('SELECT qml_enqueue(''m'', queue => %L)', queue))
$$;
SELECT ok(NOT pg_temp.may('t_a'), 'before the grant: no');
DO $$ BEGIN PERFORM qml_grant('t_a', 'enqueue', 'q'); END $$;
SELECT ok(pg_temp.may('t_a'), 'after it: yes');
SELECT ok(NOT pg_temp.may('t_a', 'r'), 'not for another queue');
SELECT ok(NOT pg_temp.may('t_a', 'Q'), 'nor for one that differs in case');
SELECT ok(NOT pg_temp.may('t_a', 'q q'), 'or by more');
DO $$
BEGIN
	BEGIN
		PERFORM qml_grant('t_a', 'enqueue', 'r');
		ASSERT pg_temp.may('t_a', 'r');
		PERFORM qml_revoke('t_a', 'enqueue', 'q');
		ASSERT NOT pg_temp.may('t_a', 'q');
		RAISE EXCEPTION USING errcode = 'T0001';
	EXCEPTION WHEN SQLSTATE 'T0001' THEN
		NULL;
	END;
END $$;
SELECT ok(NOT pg_temp.may('t_a', 'r'), 'a grant that was rolled back is none');
SELECT ok(pg_temp.may('t_a', 'q'), 'nor is such a revoke');
DO $$ BEGIN PERFORM qml_revoke('t_a', 'enqueue', 'q'); END $$;
SELECT ok(NOT pg_temp.may('t_a'), 'after the revoke: no');
-- Rows written by hand, as by a restore, count as well.
DO $$
BEGIN
	PERFORM qml_grant('t_a', 'enqueue', 'q');
	DELETE FROM qml.acl_data;
END $$;
SELECT ok(NOT pg_temp.may('t_a'), 'with the row gone the open door is not enough');
INSERT INTO qml.acl_data (grantee, capability, queue, grantor) VALUES ('t_a', 'enqueue', 'q', current_user::regrole);
SELECT ok(pg_temp.may('t_a'), 'with the row back it is');
TRUNCATE qml.acl_data;
SELECT ok(NOT pg_temp.may('t_a'), 'TRUNCATE is noticed too');
INSERT INTO qml.acl_data (grantee, capability, queue, grantor) VALUES ('t_a', 'enqueue', 'q', current_user::regrole);
SELECT ok(pg_temp.may('t_a'), 'with the row back again');
SET LOCAL session_replication_role = replica;
DELETE FROM qml.acl_data;
SET LOCAL session_replication_role = origin;
SELECT ok(NOT pg_temp.may('t_a'), 'a change by a replication role, which skips ordinary triggers, is noticed as well');
INSERT INTO qml.acl_data (grantee, capability, queue, grantor) VALUES ('t_b', 'enqueue', 'q', current_user::regrole);
SELECT ok(NOT pg_temp.may('t_b'), 'a row without the door is not enough');
DO $$ BEGIN PERFORM qml_grant('t_b', 'enqueue', 'q'); END $$;
SELECT ok(pg_temp.may('t_b'), 'granting again opens it');
DELETE FROM qml.acl_data;

-- What a session asks must not change what it is answered afterwards.
DO $$ BEGIN PERFORM qml_grant('t_a', 'work', 'q'); END $$;
SELECT pg_temp.ends('t_a', $$SELECT qml.queue_access('')$$, '=false', 'asking about a queue with no name');
SELECT pg_temp.ends('t_a', $$SELECT qml_unlock('r', 'o')$$, '=false', 'does not spoil the answer for some queue');
SELECT pg_temp.ends('t_a', $$SELECT qml.queue_access('')$$, '=false', 'nor does that one spoil the first');
SELECT pg_temp.ends('t_a', $$SELECT qml.queue_access(repeat('q', 10000))$$, '=false', 'nor does a very long name hurt');
SELECT pg_temp.ends('t_a', $$SELECT qml.queue_access('q')$$, '=true', 'the right name is answered right');
DO $$ BEGIN PERFORM qml_revoke('t_a', 'work'); END $$;

-------------------------------------------------------------------------------
-- The owner
-------------------------------------------------------------------------------

CREATE ROLE t_deputy;
SELECT set_config('test.owner', extowner::regrole::text, true) AS owner FROM pg_extension WHERE extname = 'qml' \gset
GRANT :"owner" TO t_deputy;
SELECT pg_temp.ends('t_deputy', $$SELECT qml_grant('t_b', 'work', 'q')$$, '00000', 'a member of the owner may grant');
SELECT lives_ok(format('SELECT qml_grant(%1$L, ''admin''), qml_revoke(%1$L, ''admin'')', :'owner'),
	'giving the owner a capability and taking it back');
SELECT pg_temp.ends('t_deputy', $$SELECT qml_grant('t_b', 'work', 'q')$$, '00000', 'takes nothing from what the owner may');
SELECT pg_temp.ends('t_deputy', $$SELECT count(*) >= 0 FROM qml.job$$, '=true', 'nor from what the owner sees');
REVOKE :"owner" FROM t_deputy;
SELECT pg_temp.ends('t_deputy', $$SELECT qml_grant('t_b', 'work', 'q')$$, '42501', 'a member no more: refused');

-------------------------------------------------------------------------------
-- Names of roles and queues
-------------------------------------------------------------------------------

CREATE FUNCTION public.t_work(jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION pg_temp.round_trip(role text, queue text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	good boolean;
BEGIN
	EXECUTE format('CREATE ROLE %I', role);
	PERFORM qml_grant(quote_ident(role)::regrole, 'enqueue', queue);
	good := pg_temp.may(role, queue) AND NOT pg_temp.may(role, 'other')
		AND EXISTS (SELECT FROM qml.acl a WHERE a.grantee = role AND a.queue = round_trip.queue);
	PERFORM qml_revoke(quote_ident(role)::regrole, 'enqueue', queue);
	good := good AND NOT pg_temp.may(role, queue);
	-- A handler that runs as the role brings privileges, too.
	EXECUTE format('ALTER ROLE %I LOGIN', role);
	PERFORM qml_register_handler('m', 'public.t_work', jsonb_build_object('run_as', role));
	good := good AND EXISTS (SELECT FROM qml.handler h WHERE h.method = 'm' AND h.run_as = role AND h.problem IS NULL)
		AND has_schema_privilege(role, 'qml', 'USAGE') AND (pg_temp.try(role, 'SELECT qml_discard()')).state = '55000'
		AND qml_unregister_handler('m')
		AND NOT has_schema_privilege(role, 'qml', 'USAGE') AND (pg_temp.try(role, 'SELECT qml_discard()')).state = '42501';
	EXECUTE format('DROP ROLE %I', role);
	RETURN good;
END $$;
SELECT ok(pg_temp.round_trip(name, name), format('a role and a queue named %L', name))
	FROM unnest(ARRAY['T_Mixed Case', 'he said "no"', 'it''s', 'a"; DROP TABLE qml.live; --', '$$', '$1', '%I%s', 'select',
		'back\slash', 'ünïcödé', repeat('x', 63), repeat('ü', 31), '"', '()', 'current_user', 't_a, postgres']) name;

-------------------------------------------------------------------------------
-- Membership
-------------------------------------------------------------------------------

CREATE ROLE t_group;
CREATE ROLE t_member IN ROLE t_group;
CREATE ROLE t_grandchild IN ROLE t_member;
CREATE ROLE t_later NOINHERIT IN ROLE t_group;
DO $$ BEGIN PERFORM qml_grant('t_group', 'enqueue', 'q'); END $$;
SELECT ok(pg_temp.may('t_member'), 'a member has what its group has');
SELECT ok(pg_temp.may('t_grandchild'), 'through two memberships too');
SELECT ok(NOT pg_temp.may('t_later'), 'a member that does not inherit has not');
SELECT pg_temp.ends('t_member', 'SELECT string_agg(grantee::text, '','') FROM qml.acl', '=t_group',
	'a member sees the capabilities of its group');

SET LOCAL SESSION AUTHORIZATION t_later;
SELECT (pg_temp.try(NULL, $$SELECT qml_enqueue('m', queue => 'q')$$)).state AS before \gset
SET LOCAL ROLE t_group;
SELECT (pg_temp.try(NULL, $$SELECT qml_enqueue('m', queue => 'q')$$)).state AS during \gset
RESET ROLE;
SELECT (pg_temp.try(NULL, $$SELECT qml_enqueue('m', queue => 'q')$$)).state AS after \gset
RESET SESSION AUTHORIZATION;
SELECT is(:'before'::text, '42501', 'it is refused as itself');
SELECT is(:'during'::text, '00000', 'until SET ROLE');
SELECT is(:'after'::text, '42501', 'and again after RESET ROLE');

-- Jobs belong to the role that enqueued them, not to the session's user.
SELECT pg_temp.ends('t_member', $$SELECT created_by FROM qml_job(qml_enqueue('m', queue => 'q'))$$, '=t_member',
	'created_by is the current role');
DO $$
BEGIN
	SET LOCAL ROLE t_group;
	PERFORM qml_enqueue('m', queue => 'q', id => '00000000-0000-7000-8000-0000000000aa');
	RESET ROLE;
	PERFORM qml_grant('t_b', 'enqueue', 'q');
END $$;
SELECT pg_temp.ends('t_member', $$SELECT qml_delete('00000000-0000-7000-8000-0000000000aa')$$, '=true',
	'a member may delete its group''s job');
SELECT pg_temp.ends('t_b', $$SELECT qml_delete('00000000-0000-7000-8000-0000000000aa')$$, '42501',
	'another role that may enqueue there may not');

REVOKE t_group FROM t_member;
SELECT ok(NOT pg_temp.may('t_member'), 'without the membership: refused');
SELECT ok(NOT pg_temp.may('t_grandchild'), 'who had it through that one as well');
GRANT t_group TO t_member;
SELECT ok(pg_temp.may('t_grandchild'), 'with it again: allowed');

-------------------------------------------------------------------------------
-- Roles that are renamed, dropped, made again
-------------------------------------------------------------------------------

DO $$ BEGIN PERFORM qml_create_queue('q2'), qml_grant('t_a', 'enqueue', 'q'), qml_grant('t_a', 'work', 'q2'); END $$;
DO $$
BEGIN
	SET LOCAL ROLE t_a;
	PERFORM qml_enqueue('m', queue => 'q', id => '00000000-0000-7000-8000-0000000000ab');
	PERFORM qml_schedule_recurring('r', '@daily', 'm', queue => 'q');
	RESET ROLE;
END $$;
CREATE FUNCTION pg_temp.ticks() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	BEGIN
		UPDATE qml.recurring_data SET next_run_at = date_trunc('second', now());
		SET LOCAL client_min_messages = error;
		PERFORM qml_poll_recurring();
		SELECT coalesce(error, (SELECT created_by FROM qml_job(last_job))) INTO answer FROM qml.recurring_data WHERE id = 'r';
		RAISE EXCEPTION USING errcode = 'T0000';
	EXCEPTION WHEN SQLSTATE 'T0000' THEN
		NULL;
	END;
	RETURN answer;
END $$;
ALTER ROLE t_a RENAME TO t_z;
SELECT ok(pg_temp.may('t_z'), 'a renamed role keeps its capabilities');
SELECT is(pg_temp.ticks(), 't_z', 'and its schedules, which fire as this role');
SELECT pg_temp.ends('t_z', $$SELECT created_by FROM qml_job('00000000-0000-7000-8000-0000000000ab')$$, '=t_z', 'and its jobs');
CREATE ROLE t_a;
SELECT ok(NOT pg_temp.may('t_a'), 'whoever gets the old name gets neither');

SELECT pg_temp.ends(NULL, 'DROP ROLE t_z', '2BP01', 'a role with capabilities is not dropped by mistake');
SELECT 't_z'::regrole::oid AS dangling \gset
DROP OWNED BY t_z;
SELECT ok(NOT pg_temp.may('t_z'), 'DROP OWNED closes the doors');
DROP ROLE t_z;
SELECT isnt_empty($$SELECT FROM qml.acl_data WHERE grantee = $$ || :dangling, 'a dropped role may leave rows behind');
SELECT alike(pg_temp.ticks(), '%its owner was dropped%', 'its schedules cannot fire');
CREATE ROLE t_z;
SELECT ok(NOT pg_temp.may('t_z'), 'a new role of that name inherits nothing');
SELECT alike(pg_temp.ticks(), '%its owner was dropped%', 'nor do the schedules become its own');
DO $$ BEGIN PERFORM qml_grant('t_z', 'enqueue', 'q'), qml_grant('t_b', 'monitor'), qml_grant('t_a', 'admin'); END $$;
SELECT pg_temp.ends('t_z', $$SELECT qml_delete('00000000-0000-7000-8000-0000000000ab')$$, '42501', 'nor the old one''s jobs');
SELECT pg_temp.ends('t_b', $$SELECT (qml_job('00000000-0000-7000-8000-0000000000ab')).state$$, '=enqueued', 'the jobs are still there');
SELECT pg_temp.ends('t_a', 'SELECT count(*) FROM qml_fetch(queues => ''{q}'', batch => 10)', '=2', 'and are worked');
SELECT pg_temp.ends('t_a', 'SELECT count(*) >= 5 FROM qml.acl', '=true', 'qml.acl works with a dangling row');
SELECT pg_temp.ends('t_a', 'SELECT count(*) FROM qml.job WHERE queue = ''q''', '=2', 'so does qml.job');
SELECT pg_temp.ends('t_a', 'SELECT count(*) FROM qml.recurring', '=1', 'so does qml.recurring');
SELECT pg_temp.ends('t_z', $$SELECT qml_remove_recurring('r')$$, '42501', 'the new role does not own the old one''s schedule');
SELECT pg_temp.ends(NULL, 'SELECT qml_maintain() IS NOT NULL', '=true', 'so does maintenance');
SELECT pg_temp.ends(NULL, 'SELECT qml_drop_queue(''q2'')', '00000', 'and dropping a queue that it was granted');
-- Kept, the number would be written into a dump, and there it may be another role's.
SELECT lives_ok('SELECT qml_cleanup()', 'maintenance');
SELECT is_empty($$SELECT * FROM qml.acl_data WHERE grantee = $$ || :dangling, 'takes the rows of dropped roles away');

-------------------------------------------------------------------------------
-- EXECUTE given by hand
-------------------------------------------------------------------------------

CREATE ROLE t_hand;
CREATE FUNCTION public.t_tell(qml.job, qml.job_state, qml.job_state) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION public.t_wrap(qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
REVOKE EXECUTE ON FUNCTION public.t_tell, public.t_wrap FROM PUBLIC;
GRANT USAGE ON SCHEMA qml TO t_hand;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public, qml TO t_hand;
SELECT pg_temp.ends('t_hand', call, '42501', 'EXECUTE without a capability: ' || call)
	FROM unnest(ARRAY[
		$$SELECT qml_enqueue('m')$$,
		$$SELECT qml_enqueue_many('m', '{}')$$,
		'SELECT qml_fetch()',
		'SELECT qml_fetch(queues => ''{q}'')',
		'SELECT qml_succeed(gen_random_uuid(), 1)',
		'SELECT qml_succeed_fetch(gen_random_uuid(), 1)',
		'SELECT qml_succeed_fetch_many(''{}'', ''{}'')',
		'SELECT qml_succeed_many(''{}'', ''{}'')',
		'SELECT qml_heartbeat_many(''{}'', ''{}'')',
		'SELECT qml_delete(gen_random_uuid())',
		$$SELECT qml_set_state(gen_random_uuid(), 'failed')$$,
		'SELECT qml_counts()',
		'SELECT qml_maintain()',
		$$SELECT qml_create_queue('x')$$,
		$$SELECT qml_try_lock('r', 'o', '1 s')$$,
		$$SELECT qml_schedule_recurring('r', '@daily', 'm')$$,
		$$SELECT qml_remove_recurring('unknown', true)$$,
		$$SELECT qml_resume_recurring('unknown')$$,
		$$SELECT qml_run_recurring('unknown')$$,
		'SELECT qml_poll_recurring()',
		'SELECT qml_pg_cron_schedule()',
		'SELECT qml_pg_cron_unschedule()',
		'SELECT qml_import_pg_cron()',
		$$SELECT qml_register_server('s')$$,
		$$SELECT qml_heartbeat_server('s')$$,
		$$SELECT qml_unregister_server('s')$$,
		$$SELECT qml_reclaim_server('s')$$,
		$$SELECT qml_register_handler('m', 'public.t_work')$$,
		$$SELECT qml_register_command('m', 'VACUUM')$$,
		$$SELECT qml_unregister_handler('m')$$,
		$$SELECT qml_register_hook('h', 'public.t_tell')$$,
		$$SELECT qml_unregister_hook('unknown', true)$$,
		$$SELECT qml_register_middleware('m', 'public.t_wrap')$$,
		$$SELECT qml_unregister_middleware('unknown', true)$$,
		$$SELECT qml_grant('t_hand', 'admin')$$]) call;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public, qml FROM t_hand;

-------------------------------------------------------------------------------
-- The extension in another schema
-------------------------------------------------------------------------------

DROP EXTENSION qml CASCADE;
CREATE SCHEMA "the jobs";
CREATE EXTENSION qml SCHEMA "the jobs";
CREATE ROLE t_elsewhere;
SELECT "the jobs".qml_grant('t_elsewhere', 'enqueue', 'q') \g /dev/null
SELECT ok(has_schema_privilege('t_elsewhere', 'the jobs', 'USAGE'), 'the schema of the functions is opened');
SELECT ok(NOT has_schema_privilege('t_elsewhere', 'the jobs', 'CREATE'), 'for use alone');
SELECT pg_temp.ends('t_elsewhere', $$SELECT "the jobs".qml_enqueue('m', queue => 'q') IS NOT NULL$$, '=true', 'the functions work there');
SELECT pg_temp.ends('t_elsewhere', $$SELECT count(*) FROM qml.job$$, '=0', 'and the views');
SELECT pg_temp.ends('t_elsewhere', $$SELECT "the jobs".qml_fetch()$$, '42501', 'other functions are closed');
SELECT "the jobs".qml_revoke('t_elsewhere', 'enqueue', 'q') \g /dev/null
SELECT pg_temp.ends('t_elsewhere', $$SELECT "the jobs".qml_enqueue('m', queue => 'q')$$, '42501', 'after the revoke they are closed');
SELECT ok(NOT has_schema_privilege('t_elsewhere', 'the jobs', 'USAGE'), 'the schema too');
SELECT lives_ok('DROP ROLE t_elsewhere', 'and the role can be dropped');

-- USAGE that was given by hand is not qml's to take, be it used by a capability or a handler.
CREATE ROLE t_usage LOGIN;
GRANT USAGE ON SCHEMA "the jobs" TO t_usage;
SELECT "the jobs".qml_grant('t_usage', 'work'), "the jobs".qml_register_handler('m', 'public.t_work', '{"run_as": "t_usage"}') \g /dev/null
SELECT "the jobs".qml_revoke('t_usage', 'work'), "the jobs".qml_unregister_handler('m') \g /dev/null
SELECT ok(has_schema_privilege('t_usage', 'the jobs', 'USAGE'), 'USAGE by hand stays when all capabilities and handlers go');
SELECT ok(NOT has_schema_privilege('t_usage', 'qml', 'USAGE'), 'and nothing else');
REVOKE USAGE ON SCHEMA "the jobs" FROM t_usage;
-- USAGE by qml lasts as long as there is a capability or a handler.
SELECT "the jobs".qml_register_handler('m', 'public.t_work', '{"run_as": "t_usage"}') \g /dev/null
SELECT ok(has_schema_privilege('t_usage', 'the jobs', 'USAGE'), 'a handler opens the schema');
SELECT "the jobs".qml_grant('t_usage', 'work', 'q'), "the jobs".qml_grant('t_usage', 'work', 'r') \g /dev/null
SELECT set_eq($$SELECT capability, queue FROM qml.acl WHERE grantee = 't_usage'$$, $$VALUES ('work', 'q'), ('work', 'r')$$,
	'the view shows capabilities alone');
SELECT pg_temp.ends('t_usage', $$SELECT "the jobs".qml_unlock('r', 'o')$$, '=false', 'which count as ever');
SELECT "the jobs".qml_unregister_handler('m'), "the jobs".qml_revoke('t_usage', 'work', 'q') \g /dev/null
SELECT ok(has_schema_privilege('t_usage', 'the jobs', 'USAGE'), 'it stays open for what is left');
SELECT "the jobs".qml_revoke('t_usage', 'work', 'r') \g /dev/null
SELECT ok(NOT has_schema_privilege('t_usage', 'the jobs', 'USAGE'), 'and is closed with the last');
SELECT is_empty('TABLE qml.acl_data', 'nothing is remembered then');
SELECT lives_ok('DROP ROLE t_usage', 'and the role can be dropped, too');

SELECT * FROM finish();
ROLLBACK;
