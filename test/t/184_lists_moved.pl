# What was restored, copied, upgraded or promoted gives its ready jobs by lists: all of them, in
# order, whatever the lists of the database knew before.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

# Pages that a fetch touches at most if a list gives the job; dead entries of the index before it.
my ($MOST, $DEAD) = (40, 20_000);
my $dir = PostgreSQL::Test::Utils::tempdir;

my $HELPERS = <<'SQL';
CREATE FUNCTION fill(queue text, jobs int) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(qml_enqueue('m', queue => queue, priority => n % 3)) FROM generate_series(1, jobs) n
$$;
-- Fetches until a fetch gives nothing; says what differs from what was ready.
CREATE PROCEDURE drain(queue text, INOUT result text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
	expected uuid[] := ARRAY(SELECT l.id FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id
		WHERE q.name = drain.queue AND l.state = 'enqueued' AND l.run_at IS NULL ORDER BY l.priority DESC, l.id);
	ids uuid[] := '{}';
	got uuid[];
BEGIN
	LOOP
		SELECT array_agg(f.id) INTO got FROM qml_fetch('w', queue, 7) f;
		COMMIT;
		EXIT WHEN got IS NULL;
		ids := ids || got;
	END LOOP;
	result := cardinality(ids) || CASE WHEN ids = expected THEN ' in order' ELSE ' instead of ' || cardinality(expected) END;
END $$;
SQL

sub drains
{
	my ($server, $dbname, $queue, $count, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(query($server, "CALL drain('$queue')", $dbname), "$count in order", $name);
}

# Pages of the second fetch of one from a queue.
sub cost
{
	my ($server, $dbname, $queue) = @_;
	my $explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM qml_fetch('w', '$queue');";
	my ($second) = query($server, "\\o /dev/null\n$explain\n\\o\n$explain", $dbname) =~ /(\[.*\])/s;
	my $plan = json($second)->[0]{Plan};
	is($plan->{'Actual Rows'}, 1, "a fetch from $queue gives a job");
	return $plan->{'Shared Hit Blocks'} + $plan->{'Shared Read Blocks'};
}

sub run_ok
{
	my ($name, @command) = @_;
	my $said = '';
	ok(IPC::Run::run(\@command, '<', \undef, '>', \$said, '2>', \$said, init => sub { chdir $dir }), $name) or diag(substr $said, -2000);
	return;
}

my $CONF = <<'CONF';
fsync = off
autovacuum = off
max_wal_size = 4GB
CONF
my $node = background_node('moved', bare => 1, init => { allows_streaming => 1 }, conf => $CONF);
query($node, 'CREATE DATABASE source');
query($node, "CREATE EXTENSION qml; $HELPERS; SELECT fill(q, 300) FROM unnest('{a,b,c}'::text[]) q; SELECT FROM unnest('{a,b}'::text[]) q, qml_fetch('w', q, 5)", 'source');

# ---- a dump that is restored, under the name of a database whose lists are known

query($node, 'CREATE DATABASE restored');
query($node, "CREATE EXTENSION qml; $HELPERS; SELECT fill('a', 50), fill('c', 50)", 'restored');
drains($node, 'restored', 'a', 50, 'before the restore');
query($node, 'DROP DATABASE restored WITH (FORCE)');
query($node, 'CREATE DATABASE restored');
run_ok('dump', 'pg_dump', '-Fc', '-f', "$dir/dump", $node->connstr('source'));
run_ok('restore', 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), "$dir/dump");
query($node, 'SELECT qml_adopt()', 'restored');
drains($node, 'restored', 'a', 300, 'restored: also what was claimed in the source');
drains($node, 'restored', 'c', 300, 'restored: what nobody had touched');

# ---- the jobs alone, into an extension that has lists, without triggers

query($node, 'CREATE DATABASE jobs');
query($node, "CREATE EXTENSION qml; $HELPERS", 'jobs');
is(query($node, 'SELECT count(*) FROM qml_fetch()', 'jobs'), 0, 'nothing is ready before the jobs are restored');
my $offset = -s $node->logfile;
run_ok('dump of the jobs', 'pg_dump', '--data-only', '--disable-triggers', '-t', 'qml.queue_data', '-t', 'qml.live', '-f', "$dir/jobs.sql", $node->connstr('source'));
run_ok('restore of the jobs', 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/jobs.sql", $node->connstr('jobs'));
is(query($node, "SELECT count(*) FROM qml_fetch('w', 'c')", 'jobs'), 1, 'what came without a trigger is given');
drains($node, 'jobs', 'b', 295, 'all of it');
is(query($node, "SELECT tgenabled FROM pg_trigger WHERE tgname = 'note_sql' AND tgrelid = 'qml.live'::regclass", 'jobs'), 'O', 'the restore has not enabled the trigger as it was');
wait_for('the log', sub { slurp_file($node->logfile, $offset) =~ /LOG:  claims search the index, because the trigger that tells of SQL on "live" is not there/ });
# Dead entries show how a fetch finds its job.
query($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[$DEAD]), 'c', 9)", 'jobs');
my $old = new_session($node, 'jobs');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class LIMIT 1');
query($node, "DELETE FROM qml.live WHERE priority = 9", 'jobs');
my $pages = cost($node, 'jobs', 'c');
cmp_ok($pages, '>', $MOST, "without the trigger a fetch searches the index ($pages pages)");
query($node, 'SELECT qml_adopt()', 'jobs');
is(query($node, "SELECT tgenabled FROM pg_trigger WHERE tgname = 'note_sql' AND tgrelid = 'qml.live'::regclass", 'jobs'), 'A', 'qml_adopt() enables it');
$pages = cost($node, 'jobs', 'c');
cmp_ok($pages, '<=', $MOST, "then lists are used again ($pages pages)");
$old->quit;
drains($node, 'jobs', 'c', 300 - 5, 'the rest is in order');

# ---- a standby that is promoted

$node->backup('copy');
my $standby = node_of_backup('standby', $node, 'copy', has_streaming => 1);
$standby->start;
fails_with($standby, '25006', 'SELECT * FROM qml_fetch()', 'a standby gives nothing', dbname => 'source');
query($node, "SELECT fill('a', 20), fill('d', 20); SELECT count(*) FROM qml_fetch('w', 'a', 9)", 'source');
# What is not committed is not there; what is prepared is.
my $open = new_session($node, 'source');
$open->query_safe("BEGIN; SELECT fill('a', 1000)");
query($node, "BEGIN; SELECT fill('d', 3); SELECT count(*) FROM qml_fetch('w', 'b', 10); PREPARE TRANSACTION 'moved'", 'source');
$node->wait_for_catchup($standby, 'replay');
my @ready = split /\|/, query($node, "SELECT count(*) FILTER (WHERE q.name = 'a'), count(*) FILTER (WHERE q.name = 'b') FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id WHERE l.state = 'enqueued'", 'source');
$node->stop('immediate');
eval { $open->{run}->kill_kill };
$standby->promote;
wait_for('the promoted server to be writable', sub { query($standby, 'SELECT pg_is_in_recovery()') eq 'f' });
drains($standby, 'source', 'a', $ready[0], 'promoted: what was ready');
is(query($standby, "SELECT count(*) FROM qml_fetch('w', 'b', 5)", 'source'), 5, 'promoted: what no prepared transaction has');
query($standby, "COMMIT PREPARED 'moved'", 'source');
drains($standby, 'source', 'd', 23, 'promoted: also what a transaction had made that was prepared before');
drains($standby, 'source', 'b', $ready[1] - 10 - 5, 'promoted: and not what it had claimed');

# ---- pg_upgrade, here to the same version

{
	my $upgraded = background_node('upgraded', stopped => 1, conf => $CONF);
	my $bindir = $standby->config_data('--bindir');

	query($standby, "SELECT fill('a', 100)", 'source');
	query($standby, "SELECT count(*) FROM qml_fetch('w', 'a', 3)", 'source');
	end_sessions($standby);
	$standby->stop;
	run_ok('pg_upgrade', 'pg_upgrade', '--no-sync', '-b', $bindir, '-B', $bindir, '-d', $standby->data_dir,
		'-D', $upgraded->data_dir, '-s', $upgraded->host, '-p', $standby->port, '-P', $upgraded->port);
	$upgraded->start;
	query($upgraded, 'SELECT qml_adopt()', 'source');
	# An adoption reclaims what was claimed in the original.
	my $count = query($upgraded, "SELECT count(*) FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id WHERE q.name = 'a' AND l.state = 'enqueued'", 'source');
	cmp_ok($count, '>=', 100, "upgraded: $count jobs are ready");
	drains($upgraded, 'source', 'a', $count, 'upgraded: they are given');
	query($upgraded, "SELECT fill('a', 10)", 'source');
	drains($upgraded, 'source', 'a', 10, 'upgraded: and new ones');
	$upgraded->stop;
}

done_testing();
