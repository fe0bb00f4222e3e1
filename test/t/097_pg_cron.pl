# pg_cron does the maintenance: in a server that does not preload qml, where the
# settings leave the work to it, and beside the scheduler and polling clients.
#
# The server's clock is set to the end of a minute rather than waited for.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlClock;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_clock_node('pg_cron', clock_epoch('2026-06-01 12:00'), conf => <<'CONF');
shared_preload_libraries = 'pg_cron'
cron.database_name = 'postgres'
cron.use_background_workers = on
max_worker_processes = 20
CONF

# As a plain role, from a session of its own.
sub query_as
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]);
}

# Lets the minute end in a moment; pg_cron then starts its jobs.  Returns its end,
# in seconds.
sub end_minute
{
	my ($seconds) = @_;
	my $now = time + clock_offset($node);
	my $end = 60 * (int($now / 60) + 1);

	set_clock($node, $end - $seconds) if $end - $now > $seconds;
	return $end;
}

# The runs of the four jobs that began after a time have ended; "role status" of
# each.
sub runs_since
{
	my ($since) = @_;
	my $runs;

	wait_for(
		'pg_cron to run the jobs',
		sub {
			$runs = query($node, <<"SQL");
SELECT string_agg(username || ' ' || status, ', ' ORDER BY command)
FROM cron.job_run_details
WHERE start_time >= to_timestamp($since) AND status IN ('succeeded', 'failed')
HAVING count(*) >= 4
SQL
			return $runs ne '';
		});
	return $runs;
}

# A job of each kind that maintenance is for, and what has become of them.
my %made;

sub make_work
{
	my ($n) = @_;

	$made{$n} = {
		due => query($node,
			"SELECT qml_enqueue('m', queue => 'due', run_at => clock_timestamp() + interval '0.5 s')"),
		lost => query($node, <<"SQL"),
SELECT qml_enqueue('m', queue => 'lost$n');
SELECT qml_fetch('w', '{lost$n}', 1, '0.5 s');
SQL
		leaf => expired_leaf($node, $n, 3),
		lock => "lock $n"
	};
	$made{$n}{lost} =~ s/\n.*//s;
	query($node, "SELECT qml_try_lock('lock $n', 'me', '0.5 s')");
	$made{$n}{made_at} = query($node, 'SELECT clock_timestamp()');
	pass_time($n, 1);
	return;
}

# All of it is due a second after it was made.
sub pass_time
{
	my ($n, $seconds) = @_;
	$node->poll_query_until('postgres',
		"SELECT clock_timestamp() > timestamptz '$made{$n}{made_at}' + interval '$seconds s'")
	  or die 'the clock stands still';
	return;
}

sub work_done
{
	my ($n) = @_;
	my %work = %{ $made{$n} };

	return query($node, <<"SQL");
SELECT concat_ws(' ',
	(SELECT state FROM qml.job WHERE id = '$work{due}'),
	(SELECT state || attempt::text FROM qml.job WHERE id = '$work{lost}'),
	(SELECT count(*) FROM qml.lock_data WHERE resource = '$work{lock}'),
	to_regclass('qml.$work{leaf}') IS NULL)
SQL
}

my $NOTHING = 'scheduled processing1 1 f';
my $ALL = 'enqueued enqueued1 0 t';

# Schedules of every second whose names begin so: what is wrong with their ticks.
sub wrong_ticks
{
	my ($like) = @_;
	return query($node, <<"SQL");
SELECT recurring, count(*), min(occurrence), max(occurrence), next_run_at
FROM qml.occurrence_data JOIN qml.recurring_data r ON r.id = recurring
WHERE recurring LIKE '$like'
GROUP BY recurring, next_run_at
HAVING count(*) <> extract(epoch FROM next_run_at - min(occurrence))
UNION ALL
SELECT coalesce(recurring, r->>'id'), 0, occurrence, (r->>'tick')::timestamptz, NULL
FROM (SELECT * FROM qml.occurrence_data WHERE job IS NOT NULL) o FULL JOIN
	(SELECT id, metadata->'recurring' AS r FROM qml.job WHERE metadata ? 'recurring') j
	ON o.job = j.id AND o.recurring = r->>'id' AND o.occurrence = (r->>'tick')::timestamptz
WHERE (o.job IS NULL OR j.id IS NULL) AND coalesce(recurring, r->>'id') LIKE '$like'
SQL
}

sub count_ticks
{
	my ($like) = @_;
	return query($node, "SELECT count(job) FROM qml.occurrence_data WHERE recurring LIKE '$like'");
}

#
# Without the extension pg_cron.
#

foreach my $function ('qml_pg_cron_schedule', 'qml_pg_cron_unschedule')
{
	like(
		fails_with($node, '55000', "SELECT $function()", "$function() needs pg_cron"),
		qr/HINT:  .*cron\.schedule_in_database\(\)/,
		'and there is a hint');
}

#
# In a server that does not preload qml.
#

query($node, 'CREATE EXTENSION pg_cron');

#
# Whether pg_cron does the work is looked up for a warning, as the owner of qml: that never
# fails and never waits, and where it cannot be known nothing is said.
#

# What a session is told that asks for delayed work and schedules, after some statements.
sub told
{
	my ($name, @statements) = @_;
	my ($out, $err);
	my $rc = $node->psql('postgres', join(";\n", 'SET qml.warn_idle = on', 'SET log_min_messages = error', @statements), stdout => \$out, stderr => \$err);
	is($rc, 0, "$name: the calls succeed") or diag($err);
	return join(', ', $err =~ /^(?:psql:.*)?WARNING:  nothing will (.*) in this database$/mg);
}

my @ASK = ("SELECT qml_enqueue('m', delay => '1 h')",
	"SELECT qml_schedule_recurring('s' || random(), '0 0 1 1 *', 'm')");
my $BOTH = 'make delayed jobs ready, fire recurring jobs';

query($node, <<'SQL');
DROP EXTENSION qml;
CREATE ROLE boss LOGIN SUPERUSER;
SET ROLE boss;
CREATE EXTENSION qml;
RESET ROLE;
ALTER ROLE boss NOSUPERUSER;
SQL
is(told('an owner without rights in cron', @ASK), '', 'nothing is said');
query($node, 'GRANT USAGE ON SCHEMA cron TO boss');
is(told('one that sees its own jobs of pg_cron', @ASK), '', 'nothing is said');
is(told('without row security', 'SET row_security = off', @ASK), '', 'nothing is said');
query($node, 'ALTER ROLE boss BYPASSRLS');
is(told('one that sees all', @ASK), $BOTH, 'it is said');
query($node, 'REVOKE SELECT ON cron.job FROM PUBLIC');
is(told('one that may not read the table', @ASK), '', 'nothing is said');
query($node, 'GRANT SELECT ON cron.job TO PUBLIC');
query($node, 'SELECT qml_pg_cron_schedule()');
is(told('pg_cron does it', @ASK), '', 'nothing is said');
query($node, q{UPDATE cron.job SET active = false WHERE jobname = 'qml recurring'});
is(told('pg_cron does a part of it', @ASK), 'fire recurring jobs', 'the other one is said');
is(query($node, 'SELECT qml_pg_cron_unschedule()'), 4, 'taken off');

foreach my $case (
	[ 'a column is missing', 'ALTER TABLE cron.job RENAME COLUMN active TO passive' ],
	[ 'a column is of another type', 'ALTER TABLE cron.job ALTER COLUMN active TYPE text' ],
	[ 'a view in its place', 'ALTER TABLE cron.job RENAME TO job_table; '
		  . "CREATE VIEW cron.job AS SELECT 1 / (random() * 0)::int = 1 AS active, ''::text AS command, ''::text AS database" ],
	[ 'no table', 'ALTER TABLE cron.job RENAME TO job_table' ],
	[ 'no schema', 'ALTER SCHEMA cron RENAME TO cron_schema' ],
	[ 'a policy that fails', 'ALTER TABLE cron.job FORCE ROW LEVEL SECURITY; ALTER TABLE cron.job OWNER TO boss; '
		  . 'ALTER ROLE boss NOBYPASSRLS; CREATE POLICY broken ON cron.job USING (1 / (random() * 0)::int = 1)' ])
{
	my ($name, $change) = @$case;
	is(told($name, 'BEGIN', $change, @ASK, 'ROLLBACK'), '', 'nothing is said');
}
# The file of the table is lost: the look is undone, and the call goes on.
{
	my $file = $node->data_dir . '/' . query($node, q{CHECKPOINT; SELECT pg_relation_filepath('cron.job')});
	rename($file, "$file.away") or die "cannot rename $file: $!";
	is(told('a table without its file', @ASK), '', 'nothing is said');
	fails_with($node, '58P01', 'SET log_min_messages = fatal; SELECT FROM cron.job', 'it is lost indeed');
	rename("$file.away", $file) or die "cannot rename $file.away: $!";
	# pg_cron may have looked at its table just then; the server starts it again.
	log_is_clean($node, 'nobody else misses the file', qr/^could not open file "base\/\d+\/\d+": No such file or directory$/);
}
{
	my $session = new_session($node);
	$session->query_safe('BEGIN; LOCK TABLE cron.job');
	is(told('somebody has locked the table', q{SET statement_timeout = '60 s'}, @ASK), '', 'nobody waits, and nothing is said');
	$session->query_safe('ROLLBACK');
	$session->quit;
}
query($node, <<'SQL');
DROP EXTENSION qml;
DROP OWNED BY boss;
DROP ROLE boss;
CREATE EXTENSION qml;
SQL

query($node, <<'SQL');
CREATE ROLE keeper LOGIN;
CREATE ROLE bare LOGIN;
GRANT USAGE ON SCHEMA cron TO keeper;
SELECT qml_grant('keeper', 'admin'), qml_grant('bare', 'admin');
SQL

my $ids = query($node, 'SELECT qml_pg_cron_schedule()');
is(scalar(split /\n/, $ids), 4, 'there are four jobs of pg_cron');
is(query($node, 'SELECT qml_pg_cron_schedule()'), $ids, 'the same when they are scheduled again');
is(query($node, "SELECT count(*) FROM cron.job WHERE schedule = '* * * * *' AND active"),
	4, 'they run every minute');

my $keepers = query_as('keeper', 'SELECT qml_pg_cron_schedule()');
is(scalar(split /\n/, $keepers), 4, 'a plain role has four of its own');
is(query_as('keeper', 'SELECT qml_pg_cron_schedule()'), $keepers, 'which stay, too');
is(query($node, "SELECT count(*) FROM cron.job WHERE username = 'keeper'"), 4, 'under its name');
fails_with($node, '42501', 'SELECT qml_pg_cron_schedule()',
	'another one may not use pg_cron', extra_params => [ '-U', 'bare' ]);
is(query($node, 'SELECT qml_pg_cron_unschedule()'), 4, 'four jobs are taken off');
is(query($node, 'SELECT qml_pg_cron_unschedule()'), 0, 'once');
is(query($node, q{SELECT string_agg(format('%s %s %s', session_role, action, coalesce(before, after) -> 'pg_cron_jobs'), ', ' ORDER BY at)
		FROM (SELECT * FROM qml.audit WHERE action LIKE 'qml\_pg\_cron%' ORDER BY at DESC LIMIT 3) a}),
	query($node, q{SELECT format('%1$s qml_pg_cron_schedule 4, keeper qml_pg_cron_schedule 4, %1$s qml_pg_cron_unschedule 4', session_user)}),
	'the record has who scheduled them, and who took them off');
{
	my $session = new_session($node);

	$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	query($node, 'SELECT qml_pg_cron_schedule()');
	is($session->query_safe('SELECT qml_pg_cron_unschedule(); COMMIT'),
		4, 'those that came after the snapshot of the transaction as well');
	$session->quit;
}
is(query($node, 'SELECT count(*) FROM cron.job'), 4, 'and those of others stay');

make_work(1);
query($node, <<'SQL');
SELECT qml_schedule_recurring('a', '* * * * * *', 'm', misfire => 'fire_all'),
	qml_schedule_recurring('once', '* * * * * *', 'm')
SQL
is(work_done(1), $NOTHING, 'without pg_cron nothing happens');

my $end = end_minute(1);
is(runs_since($end), join(', ', ('keeper succeeded') x 4), 'pg_cron runs the jobs as that role');
is(work_done(1), $ALL, 'what is due is done, expired leases and all else that is expired');
cmp_ok(count_ticks('a'), '>=', 1, 'schedules are fired: ' . count_ticks('a') . ' ticks');
is(wrong_ticks('a'), '', 'each tick once');
is(count_ticks('once'), 1, 'or one job for all of the minute, as the schedule says');

query($node, "SELECT qml_revoke('keeper', 'admin')");
$end = end_minute(1);
is(runs_since($end), join(', ', ('keeper failed') x 4), 'they may do what the role may do');
query($node, "SELECT qml_grant('keeper', 'admin')");
is(query_as('keeper', 'SELECT qml_pg_cron_unschedule()'), 4, 'the role takes its jobs off');
is(query_as('keeper', 'SELECT qml_pg_cron_unschedule()'), 0, 'once');
query($node, 'SELECT count(qml_remove_recurring(id)) FROM qml.recurring_data');

#
# qml is preloaded, and leaves the work to pg_cron.
#

log_is_clean($node, 'without qml in the server its log is clean');
$node->stop;
# pg_cron's launcher tells of its end itself; from 1.6.8 on PostgreSQL does, as of
# the end of any other background worker.  Nothing shows that version: the extension
# is 1.6 before it, too.
my $SHUTTING_DOWN = qr/LOG:  pg_cron scheduler shutting down/;
my $TERMINATING =
  qr/terminating background worker "pg_cron launcher" due to administrator command/;
my @ends = unchecked_log($node) =~ /$SHUTTING_DOWN|FATAL:  $TERMINATING/g;
is(scalar @ends, 1, 'the launcher of pg_cron ends with the server, and that is told once');
log_is_clean($node, 'nothing else is wrong at the stop', qr/^$TERMINATING$/);

$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'pg_cron, qml'
qml.enable_scheduler = off
qml.enable_recurring = off
qml.enable_cleanup = off
qml.cleanup_interval = 1s
CONF
start_with_clock($node);
$node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'qml scheduler'")
  or die 'no scheduler';

query($node, "SELECT qml_schedule_recurring('b', '* * * * * *', 'm', misfire => 'fire_all')");
make_work(2);
# the scheduler looks every second
pass_time(2, 4);
is(work_done(2), $NOTHING, 'it leaves the work');
is(count_ticks('b'), 0, 'and the schedules');
is(query($node, 'SELECT count(*) FROM qml_pg_cron_schedule()'), 4, 'pg_cron is asked');
$end = end_minute(1);
like(runs_since($end), qr/^(\w+ succeeded(, )?){4}$/, 'it runs the jobs');
is(work_done(2), $ALL, 'it does the work');
cmp_ok(count_ticks('b'), '>=', 1, 'and the schedules');
is(wrong_ticks('b'), '', 'each tick once');

#
# Everybody at once: the scheduler, clients, and pg_cron.
#

foreach my $name (qw(scheduler recurring cleanup))
{
	$node->append_conf('postgresql.conf', "qml.enable_$name = on");
}
$node->reload;
make_work(3);
wait_for('the scheduler to do the work after a reload', sub { work_done(3) eq $ALL });

query($node, <<'SQL');
CREATE TABLE polled (jobs int);
SELECT qml_schedule_recurring('c' || n, '* * * * * *', 'm', misfire => 'fire_all')
FROM generate_series(1, 8) n;
SQL
$end = end_minute(3);
$node->pgbench(
	'--no-vacuum --client=3 --jobs=1 --time=6', 0,
	[qr/processed/], [qr/^$/],
	'clients poll all the time',
	{
		'097_poll' => 'INSERT INTO polled SELECT n FROM qml_poll_recurring() n WHERE n > 0;'
	});
like(runs_since($end), qr/^(\w+ succeeded(, )?){4}$/, 'pg_cron polls');
ok( $node->poll_query_until('postgres',
		"SELECT bool_and(next_run_at > clock_timestamp() AND last_run_at > to_timestamp($end)) FROM qml.recurring_data WHERE id LIKE 'c%'"),
	'the schedules are up to date');
cmp_ok(query($node, 'SELECT coalesce(sum(jobs), 0) FROM polled'), '>', 0, 'clients fired some of them');
query($node, "SELECT count(qml_pause_recurring(id)) FROM qml.recurring_data");
cmp_ok(count_ticks('c%'), '>=', 8 * 3, 'there were ' . count_ticks('c%') . ' ticks');
is(wrong_ticks('c%'), '', 'each tick once, by whomever');

is(query($node, 'SELECT qml_pg_cron_unschedule()'), 4, 'pg_cron is released');
is(query($node, 'SELECT qml_pg_cron_unschedule()'), 0, 'once');
log_is_clean($node, 'the log is clean');

done_testing();
