# Statistics of jobs: what is counted is what happened, percentiles are in the bin of the exact
# ones, what was rolled back is not counted, and nothing is lost or counted twice while it is
# stored, over a restart, and in a crash but for what was not stored yet.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

# Seconds of what is a minute elsewhere.
my $MINUTE = 2;

seed();
my $node = background_node('statistics', variant => 'faults', init => { allows_streaming => 1 }, conf => <<"CONF");
autovacuum = off
max_prepared_transactions = 60
qml.workers = 0
qml.log_failures = off
qml.faults = 'stats.minute_s:limit:$MINUTE'
CONF

query($node, <<'SQL');
-- The bounds of the bins, in seconds; the number of that which has a duration.
CREATE FUNCTION bin(duration interval) RETURNS int LANGUAGE sql AS $$
	SELECT count(*)::int FROM (
		SELECT m * 10.0 ^ d AS bound FROM generate_series(-4, 5) d, unnest(ARRAY[1, 1.6, 2.5, 4, 6.3]) m
		ORDER BY 1 LIMIT 47) b
	WHERE round(b.bound, 6) < round(extract(epoch FROM $1), 6)
$$;
CREATE FUNCTION fill(queue text, jobs int, method text DEFAULT 'm') RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM qml_enqueue_many(method, array_fill('{}'::jsonb, ARRAY[jobs]), queue)
$$;
-- What was counted, but for what is 0.
CREATE FUNCTION counted(q text, m text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(key || ' ' || value, ', ' ORDER BY ordinality), 'nothing')
	FROM qml_stats('1 hour', q) s,
		json_each_text(row_to_json(s)) WITH ORDINALITY
	WHERE s.method IS NOT DISTINCT FROM m AND value <> '0'
		AND key IN ('enqueued', 'started', 'succeeded', 'failed', 'deleted', 'retried', 'released', 'lost')
$$;
SQL

sub counted { my ($queue, $method) = @_; return query($node, "SELECT counted('$queue'" . (defined $method ? ", '$method'" : '') . ')'); }

# Waits until all that was counted is stored: from then on, there are no rows to come.
sub all_stored
{
	my ($queue) = @_;
	wait_for(
		'everything to be stored',
		sub {
			return query($node, <<"SQL") eq 't';
SELECT (SELECT coalesce(sum(enqueued + started), 0) FROM qml.stats_minute WHERE queue = '$queue') =
	(SELECT coalesce(sum(enqueued + started), 0) FROM qml_stats('1 hour', '$queue') WHERE method IS NULL)
SQL
		});
	return;
}

# ---- what is counted

is(counted('default'), 'nothing', 'nothing is counted at first') if query($node, q{SELECT qml_create_queue('default')});
query($node, q{SELECT qml_create_queue('q', '{"retry": {"delay": "1 hour"}}')});
query($node, q{SELECT qml_enqueue('one', queue => 'q')});
is(counted('q'), 'enqueued 1', 'a job');
query($node, q{SELECT fill('q', 100, 'one')});
query($node, q{SELECT qml_enqueue('one', queue => 'q', delay => '1 hour') FROM generate_series(1, 10)});
is(counted('q'), 'enqueued 111', 'many at once, and scheduled ones');
is(counted('q', 'one'), 'enqueued 111', 'by method');

query($node, <<'SQL');
CREATE TABLE claim AS SELECT id, attempt, row_number() OVER () AS n FROM qml_fetch('w', 'q', 20);
SELECT qml_succeed(id, attempt) FROM claim WHERE n <= 3;
SELECT qml_succeed_many(array_agg(id), array_agg(attempt)) FROM claim WHERE n IN (4, 5);
SELECT qml_fail(id, attempt, 'oops') FROM claim WHERE n IN (6, 7);
SELECT qml_fail(id, attempt, 'oops', retry => false) FROM claim WHERE n = 8;
SELECT qml_release(id, attempt) FROM claim WHERE n IN (9, 10);
SELECT qml_discard(id, attempt) FROM claim WHERE n = 11;
SELECT qml_delete(id) FROM claim WHERE n = 12;
SELECT qml_delete(id) FROM qml.job WHERE state = 'scheduled' LIMIT 4;
SQL
is(counted('q'), 'enqueued 111, started 20, succeeded 5, failed 1, deleted 6, retried 2, released 2', 'each way to end');
query($node, q{SELECT qml_retry(id) FROM qml.job WHERE state IN ('failed', 'awaiting_retry')});
is(counted('q'), 'enqueued 111, started 20, succeeded 5, failed 1, deleted 6, retried 2, released 2',
	'a retry by hand is neither a new job nor an attempt');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE state = 'succeeded'});
is(counted('q'), 'enqueued 111, started 20, succeeded 5, failed 1, deleted 6, retried 2, released 2',
	'the deletion of a job that has ended is not counted');
query($node, q{SELECT qml_progress(id, attempt, '{"half": true}'), qml_heartbeat(id, attempt) FROM claim WHERE n = 13});
query($node, q{SELECT count(*) FROM qml_succeed_fetch((SELECT id FROM claim WHERE n = 13), (SELECT attempt FROM claim WHERE n = 13), queues => 'q')});
is(counted('q'), 'enqueued 111, started 21, succeeded 6, failed 1, deleted 6, retried 2, released 2', 'an end and a fetch at once');

query($node, q{SELECT fill('lost', 3); SELECT count(*) FROM qml_fetch('w', 'lost', 2, '1 ms')});
wait_for('lost jobs', sub { query($node, q{SELECT qml_reclaim()}); return counted('lost') =~ /lost 2/; });
is(counted('lost'), 'enqueued 3, started 2, retried 2, lost 2', 'attempts that are lost');
is(query($node, q{SELECT run_p50 IS NULL FROM qml_stats('1 hour', 'lost') WHERE method IS NULL}), 't', 'nobody knows how long they ran');
is(query($node, q{SELECT failure_rate FROM qml_stats('1 hour', 'lost') WHERE method IS NULL}), 1, 'the rate of failures');
is(query($node, q{SELECT round(failure_rate::numeric, 4) FROM qml_stats('1 hour', 'q') WHERE method IS NULL}), '0.3333',
	'3 of 9 attempts have failed');
is(query($node, q{SELECT depth, running, oldest_ready BETWEEN '0 s' AND '5 min' FROM qml_stats('1 hour', 'lost') WHERE method IS NULL}),
	'3|0|t', 'what is there now');
is(query($node, q{SELECT round((enqueue_rate * 3600)::numeric) BETWEEN 100 AND 111, finish_rate > 0 FROM qml_stats('1 hour', 'q') WHERE method IS NULL}),
	't|t', 'rates are by second');

# How long an attempt ran is known from whoever had the claim, not from others who end it.
query($node, q{SELECT fill('others', 4)});
query($node, q{CREATE TABLE others AS SELECT id, attempt, row_number() OVER () AS n FROM qml_fetch('w', 'others', 4)});
query($node, q{UPDATE qml.live SET started_at = started_at - interval '3 hours' WHERE id IN (SELECT id FROM others)});
query($node, q{SELECT qml_delete(id) FROM others WHERE n = 1; SELECT qml_cancel(id) FROM others WHERE n = 2; SELECT qml_set_state(id, 'failed') FROM others WHERE n = 3});
is(counted('others'), 'enqueued 4, started 4, failed 1, deleted 2', 'what others end is counted');
is(query($node, q{SELECT run_p50 FROM qml_stats('1 hour', 'others') WHERE method IS NULL}), '', 'but not as a run');
query($node, q{SELECT qml_discard(id, attempt) FROM others WHERE n = 4});
is(query($node, q{SELECT run_p50 > '2 hours' FROM qml_stats('1 hour', 'others') WHERE method IS NULL}), 't', 'what the worker discards is');

# ---- rolled back, subtransactions, prepared

query($node, q{SELECT qml_create_queue('x'); BEGIN; SELECT fill('x', 5); ROLLBACK});
is(counted('x'), 'nothing', 'what is rolled back is not counted');
my $open = new_session($node);
$open->query_safe(q{BEGIN; SELECT fill('x', 7)});
is(counted('x'), 'nothing', 'nor is what is not committed');
$open->query_safe('COMMIT');
is(counted('x'), 'enqueued 7', 'it is when it is committed');
$open->quit;
query($node, <<'SQL');
BEGIN;
SELECT fill('x', 1);
SAVEPOINT a;
SELECT fill('x', 10);
SAVEPOINT b;
SELECT fill('x', 100);
ROLLBACK TO b;
SELECT fill('x', 1000);
RELEASE a;
SAVEPOINT c;
SELECT fill('x', 10000);
ROLLBACK TO c;
COMMIT;
SQL
is(counted('x'), 'enqueued 1018', 'savepoints');
query($node, <<'SQL');
DO $$
BEGIN
	FOR i IN 1 .. 3000 LOOP
		BEGIN
			PERFORM qml_enqueue('m' || i % 700, queue => 'sub');
			IF i % 3 = 0 THEN
				RAISE EXCEPTION 'no';
			END IF;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
	END LOOP;
END $$;
SQL
is(counted('sub'), 'enqueued 2000', 'many subtransactions and methods in one transaction');
is(query($node, q{SELECT count(*), sum(enqueued) FROM qml_stats('1 hour', 'sub') WHERE method IS NOT NULL}),
	query($node, q{SELECT count(DISTINCT method), count(*) FROM qml.job WHERE queue = 'sub'}), 'each under its method');

query($node, q{BEGIN; SELECT fill('x', 2); PREPARE TRANSACTION 'a'});
query($node, q{BEGIN; SELECT fill('x', 4); PREPARE TRANSACTION 'b'});
is(counted('x'), 'enqueued 1018', 'what is prepared is not counted');
query($node, q{COMMIT PREPARED 'a'});
query($node, q{ROLLBACK PREPARED 'b'});
is(counted('x'), 'enqueued 1020', 'it is when it is committed, and not when it is rolled back');
query($node, q{BEGIN; SELECT fill('x', 1, 'y' || i) FROM generate_series(1, 50) i; PREPARE TRANSACTION 'c'});
query($node, q{COMMIT PREPARED 'c'});
is(counted('x'), 'enqueued 1052', 'of a prepared transaction there is room for 32 notes');
like(query($node, 'SELECT qml_metrics()'), qr/^qml_stats_missed_total 18$/m, 'and what found none is told');

# ---- percentiles

query($node, q{SELECT fill('slow', 900, 'a'), fill('slow', 100, 'b')});
# As if they had waited, and had run, for from 10 us to a week.
query($node, <<'SQL');
UPDATE qml.live SET created_at = created_at - 10 ^ (random() * 10.8) * interval '10 us'
WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'slow');
CREATE TABLE slow AS SELECT id, attempt FROM qml_fetch('w', 'slow', 1000);
UPDATE qml.live SET started_at = started_at - 10 ^ (random() * 10.8) * interval '10 us' WHERE id IN (SELECT id FROM slow);
CREATE TABLE waited AS SELECT j.id, j.method, f.started_at - j.ready_at AS wait FROM qml.job j JOIN qml.job f USING (id) WHERE j.queue = 'slow';
SQL
# The wait was counted before started_at was set back: by the claim.
query($node, q{SELECT qml_succeed_many(array_agg(id), array_agg(attempt)) FROM slow});
is(counted('slow'), 'enqueued 1000, started 1000, succeeded 1000', 'all are counted');
foreach my $method ('', 'a', 'b')
{
	my $where = $method eq '' ? 'true' : "method = '$method'";
	my $line = $method eq '' ? 'method IS NULL' : "method = '$method'";
	my $ran = query($node, <<"SQL");
WITH exact AS (
	SELECT percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY finished_at - started_at) AS p
	FROM qml.job WHERE queue = 'slow' AND $where),
said AS (SELECT ARRAY[run_p50, run_p95, run_p99] AS p FROM qml_stats('1 hour', 'slow') WHERE $line)
SELECT string_agg(CASE WHEN abs(bin(e) - bin(s)) <= CASE WHEN bin(e) = 47 THEN 1 ELSE 0 END THEN 'good' ELSE s || ' for ' || e END, ', ')
FROM exact, said, unnest(exact.p, said.p) x (e, s)
SQL
	is($ran, 'good, good, good', "percentiles of how long '$method' ran are in the bin of the exact ones");
}

# Waits: the first fetch of each begins, the rows say when it was ready.
query($node, q{SELECT fill('late', 500)});
query($node, <<'SQL');
UPDATE qml.live SET created_at = created_at - 10 ^ (random() * 10.8) * interval '10 us'
WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'late');
SELECT count(*) FROM qml_fetch('w', 'late', 500);
SQL
is(query($node, <<'SQL'), 'good, good, good', 'percentiles of waits are in the bin of the exact ones');
WITH exact AS (
	SELECT percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY started_at - ready_at) AS p
	FROM qml.job WHERE queue = 'late'),
said AS (SELECT ARRAY[wait_p50, wait_p95, wait_p99] AS p FROM qml_stats('1 hour', 'late') WHERE method IS NULL)
SELECT string_agg(CASE WHEN abs(bin(e) - bin(s)) <= CASE WHEN bin(e) = 47 THEN 1 ELSE 0 END THEN 'good' ELSE s || ' for ' || e END, ', ')
FROM exact, said, unnest(exact.p, said.p) x (e, s)
SQL

# ---- while it is stored, nothing is missing and nothing twice

# Ten of these minutes and some more: so each kind of row is written.
my $end = time + 12 * $MINUTE;
my (@wrong, $jobs);
my $asked = 0;
while (time < $end)
{
	query($node, q{SELECT fill('steady', 3)});
	$jobs += 3;
	foreach my $since ('1 hour', '1 day')
	{
		my $said = query($node, "SELECT coalesce(sum(enqueued), 0) FROM qml_stats('$since', 'steady') WHERE method IS NULL");
		$asked++;
		push @wrong, "$since: $said for $jobs" if $said != $jobs;
	}
}
is("@wrong", '', "$asked times it was asked, and each time $jobs or so were counted");
all_stored('steady');
is(query($node, q{SELECT sum(enqueued), min(span) >= '2 s', count(DISTINCT at) > 5 FROM qml.stats_minute WHERE queue = 'steady'}),
	"$jobs|t|t", 'it is in the rows of minutes');
wait_for('ten minutes to be added up',
	sub { return query($node, q{SELECT count(*) FROM qml.stats_data WHERE partition >= 4}) > 0; });
is(query($node, <<'SQL'), '', 'rows of ten minutes are the sums of the minutes');
WITH tens AS (
	SELECT t.at, t.queue_id, t.method, t.enqueued, t.started, t.succeeded, t.waited, t.ran
	FROM qml.stats_data t WHERE partition >= 4),
sums AS (
	SELECT to_timestamp(floor(extract(epoch FROM at) / 20) * 20) AS at, queue_id, method,
		sum(enqueued), sum(started), sum(succeeded), sum(waited), sum(ran)
	FROM qml.stats_data WHERE partition < 4 AND at < (SELECT max(at) + interval '20 s' FROM tens)
	GROUP BY 1, 2, 3)
(SELECT * FROM tens EXCEPT SELECT * FROM sums) UNION ALL (SELECT * FROM sums EXCEPT SELECT * FROM tens)
SQL
is(query($node, q{SELECT max(run_p50) > '0 s', bool_and(run_p50 <= run_p95), bool_and(run_p95 <= run_p99), bool_or(wait_p50 IS NOT NULL)
	FROM qml.stats_minute WHERE queue = 'slow' AND method = 'a'}),
	't|t|t|t', 'the view has percentiles');

# ---- idle

all_stored($_) foreach qw(q x slow late steady);
wait_for('nothing more to be written',
	sub {
		my $lsn = query($node, 'SELECT pg_current_wal_insert_lsn()');
		sleep 2.5 * $MINUTE;
		return query($node, 'SELECT pg_current_wal_insert_lsn()') eq $lsn;
	});
pass('where nothing happens nothing is written');

# ---- a restart

my $before = query($node, q{SELECT string_agg(counted(name), '; ' ORDER BY name) FROM qml.queue});
my @totals = grep { /^qml_jobs_enqueued_total|^qml_job_run_seconds_(sum|count)/ } split /\n/, query($node, 'SELECT qml_metrics()');
query($node, q{SELECT fill('q', 5)});
$node->restart;
like(counted('q'), qr/^enqueued 116,/, 'what was counted just before a restart is there');
my $again = query($node, q{SELECT string_agg(counted(name), '; ' ORDER BY name) FROM qml.queue});
is($again, $before =~ s/enqueued 111/enqueued 116/r, 'all is there');
my @again = grep { /^qml_jobs_enqueued_total|^qml_job_run_seconds_(sum|count)/ } split /\n/, query($node, 'SELECT qml_metrics()');
is(scalar(grep { !/queue="q"/ } @again), scalar(grep { !/queue="q"/ } @totals), 'series are kept over a restart');
is(join("\n", grep { !/queue="q"/ } @again), join("\n", grep { !/queue="q"/ } @totals), 'and go on counting');
ok(!-e $node->data_dir . '/pg_stat/qml.stat', 'the file is gone');

# A file that is damaged keeps no server from starting.
all_stored('q');
$node->stop;
ok(-e $node->data_dir . '/pg_stat/qml.stat', 'a server that is stopped has left a file');
append_to_file($node->data_dir . '/pg_stat/qml.stat', 'x');
{
	open my $file, '+<', $node->data_dir . '/pg_stat/qml.stat' or die $!;
	binmode $file;
	seek $file, 200, 0;
	print {$file} "\xff" x 16;
	close $file;
}
$node->start;
like(slurp_file($node->logfile), qr/ignoring invalid data in file "pg_stat\/qml.stat"/, 'damage is told');
like(counted('q'), qr/^enqueued 116,/, 'what was stored is there all the same');
query($node, q{SELECT fill('q', 1)});
like(counted('q'), qr/^enqueued 117,/, 'and it goes on');

# Fewer series than before: what is not stored is counted without a name.
$node->stop;
$node->append_conf('postgresql.conf', 'qml.stats_series = 3');
$node->start;
like(counted('q'), qr/^enqueued 11[67],/, 'fewer series');
is(query($node, q{SELECT sum(enqueued) FROM qml_stats('1 hour') WHERE queue = 'q' AND method IS NULL OR queue IS NULL}), 117,
	'nothing is lost');
$node->append_conf('postgresql.conf', 'qml.stats_series = 1000');
$node->restart;

# ---- a crash

query($node, q{SELECT qml_create_queue('crash')});
query($node, q{SELECT fill('crash', 10)});
all_stored('crash');
query($node, q{SELECT fill('crash', 1)});
kill_server($node);
start_again($node);
my $left = counted('crash');
ok($left eq 'enqueued 10' || $left eq 'enqueued 11', "a crash loses the current minute at most: $left");
query($node, q{SELECT fill('crash', 100)});
is(counted('crash'), $left =~ s/1(.)$/11$1/r, 'and it goes on');

# An error while it is stored: it is stored later, once.
set_config($node, 'qml.faults' => "stats.minute_s:limit:$MINUTE,stats.stored:error:1");
my $made = 0;
wait_for('the error', sub { query($node, q{SELECT fill('fault', 1)}); $made++; return slurp_file($node->logfile) =~ /storing statistics failed: /; });
set_config($node, 'qml.faults' => "stats.minute_s:limit:$MINUTE");
all_stored('fault');
is(query($node, q{SELECT sum(enqueued) FROM qml.stats_minute WHERE queue = 'fault'}), $made, 'after an error it is stored once');
is(counted('fault'), "enqueued $made", 'and counted once');

# A lock on the table is not waited for.
my $locker = new_session($node);
$locker->query_safe('BEGIN; LOCK TABLE qml.stats_data IN ACCESS EXCLUSIVE MODE');
query($node, q{SELECT fill('crash', 1000)});
sleep 2 * $MINUTE;
query($node, q{SELECT qml_enqueue('due', queue => 'due', delay => '100 ms')});
wait_for('a job to be promoted', sub { return query($node, q{SELECT state FROM qml.job WHERE method = 'due'}) eq 'enqueued'; });
pass('the scheduler does not wait for a lock');
$locker->query_safe('COMMIT');
$locker->quit;
all_stored('crash');
like(counted('crash'), qr/^enqueued 111\d$/, 'and stores it later');

# ---- the extension is made anew: numbers of queues begin anew

query($node, 'DROP EXTENSION qml; CREATE EXTENSION qml');
query($node, q{SELECT qml_create_queue(q) FROM unnest('{a,b,c}'::text[]) q});
is(query($node, q{SELECT count(*) FROM qml_stats()}), 0, 'another installation has nothing of the first');
query($node, q{SELECT fill('a', 2)});
is(counted('a'), 'enqueued 2', 'and counts for itself');

# ---- a standby

query($node, q{SELECT qml_mark('v1')});
all_stored('a');
$node->backup('copy');
my $standby = node_of_backup('standby', $node, 'copy', variant => 'faults', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay');
is(query($standby, q{SELECT queue, method, enqueued, depth, running FROM qml_stats() ORDER BY method NULLS FIRST}),
	"a||2|2|0\na|m|2||", 'qml_stats on a standby');
is(query($standby, q{SELECT sum(enqueued) FROM qml.stats_minute}), 2, 'the view on a standby');
is(query($standby, q{SELECT label FROM qml.mark}), 'v1', 'marks on a standby');
like(query($standby, q{SELECT qml_metrics()}), qr/^qml_jobs\{queue="a",state="enqueued"\} 2$/m, 'qml_metrics on a standby');
fails_with($standby, '25006', q{SELECT qml_mark('v2')}, 'no mark can be made there');

done_testing();
