# Many sessions that wait for jobs: as many are woken as there are jobs, none sleeps beside a
# job, whatever becomes of those that were woken, and whose client has gone is gone.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use List::Util qw(max min sum0);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $MANY = 500;
my $FEW = 2;
my $JOBS = 200;
my $WARM = 1000;

my $node = background_node('crowd', conf => <<'CONF');
qml.workers = 1
max_connections = 620
autovacuum = off
CONF
wait_for_process($node, 'scheduler', 'postgres');

# ---- crowds

my $crowds = 0;

# So many sessions that wait; options: queues, methods, and flags of the program.
sub begin_crowd
{
	my ($sessions, %opt) = @_;
	my %crowd = (name => 'crowd' . ++$crowds, in => '', out => '', err => '');
	$crowd{handle} = IPC::Run::start(
		[
			client_file('crowd'), @{ $opt{flags} // [] }, $node->connstr('postgres') . " application_name=$crowd{name}",
			$sessions, $opt{queues} // '{crowd}', $opt{methods} // ()
		],
		'<', \$crowd{in}, '>', \$crowd{out}, '2>', \$crowd{err});
	$crowd{handle}->pump until $crowd{out} =~ /^waiting$/m;
	return \%crowd;
}

# How many sessions of all crowds sleep.
sub sleepers
{
	return ask($node, <<'SQL');
SELECT count(*) FROM pg_stat_activity
WHERE application_name LIKE 'crowd%' AND state = 'active' AND wait_event_type = 'Extension'
SQL
}

sub wait_for_sleepers
{
	my ($count) = @_;
	wait_for("$count sessions to wait", sub { sleepers() == $count });
	return;
}

# What the crowd counted: told, empty, errors, served, latencies in milliseconds.
sub end_crowd
{
	my ($crowd) = @_;
	IPC::Run::finish($crowd->{handle});
	my %count = $crowd->{out} =~ /^(told|empty|errors|served) (\d+)$/mg;
	my @microseconds = $crowd->{out} =~ /^(\d+)$/mg;
	$count{jobs} = @microseconds;
	# Without those that do not say when they were enqueued.
	$count{latencies} = [ map { $_ / 1000 } grep { $_ < 1e12 } @microseconds ];
	wait_for('its sessions to end', sub { ask($node, "SELECT count(*) FROM pg_stat_activity WHERE application_name = '$crowd->{name}'") eq '0' });
	return \%count;
}

sub wait_for_no_jobs
{
	wait_for('all jobs to be done', sub { ask($node, 'SELECT count(*) FROM qml.live') eq '0' });
	return;
}

# Enqueues so many jobs, each in a transaction of its own; returns the processor time that
# the server needs for each, in microseconds: on a busy machine all else takes longer.  That
# of the best batch: others empty the caches of the processor now and then.
sub enqueue_one_by_one
{
	my ($jobs, $queue) = @_;
	my $batch = 20;
	my $used = "\\o\nSELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1);\n\\o /dev/null\n";
	my $enqueue = "SELECT qml_enqueue('m', jsonb_build_object('at', extract(epoch FROM clock_timestamp())), queue => '$queue');\n";
	my $pause = "SELECT pg_sleep(0.005);\n";
	my @used = split /\n/, query($node, "\\o /dev/null\n" . (($enqueue . $pause) x $batch . $used) x ($jobs / $batch));
	# The first ones fill the session's caches.
	return min(map { $used[$_] - $used[ $_ - 1 ] } 1 .. $#used) / $batch / 1000;
}

# ---- how many are woken, and how fast

{
	my (%us, %count);

	$us{0} = enqueue_one_by_one($JOBS, 'nobody');
	query($node, 'DELETE FROM qml.live');
	foreach my $sessions ($FEW, $MANY)
	{
		my $crowd = begin_crowd($sessions);
		wait_for_sleepers($sessions);
		# Each session fills its caches.
		ask($node, qq{SELECT count(*) FROM qml_enqueue_many('m', array_fill('{"at": 0}'::jsonb, ARRAY[$WARM]), 'crowd')});
		wait_for_no_jobs();
		wait_for_sleepers($sessions);
		$us{$sessions} = enqueue_one_by_one($JOBS, 'crowd');
		wait_for_no_jobs();
		my $count = end_crowd($crowd);
		$count{$sessions} = $count;
		is($count->{jobs}, $WARM + $JOBS, "$sessions sessions: all jobs are fetched");
		is($count->{errors}, 0, 'without an error');
		# Whoever waits again looks, and may see a job that another one is about to fetch.
		cmp_ok($count->{empty}, '<=', 2 * ($WARM + $JOBS), "$count->{empty} fetches get nothing");
		cmp_ok($count->{told}, '<=', 3 * ($WARM + $JOBS), "$count->{told} sessions are told");
		cmp_ok($count->{served}, '<=', $JOBS / 2, "those that have just ended a job are told again ($count->{served} of $sessions)");
		note(sprintf '%d sessions: enqueue %.1f us, to the fetch median %.2f ms, p99 %.2f ms', $sessions, $us{$sessions},
			percentile(50, @{ $count->{latencies} }), percentile(99, @{ $count->{latencies} }));
	}
	# What a busy machine does besides is in the times, too; "make bench" measures on an idle one.
	foreach my $percent (50, 99)
	{
		my ($few, $many) = map { percentile($percent, @{ $count{$_}{latencies} }) } $FEW, $MANY;
		cmp_ok($many, '<=', 2 * $few + ($percent == 50 ? 2 : 20), sprintf 'with many it takes about as long as with few: p%d %.2f and %.2f ms', $percent, $many, $few);
	}
	# The machine may have become busier meanwhile.
	$us{0} = max($us{0}, enqueue_one_by_one($JOBS, 'nobody'));
	query($node, 'DELETE FROM qml.live');
	# To wake them all took milliseconds.  How little it takes can be seen on an idle machine only.
	cmp_ok($us{$MANY}, '<=', 2.5 * $us{0} + 100, sprintf 'an enqueue costs about as much as if nobody waited (%.1f and %.1f us)', $us{$MANY}, $us{0});
	# Those that wait for something else cost nothing, even if by their signs they could wait for it.
	foreach my $queues (1, 20)
	{
		my $crowd = begin_crowd($MANY, queues => '{crowd' . join('', map { ",crowd$_" } 2 .. $queues) . '}');
		wait_for_sleepers($MANY);
		my $used = enqueue_one_by_one($JOBS, 'nobody');
		is(end_crowd($crowd)->{told}, 0, "who waits for other queues is not told: $queues");
		query($node, 'DELETE FROM qml.live');
		my $base = max($us{0}, enqueue_one_by_one($JOBS, 'nobody'));
		query($node, 'DELETE FROM qml.live');
		cmp_ok($used, '<=', 2.5 * $base + 100, sprintf 'and costs nothing (%.1f us, with nobody %.1f us)', $used, $base);
	}
}

# Several in one go, and more than there are sessions.
{
	my $crowd = begin_crowd($MANY);
	wait_for_sleepers($MANY);
	my $pids = ask($node, "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name = '$crowd->{name}'");
	my $before = sum0(map { wakeups($_) } split / /, $pids);
	ask($node, q{SELECT count(*) FROM qml_enqueue_many('m', array_fill('{"at": 0}'::jsonb, ARRAY[3]), 'crowd')});
	wait_for_no_jobs();
	# The guards have looked.
	wait_quiet(split / /, $pids);
	my $woken = sum0(map { wakeups($_) } split / /, $pids) - $before;
	cmp_ok($woken, '<=', 60, "for three jobs the sessions go to sleep again $woken times");
	my $out = $crowd->{out};
	ask($node, q{SELECT count(*) FROM qml_enqueue_many('m', array_fill('{"at": 0}'::jsonb, ARRAY[1000]), 'crowd')});
	wait_for_no_jobs();
	my $count = end_crowd($crowd);
	is($count->{jobs}, 1003, 'a thousand jobs at once are fetched');
	cmp_ok($count->{empty}, '<=', $MANY + 20, "$count->{empty} fetches get nothing");
}

# ---- whom a wake-up reaches

# As long as one session can do all the work, one does; but not the same one for ever.
{
	my $crowd = begin_crowd(5);
	wait_for_sleepers(5);
	# Longer than a turn, and than two of them.
	my $start = time;
	do { enqueue_one_by_one(100, 'crowd'); } until time - $start > 5;
	wait_for_no_jobs();
	my $count = end_crowd($crowd);
	cmp_ok($count->{served}, '>=', 2, "each has its turn ($count->{served} of 5)");
}

# Who fetches elsewhere, or ends its jobs late, is told in its turn.
foreach my $flag ('-e', '-l')
{
	my $crowd = begin_crowd(10, flags => [$flag]);
	wait_for_sleepers(10);
	# Shorter than the turn of a warm session.
	enqueue_one_by_one(60, 'crowd');
	wait_for('all jobs to be fetched', sub { ask($node, q{SELECT count(*) FROM qml.live WHERE state = 'enqueued'}) eq '0' });
	my $count = end_crowd($crowd);
	is("$count->{jobs} $count->{errors}", '60 0', "$flag: all jobs are fetched");
	cmp_ok($count->{served}, '>=', 8, "by all sessions ($count->{served} of 10)");
	query($node, 'DELETE FROM qml.live');
}

# A session with a short timeout keeps its place from wait to wait, beside one with a long timeout.
{
	my @crowds = map { my $crowd = begin_crowd(1, flags => [ '-t', $_ ]); wait_for_sleepers(1) if $_ eq '1 h'; $crowd } '1 h', '1 s';
	wait_for_sleepers(2);
	foreach my $job (1 .. 4)
	{
		# None is warm any more, and the short wait has begun again since.
		sleep 2.3 if $job > 1;
		enqueue($node, 'm', '{"at": 1}', q{queue => 'crowd'});
		wait_for_no_jobs();
	}
	my @jobs = map { end_crowd($_)->{jobs} } @crowds;
	is(sum0(@jobs), 4, 'a long and a short timeout: all jobs are fetched');
	cmp_ok(min(@jobs), '>=', 1, "by both sessions (@jobs)");
}

# Waits until none of the processes has done anything for longer than a guard waits.
sub wait_quiet
{
	my (@pids) = @_;
	my ($last, $since) = (-1, 0);
	wait_for('the sessions to be quiet', sub {
		my $now = sum0(map { wakeups($_) } @pids);
		($last, $since) = ($now, time) if $now != $last;
		return time - $since > 0.5;
	});
	return;
}

# A session of psql that waits.
sub waiter
{
	my ($call, $setup) = @_;
	my $session = new_session($node, 'postgres', on_error_stop => 0);
	$session->query_safe($setup) if $setup;
	$session->{qml_pid} = $session->query_safe('SELECT pg_backend_pid()');
	call($session, $call);
	return $session;
}

sub call
{
	my ($session, $call) = @_;
	$session->query_until(qr/^begun$/m, "\\echo begun\n$call;\n");
	wait_for("a session to wait in $call", sub { is_waiting($session) });
	return;
}

sub is_waiting
{
	my ($session) = @_;
	return ask($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{qml_pid} AND state = 'active' AND wait_event_type = 'Extension'") eq '1';
}

sub answer
{
	my ($session) = @_;
	my $out = $session->query('\echo');
	$session->{stderr} = '';
	return (split /\n/, $out)[0] // '';
}

sub make_job { return enqueue($node, 'm', '{}', "queue => '$_[0]'"); }

sub take { return ask($node, "SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('t', '{$_[0]}', 100)"); }

# One is told; as long as nobody fetches, the next, and the next.
{
	my @sessions = map { waiter(q{CALL qml_wait('{a}', '1 h')}) } 1 .. 3;
	my $start = time;
	make_job('a');
	wait_for('one to be told', sub { grep { !is_waiting($_) } @sessions });
	my @times;
	foreach my $count (2, 3)
	{
		wait_for("$count to be told", sub { grep({ !is_waiting($_) } @sessions) >= $count });
		push @times, time - $start;
	}
	cmp_ok($times[1], '<=', 10, sprintf 'of a job that nobody fetches all hear, one after the other (%.2f s, %.2f s)', @times);
	is(answer($_), 't', 'with the right answer') foreach @sessions;
	is(take('a'), '1', 'the job is still there');

	# If it is fetched, the others sleep on.
	call($_, q{CALL qml_wait('{a}', '1 h')}) foreach @sessions;
	make_job('a');
	wait_for('one to be told', sub { grep { !is_waiting($_) } @sessions });
	is(take('a'), '1', 'the job is fetched');
	wait_quiet(map { $_->{qml_pid} } grep { is_waiting($_) } @sessions);
	my @told = grep { !is_waiting($_) } @sessions;
	cmp_ok(scalar @told, '<=', 2, 'and not all are told');
	query($node, "SELECT pg_cancel_backend($_->{qml_pid})") foreach @sessions;
	answer($_) foreach @sessions;

	# Whoever was told and fetches something else passes it on at once.
	my ($first, $second) = @sessions;
	call($first, q{CALL qml_wait('{a}', '1 h')});
	make_job('a');
	is(answer($first), 't', 'one is told');
	call($second, q{CALL qml_wait('{b}', '1 h')});
	query($node, "SELECT pg_cancel_backend($second->{qml_pid})");
	answer($second);
	take('a');
	call($_, q{CALL qml_wait('{a,b}', '1 h')}) foreach $first, $second;
	make_job('b');
	wait_for('one to be told', sub { grep { !is_waiting($_) } $first, $second });
	($first, $second) = ($second, $first) if is_waiting($first);
	is(answer($first), 't', 'of a job of b');
	is($first->query(q{SELECT count(*) FROM qml_fetch('w', '{a}')}), '0', 'it looks into a');
	is(answer($second), 't', 'the other one hears of it');
	take('b');

	# One that ends passes it on; it may have been told already.
	foreach my $way ('pg_cancel_backend', 'pg_terminate_backend')
	{
		my ($other) = grep { $_ != $first && $_ != $second } @sessions;
		call($_, q{CALL qml_wait('{a}', '1 h')}) foreach $second, $other;
		ask($node, "SELECT $way($second->{qml_pid}), qml_enqueue('m', queue => 'a')");
		is(answer($other), 't', "$way of one beside a new job: the other one is told");
		take('a');
		if ($way eq 'pg_cancel_backend') { answer($second); }
		else { eval { $second->quit }; }
	}
	$_->quit foreach grep { $_ != $second } @sessions;
}

# Those that may not work the queue, or seem to wait for it, do not keep it from the others.
{
	query($node, <<'SQL');
CREATE ROLE of_a LOGIN;
SELECT qml_create_queue('b') WHERE NOT EXISTS (SELECT FROM qml.queue WHERE name = 'b');
SELECT qml_grant('of_a', 'work', 'a');
SQL
	my $crowd = begin_crowd(20, queues => '{a,' . join(',', map { "x$_" } 1 .. 400) . '}');
	my @others = map { waiter(q{CALL qml_wait(NULL, '1 h')}, 'SET ROLE of_a') } 1 .. 3;
	my $session = waiter(q{CALL qml_wait('{b}', '1 h')});
	foreach my $round (1 .. 10)
	{
		call($session, q{CALL qml_wait('{b}', '1 h')}) if $round > 1;
		make_job('b');
		is(answer($session), 't', 'the one that waits for the queue is told');
		take('b');
	}
	is(scalar(grep { is_waiting($_) } @others), 3, 'the others sleep on');
	$_->quit foreach $session;
	query($node, "SELECT pg_terminate_backend($_->{qml_pid})") foreach @others;
	foreach my $other (@others) { eval { $other->quit }; }
	is(end_crowd($crowd)->{told}, 0, 'and nobody was told for nothing');
}

# By methods: who names others, or none where there is a handler, is not told.
{
	handler($node, 'handled', 'CREATE FUNCTION handled(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$');
	my $crowd = begin_crowd(20, queues => '{d}', methods => '{x,y}');
	my $many = begin_crowd(20, queues => '{d}', methods => '{' . join(',', map { "m$_" } 1 .. 400) . '}');
	my %session = (
		'{z}' => waiter(q{CALL qml_wait('{d}', '1 h', '{z}')}),
		'{handled}' => waiter(q{CALL qml_wait('{d}', '1 h', methods => '{z,handled}')}),
		'none' => waiter(q{CALL qml_wait('{d}', '1 h')}));
	# The handler's worker must not be faster.
	query($node, q{ALTER SYSTEM SET qml.workers = 0});
	$node->reload;
	foreach my $round (1 .. 5)
	{
		enqueue($node, 'z', '{}', q{queue => 'd'});
		wait_for('one to be told', sub { grep { !is_waiting($session{$_}) } '{z}', '{handled}', 'none' });
		is(ask($node, q{SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('t', 'd', methods => '{z}')}), '1', 'a job of z');
		foreach my $name (sort keys %session)
		{
			next if is_waiting($session{$name});
			is(answer($session{$name}), 't', "who waits for $name is told");
			call($session{$name}, "CALL qml_wait('{d}', '1 h'" . ($name eq 'none' ? ')' : ", '$name')"));
		}
	}
	enqueue($node, 'handled', '{}', q{queue => 'd'});
	wait_for('the one that names the method to be told', sub { !is_waiting($session{'{handled}'}) });
	wait_quiet($session{none}{qml_pid});
	ok(is_waiting($session{none}), 'a job with a handler is not for who names no method');
	query($node, q{SELECT qml_unregister_handler('handled')});
	is(answer($session{none}), 't', 'until the method has no handler any more');
	answer($session{'{handled}'});
	query($node, 'DELETE FROM qml.live');
	enqueue($node, 'x', '{"at": 0}', q{queue => 'd'});
	wait_for_no_jobs();
	is(end_crowd($many)->{told}, 0, 'who names many others is not told at all');
	is(end_crowd($crowd)->{told}, 1, 'who names two others hears of these alone');
	query($node, "SELECT pg_terminate_backend($session{'{z}'}{qml_pid})");
	eval { $session{'{z}'}->quit };
	$session{$_}->quit foreach '{handled}', 'none';
}

# ---- sessions that are killed

# One job comes while half of those that sleep are canceled, terminated, or lose their clients.
# Nobody fetches, so each of the others must hear of it, whoever was told first.
{
	my @calls = (q{CALL qml_wait('{k}', '1 h')}, q{CALL qml_wait(NULL, '1 h')}, q{CALL qml_wait('{j,k}', '1 h')},
		q{CALL qml_wait('{k}', '1 h', '{m,n}')});
	my @sessions;
	my $slowest = 0;
	query($node, 'DELETE FROM qml.live');
	foreach my $round (1 .. 16)
	{
		my $way = ('pg_cancel_backend', 'pg_terminate_backend')[ $round % 2 ];
		push @sessions, waiter($calls[pick(0, $#calls)]) while @sessions < 8;
		wait_for('all to sleep', sub { 8 == grep { is_waiting($_) } @sessions });
		my @victims = splice @sessions, 0, 4;
		# Two of them before the job, and two after it; the numbers of sessions go round.
		my @pids = map { $_->{qml_pid} } @victims;
		query($node, "SELECT $way($pids[0]), $way($pids[1]), qml_enqueue('m', queue => 'k'), $way($pids[2]); SELECT $way($pids[3])");
		if ($round % 4 == 0)
		{
			$sessions[0]{run}->signal('KILL');
			eval { $sessions[0]{run}->finish };
			push @victims, shift @sessions;
		}
		my $seconds = seconds_until("round $round: those that are left to be told", sub { !grep { is_waiting($_) } @sessions });
		$slowest = max($slowest, $seconds);
		my @answers = map { answer($_) } @sessions;
		is("@answers", join(' ', ('t') x @sessions), "round $round: $way of some: the others are told");
		is(take('k'), '1', 'of one job, which is there');
		foreach my $session (@victims) { eval { $session->quit }; }
		# Those that were told wait again, behind the new ones.
		call($_, $calls[pick(0, $#calls)]) foreach @sessions;
	}
	cmp_ok($slowest, '<=', 10, sprintf 'the slowest took %.2f s', $slowest);
	query($node, "SELECT pg_terminate_backend($_->{qml_pid})") foreach @sessions;
	foreach my $session (@sessions) { eval { $session->quit }; }
}

# ---- clients that have gone

{
	is(query($node, 'SHOW client_connection_check_interval'), '0', 'the server does not look after its clients');
	my $id = enqueue($node, 'm', '{}', "queue => 'gone', run_at => now() + interval '1 d'");
	foreach my $call (q{CALL qml_wait('{gone}', '1 h')}, "CALL qml_wait_for('$id', '1 h')")
	{
		my $seconds = best_of(1, sub {
			my $session = waiter($call);
			my $pid = $session->{qml_pid};
			$session->{run}->signal('KILL');
			eval { $session->{run}->finish };
			return seconds_until('the session to be gone', sub { ask($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") eq '0' });
		});
		cmp_ok($seconds, '<=', 1, sprintf '%s: a session ends when its client is gone (%.2f s)', $call =~ s/'.*//r, $seconds);
	}
	like(slurp_file($node->logfile), qr/FATAL:  connection to client lost/, 'the log says so');
}

# ---- read-only sessions, times

{
	my $id = enqueue($node, 'm', '{}', "queue => 'c', run_at => now() + interval '1 d'");
	my $session = waiter(q{CALL qml_wait('{c}', '1 h')}, 'SET default_transaction_read_only = on');
	ask($node, "SELECT qml_retry('$id')");
	is(answer($session), 't', 'a session that only reads can wait');
	is($session->query("CALL qml_wait_for('$id', '10 ms')"), 'enqueued', 'for the end of a job, too');
	is($session->query(q{CALL qml_wait('{c}', '0')}), 't', 'a time of 0 looks');
	is($session->query(q{CALL qml_wait('{gone}', '0')}), 'f', 'and does not wait');
	is($session->query("CALL qml_wait_for('$id', '0')"), 'enqueued', 'for the end of a job, too');
	$session->quit;
	foreach my $bad ("'-1 us'", "'3661 days'", 'NULL')
	{
		my $code = $bad eq 'NULL' ? '22004' : '22023';
		fails_with($node, $code, "CALL qml_wait('{c}', $bad)", "qml_wait: a time of $bad is refused");
		fails_with($node, $code, "CALL qml_wait_for('$id', $bad)", "qml_wait_for: a time of $bad is refused");
	}
	like(fails_with($node, '2D000', "BEGIN; CALL qml_wait('{c}')", 'qml_wait in a transaction block'), qr/autocommit/, 'speaks of autocommit');
	like(fails_with($node, '2D000', "BEGIN; CALL qml_wait_for('$id')", 'qml_wait_for in a transaction block'), qr/autocommit/, 'speaks of autocommit');
}

run_log_clean($node, 'no process crashed');
done_testing();
