# Redaction where there is no SQL of the reader: the server's log, what workers and hooks get and leave
# there, other sessions at once, a standby.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

# A statement of the test that fails must not write the secret itself.
my $node = background_node('redaction', init => { allows_streaming => 1 }, conf => <<'CONF');
qml.workers = 2
qml.max_retries = 0
log_min_error_statement = panic
CONF
wait_for_process($node, 'scheduler', 'postgres');

# Handlers and hooks quote what they get.  The secret is in no statement, but made here.
query($node, <<'SQL');
CREATE ROLE viewer LOGIN;
CREATE FUNCTION secret() RETURNS text LANGUAGE sql AS $$ SELECT 's3c' || 'r3t' $$;
SELECT qml_create_queue('pay', '{"redact": ["payload.ssn"], "retry": {"strategy": "fixed", "delay": "10 ms", "jitter": 0}, "max_retries": 1}');
SELECT qml_create_queue('open', '{"max_retries": 0}');
SELECT qml_grant('viewer', 'monitor', q) FROM unnest('{pay,open}'::text[]) q;
SQL
handler($node, 'quote', <<'SQL');
CREATE FUNCTION quote(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM qml_progress(job.payload);
	RAISE EXCEPTION 'cannot charge %', job.payload USING detail = job.payload, errcode = 'P7777';
END $$
SQL
handler($node, 'echo', <<'SQL');
CREATE FUNCTION echo(job qml.job) RETURNS jsonb LANGUAGE sql AS $$ SELECT job.payload $$
SQL
handler($node, 'card', <<'SQL', options => '{"redact": ["payload.ssn"]}');
CREATE FUNCTION card(job qml.job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'card %', job.payload;
END $$
SQL

sub secret_job
{
	my ($method, $queue, $more) = @_;
	$more = defined $more ? ", $more" : '';
	return ask($node, "SELECT qml_enqueue('$method', jsonb_build_object('ssn', secret()), '$queue'$more)");
}

# What the viewer sees of a job.
my $contents = 'concat_ws($$ $$, payload, metadata, result, progress, error, errors, reason)';

sub seen
{
	my ($id, $server) = @_;
	return query($server // $node, "SET ROLE viewer; SELECT $contents FROM qml.job WHERE id = '$id'");
}

# ---- what workers get, and what they leave

my $quoted = secret_job('quote', 'pay');
my $carded = secret_job('card', 'open');
my $echoed = secret_job('echo', 'pay');
like(outcome_of($node, $quoted), qr/^failed\|2\|P7777\|cannot charge \{"ssn": "s3cr3t"\}$/, 'a handler gets the payload, and quotes it');
like(outcome_of($node, $carded), qr/^failed\|1\|P0001\|card \{"ssn": "s3cr3t"\}$/, 'also where the method hides it');
like(outcome_of($node, $echoed), qr/^succeeded/, 'a job succeeds');
is(seen($quoted), '{"ssn": "***"} "***" *** [{"error": "***"}, {"error": "***"}]', 'the viewer sees that it failed twice');
is(seen($carded), '{"ssn": "***"} *** [{"error": "***"}]', 'and that the other one failed');
is(seen($echoed), '{"ssn": "***"} "***"', 'and that one has a result');
is(query($node, "SET ROLE viewer; SELECT detail !~ 's3cr3t' AND detail ~ 'failed for good' FROM qml_explain('$quoted')"), 't', 'no reason quotes it');
is(log_count($node, "job $quoted (queue \"pay\", method \"quote\", attempt 2) failed for good: ***"), 1, 'the log has no error of the job');
is(log_count($node, "job $carded (queue \"open\", method \"card\", attempt 1) failed for good: ***"), 1, 'nor of the other one');

my $claimed = secret_job('outside', 'pay');
is(query($node, "SELECT payload->>'ssn' = secret() FROM qml_fetch('w', 'pay')"), 't', 'a worker outside gets the payload');
query($node, "SELECT qml_fail('$claimed', 1, 'no ' || secret(), secret(), retry => false)");
is(log_count($node, "job $claimed (queue \"pay\", method \"outside\", attempt 1) failed for good: ***"), 1, 'what it said is not in the log');
my $plain = secret_job('plain', 'open');
query($node, "SELECT qml_fail(id, attempt, 'a plain error', retry => false) FROM qml_fetch('w', 'open')");
is(log_count($node, "job $plain (queue \"open\", method \"plain\", attempt 1) failed for good: a plain error"), 1, 'the error of any other job is in the log');

# ---- while a job runs

handler($node, 'slow', <<'SQL');
CREATE FUNCTION slow(job qml.job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM qml_progress(job.payload);
	PERFORM pg_advisory_xact_lock(7);
END $$
SQL
query($node, 'GRANT pg_read_all_stats TO viewer');
my $lock = new_session($node);
$lock->query_safe('SELECT pg_advisory_lock(7)');
my $running = secret_job('slow', 'pay');
wait_for('the job to run', sub { ask($node, 'SELECT count(*) FROM pg_locks WHERE NOT granted') > 0 });
is(query($node, q(SET ROLE viewer; SELECT count(*) > 0, count(*) FILTER (WHERE a::text ~ 's3cr3t') FROM pg_stat_activity a WHERE backend_type LIKE 'qml%')),
	't|0', 'nothing of it is in pg_stat_activity');
is(query($node, "SET ROLE viewer; SELECT payload FROM qml.job WHERE id = '$running'"), '{"ssn": "***"}', 'nor in the view');
$lock->quit;
like(outcome_of($node, $running), qr/^succeeded/, 'it ends');

# ---- hooks

query($node, <<'SQL');
CREATE FUNCTION quoting(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'hook got %', job.payload USING errcode = 'P8888';
END $$;
REVOKE EXECUTE ON FUNCTION quoting FROM PUBLIC;
SELECT qml_register_hook('quoting', 'quoting', '{enqueued}');
SQL
my $late = ask($node, q(SELECT qml_enqueue('later', jsonb_build_object('ssn', secret()), 'pay', delay => '100 ms')));
wait_state($node, $late, 'enqueued');
wait_for('the hook to fail', sub { ask($node, q(SELECT last_error IS NOT NULL FROM qml.hook WHERE name = 'quoting')) eq 't' });
is(ask($node, q(SELECT last_error ~ secret() FROM qml.hook)), 't', 'who sees all jobs sees what the hook said');
is(query($node, q(SET ROLE viewer; SELECT last_error IS NULL FROM qml.hook)), 't', 'the viewer does not');
wait_for('the log', sub { log_count($node, 'hook "quoting" failed') > 0 });
is(log_count($node, '*** (SQLSTATE P8888)'), log_count($node, 'hook "quoting" failed'), 'nor does the log have it');
query($node, q(SELECT qml_unregister_hook('quoting')));

# An after-commit hook fails as a job of its own.
query($node, <<'SQL');
CREATE FUNCTION telling(event jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'told of %', event USING errcode = 'P9999';
END $$;
SELECT qml_register_hook('telling', 'telling', '{scheduled}', '{"after_commit": true, "with_payload": true}');
SELECT qml_enqueue('later', jsonb_build_object('ssn', secret()), 'pay', delay => '1 h');
SQL
wait_for('the call of the hook to end', sub { ask($node, q(SELECT count(*) FROM qml.job WHERE queue = 'qml.hooks' AND state = 'failed')) > 0 });
is(query($node, q(SELECT count(*) > 0 FROM qml.job WHERE queue = 'qml.hooks' AND state = 'failed' AND errors::text ~ secret())), 't', 'its job has quoted the payload');
cmp_ok(log_count($node, 'method "telling", attempt 1) failed for good: ***'), '>', 0, 'which is not in the log');
query($node, q(SELECT qml_unregister_hook('telling')));

# ---- a schedule whose payload is not what its handler takes any more

query($node, q(SELECT qml_schedule_recurring('soon', 'every 1 second', 'typed', jsonb_build_object('n', secret()), queue => 'pay')));
handler($node, 'typed', <<'SQL');
CREATE FUNCTION typed(n int) RETURNS void LANGUAGE sql AS ''
SQL
wait_for('a job of the schedule to fail', sub { ask($node, q(SELECT count(*) FROM qml.job WHERE method = 'typed' AND state = 'failed')) > 0 });
cmp_ok(log_count($node, 'method "typed", attempt 1) failed for good: ***'), '>', 0, 'the log says nothing of its payload');
query($node, q(SELECT qml_remove_recurring('soon')));

# ---- other sessions learn of the option at once, in whatever plan

my $viewer = new_session($node, 'postgres', extra_params => [ '-U', 'viewer' ]);
$viewer->query_safe("PREPARE look AS SELECT payload->>'ssn' FROM qml.job WHERE id = '$plain'");
is($viewer->query_safe('EXECUTE look'), 's3cr3t', 'a job of another queue is shown') for 1 .. 6;
query($node, q(SELECT qml_alter_queue('open', '{"redact": ["payload.ssn"]}')));
is($viewer->query_safe('EXECUTE look'), '***', 'until its queue hides it');
query($node, q(SELECT qml_alter_queue('open', '{"redact": null}')));
is($viewer->query_safe('EXECUTE look'), 's3cr3t', 'and shown again');
query($node, q(SELECT qml_register_handler('plain', 'echo', '{"redact": ["payload"]}')));
is($viewer->query_safe("SELECT payload FROM qml.job WHERE id = '$plain'"), '"***"', 'until its method does');
$viewer->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM qml.job LIMIT 1');
query($node, q(SELECT qml_alter_queue('open', '{"redact": ["payload.ssn"]}'); SELECT qml_unregister_handler('plain')));
is($viewer->query_safe('EXECUTE look'), '***', 'in a transaction with an old snapshot, too');
$viewer->query_safe('COMMIT');
$viewer->quit;

# ---- a standby

$node->backup('copy');
my $standby = node_of_backup('redaction_standby', $node, 'copy', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay');
is(seen($quoted, $standby), '{"ssn": "***"} "***" *** [{"error": "***"}, {"error": "***"}]', 'a standby hides the same');
fails_with($standby, '42501', "SET ROLE viewer; SELECT qml_search('payload.ssn:x')", 'and refuses the same');
is(query($standby, "SELECT payload->>'ssn' FROM qml.job WHERE id = '$quoted'"), 's3cr3t', 'who sees all jobs sees it there');

# ---- the logs

end_sessions($node);
end_sessions($standby);
foreach ($node, $standby)
{
	unlike(slurp_file($_->logfile), qr/s3cr3t/, 'the secret is nowhere in the log of ' . $_->name);
}

done_testing();
