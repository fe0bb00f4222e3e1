# qml_metrics(): what it prints is as Prometheus wants it, says promtool, and a real Prometheus
# reads it from the exporter of examples/prometheus.  Names that are hard to print are escaped.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Select;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

seed();
my $node = background_node('metrics', variant => 'faults', conf => <<'CONF');
qml.workers = 0
qml.log_failures = off
CONF

# Every character that the format has a meaning for; others that it does not.
my $HARD = q{say "hi" \\ {a="b",c='d'} # 1 é 漢 %};
query($node, <<'SQL');
CREATE FUNCTION fill(queue text, jobs int, method text DEFAULT 'm') RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM qml_enqueue_many(method, array_fill('{}'::jsonb, ARRAY[jobs]), queue)
$$;
SELECT fill('mail', 30, 'send'), fill('mail', 5, 'bounce');
CREATE TABLE claim AS SELECT id, attempt, row_number() OVER () AS n FROM qml_fetch('w', 'mail', 20);
SELECT qml_succeed(id, attempt) FROM claim WHERE n <= 12;
SELECT qml_fail(id, attempt, 'oops', retry => false) FROM claim WHERE n = 13;
SELECT qml_fail(id, attempt, 'oops') FROM claim WHERE n IN (14, 15);
SELECT qml_create_queue('paused'), qml_pause_queue('paused');
SQL
$node->psql('postgres', q{SELECT fill(:'q', 1, :'q')}, extra_params => [ '-v', "q=$HARD" ], on_error_stop => 1);
query($node, "BEGIN; SELECT fill('mail', 100); ROLLBACK");

# The samples, by name with its labels.
sub samples
{
	my ($text) = @_;
	return map { /^(\S+?(?:\{.*\})?) (\S+)$/ ? ($1 => $2) : die "not a sample: $_" } grep { !/^#/ } split /\n/, $text;
}
my $text = query($node, 'SELECT qml_metrics()');
my %sample = samples($text);
is($sample{'qml_jobs_enqueued_total{queue="mail",method="send"}'}, 30, 'jobs by queue and method');
is($sample{'qml_jobs_finished_total{queue="mail",method="send",state="succeeded"}'}, 12, 'those that succeeded');
is($sample{'qml_jobs_finished_total{queue="mail",method="send",state="failed"}'}, 1, 'those that failed');
is($sample{'qml_attempts_retried_total{queue="mail",method="send"}'}, 2, 'attempts that are retried');
is($sample{'qml_jobs{queue="mail",state="processing"}'}, 5, 'jobs by state');
is($sample{'qml_jobs{queue="mail",state="enqueued"}'}, 15, 'others');
is($sample{'qml_queue_paused{queue="paused"}'}, 1, 'a queue that is paused');
is($sample{'qml_queue_paused{queue="mail"}'}, 0, 'and one that is not');
is($sample{'qml_job_wait_seconds_count{queue="mail",method="send"}'}, 20, 'waits');
is($sample{'qml_job_run_seconds_count{queue="mail",method="send"}'}, 15, 'runs');
is($sample{'qml_job_run_seconds_bucket{queue="mail",method="send",le="+Inf"}'}, 15, 'the last bucket has all');
cmp_ok($sample{'qml_job_run_seconds_sum{queue="mail",method="send"}'}, '>', 0, 'the sum of their times');
is($sample{'qml_jobs{queue="mail",state="failed"}'}, 1, 'what is left of those that have ended');
cmp_ok($sample{'qml_oldest_ready_age_seconds{queue="mail"}'}, '>', 0, 'the age of the oldest one');
is($sample{'qml_oldest_ready_age_seconds{queue="paused"}'}, '0.000', 'and of none');
my $escaped = $HARD =~ s/([\\"])/\\$1/gr;
is($sample{"qml_jobs_enqueued_total{queue=\"$escaped\",method=\"$escaped\"}"}, 1, 'names are escaped');

# Buckets grow, and their bounds too.
my %last;
my $wrong = '';
foreach my $line (grep { /_bucket\{/ } split /\n/, $text)
{
	my ($series, $bound, $count) = $line =~ /^(.*),le="([^"]*)"\} (\d+)$/ or die $line;
	$bound = 9**9**9 if $bound eq '+Inf';
	$wrong .= "$line\n" if exists $last{$series} && ($last{$series}[0] >= $bound || $last{$series}[1] > $count);
	$last{$series} = [ $bound, $count ];
}
is($wrong, '', 'buckets are cumulative');
is(scalar(keys %last), 6, 'of each series two histograms');

SKIP:
{
	skip 'there is no promtool: test/setup.sh installs the package prometheus', 2 if system('promtool --version >/dev/null 2>&1') != 0;
	my $said = '';
	IPC::Run::run([ 'promtool', 'check', 'metrics' ], '<', \"$text\n", '>&', \$said);
	is($? >> 8, 0, 'promtool reads it');
	is($said, '', 'and has nothing to say');
}

# A text that would be too large has as many series as there is room for, and says so.
$node->stop;
$node->append_conf('postgresql.conf', "qml.faults = 'metrics.most_kb:limit:64'");
$node->start;
query($node, q{SELECT fill('mail', 1, 'k' || n) FROM generate_series(1, 50) n});
my $bounded = query($node, 'SELECT qml_metrics()');
my $inside = () = $bounded =~ /^qml_jobs_enqueued_total\{/mg;
cmp_ok($inside, '>', 3, 'series that there is room for');
cmp_ok($inside, '<', 20, 'and no more');
cmp_ok(length($bounded) - length($bounded =~ s/^qml_job(s_(enqueued|finished)|_).*\n//mgr), '<=', 64 * 1024, 'they stay within it');
my ($out) = $bounded =~ /^qml_stats_series_left_out (\d+)$/m;
is($inside + $out, query($node, q{SELECT count(*) FROM qml_stats() WHERE method IS NOT NULL}), 'those that are left out are told');
$node->append_conf('postgresql.conf', "qml.faults = ''");
$node->restart;
like(query($node, 'SELECT qml_metrics()'), qr/^qml_stats_series_left_out 0$/m, 'usually there are none');
is(query($node, q{SELECT count(qml_delete(id)) FROM qml.job WHERE method ~ '^k\d+$'}), 50, 'the jobs go');

SKIP:
{
	skip 'there is no prometheus: test/setup.sh installs it', 7 if system('prometheus --version >/dev/null 2>&1') != 0;
	skip 'there is no psycopg', 7 if system("/usr/bin/python3 -c 'import psycopg' 2>/dev/null") != 0;
	my ($export, $scrape) = (PostgreSQL::Test::Cluster::get_free_port(), PostgreSQL::Test::Cluster::get_free_port());
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $conf = slurp_file("$FindBin::RealBin/../../examples/prometheus/prometheus.yml");
	$conf =~ s/localhost:9818/localhost:$export/ or die 'the target is another one';
	$conf =~ s/scrape_interval: 15s/scrape_interval: 1s/ or die 'the interval is another one';
	append_to_file("$dir/prometheus.yml", $conf);
	append_to_file("$dir/qml.rules.yml", slurp_file("$FindBin::RealBin/../../examples/prometheus/qml.rules.yml"));
	if (system('promtool --version >/dev/null 2>&1') == 0)
	{
		my $said = '';
		IPC::Run::run([ 'promtool', 'check', 'config', "$dir/prometheus.yml" ], '>&', \$said);
		is($? >> 8, 0, 'its configuration is good') or diag($said);
	}
	else
	{
		pass('its configuration is not checked');
	}
	query($node, 'CREATE ROLE watcher LOGIN');
	query($node, q{SELECT qml_grant('watcher', 'monitor')});
	my ($out1, $out2) = ('', '');
	my $exporter = do
	{
		local @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)} = ($node->host, $node->port, 'postgres', 'watcher');
		IPC::Run::start([ "$FindBin::RealBin/../../examples/prometheus/exporter.py", $export ], '<', \undef, '>&', \$out1);
	};
	my $server = IPC::Run::start(
		[
			'prometheus', "--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/data",
			"--web.listen-address=localhost:$scrape", '--log.level=warn'
		],
		'<', \undef, '>&', \$out2);
	# The value of an expression; undef: there is none.
	my $value = sub {
		my ($expression) = @_;
		my $code = $expression =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger;
		my $answer = `curl -s 'http://localhost:$scrape/api/v1/query?query=$code'`;
		# It is not there yet, or not ready.
		return if $answer !~ /^\{"status":"success"/;
		my $result = JSON::PP::decode_json($answer)->{data}{result};
		return @$result ? $result->[0]{value}[1] : undef;
	};
	eval {
		wait_for('prometheus to read it', sub { $exporter->pump_nb; $server->pump_nb; return ($value->('sum(qml_jobs_enqueued_total)') // 0) == 86; });
		1;
	} or diag($@, $out1, $out2);
	is($value->('qml_jobs_finished_total{queue="mail",method="send",state="succeeded"}'), 12, 'a real Prometheus has read it');
	is($value->('up{job="qml"}'), 1, 'the exporter is up');
	is($value->('histogram_quantile(0.5, qml_job_run_seconds_bucket{queue="mail",method="send"}) < bool 60'), 1, 'it computes percentiles');
	# A client that sends nothing keeps no other from being served, and is disconnected.
	my $idle = IO::Socket::INET->new(PeerAddr => "localhost:$export") or die $!;
	like(`curl -s -m 5 http://localhost:$export/metrics`, qr/^qml_info/m, 'while a client is silent others are served');
	ok(IO::Select->new($idle)->can_read(30) && !sysread($idle, my $byte, 1), 'and it is disconnected');
	# It goes on after a restart.
	$node->restart;
	query($node, q{SELECT fill('mail', 4, 'send')});
	ok( eval { wait_for('prometheus to read it again', sub { return ($value->('qml_jobs_enqueued_total{queue="mail",method="send"}') // 0) == 34; }); 1; },
		'counters go on after a restart');
	$_->kill_kill foreach $exporter, $server;
}

done_testing();
