# What outlives the turn of a scheduler, where databases are served in turn: walks over
# large tables, notifications that are owed, pauses and limits; and how slots are handed
# from one to the next.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

# What is forgotten is found after a minute.
my $SOON = 30;
my $ROWS = 400_000;
my @databases = qw(one two three);

# Two schedulers at a time for three databases, and two workers.
# Statistics are stored some time after the last job: up to ten minutes later there would be something due.
my $node = background_node('turns', variant => 'faults', bare => 1, conf => <<'CONF');
max_worker_processes = 12
qml.max_workers = 4
qml.workers = 2
qml.worker_idle_timeout = '1 h'
autovacuum = off
fsync = off
log_min_messages = debug1
qml.stats_series = 0
CONF
query($node, "CREATE ROLE $_ LOGIN") foreach qw(ann bob);
foreach my $dbname (@databases)
{
	query($node, "CREATE DATABASE $dbname");
	query($node, q{CREATE EXTENSION qml; GRANT CREATE ON SCHEMA public TO ann, bob; SELECT qml_create_queue('heard', '{"notify": true}')}, $dbname);
}

# How often a scheduler was started for a database.
sub turns
{
	my ($dbname, $offset) = @_;
	return log_count($node, qq(starting background worker process "qml scheduler: $dbname"), $offset);
}


# A job that becomes due in a second; until it is ready.
sub delayed_job
{
	my ($dbname) = @_;
	ask($node, q{SELECT qml_enqueue('delayed', queue => 'outside', run_at => clock_timestamp() + interval '1 s')}, $dbname);
	return seconds_until("the delayed job of $dbname", sub { ask($node, "SELECT count(*) FROM qml.live WHERE state = 'scheduled'", $dbname) == 0 });
}

# Until the first database has no scheduler, which the others need; they are kept busy.
sub wait_rested
{
	wait_for(
		'the first database to rest',
		sub {
			delayed_job($_) foreach qw(two three);
			return ask($node, "SELECT state = 'resting' AND due_at IS NULL FROM qml.database WHERE name = 'one'", 'two') eq 't';
		});
	return;
}

# ---- walks

{
	# What is lost lies behind more jobs than a turn can read.
	set_config($node, 'qml.enabled' => 'off');
	wait_without($node, $_) foreach @databases;
	query($node, <<"SQL", 'one');
SELECT count(*) FROM qml_enqueue_many('waits', array_fill('{}'::jsonb, ARRAY[$ROWS]), 'waiting');
SELECT qml_enqueue('lost', queue => 'lost');
SELECT count(*) FROM qml_fetch('w', ARRAY['lost'], lease => '1 us');
-- Of a handler whose role cannot run it, and of one that can.
CREATE FUNCTION nothing(payload jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT qml_register_handler('cannot', 'nothing', '{"run_as": "bob"}');
SELECT qml_enqueue('cannot', queue => 'lost');
ALTER ROLE bob NOLOGIN;
-- Jobs that have found no partition.
SELECT qml_create_queue('finished');
INSERT INTO qml.history_overflow (id, created_at, queue_id, priority, state, attempt, uncounted,
	max_retries, lineage, timeout_ms, created_by, finished_at, expires_at, method, payload)
SELECT gen_random_uuid(), now(), q.id, 0, 'succeeded', 1, 0, 5, 0, 1000, current_user::regrole, now(),
	now() + interval '1 day', 'aside', '{}'
FROM qml.queue_data q, generate_series(1, 5000) WHERE q.name = 'finished';
SQL
	# The others want their turns all the time.
	query($node, <<'SQL', $_) foreach qw(two three);
SELECT count(qml_enqueue('delayed', queue => 'outside', run_at => clock_timestamp() + i * interval '100 ms')) FROM generate_series(1, 600) i
SQL
	my $offset = -s $node->logfile;
	set_config($node, 'qml.enabled' => undef, 'qml.max_workers' => 2,
		'qml.faults' => 'walk.piece_pages:limit:1,walk.chunk_pages:limit:1,launcher.turn_ms:limit:100');
	my $start = time;
	my $longest = 0;
	wait_for(
		'the walks to come to their end',
		sub {
			$longest = max($longest, map { ask($node, <<'SQL', $_) } qw(two three));
SELECT coalesce(round(extract(epoch FROM clock_timestamp() - min(run_at)), 1), 0) FROM qml.live WHERE state = 'scheduled'
SQL
			return query($node, <<'SQL', 'one') eq 't t t';
SELECT concat_ws(' ', (SELECT count(*) = 1 FROM qml.job WHERE method = 'lost' AND state = 'enqueued' AND error = 'lease expired'),
	(SELECT count(*) = 1 FROM qml.job WHERE method = 'cannot' AND state = 'failed'),
	(SELECT count(*) = 0 FROM qml.history_overflow))
SQL
		});
	pass(sprintf 'what lies behind a large table is found in turns (%.1f s)', time - $start);
	cmp_ok(turns('one', $offset), '>=', 2, 'of several schedulers (' . turns('one', $offset) . ')');
	cmp_ok($longest, '<=', $SOON, sprintf 'the other databases have their turns meanwhile (%.1f s)', $longest);
	is(query($node, "SELECT count(*) FROM qml.job WHERE method = 'aside'", 'one'), 5000, 'jobs that were kept aside are all there');

	set_config($node, 'qml.faults' => undef, 'qml.max_workers' => 4);
	query($node, 'ALTER ROLE bob LOGIN; TRUNCATE qml.live', 'one');
	query($node, q{DELETE FROM qml.live}, $_) foreach qw(two three);
}

# ---- notifications

{
	my %listener = map { $_ => new_session($node, $_) } @databases;
	my $longest = 0;

	$_->query_safe('LISTEN qml_heard') foreach values %listener;
	foreach my $round (1 .. 12)
	{
		foreach my $dbname (@databases)
		{
			ask($node, q{SELECT qml_enqueue('told', queue => 'heard')}, $dbname);
			$longest = max($longest, seconds_until("notification $round in $dbname", sub { $listener{$dbname}->query('SELECT 1') =~ /notification "qml_heard"/ }));
		}
	}
	cmp_ok($longest, '<=', $SOON, sprintf 'all listeners are notified, whose turn it ever is (%.1f s)', $longest);

	# Of each process the first try fails, or ends it: what it had taken is not lost.
	my $told = sub {
		my ($what) = @_;
		wait_for("a notification $what", sub { $listener{one}->query('SELECT 1') =~ /notification "qml_heard"/ });
		return;
	};
	my $reached = 'qml fault point "notify.after_take" reached';
	my $offset = -s $node->logfile;
	set_config($node, 'qml.faults' => 'notify.after_take:error');
	wait_for(
		'several schedulers to fail',
		sub {
			ask($node, q{SELECT qml_enqueue('told', queue => 'heard')}, $_) foreach @databases;
			$told->('after an error');
			return turns('one', $offset) >= 3 && log_count($node, $reached, $offset) >= 4;
		});
	pass('a notification is sent after an error');
	cmp_ok(scalar(() = slurp_file($node->logfile, $offset) =~ /qml scheduler: notifying listeners failed/g), '<=', 3,
		'each database tells of it once a minute, not in each turn');

	$offset = -s $node->logfile;
	set_config($node, 'qml.faults' => 'notify.after_take:fatal');
	wait_for('the setting', sub { ask($node, 'SHOW qml.faults', 'one') eq 'notify.after_take:fatal' });
	ask($node, q{SELECT qml_enqueue('told', queue => 'heard')}, 'one');
	wait_for('a process to end', sub { log_count($node, "$reached: fatal", $offset) >= 1 });
	set_config($node, 'qml.faults' => undef);
	$told->('after the process has ended');
	pass('the next scheduler sends what an ended one had taken');
	$_->quit foreach values %listener;
}

# ---- hooks that take long

{
	query($node, <<'SQL', 'one');
CREATE FUNCTION slow(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(0.5)';
REVOKE EXECUTE ON FUNCTION slow FROM PUBLIC;
SELECT qml_register_hook('slow', 'slow', '{enqueued}');
SELECT count(qml_enqueue('slow', queue => 'slow', run_at => clock_timestamp() + interval '1 s')) FROM generate_series(1, 100);
SQL
	wait_for(
		'due jobs to become ready',
		sub {
			delayed_job($_) foreach qw(two three);
			return query($node, "SELECT count(*) >= 6 FROM qml.live WHERE method = 'slow' AND state = 'enqueued'", 'one') eq 't';
		});
	pass('a scheduler knows from the one before it how long hooks take');
	query($node, q{SELECT qml_unregister_hook('slow'); TRUNCATE qml.live}, 'one');
}

# ---- slots of workers

# Runs until the test lets it go.
my $HOLDS = <<'SQL';
(payload jsonb) RETURNS int LANGUAGE sql AS $$ SELECT pg_advisory_xact_lock_shared((payload ->> 'lock')::int); SELECT pg_backend_pid() $$
SQL
handler($node, 'holds', "CREATE FUNCTION holds$HOLDS", dbname => 'one');
query($node, q{SELECT qml_register_handler('of_' || r, 'holds', jsonb_build_object('run_as', r)) FROM unnest('{ann,bob}'::text[]) r}, 'one');

my $blocker = new_session($node, 'one');
{
	$blocker->query_safe('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
	enqueue($node, 'of_ann', '{"lock": 1}', undef, 'one');
	enqueue($node, 'of_bob', '{"lock": 2}', undef, 'one');
	wait_held($node, 2);
	wait_rested();
	my $id = enqueue($node, 'of_bob', '{"lock": 3}', undef, 'one');
	wait_rested();
	$blocker->query_safe('SELECT pg_advisory_unlock(1)');
	my $seconds = seconds_until('the job of the role that waits', sub { outcome($node, $id, 'one') =~ /^succeeded/ });
	cmp_ok($seconds, '<=', $SOON, sprintf 'an idle worker makes room for a role of a database without a scheduler (%.1f s)', $seconds);
	$blocker->query_safe('SELECT pg_advisory_unlock(2)');
	wait_for('the jobs to end', sub { ask($node, 'SELECT count(*) FROM qml.live', 'one') == 0 });
}

# ---- as many workers leave as have to

{
	set_config($node, 'qml.databases' => 'one', 'qml.workers' => 3);
	wait_without($node, $_) foreach qw(two three);
	$blocker->query_safe('SELECT pg_advisory_lock(l) FROM generate_series(1, 4) l');
	enqueue($node, 'of_ann', qq({"lock": $_}), undef, 'one') foreach 1 .. 3;
	wait_held($node, 3);
	my %pid = map { $_ => ask($node, "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = $_ AND NOT granted", 'one') } 1 .. 3;
	my $offset = -s $node->logfile;
	set_config($node, 'qml.databases' => 'one, two');
	wait_for('the other database to wait', sub { ask($node, q{SELECT state FROM qml.database WHERE name = 'two'}, 'one') eq 'waiting' });
	foreach my $worker (values %pid)
	{
		wait_for('each worker to be asked to leave', sub { log_count($node, "qml launcher: worker $worker is asked to leave", $offset) > 0 });
	}
	$blocker->query_safe('SELECT pg_advisory_unlock(2)');
	wait_for_process($node, 'scheduler', 'two');
	my @next = map { enqueue($node, 'of_ann', '{"lock": 4}', undef, 'one') } 1 .. 2;
	$blocker->query_safe('SELECT pg_advisory_unlock(1), pg_advisory_unlock(3)');
	wait_for('the next jobs to run', sub { ask($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4 AND NOT granted", 'one') == 2 });
	is(ask($node, "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4 AND NOT granted", 'one'),
		join(' ', sort { $a <=> $b } @pid{1, 3}), 'one worker makes room for a database, and the others stay');
	$blocker->query_safe('SELECT pg_advisory_unlock(4)');
	wait_for('the jobs to end', sub { ask($node, 'SELECT count(*) FROM qml.live', 'one') == 0 });
}
$blocker->quit;

# ---- an extension that comes with a transaction of before the start

{
	set_config($node, 'qml.databases' => undef, 'qml.workers' => 2);
	query($node, 'CREATE DATABASE later');
	query($node, q{BEGIN; CREATE EXTENSION qml; PREPARE TRANSACTION 'of before'}, 'later');
	end_sessions($node);
	$node->restart;
	query($node, q{COMMIT PREPARED 'of before'}, 'later');
	wait_for('the scheduler', sub { query($node, q{SELECT served_at IS NOT NULL OR state = 'served' FROM qml.database WHERE name = 'later'}, 'later') eq 't' });
	pass('the launcher finds an extension that a transaction of before the start has made');
	end_sessions($node);
	query($node, 'DROP DATABASE later');
}

# ---- more databases than places

{
	my $offset = -s $node->logfile;
	set_config($node, 'qml.faults' => 'databases.most:limit:2');
	end_sessions($node);
	$node->restart;
	wait_for('the log to tell', sub { slurp_file($node->logfile, $offset) =~ /no place for \d databases? beyond the first 2/ });
	pass('the log tells of databases beyond the last place');
	my ($hidden) = grep { query($node, 'SELECT problem FROM qml.database WHERE name = current_database()', $_) =~ /^more than 2 databases are worked in/ } @databases;
	ok(defined $hidden, 'the view of such a database says so');
	my $seconds = delayed_job($hidden // 'three');
	cmp_ok($seconds, '<=', 100, sprintf 'and it has its turn (%.1f s)', $seconds);
}

end_sessions($node);
done_testing();
