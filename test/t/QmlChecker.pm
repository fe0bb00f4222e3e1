# Holds what clients wrote down against what the database says.
#
# check() reads the event logs of the stress-test client, asks the database
# and reads the server's log, and returns the violations found, one text
# each, beginning with the name of the broken rule:
#
#   I1   every acknowledged enqueue is in exactly one place and state
#   I2   no job without an enqueue
#   I3   a rolled-back enqueue leaves nothing
#   I4   one accepted finish a job; stale tokens are refused
#   I5   what a job of the database did is there once if it succeeded, else not
#   I6   a success was executed; two holders never overlap within a lease
#   I7   attempts stay within the retries
#   I8   only allowed transitions, as far as clients can see them
#   I9   at rest, nothing is in work or ready and left lying
#   I10  a batch comes by priority in each queue; and where one worker takes all jobs,
#        none is left behind that was ready before its fetch and of higher priority
#   I11  qml_counts() agrees with the rows
#   I12  the server's log is clean; at rest, qml's processes hold no lock and no snapshot
#   I13  the indexes agree with the tables
#   claim   one attempt is given out once, and each has come to an end
#   client  the clients met no error that a client should not meet
#
# The log format is described in test/client/session.c.  Facts that come from
# elsewhere than the database can be passed in directly, which is how the
# checker itself is tested.
#
# No client knows of the claims of workers in the database.  Their ledger is in
# three parts.  What a handler does is undone with its transaction, so it writes
# into the server's log when it begins and ends (RUN_NOTE): that tells which process
# ran which attempt.  The job's errors name the attempts that failed or were lost,
# its `uncounted` is the number of those that were given back; together with a
# success they are all attempts there were.  And the handlers' rows, one for each
# job, are what the jobs did.

package QmlChecker;

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(sleep);
our @EXPORT_OK = qw(check read_events read_runs load_facts summary);

# As the first statement of a handler that takes a job, and as the last one.
our %RUN_NOTE =
  map { $_ => "RAISE LOG 'qml_run $_ % %', (job).id, (job).attempt" } qw(begin end);

# After how many crashes of the server under it a job is given up.
my $SERVERS_DOWN = 3;

my %UNFINISHED =
  map { $_ => 1 } qw(scheduled enqueued processing awaiting_retry);
my %STATE = (%UNFINISHED, map { $_ => 1 } qw(succeeded failed deleted));
my %FINISH = map { $_ => 1 } qw(succeed succeed_many fail release);
my %SUCCEED = map { $_ => 1 } qw(succeed succeed_many);

# What a client may be told when sessions compete.
my %CLIENT_SQLSTATE = map { $_ => 1 } qw(40001 40P01);

# Lines that a server writes when it is killed and started again.
my @CRASH_LINES = (
	qr/^the database system is (starting up|shutting down|in recovery mode|not yet accepting connections|not accepting connections)/,
	qr/^terminating connection (due to administrator command|due to unexpected postmaster exit|due to immediate shutdown command|because of crash of another server process)/,
	qr/^could not (send data to client|receive data from client)/,
	qr/\(PID \d+\) was terminated by signal [69]/,
	qr/^terminating .* because of crash of another/,
	qr/^canceling authentication due to timeout/,
	qr/^unexpected pageaddr/,
	qr/^(background worker|autovacuum|checkpointer|server process|.* process) .*exited with exit code/,
);

# check(logs => [directories], [database => connection string | facts => {}],
#       server_logs => [file | [file, offset]], allow => [patterns of log lines],
#       sqlstates => [more that clients may meet], crashes => 0|1,
#       final => 0|1, amcheck => 0|1, quiet => 0|1,
#       one_worker => 0|1, if nobody else takes or changes jobs, and none is delayed,
#       handlers => {method => rows that a success leaves}, for the jobs that run in
#         the database, effects => table of those rows (job, attempt),
#       runs => [server's log file | [file, offset]])
sub check
{
	my (%arg) = @_;
	my $facts = $arg{facts} // load_facts($arg{database}, $arg{effects});
	my @events = map { read_events($_) } @{ $arg{logs} };
	my $seen = index_events(sort { $a->{time} <=> $b->{time} } @events);
	my @bad;

	$seen->{handlers} = $arg{handlers} // {};

	push @bad, check_enqueues($seen, $facts);
	push @bad, check_claims($seen, $facts);
	push @bad, check_finishes($seen, $facts);
	push @bad, check_stale($seen);
	push @bad, check_overlap($seen);
	push @bad, check_refusals($seen);
	push @bad, check_attempts($seen, $facts);
	push @bad, check_transitions($seen, $facts);
	push @bad, check_rest($facts, $arg{final});
	push @bad, check_order($seen);
	push @bad, check_left_behind($seen, $facts) if $arg{one_worker};
	push @bad, check_counts($facts);
	push @bad, check_client_errors($seen, @{ $arg{sqlstates} // [] });
	push @bad, check_in_database($seen, $facts, \%arg) if $arg{handlers};
	push @bad, map { check_server_log($_, \%arg) } @{ $arg{server_logs} // [] };
	push @bad, check_processes($arg{database}) if defined $arg{database};
	push @bad, check_indexes($arg{database}) if $arg{amcheck};

	print summary($seen, $facts, @bad) unless $arg{quiet};
	return @bad;
}

# The events of one directory of logs, in no order.
sub read_events
{
	my ($dir) = @_;
	my @events;

	foreach my $file (glob "$dir/*.log")
	{
		open my $fh, '<', $file or die "could not open \"$file\": $!";
		while (my $line = <$fh>)
		{
			chomp $line;
			my ($time, $client, $name, $id, $attempt, $state, $detail) =
			  split /\t/, $line, 7;
			die "malformed line $. in \"$file\"" unless defined $detail;
			push @events,
			  {
				time => $time,
				client => $client,
				name => $name,
				id => $id,
				attempt => $attempt,
				state => $state,
				map { split /=/, $_, 2 } split / /, $detail
			  };
		}
		close $fh;
	}
	return @events;
}

sub psql
{
	my ($connstr, $sql) = @_;
	open my $fh, '-|', 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-F', "\t",
	  '-d', $connstr, '-c', $sql
	  or die "could not start psql: $!";
	my @rows = map { chomp; [ split /\t/, $_, -1 ] } <$fh>;
	close $fh or die "psql failed on: $sql";
	return @rows;
}

# What handlers wrote into the server's logs: for each job and attempt the runs, in
# order, as [begin or end, process].  Lines of other files come later.
sub read_runs
{
	my (@files) = @_;
	my %runs;

	foreach my $log (@files)
	{
		my ($file, $offset) = ref $log ? @$log : ($log, 0);
		open my $fh, '<', $file or die "could not open \"$file\": $!";
		seek $fh, $offset, 0;
		while (my $line = <$fh>)
		{
			my ($pid, $what, $id, $attempt) =
			  $line =~ /\[(\d+)\] .*LOG:  qml_run (begin|end) ([0-9a-f-]{36}) (\d+)$/
			  or next;
			push @{ $runs{$id} }, { what => $what, attempt => $attempt, pid => $pid };
		}
		close $fh;
	}
	return \%runs;
}

# What the database says: the jobs by id, the places where each id is stored,
# qml_counts(), and the rows of the table of effects.
sub load_facts
{
	my ($connstr, $effects) = @_;
	my $facts = { jobs => {}, places => {}, counts => {}, effects => {} };

	foreach my $row (
		psql(
			$connstr,
			"SELECT id, state, attempt, max_retries, payload->>'batch',"
			  . " coalesce(run_at <= now(), true), method, queue, priority,"
			  . " (SELECT string_agg(concat(e ->> 'attempt', ':', e ->> 'error_type'), ',')"
			  . "  FROM jsonb_array_elements(errors) e) FROM qml.job"))
	{
		my ($id, $state, $attempt, $max_retries, $batch, $due, $method, $queue, $priority,
			$errors) = @$row;
		push @{ $facts->{jobs}{$id} },
		  {
			state => $state,
			attempt => $attempt,
			max_retries => $max_retries,
			batch => $batch,
			due => $due eq 't',
			method => $method,
			queue => $queue,
			priority => $priority,
			errors => $errors,
		  };
	}
	foreach my $row (
		psql(
			$connstr,
			"SELECT id, 'live', coalesce(uncounted, 0) FROM qml.live"
			  . " UNION ALL SELECT id, 'history', coalesce(uncounted, 0) FROM qml.history"))
	{
		push @{ $facts->{places}{ $row->[0] } }, $row->[1];
		$_->{uncounted} = $row->[2] foreach @{ $facts->{jobs}{ $row->[0] } // [] };
	}
	if (defined $effects)
	{
		push @{ $facts->{effects}{ $_->[0] } }, $_->[1]
		  foreach psql($connstr, "SELECT job, attempt FROM $effects");
	}
	$facts->{counts}{ $_->[0] } = $_->[1]
	  foreach psql($connstr, 'SELECT state, count FROM qml_counts()');
	return $facts;
}

# Brings the events into the shape that the rules ask for:
#   enqueue{id}        enqueuing, then enqueued, rolledback or unknown
#   batch{name}        the same for jobs whose ids may be unknown
#   claim{id}{attempt} [claimed events]
#   taken{client}      [claimed events], in the order in which they came; "since" is
#                      when the client had no fetch open
#   ack{id}{attempt}   [acknowledgements, each with time, op and outcome]
#   beat{id}{attempt}  [heartbeats, likewise]
#   admin{id}          somebody else changed the job
#   lost_fetches       upper bound of jobs claimed without the client's knowledge
sub index_events
{
	my (@events) = @_;
	my $seen = {
		enqueue => {}, batch => {}, claim => {}, taken => {}, ack => {}, beat => {},
		admin => {}, errors => [], lost_fetches => 0,
		events => scalar @events
	};
	my (%open, %latest);

	foreach my $e (@events)
	{
		my ($name, $op) = ($e->{name}, $e->{op} // '');
		my $key = "$e->{client} $e->{id} $e->{attempt}";

		if ($op =~ /^enqueue/ && $name ne 'error')
		{
			index_enqueue($seen, $e);
		}
		elsif ($name eq 'claimed')
		{
			push @{ $seen->{claim}{ $e->{id} }{ $e->{attempt} } }, $e;
			push @{ $seen->{taken}{ $e->{client} } }, $e if defined $e->{priority};
			$e->{since} = $latest{ $e->{client} } // 0;
		}
		elsif ($name eq 'acking' || $name eq 'beating')
		{
			my $kind = $name eq 'acking' ? 'ack' : 'beat';
			$open{"$kind $key"} = { %$e, outcome => 'none' };
			push @{ $seen->{$kind}{ $e->{id} }{ $e->{attempt} } },
			  $open{"$kind $key"};
		}
		elsif ($name eq 'admin')
		{
			$seen->{admin}{ $e->{id} } = 1;
		}
		elsif ($name eq 'unknown' && $op eq 'fetch')
		{
			$seen->{lost_fetches} += $e->{batch};
		}
		elsif ($e->{id} ne '-')
		{
			index_answer($open{"$op" eq 'heartbeat' ? "beat $key" : "ack $key"},
				$e);
		}
		push @{ $seen->{errors} }, $e if $name eq 'error';
		$latest{ $e->{client} } = $e->{time};
	}
	return $seen;
}

sub index_enqueue
{
	my ($seen, $e) = @_;
	my $entry =
	    $e->{id} ne '-' ? ($seen->{enqueue}{ $e->{id} } //= {})
	  : $seen->{batch}{ $e->{batch} } //= {};

	$entry->{outcome} = $e->{name};
	$entry->{time} = $e->{time};
	$entry->{count} = $e->{count} if defined $e->{count};
	return;
}

sub index_answer
{
	my ($question, $e) = @_;
	return unless $question;
	$question->{outcome} = $e->{name};
	$question->{answered} = $e->{time};
	$question->{state} = $e->{state};
	$question->{lease} = $e->{lease};
	return;
}

sub check_enqueues
{
	my ($seen, $facts) = @_;
	my ($jobs, $places) = @$facts{qw(jobs places)};
	my (@bad, %in_batch);

	foreach my $id (sort keys %{ $seen->{enqueue} })
	{
		my $outcome = $seen->{enqueue}{$id}{outcome};
		my $rows = @{ $jobs->{$id} // [] };
		my @where = @{ $places->{$id} // [] };

		push @bad, "I1 job $id was enqueued and is gone"
		  if $outcome eq 'enqueued' && !@where;
		push @bad, "I3 job $id was rolled back and exists"
		  if $outcome eq 'rolledback' && (@where || $rows);
		push @bad, "I1 job $id is stored in @where and shown $rows times"
		  if @where > 1 || @where != $rows;
	}

	foreach my $id (sort keys %$jobs)
	{
		my ($row) = @{ $jobs->{$id} };
		my $batch = $row->{batch} // '';

		$in_batch{$batch}++ if $batch ne '';
		push @bad, "I2 job $id was enqueued by nobody"
		  unless $seen->{enqueue}{$id} || $seen->{batch}{$batch};
		push @bad, "I8 job $id is in state $row->{state}"
		  unless $STATE{ $row->{state} };
	}
	return @bad, check_batches($seen, \%in_batch);
}

sub check_batches
{
	my ($seen, $in_batch) = @_;
	my @bad;

	foreach my $name (sort keys %{ $seen->{batch} })
	{
		my ($outcome, $count) = @{ $seen->{batch}{$name} }{qw(outcome count)};
		my $found = $in_batch->{$name} // 0;

		push @bad, "I1 batch $name has $found jobs of $count"
		  if $outcome eq 'enqueued' && $found != $count;
		push @bad, "I1 batch $name was taken in part, $found of $count"
		  if $outcome ne 'enqueued' && $found != 0 && $found != $count;
		push @bad, "I3 batch $name was rolled back and has $found jobs"
		  if $outcome eq 'rolledback' && $found != 0;
	}
	return @bad;
}

sub check_claims
{
	my ($seen, $facts) = @_;
	my ($unexplained, @bad) = (0);

	foreach my $id (sort keys %{ $seen->{claim} })
	{
		my $claims = $seen->{claim}{$id};
		my ($row) = @{ $facts->{jobs}{$id} // [] };
		my $attempt = $row ? $row->{attempt} : 0;

		foreach my $n (sort { $a <=> $b } keys %$claims)
		{
			my @holders = map { $_->{client} } @{ $claims->{$n} };
			push @bad, "claim job $id attempt $n was given to @holders"
			  if @holders > 1;
			push @bad, "claim job $id attempt $n was given, the row says $attempt"
			  if $row && $n > $attempt;
			push @bad, "I2 job $id was given and does not exist" unless $row;
			push @bad, map { "claim job $id came in a batch of $_->{batch}" }
			  grep { ($_->{batch} // '') =~ m{^(\d+)/(\d+)$} && $1 > $2 }
			  @{ $claims->{$n} };
		}
	}

	# each attempt is known to a client, unless the answer was lost
	foreach my $id (keys %{ $facts->{jobs} })
	{
		next if is_in_database($seen, $facts->{jobs}{$id}[0]);
		$unexplained += $facts->{jobs}{$id}[0]{attempt};
		$unexplained -= keys %{ $seen->{claim}{$id} // {} };
	}
	push @bad,
	  "claim $unexplained attempts were begun that no client was given,"
	  . " $seen->{lost_fetches} can be explained"
	  if $unexplained > $seen->{lost_fetches};
	return @bad;
}

# The acknowledgements of a job, all attempts.
sub acks
{
	my ($seen, $id) = @_;
	return map { @$_ } values %{ $seen->{ack}{$id} // {} };
}

sub check_finishes
{
	my ($seen, $facts) = @_;
	my @bad;

	foreach my $id (sort keys %{ $seen->{ack} })
	{
		next if $seen->{admin}{$id};
		my ($row) = @{ $facts->{jobs}{$id} // [] };
		my @acked = grep { $_->{outcome} eq 'acked' } acks($seen, $id);
		my @final = grep { !$UNFINISHED{ $_->{state} } } @acked;
		my %by_attempt;

		$by_attempt{ $_->{attempt} }++ foreach @acked;
		push @bad, map { "I4 job $id attempt $_ was finished $by_attempt{$_} times" }
		  grep { $by_attempt{$_} > 1 } sort keys %by_attempt;
		push @bad, "I4 job $id was finished for good " . @final . " times"
		  if @final > 1;

		foreach my $ack (@final)
		{
			my $found = $row ? "$row->{state} $row->{attempt}" : 'gone';
			push @bad, "I4 job $id was accepted as $ack->{state}"
			  . " $ack->{attempt} and is $found"
			  if $found ne "$ack->{state} $ack->{attempt}";
		}
	}
	return @bad, check_successes($seen, $facts);
}

# A job that has succeeded was executed, and its worker said so.
sub check_successes
{
	my ($seen, $facts) = @_;
	my @bad;

	foreach my $id (sort keys %{ $facts->{jobs} })
	{
		my ($row) = @{ $facts->{jobs}{$id} };
		next if $row->{state} ne 'succeeded' || $seen->{admin}{$id};
		next if is_in_database($seen, $row);
		my @said = grep {
			$SUCCEED{ $_->{op} } && $_->{outcome} =~ /^(acked|unknown|none)$/
		} @{ $seen->{ack}{$id}{ $row->{attempt} } // [] };
		push @bad, "I6 job $id succeeded in attempt $row->{attempt},"
		  . " which nobody reported"
		  unless @said;
	}
	return @bad;
}

# The claims of a job as [attempt, event], by attempt.
sub claims
{
	my ($seen, $id) = @_;
	my $claims = $seen->{claim}{$id} // {};
	return map { [ $_, $claims->{$_}[0] ] } sort { $a <=> $b } keys %$claims;
}

sub check_stale
{
	my ($seen) = @_;
	my @bad;

	foreach my $id (sort keys %{ { %{ $seen->{ack} }, %{ $seen->{beat} } } })
	{
		my @accepted = grep { $_->{outcome} =~ /^(acked|beat)$/ } acks($seen, $id),
		  map { @$_ } values %{ $seen->{beat}{$id} // {} };

		foreach my $said (@accepted)
		{
			if ($said->{stale})
			{
				push @bad, "I4 job $id: $said->{op} was accepted with a token"
				  . " that could not be right";
				next;
			}
			push @bad, map {
				"I4 job $id: $said->{op} of attempt $said->{attempt} was accepted"
				  . " after attempt $_->[0] was given"
			  }
			  grep { $_->[0] > $said->{attempt} && $_->[1]{time} < $said->{time} }
			  claims($seen, $id);
		}
	}
	return @bad;
}

# The last lease end that the holder of an attempt was told of.
sub lease_end
{
	my ($seen, $id, $attempt) = @_;
	my $end = $seen->{claim}{$id}{$attempt}[0]{lease} // 0;

	foreach my $beat (@{ $seen->{beat}{$id}{$attempt} // [] })
	{
		$end = $beat->{lease}
		  if $beat->{outcome} eq 'beat' && $beat->{lease} > $end;
	}
	return $end;
}

# A claim may follow an earlier one when the earlier holder was finished, or
# its lease was over.  The time of the answer is later than that of the claim,
# so what is called an overlap here is one.
sub check_overlap
{
	my ($seen) = @_;
	my @bad;

	foreach my $id (sort keys %{ $seen->{claim} })
	{
		next if $seen->{admin}{$id};
		my @claims = claims($seen, $id);
		while (my $earlier = shift @claims)
		{
			last unless @claims;
			my ($n, $when) = ($earlier->[0], $claims[0][1]{time});
			my @finished = grep {
				$FINISH{ $_->{op} } && !$_->{stale} && $_->{time} <= $when
			} @{ $seen->{ack}{$id}{$n} // [] };

			push @bad, "I6 job $id attempt $claims[0][0] was given while"
			  . " attempt $n was held"
			  if !@finished && lease_end($seen, $id, $n) > $when;
		}
	}
	return @bad;
}

# Within its lease a token is good, until it was used.
sub check_refusals
{
	my ($seen) = @_;
	my @bad;

	foreach my $id (sort keys %{ $seen->{ack} })
	{
		next if $seen->{admin}{$id};
		foreach my $n (sort { $a <=> $b } keys %{ $seen->{ack}{$id} })
		{
			my @acks = sort { $a->{time} <=> $b->{time} }
			  grep { !$_->{stale} } @{ $seen->{ack}{$id}{$n} };
			my ($first) = @acks;

			push @bad, "I4 job $id attempt $n: $first->{op} was refused"
			  . " within the lease"
			  if $first
			  && $first->{outcome} eq 'refused'
			  && lease_end($seen, $id, $n) > $first->{answered};
		}
	}
	return @bad;
}

# Attempts count up for ever; what a release gives back is a retry.
sub check_attempts
{
	my ($seen, $facts) = @_;
	my @bad;

	foreach my $id (sort keys %{ $facts->{jobs} })
	{
		next if $seen->{admin}{$id};
		my ($row) = @{ $facts->{jobs}{$id} };
		next if is_in_database($seen, $row);
		my @acks = acks($seen, $id);
		my @released = grep { $_->{op} eq 'release' } @acks;
		my %perhaps =
		  map { $_->{attempt} => 1 }
		  grep { $_->{outcome} =~ /^(acked|unknown|none)$/ } @released;
		my %surely =
		  map { $_->{attempt} => 1 }
		  grep { $_->{outcome} eq 'acked' } @released;
		my $used = $row->{attempt} - keys %perhaps;
		my @failed = grep {
			$_->{op} eq 'fail'
			  && $_->{outcome} =~ /^(acked|unknown|none)$/
			  && $_->{attempt} == $row->{attempt}
		} @acks;

		push @bad, "I7 job $id has used $used attempts of "
		  . ($row->{max_retries} + 1)
		  if $used > $row->{max_retries} + 1;
		push @bad, "I7 job $id failed with attempts left and nobody failed it"
		  if $row->{state} eq 'failed'
		  && !@failed
		  && $row->{attempt} - keys %surely <= $row->{max_retries};
	}
	return @bad;
}

sub check_transitions
{
	my ($seen, $facts) = @_;
	my @bad;

	foreach my $id (sort keys %{ $seen->{claim} })
	{
		next if $seen->{admin}{$id};
		my @claims = claims($seen, $id);
		my @final = grep { $_->{outcome} eq 'acked' && !$UNFINISHED{ $_->{state} } }
		  acks($seen, $id);

		push @bad, map { "I8 job $id was given in state $_->[1]{state}" }
		  grep { $_->[1]{state} ne 'processing' } @claims;
		foreach my $ack (@final)
		{
			push @bad,
			  map { "I8 job $id went from $ack->{state} to attempt $_->[0]" }
			  grep { $_->[0] > $ack->{attempt} } @claims;
		}
		push @bad, map {
			"I8 job $id went from processing to $_->{state} by $_->{op}"
		  }
		  grep { $_->{outcome} eq 'acked' && !allowed_after($_) } acks($seen, $id);
	}

	# a finished job is in the history, an unfinished one is not
	foreach my $id (sort keys %{ $facts->{jobs} })
	{
		my ($row) = @{ $facts->{jobs}{$id} };
		my $place = $UNFINISHED{ $row->{state} } ? 'live' : 'history';
		push @bad, "I8 job $id is $row->{state} and stored in $_"
		  foreach grep { $_ ne $place } @{ $facts->{places}{$id} // [] };
	}
	return @bad;
}

sub allowed_after
{
	my ($ack) = @_;
	return $ack->{state} eq 'succeeded' if $SUCCEED{ $ack->{op} };
	return $ack->{state} =~ /^(awaiting_retry|failed)$/ if $ack->{op} eq 'fail';
	return $ack->{state} eq 'enqueued';
}

sub check_rest
{
	my ($facts, $final) = @_;
	my @bad;

	foreach my $id (sort keys %{ $facts->{jobs} })
	{
		my ($row) = @{ $facts->{jobs}{$id} };
		next unless $UNFINISHED{ $row->{state} };
		push @bad, "I9 job $id is still $row->{state}"
		  if $final || $row->{state} eq 'processing' || $row->{due};
	}
	return @bad;
}

# What was claimed, by the fetch.
sub batches
{
	my ($seen) = @_;
	my @batches;

	foreach my $client (sort keys %{ $seen->{taken} })
	{
		my @taken = @{ $seen->{taken}{$client} };
		while (@taken)
		{
			my ($size) = ($taken[0]{batch} // '') =~ m{^(\d+)/};
			push @batches, [ splice @taken, 0, $size // 1 ];
		}
	}
	return @batches;
}

sub check_order
{
	my ($seen) = @_;
	my @bad;

	foreach my $batch (batches($seen))
	{
		my %last;
		foreach my $e (@$batch)
		{
			my $before = $last{ $e->{queue} };
			push @bad, "I10 job $e->{id} of priority $e->{priority} came in a batch behind"
			  . " job $before->{id} of priority $before->{priority}"
			  if $before && $before->{priority} < $e->{priority};
			$last{ $e->{queue} } = $e;
		}
	}
	return @bad;
}

# From the last batch to the first: of the jobs that were taken later, or never, the
# time at which the earliest was enqueued, by queue and priority.
sub check_left_behind
{
	my ($seen, $facts) = @_;
	my (%waiting, @bad);
	my $wait = sub {
		my ($id, $queue, $priority) = @_;
		my $enqueue = $seen->{enqueue}{$id};
		return unless $enqueue && $enqueue->{outcome} eq 'enqueued';
		my $earliest = \$waiting{$queue}{$priority};
		$$earliest = { id => $id, time => $enqueue->{time} }
		  unless $$earliest && $$earliest->{time} <= $enqueue->{time};
	};

	foreach my $id (keys %{ $facts->{jobs} })
	{
		my ($row) = @{ $facts->{jobs}{$id} };
		$wait->($id, $row->{queue}, $row->{priority})
		  if $row->{state} eq 'enqueued' && $row->{attempt} == 0;
	}
	foreach my $batch (sort { $b->[0]{time} <=> $a->[0]{time} } batches($seen))
	{
		my $since = $batch->[0]{since};
		foreach my $e (@$batch)
		{
			push @bad, map { "I10 job $e->{id} of priority $e->{priority} was given before job $_->{id}" }
			  grep { $_->{time} < $since }
			  map { $waiting{ $e->{queue} }{$_} }
			  grep { $_ > $e->{priority} } sort keys %{ $waiting{ $e->{queue} } };
		}
		$wait->(@$_{qw(id queue priority)}) foreach grep { $_->{attempt} == 1 } @$batch;
	}
	return @bad;
}

sub check_counts
{
	my ($facts) = @_;
	my (%rows, @bad);

	$rows{ $_->[0]{state} }++ foreach values %{ $facts->{jobs} };
	foreach my $state (sort keys %{ { %rows, %{ $facts->{counts} } } })
	{
		my $rows = $rows{$state} // 0;
		my $counted = $facts->{counts}{$state} // 0;
		push @bad, "I11 qml_counts() says $counted $state, there are $rows"
		  if $counted != $rows;
	}
	return @bad;
}

# Whether workers in the database run the job, and no client.
sub is_in_database
{
	my ($seen, $row) = @_;
	return exists $seen->{handlers}{ $row->{method} // '' };
}

sub check_in_database
{
	my ($seen, $facts, $arg) = @_;
	my $runs = read_runs(@{ $arg->{runs} // [] });
	my @bad;

	foreach my $id (sort keys %{ $facts->{jobs} })
	{
		my ($row) = @{ $facts->{jobs}{$id} };
		next if !is_in_database($seen, $row) || $seen->{admin}{$id};
		my @runs = @{ $runs->{$id} // [] };
		my @errors = map { [ split /:/, $_, 2 ] } split /,/, $row->{errors} // '';

		push @bad, map { "$_->[0] job $id $_->[1]" } run_faults($row, @runs),
		  attempt_faults($row, @errors), end_faults($row, $arg->{crashes}, @errors),
		  effect_faults($row, $arg->{handlers}{ $row->{method} },
			@{ $facts->{effects}{$id} // [] });
	}
	push @bad, map { "I2 job $_ was run and does not exist" }
	  grep { !$facts->{jobs}{$_} } sort keys %$runs;
	push @bad, map { "I5 job $_ had an effect and does not exist" }
	  grep { !$facts->{jobs}{$_} } sort keys %{ $facts->{effects} };
	return @bad;
}

# An attempt belongs to one process.  It may begin twice there: a group that is undone
# runs again, each job alone.
sub run_faults
{
	my ($row, @runs) = @_;
	my $newest = 0;
	my (%begun, %ended, %pids, @bad);

	foreach my $run (@runs)
	{
		my $n = $run->{attempt};
		push @bad, [ 'I6', "attempt $n went on after attempt $newest had begun" ]
		  if $n < $newest;
		$newest = $n if $n > $newest;
		$pids{$n}{ $run->{pid} } = 1;
		($run->{what} eq 'begin' ? \%begun : \%ended)->{$n}++;
	}
	foreach my $n (sort { $a <=> $b } keys %pids)
	{
		my @pids = sort { $a <=> $b } keys %{ $pids{$n} };
		push @bad, [ 'claim', "attempt $n was run by the processes @pids" ] if @pids > 1;
		push @bad, [ 'claim', "attempt $n was run $begun{$n} times" ]
		  if ($begun{$n} // 0) > 2;
	}
	push @bad, [ 'claim', "attempt $newest was run, the row says $row->{attempt}" ]
	  if $newest > $row->{attempt};
	push @bad, [ 'I6', "succeeded in attempt $row->{attempt}, which no process ran to its end" ]
	  if $row->{state} eq 'succeeded' && !$ended{ $row->{attempt} };
	return @bad;
}

# All attempts have come to an end, each to one.
sub attempt_faults
{
	my ($row, @errors) = @_;
	my ($last, $n) = (0, $row->{attempt});
	my $open = $n - ($row->{uncounted} // 0) - @errors;
	my @bad;

	foreach my $error (@errors)
	{
		push @bad, [ 'claim', "attempt $error->[0] has failed after attempt $last had" ]
		  if $error->[0] <= $last;
		$last = $error->[0];
	}
	push @bad, [ 'claim', "attempt $last has failed, the row says $n" ] if $last > $n;
	push @bad, [ 'I4', "succeeded in attempt $n, which has failed" ]
	  if $row->{state} eq 'succeeded' && $last == $n;

	# The one that succeeded, was deleted or is still in work has left no error.
	$open-- if $row->{state} =~ /^(succeeded|deleted|processing)$/;
	push @bad, [ 'claim', "of $n attempts $open have come to no end" ] if $open > 0;
	push @bad, [ 'claim', 'has more ends than the ' . $n . ' attempts that were begun' ]
	  if $open < 0;
	return @bad;
}

sub end_faults
{
	my ($row, $crashes, @errors) = @_;
	my $used = $row->{attempt} - ($row->{uncounted} // 0);
	my $down = grep { $_->[1] eq 'server_down' } @errors;
	my @bad;

	push @bad, [ 'I7', "has used $used attempts of " . ($row->{max_retries} + 1) ]
	  if $used > $row->{max_retries} + 1;
	push @bad, [ 'I7', 'failed with attempts left' ]
	  if $row->{state} eq 'failed' && $used <= $row->{max_retries} && $down < $SERVERS_DOWN;
	push @bad, [ 'I7', "ran again after the server went down under it $down times" ]
	  if $down > $SERVERS_DOWN || $down == $SERVERS_DOWN && $row->{state} ne 'failed';
	push @bad, [ 'I7', 'was lost with a server that did not go down' ] if $down && !$crashes;
	return @bad;
}

sub effect_faults
{
	my ($row, $expected, @effects) = @_;
	my @bad;

	$expected = 0 if $row->{state} ne 'succeeded';
	push @bad, [ 'I5', "is $row->{state} and has " . @effects . " effects instead of $expected" ]
	  if @effects != $expected;
	push @bad, map { [ 'I5', "has an effect of attempt $_, the row says $row->{attempt}" ] }
	  grep { $_ != $row->{attempt} } @effects;
	return @bad;
}

sub check_client_errors
{
	my ($seen, @more) = @_;
	my %allowed = (%CLIENT_SQLSTATE, map { $_ => 1 } @more);

	return map { "client $_->{client} met $_->{sqlstate} in $_->{op}" }
	  grep { !$allowed{ $_->{sqlstate} } } @{ $seen->{errors} };
}

sub check_server_log
{
	my ($log, $arg) = @_;
	my ($file, $offset) = ref $log ? @$log : ($log, 0);
	my @allowed = @{ $arg->{allow} // [] };
	my @bad;

	push @allowed, @CRASH_LINES if $arg->{crashes};
	open my $fh, '<', $file or die "could not open \"$file\": $!";
	seek $fh, $offset, 0;
	while (my $line = <$fh>)
	{
		chomp $line;
		my $trouble = log_trouble($line);
		next unless defined $trouble;
		push @bad, "I12 $line" unless grep { $trouble =~ $_ } @allowed;
	}
	close $fh;
	return @bad;
}

# The message of a log line that ought not to be there, else undef.
sub log_trouble
{
	my ($line) = @_;
	my ($severity, $message) =
	  $line =~ /\b(LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC|[A-Z]+):  (.*)/;
	my ($sqlstate) = $line =~ /\[\d+\] ([0-9A-Z]{5}) /;

	# what an assertion or a sanitizer prints carries no prefix
	return $line =~ /^TRAP:|Sanitizer|runtime error:/ ? $line : undef
	  unless defined $severity;
	return undef if $severity !~ /^(LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC)$/;
	return undef if $message =~ /^(statement|execute [^:]*|duration:)/;
	return $message if $severity =~ /^(WARNING|FATAL|PANIC)$/;
	return $message if $severity eq 'ERROR' && ($sqlstate // '') =~ /^XX/;
	return $message
	  if $message =~ /could not|\bleak|unexpected|was terminated by signal/;
	return undef;
}

# A process that looks whether there is something to do holds something for a moment,
# so it is looked at again.
sub check_processes
{
	my ($connstr) = @_;
	my @busy;

	foreach (1 .. 50)
	{
		@busy = psql($connstr, <<'SQL') or return;
SELECT a.backend_type, a.pid, 'the lock ' || concat_ws(' ', l.mode, l.locktype, l.relation::regclass)
FROM pg_stat_activity a JOIN pg_locks l USING (pid) WHERE a.backend_type LIKE 'qml %'
UNION ALL
SELECT backend_type, pid, 'a snapshot' FROM pg_stat_activity
WHERE backend_type LIKE 'qml %' AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
SQL
		sleep 0.1;
	}
	return map { "I12 $_->[0] $_->[1] holds $_->[2]" } @busy;
}

sub check_indexes
{
	my ($connstr) = @_;
	open my $fh, '-|', 'sh', '-c', 'exec "$@" 2>&1', 'sh', 'pg_amcheck',
	  '--install-missing', '--heapallindexed', '--parent-check', '--schema=qml',
	  $connstr
	  or die "could not start pg_amcheck: $!";
	my @lines = <$fh>;
	chomp @lines;
	close $fh;
	push @lines, "pg_amcheck ended with status $?" if $? != 0;
	return map { "I13 $_" } grep { !/^NOTICE: / } @lines;
}

sub summary
{
	my ($seen, $facts, @bad) = @_;
	my (%states, %kinds, $text);

	$states{ $_->[0]{state} }++ foreach values %{ $facts->{jobs} };
	$text = "# checker: $seen->{events} events, "
	  . keys(%{ $facts->{jobs} })
	  . " jobs ("
	  . join(', ', map { "$states{$_} $_" } sort keys %states) . "), "
	  . @bad
	  . " violations\n";
	foreach my $violation (@bad)
	{
		my ($kind) = split / /, $violation;
		$text .= "# $violation\n" if ++$kinds{$kind} <= 10;
	}
	$text .= "# ... $kinds{$_} violations of $_ in all\n"
	  foreach grep { $kinds{$_} > 10 } sort keys %kinds;
	return $text;
}

1;
