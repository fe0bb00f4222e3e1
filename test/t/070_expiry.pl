# Finished jobs expire: unseen at once, gone by partition, and a job that is
# retried out of the history goes on living.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlTest;
use Test::More;

my $EXPIRED = 1_000_000;

avoid_midnight();

my $node = new_node('expiry', conf => <<'CONF');
autovacuum = off
shared_buffers = 256MB
CONF

# A million jobs that have expired.
my $leaf = expired_leaf($node, 3, $EXPIRED);
my $path = query($node, "SELECT pg_relation_filepath('qml.$leaf')");
is(query($node, 'SELECT count(*) FROM qml.job'), 0, 'expired jobs are not seen');
is(query($node, 'SELECT sum(count) FROM qml_counts()'), 0, 'nor counted');
is(query($node, "SELECT count(*) FROM (SELECT id FROM qml.$leaf LIMIT 1) l, qml_job(l.id)"), 0, 'nor found');
fails_with($node, 'QM001', "SELECT qml_retry(id) FROM qml.$leaf LIMIT 1", 'nor retried');

# They are not counted, but for the first pages.  On a machine that is busy with something
# else even that takes long; a part of what reading all of them takes is allowed instead.
my ($start, undef, $before, $removed, $after) = split /\n/, query($node, <<"SQL");
SELECT extract(epoch FROM clock_timestamp());
SELECT count(*) FROM qml.$leaf;
SELECT extract(epoch FROM clock_timestamp());
SELECT qml_cleanup();
SELECT extract(epoch FROM clock_timestamp());
SQL
my ($reading, $cleaning) = ($before - $start, $after - $before);
my $allowed = $reading > 0.5 ? $reading : 0.5;
cmp_ok(abs($removed - $EXPIRED), '<', $EXPIRED / 50, "cleaning up removes them, about $removed");
cmp_ok($cleaning, '<', $allowed,
	sprintf 'sooner than they could be read (%.2f s; reading them takes %.2f s)', $cleaning, $reading);
is(query($node, "SELECT to_regclass('qml.$leaf') IS NULL"), 't', 'their partition is gone');
is(query($node, <<'SQL'), 0, 'no dead rows are left');
SELECT coalesce(sum(pg_stat_get_dead_tuples(c.oid)), 0) FROM pg_class c
WHERE c.relnamespace = 'qml'::regnamespace AND c.relname LIKE 'history%'
SQL
query($node, 'CHECKPOINT');
ok(!-e $node->data_dir . "/$path" || -z $node->data_dir . "/$path", 'nor is their file');
is(query($node, 'SELECT qml_cleanup()'), 0, 'there is nothing more to clean up');

# Several partitions at once; what is not expired stays.
expired_leaf($node, $_, 10) foreach 0, 1, 2;
query($node, "SELECT qml_succeed(id, attempt) FROM (SELECT qml_enqueue('m')) e, qml_fetch() j");
is(query($node, 'SELECT qml_cleanup()'), 30, 'three partitions go at once');
is(query($node, "SELECT count(*) FROM qml.job WHERE state = 'succeeded'"),
	1, 'the job that is not expired stays');

# A reader of the history holds up nothing: the partition goes later.
expired_leaf($node, 0, 10);
{
	my $reader = new_session($node);
	$reader->query_safe('BEGIN; SELECT count(*) FROM qml.history');
	is(query($node, "SET statement_timeout = '5 s'; SELECT qml_cleanup()"),
		0, 'a partition that is read is left, and not waited for');
	$reader->query_safe('COMMIT');
	is(query($node, 'SELECT qml_cleanup()'), 10, 'and goes the next time');

	# a session that knows the history from before
	expired_leaf($node, 0, 10);
	$reader->query_safe("SELECT qml_succeed(id, attempt) FROM (SELECT qml_enqueue('m')) e, qml_fetch() j");
	is(query($node, "SET statement_timeout = '5 s'; SELECT qml_cleanup()"),
		10, 'an idle session is in nobody\'s way');
	is($reader->query_safe('SELECT count(*) FROM qml.job'), 2, 'and goes on well');
	$reader->quit;
}

# Not kept at all.
query($node, <<'SQL');
SELECT qml_create_queue('gone', '{"succeeded_ttl": "0", "failed_ttl": "0"}');
SELECT qml_enqueue('m', queue => 'gone') FROM generate_series(1, 3);
SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{gone}');
SELECT qml_fail(id, attempt, 'x', retry => false) FROM qml_fetch('w', '{gone}');
SELECT qml_delete(id) FROM qml.job WHERE queue = 'gone';
SQL
is(query($node, "SELECT count(*) FROM qml.job WHERE queue = 'gone'"), 0, 'a TTL of 0 keeps nothing');
is( query($node, "SELECT count(*) FROM qml.history h, qml.queue_data q WHERE q.id = h.queue_id AND q.name = 'gone'"),
	0, 'not even a row');

# Unseen as soon as the time is over, though the partition is still there.
query($node, <<'SQL');
SELECT qml_create_queue('brief', '{"succeeded_ttl": "300 ms", "failed_ttl": "300 ms"}');
SELECT qml_enqueue('m', queue => 'brief') FROM generate_series(1, 2);
SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{brief}');
SELECT qml_fail(id, attempt, 'x', retry => false) FROM qml_fetch('w', '{brief}');
SQL
ok( $node->poll_query_until('postgres', <<'SQL'),
SELECT bool_and(expires_at <= clock_timestamp()) FROM qml.history h, qml.queue_data q
WHERE q.id = h.queue_id AND q.name = 'brief'
SQL
	'a brief time is over');
is(query($node, "SELECT count(*) FROM qml.job WHERE queue = 'brief'"), 0, 'the jobs are unseen at once');
is(query($node, "SELECT count(*) FROM qml_queue_counts() WHERE queue = 'brief'"), 0, 'and not counted');
fails_with($node, 'QM001', <<'SQL', 'a failed job cannot be retried after its time');
SELECT qml_retry(h.id) FROM qml.history h, qml.queue_data q
WHERE q.id = h.queue_id AND q.name = 'brief' AND h.state = 'failed'
SQL

# Failed jobs are retried while others clean up: each goes on living, once.
query($node, <<'SQL');
SELECT qml_create_queue('retry', '{"max_retries": 0}');
SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[2000]), 'retry');
SELECT count(qml_fail(id, attempt, 'x')) FROM qml_fetch('w', '{retry}', 2000);
CREATE TABLE failed AS SELECT id, row_number() OVER () AS n FROM qml.job WHERE queue = 'retry';
CREATE SEQUENCE next_failed;
SQL
$node->pgbench(
	'--no-vacuum --client=4 --transactions=500', 0,
	[qr/processed: 2000\/2000/], [qr/^$/],
	'retrying beside cleaning up',
	{
		'070_retry@9' => q(
SELECT qml_retry(id) FROM failed WHERE n = (SELECT nextval('next_failed'));
),
		'070_cleanup@1' => q(
SELECT qml_cleanup();
)
	});
query($node, 'SELECT qml_retry(f.id) FROM failed f JOIN qml.job j USING (id) WHERE j.state = $$failed$$');
is(query($node, <<'SQL'), '2000|2000|0', 'each retried job is there once, enqueued again');
SELECT count(*), count(DISTINCT id), (SELECT count(*) FROM qml.history JOIN failed USING (id))
FROM qml.live WHERE id IN (SELECT id FROM failed) AND state = 'enqueued'
SQL

# A partition ends in the middle of a retry out of it that began in time.  The
# day is cut in two for it, so that this need not wait for midnight.  All goes to the
# server at once; where it takes a slow machine too long, the job expires behind the
# cut, or before the retry, and the day is cut later.
my ($retrier, $edge, $retried, $id, $in_first);
foreach my $span (1, 2, 4, 8)
{
	$edge = "edge$span";
	query($node, "CREATE DATABASE $edge");
	query($node, 'CREATE EXTENSION qml', $edge);
	$retrier = new_session($node, $edge, on_error_stop => 0);
	($retried, $id) = split /\n/, $retrier->query(<<"SQL");
SELECT format('CREATE TABLE qml.%1\$s (LIKE qml.history INCLUDING CONSTRAINTS); CREATE INDEX ON qml.%1\$s (id);'
	'ALTER TABLE qml.history ATTACH PARTITION qml.%1\$s FOR VALUES FROM (%2\$L) TO (%3\$L)',
	name, lower, upper)
FROM (SELECT now() + $span * interval '5 s' AS edge, date_trunc('day', now(), 'UTC') AS day) t,
	LATERAL (VALUES ('first', day, edge), ('second', edge, day + '1 day')) p (name, lower, upper)
\\gexec
SELECT qml_create_queue('edge', '{"failed_ttl": "@{[ 3 * $span ]} s"}') \\g /dev/null
SELECT qml_enqueue('m', queue => 'edge') AS id \\gset
SELECT qml_fail(id, attempt, 'x', retry => false) FROM qml_fetch() \\g /dev/null
BEGIN;
SELECT qml_retry(:'id');
SELECT :'id';
SQL
	$in_first = ask($node, 'SELECT count(*) FROM qml.first', $edge);
	last if ($retried // '') eq 't' && $in_first == 1;
	note("the machine is slow: a retry in time takes longer than $span s");
	$retrier->quit;
}
{
	is($retried, 't', 'a retry begins in time');
	is($in_first, 1, 'out of the partition that ends');
	ok($node->poll_query_until($edge, <<'SQL'), 'the partition has ended');
SELECT now() > substring(pg_get_expr(relpartbound, oid) FROM $$TO \('(.*)'\)$$)::timestamptz
FROM pg_class WHERE oid = 'qml.first'::regclass
SQL
	is(ask($node, "SET statement_timeout = '5 s'; SELECT qml_cleanup()", $edge),
		0, 'cleaning up does not wait for the retry');
	is(ask($node, "SELECT to_regclass('qml.first') IS NULL", $edge), 'f', 'and leaves the partition');
	$retrier->query_safe('COMMIT');
	is(ask($node, 'SELECT qml_cleanup()', $edge), 0, 'the next one');
	is(ask($node, "SELECT to_regclass('qml.first') IS NULL", $edge), 't', 'drops it');
	is(ask($node, "SELECT state FROM qml.job WHERE id = '$id'", $edge), 'enqueued', 'the job lives');
	$retrier->quit;
	end_sessions($node);
}

done_testing();
