# Sessions that wait for jobs: woken by the commit they wait for and by nothing else,
# while they hold nothing.  And claims that live as long as their session.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(max min);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = background_node('waiting', conf => <<'CONF');
qml.workers = 1
max_worker_processes = 20
CONF
wait_for_process($node, 'scheduler', 'postgres');

query($node, <<'SQL');
SELECT qml_create_queue('unkept', '{"succeeded_ttl": 0, "failed_ttl": 0}');
SELECT qml_create_queue('a'), qml_create_queue('b');
SQL
handler($node, 'short', 'CREATE FUNCTION short(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$');

# ---- sessions

my %pid; # of the server's process, by session
my $queues = 0;

sub open_session
{
	my $session = new_session($node, 'postgres', on_error_stop => 0);
	$pid{$session} = $session->query_safe('SELECT pg_backend_pid()');
	return $session;
}

# What the statement prints, or "ERROR: " and its SQLSTATE.
sub say_in
{
	my ($session, $sql) = @_;
	my $output = $session->query("\\set VERBOSITY sqlstate\n$sql");
	my ($error) = $session->{stderr} =~ /^(?:psql:.*)?((?:ERROR|FATAL):  .*)/m;
	$session->{stderr} = '';
	return $error // $output;
}

# Whether the session sleeps on its latch, in a CALL.
sub is_waiting
{
	my ($session) = @_;
	return ask($node, <<"SQL") eq 't';
SELECT count(*) = 1 FROM pg_stat_activity
WHERE pid = $pid{$session} AND state = 'active' AND query ~ '^(CALL|DO)' AND wait_event_type = 'Extension'
SQL
}

# Lets a session call a procedure that waits, and returns when it does.
sub begin_wait
{
	my ($session, $call) = @_;
	$session->query_until(qr/^begun$/m, <<"PSQL");
\\set VERBOSITY sqlstate
\\echo begun
CALL $call;
SELECT extract(epoch FROM clock_timestamp());
PSQL
	wait_for("a session to wait in $call", sub { is_waiting($session) });
	return;
}

# What the call printed and, as a second value, when it returned.
sub end_wait
{
	my ($session) = @_;
	my $output = say_in($session, '\echo');
	return split /\n/, $output, -1;
}

sub end_of
{
	my ($session) = @_;
	return (end_wait($session))[0];
}

# A session, and one whose job ends after what shall not wake the first one: by then
# the first would have been woken too.
my $waiter = open_session();
my $second = open_session();

sub queue_name
{
	my $name = 'q' . ++$queues;
	query($node, "SELECT qml_create_queue('$name', '{\"retry\": {\"strategy\": \"fixed\", \"delay\": \"1 ms\", \"jitter\": 0}}')");
	return $name;
}

# A job that is in work, and its queue; $max_retries of it.
sub claimed_job
{
	my ($max_retries) = @_;
	my $queue = queue_name();
	my $id = enqueue($node, 'outside', '{}', "queue => '$queue', max_retries => " . ($max_retries // 0));
	is(ask($node, "SELECT attempt FROM qml_fetch('w', '{$queue}', 1, '1 h')"), '1', "a job of $queue is in work");
	return ($id, $queue);
}

# Asserts that the waiter sleeps on, without having woken up once, while something
# happens.
sub does_not_wake
{
	my ($name, $action) = @_;
	my ($id) = claimed_job();
	begin_wait($second, "qml_wait_for('$id')");
	my $before = wakeups($pid{$waiter});
	$action->();
	ask($node, "SELECT qml_succeed('$id', 1)");
	is(end_of($second), 'succeeded', "$name: who waits for another job is woken later");
	is(wakeups($pid{$waiter}) - $before, 0, "$name: does not wake a session up");
	ok(is_waiting($waiter), "$name: it waits on");
	return;
}

# ---- qml_wait_for: what ends it

my %end = (
	succeeded => sub { "SELECT qml_succeed('$_[0]', 1)" },
	failed => sub { "SELECT qml_fail('$_[0]', 1, 'bad')" },
	deleted => sub { "SELECT qml_delete('$_[0]')" });

foreach my $state (sort keys %end)
{
	my ($id) = claimed_job();
	begin_wait($waiter, "qml_wait_for('$id')");
	ask($node, $end{$state}->($id));
	is(end_of($waiter), $state, "the wait ends when the job is $state");
	is(say_in($waiter, "CALL qml_wait_for('$id', '1 h')"), $state, 'for one that has ended it is over at once');
}

# By those of the background, too.
{
	my ($id, $queue) = claimed_job(1);
	begin_wait($waiter, "qml_wait_for('$id')");
	ask($node, "SELECT qml_fail('$id', 1, 'bad')");
	wait_state($node, $id, 'enqueued');
	ok(is_waiting($waiter), 'a job that will be tried again has not ended');
	ask($node, "SELECT qml_fail(id, attempt, 'bad') FROM qml_fetch('w', '{$queue}')");
	is(end_of($waiter), 'failed', 'until its last attempt has');

	$queue = queue_name();
	$id = enqueue($node, 'outside', '{}', "queue => '$queue', max_retries => 0");
	begin_wait($waiter, "qml_wait_for('$id')");
	ask($node, "SELECT attempt FROM qml_fetch('w', '{$queue}', 1, '50 ms')");
	is(end_of($waiter), 'failed', 'the scheduler, which takes it back, ends it');

	# The worker would be faster than the wait.
	$queue = queue_name();
	query($node, "SELECT qml_pause_queue('$queue')");
	$id = enqueue($node, 'short', '{}', "queue => '$queue'");
	begin_wait($waiter, "qml_wait_for('$id')");
	query($node, "SELECT qml_resume_queue('$queue')");
	is(end_of($waiter), 'succeeded', 'a worker in the database ends it');
}

{
	my ($id) = claimed_job();
	begin_wait($waiter, "qml_wait_for('$id')");
	ask($node, "SELECT state FROM qml_set_state('$id', 'failed')");
	is(end_of($waiter), 'failed', 'qml_set_state ends it');
}

# More jobs at once than are told of one by one.
{
	my $queue = queue_name();
	ask($node, "SELECT count(qml_enqueue('outside', queue => '$queue')) FROM generate_series(1, 200)");
	ask($node, "CREATE TEMP TABLE claimed AS SELECT id, attempt FROM qml_fetch('w', '{$queue}', 200)");
	my $last = ask($node, 'SELECT id FROM claimed ORDER BY id DESC LIMIT 1');
	begin_wait($waiter, "qml_wait_for('$last')");
	ask($node, 'SELECT count(qml_succeed(id, attempt)) FROM (SELECT * FROM claimed ORDER BY id) c');
	is(end_of($waiter), 'succeeded', 'one of many that end together');
}

# What is not kept.
{
	my $id = enqueue($node, 'outside', '{}', "queue => 'unkept'");
	ask($node, "SELECT attempt FROM qml_fetch('w', '{unkept}')");
	begin_wait($waiter, "qml_wait_for('$id')");
	ask($node, "SELECT qml_succeed('$id', 1)");
	is(end_of($waiter), '', 'the state is NULL when the job is not kept');
	is(say_in($waiter, "CALL qml_wait_for('$id')"), 'ERROR:  QM001', 'afterwards there is no such job');
}

# ---- its errors

{
	my ($id) = claimed_job();
	my $before = time;

	is(say_in($waiter, 'CALL qml_wait_for(gen_random_uuid())'), 'ERROR:  QM001', 'an unknown job');
	is(say_in($waiter, 'CALL qml_wait_for(NULL)'), 'ERROR:  22004', 'no job');
	is(say_in($waiter, "CALL qml_wait_for('$id', NULL)"), 'ERROR:  22004', 'no timeout');
	is(say_in($waiter, "CALL qml_wait_for('$id', '-1 s')"), 'ERROR:  22023', 'a timeout below 0');
	is(say_in($waiter, "BEGIN;\nCALL qml_wait_for('$id');"), 'ERROR:  2D000', 'within a transaction block');
	is(say_in($waiter, 'ROLLBACK'), '', 'which is left');
	cmp_ok(time - $before, '<', 15, 'none of them waits');

	$before = time;
	is(say_in($waiter, "CALL qml_wait_for('$id', '300 ms')"), 'processing', 'a wait that times out says what the job is now');
	cmp_ok(time - $before, '>=', 0.3, 'not before the time is over');

	# It ends the transaction of a DO, too.
	$waiter->query_until(qr/^begun$/m, "\\echo begun\nDO 'DECLARE s qml.job_state; BEGIN PERFORM 1; CALL qml_wait_for(''$id'', ''1 h'', s); RAISE ''%'', s; END';\n");
	wait_for('a DO to wait', sub { ask($node, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid{$waiter}") eq 'Extension' });
	holds_nothing($waiter, 'in a DO');
	query($node, "SELECT pg_cancel_backend($pid{$waiter})");
	is(end_of($waiter), 'ERROR:  57014', 'a DO is canceled while it waits');

	begin_wait($waiter, "qml_wait_for('$id', '1 h')");
	foreach my $kill ('pg_cancel_backend', 'pg_terminate_backend')
	{
		query($node, "SELECT $kill($pid{$waiter})");
		if ($kill eq 'pg_cancel_backend')
		{
			is(end_of($waiter), 'ERROR:  57014', "$kill ends it");
			# As if nothing had been: it is woken again.
			begin_wait($waiter, "qml_wait_for('$id', '1 h')");
			ask($node, "SELECT qml_progress('$id', 1, '{}')");
		}
		else
		{
			wait_for('the session to be gone', sub { ask($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid{$waiter}") == 0 });
			pass("$kill ends it");
		}
	}
	eval { $waiter->quit };
	$waiter = open_session();
	begin_wait($waiter, "qml_wait_for('$id')");
	ask($node, "SELECT qml_succeed('$id', 1)");
	is(end_of($waiter), 'succeeded', 'another session that comes after one that was ended is woken');
}

# ---- what it holds, and what does not wake it

# That it holds neither snapshot nor transaction nor lock; all sessions have the lock
# of their virtual transaction.
sub holds_nothing
{
	my ($session, $name) = @_;
	ok(is_waiting($session), "$name: it waits");
	is(ask($node, <<"SQL"), 't|t|0', "$name: no backend_xmin, no backend_xid, no lock");
SELECT backend_xmin IS NULL, backend_xid IS NULL,
	(SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid AND locktype <> 'virtualxid')
FROM pg_stat_activity a WHERE pid = $pid{$session}
SQL
	return;
}

{
	my ($id) = claimed_job();
	my ($other) = claimed_job();

	begin_wait($waiter, "qml_wait_for('$id', '1 h')");
	holds_nothing($waiter, 'qml_wait_for');
	does_not_wake('the end of another job', sub { ask($node, "SELECT qml_succeed('$other', 1)") });
	does_not_wake('an end that is rolled back',
		sub { ask($node, "BEGIN; SELECT qml_succeed('$id', 1); ROLLBACK") });
	does_not_wake('an end that is prepared',
		sub { ask($node, "BEGIN; SELECT qml_succeed('$id', 1); PREPARE TRANSACTION 'end'") });
	does_not_wake('ROLLBACK PREPARED', sub { ask($node, "ROLLBACK PREPARED 'end'") });
	# It would have polled meanwhile, if it did.
	my $before = wakeups($pid{$waiter});
	ask($node, 'SELECT pg_sleep(3)');
	is(wakeups($pid{$waiter}) - $before, 0, 'it does not wake up by itself in three seconds');
	holds_nothing($waiter, 'afterwards');

	ask($node, "BEGIN; SELECT qml_succeed('$id', 1); PREPARE TRANSACTION 'end'");
	query($node, "COMMIT PREPARED 'end'");
	is(end_of($waiter), 'succeeded', 'COMMIT PREPARED, by another session, ends it');

	($id) = claimed_job();
	begin_wait($waiter, "qml_wait_for('$id', '1 h')");
	ask($node, "BEGIN; SAVEPOINT s; SELECT qml_succeed('$id', 1); ROLLBACK TO s; COMMIT");
	ask($node, "SELECT qml_progress('$id', 1, '{}')");
	# It may have been woken, and looked.
	wait_for('it to wait on', sub { is_waiting($waiter) });
	pass('an end in a subtransaction that is rolled back is none');
	ask($node, "SELECT qml_succeed('$id', 1)");
	is(end_of($waiter), 'succeeded', 'the next one is');

	# Nothing waits for the session, neither.
	($id) = claimed_job();
	begin_wait($waiter, "qml_wait_for('$id', '1 h')");
	query($node, 'CREATE TABLE t AS SELECT 1 AS a; CREATE INDEX CONCURRENTLY ON t (a)');
	ok(is_waiting($waiter), 'an index is built concurrently meanwhile');
	ask($node, "SELECT qml_succeed('$id', 1)");
	end_wait($waiter);
}

# Prepared before a restart.
{
	my ($id) = claimed_job();
	ask($node, "BEGIN; SELECT qml_succeed('$id', 1); PREPARE TRANSACTION 'old'");
	end_sessions($node);
	$_->quit foreach $waiter, $second;
	$node->restart;
	wait_for_process($node, 'scheduler', 'postgres');
	($waiter, $second) = (open_session(), open_session());
	begin_wait($waiter, "qml_wait_for('$id', '20 s')");
	query($node, "COMMIT PREPARED 'old'");
	my $start = time;
	is(end_of($waiter), 'succeeded', 'COMMIT PREPARED of a transaction from before a restart');
	my $seconds = time - $start;
	cmp_ok($seconds, '<', 5, sprintf 'ends it at once (%.2f s)', $seconds);
}

# ---- how fast

{
	my @worst;
	my $median = best_of(
		50,
		sub {
			my @latencies;
			foreach my $round (1 .. 20)
			{
				my $id = enqueue($node, 'outside', '{}', "queue => 'a'");
				ask($node, "SELECT attempt FROM qml_fetch('w', '{a}')");
				begin_wait($waiter, "qml_wait_for('$id')");
				# Shortly before its commit.
				my ($finished) = ask($node, "SELECT extract(epoch FROM clock_timestamp()), qml_succeed('$id', 1)") =~ /^([\d.]+)/;
				my ($state, $returned) = end_wait($waiter);
				die "the job is $state" if $state ne 'succeeded';
				push @latencies, ($returned - $finished) * 1000;
			}
			push @worst, max(@latencies);
			return percentile(50, @latencies);
		});
	cmp_ok($median, '<=', 50, sprintf 'from the commit to the return: %.2f ms (median)', $median);
	cmp_ok(min(@worst), '<=', 1000, sprintf 'and never more than a second (%.2f ms)', min(@worst));
}

# An end that comes while the wait begins is not missed.
{
	my ($slowest, @states) = (0);
	foreach my $round (1 .. 100)
	{
		my $id = enqueue($node, 'outside', '{}', "queue => 'a'");
		ask($node, "SELECT attempt FROM qml_fetch('w', '{a}')");
		$waiter->{stdin} .= "CALL qml_wait_for('$id', '10 s');\n";
		$waiter->{run}->pump_nb;
		# They meet at another place each time.
		sleep $round * 0.00005;
		my $start = time;
		ask($node, "SELECT qml_succeed('$id', 1)");
		push @states, end_of($waiter);
		$slowest = max($slowest, time - $start);
	}
	is(scalar(grep { $_ ne 'succeeded' } @states), 0, 'ends that meet the begin of the wait');
	# What is missed is found when the wait ends by itself.
	cmp_ok($slowest, '<=', 5, sprintf 'are not missed (%.3f s)', $slowest);
}

# ---- qml_wait

# Nothing is ready in a and b but what these make so.
sub take_all
{
	ask($node, "SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{a,b}', 100)");
	return;
}

{
	my $before = time;
	is(say_in($waiter, "CALL qml_wait('{a}', '300 ms')"), 'f', 'qml_wait that times out is false');
	cmp_ok(time - $before, '>=', 0.3, 'not before the time is over');
	is(say_in($waiter, "BEGIN;\nCALL qml_wait('{a}');"), 'ERROR:  2D000', 'within a transaction block');
	say_in($waiter, 'ROLLBACK');
	is(say_in($waiter, "CALL qml_wait('{}')"), 'ERROR:  22023', 'an empty array');

	enqueue($node, 'outside', '{}', "queue => 'a'");
	is(say_in($waiter, "CALL qml_wait('{a}', '1 h')"), 't', 'when a job is ready it returns at once');
	is(say_in($waiter, "CALL qml_wait('{b,a}', '1 h')"), 't', 'whichever queue it is in');
	is(say_in($waiter, 'CALL qml_wait(NULL, $$1 h$$)'), 't', 'and for all queues');
	take_all();

	begin_wait($waiter, "qml_wait('{a}', '1 h')");
	holds_nothing($waiter, 'qml_wait');
	does_not_wake('a job of another queue', sub { enqueue($node, 'outside', '{}', "queue => 'b'") });
	does_not_wake('an enqueue that is rolled back', sub { ask($node, "BEGIN; SELECT qml_enqueue('outside', queue => 'a'); ROLLBACK") });
	does_not_wake('a job that is not due', sub { enqueue($node, 'outside', '{}', "queue => 'a', run_at => now() + interval '1 d'") });
	does_not_wake('an enqueue that is prepared', sub { ask($node, "BEGIN; SELECT qml_enqueue('outside', queue => 'a'); PREPARE TRANSACTION 'new'") });
	query($node, "COMMIT PREPARED 'new'");
	is(end_of($waiter), 't', 'COMMIT PREPARED of an enqueue wakes it');
	take_all();

	# Of all queues, any.
	begin_wait($waiter, "qml_wait('{a,b}', '1 h')");
	enqueue($node, 'outside', '{}', "queue => 'b'");
	is(end_of($waiter), 't', 'a job of one of the queues wakes it');
	take_all();

	foreach my $queues ("'{a}'", "ARRAY['a', 'nowhere']")
	{
		begin_wait($waiter, "qml_wait($queues, '1 h')");
		my ($due) = ask($node, <<'SQL') =~ /([\d.]+)$/;
SELECT qml_enqueue('outside', queue => 'a', run_at => t), extract(epoch FROM t)
FROM (SELECT clock_timestamp() + interval '0.5 s' AS t) s
SQL
		my ($ready, $returned) = end_wait($waiter);
		is($ready, 't', "$queues: a job that becomes due wakes it");
		cmp_ok($returned, '>=', $due, 'not before it is due');
		cmp_ok($returned - $due, '<=', 1, sprintf 'at once (%.3f s)', $returned - $due);
		take_all();
	}

	# The queue comes later than the wait.
	foreach my $queues ('later', 'a,later')
	{
		begin_wait($waiter, "qml_wait('{$queues}', '1 h')");
		does_not_wake("{$queues}: a job of a queue that is there", sub { enqueue($node, 'outside', '{}', "queue => 'b'") });
		does_not_wake("{$queues}: a queue that comes", sub { ask($node, "SELECT qml_create_queue('other ' || '$queues')") });
		does_not_wake("{$queues}: a job of a queue that comes", sub { enqueue($node, 'outside', '{}', "queue => 'with ' || '$queues'") });
		take_all();
		last if $queues ne 'later';
		enqueue($node, 'outside', '{}', "queue => 'later'");
		is(end_of($waiter), 't', 'a queue that comes with its first job wakes it');
		ask($node, "SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{later}')");
		query($node, "SELECT qml_drop_queue('later')");
	}
	query($node, "SELECT qml_create_queue('later')");
	enqueue($node, 'outside', '{}', "queue => 'later'");
	is(end_of($waiter), 't', 'a job of a queue that was not there wakes it');

	enqueue($node, 'outside', '{}', "queue => 'a'");
	ask($node, "SELECT qml_pause_queue('a')");
	begin_wait($waiter, "qml_wait('{a}', '1 h')");
	ask($node, "SELECT qml_resume_queue('a')");
	is(end_of($waiter), 't', 'jobs of a paused queue are not ready until it is resumed');
	my ($held) = split /\|/, ask($node, "SELECT id, attempt FROM qml_fetch('w', '{a}')");
	begin_wait($waiter, "qml_wait('{a}', '1 h')");
	ask($node, "SELECT qml_release('$held', 1)");
	is(end_of($waiter), 't', 'a job that is released wakes it');

	take_all();

	my $again = enqueue($node, 'outside', '{}', "queue => 'a', max_retries => 0");
	ask($node, "SELECT qml_fail(id, attempt, 'bad') FROM qml_fetch('w', '{a}')");
	begin_wait($waiter, "qml_wait('{a}', '1 h')");
	ask($node, "SELECT qml_retry('$again')");
	is(end_of($waiter), 't', 'a failed job that is to be tried again wakes it');
	take_all();
	$again = enqueue($node, 'outside', '{}', "queue => 'a', run_at => now() + interval '1 d'");
	begin_wait($waiter, "qml_wait('{a}', '1 h')");
	ask($node, "SELECT qml_reschedule('$again', now())");
	is(end_of($waiter), 't', 'a delayed job that is made due wakes it');
	take_all();

	# More than are told apart by their names: some others would wake it, not these.
	my @many = map { "many$_" } 1 .. 20;
	ask($node, "SELECT qml_create_queue(q) FROM unnest('{@{[join ',', @many]}}'::text[]) q");
	begin_wait($waiter, "qml_wait('{@{[join ',', @many]}}', '1 h')");
	foreach my $queue ('a', 'b')
	{
		does_not_wake('of many queues another one has a job', sub { enqueue($node, 'outside', '{}', "queue => '$queue'") });
	}
	enqueue($node, 'outside', '{}', "queue => '$many[-1]'");
	is(end_of($waiter), 't', 'and the last one');

	# A claim that is not committed: there may be a job, or not; in the end there is.
	my $claimer = open_session();
	say_in($claimer, "BEGIN;\nSELECT attempt FROM qml_fetch('w', '{a}')");
	my $before_rollback = time;
	$waiter->query_until(qr/^begun$/m, "\\echo begun\nCALL qml_wait('{a}', '5 s');\n\n");
	wait_for('the wait to have looked', sub { is_waiting($waiter) || ask($node, "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid{$waiter}") eq 't' });
	say_in($claimer, 'ROLLBACK');
	wait_for('the wait to end', sub { !is_waiting($waiter) });
	cmp_ok(time - $before_rollback, '<', 4, 'a claim that is rolled back does not leave a session asleep that waits for a job');
	say_in($waiter, '\echo');
	is(say_in($waiter, "CALL qml_wait('{a}', '1 h')"), 't', 'the job is ready');
	take_all();
	$claimer->quit;

	# What somebody else has taken, and not committed, is nothing to be woken for all the time.
	foreach my $hold ("SELECT attempt FROM qml_fetch('w', '{a}')", 'SELECT 1 FROM qml.live FOR UPDATE')
	{
		$claimer = open_session();
		enqueue($node, 'outside', '{}', "queue => 'a'");
		say_in($claimer, "BEGIN;\n$hold");
		begin_wait($waiter, "qml_wait('{a}', '1 h')");
		my $before = wakeups($pid{$waiter});
		ask($node, 'SELECT pg_sleep(3)');
		my $woken = wakeups($pid{$waiter}) - $before;
		cmp_ok($woken, '<=', 6, "while a job is in the hands of others a wait looks now and then ($woken times)");
		ok(is_waiting($waiter), 'and goes on');
		say_in($claimer, 'ROLLBACK');
		is(end_of($waiter), 't', 'until it is free again');
		$claimer->quit;
		take_all();
	}

	my $own = open_session();
	begin_wait($waiter, "qml_wait('{a}', '1 h')");
	begin_wait($own, "qml_wait('{a}', '1 h')");
	enqueue($node, 'outside', '{}', "queue => 'a'");
	is(end_of($waiter), 't', 'of two that wait one is told');
	is(end_of($own), 't', 'and so is the other');
	$own->quit;
	take_all();
}

# ---- claims bound to a session

# A session that holds so many jobs of a new queue; it, the queue, the jobs.
sub holder
{
	my ($count, $max_retries) = @_;
	my $queue = queue_name();
	$max_retries //= 3;
	query($node, "SELECT count(qml_enqueue('outside', queue => '$queue', max_retries => $max_retries)) FROM generate_series(1, $count)");
	my $session = open_session();
	my @ids = split /\n/, $session->query_safe("SELECT id FROM qml_fetch('holder', '{$queue}', $count, lease => '0')");
	is(scalar @ids, $count, "a session holds $count jobs of $queue");
	return ($session, $queue, @ids);
}

sub is_held
{
	my ($id) = @_;
	return ask($node, "SELECT state = 'processing' AND lease_expires_at IS NULL FROM qml_job('$id')") eq 't';
}

# Kills the client and waits for it.
sub kill_client
{
	my ($session) = @_;
	$session->{run}->signal('KILL');
	eval { $session->{run}->finish };
	return;
}

my %ways = (
	'normal exit' => sub { $_[0]->quit },
	pg_terminate_backend => sub { query($node, "SELECT pg_terminate_backend($pid{$_[0]})") },
	'SIGKILL of the client' => sub { kill_client($_[0]) });

foreach my $way (sort keys %ways)
{
	my $seconds = best_of(
		1,
		sub {
			my ($session, $queue, $id) = holder(1);
			ok(is_held($id), 'it has no end in time');
			my $start = time;
			$ways{$way}->($session);
			my $outcome = wait_state($node, $id, 'enqueued');
			my $taken = time - $start;
			is($outcome, 'enqueued|1|session_gone|session is gone', "$way: the job is ready again, the attempt counted");
			is(ask($node, "SELECT attempt FROM qml_fetch('w', '{$queue}', 1, '1 h')"), '2', 'and can be claimed');
			eval { $session->quit } if $way eq 'pg_terminate_backend';
			return $taken;
		});
	cmp_ok($seconds, '<=', 1, sprintf '%s: at once (%.3f s)', $way, $seconds);
}

# Whoever waits for a job is told.
{
	my ($session, $queue, $id) = holder(1);
	begin_wait($waiter, "qml_wait('{$queue}', '1 h')");
	begin_wait($second, "qml_wait_for('$id', '1 h')");
	$session->quit;
	is(end_of($waiter), 't', 'the end of a session wakes who waits for a job');
	ok(is_waiting($second), 'not who waits for its end');
	ask($node, "SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{$queue}')");
	is(end_of($second), 'succeeded', 'which comes by the next attempt');
}

# The last attempt.
{
	my ($session, undef, $id) = holder(1, 0);
	begin_wait($waiter, "qml_wait_for('$id', '1 h')");
	$session->quit;
	is(end_of($waiter), 'failed', 'a session that ends with the last attempt of a job: it failed');
	is(outcome($node, $id), 'failed|1|session_gone|session is gone', 'because of that');
}

# What does not end the session does not end the claim.
{
	my ($session, $queue, $id) = holder(1);
	is(say_in($session, 'SELECT 1 / 0'), 'ERROR:  22012', 'a statement fails');
	is(say_in($session, "BEGIN;\nSELECT 1 / 0;\nROLLBACK;"), 'ERROR:  22012', 'a transaction fails');
	# By its end the scheduler has looked for lost claims once more.
	my ($other, undef, $lost) = holder(1);
	$other->quit;
	wait_state($node, $lost, 'enqueued');
	ok(is_held($id), 'the claim is still there');
	is(ask($node, 'SELECT qml_reclaim()'), '0', 'for qml_reclaim, too');
	is(say_in($session, 'DISCARD ALL'), '', 'all is discarded');
	is(ask($node, 'SELECT qml_reclaim()'), '0', 'but for the claim');
	$session->query_safe("SELECT qml_succeed('$id', 1)");
	$session->quit;
	($other, undef, $lost) = holder(1);
	$other->quit;
	wait_state($node, $lost, 'enqueued');
	is(outcome($node, $id), 'succeeded|1', 'what the session finished is finished after its end');
}

# Of several claims, in the ways that each can end.
{
	my ($session, $queue, @ids) = holder(5);
	$session->query_safe("SELECT qml_succeed('$ids[0]', 1)");
	$session->query_safe("SELECT qml_fail('$ids[1]', 1, 'bad', retry => false)");
	$session->query_safe("SELECT qml_release('$ids[2]', 1)");
	query($node, "SELECT qml_delete('$ids[3]')");
	$session->quit;
	is(wait_state($node, $ids[4], 'enqueued'), 'enqueued|1|session_gone|session is gone', 'the job that a session still holds at its end is given back');
	is(outcome($node, $ids[0]), 'succeeded|1', 'not one that succeeded');
	like(outcome($node, $ids[1]), qr/^failed\|1\|.*bad$/, 'nor one that failed');
	is(outcome($node, $ids[2]), 'enqueued|1', 'nor one that it released');
	like(outcome($node, $ids[3]), qr/^deleted\|1/, 'nor one that was deleted');
}
{
	my ($session, $queue, $id) = holder(1);
	$session->query_safe("SELECT qml_release('$id', 1)");
	is(ask($node, "SELECT id FROM qml_fetch('w', '{$queue}', 1, '1 h')"), $id, 'somebody else claims what was released');
	my ($other, undef, $lost) = holder(1);
	$session->quit;
	$other->quit;
	wait_state($node, $lost, 'enqueued');
	is(ask($node, "SELECT concat_ws('|', state, attempt, worker) FROM qml_job('$id')"), 'processing|2|w', 'and keeps it when the first session ends');
}

# Claims that were never made.
foreach my $end ('ROLLBACK', 'exit', 'pg_terminate_backend')
{
	my $queue = queue_name();
	my $id = enqueue($node, 'outside', '{}', "queue => '$queue'");
	my $session = open_session();
	$session->query_safe("BEGIN;\nSELECT attempt FROM qml_fetch('w', '{$queue}', 1, '0')");
	if ($end eq 'pg_terminate_backend') { $ways{$end}->($session); eval { $session->quit }; }
	elsif ($end eq 'exit') { $session->quit; }
	else { $session->query_safe($end); }
	wait_for('the job to be free', sub { ask($node, "SELECT count(*) FROM qml_fetch('w', '{$queue}')") == 1 });
	is(outcome($node, $id), 'processing|1', "a claim that is undone by $end was never made");
	$session->quit if $end eq 'ROLLBACK';
	# The scheduler looks for what the session may have held.
	my ($other, undef, $lost) = holder(1);
	$other->quit;
	wait_state($node, $lost, 'enqueued');
	is(outcome($node, $id), 'processing|1', 'and nothing is given back');
}

# More than a session remembers.
{
	my ($session, $queue) = holder(1000);
	$session->quit;
	my $seconds = seconds_until('all jobs to be ready', sub { ask($node, "SELECT sum(count) FROM qml_queue_counts() WHERE queue = '$queue' AND state = 'enqueued'") eq '1000' });
	# What nobody is told of is looked for after a minute.
	cmp_ok($seconds, '<=', 10, sprintf 'a session that held a thousand jobs: all are ready (%.2f s)', $seconds);
	is(ask($node, "SELECT DISTINCT attempt FROM qml.live l JOIN qml.queue_data q ON q.id = queue_id WHERE q.name = '$queue'"), '1', 'after one attempt');
}

# Beaten for: it stays bound, however long the lease that was asked for.
{
	my ($session, undef, $id) = holder(1);
	$session->query_safe("SELECT qml_heartbeat('$id', 1)");
	$session->quit;
	is(wait_state($node, $id, 'enqueued'), 'enqueued|1|session_gone|session is gone', 'a job that its session told of by a heartbeat is given back by the end of it');

	my $queue;
	($session, $queue) = holder(200);
	$session->query_safe("SELECT count(qml_heartbeat(id, 1, '1 h')) FROM qml.job WHERE queue = '$queue'");
	$session->quit;
	my $here = eval {
		local $PostgreSQL::Test::Utils::timeout_default = 10;
		wait_for('all jobs to be ready', sub { ask($node, "SELECT sum(count) FROM qml_queue_counts() WHERE queue = '$queue' AND state = 'enqueued'") eq '200' });
		1;
	};
	ok($here, 'all of many are');
}

# Prepared: it becomes a claim when its session is gone already.
{
	my $queue = queue_name();
	my $id = enqueue($node, 'outside', '{}', "queue => '$queue'");
	my $session = open_session();
	$session->query_safe("BEGIN;\nSELECT attempt FROM qml_fetch('w', '{$queue}', 1, '0');\nPREPARE TRANSACTION 'claim'");
	$session->quit;
	query($node, "COMMIT PREPARED 'claim'");
	is(wait_state($node, $id, 'enqueued'), 'enqueued|1|session_gone|session is gone', 'a claim that is committed after its session has ended is given back');
}

run_log_clean($node, 'no process crashed');

# ---- the backend is killed, and the whole server with it

foreach my $round (1, 2)
{
	my ($session, $queue, @ids) = holder(2);
	$session->query_safe("SELECT qml_succeed('$ids[0]', 1)");
	# The second time, one that has an end, too.
	$session->query_safe("SELECT qml_heartbeat('$ids[1]', 1, '20 s')") if $round == 2;
	end_sessions($node);
	kill 'KILL', $pid{$session};
	eval { $session->{run}->finish };
	wait_for('the restart', sub { !-e "/proc/$pid{$session}" && defined try_query($node, "SELECT FROM qml_job('$ids[1]')") });
	my $outcome;
	my $seconds = seconds_until('the job', sub {
			$outcome = try_query($node, "SELECT concat_ws('|', state, attempt, error) FROM qml_job('$ids[1]')") // '';
			return $outcome =~ /^enqueued/;
	});
	like($outcome, qr/^enqueued\|1\|server went down$/, 'the backend is killed: the job is ready after the restart, the attempt counted');
	cmp_ok($seconds, '<=', 5, sprintf 'at once (%.2f s)', $seconds);
	is(outcome($node, $ids[0]), 'succeeded|1', 'the finished one is not');
	is(ask($node, "SELECT id, attempt FROM qml_fetch('w', '{$queue}', 2)"), "$ids[1]|2", 'the next attempt has the next number');
}
foreach my $session ($waiter, $second)
{
	eval { $session->{run}->finish };
}

# One that waits: whoever comes after it is not mistaken for it.
{
	my ($id) = claimed_job();
	$waiter = open_session();
	begin_wait($waiter, "qml_wait_for('$id', '1 h')");
	end_sessions($node);
	kill 'KILL', $pid{$waiter};
	eval { $waiter->{run}->finish };
	wait_for('the restart', sub { !-e "/proc/$pid{$waiter}" && defined try_query($node, "SELECT FROM qml_job('$id')") });
	$waiter = open_session();
	begin_wait($waiter, "qml_wait_for('$id', '1 h')");
	ask($node, "SELECT qml_succeed('$id', 1)");
	is(end_of($waiter), 'succeeded', 'after a session that waits is killed, others are woken');
	$waiter->quit;
}

# ---- without shared memory

end_sessions($node);
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->restart;
fails_with($node, '55000', 'CALL qml_wait()', 'qml_wait where qml is not preloaded');
fails_with($node, '55000', "CALL qml_wait_for(gen_random_uuid())", 'qml_wait_for');

end_sessions($node);
done_testing();
