# Jobs follow the transaction that touched them: prepared transactions, also
# across a crash, the stricter isolation levels, and many subtransactions.
# Nothing ever waits for a row that a prepared transaction holds.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlCalls;
use QmlTest;
use Test::More;

my $node = new_node('transactions');
my $serial = 0;

# No call may wait for long, whatever others hold.
my $PROMPT = "SET statement_timeout = '5 s'; SET lock_timeout = '1 s';";

sub id
{
	return sprintf '01890000-0000-7000-8000-%012d', ++$serial;
}

sub enqueue
{
	my (%arg) = @_;
	my $id = $arg{id} // id();
	my $run_at = $arg{run_at} // 'NULL';
	ask($node,
		"SELECT qml_enqueue('t', queue => '$arg{queue}', run_at => $run_at, id => '$id')"
	);
	return $id;
}

# Empty when there is no such job.
sub state_of
{
	my ($id) = @_;
	return ask($node, "SELECT state FROM qml.job WHERE id = '$id'");
}

sub prepare
{
	my ($name, $sql) = @_;
	return ask($node, "BEGIN; $sql; PREPARE TRANSACTION '$name'");
}

sub commit { return ask($node, "COMMIT PREPARED '$_[0]'"); }
sub rollback { return ask($node, "ROLLBACK PREPARED '$_[0]'"); }

# What a transaction may do to a job, the state it is done in, and the state
# that follows.
my %VERB = (
	enqueue => [ undef, "SELECT qml_enqueue('t', queue => 'QUEUE', id => 'ID')", 'enqueued' ],
	fetch => [ 'enqueued', "SELECT id FROM qml_fetch('w', ARRAY['QUEUE'])", 'processing' ],
	succeed => [ 'processing', "SELECT qml_succeed('ID', 1)", 'succeeded' ],
	fail => [ 'processing', "SELECT qml_fail('ID', 1, 'oops')", 'awaiting_retry' ],
	fail_final =>
	  [ 'processing', "SELECT qml_fail('ID', 1, 'oops', retry => false)", 'failed' ],
	release => [ 'processing', "SELECT qml_release('ID', 1)", 'enqueued' ],
	delete => [ 'enqueued', "SELECT qml_delete('ID')", 'deleted' ],
	schedule =>
	  [ 'enqueued', "SELECT qml_reschedule('ID', now() + interval '1 h')", 'scheduled' ],
);

# Brings a job into the state in which the verb applies.
sub job_for
{
	my ($verb, $queue) = @_;
	my $before = $VERB{$verb}[0];

	return id() unless defined $before;
	my $id = enqueue(queue => $queue);
	ask($node, "SELECT id FROM qml_fetch('w', ARRAY['$queue'], 1, '1 h')")
	  if $before eq 'processing';
	return $id;
}

sub statement_for
{
	my ($verb, $id, $queue) = @_;
	return $VERB{$verb}[1] =~ s/ID/$id/gr =~ s/QUEUE/$queue/gr;
}

my %across_crash;

foreach my $verb (sort keys %VERB)
{
	my ($before, undef, $after) = @{ $VERB{$verb} };

	foreach my $end (qw(commit rollback))
	{
		my $name = "${verb}_$end";
		my $id = job_for($verb, $name);

		prepare($name, statement_for($verb, $id, $name));
		is(state_of($id), $before // '', "$name: nothing is seen before the end");
		$end eq 'commit' ? commit($name) : rollback($name);
		is(state_of($id), $end eq 'commit' ? $after : $before // '',
			"$name: the job is as the transaction ended");

		# a second one stays prepared and meets the crash below
		$id = job_for($verb, "$name.2");
		prepare("$name.2", statement_for($verb, $id, "$name.2"));
		$across_crash{"$name.2"} = [ $verb, $end, $id ];
	}
}

# A queue that came and went with its first job leaves an index entry only.
ask($node, "BEGIN; SELECT qml_enqueue('t', queue => 'undone'); ROLLBACK");
ask($node, "SELECT count(*) FROM qml_fetch('w', NULL, 1000)");
is(ask($node, "$PROMPT SELECT count(*) FROM qml_fetch('w', NULL)"),
	0, 'a fetch from all queues passes by one that was rolled back');
prepare('queue', "SELECT qml_enqueue('t', queue => 'pending')");
is(ask($node, "$PROMPT SELECT count(*) FROM qml_fetch('w', NULL)"),
	0, 'and by one that is prepared');
commit('queue');
is(ask($node, "$PROMPT SELECT count(*) FROM qml_fetch('w', NULL)"),
	1, 'and takes its job when it is committed');

# Prepared transactions hold jobs: one that is being succeeded, one that is
# being released, both with leases that end, and a scheduled one.
my $succeeding = enqueue(queue => 'held');
my $releasing = enqueue(queue => 'held');
my $scheduled = enqueue(queue => 'held', run_at => "now() + interval '300 ms'");
ask($node, "SELECT id FROM qml_fetch('w', ARRAY['held'], 2, '200 ms')");
prepare('succeeding', "SELECT qml_succeed('$succeeding', 1)");
prepare('releasing', "SELECT qml_release('$releasing', 1)");
prepare('scheduling', "SELECT qml_reschedule('$scheduled', now() + interval '1 h')");
my $ready = enqueue(queue => 'held');
my $other = enqueue(queue => 'held');
prepare('fetching', "SELECT id FROM qml_fetch('w', ARRAY['held'], 1, '200 ms')");

ok( $node->poll_query_until(
		'postgres', "SELECT now() > max(greatest(lease_expires_at, run_at))"
		  . " FROM qml.job WHERE queue = 'held'"),
	'the leases and the delay are over');
is(ask($node, "$PROMPT SELECT count(*) FROM qml_fetch('w2', ARRAY['held'], 10, '1 h')"),
	1, 'fetch passes by what a prepared transaction holds');
is(state_of($other), 'processing', 'fetch takes the job that is free');
is(ask($node, "$PROMPT SELECT $_() >= 0"), 't', "$_ passes by it, too")
  foreach qw(qml_reclaim qml_promote_due qml_cleanup);
foreach my $job ([ $succeeding, 'processing' ], [ $releasing, 'processing' ],
	[ $scheduled, 'scheduled' ], [ $ready, 'enqueued' ])
{
	is(state_of($job->[0]), $job->[1], 'a held job is left as it is');
}

# The crash.
kill_server($node);
start_again($node);

foreach my $name (sort keys %across_crash)
{
	my ($verb, $end, $id) = @{ $across_crash{$name} };
	my ($before, undef, $after) = @{ $VERB{$verb} };

	is(state_of($id), $before // '', "$name: nothing is seen after a crash");
	$end eq 'commit' ? commit($name) : rollback($name);
	is(state_of($id), $end eq 'commit' ? $after : $before // '',
		"$name: the job is as the transaction ended, after a crash");
}
is(ask($node, "$PROMPT SELECT qml_reclaim()"),
	0, 'reclaim passes by what was prepared before the crash');
rollback('succeeding');
rollback('fetching');
commit('releasing');
commit('scheduling');
is(ask($node, 'SELECT qml_reclaim()'), 1, 'and takes it when it is let go');
is(state_of($succeeding), 'enqueued', 'the lease that ran out is reclaimed');
is(state_of($releasing), 'enqueued', 'the released job is ready');
is(state_of($scheduled), 'scheduled', 'the job is scheduled anew');
is(ask($node, 'SELECT count(*) FROM pg_prepared_xacts'), 0, 'nothing is left prepared');

# The stricter levels: a session that has its snapshot already sees the jobs of
# that time, and gets nothing worse than 40001 from what happened since.
my %level_sql = (
	fetch => "SELECT count(*) FROM qml_fetch('w', ARRAY['QUEUE'], 10)",
	succeed => "SELECT qml_succeed('ID', 1)",
	succeed_many => "SELECT count(*) FROM qml_succeed_many(ARRAY['ID'::uuid], ARRAY[1])",
	fail => "SELECT qml_fail('ID', 1, 'oops')",
	release => "SELECT qml_release('ID', 1)",
	heartbeat => "SELECT qml_heartbeat('ID', 1) IS NOT NULL",
	progress => "SELECT qml_progress('ID', 1, '{}')",
	delete => "SELECT qml_delete('ID')",
	retry => "SELECT qml_retry('ID')",
	schedule => "SELECT qml_reschedule('ID', now() + interval '1 h')",
	enqueue => "SELECT qml_enqueue('t', queue => 'QUEUE')",
	reclaim => "SELECT qml_reclaim()",
	promote => "SELECT qml_promote_due()",
	cleanup => "SELECT qml_cleanup()",
);

# The SQLSTATE of the statement in a transaction whose snapshot is older than
# $meanwhile; 00000 when it is well.
sub sqlstate_at
{
	my ($level, $sql, $meanwhile) = @_;
	my $session = new_session($node, 'postgres', on_error_stop => 0);

	$session->query("$PROMPT BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM qml.job");
	ask($node, $meanwhile) if defined $meanwhile;
	$session->query($sql);
	my ($state) = $session->query('\echo :SQLSTATE') =~ /(\w{5})/;
	# the commit may be what fails
	if ($state eq '00000')
	{
		$session->query('COMMIT');
		($state) = $session->query('\echo :SQLSTATE') =~ /(\w{5})/;
	}
	$session->{stderr} = '';
	$session->quit;
	return $state;
}

foreach my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	my $short = lc(substr $level, 0, 6);

	foreach my $verb (sort keys %level_sql)
	{
		my $needs_claim = $verb =~ /^(succeed|succeed_many|fail|release|heartbeat|progress)$/;
		my $n = 0;
		my $make = sub {
			my $queue = "$short.$verb." . ++$n;
			my $id = enqueue(queue => $queue,
				$verb eq 'retry' ? (run_at => "now() + interval '1 h'") : ());
			ask($node, "SELECT id FROM qml_fetch('w', ARRAY['$queue'], 1, '1 h')")
			  if $needs_claim;
			return ($level_sql{$verb} =~ s/ID/$id/gr =~ s/QUEUE/$queue/gr, $id, $queue);
		};

		my ($sql, $id, $queue) = $make->();
		is(sqlstate_at($level, $sql), '00000', "$level: $verb, alone");

		# another session changes the same row first
		($sql, $id, $queue) = $make->();
		my $meanwhile =
		    $verb =~ /^(reclaim|promote|cleanup)$/ ? 'SELECT qml_promote_due(), qml_reclaim(), qml_cleanup()'
		  : $needs_claim ? "SELECT qml_progress('$id', 1, '{\"n\": 1}')"
		  : $verb eq 'enqueue' ? "SELECT qml_enqueue('t', queue => '$queue')"
		  : $verb eq 'fetch' ? "SELECT qml_fetch('w2', ARRAY['$queue'])"
		  : "SELECT qml_reschedule('$id', now() + interval '2 h')";
		like(sqlstate_at($level, $sql, $meanwhile),
			qr/^(00000|40001)$/, "$level: $verb, after a change by another");
		is(ask($node, "SELECT count(*) FROM qml.job WHERE id = '$id'"),
			1, "$level: $verb: the job is still one");
	}
}

# Every function there is, in prepared transactions and in the stricter levels.
set_up_calls($node);
calls_are_complete(
	$node,
	# They end their transaction, and so are refused where there is more to it.
	qml_wait => 1,
	qml_wait_for => 1,
	qml_watch => 1);

# Whether a call is done, as others see it; '' where that cannot be seen.
sub is_done
{
	my ($call) = @_;
	return defined $call->{done} && ask($node, $call->{done}) eq 't' ? 't' : '';
}

# The call in a transaction of its own, whose snapshot is from before or after what
# the call needs was made; its SQLSTATE and whether it is done.
sub call_at
{
	my ($level, $name, $since) = @_;
	my $call = for_call($name);
	my $before = join '; ', @{ $call->{before} };
	my $state;

	ask($node, $before) if $before ne '' && !$since;
	$state = sqlstate_at($level, $call->{sql}, $since ? $before : undef);
	my $done = is_done($call);
	ask($node, $call->{after}) if defined $call->{after};
	return ($state, $done, $call);
}

foreach my $name (all_calls())
{
	next if for_call($name)->{code} ne '00000';
	foreach my $end (qw(commit rollback))
	{
		my $call = for_call($name);

		ask($node, $_) foreach @{ $call->{before} };
		prepare("$name, $end", "$PROMPT $call->{sql}");
		is(is_done($call), '', "$name, prepared: nothing is seen before the end");
		$end eq 'commit' ? commit("$name, $end") : rollback("$name, $end");
		is(is_done($call), $end eq 'commit' && defined $call->{done} ? 't' : '',
			"$name, prepared: it is done or not, as the transaction ended ($end)");
		ask($node, $call->{after}) if defined $call->{after};
	}
}

foreach my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	foreach my $name (all_calls())
	{
		my ($state, $done, $call) = call_at($level, $name, 0);

		is($state, $call->{code}, "$level: $name, alone");
		is($done, defined $call->{done} ? 't' : '', "$level: $name: it is done");

		# what it is about is not in the snapshot
		next if !@{ $call->{before} };
		($state, $done, $call) = call_at($level, $name, 1);
		like($state, qr/^($call->{code}|40001)$/, "$level: $name, of what came since");
		next if $call->{unasked} || !defined $call->{done};
		is($done, $state eq '00000' ? 't' : '', "$level: $name: what succeeds is done");
	}
}

# Two fetches with the same old snapshot never get the same job.
{
	my $id = enqueue(queue => 'twice');
	my @sessions = map { new_session($node, 'postgres', on_error_stop => 0) } 1, 2;
	my @got;

	$_->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qml.job')
	  foreach @sessions;
	foreach my $session (@sessions)
	{
		push @got,
		  $session->query("SELECT id FROM qml_fetch('w', ARRAY['twice']); COMMIT");
		$session->{stderr} = '';
	}
	is(scalar(grep { /$id/ } @got), 1, 'one of two old snapshots gets the job');
	$_->quit foreach @sessions;
}

# An id that a prepared transaction has added is waited for: then the job is there, or made.
foreach my $end (qw(commit rollback))
{
	my $id = ask($node, 'SELECT gen_random_uuid()');
	my $again = "SELECT created FROM qml_try_enqueue('own', queue => 'own', id => '$id', options => '{\"on_duplicate_id\": \"return\"}')";

	prepare("own id, $end", "SELECT qml_enqueue('own', queue => 'own', id => '$id')");
	my (undef, undef, $stderr) = $node->psql('postgres', "SET lock_timeout = '100 ms'; $again");
	like($stderr, qr/canceling statement due to lock timeout/, "an id of a prepared transaction is waited for ($end)");
	$end eq 'commit' ? commit("own id, $end") : rollback("own id, $end");
	is(ask($node, $again), $end eq 'commit' ? 'f' : 't', "and found or made then ($end)");
}

# A subtransaction for each enqueue, as a loop with an EXCEPTION block has it;
# the row of one that is rolled back is gone.
query($node, <<'SQL');
DO $$
BEGIN
	FOR n IN 1 .. 10000 LOOP
		BEGIN
			PERFORM qml_enqueue('sub', jsonb_build_object('n', n), 'sub');
			IF n % 10 = 0 THEN
				RAISE EXCEPTION 'undo this one';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END $$
SQL
is(ask($node, "SELECT count(*) FROM qml.job WHERE queue = 'sub'"),
	9000, 'rolled back subtransactions leave nothing');

end_sessions($node);
done_testing();
