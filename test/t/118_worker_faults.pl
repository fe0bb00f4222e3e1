# A worker fails, loses its session or crashes the server at each fault point of its
# way, with jobs in groups, alone, and of a procedure that commits; afterwards each job
# has ended once, and done once what it had to do.  A point that was not reached, or
# not in the way that was meant, fails the test.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlChecker;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

my $TRIES = 5;
my @ACTIONS = qw(error fatal abort);
# How many jobs there are, and the passages of which one meets the fault: of jobs, or of
# the claims of some.  A new worker runs jobs in groups when some were short, which
# takes a while on a busy machine.
my %METHODS = (
	quick => { jobs => 600, passages => [ 130, 200 ], claims => [ 5, 9 ], grouped => 1 },
	slow => { jobs => 80, passages => [ 5, 20 ], claims => [ 5, 20 ], grouped => 0 },
	steps => { jobs => 80, passages => [ 5, 20 ], claims => [ 5, 20 ], grouped => 0 },
);
my @POINTS = qw(
  run.before_call run.after_call finish.before_update claim.after_lock claim.before_commit
);

# %v: what happened in the same transaction.
my $node = background_node('worker_faults', variant => 'faults', conf => <<'CONF');
log_line_prefix = '%m [%p] %e v=%v %q%a '
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
sub define
{
	my ($kind, $method, @statements) = @_;
	my $body = join "\n", map { "\t$_;" } $QmlChecker::RUN_NOTE{begin}, @statements,
	  $QmlChecker::RUN_NOTE{end};
	my $returns = $kind eq 'FUNCTION' ? 'RETURNS void' : '';

	handler($node, $method,
		"CREATE $kind $method(job qml.job) $returns LANGUAGE plpgsql AS \$\$\nBEGIN\n$body\nEND \$\$");
	return;
}
my $EFFECT = 'INSERT INTO ledger VALUES ((job).id, (job).attempt)';
define('FUNCTION', 'quick', $EFFECT);
# Too long for a group.
define('FUNCTION', 'slow', $EFFECT, 'PERFORM pg_sleep(0.002)');
# What it commits first stays, whatever becomes of the attempt: once for each.
define('PROCEDURE', 'steps', 'INSERT INTO step VALUES ((job).id, (job).attempt)', 'COMMIT', $EFFECT);

# The fault's lines in the log, each as the number of other jobs that were in the same
# transaction before.
sub reached
{
	my ($point, $offset) = @_;
	my (%noted, @reached);

	foreach my $line (split /\n/, slurp_file($node->logfile, $offset))
	{
		my ($transaction) = $line =~ /(\[\d+\] \S+ v=\S+)/ or next;
		$noted{$transaction}{$1} = 1 if $line =~ /qml_run \w+ (\S+)/;
		push @reached, scalar keys %{ $noted{$transaction} // {} }
		  if $line =~ /qml fault point "\Q$point\E" reached/;
	}
	# The job itself has said that it begins by then.
	return map { $_ - ($point ne 'run.before_call' && $_ > 0) } @reached;
}

sub is_done
{
	my ($rc, $out) = $node->psql('postgres', 'SELECT count(*) FROM qml.live', stderr => \my $ignored);
	return $rc == 0 && $out eq '0';
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

# One try; whether the fault met a job in the way that is meant.
sub try
{
	my ($method, $point, $action) = @_;
	my $jobs = $METHODS{$method}{jobs};
	my $of = $point eq 'claim.before_commit' ? 'claims' : 'passages';
	my $fault = "$point:$action:" . pick(@{ $METHODS{$method}{$of} });
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
	$node->psql('postgres', "SELECT qml_resume_queue('q')", stderr => \my $ignored);
	wait_for("$name: the fault, or the end of all",
		sub { reached($point, $offset) > 0 || is_done() });
	# The postmaster hears it even while the server recovers.
	set_config($node, 'qml.faults' => undef);
	wait_for("$name: all to be done", \&is_done);
	# A wake-up that is lost would cost up to a minute.
	cmp_ok(my $seconds = time - $resumed, '<=', 20, "$name: nothing waits for long");

	my @reached = reached($point, $offset);
	my $log = slurp_file($node->logfile, $offset);
	if ($action eq 'abort')
	{
		like($log, qr/was terminated by signal 6/, "$name: the server had crashed") if @reached;
	}
	else
	{
		unlike($log, qr/was terminated by signal/, "$name: the server did not crash");
	}
	check_ok(
		$node, "$name: the checker finds nothing", $logs,
		server_logs => [ [ $node->logfile, $offset ] ],
		allow => [qr/qml fault (point|at) "\Q$point\E"/],
		handlers => { map { $_ => 1 } keys %METHODS },
		effects => 'ledger',
		runs => [ [ $node->logfile, $offset ] ],
		crashes => $action eq 'abort',
		final => 1,
		amcheck => $action eq 'abort');
	is( query($node, "SELECT count(*) FROM qml.job WHERE payload ->> 'batch' = '$batch'"
			  . " AND (state = 'succeeded' OR errors -> -1 ->> 'error_type' = 'server_down')"),
		$jobs,
		"$name: all succeed, but for those that were there in too many crashes");
	check_errors($name, $batch, $point, $action, scalar @reached);
	is(query($node, <<'SQL'), 0, "$name: each attempt committed what it committed by itself") if $method eq 'steps';
SELECT count(*) FROM qml.job j LEFT JOIN step s ON s.job = j.id AND s.attempt = j.attempt
WHERE method = 'steps' AND state = 'succeeded' AND s.job IS NULL
SQL
	note(sprintf '%s was reached %d times, after others in its transaction: %s; %.1f of %.1f s',
		$name, scalar @reached, join(' ', @reached), $seconds, time - $started);
	return grep { ($_ > 0) == $METHODS{$method}{grouped} } @reached;
}

# The jobs say what happened to them, and nothing that did not.
sub check_errors
{
	my ($name, $batch, $point, $action, $reached) = @_;
	my $type = { error => 'XX000', fatal => 'session_gone', abort => 'server_down' }->{$action};
	my $errors = errors($batch, $type);

	is(errors($batch, "(?!$type).*"), 0, "$name: no other errors");
	return if $point !~ /^run/;
	is($errors, $reached, "$name: it failed the job that met it, and no other")
	  if $action eq 'error';
	cmp_ok($errors, '>=', $reached > 0, "$name: an attempt was lost") if $action ne 'error';
	return;
}

avoid_midnight();
foreach my $action (@ACTIONS)
{
	foreach my $method (sort keys %METHODS)
	{
		foreach my $point (@POINTS)
		{
			my $met = 0;
			# Which job is in a group is a matter of time.
			foreach (1 .. $TRIES)
			{
				last if $met = try($method, $point, $action);
			}
			ok($met, "$method, $point:$action: met "
				  . ($METHODS{$method}{grouped} ? 'in a group' : 'alone'));
		}
	}
}

done_testing();
