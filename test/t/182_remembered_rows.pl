# An acknowledgement goes to the row of its job without the index, by the place that the claim
# left in shared memory.  That is a hint: whatever became of the row and of its place meanwhile,
# the acknowledgement is about the job that it names, and about no other.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

my $MOST_BUFFERS = 5;         # of the end of a job: two of qml.live, three of the history
my $MOST_BEAT_BUFFERS = 2;
my $MOST_WAL = 200;           # of a claim by itself, bytes

my $node = background_node('remembered', conf => <<'CONF');
autovacuum = off
full_page_writes = off
qml.workers = 0
CONF
wait_for_process($node, 'scheduler', 'postgres');

# Pages that a statement touches.
sub buffers
{
	my ($sql) = @_;
	my $top = json(ask($node, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) $sql"))->[0]{Plan};
	return $top->{'Shared Hit Blocks'} + $top->{'Shared Read Blocks'};
}

sub enqueue
{
	my ($count) = @_;
	ask($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('{\"n\": 1}'::jsonb, ARRAY[$count]), 'q')");
	return;
}

# Makes so many jobs, and claims them in another session: their ids, in the order of their rows.
sub claim
{
	my ($count) = @_;
	ask($node, 'TRUNCATE qml.live');
	enqueue($count);
	query($node, "SELECT count(*) FROM qml_fetch('w', '{q}', $count, lease => '1 h')");
	return split /\n/, ask($node, 'SELECT id FROM qml.live ORDER BY ctid');
}

sub state_of
{
	my ($id) = @_;
	return ask($node, "SELECT state FROM qml_job('$id')");
}

sub finish
{
	ask($node, "SELECT qml_succeed('$_', 1)") foreach @_;
	return;
}

# How many jobs run.
sub running
{
	return ask($node, "SELECT count(*) FROM qml.job WHERE state = 'processing'");
}

# ---- What is saved.

my @ids = claim(40);
# The first calls of a session read what all others find open.
ask($node, "SELECT qml_heartbeat('$ids[0]', 1)");
finish(splice @ids, 0, 10);
foreach my $id (splice @ids, 0, 10)
{
	my $beat = buffers("SELECT qml_heartbeat('$id', 1)");
	my $end = buffers("SELECT qml_succeed('$id', 1, '{\"sent\": true}')");
	cmp_ok($beat, '<=', $MOST_BEAT_BUFFERS, "a heartbeat touches $beat pages");
	cmp_ok($end, '<=', $MOST_BUFFERS, "the end of a job that another session has claimed touches $end");
}
is(running(), 20, 'they have ended');

# One by one, a page is not pruned for each of its rows.
sub wal_of_claims
{
	my ($count) = @_;
	my $before = ask($node, "SELECT pg_current_wal_insert_lsn() - '0/0'");
	ask($node, "DO \$\$ BEGIN FOR i IN 1..$count LOOP PERFORM qml_fetch('w', '{q}'); COMMIT; END LOOP; END \$\$");
	return (ask($node, "SELECT pg_current_wal_insert_lsn() - '0/0'") - $before) / $count;
}

ask($node, 'TRUNCATE qml.live');
enqueue(1000);
wal_of_claims(1);
my $wal = wal_of_claims(500);
cmp_ok($wal, '<=', $MOST_WAL, "a claim by itself writes $wal bytes of WAL");
is(running(), 501, 'they are claimed');

# And yet all of them find room there; so does a job that is long under way.
ask($node, 'SELECT pg_stat_force_next_flush()');
is( ask($node, "SELECT n_tup_upd >= 541 AND n_tup_upd = n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'qml.live'::regclass"),
	't', 'all claims were HOT updates');
my $long = ask($node, "SELECT id FROM qml.live WHERE state = 'processing' LIMIT 1");
ask($node, "SELECT qml_progress('$long', 1, '{\"at\": $_}')") foreach 1 .. 200;
ask($node, "SELECT qml_heartbeat('$long', 1)") foreach 1 .. 200;
ask($node, 'SELECT pg_stat_force_next_flush()');
is( ask($node, "SELECT n_tup_upd >= 941 AND n_tup_upd - n_tup_hot_upd <= 10 FROM pg_stat_user_tables WHERE relid = 'qml.live'::regclass"),
	't', 'progress and heartbeats are, too');

# ---- What can become of a place.

# Another row has it: each of those that are left took that of another one.
@ids = claim(30);
finish($ids[0]);
ask($node, 'VACUUM FULL qml.live');
finish($ids[1]);
is(state_of($ids[1]), 'succeeded', 'a job ends whose place another one has');
is(running(), 28, 'and no other does');
ask($node, "SELECT qml_release('$ids[2]', 1)");
is(state_of($ids[2]), 'enqueued', 'another one is given back');
ask($node, "SELECT qml_heartbeat('$ids[4]', 1, '2 h')");
is(ask($node, "SELECT count(*) FROM qml.job WHERE lease_expires_at > now() + interval '90 min'"), 1, 'a heartbeat is for its own job');
is(ask($node, "SELECT id FROM qml.job WHERE lease_expires_at > now() + interval '90 min'"), $ids[4], 'and reaches it');

# The table ends before it.
@ids = claim(500);
ask($node, "SELECT count(*) FROM qml_succeed_many(ARRAY(SELECT id FROM qml.live WHERE id <> '$ids[499]'), array_fill(1, ARRAY[499]))");
ask($node, 'VACUUM FULL qml.live');
is(ask($node, "SELECT pg_relation_size('qml.live') / current_setting('block_size')::int"), 1, 'the table has one page');
finish($ids[499]);
is(state_of($ids[499]), 'succeeded', 'a job ends whose place is not there any more');

# SQL has removed the job, and a new one is where it was.
@ids = claim(1);
my $place = ask($node, 'SELECT (ctid::text::point)[0] FROM qml.live');
ask($node, 'DELETE FROM qml.live');
ask($node, 'VACUUM qml.live');
enqueue(1);
is(ask($node, 'SELECT (ctid::text::point)[0] FROM qml.live'), $place, 'a new job is where another one was');
fails_with($node, 'QM001', "SELECT qml_succeed('$ids[0]', 1)", 'which is gone');
is(ask($node, "SELECT state FROM qml.live"), 'enqueued', 'the new one is as it was');

# The job has left its page.
@ids = claim(30);
ask($node, "SELECT qml_progress('$_', 1, (SELECT to_jsonb(string_agg(md5(n::text), '')) FROM generate_series(1, 50) n))") foreach @ids[ 1 .. 7 ];
is(ask($node, "SELECT (ctid::text::point)[0] > 0 FROM qml.live WHERE id = '$ids[7]'"), 't', 'a job has moved to another page');
finish($ids[7]);
is(state_of($ids[7]), 'succeeded', 'it ends there');
is(running(), 29, 'and no other does');

# Another attempt of the job has the place: the older one does not hold it.
ask($node, "SELECT qml_release('$ids[9]', 1)");
is(query($node, "SELECT id || '|' || attempt FROM qml_fetch('w', '{q}')"), "$ids[9]|2", 'a job is claimed again');
fails_with($node, 'QM003', "SELECT qml_succeed('$ids[9]', 1)", 'its first attempt cannot end it');
ask($node, "SELECT qml_succeed('$ids[9]', 2)");
is(state_of($ids[9]), 'succeeded', 'the second one does');

# One snapshot for the whole transaction: what it does not see cannot be judged by it.
my $session = new_session($node, undef, on_error_stop => 0);
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qml.live');
ask($node, "SELECT qml_heartbeat('$ids[11]', 1)");
$session->query("SELECT qml_succeed('$ids[11]', 1)");
is($session->query('\echo :SQLSTATE'), '40001', 'a job that was changed since is error 40001');
$session->{stderr} = '';
$session->quit;
is(state_of($ids[11]), 'processing', 'and is left alone');

end_sessions($node);
$node->stop;
done_testing();
