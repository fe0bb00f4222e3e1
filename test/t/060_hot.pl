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
my $MOST_DUE_PAGES = 8;
my $MOST_WAL = 200;

my $node = new_node('hot', conf => <<'CONF');
autovacuum = off
full_page_writes = off
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

# Failed attempts: each writes an entry of live_due, and its promotion one of live_ready.
# The entries of dead versions are removed as new ones come, without a vacuum.
sub pages
{
	my ($index) = @_;
	return query($node, "SELECT pg_relation_size('qml.$index') / current_setting('block_size')::int");
}

my $ROUNDS = 40;
query($node, "SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1000]), 'failing', max_retries => 1000)");
query($node, <<'SQL' x $ROUNDS);
SELECT count(qml_fail(id, attempt, 'x', retry_at => now())) FROM qml_fetch('w', '{failing}', 1000);
SELECT qml_promote_due(1000);
SQL
is(query($node, "SELECT min(attempt) = $ROUNDS AND max(attempt) = $ROUNDS FROM qml.live"),
	't', "a thousand jobs failed $ROUNDS times");
cmp_ok(pages('live_due'), '<=', $MOST_DUE_PAGES, 'live_due stays small (' . pages('live_due') . ' pages)');
note("live_ready has ", pages('live_ready'), " pages, live_pkey ", pages('live_pkey'));
query($node, 'DELETE FROM qml.live');

# The WAL of a claim holds neither the columns before those that it changes nor those after.
sub wal_of_a_claim
{
	my ($queue) = @_;
	my ($before, $count, $after) = split /\n/, query($node, <<"SQL");
SELECT pg_current_wal_insert_lsn() - '0/0';
SELECT count(*) FROM qml_fetch('w', '{$queue}', 1000);
SELECT pg_current_wal_insert_lsn() - '0/0';
SQL
	is($count, 1000, "a thousand jobs of $queue are claimed");
	return ($after - $before) / 1000;
}

query($node, <<'SQL');
SELECT count(*) FROM qml_enqueue_many('m', array_fill(to_jsonb(repeat('x', 500)), ARRAY[1000]), 'now', job_type => repeat('t', 50));
SELECT count(*) FROM qml_enqueue_many('m', array_fill(to_jsonb(repeat('x', 500)), ARRAY[1000]), 'later', job_type => repeat('t', 50),
	run_at => now() + interval '1 d');
UPDATE qml.live SET run_at = now() WHERE run_at IS NOT NULL;
SELECT qml_promote_due(1000);
SQL
is(query($node, 'SELECT count(ready_at) FROM qml.live'), 1000, 'since when a job waits is stored for those that were delayed');
my $wal = wal_of_a_claim('now');
my $wal_delayed = wal_of_a_claim('later');
cmp_ok($wal, '<=', $MOST_WAL, "a claim writes $wal bytes of WAL");
cmp_ok($wal_delayed, '<=', $wal + 16, "that of a job that was delayed $wal_delayed");
query($node, 'DELETE FROM qml.live');

# Columns that a later version adds cost nothing while they are NULL: no byte of a row, and none of
# the WAL of a job, from its beginning to its end.
sub cost_of_a_job
{
	query($node, 'TRUNCATE qml.live, qml.history; CHECKPOINT');
	my $before = query($node, "SELECT pg_current_wal_insert_lsn() - '0/0'");
	query($node, "SELECT qml_enqueue_many('m', array_fill('{\"n\": 1}'::jsonb, ARRAY[5000]), 'wide')");
	my $live = query($node, 'SELECT avg(pg_column_size(l)) FROM qml.live l');
	query($node, <<'SQL') foreach 1 .. 50;
SELECT count(*) FROM (SELECT array_agg(id) AS ids, array_agg(attempt) AS attempts FROM qml_fetch('w', '{wide}', 100)) j,
	qml_succeed_many(ids, attempts)
SQL
	my $wal = (query($node, "SELECT pg_current_wal_insert_lsn() - '0/0'") - $before) / 5000;
	my $finished = query($node, <<'SQL');
SELECT count(*), avg(pg_column_size(h)) FROM qml.history h WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'wide')
SQL
	return ($live, $wal, split /\|/, $finished);
}

cost_of_a_job(); # the partitions are there from now on
my ($live, $wal_of_job, $count, $kept) = cost_of_a_job();
is($count, 5000, 'five thousand jobs are done');
query($node, "ALTER TABLE qml.$_ ADD pass bigint, ADD flags int, ADD batch uuid, ADD start_before timestamptz,"
	  . ' ADD limit_key text, ADD fair_key text, ADD unique_key text')
  foreach qw(live history history_overflow);
cost_of_a_job();
my ($wide_live, $wide_wal, $wide_count, $wide_kept) = cost_of_a_job();
is($wide_count, 5000, 'and five thousand with seven columns more');
is($wide_live, $live, "a row of qml.live has $live bytes all the same");
is($wide_kept, $kept, "a row of the history has $kept");
cmp_ok(abs($wide_wal - $wal_of_job), '<', 1, "a job writes $wide_wal bytes of WAL, $wal_of_job without them");
query($node, "ALTER TABLE qml.$_ DROP pass, DROP flags, DROP batch, DROP start_before, DROP limit_key, DROP fair_key, DROP unique_key")
  foreach qw(live history history_overflow);
query($node, 'TRUNCATE qml.live, qml.history');

# A large payload is compressed once: it moves to the history and back as it is, whatever
# the session that moves it would compress with.
SKIP:
{
	skip 'no lz4', 3
	  unless query($node, "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'") eq 't';
	my $compression = "SELECT DISTINCT pg_column_compression(payload) FROM qml.%s WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'large')";

	query($node, <<'SQL');
SELECT count(*) FROM qml_enqueue_many('m', ARRAY[to_jsonb(repeat('abcd', 1000)),
	(SELECT jsonb_agg(md5(i::text) || repeat('x', 40)) FROM generate_series(1, 300) i)], 'large');
SQL
	is(query($node, sprintf $compression, 'live'), 'pglz', 'payloads are compressed, in the row and outside');
	query($node, "SET default_toast_compression = lz4; SELECT qml_fail(id, attempt, 'e', retry => false) FROM qml_fetch('w', '{large}', 2)");
	is(query($node, sprintf $compression, 'history'), 'pglz', 'they move to the history as they are');
	query($node, "SET default_toast_compression = lz4; SELECT qml_retry(id) FROM qml.job WHERE queue = 'large'");
	is(query($node, sprintf $compression, 'live'), 'pglz', 'and back');
	query($node, 'DELETE FROM qml.live');
}

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
	my ($queues, $before) = @_;
	my $fetch = "SELECT * FROM qml_fetch('w', $queues)";
	my $other = "SELECT * FROM qml_fetch('w', @{[ $before // $queues ]})";
	my $plan = json(query($node, <<"SQL"));
\\o /dev/null
$other;
$other;
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

# Dropping a queue, while those who add jobs to it wait: what is read does not depend on how
# many jobs of other queues are ready, and jobs that wait for a time are read once, before.
sub drop_buffers
{
	my $plan = json(query($node, <<'SQL'));
SELECT qml_create_queue('dropped') \g /dev/null
SELECT qml_drop_queue('dropped') \g /dev/null
SELECT qml_create_queue('dropped') \g /dev/null
EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT qml_drop_queue('dropped')
SQL
	my $top = $plan->[0]{Plan};
	return $top->{'Shared Hit Blocks'} + $top->{'Shared Read Blocks'};
}

my $ready = drop_buffers();
cmp_ok($ready, '<', 300, "to drop a queue beside $JOBS ready jobs touches $ready pages");
query($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('{\"n\": 1}'::jsonb, ARRAY[30000]), 'later', run_at => now() + interval '1 day')");
query($node, 'VACUUM qml.live');
my $later = query($node, 'SELECT count(DISTINCT (ctid::text::point)[0]) FROM qml.live WHERE run_at IS NOT NULL');
my $due = pages('live_due');
my $waiting = drop_buffers();
cmp_ok($waiting, '<', $ready + 1.2 * $later + 2.2 * $due, "with jobs that wait for a time on $later pages, $waiting, which is once");
fails_with($node, '55006', "SELECT qml_drop_queue('$_')", "a queue with jobs is not dropped: $_") foreach qw(a later);
query($node, "DELETE FROM qml.live WHERE run_at IS NOT NULL");

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

# A vacuum removes the entries of finished jobs from the indexes, however few pages had
# any: the first fetch after it must not step over them.
query($node, "SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[8000]), 'v')");
query($node, "SELECT count(*) FROM qml_fetch('vac', '{v}', 3000)");
is(query($node, <<'SQL'), 't', 'less than 2 % of the pages will have dead rows');
SELECT pg_relation_size('qml.live') / current_setting('block_size')::int > 50 * count(DISTINCT (ctid::text::point)[0])
FROM qml.live WHERE worker = 'vac'
SQL
query($node, <<'SQL');
SELECT count(*) FROM (SELECT array_agg(id) AS ids, array_agg(attempt) AS attempts FROM qml.live WHERE worker = 'vac') j,
	qml_succeed_many(ids, attempts)
SQL
query($node, 'VACUUM qml.live');
my $vacuumed = buffers("'{v}'", "'{a}'");
cmp_ok($vacuumed, '<=', $MOST_BUFFERS, "a fetch after a vacuum touches $vacuumed pages");
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
