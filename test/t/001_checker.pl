# The checker finds what it is there to find: for each rule a small history
# that breaks it, and none for a history that is in order.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use File::Temp;
use Test::More;
use QmlChecker;

my $ID = '01890000-0000-7000-8000-00000000000';
my $clock;

# One line of a log; the client's name decides the file.
sub event
{
	my ($client, $name, $id, $attempt, $state, $detail) = @_;
	return sprintf "%.6f\t%s\t%s\t%s\t%s\t%s\t%s\n", ++$clock, $client, $name,
	  $id, $attempt, $state, $detail;
}

sub enqueue
{
	my ($id, $outcome) = @_;
	return event('p', 'enqueuing', $id, '-', '-', 'op=enqueue')
	  . event('p', $outcome // 'enqueued', $id, '-', '-', 'op=enqueue');
}

sub claim
{
	my ($client, $id, $attempt, $lease, $more) = @_;
	return event($client, 'claimed', $id, $attempt, 'processing',
		'lease=' . ($lease // $clock + 100) . ($more // ''));
}

sub ack
{
	my ($client, $op, $id, $attempt, $outcome, $state, $more) = @_;
	return event($client, 'acking', $id, $attempt, '-', "op=$op" . ($more // ''))
	  . event($client, $outcome, $id, $attempt, $state // '-',
		"op=$op sqlstate=QM003" . ($more // ''));
}

sub beat
{
	my ($client, $id, $attempt, $outcome, $lease) = @_;
	return event($client, 'beating', $id, $attempt, '-', 'op=heartbeat')
	  . event($client, $outcome, $id, $attempt, '-',
		"op=heartbeat lease=" . ($lease // 0));
}

# A job in the order of the row's interesting columns; more overrides.
sub job
{
	my ($id, $state, $attempt, %more) = @_;
	return {
		id => $id, state => $state, attempt => $attempt, max_retries => 5,
		batch => '', due => 1, %more
	};
}

# The facts as load_facts() would give them; qml_counts() right unless told.
sub facts
{
	my ($jobs, %more) = @_;
	my $facts = { jobs => {}, places => {}, counts => {} };

	foreach my $job (@$jobs)
	{
		my $unfinished = $job->{state} !~ /^(succeeded|failed|deleted)$/;
		push @{ $facts->{jobs}{ $job->{id} } }, $job;
		push @{ $facts->{places}{ $job->{id} } },
		  $unfinished ? 'live' : 'history';
		$facts->{counts}{ $job->{state} }++;
	}
	return { %$facts, %more };
}

sub violations
{
	my ($lines, $facts, %more) = @_;
	my $dir = File::Temp->newdir;
	my (@server_logs, @runs);

	open my $fh, '>', "$dir/c.log" or die $!;
	print $fh @$lines;
	close $fh;
	if (defined $more{log})
	{
		open $fh, '>', "$dir/server" or die $!;
		print $fh $more{log};
		close $fh;
		@server_logs = ("$dir/server");
	}
	if (defined $more{runs})
	{
		open $fh, '>', "$dir/runs" or die $!;
		print $fh @{ $more{runs} };
		close $fh;
		@runs = ("$dir/runs");
	}
	return QmlChecker::check(
		logs => [$dir], facts => $facts, server_logs => \@server_logs,
		quiet => 1, %more, runs => \@runs);
}

# Exactly one violation, of this rule and with this text.
sub finds
{
	my ($pattern, $lines, $facts, %more) = @_;
	my @bad = violations($lines, $facts, %more);

	ok(@bad == 1 && $bad[0] =~ $pattern, "finds $pattern")
	  or diag("found: ", join("\n       ", @bad));
	return;
}

sub finds_nothing
{
	my ($name, $lines, $facts, %more) = @_;
	is_deeply([ violations($lines, $facts, %more) ], [], $name);
	return;
}

my ($a, $b) = ("${ID}a", "${ID}b");
my $done = facts([ job($a, 'succeeded', 1) ]);

sub success
{
	return (enqueue($a), claim('w1', $a, 1),
		ack('w1', 'succeed', $a, 1, 'acked', 'succeeded'));
}

$clock = 1000;

# in order
finds_nothing('a job that succeeds', [success()], $done, final => 1);
finds_nothing(
	'a lost answer, either way',
	[
		enqueue($a, 'unknown'), enqueue($b, 'unknown'),
		claim('w1', $a, 1), ack('w1', 'succeed', $a, 1, 'unknown'),
		ack('w1', 'succeed', $a, 1, 'refused', '-', ' again=1')
	],
	$done,
	final => 1);
finds_nothing(
	'a lease that ran out, and its holder refused',
	[
		enqueue($a), claim('w1', $a, 1, $clock + 2), claim('w2', $a, 2),
		ack('w1', 'succeed', $a, 1, 'refused'),
		ack('w2', 'succeed', $a, 2, 'acked', 'succeeded'),
		ack('w2', 'succeed', $a, 1, 'refused', '-', ' stale=1')
	],
	facts([ job($a, 'succeeded', 2) ]),
	final => 1);
finds_nothing(
	'a failure, a release and a retry',
	[
		enqueue($a), claim('w1', $a, 1),
		ack('w1', 'fail', $a, 1, 'acked', 'awaiting_retry'),
		claim('w2', $a, 2), ack('w2', 'release', $a, 2, 'acked', 'enqueued'),
		claim('w1', $a, 3), ack('w1', 'fail', $a, 3, 'acked', 'failed')
	],
	facts([ job($a, 'failed', 3, max_retries => 1) ]),
	final => 1);
finds_nothing(
	'a claim whose answer was lost',
	[
		enqueue($a), event('w1', 'unknown', '-', '-', '-', 'op=fetch batch=1'),
		claim('w1', $a, 2), ack('w1', 'succeed', $a, 2, 'acked', 'succeeded')
	],
	facts([ job($a, 'succeeded', 2) ]));
finds_nothing(
	'a batch whose answer was lost',
	[
		event('p', 'enqueuing', '-', '-', '-', 'op=enqueue_many batch=p-1 count=2'),
		event('p', 'unknown', '-', '-', '-', 'op=enqueue_many batch=p-1 count=2')
	],
	facts([ map { job($_, 'scheduled', 0, batch => 'p-1', due => 0) } $a, $b ]));
finds_nothing(
	'a job that somebody else deleted',
	[ success(), event('t', 'admin', $a, '-', 'deleted', 'op=delete') ],
	facts([ job($a, 'deleted', 1) ]));

# enqueue
finds(qr/^I1 .* is gone/, [ success(), enqueue($b) ], $done);
finds(qr/^I2 .* by nobody/, [success()],
	facts([ job($a, 'succeeded', 1), job($b, 'scheduled', 0, due => 0) ]));
finds(
	qr/^I3 .* was rolled back and exists/,
	[ success(), enqueue($b, 'rolledback') ],
	facts([ job($a, 'succeeded', 1), job($b, 'scheduled', 0, due => 0) ]));
finds(
	qr/^I1 batch p-1 has 1 jobs of 2/,
	[
		event('p', 'enqueuing', '-', '-', '-', 'op=enqueue_many batch=p-1 count=2'),
		event('p', 'enqueued', '-', '-', '-', 'op=enqueue_many batch=p-1 count=2')
	],
	facts([ job($a, 'scheduled', 0, batch => 'p-1', due => 0) ]));
finds(
	qr/^I1 batch p-1 was taken in part/,
	[
		event('p', 'enqueuing', '-', '-', '-', 'op=enqueue_many batch=p-1 count=2'),
		event('p', 'unknown', '-', '-', '-', 'op=enqueue_many batch=p-1 count=2')
	],
	facts([ job($a, 'scheduled', 0, batch => 'p-1', due => 0) ]));

# one job in two places breaks the count of places and the place of its state
{
	my $twice = facts([ job($a, 'succeeded', 1) ]);
	$twice->{places}{$a} = [ 'live', 'history' ];
	my @bad = violations([success()], $twice);
	is(scalar(grep { /^I1 .* stored in live history/ } @bad),
		1, 'finds a job in two places');
	is(scalar(grep { /^I8 .* succeeded and stored in live/ } @bad),
		1, 'finds a finished job among the live ones');
}
{
	my $hidden = facts([ job($a, 'succeeded', 1) ]);
	$hidden->{places}{$b} = ['live'];
	finds(qr/^I1 job \S+b is stored in live and shown 0 times/,
		[ success(), enqueue($b) ], $hidden);
}

# claims
finds(
	qr/^claim .* attempt 1 was given to w1 w2/,
	[
		enqueue($a), claim('w1', $a, 1), claim('w2', $a, 1),
		ack('w1', 'succeed', $a, 1, 'acked', 'succeeded')
	],
	$done);
finds(
	qr/^claim .* attempt 2 was given, the row says 1/,
	[
		enqueue($a), claim('w1', $a, 1, $clock), claim('w2', $a, 2),
		ack('w2', 'succeed', $a, 1, 'unknown')
	],
	$done);
finds(
	qr/^claim 1 attempts were begun that no client was given, 0 can/,
	[
		enqueue($a), claim('w1', $a, 2),
		ack('w1', 'succeed', $a, 2, 'acked', 'succeeded')
	],
	facts([ job($a, 'succeeded', 2) ]));
finds(
	qr{^claim .* came in a batch of 3/2},
	[
		enqueue($a), claim('w1', $a, 1, undef, ' batch=3/2'),
		ack('w1', 'succeed', $a, 1, 'acked', 'succeeded')
	],
	$done);
finds(qr/^I2 .* was given and does not exist/, [ success(), claim('w1', $b, 1) ],
	$done);

# acknowledgements
finds(
	qr/^I4 .* was accepted as succeeded 1 and is failed 1/,
	[ success() ],
	facts([ job($a, 'failed', 1, max_retries => 0) ]));
{
	my @bad = violations(
		[ success(), ack('w1', 'succeed', $a, 1, 'acked', 'succeeded') ], $done);
	is(scalar(grep { /^I4 .* attempt 1 was finished 2 times/ } @bad),
		1, 'finds a token that was accepted twice');
	is(scalar(grep { /^I4 .* was finished for good 2 times/ } @bad),
		1, 'finds a job that was finished twice');
}
finds(
	qr/^I4 .* fail of attempt 1 was accepted after attempt 2 was given/,
	[
		enqueue($a), claim('w1', $a, 1, $clock + 1), claim('w2', $a, 2),
		ack('w1', 'fail', $a, 1, 'acked', 'awaiting_retry'),
		ack('w2', 'succeed', $a, 2, 'acked', 'succeeded')
	],
	facts([ job($a, 'succeeded', 2) ]));
finds(
	qr/^I4 .* heartbeat of attempt 1 was accepted after attempt 2 was given/,
	[
		enqueue($a), claim('w1', $a, 1, $clock + 1), claim('w2', $a, 2),
		beat('w1', $a, 1, 'beat', $clock),
		ack('w2', 'succeed', $a, 2, 'acked', 'succeeded')
	],
	facts([ job($a, 'succeeded', 2) ]));
finds(
	qr/^I4 .* accepted with a token that could not be right/,
	[
		enqueue($a), claim('w1', $a, 1, $clock), claim('w1', $a, 2),
		ack('w1', 'release', $a, 0, 'acked', 'enqueued', ' stale=1'),
		ack('w1', 'succeed', $a, 2, 'acked', 'succeeded')
	],
	facts([ job($a, 'succeeded', 2) ]));
finds(
	qr/^I4 .* succeed was refused within the lease/,
	[
		enqueue($a), claim('w1', $a, 1), ack('w1', 'succeed', $a, 1, 'refused')
	],
	facts([ job($a, 'scheduled', 1, due => 0) ]));

# executions
finds(
	qr/^I6 .* succeeded in attempt 1, which nobody reported/,
	[ enqueue($a), claim('w1', $a, 1, $clock) ],
	$done);
finds(
	qr/^I6 .* attempt 2 was given while attempt 1 was held/,
	[
		enqueue($a), claim('w1', $a, 1), claim('w2', $a, 2),
		ack('w2', 'succeed', $a, 2, 'acked', 'succeeded')
	],
	facts([ job($a, 'succeeded', 2) ]));
finds(
	qr/^I6 .* attempt 2 was given while attempt 1 was held/,
	[
		enqueue($a), claim('w1', $a, 1, $clock + 2),
		beat('w1', $a, 1, 'beat', $clock + 100), claim('w2', $a, 2),
		ack('w2', 'succeed', $a, 2, 'acked', 'succeeded')
	],
	facts([ job($a, 'succeeded', 2) ]));

# order
sub given
{
	my ($client, $batch, @jobs) = @_;
	return map {
		my ($id, $queue, $priority) = @$_;
		claim($client, $id, 1, undef, " queue=$queue priority=$priority batch=$batch")
	} @jobs;
}

sub both_done
{
	return map { ack('w1', 'succeed', $_, 1, 'acked', 'succeeded') } $a, $b;
}

my $both = facts([ map { job($_, 'succeeded', 1) } $a, $b ]);
finds_nothing(
	'a batch by priority',
	[ enqueue($a), enqueue($b), given('w1', '2/2', [ $a, 'q', 2 ], [ $b, 'q', 1 ]), both_done() ],
	$both, one_worker => 1);
finds_nothing(
	'a batch of two queues, each by priority',
	[ enqueue($a), enqueue($b), given('w1', '2/2', [ $a, 'q', 1 ], [ $b, 'r', 2 ]), both_done() ],
	$both, one_worker => 1);
finds(
	qr/^I10 job \S+b of priority 2 came in a batch behind job \S+a of priority 1/,
	[ enqueue($a), enqueue($b), given('w1', '2/2', [ $a, 'q', 1 ], [ $b, 'q', 2 ]), both_done() ],
	$both);
finds_nothing(
	'two batches, the later one of higher priority, of which nobody knows what else was claimed',
	[
		enqueue($a), enqueue($b), given('w1', '1/1', [ $a, 'q', 1 ]),
		given('w1', '1/1', [ $b, 'q', 2 ]), both_done()
	],
	$both);
# Only after its first event is the worker known to have had no fetch open.
sub first_of_w1
{
	return event('w1', 'lost', '-', '-', '-', 'op=count');
}
finds(
	qr/^I10 job \S+a of priority 1 was given before job \S+b/,
	[
		enqueue($a), enqueue($b), first_of_w1(), given('w1', '1/1', [ $a, 'q', 1 ]),
		given('w1', '1/1', [ $b, 'q', 2 ]), both_done()
	],
	$both, one_worker => 1);
finds_nothing(
	'a job of higher priority that was enqueued while the fetch was open',
	[
		enqueue($a), first_of_w1(), enqueue($b), given('w1', '1/1', [ $a, 'q', 1 ]),
		given('w1', '1/1', [ $b, 'q', 2 ]), both_done()
	],
	$both, one_worker => 1);
finds(
	qr/^I10 job \S+a of priority 1 was given before job \S+b/,
	[
		enqueue($a), enqueue($b), first_of_w1(), given('w1', '1/1', [ $a, 'q', 1 ]),
		ack('w1', 'succeed', $a, 1, 'acked', 'succeeded')
	],
	facts([ job($a, 'succeeded', 1),
		job($b, 'enqueued', 0, due => 0, queue => 'q', priority => 2) ]),
	one_worker => 1);
finds_nothing(
	'a job of another queue that is left',
	[
		enqueue($a), enqueue($b), first_of_w1(), given('w1', '1/1', [ $a, 'q', 1 ]),
		ack('w1', 'succeed', $a, 1, 'acked', 'succeeded')
	],
	facts([ job($a, 'succeeded', 1),
		job($b, 'enqueued', 0, due => 0, queue => 'r', priority => 2) ]),
	one_worker => 1);

# attempts
finds(
	qr/^I7 .* has used 2 attempts of 1/,
	[
		enqueue($a), claim('w1', $a, 1), ack('w1', 'fail', $a, 1, 'acked', 'awaiting_retry'),
		claim('w1', $a, 2), ack('w1', 'fail', $a, 2, 'acked', 'failed')
	],
	facts([ job($a, 'failed', 2, max_retries => 0) ]));
finds(
	qr/^I7 .* failed with attempts left and nobody failed it/,
	[ enqueue($a), claim('w1', $a, 1, $clock) ],
	facts([ job($a, 'failed', 1) ]));

# transitions
finds(
	qr/^I8 .* was given in state enqueued/,
	[
		enqueue($a), event('w1', 'claimed', $a, 1, 'enqueued', 'lease=0'),
		ack('w1', 'succeed', $a, 1, 'acked', 'succeeded')
	],
	$done);
finds(
	qr/^I8 .* went from processing to succeeded by fail/,
	[ enqueue($a), claim('w1', $a, 1), ack('w1', 'fail', $a, 1, 'acked', 'succeeded'),
		ack('w1', 'succeed', $a, 1, 'unknown') ],
	$done);
finds(
	qr/^I8 .* is in state lost/,
	[ enqueue($a) ],
	facts([ job($a, 'lost', 0) ], places => { $a => ['history'] }));
{
	my @bad = violations([ success(), claim('w2', $a, 2, $clock) ],
		facts([ job($a, 'succeeded', 2) ]));
	is(scalar(grep { /^I8 .* went from succeeded to attempt 2/ } @bad),
		1, 'finds a finished job that was given again');
}
{
	my $misplaced = facts([ job($a, 'enqueued', 0, due => 0) ]);
	$misplaced->{places}{$a} = ['history'];
	finds(qr/^I8 .* is enqueued and stored in history/, [ enqueue($a) ],
		$misplaced);
}

# at rest
finds(qr/^I9 .* is still processing/, [ enqueue($a), claim('w1', $a, 1) ],
	facts([ job($a, 'processing', 1) ]));
finds(qr/^I9 .* is still enqueued/, [ enqueue($a) ],
	facts([ job($a, 'enqueued', 0) ]));
finds(
	qr/^I9 .* is still scheduled/,
	[ enqueue($a) ],
	facts([ job($a, 'scheduled', 0, due => 0) ]),
	final => 1);

# jobs that run in the database
my %work = (handlers => { work => 1, idle => 0 });

# What the handler writes: the notes of an attempt in a process.
sub run
{
	my ($pid, $id, $attempt, @notes) = @_;
	@notes = ('begin', 'end') unless @notes;
	return map { "2024-01-01 00:00:00.000 UTC [$pid] 00000 LOG:  qml_run $_ $id $attempt\n" }
	  @notes;
}

# One job with its errors, and its effects.
sub in_database
{
	my ($state, $attempt, $errors, $effects, %more) = @_;
	return facts([
			job($a, $state, $attempt, method => 'work', errors => $errors, uncounted => 0, %more)
		],
		effects => @$effects ? { $a => $effects } : {});
}

sub work_is_fine
{
	my ($name, $facts, $runs, %more) = @_;
	finds_nothing($name, [ enqueue($a) ], $facts, %work, final => 1, runs => $runs, %more);
	return;
}

sub work_finds
{
	my ($pattern, $facts, $runs, %more) = @_;
	finds($pattern, [ enqueue($a) ], $facts, %work, final => 1, runs => $runs, %more);
	return;
}

work_is_fine('a job that succeeds in the database',
	in_database('succeeded', 1, '', [1]), [ run(10, $a, 1) ]);
work_is_fine('one without an effect',
	in_database('succeeded', 1, '', [], method => 'idle'), [ run(10, $a, 1) ]);
work_is_fine('one that fails and is lost before it succeeds',
	in_database('succeeded', 4, '1:P0001,2:session_gone,3:server_down', [4]),
	[ run(10, $a, 1, 'begin'), run(11, $a, 3, 'begin'), run(12, $a, 4) ],
	crashes => 1);
work_is_fine('one of a group that was undone',
	in_database('succeeded', 1, '', [1]),
	[ run(10, $a, 1), run(10, $a, 1) ]);
work_is_fine('one that was given back',
	in_database('succeeded', 2, '', [2], uncounted => 1),
	[ run(10, $a, 1, 'begin'), run(11, $a, 2) ]);
work_is_fine('one that fails each time',
	in_database('failed', 2, '1:P0001,2:P0001', [], max_retries => 1),
	[ run(10, $a, 1, 'begin'), run(10, $a, 2, 'begin') ]);
work_is_fine('one that the server went down under thrice',
	in_database('failed', 3, '1:server_down,2:server_down,3:server_down', []),
	[ run(10, $a, 1, 'begin'), run(11, $a, 2, 'begin'), run(12, $a, 3, 'begin') ],
	crashes => 1);

work_finds(qr/^I5 job \S+ is succeeded and has 2 effects instead of 1/,
	in_database('succeeded', 1, '', [ 1, 1 ]), [ run(10, $a, 1) ]);
work_finds(qr/^I5 job \S+ is succeeded and has 0 effects instead of 1/,
	in_database('succeeded', 1, '', []), [ run(10, $a, 1) ]);
work_finds(qr/^I5 job \S+ is succeeded and has 1 effects instead of 0/,
	in_database('succeeded', 1, '', [1], method => 'idle'), [ run(10, $a, 1) ]);
work_finds(qr/^I5 job \S+ is failed and has 1 effects instead of 0/,
	in_database('failed', 1, '1:P0001', [1], max_retries => 0), [ run(10, $a, 1) ]);
work_finds(qr/^I5 job \S+ has an effect of attempt 1, the row says 2/,
	in_database('succeeded', 2, '1:session_gone', [1]), [ run(10, $a, 1), run(11, $a, 2) ]);
work_finds(qr/^I5 job \S+b had an effect and does not exist/,
	{ %{ in_database('succeeded', 1, '', [1]) }, effects => { $a => [1], $b => [1] } },
	[ run(10, $a, 1) ]);
work_finds(qr/^I2 job \S+b was run and does not exist/,
	in_database('succeeded', 1, '', [1]), [ run(10, $a, 1), run(10, $b, 1, 'begin') ]);
work_finds(qr/^claim job \S+ attempt 1 was run by the processes 10 11/,
	in_database('succeeded', 1, '', [1]), [ run(10, $a, 1, 'begin'), run(11, $a, 1) ]);
work_finds(qr/^claim job \S+ attempt 1 was run 3 times/,
	in_database('succeeded', 1, '', [1]), [ map { run(10, $a, 1) } 1 .. 3 ]);
work_finds(qr/^claim job \S+ attempt 2 was run, the row says 1/,
	in_database('succeeded', 1, '', [1]), [ run(10, $a, 1), run(11, $a, 2, 'begin') ]);
work_finds(qr/^I6 job \S+ attempt 1 went on after attempt 2 had begun/,
	in_database('succeeded', 2, '1:session_gone', [2]),
	[ run(10, $a, 1, 'begin'), run(11, $a, 2, 'begin'), run(10, $a, 1, 'end'),
		run(11, $a, 2, 'end') ]);
work_finds(qr/^I6 job \S+ succeeded in attempt 1, which no process ran to its end/,
	in_database('succeeded', 1, '', [1]), [ run(10, $a, 1, 'begin') ]);
work_finds(qr/^claim job \S+ attempt 1 has failed after attempt 1 had/,
	in_database('failed', 2, '1:P0001,1:P0001', [], max_retries => 1), [ run(10, $a, 1, 'begin') ]);
work_finds(qr/^claim job \S+ attempt 3 has failed, the row says 2/,
	in_database('failed', 2, '1:P0001,3:P0001', [], max_retries => 1), [ run(10, $a, 1, 'begin') ]);
work_finds(qr/^claim job \S+ of 2 attempts 1 have come to no end/,
	in_database('succeeded', 2, '', [2]), [ run(10, $a, 1), run(11, $a, 2) ]);
work_finds(qr/^claim job \S+ has more ends than the 2 attempts/,
	in_database('succeeded', 2, '1:session_gone', [2], uncounted => 1), [ run(11, $a, 2) ]);
{
	my @bad = violations([ enqueue($a) ], in_database('succeeded', 1, '1:P0001', [1]),
		%work, runs => [ run(10, $a, 1) ]);
	is(scalar(grep { /^I4 .* succeeded in attempt 1, which has failed/ } @bad),
		1, 'finds an attempt that failed and succeeded');
}
work_finds(qr/^I7 job \S+ has used 2 attempts of 1/,
	in_database('failed', 2, '1:P0001,2:P0001', [], max_retries => 0), [ run(10, $a, 1, 'begin') ]);
work_finds(qr/^I7 job \S+ failed with attempts left/,
	in_database('failed', 2, '1:server_down,2:server_down', []), [], crashes => 1);
work_finds(qr/^I7 job \S+ ran again after the server went down under it 3 times/,
	in_database('succeeded', 4, '1:server_down,2:server_down,3:server_down', [4]),
	[ run(10, $a, 4) ], crashes => 1);
work_finds(qr/^I7 job \S+ was lost with a server that did not go down/,
	in_database('succeeded', 2, '1:server_down', [2]), [ run(10, $a, 2) ]);
work_finds(qr/^I9 job \S+ is still processing/,
	in_database('processing', 1, '', []), [ run(10, $a, 1, 'begin') ]);
work_finds(qr/^I1 job \S+ was enqueued and is gone/, facts([]), []);

# counters, clients, server
finds(
	qr/^I11 qml_counts\(\) says 2 succeeded, there are 1/,
	[success()],
	facts([ job($a, 'succeeded', 1) ], counts => { succeeded => 2 }));
finds(
	qr/^client w1 met XX000 in fetch/,
	[ success(), event('w1', 'error', '-', '-', '-', 'op=fetch sqlstate=XX000') ],
	$done);
finds_nothing(
	'a serialization failure',
	[ success(), event('w1', 'error', '-', '-', '-', 'op=fetch sqlstate=40001') ],
	$done);

my $prefix = '2024-01-01 00:00:00.000 UTC [123] ';
foreach my $line (
	"${prefix}XX000 c PANIC:  stuck spinlock",
	'TRAP: FailedAssertion("x", File: "claim.c", Line: 1, PID: 1)',
	"${prefix}XX000 c ERROR:  unexpected null",
	"${prefix}01000 c WARNING:  buffer refcount leak: [1]",
	"${prefix}00000 c LOG:  could not open file",
	"${prefix}00000 LOG:  server process (PID 1) was terminated by signal 11: Segmentation fault",
	"${prefix}57P02 c FATAL:  the database system is in recovery mode",
	'claim.c:12:3: runtime error: signed integer overflow')
{
	finds(qr/^I12 \Q$line\E$/, [success()], $done, log => "$line\n");
}
finds(
	qr/^I12 .*signal 11/,
	[success()],
	$done,
	crashes => 1,
	log => "${prefix}00000 LOG:  server process (PID 1) was terminated by signal 11: Segmentation fault\n");
finds_nothing(
	'what a killed server writes',
	[success()],
	$done,
	crashes => 1,
	log => "${prefix}00000 LOG:  server process (PID 1) was terminated by signal 9: Killed\n"
	  . "${prefix}57P03 FATAL:  the database system is in recovery mode\n"
	  . "${prefix}57P02 WARNING:  terminating connection because of crash of another server process\n"
	  . "${prefix}QM003 c ERROR:  job is not held by attempt 1\n"
	  . "${prefix}00000 c STATEMENT:  SELECT 'PANIC'\n");
finds_nothing(
	'a line that the test expects',
	[success()],
	$done,
	allow => [qr/^fault point/],
	log => "${prefix}XX000 c FATAL:  fault point reached\n");

done_testing();
