# Counting all jobs takes as long as it takes: a process of its own does it, slowly.  Meanwhile jobs
# become ready, lost ones are reclaimed and schedules fire on time, and nobody who needs a table,
# the extension, the database or the server alone has to wait.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

# The count sleeps at each row: so many rows are a count of more than 15 seconds.
my $JOBS = 170;
my $SLOW = 'counting.rows:limit:1,counting.sleep_ms:limit:100,counting.pause_ms:limit:100';
# Seconds that something may come late meanwhile, on an idle machine; and what takes a moment.
my ($LATE, $LATE_TICK, $SOON) = (1, 0.5, 4);

my $node = background_node('count_process', variant => 'faults', conf => <<"CONF");
autovacuum = off
qml.workers = 0
qml.faults = '$SLOW'
log_min_messages = debug1
CONF

sub prepare
{
	my ($dbname) = @_;
	query($node, $PAGES, $dbname);
	query($node, "SELECT qml_create_queue('ballast', '{}')", $dbname);
	# Large ones, so that they take more pages than the numbers do.
	query($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill(jsonb_build_object('p', repeat('x', 1000)), ARRAY[$JOBS]), 'ballast')", $dbname);
	return;
}

# Whether the functions read no rows.
sub is_counted
{
	my ($dbname) = @_;
	ask($node, 'SELECT count(*) FROM qml_counts()', $dbname);
	return ask($node, "SELECT pages('SELECT * FROM qml_counts()')", $dbname) <= 5;
}

sub differences
{
	return ask($node, <<'SQL');
WITH said AS MATERIALIZED (SELECT state, count FROM qml_counts() WHERE count <> 0),
	rows AS MATERIALIZED (SELECT state, count(*) AS count FROM qml.job GROUP BY 1)
SELECT coalesce(string_agg(format('%s: %s for %s', state, s.count, r.count), ', '), 'none')
FROM said s FULL JOIN rows r USING (state) WHERE s.count IS DISTINCT FROM r.count
SQL
}

# What qml_status() says of the numbers.
sub status
{
	my ($dbname) = @_;
	return ask($node, q{SELECT ok, detail, remedy FROM qml_status() WHERE check_name = 'counters'}, $dbname);
}

sub wait_status
{
	my ($what, $pattern, $dbname) = @_;
	my $last;
	wait_for("qml_status to say $what", sub { ($last = status($dbname)) =~ $pattern });
	like($last, $pattern, "qml_status says $what");
	return;
}

# Restarts the server, and waits until the process counts.
sub restart_count
{
	my ($dbname) = @_;
	end_sessions($node);
	$node->restart;
	return counting_process($dbname);
}

# Waits until the process counts: its pid.
sub counting_process
{
	my ($dbname, $other) = @_;
	my $pid;
	wait_for('a count', sub {
		$pid = try_query($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'qml count' AND datname = '$dbname' AND wait_event_type = 'Extension'") // '';
		return $pid ne '' && $pid != ($other // 0);
	});
	return $pid;
}

# How late a job becomes ready, in seconds: after the time that the SQL returns with its id, beyond
# what the machine is late by itself.
sub lateness
{
	my ($sql) = @_;
	my ($id, $due) = split /\|/, ask($node, $sql);
	my $lag;
	my $machine = machine_lag(0.2) / 1000;
	wait_for('a job to be ready', sub {
		$lag = ask($node, "SELECT extract(epoch FROM clock_timestamp() - '$due') FROM qml.live WHERE id = '$id' AND state = 'enqueued' AND clock_timestamp() > '$due'");
		return $lag ne '';
	});
	return max($lag - $machine, 0);
}

# ---- a long count holds up nothing

prepare('postgres');
query($node, "SELECT qml_schedule_recurring('r', '* * * * * *', 'tick', queue => 'ticks')");
my $begun = time;
restart_count('postgres');
ok(!is_counted(), 'while rows are counted the first time, functions read them');
like(status(), qr/^t\|all jobs are being counted, and qml_counts\(\) reads rows/, 'and qml_status says so');
my (@promoted, @reclaimed);
foreach (1 .. 5)
{
	push @promoted, lateness("SELECT qml_enqueue('m', queue => 'later', run_at => clock_timestamp() + interval '0.5 s'), clock_timestamp() + interval '0.5 s'");
	ask($node, "SELECT qml_enqueue('m', queue => 'leases')");
	push @reclaimed, lateness("SELECT id, lease_expires_at FROM qml_fetch('w', 'leases', lease => '0.5 s')");
}
is(process($node, 'count', 'postgres') // 0, counting_process('postgres'), 'the count goes on');
cmp_ok(max(@promoted), '<=', $LATE, sprintf 'jobs become ready on time meanwhile (%.3f s late)', max @promoted);
cmp_ok(max(@reclaimed), '<=', $LATE, sprintf 'and when a lease ends (%.3f s)', max @reclaimed);
my $tick = ask($node, <<'SQL');
SELECT max(extract(epoch FROM created_at - (metadata #>> '{recurring,tick}')::timestamptz)) FROM qml.job
WHERE method = 'tick' AND created_at BETWEEN pg_postmaster_start_time() + interval '3 s' AND now()
SQL
cmp_ok($tick, '<=', $LATE_TICK, sprintf 'schedules fire on time (%.3f s)', $tick);
cmp_ok(ask($node, q{SELECT count(*) FROM qml.job WHERE method = 'tick' AND created_at > now() - interval '4 s'}), '>=', 2, 'several times');

wait_for('the end of the count', sub { log_count($node, 'all jobs were counted', 0) > 1 || is_counted() });
cmp_ok(time - $begun, '>', 10, sprintf 'a count of %d s comes to its end', time - $begun);
ok(is_counted(), 'its numbers are used');
like(status(), qr/^t\|all jobs were counted at 20[-0-9: .+]+\|$/, 'qml_status says when they were made');
query($node, "SELECT qml_pause_recurring('r')");
is(differences(), 'none', 'they are those of the rows, with what was done meanwhile');
is(log_count($node, 'wrong, and w', 0), 0, 'no number was wrong');

# ---- those who need something alone

# Whether the SQL is done soon although a count is under way.
sub is_soon
{
	my ($name, $sql, $dbname) = @_;
	my $start = time;
	query($node, "SET statement_timeout = '60 s'; SET lock_timeout = '60 s'; $sql", 'template1') if $sql =~ /DATABASE/;
	query($node, "SET statement_timeout = '60 s'; $sql", $dbname) if $sql !~ /DATABASE/;
	my $took = time - $start;
	cmp_ok($took, '<', $SOON, sprintf '%s takes %.1f s during a count', $name, $took);
	return;
}

my $pid = restart_count('postgres');
is_soon('a lock on a table', 'BEGIN; LOCK TABLE qml.live IN ACCESS EXCLUSIVE MODE; COMMIT', 'postgres');
counting_process('postgres', $pid);
pass('the count is made again');

is_soon('what an update does to the tables', join(';', 'BEGIN', (map { "ALTER TABLE qml.$_ ADD note text" }
	qw(live history history_overflow live_unlogged history_unlogged history_unlogged_overflow)), 'COMMIT'), 'postgres');
is(differences(), 'none', 'the rows can be counted then');

# A table that is rewritten after the snapshot was taken, and before it is read: the snapshot does
# not see its rows.
ask($node, "SELECT qml_enqueue('m', queue => 'done') FROM generate_series(1, 3)");
ask($node, "SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', 'done', 3)");
my $leaf = ask($node, "SELECT DISTINCT tableoid::regclass FROM qml.history WHERE state = 'succeeded'");
restart_count('postgres');
query($node, "ALTER TABLE $leaf SET UNLOGGED; ALTER TABLE $leaf SET LOGGED");
ok(!is_counted(), 'a table was rewritten during a count');
set_config($node, 'qml.faults' => 'counting.pause_ms:limit:100');
wait_for('the numbers', sub { is_counted() });
is(differences(), 'none', 'the numbers are those of its rows');

set_config($node, 'qml.faults' => $SLOW);
foreach my $setting (qw(qml.enable_scheduler qml.enabled))
{
	restart_count('postgres');
	set_config($node, $setting => 'off');
	my $took = seconds_until('the count to be given up', sub { !defined process($node, 'count', 'postgres') });
	cmp_ok($took, '<', $SOON, sprintf '%s = off ends a count (%.1f s)', $setting, $took);
	wait_for('the setting', sub { ask($node, "SHOW $setting") eq 'off' });
	like(status(), qr/^f\|nobody counts the jobs/, 'and qml_status says that nobody counts');
	set_config($node, $setting => undef);
}

# ---- a count that comes to nothing, or not to its end

$pid = restart_count('postgres');
foreach my $time (1 .. 3)
{
	unlike(status(), qr/^f/, "before the process is ended the $time. time, all is well");
	query($node, "SELECT pg_terminate_backend($pid)");
	$pid = counting_process('postgres', $pid);
}
pass('when the process is ended, the count is made again');
wait_status('that it is ended all the time', qr/^f\|jobs are not counted, and qml_counts\(\) reads rows, since .*: the process that counts was ended.*\|See the log/);

set_config($node, 'qml.faults' => "$SLOW,counting.long_ms:limit:500");
$pid = restart_count('postgres');
wait_status('that a count takes long', qr/^f\|a count of all jobs has been going on for .* \(pid $pid\), and qml_counts\(\) reads rows.*\|SELECT \* FROM pg_stat_activity WHERE pid = $pid;$/);

my $failed = 'LOG:  qml count failed: qml fault at "counting.run" (SQLSTATE XX000)';
set_config($node, 'qml.faults' => 'counting.pause_ms:limit:100,counting.run:always');
end_sessions($node);
$node->restart;
wait_for('several counts to fail', sub { log_count($node, $failed, 0) >= 3 });
wait_status('that counts fail', qr/^f\|jobs are not counted.*: the last count failed with an error\|See the log/);
ok(!is_counted(), 'rows are counted where counts fail');
is(differences(), 'none', 'rightly');

# ---- numbers that cannot have become wrong

# With the usual pause between two comparisons, which is much longer for who is at rest.
my $OFTEN = 'counting.pause_ms:limit:100,counting.compare_ms:limit:200';
set_config($node, 'qml.faults' => $OFTEN);
wait_status('that an error is over', qr/^t\|all jobs were counted at /);
sub counts { return log_count($node, 'all jobs were counted', 0); }

# What sessions have written is known at the latest when they end.
sub wait_rest
{
	my ($last, $since) = (-1, time);
	end_sessions($node);
	wait_for(
		'a rest',
		sub {
			($last, $since) = (counts(), time) if counts() != $last;
			return time - $since >= 5;
		});
	return;
}
wait_rest();
pass('where nothing is written, nothing is compared');
my $counts = counts();
query($node, "SELECT qml_enqueue('m', queue => 'later', delay => '1 h')");
wait_for('a comparison', sub { counts() > $counts });
pass('what was written is compared with the numbers');
wait_rest();
query($node, "DELETE FROM $leaf WHERE id IN (SELECT id FROM $leaf LIMIT 1)");
wait_for('the difference', sub { log_count($node, 'LOG:  1 number of jobs was wrong, and was corrected', 0) > 0 });
pass('and what nobody told of is found');
is(differences(), 'none', 'and corrected');
wait_rest();
$counts = counts();
set_config($node, 'qml.faults' => "$OFTEN,counting.rest_ms:limit:200");
wait_for('several counts', sub { counts() >= $counts + 3 });
pass('now and then it is, although nothing was written');
set_config($node, 'qml.faults' => $SLOW);

restart_count('postgres');
is_soon('DROP EXTENSION', 'DROP EXTENSION qml CASCADE', 'postgres');
wait_for('the process to leave', sub { !defined process($node, 'count', 'postgres') });

query($node, 'CREATE DATABASE other');
query($node, 'CREATE EXTENSION qml', 'other');
prepare('other');
query($node, q{ALTER DATABASE other SET statement_timeout = '500 ms'; ALTER DATABASE other SET lock_timeout = '1 ms'});
$pid = restart_count('other');
wait_for('a count of more than a second', sub { (try_query($node, "SELECT now() - xact_start > '1.5 s' FROM pg_stat_activity WHERE pid = $pid") // '') eq 't' });
pass('timeouts of the database are not meant for it');
my $log = -s $node->logfile;
end_sessions($node);
kill 'KILL', $pid;
wait_for('the server', sub { log_count($node, 'all server processes terminated; reinitializing', $log) > 0 && (try_query($node, 'SELECT 1') // '') eq '1' });
counting_process('other', $pid);
pass('after the process was killed, the count is made again');

my $start = time;
$node->stop;
cmp_ok(time - $start, '<', $SOON, 'the server stops during a count');
$node->start;
counting_process('other');
is_soon('DROP DATABASE', 'DROP DATABASE other');
is(log_count($node, 'TRAP', 0) + log_count($node, 'PANIC', 0), 0, 'no process failed');
$node->stop;

# ---- no process to spare

$node = background_node('no_process', variant => 'faults', conf => <<'CONF');
autovacuum = off
max_worker_processes = 2
max_logical_replication_workers = 0
qml.workers = 0
CONF
prepare('postgres');
wait_for('the scheduler to be refused a process',
	sub { log_count($node, 'LOG:  no background process could be started to count the jobs in database "postgres"', 0) > 0 });
ok(!is_counted(), 'where no process is to spare, rows are counted');
is(differences(), 'none', 'which gives the same numbers');
wait_status('what is missing', qr/^f\|jobs are not counted, and .*: the server has no background process to spare\|Raise max_worker_processes, now 2,/);
ok(defined process($node, 'scheduler', 'postgres'), 'the scheduler goes on');
end_sessions($node);
$node->append_conf('postgresql.conf', 'max_worker_processes = 4');
$node->restart;
wait_for('the numbers', sub { is_counted() });
is(differences(), 'none', 'with one more process the jobs are counted');
like(status(), qr/^t\|all jobs were counted/, 'and qml_status says so');
end_sessions($node);
$node->stop;

# ---- databases that take turns

my @databases = qw(one two three four);
$node = background_node('turns', variant => 'faults', bare => 1, conf => <<"CONF");
autovacuum = off
qml.workers = 0
qml.max_workers = 2
qml.stats_series = 0
qml.faults = '$SLOW'
CONF
foreach my $dbname (@databases)
{
	query($node, "CREATE DATABASE $dbname");
	query($node, 'CREATE EXTENSION qml', $dbname);
	prepare($dbname);
}
# Those that there were at first are counted.
end_sessions($node);
$node->restart;
my $at_rest = q{SELECT d.name FROM qml.database d JOIN pg_stat_activity a ON a.datname = d.name AND a.backend_type = 'qml count' WHERE d.state = 'resting' AND d.due_at IS NULL};
my $resting = '';
wait_for('a database to rest', sub { ($resting = ask($node, $at_rest, 'one')) ne '' });
pass('a database rests while its jobs are counted, and nothing is due in it');
set_config($node, 'qml.faults' => 'counting.pause_ms:limit:100');
my $most = 0;
my %left = map { $_ => 1 } @databases;
wait_for(
	'all to be counted',
	sub {
		$most = max($most, ask($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'qml count'}, 'one'));
		foreach my $dbname (keys %left)
		{
			delete $left{$dbname} if is_counted($dbname);
		}
		return !%left;
	});
pass('the jobs of all databases are counted');
cmp_ok($most, '<=', 1, 'by one process at a time');
wait_for('two to rest', sub { ask($node, q{SELECT count(*) FROM qml.database WHERE state = 'resting' AND due_at IS NULL}, 'one') >= 2 });
pass('then, databases rest, and nothing is due in them');
end_sessions($node);
$node->stop;
done_testing();
