# Rows that cannot be worked are told of once, passed over, and in nobody's way.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

# Callers meet the warnings, too, which are not what is waited for.
local $ENV{PGOPTIONS} = '-c client_min_messages=error';

my $EACH = 20;
my $SECRET = 'secret-4711';

my $node = background_node('broken');
my $scheduler = wait_for_process($node, 'scheduler', 'postgres');
# Rows may be damaged in spite of constraints, too.
query($node, 'ALTER TABLE qml.live DROP CONSTRAINT live_state');

sub cpu_seconds
{
	my ($pid) = @_;
	my ($user, $system) = slurp_file("/proc/$pid/stat") =~ /^\d+ \(.*\) \S(?: \S+){10} (\d+) (\d+)/s;
	return ($user + $system) / 100;
}

# ---- rows edited by hand

# Asserts that jobs become ready that have nothing wrong.
my $rounds = 0;

sub add_good
{
	my ($name) = @_;
	my ($due, $leased, $retried) = map { $_ . ++$rounds } qw(due leased retried);

	query($node, <<"SQL");
SELECT count(qml_enqueue('good', queue => '$due', run_at => clock_timestamp() + interval '0.2 s'))
FROM generate_series(1, $EACH);
SELECT count(qml_enqueue('good', queue => '$leased')) FROM generate_series(1, $EACH);
SELECT count(*) FROM qml_fetch('w', '{$leased}', $EACH, '0.2 s');
SELECT count(qml_enqueue('good', queue => '$retried')) FROM generate_series(1, $EACH);
SELECT count(qml_fail(id, attempt, 'oops', retry_at => clock_timestamp() + interval '0.2 s'))
FROM qml_fetch('w', '{$retried}', $EACH);
SQL
	ok( $node->poll_query_until('postgres', <<"SQL"), "$name: good jobs become ready");
SELECT count(*) = 3 * $EACH FROM qml.job
WHERE queue IN ('$due', '$leased', '$retried') AND state = 'enqueued' AND run_at IS NULL
SQL
	return;
}

add_good('before');

# What is done to jobs that are due, and to jobs whose lease is over.  Some of them
# can be worked all the same.
my %due = (
	'final, but due' => q{state = 'succeeded'},
	'enqueued, but due' => q{state = 'enqueued'});
my %leased = (
	'final, but claimed' => q{state = 'failed'},
	'scheduled, but claimed' => q{state = 'scheduled'},
	'errors that are no array' => q{errors = '5'},
	'a missing queue' => q{queue_id = -1});

# In a transaction, so that none is found before it is broken.
my $offset = -s $node->logfile;
query($node, join '', 'BEGIN;', (map { <<"SQL" } sort keys %due), (map { <<"SQL" } sort keys %leased), 'COMMIT');
SELECT count(qml_enqueue('$_', '{"key": "$SECRET"}', 'broken',
	run_at => clock_timestamp() + interval '1 s'))
FROM generate_series(1, $EACH);
UPDATE qml.live SET $due{$_} WHERE method = '$_';
SQL
SELECT count(qml_enqueue('$_', '{"key": "$SECRET"}', 'broken')) FROM generate_series(1, $EACH);
SELECT count(*) FROM qml_fetch('w', '{broken}', $EACH, '1 ms');
UPDATE qml.live SET $leased{$_} WHERE method = '$_';
SQL

wait_for('the warning',
	sub { log_count($node, 'jobs cannot be changed and are skipped', $offset) > 0 });
add_good('behind broken jobs');

# A queue whose options cannot be read.
query($node, <<"SQL");
SELECT qml_enqueue('unreadable', queue => 'options');
SELECT count(*) FROM qml_fetch('w', '{options}', 1, '1 ms');
UPDATE qml.queue_data SET options = '{"retry": "$SECRET", "lease": []}' WHERE name = 'options';
SQL
add_good('beside a queue with broken options');

# ---- schedules edited by hand

my %schedule = (
	'a cron expression' => q{cron = 'at noon'},
	'a zone' => q{timezone = 'Europe/Atlantis'},
	'a policy' => q{misfire = 'perhaps'},
	'a queue that cannot be made' => q{queue = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 200) n)},
	'an owner who is gone' => q{created_by = 4711});

# All of them due, before and after good ones.
query($node, join '', map { <<"SQL" } 'good', 'better');
SELECT qml_schedule_recurring('$_', '* * * * * *', 'tick');
SQL
query($node, join '', map { <<"SQL" } sort keys %schedule);
BEGIN;
SELECT qml_schedule_recurring('$_', '\@daily', 'broken', jsonb_build_object('key', '$SECRET'));
UPDATE qml.recurring_data SET $schedule{$_}, next_run_at = clock_timestamp() WHERE id = '$_';
COMMIT;
SQL

sub ticks_go_on
{
	my ($name) = @_;
	my $now = query($node, 'SELECT clock_timestamp()');
	ok( $node->poll_query_until('postgres', <<"SQL"), "$name: good schedules fire");
SELECT count(DISTINCT recurring) = 2 FROM qml.occurrence_data
WHERE occurrence > '$now' AND recurring IN ('good', 'better')
SQL
	return;
}

ticks_go_on('beside broken schedules');
query($node, "UPDATE qml.recurring_data SET next_run_at = now() - interval '1 hour' WHERE id NOT IN ('good', 'better')");
ticks_go_on('behind broken schedules');
add_good('beside broken schedules');
my $problems = query($node, 'SELECT id, error FROM qml.recurring WHERE error IS NOT NULL ORDER BY id');
like($problems, qr/^\Q$_\E\|/m, "$_ that cannot be used is told in the view")
  foreach 'a cron expression', 'a zone', 'an owner who is gone';

# ---- what it costs

sleep 1;
my ($cpu, $start) = (cpu_seconds($scheduler), time);
my $xmax = query($node, 'SELECT pg_snapshot_xmax(pg_current_snapshot())');
sleep 6;
my $share = (cpu_seconds($scheduler) - $cpu) / (time - $start);
cmp_ok($share, '<=', 0.1, sprintf 'the scheduler takes little time (%.1f %%)', 100 * $share);

my $log = slurp_file($node->logfile, $offset);
my @jobs = $log =~ /(.*\bjobs? cannot be changed and (?:is|are) skipped.*\n.*)/g;
my @schedules = $log =~ /(.*recurring job ".*" cannot fire.*\n.*)/g;
# A minute may have passed.
cmp_ok(scalar @jobs, '<=', 2, 'broken jobs are told of once a minute') or diag(@jobs);
cmp_ok(scalar @schedules, '<=', 2, 'broken schedules are told of once a minute') or diag(@schedules);
like($jobs[0], qr/Job [-0-9a-f]{36}: .*SQLSTATE \w{5}/, 'with a job and the SQLSTATE');
like($schedules[0] // '', qr/SQLSTATE \w{5}/, 'with the SQLSTATE');
is(log_count($node, $SECRET, $offset), 0, 'payloads are not told');
unlike($log, qr/qml.*failed:|PANIC|TRAP|terminated by signal/, 'nothing failed');

# ---- it is the same process all the time, and the rows are as they were

is(process($node, 'scheduler', 'postgres'), $scheduler, 'the scheduler goes on');
is( query($node, <<'SQL'), <<'TXT' =~ s/\n\z//r, 'what cannot be worked is as it was, the rest is ready');
SELECT method, state, run_at IS NULL, count(*) FROM qml.live
WHERE payload ? 'key' AND method NOT IN ('broken', 'final, but claimed')
GROUP BY 1, 2, 3 ORDER BY 1
SQL
a missing queue|processing|t|20
enqueued, but due|enqueued|f|20
errors that are no array|enqueued|t|20
final, but due|succeeded|f|20
scheduled, but claimed|enqueued|t|20
TXT

# Mended jobs go on.
query($node, "UPDATE qml.live SET state = 'scheduled' WHERE method = 'enqueued, but due'");
ok( $node->poll_query_until('postgres', <<"SQL"), 'mended jobs become ready');
SELECT count(*) = $EACH FROM qml.live
WHERE method = 'enqueued, but due' AND state = 'enqueued' AND run_at IS NULL
SQL
# In one transaction: the scheduler looks, too.
is(query($node, <<'SQL'), '0|1', 'callers pass over the others, too');
BEGIN;
UPDATE qml.live SET queue_id = (SELECT id FROM qml.queue_data WHERE name = 'broken')
WHERE id = (SELECT id FROM qml.live WHERE method = 'a missing queue' LIMIT 1);
SELECT qml_promote_due(), qml_reclaim();
COMMIT;
SQL

query($node, "SELECT pg_terminate_backend($scheduler)");
wait_for_process($node, 'scheduler', 'postgres', $scheduler);
add_good('after a new start');
$node->stop('fast');
pass('the server stops');

done_testing();
