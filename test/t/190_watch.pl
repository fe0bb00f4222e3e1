# qml_watch: who is told of which change, that none is lost, and that a session which sleeps is
# in nobody's way.

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

# Seconds: who is told, is within milliseconds; who is not sleeps on for much longer.
my $SOON = 10;
my $GATE = 4711;

my $node = background_node('watch', variant => 'faults', conf => <<'CONF');
qml.enabled = off
autovacuum = off
max_connections = 150
CONF
query($node, <<'SQL');
CREATE FUNCTION handle(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$;
CREATE FUNCTION heard(event jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$;
SELECT qml_create_queue(q) FROM unnest('{a,b,c}'::text[]) q;
CREATE ROLE nobody LOGIN;
CREATE ROLE worker LOGIN;
SELECT qml_grant('worker', 'work');
CREATE ROLE sees_all LOGIN;
SELECT qml_grant('sees_all', 'monitor');
CREATE ROLE sees_a LOGIN;
SELECT qml_grant('sees_a', 'monitor', 'a');
CREATE ROLE admin_b LOGIN;
SELECT qml_grant('admin_b', 'admin', 'b');
CREATE ROLE group_a;
SELECT qml_grant('group_a', 'monitor', 'a');
CREATE ROLE hooks LOGIN;
SELECT qml_grant('hooks', 'admin');
GRANT CREATE ON SCHEMA public TO hooks;
SQL
my @ROLES = qw(postgres sees_all sees_a admin_b);

# ---- sessions

sub open_session
{
	my ($role) = @_;
	my $session = new_session($node, 'postgres', on_error_stop => 0);
	$session->{qml_pid} = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe("SET ROLE $role") if defined $role;
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

sub sleeps
{
	my ($session) = @_;
	return ask($node, <<"SQL") eq 't';
SELECT count(*) = 1 FROM pg_stat_activity
WHERE pid = $session->{qml_pid} AND state = 'active' AND query ~ '^CALL' AND wait_event_type = 'Extension'
SQL
}

sub begin_call
{
	my ($session, $call) = @_;
	$session->query_until(qr/^begun$/m, "\\set VERBOSITY sqlstate\n\\echo begun\n$call;\n");
	return;
}

sub version_in { return $_[0]->query_safe('CALL qml_watch()'); }

# Lets a session sleep in the call, from a version on that it has now; longer than it rests.
sub begin_watch
{
	my ($session, $timeout) = @_;
	my $version = version_in($session);
	sleep 0.15;
	begin_call($session, sprintf "CALL qml_watch(%s, '%s')", $version, $timeout // '1 h');
	wait_for('a session to watch', sub { sleeps($session) });
	return $version;
}

# What the call printed.
sub end_of
{
	my ($session) = @_;
	my $output = say_in($session, '\echo');
	return (split /\n/, $output)[0] // '';
}

# Asserts that a session which sleeps is told, and soon.
sub is_told
{
	my ($session, $version, $name) = @_;
	my $start = time;
	my $answer = end_of($session);
	my $seconds = time - $start;
	like($answer, qr/^\d+$/, "$name: the call returns");
	cmp_ok($answer =~ /^\d+$/ ? $answer : 0, '>', $version, "$name: another version");
	cmp_ok($seconds, '<=', $SOON, sprintf '%s: soon (%.2f s)', $name, $seconds);
	return $answer;
}

# How many of some sessions wake up within two seconds.
sub how_many_wake
{
	my (@sleepers) = @_;
	my @before = map { wakeups($_->{qml_pid}) } @sleepers;
	sleep 2;
	return scalar grep { wakeups($sleepers[$_]{qml_pid}) != $before[$_] } 0 .. $#sleepers;
}

sub cancel { return ask($node, "SELECT pg_cancel_backend($_[0]{qml_pid})"); }

# ---- the call

my $owner = open_session();
my $version = version_in($owner);
like($version, qr/^\d+$/, 'the first call returns a version');
cmp_ok($version, '<', 2**53, 'that fits into a floating-point number');
sleep 0.15;
is($owner->query_safe("CALL qml_watch($version, '0')"), $version, 'a time of 0 looks');
is($owner->query_safe("CALL qml_watch($version, '20 ms')"), $version, 'the time is over: the same version');
foreach my $old (0, -1, '-9223372036854775808', 1, $version - 1_000_000_000, $version + 1_000_000_000, '9223372036854775807')
{
	my $start = time;
	cmp_ok($owner->query_safe("CALL qml_watch($old, '1 h')"), '>=', $version, "a version that was not given out ($old) is old");
	cmp_ok(time - $start, '<=', $SOON, 'told at once');
}
foreach my $bad ("'-1 us'", "'3661 days'", 'NULL')
{
	fails_with($node, $bad eq 'NULL' ? '22004' : '22023', "CALL qml_watch(1, $bad)", "a time of $bad is refused");
}
foreach my $call ('BEGIN; CALL qml_watch()', 'BEGIN; SELECT 1; CALL qml_watch()')
{
	like(fails_with($node, '2D000', $call, "$call is refused"), qr/autocommit/, 'and speaks of autocommit');
}
foreach my $role (qw(nobody worker))
{
	like(fails_with($node, '42501', "SET ROLE $role; CALL qml_watch()", "$role may not watch"), qr/"monitor" on at least one queue/, 'and is told why');
}
foreach my $level ('read committed', 'repeatable read', 'serializable')
{
	is(say_in($owner, "SET default_transaction_isolation = '$level'; CALL qml_watch(NULL, '1 h')") =~ /^\d+$/, 1, "$level");
}
like(say_in($owner, 'SET default_transaction_read_only = on; CALL qml_watch()'), qr/^\d+$/, 'in a session that only reads');
$owner->query_safe('RESET default_transaction_isolation; RESET default_transaction_read_only');
like(say_in($owner, <<'SQL'), qr/^$/, 'in a DO block');
DO $$ DECLARE v bigint; w bigint; BEGIN
	CALL qml_watch(v);
	w := v;
	CALL qml_watch(w, '150 ms');
	ASSERT v = w;
END $$
SQL

# ---- who is told of what

my %session = map { $_ => open_session($_) } @ROLES;
my %known;

# Does something, and asserts who is told of it.
sub tells
{
	my ($name, $sql, @told) = @_;
	$known{$_} = version_in($session{$_}) foreach @ROLES;
	sleep 0.15;
	ref $sql ? $sql->() : query($node, $sql);
	my @are = grep { $session{$_}->query_safe("CALL qml_watch($known{$_}, '0')") != $known{$_} } @ROLES;
	is("@are", "@told", "$name is told to: " . ("@told" || 'nobody'));
	return;
}

my @a = qw(postgres sees_all sees_a);
my @b = qw(postgres sees_all admin_b);
my @c = qw(postgres sees_all);
my @ab = @ROLES;
my ($id, $id_b, $server);

tells('nothing', 'SELECT 1');
tells('an enqueue', sub { $id = enqueue($node, 'm', '{}', "queue => 'a'") }, @a);
tells('one in another queue', sub { $id_b = enqueue($node, 'm', '{}', "queue => 'b'") }, @b);
tells('one in a third queue', q{SELECT qml_enqueue('m', queue => 'c')}, @c);
tells('one in two queues', q{SELECT qml_enqueue('m', queue => q) FROM unnest('{a,b}'::text[]) q}, @ab);
tells('a transaction that is rolled back', q{BEGIN; SELECT qml_enqueue('m', queue => 'a'); ROLLBACK});
tells('what a subtransaction has kept',
	q{BEGIN; SAVEPOINT s; SELECT qml_enqueue('m', queue => 'a'); ROLLBACK TO s; SELECT qml_enqueue('m', queue => 'b'); COMMIT}, @b);
tells('a fetch', qq{SELECT qml_fetch('w', 'a', 1)}, @a);
tells('a fetch that finds nothing', q{SELECT qml_fetch('w', '{none}')});
tells('a heartbeat', qq{SELECT qml_heartbeat('$id', 1)});
tells('progress', qq{SELECT qml_progress('$id', 1, '{"done": 1}')}, @a);
tells('success', qq{SELECT qml_succeed('$id', 1)}, @a);
tells('another fetch', sub { $id = query($node, q{SELECT id FROM qml_fetch('w', 'a', 1)}) }, @a);
tells('a failure', sub { query($node, "SELECT qml_fail('$id', 1, 'bad')") }, @a);
tells('a retry', sub { query($node, "SELECT qml_retry('$id')") }, @a);
tells('a delay', qq{SELECT qml_reschedule('$id_b', now() + interval '1 h')}, @b);
tells('another delay', qq{SELECT qml_reschedule('$id_b', now() + interval '2 h')}, @b);
tells('a promotion', sub {
	query($node, "BEGIN; SELECT qml_reschedule('$id_b', now() + interval '1 ms'); SELECT pg_sleep(0.1); COMMIT; SELECT qml_promote_due()") }, @b);
tells('a deletion', sub { query($node, "SELECT qml_delete('$id')") }, @a);
tells('a lease that ends', sub {
	$id = query($node, q{SELECT id FROM qml_fetch('w', 'b', 1, '1 ms')});
	$known{$_} = version_in($session{$_}) foreach @ROLES;
	sleep 0.15;
	is(query($node, 'SELECT qml_reclaim()'), '1', 'a job is reclaimed') }, @b);
tells('another priority', qq{SELECT qml_update_job('$id_b', '{"priority": 7}')}, @b);
tells('a move to another queue', qq{SELECT qml_update_job('$id_b', '{"queue": "a"}')}, @ab);
tells('a pause of all', q{SELECT qml_pause_all()}, @ROLES);
tells('the end of it', q{SELECT qml_resume_all()}, @ROLES);
tells('a paused queue', q{SELECT qml_pause_queue('a')}, @a);
tells('a resumed queue', q{SELECT qml_resume_queue('a')}, @a);
tells('options of a queue', q{SELECT qml_alter_queue('b', '{"max_retries": 3}')}, @b);
tells('a new queue', q{SELECT qml_create_queue('new')}, @c);
tells('a dropped queue', q{SELECT qml_drop_queue('new')}, @c);
tells('a queue that an enqueue makes', q{SELECT qml_enqueue('m', queue => 'made')}, @c);
tells('many queues', q{SELECT qml_enqueue('m', queue => 'many' || n) FROM generate_series(1, 200) n}, @c);
tells('a schedule', q{SELECT qml_schedule_recurring('s', '@daily', 'm', queue => 'a')}, @a);
tells('the same once more', q{SELECT qml_schedule_recurring('s', '@daily', 'm', queue => 'a')});
tells('a schedule that moves', q{SELECT qml_schedule_recurring('s', '@daily', 'm', queue => 'b')}, @ab);
tells('a paused schedule', q{SELECT qml_pause_recurring('s')}, @b);
tells('a resumed schedule', q{SELECT qml_resume_recurring('s')}, @b);
tells('a tick', q{UPDATE qml.recurring_data SET next_run_at = now() - interval '1 min' WHERE id = 's'; SELECT qml_poll_recurring()}, @b);
tells('a tick that makes no job', q{UPDATE qml.recurring_data SET next_run_at = now() - interval '1 min', misfire = 'skip', last_run_at = NULL WHERE id = 's'; SELECT qml_poll_recurring()}, @b);
tells('a schedule that is removed', q{SELECT qml_remove_recurring('s')}, @b);
tells('a server', sub { $server = query($node, q{SELECT qml_register_server('x')}) }, @ROLES);
tells('the heartbeat of a server', sub { query($node, "SELECT qml_heartbeat_server('$server')") });
tells('a silent server', sub {
	query($node, q{UPDATE qml.server_data SET heartbeat_at = now() - interval '1 h'; SELECT qml_reclaim()}) }, @ROLES);
tells('a server that ends', sub { query($node, "SELECT qml_unregister_server('$server')") }, @ROLES);
tells('a handler', q{SELECT qml_register_handler('h', 'handle')}, @ROLES);
tells('a handler that goes', q{SELECT qml_unregister_handler('h')}, @ROLES);
tells('a mark', q{SELECT qml_mark('release')}, @ROLES);
tells('a mark that is rolled back', q{BEGIN; SELECT qml_mark('release'); ROLLBACK});
tells('a named lock', q{SELECT qml_try_lock('l', 'o', '1 h')});
tells('rows of jobs that SQL changes', q{UPDATE qml.live SET priority = 1 WHERE method = 'm'}, @ROLES);
tells('a queue that SQL changes', q{UPDATE qml.queue_data SET paused = true WHERE name = 'b'}, @b);
tells('all queues that SQL changes', q{UPDATE qml.queue_data SET paused = false}, @ROLES);
tells('a right on all queues', q{SELECT qml_grant('nobody', 'enqueue')}, @c);
tells('a right on a queue', q{SELECT qml_grant('nobody', 'enqueue', 'a')}, @a);
tells('the end of it', q{SELECT qml_revoke('nobody', 'enqueue', 'a')}, @c);
tells('the objects of a role', q{SET SESSION AUTHORIZATION nobody; SELECT qml_schedule_recurring('n', '@daily', 'm', queue => 'b'); RESET SESSION AUTHORIZATION}, @b);
tells('that they are dropped', q{SELECT qml_drop_role_objects('nobody')}, @b);

# Prepared transactions, by whoever ends them.
tells('what is prepared', q{BEGIN; SELECT qml_enqueue('m', queue => 'a'); PREPARE TRANSACTION 'p'});
tells('COMMIT PREPARED', q{COMMIT PREPARED 'p'}, @a);
query($node, q{BEGIN; SELECT qml_enqueue('m', queue => 'a'); PREPARE TRANSACTION 'p'});
tells('ROLLBACK PREPARED', q{ROLLBACK PREPARED 'p'});
query($node, q{BEGIN; SELECT qml_pause_queue('a'); PREPARE TRANSACTION 'p'});
tells('COMMIT PREPARED of more than jobs', q{COMMIT PREPARED 'p'}, @ROLES);
query($node, q{BEGIN; SELECT qml_resume_queue('a'); PREPARE TRANSACTION 'p'});
tells('ROLLBACK PREPARED of more than jobs', q{ROLLBACK PREPARED 'p'});
query($node, q{SELECT qml_resume_queue('a')});
query($node, q{BEGIN; SELECT qml_enqueue('m', queue => 'a', priority => n) FROM generate_series(1, 3) n; PREPARE TRANSACTION 'p'});
$_->quit foreach $owner, values %session;
end_sessions($node);
$node->restart;
$owner = open_session();
%session = map { $_ => open_session($_) } @ROLES;
cmp_ok($owner->query_safe("CALL qml_watch($version, '1 h')"), '!=', $version, 'a version of before a restart is old');
tells('COMMIT PREPARED of one from before a restart', q{COMMIT PREPARED 'p'}, @ROLES);

# qml's own queue: a hook of a role that is not the owner.
query($node, <<'SQL');
SET SESSION AUTHORIZATION hooks;
CREATE FUNCTION hears(event jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$;
SELECT qml_register_hook('hears', 'hears', '{deleted}', '{"after_commit": true}');
SQL
tells('a transition with a hook', q{SELECT qml_delete(qml_enqueue('m', queue => 'a'))}, @a);
tells('a job of qml\'s own queue', sub {
	is(query($node, q{SELECT count(qml_delete(j.id)) FROM qml.job j JOIN qml.queue_data q ON q.name = j.queue WHERE q.name LIKE 'qml.%' AND j.state = 'enqueued'}), '1', 'there is one') }, 'postgres');
query($node, q{SELECT qml_unregister_hook('hears')});

# ---- a session that sleeps

my $watcher = open_session();
my $sees_a = open_session('sees_a');
{
	my $since = begin_watch($watcher);
	is(ask($node, "SELECT count(*) FROM pg_locks WHERE pid = $watcher->{qml_pid} AND locktype <> 'virtualxid'"), '0', 'it holds no lock');
	is(ask($node, "SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE pid = $watcher->{qml_pid}"), 't', 'and no snapshot');
	is(best_of(0, sub { how_many_wake($watcher) }), 0, 'while nothing happens it does not wake up');
	query($node, q{SELECT qml_enqueue('m', queue => 'a')});
	is_told($watcher, $since, 'an enqueue');
}
{
	my $since = begin_watch($sees_a);
	my $before = wakeups($sees_a->{qml_pid});
	query($node, "SELECT qml_enqueue('m', queue => 'b')") foreach 1 .. 5;
	is(wakeups($sees_a->{qml_pid}), $before, 'what happens in other queues does not wake it up');
	ok(sleeps($sees_a), 'it sleeps');
	query($node, q{SELECT qml_create_queue('other')});
	query($node, q{SELECT qml_grant('nobody', 'work', 'b')});
	ok(sleeps($sees_a), 'nor does a new queue, or a right of others, end its sleep');
	query($node, q{SELECT qml_enqueue('m', queue => 'a')});
	is_told($sees_a, $since, 'an enqueue in its own queue');
}

# Rights that come and go while it sleeps.
{
	my $since = begin_watch($sees_a);
	query($node, q{SELECT qml_grant('sees_a', 'monitor', 'c')});
	is_told($sees_a, $since, 'a right is granted on a queue');
	$since = begin_watch($sees_a);
	query($node, q{SELECT qml_enqueue('m', queue => 'c')});
	is_told($sees_a, $since, 'and it is told of that queue');
	query($node, q{SELECT qml_grant('sees_a', 'monitor', 'coming')});
	$since = begin_watch($sees_a);
	query($node, q{SELECT qml_enqueue('m', queue => 'coming')});
	is_told($sees_a, $since, 'a queue comes into being that it may see');
	$since = begin_watch($sees_a);
	query($node, q{SELECT qml_grant('sees_a', 'monitor')});
	is_told($sees_a, $since, 'it may see all queues');
	$since = begin_watch($sees_a);
	query($node, q{SELECT qml_enqueue('m', queue => 'b')});
	is_told($sees_a, $since, 'and is told of them');
	begin_watch($sees_a);
	query($node, q{SELECT qml_revoke('sees_a', 'monitor')});
	is(end_of($sees_a), 'ERROR:  42501', 'without any right the call ends with an error');
	query($node, q{GRANT group_a TO sees_a});
	$since = begin_watch($sees_a);
	query($node, q{SELECT qml_enqueue('m', queue => 'a')});
	is_told($sees_a, $since, 'the right may be that of another role');
	begin_watch($sees_a);
	query($node, q{REVOKE group_a FROM sees_a});
	query($node, q{SELECT qml_enqueue('m', queue => 'a')});
	is(end_of($sees_a), 'ERROR:  42501', 'and when it is lost, nothing more is told');
	query($node, q{SELECT qml_grant('sees_a', 'monitor', 'a')});
}

# Ways out; afterwards the same session, and others, are told as before.
foreach my $out (
	[ 'a cancel', sub { cancel($watcher) }, 'ERROR:  57014' ],
	[ 'statement_timeout', undef, 'ERROR:  57014' ])
{
	my ($name, $do, $error) = @$out;
	$watcher->query_safe("SET statement_timeout = '1 s'") unless $do;
	begin_watch($watcher);
	$do->() if $do;
	is(end_of($watcher), $error, "$name ends the call");
	$watcher->query_safe('RESET statement_timeout');
	my $since = begin_watch($watcher);
	query($node, q{SELECT qml_enqueue('m', queue => 'a')});
	is_told($watcher, $since, "after $name");
}
foreach my $how (qw(terminate client))
{
	my $session = open_session();
	begin_watch($session);
	$how eq 'client' ? $session->{run}->signal('KILL') : ask($node, "SELECT pg_terminate_backend($session->{qml_pid})");
	eval { $session->{run}->finish };
	my $seconds = seconds_until('the session to be gone', sub { ask($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{qml_pid}") eq '0' });
	cmp_ok($seconds, '<=', $SOON, sprintf '%s: the session is gone (%.2f s)', $how, $seconds);
	my $since = begin_watch($watcher);
	query($node, q{SELECT qml_enqueue('m', queue => 'a')});
	is_told($watcher, $since, 'others are told');
}

# ---- at most ten times a second

{
	query($node, <<'SQL');
CREATE PROCEDURE count_returns(seconds int, INOUT returns int DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE
	ends timestamptz := clock_timestamp() + make_interval(secs => seconds);
	v bigint;
	w bigint;
BEGIN
	CALL qml_watch(v);
	WHILE clock_timestamp() < ends LOOP
		w := v;
		CALL qml_watch(w, '1 s');
		returns := returns + (v <> w)::int;
		v := w;
	END LOOP;
END $$;
GRANT EXECUTE ON PROCEDURE count_returns TO PUBLIC;
CREATE PROCEDURE enqueue_for(seconds int, queue text) LANGUAGE plpgsql AS $$
DECLARE
	ends timestamptz := clock_timestamp() + make_interval(secs => seconds);
BEGIN
	WHILE clock_timestamp() < ends LOOP
		PERFORM qml_enqueue('m', queue => enqueue_for.queue);
		COMMIT;
	END LOOP;
END $$;
SQL
	my @watchers = map { open_session($_) } ('postgres') x 3, ('sees_a') x 3;
	my $busy = open_session();
	begin_call($busy, q{CALL enqueue_for(5, 'a')});
	sleep 0.5;
	begin_call($_, 'CALL count_returns(3)') foreach @watchers;
	foreach my $session (@watchers)
	{
		my $returns = end_of($session);
		cmp_ok($returns, '<=', 31, "in three busy seconds it returned $returns times");
		cmp_ok($returns, '>=', 5, 'and often enough');
		$session->quit;
	}
	end_of($busy);
	$busy->quit;
}

# ---- no change is lost

# A session looks, or is about to sleep, when a change comes.
foreach my $point (qw(watch.before_look watch.before_sleep))
{
	my $gate = open_session();
	$gate->query_safe("SELECT pg_advisory_lock($GATE)");
	my $session = open_session();
	my $since = version_in($session);
	sleep 0.15;
	$session->query_safe("LOAD 'qml'; SET qml.faults = '$point:wait'");
	begin_call($session, "CALL qml_watch($since, '1 h')");
	wait_for('a session at the gate', sub { ask($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{qml_pid} AND wait_event = 'advisory'") eq '1' });
	query($node, q{SELECT qml_enqueue('m', queue => 'a')});
	# Another one is told first, and takes the mark off.
	cmp_ok(version_in($owner), '>', $since, 'another session is told') if $point eq 'watch.before_look';
	$gate->query_safe("SELECT pg_advisory_unlock($GATE)");
	is_told($session, $since, "a change at $point");
	$_->quit foreach $gate, $session;
}

# Sessions that watch, and others that commit at any time: whoever is told and looks has seen the
# last change when nothing more comes, without another one having to wake it.
{
	my $rounds = 60;
	my @queues = qw(a b);
	query($node, <<'SQL');
CREATE TABLE seen (watcher int PRIMARY KEY, rounds int NOT NULL, told int NOT NULL);
CREATE SEQUENCE made;
GRANT ALL ON seen TO PUBLIC;
-- Ends with the round "last"; each look is one after the call has returned.
CREATE PROCEDURE watch_rounds(me int, queue text, last int) LANGUAGE plpgsql AS $$
DECLARE
	v bigint;
	found int;
	told int := 0;
BEGIN
	LOOP
		CALL qml_watch(v, '10 min');
		told := told + 1;
		SELECT coalesce(max(priority), 0) INTO found FROM qml.job j WHERE j.queue = watch_rounds.queue AND j.method = 'round';
		INSERT INTO seen VALUES (me, found, told) ON CONFLICT (watcher) DO UPDATE SET rounds = excluded.rounds, told = excluded.told;
		COMMIT;
		EXIT WHEN found >= last;
	END LOOP;
END $$;
-- A round: some commits in quick succession, in both queues, and a last one in each.
CREATE PROCEDURE make_round(round int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. (random() * 6)::int LOOP
		PERFORM qml_enqueue('noise', queue => CASE WHEN random() < 0.5 THEN 'a' ELSE 'b' END);
		COMMIT;
		PERFORM pg_sleep(random() * 0.03);
	END LOOP;
	PERFORM qml_enqueue('round', queue => q, priority => round) FROM unnest(CASE WHEN random() < 0.5 THEN '{a,b}' ELSE '{b,a}' END::text[]) q;
	COMMIT;
END $$;
SQL
	query($node, q{SELECT qml_delete(id) FROM qml.job WHERE state <> 'deleted'});
	my @sessions;
	foreach my $number (0 .. 11)
	{
		my $session = open_session([ 'postgres', 'sees_all', 'sees_a', 'admin_b' ]->[ $number % 4 ]);
		my $queue = $number % 4 == 3 ? 'b' : 'a';
		begin_call($session, "CALL watch_rounds($number, '$queue', $rounds)");
		push @sessions, $session;
	}
	my $lost = 0;
	foreach my $round (1 .. $rounds)
	{
		query($node, "CALL make_round($round)");
		my $start = time;
		# Each sees the round, or sleeps beside it until the end of its ten minutes.
		my $seen = 0;
		while (!$seen && time - $start < 20)
		{
			$seen = ask($node, "SELECT count(*) = 12 FROM seen WHERE rounds >= $round") eq 't';
			sleep 0.002 unless $seen;
		}
		$lost++ unless $seen;
		last unless $seen;
	}
	is($lost, 0, "in $rounds rounds all sessions saw the last change") or diag(query($node, 'SELECT * FROM seen ORDER BY 1'));
	note(query($node, q{SELECT string_agg(told::text, ' ' ORDER BY watcher) FROM seen}) . ' times told');
	if ($lost)
	{
		cancel($_) foreach @sessions;
	}
	end_of($_), $_->quit foreach @sessions;
}

# ---- a hundred sessions

{
	my @sessions = map { open_session() } 1 .. 100;
	my @since = map { version_in($_) } @sessions;
	sleep 0.15;
	begin_call($sessions[$_], "CALL qml_watch($since[$_], '1 h')") foreach 0 .. $#sessions;
	wait_for('all to sleep', sub { ask($node, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query ~ '^CALL qml_watch'}) eq '100' });
	# A busy machine may let them fall asleep a little later than they say so.
	is(best_of(0, sub { how_many_wake(@sessions) }), 0, 'none of a hundred wakes up while nothing happens');
	my $start = time;
	query($node, q{SELECT qml_enqueue('m', queue => 'a')});
	my @told = grep { end_of($sessions[$_]) =~ /^\d+$/ } 0 .. $#sessions;
	is(scalar @told, 100, sprintf 'all are told (%.2f s)', time - $start);
	$_->quit foreach @sessions;
}

# ---- the background processes

{
	my $since = begin_watch($watcher);
	set_config($node, 'qml.enabled' => 'on', 'qml.workers' => 1);
	wait_for_process($node, 'scheduler', 'postgres');
	$since = is_told($watcher, $since, 'a scheduler that starts');
	handler($node, 'reports', q{CREATE FUNCTION reports(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		PERFORM qml_progress('{"half": true}');
		PERFORM pg_advisory_xact_lock(1);
	END $$});
	my $gate = open_session();
	$gate->query_safe('SELECT pg_advisory_lock(1)');
	my $job = enqueue($node, 'reports', '{}', "queue => 'a'");
	my $progress;
	# Only when it is told is it looked at the job.
	for (my $told = 0; $told < 20 && !$progress; $told++)
	{
		$since = $watcher->query_safe("CALL qml_watch($since, '5 s')");
		$progress = ask($node, "SELECT progress IS NOT NULL FROM qml_job('$job')") eq 't';
	}
	ok($progress, 'a job in the database: who watches sees its progress');
	$gate->query_safe('SELECT pg_advisory_unlock(1)');
	my $state = '';
	for (my $told = 0; $told < 20 && $state ne 'succeeded'; $told++)
	{
		$since = $watcher->query_safe("CALL qml_watch($since, '5 s')");
		$state = ask($node, "SELECT state FROM qml_job('$job')");
	}
	is($state, 'succeeded', 'and its end');
	$gate->quit;
	# When nothing is left to do, nothing is told.
	wait_idle($node);
	my $same = 0;
	for (my $tries = 0; $tries < 20 && !$same; $tries++)
	{
		my $next = $watcher->query_safe("CALL qml_watch($since, '5 s')");
		$same = $next == $since;
		$since = $next;
	}
	ok($same, 'an idle database tells nothing for five seconds');
	begin_watch($watcher);
	set_config($node, 'qml.enabled' => 'off');
	wait_without($node, 'postgres');
	like(end_of($watcher), qr/^\d+$/, 'a scheduler that ends');
}

# ---- other databases; what is dropped

{
	query($node, 'CREATE DATABASE other');
	query($node, 'CREATE EXTENSION qml; SELECT qml_create_queue(q) FROM unnest($${a,b}$$::text[]) q', 'other');
	my $other = new_session($node, 'other', on_error_stop => 0);
	$other->{qml_pid} = $other->query_safe('SELECT pg_backend_pid()');
	my $since = begin_watch($watcher);
	my $since_other = begin_watch($other);
	query($node, q{SELECT qml_enqueue('m', queue => 'a')}, 'other');
	is_told($other, $since_other, 'a change in its own database');
	ok(sleeps($watcher), 'who watches another database is not told');
	query($node, q{SELECT qml_enqueue('m', queue => 'a')});
	is_told($watcher, $since, 'but of its own');

	# Room for one database.
	$since = begin_watch($watcher);
	query($node, 'CREATE DATABASE third TEMPLATE template0');
	query($node, 'CREATE EXTENSION qml', 'third');
	my $third = new_session($node, 'third', on_error_stop => 0);
	$third->query_safe(q{LOAD 'qml'; SET qml.faults = 'watch.databases:limit:1'});
	is(say_in($third, 'CALL qml_watch()'), 'ERROR:  53400', 'no room for another database while one is watched');
	query($node, q{SELECT qml_enqueue('m', queue => 'a')});
	is_told($watcher, $since, 'which that does not disturb');
	like(say_in($third, 'CALL qml_watch()'), qr/^\d+$/, 'when nobody watches there is room');
	my $start = time;
	cmp_ok($watcher->query_safe("CALL qml_watch($since, '1 h')"), '>', $since, 'and a version of the first one is old');
	cmp_ok(time - $start, '<=', $SOON, 'told at once');
	$third->quit;

	begin_watch($other);
	my $seconds = seconds_until('the extension to be dropped', sub { query($node, 'DROP EXTENSION qml CASCADE', 'other'); 1 });
	cmp_ok($seconds, '<=', $SOON, sprintf 'a session that watches is not in the way of DROP EXTENSION (%.2f s)', $seconds);
	cancel($other);
	is(end_of($other), 'ERROR:  57014', 'it sleeps on');
	query($node, 'CREATE EXTENSION qml', 'other');
	like(say_in($other, 'CALL qml_watch()'), qr/^\d+$/, 'and can watch the extension when it is made again');
	begin_watch($other, '2 s');
	query($node, 'DROP EXTENSION qml CASCADE', 'other');
	is(end_of($other), 'ERROR:  55000', 'or ends with an error when its time is over');
	query($node, 'CREATE EXTENSION qml', 'other');
	begin_watch($other);
	$seconds = seconds_until('the database to be dropped', sub { query($node, 'DROP DATABASE other WITH (FORCE)'); 1 });
	cmp_ok($seconds, '<=', $SOON, sprintf 'nor of DROP DATABASE WITH (FORCE) (%.2f s)', $seconds);
	eval { $other->quit };
}

# ---- the end of the server

{
	my $since = begin_watch($watcher);
	my $victim = open_session();
	begin_watch($victim);
	# After a crash nothing is known of before.
	kill 'KILL', $victim->{qml_pid};
	eval { $victim->{run}->finish };
	eval { $_->{run}->finish } foreach $watcher, $owner, $sees_a, values %session;
	eval { end_sessions($node) };
	wait_for('the restart', sub { defined try_query($node, 'SELECT qml_counts()') });
	$watcher = open_session();
	my $start = time;
	cmp_ok($watcher->query_safe("CALL qml_watch($since, '1 h')"), '!=', $since, 'a version of before a crash is old');
	cmp_ok(time - $start, '<=', $SOON, 'told at once');
	begin_watch($watcher);
	end_sessions($node);
	my $seconds = seconds_until('the server to stop', sub { $node->stop('fast'); 1 });
	cmp_ok($seconds, '<=', $SOON, sprintf 'a session that watches is not in the way of a shutdown (%.2f s)', $seconds);
	eval { $watcher->{run}->finish };
}

# ---- without shared memory

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->start;
like(fails_with($node, '55000', 'CALL qml_watch()', 'where qml is not preloaded'), qr/shared_preload_libraries/, 'with a hint');
end_sessions($node);
done_testing();
