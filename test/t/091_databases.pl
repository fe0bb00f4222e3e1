# Databases: a scheduler is where the extension is and nowhere else, gives way to
# the owner of the database, and trouble in one database is not trouble in others.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

# From debug1 on the server's log tells of each process that is asked for.
my $node = background_node('databases', bare => 1, conf => <<'CONF');
max_worker_processes = 20
max_prepared_transactions = 1
log_min_messages = debug1
CONF

sub scheduler_is_there
{
	my ($dbname) = @_;
	return ask($node, <<"SQL") eq 't';
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'qml scheduler' AND datname = '$dbname')
SQL
}

sub seconds_until_scheduler
{
	my ($dbname) = @_;
	return seconds_until("a scheduler in $dbname", sub { scheduler_is_there($dbname) });
}

# Asserts that a job of a database becomes ready when it is due.
sub works
{
	my ($dbname, $name) = @_;
	query($node, <<'SQL', $dbname);
SELECT qml_enqueue('delayed', run_at => clock_timestamp() + interval '0.2 s')
SQL
	ok( $node->poll_query_until($dbname,
			"SELECT count(*) = 0 FROM qml.job WHERE state = 'scheduled' AND method = 'delayed'"),
		$name);
	return;
}

# How often a process was started for a database, or tried to be.
sub starts
{
	my ($dbname, $offset) = @_;
	return log_count($node, qq(starting background worker process "qml scheduler: $dbname"), $offset);
}

sub run_as
{
	my ($role, $sql) = @_;
	my $start = time;
	my ($rc, undef, $stderr) =
	  $node->psql('postgres', $sql, extra_params => [ '-U', $role ]);

	diag("$sql: $stderr") if $rc != 0;
	return $rc == 0 ? time - $start : 'inf';
}

# ---- the extension comes and goes

my $offset = -s $node->logfile;
query($node, 'CREATE DATABASE rolled_back');
query($node, 'CREATE DATABASE d');
query($node, 'BEGIN; CREATE EXTENSION qml; ROLLBACK', 'rolled_back');
{
	my $session = new_session($node, 'd');
	$session->query_safe('BEGIN; CREATE EXTENSION qml');
	is(process($node, 'scheduler', 'd'), undef, 'there is no scheduler before CREATE EXTENSION commits');
	$session->query_safe('COMMIT');
	$session->quit;
	seconds_until_scheduler('d');
	works('d', 'a job of the new extension becomes ready');
}
my $seconds = best_of(
	1,
	sub {
		query($node, 'DROP EXTENSION qml CASCADE', 'd');
		wait_without($node, 'd');
		# Its end has been noticed, too.
		query($node, 'CREATE EXTENSION qml', 'd');
		return seconds_until_scheduler('d');
	});
cmp_ok($seconds, '<=', 1, sprintf 'CREATE EXTENSION starts a scheduler within a second (%.2f s)', $seconds);
is(log_count($node, 'started in database "rolled_back"', $offset), 0, 'one that is rolled back does not');
query($node, 'CREATE EXTENSION qml', 'rolled_back');
seconds_until_scheduler('rolled_back');
works('rolled_back', 'it does when it is done again');
query($node, 'DROP EXTENSION qml CASCADE; CREATE EXTENSION qml', 'd');
works('d', 'an extension that is dropped and created at once is worked');

$seconds = best_of(
	1,
	sub {
		query($node, 'DROP EXTENSION qml CASCADE', 'd');
		wait_without($node, 'd');
		query($node, q{BEGIN; CREATE EXTENSION qml; PREPARE TRANSACTION 'later'}, 'd');
		query($node, "COMMIT PREPARED 'later'", 'd');
		return seconds_until_scheduler('d');
	});
cmp_ok($seconds, '<=', 1, sprintf 'one that was prepared does when that is committed (%.2f s)', $seconds);
works('d', 'and is worked');

# ---- whose processes they are

query($node, <<'SQL');
CREATE ROLE keeper LOGIN;
CREATE ROLE landlord LOGIN CREATEDB;
SQL
give_extension($node, 'd', 'keeper');
ok( $node->poll_query_until('postgres', <<'SQL'), 'the scheduler is the owner of the tables');
SELECT usename = 'keeper' FROM pg_stat_activity WHERE backend_type = 'qml scheduler' AND datname = 'd'
SQL
works('d', 'and works as such');

# ---- a guest in the owner's database

query($node, 'CREATE DATABASE house OWNER landlord');
query($node, 'CREATE EXTENSION qml', 'house');
query($node, q{SELECT qml_enqueue('never due', run_at => now() + interval '1 hour')}, 'house');

my $name = 'house';
$seconds = best_of(
	2,
	sub {
		my $new = $name eq 'house' ? 'home' : 'house';
		seconds_until_scheduler($name);
		my $seconds = run_as('landlord', "ALTER DATABASE $name RENAME TO $new");
		$name = $new;
		return $seconds;
	});
cmp_ok($seconds, '<=', 2, sprintf 'a plain owner renames his database in time (%.2f s)', $seconds);
seconds_until_scheduler($name);
works($name, 'the renamed database is worked');

my $copies = 0;
$seconds = best_of(
	2,
	sub {
		seconds_until_scheduler($name);
		$copies++;
		return run_as('landlord', "CREATE DATABASE copy$copies TEMPLATE $name");
	});
cmp_ok($seconds, '<=', 2, sprintf 'he copies it in time (%.2f s)', $seconds);
seconds_until_scheduler($name);
works($name, 'the original is worked on');

my $copy = "copy$copies";
my $warning = qq(the jobs in database "$copy" are a copy from another one and are not run);
wait_for('the warning about the copy', sub { log_count($node, $warning) > 0 });
query($node, <<'SQL', $copy);
UPDATE qml.live SET run_at = clock_timestamp() - interval '1 s' WHERE method = 'never due';
SQL
works($name, 'the original is worked still');

# Who has it for long does not cost a place for a process meanwhile.
{
	my $session = new_session($node);
	my $ended = 'terminating background worker "qml scheduler" due to administrator command';
	my $before;

	seconds_until_scheduler($name);
	$session->query_until(qr/ALTER DATABASE/, "\\set QUIET off\nBEGIN; ALTER DATABASE $name RENAME TO barred;\n");
	$before = log_count($node, $ended);
	wait_for('the process that waits for it to be ended', sub { log_count($node, $ended) > $before });
	$session->quit;
}
seconds_until_scheduler($name);
works($name, 'it is worked when it is let go');

# ---- many databases

my $odd = 'Odd, "name"';
my $long = 'x' x 63;
my @worked = ((map { "d$_" } 1 .. 6), $odd, $long);
my @empty = map { "empty$_" } 1 .. 3;

sub quoted
{
	my ($name) = @_;
	return '"' . $name =~ s/"/""/gr . '"';
}

$offset = -s $node->logfile;
query($node, 'CREATE DATABASE ' . quoted($_)) foreach @worked, @empty, 'closed';
# Closed before the extension can be noticed, as if the server started so.
query($node, 'CREATE EXTENSION qml', 'closed');
seconds_until_scheduler('closed');
query($node, 'ALTER DATABASE closed ALLOW_CONNECTIONS false');
query($node, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'closed'});
query($node, 'CREATE EXTENSION qml', $_) foreach @worked;
wait_for("a scheduler in $_", sub { scheduler_is_there($_) }) foreach @worked;
query($node, 'CREATE DATABASE late_in_coming');
query($node, 'CREATE EXTENSION qml', 'late_in_coming');
seconds_until_scheduler('late_in_coming');

my @all = sort @worked, 'd', 'rolled_back', $name, 'late_in_coming';

# From 18 on a process is shown before it is connected.
sub schedulers
{
	return join "\n", sort split /\n/, ask($node,
		"SELECT datname FROM pg_stat_activity WHERE backend_type = 'qml scheduler' AND datname IS NOT NULL");
}

is(schedulers(), join("\n", @all), 'one scheduler in each database with the extension');
works($_, "a job becomes ready in $_") foreach @worked;
is(starts($_), 0, "nothing was started in $_") foreach qw(template0 template1);
is(starts($_), 1, "in $_ there was one look") foreach @empty;
my $closed = starts('closed', $offset);
is(log_count($node, $warning), 1, 'that a database is a copy is told once');
is(starts($copy), 1, 'after one look');

# By a list.
set_config($node, 'qml.databases' => qq(d1, late_in_coming, "Odd, ""name""", nowhere));
wait_for('the others to be left alone',
	sub { schedulers() eq join "\n", sort 'd1', 'late_in_coming', $odd });
works($odd, 'a listed database is worked');
set_config($node, 'qml.databases' => undef);
$seconds = seconds_until('all to be worked again', sub { schedulers() eq join "\n", @all });
cmp_ok($seconds, '<=', 8, sprintf 'without the list all are worked (after %.1f s)', $seconds);
is(starts('closed', $offset), $closed, 'the closed database is left alone');

# ---- trouble

# A schema of the same name, an extension without a table, one with a column of another
# name, an owner who may not log in, one who may not connect; and a database whose
# drop was cut off.
my $begun = time;
$offset = -s $node->logfile;
query($node, 'CREATE DATABASE foreign_schema');
query($node, 'CREATE SCHEMA qml; CREATE TABLE qml.live (id int); CREATE TABLE qml.instance_data (id int)',
	'foreign_schema');
query($node, 'CREATE ROLE nologin');
give_extension($node, 'd3', 'nologin');
query($node, 'CREATE ROLE stranger LOGIN; REVOKE CONNECT ON DATABASE d6 FROM PUBLIC');
give_extension($node, 'd6', 'stranger');
query($node, q{CREATE DATABASE half_dropped ALLOW_CONNECTIONS false; UPDATE pg_database SET datconnlimit = -2, datallowconn = true WHERE datname = 'half_dropped'});
query($node, 'ALTER TABLE qml.occurrence_data RENAME TO moved', 'd4');
# Who is at work meets it in d4, who looks anew in d5.
query($node, <<'SQL', 'd5');
ALTER TABLE qml.live RENAME COLUMN reason TO why;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'qml scheduler' AND datname = 'd5'
SQL
ok( $node->poll_query_until('postgres', <<'SQL'), 'the scheduler of an owner who may not log in ends');
SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'qml scheduler' AND datname = 'd3'
SQL
wait_for('the failures to be told',
	sub {
		log_count($node, 'relation "qml.occurrence_data" of extension "qml" is missing', $offset) > 0
		  && log_count($node, 'table "qml.live" does not have the columns that the library expects', $offset) > 0
		  && log_count($node, 'role "nologin", which owns the tables', $offset) > 0
		  && log_count($node, 'role "stranger", which owns the tables', $offset) > 0;
	});
my $trouble = time;

# The others do not notice; meanwhile there is time for more messages, and reason
# for those who would look again at each prepared transaction.
my $prepared = "BEGIN; CREATE TABLE prepared (); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'; DROP TABLE prepared;\n";
until (time - $trouble > 12)
{
	query($node, $prepared x 20, $_) foreach 'd3', 'd6', $copy;
	works($_, "$_ is worked while others have trouble") foreach 'd1', 'd2';
	sleep 2;
}
foreach my $message (
	'relation "qml.occurrence_data" of extension "qml" is missing',
	'table "qml.live" does not have the columns that the library expects',
	'role "nologin" is not permitted to log in',
	'role "nologin", which owns the tables of extension "qml", may not log in',
	'permission denied for database "d6"',
	'role "stranger", which owns the tables of extension "qml", has no privilege CONNECT on database "d6"')
{
	# Twice: by the process that was at work, and by the one that looked after it.
	my $told = log_count($node, $message, $offset);
	my $most = 2 + int((time - $begun) / 60);
	ok($told >= 1 && $told <= $most, "told once or twice ($told): $message");
}
cmp_ok(starts($_, $offset), '<=', 3 + int((time - $begun) / 60), "$_ is not tried all the time")
  foreach 'd3' .. 'd6';
is(starts('half_dropped', $offset), 0, 'a database that is not whole is left alone');
is(log_count($node, $warning), 1, 'that a database is a copy is still told once');
is(starts('foreign_schema'), 1, 'a schema named qml is looked at once');
is(query($node, q{SELECT state FROM qml.job WHERE method = 'never due'}, $copy),
	'scheduled', 'a copy is not worked');

# ---- and its end

query($node, 'SELECT qml_adopt()', $copy);
seconds_until_scheduler($copy);
ok( $node->poll_query_until($copy,
		q{SELECT state = 'enqueued' FROM qml.job WHERE method = 'never due'}),
	'an adopted copy is worked');
foreach my $dbname ('d3', 'd5', 'd6')
{
	query($node, 'DROP EXTENSION qml CASCADE; CREATE EXTENSION qml', $dbname);
	$seconds = seconds_until_scheduler($dbname);
	cmp_ok($seconds, '<=', 5, sprintf 'a new extension ends the trouble in %s (%.1f s)', $dbname, $seconds);
	works($dbname, "$dbname is worked again");
}
query($node, 'DROP EXTENSION qml CASCADE; CREATE EXTENSION qml', 'd4');
works('d4', 'd4 is worked again');

$seconds = best_of(
	2,
	sub {
		my $seconds = run_as('landlord', "DROP DATABASE $name");
		$name = $copy;
		return $seconds;
	});
cmp_ok($seconds, '<=', 2, sprintf 'a plain owner drops his database in time (%.2f s)', $seconds);

# ---- too few slots: the launcher, the one of replication, and three schedulers

end_sessions($node);
$node->adjust_conf('postgresql.conf', 'max_worker_processes', 5);
$offset = -s $node->logfile;
$node->restart;
my $message = 'qml launcher: no free background worker slot for database';
wait_for('three schedulers', sub { split(/\n/, schedulers()) == 3 });
wait_for('the launcher to tell of it', sub { log_count($node, $message, $offset) > 0 });
$trouble = time;
my @before = split /\n/, schedulers();
foreach (1 .. 3)
{
	my @running = split /\n/, schedulers();
	query($node, 'DROP EXTENSION qml CASCADE', $running[0]);
	wait_without($node, $running[0]);
	$seconds = seconds_until('a free slot to be used', sub { split(/\n/, schedulers()) == 3 });
	cmp_ok($seconds, '<=', 5, sprintf 'a free slot is used in time (%.2f s)', $seconds);
}
my %before = map { $_ => 1 } @before;
ok(scalar(grep { !$before{$_} } split /\n/, schedulers()), 'by those that waited');
works($_, "$_ is worked") foreach (split /\n/, schedulers())[0];
{
	my $lines = log_count($node, $message, $offset);
	ok($lines >= 1 && $lines <= 1 + (time - $trouble) / 60, "one line a minute tells of it ($lines)");
}

end_sessions($node);
done_testing();
