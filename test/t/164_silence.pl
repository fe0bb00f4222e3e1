# Silence speaks: who asks for background work that nothing will do is warned, once a session
# for each kind, and a job that fails for good is logged once, with its error.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $DELAYED = "SELECT qml_enqueue('t', delay => '1 h') IS NOT NULL";
my $MANY = "SELECT count(*) FROM qml_enqueue_many('t', '{1}', run_at => now() + interval '1 h')";
my $RECURRING = "SELECT qml_schedule_recurring('s' || random(), '0 0 1 1 *', 't') > now()";
my $HANDLER = "SELECT qml_register_handler('h', 'work')";

# The messages of a new session that runs some statements.
sub said
{
	my ($node, @statements) = @_;
	my ($out, $err);
	$node->psql('postgres', join(";\n", 'SET qml.warn_idle = on', @statements),
		stdout => \$out, stderr => \$err, on_error_die => 1);
	return $err;
}

sub warnings_in { my ($text) = @_; return $text =~ /^(?:psql:.*)?WARNING:  (.*)$/mg; }

# ---- not preloaded

my $plain = new_node('plain', bare => 1);
my $err = said($plain, 'CREATE EXTENSION qml');
is_deeply([ warnings_in($err) ], ['no background process of qml will work in this database'], 'CREATE EXTENSION warns');
like($err, qr/DETAIL:  qml is not in shared_preload_libraries\./, 'it says why');
like($err, qr/HINT:  Add qml to shared_preload_libraries and restart the server, or let pg_cron/, 'and what helps');

query($plain, 'CREATE FUNCTION work() RETURNS void LANGUAGE sql AS $$ SELECT $$');
$err = said($plain, $DELAYED, $DELAYED, $MANY, $RECURRING, $RECURRING, $HANDLER, $HANDLER);
is_deeply([ warnings_in($err) ],
	[ 'nothing will make delayed jobs ready in this database', 'nothing will fire recurring jobs in this database',
		'nothing will run handlers in this database' ], 'each kind is warned of once a session');
like($err, qr/will run handlers.*\n.*\nHINT:  Add qml to shared_preload_libraries and restart the server\.$/,
	'pg_cron does not help handlers');
is(said($plain, "SELECT qml_enqueue('t') IS NOT NULL", "SELECT qml_enqueue('t', run_at => now()) IS NOT NULL",
		"SELECT count(*) FROM qml_fetch('w')"), '', 'work that others fetch is nothing to warn of');
is(said($plain, 'SET client_min_messages = error', $DELAYED, $RECURRING), '', 'client_min_messages holds');
is(said($plain, 'SET qml.warn_idle = off', $DELAYED, $RECURRING, $HANDLER), '', 'and so does qml.warn_idle');
is(query($plain, 'SHOW qml.warn_idle'), 'off', 'which the other tests turn off');

# ---- preloaded

my $node = background_node('served', conf => "qml.workers = 1\nmax_worker_processes = 20");
wait_for_process($node, 'scheduler', 'postgres');
query($node, 'CREATE FUNCTION work() RETURNS void LANGUAGE sql AS $$ SELECT $$');
is(said($node, $DELAYED, $MANY, $RECURRING, $HANDLER), '', 'where all is well nothing is said');

# What a session says when a setting has a value, without what it says of the one before.
sub said_with
{
	my ($name, $value, @statements) = @_;
	set_config($node, $name => $value);
	$node->poll_query_until('postgres', "SELECT current_setting('$name') = '$value'") or die;
	my $said = said($node, @statements);
	set_config($node, $name => undef);
	$node->poll_query_until('postgres', "SELECT current_setting('$name') <> '$value'") or die;
	return $said;
}

foreach my $case (
	[ 'qml.enabled', 'off', 3, 'The setting qml.enabled is off.' ],
	[ 'qml.databases', 'other, "Postgres"', 3, 'This database is not named in qml.databases.' ],
	[ 'qml.databases', 'other, Postgres', 0 ],
	[ 'qml.enable_scheduler', 'off', 1, 'The setting qml.enable_scheduler is off.' ],
	[ 'qml.enable_recurring', 'off', 1, 'The setting qml.enable_recurring is off.' ])
{
	my ($name, $value, $count, $detail) = @$case;
	my $said = said_with($name, $value, $DELAYED, $RECURRING, $HANDLER);
	is(scalar(my @all = warnings_in($said)), $count, "$name = $value");
	like($said, qr/DETAIL:  \Q$detail\E/, "$name: it says why") if $count;
}

# The setting changes while a session is open.
{
	my $session = new_session($node);
	$session->query_safe('SET qml.warn_idle = on');
	foreach my $round ([ 'other, postgres', '' ], [ '*', '' ], [ 'other', 'This database is not named in qml.databases.' ])
	{
		my ($value, $detail) = @$round;
		set_config($node, 'qml.databases' => $value);
		wait_for('the setting', sub { $session->query_safe('SHOW qml.databases') eq $value });
		my $at = length($session->{stderr});
		$session->query($DELAYED) foreach 1 .. 2;
		my $said = substr($session->{stderr}, $at);
		is(join(', ', $said =~ /DETAIL:  (.*)/g), $detail, "an open session, qml.databases = $value");
	}
	$session->quit;
	set_config($node, 'qml.databases' => undef);
}

# A copy: the row names another database.
query($node, 'UPDATE qml.instance_data SET database = 1');
$err = said($node, $DELAYED, $RECURRING, $HANDLER);
is(scalar(my @copies = warnings_in($err)), 3, 'a copy that is not adopted');
like($err, qr/HINT:  Call qml_adopt\(\)/, 'what helps');
query($node, 'SELECT qml_adopt()');
is(said($node, $DELAYED), '', 'adopted');

# ---- jobs that fail for good

my $log_at = -s $node->logfile;
my $failures = 0;

# The lines about a job.
sub lines_about
{
	my ($id) = @_;
	my $log = slurp_file($node->logfile, $log_at);
	return grep { /failed for good/ && /\Q$id\E/ } split /\n/, $log;
}

sub job
{
	my ($queue, $retries) = @_;
	return query($node,
		"SELECT qml_enqueue('send', '{\"secret\": \"payload\"}', '$queue', max_retries => $retries)");
}

my $id = job('outside', 1);
query($node, "SELECT attempt FROM qml_fetch('w', '{outside}')");
query($node, "SELECT qml_fail('$id', 1, 'first', retry_at => now())");
is(scalar(lines_about($id)), 0, 'an attempt that is retried is not logged');
query($node, 'SELECT qml_promote_due()');
query($node, "SELECT attempt FROM qml_fetch('w', '{outside}')");
query($node, "BEGIN; SELECT qml_fail('$id', 2, 'undone'); ROLLBACK");
query($node, "BEGIN; SAVEPOINT s; SELECT qml_fail('$id', 2, 'undone'); ROLLBACK TO s; COMMIT");
is(scalar(lines_about($id)), 0, 'nor is what is rolled back, as a whole or in part');
query($node, "BEGIN; SAVEPOINT s; SELECT qml_fail('$id', 2, E'second\\nline' || repeat('x', 1000)); RELEASE s; COMMIT");
my @lines = lines_about($id);
is(scalar(@lines), 1, 'it is logged once when it fails for good');
like($lines[0], qr/LOG:  job $id \(queue "outside", method "send", attempt 2\) failed for good: second linex{300}/,
	'with queue, method, attempt and error, on one line');
like($lines[0], qr/\.\.\. \[cut\]$/, 'the error is cut');
unlike(slurp_file($node->logfile, $log_at), qr/secret/, 'the payload is not in the log');

# A prepared transaction is logged when it is prepared.
$id = job('outside', 0);
query($node, "SELECT attempt FROM qml_fetch('w', '{outside}')");
query($node, "BEGIN; SELECT qml_fail('$id', 1, 'prepared'); PREPARE TRANSACTION 'f'");
query($node, "COMMIT PREPARED 'f'");
is(scalar(lines_about($id)), 1, 'in a prepared transaction');
$id = job('outside', 0);
query($node, "SELECT attempt FROM qml_fetch('w', '{outside}')");
query($node, "BEGIN; SELECT qml_fail('$id', 1, 'prepared'); PREPARE TRANSACTION 'f'");
is(scalar(lines_about($id)), 1, 'when it is prepared');
query($node, "ROLLBACK PREPARED 'f'");
is(scalar(lines_about($id)), 1, 'so one that is rolled back later leaves its line');
query($node, "SELECT qml_succeed('$id', 1)");

# A failure that the same transaction takes back by a retry is logged all the same.
$id = job('outside', 0);
query($node, "BEGIN; SELECT qml_set_state('$id', 'failed'); SELECT qml_set_state('$id', 'enqueued'); COMMIT");
is(query($node, "SELECT state FROM qml.job WHERE id = '$id'"), 'enqueued', 'retried in the same transaction');
is(scalar(lines_about($id)), 1, 'it has failed, and is logged');
query($node, "SELECT qml_delete('$id')");

# Characters that would end the line, or turn it round.
$id = job('outside', 0);
query($node, "SELECT attempt FROM qml_fetch('w', '{outside}')");
query($node, "SELECT qml_fail('$id', 1, E'a\\u2028b\\u202ec\\u0085d\\u2066e\\u200ff\\u20acg')");
@lines = lines_about($id);
like($lines[0], qr/failed for good: a {3}b {3}c {2}d {3}e {3}f\xe2\x82\xacg$/, 'separators and directions are blanks');

# A lease that is over, and no retry is left: the scheduler.
$id = job('outside', 0);
query($node, "SELECT attempt FROM qml_fetch('w', '{outside}', lease => '1 ms')");
$node->poll_query_until('postgres', "SELECT state = 'failed' FROM qml.job WHERE id = '$id'") or die;
is(scalar(lines_about($id)), 1, 'reclaimed');

# A handler.
query($node, 'CREATE FUNCTION broken() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE \'broken\'; END $$');
query($node, "SELECT qml_register_handler('break', 'broken', '{\"max_retries\": 0}')");
$id = query($node, "SELECT qml_enqueue('break')");
$node->poll_query_until('postgres', "SELECT state = 'failed' FROM qml.job WHERE id = '$id'") or die;
@lines = lines_about($id);
is(scalar(@lines), 1, 'of a handler, once');
like($lines[0], qr/failed for good: broken$/, 'with its error');

# Very many in one transaction.
query($node, "SELECT count(*) FROM qml_enqueue_many('send', array_fill('1'::jsonb, ARRAY[150]), 'many', max_retries => 0)");
query($node, "SELECT count(qml_set_state(id, 'failed')) FROM qml.job WHERE queue = 'many'");
my $log = slurp_file($node->logfile, $log_at);
is(scalar(() = $log =~ /queue "many", .*failed for good/g), 100, 'the first of very many');
like($log, qr/50 more jobs failed for good in the same transaction/, 'and how many more');

# The same in subtransactions: those that are rolled back count for nothing.
query($node, "SELECT count(*) FROM qml_enqueue_many('send', array_fill('1'::jsonb, ARRAY[400]), 'subs', max_retries => 0)");
$log_at = -s $node->logfile;
query($node, <<'SQL');
DO $$
DECLARE
	ids uuid[] := ARRAY(SELECT id FROM qml.job WHERE queue = 'subs' ORDER BY id);
BEGIN
	-- 20 lines of the outer one
	PERFORM qml_set_state(i, 'failed') FROM unnest(ids[1:20]) i;
	-- 100 jobs, with 80 lines, that are rolled back
	BEGIN
		PERFORM qml_set_state(i, 'failed') FROM unnest(ids[21:120]) i;
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN NULL;
	END;
	FOR n IN 121..320 LOOP
		BEGIN
			PERFORM qml_set_state(ids[n], 'failed');
			-- 40 of 200 are rolled back
			IF n % 5 = 0 THEN RAISE division_by_zero; END IF;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
	-- Ones inside others, some of which are rolled back
	BEGIN
		PERFORM qml_set_state(i, 'failed') FROM unnest(ids[321:330]) i;
		BEGIN
			PERFORM qml_set_state(i, 'failed') FROM unnest(ids[331:340]) i;
			BEGIN
				PERFORM qml_set_state(i, 'failed') FROM unnest(ids[341:350]) i;
				RAISE division_by_zero;
			EXCEPTION WHEN division_by_zero THEN NULL;
			END;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
		PERFORM qml_set_state(i, 'failed') FROM unnest(ids[351:355]) i;
	EXCEPTION WHEN division_by_zero THEN NULL;
	END;
	BEGIN
		PERFORM qml_set_state(i, 'failed') FROM unnest(ids[356:360]) i;
		BEGIN
			PERFORM qml_set_state(i, 'failed') FROM unnest(ids[361:370]) i;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN NULL;
	END;
END $$;
SQL
# 20 + 160 + 25 failed.
is(query($node, "SELECT count(*) FROM qml.job WHERE queue = 'subs' AND state = 'failed'"), 205, 'failed in subtransactions');
$log = slurp_file($node->logfile, $log_at);
is(scalar(() = $log =~ /queue "subs", .*failed for good/g), 100, 'as many lines as in one');
is(join(' ', $log =~ /(\d+) more jobs? failed for good/g), '105', 'and one line for all others');

# Those without a line are counted, and not kept: it takes no memory, and no time at the end of
# each subtransaction.
sub memory_of_failures
{
	my ($setting) = @_;
	return query($node, <<"SQL");
SET qml.log_failures = $setting;
BEGIN;
DO \$\$
DECLARE
	job uuid;
BEGIN
	FOR job IN SELECT id FROM qml.job WHERE queue = 'memory' LOOP
		BEGIN
			PERFORM qml_set_state(job, 'failed');
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
END \$\$;
SELECT used_bytes FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext';
ROLLBACK;
SQL
}
query($node, "SELECT count(*) FROM qml_enqueue_many('send', array_fill('1'::jsonb, ARRAY[3000]), 'memory', max_retries => 0)");
my $memory = memory_of_failures('on') - memory_of_failures('off');
cmp_ok($memory, '<', 60_000, "$memory bytes for 3000 failures");

$id = job('outside', 0);
query($node, "SET qml.log_failures = off; SELECT qml_set_state('$id', 'failed')");
is(scalar(lines_about($id)), 0, 'the setting turns it off');

done_testing();
