# The workers in examples/: they do jobs, report failures, wait without polling, come
# back after a restart of the server, and end on SIGTERM after their current job, holding
# no other.  And doc/workers.md shows them as they are.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $node = background_node('examples');
wait_for_process($node, 'scheduler', 'postgres');
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PGDATABASE} = 'postgres';

query($node, <<'SQL');
CREATE TABLE orders (id int PRIMARY KEY, customer text, receipt_sent boolean NOT NULL DEFAULT false);
INSERT INTO orders VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger'), (4, 'Barbara');
SQL

# What the shell worker runs for each job.
my $command = <<'SH';
set -e
case $2 in
	*'"order": 9}') printf 'there is no \377order 9\n'; exit 3 ;;
	*) psql -XqAt -v ON_ERROR_STOP=1 -v payload="$2" <<<"
		UPDATE orders SET receipt_sent = true
		WHERE id = (:'payload'::jsonb ->> 'order')::int RETURNING customer" ;;
esac
SH

sub enqueue
{
	my ($queue, $order) = @_;
	return query($node, "SELECT qml_enqueue('send_receipt', '{\"order\": $order}',"
		  . " queue => '$queue', max_retries => 0)");
}

sub wait_until_finished
{
	my ($id) = @_;
	wait_for("the end of job $id",
		sub { query($node, "SELECT finished_at IS NOT NULL FROM qml_job('$id')") eq 't' });
	return query($node, "SELECT state, attempt, result, error, worker FROM qml_job('$id')");
}

# Starts a worker, and sees it do all that workers must do.
sub try_worker
{
	my ($queue, $sent_to, $error, @worker) = @_;
	my $early = enqueue($queue, 1);
	my ($out, $err) = ('', '');
	my $handle = IPC::Run::start(\@worker, '<', \undef, '>', \$out, '2>', \$err);
	my $is_waiting = sub {
		return query($node, "SELECT count(*) = 1 FROM pg_stat_activity"
			  . " WHERE query LIKE 'CALL qml_wait(%' AND state = 'active'") eq 't';
	};

	is(wait_until_finished($early), "succeeded|1|" . $sent_to->('Ada') . "||$queue-1",
		"$queue: a job that was there");
	wait_for("$queue: waits", $is_waiting);
	is(wait_until_finished(enqueue($queue, 2)), "succeeded|1|" . $sent_to->('Grace') . "||$queue-1",
		"$queue: a job that came later");
	is(wait_until_finished(enqueue($queue, 9)), "failed|1||$error|$queue-1", "$queue: a failure");

	wait_for("$queue: waits again", $is_waiting);
	$node->restart;
	is(wait_until_finished(enqueue($queue, 3)), "succeeded|1|" . $sent_to->('Edsger') . "||$queue-1",
		"$queue: a job after a restart of the server");

	# A job that lasts until the lock is gone.
	wait_for("$queue: waits once more", $is_waiting);
	my $session = new_session($node);
	$session->query_safe('BEGIN; SELECT FROM orders WHERE id = 4 FOR UPDATE');
	my ($last, $behind) = split /\n/, query($node, <<"SQL");
SELECT qml_enqueue_many('send_receipt', ARRAY['{"order": 4}', '{"order": 1}']::jsonb[], queue => '$queue')
SQL
	wait_for("$queue: is at work",
		sub { query($node, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") eq '1' });
	$handle->signal('TERM');
	$session->query_safe('COMMIT');
	is(wait_until_finished($last), "succeeded|1|" . $sent_to->('Barbara') . "||$queue-1",
		"$queue: SIGTERM lets the current job finish");
	$handle->finish;
	is($handle->result(0), 0, "$queue: ends well") or diag($err);
	is(query($node, "SELECT state FROM qml_job('$behind')"), 'enqueued', "$queue: the job behind it is free");
	$session->quit;
	query($node, "SELECT qml_delete('$behind'); UPDATE orders SET receipt_sent = false");
	return;
}

try_worker('shell', sub { qq("$_[0]") }, 'there is no order 9',
	"$top/examples/worker.sh", 'shell-1', 'shell', 'bash', '-c', $command, 'command');

SKIP:
{
	skip 'psycopg 3 is not installed', 7
	  if system('/usr/bin/python3 -c "import psycopg" 2>/dev/null') != 0;
	try_worker('python', sub { qq({"sent_to": "$_[0]"}) }, 'there is no order 9',
		"$top/examples/worker.py", 'python-1', 'python');
}

# The document shows the programs as they are.
my $document = slurp_file("$top/doc/workers.md");
foreach my $file ('worker.sh', 'worker.py')
{
	ok(index($document, slurp_file("$top/examples/$file") . "```\n") > 0, "doc/workers.md shows $file");
}

$node->stop;
done_testing();
