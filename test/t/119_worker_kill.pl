# Clients enqueue while workers in the database run what they enqueue, and workers and
# the server are killed and terminated at random: no job is lost, none ends twice or
# does twice what it has to do, no attempt is given out twice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $JOBS = 20_000;
# Those after which the server begins anew, and those that end one worker.
my %CRASHES = (kill_a_worker => 4, kill_the_server => 4, stop_immediately => 3);
my %ENDS = (terminate_a_worker => 5, end_a_worker => 3);

my $node = background_node('worker_kill', conf => <<'CONF');
log_error_verbosity = terse
qml.workers = 3
CONF
my $logs = make_log_dir();

# The rows that a success of each method leaves in the ledger.
my %METHODS = (nothing => 0, record => 1, shaky => 1, steps => 1, nap => 1, later => 1);
my $EFFECT = 'INSERT INTO ledger VALUES ((job).id, (job).attempt)';

wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE TABLE ledger (job uuid, attempt int);
CREATE TABLE step (job uuid, attempt int, PRIMARY KEY (job, attempt));
SELECT qml_create_queue(name, '{"retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}')
FROM unnest(ARRAY['a', 'b']) name;
SQL
noted_handler($node, 'FUNCTION', 'nothing');
noted_handler($node, 'FUNCTION', 'record', $EFFECT);
noted_handler($node, 'FUNCTION', 'shaky', $EFFECT,
	"IF hashtext(concat((job).id, (job).attempt)) % 4 = 0 THEN RAISE 'it shakes'; END IF");
# What it commits first stays, whatever becomes of the attempt: once for each.
noted_handler($node, 'PROCEDURE', 'steps', 'INSERT INTO step VALUES ((job).id, (job).attempt)', 'COMMIT', $EFFECT);
noted_handler($node, 'FUNCTION', 'nap', $EFFECT, 'PERFORM pg_sleep(0.01)');
# Its first attempt does not count, and has no effect.
noted_handler($node, 'FUNCTION', 'later',
	"IF (job).attempt = 1 THEN PERFORM qml_retry_later('10 ms', 'not yet'); ELSE $EFFECT; END IF");

sub answers
{
	my ($sql) = @_;
	return try_query($node, $sql) // '';
}

# Interruptions come at random points of the work, not of the time.
sub wait_for_progress
{
	my $mark = (-s $node->logfile) + pick(20_000, 90_000);
	wait_for('the jobs to get on', sub { -s $node->logfile >= $mark });
	return;
}

# The pid of a worker, of one that is at work if there is any.
sub some_worker
{
	my $pid;
	wait_for('a worker',
		sub { ($pid) = answers(<<'SQL') =~ /^(\d+)$/; return defined $pid });
SELECT pid FROM pg_stat_activity WHERE backend_type = 'qml worker'
ORDER BY state = 'idle', random() LIMIT 1
SQL
	return $pid;
}

# The postmaster ends all others, too.
sub kill_a_worker
{
	my $offset = -s $node->logfile;
	my $pid = some_worker();

	kill 'KILL', $pid or return 0;
	wait_for('the server to notice',
		sub { slurp_file($node->logfile, $offset) =~ /\(PID $pid\) was terminated by signal 9/ });
	wait_for('the server to be back', sub { answers('SELECT 1') eq '1' });
	return 1;
}

sub kill_the_server
{
	kill_server($node);
	start_again($node);
	return 1;
}

sub stop_immediately
{
	$node->stop('immediate');
	start_again($node);
	return 1;
}

sub terminate_a_worker
{
	return answers('SELECT pg_terminate_backend(' . some_worker() . ')') eq 't';
}

sub end_a_worker
{
	return kill 'TERM', some_worker();
}

my @producers = map {
	start_client(
		$node, 'produce', $logs,
		'--max-seconds', 240,
		'--jobs', $JOBS / 2,
		'--methods', join(',', sort keys %METHODS),
		'--queues', 'a,b',
		'--priorities', 3,
		'--max-retries', 50,
		'--many-fraction', 0.3,
		'--many-size', 60,
		'--transaction', 0.3,
		'--delayed', 0.1,
		'--delay-ms', 1000,
		'--pace-ms', 2,
		$_ == 1 ? '--prepared' : ())
} 1, 2;

my $crashes = 0;
my $ends = 0;
foreach my $kind (shuffle(map { my $kind = $_; ($kind) x ($CRASHES{$kind} // $ENDS{$kind}) }
		sort(keys %CRASHES, keys %ENDS)))
{
	wait_for_progress();
	my $done = main->can($kind)->();
	note(sprintf '%s: %s', $kind, $done ? 'done' : 'too late');
	$crashes += $done if $CRASHES{$kind};
	$ends += $done if $ENDS{$kind};
}
finish_clients('the producers end', @producers);
wait_for('all jobs to be finished', sub { answers('SELECT count(*) FROM qml.live') eq '0' });

check_ok(
	$node, "the checker finds nothing after $crashes crashes and $ends ends of workers", $logs,
	handlers => \%METHODS,
	effects => 'ledger',
	runs => [ $node->logfile ],
	allow => [qr/^terminating background worker "qml worker" due to administrator command/],
	crashes => 1,
	final => 1,
	amcheck => 1);

cmp_ok($crashes, '>=', 10, "the server crashed $crashes times");
cmp_ok($ends, '>=', 6, "workers were ended $ends times");

is(query($node, <<'SQL'), 0, 'a procedure commits once an attempt what it commits by itself');
SELECT count(*) FROM qml.job j LEFT JOIN step s ON s.job = j.id AND s.attempt = j.attempt
WHERE method = 'steps' AND state = 'succeeded' AND s.job IS NULL
SQL
is(query($node, <<'SQL'), '', 'no job met an error but those that were meant');
SELECT DISTINCT e ->> 'error_type', e ->> 'error'
FROM qml.job, jsonb_array_elements(errors) e
WHERE e ->> 'error_type' NOT IN ('session_gone', 'server_down')
	AND NOT (method = 'shaky' AND e ->> 'error' = 'it shakes')
SQL

# One that was there in a crash runs with no other of that kind: a crash meets one.
my ($lost, $down, $again, $given_up) = split /\|/, query($node, <<'SQL');
SELECT sum(gone), sum(down), sum(greatest(down - 1, 0)), count(*) FILTER (WHERE state = 'failed')
FROM (SELECT state, count(*) FILTER (WHERE e ->> 'error_type' = 'session_gone') AS gone,
		count(*) FILTER (WHERE e ->> 'error_type' = 'server_down') AS down
	FROM qml.job, jsonb_array_elements(errors) e GROUP BY id, state) j
SQL
cmp_ok($lost, '>', 0, "$lost attempts were lost with a worker");
cmp_ok($down, '>', 0, "$down attempts were lost with the server");
cmp_ok($again, '<=', $crashes, "$again of them of jobs that had been lost so before");
cmp_ok($given_up, '<=', $again / 2, "$given_up jobs were given up");
my $jobs = query($node, "SELECT count(*) FROM qml.job");
cmp_ok($jobs, '>=', $JOBS * 0.9, "$jobs jobs");
is(query($node, 'SELECT count(DISTINCT method) FROM qml.job'), scalar keys %METHODS, 'of all kinds');
is(query($node, "SELECT count(*) FROM qml.job WHERE method = 'later' AND attempt = 1"),
	0, 'those that asked for it ran again');

done_testing();
