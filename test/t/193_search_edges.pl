# qml_search where it could leave out jobs without a word, or not come to its end: while commits
# are under way, beside many jobs with ids of their own, of one order, or of another queue, and where the
# clock was set back.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

my $GATE = 4711;

my $node = background_node('search_edges', variant => 'faults', init => { allows_streaming => 1 }, conf => <<'CONF');
autovacuum = off
fsync = off
qml.workers = 0
qml.log_failures = off
qml.search_limit = 100
CONF
wait_for_process($node, 'scheduler', 'postgres');
query($node, 'SELECT qml_create_queue(q) FROM unnest($${a,b,pile,small}$$::text[]) q');

sub count_of { return ask($node, "SELECT count(*) FROM qml_search('$_[0]', 10000)"); }

# What a query finds as its hints say how to go on: the n of all jobs, and in how many calls.
sub follow
{
	my ($query, $most, $which) = @_;
	my ($after, $calls, @found) = ('NULL', 0);

	while ($calls++ < $most)
	{
		my ($rc, $out, $err) = $node->psql('postgres',
			"SELECT payload ->> 'n' FROM qml_search('$query', 10000, $after)");
		push @found, split /\n/, $out;
		my @places = $err =~ /after => ('@-?\d+ [0-9a-f-]{36}')/g;
		return ($calls, @found) if !@places;
		$after = $places[$which // 0];
	}
	return ($calls, @found);
}

# Waits until a look for lost jobs need not read all of them: then all claims are known.
sub wait_known
{
	wait_for('all claims to be known', sub {
		my $top = json(ask($node, 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT qml_reclaim()'))->[0]{Plan};
		return $top->{'Shared Hit Blocks'} + $top->{'Shared Read Blocks'} < 60;
	});
	return;
}

# ---- Commits that are under way

# Jobs that wait, so that it can be seen whether all are read.
ask($node, q(SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1000]), 'b', delay => '1 d') FROM generate_series(1, 10)));
ask($node, 'SELECT qml_reclaim()');

my ($gate, $worker, $searcher) = map { new_session($node) } 1 .. 3;
my $id = ask($node, q(SELECT qml_enqueue('m', queue => 'a')));
wait_known();
ask($node, q(SELECT count(*) FROM qml_fetch('w', 'a', lease => '1 h')));
is(count_of('state:processing'), 1, 'a job runs');

set_config($node, synchronous_standby_names => 'nobody');
wait_for('the setting', sub { ask($node, 'SHOW synchronous_standby_names') eq 'nobody' });
$worker->query_until(qr/begins/, "\\echo begins\nSELECT qml_succeed('$id', 1);\n\\echo ends\n");
wait_for('its commit to wait', sub {
	ask($node, q(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%qml_succeed%')) == 1;
});
is(ask($node, q(SELECT count(*) FROM qml.job WHERE state = 'processing')), 1, 'while its end waits for a standby, it still runs');
is(count_of('state:processing'), 1, 'for a search, too');
is(count_of('state:processing|succeeded'), 1, 'in one of two states');
set_config($node, synchronous_standby_names => '');
$worker->query_until(qr/ends/, '');
is(count_of('state:processing'), 0, 'then it has ended');
is(count_of('state:succeeded'), 1, 'in history');

# A search between its snapshot and its reading.
sub during_search
{
	my ($query, $sql) = @_;
	$gate->query_safe("SELECT pg_advisory_lock($GATE)");
	$searcher->query_safe(q(SET qml.faults = 'search.snapshot:wait'));
	$searcher->query_until(qr/begins/, "\\echo begins\nSELECT 'found ' || count(*) FROM qml_search('$query', 10000);\n");
	wait_for('the search', sub { ask($node, q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)) == 1 });
	ask($node, $sql);
	$gate->query_safe("SELECT pg_advisory_unlock($GATE)");
	return $searcher->query_until(qr/found \d+/, '') =~ /found (\d+)/ ? $1 : undef;
}

ask($node, q(SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[5]), 'a')));
ask($node, q(SELECT count(*) FROM qml_fetch('w', 'a', 3, '1 h')));
is(during_search('state:processing', q(SELECT count(qml_succeed(id, attempt)) FROM qml.job WHERE state = 'processing')), 3,
	'jobs that end after the snapshot are in the answer');
is(count_of('state:processing'), 0, 'and not in the next one');
is(during_search('state:enqueued', q(SELECT count(*) FROM qml_fetch('w', 'a', 10, '1 h'))), 2,
	'and those that were ready, though the numbers say that none is');
is(during_search('state:processing', q(SELECT count(qml_succeed(id, attempt)), count(qml_enqueue('m', queue => 'a')) FROM qml.job WHERE state = 'processing')), 2,
	'in whatever state they were');

# Claimed and ended in one transaction, ended and claimed again, made anew with the same id.
ask($node, q(DELETE FROM qml.live WHERE state <> 'scheduled'));
wait_known();
my $own = '11111111-1111-4111-8111-111111111111';
$worker->query_safe(<<"SQL");
SET qml.succeeded_ttl = 0;
SELECT qml_enqueue('m', queue => 'a', id => '$own');
SELECT count(*) FROM qml_fetch('w', 'a', 1, '1 h');
BEGIN;
SELECT qml_release('$own', 1);
SELECT count(*) FROM qml_fetch('w', 'a', 1, '1 h');
COMMIT;
SQL
is(count_of('state:processing'), 1, 'a job that was given back and claimed in one transaction runs');
$worker->query_safe("BEGIN; SELECT qml_heartbeat('$own', 2, '2 h'); SELECT qml_release('$own', 2); SELECT count(*) FROM qml_fetch('w', 'a', 1, '1 h'); SELECT qml_release('$own', 3); COMMIT");
is(count_of('state:processing'), 0, 'one that was claimed and given back does not');
is(ask($node, q(SELECT count(*) FROM qml_fetch('w', 'a', 1, '1 h'))), 1, 'it can be claimed again');
is(count_of('state:processing'), 1, 'and runs');
ask($node, q(SELECT qml_delete(id) FROM qml.job WHERE state = 'processing'));

# A claim that nothing ends, as only plain SQL writes it.
ask($node, q(SELECT qml_enqueue('m', queue => 'a')));
ask($node, q(SELECT count(*) FROM qml_fetch('w', 'a', 1, '1 h')));
ask($node, q(UPDATE qml.live SET lease_expires_at = NULL, server = NULL WHERE state = 'processing'));
wait_known();
is(count_of('state:processing'), 1, 'a claim that nothing ends is found when all are known');

# ---- Ids of callers

ask($node, 'TRUNCATE qml.live; TRUNCATE qml.history');
ask($node, q(SELECT qml_enqueue('v4', jsonb_build_object('n', n), queue => 'b', id => gen_random_uuid()) FROM generate_series(1, 3000) n));
my ($rc, $out, $err) = $node->psql('postgres', q(SELECT count(*) FROM qml_search('')));
is("$out$err", 50, 'random ids do not stand in front of all others');
my ($calls, @found) = follow('', 50);
my %once = map { $_ => 1 } @found;
is(scalar(@found) . '|' . keys %once, '3000|3000', "all of them are found, in $calls calls");
ask($node, q(SELECT qml_enqueue('v4', queue => 'a', id => gen_random_uuid()) FROM generate_series(1, 3)));
ask($node, q(SELECT qml_enqueue('v4', queue => 'b', id => gen_random_uuid()) FROM generate_series(1, 1000) n));
($rc, $out, $err) = $node->psql('postgres', q(SELECT count(*) FROM qml_search('queue:a state:enqueued')));
is($out, 3, 'ids of other queues are passed over without reading their jobs');
# A clock that was more than a year ahead.
ask($node, q(SELECT qml_enqueue('ahead', queue => 'a')));
ask($node, <<'SQL');
UPDATE qml.live SET created_at = now() + interval '3 years',
	id = overlay(id::text PLACING regexp_replace(lpad(to_hex((extract(epoch FROM now() + interval '3 years') * 1000)::bigint), 12, '0'), '^(.{8})', '\1-') FROM 1 FOR 13)::uuid
	WHERE method = 'ahead'
SQL
is(count_of('method:ahead created:>=' . (1901 + (localtime)[5] + 1)), 1, 'a job of a later time is found by that');

# ---- Errors in other encodings

($rc, $out, $err) = $node->psql('postgres', qq(SELECT qml_search('"a"\xc3\xa9')));
like($err, qr/invalid query at position 4, "\xc3\xa9": it cannot stand after a quote/, 'a character of several bytes is shown');
($rc, $out, $err) = $node->psql('postgres', qq(SELECT qml_search('state:' || repeat('\xc3\xa9', 40))));
like($err, qr/invalid query at position 7, "(?:\xc3\xa9){31}": there is no such state/, 'a long part is cut between characters');
query($node, q(CREATE DATABASE euc ENCODING 'EUC_JP' LOCALE 'C' TEMPLATE template0));
query($node, 'CREATE EXTENSION qml', 'euc');
foreach my $case ([ qq("a"\xe3\x81\x82), 4, qq("\xe3\x81\x82": it cannot stand after a quote) ],
	[ "state:" . "\xe3\x81\x82" x 40, 7, '"' . "\xe3\x81\x82" x 31 . '": there is no such state' ],
	[ qq(\xe3\x81\x82 payload."\xe3\x81\x82"\xe3\x81\x82:x), 14, qq("\xe3\x81\x82": it cannot stand there) ])
{
	my ($query, $position, $said) = @$case;
	($rc, $out, $err) = $node->psql('euc', "SET client_encoding = 'UTF8'; SELECT qml_search('$query')");
	like($err, qr/invalid query at position $position, \Q$said\E/, 'in EUC_JP');
}

# ---- Unfinished jobs that were given up, and then finished ones

ask($node, 'TRUNCATE qml.live; TRUNCATE qml.history');
ask($node, q(SELECT qml_enqueue_many('m', array(SELECT jsonb_build_object('n', n) FROM generate_series(1, 350) n), 'a')));
ask($node, q(SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', 'a', 350)));
ask($node, q(SELECT qml_enqueue_many('m', array(SELECT jsonb_build_object('n', n) FROM generate_series(1001, 1350) n), 'a')));
($rc, $out, $err) = $node->psql('postgres', q(SELECT count(*) FROM qml_search('payload.n:>0', 10000)));
like($err, qr/not all jobs were looked at.*No finished one .*no unfinished one.*search unfinished jobs alone/s, 'of each it is said how far they were looked at');
is($out, 200, 'a hundred of each are found');
($calls, @found) = follow('payload.n:1..350', 20);
is(join(' ', sort { $a <=> $b } @found), join(' ', 1 .. 350), 'the first place in the hint is behind all finished ones that were looked at');
($calls, @found) = follow('payload.n:>1000 state:enqueued', 20);
is(join(' ', sort { $a <=> $b } @found), join(' ', 1001 .. 1350), 'the search for unfinished ones alone goes on, too');

# ---- A pile of another queue

ask($node, 'TRUNCATE qml.live; TRUNCATE qml.history');
ask($node, q(SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[4]), 'small')));
ask($node, q(SELECT count(qml_fail(id, attempt, 'x', retry => false)) FROM qml_fetch('w', 'small', 2)));
ask($node, q(SELECT count(qml_delete(id)) FROM qml_search('queue:small state:enqueued', 1)));
ask($node, q(SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1000]), 'pile') FROM generate_series(1, 3)));
ask($node, q(SELECT count(qml_fail(id, attempt, 'x', retry => false)) FROM qml_fetch('w', 'pile', 1000))) foreach 1 .. 3;
wait_for('the numbers of jobs', sub { ask($node, q(EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) SELECT * FROM qml_counts())) =~ /shared hit=(\d+)/ ? $1 < 12 : 1 });
foreach my $case ([ 'failed', 2 ], [ 'deleted', 1 ], [ 'failed|deleted', 3 ])
{
	($rc, $out, $err) = $node->psql('postgres', "SELECT count(*) FROM qml_search('queue:small state:$case->[0]')");
	is("$out$err", $case->[1], "queue:small state:$case->[0] beside many of another queue");
}
($rc, $out, $err) = $node->psql('postgres', q(SELECT count(*) FROM qml_search('queue:pile state:failed', 20)));
is("$out$err", 20, 'those of the other queue');

# ---- Many jobs of one order

ask($node, 'TRUNCATE qml.live; TRUNCATE qml.history');
ask($node, q(SELECT qml_enqueue('needle', '{"n": 0}', queue => 'a')));
ask($node, q(SELECT count(qml_fail(id, attempt, 'x', retry => false)) FROM qml_fetch('w', 'a', 1)));
# The words of the ids add up to the same, and they were created at the same time.
ask($node, <<'SQL');
WITH made AS (SELECT n, ('ffffffff-ffff-4fff-8fff-' || lpad(to_hex(n), 4, '0') || lpad(to_hex(n # 21930), 4, '0') || '0000')::uuid AS id
	FROM generate_series(1, 4000) n)
SELECT qml_enqueue('work', jsonb_build_object('n', n), queue => 'pile', id => id) FROM made
SQL
ask($node, 'UPDATE qml.live SET created_at = (SELECT max(created_at) FROM qml.live)');
is(ask($node, q(SELECT count(DISTINCT qml.search_order(id, created_at)) FROM qml.live)), 1, 'thousands of jobs of one order');
($calls, @found) = follow('state:enqueued payload.n:3990..', 60);
is(join(' ', sort { $a <=> $b } @found), join(' ', 3990 .. 4000), "are all looked at, in $calls calls");
is(join('|', map { ask($node, "SELECT string_agg(payload ->> 'n', ' ') FROM (SELECT * FROM qml_search('', 3" . ($_ ? ", '$_'" : '') . ')) s') }
		'', ask($node, q(SELECT id FROM qml.live WHERE payload ->> 'n' = '3998'))), '4000 3999 3998|3997 3996 3995', 'page by page, in the order of their ids');
ask($node, q(SELECT count(qml_fail(id, attempt, 'x', retry => false)) FROM qml_fetch('w', 'pile', 1000))) foreach 1 .. 4;
is(ask($node, q(SELECT count(DISTINCT qml.search_order(id, created_at)) FROM qml.history)), 2, 'which have failed');
($calls, @found) = follow('method:needle state:failed', 10);
is("@found", '0', "what stands behind them is found, in $calls calls");

# ---- A clock that was set back

ask($node, q(UPDATE qml.history SET created_at = now() - interval '1 h', started_at = now() - interval '1 h', finished_at = now() - interval '90 min' WHERE method = 'needle'));
is(count_of('method:needle finished:..89m'), 1, 'a job that has ended before it was created');

$_->quit foreach $gate, $worker, $searcher;
end_sessions($node);
$node->stop;
done_testing();
