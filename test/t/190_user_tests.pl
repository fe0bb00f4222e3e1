# The tests of users: those in examples/testing/, with pytest, Jest, RSpec and pgTAP.  Each passes, in
# any order and again; fails if the application is broken, and then shows the error that the job was
# given; and leaves nothing.
#
# A framework that is not installed is skipped; test/setup.sh brings them in.  With QML_EXAMPLES=all
# it is a failure.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

my $folder = "$FindBin::RealBin/../../examples/testing";
my $node = background_node('user_tests');
wait_for_process($node, 'scheduler', 'postgres');
$node->command_ok([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/shop.sql", $node->connstr('postgres') ],
	'the application is made');

my $npm = `npm root -g 2>/dev/null`;
chomp $npm;
local $ENV{NODE_PATH} = join ':', grep { $_ ne '' } $ENV{NODE_PATH} // '', $npm, '/usr/share/nodejs';
local $ENV{PYTHONDONTWRITEBYTECODE} = 1;
# Databases and users of their own, and no files of caches in the folder.
my @frameworks = (
	{
		name => 'pytest',
		needs => q(python3 -c 'import pytest, psycopg'),
		command => [ 'python3', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', "$folder/test_shop.py" ],
		passed => qr/^5 passed/m,
		user => 'shop',
	},
	{
		name => 'Jest',
		needs => q(jest --version && node -e 'require("pg")'),
		command => [ 'jest', '--ci', '--cache=false', "--config=$folder/jest.config.js", 'shop.test.js' ],
		passed => qr/^Tests: +5 passed, 5 total/m,
		user => 'shop',
	},
	{
		name => 'RSpec',
		needs => q(rspec --version && ruby -rpg -e ''),
		command => [ 'rspec', "$folder/shop_spec.rb" ],
		passed => qr/^5 examples, 0 failures/m,
		user => 'shop',
	},
	{
		name => 'pgTAP',
		needs => q(test -e "$(pg_config --sharedir)/extension/pgtap.control"),
		command => [ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', "$folder/shop.pgtap.sql" ],
		passed => qr/\A1\.\.9\n(?:ok \d+ - .*\n){9}\z/,
	});

# Runs the tests; whether they pass, by what they print and by their exit status.
sub run_tests
{
	my ($framework) = @_;
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres');
	local $ENV{PGUSER} = $framework->{user} if defined $framework->{user};
	my $out = '';

	IPC::Run::run($framework->{command}, '<', '/dev/null', '>&', \$out,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	my $passed = $? == 0 && $out =~ $framework->{passed};
	return ($passed, $out);
}

# What is there of jobs and of the application.
sub traces
{
	return query($node, <<'SQL');
SELECT (SELECT count(*) FROM qml.job), (SELECT count(*) FROM orders), (SELECT count(*) FROM receipts),
	(SELECT sum(count) FROM qml_counts())
SQL
}

is(traces(), '0|0|0|0', 'nothing is there');
foreach my $framework (@frameworks)
{
	my $name = $framework->{name};
	my $is_there = system("($framework->{needs}) >/dev/null 2>&1") == 0;
	ok($is_there, "$name is there") if ($ENV{QML_EXAMPLES} // '') eq 'all';
  SKIP:
	{
		skip "$name is not installed", 5 unless $is_there;
		foreach my $time ('once', 'and again')
		{
			my ($passed, $out) = run_tests($framework);
			ok($passed, "$name: the tests pass, $time") or diag($out);
		}
		is(traces(), '0|0|0|0', "$name: and leave nothing");

		query($node, "ALTER TABLE receipts ADD CONSTRAINT nobody CHECK (customer <> 'Ada')");
		my ($passed, $out) = run_tests($framework);
		ok(!$passed, "$name: they fail if the application is broken");
		query($node, 'ALTER TABLE receipts DROP CONSTRAINT nobody');
		is(traces(), '0|0|0|0', "$name: and leave nothing then, either");
	}
}

$node->stop;
done_testing();
