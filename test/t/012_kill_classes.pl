# Sessions with short leases and heartbeats, workers in the database and the scheduler work on queues of
# all storage classes, while single processes of the server are ended, and the server is killed over and
# over: at once, or because one of its processes was.  QmlStorage.pm is the judge.
#
# After a crash nothing runs until it was looked at: one that comes from a single process ends the whole
# server, and background processing is off at first.  The process that writes the WAL in the background
# is stopped, so that more is lost: most where nothing durable was committed at the end.  So before
# every other kill all that may be durable stands still, and sessions have an async queue that is
# new, because the first claim of a job after a crash is durable.
#
# QML_KILLS: how often the server is killed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlCrash;
use QmlJobs;
use QmlStorage;
use QmlTest;
use Test::More;

my $KILLS = $ENV{QML_KILLS} // 6;
my $MOST_ENDS = 200;    # that are said after a crash, and again of claims that were lost before
my %CLASS = (d => 'durable', a => 'async', u => 'unlogged', din => 'durable', ain => 'async', uin => 'unlogged');

my %new_queue = map { $_ % 2 ? ($_ => "f$_") : () } 1 .. $KILLS;
$CLASS{$_} = 'async' foreach values %new_queue;

# The rows that a success of each method leaves.
my %METHODS = (nothing => 0, record => 1, shaky => 1, nap => 0, later => 1);
my $EFFECT = 'INSERT INTO ledger VALUES ((job).id, (job).attempt)';

# Queues of a session, those in which it makes jobs with handlers, and whether it goes on where nothing is to
# be durable.
my @SESSIONS = (
	[ 'd', 'din' ], [ 'a', 'ain', 1 ], [ 'a', 'ain', 1 ], [ 'u', 'uin', 1 ], [ 'u', 'uin' ], [ 'a,u', 'ain,uin' ], [ 'd,a,u', 'din,ain,uin' ]);

my %PROCESS = (
	session => q{backend_type = 'client backend' AND application_name ~ '^transact'},
	worker => q{backend_type = 'qml worker'},
	scheduler => q{backend_type = 'qml scheduler'});

seed();
my $node = background_node('kill_classes', conf => <<'CONF');
restart_after_crash = off
log_error_verbosity = terse
wal_buffers = 4MB
checkpoint_timeout = 1h
qml.workers = 2
qml.log_failures = off
CONF
create_class_queues($node, '"lease": "1 day", "max_retries": 90, "retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}', %CLASS);
query($node, 'CREATE TABLE ledger (job uuid, attempt int)');
noted_handler($node, 'FUNCTION', 'nothing');
noted_handler($node, 'FUNCTION', 'record', $EFFECT);
noted_handler($node, 'FUNCTION', 'shaky', $EFFECT, "IF hashtext(concat((job).id, (job).attempt)) % 4 = 0 THEN RAISE 'it shakes'; END IF");
noted_handler($node, 'FUNCTION', 'nap', 'PERFORM pg_sleep(0.03)');
noted_handler($node, 'FUNCTION', 'later', "IF (job).tries = 1 AND (job).attempt % 2 = 1 THEN PERFORM qml_retry_later('10 ms', 'not yet'); ELSE $EFFECT; END IF");

my $oracle = QmlStorage->new(%CLASS);
my %seen;

# What others see has been committed.
sub look
{
	$seen{ (split /\|/)[0] } = (split /\|/)[1]
	  foreach split /\n/, query($node, q{SELECT id, attempt FROM qml.job WHERE queue ~ 'in$' AND state = 'succeeded'});
	return;
}

# A process at random, of those that are at work if there are any.
sub some_process
{
	my ($where) = @_;
	my $pid;
	wait_for("a process with $where", sub { $pid = query($node, "SELECT pid FROM pg_stat_activity WHERE $where ORDER BY state = 'idle', random() LIMIT 1") });
	return $pid;
}

# Kills one process, after which the postmaster ends all others and itself; false: it was not there.
sub kill_one
{
	my ($kind) = @_;
	my $offset = -s $node->logfile;
	my $wal_writer = wal_writer($node);
	my $pid = some_process($PROCESS{$kind});

	look();
	kill 'KILL', $pid or return 0;
	wait_for('the server to notice', sub { slurp_file($node->logfile, $offset) =~ /\(PID $pid\) was terminated by signal 9/ });
	# It is stopped, and would be waited for.
	kill 'KILL', $wal_writer;
	wait_for('the server to be gone', sub { !-e "/proc/$node->{_pid}" });
	return 1;
}

sub kill_kind
{
	my ($kind) = @_;
	if ($kind eq 'server')
	{
		look();
		kill_server($node);
	}
	else
	{
		1 until kill_one($kind);
	}
	return;
}

# ---- rounds

my %next;
my $series = 0;
my %ended;
# Workers may be gone where nothing is to be durable.
my @still = map { shuffle('server', 'session', 'scheduler') } 0 .. $KILLS / 6;
my @busy = map { shuffle('server', 'worker', 'worker', 'session') } 0 .. $KILLS / 8;

# A session on the queues of one of @SESSIONS, with ids of its own that were not used in this life.
sub start_session
{
	my ($logs, $round, $n, $series) = @_;
	my ($queues, $handler_queues, $goes_on) = @{ $SESSIONS[$n] };
	$queues =~ s/^a$/$new_queue{$round} \/\/ "a,$new_queue{$round - 1}"/e if $goes_on;

	return start_client(
		$node, 'transact', $logs,
		'--max-seconds', 200,
		'--queues', $queues,
		'--handler-queues', $handler_queues,
		'--methods', join(',', sort keys %METHODS),
		'--batch', 5,
		'--lease', '400 ms',
		'--heartbeat', 0.1,
		'--claim-in-blocks',
		'--id-series', $series,
		'--first-id', $next{$series} // 0,
		'--rollback', 0.1,
		'--row', 0.02,
		'--prepare', 0.01,
		'--pace-ms', 8,
		$n % 2 ? '--prepared' : ());
}

foreach my $round (1 .. $KILLS)
{
	my $logs = make_log_dir();
	my $kind = $round % 2 ? shift @still : shift @busy;
	query($node, "SELECT qml_resume_queue(q) FROM unnest('{din,ain,uin}'::text[]) q");
	set_config($node, 'qml.enabled' => 'on');
	wait_for_process($node, 'scheduler', 'postgres');
	kill 'STOP', wal_writer($node) or die "could not stop the WAL writer: $!";
	my %client = map { $_ => start_session($logs, $round, $_, $_) } 0 .. $#SESSIONS;
	my @gone;
	my $replacements = 0;

	# Sessions that were ended are followed by others, with other ids.
	my $more = sub {
		my $mark = log_size($logs) + $_[0];
		wait_for('the sessions to get on', sub {
			foreach my $n (grep { !$client{$_}{handle}->pumpable } sort keys %client)
			{
				push @gone, $client{$n};
				$client{$n} = start_session($logs, $round, $n, @SESSIONS + $replacements++);
			}
			return log_size($logs) >= $mark;
		});
		look();
	};
	$more->(20_000);
	my @bad = say_ends($node, $oracle, "lost$round", $oracle->lost_tokens($MOST_ENDS));
	foreach my $kind (shuffle(('session') x 2, 'worker', 'worker', pick(0, 2) ? () : 'scheduler'))
	{
		$more->(pick(5_000, 40_000));
		my $pid = some_process($PROCESS{$kind});
		$ended{$kind} += query($node, "SELECT pg_terminate_backend($pid)") eq 't';
	}
	$more->(pick(20_000, 80_000));
	my @stopped = $round % 2 ? map { $client{$_} } grep { !$SESSIONS[$_][2] } sort keys %client : ();
	if (@stopped)
	{
		query($node, "SELECT qml_pause_queue(q) FROM unnest('{din,ain,uin}'::text[]) q");
		$_->{handle}->signal('STOP') foreach @stopped;
		$more->(pick(10_000, 30_000));
	}
	$node->adjust_conf('postgresql.conf', 'qml.enabled', "'off'");
	kill_kind($kind);
	$_->{handle}->signal('CONT') foreach @stopped;
	finish_clients("round $round: the sessions end with the server", @gone, map { $client{$_} } sort keys %client);
	start_again($node);

	commit_prepared($node);
	my $facts = storage_facts($node);
	@$facts{qw(runs handlers seen)} = (QmlChecker::read_runs($node->logfile), \%METHODS, {%seen});
	push @{ $facts->{effects}{ (split /\|/)[0] } }, (split /\|/)[1] foreach split /\n/, query($node, 'SELECT * FROM ledger');
	push @bad, $oracle->judge($facts, QmlChecker::read_events($logs));
	push @bad, say_ends($node, $oracle, "held$round", $oracle->tokens($MOST_ENDS));
	is(join("\n", @bad > 20 ? (@bad[ 0 .. 19 ], scalar(@bad) . ' in all') : @bad), '', "round $round, a kill of the $kind: what is there is what must be, and no more");
	$next{$_} = QmlStorage::next_of_series($facts, $_) foreach 0 .. @SESSIONS + 50;
	# What was lost is seen no more.
	my %jobs = %{ $facts->{jobs} };
	delete $seen{$_} foreach grep { !$jobs{$_} || $jobs{$_}[0]{state} ne 'succeeded' } keys %seen;
}

# ---- at rest

query($node, "SELECT qml_resume_queue(q) FROM unnest('{din,ain,uin}'::text[]) q");
set_config($node, 'qml.enabled' => 'on');
wait_for_process($node, 'scheduler', 'postgres');
wait_for('the jobs with handlers to be finished', sub { query($node, q{SELECT count(*) FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id WHERE q.name ~ 'in$'}) == 0 });
wait_for('all claims to be lost with their leases', sub { query($node, q{SELECT count(*) FROM qml.job WHERE state IN ('processing', 'awaiting_retry')}) == 0 });
{
	my $facts = storage_facts($node);
	@$facts{qw(runs handlers seen)} = (QmlChecker::read_runs($node->logfile), \%METHODS, \%seen);
	push @{ $facts->{effects}{ (split /\|/)[0] } }, (split /\|/)[1] foreach split /\n/, query($node, 'SELECT * FROM ledger');
	$facts->{is_at_rest} = 1;
	is(join("\n", $oracle->judge($facts)), '', 'at rest, all is as it must be');
}
is(query($node, <<'SQL'), 0, 'a job with a handler fails only if the server went down under it three times');
SELECT count(*) FROM qml.job WHERE queue ~ 'in$' AND state <> 'succeeded'
	AND (SELECT count(*) FROM jsonb_array_elements(errors) e WHERE e ->> 'error_type' = 'server_down') < 3
SQL

# What the rules were tried on.
my %LEAST = (
	'durable told' => 50, 'async told' => 100, 'unlogged told' => 100, 'async lost' => 10,
	'heartbeats' => 50, 'refused within a life' => 5,
	(map { ("$_ claims of jobs whose lease was over" => 10) } qw(durable async unlogged)),
	'durable lease_expired' => 10, 'async lease_expired' => 10,
	'durable server_down' => 1, 'async server_down' => 1,
	'durable successes in the database' => 50, 'async successes in the database' => 50, 'unlogged runs' => 50,
	'async claims of jobs whose claim was lost' => 1, 'unlogged claims of jobs whose claim was lost' => 1,
	'accepted' => 10, 'refused' => 50, 'durable undone' => 10, 'async undone' => 10);
cmp_ok($oracle->count($_), '>=', $LEAST{$_}, "$_: " . $oracle->count($_)) foreach sort keys %LEAST;
note('async successes that were seen and lost: ' . $oracle->count('async successes lost'));
cmp_ok($ended{$_} // 0, '>=', 2, "processes that were ended: $ended{$_} of kind $_") foreach 'session', 'worker';

is(query($node, <<'SQL'), 0, 'the counts agree with the rows');
SELECT count(*) FROM (SELECT state, count FROM qml_counts() WHERE count > 0) c
FULL JOIN (SELECT state, count(*) AS rows FROM qml.job GROUP BY 1) j USING (state)
WHERE c.count IS DISTINCT FROM j.rows
SQL
is(join("\n", QmlChecker::check_indexes($node->connstr('postgres'))), '', 'the indexes agree with the tables');
is(join("\n", QmlChecker::check_server_log($node->logfile, { crashes => 1, allow => [qr/^terminating background worker "qml (worker|scheduler)" due to administrator command/] })), '',
	'the log is clean');

done_testing();
