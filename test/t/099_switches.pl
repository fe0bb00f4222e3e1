# Switches stop the work in the background, or a part of it; and the server stops
# when it is told to.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = background_node('switches');
wait_for_process($node, 'scheduler', 'postgres');
promise_ticks($node);

# ---- switches

sub wait_for_switch
{
	my ($name, $value) = @_;
	set_config($node, $name => $value);
	ok($node->poll_query_until('postgres', "SHOW $name", $value // 'on'), "$name is " . ($value // 'on'));
	return;
}

wait_for_switch('qml.enabled', 'off');
my $seconds = seconds_until('no scheduler', sub { !defined process($node, 'scheduler', 'postgres') });
cmp_ok($seconds, '<=', 2, 'qml.enabled = off ends the scheduler');
promise($node);
sleep 2;
is(query($node, "SELECT count(*) FROM qml.live WHERE method = 'delayed' AND state = 'scheduled'"),
	1, 'nothing is done meanwhile');
ok(defined process($node, 'launcher'), 'the launcher waits');
wait_for_switch('qml.enabled', undef);
$seconds = seconds_until('a scheduler', sub { defined process($node, 'scheduler', 'postgres') });
cmp_ok($seconds, '<=', 2, 'qml.enabled = on starts it again');
nothing_is_lost($node, 'after a pause');

# What each kind of work does; all is due, whether it is done or not.
my %work = (
	'qml.enable_scheduler' => q{SELECT count(*) = 2 FROM qml.live
		WHERE method IN ('a delayed job', 'a lost job') AND state = 'enqueued'},
	'qml.enable_recurring' => q{SELECT max(occurrence) > (SELECT now FROM began) FROM qml.occurrence_data},
	'qml.enable_cleanup' => 'SELECT count(*) = 0 FROM qml.lock_data');

set_config($node, 'qml.cleanup_interval' => '1s');
query($node, 'CREATE TABLE began (now timestamptz)');
foreach my $switch (sort keys %work)
{
	wait_for_switch($switch, 'off');
	# Until the scheduler knows, too: what it does now it began before.
	sleep 1;
	query($node, <<'SQL');
TRUNCATE began;
INSERT INTO began SELECT clock_timestamp() + interval '0.5 s';
DELETE FROM qml.live WHERE method IN ('a delayed job', 'a lost job');
SELECT qml_try_lock('lock', 'w', '0.5 s');
SELECT qml_enqueue('a lost job', queue => 'lost');
SELECT qml_fetch('w', '{lost}', 1, '0.5 s');
SELECT qml_enqueue('a delayed job', queue => 'delayed', run_at => clock_timestamp() + interval '0.5 s');
SQL
	foreach my $other (grep { $_ ne $switch } sort keys %work)
	{
		ok($node->poll_query_until('postgres', $work{$other}), "$switch = off: not the work of $other");
	}
	is(query($node, $work{$switch}), 'f', "$switch = off: but its own stops");
	wait_for_switch($switch, undef);
	ok($node->poll_query_until('postgres', $work{$switch}), "$switch = on: it goes on");
}

# ---- the end of the server

foreach my $mode ('fast', 'smart')
{
	wait_for_process($node, 'scheduler', 'postgres');
	my $offset = -s $node->logfile;
	my $start = time;
	promise($node);
	$node->stop($mode);
	my $seconds = time - $start;
	cmp_ok($seconds, '<=', 5, sprintf 'the server stops at once, %s (%.2f s)', $mode, $seconds);
	unlike(slurp_file($node->logfile, $offset), qr/terminated by signal|PANIC|TRAP|ERROR/, 'and without a word');
	$node->start;
	nothing_is_lost($node, "a stop, $mode");
}

done_testing();
