# qml_search: its indexes have what they must have, pages neither repeat nor leave out anything while jobs
# change, an answer costs little whatever is in the tables, a partial one says so and can be
# continued; on a standby, after a crash, and restored from a dump.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

# Pages that a page of an answer may touch, with so many jobs.
my ($MOST, $FINISHED, $WAITING) = (500, 60_000, 30_000);
my $dir = PostgreSQL::Test::Utils::tempdir;

my $node = background_node('search', init => { allows_streaming => 1 }, conf => <<'CONF');
autovacuum = off
qml.workers = 0
qml.log_failures = off
CONF
wait_for_process($node, 'scheduler', 'postgres');
query($node, $PAGES . <<'SQL');
CREATE EXTENSION amcheck;
-- All that a query finds, in pages.
CREATE FUNCTION in_pages(query text, size int) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
	page uuid[];
	after text;
BEGIN
	LOOP
		SELECT array_agg(id) INTO page FROM (SELECT id FROM qml_search(query, size, after)) s;
		EXIT WHEN page IS NULL;
		after := page[cardinality(page)];
		RETURN QUERY SELECT unnest(page);
	END LOOP;
END $$;
SQL

sub count_of { return query($node, "SELECT count(*) FROM qml_search('$_[0]', 10000)"); }

# All rows, and no others, have entries in the indexes of searches: computed by SQL, they are those that
# C code has made.
sub check_indexes
{
	my ($when) = @_;
	my $wrong = query($node, <<'SQL');
SET client_min_messages = warning;
SELECT bt_index_check(indexrelid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relname ~ '_(search|state|own|end|later)$' AND c.relnamespace = 'qml'::regnamespace;
SELECT 'none'
SQL
	like($wrong, qr/none\z/, "$when: indexes agree with their tables");
	return;
}

# ---- What C code enters is what SQL would

query($node, <<'SQL');
SELECT qml_create_queue(q) FROM unnest('{a,b,c}'::text[]) q;
SELECT qml_create_queue('u', '{"storage": "unlogged"}');
SELECT qml_enqueue_many('m' || n % 5, array_fill('{"n": 1}'::jsonb, ARRAY[40]), (ARRAY['a', 'b', 'c', 'u'])[1 + n % 4],
	priority => n % 3, delay => CASE WHEN n % 5 = 0 THEN interval '1 h' END) FROM generate_series(1, 12) n;
SELECT qml_enqueue('own', queue => q, id => gen_random_uuid(), delay => CASE WHEN n % 2 = 0 THEN interval '1 h' END)
	FROM generate_series(1, 20) n, unnest('{a,u}'::text[]) q;
CREATE TABLE seen AS SELECT id FROM qml_search('', 10000);
SQL
is(query($node, 'SELECT count(*) FROM seen'), 520, 'all jobs are found');
check_indexes('enqueued');
foreach my $queue ('a', 'b', 'c', 'u')
{
	query($node, <<"SQL");
SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', '$queue', 20);
SELECT count(qml_fail(id, attempt, 'Broken Pipe', 'io', retry => false)) FROM qml_fetch('w', '$queue', 10);
SELECT count(qml_fail(id, attempt, 'again', retry_at => now() + interval '1 h')) FROM qml_fetch('w', '$queue', 10);
SELECT count(qml_delete(id)) FROM (SELECT id FROM qml_search('queue:$queue state:enqueued', 5)) s;
SELECT count(qml_retry(id)) FROM (SELECT id FROM qml_search('queue:$queue state:failed', 3)) s;
SELECT count(*) FROM qml_fetch('w', '$queue', 5);
SQL
}
check_indexes('finished');
is(query($node, <<'SQL'), 520 . '|520', 'after that, too, each job once');
SELECT count(*), count(DISTINCT id) FROM qml_search('', 10000)
SQL
is(count_of("state:$_"), query($node, "SELECT count(*) FROM qml.job WHERE state = '$_'"), "as many as there are: $_")
  foreach qw(scheduled enqueued processing awaiting_retry succeeded failed deleted);
cmp_ok(query($node, "SELECT pages('SELECT * FROM qml_search(''state:processing'')') IS NULL; SELECT pages('SELECT * FROM qml_search(''state:processing'')') < 150") =~ /t\z/, '==', 1, 'running ones are known from memory');
foreach my $level ('READ COMMITTED', 'REPEATABLE READ')
{
	is(query($node, <<"SQL"), '6|6|1', "what the transaction has claimed and made is seen, too: $level");
BEGIN ISOLATION LEVEL $level;
CREATE TEMP TABLE mine AS SELECT id FROM qml_fetch('w', 'a', 6);
CREATE TEMP TABLE made AS SELECT qml_enqueue('mine', queue => 'a') AS id;
SELECT count(*), count(s.id), (SELECT count(*) FROM made JOIN qml_search('method:mine') USING (id))
	FROM mine m LEFT JOIN qml_search('state:processing', 1000) s USING (id);
ROLLBACK;
SQL
}

# ---- Pages while jobs change

query($node, <<'SQL');
CREATE TABLE page_of (n bigint GENERATED ALWAYS AS IDENTITY, id uuid, place bigint);
CREATE PROCEDURE walk() LANGUAGE plpgsql AS $$
DECLARE
	after text;
	page uuid[];
BEGIN
	LOOP
		SELECT array_agg(id) INTO page FROM (SELECT id FROM qml_search('', 7, after)) s;
		EXIT WHEN page IS NULL;
		INSERT INTO page_of (id, place) SELECT p.id, qml.search_order(j.id, j.created_at)
			FROM unnest(page) WITH ORDINALITY p (id, o) LEFT JOIN qml.job j ON j.id = p.id ORDER BY p.o;
		after := page[cardinality(page)];
		COMMIT;
	END LOOP;
END $$;
CREATE PROCEDURE churn() LANGUAGE plpgsql AS $$
DECLARE
	q text;
BEGIN
	FOR round IN 1..40 LOOP
		FOREACH q IN ARRAY ARRAY['a', 'b', 'c', 'u'] LOOP
			PERFORM qml_enqueue('new', queue => q), qml_enqueue('new', queue => q, id => gen_random_uuid());
			PERFORM qml_fail(id, attempt, 'no', retry => random() < 0.5) FROM qml_fetch('w', q, 3);
			PERFORM qml_succeed(id, attempt) FROM qml_fetch('w', q, 2);
			PERFORM qml_retry(id) FROM (SELECT id FROM qml_search('state:failed queue:' || q, 2)) s;
			COMMIT;
		END LOOP;
	END LOOP;
END $$;
SQL
my $churn = fork;
die 'cannot fork' unless defined $churn;
if ($churn == 0)
{
	# Without the ends of the test.
	exec { 'psql' } 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', 'CALL churn()';
}
query($node, 'CALL walk()');
waitpid $churn, 0;
is($?, 0, 'jobs were changed meanwhile');
is(query($node, 'SELECT count(*) - count(DISTINCT id) FROM page_of'), 0, 'no job is on two pages');
is(query($node, 'SELECT count(*) FROM seen WHERE id NOT IN (SELECT id FROM page_of)'), 0, 'and none is left out');
is(query($node, <<'SQL'), 0, 'they are in one order over all pages');
SELECT count(*) FROM (SELECT place, lag(place) OVER (ORDER BY n) AS before FROM page_of) p WHERE place > before
SQL
check_indexes('changed');

# ---- What a page costs

query($node, <<"SQL");
SELECT qml_create_queue(q) FROM unnest('{big,small,later}'::text[]) q;
-- Finished jobs of the last hours, of which one in a hundred has failed.
CREATE FUNCTION id_of(at timestamptz) RETURNS uuid LANGUAGE sql AS \$\$
	SELECT (substr(t, 1, 8) || '-' || substr(t, 9, 4) || '-7' || substr(r, 1, 3) || '-8' || substr(r, 4, 3) || '-' || substr(r, 7, 12))::uuid
	FROM (SELECT lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS t, md5(random()::text) AS r) x
\$\$;
INSERT INTO qml.history (id, created_at, queue_id, priority, max_retries, lineage, created_by, state, attempt, finished_at, expires_at, started_at, method, payload, errors)
	SELECT id_of(at), at, (SELECT id FROM qml.queue_data WHERE name = CASE WHEN n % 1000 = 0 THEN 'small' ELSE 'big' END), 0, 5, 0, current_user::regrole,
		(CASE WHEN n % 100 = 0 THEN 'failed' WHEN n % 150 = 1 THEN 'deleted' ELSE 'succeeded' END)::qml.job_state, 1,
		at + interval '2 s', (SELECT max(expires_at) FROM qml.history), at + interval '1 s', CASE WHEN n % 2000 = 3 THEN 'rare' ELSE 'work' || n % 10 END,
		jsonb_build_object('n', n), CASE WHEN n % 100 = 0 THEN '[{"error": "x", "error_type": "E"}]'::jsonb END
	FROM generate_series(1, $FINISHED) n, LATERAL (SELECT now() - n * interval '250 ms' AS at) x;
SELECT qml_enqueue_many('work1', array_fill('{}'::jsonb, ARRAY[1000]), 'big') FROM generate_series(1, $WAITING / 1000);
SELECT qml_enqueue_many('late', array_fill('{}'::jsonb, ARRAY[1000]), 'later', delay => '1 d') FROM generate_series(1, 5);
SELECT count(*) FROM qml_fetch('w', 'big', 20);
ANALYZE qml.live; ANALYZE qml.history;
SQL
# The jobs were added by SQL: their numbers are known again when the scheduler has counted them.
wait_for('the numbers of jobs', sub { query($node, "SELECT pages('SELECT * FROM qml_counts()') IS NULL; SELECT pages('SELECT * FROM qml_counts()') < 20") =~ /t\z/ });
my %pages;
foreach my $sought (
	'', 'state:failed', 'state:succeeded', 'state:deleted|failed', 'state:enqueued', 'state:scheduled', 'state:processing', 'state:awaiting_retry',
	'queue:big', 'queue:small', 'queue:later', 'queue:small state:failed', 'queue:later state:scheduled', 'queue:none',
	'method:work3 state:succeeded', 'method:rare state:succeeded', 'method:rare queue:small|big', 'method:late state:scheduled', 'method:work1',
	'finished:<1h', 'finished:2h..1h', 'finished:<1m', 'finished:<1m state:failed', 'finished:2h..119m', 'finished:..2020', 'created:2h..1h',
	'queue:small finished:2h..1h', 'priority:0', 'by:postgres')
{
	# The first call of a session reads catalogs.
	my $found = query($node, "SET client_min_messages = error; SELECT pages('SELECT * FROM qml_search(''$sought'')') IS NULL; SELECT pages('SELECT * FROM qml_search(''$sought'')')");
	($pages{$sought}) = $found =~ /(\d+)\s*\z/;
	cmp_ok($pages{$sought}, '<=', $MOST, "\"$sought\" touches $pages{$sought} pages");
}
my ($one) = query($node, 'SELECT id FROM qml.history LIMIT 1');
is(query($node, "SELECT pages('SELECT * FROM qml_search(''id:$one'')') IS NULL; SELECT pages('SELECT * FROM qml_search(''id:$one'')') <= $MOST"), "f\nt", 'by id');
is(count_of("queue:big method:work3 state:succeeded created:2h..119m"), query($node, <<'SQL'), 'all of a minute');
SELECT count(*) FROM qml.job WHERE queue = 'big' AND method = 'work3' AND state = 'succeeded' AND created_at BETWEEN now() - interval '2 h' AND now() - interval '119 m'
SQL

# ---- Partial answers

my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT count(*) FROM qml_search('payload.n:59999')");
like($err, qr/WARNING:  01QM4: not all unfinished jobs were looked at\n.*WARNING:  01QM4|WARNING:  01QM4: not all (?:unfinished )?jobs were looked at/s, 'that an answer is partial is told');
is(query($node, "SET qml.search_limit = 2000000; SELECT count(*) FROM qml_search('payload.n:59999')"), 1, 'with a higher limit it is found');
# To go on from where it ended gives all of it.
my ($after, $found, $calls) = ('NULL', 0, 0);
while ($calls++ < 100)
{
	($rc, $out, $err) = $node->psql('postgres', "SET client_min_messages = warning; SELECT count(*) FROM qml_search('state:succeeded payload.n:1..60000 payload.n:>59900', 10000, $after)");
	$found += $out;
	last if $err !~ /after => ('@-?\d+ [0-9a-f-]{36}')/;
	$after = $1;
}
is($found, query($node, "SELECT count(*) FROM qml.history WHERE state = 'succeeded' AND (payload ->> 'n')::int > 59900"), "in $calls calls everything is found");
cmp_ok($calls, '>', 3, 'each of which looked at a part');

# An index that an administrator makes finds methods among unfinished jobs.
query($node, "SELECT qml_enqueue('needle', queue => 'a')");
query($node, "SELECT qml_enqueue_many('work1', array_fill('{}'::jsonb, ARRAY[1000]), 'big') FROM generate_series(1, 15)");
($rc, $out, $err) = $node->psql('postgres', "SELECT count(*) FROM qml_search('method:needle')");
is("$out " . ($err =~ /not all jobs were looked at/ ? 'partial' : 'complete'), '0 partial', 'behind a backlog a method is not found');
query($node, 'CREATE INDEX live_search ON qml.live (qml.search_key(queue_id, method), qml.search_order(id, created_at))');
($rc, $out, $err) = $node->psql('postgres', "SELECT count(*) FROM qml_search('method:needle')");
is("$out$err", '1', 'with an index of its own it is');
query($node, "SELECT qml_enqueue('needle', queue => 'b')");
is(count_of('method:needle'), 2, 'which is kept up to date');
check_indexes('with another index');

# ---- A standby, a crash, a dump

$node->backup('copy');
my $standby = node_of_backup('standby', $node, 'copy', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay');
is(query($standby, "SELECT count(*), count(DISTINCT id) FROM qml_search('queue:a|b|c', 10000)"),
	query($node, "SELECT count(*), count(DISTINCT id) FROM qml_search('queue:a|b|c', 10000)"), 'a standby is searched');
is(query($standby, "SELECT count(*) FROM qml_search('state:processing queue:a|b|c', 10000)"), query($node, "SELECT count(*) FROM qml.job WHERE state = 'processing' AND queue IN ('a', 'b', 'c')"), 'running jobs, too');
is(query($standby, "SELECT count(*) FROM qml_search('queue:u')"), 0, 'without the jobs of unlogged queues');
$standby->stop;

cmp_ok(count_of('queue:u'), '>', 0, 'which the primary has');
kill_server($node);
start_again($node);
is(count_of('queue:u'), 0, 'until it crashes');
is(query($node, 'SELECT count(*) FROM seen s JOIN qml.job j USING (id)'), query($node, 'SELECT count(*) FROM seen s JOIN (SELECT id FROM qml_search($$queue:a|b|c$$, 10000)) j USING (id)'), 'all others are found');

query($node, 'CREATE DATABASE copy');
command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", $node->connstr('postgres') ], 'dumped');
command_ok([ 'pg_restore', '-d', $node->connstr('copy'), "$dir/dump" ], 'restored');
is(query($node, <<'SQL', 'copy'), query($node, <<'SQL'), 'indexes and constraints are restored');
SELECT count(*), count(DISTINCT pg_get_indexdef(i.indexrelid)) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname ~ '_(search|state|own|end|later)$'
	AND c.relname NOT LIKE 'live_search';
SELECT count(*), string_agg(DISTINCT pg_get_constraintdef(oid), ' ' ORDER BY pg_get_constraintdef(oid)) FROM pg_constraint WHERE conname IN ('live_state', 'history_state');
SQL
SELECT count(*), count(DISTINCT pg_get_indexdef(i.indexrelid)) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname ~ '_(search|state|own|end|later)$'
	AND c.relname NOT LIKE 'live_search';
SELECT count(*), string_agg(DISTINCT pg_get_constraintdef(oid), ' ' ORDER BY pg_get_constraintdef(oid)) FROM pg_constraint WHERE conname IN ('live_state', 'history_state');
SQL
is(query($node, "SELECT count(*) FROM qml_search('queue:a|b|c', 10000)", 'copy'), query($node, "SELECT count(*) FROM qml_search('queue:a|b|c', 10000)"), 'a copy that is not adopted is searched');
query($node, "SELECT qml_adopt()", 'copy');
is(query($node, "SELECT qml_enqueue('m', queue => 'a') IS NOT NULL; SELECT count(*) FROM qml_search('method:m queue:a')", 'copy'), "t\n1", 'and works');

done_testing();
