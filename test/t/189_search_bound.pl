# A claim that finds the list of its queue empty, while another session fills it up, searches the
# index.  It begins behind what the list had, so that it does not walk over the entries of what was
# finished: whether any job is wanted, or only those of some methods, or those without a handler.
# Nor does one in a transaction that has made jobs of the queue itself.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;

# Dead entries in front of the queue, and what a walk over them costs at least.
my ($DEAD, $WALK) = (20_000, 200);
# What a search from the bound may cost.
my $MOST = 40;
my $GATE = 4711;

my $node = new_node('search_bound', variant => 'faults', conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.enabled = off
qml.succeeded_ttl = 0
client_min_messages = warning
autovacuum = off
fsync = off
CONF

my $buffers = 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)';
my ($gate, $snapshot, $filler, $worker) = map { new_session($node) } 1 .. 4;

# Pages that a fetch touches, and jobs that it gives.
sub fetch
{
	my ($arguments) = @_;
	my $top = json($worker->query_safe("$buffers SELECT * FROM qml_fetch('w', 'q'$arguments)"))->[0]{Plan};
	return ($top->{'Shared Hit Blocks'} + $top->{'Shared Read Blocks'}, $top->{'Actual Rows'} + 0);
}

ask($node, "CREATE FUNCTION run(jsonb) RETURNS void LANGUAGE sql AS ''");
$snapshot->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$snapshot->query_safe('SELECT count(*) FROM qml.live');
ask($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[$DEAD]), 'q')");
ask($node, <<"SQL");
DO \$\$ BEGIN FOR i IN 1..$DEAD / 1000 LOOP
	PERFORM qml_succeed_many(array_agg(id), array_agg(attempt)) FROM qml_fetch('w', 'q', 1000); COMMIT;
END LOOP; END \$\$
SQL

foreach my $case (
	[ 'any job', '' ],
	[ 'those of a method', q(, methods => '{m}') ],
	[ 'those without a handler', '', q(SELECT qml_register_handler('other', 'run')) ])
{
	my ($name, $arguments, $before) = @$case;

	ask($node, $before) if $before;
	ask($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[2000]), 'q')");
	# What a session reads once.
	fetch($arguments);
	$worker->query_safe('SET qml.ready_lists = off');
	my ($walk) = fetch($arguments);
	$worker->query_safe('SET qml.ready_lists = on');
	cmp_ok($walk, '>=', $WALK, "$name: from the beginning, a search touches $walk pages") if $arguments eq '';

	# The filler has taken all that the list had, and stands still when it has walked.
	$gate->query_safe("SELECT pg_advisory_lock($GATE)");
	$filler->query_safe(q(SET qml.faults = 'list.fill_walked:wait'));
	$filler->query_until(qr/begins/, "\\echo begins\nSELECT count(*) FROM qml_fetch('f', 'q', 1000$arguments);\n\\echo ends\n");
	wait_for('the filler', sub {
		ask($node, q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)) == 1;
	});
	foreach my $batch (1, 100)
	{
		my ($pages, $jobs) = fetch("$arguments, batch => $batch");
		is($jobs, $batch, "$name: a search gives $batch");
		cmp_ok($pages, '<=', $MOST + 5 * $batch, "and touches $pages pages");
	}
	$gate->query_safe("SELECT pg_advisory_unlock($GATE)");
	$filler->query_until(qr/ends/, '');
	ask($node, q(SELECT count(qml_release(id, attempt)) FROM qml.job WHERE state = 'processing'));
	ask($node, q(SELECT count(qml_delete(id)) FROM qml.job WHERE state = 'enqueued'));
}

# ---- A transaction that has made jobs of the queue itself, which are in no list yet.

ask($node, "SELECT qml_unregister_handler('other')");
ask($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[2000]), 'q')");
fetch('');
$worker->query_safe('BEGIN');
$worker->query_safe("SELECT qml_enqueue('m', queue => 'q')");
foreach my $from ('', q(, queues => NULL))
{
	my $call = $from ? "qml_fetch('w')" : "qml_fetch('w', 'q')";
	my $top = json($worker->query_safe("$buffers SELECT * FROM $call"))->[0]{Plan};
	my $pages = $top->{'Shared Hit Blocks'} + $top->{'Shared Read Blocks'};
	is($top->{'Actual Rows'} + 0, 1, "$call gives a job in a transaction that has made one");
	cmp_ok($pages, '<=', $MOST, "and touches $pages pages");
}
$worker->query_safe('COMMIT');
$snapshot->query_safe('COMMIT');

# In the order of the queue, whoever has made them.  Some are undone, some are given back.
ask($node, <<'SQL');
CREATE FUNCTION make(jobs int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..jobs LOOP
		PERFORM qml_enqueue('m', queue => 'r', priority => floor(random() * 4)::int);
	END LOOP;
END $$;
-- What is wrong with what a fetch gives: the first jobs of those that are ready, in their order.
CREATE FUNCTION try_fetch(batch int, from_all boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	expected uuid[];
	got uuid[];
BEGIN
	SELECT coalesce(array_agg(id ORDER BY priority DESC, id), '{}') INTO expected
	FROM (SELECT l.id, l.priority FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id
		WHERE q.name = 'r' AND l.state = 'enqueued' ORDER BY l.priority DESC, l.id LIMIT batch) x;
	SELECT coalesce(array_agg(f.id ORDER BY f.ordinality), '{}') INTO got
	FROM qml_fetch('w', CASE WHEN from_all THEN NULL ELSE 'r' END, batch) WITH ORDINALITY f;
	RETURN CASE WHEN expected = got THEN '' ELSE format('%s instead of %s', got, expected) END;
END $$;
-- Makes and fetches jobs in one transaction, a part of which is undone.
CREATE FUNCTION mix(turns int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	wrong text := '';
BEGIN
	FOR turn IN 1..turns LOOP
		BEGIN
			PERFORM make(floor(random() * 3)::int);
			wrong := wrong || try_fetch(1 + floor(random() * 5)::int, random() < 0.3);
			IF random() < 0.2 THEN
				PERFORM qml_release(id, attempt) FROM qml.job WHERE queue = 'r' AND state = 'processing' LIMIT 2;
			END IF;
			IF random() < 0.3 THEN
				RAISE division_by_zero;
			END IF;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
		wrong := wrong || try_fetch(1, false);
	END LOOP;
	RETURN wrong;
END $$;
SQL
ask($node, 'TRUNCATE qml.live');
foreach my $round (1 .. 20)
{
	ask($node, 'SELECT make(60)');
	is(ask($node, 'SELECT mix(15)'), '', "in order, round $round");
}
my ($all, $rest) = (ask($node, q(SELECT count(*) FROM qml.live WHERE state = 'enqueued')), 0);
while (my $got = ask($node, q(SELECT count(*) FROM qml_fetch('w', 'r', 100)))) { $rest += $got; }
is($rest, $all, "and the $all that are left are there for all");

# ---- A transaction that has rewritten the table, of which each row is its own then.

ask($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[100]), 's')");
$worker->query_safe('BEGIN');
$worker->query_safe('ALTER TABLE qml.live SET UNLOGGED');
$worker->query_safe('ALTER TABLE qml.live SET LOGGED');
is($worker->query_safe("SELECT count(*) FROM qml_fetch('w', 's', 10)"), 10, 'it gets jobs');
$worker->query_safe('COMMIT');
is(ask($node, "SELECT count(*) FROM qml_fetch('w', 's', 100)"), 90, 'and so do others');

$_->quit foreach $gate, $snapshot, $filler, $worker;
end_sessions($node);
$node->stop;
done_testing();
