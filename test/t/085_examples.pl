# The workers in examples/, each in its language: they do jobs, leave alone methods that
# they do not know, report failures whatever bytes the error has, wait without polling,
# come back after a restart of the server, and end on SIGTERM after their current job,
# holding no other.  Then all at once, while workers and their connections are killed:
# every effect comes exactly once.  Then behind a pooler.  And doc/workers.md shows what it shows as it is.
#
# A language that is not installed is skipped; test/setup.sh brings them in, Go and Rust with
# the argument "examples" only.  QML_EXAMPLES="NAME ...", or "all", says which are tried, and
# none of these is skipped: it is a failure then.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlExamples;
use QmlTest;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $files = PostgreSQL::Test::Utils::tempdir;
# JDBC knows no Unix sockets.
my $node = background_node('examples', conf => "listen_addresses = '127.0.0.1'\n");
wait_for_process($node, 'scheduler', 'postgres');
connect_programs($node);
# Debian's modules, and npm's.
local $ENV{NODE_PATH} = join ':', '/usr/share/nodejs', split /\n/, qx(npm root -g 2>/dev/null);

count_receipts($node, 'customer');
query($node, <<'SQL');
INSERT INTO orders VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger'), (4, 'Barbara');
CREATE ROLE stranger LOGIN;
SQL

# What the shell worker runs for each job.  It ends a job itself, in the transaction that
# sends the receipt.
my $command = <<'SH';
set -e
case $1$2 in
	check_log*) path=${2#*: \"} && cat "${path%\"*}" && exit 1 ;;
	*'"order": 9}') printf 'there is no order 9\n'; exit 3 ;;
	*) psql -XqAt -v ON_ERROR_STOP=1 -v payload="$2" -v job="$QML_JOB" -v attempt="$QML_ATTEMPT" <<'SQL' ;;
BEGIN;
UPDATE orders SET receipt_sent = true
WHERE id = (:'payload'::jsonb ->> 'order')::int RETURNING customer \gset
SELECT qml_succeed(:'job', :attempt, to_jsonb(:'customer'::text));
COMMIT;
SQL
esac
SH

# Where libpq is for the compiler.  The copy of the installation that is tested has none.
my $libpq = '-lpq';
foreach my $pg_config (grep { -x } map { "$_/pg_config" } split /:/, $ENV{PATH})
{
	my ($include, $lib) = split /\n/, qx($pg_config --includedir --libdir);
	next unless -e "$include/libpq-fe.h";
	$libpq = "-I'$include' -L'$lib' -lpq";
	last;
}

# Debian 12 has pgx 4 only, and the program is written for pgx 5.
my $gopath = '/usr/share/gocode';
my $pgx = -e "$gopath/src/github.com/jackc/pgx/v5" ? '' : '-f pgx4.sed';

# For each language: how the worker is started, whether its producer is, and how to see
# that its driver is there.
my @languages = (
	{
		name => 'shell',
		command => ["$top/examples/worker.sh"],
		arguments => [ 'send_receipt,check_log', 'bash', '-c', $command, 'command' ],
		sent_to => sub { qq("$_[0]") },
		needs => 'psql --version',
	},
	{
		name => 'python',
		command => ["$top/examples/worker.py"],
		needs => '/usr/bin/python3 -c "import psycopg"',
	},
	{
		name => 'asyncpg',
		command => ["$top/examples/worker_asyncpg.py"],
		needs => '/usr/bin/python3 -c "import asyncpg"',
	},
	{ name => 'node', command => ["$top/examples/worker.js"], needs => q(node -e 'require("pg")') },
	{ name => 'ruby', command => ["$top/examples/worker.rb"], needs => 'ruby -rpg -e ""' },
	{
		name => 'php',
		command => ["$top/examples/worker.php"],
		needs => q(php -r 'exit(extension_loaded("pdo_pgsql") && extension_loaded("pcntl") ? 0 : 1);'),
	},
	{
		name => 'java',
		command => [ 'java', '-Xshare:auto', '-XX:TieredStopAtLevel=1', '-cp', "$files:/usr/share/java/postgresql.jar", 'Worker' ],
		needs => "test -e /usr/share/java/postgresql.jar && javac -d '$files' '$top/examples/Worker.java'",
	},
	{ name => 'perl', command => ["$top/examples/worker.pl"], needs => 'perl -MDBD::Pg -e 1' },
	{
		name => 'c',
		command => ["$files/worker"],
		needs => "cc -Wall -Wextra -Werror -o '$files/worker' '$top/examples/worker.c' $libpq -lpthread",
	},
	{
		name => 'go',
		command => ["$files/worker-go"],
		needs => "cd '$top/examples' && for file in worker*.go; do sed -e '' $pgx \$file >'$files/'\$file; done"
		  . " && GO111MODULE=off GOPATH=$gopath GOCACHE='$files/go' go build -o '$files/worker-go' '$files/'worker*.go",
	},
	{
		name => 'rust',
		prepares => 1,
		command => ["$files/rust/debug/worker"],
		needs => "cp '$top/examples/Cargo.toml' '$top/examples/'worker*.rs '$files'"
		  . " && CARGO_HOME='$files/cargo' CARGO_PROFILE_DEV_DEBUG=0 cargo build --offline"
		  . q( --config 'source.crates-io.replace-with="debian"')
		  . q( --config 'source.debian.directory="/usr/share/cargo/registry"')
		  . " --manifest-path '$files/Cargo.toml' --target-dir '$files/rust'",
	});
if (my $chosen = $ENV{QML_EXAMPLES})
{
	@languages = grep { $chosen =~ /\b(all|$_->{name})\b/ } @languages;
	@languages > 0 or die "QML_EXAMPLES names no language: $chosen";
}
# Compilers work while the first languages are tried.
foreach my $language (@languages)
{
	$language->{log} = "$files/$language->{name}.needs";
	$language->{check} = IPC::Run::start([ 'sh', '-c', $language->{needs} ],
		'<', '/dev/null', '>', $language->{log}, '2>&1');
}

sub is_there
{
	my ($language) = @_;
	my $is_there = $language->{check}->finish;
	note("$language->{name}: ", slurp_file($language->{log})) unless $is_there;
	ok($is_there, "$language->{name} and its driver are there") if $ENV{QML_EXAMPLES};
	return $is_there;
}

# Errors that no text of PostgreSQL can be, and what their records are like.
my @odd = (
	[ 'a zero byte', "x\0y", qr/^xy$/ ],
	[ 'bytes that are not UTF-8', "x\xff\xc3y \xf5\x80\x80\x80", qr/^x.*y/ ],
	[ 'a lone surrogate', "x\xed\xa0\xbdy", qr/^x.*y$/ ],
	[ '3 MB', 'x' . ("\xf0\x9f\x98\x80" x 786_000), qr/(\xf0\x9f\x98\x80){1000}/ ]);
append_to_file("$files/odd-$_", $odd[$_][1]) foreach 0 .. $#odd;

# Starts a worker.  Its output goes to a file, because processes that it leaves when it is
# killed would keep a pipe open.
sub start_worker
{
	my ($language, $name, $queue) = @_;
	return IPC::Run::start([ @{ $language->{command} }, $name, $queue, @{ $language->{arguments} // [] } ],
		'<', '/dev/null', '>', "$files/$name.out", '2>', "$files/$name.err");
}

sub enqueue
{
	my ($queue, $method, $payload) = @_;
	return query($node, "SELECT qml_enqueue('$method', '$payload', queue => '$queue', max_retries => 0)");
}

sub wait_until_finished
{
	my ($id) = @_;
	wait_for("the end of job $id",
		sub { query($node, "SELECT finished_at IS NOT NULL FROM qml_job('$id')") eq 't' });
	return query($node, "SELECT state, attempt, result, error, worker FROM qml_job('$id')");
}

# Sees a worker report errors of all kinds.
sub try_odd_errors
{
	my ($who, $queue) = @_;
	foreach my $i (0 .. $#odd)
	{
		my ($what, undef, $pattern) = @{ $odd[$i] };
		my $id = enqueue($queue, 'check_log', qq({"path": "$files/odd-$i"}));
		like((split /\|/, wait_until_finished($id))[3], $pattern, "$who: an error with $what");
	}
	return;
}

# Starts a worker, and sees it do all that workers must do: 15 tests.
sub try_worker
{
	my ($language) = @_;
	my $queue = $language->{name};
	my $sent_to = $language->{sent_to} // sub { qq({"sent_to": "$_[0]"}) };
	my $early;
	if ($language->{arguments})
	{
		$early = enqueue($queue, 'send_receipt', '{"order": 1}');
	}
	else
	{
		IPC::Run::run([ @{ $language->{command} }, '--enqueue', $queue, 'send_receipt', '{"order": 1}' ],
			'>', \$early)
		  or die "$queue: the producer failed";
		chomp $early;
	}
	my $unknown = enqueue($queue, 'unknown_method', '{}');
	{
		local $ENV{PGUSER} = 'stranger';
		my $stranger = start_worker($language, "$queue-0", $queue);
		$stranger->finish;
		isnt($stranger->result(0), 0, "$queue: without the right to work it ends");
		like(slurp_file("$files/$queue-0.out") . slurp_file("$files/$queue-0.err"),
			qr/permission denied/, "$queue: and says why");
	}
	my $handle = start_worker($language, "$queue-1", $queue);
	my $is_waiting = sub {
		return query($node, "SELECT count(*) = 1 FROM pg_stat_activity"
			  . " WHERE query LIKE 'CALL qml_wait(%' AND state = 'active'") eq 't';
	};

	is(wait_until_finished($early), "succeeded|1|" . $sent_to->('Ada') . "||$queue-1",
		"$queue: a job that was there");
	wait_for("$queue: waits", $is_waiting);
	is(wait_until_finished(enqueue($queue, 'send_receipt', '{"order": 2}')),
		"succeeded|1|" . $sent_to->('Grace') . "||$queue-1", "$queue: a job that came later");
	is(wait_until_finished(enqueue($queue, 'send_receipt', '{"order": 9}')),
		"failed|1||there is no order 9|$queue-1", "$queue: a failure");
	try_odd_errors($queue, $queue);

	wait_for("$queue: waits again", $is_waiting);
	$node->restart;
	is(wait_until_finished(enqueue($queue, 'send_receipt', '{"order": 3}')),
		"succeeded|1|" . $sent_to->('Edsger') . "||$queue-1",
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
	my $lease_end = "SELECT lease_expires_at FROM qml_job('$last')";
	my $first_end = query($node, $lease_end);
	my $wait_for_beat = sub {
		my ($end, $when) = @_;
		wait_for("$queue: a heartbeat $when", sub { query($node, "SELECT ($lease_end) > '$end'") eq 't' });
		return;
	};
	$wait_for_beat->($first_end, 'while the job lasts');
	pass("$queue: a heartbeat while the job lasts");
	$handle->signal('TERM');
	# Some runtimes hand a signal to a thread of theirs, which needs its turn before the job is done.
	$wait_for_beat->(query($node, $lease_end), 'after the signal');
	$session->query_safe('COMMIT');
	is(wait_until_finished($last), "succeeded|1|" . $sent_to->('Barbara') . "||$queue-1",
		"$queue: SIGTERM lets the current job finish");
	$handle->finish;
	is($handle->result(0), 0, "$queue: ends well") or diag(slurp_file("$files/$queue-1.err"));
	is(query($node, "SELECT state FROM qml_job('$behind')"), 'enqueued', "$queue: the job behind it is free");
	is(query($node, "SELECT state, attempt FROM qml_job('$unknown')"),
		'enqueued|0', "$queue: a method that it does not know");
	$session->quit;
	query($node, "SELECT qml_delete('$behind'); UPDATE orders SET receipt_sent = false");
	return;
}

# A heartbeat comes after two seconds.
local $ENV{QML_LEASE} = 6;
my @present;
foreach my $language (@languages)
{
  SKIP:
	{
		skip "$language->{name} or its driver is not installed", 15 unless is_there($language);
		push @present, $language;
		try_worker($language);
	}
}

# All at once.  More orders come while workers are killed, and connections of workers.
my $serial = 0;
$ENV{QML_LEASE} = 3;

sub start_any
{
	my ($language) = @_;
	$serial++;
	return { language => $language, handle => start_worker($language, "any-$serial", 'any') };
}

sub unfinished
{
	return query($node, "SELECT count(*) FROM qml.job WHERE queue = 'any' AND finished_at IS NULL");
}

my $orders = 0;
my %killed;
query($node, <<'SQL');
DELETE FROM receipt;
SELECT qml_create_queue('any', '{"max_retries": 1000, "retry": {"strategy": "fixed", "delay": "0.1 s", "jitter": 0}}');
SQL
my @workers = map { start_any($_) } @present;
foreach my $round (1 .. 30)
{
	my $from = 101 + $orders;
	$orders += 15;
	my $to = 100 + $orders;
	query($node, <<"SQL");
BEGIN;
INSERT INTO orders SELECT i, 'customer ' || i FROM generate_series($from, $to) i;
SELECT qml_enqueue('send_receipt', jsonb_build_object('order', i), queue => 'any')
FROM generate_series($from, $to) i;
COMMIT;
SQL
	# Not so many orders wait that those who come back have nothing to do.
	wait_for('some receipts', sub { unfinished() < 40 });
	if ($round % 3 == 0)
	{
		my $victim = $workers[ pick(0, $#workers) ];
		$victim->{handle}->signal('KILL');
		$victim->{handle}->finish;
		$killed{workers}++;
		%$victim = %{ start_any($victim->{language}) };
	}
	else
	{
		$killed{backends} += end_connections($node);
	}
}
note("killed: $killed{workers} workers, $killed{backends} connections");
wait_for('all receipts', sub { unfinished() == 0 });
is(query($node, 'SELECT count(*), count(DISTINCT order_id) FROM receipt'),
	"$orders|$orders", 'all at once: every receipt was sent exactly once');
is(query($node, "SELECT state, count(*) FROM qml.job WHERE queue = 'any' GROUP BY 1"),
	"succeeded|$orders", 'all at once: every job succeeded');
try_odd_errors('all at once', 'any');
foreach my $worker (@workers)
{
	$worker->{handle}->signal('TERM');
}
foreach my $worker (@workers)
{
	$worker->{handle}->finish;
	is($worker->{handle}->result(0), 0, "all at once: $worker->{language}{name} ends well");
}

# Through pgbouncer in transaction mode, which gives each transaction to the server connection
# that has waited longest.  A wait holds one, so the pool has as many more as there are workers.
sub try_pooler
{
	my ($pgbouncer, @pooled) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $size = @pooled + 3;
	# Only version 1.21 knows statements that a client prepared on another server connection.
	my ($minor) = qx($pgbouncer -V) =~ /PgBouncer 1\.(\d+)/;
	my $prepares = $minor >= 21 ? 'max_prepared_statements = 100' : '';
	@pooled = grep { !$_->{prepares} } @pooled unless $prepares;
	append_to_file("$files/users", qq("$ENV{PGUSER}" ""\n));
	append_to_file("$files/pgbouncer.ini", <<"INI");
[databases]
postgres = host=$ENV{PGHOST} port=$ENV{PGPORT}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = trust
auth_file = $files/users
pool_mode = transaction
server_round_robin = 1
default_pool_size = $size
ignore_startup_parameters = extra_float_digits
$prepares
INI
	my $pooler = IPC::Run::start([ $pgbouncer, '-q', "$files/pgbouncer.ini" ], '<', '/dev/null',
		'>', "$files/pgbouncer.out", '2>&1');
	my $connstr = "host=127.0.0.1 port=$port dbname=postgres user=$ENV{PGUSER}";
	wait_for('pgbouncer to answer', sub { defined try_query($node, 'SELECT 1', undef, connstr => $connstr) });
	local $ENV{PGHOST} = '127.0.0.1';
	local $ENV{PGPORT} = $port;
	my %handle = map { $_->{name} => start_worker($_, "pooled-$_->{name}", "pooled-$_->{name}") } @pooled;
	foreach my $jobs (1 .. 10)
	{
		foreach my $language (@pooled)
		{
			query($node, <<"SQL");
SELECT qml_enqueue('send_receipt', '{"order": 1}', queue => 'pooled-$language->{name}', max_retries => 0)
SQL
		}
		wait_for('all jobs of the pooled workers', sub { query($node, <<'SQL') eq '0' });
SELECT count(*) FROM qml.job WHERE queue LIKE 'pooled-%' AND finished_at IS NULL
SQL
	}
	foreach my $language (@pooled)
	{
		my $name = $language->{name};
		is(query($node, <<"SQL"), 'succeeded|1|10', "$name: ten jobs through the pooler");
SELECT state, attempt, count(*) FROM qml.job WHERE queue = 'pooled-$name' GROUP BY 1, 2
SQL
		$handle{$name}->signal('TERM');
		$handle{$name}->finish;
		is($handle{$name}->result(0), 0, "$name: ends well behind the pooler");
		# Statements that another server connection has, or has not.
		unlike(slurp_file("$files/pooled-$name.err"), qr/prepared statement/, "$name: prepares nothing");
	}
	$pooler->signal('INT');
	$pooler->finish;
	return;
}

my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin';
if (defined $pgbouncer)
{
	try_pooler($pgbouncer, @present);
}
else
{
	note('pgbouncer is not installed');
	fail('pgbouncer is there') if $ENV{QML_EXAMPLES};
}

# The document shows the programs as they are.
my $document = slurp_file("$top/doc/workers.md");
foreach my $file ('worker.sh', 'worker.py', 'worker_asyncpg.py', 'worker.pl')
{
	ok(index($document, slurp_file("$top/examples/$file") . "```\n") > 0, "doc/workers.md shows $file");
}

$node->stop;
done_testing();
