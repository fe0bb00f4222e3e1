# A call fails, loses its session or crashes the server at each fault point;
# afterwards every job is where it should be.  A point that was not reached
# fails the test.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $JOBS = 60;
my @ACTIONS = qw(error fatal abort);

# What brings a point about, and its nth passage in the backend: the first few
# calls go well where the call can be repeated.
my @POINTS = (
	[ 'enqueue.after_insert', \&fault_in_producer, 3 ],
	[ 'enqueue.precommit', \&fault_in_producer, 3 ],
	[ 'claim.after_lock', \&fault_in_worker, 4 ],
	[ 'claim.before_commit', \&fault_in_worker, 2 ],
	[ 'lease.renew', \&fault_in_worker, 3 ],
	[ 'finish.before_update', \&fault_in_worker, 4 ],
	[ 'finish.before_commit', \&fault_in_worker, 4 ],
	[ 'reclaim.after_select', \&fault_in_reclaim, 1 ],
	[ 'reclaim.before_commit', \&fault_in_reclaim, 1 ],
	[ 'promote.after_select', \&fault_in_promote, 1 ],
	[ 'promote.before_commit', \&fault_in_promote, 1 ],
	[ 'recurring.before_advance', \&fault_in_recurring, 4 ],
	[ 'recurring.after_insert', \&fault_in_recurring, 30 ],
	[ 'recurring.before_commit', \&fault_in_recurring, 1 ],
	[ 'cleanup.mid_batch', \&fault_in_cleanup, 1 ],
);

my $node = new_node('faults', variant => 'faults');

# Clients with the fault armed in their first connection only.
sub armed
{
	my ($fault) = @_;
	return ('--first-options', "-c qml.faults=$fault");
}

sub produce_jobs
{
	my ($logs, @args) = @_;
	return start_client($node, 'produce', $logs, '--max-seconds', 30,
		'--jobs', $JOBS, '--queues', 'a,b', @args);
}

sub worker
{
	my ($logs, @args) = @_;
	return start_client(
		$node, 'work', $logs,
		'--max-seconds', 30,
		'--drain',
		'--batch', 3,
		'--lease', '700 ms',
		'--retry-ms', 10,
		'--fail', 0.1,
		'--release', 0.05,
		@args);
}

# The worker with the fault comes first, the others when it has met it, or
# when it has nothing left to do.
sub drain_with
{
	my ($fault, $reached, $logs, @args) = @_;
	my @workers = worker($logs, armed($fault), '--maintain-ms', 20, @args);

	wait_for(
		'the fault, or the worker that was to meet it',
		sub {
			return $reached->() || !$workers[0]{handle}->pumpable;
		});
	push @workers, worker($logs), worker($logs, '--many');
	finish_clients("$fault: the workers end", @workers);
	return;
}

sub drain
{
	my ($fault, $logs) = @_;
	finish_clients("$fault: the workers end",
		worker($logs, '--maintain-ms', 20), worker($logs));
	return;
}

sub fault_in_producer
{
	my ($fault, $reached, $logs) = @_;

	finish_clients("$fault: the producer ends",
		produce_jobs($logs, armed($fault), '--many-fraction', 0.2,
			'--many-size', 5, '--transaction', 0.4));
	drain($fault, $logs);
	return;
}

sub fault_in_worker
{
	my ($fault, $reached, $logs) = @_;

	finish_clients("$fault: the producer ends", produce_jobs($logs));
	drain_with($fault, $reached, $logs, '--heartbeat', 1);
	return;
}

# Somebody takes jobs and is never heard of again.
sub fault_in_reclaim
{
	my ($fault, $reached, $logs) = @_;

	finish_clients("$fault: the producer ends", produce_jobs($logs));
	foreach my $claim (split /\n/, query($node, <<'SQL'))
SELECT id || ' ' || attempt || ' ' || extract(epoch FROM lease_expires_at)
FROM qml_fetch('ghost', NULL, 20, '1 ms')
SQL
	{
		my ($id, $attempt, $lease) = split / /, $claim;
		write_event($logs, 'claimed', $id, $attempt, 'processing', "lease=$lease");
	}
	drain_with($fault, $reached, $logs);
	return;
}

sub fault_in_promote
{
	my ($fault, $reached, $logs) = @_;

	finish_clients("$fault: the producer ends",
		produce_jobs($logs, '--delayed', 1, '--delay-ms', 300));
	drain_with($fault, $reached, $logs);
	return;
}

# Two poll at once; one of them has two schedules in a transaction that is still
# open when the other meets the fault with the rest.
sub fault_in_recurring
{
	my ($fault, $reached, $logs) = @_;
	my $survives = $fault =~ /^recurring\.(before_advance|after_insert):error/;

	my $start = query($node, <<'SQL');
BEGIN;
SELECT qml_create_queue('a') \g /dev/null
SELECT qml_schedule_recurring('s' || n, '0 * * * * *', 'tick', '{"batch": "ticks"}', 'a',
	misfire => 'fire_all') FROM generate_series(1, 5) n \g /dev/null
UPDATE qml.recurring_data SET next_run_at = date_trunc('minute', now()) - interval '20 min';
COMMIT;
SELECT min(next_run_at) FROM qml.recurring_data;
SQL
	my $other = new_session($node);
	$other->query_safe('BEGIN');
	is($other->query_safe('SELECT qml_poll_recurring(2) > 40'),
		't', "$fault: two schedules fire");
	my $rc = $node->psql('postgres', "SET qml.faults = '$fault'; SELECT qml_poll_recurring()",
		stderr => \my $ignored);
	is($rc == 0, $survives, "$fault: the poll " . ($survives ? 'succeeds' : 'fails'));
	$other->query('COMMIT') unless $fault =~ /:abort:/;
	eval { $other->quit };
	wait_for('the server to answer', sub { defined try_query($node, 'SELECT true') });
	query($node, 'SELECT qml_poll_recurring()');

	is(query($node, <<"SQL"), 0, "$fault: each tick is recorded once and has its job");
SELECT count(*)
FROM (SELECT r.id, t.tick FROM qml.recurring_data r,
		generate_series('$start'::timestamptz, r.last_run_at, interval '1 min') t (tick)) s
FULL JOIN (SELECT * FROM qml.occurrence_data WHERE job IS NOT NULL) o ON o.recurring = s.id AND o.occurrence = s.tick
FULL JOIN (SELECT id, metadata #>> '{recurring,id}' AS recurring,
		(metadata #>> '{recurring,tick}')::timestamptz AS tick FROM qml.job) j
	ON j.id = o.job AND j.recurring = o.recurring AND j.tick = o.occurrence
WHERE s.id IS NULL OR o.job IS NULL OR j.id IS NULL
SQL
	is( query($node, <<'SQL'), 5, "$fault: all schedules go on");
SELECT count(*) FROM qml.recurring_data r JOIN qml.occurrence_data o ON o.job = r.last_job
WHERE r.last_run_at = o.occurrence AND r.next_run_at = o.occurrence + interval '1 min'
	AND r.error IS NULL
SQL
	my $ticks = query($node, <<"SQL");
SELECT sum(extract(epoch FROM last_run_at - '$start'::timestamptz) / 60 + 1)::int FROM qml.recurring_data
SQL
	cmp_ok($ticks, '>=', 5 * 21, "$fault: all ticks that were due");
	write_event($logs, 'enqueued', '-', undef, undef, "op=enqueue_many batch=ticks count=$ticks");
	drain($fault, $logs);
	return;
}

# Cleaning up by hand, beside jobs that come and go and must not suffer.  While others
# use the history a partition may have to be left, so this goes on until one is
# dropped; with the fault that is undone, and it goes the next time.
sub fault_in_cleanup
{
	my ($fault, $reached, $logs) = @_;
	my @leaves = map { expired_leaf($node, $_, 10) } 1, 2;
	my $producer = produce_jobs($logs, '--pace-ms', 40);
	my $worker = worker($logs, '--maintain-ms', 20, '--idle', 50);

	wait_for('jobs to be finished', sub {
		grep { $_->{name} eq 'acked' } QmlChecker::read_events($logs) });
	wait_for('the fault', sub {
		$node->psql('postgres', "SET qml.faults = '$fault'; SELECT qml_cleanup()",
			stderr => \my $ignored);
		return $reached->();
	});
	ok($producer->{handle}->pumpable && $worker->{handle}->pumpable,
		"$fault: jobs are enqueued and worked meanwhile");
	wait_for('the server to answer', sub { defined try_query($node, 'SELECT true') });
	is( query($node, "SELECT count(*) FROM qml.history WHERE method = 'old'"),
		20, "$fault: nothing is dropped");
	finish_clients("$fault: the producer and the worker end", $producer, $worker);
	is(query($node, 'SELECT qml_cleanup()'), 20, "$fault: the next cleanup drops all");
	is( query(
			$node, "SELECT count(*) FROM pg_class WHERE relname IN ('$leaves[0]', '$leaves[1]')"),
		0, "$fault: the partitions are gone");
	drain($fault, $logs);
	return;
}

sub sweep
{
	my ($point, $bring_about, $nth, $action) = @_;
	my $fault = "$point:$action:$nth";
	my $logs = make_log_dir();
	my $offset = -s $node->logfile;
	my $started = time;
	my $reached = sub {
		return slurp_file($node->logfile, $offset) =~
		  /qml fault point "\Q$point\E" reached/;
	};

	drop_and_create($node);
	$bring_about->($fault, $reached, $logs);
	ok($reached->(), "$fault: reached");
	if ($action eq 'abort')
	{
		# until then, the checker would be refused
		ok($node->poll_query_until('postgres', 'SELECT true'),
			"$fault: the server is back");
		like(slurp_file($node->logfile, $offset),
			qr/was terminated by signal 6/, "$fault: the server had crashed");
	}
	check_ok(
		$node, "$fault: the checker finds nothing", $logs,
		server_logs => [ [ $node->logfile, $offset ] ],
		sqlstates => ['XX000'],
		allow => [qr/^(step "expiry" of the cleanup failed: )?qml fault (point|at) "\Q$point\E"/],
		crashes => $action eq 'abort',
		final => 1,
		amcheck => $action eq 'abort');
	note(sprintf '%s took %.1f s', $fault, time - $started);
	return;
}

# A point that is misspelled must not pass for one that was never reached.
foreach my $wrong ('enqueue.precommit', 'enqueue.precommit:stop', 'enqueue.precommit:error:0',
	join(',', ('a.b:error') x 100))
{
	my ($out, $error) = ('', '');
	my $rc = $node->psql('postgres', "LOAD 'qml'; SET qml.faults = '$wrong'",
		stdout => \$out,
		stderr => \$error);
	isnt($rc, 0, 'not a fault: ' . substr($wrong, 0, 30));
	like($error, qr/invalid value for parameter "qml.faults"/, '... and the error says so');
}

avoid_midnight();
foreach my $action (@ACTIONS)
{
	sweep(@$_, $action) foreach @POINTS;
}

done_testing();
