# The numbers of jobs in shared memory: whatever is done to jobs, they are those of the rows, and
# reading them touches no page.  They are compared with the rows by this test, and all the time
# by the scheduler, which must find one difference only: the one that is made behind its back.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlCounts;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

# How many jobs there are that are not touched.
my $BALLAST = 20_000;

seed();
my $node = background_node('counters', variant => 'faults', conf => <<'CONF');
autovacuum = off
max_prepared_transactions = 60
qml.workers = 0
qml.log_failures = off
qml.faults = 'counting.compare_ms:limit:200,counting.rest_ms:limit:200,counting.pause_ms:limit:100'
log_min_messages = debug1
CONF

my $HELPERS = $COUNT_HELPERS . <<'SQL';
CREATE FUNCTION fill(queue text, jobs int) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[jobs]), queue)
$$;
CREATE FUNCTION numbers(queue text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(c.state || ' ' || c.count, ', ' ORDER BY c.state), 'none') FROM qml_queue_counts() c WHERE c.queue = $1
$$;
-- One thing, at random, to jobs at random; now and then it is undone.
CREATE PROCEDURE step() LANGUAGE plpgsql AS $$
DECLARE
	queues int[] := ARRAY(SELECT id FROM qml.queue_data WHERE name ~ '^q[0-4]$');
	q text := 'q' || (random() * 4)::int;
	job record;
	act text;
	ending int;
BEGIN
	FOR i IN 1 .. 1 + (random() * 4)::int LOOP
		BEGIN
			act := (ARRAY['one', 'many', 'later', 'own', 'fetch', 'fetch', 'fetch', 'ends', 'ends', 'ends', 'next',
				'delete', 'retry', 'reschedule', 'promote', 'reclaim', 'release', 'set'])[1 + (random() * 17)::int];
			CASE act
			WHEN 'one' THEN PERFORM qml_enqueue('m', queue => q);
			WHEN 'many' THEN PERFORM fill(q, (random() * 300)::int);
			WHEN 'later' THEN PERFORM qml_enqueue('m', queue => q, run_at => now() + random() * interval '2 s');
			WHEN 'own' THEN PERFORM qml_enqueue('m', queue => q, id => gen_random_uuid(), options => '{"on_duplicate_id": "return"}');
			WHEN 'fetch' THEN PERFORM qml_fetch('w', ARRAY[q], (random() * 20)::int + 1, interval '1 s' * (1 + random() * 10));
			WHEN 'release', 'ends', 'next' THEN
				FOR job IN SELECT l.id, l.attempt FROM qml.live l TABLESAMPLE BERNOULLI (20) WHERE l.state = 'processing' AND l.queue_id = ANY (queues) LIMIT 1 + (random() * 10)::int LOOP
					ending := (random() * 4)::int + 10 * (act = 'release')::int + 20 * (act = 'next')::int;
					CASE ending
					WHEN 0 THEN PERFORM qml_fail(job.id, job.attempt, 'e', retry => false);
					WHEN 1 THEN PERFORM qml_fail(job.id, job.attempt, 'e');
					WHEN 2 THEN PERFORM qml_heartbeat(job.id, job.attempt, '5 s');
					WHEN 10, 11, 12 THEN PERFORM qml_release(job.id, job.attempt);
					WHEN 13, 14 THEN PERFORM qml_release(job.id, job.attempt, run_at => now() + interval '1 s');
					WHEN 20, 21, 22, 23, 24 THEN PERFORM qml_succeed_fetch(job.id, job.attempt, queues => ARRAY[q]);
					ELSE PERFORM qml_succeed(job.id, job.attempt);
					END CASE;
				END LOOP;
			WHEN 'delete' THEN
				PERFORM qml_delete(id) FROM (SELECT id FROM qml.live TABLESAMPLE BERNOULLI (5) WHERE queue_id = ANY (queues) LIMIT 3) j;
				PERFORM qml_delete(id) FROM (SELECT id FROM qml.history WHERE queue_id = ANY (queues) AND random() < 0.05 LIMIT 2) j;
			WHEN 'retry' THEN PERFORM qml_retry(id) FROM (SELECT id FROM qml.history WHERE queue_id = ANY (queues) AND state = 'failed' AND random() < 0.2 LIMIT 3) j;
			WHEN 'reschedule' THEN
				PERFORM qml_reschedule(id, now() + interval '1 s') FROM (SELECT id FROM qml.live TABLESAMPLE BERNOULLI (5) WHERE queue_id = ANY (queues) AND state IN ('enqueued', 'scheduled') LIMIT 3) j;
			WHEN 'promote' THEN PERFORM qml_promote_due();
			WHEN 'reclaim' THEN PERFORM qml_reclaim();
			WHEN 'set' THEN PERFORM qml_set_state(id, 'failed', '{}') FROM (SELECT id FROM qml.live TABLESAMPLE BERNOULLI (5) WHERE queue_id = ANY (queues) AND state = 'enqueued' LIMIT 2) j;
			END CASE;
			IF random() < 0.15 THEN
				RAISE 'undone' USING ERRCODE = 'ZZ001';
			END IF;
		EXCEPTION WHEN SQLSTATE 'ZZ001' OR SQLSTATE 'QM001' OR SQLSTATE 'QM002' OR SQLSTATE 'QM003' OR serialization_failure OR deadlock_detected THEN
			NULL;
		END;
	END LOOP;
	IF random() < 0.15 THEN
		ROLLBACK;
	END IF;
END $$;
SQL
query($node, $HELPERS);
query($node, <<"SQL");
SELECT qml_create_queue('ballast', '{"succeeded_ttl": "1 d"}');
SELECT qml_create_queue(q) FROM unnest('{q1,q3,q4}'::text[]) q;
SELECT qml_create_queue('q0', '{"succeeded_ttl": "3 s", "failed_ttl": "2 s"}');
SELECT qml_create_queue('q2', '{"succeeded_ttl": 0, "failed_ttl": "1 h"}');
SELECT fill('ballast', 2 * $BALLAST);
SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', 'ballast', 10000);
SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', 'ballast', 10000);
SQL

sub wait_counted
{
	my ($name) = @_;
	wait_for($name, sub { is_counted($node) });
	pass("$name: all jobs are counted");
	return;
}

# At rest, which comes when the last leases are over.  The scheduler corrects wrong numbers, and
# tells of it in the log, which is looked at in the end.
sub agrees
{
	my ($name, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $end = time + 60;
	my $differences;
	do
	{
		wait_for('the numbers', sub { is_counted($node) }) unless $opt{by_rows};
		$differences = ask($node, 'SELECT differences()');
	} until ($differences eq 'none' || time > $end);
	is($differences, 'none', "$name: the numbers are those of the rows");
	return;
}

# So many more counts, which were compared.
sub wait_compared
{
	my ($times) = @_;
	my $before = log_count($node, 'all jobs were counted', 0);
	wait_for('comparisons', sub { log_count($node, 'all jobs were counted', 0) >= $before + $times });
	return;
}

wait_for_process($node, 'scheduler', 'postgres');
wait_counted('at start');

# ---- what reading costs

foreach my $query ('SELECT * FROM qml_counts()', 'SELECT * FROM qml_queue_counts()', 'SELECT qml_queue_depth(\'\'ballast\'\')')
{
	pages($node, $query);
	cmp_ok(pages($node, $query), '<=', $MOST_PAGES, "$query touches few pages");
}
agrees('at rest');
is(ask($node, "SELECT numbers('ballast')"), "enqueued $BALLAST, succeeded $BALLAST", 'there are as many as were made');
my $session = new_session($node);
$session->query_safe('BEGIN; UPDATE qml.live SET reason = reason WHERE false');
cmp_ok($session->query_safe(q{SELECT pages('SELECT * FROM qml_counts()')}), '>', 100, 'after SQL, a transaction counts rows: the measure can tell');
is($session->query_safe('SELECT differences()'), 'none', 'rightly');
$session->query_safe('ROLLBACK');
cmp_ok($session->query_safe(q{SELECT pages('SELECT * FROM qml_counts()')}), '<=', $MOST_PAGES, 'after its rollback it need not');

# ---- what a transaction has done itself

foreach my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
{
	my $own = lc $level;
	ask($node, "SELECT qml_create_queue('$own'); SELECT fill('$own', 10)");
	$session->query_safe("BEGIN ISOLATION LEVEL $level; SELECT 1");
	is($session->query_safe("SELECT numbers('$own')"), 'enqueued 10', "$level: at first");
	$session->query_safe("SELECT fill('$own', 5); SAVEPOINT a; SELECT qml_enqueue('m', queue => '$own', delay => '1 h')");
	is($session->query_safe("SELECT numbers('$own'), qml_queue_depth('$own')"), 'scheduled 1, enqueued 15|15', "$level: what it has made");
	$session->query_safe("SAVEPOINT b; SELECT count(qml_delete(id)) FROM qml_fetch('w', '$own', 3)");
	is($session->query_safe("SELECT numbers('$own')"), 'scheduled 1, enqueued 12, deleted 3', "$level: and deleted");
	$session->query_safe('ROLLBACK TO b');
	is($session->query_safe("SELECT numbers('$own')"), 'scheduled 1, enqueued 15', "$level: a savepoint is rolled back");
	$session->query_safe("SELECT count(*) FROM qml_fetch('w', '$own', 2); RELEASE b; SAVEPOINT c; SELECT fill('$own', 7); RELEASE c");
	is($session->query_safe("SELECT numbers('$own')"), 'scheduled 1, enqueued 20, processing 2', "$level: or released");
	is(ask($node, "SELECT numbers('$own')"), 'enqueued 10', "$level: others see nothing of it");
	ask($node, "SELECT fill('$own', 100)");
	is($session->query_safe("SELECT numbers('$own')"), 'scheduled 1, enqueued 120, processing 2', "$level: it sees what others have committed now");
	$session->query_safe('ROLLBACK TO a');
	is($session->query_safe("SELECT numbers('$own')"), 'enqueued 115', "$level: the outer savepoint is rolled back");
	$session->query_safe('COMMIT');
	is(ask($node, "SELECT numbers('$own')"), 'enqueued 115', "$level: others see what was committed");
	agrees($level);
}
# More notes than fit without an allocation, all of them rolled back.
$session->query_safe("BEGIN; SAVEPOINT a; SELECT fill(format('few%s', n), 1) FROM generate_series(1, 70) n; ROLLBACK TO a; COMMIT");
$session->query_safe("SELECT fill(format('few%s', n), 1) FROM generate_series(1, 70) n");
agrees('many notes are rolled back');
$session->quit;

# ---- expiry

ask($node, <<'SQL');
SELECT qml_create_queue('brief', '{"succeeded_ttl": "3 s", "failed_ttl": "2 s"}');
SELECT fill('brief', 300);
SELECT count(CASE WHEN random() < 0.5 THEN qml_succeed(id, attempt)::text ELSE qml_fail(id, attempt, 'e', retry => false)::text END) FROM qml_fetch('w', 'brief', 300);
SQL
is(ask($node, "SELECT sum(count) FROM qml_queue_counts() WHERE queue = 'brief'"), 300, 'jobs that will expire soon');
my ($looks, $different, $last) = (0, 0, 300);
while ($last > 0)
{
	# The rows and the numbers, once each way round: the later look finds the same or fewer.
	my ($rows, $numbers, $later) = split /\|/, ask($node, <<'SQL');
SELECT (SELECT count(*) FROM qml.job WHERE queue = 'brief'), (SELECT coalesce(sum(count), 0) FROM qml_queue_counts() WHERE queue = 'brief'),
	(SELECT count(*) FROM qml.history h JOIN qml.queue_data q ON q.id = h.queue_id AND q.name = 'brief' WHERE h.expires_at > clock_timestamp())
SQL
	$different++ if $numbers > $rows || $numbers < $later;
	$looks++;
	$last = $numbers;
	sleep 0.02;
}
is($different, 0, "numbers fall when jobs expire: so $looks looks said");
agrees('after expiry');

# ---- retries and deletions of finished jobs; jobs that are not kept

ask($node, <<'SQL');
SELECT qml_create_queue('back', '{"failed_ttl": "1 d", "succeeded_ttl": 0}');
SELECT fill('back', 30);
SELECT count(qml_fail(id, attempt, 'e', retry => false)) FROM qml_fetch('w', 'back', 20);
SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', 'back', 4);
SELECT count(qml_retry(id)) FROM (SELECT id FROM qml.job WHERE queue = 'back' AND state = 'failed' LIMIT 5) j;
SELECT count(qml_delete(id)) FROM (SELECT id FROM qml.job WHERE queue = 'back' AND state = 'failed' LIMIT 6) j;
SQL
is(ask($node, "SELECT numbers('back')"), 'enqueued 11, failed 9, deleted 6', 'finished jobs are retried and deleted');
agrees('then');

# ---- prepared transactions

ask($node, "SELECT qml_create_queue('two'); SELECT fill('two', 20)");
ask($node, "BEGIN; SELECT fill('two', 3); SELECT count(*) FROM qml_fetch('w', 'two', 5); PREPARE TRANSACTION 'p'");
is(ask($node, "SELECT numbers('two')"), 'enqueued 20', 'what is prepared is not counted');
wait_compared(2);
is(ask($node, "SELECT numbers('two')"), 'enqueued 20', 'nor by a count');
ask($node, "COMMIT PREPARED 'p'");
is(ask($node, "SELECT numbers('two')"), 'enqueued 18, processing 5', 'it is when it is committed');
ask($node, "BEGIN; SELECT fill('two', 3); PREPARE TRANSACTION 'p'");
ask($node, "ROLLBACK PREPARED 'p'");
agrees('a prepared transaction is rolled back');
ask($node, "BEGIN; SELECT fill(format('many%s', n), 1) FROM generate_series(1, 40) n; PREPARE TRANSACTION 'large'");
ask($node, "COMMIT PREPARED 'large'");
agrees('one that changed more than is kept');
ask($node, "BEGIN; INSERT INTO qml.live SELECT (jsonb_populate_record(l, jsonb_build_object('id', gen_random_uuid()))).* FROM qml.live l LIMIT 1; PREPARE TRANSACTION 'sql'");
ask($node, "COMMIT PREPARED 'sql'");
agrees('one that wrote by SQL');
ask($node, "BEGIN; CREATE TABLE other (); PREPARE TRANSACTION 'other'");
ask($node, "COMMIT PREPARED 'other'");
ok(is_counted($node), 'after one that has nothing to do with jobs, the numbers are still used');
ask($node, "BEGIN; SELECT fill('two', 9); PREPARE TRANSACTION 'before'");

# ---- everything at once, with a server that crashes

my $loads = 0;

sub load
{
	my ($seconds, $name, %opt) = @_;
	my $random = pick(1, 1_000_000);
	my $n = 186 . '_' . ++$loads;
	my @check = $opt{fails} ? (2, [qr//], [qr//]) : (0, [qr/number of transactions actually processed: [1-9]/], [qr/^(?!.*(ERROR|aborted))/s]);
	return $node->pgbench(
		"--no-vacuum --client=8 --jobs=2 --time=$seconds --random-seed=$random", @check, $name,
		{
			"${n}_step\@20" => "CALL step();\n",
			"${n}_levels\@2" => "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT fill('q1', 3);\nSELECT differences() <> '';\nCOMMIT;\n",
			"${n}_prepared\@3" => <<'SQL',
\set how random(0, 1)
BEGIN;
SELECT fill('q3', 4), count(*) FROM qml_fetch('w', 'q3', 3);
PREPARE TRANSACTION 'load:client_id';
\if :how
COMMIT PREPARED 'load:client_id';
\else
ROLLBACK PREPARED 'load:client_id';
\endif
SQL
			"${n}_savepoints\@3" => <<'SQL',
BEGIN;
SAVEPOINT a;
SELECT fill('q4', 5);
SAVEPOINT b;
SELECT count(qml_delete(id)) FROM qml_fetch('w', 'q4', 3);
ROLLBACK TO a;
SELECT fill('q4', 2), count(*) FROM qml_fetch('w', 'q4', 2);
RELEASE a;
COMMIT;
SQL
			"${n}_read\@3" => "SELECT count(*) FROM qml_counts();\nSELECT count(*) FROM qml_queue_counts();\nSELECT qml_queue_depth('q1');\n"
		});
}

my $begun = log_count($node, 'all jobs were counted', 0);
load(10, 'sessions do everything at once');
agrees('after that');
my $counts = log_count($node, 'all jobs were counted', 0) - $begun;
cmp_ok($counts, '>=', 4, "and $counts comparisons meanwhile");

# Sessions that are killed in the middle.
{
	my $killer = start_client_killer();
	load(6, 'sessions are ended while they work', fails => 1);
	$killer->finish;
}
agrees('after that');

sub start_client_killer
{
	my $script = "DO \$\$ BEGIN FOR i IN 1 .. 40 LOOP PERFORM pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
	  . "WHERE query ~ 'step|fill' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) p; PERFORM pg_sleep(0.1); PERFORM pg_stat_clear_snapshot(); END LOOP; END \$\$";
	return IPC::Run::start([ 'psql', '-Xqd', $node->connstr('postgres'), '-c', $script ]);
}

my $dying = IPC::Run::start([ 'perl', '-e', 'select undef, undef, undef, 3; kill "KILL", $ARGV[0]',
	query($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'") ]);
load(6, 'the server crashes meanwhile', fails => 1);
$dying->finish;
end_sessions($node);
wait_for('the server', sub { (try_query($node, 'SELECT 1') // '') eq '1' });
wait_for_process($node, 'scheduler', 'postgres');
query($node, "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE gid <> 'before' \\gexec");
agrees('after a crash');
ask($node, "BEGIN; CREATE TABLE more (); PREPARE TRANSACTION 'other'");
ask($node, "COMMIT PREPARED 'other'");
ok(is_counted($node), 'beside a transaction from before the crash, one that has nothing to do with jobs changes nothing');
ask($node, "BEGIN; SELECT fill('two', 3); PREPARE TRANSACTION 'new'");
ask($node, "COMMIT PREPARED 'new'");
ok(is_counted($node), 'nor does one that is known');
my $two = ask($node, "SELECT qml_queue_depth('two')");
ask($node, "COMMIT PREPARED 'before'");
agrees('a transaction is committed that was prepared before the crash');
is(ask($node, "SELECT qml_queue_depth('two')"), $two + 9, 'its jobs are counted');
kill_server($node);
start_again($node);
wait_for_process($node, 'scheduler', 'postgres');
agrees('after another crash');

# ---- SQL, and what is done behind the back of all

ask($node, q{DELETE FROM qml.live WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'two')});
is(ask($node, "SELECT numbers('two')"), 'none', 'SQL has deleted jobs');
agrees('after SQL');
ask($node, 'ALTER TABLE qml.live DISABLE TRIGGER note_sql');
ask($node, q{DELETE FROM qml.live WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'back')});
agrees('while the trigger is disabled', by_rows => 1);
ok(!is_counted($node), 'rows are counted');
ask($node, 'ALTER TABLE qml.live ENABLE ALWAYS TRIGGER note_sql');
agrees('what was known before is not used after that', by_rows => 1);
wait_for('the numbers', sub { is_counted($node) });
agrees('when they are counted anew');
is(log_count($node, 'wrong, and w', 0), 0, 'no number was wrong until now');
ask($node, 'DELETE FROM qml.history WHERE id IS NULL');
ok(!is_counted($node), 'SQL may have deleted finished jobs');
wait_for('the numbers', sub { is_counted($node) });
my $leaf = ask($node, q{SELECT DISTINCT tableoid::regclass FROM qml.history WHERE state = 'succeeded' AND queue_id = (SELECT id FROM qml.queue_data WHERE name = 'ballast')});
ask($node, qq{DELETE FROM $leaf WHERE id IN (SELECT id FROM $leaf WHERE state = 'succeeded' AND queue_id = (SELECT id FROM qml.queue_data WHERE name = 'ballast') LIMIT 7)});
wait_for('the difference to be found', sub { log_count($node, '1 number of jobs was wrong, and was corrected', 0) == 1 });
is(log_count($node, sprintf('Queue "ballast" was said to have %d jobs in state succeeded, and has %d.', $BALLAST, $BALLAST - 7), 0), 1, 'the log names it');
agrees('when it is corrected');

# ---- many queues, and no room

ask($node, "SELECT count(qml_enqueue('m', queue => 'n' || n)) FROM generate_series($_ * 1000 + 1, $_ * 1000 + 1000) n") foreach 0 .. 19;
ask($node, 'SELECT count(*) FROM qml_queue_counts()');
cmp_ok(pages($node, 'SELECT * FROM qml_queue_counts()'), '<=', $MOST_PAGES, 'with 20,000 queues');
agrees('with 20,000 queues');
wait_compared(2);
set_config($node, 'qml.faults' => 'counters.expiries:limit:1,counting.pause_ms:limit:100');
end_sessions($node);
$node->restart;
wait_for_process($node, 'scheduler', 'postgres');
ask($node, q{SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', '{n1,n2,n3,n4,n5}', 5)});
agrees('without room', by_rows => 1);
ok(!is_counted($node), 'rows are counted');
is(log_count($node, 'wrong, and w', 0), 1, 'no other number was wrong');
wait_for('the scheduler to see that', sub { log_count($node, 'there are too many jobs to count them', 0) > 0 });
wait_for('more rounds', sub { ask($node, q{SELECT now() > pg_postmaster_start_time() + interval '5 s'}) eq 't' });
is(log_count($node, 'there are too many jobs to count them', 0), 1, 'it does not read all rows again and again');
is(log_count($node, 'LOG:  there is no room in shared memory for the numbers of all jobs', 0), 1, 'the log says so');

is(log_count($node, 'PANIC', 0) + log_count($node, 'TRAP', 0), 0, 'no process failed');
end_sessions($node);
$node->stop;

# ---- with the usual times between two counts, and little room

$node = background_node('usual', variant => 'faults', conf => <<'CONF');
qml.workers = 0
qml.faults = 'counters.expiries:limit:4'
log_min_messages = debug1
CONF
query($node, $HELPERS);
query($node, q{SELECT qml_create_queue('brief', '{"succeeded_ttl": "1 s"}')});
wait_for_process($node, 'scheduler', 'postgres');
wait_counted('another server');
$counts = log_count($node, 'all jobs were counted', 0);
# Nobody reads the numbers meanwhile, and so takes off what has expired.
query($node, <<'SQL');
DO $$
DECLARE
	ended timestamptz := clock_timestamp() + interval '8 s';
BEGIN
	WHILE clock_timestamp() < ended LOOP
		PERFORM qml_enqueue('m', queue => 'brief');
		PERFORM qml_succeed(id, attempt) FROM qml_fetch('w', 'brief', 1);
		COMMIT;
		PERFORM pg_sleep(0.1);
	END LOOP;
END $$;
SQL
agrees('jobs have expired at more times than there is room for');
is(log_count($node, 'all jobs were counted', 0), $counts, 'they need not be counted anew');
ask($node, 'ALTER TABLE qml.live DISABLE TRIGGER note_sql');
ask($node, 'ALTER TABLE qml.live ENABLE ALWAYS TRIGGER note_sql');
wait_counted('the trigger has been changed');
ask($node, 'DROP EXTENSION qml CASCADE; CREATE EXTENSION qml');
wait_for_process($node, 'scheduler', 'postgres');
wait_counted('the extension is made anew');
agrees('then');
is(log_count($node, 'wrong, and w', 0), 0, 'no number was wrong');
end_sessions($node);
done_testing();
