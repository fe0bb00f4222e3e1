# The server's clock crosses daylight-saving changes and is set forward and back:
# each tick fires once, by the rules that src/core/cron.c and src/schedule/tick.c state.  The build
# is the one with the undefined-behavior sanitizer, because of the arithmetic.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlClock;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

my $CONF = "shared_preload_libraries = 'qml'\n";

# The ticks of a schedule that made a job, as texts.
sub ticks_of
{
	my ($node, $id) = @_;
	return split /\n/, query($node, <<"SQL");
SELECT to_char((metadata->'recurring'->>'tick')::timestamptz, 'YYYY-MM-DD HH24:MI:SS')
FROM qml.job WHERE metadata->'recurring'->>'id' = '$id' ORDER BY 1
SQL
}

sub fake_now
{
	my ($node) = @_;
	return time + clock_offset($node);
}

sub schedule
{
	my ($node, $id, $cron, %opt) = @_;
	my $options = join '', map { ", $_ => '$opt{$_}'" } sort keys %opt;
	return query($node, "SELECT qml_schedule_recurring('$id', '$cron', 'm'$options)");
}

# Every ten minutes from one time to another, both included.
sub tens
{
	my ($from, $to) = map { clock_epoch($_) } @_;
	return map { clock_text($from + 600 * $_) } 0 .. ($to - $from) / 600;
}

sub restart_scheduler
{
	my ($node) = @_;
	my $pid = sleeping_scheduler($node);

	query($node, "SELECT pg_terminate_backend($pid)");
	sleeping_scheduler($node, $pid);
	return;
}

#
# Daylight saving.
#

my $node = new_clock_node('dst', clock_epoch('2026-03-28 23:55'), variant => 'ubsan', conf => $CONF);
sleeping_scheduler($node);

# Lets each quarter and each tenth minute from one time to the other pass; what is
# in between is jumped over.  *_tens fires at each of the latter.
sub pass_through
{
	my ($name, $from, $to) = @_;

	for (my $time = clock_epoch($from); $time <= clock_epoch($to); $time += 300)
	{
		next unless $time % 600 == 0 || $time % 900 == 0;
		my $text = clock_text($time);

		set_clock($node, $time - 0.5);
		wait_for(
			"$text of $name",
			sub {
				query($node, $time % 600 == 0 ? <<"FIRED" : <<"PASSED") eq 't';
SELECT count(*) = 1 FROM qml.occurrence_data
WHERE recurring = '$name tens' AND occurrence = '$text'
FIRED
SELECT clock_timestamp() > timestamptz '$text' + interval '10 ms'
PASSED
			});
	}
	return;
}

my %CRON = (
	'fixed' => '30 2 * * *',
	'two' => '15,45 2 * * *',
	'each hour' => '0 0-23 * * *',
	'hourly' => '0 * * * *',
	'tens' => '*/10 * * * *',
	'utc' => '30 0-1 * * *');

sub cross
{
	my ($name, $start, $from, $to, $next, %expected) = @_;

	set_clock($node, clock_epoch($start));
	schedule($node, "$name $_", $CRON{$_}, timezone => $_ eq 'utc' ? 'UTC' : 'Europe/Berlin')
	  foreach keys %CRON;
	pass_through($name, $from, $to);
	is_deeply([ ticks_of($node, "$name $_") ], $expected{$_}, "$name, $CRON{$_}: $_")
	  foreach sort keys %CRON;
	is( query($node, "SELECT next_run_at FROM qml.recurring_data WHERE id = '$name fixed'"),
		$next, "$name: the fixed time comes the next day");
	is( query($node, <<"SQL"), 0, "$name: jobs and ticks agree");
SELECT count(*) FROM (SELECT * FROM qml.occurrence_data WHERE job IS NOT NULL) o FULL JOIN
	(SELECT id, metadata->'recurring' AS r FROM qml.job) j
	ON o.job = j.id AND o.recurring = r->>'id' AND o.occurrence = (r->>'tick')::timestamptz
WHERE (o.job IS NULL OR j.id IS NULL) AND coalesce(recurring, r->>'id') LIKE '$name %'
SQL
	query($node, 'SELECT count(qml_remove_recurring(id)) FROM qml.recurring_data');
	return;
}

# 02:00 to 03:00 does not exist; 01:00 UTC is the first instant after it.
cross(
	'forward', '2026-03-28 23:55', '2026-03-29 00:00', '2026-03-29 02:00',
	'2026-03-30 00:30:00+00',
	'fixed' => ['2026-03-29 01:00:00'],
	'two' => ['2026-03-29 01:00:00'],
	'each hour' => [ map { "2026-03-29 $_:00:00" } qw(00 01 02) ],
	'hourly' => [ map { "2026-03-29 $_:00:00" } qw(00 01 02) ],
	'tens' => [ tens('2026-03-29 00:00', '2026-03-29 02:00') ],
	'utc' => [ map { "2026-03-29 $_:30:00" } qw(00 01) ]);

# 02:00 to 03:00 is there twice, from 00:00 and from 01:00 UTC.
cross(
	'back', '2026-10-24 23:55', '2026-10-25 00:00', '2026-10-25 02:00',
	'2026-10-26 01:30:00+00',
	'fixed' => ['2026-10-25 00:30:00'],
	'two' => [ map { "2026-10-25 00:$_:00" } qw(15 45) ],
	'each hour' => [ map { "2026-10-25 $_:00:00" } qw(00 02) ],
	'hourly' => [ map { "2026-10-25 $_:00:00" } qw(00 01 02) ],
	'tens' => [ tens('2026-10-25 00:00', '2026-10-25 02:00') ],
	'utc' => [ map { "2026-10-25 $_:30:00" } qw(00 01) ]);

log_is_clean($node, 'dst: the log is clean');
end_sessions($node);
$node->stop;

#
# The clock is set.
#

$node = new_clock_node('jumps', clock_epoch('2026-06-01 12:00'), variant => 'ubsan', conf => $CONF);
my @POLICIES = qw(fire_once skip fire_all);
my %fired = map { $_ => [] } @POLICIES;
my $jumps = 0;

schedule($node, $_, '*/10 * * * *', misfire => $_) foreach @POLICIES;

# next_run_at of the schedules, as seconds.
sub pointers
{
	return map { split /\|/ } split /\n/, query($node, <<'SQL');
SELECT id, extract(epoch FROM next_run_at)::bigint FROM qml.recurring_data
WHERE id IN ('fire_once', 'skip', 'fire_all')
SQL
}

# Those of a second ago are the last by whatever fires now.
sub ticks_are
{
	my ($name) = @_;
	is_deeply({ map { $_ => [ ticks_of($node, $_) ] } @POLICIES }, \%fired, $name);
	return;
}

# Schedules and jobs of now are worked on.
sub works
{
	my ($name) = @_;
	my $beat = 'beat ' . ++$jumps;

	schedule($node, $beat, '* * * * * *', misfire => 'fire_all');
	my $job = query($node, "SELECT qml_enqueue('m', queue => 'delayed',"
		  . " run_at => clock_timestamp() + interval '1.5 s')");
	wait_for("a delayed job after $name",
		sub { query($node, "SELECT state FROM qml.job WHERE id = '$job'") eq 'enqueued' });
	wait_for("ticks after $name", sub { ticks_of($node, $beat) >= 3 });
	query($node, "SELECT qml_remove_recurring('$beat')");

	my @ticks = map { clock_epoch($_) } ticks_of($node, $beat);
	is_deeply(\@ticks, [ $ticks[0] .. $ticks[-1] ], "$name: the scheduler goes on");
	return;
}

# Sets the clock; a new process may tell of it again.
sub jump
{
	my ($name, $seconds) = @_;

	restart_scheduler($node);
	my $offset = -s $node->logfile;
	set_clock($node, fake_now($node) + $seconds);

	my $told;
	wait_for(
		"a warning of $name",
		sub {
			($told) = slurp_file($node->logfile, $offset) =~
			  /WARNING:  the clock jumped by (-?\d+) seconds/;
			return defined $told;
		});
	cmp_ok(abs($told - $seconds), '<=', 2, "$name: a warning tells of it ($told)");
	return;
}

# After a jump forward the policies say what becomes of the ticks passed over.
sub jump_forward
{
	my ($name, $seconds) = @_;
	my %before = pointers();

	jump($name, $seconds);
	wait_for('the schedules to move on', sub {
		my %now = pointers();
		return !grep { $now{$_} <= fake_now($node) } @POLICIES;
	});
	my %after = pointers();
	my @missed = map { clock_text($before{fire_all} + 600 * $_) }
	  0 .. ($after{fire_all} - $before{fire_all}) / 600 - 1;

	cmp_ok(scalar @missed, '>=', $seconds / 600, "$name: " . @missed . ' ticks were passed over');
	is_deeply([ values %after ], [ ($after{fire_all}) x 3 ], "$name: the next tick is the same for all");
	cmp_ok($after{fire_all} - fake_now($node), '<=', 600, "$name: and it is the next one");

	push @{ $fired{fire_all} }, @missed;
	push @{ $fired{fire_once} }, $missed[0];
	ticks_are("$name: the policies are followed");
	works($name);
	return;
}

# The ticks ahead were fired already, or will be when the clock is there again; a
# new process does not see that otherwise.
sub jump_and_nothing
{
	my ($name, $seconds) = @_;
	my %before = pointers();

	jump($name, $seconds);
	works($name);
	is_deeply({ pointers() }, \%before, "$name: no schedule moves");
	restart_scheduler($node);
	is_deeply({ pointers() }, \%before, "$name: nor in a new process");
	ticks_are("$name: no tick is fired");
	return;
}

sub hold
{
	my ($worker) = @_;
	query($node, "SELECT qml_enqueue('m', queue => 'held')");
	return query($node, <<"SQL");
SELECT id FROM qml_fetch('$worker', '{held}', 1, '10 min') WHERE attempt = 1
SQL
}

{
	my $server = query($node, "SELECT qml_register_server('outside')");
	my $held = hold('w');
	my $of_server = hold("$server/w");
	my $later = query($node,
		"SELECT qml_enqueue('m', queue => 'delayed', run_at => clock_timestamp() + interval '30 min')");

	jump_forward('an hour forward', 3600);
	wait_for('leases to end', sub { query($node, <<"SQL") eq 't' });
SELECT bool_and(state = 'enqueued' AND attempt = 1) FROM qml.job WHERE id IN ('$held', '$of_server')
SQL
	fails_with($node, 'QM003', "SELECT qml_succeed('$held', 1)", 'the token is stale then');
	is(query($node, "SELECT count(*) FROM qml_fetch('v', '{held}', 2) WHERE attempt = 2"),
		2, 'others get the jobs');
	fails_with($node, 'QM003', "SELECT qml_succeed('$held', 1)", 'and it stays stale');
	is( query($node, "SELECT qml_succeed('$held', 2)"), 't', 'while the new one is good');
	is(query($node, "SELECT state FROM qml.job WHERE id = '$later'"),
		'enqueued', 'a delayed job is early by as much');
	wait_for('the server to be given up',
		sub { query($node, "SELECT alive FROM qml.server WHERE id = '$server'") eq 'f' });
	is(query($node, "SELECT qml_heartbeat_server('$server')"),
		'f', 'a server that seems to have been silent is told');
}

{
	my $held = hold('w');
	my $later = query($node,
		"SELECT qml_enqueue('m', queue => 'delayed', run_at => clock_timestamp() + interval '10 min')");

	jump_and_nothing('an hour back', -3600);
	is( query($node, "SELECT qml_heartbeat('$held', 1) > clock_timestamp()"),
		't', 'a lease is not over');
	is(query($node, "SELECT qml_succeed('$held', 1)"), 't', 'and its token good');
	is(query($node, "SELECT state FROM qml.job WHERE id = '$later'"),
		'scheduled', 'a delayed job is not ready');

	jump_and_nothing('the hour forward again', 3600);
}

jump_forward('a day forward', 86400);
jump_and_nothing('a day back', -86400);
jump_and_nothing('the day forward again', 86400);

log_is_clean($node, 'jumps: the log is clean',
	qr/^terminating background worker "qml scheduler" due to administrator command/);
end_sessions($node);
$node->stop;

#
# The clock is set back across midnight, UTC, and schedules are defined anew: ticks that fired
# after midnight are remembered, those of every second and those that are kept for a month.  The
# day is one on which both parts of the record begin a new partition.
#

$node = new_clock_node('midnight', clock_epoch('2026-06-02 23:30'), conf => $CONF);
my %NIGHTLY = (second => '* * * * * *', daily => '0 0 * * *');
sleeping_scheduler($node);
schedule($node, $_, $NIGHTLY{$_}) foreach keys %NIGHTLY;
set_clock($node, clock_epoch('2026-06-02 23:59:58'));
wait_for('the first ticks of the day', sub { grep { $_ eq '2026-06-03 00:00:02' } ticks_of($node, 'second') });
wait_for('the tick of the day', sub { ticks_of($node, 'daily') == 1 });
set_clock($node, clock_epoch('2026-06-02 23:55:00'));
query($node, join '', map { "SELECT qml_remove_recurring('$_');" } keys %NIGHTLY);
schedule($node, $_, $NIGHTLY{$_}) foreach keys %NIGHTLY;
query($node, 'SELECT qml_cleanup()');
is(query($node, "SELECT clock_timestamp() < '2026-06-03 00:00'"), 't', 'midnight: the day before is cleaned up');
set_clock($node, clock_epoch('2026-06-02 23:59:58'));
wait_for('ticks after those', sub { query($node, "SELECT min(next_run_at) > '2026-06-03 00:00:05' FROM qml.recurring_data") eq 't' });
foreach my $id (sort keys %NIGHTLY)
{
	my %times;
	$times{$_}++ foreach ticks_of($node, $id);
	is_deeply([ grep { $times{$_} > 1 } sort keys %times ], [], "midnight: no tick of \"$id\" fires twice");
}
log_is_clean($node, 'midnight: the log is clean');

done_testing();
