# The record of ticks over seventy days: no row goes early, none stays for ever, and a partition
# whose days are over is not written.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlClock;
use QmlTest;
use Test::More;

# A Monday; more than a turn of the partitions of ten days.
my $FIRST = clock_epoch('2026-06-01 00:00');
my $DAYS = 70;

my $node = new_clock_node('days', $FIRST);

# What each schedule is: how many days its rows are there at least, on most days, and whether it
# has a thousand ticks a day.
my %SCHEDULES = (
	'second' => [ '* * * * * *', 1 ],
	'minute' => [ '* * * * *', 1 ],
	'most days' => [ '* * * 1-28 * *', 1 ],
	'weekdays' => [ '* * * * * 1-5', 1 ],
	'hourly' => [ '@hourly', 30 ],
	'daily' => [ '@daily', 30 ],
	'interval' => [ 'every 10 minutes', 7 ]);

query($node, <<'SQL');
-- What was written, of which nothing is removed
CREATE TABLE written (LIKE qml.occurrence_data);
CREATE PROCEDURE fire() LANGUAGE plpgsql AS $$
BEGIN
	UPDATE qml.recurring_data SET next_run_at = date_trunc('second', clock_timestamp()), last_run_at = NULL
	WHERE id NOT IN ('most days', 'weekdays') OR
		CASE id WHEN 'weekdays' THEN extract(isodow FROM clock_timestamp()) <= 5
		ELSE extract(day FROM clock_timestamp()) <= 28 END;
	PERFORM qml_poll_recurring();
	INSERT INTO written SELECT o.* FROM qml.occurrence_data o
	WHERE NOT EXISTS (SELECT FROM written w WHERE (w.recurring, w.occurrence) = (o.recurring, o.occurrence));
	PERFORM qml_cleanup();
END $$;
-- How many days after a row was written the schedule fires next, if that is a day of a thousand ticks.
CREATE FUNCTION gap(recurring text, day date) RETURNS int LANGUAGE sql AS $$
	SELECT CASE
		WHEN recurring = 'weekdays' AND extract(isodow FROM day) >= 5 THEN 8 - extract(isodow FROM day)
		WHEN recurring = 'most days' AND extract(day FROM day) >= 28
			THEN (date_trunc('month', day) + interval '1 month')::date - day
		ELSE 1 END::int $$;
SQL
query($node, "SELECT qml_schedule_recurring('$_', '$SCHEDULES{$_}[0]', 'm', misfire => 'skip')") foreach sort keys %SCHEDULES;
my $kept = join ', ', map { "('$_', $SCHEDULES{$_}[1])" } sort keys %SCHEDULES;

my (@early, @lost, @over, %late);
foreach my $day (0 .. $DAYS - 1)
{
	# Soon after midnight and just before it: where a day too few shows.
	set_clock($node, $FIRST + 86400 * $day + ($day % 2 ? 120 : 86400 - 100));
	query($node, 'CALL fire()');
	push @lost, "$day: $_" foreach split /\n/, query($node, <<'SQL');
SELECT recurring FROM written w WHERE fired_at::date = current_date
	AND NOT EXISTS (SELECT FROM qml.occurrence_data o WHERE (w.recurring, w.occurrence) = (o.recurring, o.occurrence))
SQL
	push @early, "$day: $_" foreach split /\n/, query($node, <<"SQL");
SELECT w.recurring || ' of ' || w.fired_at FROM written w JOIN (VALUES $kept) k (recurring, days) USING (recurring)
WHERE current_date - fired_at::date <= least(30, greatest(days, gap(w.recurring, w.fired_at::date)))
	AND NOT EXISTS (SELECT FROM qml.occurrence_data o WHERE (w.recurring, w.occurrence) = (o.recurring, o.occurrence))
SQL
	# Of a day: two days; of longer ones: up to ten days more, and one that is over.
	push @over, "$day: $_" foreach split /\n/, query($node, <<"SQL");
SELECT o.recurring || ' of ' || o.fired_at || ' in ' || o.partition FROM qml.occurrence_data o JOIN (VALUES $kept) k (recurring, days) USING (recurring)
WHERE current_date - fired_at::date > CASE WHEN days = 1 AND gap(o.recurring, o.fired_at::date) = 1 THEN 1
	ELSE 10 + greatest(days, gap(o.recurring, o.fired_at::date) + 1) END
SQL
}
is_deeply(\@lost, [], 'what is written is in no partition that is over');
is_deeply(\@early, [], 'no row goes early');
is_deeply(\@over, [], 'none stays');

is(query($node, "SELECT count(DISTINCT recurring) FROM written"), scalar keys %SCHEDULES, 'all have fired');
is(query($node, "SELECT array_agg(DISTINCT partition ORDER BY partition) FROM written"), '{0,1,2,3,4,5,6,7,8,9}', 'all partitions were used');
is(query($node, <<'SQL'), 't', 'of every second, those before a pause are kept for longer');
SELECT bool_and((partition >= 4) = (gap(recurring, fired_at::date) > 1)) FROM written
WHERE recurring IN ('weekdays', 'most days') AND fired_at::time > '12:00'
SQL

# A partition that a prepared transaction emptied comes into use: what fires is late, nothing waits.
query($node, "SELECT count(qml_remove_recurring(id)) FROM qml.recurring_data WHERE id <> 'second'");
$node->stop;
append_to_file($node->data_dir . '/postgresql.conf', "max_prepared_transactions = 2\n");
start_with_clock($node);
my $night = $FIRST + 86400 * ($DAYS + 10);
set_clock($node, $night - 2 * 86400 - 3600);
query($node, 'CALL fire()');
set_clock($node, $night - 120);
query($node, "BEGIN; SELECT qml_cleanup(); PREPARE TRANSACTION 'ticks'");
is(query($node, q(SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation::regclass::text ~ '^qml.occurrence_\d$')),
	1, 'a prepared transaction has emptied a partition');
set_clock($node, $night - 60);
is(query($node, "SET lock_timeout = '10 s'; UPDATE qml.recurring_data SET next_run_at = date_trunc('second', clock_timestamp()); SELECT qml_poll_recurring() > 0"),
	't', 'a schedule fires');
set_clock($node, $night + 86400 + 60);
is(query($node, "SET lock_timeout = '10 s'; UPDATE qml.recurring_data SET next_run_at = date_trunc('second', clock_timestamp()); SELECT qml_poll_recurring()"),
	0, 'it is left for later where the day needs that partition');
is(query($node, "SET lock_timeout = '10 s'; SELECT qml_enqueue('m') IS NOT NULL"), 't', 'and nothing else waits');
query($node, "COMMIT PREPARED 'ticks'");
is(query($node, 'SELECT qml_poll_recurring() > 0'), 't', 'and fires then');

log_is_clean($node, 'the log is clean');
done_testing();
