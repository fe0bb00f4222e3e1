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
#   client    the sessions met no error
#
# The oracle is called after each crash, before anybody else changes a job; what it has found to be
# there it remembers.

package QmlStorage;

use strict;
use warnings;

use List::Util qw(shuffle);

# new(queue => class, ...)
sub new
{
	my ($class, %class_of) = @_;
	return bless {
		class_of => \%class_of,
		kept => [],     # pieces that were there after a crash
		given => {},    # "id attempt" of claims that were committed
		claims => {},   # id: {attempt: has come to an end}, of those that were there
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
# tables of unlogged jobs}.
sub judge
{
	my ($self, $facts, @events) = @_;
	my @order = index_events(@events);
	my @bad;

	push @bad, map { "client $_->{client} met $_->{sqlstate} in $_->{op}" }
	  grep { $_->{name} eq 'error' } @events;
	push @bad, $self->check_kept($facts);
	$self->classify($_, $facts) foreach @order;
	my %done = map { key_of($_) => 1 } map { @{ $_->{lasting} } } grep { $_->{outcome} ne 'undone' } @order;
	push @bad, map { $self->check_transaction($_, \%done) } @order;
	push @bad, $self->check_suffix(@order);
	push @bad, $self->check_empty($facts);
	push @bad, $self->check_numbers(@order);
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
		else
		{
			$tx->{ $e->{name} } = $e->{time};
		}
	}
	return @order;
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
	# Unlogged pieces are out of it.
	$tx->{lasting} = [ grep { $_->{class} ne 'unlogged' } @{ $tx->{pieces} } ];
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
	return "whole transaction $tx->{name} ($tx->{class}): $there pieces of $all are there, not all"
	  if $there > 0 && $there < $all;
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
		foreach my $piece (@{ $tx->{there} })
		{
			$self->{claims}{ $piece->{id} }{ $piece->{attempt} } //= '' if $piece->{what} eq 'claimed';
			$self->{claims}{ $piece->{id} }{ $piece->{attempt} } = $piece->{state} if $piece->{what} eq 'ended';
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
		my $ends = $self->{claims}{$id};
		my @attempts = sort { $a <=> $b } keys %$ends;
		foreach my $i (1 .. $#attempts)
		{
			my $end = $ends->{ $attempts[ $i - 1 ] };
			push @bad, "once job $id attempt $attempts[$i] was given, and attempt $attempts[$i - 1] "
			  . ($end eq '' ? 'is held' : 'has succeeded')
			  if $end ne 'given_back';
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
		$self->{claims}{$id}{$attempt} = 'given_back' if $was eq 'accepted';
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
