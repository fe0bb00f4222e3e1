# Twenty thousand queues: making one more, and what other sessions do after that, reads as
# much as with thirty.  And whatever is done to a queue, however, counts for the next command of
# all sessions, of those that remember this queue and of those that remember all.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;

my ($FEW, $MANY) = (30, 20_000);

# Pages more than with few queues: the indexes are one level higher, and each call looks at
# them a few times.
my $MORE_PAGES = 16;
# Rows of qml.queue_data that a call reads, at most.
my $MOST_ROWS = 6;
# As many changed rows as a session reads again one by one, and more than a command tells of
# one by one.
my $MANY_CHANGES = 100;

my $node = new_node('many_queues', conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.enabled = off
autovacuum = off
shared_buffers = 256MB
max_prepared_transactions = 2
CONF

query($node, <<'SQL');
-- Pages that a query touches, and rows of the queues that are read for it.
CREATE FUNCTION queue_rows() RETURNS bigint LANGUAGE sql AS $$
	SELECT coalesce(sum(seq_tup_read + idx_scan), 0) FROM pg_stat_xact_user_tables
	WHERE schemaname = 'qml' AND relname = 'queue_data'
$$;
CREATE FUNCTION cost(sql text, OUT pages int, OUT rows int) LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
	before bigint := queue_rows();
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || sql INTO plan;
	plan := plan -> 0 -> 'Plan';
	pages := (plan ->> 'Shared Hit Blocks')::int + (plan ->> 'Shared Read Blocks')::int;
	rows := queue_rows() - before;
END $$;
SQL
query($node, "SELECT count(qml_create_queue('q' || i)) FROM generate_series(1, $FEW) i");
my $all_of_few = join ',', map { "q$_" } 1 .. $FEW;

my ($maker, $user) = map { new_session($node, 'postgres', on_error_stop => 0) } 1 .. 2;

sub cost
{
	my ($session, $sql) = @_;
	return [ split /\|/, $session->query_safe("SELECT * FROM cost(\$sql\$$sql\$sql\$)") ];
}

# ---- what it costs

# The middle one of several.
sub middle
{
	my ($column, @costs) = @_;
	return (sort { $a <=> $b } map { $_->[$column] } @costs)[ @costs / 2 ];
}

my $made = 0;

# Pages and rows of each call, while there are so many queues.
sub costs
{
	my %costs;
	foreach my $round (1 .. 7)
	{
		my $new = 'new' . ++$made;
		my %cost = (
			'making a queue' => cost($maker, "SELECT qml_create_queue('$new')"),
			'the next enqueue of another session' => cost($user, "SELECT qml_enqueue('m', queue => 'q1')"),
			'its first enqueue into the new queue' => cost($user, "SELECT qml_enqueue('m', queue => '$new')"),
			'a queue that comes with its first job' => cost($maker, "SELECT qml_enqueue('m', queue => 'with_$new')"),
			'the next fetch of another session' => cost($user, "SELECT * FROM qml_fetch('w', 'q1')"),
			'a fetch from the new queue' => cost($user, "SELECT * FROM qml_fetch('w', '$new')"),
			'pausing a queue' => cost($maker, "SELECT qml_pause_queue('q1')"),
			'a fetch after that' => cost($user, "SELECT * FROM qml_fetch('w', 'q1')"),
			'resuming it' => cost($maker, "SELECT qml_resume_queue('q1')"),
			'altering it' => cost($maker, qq{SELECT qml_alter_queue('q1', '{"max_retries": 3}')}),
			"the next fetch from $FEW queues" => cost($user, "SELECT * FROM qml_fetch('w', '{$all_of_few}'::text[], 100)"));
		my $first = new_session($node, 'postgres');
		$cost{'the first enqueue of a session'} = cost($first, "SELECT qml_enqueue('m', queue => 'q2')");
		$first->quit;
		# What is read for the first time, of the catalogs above all, is not of these.
		next if $round <= 2;
		push @{ $costs{$_} }, $cost{$_} foreach keys %cost;
	}
	return map { $_ => [ middle(0, @{ $costs{$_} }), middle(1, @{ $costs{$_} }) ] } keys %costs;
}

my %few = costs();
query($node, "INSERT INTO qml.queue_data (name) SELECT 'many' || i FROM generate_series(1, $MANY) i");
query($node, 'VACUUM qml.live');
my %many = costs();

foreach my $call (sort keys %few)
{
	cmp_ok($many{$call}[0], '<=', $few{$call}[0] + $MORE_PAGES,
		"$call: $many{$call}[0] pages with $MANY queues, $few{$call}[0] with $FEW");
	cmp_ok($many{$call}[1], '<=', $MOST_ROWS, "and $many{$call}[1] rows of queues, $few{$call}[1] with $FEW");
}

# ---- what it must not cost: a change counts in the next command

# Sessions that remember the queue, and one that remembers all of them: a hint looks at all.
my ($one, $all) = ($user, new_session($node, 'postgres', on_error_stop => 0));

sub hint
{
	my ($session, $name) = @_;
	$session->query("SELECT qml_alter_queue('$name', '{}')");
	my $hint = $session->{stderr};
	$session->{stderr} = '';
	return $hint;
}

sub remember
{
	like(hint($all, 'q1_'), qr/"q1"|q1/, 'a session has looked at all queues');
	foreach my $session ($one, $all)
	{
		$session->query_safe("SELECT qml_enqueue('m', queue => name) FROM unnest(ARRAY['a', 'b']) name");
	}
	return;
}

# Where a job of this name goes is where the table says; whether it is paused as well.
sub follows
{
	my ($what, @names) = @_;
	# The view looks at the queue of each job, by its id.
	my $by_id = 'SELECT string_agg(DISTINCT queue, \',\' ORDER BY queue) FROM qml.job';
	my $expected = query($node, 'SELECT string_agg(DISTINCT q.name, \',\' ORDER BY q.name)'
		. ' FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id');
	is($_->query_safe($by_id), $expected, "$what: the queues by their ids") foreach $one, $all;
	foreach my $name (@names)
	{
		foreach my $session ($one, $all)
		{
			my $who = $session == $all ? 'who knows all queues' : 'who knows this one';
			my $job = $session->query_safe("SELECT qml_enqueue('m', queue => '$name')");
			is( query($node, "SELECT q.name FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id WHERE l.id = '$job'"),
				$name, "$what: $who adds to \"$name\"");
			my $paused = query($node, "SELECT paused FROM qml.queue_data WHERE name = '$name'");
			is($session->query_safe("SELECT count(*) FROM qml_fetch('w', '$name')"),
				$paused eq 't' ? 0 : 1, "and fetches from it" . ($paused eq 't' ? ' nothing' : ''));
		}
	}
	return;
}

query($node, "SELECT qml_create_queue('a'), qml_create_queue('b'); SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[200]), q) FROM unnest(ARRAY['a', 'b']) q");

my $rename = q{UPDATE qml.queue_data SET name = '%s' WHERE name = '%s'};
my @changes = (
	[ 'paused', "SELECT qml_pause_queue('a')" ],
	[ 'resumed', "SELECT qml_resume_queue('a')" ],
	[ 'paused by hand', "UPDATE qml.queue_data SET paused = true WHERE name = 'a'" ],
	[ 'resumed without triggers', <<'SQL' ],
ALTER TABLE qml.queue_data DISABLE TRIGGER USER;
SELECT qml_resume_queue('a')
SQL
	[ 'paused without triggers', "SELECT qml_pause_queue('a')" ],
	[ 'resumed in a subtransaction', <<'SQL' ],
ALTER TABLE qml.queue_data ENABLE ALWAYS TRIGGER invalidate;
ALTER TABLE qml.queue_data ENABLE ALWAYS TRIGGER invalidate_all;
BEGIN;
SAVEPOINT s;
SELECT qml_resume_queue('a');
RELEASE s;
SAVEPOINT s;
SELECT qml_pause_queue('a');
ROLLBACK TO s;
COMMIT
SQL
	[ 'paused by a prepared transaction', "BEGIN; SELECT qml_pause_queue('a'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'" ],
	[ 'resumed in vain', "BEGIN; SELECT qml_resume_queue('a'); ROLLBACK" ],
	[ 'very many changed', 'UPDATE qml.queue_data SET paused = false WHERE true' ],
	[
		'many changed one by one',
		join '; ',
		(map { "SELECT qml_pause_queue('many$_')" } 1 .. $MANY_CHANGES),
		"SELECT qml_pause_queue('b')", "SELECT qml_resume_queue('b')"
	],
	[ 'renamed', sprintf($rename, 'c', 'a') ],
	[ 'renamed back', join '; ', sprintf($rename, 'd', 'a'), sprintf($rename, 'a', 'c') ],
	[ 'names exchanged', join '; ', sprintf($rename, 'x', 'a'), sprintf($rename, 'a', 'b'), sprintf($rename, 'b', 'x') ],
	[ 'another id', "ALTER TABLE qml.queue_data ALTER id SET GENERATED BY DEFAULT; UPDATE qml.live SET queue_id = 1000001 WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'a');"
		  . " UPDATE qml.queue_data SET id = 1000001 WHERE name = 'a'" ],
	[ 'a negative id', "UPDATE qml.live SET queue_id = -5 WHERE queue_id = 1000001;"
		  . " UPDATE qml.queue_data SET id = -5 WHERE name = 'a'" ],
	[ 'analyzed', 'ANALYZE qml.queue_data' ],
	[ 'row made again', <<'SQL' ],
BEGIN;
DELETE FROM qml.queue_data WHERE name = 'b';
INSERT INTO qml.queue_data (name) VALUES ('b');
COMMIT
SQL
	[ 'truncated', <<'SQL' ],
BEGIN;
CREATE TEMP TABLE kept AS SELECT * FROM qml.queue_data;
TRUNCATE qml.queue_data;
INSERT INTO qml.queue_data SELECT * FROM kept WHERE name <> 'b';
COMMIT
SQL
);

remember();
foreach my $change (@changes)
{
	my ($what, $sql) = @$change;
	query($node, $sql);
	follows($what, 'a', 'b');
	# Whoever knew all of them does so again.
	hint($all, 'q1_') if $what =~ /many/;
}

# A queue that was rolled back is not there, in the session that made it either; the next one
# has another id.
my $id_of = sub { query($node, "SELECT id FROM qml.queue_data WHERE name = '$_[0]'") };
foreach my $undo ('ROLLBACK', 'ROLLBACK TO s; COMMIT')
{
	my $name = $undo eq 'ROLLBACK' ? 'undone' : 'undone_in_part';
	$maker->query_safe("BEGIN; SAVEPOINT s; SELECT qml_create_queue('$name'); SELECT qml_enqueue('m', queue => '$name'); $undo");
	is($id_of->($name), '', "$name: the row is gone");
	like(hint($maker, $name), qr/queue "$name" does not exist/, 'for the session that made it as well');
	query($node, "SELECT qml_create_queue('$name')");
	my $job = $maker->query_safe("SELECT qml_enqueue('m', queue => '$name')");
	is(query($node, "SELECT queue_id FROM qml.live WHERE id = '$job'"), $id_of->($name), 'one that another session makes is found');
}

# Who knows all queues learns of the new ones, and those that are dropped.
like(hint($all, 'later_queu'), qr/does not exist/, 'there is no queue of such a name');
query($node, "SELECT qml_create_queue('later_queue')");
like(hint($all, 'later_queu'), qr/later_queue"?\?/, 'a new one is suggested');
query($node, "SELECT qml_drop_queue('later_queue')");
unlike(hint($all, 'later_queu'), qr/later_queue"?\?/, 'a dropped one is not');
query($node, "SELECT count(qml_create_queue('later_queue' || i)) FROM generate_series(1, $MANY_CHANGES) i");
like(hint($all, "later_queue$MANY_CHANGES "), qr/later_queue/, 'of many new ones, too');
like(hint($all, "later_queu$MANY_CHANGES"), qr/later_queue$MANY_CHANGES"?\?/, 'the last one is among them');

# ---- who takes from one queue after the other reads the next ones ahead

query($node, <<'SQL');
TRUNCATE qml.live;
SELECT count(qml_create_queue('ahead' || i)), count(qml_enqueue('m', queue => 'ahead' || i)) FROM generate_series(1, 100) i;
SQL
my $taker = new_session($node, 'postgres');
my $take = sub { $taker->query_safe(q{SELECT queue FROM qml_fetch('w')}) };
my $reads = sub { $taker->query_safe('SELECT idx_scan FROM pg_stat_user_tables WHERE schemaname = \'qml\' AND relname = \'queue_data\'') };
is(join(' ', map { $take->() } 1 .. 4), 'ahead1 ahead2 ahead3 ahead4', 'jobs of all queues come in the order of the queues');
query($node, "SELECT qml_pause_queue('ahead6')");
is(join(' ', map { $take->() } 1 .. 3), 'ahead5 ahead7 ahead8', 'a queue that was read ahead and is paused is passed over');
query($node, sprintf $rename, 'behind', 'ahead9');
is($take->(), 'behind', 'one that got another name has that');
query($node, "DELETE FROM qml.live WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'ahead10'); SELECT qml_drop_queue('ahead10')");
is($take->(), 'ahead11', 'one that was dropped is passed over');
my $before = $reads->();
$take->() foreach 1 .. 80;
$taker->query_safe('SELECT pg_stat_force_next_flush()');
cmp_ok($reads->() - $before, '<=', 8, 'the queues are read many at a time');
$taker->quit;

# A transaction that keeps its snapshot sees what happened to the queue, too.
$one->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qml.queue_data");
query($node, "SELECT qml_pause_queue('a')");
is($one->query_safe("SELECT count(*) FROM qml_fetch('w', 'a')"), 0, 'a queue that is paused later is paused in an old snapshot');
$one->query_safe('COMMIT');

$_->quit foreach $maker, $one, $all;
end_sessions($node);
done_testing();
