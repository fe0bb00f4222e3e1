# Producers, workers and twenty schedules go on while the server, its background
# processes and the clients' backends are killed at random: every tick fires once,
# no delayed job is early, and the checker finds nothing.
#
#   QML_KILLS=number   how many kills (default 30)
#   QML_SEED=number    repeats a run's choices

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;

my $KILLS = $ENV{QML_KILLS} // 30;

# Expression, zone, and what it means: a condition on the local second, minute
# and hour, written down by hand.  None of the zones has daylight saving.
my @SCHEDULES = (
	[ '* * * * * *', 'UTC', sub { 1 } ],
	[ '* * * * *', 'UTC', sub { $_[0] == 0 } ],
	[ '*/2 * * * * *', 'UTC', sub { $_[0] % 2 == 0 } ],
	[ '1-59/2 * * * * *', 'UTC', sub { $_[0] % 2 == 1 } ],
	[ '*/3 * * * * *', 'UTC', sub { $_[0] % 3 == 0 } ],
	[ '*/7 * * * * *', 'UTC', sub { $_[0] % 7 == 0 } ],
	[ '0,1,2,3,5,8,13,21,34,55 * * * * *', 'UTC', sub { grep { $_[0] == $_ } 0, 1, 2, 3, 5, 8, 13, 21, 34, 55 } ],
	[ '10-19,40-49/3 * * * * *', 'UTC', sub { ($_[0] >= 10 && $_[0] <= 19) || grep { $_[0] == $_ } 40, 43, 46, 49 } ],
	[ '50/4 * * * * *', 'UTC', sub { $_[0] >= 50 && $_[0] % 4 == 2 } ],
	[ '59 * * * * *', 'UTC', sub { $_[0] == 59 } ],
	[ '30 * * * * *', 'UTC', sub { $_[0] == 30 } ],
	[ '*/5 */2 * * * *', 'UTC', sub { $_[0] % 5 == 0 && $_[1] % 2 == 0 } ],
	[ '*/5 1-59/2 * * * *', 'UTC', sub { $_[0] % 5 == 0 && $_[1] % 2 == 1 } ],
	[ '*/4 0-29 */2 * * *', 'UTC', sub { $_[0] % 4 == 0 && $_[1] < 30 && $_[2] % 2 == 0 } ],
	# the first two follow elapsed time, the others are fixed times
	[ '*/6 */2 * * * *', 'Asia/Kathmandu', sub { $_[0] % 6 == 0 && $_[1] % 2 == 0 } ],
	[ '*/9 1-59/2 * * * *', 'Asia/Kathmandu', sub { $_[0] % 9 == 0 && $_[1] % 2 == 1 } ],
	[ '*/4 0-59/2 0-23 * * *', 'Asia/Kathmandu', sub { $_[0] % 4 == 0 && $_[1] % 2 == 0 } ],
	[ '*/5 0-29 0-23 * * *', 'Asia/Kolkata', sub { $_[0] % 5 == 0 && $_[1] < 30 } ],
	[ '*/5 30-59 0-23 * * *', 'Asia/Kolkata', sub { $_[0] % 5 == 0 && $_[1] >= 30 } ],
	[ '11,31,51 0-59 0-23 * * ? *', 'Australia/Brisbane', sub { grep { $_[0] == $_ } 11, 31, 51 } ]);
my %OFFSET = (
	'UTC' => 0,
	'Asia/Kathmandu' => (5 * 60 + 45) * 60,
	'Asia/Kolkata' => (5 * 60 + 30) * 60,
	'Australia/Brisbane' => 10 * 3600);

my $node = new_node('recurring_kill', conf => "shared_preload_libraries = 'qml'\n");
my $logs = make_log_dir();
my $stop_producers = "$logs/stop_producers";
my $stop_workers = "$logs/stop_workers";
my $early = 0;

# A process to kill; waits until there is one.
sub process_of
{
	my ($type) = @_;
	my @pids;

	wait_for(
		"a $type",
		sub {
			@pids = split /\n/, try_query($node, <<"SQL") // '';
SELECT pid FROM pg_stat_activity
WHERE backend_type = '$type' AND pid <> pg_backend_pid() ORDER BY pid
SQL
			return @pids > 0;
		});
	return $pids[ pick(0, $#pids) ];
}

sub kill_postmaster_alone
{
	my @processes = ($node->{_pid}, QmlTest::children_of($node->{_pid}));

	$node->kill9;
	wait_for('all processes to be gone', sub { !grep { -e "/proc/$_" } @processes });
	start_again($node);
	return;
}

my %KILL = (
	'server' => sub { kill_server($node); start_again($node) },
	'postmaster' => \&kill_postmaster_alone);
foreach my $type ('qml scheduler', 'qml launcher', 'client backend')
{
	# a process may end by itself before it is killed
	$KILL{"$type by SIGKILL"} = sub { kill 'KILL', process_of($type) };
	$KILL{"$type by SIGTERM"} = sub { kill 'TERM', process_of($type) };
	$KILL{"$type by function"} =
	  sub { try_query($node, 'SELECT pg_terminate_backend(' . process_of($type) . ')') };
}

# Each kind as often as the others, in random order.
sub choose_kills
{
	my @kinds = map { $_->[1] } sort { $a->[0] <=> $b->[0] } map { [ rand, $_ ] } sort keys %KILL;
	my @kills = map { $kinds[ $_ % @kinds ] } 0 .. $KILLS - 1;

	return map { $_->[1] } sort { $a->[0] <=> $b->[0] } map { [ rand, $_ ] } @kills;
}

# Jobs that are ready at a time that is before theirs; NULL for all others.
sub count_early
{
	$early += try_query($node, <<'SQL') // 0;
SELECT count(*) FROM qml.live
WHERE state = 'enqueued' AND attempt IS NULL AND (payload->>'run_at')::timestamptz > clock_timestamp()
SQL
	return;
}

# Kills come at random points of the work, not of the time.
sub wait_for_progress
{
	my ($bytes) = @_;
	my $mark = log_size($logs) + $bytes;

	wait_for(
		'the clients to get on',
		sub {
			count_early();
			return log_size($logs) >= $mark;
		});
	return;
}

# All seconds from the first tick to before the last that match.
sub reference
{
	my ($schedule, $first, $end) = @_;
	my (undef, $zone, $matches) = @$schedule;

	return grep { $matches->((gmtime($_ + $OFFSET{$zone}))[ 0 .. 2 ]) } $first .. $end - 1;
}

seed();
my @kills = choose_kills();
my @first;
foreach my $n (0 .. $#SCHEDULES)
{
	my ($cron, $zone) = @{ $SCHEDULES[$n] };
	push @first, query($node, <<"SQL");
SELECT extract(epoch FROM qml_schedule_recurring('s$n', '$cron', 'recurring', queue => 'c',
	timezone => '$zone', misfire => 'fire_all'))::bigint
SQL
}

my @common = ('--max-seconds', 600);
my @producers = map {
	start_client(
		$node, 'produce', $logs, @common,
		'--stop-file', $stop_producers,
		'--jobs', 1_000_000,
		'--pace-ms', 25,
		'--queues', 'a,b,c',
		'--priorities', 3,
		'--many-fraction', 0.1,
		'--many-size', 20,
		'--transaction', 0.2,
		'--delayed', 0.4,
		'--delay-ms', 3000,
		$_ == 1 ? '--prepared' : ())
} 1, 2;
my @workers = map {
	start_client(
		$node, 'work', $logs, @common,
		'--stop-file', $stop_workers,
		'--batch', (1, 1, 5, 20)[ $_ % 4 ],
		'--lease', '3 s',
		'--retry-ms', 300,
		'--fail', 0.05,
		'--fail-final', 0.01,
		'--release', 0.02,
		'--heartbeat', 0.05,
		'--overstay', 0.0005,
		'--abandon', 0.005,
		'--stale', 0.02,
		$_ > 3 ? '--many' : (),
		$_ % 2 ? '--prepared' : ())
} 1 .. 5;

foreach my $kind (@kills)
{
	wait_for_progress(pick(20_000, 200_000));
	note("killing: $kind");
	$KILL{$kind}->();
}
wait_for_progress(200_000);

# To rest: what is due has been done, and nothing more comes.
wait_for(
	'the schedules to be up to date',
	sub {
		(try_query($node, 'SELECT bool_and(next_run_at > clock_timestamp()) FROM qml.recurring_data') // '') eq 't';
	});
query($node, 'SELECT count(qml_pause_recurring(id)) FROM qml.recurring_data');
append_to_file($stop_producers, '');
finish_clients('the producers end', @producers);
wait_for('nothing to be live',
	sub { (try_query($node, 'SELECT count(*) FROM qml.live') // '') eq '0' });
append_to_file($stop_workers, '');
finish_clients('the workers end', @workers);
wait_for('the scheduler to rest', sub { query($node, <<'SQL') eq 't' });
SELECT count(*) = 1 AND bool_and(backend_xmin IS NULL AND xact_start IS NULL
	AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid))
FROM pg_stat_activity a WHERE backend_type = 'qml scheduler'
SQL

# What was recorded, by schedule: seconds and jobs.
my (%ticks, %jobs_of_ticks);
foreach my $row (
	split /\n/, query($node, 'SELECT recurring, extract(epoch FROM occurrence), job FROM qml.occurrence_data WHERE job IS NOT NULL'))
{
	my ($id, $tick, $job) = split /\|/, $row;
	push @{ $ticks{$id} }, $tick + 0;
	$jobs_of_ticks{$job} = "$id $tick";
}
my %ends = map { split /\|/ } split /\n/,
  query($node, 'SELECT id, extract(epoch FROM next_run_at)::bigint FROM qml.recurring_data');

foreach my $n (0 .. $#SCHEDULES)
{
	my ($cron, $zone) = @{ $SCHEDULES[$n] };
	my @expected = reference($SCHEDULES[$n], $first[$n], $ends{"s$n"});
	my @found = sort { $a <=> $b } @{ $ticks{"s$n"} // [] };
	my (%expected, %found);

	@expected{@expected} = ();
	$found{$_}++ foreach @found;
	my @wrong = (
		(map { "$_ is missing" } grep { !$found{$_} } @expected),
		(map { "$_ is not in the set" } grep { !exists $expected{$_} } sort keys %found),
		(map { "$_ is there $found{$_} times" } grep { $found{$_} > 1 } sort keys %found));
	is(join("\n", @wrong), '', "$cron in $zone: " . @found . ' ticks are those of the reference');
}
cmp_ok(scalar @{ $ticks{s0} // [] }, '>=', $KILLS, 'there were ticks all the time');

is(query($node, <<'SQL'), 0, 'jobs say of which tick they are, and each has one');
SELECT count(*) FROM (SELECT * FROM qml.occurrence_data WHERE job IS NOT NULL) o FULL JOIN
	(SELECT id, metadata->'recurring' AS r FROM qml.job WHERE metadata ? 'recurring') j
	ON o.job = j.id AND o.recurring = r->>'id' AND o.occurrence = (r->>'tick')::timestamptz
WHERE o.job IS NULL OR j.id IS NULL
SQL
is(scalar keys %jobs_of_ticks, query($node, 'SELECT count(job) FROM qml.occurrence_data'),
	'no job is of two ticks');

is($early, 0, 'no delayed job was seen ready before its time');
is(query($node, <<'SQL'), 0, 'nor given out');
SELECT count(*) FROM qml.job WHERE started_at < (payload->>'run_at')::timestamptz
SQL
cmp_ok(query($node, "SELECT count(*) FROM qml.job WHERE payload->>'run_at' IS NOT NULL"),
	'>', 10 * $KILLS, 'there were delayed jobs');

# The checker knows of jobs what their clients wrote down.
foreach my $job (keys %jobs_of_ticks)
{
	write_event($logs, $_, $job, undef, undef, 'op=enqueue') foreach 'enqueuing', 'enqueued';
}
check_ok(
	$node, "the checker finds nothing after $KILLS kills", $logs,
	crashes => 1,
	final => 1,
	amcheck => 1,
	allow => [qr/^terminating background worker "qml (scheduler|launcher|look)" due to administrator command/]);

done_testing();
