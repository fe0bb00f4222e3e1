# Regression tests with queues that are unlogged unless they say otherwise: what the calls do, and what
# they say, is the same.  A way to jobs that was forgotten shows here.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $dir = PostgreSQL::Test::Utils::tempdir;

# Other tables, and partitions of another name.
sub convert
{
	my ($text) = @_;
	$text =~ s/\bqml\.live\b/qml.live_unlogged/g;
	$text =~ s/\bqml\.history(_overflow)?\b/qml.history_unlogged@{[ $1 \/\/ '' ]}/g;
	$text =~ s/\blive_(pkey|ready|due)\b/live_unlogged_$1/g;
	return $text;
}

# Such a life that attempts of jobs with ids of their own begin with 1, as the tests have it: times 65,536 it
# has no room in 32 bits.
my $switch = <<'SQL';
CREATE SCHEMA t;
CREATE FUNCTION t.make_unlogged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NOT NEW.options ? 'storage' AND NOT NEW.dropped THEN
		NEW.options := NEW.options || '{"storage": "unlogged"}';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER make_unlogged BEFORE INSERT OR UPDATE ON qml.queue_data FOR EACH ROW EXECUTE FUNCTION t.make_unlogged();
DO $$ BEGIN PERFORM setval('qml.unlogged_life', 65536); END $$;
SQL

# Runs a file as pg_regress does; returns what it has printed.
sub run_file
{
	my ($node, $name) = @_;
	my $sql = convert(slurp_file("$top/sql/$name.sql"));

	if ($name eq '00_setup')
	{
		$sql =~ s/^CREATE SCHEMA t;\n/$switch/m or die 'unexpected setup';
		$sql =~ s/TRUNCATE qml\.live_unlogged,/TRUNCATE qml.live_unlogged, qml.live,/ or die 'unexpected t.reset';
	}
	open my $file, '>', "$dir/$name.sql" or die $!;
	print $file $sql;
	close $file;
	local $ENV{PGTZ} = 'PST8PDT';
	local $ENV{PGDATESTYLE} = 'Postgres, MDY';
	local $ENV{PGOPTIONS} = '-c intervalstyle=postgres_verbose';
	my ($out, $error) = ('', '');
	IPC::Run::run([ 'psql', '-Xaq', '-v', 'HIDE_TABLEAM=on', '-v', 'HIDE_TOAST_COMPRESSION=on', '-d', $node->connstr('regress') ],
		'<', "$dir/$name.sql", '>&', \$out);
	return $out;
}

sub same_as_expected
{
	my ($node, $name) = @_;
	my $out = run_file($node, $name);
	my $expected = convert(slurp_file("$top/expected/$name.out"));
	return ok(1, "$name: the same") if $out eq $expected;
	ok(0, "$name: the same");
	open my $file, '>', "$dir/$name.out" or die $!;
	print $file $out;
	close $file;
	open $file, '>', "$dir/$name.expected" or die $!;
	print $file $expected;
	close $file;
	my ($diff) = run_command([ 'diff', '-u', "$dir/$name.expected", "$dir/$name.out" ]);
	return diag($diff);
}

# Without lists of ready jobs, and with them; nobody else works in these databases.
my $plain = new_node('plain', bare => 1);
my $listed = background_node('listed', bare => 1, conf => 'qml.enabled = off');
foreach my $case ([ $plain, qw(02_fetch 05_acks 06_retry 12_transactions) ],
	[ $listed, qw(03_cost 04_ready_at 04_states 05_acks 06_retry 07_control 12_transactions 22_own_id 23_succeed_fetch) ])
{
	my ($node, @names) = @$case;
	query($node, 'CREATE DATABASE regress TEMPLATE template0');
	run_file($node, '00_setup');
	is(query($node, 'SELECT count(*) FROM qml.live', 'regress'), 0, 'a database for the tests');
	same_as_expected($node, $_) foreach @names;
	is(query($node, 'SELECT count(*) FROM qml.live', 'regress') + query($node, 'SELECT count(*) FROM qml.history', 'regress'), 0, 'no job was logged');
}
done_testing();
