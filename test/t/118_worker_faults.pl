# A worker fails, loses its session or crashes the server at each fault point of its
# way, with jobs in groups, alone, and of a procedure that commits; afterwards each job
# has ended once, and done once what it had to do.  A point that was not reached fails
# the test.

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

# On a busy machine few jobs are short, and those that are not do not run in groups.
my $TRIES = 30;
my @ACTIONS = qw(error fatal abort);

# What brings a point about: jobs of a method, so many of them; at a passage between two
# numbers.
my $GROUPED = { method => 'quick', jobs => 600, passage => [ 5, 40 ] };
my $GROUPS = { %$GROUPED, passage => [ 1, 3 ] };
my $ALONE = { method => 'slow', jobs => 80, passage => [ 5, 20 ] };
my $PROCEDURE = { %$ALONE, method => 'steps' };
my @POINTS = (
	(map { [ $_, $GROUPED ] } qw(group.before_call group.after_call)),
	(map { [ $_, $GROUPS ] } qw(group.before_finish group.before_claim group.before_commit)),
	(
		map { [ $_, $ALONE ], [ $_, $PROCEDURE ] }
		  qw(run.before_call run.after_call finish.before_update claim.after_lock claim.before_commit)
	),
);

my $node = background_node('worker_faults', variant => 'faults', conf => <<'CONF');
log_error_verbosity = terse
qml.workers = 2
CONF
my $serial = 0;

wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE TABLE ledger (job uuid, attempt int);
CREATE TABLE step (job uuid, attempt int, PRIMARY KEY (job, attempt));
SELECT qml_create_queue('q', '{"retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}');
SQL
my $EFFECT = 'INSERT INTO ledger VALUES ((job).id, (job).attempt)';
noted_handler($node, 'FUNCTION', 'quick', $EFFECT);
# Too long for a group.
noted_handler($node, 'FUNCTION', 'slow', $EFFECT, 'PERFORM pg_sleep(0.002)');
# What it commits first stays, whatever becomes of the attempt: once for each.
noted_handler($node, 'PROCEDURE', 'steps', 'INSERT INTO step VALUES ((job).id, (job).attempt)', 'COMMIT', $EFFECT);

# How often the fault was met since then.
sub reached
{
	my ($point, $offset) = @_;
	return log_count($node, "qml fault point \"$point\" reached", $offset);
}

sub is_done
{
	return (try_query($node, 'SELECT count(*) FROM qml.live') // '') eq '0';
}

# How many attempts of the jobs of a batch ended in an error of a type.
sub errors
{
	my ($batch, $type) = @_;
	return query($node, <<"SQL");
SELECT count(*) FROM qml.job, jsonb_array_elements(errors) e
WHERE payload ->> 'batch' = '$batch' AND e ->> 'error_type' ~ '^($type)\$'
SQL
}

# One try; how often the fault was met.
sub try
{
	my ($point, $by, $action) = @_;
	my ($method, $jobs) = @$by{qw(method jobs)};
	my $fault = "$point:$action:" . pick(@{ $by->{passage} });
	my $name = "$method, $fault";
	my $offset = -s $node->logfile;
	my $batch = 'batch' . ++$serial;
	my $logs = make_log_dir();
	my $started = time;

	# What was there before has been looked at.
	query($node, 'DELETE FROM qml.history; TRUNCATE ledger, step');
	# All are there, and this is known, before the first can meet the fault.
	query($node, "SELECT qml_pause_queue('q')");
	query($node, <<"SQL");
SELECT qml_enqueue_many('$method', array_fill('{"batch": "$batch"}'::jsonb, ARRAY[$jobs]),
	queue => 'q', max_retries => 50)
SQL
	write_event($logs, 'enqueued', '-', undef, undef, "op=enqueue_many batch=$batch count=$jobs");
	set_config($node, 'qml.faults' => $fault);
	wait_for('the fault to be armed', sub { query($node, 'SHOW qml.faults') eq $fault });
	# Its answer may be lost in a crash.
	my $resumed = time;
	try_query($node, "SELECT qml_resume_queue('q')");
	wait_for("$name: the fault, or the end of all",
		sub { reached($point, $offset) || is_done() });
	# The postmaster hears it even while the server recovers.
	set_config($node, 'qml.faults' => undef);
	wait_for("$name: all to be done", \&is_done);
	# A wake-up that is lost would cost up to a minute.
	cmp_ok(my $seconds = time - $resumed, '<=', 20, "$name: nothing waits for long");

	my $reached = reached($point, $offset);
	my $log = slurp_file($node->logfile, $offset);
	if ($action eq 'abort')
	{
		like($log, qr/was terminated by signal 6/, "$name: the server had crashed") if $reached;
	}
	else
	{
		unlike($log, qr/was terminated by signal/, "$name: the server did not crash");
	}
	check_ok(
		$node, "$name: the checker finds nothing", $logs,
		server_logs => [ [ $node->logfile, $offset ] ],
		allow => [qr/qml fault (point|at) "\Q$point\E"/],
		handlers => { $method => 1 },
		effects => 'ledger',
		runs => [ [ $node->logfile, $offset ] ],
		crashes => $action eq 'abort',
		final => 1,
		amcheck => $action eq 'abort');
	is( query($node, "SELECT count(*) FROM qml.job WHERE payload ->> 'batch' = '$batch'"
			  . " AND (state = 'succeeded' OR errors -> -1 ->> 'error_type' = 'server_down')"),
		$jobs,
		"$name: all succeed, but for those that were there in too many crashes");
	check_errors($name, $batch, $point, $action, $reached);
	is(query($node, <<'SQL'), 0, "$name: each attempt committed what it committed by itself") if $method eq 'steps';
SELECT count(*) FROM qml.job j LEFT JOIN step s ON s.job = j.id AND s.attempt = j.attempt
WHERE method = 'steps' AND state = 'succeeded' AND s.job IS NULL
SQL
	note(sprintf '%s was reached %d times; %.1f s', $name, $reached, time - $started);
	return $reached;
}

# The jobs say what happened to them, and nothing that did not.
sub check_errors
{
	my ($name, $batch, $point, $action, $reached) = @_;
	my $type = { error => 'XX000', fatal => 'session_gone', abort => 'server_down' }->{$action};
	my $errors = errors($batch, $type);

	is(errors($batch, "(?!$type).*"), 0, "$name: no other errors");
	return if $point !~ /call$/;
	is($errors, $reached, "$name: it failed the job that met it, and no other")
	  if $action eq 'error';
	cmp_ok($errors, '>=', $reached > 0, "$name: an attempt was lost") if $action ne 'error';
	return;
}

avoid_midnight();
foreach my $action (@ACTIONS)
{
	foreach (@POINTS)
	{
		my ($point, $by) = @$_;
		my $reached = 0;
		foreach (1 .. $TRIES)
		{
			last if $reached = try($point, $by, $action);
		}
		ok($reached, "$by->{method}, $point:$action: reached");
	}
}

done_testing();
