# The judge of storage classes finds what it is there to find: for each rule a small history that
# breaks it, and nothing in histories that are in order.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlStorage;
use Test::More;

my %CLASS = (d => 'durable', a => 'async', u => 'unlogged');
my $clock = 0;

# Events of a transaction: name of the session and its number, how it ended, and its pieces.
sub tx
{
	my ($name, $end, @pieces) = @_;
	my ($session) = $name =~ /^(.*)-/;
	my @ends = {
		told => [ 'committing', 'committed' ], unknown => ['committing'], undone => [ 'undoing', 'undone' ], unsent => [],
		prepared => [ 'preparing', 'prepared' ], asleep => ['preparing'] }->{$end}->@*;
	return map { { time => ++$clock, client => $session, tx => $name, id => '-', %$_ } } @pieces, map { { name => $_ } } @ends;
}

sub made
{
	my ($id, $queue) = @_;
	return { name => 'made', id => $id, attempt => '-', state => '-', queue => $queue };
}

sub claimed
{
	my ($id, $attempt, $queue) = @_;
	return { name => 'claimed', id => $id, attempt => $attempt, state => 'processing', queue => $queue };
}

sub ended
{
	my ($id, $attempt, $state) = @_;
	return { name => 'ended', id => $id, attempt => $attempt, state => $state // 'succeeded', queue => '-' };
}

sub row
{
	return { name => 'row', attempt => '-', state => '-', queue => '-' };
}

# A claim that ends at a time: long ago or much later.
my ($OVER, $LATER) = (0, 1e9);

sub leased
{
	my ($id, $attempt, $queue, $lease) = @_;
	return { %{ claimed($id, $attempt, $queue) }, lease => $lease };
}

sub beat
{
	my ($id, $attempt, $lease) = @_;
	return { name => 'beat', id => $id, attempt => $attempt, state => 'processing', lease => $lease };
}

sub refused
{
	my ($id, $attempt) = @_;
	return { name => 'refused', id => $id, attempt => $attempt, state => '-', op => 'succeed' };
}

# What is there: "id state attempt queue worker method uncounted errors", names of transactions with
# a row, "unlogged" with a number, and more as a hash.
sub facts
{
	my (@there) = @_;
	my $facts = { jobs => {}, rows => {}, unlogged => 0 };
	foreach (@there)
	{
		if (ref $_)
		{
			$facts = { %$facts, %$_ };
			next;
		}
		my ($id, $state, $attempt, $queue, $worker, $method, $uncounted, $errors) = split / /;
		if ($id eq 'unlogged')
		{
			$facts->{unlogged} = $state;
		}
		elsif (defined $queue)
		{
			push @{ $facts->{jobs}{$id} }, { state => $state, attempt => $attempt, queue => $queue, worker => $worker // 's', method => $method, uncounted => $uncounted, errors => $errors };
		}
		else
		{
			$facts->{rows}{$id}++;
		}
	}
	return $facts;
}

# Lives of a server, each [facts, events].
sub judge
{
	my (@lives) = @_;
	my $oracle = QmlStorage->new(%CLASS);
	return map { my ($facts, @events) = @$_; $oracle->judge($facts, @events) } @lives;
}

sub finds
{
	my ($pattern, $name, @lives) = @_;
	my @bad = judge(@lives);
	ok(@bad == 1 && $bad[0] =~ $pattern, "finds $name") or diag("found: ", join("\n       ", @bad));
	return;
}

sub finds_nothing
{
	my ($name, @lives) = @_;
	is(join("\n", judge(@lives)), '', $name);
	return;
}

# ---- in order

finds_nothing('nothing is lost', [
	facts('j succeeded 1 d', 'k processing 1 a', 's-1'),
	tx('s-1', 'told', made('j', 'd'), made('k', 'a'), made('l', 'u'), row()),
	tx('s-2', 'told', claimed('j', 1, 'd'), claimed('k', 1, 'a')), tx('s-3', 'told', ended('j', 1)) ]);
finds_nothing('the last async transactions are lost', [
	facts('j enqueued 0 a'),
	tx('s-1', 'told', made('j', 'a')), tx('s-2', 'told', claimed('j', 1, 'a')), tx('t-1', 'told', made('k', 'a')), tx('s-3', 'told', ended('j', 1)) ]);
finds_nothing('a commit without an answer is lost, or there', [
	facts('k enqueued 0 d', 't-1'), tx('s-1', 'unknown', made('j', 'd'), row()), tx('t-1', 'unknown', made('k', 'd'), row()) ]);
finds_nothing('one that was asked for earlier may be there', [
	facts('j enqueued 0 a'), (map { $_->[0] } [ { time => 1, client => 's', tx => 's-1', %{ made('j', 'a') } } ]),
	{ time => 2, client => 's', tx => 's-1', id => '-', name => 'committing' },
	{ time => 1, client => 't', tx => 't-1', %{ made('k', 'a') } }, { time => 1.5, client => 't', tx => 't-1', id => '-', name => 'committing' },
	{ time => 3, client => 't', tx => 't-1', id => '-', name => 'committed' } ]);
finds_nothing('a job that is lost and made anew, under another number', [
	facts(), tx('s-1', 'told', made('j', 'a')), tx('s-2', 'told', claimed('j', 1, 'a')) ],
	[ facts('j processing 65537 a t'), tx('t-1', 'told', made('j', 'a')), tx('t-2', 'told', claimed('j', 65537, 'a')) ]);
finds_nothing('a job that is given back and given again', [
	facts('j processing 2 d'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'told', claimed('j', 1, 'd')),
	tx('s-3', 'told', ended('j', 1, 'given_back')), tx('s-4', 'told', claimed('j', 2, 'd')) ]);
finds_nothing('a claim that was undone is given again', [
	facts('j processing 1 d'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'undone', claimed('j', 1, 'd')), tx('s-3', 'told', claimed('j', 1, 'd')) ]);
finds_nothing('also to somebody who was not told', [
	facts('j processing 1 d t'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'undone', claimed('j', 1, 'd')) ]);

# ---- kept

finds(qr/^kept .* s-1 was acknowledged, is durable and lost/, 'a durable job that is lost', [ facts(), tx('s-1', 'told', made('j', 'd')) ]);
finds(qr/^kept .* s-1 .* lost/, 'a row that is lost with an async job', [ facts(), tx('s-1', 'told', made('j', 'a'), row()) ]);
finds(qr/^kept .* s-1 .* lost: row/, 'a row that is lost with an unlogged job', [ facts(), tx('s-1', 'told', made('j', 'u'), row()) ]);
finds(qr/^kept .* s-1 .* lost/, 'a prepared transaction that is lost', [ facts(), tx('s-1', 'prepared', made('j', 'a')) ]);
finds(qr/^kept .* s-2 .* lost: claimed j 1/, 'a durable claim that is lost', [
	facts('j enqueued 0 d'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'told', claimed('j', 1, 'd')) ]);
finds(qr/^kept .* s-3 .* lost: ended j 1/, 'a durable end that is lost', [
	facts('j processing 1 d'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'told', claimed('j', 1, 'd')), tx('s-3', 'told', ended('j', 1)) ]);
finds(qr/^kept .* s-1 \(async\): made j was there after an earlier crash/, 'an async job that is lost later', [
	facts('j enqueued 0 a'), tx('s-1', 'told', made('j', 'a')) ], [ facts() ]);

# ---- suffix

finds(qr/^suffix .* s-2 \(async\) is there, and s-1 before it is lost/, 'one of a session behind a lost one', [
	facts('k enqueued 0 a'), tx('s-1', 'told', made('j', 'a')), tx('s-2', 'told', made('k', 'a')) ]);
finds(qr/^suffix .* s-2 \(async\) is there, and s-1 before it is lost/, 'one behind a lost one without an answer', [
	facts('k enqueued 0 a'), tx('s-1', 'unknown', made('j', 'a')), tx('s-2', 'told', made('k', 'a')) ]);
finds(qr/^suffix .* t-1 \(durable\) is there, and s-1, which was acknowledged before, is lost/, 'a durable one of another session behind a lost one', [
	facts('k enqueued 0 d'), tx('s-1', 'told', made('j', 'a')), tx('t-1', 'told', made('k', 'd')) ]);

# ---- whole, undone

finds(qr/^whole .* s-1 \(async\): 1 pieces of 2/, 'a transaction with half of its jobs', [
	facts('j enqueued 0 a'), tx('s-1', 'told', made('j', 'a'), made('k', 'a')) ]);
finds(qr/^whole .* s-1 \(durable\): 1 pieces of 2/, 'a row without its job', [ facts('s-1'), tx('s-1', 'told', made('j', 'a'), row()) ]);
finds(qr/^whole .* s-2 \(async\): 1 pieces of 2/, 'a claim without the job of its transaction', [
	facts('j processing 1 a'), tx('s-1', 'told', made('j', 'a')), tx('s-2', 'unknown', claimed('j', 1, 'a'), made('k', 'a')) ]);
finds(qr/^undone .* s-1 \(async\): made j is there/, 'a job that was rolled back', [ facts('j enqueued 0 a'), tx('s-1', 'undone', made('j', 'a')) ]);
finds(qr/^undone .* s-2 \(durable\): claimed j 1/, 'a claim that was rolled back', [
	facts('j processing 1 d'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'undone', claimed('j', 1, 'd')) ]);
finds(qr/^undone .* s-1 \(durable\): row is there/, 'a row whose commit was not asked for', [ facts('s-1'), tx('s-1', 'unsent', row()) ]);

# ---- once

finds(qr/^once job j is there 2 times/, 'a job that is there twice', [
	facts('j enqueued 0 d', 'j succeeded 1 d'), tx('s-1', 'told', made('j', 'd')) ]);
finds(qr/^once row of transaction s-1 is there 2 times/, 'a row that is there twice', [ facts('s-1', 's-1'), tx('s-1', 'told', row()) ]);
finds(qr/^once job j attempt 2 was given, and attempt 1 is held/, 'a job that is held and given again', [
	facts('j processing 2 d t'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'told', claimed('j', 1, 'd')), tx('t-1', 'told', claimed('j', 2, 'd')) ]);
finds(qr/^kept .* s-2 .* lost: claimed j 1/, 'a claim whose job somebody else has', [
	facts('j processing 1 d t'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'told', claimed('j', 1, 'd')) ]);
{
	my @bad = judge([
		facts('j processing 2 d t'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'told', claimed('j', 1, 'd')),
		tx('s-3', 'told', ended('j', 1)), tx('t-1', 'told', claimed('j', 2, 'd')) ]);
	is(scalar(grep { /^kept .* s-3 .* lost: ended j 1/ } @bad), 1, 'finds an end that was undone by the next claim');
}

# ---- empty

finds(qr/^empty 3 rows of unlogged jobs are there/, 'rows in the tables', [ facts('unlogged 3'), tx('s-1', 'told', made('j', 'u')) ]);
finds(qr/^empty job j of queue u is there/, 'a job in the view', [ facts('j enqueued 0 u'), tx('s-1', 'told', made('j', 'u')) ]);

# ---- numbers

finds(qr/^numbers job j attempt 1 \(async\) was given to s-2 and to t-2/, 'a number that is given again after a claim was lost', [
	facts('j enqueued 0 a'), tx('s-1', 'told', made('j', 'a')), tx('s-2', 'told', claimed('j', 1, 'a')) ],
	[ facts('j processing 1 a t'), tx('t-2', 'told', claimed('j', 1, 'a')) ]);
finds(qr/^numbers job j attempt 1 \(unlogged\) was given to s-2 and to t-2/, 'a number of an unlogged job that is made anew', [
	facts(), tx('s-1', 'told', made('j', 'u')), tx('s-2', 'told', claimed('j', 1, 'u')) ],
	[ facts(), tx('t-1', 'told', made('j', 'u')), tx('t-2', 'told', claimed('j', 1, 'u')) ]);

# ---- lease

foreach my $case ([ 'd', 'durable', 'j processing 2 d t' ], [ 'a', 'async', 'j processing 2 a t' ], [ 'u', 'unlogged' ])
{
	my ($queue, $class, @there) = @$case;
	my @begin = (facts(@there), tx('s-1', 'told', made('j', $queue)));
	finds_nothing("$class: a job is given again when its lease is over", [
		@begin, tx('s-2', 'told', leased('j', 1, $queue, $OVER)), tx('t-1', 'told', leased('j', 2, $queue, $LATER)) ]);
	finds(qr/^lease job j attempt 2 \($class\) was given while attempt 1 was held/, "$class: and before", [
		@begin, tx('s-2', 'told', leased('j', 1, $queue, $LATER)), tx('t-1', 'told', leased('j', 2, $queue, $LATER)) ]);
	finds(qr/^lease job j attempt 2 \($class\) was given while attempt 1 was held/, "$class: or before the end that a heartbeat has told", [
		@begin, tx('s-2', 'told', leased('j', 1, $queue, $OVER)), tx('s-3', 'told', beat('j', 1, $LATER)),
		tx('t-1', 'told', leased('j', 2, $queue, $LATER)) ]);
	finds_nothing("$class: a heartbeat that was rolled back does not count", [
		@begin, tx('s-2', 'told', leased('j', 1, $queue, $OVER)), tx('s-3', 'undone', beat('j', 1, $LATER)),
		tx('t-1', 'told', leased('j', 2, $queue, $LATER)) ]);
	finds_nothing("$class: nor does a claim whose end was asked for", [
		@begin, tx('s-2', 'told', leased('j', 1, $queue, $LATER)), tx('s-3', 'unknown', ended('j', 1, 'given_back')),
		tx('t-1', 'told', leased('j', 2, $queue, $LATER)) ]);
	finds_nothing("$class: who is late is refused", [
		@begin, tx('s-2', 'told', leased('j', 1, $queue, $OVER)), tx('t-1', 'told', leased('j', 2, $queue, $LATER)),
		tx('s-3', 'undone', ended('j', 1), refused('j', 1)), tx('s-4', 'told', ended('j', 1), refused('j', 1)) ]);
	finds(qr/^lease job j attempt 2: succeed was refused within the lease/, "$class: who is refused and not late", [
		@begin, tx('s-2', 'told', leased('j', 1, $queue, $OVER)), tx('t-1', 'told', leased('j', 2, $queue, $LATER)),
		tx('t-2', 'undone', ended('j', 2), refused('j', 2)) ]);
}
foreach my $case ([ $OVER, 'finds_nothing' ], [ $LATER, 'finds' ])
{
	my ($lease, $what) = @$case;
	my @lives = (
		[ facts('j processing 1 d'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'told', leased('j', 1, 'd', $lease)), tx('s-3', 'told', beat('j', 1, $LATER)) ],
		[ facts('j processing 2 d t'), tx('t-1', 'told', leased('j', 2, 'd', $LATER)) ]);
	$what eq 'finds'
	  ? finds(qr/^once job j attempt 2 was given, and attempt 1 is held/, 'a job that was held over a crash and given again', @lives)
	  : finds_nothing('a crash forgets heartbeats', @lives);
}
my @back = (tx('s-1', 'told', made('j', 'd')), tx('s-2', 'told', leased('j', 1, 'd', $OVER)), tx('s-3', 'undone', ended('j', 1, 'given_back')));
finds_nothing('what was lost with its lease was not given back', [ facts('j enqueued 1 d s m 0 1:lease_expired'), @back ]);
finds(qr/^undone .* s-3 \(durable\): ended j 1/, 'an end that was rolled back', [ facts('j enqueued 1 d s m 1'), @back ]);
@back = (tx('s-1', 'told', made('j', 'a')), tx('s-2', 'unknown', leased('j', 1, 'a', $LATER), made('k', 'a')));
finds_nothing('who got no answer has claimed nothing if somebody else got the claim', [
	facts('j processing 1 a t'), @back, tx('t-1', 'told', leased('j', 1, 'a', $LATER)) ]);
finds(qr/^whole .* s-2 \(async\): 1 pieces of 2/, 'and half of it if nobody did', [ facts('j processing 1 a'), @back ]);

@back = (tx('s-1', 'told', made('j', 'a'), made('k', 'a')), tx('s-2', 'told', leased('j', 1, 'a', $OVER), leased('k', 1, 'a', $LATER)), tx('s-3', 'unknown', ended('j', 1), ended('k', 1)));
finds_nothing('who got no answer may have been refused', [ facts('j enqueued 1 a s m 0 1:lease_expired', 'k succeeded 1 a'), @back ]);
finds(qr/^whole .* s-3 \(async\): 1 pieces of 2/, 'half of the ends of one call, if the lease was not over', [ facts('j processing 1 a', 'k succeeded 1 a'), @back ]);

# ---- workers in the database

# "attempt pid" and perhaps "end"
sub runs
{
	my (@runs) = @_;
	return map { my ($n, $pid, $end) = split / /; map { { what => $_, attempt => $n, pid => $pid } } 'begin', $end ? 'end' : () } @runs;
}

# Runs of job j, its effects, and when it was seen to have succeeded.
sub inside
{
	my ($runs, $effects, $seen) = @_;
	return { runs => { j => [ runs(@$runs) ] }, effects => { j => $effects // [] }, handlers => { record => 1, nothing => 0 }, seen => { defined $seen ? (j => $seen) : () } };
}

foreach my $case ([ 'd', 'durable' ], [ 'a', 'async' ])
{
	my ($queue, $class) = @$case;
	my @made = tx('s-1', 'told', made('j', $queue));
	my @lost = $queue eq 'd' ? (qr/^kept .* s-1 was acknowledged/) : ();
	finds_nothing("$class: a job that was run", [ facts("j succeeded 2 $queue w record 0 1:session_gone", inside([ '1 10', '2 11 end' ], [2], 2)), @made ]);
	finds(qr/^begun job j attempt 2 \($class\) was run, the row says 1/, "$class: an attempt that was begun and is not there", [
		facts("j processing 1 $queue w record 0", inside([ '1 10', '2 11' ])), @made ]);
	my @bad = judge([ facts(inside([ '1 10' ])), @made ]);
	is(scalar(grep { /^begun job j \($class\) was run, and is not there/ } @bad), 1, "finds $class: a job that was begun and is not there");
	is(scalar @bad, 1 + @lost, 'and no more than that');
	finds(qr/^numbers job j attempt 1 \($class\) was run by the processes 10 11/, "$class: an attempt that two processes have run", [
		facts("j succeeded 1 $queue w nothing 0", inside([ '1 10', '1 11 end' ])), @made ]);
	finds(qr/^ran job j \($class\) succeeded in attempt 1, which no process ran to its end/, "$class: a success that did not run to its end", [
		facts("j succeeded 1 $queue w nothing 0", inside(['1 10'])), @made ]);
	finds(qr/^ran job j \($class\) attempt 1 went on after attempt 2 had begun/, "$class: a run that went on", [
		facts("j succeeded 2 $queue w nothing 0 1:session_gone", { %{ inside([]) }, runs => { j => [ runs('1 10'), runs('2 11 end'), { what => 'end', attempt => 1, pid => 10 } ] } }), @made ]);
	finds(qr/^effect job j \($class\) is succeeded and has 0 effects instead of 1/, "$class: a success without its effect", [
		facts("j succeeded 1 $queue w record 0", inside(['1 10 end'])), @made ]);
	finds(qr/^effect job j \($class\) is processing and has 1 effects instead of 0/, "$class: an effect without its success", [
		facts("j processing 1 $queue w record 0", inside([ '1 10 end' ], [1])), @made ]);
	finds(qr/^effect job j \($class\) is succeeded and has 2 effects instead of 1/, "$class: an effect that is there twice", [
		facts("j succeeded 1 $queue w record 0", inside([ '1 10 end' ], [ 1, 1 ])), @made ]);
	finds(qr/^begun job j \($class\) was run, and has no handler/, "$class: a job that is for sessions and was run", [
		facts("j enqueued 1 $queue w client.job 1", inside(['1 10'])), @made ]);
	finds(qr/^ends job j of queue $queue of 2 attempts 1 have come to no end/, "$class: an attempt that has come to no end", [
		facts("j enqueued 2 $queue w nothing 0 1:lease_expired", inside([])), @made ]);
	finds(qr/^ends job j of queue $queue has more ends than the 1 attempts/, "$class: one that has come to two", [
		facts("j succeeded 1 $queue w nothing 1", inside(['1 10 end'])), @made ]);
}
finds(qr/^kept job j \(durable\) was seen to have succeeded in attempt 1, and is processing in attempt 1/, 'a success that was seen and is not there', [
	facts('j processing 1 d w nothing 0', inside([ '1 10 end' ], [], 1)), tx('s-1', 'told', made('j', 'd')) ]);
finds_nothing('an async one may be lost', [
	facts('j processing 1 a w nothing 0', inside([ '1 10 end' ], [], 1)), tx('s-1', 'told', made('j', 'a')) ]);
{
	my @made = tx('s-1', 'told', made('j', 'u'));
	finds_nothing('an unlogged job leaves what it has done', [ facts(inside([ '1 10 end' ], [1])), @made ]);
	finds(qr/^numbers job j attempt 1 \(unlogged\) was run by the processes 10 11/, 'a number of an unlogged job that is run twice', [
		facts(inside([ '1 10', '1 11' ])), @made ]);
	finds(qr/^effect job j has 2 effects of attempt 1/, 'an effect of an unlogged job that is there twice', [ facts(inside([ '1 10 end' ], [ 1, 1 ])), @made ]);
	finds(qr/^effect job j has an effect of attempt 1, which did not run to its end/, 'one of an attempt that did not run to its end', [
		facts(inside([ '1 10' ], [1])), @made ]);
	my @lost = (facts(inside([ '1 10 end' ], [1])), @made);
	foreach my $queue ('u', 'd')
	{
		my @anew = tx('s-2', 'told', made('j', $queue));
		finds_nothing("an unlogged job that was made anew in queue $queue, at rest", \@lost, [
			facts("j succeeded 9 $queue w record 8", inside([ '1 10 end', '9 11 end' ], [ 1, 9 ]), { is_at_rest => 1 }), @anew ]);
		finds(qr/^effect job j \(\w+\) is succeeded and has 0 effects instead of 1/, 'and the success of one without its effect', \@lost, [
			facts("j succeeded 9 $queue w record 8", inside([ '1 10 end', '9 11 end' ], [1]), { is_at_rest => 1 }), @anew ]);
		finds(qr/^numbers job j attempt 1 \(\w+\) was run by the processes 10 11/, 'and one that has a number which was given before', \@lost, [
			facts("j processing 1 $queue w record 0", inside([ '1 10 end', '1 11' ], [1]), { is_at_rest => 1 }), @anew ]);
	}
}

# ---- refused, client

{
	my $oracle = QmlStorage->new(%CLASS);
	is(join("\n", $oracle->judge(
		facts('j processing 1 d', 'k enqueued 0 a'), tx('s-1', 'told', made('j', 'd'), made('k', 'a'), made('l', 'u')),
		tx('s-2', 'told', claimed('l', 1, 'u')), tx('s-3', 'told', claimed('j', 1, 'd')), tx('s-4', 'told', claimed('k', 1, 'a')))), '', 'three claims');
	is_deeply([ sort { $a->[0] cmp $b->[0] } $oracle->tokens(10) ], [ [ 'j', 1, 'accepted' ], [ 'k', 1, 'refused' ], [ 'l', 1, 'refused' ] ],
		'one is there, two are lost');
	is_deeply([ sort map { $_->[0] } $oracle->lost_tokens(10) ], [ 'k', 'l' ], 'these are remembered');
	is(scalar $oracle->judge_answers([ 'j', 1, 'accepted', 'accepted' ], [ 'k', 1, 'refused', 'refused' ]), 0, 'answers as they must be');
	like(($oracle->judge_answers([ 'k', 1, 'refused', 'accepted' ]))[0], qr/^refused .* k attempt 1: accepted/, 'finds a late worker that is heard');
	like(($oracle->judge_answers([ 'j', 1, 'accepted', 'refused' ]))[0], qr/^refused .* j attempt 1: refused/, 'and a claim that is there and not heard');
}
{
	my $oracle = QmlStorage->new(%CLASS);
	is(join("\n", $oracle->judge(facts('j enqueued 0 d'), tx('s-1', 'told', made('j', 'd')), tx('s-2', 'unknown', claimed('j', 1, 'd')))), '',
		'a claim whose commit got no answer may not be there');
	is(scalar(() = $oracle->lost_tokens(10)), 0, 'it was not lost, because it was perhaps never made');
	is(join("\n", $oracle->judge(facts('j processing 1 d t'), tx('t-1', 'told', claimed('j', 1, 'd')))), '', 'and its number can be given then');
}
finds(qr/^client s met 23505 in enqueue/, 'an error that a session met', [ facts(), { time => 1, client => 's', name => 'error', id => '-', op => 'enqueue', sqlstate => '23505' } ]);
is(QmlStorage::next_of_series(facts('00000000-0000-4000-8003-000000000006 enqueued 0 a', '00000000-0000-4000-8004-000000000009 enqueued 0 a'), 3), 7,
	'the next number of a series');

done_testing();
