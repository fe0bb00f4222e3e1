# A standby is read and not worked; promoted, it is.  A server that pg_upgrade
# started is left alone.

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

my $primary = background_node('primary', init => { allows_streaming => 1 });
wait_for_process($primary, 'scheduler', 'postgres');

# What is due is due in some seconds, when the primary is gone.
query($primary, <<'SQL');
SELECT qml_schedule_recurring('r', '* * * * * *', 'tick', misfire => 'fire_all');
SELECT qml_create_queue('q');
SELECT qml_enqueue('plain', queue => 'q') FROM generate_series(1, 5);
SELECT qml_enqueue('lost', queue => 'l');
CREATE TABLE claim AS SELECT id, attempt FROM qml_fetch('w', '{l}', 1, '40 s');
SELECT qml_enqueue('delayed', run_at => clock_timestamp() + interval '40 s') FROM generate_series(1, 5);
SELECT qml_register_server('srv');
SQL

$primary->backup('copy');
my $standby = node_of_backup('standby', $primary, 'copy', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby, 'replay');

# ---- a standby

sub no_process
{
	my ($node) = @_;
	return query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'qml %'}) == 0;
}

ok(no_process($standby), 'there are no processes on a standby');
is(query($standby, 'SELECT state, problem FROM qml.database'), 'off|the server is a standby', 'the view says why');
is(query($standby, "SELECT count FROM qml_counts() WHERE state = 'scheduled'"), 5, 'readers work: qml_counts');
is(query($standby, "SELECT count(*) FROM qml.job WHERE method = 'plain'"), 5, 'qml.job');
is( query($standby, "SELECT (qml_job(id)).method FROM claim"), 'lost', 'qml_job');
is(query($standby, q{SELECT sum(count) FROM qml_queue_counts() WHERE queue = 'q'}), 5, 'qml_queue_counts');
is(query($standby, 'SELECT id FROM qml.recurring'), 'r', 'qml.recurring');
is( query($standby, q{SELECT name FROM qml.server}), 'srv', 'qml.server');
is(query($standby, 'SELECT count(*) FROM qml.queue'), 3, 'qml.queue');
is( query($standby, q{SELECT qml_cron_next('0 0 1 1 *', '2024-06-01 00:00+00') = '2025-01-01 00:00+00'}),
	't', 'qml_cron_next');
is(query($standby, q{SELECT qml_can_transition('enqueued', 'processing')}), 't', 'qml_can_transition');

my $id = query($standby, q{SELECT id FROM qml.job WHERE method = 'plain' LIMIT 1});
my $server = query($standby, 'SELECT id FROM qml.server');
foreach my $call (
	q{qml_enqueue('m')},
	q{qml_enqueue('m', queue => 'new')},
	q{qml_enqueue_many('m', ARRAY['{}']::jsonb[])},
	q{qml_fetch()},
	q{qml_fetch(queues => '{none}')},
	qq{qml_fetch_job('$id')},
	qq{qml_run('$id')},
	q{qml_drain()},
	q{qml_drain('none', scheduled => true)},
	qq{qml_heartbeat('$id', 1)},
	qq{qml_progress('$id', 1, '{}')},
	qq{qml_succeed('$id', 1)},
	qq{qml_succeed_many(ARRAY['$id']::uuid[], '{1}')},
	qq{qml_fail('$id', 1, 'x')},
	qq{qml_release('$id', 1)},
	qq{qml_delete('$id')},
	qq{qml_retry('$id')},
	qq{qml_reschedule('$id', now())},
	qq{qml_cancel('$id')},
	qq{qml_update_job('$id', '{"priority": 1}')},
	q{qml_purge_queue('q')},
	q{qml_pause_all()},
	q{qml_resume_all()},
	qq{qml_set_state('$id', 'deleted')},
	q{qml_create_queue('new')},
	q{qml_alter_queue('q', '{}')},
	q{qml_drop_queue('q')},
	q{qml_pause_queue('q')},
	q{qml_resume_queue('q')},
	q{qml_schedule_recurring('s', '@daily', 'm')},
	q{qml_remove_recurring('r')},
	q{qml_pause_recurring('r')},
	q{qml_run_recurring('r')},
	q{qml_promote_due()},
	q{qml_reclaim()},
	q{qml_poll_recurring()},
	q{qml_cleanup()},
	q{qml_maintain()},
	q{qml_register_server('s')},
	qq{qml_heartbeat_server('$server')},
	qq{qml_unregister_server('$server')},
	qq{qml_reclaim_server('$server')},
	q{qml_try_lock('l', 'o', '1 s')},
	q{qml_unlock('l', 'o')},
	q{qml_grant('postgres', 'admin')},
	q{qml_revoke('postgres', 'admin')})
{
	fails_with($standby, '25006', "SELECT $call", "$call is refused");
}

# Nobody would wake a session that waits here.
foreach my $call ("qml_wait('{q}', '1 h')", "qml_wait('{q}', '0')", "qml_wait_for('$id', '1 h')", 'qml_watch()', "qml_watch(1, '0')")
{
	like(fails_with($standby, '25006', "CALL $call", "$call is refused"), qr/HINT:  Call it on the primary/, 'with a hint');
}

# Nothing to do with the primary's settings: reload does not start any either.
set_config($standby, 'qml.cleanup_interval' => '1s');
ok($standby->poll_query_until('postgres', 'SHOW qml.cleanup_interval', '1s'), 'the standby is reloaded');
ok(no_process($standby), 'and there is still no process');

# ---- the primary drops a partition that somebody reads on the standby

set_config($standby, max_standby_streaming_delay => '500ms');
ok($standby->poll_query_until('postgres', 'SHOW max_standby_streaming_delay', '500ms'), 'the standby waits for readers for half a second');
set_config($primary, 'qml.enable_cleanup' => 'off');
my $leaf = expired_leaf($primary, 3, 5);
$primary->wait_for_catchup($standby, 'replay');
my ($read, $canceled) = ('', '');
my $reader = IPC::Run::start([ 'psql', '-XAtq', '-d', $standby->connstr('postgres'), '-c', 'SELECT count(*), pg_sleep(60) FROM qml.job' ],
	'<', \undef, '>', \$read, '2>', \$canceled);
ok( $standby->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"), 'a query reads on the standby');
is(query($primary, "SELECT qml_maintain() ->> 'partitions_dropped'"), 1, 'the primary drops an expired partition');
IPC::Run::finish($reader);
like($canceled, qr/ERROR:  canceling statement due to conflict with recovery\nDETAIL:  User was holding a relation lock for too long\./,
	'the query on the standby is canceled');
$primary->wait_for_catchup($standby, 'replay');
is(query($standby, "SELECT count(*) FROM pg_class WHERE relname = '$leaf'"), 0, 'the partition is gone there');
is(query($standby, "SELECT count(*) FROM qml.job WHERE method = 'plain'"), 5, 'the next query works');

# ---- a base backup that is started beside the original

{
	my $beside = node_of_backup('beside', $primary, 'copy');
	$beside->append_conf('postgresql.conf', 'qml.enabled = off');
	$beside->start;
	is(query($beside, 'SELECT pg_is_in_recovery()'), 'f', 'a backup is started beside the original');
	is(query($beside, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('qml scheduler', 'qml look', 'qml worker')}), 0,
		'with qml.enabled off nothing works there by itself');
	is(query($beside, q{SELECT count(*) FROM qml_fetch('w', '{q}')}), 1, 'but a worker that comes gets jobs');
	query($beside, 'UPDATE qml.instance_data SET database = 0');
	fails_with($beside, '55000', 'SELECT * FROM qml_fetch()', 'made a copy, it is not worked by anybody');
	set_config($beside, 'qml.enabled' => 'on');
	wait_for('the log', sub { slurp_file($beside->logfile) =~ /WARNING:  the jobs in database "postgres" are a copy/ });
	ok(!defined process($beside, 'scheduler', 'postgres'), 'nor by a scheduler');
	query($beside, 'SELECT qml_adopt()');
	wait_for_process($beside, 'scheduler', 'postgres');
	is(query($beside, q{SELECT count(*) FROM qml_fetch('w', '{q}', 9)}), 5, 'adopted, it works its jobs');
	$beside->stop;
}

# ---- promotion

$primary->wait_for_catchup($standby, 'replay');
$primary->stop('immediate');
my $offset = -s $standby->logfile;
my $start = time;
$standby->promote;
my $pid = wait_for_process($standby, 'scheduler', 'postgres');
cmp_ok(time - $start, '<=', 5, sprintf 'a promoted server has its scheduler in time (%.1f s)', time - $start);
ok( $standby->poll_query_until('postgres', <<'SQL'), 'delayed jobs and lost ones become ready');
SELECT count(*) = 6 FROM qml.live WHERE method IN ('delayed', 'lost') AND state = 'enqueued'
SQL
my $now = query($standby, 'SELECT clock_timestamp()');
ok( $standby->poll_query_until('postgres', "SELECT max(occurrence) > '$now' FROM qml.occurrence_data"),
	'ticks go on');
is(wrong_ticks($standby), '0', 'each tick made one job, before and after');
fails_with($standby, 'QM003', 'SELECT qml_succeed(id, attempt) FROM claim', 'who held a lease has lost it');
unlike(slurp_file($standby->logfile), qr/qml (launcher|scheduler).* failed|PANIC|TRAP/,
	'nothing failed');

# ---- as pg_upgrade starts it

query($standby, 'CREATE DATABASE worked');
query($standby, 'CREATE EXTENSION qml', 'worked');
wait_for_process($standby, 'scheduler', 'worked');
$standby->stop;
$offset = -s $standby->logfile;
system_or_bail('pg_ctl', '--pgdata', $standby->data_dir, '--log', $standby->logfile, '--wait',
	'--options', '-b', 'start');
$standby->_update_pid(1);
ok(no_process($standby), 'a server started for pg_upgrade has no processes');
is(query($standby, "SELECT count(*) FROM qml.job WHERE method = 'plain'", 'worked'), 0, 'qml answers');
query($standby, 'DROP DATABASE worked');
ok(no_process($standby), 'nor do any come');
unlike(slurp_file($standby->logfile, $offset), qr/qml (launcher|scheduler|look)/,
	'they did not even start');
$standby->stop;
$standby->start;
wait_for_process($standby, 'scheduler', 'postgres');
pass('afterwards they are back');
$standby->stop;

# ---- a large partition is cut into pieces, while a standby has a snapshot from before

{
	my $rows = 25_000;
	my $conf = "qml.cleanup_interval = 1\nqml.enable_cleanup = off\nautovacuum = off\n";
	my $cutter = background_node('cutter', variant => 'faults', init => { allows_streaming => 1 }, conf => $conf);
	$leaf = expired_leaf($cutter, 3, $rows);
	query($cutter, "SELECT qml_enqueue('plain')");
	$id = query($cutter, "SELECT id FROM qml.$leaf LIMIT 1");
	$cutter->backup('copy');
	my $reader_node = node_of_backup('reader', $cutter, 'copy', variant => 'faults', has_streaming => 1);
	# The feedback keeps what the snapshot needs of the catalogs.
	$reader_node->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1\nmax_standby_streaming_delay = 500ms\n");
	$reader_node->start;
	$cutter->wait_for_catchup($reader_node, 'replay');

	my @sessions = map { new_session($reader_node) } 1 .. 3;
	my ($middle, $late, $locker) = @sessions;
	$_->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1') foreach $middle, $late;
	my $xmin = query($reader_node, 'SELECT min(backend_xmin::text::bigint) FROM pg_stat_activity');
	wait_for('the feedback', sub { query($cutter, "SELECT count(*) FROM pg_stat_replication WHERE backend_xmin::text::bigint <= $xmin") == 1 });
	$locker->query_safe("BEGIN; LOCK TABLE qml.$leaf IN ACCESS SHARE MODE");

	# Two pieces, and no more.
	set_config($cutter, 'qml.enable_cleanup' => 'on', 'qml.faults' => 'shrink.piece_mb:limit:1,shrink.before_piece:always:3');
	wait_for('a few pieces to be cut off', sub { slurp_file($cutter->logfile) =~ /qml fault point "shrink.before_piece" reached/ });
	set_config($cutter, 'qml.enable_cleanup' => 'off');
	$cutter->wait_for_catchup($reader_node, 'replay');
	is(query($cutter, 'SELECT count(*) FROM pg_inherits WHERE inhdetachpending'), 1, 'pieces: the primary does not wait for a snapshot of the standby');
	like(slurp_file($reader_node->logfile), qr/FATAL: .*terminating connection due to conflict with recovery\n.*DETAIL:  User was holding a relation lock for too long\./,
		'pieces: who has locked the partition there is in the way for half a second');

	my $left = $middle->query_safe('SELECT count(*) FROM qml.history');
	ok(0 < $left && $left < $rows, "pieces: with the old snapshot the rest can be read ($left of $rows)");
	is($middle->query_safe("SELECT count(*) FROM qml.$leaf"), $left, 'pieces: also by itself');
	cmp_ok($middle->query_safe("SET LOCAL enable_seqscan = off; SELECT count(*) FROM qml.$leaf WHERE id = '$id'") =~ s/.*\n//sr, '<=', 1, 'pieces: and be searched');
	cmp_ok($middle->query_safe("SELECT count(id) FROM qml_job('$id')"), '<=', 1, 'pieces: qml_job looks there, and meets no error');
	is(query($reader_node, 'SELECT count(*) FROM qml.history'), 0, 'pieces: with a new one there is nothing');
	$middle->query_safe('COMMIT');

	set_config($cutter, 'qml.enable_cleanup' => 'on', 'qml.faults' => 'shrink.piece_mb:limit:1');
	wait_for('the partition to go', sub { query($cutter, "SELECT to_regclass('qml.$leaf') IS NULL") eq 't' });
	$cutter->wait_for_catchup($reader_node, 'replay');
	is($late->query_safe('SELECT count(*) FROM qml.history'), 0, 'pieces: when it is gone, the old snapshot has nothing of it');
	is($late->query_safe('SELECT count(*) FROM qml.job'), 1, 'pieces: and all other jobs');
	$late->query_safe('COMMIT');
	unlike(slurp_file($reader_node->logfile), qr/PANIC|TRAP|could not (open|read|truncate)|XX\d{3}/, 'pieces: nothing worse on the standby');
	$_->quit foreach $middle, $late;
	eval { $locker->quit };
}

done_testing();
