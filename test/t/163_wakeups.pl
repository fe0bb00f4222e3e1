# Who is woken when what decides it changes meanwhile: a handler comes or goes while the
# transaction of a job is open, a right is granted, the call of the wait began before the job.
# And one call about many jobs can be canceled.

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

# Seconds: a wake-up takes milliseconds; what sleeps to its end, or polls, much longer.
my $SOON = 10;

my $node = background_node('wakeups', conf => <<'CONF');
qml.workers = 2
autovacuum = off
CONF
wait_for_process($node, 'scheduler', 'postgres');
# A queue that an open transaction makes would be waited for.
query($node, <<'SQL');
CREATE FUNCTION handle(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$;
SELECT qml_create_queue(q) FROM unnest('{gone,comes}'::text[]) q;
SELECT qml_enqueue('m');
DELETE FROM qml.live;
SQL

sub sleeps
{
	my ($session) = @_;
	return ask($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{qml_pid} AND state = 'active' AND wait_event_type = 'Extension'") eq '1';
}

sub begin_call
{
	my ($session, $call) = @_;
	$session->query_until(qr/^begun$/m, "\\echo begun\n$call;\n");
	return;
}

# A session in which the call sleeps.
sub sleeper
{
	my ($call, $setup) = @_;
	my $session = new_session($node, 'postgres', on_error_stop => 0);
	$session->query_safe($setup) if $setup;
	$session->{qml_pid} = $session->query_safe('SELECT pg_backend_pid()');
	begin_call($session, $call);
	wait_for("$call to sleep", sub { sleeps($session) });
	return $session;
}

# What the call returns, and whether that came soon.
sub is_told
{
	my ($session, $answer, $name) = @_;
	my $seconds = seconds_until($name, sub { !sleeps($session) });
	is((split /\n/, $session->query('\echo'))[0] // '', $answer, $name);
	cmp_ok($seconds, '<=', $SOON, sprintf 'soon (%.2f s)', $seconds);
	return;
}

# Does something that wakes sessions, which sleep again when it returns.
sub wake_and_settle
{
	my ($sql, @sessions) = @_;
	my @before = map { wakeups($_->{qml_pid}) } @sessions;
	query($node, $sql);
	foreach my $i (0 .. $#sessions)
	{
		wait_for('a session to look, and to sleep again',
			sub { wakeups($sessions[$i]{qml_pid}) > $before[$i] && sleeps($sessions[$i]) });
	}
	return;
}

sub take { return ask($node, "SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('t', '$_[0]', 100, methods => '{$_[1]}')"); }

# ---- a handler comes or goes while an enqueue is open

my $open = new_session($node);

# A method gets a handler: a background worker runs the job.
foreach my $rolled_back (0, 1)
{
	my $method = "late$rolled_back";
	my $id;
	if ($rolled_back)
	{
		# It was claimed by a client, whose transaction ends otherwise.
		$id = enqueue($node, $method);
		$open->query_safe("BEGIN; SELECT count(*) FROM qml_fetch('w', methods => '{$method}')");
	}
	else
	{
		$id = $open->query_safe("BEGIN; SELECT qml_enqueue('$method')");
	}
	query($node, "SELECT qml_register_handler('$method', 'handle')");
	# The scheduler has looked for jobs of new handlers, and found none.
	my $scheduler = sleeping_scheduler($node);
	run($node, $method);
	wait_idle($node);
	wait_for('the scheduler to sleep', sub { query($node, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $scheduler") eq 'Extension' });
	my $start = time;
	$open->query_safe($rolled_back ? 'ROLLBACK' : 'COMMIT');
	outcome_of($node, $id);
	cmp_ok(time - $start, '<=', $SOON, sprintf 'a handler is registered while %s: the job runs (%.2f s)',
		$rolled_back ? 'a claim is open that is undone' : 'an enqueue is open', time - $start);
}

query($node, q{ALTER SYSTEM SET qml.workers = 0});
$node->reload;
wait_for('the workers to be gone', sub { worker_pids($node) == 0 });

# A method loses its handler: who names none may fetch the job.
{
	query($node, q{SELECT qml_register_handler('gone', 'handle')});
	my $session = sleeper(q{CALL qml_wait('gone', '1 h')});
	$open->query_safe(q{BEGIN; SELECT qml_enqueue('gone', queue => 'gone')});
	wake_and_settle(q{SELECT qml_unregister_handler('gone')}, $session);
	$open->query_safe('COMMIT');
	is_told($session, 't', 'a handler is unregistered while an enqueue is open: who names no method is told');
	is(take('gone', 'gone'), '1', 'and the job is there');
	$session->quit;
}

# A method gets a handler: who names it is told, however many name none.
foreach my $end ('COMMIT', 'PREPARE')
{
	my $method = "comes_$end";
	my @plain = map { sleeper(q{CALL qml_wait('comes', '1 h')}) } 1 .. 5;
	my $session = sleeper("CALL qml_wait('comes', '1 h', '{$method}')");
	$open->query_safe("BEGIN; SELECT qml_enqueue('$method', queue => 'comes')");
	if ($end eq 'COMMIT')
	{
		wake_and_settle("SELECT qml_register_handler('$method', 'handle')", @plain, $session);
	}
	else
	{
		query($node, "BEGIN; SELECT qml_register_handler('$method', 'handle'); PREPARE TRANSACTION 'p'");
		wake_and_settle(q{COMMIT PREPARED 'p'}, @plain, $session);
	}
	$open->query_safe('COMMIT');
	is_told($session, 't', "a handler is registered ($end) while an enqueue is open: who names the method is told");
	is(scalar(grep { sleeps($_) } @plain), 5, 'who names none is not');
	is(take('comes', $method), '1', 'the job is there');
	query($node, "SELECT pg_cancel_backend($_->{qml_pid})") foreach @plain;
	$_->quit foreach @plain, $session;
}

# ---- a right is granted

{
	query($node, <<'SQL');
CREATE ROLE grows LOGIN;
SELECT qml_create_queue('mine'), qml_create_queue('new'), qml_create_queue('all');
SELECT qml_grant('grows', 'work', 'mine');
SQL
	my $session = sleeper(q{CALL qml_wait(NULL, '1 h')}, 'SET ROLE grows');
	foreach my $grant ([ 'new', q{qml_grant('grows', 'work', 'new')} ], [ 'all', q{qml_grant('grows', 'work')} ])
	{
		my ($queue, $call) = @$grant;
		enqueue($node, 'm', '{}', "queue => '$queue'");
		ok(sleeps($session), 'a job that the role may not have');
		query($node, "SELECT $call");
		is_told($session, 't', "$call: who waits for all queues that it may work is told");
		is(take($queue, 'm'), '1', 'the job is there');
		begin_call($session, q{CALL qml_wait(NULL, '1 h')});
		wait_for('it to sleep', sub { sleeps($session) });
	}
	query($node, "SELECT pg_cancel_backend($session->{qml_pid})");
	$session->quit;
}

# ---- the call of a wait begins before the job, in each isolation level

query($node, <<'SQL');
CREATE FUNCTION slow(result interval) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN
	-- It reads something, and so takes the transaction's snapshot.
	PERFORM count(*) FROM qml.live;
	PERFORM pg_advisory_lock(1);
	PERFORM pg_advisory_unlock(1);
	RETURN result;
END $$;
SQL

foreach my $level ('read committed', 'repeatable read', 'serializable')
{
	# Something happens after the arguments are evaluated, and before the wait begins.
	my $late = sub {
		my ($call, $sql) = @_;
		my $session = new_session($node, 'postgres', on_error_stop => 0);
		$session->query_safe("SET default_transaction_isolation = '$level'");
		$session->{qml_pid} = $session->query_safe('SELECT pg_backend_pid()');
		$open->query_safe('SELECT pg_advisory_lock(1)');
		begin_call($session, $call);
		wait_for('the arguments', sub { ask($node, "SELECT wait_event FROM pg_stat_activity WHERE pid = $session->{qml_pid}") eq 'advisory' });
		query($node, $sql);
		$open->query_safe('SELECT pg_advisory_unlock(1)');
		wait_for('the wait', sub { ask($node, "SELECT wait_event FROM pg_stat_activity WHERE pid = $session->{qml_pid}") ne 'advisory' });
		return $session;
	};
	foreach my $time ('1 h', '0')
	{
		my $session = $late->("CALL qml_wait('slow', slow('$time'))", q{SELECT qml_enqueue('m', queue => 'slow')});
		is_told($session, 't', "$level: qml_wait() for $time sees a job that is older than the wait");
		is(take('slow', 'm'), '1', 'it is there');
		$session->quit;

		my $id = enqueue($node, 'm', '{}', q{queue => 'slow'});
		$session = $late->("CALL qml_wait_for('$id', slow('$time'))", "SELECT qml_delete('$id')");
		is_told($session, 'deleted', "$level: qml_wait_for() for $time sees an end that is older than the wait");
		$session->quit;
	}
	# What others commit while it sleeps.
	my $session = sleeper(q{CALL qml_wait('slow', '1 h')}, "SET default_transaction_isolation = '$level'");
	my $id = enqueue($node, 'm', '{}', q{queue => 'slow'});
	is_told($session, 't', "$level: qml_wait() is told");
	begin_call($session, "CALL qml_wait_for('$id', '1 h')");
	wait_for('it to sleep', sub { sleeps($session) });
	is(take('slow', 'm'), '1', 'the job is fetched');
	is_told($session, 'succeeded', "$level: qml_wait_for() is told");
	$session->quit;
}

# ---- one call about many jobs

query($node, 'CREATE TABLE many AS SELECT array_agg(gen_random_uuid()) AS ids, array_agg(1) AS attempts, array_agg(NULL::text) AS errors FROM generate_series(1, 400000)');
foreach my $call ('qml_succeed_many(ids, attempts)', 'qml_fail_many(ids, attempts, errors)', 'qml_release_many(ids, attempts)',
	'qml_heartbeat_many(ids, attempts)', 'qml_succeed_fetch_many(ids, attempts)')
{
	my $start = time;
	fails_with($node, '57014', "SET statement_timeout = '500 ms'; SELECT count(*) FROM many, $call", "$call ends with its time");
	cmp_ok(time - $start, '<=', 5, sprintf 'at once (%.2f s)', time - $start);
}

$open->quit;
run_log_clean($node, 'no process crashed');
done_testing();
