# What the tests of jobs that run inside the database share: handlers, jobs, and
# waiting for what becomes of them.

package QmlJobs;

use strict;
use warnings;

use Exporter 'import';
use QmlBackground;
use QmlChecker;
use QmlTest;
use Test::More;

our @EXPORT = qw(
  as_role counted_outcome enqueue handler job_is noted_handler outcome outcome_of run run_log_clean
  settle wait_asleep wait_held wait_idle
  wait_state worker_pids
);

# Creates a handler from what follows CREATE, and registers it for the method of the
# same name.  Options: dbname, options (a JSON text), role (who creates and registers
# it).
sub handler
{
	my ($node, $method, $definition, %opt) = @_;
	my $options = $opt{options} // '{}';
	my $role = defined $opt{role} ? "SET ROLE $opt{role};" : '';

	query($node, "$role $definition; SELECT qml_register_handler('$method', '$method', '$options')",
		$opt{dbname});
	return;
}

# Creates and registers a handler, FUNCTION or PROCEDURE, of statements in PL/pgSQL on
# its argument "job", which notes its runs for the checker.
sub noted_handler
{
	my ($node, $kind, $method, @statements) = @_;
	my $body = join "\n", map { "\t$_;" } $QmlChecker::RUN_NOTE{begin}, @statements,
	  $QmlChecker::RUN_NOTE{end};
	my $returns = $kind eq 'FUNCTION' ? 'RETURNS void' : '';

	handler($node, $method,
		"CREATE $kind $method(job qml.job) $returns LANGUAGE plpgsql AS \$\$\nBEGIN\n$body\nEND \$\$");
	return;
}

# Enqueues a job; its id.  $more: further arguments of qml_enqueue.
sub enqueue
{
	my ($node, $method, $payload, $more, $dbname) = @_;
	$payload //= '{}';
	$more = defined $more ? ", $more" : '';
	return ask($node, "SELECT qml_enqueue('$method', '$payload'$more)", $dbname);
}

# "state|attempt|error type|error" of a job.
sub outcome
{
	my ($node, $id, $dbname) = @_;
	return ask($node, <<"SQL", $dbname);
SELECT concat_ws('|', state, attempt, errors -> -1 ->> 'error_type', error) FROM qml_job('$id')
SQL
}

# The same with the number of attempts that count: a worker that is slow gives back what
# it has claimed and not begun.
sub counted_outcome
{
	my ($node, $id, $dbname) = @_;
	return ask($node, <<"SQL", $dbname);
SELECT concat_ws('|', j.state, j.attempt - coalesce(s.uncounted, 0), j.errors -> -1 ->> 'error_type', j.error)
FROM qml_job('$id') j
JOIN (SELECT id, uncounted FROM qml.live UNION ALL SELECT id, uncounted FROM qml.history) s USING (id)
SQL
}

sub wait_state
{
	my ($node, $id, $states, $dbname) = @_;
	my $last = '';

	eval {
		wait_for("job $id to be $states",
			sub { ($last = outcome($node, $id, $dbname)) =~ /^($states)(\||$)/ });
		1;
	} or die "job $id is \"$last\": $@";
	return $last;
}

# Waits for the end of a job; its outcome.
sub outcome_of
{
	my ($node, $id, $dbname) = @_;
	return wait_state($node, $id, 'succeeded|failed|deleted', $dbname);
}

# Enqueues and waits; the outcome.
sub run
{
	my ($node, $method, $payload, $more, $dbname) = @_;
	return outcome_of($node, enqueue($node, $method, $payload, $more, $dbname), $dbname);
}

# Asserts what becomes of a job that is enqueued now.
sub job_is
{
	my ($node, $method, $payload, $expected, $name, $more) = @_;
	my $outcome = run($node, $method, $payload, $more);

	return ref $expected ? like($outcome, $expected, $name) : is($outcome, $expected, $name);
}

# Waits until no job of the method is left that is not finished.
sub settle
{
	my ($node, $method, $dbname) = @_;
	wait_for("the jobs of $method to be finished",
		sub { ask($node, "SELECT count(*) FROM qml.live WHERE method = '$method'", $dbname) == 0 });
	return;
}

sub worker_pids
{
	my ($node, $where) = @_;
	$where //= 'true';
	return split /\n/,
	  ask($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'qml worker' AND $where");
}

# Nothing runs in the database any more.
sub wait_idle
{
	my ($node) = @_;
	wait_for('the workers to be idle',
		sub { ask($node, <<'SQL') == 0 });
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'qml worker' AND state <> 'idle'
SQL
	return;
}

# As many workers as that run jobs that wait for an advisory lock of the test.
sub wait_held
{
	my ($node, $count) = @_;
	wait_for("$count jobs to be held", sub { worker_pids($node, "wait_event = 'advisory'") == $count });
	return;
}

# A worker has looked for jobs, found none, and sleeps.
sub wait_asleep
{
	my ($node) = @_;
	wait_for('a worker to sleep',
		sub { worker_pids($node, "state = 'idle' AND wait_event_type = 'Extension'") == 1 });
	return;
}

# SQL as another role, in a session of its own.
sub as_role
{
	my ($node, $role, $sql, %opt) = @_;
	return $node->safe_psql($opt{dbname} // 'postgres', $sql, extra_params => [ '-U', $role ]);
}

# Asserts that no process crashed.
sub run_log_clean
{
	my ($node, $name, $offset) = @_;
	my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset // 0);
	my @bad = grep { /terminated by signal|PANIC|TRAP|resource was not|leak|unexpected/ } split /\n/, $log;
	is(join("\n", @bad), '', $name);
	return;
}

1;
