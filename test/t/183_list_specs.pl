# Isolation specs with lists of ready jobs, which are only where qml is preloaded: those of the
# lists (test/isolation/lists), in which a session stands still at a fault point in the middle of
# a fill or of a claim; and all others, which must come to the same as without lists.

use strict;
use warnings;

use File::Basename qw(dirname);
use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;

# Not the same where qml is preloaded: a heartbeat does not fail then while somebody else has the row.
# See 126_heartbeats.pl.
my %OTHERWISE = map { $_ => 1 } qw(heartbeat_held heartbeat_reclaim succeed_succeed);

my $node = new_node('list_specs', variant => 'faults', conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.enabled = off
autovacuum = off
fsync = off
lock_timeout = '60 s'
CONF

my $top = $ENV{QML_CHECKOUT} // "$FindBin::RealBin/../..";
my $regress = dirname($ENV{PG_REGRESS}) . '/../isolation/pg_isolation_regress';

sub specs_in
{
	my ($inputs) = @_;
	return map { m{([^/]+)\.spec$} } sort glob "$inputs/specs/*.spec";
}

# Runs the specs of a folder in a database of their own; asserts that each passes.
sub run_specs
{
	my ($name, $inputs, @specs) = @_;
	my $out = "$PostgreSQL::Test::Utils::tmp_check/specs_$name";
	my $said = '';

	mkdir $out or die "could not create \"$out\": $!";
	IPC::Run::run(
		[
			$regress, '--host=' . $node->host, '--port=' . $node->port, '--user=' . scalar getpwuid $<,
			"--dbname=specs_$name", '--load-extension=qml', "--inputdir=$inputs", "--outputdir=$out", @specs
		],
		'>', \$said, '2>', \$said);
	# Of PostgreSQL 15, and of later ones.
	my %passed = map { $_ => 1 } grep { defined } $said =~ /^(?:test (\S+) +\.\.\. ok |ok \d+ +- (\S+) )/mg;
	my @failed = grep { !$passed{$_} } @specs;
	is("@failed", '', "$name: " . @specs . ' specs pass')
	  or diag($said, -e "$out/regression.diffs" ? slurp_file("$out/regression.diffs") : '');
	return;
}

my @lists = specs_in("$top/test/isolation/lists");
cmp_ok(scalar @lists, '>=', 5, 'there are specs of the lists');
run_specs('lists', "$top/test/isolation/lists", @lists);
run_specs('all', "$top/test/isolation", grep { !$OTHERWISE{$_} } specs_in("$top/test/isolation"));

done_testing();
