# The adapters for queues of frameworks in examples/: ActiveJob of Rails, and Laravel's queue.
# Each enqueues in the application's transaction, and its jobs succeed, fail, are retried,
# given back, delayed.  The worker waits without polling, comes back after a restart of the
# server, finishes its job at SIGTERM, and what it did when it is killed takes effect exactly
# once.  They work behind a pooler.  And what Rails' cache does with a SELECT that enqueues.
#
# A framework that is not installed is skipped; test/setup.sh brings both in.  With
# QML_EXAMPLES=all it is a failure.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlExamples;
use QmlTest;
use Test::More;

my $examples = "$FindBin::RealBin/../../examples";
my $files = PostgreSQL::Test::Utils::tempdir;
my $node = background_node('adapters', conf => "client_connection_check_interval = '100 ms'\n");
wait_for_process($node, 'scheduler', 'postgres');
connect_programs($node);
local $ENV{QML_LEASE} = 6;                                # a heartbeat comes after two seconds
local $ENV{QML_WAIT} = 1;
local $ENV{QML_LOG} = "$files/log";
append_to_file($ENV{QML_LOG}, "x\0\xff\xc3y");

count_receipts($node, 'note');

my @adapters = (
	{
		name => 'activejob',
		command => "$examples/activejob/demo.rb",
		needs => q(ruby -ractive_job -ractive_record -rpg -e ''),
		try => \&try_activejob,
		fails_first => 'unlucky',
		tests => 16,
	},
	{
		name => 'laravel',
		command => "$examples/laravel/demo.php",
		# From version 12 on a queue must count its jobs by state, which this one does not.
		needs => q(php -r 'error_reporting(E_ALL & ~E_DEPRECATED); require "Illuminate/Queue/autoload.php";)
		  . q{ require "Illuminate/Events/autoload.php"; exit(extension_loaded("pcntl")}
		  . q{ && !method_exists("Illuminate\\Contracts\\Queue\\Queue", "pendingSize") ? 0 : 1);'},
		try => \&try_laravel,
		fails_first => 'flaky',
		tests => 17,
	});

# Starts a worker.  Its output goes to a file, because processes that it leaves when it is
# killed would keep a pipe open.
my $serial = 0;

sub start_worker
{
	my ($adapter, $queue) = @_;
	$serial++;
	return IPC::Run::start([ $adapter->{command}, 'work', $queue ],
		'<', '/dev/null', '>', "$files/$serial.out", '2>', "$files/$serial.err");
}

# The worker, or a new one: Laravel's may end when it has lost its connection.
sub keep_alive
{
	my ($adapter, $queue, $worker) = @_;
	return $worker if $adapter->{name} ne 'laravel' || $worker->pumpable;
	$worker->finish;
	return start_worker($adapter, $queue);
}

# SIGTERM, and the exit status.
sub end_worker
{
	my ($worker) = @_;
	$worker->signal('TERM');
	$worker->finish;
	return $worker->result(0);
}

# What the demo prints: lines of a name and a value.
sub demo
{
	my ($adapter, @args) = @_;
	my $out = '';
	IPC::Run::run([ $adapter->{command}, @args ], '>', \$out) or die "$adapter->{name}: @args failed";
	return map { split / /, $_, 2 } split /\n/, $out;
}

sub job
{
	my ($id, $columns) = @_;
	return query($node, "SELECT $columns FROM qml_job('$id')");
}

sub wait_until
{
	my ($id, $condition) = @_;
	wait_for("job $id: $condition", sub { job($id, $condition) eq 't' });
	return;
}

sub ended
{
	my ($id) = @_;
	wait_until($id, 'finished_at IS NOT NULL');
	return job($id, 'state, tries, error');
}

sub wait_for_waiter
{
	my ($what) = @_;
	my $waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL qml_wait(%' AND state = 'active'";
	wait_for("$what: a worker that waits", sub { query($node, $waiting) eq '1' });
	return;
}

sub note_of
{
	my ($order) = @_;
	return query($node, "SELECT note FROM orders WHERE id = $order");
}

# Both frameworks: 4 tests.
sub try_enqueued
{
	my ($name, %id) = @_;
	is(job($id{undone}, 'count(*)'), '0', "$name: a job of a transaction that was rolled back is none");
	is(job($id{receipt}, 'method, state'), 'SendReceipt|enqueued', "$name: one of a transaction that committed is");
	is(job($id{delayed}, 'state, attempt'), 'scheduled|0', "$name: a delayed job");
	is(job($id{delayed}, "run_at - created_at BETWEEN '59 min' AND '61 min'"), 't', "$name: comes after an hour");
	return;
}

# Both frameworks: 2 tests.
sub try_later
{
	my ($name, $id) = @_;
	wait_until($id, "state = 'awaiting_retry' AND attempt > 0 AND tries = 0 AND error IS NULL");
	pass("$name: a job that is given back until later");
	query($node, 'INSERT INTO orders VALUES (9)');
	is(ended($id), 'succeeded|1|', "$name: is done then, and only that attempt counts");
	return;
}

sub try_activejob
{
	my ($adapter, $queue) = @_;
	my %id = demo($adapter, 'try', $queue);
	try_enqueued($queue, %id);
	try_query_cache();
	is(job($id{urgent}, 'priority'), 5, "$queue: a lower priority of ActiveJob is a higher one of qml");

	my $worker = start_worker($adapter, $queue);
	is(ended($id{receipt}), 'succeeded|1|', "$queue: success");
	is(ended($id{unlucky}), 'succeeded|2|not yet', "$queue: an error without retry_on is retried by qml");
	try_later($queue, $id{later});
	is(job($id{later}, 'reason'), 'there is no order 9', "$queue: with a reason");

	# By retry_on: the job that failed has succeeded in making another one.
	my $again = sub {
		return "SELECT id FROM qml.job WHERE payload ->> 'job_id' = (SELECT payload ->> 'job_id' FROM qml_job('$id{$_[0]}'))"
		  . " AND id <> '$id{$_[0]}'";
	};
	wait_for('retry_on', sub { query($node, $again->('flaky')) =~ /./ && query($node, $again->('hopeless')) =~ /./ });
	is(ended(query($node, $again->('flaky'))), 'succeeded|1|', "$queue: a retry by retry_on");
	is(note_of(2), 'executions: 2', "$queue: and what the first attempt wrote is undone");
	like(ended(query($node, $again->('hopeless'))),
		qr/^failed\|1\|.*division by zero/, "$queue: retry_on without attempts left");
	is(note_of(3), '', "$queue: is undone, too");
	like(ended($id{broken}), qr/^failed\|6\|x\?+y$/, "$queue: an error of any bytes, and no retries left");
	return $worker;
}

# What Rails' cache of a request makes of two calls with the same text: 1 test.
sub try_query_cache
{
	my $script = <<'RUBY';
require 'active_record'
ActiveRecord::Base.establish_connection(adapter: 'postgresql', database: ENV['PGDATABASE'])
db = ActiveRecord::Base.connection
ActiveRecord::Base.cache do
  2.times do
    db.select_value("SELECT qml_enqueue('x', queue => 'selected')")
    db.select_value("CALL qml_enqueue_job('x', queue => 'called')")
    db.execute("CALL qml_enqueue_job('x', queue => 'executed')")
    db.exec_query("SELECT qml_enqueue('x', queue => 'queried')")
    db.uncached { db.select_value("SELECT qml_enqueue('x', queue => 'uncached')") }
  end
end
RUBY
	IPC::Run::run([ 'ruby', '-e', $script ]) or die 'the script failed';
	# The cache has swallowed the others in Rails 6.1, and has not in 7.2.
	like(query($node, "SELECT queue, count(*) FROM qml.job WHERE method = 'x' GROUP BY 1 ORDER BY 1"),
		qr/\Acalled\|[12]\nexecuted\|2\nqueried\|2\nselected\|[12]\nuncached\|2\z/,
		'ActiveRecord: execute, exec_query and uncached pass the cache by');
	return;
}

sub try_laravel
{
	my ($adapter, $queue) = @_;
	my %id = demo($adapter, 'try', $queue);
	is($id{size}, 5, "$queue: the size of a queue");
	try_enqueued($queue, %id);

	my $worker = start_worker($adapter, "nothing,$queue");
	is(ended($id{receipt}), 'succeeded|1|', "$queue: success");
	is(ended($id{flaky}), 'succeeded|2|not yet?', "$queue: an error of any bytes, and a retry");
	is(job($id{flaky}, "started_at - (errors -> -1 ->> 'at')::timestamptz > '0.9 s'"), 't', "$queue: after Laravel's backoff");
	is(note_of(2), 'attempts: 2', "$queue: and what the first attempt wrote is undone");
	is(ended($id{hopeless}), 'failed|2|never', "$queue: no tries left");
	is(note_of(3), 'failed: never', "$queue: is told to the job");
	is(ended($id{gives_up}), 'failed|1|not my job', "$queue: a job that fails by itself");
	try_later($queue, $id{later});

	my $slow = start_worker($adapter, "$queue-slow");
	# The text is that of Laravel's version.
	like(ended($id{slow}), qr/^failed\|1\|Slow has (?:timed out\.|been attempted too many times or run too long\.)/,
		"$queue: a job that takes too long");
	is(note_of(4), 'too slow', "$queue: is told so");
	$slow->finish;
	is($slow->full_result & 127, 9, "$queue: and its worker has killed itself");
	return $worker;
}

# Kills and restarts, while a worker waits and while it works: 6 tests.
sub try_worker
{
	my ($adapter, $queue, $worker) = @_;
	my @orders = ($adapter, 'orders', $queue);
	my $ended = sub { query($node, "SELECT count(*) FROM qml.job WHERE queue = '$queue' AND state = 'succeeded'") };

	wait_for_waiter($queue);
	$node->restart;
	my $before = $ended->();
	demo(@orders, 5, 6);
	wait_for("$queue: two jobs",
		sub { $worker = keep_alive($adapter, $queue, $worker); return $ended->() == $before + 2 });
	pass("$queue: jobs after a restart of the server");

	# A job that lasts until the lock is gone.
	wait_for_waiter($queue);
	my $session = new_session($node);
	$session->query_safe('BEGIN; SELECT FROM orders WHERE id = 7 FOR UPDATE');
	demo(@orders, 7, 7);
	my $last = "SELECT max(id::text) FROM qml.job WHERE queue = '$queue'";
	my $first = query($node, $last);
	my $is_at_work = sub {
		wait_for("$queue: is at work",
			sub { query($node, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") eq '1' });
	};
	$is_at_work->();
	if ($adapter->{name} eq 'activejob')
	{
		my $lease_end = job($first, 'lease_expires_at');
		wait_until($first, "lease_expires_at > '$lease_end'");
		pass("$queue: a heartbeat while the job lasts");
	}
	else
	{
		is(job($first, 'state, lease_expires_at'), 'processing|', "$queue: a claim that is bound to the session");
	}

	# Killed at work: another worker begins anew.
	$worker->signal('KILL');
	$worker->finish;
	wait_for("$queue: the end of its session",
		sub { query($node, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") eq '0' });
	$worker = start_worker($adapter, $queue);
	wait_until($first, 'attempt = 2');
	$is_at_work->();
	demo(@orders, 8, 8);
	my $behind = query($node, $last);
	$worker->signal('TERM');
	$session->query_safe('COMMIT');
	like(ended($first), qr/^succeeded\|2\|/, "$queue: SIGTERM lets the current job finish");
	$worker->finish;
	is($worker->result(0), 0, "$queue: ends well") or diag(slurp_file("$files/$serial.err"));
	is(job($behind, 'state, tries'), 'enqueued|0', "$queue: the job behind it is free");
	is(query($node, 'SELECT count(*) FROM receipt WHERE order_id = 7'), '1', "$queue: what was killed had no effect");
	$session->quit;
	return;
}

my $pooler;
END { $pooler->kill_kill if $pooler; }

# Behind pgbouncer in transaction mode, with a socket of the same number: 3 tests.
sub try_pooled
{
	my ($adapter) = @_;
	my $queue = "$adapter->{name}-pooled";
  SKIP:
	{
		my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
		skip 'pgbouncer is not installed', 3 unless defined $pgbouncer;
		my $dir = PostgreSQL::Test::Utils::tempdir_short;
		my ($host, $port) = ($node->host, $node->port);
		append_to_file("$dir/ini", <<"INI");
[databases]
postgres = host=$host port=$port user=$ENV{PGUSER}
[pgbouncer]
listen_port = $port
unix_socket_dir = $dir
auth_type = any
pool_mode = transaction
server_round_robin = 1
default_pool_size = 4
min_pool_size = 4
INI
		$pooler = IPC::Run::start([ $pgbouncer, '-q', "$dir/ini" ], '<', '/dev/null', '>', "$dir/out", '2>', "$dir/err");
		local $ENV{PGHOST} = $dir;
		local $ENV{QML_CLAIMS_HOST} = $host;
		my $pooled = "host=$dir port=$port dbname=postgres";
		wait_for('pgbouncer to answer', sub { defined try_query($node, 'SELECT 1', undef, connstr => $pooled) });
		query($node, "SELECT qml_create_queue('$queue', (SELECT options FROM qml.queue WHERE name = '$adapter->{name}'))");
		my %id = demo($adapter, 'try', $queue);
		my $worker = start_worker($adapter, $queue);
		is(ended($id{receipt}), 'succeeded|1|', "$queue: success");
		like(ended($id{ $adapter->{fails_first} }), qr/^succeeded\|2\|not yet/, "$queue: a retry");
		wait_for_waiter($queue);
		is(end_worker($worker), 0, "$queue: SIGTERM ends a worker that waits");
		$pooler->kill_kill;
		$pooler = undef;
	}
	return;
}

# Workers and their connections are killed, while there is much to do: 4 tests.
sub try_kills
{
	my ($adapter) = @_;
	my $queue = "$adapter->{name}-kills";
	my %killed = (workers => 0, backends => 0);
	my @workers;
	my $unfinished = sub {
		$_ = keep_alive($adapter, $queue, $_) foreach @workers;
		return query($node, "SELECT count(*) FROM qml.job WHERE queue = '$queue' AND finished_at IS NULL");
	};

	query($node, <<"SQL");
SELECT qml_create_queue('$queue', '{"max_retries": 1000, "retry": {"strategy": "fixed", "delay": "0.1 s", "jitter": 0}}');
INSERT INTO orders SELECT generate_series(101, 400);
SQL
	demo($adapter, 'orders', $queue, 101, 400);
	local $ENV{QML_LEASE} = 3;
	@workers = map { start_worker($adapter, $queue) } 1 .. 2;
	for (my $left = 270; $left > 30; $left -= 30)
	{
		wait_for("$left jobs", sub { $unfinished->() <= $left });
		if ($left % 60 == 0)
		{
			my $victim = pick(0, 1);
			$workers[$victim]->signal('KILL');
			$workers[$victim]->finish;
			$workers[$victim] = start_worker($adapter, $queue);
			$killed{workers}++;
		}
		else
		{
			$killed{backends} += end_connections($node);
		}
	}
	wait_for('the other jobs', sub { $unfinished->() == 0 });
	note("killed: $killed{workers} workers, $killed{backends} connections");
	is(query($node, 'SELECT count(*), count(DISTINCT order_id) FROM receipt WHERE order_id > 100'),
		'300|300', "$queue: every receipt was sent exactly once");
	is(query($node, "SELECT state, count(*) FROM qml.job WHERE queue = '$queue' GROUP BY 1"),
		'succeeded|300', "$queue: every job succeeded");
	is(end_worker($_), 0, "$queue: SIGTERM ends a worker that waits") foreach @workers;
	return;
}

foreach my $adapter (@adapters)
{
	my $queue = $adapter->{name};
	my $log = "$files/$queue.needs";
	my $is_there = system("($adapter->{needs}) >'$log' 2>&1") == 0;
	note("$queue: ", slurp_file($log)) unless $is_there;
	ok($is_there, "$queue is there") if ($ENV{QML_EXAMPLES} // '') eq 'all';
  SKIP:
	{
		skip "$queue is not installed", $adapter->{tests} + 13 unless $is_there;
		query($node, <<"SQL");
TRUNCATE orders, receipt;
INSERT INTO orders SELECT generate_series(1, 8);
SELECT qml_create_queue('$queue', '{"retry": {"strategy": "fixed", "delay": "0.2 s", "jitter": 0}}');
SQL
		try_worker($adapter, $queue, $adapter->{try}->($adapter, $queue));
		try_kills($adapter);
		try_pooled($adapter);
	}
}

$node->stop;
done_testing();
