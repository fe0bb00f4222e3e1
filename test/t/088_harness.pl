# The adapter for a public harness of benchmarks (test/bench/qml-bench): the lines that the harness
# reads, each way to be told how much to enqueue, connections that are lost, and the end.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use JSON::PP ();
use QmlBackground;
use QmlExamples;
use QmlTest;
use Test::More;

my $ADAPTER = "$FindBin::RealBin/../bench/qml-bench";
my @METRICS = qw(claim_p50_ms claim_p95_ms claim_p99_ms enqueue_rate completion_rate queue_depth);

if (system("/usr/bin/python3 -c 'import psycopg' 2>/dev/null") != 0)
{
	plan skip_all => 'there is no psycopg';
}
my $node = background_node('harness', conf => 'qml.workers = 0');
my $manifest = json_of(slurp("$ADAPTER/adapter.json"));
$ENV{DATABASE_URL} = $node->connstr('postgres');
@ENV{qw(WORKER_COUNT SAMPLE_EVERY_S PRODUCER_RATE TARGET_DEPTH)} = (3, 1, 200, 50);

sub json_of { my ($text) = @_; return JSON::PP->new->decode($text); }

sub slurp
{
	my ($name) = @_;
	open(my $file, '<', $name) or die "$name: $!";
	local $/ = undef;
	return scalar(<$file>);
}

# Runs the adapter until it has printed a sample in which jobs were done, and some more happens.
sub run_adapter
{
	my ($name, $meanwhile) = @_;
	my ($in, $out, $err) = ('', '', '');
	my $done = qr/"completion_rate", "value": (?!0\.0,)/;
	my $run = IPC::Run::start([ '/usr/bin/python3', "$ADAPTER/main.py" ], \$in, \$out, \$err, IPC::Run::timeout(120));

	foreach my $times (1, 2)
	{
		my $from = length($out);
		wait_for(
			"$name: jobs that are done",
			sub {
				$in .= "ENQUEUE 9\n";
				$run->pump_nb;
				return substr($out, $from) =~ $done || !$run->pumpable;
			});
		$meanwhile->() if $meanwhile && $times == 1;
	}
	$run->signal('TERM');
	$run->finish;
	is($run->result(0), 0, "$name: it ends when it is told to") or diag($err);
	my ($descriptor, @samples) = map { json_of($_) } split /\n/, $out;
	is($descriptor->{kind}, 'descriptor', "$name: what it is comes first");
	is_deeply([ @{$descriptor}{qw(system event_tables extensions)} ],
		[ @{$manifest}{qw(system event_tables extensions)} ], "$name: as the manifest says");
	my %seen = map { $_->{metric} => $_ } @samples;
	is_deeply([ grep { !$seen{$_} } @METRICS ], [], "$name: all metrics are there");
	is(scalar(grep { $_->{kind} ne 'adapter' || $_->{value} !~ /^[0-9.e+-]+$/ } @samples), 0, "$name: and are numbers");
	# One whose answer is lost with the connection stays for its lease.
	is(query($node, "SELECT count(*) FROM qml.live WHERE state = 'processing'"), 0, "$name: no claim is left behind")
	  if !$meanwhile;
	cmp_ok(query($node, "SELECT count(*) FROM qml.history WHERE state = 'succeeded'"), '>', 0, "$name: jobs are done");
	return $err;
}

$ENV{PRODUCER_PACING} = 'harness';
is(run_adapter('told how many'), '', 'it has nothing to complain of');
is(query($node, 'SELECT count(*) FROM qml.job') % 9, 0, 'as many jobs a call as it was told');
$ENV{PRODUCER_PACING} = 'adapter';
run_adapter('by rate', sub { end_connections($node) });
$ENV{PRODUCER_MODE} = 'depth-target';
run_adapter('by depth');

done_testing();
