# Statistics stay within their bounds: with more queues and methods than there are series, under a
# snapshot that is held, and where qml is not preloaded.  Rights: who monitors a queue sees that.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my ($QUEUES, $METHODS, $JOBS) = (20_000, 1000, 60_000);

seed();
my $node = background_node('bounds', variant => 'faults', conf => <<'CONF');
autovacuum = off
fsync = off
shared_buffers = 256MB
max_locks_per_transaction = 1000
qml.workers = 0
qml.faults = 'stats.minute_s:limit:2,stats.idle_s:limit:4'
CONF

# ---- 20,000 queues and 1,000 methods

sub rss
{
	my ($pid) = @_;
	return slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m ? $1 : 0;
}

for (my $first = 1; $first <= $QUEUES; $first += 1000)
{
	query($node, "SELECT count(qml_create_queue('n' || n)) FROM generate_series($first, $first + 999) n");
}
my $session = new_session($node);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $enqueue = sub {
	my ($from, $to) = @_;
	$session->query_safe(<<"SQL");
SELECT count(qml_enqueue('method' || i * 7919 % $METHODS, queue => 'n' || 1 + i::bigint * 104729 % $QUEUES))
FROM generate_series($from, $to) i
SQL
};
$enqueue->(1, $JOBS / 3);
my $memory = rss($pid);
$enqueue->($JOBS / 3 + 1, $JOBS);
cmp_ok(rss($pid), '<', $memory + 20_000, 'the memory of a session is bounded');
$session->quit;
is(query($node, q{SELECT sum(enqueued) FROM qml_stats() WHERE method IS NULL}), $JOBS, "all $JOBS jobs are counted");
is(query($node, q{SELECT count(*) FROM qml_stats() WHERE method IS NOT NULL}), 1000, 'in 1,000 series');
my $others = query($node, q{SELECT enqueued FROM qml_stats() WHERE queue IS NULL});
cmp_ok($others, '>', $JOBS / 2, 'and all others in one');
my $metrics = query($node, 'SELECT qml_metrics()');
is(scalar(() = $metrics =~ /^qml_jobs_enqueued_total\{/mg), 1001, 'metrics are bounded: series');
is(scalar(() = $metrics =~ /^qml_jobs\{.*state="enqueued"/mg), 1001, 'and queues');
like($metrics, qr/^qml_jobs_enqueued_total\{queue="",method=""\} $others$/m, 'the others have empty labels');
my $sum = 0;
$sum += $1 while $metrics =~ /^qml_jobs\{.*state="enqueued"\} (\d+)$/mg;
is($sum, $JOBS, 'no job is missing');
wait_for('it to be stored', sub { return query($node, q{SELECT coalesce(sum(enqueued), 0) FROM qml.stats_minute}) == $JOBS; });
cmp_ok(query($node, q{SELECT count(*) FROM qml.stats_minute}), '<=', 10 * 1001, 'few rows were written');

# Those that are idle make room.
wait_for(
	'room',
	sub {
		query($node, q{SELECT qml_enqueue('fresh', queue => 'n1')});
		return query($node, q{SELECT coalesce(sum(enqueued), 0) FROM qml_stats('1 hour', 'n1', 'fresh')}) > 0;
	});
pass('series in which nothing happens make room for others');

# ---- a snapshot that is held

wait_for('it to be stored', sub { return query($node, q{SELECT count(*) FROM qml.stats_minute WHERE queue = 'n1' AND method = 'fresh'}) > 0; });
my $holder = new_session($node);
$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class');
# Rows of times that are over, as they would be there.
query($node, <<'SQL');
SELECT format('INSERT INTO qml.stats_%1$s SELECT to_timestamp(0), to_timestamp(60), %1$s, 1, %2$L, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, %3$L, %3$L FROM generate_series(1, 20000)',
	(floor(extract(epoch FROM now() - '2000-01-01 00:00+00') / 43200)::bigint + 1) % 4, 'old', '\x0001') \gexec
SELECT format('INSERT INTO qml.stats_%1$s SELECT to_timestamp(0), to_timestamp(600), %1$s, 1, %2$L, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, %3$L, %3$L FROM generate_series(1, 20000)',
	(floor(extract(epoch FROM now() - '2000-01-01 00:00+00') / 302400)::bigint + 1) % 4 + 4, 'old', '\x0001') \gexec
SQL
cmp_ok(query($node, q{SELECT count(*) FROM qml.stats_data WHERE method = 'old'}), '==', 40000, 'rows that are over');
is(query($node, q{SELECT count(*) FROM qml.stats_minute WHERE method = 'old'}), 0, 'nobody is shown them');
my $size = sub { return query($node, q{SELECT sum(pg_total_relation_size('qml.stats_' || i)) FROM generate_series(0, 7) i}); };
my $large = $size->();
wait_for('partitions to be emptied', sub { query($node, 'SELECT qml_cleanup()'); return query($node, q{SELECT count(*) FROM qml.stats_data WHERE method = 'old'}) == 0; });
cmp_ok($size->(), '<', $large / 2, 'they are emptied at once while a snapshot is held');
is(query($node, q{SELECT sum(pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid)) FROM pg_class c
	WHERE relnamespace = 'qml'::regnamespace AND relname ~ '^stats_\d$'}), 0, 'no row is changed or deleted');
$holder->query_safe('COMMIT');
$holder->quit;

# Marks are kept for thirty days.
query($node, q{SELECT qml_mark('now'); UPDATE qml.mark_data SET at = at - interval '31 days'; SELECT qml_mark('deploy 42')});
query($node, 'SELECT qml_cleanup()');
is(query($node, q{SELECT label, made_by = current_user, at > now() - interval '1 min' FROM qml.mark}), 'deploy 42|t|t', 'marks');

# ---- rights

query($node, <<'SQL');
CREATE ROLE nobody LOGIN;
CREATE ROLE one LOGIN;
CREATE ROLE every LOGIN;
CREATE ROLE worker LOGIN;
SELECT qml_grant('one', 'monitor', 'n1'), qml_grant('every', 'monitor'), qml_grant('worker', 'work'), qml_grant('nobody', 'enqueue', 'n1');
SQL
my %one = (extra_params => [ '-U', 'one' ]);
my $as = sub { my ($role, $sql) = @_; my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $role ]); return $out . $err; };
is($as->('one', q{SELECT string_agg(DISTINCT queue, ' ') FROM qml_stats()}), 'n1', 'who monitors one queue sees that');
is($as->('one', q{SELECT string_agg(DISTINCT queue, ' ') FROM qml.stats_minute}), 'n1', 'in the view, too');
is($as->('one', q{SELECT string_agg(DISTINCT m[1], ' ') FROM regexp_matches(qml_metrics(), 'queue="([^"]*)"', 'g') m}), 'n1', 'and in metrics');
is($as->('every', q{SELECT count(*) FROM qml_stats() WHERE queue IS NULL}), 1, 'who monitors all sees the others, too');
like($as->($_, 'SELECT count(*) FROM qml_stats()'), qr/permission denied/, "$_ may not ask") foreach qw(nobody worker);
like($as->($_, 'SELECT qml_metrics()'), qr/permission denied/, "$_ may not read metrics") foreach qw(nobody worker);
like($as->($_, 'SELECT * FROM qml.stats_minute'), qr/permission denied/, "$_ may not read the view") foreach qw(nobody worker);
like($as->($_, q{SELECT qml_mark('x')}), qr/permission denied/, "$_ may not make a mark") foreach qw(nobody worker one every);
is($as->('one', q{SELECT * FROM qml_stats('1 hour', 'n2')}) =~ s/n2//gr, $as->('one', q{SELECT * FROM qml_stats('1 hour', 'n2x')}) =~ s/n2x//gr,
	'a queue that one may not see is as one that is not there');
fails_with($node, 'QM006', q{SELECT * FROM qml_stats('1 hour', 'n2x')}, 'one that is not there');
fails_with($node, '22023', q{SELECT * FROM qml_stats('8 days')}, 'too long');
fails_with($node, '22023', q{SELECT * FROM qml_stats('0 s')}, 'too short');
fails_with($node, '22004', q{SELECT * FROM qml_stats(NULL)}, 'no time');
fails_with($node, '22023', q{SELECT qml_mark('')}, 'an empty mark');
fails_with($node, '22004', q{SELECT qml_mark(NULL)}, 'no mark');
fails_with($node, '22023', q{SELECT qml.stats_quantile('\x', 2)}, 'no quantile');
is(query($node, q{SELECT qml.stats_quantile('\xffff', 0.5) IS NULL, qml.stats_quantile('', 0.5) IS NULL, qml.stats_quantile('\x0a02', 0.5)}),
	't|t|00:00:00.007225', 'quantiles of bytes');

# ---- without statistics, and without preloading

$node->append_conf('postgresql.conf', 'qml.stats_series = 0');
$node->restart;
query($node, q{SELECT qml_enqueue('m', queue => 'n1')});
cmp_ok(query($node, q{SELECT enqueued FROM qml_stats('1 hour', 'n1') WHERE method IS NULL}), '>', 0, 'what was stored can be read while nothing is counted');
is(query($node, q{SELECT count(*) FROM qml_stats('1 hour', 'n1', 'm')}), 0, 'nothing is counted');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\nqml.stats_series = 1000");
$node->restart;
cmp_ok(query($node, q{SELECT depth FROM qml_stats('1 hour', 'n1') WHERE method IS NULL}), '>', 0, 'not preloaded: rows are counted');
my $text = query($node, 'SELECT qml_metrics()');
like($text, qr/^# HELP qml_jobs .*rows were counted/m, 'metrics say so');
like($text, qr/^qml_counts_from_memory 0$/m, 'also as a number');
unlike($text, qr/qml_jobs_enqueued_total/, 'and have no statistics');
is(query($node, q{SELECT count(*) > 0 FROM qml.stats_minute}), 't', 'the view has what was stored');

done_testing();
