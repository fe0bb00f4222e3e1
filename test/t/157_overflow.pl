# What keeps one part of the maintenance from being done stops no other: rows that a partition
# does not take, errors of all kinds, and locks that somebody holds for long.  What failed is
# told, once, and nothing is lost.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);

avoid_midnight();

# How much longer than an INSERT a statement may take here, seconds.
my $SOON = 1;

sub places
{
	my ($node) = @_;
	return query($node, 'SELECT (SELECT count(*) FROM qml.history), (SELECT count(*) FROM qml.history_overflow)');
}

# The partition that a job which succeeds now goes to, or went to.
sub today
{
	my ($node) = @_;
	return query($node, "SELECT 'history_p' || to_char((now() + interval '1 day') AT TIME ZONE 'UTC', 'YYYYMMDD')");
}

# Jobs finish while a session has locked the history: all of them go to the overflow.
sub finish_aside
{
	my ($node, $session, $jobs, $priority) = @_;
	$session->query_safe('BEGIN; LOCK TABLE qml.history');
	query($node, "SELECT count(qml_enqueue('odd', queue => 'q', priority => $priority)) FROM generate_series(1, $jobs) n");
	query($node, "SELECT count(*) FROM (SELECT array_agg(id) AS i, array_agg(attempt) AS a FROM qml_fetch('w', '{q}', $jobs)) j, qml_succeed_many(i, a)");
	$session->query_safe('COMMIT');
	return;
}

sub warnings_of { return scalar(() = $_[0] =~ /WARNING/g); }

# ---- without background processes

my $node = new_node('overflow');
my $other = new_session($node);
query($node, "SELECT qml_create_queue('q', '{\"max_retries\": 0}')");
my $leaf = today($node);

# An index that somebody added and that fails for some of the rows.
query($node, "CREATE INDEX fails ON qml.$leaf ((10 / priority)) WHERE method = 'odd'");
finish_aside($node, $other, 20, 'n % 5');
is(places($node), '0|20', 'all jobs are in the overflow');
my (undef, $out, $err) = $node->psql('postgres', 'SELECT qml_cleanup()');
is($out, 0, 'rows that a partition does not take are no error');
like($err, qr/WARNING:  could not move finished jobs to a partition of "qml.history"\nDETAIL:  4 of the jobs stay for now\.  Job [0-9a-f-]+: division by zero \(SQLSTATE 22012\)\.$/m, 'it is told how many, and why');
is(warnings_of($err), 1, 'once');
is(places($node), '16|4', 'all others are moved');
is(query($node, 'SELECT count(*), min(priority), max(priority) FROM qml.history_overflow'), '4|0|0', 'those that failed stay');
is(query($node, "SELECT count(*), count(DISTINCT id) FROM qml.job WHERE state = 'succeeded'"), '20|20', 'each job is there once');
is(query($node, "SELECT jsonb_array_length(qml_maintain() -> 'failed')"), 0, 'for qml_maintain() it is no failed step');
is(query($node, "SELECT qml_delete(id) FROM qml.history_overflow LIMIT 1"), 't', 'such a job can be deleted');
query($node, "DROP INDEX qml.fails; SELECT qml_cleanup()");
is(places($node), '20|0', 'they are moved when the partition takes them');

# An index of the partition that somebody has locked alone, as a move to another tablespace does.
finish_aside($node, $other, 5, '1');
$other->query_safe("BEGIN; ALTER INDEX qml.${leaf}_id SET TABLESPACE pg_default");
my $start = time;
query($node, "SET statement_timeout = '20 s'; SELECT qml_cleanup()");
cmp_ok(time - $start, '<', $SOON, 'an index that is locked is not waited for');
is(query($node, 'SELECT count(*) FROM qml.history_overflow'), 5, 'the jobs stay');
$other->query_safe('COMMIT');
query($node, 'SELECT qml_cleanup()');
is(places($node), '25|0', 'and are moved later');

# What belongs to an expired partition, and is in use alone: an index of its own, one that is a
# part of an index of the history, its TOAST table, and the index of that.
query($node, 'CREATE INDEX by_method ON qml.history (method)');
foreach my $call ('qml_cleanup', 'qml_maintain')
{
	foreach my $use (
		'ALTER INDEX qml.%1$s_id SET TABLESPACE pg_default', 'ALTER INDEX qml.%1$s_method_idx SET TABLESPACE pg_default',
		'SELECT count(*) FROM %2$s', 'REINDEX INDEX %2$s_index')
	{
		my $expired = expired_leaf($node, 3, 10);
		my $toast = query($node, "SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'qml.$expired'::regclass");
		my $what = sprintf $use, $expired, $toast;

		my $pid = $other->query_safe("BEGIN; $what; SELECT pg_backend_pid()") =~ s/.*\n//sr;
		$start = time;
		# The second one would detach what the first one has marked.
		foreach (1 .. 2)
		{
			my $rc = $node->psql('postgres', "SET statement_timeout = '20 s'; SELECT $call()", stderr => \$err);
			is($rc, 0, "$what: $call() meets no error");
			like($err, qr/^psql:<stdin>:1: WARNING:  expired partition "qml.$expired" is in use and was not dropped\nDETAIL:  These processes have locked it, .*: $pid\.\n[^\n]*$/, "$what: $call() tells of the process");
		}
		cmp_ok(time - $start, '<', 2 * $SOON, "$what: $call() does not wait for it");
		is(query($node, "SELECT to_regclass('qml.$expired') IS NOT NULL"), 't', "$what: $call() keeps the partition");
		$other->query_safe('COMMIT');
		query($node, "SELECT $call()");
		is(query($node, "SELECT to_regclass('qml.$expired') IS NULL"), 't', "$what: $call() drops it later");
	}
}
query($node, 'DROP INDEX qml.by_method');

# The same of the ledger of ticks, of which a part is over at any time.
query($node, "INSERT INTO qml.occurrence_data SELECT now() - interval '60 days', 'r', NULL, now() - interval '60 days', n, 'late' FROM generate_series(0, 9) n");
my $of_ticks = query($node, "SELECT string_agg(format('ALTER INDEX %s SET TABLESPACE pg_default', indexrelid::regclass), '; ') FROM pg_index WHERE indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'qml.occurrence_data'::regclass)");
$other->query_safe("BEGIN; $of_ticks");
$start = time;
query($node, "SET statement_timeout = '20 s'; SELECT qml_cleanup()");
cmp_ok(time - $start, '<', $SOON, 'an index of the ledger of ticks is not waited for');
is($other->query_safe('SELECT count(*) FROM qml.occurrence_data'), 10, 'the ledger is kept');
$other->query_safe('COMMIT');
query($node, 'SELECT qml_cleanup()');
cmp_ok(query($node, 'SELECT count(*) FROM qml.occurrence_data'), '<', 10, 'what is over is emptied later');
query($node, 'DELETE FROM qml.occurrence_data');

# Each part fails alone.  What frees the disk is done in any case.
my %failures = (
	'the overflow cannot be written' => [
		'ALTER TABLE qml.history_overflow ADD CONSTRAINT c CHECK (attempt >= 0)',
		'ALTER TABLE qml.history_overflow DROP CONSTRAINT c', 'overflow', 1 ],
	'a trigger raises an error' => [
		"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN RAISE EXCEPTION 'not this one'; END \$\$; CREATE TRIGGER t BEFORE DELETE ON qml.lock_data EXECUTE FUNCTION no(); SELECT qml_try_lock('l', 'me', '1 ms')",
		'DROP TRIGGER t ON qml.lock_data; DROP FUNCTION no()', 'cleanup', 1 ],
	map {
		my $code = $_;
		("an event trigger raises $code" => [
			"CREATE FUNCTION no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS \$\$ BEGIN RAISE EXCEPTION USING ERRCODE = '$code', MESSAGE = 'no DDL'; END \$\$; CREATE EVENT TRIGGER no_ddl ON ddl_command_start EXECUTE FUNCTION no_ddl()",
			'DROP EVENT TRIGGER no_ddl; DROP FUNCTION no_ddl()', undef, 0 ])
	} qw(P0001 55P03 53100 58030));
foreach my $name (sort keys %failures)
{
	my ($break, $mend, $step, $makes) = @{ $failures{$name} };
	foreach my $call ('qml_cleanup', 'qml_maintain')
	{
		my $expired = expired_leaf($node, 3, 10);
		my $missing = query($node, "SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'qml.history'::regclass ORDER BY relname DESC LIMIT 1");
		query($node, "DROP TABLE qml.$missing; ALTER TABLE qml.$expired REPLICA IDENTITY FULL");
		query($node, $break);
		my $rc = $node->psql('postgres', "SELECT $call()", stdout => \$out, stderr => \$err);
		is($rc, 0, "$name: $call() is no error");
		is(query($node, "SELECT to_regclass('qml.$expired') IS NULL"), 't', "$name: what has expired is dropped by $call()");
		is(query($node, "SELECT to_regclass('qml.$missing') IS NOT NULL"), $makes ? 't' : 'f', "$name: partitions are made, if that is possible");
		is(warnings_of($err), 1, "$name: it is told, once") or diag($err);
		if (defined $step)
		{
			my $of = $call eq 'qml_cleanup' ? 'the cleanup' : 'qml_maintain\(\)';
			like($err, qr/WARNING:  step "$step" of $of failed: .* \(SQLSTATE \w+\)\nDETAIL:  It is undone; the other steps are not\./, "$name: with the step");
			like($out, qr/"failed": \[\{"step": "$step"/, "$name: and in the result") if $call eq 'qml_maintain';
		}
		query($node, "$mend; SELECT qml_cleanup()");
		is(query($node, "SELECT to_regclass('qml.$missing') IS NOT NULL"), 't', "$name: the next one makes all partitions");
	}
}

# Locks that a transaction holds for long: the cleanup does not wait for them.
query($node, <<'SQL');
CREATE ROLE gone;
SELECT qml_grant('gone', 'work', 'q');
SELECT qml_register_server('s');
CREATE FUNCTION h(payload jsonb) RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT qml_register_handler('h', 'h');
UPDATE qml.acl_data SET grantee = 1234567::regrole;
UPDATE qml.handler_data SET registered_by = 1234567::regrole;
UPDATE qml.server_data SET heartbeat_at = now() - interval '3 days', dead_at = now() - interval '2 days';
SELECT qml_try_lock('short', 'me', '1 us');
SQL
foreach my $lock (
	# Not in ACCESS EXCLUSIVE MODE: for that a session waits that looks at the tables first.
	(map { "LOCK TABLE qml.$_ IN SHARE ROW EXCLUSIVE MODE" } qw(lock_data server_data occurrence_data acl_data handler_data hook_data middleware_data recurring_data history_overflow)),
	'LOCK TABLE qml.history', 'SELECT FROM qml.server_data FOR UPDATE', 'SELECT FROM qml.lock_data FOR UPDATE',
	'SELECT FROM qml.acl_data FOR UPDATE', 'SELECT FROM qml.handler_data FOR UPDATE')
{
	$other->query_safe("BEGIN; $lock");
	$start = time;
	my $rc = $node->psql('postgres', "SET statement_timeout = '20 s'; SELECT qml_cleanup()", stderr => \$err);
	is("$rc $err", '0 ', "$lock: nothing fails");
	cmp_ok(time - $start, '<', $SOON, "$lock: nothing waits");
	$other->query_safe('ROLLBACK');
	# As before for the next one.
	query($node, <<'SQL');
INSERT INTO qml.lock_data SELECT 'short', 'me', current_user::regrole, 1, now(), now() WHERE NOT EXISTS (SELECT FROM qml.lock_data);
INSERT INTO qml.acl_data (grantee, capability, queue, grantor) SELECT 1234567::regrole, 'work', 'q', current_user::regrole WHERE NOT EXISTS (SELECT FROM qml.acl_data);
UPDATE qml.handler_data SET registered_by = 1234567::regrole;
SQL
}
query($node, 'SELECT qml_cleanup()');
is(query($node, "SELECT (SELECT count(*) FROM qml.lock_data), (SELECT count(*) FROM qml.acl_data), (SELECT count(*) FROM qml.server_data), (SELECT registered_by FROM qml.handler_data)"), '0|0|0|-', 'all of it is removed');
$other->quit;
$node->stop;

# ---- by the scheduler, in pieces

my $busy = background_node('busy_overflow', variant => 'faults', conf => "qml.faults = 'walk.chunk_pages:limit:4,walk.piece_ms:limit:1'\n");
query($busy, "SELECT qml_create_queue('q')");
sleeping_scheduler($busy);
$leaf = today($busy);
$other = new_session($busy);
query($busy, "CREATE INDEX fails ON qml.$leaf ((10 / priority)) WHERE method = 'odd'");
finish_aside($busy, $other, 5000, 'n % 500');
wait_for('all that can be moved to be moved', sub { places($busy) eq '4990|10' });
is(query($busy, "SELECT count(*), count(DISTINCT id) FROM qml.job WHERE state = 'succeeded'"), '5000|5000', 'each job is there once');
my $log = slurp_file($busy->logfile);
is(scalar(() = $log =~ /could not move finished jobs/g), 1, 'it is logged once, however many pieces met such rows');
# While the overflow cannot be worked with, partitions are made all the same.
query($busy, 'ALTER TABLE qml.history_overflow ADD CONSTRAINT c CHECK (attempt >= 0)');
my $last = query($busy, "SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'qml.history'::regclass ORDER BY relname DESC LIMIT 1");
query($busy, "DROP TABLE qml.$last");
my $pid = sleeping_scheduler($busy);
query($busy, "SELECT pg_terminate_backend($pid)");
wait_for('the partition to be made', sub { query($busy, "SELECT to_regclass('qml.$last') IS NOT NULL") eq 't' });
wait_for('the log to say so', sub { slurp_file($busy->logfile) =~ /step "overflow" of the cleanup failed: .*constraint/ });
query($busy, "ALTER TABLE qml.history_overflow DROP CONSTRAINT c; DROP INDEX qml.fails");
$pid = sleeping_scheduler($busy);
query($busy, "SELECT pg_terminate_backend($pid)");
wait_for('the rest to be moved', sub { places($busy) eq '5000|0' });
ok(1, 'nothing is lost');

# Where the partitions that have expired cannot be looked for, the rest is removed all the same.
my $offset = -s $busy->logfile;
set_config($busy, 'qml.cleanup_interval' => 1, 'qml.faults' => join(',', ('cleanup.list:error') x 20));
wait_for('the fault', sub { log_count($busy, 'qml fault point "cleanup.list" reached', $offset) > 0 });
my $expired = expired_leaf($busy, 3, 10);
query($busy, "SELECT qml_try_lock('short', 'me', '1 us')");
wait_for('the lock to be removed', sub { query($busy, 'SELECT count(*) FROM qml.lock_data') == 0 });
my $failures = log_count($busy, 'qml fault point "cleanup.list" reached', $offset);
cmp_ok($failures, '<', 20, "an expired lock is removed while partitions cannot be listed ($failures failures)");
is(query($busy, "SELECT to_regclass('qml.$expired') IS NOT NULL"), 't', 'the partition stays');
like(slurp_file($busy->logfile, $offset), qr/WARNING:  step "expiry" of the cleanup failed: qml fault at "cleanup\.list" \(SQLSTATE XX000\)/, 'the log tells of it');
set_config($busy, 'qml.faults' => undef);
wait_for('the partition to go', sub { query($busy, "SELECT to_regclass('qml.$expired') IS NULL") eq 't' });
end_sessions($busy);
$busy->stop;
done_testing();
