# In a database whose collation is not that of bytes, names are found all the same.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

my $node = background_node('collation', bare => 1);

query($node, <<'SQL');
CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8' ENCODING 'UTF8'
SQL
query($node, 'CREATE EXTENSION qml', 'icu');

# Ticks that fired are found in the record, whose index has the order of the collation.
my $names = q{unnest(ARRAY['a', 'B', 'c', 'D', 'e', 'F', '_x', '-y', 'Zeta', 'alpha', 'Ünal', 'öl', 'ol'])};
query($node, "SELECT count(qml_schedule_recurring(n, '* * * * * *', 'm')) FROM $names n", 'icu');
my $all_fire = 'SELECT bool_and(last_run_at IS NOT NULL AND next_run_at > clock_timestamp()) FROM qml.recurring_data';
ok($node->poll_query_until('icu', $all_fire), 'all schedules fire');
query($node, "SELECT pg_sleep(2)", 'icu');
query($node, "UPDATE qml.recurring_data SET next_run_at = next_run_at - interval '3 s', last_run_at = NULL", 'icu');
ok($node->poll_query_until('icu', $all_fire), 'and go on after they were set back');
is(query($node, 'SELECT count(*) FROM qml.recurring_data WHERE error IS NOT NULL', 'icu'),
	'0', 'without an error');
is(query($node, <<'SQL', 'icu'), '0', 'no tick fired twice');
SELECT count(*) - count(DISTINCT (recurring, occurrence)) FROM qml.occurrence_data
SQL

is(query($node, <<"SQL", 'icu'), '13|13|13', 'queues, locks and servers are found');
SELECT (SELECT count(qml_enqueue('m', queue => n)) FROM $names n),
	(SELECT count(*) FROM $names n WHERE qml_try_lock(n, 'o', '1 min') IS NOT NULL AND qml_unlock(n, 'o')),
	(SELECT count(*) FROM $names n WHERE qml_heartbeat_server(qml_register_server(n)))
SQL
unlike(slurp_file($node->logfile), qr/WARNING|PANIC|TRAP/, 'the log is clean');

end_sessions($node);
done_testing();
