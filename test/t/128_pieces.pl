# What the scheduler does about all jobs, it does in pieces: with more jobs than fit into
# the time limit of a step it comes to its end all the same, and holds up no other step.
# A step that meets its limit says so.  A worker passes over the jobs of others in pieces, too.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

my $WAITING = 300_000;

my $node = background_node('pieces', variant => 'faults', conf => <<'CONF');
autovacuum = off
qml.faults = 'process.timeout_ms:limit:1000'
CONF
wait_for_process($node, 'scheduler', 'postgres');

# Until now everything is found; what follows is found by the scheduler that comes.
sub end_scheduler
{
	my $pid = wait_for_process($node, 'scheduler', 'postgres');
	query($node, "SELECT pg_terminate_backend($pid)");
	return wait_for_process($node, 'scheduler', 'postgres', $pid);
}

# ---- a step that meets its limit

{
	my $offset = -s $node->logfile;
	my $session = new_session($node);

	# Longer than the limit, which is shorter than the time that a lock is waited for.
	$session->query_safe('BEGIN; LOCK TABLE qml.live IN EXCLUSIVE MODE');
	wait_for(
		'the step to be stopped',
		sub {
			slurp_file($node->logfile, $offset) =~
			  /qml scheduler: \w[^:]* failed: it did not end within 1 seconds \(SQLSTATE 57014\)/;
		});
	$session->query_safe('COMMIT');
	$session->quit;
	pass('a step that is stopped by its limit is in the log');
}

# ---- more jobs than fit into it

query($node, <<"SQL");
CREATE ROLE worker LOGIN;
CREATE ROLE nobody LOGIN;
SELECT qml_grant('worker', 'work');
CREATE FUNCTION at_the_end(payload jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION at_the_end OWNER TO worker;
SELECT qml_create_queue('first');
SELECT count(*) FROM qml_enqueue_many('waits', array_fill('{}'::jsonb, ARRAY[$WAITING]), 'waiting');
-- Behind the jobs that wait, for which there is no handler.
SELECT qml_create_queue('ours');
SQL

# How long it takes to read all jobs once, with nothing to do; and so the limit.  In this isolation
# level they are read in any case.
my $began = time;
is(ask($node, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT qml_reclaim(); COMMIT'), 0, 'nothing is lost yet');
my $limit = int((time - $began) * 1000 / 3) || 1;
note("all jobs are read in ${\ ($limit * 3)} ms");

# Everything that is to be found lies behind the jobs that wait.
my $pieces = 'walk.piece_ms:limit:1,walk.chunk_pages:limit:64,claim.ms:limit:1';
set_config($node, 'qml.faults' => $pieces,
	'qml.enabled' => 'off', 'qml.dead_server_timeout' => '5s');
wait_without($node, 'postgres');
query($node, <<'SQL');
SELECT qml_enqueue('lease', queue => 'lost');
SELECT count(*) FROM qml_fetch('w', ARRAY['lost'], lease => '1 us');
SELECT qml_register_server(s) AS s FROM unnest('{one,two,three}'::text[]) s;
SELECT count(qml_enqueue('server', queue => 'lost_' || name)) FROM qml.server_data;
SELECT count(*) FROM qml.server_data s, LATERAL qml_fetch(s.id || '/w', ARRAY['lost_' || name], lease => '1 day');
UPDATE qml.server_data SET heartbeat_at = now() - interval '1 h';
SELECT qml_register_handler('runs', 'at_the_end', '{"run_as": "worker"}');
SELECT qml_register_handler('cannot', 'at_the_end', '{"run_as": "nobody"}');
SELECT qml_enqueue('runs', queue => 'ours'), qml_enqueue('cannot', queue => 'ours');
ALTER ROLE nobody NOLOGIN;
SQL

my $offset = -s $node->logfile;
set_config($node,
	'qml.faults' => "$pieces,process.timeout_ms:limit:$limit",
	'qml.enabled' => undef);
foreach my $case (
	[ 'the lease that is over is found', "method = 'lease' AND state = 'enqueued' AND error = 'lease expired'", 1 ],
	[ 'the jobs of dead servers are', "method = 'server' AND state = 'enqueued' AND error = 'server is gone'", 3 ],
	[ 'the role that has work gets a worker, which finds its job', "method = 'runs' AND state = 'succeeded'", 1 ],
	[ 'the job that no worker can run fails', "method = 'cannot' AND state = 'failed'", 1 ])
{
	my ($name, $jobs, $count) = @$case;
	wait_for($name, sub { query($node, "SELECT count(*) FROM qml.job WHERE $jobs") == $count });
	pass($name);
}
my $log = slurp_file($node->logfile, $offset);
like($log, qr/server "$_:\w+" sent no heartbeat for 5 seconds; its jobs are reclaimed/, "server $_ is told of")
  foreach qw(one two three);
unlike($log, qr/qml worker failed/, 'no claim of the worker meets the limit');
is(query($node, "SELECT count(*) FROM qml.job WHERE method = 'waits' AND state = 'enqueued'"),
	$WAITING, 'nothing else has changed');

# ---- a job that comes while the worker passes over those of others

# It stands before or behind the place of the worker, which finds it in any case.
foreach my $round (1 .. 3)
{
	query($node, "SELECT qml_enqueue('runs', queue => q) FROM unnest('{ours,first}'::text[]) q");
	wait_for("the jobs of round $round",
		sub { query($node, "SELECT count(*) FROM qml.job WHERE method = 'runs' AND state = 'succeeded'") == 1 + 2 * $round });
}
pass('jobs before and behind all others are run');

# ---- a lease whose end is noted while the walk goes on

# The walk never stops: whoever comes behind it must be found by the next one.
foreach my $round (1 .. 2)
{
	query($node, "SELECT qml_enqueue('again', queue => 'again$round');
		SELECT count(*) FROM qml_fetch('w', ARRAY['again$round'], lease => '200 ms')");
	wait_for("the lease of round $round to be found",
		sub { query($node, "SELECT state FROM qml.job WHERE queue = 'again$round'") eq 'enqueued' });
}
pass('leases that end later are found');

end_sessions($node);
done_testing();
