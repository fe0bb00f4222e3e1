# What qml_status and qml_explain say of who takes jobs: after a restart, with lists of queues, many
# queues, workers that name methods, long jobs, jobs that are claimed by id; and of queues whose jobs
# are late.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $node = background_node('diagnosis', conf => "qml.workers = 2\nqml.dead_server_timeout = 1h\n");

sub status { return ask($node, "SELECT coalesce(ok::text, 'unknown') || ': ' || detail FROM qml_status() WHERE check_name = 'queues'"); }

# Waits until the check of queues says so.
sub queues_are
{
	my ($pattern, $name) = @_;
	my $last = '';

	eval { wait_for($name, sub { ($last = status()) =~ $pattern }); 1; };
	like($last, $pattern, $name);
	return;
}

sub reasons_of { return ask($node, "SELECT string_agg(reason, ', ') FROM qml_explain_queue('$_[0]')"); }

sub restart
{
	end_sessions($node);
	$node->restart;
	wait_for_process($node, 'scheduler', 'postgres');
	return;
}

wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE FUNCTION hold(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); END $$;
SELECT qml_register_handler('inside', 'hold');
SELECT qml_enqueue('outside', queue => 'forgotten');
SQL

# ---- a handler, and a queue that nobody has fetched from since the start, which has no list

restart();
queues_are(qr/^false: nobody takes jobs of 1 queue: "forgotten" \(1 ready job, no fetch of them since the server started/,
	'jobs without a handler, beside a handler');
query($node, q{SELECT qml_fetch('w', 'forgotten', methods => '{outside}')});
queues_are(qr/^true: /, 'once somebody fetches them');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue = 'forgotten'});

# Running jobs in front of them say nothing of them.
my $gate = new_session($node);
$gate->query_safe('SELECT pg_advisory_lock(1)');
query($node, q{SELECT qml_enqueue('inside', queue => 'long', priority => 1)});
wait_held($node, 1);
query($node, q{SELECT qml_enqueue('outside', queue => 'long')});
queues_are(qr/^false: nobody takes jobs of 1 queue: "long"/, 'a long job of a handler does not hide the others');
# A worker outside that is at work comes back.
query($node, q{SELECT qml_enqueue('other', queue => 'long'); UPDATE qml.live SET state = 'processing', attempt = 1, started_at = now(),
	worker = 'w', lease_expires_at = now() + interval '1 h' WHERE method = 'other'});
queues_are(qr/^true: /, 'a worker outside that is at work comes back');
$gate->quit;
settle($node, 'inside');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue = 'long'});

# ---- a list of queues, whose first one fills each batch

query($node, q{SELECT qml_enqueue('m', queue => q) FROM unnest('{first,first,second}'::text[]) q});
query($node, q{SELECT count(*) FROM qml_fetch('w', '{first,second}', 1)});
is(ask($node, q{SELECT count(*) FROM qml.job WHERE queue = 'second' AND state = 'enqueued'}), '1', 'the second queue has its job');
is(reasons_of('second'), 'moving', 'and is fetched from');
queues_are(qr/^true: /, 'the check says the same');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue IN ('first', 'second')});

# All queues, by one who may work some, and by one who may work all.
query($node, q{CREATE ROLE partly LOGIN; SELECT qml_grant('partly', 'work', 'third'), qml_grant('partly', 'work', 'fourth')});
query($node, q{SELECT qml_enqueue('m', queue => q) FROM unnest('{third,third,third,fourth,fifth}'::text[]) q});
as_role($node, 'partly', q{SELECT count(*) FROM qml_fetch('w', batch => 1)});
is(reasons_of('third') . '; ' . reasons_of('fourth') . '; ' . reasons_of('fifth'), 'moving; moving; nobody fetches it',
	'a fetch from all queues counts for those that the role may work');
query($node, q{SELECT count(*) FROM qml_fetch('w', batch => 1)});
is(reasons_of('fifth'), 'moving', 'for all, if it may work all');
restart();
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue IN ('third', 'fourth', 'fifth')});

# ---- by id

my $by_id = ask($node, q{SELECT qml_enqueue('m', queue => 'byid')});
ask($node, q{SELECT qml_enqueue(m, queue => 'byid') FROM unnest('{m,n}'::text[]) m});
ask($node, "SELECT attempt FROM qml_fetch_job('$by_id')");
is(ask($node, q{SELECT string_agg(detail, '; ') FROM qml_explain_queue('byid') WHERE reason = 'nobody fetches it'}),
	q{no handler is registered for method "n", and those who fetch from queue "byid" name other methods}, 'a claim by id is one of its method');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue = 'byid'});

# ---- drains are no worker's

query($node, q{SELECT qml_enqueue('inside', queue => 'tested'), qml_enqueue('m', queue => 'tested')});
query($node, q{BEGIN; SELECT qml_drain('tested'); ROLLBACK});
like(ask($node, q{SELECT detail FROM qml_explain_queue('tested') WHERE reason = 'nobody fetches it'}), qr/nobody has fetched from queue "tested" since/,
	'a drain that is rolled back is no fetch');
settle($node, 'inside');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue = 'tested'});

# ---- workers that name methods

query($node, q{SELECT qml_enqueue('aa', queue => 'named') FROM generate_series(1, 20)});
my $bb = ask($node, q{SELECT qml_enqueue('bb', queue => 'named')});
ask($node, q{SELECT count(*) FROM qml_fetch('w', 'named', methods => '{bb}') f, qml_release(f.id, f.attempt)});
is(ask($node, "SELECT string_agg(reason, ', ') FROM qml_explain('$bb')"), 'ready', 'jobs of other methods are not before it');
ask($node, q{SELECT count(*) FROM qml_fetch('w', 'named', methods => '{aa,bb}', batch => 1) f, qml_release(f.id, f.attempt)});
like(ask($node, "SELECT string_agg(reason || ': ' || detail, ', ') FROM qml_explain('$bb')"), qr/^behind other jobs: 20 jobs /, 'unless workers name these, too');
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue = 'named'});

# ---- jobs of a queue that are late

set_config($node, 'qml.enable_scheduler' => 'off');
wait_for('the setting', sub { ask($node, 'SHOW qml.enable_scheduler') eq 'off' });
query($node, q{SELECT qml_create_queue('late'); SELECT count(*) FROM qml_fetch('w', 'late'); SELECT qml_enqueue('m', queue => 'late', delay => '1 h')});
is(reasons_of('late'), 'scheduler is off, no ready jobs', 'a delayed job needs the scheduler');
query($node, q{SELECT qml_enqueue('m', queue => 'late'); UPDATE qml.live SET run_at = now() - interval '5 min' WHERE run_at IS NOT NULL});
is(reasons_of('late'), 'scheduler is off, due but not ready', 'it is due, and nothing has made it ready');
like(ask($node, q{SELECT detail FROM qml_explain_queue('late') WHERE reason = 'due but not ready'}),
	qr/^1 job is due, the first one for 5 minutes, and nothing has made it ready$/, 'since when');
query($node, q{SELECT remedy FROM qml_explain_queue('late') WHERE reason = 'due but not ready' \gexec});
is(reasons_of('late'), 'moving', 'the remedy helps');
query($node, q{CREATE TABLE claims AS SELECT * FROM qml_fetch('w', 'late', 1, '1 h')});
query($node, q{UPDATE qml.live SET lease_expires_at = now() - interval '1 min' WHERE id IN (SELECT id FROM claims)});
is(reasons_of('late'), 'scheduler is off, lease is over', 'a lease that is over');
query($node, q{SELECT remedy FROM qml_explain_queue('late') WHERE reason = 'lease is over' \gexec});
is(reasons_of('late'), 'moving', 'the remedy takes the job back');
my $bound = new_session($node);
$bound->query_safe(q{SELECT id FROM qml_fetch('w', 'late', 1, '0')});
$bound->quit;
wait_for('a worker to be gone', sub { reasons_of('late') eq 'scheduler is off, worker is gone' });
is(reasons_of('late'), 'scheduler is off, worker is gone', 'a session that has ended');
query($node, q{SELECT remedy FROM qml_explain_queue('late') WHERE reason = 'worker is gone' \gexec});
is(reasons_of('late'), 'moving', 'the remedy takes the job back');
set_config($node, 'qml.enable_scheduler' => undef);
query($node, q{SELECT qml_delete(id) FROM qml.job WHERE queue = 'late'});

# ---- numbers that are never known

end_sessions($node);
set_config($node, 'qml.databases' => 'nosuch');
$node->restart;
is(status(), 'unknown: the numbers of jobs are not known, because no background process counts them here', 'without a scheduler it says so');
end_sessions($node);
set_config($node, 'qml.databases' => undef);
$node->restart;
wait_for_process($node, 'scheduler', 'postgres');

# ---- many queues

# More than memory has places for at 4,096 queues if each took two of 8,192; and far more than it has.
query($node, <<'SQL');
SELECT qml_unregister_handler('inside');
CREATE PROCEDURE fetch_from(lowest int, highest int) LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN lowest .. highest LOOP
		PERFORM qml_enqueue('m', queue => 'q' || n);
		PERFORM qml_enqueue('m', queue => 'q' || n);
		PERFORM id FROM qml_fetch('w', 'q' || n, 1);
		IF n % 500 = 0 THEN
			COMMIT;
		END IF;
	END LOOP;
END $$;
CALL fetch_from(1, 5000);
SQL
queues_are(qr/^true: 5000 queues have ready jobs, and somebody to take them$/, '5,000 queues are remembered');
query($node, 'CALL fetch_from(5001, 19000)');
# Those in work would come back.
query($node, q{UPDATE qml.live SET state = 'enqueued', lease_expires_at = NULL, server = NULL, worker = NULL WHERE state = 'processing'});
queues_are(qr/^unknown: (of \d+ queues with ready jobs it is not known whether somebody takes them; |somebody takes jobs of the first 10000 )/,
	'what is forgotten is not taken for not fetched');
is(ask($node, q{SELECT count(*) FROM generate_series(1, 19000, 100) n, qml_explain_queue('q' || n) WHERE reason = 'nobody fetches it'}), '0',
	'nor by qml_explain_queue');
cmp_ok(ask($node, q{SELECT count(*) FROM generate_series(1, 19000, 10) n, qml_explain_queue('q' || n) WHERE detail LIKE '%more queues and methods%'}), '>', 0,
	'which says that it is not known');

$node->stop;
done_testing();
