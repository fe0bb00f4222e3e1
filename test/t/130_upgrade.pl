# Library and SQL objects are upgraded one after the other, in either order, while producers,
# workers and the scheduler go on: an old library serves newer SQL objects and a new one
# older ones.  What cannot be served is refused, and said how to mend.
#
# The next version is played by a library that knows a column more in some tables
# (QML_NEXT), and by update scripts that are written here.

use strict;
use warnings;

use File::Find ();
use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

plan skip_all => 'needs the builds of test/run'
  unless defined $ENV{QML_INST_RELEASE} && defined $ENV{QML_INST_NEXT};

# What qml_status() says of the versions of library and SQL objects.
sub version_check
{
	my ($node, $dbname) = @_;
	return query($node, q{SELECT ok, remedy FROM qml_status() WHERE check_name = 'version'}, $dbname);
}

# ---- installations

# The directory that holds a whole installation, which can be moved.
sub root_of
{
	my ($tree) = @_;
	return $tree =~ m{^(.*?/inst-\w+)(/|$)} ? $1 : die "unexpected installation \"$tree\"";
}

# The file of a name below a directory.
sub find_file
{
	my ($dir, $name) = @_;
	my @found;

	File::Find::find(sub { push @found, $File::Find::name if $_ eq $name }, $dir);
	die "no $name below \"$dir\"" unless @found == 1;
	return $found[0];
}

my $installations = 0;

# A copy of the release, as a value for install_path.
sub install_copy
{
	my $from = root_of($ENV{QML_INST_RELEASE});
	my $to = PostgreSQL::Test::Utils::tempdir . '/inst-' . ++$installations;
	my $tree = $to . substr($ENV{QML_INST_RELEASE}, length $from);

	system_or_bail('cp', '-a', $from, $to);
	foreach my $link ("$tree/bin", "$tree/lib")
	{
		my $target = readlink $link or next;
		$target =~ s/^\Q$from\E/$to/;
		unlink $link;
		symlink $target, $link or die "could not link \"$link\": $!";
	}
	return $tree;
}

# Puts a file into an installation as "make install" does: by a new one of that name.
sub replace_file
{
	my ($source, $target) = @_;

	system_or_bail('cp', $source, "$target.new");
	rename "$target.new", $target or die "could not rename \"$target.new\": $!";
	return;
}

my $next_library = find_file(root_of($ENV{QML_INST_NEXT}), 'qml.so');
my $release_script = slurp_file(find_file(root_of($ENV{QML_INST_RELEASE}), 'qml--1.0.sql'));

# The head of each script; the library that it needs.
sub script_head
{
	my ($library) = @_;
	return <<"SQL";
SET LOCAL search_path = pg_catalog, pg_temp;
CREATE FUNCTION qml.begin_script(library text) RETURNS void
	AS 'MODULE_PATHNAME', 'qml_begin_script' LANGUAGE C STRICT;
SELECT qml.begin_script('$library');
DROP FUNCTION qml.begin_script(text);
SQL
}

# The view qml.job with a column more, at the end.
sub next_view
{
	my ($view) = $release_script =~ /^CREATE VIEW (qml\.job .*?;)$/ms;
	my $tables = $view =~ s/(\bresult)(\n\tFROM )/$1, note$2/g;
	my $result = $view =~ s/( AS created_by)(\nFROM )/$1,\n\tj.note$2/g;

	die "unexpected view $view" unless $tables == 4 && $result == 1;
	# The columns of a function cannot be changed.
	my ($function) = $release_script =~ /^CREATE FUNCTION (qml\.unlogged_jobs\(.*?;)$/ms;
	my $replaced = $view =~ s/qml\.unlogged_jobs\(/qml.unlogged_jobs_with_note(/;
	my $named = $function =~ s/^qml\.unlogged_jobs\(/qml.unlogged_jobs_with_note(/;
	my $column = $function =~ s/OUT result jsonb\)/OUT result jsonb, OUT note text)/;
	die "unexpected function $function" unless $replaced && $named && $column;
	# The other views that read from it.
	my @others = grep { s/qml\.unlogged_jobs\(/qml.unlogged_jobs_with_note(/g }
	  $release_script =~ /^CREATE VIEW (qml\.(?!job ).*?;)$/msg;
	die 'no view qml.recent' unless grep { /^qml\.recent / } @others;
	my $others = join "\n", map { "CREATE OR REPLACE VIEW $_" } @others;
	return <<"SQL";
CREATE FUNCTION $function
REVOKE ALL ON FUNCTION qml.unlogged_jobs_with_note() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION qml.unlogged_jobs_with_note() TO PUBLIC;
CREATE OR REPLACE VIEW $view
$others
DROP FUNCTION qml.unlogged_jobs();
SQL
}

# In the order that would suit sessions least.
my $both = 'ADD COLUMN note text, ADD COLUMN weight int NOT NULL DEFAULT 1';
my %scripts = (
	'1.0--1.1' => script_head('1.0')
	  . join('',
		(map { "ALTER TABLE qml.$_ $both;\n" } qw(history history_overflow history_unlogged history_unlogged_overflow live_unlogged live)),
		(map { "ALTER TABLE qml.$_ ADD COLUMN note text;\n" }
			  qw(hook_data queue_data acl_data instance_data lock_data middleware_data server_data handler_data)),
		(map { "ALTER TABLE qml.$_ $both;\n" } qw(recurring_data occurrence_data)))
	  . next_view()
	  . <<'SQL',
COMMENT ON COLUMN qml.job.note IS 'a new column';
CREATE FUNCTION @extschema@.qml_next_version() RETURNS text LANGUAGE sql RETURN 'here';
REVOKE ALL ON FUNCTION @extschema@.qml_next_version() FROM PUBLIC;
SQL
	# needs a function that no library has
	'1.1--1.2' => script_head('1.2') . <<'SQL',
CREATE FUNCTION @extschema@.qml_of_the_future() RETURNS text
	AS 'MODULE_PATHNAME', 'qml_of_the_future' LANGUAGE C;
SQL
	# no older library can serve it; nor does the script say so
	'1.1--1.8' => script_head('1.1') . <<'SQL',
ALTER TABLE qml.live ADD COLUMN since timestamptz NOT NULL DEFAULT clock_timestamp();
SQL
	'1.8--1.1' => script_head('1.1') . "ALTER TABLE qml.live DROP COLUMN since;\n",
	'1.1--1.9' => script_head('1.1') . "ALTER TABLE qml.live RENAME COLUMN payload TO burden;\n",
	'1.9--1.1' => script_head('1.1') . "ALTER TABLE qml.live RENAME COLUMN burden TO payload;\n",
	'0.9--1.1' => script_head('1.0'),
	'1.1--2.0' => script_head('1.1'),
	'2.0--1.1' => script_head('1.1'));

# Installs the next version over an installation whose server may be running.
sub install_next
{
	my ($tree) = @_;
	my $root = root_of($tree);
	my $control = find_file($root, 'qml.control');
	my $dir = $control =~ s{/[^/]+$}{}r;
	my $text = slurp_file($control) =~ s/default_version = '1\.0'/default_version = '1.1'/r;

	replace_file($next_library, find_file($root, 'qml.so'));
	append_to_file("$dir/qml--$_.sql", $scripts{$_}) foreach keys %scripts;
	unlink $control;
	append_to_file($control, $text);
	return;
}

sub node_of
{
	my ($name, $tree, %opt) = @_;
	local $ENV{QML_INST_UPGRADE} = $tree;
	return new_node($name, variant => 'upgrade', %opt);
}

# ---- what goes on meanwhile

my @load;

# Starts pgbench with a script, which ends with the first error.
sub start_load
{
	my ($node, $dbname, $name, $sql) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir . '/load.sql';
	my %load = (name => $name, out => '', err => '');

	append_to_file($file, $sql);
	$load{handle} = IPC::Run::start(
		[
			$node->installed_command('pgbench'), '-n', '-c', 2, '-T', 600, '-R', 20, '-f', $file,
			$node->connstr($dbname)
		],
		'<', \undef, '>', \$load{out}, '2>', \$load{err});
	push @load, \%load;
	return;
}

sub start_loads
{
	my ($node, $dbname) = @_;

	start_load($node, $dbname, 'producer', <<'SQL');
SELECT qml_enqueue('outside', '{"n": 1}', queue => 'outside');
SELECT qml_enqueue('inside', '{"n": 1}', queue => 'inside');
SELECT count(*) FROM qml_enqueue_many('outside', ARRAY['{}', '{}']::jsonb[], queue => 'outside');
SQL
	start_load($node, $dbname, 'worker', <<'SQL');
SELECT f.*, qml_heartbeat(f.id, f.attempt, '1 min'), qml_release(f.id, f.attempt) FROM qml_fetch('w', '{outside}', 2) f;
SELECT f.*, qml_fail(f.id, f.attempt, 'again', retry_at => now()) FROM qml_fetch('w', '{outside}') f;
SELECT f.*, qml_succeed(f.id, f.attempt) FROM qml_fetch('w', '{outside}', 5) f;
SQL
	return;
}

# Ends them; asserts that none met an error.
sub end_loads
{
	my ($name) = @_;

	foreach my $load (@load)
	{
		IPC::Run::pump_nb($load->{handle});
		IPC::Run::signal($load->{handle}, 'TERM');
		eval { IPC::Run::finish($load->{handle}) };
		is($load->{err} =~ s/^pgbench: (?:warning: )?.*(?:interrupted|terminated).*\n//mgr, '',
			"$name: the $load->{name} met no error");
	}
	@load = ();
	return;
}

sub prepare_database
{
	my ($node, $dbname) = @_;

	query($node, <<'SQL', $dbname);
SELECT qml_create_queue('outside'), qml_create_queue('inside'), qml_create_queue('walk', '{"retry": {"strategy": "fixed", "delay": "1 h"}}');
CREATE FUNCTION inside(job qml.job) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN job.method; END';
SELECT qml_register_handler('inside', 'inside');
CREATE TABLE seen (job uuid, state qml.job_state);
CREATE FUNCTION see(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS 'INSERT INTO public.seen VALUES (job.id, new)';
REVOKE EXECUTE ON FUNCTION see FROM PUBLIC;
SELECT qml_register_hook('see', 'see', '{failed}');
SELECT qml_grant('pg_monitor', 'monitor');
SELECT qml_schedule_recurring('r', '* * * * * *', 'tick', queue => 'ticks');
SQL
	wait_for_process($node, 'scheduler', $dbname);
	return;
}

# Everything goes on from now: jobs of each kind are made and finished, ticks fire, delayed
# jobs become ready.
sub all_goes_on
{
	my ($node, $dbname, $name) = @_;
	my $start = time;
	my $now = query($node, 'SELECT clock_timestamp()', $dbname);
	my $delayed = query($node,
		"SELECT qml_enqueue('delayed', queue => 'later', run_at => clock_timestamp() + interval '0.3 s')", $dbname);
	my $last = '';

	eval {
		wait_for(
		"$name: all goes on",
		sub {
			$last = query($node, <<"SQL", $dbname);
SELECT concat_ws(' ', (SELECT 'outside' WHERE EXISTS (SELECT FROM qml.history WHERE method = 'outside' AND created_at > '$now' AND state = 'succeeded')),
	(SELECT 'inside' WHERE EXISTS (SELECT FROM qml.history WHERE method = 'inside' AND created_at > '$now' AND state = 'succeeded')),
	(SELECT 'tick' WHERE EXISTS (SELECT FROM qml.occurrence_data WHERE occurrence > '$now')),
	(SELECT 'delayed' FROM qml.live WHERE id = '$delayed' AND state = 'enqueued'))
SQL
			return $last eq 'outside inside tick delayed';
		});
		1;
	} or do { IPC::Run::pump_nb($_->{handle}) foreach @load; }, die "$name: only this goes on: $last; " . join(' ', map { "$_->{err} $_->{out}" } @load);
	cmp_ok(time - $start, '<', 20, sprintf('%s: all goes on, after %.1f s', $name, time - $start));
	return;
}

# Takes jobs through everything that writes their rows; where there are columns more, their
# values go with the job wherever it goes.  Returns what became of them.
sub walk
{
	my ($node, $dbname, $columns) = @_;
	my $set = $columns ? "UPDATE qml.live SET note = payload ->> 'n', weight = 7 WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'walk')" : 'SELECT 1';
	my $shown = $columns ? "note || '/' || weight" : "'-'";

	return query($node, <<"SQL", $dbname);
\\set QUIET on
\\o /dev/null
DELETE FROM qml.history WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'walk');
SELECT qml_enqueue('walk', '{"n": "failed"}', 'walk', 9) AS failed \\gset
SELECT qml_enqueue('walk', '{"n": "again"}', 'walk', 8) AS again \\gset
SELECT qml_enqueue('walk', '{"n": "released"}', 'walk', 7) AS released \\gset
SELECT qml_enqueue('walk', '{"n": "many"}', 'walk', 6), qml_enqueue('walk', '{"n": "many"}', 'walk', 6);
SELECT qml_enqueue('walk', '{"n": "later"}', 'walk', run_at => now() + interval '1 h') AS later \\gset
SELECT qml_enqueue('walk', '{"n": "gone"}', 'walk', -1) AS gone \\gset
$set;
SELECT qml_fail(id, attempt, 'no', retry => false) FROM qml_fetch('w', '{walk}');
SELECT qml_retry(:'failed');
SELECT qml_fail(id, attempt, 'no', retry => false) FROM qml_fetch('w', '{walk}');
SELECT qml_delete(:'failed', 'in the history');
SELECT qml_fail(id, attempt, 'no') FROM qml_fetch('w', '{walk}');
SELECT qml_retry(:'again');
SELECT qml_progress(id, attempt, '1'), qml_heartbeat(id, attempt, '1 min'), qml_succeed(id, attempt, '{}') FROM qml_fetch('w', '{walk}');
SELECT qml_release(id, attempt) FROM qml_fetch('w', '{walk}');
SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{walk}');
SELECT qml_succeed_many(array_agg(id), array_agg(attempt)) FROM qml_fetch('w', '{walk}', 2);
SELECT qml_reschedule(:'later', now() + interval '2 h');
UPDATE qml.live SET run_at = now() WHERE id = :'later';
SELECT qml_promote_due();
SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{walk}');
SELECT qml_delete(:'gone');
\\o
SELECT payload ->> 'n', state, coalesce(attempt, 0), $shown FROM qml.history WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 'walk') ORDER BY 1;
SELECT count(*) FROM seen WHERE job = :'failed';
SQL
}

sub walked
{
	my ($columns) = @_;
	my $row = sub { my ($n, $state, $attempt) = @_; "$n|$state|$attempt|" . ($columns ? "$n/7" : '-') };

	return join "\n", $row->('again', 'succeeded', 2), $row->('failed', 'deleted', 2),
	  $row->('gone', 'deleted', 0), $row->('later', 'succeeded', 1), ($row->('many', 'succeeded', 1)) x 2,
	  $row->('released', 'succeeded', 2), 2;
}

# Lines of the server's log that tell of an error; a client that is ended leaves some.
sub errors_since
{
	my ($server, $since) = @_;
	my $log = slurp_file($server->logfile, $since);

	return join "\n", grep { !/connection to client lost|57P01/ }
	  grep { /ERROR: |FATAL: |PANIC: | failed: .*SQLSTATE|TRAP|was terminated by signal/ } split /\n/, $log;
}

# ---- the old library, newer SQL objects

my $tree = install_copy();
my $node = node_of('preloaded', $tree, conf => <<'CONF');
shared_preload_libraries = 'qml'
max_worker_processes = 16
qml.scheduler_poll_interval = 60s
qml.recurring_poll_interval = 60s
CONF
prepare_database($node, 'postgres');
my $before = query($node, "SELECT qml_enqueue('walk', '{}', 'before') FROM generate_series(1, 3)") =~ s/\n.*//sr;
query($node, "SELECT qml_fail(id, attempt, 'x', retry => false) FROM qml_fetch('w', '{before}', 1)");
my $scheduler = wait_for_process($node, 'scheduler', 'postgres');
is(walk($node, 'postgres', 0), walked(0), 'the first version works');

start_loads($node, 'postgres');
all_goes_on($node, 'postgres', 'before the upgrade');

install_next($tree);
all_goes_on($node, 'postgres', 'files replaced');
{
	# New processes go on with the library that the server was started with.
	kill 'TERM', $scheduler;
	$scheduler = wait_for_process($node, 'scheduler', 'postgres', $scheduler);
	all_goes_on($node, 'postgres', 'files replaced, new scheduler');
}
my $copy = PostgreSQL::Test::Utils::tempdir . '/qml_copy.so';
system_or_bail('cp', $next_library, $copy);
like(fails_with($node, '55000', "LOAD '$copy'", 'a second copy of the library is refused'),
	qr/^DETAIL:  Version 1\.0 is loaded; the other file has version 1\.1\.\nHINT:  Restart the server/m,
	'with the versions, and a hint to restart');

# One that has the table of queues locked will lock that of jobs.
my $offset = -s $node->logfile;
{
	my $busy = new_session($node, 'postgres');
	my $output = '';
	$busy->query_safe("BEGIN; SELECT qml_create_queue('busy')");
	my $update = IPC::Run::start(
		[
			$node->installed_command('psql'), '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			'-c', "BEGIN; ALTER EXTENSION qml UPDATE TO '1.1'; SELECT pg_sleep(0.7); COMMIT"
		],
		'>&', \$output);
	wait_for('the update to wait', sub { query($node, "SELECT count(*) FROM pg_locks WHERE relation IN ('qml.queue_data'::regclass, 'qml.queue_data_id_seq'::regclass) AND mode = 'AccessExclusiveLock' AND NOT granted") eq '1' });
	$busy->query_safe("SELECT qml_enqueue('m', queue => 'busy'); COMMIT");
	$busy->quit;
	$update->finish;
	is($update->full_result(0) . $output =~ s/\s//gr, '0', 'it is updated, beside one that made a queue');
}
is(query($node, "SELECT qml_next_version(), extversion FROM pg_extension WHERE extname = 'qml'"), 'here|1.1', 'old library: newer SQL objects');
all_goes_on($node, 'postgres', 'old library, newer SQL objects');
is(process($node, 'scheduler', 'postgres'), $scheduler, 'the scheduler is the same');
is(walk($node, 'postgres', 1), walked(1), 'jobs keep what the library does not know of them');
is(query($node, <<'SQL'), 't|1', 'old rows, and new ones, have the default');
SELECT count(*) FILTER (WHERE weight = 1 AND note IS NULL) = count(*) AND count(*) > 5, min(weight)
FROM (SELECT note, weight FROM qml.live UNION ALL SELECT note, weight FROM qml.history WHERE method <> 'walk') r
SQL
is( query($node, "SELECT (qml_job('$before')).note IS NULL, (SELECT count(*) FROM qml.job WHERE note = 'many')"), 't|2', 'the row of a job has all columns');
query($node, "UPDATE qml.recurring_data SET note = 'kept', weight = 3");
all_goes_on($node, 'postgres', 'schedules');
is(query($node, 'SELECT note, weight, (SELECT min(weight) FROM qml.occurrence_data) FROM qml.recurring_data'), 'kept|3|1', 'schedules keep theirs');
query($node, "SELECT qml_create_queue('made later'), qml_alter_queue('walk', '{\"succeeded_ttl\": \"20 days\"}')");
is(walk($node, 'postgres', 1), walked(1), 'and so it is in partitions that are made now');
is(version_check($node, 'postgres'), 'f|Restart the server to load the new library.', 'qml_status says that the library is older');
end_loads('old library');
is(errors_since($node, $offset), '', 'old library: no error is in the log');

# After a crash the processes are new, and still have the library of the server's start.
query($node, "SELECT qml_enqueue('inside', queue => 'inside')");
kill 'KILL', wait_for_process($node, 'scheduler', 'postgres');
wait_for('the server', sub { (try_query($node, "SELECT pg_postmaster_start_time() IS NOT NULL") // '') eq 't' });
wait_for_process($node, 'scheduler', 'postgres');
is(walk($node, 'postgres', 1), walked(1), 'after a crash, old library: jobs');

# A script that needs more than the library has says so.
like(fails_with($node, '55000', "ALTER EXTENSION qml UPDATE TO '1.2'", 'a script that needs a newer library'),
	qr/needs the library of that version, but version 1\.0 is loaded\nHINT:  .* restart the server/, 'says so');
fails_with($node, '55000', "ALTER EXTENSION qml UPDATE TO '1.8'", 'nothing is half done');
is(query($node, "SELECT extversion FROM pg_extension WHERE extname = 'qml'"), '1.1', 'the version is as it was');

# ---- the new library, SQL objects of its version

$node->stop;
$offset = -s $node->logfile;
$node->start;
start_loads($node, 'postgres');
all_goes_on($node, 'postgres', 'new library');
is(walk($node, 'postgres', 1), walked(1), 'new library: jobs keep all of it');
my $made = query($node, "SELECT qml_enqueue('noted')");
is(query($node, "SELECT j.note, (qml_job('$made')).note FROM qml.job j WHERE id = '$made'"), 'made by 1.1|made by 1.1', 'new library: its column is used');
end_loads('new library');

# ---- the new library, older SQL objects

query($node, 'CREATE DATABASE older');
query($node, "CREATE EXTENSION qml VERSION '1.0'", 'older');
prepare_database($node, 'older');
start_loads($node, 'older');
all_goes_on($node, 'older', 'new library, older SQL objects');
is(walk($node, 'older', 0), walked(0), 'new library, older SQL objects: jobs');
is(version_check($node, 'older'), 'f|ALTER EXTENSION qml UPDATE;', 'qml_status says that the SQL objects are older');
$scheduler = wait_for_process($node, 'scheduler', 'older');
my $dump = PostgreSQL::Test::Utils::tempdir . '/older.dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('older') ], 'the older database is dumped');
query($node, <<'SQL', 'older');
BEGIN;
ALTER EXTENSION qml UPDATE;
SELECT pg_sleep(0.7);
COMMIT;
SQL
is(query($node, "SELECT extversion FROM pg_extension WHERE extname = 'qml'", 'older'), '1.1', 'they are updated');
is(version_check($node, 'older'), 't|', 'qml_status says so');
all_goes_on($node, 'older', 'new library, updated SQL objects');
is(process($node, 'scheduler', 'older'), $scheduler, 'the scheduler is the same');
is(walk($node, 'older', 1), walked(1), 'new library, updated SQL objects: jobs');
$made = query($node, "SELECT qml_enqueue('noted')", 'older');
is(query($node, "SELECT (qml_job('$made')).note", 'older'), 'made by 1.1', 'the new column is used at once');
end_loads('updated');
is(errors_since($node, $offset), '', 'new library: no error is in the log');

# Somebody has added columns before, and dropped some: they have the numbers that those of the
# next version have elsewhere, and differ between a table, its partitions and the overflow.
query($node, 'CREATE DATABASE altered');
query($node, "CREATE EXTENSION qml VERSION '1.0'", 'altered');
prepare_database($node, 'altered');
is(walk($node, 'altered', 0), walked(0), 'altered tables: jobs, before');
query($node, <<'SQL', 'altered');
ALTER TABLE qml.live ADD COLUMN gone int NOT NULL DEFAULT 3, ADD COLUMN mine text;
ALTER TABLE qml.live DROP COLUMN gone;
ALTER TABLE qml.history ADD COLUMN mine text;
ALTER TABLE qml.recurring_data ADD COLUMN gone int;
ALTER TABLE qml.recurring_data DROP COLUMN gone;
ALTER TABLE qml.hook_data ADD COLUMN mine text;
ALTER TABLE qml.handler_data ADD COLUMN mine text;
SELECT qml_create_queue('between', '{"succeeded_ttl": "30 days"}');
SQL
start_loads($node, 'altered');
all_goes_on($node, 'altered', 'altered tables, older SQL objects');
is(walk($node, 'altered', 0), walked(0), 'altered tables, older SQL objects: jobs');
query($node, "ALTER TABLE qml.history ADD COLUMN gone int; ALTER TABLE qml.history DROP COLUMN gone", 'altered');
all_goes_on($node, 'altered', 'altered tables: once more');
query($node, 'ALTER EXTENSION qml UPDATE', 'altered');
all_goes_on($node, 'altered', 'altered tables, updated');
is(walk($node, 'altered', 1), walked(1), 'altered tables, updated: jobs');
query($node, "SELECT qml_create_queue('after', '{\"succeeded_ttl\": \"60 days\"}')", 'altered');
foreach my $queue ('between', 'after')
{
	my $id = query($node, "SELECT qml_enqueue('noted', queue => '$queue')", 'altered');
	query($node, "UPDATE qml.live SET mine = 'mine', weight = 5 WHERE id = '$id'; SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{$queue}')", 'altered');
	is(query($node, "SELECT h.note, h.mine, h.weight, (qml_job('$id')).note, (SELECT note FROM qml.job WHERE id = '$id') FROM qml.history h WHERE id = '$id'", 'altered'),
		'made by 1.1|mine|5|made by 1.1|made by 1.1', "altered tables: a job in a partition made $queue");
}
is(query($node, "SELECT count(DISTINCT a.attnum) > 1 FROM pg_inherits i JOIN pg_attribute a ON a.attrelid IN (i.inhrelid, i.inhparent) WHERE a.attname = 'note' AND i.inhparent = 'qml.history'::regclass", 'altered'),
	't', 'altered tables: where its number is not the same in all of them');
# Where there is no partition, by way of the overflow, which has none of these columns.
query($node, <<'SQL', 'altered');
INSERT INTO qml.history_overflow (id, created_at, queue_id, priority, state, attempt, uncounted, max_retries, lineage, timeout_ms, created_by, finished_at, expires_at, method, payload, note, weight)
	SELECT '01890000-0000-7000-a000-000000000001', created_at, queue_id, priority, state, attempt, uncounted, max_retries, lineage, timeout_ms, created_by, finished_at, expires_at, 'moved', payload, 'kept', 9
	FROM qml.history WHERE method = 'noted' LIMIT 1;
SQL
wait_for('the scheduler to empty the overflow', sub { query($node, 'SELECT qml_maintain(); SELECT count(*) FROM qml.history_overflow', 'altered') =~ /^0$/m });
is(query($node, "SELECT note, weight, mine IS NULL FROM qml.history WHERE method = 'moved'", 'altered'), 'kept|9|t', 'altered tables: out of the overflow');
end_loads('altered tables');
query($node, 'DROP DATABASE altered WITH (FORCE)');

# A dump of the older version has partitions of that version.
query($node, 'CREATE DATABASE restored');
query($node, "CREATE EXTENSION qml VERSION '1.0'", 'restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'it is restored where that version was created');
query($node, 'ALTER EXTENSION qml UPDATE; SELECT qml_adopt()', 'restored');
is(walk($node, 'restored', 1), walked(1), 'and updated');
query($node, 'DROP DATABASE restored WITH (FORCE)');

# ---- what cannot be served

# Changes the SQL objects, and what is said of it; then back: the scheduler must be there
# at once.
sub refused
{
	my ($name, $version, $detail, $hint) = @_;

	query($node, "ALTER EXTENSION qml UPDATE TO '$version'", 'older');
	my $stderr = fails_with($node, '55000', "SELECT qml_enqueue('m')", "$name: refused", dbname => 'older');
	like($stderr, $detail, "$name: what is wrong");
	like($stderr, $hint, "$name: what to do");
	wait_without($node, 'older');
	query($node, "ALTER EXTENSION qml UPDATE TO '1.1'", 'older');
	my $took = seconds_until("$name: the scheduler", sub { process($node, 'scheduler', 'older') });
	cmp_ok($took, '<', 10, sprintf('%s: afterwards the scheduler is back at once (%.1f s)', $name, $took));
	return;
}

my $restart = qr/^HINT:  Restart the server to load the new library, or reconnect if qml is not preloaded\.$/m;
refused('a default that is no constant', '1.8', qr/column "since" of table "qml\.live" is not known to the library/, $restart);
refused('a column of another name', '1.9',
	qr/table "qml\.live" does not have the columns that the library expects\nDETAIL:  Column \d+ must be "payload" of type jsonb\./, $restart);
refused('a newer major version', '2.0', qr/extension "qml" has version 2\.0, but the library has version 1\.1/, $restart);
query($node, "UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'qml'; UPDATE qml.instance_data SET adopted_at = adopted_at", 'older');
like(fails_with($node, '55000', "SELECT qml_enqueue('m')", 'an older major version: refused', dbname => 'older'),
	qr/has version 0\.9, but the library has version 1\.1\nHINT:  Run ALTER EXTENSION qml UPDATE\./, 'an older major version: what to do');
wait_without($node, 'older');
query($node, 'ALTER EXTENSION qml UPDATE', 'older');
my $took = seconds_until('the scheduler', sub { process($node, 'scheduler', 'older') });
cmp_ok($took, '<', 10, sprintf('an older major version: updated, the scheduler is back at once (%.1f s)', $took));
start_loads($node, 'older');
all_goes_on($node, 'older', 'after all that');
is(walk($node, 'older', 1), walked(1), 'after all that: jobs');
end_loads('after all that');

# A partition of somebody's own, with its columns in another order.
my $leaf = expired_leaf($node, -300, 0);
query($node, <<"SQL");
ALTER TABLE qml.history DETACH PARTITION qml.$leaf;
ALTER TABLE qml.$leaf DROP COLUMN method, ADD COLUMN method text NOT NULL;
SELECT format('ALTER TABLE qml.history ATTACH PARTITION qml.$leaf FOR VALUES FROM (%L) TO (%L)', date_trunc('day', now(), 'UTC') + interval '299 days', date_trunc('day', now(), 'UTC') + interval '300 days') \\gexec
SQL
like(fails_with($node, '55000', 'SELECT qml_job(gen_random_uuid())', 'a partition with other columns is not used'),
	qr/table "qml\.$leaf" does not have the columns/, 'and named');
query($node, "DROP TABLE qml.$leaf");
$node->stop;

# ---- not preloaded: each session has the library that was there when it first used qml

$tree = install_copy();
$node = node_of('on_demand', $tree);
my $old = new_session($node, 'postgres');
$old->query_safe("SELECT qml_create_queue('walk'), qml_enqueue('m', queue => 'q')");
install_next($tree);
my $new = new_session($node, 'postgres');
is($new->query_safe("SELECT (qml_job(qml_enqueue('n', queue => 'q'))).method"), 'n', 'new library, older SQL objects: a new session');
is($old->query_safe("SELECT method FROM qml_fetch('w', '{q}')"), 'm', 'the old session goes on');
$new->query_safe('ALTER EXTENSION qml UPDATE');
$new->query_safe("UPDATE qml.live SET weight = 5 WHERE method = 'n'");
is($old->query_safe("SELECT f.method, f.note IS NULL, qml_succeed(f.id, f.attempt) FROM qml_fetch('w', '{q}') f"), 'n|t|t', 'old library, newer SQL objects: the old session goes on');
is($new->query_safe("SELECT weight FROM qml.history WHERE method = 'n'"), 5, 'and keeps what it does not know');
is($old->query_safe("SELECT qml_enqueue('o', queue => 'q') IS NOT NULL"), 't', 'it enqueues');
is($new->query_safe("SELECT f.method, f.note, qml_succeed(f.id, f.attempt) FROM qml_fetch('w', '{q}') f"), 'o||t', 'the new session takes it');
like(fails_with($node, '55000', "ALTER EXTENSION qml UPDATE TO '1.2'", 'a script that needs a newer library'), qr/version 1\.1 is loaded/, 'says so');
is($new->query_safe("SELECT extversion FROM pg_extension WHERE extname = 'qml'"), '1.1', 'the version is as it was');
$_->quit foreach $old, $new;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|was terminated by signal/, 'no process crashed');

done_testing();
