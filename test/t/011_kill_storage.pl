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
my $dir = PostgreSQL::Test::Utils::tempdir;
my $node = background_node('kill_storage', conf => <<'CONF');
wal_buffers = 4MB
checkpoint_timeout = 1h
qml.workers = 0
CONF
query($node, "SELECT qml_create_queue('$_', '{\"storage\": \"$CLASS{$_}\", \"lease\": \"1 day\", \"max_retries\": 1000}')")
  foreach sort keys %CLASS;
query($node, <<'SQL');
CREATE TABLE user_row (tx text);
CREATE TABLE token (round text, id uuid, attempt int, expected text, was text, PRIMARY KEY (round, id, attempt));
-- Says the ends of claims that a worker still believes in.
CREATE PROCEDURE say_ends(this text) LANGUAGE plpgsql AS $$
DECLARE
	t record;
	answer text;
BEGIN
	FOR t IN SELECT * FROM token WHERE round = this LOOP
		BEGIN
			answer := CASE WHEN qml_release(t.id, t.attempt) THEN 'accepted' END;
		EXCEPTION WHEN SQLSTATE 'QM001' OR SQLSTATE 'QM003' THEN
			answer := 'refused';
		END;
		UPDATE token SET was = answer WHERE round = this AND id = t.id AND attempt = t.attempt;
	END LOOP;
END $$;
SQL

my $oracle = QmlStorage->new(%CLASS);

sub load_facts
{
	my %facts = (jobs => {}, rows => {});

	foreach my $line (split /\n/, query($node, 'SELECT id, state, attempt, queue, worker FROM qml.job'))
	{
		my ($id, @columns) = split /\|/, $line, -1;
		push @{ $facts{jobs}{$id} }, { map { $_ => shift @columns } qw(state attempt queue worker) };
	}
	$facts{rows}{ (split /\|/)[0] } = (split /\|/)[1]
	  foreach split /\n/, query($node, 'SELECT tx, count(*) FROM user_row GROUP BY 1');
	$facts{unlogged} = query($node, <<'SQL');
SELECT (SELECT count(*) FROM qml.live_unlogged) + (SELECT count(*) FROM qml.history_unlogged)
	+ (SELECT count(*) FROM qml.history_unlogged_overflow)
SQL
	return \%facts;
}

# Says the ends of claims, and what was wrong in the answers.
sub say_ends
{
	my ($round, @tokens) = @_;
	append_to_file("$dir/$round", join '', map { "$round\t$_->[0]\t$_->[1]\t$_->[2]\n" } @tokens);
	query($node, "COPY token (round, id, attempt, expected) FROM '$dir/$round'; CALL say_ends('$round')");
	return $oracle->judge_answers(map { [ split /\|/ ] } split /\n/,
		query($node, "SELECT id, attempt, expected, was FROM token WHERE round = '$round'"));
}

sub wal_writer
{
	my $pid;
	wait_for('the WAL writer',
		sub { $pid = query($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'}) });
	return $pid;
}

# What was prepared when the server was killed.
sub commit_prepared
{
	query($node, "COMMIT PREPARED '$_'") foreach split /\n/, query($node, 'SELECT gid FROM pg_prepared_xacts');
	return;
}

my %next = map { $_ => 0 } 0 .. $#SESSIONS;
foreach my $round (1 .. $KILLS)
{
	my $is_busy = $round % 2 == 0;
	kill 'STOP', wal_writer() or die "could not stop the WAL writer: $!";
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
	my @bad = say_ends("lost$round", $oracle->lost_tokens($MOST_ENDS));
	$more->(pick(100_000, 300_000));
	is(scalar(grep { !$_->{handle}->pumpable } @clients), 0, "round $round: all sessions were at work");
	kill_server($node);
	finish_clients('they end with the server', @clients);
	start_again($node);

	commit_prepared();
	my $facts = load_facts();
	push @bad, $oracle->judge($facts, QmlChecker::read_events($logs));
	push @bad, say_ends("held$round", $oracle->tokens($MOST_ENDS));
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
