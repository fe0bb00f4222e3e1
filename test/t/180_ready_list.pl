# Claims from the lists of ready jobs in shared memory: whatever is done to jobs, each ready one
# is found, given once, and in order; and a fetch costs the same however many dead or running
# jobs are in front.  Most parts run beside twenty thousand dead entries of the index, which a
# snapshot keeps, so that a fetch which does without the list is seen by what it costs.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

# Pages that fetches touch, on average; and one that may do a little more.
my ($MOST_MEAN, $MOST) = (6, 40);
# Dead entries in front of a queue, and what a walk over them costs at least.
my ($DEAD, $WALK) = (20_000, 200);

seed();
my $node = new_node('ready_list', conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.enabled = off
qml.succeeded_ttl = 0
qml.failed_ttl = '1 d'
qml.log_failures = off
client_min_messages = warning
autovacuum = off
fsync = off
shared_buffers = 256MB
max_wal_size = 4GB
max_prepared_transactions = 200
CONF

my $HELPERS = <<'SQL';
CREATE FUNCTION fill(queue text, jobs int, priority int DEFAULT 0) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[jobs]), queue, priority)
$$;
-- What fetches from the queue are to give, in this order.
CREATE FUNCTION ready(queue text) RETURNS uuid[] LANGUAGE sql STABLE AS $$
	SELECT coalesce(array_agg(l.id ORDER BY l.priority DESC, l.id), '{}')
	FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id
	WHERE q.name = $1 AND l.state = 'enqueued' AND l.run_at IS NULL
$$;
CREATE FUNCTION compare(expected uuid[], got uuid[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	place int := 1;
BEGIN
	IF expected = got THEN
		RETURN cardinality(got) || ' in order';
	END IF;
	WHILE expected[place] = got[place] LOOP
		place := place + 1;
	END LOOP;
	RETURN format('%s instead of %s, %s twice, %s missing, %s that were not ready, %s after the first %s',
		cardinality(got), cardinality(expected),
		cardinality(got) - (SELECT count(DISTINCT g) FROM unnest(got) g),
		(SELECT count(*) FROM (SELECT unnest(expected) EXCEPT SELECT unnest(got)) x),
		(SELECT count(*) FROM (SELECT unnest(got) EXCEPT SELECT unnest(expected)) x),
		coalesce(got[place]::text, 'none'), place - 1);
END $$;
-- Fetches until a fetch gives nothing, each in a transaction; says what differs from ready().
CREATE PROCEDURE drain(queue text, batch int, INOUT result text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
	expected uuid[] := ready(queue);
	got uuid[];
	ids uuid[] := '{}';
BEGIN
	LOOP
		SELECT array_agg(f.id) INTO got FROM qml_fetch('w', queue, batch) f;
		COMMIT;
		EXIT WHEN got IS NULL;
		ids := ids || got;
	END LOOP;
	result := compare(expected, ids);
END $$;
-- The same from all queues; within each the order counts.
CREATE PROCEDURE drain_all(batch int, INOUT result text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
	expected jsonb;
	queues text[] := '{}';
	ids uuid[] := '{}';
	got uuid[];
	got_queues text[];
BEGIN
	SELECT jsonb_object_agg(q.name, ready(q.name)) INTO expected
	FROM qml.queue_data q WHERE EXISTS (SELECT FROM qml.live l WHERE l.queue_id = q.id AND l.state = 'enqueued');
	LOOP
		SELECT array_agg(f.id), array_agg(f.queue) INTO got, got_queues FROM qml_fetch('w', NULL, batch) f;
		COMMIT;
		EXIT WHEN got IS NULL;
		ids := ids || got;
		queues := queues || got_queues;
	END LOOP;
	SELECT coalesce(string_agg(x.queue || ': ' || x.said, '; ' ORDER BY x.queue) FILTER (WHERE x.said !~ '^\d+ in order$'),
		format('%s of %s queues in order', cardinality(ids), count(*)))
	INTO result
	FROM (
		SELECT coalesce(e.queue, g.queue) AS queue,
			compare(coalesce(e.ids, '{}'), coalesce(g.ids, '{}')) AS said
		FROM (SELECT key AS queue, ARRAY(SELECT jsonb_array_elements_text(value)::uuid) AS ids FROM jsonb_each(expected)) e
		FULL JOIN (
			SELECT o.queue, array_agg(o.id ORDER BY o.n) AS ids
			FROM unnest(queues, ids) WITH ORDINALITY o (queue, id, n) GROUP BY 1) g USING (queue)) x;
END $$;
-- Pages that the fetches touch, one after the other, each in a transaction; finishes the jobs if
-- told to.  jobs: how many they gave.
CREATE PROCEDURE cost(claim text, times int, finish boolean, INOUT pages int[] DEFAULT '{}', INOUT jobs int DEFAULT 0)
LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	FOR i IN 1 .. times LOOP
		EXECUTE format('EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT set_config(''t.job'', id || ''/'' || attempt, false) FROM %s', claim)
		INTO plan;
		COMMIT;
		plan := plan -> 0 -> 'Plan';
		pages := pages || (plan ->> 'Shared Hit Blocks')::int + (plan ->> 'Shared Read Blocks')::int;
		jobs := jobs + (plan ->> 'Actual Rows')::int;
		IF finish AND (plan ->> 'Actual Rows')::int = 1 THEN
			PERFORM qml_succeed(split_part(current_setting('t.job'), '/', 1)::uuid, split_part(current_setting('t.job'), '/', 2)::int);
			COMMIT;
		END IF;
	END LOOP;
END $$;
-- A row that is written by SQL.
CREATE FUNCTION add_row(queue text, jobs int DEFAULT 1, priority int DEFAULT 0, id uuid DEFAULT NULL, state qml.job_state DEFAULT 'enqueued')
RETURNS void LANGUAGE sql AS $$
	INSERT INTO qml.live (id, created_at, queue_id, priority, state, attempt, uncounted, max_retries,
		lineage, timeout_ms, created_by, started_at, lease_expires_at, method, payload)
	SELECT coalesce($4, gen_random_uuid()), now(), q.id, $3, $5,
		CASE $5 WHEN 'processing' THEN 1 ELSE 0 END, 0, 5, 0, 1000, current_user::regrole,
		CASE $5 WHEN 'processing' THEN now() END, CASE $5 WHEN 'processing' THEN now() + interval '1 h' END, 'm', '{}'
	FROM qml.queue_data q, generate_series(1, $2) WHERE q.name = $1
$$;
CREATE FUNCTION queue_id(queue text) RETURNS int LANGUAGE sql STABLE AS $$ SELECT id FROM qml.queue_data WHERE name = $1 $$;
SQL
query($node, $HELPERS);

my $begun = time;

sub section
{
	my ($name) = @_;
	note(sprintf '---- %.1f s: %s', time - $begun, $name);
	return;
}

sub session
{
	my ($dbname) = @_;
	return new_session($node, $dbname // 'postgres', on_error_stop => 0);
}

sub told
{
	my ($session, $sql) = @_;
	return $session->query_safe($sql);
}

# What the statements raise, which must be something; the session goes on.
sub fails
{
	my ($session, $sql, $error, $name) = @_;
	$session->query($sql);
	like($session->{stderr}, $error, $name);
	$session->{stderr} = '';
	return;
}

# $s does things, $o is another one that finds what there is; $old keeps a snapshot.
my ($s, $o, $old);

sub connect_all
{
	($s, $o, $old) = map { session() } 1 .. 3;
	hold_snapshot();
	return;
}

sub hold_snapshot
{
	told($old, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class LIMIT 1');
	return;
}

sub drains
{
	my ($queue, $count, $name, $batch, $session) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(told($session // $o, "CALL drain('$queue', @{[ $batch // 7 ]})"), "$count in order", $name);
}

# A queue with so many ready jobs and, if told so, dead ones in front; its list is filled.
my $queues = 0;

sub fresh
{
	my ($jobs, $dead) = @_;
	my $queue = 'q' . ++$queues;
	told($s, "SELECT qml_create_queue('$queue')");
	if ($dead)
	{
		told($s, "SELECT fill('$queue', $DEAD, 1000)");
		told($s, "DELETE FROM qml.live WHERE queue_id = queue_id('$queue')");
	}
	told($s, "SELECT fill('$queue', $jobs)") if $jobs > 0;
	told($o, "SELECT count(*) FROM qml_fetch('warm', '$queue')");
	return $queue;
}

sub mean
{
	my (@numbers) = @_;
	my $sum = 0;
	$sum += $_ foreach @numbers;
	return @numbers ? $sum / @numbers : 0;
}

# The pages of each of so many fetches; and how many jobs they gave.
sub cost
{
	my ($session, $fetch, $times, $finish) = @_;
	my ($pages, $jobs) = told($session, "CALL cost(\$f\$$fetch\$f\$, $times, @{[ $finish ? 'true' : 'false' ]})") =~ /^\{(.*)\}\|(\d+)$/;
	return ([ split /,/, $pages ], $jobs);
}

# A fetch of one costs little, in a session that has fetched before: the list gives it.
sub is_cheap
{
	my ($queue, $name, $session) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($pages, $jobs) = cost($session // $o, "qml_fetch('w', '$queue')", 2);
	return cmp_ok($pages->[1], '<=', $MOST, "$name: a fetch touches $pages->[1] pages");
}

connect_all();

# ---- what a fetch costs

sub measure
{
	my ($name, $fetch, $most, $times) = @_;
	$times //= 30;
	# What is read for the first time, and the list that is filled, are not of it.
	cost($o, $fetch, 3, 1);
	my ($pages, $jobs) = cost($o, $fetch, $times, 1);
	my $mean = mean(@$pages);
	is($jobs, $times, "$name: each fetch gives a job");
	cmp_ok($mean, '<=', $most, sprintf '%s: a fetch touches %.2f pages on average, %d at most',
		$name, $mean, (sort { $b <=> $a } @$pages)[0]);
	return;
}

sub measure_all
{
	my ($name) = @_;
	measure("$name, one queue", "qml_fetch('w', 'a')", $MOST_MEAN);
	measure("$name, three queues", "qml_fetch('w', '{b,a,c}'::text[])", $MOST_MEAN);
	measure("$name, all queues", 'qml_fetch()', $MOST_MEAN);
	return;
}

section('pages');
told($s, "SELECT fill(q, 3000) FROM unnest('{a,b,c}'::text[]) q");
measure_all('fresh');
{
	# Far more than a list is filled with at once.
	my ($pages, $jobs) = cost($o, "qml_fetch('w', 'a')", 1500, 0);
	is($jobs, 1500, 'many fetches each give a job');
	cmp_ok(mean(@$pages), '<=', $MOST_MEAN, sprintf '%.2f pages on average', mean(@$pages));
}
told($s, <<'SQL') foreach 1 .. 8;
SELECT fill('a', 10000, 5);
SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', 'a', 10000);
SQL
measure_all('beside 80,000 that are finished');
told($o, 'SET qml.ready_lists = off');
my ($walk) = cost($o, "qml_fetch('w', 'a')", 3);
cmp_ok($walk->[2], '>=', $WALK, "without lists it touches $walk->[2] pages: the measure can tell");
told($o, 'RESET qml.ready_lists');
told($s, "SELECT add_row('a', 50000, 9, state => 'processing')");
measure_all('with 50,000 running jobs in front');

# What most workers call.
cost($o, "qml_fetch('w', 'a')", 1);
my $next = "qml_succeed_fetch(split_part(current_setting('t.job'), '/', 1)::uuid, split_part(current_setting('t.job'), '/', 2)::int, NULL, 'w', 'a'::text)";
cost($o, $next, 3);
my ($both, $done) = cost($o, $next, 30);
is($done, 30, 'each call that ends a job and fetches gives one');
cmp_ok(mean(@$both), '<=', 3 * $MOST_MEAN, sprintf 'and touches %.2f pages on average', mean(@$both));

# A transaction that makes jobs finds them, and those of other queues for few pages.
told($o, "BEGIN; SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[5]), 'follow')");
foreach (1 .. 3)
{
	my $top = json(told($o, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM qml_fetch('w', 'a')"))->[0]{Plan};
	my $touched = $top->{'Shared Hit Blocks'} + $top->{'Shared Read Blocks'};
	is($top->{'Actual Rows'}, 1, 'after jobs were made in another queue, a fetch gives a job');
	cmp_ok($touched, '<=', $MOST_MEAN, "and touches $touched pages");
}
is(told($o, "SELECT count(*) FROM qml_fetch('w', 'follow', 10)"), 5, 'those that it has made are given');
is(told($o, "SELECT count(*) FROM qml_fetch('w', '{follow,a}'::text[], 3)"), 3, 'then those of others');
told($o, 'ROLLBACK');

# Jobs that come back by a retry: one in a hundred of those that are fetched, each far in front of
# all that are ready now.
told($s, <<'SQL');
CREATE TABLE back AS SELECT id, attempt, row_number() OVER () AS n FROM qml_fetch('w', 'a', 20);
SQL
my @pages;
foreach my $n (1 .. 10)
{
	told($s, "SELECT qml_fail(id, attempt, 'e', retry_at => now()) FROM back WHERE n = $n; SELECT qml_promote_due()");
	my ($pages, $jobs) = cost($o, "qml_fetch('w', 'a')", 20, 1);
	push @pages, @$pages;
	is($jobs, 20, 'each fetch gives a job') if $n == 10;
}
is(told($o, 'SELECT count(*) FROM back b WHERE n <= 10 AND NOT EXISTS (SELECT FROM qml.live l WHERE l.id = b.id)'), 10, 'those that come back are given first');
cmp_ok(mean(@pages), '<=', $MOST_MEAN, sprintf 'while some come back: %.2f pages', mean(@pages));
drains($_, told($o, "SELECT cardinality(ready('$_'))"), "the rest of $_", 500) foreach qw(a b c);
foreach my $fetch ("qml_fetch('w', 'a')", "qml_fetch('w', '{b,a,c}'::text[])", 'qml_fetch()')
{
	# Soon after SQL has written, it is not yet known which queues have ready jobs.
	wait_for("$fetch to know that there is nothing", sub { (cost($o, $fetch, 1))[0][0] <= 2 });
	my ($pages, $jobs) = cost($o, $fetch, 5);
	is($jobs, 0, "$fetch gives nothing");
	cmp_ok(mean(@$pages), '<=', 2, sprintf 'and touches %.1f pages', mean(@$pages));
}
told($s, 'DROP TABLE back; DELETE FROM qml.live');

# ---- claims that are undone

section('claims that are undone');
foreach my $batch (1, 10, 500)
{
	foreach my $jobs (5, 700)
	{
		my $many = $batch < $jobs ? $batch : $jobs;
		my $queue = fresh($jobs, $jobs == 700);
		my $left = $jobs - 1;
		$many = $left if $many > $left;
		my $fetch = "SELECT array_agg(id) FROM qml_fetch('w', '$queue', $batch)";
		my $front = told($s, "SELECT (ready('$queue'))[1:$many]");
		my $what = "a claim of $many of $left";

		is(told($s, "BEGIN; $fetch"), $front, "$what gives the first ones");
		if ($jobs > 600)
		{
			is(told($o, "BEGIN; SELECT id FROM qml_fetch('w', '$queue')"),
				told($s, "SELECT (ready('$queue'))[1]"), 'others get what is behind');
			told($o, 'ROLLBACK');
		}
		told($s, 'ROLLBACK');
		is(told($o, "BEGIN; $fetch"), $front, 'after ROLLBACK others get the same');
		told($o, 'ROLLBACK');
		is(told($s, "BEGIN; SAVEPOINT a; $fetch; ROLLBACK TO a; $fetch; COMMIT") =~ s/\n.*//sr, $front, 'so they do after ROLLBACK TO');
		is(told($o, "SELECT count(*) FROM qml_fetch('w', '$queue', 0 + 1)"), $jobs > 600 || $batch == 1 ? 1 : 0, 'others get what is left');
		told($s, "SELECT qml_release_many(array_agg(id), array_agg(attempt)) FROM qml.live WHERE queue_id = queue_id('$queue') AND state = 'processing'");
		told($s, <<"SQL");
DO \$\$ BEGIN
	PERFORM count(*) FROM qml_fetch('w', '$queue', $batch);
	PERFORM 1 / 0;
EXCEPTION WHEN division_by_zero THEN NULL;
END \$\$
SQL
		is_cheap($queue, 'after an error that was caught') if $jobs > 600;
		fails($s, "SELECT count(*) / 0 FROM qml_fetch('w', '$queue', $batch)", qr/division by zero/, 'a claim fails');
		drains($queue, $jobs - ($jobs > 600 ? 2 : 0), "$what that was undone", $batch);
	}
}

# A session that ends with its claims open, in whatever way.
foreach my $way ('is terminated', 'is gone', 'fails')
{
	my $queue = fresh(200);
	my $session = session();
	my $pid = told($session, 'SELECT pg_backend_pid()');
	told($session, "BEGIN; SELECT FROM qml_fetch('w', '$queue', 50)" . ($way eq 'fails' ? '' : '; SAVEPOINT a') . "; SELECT FROM qml_fetch('w', '$queue', 100)");
	told($o, "SELECT FROM qml_fetch('w', '$queue', 10)");
	told($s, "SELECT pg_terminate_backend($pid)") if $way eq 'is terminated';
	$session->{run}->kill_kill if $way eq 'is gone';
	fails($session, 'SELECT 1 / 0', qr/division by zero/, 'its transaction fails') if $way eq 'fails';
	wait_for('the session to have ended', sub { told($s, "SELECT count(*) FROM pg_locks WHERE pid = $pid AND mode = 'RowExclusiveLock'") eq '0' });
	drains($queue, 189, "the claims of a session that $way are undone");
	eval { $session->{run}->kill_kill };
}

# ---- jobs that are made, and are not

section('jobs that are made, and are not');
foreach my $jobs (0, 10, 300)
{
	my $queue = fresh($jobs, $jobs == 300);
	my $n = $jobs ? $jobs - 1 : 0;
	my $in_front = "SELECT qml_enqueue('m', queue => '$queue', priority => 7)";

	told($s, "BEGIN; SAVEPOINT a; $in_front; SELECT fill('$queue', 20); ROLLBACK TO a; COMMIT");
	told($s, "BEGIN; SAVEPOINT a; $in_front; RELEASE a; SELECT fill('$queue', 20); ROLLBACK");
	told($s, "BEGIN; SAVEPOINT a; SAVEPOINT b; $in_front; RELEASE b; ROLLBACK TO a; RELEASE a; COMMIT");
	is(told($o, "SELECT count(*) FROM qml_fetch('w', '$queue') WHERE priority = 7"), 0, "none of those that were not made is given, before $n");
	$n-- if $n;
	told($s, "BEGIN; SAVEPOINT a; $in_front; RELEASE a; SAVEPOINT b; SELECT fill('$queue', 3); ROLLBACK TO b; SAVEPOINT c; SELECT fill('$queue', 2); COMMIT");
	is(told($o, "BEGIN; SELECT priority FROM qml_fetch('w', '$queue')"), 7, 'that of a savepoint that was released is given');
	told($o, 'ROLLBACK');

	# A transaction sees its own jobs, in their place.
	is(told($s, "BEGIN; $in_front; SELECT priority FROM qml_fetch('w', '$queue', 3) OFFSET 1") =~ s/^.*?\n//sr, $jobs > 0 ? "7\n0" : "7\n0", 'a transaction gets jobs of its own');
	told($s, 'ROLLBACK');
	is(told($s, "BEGIN; SELECT qml_enqueue('m', queue => '$queue', priority => 8) AS id \\gset\nSELECT id = :'id' FROM qml_fetch('w', '$queue')"), 't', 'the first of all');
	told($s, "SELECT qml_succeed(:'id', 1); COMMIT");
	told($s, "BEGIN; SELECT fill('$queue', 4); SAVEPOINT a; SELECT FROM qml_fetch('w', '$queue', 1000); ROLLBACK TO a; COMMIT");
	is_cheap($queue, 'after all that') if $jobs == 300;
	drains($queue, $n + 7 - ($jobs == 300 ? 2 : 0), "all that were made, behind $jobs");
}

# ---- functions that change jobs

section('functions that change jobs');
# What is done to the job in t.id, and before that, in a transaction of its own.
my @CHANGES = (
	[ 'delete', "qml_delete(ID)" ],
	[ 'set_state deleted', "qml_set_state(ID, 'deleted')" ],
	[ 'reschedule', "qml_reschedule(ID, now() + interval '1 h')" ],
	[ 'reschedule and retry', "qml_reschedule(ID, now() + interval '1 h'), qml_retry(ID)" ],
	[ 'retry of one that waits', 'qml_retry(ID)', "qml_reschedule(ID, now() + interval '1 h')" ],
	[ 'promotion', 'qml_promote_due()', "qml_reschedule(ID, now())" ],
	[ 'succeed', 'qml_succeed(ID, 1)', 'claim()' ],
	[ 'discard', 'qml_discard(ID, 1)', 'claim()' ],
	[ 'release', 'qml_release(ID, 1)', 'claim()' ],
	[ 'release until later', "qml_release(ID, 1, now() + interval '1 h')", 'claim()' ],
	[ 'release, delete', 'qml_release(ID, 1), qml_delete(ID)', 'claim()' ],
	[ 'failure', "qml_fail(ID, 1, 'e')", 'claim()' ],
	[ 'failure for good', "qml_fail(ID, 1, 'e', retry => false)", 'claim()' ],
	[ 'retry of a failed one', 'qml_retry(ID)', 'claim()', "qml_fail(ID, 1, 'e', retry => false)" ],
	[ 'set_state enqueued', "qml_set_state(ID, 'enqueued')", 'claim()', "qml_fail(ID, 1, 'e')" ],
	[ 'set_state processing', "qml_set_state(ID, 'processing')" ],
	[ 'the end of a lease', 'qml_reclaim()', "claim('1 us')" ],
	[ 'a heartbeat', 'qml_heartbeat(ID, 1)', 'claim()' ],
	[ 'an id of its own', "qml_enqueue('m', queue => 'QUEUE', id => '00000000-0000-7000-8000-000000000001')" ],
	[ 'an id that is there', "qml_try_enqueue('m', queue => 'QUEUE', id => ID, options => '{\"on_duplicate_id\": \"return\"}')" ],
	[ 'claim, and failure', "claim(), qml_fail(ID, 1, 'e')" ],
	[ 'claim, and release', 'claim(), qml_release(ID, 1)' ],
	[ 'claim, release, and claim', 'claim(), qml_release(ID, 1), claim()' ],
	[ 'claim, and end', 'claim(), qml_succeed(ID, 1)' ],
	[ 'end, and claim of the next', 'qml_succeed_fetch(ID, 1, NULL, NULL, \'QUEUE\'::text)', 'claim()' ],
);
my @ENDS = (
	[ 'committed', 'BEGIN', 'COMMIT' ],
	[ 'rolled back', 'BEGIN', 'ROLLBACK' ],
	[ 'in a savepoint that is rolled back', 'BEGIN; SAVEPOINT a', 'ROLLBACK TO a; COMMIT' ],
	[ 'in one that is released', 'BEGIN; SAVEPOINT a', 'RELEASE a; SAVEPOINT b; ROLLBACK TO b; COMMIT' ],
	[ 'in one of a transaction that is rolled back', 'BEGIN; SAVEPOINT a', 'RELEASE a; ROLLBACK' ],
);
# Claims the first job of the queue, that in t.id.
told($s, <<'SQL');
SELECT qml_create_queue('changes');
CREATE FUNCTION claim(lease interval DEFAULT '1 h') RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	got uuid;
BEGIN
	SELECT f.id INTO got FROM qml_fetch('w', current_setting('t.queue'), 1, lease) f;
	IF got IS DISTINCT FROM current_setting('t.id')::uuid THEN
		RAISE 'claimed % instead of %', got, current_setting('t.id');
	END IF;
	RETURN 1;
END $$;
SQL

foreach my $change (@CHANGES)
{
	my ($what, $calls, @before) = @$change;
	my @wrong;

	foreach my $jobs (4, 100)
	{
		my $queue = 'changes';
		foreach my $end (@ENDS[ 0 .. ($jobs == 4 ? 1 : $#ENDS) ])
		{
			my ($how, $begin, $commit) = @$end;
			my $set = sub { return join '; ', map { "SELECT $_" } map { s/ID/current_setting('t.id')::uuid/gr =~ s/QUEUE/$queue/gr } @_ };

			told($s, "SELECT fill('$queue', $jobs)");
			told($s, "SELECT set_config('t.queue', '$queue', false), set_config('t.id', (ready('$queue'))[1]::text, false)");
			told($o, "SELECT id FROM qml_fetch('w', '$queue', 3) OFFSET 2") if $jobs == 100;
			told($s, "SELECT set_config('t.id', (ready('$queue'))[1]::text, false)") if $jobs == 100;
			told($o, "BEGIN; SELECT id FROM qml_fetch('w', '$queue'); ROLLBACK");
			told($s, $set->($_)) foreach @before;
			# Others take nothing that they must not while it is done, and all of it afterwards.
			told($s, "$begin; " . $set->(split /, (?=qml_|claim)/, $calls));
			told($o, "BEGIN; SELECT count(*) FROM qml_fetch('w', '$queue', 2); ROLLBACK");
			told($s, $commit);
			my $said = told($o, "CALL drain('$queue', 3)");
			push @wrong, "$how, before $jobs: $said" unless $said =~ /^(\d+) in order$/ && $1 >= $jobs - 6;
			told($s, 'DELETE FROM qml.live');
		}
	}
	is(join("\n", @wrong), '', "$what, committed and rolled back");
}

# ---- prepared transactions

section('prepared transactions');
my %PREPARED = (
	enqueue => "SELECT fill('QUEUE', 3, 4)",
	claim => "SELECT count(*) FROM qml_fetch('w', 'QUEUE', 3)",
	'claim in a savepoint' => "SAVEPOINT a; SELECT count(*) FROM qml_fetch('w', 'QUEUE', 3); RELEASE a; SAVEPOINT b",
	'claim and enqueue' => "SELECT count(*) FROM qml_fetch('w', 'QUEUE', 3); SELECT fill('QUEUE', 3, 4)",
	delete => "SELECT qml_delete((ready('QUEUE'))[1])",
	'SQL insert' => "SELECT add_row('QUEUE', 2, 4)",
	'SQL update' => "UPDATE qml.live SET priority = 5 WHERE id = (ready('QUEUE'))[3]",
	'SQL delete' => "DELETE FROM qml.live WHERE id = (ready('QUEUE'))[1]",
);
my @prepared;

sub prepare
{
	my ($when) = @_;
	foreach my $what (sort keys %PREPARED)
	{
		foreach my $end ('COMMIT', 'ROLLBACK')
		{
			my $queue = fresh(90);
			my $gid = "$when, $what, $end";
			told($s, 'BEGIN; ' . ($PREPARED{$what} =~ s/QUEUE/$queue/gr) . "; PREPARE TRANSACTION '$gid'");
			push @prepared, [ $gid, $end, $queue, $what ];
		}
	}
	return;
}

sub end_prepared
{
	my ($when) = @_;
	foreach my $prepared (@prepared)
	{
		my ($gid, $end, $queue, $what) = @$prepared;
		my $count = 89;
		# What is not held is given meanwhile, and the list is filled.
		is(told($o, "SELECT count(*) FROM qml_fetch('w', '$queue', 2)"), 2, "$when: $gid, others are given");
		told($o, "$end PREPARED '$gid'");
		$count += $end eq 'ROLLBACK' ? 0 : $what =~ /claim and/ ? 0 : $what =~ /claim/ ? -3 : $what =~ /delete/ ? -1 : $what =~ /insert/ ? 2 : $what =~ /enqueue/ ? 3 : 0;
		drains($queue, $count - 2, "$when: $gid", 13, $s);
	}
	@prepared = ();
	return;
}

prepare('running');
end_prepared('running');
{
	my $queue = fresh(200, 1);
	told($s, 'CREATE TABLE other (n int)');
	is_cheap($queue, 'before a prepared transaction of others');
	told($s, "BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'other'");
	told($s, "COMMIT PREPARED 'other'");
	my ($pages) = cost($o, "qml_fetch('w', '$queue')", 1);
	cmp_ok($pages->[0], '<=', $MOST, "after it, a fetch touches $pages->[0] pages");
	told($s, "BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'other'");
	told($s, "ROLLBACK PREPARED 'other'");
	($pages) = cost($o, "qml_fetch('w', '$queue')", 1);
	cmp_ok($pages->[0], '<=', $MOST, "and after one that is rolled back $pages->[0]");
	drains($queue, 199 - 4, 'the rest');
}
# What they did is told to the lists when they end, and no list is forgotten: the first fetch that
# follows walks over nothing.
sub keeps
{
	my ($queue, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($pages, $jobs) = cost($o, "qml_fetch('w', '$queue')", 1);
	is($jobs, 1, "$name: the next fetch gives a job");
	return cmp_ok($pages->[0], '<=', $MOST, "and touches $pages->[0] pages");
}

# The dead entries of a queue are made by SQL, after which no queue has a list.
sub begin_lists
{
	told($o, "SELECT FROM qml_fetch('w', '$_')") foreach @_;
	return;
}
{
	my $witness = fresh(600, 1);
	foreach my $what (grep { !/SQL/ } sort keys %PREPARED)
	{
		foreach my $end ('COMMIT', 'ROLLBACK')
		{
			my $queue = fresh(90, 1);
			my $count = 88;
			begin_lists($witness);
			told($s, 'BEGIN; ' . ($PREPARED{$what} =~ s/QUEUE/$queue/gr) . "; PREPARE TRANSACTION 'kept'");
			told($o, "$end PREPARED 'kept'");
			keeps($queue, "$what, $end PREPARED");
			keeps($witness, 'another queue');
			$count += $end eq 'ROLLBACK' ? 0 : $what =~ /claim and/ ? 0 : $what =~ /claim/ ? -3 : $what =~ /delete/ ? -1 : 3;
			drains($queue, $count, "$what, $end PREPARED: the rest");
		}
	}
	# More jobs than are kept of a transaction: their list ends before the first of them.
	foreach my $end ('COMMIT', 'ROLLBACK')
	{
		my ($made, $taken) = (fresh(40, 1), fresh(150, 1));
		begin_lists($made, $witness);
		told($s, "BEGIN; SELECT fill('$made', 70), fill('$made', 5, -1), count(*) FROM qml_fetch('w', '$taken', 60); PREPARE TRANSACTION 'kept'");
		told($o, "$end PREPARED 'kept'");
		keeps($made, "$end PREPARED of many jobs");
		keeps($witness, 'another queue');
		drains($made, $end eq 'COMMIT' ? 112 : 37, 'what it made');
		drains($taken, $end eq 'COMMIT' ? 89 : 149, 'what it took');
	}
	# More queues than are kept: nothing is known.
	my @many = map { fresh(2) } 1 .. 40;
	told($s, 'BEGIN; ' . join('; ', map { "SELECT fill('$_', 2)" } @many) . "; PREPARE TRANSACTION 'kept'");
	keeps($witness, 'beside a prepared transaction of many queues');
	told($o, "COMMIT PREPARED 'kept'");
	my ($pages) = cost($o, "qml_fetch('w', '$witness')", 1);
	cmp_ok($pages->[0], '>=', $WALK, "after it a fetch touches $pages->[0] pages: the measure can tell");
	drains($_, 3, 'a queue of many') foreach @many;
	# Who may not end a transaction changes nothing.
	told($s, 'CREATE ROLE nobody');
	my $queue = fresh(90, 1);
	told($s, "BEGIN; SELECT fill('$queue', 3, 4); PREPARE TRANSACTION 'kept'");
	told($o, 'SET ROLE nobody');
	fails($o, "COMMIT PREPARED 'kept'", qr/permission denied to finish prepared transaction/, 'another role cannot end it');
	told($o, 'RESET ROLE');
	keeps($queue, 'after that');
	told($o, "COMMIT PREPARED 'kept'");
	keeps($queue, 'and when it is committed');
	drains($queue, 90, 'the rest');
	# A transaction that could not be prepared leaves nothing.
	told($s, "BEGIN; SELECT fill('$queue', 3, 4); PREPARE TRANSACTION 'kept'");
	fails($o, "BEGIN; SELECT fill('$queue', 3, 4); PREPARE TRANSACTION 'kept'", qr/is already in use/, 'a name is taken');
	told($o, "COMMIT PREPARED 'kept'");
	drains($queue, 3, 'the jobs of the one that was prepared');
}
# Many at a time.
{
	my ($queue, $other) = (fresh(300, 1), fresh(5));
	my $many = 140;
	told($s, "BEGIN; SELECT fill('$other', 1, 3); PREPARE TRANSACTION 'many $_'") foreach 1 .. $many;
	told($o, "SELECT FROM qml_fetch('w', '$other')");
	told($s, "COMMIT PREPARED 'many $_'") foreach reverse 1 .. $many;
	drains($other, 3 + $many, 'the jobs of many prepared transactions');
	told($s, "BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'other'");
	keeps($queue, 'after these');
	told($s, "COMMIT PREPARED 'other'");
	keeps($queue, 'after one of others');
	drains($queue, 299 - 2, 'the rest');
}
# Names with the same hash, by which the server remembers them.
{
	my ($one, $two) = split /\|/, told($s, <<'SQL');
SELECT min(name), max(name) FROM (SELECT 'name' || n AS name FROM generate_series(1, 300000) n) x
GROUP BY hashtext(name) HAVING count(*) > 1 LIMIT 1
SQL
	my $queue = fresh(10);
	told($s, "BEGIN; SELECT fill('$queue', 3, 4); PREPARE TRANSACTION '$one'");
	told($s, "BEGIN; INSERT INTO other VALUES (2); PREPARE TRANSACTION '$two'");
	told($o, "COMMIT PREPARED '$two'");
	told($o, "BEGIN; SELECT FROM qml_fetch('w', '$queue'); ROLLBACK");
	told($o, "COMMIT PREPARED '$one'");
	drains($queue, 12, "the jobs of a prepared transaction, after another one whose name has the same hash ($one, $two)");
	$queue = fresh(10);
	told($s, "BEGIN; SELECT FROM qml_fetch('w', '$queue', 2); PREPARE TRANSACTION '$one'");
	told($s, "BEGIN; SELECT fill('$queue', 3, 4); PREPARE TRANSACTION '$two'");
	told($o, "BEGIN; SELECT FROM qml_fetch('w', '$queue'); ROLLBACK");
	told($o, "COMMIT PREPARED '$two'");
	told($o, "BEGIN; SELECT FROM qml_fetch('w', '$queue'); ROLLBACK");
	told($o, "ROLLBACK PREPARED '$one'");
	drains($queue, 12, 'and when both have to do with jobs');
}

# A server that starts again knows nothing but what is on disk.
prepare($_) foreach 'before a restart';
$_->quit foreach $s, $o, $old;
$node->restart;
connect_all();
{
	# Beside those from before, others make no difference.
	my $queue = fresh(90, 1);
	told($s, "BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'other'");
	told($o, "COMMIT PREPARED 'other'");
	keeps($queue, 'after a restart, one of others');
	told($s, "BEGIN; SELECT fill('$queue', 3, 4); PREPARE TRANSACTION 'new'");
	told($o, "COMMIT PREPARED 'new'");
	keeps($queue, 'and one that has made jobs');
	drains($queue, 90, 'the rest');
}
end_prepared('after a restart');
{
	# Those of others are not known either, and tell nothing.
	my $queue = fresh(30);
	told($s, "BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'other'");
	drains($queue, 29, 'beside a prepared one');
}
prepare($_) foreach 'before a crash';
my @sessions = ($s, $o, $old);
kill_server($node);
eval { $_->{run}->kill_kill } foreach @sessions;
start_again($node);
connect_all();
end_prepared('after a crash');
{
	my $queue = fresh(200, 1);
	told($o, "SELECT FROM qml_fetch('w', '$queue', 2)");
	told($o, "COMMIT PREPARED 'other'");
	my ($pages) = cost($o, "qml_fetch('w', '$queue')", 1);
	cmp_ok($pages->[0], '<=', $MOST, "after one of others from before the crash, a fetch touches $pages->[0] pages");
}
told($s, 'DELETE FROM qml.live');

# ---- SQL on qml.live

section('SQL on qml.live');
my $columns = told($s, "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'qml.live'::regclass AND attnum > 0");
my $row = 'id, created_at, queue_id, priority, state, attempt, uncounted, max_retries, lineage, timeout_ms, created_by, method, payload';
my $first = '00000000-0000-7000-8000-000000000001';
my %SQL = (
	'INSERT' => "SELECT add_row('QUEUE', 3, 4)",
	'INSERT at the end' => "SELECT add_row('QUEUE', 1, -4)",
	'INSERT of a first id' => "SELECT add_row('QUEUE', 1, 0, '$first')",
	'INSERT ON CONFLICT' => "INSERT INTO qml.live ($row) SELECT $row FROM qml.live WHERE id = (ready('QUEUE'))[2] ON CONFLICT (id) DO UPDATE SET priority = 8",
	'MERGE' => "MERGE INTO qml.live l USING (SELECT (ready('QUEUE'))[3] AS id) x ON l.id = x.id WHEN MATCHED THEN UPDATE SET priority = 9",
	'UPDATE of priorities' => "UPDATE qml.live SET priority = 5 WHERE id = ANY ((ready('QUEUE'))[60:80])",
	'UPDATE that lowers one' => "UPDATE qml.live SET priority = -5 WHERE id = (ready('QUEUE'))[1]",
	'UPDATE of ids' => "UPDATE qml.live SET id = '$first' WHERE id = (ready('QUEUE'))[70]",
	'UPDATE of the queue' => "UPDATE qml.live SET queue_id = queue_id('QUEUE') WHERE queue_id = queue_id('changes')",
	'UPDATE to another queue' => "UPDATE qml.live SET queue_id = queue_id('changes') WHERE id = (ready('QUEUE'))[2]",
	'UPDATE of the state' => "UPDATE qml.live SET state = 'enqueued', lease_expires_at = NULL WHERE queue_id = queue_id('QUEUE') AND state = 'processing'",
	'UPDATE to another state' => "UPDATE qml.live SET state = 'processing', started_at = now(), lease_expires_at = now() + interval '1 h' WHERE id = (ready('QUEUE'))[1]",
	'UPDATE of the time' => "UPDATE qml.live SET run_at = NULL, state = 'enqueued' WHERE queue_id = queue_id('QUEUE') AND run_at IS NOT NULL",
	'UPDATE of all' => 'UPDATE qml.live SET reason = NULL',
	'DELETE' => "DELETE FROM qml.live WHERE id = (ready('QUEUE'))[1]",
	'DELETE and INSERT' => "WITH d AS (DELETE FROM qml.live WHERE id = (ready('QUEUE'))[1] RETURNING *) SELECT add_row('QUEUE', 1, 6) FROM d",
	'TRUNCATE' => 'TRUNCATE qml.live',
	'TRUNCATE, and more' => "TRUNCATE qml.live; SELECT fill('QUEUE', 3)",
	'COPY' => "COPY qml.live FROM '/dev/shm/none'",
	'a fetch before it' => "SELECT FROM qml_fetch('w', 'QUEUE', 2); SELECT add_row('QUEUE', 3, 4)",
	'a fetch after it' => "SELECT add_row('QUEUE', 3, 4); SELECT FROM qml_fetch('w', 'QUEUE', 2)",
	'a row that is given a new version' => "UPDATE qml.live SET reason = 'x' WHERE id = (ready('QUEUE'))[1]; SELECT qml_delete((ready('QUEUE'))[2])",
);
my $copy_file = $node->data_dir . '/copy';
foreach my $what (sort keys %SQL)
{
	my @wrong;
	foreach my $role ('origin', 'replica')
	{
		foreach my $end (@ENDS)
		{
			my ($how, $begin, $commit) = @$end;
			my $queue = 'changes2';
			my $sql = $SQL{$what} =~ s/QUEUE/$queue/gr;

			told($s, "SELECT qml_create_queue('$queue')") if $queues++ && told($s, "SELECT queue_id('$queue') IS NULL") eq 't';
			told($s, "SELECT fill('$queue', 100); SELECT qml_enqueue('m', queue => '$queue', run_at => now() + interval '1 h'); SELECT fill('changes', 3)");
			$sql = "COPY qml.live FROM '$copy_file'" if $what eq 'COPY';
			told($s, "SELECT add_row('$queue', 1, 3, '$first'); COPY (SELECT * FROM qml.live WHERE id = '$first') TO '$copy_file'; DELETE FROM qml.live WHERE id = '$first'") if $what eq 'COPY';
			# Both lists are warm.
			told($o, "SELECT FROM qml_fetch('w', '$queue', 2); SELECT FROM qml_fetch('w', 'changes')");
			told($s, "SET session_replication_role = $role; $begin; $sql");
			told($o, "BEGIN; SELECT FROM qml_fetch('w', '$queue', 2); SELECT FROM qml_fetch('w', 'changes'); ROLLBACK") if $what !~ /TRUNCATE/;
			told($s, "$commit; RESET session_replication_role");
			foreach my $drained ($queue, 'changes')
			{
				my $said = told($o, "CALL drain('$drained', 3)");
				push @wrong, "$role, $how: $said" if $said !~ /^\d+ in order$/;
			}
			told($s, 'DELETE FROM qml.live');
		}
	}
	is(join("\n", @wrong), '', "$what, committed and rolled back");
}

{
	my $queue = fresh(100);
	fails($s, "WITH d AS (DELETE FROM qml.live WHERE queue_id = queue_id('$queue') RETURNING 1), f AS MATERIALIZED (SELECT * FROM qml_fetch('w', '$queue', 30)) SELECT (SELECT count(*) FROM d), (SELECT count(*) FROM f), 1 / (random() * 0)::int",
		qr/division by zero/, 'a statement writes, fetches and fails');
	drains($queue, 99, 'after that all are given');
	$queue = fresh(100);
	fails($s, "WITH f AS MATERIALIZED (SELECT * FROM qml_fetch('w', '$queue', 30)), d AS (DELETE FROM qml.live WHERE queue_id = queue_id('$queue') AND (SELECT count(*) FROM f) > 0 RETURNING 1) SELECT (SELECT count(*) FROM d), 1 / (random() * 0)::int",
		qr/already modified/, 'one fetches, writes and fails');
	drains($queue, 99, 'after that all are given');
	# A trigger that tells of nothing.
	$queue = fresh(100);
	told($s, "ALTER TABLE qml.live DISABLE TRIGGER ALL; SELECT add_row('$queue', 3, 4); SELECT add_row('$queue', 3, -4); ALTER TABLE qml.live ENABLE TRIGGER ALL");
	drains($queue, 105, 'rows that were written while triggers were disabled, as pg_restore does it, are given');
	told($s, "SET session_replication_role = replica; SELECT add_row('$queue', 3, 4); RESET session_replication_role");
	drains($queue, 3, 'and those written by a replica afterwards');
	told($s, 'ALTER TABLE qml.live ENABLE ALWAYS TRIGGER note_sql');
	$queue = fresh(200, 1);
	is_cheap($queue, 'when the trigger is as it was');
}

# ---- rows that move

section('rows that move');
sub rolled
{
	my ($old_too) = @_;
	told($old, 'ROLLBACK');
	hold_snapshot() if $old_too;
	return;
}

foreach my $move ('VACUUM FULL qml.live', 'CLUSTER qml.live USING live_pkey', 'REINDEX TABLE qml.live',
	'BEGIN; CLUSTER qml.live USING live_pkey; ROLLBACK', 'ALTER TABLE qml.live SET (fillfactor = 50)',
	"BEGIN; CLUSTER qml.live USING live_pkey; SELECT FROM qml_fetch('w', 'QUEUE'); ROLLBACK",
	"BEGIN; SELECT FROM qml_fetch('w', 'QUEUE', 5); CLUSTER qml.live USING live_pkey; SELECT FROM qml_fetch('w', 'QUEUE'); ROLLBACK",
	"BEGIN; SAVEPOINT a; CLUSTER qml.live USING live_pkey; SELECT FROM qml_fetch('w', 'QUEUE', 2); ROLLBACK TO a; SELECT FROM qml_fetch('w', 'QUEUE'); COMMIT",
	'ALTER TABLE qml.live RESET (fillfactor)', 'ALTER TABLE qml.live SET (fillfactor = 42)')
{
	my $queue = fresh(300);
	# Rows are not stored in the order in which they are claimed.
	told($s, "SELECT qml_enqueue('m', queue => '$queue', priority => n % 7) FROM generate_series(1, 100) n");
	told($o, "SELECT FROM qml_fetch('w', '$queue', 5)");
	told($s, 'SELECT count(qml_delete(id)) FROM (SELECT unnest(ready(\'' . $queue . '\')) AS id LIMIT 20) x');
	told($s, $move =~ s/QUEUE/$queue/gr);
	drains($queue, 300 + 100 - 26 - ($move =~ /COMMIT/ ? 1 : 0), $move);
}
{
	# A vacuum frees line pointers, which other rows get.
	my $queue = fresh(600);
	rolled(0);
	my $other = fresh(0);
	told($s, "SELECT count(qml_delete(id)) FROM (SELECT unnest(ready('$queue')) AS id OFFSET 10 LIMIT 300) x");
	told($s, "BEGIN; SELECT FROM qml_fetch('w', '$queue', 20); ROLLBACK");
	told($s, 'VACUUM qml.live');
	told($s, "SELECT fill('$other', 300); SELECT fill('$queue', 100, 1); SELECT fill('$queue', 50, -1)");
	told($o, "BEGIN; SELECT FROM qml_fetch('w', '$queue', 20); ROLLBACK");
	drains($queue, 599 - 300 + 150, 'rows in the places of others');
	drains($other, 300, 'and those of another queue');

	# The entries are of rows that SQL has removed, or that were moved, and the table is cut off.
	told($s, 'DELETE FROM qml.live; VACUUM qml.live');
	$queue = fresh(2000);
	told($s, "SELECT count(qml_delete(id)) FROM (SELECT unnest(ready('$queue')) AS id OFFSET 5) x");
	my $before = told($s, "SELECT pg_relation_size('qml.live')");
	wait_for('the table to be cut off', sub { told($s, 'VACUUM qml.live'); told($s, "SELECT pg_relation_size('qml.live')") < $before / 10 });
	drains($queue, 5, 'what is left of a table that was cut off');
	$queue = fresh(2000);
	told($s, "BEGIN; SELECT FROM qml_fetch('w', '$queue', 1000); COMMIT");
	told($s, "SELECT qml_succeed_many(array_agg(id), array_agg(attempt)) FROM qml.live WHERE state = 'processing'");
	told($s, "SELECT count(qml_delete(id)) FROM (SELECT unnest(ready('$queue')) AS id) x");
	told($s, 'VACUUM qml.live');
	told($s, "SELECT fill('$queue', 700)");
	drains($queue, 700, 'and of one that grows again');
	hold_snapshot();
}

# ---- order

section('order');
foreach my $round (1 .. 6)
{
	my $queue = fresh($round == 1 ? 0 : 50 * $round, $round == 6);
	my $jobs = pick(100, 400);
	foreach my $step (1 .. 12)
	{
		my $session = pick(0, 1) ? $s : $o;
		my $n = pick(1, 40);
		my $do = pick(0, 9);
		told($session, "SELECT count(qml_enqueue('m', queue => '$queue', priority => (random() * 3)::int)) FROM generate_series(1, $n)") if $do < 2;
		# Ids smaller than all others, and larger.
		told($session, "SELECT count(qml_enqueue('m', queue => '$queue', priority => (random() * 3)::int, id => gen_random_uuid())) FROM generate_series(1, $n)") if $do == 2 || $do == 3;
		told($session, "SELECT count(qml_enqueue('m', queue => '$queue', priority => (random() * 3)::int, run_at => clock_timestamp() + n * interval '1 ms')) FROM generate_series(1, $n) n; SELECT qml_promote_due()") if $do == 4;
		told($session, 'SELECT qml_promote_due()') if $do == 5;
		told($session, "SELECT count(qml_fail(id, attempt, 'e', retry_at => clock_timestamp())) FROM (SELECT * FROM qml.live WHERE queue_id = queue_id('$queue') AND state = 'processing' LIMIT 3) x; SELECT qml_promote_due()") if $do == 6;
		told($session, "SELECT count(qml_release(id, attempt)) FROM (SELECT * FROM qml.live WHERE queue_id = queue_id('$queue') AND state = 'processing' LIMIT 3) x") if $do == 7;
		my $batch = pick(0, 2) ? 1 : pick(2, 80);
		my ($expected, $got) = split /\n/, told($session, "SELECT (ready('$queue'))[1:$batch];\nSELECT coalesce(array_agg(id), '{}') FROM qml_fetch('w', '$queue', $batch)");
		is($got, $expected, "round $round: a fetch of $batch gives the first") if $got ne $expected || $step == 12;
	}
	my $left = told($s, "SELECT cardinality(ready('$queue'))");
	drains($queue, $left, "round $round: the rest is in order", pick(1, 3) == 1 ? 1 : pick(2, 200));
}

# ---- rows that others have locked

section('rows that others have locked');
{
	my $queue = fresh(400, 1);
	my $locked = told($s, "SELECT (ready('$queue'))[1]");
	is(told($s, "BEGIN; SELECT id FROM qml.live WHERE id = '$locked' FOR UPDATE"), $locked, 'the first row is locked');
	my ($pages, $jobs) = cost($o, "qml_fetch('w', '$queue')", 20);
	is($jobs, 20, 'others get the jobs behind it');
	cmp_ok(mean(@$pages), '<=', 2 * $MOST_MEAN, sprintf 'for %.2f pages each', mean(@$pages));
	told($s, 'ROLLBACK');
	is(told($o, "SELECT id FROM qml_fetch('w', '$queue')"), $locked, 'when it is free it is given first');
	foreach my $strength ('FOR SHARE', 'FOR KEY SHARE', 'FOR NO KEY UPDATE')
	{
		my @first = split /\n/, told($s, "BEGIN; SELECT id FROM qml.live WHERE id = ANY ((ready('$queue'))[1:150]) ORDER BY id $strength");
		is(scalar(@first), 150, "150 rows are locked $strength");
		told($o, "BEGIN; SELECT FROM qml_fetch('w', '$queue', 5); ROLLBACK");
		told($s, 'COMMIT');
		is(told($o, "SELECT string_agg(id::text, ' ') FROM qml_fetch('w', '$queue', 20)"), "@first[0 .. 19]", 'when they are free they are given first');
	}
	# What somebody has locked is not lost when the fill of a list meets it.
	my $new = fresh(0);
	told($s, "SELECT fill('$new', 3)");
	told($s, "BEGIN; SELECT FROM qml.live WHERE queue_id = queue_id('$new') FOR UPDATE");
	is(told($o, "SELECT count(*) FROM qml_fetch('w', '$new', 3)"), 0, 'all of a queue are locked');
	told($s, 'ROLLBACK');
	drains($new, 3, 'when they are free they are given');

	# A session that waits.
	my $last = fresh(0);
	told($s, "SELECT qml_enqueue('m', queue => '$last')");
	told($s, "BEGIN; SELECT FROM qml.live WHERE queue_id = queue_id('$last') FOR UPDATE");
	my $pid = told($o, 'SELECT pg_backend_pid()');
	$o->query_until(qr/begun/, "\\echo begun\nCALL qml_wait('$last', timeout => '60 s');\nSELECT count(*) FROM qml_fetch('w', '$last');\n");
	wait_for('a session to wait', sub { told($old, "SELECT pg_stat_clear_snapshot(); SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND wait_event_type = 'Extension'") =~ /1$/ });
	my $start = time;
	told($s, 'ROLLBACK');
	like(told($o, '\echo'), qr/^t\n1$/m, 'a session that waits finds the row when it is free');
	cmp_ok(time - $start, '<', 20, sprintf 'soon: %.2f s', time - $start);
	drains($queue, told($o, "SELECT cardinality(ready('$queue'))"), 'the rest');
}

# ---- many at once

section('many at once');
told($s, 'DELETE FROM qml.live');
{
	foreach my $jobs (1500, 100_000)
	{
		my $queue = fresh(20);
		told($s, "BEGIN; SELECT fill('$queue', LEAST($jobs, 50000)); SELECT fill('$queue', $jobs - LEAST($jobs, 50000), 1); SELECT fill('$queue', 5, 2); COMMIT");
		told($o, "SELECT FROM qml_fetch('w', '$queue', 3)");
		drains($queue, 19 + $jobs + 5 - 3, "$jobs in one transaction", 1 + $jobs / 100) if $jobs == 1500;
		next if $jobs == 1500;
		foreach my $end ('ROLLBACK', 'ROLLBACK TO a; COMMIT')
		{
			told($s, "BEGIN; SAVEPOINT a; SELECT count(*) FROM qml_fetch('w', '$queue', 5000); SELECT count(*) FROM qml_fetch('w', '$queue', 5000); $end");
			is(told($o, "BEGIN; SELECT (ready('$queue'))[1] = (SELECT id FROM qml_fetch('w', '$queue'))"), 't', "ten thousand claims are undone by $end");
			told($o, 'ROLLBACK');
		}
		drains($queue, 19 + $jobs + 5 - 3, "$jobs in one transaction", 5000);
	}
	told($s, 'DELETE FROM qml.live');
	foreach my $end ('COMMIT', 'ROLLBACK TO a; COMMIT', 'ROLLBACK')
	{
		my @queues = map { "many$_" } 1 .. 70;
		my $all = join ',', @queues;
		told($s, "SELECT count(qml_create_queue(q)) FROM unnest('{$all}'::text[]) q") if $end eq 'COMMIT';
		told($s, "SELECT count(fill(q, 100)) FROM unnest('{$all}'::text[]) q") if $end ne 'COMMIT';
		told($o, "SELECT count(f) FROM unnest('{$all}'::text[]) q, qml_fetch('w', q) f");
		told($s, "BEGIN; SAVEPOINT a; SELECT count(fill(q, 150)) FROM unnest('{$all}'::text[]) q; SELECT count(f) FROM unnest('{$all}'::text[]) q, qml_fetch('w', q, 150) f; $end");
		told($s, "SELECT count(fill(q, 1)) FROM unnest('{$all}'::text[]) q") if $end eq 'COMMIT';
		is(told($o, 'CALL drain_all(100)'), 70 * ($end eq 'COMMIT' ? 1 : 99) . ' of 70 queues in order', "seventy queues in one transaction: $end");
	}
	my $all = join ',', map { "many$_" } 1 .. 70;
	told($s, "SELECT sum(fill(q, 150)) FROM unnest('{$all}'::text[]) q");
	is(told($o, 'CALL drain_all(100)'), 70 * 150 . ' of 70 queues in order', 'jobs of seventy queues in one transaction');
}

# ---- more queues than lists have room for

section('many queues');
told($s, 'DELETE FROM qml.live');
{
	my $many = 9000;
	told($s, "INSERT INTO qml.queue_data (name) SELECT 'small' || n FROM generate_series(1, $many) n");
	is(told($s, "SELECT sum(fill('small' || n, 3, n % 3)) FROM generate_series(1, $many) n"), 3 * $many, 'jobs in nine thousand queues');
	is(told($o, "SELECT count(f) FROM generate_series(1, $many) n, qml_fetch('w', 'small' || n) f"), $many, 'each gives one');
	is(told($s, "SELECT count(f) FROM generate_series(1, $many) n, qml_fetch('w', 'small' || n) f WHERE n % 2 = 0"), $many / 2, 'every other one gives another, in another session');
	is(told($o, 'CALL drain_all(1000)'), 3 * $many - $many - $many / 2 . " of $many queues in order", 'the rest is given by fetches from all');
	is(told($o, 'SELECT count(*) FROM qml_fetch()'), 0, 'then there is nothing');
	told($s, "SELECT sum(fill('small' || n, 1)) FROM generate_series(1, $many) n WHERE n % 100 = 0");
	is(told($o, 'CALL drain_all(7)'), $many / 100 . ' of ' . $many / 100 . ' queues in order', 'new jobs of some are found');
	told($s, "DELETE FROM qml.live; DELETE FROM qml.queue_data WHERE name LIKE 'small%'");

	# Ids for which there is no bit.
	told($s, "SELECT setval(pg_get_serial_sequence('qml.queue_data', 'id'), 65534)");
	told($s, "SELECT qml_create_queue('high' || n) FROM generate_series(1, 4) n; SELECT fill('high' || n, 100) FROM generate_series(1, 4) n");
	is(told($s, "SELECT min(id) < 65536 AND max(id) > 65536 FROM qml.queue_data WHERE name LIKE 'high%'"), 't', 'queues with high ids');
	my ($pages, $jobs) = cost($o, 'qml_fetch()', 40);
	is($jobs, 40, 'fetches from all give their jobs');
	is(told($o, "SELECT string_agg(count::text, ' ') FROM (SELECT count(*) FROM qml.live WHERE state = 'processing' GROUP BY queue_id) x"), '10 10 10 10', 'in turn');
	my $queue = fresh(100, 1);
	told($s, "SELECT fill('high' || n, 3, 1) FROM generate_series(1, 4) n");
	is_cheap($queue, 'in a queue with a high id');
	is(told($o, 'CALL drain_all(9)'), 4 * (90 + 3) + 97 . ' of 5 queues in order', 'and the rest');
	told($s, "SELECT fill('high4', 1)");
	is(told($o, 'SELECT queue FROM qml_fetch()'), 'high4', 'the last one is found');
}

# ---- levels, and sessions that use no lists

section('levels, and sessions without lists');
foreach my $mode ('REPEATABLE READ', 'SERIALIZABLE', 'off')
{
	my $queue = fresh(800, 1);
	my ($claimed, $in_front) = (1, 0);
	my @wrong;
	told($s, 'SET qml.ready_lists = off') if $mode eq 'off';
	foreach my $round (1 .. 20)
	{
		my ($mine, $others) = (pick(1, 9), pick(1, 9));
		my $end = pick(0, 1) ? 'COMMIT' : 'ROLLBACK';

		told($s, $mode eq 'off' ? 'BEGIN' : "BEGIN ISOLATION LEVEL $mode");
		told($s, 'SELECT FROM pg_class LIMIT 1');
		# What the snapshot does not see is left to others.
		if (pick(0, 2) == 0)
		{
			told($o, "SELECT fill('$queue', 1, 5)");
			$in_front++;
		}
		# What others take meanwhile is an error there.
		my $first = told($o, "SELECT (ready('$queue'))[1]");
		if ($mode eq 'off' || pick(0, 1))
		{
			$claimed += told($s, "SELECT count(*) FROM qml_fetch('w', '$queue', $mine)") * ($end eq 'COMMIT');
			$claimed += told($o, "SELECT count(*) FROM qml_fetch('w', '$queue', $others)");
			told($s, $end);
		}
		else
		{
			told($s, 'ROLLBACK');
			$claimed += told($o, "SELECT count(*) FROM qml_fetch('w', '$queue', $others)");
		}
		push @wrong, $round if told($o, "BEGIN; SELECT (ready('$queue'))[1] = id FROM qml_fetch('w', '$queue')") ne 't';
		told($o, 'ROLLBACK');
	}
	is("@wrong", '', "$mode: others always get the first");
	is_cheap($queue, $mode);
	is(told($o, "SELECT count(*) FROM qml.live WHERE queue_id = queue_id('$queue') AND state = 'processing' AND attempt = 1"), $claimed + 2, "$mode: each job was given once");
	drains($queue, 800 + $in_front - $claimed - 2, "$mode: the rest");
	told($s, 'RESET qml.ready_lists');
}

# ---- filters

section('filters');
{
	my $queue = fresh(0, 1);
	my $enqueue = sub { my ($method, $n, $priority) = @_; return told($s, "SELECT count(*) FROM qml_enqueue_many('$method', array_fill('{}'::jsonb, ARRAY[$n]), '$queue', @{[ $priority // 0 ]})"); };
	my $fetch = sub { my ($methods, $n) = @_; return told($o, "SELECT string_agg(method, ' ') FROM qml_fetch('w', '$queue', $n" . ($methods ? ", methods => '{$methods}'" : '') . ')'); };
	told($s, 'CREATE FUNCTION handle(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$');
	$enqueue->('x', 5, 1);
	$enqueue->('y', 5);
	$enqueue->('z', 5, -1);
	is($fetch->('y', 2), 'y y', 'jobs of one method');
	is($fetch->('z,y', 4), 'y y y z', 'jobs of two, in order');
	is($fetch->('nosuch', 4), '', 'jobs of a method that has none');
	told($s, "SELECT qml_register_handler('x', 'handle')");
	is($fetch->('', 2), 'z z', 'who names no method leaves those with a handler');
	is($fetch->('x', 1), 'x', 'but may name them');
	told($s, "BEGIN; SELECT qml_unregister_handler('x')");
	is($fetch->('', 1), 'z', 'a handler that is about to go counts');
	told($s, 'COMMIT');
	is($fetch->('', 3), 'x x x', 'one that is gone does not');
	told($s, "SELECT qml_register_handler('x', 'handle')");
	is($fetch->('', 3), 'z', 'and counts again');
	told($s, "SELECT qml_unregister_handler('x')");
	drains($queue, 1, 'what is left');

	# Others in front, of which the list knows.
	told($s, "SELECT qml_register_handler('x', 'handle')");
	$enqueue->('x', 500, 3);
	$enqueue->('y', 20, 2);
	$enqueue->('z', 20);
	foreach my $claim ("qml_fetch('w', '$queue')", "qml_fetch('w', '$queue', methods => '{z}')")
	{
		my ($pages, $jobs) = cost($o, $claim, 6);
		is($jobs, 6, "$claim: behind five hundred others, each fetch gives a job");
		cmp_ok(mean(@$pages[ 2 .. 5 ]), '<=', $MOST_MEAN, sprintf 'and touches %.2f pages', mean(@$pages[ 2 .. 5 ]));
	}
	told($s, 'DELETE FROM qml.live');

	# More than it has room for, for which the index is searched.
	$queue = fresh(0);
	$enqueue->('x', 2000, 3);
	$enqueue->('y', 30, 2);
	$enqueue->('x', 100, 1);
	$enqueue->('z', 30);
	is($fetch->('', 1), 'y', 'the first one behind them');
	is($fetch->('z', 1), 'z', 'the first one of another method');
	$enqueue->('y', 1, 9);
	is($fetch->('', 2), 'y y', 'one in front, which is new');
	is(told($o, "SELECT priority FROM qml.live WHERE queue_id = queue_id('$queue') AND state = 'processing' ORDER BY priority DESC LIMIT 1"), 9, 'is given first');
	my ($pages) = cost($o, "qml_fetch('w', '$queue', methods => '{z}')", 6);
	cmp_ok(mean(@$pages[ 2 .. 5 ]), '<=', 2 * $MOST, sprintf 'behind two thousand others, a fetch by method touches %.2f pages', mean(@$pages[ 2 .. 5 ]));
	($pages) = cost($o, "qml_fetch('w', '$queue')", 6);
	cmp_ok(mean(@$pages[ 2 .. 5 ]), '<=', 2 * $MOST, sprintf 'and one that leaves others %.2f', mean(@$pages[ 2 .. 5 ]));
	told($s, "BEGIN; SELECT FROM qml_fetch('w', '$queue', 5); ROLLBACK; BEGIN; SELECT FROM qml_fetch('w', '$queue', 5, methods => '{x}'); ROLLBACK");
	told($o, "SELECT FROM qml_fetch('w', '$queue', 2000, methods => '{x}')");
	is($fetch->('', 100) =~ tr/y//, 30 + 1 - 9, 'the rest of those without a handler');
	is(told($o, "SELECT count(*) FROM qml_fetch('w', '$queue', 2000, methods => '{x}')"), 100, 'the rest of the others');
	is(told($s, "SELECT cardinality(ready('$queue'))"), 0, 'nothing is left');
	told($s, "SELECT qml_unregister_handler('x')");
}

# ---- fills that come to nothing

section('fills that come to nothing');
{
	my $queue = fresh(0);
	told($s, "SELECT add_row('$queue', 200000, 9, state => 'processing'); SELECT fill('$queue', 300)");
	fails($o, "SET statement_timeout = '5 ms'; SELECT FROM qml_fetch('w', '$queue')", qr/canceling statement/, 'a fetch is canceled behind 200,000 running jobs');
	fails($o, "BEGIN; SAVEPOINT a; SELECT FROM qml_fetch('w', '$queue')", qr/canceling statement/, 'and in a savepoint');
	told($o, 'ROLLBACK TO a; SET LOCAL statement_timeout = 0; COMMIT');
	told($o, 'RESET statement_timeout');
	is(told($o, "SELECT (ready('$queue'))[1] = (SELECT id FROM qml_fetch('w', '$queue'))"), 't', 'the next one gives the first job');
	is_cheap($queue, 'those that follow need not fill the list');
	# One that fills stands still while others make jobs, and give them back.
	my $pid = told($o, 'SELECT pg_backend_pid()');
	my $stopped = 0;
	told($s, "SET statement_timeout = '5 s'");
	foreach my $round (1 .. 6)
	{
		told($s, "SELECT fill('$queue', 5); BEGIN; SELECT FROM qml_fetch('w', '$queue', 3)");
		# Any statement that writes makes the lists be forgotten.
		query($node, 'UPDATE qml.live SET reason = NULL WHERE false');
		$o->query_until(qr/begun/, "\\echo begun\nSELECT count(*) FROM qml_fetch('w', '$queue', 2);\n");
		wait_for('the fetch to begin', sub { told($old, "SELECT pg_stat_clear_snapshot(); SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND query LIKE 'SELECT count(*) FROM qml_fetch%'") =~ /1$/ });
		kill 'STOP', $pid;
		my $is_busy = told($old, "SELECT pg_stat_clear_snapshot(); SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND state = 'active'") =~ /1$/;
		# It may stand still where others have to wait for it.
		$s->query(($round % 2 ? 'ROLLBACK' : 'COMMIT') . "; SELECT fill('$queue', 1, 10); SELECT fill('$queue', 1, 0); SELECT fill('$queue', 1, -1)");
		$stopped++ if $is_busy && $s->{stderr} eq '';
		$s->{stderr} = '';
		kill 'CONT', $pid;
		told($o, '\echo');
		drains($queue, told($s, "SELECT cardinality(ready('$queue'))"), "jobs that are made while a list is filled, round $round", 50);
		told($s, "SELECT fill('$queue', 300)") if $round > 3;
	}
	told($s, 'RESET statement_timeout');
	cmp_ok($stopped, '>=', 1, "$stopped of 6 fetches stood still meanwhile");
	told($s, 'DELETE FROM qml.live');
}

# ---- databases

section('databases');
{
	my $queue = fresh(100);
	told($s, 'DROP EXTENSION qml CASCADE; CREATE EXTENSION qml');
	is(told($o, 'SELECT count(*) FROM qml_fetch()'), 0, 'a new extension has no jobs');
	query($node, $HELPERS =~ s/CREATE (FUNCTION|PROCEDURE)/CREATE OR REPLACE $1/gr);
	query($node, "SELECT fill('new', 50)");
	drains('new', 50, 'and those that it gets are given');
	query($node, 'CREATE DATABASE source');
	query($node, "CREATE EXTENSION qml; $HELPERS; SELECT fill('a', 100); SELECT fill('b', 100); SELECT qml_create_queue('c1'), qml_create_queue('c2'); SELECT FROM qml_fetch('w', 'a', 7)", 'source');
	foreach my $round (1, 2)
	{
		# What is known of the source does not count in a copy, nor that of a copy which is gone.
		query($node, 'CREATE DATABASE copy TEMPLATE source');
		my ($there, $here) = map { session($_) } qw(copy source);
		told($there, 'SELECT qml_adopt()');
		is(told($there, "SELECT count(*) FROM qml_fetch('w', 'c$round')"), 0, 'nothing is ready in a queue of a copy');
		told($here, "SELECT fill('c$round', 20, 1)");
		is(told($there, "SELECT count(*) FROM qml_fetch('w', 'c$round')"), 0, 'nor when something is in the source');
		told($there, "SELECT fill('b', 20, 1)");
		is(told($here, "BEGIN; SELECT (ready('b'))[1] = (SELECT id FROM qml_fetch('w', 'b'))"), 't', 'the source gives its own jobs');
		told($here, 'ROLLBACK');
		drains('b', 120, 'a copy gives its jobs', 7, $there);
		drains('a', 100 - 7 * ($round - 1), 'and those that the source had claimed', 7, $there) if $round == 1;
		drains("c$round", 20, 'the source gives its own', 7, $here);
		drains('a', 93, 'as it does those before', 7, $here) if $round == 2;
		$_->quit foreach $there, $here;
		query($node, 'DROP DATABASE copy');
	}
}

# ---- everything at once

section('everything at once');
query($node, <<'SQL');
DELETE FROM qml.live;
CREATE TABLE made (id uuid PRIMARY KEY);
CREATE TABLE claimed (id uuid, attempt int, PRIMARY KEY (id, attempt));
CREATE TABLE ended (id uuid PRIMARY KEY, how text);
CREATE TABLE raised (code text, message text);
SELECT qml_create_queue('r' || n) FROM generate_series(1, 4) n;
CREATE FUNCTION dice(sides int) RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT floor(random() * sides)::int $$;
CREATE FUNCTION make() RETURNS void LANGUAGE sql AS $$
	INSERT INTO made
	SELECT qml_enqueue((ARRAY['m', 'n'])[1 + dice(2)], queue => 'r' || 1 + dice(4), priority => dice(3), max_retries => 1000,
		id => CASE dice(3) WHEN 0 THEN gen_random_uuid() END,
		run_at => CASE dice(6) WHEN 0 THEN clock_timestamp() + interval '5 ms' END)
	FROM generate_series(0, dice(8))
$$;
CREATE FUNCTION take() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	j qml.job;
	what int;
	long boolean := dice(10) > 0;
BEGIN
	FOR j IN SELECT * FROM qml_fetch('w', CASE dice(3) WHEN 0 THEN NULL ELSE 'r' || 1 + dice(4) END, 1 + dice(CASE dice(3) WHEN 0 THEN 30 ELSE 3 END),
		CASE WHEN long THEN interval '1 h' ELSE '1 ms' END, CASE dice(4) WHEN 0 THEN '{m}'::text[] END) LOOP
		INSERT INTO claimed VALUES (j.id, j.attempt);
		what := CASE WHEN long THEN dice(8) ELSE 9 END;
		IF what < 4 THEN
			PERFORM qml_succeed(j.id, j.attempt);
			INSERT INTO ended VALUES (j.id, 'succeeded');
		ELSIF what = 4 THEN
			PERFORM qml_fail(j.id, j.attempt, 'e', retry_at => clock_timestamp());
		ELSIF what = 5 THEN
			PERFORM qml_release(j.id, j.attempt, CASE dice(2) WHEN 0 THEN clock_timestamp() + interval '3 ms' END);
		ELSIF what = 6 THEN
			PERFORM qml_discard(j.id, j.attempt);
			INSERT INTO ended VALUES (j.id, 'discarded');
		ELSIF what = 7 THEN
			PERFORM qml_fail(j.id, j.attempt, 'e', retry => false);
			PERFORM qml_retry(j.id);
		END IF;
	END LOOP;
END $$;
-- One of those that are ready, or wait.
CREATE FUNCTION some_job() RETURNS uuid LANGUAGE sql AS $$
	SELECT id FROM qml.live WHERE state IN ('enqueued', 'scheduled', 'awaiting_retry') AND queue_id = queue_id('r' || 1 + dice(4)) ORDER BY random() LIMIT 1
$$;
CREATE FUNCTION touch() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	job uuid := some_job();
BEGIN
	CASE dice(4)
		WHEN 0 THEN
			IF job IS NOT NULL AND qml_delete(job) THEN
				INSERT INTO ended VALUES (job, 'deleted');
			END IF;
		WHEN 1 THEN
			PERFORM qml_reschedule(job, clock_timestamp() + interval '3 ms') WHERE job IS NOT NULL;
		WHEN 2 THEN
			PERFORM qml_promote_due();
		WHEN 3 THEN
			PERFORM qml_reclaim();
	END CASE;
END $$;
-- Some of that, of which parts, or all, are undone.
CREATE FUNCTION act() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 0 .. dice(3) LOOP
		BEGIN
			CASE dice(6)
				WHEN 0 THEN PERFORM make();
				WHEN 1 THEN PERFORM touch();
				ELSE PERFORM take();
			END CASE;
			IF dice(6) = 0 THEN
				RAISE 'undone';
			END IF;
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO raised VALUES (SQLSTATE, SQLERRM);
		END;
	END LOOP;
END $$;
CREATE PROCEDURE step() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM act();
	IF dice(5) = 0 THEN
		ROLLBACK;
	END IF;
END $$;
CREATE FUNCTION write() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	job uuid;
BEGIN
	SELECT id INTO job FROM qml.live WHERE state = 'enqueued' AND queue_id = queue_id('r' || 1 + dice(4)) LIMIT 1 OFFSET dice(5) FOR UPDATE SKIP LOCKED;
	CASE dice(4)
		WHEN 0 THEN UPDATE qml.live SET priority = dice(3), queue_id = queue_id('r' || 1 + dice(4)) WHERE id = job;
		WHEN 1 THEN
			WITH d AS (DELETE FROM qml.live WHERE id = job RETURNING id) INSERT INTO ended SELECT id, 'SQL' FROM d;
		WHEN 2 THEN
			job := gen_random_uuid();
			PERFORM add_row('r' || 1 + dice(4), 1, dice(3), job);
			INSERT INTO made VALUES (job);
		ELSE PERFORM act();
	END CASE;
	IF dice(4) = 0 THEN
		RAISE 'undone';
	END IF;
EXCEPTION WHEN OTHERS THEN
	INSERT INTO raised VALUES (SQLSTATE, SQLERRM);
END $$;
-- Ends everything that fetches give; how many that were.
CREATE PROCEDURE finish(INOUT jobs int DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE
	many int;
BEGIN
	LOOP
		WITH f AS MATERIALIZED (SELECT id, attempt FROM qml_fetch('w', NULL, 100)),
			c AS (INSERT INTO claimed SELECT id, attempt FROM f),
			e AS (INSERT INTO ended SELECT id, 'succeeded' FROM f)
		SELECT count(qml_succeed(id, attempt)) INTO many FROM f;
		COMMIT;
		EXIT WHEN many = 0;
		jobs := jobs + many;
	END LOOP;
END $$;
SELECT setseed(0.5);
SQL
my $SECONDS = 15;
my $random = pick(1, 1_000_000);
$node->pgbench(
	"--no-vacuum --client=8 --jobs=2 --time=$SECONDS --random-seed=$random", 0,
	[qr/number of transactions actually processed: [1-9]/], [qr/^(?!.*(ERROR|aborted))/s],
	'sessions do everything at once',
	{
		'180_step@20' => "CALL step();\n",
		'180_levels@3' => <<'SQL',
\set level random(0, 1)
\if :level
BEGIN ISOLATION LEVEL REPEATABLE READ;
\else
BEGIN ISOLATION LEVEL SERIALIZABLE;
\endif
SELECT act();
\set end random(0, 2)
\if :end
COMMIT;
\else
ROLLBACK;
\endif
SQL
		'180_prepared@3' => <<'SQL',
BEGIN;
SELECT act();
PREPARE TRANSACTION 'load :client_id';
\set end random(0, 1)
\if :end
COMMIT PREPARED 'load :client_id';
\else
ROLLBACK PREPARED 'load :client_id';
\endif
SQL
		'180_sql@1' => "SELECT write();\n",
		'180_off@1' => "BEGIN;\nSET LOCAL qml.ready_lists = off;\nSELECT act();\nCOMMIT;\n"
	});
note(told($o, "SELECT format('%s made, %s claims, %s ended before the end, %s undone', (SELECT count(*) FROM made), (SELECT count(*) FROM claimed), (SELECT count(*) FROM ended), (SELECT count(*) FROM raised))"));
note(told($o, 'SELECT code, count(*), min(message) FROM raised GROUP BY 1'));
is(told($o, "SELECT count(*) FROM raised WHERE code NOT IN ('P0001', '40001', '40P01', 'QM001', 'QM002', 'QM003')"), 0, 'nothing failed that must not');
foreach my $round (1 .. 20)
{
	told($o, 'CALL finish()');
	is(told($s, "SELECT count(*) FROM qml.live WHERE state = 'enqueued'"), 0, "every job that was ready has been given ($round)");
	last if told($s, 'SELECT count(*) FROM qml.live') == 0;
	told($s, 'SELECT qml_reclaim(100000); SELECT qml_promote_due(100000)');
}
is(told($s, 'SELECT count(*) FROM qml.live'), 0, 'nothing is left');
is(told($s, 'SELECT count(*) FROM (SELECT id FROM made EXCEPT SELECT id FROM ended) x'), 0, 'each job has ended');
is(told($s, 'SELECT count(*) FROM (SELECT id FROM ended EXCEPT SELECT id FROM made) x'), 0, 'none that was not made');

$_->quit foreach $s, $o, $old;
section('the end');
done_testing();
