# Queues whose storage is async: a commit waits for the disk unless the transaction has written
# nothing but jobs of such queues.  So a crash may lose these, as whole transactions, and nothing
# else; and no number of an attempt is given twice.
#
# The process that writes the WAL in the background is stopped.  So what a commit has not flushed
# stays where it is until the server is killed, and is lost then.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $SKIPPED = 65536;

my $node = background_node('async', variant => 'faults', init => { allows_streaming => 1 }, conf => <<'CONF');
fsync = on
autovacuum = off
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
checkpoint_timeout = 1h
qml.workers = 2
CONF

# After each start: from then on nobody flushes but those who commit.
sub stop_wal_writer
{
	my $pid;

	wait_for('the WAL writer',
		sub { $pid = query($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'}) });
	kill 'STOP', $pid or die "could not stop process $pid: $!";
	return;
}

# What a session or the scheduler does first may be in the WAL: catalogs are pruned, and partitions made.
sub settle
{
	stop_wal_writer();
	sleeping_scheduler($node);
	ask($node, q{SELECT qml_enqueue('m', queue => 'warm', id => gen_random_uuid()), qml_enqueue('m', queue => 'warm')});
	ask($node, q{SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{warm}', batch => 100)});
	return;
}

sub crash
{
	kill_server($node);
	start_again($node);
	settle();
	return;
}

# Runs SQL as one transaction in a session that stays open; whether its commit was flushed.  The
# record of the commit is behind all that the transaction has written.
sub is_flushed
{
	my ($sql, $end) = @_;
	$end //= 'COMMIT';
	my $lsn = ask($node, "BEGIN;\n$sql;\nSELECT pg_current_wal_insert_lsn()");
	$lsn =~ s/.*\n//s;
	ask($node, $end);
	return ask($node, "SELECT pg_current_wal_flush_lsn() > '$lsn'") eq 't';
}

sub waits
{
	my ($name, $sql, $end) = @_;
	ok(is_flushed($sql, $end), "$name: the commit waits for the disk");
	return;
}

# What is read for the first time may be pruned, which is in the WAL as well: so there is a second try.
sub waits_not
{
	my ($name, $sql) = @_;
	ok(!is_flushed($sql) || !is_flushed($sql), "$name: the commit does not wait");
	return;
}

my $enqueue = q{SELECT qml_enqueue('m', queue => 'fast')};
my $insert = q{INSERT INTO mark (what) VALUES ('row')};

query($node, q{SELECT qml_create_queue('fast', '{"storage": "async"}'), qml_create_queue('second', '{"storage": "async", "succeeded_ttl": 0}'),
	qml_create_queue('safe'), qml_create_queue('warm', '{"storage": "async"}')});
query($node, q{SELECT qml_enqueue('m', queue => 'safe')});
is(query($node, 'SELECT is_called FROM qml.async_life'), 'f', 'no life of such queues begins before it has jobs');
query($node, q{SELECT count(qml_enqueue('m', queue => 'fast')) FROM generate_series(1, 40)});
query($node, <<'SQL');
CREATE TABLE mark (id serial, what text);
CREATE TABLE cause (n int);
CREATE TABLE held (n int);
INSERT INTO held VALUES (1);
CREATE SEQUENCE s;
CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO mark (what) VALUES (NEW.n); RETURN NULL; END $$;
CREATE TRIGGER t AFTER INSERT ON cause FOR EACH ROW EXECUTE FUNCTION mark();
SQL
query($node, 'VACUUM');
query($node, 'CHECKPOINT');
stop_wal_writer();
ask($node, "$enqueue; SELECT * FROM mark; SELECT * FROM held; SELECT id FROM qml_fetch('w', '{fast}')");

# ---- what waits, and what does not

waits_not('one job', $enqueue);
waits_not('two', "$enqueue; $enqueue");
waits_not('of two queues', "$enqueue; SELECT qml_enqueue('m', queue => 'second')");
waits_not('many', q{SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[300]), 'fast')});
waits_not('a large payload', q{SELECT qml_enqueue('m', (SELECT jsonb_agg(md5(n::text)) FROM generate_series(1, 2000) n), queue => 'fast')});
waits_not('with an id', q{SELECT qml_enqueue('m', queue => 'fast', id => gen_random_uuid())});
waits_not('a delayed job', q{SELECT qml_enqueue('m', queue => 'fast', delay => '1 h')});
waits_not('a savepoint', "SAVEPOINT a; $enqueue; RELEASE a");
waits_not('a fetch', q{SELECT count(*) FROM qml_fetch('w', '{fast}', lease => '1 h')});
waits_not('a fetch of many', q{SELECT count(*) FROM qml_fetch('w', '{fast}', lease => '1 h', batch => 20)});
ask($node, q{CREATE TEMP TABLE mine AS SELECT id, attempt, row_number() OVER () AS n FROM qml_fetch('w', '{fast}', lease => '1 h', batch => 100)});
# Does something to a job that is held, each time to another one.
my $mine = q{(DELETE FROM mine WHERE n = (SELECT min(n) FROM mine) RETURNING id, attempt)};
my $job = sub { return "WITH j AS $mine SELECT qml_$_[0](id, attempt$_[1]) FROM j" };
waits_not('succeed', $job->('succeed', ''));
waits_not('fail', $job->('fail', q{, 'error'}));
waits_not('release', $job->('release', ''));
waits_not('discard', $job->('discard', ''));
waits_not('heartbeat', $job->('heartbeat', q{, '2 h'}));
waits_not('progress', $job->('progress', q{, '1'}));
waits_not('succeed and fetch', "WITH j AS $mine SELECT count(f.id) FROM j, qml_succeed_fetch(j.id, j.attempt, worker => 'w', queues => '{fast}', lease => '1 h') f");
waits_not('delete', "WITH j AS $mine SELECT qml_delete(id) FROM j");
waits_not('succeed_many', q{WITH j AS (DELETE FROM mine WHERE n IN (SELECT n FROM mine ORDER BY n LIMIT 10) RETURNING id, attempt)
	SELECT qml_succeed_many((SELECT array_agg(id ORDER BY id) FROM j), (SELECT array_agg(attempt ORDER BY id) FROM j))});
waits_not('a notification', "$enqueue; NOTIFY x");
waits_not('a row of a temporary table', "$enqueue; DELETE FROM mine WHERE n = 90");

waits('a row', $insert);
waits('a row before', "$insert; $enqueue");
waits('a row behind', "$enqueue; $insert");
waits('a row in a savepoint', "$enqueue; SAVEPOINT a; $insert; RELEASE a");
waits('a row in a savepoint before', "SAVEPOINT a; $insert; RELEASE a; $enqueue");
waits('a savepoint that is rolled back', "$enqueue; SAVEPOINT a; $insert; ROLLBACK TO a");
waits('a job that is rolled back', "$enqueue; SAVEPOINT a; $enqueue; ROLLBACK TO a");
waits('a trigger', "$enqueue; INSERT INTO cause VALUES (1)");
waits('a row that is locked', "$enqueue; SELECT * FROM held FOR UPDATE");
waits('an end with a row', $job->('succeed', '') . "; $insert");
waits('a fetch with a row', "SELECT count(*) FROM qml_fetch('w', '{fast}'); $insert");
waits('a job of a durable queue', q{SELECT qml_enqueue('m', queue => 'safe')});
waits('a durable job before', qq{SELECT qml_enqueue('m', queue => 'safe'); $enqueue});
waits('a durable job behind', qq{$enqueue; SELECT qml_enqueue('m', queue => 'safe')});
waits('a fetch of both', q{SELECT count(DISTINCT queue) FROM qml_fetch('w', '{fast,safe}', batch => 1000)});
waits('a queue that is made', q{SELECT qml_enqueue('m', queue => 'new')});
waits('DDL', "$enqueue; CREATE TABLE new (n int)");
waits('DDL before', "ALTER TABLE new ADD m int; $enqueue");
waits('TRUNCATE', "$enqueue; TRUNCATE new");
waits('a sequence', "$enqueue; SELECT nextval('s')");
waits('a large object', "$enqueue; SELECT lo_from_bytea(0, 'x')");
waits('a message', "$enqueue; SELECT pg_logical_emit_message(true, 'a', 'b')");
waits('a temporary table that is dropped at the commit', "CREATE TEMP TABLE gone ON COMMIT DROP AS SELECT 1; $enqueue");
waits('PREPARE', $enqueue, q{PREPARE TRANSACTION 'p'});
waits_not('jobs after a transaction that was rolled back', $enqueue);
is(ask($node, q{COMMIT PREPARED 'p'}), '', 'the prepared one is committed');

# ---- the setting of the session

is(ask($node, 'SHOW synchronous_commit'), 'on', 'the setting is what it was');
waits('the next transaction', $insert);
foreach my $value (qw(local remote_write remote_apply off))
{
	ask($node, "SET synchronous_commit = $value");
	waits_not("synchronous_commit = $value", $enqueue);
	is(ask($node, 'SHOW synchronous_commit'), $value, 'it stays so');
	is(is_flushed($insert), $value ne 'off', 'and counts for rows');
}
ask($node, 'RESET synchronous_commit');
waits_not('SET LOCAL', "SET LOCAL synchronous_commit = local; $enqueue");
is(ask($node, 'SHOW synchronous_commit'), 'on', 'SET LOCAL ends with the transaction');
waits('a row behind', $insert);

# The fault is reached after the decision.
my ($out, $err);
$node->psql('postgres', <<"SQL", stdout => \$out, stderr => \$err, on_error_stop => 0);
SET qml.faults = 'enqueue.precommit:error';
BEGIN; $enqueue; COMMIT;
SHOW synchronous_commit;
BEGIN; $insert; SELECT pg_current_wal_insert_lsn() AS lsn \\gset
COMMIT;
SELECT pg_current_wal_flush_lsn() > :'lsn';
SQL
like($err, qr/ERROR:.*enqueue\.precommit/, 'an error between the decision and the commit');
like($out, qr/^on\nt$/m, 'undoes the decision: the setting is what it was, and a row waits');

# ---- standbys

set_config($node, synchronous_standby_names => 'nobody');
wait_for('the setting', sub { ask($node, 'SHOW synchronous_standby_names') eq 'nobody' });
waits_not('a standby that does not answer', $enqueue);
set_config($node, synchronous_standby_names => '');
wait_for('the setting', sub { ask($node, 'SHOW synchronous_standby_names') eq '' });

# ---- what is lost, and what is not

sub new_id
{
	my ($more) = @_;
	return ask($node, q{SELECT qml_enqueue('m', queue => 'fast'} . ($more // '') . ')');
}

sub exists_job
{
	return query($node, "SELECT count(*) FROM qml_job('$_[0]')");
}

# A session that has temporary tables drops them when it ends, and waits for that.
end_sessions($node);
ask($node, $insert);
new_id();
my ($lost, $kept) = (new_id(), undef);
is(ask($node, "SELECT state FROM qml_job('$lost')"), 'enqueued', 'a job');
crash();
is(exists_job($lost), 0, 'is not there after a crash');

($kept, $lost) = (new_id(), undef);
ask($node, "$insert");
$lost = new_id();
crash();
is(exists_job($kept), 1, 'what was before another commit is there');
is(exists_job($lost), 0, 'what came after it is not');

# A job and a row: both are there.
$kept = ask($node, q{WITH made AS (INSERT INTO mark (what) VALUES ('with a job') RETURNING id) SELECT qml_enqueue('m', queue => 'fast') FROM made});
crash();
is(exists_job($kept) . '|' . query($node, q{SELECT count(*) FROM mark WHERE what = 'with a job'}), '1|1', 'a job and a row are both there');

ask($node, "BEGIN; $enqueue");
$kept = new_id();
ask($node, q{PREPARE TRANSACTION 'q'});
crash();
query($node, q{COMMIT PREPARED 'q'});
is(exists_job($kept), 1, 'a prepared job is there');

# ---- attempts

# A claim that is lost, and a worker that does not know.
sub claim
{
	return split /\|/, ask($node, q{SELECT id, attempt FROM qml_fetch('late', '{fast}', lease => '1 h')});
}

sub refuses
{
	my ($id, $attempt, $name) = @_;
	fails_with($node, 'QM003', "SELECT qml_succeed('$id', $attempt)", "$name: the late worker is refused");
	return;
}

query($node, q{SELECT count(qml_delete(id)) FROM qml.job WHERE queue IN ('fast', 'second', 'safe') AND finished_at IS NULL});
foreach my $way ('SIGKILL of all', 'immediate stop', 'SIGKILL of a session', 'restart')
{
	my $made = new_id();
	ask($node, $insert);
	my ($id, $attempt) = claim();
	is("$id|$attempt", "$made|1", "$way: a claim");
	if ($way eq 'SIGKILL of all')
	{
		crash();
	}
	elsif ($way eq 'SIGKILL of a session')
	{
		end_sessions($node);
		my $session = new_session($node);
		my $pid = $session->query_safe('SELECT pg_backend_pid()');
		kill 'KILL', $pid;
		$session->{run}->kill_kill;
		wait_for('the server to be there again',
			sub { !-e "/proc/$pid" && defined try_query($node, 'SELECT 1') });
		settle();
	}
	else
	{
		end_sessions($node);
		kill 'CONT', query($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'}) if $way eq 'restart';
		$node->stop($way eq 'restart' ? 'fast' : 'immediate');
		$node->start;
		settle();
	}
	my $claim = $way eq 'restart' ? 'processing|1|1' : 'enqueued|0|0';
	is(query($node, "SELECT state, attempt, tries FROM qml_job('$id')"), $claim, $way eq 'restart' ? 'is there' : 'is lost');
	query($node, "SELECT qml_release('$id', 1)") if $way eq 'restart';
	my $next = $way eq 'restart' ? 2 : $SKIPPED + 1;
	is(join('|', claim()), "$id|$next", 'the next one has another number');
	is(query($node, "SELECT state, attempt, tries FROM qml_job('$id')"), "processing|$next|1", 'which does not count');
	refuses($id, 1, $way);
	is(ask($node, "SELECT qml_release('$id', $next)"), 't', 'the other one is not');
	is(join('|', claim()), "$id|" . ($next + 1), 'the claim after that skips none');
	is(ask($node, "SELECT qml_succeed('$id', $next + 1)"), 't', 'and is the last');
}

# An end that is lost: the job runs again.
{
	my $id = new_id();
	my ($claimed, $attempt) = claim();
	ask($node, $insert);
	ask($node, "SELECT qml_succeed('$id', $attempt)");
	crash();
	is(query($node, "SELECT state, attempt FROM qml_job('$id')"), "processing|$attempt", 'an end is lost');
	is(ask($node, "SELECT qml_succeed('$id', $attempt)"), 't', 'the worker may say it again');
}

# A job with an id of its own that is lost with its claim, and enqueued anew.  Whether the crash
# would lose it depends on what else is flushed: so it is deleted by hand.
{
	my $id = '00000000-0000-4000-8000-000000000001';
	my $last;
	foreach my $round (1 .. 3)
	{
		is(new_id(", id => '$id'"), $id, "an id of its own, for the $round. time");
		my ($claimed, $attempt) = claim();
		is($claimed, $id, 'is claimed');
		is(query($node, "SELECT tries FROM qml_job('$id')"), 1, 'for the first time');
		is($attempt, ($last // $attempt - $SKIPPED) + $SKIPPED, 'under a number of the next life, whatever the clock says');
		$last = $attempt;
		query($node, "DELETE FROM qml.live WHERE id = '$id'");
		crash();
	}

	# A clean restart loses nothing: so it begins no other life.
	new_id(", id => '$id'");
	my (undef, $attempt) = claim();
	is($attempt, $last + $SKIPPED, 'and once more');
	ask($node, "SELECT qml_discard('$id', $attempt)");
	query($node, "DELETE FROM qml.history WHERE id = '$id'");
	end_sessions($node);
	kill 'CONT', query($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
	$node->restart;
	is(query($node, 'SELECT last_value FROM qml.async_life'), int($attempt / $SKIPPED), 'a restart begins no life');
	settle();
	new_id(", id => '$id'");
	is((claim())[1], $attempt, 'the numbers go on where they were');
	query($node, "DELETE FROM qml.live WHERE id = '$id'");
}

# ---- workers in the database

query($node, <<'SQL');
CREATE FUNCTION writes(payload jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO mark (what) VALUES (payload #>> '{}') $$;
CREATE FUNCTION reads(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT NULL $$;
CREATE FUNCTION crashes(job qml.job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF job.tries < 3 THEN
		EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat > /dev/null; kill -9 $PPID');
	END IF;
END $$;
SELECT qml_register_handler('writes', 'writes(jsonb)'), qml_register_handler('reads', 'reads(jsonb)'),
	qml_register_handler('crashes', 'crashes(qml.job)');
SQL

sub run_job
{
	my ($method, $payload) = @_;
	my $id = ask($node, "SELECT qml_enqueue('$method', to_jsonb('$payload'::text), queue => 'fast')");
	wait_for("the end of $method", sub { ask($node, "SELECT state FROM qml_job('$id')") eq 'succeeded' });
	return $id;
}

run_job('reads', 'first');
{
	my $id = run_job('writes', 'by a job');
	crash();
	is(query($node, "SELECT state FROM qml_job('$id')"), 'succeeded', 'the end of a job that wrote a row is there');
	is(query($node, q{SELECT count(*) FROM mark WHERE what = 'by a job'}), 1, 'and so is the row');
}
{
	my $id = run_job('reads', 'x');
	my $lsn = ask($node, 'SELECT pg_current_wal_insert_lsn()');
	ok(ask($node, "SELECT pg_current_wal_flush_lsn() < '$lsn'") eq 't', 'the end of a job that wrote none is not flushed');
	crash();
	wait_for('the job to run again', sub { query($node, "SELECT state FROM qml_job('$id')") eq 'succeeded' });
	cmp_ok(query($node, "SELECT attempt FROM qml_job('$id')"), '>', $SKIPPED, 'and runs again after the crash');
}
end_sessions($node);
{
	my $id = query($node, q{SELECT qml_enqueue('crashes', queue => 'fast', max_retries => 5)});
	wait_for('the job to end', sub { (try_query($node, "SELECT state FROM qml_job('$id')") // '') eq 'succeeded' });
	is(query($node, "SELECT tries FROM qml_job('$id')"), 3, 'a job that crashes the server counts its attempts');
	stop_wal_writer();
}

# ---- clients do everything at once, and the server is killed over and over

my $ROUNDS = 6;
my $CLIENTS = 4;
my $STEPS = 20_000;
my $dir = PostgreSQL::Test::Utils::tempdir;

query($node, <<'SQL');
SELECT qml_unregister_handler('writes'), qml_unregister_handler('reads'), qml_unregister_handler('crashes');
SELECT qml_create_queue('load', '{"storage": "async", "lease": "300 ms"}');
CREATE TABLE made (id uuid PRIMARY KEY);
CREATE TABLE done (id uuid, attempt int);
-- A job and a row, in either order; and the same for its end.
CREATE FUNCTION make_with_row(first boolean) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
	id uuid;
BEGIN
	IF first THEN
		INSERT INTO made VALUES (gen_random_uuid()) RETURNING made.id INTO id;
		RETURN qml_enqueue('with_row', queue => 'load', id => id);
	END IF;
	id := qml_enqueue('with_row', queue => 'load');
	INSERT INTO made VALUES (id);
	RETURN id;
END $$;
CREATE FUNCTION end_with_row(job uuid, attempt int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM qml_succeed(job, attempt);
	INSERT INTO done VALUES (job, attempt);
	RETURN true;
END $$;
SQL

# One step of a client, as lines for psql.  What it prints was committed.
sub make_step
{
	my ($rows) = @_;
	my $kind = pick(1, 100);
	my $told = sub { return "\\if :ERROR\n\\else\n\\echo $_[0]\n\\endif\n" };

	return "SELECT qml_enqueue('alone', queue => 'load') AS id \\gset\n" . $told->('alone :id') if $kind <= 35;
	return "SELECT make_with_row(" . (pick(0, 1) ? 'true' : 'false') . ") AS id \\gset\n" . $told->('made :id')
	  if $kind <= 45 && $rows;
	my $claim = "SELECT coalesce(min(id::text), 'none') AS id, coalesce(min(attempt), 0) AS attempt FROM qml_fetch('w', '{load}') \\gset\n"
	  . $told->('claim :id :attempt');
	my $end =
		$kind <= 55 && $rows ? "SELECT end_with_row(:'id', :attempt) AS x \\gset\n" . $told->('done :id :attempt')
	  : $kind <= 75          ? "SELECT qml_succeed(:'id', :attempt) AS x \\gset\n"
	  : $kind <= 85          ? "SELECT qml_release(:'id', :attempt) AS x \\gset\n"
	  :                        '';
	return "$claim\\if :ERROR\n\\set id none\n\\endif\n" . ($end eq '' ? '' : "SELECT :'id' <> 'none' AS has \\gset\n\\if :has\n$end\\endif\n");
}

my (%told, %claims);
my $twice = '';

# What a client has printed; the last line may be cut.
sub read_told
{
	my ($file) = @_;
	my %told_now;

	foreach my $line (split /\n/, slurp_file($file))
	{
		my ($what, $id, $attempt) = split / /, $line;
		next if !defined $id || $id !~ /^[0-9a-f-]{36}$/;
		if ($what eq 'claim')
		{
			$twice .= "$id $attempt\n" if $claims{"$id $attempt"}++;
		}
		push @{ $told_now{$what} }, $id;
	}
	return \%told_now;
}

# So many of these are not so, by a condition on t.id.
sub missing
{
	my ($ids, $condition) = @_;
	return 0 if !@{ $ids // [] };
	write_file("$dir/ids", join("\n", @$ids) . "\n");
	return query($node, "CREATE TEMP TABLE t (id uuid); COPY t FROM '$dir/ids'; SELECT count(*) FROM t WHERE NOT ($condition)") =~ s/.*\n//sr;
}

sub write_file
{
	my ($file, $content) = @_;
	open my $fh, '>', $file or die "could not write \"$file\": $!";
	print $fh $content;
	close $fh;
	return;
}

my ($lost_alone, $told_alone) = (0, 0);
my (@made, @done);
foreach my $round (1 .. $ROUNDS)
{
	# Rows of others flush what came before them: without any, much is lost.
	my $rows = $round % 2;
	my @clients;

	foreach my $client (1 .. $CLIENTS)
	{
		write_file("$dir/$client.sql", join('', map { make_step($rows) } 1 .. $STEPS));
		push @clients, IPC::Run::start(
			[ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-f', "$dir/$client.sql" ],
			'<', \undef, '>', "$dir/$client.out", '2>', "$dir/$client.err");
	}
	sleep pick(1500, 2500) / 1000;
	crash();
	IPC::Run::finish($_) foreach @clients;
	foreach my $client (1 .. $CLIENTS)
	{
		my $now = read_told("$dir/$client.out");

		push @made, @{ $now->{made} // [] };
		push @done, @{ $now->{done} // [] };
		$told_alone += @{ $now->{alone} // [] };
		$lost_alone += missing($now->{alone}, 'EXISTS (SELECT FROM qml.job j WHERE j.id = t.id)');
	}
	is(missing(\@made, 'EXISTS (SELECT FROM made m WHERE m.id = t.id) AND EXISTS (SELECT FROM qml.job j WHERE j.id = t.id)'),
		0, "round $round: jobs with a row are there, and so are their rows");
	is(missing(\@done, q{EXISTS (SELECT FROM done d WHERE d.id = t.id) AND EXISTS (SELECT FROM qml.job j WHERE j.id = t.id AND j.state = 'succeeded')}),
		0, "round $round: ends with a row are there, and so are their rows");
	is(query($node, q{SELECT count(*) FROM (SELECT id FROM made EXCEPT SELECT id FROM qml.job) x}), 0, 'no row is without its job');
	is(query($node, q{SELECT count(*) FROM (SELECT id FROM qml.job WHERE method = 'with_row' EXCEPT SELECT id FROM made) x}), 0, 'no job is without its row');
	is(query($node, q{SELECT count(*) FROM done d WHERE NOT EXISTS (SELECT FROM qml.job j WHERE (j.id, j.attempt, j.state) = (d.id, d.attempt, 'succeeded'))}), 0,
		'no row is without the end of its job');
}
note(sprintf 'jobs: %d alone, %d of them lost; %d with a row, %d ended with one; %d claims', $told_alone, $lost_alone, scalar @made, scalar @done, scalar keys %claims);
is($twice, '', 'no number of an attempt was given twice');
cmp_ok(scalar @made, '>', 100, 'there were jobs with a row');
cmp_ok(scalar @done, '>', 10, 'and ends with one');
cmp_ok($lost_alone, '>', 0, 'of jobs without a row some were lost');
cmp_ok($lost_alone, '<', $told_alone, 'and some were not');

# ---- where the library is not loaded with the server, its callback is not the last: commits wait

my $plain = new_node('plain', conf => "fsync = on\nautovacuum = off\n");
$plain->psql('postgres', q{SELECT qml_create_queue('fast', '{"storage": "async"}'), qml_alter_queue('fast', '{"storage": "durable"}'),
	qml_alter_queue('fast', '{"storage": "async"}')}, stderr => \$err);
is(() = $err =~ /NOTICE:  jobs of queue "fast" are as durable as those of other queues$/mg, 2, 'without preload a notice says so');
{
	my $pid = query($plain, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
	kill 'STOP', $pid;
	my $lsn = ask($plain, "BEGIN; $enqueue; SELECT pg_current_wal_insert_lsn()") =~ s/.*\n//sr;
	ask($plain, 'COMMIT');
	is(ask($plain, "SELECT pg_current_wal_flush_lsn() > '$lsn'"), 't', 'and the commit of a job waits');
	kill 'CONT', $pid;
}

done_testing();
