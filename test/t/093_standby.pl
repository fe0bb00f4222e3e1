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
my $install_path = $ENV{QML_INST_RELEASE};
my $standby = PostgreSQL::Test::Cluster->new('standby',
	defined $install_path ? (install_path => $install_path) : ());
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby, 'replay');

# ---- a standby

sub no_process
{
	my ($node) = @_;
	return query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'qml %'}) == 0;
}

ok(no_process($standby), 'there are no processes on a standby');
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
	qq{qml_heartbeat('$id', 1)},
	qq{qml_progress('$id', 1, '{}')},
	qq{qml_succeed('$id', 1)},
	qq{qml_succeed_many(ARRAY['$id']::uuid[], '{1}')},
	qq{qml_fail('$id', 1, 'x')},
	qq{qml_release('$id', 1)},
	qq{qml_delete('$id')},
	qq{qml_retry('$id')},
	qq{qml_reschedule('$id', now())},
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

# Nothing to do with the primary's settings: reload does not start any either.
set_config($standby, 'qml.cleanup_interval' => '1s');
ok($standby->poll_query_until('postgres', 'SHOW qml.cleanup_interval', '1s'), 'the standby is reloaded');
ok(no_process($standby), 'and there is still no process');

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

done_testing();
