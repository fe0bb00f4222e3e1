# Everything that can be done to a job is done by eight clients at once to the
# same few jobs: no deadlock, no error but the ones that tell of a change by
# another, and every job is in one place in the end.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlChecker;
use QmlTest;
use Test::More;

my $JOBS = 400;
my $CALLS = 24_000;

my $node = new_node('control');

query($node, <<"SQL");
SELECT qml_create_queue(q, '{"max_retries": 3, "retry": {"strategy": "fixed", "delay": "5 ms"}}')
FROM unnest('{a,b,c}'::text[]) q;

CREATE TABLE job AS
SELECT n, qml_enqueue('m', queue => (ARRAY['a', 'b', 'c'])[1 + n % 3], priority => n % 4) AS id
FROM generate_series(1, $JOBS) n;
CREATE UNIQUE INDEX ON job (n);

-- the key tells of an attempt that is given out twice
CREATE TABLE claimed (id uuid, attempt int, PRIMARY KEY (id, attempt));
CREATE TABLE outcome (call text, state text);

-- One call about one job.  What another did meanwhile may forbid it.
CREATE FUNCTION act(call text, job uuid) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	held record;
	answer text := 'ok';
BEGIN
	IF call IN ('succeed', 'fail', 'fail for good', 'release', 'heartbeat', 'leave') THEN
		FOR held IN SELECT id, attempt FROM qml_fetch('w', NULL, 1 + (random() * 3)::int, '20 ms') LOOP
			INSERT INTO claimed VALUES (held.id, held.attempt);
			CASE call
				WHEN 'succeed' THEN PERFORM qml_succeed(held.id, held.attempt);
				WHEN 'fail' THEN PERFORM qml_fail(held.id, held.attempt, 'x');
				WHEN 'fail for good' THEN PERFORM qml_fail(held.id, held.attempt, 'x', retry => false);
				WHEN 'release' THEN PERFORM qml_release(held.id, held.attempt);
				WHEN 'heartbeat' THEN PERFORM qml_heartbeat(held.id, held.attempt, '20 ms');
				ELSE NULL;
			END CASE;
		END LOOP;
	ELSE
		CASE call
			WHEN 'late succeed' THEN
				PERFORM qml_succeed_many(coalesce(array_agg(c.id), '{}'), coalesce(array_agg(c.attempt), '{}'))
				FROM (SELECT DISTINCT ON (id) * FROM claimed WHERE id >= job ORDER BY id, attempt DESC LIMIT 5) c;
			WHEN 'late fail' THEN
				PERFORM qml_fail(job, (SELECT coalesce(max(attempt), 0) FROM claimed c WHERE c.id = job), 'late');
			WHEN 'retry' THEN PERFORM qml_retry(job);
			WHEN 'schedule' THEN PERFORM qml_reschedule(job, now() + random() * interval '20 ms');
			WHEN 'delete' THEN PERFORM qml_delete(job, 'chosen');
			WHEN 'set failed' THEN PERFORM qml_set_state(job, 'failed');
			WHEN 'set enqueued' THEN PERFORM qml_set_state(job, 'enqueued');
			WHEN 'set retry' THEN PERFORM qml_set_state(job, 'awaiting_retry');
			WHEN 'maintain' THEN PERFORM qml_promote_due(), qml_reclaim();
			WHEN 'cleanup' THEN PERFORM qml_cleanup();
			WHEN 'pause' THEN PERFORM qml_pause_queue('a'), qml_resume_queue('a');
			WHEN 'alter' THEN
				PERFORM qml_alter_queue('b', jsonb_build_object('succeeded_ttl',
					(1 + (random() * 20)::int) || ' days'));
			WHEN 'read' THEN
				PERFORM qml_job(job);
				PERFORM * FROM qml_queue_counts();
		END CASE;
	END IF;
	INSERT INTO outcome VALUES (call, answer);
EXCEPTION
	WHEN SQLSTATE 'QM001' OR SQLSTATE 'QM002' OR SQLSTATE 'QM003' OR SQLSTATE '22023' THEN
		INSERT INTO outcome VALUES (call, SQLSTATE);
END
\$\$;
SQL

my @CALLS = (
	('succeed') x 2, ('fail') x 8, ('fail for good') x 4, ('release') x 6, ('heartbeat') x 4,
	('leave') x 6, 'late succeed', ('late fail') x 6, ('retry') x 12, ('schedule') x 8,
	'delete', ('set failed') x 2, ('set enqueued') x 4, ('set retry') x 2, ('maintain') x 8,
	'cleanup', 'pause', 'alter', ('read') x 4);
my $list = join ',', map { "'$_'" } @CALLS;
my $each = $CALLS / 8;

$node->pgbench(
	"--no-vacuum --client=8 --jobs=2 --transactions=$each --random-seed=" . seed(), 0,
	[qr/processed: $CALLS\/$CALLS/], [qr/^(?!.*(ERROR|aborted)).*$/s],
	'eight clients do everything at once',
	{
		'015_control' => "\\set n random(1, $JOBS)\n\\set call random(1, " . @CALLS . ")\n"
		  . "SELECT act((ARRAY[$list])[:call], (SELECT id FROM job WHERE n = :n));\n"
	});

note(query($node, 'SELECT call, state, count(*) FROM outcome GROUP BY 1, 2 ORDER BY 1, 2'));
is( query($node, <<'SQL'), scalar(keys %{ { map { $_ => 1 } @CALLS } }),
SELECT count(DISTINCT call) FROM outcome WHERE state = 'ok'
SQL
	'each call was accepted at some time');
is(query($node, <<'SQL'), '', 'every job is in one place');
SELECT id, array_agg(place) FROM job LEFT JOIN
	(SELECT id, 'live' AS place FROM qml.live UNION ALL SELECT id, 'history' FROM qml.history) p
	USING (id)
GROUP BY id HAVING count(place) <> 1
SQL
is(query($node, 'SELECT count(*), count(DISTINCT id) FROM qml.job'), "$JOBS|$JOBS",
	'and seen once');
is(query($node, <<'SQL'), '', 'no attempt was begun but those that were given out');
SELECT id, attempt, n FROM qml.job JOIN
	(SELECT id, count(*) AS n, max(attempt) AS last FROM claimed GROUP BY id) c USING (id)
WHERE attempt <> n OR attempt <> last
SQL
is(query($node, <<'SQL'), '', 'columns agree with states');
SELECT id, state FROM qml.live
WHERE (run_at IS NOT NULL) <> (state IN ('scheduled', 'awaiting_retry'))
	OR (lease_expires_at IS NOT NULL) <> (state = 'processing')
	OR state IN ('succeeded', 'failed', 'deleted')
UNION ALL
SELECT id, state FROM qml.history WHERE state NOT IN ('succeeded', 'failed', 'deleted')
SQL

my $facts = QmlChecker::load_facts($node->connstr('postgres'));
is_deeply([ QmlChecker::check_counts($facts) ], [], 'the counters are right');
is_deeply([ QmlChecker::check_indexes($node->connstr('postgres')) ], [], 'the indexes are right');
is_deeply([ QmlChecker::check_server_log($node->logfile, {}) ], [], 'the log is clean');

# What is left can be worked off.
ok( $node->poll_query_until('postgres', <<'SQL'),
SELECT count(qml_succeed(id, attempt)) >= 0 AND (SELECT count(*) = 0 FROM qml.live
	WHERE (SELECT qml_promote_due() + qml_reclaim()) >= 0)
FROM qml_fetch('last', NULL, 1000)
SQL
	'the rest is worked off');
is(query($node, 'SELECT count(*), count(DISTINCT id) FROM qml.history'), "$JOBS|$JOBS",
	'every job is finished, once');

done_testing();
