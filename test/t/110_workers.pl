# Jobs that run inside the database: at once, as the right role, with their results
# and errors; and what one job does hinders no other.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = background_node('workers', conf => <<'CONF');
track_commit_timestamp = on
autovacuum = off
max_worker_processes = 24
qml.workers = 2
CONF
wait_for_process($node, 'scheduler', 'postgres');

query($node, <<'SQL');
CREATE TABLE ledger (job uuid, what text, at timestamptz DEFAULT clock_timestamp(), xact xid8 DEFAULT pg_current_xact_id(),
	pid int DEFAULT pg_backend_pid(), su name DEFAULT session_user, cu name DEFAULT current_user);
GRANT ALL ON ledger TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
CREATE ROLE ann LOGIN;
CREATE ROLE bob LOGIN;
SELECT qml_grant('ann', 'admin'), qml_grant('bob', 'admin');
SELECT qml_grant('ann', 'enqueue'), qml_grant('bob', 'enqueue');
SQL

# ---- at once

handler($node, 'note', <<'SQL');
CREATE FUNCTION note(job qml.job) RETURNS void LANGUAGE sql
AS 'INSERT INTO ledger (job, what) VALUES ((job).id, (job).method)'
SQL
is(run($node, 'note'), 'succeeded|1', 'a job runs');
{
	# The commit of the enqueue, seen from the ledger's row of that job.
	ask($node, 'CREATE TABLE sent (id uuid, method text)');
	my %late;
	my $lag = sub {
		my ($percent, $limit) = @_;
		return best_of(
			$limit,
			sub {
				ask($node, 'TRUNCATE ledger, sent');
				foreach my $round (1 .. 100)
				{
					ask($node, "INSERT INTO sent SELECT qml_enqueue('note'), 'note'");
					sleep 0.004;
				}
				my $machine = machine_lag(0.5);
				settle($node, 'note');
				my @ms = split /\n/, ask($node, <<'SQL');
SELECT extract(epoch FROM l.at - pg_xact_commit_timestamp(s.xmin)) * 1000
FROM sent s JOIN ledger l ON l.job = s.id
SQL
				is(scalar @ms, 100, 'each job ran once');
				$late{$percent} = percentile($percent, @ms);
				note(sprintf 'from commit to start: %.2f ms (p50), %.2f ms (p99); machine %.2f ms',
					percentile(50, @ms), percentile(99, @ms), $machine);
				return max($late{$percent} - $machine, 0);
			});
	};
	cmp_ok($lag->(50, 1), '<=', 1, 'half of the jobs start within a millisecond of their commit');
	cmp_ok($lag->(99, 5), '<=', 5, '99 of 100 within five');
}

# ---- results

my %results = (
	'int' => [ '42', '42' ],
	'bigint' => [ '9223372036854775807', '9223372036854775807' ],
	'numeric' => [ '1.50', '1.50' ],
	'float8' => [ '0.1', '0.1' ],
	'text' => [ q{E'a"b\\nc'}, '"a\"b\nc"' ],
	'boolean' => [ 'true', 'true' ],
	'timestamptz' => [ q{'2026-01-02 03:04:05+00'}, '"2026-01-02T03:04:05+00:00"' ],
	'date' => [ q{'infinity'}, '"infinity"' ],
	'bytea' => [ q{'\xdead'}, '"\\\\xdead"' ],
	'int[]' => [ q{'{1,NULL,3}'}, '[1, null, 3]' ],
	'uuid' => [ q{'00000000-0000-0000-0000-000000000001'}, '"00000000-0000-0000-0000-000000000001"' ],
	'json' => [ q{'{"b":1,"a":2}'}, '{"a": 2, "b": 1}' ],
	'jsonb' => [ q{'[]'}, '[]' ],
	'pair' => [ q{ROW(1,'x')}, '{"a": 1, "b": "x"}' ],
	'mood' => [ q{'happy'}, '"happy"' ],
	'posint' => [ '7', '7' ],
	'int4range' => [ q{'[1,3)'}, '"[1,3)"' ]);
query($node, <<'SQL');
CREATE TYPE pair AS (a int, b text);
CREATE TYPE mood AS ENUM ('happy');
CREATE DOMAIN posint AS int CHECK (VALUE > 0);
SQL
ask($node, "SET TimeZone = 'UTC'");
query($node, "ALTER DATABASE postgres SET TimeZone = 'UTC'");
foreach my $type (sort keys %results)
{
	my ($value, $json) = @{ $results{$type} };
	my $name = 'r_' . ($type =~ s/\W/_/gr);
	handler($node, $name,
		"CREATE FUNCTION $name(payload jsonb) RETURNS $type LANGUAGE sql AS \$\$ SELECT $value\::$type \$\$");
	my $id = enqueue($node, $name);
	like(outcome_of($node, $id), qr/^succeeded/, "a result of type $type");
	is(ask($node, "SELECT result FROM qml_job('$id')"), $json, "$type: its value");
}
handler($node, 'r_out', 'CREATE FUNCTION r_out(payload jsonb, OUT a int, OUT b text) LANGUAGE sql AS $$ SELECT 1, \'x\' $$');
handler($node, 'r_null', 'CREATE FUNCTION r_null(payload jsonb) RETURNS int LANGUAGE sql AS $$ SELECT NULL::int $$');
{
	my $id = enqueue($node, 'r_out');
	like(outcome_of($node, $id), qr/^succeeded/, 'a function with output arguments');
	is(ask($node, "SELECT result FROM qml_job('$id')"), '{"a": 1, "b": "x"}', 'they are an object');
	$id = enqueue($node, 'r_null');
	like(outcome_of($node, $id), qr/^succeeded/, 'a function that returns null');
	is(ask($node, "SELECT result IS NULL FROM qml_job('$id')"), 't', 'has no result');
}

# ---- procedures

handler($node, 'p_commit', <<'SQL');
CREATE PROCEDURE p_commit(n int, OUT m int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		INSERT INTO ledger (what) VALUES ('commit ' || i);
		COMMIT;
		INSERT INTO ledger (what) VALUES ('rollback ' || i);
		ROLLBACK;
	END LOOP;
	INSERT INTO ledger (what) VALUES ('last');
	m := n;
END $$
SQL
handler($node, 'p_none',
	q{CREATE PROCEDURE p_none(payload jsonb) LANGUAGE sql AS $$ INSERT INTO ledger (what) VALUES ('none') $$});
handler($node, 'p_fail', <<'SQL');
CREATE PROCEDURE p_fail(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger (what) VALUES ('kept');
	COMMIT;
	INSERT INTO ledger (what) VALUES ('undone');
	RAISE EXCEPTION 'after commit';
END $$
SQL
handler($node, 'p_cursor', <<'SQL');
CREATE PROCEDURE p_cursor(payload jsonb) LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN
	EXECUTE 'DECLARE stays CURSOR WITH HOLD FOR SELECT 1';
	FOR r IN SELECT generate_series(1, 3) LOOP
		COMMIT;
	END LOOP;
END $$
SQL
query($node, 'TRUNCATE ledger');
foreach my $round (1 .. 3)
{
	my $id = enqueue($node, 'p_commit', '{"n": 2}');
	is(outcome_of($node, $id), 'succeeded|1', "round $round: a procedure that commits and rolls back");
	is(ask($node, "SELECT result FROM qml_job('$id')"), '{"m": 2}', 'its output arguments are the result');
	is(run($node, 'p_none'), 'succeeded|1', 'one that does not');
	is(run($node, 'p_fail', '{}', 'max_retries => 0'), 'failed|1|P0001|after commit', 'one that fails after it committed');
	is(run($node, 'p_cursor'), 'succeeded|1', 'one with cursors');
}
is(ask($node, "SELECT string_agg(what || ' ' || count, ', ' ORDER BY what) FROM (SELECT what, count(*) FROM ledger GROUP BY 1) s"),
	'commit 1 3, commit 2 3, kept 3, last 3, none 3', 'what they committed is there, and nothing else');

# ---- arguments

handler($node, 'typed', <<'SQL');
CREATE FUNCTION typed(a int, b text DEFAULT 'dflt', c posint DEFAULT 5, d int[] DEFAULT '{}')
RETURNS text LANGUAGE sql AS $$ SELECT concat_ws('/', a, b, c, d) $$
SQL
foreach my $case (
	[ '{"a": 1}', '"1/dflt/5/{}"' ],
	[ '{"a": 1, "d": [1, 2]}', '"1/dflt/5/{1,2}"' ],
	[ '{"a": 1, "b": null}', '"1/5/{}"' ],
	[ '{"c": 9, "a": "12"}', '"12/dflt/9/{}"' ])
{
	my $id = enqueue($node, 'typed', $case->[0]);
	like(outcome_of($node, $id), qr/^succeeded/, "arguments $case->[0]");
	is(ask($node, "SELECT result FROM qml_job('$id')"), $case->[1], 'they arrive');
}
fails_with($node, 'QM008', q{SELECT qml_enqueue('typed', '{"a": "x"}')}, 'a bad value is refused when it is enqueued');
is(run($node, 'typed', '{"a": 1, "c": -1}', 'max_retries => 5') =~ s/\|[^|]*$//r,
	'failed|1|QM008', 'a value that only the handler can judge fails at once');

# ---- errors

handler($node, 'bad', <<'SQL');
CREATE FUNCTION bad(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger (what) VALUES ('bad');
	RAISE EXCEPTION 'oops %', payload ->> 'n' USING ERRCODE = 'AB123', DETAIL = 'the detail', HINT = 'the hint';
END $$
SQL
query($node, q{SELECT qml_create_queue('fast', '{"retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}')});
{
	my $id = enqueue($node, 'bad', '{"n": 1}', q{queue => 'fast', max_retries => 2});
	is(outcome_of($node, $id), 'failed|3|AB123|oops 1', 'a job fails after its retries');
	is(ask($node, "SELECT string_agg(concat_ws(' ', e ->> 'attempt', e ->> 'error_type', e ->> 'error'), ', ') FROM qml_job('$id') j, jsonb_array_elements(j.errors) e"),
		'1 AB123 oops 1, 2 AB123 oops 1, 3 AB123 oops 1', 'all its errors are kept');
	like(ask($node, "SELECT errors -> -1 ->> 'stack_trace' FROM qml_job('$id')"),
		qr/DETAIL: the detail\nHINT: the hint\nCONTEXT: PL\/pgSQL function bad\(jsonb\) line 4 at RAISE/, 'with the stack trace');
	is(ask($node, "SELECT count(*) FROM ledger WHERE what = 'bad'"), 0, 'what it wrote is undone');
}

# ---- a handler that goes

handler($node, 'gone', 'CREATE FUNCTION gone(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$');
is(run($node, 'gone'), 'succeeded|1', 'a handler that is there');
query($node, 'DROP FUNCTION gone(jsonb)');
like(run($node, 'gone', '{}', q{queue => 'fast', max_retries => 1}), qr/^failed\|2\|QM007\|.*gone\(pg_catalog.jsonb\).*cannot be called/,
	'one that was dropped');
query($node, 'CREATE FUNCTION gone(payload jsonb) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$');
is(run($node, 'gone'), 'succeeded|1', 'one that is there again');
query($node, "SELECT qml_pause_queue('default')");
my $waiting = enqueue($node, 'gone');
query($node, "SELECT qml_unregister_handler('gone'); SELECT qml_resume_queue('default')");
is(run($node, 'note'), 'succeeded|1', 'after a handler was unregistered others run');
is(outcome($node, $waiting), 'enqueued|0', 'its jobs wait for other workers');
query($node, "SELECT qml_delete('$waiting')");

# ---- the handler ends its own job

foreach my $call (q{qml_delete((job).id, 'me')}, 'qml_succeed((job).id, (job).attempt)',
	'qml_release((job).id, (job).attempt)', q{qml_fail((job).id, (job).attempt, 'me')}, 'qml_discard((job).id, (job).attempt)')
{
	my ($name) = $call =~ /^(\w+)/;
	handler($node, "own_$name",
		"CREATE FUNCTION own_$name(job qml.job) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN PERFORM $call; END \$\$");
	my $id = enqueue($node, "own_$name", '{}', 'max_retries => 0');
	ok(eval { outcome_of($node, $id) }, "$name of a handler's own job: it does not stay in work");
	note(outcome($node, $id));
}

# ---- roles

foreach my $role (qw(ann bob))
{
	query($node, <<"SQL");
SET ROLE $role;
CREATE FUNCTION who_$role(payload jsonb) RETURNS text LANGUAGE sql AS
	\$\$ INSERT INTO ledger (what) VALUES ('who'); SELECT session_user || ' ' || current_user \$\$;
SELECT qml_register_handler('who_$role', 'who_$role');
SQL
}
query($node, 'TRUNCATE ledger');
my @who = map { [ $_, enqueue($node, "who_$_") ] } (qw(ann bob)) x 10;
foreach my $who (@who)
{
	outcome_of($node, $who->[1]);
}
is(ask($node, "SELECT string_agg(DISTINCT concat(su, cu), ' ') FROM ledger WHERE what = 'who'"), 'annann bobbob',
	'each job has the role of its handler as its session user');
is(ask($node, "SELECT count(*) FROM (SELECT FROM ledger GROUP BY pid HAVING count(DISTINCT su) > 1) s"), 0, 'no process has two');

# What can be seen of the processes: of this database in qml.server, of all in
# pg_stat_activity, which also knows kinds and roles.
sub processes
{
	return ask($node, <<'SQL');
SELECT string_agg(concat_ws(' ', backend_type, coalesce(datname, '-'), usename), ', ' ORDER BY backend_type, usename)
FROM pg_stat_activity WHERE backend_type LIKE 'qml %'
SQL
}
my $seen = '';
eval {
	wait_for(
		'a worker of each of both roles',
		sub {
			# One of a third role may have its turn, though it has nothing to do any more.
			outcome_of($node, enqueue($node, "who_$_")) foreach qw(ann bob);
			return ($seen = processes()) =~ /qml worker postgres ann, qml worker postgres bob$/;
		});
};
is($seen, 'qml launcher - postgres, qml scheduler postgres postgres, qml worker postgres ann, qml worker postgres bob',
	'pg_stat_activity shows the launcher, the scheduler, and workers with their roles');
is( ask($node, <<'SQL'), 'scheduler postgres, worker ann, worker bob', 'qml.server shows those of the database, and which they are');
SELECT string_agg(concat_ws(' ', s.kind, s.run_as), ', ' ORDER BY s.kind, s.run_as)
FROM qml.server s JOIN pg_stat_activity a
	ON s.id = s.name || ':' || a.pid AND a.backend_type = 'qml ' || s.kind AND a.usename = s.run_as
WHERE s.alive AND s.started_at BETWEEN a.backend_start - interval '1 s' AND now()
	AND s.heartbeat_at >= s.started_at AND concat(s.workers, s.queues, s.registered_by) = ''
SQL
is(ask($node, q{SELECT count(*) FROM qml.server}), 3, 'and no other');
{
	my $pid;
	my $shown = sub { return ask($node, "SELECT count(*) FROM qml.server WHERE id LIKE '%:$_[0]'") };
	# As above: that of ann may just have made room for one of a third role.
	wait_for(
		'a worker that is shown',
		sub {
			outcome_of($node, enqueue($node, 'who_ann'));
			($pid) = worker_pids($node, q{usename = 'ann'});
			return defined $pid && $shown->($pid) == 1;
		});
	ask($node, "SELECT pg_terminate_backend($pid)");
	wait_for('the end of the worker', sub { !grep { $_ == $pid } worker_pids($node) });
	is($shown->($pid), 0, 'one that ended is not');
	like(run($node, 'who_ann'), qr/^succeeded/, 'a job of its role');
	($pid) = ask($node, q{SELECT pid FROM ledger WHERE what = 'who' ORDER BY at DESC LIMIT 1});
	is($shown->($pid), 1, 'the one that ran it is shown');
}

# What a role loses: its jobs fail, with a reason, those of others run.
sub loses
{
	my ($name, $take, $give, $expected) = @_;
	query($node, "SELECT qml_pause_queue('default')");
	my $id = enqueue($node, 'who_bob', '{}', 'max_retries => 0');
	query($node, $take);
	query($node, "SELECT qml_resume_queue('default')");
	like(outcome_of($node, $id), $expected, "$name: the job fails");
	my $ann = enqueue($node, 'who_ann');
	like(outcome_of($node, $ann), qr/^succeeded/, "$name: those of other roles run");
	my $later = enqueue($node, 'who_bob', '{}', 'max_retries => 0');
	like(outcome_of($node, $later), $expected, "$name: so does a later one");
	query($node, $give);
	is(run($node, 'who_bob', '{}', 'max_retries => 0'), 'succeeded|1', "$name: and runs when all is well again");
	return;
}
foreach my $state ('with a worker', 'without')
{
	if ($state eq 'without')
	{
		query($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'qml worker'");
		wait_for('the end of the workers', sub { !worker_pids($node) });
	}
	loses("$state: LOGIN", 'ALTER ROLE bob NOLOGIN', 'ALTER ROLE bob LOGIN', qr/^failed\|\d\|28000\|.*"bob".*not permitted to log in/);
	loses("$state: CONNECT", 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO ann',
		'GRANT CONNECT ON DATABASE postgres TO PUBLIC', qr/^failed\|\d\|42501\|.*"bob".*no privilege CONNECT/);
	loses("$state: EXECUTE", 'REVOKE EXECUTE ON FUNCTION who_bob(jsonb) FROM PUBLIC, bob',
		'GRANT EXECUTE ON FUNCTION who_bob(jsonb) TO PUBLIC', qr/^failed\|\d\|42501\|permission denied for function public.who_bob/);
}
# Work that there is because a setting changed, of a queue or of the server: who is woken
# must see the change.
{
	my ($resumed, $allowed) = (0, 0);
	foreach my $round (1 .. 30)
	{
		query($node, "SELECT qml_pause_queue('default')");
		my $id = enqueue($node, 'who_bob');
		query($node, "SELECT qml_resume_queue('default')");
		$resumed = max($resumed, seconds_until('the job', sub { outcome($node, $id) =~ /^succeeded/ }));
	}
	cmp_ok($resumed, '<=', 5, sprintf 'jobs of a queue that is resumed run at once (%.2f s)', $resumed);
	foreach my $round (1 .. 10)
	{
		set_config($node, 'qml.workers' => 0);
		wait_for('the workers to end', sub { !worker_pids($node) });
		my $id = enqueue($node, 'who_bob');
		set_config($node, 'qml.workers' => 2);
		$allowed = max($allowed, seconds_until('the job', sub { outcome($node, $id) =~ /^succeeded/ }));
	}
	cmp_ok($allowed, '<=', 5, sprintf 'jobs run at once when workers are allowed (%.2f s)', $allowed);
}
query($node, <<'SQL');
CREATE ROLE gus LOGIN;
CREATE FUNCTION for_gus(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$;
SELECT qml_register_handler('for_gus', 'for_gus', '{"run_as": "gus"}');
SQL
is(run($node, 'for_gus'), 'succeeded|1', 'run_as another role');
query($node, 'DROP OWNED BY gus; DROP ROLE gus');
{
	my @ids = enqueue($node, 'for_gus');
	query($node, 'SELECT * FROM qml_cleanup()');
	push @ids, enqueue($node, 'for_gus');
	is(run($node, 'note'), 'succeeded|1', 'others are undisturbed when a role was dropped');
	is(outcome($node, $_), 'enqueued|0', 'whose jobs wait') foreach @ids;
	is(ask($node, q{SELECT run_as::oid FROM qml.handler_data WHERE method = 'for_gus'}), 0, 'nothing of it is left');
	query($node, "SELECT qml_unregister_handler('for_gus')");
	ask($node, "SELECT qml_delete('$_')") foreach @ids;
}

# ---- groups

handler($node, 'short', <<'SQL');
CREATE FUNCTION short(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger (what) VALUES (payload ->> 'n');
	IF payload ? 'fail' THEN RAISE EXCEPTION 'fails'; END IF;
	IF payload ? 'dup' THEN INSERT INTO deferred VALUES (1), (1); END IF;
	IF payload ? 'sleep' THEN PERFORM pg_sleep((payload ->> 'sleep')::float8); END IF;
	IF payload ? 'loop' THEN
		LOOP
			BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
		END LOOP;
	END IF;
	IF payload ? 'slow' THEN
		WHILE clock_timestamp() < transaction_timestamp() + (payload ->> 'slow')::interval LOOP
			BEGIN PERFORM pg_sleep(0.1); EXCEPTION WHEN query_canceled THEN NULL; END;
		END LOOP;
	END IF;
	IF payload ? 'trap' THEN
		BEGIN
			PERFORM pg_sleep((payload ->> 'trap')::float8);
		EXCEPTION WHEN query_canceled THEN
			INSERT INTO ledger (what) VALUES ('trapped');
		END;
	END IF;
END $$
SQL
query($node, 'CREATE TABLE mine (i int, id uuid); CREATE TABLE deferred (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)');

# Jobs of a method that has been short, so that they run in groups, of which those
# with the numbers in %special are special.
sub group_of
{
	my ($count, %special) = @_;
	my $cases = join ' ', map { "WHEN $_ THEN '$special{$_}'" } keys %special;
	my $extra = $cases ? "|| (CASE i $cases ELSE '{}' END)::jsonb" : '';
	ask($node, 'TRUNCATE ledger, deferred');
	ask($node, "SELECT qml_enqueue('short', '{\"n\": \"warm\"}') FROM generate_series(1, 200)");
	settle($node, 'short');
	ask($node, 'TRUNCATE ledger, mine');
	ask($node, <<"SQL");
INSERT INTO mine
SELECT i, qml_enqueue('short', jsonb_build_object('n', i) $extra, max_retries => 0, timeout => '2 s') AS id
FROM generate_series(1, $count) i
SQL
	settle($node, 'short');
	return;
}

sub mine
{
	my ($what) = @_;
	return ask($node, "SELECT $what FROM mine LEFT JOIN qml.job j USING (id)");
}

# A machine that is busy may make short jobs long, and then they run alone for a while.
my $transactions = 60;
foreach my $round (1 .. 30)
{
	group_of(60);
	is(mine("count(*) FILTER (WHERE state = 'succeeded')"), 60, 'all jobs of a group succeed');
	$transactions = ask($node, 'SELECT count(DISTINCT xmin::text) FROM qml.history WHERE id IN (SELECT id FROM mine)');
	last if $transactions < 60;
}
cmp_ok($transactions, '<', 60, 'in fewer transactions than jobs');
group_of(60, 7 => '{"fail": 1}', 30 => '{"dup": 1}', 31 => '{"fail": 1}');
is(mine("string_agg(concat_ws(' ', i, state, errors -> -1 ->> 'error_type'), ', ' ORDER BY i) FILTER (WHERE state <> 'succeeded')"),
	'7 failed P0001, 30 failed 23505, 31 failed P0001', 'errors and deferred errors hit their own job alone');
is(ask($node, 'SELECT count(*), count(DISTINCT what) FROM ledger'), '57|57', 'and all others have their effect once');

# The first job of a group, a middle one, and the last.
foreach my $long (1, 20, 60)
{
	group_of(60, $long => '{"sleep": 0.3}');
	is(mine("count(*) FILTER (WHERE state = 'succeeded')"), 60, "job $long is long: all succeed");
	is(ask($node, 'SELECT count(*), count(DISTINCT what) FROM ledger'), '60|60', 'once');
	# One that is given back before it began has a higher number the next time, as has any claim.
	is(ask($node, 'SELECT max(attempt - coalesce(uncounted, 0)) FROM qml.history WHERE id IN (SELECT id FROM mine)'), 1, 'and each was one attempt that counts');
	group_of(60, $long => '{"sleep": 60}');
	is(mine("string_agg(concat_ws(' ', i, state, errors -> -1 ->> 'error_type'), ', ' ORDER BY i) FILTER (WHERE state <> 'succeeded')"),
		"$long failed timeout", "job $long is too long: its timeout ends it");
	group_of(60, $long => '{"trap": 0.3}');
	is(ask($node, "SELECT count(*) FROM ledger WHERE what = 'trapped'"), 0,
		"job $long traps being canceled: a group that waits is none of its business");
}
# One that nothing stops ends with its process, and the others have no part in that.
group_of(60, 20 => '{"loop": 1}');
is(mine("string_agg(concat_ws(' ', i, state, errors -> -1 ->> 'error_type'), ', ' ORDER BY i) FILTER (WHERE state <> 'succeeded')"),
	'20 failed timeout', 'a job of a group that goes on whatever it is told: its timeout ends it');
is(ask($node, 'SELECT count(*), count(DISTINCT what) FROM ledger'), '59|59', 'the others have their effects once');
is(ask($node, 'SELECT max(attempt - coalesce(uncounted, 0)) FROM qml.history WHERE id IN (SELECT id FROM mine)'), 1, 'at their first attempt that counts');
{
	group_of(1);
	ask($node, 'TRUNCATE mine');
	ask($node, <<'SQL');
INSERT INTO mine SELECT i, qml_enqueue('short', jsonb_build_object('n', i) || (CASE i WHEN 5 THEN '{"loop": 1}' ELSE '{}' END)::jsonb, max_retries => 0)
FROM generate_series(1, 30) i
SQL
	wait_for('the job to run', sub { worker_pids($node, "wait_event = 'PgSleep'") > 0 });
	ask($node, q{SELECT qml_delete(id, 'enough') FROM mine WHERE i = 5});
	my $seconds = seconds_until('the worker to end', sub { !worker_pids($node, "wait_event = 'PgSleep'") });
	cmp_ok($seconds, '<=', 12, sprintf 'one that is deleted ends after a grace time, too (%.1f s)', $seconds);
	settle($node, 'short');
	is(mine("string_agg(concat_ws(' ', i, state), ', ' ORDER BY i) FILTER (WHERE state <> 'succeeded')"), '5 deleted', 'and the others succeed');
}
# One that goes on and is within its own time has only been in the wrong place: it runs again.
{
	group_of(1);
	ask($node, 'TRUNCATE mine');
	ask($node, <<'SQL');
INSERT INTO mine SELECT i, qml_enqueue('short', jsonb_build_object('n', i) || (CASE i WHEN 5 THEN '{"slow": "9 s"}' ELSE '{}' END)::jsonb,
	max_retries => 0, timeout => '1 min')
FROM generate_series(1, 30) i
SQL
	settle($node, 'short');
	is(mine("count(*) FILTER (WHERE state = 'succeeded')"), 30, 'a job that is slower than a group can wait, and notices no cancel, succeeds');
	is(ask($node, 'SELECT max(attempt - coalesce(uncounted, 0)) FROM qml.history WHERE id IN (SELECT id FROM mine)'), 1, 'at its first attempt that counts');
}
# More than 60 subtransactions with effects are more than other sessions remember of one.
{
	ask($node, 'TRUNCATE ledger');
	ask($node, q{SELECT count(*) FROM qml_enqueue_many('short', array_fill('{"n": "many"}'::jsonb, ARRAY[5000]))});
	settle($node, 'short');
	my $most = ask($node, q{SELECT max(n) FROM (SELECT count(*) AS n FROM ledger WHERE what = 'many' GROUP BY xact) g});
	cmp_ok($most, '<=', 60, "a group has 60 jobs at most ($most)");
}
# A cancel that a job has sent itself, and does not notice.
handler($node, 'cancels', <<'SQL');
CREATE FUNCTION cancels(payload jsonb) RETURNS boolean LANGUAGE sql AS $$
	SELECT CASE WHEN payload ? 'cancel' THEN pg_cancel_backend(pg_backend_pid()) END
$$
SQL
foreach my $round (1 .. 3)
{
	ask($node, q{SELECT count(*) FROM qml_enqueue_many('cancels', array_fill('{}'::jsonb, ARRAY[200]))});
	settle($node, 'cancels');
	ask($node, 'TRUNCATE mine');
	ask($node, <<'SQL');
INSERT INTO mine SELECT i, qml_enqueue('cancels', (CASE i WHEN 5 THEN '{"cancel": 1}' ELSE '{}' END)::jsonb, max_retries => 0)
FROM generate_series(1, 30) i
SQL
	settle($node, 'cancels');
	like(mine("string_agg(concat_ws(' ', i, state, errors -> -1 ->> 'error_type'), ', ' ORDER BY i) FILTER (WHERE state <> 'succeeded')"),
		qr/^(5 failed 57014)?$/, 'a job that cancels itself in a group hits no other');
}
# Procedures are in no group, and nothing is claimed in vain for one.
handler($node, 'brief', 'CREATE PROCEDURE brief(payload jsonb) LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; END $$');
ask($node, q{SELECT count(*) FROM qml_enqueue_many('brief', array_fill('{}'::jsonb, ARRAY[500]))});
settle($node, 'brief');
is(ask($node, q{SELECT max(attempt) || ' ' || count(*) FROM qml.history WHERE method = 'brief' AND state = 'succeeded'}), '1 500',
	'short procedures are claimed once');
# How long the others had to wait for their commit: from the end of a job, which its
# row in the ledger shows, to the commit of that row.
{
	my $late = best_of(
		10,
		sub {
			group_of(60, 20 => '{"sleep": 0.3}', 40 => '{"sleep": 0.2}');
			my $machine = machine_lag(0.5);
			my $ms = ask($node, <<'SQL');
SELECT max(extract(epoch FROM pg_xact_commit_timestamp(l.xmin) - l.at) * 1000)
FROM ledger l WHERE what NOT IN ('20', '40')
SQL
			note(sprintf 'commit %.1f ms after the job; machine %.1f', $ms, $machine);
			return max($ms - $machine, 0);
		});
	cmp_ok($late, '<=', 10, sprintf 'a long job among short ones delays none by more than 10 ms (%.1f ms)', $late);
}

# ---- the end of a job before its time

handler($node, 'sleepy', <<'SQL');
CREATE FUNCTION sleepy(seconds float8) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger (what) VALUES ('sleepy');
	PERFORM pg_sleep(seconds);
END $$
SQL
handler($node, 'stubborn', <<'SQL');
CREATE FUNCTION stubborn(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM pg_sleep(60);
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
END $$
SQL

handler($node, 'trapper', <<'SQL');
CREATE FUNCTION trapper(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger (what) VALUES ('trapper');
	PERFORM pg_sleep(60);
EXCEPTION WHEN query_canceled THEN
	INSERT INTO ledger (what) VALUES ('trapper goes on');
END $$
SQL

# Waits until a worker runs the job.
sub wait_running
{
	my ($id) = @_;
	wait_for("job $id to run", sub { ask($node, <<"SQL") == 1 });
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'qml worker' AND query LIKE '%$id' AND wait_event = 'PgSleep'
SQL
	return;
}
{
	my $id = enqueue($node, 'sleepy', '{"seconds": 60}');
	wait_running($id);
	my ($pid) = worker_pids($node, "query LIKE '%$id'");
	# One that runs a long job, and one that has none.
	foreach my $state (qw(active idle))
	{
		wait_for("a worker that is $state to beat", sub { ask($node, <<"SQL") > 0 });
SELECT count(*) FROM qml.server s JOIN pg_stat_activity a ON s.id = s.name || ':' || a.pid
WHERE s.kind = 'worker' AND a.state = '$state' AND s.heartbeat_at - s.started_at > '3 s'
	AND s.heartbeat_at > clock_timestamp() - interval '2 s'
SQL
		pass("a worker that is $state beats");
	}
	ask($node, "SELECT qml_delete('$id', 'enough')");
	my $seconds = seconds_until('the worker to stop', sub { !worker_pids($node, "query LIKE '%$id'") });
	cmp_ok($seconds, '<=', 1, sprintf 'a job that is deleted is canceled (%.2f s)', $seconds);
	like(outcome($node, $id), qr/^deleted\|1/, 'and stays deleted');
	is(scalar(grep { $_ == $pid } worker_pids($node)), 1, 'by the same process, which goes on');

	my $start = time;
	is(run($node, 'sleepy', '{"seconds": 60}', q{timeout => '300 ms', max_retries => 0}) =~ s/\|the job.*//r,
		'failed|1|timeout', 'the timeout of a job ends it');
	cmp_ok(time - $start, '<=', 1.5, 'in time');
	is(ask($node, "SELECT count(*) FROM ledger WHERE what = 'sleepy'"), 0, 'nothing of it is left');

	$start = time;
	my ($stubborn) = enqueue($node, 'stubborn', '{}', q{timeout => '300 ms', max_retries => 0});
	like(outcome_of($node, $stubborn), qr/^failed\|1\|timeout\|/, 'one that traps it ends with its process');
	cmp_ok(time - $start, '<=', 12, sprintf 'after a grace time (%.1f s)', time - $start);
	is(run($node, 'note'), 'succeeded|1', 'others go on');
	query($node, q{SELECT qml_register_handler('stubborn', 'stubborn', '{"non_retryable": ["timeout"]}')});
	like(run($node, 'stubborn', '{}', q{timeout => '300 ms'}), qr/^failed\|1\|timeout\|/, 'which is never retried, if that is wished');
	like(run($node, 'trapper', '{}', q{timeout => '300 ms', max_retries => 0}), qr/^failed\|1\|timeout\|/, 'one that traps it, and returns, has not succeeded');
	is(ask($node, "SELECT count(*) FROM ledger WHERE what LIKE 'trapper%'"), 0, 'nothing of it is left');
}
# A method that was short, and now is not: nobody else is in its group.
foreach my $end ('timeout', 'delete')
{
	group_of(1);
	my $id = enqueue($node, 'short', '{"n": 1, "sleep": 60}', q{timeout => '1 s', max_retries => 0}) if $end eq 'timeout';
	$id //= enqueue($node, 'short', '{"n": 1, "sleep": 60}', 'max_retries => 0');
	if ($end eq 'delete')
	{
		wait_running($id);
		ask($node, "SELECT qml_delete('$id')");
	}
	my $seconds = seconds_until('the job to end',
		sub { outcome($node, $id) =~ /^(failed|deleted)/ && !worker_pids($node, "wait_event = 'PgSleep'") });
	cmp_ok($seconds, '<=', 3, sprintf 'a job that its method did not promise to be long: %s (%.1f s)', $end, $seconds);
}

# ---- attempts: what is claimed and not begun is not counted, nor shown as begun

query($node, 'TRUNCATE ledger');
ask($node, q{SELECT qml_enqueue('sleepy', '{"seconds": 0.02}') FROM generate_series(1, 20)});
settle($node, 'sleepy');
is(ask($node, q{SELECT max(attempt) FROM qml.job WHERE payload = '{"seconds": 0.02}'}), 1, 'a job that ran once was attempted once');

# ---- settings

sub workers_now { return scalar worker_pids($node) }
set_config($node, 'qml.workers' => 0);
wait_for('the workers to end', sub { workers_now() == 0 });
my $later = enqueue($node, 'note');
sleep 0.3;
is(outcome($node, $later), 'enqueued|0', 'qml.workers = 0: nothing runs');
set_config($node, 'qml.workers' => 3);
is(outcome_of($node, $later), 'succeeded|1', 'it runs when workers are allowed');
handler($node, 'held', 'CREATE FUNCTION held(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_xact_lock_shared(1) $$');
{
	my $blocker = new_session($node);
	$blocker->query_safe('SELECT pg_advisory_lock(1)');
	ask($node, q{SELECT qml_enqueue('held') FROM generate_series(1, 12)});
	wait_held($node, 3);
	my ($most, $end) = (0, time + 2);
	while (time < $end)
	{
		$most = max($most, workers_now());
		sleep 0.02;
	}
	is($most, 3, 'as many workers as are allowed, when there is work for them');
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
	$blocker->quit;
	settle($node, 'held');
}
set_config($node, 'qml.worker_idle_timeout' => '1s');
wait_for('idle workers to end', sub { workers_now() == 0 });
pass('idle workers end');

# A type that changes is another one, also for a worker that has seen it.
set_config($node, 'qml.workers' => 1);
query($node, 'CREATE TYPE thing AS (a int); CREATE TABLE things (a int)');
foreach my $type ('thing', 'things')
{
	my ($alter, $add) = $type eq 'thing' ? ('TYPE', 'ATTRIBUTE') : ('TABLE', 'COLUMN');
	my $of = "of_$type";
	my $result = sub {
		my ($payload) = @_;
		my $id = enqueue($node, $of, $payload, 'max_retries => 0');
		my $outcome = outcome_of($node, $id);
		return $outcome eq 'succeeded|1' ? ask($node, "SELECT result FROM qml_job('$id')") : $outcome;
	};
	handler($node, $of, "CREATE FUNCTION $of(item $type) RETURNS jsonb LANGUAGE plpgsql AS \$\$ BEGIN RETURN to_jsonb(item); END \$\$");
	is($result->('{"item": {"a": 1}}'), '{"a": 1}', "an argument of type $type");
	query($node, "ALTER $alter $type ADD $add c int");
	is($result->('{"item": {"a": 1, "c": 7}}'), '{"a": 1, "c": 7}', 'what is added to the type is not lost');
	query($node, "ALTER $alter $type ALTER $add a TYPE text");
	is($result->('{"item": {"a": "hello"}}'), '{"a": "hello", "c": null}', 'what is of another type now fits');
	query($node, "ALTER $alter $type DROP $add c");
	is($result->('{"item": {"a": "x"}}'), '{"a": "x"}', 'what is dropped is not there');
}

# A job that comes in the moment a worker ends.
my $slowest = 0;
foreach my $round (1 .. 12)
{
	run($node, 'note');
	sleep 0.994 + $round * 0.001;
	my $start = time;
	run($node, 'note');
	$slowest = max($slowest, time - $start);
}
cmp_ok($slowest, '<=', 3, sprintf 'a job that comes when the worker leaves is not forgotten (%.2f s)', $slowest);

run_log_clean($node, 'no process crashed');
end_sessions($node);
done_testing();
