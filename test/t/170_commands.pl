# Commands: statements that a function cannot run, at the top level of a worker, as their
# role; their results and errors; what they leave behind; what ends them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $node = background_node('commands', conf => <<'CONF');
autovacuum = off
max_worker_processes = 24
qml.workers = 2
qml.shutdown_timeout = 1s
wal_level = logical
CONF
wait_for_process($node, 'scheduler', 'postgres');

query($node, <<'SQL');
CREATE ROLE ann LOGIN;
SELECT qml_grant('ann', 'admin'), qml_grant('ann', 'enqueue');
GRANT CREATE ON SCHEMA public TO ann;
SET ROLE ann;
CREATE TABLE t (id int PRIMARY KEY, note text);
INSERT INTO t SELECT n, 'x' FROM generate_series(1, 100) n;
CREATE TABLE ran (what text, su name DEFAULT session_user, cu name DEFAULT current_user, pid int DEFAULT pg_backend_pid());
SQL

# Registers a statement as ann, or as another role.
sub command
{
	my ($method, $statement, $options, $role) = @_;
	$options //= '{}';
	$role //= 'ann';
	query($node, "SET ROLE $role; SELECT qml_register_command('$method', \$command\$$statement\$command\$, '$options')");
	return;
}

# Registers a statement, and runs it once: its outcome and its result.
sub ran
{
	my ($statement, $options, $role) = @_;
	command('once', $statement, $options, $role);
	my $id = enqueue($node, 'once');
	my $outcome = outcome_of($node, $id);
	return "$outcome " . ask($node, "SELECT coalesce(result::text, 'none') FROM qml_job('$id')");
}

# ---- what no function can run

foreach my $case (
	[ 'VACUUM (FREEZE, ANALYZE) t', 'VACUUM' ],
	[ 'vacuum full t;', 'VACUUM' ],
	[ 'CREATE INDEX CONCURRENTLY t_note ON t (note)', 'CREATE INDEX' ],
	[ 'REINDEX TABLE CONCURRENTLY t -- all of its indexes', 'REINDEX' ],
	[ 'DROP INDEX CONCURRENTLY t_note', 'DROP INDEX' ])
{
	my ($statement, $tag) = @$case;
	is(ran($statement), qq(succeeded|1 {"tag": "$tag"}), $statement);
}
is(ran('CREATE DATABASE made TEMPLATE template0', '{}', 'NONE'), 'succeeded|1 {"tag": "CREATE DATABASE"}', 'CREATE DATABASE');
is(ask($node, q{SELECT count(*) FROM pg_database WHERE datname = 'made'}), 1, 'the database is there');
is(ran('DROP DATABASE made', '{}', 'NONE'), 'succeeded|1 {"tag": "DROP DATABASE"}', 'DROP DATABASE');
is(ran(q{ALTER SYSTEM SET work_mem = '5MB'}, '{}', 'NONE'), 'succeeded|1 {"tag": "ALTER SYSTEM"}', 'ALTER SYSTEM');
query($node, 'ALTER SYSTEM RESET work_mem');
{
	my $dead = 'SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = \'t\'';
	query($node, q{UPDATE t SET note = 'y'});
	is(ran('VACUUM t'), 'succeeded|1 {"tag": "VACUUM"}', 'a vacuum after changes');
	wait_for('the dead rows to be gone: the worker itself holds no snapshot', sub { query($node, $dead) == 0 });
}

# ---- results

query($node, <<'SQL');
SET ROLE ann;
CREATE PROCEDURE parts(INOUT done int DEFAULT 0) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 3 LOOP
		INSERT INTO ran (what) VALUES ('part ' || i);
		COMMIT;
		done := done + 1;
	END LOOP;
END $$;
CREATE TABLE ruled (i int);
CREATE RULE nothing AS ON INSERT TO ruled DO INSTEAD NOTHING;
CREATE RULE more AS ON DELETE TO ruled DO ALSO INSERT INTO ran (what) VALUES ('by a rule');
SQL
foreach my $case (
	[ 'SELECT 1 AS one, date \'2026-03-25\' AS day', '{"row": {"day": "2026-03-25", "one": 1}, "tag": "SELECT", "rows": 1}' ],
	[ 'SELECT id FROM t', '{"tag": "SELECT", "rows": 100}' ],
	[ 'SELECT id FROM t WHERE false', '{"tag": "SELECT", "rows": 0}' ],
	[ 'TABLE t LIMIT 2', '{"tag": "SELECT", "rows": 2}' ],
	[ 'SELECT', '{"row": {}, "tag": "SELECT", "rows": 1}' ],
	[ 'SELECT t FROM t WHERE id = 7', '{"row": {"t": {"id": 7, "note": "y"}}, "tag": "SELECT", "rows": 1}' ],
	[ q{UPDATE t SET note = 'z' WHERE id > 90}, '{"tag": "UPDATE", "rows": 10}' ],
	[ 'DELETE FROM t WHERE id = 100 RETURNING note', '{"row": {"note": "z"}, "tag": "DELETE", "rows": 1}' ],
	[ 'INSERT INTO t VALUES (100), (101)', '{"tag": "INSERT", "rows": 2}' ],
	[ 'WITH w AS (DELETE FROM t WHERE id = 101 RETURNING id) SELECT id FROM w', '{"row": {"id": 101}, "tag": "SELECT", "rows": 1}' ],
	[ 'INSERT INTO ruled VALUES (1)', '{"tag": "INSERT", "rows": 0}' ],
	[ 'DELETE FROM ruled', '{"tag": "DELETE", "rows": 0}' ],
	[ 'SHOW client_encoding', '{"row": {"client_encoding": "UTF8"}, "tag": "SHOW", "rows": 1}' ],
	[ 'EXPLAIN (COSTS OFF) SELECT 1', '{"row": {"QUERY PLAN": "Result"}, "tag": "EXPLAIN", "rows": 1}' ],
	[ 'CALL parts()', '{"row": {"done": 3}, "tag": "CALL", "rows": 1}' ],
	[ q{DO $$ BEGIN INSERT INTO ran (what) VALUES ('do'); COMMIT; END $$}, '{"tag": "DO"}' ],
	[ 'CREATE TABLE copied AS SELECT id FROM t', '{"tag": "SELECT", "rows": 100}' ],
	[ q{NOTIFY heard, 'you'}, '{"tag": "NOTIFY"}' ],
	[ 'CHECKPOINT', '{"tag": "CHECKPOINT"}', 'NONE' ])
{
	my ($statement, $result, $role) = @$case;
	is(ran($statement, '{}', $role), "succeeded|1 $result", $statement);
}
is(ask($node, q{SELECT string_agg(what, ', ' ORDER BY what) FROM ran}), 'by a rule, do, part 1, part 2, part 3', 'all of it was done');
is(ask($node, q{SELECT DISTINCT su || ' ' || cu FROM ran}), 'ann ann', 'as the role, in a session of its own');

# A row that cannot be stored is no error of a statement that has done its work.
query($node, <<'SQL');
SET ROLE ann;
CREATE TABLE large (id int, doc text);
CREATE PROCEDURE large(INOUT doc text DEFAULT '') LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO large VALUES (1);
	COMMIT;
	doc := repeat('x', 3000000);
END $$;
-- Its conversion writes, and then fails or does not end.
CREATE TYPE spoiled AS ENUM ('error', 'sleep');
CREATE FUNCTION spoil_json(s spoiled) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO large VALUES (9);
	IF s = 'sleep' THEN PERFORM pg_sleep(60); END IF;
	RAISE '%', repeat('"x', 1000);
END $$;
SQL
query($node, 'CREATE CAST (spoiled AS json) WITH FUNCTION spoil_json(spoiled)');
my $too_large = '"row_error": "the row is too large: qml.max_payload_size allows 1048576 bytes"';
foreach my $case (
	[ q{SELECT repeat('x', 2000000)}, qq({"tag": "SELECT", "rows": 1, $too_large}) ],
	[ q{SELECT repeat('x', 20000000)}, qq({"tag": "SELECT", "rows": 1, $too_large}) ],
	[ q{SELECT repeat('x', 2000000) FROM generate_series(1, 2)}, '{"tag": "SELECT", "rows": 2}' ],
	[ 'CALL large()', qq({"tag": "CALL", "rows": 1, $too_large}) ],
	[ q{INSERT INTO large VALUES (2) RETURNING json '{"a":"\u0000"}'}, '{"tag": "INSERT", "rows": 1, "row_error": "unsupported Unicode escape sequence"}' ],
	[ q{INSERT INTO large VALUES (3) RETURNING spoiled 'error'},
		'{"tag": "INSERT", "rows": 1, "row_error": "' . ('\"x' x 123) . '\"... [cut]"}' ],
	[ q{INSERT INTO large VALUES (4), (5) RETURNING spoiled 'error'}, '{"tag": "INSERT", "rows": 2}' ],
	[ q{INSERT INTO large SELECT 6, string_agg(sha512(n::text::bytea)::text, '') FROM generate_series(1, 2000) n RETURNING md5(doc), length(doc)},
		'{"row": {"md5": "MD5", "length": 260000}, "tag": "INSERT", "rows": 1}' ])
{
	my ($statement, $result) = @$case;
	my $got = ran($statement) =~ s/"md5": "[0-9a-f]{32}"/"md5": "MD5"/r;
	is($got, "succeeded|1 $result", $statement);
}
is(ask($node, 'SELECT string_agg(id::text, \' \' ORDER BY id) FROM large'), '1 2 3 4 5 6', 'all of it was done, and nothing of the conversions that failed');
is(ran('DELETE FROM large WHERE id = 6 RETURNING doc') =~ s/"doc": "[\\x0-9a-f]+"/"doc": "DOC"/r, 'succeeded|1 {"row": {"doc": "DOC"}, "tag": "DELETE", "rows": 1}', 'a row out of a TOAST table');
like(ran(q{INSERT INTO large VALUES (7) RETURNING spoiled 'sleep'}, '{"timeout": "300 ms"}'), qr/^failed\|1\|timeout\|/, 'its timeout ends a conversion as well');

# ---- the role

query($node, 'CREATE ROLE eve LOGIN; CREATE TABLE secret (i int)');
like(ran('DELETE FROM secret'), qr/^failed\|1\|42501\|permission denied for table secret/, 'it may do what the role may do');
foreach my $escape ('RESET ROLE', 'RESET SESSION AUTHORIZATION', 'SET ROLE NONE')
{
	is(ran(qq{DO \$\$ BEGIN $escape; INSERT INTO ran (what) VALUES ('after $escape'); END \$\$}), 'succeeded|1 {"tag": "DO"}', "$escape inside a block");
	is(ask($node, qq{SELECT su || ' ' || cu FROM ran WHERE what = 'after $escape'}), 'ann ann', 'leads nowhere');
}
foreach my $escape ('SET ROLE eve', 'SET SESSION AUTHORIZATION eve', 'SET SESSION AUTHORIZATION postgres')
{
	like(ran("DO \$\$ BEGIN $escape; END \$\$"), qr/^failed\|1\|(42501|22023)\|/, "$escape is refused");
}
# The right to run as a role is looked at before each run.
query($node, q{GRANT eve TO ann});
is(ran('SELECT session_user', '{"run_as": "eve"}'), 'succeeded|1 {"row": {"session_user": "eve"}, "tag": "SELECT", "rows": 1}', 'run_as');
query($node, q{REVOKE eve FROM ann});
job_is($node, 'once', '{}', 'failed|1|42501|handler "once" may not run as role "eve": Role "ann", which registered it, is not a member of that role.',
	'whoever registered it must still be a member');

# ---- errors and retries

like(ran('SELECT 1 / 0'), qr/^failed\|1\|22012\|division by zero none$/, 'an error is the end of it');
like(ran('VACUUM nonesuch'), qr/^failed\|1\|42P01\|relation "nonesuch" does not exist/, 'a table that is not there');
like(ran('SELECT 1 / 0', '{"max_retries": 1, "retry": {"strategy": "fixed", "delay": 0}}'), qr/^failed\|2\|22012/, 'unless retries are asked for');
command('once', 'SELECT 1 / 0');
job_is($node, 'once', '{}', 'failed|2|22012|division by zero', 'also by the job', q{max_retries => 1});
query($node, <<'SQL');
SET ROLE ann;
CREATE TABLE child (i int REFERENCES t DEFERRABLE INITIALLY DEFERRED);
CREATE PROCEDURE half() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ran (what) VALUES ('first half');
	COMMIT;
	INSERT INTO ran (what) VALUES ('second half');
	PERFORM 1 / 0;
END $$;
SQL
like(ran('INSERT INTO child VALUES (0)'), qr/^failed\|1\|23503/, 'a constraint that is checked at the commit');
is(ask($node, 'SELECT count(*) FROM child'), 0, 'the statement was undone');
like(ran('CALL half()'), qr/^failed\|1\|22012/, 'a procedure that fails after a COMMIT');
is(ask($node, q{SELECT string_agg(what, ', ') FROM ran WHERE what ~ 'half'}), 'first half', 'what it has committed stays');
like(ran('CREATE UNIQUE INDEX CONCURRENTLY t_twice ON t ((1))'), qr/^failed\|1\|23505/, 'CREATE INDEX CONCURRENTLY that fails');
is(ask($node, q{SELECT indisvalid FROM pg_index WHERE indexrelid = 't_twice'::regclass}), 'f', 'leaves what it leaves to any client');
is(ask($node, q{SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE backend_type = 'qml worker' AND locktype = 'relation'}), 0, 'and no lock');
is(ran('DROP INDEX t_twice'), 'succeeded|1 {"tag": "DROP INDEX"}', 'it is dropped');

# Enqueued while something else ran the method.
{
	query($node, q{SET ROLE ann; SELECT qml_unregister_handler('once')});
	my $id = enqueue($node, 'once', '{"a": 1}', q{run_at => now() + interval '1 h', max_retries => 3});
	command('once', 'SELECT 1');
	query($node, "SELECT qml_reschedule('$id', now())");
	is(outcome_of($node, $id), 'failed|1|QM008|a command takes no payload', 'a payload from before');
}

# The number of such a job was the default of its queue, unless it was asked for.
{
	query($node, q{SET ROLE ann; SELECT qml_unregister_handler('once'); SELECT qml_alter_queue('default', '{"max_retries": 3, "retry": {"strategy": "fixed", "delay": 0}}')});
	my @ids = map { enqueue($node, 'once', '{}', "run_at => now() + interval '1 h'$_") } ('', ', max_retries => 3', '');
	command('once', 'SELECT 1 / 0');
	query($node, "SELECT qml_reschedule('$_', now())") foreach @ids[0, 1];
	like(outcome_of($node, $ids[0]), qr/^failed\|1\|22012\|/, 'a number of retries that was a default');
	like(outcome_of($node, $ids[1]), qr/^failed\|4\|22012\|/, 'one that was asked for');
	command('once', 'SELECT 1 / 0', '{"max_retries": 1}');
	query($node, "SELECT qml_reschedule('$ids[2]', now())");
	like(outcome_of($node, $ids[2]), qr/^failed\|2\|22012\|/, 'a default, but the command asks for fewer');
	query($node, q{SET ROLE ann; SELECT qml_alter_queue('default', '{"max_retries": null, "retry": null}')});
}

# ---- what is asked for inside

query($node, 'SELECT qml_grant(\'ann\', \'work\')');
is(ran(q{SELECT (qml_current_job()).method}), 'succeeded|1 {"row": {"method": "once"}, "tag": "SELECT", "rows": 1}', 'it can look at its job');
like(ran(q{SELECT qml_discard('enough')}), qr/^deleted\|1/, 'and discard it');
command('once', q{SELECT qml_retry_later('1 h', 'not yet')});
{
	my $id = enqueue($node, 'once');
	is(wait_state($node, $id, 'awaiting_retry'), 'awaiting_retry|1', 'or put it off');
	query($node, "SELECT qml_delete('$id')");
}

# ---- what is left in the session

is(ran('CREATE TEMP TABLE scratch AS SELECT 1'), 'succeeded|1 {"tag": "SELECT", "rows": 1}', 'a temporary table');
is(ran(q{DO $$ BEGIN PERFORM set_config('work_mem', '77MB', false), pg_advisory_lock(42); EXECUTE 'PREPARE p AS SELECT 1'; EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'; END $$}),
	'succeeded|1 {"tag": "DO"}', 'a setting, a lock, a prepared statement, a cursor');
like(
	ran(q{SELECT to_regclass('scratch') AS t, current_setting('work_mem') AS s, (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS l,
	(SELECT count(*) FROM pg_prepared_statements) AS p, (SELECT count(*) FROM pg_cursors WHERE name = 'c') AS c}),
	qr/"row": \{"c": 0, "l": 0, "p": 0, "s": "4MB", "t": null\}/,
	'nothing of it is there for the next job');
is(ran(q{DO $$ BEGIN PERFORM pg_advisory_lock(43), set_config('work_mem', '78MB', false); COMMIT; RAISE 'now' USING ERRCODE = '22000'; END $$}), 'failed|1|22000|now none', 'the same before an error');
like(ran(q{SELECT current_setting('work_mem') AS s, (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS l}), qr/"row": \{"l": 0, "s": "4MB"\}/, 'is gone as well');
is(ran(q{DO $$ BEGIN SET standard_conforming_strings = off; END $$}), 'succeeded|1 {"tag": "DO"}', 'standard_conforming_strings');
query($node, 'ALTER ROLE ann SET standard_conforming_strings = off');
query($node, q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'qml worker'});
is(ran(q{SELECT 'a\\' AS a, ';' AS b}), 'succeeded|1 {"row": {"a": "a\\\\", "b": ";"}, "tag": "SELECT", "rows": 1}', 'a text means the same in all sessions');
query($node, 'ALTER ROLE ann RESET standard_conforming_strings');

# What the session is for replication: of a command, a function, a procedure, and after errors.
query($node, <<'SQL');
SELECT pg_replication_origin_create('elsewhere');
CREATE FUNCTION left_over() RETURNS void LANGUAGE sql BEGIN ATOMIC
	SELECT pg_replication_origin_session_setup('elsewhere');
	SELECT pg_create_physical_replication_slot('left_over', true, true);
END;
CREATE FUNCTION left_by_function() RETURNS void LANGUAGE sql AS 'SELECT left_over()';
CREATE PROCEDURE left_by_procedure() LANGUAGE plpgsql AS 'BEGIN PERFORM left_over(); COMMIT; END';
CREATE FUNCTION left_by_error() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM left_over(); RAISE 'now' USING ERRCODE = '22000'; END $$;
SELECT pg_create_logical_replication_slot('kept', 'pgoutput');
SELECT count(*) FROM (SELECT qml_register_handler(name, name, '{"max_retries": 0}') FROM unnest('{left_by_function,left_by_procedure,left_by_error}'::text[]) name) r;
SELECT qml_register_command('left_by_command', 'SELECT left_over()');
SELECT qml_register_command('left_by_failing', 'SELECT left_over(), 1 / (SELECT count(*) - count(*) FROM t)');
-- The slot is still acquired when the parameter that the plugin lacks is reported.
SELECT qml_register_command('left_acquired', 'SELECT pg_logical_slot_get_binary_changes(''kept'', NULL, NULL)');
SQL
foreach my $case (
	[ 'left_by_command', 'succeeded|1' ],
	[ 'left_by_failing', qr/^failed\|1\|22012/ ],
	[ 'left_by_function', 'succeeded|1' ],
	[ 'left_by_procedure', 'succeeded|1' ],
	[ 'left_by_error', qr/^failed\|1\|22000/ ],
	[ 'left_acquired', qr/^failed\|1\|/ ])
{
	my ($method, $outcome) = @$case;
	like(outcome_of($node, enqueue($node, $method)), ref $outcome ? $outcome : qr/^\Q$outcome\E$/, "$method leaves things of replication");
	is(ask($node, q{SELECT count(*) FROM pg_replication_slots WHERE temporary OR active}), 0, "$method: no slot");
	# It cannot be dropped while a session has it.
	is(ask($node, q{SELECT pg_replication_origin_drop('elsewhere') IS NULL}), 'f', "$method: no origin");
	query($node, q{SELECT pg_replication_origin_create('elsewhere')});
}
query($node, q{SELECT pg_drop_replication_slot('kept'), pg_replication_origin_drop('elsewhere')});

# ---- while it runs

# A vacuum that waits for a table; the holder of the table, and the job.
sub blocked
{
	my ($options, $more) = @_;
	my $holder = new_session($node);
	$holder->query_safe('BEGIN; LOCK TABLE t');
	command('blocked', 'VACUUM t', $options);
	my $id = enqueue($node, 'blocked', '{}', $more);
	wait_blocked();
	return ($holder, $id);
}

sub wait_blocked
{
	wait_for('the vacuum to wait', sub {
		ask($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'qml worker' AND wait_event_type = 'Lock'}) > 0 });
	return;
}

sub release
{
	my ($holder) = @_;
	$holder->query_safe('ROLLBACK');
	$holder->quit;
	return;
}

{
	my ($holder, $id) = blocked();
	is(ask($node, <<'SQL'), '', 'it holds no lock of qml');
SELECT string_agg(DISTINCT l.relation::regclass::text, ', ') FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE a.backend_type = 'qml worker' AND l.granted AND l.relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'qml'::regnamespace)
SQL
	like(ask($node, q{SELECT query FROM pg_stat_activity WHERE backend_type = 'qml worker' AND wait_event_type = 'Lock'}), qr/^running blocked, job $id$/, 'it says what it runs');
	is(outcome($node, $id), 'processing|1', 'its job is being processed');
	release($holder);
	is(outcome_of($node, $id), 'succeeded|1', 'and ends in good order');
}
{
	my ($holder, $id) = blocked('{"timeout": "300 ms"}');
	like(outcome_of($node, $id), qr/^failed\|1\|timeout\|/, 'its timeout ends it');
	release($holder);
}
like(ran(q{DO $$ BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN INSERT INTO ran (what) VALUES ('caught'); END $$}, '{"timeout": "300 ms"}'),
	qr/^failed\|1\|timeout\|/, 'also if it catches the cancel');
is(ask($node, q{SELECT count(*) FROM ran WHERE what = 'caught'}), 0, 'which is undone');
{
	my ($holder, $id) = blocked();
	query($node, "SELECT qml_delete('$id', 'not now')");
	wait_for('the vacuum to be gone', sub { worker_pids($node, q{wait_event_type = 'Lock'}) == 0 });
	is(outcome($node, $id), 'deleted|1', 'deleting the job cancels it');
	release($holder);
}
{
	my ($holder, $id) = blocked();
	query($node, q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'qml worker' AND wait_event_type = 'Lock'});
	like(outcome_of($node, $id), qr/^failed\|1\|session_gone\|/, 'a worker that ends under it');
	release($holder);
	($holder, $id) = blocked('{"max_retries": 1}');
	query($node, q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'qml worker' AND wait_event_type = 'Lock'});
	wait_for('the second attempt', sub { outcome($node, $id) =~ /^processing\|2/ });
	release($holder);
	like(outcome_of($node, $id), qr/^succeeded\|2\|session_gone/, 'it runs again where it may');
}

# Somebody is deleting the job when the command commits: its end is recorded later, and it
# does not run again.
foreach my $end ('ROLLBACK', 'COMMIT')
{
	my ($holder, $id) = blocked();
	my $deleting = new_session($node);
	$deleting->query_safe("BEGIN; SELECT qml_delete('$id')");
	release($holder);
	is(ran("INSERT INTO ran (what) VALUES ('meanwhile')"), 'succeeded|1 {"tag": "INSERT", "rows": 1}', 'other jobs go on meanwhile');
	is(outcome($node, $id), 'processing|1', 'the end is not recorded yet');
	$deleting->query_safe($end);
	$deleting->quit;
	is(outcome_of($node, $id), $end eq 'COMMIT' ? 'deleted|1' : 'succeeded|1', "it is after the $end");
}

# ---- hooks, middleware, groups

query($node, <<'SQL');
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
CREATE FUNCTION spoil_hook(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'no end' USING ERRCODE = '22000'; END $$;
REVOKE EXECUTE ON FUNCTION spoil_hook FROM PUBLIC;
CREATE FUNCTION spoil_middleware(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'no middleware' USING ERRCODE = '22000'; END $$;
REVOKE EXECUTE ON FUNCTION spoil_middleware FROM PUBLIC;
SELECT qml_register_middleware('spoil', 'spoil_middleware');
SQL
is(ran('INSERT INTO ran (what) VALUES (\'in the middle\')'), 'succeeded|1 {"tag": "INSERT", "rows": 1}', 'no middleware stands around it');
query($node, <<'SQL');
SELECT qml_unregister_middleware('spoil');
SELECT qml_register_hook('spoil', 'spoil_hook', '{succeeded}');
SQL
is(ran('INSERT INTO ran (what) VALUES (\'hooked\')'), 'succeeded|1 {"tag": "INSERT", "rows": 1}', 'no hook undoes it');
is(ask($node, q{SELECT errors FROM qml.hook WHERE name = 'spoil'}), 1, 'its error is counted');
query($node, q{SELECT qml_unregister_hook('spoil')});

handler($node, 'turns', 'CREATE FUNCTION turns() RETURNS void LANGUAGE sql AS \'\'', role => 'ann');
query($node, q{SELECT count(*) FROM qml_enqueue_many('turns', array_fill('{}'::jsonb, ARRAY[100]))});
settle($node, 'turns');
command('turns', 'VACUUM child');
query($node, q{SELECT count(*) FROM qml_enqueue_many('turns', array_fill('{}'::jsonb, ARRAY[5]))});
settle($node, 'turns');
is(ask($node, q{SELECT string_agg(DISTINCT state::text, ', ') FROM qml.job WHERE method = 'turns'}), 'succeeded', 'a short function that became a command');

# ---- shutdown

{
	command('long', 'SELECT pg_sleep(600)');
	my $id = enqueue($node, 'long');
	my $sleeps = sub { return scalar(worker_pids($node, q{wait_event = 'PgSleep'})) };
	wait_for('the command to run', sub { $sleeps->() == 1 });
	end_sessions($node);
	$node->stop('fast');
	$node->start;
	wait_for('the command to run again', sub { $sleeps->() == 1 });
	query($node, q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
	like(outcome_of($node, $id), qr/^failed\|2\|57014\|/, 'who cancels the statement fails the attempt');
	like(counted_outcome($node, $id), qr/^failed\|1\|/, 'the one that a shutdown ended did not count');
}

# ---- the extension goes

{
	# Longer than is waited here.
	set_config($node, 'qml.worker_idle_timeout' => '1 h');
	command('last', 'DROP EXTENSION qml CASCADE', '{}', 'NONE');
	query($node, q{SELECT qml_enqueue('last')});
	wait_for('the extension to be gone', sub { ask($node, q{SELECT count(*) FROM pg_extension WHERE extname = 'qml'}) == 0 });
	wait_for('its processes to be gone', sub { ask($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('qml worker', 'qml scheduler')}) == 0 });
}
run_log_clean($node, 'the log is clean');

done_testing();
