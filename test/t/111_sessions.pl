# What one job leaves in its session is not seen by the next: in groups, alone, in
# procedures, after success and after failure.  And nothing of it piles up.

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
use Time::HiRes qw(time);

# One worker: it runs all jobs, one after the other.
my $node = background_node('sessions', conf => <<'CONF');
qml.workers = 1
qml.succeeded_ttl = 600
max_worker_processes = 12
autovacuum = off
CONF
wait_for_process($node, 'scheduler', 'postgres');

query($node, <<'SQL');
CREATE ROLE other LOGIN;
CREATE SEQUENCE seq;
SELECT lo_from_bytea(4711, 'x');
CREATE TABLE visible (a text DEFAULT 'public');
INSERT INTO visible DEFAULT VALUES;
CREATE TABLE immediate (a int UNIQUE DEFERRABLE INITIALLY IMMEDIATE);
CREATE TABLE shape (a int);
INSERT INTO shape VALUES (1);
GRANT ALL ON visible, immediate, shape TO PUBLIC;

-- What code of others could see of what was before.
CREATE FUNCTION session_state(kind text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	s jsonb;
	shadow text;
	seen text;
BEGIN
	-- That takes its time, which a job in a group has not.
	IF kind = 'light' THEN
		s := '{}';
	ELSE
		SELECT jsonb_build_object(
			'settings', md5(string_agg(concat_ws('=', name, setting, source), ' ' ORDER BY name)),
			'session', jsonb_object_agg(name, setting) FILTER (WHERE source = 'session'))
		INTO s FROM pg_settings;
	END IF;
	SELECT s || jsonb_build_object(
		'custom', coalesce(current_setting('my.custom', true), ''),
		'users', concat_ws(' ', session_user, current_user, current_setting('role'), current_setting('is_superuser')),
		'path', current_schemas(false),
		'relations', (SELECT array_agg(relname) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
		'functions', (SELECT array_agg(proname) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()),
		'types', (SELECT array_agg(typname) FROM pg_type WHERE typnamespace = pg_my_temp_schema()),
		'cursors', (SELECT array_agg(name) FROM pg_cursors),
		'prepared', (SELECT array_agg(name) FROM pg_prepared_statements),
		'channels', (SELECT array_agg(c) FROM pg_listening_channels() c),
		'locks', (SELECT array_agg(objid || mode) FROM pg_locks
			WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objid < 100),
		'read only', current_setting('transaction_read_only'),
		'replication', current_setting('session_replication_role')) INTO s;
	BEGIN
		seen := currval('seq');
	EXCEPTION WHEN object_not_in_prerequisite_state THEN seen := 'none';
	END;
	s := s || jsonb_build_object('currval', seen);
	BEGIN
		seen := lastval();
	EXCEPTION WHEN object_not_in_prerequisite_state THEN seen := 'none';
	END;
	s := s || jsonb_build_object('lastval', seen);
	BEGIN
		PERFORM loread(0, 1);
		seen := 'open';
	EXCEPTION WHEN undefined_object THEN seen := 'none';
	END;
	s := s || jsonb_build_object('large objects', seen);
	BEGIN
		INSERT INTO public.immediate VALUES (1), (1);
		RAISE check_violation;
	EXCEPTION
		WHEN unique_violation THEN seen := 'immediate';
		WHEN check_violation THEN seen := 'deferred';
	END;
	EXECUTE 'SELECT a FROM visible' INTO shadow;
	RETURN s || jsonb_build_object('constraints', seen, 'shadow', shadow);
END $$;
SQL

# Does what the payload says, then shows what it finds.
my $BODY = <<'SQL';
DECLARE
	s text;
BEGIN
	%s
	IF payload ? 'probe' THEN
		state := public.session_state(payload ->> 'probe');
	ELSE
		state := '{}';
	END IF;
	state := state || jsonb_build_object('xact', pg_current_xact_id()::text, 'pid', pg_backend_pid(), 'random', random()::text);
END
SQL
my $DO = q{FOR s IN SELECT jsonb_array_elements_text(payload -> 'do') LOOP EXECUTE s; %s END LOOP;
	IF payload ? 'fail' THEN RAISE EXCEPTION 'as told'; END IF;};
handler($node, 'act', "CREATE FUNCTION act(payload jsonb, OUT state jsonb) LANGUAGE plpgsql AS \$act\$\n"
	  . sprintf($BODY, sprintf($DO, '')) . "\$act\$");
handler($node, 'act_p', "CREATE PROCEDURE act_p(payload jsonb, OUT state jsonb) LANGUAGE plpgsql AS \$act\$\n"
	  . sprintf($BODY, sprintf($DO, 'COMMIT;')) . "\$act\$");

# A JSON text of a list of statements.
sub statements
{
	my (@statements) = @_;
	require JSON::PP;
	return JSON::PP->new->encode(\@statements);
}

# The results of jobs; a procedure's is in its output argument.
sub result
{
	my ($id) = @_;
	my $result = json(ask($node, "SELECT coalesce(result, '{}') FROM qml_job('$id')"));
	return $result->{state} // $result;
}

# Jobs enqueued together, [method, payload] each; their ids, when all are over.
sub run_together
{
	my (@jobs) = @_;
	my $list = join ', ', map { "qml_enqueue('$_->[0]', \$\$$_->[1]\$\$, max_retries => 0)" } @jobs;
	my @ids = split /\|/, ask($node, "SELECT $list");
	outcome_of($node, $_) foreach @ids;
	return @ids;
}

# Makes the method one whose jobs run in groups.
sub warm_up
{
	ask($node, q{SELECT qml_enqueue('act') FROM generate_series(1, 150)});
	settle($node, 'act');
	return;
}

# The state without what is different each time.
sub plain
{
	my ($state) = @_;
	my %plain = %$state;
	delete @plain{qw(xact pid random)};
	return \%plain;
}

my ($first) = run_together([ 'act', '{"probe": 1}' ]);
my $clean = plain(result($first));
my $pid = result($first)->{pid};
is($clean->{constraints}, 'immediate', 'a clean session: constraints');
is($clean->{currval}, 'none', 'a clean session: sequences');
is($clean->{shadow}, 'public', 'a clean session: names');
is($clean->{channels}, undef, 'a clean session: channels');
is($clean->{users}, 'postgres postgres none on', 'a clean session: users');

ask($node, 'SELECT setseed(0.25)');
my %predicted = map { $_ => 1 } split /\n/, ask($node, 'SELECT random()::text FROM generate_series(1, 10)');

# What a job may leave, and, where it cannot, the error that it fails with.
my @LEFT = (
	[ 'SET', [ "SET work_mem = '1MB'", "SET DateStyle = 'SQL, DMY'" ] ],
	[ 'SET LOCAL', [ "SET LOCAL work_mem = '1MB'", "SET LOCAL TimeZone = 'Asia/Tokyo'" ] ],
	[ 'set_config', [ "SELECT set_config('work_mem', '1MB', false), set_config('my.custom', 'x', false)" ] ],
	[ 'set_config local', [ "SELECT set_config('work_mem', '1MB', true), set_config('my.custom', 'x', true)" ] ],
	[ 'a setting of its own', [ "SET my.custom = 'left'" ] ],
	[ 'search_path', [ 'SET search_path = pg_temp, nowhere' ] ],
	[ 'RESET ALL', ['RESET ALL'] ],
	[ 'a temporary table', [ "CREATE TEMP TABLE visible AS SELECT 'shadow' AS a" ] ],
	[ 'ON COMMIT DELETE', [ 'CREATE TEMP TABLE visible (a text) ON COMMIT DELETE ROWS' ] ],
	[ 'ON COMMIT DROP', [ 'CREATE TEMP TABLE visible (a text) ON COMMIT DROP' ] ],
	[ 'other temporary objects',
		[ 'CREATE TEMP VIEW v AS SELECT 1 AS a', 'CREATE TEMP SEQUENCE s', "SELECT nextval('s')",
			'CREATE TYPE pg_temp.mood AS ENUM ($a$x$a$)', 'CREATE DOMAIN pg_temp.text AS pg_catalog.text' ] ],
	[ 'a temporary function',
		[ 'CREATE FUNCTION pg_temp.now() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN 1; END $f$', 'SELECT pg_temp.now()' ] ],
	[ 'a deferred trigger on a temporary table',
		[ 'CREATE TEMP TABLE p (a int PRIMARY KEY)', 'CREATE TEMP TABLE c (a int REFERENCES p DEFERRABLE INITIALLY DEFERRED)',
			'INSERT INTO c VALUES (1)', 'INSERT INTO p VALUES (1)' ], 'act' ],
	[ 'a cursor', [ 'DECLARE c1 CURSOR FOR SELECT 1' ] ],
	[ 'a cursor on a temporary table', [ 'CREATE TEMP TABLE t (a int)', 'DECLARE c2 CURSOR FOR SELECT * FROM t', 'FETCH c2' ], 'act' ],
	[ 'a cursor WITH HOLD', [ 'DECLARE c3 CURSOR WITH HOLD FOR SELECT generate_series(1, 10)', 'FETCH c3' ] ],
	[ 'an open refcursor', [ 'DO $d$ DECLARE c refcursor := $c$left$c$; BEGIN OPEN c FOR SELECT 1; END $d$' ] ],
	[ 'a large object', [ 'SELECT lo_open(4711, 262144)' ] ],
	[ 'session locks', [ 'SELECT pg_advisory_lock(1)', 'SELECT pg_advisory_lock_shared(1), pg_advisory_lock(2), pg_advisory_lock(2)' ] ],
	[ 'transaction locks', [ 'SELECT pg_advisory_xact_lock(100), pg_advisory_lock(100)' ] ],
	[ 'prepared statements', [ 'PREPARE p1 AS SELECT 1', 'EXECUTE p1' ] ],
	[ 'sequences', [ q{SELECT nextval('public.seq')} ] ],
	[ 'SET CONSTRAINTS', [ 'SET CONSTRAINTS ALL DEFERRED' ] ],
	[ 'SET TRANSACTION', [ 'SET TRANSACTION READ ONLY' ], 'act' ],
	[ 'SET ROLE', [ 'SET ROLE other' ] ],
	[ 'SET LOCAL ROLE', [ 'SET LOCAL ROLE other' ] ],
	[ 'SET SESSION AUTHORIZATION', [ 'SET SESSION AUTHORIZATION other' ] ],
	[ 'session_replication_role', [ 'SET session_replication_role = replica' ] ],
	[ 'a seed', [ 'SELECT setseed(0.25)' ] ],
	[ 'SET seed', [ 'SET seed = 0.25' ] ],
	[ 'NOTIFY', [ 'NOTIFY channel' ] ],
	[ 'LISTEN', ['LISTEN channel'], undef, '0A000\|cannot execute LISTEN within a background process$' ],
);

# Asserts that a job finds what the first one found.
sub is_clean
{
	my ($name, $state) = @_;
	is($state->{pid}, $pid, "$name: the same process");
	my %expected = %$clean;
	delete @expected{qw(settings session)} unless exists $state->{settings};
	is_deeply(plain($state), \%expected, "$name: the next job does not see it");
	ok(!$predicted{ $state->{random} }, "$name: nor can its random numbers be predicted");
	return;
}

# In a group, which others may end before it is complete: until that does not happen.
sub leave_in_group
{
	my ($name, $payload, $outcome) = @_;
	my $kind = $name =~ /temporary|ON COMMIT/ ? 'light' : 'full';

	foreach my $try (1 .. 30)
	{
		warm_up();
		my @ids = run_together([ 'act', '{}' ], [ 'act', $payload ], [ 'act', "{\"probe\": \"$kind\"}" ]);
		my @xacts = map { result($_)->{xact} // '' } @ids;
		like(counted_outcome($node, $ids[1]), $outcome, "$name: the job itself") if $try == 1;
		is_clean($name, result($ids[2])) if $try == 1;
		next if $xacts[0] ne $xacts[2] || $xacts[2] eq '';
		is_clean("$name (try $try)", result($ids[2])) if $try > 1;
		return 1;
	}
	return 0;
}

foreach my $left (@LEFT)
{
	my ($what, $statements, $only, $error) = @$left;
	my $good = defined $error ? qr/^failed\|1\|$error/ : qr/^succeeded\|1$/;
	my $list = statements(@$statements);

	foreach my $method ('act', 'act_p')
	{
		next if defined $only && $only ne $method;
		my ($left, $probe, $probe_p) = run_together([ $method, "{\"do\": $list, \"sleep\": 0}" ], [ 'act', '{"probe": 1}' ],
			[ 'act_p', '{"probe": 1}' ]);
		like(counted_outcome($node, $left), $good, "$what, $method: the job itself");
		is_clean("$what, $method", result($probe));
		is_clean("$what, $method, seen by a procedure", result($probe_p));

		($left, $probe) = run_together([ $method, "{\"do\": $list, \"fail\": 1}" ], [ 'act', '{"probe": 1}' ]);
		like(counted_outcome($node, $left), qr/^failed\|1\|/, "$what, $method that fails: the job itself");
		is_clean("$what, $method that fails", result($probe));
	}
	# What makes many objects takes longer than a group may.
	next if $what =~ /temporary|ON COMMIT/;
	if ($what eq 'SET CONSTRAINTS')
	{
		# It ends its group, on purpose.
		leave_in_group("$what, in a group", "{\"do\": $list}", $good);
		next;
	}
	ok(leave_in_group("$what, in a group", "{\"do\": $list}", $good), "$what: they were in a group");
	ok(leave_in_group("$what, fails in a group", "{\"do\": $list, \"fail\": 1}", qr/^failed\|1\|/),
		"$what: they were in a group, one of which failed");
}

# A setting of the role is what the next job finds, not the server's.
query($node, "ALTER ROLE postgres IN DATABASE postgres SET work_mem = '7MB'");
query($node, "SELECT pg_terminate_backend($pid)");
wait_for('the end of the worker', sub { !grep { $_ == $pid } worker_pids($node) });
handler($node, 'work_mem', q{CREATE FUNCTION work_mem(payload jsonb) RETURNS text LANGUAGE sql AS $$ SELECT current_setting('work_mem') $$});
foreach my $method ('act', 'act_p')
{
	my (undef, $id) = run_together([ $method, '{"do": ["SET work_mem = 99", "RESET work_mem"]}' ], [ 'work_mem', '{}' ]);
	is(ask($node, "SELECT result FROM qml_job('$id')"), '"7MB"', "$method: settings of the role hold again");
}
query($node, 'ALTER ROLE postgres IN DATABASE postgres RESET work_mem');

# ---- what functions remember of tables

handler($node, 'shape_of', <<'SQL');
CREATE FUNCTION shape_of(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	r shape%ROWTYPE;
BEGIN
	SELECT * INTO r FROM shape;
	RETURN to_jsonb(r);
END $$
SQL
handler($node, 'scratch', <<'SQL');
CREATE FUNCTION scratch(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	EXECUTE payload ->> 'make';
	INSERT INTO scratch DEFAULT VALUES;
	SELECT * INTO r FROM scratch;
	RETURN to_jsonb(r);
END $$
SQL
foreach my $round (1 .. 2)
{
	my (undef, $before, undef, $after) = run_together([ 'act', '{}' ], [ 'shape_of', '{}' ],
		[ 'act', "{\"do\": [\"ALTER TABLE shape ADD COLUMN c$round int DEFAULT $round\"]}" ], [ 'shape_of', '{}' ]);
	ok(!exists json(ask($node, "SELECT result FROM qml_job('$before')"))->{"c$round"}, 'a row as it was');
	is(json(ask($node, "SELECT result FROM qml_job('$after')"))->{"c$round"}, $round, 'a row as another job made it');

	my @scratch = run_together([ 'scratch', '{"make": "CREATE TEMP TABLE scratch (a int DEFAULT 5)"}' ],
		[ 'scratch', q|{"make": "CREATE TEMP TABLE scratch (b text DEFAULT 'x', a text DEFAULT 'y')"}| ]);
	is(join(' ', map { ask($node, "SELECT result FROM qml_job('$_')") } @scratch), '{"a": 5} {"a": "y", "b": "x"}',
		'temporary tables of one name in one job after the other');
}

# ---- what is committed by one is there for the next

{
	my (undef, $id) = run_together([ 'act', '{"do": ["CREATE TABLE made (a int)", "INSERT INTO made VALUES (4)"]}' ],
		[ 'act', '{"do": ["UPDATE made SET a = a + 1"]}' ]);
	is(ask($node, 'SELECT a FROM made'), 5, 'effects stay');
}

# ---- nobody hears what is said to a job that tried to listen

query($node, 'NOTIFY channel');
is(ask($node, 'SELECT pg_notification_queue_usage() < 0.001'), 't', 'nobody who listens holds back what is said');

# ---- memory

handler($node, 'plain', 'CREATE FUNCTION plain(payload jsonb) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$');
handler($node, 'traced', 'CREATE FUNCTION traced(payload jsonb) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$');
handler($node, 'fails', 'CREATE FUNCTION fails(payload jsonb) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION $m$no %$m$, payload; END $$');
handler($node, 'session', <<'SQL');
CREATE FUNCTION session(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('work_mem', '1MB', false), set_config('my.custom', 'x', false), pg_advisory_lock(3), nextval('seq');
	EXECUTE 'PREPARE left_over AS SELECT 1';
	EXECUTE 'DECLARE left_over CURSOR WITH HOLD FOR SELECT 1';
	RETURN payload;
END $$
SQL
handler($node, 'temp', <<'SQL');
CREATE FUNCTION temp(payload jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMP TABLE t (a int PRIMARY KEY, b text);
	INSERT INTO t SELECT i, 'x' FROM generate_series(1, 10) i;
	RETURN (SELECT count(*) FROM t x JOIN t y USING (a) WHERE x.b = 'x' AND y.a > 3);
END $$
SQL
handler($node, 'commits', <<'SQL');
CREATE PROCEDURE commits(payload jsonb) LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('seq'); COMMIT; PERFORM 1; END $$
SQL
handler($node, 'memory', <<'SQL');
CREATE FUNCTION memory(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('pid', pg_backend_pid(), 'used', sum(used_bytes), 'total', sum(total_bytes),
		'contexts', (SELECT jsonb_object_agg(name, used) FROM
			(SELECT name, sum(used_bytes) AS used FROM pg_backend_memory_contexts GROUP BY 1 ORDER BY 2 DESC LIMIT 8) s))
	FROM pg_backend_memory_contexts
$$
SQL

# Pages of the process that are its own, in bytes.
sub own_pages
{
	my ($process) = @_;
	my ($kilobytes) = slurp_file("/proc/$process/status") =~ /^RssAnon:\s+(\d+) kB/m;
	return $kilobytes * 1024;
}

sub memory
{
	my $id;
	# Twice: the first one has to learn how.
	($id) = run_together([ 'memory', '{}' ]) for 1 .. 2;
	my $memory = json(ask($node, "SELECT result FROM qml_job('$id')"));
	return { %$memory, rss => own_pages($memory->{pid}) };
}

sub run_many
{
	my ($method, $count) = @_;
	ask($node, q{SELECT qml_register_middleware('tracing', 'qml_tracing')}) if $method eq 'traced';
	ask($node, "SELECT count(qml_enqueue('$method', max_retries => 0)) FROM generate_series(1, $count)");
	settle($node, $method);
	ask($node, q{SELECT qml_unregister_middleware('tracing')}) if $method eq 'traced';
	return;
}

# A leak of so many bytes a job is found, in each kind of jobs.
my $LEAK = 100;
my %JOBS = (plain => 60_000, traced => 8_000, fails => 20_000, session => 12_000, temp => 3_000, commits => 5_000);
run_many($_, 1_500) foreach sort keys %JOBS;
my $start = memory();
my $all = 0;
foreach my $method (sort keys %JOBS)
{
	my $before = memory();
	my $began = time;
	run_many($method, $JOBS{$method});
	my $after = memory();
	my $grown = ($after->{used} - $before->{used}) / $JOBS{$method};

	$all += $JOBS{$method};
	note(sprintf '%s: %d jobs in %.1f s, %.2f bytes a job', $method, $JOBS{$method}, time - $began, $grown);
	cmp_ok($grown, '<', $LEAK, "$method: memory does not grow")
	  or diag(explain($before->{contexts}, $after->{contexts}));
}
my $end = memory();
is($end->{pid}, $start->{pid}, 'all by one process');
cmp_ok($all, '>=', 100_000, 'all those jobs');
cmp_ok($end->{used} - $start->{used}, '<', $LEAK * $all, 'what is in use does not grow');
cmp_ok($end->{rss} - $start->{rss}, '<', $LEAK * $all, sprintf 'nor does the process (%.1f MB at first, %.1f MB more)',
	$start->{rss} / 2**20, ($end->{rss} - $start->{rss}) / 2**20);
is(ask($node, "SELECT count(*) FROM qml.job WHERE method IN ('plain', 'traced', 'session', 'temp', 'commits') AND state <> 'succeeded'"), 0,
	'all succeeded that should');
is(ask($node, "SELECT count(*) FROM qml.job WHERE method = 'fails' AND state <> 'failed'"), 0, 'and no other');

run_log_clean($node, 'no process crashed');
end_sessions($node);
done_testing();
