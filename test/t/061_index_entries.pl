# The entries that qml makes in the indexes of qml.live, looked at page by page: with an
# index that an administrator adds, whatever kind of update the server chooses, none points
# into the middle of a HOT chain.  The place that such an entry points to is given to another
# row one day, and the entry then leads to a stranger.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;

my $JOBS = 500;

my $node = new_node('entries', conf => "autovacuum = off\n");
my ($major) = query($node, 'SHOW server_version_num') =~ /^(\d+)\d{4}$/;

query($node, <<'SQL');
CREATE EXTENSION pageinspect;
CREATE EXTENSION amcheck;
-- A summarizing index: from 16 on, an update of its column alone is a HOT update.
CREATE INDEX by_start ON qml.live USING brin (started_at);

-- Where the entries of a btree on qml.live point to; posting lists hold several.
CREATE FUNCTION entries(index regclass) RETURNS SETOF tid LANGUAGE sql AS $$
	SELECT unnest(COALESCE(i.tids, ARRAY[i.htid]))
	FROM generate_series(1, pg_relation_size(index) / current_setting('block_size')::int - 1) b,
		bt_page_stats(index::text, b) s, bt_page_items(index::text, b) i
	WHERE s.type = 'l' AND (s.btpo_next = 0 OR i.itemoffset > 1) AND NOT COALESCE(i.dead, false)
$$;
-- The rows that a HOT chain goes on with (HEAP_ONLY_TUPLE), and places without a row.
CREATE FUNCTION no_targets() RETURNS SETOF tid LANGUAGE sql AS $$
	SELECT format('(%s,%s)', b, h.lp)::tid
	FROM generate_series(0, pg_relation_size('qml.live') / current_setting('block_size')::int - 1) b,
		heap_page_items(get_raw_page('qml.live', b::int)) h
	WHERE h.lp_flags = 0 OR h.t_infomask2 & 32768 <> 0
$$;
SQL

sub check_entries
{
	my ($when) = @_;
	foreach my $index ('live_pkey', 'live_ready', 'live_due')
	{
		is(query($node, "SELECT count(*) FROM entries('qml.$index') JOIN no_targets() t ON entries = t"),
			0, "$when: no entry of $index points into a HOT chain");
		is(query($node, "SELECT bt_index_check('qml.$index', true)"), '', "$when: $index has all rows");
	}
	return;
}

query($node, "SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[$JOBS]), 'a')");
is(query($node, "SELECT count(*) FROM entries('qml.live_pkey')"), $JOBS, 'an entry for each job');
check_entries('enqueued');

# Claims change started_at, heartbeats leave it as it is.
query($node, "SELECT count(*) FROM qml_fetch('w', '{a}', $JOBS)");
is(query($node, "SELECT count(*) FROM entries('qml.live_pkey')"),
	$JOBS, 'claims make no entries in other indexes') if $major >= 16;
check_entries('claimed');
is(query($node, <<"SQL"), $JOBS, 'and the summary has their times');
SET enable_seqscan = off; SELECT count(*) FROM qml.live WHERE started_at > '2000-01-01'
SQL

query($node, 'SELECT count(qml_heartbeat(id, attempt)) FROM qml.live');
check_entries('heartbeats sent');
query($node, 'VACUUM qml.live');
check_entries('vacuumed');

# Others get the places of the versions that are gone.
query($node, "SELECT qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[2 * $JOBS]), 'b')");
check_entries('places used again');
is(query($node, <<'SQL'), 0, 'each job is found by its id');
SELECT count(*) FROM qml.live l WHERE (SELECT j.id FROM qml_job(l.id) j) IS DISTINCT FROM l.id
SQL
query($node, <<'SQL');
SELECT count(qml_delete(id)) FROM qml.live WHERE state = 'processing'
SQL
is(query($node, "SELECT count(*), count(DISTINCT queue) FROM qml.job WHERE state = 'enqueued'"),
	2 * $JOBS . '|1', 'and no other job is deleted in its place');
check_entries('deleted');

# Failures and promotions change the columns of the partial indexes.
foreach my $round (1 .. 3)
{
	query($node, <<'SQL');
SELECT count(qml_fail(id, attempt, 'x', retry_at => now())) FROM qml_fetch('w', '{b}', 300);
SELECT qml_promote_due(1000);
VACUUM qml.live;
SQL
}
check_entries('retried');
is(query($node, <<'SQL'), 0, 'each job is found by its id');
SELECT count(*) FROM qml.live l WHERE (SELECT j.id FROM qml_job(l.id) j) IS DISTINCT FROM l.id
SQL

done_testing();
