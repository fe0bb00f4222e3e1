# Dropping a queue, or the extension, holds up nobody for longer than it must: a queue that
# is in use is tried for a second, and running jobs are canceled for DROP EXTENSION.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = background_node('drop', conf => "qml.workers = 2\nqml.worker_idle_timeout = 60\n");

# ---- A queue

# Each of these transactions stays open, and keeps the queue from being dropped.
query($node, 'CREATE ROLE alice');
my $other = new_session($node);

# Drops the queue in a session of its own.
sub start_drop
{
	my %drop = (out => '', err => '');
	$drop{handle} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', "SELECT qml_drop_queue('q')" ],
		'<', \undef, '>', \$drop{out}, '2>', \$drop{err});
	wait_for('the drop to begin', sub {
		IPC::Run::pump_nb($drop{handle});
		return query($node, "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT qml_drop_queue' AND pid <> pg_backend_pid()") == 1;
	});
	return \%drop;
}

# What it says.
sub finish_drop
{
	my ($drop) = @_;
	IPC::Run::finish($drop->{handle});
	return $drop->{err};
}

foreach my $use ("SELECT qml_enqueue('m', queue => 'q')", "SELECT count(*) FROM qml_enqueue_many('m', '{1,2}', 'q')", "SELECT qml_pause_queue('q')",
	"SELECT qml_alter_queue('q', '{\"max_retries\": 1}')", "SELECT qml_grant('alice', 'work')")
{
	query($node, "SELECT qml_create_queue('q')");
	$other->query_safe("BEGIN; $use");
	my $drop = start_drop();
	# All the time others can add jobs, and take them away again.
	my ($slowest, $tries) = (0, 0);
	my $end = time + 1.5;
	while (time < $end)
	{
		my $start = time;
		query($node, "BEGIN; SELECT qml_enqueue('m', queue => 'q'); ROLLBACK");
		my $took = time - $start;
		$slowest = $took if $took > $slowest;
		$tries++;
	}
	like(finish_drop($drop), qr/ERROR:  55P03: could not drop queue "q" because another transaction is using it\n.*HINT:  Try again when that transaction has ended/s,
		"refused: $use");
	cmp_ok($slowest, '<', 0.9, sprintf 'adding a job waits %.2f s at most, %d times', $slowest, $tries);
	$other->query_safe('ROLLBACK');
	query($node, "SELECT qml_drop_queue('q')");
	is(query($node, "SELECT count(*) FROM qml.queue WHERE name = 'q'"), 0, 'dropped when that has ended');
}
# If the other one ends in time, the queue is dropped, or its job is found.
query($node, "SELECT qml_create_queue('q')");
$other->query_safe("BEGIN; SELECT qml_enqueue('m', queue => 'q')");
my $drop = start_drop();
$other->query_safe('ROLLBACK');
is(finish_drop($drop), '', 'the other transaction is waited for');
is(query($node, "SELECT count(*) FROM qml.queue WHERE name = 'q'"), 0, 'dropped after a rollback');
query($node, "SELECT qml_create_queue('q')");
$other->query_safe("BEGIN; SELECT qml_enqueue('m', queue => 'q')");
$drop = start_drop();
$other->query_safe('COMMIT');
like(finish_drop($drop), qr/ERROR:  55006: queue "q" has unfinished jobs/, 'refused after a commit');
$other->quit;

# ---- The extension

query($node, <<'SQL');
DELETE FROM qml.live;
CREATE TABLE ledger (job text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION long(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger VALUES (payload ->> 'name');
	PERFORM pg_sleep((payload ->> 'seconds')::float);
END $$;
SELECT qml_register_handler('long', 'long');
SQL

sub running
{
	return query($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'qml worker' AND wait_event = 'PgSleep'");
}

# Rolled back: the jobs run again, and the attempts do not count.
query($node, "SELECT qml_enqueue('long', jsonb_build_object('name', n, 'seconds', CASE WHEN n < 3 THEN 60 ELSE 0 END), max_retries => 0) FROM generate_series(1, 3) n");
wait_for('two jobs to run', sub { running() == 2 });
my $start = time;
query($node, "BEGIN; SET LOCAL statement_timeout = '30 s'; DROP EXTENSION qml; ROLLBACK");
my $took = time - $start;
cmp_ok($took, '<', 8, sprintf 'DROP EXTENSION behind two jobs of a minute takes %.1f s', $took);
wait_for('the jobs to run again', sub { running() == 2 });
is(query($node, "SELECT string_agg(concat_ws(' ', state, attempt - (SELECT coalesce(uncounted, 0) FROM qml.live l WHERE l.id = j.id)), ', ') FROM qml.job j WHERE payload ->> 'name' IN ('1', '2')"),
	'processing 1, processing 1', 'at their first attempt that counts');
is(query($node, 'SELECT count(*) FROM ledger'), 0, 'what was canceled has left nothing');

# Committed: nothing of qml is left, and the processes are gone.
$start = time;
query($node, "SET statement_timeout = '30 s'; DROP EXTENSION qml");
$took = time - $start;
cmp_ok($took, '<', 8, sprintf 'and committed it takes %.1f s', $took);
wait_for('the workers to end', sub { query($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('qml worker', 'qml scheduler')") == 0 });
query($node, 'CREATE EXTENSION qml');
query($node, "SELECT qml_register_handler('long', 'long'); SELECT qml_enqueue('long', '{\"name\": \"again\", \"seconds\": 0}')");
wait_for('a job of the new extension', sub { query($node, "SELECT count(*) FROM ledger WHERE job = 'again'") == 1 });
ok(1, 'created again, it works');

# A handler that ignores the cancel ends with its process.
query($node, <<'SQL');
CREATE FUNCTION stubborn(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 60 LOOP
		BEGIN
			PERFORM pg_sleep(1);
		EXCEPTION WHEN query_canceled THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT qml_register_handler('stubborn', 'stubborn'), qml_enqueue('stubborn');
SQL
wait_for('it to run', sub { running() == 1 });
$start = time;
query($node, "SET statement_timeout = '60 s'; DROP EXTENSION qml");
$took = time - $start;
cmp_ok($took, '<', 20, sprintf 'also behind a handler that catches the cancel (%.1f s)', $took);

end_sessions($node);
$node->stop;
done_testing();
