# The scripts in examples/ that newcomers run first: they print what the file beside
# each of them shows (ids of jobs are normalized), and leave nothing behind.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;

my $examples = "$FindBin::RealBin/../../examples";

# A server that has nothing of qml but its installation, and preloads another library.
my $node = new_node('setup', bare => 1, conf => "shared_preload_libraries = 'auto_explain'\n");
my @restart = ('pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-s', 'restart');

# Runs a script; what it prints, errors among it, with one id instead of all.
sub output_of
{
	my (@command) = @_;
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres');
	my $out = '';

	IPC::Run::run(\@command, '<', '/dev/null', '>&', \$out,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return normalized($out);
}

sub normalized
{
	my ($text) = @_;
	return $text =~ s/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/<id>/gr;
}

sub shown
{
	my ($name) = @_;
	return normalized(slurp_file("$examples/$name.out"));
}

my $setup = "$examples/postgresql_setup.sh";
like(output_of($setup), qr/^usage/, 'postgresql_setup.sh without a command says how to call it');
is(output_of($setup, @restart), shown('postgresql_setup'), 'postgresql_setup.sh prints what is shown');
$node->_update_pid(1);
is(query($node, 'SHOW shared_preload_libraries'), 'auto_explain, qml', 'the other library is still preloaded');
like(output_of($setup, 'false'), qr/extension "qml" already exists/,
	'called again it stops, without a restart');

foreach my $script ('basic_job', 'processing', 'storage')
{
	foreach my $time ('once', 'and again')
	{
		is(output_of('psql', '-X', '-f', "$examples/$script.sql"),
			shown($script), "$script.sql prints what is shown: $time");
	}
}
is(query($node, 'SELECT name FROM qml.queue ORDER BY name'), 'parcels', 'no other queue is left');
is(query($node, 'SELECT method FROM qml.handler'), 'send', 'no handler is left');
is(query($node, 'SELECT count(*) FROM qml.recurring'), '0', 'no schedule is left');
is(query($node, "SELECT count(*) FROM pg_namespace WHERE nspname IN ('basic_job', 'processing', 'storage')"),
	'0', 'no schema is left');

$node->stop;
done_testing();
