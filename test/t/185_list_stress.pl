# Sixteen clients do everything with jobs at once, at random: make, claim, finish, fail, release,
# retry, delay, delete, in subtransactions and transactions that are undone, prepared, or cut off
# with their session or the server.  Queues are of all storage classes.  Two more clients sleep
# until there is a job, and from time to time a method has a handler, whose jobs workers in the
# database run and fetches leave to them.  Nothing is lost, nothing is given twice, and a fetch that
# gives nothing is right each time.
#
# QML_STRESS_JOBS: how many jobs are made; "make stress" makes ten million.
#
# How it is judged that a fetch is wrong: a snapshot is taken before it.  If it gives nothing, there
# must be no row of a ready job that the snapshot sees, that nobody who is in progress in the
# snapshot or since has touched, and that is still the same.  The row does not show everything:
# somebody may have taken its entry out of the list and not yet come to the row, or have committed
# it and not yet come to the list.  Two rules follow:
#
# - Whoever makes, takes or changes jobs of a queue holds a lock of it, shared, to the end of the
#   transaction or subtransaction; of lock 0, if it may be any queue.  Some fetches begin only if
#   nobody holds these locks, and keep everybody out of the queue; the scheduler, which makes
#   delayed jobs ready, must not be in a transaction either.  Then nobody else can have anything to
#   do with such a row, and one is a defect at once.
# - Other fetches are made again until all transactions have ended, prepared ones too, that ran when
#   the row was first seen, three times over, and not more often than $REPEATS times.  If the row is
#   still the same, and no fetch gave anything, it is a defect.  Each of these doubts is written
#   into the log, with what came of it.
#
# The ledger is written in the transactions themselves: it says what was committed.  That of
# unlogged jobs is unlogged, too: a crash empties both.

use strict;
use warnings;

use FindBin;
use IPC::Run ();
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground qw(set_config wait_without);
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $JOBS = $ENV{QML_STRESS_JOBS} // 200_000;
my $IS_LONG = $JOBS > 500_000;
my $CLIENTS = 16;
# Transactions that one session of a client makes.
my $UNITS = $IS_LONG ? 2000 : 300;
# Seconds from one crash of the server to the next, and from one cut-off session to the next.
my $CRASH_EVERY = $IS_LONG ? 120 : 11;
my $CUT_EVERY = $IS_LONG ? 5 : 1;
# How often a fetch that is in doubt is made again, at most, 20 ms apart.  Transactions wait for
# locks for 5 s, and stay prepared for a little longer.
my $REPEATS = 500;
my $WAITERS = 2;
# Seconds for which a method has a handler, and for which it has none.
my $HANDLER_EVERY = 3;
my @ASYNC = (3, 9);
my @UNLOGGED = (2, 5, 8, 11);

seed();
my $node = new_node('list_stress', conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.succeeded_ttl = 0
qml.log_failures = off
qml.workers = 2
fsync = off
synchronous_commit = off
autovacuum_naptime = '3 s'
shared_buffers = 512MB
max_wal_size = 1GB
max_prepared_transactions = 60
lock_timeout = '5 s'
log_min_messages = log
log_min_error_statement = panic
client_min_messages = error
CONF

my $unlogged = join ',', map { "'s$_'" } @UNLOGGED;
query($node, <<"SQL");
SELECT qml_create_queue('s' || n, jsonb_build_object('retry', '{"strategy": "fixed", "delay": 0.02, "jitter": 0}'::jsonb,
	'storage', CASE WHEN n IN (${\join ',', @ASYNC}) THEN 'async' WHEN n IN (${\join ',', @UNLOGGED}) THEN 'unlogged' ELSE 'durable' END))
FROM generate_series(1, 12) n;
CREATE FUNCTION is_unlogged(queue text) RETURNS boolean LANGUAGE sql IMMUTABLE AS \$\$ SELECT queue IN ($unlogged) \$\$;
CREATE FUNCTION most_repeats() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $REPEATS';
SQL
query($node, <<'SQL');
CREATE TABLE logged_made (id uuid);
CREATE TABLE logged_did (id uuid, attempt int, what "char");
CREATE UNLOGGED TABLE unlogged_made (id uuid);
CREATE UNLOGGED TABLE unlogged_did (id uuid, attempt int, what "char");
CREATE VIEW made AS SELECT * FROM logged_made UNION ALL SELECT * FROM unlogged_made;
CREATE VIEW did AS SELECT * FROM logged_did UNION ALL SELECT * FROM unlogged_did;
CREATE VIEW all_live AS
	SELECT id, queue_id, method, state, run_at, lease_expires_at, tableoid, ctid AS at, xmin AS maker, xmax AS holder FROM qml.live
	UNION ALL
	SELECT id, queue_id, method, state, run_at, lease_expires_at, tableoid, ctid, xmin, xmax FROM qml.live_unlogged;
CREATE SEQUENCE empty_fetches;
CREATE SEQUENCE alone_fetches;
CREATE SEQUENCE handled;
CREATE FUNCTION dice(sides int) RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT floor(random() * sides)::int $$;
-- The lock of a queue (NULL: of all) to the end of the transaction; false: a fetch keeps everybody
-- out.
CREATE FUNCTION enter(queue text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
	SELECT pg_try_advisory_xact_lock_shared(185, coalesce(substr(queue, 2)::int, 0))
$$;
-- Keeps everybody out of a queue; false: somebody is in it.  The last one is held by those who end
-- prepared transactions, because lists hear of that when locks are gone.
CREATE FUNCTION keep_out(queue text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF pg_try_advisory_lock(185, substr(queue, 2)::int) AND pg_try_advisory_lock(185, 0) AND pg_try_advisory_lock(185, 1000) THEN
		RETURN true;
	END IF;
	PERFORM pg_advisory_unlock_all();
	RETURN false;
END $$;
CREATE FUNCTION note_made(ids uuid[], queue text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF is_unlogged(queue) THEN
		INSERT INTO unlogged_made SELECT unnest(ids);
	ELSE
		INSERT INTO logged_made SELECT unnest(ids);
	END IF;
END $$;
CREATE FUNCTION note_did(job uuid, attempt int, what "char", queue text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF is_unlogged(queue) THEN
		INSERT INTO unlogged_did VALUES (job, attempt, what);
	ELSE
		INSERT INTO logged_did VALUES (job, attempt, what);
	END IF;
END $$;
-- The handler of the method h, when it has one.
CREATE FUNCTION handle(job qml.job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM note_did(job.id, job.attempt, 's', job.queue), nextval('handled');
	IF dice(20) = 0 THEN
		RAISE 'undone';
	END IF;
END $$;
-- Transactions that make and claim jobs, or keep their snapshot, search the index.  They would find
-- what is missing in a list before it is told: so they use half of the queues only.
CREATE FUNCTION some_queue(half boolean) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT 's' || 1 + dice(CASE WHEN half THEN 6 ELSE 12 END) $$;
-- For four seconds more are made than are claimed, for four fewer.
CREATE FUNCTION makers_of_ten() RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT (2 + 4 * (extract(epoch FROM clock_timestamp())::bigint / 4 % 2))::int $$;

CREATE FUNCTION make(half boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	-- Ids that come back, when their jobs have ended.
	own uuid := ('00000000-0000-7000-8000-' || lpad(dice(300)::text, 12, '0'))::uuid;
	due timestamptz := CASE dice(8) WHEN 0 THEN clock_timestamp() + dice(50) * interval '1 ms' END;
	queue text := some_queue(half);
BEGIN
	IF NOT enter(queue) THEN
		RETURN;
	END IF;
	CASE dice(9)
		WHEN 0 THEN
			PERFORM note_made(ARRAY[t.id], queue)
			FROM qml_try_enqueue('m', queue => queue, id => own, priority => dice(3), max_retries => 1000, run_at => due,
				options => '{"on_duplicate_id": "return"}') t WHERE t.created;
		WHEN 1, 2 THEN
			PERFORM note_made(ARRAY[qml_enqueue('n', queue => queue, id => gen_random_uuid(), priority => dice(3), max_retries => 1000, run_at => due)], queue);
		WHEN 3 THEN
			PERFORM note_made(ARRAY(SELECT qml_enqueue_many((ARRAY['m', 'n'])[1 + dice(2)], array_fill('{}'::jsonb, ARRAY[1 + dice(CASE dice(20) WHEN 0 THEN 1000 ELSE 300 END)]),
				queue, dice(3), due, 1000)), queue);
		WHEN 4 THEN
			PERFORM note_made(ARRAY[qml_enqueue('h', queue => queue, priority => dice(3), max_retries => 1000, run_at => due)], queue);
		ELSE
			PERFORM note_made(ARRAY(SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1 + dice(20)]), queue, dice(3), due, 1000)), queue);
	END CASE;
END $$;

-- The first ready job of these queues (NULL: all) that the snapshot sees, and that nobody has
-- touched since. Those of h may be left to a handler.
CREATE FUNCTION untouched(queue text, wanted text, snapshot pg_snapshot) RETURNS TABLE (id uuid, place text) LANGUAGE sql AS $$
	SELECT l.id, format('%s %s', l.tableoid, l.at) FROM all_live l JOIN qml.queue_data q ON q.id = l.queue_id
	WHERE (queue IS NULL OR q.name = queue) AND (wanted IS NULL OR l.method = wanted) AND l.method <> 'h'
		AND l.state = 'enqueued' AND l.run_at IS NULL
		AND pg_visible_in_snapshot(l.maker::text::xid8, snapshot)
		-- A snapshot does not show subtransactions.
		AND (l.holder = 0 OR (pg_visible_in_snapshot(l.holder::text::xid8, snapshot) AND pg_xact_status(l.holder::text::xid8) <> 'in progress'))
	LIMIT 1
$$;

-- A fetch gave nothing; alone: nobody else could have to do with what it has not given.  If it may
-- have been wrong, makes it again until that is settled, and gives what it gives then.
CREATE FUNCTION judge(queue text, batch int, lease interval, wanted text, snapshot pg_snapshot, alone boolean) RETURNS SETOF qml.job LANGUAGE plpgsql AS $$
DECLARE
	seen record;
	others bigint;
	since timestamptz;
	next_xid xid8;
	prepared bigint;
	inside bigint;
	rounds int := 0;
	repeats int := 0;
	got qml.job[];
	outcome text;
BEGIN
	PERFORM nextval('empty_fetches'), CASE WHEN alone THEN nextval('alone_fetches') END;
	SELECT * INTO seen FROM untouched(queue, wanted, snapshot);
	IF NOT FOUND THEN
		RETURN;
	END IF;
	IF alone THEN
		RAISE LOG 'stress: a fetch of % gives nothing at %, and % at % is ready, with which nobody has to do', queue, snapshot, seen.id, seen.place;
		RETURN;
	END IF;
	since := clock_timestamp();
	next_xid := pg_snapshot_xmax(pg_current_snapshot());
	SELECT count(DISTINCT coalesce(pid::text, virtualtransaction)) INTO inside FROM pg_locks
	WHERE locktype = 'advisory' AND classid = 185 AND pid IS DISTINCT FROM pg_backend_pid() AND (queue IS NULL OR objid IN (0, substr(queue, 2)::int));
	LOOP
		IF wanted IS NULL THEN
			got := ARRAY(SELECT f FROM qml_fetch('w', queue, batch, lease) f);
		ELSE
			got := ARRAY(SELECT f FROM qml_fetch('w', queue, batch, lease, ARRAY[wanted]) f);
		END IF;
		repeats := repeats + 1;
		-- Given: somebody had it, and gave it back, or was about to tell the list of it.
		outcome := CASE
			WHEN seen.id IN (SELECT j.id FROM unnest(got) j) THEN 'given'
			WHEN cardinality(got) > 0 THEN 'others'
			WHEN NOT EXISTS (SELECT FROM untouched(queue, wanted, snapshot) u WHERE u.id = seen.id AND u.place = seen.place) THEN 'touched' END;
		IF outcome IS NOT NULL THEN
			RAISE LOG 'doubt: a fetch of % (%) gives nothing at %, and % at % is ready; % others in the queue; % after % repeats',
				queue, wanted, snapshot, seen.id, seen.place, inside, outcome, repeats;
			RETURN QUERY SELECT * FROM unnest(got);
			RETURN;
		END IF;
		PERFORM pg_sleep(0.02), pg_stat_clear_snapshot();
		SELECT count(*) INTO others FROM pg_stat_activity
		WHERE pid <> pg_backend_pid() AND xact_start <= since AND backend_type <> 'autovacuum worker'
			-- Who judges, too, has taken nothing.
			AND wait_event IS DISTINCT FROM 'PgSleep';
		-- Looked at later: a transaction goes from there to here.
		SELECT count(*) INTO prepared FROM pg_prepared_xacts WHERE transaction::text::xid8 < next_xid;
		IF others + prepared = 0 THEN
			rounds := rounds + 1;
			since := clock_timestamp();
			next_xid := pg_snapshot_xmax(pg_current_snapshot());
		END IF;
		IF rounds = 3 OR repeats = most_repeats() THEN
			RAISE LOG 'stress: a fetch of % (%) gives nothing at %, and % at % is ready; % others in the queue; % repeats, % rounds, % and % prepared transactions left',
				queue, wanted, snapshot, seen.id, seen.place, inside, repeats, rounds, others, prepared;
			RETURN;
		END IF;
	END LOOP;
END $$;

CREATE FUNCTION take(half boolean, only_queue text DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	queue text := coalesce(only_queue, CASE WHEN half OR dice(12) > 0 THEN some_queue(half) END);
	batch int := CASE dice(3) WHEN 0 THEN 1 WHEN 1 THEN 1 + dice(20) ELSE 1 + dice(200) END;
	lease interval := CASE dice(15) WHEN 0 THEN interval '20 ms' ELSE interval '1 h' END;
	method text := CASE dice(6) WHEN 0 THEN (ARRAY['m', 'n'])[1 + dice(2)] END;
	snapshot pg_snapshot;
	got qml.job[];
	ids uuid[];
	attempts int[];
	queues text[];
	done uuid[];
	what "char" := 'n';
	claimed record;
	keeps_out boolean := false;
	alone boolean := false;
BEGIN
	IF NOT enter(queue) THEN
		RETURN;
	END IF;
	IF queue IS NOT NULL AND method IS NULL AND dice(2) = 0 THEN
		keeps_out := keep_out(queue);
	END IF;
	snapshot := pg_current_snapshot();
	IF keeps_out THEN
		PERFORM pg_stat_clear_snapshot();
		alone := NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'qml %' AND backend_type <> 'qml worker' AND xact_start IS NOT NULL);
	END IF;
	IF method IS NULL THEN
		SELECT array_agg(f) INTO got FROM qml_fetch('w', queue, batch, lease) f;
	ELSE
		SELECT array_agg(f) INTO got FROM qml_fetch('w', queue, batch, lease, ARRAY[method]) f;
	END IF;
	IF got IS NULL AND current_setting('transaction_isolation') = 'read committed' THEN
		SELECT array_agg(j) INTO got FROM judge(queue, batch, lease, method, snapshot, alone) j;
	END IF;
	IF keeps_out THEN
		PERFORM pg_advisory_unlock_all();
	END IF;
	IF got IS NULL THEN
		RETURN;
	END IF;
	SELECT array_agg((g).id), array_agg((g).attempt), array_agg((g).queue) INTO ids, attempts, queues FROM unnest(got) g;
	CASE dice(20)
		WHEN 0 THEN
			what := 'f';
			done := ARRAY(SELECT qml_fail_many(ids, attempts, array_fill('e'::text, ARRAY[cardinality(ids)]), retry_at => clock_timestamp() + dice(20) * interval '1 ms'));
		WHEN 1, 2 THEN
			what := 'r';
			done := ARRAY(SELECT qml_release_many(ids, attempts, CASE dice(2) WHEN 0 THEN clock_timestamp() + interval '5 ms' END));
		WHEN 3 THEN
			-- Only a lease that ends brings them back.
			IF lease > interval '1 s' THEN
				what := 's';
				done := ARRAY(SELECT qml_succeed_many(ids, attempts));
			END IF;
		WHEN 4 THEN
			-- One after the other, each with the claim of the next.
			FOR claimed IN SELECT u.id, u.attempt, u.queue FROM unnest(ids, attempts, queues) u (id, attempt, queue) LIMIT 5 LOOP
				PERFORM note_did(next.id, next.attempt, CASE WHEN qml_release(next.id, next.attempt) THEN 'r'::"char" END, next.queue)
				FROM qml_succeed_fetch(claimed.id, claimed.attempt, NULL, 'w', queue) next;
				PERFORM note_did(claimed.id, claimed.attempt, 's', claimed.queue);
			END LOOP;
			ids := ids[6:];
			attempts := attempts[6:];
			queues := queues[6:];
			what := 'r';
			done := ARRAY(SELECT qml_release_many(ids, attempts));
		ELSE
			what := 's';
			done := ARRAY(SELECT qml_succeed_many(ids, attempts));
	END CASE;
	INSERT INTO logged_did SELECT u.id, u.attempt, CASE WHEN u.id = ANY (done) THEN what ELSE 'n' END FROM unnest(ids, attempts, queues) u (id, attempt, queue)
	WHERE NOT is_unlogged(u.queue);
	INSERT INTO unlogged_did SELECT u.id, u.attempt, CASE WHEN u.id = ANY (done) THEN what ELSE 'n' END FROM unnest(ids, attempts, queues) u (id, attempt, queue)
	WHERE is_unlogged(u.queue);
END $$;

CREATE FUNCTION touch(half boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	job uuid;
	queue text := some_queue(half);
	kind int := dice(4);
BEGIN
	IF NOT enter(CASE WHEN kind NOT IN (1, 2) THEN queue END) THEN
		RETURN;
	END IF;
	SELECT l.id INTO job FROM all_live l JOIN qml.queue_data q ON q.id = l.queue_id
	WHERE q.name = queue AND l.state IN ('enqueued', 'scheduled', 'awaiting_retry') LIMIT 1 OFFSET dice(10);
	IF job IS NULL THEN
		RETURN;
	END IF;
	CASE kind
		WHEN 0 THEN PERFORM qml_reschedule(job, clock_timestamp() + interval '5 ms');
		WHEN 1 THEN PERFORM qml_promote_due();
		WHEN 2 THEN PERFORM qml_reclaim();
		ELSE
			IF qml_delete(job) THEN
				PERFORM note_did(job, 0, 'd', queue);
			END IF;
	END CASE;
END $$;

-- Some of that, of which parts are undone; or fetches from one queue.
CREATE FUNCTION act(half boolean DEFAULT true, only_queue text DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	makes boolean := dice(10) < makers_of_ten();
BEGIN
	FOR i IN 0 .. dice(3) LOOP
		BEGIN
			IF only_queue IS NOT NULL THEN
				PERFORM take(half, only_queue);
			ELSIF dice(20) = 0 THEN
				PERFORM touch(half);
			ELSIF makes THEN
				PERFORM make(half);
			ELSE
				PERFORM take(half);
			END IF;
			makes := CASE WHEN half THEN dice(10) < makers_of_ten() ELSE makes END;
			IF dice(8) = 0 THEN
				RAISE 'undone' USING ERRCODE = 'P0001';
			END IF;
		EXCEPTION WHEN OTHERS THEN
			PERFORM pg_advisory_unlock_all();
			IF SQLSTATE NOT IN ('P0001', '23505', '40001', '40P01', '55P03', 'QM001', 'QM002', 'QM003') THEN
				RAISE LOG 'stress: % %', SQLSTATE, SQLERRM;
			END IF;
		END;
	END LOOP;
END $$;
CREATE PROCEDURE work(units int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. units LOOP
		PERFORM act(dice(4) = 0);
		IF dice(6) = 0 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END $$;
-- Finishes everything that fetches give.
CREATE PROCEDURE finish() LANGUAGE plpgsql AS $$
DECLARE
	job qml.job;
	has_any boolean := true;
BEGIN
	WHILE has_any LOOP
		has_any := false;
		FOR job IN SELECT * FROM qml_fetch('w', NULL, 500) LOOP
			PERFORM qml_succeed(job.id, job.attempt), note_did(job.id, job.attempt, 's', job.queue);
			has_any := true;
		END LOOP;
		COMMIT;
	END LOOP;
END $$;
SQL

# ---- clients

my $serial = 0;

# What a client does in one session.  Most call one procedure; others keep a snapshot in their
# transactions, or prepare them for two seconds of ten: while one ends, doubts cannot be settled.
sub script
{
	my ($number) = @_;
	my @lines = ('SET client_min_messages = fatal;', '\set is_time false');

	if ($number > $CLIENTS)
	{
		# Sleeps until there is a job, and takes it, or finds that somebody else has.
		my ($queue, $wait) = ($number % 2 ? 's1' : 's2', pick(1, 300));
		return join "\n", $lines[0], map { ("CALL qml_wait('$queue', '$wait ms');", "SELECT act(false, '$queue');") } 1 .. $UNITS;
	}
	return "CALL work($UNITS);\n" if $number > 3;
	foreach (1 .. $UNITS / 3)
	{
		my $name = 'stress_' . ++$serial;
		my $end = pick(0, 2) ? 'COMMIT' : 'ROLLBACK';
		if ($number == 1)
		{
			push @lines, 'BEGIN ISOLATION LEVEL ' . (pick(0, 1) ? 'REPEATABLE READ' : 'SERIALIZABLE') . "; SELECT act(); $end;";
			next;
		}
		push @lines, 'BEGIN; SELECT act();', 'SELECT extract(epoch FROM clock_timestamp())::bigint / 2 % 5 = 0 AS is_time \gset',
		  '\if :is_time', 'SELECT pg_advisory_lock_shared(185, 1000);', "PREPARE TRANSACTION '$name'; $end PREPARED '$name';",
		  'SELECT pg_advisory_unlock_all();', '\else', "$end;", '\endif';
	}
	return join "\n", @lines, '';
}

# IPC::Run would have to be pumped for its input.
my $scripts = "$PostgreSQL::Test::Utils::tmp_check/stress";
mkdir $scripts or die "could not create \"$scripts\": $!";

sub start_psql
{
	my ($number) = @_;
	my $file = "$scripts/$number.sql";
	unlink $file;
	append_to_file($file, script($number));
	return { number => $number, handle => IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', $file ], '<', '/dev/null', '>', '/dev/null', '2>', '/dev/null') };
}

# How many jobs were made, about, undone ones too.
sub made_about
{
	my $size = try_query($node, "SELECT pg_relation_size('logged_made')");
	return defined $size ? $size / 8192 * 185 : 0;
}

my %chaos = map { $_ => 0 } qw(crashes cut prepared handlers);

# A backend of a client.
sub some_backend
{
	return try_query($node, "SELECT pid FROM pg_stat_activity WHERE query ~ 'work|act\\(|PREPARE|qml_wait' AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY random() LIMIT 1");
}

# A worker in the database.
sub some_worker
{
	return try_query($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'qml worker' ORDER BY random() LIMIT 1");
}

# Ends what clients have left prepared.
sub end_left
{
	my ($seconds) = @_;
	my $names = try_query($node, "SELECT gid FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - interval '$seconds s'");
	foreach my $name (split /\n/, $names // '')
	{
		$chaos{prepared}++
		  if defined try_query($node, 'SELECT pg_advisory_lock_shared(185, 1000); ' . (pick(0, 1) ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$name'");
	}
	return;
}

my ($crash_at, $cut_at, $look_at, $forget_at, $handler_at) = (time + $CRASH_EVERY, time + $CUT_EVERY, time + 1, time + 1, time + 1);
my $has_handler = 0;
my $begun = time;
my $note_at = time + 60;
my $limit = $JOBS;
my $made = 0;
my @clients = map { start_psql($_) } 1 .. $CLIENTS + $WAITERS;

while ($made < $JOBS)
{
	sleep 0.05;
	foreach my $client (@clients)
	{
		next if $client->{handle}->pumpable;
		eval { IPC::Run::finish($client->{handle}) };
		$client = start_psql($client->{number});
	}
	# All lists are begun anew, and filled.
	if (time > $forget_at)
	{
		try_query($node, 'UPDATE qml.live SET reason = NULL WHERE false');
		$forget_at = time + 1.5;
	}
	if (time > $handler_at)
	{
		my $call = $has_handler ? "qml_unregister_handler('h', missing_ok => true)" : "qml_register_handler('h', 'handle')";
		if (defined try_query($node, "SELECT $call"))
		{
			$has_handler = !$has_handler;
			$chaos{handlers} += $has_handler;
		}
		$handler_at = time + $HANDLER_EVERY;
	}
	if (time > $cut_at)
	{
		my $pid = pick(0, 3) ? some_backend() : some_worker();
		$chaos{cut}++ if defined $pid && $pid ne '' && (try_query($node, "SELECT pg_terminate_backend($pid)") // '') eq 't';
		end_left(3);
		$cut_at = time + rand(2 * $CUT_EVERY);
	}
	if (time > $crash_at)
	{
		my $pid = some_backend();
		# The server ends all other sessions, and starts anew.
		$chaos{crashes}++ if defined $pid && $pid ne '' && kill 'KILL', $pid;
		wait_for('the server to be back', sub { defined try_query($node, 'SELECT 1') });
		$crash_at = time + $CRASH_EVERY;
	}
	if (time > $look_at)
	{
		my $about = made_about();
		if ($about >= $limit)
		{
			$made = try_query($node, 'SELECT count(*) FROM made') // 0;
			$limit = $about + ($JOBS - $made) * 1.1 + 1000;
		}
		if (time > $note_at)
		{
			note(sprintf '%.0f s: about %d jobs, %s', time - $begun, $about, join ', ', map { "$chaos{$_} $_" } sort keys %chaos);
			$note_at = time + 60;
		}
		$look_at = time + 1;
	}
}
foreach my $client (@clients)
{
	$client->{handle}->kill_kill;
}
query($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
wait_for('the sessions to end', sub { (some_backend() // 'x') eq '' });
end_left(0);
my $seconds = time - $begun;

# ---- judging

# Nobody but this makes jobs ready from now on, and nothing is left to a handler.
query($node, q{SELECT qml_unregister_handler('h', missing_ok => true)});
set_config($node, 'qml.enabled' => 'off');
wait_without($node, 'postgres');
wait_for('the workers to end', sub { some_worker() eq '' });

foreach my $round (1 .. 50)
{
	query($node, 'SELECT qml_promote_due(1000000); SELECT qml_reclaim(1000000)');
	query($node, 'CALL finish()');
	is(query($node, "SELECT count(*) FROM all_live WHERE state = 'enqueued'"), 0, "fetches have given all that was ready ($round)");
	last if query($node, "SELECT count(*) FROM all_live WHERE state <> 'processing' OR lease_expires_at < now() + interval '1 min'") == 0;
	sleep 0.1;
}
is(query($node, 'SELECT count(*) FROM all_live'), 0, 'nothing is left');
is(query($node, "SELECT count(*) FROM (SELECT id FROM made EXCEPT ALL SELECT id FROM did WHERE what IN ('s', 'd')) x"), 0, 'no job is lost');
is(query($node, "SELECT count(*) FROM (SELECT id FROM did WHERE what IN ('s', 'd') EXCEPT ALL SELECT id FROM made) x"), 0, 'none has ended twice');
is(query($node, <<'SQL'), 0, 'no attempt was given twice');
SELECT count(*) FROM (
	SELECT id, attempt FROM did WHERE what <> 'd' AND id::text NOT LIKE '00000000-%' GROUP BY 1, 2 HAVING count(*) > 1) x
SQL
my $log = slurp_file($node->logfile);
my @defects = $log =~ /(stress: .*|TRAP.*|PANIC.*|.*a ready job was missing.*|.* XX000 .*)/g;
is(join("\n", @defects[ 0 .. ($#defects > 20 ? 20 : $#defects) ]), '', 'no fetch was wrong, and nothing failed that must not');

# Doubts, by what became of them (the job was given, others were, or somebody has touched it), and
# how often a fetch was made again for one.
my (%doubts, $doubted);
my ($most, $in_empty) = (0, 0);
while ($log =~ /doubt: .* ready; (\d+) others in the queue; (\w+) after (\d+) repeats/g)
{
	$doubts{$2}++;
	$doubted++;
	$most = $3 if $3 > $most;
	$in_empty++ if $1 == 0;
}
my ($empty, $alone, $handled) = split /\|/, query($node, 'SELECT e.last_value, a.last_value, h.last_value FROM empty_fetches e, alone_fetches a, handled h');
cmp_ok($empty, '>', $JOBS / 10_000, "$empty fetches gave nothing and were judged");
cmp_ok($alone, '>', $JOBS / 20_000, "$alone of them at once, because nobody else was in the queue");
cmp_ok($handled, '>', $JOBS / 20_000, "a handler ran $handled jobs");
note(sprintf '%d fetches were doubted (%s), made again %d times at most; in %d cases nobody was in the queue when the row was seen',
	$doubted // 0, join(', ', map { "$doubts{$_} $_" } sort keys %doubts), $most, $in_empty);
cmp_ok($chaos{crashes}, '>', 0, "$chaos{crashes} crashes");
cmp_ok($chaos{cut}, '>', 0, "$chaos{cut} sessions were cut off");
note(sprintf '%.0f s: %s jobs made, %s claims (%s succeeded, %s failed, %s released, %s lost), %s deleted; %s prepared transactions were left',
	$seconds, split(/\|/, query($node, <<'SQL')), $chaos{prepared});
SELECT (SELECT count(*) FROM made), count(*) FILTER (WHERE what <> 'd'), count(*) FILTER (WHERE what = 's'), count(*) FILTER (WHERE what = 'f'),
	count(*) FILTER (WHERE what = 'r'), count(*) FILTER (WHERE what = 'n'), count(*) FILTER (WHERE what = 'd') FROM did
SQL

done_testing();
