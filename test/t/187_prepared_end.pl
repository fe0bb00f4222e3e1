# Prepared transactions of whose end nobody tells: those of logical replication with two_phase,
# those of before a restart, and those whose statement failed.  Their jobs are given by lists that
# have everything, as soon as they have ended; who waits is told; numbers of jobs are right.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

# Pages that a fetch touches which walks over nothing, and one that walks over dead entries.
my ($MOST, $WALK, $DEAD) = (40, 200, 20_000);

my $publisher = new_node('publisher', bare => 1, init => { allows_streaming => 'logical' });
my $node = new_node('subscriber', variant => 'faults', init => { allows_streaming => 'logical' }, conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.enabled = off
qml.workers = 0
qml.log_failures = off
autovacuum = off
wal_receiver_status_interval = 1
log_min_messages = debug1
CONF

my $TABLE = 'CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, does text, queue text, jobs int)';
my $HELPERS = <<'SQL';
CREATE FUNCTION fill(queue text, jobs int, priority int DEFAULT 0) RETURNS bigint LANGUAGE sql SET search_path = public AS $$
	SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[jobs]), queue, priority)
$$;
CREATE FUNCTION take(queue text, jobs int) RETURNS bigint LANGUAGE sql SET search_path = public AS $$
	SELECT count(*) FROM qml_fetch('w', queue, jobs)
$$;
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
	IF NEW.does = 'fill' THEN
		PERFORM fill(NEW.queue, NEW.jobs, 5);
	ELSE
		PERFORM take(NEW.queue, NEW.jobs);
	END IF;
	RETURN NULL;
END $$;
-- Pages that a fetch of one touches; it must give a job.
CREATE FUNCTION pages(queue text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE format('EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM qml_fetch(''w'', %L::text)', queue) INTO plan;
	plan := plan -> 0 -> 'Plan';
	ASSERT (plan ->> 'Actual Rows')::int = 1;
	RETURN (plan ->> 'Shared Hit Blocks')::int + (plan ->> 'Shared Read Blocks')::int;
END $$;
CREATE FUNCTION pages_of_counts() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM qml_counts()' INTO plan;
	plan := plan -> 0 -> 'Plan';
	RETURN (plan ->> 'Shared Hit Blocks')::int + (plan ->> 'Shared Read Blocks')::int;
END $$;
SQL
query($publisher, "$TABLE; CREATE PUBLICATION p FOR TABLE orders");
query($node, "$TABLE; $HELPERS");
query($node, <<'SQL');
CREATE TRIGGER act AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION act();
ALTER TABLE orders ENABLE ALWAYS TRIGGER act;
SQL
my $connection = $publisher->connstr =~ s{'}{}gr . ' dbname=postgres';
query($node, "CREATE SUBSCRIPTION s CONNECTION '$connection' PUBLICATION p WITH (two_phase = true)");
$node->wait_for_subscription_sync($publisher, 's');
wait_for('two_phase', sub { query($node, 'SELECT subtwophasestate FROM pg_subscription') eq 'e' });

my $prepared = 0;

# Prepares a transaction of the publisher, and so one of the subscriber; its name there.
sub prepare_order
{
	my ($name, $does, $queue, $jobs) = @_;
	my $known = ask($node, "SELECT coalesce(array_agg(gid), '{}') FROM pg_prepared_xacts");
	query($publisher, "BEGIN; INSERT INTO orders (does, queue, jobs) VALUES ('$does', '$queue', $jobs); PREPARE TRANSACTION '$name'");
	my $gid;
	wait_for("$name to be prepared",
		sub { ($gid = ask($node, "SELECT gid FROM pg_prepared_xacts WHERE gid <> ALL ('$known')")) ne '' });
	return $gid;
}

# Ends it; when this returns, the subscriber has done so too.
sub end_order
{
	my ($name, $end) = @_;
	query($publisher, "$end PREPARED '$name'");
	$publisher->wait_for_catchup('s');
	return;
}

sub take
{
	my ($queue, $jobs, $dbname) = @_;
	return ask($node, "SELECT take('$queue', @{[ $jobs // 100 ]})", $dbname);
}

# ---- lists

# The lists of these have everything.
query($node, "SELECT qml_create_queue(q) FROM unnest('{made,taken,other}'::text[]) q");
is(take($_), 0, "the list of $_ is empty") foreach qw(made taken other);
prepare_order('a', 'fill', 'made', 3);
is(take('made'), 0, 'what replication has prepared is not there');
end_order('a', 'COMMIT');
is(take('made'), 3, 'it is when it is committed');
prepare_order('a', 'fill', 'made', 3);
end_order('a', 'ROLLBACK');
is(take('made'), 0, 'and not when it is rolled back');
query($node, "SELECT fill('taken', 5)");
is(take('taken', 1), 1, 'a job is taken');
foreach my $end ([ 'ROLLBACK', 4 ], [ 'COMMIT', 2 ])
{
	query($node, "SELECT fill('taken', 4)") if $end->[0] eq 'COMMIT';
	prepare_order('b', 'take', 'taken', 2);
	my $left = $end->[1] - ($end->[0] eq 'ROLLBACK' ? 2 : 0);
	is(ask($node, "BEGIN; SELECT take('taken', 100); ROLLBACK"), $left, 'others get what it has not taken');
	end_order('b', $end->[0]);
	is(take('taken'), $end->[1], "$end->[0]: all that is ready is given");
}

# Nothing is forgotten.
my $old = new_session($node);
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class LIMIT 1');
query($node, "SELECT fill('other', $DEAD, 9)");
query($node, "DELETE FROM qml.live WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'other')");
query($node, "SELECT fill('other', 200)");
cmp_ok(ask($node, "SELECT pages('other')"), '>=', $WALK, 'after SQL a fetch walks: the measure can tell');
prepare_order('c', 'fill', 'other', 2);
cmp_ok(ask($node, "SELECT pages('other')"), '<=', $MOST, 'while a transaction of replication is prepared, it does not');
end_order('c', 'COMMIT');
cmp_ok(ask($node, "SELECT pages('other')"), '<=', $MOST, 'nor when it has ended');
is(take('other', 1000), 199, 'the rest');
$old->query_safe('COMMIT');
$old->quit;

# Who waits is told.
my $waits = new_session($node, undef, on_error_stop => 0);
my $pid = $waits->query_safe('SELECT pg_backend_pid()');
prepare_order('d', 'fill', 'made', 1);
$waits->query_until(qr/^begun$/m, "\\echo begun\nCALL qml_wait('made', '1 h');\n");
my $sleeps = "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND state = 'active' AND wait_event_type = 'Extension'";
wait_for('the session to wait', sub { ask($node, $sleeps) eq '1' });
end_order('d', 'COMMIT');
wait_for('the session to be told', sub { ask($node, $sleeps) eq '0' });
is((split /\n/, $waits->query('\echo'))[0] // '', 't', 'a session that waits is told');
$waits->quit;
is(take('made'), 1, 'and there is a job');

# A restart, after which they are not known.
prepare_order('e', 'fill', 'made', 2);
query($node, "SELECT fill('taken', 5)");
prepare_order('f', 'take', 'taken', 3);
end_sessions($node);
$node->restart;
is(take('made'), 0, 'after a restart, what is prepared is not there');
is(take('taken'), 2, 'nor what is taken');
end_order('e', 'COMMIT');
is(take('made'), 2, 'it is when it is committed');
end_order('f', 'ROLLBACK');
is(take('taken'), 3, 'and when it is rolled back');

# Somebody ends it by hand.
my $gid = prepare_order('g', 'fill', 'made', 4);
is(take('made'), 0, 'another one is prepared');
query($node, 'ALTER SUBSCRIPTION s DISABLE');
wait_for('the subscription to rest', sub { ask($node, "SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL") eq '0' });
my $session = new_session($node);
$session->query_safe("COMMIT PREPARED '$gid'");
is($session->query_safe("SELECT take('made', 9)"), 4, 'it is ended by hand, and its jobs are given');
$session->quit;
query($node, 'ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s');
query($publisher, "ROLLBACK PREPARED 'g'");
$publisher->stop;

# ---- statements that fail when the transaction has ended, and no room for more

query($node, 'CREATE DATABASE second');
query($node, "CREATE EXTENSION qml; $HELPERS; SELECT qml_create_queue('made')", 'second');
my @databases = qw(postgres second);

sub end_unheard
{
	my ($dbname, $jobs) = @_;
	query($node, "BEGIN; SELECT fill('made', $jobs); PREPARE TRANSACTION 'unheard'", $dbname);
	my ($rc, undef, $err) = $node->psql($dbname, "SET qml.faults = 'prepared.ended:error'; COMMIT PREPARED 'unheard'");
	like($err, qr/prepared\.ended/, "$dbname: the statement fails");
	is(ask($node, "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'unheard'", $dbname), 0, 'and the transaction has ended');
	return;
}

foreach my $dbname (@databases)
{
	is(take('made', 9, $dbname), 0, "$dbname: the list is empty");
	end_unheard($dbname, 2);
	is(take('made', 9, $dbname), 2, 'its jobs are given');
	# The same name again and again.
	end_unheard($dbname, $_) foreach 1 .. 3;
	is(take('made', 9, $dbname), 6, 'and those of several of one name');
}
$node->append_conf('postgresql.conf', "qml.faults = 'prepared.entries:limit:3'");
$node->reload;
wait_for('the limit', sub { ask($node, 'SHOW qml.faults') =~ /prepared\.entries/ });
foreach my $dbname (@databases)
{
	my ($other) = grep { $_ ne $dbname } @databases;
	is(take('made', 9, $dbname), 0, "$dbname: nothing is left");
	end_unheard($dbname, 1) foreach 1 .. 3;
	# There is room, as those have ended.
	query($node, "BEGIN; SELECT fill('made', 1); PREPARE TRANSACTION 'one more'; COMMIT PREPARED 'one more'", $other);
	is(take('made', 9, $other), 1, "$other: a transaction finds room");
	is(take('made', 9, $dbname), 3, "$dbname: the jobs of those that made way are given");
	end_unheard($dbname, 1) foreach 1 .. 3;
	query($node, "BEGIN; SELECT fill('made', 1); PREPARE TRANSACTION 'one more'; COMMIT PREPARED 'one more'", $dbname);
	is(take('made', 9, $dbname), 4, 'and in the same database');
}
query($node, "BEGIN; SELECT fill('made', 1); PREPARE TRANSACTION 'kept $_'") foreach 1 .. 3;
my ($rc, undef, $err) = $node->psql('postgres', "BEGIN; SELECT fill('made', 1); PREPARE TRANSACTION 'kept 4'");
like($err, qr/there are more prepared transactions than there can be/, 'more than there is room for are refused');
query($node, "COMMIT PREPARED 'kept $_'") foreach 1 .. 3;
is(take('made'), 3, 'the others are not concerned');

# ---- numbers

$node->adjust_conf('postgresql.conf', 'qml.faults', undef);
set_config($node, 'qml.faults' => 'counting.compare_ms:limit:200,counting.rest_ms:limit:200,counting.pause_ms:limit:100', 'qml.enabled' => 'on');
wait_for_process($node, 'scheduler', 'postgres');

sub is_counted { return ask($node, 'SELECT pages_of_counts()') <= 5; }

sub depth { return ask($node, "SELECT qml_queue_depth('made')"); }

sub wait_compared
{
	my $before = log_count($node, 'all jobs were counted', 0);
	wait_for('comparisons', sub { log_count($node, 'all jobs were counted', 0) >= $before + 3 });
	return;
}

query($node, "SELECT fill('made', 10)");
wait_for('the numbers', \&is_counted);
my $begun = log_count($node, 'all jobs were counted', 0);
end_unheard('postgres', 5);
is(depth(), 15, 'jobs of a statement that failed are counted');
wait_compared();
is(depth(), 15, 'and no second time');
end_unheard('postgres', 5);
wait_compared();
is(depth(), 20, 'a count finds those that nobody has read');
is(log_count($node, 'wrong, and w', 0), 0, 'no number was wrong');
is(log_count($node, 'was missing in the list', 0), 0, 'no job was missing in a list');
is(log_count($node, 'PANIC', 0) + log_count($node, 'TRAP', 0), 0, 'no process failed');
end_sessions($node);
$node->stop;

done_testing();
