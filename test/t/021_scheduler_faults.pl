# The scheduler fails, ends or crashes the server at each fault point of its
# steps; afterwards it is back, and has done exactly what there was to do.  A
# point that was not reached fails the test.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlBackground;
use QmlTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $JOBS = 10;
my @ACTIONS = qw(error fatal abort);
my @POINTS = qw(
  promote.after_select promote.before_commit
  reclaim.after_select reclaim.before_commit
  recurring.before_advance recurring.after_insert recurring.before_commit
  cleanup.mid_batch
);

my $node = new_node(
	'scheduler_faults',
	variant => 'faults',
	conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.cleanup_interval = 1s
CONF

sub arm
{
	my ($fault) = @_;
	$node->append_conf('postgresql.conf', "qml.faults = '$fault'");
	$node->reload;
	return;
}

# The postmaster hears it even while the server recovers; a process that it
# started before may still meet the fault.
sub disarm
{
	$node->append_conf('postgresql.conf', "qml.faults = ''");
	$node->reload;
	return;
}

sub start_work
{
	query($node, <<"SQL");
BEGIN;
SELECT count(qml_enqueue('delayed', queue => 'd', run_at => clock_timestamp() + interval '2 s'))
FROM generate_series(1, $JOBS);
SELECT count(qml_enqueue('lost', queue => 'l')) FROM generate_series(1, $JOBS);
SELECT count(*) FROM qml_fetch('ghost', ARRAY['l'], $JOBS, interval '2 s');
SELECT qml_schedule_recurring('every', '* * * * * *', 'tick', queue => 't', misfire => 'fire_all');
COMMIT;
SQL
	return;
}

# All that was due is done, and ticks went on for a while after the fault.
sub is_done
{
	my ($since) = @_;
	my $out = try_query($node, <<"SQL");
SELECT (SELECT count(*) = $JOBS FROM qml.job WHERE method = 'delayed' AND state = 'enqueued')
	AND (SELECT count(*) = $JOBS FROM qml.job WHERE method = 'lost' AND state = 'enqueued'
		AND attempt = 1)
	AND (SELECT max(occurrence) > to_timestamp($since) + interval '2 s' FROM qml.occurrence_data)
SQL
	return ($out // '') eq 't';
}

sub sweep
{
	my ($point, $action) = @_;
	my $fault = "$point:$action:1";
	my $offset = -s $node->logfile;
	my $started = time;
	my $leaf;

	drop_and_create($node);
	arm($fault);
	$leaf = eval { expired_leaf($node, 1, 10) } if $point =~ /^cleanup/;
	eval { start_work(); 1 }
	  or note("the server crashed meanwhile: $@");
	wait_for("$fault: the fault",
		sub { slurp_file($node->logfile, $offset) =~ /qml fault point "\Q$point\E" reached/ });
	disarm();
	my $reached = time;
	# What of the work was not yet there when the server crashed.
	wait_for(
		"$fault: the server to answer",
		sub {
			my $out = try_query($node, 'SELECT count(*) FROM qml.recurring_data');
			return defined $out && ($out == 1 || eval { start_work(); 1 });
		});
	wait_for("$fault: all to be done", sub { is_done($reached) });

	is( query(
			$node, "SELECT count(DISTINCT id) || ' ' || count(*) FROM qml.job WHERE method = 'delayed'"),
		"$JOBS $JOBS",
		"$fault: each delayed job is there once");
	is(wrong_ticks($node), '0', "$fault: one tick after the other, each with its job");
	if (defined $leaf)
	{
		ok( $node->poll_query_until(
				'postgres', "SELECT count(*) = 0 FROM pg_class WHERE relname = '$leaf'"),
			"$fault: the expired partition is dropped");
	}
	my $log = slurp_file($node->logfile, $offset);
	like($log, qr/was terminated by signal 6/, "$fault: the server had crashed")
	  if $action eq 'abort';
	unlike($log, qr/was terminated by signal/, "$fault: the server did not crash")
	  if $action ne 'abort';
	unlike($log, qr/PANIC|TRAP:/, "$fault: nothing worse");
	note(sprintf '%s took %.1f s', $fault, time - $started);
	return;
}

avoid_midnight();
foreach my $action (@ACTIONS)
{
	sweep($_, $action) foreach @POINTS;
}

# The server has no room for the name of what a process waits for: it waits all the same.
drop_and_create($node);
arm('wait_event.new:error');
$node->stop;
my $offset = -s $node->logfile;
$node->start;
wait_for_process($node, 'scheduler', 'postgres');
query($node, "SELECT qml_enqueue('delayed', queue => 'd', run_at => clock_timestamp() + interval '0.5 s')");
ok( $node->poll_query_until('postgres', "SELECT count(*) = 1 FROM qml.live WHERE state = 'enqueued'"),
	'no wait event: the scheduler is at work');
is(query($node, "CALL qml_wait(ARRAY['none'], '1 s', NULL)"), 'f', 'no wait event: a session waits');
cmp_ok(log_count($node, 'qml fault point "wait_event.new" reached', $offset), '>=', 3, 'no wait event: launcher, scheduler and session met it');
unlike(slurp_file($node->logfile, $offset), qr/ failed: |exited with exit code [^0]/, 'no wait event: nothing failed');

done_testing();
