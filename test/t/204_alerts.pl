# Alerts: each begins and ends once, is told of once each time to hooks, by NOTIFY and to those who
# watch, does not flap, comes in few rows however many queues there are, goes on after a crash, and
# costs no write while nothing changes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

# Seconds for which a value must be low, and a check may fail.
my $CALM = 3;

# ---- when one begins and ends, without a server

{
	my ($out, $err) = ('', '');
	IPC::Run::run([ "$FindBin::RealBin/../alert/run" ], '<', \undef, '>', \$out, '2>', \$err);
	is($?, 0, 'test/alert/run') or diag($out, $err);
	like($out, qr/^[1-9]\d+ passed, 0 failed$/m, 'nothing failed');
}

my $FAULTS = "alerts.calm_s:limit:$CALM, alerts.patience_s:limit:$CALM, alerts.check_ms:limit:1000, stats.minute_s:limit:1";
my $node = background_node('alerts', variant => 'faults', init => { allows_streaming => 1 }, conf => <<"CONF");
autovacuum = off
qml.workers = 2
qml.log_failures = off
qml.warn_idle = off
qml.alert_interval = 1s
qml.faults = '$FAULTS'
CONF

query($node, <<'SQL');
CREATE TABLE told (n bigserial, told jsonb);
CREATE FUNCTION tell(told jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO told (told) VALUES ($1)';
CREATE FUNCTION fill(queue text, jobs int, method text DEFAULT 'm') RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM qml_enqueue_many(method, array_fill('{}'::jsonb, ARRAY[jobs]), queue)
$$;
SELECT qml_register_hook('tell', 'tell', options => '{"after_commit": true, "alerts": true}');
SQL
wait_for_process($node, 'scheduler', 'postgres');

# Alerts of a kind that are active, as "queue/method …".
sub active
{
	my ($kind) = @_;
	return query($node, "SELECT coalesce(string_agg(concat_ws('/', queue, method), ' ' ORDER BY queue, method), '') FROM qml.alert WHERE until IS NULL AND kind = '$kind'");
}

sub becomes
{
	my ($kind, $wanted, $name) = @_;
	my $last;

	eval { wait_for($name, sub { return ($last = active($kind)) eq $wanted; }); 1; };
	is($last, $wanted, $name) or diag(query($node, 'SELECT * FROM qml.alert ORDER BY since'));
	return;
}

# What hooks were told of a kind, as "begin end …" for each alert, once all jobs of hooks are done.
sub told
{
	my ($kind) = @_;
	wait_for('hooks to be called', sub {
			return query($node, q{SELECT count(*) FROM qml.live WHERE queue_id IN (SELECT id FROM qml.queue_data WHERE name LIKE 'qml.%')}) == 0;
		});
	return query($node, <<"SQL");
SELECT coalesce(string_agg(concat_ws('/', queue, method, events), ' ' ORDER BY since), '')
FROM (SELECT told->'alert'->>'queue' AS queue, told->'alert'->>'method' AS method, min(told->'alert'->>'since') AS since,
		string_agg(told->>'event', '-' ORDER BY told->>'event') AS events
	FROM told WHERE told->'alert'->>'kind' = '$kind' GROUP BY told->'alert'->>'id', 1, 2) t
SQL
}

# ---- each bound of a queue

my $listener = new_session($node);
$listener->query_safe('LISTEN "qml.alert"');

# Notifications that have come: event => number.
my %heard;
sub listen_now
{
	my $out = $listener->query_safe('SELECT 1');
	$heard{$1}++ while $out =~ /notification "qml\.alert" with payload "\{"id": "[-0-9a-f]{36}", "event": "(begin|end)"\}"/g;
	return;
}

query($node, q{SELECT qml_create_queue('q', '{"max_age": "2 s", "max_wait": 1, "max_run": "3 seconds", "retry": {"delay": "1 hour"}}')});
is(query($node, q{SELECT options->>'max_run' FROM qml.queue WHERE name = 'q'}), '3 seconds', 'the view shows bounds');
query($node, q{SELECT fill('q', 3)});
is(active('max_age'), '', 'nothing at first');
becomes('max_age', 'q', 'the oldest ready job is too old');
my $id = query($node, q{SELECT id FROM qml.alert WHERE kind = 'max_age'});
is(query($node, q{SELECT value > 2, bound, until IS NULL, since <= now(), detail ~ 'queue "q" has waited for \d+ seconds' FROM qml.alert WHERE kind = 'max_age'}),
	't|2|t|t|t', 'with its value and bound');
is(query($node, q{SELECT ok FROM qml_status() WHERE check_name = 'alerts'}), 'f', 'qml_status() shows it');
like(query($node, 'SELECT qml_metrics()'), qr/^qml_alert_active\{kind="max_age",queue="q",method=""\} 1$/m, 'and qml_metrics()');
is(told('max_age'), 'q/begin', 'a hook is told of its begin');
wait_for('its value to be noted again', sub { return query($node, q{SELECT value >= 4 FROM qml.alert WHERE kind = 'max_age'}) eq 't'; });
is(told('max_age'), 'q/begin', 'nobody is told of that');

# While the queue is paused its jobs wait on purpose.
query($node, q{SELECT qml_pause_queue('q')});
wait_for('it to be calm', sub { return query($node, q{SELECT calm_since IS NOT NULL FROM qml.alert_data WHERE kind = 'max_age'}) eq 't'; });
query($node, q{SELECT qml_resume_queue('q')});
wait_for('it to be back', sub { return query($node, q{SELECT calm_since IS NULL FROM qml.alert_data WHERE kind = 'max_age'}) eq 't'; });
is(query($node, q{SELECT count(*), count(until) FROM qml.alert WHERE kind = 'max_age'}), '1|0', 'a short calm is no end');
is(told('max_age'), 'q/begin', 'of which nobody is told either');

query($node, q{CREATE TABLE claim AS SELECT id, attempt FROM qml_fetch('w', 'q', 3)});
becomes('max_wait', 'q', 'jobs had waited too long');
becomes('max_run', 'q', 'a job runs for too long');
becomes('max_age', '', 'no job waits any more');
is(query($node, "SELECT until > since FROM qml.alert WHERE id = '$id'"), 't', 'the alert has an end');
query($node, 'SELECT qml_succeed(id, attempt) FROM claim');
becomes('max_wait', '', 'the alert about waits ends when they are some minutes ago');
becomes('max_run', '', 'and that about runs');
is(told($_), 'q/begin-end', "$_ was told of twice") foreach qw(max_age max_wait max_run);

# ---- what hooks are told

is(query($node, q{SELECT string_agg(key, ' ' ORDER BY key) FROM (SELECT jsonb_object_keys(told->'alert') AS key FROM told WHERE n = 1) t}),
	'bound detail id kind method queue since until value', 'all of the alert');
is(query($node, q{SELECT (told->'alert'->>'until')::timestamptz > (told->'alert'->>'since')::timestamptz FROM told WHERE told->'alert'->>'kind' = 'max_age' AND told->>'event' = 'end'}),
	't', 'when it began and ended');

# ---- methods, and failure rates

query($node, <<'SQL');
CREATE FUNCTION work(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.payload ? 'fail' THEN RAISE 'oops'; END IF;
	RETURN NULL;
END $$;
SELECT qml_register_handler('strict', 'work', '{"max_failure_rate": 0.1, "max_retries": 0}'),
	qml_register_handler('lax', 'work', '{"max_failure_rate": 1, "max_retries": 0}');
SELECT qml_create_queue('mixed', '{"max_failure_rate": 0.9}');
SELECT count(*) FROM qml_enqueue_many('strict', array_fill('{}'::jsonb, ARRAY[8]), 'mixed');
SELECT count(*) FROM qml_enqueue_many('strict', array_fill('{"fail": 1}'::jsonb, ARRAY[4]), 'mixed');
SELECT count(*) FROM qml_enqueue_many('lax', array_fill('{"fail": 1}'::jsonb, ARRAY[12]), 'mixed');
SELECT count(*) FROM qml_enqueue_many('lax', array_fill('{"fail": 1}'::jsonb, ARRAY[20]), 'plain');
SELECT count(*) FROM qml_enqueue_many('lax', array_fill('{"fail": 1}'::jsonb, ARRAY[9]), 'few');
SQL
becomes('max_failure_rate', 'mixed/strict plain', 'a method, and by the setting a queue; not one with few attempts');
is(query($node, q{SELECT bound, round(value::numeric, 3) FROM qml.alert WHERE kind = 'max_failure_rate' ORDER BY queue, method}),
	"0.1|0.333\n0.5|1.000", 'with their rates');
becomes('max_failure_rate', '', 'they end when the failures are some minutes ago');

# One runs, the others wait for it.
query($node, <<'SQL');
SELECT qml_create_queue('two', '{"max_age": "1 hour"}');
CREATE FUNCTION sleeps(job qml.job) RETURNS jsonb LANGUAGE sql AS $$ SELECT 'null'::jsonb FROM pg_sleep(20) $$;
SELECT qml_register_handler('slow', 'sleeps', '{"max_age": "2 s", "max_run": "4 s", "concurrency": 1}');
SELECT fill('two', 3, 'other'), fill('two', 3, 'slow');
SQL
becomes('max_age', 'two/slow', 'the age of a method in a queue, and not that of the queue');
becomes('max_run', 'two/slow', 'a job of the method that runs');
query($node, q{SELECT count(*) FROM qml.job WHERE queue = 'two' AND qml_delete(id)});
query($node, q{SELECT qml_unregister_handler('slow')});
becomes('max_age', '', 'they end with the handler');
becomes('max_run', '', 'both');

# ---- a bound that goes, and a queue

query($node, q{SELECT qml_create_queue('gone', '{"max_age": 1}'), fill('gone', 1), qml_create_queue('eased', '{"max_age": 1}'), fill('eased', 1)});
becomes('max_age', 'eased gone', 'two queues');
query($node, q{SELECT qml_alter_queue('eased', '{"max_age": null}'), qml_purge_queue('gone'), qml_drop_queue('gone')});
becomes('max_age', '', 'without a bound or a queue an alert ends');
query($node, q{SELECT qml_purge_queue('eased')});
is(query($node, q{SELECT after->'options' ? 'max_age', before->'options'->>'max_age' FROM qml.audit WHERE action = 'qml_alter_queue' AND object = 'eased'}), 'f|1',
	'who has changed a bound is recorded');

# ---- checks

query($node, q{CREATE FUNCTION doomed(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'});
query($node, q{SELECT qml_register_handler('doomed', 'doomed')});
query($node, 'DROP FUNCTION doomed');
wait_for('a handler that is broken', sub { return query($node, q{SELECT count(*) FROM qml.alert WHERE kind = 'handlers' AND until IS NULL AND detail ~ 'doomed'}) == 1; });
query($node, q{SELECT qml_unregister_handler('doomed')});
like(told('handlers'), qr{^begin}, 'a hook is told of it');
wait_for('its end', sub { return query($node, q{SELECT count(*) FROM qml.alert WHERE kind = 'handlers' AND until IS NOT NULL}) == 1; });
query($node, q{SELECT qml_schedule_recurring('never', '0 0 1 1 *', 'm', queue => 'r')});
query($node, q{UPDATE qml.recurring_data SET error = 'oops' WHERE id = 'never'});
wait_for('a schedule that does not fire', sub { return query($node, q{SELECT count(*) FROM qml.alert WHERE kind = 'recurring' AND until IS NULL AND detail !~ 'oops|never'}) == 1; });
query($node, q{SELECT qml_remove_recurring('never')});
query($node, q{SELECT qml_register_server('lost', 1)});
query($node, q{UPDATE qml.server_data SET dead_at = now()});
wait_for('a server that was given up', sub { return query($node, q{SELECT count(*) FROM qml.alert WHERE kind = 'dead_servers' AND until IS NULL}) == 1; });
query($node, 'DELETE FROM qml.server_data');
wait_for('all of them to end', sub { return query($node, 'SELECT count(*) FROM qml.alert WHERE until IS NULL') == 0; });

# ---- hooks that fail, and are not allowed

query($node, <<'SQL');
CREATE ROLE other LOGIN;
SELECT qml_grant('other', 'admin');
CREATE FUNCTION fails(told jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'hook error'; END $$;
SELECT qml_register_hook('fails', 'fails', options => '{"after_commit": true, "alerts": true}');
SELECT qml_create_queue('again', '{"max_age": 1}'), fill('again', 1);
SELECT qml_enqueue('m', queue => 'again', delay => '3 s') IS NOT NULL;
SQL
becomes('max_age', 'again', 'with a hook that fails an alert begins all the same');
like(told('max_age') . query($node, q{SELECT count(*) FROM qml.job WHERE state = 'enqueued' AND queue = 'again'}), qr{again/begin}, 'and others are told');
wait_for('the scheduler to go on', sub { return query($node, q{SELECT count(*) FROM qml.job WHERE state = 'enqueued' AND queue = 'again'}) == 2; });
query($node, q{SELECT qml_unregister_hook('fails')});
query($node, q{SELECT qml_purge_queue('again')});
becomes('max_age', '', 'and it ends');

# ---- watching

{
	query($node, q{CREATE ROLE eye LOGIN; SELECT qml_grant('eye', 'monitor', 'seen'), qml_create_queue('seen', '{"max_age": "2 s"}'), fill('seen', 1)});
	my $session = new_session($node, undef, extra_params => [ '-U', 'eye' ]);
	my $version = $session->query_safe(q{CALL qml_watch(NULL, '1 s')});
	my $woken = 0;
	my $end = time + 30;
	while (time < $end && !$woken)
	{
		$version = $session->query_safe("CALL qml_watch($version, '10 s')");
		$woken = $session->query_safe(q{SELECT count(*) FROM qml.alert WHERE queue = 'seen'});
	}
	is($woken, 1, 'who watches is woken for an alert');
	is($session->query_safe(q{SELECT string_agg(DISTINCT coalesce(queue, '-'), ' ') FROM qml.alert}), 'seen', 'and sees those of its queue alone');
	is($session->query_safe(q{SELECT detail ~ 'seen' AND detail !~ 'again' FROM qml_status() WHERE check_name = 'alerts'}), 't', 'in qml_status() too');
	$session->quit;
}

# ---- a crash, and errors

my $begun = query($node, q{SELECT id FROM qml.alert WHERE queue = 'seen' AND until IS NULL});
$listener->quit;
end_sessions($node);
$node->stop('immediate');
$node->start;
wait_for_process($node, 'scheduler', 'postgres');
sleep 2 * $CALM;
is(query($node, q{SELECT id, until IS NULL FROM qml.alert WHERE queue = 'seen'}), "$begun|t", 'after a crash the alert goes on');
is(told('max_age') =~ s/^.* //r, 'seen/begin', 'and has not begun again');

query($node, q{SELECT qml_create_queue('fault', '{"max_age": 1}')});
set_config($node, 'qml.faults' => "$FAULTS, alerts.before_commit:error");
my $pid = process($node, 'scheduler', 'postgres');
query($node, "SELECT pg_terminate_backend($pid), fill('fault', 1)");
wait_for('an alert after an error', sub { return active('max_age') eq 'fault seen'; });
is(told('max_age') =~ s/^.* //r, 'fault/begin', 'a pass that fails is undone, and told of by the next one only');
set_config($node, 'qml.faults' => $FAULTS);
query($node, q{SELECT qml_purge_queue('fault'), qml_purge_queue('seen')});
becomes('max_age', '', 'they end');

# The table is locked: the scheduler does not wait for it.
{
	my $locker = new_session($node);
	$locker->query_safe('BEGIN; LOCK TABLE qml.alert_data IN ACCESS EXCLUSIVE MODE');
	query($node, q{SELECT qml_enqueue('m', queue => 'free', delay => '2 s')});
	wait_for('a delayed job', sub { return query($node, q{SELECT count(*) FROM qml.job WHERE queue = 'free' AND state = 'enqueued'}) == 1; });
	pass('a lock on the table of alerts holds up nothing else');
	$locker->query_safe('COMMIT');
	$locker->quit;
	query($node, q{SELECT qml_purge_queue('free')});
}

# ---- no storm

my $QUEUES = 1000;
query($node, 'TRUNCATE told');
$listener = new_session($node);
$listener->query_safe('LISTEN "qml.alert"');
%heard = ();
query($node, qq{SELECT count(qml_create_queue('s' || n, '{"max_age": 1}')) FROM generate_series(1, $QUEUES) n});
query($node, qq{SELECT count(qml_enqueue('m', queue => 's' || n)) FROM generate_series(1, $QUEUES) n});
wait_for('the alerts of many queues', sub {
		return query($node, q{SELECT count(*) FROM qml.alert WHERE kind = 'max_age' AND until IS NULL AND queue IS NULL AND value >= 900}) == 1;
	});
sleep 3;
is(query($node, q{SELECT count(queue), count(*) FROM qml.alert WHERE kind = 'max_age' AND until IS NULL}), '20|21', 'few have their own, and one is for all others');
like(query($node, q{SELECT detail FROM qml.alert WHERE kind = 'max_age' AND until IS NULL AND queue IS NULL}), qr/^others over their bounds: "s\d+".* and \d+ others$/, 'which names some');
listen_now();
cmp_ok($heard{begin}, '<=', 23, 'few notifications');
is(query($node, q{SELECT count(*) FROM told WHERE told->'alert'->>'kind' = 'max_age'}) + 0, 21, 'few calls of hooks') if told('max_age');
# The time for a look is over soon: what is not looked at changes nothing.
set_config($node, 'qml.faults' => "$FAULTS, alerts.look_ms:limit:1");
query($node, 'SELECT pg_terminate_backend(' . process($node, 'scheduler', 'postgres') . ')');
sleep 2 * $CALM;
is(query($node, q{SELECT count(queue) FROM qml.alert WHERE kind = 'max_age' AND until IS NULL}), 20, 'a look that is cut short ends no alert of a queue');
set_config($node, 'qml.faults' => $FAULTS);
query($node, 'SELECT pg_terminate_backend(' . process($node, 'scheduler', 'postgres') . ')');
query($node, qq{SELECT count(qml_purge_queue('s' || n)) FROM generate_series(1, $QUEUES) n});
wait_for('all of them to end', sub { return query($node, 'SELECT count(*) FROM qml.alert WHERE until IS NULL') == 0; });
listen_now();
is($heard{begin}, $heard{end}, 'each has ended once');
$listener->quit;

# ---- idle

# The transaction ids and the WAL, when both stand still for some passes; undef: they do not.
sub standing
{
	my ($seconds) = @_;
	my $sql = 'SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())';
	my $before = query($node, $sql);
	sleep $seconds;
	return query($node, $sql) eq $before;
}
query($node, 'SELECT qml_cleanup(); CHECKPOINT');
wait_for('nothing to be written without alerts', sub { return standing(5); });
pass('while nothing is over its bound, nothing is written');
query($node, q{SELECT qml_create_queue('old', '{"max_age": 1}'), fill('old', 1)});
query($node, q{UPDATE qml.live SET ready_at = now() - interval '1 hour'; CHECKPOINT});
becomes('max_age', 'old', 'an old job');
wait_for('nothing to be written with an alert', sub { return standing(5); });
pass('while an alert goes on, nothing is written');

# ---- ages, a dump, a standby, and without a scheduler

query($node, q{UPDATE qml.alert_data SET until = until - interval '31 days', since = since - interval '31 days' WHERE kind = 'handlers'; SELECT qml_cleanup()});
is(query($node, q{SELECT count(*) FROM qml.alert WHERE kind = 'handlers'}), 0, 'alerts that ended long ago are removed');

my $backup = $node->backup_dir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $backup, $node->connstr('postgres') ], 'a dump');
query($node, 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', $backup, $node->connstr('copy') ], 'is restored');
my $ALL = q{SELECT md5(string_agg(a::text, '' ORDER BY id)), count(*) FROM qml.alert a WHERE id IS NOT NULL};
is(query($node, $ALL, 'copy'), query($node, $ALL), 'with all alerts');
is(query($node, q{SELECT options->>'max_age' FROM qml.queue WHERE name = 'old'}, 'copy'), 1, 'and bounds');
is(query($node, q{SELECT kind, queue IS NULL, detail ~ 'copy' FROM qml.alert WHERE id IS NULL}, 'copy'), 'scheduler|t|t', 'a copy shows that it has no scheduler');

$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('alerts_standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is(query($standby, $ALL), query($node, $ALL), 'a standby shows them');
is(query($standby, q{SELECT count(*) FROM qml.alert WHERE id IS NULL}), 0, 'and does not miss a scheduler');
$standby->stop;

is(query($node, q{SELECT count(*) FROM qml.alert WHERE id IS NULL}), 0, 'there is a scheduler');
set_config($node, 'qml.enabled' => 'off');
wait_without($node, 'postgres');
is(query($node, q{SELECT kind, until IS NULL, value >= 0, detail FROM qml.alert WHERE id IS NULL}), 'scheduler|t|t|qml.enabled is off: no background process works in any database',
	'the view says that there is none');
is(query($node, q{SET ROLE eye; SELECT count(*) FROM qml.alert WHERE id IS NULL}) =~ s/^SET\n//r, 0, 'but not to who monitors one queue');
set_config($node, 'qml.enabled' => undef, 'qml.alert_interval' => 0);
wait_for_process($node, 'scheduler', 'postgres');
query($node, q{SELECT qml_create_queue('off', '{"max_age": 1}'), fill('off', 1)});
sleep 3;
is(query($node, q{SELECT count(*) FROM qml.alert WHERE queue = 'off'}), 0, 'without an interval none begins');

done_testing();
