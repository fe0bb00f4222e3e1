# State hooks where no client is: told of every transition by the scheduler and the
# workers, in its transaction, and in nobody's way.  And what NOTIFY tells.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

my $node = background_node('hooks', conf => <<'CONF');
qml.workers = 2
max_worker_processes = 20
CONF
my $scheduler = wait_for_process($node, 'scheduler', 'postgres');

query($node, <<'SQL');
CREATE TABLE ledger (job uuid, what text);
CREATE TABLE told (n bigserial, job uuid, method text, old qml.job_state, new qml.job_state, process text);
GRANT ALL ON ledger, told, told_n_seq TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
CREATE FUNCTION process() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS
	'SELECT a.backend_type FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()';
CREATE FUNCTION tell(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.told (job, method, old, new, process)
	VALUES (job.id, job.method, old, new, replace(public.process(), 'client backend', 'client'))
$$;
SELECT qml_create_queue('fast', '{"retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}');
SQL

# Registers a hook of the body of a PL/pgSQL function, for states such as '{failed}'.
sub hook
{
	my ($name, $states, $body) = @_;
	query($node, <<"SQL");
CREATE OR REPLACE FUNCTION hook_$name(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql
AS \$body\$ BEGIN $body END \$body\$;
REVOKE EXECUTE ON FUNCTION hook_$name FROM PUBLIC;
SELECT qml_register_hook('$name', 'hook_$name', '$states');
SQL
	return;
}

sub remove_hook
{
	my ($name) = @_;
	query($node, "SELECT qml_unregister_hook('$name')");
	return;
}

# What was told of a job: "old>new by process", one after the other.
sub trail
{
	my ($id) = @_;
	return ask($node, <<"SQL");
SELECT string_agg(concat(coalesce(old::text, 'new'), '>', new, ' by ', process), ', ' ORDER BY n) FROM told WHERE job = '$id'
SQL
}

sub trail_is
{
	my ($id, $name, @expected) = @_;
	is(trail($id), join(', ', @expected), $name);
	return;
}

my @RUN = ('enqueued>processing by qml worker', 'processing>succeeded by qml worker');

# ---- each transition in the background, once, by whoever makes it

handler($node, 'note',
	q{CREATE FUNCTION note(job qml.job) RETURNS void LANGUAGE sql AS 'INSERT INTO ledger VALUES ((job).id, (job).method)'});
handler($node, 'bad', q{CREATE FUNCTION bad(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'bad'; END $$});
handler($node, 'discards', q{CREATE FUNCTION discards(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT qml_discard('enough') $$});
handler($node, 'later', <<'SQL');
CREATE FUNCTION later(job qml.job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF (job).attempt = 1 THEN PERFORM qml_retry_later('10 ms'); END IF;
END $$
SQL
query($node, "REVOKE EXECUTE ON FUNCTION tell FROM PUBLIC; SELECT qml_register_hook('tell', 'tell')");

my $id = enqueue($node, 'note');
outcome_of($node, $id);
trail_is($id, 'success', 'new>enqueued by client', @RUN);

$id = enqueue($node, 'note', '{}', q{run_at => clock_timestamp() + interval '0.2 s'});
outcome_of($node, $id);
trail_is($id, 'promotion', 'new>scheduled by client', 'scheduled>enqueued by qml scheduler', @RUN);

$id = enqueue($node, 'bad', '{}', q{queue => 'fast', max_retries => 1});
outcome_of($node, $id);
trail_is($id, 'retry and failure', 'new>enqueued by client', 'enqueued>processing by qml worker',
	'processing>awaiting_retry by qml worker', 'awaiting_retry>enqueued by qml scheduler',
	'enqueued>processing by qml worker', 'processing>failed by qml worker');

$id = enqueue($node, 'discards');
outcome_of($node, $id);
trail_is($id, 'qml_discard', 'new>enqueued by client', $RUN[0], 'processing>deleted by qml worker');

$id = enqueue($node, 'later');
outcome_of($node, $id);
trail_is($id, 'qml_retry_later', 'new>enqueued by client', $RUN[0], 'processing>awaiting_retry by qml worker',
	'awaiting_retry>enqueued by qml scheduler', @RUN);

# Enqueues a job that no handler takes, and claims it with this lease.
sub claimed
{
	my ($lease) = @_;
	return query($node, <<"SQL");
SELECT qml_enqueue('outside', queue => 'outside', id => gen_random_uuid()) AS id \\gset
SELECT id FROM qml_fetch('w', '{outside}', 1, '$lease');
SQL
}

# What becomes of it when the claim is lost.
sub lost_is
{
	my ($job, $name) = @_;
	wait_state($node, $job, 'enqueued');
	trail_is($job, $name, 'new>enqueued by client', 'enqueued>processing by client', 'processing>enqueued by qml scheduler');
	query($node, "SELECT qml_delete('$job')");
	is(trail($job) =~ s/.*, //r, 'enqueued>deleted by client', "$name: deleted then");
	return;
}
lost_is(claimed('0.2 s'), 'a lease is over');
# The session of the claim is over when psql is.
lost_is(claimed('0'), 'a session is gone');

$id = claimed('1 h');
query($node, "SELECT qml_delete('$id')");
is(trail($id) =~ s/.*, //r, 'processing>deleted by client', 'a claimed job is deleted');

# Its worker gives it back until later, and then ends it.  The scheduler knows of the time.
$id = claimed('1 h');
query($node, "SELECT qml_release('$id', 1, clock_timestamp() + interval '0.2 s', 'busy')");
wait_state($node, $id, 'enqueued');
query($node, "SELECT id FROM qml_fetch('w', '{outside}')");
query($node, "CALL qml_discard_job('$id', 2, 'not needed')");
trail_is($id, 'released until later, and discarded', 'new>enqueued by client', 'enqueued>processing by client',
	'processing>awaiting_retry by client', 'awaiting_retry>enqueued by qml scheduler', 'enqueued>processing by client',
	'processing>deleted by client');

query($node, q{SELECT qml_schedule_recurring('tick', '* * * * * *', 'tick', queue => 'outside')});
wait_for('a tick', sub { ask($node, 'SELECT count(*) FROM qml.occurrence_data') > 0 });
query($node, q{SELECT qml_remove_recurring('tick')});
$id = ask($node, 'SELECT job FROM qml.occurrence_data ORDER BY occurrence LIMIT 1');
trail_is($id, 'a tick', 'new>enqueued by qml scheduler');

query($node, <<'SQL');
CREATE ROLE gus LOGIN;
CREATE FUNCTION for_gus(payload jsonb) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_handler('for_gus', 'for_gus', '{"run_as": "gus"}');
ALTER ROLE gus NOLOGIN;
SQL
$id = enqueue($node, 'for_gus', '{}', 'max_retries => 0');
like(outcome_of($node, $id), qr/^failed\|0\|28000/, 'a role that no worker can be');
trail_is($id, 'its job', 'new>enqueued by client', 'enqueued>failed by qml scheduler');
remove_hook('tell');

# ---- a hook decides about what a handler did

hook('judge', '{succeeded}', q{IF job.payload ? 'judge' THEN RAISE 'not so' USING ERRCODE = 'HK001'; END IF;});
is(run($node, 'note', '{"judge": 1}', 'max_retries => 0'), 'failed|1|HK001|not so', 'a hook that raises at a success: the job fails');
is(ask($node, 'SELECT count(*) FROM ledger l JOIN qml.job j ON j.id = l.job WHERE j.payload ? $$judge$$'), 0, 'and is undone');
$id = enqueue($node, 'note', '{"judge": 1}', q{max_retries => 2, queue => 'fast'});
is(outcome_of($node, $id), 'failed|3|HK001|not so', 'it is retried like any other');
like(ask($node, "SELECT errors -> -1 ->> 'stack_trace' FROM qml_job('$id')"), qr/CONTEXT: .*\nqml hook "judge"$/, 'the stack trace names the hook');
is(ask($node, 'SELECT errors, broken FROM qml.hook'), '0|f', 'a hook that is asked is not switched off');

# In a group: many have been short.
query($node, q{SELECT count(*) FROM qml_enqueue_many('note', array_fill('{}'::jsonb, ARRAY[200]))});
settle($node, 'note');
query($node, 'TRUNCATE ledger; CREATE TABLE mine (id uuid)');
query($node, <<'SQL');
INSERT INTO mine SELECT qml_enqueue('note', CASE i WHEN 50 THEN '{"judge": 1}' ELSE '{}' END::jsonb, max_retries => 0)
FROM generate_series(1, 120) i
SQL
settle($node, 'note');
is(ask($node, q{SELECT string_agg(state || ' ' || count, ', ' ORDER BY state) FROM (SELECT state, count(*) FROM mine JOIN qml.job USING (id) GROUP BY 1) s}),
	'succeeded 119, failed 1', 'one of a group: the others succeed');
is(ask($node, 'SELECT count(*), count(DISTINCT job) FROM ledger'), '119|119', 'each with its effect once');
remove_hook('judge');

# ---- a broken hook is in nobody's way, and is switched off

my $offset;

# Makes $count transitions go on under a hook with this body, and looks at it then.
sub broken_is
{
	my ($name, $states, $body, $error, $go) = @_;
	$offset = -s $node->logfile;
	hook('broken', $states, "IF public.process() LIKE 'qml %' THEN $body END IF;");
	$go->($name);
	wait_for('the hook to be switched off', sub { ask($node, q{SELECT broken FROM qml.hook WHERE name = 'broken'}) eq 't' });
	is(ask($node, 'SELECT errors, last_error, problem IS NULL FROM qml.hook'), "5|$error|t",
		"$name: it is switched off after five errors, and the last one shown");
	is(log_count($node, 'hook "broken" failed 5 times in a row and is disabled', $offset), 1, "$name: with a WARNING, once");
	remove_hook('broken');
	return;
}

# Waits for the end of all jobs of the queue "outside" that are not enqueued.
sub all_enqueued
{
	my ($name, $count) = @_;
	wait_for("$name: all jobs to be ready",
		sub { ask($node, q{SELECT count(*) FROM qml.live WHERE method = 'outside' AND state <> 'enqueued'}) == 0 });
	is(query($node, q{WITH d AS (SELECT qml_delete(id) FROM qml.live WHERE method = 'outside') SELECT count(*) FROM d}),
		$count, "$name: none is held up");
	return;
}

sub promotion
{
	my ($name) = @_;
	query($node, <<'SQL');
SELECT count(*) FROM qml_enqueue_many('outside', array_fill('{}'::jsonb, ARRAY[7]), queue => 'outside', run_at => clock_timestamp() + interval '0.2 s')
SQL
	all_enqueued($name, 7);
	return;
}

sub lost_claims
{
	my ($lease) = @_;
	return sub {
		my ($name) = @_;
		query($node, <<"SQL");
SELECT count(*) FROM qml_enqueue_many('outside', array_fill('{}'::jsonb, ARRAY[7]), queue => 'outside');
SELECT count(*) FROM qml_fetch('w', '{outside}', 7, '$lease');
SQL
		all_enqueued($name, 7);
	};
}

sub ticks
{
	my ($name) = @_;
	query($node, 'DELETE FROM qml.live');
	query($node, q{SELECT qml_schedule_recurring('s' || i, '* * * * * *', 'outside', queue => 'outside') FROM generate_series(1, 7) i});
	wait_for("$name: all schedules to fire", sub { ask($node, q{SELECT count(DISTINCT metadata #>> '{recurring,id}') FROM qml.live WHERE method = 'outside'}) == 7 });
	pass("$name: all schedules fire");
	is(query($node, 'SELECT count(*) FROM qml.recurring WHERE error IS NOT NULL'), 0, "$name: without an error");
	query($node, 'SELECT qml_remove_recurring(id) FROM qml.recurring; DELETE FROM qml.live');
	return;
}

# Jobs of a handler, of which each is to have this outcome.
sub jobs
{
	my ($method, $expected) = @_;
	return sub {
		my ($name) = @_;
		my @jobs = map { enqueue($node, $method, '{}', 'max_retries => 0') } 1 .. 7;
		settle($node, $method);
		is(join(' ', map { counted_outcome($node, $_) } @jobs), join(' ', ($expected) x 7), "$name: all jobs go their way");
	};
}

my $raise = q{RAISE 'no % here', new;};
broken_is('promotion', '{enqueued}', $raise, 'no enqueued here', \&promotion);
broken_is('leases', '{enqueued}', $raise, 'no enqueued here', lost_claims('0.2 s'));
broken_is('sessions', '{enqueued}', $raise, 'no enqueued here', lost_claims('0'));
broken_is('ticks', '{enqueued}', $raise, 'no enqueued here', \&ticks);
# Of two workers, one passes over what the other is just writing down.
sub with_one_worker
{
	my (@args) = @_;
	set_config($node, 'qml.workers' => 1);
	wait_for('one worker at most', sub { worker_pids($node) <= 1 });
	broken_is(@args);
	set_config($node, 'qml.workers' => 2);
	return;
}
with_one_worker('claims', '{processing}', $raise, 'no processing here', jobs('note', 'succeeded|1'));
with_one_worker('failures', '{failed}', $raise, 'no failed here', jobs('bad', 'failed|1|P0001|bad'));

# Errors that would mean something to the scheduler, if they were its own.
foreach my $code (qw(57014 57P01 40P01 40001 53200 55P03 25006 QM001 QM003 58000))
{
	broken_is("an error $code", '{enqueued}', "RAISE 'mine' USING ERRCODE = '$code';", 'mine', \&promotion);
}
with_one_worker('a claim with an error 57014', '{processing}', q{RAISE 'mine' USING ERRCODE = '57014';}, 'mine', jobs('note', 'succeeded|1'));
broken_is('a hook that caught something', '{enqueued}', q{BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN RAISE 'caught'; END;},
	'caught', \&promotion);
broken_is('a hook that changes its job', '{enqueued}', q{PERFORM public.qml_delete(job.id); RAISE 'deleted';}, 'deleted', \&promotion);

# Not in a row: it stays.
hook('often', '{enqueued}', q{IF public.process() LIKE 'qml %' AND job.payload ->> 'n' <> '3' THEN RAISE 'no'; END IF;});
query($node, <<'SQL');
SELECT qml_enqueue('outside', jsonb_build_object('n', i), 'outside', 0, clock_timestamp() + i * interval '10 ms') FROM generate_series(1, 7) i
SQL
all_enqueued('errors now and then', 7);
is(ask($node, 'SELECT errors, broken, last_error FROM qml.hook'), '4|f|no', 'errors that are not in a row are counted anew');
remove_hook('often');

# ---- a hook that takes its time

sub sleeping_is
{
	my ($name, $body) = @_;
	my $seconds;
	broken_is($name, '{enqueued}', $body, 'hook "broken" took longer than 2000 ms',
		sub { $seconds = seconds_until('promotion', sub { promotion($name); return 1; }) });
	# Five times two seconds, and then it is switched off.
	cmp_ok($seconds, '>=', 9, sprintf '%s: it has its two seconds (%.1f s)', $name, $seconds);
	cmp_ok($seconds, '<=', 20, "$name: and no more");
	return;
}
sleeping_is('a hook that sleeps', 'PERFORM pg_sleep(60);');
sleeping_is('one that catches being canceled', 'BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;');
sleeping_is('one that is called by another', <<'SQL');
	IF job.method = 'slow' THEN PERFORM pg_sleep(60);
	ELSE PERFORM public.qml_enqueue('slow', queue => 'outside'); END IF;
SQL
is(ask($node, q{SELECT count(*) FROM qml.job WHERE method = 'slow'}), 0, 'what it did is undone');
is(process($node, 'scheduler', 'postgres'), $scheduler, 'all this was one and the same scheduler');

# One that no cancel stops takes its process with it, once.
my $forever = q{IF public.process() LIKE 'qml %' THEN
	LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END IF;};

sub stuck_is
{
	my ($name, $states, $go) = @_;
	$offset = -s $node->logfile;
	hook('stuck', $states, $forever);
	$go->($name);
	is(ask($node, 'SELECT errors, broken, last_error FROM qml.hook'), '5|t|it did not stop when it was canceled', "$name: it is switched off");
	# Two workers may have met it at the same time.
	my $ends = log_count($node, 'hook "stuck" did not stop after 5 cancel requests; terminating its process', $offset);
	ok($ends >= 1 && $ends <= 2, "$name: its process ends, once ($ends)");
	is(log_count($node, 'hook "stuck" failed 5 times in a row and is disabled', $offset), 1, "$name: with a WARNING");
	remove_hook('stuck');
	return;
}
stuck_is('a hook that cannot be stopped', '{enqueued}', \&promotion);
isnt(process($node, 'scheduler', 'postgres'), $scheduler, 'by the next scheduler');
stuck_is('one in a worker', '{processing}', jobs('note', 'succeeded|1'));

# One whose row somebody has in his hands: it is switched off as soon as it can be.
{
	my $owner = new_session($node);
	my $ends = sub { log_count($node, 'hook "stuck" did not stop after', $offset) };
	$offset = -s $node->logfile;
	hook('stuck', '{enqueued}', $forever);
	$owner->query_safe(q{BEGIN; SELECT FROM qml.hook_data WHERE name = 'stuck' FOR UPDATE});
	query($node, q{SELECT qml_enqueue('outside', queue => 'outside', run_at => clock_timestamp() + interval '0.1 s')});
	wait_for('it to take a process with it', sub { $ends->() > 0 });
	$owner->query_safe('COMMIT');
	$owner->quit;
	wait_for('it to be switched off', sub { ask($node, 'SELECT broken FROM qml.hook') eq 't' });
	is(ask($node, 'SELECT last_error FROM qml.hook'), 'it did not stop when it was canceled', 'one whose row was locked is not forgotten');
	wait_for('the job to be promoted', sub { ask($node, q{SELECT count(*) FROM qml.live WHERE state = 'scheduled'}) == 0 });
	remove_hook('stuck');
	query($node, 'DELETE FROM qml.live');
}

# Slow ones that stay within their limit: twelve at once are too many.
$offset = -s $node->logfile;
hook('slow', '{enqueued}', q{IF public.process() LIKE 'qml %' THEN PERFORM pg_sleep(1.9); END IF;});
query($node, <<'SQL');
SELECT count(*) FROM qml_enqueue_many('outside', array_fill('{}'::jsonb, ARRAY[12]), queue => 'outside', run_at => clock_timestamp() + interval '0.2 s')
SQL
wait_for('the slow hook to see all of twelve', sub { ask($node, q{SELECT count(*) FROM qml.live WHERE method = 'outside' AND state = 'enqueued'}) == 12 });
is(log_count($node, 'ms for 11 transitions in one transaction', $offset), 1, 'slow hooks: all of them in one transaction is too much');
is(ask($node, q{SELECT count(DISTINCT xmin::text) FROM qml.live WHERE method = 'outside'}), 12, 'they are told in smaller parts');
is(ask($node, 'SELECT errors, broken FROM qml.hook'), '0|f', 'and not taken for broken');
remove_hook('slow');
query($node, 'DELETE FROM qml.live');

hook('slow', '{succeeded}', 'PERFORM pg_sleep(60);');
{
	my $start = time;
	is(run($node, 'note', '{}', 'max_retries => 0'), 'failed|1|54000|hook "slow" took longer than 2000 ms', 'a job whose hook takes longer fails');
	cmp_ok(time - $start, '<=', 6, 'in time');
}
remove_hook('slow');
# What was meant for a hook hits nothing that comes after it.
hook('close', '{processing}', q{IF job.method = 'note' THEN PERFORM pg_sleep(1.9); END IF;});
is(run($node, 'note', '{}', 'max_retries => 0'), 'succeeded|1', 'a hook that is just quick enough');
handler($node, 'long', q{CREATE FUNCTION long(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(3)'});
is(run($node, 'long', '{}', 'max_retries => 0'), 'succeeded|1', 'the limit of hooks is none of jobs');
remove_hook('close');

# ---- a hook that is not what it was

hook('gone', '{enqueued}', 'NULL;');
query($node, 'DROP FUNCTION hook_gone(qml.job, qml.job_state, qml.job_state)');
query($node, q{UPDATE qml.hook_data SET states = '{processing}'});
set_config($node, 'qml.workers' => 1);
wait_for('one worker at most', sub { worker_pids($node) <= 1 });
wait_for('the hook whose function is gone to be switched off', sub {
	jobs('note', 'succeeded|1')->('a hook whose function is gone');
	return ask($node, 'SELECT broken FROM qml.hook') eq 't';
});
set_config($node, 'qml.workers' => 2);
like(ask($node, 'SELECT errors, broken, last_error FROM qml.hook'), qr/^5\|t\|.*hook_gone.*cannot be called$/, 'it is switched off as well');
remove_hook('gone');

# ---- nothing of a hook stays in a process that has no end

hook('locks', '{enqueued,processing,succeeded}', q{IF public.process() LIKE 'qml %' THEN PERFORM pg_advisory_xact_lock(hashtext(job.id::text)); END IF;});
query($node, <<'SQL');
SELECT count(*) FROM qml_enqueue_many('outside', array_fill('{}'::jsonb, ARRAY[200]), queue => 'outside', run_at => clock_timestamp() + interval '0.2 s')
SQL
wait_for('all to be promoted', sub { ask($node, q{SELECT count(*) FROM qml.live WHERE method = 'outside' AND state <> 'enqueued'}) == 0 });
is(run($node, 'note', '{}', 'max_retries => 0'), 'succeeded|1', 'a hook that locks something');
wait_idle($node);
is(query($node, q{SELECT count(*) FROM pg_locks l JOIN pg_stat_activity USING (pid) WHERE l.locktype = 'advisory' AND backend_type LIKE 'qml %'}), 0,
	'the locks are gone with the transaction');
# Each call is a subtransaction, of which other sessions remember 64 of a transaction.
cmp_ok(query($node, q{SELECT max(n) FROM (SELECT count(*) AS n FROM qml.live WHERE method = 'outside' GROUP BY xmin::text) s}), '<=', 60,
	'no transaction has more calls than fit');
remove_hook('locks');
query($node, 'DELETE FROM qml.live');

# ---- a hook of a role that is a member of the owner, and no superuser, is that role

query($node, <<'SQL');
CREATE ROLE mallory LOGIN;
CREATE ROLE victim LOGIN;
SELECT qml_grant('mallory', 'admin'), qml_grant('mallory', 'enqueue');
GRANT postgres TO mallory;
CREATE TABLE canary (how text, who name DEFAULT current_user);
CREATE TABLE secret (a int);
ALTER TABLE secret OWNER TO victim;
GRANT ALL ON canary TO PUBLIC;
CREATE TABLE attempts (process text, what text, code text);
GRANT ALL ON attempts TO PUBLIC;
SET ROLE mallory;
CREATE FUNCTION sing() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.canary (how) VALUES ('trigger'); RETURN NULL; END $$;
CREATE TABLE bomb (a int);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON bomb DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sing();
CREATE FUNCTION attack(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	tries text[] := ARRAY['RESET ROLE', 'SET ROLE none', 'SET ROLE postgres', 'SET ROLE victim', 'SET SESSION AUTHORIZATION postgres',
		'RESET SESSION AUTHORIZATION', 'SET LOCAL session_authorization = victim', 'CREATE TEMP TABLE pg_proc (a int)',
		'INSERT INTO public.bomb VALUES (1)', 'LISTEN x', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'INSERT INTO public.secret VALUES (1)',
		'ALTER ROLE mallory SUPERUSER', 'SET session_replication_role = replica', 'NOTIFY x', 'SET CONSTRAINTS ALL IMMEDIATE', 'SELECT pg_advisory_lock(1)',
		'COPY public.canary (how) FROM PROGRAM ''echo program''', 'SELECT pg_notify(''x'', ''y'')'];
	s text;
BEGIN
	IF public.process() NOT LIKE 'qml %' THEN RETURN; END IF;
	INSERT INTO public.canary (how) VALUES ('hook');
	FOREACH s IN ARRAY tries LOOP
		BEGIN
			EXECUTE s;
			INSERT INTO public.attempts VALUES (public.process(), s, 'done');
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO public.attempts VALUES (public.process(), s, SQLSTATE);
		END;
	END LOOP;
	PERFORM set_config('search_path', 'public', false), set_config('mallory.was', 'here', false), set_config('work_mem', '64', false);
END $$;
REVOKE EXECUTE ON FUNCTION attack FROM PUBLIC;
SELECT qml_register_hook('attack', 'attack');
RESET ROLE;
SQL
query($node, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'qml worker'});
handler($node, 'looks', <<'SQL');
CREATE FUNCTION looks(payload jsonb) RETURNS text LANGUAGE sql AS
	$$ SELECT concat_ws(' ', session_user, current_user, current_setting('search_path'),
		nullif(current_setting('mallory.was', true), ''), current_setting('work_mem')) $$
SQL
$id = enqueue($node, 'looks', '{}', q{run_at => clock_timestamp() + interval '0.2 s'});
outcome_of($node, $id);
is(ask($node, "SELECT result #>> '{}' FROM qml_job('$id')"), 'postgres postgres "$user", public 4MB', 'nothing that a hook sets reaches a job');
is(ask($node, q{SELECT string_agg(DISTINCT process, ' ' ORDER BY process) FROM attempts}), 'qml scheduler qml worker', 'all was tried in both');
is(ask($node, q{SELECT string_agg(DISTINCT what || ': ' || code, ', ') FROM attempts WHERE code <> '42501'}), '', 'and refused');
is(ask($node, q{SELECT count(DISTINCT what) FROM attempts}), 19, 'everything');
is(ask($node, q{SELECT string_agg(DISTINCT concat_ws(' ', how, who), ', ') FROM canary}), 'hook mallory', 'nothing ran as anybody else');
is(ask($node, q{SELECT concat_ws(' ', (SELECT count(*) FROM secret), (SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'), (SELECT run_as FROM qml.hook))}),
	'0 f mallory', 'and nothing was changed that is not his');
is(run($node, 'looks', '{}'), 'succeeded|1', 'the worker goes on');
remove_hook('attack');

# Who a scheduler is to a hook of the owner of a function that changed hands.
query($node, <<'SQL');
CREATE FUNCTION mine(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.canary (how) VALUES ('mine') $$;
REVOKE EXECUTE ON FUNCTION mine FROM PUBLIC;
SELECT qml_register_hook('mine', 'mine', '{enqueued}');
UPDATE qml.hook_data SET states = '{processing}';
ALTER FUNCTION mine(qml.job, qml.job_state, qml.job_state) OWNER TO mallory;
SQL
is(run($node, 'note'), 'succeeded|1', 'a hook whose function changed hands');
is(ask($node, q{SELECT count(*) FROM canary WHERE how = 'mine'}), 0, 'is not called');
remove_hook('mine');

# ---- NOTIFY

query($node, q{SELECT qml_create_queue('told', '{"notify": true}'), qml_create_queue('also', '{"notify": true}'), qml_create_queue('quiet')});
my $listener = new_session($node);
$listener->query_safe('LISTEN qml_told');
$listener->query_safe('LISTEN qml_also');
$listener->query_safe('LISTEN qml_quiet');
my %heard = (told => 0, also => 0, quiet => 0);

# Takes what has come since the last time.
sub hear
{
	my $output = $listener->query('SELECT 1');
	$heard{$_}++ foreach $output =~ /Asynchronous notification "qml_(\w+)"/g;
	return;
}

# Waits for a notification of a queue; forgets them all first.
sub hears
{
	my ($queue, $name) = @_;
	wait_for("a notification of $queue", sub { hear(); $heard{$queue} > 0 });
	pass($name);
	return;
}

sub forget_notifications
{
	hear();
	%heard = (told => 0, also => 0, quiet => 0);
	return;
}

query($node, q{SELECT qml_enqueue('m', queue => 'told')});
hears('told', 'a job that is enqueued is announced');

forget_notifications();
{
	my $start = time;
	query($node, <<'SQL');
DO $$ BEGIN
	FOR i IN 1 .. 10000 LOOP
		PERFORM qml_enqueue('m', queue => CASE i % 2 WHEN 0 THEN 'told' ELSE 'quiet' END);
		COMMIT;
	END LOOP;
END $$
SQL
	my $seconds = time - $start;
	hears('told', sprintf 'a burst of 10,000 transactions in %.1f s is announced', $seconds);
	# The last ones are announced later than the first; this comes after them.
	query($node, q{SELECT qml_enqueue('m', queue => 'also')});
	hears('also', 'so is what comes after it');
	cmp_ok($heard{told}, '<=', $seconds * 10 + 3, "seldom: $heard{told} times");
	is($heard{quiet}, 0, 'a queue without the option is not');
}

forget_notifications();
query($node, q{SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1000]), 'told')});
hears('told', 'many jobs of one transaction are announced');
forget_notifications();
query($node, q{BEGIN; SELECT qml_enqueue('m', queue => 'told'); ROLLBACK});
query($node, q{SELECT qml_enqueue('m', queue => 'also', run_at => clock_timestamp() + interval '0.2 s')});
hears('also', 'a job that becomes due is announced');
is($heard{told}, 0, 'one that is rolled back is not');
forget_notifications();
query($node, q{SELECT qml_fail(id, attempt, 'again', retry_at => clock_timestamp()) FROM qml_fetch('w', '{also}')});
hears('also', 'one that is to be retried is');
forget_notifications();
query($node, q{SELECT qml_fetch('w', '{told}', 1, '0.2 s')});
hears('told', 'one that is taken back is');

forget_notifications();
query($node, q{BEGIN; SELECT qml_enqueue('m', queue => 'told'); PREPARE TRANSACTION 'p'});
query($node, q{SELECT qml_enqueue('m', queue => 'also')});
hears('also', 'an enqueue can be prepared');
is($heard{told}, 0, 'which announces nothing');
query($node, q{COMMIT PREPARED 'p'});
hears('told', 'COMMIT PREPARED does');

forget_notifications();
query($node, q{SELECT qml_alter_queue('told', '{"notify": null}')});
query($node, q{SELECT qml_enqueue('m', queue => 'told')});
query($node, q{SELECT qml_enqueue('m', queue => 'also')});
hears('also', 'an option that is taken back');
is($heard{told}, 0, 'counts from then on');
$listener->quit;

run_log_clean($node, 'no process crashed');
end_sessions($node);
done_testing();
