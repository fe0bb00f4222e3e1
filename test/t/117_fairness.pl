# More work than places for workers: all databases and roles get on, those that
# cannot work are left alone, and afterwards all places are free.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(max min sum);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

# The launcher, that of logical replication, a scheduler for each of 13 databases,
# and four workers.
my $DATABASES = 12;
my $PLACES = 4;
my $node = background_node('fairness', bare => 1, conf => sprintf(<<'CONF', 2 + $DATABASES + $PLACES, $DATABASES + $PLACES));
max_worker_processes = %d
qml.max_workers = %d
max_connections = 100
qml.workers = 3
qml.worker_idle_timeout = 2
qml.databases = 'db1, db2, db3, db4, db5, db6, db7, db8, db9, db10, db11, db12'
CONF
my @databases = map { "db$_" } 1 .. $DATABASES;
my $began = time;

my $HANDLER = <<'SQL';
CREATE FUNCTION work(payload jsonb) RETURNS void LANGUAGE sql
AS $$ INSERT INTO ledger DEFAULT VALUES; SELECT pg_sleep(0.02) $$;
SELECT qml_register_handler('work', 'work');
SQL
sub create
{
	my ($dbname) = @_;
	query($node, "CREATE DATABASE $dbname");
	query($node, <<"SQL", $dbname);
CREATE EXTENSION qml;
CREATE TABLE ledger (pid int DEFAULT pg_backend_pid(), who name DEFAULT current_user, at timestamptz DEFAULT clock_timestamp());
GRANT ALL ON ledger TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
$HANDLER
SQL
	return;
}

sub done
{
	my ($dbname) = @_;
	return query($node, 'SELECT count(*) FROM ledger', $dbname);
}

# Workers by database, and schedulers.
sub processes
{
	my ($kind) = @_;
	return map { split /\|/ } split /\n/, query($node, <<"SQL");
SELECT datname, count(*) FROM pg_stat_activity WHERE backend_type = 'qml $kind' GROUP BY 1
SQL
}

# Waits until every one of the databases has done so many more jobs; how long it took.
sub all_get_on
{
	my ($jobs, @those) = @_;
	my %before = map { $_ => done($_) } @those;
	return seconds_until('all databases to get on',
		sub { !grep { done($_) < $before{$_} + $jobs } @those });
}

sub empty
{
	my ($dbname, $method) = @_;
	return query($node, 'DELETE FROM qml.live WHERE method = $$work$$', $dbname);
}

create($_) foreach @databases[ 0 .. $DATABASES - 2 ];

# ---- all places are taken before the last database comes

foreach my $dbname (@databases[ 0 .. $DATABASES - 2 ])
{
	wait_for_process($node, 'scheduler', $dbname);
	query($node, q{SELECT count(qml_enqueue('work')) FROM generate_series(1, 20000)}, $dbname);
}
wait_for('all places to be taken',
	sub { my %workers = processes('worker'); sum(0, values %workers) >= $PLACES });
{
	my $seconds = all_get_on(5, @databases[ 0 .. $DATABASES - 2 ]);
	cmp_ok($seconds, '<=', 20, sprintf '%d databases share %d places: all get on (%.1f s)', $DATABASES - 1, $PLACES + 1, $seconds);

	create($databases[-1]);
	query($node, q{SELECT count(qml_enqueue('work')) FROM generate_series(1, 20000)}, $databases[-1]);
	$seconds = seconds_until('the scheduler of the last', sub { defined process($node, 'scheduler', $databases[-1]) });
	cmp_ok($seconds, '<=', 10, sprintf 'a scheduler gets its place, though workers have all of them (%.1f s)', $seconds);
	$seconds = all_get_on(5, @databases);
	cmp_ok($seconds, '<=', 20, sprintf '%d databases share %d places: all get on (%.1f s)', $DATABASES, $PLACES, $seconds);
}

# A scheduler that ends gets its place back.
{
	my $pid = process($node, 'scheduler', 'db5');
	query($node, "SELECT pg_terminate_backend($pid)");
	my $seconds = seconds_until('the scheduler', sub { (process($node, 'scheduler', 'db5') // $pid) != $pid });
	cmp_ok($seconds, '<=', 10, sprintf 'a scheduler that ends comes again (%.1f s)', $seconds);
}

# Shares over a while.
{
	my %before = map { $_ => done($_) } @databases;
	my (%schedulers, @seen, $wrong);

	# So many that a turn more or less does not count.
	my @shares = (0);
	my $end = time + 180;
	while (min(@shares) < 150 && time < $end)
	{
		foreach my $round (1 .. 24)
		{
			my %workers = processes('worker');
			push @seen, sum(0, values %workers);
			sleep 0.5;
		}
		@shares = map { done($_) - $before{$_} } @databases;
	}
	note(join ' ', 'jobs of the databases:', @shares);
	cmp_ok(min(@shares), '>', 0, 'every database gets on');
	cmp_ok(max(@shares), '<=', 4 * max(min(@shares), 1), 'none gets more than four times as much as another');
	is(max(@seen), $PLACES, 'all places are used, and no more');
	cmp_ok(sum(@seen) / @seen, '>=', $PLACES * 0.7, sprintf 'places are seldom empty (%.1f of %d)', sum(@seen) / @seen, $PLACES);
}

# ---- what can be seen

{
	my $difference;
	# They come and go: until both were looked at in between.
	wait_for(
		'the views to agree',
		sub {
			$difference = query($node, <<'SQL', 'db1');
SELECT (SELECT count(*) FROM qml.server WHERE kind IN ('scheduler', 'worker') AND alive) || ' '
	|| (SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('qml scheduler', 'qml worker') AND datname = 'db1')
SQL
			my ($a, $b) = split / /, $difference;
			return $a == $b && $a >= 2;
		});
	pass("qml.server shows scheduler and workers, as pg_stat_activity does ($difference)");
	# One that has just begun has no name yet.
	ok($node->poll_query_until('postgres', <<'SQL'), 'pg_stat_activity says what each does');
SELECT bool_and(state IN ('active', 'idle') AND usename IS NOT NULL AND application_name = backend_type
	AND (state = 'idle' OR query <> '')) FROM pg_stat_activity WHERE backend_type = 'qml worker'
SQL
}

# ---- a log line, now and then

{
	my $lines = log_count($node, 'no free background worker slot');
	cmp_ok($lines, '>=', 1, 'missing places are told of');
	cmp_ok($lines, '<=', 1 + (time - $began) / 60, 'at most once a minute');
}

# ---- no place is lost

empty($_) foreach @databases;
{
	my $seconds = seconds_until('the workers to end', sub { my %workers = processes('worker'); !%workers });
	cmp_ok($seconds, '<=', 15, sprintf 'without work all workers end (%.1f s)', $seconds);
	my %schedulers = processes('scheduler');
	is(join(' ', sort keys %schedulers), join(' ', sort @databases), 'the schedulers stay');
	foreach my $dbname (@databases[ 0 .. 3 ])
	{
		my $before = done($dbname);
		query($node, q{SELECT qml_enqueue('work')}, $dbname);
		my $late = seconds_until("a job of $dbname", sub { done($dbname) > $before });
		cmp_ok($late, '<=', 2, sprintf 'new work starts at once (%.2f s)', $late);
	}
	wait_for('the workers to end', sub { my %workers = processes('worker'); !%workers });
}

# ---- roles of one database that are more than its places

my @ROLES = qw(ann bob cleo);
query($node, <<"SQL", 'db2') foreach @ROLES;
CREATE ROLE $_ LOGIN;
CREATE FUNCTION work_$_(payload jsonb) RETURNS void LANGUAGE sql
AS \$\$ INSERT INTO ledger DEFAULT VALUES; SELECT pg_sleep(0.02) \$\$;
SELECT qml_register_handler('work_$_', 'work_$_', '{"run_as": "$_"}');
SQL

sub backlog
{
	my ($role, $count) = @_;
	return query($node, "SELECT count(qml_enqueue('work_$role', max_retries => 0)) FROM generate_series(1, $count)", 'db2');
}

# From each job of a role to its next one, or to the end, and from the beginning to its
# first: the most jobs that others did meanwhile.
sub longest_wait
{
	my ($role) = @_;
	return query($node, <<"SQL", 'db2');
SELECT max(n - before - 1)
FROM (SELECT n, who, lag(n, 1, 0::bigint) OVER (ORDER BY n) AS before
	FROM (SELECT row_number() OVER (ORDER BY at) AS n, who FROM ledger
		UNION ALL SELECT count(*) + 1, '$role' FROM ledger) jobs
	WHERE who = '$role') waits
SQL
}

foreach my $places (2, 1)
{
	my $jobs = 400 * $places;

	set_config($node, 'qml.workers' => $places);
	wait_for('no more workers than that', sub { my %workers = processes('worker'); ($workers{db2} // 0) <= $places });
	# All at once: whoever was there first would be ahead.
	query($node, 'TRUNCATE ledger', 'db2');
	query($node, 'BEGIN; ' . join(' ', map { "SELECT count(qml_enqueue('work_$_')) FROM generate_series(1, 20000);" } @ROLES) . ' COMMIT', 'db2');
	my ($most, %since) = (0);
	wait_for(
		"$jobs jobs of the roles",
		sub {
			# One that has given its place back may still be on its way out when the next is there.
			my %there = map { $_ => $since{$_} // time } split /\n/, query($node, <<'SQL');
SELECT pid FROM pg_stat_activity WHERE backend_type = 'qml worker' AND datname = 'db2'
SQL
			%since = %there;
			$most = max($most, scalar grep { time - $_ >= 0.5 } values %since);
			return done('db2') >= $jobs;
		});
	my $shares = query($node, 'SELECT string_agg(who || $$ $$ || count, $$, $$ ORDER BY who) FROM (SELECT who, count(*) FROM ledger GROUP BY 1) s', 'db2');
	my %done = $shares =~ /(\w+) (\d+)/g;

	is(join(' ', sort keys %done), join(' ', @ROLES), "3 roles share $places places: all get on");
	# Also those whose jobs stand behind all the jobs of others.
	cmp_ok(min(values %done), '>=', sum(values %done) / 5, "$places places: none gets much less than a third ($shares)");
	# A turn is a second, which is 50 jobs of a worker at most.
	cmp_ok(max(map { longest_wait($_) } @ROLES), '<=', 150 * $places, sprintf '%d places: none waits for long (%s jobs of others)',
		$places, join ', ', map { longest_wait($_) } @ROLES);
	is($most, $places, 'all places are used, and no more');
	query($node, q{DELETE FROM qml.live WHERE method LIKE 'work\_%'}, 'db2');
	wait_for('the end of the jobs that run', sub { query($node, <<'SQL') eq '0' });
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'qml worker' AND state = 'active'
SQL
}

# Now and then a job of a role beside the backlogs of others.
set_config($node, 'qml.workers' => 2);
backlog($_, 20000) foreach qw(ann bob);
# Fewer, and more again, while they have work.
foreach my $places (1, 2)
{
	set_config($node, 'qml.workers' => $places) if $places == 1;
	my $seconds = seconds_until("$places workers", sub { my %workers = processes('worker'); ($workers{db2} // 0) == $places });
	cmp_ok($seconds, '<=', 10, sprintf 'with qml.workers = %d there are soon so many (%.1f s)', $places, $seconds);
	my $before = done('db2');
	wait_for('them to get on', sub { done('db2') >= $before + 50 });
	set_config($node, 'qml.workers' => 2);
}
{
	my @waits;
	foreach my $round (1 .. 4)
	{
		wait_for('the others to have all places', sub { query($node, <<'SQL') eq 'ann bob' });
SELECT string_agg(usename, ' ' ORDER BY usename) FROM pg_stat_activity WHERE backend_type = 'qml worker' AND datname = 'db2'
SQL
		query($node, 'TRUNCATE ledger', 'db2');
		backlog('cleo', 1);
		wait_for('the single job', sub { query($node, q{SELECT count(*) FROM ledger WHERE who = 'cleo'}, 'db2') == 1 });
		push @waits, query($node, q{SELECT count(*) FROM ledger WHERE at < (SELECT at FROM ledger WHERE who = 'cleo')}, 'db2');
	}
	cmp_ok(max(@waits), '<=', 300, "a single job beside the backlogs of others has its turn (after @waits jobs)");
}

# A role that cannot work has a backlog, too: it fails, and takes no place.
{
	my $offset = -s $node->logfile;
	query($node, 'ALTER ROLE cleo NOLOGIN');
	query($node, 'TRUNCATE ledger', 'db2');
	backlog('cleo', 500);
	wait_for('the jobs that cannot run to fail', sub { query($node, q{SELECT count(*) FROM qml.live WHERE method = 'work_cleo'}, 'db2') == 0 });
	is(query($node, <<'SQL', 'db2'), '500 failed 28000', 'the backlog of a role that may not log in fails');
SELECT concat_ws(' ', count(*), state, errors -> -1 ->> 'error_type') FROM qml.job
WHERE method = 'work_cleo' AND errors IS NOT NULL GROUP BY state, errors -> -1 ->> 'error_type'
SQL
	wait_for('the others to go on', sub { done('db2') >= 100 });
	is(query($node, q{SELECT string_agg(DISTINCT who, ' ' ORDER BY who) FROM ledger}, 'db2'), 'ann bob', 'the others get on, and nobody else ran');
	is(log_count($node, 'FATAL', $offset), 0, 'no process was started in vain');
	query($node, 'ALTER ROLE cleo LOGIN');
	backlog('cleo', 20);
	wait_for('the role to get on', sub { query($node, q{SELECT count(*) FROM ledger WHERE who = 'cleo'}, 'db2') == 20 });
	pass('it gets on when it may log in again');
}
query($node, q{DELETE FROM qml.live WHERE method LIKE 'work\_%'}, 'db2');
set_config($node, 'qml.workers' => 3);

# ---- a database that is broken takes no places from others

query($node, <<'SQL', 'db1');
SELECT count(qml_enqueue('work')) FROM generate_series(1, 100);
SQL
{
	my $offset = -s $node->logfile;
	# A worker starts, and fails; so does the scheduler's step.
	query($node, 'ALTER TABLE qml.history ADD COLUMN broken timestamptz NOT NULL DEFAULT clock_timestamp()', 'db1');
	my $started = time;
	query($node, q{SELECT count(qml_enqueue('work')) FROM generate_series(1, 20000)}, $_) foreach @databases[ 1 .. 5 ];
	my $seconds = all_get_on(20, @databases[ 1 .. 5 ]);
	cmp_ok($seconds, '<=', 10, sprintf 'a database is broken: others get on (%.1f s)', $seconds);
	# Two seconds at a time, after 1, 2, 4, 8 seconds without.
	my @there;
	while (time < $started + 25 || @there < 60)
	{
		my %workers = processes('worker');
		push @there, $workers{db1} // 0;
		sleep 0.25;
	}
	cmp_ok(sum(@there) / @there, '<=', 0.5, sprintf 'its workers are seldom there (%.2f at a time)', sum(@there) / @there);
	my $log = slurp_file($node->logfile, $offset);
	my $told = () = $log =~ /qml worker failed: column "broken" of table "qml.history"/g;
	my $starts = () = $log =~ /qml worker started in database "db1"/g;
	# Each process says it once, and they come ever more seldom.
	cmp_ok($told, '<=', $starts + 3, "that is told of once by each of them ($told times)");
	cmp_ok($starts, '<=', 3 * (2 + log(1 + time - $started) / log(2)), "which are started ever more seldom ($starts times)");
	query($node, 'ALTER TABLE qml.history DROP COLUMN broken', 'db1');
	empty($_) foreach @databases[ 1 .. 5 ];
}

end_sessions($node);
done_testing();
