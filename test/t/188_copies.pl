# Copies of databases with queues of all storage classes: by CREATE DATABASE ... TEMPLATE, by
# pg_upgrade, as a base backup, as a standby that is promoted.  Jobs of unlogged queues are in the
# first two and not in the others; all others are in each.  All of a copy is given, in order;
# no number of an attempt is given in the copy that the original gives; late workers are refused;
# and the numbers of jobs are those of the rows.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlCounts;
use QmlTest;
use Test::More;

# Queue: its class.  Each has so many jobs that are ready, with numbers that cannot be had by reading
# few pages.
my %CLASS = (d => 'durable', a => 'async', u => 'unlogged');
my $READY = 1500;
my @QUEUES = sort keys %CLASS;
my $dir = PostgreSQL::Test::Utils::tempdir;

my $CONF = <<'CONF';
autovacuum = off
qml.workers = 0
CONF
my $HELPERS = $COUNT_HELPERS . <<'SQL';
-- The state of all jobs of a queue, as one text.
CREATE FUNCTION jobs_of(queue text) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', count(*), md5(string_agg(j::text, E'\n' ORDER BY id))) FROM qml.job j WHERE j.queue = jobs_of.queue
$$;
CREATE TABLE given (id uuid, attempt int, tries int, queue text);
-- Fetches until a fetch gives nothing, into given; says what differs from what was ready.
CREATE PROCEDURE drain(queue text, INOUT result text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
	expected uuid[] := ARRAY(SELECT j.id FROM qml.job j
		WHERE j.queue = drain.queue AND j.state = 'enqueued' ORDER BY j.priority DESC, j.id);
	ids uuid[] := '{}';
	got uuid[];
BEGIN
	LOOP
		WITH f AS (INSERT INTO given SELECT f.id, f.attempt, f.tries, f.queue FROM qml_fetch('late', drain.queue, 100) f RETURNING given.id)
		SELECT array_agg(f.id) INTO got FROM f;
		COMMIT;
		EXIT WHEN got IS NULL;
		ids := ids || got;
	END LOOP;
	result := cardinality(ids) || CASE WHEN ids = expected THEN ' in order' ELSE ' instead of ' || cardinality(expected) END;
END $$;
-- The answer to a call that a worker makes.
CREATE FUNCTION answer(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE call;
	RETURN 'accepted';
EXCEPTION WHEN SQLSTATE 'QM001' OR SQLSTATE 'QM003' THEN
	RETURN SQLSTATE;
END $$;
SQL

sub own_id
{
	my ($queue) = @_;
	return sprintf '00000000-0000-7000-8000-0000000000%02x', ord $queue;
}

# A job whose lease does not end, of its caller's id and of an id that qml has made.
sub claim
{
	my ($node, $dbname, $queue) = @_;
	my $own = own_id($queue);
	return split /\n/, ask($node, "SELECT qml_enqueue('own', queue => '$queue', id => '$own', priority => 9), qml_enqueue('other', queue => '$queue', priority => 9) \\g /dev/null\n"
		. "SELECT id, attempt FROM qml_fetch('w', '$queue', 2)", $dbname);
}

# Jobs in all states, in each queue.
sub fill
{
	my ($node, $dbname) = @_;
	query($node, 'CREATE DATABASE ' . $dbname);
	query($node, "CREATE EXTENSION qml; $HELPERS", $dbname);
	wait_for_process($node, 'scheduler', $dbname);
	foreach my $queue (@QUEUES)
	{
		query($node, <<"SQL", $dbname);
SELECT qml_create_queue('$queue', '{"storage": "$CLASS{$queue}", "lease": "1 day", "retry": {"strategy": "fixed", "delay": "1 d"}}');
SELECT count(qml_enqueue('m', queue => '$queue', priority => n % 3)) FROM generate_series(1, $READY) n;
SELECT count(qml_enqueue('m', queue => '$queue', delay => '1 d')) FROM generate_series(1, 3) n;
SELECT count(qml_succeed(id, attempt, '{"done": true}')) FROM qml_fetch('w', '$queue', 20);
SELECT count(qml_fail(id, attempt, 'no', retry => false)) FROM qml_fetch('w', '$queue', 4);
SELECT count(qml_fail(id, attempt, 'no')) FROM qml_fetch('w', '$queue', 5);
SELECT count(qml_delete(id)) FROM qml_fetch('w', '$queue', 6);
SQL
	}
	wait_for('all jobs to be counted', sub { is_counted($node, $dbname) });
	return;
}

my $LEFT = $READY - 20 - 4 - 5 - 6;

sub agrees
{
	my ($node, $dbname, $name, $is_counted) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	if ($is_counted)
	{
		wait_for('all jobs to be counted', sub { is_counted($node, $dbname) });
	}
	else
	{
		ok(!is_counted($node, $dbname), "$name: rows are counted");
	}
	return is(ask($node, 'SELECT differences()', $dbname), 'none', "$name: the numbers are those of the rows");
}

# All that a queue does, after which its numbers are right.
my $works = 0;

sub works
{
	my ($node, $dbname, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $method = 'work' . ++$works;
	foreach my $queue (@QUEUES)
	{
		query($node, "SELECT count(qml_enqueue('$method', queue => '$queue', priority => 20)) FROM generate_series(1, 9)", $dbname);
		is(query($node, <<"SQL", $dbname), '4|3', "$name: jobs of queue $queue are done");
SELECT (SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', '$queue', 4, methods => '{$method}')),
	(SELECT count(qml_fail(id, attempt, 'no', retry => false)) FROM qml_fetch('w', '$queue', 3, methods => '{$method}'))
SQL
		is(query($node, "SELECT count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'failed') FROM qml.job WHERE queue = '$queue' AND method = '$method'", $dbname),
			'4|3', "$name: and are kept");
	}
	agrees($node, $dbname, "$name, after work", 1);
	return;
}

# All that is ready is given, in order; returns what was given, by "id attempt".
sub drains
{
	my ($node, $dbname, $name, %count) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $queue (@QUEUES)
	{
		is(query($node, "CALL drain('$queue')", $dbname), "$count{$queue} in order", "$name: what is ready in queue $queue is given");
	}
	return map { $_ => 1 } split /\n/, query($node, q{SELECT id || ' ' || attempt FROM given}, $dbname);
}

sub refused
{
	my ($node, $dbname, $name, $sqlstate, @claims) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $claim (@claims)
	{
		my ($id, $attempt) = split /\|/, $claim;
		is(query($node, "SELECT answer('SELECT $_(''$id'', $attempt)')", $dbname), $sqlstate, "$name: $_ of attempt $attempt of a worker from before")
		  foreach 'qml_heartbeat', 'qml_release';
	}
	return;
}

# A job that has the caller's id is made anew: no number of an earlier claim is given.
sub made_anew
{
	my ($node, $dbname, $name, @claims) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $own = own_id('u');
	my ($last) = sort { $b <=> $a } map { /^\Q$own\E\|(\d+)$/ ? $1 : () } @claims;
	query($node, "SELECT qml_enqueue('own', queue => 'u', id => '$own', priority => 50)", $dbname);
	my ($id, $attempt) = split /\|/, query($node, "SELECT id, attempt FROM qml_fetch('w', 'u')", $dbname);
	is($id, $own, "$name: a job is made anew under its id");
	cmp_ok($attempt, '>', $last, "$name: with other numbers than those up to $last");
	refused($node, $dbname, $name, 'QM003', grep { /^\Q$own\E/ } @claims);
	return;
}

sub pg_upgrade
{
	my ($old, $new) = @_;
	my $bindir = $old->config_data('--bindir');
	my $said = '';

	end_sessions($old);
	$old->stop;
	my $ok = IPC::Run::run(
		[
			'pg_upgrade', '--no-sync', '-b', $bindir, '-B', $bindir, '-d', $old->data_dir,
			'-D', $new->data_dir, '-s', $new->host, '-p', $old->port, '-P', $new->port
		],
		'<', \undef, '>', \$said, '2>', \$said,
		init => sub { chdir $dir });
	ok($ok, 'pg_upgrade') or diag(substr $said, -2000);
	$new->start;
	return;
}

my $node = background_node('origin', init => { allows_streaming => 1 }, conf => $CONF);
fill($node, 'source');
my @claims = map { claim($node, 'source', $_) } @QUEUES;
is(scalar @claims, 6, 'there are claims');
agrees($node, 'source', 'the original', 1);
my %original = map { $_ => query($node, "SELECT jobs_of('$_')", 'source') } @QUEUES;
my $numbers = "scheduled 3, enqueued $LEFT, processing 2, awaiting_retry 5, succeeded 20, failed 4, deleted 6";

# ---- what is not adopted, and then is

# What a copy has of each queue; before and after it is adopted.
sub check_copy
{
	my ($server, $dbname, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(query($server, "SELECT jobs_of('$_')", $dbname), $original{$_}, "$name: the jobs of queue $_ are as they were") foreach @QUEUES;
	agrees($server, $dbname, "$name, before it is adopted", 0);
	foreach my $queue (@QUEUES)
	{
		fails_with($server, '55000', "SELECT * FROM qml_fetch('w', '$queue')", "$name: queue $queue gives nothing before that", dbname => $dbname);
		is(ask($server, "SELECT string_agg(state || ' ' || count, ', ' ORDER BY state) FROM qml_queue_counts() WHERE queue = '$queue'", $dbname),
			$numbers, "$name: the numbers of queue $queue");
	}
	fails_with($server, '55000', 'SELECT qml_maintain()', "$name: nothing is maintained", dbname => $dbname);

	query($server, 'SELECT qml_adopt()', $dbname);
	is(query($server, q{SELECT count(*) FROM qml.job WHERE state = 'processing'}, $dbname), 0, "$name: adopted, no claim is left");
	wait_for_process($server, 'scheduler', $dbname);
	agrees($server, $dbname, "$name, adopted", 1);
	refused($server, $dbname, $name, 'QM003', @claims);
	my %given = drains($server, $dbname, $name, map { $_ => $LEFT + 2 } @QUEUES);
	is(query($server, "SELECT string_agg(DISTINCT format('%s: %s', queue, tries), ', ' ORDER BY format('%s: %s', queue, tries)) FROM given", $dbname),
		'a: 1, a: 2, d: 1, d: 2, u: 1, u: 2', "$name: the numbers that were skipped do not count as tries");
	agrees($server, $dbname, "$name, when all is given", 1);
	works($server, $dbname, $name);
	end_sessions($server);
	return %given;
}

my %given;
foreach my $strategy ('wal_log', 'file_copy')
{
	end_sessions($node);
	query($node, "CREATE DATABASE $strategy TEMPLATE source STRATEGY $strategy");
	$given{$strategy} = { check_copy($node, $strategy, "TEMPLATE, $strategy") };
	is(query($node, "SELECT jobs_of('$_')", 'source'), $original{$_}, "TEMPLATE, $strategy: the original has not changed in queue $_") foreach @QUEUES;
	agrees($node, 'source', 'the original', 1);
}


# ---- pg_upgrade, here to the same version; it leaves the original as it was

{
	my $upgraded = background_node('upgraded', stopped => 1, conf => $CONF);
	pg_upgrade($node, $upgraded);
	$given{pg_upgrade} = { check_copy($upgraded, 'source', 'pg_upgrade') };
	kill_server($upgraded);
	start_again($upgraded);
	is(query($upgraded, "SELECT count(*) > 0 FROM qml.job WHERE queue = '$_'", 'source'), $_ eq 'u' ? 'f' : 't', "pg_upgrade, then a crash: jobs of queue $_")
	  foreach @QUEUES;
	wait_for_process($upgraded, 'scheduler', 'source');
	made_anew($upgraded, 'source', 'pg_upgrade, then a crash', @claims);
	works($upgraded, 'source', 'pg_upgrade, then a crash');
	end_sessions($upgraded);
	$upgraded->stop;
	$node->start;
	wait_for_process($node, 'scheduler', 'source');
	agrees($node, 'source', 'the original, started again', 1);
	is(query($node, "SELECT jobs_of('$_')", 'source'), $original{$_}, "the original, started again: the jobs of queue $_") foreach @QUEUES;
}

# ---- a base backup that is started, a standby that is promoted

# One that the server's crash comes upon before it is adopted.
end_sessions($node);
query($node, 'CREATE DATABASE early TEMPLATE source STRATEGY wal_log');

$node->backup('copy');
my $backup = node_of_backup('backup', $node, 'copy');
my $standby = node_of_backup('standby', $node, 'copy', has_streaming => 1);
$standby->start;
my $PREPARED = 7;
query($node, <<"SQL", 'source');
BEGIN;
SELECT count(qml_enqueue('m', queue => queue)) FROM unnest('{d,a,u}'::text[]) queue, generate_series(1, $PREPARED);
SELECT count(qml_delete(id)) FROM qml.job WHERE state = 'scheduled' AND queue IN ('d', 'a');
PREPARE TRANSACTION 'moved';
SQL
$node->wait_for_catchup($standby, 'replay');
is(query($standby, 'SELECT differences()', 'source'), 'none', 'on a standby the numbers are those of the rows');
is(query($standby, "SELECT jobs_of('$_')", 'source'), $original{$_}, "on a standby the jobs of queue $_ are there") foreach 'd', 'a';
is(query($standby, "SELECT count(*) FROM qml.job WHERE queue = 'u'", 'source'), 0, 'and none of an unlogged queue');

$standby->promote;

# The original goes on: what it gives, no copy may give.
$given{source} = { drains($node, 'source', 'the original', map { $_ => $LEFT } @QUEUES) };
cmp_ok(scalar keys %{ $given{source} }, '==', 3 * $LEFT, 'the original has given so many');
query($node, q{ROLLBACK PREPARED 'moved'}, 'source');
agrees($node, 'source', 'the original, when a prepared transaction is rolled back', 1);

# A server that has what a recovery leaves of the database.
sub check_recovered
{
	my ($server, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for('the end of the recovery', sub { query($server, 'SELECT pg_is_in_recovery()') eq 'f' });
	wait_for_process($server, 'scheduler', 'source');
	is(query($server, "SELECT jobs_of('$_')", 'source'), $original{$_}, "$name: the jobs of queue $_ are as they were") foreach 'd', 'a';
	is(query($server, "SELECT count(*) FROM qml.job WHERE queue = 'u'", 'source'), 0, "$name: and none of an unlogged queue is there");
	agrees($server, 'source', $name, 1);
	foreach my $claim (@claims)
	{
		my ($id, $attempt) = split /\|/, $claim;
		my $is_there = query($server, "SELECT count(*) FROM qml_job('$id')", 'source');
		is(query($server, "SELECT answer('SELECT qml_heartbeat(''$id'', $attempt)')", 'source'), $is_there ? 'accepted' : 'QM001',
			"$name: the worker of attempt $attempt is heard if its claim is there");
	}
	my %given = drains($server, 'source', $name, d => $LEFT, a => $LEFT, u => 0);
	made_anew($server, 'source', $name, @claims);
	agrees($server, 'source', "$name, when all is given", 1);
	works($server, 'source', $name);
	return %given;
}

$given{promotion} = { check_recovered($standby, 'promotion') };
query($standby, 'TRUNCATE given', 'source');
query($standby, q{SELECT count(qml_delete(id)) FROM qml.job WHERE state = 'enqueued'; COMMIT PREPARED 'moved'}, 'source');
agrees($standby, 'source', 'promotion, when a transaction is committed that was prepared before it', 1);
drains($standby, 'source', 'promotion, then', d => $PREPARED, a => $PREPARED, u => 0);
agrees($standby, 'source', 'promotion, then', 1);
end_sessions($standby);
$standby->stop;

# The end of the recovery is a new timeline.
$backup->append_conf('postgresql.conf', "restore_command = 'false'\n");
$backup->set_recovery_mode;
$backup->start;
$given{backup} = { check_recovered($backup, 'base backup') };
end_sessions($backup);
$backup->stop;

# ---- a crash of the original, of copies that are adopted, and of one that is not

query($node, 'CHECKPOINT');
kill_server($node);
start_again($node);
wait_for_process($node, 'scheduler', 'source');
agrees($node, 'source', 'the original, after a crash', 1);
is(query($node, "SELECT jobs_of('$_')", 'early'), $original{$_}, "a copy, after a crash: the jobs of queue $_") foreach 'd', 'a';
agrees($node, 'early', 'a copy, after a crash', 0);
query($node, 'SELECT qml_adopt()', 'early');
wait_for_process($node, 'scheduler', $_) foreach 'early', 'wal_log', 'file_copy';
foreach my $dbname ('source', 'early', 'wal_log', 'file_copy')
{
	is(query($node, "SELECT count(*) FROM qml.job WHERE queue = 'u'", $dbname), 0, "$dbname, after a crash: no job of an unlogged queue is there");
	refused($node, $dbname, "$dbname, after a crash", 'QM001', grep { /^\Q@{[own_id('u')]}\E/ } @claims);
	made_anew($node, $dbname, "$dbname, after a crash", @claims);
}
$given{early} = { drains($node, 'early', 'a copy, after a crash', d => $LEFT + 2, a => $LEFT + 2, u => 0) };
works($node, $_, "$_, after a crash") foreach 'source', 'early', 'wal_log', 'file_copy';

foreach my $copy (sort grep { $_ ne 'source' } keys %given)
{
	cmp_ok(scalar keys %{ $given{$copy} }, '>=', 2 * $LEFT, "$copy: so many attempts were given");
	is(scalar(grep { $given{source}{$_} } keys %{ $given{$copy} }), 0, "$copy: none that the original has given");
}
foreach my $server ($node, $standby, $backup)
{
	unlike(slurp_file($server->logfile), qr/PANIC|TRAP|qml (launcher|scheduler).* failed|wrong, and w/, 'nothing failed in ' . $server->name);
}
end_sessions($node);
$node->stop;

done_testing();
