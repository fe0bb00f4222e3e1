# Jobs in the database run in READ COMMITTED, whatever the settings of their role say.
# A procedure may choose another level for what follows its COMMIT: what it calls of
# qml works there too, and so does the end of its job.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlBackground;
use QmlJobs qw(enqueue handler outcome_of run run_log_clean wait_state);
use QmlTest;
use Test::More;

my $node = background_node('levels');

query($node, <<'SQL');
CREATE ROLE strict LOGIN;
ALTER ROLE strict SET default_transaction_isolation = 'serializable';
SQL

handler($node, 'level', <<'SQL', options => '{"run_as": "strict"}');
CREATE FUNCTION level(payload jsonb) RETURNS text LANGUAGE sql
AS $$ SELECT current_setting('transaction_isolation') $$
SQL
is(run($node, 'level'), 'succeeded|1', 'a job of a role with another level');
is(query($node, "SELECT result FROM qml.job WHERE method = 'level'"),
	'"read committed"', 'runs in READ COMMITTED');

handler($node, 'inside', <<'SQL', options => '{"max_retries": 0}');
CREATE PROCEDURE inside(payload jsonb) LANGUAGE plpgsql AS $$
DECLARE
	job uuid;
BEGIN
	-- of the transaction that follows
	PERFORM set_config('default_transaction_isolation', lower(payload ->> 'level'), false);
	COMMIT;
	job := (qml_current_job()).id;
	ASSERT (SELECT state FROM qml.job j WHERE j.id = job) = 'processing';
	ASSERT current_setting('transaction_isolation') = lower(payload ->> 'level');
	IF payload ? 'progress' THEN
		PERFORM qml_progress(payload -> 'progress');
		PERFORM pg_sleep(0.3);
	END IF;
	PERFORM qml_enqueue('child', payload, 'children');
	CASE payload ->> 'end'
		WHEN 'later' THEN PERFORM qml_retry_later('1 h', 'not yet');
		WHEN 'discard' THEN PERFORM qml_discard('no more');
		WHEN 'error' THEN RAISE EXCEPTION 'oops';
		ELSE NULL;
	END CASE;
END $$
SQL

my %OUTCOME = (
	well => qr/^succeeded\|1$/,
	later => qr/^awaiting_retry\|1/,
	discard => qr/^deleted\|1/,
	error => qr/^failed\|1\|P0001/);

foreach my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	foreach my $end (sort keys %OUTCOME)
	{
		my $id = enqueue($node, 'inside', qq({"level": "$level", "end": "$end"}));

		like(
			$end eq 'later' ? wait_state($node, $id, 'awaiting_retry') : outcome_of($node, $id),
			$OUTCOME{$end}, "$level: a job that ends: $end");
	}
	# The scheduler writes it into the job's row, which is a change by another.
	is(run($node, 'inside', qq({"level": "$level", "end": "well", "progress": 7})), 'succeeded|1',
		"$level: a job that tells of its progress");
}
is(query($node, "SELECT count(*) FROM qml.job WHERE queue = 'children' AND payload->>'end' <> 'well'"),
	4, 'children are there of those that did not fail');
is(run($node, 'level'), 'succeeded|1', 'the next job');
is(query($node, "SELECT string_agg(DISTINCT result::text, ' ') FROM qml.job WHERE method = 'level'"),
	'"read committed"', 'is in READ COMMITTED again');
run_log_clean($node, 'no process crashed');
end_sessions($node);
done_testing();
