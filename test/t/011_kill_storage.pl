# Sessions make, claim and end jobs of all storage classes in transactions of all kinds, alone or
# with rows of a user's table, while the server is killed over and over.  What is acknowledged and
# durable is never lost; of async jobs the last transactions may be, each as a whole; of unlogged
# ones all are; and no attempt number is given twice.  QmlStorage.pm is the judge.
#
# A crash here is SIGKILL of all processes: what was not yet handed to the kernel is lost.  The
# process that writes the WAL in the background is stopped, so that this is a lot where no session
# commits anything durable.
#
# QML_KILLS: how often the server is killed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlCrash;
use QmlStorage;
use QmlTest;
use Test::More;

my $KILLS = $ENV{QML_KILLS} // 6;
my $MOST_ENDS = 300;    # that are said after a crash, and again of claims that were lost before
my %CLASS = (d1 => 'durable', d2 => 'durable', a1 => 'async', a2 => 'async', u1 => 'unlogged', u2 => 'unlogged');

# Rounds are quiet and busy in turns.  In quiet ones hardly anything is durable, so that much is
# lost. The first claim of a job after a crash is durable, so async queues are new then; the next
# round goes on with them.  In busy rounds durable commits flush all the time what was before them.
my %new_queue = map { $_ % 2 ? ($_ => "f$_") : () } 1 .. $KILLS;
$CLASS{$_} = 'async' foreach values %new_queue;

# Queues of a session, and the rounds in which it takes part.
my @SESSIONS = (
	[ 'a1,a2', 'all' ], [ 'a1,a2', 'all' ], [ 'a1', 'all' ],
	[ 'u1,u2', 'all' ], [ 'u1', 'all' ], [ 'a1,a2,u1', 'all' ],
	[ 'd1,d2', 'busy' ], [ 'd1', 'busy' ], [ 'd1,a1,u1', 'busy' ], [ 'd2,a2,u2', 'busy' ]);

seed();
my $node = background_node('kill_storage', conf => <<'CONF');
wal_buffers = 4MB
checkpoint_timeout = 1h
qml.workers = 0
CONF
create_class_queues($node, '"lease": "1 day", "max_retries": 1000', %CLASS);

my $oracle = QmlStorage->new(%CLASS);

my %next = map { $_ => 0 } 0 .. $#SESSIONS;
foreach my $round (1 .. $KILLS)
{
	my $is_busy = $round % 2 == 0;
	kill 'STOP', wal_writer($node) or die "could not stop the WAL writer: $!";
	my $logs = make_log_dir();
	my @clients = map {
		my ($queues, $when) = @{ $SESSIONS[$_] };
		my $new = $new_queue{ $is_busy ? $round - 1 : $round };
		$queues =~ s/a1(,a2)?/$is_busy ? "$&,$new" : $new/e;
		$when eq 'busy' && !$is_busy
		  ? ()
		  : start_client(
			$node, 'transact', $logs,
			'--max-seconds', 200,
			'--queues', $queues,
			'--batch', 5,
			'--id-series', $_,
			'--first-id', $next{$_},
			'--rollback', 0.1,
			'--row', $is_busy ? 0.2 : 0.004,
			'--prepare', $is_busy ? 0.05 : 0.002,
			'--pace-ms', 5,
			$_ % 2 ? '--prepared' : ())
	} 0 .. $#SESSIONS;

	# Claims that were lost before are still in the heads of their workers.
	my $more = sub {
		my $mark = log_size($logs) + $_[0];
		wait_for('the sessions to get on', sub { log_size($logs) >= $mark || grep { !$_->{handle}->pumpable } @clients });
	};
	$more->(50_000);
	my @bad = say_ends($node, $oracle, "lost$round", $oracle->lost_tokens($MOST_ENDS));
	$more->(pick(100_000, 300_000));
	is(scalar(grep { !$_->{handle}->pumpable } @clients), 0, "round $round: all sessions were at work");
	kill_server($node);
	finish_clients('they end with the server', @clients);
	start_again($node);

	commit_prepared($node);
	my $facts = storage_facts($node);
	push @bad, $oracle->judge($facts, QmlChecker::read_events($logs));
	push @bad, say_ends($node, $oracle, "held$round", $oracle->tokens($MOST_ENDS));
	is(join("\n", @bad > 20 ? (@bad[ 0 .. 19 ], scalar(@bad) . ' in all') : @bad), '', "round $round: what is there is what must be, and no more");
	$next{$_} = QmlStorage::next_of_series($facts, $_) foreach keys %next;
}

# What the rules were tried on.
my %LEAST = (
	'durable told' => 100, 'async told' => 200, 'unlogged told' => 100,
	'async lost' => 10, 'rows' => 50, 'rows with async jobs' => 20, 'prepared' => 5,
	'durable claims' => 50, 'async claims' => 100, 'unlogged claims' => 50,
	'async claims of jobs whose claim was lost' => 5, 'unlogged claims of jobs whose claim was lost' => 5,
	'accepted' => 20, 'refused' => 50, 'durable undone' => 10, 'async undone' => 10);
cmp_ok($oracle->count($_), '>=', $LEAST{$_}, "$_: " . $oracle->count($_)) foreach sort keys %LEAST;

is(query($node, <<'SQL'), 0, 'the counts agree with the rows');
SELECT count(*) FROM (SELECT state, count FROM qml_counts() WHERE count > 0) c
FULL JOIN (SELECT state, count(*) AS rows FROM qml.job GROUP BY 1) j USING (state)
WHERE c.count IS DISTINCT FROM j.rows
SQL
is(join("\n", QmlChecker::check_indexes($node->connstr('postgres'))), '', 'the indexes agree with the tables');
is(join("\n", QmlChecker::check_server_log($node->logfile, { crashes => 1 })), '', 'the log is clean');

done_testing();
