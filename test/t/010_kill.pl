# Workers and producers go on while the server is killed ten times: no job is
# lost, none is done twice, no attempt is given out twice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlTest;
use Test::More;

my $JOBS = 20_000;
my $KILLS = 10;

my $node = new_node('kill');
my $logs = make_log_dir();
my @common = ('--max-seconds', 200);

sub at_work
{
	return scalar grep { $_->{handle}->pumpable } @_;
}

# Kills come at random points of the work, not of the time: a slow machine
# meets as many of them.  False: the clients ended before, and nothing was killed.
sub kill_after_progress
{
	my ($kind, $bytes, @clients) = @_;
	my $mark = log_size($logs) + $bytes;

	wait_for('the clients to get on, or to end',
		sub { log_size($logs) >= $mark || !at_work(@clients) });
	return 0 unless at_work(@clients);
	if ($kind eq 'kill')
	{
		kill_server($node);
	}
	else
	{
		$node->stop('immediate');
	}
	start_again($node);
	return 1;
}

# The pace leaves room for the kills on a fast machine.
my @producers = map {
	start_client(
		$node, 'produce', $logs, @common,
		'--jobs', $JOBS / 2,
		'--queues', 'a,b,c',
		'--priorities', 3,
		'--many-fraction', 0.3,
		'--many-size', 200,
		'--transaction', 0.3,
		'--delayed', 0.1,
		'--delay-ms', 1000,
		'--pace-ms', 10,
		$_ == 1 ? '--prepared' : ())
} 1, 2;

# The workers end when nothing is live, so the producers come first.
my $producing = grep { kill_after_progress(pick(0, 1) ? 'kill' : 'stop', pick(20_000, 100_000), @producers) }
  1 .. 3;
cmp_ok($producing, '>', 0, 'the producers met a crash');
finish_clients('the producers end', @producers);

# A job is 400 bytes of log: all the steps together are half of the work at most,
# and holding the jobs keeps a fast machine from running away between two looks.
my @workers = map {
	start_client(
		$node, 'work', $logs, @common,
		'--drain',
		'--batch', (1, 1, 5, 20)[ $_ % 4 ],
		'--lease', '3 s',
		'--hold-ms', 2,
		'--retry-ms', 50,
		'--fail', 0.05,
		'--fail-final', 0.01,
		'--release', 0.03,
		'--heartbeat', 0.1,
		'--overstay', 0.0005,
		'--stale', 0.02,
		$_ == 1 ? ('--maintain-ms', 200) : (),
		$_ > 4 ? '--many' : (),
		$_ % 2 ? '--prepared' : ())
} 1 .. 8;

# Live jobs after a crash were live when it came.
my $draining = grep {
	kill_after_progress($_ % 2 ? 'kill' : 'stop', pick(50_000, 300_000), @workers)
	  && query($node, 'SELECT count(*) > 0 FROM qml.live') eq 't'
} 1 .. $KILLS;
is($draining, $KILLS, "the server crashed $KILLS times while the workers drained the queues");
finish_clients('the workers end with nothing live', @workers);

check_ok(
	$node, "the checker finds nothing after all the crashes", $logs,
	crashes => 1,
	final => 1,
	amcheck => 1);

my %events;
$events{ $_->{name} }++ foreach QmlChecker::read_events($logs);
cmp_ok($events{unknown}, '>', 0, "answers were lost on the way ($events{unknown})");
cmp_ok($events{enqueued}, '>=', $JOBS * 0.9, "$events{enqueued} jobs were enqueued");

done_testing();
