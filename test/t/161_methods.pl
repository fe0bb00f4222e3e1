# A worker that names its methods, behind a long backlog of other ones: measured in pages.
# Only its first fetch reads the backlog; nothing is missed for ever, wherever it comes in.
# And the forms in which drivers send the names of queues.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $OTHERS = 200_000;

# Rows that a fetch looks at again at least, and pages that it may touch: usually, and after
# a pause, when it looks at some more of what it skips.
my $AGAIN = 100;
my $FEW_PAGES = 150;
my $MANY_PAGES = 3000;

my $node = new_node('methods', conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.workers = 0
autovacuum = off
shared_buffers = 256MB
CONF

query($node, <<'SQL');
-- Pages that a query touches, and how many rows it returns.
CREATE FUNCTION pages(sql text, OUT pages int, OUT rows int) LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || sql INTO plan;
	plan := plan -> 0 -> 'Plan';
	pages := (plan ->> 'Shared Hit Blocks')::int + (plan ->> 'Shared Read Blocks')::int;
	rows := (plan ->> 'Actual Rows')::numeric;
END $$;
CREATE FUNCTION handle(payload jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT qml_register_handler('inside', 'handle');
SQL

sub enqueue_others
{
	my ($queue, $method) = @_;
	is(query($node, <<"SQL"), $OTHERS, "$OTHERS jobs of another method are ready");
SELECT count(*) FROM generate_series(1, 20) n, qml_enqueue_many('$method', array_fill(jsonb_build_object('n', n), ARRAY[$OTHERS / 20]), '$queue')
SQL
	return;
}

# Fetches in a session; returns the pages and the rows.
sub fetch_in
{
	my ($session, $queue, $methods) = @_;
	return split /\|/, $session->query_safe(
		"SELECT * FROM pages(\$sql\$SELECT * FROM qml_fetch('w', '$queue', methods => $methods)\$sql\$)");
}

foreach my $case (
	[ 'a', "'{mine}'", 'outside', 'methods are named' ],
	[ 'b', 'NULL', 'inside', 'a handler has the others' ])
{
	my ($queue, $methods, $other, $name) = @$case;
	enqueue_others($queue, $other);
	query($node, "SELECT qml_enqueue('mine', queue => '$queue') FROM generate_series(1, 30)");
	my $session = new_session($node);
	$session->query_safe('SET client_min_messages = warning');
	fetch_in($session, 'no such queue', $methods);

	my ($first, $rows) = fetch_in($session, $queue, $methods);
	is($rows, 1, "$name: the first fetch finds a job behind the backlog");
	cmp_ok($first, '>', $MANY_PAGES, "it has read the backlog: $first pages");
	my @pages = map { (fetch_in($session, $queue, $methods))[0] } 1 .. 29;
	note("pages of later ones: @pages");
	is(query($node, "SELECT count(*) FROM qml.live l WHERE method = 'mine' AND state = 'processing' AND queue_id = (SELECT id FROM qml.queue_data WHERE name = '$queue')"),
		30, 'later ones find the others');
	cmp_ok((sort { $a <=> $b } @pages)[ @pages / 2 ], '<=', $FEW_PAGES, 'and read few pages');
	cmp_ok(max(@pages), '<=', $MANY_PAGES, 'a bounded number in any case');

	# Nothing to do costs no more.
	@pages = ();
	foreach (1 .. 20)
	{
		my ($pages, $rows) = fetch_in($session, $queue, $methods);
		push @pages, $pages;
		die "there is a job" if $rows;
	}
	note("pages with nothing to do: @pages");
	cmp_ok((sort { $a <=> $b } @pages)[10], '<=', $FEW_PAGES, 'nothing to do: few pages');

	# What comes in.
	query($node, "SELECT qml_enqueue('mine', queue => '$queue')");
	is((fetch_in($session, $queue, $methods))[1], 1, 'a new job is found at once');
	query($node, "SELECT qml_enqueue('mine', queue => '$queue', priority => 1), qml_enqueue('mine', queue => '$queue', priority => -1)");
	is(join(' ', map { (fetch_in($session, $queue, $methods))[1] } 1 .. 3), '1 1 0',
		'and those of other priorities');
	foreach my $place ([ 'first', '00000000-0000-7000-8000-00000000000' . ($queue eq 'a' ? 1 : 2) ],
		[ 'in the middle', query($node, "SELECT id FROM qml.job WHERE method = '$other' AND queue = '$queue' ORDER BY id OFFSET $OTHERS / 2 LIMIT 1") ])
	{
		my ($where, $id) = @$place;
		# The id of a job that is there, with another last digit.
		$id =~ s/(.)$/$1 eq '0' ? 'f' : '0'/e if $where ne 'first';
		query($node, "SELECT qml_enqueue('mine', queue => '$queue', id => '$id')");
		my $calls = 1;
		$calls++ until (fetch_in($session, $queue, $methods))[1] || $calls > 2 * $OTHERS / $AGAIN;
		note("found by call $calls");
		cmp_ok($calls, '<=', $OTHERS / $AGAIN + 1, "a job that comes in $where is found in the end");
	}
	$session->quit;
}

# What a session of its own sees for each fetch is complete: it knows of no position.
query($node, "SELECT qml_enqueue('mine', queue => 'a', id => '00000000-0000-7000-8000-000000000009')");
is(query($node, "SELECT count(*) FROM qml_fetch('w', 'a', methods => '{mine}')"), 1, 'a new session begins at the beginning');

# ---- waiting for a method behind the backlog

foreach my $place ('behind all', 'in the middle')
{
	my $id = $place eq 'behind all' ? 'NULL' : query($node, <<'SQL');
SELECT quote_literal(left(id::text, -1) || CASE right(id::text, 1) WHEN '7' THEN '8' ELSE '7' END)
FROM qml.job WHERE method = 'outside' AND queue = 'a' ORDER BY id OFFSET 50000 LIMIT 1
SQL
	my $session = new_session($node);
	$session->query_until(qr/begins/, "\\echo begins\nCALL qml_wait('a', '150 s', '{mine}');\n");
	wait_for('a session that sleeps', sub {
		query($node, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL qml_wait%' AND wait_event_type = 'Extension'") == 1;
	});
	query($node, "SELECT qml_enqueue('outside', queue => 'a')");
	query($node, "SELECT qml_enqueue('mine', queue => 'a', id => $id)");
	like($session->query_safe('SELECT 1'), qr/^t$/m, "a wait for its method is told of a job $place");
	$session->quit;
	is(query($node, "SELECT count(*) FROM qml_fetch('w', 'a', methods => '{mine}')"), 1, 'which can be fetched');
}

# A session that has passed over the backlog is told of a job that comes in before it, and fetches it.
{
	my $session = new_session($node);
	is($session->query_safe("SELECT count(*) FROM qml_fetch('w', 'a', methods => '{mine}')"), 0, 'a session passes over the backlog');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $begin = sub {
		$session->query_until(qr/^begins$/m, "\\echo begins\nCALL qml_wait('a', '150 s', '{mine}');\n");
		wait_for('it to sleep', sub {
			query($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND state = 'active' AND wait_event_type = 'Extension'") == 1;
		});
	};
	$begin->();
	# Nothing polls: a look at some of the backlog each second would find the job in the end.
	my $before = wakeups($pid);
	sleep 3;
	cmp_ok(wakeups($pid) - $before, '<=', 1, 'while it waits it sleeps');
	my $start = time;
	query($node, "SELECT qml_enqueue('mine', queue => 'a', id => '00000000-0000-7000-8000-000000000008')");
	like($session->query_safe('SELECT 1'), qr/^t$/m, 'a wait is told of a job before the backlog');
	cmp_ok(time - $start, '<=', 4, sprintf 'at once (%.2f s)', time - $start);
	is($session->query_safe("SELECT count(*) FROM qml_fetch('w', 'a', methods => '{mine}')"), 1, 'its next fetch gets it');
	$session->quit;
}

# ---- names of queues, as drivers send them

query($node, "SELECT qml_enqueue('m', queue => q) FROM unnest('{mail,sms,\"{x\"}'::text[]) q, generate_series(1, 9)");

my $script = PostgreSQL::Test::Utils::tempdir() . '/fetch.sql';
append_to_file($script, "SELECT id FROM qml_fetch('w', :q, 2);\n");

# How many jobs of the queues are claimed by a fetch with this parameter.
sub claimed_with
{
	my ($protocol, $value) = @_;
	query($node, "SELECT count(qml_release(id, attempt)) FROM qml.job WHERE state = 'processing' AND queue IN ('mail', 'sms', '{x')");
	$node->command_ok([ 'pgbench', '-n', '-M', $protocol, '-t', 2, '-D', "q=$value", '-f', $script, 'postgres' ],
		"$protocol protocol: $value");
	return query($node, <<'SQL');
SELECT string_agg(queue || ' ' || n, ', ' ORDER BY queue) FROM (
	SELECT queue, count(*) AS n FROM qml.job WHERE state = 'processing' AND queue IN ('mail', 'sms', '{x') GROUP BY queue) q
SQL
}

foreach my $protocol (qw(simple extended prepared))
{
	my $quote = $protocol eq 'simple' ? "'" : '';
	is(claimed_with($protocol, "${quote}mail$quote"), 'mail 4', 'a name');
	is(claimed_with($protocol, "${quote}{sms,mail}$quote"), 'sms 4', 'an array literal');
	is(claimed_with($protocol, "$quote\{\"{x\"}$quote"), '{x 4', 'an array literal with a brace in a name');
}

done_testing();
