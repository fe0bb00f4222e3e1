# What a crash of the server leaves of transactions on queues of all storage classes: holds what
# sessions wrote down (test/client/transact.c) against what the database says afterwards.
#
# A transaction is durable if it has written anything beside jobs of async and unlogged queues: a
# row of a user's table, a job of a durable queue; or if it was prepared.  It is async if it has
# written jobs of async queues, and perhaps of unlogged ones.  Jobs of unlogged queues are out of
# all that: none of them outlives a crash.  The violations are texts that begin with the broken
# rule:
#
#   kept      a durable transaction that was acknowledged is there, and stays; so does whatever
#             was there once after a crash
#   suffix    of async transactions the last ones are lost: nothing that was committed later than a
#             lost one was acknowledged is there, whoever did it, and of a session nothing behind a
#             lost one
#   whole     a transaction is there with all its pieces, or with none
#   undone    nothing is there of what was rolled back, or whose commit was not asked for
#   once      no job and no row is there twice; a job that has ended is not given out again, and one
#             that is held to nobody else
#   empty     no job of an unlogged queue is there
#   numbers   no attempt number of a job is given twice, whatever was lost in between
#   refused   who says the end of a claim is heard if the claim is there, and refused if not
#   lease     nobody gets a job that another one holds, and nobody is refused, before the lease is
#             over of which the holder was told, in that life by heartbeats, too
#   begun     an attempt that a worker in the database has begun is there, but for unlogged jobs
#   ran       a job has succeeded in an attempt that ran to its end, in one process
#   effect    what handlers wrote is there once for each success, and for nothing else; of an
#             unlogged job for an attempt that ran to its end
#   ends      the attempts of a job have come to one end each
#   client    the sessions met no error
#
# Claims of workers in the database are durable in all classes but the unlogged one; no session
# knows of them.  What a handler writes into the server's log tells of its runs, see QmlChecker.pm.
#
# The oracle is called after each crash, before anybody else changes a job; what it has found to be
# there it remembers.

package QmlStorage;

use strict;
use warnings;

use List::Util qw(max shuffle);
use QmlChecker;

# new(queue => class, ...)
sub new
{
	my ($class, %class_of) = @_;
	return bless {
		class_of => \%class_of,
		kept => [],     # pieces that were there after a crash
		given => {},    # "id attempt" of claims that were committed
		claims => {},   # id: {attempt: {end => how it has come to an end, lease, life}}, of those that were there
		past => {},     # id: {attempt}, of runs of jobs that were lost
		life => 0,
		lost => [],     # tokens of claims that are not there
		count => {},    # what was met, for the tests
	}, $class;
}

# How often something was met.
sub count
{
	my ($self, $what) = @_;
	return $self->{count}{$what} // 0;
}

# Judges one life of the server: its events, and what is there after the crash: {jobs => {id =>
# [{state, attempt, queue, worker}, ...]}, rows => {transaction => count}, unlogged => rows in the
# tables of unlogged jobs}.  With workers in the database there is more: {runs => what
# QmlChecker::read_runs() gives of all lives, effects => {id => [attempts]}, handlers => {method =>
# rows that a success leaves}, seen => {id => attempt}, of successes that somebody has seen};
# and jobs have {method, uncounted, errors => "attempt:type,..."}.  With is_at_rest there was no
# crash at the end.
sub judge
{
	my ($self, $facts, @events) = @_;
	$self->{life}++;
	my @order = index_events(@events);
	my @bad;

	push @bad, map { "client $_->{client} met $_->{sqlstate} in $_->{op}" }
	  grep { $_->{name} eq 'error' } @events;
	push @bad, $self->check_kept($facts);
	find_undone(@order);
	$self->classify($_, $facts) foreach @order;
	my %done = map { key_of($_) => 1 } map { @{ $_->{lasting} } } grep { $_->{outcome} ne 'undone' } @order;
	push @bad, map { $self->check_transaction($_, \%done) } @order;
	push @bad, $self->check_suffix(@order);
	push @bad, $self->check_empty($facts) unless $facts->{is_at_rest};
	push @bad, $self->check_numbers(@order);
	push @bad, $self->check_leases(@order);
	push @bad, $self->check_runs($facts) if $facts->{runs};
	push @bad, $self->check_ends($facts);
	$self->keep(@order);
	push @bad, $self->check_once($facts, @order);
	$self->{tokens} = $self->tokens_of($facts, @order);
	return @bad;
}

# The transactions, in the order of each session.
sub index_events
{
	my (@events) = @_;
	my (%tx, @order);

	foreach my $e (sort { $a->{time} <=> $b->{time} } grep { defined $_->{tx} } @events)
	{
		my $tx = $tx{ $e->{tx} };
		if (!defined $tx)
		{
			$tx = $tx{ $e->{tx} } = { name => $e->{tx}, session => $e->{client}, pieces => [] };
			push @order, $tx;
		}
		if ($e->{name} =~ /^(made|claimed|ended|row)$/)
		{
			push @{ $tx->{pieces} }, { %$e, what => $e->{name}, tx => $tx };
		}
		elsif ($e->{name} =~ /^(beat|refused)$/)
		{
			push @{ $tx->{ $e->{name} . 's' } }, $e;
			# It was asked for, and is no piece.
			@{ $tx->{pieces} } = grep { !($_->{what} eq 'ended' && $_->{id} eq $e->{id} && $_->{attempt} eq $e->{attempt}) } @{ $tx->{pieces} }
			  if $e->{name} eq 'refused';
		}
		else
		{
			$tx->{ $e->{name} } = $e->{time};
		}
	}
	return @order;
}

# A session that was ended alone may not know whether it has committed.  It has not if somebody got
# what it had claimed, under the same number.
sub find_undone
{
	my (@order) = @_;
	my %latest;

	foreach my $piece (sort { $a->{time} <=> $b->{time} } grep { $_->{what} eq 'claimed' } map { @{ $_->{pieces} } } @order)
	{
		my $earlier = $latest{"$piece->{id} $piece->{attempt}"};
		$latest{"$piece->{id} $piece->{attempt}"} = $piece->{tx};
		$earlier->{undone} = $piece->{time}
		  if defined $earlier && $earlier != $piece->{tx} && !defined $earlier->{committed} && !defined $earlier->{prepared};
	}
	return;
}

# Whether a job has lost this attempt with its lease.
sub is_expired
{
	my ($job, $attempt) = @_;
	return 0 if !defined $job;
	return scalar grep { $_ eq "$attempt:lease_expired" } split /,/, $job->{errors} // '';
}

# Whether a piece is there.
sub is_there
{
	my ($piece, $facts) = @_;
	my ($what, $n) = @$piece{qw(what attempt)};
	my ($job) = @{ $facts->{jobs}{ $piece->{id} } // [] };

	return ($facts->{rows}{ $piece->{tx}{name} } // 0) > 0 if $what eq 'row';
	return 0 if !defined $job;
	return 1 if $what eq 'made';
	return $job->{attempt} > $n || $job->{attempt} == $n && ($job->{state} ne 'processing' || $job->{worker} eq $piece->{client})
	  if $what eq 'claimed';
	return $job->{attempt} == $n && $job->{state} eq 'succeeded' if $piece->{state} eq 'succeeded';
	return 0 if is_expired($job, $n);
	return $job->{attempt} > $n || $job->{attempt} == $n && $job->{state} ne 'processing';
}

# The class of a piece; that of an end is that of the claim.
sub class_of
{
	my ($self, $piece) = @_;
	return 'durable' if $piece->{what} eq 'row';
	return $self->{class_of}{ $self->{queue_of}{ $piece->{id} } // '' }
	  // die "unknown queue of job $piece->{id}";
}

# What a transaction is, how it ended, and what is there of it.
sub classify
{
	my ($self, $tx, $facts) = @_;
	my %classes;

	foreach my $piece (@{ $tx->{pieces} })
	{
		$self->{queue_of}{ $piece->{id} } = $piece->{queue} if $piece->{queue} ne '-';
		$piece->{class} = $self->class_of($piece);
		$classes{ $piece->{class} } = 1;
	}
	my $is_prepared = defined $tx->{preparing} && !defined $tx->{undone};
	$tx->{class} =
	    $classes{durable} || $is_prepared && %classes ? 'durable'
	  : $classes{async}                              ? 'async'
	  : $classes{unlogged}                           ? 'unlogged'
	  :                                                'none';
	$tx->{asked} = $tx->{preparing} // $tx->{committing};
	$tx->{told} = $tx->{prepared} // $tx->{committed};
	$tx->{outcome} =
	    defined $tx->{undone} || !defined $tx->{asked} ? 'undone'
	  : defined $tx->{told}                            ? 'told'
	  :                                                  'unknown';
	# Unlogged pieces are out of it.  So is an end that was refused because its lease was over, which a
	# session without an answer cannot tell.
	$tx->{lasting} = [ grep { $_->{class} ne 'unlogged' && !($tx->{outcome} eq 'unknown' && $_->{what} eq 'ended' && is_expired($facts->{jobs}{ $_->{id} }[0], $_->{attempt})) }
		  @{ $tx->{pieces} } ];
	$tx->{there} = [ grep { is_there($_, $facts) } @{ $tx->{lasting} } ];
	$tx->{is_lost} = $tx->{outcome} ne 'undone' && @{ $tx->{lasting} } && !@{ $tx->{there} };
	$self->{count}{"$tx->{class} $tx->{outcome}"}++;
	$self->{count}{"$tx->{class} lost"}++ if $tx->{is_lost} && $tx->{outcome} eq 'told';
	$self->{count}{prepared}++ if $is_prepared;
	$self->{count}{rows}++
	  if $tx->{outcome} eq 'told' && grep { $_->{what} eq 'row' } @{ $tx->{pieces} };
	$self->{count}{'rows with async jobs'}++
	  if $tx->{outcome} eq 'told' && $classes{async} && grep { $_->{what} eq 'row' } @{ $tx->{pieces} };
	return;
}

sub text_of
{
	my ($piece) = @_;
	return "row" if $piece->{what} eq 'row';
	return "$piece->{what} $piece->{id}"
	  . ($piece->{what} eq 'made' ? '' : " $piece->{attempt} ($piece->{state})");
}

sub check_kept
{
	my ($self, $facts) = @_;
	return map { "kept transaction $_->{tx}{name} ($_->{tx}{class}): " . text_of($_) . " was there after an earlier crash" }
	  grep { !is_there($_, $facts) } @{ $self->{kept} };
}

# What two transactions can only do one after the other, if the first is undone.
sub key_of
{
	my ($piece) = @_;
	return "$piece->{what} $piece->{id} $piece->{attempt} " . ($piece->{what} eq 'row' ? $piece->{tx}{name} : '');
}

# done: what transactions that were not undone have done.
sub check_transaction
{
	my ($self, $tx, $done) = @_;
	my ($there, $all) = (scalar @{ $tx->{there} }, scalar @{ $tx->{lasting} });

	return if $all == 0;
	if ($tx->{outcome} eq 'undone')
	{
		return map { "undone transaction $tx->{name} ($tx->{class}): " . text_of($_) . " is there" }
		  grep { !$done->{ key_of($_) } } @{ $tx->{there} };
	}
	if ($there > 0 && $there < $all)
	{
		my %is_there = map { $_ => 1 } @{ $tx->{there} };
		return "whole transaction $tx->{name} ($tx->{class}): $there pieces of $all are there, not all; one that is not: "
		  . text_of((grep { !$is_there{$_} } @{ $tx->{lasting} })[0]);
	}
	return "kept transaction $tx->{name} was acknowledged, is durable and lost: "
	  . join(', ', map { text_of($_) } @{ $tx->{lasting} })
	  if $tx->{class} eq 'durable' && $tx->{outcome} eq 'told' && $there == 0;
	return;
}

# A commit that was asked for after another one was acknowledged is behind it in the WAL.
sub check_suffix
{
	my ($self, @order) = @_;
	my (%lost_in, $first, @bad);

	foreach my $tx (grep { $_->{is_lost} && $_->{class} eq 'async' && $_->{outcome} eq 'told' } @order)
	{
		$first = $tx if !defined $first || $tx->{told} < $first->{told};
	}
	foreach my $tx (grep { $_->{outcome} ne 'undone' && @{ $_->{lasting} } } @order)
	{
		my $lost = $lost_in{ $tx->{session} };
		if ($tx->{is_lost})
		{
			$lost_in{ $tx->{session} } //= $tx if $tx->{class} eq 'async';
		}
		elsif (defined $lost)
		{
			push @bad, "suffix transaction $tx->{name} ($tx->{class}) is there, and $lost->{name} before it is lost";
		}
		elsif (defined $first && $tx->{asked} > $first->{told})
		{
			push @bad, "suffix transaction $tx->{name} ($tx->{class}) is there, and $first->{name},"
			  . " which was acknowledged before, is lost";
		}
	}
	return @bad;
}

sub check_empty
{
	my ($self, $facts) = @_;
	my @bad;

	push @bad, "empty $facts->{unlogged} rows of unlogged jobs are there" if $facts->{unlogged};
	foreach my $id (sort keys %{ $facts->{jobs} })
	{
		push @bad, map { "empty job $id of queue $_->{queue} is there" }
		  grep { ($self->{class_of}{ $_->{queue} } // '') eq 'unlogged' } @{ $facts->{jobs}{$id} };
	}
	return @bad;
}

# What was committed was given: of what no answer came for, that is so if it is there.
sub check_numbers
{
	my ($self, @order) = @_;
	my @bad;

	foreach my $piece (map { @{ $_->{pieces} } } grep { $_->{outcome} ne 'undone' } @order)
	{
		my ($tx, $key) = ($piece->{tx}, "$piece->{id} " . $piece->{attempt});
		next if $piece->{what} ne 'claimed';
		next if $tx->{outcome} eq 'unknown' && ($piece->{class} eq 'unlogged' || $tx->{is_lost});
		push @bad, "numbers job $piece->{id} attempt $piece->{attempt} ($piece->{class}) was given to"
		  . " $self->{given}{$key} and to $tx->{name}"
		  if defined $self->{given}{$key};
		$self->{given}{$key} = $tx->{name};
		$self->{count}{"$piece->{class} claims"}++;
		$self->{count}{"$piece->{class} claims of jobs whose claim was lost"}++
		  if $self->{was_lost}{ $piece->{id} };
	}
	return @bad;
}

# Remembers what is there, and which claims are not.
sub keep
{
	my ($self, @order) = @_;

	foreach my $tx (grep { $_->{outcome} ne 'undone' } @order)
	{
		push @{ $self->{kept} }, @{ $tx->{there} };
		foreach my $piece (grep { $_->{what} =~ /^(claimed|ended)$/ } @{ $tx->{there} })
		{
			my $claim = $self->{claims}{ $piece->{id} }{ $piece->{attempt} } //= { end => '' };
			$claim->{end} = $piece->{state} if $piece->{what} eq 'ended';
			@$claim{qw(time lease life)} = (@$piece{qw(time lease)}, $self->{life}) if $piece->{what} eq 'claimed';
		}
		# A claim whose commit got no answer was perhaps never made: its number may be given yet.
		next if $tx->{outcome} ne 'told';
		foreach my $piece (grep { $_->{what} eq 'claimed' } @{ $tx->{pieces} })
		{
			next if $piece->{class} ne 'unlogged' && !$tx->{is_lost};
			push @{ $self->{lost} }, [ $piece->{id}, $piece->{attempt}, 'refused' ];
			$self->{was_lost}{ $piece->{id} } = 1;
		}
	}
	return;
}

sub check_once
{
	my ($self, $facts, @order) = @_;
	my @bad;

	push @bad, map { "once job $_ is there " . @{ $facts->{jobs}{$_} } . " times" }
	  grep { @{ $facts->{jobs}{$_} } > 1 } sort keys %{ $facts->{jobs} };
	push @bad, map { "once row of transaction $_ is there $facts->{rows}{$_} times" }
	  grep { $facts->{rows}{$_} > 1 } sort keys %{ $facts->{rows} };
	my %ids = map { $_->{id} => 1 } grep { $_->{what} eq 'claimed' } map { @{ $_->{there} } } @order;
	foreach my $id (sort keys %ids)
	{
		my $claims = $self->{claims}{$id};
		my @attempts = sort { $a <=> $b } keys %$claims;
		foreach my $i (1 .. $#attempts)
		{
			my ($earlier, $later) = map { $claims->{$_} } @attempts[ $i - 1, $i ];
			next if $earlier->{end} eq 'given_back' || is_over($earlier, $later);
			push @bad, "once job $id attempt $attempts[$i] was given, and attempt $attempts[$i - 1] "
			  . ($earlier->{end} eq '' ? 'is held' : 'has succeeded');
		}
	}
	return @bad;
}

# Whether a claim was over by itself when a later one was made.  In one life check_leases() knows better.
# A crash forgets heartbeats: the end in the row counts.
sub is_over
{
	my ($earlier, $later) = @_;
	return 0 if $earlier->{end} ne '' || !defined $earlier->{lease} || !defined $later->{time};
	return $earlier->{life} == $later->{life} || $earlier->{lease} < $later->{time};
}

# Leases of this life, of what was committed in it.
sub check_leases
{
	my ($self, @order) = @_;
	my (%claims, %until, %ended, @bad);

	foreach my $tx (grep { $_->{outcome} ne 'undone' } @order)
	{
		foreach my $piece (grep { defined $_->{lease} && $_->{what} eq 'claimed' } @{ $tx->{pieces} })
		{
			push @{ $claims{ $piece->{id} } }, $piece if $tx->{outcome} eq 'told';
			$until{"$piece->{id} $piece->{attempt}"} = $piece->{lease};
		}
		# Also those of which nobody knows whether they have come to be.
		$ended{"$_->{id} $_->{attempt}"} = 1 foreach grep { $_->{what} eq 'ended' } @{ $tx->{pieces} };
	}
	foreach my $beat (map { @{ $_->{beats} // [] } } grep { $_->{outcome} eq 'told' } @order)
	{
		my $key = "$beat->{id} $beat->{attempt}";
		$self->{count}{heartbeats}++;
		$until{$key} = max($until{$key}, $beat->{lease}) if defined $until{$key};
	}
	foreach my $id (sort keys %claims)
	{
		my @claims = sort { $a->{attempt} <=> $b->{attempt} } @{ $claims{$id} };
		foreach my $i (1 .. $#claims)
		{
			my ($earlier, $later) = @claims[ $i - 1, $i ];
			my $key = "$id $earlier->{attempt}";
			next if $ended{$key};
			$self->{count}{"$later->{class} claims of jobs whose lease was over"}++;
			push @bad, "lease job $id attempt $later->{attempt} ($later->{class}) was given while attempt $earlier->{attempt} was held"
			  if $until{$key} > $later->{time};
		}
	}
	foreach my $refused (map { @{ $_->{refuseds} // [] } } @order)
	{
		my $key = "$refused->{id} $refused->{attempt}";
		$self->{count}{'refused within a life'}++;
		push @bad, "lease job $refused->{id} attempt $refused->{attempt}: $refused->{op} was refused within the lease"
		  if !$ended{$key} && defined $until{$key} && $until{$key} > $refused->{time};
	}
	return @bad;
}

# The queue of a job, if anybody knows it.
sub class_of_job
{
	my ($self, $facts, $id) = @_;
	my ($job) = @{ $facts->{jobs}{$id} // [] };
	my $queue = $job ? $job->{queue} : $self->{queue_of}{$id};
	return defined $queue ? $self->{class_of}{$queue} : undef;
}

# What workers in the database have run, in all lives.
sub check_runs
{
	my ($self, $facts) = @_;
	my ($runs, $effects) = @$facts{qw(runs effects)};
	my @bad;

	foreach my $id (sort keys %{ { %$runs, %$effects } })
	{
		my ($job) = @{ $facts->{jobs}{$id} // [] };
		my $class = $self->class_of_job($facts, $id) // 'unknown';
		my @all_runs = @{ $runs->{$id} // [] };
		my @all_effects = @{ $effects->{$id} // [] };
		my $past = $self->{past}{$id} // {};
		my @runs = grep { !$past->{ $_->{attempt} } } @all_runs;
		my @effects = grep { !$past->{$_} } @all_effects;

		push @bad, $self->check_pids($id, $class, @all_runs);
		push @bad, check_effects_alone($id, \@all_runs, @all_effects) if !$job || %$past;
		if ($job && !exists $facts->{handlers}{ $job->{method} })
		{
			push @bad, "begun job $id ($class) was run, and has no handler" if @runs || @effects;
		}
		elsif ($job)
		{
			push @bad, map { "ran job $id ($class) $_->[1]" }
			  grep { $_->[1] !~ /run by the processes|the row says/ } QmlChecker::run_faults($job, @runs);
			push @bad, map { "effect job $id ($class) $_->[1]" }
			  QmlChecker::effect_faults($job, $facts->{handlers}{ $job->{method} }, @effects);
			push @bad, map { "begun job $id attempt $_ ($class) was run, the row says $job->{attempt}" }
			  grep { $_ > $job->{attempt} } max(0, map { $_->{attempt} } @runs);
			$self->{count}{"$class successes in the database"}++ if $job->{state} eq 'succeeded';
			my $seen = $facts->{seen}{$id};
			push @bad, "kept job $id ($class) was seen to have succeeded in attempt $seen, and is $job->{state} in attempt $job->{attempt}"
			  if defined $seen && $class eq 'durable' && "$job->{state} $job->{attempt}" ne "succeeded $seen";
			$self->{count}{"$class successes lost"}++ if defined $seen && $job->{state} ne 'succeeded';
		}
		else
		{
			push @bad, "begun job $id ($class) was run, and is not there" if @runs && $class =~ /^(durable|async)$/;
			push @bad, "effect job $id ($class) has an effect, and is not there" if @effects && $class =~ /^(durable|async)$/;
			$self->{count}{'unlogged runs'}++ if @runs && $class eq 'unlogged';
			# It may be made anew under its id, perhaps in another class.
			$self->{past}{$id}{$_} = 1 foreach @effects, map { $_->{attempt} } @runs;
		}
	}
	return @bad;
}

# No attempt is run by two processes, whatever was lost in between.
sub check_pids
{
	my ($self, $id, $class, @runs) = @_;
	my %pids;

	$pids{ $_->{attempt} }{ $_->{pid} } = 1 foreach @runs;
	return map { "numbers job $id attempt $_ ($class) was run by the processes " . join(' ', sort { $a <=> $b } keys %{ $pids{$_} }) }
	  grep { keys %{ $pids{$_} } > 1 } sort { $a <=> $b } keys %pids;
}

# Effects of a job that no crash leaves.
sub check_effects_alone
{
	my ($id, $runs, @effects) = @_;
	my (%ended, %count);

	$ended{ $_->{attempt} } = 1 foreach grep { $_->{what} eq 'end' } @$runs;
	$count{$_}++ foreach @effects;
	return (map { "effect job $id has $count{$_} effects of attempt $_" } grep { $count{$_} > 1 } sort keys %count),
	  map { "effect job $id has an effect of attempt $_, which did not run to its end" } grep { !$ended{$_} } sort keys %count;
}

sub check_ends
{
	my ($self, $facts) = @_;
	my @bad;

	foreach my $id (sort keys %{ $facts->{jobs} })
	{
		foreach my $job (grep { defined $_->{uncounted} } @{ $facts->{jobs}{$id} })
		{
			my @errors = map { [ split /:/, $_, 2 ] } split /,/, $job->{errors} // '';
			$self->{count}{$_}++ foreach map { ($self->{class_of}{ $job->{queue} } // 'unknown') . " $_->[1]" } @errors;
			push @bad, map { "ends job $id of queue $job->{queue} $_->[1]" } QmlChecker::attempt_faults($job, @errors);
		}
	}
	return @bad;
}

# Claims of this life and what their ends must be answered with: [id, attempt, accepted or refused].
sub tokens_of
{
	my ($self, $facts, @order) = @_;
	my @tokens;

	foreach my $piece (grep { $_->{what} eq 'claimed' } map { @{ $_->{pieces} } } grep { $_->{outcome} eq 'told' } @order)
	{
		my ($job) = @{ $facts->{jobs}{ $piece->{id} } // [] };
		my $is_held = $job && $job->{state} eq 'processing' && $job->{attempt} == $piece->{attempt};
		push @tokens, [ $piece->{id}, $piece->{attempt}, $is_held ? 'accepted' : 'refused' ];
	}
	return \@tokens;
}

sub some
{
	my ($most, @all) = @_;
	my %seen;
	my @shuffled = shuffle(grep { !$seen{"$_->[0] $_->[1]"}++ } @all);
	return @shuffled > $most ? @shuffled[ 0 .. $most - 1 ] : @shuffled;
}

# Some tokens whose ends are to be said after a crash.
sub tokens
{
	my ($self, $most) = @_;
	return some($most, @{ $self->{tokens} });
}

# Some of claims that were committed and are not there: refused for ever.
sub lost_tokens
{
	my ($self, $most) = @_;
	return some($most, @{ $self->{lost} });
}

# What became of tokens: [id, attempt, expected, answer].  A claim whose end was accepted was given
# back.
sub judge_answers
{
	my ($self, @answers) = @_;
	my @bad;

	foreach my $answer (@answers)
	{
		my ($id, $attempt, $expected, $was) = @$answer;
		$self->{count}{$was}++;
		$self->{claims}{$id}{$attempt}{end} = 'given_back' if $was eq 'accepted';
		push @bad, "refused the end of job $id attempt $attempt: $was, but expected $expected"
		  if $was ne $expected;
	}
	return @bad;
}

# The number behind the last one of a series of ids that is there.
sub next_of_series
{
	my ($facts, $series) = @_;
	my $prefix = sprintf '00000000-0000-4000-8%03d-', $series;
	my $next = 0;

	foreach my $id (keys %{ $facts->{jobs} })
	{
		next if index($id, $prefix) != 0;
		my $n = substr($id, length $prefix) + 1;
		$next = $n if $n > $next;
	}
	return $next;
}

1;
