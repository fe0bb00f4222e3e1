# qml_explain() and qml_explain_queue(): each reason is produced, several at once, and goes again.  A
# remedy that is a statement is what mends it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $UNKNOWN = '00000000-0000-0000-0000-000000000000';
my $node = background_node('explain', init => { allows_streaming => 1 }, conf => <<'CONF');
qml.max_workers = 20
qml.workers = 2
qml.dead_server_timeout = 1h
CONF
my %seen; # reasons

# A column of an explanation: of a job, or with "queue" of a queue.
sub look
{
	my ($what, $column, %opt) = @_;
	my $function = $what =~ /^[0-9a-f-]{36}$/ ? 'qml_explain' : 'qml_explain_queue';
	my $where = defined $opt{reason} ? "WHERE reason = '$opt{reason}'" : '';
	my $sql = "SELECT string_agg($column, ', ') FROM $function('$what') $where";
	return $opt{session} ? $opt{session}->query_safe($sql) : ask($opt{node} // $node, $sql);
}

sub note_seen { $seen{$_} = 1 foreach split /, /, $_[0]; return $_[0]; }

# The reasons are these, in this order.
sub reasons
{
	my ($what, $expected, $name, %opt) = @_;
	is(note_seen(look($what, 'reason', %opt)), $expected, $name) or diag(look($what, q{reason || ': ' || detail}, %opt));
	return;
}

# Waits until the reasons are these.
sub wait_reasons
{
	my ($what, $expected, $name, %opt) = @_;
	my $last = '';
	eval { wait_for($name, sub { ($last = look($what, 'reason', %opt)) eq $expected }); 1; };
	is(note_seen($last), $expected, $name);
	return;
}

sub detail_is
{
	my ($what, $reason, $pattern, $name, %opt) = @_;
	like(look($what, 'detail', reason => $reason, %opt), $pattern, "$name: what is told");
	return;
}

# Executes the remedy for a reason, as one statement.
sub mend
{
	my ($what, $reason, %opt) = @_;
	my $remedy = look($what, 'remedy', reason => $reason, %opt);
	my $function = $what =~ /^[0-9a-f-]{36}$/ ? 'qml_explain' : 'qml_explain_queue';
	like($remedy, qr/^[A-Z][^;]*;$/s, "$reason: the remedy is a statement");
	query($node, "SELECT remedy FROM $function('$what') WHERE reason = '$reason' \\gexec");
	return;
}

# Ends a session that waits.
sub end_wait
{
	my ($session, $pid) = @_;
	ask($node, "SELECT pg_terminate_backend($pid)");
	eval { $session->quit };
	return;
}

wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE FUNCTION hold(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); END $$;
CREATE ROLE runner LOGIN;
SELECT qml_create_queue('quiet');
SQL

# ---- what nobody may know of, and what is not committed

my $other = new_session($node);
my $other_pid = $other->query_safe('SELECT pg_backend_pid()');
my $nothing = ask($node, "SELECT * FROM qml_explain('$UNKNOWN')");
reasons($UNKNOWN, 'no such job', 'an unknown id');
$other->query_safe('BEGIN');
my $id = $other->query_safe(q{SELECT qml_enqueue('m', queue => 'quiet')});
is(ask($node, "SELECT * FROM qml_explain('$id')"), $nothing, 'an uncommitted job of another session is answered the same');
reasons($id, 'not committed, nobody fetches it', 'to the one who made it, it is not', session => $other);
$other->query_safe('COMMIT');
reasons($id, 'nobody fetches it', 'once it is committed, it is known');
detail_is($id, 'nobody fetches it', qr/no handler .* "m", and nobody has fetched from queue "quiet" since the server started/, 'no fetch');

# ---- who fetches

ask($node, q{SELECT count(*) FROM qml_fetch('w', 'quiet', methods => '{other}')});
reasons($id, 'nobody fetches it', 'who names other methods does not count');
detail_is($id, 'nobody fetches it', qr/those who fetch from queue "quiet" name other methods/, 'other methods');
ask($node, q{SELECT count(*) FROM qml_fetch('w', 'quiet', methods => '{x,m}', batch => 1) f, qml_release(f.id, f.attempt)});
reasons($id, 'ready', 'who names the method does');
set_config($node, 'qml.dead_server_timeout' => '1s');
wait_reasons($id, 'nobody fetches it', 'for some time');
detail_is($id, 'nobody fetches it', qr/has fetched from queue "quiet" for \d+ seconds?/, 'since when');
ask($node, q{SELECT qml_pause_queue('quiet')});
$other->query_until(qr/waits/, "\\echo waits\nCALL qml_wait('{quiet}', '600 s', '{m}');\n");
wait_for('a session to wait', sub { ask($node, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $other_pid") eq 'Extension' });
# For longer than the look counts with which it began to wait.
sleep 2;
reasons($id, 'queue paused', 'who waits for such jobs counts');
ask($node, q{SELECT qml_resume_queue('quiet')});
end_wait($other, $other_pid);
wait_reasons($id, 'nobody fetches it', 'and no longer when he has gone');
set_config($node, 'qml.dead_server_timeout' => '1h');
ask($node, q{SELECT count(*) FROM qml_fetch('w', 'quiet', 1) f, qml_release(f.id, f.attempt)});
reasons($id, 'ready', 'a fetch of all methods counts for all');
detail_is($id, 'ready', qr/^it has been ready since .*, and is the next for a worker that fetches$/, 'ready');

# ---- paused, behind others

ask($node, q{SELECT qml_pause_queue('quiet', 'too loud')});
reasons($id, 'queue paused', 'a paused queue');
detail_is($id, 'queue paused', qr/^queue "quiet" is paused since .* by role ".*": too loud$/, 'since when, by whom, why');
reasons('quiet', 'queue paused', 'the queue says the same');
ask($node, q{SELECT qml_pause_all()});
reasons($id, 'queue paused, all queues paused', 'and all');
mend($id, 'all queues paused');
mend($id, 'queue paused');
reasons($id, 'ready', 'resumed');
ask($node, q{SELECT qml_pause_all('flood')});
reasons($id, 'all queues paused', 'all queues are paused');
detail_is($id, 'all queues paused', qr/^all queues are paused since .* by role ".*": flood$/, 'since when, by whom, why');
reasons('quiet', 'all queues paused', 'the queue says the same');
mend($id, 'all queues paused');
reasons($id, 'ready', 'all are resumed');
ask($node, q{SELECT qml_enqueue('m', queue => 'quiet', priority => 5) FROM generate_series(1, 3)});
my $last = ask($node, q{SELECT qml_enqueue('m', queue => 'quiet')});
reasons($last, 'behind other jobs', 'others come first');
detail_is($last, 'behind other jobs', qr/^4 jobs for the same workers come first: 3 of a higher priority, 1 older/, 'how many');
reasons('quiet', 'moving', 'the queue is not blamed');
detail_is('quiet', 'moving', qr/^5 jobs are ready, and 0 in work; the last fetch was \d+ seconds? ago$/, 'moving');
mend($last, 'behind other jobs');
reasons($last, 'ready', 'the remedy puts it first');
ask($node, "SELECT qml_delete(id) FROM qml.job WHERE queue = 'quiet' AND id NOT IN ('$id')");
reasons('quiet', 'moving', 'one is left');

# ---- open transactions of others

$other = new_session($node);
$other_pid = $other->query_safe('SELECT pg_backend_pid()');
foreach my $hold (
	[ 'a claim', "SELECT count(*) FROM qml_fetch('w', 'quiet')" ],
	[ 'a claim in a subtransaction', "SAVEPOINT a; SAVEPOINT b; SELECT count(*) FROM qml_fetch('w', 'quiet')" ],
	[ 'a lock', "SELECT id FROM qml.live WHERE id = '$id' FOR UPDATE" ],
	[ 'a deletion', "SELECT qml_delete('$id')" ],
	[ 'a change', "SELECT qml_reschedule('$id', now() + interval '1 h')" ])
{
	my ($name, $sql) = @$hold;
	$other->query_safe("BEGIN; $sql");
	reasons($id, 'held by an open transaction', "$name of an open transaction");
	detail_is($id, 'held by an open transaction', qr/by the open transaction of pid $other_pid$/, $name);
	$other->query_safe('ROLLBACK');
	reasons($id, 'ready', "$name: rolled back");
}
my $third = new_session($node);
my $third_pid = $third->query_safe('SELECT pg_backend_pid()');
$_->query_safe("BEGIN; SELECT id FROM qml.live WHERE id = '$id' FOR SHARE") foreach $other, $third;
detail_is($id, 'held by an open transaction', qr/of pid ($other_pid|$third_pid) and the open transaction of pid ($other_pid|$third_pid)$/, 'several');
is(look($id, 'remedy', reason => 'held by an open transaction') =~ s/\d+/N/gr,
	'SELECT pg_terminate_backend(N), pg_terminate_backend(N);', 'the remedy ends each of them');
$_->query_safe('ROLLBACK') foreach $other, $third;
# A session and a prepared transaction: a remedy each.
query($node, "BEGIN; SELECT id FROM qml.live WHERE id = '$id' FOR SHARE; PREPARE TRANSACTION 'it''s'");
$third->query_safe("BEGIN; SELECT id FROM qml.live WHERE id = '$id' FOR SHARE");
reasons($id, 'held by an open transaction, held by an open transaction', 'two kinds of holders');
is(look($id, q{remedy || ' ' || detail}, reason => 'held by an open transaction'),
	"SELECT pg_terminate_backend($third_pid); it is claimed, changed or locked by the open transaction of pid $third_pid, "
	  . "ROLLBACK PREPARED 'it''s'; it is claimed, changed or locked by the prepared transaction 'it''s'", 'a remedy each');
like(look('quiet', 'detail', reason => 'held by an open transaction'),
	qr/^some of its first ready jobs are claimed, .* pid $third_pid, some of its first ready jobs are .* the prepared transaction 'it''s'$/, 'of the queue, too');
$third->query_safe('ROLLBACK');
query($node, q{ROLLBACK PREPARED 'it''s'});
reasons($id, 'ready', 'both are gone');
$other->query_safe(q{BEGIN; SELECT count(*) FROM qml_fetch('w', 'quiet')});
reasons('quiet', 'held by an open transaction', 'the queue says so, too');
detail_is('quiet', 'held by an open transaction', qr/^1 of its first ready jobs is claimed, changed or locked by the open transaction of pid $other_pid$/, 'of the queue');
mend($id, 'held by an open transaction');
wait_reasons($id, 'ready', 'the remedy ends it');
eval { $other->quit };
query($node, q{BEGIN; SELECT id FROM qml_fetch('w', 'quiet', 1, '1 h'); PREPARE TRANSACTION 'kept'});
reasons($id, 'held by an open transaction', 'a prepared transaction');
detail_is($id, 'held by an open transaction', qr/by the prepared transaction 'kept'$/, 'its name');
mend($id, 'held by an open transaction');
reasons($id, 'ready', 'which the remedy ends');

# As it is now, whatever the snapshot of the caller shows.
$third->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qml.queue');
ask($node, "CREATE TABLE claim AS SELECT * FROM qml_fetch('w/1', 'quiet', 1, '1 h')");
reasons($id, 'running', 'in REPEATABLE READ', session => $third);
$third->query_safe('ROLLBACK');

# ---- jobs that run

reasons($id, 'running', 'a job that runs');
detail_is($id, 'running', qr{^it runs: attempt \d+ by worker "w/1" since .* \(\d+ seconds?\); its lease ends at }, 'running');
$third->query_safe("BEGIN; SELECT qml_succeed(id, attempt) FROM claim");
reasons($id, 'running, held by an open transaction', 'its end is not committed');
detail_is($id, 'held by an open transaction', qr/^what its worker said of it, or its deletion, is not committed: the open transaction of pid $third_pid /, 'whose');
reasons($id, 'succeeded', 'to the one who ends it, it is', session => $third);
$third->query_safe('ROLLBACK');
set_config($node, 'qml.enable_scheduler' => 'off');
ask($node, q{SELECT qml_heartbeat(id, attempt, '1 ms') FROM claim});
wait_reasons($id, 'lease is over, scheduler is off', 'a lease that is over, and nobody to take it back');
mend($id, 'lease is over');
wait_reasons($id, 'ready', 'it was taken back');
$third->query_safe(q{SELECT count(*) FROM qml_fetch('w', 'quiet', 1, '0')});
reasons($id, 'running', 'bound to a session');
detail_is($id, 'running', qr/^it runs in the session with pid $third_pid: attempt \d+ by worker "w" since/, 'which');
$third->quit;
wait_reasons($id, 'worker is gone, scheduler is off', 'a session that has ended');
mend($id, 'worker is gone');
set_config($node, 'qml.enable_scheduler' => undef);
wait_reasons($id, 'ready', 'it was taken back, too');

# ---- jobs that wait for a time

my $later = ask($node, q{SELECT qml_enqueue('m', queue => 'quiet', delay => '1 h')});
reasons($later, 'not due', 'a delayed job');
detail_is($later, 'not due', qr/^it is due at .*, in (59|60) minutes$/, 'when');
ask($node, "SELECT qml_reschedule('$later', now() + interval '3 days', 'too early')");
detail_is($later, 'not due', qr/^it is due at .*, in (2|3) days: too early$/, 'why');
ask($node, q{SELECT qml_pause_queue('quiet')});
reasons($later, 'not due, queue paused', 'two reasons');
set_config($node, 'qml.enabled' => 'off');
wait_reasons($later, 'not due, queue paused, background processing is off', 'three reasons');
ask($node, q{SELECT qml_resume_queue('quiet')});
set_config($node, 'qml.enabled' => undef);
set_config($node, 'qml.databases' => 'nosuch');
wait_reasons($later, 'not due, database not served', 'in a database that is not served');
set_config($node, 'qml.databases' => undef);
set_config($node, 'qml.enable_scheduler' => 'off');
wait_reasons($later, 'not due, scheduler is off', 'without the scheduler');
query($node, "UPDATE qml.live SET run_at = now() - interval '5 min' WHERE id = '$later'");
reasons($later, 'due but not ready, scheduler is off', 'and when it is due');
detail_is($later, 'due but not ready', qr/^it has been due for 5 minutes, and nothing has made it ready: too early$/, 'for how long');
mend($later, 'due but not ready');
like(look($later, 'reason'), qr/^(ready|behind other jobs)$/, 'the remedy makes it ready');
set_config($node, 'qml.enable_scheduler' => undef);
ask($node, "SELECT qml_reschedule('$later', now() + interval '1 h')");
wait_reasons($later, 'not due', 'delayed again');
mend($later, 'not due');
like(look($later, 'reason'), qr/^(ready|behind other jobs)$/, 'the remedy for a delay');
ask($node, "SELECT qml_delete('$later')");

my $flaky = ask($node, q{SELECT qml_enqueue('m', queue => 'flaky')});
ask($node, q{SELECT qml_fail(id, attempt, 'no connection', retry_at => now() + interval '1 h') FROM qml_fetch('w', 'flaky')});
reasons($flaky, 'waits for its retry', 'after a failure');
detail_is($flaky, 'waits for its retry', qr/^it is due at .*; attempt 1 ended: no connection$/, 'which');
mend($flaky, 'waits for its retry');
reasons($flaky, 'ready', 'the remedy for a failure');

query($node, "UPDATE qml.live SET state = 'awaiting_parents' WHERE id = '$flaky'");
reasons($flaky, 'waits for parents', 'a job that depends on others');
query($node, "UPDATE qml.live SET state = 'enqueued' WHERE id = '$flaky'");

# ---- jobs that are finished

ask($node, q{SELECT qml_fail(id, attempt, 'disk full', retry => false) FROM qml_fetch('w', 'flaky')});
reasons($flaky, 'failed', 'a job that failed');
detail_is($flaky, 'failed', qr/^it failed for good at .*, after 2 tries by worker "w": disk full$/, 'failed');
mend($flaky, 'failed');
reasons($flaky, 'ready', 'the remedy for that');
ask($node, q{SELECT qml_succeed(id, attempt) FROM qml_fetch('w', 'flaky')});
reasons($flaky, 'succeeded', 'a job that succeeded');
detail_is($flaky, 'succeeded', qr/^it succeeded at .*, in attempt 3 by worker "w", after running for \d+ seconds?$/, 'succeeded');
ask($node, "SELECT qml_delete('$id', 'not needed')");
reasons($id, 'deleted', 'a job that was deleted');
detail_is($id, 'deleted', qr/^it was deleted or discarded at .*: not needed$/, 'deleted');
reasons('quiet', 'no ready jobs', 'a queue without jobs');

# ---- handlers

query($node, q{SELECT qml_register_handler('hold', 'hold', '{"concurrency": 1}'), qml_register_handler('free', 'hold')});
my $gate = new_session($node);
$gate->query_safe('SELECT pg_advisory_lock(1)');
my $first = ask($node, q{SELECT qml_enqueue('hold', queue => 'inside')});
wait_held($node, 1);
reasons($first, 'running', 'in a worker');
detail_is($first, 'running', qr/^it runs in the session with pid \d+: attempt 1 by worker /, 'which one');
my $second = ask($node, q{SELECT qml_enqueue('hold', queue => 'inside')});
wait_reasons($second, 'limit reached', 'one at a time');
detail_is($second, 'limit reached', qr/^1 of 1 workers that may run jobs of method "hold" at once do so$/, 'n of n');
wait_reasons('inside', 'limit reached', 'the queue says the same');
ask($node, q{SELECT qml_enqueue('free', queue => 'inside', priority => -1)});
wait_held($node, 2);
my $third_job = ask($node, q{SELECT qml_enqueue('free', queue => 'inside', priority => -2)});
wait_reasons($third_job, 'no free worker, behind other jobs', 'all workers are busy');
detail_is($third_job, 'no free worker', qr/^all 2 workers of this database are busy, 2 of them for role /, 'how many');
reasons($second, 'limit reached, no free worker', 'both');
query($node, q{SELECT qml_register_handler('free', 'hold', '{"run_as": "runner"}')});
query($node, 'REVOKE EXECUTE ON FUNCTION hold FROM PUBLIC');
wait_reasons($third_job, 'handler cannot run, no free worker', 'a handler that cannot be called');
detail_is($third_job, 'handler cannot run', qr/^permission denied for function .*: Role "runner" of handler "free" must have/, 'why');
query($node, 'GRANT EXECUTE ON FUNCTION hold TO runner');
reasons($third_job, 'no free worker', 'and again can');
ask($node, q{SELECT qml_pause_queue('inside')});
$gate->query_safe('SELECT pg_advisory_unlock(1)');
wait_for('the workers to be done', sub { ask($node, "SELECT count(*) FROM qml.job WHERE queue = 'inside' AND state = 'processing'") eq '0' });
wait_reasons($second, 'queue paused', 'no limit any more');
set_config($node, 'qml.workers' => '0');
wait_reasons($second, 'queue paused, no worker slot', 'no workers at all');
detail_is($second, 'no worker slot', qr/^qml.workers is 0/, 'why');
ask($node, q{SELECT qml_fetch('w', 'inside', methods => '{hold}')});
wait_reasons($second, 'queue paused', 'who names the method needs none');
set_config($node, 'qml.workers' => '2');

# Two jobs that were running when the server went down.
$gate->query_safe('SELECT pg_advisory_lock(1)');
query($node, <<'SQL');
SELECT qml_register_handler('alone', 'hold');
SELECT qml_delete(id) FROM qml.job WHERE queue = 'inside' AND state = 'enqueued';
SELECT qml_enqueue('alone', queue => 'inside') FROM generate_series(1, 2);
UPDATE qml.live SET attempt = 1, errors = '[{"attempt": 1, "at": "2026-01-01 00:00:00+00", "error": "gone", "error_type": "server_down"}]'
	WHERE method = 'alone';
SELECT qml_resume_queue('inside');
SQL
wait_held($node, 1);
my $suspect = ask($node, q{SELECT id FROM qml.job WHERE method = 'alone' AND state = 'enqueued'});
wait_reasons($suspect, 'runs alone', 'poison suspects run one at a time');
$gate->query_safe('SELECT pg_advisory_unlock(1)');
settle($node, 'alone');

# ---- a copy

my $copied = ask($node, q{SELECT qml_enqueue('m', queue => 'quiet', delay => '1 h')});
query($node, 'UPDATE qml.instance_data SET database = 1');
wait_reasons($copied, 'not due, copy not adopted', 'a copy');
mend($copied, 'copy not adopted');
wait_reasons($copied, 'not due', 'adopted');
kill 'TERM', wait_for_process($node, 'launcher');
wait_reasons($copied, 'not due, no launcher', 'without the launcher');
wait_reasons($copied, 'not due', 'which comes back');
my $scheduler = wait_for_process($node, 'scheduler', 'postgres');
kill 'STOP', $scheduler;
query($node, q{SELECT qml_enqueue('m', queue => 'quiet', delay => '1 s')});
wait_reasons($copied, 'not due, no scheduler', 'a scheduler that stands still');
kill 'CONT', $scheduler;
wait_reasons($copied, 'not due', 'goes on');

# ---- queues

fails_with($node, 'QM006', q{SELECT * FROM qml_explain_queue('quite')}, 'a queue that is not there');
fails_with($node, '22004', q{SELECT * FROM qml_explain_queue(NULL)}, 'no queue');
fails_with($node, '22004', q{SELECT * FROM qml_explain(NULL)}, 'no job');
set_config($node, 'qml.enabled' => 'off');
wait_for('the workers to end', sub { worker_pids($node) == 0 });
ask($node, q{SELECT qml_enqueue(m, queue => 'several') FROM unnest('{a,b,free}'::text[]) m});
query($node, 'REVOKE EXECUTE ON FUNCTION hold FROM runner');
wait_reasons('several', 'background processing is off, nobody fetches it, nobody fetches it, handler cannot run', 'several reasons at once');
detail_is('several', 'nobody fetches it', qr/method "a", .*method "b", /, 'of each method');
set_config($node, 'qml.enabled' => undef);
query($node, 'GRANT EXECUTE ON FUNCTION hold TO runner');

# ---- a standby

query($node, q{SELECT qml_create_queue('fast', '{"storage": "unlogged"}'); SELECT qml_enqueue('m', queue => 'fast')});
my $fast = ask($node, q{SELECT id FROM qml.job WHERE queue = 'fast'});
like(look($fast, 'reason'), qr/nobody fetches it/, 'a job of an unlogged queue');
query($node, q{SELECT qml_enqueue('m', queue => 'away') FROM generate_series(1, 2)});
my $holder = new_session($node);
my $away = $holder->query_safe(q{SELECT id FROM qml_fetch('w', 'away', 1, '0')});
$node->backup('copy');
my $standby = node_of_backup('explain_standby', $node, 'copy', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay');
reasons($copied, 'not due, standby', 'a standby', node => $standby);
reasons($away, 'running', 'a job that runs on the primary', node => $standby);
detail_is($away, 'running', qr/^it runs on the primary: /, 'where', node => $standby);
reasons($flaky, 'succeeded', 'a finished one', node => $standby);
reasons($fast, 'no such job', 'one that is not there', node => $standby);
reasons('fast', 'standby, no ready jobs', 'nor is its queue', node => $standby);
$holder->query_safe(q{BEGIN; SELECT id FROM qml_fetch('w', 'away', 1, '1 h'); SELECT pg_switch_wal()});
my $claimed = ask($node, q{SELECT id FROM qml.job WHERE queue = 'away' AND state = 'enqueued'});
$node->wait_for_catchup($standby, 'replay');
wait_reasons($claimed, 'held by an open transaction, standby', 'an open transaction of the primary', node => $standby);
detail_is($claimed, 'held by an open transaction', qr/an open transaction on the primary$/, 'whose', node => $standby);
$holder->query_safe('ROLLBACK');
$holder->quit;

# ---- not preloaded

my $bare = new_node('explain_bare');
my $delayed = ask($bare, q{SELECT qml_enqueue('m', delay => '1 h')});
reasons($delayed, 'not due, qml is not preloaded, no handler', 'without preload', node => $bare);
my $waiting = ask($bare, q{SELECT qml_enqueue('m')});
reasons($waiting, 'no handler', 'who fetches is not known', node => $bare);
reasons('default', 'qml is not preloaded, no handler', 'of the queue neither, and nothing makes its delayed job ready', node => $bare);
ask($bare, q{SELECT qml_enqueue('m', queue => 'direct')});
reasons('direct', 'no handler', 'which matters where there is one only', node => $bare);
my $bound = new_session($bare);
my $bound_pid = $bound->query_safe('SELECT pg_backend_pid()');
$bound->query_safe(q{SELECT id FROM qml_fetch('w', batch => 1, lease => '0')});
reasons($waiting, 'running', 'a session', node => $bare);
detail_is($waiting, 'running', qr/^it runs in the session with pid $bound_pid: /, 'which', node => $bare);
$bound->quit;
wait_reasons($waiting, 'worker is gone, qml is not preloaded', 'that is gone', node => $bare);
my $mine = new_session($bare);
$mine->query_safe(q{SELECT qml_reclaim(); BEGIN; SELECT id FROM qml_fetch('w')});
detail_is($waiting, 'held by an open transaction', qr/^it is claimed, changed or locked by the open transaction of pid \d+$/, 'a claim', node => $bare);
$mine->quit;
query($bare, q{CREATE FUNCTION f(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT qml_register_handler('m', 'f')});
wait_reasons($waiting, 'qml is not preloaded', 'a handler', node => $bare);

# ---- the manual lists them

my ($section) = slurp_file("$FindBin::RealBin/../../doc/reference/functions.md") =~ /^### `qml_explain`$(.*?)^### /ms;
my @listed = $section =~ /^\| `([^`]+)` \|/mg;
delete @seen{'moving', 'no ready jobs'};
is_deeply([ sort keys %seen ], [ sort @listed ], 'each reason of the manual was seen, and no other');

done_testing();
