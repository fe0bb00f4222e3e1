# After a snapshot was held for long, indexes of jobs have pages that are of no use any more, and keep
# them.  REINDEX INDEX CONCURRENTLY gives them back while jobs are made, fetched and finished:
# nothing fails, and nothing is lost.

use strict;
use warnings;

use FindBin;
use IPC::Run ();
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;

my $JOBS = 20_000;
my $ROUNDS = 6;
my $SECONDS = 8;

my $node = new_node('indexes_rebuilt', conf => <<'CONF');
shared_preload_libraries = 'qml'
autovacuum = off
CONF

query($node, <<'SQL');
SELECT qml_create_queue('q');
SELECT qml_create_queue('unlogged', '{"storage": "unlogged"}');
CREATE PROCEDURE work(queue text, jobs int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[jobs]), work.queue);
	PERFORM qml_enqueue('m', queue => work.queue, delay => '1 ms');
	COMMIT;
	PERFORM qml_succeed_many(array_agg(id), array_agg(attempt)) FROM qml_fetch('w', work.queue, 2 * jobs) HAVING count(*) > 0;
END $$;
SQL

# Jobs go through while a snapshot sees all that is left of them.
my $old = new_session($node, 'postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qml.live');
query($node, "CALL work('q', 1000)") foreach 1 .. $JOBS / 1000;
$old->query_safe('COMMIT');
$old->quit;
query($node, 'VACUUM qml.live');

my @indexes = split /\n/, query($node, <<'SQL');
SELECT indexrelid::regclass FROM pg_index
WHERE indrelid IN ('qml.live'::regclass, 'qml.live_unlogged'::regclass)
	OR indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent IN ('qml.history'::regclass, 'qml.history_unlogged'::regclass))
ORDER BY 1
SQL
cmp_ok(@indexes, '>', 8, 'there are indexes of both classes, and of the history: ' . scalar @indexes);
sub rebuild { return map { ('-c', "REINDEX INDEX CONCURRENTLY $_") } @indexes }
my @psql = ('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'));
my $size = 'SELECT pg_relation_size(\'qml.live_pkey\') + pg_relation_size(\'qml.live_ready\')';
my $before = query($node, $size);
command_ok([ @psql, rebuild() ], 'each is built anew');
my $after = query($node, $size);
cmp_ok($after, '<', $before / 4, "the indexes of unfinished jobs take $after bytes, before it $before");

# All of them over and over, as a client of its own; and the load.
my $output = '';
my $rebuilding = IPC::Run::start([ @psql, (rebuild()) x $ROUNDS ], '>&', \$output);
$node->pgbench("--no-vacuum --client=6 --jobs=2 --time=$SECONDS", 0,
	[qr/number of transactions actually processed: [1-9]/], [qr/^(?!.*(ERROR|aborted))/s],
	'jobs go through while indexes are built anew',
	{
		'190_logged@3' => "CALL work('q', 5);\n",
		'190_unlogged@1' => "CALL work('unlogged', 5);\n"
	});
$rebuilding->finish;
is($rebuilding->full_result(0), 0, "each index was built anew $ROUNDS times") or diag($output);
is(query($node, 'SELECT count(*) FROM pg_index WHERE NOT indisvalid'), 0, 'each index is valid');

# Whatever is left is found by a fetch, and each job was made and finished once.
wait_for('the delayed jobs to be ready', sub { query($node, "SELECT NOT EXISTS (SELECT FROM qml.job WHERE state = 'scheduled')") eq 't' });
foreach my $queue ('q', 'unlogged')
{
	my $left = query($node, "SELECT count(*) FROM qml.job WHERE queue = '$queue' AND state = 'enqueued'");
	my $fetched = 0;
	while (my $now = query($node, "SELECT count(*) FROM qml_fetch('w', '$queue', 10000)")) { $fetched += $now }
	is($fetched, $left, "$queue: all $left jobs that are left are fetched");
}
is(query($node, 'SELECT count(*) FROM qml.job GROUP BY id HAVING count(*) > 1'), '', 'no job is there twice');

end_sessions($node);
done_testing();
