# Lost jobs are found by the claims that run, which shared memory knows, and not by reading
# the jobs that wait: soon after the lease ends, whatever became of the claim meanwhile.  Where
# not all claims are known, all jobs are read, and nothing is lost.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $WAITING = 200_000;
my $CONF = <<'CONF';
autovacuum = off
max_prepared_transactions = 10
qml.workers = 0
CONF

my $node = background_node('leases', variant => 'faults', conf => $CONF);
wait_for_process($node, 'scheduler', 'postgres');
query($node, <<"SQL");
SELECT count(*) FROM generate_series(1, 20) n,
	qml_enqueue_many('waits', array_fill(jsonb_build_object('n', n), ARRAY[$WAITING / 20]), 'waiting');
-- Pages that a call of qml_reclaim() touches, and what it returns.
CREATE FUNCTION look(OUT pages int, OUT reclaimed int) LANGUAGE plpgsql AS \$\$
DECLARE
	plan jsonb;
	said text;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT set_config(''test.reclaimed'', qml_reclaim()::text, false)' INTO plan;
	plan := plan -> 0 -> 'Plan';
	pages := (plan ->> 'Shared Hit Blocks')::int + (plan ->> 'Shared Read Blocks')::int;
	reclaimed := current_setting('test.reclaimed')::int;
END \$\$;
SQL
my $PAGES = query($node, q{SELECT pg_relation_size('qml.live') / current_setting('block_size')::int});

# How often qml.live was read through, by all sessions that go on and the scheduler, which
# reports after each transaction.
sub scans
{
	ask($node, 'SELECT pg_stat_force_next_flush()');
	return ask($node, q{SELECT seq_scan FROM pg_stat_user_tables WHERE relid = 'qml.live'::regclass});
}

# The pages of a look by a client.
sub pages
{
	return (split /\|/, ask($node, 'SELECT * FROM look()'))[0];
}

# All claims are known as soon as a look does not read all jobs.
sub wait_known
{
	my ($name) = @_;
	wait_for($name, sub { pages() < $PAGES / 4 });
	return;
}

# Claims a new job for so long; its id.
sub claim
{
	my ($lease, %opt) = @_;
	my $session = $opt{session};
	my $ask = sub { return $session ? $session->query_safe($_[0]) : ask($node, $_[0]) };
	my $queue = $opt{queue} // 'leased';

	ask($node, "SELECT qml_enqueue('m', queue => '$queue', max_retries => 99)");
	return $ask->("SELECT id FROM qml_fetch('w', ARRAY['$queue'], lease => '$lease')");
}

sub state_of
{
	my ($id) = @_;
	return ask($node, "SELECT concat_ws('|', state, attempt, errors -> -1 ->> 'error_type') FROM qml_job('$id')");
}

sub wait_reclaimed
{
	my ($id, $name, $outcome) = @_;
	wait_for($name, sub { state_of($id) !~ /^processing/ });
	is(state_of($id), $outcome // 'enqueued|1|lease_expired', $name);
	ask($node, "SELECT qml_delete('$id')");
	return;
}

# The scheduler comes round: it reclaims a job that is lost later than all before.
sub come_round
{
	my $id = claim('10 ms', queue => 'round');
	wait_for('the scheduler to come round', sub { state_of($id) !~ /^processing/ });
	ask($node, "SELECT qml_delete('$id')");
	return;
}

# ---- a look

wait_known('all claims are known');
come_round();
my $scans = scans();
cmp_ok(pages(), '<=', 20, 'a look that finds nothing');
{
	my @late;
	foreach (1 .. 20)
	{
		my $id = claim('300 ms');
		wait_for('the lease to be reclaimed', sub { state_of($id) !~ /^processing/ });
		push @late, ask($node, "SELECT extract(epoch FROM ready_at - started_at) * 1000 - 300 FROM qml.live WHERE id = '$id'");
		ask($node, "SELECT qml_delete('$id')");
	}
	note(sprintf 'a lease is back %.0f ms after its end (p50), %.0f (most)', percentile(50, @late), percentile(100, @late));
	cmp_ok(percentile(50, @late), '<', 1000, 'a lost job is back soon after its lease');
	cmp_ok((sort { $a <=> $b } @late)[0], '>=', 0, 'and not before');
}

# ---- heartbeats

{
	my $id = claim('1 s');
	my $end = ask($node, "SELECT qml_heartbeat('$id', 1, '1 h')");
	wait_for('the first end', sub { ask($node, "SELECT clock_timestamp() > '$end'::timestamptz - interval '1 h' + interval '1500 ms'") eq 't' });
	is(state_of($id), 'processing|1', 'a heartbeat extends the lease');
	ask($node, "SELECT qml_heartbeat('$id', 1, '50 ms')");
	wait_reclaimed($id, 'a shorter one ends it');
}
{
	# The row is held: the heartbeat is in memory alone, and counts.
	my $id = claim('1 s');
	my $session = new_session($node);
	$session->query_safe("BEGIN; SELECT qml_progress('$id', 1, '1')");
	my $end = ask($node, "SELECT qml_heartbeat('$id', 1, '4 s')");
	isnt($end, '', 'a heartbeat beside a transaction that holds the row');
	wait_for('the end in the row', sub { ask($node, "SELECT clock_timestamp() > '$end'::timestamptz - interval '2 s'") eq 't' });
	is(state_of($id), 'processing|1', 'it counts while the row is held');
	$session->query_safe('COMMIT');
	$session->quit;
	is(state_of($id), 'processing|1', 'and afterwards');
	wait_reclaimed($id, 'until its end');
	is(ask($node, "SELECT clock_timestamp() > '$end'"), 't', 'not before');
}

# ---- what is rolled back

{
	my $session = new_session($node);
	my ($undone, $kept) = map { ask($node, "SELECT qml_enqueue('m', queue => 'sub$_')") } 1, 2;
	$session->query_safe(<<'SQL');
BEGIN;
SAVEPOINT a;
SELECT qml_fetch('w', '{sub1}', lease => '10 ms');
ROLLBACK TO a;
SAVEPOINT b;
SELECT qml_fetch('w', '{sub2}', lease => '100 ms');
RELEASE b;
COMMIT;
SQL
	is(state_of($undone), 'enqueued|0', 'a claim in a subtransaction that is rolled back');
	$session->query_safe("BEGIN; SELECT qml_fetch('w', '{sub1}', lease => '10 ms'); ROLLBACK");
	wait_reclaimed($kept, 'one that is kept');
	is(ask($node, "SELECT count(*) FROM qml_fetch('w', '{sub1}', lease => '1 h')"), 1, 'the other job is free');
	come_round();
	is(state_of($undone), 'processing|1', 'and what was rolled back does not end its claim');

	# An end that is rolled back leaves the claim as it was: at once, and when the commit fails.
	my $id = claim('1 s');
	$session->query_safe("BEGIN; SELECT qml_succeed('$id', 1); ROLLBACK");
	wait_reclaimed($id, 'an end that is rolled back');
	$id = claim('1 s');
	my (undef, undef, $err) = $node->psql('postgres',
		"SET qml.faults = 'finish.before_commit:error'; SELECT qml_succeed('$id', 1)");
	like($err, qr/qml fault at "finish.before_commit"/, 'a commit fails');
	is(state_of($id), 'processing|1', 'the job is held');
	wait_reclaimed($id, 'an end whose commit fails');
	$id = claim('1 s');
	$node->psql('postgres', "SET qml.faults = 'finish.before_commit:error'; SELECT qml_heartbeat('$id', 1, '1 h')", stderr => \$err);
	like($err, qr/qml fault at "finish.before_commit"/, 'a commit fails');
	wait_reclaimed($id, 'a heartbeat whose commit fails');
	$session->quit;
}

# ---- prepared transactions

sub prepare
{
	my ($name, $sql) = @_;
	query($node, "BEGIN; $sql; PREPARE TRANSACTION '$name'");
	return;
}

{
	my @ids = map { ask($node, "SELECT qml_enqueue('m', queue => 'prepared$_')") } 1 .. 3;
	prepare("p$_", "SELECT qml_fetch('w', '{prepared$_}', lease => '100 ms')") foreach 1, 2;
	prepare('p3', "SELECT qml_fetch('w', '{prepared3}', lease => '1 h'); SELECT qml_enqueue('m', queue => 'new'); SELECT qml_fetch('w', '{new}', lease => '100 ms')");
	come_round();
	sleep 1; # the lease is over while it is not known whether there is one
	query($node, "COMMIT PREPARED 'p1'");
	query($node, "ROLLBACK PREPARED 'p2'");
	query($node, "COMMIT PREPARED 'p3'");
	wait_reclaimed($ids[0], 'a claim that is prepared and committed');
	is(state_of($ids[1]), 'enqueued|0', 'one that is rolled back');
	is(state_of($ids[2]), 'processing|1', 'one whose lease lasts');
	wait_reclaimed(ask($node, "SELECT id FROM qml.live WHERE method = 'm' AND queue_id = (SELECT id FROM qml.queue_data WHERE name = 'new')"),
		'one of a job that the same transaction has enqueued');

	my ($ends, $beats, $other) = (claim('1 s'), claim('1 s'), claim('1 h'));
	prepare('ends', "SELECT qml_succeed('$ends', 1), qml_heartbeat('$beats', 1, '1 h')");
	prepare('short', "SELECT qml_heartbeat('$other', 1, '50 ms')");
	come_round();
	sleep 1;
	query($node, "ROLLBACK PREPARED 'ends'");
	query($node, "COMMIT PREPARED 'short'");
	wait_reclaimed($ends, 'an end that is prepared and rolled back');
	wait_reclaimed($beats, 'so is a heartbeat');
	wait_reclaimed($other, 'a shorter one that is committed');
}

# ---- sessions and servers

{
	my $session = new_session($node);
	# More than a session that ends leaves one by one.
	ask($node, q{SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[300]), 'bound', max_retries => 9)});
	is($session->query_safe(q{SELECT count(*) FROM qml_fetch('w', '{bound}', 300, '0')}), 300, 'a session holds jobs');
	come_round();
	is(ask($node, "SELECT count(*) FROM qml.job WHERE queue = 'bound' AND state = 'processing'"), 300, 'while it lives');
	$scans = scans();
	$session->quit;
	my $back = 0;
	wait_for('all of them to be reclaimed',
		sub { ($back += ask($node, q{SELECT count(*) FROM qml_fetch('w', '{bound}', 300, '1 h')})) == 300 });
	is(scans(), $scans, 'they are, without reading all jobs');
}
{
	set_config($node, 'qml.dead_server_timeout' => '5 s');
	my ($dead, $alive, $told) = map { ask($node, "SELECT qml_register_server('$_')") } qw(dead alive told);
	foreach my $server ($dead, $alive, $told)
	{
		my ($queue) = $server =~ /^(\w+)/;
		ask($node, "SELECT count(qml_enqueue('m', queue => '$queue', max_retries => 9)) FROM generate_series(1, 20)");
		is(ask($node, "SELECT count(*) FROM qml_fetch('$server/w', '{$queue}', 20, '1 day')"), 20, "the server $queue holds jobs");
	}
	$scans = scans();
	ask($node, "UPDATE qml.server_data SET heartbeat_at = CASE id WHEN '$dead' THEN now() - interval '1 h' ELSE 'infinity' END");
	wait_for('the jobs of the dead one', sub { ask($node, "SELECT count(*) FROM qml_fetch('w', '{dead}', 20, '1 h')") > 0 });
	is(ask($node, "SELECT qml_reclaim_server('$told')"), 20, 'those of one that is given up');
	come_round();
	is(scans(), $scans, 'all jobs are not read for that');
	is(ask($node, "SELECT count(*) FROM qml.job WHERE queue = 'alive' AND state = 'processing'"), 20, 'those of a live one stay');
	# A client gives a server up, and reclaims one of its jobs: the scheduler does the rest.
	my $left = ask($node, "SELECT qml_register_server('left')");
	ask($node, "SELECT count(qml_enqueue('m', queue => 'left', max_retries => 9)) FROM generate_series(1, 20)");
	ask($node, "SELECT count(*) FROM qml_fetch('$left/w', '{left}', 20, '1 day')");
	ask($node, "BEGIN; UPDATE qml.server_data SET heartbeat_at = now() - interval '1 h' WHERE id = '$left'; SELECT qml_reclaim(1); COMMIT");
	my $began = time;
	wait_for('the jobs that a client has left', sub { ask($node, "SELECT count(*) FROM qml.job WHERE queue = 'left' AND state = 'processing'") == 0 });
	cmp_ok(time - $began, '<', 30, 'they come back at once');
	ask($node, q{SELECT count(qml_delete(id)) FROM qml.job WHERE queue = 'left'});
	# Of what was held when the server died.
	my $server = ask($node, "SELECT qml_register_server('later')");
	ask($node, "SELECT count(qml_enqueue('m', queue => 'later', max_retries => 9)) FROM generate_series(1, 2)");
	ask($node, "SELECT qml_fetch('$server/w', '{later}', 2, '1 day')");
	my $holder = new_session($node);
	$holder->query_safe("BEGIN; SELECT FROM qml.live WHERE server = '$server' LIMIT 1 FOR UPDATE");
	is(ask($node, "SELECT qml_reclaim_server('$server')"), 1, 'a row is held');
	$holder->query_safe('COMMIT');
	$holder->quit;
	is(ask($node, 'SELECT qml_reclaim()'), 1, 'the job is found by the next look');
}

# ---- many at once, by a client

set_config($node, 'qml.enable_scheduler' => 'off');
$node->poll_query_until('postgres', q{SELECT current_setting('qml.enable_scheduler') = 'off'}) or die;
ask($node, q{SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1000]), 'thousand')});
is(ask($node, q{SELECT count(*) FROM qml_fetch('w', '{thousand}', 1000, '1 ms')}), 1000, 'a thousand claims');
sleep 0.01;
{
	my $before = scans();
	my $start = time;
	is(ask($node, 'SELECT qml_reclaim(300)'), 300, 'a client reclaims as many as it wants');
	is(ask($node, 'BEGIN; SELECT qml_reclaim(); ROLLBACK'), 700, 'what is rolled back');
	my ($pages, $count) = split /\|/, ask($node, 'SELECT * FROM look()');
	note(sprintf '1,000 are reclaimed in %.0f ms', (time - $start) * 1000);
	is($count, 700, 'is there again');
	is(scans(), $before, 'all jobs are not read');
	is(ask($node, 'SELECT qml_reclaim()'), 0, 'then there is none');
}
{
	my $id = claim('1 ms');
	sleep 0.01;
	my ($old, $own) = (new_session($node), new_session($node));
	is($own->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT qml_reclaim()"), 1, 'also with an old snapshot');
	is(ask($node, 'SELECT qml_reclaim()'), 0, 'a row that somebody changes is left');
	$own->query_safe('ROLLBACK');
	is(ask($node, 'SELECT qml_reclaim()'), 1, 'and found when that is rolled back');
	ask($node, "SELECT qml_enqueue('m', queue => 'own')");
	is($own->query_safe("BEGIN; SELECT count(*) FROM qml_fetch('w', '{own}', lease => '1 us')"), 1, 'a claim');
	is($own->query_safe('SELECT qml_reclaim()'), 1, 'is reclaimed by the transaction that has made it');
	$own->query_safe('COMMIT');
	$_->quit foreach $old, $own;
	ask($node, "SELECT qml_delete('$id')");
}
set_config($node, 'qml.enable_scheduler' => undef);
$node->poll_query_until('postgres', q{SELECT current_setting('qml.enable_scheduler') = 'on'}) or die;

# ---- what SQL writes

{
	my $id = claim('1 h');
	my $session = new_session($node);
	is($session->query_safe("BEGIN; UPDATE qml.live SET lease_expires_at = now() - interval '1 s' WHERE id = '$id'; SELECT qml_reclaim()"),
		1, 'what the transaction itself has written by SQL is found');
	$session->query_safe('ROLLBACK');
	$session->quit;
	is(state_of($id), 'processing|1', 'and rolled back');
	ask($node, "UPDATE qml.live SET lease_expires_at = now() - interval '1 s' WHERE id = '$id'");
	wait_reclaimed($id, 'what others have is found by reading all jobs');
	wait_known('all claims are known again');
}
{
	# Nobody tells of it: there is a net.
	my $id = claim('1 h');
	my $offset = -s $node->logfile;
	query($node, "ALTER TABLE qml.live DISABLE TRIGGER note_sql;
		UPDATE qml.live SET lease_expires_at = now() - interval '1 s' WHERE id = '$id';
		ALTER TABLE qml.live ENABLE ALWAYS TRIGGER note_sql");
	come_round();
	is(state_of($id), 'processing|1', 'what nobody tells of is not found by a look');
	set_config($node, 'qml.faults' => 'reading.net_ms:limit:200');
	wait_reclaimed($id, 'but by reading all jobs now and then');
	is(log_count($node, 'lost job was found only by reading all jobs', $offset), 1, 'which says so');

	# Nothing is read while nothing is written.
	end_sessions($node);
	my ($last, $since) = (-1, 0);
	wait_for(
		'the scheduler to stop reading',
		sub {
			my $now = scans();
			($last, $since) = ($now, time) if $now != $last;
			return time - $since > 3;
		});
	pass('the net is not cast while nothing is written');
	set_config($node, 'qml.faults' => undef);
}

# ---- the server is killed

{
	my @ids = map { claim('1 s') } 1 .. 3;
	my $bound = new_session($node);
	my $held = claim('0', session => $bound, queue => 'crash');
	prepare('before', "SELECT qml_enqueue('m', queue => 'before'); SELECT qml_fetch('w', '{before}', lease => '100 ms')");
	prepare('none', 'CREATE TABLE t ()');
	kill_server($node);
	eval { $bound->{run}->kill_kill };
	start_again($node);
	wait_for_process($node, 'scheduler', 'postgres');
	wait_reclaimed($_, 'a claim of before the crash') foreach @ids;
	wait_reclaimed($held, 'one that was bound to a session', 'enqueued|1|server_down');
	come_round();
	cmp_ok(pages(), '>', $PAGES / 2, 'claims are not known while a transaction is prepared that is older');
	query($node, "COMMIT PREPARED 'before'");
	wait_reclaimed(ask($node, "SELECT id FROM qml.live WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'before')"),
		'its claim is found when it is committed');
	query($node, "ROLLBACK PREPARED 'none'");
	wait_known('then they are known');

	# A claim that only a reading has told of comes back when its lease ends, and not when the
	# scheduler looks anyway.
	my $later = claim('15 s');
	my $end = ask($node, "SELECT extract(epoch FROM lease_expires_at) FROM qml_job('$later')");
	kill_server($node);
	start_again($node);
	wait_for_process($node, 'scheduler', 'postgres');
	wait_known('all claims are known again');
	is(state_of($later), 'processing|1', 'before the lease ends');
	wait_for('the job to come back', sub { state_of($later) !~ /^processing/ });
	my $late = ask($node, "SELECT extract(epoch FROM ready_at) - $end FROM qml_job('$later')");
	cmp_ok($late, '<', 10, "it comes back after $late s");
	ask($node, "SELECT qml_delete('$later')");
}

# ---- more claims than there is room for

ask($node, "SELECT count(qml_delete(id)) FROM qml.job WHERE state = 'processing'");
end_sessions($node);
set_config($node, 'qml.faults' => 'leases.partition:limit:1');
$node->restart;
wait_for_process($node, 'scheduler', 'postgres');
wait_known('all claims are known');
ask($node, q{SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[400]), 'over', max_retries => 9)});
is(ask($node, q{SELECT count(*) FROM qml_fetch('w', '{over}', 400, '3 s')}), 400, 'more claims than there is room for');
cmp_ok(pages(), '>', $PAGES / 2, 'they are not all known');
wait_for('all of them', sub {
	ask($node, q{SELECT count(*) FROM qml.job WHERE queue = 'over' AND state = 'enqueued'}) == 400 });
pass('all of them are found');
# By the next reading, which this asks for; as the scheduler does once a minute.
ask($node, 'UPDATE qml.live SET reason = reason WHERE false');
wait_known('then all claims are known again');
set_config($node, 'qml.faults' => 'leases.notes:limit:16');
end_sessions($node);
ask($node, q{SELECT count(*) FROM qml_fetch('w', '{over}', 400, '3 s')});
cmp_ok(pages(), '>', $PAGES / 2, 'more claims than a transaction remembers');
wait_for('all of them', sub {
	ask($node, q{SELECT count(*) FROM qml.job WHERE queue = 'over' AND state = 'enqueued'}) == 400 });
pass('they are found, too');

is(log_count($node, 'lost jobs were found only') + log_count($node, 'lost job was found only'), 1, 'no other claim has escaped');
is(log_count($node, 'PANIC', 0) + log_count($node, 'TRAP', 0), 0, 'no process crashed');
end_sessions($node);
done_testing();
