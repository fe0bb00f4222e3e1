# A claim that finds the list of its queue empty, while another session fills it up, searches the
# index.  It begins behind what the list had, so that it does not walk over the entries of what was
# finished: whether any job is wanted, or only those of some methods, or those without a handler.

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

$snapshot->query_safe('COMMIT');
$_->quit foreach $gate, $snapshot, $filler, $worker;
end_sessions($node);
$node->stop;
done_testing();
