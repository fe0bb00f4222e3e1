# The rules and the dashboard of examples/prometheus: the rules do what they should, says promtool;
# every metric and label that they or the dashboard name is one that qml_metrics() has, every
# expression of the dashboard can be read, and a real Prometheus answers it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

my $DIR = "$FindBin::RealBin/../../examples/prometheus";
my $has_promtool = system('promtool --version >/dev/null 2>&1') == 0;
my $dash = JSON::PP->new->decode(slurp_file("$DIR/grafana.json"));
my $rules = slurp_file("$DIR/qml.rules.yml");

# Runs promtool; whether it is content, and what it says.
sub promtool
{
	my ($dir, @args) = @_;
	my $said = '';
	my $ok = IPC::Run::run([ 'promtool', @args ], '<', \undef, '>&', \$said, init => sub { chdir $dir or die; });
	return ($ok, $said);
}

# ---- rules

SKIP:
{
	skip 'there is no promtool: test/setup.sh installs the package prometheus', 1 if !$has_promtool;
	my ($ok, $said) = promtool($DIR, 'check', 'rules', 'qml.rules.yml');
	ok($ok, 'promtool reads the rules') or diag($said);
	($ok, $said) = promtool($DIR, 'test', 'rules', 'qml.rules.test.yml');
	ok($ok, 'the rules do what their tests say') or diag($said);

	# Each rule is tested: when it is another one, its test fails.
	my @alerts = $rules =~ /- alert: (\w+)/g;
	cmp_ok(scalar @alerts, '>=', 8, 'there are some');
	foreach my $alert (@alerts)
	{
		my $temp = PostgreSQL::Test::Utils::tempdir;
		my $mutant = $rules;
		$mutant =~ s/(- alert: $alert\n\s+expr: )(?:>-\n(?:\s{10}.*\n)+|.*\n)/${1}vector(1) == 2\n/ or die "$alert has no expression";
		append_to_file("$temp/qml.rules.yml", $mutant);
		append_to_file("$temp/qml.rules.test.yml", slurp_file("$DIR/qml.rules.test.yml"));
		($ok, $said) = promtool($temp, 'test', 'rules', 'qml.rules.test.yml');
		ok(!$ok && $said =~ /alertname: $alert\b/, "there is a test that needs $alert") or diag($said);
	}
}

# ---- the dashboard

my (%id, %place, @expressions);
my @panels = @{ $dash->{panels} };
my %variable = map { $_->{name} => $_ } @{ $dash->{templating}{list} };
is(join(' ', sort keys %variable), 'database datasource queue', 'its variables');
cmp_ok(scalar @panels, '>=', 15, 'it has panels');
foreach my $panel (@panels)
{
	my ($title, $grid) = ($panel->{title}, $panel->{gridPos});
	my $wrong = '';
	$wrong .= "its id is taken\n" if $id{ $panel->{id} }++;
	$wrong .= "it has no description\n" if ($panel->{description} // '') !~ /\.$/;
	$wrong .= "another data source\n" if grep { $_->{datasource}{uid} ne '${datasource}' } $panel, @{ $panel->{targets} };
	$wrong .= "beyond the border\n" if $grid->{x} < 0 || $grid->{x} + $grid->{w} > 24;
	foreach my $x ($grid->{x} .. $grid->{x} + $grid->{w} - 1)
	{
		$wrong .= "on another one\n" if grep { $place{"$x $_"}++ } $grid->{y} .. $grid->{y} + $grid->{h} - 1;
	}
	my %ref;
	foreach my $target (@{ $panel->{targets} })
	{
		$wrong .= "a query twice\n" if $ref{ $target->{refId} }++;
		push @expressions, $target->{expr};
		$wrong .= "an unknown variable \$$1\n" if $target->{expr} =~ /\$(?!__rate_interval\b|(?:database|queue)\b)(\w+)/;
	}
	is($wrong, '', "panel \"$title\"");
}
# As Grafana would fill them in.
my @filled = map { s/\$__rate_interval/1m/gr =~ s/\$(?:database|queue)/.*/gr } @expressions;

SKIP:
{
	skip 'there is no promtool', 1 if !$has_promtool;
	my $temp = PostgreSQL::Test::Utils::tempdir;
	my $n = 0;
	append_to_file("$temp/dashboard.yml", "groups:\n  - name: dashboard\n    rules:\n"
		  . join('', map { $n++; "      - record: panel:$n\n        expr: " . JSON::PP->new->allow_nonref->encode($_) . "\n" } @filled));
	my ($ok, $said) = promtool($temp, 'check', 'rules', 'dashboard.yml');
	ok($ok, 'promtool reads every expression') or diag($said);
	like($said, qr/SUCCESS: $n rules found/, 'all of them');
}

# ---- names

my $node = background_node('grafana', conf => <<'CONF');
qml.workers = 1
qml.alert_interval = 1s
qml.log_failures = off
CONF
query($node, <<'SQL');
SELECT qml_create_queue('mail', '{"max_age": "1 s"}');
SELECT count(*) FROM qml_enqueue_many('send', array_fill('{}'::jsonb, ARRAY[30]), 'mail');
CREATE TABLE claim AS SELECT id, attempt, row_number() OVER () AS n FROM qml_fetch('w', 'mail', 20);
SELECT qml_succeed(id, attempt) FROM claim WHERE n <= 12;
SELECT qml_fail(id, attempt, 'oops') FROM claim WHERE n IN (14, 15);
SQL
wait_for('an alert', sub { return query($node, q{SELECT count(*) FROM qml.alert WHERE kind = 'max_age'}) == 1; });

# Labels by the name of a metric, and those that Prometheus adds.
my %labels = (up => { job => 1, instance => 1, database => 1 });
my $text = query($node, 'SELECT qml_metrics()');
$labels{$_} //= { job => 1, instance => 1, database => 1 } foreach $text =~ /^# TYPE (\S+)/mg;
foreach my $line (grep { !/^#/ } split /\n/, $text)
{
	my ($name, $in) = $line =~ /^(\w+)(?:\{(.*)\})? / or die $line;
	$labels{$name} //= { job => 1, instance => 1, database => 1 };
	$labels{$name}{$1} = 1 while ($in // '') =~ /(\w+)="(?:[^"\\]|\\.)*"/g;
}
my %known = map { %$_ } values %labels;
my %recorded = map { $_ => 1 } $rules =~ /- record: (\S+)/g;
my @in_rules = $rules =~ /^\s+expr: (?:>-\n((?:\s{10}.*\n)+)|(.*)$)/mg;
my $unknown = '';
foreach my $expression (@expressions, grep { defined } @in_rules, map { $_->{query}{query} } grep { $_->{type} eq 'query' } values %variable)
{
	my $bare = $expression =~ s/"[^"]*"/""/gr;
	foreach my $name ($bare =~ /\b((?:qml|up)[\w:]*)\b/g)
	{
		$unknown .= "$name in $expression\n" if !$labels{$name} && !$recorded{$name};
	}
	while ($bare =~ /\b(qml_\w+|up)\{([^}]*)\}/g)
	{
		my ($name, $in) = ($1, $2);
		$unknown .= "label $_ of $name\n" foreach grep { $labels{$name} && !$labels{$name}{$_} } $in =~ /(\w+)\s*[=!]/g;
	}
	while ($bare =~ /\b(?:by|on)\s*\(([^)]*)\)/g)
	{
		$unknown .= "label $_ in $expression\n" foreach grep { !$known{$_} } split /\s*,\s*/, $1;
	}
}
is($unknown, '', 'qml_metrics() has every metric and label that is named');

# ---- a real Prometheus

SKIP:
{
	skip 'there is no prometheus: test/setup.sh installs it', 1 if system('prometheus --version >/dev/null 2>&1') != 0;
	skip 'there is no psycopg', 1 if system("/usr/bin/python3 -c 'import psycopg' 2>/dev/null") != 0;
	my ($export, $scrape) = (PostgreSQL::Test::Cluster::get_free_port(), PostgreSQL::Test::Cluster::get_free_port());
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $conf = slurp_file("$DIR/prometheus.yml");
	$conf =~ s/localhost:9818/localhost:$export/ or die 'the target is another one';
	$conf =~ s/scrape_interval: 15s/scrape_interval: 1s\n  evaluation_interval: 1s/ or die 'the interval is another one';
	append_to_file("$dir/prometheus.yml", $conf);
	append_to_file("$dir/qml.rules.yml", $rules);
	my ($out1, $out2) = ('', '');
	my $exporter = do
	{
		local @ENV{qw(PGHOST PGPORT PGDATABASE)} = ($node->host, $node->port, 'postgres');
		IPC::Run::start([ "$DIR/exporter.py", $export ], '<', \undef, '>&', \$out1);
	};
	my $server = IPC::Run::start([ 'prometheus', "--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/data",
			"--web.listen-address=localhost:$scrape", '--log.level=warn' ], '<', \undef, '>&', \$out2);
	my $ask = sub {
		my ($path) = @_;
		my $answer = `curl -s 'http://localhost:$scrape/api/v1/$path'`;
		return $answer =~ /^\{"status"/ ? JSON::PP::decode_json($answer) : { status => 'no answer' };
	};
	my $code = sub { my ($expression) = @_; return $expression =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger; };
	my $alerts = sub { return join ' ', sort map { "$_->{labels}{alertname}/" . ($_->{labels}{queue} // '') } grep { $_->{state} eq 'firing' } @{ $ask->('alerts')->{data}{alerts} // [] }; };
	eval {
		wait_for('Prometheus to pass on an alert', sub { $exporter->pump_nb; $server->pump_nb; return $alerts->() =~ m{QmlAlert/mail}; });
		1;
	} or diag($@, $out1, $out2);
	is($alerts->(), 'QmlAlert/mail', 'an alert of qml is one of Prometheus');
	# Rates need two values that differ.
	query($node, 'SELECT qml_succeed(id, attempt) FROM claim WHERE n > 15');
	my @failed;
	wait_for('all panels to have something to show', sub {
			$exporter->pump_nb;
			$server->pump_nb;
			@failed = grep { my $answer = $ask->('query?query=' . $code->($_)); $answer->{status} ne 'success' || !@{ $answer->{data}{result} } } @filled;
			return !@failed;
		});
	is("@failed", '', 'every panel has something to show');
	$_->kill_kill foreach $exporter, $server;
}

done_testing();
