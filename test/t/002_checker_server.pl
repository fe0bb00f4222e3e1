# The checker and the client against a real server: a run in order gives no
# violation, and harm done to the database behind qml's back is found.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlTest;
use QmlChecker;
use Test::More;

my $node = new_node('checker');
my $logs = make_log_dir();

finish_clients('the producer ends',
	start_client($node, 'produce', $logs, '--jobs', 500, '--many-fraction', 0.2,
		'--transaction', 0.3));
finish_clients('the worker ends',
	start_client($node, 'work', $logs, '--drain', '--stale', 0.1, '--fail', 0.1,
		'--retry-ms', 10, '--maintain-ms', 50, '--prepared'));

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

check_ok($node, 'a run in order', $logs, final => 1, amcheck => 1);

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

done_testing();
