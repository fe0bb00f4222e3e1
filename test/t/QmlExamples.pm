# What the tests of the programs in examples/ share: orders, receipts that are counted where
# they are sent, and connections that end.

package QmlExamples;

use strict;
use warnings;

use Exporter 'import';
use QmlTest;

our @EXPORT = qw(connect_programs count_receipts end_connections);

# Programs that are started from now on connect to the server.
sub connect_programs
{
	my ($node) = @_;
	$ENV{PGHOST} = $node->host;
	$ENV{PGPORT} = $node->port;
	$ENV{PGDATABASE} = 'postgres';
	$ENV{PGUSER} = query($node, 'SELECT current_user'); # not all drivers ask the system
	return;
}

# Makes the table of orders, with a column more, and notes in another one each time that the
# receipt of one is sent.  That of an order above 100 takes a while, so that some are on their
# way when a program ends.
sub count_receipts
{
	my ($node, $column) = @_;
	query($node, <<"SQL");
CREATE TABLE orders (id int PRIMARY KEY, $column text, receipt_sent boolean NOT NULL DEFAULT false);
CREATE TABLE receipt (order_id int);
CREATE FUNCTION count_receipt() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM pg_sleep(random() * 0.04) WHERE NEW.id > 100;
	INSERT INTO receipt VALUES (NEW.id);
	RETURN NULL;
END
\$\$;
CREATE TRIGGER counts AFTER UPDATE ON orders FOR EACH ROW WHEN (NEW.receipt_sent) EXECUTE FUNCTION count_receipt();
SQL
	return;
}

# Ends two connections of clients, if there are so many; returns how many.
sub end_connections
{
	my ($node) = @_;
	return query($node, <<'SQL');
SELECT count(pg_terminate_backend(pid))
FROM (SELECT pid FROM pg_stat_activity
      WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 2) AS victim
SQL
}

1;
