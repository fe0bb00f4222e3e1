# Jobs that harm: each ends in a state that says why, and everybody else goes on.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = background_node('poison', conf => <<'CONF');
qml.workers = 2
max_worker_processes = 16
qml.worker_idle_timeout = 600
CONF
wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE TABLE ledger (job uuid, what text);
CREATE ROLE ann LOGIN;
GRANT ALL ON ledger TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
SELECT qml_grant('ann', 'admin'), qml_grant('ann', 'enqueue');
SELECT qml_create_queue('fast', '{"retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}}');
SQL
handler($node, 'good', <<'SQL');
CREATE FUNCTION good(job qml.job) RETURNS int LANGUAGE sql
AS $$ INSERT INTO ledger VALUES ((job).id, 'good') RETURNING 1 $$
SQL
handler($node, 'innocent', <<'SQL');
CREATE FUNCTION innocent(job qml.job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger VALUES ((job).id, 'innocent');
	PERFORM pg_sleep(((job).payload ->> 'sleep')::float8);
END $$
SQL
handler($node, 'hers', <<'SQL', role => 'ann');
CREATE FUNCTION hers(job qml.job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger VALUES ((job).id, 'hers');
	PERFORM pg_sleep(((job).payload ->> 'sleep')::float8);
END $$
SQL

# What is in the log from an offset on and is more than the coming and going of
# processes, changes of settings and jobs that failed for good; and, if told so, more than
# this.
sub log_is_quiet
{
	my ($name, $offset, $expected) = @_;
	my @lines = split /\n/, slurp_file($node->logfile, $offset);
	my @strange = grep {
		!/LOG:  (qml (worker|scheduler) started in database|checkpoint |parameter "qml|received SIGHUP)/ && !/^\t/
		  && !/LOG:  job \S+ \(queue "\w+", method "\w+", attempt \d+\) failed for good: /
		  && !(defined $expected && $_ =~ $expected)
	} grep { /(LOG|WARNING|ERROR|FATAL|PANIC):  / } @lines;

	is(join("\n", @strange), '', "$name: nothing is logged but what should be");
	return;
}

# ---- what only harms itself

# Runs a poison beside good jobs, alone and in a group, and asserts what becomes of
# all of them; the pid of the worker stays.
sub poison
{
	my ($name, $method, $payload, $expected, %opt) = @_;
	my $offset = -s $node->logfile;
	my @before = map { enqueue($node, 'good') } 1 .. 3;
	my $id = enqueue($node, $method, $payload, 'max_retries => 0');
	my @after = map { enqueue($node, 'good') } 1 .. 3;
	outcome_of($node, $id);

	like(counted_outcome($node, $id), $expected, "$name: the outcome");
	# One that was given back before it began has another number, but no error.
	is(join(' ', grep { !/^succeeded\|\d+$/ } map { outcome_of($node, $_) } @before, @after), '', "$name: others go on");
	log_is_quiet($name, $offset, $opt{log});
	return $id;
}

# Creates a handler in plpgsql from its body; a jsonb is what it returns.
sub body
{
	my ($method, $body, %opt) = @_;
	my $kind = $opt{procedure} ? "PROCEDURE $method(job qml.job)" : "FUNCTION $method(job qml.job) RETURNS jsonb";
	my $declare = $opt{declare} ? "DECLARE $opt{declare}" : '';
	my $return = $opt{procedure} ? '' : 'RETURN NULL;';

	handler($node, $method, "CREATE $kind LANGUAGE plpgsql AS \$body\$ $declare BEGIN $body $return END \$body\$", %opt);
	return;
}

# The workers whose lives the following must not cost.
outcome_of($node, $_) foreach map { enqueue($node, 'innocent', '{"sleep": 3}') } 1, 2;
is(scalar(my @two = worker_pids($node)), 2, 'there are two workers');
my %at_first = map { $_ => 1 } worker_pids($node);

query($node, <<'SQL');
CREATE FUNCTION recurse(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN recurse(i + 1); END $$;
CREATE FUNCTION deep(i int) RETURNS int LANGUAGE sql AS $$ SELECT CASE WHEN i < 0 THEN 1 ELSE public.deep(i + 1) END $$;
SQL
body('recursion', 'PERFORM recurse(0);');
body('recursion_sql', 'PERFORM deep(0);');
poison('recursion', 'recursion', '{}', qr/^failed\|1\|54001\|stack depth limit exceeded/);
poison('recursion in SQL', 'recursion_sql', '{}', qr/^failed\|1\|54001\|stack depth limit exceeded/);

body('big_string', q{PERFORM length(string_agg(repeat('x', 100000000), '')) FROM generate_series(1, 20);});
poison('a string too long', 'big_string', '{}', qr/^failed\|1\|(54000|53200|XX000)\|/);
body('big_array', 'PERFORM array_fill(1, ARRAY[500000000]);');
poison('an array too large', 'big_array', '{}', qr/^failed\|1\|54000\|/);
handler($node, 'big_result', q{CREATE FUNCTION big_result(payload jsonb) RETURNS text LANGUAGE sql AS $$ SELECT repeat('x', 1000000000) $$});
{
	my $id = poison('a result of 1 GB', 'big_result', '{}', qr/^failed\|1\|54000\|/);
	is(ask($node, "SELECT result IS NULL FROM qml_job('$id')"), 't', 'it is not kept');
}
handler($node, 'large_result', q{CREATE FUNCTION large_result(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(repeat('x', 2000000)) $$});
poison('a result larger than the limit', 'large_result', '{}', qr/^failed\|1\|54000\|.*result/);
body('big_error', q{RAISE EXCEPTION '%', 'x' || repeat(chr(228), 5000000) USING DETAIL = repeat(chr(246), 5000000), HINT = repeat(chr(252), 100000);});
{
	my $id = poison('an error of 10 MB', 'big_error', '{}', qr/^failed\|1\|P0001\|x/);
	is(ask($node, "SELECT error = 'x' || repeat(chr(228), 4091) || '... [cut]' FROM qml_job('$id')"), 't', 'it is cut between two characters, and marked');
	is(ask($node, "SELECT octet_length(errors -> 0 ->> 'stack_trace') BETWEEN 16380 AND 16384 FROM qml_job('$id')"), 't',
		'and so is its detail');
}
my $strange = q{E'a\001\033[31m\nb\177' || chr(8206) || '"' || chr(92)};
body('control', "RAISE EXCEPTION '%', $strange;");
{
	my $id = poison('control characters in an error', 'control', '{}', qr/^failed\|1\|P0001\|a\x01/);
	is(ask($node, "SELECT error = $strange FROM qml_job('$id')"), 't', 'are kept');
}
body('empty', q{RAISE EXCEPTION '';});
poison('an error without a message', 'empty', '{}', qr/^failed\|1\|P0001\|\(no error text\)/);
body('not_utf8', q{PERFORM convert_from('\xff'::bytea, 'UTF8');});
poison('an invalid encoding', 'not_utf8', '{}', qr/^failed\|1\|22021\|invalid byte sequence/);

# What is JSON for the type json, and not for a result.
my %NOT_JSONB = (
	'a null character' => [ q{'"\u0000"'}, '22P05' ],
	'half a character' => [ q{'"\ud800"'}, '22P02' ],
	'a number that is too large' => [ q{'1e200000'}, '22003' ],
	'an array that is too deep' => [ q{repeat('[', 100000) || repeat(']', 100000)}, '54001' ],
	'a text that is not JSON' => [ q('{'), '22P02' ]);
my $not_jsonb = 0;
foreach my $what (sort keys %NOT_JSONB)
{
	my ($text, $state) = @{ $NOT_JSONB{$what} };
	my $method = 'json_' . ++$not_jsonb;
	handler($node, $method, "CREATE FUNCTION $method(payload jsonb) RETURNS json LANGUAGE plpgsql AS \$\$ BEGIN RETURN ($text)::json; END \$\$");
	poison("a result with $what", $method, '{}', qr/^failed\|1\|$state\|/);
}

# Whatever an error says, it is the job's, and leads to a retry or the end as any other.
handler($node, 'states', <<'SQL');
CREATE FUNCTION states(state text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'state %', state USING ERRCODE = state; END $$
SQL
foreach my $state (qw(00000 01000 02000 57P01 57P02 57P03 57014 57000 40001 40P01 25P02 55P03 XX000 XX001 53200 P0001 P0004 QM001 QM002 QM003 QM005 QM007 QM008 QM009 ZZZZZ))
{
	my $shown = $state eq '00000' ? 'P0001' : $state;
	my $id = enqueue($node, 'states', "{\"state\": \"$state\"}", q{queue => 'fast', max_retries => 1});
	outcome_of($node, $id);
	is(counted_outcome($node, $id), "failed|2|$shown|state $state", "an error of SQLSTATE $state");
}

# A job that ends itself: what it is told by others holds, and not by itself.
my %OWN = (
	qml_succeed => 'PERFORM qml_succeed((job).id, (job).attempt);',
	qml_succeed_many => 'PERFORM qml_succeed_many(ARRAY[(job).id], ARRAY[(job).attempt]);',
	qml_fail => q{PERFORM qml_fail((job).id, (job).attempt, 'me');},
	qml_delete => q{PERFORM qml_delete((job).id);},
	qml_release => 'PERFORM qml_release((job).id, (job).attempt);',
	qml_set_state => q{PERFORM qml_set_state((job).id, 'deleted');});
foreach my $function (sort keys %OWN)
{
	my $write = q{INSERT INTO ledger VALUES ((job).id, 'own');};
	body("own_$function", $write . $OWN{$function});
	my $id = poison("$function of its own", "own_$function", '{}', qr/^failed\|1\|QM003\|the handler ended its job itself$/);
	is(ask($node, "SELECT count(*) FROM ledger WHERE job = '$id'"), 0, "$function of its own: it is undone");
	body("own_p_$function", "$write $OWN{$function} COMMIT; PERFORM pg_sleep(0);", procedure => 1);
	poison("$function and COMMIT", "own_p_$function", '{}',
		$function =~ /succeed/ ? qr/^succeeded\|1/
		: $function eq 'qml_fail' ? qr/^failed\|1\|\|?me/
		: $function eq 'qml_release' ? qr/^(succeeded|failed)/
		: qr/^deleted\|1/)
	  unless $function eq 'qml_release';    # it would go on for ever
}

# ---- handlers that take away what they stand on

body('drops_itself', q{DROP FUNCTION public.drops_itself(qml.job);});
poison('DROP FUNCTION of its own', 'drops_itself', '{}', qr/^succeeded\|1/);
poison('the next job of it', 'drops_itself', '{}', qr/^failed\|1\|QM007\|/);
body('unregisters', q{PERFORM qml_unregister_handler('unregisters');});
poison('qml_unregister_handler of its own', 'unregisters', '{}', qr/^succeeded\|1/);
body('replaces_itself', q{EXECUTE $x$ CREATE OR REPLACE FUNCTION public.replaces_itself(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb(7)' $x$;});
poison('a function that replaces itself', 'replaces_itself', '{}', qr/^succeeded\|1/);
{
	my $id = poison('the next job of it', 'replaces_itself', '{}', qr/^succeeded\|1/);
	is(ask($node, "SELECT result FROM qml_job('$id')"), 7, 'is another one');
}
body('drops_tables', 'DROP SCHEMA qml CASCADE;');
poison('DROP SCHEMA', 'drops_tables', '{}', qr/^failed\|1\|2BP01\|/);
body('truncates', 'DELETE FROM qml.live WHERE id = (job).id;');
poison('DELETE of its own row', 'truncates', '{}', qr/^failed\|1\|/);
body('drops_database', q{EXECUTE 'DROP DATABASE postgres';});
poison('DROP DATABASE', 'drops_database', '{}', qr/^failed\|1\|25001\|/);
body('drops_role', 'DROP ROLE postgres;');
poison('DROP ROLE', 'drops_role', '{}', qr/^failed\|1\|(55006|2BP01)\|/);
body('alters_live', 'ALTER TABLE qml.live RENAME COLUMN worker TO who;');
poison('ALTER TABLE qml.live', 'alters_live', '{}', qr/^failed\|1\|55000\|.*"?qml.live"?/);
body('drops_index', 'DROP INDEX qml.live_ready;');
poison('DROP INDEX', 'drops_index', '{}', qr/^failed\|1\|(2BP01|55000)\|/);
body('bad_payload', q{PERFORM qml_enqueue('states', '{"state": 1, "more": 2}');});
poison('enqueueing what does not fit', 'bad_payload', '{}', qr/^failed\|1\|QM008\|.*"more"/);

# ---- transactions

body('many_subtransactions', <<'SQL', declare => 'i int;');
FOR i IN 1 .. 200 LOOP
	BEGIN
		INSERT INTO ledger VALUES ((job).id, i::text);
		IF i % 2 = 0 THEN RAISE EXCEPTION 'x'; END IF;
	EXCEPTION WHEN raise_exception THEN NULL;
	END;
END LOOP;
SQL
{
	my $id = poison('200 subtransactions', 'many_subtransactions', '{}', qr/^succeeded\|1/);
	is(ask($node, "SELECT count(*) FROM ledger WHERE job = '$id'"), 100, 'their effects');
}
body('commits', 'COMMIT;');
poison('COMMIT in a function', 'commits', '{}', qr/^failed\|1\|2D000\|/);
query($node, 'CREATE PROCEDURE committing() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$');
body('calls', 'CALL committing();');
poison('COMMIT in a procedure that a function calls', 'calls', '{}', qr/^failed\|1\|2D000\|/);
query($node, <<'SQL');
CREATE TABLE at_commit (job uuid);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not so'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON at_commit DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
body('at_commit', q{INSERT INTO ledger VALUES ((job).id, 'at commit'); INSERT INTO at_commit VALUES ((job).id);});
body('at_commit_p', q{INSERT INTO ledger VALUES ((job).id, 'kept'); COMMIT; INSERT INTO at_commit VALUES ((job).id);}, procedure => 1);
{
	my $id = poison('an error of a deferred trigger', 'at_commit', '{}', qr/^failed\|1\|P0001\|not so/);
	is(ask($node, "SELECT count(*) FROM ledger WHERE job = '$id'"), 0, 'it undoes the job');
	$id = poison('an error of a deferred trigger at the end of a procedure', 'at_commit_p', '{}', qr/^failed\|1\|P0001\|not so/);
	is(ask($node, "SELECT count(*) FROM ledger WHERE job = '$id'"), 1, 'it undoes what is not committed');
}
body('loads', q{LOAD 'plpgsql'; LOAD 'qml';});
poison('LOAD', 'loads', '{}', qr/^succeeded\|1/);
body('loads_nothing', q{LOAD 'nonesuch';});
poison('LOAD of what is not there', 'loads_nothing', '{}', qr/^failed\|1\|58P01\|/);
my $serial = 0;
foreach my $statement ('BEGIN', 'COMMIT', 'SAVEPOINT a', q{PREPARE TRANSACTION 'x'}, 'VACUUM', 'COPY ledger FROM STDIN', 'COPY ledger TO STDOUT',
	'CREATE DATABASE x', 'LISTEN x', 'CHECKPOINT; DISCARD ALL')
{

	my $method = 'statement_' . ++$serial;
	body($method, "EXECUTE \$x\$$statement\$x\$;");
	poison($statement, $method, '{}', qr/^failed\|1\|(0A000|25001|2D000)\|/, log => qr/checkpoint/);
}
is(ask($node, 'SELECT count(*) FROM pg_prepared_xacts'), 0, 'no transaction was left behind');

# ---- all that is held

body('locks', 'LOCK TABLE qml.live IN ACCESS EXCLUSIVE MODE; PERFORM pg_sleep(3);');
{
	my $offset = -s $node->logfile;
	my $id = enqueue($node, 'locks');
	wait_for('the lock', sub { worker_pids($node, "query LIKE '%$id' AND wait_event = 'PgSleep'") });
	my $good = enqueue($node, 'good');
	is(outcome_of($node, $id), 'succeeded|1', 'LOCK TABLE qml.live: the job');
	is(outcome_of($node, $good), 'succeeded|1', 'LOCK TABLE qml.live: others wait, and go on');
	log_is_quiet('LOCK TABLE qml.live', $offset, qr/qml scheduler: [\w ]+ failed: canceling statement due to lock timeout/);
}

is(join(' ', sort { $a <=> $b } worker_pids($node)), join(' ', sort { $a <=> $b } keys %at_first), 'all that by the same two processes');

# Other workers leave meanwhile, so as not to hold it up.
body('drops_extension', 'DROP EXTENSION qml CASCADE;');
poison('DROP EXTENSION', 'drops_extension', '{}', qr/^failed\|1\|55000\|/);

# ---- memory that the system does not have

{
	my $offset = -s $node->logfile;
	body('eats', q{PERFORM array_agg(repeat(i::text, 20)) FROM generate_series(1, 100000000) i;});
	set_config($node, 'qml.workers' => 1);
	query($node, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'qml worker'});
	is(run($node, 'good'), 'succeeded|1', 'one worker');
	my ($pid) = worker_pids($node);
	my ($kilobytes) = slurp_file("/proc/$pid/status") =~ /^VmSize:\s+(\d+) kB/m;
	system_or_bail('prlimit', '--pid', $pid, '--as=' . ($kilobytes + 200_000) * 1024);
	my $id = enqueue($node, 'eats', '{}', 'max_retries => 0');
	like(outcome_of($node, $id), qr/^failed\|1\|53200\|out of memory/, 'out of memory: the outcome');
	is(run($node, 'good'), 'succeeded|1', 'out of memory: the next job');
	is(join(' ', worker_pids($node)), $pid, 'out of memory: the worker goes on');
	query($node, "SELECT pg_terminate_backend($pid)");
	set_config($node, 'qml.workers' => 2);
}

# ---- a job that ends its process, in a group of others

{
	my $offset = -s $node->logfile;
	body('ends', <<'SQL');
IF (job).payload ? 'end' THEN
	IF (job).payload ->> 'end' = 'exit' THEN SET exit_on_error = on; RAISE EXCEPTION 'x'; END IF;
	PERFORM pg_terminate_backend(pg_backend_pid());
END IF;
INSERT INTO ledger VALUES ((job).id, 'beside');
SQL
	foreach my $end ('terminate', 'exit')
	{
		ask($node, q{SELECT qml_enqueue('ends') FROM generate_series(1, 200)});
		settle($node, 'ends');
		ask($node, 'TRUNCATE ledger');
		query($node, <<"SQL");
DROP TABLE IF EXISTS beside;
CREATE TABLE beside AS SELECT i, qml_enqueue('ends', CASE i WHEN 20 THEN '{"end": "$end"}' ELSE '{}' END::jsonb, queue => 'fast', max_retries => 2) AS id
FROM generate_series(1, 60) i
SQL
		settle($node, 'ends');
		is(ask($node, 'SELECT concat_ws(\' \', state, attempt - coalesce(uncounted, 0), errors -> -1 ->> \'error_type\') FROM beside JOIN qml.history USING (id) WHERE i = 20'),
			'failed 3 session_gone', "$end in a group: it ends as failed");
		is(ask($node, q{SELECT count(*) FROM beside b JOIN qml.job j USING (id) WHERE i <> 20 AND state = 'succeeded'}), 59,
			"$end in a group: the others succeed");
		is(ask($node, 'SELECT count(*), count(DISTINCT job) FROM ledger'), '59|59', "$end in a group: once");
		cmp_ok(ask($node, 'SELECT max(attempt - coalesce(uncounted, 0)) FROM beside JOIN qml.history USING (id) WHERE i <> 20'), '<=', 2,
			"$end in a group: none is taken along more than once");
	}
	log_is_quiet('jobs that end their process', $offset,
		qr/FATAL:  (terminating background worker "qml worker" due to administrator command|x)|background worker "qml worker" \(PID \d+\) exited with exit code 1/);
}

# ---- a job under which the server crashes

handler($node, 'crash', <<'SQL');
CREATE FUNCTION crash(job qml.job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger VALUES ((job).id, 'crash');
	PERFORM pg_sleep(100);
END $$
SQL

# Kills the worker of the job whenever it runs, until the job has ended; how often, and
# how it ended.
sub kill_until_end
{
	my ($id) = @_;
	my ($kills, $last) = (0, '');

	end_sessions($node);
	wait_for(
		'the end of the job that crashes the server',
		sub {
			my $pid = try_query($node, <<"SQL");
SELECT pid FROM pg_stat_activity WHERE backend_type = 'qml worker' AND query LIKE '%$id' AND wait_event = 'PgSleep'
SQL
			if (defined $pid && $pid =~ /^\d+$/)
			{
				$kills++;
				kill 'KILL', $pid;
				wait_for('the crash', sub { !-e "/proc/$pid" });
			}
			$last = try_query($node, "SELECT concat_ws('|', state, attempt, error) FROM qml_job('$id')") // $last;
			return $last =~ /^(failed|deleted|succeeded)/;
		});
	wait_for('the server to answer', sub { defined try_query($node, 'SELECT true') });
	return ($kills, $last);
}

set_config($node, 'qml.workers' => 4);
foreach my $beside ('beside', 'of another role beside')
{
	my $method = $beside eq 'beside' ? 'innocent' : 'hers';
	my $offset = -s $node->logfile;
	# Long enough to be there at each crash.
	my $innocent = enqueue($node, $method, '{"sleep": 6}', 'max_retries => 3');
	wait_for('the long job to run', sub { worker_pids($node, "query LIKE '%$innocent' AND wait_event = 'PgSleep'") == 1 });
	my $crash = enqueue($node, 'crash', '{}', 'max_retries => 20');
	my @short = map { enqueue($node, 'good') } 1 .. 20;
	my ($kills, $last) = kill_until_end($crash);

	is($last, 'failed|3|server went down under each of several attempts', "a job that crashes the server ends: $beside");
	is($kills, 3, 'after three times');
	my $outcome = outcome_of($node, $innocent);
	like($outcome, qr/^succeeded\|[234]/, "a long job $beside succeeds") or diag(ask($node, "SELECT errors FROM qml_job('$innocent')"));
	is(ask($node, "SELECT count(*) FROM ledger WHERE job = '$innocent'"), 1, 'and has its effect once');
	is(join(' ', grep { !/^succeeded/ } map { outcome_of($node, $_) } @short), '', 'and so do short ones');
	is(ask($node, "SELECT count(*) FROM ledger WHERE job = '$crash'"), 0, 'the job that crashed has none');
	is(run($node, 'good'), 'succeeded|1', 'all goes on');
	next if $beside ne 'beside';
	query($node, "SELECT qml_retry('$crash')");
	($kills, $last) = kill_until_end($crash);
	is("$kills $last", '3 failed|6|server went down under each of several attempts', 'a retry by hand gives it three more times');
	is(query($node, "SELECT count(*) FROM qml_job('$crash') j, jsonb_array_elements(j.errors) e WHERE e ? 'forgiven'"), 3,
		'what was before does not count any more');
}

# ---- a database without an encoding

query($node, q{CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
query($node, 'CREATE EXTENSION qml', 'ascii');
query($node, <<'SQL', 'ascii');
CREATE FUNCTION bytes(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION '%', convert_from('\xe4fffec328'::bytea, 'SQL_ASCII') || repeat(convert_from('\xe4'::bytea, 'SQL_ASCII'), 10000);
END $$;
SELECT qml_register_handler('bytes', 'bytes');
CREATE FUNCTION good(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT qml_register_handler('good', 'good');
SQL
{
	my $id = query($node, q{SELECT qml_enqueue('bytes', max_retries => 0)}, 'ascii');
	my $good = query($node, q{SELECT qml_enqueue('good')}, 'ascii');
	wait_for('the jobs', sub { query($node, q{SELECT count(*) FROM qml.live}, 'ascii') == 0 });
	is(query($node, "SELECT concat_ws(' ', state, octet_length(error), left(encode(error::bytea, 'hex'), 10)) FROM qml_job('$id')", 'ascii'),
		'failed 8192 e4fffec328', 'bytes in an error, in a database without an encoding');
	is(query($node, "SELECT state FROM qml_job('$good')", 'ascii'), 'succeeded', 'others go on');
}

end_sessions($node);
done_testing();
