# What a value of a payload means, and how a result and the time of an error are written,
# does not depend on settings: neither those of the session that enqueues, nor those of the
# role or database that the worker has, nor those that a handler sets.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

# Each as far from the fixed ones as it can be.
my %STRANGE = (
	DateStyle => 'SQL, DMY',
	TimeZone => 'Asia/Kathmandu',
	timezone_abbreviations => 'India',
	IntervalStyle => 'sql_standard',
	xmloption => 'document',
	bytea_output => 'escape',
	extra_float_digits => '-10',
	array_nulls => 'off',
	quote_all_identifiers => 'on',
);
my %OTHER = (DateStyle => 'German, YMD', TimeZone => 'America/Caracas', IntervalStyle => 'iso_8601');

my $node = background_node('settings', conf => "qml.workers = 1\n");
wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
CREATE ROLE plain LOGIN;
CREATE ROLE strange LOGIN;
CREATE TABLE public.thing (id int);
CREATE SCHEMA hidden;
CREATE TABLE hidden.thing (id int);
GRANT USAGE ON SCHEMA hidden TO plain, strange;
CREATE TYPE public.both AS (at timestamptz, kind interval);
CREATE DOMAIN public.due AS timestamptz;
SQL

# A server can be built without libxml; the type is there all the same.
my $has_xml = defined try_query($node, q{SELECT '<a/>'::xml});

# Both roles run the same function.  It answers in a way that no setting changes.
my $ARGS = join ', ',
  map { "$_ DEFAULT NULL" } 'd date', 't timestamptz', 'ts timestamp', 'due public.due', 'i interval', 'x xml', 'a text[]', 'r regclass', 'b public.both', 'f float8',
  'span tstzrange';
query($node, <<"SQL");
CREATE FUNCTION takes($ARGS) RETURNS text LANGUAGE sql SET TimeZone = 'UTC' SET DateStyle = 'ISO' SET IntervalStyle = 'postgres' SET quote_all_identifiers = 'off'
	SET search_path = pg_catalog AS \$\$
	SELECT concat_ws(' ', d, t, ts, due, i, x, to_jsonb(a), r, (b).at, (b).kind, f, span)
\$\$;
SQL
foreach my $role ('plain', 'strange')
{
	query($node, <<"SQL");
SELECT qml_register_handler('takes_$role', 'takes', '{"run_as": "$role"}');
SQL
}
query($node, join ' ', map { "ALTER ROLE strange SET $_ = '$STRANGE{$_}';" } sort keys %STRANGE);
query($node, 'ALTER ROLE strange SET search_path = hidden, public');

# The value of a key, and what the handler gets; undef: it is refused when it is enqueued.
my @VALUES = (
	[ d => '"25/03/2026"', undef ],
	[ d => '"03/04/2026"', '2026-03-04' ],
	[ d => '"2026-04-03"', '2026-04-03' ],
	[ d => '"4.3.2026"', '2026-04-03' ],
	[ t => '"2026-07-01 12:00"', '2026-07-01 12:00:00+00' ],
	[ t => '"2026-07-01T12:00:00+02:00"', '2026-07-01 10:00:00+00' ],
	[ t => '"2026-07-01 12:00 IST"', '2026-07-01 10:00:00+00' ],
	[ ts => '"13/01/2026 10:00"', undef ],
	[ due => '"2026-07-01 12:00"', '2026-07-01 12:00:00+00' ],
	[ i => '"-1 2:00:00"', '-1 days +02:00:00' ],
	$has_xml ? [ x => '"a<b/>"', 'a<b/>' ] : (),
	[ a => '"{NULL,x}"', '[null, "x"]' ],
	[ r => '"thing"', undef ],
	[ r => '"hidden.thing"', 'hidden.thing' ],
	[ b => '{"at": "2026-07-01 12:00", "kind": "-1 2:00:00"}', '2026-07-01 12:00:00+00 -1 days +02:00:00' ],
	[ f => '1.5', '1.5' ],
	[ span => '"[2026-01-02 00:00,2026-03-04 00:00)"', '["2026-01-02 00:00:00+00","2026-03-04 00:00:00+00")' ],
);

sub set
{
	my (%setting) = @_;
	return join ' ', map { "SET $_ = '$setting{$_}';" } sort keys %setting;
}

foreach my $session ([ 'of the server', '' ], [ 'strange', set(%STRANGE) . ' SET search_path = public, hidden;' ], [ 'other', set(%OTHER) ])
{
	my ($whose, $settings) = @$session;

	foreach my $value (@VALUES)
	{
		my ($key, $json, $wanted) = @$value;
		my $call = qq(qml_enqueue('METHOD', '{"$key": $json}'));

		foreach my $role ('plain', 'strange')
		{
			my $name = "$key $json, session $whose, worker $role";
			my $sql = "$settings SELECT " . $call =~ s/METHOD/takes_$role/r;

			if (defined $wanted)
			{
				my $id = query($node, $sql);
				is(outcome_of($node, $id) =~ s/\|.*//sr . ' ' . ask($node, "SELECT result #>> '{}' FROM qml_job('$id')"), "succeeded $wanted", $name);
			}
			else
			{
				fails_with($node, 'QM008', $sql, "$name: refused");
			}
		}
	}
}

# Results.
my %RESULTS = (
	"timestamptz" => [ "timestamptz '2026-07-01 12:00+02'", '"2026-07-01T10:00:00+00:00"' ],
	"interval" => [ "interval '1 day -2 hours'", '"1 day -02:00:00"' ],
	"bytea" => [ q{'\x0061'::bytea}, '"\\\\x0061"' ],
	"float8" => [ '1::float8 / 3', '0.3333333333333333' ],
	"regclass" => [ "'public.thing'::regclass", '"public.thing"' ],
	"public.both" => [ "ROW(timestamptz '2026-07-01 12:00+02', interval '1 day -2 hours')::public.both",
		'{"at": "2026-07-01T10:00:00+00:00", "kind": "1 day -02:00:00"}' ],
	"tstzrange" => [ "tstzrange('2026-07-01 12:00+02', NULL)", '"[\\"2026-07-01 10:00:00+00\\",)"' ],
	"record" => [ "(timestamptz '2026-07-01 12:00+02', 1)", '{"f1": "2026-07-01T10:00:00+00:00", "f2": 1}' ],
);
foreach my $type (sort keys %RESULTS)
{
	my ($value, $wanted) = @{ $RESULTS{$type} };
	my $method = 'gives_' . $type =~ s/\W/_/gr;

	# What the handler sets itself counts for its own work alone.
	query($node, <<"SQL");
CREATE FUNCTION $method() RETURNS $type LANGUAGE plpgsql AS \$\$
BEGIN
	SET LOCAL TimeZone = 'Asia/Tokyo';
	SET LOCAL search_path = hidden, public;
	RETURN $value;
END \$\$;
SELECT qml_register_handler('$method', '$method', '{"run_as": "strange"}');
SQL
	my $id = enqueue($node, $method);
	like(outcome_of($node, $id), qr/^succeeded/, "a result of type $type");
	is(ask($node, "SELECT result FROM qml_job('$id')"), $wanted, "and how it is written");
}
query($node, <<'SQL');
CREATE PROCEDURE puts(OUT at timestamptz, OUT kind interval) LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL TimeZone = 'Asia/Tokyo';
	at := '2026-07-01 12:00+02';
	kind := '1 day -2 hours';
	COMMIT;
END $$;
SELECT qml_register_handler('puts', 'puts', '{"run_as": "strange"}');
CREATE FUNCTION breaks() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$;
SELECT qml_register_handler('breaks', 'breaks', '{"run_as": "strange", "max_retries": 0}');
SQL
{
	my $id = enqueue($node, 'puts');
	like(outcome_of($node, $id), qr/^succeeded/, 'output arguments of a procedure');
	is(ask($node, "SELECT result FROM qml_job('$id')"), '{"at": "2026-07-01T10:00:00+00:00", "kind": "1 day -02:00:00"}', 'and how they are written');
}

# Times of errors: of a handler, and of a client.
{
	my $id = enqueue($node, 'breaks');
	like(outcome_of($node, $id), qr/^failed/, 'a job fails in the database');
	my $theirs = query($node, set(%STRANGE) . <<'SQL');
SELECT qml_enqueue('theirs', queue => 'theirs') AS id \gset
SELECT FROM qml_fetch('w', '{theirs}') f, qml_fail(f.id, f.attempt, 'broken', retry => false);
SELECT :'id';
SQL
	$theirs =~ s/.*\n//s;
	foreach my $job ($id, $theirs)
	{
		like(query($node, set(%STRANGE) . "SELECT errors -> 0 ->> 'at' FROM qml_job('$job')"), qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$/,
			'an error has its time in UTC');
		is(ask($node, "SELECT (errors -> 0 ->> 'at')::timestamptz BETWEEN created_at AND now() FROM qml_job('$job')"), 't', 'and it is right');
	}
}

# Options are stored as they are given, and mean the same to everybody.
query($node, set(%STRANGE) . q{SELECT qml_create_queue('kept', '{"lease": "-1 50:00:00"}')});
foreach my $settings ('', set(%STRANGE), set(IntervalStyle => 'iso_8601'))
{
	is(query($node, $settings . q{SELECT qml_enqueue('m', queue => 'kept') \g /dev/null
SELECT date_trunc('hour', lease_expires_at - now() + interval '1 minute') = interval '26 hours' FROM qml_fetch('w', '{kept}')}), 't', 'a lease of 50 hours less a day');
}

run_log_clean($node);
$node->stop;
done_testing();
