# Middleware around the handlers of jobs, and tracing, which is one.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

my $node = background_node('middleware', conf => <<'CONF');
qml.workers = 2
max_worker_processes = 20
CONF
wait_for_process($node, 'scheduler', 'postgres');

query($node, <<'SQL');
CREATE TABLE ledger (n bigserial, job uuid, what text);
GRANT ALL ON ledger, ledger_n_seq TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
SELECT qml_create_queue('fast', '{"retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}');
SQL
handler($node, 'work', <<'SQL');
CREATE FUNCTION work(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger (job, what) VALUES ((job).id, 'work');
	IF (job).payload ? 'discard' AND coalesce(current_setting('test.again', true), '') <> 'yes' THEN PERFORM qml_discard('first'); END IF;
	IF (job).payload ? 'fail' AND coalesce(current_setting('test.again', true), '') <> 'yes' THEN RAISE 'fails'; END IF;
	RETURN jsonb_build_object('work', 1);
END $$
SQL

# Registers a middleware of the body of a PL/pgSQL function, in which "r" is a jsonb.
sub middleware
{
	my ($name, $body, $position) = @_;
	$position //= 0;
	query($node, <<"SQL");
CREATE OR REPLACE FUNCTION mw_$name(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS \$body\$
DECLARE r jsonb;
BEGIN $body END \$body\$;
REVOKE EXECUTE ON FUNCTION mw_$name FROM PUBLIC;
SELECT qml_register_middleware('$name', 'mw_$name', $position);
SQL
	return;
}

sub remove_middleware
{
	query($node, "SELECT qml_unregister_middleware('$_')") foreach @_;
	return;
}

# What a job of "work" wrote, and its result.
sub course
{
	my ($payload, $more) = @_;
	my $id = enqueue($node, 'work', $payload // '{}', $more // 'max_retries => 0');
	my $outcome = outcome_of($node, $id);
	my $rows = ask($node, "SELECT string_agg(what, ' ' ORDER BY n) FROM ledger WHERE job = '$id'");
	my $result = ask($node, "SELECT result FROM qml_job('$id')");
	return join '; ', $outcome, $rows, $result;
}

sub around
{
	my ($name) = @_;
	return <<"SQL";
	INSERT INTO public.ledger (job, what) VALUES (job.id, '$name(');
	r := public.qml_next();
	INSERT INTO public.ledger (job, what) VALUES (job.id, ')$name');
	RETURN r || '{"$name": 1}';
SQL
}

# ---- order and results

is(course(), 'succeeded|1; work; {"work": 1}', 'without middleware');
middleware('b', around('b'));
middleware('a', around('a'));
middleware('out', around('out'), -1);
middleware('in', around('in'), 1);
is(course(), 'succeeded|1; out( a( b( in( work )in )b )a )out; {"a": 1, "b": 1, "in": 1, "out": 1, "work": 1}',
	'by position, and then by name; each returns the result of the rest');
is(course('{"fail": 1}'), 'failed|1|P0001|fails; ; ', 'the error of a handler is that of its job, and undoes them all');
remove_middleware(qw(a b in out));

middleware('skip', q{IF job.payload ? 'skip' THEN RETURN '{"skipped": true}'; END IF; RETURN public.qml_next();});
is(course('{"skip": 1}'), 'succeeded|1; ; {"skipped": true}', 'the rest may be left out');
is(course('{}'), 'succeeded|1; work; {"work": 1}', 'and run');
middleware('skip', q{r := public.qml_next(); RETURN NULL;});
is(course('{}'), 'succeeded|1; work; ', 'a result may be taken away');
middleware('skip', q{r := public.qml_next(); RETURN public.qml_next();});
is(course('{}'), 'succeeded|1; work work; {"work": 1}', 'the rest may be run twice');
remove_middleware('skip');

# ---- cursors

query($node, 'CREATE TABLE secret AS SELECT generate_series(1, 5) AS n');
# What came of fetching from it and of closing it; of one without a name, of all that it may have.
handler($node, 'prys', <<'SQL');
CREATE FUNCTION prys(payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE c refcursor := payload ->> 'cursor'; n int; tries text := '';
BEGIN
	IF payload ->> 'cursor' = 'unnamed' THEN
		CREATE TEMP TABLE codes (code text);
		FOR i IN 1 .. 300 LOOP
			c := format('<unnamed portal %s>', i);
			BEGIN FETCH c INTO n; RETURN 'read ' || n; EXCEPTION WHEN OTHERS THEN INSERT INTO codes VALUES (SQLSTATE); END;
		END LOOP;
		RETURN (SELECT string_agg(DISTINCT code, ' ') FROM codes);
	END IF;
	BEGIN FETCH c INTO n; RETURN 'read ' || n; EXCEPTION WHEN OTHERS THEN tries := SQLSTATE; END;
	BEGIN CLOSE c; RETURN 'closed'; EXCEPTION WHEN OTHERS THEN tries := tries || ' ' || SQLSTATE; END;
	EXECUTE 'CLOSE ALL';
	RETURN tries || ' ' || (SELECT count(*) FROM pg_cursors);
END $$
SQL
my %opens = (
	declared => q{
		EXECUTE 'DECLARE declared CURSOR FOR SELECT n FROM public.secret ORDER BY n'; EXECUTE 'FETCH declared';
		r := public.qml_next(); EXECUTE 'FETCH declared' INTO n;},
	opened => q{
		OPEN c FOR SELECT s.n FROM public.secret s ORDER BY s.n; FETCH c INTO n; r := public.qml_next(); FETCH c INTO n;},
	unnamed => q{
		FOR n IN SELECT s.n FROM public.secret s ORDER BY s.n LOOP
			IF n = 1 THEN r := public.qml_next(); END IF; EXIT WHEN n = 2; END LOOP;});
foreach my $cursor (sort keys %opens)
{
	middleware('opens', "DECLARE c refcursor := 'opened'; n int; BEGIN $opens{$cursor} RETURN jsonb_build_object('handler', r, 'next', n); END;");
	foreach my $again (0, 1)
	{
		my $id = enqueue($node, 'prys', qq({"cursor": "$cursor"}), 'max_retries => 0');
		is(outcome_of($node, $id), 'succeeded|1', "a cursor of a middleware, $cursor: the job");
		is(ask($node, "SELECT result FROM qml_job('$id')"),
			sprintf('{"next": 2, "handler": "%s"}', $cursor eq 'unnamed' ? '34000 55000' : '55000 24000 0'),
			'the handler has no hold of it, the middleware has it still');
	}
}
remove_middleware('opens');

# ---- errors

middleware('again', <<'SQL');
	BEGIN
		r := public.qml_next();
	EXCEPTION WHEN raise_exception THEN
		INSERT INTO public.ledger (job, what) VALUES (job.id, 'caught');
		PERFORM set_config('test.again', 'yes', false);
		r := public.qml_next();
	END;
	RETURN r;
SQL
is(course('{"fail": 1}'), 'succeeded|1; caught work; {"work": 1}',
	'an error of the handler may be caught and the rest run again, with a setting for it');
is(course('{"fail": 1}'), 'succeeded|1; caught work; {"work": 1}', 'the next job has not that setting');
remove_middleware('again');

middleware('raises', q{r := public.qml_next(); RAISE 'no good' USING ERRCODE = 'MW001';});
is(course(), 'failed|1|MW001|no good; ; ', 'an error of a middleware is that of the job');
is(course('{}', q{max_retries => 2, queue => 'fast'}), 'failed|3|MW001|no good; ; ', 'which is retried');
like(ask($node, q{SELECT errors -> -1 ->> 'stack_trace' FROM qml.job WHERE attempt = 3}), qr/CONTEXT: .*\nqml middleware "raises"$/,
	'the stack trace names it');
query($node, 'DROP FUNCTION mw_raises(qml.job)');
like(course(), qr/^failed\|1\|QM007\|function public.mw_raises\(qml.job\) of middleware "raises" cannot be called; ; $/,
	'one whose function is gone: the job does not run without it');
like(ask($node, 'SELECT problem FROM qml.middleware'), qr/does not exist/, 'which is shown');
remove_middleware('raises');
is(course(), 'succeeded|1; work; {"work": 1}', 'until it is removed');

middleware('wishes', q{r := public.qml_next(); PERFORM public.qml_discard('enough'); RETURN r;});
like(course(), qr/^deleted\|1; work;/, 'a middleware may say what becomes of the job');
remove_middleware('wishes');
middleware('large', q{r := public.qml_next(); RETURN to_jsonb(repeat('x', 2000000));});
like(course(), qr/^failed\|1\|54000\|argument "result" is too large; ; $/, 'its result may not be larger than that of a handler');
remove_middleware('large');
middleware('twice', q{BEGIN r := public.qml_next(); EXCEPTION WHEN raise_exception THEN PERFORM set_config('test.again', 'yes', false); r := public.qml_next(); END; RETURN r;});
is(course('{"discard": 1, "fail": 1}'), 'succeeded|1; work; {"work": 1}', 'what a run wished that failed does not hold');
remove_middleware('twice');

# What a middleware does may call hooks, which are none.
query($node, <<'SQL');
CREATE FUNCTION nosy(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN IF job.method = 'other' THEN PERFORM public.qml_next(); END IF; END $$;
REVOKE EXECUTE ON FUNCTION nosy FROM PUBLIC;
SELECT qml_register_hook('nosy', 'nosy', '{enqueued}');
SQL
middleware('enqueues', q{PERFORM public.qml_enqueue('other'); RETURN public.qml_next();});
like(course(), qr/^failed\|1\|55000\|qml_next\(\) can only be called by a middleware while a job runs; ; $/, 'a hook within a middleware cannot run the handler');
query($node, q{SELECT qml_unregister_hook('nosy')});
remove_middleware('enqueues');

# ---- time

middleware('sleeps', q{PERFORM pg_sleep(60); RETURN public.qml_next();});
{
	my $start = time;
	is(course('{}', q{timeout => '300 ms', max_retries => 0}) =~ s/\|the job.*//r, 'failed|1|timeout', 'the timeout of a job is for its middleware, too');
	cmp_ok(time - $start, '<=', 3, 'in time');
}
middleware('sleeps', q{r := public.qml_next(); PERFORM pg_sleep(60); RETURN r;});
{
	my $id = enqueue($node, 'work');
	wait_for('the job to run', sub { worker_pids($node, "query LIKE '%$id' AND wait_event = 'PgSleep'") });
	ask($node, "SELECT qml_delete('$id')");
	my $seconds = seconds_until('the worker to stop', sub { !worker_pids($node, "query LIKE '%$id'") });
	cmp_ok($seconds, '<=', 2, 'a job that is deleted is canceled there');
	is(ask($node, "SELECT count(*) FROM ledger WHERE job = '$id'"), 0, 'and undone');
}
remove_middleware('sleeps');

# ---- procedures

handler($node, 'commits', <<'SQL');
CREATE PROCEDURE commits(payload jsonb, OUT n int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger (what) VALUES ('committed');
	IF payload ? 'commit' THEN COMMIT; END IF;
	n := 7;
END $$
SQL
middleware('counts', 'r := public.qml_next(); RETURN r || jsonb_build_object(\'counted\', true);');
{
	my $id = enqueue($node, 'commits');
	is(outcome_of($node, $id), 'succeeded|1', 'a procedure within middleware');
	is(ask($node, "SELECT result FROM qml_job('$id')"), '{"n": 7, "counted": true}', 'its output arguments are the result');
	like(run($node, 'commits', '{"commit": 1}', 'max_retries => 0'), qr/^failed\|1\|2D000\|invalid transaction termination/, 'cannot commit');
	query($node, q{SELECT qml_register_handler('commits', 'commits', '{"middleware": false}')});
	$id = enqueue($node, 'commits', '{"commit": 1}');
	is(outcome_of($node, $id), 'succeeded|1', 'without middleware it can');
	is(ask($node, "SELECT result FROM qml_job('$id')"), '{"n": 7}', 'and has none');
}
remove_middleware('counts');

# ---- groups of short jobs

query($node, 'CREATE TABLE mine (i int, id uuid)');

# Runs 150 jobs, the 70th with another payload; how many transactions ended them.
sub run_mine
{
	my ($special) = @_;
	query($node, q{SELECT count(*) FROM qml_enqueue_many('work', array_fill('{}'::jsonb, ARRAY[300]))});
	settle($node, 'work');
	query($node, 'TRUNCATE ledger, mine');
	query($node, <<"SQL");
INSERT INTO mine SELECT i, qml_enqueue('work', CASE i WHEN 70 THEN '$special' ELSE '{}' END::jsonb, max_retries => 0)
FROM generate_series(1, 150) i
SQL
	settle($node, 'work');
	return ask($node, 'SELECT count(DISTINCT xmin::text) FROM qml.history WHERE id IN (SELECT id FROM mine)');
}

sub group_is
{
	my ($name, $bad, $expected_rows) = @_;
	my $transactions;
	# A machine that does other things makes jobs long, and those run alone.
	foreach (1 .. 30)
	{
		last if ($transactions = run_mine($bad)) < 150;
	}
	cmp_ok($transactions, '<', 150, "$name: there are fewer transactions than jobs");
	is(ask($node, q{SELECT string_agg(i || ' ' || state, ', ' ORDER BY i) FROM mine JOIN qml.job USING (id) WHERE state <> 'succeeded'}),
		'70 failed', "$name: it fails alone");
	is(ask($node, q{SELECT string_agg(what || ' ' || count, ', ' ORDER BY what) FROM (SELECT what, count(DISTINCT job) = count(*) AND count(*) = 149 AS count FROM ledger GROUP BY 1) s}),
		$expected_rows, "$name: the others have their effects once");
	is(ask($node, q{SELECT count(*) FROM mine JOIN qml.job USING (id) WHERE state = 'succeeded' AND result ->> 'g' = '1'}), 149, "$name: and their results");
	return;
}
middleware('g', around('g'));
group_is('a handler that fails in a group', '{"fail": 1}', ')g true, g( true, work true');
middleware('g', q{IF job.payload ? 'refuse' THEN RAISE 'refused'; END IF; } . around('g'));
group_is('a middleware that does', '{"refuse": 1}', ')g true, g( true, work true');
middleware('g', q{IF job.payload ? 'sleep' THEN PERFORM pg_sleep(0.3); RAISE 'slept'; END IF; } . around('g'));
group_is('one that is slow', '{"sleep": 1}', ')g true, g( true, work true');
remove_middleware('g');

# ---- a handler is no middleware

handler($node, 'nexts', q{CREATE FUNCTION nexts(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT qml_next()'});
handler($node, 'traces', q{CREATE FUNCTION traces(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT qml_tracing(job)'});
foreach my $state ('without middleware', 'with it')
{
	middleware('any', 'RETURN public.qml_next();') if $state eq 'with it';
	like(run($node, $_, '{}', 'max_retries => 0'), qr/^failed\|1\|55000\|qml_next\(\) can only be called by a middleware/, "$state: $_ cannot go on with itself")
	  foreach qw(nexts traces);
}
remove_middleware('any');

# ---- between the role of a middleware and that of a handler

query($node, <<'SQL');
CREATE ROLE guard LOGIN;
CREATE ROLE mallory LOGIN;
SELECT qml_grant('guard', 'admin'), qml_grant('mallory', 'admin');
-- Around the handlers of others: only with the privileges of the owner.
GRANT postgres TO guard;
CREATE TABLE canary (how text, who name DEFAULT current_user, session name DEFAULT session_user);
GRANT ALL ON canary TO PUBLIC;
CREATE TABLE audit (job uuid, who name DEFAULT current_user, session name DEFAULT session_user, path text, note text);
GRANT INSERT ON audit TO guard;
CREATE TABLE guarded (a text);
INSERT INTO guarded VALUES ('secret');
GRANT SELECT ON guarded TO guard;

SET ROLE guard;
CREATE FUNCTION guards(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE r jsonb;
BEGIN
	PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', false), set_config('guard.says', 'hello', false);
	r := public.qml_next();
	INSERT INTO public.audit (job, path, note) VALUES (job.id, current_setting('search_path'),
		(SELECT count(*) > 100 FROM pg_class) || ' ' || (now() IS NOT NULL) || ' ' || ('a'::text = 'b'::text) || ' ' || lower('X'));
	RETURN r;
END $$;
REVOKE EXECUTE ON FUNCTION guards FROM PUBLIC;
SELECT qml_register_middleware('guards', 'guards');
RESET ROLE;

CREATE SCHEMA evil AUTHORIZATION mallory;
SET ROLE mallory;
GRANT ALL ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.sing() RETURNS void LANGUAGE sql AS $$ INSERT INTO public.canary (how) VALUES ('evil') $$;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT evil.sing(); SELECT NULL::timestamptz $$;
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT evil.sing(); SELECT 'evil' $$;
CREATE FUNCTION evil.op(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT evil.sing(); SELECT true $$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.op);
CREATE FUNCTION evil.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.sing(); RETURN NULL; END $$;
CREATE TABLE evil.bomb (a int);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON evil.bomb DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.trap();
SQL

# A handler of mallory's that does this, within the middleware of guard.
my $serial = 0;
sub mallory
{
	my ($name, $body, $expected) = @_;
	my $method = 'evil' . ++$serial;
	query($node, 'TRUNCATE canary, audit');
	handler($node, $method, <<"SQL", role => 'mallory');
CREATE FUNCTION $method(payload jsonb) RETURNS text LANGUAGE plpgsql AS \$body\$
DECLARE x text;
BEGIN
	$body
	INSERT INTO public.canary (how) VALUES ('end');
	RETURN coalesce(x, '');
END \$body\$
SQL
	my $id = enqueue($node, $method, '{}', 'max_retries => 0');
	my $outcome = outcome_of($node, $id);
	like($outcome, $expected // qr/^succeeded\|1$/, "$name: the outcome");
	is(ask($node, q{SELECT string_agg(DISTINCT who || ' ' || session, ', ') FROM canary WHERE (who, session) <> ('mallory', 'mallory')}),
		'', "$name: mallory is nobody else");
	is(ask($node, q{SELECT string_agg(concat_ws(' ', who, session, path, note), ', ') FROM audit}),
		$outcome =~ /^succeeded/ ? 'guard mallory pg_catalog, public, pg_temp true true false x' : '', "$name: nor is the guard");
	return ask($node, "SELECT result #>> '{}' FROM qml_job('$id')");
}

is(mallory('the role', q{x := concat_ws(' ', current_user, session_user, current_setting('search_path'), current_setting('guard.says'));}),
	'mallory mallory "$user", public hello', 'a handler has its own path, and what the middleware told it');
mallory('search_path', q{PERFORM set_config('search_path', 'evil, pg_catalog', false);});
mallory('search_path of the function', q{SET search_path = evil, pg_temp, pg_catalog; PERFORM now(), lower('X');});
mallory('temporary tables', <<'SQL');
	CREATE TEMP TABLE pg_class (relname name);
	CREATE TEMP TABLE audit (job uuid, who name, session name, path text, note text);
	CREATE TRIGGER trap AFTER INSERT ON pg_temp.audit FOR EACH ROW EXECUTE FUNCTION evil.trap();
SQL
mallory('RESET ROLE', 'RESET ROLE; RESET SESSION AUTHORIZATION;');
mallory('SET ROLE', 'SET ROLE guard;', qr/^failed\|1\|42501/);
mallory('SET ROLE postgres', 'SET ROLE postgres;', qr/^failed\|1\|42501/);
mallory('SET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION guard;', qr/^failed\|1\|42501/);
mallory('set_config role', q{PERFORM set_config('role', 'none', false), set_config('session_authorization', 'mallory', false);});
mallory('RESET ALL', 'RESET ALL;');
mallory('what the guard may read', 'SELECT a INTO x FROM public.guarded;', qr/^failed\|1\|42501/);
mallory('cursors', <<'SQL');
	EXECUTE 'DECLARE trap CURSOR FOR SELECT evil.sing()';
	EXECUTE 'DECLARE stays CURSOR WITH HOLD FOR SELECT evil.sing()';
SQL
mallory('a deferred trigger', 'INSERT INTO evil.bomb VALUES (1);');
is(ask($node, q{SELECT count(*) FROM canary WHERE how = 'evil'}), 1, 'which fires as the handler');
mallory('prepared statements', q{EXECUTE 'PREPARE p AS SELECT evil.sing()';});
mallory('an error that is caught', q{BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN x := current_user; END;});
mallory('qml_next', 'PERFORM public.qml_next();', qr/^failed\|1\|55000/);
query($node, q{SELECT qml_unregister_middleware('guards')});

# What a middleware may do is what a hook may.
query($node, <<'SQL');
CREATE TABLE attempts (what text, code text);
GRANT ALL ON attempts TO PUBLIC;
SET ROLE mallory;
CREATE FUNCTION attacks(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	tries text[] := ARRAY['RESET ROLE', 'SET ROLE none', 'SET ROLE postgres', 'SET ROLE guard', 'SET SESSION AUTHORIZATION postgres',
		'RESET SESSION AUTHORIZATION', 'CREATE TEMP TABLE pg_proc (a int)', 'INSERT INTO evil.bomb VALUES (1)', 'LISTEN x',
		'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'SELECT a FROM public.guarded', 'ALTER ROLE mallory SUPERUSER', 'DELETE FROM qml.live'];
	s text;
BEGIN
	FOREACH s IN ARRAY tries LOOP
		BEGIN
			EXECUTE s;
			INSERT INTO public.attempts VALUES (s, 'done');
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO public.attempts VALUES (s, SQLSTATE);
		END;
	END LOOP;
	INSERT INTO public.canary (how) VALUES ('middleware');
	PERFORM set_config('search_path', 'evil, pg_catalog', false);
	RETURN public.qml_next();
END $$;
SELECT qml_register_middleware('attacks', 'attacks');
SQL
query($node, 'TRUNCATE canary');
is(course(), 'succeeded|1; work; {"work": 1}', 'a middleware of mallory does not stand around a superuser\'s handler');
is(ask($node, q{SELECT count(*) FROM attempts}), 0, 'and is not called');
is(ask($node, q{SELECT problem IS NULL FROM qml.middleware WHERE name = 'attacks'}), 't', 'nothing is wrong with it');
handler($node, 'mine', q{CREATE FUNCTION mine(payload jsonb) RETURNS text LANGUAGE sql AS $$ SELECT current_setting('search_path') $$}, role => 'mallory');
my $mine = enqueue($node, 'mine');
is(outcome_of($node, $mine), 'succeeded|1', 'it stands around a handler of mallory\'s');
is(ask($node, q{SELECT string_agg(DISTINCT what || ': ' || code, ', ') FROM attempts WHERE code <> '42501'}), '', 'whatever it tries is refused');
is(ask($node, q{SELECT count(*) FROM attempts}), 13, 'all of it');
is(ask($node, q{SELECT string_agg(DISTINCT concat_ws(' ', how, who, session), ', ') FROM canary}), 'middleware mallory mallory', 'it is itself');
is(ask($node, "SELECT result #>> '{}' FROM qml_job('$mine')"), '"$user", public', 'and its search_path is not the handler\'s');
# A role that is no administrator any more has none.
query($node, q{TRUNCATE attempts; SELECT qml_revoke('mallory', 'admin')});
is(run($node, 'mine'), 'succeeded|1', 'the middleware of a role that has lost the right');
is(ask($node, q{SELECT count(*) FROM attempts}), 0, 'is passed over');
like(ask($node, q{SELECT problem FROM qml.middleware WHERE name = 'attacks'}), qr/^middleware "attacks" is passed over: Role "mallory".* does not have the capability "admin"/,
	'and shown');
remove_middleware('attacks');

# Settings that a middleware leaves to the handler: not those that change what it does.
middleware('sets', <<'SQL');
	PERFORM set_config('standard_conforming_strings', 'off', false), set_config('transform_null_equals', 'on', false),
		set_config('datestyle', 'German', false), set_config('test.says', 'hello', false);
	RETURN public.qml_next();
SQL
handler($node, 'told', <<'SQL');
CREATE FUNCTION told(payload jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', current_setting('standard_conforming_strings'), current_setting('transform_null_equals'), current_setting('datestyle'), current_setting('test.says'))
$$
SQL
my $told = enqueue($node, 'told');
is(outcome_of($node, $told), 'succeeded|1', 'a middleware that changes settings');
is(ask($node, "SELECT result #>> '{}' FROM qml_job('$told')"), 'on off ISO, MDY hello', 'leaves the handler those that decide what it does');
remove_middleware('sets');

# Deferred triggers of a handler would run with the rights of the middleware's role.
query($node, <<'SQL');
SELECT qml_grant('mallory', 'admin');
CREATE TABLE late (who name DEFAULT current_user);
CREATE TABLE deferring (n int);
GRANT ALL ON late, deferring TO PUBLIC;
CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.late DEFAULT VALUES; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER fires AFTER INSERT ON deferring DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fires();
SQL
handler($node, 'defers', q{CREATE FUNCTION defers(payload jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.deferring VALUES (1) $$}, role => 'mallory');
middleware('fires_early', 'r := public.qml_next(); SET CONSTRAINTS ALL IMMEDIATE; RETURN r;');
is(run($node, 'defers', '{}', 'max_retries => 0'), 'failed|1|42501|a middleware cannot execute SET CONSTRAINTS',
	'a middleware cannot fire the triggers that a handler has deferred');
is(ask($node, 'SELECT count(*) FROM late'), 0, 'none has fired');
remove_middleware('fires_early');

# ---- tracing

handler($node, 'traced', <<'SQL');
CREATE FUNCTION traced(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF payload ? 'fail' THEN RAISE 'oops'; END IF;
	IF payload ? 'children' THEN
		PERFORM qml_enqueue('child', '{"n": 1}'), qml_enqueue('child', '{"n": 2}', metadata => '{"a": 1}'),
			qml_enqueue('child', '{"n": 3}', metadata => '{"traceparent": "own"}');
		PERFORM qml_enqueue_many('child', ARRAY['{"n": 4}', '{"n": 5}']::jsonb[]);
	END IF;
END $$
SQL
handler($node, 'child', q{CREATE FUNCTION child(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT'});
handler($node, 'bare', q{CREATE FUNCTION bare(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT'}, options => '{"middleware": false}');
query($node, q{SELECT qml_register_middleware('tracing', 'qml_tracing')});
my $log_start = -s $node->logfile;

# What the log says of a job: [line, traceparent, of], one for each attempt.
sub traces
{
	my ($id, $count) = @_;
	my @traces;
	wait_for(
		"$count traces of $id",
		sub {
			my $log = slurp_file($node->logfile, $log_start);
			@traces = ();
			push @traces, [ $1, $2, $3 ]
			  while $log =~ /LOG:  job $id: (.*)\n.*DETAIL:  traceparent (\S+?)(?:, of (\S+))?\n/g;
			return @traces >= $count;
		});
	return @traces;
}

sub trace_of
{
	my ($metadata, $payload) = @_;
	my $id = enqueue($node, 'traced', $payload // '{}', defined $metadata ? "metadata => '$metadata'" : undef);
	outcome_of($node, $id);
	return ($id, traces($id, 1));
}

my $HEX = qr/[0-9a-f]/;
my $trace_id = '4bf92f3577b34da6a3ce929d0e0e4736';
{
	my ($id, $trace) = trace_of(qq({"traceparent": "00-$trace_id-00f067aa0ba902b7-01"}));
	like($trace->[0], qr/^"traced" in queue "default", attempt 1: succeeded in \d+\.\d{3} ms$/, 'an attempt is logged');
	like($trace->[1], qr/^00-$trace_id-$HEX{16}-01$/, 'as a span of the trace of who enqueued it');
	unlike($trace->[1], qr/00f067aa0ba902b7/, 'of its own');
	is($trace->[2], "00-$trace_id-00f067aa0ba902b7-01", 'with its parent');
	(undef, $trace) = trace_of(qq({"traceparent": "00-$trace_id-00f067aa0ba902b7-00"}));
	like($trace->[1], qr/^00-$trace_id-$HEX{16}-00$/, 'flags are kept');
	(undef, $trace) = trace_of(qq({"traceparent": "cc-$trace_id-00f067aa0ba902b7-01-more"}));
	like($trace->[1], qr/^00-$trace_id-$HEX{16}-01$/, 'a later version is understood');
}
foreach my $metadata (
	undef, '{}', '{"other": 1}', '"00"', '[]',
	map { qq({"traceparent": $_}) } (
		'null', '7', '{}', '""', '"00"',
		qq("00-$trace_id-00f067aa0ba902b7"),
		qq("00-$trace_id-00f067aa0ba902b7-01-more"),
		qq("ff-$trace_id-00f067aa0ba902b7-01"),
		qq("00-${\uc $trace_id}-00f067aa0ba902b7-01"),
		q("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
		qq("00-$trace_id-0000000000000000-01"),
		qq("00_${trace_id}_00f067aa0ba902b7_01"),
		qq("00-$trace_id-00f067aa0ba902b7-0x")))
{
	# A document that is no object is refused before.
	next if defined $metadata && $metadata !~ /^\{/;
	my ($id, $trace) = trace_of($metadata);
	(my $own = $id) =~ s/-//g;
	like($trace->[1], qr/^00-$own-$HEX{16}-01$/, 'the id of the job is that of the trace: ' . ($metadata // 'no metadata'));
	is($trace->[2], undef, 'which has no parent');
}
{
	my ($id, $trace) = trace_of(qq({"traceparent": "00-$trace_id-00f067aa0ba902b7-01"}), '{"children": 1}');
	settle($node, 'child');
	is(ask($node, q{SELECT count(*) FROM qml.job WHERE method = 'child'}), 5, 'a job enqueues others');
	foreach my $n (1, 2, 4, 5)
	{
		my ($child, $metadata) = split /\|/, ask($node, "SELECT id, metadata FROM qml.job WHERE method = 'child' AND payload ->> 'n' = '$n'");
		is($metadata, $n == 2 ? qq({"a": 1, "traceparent": "$trace->[1]"}) : qq({"traceparent": "$trace->[1]"}), "child $n carries its traceparent");
		my ($of) = traces($child, 1);
		is($of->[2], $trace->[1], 'and is a child of that');
		like($of->[1], qr/^00-$trace_id-/, 'in the same trace');
	}
	is(ask($node, q{SELECT metadata FROM qml.job WHERE method = 'child' AND payload ->> 'n' = '3'}), '{"traceparent": "own"}', 'unless it is given another');
}
{
	my $id = enqueue($node, 'traced', '{"fail": 1, "card": "4111-secret"}', q{max_retries => 1, queue => 'fast', metadata => '{"note": "4111-secret"}'});
	is(outcome_of($node, $id), 'failed|2|P0001|oops', 'a job that fails');
	my @attempts = traces($id, 2);
	(my $own = $id) =~ s/-//g;
	like($attempts[0][0], qr/^"traced" in queue "fast", attempt 1: failed in \d+\.\d{3} ms$/, 'each attempt is logged');
	like($attempts[1][0], qr/attempt 2: failed/, 'the second, too');
	like($_->[1], qr/^00-$own-/, 'in one trace') foreach @attempts;
	isnt($attempts[0][1], $attempts[1][1], 'as spans of their own');
	is(log_count($node, '4111-secret', $log_start), 0, 'neither payload nor metadata are in the log');
}
{
	my $id = enqueue($node, 'bare');
	outcome_of($node, $id);
	# Whatever the worker would have logged comes before this.
	my ($after) = trace_of();
	is(log_count($node, "LOG:  job $id", $log_start), 0, 'a job without middleware is not traced');
}
# In groups.
query($node, q{SELECT count(*) FROM qml_enqueue_many('traced', array_fill('{}'::jsonb, ARRAY[300]))});
settle($node, 'traced');
query($node, 'TRUNCATE mine');
query($node, q{INSERT INTO mine (id) SELECT qml_enqueue_many('traced', array_fill('{}'::jsonb, ARRAY[100]))});
settle($node, 'traced');
{
	my @ids = split /\n/, ask($node, 'SELECT id FROM mine');
	my %spans = map { $_->[1] => 1 } map { my @t = traces($_, 1); @t == 1 ? $t[0] : [ '', $_ ] } @ids;
	is(scalar(grep { /^00-/ } keys %spans), 100, 'jobs of groups are traced, each once');
}
middleware('doubles', 'r := public.qml_next(); RETURN public.qml_next();', -1);
{
	my ($id, @traces) = trace_of();
	is(scalar @traces, 1, 'an attempt that runs twice is one');
}

run_log_clean($node, 'no process crashed');
end_sessions($node);
done_testing();
