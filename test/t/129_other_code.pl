# Code of others never runs in somebody else's session: what PL/pgSQL has compiled there, a
# plan or a setting would let them act as whoever uses the session.  And hooks after the
# commit, which are the way for everybody else.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $node = background_node('other_code', conf => "qml.workers = 3\nmax_worker_processes = 20\n");
wait_for_process($node, 'scheduler', 'postgres');

# Functions of a superuser as people write them, with unqualified names, and an attacker
# who has "admin" on all queues.  Whoever runs her code says who he is.
query($node, <<'SQL');
CREATE ROLE mallory LOGIN;
CREATE ROLE app LOGIN;
CREATE ROLE boss LOGIN SUPERUSER;
SELECT qml_grant('mallory', 'admin'), qml_grant('app', 'enqueue');
SELECT qml_create_queue('outside');
SELECT qml_create_queue('fast', '{"retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}');
CREATE TABLE canary (how text, who name DEFAULT current_user, session name DEFAULT session_user);
CREATE TABLE told (n bigserial, what text, who name DEFAULT current_user, session name DEFAULT session_user);
GRANT ALL ON canary, told, told_n_seq TO PUBLIC;
GRANT CREATE ON SCHEMA public TO mallory;

CREATE FUNCTION sums(a int, b int DEFAULT length('x' || 'y')) RETURNS text LANGUAGE plpgsql AS $$
DECLARE t text := 'x'; n int; r record;
BEGIN
	FOR r IN SELECT lower('X') AS l, 'a' = 'a' AS same LOOP n := length('\n') + a + b; END LOOP;
	IF NOT r.same OR r.l <> 'x' THEN RAISE 'wrong'; END IF;
	t := n::text;
	RETURN t;
END $$;
CREATE FUNCTION sums_sql(a int) RETURNS text LANGUAGE sql AS $$ SELECT lower((length('\n') + a)::text || 'X') WHERE 'a' = 'a' $$;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE t text := 'stamped';
BEGIN NEW.note := t; RETURN NEW; END $$;
CREATE TABLE stamps (n int, note text);
GRANT ALL ON stamps TO PUBLIC;
CREATE TRIGGER stamp BEFORE INSERT ON stamps FOR EACH ROW EXECUTE FUNCTION stamp();

CREATE SCHEMA evil AUTHORIZATION mallory;
SET ROLE mallory;
CREATE FUNCTION evil.sing() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.canary (how) VALUES ('sung');
	BEGIN ALTER ROLE mallory SUPERUSER; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
	RETURN true;
END $$;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE DOMAIN evil.text AS pg_catalog.text CHECK (evil.sing());
CREATE DOMAIN evil.int AS pg_catalog.int4 CHECK (evil.sing());
CREATE FUNCTION evil.lower(pg_catalog.text) RETURNS pg_catalog.text LANGUAGE sql AS $$ SELECT evil.sing(); SELECT 'evil'::pg_catalog.text $$;
CREATE FUNCTION evil.length(pg_catalog.text) RETURNS pg_catalog.int4 LANGUAGE sql AS $$ SELECT evil.sing(); SELECT 7 $$;
CREATE FUNCTION evil.same(pg_catalog.text, pg_catalog.text) RETURNS boolean LANGUAGE sql AS $$ SELECT evil.sing() $$;
CREATE OPERATOR evil.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = evil.same);
CREATE OPERATOR evil.|| (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = pg_catalog.textcat);
CREATE COLLATION evil."default" FROM "C";
CREATE TYPE evil.thing AS (a pg_catalog.text);
CREATE FUNCTION evil.thing_text(evil.thing) RETURNS pg_catalog.text LANGUAGE sql AS $$ SELECT evil.sing(); SELECT 'thing'::pg_catalog.text $$;
CREATE CAST (evil.thing AS pg_catalog.text) WITH FUNCTION evil.thing_text(evil.thing) AS IMPLICIT;
-- What poisons a session: everything is called once under settings of hers.
CREATE FUNCTION evil.poison() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.told (what) VALUES ('poisoned');
	PERFORM pg_catalog.set_config('search_path', 'evil, pg_catalog', true), pg_catalog.set_config('standard_conforming_strings', 'off', true),
		pg_catalog.set_config('escape_string_warning', 'off', true), pg_catalog.set_config('transform_null_equals', 'on', true);
	BEGIN PERFORM public.sums(1); EXCEPTION WHEN OTHERS THEN NULL; END;
	BEGIN PERFORM public.sums_sql(1); EXCEPTION WHEN OTHERS THEN NULL; END;
	BEGIN INSERT INTO public.stamps VALUES (1); EXCEPTION WHEN OTHERS THEN NULL; END;
	BEGIN PERFORM public.tell(NULL, NULL, 'enqueued'); EXCEPTION WHEN OTHERS THEN NULL; END;
	BEGIN PERFORM public.wraps(NULL); EXCEPTION WHEN OTHERS THEN NULL; END;
END $$;
CREATE FUNCTION evil.hook(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS 'SELECT evil.poison()';
CREATE FUNCTION evil.wrap(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT evil.poison(); SELECT public.qml_next()';
RESET ROLE;
-- A hook and a middleware of the owner, as people write them, too.
CREATE FUNCTION tell(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
DECLARE t text := coalesce(job.method, '') || ' ' || new; n int := length('\n');
BEGIN INSERT INTO public.told (what) VALUES (t || ' ' || n || ' ' || lower('X')); END $$;
CREATE FUNCTION tells(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.told (what) VALUES (job.method || ' ' || new || ' ' || public.sums(1)); END $$;
CREATE FUNCTION wraps(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE t text := 'wrapped'; r jsonb := public.qml_next(); n int := length('\n');
BEGIN INSERT INTO public.told (what) VALUES (t || ' ' || n || ' ' || lower('X')); RETURN r; END $$;
REVOKE EXECUTE ON FUNCTION tell, tells, wraps FROM PUBLIC;
-- A superuser's handler that uses all of it.
CREATE FUNCTION uses(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.stamps VALUES (2);
	RETURN public.sums(1) || ' ' || public.sums_sql(1) || ' ' || (SELECT note FROM public.stamps WHERE n = 2 LIMIT 1);
END $$;
SELECT qml_register_handler('uses', 'uses');
SQL
my $USE = q{TRUNCATE stamps; INSERT INTO stamps VALUES (2); SELECT sums(1), sums_sql(1), (SELECT note FROM stamps WHERE n = 2)};
my $USED = '5|3x|stamped';

sub end_workers
{
	query($node, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'qml worker'});
	return;
}

# Whose code of mallory's was run as somebody else since the last time.
sub is_clean
{
	my ($name) = @_;
	is(query($node, q{SELECT string_agg(DISTINCT who || ' in the session of ' || session, ', ') FROM canary WHERE who <> 'mallory'}), '',
		"$name: nobody runs her code");
	is(query($node, q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'}), 'f', "$name: and she has no more rights");
	query($node, 'TRUNCATE canary, told; ALTER ROLE mallory NOSUPERUSER');
	return;
}

# Registered when she was a member of the owner, which she is not any more.
sub left_over
{
	my ($hook, $middleware) = @_;
	query($node, 'GRANT postgres TO mallory');
	query($node, 'SET ROLE mallory; REVOKE EXECUTE ON FUNCTION evil.hook, evil.wrap FROM PUBLIC');
	query($node, "SET ROLE mallory; SELECT qml_register_hook('a_mallory', 'evil.hook')") if $hook;
	query($node, "SET ROLE mallory; SELECT qml_register_middleware('a_mallory', 'evil.wrap', -9)") if $middleware;
	query($node, 'REVOKE postgres FROM mallory');
	return;
}

# ---- the attack works where it is let in: by a hook of a member of the owner

left_over(1, 1);
query($node, 'GRANT postgres TO mallory');
{
	my $session = new_session($node, 'postgres', on_error_stop => 0);
	$session->query(q{SELECT qml_enqueue('x', queue => 'outside')});
	$session->query($USE);
	$session->quit;
	is(query($node, q{SELECT count(*) > 0 FROM canary WHERE who = 'postgres'}), 't', 'a function that a hook has called first is poisoned in the session');
	is(query($node, q{SELECT count(*) > 0 FROM told WHERE what = 'poisoned'}), 't', 'by the hook');
	query($node, 'ALTER ROLE mallory NOSUPERUSER; TRUNCATE canary, told');
}
query($node, 'REVOKE postgres FROM mallory');

# ---- the four forms: a client, a trigger function, a worker, the scheduler

fails_with($node, '42501', q{SET ROLE mallory; SELECT qml_register_hook('m', 'evil.hook')}, 'mallory cannot register a hook that runs in all sessions');
{
	my $session = new_session($node);
	$session->query_safe(q{SELECT qml_enqueue('x', queue => 'outside')});
	is($session->query_safe('SELECT sums(1), sums_sql(1)'), '5|3x', 'a client that enqueues: its functions are what they were');
	$session->query_safe(q{SELECT qml_enqueue('x', queue => 'outside')});
	is($session->query_safe(q{INSERT INTO stamps VALUES (2) RETURNING note}), 'stamped', 'a trigger function, too');
	is($session->query_safe(q{SELECT qml_fail(id, attempt, 'e') FROM qml_fetch('w', '{outside}')}), "awaiting_retry", 'a client that works');
	is($session->query_safe('TRUNCATE stamps; INSERT INTO stamps VALUES (2); SELECT sums(1), sums_sql(1), (SELECT note FROM stamps WHERE n = 2)'), $USED, 'likewise');
	$session->quit;
	is(query($node, q{SELECT count(*) FROM told WHERE what = 'poisoned'}), 0, 'the hook was passed over');
	is_clean('a client');
}
end_workers();
query($node, 'TRUNCATE stamps');
foreach my $round (1, 2)
{
	my $id = enqueue($node, 'uses');
	is(outcome_of($node, $id), 'succeeded|1', "a worker that runs a superuser's handler ($round)");
	is(ask($node, "SELECT result #>> '{}' FROM qml_job('$id')"), '5 3x stamped', 'its functions are what they were');
}
is(query($node, q{SELECT count(*) FROM told WHERE what = 'poisoned'}), 0, 'the middleware was passed over');
is_clean('a worker');
# Of two hooks in the scheduler the first is called first.
query($node, q{SELECT qml_register_hook('b_tell', 'tells', '{enqueued}')});
{
	my $id = enqueue($node, 'due', '{}', q{queue => 'outside', run_at => clock_timestamp() + interval '0.2 s'});
	wait_state($node, $id, 'enqueued');
	is(query($node, q{SELECT string_agg(concat_ws(' ', what, who, session), ', ' ORDER BY n) FROM told WHERE what LIKE 'due %'}), 'due enqueued 5 postgres postgres',
		'a hook of the owner in the scheduler is what it was');
	is_clean('the scheduler');
}
is(query($node, q{SELECT string_agg(kind || ': ' || coalesce(problem LIKE '%a_mallory" is passed over: Role "mallory"%', false), ', ' ORDER BY kind)
	FROM (SELECT 'hook' AS kind, problem FROM qml.hook WHERE name = 'a_mallory' UNION ALL SELECT 'middleware', problem FROM qml.middleware WHERE name = 'a_mallory') p}),
	'hook: true, middleware: false', 'what is passed over is shown');

# ---- the other way round: who uses a session does not gain the rights of the owner's hooks

query($node, q{SELECT qml_unregister_hook('a_mallory'), qml_unregister_middleware('a_mallory'), qml_register_hook('b_tell', 'tell', '{enqueued}'), qml_register_middleware('wraps', 'wraps'); DELETE FROM qml.live; TRUNCATE told});
query($node, 'GRANT EXECUTE ON FUNCTION evil.poison() TO app');
{
	my $session = new_session($node);
	$session->query_safe('SET SESSION AUTHORIZATION mallory; BEGIN; SELECT evil.poison(); COMMIT');
	$session->query_safe(q{SELECT qml_enqueue('x', queue => 'outside')});
	$session->query_safe(q{SET standard_conforming_strings = off; SET escape_string_warning = off; SET search_path = evil, pg_catalog});
	$session->query_safe(q{SELECT public.qml_enqueue('x', queue => 'outside')});
	$session->quit;
	is(query($node, q{SELECT string_agg(concat_ws(' ', what, who, session), ', ' ORDER BY n) FROM told WHERE what LIKE 'x %'}),
		'x enqueued 2 x postgres mallory, x enqueued 2 x postgres mallory', 'a client who has called the hook before it was');
	is(query($node, q{SELECT count(*) > 0 FROM canary WHERE who = 'mallory'}), 't', 'and has compiled it, with types of hers');
	is_clean('a client who attacks a hook');
}
query($node, <<'SQL');
SET ROLE mallory;
CREATE FUNCTION evil.work(payload jsonb) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM evil.poison();
	PERFORM public.qml_enqueue('x', queue => 'outside');
	RETURN 1;
END $$;
SELECT qml_register_handler('evil_work', 'evil.work');
SQL
{
	set_config($node, 'qml.workers' => 1);
	end_workers();
	is(run($node, 'evil_work', '{}', 'max_retries => 0'), 'succeeded|1', 'a handler of mallory\'s that poisons its worker') foreach 1 .. 3;
	set_config($node, 'qml.workers' => 3);
	is(query($node, q{SELECT string_agg(DISTINCT concat_ws(' ', what, who, session), ', ') FROM told WHERE who <> 'mallory'}),
		'evil_work enqueued 2 x postgres postgres, wrapped 2 x postgres mallory, x enqueued 2 x postgres mallory', 'the owner\'s hook and middleware are what they were');
	is_clean('a handler who attacks a middleware');
}
# She cannot switch them off either, or put something in their place.
query($node, q{SET ROLE mallory; CREATE FUNCTION evil.event(jsonb) RETURNS void LANGUAGE sql AS 'SELECT evil.poison()'});
fails_with($node, '42501', "SET ROLE mallory; SELECT $_", "the owner's hook and middleware stay: $_")
  foreach q{qml_unregister_hook('b_tell')}, q{qml_unregister_middleware('wraps')}, q{qml_register_middleware('wraps', 'evil.wrap')},
  q{qml_register_hook('b_tell', 'evil.event', options => '{"after_commit": true}')};
# A handler and a final function are called with an input collation: nothing keeps their calls
# apart from those of a hook or middleware but the privilege EXECUTE.
fails_with($node, '42501', q{SET ROLE mallory; SELECT qml_register_handler('poison', 'wraps')}, 'the owner\'s middleware is no handler of hers');
# Aggregates of each kind that could call them; ordered sets hand direct arguments on to the final
# function, so that it can be a hook, too.
my %AGGREGATES = (
	'an aggregate' => [ 'evil.a', '(pg_catalog.text) (sfunc = evil.step, stype = qml.job, finalfunc = public.wraps)', q{evil.a('x'::pg_catalog.text)} ],
	'a moving aggregate' => [
		'evil.m', '(pg_catalog.text) (sfunc = evil.step, stype = qml.job, finalfunc = evil.final, msfunc = evil.step, minvfunc = evil.step, mstype = qml.job, mfinalfunc = public.wraps)',
		q{evil.m('x'::pg_catalog.text) OVER (ROWS BETWEEN CURRENT ROW AND CURRENT ROW)} ],
	'an ordered set' => [ 'evil.o', '(ORDER BY pg_catalog.text) (sfunc = evil.step, stype = qml.job, finalfunc = public.wraps)',
		q{evil.o() WITHIN GROUP (ORDER BY 'x'::pg_catalog.text)} ],
	'an ordered set with direct arguments' => [
		'evil.d', '(qml.job_state, qml.job_state ORDER BY pg_catalog.text) (sfunc = evil.step, stype = qml.job, finalfunc = public.tell)',
		q{evil.d('enqueued', 'enqueued') WITHIN GROUP (ORDER BY 'x'::pg_catalog.text)} ],
	'a hypothetical set' => [
		'evil.h', '(qml.job_state, qml.job_state ORDER BY qml.job_state, qml.job_state) (sfunc = evil.step, stype = qml.job, finalfunc = public.tell, hypothetical)',
		q{evil.h('enqueued', 'enqueued') WITHIN GROUP (ORDER BY 'enqueued'::qml.job_state, 'failed'::qml.job_state)} ]);
query($node, <<'SQL');
SET ROLE mallory;
CREATE FUNCTION evil.step(j qml.job, t pg_catalog.text) RETURNS qml.job LANGUAGE sql AS $$ SELECT pg_catalog.jsonb_populate_record(NULL::qml.job, '{"method": "x"}') $$;
CREATE FUNCTION evil.final(j qml.job) RETURNS pg_catalog.jsonb LANGUAGE sql AS 'SELECT NULL::pg_catalog.jsonb';
CREATE FUNCTION evil.step(j qml.job, a qml.job_state, b qml.job_state) RETURNS qml.job LANGUAGE sql AS 'SELECT j';
SQL
foreach my $kind (sort keys %AGGREGATES)
{
	my ($name, $definition, $call) = @{ $AGGREGATES{$kind} };
	fails_with($node, '42501', "SET ROLE mallory; CREATE AGGREGATE $name $definition", "the final function of $kind");
}
{
	# In a session in which she could call them, once, and has compiled them.
	my $session = new_session($node, 'postgres', on_error_stop => 0);
	query($node, 'GRANT EXECUTE ON FUNCTION tell, wraps TO mallory; TRUNCATE told');
	$session->query_safe('SET SESSION AUTHORIZATION mallory; SET search_path = evil, pg_catalog; SET escape_string_warning = off; SET standard_conforming_strings = off');
	foreach my $kind (sort keys %AGGREGATES)
	{
		my ($name, $definition, $call) = @{ $AGGREGATES{$kind} };
		$session->query_safe("CREATE AGGREGATE $name $definition");
		$session->query_safe("DO LANGUAGE plpgsql \$call\$ BEGIN PERFORM $call; EXCEPTION WHEN OTHERS THEN NULL; END \$call\$");
	}
	is(query($node, q{SELECT count(*) > 0 FROM canary WHERE who = 'mallory'}), 't', 'the functions are compiled, with types of hers');
	query($node, 'REVOKE EXECUTE ON FUNCTION tell, wraps FROM mallory; TRUNCATE canary, told');
	foreach my $kind (sort keys %AGGREGATES)
	{
		my (undef, undef, $call) = @{ $AGGREGATES{$kind} };
		fails_with($node, '42501', "SET ROLE mallory; SELECT $call", "$kind of hers that is there does not call it any more");
	}
	$session->query_safe(q{SELECT public.qml_enqueue('x', queue => 'outside')});
	$session->quit;
	is(query($node, q{SELECT string_agg(concat_ws(' ', what, who, session), ', ' ORDER BY n) FROM told WHERE what LIKE 'x %'}), 'x enqueued 2 x postgres mallory',
		'what she has compiled so is not what is called');
	is_clean('aggregates');
}
foreach my $grantee ('PUBLIC', 'mallory')
{
	query($node, "GRANT EXECUTE ON FUNCTION tell, wraps TO $grantee");
	fails_with($node, '42501', q{SELECT qml_register_hook('other', 'tell')}, "a hook that $grantee may execute is not registered");
	fails_with($node, '42501', q{SELECT qml_register_middleware('other', 'wraps')}, 'nor such a middleware');
	fails_with($node, 'QM007', q{SELECT qml_enqueue('x', queue => 'outside')}, 'nor called');
	like(query($node, q{SELECT problem FROM qml.middleware WHERE name = 'wraps'}), qr/$grantee has the privilege EXECUTE on it/, 'and the view says why');
	query($node, "REVOKE EXECUTE ON FUNCTION tell, wraps FROM $grantee");
}
is_clean('a function that others may execute');
query($node, q{SELECT qml_unregister_hook('b_tell'), qml_unregister_middleware('wraps')});

# ---- a function that a lesser owner replaces

query($node, <<'SQL');
CREATE SCHEMA shared AUTHORIZATION mallory;
CREATE FUNCTION shared.hook(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION shared.wrap(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT public.qml_next()';
REVOKE EXECUTE ON FUNCTION shared.wrap FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION shared.hook FROM PUBLIC;
SELECT qml_register_hook('shared', 'shared.hook', '{deleted}'), qml_register_middleware('shared', 'shared.wrap');
SQL
fails_with($node, '42501', q{SET ROLE mallory; CREATE OR REPLACE FUNCTION shared.hook(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS 'SELECT evil.poison()'},
	'mallory cannot replace it');
query($node, <<'SQL');
SET ROLE mallory;
DROP FUNCTION shared.hook(qml.job, qml.job_state, qml.job_state), shared.wrap(qml.job);
CREATE FUNCTION shared.hook(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS 'SELECT evil.poison()';
CREATE FUNCTION shared.wrap(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT evil.poison(); SELECT public.qml_next()';
SQL
fails_with($node, 'QM007', q{SELECT qml_delete(qml_enqueue('x', queue => 'outside'))}, 'one of the same name that mallory puts in its place is not called');
like(run($node, 'uses', '{}', 'max_retries => 0'), qr/^failed\|1\|QM007\|/, 'nor is such a middleware');
is(query($node, q{SELECT count(*) FROM told WHERE what = 'poisoned'}), 0, 'neither has run');
is_clean('a replaced function');
query($node, q{SELECT qml_unregister_hook('shared'), qml_unregister_middleware('shared'); DELETE FROM qml.live});

# ---- a handler that an administrator replaces runs with her rights, and never with those of the other

fails_with($node, '42501', "SET ROLE mallory; SELECT qml_register_handler('uses', $_)", "mallory registers nothing that runs as a superuser: $_")
  foreach q{'evil.work', '{"run_as": "postgres"}'}, q{'uses', '{"run_as": "postgres"}'}, q{'uses', '{"run_as": "boss", "middleware": false}'};
query($node, <<'SQL');
CREATE TABLE ran (who name DEFAULT current_user, session name DEFAULT session_user);
GRANT ALL ON ran TO PUBLIC;
SET ROLE mallory;
CREATE FUNCTION evil.ran(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	BEGIN EXECUTE 'SET ROLE postgres'; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
	BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXCEPTION WHEN OTHERS THEN NULL; END;
	PERFORM evil.poison();
	INSERT INTO public.ran DEFAULT VALUES;
END $$;
SQL
query($node, q{SELECT qml_pause_queue('default')});
{
	# Also a job that was enqueued for the other one.
	my $waiting = enqueue($node, 'uses');
	query($node, q{SET ROLE mallory; SELECT qml_register_handler('uses', 'evil.ran')});
	query($node, q{SELECT qml_resume_queue('default')});
	is(outcome_of($node, $waiting), 'succeeded|1', 'a job of the superuser\'s handler under that of mallory');
	is(run($node, 'uses', '{}', 'max_retries => 0'), 'succeeded|1', 'and a new one');
	is(query($node, 'SELECT DISTINCT who, session FROM ran'), 'mallory|mallory', 'run as mallory');
	is_clean('a handler that was replaced');
	query($node, q{SELECT qml_register_handler('uses', 'uses')});
	is(run($node, 'uses', '{}', 'max_retries => 0'), 'succeeded|1', 'the superuser\'s handler again');
	is_clean('a handler that was replaced again');
}

# ---- hooks after the commit: everybody's, each in a session of its own role

query($node, <<'SQL');
CREATE TABLE events (n bigserial, hook text, event jsonb, who name DEFAULT current_user, session name DEFAULT session_user);
GRANT ALL ON events, events_n_seq TO mallory;
SET ROLE mallory;
CREATE FUNCTION evil.after(event jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.events (hook, event) VALUES ('after', event);
	PERFORM evil.poison();
END $$;
SELECT qml_register_hook('after', 'evil.after', options => '{"after_commit": true}');
SQL

# All calls of hooks have ended.
sub hooks_done
{
	settle($node, $_) foreach @_;
	return;
}

# What hooks were told of a job, in the order of its transitions.
sub events_are
{
	my ($id, $name, @expected) = @_;
	hooks_done('after');
	is(query($node, <<"SQL"), join(', ', @expected), $name);
SELECT string_agg(concat(coalesce(event ->> 'old', 'new'), '>', event ->> 'new', ' ', event ->> 'attempt'), ', ' ORDER BY (event ->> 'seq')::numeric)
FROM events WHERE event #>> '{job,id}' = '$id'
SQL
	return;
}
{
	my $id = enqueue($node, 'uses');
	is(outcome_of($node, $id), 'succeeded|1', 'a job under a hook after the commit');
	events_are($id, 'which is told of each transition', 'new>enqueued 0', 'enqueued>processing 1', 'processing>succeeded 1');
	is(query($node, 'SELECT DISTINCT who, session FROM events'), 'mallory|mallory', 'as its own role, in a session of its own role');
	is(query($node, q{SELECT bool_or(event -> 'job' ?| '{payload,result}') FROM events}), 'f', 'without payload and result');
	is_clean('hooks after the commit');
	is(query($node, q{SELECT count(*) FROM qml.job WHERE queue = 'qml.hooks'}), 0, 'nothing is left of the calls');

	$id = enqueue($node, 'later', '{}', q{queue => 'outside', run_at => clock_timestamp() + interval '0.2 s'});
	wait_state($node, $id, 'enqueued');
	events_are($id, 'a promotion', 'new>scheduled 0', 'scheduled>enqueued 0');
	query($node, q{SELECT qml_fetch('w', '{outside}', 1, '0.2 s')});
	wait_state($node, $id, 'enqueued');
	events_are($id, 'a lease that is over', 'new>scheduled 0', 'scheduled>enqueued 0', 'enqueued>processing 1', 'processing>enqueued 1');
	query($node, "SELECT qml_delete('$id')");
	query($node, q{BEGIN; SELECT qml_enqueue('undone', queue => 'outside'); ROLLBACK});
	query($node, q{BEGIN; SELECT qml_enqueue('prepared', queue => 'outside'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'});
	hooks_done('after');
	is(query($node, q{SELECT string_agg(DISTINCT event #>> '{job,method}', ' ') FROM events WHERE event #>> '{job,method}' IN ('undone', 'prepared')}),
		'prepared', 'a transition that is rolled back is not told');
}
# In bulk, and in groups of a worker.
query($node, 'TRUNCATE events');
query($node, q{SELECT count(*) FROM qml_enqueue_many('uses', array_fill('{}'::jsonb, ARRAY[300]))});
settle($node, 'uses');
hooks_done('after');
is(query($node, q{SELECT string_agg(new || ' ' || count, ', ' ORDER BY new) FROM (SELECT event ->> 'new' AS new, count(DISTINCT event #>> '{job,id}') FROM events WHERE event ->> 'old' IS DISTINCT FROM 'processing' OR event ->> 'new' = 'succeeded' GROUP BY 1) e}),
	'enqueued 300, processing 300, succeeded 300', 'many jobs: each transition is told');
is_clean('many calls');

# With the payload; and what is said of a hook that fails for good.
query($node, 'TRUNCATE events; DELETE FROM qml.live');
query($node, <<'SQL');
SELECT qml_unregister_hook('after');
SELECT qml_alter_queue('qml.hooks', '{"max_retries": 1, "retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}');
SET ROLE mallory;
CREATE FUNCTION evil.full(event jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF event #> '{job,payload}' ? 'bad' THEN RAISE 'bad payload %', event #> '{job,payload}'; END IF;
	INSERT INTO public.events (hook, event) VALUES ('full', event);
END $$;
SELECT qml_register_hook('full', 'evil.full', '{succeeded,deleted}', '{"after_commit": true, "with_payload": true}');
SQL
is(run($node, 'uses', '{"a": 1}'), 'succeeded|1', 'a job under a hook that wants payloads');
hooks_done('full');
is(query($node, q{SELECT event #>> '{job,payload}', event #>> '{job,result}' FROM events}), '{"a": 1}|5 3x stamped', 'it is told payload and result');
query($node, q{SELECT qml_delete(qml_enqueue('x', '{"bad": "secret"}', 'outside'))});
hooks_done('full');
is(query($node, q{SELECT errors, broken, last_error FROM qml.hook WHERE name = 'full'}), '1|f|bad payload {"bad": "secret"}', 'a call that fails for good is shown');
is(query($node, q{SELECT state, attempt, created_by, error FROM qml.job WHERE queue = 'qml.hooks'}), 'failed|2|mallory|bad payload {"bad": "secret"}', 'and is kept, after its retries');
is(query($node, q{SET ROLE mallory; SELECT count(*) FROM qml.job WHERE queue = 'qml.hooks'}), 1, 'for its role');
query($node, q{CREATE ROLE looker LOGIN; SELECT qml_grant('looker', 'monitor'), qml_grant('looker', 'work')});
is(query($node, q{SET ROLE looker; SELECT (SELECT count(*) FROM qml.job WHERE queue = 'qml.hooks'), (SELECT count(*) FROM qml.hook WHERE last_error IS NOT NULL)}), '0|0',
	'others see neither');
query($node, q{CREATE OR REPLACE FUNCTION evil.full(event jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.events (hook, event) VALUES ('full', event) $$});
query($node, q{SET ROLE mallory; SELECT qml_retry(id) FROM qml.job WHERE queue = 'qml.hooks'});
hooks_done('full');
is(query($node, q{SELECT event #>> '{job,payload}' FROM events ORDER BY n DESC LIMIT 1}), '{"bad": "secret"}', 'its role can have it called again');

# What the hook's own job does is not told to it; what it does makes no endless chain.
query($node, 'TRUNCATE events');
query($node, <<'SQL');
SET ROLE mallory;
CREATE FUNCTION evil.again(event jsonb) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.events (hook, event) VALUES ('again', event);
	SELECT public.qml_enqueue('again', queue => 'outside')
$$;
SELECT qml_register_hook('again', 'evil.again', '{enqueued}', '{"after_commit": true}');
SQL
query($node, q{SELECT qml_enqueue('x', queue => 'outside')});
wait_for('the hook to be called', sub { ask($node, q{SELECT count(*) FROM events WHERE hook = 'again'}) > 0 });
wait_for('its job to be done', sub { ask($node, q{SELECT count(*) FROM qml.live JOIN qml.queue_data q ON q.id = queue_id WHERE q.name = 'qml.hooks'}) == 0 });
is(query($node, q{SELECT count(*), (SELECT count(*) FROM qml.live WHERE method = 'again') FROM events WHERE hook = 'again'}), '1|1', 'a hook that enqueues is not told of that');
query($node, q{SELECT qml_unregister_hook('again')});

# A right that is lost between the transition and the call.
query($node, q{TRUNCATE events; SELECT qml_pause_queue('qml.hooks')});
query($node, q{SELECT qml_delete(qml_enqueue('x', '{}', q)) FROM unnest(ARRAY['outside', 'mine']) q});
query($node, q{SELECT qml_revoke('mallory', 'admin'), qml_grant('mallory', 'admin', 'mine')});
query($node, q{SELECT qml_resume_queue('qml.hooks')});
hooks_done('full');
is(query($node, q{SELECT string_agg(event #>> '{job,queue}', ' ') FROM events}), 'mine', 'a role that has lost the right to a queue is not told of its jobs');
is(query($node, q{SELECT attempt, error FROM qml.job WHERE queue = 'qml.hooks' AND state = 'failed'}),
	'1|hook "full" may not know of jobs of queue "outside": Role "mallory", which registered it, does not have the capability "admin" on the queue.', 'the call says why');
like(query($node, q{SELECT problem FROM qml.hook WHERE name = 'full'}), qr/passed over: Role "mallory".* "admin" on all queues/, 'and so does the view');
query($node, q{SELECT qml_grant('mallory', 'admin')});

# A role that no worker can be.
query($node, q{ALTER ROLE mallory NOLOGIN});
end_workers();
like(query($node, q{SELECT problem FROM qml.hook WHERE name = 'full'}), qr/not permitted to log in/, 'a role that may not log in is shown');
fails_with($node, '28000', q{SET ROLE mallory; SELECT qml_register_hook('other', 'evil.full', options => '{"after_commit": true}')}, 'and registers no hook');
query($node, q{SELECT qml_delete(qml_enqueue('x', '{}', 'outside'))});
hooks_done('full');
is(query($node, q{SELECT count(*) FROM qml.job WHERE queue = 'qml.hooks' AND error LIKE '%not permitted to log in%'}), 1, 'its calls fail, and say so');
query($node, q{ALTER ROLE mallory LOGIN});

# A worker that dies while it calls a hook: the call is made again.
query($node, <<'SQL');
TRUNCATE events;
CREATE TABLE lock_me ();
GRANT ALL ON lock_me TO mallory;
SET ROLE mallory;
CREATE FUNCTION evil.slow(event jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.events (hook, event) VALUES ('slow', event);
	LOCK TABLE public.lock_me IN ACCESS EXCLUSIVE MODE;
END $$;
SELECT qml_unregister_hook('full'), qml_register_hook('slow', 'evil.slow', '{enqueued}', '{"after_commit": true}');
SQL
{
	my $session = new_session($node);
	$session->query_safe('BEGIN; LOCK TABLE lock_me');
	query($node, q{SELECT qml_enqueue('x', queue => 'outside')});
	wait_for('the hook to wait', sub { worker_pids($node, q{wait_event_type = 'Lock'}) == 1 });
	end_workers();
	$session->query_safe('COMMIT');
	$session->quit;
	hooks_done('slow');
	is(query($node, 'SELECT count(*) FROM events'), 1, 'a worker that ends while it calls a hook: another one calls it');
}
query($node, q{SELECT qml_unregister_hook('slow')});

run_log_clean($node, 'no process crashed');
end_sessions($node);
done_testing();
