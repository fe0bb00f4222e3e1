# Bulk operations in the background: each job is met once, whatever is killed or restarted; rights are
# those of the role at each chunk; jobs that others have are tried again; nothing else is late
# meanwhile, and a load beside them gets the machine; a standby shows them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = background_node('bulk', variant => 'faults', init => { allows_streaming => 1 }, conf => <<'CONF');
qml.workers = 0
autovacuum = off
CONF
wait_for_process($node, 'scheduler', 'postgres');
# Each change of a job leaves a row, in the transaction that makes it.
query($node, <<'SQL');
CREATE TABLE seen (id uuid, state qml.job_state);
CREATE FUNCTION note(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS 'INSERT INTO public.seen VALUES (job.id, new)';
REVOKE EXECUTE ON FUNCTION note FROM PUBLIC;
CREATE ROLE cleaner;
SELECT qml_grant('cleaner', 'admin', 'q'), qml_grant('cleaner', 'enqueue', 'other');
SQL

# Puts so many failed jobs into the queue; all others are removed.
sub make_failed
{
	my ($count) = @_;
	query($node, <<"SQL");
SET session_replication_role = replica;
DELETE FROM qml.live; DELETE FROM qml.history;
RESET session_replication_role;
SELECT qml_unregister_hook('note', true);
SELECT qml_create_queue('q') WHERE NOT EXISTS (SELECT FROM qml.queue WHERE name = 'q');
SELECT count(*) FROM qml_enqueue_many('m', array_fill('{"a": 1}'::jsonb, ARRAY[$count]), 'q');
SELECT count(qml_fail(id, attempt, 'no', retry => false)) FROM qml_fetch('w', 'q', 10000);
SELECT count(qml_fail(id, attempt, 'no', retry => false)) FROM qml_fetch('w', 'q', 10000);
TRUNCATE seen;
SELECT qml_register_hook('note', 'note', '{enqueued}');
SQL
	is(query($node, "SELECT count(*) FROM qml.job WHERE state = 'failed'"), $count, "$count failed jobs");
	return;
}

sub make
{
	my ($call, $role) = @_;
	return query($node, ($role ? "SET ROLE $role; " : '') . "SELECT qml_bulk($call)");
}

sub shows { my ($id, $columns) = @_; return query($node, "SELECT $columns FROM qml.bulk WHERE id = '$id'"); }

sub wait_for_state
{
	my ($id, $state) = @_;
	my $last = '';

	eval {
		wait_for("the operation to be $state", sub { ($last = try_query($node, "SELECT state FROM qml.bulk WHERE id = '$id'") // '') eq $state });
		1;
	} or diag(shows($id, '*'));
	is($last, $state, "it is $state");
	return;
}

# Waits until some of the jobs are done, and not all.
sub wait_for_part
{
	my ($id) = @_;
	wait_for('a part to be done', sub { (try_query($node, "SELECT changed FROM qml.bulk WHERE id = '$id'") // 0) > 0 });
	return;
}

sub once { return query($node, 'SELECT count(*), count(DISTINCT id) FROM seen'); }

# ---- killed, and restarted

my $JOBS = 12000;
make_failed($JOBS);
my $id = make(q('retry', 'queue:q state:failed'));
foreach my $round (1, 2)
{
	wait_for_part($id);
	is(shows($id, 'state'), 'running', "it is under way, $round");
	my $pid = wait_for_process($node, 'scheduler', 'postgres');
	my $log = -s $node->logfile;
	end_sessions($node);
	kill 'KILL', $pid;
	wait_for('the server', sub { log_count($node, 'all server processes terminated; reinitializing', $log) > 0 && (try_query($node, 'SELECT 1') // '') eq '1' });
}
end_sessions($node);
$node->stop('immediate');
$node->start;
wait_for_part($id);
end_sessions($node);
$node->restart;
wait_for_state($id, 'finished');
is(shows($id, 'changed, skipped, held'), "$JOBS|0|0", 'all jobs were changed, however often it was killed');
is(once(), "$JOBS|$JOBS", 'each once');
is(query($node, "SELECT count(*) FROM qml.job WHERE state = 'enqueued'"), $JOBS, 'they are ready');
is(log_count($node, "bulk operation $id (retry) is finished", 0), 1, 'the log says what became of it');

# ---- paused, resumed, canceled

make_failed($JOBS);
$id = make(q('retry', 'queue:q'));
wait_for_part($id);
query($node, "SELECT qml_pause_bulk('$id', 'lunch')");
my $done = shows($id, 'changed');
cmp_ok($done, '<', $JOBS, 'paused in the middle');
is(shows($id, 'state, reason, reached IS NOT NULL'), 'paused|lunch|t', 'it says so');
sleep 1;
is(shows($id, 'changed'), $done, 'nothing goes on');
is(once(), "$done|$done", 'and nothing is done that is not counted');
# An act of control does not wait: a session that has the row holds up nobody else.
my $steering = new_session($node);
query($node, "SELECT qml_resume_bulk('$id')");
wait_for('more of it', sub { shows($id, 'changed') > $done });
$steering->query_safe("BEGIN; SELECT qml_pause_bulk('$id')");
my $due = query($node, "SELECT qml_enqueue('later', queue => 'x', run_at => now() + interval '0.3 s')");
wait_for('another job to be promoted', sub { query($node, "SELECT state FROM qml.job WHERE id = '$due'") eq 'enqueued' });
$steering->query_safe('ROLLBACK');
$steering->quit;
$done = shows($id, 'changed');
wait_for('more of it', sub { shows($id, 'changed') > $done || shows($id, 'state') eq 'finished' });
try_query($node, "SELECT qml_cancel_bulk('$id', 'enough')");
$done = shows($id, 'changed');
sleep 0.5;
is(shows($id, 'changed'), $done, 'canceled, nothing more is done');
is(query($node, q{SELECT count(*) FROM seen JOIN qml.job USING (id) WHERE method = 'm'}), $done, 'what was done stays');

# ---- a right is lost in the middle, a role goes

make_failed($JOBS);
$id = make(q('redrive', 'queue:q', '{"queue": "other", "patch": {"b": 2}}'), 'cleaner');
wait_for_part($id);
query($node, q{SELECT qml_revoke('cleaner', 'enqueue', 'other')});
wait_for_state($id, 'failed');
like(shows($id, 'reason'), qr/^role "cleaner" has no capability "enqueue" on queue "other" any more$/, 'it says why');
$done = shows($id, 'changed');
cmp_ok($done, '<', $JOBS, 'it has stopped in the middle');
is(query($node, q{SELECT count(*) FROM qml.job WHERE queue = 'other' AND state = 'enqueued' AND payload = '{"a": 1, "b": 2}' AND created_by = 'cleaner'}), $done, 'what was done stays');
query($node, q{SELECT qml_grant('cleaner', 'enqueue', 'other')});
query($node, "SELECT qml_resume_bulk('$id')");
wait_for('more of it', sub { shows($id, 'changed') > $done });
query($node, q{SELECT qml_drop_role_objects('cleaner'); DROP ROLE cleaner});
wait_for('its end', sub { shows($id, 'state') =~ /failed|finished/ });
SKIP:
{
	skip 'it was done before the role was dropped', 1 if shows($id, 'state') eq 'finished';
	like(shows($id, 'reason'), qr/^(role "cleaner" has no capability "admin" on a queue|the role that made it, with OID \d+, was dropped)/, 'the role was dropped');
	query($node, "SELECT qml_cancel_bulk('$id')");
}

# ---- jobs that others have

query($node, q{SELECT qml_unregister_hook('note', true)});
make_failed(100);
my $holder = new_session($node);
my $held = query($node, 'SELECT min(id::text) FROM qml.job');
$holder->query_safe("BEGIN; SELECT qml_delete('$held')");
$id = make(q('retry', 'queue:q'));
wait_for('all others', sub { shows($id, 'changed') == 99 });
is(shows($id, 'state, held, skipped'), 'running|1|0', 'one is tried again');
$holder->query_safe('ROLLBACK');
wait_for_state($id, 'finished');
is(shows($id, 'outcomes, held'), '{"changed": 100}|0', 'it is done when it is free');

make_failed(100);
$holder->query_safe("BEGIN; SELECT qml_delete((SELECT min(id::text)::uuid FROM qml.job))");
$id = make(q('retry', 'queue:q'));
wait_for('all others', sub { shows($id, 'changed') == 99 });
$holder->query_safe('COMMIT');
wait_for_state($id, 'finished');
is(shows($id, 'outcomes'), '{"changed": 99, "changed_meanwhile": 1}', 'or it is not meant any more');

set_config($node, 'qml.faults' => 'bulk.held_usecs:limit:1000,bulk.held:limit:4');
end_sessions($node);
make_failed(100);
$holder = new_session($node);
$holder->query_safe("BEGIN; SELECT count(qml_delete(id)) FROM (SELECT id FROM qml.job LIMIT 10) j");
$id = make(q('retry', 'queue:q'));
wait_for_state($id, 'finished');
is(shows($id, 'outcomes'), '{"locked": 10, "changed": 90}', 'after a while they are left');
$holder->query_safe('ROLLBACK');

set_config($node, 'qml.faults' => undef);

# ---- an error of the machinery is tried again

make_failed(200);
set_config($node, 'qml.faults' => 'bulk.before_write:error');
my $log = -s $node->logfile;
end_sessions($node);
$node->restart;
$id = make(q('retry', 'queue:q'));
wait_for_state($id, 'finished');
is(shows($id, 'changed'), 200, 'after an error it goes on');
cmp_ok(log_count($node, 'qml scheduler: bulk operation failed: ', $log), '>=', 1, 'which the log tells');
set_config($node, 'qml.faults' => undef);
end_sessions($node);
$node->restart;

# ---- beside other work

# Jobs that are changed in so many seconds.
sub rate
{
	my ($id, $seconds) = @_;
	my ($begun, $before) = (time, shows($id, 'changed'));
	sleep $seconds;
	return (shows($id, 'changed') - $before) / (time - $begun);
}

query($node, q{SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[400000]), 'big')});
wait_for_process($node, 'scheduler', 'postgres');
query($node, q{SELECT qml_schedule_recurring('r', '* * * * * *', 'tick', queue => 'ticks')});
$id = make(q('priority', 'queue:big', '{"priority": 1}'));
wait_for_part($id);
my @late;
foreach (1 .. 3)
{
	my $lag = machine_lag(0.2) / 1000;
	my ($job, $due) = split /\|/, query($node, q{SELECT qml_enqueue('later', queue => 'x', run_at => clock_timestamp() + interval '0.3 s'), clock_timestamp() + interval '0.3 s'});
	my $late;
	wait_for('promotion', sub { ($late = query($node, "SELECT extract(epoch FROM clock_timestamp() - '$due') FROM qml.job WHERE id = '$job' AND state = 'enqueued'")) ne '' });
	push @late, max($late - $lag, 0);
}
cmp_ok(max(@late), '<', 0.7, sprintf 'jobs become ready on time meanwhile (%.3f s late)', max @late);
wait_for_state($id, 'finished');
query($node, q{SELECT qml_pause_recurring('r')});

$id = make(q('priority', 'queue:big', '{"priority": 2}'));
wait_for_part($id);
my $alone = rate($id, 0.5);
query($node, "SELECT qml_cancel_bulk('$id')") if shows($id, 'state') eq 'running';
my @busy = map { new_session($node) } 1 .. 4;
$_->query_until(qr/begins/, "\\echo begins\nDO \$\$ BEGIN LOOP END LOOP; END \$\$;\n") foreach @busy;
sleep 0.5;
$id = make(q('priority', 'queue:big', '{"priority": 3}'));
wait_for_part($id);
sleep 1;
my $beside = rate($id, 3);
query($node, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %LOOP%' AND pid <> pg_backend_pid()});
cmp_ok($beside, '<', $alone / 2, sprintf 'beside a load it takes little: %d jobs/s, alone %d', $beside, $alone);
cmp_ok($beside, '>', 0, 'but it goes on');
wait_for_state($id, 'finished');
eval { $_->quit } foreach @busy;

# ---- a standby

$node->backup('copy');
my $standby = node_of_backup('standby', $node, 'copy', variant => 'faults', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay');
is(ask($standby, "SELECT state FROM qml.bulk WHERE id = '$id'"), 'finished', 'a standby shows them');
is(ask($standby, q{SELECT sum(count) FROM qml_bulk_preview('delete', 'queue:big')}), 400000, 'and what one would do');
fails_with($standby, '25006', q{SELECT qml_bulk('delete', 'queue:big')}, 'none is made there');
fails_with($standby, '25006', "SELECT qml_pause_bulk('$id')", 'nor steered');
$standby->stop;

is(log_count($node, 'TRAP', 0) + log_count($node, 'PANIC', 0), 0, 'no process failed');
end_sessions($node);
$node->stop;
done_testing();
