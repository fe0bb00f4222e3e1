# A ready job that a transaction takes, and leaves as it was by being undone, runs at
# once, although the worker has looked for jobs meanwhile, and passed it over.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

# A worker that is not told looks again after a minute.
my $AT_ONCE = 10;

my $node = background_node('undone', conf => <<'CONF');
qml.workers = 1
qml.worker_idle_timeout = '1 h'
max_prepared_transactions = 2
CONF
my $blocker = new_session($node);

wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
SELECT qml_create_queue('loud', '{"notify": true}');
SELECT qml_create_queue('quiet', '{"retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}');
SQL
query($node, q{SELECT qml_create_queue('paused'), qml_pause_queue('paused')});
handler($node, 'work', 'CREATE FUNCTION work(payload jsonb) RETURNS void LANGUAGE sql AS $$ $$');
# Keeps the worker until the test lets it go.
handler($node, 'holds', <<'SQL');
CREATE FUNCTION holds(payload jsonb) RETURNS void LANGUAGE sql AS $$
	SELECT pg_advisory_xact_lock_shared(1)
$$
SQL

# A job that is ready, and in the hands of a session by the statements that take it,
# while a worker goes to sleep that has found nothing.
sub pass_over
{
	my ($session, $queue, $take) = @_;

	$blocker->query_safe('SELECT pg_advisory_lock(1)');
	my $held = enqueue($node, 'holds', '{}', "queue => 'quiet'");
	wait_held($node, 1);
	my $job = enqueue($node, 'work', '{}', "queue => '$queue'");
	$session->query_safe(sprintf $take, $job);
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
	is(outcome_of($node, $held), 'succeeded|1', 'the worker is done with the other');
	wait_asleep($node);
	like(outcome($node, $job), qr/^enqueued\|0/, 'and has passed this one over');
	return $job;
}

# It runs within a moment from what is done by the code.
sub runs_after
{
	my ($job, $name, $undo) = @_;
	my $start = time;

	$undo->();
	like(outcome_of($node, $job), qr/^succeeded\|/, "$name: it runs");
	cmp_ok(time - $start, '<=', $AT_ONCE, "$name: at once");
	return;
}

my $FETCH = q{SELECT id FROM qml_fetch('w', '{%s}', methods => '{work}') WHERE id = '%s'};
my $DELETE = q{SELECT qml_delete('%s')};

foreach my $queue (qw(quiet loud))
{
	my $fetch = sprintf $FETCH, $queue, '%s';
	foreach ([ 'a fetch', $fetch ], [ 'a deletion', $DELETE ])
	{
		my ($what, $take) = @$_;
		my $session = new_session($node);
		my $pid = $session->query_safe('SELECT pg_backend_pid()');

		my $job = pass_over($session, $queue, "BEGIN; $take");
		runs_after($job, "$queue, $what, ROLLBACK", sub { $session->query_safe('ROLLBACK') });

		$job = pass_over($session, $queue, "BEGIN; SAVEPOINT a; SAVEPOINT b; $take; RELEASE b");
		runs_after($job, "$queue, $what, ROLLBACK TO", sub { $session->query_safe('ROLLBACK TO a') });
		$session->query_safe('COMMIT');

		$job = pass_over($session, $queue, "BEGIN; $take; PREPARE TRANSACTION 'p'");
		runs_after($job, "$queue, $what, ROLLBACK PREPARED", sub { query($node, q{ROLLBACK PREPARED 'p'}) });

		$job = pass_over($session, $queue, "BEGIN; $take");
		runs_after($job, "$queue, $what, the session ended", sub { ask($node, "SELECT pg_terminate_backend($pid)") });
		$session->{run}->finish;
	}
}

# After a restart nobody knows what a prepared transaction took.  Two in one second.
{
	my $session = new_session($node);
	my $first = pass_over($session, 'quiet', "BEGIN; $DELETE; PREPARE TRANSACTION 'p'");
	my $second = enqueue($node, 'work', '{}', q{queue => 'paused'});
	query($node, "BEGIN; SELECT qml_delete('$second'); PREPARE TRANSACTION 'q'; SELECT qml_resume_queue('paused')");
	$_->quit foreach $session, $blocker;
	end_sessions($node);
	$node->restart;
	$blocker = new_session($node);
	# The look at everything that a scheduler begins with, and another worker's.
	wait_for_process($node, 'scheduler', 'postgres');
	is(run($node, 'work'), 'succeeded|1', 'a worker works after a restart');
	wait_asleep($node);
	runs_after($first, 'unknown, ROLLBACK PREPARED', sub { query($node, q{ROLLBACK PREPARED 'p'}); });
	runs_after($second, 'the next one', sub { query($node, q{ROLLBACK PREPARED 'q'}); });
}

# A part that is undone after that, and took nothing, wakes nobody.
{
	my $session = new_session($node);
	my $job = pass_over($session, 'quiet', "BEGIN; $DELETE");
	my ($pid) = worker_pids($node);
	my $before = wakeups($pid);
	$session->query_safe(q{DO $$ BEGIN FOR i IN 1 .. 1000 LOOP BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$});
	cmp_ok(wakeups($pid) - $before, '<=', 20, 'parts that took nothing are not told of');
	$session->query_safe('COMMIT');
	$session->quit;
	is(outcome($node, $job), 'deleted|0', 'the deletion holds');
}

# Those who listen are told, too: once of the job, and once that it is there again.
{
	my $listener = new_session($node);
	my $session = new_session($node);
	my $output = '';
	my $told = sub {
		$output .= $listener->query('SELECT 1');
		return () = $output =~ /notification "qml_loud"/g;
	};

	$listener->query_safe('LISTEN qml_loud');
	query($node, q{SELECT qml_enqueue('outside', queue => 'loud')});
	wait_for('the listener to be told', sub { $told->() == 1 });
	$session->query_safe(q{BEGIN; SELECT qml_fetch('w', '{loud}'); ROLLBACK});
	wait_for('the listener to be told again', sub { $told->() == 2 });
	pass('listeners are told');
	$_->quit foreach $listener, $session;
}

# An error long after the claim.
{
	my $session = new_session($node, 'postgres', on_error_stop => 0);
	my $job = pass_over($session, 'quiet', 'BEGIN; ' . sprintf $FETCH, 'quiet', '%s');
	runs_after($job, 'an error', sub { $session->query('SELECT 1 / 0') });
	$session->query('ROLLBACK');
	$session->quit;
}

$blocker->quit;
run_log_clean($node, 'nothing crashed');
done_testing();
