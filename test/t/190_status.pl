# qml_status(): each check is broken and mended, and says so both times.  A remedy that is a
# statement is what mends it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $node = background_node('status', init => { allows_streaming => 1 }, conf => <<'CONF');
qml.max_workers = 20
qml.dead_server_timeout = 60s
synchronous_commit = off
qml.alert_interval = 0
CONF
my %tried; # checks that were seen to be ok and not ok, as "check ok"

# A column of a check, in a database of a server.
sub look
{
	my ($column, $check, %opt) = @_;
	return ask($opt{node} // $node, "SELECT $column FROM qml_status() WHERE check_name = '$check'", $opt{dbname});
}

# Waits until a check is (not) ok, and has such a detail.
sub becomes
{
	my ($ok, $check, $detail, %opt) = @_;
	my $last = '';

	eval {
		wait_for("$check to be $ok", sub { ($last = look('ok, detail', $check, %opt)) =~ /^\Q$ok\E\|.*$detail/s });
		1;
	} or diag("$check: $last");
	like($last, qr/^\Q$ok\E\|.*$detail/s, "$check is " . ($ok eq 't' ? 'ok' : 'not ok') . ": $detail");
	$tried{"$check $ok"} = 1;
	return;
}

sub good { my ($check, $detail, %opt) = @_; becomes('t', $check, $detail, %opt); is(look('remedy', $check, %opt), '', "$check: no remedy"); return; }
sub bad { my ($check, $detail, %opt) = @_; return becomes('f', $check, $detail, %opt); }

# Executes the remedy of a check, as one statement.
sub mend
{
	my ($check, %opt) = @_;
	my $remedy = look('remedy', $check, %opt);
	my $detail = look('detail', $check, %opt);

	like($remedy, qr/^[A-Z][^;]*;$/s, "$check: the remedy is a statement: $remedy");
	query($opt{node} // $node, "SELECT remedy FROM qml_status() WHERE check_name = '$check' \\gexec", $opt{dbname});
	return if $remedy !~ /^ALTER SYSTEM/;
	like($detail, qr/; the remedy takes effect with SELECT pg_reload_conf\(\)$/, "$check: the detail says how it takes effect");
	($opt{node} // $node)->reload;
	return;
}

wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE FUNCTION work(job qml.job) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION tell(qml.job, qml.job_state, qml.job_state) RETURNS void LANGUAGE sql AS '';
REVOKE EXECUTE ON FUNCTION tell FROM PUBLIC;
CREATE FUNCTION wrap(qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT qml_next()';
REVOKE EXECUTE ON FUNCTION wrap FROM PUBLIC;
CREATE ROLE runner LOGIN;
CREATE ROLE planner LOGIN;
SELECT qml_grant('planner', 'enqueue', 'plans');
SQL

# ---- all is well at first

wait_for('all to be well', sub { ask($node, 'SELECT count(*) FROM qml_status() WHERE ok IS NOT TRUE') eq '0' });
is(ask($node, "SELECT string_agg(check_name, ' ') FROM qml_status() WHERE remedy IS NOT NULL"), '', 'and nothing needs a remedy');
my @checks = split / /, ask($node, "SELECT string_agg(check_name, ' ') FROM qml_status()");

# ---- it is cheap: no job is read

# Blocks of the tables of jobs and of their indexes that the session has asked for.
my $BLOCKS = <<'SQL';
SELECT sum(pg_stat_get_blocks_fetched(oid)) FROM pg_class
WHERE relnamespace = 'qml'::regnamespace AND relname ~ '^(live|history)' AND relkind IN ('r', 'i')
SQL
query($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[20000]), 'ballast')");
wait_for('numbers', sub { look('ok', 'queues') ne '' });
my $reader = new_session($node);
$reader->query_safe('SELECT count(*) FROM qml_status()');
my $before = $reader->query_safe("SELECT pg_stat_force_next_flush(); $BLOCKS") =~ s/\s//gr;
my $pages = json(
	$reader->query_safe('EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM qml_status()'))->[0]{Plan};
is($reader->query_safe("SELECT pg_stat_force_next_flush(); SELECT pg_stat_clear_snapshot(); $BLOCKS") =~ s/\s//gr,
	$before, 'no page of a table of jobs is read');
cmp_ok($pages->{'Shared Hit Blocks'} + $pages->{'Shared Read Blocks'}, '<=', 100, 'few pages are read at all');
$reader->query_safe("EXPLAIN (ANALYZE, BUFFERS) SELECT count(*) FROM qml.job WHERE queue = 'ballast'");
isnt($reader->query_safe("SELECT pg_stat_force_next_flush(); SELECT pg_stat_clear_snapshot(); $BLOCKS") =~ s/\s//gr,
	$before, 'the measure can tell');
$reader->quit;

# ---- queues that nobody serves

bad('queues', '"ballast" \\(20000 ready jobs, no fetch of them since the server started');
query($node, q{CREATE TABLE held AS SELECT id, attempt FROM qml_fetch('w', 'ballast', 1, '1 h')});
good('queues', 'somebody to take them');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue = 'ballast' AND state IN ('enqueued', 'processing')});

# Whoever has fetched counts for as long as a server may be silent.
query($node, q{SELECT qml_enqueue('m', queue => 'lonely')});
query($node, q{SELECT count(*) FROM qml_fetch('w', 'lonely', methods => '{other}')});
bad('queues', '"lonely" \\(1 ready job');
query($node, q{SELECT id, attempt, qml_release(id, attempt) FROM qml_fetch('w', 'lonely')});
good('queues', 'somebody');
set_config($node, 'qml.dead_server_timeout' => '1s');
bad('queues', '"lonely" \\(1 ready job, no fetch of them for');
# Somebody who waits for such jobs, and finds none that he may have.
my $waiter = new_session($node);
query($node, q{SELECT qml_pause_queue('lonely')});
$waiter->query_until(qr/waits/, "\\echo waits\nCALL qml_wait('{lonely}', '600 s');\n");
wait_for('a session to wait', sub { query($node, q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL qml_wait%' AND wait_event_type = 'Extension'}) eq '1' });
# For longer than the look counts with which it began to wait.  Its wake-up by the end of the pause is not needed.
sleep 2;
query($node, q{UPDATE qml.queue_data SET paused = false WHERE name = 'lonely'});
is(look('ok', 'queues'), 't', 'who waits counts');
set_config($node, 'qml.dead_server_timeout' => '60s');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue = 'lonely'});
query($node, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL qml_wait%'});
eval { $waiter->quit };

# Jobs that have a handler are not for those who fetch; beside them are jobs that nobody takes.
query($node, q{SELECT qml_register_handler('work', 'work')});
query($node, q{SELECT qml_pause_queue('mixed') WHERE qml_create_queue('mixed'); SELECT qml_enqueue('work', queue => 'mixed')});
good('queues', 'somebody');
query($node, q{SELECT qml_resume_queue('mixed')});
settle($node, 'work');
query($node, q{SELECT qml_enqueue('unknown', queue => 'mixed')});
bad('queues', '"mixed" \\(1 ready job');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue = 'mixed'});
good('queues', '0 queues have ready jobs');

# ---- paused queues

query($node, q{SELECT qml_pause_queue('mixed', 'why not')});
bad('paused', '1 queue is paused: "mixed" \\(since .* by role ".*": why not\\)');
mend('paused');
good('paused', 'no queue');
query($node, q{SELECT qml_pause_all('flood')});
bad('pause_all', 'all queues are paused since .* by role ".*": flood');
mend('pause_all');
good('pause_all', 'not all queues');

# ---- bulk operations

good('bulk', '0 bulk operations are under way, 0 paused');
query($node, q{CREATE ROLE bulker; SELECT qml_grant('bulker', 'admin', 'mixed')});
query($node, q{BEGIN; SET LOCAL ROLE bulker; SELECT qml_bulk('retry', 'queue:mixed'); RESET ROLE; SELECT qml_revoke('bulker', 'admin', 'mixed'); COMMIT});
bad('bulk', '1 bulk operation has failed, as qml.bulk says: "');
query($node, q{SELECT qml_grant('bulker', 'admin', 'mixed')});
mend('bulk');
good('bulk', '0 bulk operations are under way, 0 paused');
query($node, q{INSERT INTO qml.bulk_data (id, made_at, state_at, made_by, state, action, timezone, query, options, not_before)
	VALUES ('00000000-0000-7000-8000-0000000000b0', now(), now() - interval '2 min', current_user::regrole, 'running', 'retry', 'UTC', 'queue:mixed', '{}', now() + interval '1 h')});
good('bulk', '1 bulk operation is under way, 0 paused');
query($node, q{ALTER SYSTEM SET qml.enable_scheduler = off});
$node->reload;
query($node, q{UPDATE qml.bulk_data SET not_before = NULL WHERE state = 'running'});
bad('bulk', '1 bulk operation stands still, though not paused');
mend('bulk');
query($node, q{ALTER SYSTEM RESET qml.enable_scheduler});
$node->reload;
good('bulk', '0 bulk operations are under way, 0 paused');

# ---- switches and what is missing for processes

foreach my $switch (
	[ 'enabled', 'qml.enabled' ], [ 'enable_scheduler', 'qml.enable_scheduler' ],
	[ 'enable_cleanup', 'qml.enable_cleanup' ])
{
	my ($check, $setting) = @$switch;

	query($node, "ALTER SYSTEM SET $setting = off");
	$node->reload;
	bad($check, "$setting is off");
	mend($check);
	good($check, "$setting is on");
	query($node, "ALTER SYSTEM RESET $setting");
}

query($node, "ALTER SYSTEM SET qml.databases = 'nosuch'");
$node->reload;
bad('database', 'not named in qml.databases');
bad('scheduler', 'no scheduler works in this database');
is(look('remedy', 'scheduler'), '', 'what follows from another check has no remedy of its own');
mend('database');
is(query($node, 'SHOW qml.databases'), 'nosuch, postgres', 'the others are still named');
good('database', 'covers this database');
query($node, 'ALTER SYSTEM RESET qml.databases');
$node->reload;

query($node, 'UPDATE qml.instance_data SET database = 1');
bad('adopted', 'a copy');
mend('adopted');
good('adopted', 'belong to this database');

# The server starts it again after a second.
kill 'TERM', wait_for_process($node, 'launcher');
bad('launcher', 'does not run');
good('launcher', 'runs');

# ---- a scheduler that stands still

my $scheduler = wait_for_process($node, 'scheduler', 'postgres');
good('scheduler', "runs \\(pid $scheduler\\)");
kill 'STOP', $scheduler;
query($node, q{SELECT qml_enqueue('m', queue => 'later', delay => '1 s')});
bad('scheduler', 'something has been due');
set_config($node, 'qml.heartbeat_interval' => '1s');
bad('scheduler', 'has sent no heartbeat for');
like(look('remedy', 'scheduler'), qr/pid = $scheduler/, 'the remedy leads to it');
kill 'CONT', $scheduler;
good('scheduler', 'runs');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue = 'later'});

# ---- workers and slots

query($node, 'ALTER SYSTEM SET qml.workers = 0');
$node->reload;
bad('workers', 'qml.workers is 0');
mend('workers');
good('workers', 'up to 5');
query($node, 'ALTER SYSTEM RESET qml.workers; ALTER SYSTEM SET qml.max_workers = 2');
$node->reload;
bad('process_slots', '1 worker, fewer than qml.workers \\(5\\)');
like(look('remedy', 'process_slots'), qr/^ALTER SYSTEM SET qml.max_workers = 6;$/, 'the remedy has the number');
query($node, 'CREATE DATABASE second; ALTER SYSTEM SET qml.max_workers = 2');
query($node, 'CREATE EXTENSION qml', 'second');
bad('process_slots', '1 scheduler, and 2 databases take turns');
query($node, 'ALTER SYSTEM RESET qml.max_workers');
$node->reload;
good('process_slots', '8 processes');
end_sessions($node);
query($node, 'DROP DATABASE second WITH (FORCE)');

# ---- handlers, hooks, middleware

query($node, q{SELECT qml_register_handler('other work', 'work', '{"run_as": "runner"}')});
query($node, 'REVOKE EXECUTE ON FUNCTION work FROM PUBLIC');
bad('handlers', '1 handler cannot run: "other work" \\(permission denied for function');
query($node, 'GRANT EXECUTE ON FUNCTION work TO runner');
good('handlers', '2 handlers can run');

query($node, q{SELECT qml_register_hook('told', 'tell'), qml_register_middleware('around', 'wrap')});
good('hooks', '1 hook can be called');
good('middleware', '1 middleware can be called');
query($node, 'GRANT EXECUTE ON FUNCTION tell, wrap TO runner');
bad('hooks', 'not called: "told" \\(');
bad('middleware', 'not called: "around" \\(');
query($node, 'REVOKE EXECUTE ON FUNCTION tell, wrap FROM runner');
good('hooks', 'can be called');
good('middleware', 'can be called');
query($node, q{UPDATE qml.hook_data SET broken = true});
bad('hooks', '"told" \\(disabled after too many errors\\)');
query($node, q{SELECT qml_register_hook('told', 'tell')});
good('hooks', 'can be called');
query($node, q{SELECT qml_unregister_hook('told'), qml_unregister_middleware('around'), qml_unregister_handler('other work')});

# ---- schedules

as_role($node, 'planner', q{SELECT qml_schedule_recurring('often', '* * * * * *', 'tick', queue => 'plans')});
good('recurring', '1 schedule can fire');
query($node, q{SELECT qml_revoke('planner', 'enqueue', 'plans')});
bad('recurring', '1 schedule did not fire: "often" \\(');
query($node, q{SELECT qml_grant('planner', 'enqueue', 'plans')});
good('recurring', '1 schedule can fire');
good('ticks', 'no tick is late');
query($node, 'ALTER SYSTEM SET qml.enable_recurring = off');
$node->reload;
bad('recurring', 'qml.enable_recurring is off: 1 schedule does not fire');
bad('ticks', '1 schedule should have fired by now: "often"');
mend('ticks');
bad('ticks', '1 schedule missed ticks within the last hour: "often"');
mend('recurring');
good('recurring', 'can fire');
good('ticks', 'no tick is late, and none was missed');
query($node, q{ALTER SYSTEM RESET qml.enable_recurring; SELECT qml_remove_recurring('often'); SELECT qml_delete(id) FROM qml.job WHERE queue = 'plans' AND state = 'enqueued'});
$node->reload;

# ---- servers, leases, locks

query($node, q{SELECT qml_register_server('srv')});
good('servers', '1 server is registered');
query($node, q{UPDATE qml.server_data SET heartbeat_at = now() - interval '35 s'});
bad('servers', '1 server has sent no heartbeat for 30 seconds');
query($node, q{SELECT qml_heartbeat_server(id) FROM qml.server_data});
good('servers', 'none is silent');

query($node, <<'SQL');
SELECT qml_enqueue('m', queue => 'leased', max_retries => 3);
CREATE TABLE leased AS SELECT id, attempt FROM qml_fetch('w', 'leased', 1, '4 s');
SQL
bad('leases', '1 lease ends within 5 seconds');
query($node, q{SELECT qml_heartbeat(id, attempt, '1 h') FROM leased});
good('leases', 'no lease');
query($node, q{ALTER SYSTEM SET qml.enable_scheduler = off});
$node->reload;
query($node, q{SELECT qml_heartbeat(id, attempt, '1 s') FROM leased});
bad('leases', '1 claim is over for 10 seconds');
mend('leases');
good('leases', 'no lease');
query($node, q{ALTER SYSTEM RESET qml.enable_scheduler; SELECT qml_delete(id) FROM leased});
$node->reload;

query($node, q{SELECT qml_try_lock('door', 'me', '4 s')});
bad('locks', '1 lock ends within 5 seconds: "door"');
query($node, q{SELECT qml_try_lock('door', 'me', '1 h')});
good('locks', 'no named lock');

# ---- vacuum

query($node, 'CREATE PROCEDURE spend(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1 .. n LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
my $old = new_session($node);
my $pid = $old->query_safe('SELECT pg_backend_pid()');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
good('vacuum', 'nothing holds back');
query($node, 'CALL spend(100100)');
bad('vacuum', "the session with pid $pid, in a transaction since .* holds it back");
mend('vacuum');
good('vacuum', 'nothing holds back');
eval { $old->quit };
query($node, q{BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'it''s old'});
query($node, 'CALL spend(100100)');
bad('vacuum', "prepared transaction \"it's old\" holds it back");
mend('vacuum');
good('vacuum', 'nothing holds back');

query($node, 'ALTER SYSTEM SET autovacuum = off');
$node->reload;
bad('autovacuum', 'autovacuum is off');
mend('autovacuum');
good('autovacuum', 'is on');
query($node, 'ALTER SYSTEM RESET autovacuum; ALTER TABLE qml.live SET (autovacuum_enabled = off)');
bad('autovacuum', 'switched off for qml.live');
mend('autovacuum');
good('autovacuum', 'is on');

query($node, 'ALTER TABLE qml.live DISABLE TRIGGER note_sql');
bad('triggers', 'note_sql on qml.live');
bad('counters', 'qml is not told of jobs');
mend('triggers');
good('triggers', 'is told');
good('counters', 'all jobs were counted at');
foreach my $silent (
	[ 'qml.history', 'note_sql', 'DISABLE TRIGGER note_sql', 'disabled or altered' ],
	[ 'qml.queue_data', 'invalidate', 'ENABLE TRIGGER invalidate', 'disabled or altered' ],
	[ 'qml.acl_data', 'invalidate_all', undef, 'missing' ])
{
	my ($table, $trigger, $sql, $how) = @$silent;

	query($node, $sql ? "ALTER TABLE $table $sql" : "DROP TRIGGER $trigger ON $table");
	bad('triggers', "\"$trigger on $table\" \\($how\\)\$");
	mend('triggers');
	good('triggers', 'is told');
}
is(query($node, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'qml.acl_data'::regclass AND tgname = 'invalidate_all' AND tgtype = 32 AND tgenabled = 'A'"),
	'1', 'it is as it was');

query($node, q{INSERT INTO qml.alert_data (id, kind, queue_id, method, since, value, bound, detail) VALUES (gen_random_uuid(), 'dead_servers', 0, '', now(), 1, 0, 'one died')});
bad('alerts', '1 alert is active: "dead_servers" \\(one died\\)');
query($node, 'UPDATE qml.alert_data SET until = now()');
good('alerts', 'no alert is active');

# ---- who sees what

query($node, <<'SQL');
CREATE ROLE watcher LOGIN;
CREATE ROLE worker_of_one LOGIN;
CREATE ROLE producer LOGIN;
SELECT qml_grant('watcher', 'monitor', 'mixed'), qml_grant('worker_of_one', 'work', 'mixed'), qml_grant('producer', 'enqueue');
SELECT qml_create_queue('secret'), qml_pause_queue('secret');
SQL
fails_with($node, '42501', 'SELECT * FROM qml_status()', 'not for a producer', extra_params => [ '-U', 'producer' ]);
my $shown = "SELECT string_agg(check_name, ' ') FROM qml_status()";
is(as_role($node, 'watcher', $shown), join(' ', grep { !/^(process_slots|leases|vacuum)$/ } @checks),
	'monitor: without what tells of other sessions and databases');
like(as_role($node, 'watcher', "SELECT detail FROM qml_status() WHERE check_name = 'paused'"), qr/"secret"/, 'monitor sees all queues');
like(as_role($node, 'worker_of_one', "SELECT detail FROM qml_status() WHERE check_name = 'paused'"), qr/no queue is paused/,
	'work sees its own');
is(query($node, "SELECT qml_grant('watcher', 'admin'); $shown") =~ s/^t\n//r, join(' ', @checks), 'admin sees all');

# ---- a standby

$node->backup('copy');
my $standby = node_of_backup('status_standby', $node, 'copy', has_streaming => 1);
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1s");
$standby->start;
$node->wait_for_catchup($standby, 'replay');
bad('primary', 'a standby', node => $standby);
is(look('ok', 'scheduler', node => $standby), 'f', 'so there is no scheduler');
is(look('ok IS NULL, detail', 'queues', node => $standby), 't|jobs are fetched on the primary, which knows', 'and nobody fetches');
is(ask($standby, "SELECT count(*) FROM qml_status()"), scalar @checks, 'all checks work there');
my $query = new_session($standby);
$query->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
wait_for('feedback', sub { query($node, 'SELECT count(*) FROM pg_stat_replication WHERE backend_xmin IS NOT NULL') eq '1' });
query($node, 'CALL spend(100100)');
bad('vacuum', 'a query on a standby, by its WAL sender');
good('counters', 'on the primary', node => $standby);
$query->quit;
good('vacuum', 'nothing holds back');
# A slot keeps what its standby needed when that has gone.
query($node, q{SELECT pg_create_physical_replication_slot('left')});
set_config($standby, primary_slot_name => 'left');
$query = new_session($standby);
$query->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
wait_for('feedback to the slot', sub { query($node, 'SELECT count(*) FROM pg_replication_slots WHERE active AND xmin IS NOT NULL') eq '1' });
query($node, 'CALL spend(100100)');
bad('vacuum', '(replication slot "left"|a query on a standby, by its WAL sender \\(pid \\d+\\)) holds it back');
like(look('remedy', 'vacuum'), qr/^End the query on the standby/, 'a slot that is in use is not to be dropped');
end_sessions($standby);
$standby->stop('immediate');
eval { $query->quit };
bad('vacuum', 'replication slot "left" holds it back');
mend('vacuum');
good('vacuum', 'nothing holds back');
$standby->adjust_conf('postgresql.conf', 'primary_slot_name', undef);
$standby->start;
query($standby, 'SELECT pg_promote()');
good('primary', 'no standby', node => $standby);
good('counters', 'all jobs were counted at', node => $standby);

# ---- not preloaded

my $bare = new_node('status_bare');
bad('preloaded', 'not in shared_preload_libraries', node => $bare);
is(ask($bare, 'SELECT count(*) FROM qml_status()'), scalar @checks, 'all checks work there');
is(look('ok', 'queues', node => $bare), '', 'what is not known is NULL');
is(look('ok', 'launcher', node => $bare) . look('ok', 'scheduler', node => $bare), 'ff', 'what follows fails');
end_sessions($bare);
$bare->append_conf('postgresql.conf', "shared_preload_libraries = 'qml'");
$bare->restart;
good('preloaded', 'is in shared_preload_libraries', node => $bare);
good('scheduler', 'runs', node => $bare);

# What an upgrade does to it: 130_upgrade.pl.
@checks = grep { $_ ne 'version' } @checks;
is_deeply([ sort keys %tried ], [ sort map { ("$_ f", "$_ t") } @checks ], 'each check was seen to be ok and not ok');

done_testing();
