# Nothing that a handler does leads to more rights than its role has.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $node = background_node('escalation', conf => "qml.workers = 2\nmax_worker_processes = 20\n");
wait_for_process($node, 'scheduler', 'postgres');

# Whoever gets here says who he is: only mallory himself must.
query($node, <<'SQL');
CREATE ROLE mallory LOGIN;
CREATE ROLE victim LOGIN;
CREATE ROLE boss LOGIN SUPERUSER;
CREATE DATABASE target OWNER mallory;
SQL
query($node, <<'SQL', 'target');
CREATE EXTENSION qml;
SELECT qml_grant('mallory', 'admin'), qml_grant('mallory', 'enqueue'), qml_grant('victim', 'enqueue');
CREATE TABLE public.canary (who name DEFAULT current_user, session name DEFAULT session_user, how text,
	super text DEFAULT current_setting('is_superuser'));
GRANT ALL ON public.canary TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
CREATE TABLE public.secret (a int);
SQL
wait_for_process($node, 'scheduler', 'target');

sub in_target { return query($node, $_[0], 'target') }

# A handler of mallory's that tries something, and whether he was caught at it.
my $serial = 0;
sub try
{
	my ($name, $body, %opt) = @_;
	my $method = 'try' . ++$serial;
	my $kind = $opt{procedure} ? "PROCEDURE $method(payload jsonb)" : "FUNCTION $method(payload jsonb) RETURNS void";

	query($node, <<"SQL", 'target');
SET ROLE mallory;
CREATE $kind LANGUAGE plpgsql AS \$body\$
BEGIN
$body
END \$body\$;
SELECT qml_register_handler('$method', '$method');
SQL
	my $id = enqueue($node, $method, '{}', 'max_retries => 0', 'target');
	outcome_of($node, $id, 'target');
	my $outcome = counted_outcome($node, $id, 'target');
	note("$name: $outcome");
	like($outcome, $opt{expected}, "$name: the outcome") if $opt{expected};
	no_canary($name);
	return;
}

sub no_canary
{
	my ($name) = @_;
	is(in_target(q{SELECT count(*) FROM canary WHERE (who, session) <> ('mallory', 'mallory') OR super <> 'off'}), 0,
		"$name: nobody else's rights");
	is(in_target('SELECT count(*) FROM secret'), 0, "$name: no write to what is not his");
	is(in_target(q{SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper}), 0, "$name: no superuser");
	return;
}

my $grab = q{
	INSERT INTO public.canary (how) VALUES ('try');
	BEGIN INSERT INTO public.secret VALUES (1); EXCEPTION WHEN insufficient_privilege THEN NULL; END;
	BEGIN ALTER ROLE mallory SUPERUSER; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
	BEGIN DELETE FROM qml.live; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
	BEGIN PERFORM qml_create_queue('evil'); EXCEPTION WHEN OTHERS THEN NULL; END;
};

try('the role', $grab, expected => qr/^succeeded/);
try('RESET ROLE', "RESET ROLE; $grab", expected => qr/^succeeded/);
try('SET ROLE none', "SET ROLE none; $grab", expected => qr/^succeeded/);
try('SET ROLE', "SET ROLE postgres; $grab", expected => qr/^failed\|1\|42501/);
try('SET ROLE victim', "SET ROLE victim; $grab", expected => qr/^failed\|1\|42501/);
try('SET SESSION AUTHORIZATION', "SET SESSION AUTHORIZATION postgres; $grab", expected => qr/^failed\|1\|42501/);
try('RESET SESSION AUTHORIZATION', "RESET SESSION AUTHORIZATION; $grab", expected => qr/^succeeded/);
try('set_config role', "PERFORM set_config('role', 'none', false), set_config('session_authorization', 'mallory', false); $grab",
	expected => qr/^succeeded/);
try('RESET ALL', "RESET ALL; $grab", expected => qr/^succeeded/);
try('session_replication_role', "SET session_replication_role = replica; $grab", expected => qr/^failed\|1\|42501/);
try('qml settings', "SET qml.max_payload_size = '256MB';", expected => qr/^failed\|1\|42501/);
try('ROLLBACK in a procedure', "ROLLBACK; RESET ROLE; $grab ROLLBACK; $grab COMMIT; $grab", procedure => 1, expected => qr/^succeeded/);
try('COMMIT and RESET SESSION AUTHORIZATION', "COMMIT; RESET SESSION AUTHORIZATION; COMMIT; $grab", procedure => 1,
	expected => qr/^succeeded/);
try('an error after COMMIT', "COMMIT; $grab RAISE EXCEPTION 'x';", procedure => 1, expected => qr/^failed/);

# What is qml's own: rows that say what runs as whom, and what could hang on its tables.
foreach my $statement (
	q{UPDATE qml.handler_data SET run_as = 10},
	q{INSERT INTO qml.acl_data SELECT * FROM qml.acl_data},
	q{UPDATE qml.queue_data SET name = 'x'},
	q{UPDATE qml.live SET payload = '{}'},
	q{COPY qml.recurring_data TO '/tmp/x'},
	q{SELECT * FROM qml.hook_data FOR UPDATE},
	q{CREATE TRIGGER t BEFORE UPDATE ON qml.live FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()},
	q{CREATE RULE r AS ON UPDATE TO qml.live DO ALSO SELECT 1},
	q{CREATE INDEX ON qml.live ((length(method)))},
	q{ALTER TABLE qml.live ALTER COLUMN payload SET DEFAULT '{}'},
	q{CREATE TABLE mine () INHERITS (qml.live)},
	q{CREATE POLICY p ON qml.live USING (false)},
	q{CREATE FUNCTION qml.now() RETURNS int LANGUAGE sql AS 'SELECT 1'},
	q{CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION late()},
	q{LOAD '/tmp/x'},
	q{SET session_preload_libraries = 'x'})
{
	try($statement, "$grab EXECUTE \$x\$$statement\$x\$;", expected => qr/^failed\|1\|42501\|/);
}

# Triggers that fire when the transaction ends, as qml's own work goes on.
in_target(<<"SQL");
SET ROLE mallory;
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	RESET ROLE;
	$grab
	RETURN NULL;
END \$\$;
CREATE TABLE bomb (a int);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON bomb DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
SQL
try('a deferred trigger', 'INSERT INTO bomb VALUES (1), (2);', expected => qr/^succeeded/);
try('one in a procedure', 'INSERT INTO bomb VALUES (1); COMMIT; INSERT INTO bomb VALUES (2);', procedure => 1,
	expected => qr/^succeeded/);
cmp_ok(in_target(q{SELECT count(*) FROM canary WHERE how = 'try'}), '>', 10, 'all this was tried');

# A security definer function of another, and a handler's of its own.
in_target(<<'SQL');
SET ROLE mallory;
CREATE FUNCTION definer(payload jsonb) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
$$ BEGIN INSERT INTO canary (how) VALUES ('definer'); END $$;
SELECT qml_register_handler('definer', 'definer');
SQL
like(run($node, 'definer', '{}', 'max_retries => 0', 'target'), qr/^succeeded/, 'a security definer handler');
no_canary('a security definer handler');

# Other processes: his own workers are his to end, those of stronger roles are not,
# even with pg_signal_backend.
in_target(<<'SQL');
CREATE FUNCTION boss_waits(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(600)';
SELECT qml_register_handler('boss_waits', 'boss_waits');
SQL
{
	my $boss = enqueue($node, 'boss_waits', '{}', q{max_retries => 0, timeout => '1 hour'}, 'target');
	wait_for('the job of a superuser', sub { worker_pids($node, "query LIKE '%$boss' AND wait_event = 'PgSleep'") });
	my $processes = q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity
		WHERE backend_type LIKE 'qml %' AND usename IS DISTINCT FROM 'mallory' AND (datname IS NULL OR datname = 'target')};
	my $before = in_target($processes);
	cmp_ok(scalar(split / /, $before), '>=', 3, 'a launcher, a scheduler and a worker of a superuser');
	foreach my $with ('without', 'with')
	{
		query($node, 'GRANT pg_signal_backend TO mallory') if $with eq 'with';
		foreach my $function ('pg_terminate_backend', 'pg_cancel_backend')
		{
			try("$function $with pg_signal_backend", <<"SQL", expected => qr/^succeeded/);
DECLARE
	refused int := 0;
	them int[] := ARRAY(SELECT pid FROM pg_stat_activity WHERE pid IN (${\ join ', ', split / /, $before }));
	it int;
BEGIN
	FOREACH it IN ARRAY them LOOP
		BEGIN
			PERFORM $function(it);
		EXCEPTION WHEN insufficient_privilege THEN
			refused := refused + 1;
		END;
	END LOOP;
	IF cardinality(them) < 3 OR refused <> cardinality(them) THEN
		RAISE EXCEPTION '% of % refused', refused, cardinality(them);
	END IF;
END;
SQL
		}
	}
	query($node, 'REVOKE pg_signal_backend FROM mallory');
	is(in_target($processes), $before, 'all go on');
	is(outcome($node, $boss, 'target'), 'processing|1', 'and so does the job');
	in_target("SELECT qml_delete('$boss')");
}

# ---- who may register what

sub refused
{
	my ($name, $sql, $sqlstate) = @_;
	fails_with($node, $sqlstate // '42501', $sql, "$name is refused", dbname => 'target');
	return;
}
refused('run_as a superuser', q{SET ROLE mallory; SELECT qml_register_handler('x', 'definer', '{"run_as": "postgres"}')});
refused('run_as another', q{SET ROLE mallory; SELECT qml_register_handler('x', 'definer', '{"run_as": "victim"}')});
refused('a superuser for a function of others', q{SELECT qml_register_handler('x', 'definer')});
refused('registering without the right', q{SET ROLE victim; SELECT qml_register_handler('x', 'definer')});

# A function that changes hands after it was registered.
in_target(<<'SQL');
CREATE SCHEMA shared;
GRANT ALL ON SCHEMA shared TO PUBLIC;
CREATE FUNCTION shared.job(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT qml_register_handler('shared', 'shared.job');
SQL
is(run($node, 'shared', '{}', undef, 'target'), 'succeeded|1', 'a superuser\'s own function');
in_target(<<'SQL');
DROP FUNCTION shared.job(jsonb);
SET ROLE mallory;
CREATE FUNCTION shared.job(payload jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.canary (how) VALUES ('replaced') $$;
SQL
like(run($node, 'shared', '{}', 'max_retries => 0', 'target'), qr/^failed\|1\|QM007\|.*would run as a superuser, but it is not owned by one/i,
	'one of the same name that belongs to another does not run');
no_canary('replaced function');
in_target('ALTER FUNCTION shared.job(jsonb) OWNER TO postgres');
in_target('ALTER FUNCTION shared.job(jsonb) OWNER TO mallory');
like(run($node, 'shared', '{}', 'max_retries => 0', 'target'), qr/^failed\|1\|QM007/, 'nor when it changes hands');
no_canary('function that changed hands');

# Membership that is revoked after the registration.
query($node, 'GRANT victim TO mallory');
in_target(<<'SQL');
SET ROLE mallory;
CREATE FUNCTION member(payload jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO canary (how) VALUES ('member') $$;
SELECT qml_register_handler('member', 'member', '{"run_as": "victim"}');
SQL
is(run($node, 'member', '{}', undef, 'target'), 'succeeded|1', 'run_as of a member');
in_target(q{DELETE FROM canary WHERE how = 'member'});
query($node, 'REVOKE victim FROM mallory');
like(run($node, 'member', '{}', 'max_retries => 0', 'target'), qr/^failed\|1\|42501\|handler "member" may not run as role "victim"/,
	'not any more when the membership was revoked');
is(in_target(q{SELECT count(*) FROM canary WHERE how = 'member'}), 0, 'and has no effect');

# A role is who it is, not how it is called.
query($node, 'CREATE ROLE was LOGIN');
in_target(<<'SQL');
CREATE FUNCTION who(payload jsonb) RETURNS text LANGUAGE sql AS 'SELECT session_user || $$ $$ || current_user';
SELECT qml_register_handler('who', 'who', '{"run_as": "was"}');
SQL
my $nobodys;
{
	query($node, 'ALTER ROLE was RENAME TO is_now');
	query($node, 'CREATE ROLE was LOGIN');
	my $id = enqueue($node, 'who', '{}', 'max_retries => 0', 'target');
	is(outcome_of($node, $id, 'target'), 'succeeded|1', 'a role that was renamed');
	is(in_target("SELECT result #>> '{}' FROM qml_job('$id')"), 'is_now is_now', 'it is the same one, not one of its old name');
	in_target('DROP OWNED BY is_now; DROP ROLE is_now, was; CREATE ROLE is_now LOGIN SUPERUSER; CREATE ROLE was LOGIN SUPERUSER');
	$nobodys = enqueue($node, 'who', '{}', 'max_retries => 0', 'target');
}

# Rows that a policy shows to their owner alone: whoever asks before or after, by the
# same function.
in_target(<<'SQL');
CREATE TABLE guarded (owner name, a int);
INSERT INTO guarded SELECT r, i FROM unnest(ARRAY['mallory', 'victim', 'postgres']) r, generate_series(1, 3) i;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON guarded USING (owner = current_user);
GRANT SELECT ON guarded TO PUBLIC;
CREATE FUNCTION guarded_rows() RETURNS text LANGUAGE sql STABLE AS 'SELECT string_agg(DISTINCT owner::text, $$ $$) || count(*) FROM public.guarded';
CREATE FUNCTION sees(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN public.guarded_rows(); END $$;
SELECT qml_register_handler('sees_mallory', 'sees', '{"run_as": "mallory"}'), qml_register_handler('sees_victim', 'sees', '{"run_as": "victim"}');
SQL
foreach my $role (qw(mallory victim) x 3)
{
	my $id = enqueue($node, "sees_$role", '{}', undef, 'target');
	outcome_of($node, $id, 'target');
	is(in_target("SELECT result #>> '{}' FROM qml_job('$id')"), "${role}3", "row level security: $role");
}
is(outcome($node, $nobodys, 'target'), 'enqueued|0', 'a role that was dropped and made again is another one: jobs of the old one wait');

# ---- a superuser's enqueue runs nobody's code

in_target(<<'SQL');
SET ROLE mallory;
CREATE FUNCTION peek(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.canary (how) VALUES ('check'); RETURN true; END $$;
CREATE FUNCTION peek_default() RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.canary (how) VALUES ('default'); RETURN ''; END $$;
CREATE DOMAIN trap AS text CHECK (peek(VALUE));
CREATE TYPE trap_row AS (a trap);
CREATE FUNCTION takes_trap(a trap DEFAULT '', b trap[] DEFAULT '{}', c trap_row DEFAULT NULL, d text DEFAULT peek_default())
	RETURNS text LANGUAGE sql AS 'SELECT a::text';
SELECT qml_register_handler('takes_trap', 'takes_trap');
SQL
my $trap = in_target(q{SELECT qml_enqueue('takes_trap', '{"a": "x", "b": ["y"], "c": {"a": "z"}}')});
in_target(q{SELECT qml_enqueue_many('takes_trap', ARRAY['{}', '{"a": "x"}']::jsonb[])});
in_target(q{SELECT qml_schedule_recurring('trap', '@yearly', 'takes_trap', '{"a": "x"}'), qml_run_recurring('trap')});
is(outcome_of($node, $trap, 'target'), 'succeeded|1', 'a handler with hostile types runs');
no_canary('types of arguments');
cmp_ok(in_target(q{SELECT count(*) FROM canary WHERE how IN ('check', 'default')}), '>', 0, 'and its checks run as the handler');
in_target('SELECT * FROM qml.handler; SELECT * FROM qml.job');
no_canary('looking at it');

# A result is converted as the handler: by a cast of its own, which to_jsonb uses.
in_target(<<'SQL');
SET ROLE mallory;
CREATE TYPE casts AS ENUM ('x');
CREATE FUNCTION casts_to_json(casts) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.canary (how) VALUES ('cast');
	RETURN '"cast"';
END $$;
CREATE CAST (casts AS json) WITH FUNCTION casts_to_json(casts);
CREATE FUNCTION returns_cast(payload jsonb) RETURNS casts LANGUAGE sql AS $$ SELECT 'x'::casts $$;
SELECT qml_register_handler('returns_cast', 'returns_cast');
CREATE PROCEDURE returns_cast_p(payload jsonb, OUT x casts) LANGUAGE plpgsql AS $$ BEGIN x := 'x'; COMMIT; END $$;
SELECT qml_register_handler('returns_cast_p', 'returns_cast_p');
SQL
is(run($node, $_, '{}', 'max_retries => 0', 'target'), 'succeeded|1', "a result with a cast of its own: $_") foreach qw(returns_cast returns_cast_p);
no_canary('casts of results');
is(in_target(q{SELECT count(*) FROM canary WHERE how = 'cast'}), 2, 'the casts were called');

# A payload is data, whatever it looks like.
in_target('SET ROLE mallory; CREATE FUNCTION echo(a text) RETURNS text LANGUAGE sql AS $$ SELECT a $$; SELECT qml_register_handler($$echo$$, $$echo$$)');
foreach my $text (q{'; DROP TABLE public.secret; --}, q{$$; ROLLBACK; RESET ROLE; --}, q{"; SELECT 1}, '%s%n%1$s', '{"a": 1}', '\\\\x41')
{
	my $payload = JSON::PP->new->encode({ a => $text });
	my $id = in_target("SELECT qml_enqueue('echo', \$payload\$$payload\$payload\$)");
	is(outcome_of($node, $id, 'target'), 'succeeded|1', "the payload $payload");
	is(in_target("SELECT result #>> '{}' FROM qml_job('$id')"), $text, 'it comes back as it is');
}

# ---- a superuser's job, and what a hostile one leaves for it

in_target(<<'SQL');
CREATE PROCEDURE boss_job(payload jsonb) LANGUAGE plpgsql AS $$ BEGIN SET SESSION AUTHORIZATION mallory; COMMIT; END $$;
SELECT qml_register_handler('boss_job', 'boss_job');
CREATE PROCEDURE boss_fails(payload jsonb) LANGUAGE plpgsql AS $$ BEGIN SET SESSION AUTHORIZATION mallory; COMMIT; RAISE EXCEPTION 'x'; END $$;
SELECT qml_register_handler('boss_fails', 'boss_fails');
CREATE FUNCTION boss_sees(payload jsonb) RETURNS text LANGUAGE sql AS 'SELECT session_user || $$ $$ || current_user';
SELECT qml_register_handler('boss_sees', 'boss_sees');
SET ROLE mallory;
CREATE PROCEDURE resets(payload jsonb) LANGUAGE plpgsql AS $$ BEGIN RESET SESSION AUTHORIZATION; INSERT INTO canary (how) VALUES ('resets'); END $$;
SELECT qml_register_handler('resets', 'resets');
SQL
set_config($node, 'qml.workers' => 1);
foreach my $method (qw(boss_job boss_fails))
{
	run($node, $method, '{}', 'max_retries => 0', 'target');
	run($node, 'resets', '{}', 'max_retries => 0', 'target') for 1 .. 3;
	no_canary("$method, which gives up its rights");
	my $id = enqueue($node, 'boss_sees', '{}', undef, 'target');
	outcome_of($node, $id, 'target');
	is(in_target("SELECT result #>> '{}' FROM qml_job('$id')"), 'postgres postgres', "$method: the next one has its own role");
}

# ---- hostile settings, names and event triggers

in_target(<<'SQL');
SET ROLE mallory;
CREATE SCHEMA evil;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ INSERT INTO public.canary (how) VALUES ('now'); SELECT pg_catalog.now() $$;
CREATE FUNCTION evil.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS $$ INSERT INTO public.canary (how) VALUES ('to_jsonb'); SELECT pg_catalog.to_jsonb($1) $$;
CREATE FUNCTION evil.op(text, text) RETURNS boolean LANGUAGE sql AS $$ INSERT INTO public.canary (how) VALUES ('op'); SELECT true $$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.op);
GRANT ALL ON SCHEMA evil TO PUBLIC;
SQL
my @SETTINGS = (
	"search_path = evil, pg_catalog, public", "statement_timeout = 1", "idle_in_transaction_session_timeout = 1",
	"idle_session_timeout = 1", "default_transaction_read_only = on", "default_transaction_isolation = 'serializable'",
	"default_transaction_deferrable = on", "row_security = off", "TimeZone = 'Australia/Lord_Howe'", "DateStyle = 'SQL, DMY'",
	"IntervalStyle = sql_standard", "standard_conforming_strings = off", "check_function_bodies = off",
	"quote_all_identifiers = on", "transform_null_equals = on", "array_nulls = off", "bytea_output = escape",
	"enable_seqscan = off", "enable_indexscan = off", "work_mem = 64", "client_min_messages = debug5",
	"default_table_access_method = 'evil'", "default_tablespace = 'pg_global'", "application_name = 'evil'", "exit_on_error = on");
query($node, join '', map { "ALTER ROLE mallory SET $_;\n" } @SETTINGS);
# New partitions must be made by the worker, too.
in_target(<<'SQL');
SELECT format('DROP TABLE %s', inhrelid::regclass) FROM pg_inherits WHERE inhparent = 'qml.history'::regclass \gexec
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'qml worker';
SQL
wait_for('the end of the workers', sub { !worker_pids($node) });
foreach my $method (qw(definer resets takes_trap))
{
	my $payload = $method eq 'takes_trap' ? '{"a": "x"}' : '{}';
	is(run($node, $method, $payload, 'max_retries => 0', 'target'), 'succeeded|1', "hostile settings of the role: $method");
}
no_canary('hostile settings of a role');
is(in_target(q{SELECT count(*) FROM canary WHERE how IN ('now', 'op', 'to_jsonb')}), 0, 'nothing that qml does calls what is in the way');
query($node, 'ALTER ROLE mallory RESET ALL');

# The same of the database, which is mallory's, for all who work in it.  The session
# that asks is older than the settings.
ask($node, 'SELECT', 'target');
query($node, join '', map { "ALTER DATABASE target SET $_;\n" } @SETTINGS);
query($node, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'qml worker'});
wait_for('the end of the workers', sub { !worker_pids($node) });
is(run($node, $_, '{}', 'max_retries => 0', 'target'), 'succeeded|1', "hostile settings of the database: $_") foreach qw(definer boss_sees);
query($node, 'ALTER DATABASE target RESET ALL');
no_canary('hostile settings of a database');
is(in_target(q{SELECT count(*) FROM canary WHERE how IN ('now', 'op', 'to_jsonb')}), 0, 'nothing that qml does calls what is in the way');

# Temporary objects of all names that qml uses, in the transaction in which it ends the job.
try('temporary objects under names of qml and the catalogs', <<'SQL', expected => qr/^succeeded/);
	CREATE FUNCTION pg_temp.sing() RETURNS trigger LANGUAGE plpgsql AS $f$
	BEGIN INSERT INTO public.canary (how) VALUES ('shadow'); RETURN NULL; END $f$;
	DECLARE name text;
	BEGIN
		FOR name IN SELECT relname FROM pg_catalog.pg_class
			WHERE relkind IN ('r', 'p', 'v') AND (relnamespace = 'qml'::regnamespace
				OR relname IN ('pg_class', 'pg_proc', 'pg_authid', 'pg_roles', 'pg_database', 'pg_attribute', 'pg_namespace', 'pg_inherits'))
		LOOP
			EXECUTE format('CREATE TEMP TABLE %I (a int)', name);
			EXECUTE format('CREATE TRIGGER sing BEFORE INSERT OR UPDATE OR DELETE ON pg_temp.%I EXECUTE FUNCTION pg_temp.sing()', name);
		END LOOP;
	END;
	SET search_path = pg_temp, evil, pg_catalog;
SQL
is(in_target(q{SELECT count(*) FROM canary WHERE how = 'shadow'}), 0, 'nobody looked at them');

# Names with all that may be in names.
{
	my $bad = q{a"b'c;--$x$};
	(my $quoted = $bad) =~ s/"/""/g;
	(my $literal = $bad) =~ s/'/''/g;
	in_target(qq{CREATE ROLE "$quoted" LOGIN; CREATE SCHEMA "$quoted"; GRANT ALL ON SCHEMA "$quoted" TO "$quoted"; GRANT ALL ON canary TO "$quoted"});
	in_target("SELECT qml_grant(quote_ident('$literal')::regrole, 'admin')");
	in_target(<<"SQL");
SET ROLE "$quoted";
CREATE TYPE "$quoted"."$quoted" AS ENUM ('x');
CREATE FUNCTION "$quoted"."$quoted"("$quoted" "$quoted"."$quoted") RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
SELECT qml_register_handler('$literal', format('%I.%I', '$literal', '$literal'));
SQL
	my $id = in_target("SELECT qml_enqueue('$literal', jsonb_build_object('$literal', 'x'))");
	is(outcome_of($node, $id, 'target'), 'succeeded|1', 'names with all that may be in names');
	is(in_target("SELECT result #>> '{}' FROM qml_job('$id')"), $bad, 'and as that role');
}

# An event trigger that a superuser made, which fires with the rights of whoever.
in_target(<<'SQL');
CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.canary (how) SELECT 'event ' || tg_tag
	FROM pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type = 'qml worker';
END $$;
CREATE EVENT TRIGGER on_ddl ON ddl_command_end EXECUTE FUNCTION on_ddl();
CREATE EVENT TRIGGER on_drop ON sql_drop EXECUTE FUNCTION on_ddl();
DELETE FROM canary;
SQL
try('DDL under an event trigger', 'CREATE TEMP TABLE t (a int); CREATE TABLE mine (a int);', expected => qr/^succeeded/);
in_target('DROP EVENT TRIGGER on_ddl; DROP EVENT TRIGGER on_drop');

run_log_clean($node, 'no process crashed');
end_sessions($node);
done_testing();
