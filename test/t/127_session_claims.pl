# A claim with a lease of 0 ends with what made it: the session, however that ends and
# whether qml is preloaded or not; the job, if its handler made it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

# ---- without shared memory: by pid and start

my $node = new_node('session_claims');

# A job that a new session holds; both.
sub hold
{
	my ($queue) = @_;
	query($node, "SELECT qml_enqueue('outside', queue => '$queue', max_retries => 9)");
	my $session = new_session($node);
	my $id = $session->query_safe("SELECT id FROM qml_fetch('w', '{$queue}', lease => '0')");
	isnt($id, '', "a session holds a job of $queue");
	return ($session, $id);
}

sub state_of
{
	my ($id) = @_;
	return query($node, "SELECT concat_ws('|', state, attempt, errors -> -1 ->> 'error_type') FROM qml_job('$id')");
}

# Calls qml_reclaim() until it has reclaimed the job: the session may take a moment to end.
sub wait_reclaimed
{
	my ($id) = @_;
	wait_for('the job to be reclaimed',
		sub { query($node, 'SELECT qml_reclaim()'); return state_of($id) !~ /^processing/ });
	return state_of($id);
}

{
	my ($session, $id) = hold('quits');
	is(query($node, 'SELECT qml_reclaim()'), 0, 'not while the session lives');
	is(query($node, "SELECT qml_maintain() ->> 'reclaimed'"), 0, 'nor by qml_maintain');
	$session->query_safe('DISCARD ALL; SELECT pg_advisory_unlock_all()');
	$session->query_safe('BEGIN; SELECT 1; ROLLBACK');
	is(query($node, 'SELECT qml_reclaim()'), 0, 'whatever the session resets or rolls back');
	$session->quit;
	is(wait_reclaimed($id), 'enqueued|1|session_gone', 'when it has ended');
}
{
	my ($session, $id) = hold('terminated');
	query($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%{terminated}%' AND pid <> pg_backend_pid()");
	is(wait_reclaimed($id), 'enqueued|1|session_gone', 'when it was terminated');
	eval { $session->{run}->kill_kill };
}
{
	my ($session, $id) = hold('crashes');
	my $pid = query($node, "SELECT pid FROM pg_stat_activity WHERE query LIKE '%{crashes}%' AND pid <> pg_backend_pid()");
	my $offset = -s $node->logfile;
	kill 'KILL', $pid;
	wait_for('the server to be back',
		sub { slurp_file($node->logfile, $offset) =~ /database system is ready to accept connections/ });
	is(wait_reclaimed($id), 'enqueued|1|session_gone', 'when it crashed');
	eval { $session->{run}->kill_kill };
}
{
	my ($session, $id) = hold('restarts');
	$node->stop('immediate');
	eval { $session->{run}->kill_kill };
	$node->start;
	is(wait_reclaimed($id), 'enqueued|1|server_down', 'when the server has started again');
}
{
	# What the transaction has seen of sessions is older than the session.
	my $old = new_session($node);
	$old->query_safe('BEGIN; SELECT count(*) FROM pg_stat_activity');
	my ($session, $id) = hold('younger');
	is($old->query_safe('SELECT qml_reclaim()'), 0, 'not one that began since the transaction has looked');
	is(state_of($id), 'processing|1', 'it holds its job');
	$old->quit;
	$session->quit;
}

# ---- the setting changes

{
	my ($without, $id) = hold('before');
	$node->stop('fast');
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'qml'");
	$node->start;
	eval { $without->{run}->kill_kill };
	is(wait_reclaimed($id), 'enqueued|1|server_down', 'a claim of before, with qml preloaded since');

	my ($with, $other) = hold('after');
	$node->stop('fast');
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$node->start;
	eval { $with->{run}->kill_kill };
	# The scheduler may see the session end before it ends itself.
	like(wait_reclaimed($other), qr/^enqueued\|1\|(server_down|session_gone)$/, 'and the other way round');
}
$node->stop('fast');

# ---- claims that handlers make

$node = background_node('handler_claims');
query($node, "SELECT qml_create_queue('inner', '{\"max_retries\": 9}')");

handler($node, 'takes', <<'SQL');
CREATE FUNCTION takes(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	held uuid;
	attempt int;
BEGIN
	SELECT j.id, j.attempt INTO held, attempt FROM qml_fetch('inner', '{inner}', lease => '0') j;
	CASE payload ->> 'do'
		WHEN 'succeed' THEN PERFORM qml_succeed(held, attempt);
		WHEN 'raise' THEN RAISE 'no';
		WHEN 'later' THEN PERFORM qml_retry_later('1 h');
		WHEN 'sleep' THEN PERFORM pg_sleep(1000);
		ELSE NULL;
	END CASE;
	RETURN to_jsonb(held);
END $$
SQL
handler($node, 'commits', <<'SQL');
CREATE PROCEDURE commits(payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM qml_fetch('inner', '{inner}', lease => '0');
	COMMIT;
	IF (SELECT state FROM qml.job WHERE queue = 'inner' AND state = 'processing') IS NULL THEN
		RAISE 'it does not hold the job while it runs';
	END IF;
	PERFORM qml_reclaim();
	IF (SELECT state FROM qml.job WHERE queue = 'inner' AND state = 'processing') IS NULL THEN
		RAISE 'it lost the job while it runs';
	END IF;
	COMMIT;
	CASE payload ->> 'do'
		WHEN 'raise' THEN RAISE 'no';
		WHEN 'sleep' THEN PERFORM pg_sleep(1000);
		WHEN 'die' THEN PERFORM pg_terminate_backend(pg_backend_pid());
		ELSE NULL;
	END CASE;
END $$
SQL

# A job for the queue that handlers take from; its id.
sub inner
{
	return query($node, "SELECT qml_enqueue('m', queue => 'inner')");
}

sub worker_pid
{
	return query($node, "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'qml worker'");
}

sub inner_becomes
{
	my ($id, $outcome, $name) = @_;
	my $now = '';
	eval {
		wait_for($name, sub { ($now = outcome($node, $id)) eq $outcome });
		1;
	};
	is($now, $outcome, $name);
	query($node, "SELECT qml_delete('$id')");
	return;
}

my $LOST = 'enqueued|1|session_gone|the job that fetched it has ended';
my $pid;
foreach my $case (
	[ 'takes', '{}', '', 'succeeded|1', $LOST, 'a function that leaves it' ],
	[ 'takes', '{"do": "succeed"}', '', 'succeeded|1', 'succeeded|1', 'a function that finishes it' ],
	[ 'takes', '{"do": "raise"}', '', 'failed|1|P0001|no', 'enqueued|0', 'a function that fails: it was never claimed' ],
	[ 'takes', '{"do": "later"}', '', 'awaiting_retry|1', $LOST, 'a function that wants to run later' ],
	[ 'takes', '{"do": "sleep"}', q{, timeout => '0.3 s'}, 'failed|1|timeout|job exceeded its timeout of 300 ms', 'enqueued|0', 'a function that is canceled' ],
	[ 'commits', '{}', '', 'succeeded|1', $LOST, 'a procedure that leaves it' ],
	[ 'commits', '{"do": "raise"}', '', 'failed|1|P0001|no', $LOST, 'a procedure that fails after it has committed' ],
	[ 'commits', '{"do": "sleep"}', q{, timeout => '0.5 s'}, 'failed|1|timeout|job exceeded its timeout of 500 ms', $LOST, 'a procedure that is canceled' ])
{
	my ($method, $payload, $more, $outer, $inner, $name) = @$case;
	my $id = inner();
	my $outer_id = query($node, "SELECT qml_enqueue('$method', '$payload', max_retries => 0$more)");
	$outer = outcome_like($outer, $outer_id, "$name: it ends as it would");
	inner_becomes($id, $inner, "$name: the job");
	$pid //= worker_pid();
	is(worker_pid(), $pid, "$name: the worker goes on");
}

sub outcome_like
{
	my ($outcome, $id, $name) = @_;
	my ($state) = split /\|/, $outcome;
	wait_for($name, sub { outcome($node, $id) =~ /^\Q$state\E/ });
	like(outcome($node, $id), qr/^\Q${\ join('|', (split(m{\|}, $outcome))[0, 1]) }\E/, $name);
	return;
}

# In a group, in which one transaction has many jobs.
query($node, q{SELECT qml_register_handler('grouped', 'takes')});
query($node, q{SELECT count(*) FROM qml_enqueue_many('grouped', array_fill('{}'::jsonb, ARRAY[100]))});
settle($node, 'grouped');
{
	my @ids = map { inner() } 1 .. 30;
	query($node, q{SELECT count(*) FROM qml_enqueue_many('grouped', array_fill('{}'::jsonb, ARRAY[30]))});
	settle($node, 'grouped');
	# What is given back at once may be taken by the next of them.
	wait_for('what jobs in groups have taken to be reclaimed',
		sub { query($node, <<'SQL') eq '30 enqueued' });
SELECT sum(jsonb_array_length(errors)) || ' ' || string_agg(DISTINCT state::text, ' ')
FROM qml.job WHERE queue = 'inner' AND state <> 'deleted'
SQL
	is( query($node, <<'SQL'), '30|the job that fetched it has ended', 'jobs in groups: what each of them took is given back');
SELECT sum(attempt), string_agg(DISTINCT e ->> 'error', ' ')
FROM qml.job LEFT JOIN jsonb_array_elements(errors) WITH ORDINALITY e (e, n) ON n = 1
WHERE queue = 'inner' AND state = 'enqueued'
SQL
	query($node, "SELECT count(qml_delete(id)) FROM qml.job WHERE queue = 'inner'");
}

# The worker dies with it.
{
	my $id = inner();
	query($node, q{SELECT qml_enqueue('commits', '{"do": "die"}', max_retries => 0)});
	wait_for('the job to be reclaimed', sub { outcome($node, $id) =~ /^enqueued\|1\|session_gone/ });
	pass('a worker that dies: the job is given back');
	query($node, "SELECT qml_delete('$id')");
}

# ---- a job that its group could not wait for: one attempt, which does not count, and no error

query($node, 'CREATE TABLE may_end (yes boolean)');
handler($node, 'stubborn', <<'SQL');
CREATE FUNCTION stubborn(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE payload ? 'loop' AND NOT EXISTS (SELECT FROM may_end) LOOP
		BEGIN PERFORM pg_sleep(0.05); EXCEPTION WHEN query_canceled THEN NULL; END;
	END LOOP;
END $$
SQL
# On a busy machine its jobs may not be short enough for a group; then it runs alone at once.
my ($stubborn, $grouped);
foreach my $round (1 .. 20)
{
	query($node, 'TRUNCATE may_end');
	query($node, q{SELECT count(*) FROM qml_enqueue_many('stubborn', array_fill('{}'::jsonb, ARRAY[400]))});
	settle($node, 'stubborn');
	query($node, <<"SQL");
SELECT qml_enqueue('stubborn', (CASE i WHEN 5 THEN '{"loop": $round}' ELSE '{}' END)::jsonb, max_retries => 0)
FROM generate_series(1, 30) i
SQL
	$stubborn = query($node, qq{SELECT id FROM qml.job WHERE payload = '{"loop": $round}'});
	wait_for(
		'it to run alone',
		sub {
			query($node, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'running stubborn, job $stubborn'") > 0;
		});
	$grouped = query($node, "SELECT attempt FROM qml_job('$stubborn')") == 2;
	last if $grouped;
	query($node, 'INSERT INTO may_end VALUES (true)');
	settle($node, 'stubborn');
}
ok($grouped, 'its group did not wait for it');
is(query($node, "SELECT uncounted FROM qml.live WHERE id = '$stubborn'"), 1, 'the attempt that its group ended does not count');
query($node, 'INSERT INTO may_end VALUES (true)');
settle($node, 'stubborn');
is(outcome($node, $stubborn), 'succeeded|2', 'and has left no error; alone it comes to its end');

# ---- a hook of a background process has no session to bind a job to

query($node, <<'SQL');
CREATE FUNCTION fetches(job qml.job, old_state qml.job_state, new_state qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF job.method = 'hooked' THEN
		PERFORM public.qml_fetch('inner', '{inner}', lease => '0');
	END IF;
END $$;
REVOKE EXECUTE ON FUNCTION fetches FROM PUBLIC;
SELECT qml_register_hook('fetches', 'fetches', '{enqueued}');
SQL
{
	my $id = inner();
	my $offset = -s $node->logfile;
	query($node, "SELECT qml_enqueue('hooked', queue => 'other', run_at => now() + interval '0.2 s')");
	wait_for('the hook to fail',
		sub { slurp_file($node->logfile, $offset) =~ /cannot be bound to the session of a background process/
			|| query($node, q{SELECT last_error FROM qml.hook WHERE name = 'fetches'}) =~ /cannot be bound to the session of a background process/ });
	is(outcome($node, $id), 'enqueued|0', 'a hook of the scheduler cannot bind a job to it');
}

run_log_clean($node, 'no process crashed');
end_sessions($node);
done_testing();
