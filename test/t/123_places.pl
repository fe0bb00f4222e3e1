# Workers that have something in hand: a place, a claim, a lock.  Nobody waits for what
# is not needed any more, and nothing that was not begun is lost.

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

# What nobody is told of is looked for after a minute.
my $SOON = 10;

my $node = background_node('places', conf => <<'CONF');
qml.workers = 4
qml.shutdown_timeout = 2
qml.worker_idle_timeout = '1 h'
max_worker_processes = 20
CONF
my $blocker = new_session($node);

wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE ROLE ann LOGIN;
CREATE ROLE bob LOGIN;
GRANT CREATE ON SCHEMA public TO ann, bob;
SELECT qml_create_queue('a');
SELECT qml_create_queue('b');
SQL
handler($node, 'short', 'CREATE FUNCTION short(payload jsonb) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$');
# Runs until the test lets it go.
my $HOLDS = <<'SQL';
(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_xact_lock_shared((payload ->> 'lock')::int) $$
SQL
handler($node, 'holds', "CREATE FUNCTION holds$HOLDS");
handler($node, 'limited', "CREATE FUNCTION limited$HOLDS", options => '{"concurrency": 1}');
handler($node, 'shows', <<'SQL');
CREATE FUNCTION shows(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 600 LOOP
		PERFORM qml_progress(to_jsonb(i)), pg_sleep(0.1);
		EXIT WHEN pg_try_advisory_xact_lock_shared(1);
	END LOOP;
END $$
SQL
query($node, q{SELECT qml_register_handler('of_ann', 'holds', '{"run_as": "ann"}'), qml_register_handler('of_bob', 'holds', '{"run_as": "bob"}')});

# The end of a job, if it comes soon.
sub ends_soon
{
	my ($id, $expected, $name) = @_;
	my $start = time;
	like(outcome_of($node, $id), $expected, $name);
	my $seconds = time - $start;
	cmp_ok($seconds, '<=', $SOON, sprintf '%s, soon (%.1f s)', $name, $seconds);
	return;
}

# No workers, and then as many as that may be.
sub restart_workers
{
	my ($count) = @_;
	set_config($node, 'qml.workers' => 0);
	wait_for('the workers to leave', sub { worker_pids($node) == 0 });
	set_config($node, 'qml.workers' => $count);
	return;
}

# ---- one commit makes jobs ready in two queues

foreach my $round ('a worker that sleeps', 'one that has just worked')
{
	restart_workers(4);
	is(run($node, 'short'), 'succeeded|1', 'a worker is there');
	wait_idle($node) if $round =~ /sleeps/;
	$blocker->query_safe('SELECT pg_advisory_lock(1)');
	query($node, q{SELECT qml_enqueue('holds', '{"lock": 1}', queue => q) FROM unnest('{a,b,default}'::text[]) q});
	my $seconds = seconds_until('all of them to run', sub { worker_pids($node, "wait_event = 'advisory'") == 3 });
	cmp_ok($seconds, '<=', $SOON, sprintf '%s: none waits behind another (%.1f s)', $round, $seconds);
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
	settle($node, 'holds');
}

# ---- a place of a limited method is not kept without a job

{
	restart_workers(4);
	$blocker->query_safe('SELECT pg_advisory_lock(1)');
	query($node, q{SELECT qml_pause_queue('a')});
	my $first = enqueue($node, 'limited', '{"lock": 2}', q{queue => 'a'});
	my $long = enqueue($node, 'holds', '{"lock": 1}', q{queue => 'a'});
	my $session = new_session($node);
	$session->query_safe("BEGIN; SELECT qml_delete('$first')");
	query($node, q{SELECT qml_resume_queue('a')});
	wait_held($node, 1);
	like(outcome($node, $long), qr/^processing/, 'a worker passes over what is being deleted, and goes on to a long job');
	$session->query_safe('COMMIT');
	$session->quit;
	ends_soon(enqueue($node, 'limited', '{"lock": 2}', q{queue => 'a'}), qr/^succeeded\|1/, 'the next job of the method has its place');
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
	settle($node, 'holds');
}

# ---- nor is it kept by a worker that is no more

{
	restart_workers(2);
	$blocker->query_safe('SELECT pg_advisory_lock(1)');
	my $held = enqueue($node, 'limited', '{"lock": 1}', 'max_retries => 0');
	wait_held($node, 1);
	is(run($node, 'short'), 'succeeded|1', 'a second worker is there');
	my $next = enqueue($node, 'limited', '{"lock": 2}');
	my ($pid) = worker_pids($node, "wait_event = 'advisory'");
	query($node, "SELECT pg_terminate_backend($pid)");
	ends_soon($next, qr/^succeeded\|1/, 'the next job of the method has the place of one whose worker was terminated');
	like(outcome_of($node, $held), qr/^failed\|1\|session_gone/, 'whose job has failed');
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
}

# ---- what nobody can have is not asked for all the time

# How many transactions there are in some seconds.
sub transactions
{
	my $count = q{SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'};
	my $before = query($node, $count, 'template1');
	query($node, 'SELECT pg_sleep(3)', 'template1');
	return query($node, $count, 'template1') - $before;
}

{
	restart_workers(4);
	$blocker->query_safe('SELECT pg_advisory_lock(1)');
	query($node, q{SELECT qml_enqueue('holds', '{"lock": 1}') FROM generate_series(1, 3)});
	wait_held($node, 3);
	is(run($node, 'short'), 'succeeded|1', 'and a fourth worker');
	query($node, q{SELECT qml_pause_queue('a')});
	my $id = enqueue($node, 'limited', '{"lock": 2}', q{queue => 'a'});
	query($node, "BEGIN; SELECT qml_delete('$id'); PREPARE TRANSACTION 'p'; SELECT qml_resume_queue('a')");
	end_sessions($node);
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
	settle($node, 'holds');
	end_sessions($node);
	my $transactions = transactions();
	cmp_ok($transactions, '<=', 150, "a limited job that somebody deletes and does not commit ($transactions transactions)");
	query($node, q{ROLLBACK PREPARED 'p'});
	ends_soon($id, qr/^succeeded\|1/, 'it runs when it can');
}

# ---- a role whose workers are busy gets the place of one that is idle

{
	restart_workers(2);
	$blocker->query_safe('SELECT pg_advisory_lock(1)');
	like(run($node, 'of_bob', '{"lock": 2}'), qr/^succeeded/, 'bob has a worker');
	my $long = enqueue($node, 'of_ann', '{"lock": 1}');
	wait_held($node, 1);
	ends_soon(enqueue($node, 'of_ann', '{"lock": 2}'), qr/^succeeded/, 'ann gets a second one');
	ends_soon(enqueue($node, 'of_bob', '{"lock": 2}'), qr/^succeeded/, 'and bob one again');

	# All places are taken, and one becomes free.
	my $other = enqueue($node, 'of_bob', '{"lock": 1}');
	wait_held($node, 2);
	my $waiting = enqueue($node, 'of_ann', '{"lock": 2}');
	ask($node, "SELECT qml_delete('$other')");
	ends_soon($waiting, qr/^succeeded/, 'a job gets the place of one that is deleted');
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
	settle($node, $_) foreach qw(of_ann of_bob);
}

# ---- workers that leave in good order give back what they have not begun

foreach my $case (
	[ 'qml.workers = 0', sub { restart_workers(4) } ],
	[
		'qml.enabled = off',
		sub {
			set_config($node, 'qml.enabled' => 'off');
			wait_for('the workers to leave', sub { worker_pids($node) == 0 });
			set_config($node, 'qml.enabled' => undef);
		}
	],
	[
		'somebody wants the database',
		sub {
			my ($rc) = $node->psql('template1', 'CREATE DATABASE copy TEMPLATE postgres', stderr => \my $ignored);
			ok($rc == 0 || $ignored =~ /being accessed by other users/, 'a copy of the database is asked for');
		}
	])
{
	my ($name, $leave) = @$case;
	restart_workers(4);
	query($node, q{SELECT count(*) FROM qml_enqueue_many('short', array_fill('{}'::jsonb, ARRAY[100]))});
	settle($node, 'short');
	query($node, q{DELETE FROM qml.history});
	end_sessions($node);
	query($node, q{SELECT count(*) FROM qml_enqueue_many('short', array_fill('{}'::jsonb, ARRAY[30000]), max_retries => 0)});
	wait_for('some to be done', sub { query($node, 'SELECT count(*) > 0 FROM qml.history') eq 't' });
	$leave->();
	wait_for('all to be done', sub { query($node, 'SELECT count(*) FROM qml.live') == 0 });
	is(query($node, q{SELECT count(*) FILTER (WHERE state = 'succeeded') || ' ' || count(*) FILTER (WHERE attempt - coalesce(uncounted, 0) <> 1) || ' ' || count(errors) FROM qml.history}),
		'30000 0 0', "$name: none fails, and none is counted that was not begun");
}

# ---- a deletion that is not committed holds nobody up for longer than may be

# Deletes a job that a worker has in hand, and has not ended, without committing that.
query($node, <<'SQL');
CREATE FUNCTION delete_in_hand() RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE found uuid;
BEGIN
	WHILE EXISTS (SELECT FROM qml.live) LOOP
		-- A lock that was taken in vain goes with the block.
		BEGIN
			SELECT id INTO found FROM qml.live WHERE state = 'processing' LIMIT 1;
			SELECT id INTO found FROM qml.live WHERE id = found AND state = 'processing' FOR UPDATE SKIP LOCKED;
			IF found IS NOT NULL AND qml_delete(found) THEN RETURN found; END IF;
			RAISE no_data_found;
		EXCEPTION WHEN no_data_found THEN NULL;
		END;
		IF clock_timestamp() > now() + interval '60 s' THEN
			RAISE 'jobs are not worked off: %', (SELECT json_agg(x) FROM (SELECT state, method, worker, count(*) FROM qml.live GROUP BY 1, 2, 3) x);
		END IF;
	END LOOP;
	RETURN NULL;
END $$;
SQL
sub delete_in_hand
{
	my ($session) = @_;

	foreach (1 .. 30)
	{
		query($node, q{SELECT count(*) FROM qml_enqueue_many('short', array_fill('{}'::jsonb, ARRAY[5000]), timeout => '1 s')});
		my $id = $session->query_safe('BEGIN; SELECT delete_in_hand()');
		return $id if $id ne '';
		$session->query_safe('ROLLBACK');
	}
	return '';
}

{
	restart_workers(1);
	$blocker->query_safe('SELECT pg_advisory_lock(1)');
	my $id = enqueue($node, 'limited', '{"lock": 1}', q{timeout => '10 s', max_retries => 0});
	wait_held($node, 1);
	my $session = new_session($node);
	$session->query_safe("BEGIN; SELECT qml_delete('$id')");
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
	wait_for('the worker to wait for the deletion', sub { worker_pids($node, "wait_event = 'transactionid'") == 1 });
	# The attempt ends by its timeout, which is written down when that is possible.
	my $other = enqueue($node, 'limited', '{"lock": 2}');
	my $seconds = seconds_until('the next job', sub { outcome($node, $other) =~ /^succeeded/ });
	cmp_ok($seconds, '<=', 27, sprintf 'a job waits for the deletion no longer than its timeout (%.1f s)', $seconds);
	$session->query_safe('ROLLBACK');
	ends_soon($id, qr/^failed\|1\|timeout/, 'and it is no success, then');

	# One of a group, beside as many as this takes without.
	query($node, q{SELECT count(*) FROM qml_enqueue_many('short', array_fill('{}'::jsonb, ARRAY[5000]))});
	my $usual = seconds_until('so many jobs', sub { query($node, q{SELECT count(*) FROM qml.live WHERE method = 'short'}) == 0 });
	my $deleted = delete_in_hand($session);
	isnt($deleted, '', 'a job is deleted that a worker has in hand');
	my $start = time;
	wait_for('the others to be done', sub { query($node, q{SELECT count(*) FROM qml.live}) <= 1 });
	$seconds = time - $start;
	cmp_ok($seconds, '<=', $SOON + 2 * $usual, sprintf 'the others of a group do not wait for it (%.1f s, usually %.1f)', $seconds, $usual);
	is(query($node, q{SELECT count(*) FROM qml.history WHERE method = 'short' AND state <> 'succeeded'}), 0, 'and succeed');
	$session->query_safe('COMMIT');

	# The worker is to leave meanwhile.
	isnt($deleted = delete_in_hand($session), '', 'another one');
	set_config($node, 'qml.workers' => 0);
	$seconds = seconds_until('the workers to leave', sub { worker_pids($node) == 0 });
	cmp_ok($seconds, '<=', $SOON, sprintf 'a worker that has it in hand leaves (%.1f s)', $seconds);
	$session->query_safe('ROLLBACK');
	$session->quit;
	wait_for('it to be given back', sub { query($node, "SELECT state FROM qml.job WHERE id = '$deleted'") =~ /^(enqueued|awaiting_retry)$/ });
	pass('and it is given back if it is not deleted after all');
	set_config($node, 'qml.workers' => 2);
	query($node, "SELECT qml_delete('$deleted')");
	settle($node, 'short');
}

# ---- a group is undone for a deletion while somebody adds a hook

{
	query($node, 'CREATE FUNCTION hears(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS $$ SELECT $$; REVOKE EXECUTE ON FUNCTION hears FROM PUBLIC');
	handler($node, 'stays', <<'SQL');
CREATE FUNCTION stays(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF payload ? 'stay' THEN
		BEGIN PERFORM pg_sleep(1); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(0.9); END;
	END IF;
END $$
SQL
	restart_workers(1);
	query($node, q{SELECT count(*) FROM qml_enqueue_many('stays', array_fill('{}'::jsonb, ARRAY[300]))});
	settle($node, 'stays');
	# Alone, a job waits for who deletes it as long as its timeout lasts.
	query($node, <<'SQL');
SELECT qml_enqueue('stays', CASE i WHEN 10 THEN '{"stay": 1}' ELSE '{}' END::jsonb, timeout => CASE i WHEN 10 THEN '1 min' ELSE '1 s' END::interval)
FROM generate_series(1, 40) i
SQL
	wait_for('the job to stay', sub { worker_pids($node, "wait_event = 'PgSleep'") == 1 });
	my $session = new_session($node);
	$session->query_safe(q{BEGIN; SELECT qml_delete((SELECT id FROM qml.live WHERE method = 'stays' AND state = 'processing' ORDER BY id LIMIT 1))});
	query($node, q{SELECT qml_register_hook('hears', 'hears', '{deleted}')});
	wait_for('the others to be done', sub { query($node, q{SELECT count(*) FROM qml.live WHERE method = 'stays'}) <= 1 });
	$session->query_safe('ROLLBACK');
	$session->quit;
	settle($node, 'stays');
	is(query($node, q{SELECT count(*) FROM qml.history WHERE method = 'stays' AND state = 'succeeded'}), 340, 'all succeed');
	is(log_count($node, 'terminated by signal'), 0, 'and no process crashed');
	query($node, q{SELECT qml_unregister_hook('hears')});
}

# ---- nor does one hold up the scheduler, by a job that shows how far it is

{
	restart_workers(4);
	$blocker->query_safe('SELECT pg_advisory_lock(1)');
	my $id = enqueue($node, 'shows');
	wait_for('it to show something', sub { ask($node, "SELECT progress IS NOT NULL FROM qml_job('$id')") eq 't' });
	query($node, "BEGIN; SELECT qml_delete('$id'); PREPARE TRANSACTION 'p'");
	is(run($node, 'short'), 'succeeded|1', 'there is a second worker');
	my @late;
	foreach (1 .. 8)
	{
		my $at = ask($node, q{SELECT clock_timestamp() + '0.3 s'});
		my $job = enqueue($node, 'short', '{}', "run_at => '$at'");
		outcome_of($node, $job);
		push @late, ask($node, "SELECT extract(epoch FROM started_at - '$at'::timestamptz) FROM qml_job('$job')");
	}
	my ($worst) = sort { $b <=> $a } @late;
	# It would wait for the lock for two seconds at a time.
	cmp_ok($worst, '<=', 1.5, sprintf 'delayed jobs begin in time (%.2f s)', $worst);
	query($node, q{ROLLBACK PREPARED 'p'});
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
	ends_soon($id, qr/^succeeded/, 'it ends');
}

# ---- nor the end of the server

{
	$blocker->query_safe('SELECT pg_advisory_lock(1)');
	my $id = enqueue($node, 'holds', '{"lock": 1}');
	wait_held($node, 1);
	query($node, "BEGIN; SELECT qml_delete('$id'); PREPARE TRANSACTION 'q'");
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
	wait_for('the worker to wait for the deletion', sub { worker_pids($node, "wait_event = 'transactionid'") == 1 });
	end_sessions($node);
	$blocker->quit;
	my $start = time;
	$node->stop('fast');
	my $seconds = time - $start;
	cmp_ok($seconds, '<=', 20, sprintf 'the server ends (%.1f s)', $seconds);
	$node->start;
	query($node, q{ROLLBACK PREPARED 'q'});
	ends_soon($id, qr/^succeeded/, 'the job runs after that');
}

run_log_clean($node, 'nothing crashed');
done_testing();
