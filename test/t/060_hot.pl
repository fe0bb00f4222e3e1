# What keeps the queue fast, by counters and not by time: claims are HOT
# updates, a fetch touches few pages however many jobs are ready, a batch is
# never exceeded, and neither subtransactions nor multixacts pile up.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;

my $JOBS = 200_000;
my $MOST_BUFFERS = 50;

my $node = new_node('hot', conf => <<'CONF');
autovacuum = off
shared_buffers = 256MB
CONF

# One row of counters of qml.live: all updates, and the HOT ones among them.
sub updates
{
	my $row = query($node, <<'SQL');
SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'qml.live'::regclass
SQL
	return split /\|/, $row;
}

# Runs the SQL in a session that reports its counters before it ends; returns
# how many updates it made, and the share of HOT ones.
sub updates_by
{
	my ($sql) = @_;
	my @before = updates();

	query($node, "$sql; SELECT pg_stat_force_next_flush(); SELECT 1");
	my @after = updates();
	my $updates = $after[0] - $before[0];
	return ($updates, $updates ? ($after[1] - $before[1]) / $updates : 0);
}

query($node, "SELECT qml_enqueue_many('m', array_fill('{\"n\": 1}'::jsonb, ARRAY[1000]), 'warm')");
my ($claims, $hot) =
  updates_by("SELECT count(*) FROM generate_series(1, 100) n, qml_fetch('w', '{warm}', 10 + n * 0)");
is($claims, 1000, 'a thousand jobs were claimed');
cmp_ok($hot, '>=', 0.9, "claims are HOT updates ($hot)");
(my $beats, $hot) = updates_by(<<'SQL');
SELECT count(qml_heartbeat(id, attempt)) FROM (SELECT id, attempt FROM qml.live LIMIT 300) j
SQL
is($beats, 300, 'three hundred heartbeats were made');
cmp_ok($hot, '>=', 0.9, "heartbeats are HOT updates ($hot)");
is(query($node, <<'SQL'), 1000, 'all are done');
SELECT count(*) FROM (SELECT array_agg(id) AS ids, array_agg(attempt) AS attempts FROM qml.live) j,
	qml_succeed_many(ids, attempts)
SQL

# Three queues full of jobs, which nobody has analyzed.
query($node, "SELECT qml_enqueue_many('m', array_fill('{\"n\": 1}'::jsonb, ARRAY[20000]), q, n % 5)"
	  . " FROM generate_series(1, $JOBS / 20000) n, unnest(ARRAY[(ARRAY['a', 'b', 'c'])[1 + n % 3]]) q");
is( query($node, "SELECT count(*) FROM pg_stat_user_tables WHERE schemaname = 'qml'"
		. " AND (last_analyze IS NOT NULL OR last_autoanalyze IS NOT NULL)"),
	0, 'nothing was ever analyzed');
is(query($node, 'SELECT count(*) FROM qml.live'), $JOBS, "$JOBS jobs are ready");

# The pages that one fetch touches, in a session that has fetched before.
sub buffers
{
	my ($queues) = @_;
	my $fetch = "SELECT * FROM qml_fetch('w', $queues)";
	my $plan = json(query($node, <<"SQL"));
\\o /dev/null
$fetch;
$fetch;
\\o
EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) $fetch
SQL
	my $top = $plan->[0]{Plan};
	is($top->{'Actual Rows'}, 1, "a job from $queues");
	return $top->{'Shared Hit Blocks'} + $top->{'Shared Read Blocks'};
}

foreach my $queues ("'{a}'", "'{a,b}'", "'{nosuch,c}'", 'NULL')
{
	my $buffers = buffers($queues);
	cmp_ok($buffers, '<=', $MOST_BUFFERS, "a fetch from $queues touches $buffers pages");
}

# Four clients fetch batches of random size; the keys of the table tell whether
# a job is given out twice.
query($node, <<'SQL');
CREATE SEQUENCE fetch_number;
CREATE TABLE claimed (
	id uuid, attempt int, number bigint, asked int, PRIMARY KEY (id, attempt));
SQL
$node->pgbench(
	'--no-vacuum --client=4 --transactions=500', 0,
	[qr/processed: 2000\/2000/], [qr/^$/],
	'two thousand fetches of random size',
	{
		'060_fetch' => q(
\set asked random(1, 30)
WITH f AS MATERIALIZED (SELECT nextval('fetch_number') AS number)
INSERT INTO claimed
SELECT j.id, j.attempt, f.number, :asked FROM f, qml_fetch('w', NULL, :asked) j;
)
	});
is( query($node, 'SELECT count(*) FROM (SELECT FROM claimed GROUP BY number, asked HAVING count(*) > asked) x'),
	0, 'no batch was exceeded');
is( query($node, 'SELECT count(*) FROM (SELECT FROM claimed GROUP BY number, asked HAVING count(*) < asked) x'),
	0, 'and every one was filled');
is(query($node, <<'SQL'), 't', 'what was given out is what is in work');
SELECT count(*) = (SELECT count(*) FROM claimed) + 12
	AND count(*) FILTER (WHERE attempt > 1) = 0
FROM qml.live WHERE state = 'processing'
SQL

# Subtransactions: none of qml's own, and none that has to be looked up again.
sub subtrans
{
	return query($node, "SELECT blks_read, blks_hit FROM pg_stat_slru WHERE name = 'Subtrans'");
}

sub xids_used_by
{
	my ($sql) = @_;
	my ($before, $after) = split /\n/,
	  query($node, <<"SQL");
SELECT pg_snapshot_xmax(pg_current_snapshot());
\\o /dev/null
$sql;
\\o
SELECT pg_snapshot_xmax(pg_current_snapshot());
SQL
	return $after - $before;
}

my $before = subtrans();
query($node, <<'SQL');
DO $$
BEGIN
	FOR n IN 1 .. 10000 LOOP
		PERFORM qml_enqueue('sub', queue => 'sub');
	END LOOP;
END $$
SQL
is(subtrans(), $before, 'ten thousand enqueues make no subtransaction');
my ($reads) = split /\|/, subtrans();
query($node, <<'SQL');
DO $$
BEGIN
	FOR n IN 1 .. 10000 LOOP
		BEGIN
			PERFORM qml_enqueue('sub', queue => 'sub');
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END $$
SQL
is((split /\|/, subtrans())[0], $reads, 'those of a caller are not read back');
is(xids_used_by("SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1000]), 'x')"),
	1, 'a thousand jobs enqueued use one transaction id');
is(xids_used_by("SELECT * FROM qml_fetch('w', '{x}', 1000)"),
	1, 'so does fetching them');
is( xids_used_by(
		"SELECT qml_succeed_many(array_agg(id), array_agg(attempt)) FROM qml.live WHERE worker = 'w'"
		  . " AND queue_id = (SELECT id FROM qml.queue_data WHERE name = 'x')"),
	1, 'so does finishing them');
is(xids_used_by("SELECT * FROM qml_fetch('w', '{x}', 1000)"),
	0, 'fetching from an empty queue uses none');
query($node, 'DELETE FROM qml.live');

# Multixacts: eight clients on the same few queues make none.
sub multixacts
{
	query($node, 'CHECKPOINT');
	return query($node, 'SELECT next_multixact_id, next_multi_offset FROM pg_control_checkpoint()');
}

my $multixacts = multixacts();
my $logs = make_log_dir();
finish_clients('the producers end',
	map { start_client($node, 'produce', $logs, '--jobs', 1500, '--queues', 'a,b', '--transaction', 0.2) } 1, 2);
finish_clients(
	'the workers end',
	map {
		start_client(
			$node, 'work', $logs, '--drain',
			'--batch', 1 + $_ % 4,
			'--fail', 0.1,
			'--release', 0.1,
			'--retry-ms', 10,
			'--heartbeat', 0.3,
			$_ == 1 ? ('--maintain-ms', 50) : ())
	} 1 .. 8);
is(multixacts(), $multixacts, 'no multixact was made');

done_testing();
