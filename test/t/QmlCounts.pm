# What the tests of numbers of jobs share: what differs between the numbers and the rows, and
# whether numbers are had without reading rows.

package QmlCounts;

use strict;
use warnings;

use Exporter 'import';
use QmlTest;

our @EXPORT = qw(is_counted pages $COUNT_HELPERS $MOST_PAGES);

# Pages that reading numbers may touch.
our $MOST_PAGES = 5;

# differences(): what differs between the numbers and the rows, which one snapshot sees.
# pages(query): pages that a query touches.
our $COUNT_HELPERS = $PAGES . <<'SQL';
CREATE FUNCTION differences() RETURNS text LANGUAGE sql AS $$
	WITH said AS MATERIALIZED (SELECT queue, state, count FROM qml_queue_counts()),
		sums AS MATERIALIZED (SELECT state, count FROM qml_counts()),
		depths AS MATERIALIZED (SELECT q.name AS queue, qml_queue_depth(q.name) AS depth FROM qml.queue q),
		rows AS MATERIALIZED (SELECT queue, state, count(*) AS count FROM qml.job GROUP BY 1, 2)
	SELECT coalesce(string_agg(x, ', ' ORDER BY x), 'none') FROM (
		SELECT format('%s %s: %s for %s', queue, state, coalesce(s.count, 0), coalesce(r.count, 0))
		FROM said s FULL JOIN rows r USING (queue, state)
		WHERE s.count IS DISTINCT FROM r.count
		UNION ALL
		SELECT format('%s: %s for %s', state, s.count, coalesce(r.count, 0))
		FROM sums s LEFT JOIN (SELECT state, sum(count) AS count FROM rows GROUP BY 1) r USING (state)
		WHERE s.count IS DISTINCT FROM coalesce(r.count, 0)
		UNION ALL
		SELECT format('depth of %s: %s for %s', d.queue, d.depth, coalesce(r.count, 0))
		FROM depths d LEFT JOIN rows r ON (r.queue, r.state) = (d.queue, 'enqueued')
		WHERE d.depth IS DISTINCT FROM coalesce(r.count, 0)) d (x)
$$;
SQL

sub pages
{
	my ($node, $query, $dbname) = @_;
	return ask($node, "SELECT pages('$query')", $dbname);
}

# Numbers are used when they can be had without touching many pages: there must be more pages of
# jobs than that.
sub is_counted
{
	my ($node, $dbname) = @_;
	return pages($node, 'SELECT * FROM qml_counts()', $dbname) <= $MOST_PAGES;
}

1;
