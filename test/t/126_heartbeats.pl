# Heartbeats wait for nobody who has the job's row.  What they could not write counts all
# the same: for reclaim, for views, for the next heartbeat.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

my $node = background_node('heartbeats', conf => "max_prepared_transactions = 5\n");
wait_for_process($node, 'scheduler', 'postgres');

# Claims a new job for so long; its id.
sub claim
{
	my ($lease, $queue) = @_;
	$queue //= 'q';
	ask($node, "SELECT qml_enqueue('m', queue => '$queue')");
	return ask($node, "SELECT id FROM qml_fetch('w', ARRAY['$queue'], lease => '$lease')");
}

# A session that has the rows of jobs until it is ended by end_holder().
sub hold
{
	my ($sql) = @_;
	my $session = new_session($node);
	$session->query_safe("BEGIN; $sql");
	return $session;
}

sub end_holder
{
	my ($session, $end) = @_;
	$session->query_safe($end // 'COMMIT');
	$session->quit;
	return;
}

# ---- a row that is held, by each who may have it

my %HOLDERS = (
	progress => "SELECT qml_progress('ID', 1, '1')",
	success => "SELECT qml_succeed('ID', 1)",
	deletion => "SELECT qml_delete('ID')",
	heartbeat => "SELECT qml_heartbeat('ID', 1, '1 h')",
	'a lock of the row' => "SELECT 1 FROM qml.live WHERE id = 'ID' FOR UPDATE",
	'a weak lock of the row' => "SELECT 1 FROM qml.live WHERE id = 'ID' FOR KEY SHARE");
foreach my $holder (sort keys %HOLDERS)
{
	my $id = claim('1 min');
	my $session = hold($HOLDERS{$holder} =~ s/ID/$id/r);

	my $end = ask($node, "SELECT qml_heartbeat('$id', 1, '30 min')");
	is(ask($node, "SELECT '$end' - now() BETWEEN interval '29 min' AND interval '30 min'"), 't',
		"$holder: the heartbeat does not wait, and says until when");
	is(ask($node, "SELECT lease_expires_at FROM qml_job('$id')"), $end, "$holder: so does qml_job");
	is(ask($node, "SELECT lease_expires_at FROM qml.job WHERE id = '$id'"), $end, "$holder: so does the view");
	is(ask($node, "SELECT lease_expires_at < now() + interval '1 min' FROM qml.live WHERE id = '$id'"),
		't', "$holder: it is not in the row");
	is( ask($node, "SELECT lease_expires_at FROM qml_heartbeat_many(ARRAY['$id']::uuid[], '{1}', '1 s')"),
		$end, "$holder: a shorter one does not cut it short");
	end_holder($session, 'ROLLBACK');
	is(ask($node, "SELECT qml_heartbeat('$id', 1, '1 s')"), $end, "$holder: nor does one that is written");
	is(ask($node, "SELECT qml_heartbeat('$id', 1, '1 h') > '$end'"), 't', "$holder: a longer one counts");
}

# ---- reclaim takes the later end

{
	my ($kept, $lost) = (claim('3 s', 'kept'), claim('3 s', 'lost'));
	my $session = hold("SELECT qml_progress('$kept', 1, '1'), qml_progress('$lost', 1, '1')");

	my $end = ask($node, "SELECT qml_heartbeat('$kept', 1, '9 s')");
	isnt($end, '', 'the lease of one is extended in memory');
	end_holder($session);
	wait_for('the other to be reclaimed',
		sub { ask($node, "SELECT state FROM qml_job('$lost')") eq 'enqueued' });
	is(ask($node, "SELECT state || ' ' || attempt FROM qml_job('$kept')"), 'processing 1', 'this one is not');
	is(ask($node, 'SELECT qml_reclaim()'), 0, 'nor by a client');
	is(ask($node, "SELECT clock_timestamp() < '$end'"), 't', 'in time to tell');
	wait_for('it to be reclaimed', sub { ask($node, "SELECT state FROM qml_job('$kept')") eq 'enqueued' });
	is(ask($node, "SELECT clock_timestamp() >= '$end'"), 't', 'but not before its time');

	# Another attempt of the same job is another lease.
	is(ask($node, "SELECT attempt FROM qml_fetch('w', '{kept}', lease => '1 min')"), 2, 'it is fetched again');
	is(ask($node, "SELECT lease_expires_at < now() + interval '2 min' FROM qml_job('$kept')"), 't',
		'what was kept for the attempt before means nothing');
}

# ---- the other jobs of a worker

{
	my @ids = map { claim('1 min', 'many') } 1 .. 20;
	my $session = hold("SELECT qml_progress('$ids[7]', 1, '1'), qml_succeed('$ids[8]', 1)");
	my $ids = join ',', @ids;
	my $ones = join ',', map { $_ == 3 ? 2 : 1 } 0 .. $#ids;

	is( ask($node, "SELECT count(*) || ' ' || bool_and(lease_expires_at > now() + interval '50 min')
			FROM qml_heartbeat_many('{$ids}', '{$ones}', '1 h')"),
		'19 true', 'each of many is extended that the attempt holds');
	end_holder($session);
	is( ask($node, "SELECT string_agg(id::text, ' ') FROM qml_heartbeat_many('{$ids}', '{$ones}', '1 h')
			WHERE lease_expires_at IS NULL"),
		$ids[8], 'one that has succeeded since has no lease, and is not lost');
	is( ask($node, "SELECT count(*) FROM qml_heartbeat_many('{$ids}', '{$ones}', '1 h') WHERE id = '$ids[3]'"),
		0, 'one that is lost is not shown');
}

# ---- a history that is locked

{
	my ($done, $open, $lost) = map { claim('1 min', 'locked') } 1 .. 3;
	ask($node, "SELECT qml_succeed('$done', 1), qml_delete('$lost')");
	my $leaf = ask($node, "SELECT tableoid::regclass FROM qml.history WHERE id = '$done'");
	my $index = ask($node, "SELECT indexrelid::regclass FROM pg_index WHERE indrelid = '$leaf'::regclass AND indexrelid::regclass::text LIKE '%_id'");
	my $many = "SET statement_timeout = '20 s'; SELECT string_agg(CASE id WHEN '$done' THEN 'done' WHEN '$open' THEN 'open' ELSE 'lost' END
		|| ' ' || coalesce(lease_expires_at > now() + interval '50 min', false), ', ' ORDER BY id = '$open', id = '$lost')
		FROM qml_heartbeat_many('{$done,$open,$lost}', '{1,1,1}', '1 h')";
	foreach my $lock ('LOCK TABLE qml.history IN SHARE MODE', 'LOCK TABLE qml.history', 'LOCK TABLE ONLY qml.history',
		'CREATE INDEX ON qml.history (method)', "LOCK TABLE $leaf", "REINDEX INDEX $index",
		'LOCK TABLE qml.history_overflow')
	{
		my $session = hold($lock);
		# These keep nobody from looking where the jobs are.
		my $seen = $lock =~ /SHARE|CREATE|overflow/;
		is(ask($node, $many), $seen ? 'done false, open true' : 'done false, lost false, open true',
			"$lock: no heartbeat waits");
		is(ask($node, "SET statement_timeout = '20 s'; SELECT qml_heartbeat('$done', 1, '1 h')"), '', "$lock: nor does a single one");
		is(ask($node, "SET statement_timeout = '20 s'; SELECT qml_heartbeat('$open', 1, '1 h') > now()"), 't', "$lock: one of a running job counts");
		end_holder($session, 'ROLLBACK');
		is(ask($node, $many), 'done false, open true', "$lock: afterwards the lost one is told");
	}
}

# ---- prepared transactions, and isolation levels

{
	my $id = claim('1 min');
	ask($node, "BEGIN; SELECT qml_progress('$id', 1, '2'); PREPARE TRANSACTION 'held'");
	foreach my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
	{
		my $session = new_session($node);
		$session->query_safe("BEGIN ISOLATION LEVEL $level; SELECT 1");
		is($session->query_safe("SELECT qml_heartbeat('$id', 1, '10 min') > now() + interval '9 min'"),
			't', "$level: a prepared transaction is not waited for");
		end_holder($session);
	}
	ask($node, "COMMIT PREPARED 'held'");
	is(ask($node, "SELECT progress FROM qml_job('$id')"), 2, 'and does what it would have done');
	my $session = hold('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	ask($node, "SELECT qml_progress('$id', 1, '3')");
	is($session->query_safe("SELECT qml_heartbeat('$id', 1, '20 min') > now() + interval '19 min'"),
		't', 'a change that the transaction does not see is no conflict');
	end_holder($session);
}

# ---- a heartbeat that comes when the lease is over

{
	# Nobody reclaims it: the row is held all the time.
	my $id = claim('1 s');
	my $session = hold("SELECT qml_progress('$id', 1, '1')");
	wait_for('the lease to be over', sub { ask($node, "SELECT lease_expires_at < now() FROM qml_job('$id')") eq 't' });
	is(ask($node, "SELECT qml_heartbeat('$id', 1, '1 h')"), '', 'it is promised nothing');
	is(ask($node, "SELECT qml_heartbeat('$id', 1, '1 h') > now() + interval '50 min'"), 't',
		'but it was in time for the next one');
	end_holder($session);
	is(ask($node, 'SELECT qml_reclaim()'), 0, 'the job is not lost');
}

# ---- the table is bounded

{
	my $jobs = 6000;
	ask($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[$jobs]), 'full')");
	ask($node, "SELECT count(*) FROM qml_fetch('w', '{full}', 1000, '1 h')") foreach 1 .. $jobs / 1000;
	ask($node, "UPDATE qml.live SET lease_expires_at = clock_timestamp() + interval '8 s'
		WHERE worker = 'w' AND attempt = 1 AND lease_expires_at > now() + interval '50 min'");
	my $session = hold("SELECT count(qml_progress(id, 1, '1')) FROM qml.job WHERE queue = 'full'");
	my $beats = "SELECT count(*) || ' ' || count(b.lease_expires_at)
		FROM (SELECT array_agg(id) AS ids FROM qml.job WHERE queue = 'full') j,
			qml_heartbeat_many(j.ids, array_fill(1, ARRAY[$jobs]), 'TIME') b";
	my ($all, $extended) = split / /, ask($node, $beats =~ s/TIME/9 s/r);
	is($all, $jobs, 'none of very many is lost');
	cmp_ok($extended, '>', 2000, "thousands are extended ($extended)");
	cmp_ok($extended, '<=', 4096, 'but not more than there is room for');
	my $id = (split /\n/, ask($node, "SELECT id FROM qml.job WHERE queue = 'full' ORDER BY lease_expires_at LIMIT 1"))[0];
	is(ask($node, "SELECT qml_heartbeat('$id', 1, '9 s')"), '', 'one that has no place is told so');
	# The end of an attempt frees its place at commit, not if it is undone.
	my $ends = "WITH e AS (SELECT array_agg(id) AS ids FROM qml.job WHERE queue = 'full') SELECT count(*) FROM e, qml_succeed_many(e.ids, array_fill(1, ARRAY[$jobs]))";
	$session->query_safe("SAVEPOINT s; $ends; ROLLBACK TO s");
	is(ask($node, "SELECT qml_heartbeat('$id', 1, '9 s')"), '', 'it still has no place');
	wait_for('their places to be free',
		sub { ask($node, "SELECT qml_heartbeat('$id', 1, '1 h')") ne '' });
	end_holder($session);
}

# ---- places are free when the attempts have ended

{
	my $jobs = 6000;
	my $extended;
	foreach my $round (1, 2)
	{
		ask($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('1'::jsonb, ARRAY[$jobs]), 'round$round')");
		ask($node, "SELECT count(*) FROM qml_fetch('w', '{round$round}', 1000, '1 h')") foreach 1 .. $jobs / 1000;
		my $session = hold("SELECT count(qml_progress(id, 1, '1')) FROM qml.job WHERE queue = 'round$round'");
		$extended = ask($node, "SELECT count(b.lease_expires_at) FROM (SELECT array_agg(id) AS ids FROM qml.job WHERE queue = 'round$round') j,
			qml_heartbeat_many(j.ids, array_fill(1, ARRAY[$jobs]), '2 h') b");
		end_holder($session);
		ask($node, "SELECT count(*) FROM (SELECT array_agg(id) AS ids FROM qml.job WHERE queue = 'round$round') j, qml_succeed_many(j.ids, array_fill(1, ARRAY[$jobs]))");
	}
	cmp_ok($extended, '>', 2000, "the places of jobs that have ended are taken again ($extended)");
}

# ---- a crash clears the memory, and what had the rows

{
	my $id = claim('1 h', 'crash');
	my $session = hold("SELECT qml_progress('$id', 1, '1')");
	isnt(ask($node, "SELECT qml_heartbeat('$id', 1, '2 h')"), '', 'extended in memory');
	kill_server($node);
	eval { $session->{run}->kill_kill; };
	start_again($node);
	is(query($node, "SELECT lease_expires_at < now() + interval '61 min' FROM qml_job('$id')"), 't',
		'after a crash the row counts');
	is(query($node, "SELECT qml_heartbeat('$id', 1, '2 h') > now() + interval '1 h'"), 't', 'and takes the next');
}

end_sessions($node);
done_testing();
