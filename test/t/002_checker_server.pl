# The checker and the client against a real server: a run in order gives no
# violation, and harm done to the database behind qml's back is found.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlChecker;
use QmlJobs;
use QmlTest;
use Test::More;

my $node = new_node('checker');
my $logs = make_log_dir();

# One worker, which more jobs reach while it is at it; it ends a second after the last.
my @produce = ('--many-fraction', 0.2, '--transaction', 0.3, '--queues', 'a,b', '--priorities', 4);
finish_clients('the producer ends', start_client($node, 'produce', $logs, '--jobs', 500, @produce));
finish_clients('the worker ends, and another producer',
	start_client($node, 'work', $logs, '--drain', '--idle', 50, '--batch', 3, '--stale', 0.1,
		'--fail', 0.1, '--retry-ms', 10, '--maintain-ms', 50, '--prepared'),
	start_client($node, 'produce', $logs, '--jobs', 300, '--pace-ms', 5, @produce));

sub check
{
	my (%arg) = @_;
	return QmlChecker::check(
		logs => [$logs],
		database => $node->connstr('postgres'),
		server_logs => [ $node->logfile ],
		quiet => 1, %arg);
}

# The harm is undone afterwards where it is done in a transaction's stead.
sub finds
{
	my ($pattern, $name, %arg) = @_;
	my @bad = check(%arg);

	ok((grep { $_ =~ $pattern } @bad) > 0, "finds $name")
	  or diag("found: ", join("\n       ", @bad[ 0 .. ($#bad < 9 ? $#bad : 9) ]));
	return;
}

check_ok($node, 'a run in order', $logs, final => 1, amcheck => 1, one_worker => 1);

# a job that vanishes, one that is there twice, one that nobody asked for
query($node, <<'SQL');
CREATE TABLE one AS SELECT * FROM qml.history WHERE state = 'succeeded' LIMIT 1;
DELETE FROM qml.history WHERE id = (SELECT id FROM one);
SQL
finds(qr/^I1 .* is gone/, 'a job that vanished');
query($node, 'INSERT INTO qml.history SELECT * FROM one');
is(scalar check(final => 1), 0, 'and nothing when it is back');
query($node, 'INSERT INTO qml.history SELECT * FROM one');
finds(qr/^I1 .* is stored in history history/, 'a job that is stored twice');
query($node, <<'SQL');
DELETE FROM qml.history WHERE id = (SELECT id FROM one);
INSERT INTO qml.history SELECT * FROM one;
SQL
query($node, "SELECT qml_enqueue('unasked')");
finds(qr/^I2 .* was enqueued by nobody/, 'a job that nobody enqueued');
finds(qr/^I9 .* is still enqueued/, 'a job that is left ready');
query($node, "SELECT id FROM qml_fetch()");
finds(qr/^I9 .* is still processing/, 'a job that is left in work');
finds(qr/^claim 1 attempts were begun that no client was given/, 'an attempt that nobody knows of');
query($node, 'DELETE FROM qml.live');
is(scalar check(final => 1), 0, 'and nothing when they are gone');

# an index without its row
query($node, <<'SQL');
UPDATE pg_index SET indisready = false WHERE indexrelid = 'qml.live_ready'::regclass;
SQL
query($node, "SELECT qml_enqueue('unindexed')");
query($node, <<'SQL');
UPDATE pg_index SET indisready = true WHERE indexrelid = 'qml.live_ready'::regclass;
SQL
finds(qr/^I13 .*lacks matching index tuple/, 'a row that is missing in an index', amcheck => 1);

# the server's log
query($node, 'DELETE FROM qml.live');
$node->psql('postgres', "DO \$\$ BEGIN RAISE 'made up' USING ERRCODE = 'XX000'; END \$\$",
	stderr => \my $ignored);
finds(qr/^I12 .*made up/, 'an internal error in the log');

# a job that the only worker passes over, because somebody has it locked
query($node, 'DELETE FROM qml.live');
{
	my $urgent = query($node, "SELECT qml_enqueue('client.job', priority => 9, queue => 'a')");
	write_event($logs, 'enqueued', $urgent, undef, undef, 'op=enqueue');
	finish_clients('a third producer ends',
		start_client($node, 'produce', $logs, '--jobs', 20, '--queues', 'a'));
	my $locker = new_session($node);
	$locker->query_safe("BEGIN; SELECT FROM qml.live WHERE id = '$urgent' FOR UPDATE");
	finish_clients('the worker ends', start_client($node, 'work', $logs, '--max-seconds', 1));
	$locker->query_safe('ROLLBACK');
	$locker->quit;
	finds(qr/^I10 .* of priority 0 was given before job $urgent/, 'a job that was left behind',
		one_worker => 1);
}

# a worker that is not at rest
my $other = new_node('busy', conf => "shared_preload_libraries = 'qml'");
my @database = (database => $other->connstr('postgres'), server_logs => []);
is( join("\n", grep { /^I12/ } check(@database)),
	'', 'qml\'s processes hold nothing when they are idle');
{
	my $holder = new_session($other);
	$holder->query_safe('SELECT pg_advisory_lock(1)');
	handler($other, 'held', 'CREATE FUNCTION held(job qml.job) RETURNS void LANGUAGE plpgsql AS'
		  . ' $$ BEGIN PERFORM pg_advisory_lock(1); END $$');
	enqueue($other, 'held');
	wait_held($other, 1);
	my @bad = check(@database);
	ok((grep { /^I12 qml worker \d+ holds the lock / } @bad) > 0, 'finds a process that holds a lock');
	ok((grep { /^I12 qml worker \d+ holds a snapshot/ } @bad) > 0, 'and one that holds a snapshot');
	$holder->quit;
}
end_sessions($other);

done_testing();
