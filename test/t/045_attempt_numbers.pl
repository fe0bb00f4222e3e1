# No number of an attempt is given twice for a job, whatever the server has lost: in a crash,
# in a promotion, in a restore.  What a late worker says is refused then.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

# What is skipped where claims may be lost.
my $SKIPPED = 65536;

my $dir = PostgreSQL::Test::Utils::tempdir;

sub enqueue
{
	my ($node, $arguments) = @_;
	return query($node, "SET synchronous_commit = on; SELECT qml_enqueue($arguments)");
}

# The attempt that a worker gets; the only job of its queue is ready.
sub fetch
{
	my ($node, $queue, $dbname) = @_;
	return query($node, "SELECT attempt FROM qml_fetch('w', '{$queue}', lease => '1 h')", $dbname);
}

sub job
{
	my ($node, $id, $dbname) = @_;
	return query($node, "SELECT state, attempt, tries FROM qml_job('$id')", $dbname);
}

# The lease is over, and the job is reclaimed.
sub reclaim
{
	my ($node, $id) = @_;
	query($node, "UPDATE qml.live SET lease_expires_at = now() WHERE id = '$id'; SELECT qml_reclaim()");
	return;
}

sub refuses
{
	my ($node, $id, $attempt, $name, $dbname) = @_;
	fails_with($node, 'QM003', "SELECT qml_succeed('$id', $attempt)", $name,
		dbname => $dbname // 'postgres');
	return;
}

# ---- a crash: commits that do not wait for the disk are lost, claims are not

my $node = background_node('crash', conf => <<'CONF');
synchronous_commit = off
wal_writer_delay = 10s
CONF
my %claims = (
	qml_fetch => q{SELECT qml_fetch('late', '{%s}', lease => '1 h')},
	'qml_fetch in a subtransaction' =>
	  q{DO $$ BEGIN PERFORM qml_fetch('late', '{%s}', lease => '1 h'); EXCEPTION WHEN division_by_zero THEN NULL; END $$},
	qml_set_state => q{SELECT qml_set_state(id, 'processing', '{"lease": "1 h"}') FROM qml.job WHERE queue = '%s'},
);
my %lost;
foreach my $way (sort keys %claims)
{
	my $queue = 'q' . keys %lost;
	$lost{$way} = [ $queue, enqueue($node, "'work', queue => '$queue'") ];
	query($node, 'CHECKPOINT');
	query($node, sprintf $claims{$way}, $queue);
	kill_server($node);
	start_again($node);
}
foreach my $way (sort keys %lost)
{
	my ($queue, $id) = @{ $lost{$way} };
	is(job($node, $id), 'processing|1|1', "$way: the claim survives a crash");
	reclaim($node, $id);
	is(fetch($node, $queue), 2, 'the next worker gets another number');
	refuses($node, $id, 1, 'the late one is refused');
}
query($node, 'CREATE TABLE mark (n int); INSERT INTO mark VALUES (1)');
query($node, 'CHECKPOINT');
query($node, 'INSERT INTO mark VALUES (2)');
kill_server($node);
start_again($node);
is(query($node, 'SELECT count(*) FROM mark'), 1, 'any other commit was lost');

# A handler that tells its number to somebody outside, and crashes the server at once.
my $told = "$dir/told";
query($node, <<"SQL");
CREATE FUNCTION tell(job qml.job) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	EXECUTE format('COPY (SELECT %s) TO PROGRAM %L', job.attempt,
		'cat >> $told; test ' || job.attempt || ' -gt 1 || kill -9 \$PPID');
END \$\$;
SELECT qml_register_handler('tell', 'tell(qml.job)');
SQL
query($node, q{SELECT qml_create_queue('tell'); SELECT qml_pause_queue('tell')});
my $id = enqueue($node, "'tell', queue => 'tell'");
query($node, q{SET synchronous_commit = on; SELECT qml_resume_queue('tell')});
wait_for('the second attempt', sub { (try_query($node, "SELECT state FROM qml_job('$id')") // '') eq 'succeeded' });
is(job($node, $id), 'succeeded|2|2', 'a worker in the database: the attempt was counted');
is(slurp_file($told), "1\n2\n", 'and its number was not given again');
$node->stop;

# ---- a promotion: the standby lacks the last claims

my $primary = new_node('primary', init => { allows_streaming => 1 });
my %id = map { $_ => enqueue($primary, "'work', queue => '$_', max_retries => 2") }
  qw(fresh claimed retried released dead done);
query($primary, q{SELECT qml_create_queue('later')});
query($primary, <<'SQL');
SELECT qml_fetch('w', '{claimed}', lease => '1 h');
SELECT qml_fail(id, attempt, 'x', retry_at => now() + interval '1 h') FROM qml_fetch('w', '{retried}');
SELECT qml_release(id, attempt) FROM qml_fetch('w', '{released}');
SELECT qml_fail(id, attempt, 'x', retry => false) FROM qml_fetch('w', '{dead}');
SELECT qml_fetch('w', '{done}', lease => '1 h');
SQL
$primary->backup('copy');
my $standby = node_of_backup('standby', $primary, 'copy', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby, 'replay');
set_config($standby, primary_conninfo => '');
ok($standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver'),
	'the standby gets nothing any more');

my %late = (fresh => fetch($primary, 'fresh'));
query($primary, "SELECT qml_fail('$id{claimed}', 1, 'x', retry_at => now())");
query($primary, "UPDATE qml.live SET run_at = now() WHERE state = 'awaiting_retry'");
query($primary, "SELECT qml_promote_due(); SELECT qml_retry('$id{dead}')");
$late{$_} = fetch($primary, $_) foreach qw(claimed retried released dead);
is_deeply(\%late, { fresh => 1, claimed => 2, retried => 2, released => 2, dead => 2 },
	'numbers that the standby does not know');
$primary->stop('immediate');
$standby->promote;

is(job($standby, $id{done}), 'processing|1|1', 'a claim that the standby knows');
query($standby, "SELECT qml_heartbeat('$id{done}', 1, '1 h'); SELECT qml_progress('$id{done}', 1, '1')");
query($standby, "SELECT qml_succeed('$id{done}', 1)");
is(job($standby, $id{done}), 'succeeded|1|1', 'is worked as before');
my $new = enqueue($standby, "'work', queue => 'later'");
is(fetch($standby, 'later'), 1, 'a job that is enqueued after the promotion begins with 1');
is(job($standby, $new), 'processing|1|1', 'and counts as ever');

# Each row is written once or more before it is claimed: that does not make it one of here.
query($standby, "SELECT qml_heartbeat('$id{claimed}', 1, '1 h'); SELECT qml_progress('$id{claimed}', 1, '1')");
reclaim($standby, $id{claimed});
query($standby, "SELECT qml_reschedule('$id{fresh}', now() + interval '1 h'); SELECT qml_retry('$id{fresh}')");
query($standby, "UPDATE qml.live SET run_at = now() WHERE state = 'awaiting_retry'");
query($standby, "SELECT qml_promote_due(); SELECT qml_retry('$id{dead}')");
my %tries = (fresh => 1, claimed => 2, retried => 2, released => 1, dead => 1);
foreach my $queue (sort keys %tries)
{
	my $expected = $late{$queue} + $SKIPPED;
	is(fetch($standby, $queue), $expected, "$queue: the first claim skips numbers");
	is(job($standby, $id{$queue}), "processing|$expected|$tries{$queue}", 'which do not count');
	refuses($standby, $id{$queue}, $late{$queue}, 'the late worker is refused');
}
query($standby, "SELECT qml_release('$id{released}', $late{released} + $SKIPPED)");
is(fetch($standby, 'released'), $late{released} + $SKIPPED + 1, 'the second claim skips none');

# Two retries, neither more nor less.
foreach my $try (1 .. 3)
{
	my $state = $try < 3 ? 'awaiting_retry' : 'failed';
	is(query($standby, "SELECT qml_fail('$id{fresh}', $SKIPPED + $try, 'x', retry_at => now())"),
		$state, "retries are counted as ever: try $try");
	query($standby, 'SELECT qml_promote_due()');
	fetch($standby, 'fresh') if $try < 3;
}
is(job($standby, $id{fresh}), 'failed|' . ($SKIPPED + 3) . '|3', 'and tries shows them');

# ---- a restore: what came after the dump is lost

query($standby, 'CREATE DATABASE source');
query($standby, 'CREATE EXTENSION qml', 'source');
my $job = query($standby, "SELECT qml_enqueue('work', queue => 'q')", 'source');
$standby->command_ok([ 'pg_dump', '-f', "$dir/dump", 'source' ], 'a dump');
is(fetch($standby, 'q', 'source'), 1, 'a claim after it');
query($standby, 'CREATE DATABASE target');
$standby->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/dump", 'target' ], 'a restore');
query($standby, 'SELECT qml_adopt()', 'target');
is(fetch($standby, 'q', 'target'), 1 + $SKIPPED, 'elsewhere: the claim has another number');
refuses($standby, $job, 1, 'the late worker is refused', 'target');
query($standby, 'DROP EXTENSION qml CASCADE', 'source');
$standby->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/dump", 'source' ], 'a restore');
is(fetch($standby, 'q', 'source'), 1 + $SKIPPED, 'where the dump is from: likewise');
refuses($standby, $job, 1, 'the late worker is refused', 'source');

done_testing();
