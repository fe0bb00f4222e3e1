# A hundred thousand schedules and two hundred thousand delayed jobs, never
# analyzed: what is due at the same second is fired in time, and while nothing is
# due nothing is read.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlTest;
use Test::More;

my $SCHEDULES = 100_000;
my $DUE = 1_000;
my $JOBS = 200_000;
my $SECONDS = 2;
my $ROUNDS = 3;

my $node = new_node('scale', conf => <<'CONF');
shared_preload_libraries = 'qml'
autovacuum = off
shared_buffers = 256MB
CONF

# Straight into the table, for speed; spread over the ten days from tomorrow on.
query($node, <<"SQL");
SELECT qml_create_queue('q');
INSERT INTO qml.recurring_data (id, created_at, updated_at, created_by, enabled, next_run_at, priority,
	misfire, cron, timezone, queue, method, payload)
SELECT 's' || n, now(), now(), current_user::regrole, true, t, 0,
	'fire_once', to_char(t, 'SS MI HH24 DD MM "*"'), 'UTC', 'q', 'm', '{}'
FROM generate_series(1, $SCHEDULES) n,
	LATERAL (SELECT date_trunc('second', now()) + interval '1 day' + n * 8.64 * interval '1 second') d (d),
	LATERAL (SELECT date_trunc('second', d) AS t) t;
SELECT count(*)
FROM generate_series(1, $JOBS / 1000) n,
	LATERAL qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1000]), 'q',
		run_at => now() + interval '1 day' + n * interval '1 hour');
SQL
is(query($node, 'SELECT count(*) FROM qml.recurring_data'), $SCHEDULES, "there are $SCHEDULES schedules");
is(query($node, 'SELECT count(*) FROM qml.live'), $JOBS, "and $JOBS delayed jobs");

my $pages = query($node, "SELECT pg_relation_size('qml.recurring_data') / 8192");

# A new scheduler looks at the expressions once.
my $old = query($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'qml scheduler'");
query($node, "SELECT pg_terminate_backend($old)");
ok( $node->poll_query_until('postgres', <<"SQL"), 'the scheduler has started and sleeps');
SELECT count(*) = 1 FROM pg_stat_activity
WHERE backend_type = 'qml scheduler' AND pid <> $old AND wait_event_type = 'Extension'
SQL
is(query($node, <<'SQL'), 0, 'nothing was changed by that');
SELECT count(*) FROM qml.recurring_data WHERE next_run_at < now() + interval '23 hours'
SQL

# What the scheduler reads while nothing is due, by its name.  It reports after
# each transaction, and the sessions of the test have ended.
sub reading
{
	return map { split /\|/ } split /\n/, query($node, <<'SQL');
SELECT relname || ' scans', coalesce(seq_scan, 0) FROM pg_stat_user_tables
WHERE schemaname = 'qml' AND relname IN ('recurring_data', 'live')
UNION ALL
SELECT relname || ' blocks', heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0)
FROM pg_statio_user_tables WHERE schemaname = 'qml' AND relname IN ('recurring_data', 'live')
UNION ALL
SELECT indexrelname || ' looks', idx_scan FROM pg_stat_user_indexes
WHERE schemaname = 'qml' AND indexrelname IN ('recurring_due', 'live_due')
SQL
}

# What is read until the scheduler has looked so often.
sub read_in_looks
{
	my ($looks) = @_;
	my %before = reading();

	wait_for(
		"the scheduler to look $looks times",
		sub {
			my %now = reading();
			return !grep { $now{"$_ looks"} < $before{"$_ looks"} + $looks } 'recurring_due', 'live_due';
		});
	my %after = reading();
	return map { $_ => $after{$_} - $before{$_} } keys %after;
}

# The scheduler looks once a second.  Leases that nobody told of are looked for in
# qml.live once a minute, and so are roles that have work: those are its only scans.
# They are made in pieces, so that a walk takes some looks on a busy machine, and two
# measurements do not both meet one.
sub idle
{
	my ($when, $blocks) = @_;
	my %read = read_in_looks(10);

	if ($read{'live scans'} > 0)
	{
		%read = read_in_looks(3);
		%read = read_in_looks(10);
	}
	note(join ', ', map { "$_: $read{$_}" } sort keys %read);
	is($read{'recurring_data scans'}, 0, "$when: schedules that are not due are not scanned");
	cmp_ok($read{'recurring_data blocks'} / $read{'recurring_due looks'},
		'<=', $blocks, "$when: a look at them reads few of their $pages pages");
	is($read{'live scans'}, 0, "$when: delayed jobs are not scanned");
	cmp_ok($read{'live blocks'} / $read{'live_due looks'}, '<=', 10, "$when: nor read otherwise");
	return;
}

# The walk of the new scheduler over all expressions, in pieces, is over when three looks
# go by without one.
wait_for('the walks of the start to end',
	sub { my %read = read_in_looks(3); return $read{'recurring_data scans'} == 0 && $read{'live scans'} == 0 });
idle('at first', 10);

# Several in a row, because the machine may be busy with something else.
sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return $sorted[ $#sorted / 2 ];
}

my @lags;
foreach my $round (1 .. $ROUNDS)
{
	# Nobody tells the scheduler of this; it looks every second.
	my $tick = query($node, <<"SQL");
WITH t AS (SELECT date_trunc('second', clock_timestamp()) + interval '3 s' AS t),
moved AS (UPDATE qml.recurring_data SET next_run_at = t,
	cron = to_char(t, 'SS MI HH24 DD MM "*"') FROM t
	WHERE id IN (SELECT 's' || n * 100 - $round FROM generate_series(1, $DUE) n) RETURNING 1)
SELECT t FROM t, (SELECT count(*) FROM moved) m
SQL
	ok($node->poll_query_until('postgres', <<"SQL"), "round $round: $DUE schedules are fired");
SELECT count(*) = $DUE FROM qml.occurrence_data WHERE occurrence = '$tick'
SQL
	my ($lag, $jobs) = split /\|/, query($node, <<"SQL");
SELECT round(extract(epoch FROM max(l.created_at) - '$tick'), 3), count(DISTINCT l.metadata)
FROM qml.occurrence_data o JOIN qml.live l ON l.id = o.job WHERE o.occurrence = '$tick'
SQL
	is($jobs, $DUE, "round $round: each once");
	push @lags, $lag;
}
cmp_ok(median(@lags), '<', $SECONDS,
	"the last one comes within $SECONDS s of its time (" . join(', ', @lags) . ' s)');
is(query($node, 'SELECT count(*) FROM qml.occurrence_data'), $DUE * $ROUNDS, 'no other one is fired');

# The entries of ticks that have passed are in the index until it is vacuumed.
idle('after that', 100);
is(query($node, <<'SQL'), 0, 'nobody analyzed the tables');
SELECT count(*) FROM pg_stat_user_tables
WHERE schemaname = 'qml' AND (last_analyze IS NOT NULL OR last_autoanalyze IS NOT NULL)
SQL

done_testing();
