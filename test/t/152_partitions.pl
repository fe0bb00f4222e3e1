# Finishing a job depends on no partition: neither on an event trigger, nor on a locked
# history, nor on maintenance.  Expired partitions go although somebody always reads
# the history; nobody has to wait for that, and what keeps them is told.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

avoid_midnight();

# How much longer than an INSERT a statement may take here, seconds.
my $SOON = 1;
# Whoever waits for a lock here does so for 20 s.
my $UNBLOCKED = 10;

sub leaves
{
	my ($node) = @_;
	return query($node, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'qml.history'::regclass");
}

sub drop_leaves
{
	my ($node) = @_;
	query($node, "SELECT format('DROP TABLE %s', inhrelid::regclass) FROM pg_inherits WHERE inhparent = 'qml.history'::regclass \\gexec");
	return;
}

sub places
{
	my ($node) = @_;
	return query($node, 'SELECT (SELECT count(*) FROM qml.history), (SELECT count(*) FROM qml.history_overflow)');
}

# The seconds that a statement takes.
sub seconds
{
	my ($node, $sql) = @_;
	my $start = time;
	query($node, $sql);
	return time - $start;
}

# ---- Without background processes

my $node = new_node('partitions');

# Every way to finish a job, while an event trigger forbids DDL and there is no partition.
query($node, <<'SQL');
CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no DDL today'; END $$;
SELECT qml_create_queue('q', '{"max_retries": 0}');
SQL
drop_leaves($node);
query($node, 'CREATE EVENT TRIGGER forbid ON ddl_command_start EXECUTE FUNCTION forbid()');

my $finish = <<'SQL';
SELECT count(qml_enqueue('m', queue => 'q')) FROM generate_series(1, 9);
SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{q}', 1);
SELECT qml_fail(id, attempt, 'e') FROM qml_fetch('w', '{q}', 1);
SELECT qml_delete(id) FROM qml.job WHERE state = 'enqueued' LIMIT 1;
SELECT count(*) FROM (SELECT array_agg(id) AS i, array_agg(attempt) AS a FROM qml_fetch('w', '{q}', 2)) j, qml_succeed_many(i, a);
SELECT s.state FROM qml_fetch('w', '{q}', 1) f, qml_set_state(f.id, 'failed') s;
SELECT count(*) FROM qml_fetch('w', '{q}', 2, '1 us');
SELECT qml_reclaim();
SQL
query($node, "$finish SELECT pg_sleep(0.01); SELECT qml_reclaim(); SELECT qml_delete(id) FROM qml.job WHERE state = 'enqueued'");
is(places($node), '0|9', 'all finish, in every way');
my (undef, $out, $err) = $node->psql('postgres', 'SELECT qml_cleanup()');
like($err, qr/WARNING:  could not make or drop a partition of "qml.history"\nDETAIL:  no DDL today/, 'what keeps partitions from being made is told');
is(() = $err =~ /WARNING.*"qml\.history"/g, 2, 'once for those that are needed next, and once for those that wait');
is(query($node, 'SELECT sum(count) FROM qml_counts()'), 9, 'the jobs are there');
query($node, 'DROP EVENT TRIGGER forbid');
query($node, 'SELECT qml_cleanup()');
is(places($node), '9|0', 'they are moved when partitions can be made');

# A history that somebody has locked as a whole, or in part; known to the session or not.
my $blocker = new_session($node);
my $session = new_session($node);
$session->query_safe("SELECT qml_succeed(id, attempt) FROM (SELECT qml_enqueue('m', queue => 'q')) e, qml_fetch('w', '{q}', 1)");
foreach my $lock ('LOCK TABLE qml.history', 'LOCK TABLE ONLY qml.history', 'ALTER TABLE qml.history ADD CONSTRAINT c CHECK (attempt >= 0)',
	'CREATE INDEX ON qml.history (method)')
{
	$blocker->query_safe("BEGIN; $lock");
	my $start = time;
	$session->query_safe("SET statement_timeout = '20 s'; SELECT qml_enqueue('m', queue => 'q'); SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{q}', 1)");
	cmp_ok(time - $start, '<', $UNBLOCKED, "a session that knows the history does not wait for $lock");
	my $took = seconds($node, "SET statement_timeout = '20 s'; SELECT qml_enqueue('m', queue => 'q'); SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{q}', 1)");
	cmp_ok($took, '<', $UNBLOCKED, 'nor does a new one');
	$took = seconds($node, "SET statement_timeout = '20 s'; SELECT qml_maintain()");
	cmp_ok($took, '<', $UNBLOCKED, 'nor does maintenance');
	$blocker->query_safe('ROLLBACK');
}
query($node, 'SELECT qml_cleanup()');
like(places($node), qr/^18\|0$/, 'all of these are in the history in the end');

# A partition that takes no rows stops neither the making of others nor what moves there.
{
	$blocker->query_safe('BEGIN; LOCK TABLE qml.history');
	$session->query_safe("SELECT qml_succeed(id, attempt) FROM (SELECT qml_enqueue('m', queue => 'q')) e, qml_fetch('w', '{q}', 1)") foreach 1 .. 2;
	$blocker->query_safe('COMMIT');
	my @names = split /\n/, query($node, <<'SQL');
UPDATE qml.history_overflow SET expires_at = expires_at + interval '1 day' WHERE id = (SELECT max(id::text)::uuid FROM qml.history_overflow);
SELECT 'qml.history_p' || to_char(expires_at AT TIME ZONE 'UTC', 'YYYYMMDD') FROM qml.history_overflow ORDER BY expires_at;
SQL
	query($node, "CREATE TRIGGER t BEFORE UPDATE ON $names[0] FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger(); DROP TABLE $names[1]");
	(undef, $out, $err) = $node->psql('postgres', 'SELECT qml_cleanup()');
	is($out, 0, 'a partition with a trigger is no error');
	like($err, qr/^psql:<stdin>:1: WARNING:  could not move finished jobs to a partition of "qml.history"\nDETAIL:  .*trigger/m, 'it is told');
	is(query($node, "SELECT to_regclass('$names[1]') IS NOT NULL"), 't', 'the others are made');
	like(places($node), qr/^19\|1$/, 'and take their jobs');
	query($node, "DROP TRIGGER t ON $names[0]");
	query($node, 'SELECT qml_cleanup()');
	like(places($node), qr/^20\|0$/, 'the job goes there without the trigger');
}

# Thirty expired partitions, some of them read: nobody waits.
expired_leaf($node, $_, 10) foreach 1 .. 30;
$blocker->query_safe('BEGIN; ' . query($node, "SELECT string_agg(format('LOCK TABLE %s IN ACCESS SHARE MODE', inhrelid::regclass), '; ') FROM (SELECT inhrelid FROM pg_inherits"
	  . " WHERE inhparent = 'qml.history'::regclass AND inhrelid::regclass::text < 'qml.history_p' || to_char(now() - interval '20 days', 'YYYYMMDD')) x"));
$session->query_safe(<<'SQL');
CREATE TABLE slow (statement text, seconds float);
SQL
my $prober = IPC::Run::start(
	[ 'psql', '-XAtq', '-d', $node->connstr('postgres') ],
	'<', \(join "\n", map { "SELECT clock_timestamp() AS began \\gset\nSELECT count(*) FROM qml.job \\g /dev/null\nINSERT INTO slow SELECT 'read', extract(epoch FROM clock_timestamp() - :'began');" } 1 .. 200),
	'>', \my $probed, '2>', \my $failed);
my $took = seconds($node, 'SELECT qml_cleanup()');
IPC::Run::finish($prober);
is($prober->result(0), 0, 'the reader meets no error');
is($failed, '', 'and no message');
is(query($node, 'SELECT count(*) FROM slow'), 200, 'all its reads are done');
cmp_ok($took, '<', 2, sprintf 'the cleanup takes %.2f s', $took);
my $slowest = query($node, 'SELECT max(seconds) FROM slow');
cmp_ok($slowest, '<', $SOON, "new readers wait $slowest s at most");
$blocker->query_safe('COMMIT');
query($node, 'SELECT qml_cleanup()');
is(query($node, "SELECT count(*) FROM pg_class WHERE relname ~ '^history_p' AND relkind = 'r' AND relname < 'history_p' || to_char(now() - interval '1 day', 'YYYYMMDD')"),
	0, 'all are dropped in the end');

# Readers that overlap: there is always one, of the history as a whole.
my @readers = ($blocker, $session);
my $leaf = expired_leaf($node, 2, 100);
$readers[0]->query_safe('BEGIN; SELECT count(*) FROM qml.job');
(undef, $out, $err) = $node->psql('postgres', 'SELECT qml_cleanup()');
is($out, 0, 'a partition that is read is not dropped');
like($err, qr/WARNING:  expired partition "qml.$leaf" is in use and was not dropped\nDETAIL:  These processes have locked it, or all of the history: \d+\.$/m, 'which is told');
my $left = 10;
my $dropped = 0;
while ($left-- > 0 && !$dropped)
{
	# The next one begins before the one before it ends.
	$readers[1]->query_safe('BEGIN; SELECT count(*) FROM qml.job');
	$readers[0]->query_safe('COMMIT');
	$dropped = query($node, 'SELECT qml_cleanup()');
	@readers = reverse @readers;
}
is($dropped, 100, 'it goes although somebody always reads the history');
is(query($node, "SELECT to_regclass('qml.$leaf') IS NULL"), 't', 'it is gone');
is(query($node, 'SELECT count(*) FROM pg_inherits WHERE inhdetachpending'), 0, 'nothing is left of it');
$readers[0]->query_safe('COMMIT');

# A reader with an old snapshot still sees all that it saw before.
$leaf = expired_leaf($node, 2, 100);
$blocker->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qml.history');
is(query($node, 'SELECT qml_cleanup(); SELECT qml_cleanup()'), "0\n0", 'a partition that a snapshot reads stays');
is(query($node, 'SELECT count(*) FROM pg_inherits WHERE inhdetachpending'), 1, 'it is being detached');
is($blocker->query_safe("SELECT count(*) FROM qml.history h, qml.queue_data q WHERE q.id = h.queue_id AND q.name = 'old'"), 100, 'the reader sees its rows');
is(query($node, "SELECT count(*) FROM qml.history h, qml.queue_data q WHERE q.id = h.queue_id AND q.name = 'old'"), 0, 'new readers do not');
$blocker->query_safe('COMMIT');
is(query($node, 'SELECT qml_cleanup()'), 100, 'it goes with the reader');

# A partition that a view depends on is neither dropped nor in the way of others.
{
	my ($first, $second) = (expired_leaf($node, 3, 10), expired_leaf($node, 2, 20));
	query($node, "CREATE VIEW kept AS SELECT id FROM qml.$first");
	$blocker->query_safe('BEGIN; SELECT count(*) FROM qml.job');
	(undef, $out, $err) = $node->psql('postgres', 'SELECT qml_cleanup()');
	like($err, qr/DETAIL:  other objects depend on expired partition "qml.$first"/, 'that is told');
	is(query($node, 'SELECT inhrelid::regclass FROM pg_inherits WHERE inhdetachpending'), "qml.$second", 'the next one is marked');
	$blocker->query_safe('COMMIT');
	is(query($node, 'SELECT qml_cleanup()'), 20, 'and goes');
	query($node, 'DROP VIEW kept');
	is(query($node, 'SELECT qml_cleanup()'), 10, 'the other one goes without the view');

	# A view that is made when the partition is marked already.
	($first, $second) = (expired_leaf($node, 3, 10), expired_leaf($node, 2, 20));
	$blocker->query_safe('BEGIN; SELECT count(*) FROM qml.job');
	query($node, 'SELECT qml_cleanup()');
	is(query($node, 'SELECT inhrelid::regclass FROM pg_inherits WHERE inhdetachpending'), "qml.$first", 'a partition is marked, one at a time');
	query($node, "CREATE VIEW kept AS SELECT id FROM qml.$first");
	$blocker->query_safe('COMMIT');
	(undef, $out, $err) = $node->psql('postgres', 'SELECT qml_cleanup()');
	like($err, qr/WARNING:  expired partition "qml.$first" was detached, but could not be dropped/, 'it is detached all the same');
	is($out, 20, 'and the other one goes');
	is(query($node, 'SELECT count(*) FROM pg_inherits WHERE inhdetachpending'), 0, 'nothing is in the way');
	query($node, "DROP TABLE qml.$first CASCADE");
}

# Rows are not counted in a partition that somebody has locked; nobody waits for it.
{
	my $locked = expired_leaf($node, 2, 10);
	$blocker->query_safe("BEGIN; LOCK TABLE qml.$locked");
	cmp_ok(seconds($node, "SET statement_timeout = '20 s'; SELECT qml_cleanup()"), '<', 2, 'the cleanup waits for no lock on a partition');
	$blocker->query_safe('COMMIT');
	query($node, 'SELECT qml_cleanup()');
	is(query($node, "SELECT to_regclass('qml.$locked') IS NULL"), 't', 'it goes later');
}

# A partition without a replica identity, as somebody may attach it.
$leaf = expired_leaf($node, -1, 5);
is(query($node, "SELECT relreplident FROM pg_class WHERE relname = '$leaf'"), 'd', 'a partition that was attached by hand');
query($node, 'SELECT qml_cleanup()');
is(query($node, "SELECT relreplident FROM pg_class WHERE relname = '$leaf'"), 'f', 'gets a replica identity');

# The result is an estimate for a large partition, and reading all of it is not needed.
$leaf = expired_leaf($node, 3, 200_000);
query($node, "VACUUM qml.$leaf");
my $pages = query($node, "SELECT pg_relation_size('qml.$leaf') / current_setting('block_size')::int");
$node->restart;
query($node, 'SELECT pg_stat_reset()');
my $removed = query($node, 'SELECT qml_cleanup()');
# The session reports what it has read when it ends.
my $read = 0;
wait_for('what was read to be known', sub { ($read = query($node, 'SELECT blks_read FROM pg_stat_database WHERE datname = current_database()')) > 128 });
cmp_ok(abs($removed - 200_000), '<', 20_000, "about as many were removed: $removed");
cmp_ok($read, '<', $pages / 2, "far fewer of $pages pages were read: $read");

# An index on the history itself is no part of a dump: the rest is restored without it.
query($node, 'CREATE INDEX by_method ON qml.history (method)');
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
query($node, 'CREATE DATABASE copy');
(undef, $out, $err) = $node->psql('copy', undef, extra_params => [ '-f', $dump ], on_error_stop => 0);
my @errors = $err =~ /ERROR:  (.*)/g;
cmp_ok(scalar @errors, '>', 0, 'the parts of the index find no whole');
is(scalar(grep { !/^relation "qml\.by_method" does not exist$/ } @errors), 0, 'and nothing else is wrong') or diag($err);
is(query($node, 'SELECT count(*) FROM qml.history', 'copy'), query($node, 'SELECT count(*) FROM qml.history'), 'all jobs are there');
query($node, 'SELECT qml_adopt(); CREATE INDEX by_method ON qml.history (method); SELECT qml_cleanup()', 'copy');
$_->quit foreach $blocker, $session;
end_sessions($node);
$node->stop;

# ---- With a scheduler

my $busy = background_node('busy', conf => "qml.cleanup_interval = 1\n");
query($busy, "SELECT qml_create_queue('q')");
sleeping_scheduler($busy);
drop_leaves($busy);
query($busy, "SELECT count(qml_enqueue('m', queue => 'q')) FROM generate_series(1, 3000)");
query($busy, "SELECT count(*) FROM (SELECT array_agg(id) AS i, array_agg(attempt) AS a FROM qml_fetch('w', '{q}', 3000)) j, qml_succeed_many(i, a)");
wait_for('the jobs to be moved', sub { places($busy) eq '3000|0' });
ok(1, 'the scheduler makes partitions when a job misses one, and moves the jobs');

# Large expired partitions do not delay due jobs; all of them go, one in a round.
my $leaves = leaves($busy);
query($busy, 'ALTER SYSTEM SET qml.enable_cleanup = off');
query($busy, 'SELECT pg_reload_conf()');
expired_leaf($busy, $_, 100_000) foreach 2 .. 5;
query($busy, 'ALTER SYSTEM RESET qml.enable_cleanup');
query($busy, "SELECT count(qml_enqueue('late', queue => 'q', run_at => clock_timestamp() + n * interval '20 ms')) FROM generate_series(50, 200) n");
my $reader = new_session($busy);
$reader->query_safe('BEGIN; SELECT count(*) FROM qml.job');
query($busy, 'SELECT pg_reload_conf()');
wait_for('the log to say so', sub { slurp_file($busy->logfile) =~ /in use and was not dropped/ });
$reader->query_safe('COMMIT');
wait_for('all partitions to go', sub { leaves($busy) == $leaves });
wait_for('the jobs to be ready', sub { query($busy, "SELECT count(*) FROM qml.live WHERE state = 'enqueued'") == 151 });
like(slurp_file($busy->logfile), qr/WARNING:  expired partition "qml\.history_p\d+" is in use and was not dropped/, 'what kept them is in the log');
is(query($busy, "SELECT count(*) FROM qml.live WHERE state = 'scheduled'"), 0, 'no job is late');

# While a partition waits for a reader, what else has expired goes.
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qml.history');
expired_leaf($busy, 2, 10);
wait_for('the partition to be taken out of use', sub { query($busy, 'SELECT count(*) FROM pg_inherits WHERE inhdetachpending') == 1 });
query($busy, q{SELECT qml_try_lock('short', 'me', '1 ms')});
wait_for('the lock to go', sub { query($busy, 'SELECT count(*) FROM qml.lock_data') == 0 });
is(query($busy, 'SELECT count(*) FROM pg_inherits WHERE inhdetachpending'), 1, 'what has expired is removed while a partition waits');
$reader->query_safe('COMMIT');
wait_for('the partition to go', sub { leaves($busy) == $leaves });
$reader->quit;
$busy->stop;
is(join("\n", grep { /PANIC|FATAL|TRAP|could not make/ && !/terminating/ } split /\n/, slurp_file($busy->logfile)), '', 'the log is clean');
done_testing();
