# Workers that are ended in all ways, in the middle of handlers: each job that
# succeeded had its effect once, no other had any, and nothing waits for long.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = background_node('death', conf => <<'CONF');
wal_level = replica
max_wal_senders = 2
qml.workers = 2
qml.shutdown_timeout = 2
max_worker_processes = 20
CONF
wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE TABLE ledger (job uuid, attempt int);
SELECT qml_create_queue('fast', '{"retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}');
CREATE ROLE owner LOGIN;
CREATE DATABASE guest OWNER owner;
SQL
query($node, 'CREATE EXTENSION qml', 'guest');
wait_for_process($node, 'scheduler', 'guest');
handler($node, 'work', <<'SQL');
CREATE FUNCTION work(job qml.job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger VALUES ((job).id, (job).attempt);
	PERFORM pg_sleep(coalesce(((job).payload ->> 'sleep')::float8, 0));
END $$
SQL

# The effects of all jobs that are finished.
sub effects_once
{
	my ($name) = @_;
	is(query($node, <<'SQL'), '0', "$name: each success has its effect once, nothing else has any");
SELECT count(*) FROM (SELECT job, count(*) FROM ledger GROUP BY 1) l (id, count)
FULL JOIN (SELECT id, state FROM qml.job WHERE method = 'work') j USING (id)
WHERE (j.state = 'succeeded') IS DISTINCT FROM (l.count IS NOT DISTINCT FROM 1)
	AND (j.state = 'succeeded' OR l.count IS NOT NULL)
SQL
	return;
}

# The pid of the worker that runs the job.
sub runner
{
	my ($id, $dbname) = @_;
	my $pid;
	wait_for("job $id to run",
		sub { ($pid) = worker_pids($node, "query LIKE '%$id' AND wait_event = 'PgSleep'"); return defined $pid });
	return $pid;
}

sub seconds_until_retried
{
	my ($id, $attempt) = @_;
	return seconds_until("attempt $attempt",
		sub { (try_query($node, "SELECT attempt >= $attempt FROM qml_job('$id')") // '') eq 't' });
}

# ---- a worker that is terminated

foreach my $round (1 .. 5)
{
	my $id = enqueue($node, 'work', '{"sleep": 1}');
	my $waiting = enqueue($node, 'work');
	my $pid = runner($id);
	query($node, "SELECT pg_terminate_backend($pid)");
	my $seconds = seconds_until_retried($id, 2);
	cmp_ok($seconds, '<=', 1.5, sprintf 'a worker is terminated: its job runs again (%.2f s)', $seconds);
	is(outcome_of($node, $id), 'succeeded|2|session_gone|session is gone', 'the attempt was counted');
	like(outcome_of($node, $waiting), qr/^succeeded\|1/, 'another job is undisturbed');
}
effects_once('pg_terminate_backend');
handler($node, 'suicide',
	'CREATE FUNCTION suicide(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT pg_terminate_backend(pg_backend_pid()) $$');
is(run($node, 'suicide', '{}', 'max_retries => 2'), 'failed|3|session_gone|session is gone', 'a job that terminates its worker ends as failed');

# Terminated between jobs, too, while there are many.
query($node, "SELECT qml_pause_queue('fast')");
query($node, "SELECT qml_enqueue('work', queue => 'fast', max_retries => 50) FROM generate_series(1, 3000)");
query($node, "SELECT qml_resume_queue('fast')");
query($node, "SELECT qml_enqueue('work', queue => 'fast')");
foreach my $round (1 .. 15)
{
	query($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'qml worker'");
	sleep 0.05;
}
{
	my $seconds = seconds_until('all jobs to be done', sub { query($node, "SELECT count(*) FROM qml.live WHERE method = 'work'") == 0 });
	cmp_ok($seconds, '<=', 20, sprintf 'workers terminated over and over: all is done (%.1f s)', $seconds);
	is(query($node, "SELECT count(*) FROM qml.job WHERE method = 'work' AND state <> 'succeeded'"), 0, 'and succeeds');
}
effects_once('terminated over and over');

# ---- a worker that is killed

end_sessions($node);
foreach my $round (1 .. 5)
{
	my $id = enqueue($node, 'work', '{"sleep": 1}');
	my $pid = runner($id);
	end_sessions($node);
	kill 'KILL', $pid;
	# The postmaster hears of it before it lets the process go.
	wait_for('the crash', sub { !-e "/proc/$pid" && defined try_query($node, "SELECT state FROM qml_job('$id')") });
	my $seconds = seconds_until_retried($id, 2);
	cmp_ok($seconds, '<=', 2, sprintf 'a worker is killed: its job runs again (%.2f s after the restart)', $seconds);
	like(outcome_of($node, $id), qr/^succeeded\|2/, 'the attempt was counted');
	end_sessions($node);
}
effects_once('SIGKILL of a worker');

# ---- the whole server

foreach my $round (1 .. 3)
{
	my $id = enqueue($node, 'work', '{"sleep": 1}');
	runner($id);
	kill_server($node);
	start_again($node);
	like(outcome_of($node, $id), qr/^succeeded\|2/, 'the server is killed: the job runs again');
	end_sessions($node);
}
effects_once('SIGKILL of the server');

foreach my $mode ('fast', 'smart')
{
	my $short = enqueue($node, 'work', '{"sleep": 1}');
	my $long = enqueue($node, 'work', '{"sleep": 6}');
	my $waiting = enqueue($node, 'work', '{"sleep": 0.1}');
	runner($short);
	runner($long);
	end_sessions($node);
	my $start = time;
	$node->stop($mode);
	my $seconds = time - $start;
	cmp_ok($seconds, '<=', 5, sprintf '%s shutdown waits for no longer than it should (%.1f s)', $mode, $seconds);
	$node->start;
	like(outcome_of($node, $short), qr/^succeeded\|1$/, "$mode shutdown: a job that ends in time has ended");
	like(outcome_of($node, $waiting), qr/^succeeded\|[12]$/, 'one that had not begun runs later');
	my $outcome = outcome_of($node, $long);
	like($outcome, qr/^succeeded\|2$/, 'one that is too long was given back, and runs again');
	is(query($node, "SELECT attempt - coalesce(uncounted, 0) FROM qml.history WHERE id = '$long'"), 1, 'without that the attempt counts');
	end_sessions($node);
}
effects_once('shutdown');

# What a job uses that the server ends with itself.
{
	my $marker = "$PostgreSQL::Test::Utils::tmp_check/program_runs";
	handler($node, 'program', <<"SQL");
CREATE FUNCTION program(payload jsonb) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	CREATE TEMP TABLE t (a int);
	COPY t FROM PROGRAM 'touch $marker; sleep 3; echo 1';
	DROP TABLE t;
END \$\$
SQL
	my $id = enqueue($node, 'program', '{}', 'max_retries => 0');
	wait_for('the program to run', sub { -e $marker });
	end_sessions($node);
	$node->stop('fast');
	$node->start;
	outcome_of($node, $id);
	is(counted_outcome($node, $id), 'succeeded|1', 'a job whose program was ended by the shutdown is given back');
	end_sessions($node);
}
# What a job does elsewhere is committed there shortly before it is here.
{
	my $far = new_node('far', bare => 1);
	my ($host, $port, $me) = ($far->host, $far->port, query($far, 'SELECT current_user'));
	query($far, 'CREATE TABLE effects (what text)');
	query($node, <<"SQL");
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user '$me', password_required 'false');
CREATE FOREIGN TABLE effects (what text) SERVER far;
SQL
	handler($node, 'sends', <<'SQL');
CREATE FUNCTION sends(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO effects VALUES ('sent');
	PERFORM pg_sleep(1);
END $$
SQL
	my $id = enqueue($node, 'sends', '{}', 'max_retries => 0');
	runner($id);
	end_sessions($node);
	$node->stop('fast');
	is(query($far, 'SELECT count(*) FROM effects'), 1, 'a job that ends while the server goes down has its effects elsewhere');
	$node->start;
	is(outcome_of($node, $id), 'succeeded|1', 'and here');
	end_sessions($node);
	$far->stop;
}
# A commit that waits for a standby.
{
	query($node, q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
	$node->reload;
	wait_for('the setting', sub { query($node, 'SHOW synchronous_standby_names') eq 'nobody' });
	my $id = query($node, q{SET synchronous_commit = local; SELECT qml_enqueue('work')});
	wait_for('a worker to wait for the standby', sub { worker_pids($node, "wait_event = 'SyncRep'") > 0 });
	end_sessions($node);
	my $start = time;
	$node->stop('fast');
	my $seconds = time - $start;
	cmp_ok($seconds, '<=', 5, sprintf 'a commit that waits for a standby does not hold up the end of the server (%.1f s)', $seconds);
	$node->append_conf('postgresql.auto.conf', q{synchronous_standby_names = ''});
	$node->start;
	like(outcome_of($node, $id), qr/^succeeded/, 'and the job runs');
	end_sessions($node);
}
effects_once('what ends with the server');

# A worker that ends after its claim is committed, and before the job begins.
{
	my $id = enqueue($node, 'work');
	like(outcome_of($node, $id), qr/^succeeded/, 'there is a worker');
	query($node, q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
	$node->reload;
	wait_for('the setting', sub { query($node, 'SHOW synchronous_standby_names') eq 'nobody' });
	$id = query($node, q{SET synchronous_commit = local; SELECT qml_enqueue('work', max_retries => 0)});
	my $pid;
	wait_for('the claim to wait for the standby',
		sub { ($pid) = worker_pids($node, "wait_event = 'SyncRep' AND query = 'claiming jobs'"); return defined $pid });
	query($node, "SELECT pg_terminate_backend($pid)");
	wait_for('the worker to end', sub { !grep { $_ == $pid } worker_pids($node) });
	is(query($node, "SELECT state, attempt FROM qml.job WHERE id = '$id'"), 'processing|1', 'it was claimed');
	query($node, q{SET synchronous_commit = local; ALTER SYSTEM RESET synchronous_standby_names});
	$node->reload;
	is(outcome_of($node, $id), 'succeeded|2', 'a worker ends between a claim and the job: the attempt is not counted');
}

# One that nothing stops, in a group, and the others of it.
{
	handler($node, 'grouped', <<'SQL');
CREATE FUNCTION grouped(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF payload ? 'loop' AND NOT EXISTS (SELECT FROM loops) THEN
		LOOP
			BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
		END LOOP;
	END IF;
END $$
SQL
	query($node, 'CREATE TABLE loops (ended boolean)');
	query($node, q{SELECT count(*) FROM qml_enqueue_many('grouped', array_fill('{}'::jsonb, ARRAY[400]))});
	settle($node, 'grouped');
	query($node, q{SELECT qml_enqueue('grouped', (CASE i WHEN 5 THEN '{"loop": 1}' ELSE '{}' END)::jsonb) FROM generate_series(1, 30) i});
	wait_for('it to loop', sub { worker_pids($node, "wait_event = 'PgSleep'") > 0 });
	query($node, 'INSERT INTO loops VALUES (true)');
	end_sessions($node);
	my $start = time;
	$node->stop('fast');
	my $seconds = time - $start;
	cmp_ok($seconds, '<=', 12, sprintf 'a job of a group that goes on whatever it is told does not hold up the end of the server (%.1f s)', $seconds);
	$node->start;
	settle($node, 'grouped');
	is(query($node, q{SELECT count(*) FROM qml.job WHERE method = 'grouped' AND state <> 'succeeded'}), 0, 'and all succeed later');
	end_sessions($node);
}

# ---- a handler that takes the server down

handler($node, 'crash', <<'SQL');
CREATE FUNCTION crash(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMP TABLE t (a text);
	EXECUTE format('COPY t FROM PROGRAM %L', 'kill -9 ' || pg_backend_pid());
	PERFORM pg_sleep(10);
END $$
SQL
{
	# Neighbours that are claimed together with it.
	query($node, "SELECT qml_pause_queue('default')");
	query($node, "INSERT INTO ledger SELECT NULL, NULL WHERE false; CREATE TABLE ids (n int, id uuid)");
	query($node, <<'SQL');
INSERT INTO ids SELECT i, qml_enqueue(CASE i WHEN 40 THEN 'crash' ELSE 'work' END,
	max_retries => CASE i WHEN 40 THEN 20 ELSE 1 END)
FROM generate_series(1, 100) i
SQL
	my $crash = query($node, 'SELECT id FROM ids WHERE n = 40');
	my $last = '';
	end_sessions($node);
	# May be cut off by the first crash.
	try_query($node, "SELECT qml_resume_queue('default'); SELECT qml_enqueue('work', queue => 'fast')");
	wait_for('the end of it',
		sub {
			$last = try_query($node, "SELECT concat_ws('|', state, attempt, error) FROM qml_job('$crash')") // $last;
			return $last =~ /^failed/;
		});
	like($last, qr{^failed\|\d\|server went down under each of several attempts$}, 'a job that crashes the server thrice ends as failed');
	# The last crash is over when its end is known, but look.
	wait_for('the others', sub { (try_query($node, "SELECT count(*) FROM qml.live WHERE method = 'work'") // '') eq '0' });
	is(query($node, "SELECT count(*) FROM ids JOIN qml.job j USING (id) WHERE n <> 40 AND state <> 'succeeded'"), 0,
		'its neighbours, which were claimed with it and not begun, all succeed');
}
effects_once('crashes');

# ---- the database

query($node, 'CREATE FUNCTION nap(seconds float8) RETURNS void LANGUAGE sql AS $$ SELECT pg_sleep(seconds) $$; SELECT qml_register_handler($$nap$$, $$nap$$)', 'guest');
{
	my $id = query($node, q{SELECT qml_enqueue('nap', '{"seconds": 0}')}, 'guest');
	wait_for('the job', sub { query($node, "SELECT state FROM qml_job('$id')", 'guest') eq 'succeeded' });
	cmp_ok(scalar(my @there = worker_pids($node, "datname = 'guest'")), '>=', 1, 'a worker is in the database');
	my $seconds = seconds_until('renaming',
		sub { ($node->psql('postgres', 'ALTER DATABASE guest RENAME TO visitor', extra_params => [ '-U', 'owner' ]))[2] !~ /permission|syntax/
			&& query($node, "SELECT count(*) FROM pg_database WHERE datname = 'visitor'") == 1 })
	  if query($node, 'ALTER ROLE owner CREATEDB; SELECT 1');
	cmp_ok($seconds, '<=', 5, sprintf 'its owner renames it under an idle worker (%.1f s)', $seconds);
	$id = query($node, q{SELECT qml_enqueue('nap', '{"seconds": 15}')}, 'visitor');
	wait_for('the job to run', sub { worker_pids($node, "query LIKE '%$id' AND wait_event = 'PgSleep'") });
	my ($rc, undef, $stderr) = $node->psql('postgres', 'DROP DATABASE visitor');
	like($stderr, qr/being accessed by other users/, 'a busy worker lets nobody drop it');
	is(outcome_of($node, $id, 'visitor'), 'succeeded|1', 'and its job ends well');
	end_sessions($node);
	$id = query($node, q{SELECT qml_enqueue('nap', '{"seconds": 60}')}, 'visitor');
	wait_for('the job to run', sub { worker_pids($node, "query LIKE '%$id' AND wait_event = 'PgSleep'") });
	query($node, 'DROP DATABASE visitor WITH (FORCE)');
	pass('but by force');
	ok(query($node, 'SELECT 1'), 'the server goes on');
}

# ---- a standby

$node->append_conf('postgresql.conf', "wal_level = replica\nmax_wal_senders = 5");
end_sessions($node);
$node->restart;
$node->backup('b');
my $standby = node_of_backup('sleeper', $node, 'b', has_streaming => 1);
$standby->start;
my $job = enqueue($node, 'work');
like(outcome_of($node, $job), qr/^succeeded/, 'the primary works');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'qml (worker|scheduler)'"), 0,
	'no worker on a standby');
$standby->stop;

end_sessions($node);
done_testing();
