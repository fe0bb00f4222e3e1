# A dump keeps jobs, queues, handlers, hooks, middleware, rights and locks; what is restored or copied from
# it is the same and does no work until it is adopted.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

my @TABLES = qw(live history history_overflow live_unlogged history_unlogged history_unlogged_overflow queue_data handler_data hook_data middleware_data acl_data lock_data);
my $dir = PostgreSQL::Test::Utils::tempdir;

my $node = new_node('dump', bare => 1);
my $other = new_node('other', bare => 1);

# The roles of a server come with pg_dumpall --globals-only.
query($_, 'CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE nobody; CREATE ROLE runner LOGIN; CREATE ROLE lost LOGIN') foreach $node, $other;
query($node, 'CREATE DATABASE source');

# Jobs in every state, with everything that a job can have.
query($node, <<'SQL', 'source');
CREATE EXTENSION qml;
SELECT qml_create_queue('mail', '{"max_retries": 3, "retry": {"strategy": "fixed", "delay": "1 min"}}');
SELECT qml_create_queue('short', '{"failed_ttl": "2 days", "succeeded_ttl": "1 h"}');
SELECT qml_create_queue('empty');
SELECT qml_create_queue('thumbnails', '{"storage": "unlogged"}');
SELECT qml_drop_queue('empty');
SELECT qml_pause_queue('short');
SELECT qml_grant('alice', 'enqueue', 'mail');
SELECT qml_grant('alice', 'work');
SELECT qml_grant('bob', 'monitor');
GRANT EXECUTE ON FUNCTION qml_maintain() TO bob;
REVOKE EXECUTE ON FUNCTION qml_counts() FROM PUBLIC;
CREATE SCHEMA zoo;
CREATE TYPE zoo.mood AS ENUM ('sad', 'happy');
CREATE FUNCTION zoo.feed(animal text, mood zoo.mood DEFAULT 'sad') RETURNS void LANGUAGE sql AS '';
CREATE PROCEDURE zoo.close(jsonb) LANGUAGE sql AS '';
GRANT USAGE ON SCHEMA zoo TO runner;
SELECT qml_register_handler('feed', 'zoo.feed', '{"run_as": "runner", "queue": "short", "max_retries": 9}');
SELECT qml_register_handler('close', 'zoo.close');
-- A role that has lost what it had.
SELECT qml_grant('lost', 'admin'), qml_register_handler('lost', 'zoo.close', '{"run_as": "lost"}');
DROP OWNED BY lost;
CREATE TABLE zoo.diary (job uuid, state qml.job_state);
CREATE FUNCTION zoo.note(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS 'INSERT INTO zoo.diary VALUES (job.id, new)';
CREATE FUNCTION zoo.sulk(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$no$$; END';
CREATE FUNCTION zoo.guard(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT public.qml_next()';
REVOKE EXECUTE ON FUNCTION zoo.note FROM PUBLIC;
SELECT qml_register_hook('diary', 'zoo.note', '{enqueued,deleted}');
REVOKE EXECUTE ON FUNCTION zoo.sulk FROM PUBLIC;
SELECT qml_register_hook('sulk', 'zoo.sulk');
CREATE FUNCTION zoo.later(event jsonb) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_hook('later', 'zoo.later', '{deleted}', '{"after_commit": true}');
UPDATE qml.hook_data SET errors = 5, broken = true, last_error = 'no', last_error_at = now() WHERE name = 'sulk';
SELECT qml_register_middleware('tracing', 'qml_tracing', -1);
REVOKE EXECUTE ON FUNCTION zoo.guard FROM PUBLIC;
SELECT qml_register_middleware('guard', 'zoo.guard', 7);
SELECT qml_try_lock('report', 'w1', '1 h');
SELECT qml_try_lock('other', 'w1', '1 h');
SELECT qml_unlock('other', 'w1');

SELECT qml_enqueue('send', jsonb_build_object('to', n, 'quote', E'it''s \\ "x"' || chr(9) || 'é'),
	'mail', n % 3, metadata => '{"trace": "00-ab"}', job_type => 'mail', timeout => '42 s')
FROM generate_series(1, 40) n;
SELECT qml_enqueue('later', queue => 'mail', run_at => now() + interval '1 day');
SELECT qml_delete(qml_enqueue('gone', queue => 'mail'), 'not needed');
SELECT qml_succeed(id, attempt, '{"sent": true}') FROM qml_fetch('w1', '{mail}', 10);
SELECT qml_fail(id, attempt, 'oops', '57014', 'at line 1') FROM qml_fetch('w1', '{mail}', 5);
SELECT qml_fail(id, attempt, 'never', retry => false) FROM qml_fetch('w1', '{mail}', 5);
SELECT qml_release(id, attempt) FROM qml_fetch('w1', '{mail}', 2);
SELECT qml_progress(id, attempt, '{"percent": 10}') FROM qml_fetch('w1', '{mail}', 7, '1 h');
SELECT qml_resume_queue('short');
SELECT qml_enqueue('brief', queue => 'short') FROM generate_series(1, 4);
SELECT qml_fail(id, attempt, 'never', retry => false) FROM qml_fetch('w1', '{short}', 2);
SELECT qml_succeed(id, attempt) FROM qml_fetch('w1', '{short}', 2);
SELECT qml_enqueue('shrink', '{"to": 64}', 'thumbnails', n % 3) FROM generate_series(1, 9) n;
SELECT qml_succeed(id, attempt, '{"shrunk": true}') FROM qml_fetch('w1', '{thumbnails}', 2);
SELECT qml_fail(id, attempt, 'never', retry => false) FROM qml_fetch('w1', '{thumbnails}', 2);
SELECT qml_progress(id, attempt, '{"percent": 10}') FROM qml_fetch('w1', '{thumbnails}', 2, '1 h');
-- Some that finished when their partition could not be used.
INSERT INTO qml.history_unlogged_overflow SELECT (jsonb_populate_record(h, jsonb_build_object('id', gen_random_uuid()))).* FROM qml.history_unlogged h LIMIT 3;
INSERT INTO qml.history_overflow SELECT (jsonb_populate_record(h, jsonb_build_object('id', gen_random_uuid()))).* FROM qml.history h LIMIT 5;
SQL

# A table's rows as one text: their number and a fingerprint.
sub rows
{
	my ($server, $dbname, $table) = @_;
	return ask($server,
		"SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM qml.$table t",
		$dbname);
}

sub contents
{
	my ($server, $dbname) = @_;
	return map { $_ => rows($server, $dbname, $_) } @TABLES;
}

# Who may do what, by catalog: functions, tables and the extension's own rights.
sub rights
{
	my ($server, $dbname) = @_;
	return ask($server, <<'SQL', $dbname);
SELECT p.oid::regprocedure::text, a.grantee::regrole::text, a.privilege_type
FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
WHERE p.proname LIKE 'qml\_%' OR p.pronamespace = 'qml'::regnamespace
UNION ALL
SELECT c.oid::regclass::text, a.grantee::regrole::text, a.privilege_type
FROM pg_class c, aclexplode(coalesce(relacl, acldefault('r', relowner))) a
WHERE c.relnamespace = 'qml'::regnamespace AND c.relkind IN ('r', 'p', 'v')
ORDER BY 1, 2, 3
SQL
}

my %original = contents($node, 'source');
my $rights = rights($node, 'source');
my $states = query($node, 'SELECT string_agg(DISTINCT state::text, $$ $$) FROM qml.job', 'source');

is($states, 'awaiting_retry deleted enqueued failed processing scheduled succeeded',
	'there is a job in every state');
cmp_ok(query($node, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'qml.history'::regclass",
		'source'), '>=', 3, 'the history has partitions');

# Runs a program and asserts that it says nothing on stderr.
sub runs_silently
{
	my ($name, $server, @command) = @_;
	local %ENV = $server->_get_env();
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err);

	ok($ok && $err eq '', $name) or diag(substr $err, 0, 2000);
	return;
}

sub dump_to
{
	my ($file, @options) = @_;
	runs_silently("pg_dump @options", $node, 'pg_dump', '-f', "$dir/$file", @options, 'source');
	return "$dir/$file";
}

# A copy is complete, idle until it is adopted, and complete after that.
sub check_copy
{
	my ($name, $server, $dbname, %arg) = @_;
	my $idle = 'is a copy: 55000';
	my %copy = contents($server, $dbname);

	foreach my $table (@TABLES)
	{
		next if $table =~ /^history(_unlogged)?$/ && $arg{no_history};
		is($copy{$table}, $original{$table}, "$name: table $table is as it was");
	}
	is(rights($server, $dbname), $rights, "$name: the rights are kept") unless $arg{fresh_rights};

	fails_with($server, '55000', "SELECT * FROM $_", "$name: $_ $idle", dbname => $dbname)
	  foreach 'qml_fetch()', 'qml_promote_due()', 'qml_reclaim()', 'qml_cleanup()',
	  'qml_maintain()';
	my %untouched = contents($server, $dbname);
	is($untouched{$_}, $original{$_}, "$name: nothing was worked in $_") foreach 'live', 'live_unlogged';

	# hooks and middleware can be called if their functions are there; what was switched off stays so
	is(ask($server, "SELECT string_agg(name, ' ' ORDER BY name) FROM qml.hook WHERE problem IS NOT NULL", $dbname),
		$arg{fresh_rights} ? 'diary later sulk' : '', "$name: those whose functions are missing say so");
	is(ask($server, "SELECT string_agg(name, ' ' ORDER BY name) FROM qml.hook WHERE broken", $dbname),
		'sulk', "$name: one that was switched off is that");
	is(ask($server, "SELECT string_agg(name, ' ' ORDER BY position) FROM qml.middleware WHERE problem IS NULL", $dbname),
		$arg{fresh_rights} ? 'tracing' : 'tracing guard', "$name: and middleware");
	if ($arg{fresh_rights})
	{
		ask($server, "SELECT qml_unregister_hook('diary')", $dbname);
	}
	else
	{
		ask($server, q{SELECT qml_enqueue('hooked', queue => 'mail')}, $dbname);
		is(ask($server, "SELECT count(*) FROM zoo.diary d JOIN qml.job j ON j.id = d.job WHERE j.method = 'hooked' AND d.state = 'enqueued'", $dbname),
			1, "$name: a hook is called");
		ask($server, q{SELECT qml_delete(id) FROM qml.job WHERE method = 'hooked'}, $dbname);
		is(ask($server, q{SELECT count(*) FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id WHERE q.name = 'qml.hooks' AND l.payload #>> '{job,method}' = 'hooked'}, $dbname),
			1, "$name: a hook after the commit will be");
	}

	my $processing = ask($server, "SELECT count(*) FROM qml.job WHERE state = 'processing'", $dbname);
	cmp_ok($processing, '>', 0, "$name: jobs were processing");
	ask($server, 'SELECT qml_adopt()', $dbname);
	is(ask($server, "SELECT count(*) FROM qml.job WHERE state = 'processing'", $dbname),
		0, "$name: none is processing after adoption");
	is(ask($server, "SELECT count(*) FROM qml.job WHERE attempt > 0 AND state = 'enqueued'", $dbname)
		  >= $processing, 1, "$name: they are enqueued, with their attempts");
	is(ask($server, "SELECT count(*) FROM qml_fetch('w2', '{mail}', 3)", $dbname),
		3, "$name: it works after adoption");
	is(ask($server, "SELECT count(*), max(tries) FROM qml_fetch('w2', '{thumbnails}', 9)", $dbname),
		'5|2', "$name: with jobs that are unlogged, too");
	is(ask($server, "SELECT qml_maintain() IS NOT NULL", $dbname), 't', "$name: maintenance, too");
	is(ask($server, 'SELECT count(*) FROM qml.instance_data', $dbname),
		1, "$name: it belongs to one place");

	# what a handler calls comes with the dump, or from elsewhere
	is(ask($server, "SELECT count(problem) FROM qml.handler WHERE method <> 'lost'", $dbname),
		$arg{fresh_rights} ? 2 : 0, "$name: handlers can be called if their functions are there");
	# whom the server knows to have something of qml's
	is(ask($server, <<'SQL', $dbname), $arg{fresh_rights} ? '' : 'alice bob runner', "$name: and roles are marked");
SELECT string_agg(DISTINCT grantee::regrole::text, ' ' ORDER BY grantee::regrole::text)
FROM pg_class, aclexplode(relacl) WHERE relname LIKE '%see_qml_drop_role_objects' AND grantee <> relowner
SQL
	like(ask($server, "SELECT problem FROM qml.handler WHERE method = 'lost'", $dbname), qr/"lost", has lost it by DROP OWNED/,
		"$name: what was revoked stays so");
	is(ask($server, "SELECT string_agg(grantee, ' ' ORDER BY grantee) FROM qml.acl WHERE problem IS NOT NULL", $dbname),
		$arg{fresh_rights} ? 'alice alice bob lost' : 'lost', "$name: and so do capabilities");
	is(ask($server, "SELECT run_as FROM qml.handler WHERE method = 'feed'", $dbname),
		'runner', "$name: it runs as the same role");
	if (!$arg{fresh_rights})
	{
		fails_with($server, 'QM008', q(SELECT qml_enqueue('feed', '{"animal": "ape", "mood": "mad"}')),
			"$name: payloads are checked", dbname => $dbname);
		fails_with($server, '55000', 'SET ROLE runner; SELECT qml_discard()',
			"$name: their role has its rights", dbname => $dbname);
	}

	# sequences go on where they were
	is(ask($server, <<'SQL', $dbname), 't', "$name: ids of queues and fences go on");
WITH was AS (SELECT max(id) AS id FROM qml.queue_data),
made AS (SELECT qml_create_queue('fresh ' || was.id) FROM was)
SELECT (SELECT count(*) FROM made) = 1
	AND qml_try_lock('new', 'w', '1 s') > (SELECT max(fence) FROM qml.lock_data WHERE resource = 'report')
SQL
	is(ask($server, "SELECT count(*), count(DISTINCT id) FROM qml.queue_data", $dbname),
		'6|6', "$name: a new queue has an id of its own");
	is(ask($server, "SELECT string_agg(a.grantee::regrole::text, ' ' ORDER BY a.grantee) FROM pg_proc, aclexplode(proacl) a"
			  . " WHERE oid = 'qml_maintain()'::regprocedure AND a.grantee <> proowner", $dbname),
		'- bob', "$name: a privilege given by hand is kept") unless $arg{fresh_rights};
	is(ask($server, "SELECT has_function_privilege('nobody', 'qml_counts()', 'EXECUTE'), has_function_privilege('nobody', 'qml_job(uuid)', 'EXECUTE')",
			$dbname),
		$arg{fresh_rights} ? 't|t' : 'f|t', "$name: and so is one that was taken away by hand");
	fails_with($server, '42501', 'SET ROLE nobody; SELECT * FROM qml_fetch()',
		"$name: who had no right has none", dbname => $dbname);
	is(query($server, "SET ROLE alice; SELECT count(*) FROM qml_fetch('w', '{mail}')", $dbname),
		1, "$name: who had the right has it") unless $arg{fresh_rights};
	end_sessions($server);
	return;
}

# Everything, as SQL.
my $plain = dump_to('plain.sql');
query($node, 'CREATE DATABASE plain');
runs_silently('restore of plain', $node, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
	'-o', '/dev/null', '-f', $plain, 'plain');
check_copy('plain', $node, 'plain');

# Where tables are open to others by default, the partitions are until the adoption.
query($node, 'CREATE DATABASE opened');
query($node, 'ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO nobody, PUBLIC', 'opened');
runs_silently('restore where tables are open', $node, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
	'-o', '/dev/null', '-f', $plain, 'opened');
like(rights($node, 'opened'), qr/^qml\.history_p\d+\|nobody\|INSERT$/m, 'partitions were restored open');
ask($node, 'SELECT qml_adopt()', 'opened');
is(rights($node, 'opened'), $rights, 'the adoption closes them');
end_sessions($node);

# Everything, as an archive, here and on another server.
my $custom = dump_to('custom.dump', '-Fc');
foreach my $server ($node, $other)
{
	my $name = 'custom, ' . $server->name;
	query($server, 'CREATE DATABASE custom');
	runs_silently("restore of $name", $server, 'pg_restore', '--exit-on-error', '-d', 'custom', $custom);
	check_copy($name, $server, 'custom');
}

# pg_upgrade, here to the same version: everything is there, and counts as a copy.
{
	my $upgraded = background_node('upgraded', stopped => 1);
	my %was = contents($other, 'custom');
	my $was_allowed = rights($other, 'custom');
	my $bindir = $other->config_data('--bindir');
	my ($out, $err) = ('', '');

	end_sessions($other);
	$other->append_conf('postgresql.conf', "shared_preload_libraries = 'qml'");
	$other->stop;
	my $ok = IPC::Run::run(
		[
			'pg_upgrade', '--no-sync', '-b', $bindir, '-B', $bindir, '-d', $other->data_dir,
			'-D', $upgraded->data_dir, '-s', $upgraded->host, '-p', $other->port, '-P', $upgraded->port
		],
		'<', \undef, '>', \$out, '2>', \$err,
		init => sub { chdir $dir });
	ok($ok, 'pg_upgrade') or diag(substr "$out$err", -2000);
	$upgraded->start;
	is_deeply({ contents($upgraded, 'custom') }, \%was, 'pg_upgrade: the tables are as they were');
	is(rights($upgraded, 'custom'), $was_allowed, 'pg_upgrade: the rights are kept');
	wait_for('the log', sub { slurp_file($upgraded->logfile) =~ /WARNING:  the jobs in database "custom" are a copy/ });
	fails_with($upgraded, '55000', "SELECT * FROM $_", "pg_upgrade: $_ is refused", dbname => 'custom')
	  foreach 'qml_fetch()', 'qml_maintain()';
	ok(!defined process($upgraded, 'scheduler', 'custom'), 'pg_upgrade: there is no scheduler');
	query($upgraded, 'SELECT qml_adopt()', 'custom');
	wait_for_process($upgraded, 'scheduler', 'custom');
	is(query($upgraded, "SELECT count(*) FROM qml_fetch('w2', '{mail}', 3)", 'custom'), 3, 'pg_upgrade: it works after adoption');
	is(query($upgraded, "SELECT count(*) FROM qml_fetch('w3', '{thumbnails}', 9)", 'custom'), 5, 'pg_upgrade: with jobs that are unlogged, too');
	end_sessions($upgraded);
	$upgraded->stop;
}

# Everything, with two processes.
my $directory = dump_to('directory', '-Fd', '-j2');
query($node, 'CREATE DATABASE directory');
runs_silently('restore of directory', $node, 'pg_restore', '--exit-on-error', '-j2', '-d',
	'directory', $directory);
check_copy('directory', $node, 'directory');

# Definitions and data one after the other.
my $schema = dump_to('schema.sql', '--schema-only');
my $data = dump_to('data.sql', '--data-only');
query($node, 'CREATE DATABASE pair');
runs_silently("restore of $_", $node, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
	'-o', '/dev/null', '-f', $_, 'pair')
  foreach $schema, $data;
check_copy('schema, then data', $node, 'pair');

# Only the data, into an extension that is there already: all but the finished
# jobs, whose partitions such a dump does not make, and the rights on functions.
$data = dump_to('live.sql', '--data-only', '--exclude-table=qml.history_p*', '--exclude-table=qml.history_unlogged_p*', '--exclude-table=zoo.*');
query($node, 'CREATE DATABASE data');
query($node, 'CREATE EXTENSION qml', 'data');
runs_silently('restore of data only', $node, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
	'-o', '/dev/null', '-f', $data, 'data');
check_copy('data only', $node, 'data', fresh_rights => 1, no_history => 1);

# Where qml is preloaded, the scheduler works in the new database while it is restored: what
# comes next must not be there already.
{
	my $busy = background_node('busy', bare => 1);
	query($busy, 'CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE nobody; CREATE ROLE runner LOGIN; CREATE ROLE lost LOGIN');
	query($busy, 'CREATE DATABASE busy');
	query($busy, 'CREATE EXTENSION qml', 'busy');
	sleeping_scheduler($busy);
	runs_silently('restore where a scheduler is at work', $busy, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
		'-o', '/dev/null', '-f', $plain, 'busy');
	is(query($busy, 'SELECT count(*) FROM qml.history', 'busy'), query($node, 'SELECT count(*) FROM qml.history', 'source'),
		'the finished jobs are there');
	fails_with($busy, '55000', 'SELECT * FROM qml_fetch()', 'the copy is idle', dbname => 'busy');
	$busy->stop;
}

# A copy of the files.
end_sessions($node);
query($node, 'CREATE DATABASE clone TEMPLATE source');
check_copy('template', $node, 'clone');

# The source has not noticed.
my %now = contents($node, 'source');
is_deeply(\%now, \%original, 'the source is as it was');
is(query($node, "SELECT count(*) FROM qml_fetch('w', '{mail}')", 'source'),
	1, 'the source goes on working');

# A copy of a copy is one, too.
end_sessions($node);
query($node, 'CREATE DATABASE clone2 TEMPLATE clone');
fails_with($node, '55000', 'SELECT * FROM qml_fetch()', 'a copy of a copy is idle',
	dbname => 'clone2');

# Another name makes it no other database.
query($node, 'ALTER DATABASE clone RENAME TO renamed');
is(query($node, "SELECT count(*) FROM qml_fetch('w', '{mail}')", 'renamed'),
	1, 'a database may be renamed');

# In a schema of its own, roles are let in where they were not: of a copy, too, it is
# known whom qml let in, and whom somebody else.
query($node, 'CREATE DATABASE apart');
query($node, <<'SQL', 'apart');
CREATE SCHEMA jobs;
CREATE EXTENSION qml SCHEMA jobs;
GRANT USAGE ON SCHEMA jobs TO bob;
SELECT jobs.qml_grant(r::regrole, 'work') FROM unnest(ARRAY['alice', 'bob']) r;
SQL
query($node, 'CREATE DATABASE apart_copy');
runs_silently('pg_dump of a schema of its own', $node, 'pg_dump', '-f', "$dir/apart.sql", 'apart');
runs_silently('restore of it', $node, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-o',
	'/dev/null', '-f', "$dir/apart.sql", 'apart_copy');
foreach my $dbname ('apart', 'apart_copy')
{
	my $who = "SELECT string_agg(r, ' ') FROM unnest(ARRAY['alice', 'bob']) r"
	  . " WHERE has_schema_privilege(r, 'jobs', 'USAGE')";

	is(query($node, $who, $dbname), 'alice bob', "$dbname: both may use the schema");
	query($node,
		"SELECT jobs.qml_revoke(r::regrole, 'work') FROM unnest(ARRAY['alice', 'bob']) r",
		$dbname);
	is(query($node, $who, $dbname), 'bob', "$dbname: who was let in by hand still may");
}

done_testing();
