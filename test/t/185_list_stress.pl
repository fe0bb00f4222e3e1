# Sixteen clients do everything with jobs at once, at random: make, claim, finish, fail, release,
# retry, delay, delete, in subtransactions and transactions that are undone, prepared, or cut off with
# their session or the server.  Nothing is lost, nothing is given twice, and a fetch that gives
# nothing is right each time.
#
# QML_STRESS_JOBS: how many jobs are made; "make stress" makes ten million.
#
# How it is judged that a fetch is wrong: a snapshot is taken before it.  If it gives nothing, there must
# be no row of a ready job that the snapshot sees, that nobody who is in progress in the
# snapshot or since has touched, and that is still the same.  One exception is allowed: somebody
# has taken its entry out of the list and not yet come to the row.  So the fetch is made again
# until all transactions have ended, prepared ones too, that ran when such a row was first seen, three
# times over.  If the row is still the same, and no fetch gave it, that is written into the log.
#
# The ledger is written in the transactions themselves: it says what was committed.

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

seed();
my $node = new_node('list_stress', conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.succeeded_ttl = 0
qml.log_failures = off
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

query($node, <<'SQL');
CREATE TABLE made (id uuid);
CREATE TABLE did (id uuid, attempt int, what "char");
CREATE SEQUENCE empty_fetches;
CREATE SEQUENCE doubted_fetches;
SELECT qml_create_queue('s' || n) FROM generate_series(1, 12) n;
CREATE FUNCTION dice(sides int) RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT floor(random() * sides)::int $$;
-- Transactions that make and claim jobs, or keep their snapshot, search the index.  They would find what is
-- missing in a list before it is told: so they use half of the queues only.
CREATE FUNCTION some_queue(half boolean) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT 's' || 1 + dice(CASE WHEN half THEN 6 ELSE 12 END) $$;
-- For four seconds more are made than are claimed, for four fewer.
CREATE FUNCTION makers_of_ten() RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT (2 + 4 * (extract(epoch FROM clock_timestamp())::bigint / 4 % 2))::int $$;

CREATE FUNCTION make(half boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	-- Ids that come back, when their jobs have ended.
	own uuid := ('00000000-0000-7000-8000-' || lpad(dice(300)::text, 12, '0'))::uuid;
	due timestamptz := CASE dice(8) WHEN 0 THEN clock_timestamp() + dice(50) * interval '1 ms' END;
BEGIN
	CASE dice(8)
		WHEN 0 THEN
			INSERT INTO made SELECT t.id
			FROM qml_try_enqueue('m', queue => some_queue(half), id => own, priority => dice(3), max_retries => 1000, run_at => due,
				options => '{"on_duplicate_id": "return"}') t WHERE t.created;
		WHEN 1, 2 THEN
			INSERT INTO made SELECT qml_enqueue('n', queue => some_queue(half), id => gen_random_uuid(), priority => dice(3), max_retries => 1000, run_at => due);
		WHEN 3 THEN
			INSERT INTO made SELECT qml_enqueue_many((ARRAY['m', 'n'])[1 + dice(2)], array_fill('{}'::jsonb, ARRAY[1 + dice(CASE dice(20) WHEN 0 THEN 1000 ELSE 300 END)]),
				some_queue(half), dice(3), due, 1000);
		ELSE
			INSERT INTO made SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1 + dice(20)]), some_queue(half), dice(3), due, 1000);
	END CASE;
END $$;

-- The first ready job of these queues (NULL: all) that the snapshot sees, and that nobody has touched since.
CREATE FUNCTION untouched(queue text, wanted text, snapshot pg_snapshot) RETURNS TABLE (id uuid, at tid) LANGUAGE sql AS $$
	SELECT l.id, l.ctid FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id
	WHERE (queue IS NULL OR q.name = queue) AND (wanted IS NULL OR l.method = wanted)
		AND l.state = 'enqueued' AND l.run_at IS NULL
		AND pg_visible_in_snapshot(l.xmin::text::xid8, snapshot)
		-- A snapshot does not show subtransactions.
		AND (l.xmax = 0 OR (pg_visible_in_snapshot(l.xmax::text::xid8, snapshot) AND pg_xact_status(l.xmax::text::xid8) <> 'in progress'))
	LIMIT 1
$$;

-- A fetch gave nothing.  If it may have been wrong, makes it again until that is settled, and
-- gives what it gives then.
CREATE FUNCTION judge(queue text, batch int, lease interval, wanted text, snapshot pg_snapshot) RETURNS SETOF qml.job LANGUAGE plpgsql AS $$
DECLARE
	seen record;
	others bigint;
	since timestamptz;
	next_xid xid8;
	prepared bigint;
	rounds int := 0;
BEGIN
	PERFORM nextval('empty_fetches');
	SELECT * INTO seen FROM untouched(queue, wanted, snapshot);
	IF NOT FOUND THEN
		RETURN;
	END IF;
	PERFORM nextval('doubted_fetches');
	since := clock_timestamp();
	next_xid := pg_snapshot_xmax(pg_current_snapshot());
	LOOP
		RETURN QUERY SELECT * FROM qml_fetch('w', queue, batch, lease, ARRAY[wanted]) f WHERE wanted IS NOT NULL
			UNION ALL SELECT * FROM qml_fetch('w', queue, batch, lease) f WHERE wanted IS NULL;
		IF FOUND OR NOT EXISTS (SELECT FROM untouched(queue, wanted, snapshot) u WHERE u.id = seen.id AND u.at = seen.at) THEN
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
		IF rounds = 3 THEN
			RAISE LOG 'stress: a fetch of % (%) gives nothing at %, and % at % is ready', queue, wanted, snapshot, seen.id, seen.at;
			RETURN;
		END IF;
	END LOOP;
END $$;

CREATE FUNCTION take(half boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	queue text := CASE WHEN half OR dice(6) > 0 THEN some_queue(half) END;
	batch int := CASE dice(3) WHEN 0 THEN 1 WHEN 1 THEN 1 + dice(20) ELSE 1 + dice(200) END;
	lease interval := CASE dice(15) WHEN 0 THEN interval '20 ms' ELSE interval '1 h' END;
	method text := CASE dice(6) WHEN 0 THEN (ARRAY['m', 'n'])[1 + dice(2)] END;
	snapshot pg_snapshot := pg_current_snapshot();
	got qml.job[];
	ids uuid[];
	attempts int[];
	done uuid[];
	what "char" := 'n';
	claimed record;
BEGIN
	IF method IS NULL THEN
		SELECT array_agg(f) INTO got FROM qml_fetch('w', queue, batch, lease) f;
	ELSE
		SELECT array_agg(f) INTO got FROM qml_fetch('w', queue, batch, lease, ARRAY[method]) f;
	END IF;
	IF got IS NULL AND current_setting('transaction_isolation') = 'read committed' THEN
		SELECT array_agg(j) INTO got FROM judge(queue, batch, lease, method, snapshot) j;
	END IF;
	IF got IS NULL THEN
		RETURN;
	END IF;
	SELECT array_agg((g).id), array_agg((g).attempt) INTO ids, attempts FROM unnest(got) g;
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
			FOR claimed IN SELECT u.id, u.attempt FROM unnest(ids, attempts) u (id, attempt) LIMIT 5 LOOP
				WITH next AS (SELECT f.id, f.attempt FROM qml_succeed_fetch(claimed.id, claimed.attempt, NULL, 'w', queue) f),
					one AS (INSERT INTO did VALUES (claimed.id, claimed.attempt, 's'))
				INSERT INTO did SELECT next.id, next.attempt, CASE WHEN qml_release(next.id, next.attempt) THEN 'r'::"char" END FROM next;
			END LOOP;
			ids := ids[6:];
			attempts := attempts[6:];
			what := 'r';
			done := ARRAY(SELECT qml_release_many(ids, attempts));
		ELSE
			what := 's';
			done := ARRAY(SELECT qml_succeed_many(ids, attempts));
	END CASE;
	INSERT INTO did SELECT u.id, u.attempt, CASE WHEN u.id = ANY (done) THEN what ELSE 'n' END FROM unnest(ids, attempts) u (id, attempt);
END $$;

CREATE FUNCTION touch(half boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	job uuid;
BEGIN
	SELECT l.id INTO job FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id
	WHERE q.name = some_queue(half) AND l.state IN ('enqueued', 'scheduled', 'awaiting_retry') LIMIT 1 OFFSET dice(10);
	IF job IS NULL THEN
		RETURN;
	END IF;
	CASE dice(4)
		WHEN 0 THEN PERFORM qml_reschedule(job, clock_timestamp() + interval '5 ms');
		WHEN 1 THEN PERFORM qml_promote_due();
		WHEN 2 THEN PERFORM qml_reclaim();
		ELSE
			IF qml_delete(job) THEN
				INSERT INTO did VALUES (job, 0, 'd');
			END IF;
	END CASE;
END $$;

-- Some of that, of which parts are undone.
CREATE FUNCTION act(half boolean DEFAULT true) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	makes boolean := dice(10) < makers_of_ten();
BEGIN
	FOR i IN 0 .. dice(3) LOOP
		BEGIN
			IF dice(20) = 0 THEN
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
BEGIN
	LOOP
		WITH f AS MATERIALIZED (SELECT id, attempt FROM qml_fetch('w', NULL, 500))
		INSERT INTO did SELECT id, attempt, CASE WHEN qml_succeed(id, attempt) IS NOT NULL THEN 's'::"char" END FROM f;
		EXIT WHEN NOT FOUND;
		COMMIT;
	END LOOP;
	COMMIT;
END $$;
SQL

# ---- clients

my $serial = 0;

# What a client does in one session.  Most call one procedure; others keep a snapshot in their
# transactions, or prepare them for two seconds of ten: the end of one makes the database forget its lists,
# and with that what is wrong in them.
sub script
{
	my ($number) = @_;
	my @lines = ('SET client_min_messages = fatal;', '\set is_time false');

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
		  '\if :is_time', "PREPARE TRANSACTION '$name'; $end PREPARED '$name';", '\else', "$end;", '\endif';
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
	my $size = try_query($node, "SELECT pg_relation_size('made')");
	return defined $size ? $size / 8192 * 185 : 0;
}

my %chaos = map { $_ => 0 } qw(crashes cut prepared);

# A backend of a client.
sub some_backend
{
	return try_query($node, "SELECT pid FROM pg_stat_activity WHERE query ~ 'work|act\\(|PREPARE' AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY random() LIMIT 1");
}

# Ends what clients have left prepared.
sub end_left
{
	my ($seconds) = @_;
	my $names = try_query($node, "SELECT gid FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - interval '$seconds s'");
	foreach my $name (split /\n/, $names // '')
	{
		$chaos{prepared}++ if defined try_query($node, (pick(0, 1) ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$name'");
	}
	return;
}

my ($crash_at, $cut_at, $look_at, $forget_at) = (time + $CRASH_EVERY, time + $CUT_EVERY, time + 1, time + 1);
my $begun = time;
my $note_at = time + 60;
my $limit = $JOBS;
my $made = 0;
my @clients = map { start_psql($_) } 1 .. $CLIENTS;

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
	if (time > $cut_at)
	{
		my $pid = some_backend();
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

# Nobody but this makes jobs ready from now on.
set_config($node, 'qml.enabled' => 'off');
wait_without($node, 'postgres');

foreach my $round (1 .. 50)
{
	query($node, 'SELECT qml_promote_due(1000000); SELECT qml_reclaim(1000000)');
	query($node, 'CALL finish()');
	is(query($node, "SELECT count(*) FROM qml.live WHERE state = 'enqueued'"), 0, "fetches have given all that was ready ($round)");
	last if query($node, "SELECT count(*) FROM qml.live WHERE state <> 'processing' OR lease_expires_at < now() + interval '1 min'") == 0;
	sleep 0.1;
}
is(query($node, 'SELECT count(*) FROM qml.live'), 0, 'nothing is left');
is(query($node, "SELECT count(*) FROM (SELECT id FROM made EXCEPT ALL SELECT id FROM did WHERE what IN ('s', 'd')) x"), 0, 'no job is lost');
is(query($node, "SELECT count(*) FROM (SELECT id FROM did WHERE what IN ('s', 'd') EXCEPT ALL SELECT id FROM made) x"), 0, 'none has ended twice');
is(query($node, <<'SQL'), 0, 'no attempt was given twice');
SELECT count(*) FROM (
	SELECT id, attempt FROM did WHERE what <> 'd' AND id::text NOT LIKE '00000000-%' GROUP BY 1, 2 HAVING count(*) > 1) x
SQL
my $log = slurp_file($node->logfile);
my @defects = $log =~ /(stress: .*|TRAP.*|PANIC.*|.*a ready job was missing.*|.* XX000 .*)/g;
is(join("\n", @defects[ 0 .. ($#defects > 20 ? 20 : $#defects) ]), '', 'no fetch was wrong, and nothing failed that must not');

my ($empty, $doubted) = split /\|/, query($node, 'SELECT e.last_value, d.last_value FROM empty_fetches e, doubted_fetches d');
cmp_ok($empty, '>', $JOBS / 10_000, "$empty fetches gave nothing and were judged");
cmp_ok($chaos{crashes}, '>', 0, "$chaos{crashes} crashes");
cmp_ok($chaos{cut}, '>', 0, "$chaos{cut} sessions were cut off");
note(sprintf '%.0f s: %s jobs made, %s claims (%s succeeded, %s failed, %s released, %s lost), %s deleted; of %s fetches that gave nothing %s were doubted; %s prepared transactions were left',
	$seconds, split(/\|/, query($node, <<'SQL')), $empty, $doubted, $chaos{prepared});
SELECT (SELECT count(*) FROM made), count(*) FILTER (WHERE what <> 'd'), count(*) FILTER (WHERE what = 's'), count(*) FILTER (WHERE what = 'f'),
	count(*) FILTER (WHERE what = 'r'), count(*) FILTER (WHERE what = 'n'), count(*) FILTER (WHERE what = 'd') FROM did
SQL

done_testing();
