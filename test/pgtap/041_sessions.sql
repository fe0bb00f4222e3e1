-- Rights that change in one session count in another from its next transaction
-- on, although it has asked before and remembers the answers.
--
-- The other session comes through dblink, so what is granted here is committed;
-- the file removes it again.

SET client_min_messages = warning;
SET statement_timeout = '1min';
CREATE SCHEMA IF NOT EXISTS tap;
CREATE EXTENSION IF NOT EXISTS pgtap SCHEMA tap;
CREATE EXTENSION IF NOT EXISTS qml;
SET search_path = public, tap;

SELECT count(*) > 0 AS has_dblink FROM pg_available_extensions WHERE name = 'dblink' \gset
\if :has_dblink
SELECT * FROM no_plan();

CREATE FUNCTION pg_temp.remove_roles() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	r regrole;
BEGIN
	FOR r IN SELECT oid FROM pg_roles WHERE rolname IN ('t_s_group', 't_s_worker') LOOP
		DELETE FROM qml.acl_data WHERE grantee = r;
		EXECUTE format('DROP OWNED BY %s', r);
		EXECUTE format('DROP ROLE %s', r);
	END LOOP;
END $$;

SELECT pg_temp.remove_roles() \g /dev/null
CREATE EXTENSION IF NOT EXISTS dblink SCHEMA tap;
CREATE ROLE t_s_group;
CREATE ROLE t_s_worker LOGIN;
SELECT qml_enqueue('m', queue => 's', id => '00000000-0000-7000-8000-000000000050') \g /dev/null

SELECT dblink_connect('other', format('host=%L port=%s dbname=%L user=t_s_worker',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database())) \g /dev/null

-- What the other session is told: a value, or an SQLSTATE.
CREATE FUNCTION pg_temp.other(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	value text;
BEGIN
	SELECT d.value INTO value FROM dblink('other', format('SELECT (%s)::text', call)) d (value text);
	RETURN value;
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;

CREATE FUNCTION pg_temp.fetches() RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.other($q$SELECT count(*) FROM qml_fetch('w', '{s}')$q$)
$$;
CREATE FUNCTION pg_temp.sees() RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.other($q$SELECT count(payload) FROM qml.job WHERE queue = 's'$q$)
$$;

SELECT is(pg_temp.fetches(), '42501', 'before any grant the other session is refused');
SELECT qml_grant('t_s_worker', 'work', 's') \g /dev/null
SELECT is(pg_temp.fetches(), '1', 'after the grant it fetches');
SELECT is(pg_temp.sees(), '1', 'and sees the job');
SELECT qml_revoke('t_s_worker', 'work', 's') \g /dev/null
SELECT is(pg_temp.fetches(), '42501', 'after the revoke it is refused');
SELECT is(pg_temp.sees(), '42501', 'and sees nothing');

-- With the doors left open the capability alone must decide.
SELECT qml_grant('t_s_worker', 'work', 'another') \g /dev/null
SELECT is(pg_temp.fetches(), '42501', 'a capability for another queue does not help');
SELECT is(pg_temp.sees(), '0', 'nor show the job');
SELECT qml_grant('t_s_worker', 'work', 's') \g /dev/null
SELECT is(pg_temp.fetches(), '0', 'this one does');
SELECT is(pg_temp.sees(), '1', 'and shows it');
SELECT qml_revoke('t_s_worker', 'work', 's') \g /dev/null
SELECT is(pg_temp.fetches(), '42501', 'until it is taken again');
SELECT is(pg_temp.sees(), '0', 'with the sight of the job');
SELECT qml_revoke('t_s_worker', 'work') \g /dev/null

-- Membership.
SELECT qml_grant('t_s_group', 'work', 's') \g /dev/null
GRANT t_s_group TO t_s_worker;
SELECT is(pg_temp.fetches(), '0', 'a membership counts at once');
SELECT is(pg_temp.sees(), '1', 'in the view too');
REVOKE t_s_group FROM t_s_worker;
SELECT is(pg_temp.fetches(), '42501', 'so does its end');
SELECT qml_grant('t_s_worker', 'work', 'another') \g /dev/null
SELECT is(pg_temp.sees(), '0', 'in the view too');
GRANT t_s_group TO t_s_worker;
SELECT is(pg_temp.sees(), '1', 'a member again');
ALTER ROLE t_s_worker NOINHERIT;
SELECT is(pg_temp.sees(), CASE WHEN current_setting('server_version_num')::int < 160000 THEN '0' ELSE '1' END,
	'NOINHERIT, which counts at the time of the GRANT from version 16 on');
ALTER ROLE t_s_worker INHERIT;

-- By hand, as a restore or an administrator in need would.
SELECT is(pg_temp.fetches(), '0', 'allowed through the group');
DELETE FROM qml.acl_data WHERE grantee = 't_s_group'::regrole;
SELECT is(pg_temp.fetches(), '42501', 'a row deleted by hand is missed at once');

-- Dropping the queue takes its capabilities along.
SELECT qml_create_queue('s-empty'), qml_grant('t_s_worker', 'work', 's-empty') \g /dev/null
SELECT is(pg_temp.other($$SELECT count(*) FROM qml_fetch('w', '{s-empty}')$$), '0', 'a queue of its own');
SELECT qml_drop_queue('s-empty') \g /dev/null
SELECT is(pg_temp.other($$SELECT count(*) FROM qml_fetch('w', '{s-empty}')$$), '42501', 'goes with its rights');

SELECT is(pg_temp.other('current_user'), 't_s_worker', 'it was one and the same session all along');

SELECT * FROM finish();
SELECT dblink_disconnect('other'), qml_delete('00000000-0000-7000-8000-000000000050') \g /dev/null
SELECT qml_drop_queue('s') \g /dev/null
SELECT pg_temp.remove_roles() \g /dev/null
\else
SELECT * FROM plan(1);
SELECT skip('dblink is not installed');
\endif
