# Moving from pg_cron to qml: its jobs become commands and paused schedules, and each is run
# by one of the two at any time.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $node = background_node('pg_cron_import', conf => <<'CONF');
shared_preload_libraries = 'pg_cron, qml'
cron.database_name = 'postgres'
cron.use_background_workers = on
max_worker_processes = 24
max_prepared_transactions = 2
CONF
wait_for_process($node, 'scheduler', 'postgres');

my $IMPORT = q{SELECT concat_ws('|', coalesce(jobname, '-'), coalesce(schedule, '-'), coalesce(problem, '-')) FROM qml_import_pg_cron() ORDER BY jobid};

like(fails_with($node, '55000', 'SELECT * FROM qml_import_pg_cron()', 'it needs pg_cron'), qr/HINT:  /, 'and there is a hint');
query($node, <<'SQL');
CREATE EXTENSION pg_cron;
CREATE ROLE ann LOGIN;
CREATE ROLE bob LOGIN;
CREATE ROLE worker LOGIN;
GRANT USAGE ON SCHEMA cron TO ann, bob;
SELECT qml_grant('ann', 'admin'), qml_grant('ann', 'enqueue'), qml_grant('worker', 'work');
GRANT CREATE ON SCHEMA public TO ann;
CREATE DATABASE elsewhere;
SQL
is(query($node, $IMPORT), '', 'without jobs there is nothing to import');

# ---- what can be imported

# A job of a role; returns its id.  Newer versions of cron.schedule() refuse some schedules,
# which may be there all the same.
sub cron_job
{
	my ($role, $name, $schedule, $command) = @_;
	my $id = query($node, qq{SET ROLE $role; SELECT cron.schedule('$name', '0 0 1 1 *', \$c\$$command\$c\$)});
	query($node, qq{UPDATE cron.job SET schedule = '$schedule' WHERE jobid = $id});
	return $id;
}

query($node, 'CREATE TABLE ran (what text, su name DEFAULT session_user, at timestamptz DEFAULT clock_timestamp()); GRANT ALL ON ran TO ann, bob');
my %job;
$job{vacuum} = cron_job('ann', 'nightly', '30 3 * * *', 'VACUUM ran');
$job{insert} = cron_job('ann', 'insert', '*/10 * * * MON-FRI', q{INSERT INTO ran (what) VALUES ('insert')});
$job{two} = cron_job('ann', 'two', '@daily', 'SELECT 1; SELECT 2');
$job{boot} = cron_job('ann', 'boot', '@reboot', 'SELECT 1');
$job{odd} = cron_job('ann', 'odd', '*/90 1 * * *', 'SELECT 1');
$job{set} = cron_job('ann', 'set', '0 0 * * *', 'SET work_mem = 1');
$job{control} = cron_job('ann', "a\nb", '0 0 * * 7', 'SELECT 1');
$job{unnamed} = query($node, q{SET ROLE ann; SELECT cron.schedule('0 12 1 * *', 'ANALYZE ran')});
$job{bob} = cron_job('bob', 'nightly', '0 4 * * *', q{INSERT INTO ran (what) VALUES ('of bob')});
$job{root} = cron_job('NONE', 'system', '0 5 * * *', q{ALTER SYSTEM SET work_mem = '5MB'});
query($node, q{SELECT cron.schedule_in_database('there', '0 0 * * *', 'SELECT 1', 'elsewhere'), count(*) FROM qml_pg_cron_schedule()});
# What newer versions write, and what is run elsewhere.
foreach my $new ([ 'seconds', '30 seconds' ], [ 'last', '15 2 $ * *' ], [ 'away', '0 0 * * *' ])
{
	$job{ $new->[0] } = query($node, <<"SQL");
INSERT INTO cron.job (schedule, command, username, jobname, nodeport, active)
VALUES ('$new->[1]', 'SELECT 1', 'ann', '$new->[0]', current_setting('port')::int, false) RETURNING jobid
SQL
}
query($node, q{UPDATE cron.job SET nodename = 'db2.example.org' WHERE jobname = 'away'});
is(query($node, 'SELECT count(*) FROM cron.job'), 18, 'pg_cron has its jobs');

sub as_ann
{
	my ($sql) = @_;
	return as_role($node, 'ann', $sql);
}

fails_with($node, '42501', 'SELECT qml_import_pg_cron()', 'who has no right to register handlers cannot import', extra_params => [ '-U', 'worker' ]);
query($node, q{REVOKE USAGE ON SCHEMA cron FROM ann});
fails_with($node, '42501', 'SELECT qml_import_pg_cron()', 'nor who may not read what pg_cron has', extra_params => [ '-U', 'ann' ]);
query($node, q{GRANT USAGE ON SCHEMA cron TO ann});

my $anns = <<"TEXT";
nightly|pg_cron $job{vacuum} nightly|-
insert|pg_cron $job{insert} insert|-
two|-|a command must be one statement: The text has 2.
boot|-|invalid cron expression "\@reboot": "\@reboot" at character 1 is not valid.
odd|-|invalid cron expression "*/90 1 * * *": "*/90" at character 1 is not valid in the field minute: ...
set|-|SET cannot be a command: It changes the session, which other jobs use too.
a
b|pg_cron $job{control}|-
-|pg_cron $job{unnamed}|-
seconds|pg_cron $job{seconds} seconds|pg_cron has switched the job off; resuming the schedule would start it
last|pg_cron $job{last} last|pg_cron has switched the job off; resuming the schedule would start it
away|-|Its nodename and nodeport are not those of this server.
TEXT
chomp $anns;
my $made = as_ann($IMPORT);
$made =~ s/(in the field minute: ).*/$1.../;
is($made, $anns, 'a role imports its own jobs, and is told which cannot be');
is(query($node, 'SELECT string_agg(id, \',\') FROM qml.recurring WHERE enabled'), '', 'no schedule fires yet');
is(query($node, q{SELECT string_agg(DISTINCT format('%s %s %s', effective_role, action, object_type), ', ') FROM qml.audit WHERE effective_role = 'ann'}),
	'ann qml_import_pg_cron schedule, ann qml_register_command handler, ann qml_schedule_recurring schedule', 'the import is an act, and all that it makes');
is(query($node, <<'SQL'), <<'TEXT' =~ s/\n\z//r, 'the schedules mean what those of pg_cron do');
SELECT concat_ws('|', regexp_replace(id, '\d+', 'n'), cron, replace(timezone, 'GMT', 'UTC'), method = id, queue, misfire, overlap, pause_reason) FROM qml.recurring ORDER BY substring(id FROM '\d+')::int
SQL
pg_cron n nightly|30 3 * * *|UTC|t|default|skip|queue_one|imported from pg_cron, which runs the job until this schedule is resumed
pg_cron n insert|*/10 * * * MON-FRI|UTC|t|default|skip|queue_one|imported from pg_cron, which runs the job until this schedule is resumed
pg_cron n|0 0 * * 7|UTC|t|default|skip|queue_one|imported from pg_cron, which runs the job until this schedule is resumed
pg_cron n|0 12 1 * *|UTC|t|default|skip|queue_one|imported from pg_cron, which runs the job until this schedule is resumed
pg_cron n seconds|every 30 seconds|UTC|t|default|skip|queue_one|imported from pg_cron, where the job is switched off
pg_cron n last|15 2 L * *|UTC|t|default|skip|queue_one|imported from pg_cron, where the job is switched off
TEXT
is(query($node, "SELECT concat_ws('|', command, run_as, registered_by, problem, options) FROM qml.handler WHERE method = 'pg_cron $job{vacuum} nightly'"),
	'VACUUM ran|ann|ann|{"run_as": "ann", "timeout": "24 days", "concurrency": 1}', 'and so do the commands');
is(query($node, 'SELECT count(*) FROM cron.job'), 18, 'pg_cron keeps its jobs');

# ---- again

query($node, "SELECT qml_schedule_recurring('pg_cron $job{insert} insert', '0 6 * * *', 'pg_cron $job{insert} insert')");
as_ann("SELECT qml_unregister_handler('pg_cron $job{last} last'), qml_remove_recurring('pg_cron $job{seconds} seconds')");
$made = as_ann($IMPORT);
$made =~ s/(in the field minute: ).*/$1.../;
$anns =~ s/^(insert\|.*\|)-$/$1the schedule exists and differs from the job: cron/m;
# Where pg_cron knows a zone, it is not called UTC.
$made =~ s/differs from the job: cron\K, timezone$//m;
is($made, $anns, 'a second import answers the same, and what was changed');
is(query($node, 'SELECT (SELECT count(*) FROM qml.recurring), (SELECT count(*) FROM qml.handler)'), '6|6', 'makes what is missing');
is(query($node, "SELECT cron FROM qml.recurring WHERE id = 'pg_cron $job{insert} insert'"), '0 6 * * *', 'and leaves what was changed');

# ---- a superuser

query($node, 'ALTER ROLE bob NOLOGIN');
like(query($node, $IMPORT), qr/^nightly\|-\|the role "bob" of the handler is not permitted to log in$/m, 'a role that cannot log in');
query($node, 'ALTER ROLE bob LOGIN');
$made = query($node, $IMPORT);
like($made, qr/^nightly\|pg_cron $job{bob} nightly\|-$/m, 'a superuser imports the jobs of others');
like($made, qr/^system\|pg_cron $job{root} system\|-$/m, 'and its own');
like($made, qr/^qml jobs\|-\|It is a job of qml_pg_cron_schedule\(\)/m, 'the maintenance of qml is left out');
unlike($made, qr/^there\|/m, 'and so is another database');
is(query($node, "SELECT run_as, registered_by = current_user FROM qml.handler WHERE method = 'pg_cron $job{bob} nightly'"), 'bob|t', 'they run as their own roles');

# ---- one takes over

sub cron_has { return query($node, "SELECT count(*) FROM cron.job WHERE jobid = $job{$_[0]}"); }

is(as_ann("SELECT qml_resume_recurring('pg_cron $job{vacuum} nightly')"), 't', 'the schedule is resumed');
is(cron_has('vacuum'), 0, 'pg_cron has the job no more');
is(query($node, "SELECT enabled, pause_reason IS NULL, next_run_at > now() FROM qml.recurring WHERE id = 'pg_cron $job{vacuum} nightly'"), 't|t|t', 'qml runs it');
{
	my $id = as_ann("SELECT qml_run_recurring('pg_cron $job{vacuum} nightly')");
	is(outcome_of($node, $id), 'succeeded|1', 'the command runs');
	is(ask($node, "SELECT result FROM qml_job('$id')"), '{"tag": "VACUUM"}', 'VACUUM');
	$id = query($node, "SELECT qml_run_recurring('pg_cron $job{bob} nightly')");
	is(outcome_of($node, $id), 'succeeded|1', 'that of bob does');
	is(ask($node, q{SELECT su FROM ran WHERE what = 'of bob'}), 'bob', 'as bob');
}
as_ann("SELECT qml_pause_recurring('pg_cron $job{vacuum} nightly'), qml_resume_recurring('pg_cron $job{vacuum} nightly')");
is(query($node, "SELECT enabled FROM qml.recurring WHERE id = 'pg_cron $job{vacuum} nightly'"), 't', 'it can be paused and resumed like others');
unlike(as_ann($IMPORT), qr/^nightly/m, 'there is nothing to import of it');
query($node, "BEGIN; SELECT qml_resume_recurring('pg_cron $job{bob} nightly'); ROLLBACK");
is(cron_has('bob') . query($node, "SELECT enabled FROM qml.recurring WHERE id = 'pg_cron $job{bob} nightly'"), '1f', 'both, or neither');
query($node, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT qml_resume_recurring('pg_cron $job{unnamed}'); COMMIT");
is(cron_has('unnamed'), 0, 'in a stricter isolation level, and without a name');
query($node, "SELECT qml_resume_recurring('pg_cron $job{insert} insert')");
is(cron_has('insert'), 0, 'one that was changed meanwhile');

# With the rights of who resumes it: not by one who may not touch the job of another.
fails_with($node, '42501', "SELECT qml_resume_recurring('pg_cron $job{bob} nightly')", 'who may not unschedule the job cannot resume its schedule', extra_params => [ '-U', 'ann' ]);
is(cron_has('bob') . query($node, "SELECT enabled FROM qml.recurring WHERE id = 'pg_cron $job{bob} nightly'"), '1f', 'and nothing is changed');

# A stranger takes the name of a job that is not his.
query($node, "SELECT qml_remove_recurring('pg_cron $job{root} system'), qml_grant('bob', 'enqueue')");
as_role($node, 'bob', "SELECT qml_schedule_recurring('pg_cron $job{root} system', '0 0 * * *', 'm'), qml_pause_recurring('pg_cron $job{root} system')");
like(query($node, $IMPORT), qr/^system\|-\|recurring job "pg_cron $job{root} system" exists and differs: It was not imported, and belongs to the role "bob"\.$/m, 'the import tells it');
foreach my $enabled (0, 1)
{
	query($node, "UPDATE qml.recurring_data SET enabled = true WHERE id = 'pg_cron $job{root} system'") if $enabled;
	like(fails_with($node, '55000', "SELECT qml_resume_recurring('pg_cron $job{root} system')", "and so does the resume, enabled: $enabled"),
		qr/has the name of the job, but was not made by qml_import_pg_cron\(\).*HINT:  .*cron\.unschedule\($job{root}\)/s, 'with a way out');
}
is(cron_has('root'), 1, 'a schedule of another role takes over no job');
foreach my $name ("pg_cron $job{root}", "pg_cron $job{root} systems", "pg_cron 0$job{root} system", "pg_cron +$job{root} system", 'pg_cron', 'pg_cron x', 'pg_cron 99999999999999999999 x')
{
	query($node, "SELECT qml_schedule_recurring('$name', '0 0 * * *', 'm'), qml_pause_recurring('$name'), qml_resume_recurring('$name'), qml_remove_recurring('$name')");
}
is(cron_has('root'), 1, 'nor does one of another name');

# Removing a schedule leaves pg_cron alone.
query($node, "SELECT qml_remove_recurring('pg_cron $job{bob} nightly')");
is(cron_has('bob'), 1, 'a schedule that is removed leaves its job to pg_cron');

# ---- pg_cron's job is not what was imported

sub problem_of
{
	my ($name) = @_;
	return query($node, "SELECT concat_ws('|', schedule IS NOT NULL, problem) FROM qml_import_pg_cron() WHERE jobname = '$name'");
}

sub resume_fails
{
	my ($name, $id, $detail) = @_;
	my $schedule = "pg_cron $id $name";
	like(fails_with($node, '55000', "SELECT qml_resume_recurring('$schedule')", "$name: the resume is refused"), qr/DETAIL:  \Q$detail\E/, "$name: because: $detail");
	is(query($node, "SELECT (SELECT count(*) FROM cron.job WHERE jobid = $id), (SELECT enabled FROM qml.recurring WHERE id = '$schedule')"), '1|f', "$name: pg_cron keeps it");
}

my %changes = (
	command => q{command => 'SELECT 2'},
	schedule => q{schedule => '0 7 * * *'},
);
foreach my $what (sort keys %changes)
{
	my $id = cron_job('NONE', "new-$what", '0 6 * * *', 'SELECT 1');
	is(problem_of("new-$what"), 't', "new-$what: imported");
	query($node, "SELECT cron.alter_job($id, $changes{$what})");
	resume_fails("new-$what", $id, "The job was changed since it was imported: $what.");
	like(problem_of("new-$what"), qr/^f\|.* exists and differs: /, "new-$what: the import tells it");
	query($node, "SELECT qml_remove_recurring('pg_cron $id new-$what'), qml_unregister_handler('pg_cron $id new-$what')");
	is(problem_of("new-$what"), 't', "new-$what: imported anew");
	is(query($node, "SELECT qml_resume_recurring('pg_cron $id new-$what')"), 't', "new-$what: and resumed");
}
# The number of a job may be another's after DROP EXTENSION.
{
	my $id = cron_job('NONE', 'again', '0 6 * * *', 'SELECT 1');
	problem_of('again');
	query($node, "SELECT cron.unschedule($id)");
	query($node, "INSERT INTO cron.job (jobid, schedule, command, username, jobname, nodeport) VALUES ($id, '1 1 * * *', 'SELECT 3', 'bob', 'again', current_setting('port')::int)");
	resume_fails('again', $id, 'The job was changed since it was imported: schedule, command, username.');
	query($node, "SELECT qml_remove_recurring('pg_cron $id again'), cron.unschedule($id)");
}
# A handler of the name that does something else.
{
	my $id = cron_job('NONE', 'taken', '0 6 * * *', 'SELECT 1');
	my $name = "pg_cron $id taken";
	query($node, "SELECT qml_register_command('$name', 'SELECT 2')");
	is(problem_of('taken'), qq{f|handler "$name" exists and differs: Its command is another one.}, 'another command');
	query($node, qq{SELECT qml_register_command('$name', 'SELECT 1', '{"run_as": "bob"}')});
	is(problem_of('taken'), qq{f|handler "$name" exists and differs: It runs as another role.}, 'another role');
	query($node, "CREATE FUNCTION taken() RETURNS void LANGUAGE sql AS ''; REVOKE ALL ON FUNCTION taken FROM PUBLIC; SELECT qml_register_handler('$name', 'taken')");
	is(problem_of('taken'), qq{f|handler "$name" exists and differs: It calls a function.}, 'a function');
	is(query($node, "SELECT count(*) FROM qml.recurring WHERE id = '$name'"), 0, 'and no schedule is made');
	query($node, "SELECT cron.unschedule($id)");
}
# Roles that are renamed, and that lose a right.
{
	query($node, 'CREATE ROLE carl LOGIN; GRANT USAGE ON SCHEMA cron TO carl');
	my $id = cron_job('carl', 'of-carl', '0 6 * * *', 'SELECT 1');
	is(problem_of('of-carl'), 't', 'a job of another role is imported');
	query($node, 'ALTER ROLE carl RENAME TO karl');
	is(problem_of('of-carl'), 'f|role "carl" does not exist', 'its role is renamed');
	resume_fails('of-carl', $id, 'The role "carl" of the job does not exist.');
	query($node, 'ALTER ROLE karl RENAME TO carl; CREATE ROLE dba LOGIN SUPERUSER');
	query($node, "SELECT qml_remove_recurring('pg_cron $id of-carl')");
	as_role($node, 'dba', 'SELECT count(*) FROM qml_import_pg_cron()');
	query($node, 'ALTER ROLE dba NOSUPERUSER');
	resume_fails('of-carl', $id, 'The owner of the schedule may not become the role "carl" of the job.');
	is(problem_of('of-carl'), qq{f|recurring job "pg_cron $id of-carl" exists and differs: Its owner, the role "dba", may not become the role "carl" of the job.}, 'the import tells it');
	query($node, "SELECT cron.unschedule($id)");
}
# Removed, and scheduled again by hand: it fires at once.
{
	my $id = cron_job('NONE', 'hand', '0 6 * * *', 'SELECT 1');
	my $name = "pg_cron $id hand";
	problem_of('hand');
	query($node, "SELECT qml_remove_recurring('$name'), qml_schedule_recurring('$name', '0 6 * * *', '$name')");
	like(problem_of('hand'), qr/^f\|.*It was not imported/, 'one that was made by hand');
	like(fails_with($node, '55000', "SELECT qml_resume_recurring('$name')", 'it is not resumed, as both would run'), qr/not made by qml_import_pg_cron/, 'says why');
	query($node, "SELECT cron.unschedule($id)");
	is(query($node, "SELECT qml_resume_recurring('$name')"), 't', 'without the job it is as usual');
}

# ---- expressions that the two read differently

my @different = (
	[ '0 3 1 * * *', 'pg_cron ignores what follows the fifth field.' ],
	[ '0 0 * * 1#2', '"1#2" may mean something else.' ],
	[ '0 0 * * FRI-SUN', '"FRI-SUN" may mean something else.' ],
	[ '0 0 1;x * *', '"1;x" may mean something else.' ],
	[ '0 0 * * 5;L', '"5;L" may mean something else.' ],
	[ '0 0 $ * 1', 'In pg_cron both days must match, in qml one of them.' ],
	[ '0 0 15W * *', '"15W" may mean something else.' ],
	[ '0 0 L * *', '"L" may mean something else.' ],
	[ '5/10 0 * * *', '"5/10" may mean something else.' ],
	[ '0 0 ? * *', '"?" may mean something else.' ],
	[ '0 0 * JAN-FEB-MAR *', '"JAN-FEB-MAR" may mean something else.' ],
);
# Versions differ in what they accept, so they are put into the table.
my @same = ('0 3 1 * *', '*/5,7-30/3 0-23 1,15 JAN-mar,6 mon-Fri,7', "\t0 0 * *  SUN-WED ", '0 0 1 1 1', '@hourly');
query($node, 'DELETE FROM cron.job');
foreach my $expression (@same, map { $_->[0] } @different)
{
	query($node, "INSERT INTO cron.job (schedule, command, username, jobname, nodeport) VALUES (E'$expression', 'SELECT 1', current_user, E'$expression', current_setting('port')::int)");
}
my $problems = query($node, q{SELECT jobname || '|' || coalesce(problem, '-') FROM qml_import_pg_cron() ORDER BY jobid});
is($problems, join("\n", (map { "$_|-" } @same), map { qq{$_->[0]|pg_cron and qml read the expression "$_->[0]" differently: $_->[1]} } @different) =~ s/\\t/\t/gr, 'only what means the same is imported');
query($node, q{DELETE FROM cron.job WHERE jobname <> '0 0 1 1 1'; INSERT INTO cron.job (schedule, command, username, jobname, nodeport) VALUES ('@yearly', 'SELECT 1', current_user, 'year', current_setting('port')::int)});
is(problem_of('year'), 't|pg_cron may never run @yearly, but qml does', 'what pg_cron does not do is told');

# A setting counts if this version of pg_cron has it, which no setting that somebody made does.
SKIP:
{
	skip 'this pg_cron has the settings', 1 if query($node, q{SELECT count(*) FROM pg_settings WHERE name IN ('cron.timezone', 'cron.match_dom_and_dow')}) > 0;
	query($node, q{SELECT qml_remove_recurring(id) FROM qml.recurring WHERE id ~ ' 0 0 1 1 1$'});
	query($node, q{SET cron.timezone = 'Europe/Berlin'; SET cron.match_dom_and_dow = on; SELECT count(*) FROM qml_import_pg_cron()});
	is(query($node, q{SELECT cron, timezone FROM qml.recurring WHERE id ~ ' 0 0 1 1 1$'}), '0 0 1 1 1|UTC', 'a setting that pg_cron does not have');
}

# ---- a tick before the commit

{
	my $id = query($node, q{INSERT INTO cron.job (schedule, command, username, jobname, nodeport, active) VALUES ('2 seconds', 'SELECT 1', current_user, 'often', current_setting('port')::int, false) RETURNING jobid});
	my $name = "pg_cron $id often";
	my $resume = "SELECT qml_resume_recurring('$name')";
	# Until a tick of the first call has passed.
	my $wait = 'DO $$ DECLARE t timestamptz = clock_timestamp() + interval \'2 seconds\'; BEGIN WHILE clock_timestamp() <= t LOOP PERFORM pg_sleep(0.1); END LOOP; END $$';
	problem_of('often');
	like(fails_with($node, '55000', "BEGIN; $resume; $wait; COMMIT", 'a tick passes before the commit'), qr/DETAIL:  .*HINT:  Resume it again/s, 'it is told what to do');
	fails_with($node, '55000', "BEGIN; SAVEPOINT s; $resume; RELEASE s; $wait; COMMIT", 'also when a savepoint was released');
	fails_with($node, '0A000', "BEGIN; $resume; PREPARE TRANSACTION 'often'", 'the transaction cannot be prepared');
	query($node, "BEGIN; SAVEPOINT s; $resume; ROLLBACK TO s; $wait; COMMIT");
	is(query($node, "SELECT (SELECT count(*) FROM cron.job WHERE jobid = $id), (SELECT enabled FROM qml.recurring WHERE id = '$name')"), '1|f', 'and pg_cron keeps the job');
	# With times that are far away: a tick between the call and its commit would be an accident.
	query($node, "SELECT qml_schedule_recurring('$name', '0 0 29 2 *', '$name')");
	is(query($node, $resume), 't', 'a short transaction, and other times');
	is(query($node, "SELECT count(*) FROM cron.job WHERE jobid = $id"), 0, 'takes the job over');
	query($node, "SELECT qml_remove_recurring('$name')");
}

# ---- a table that is not as it is known

fails_with($node, '0A000', 'BEGIN; ALTER TABLE cron.job RENAME jobname TO name; SELECT qml_import_pg_cron()', 'a version that is not known');
query($node, 'DROP EXTENSION pg_cron');
is(query($node, "SELECT qml_resume_recurring('pg_cron $job{last} last')"), 't', 'without pg_cron the rest is resumed as usual');
run_log_clean($node, 'the log is clean');

done_testing();
