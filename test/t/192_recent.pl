# What psql shows: the view qml.recent, in lines of at most 120 columns whatever is in the jobs, and
# read from the ends of the indexes; qml-top.sql, once and by \watch; as roles that see little.

use strict;
use warnings;
use utf8;

use FindBin;
use lib $FindBin::RealBin;
use Encode qw(decode_utf8);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

my $top = "$FindBin::RealBin/../../examples/qml-top.sql";
my $node = background_node('recent', conf => "qml.workers = 0\n");
wait_for_process($node, 'scheduler', 'postgres');
query($node, q(CREATE ROLE watcher LOGIN; CREATE ROLE worker LOGIN; SELECT qml_grant('watcher', 'monitor'), qml_grant('worker', 'work', 'quiet')));

# Lines as a terminal shows them: how many columns the longest takes.
sub columns_of
{
	my ($text) = @_;
	my $most = 0;
	foreach my $line (split /\n/, decode_utf8($text))
	{
		# Ideographs are two columns wide.
		my $columns = length($line) + (() = $line =~ /\p{East_Asian_Width: W}/g);
		$most = $columns if $columns > $most;
	}
	return $most;
}

sub psql
{
	my ($user, @args) = @_;
	my $out = '';
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres', PGCLIENTENCODING => 'UTF8');
	IPC::Run::run([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-P', 'pager=off', (defined $user ? ('-U', $user) : ()), @args ],
		'<', '/dev/null', '>&', \$out, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $out;
}

my @RECENT = ('-c', 'TABLE qml.recent');

# What is short is whole; the error gets what is left.
my $id = query($node, q(SELECT qml_enqueue('fax', queue => 'a', max_retries => 0)));
query($node, qq(SELECT qml_fail(id, attempt, E'first line\\n\\tsecond\\x01, and more than fits into what is left') FROM qml_fetch_job('$id')));
like(query($node, 'SELECT id, queue, method, state, tries, error FROM qml.recent'),
	qr/^\Q$id\E\|a\|fax\|failed\|1\|first line  second , and?( m?)?\.\.\.$/, 'an error is one line, as long as there is room');
is(columns_of(psql(undef, @RECENT)), 120, 'which is used up');
is(query($node, "SELECT age ~ '^[0-9.]+(ms|s|min)\$', run_time ~ '^[0-9.]+(ms|s)\$' FROM qml.recent"), 't|t', 'durations');
is(query($node, q(SELECT string_agg(qml.brief(v::interval), ' ') FROM unnest('{-1 s,0,1 ms,999.9 ms,1.25 s,59.99 s,1 min,59.9 min,1 h,47 h,48 h,9 years,1000 years}'::text[]) v)),
	'0ms 0ms 1ms 999ms 1.2s 59.9s 1min 59min 1h 47h 2d 3240d 9999d', 'in the largest unit');
is(query($node, q(SELECT qml.brief(NULL) IS NULL, qml.one_line(NULL, 3) IS NULL)), 't|t', 'of nothing, nothing');
is(query($node, q(SELECT string_agg(qml.one_line('abcdef', w), ' ' ORDER BY w) FROM generate_series(1, 7) w)),
	'. .. ... a... ab... abcdef abcdef', 'a text is cut where it must be');
is(decode_utf8(query($node, q(SELECT qml.one_line('日本語です', 7), qml.one_line('日本語', 6), qml.one_line(E'a\u0301\u0302b', 2)))),
	"日本...|日本語|a\x{301}\x{302}b", 'characters of two columns, and of none');
fails_with($node, '22023', "SELECT qml.one_line('x', 0)", 'no width is an error');

# The longest of everything.
query($node, <<'SQL');
SELECT count(qml_enqueue(repeat('漢', 40) || n, queue => repeat('字', 30) || n % 3)) FROM generate_series(1, 70) n;
UPDATE qml.live SET state = 'awaiting_parents', attempt = 9999, created_at = now() - interval '900 years',
	errors = jsonb_build_array(jsonb_build_object('error', repeat('錯', 100)));
SQL
cmp_ok(columns_of(psql(undef, @RECENT)), '<=', 120, 'the longest names, numbers and errors fit');
is(query($node, 'SELECT count(*), min(length(error)) > 3 FROM qml.recent'), '50|t', 'and 50 are shown');
cmp_ok(columns_of(psql(undef, '-v', 'once=', '-f', $top)), '<=', 120, 'so they do in qml-top.sql');
query($node, 'TRUNCATE qml.live');

# Many: only the ends are read, of unfinished and finished ones, whoever looks.
query($node, <<'SQL');
CREATE ROLE early LOGIN;
SELECT qml_grant('early', 'work', 'early') \g /dev/null
SELECT qml_enqueue('m', queue => 'early') \g /dev/null
SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[10000]), 'busy');
SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[10000]), 'busy');
SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', 'busy', 10000);
SELECT qml_enqueue('m', queue => 'quiet') \g /dev/null
SELECT qml_create_queue('u', '{"storage": "unlogged"}') \g /dev/null
SELECT qml_enqueue('m', queue => 'u') \g /dev/null
VACUUM ANALYZE qml.live, qml.history;
SQL
foreach my $user (undef, 'watcher')
{
	my $plan = psql($user, '-Atc', 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) TABLE qml.recent');
	my $read = json($plan)->[0]{Plan};
	cmp_ok($read->{'Shared Hit Blocks'} + $read->{'Shared Read Blocks'}, '<', 1000, 'few blocks are read as ' . ($user // 'the owner')) or diag($plan);
}
# Rows that a scan has read, at most.
sub most_rows
{
	my ($plan) = @_;
	my @below = map { most_rows($_) } @{ $plan->{Plans} // [] };
	my ($most) = sort { $b <=> $a } @below, $plan->{'Actual Rows'} + ($plan->{'Rows Removed by Filter'} // 0);
	return $most;
}
{
	# Whoever sees none of so many newer ones does not read them all.
	my $plan = psql('early', '-Atc', 'EXPLAIN (ANALYZE, FORMAT JSON) TABLE qml.recent');
	cmp_ok(most_rows(json($plan)->[0]{Plan}), '<=', 5000, 'few rows are read for a role that sees few') or diag($plan);
	is(psql('early', '-Atc', 'SELECT count(*) FROM qml.recent'), "0\n", 'which is not shown what is older than these');
	is(psql('early', '-Atc', 'SELECT count(*) FROM qml.job'), "1\n", 'but finds it');
}
is(query($node, 'SELECT queue, count(*) FROM qml.recent GROUP BY 1 ORDER BY 2, 1'), "quiet|1\nu|1\nbusy|48", 'the newest of all tables');
is(psql('worker', '-Atc', 'SELECT queue, method FROM qml.recent'), "quiet|m\n", 'who sees little is shown that');
is(psql('watcher', '-Atc', 'SELECT count(*), count(error) FROM qml.recent'), "50|0\n", 'who monitors sees no errors');

# qml-top.sql
my $page = psql('watcher', '-v', 'once=', '-f', $top);
like($page, qr/^ QUEUE +ready +running .*\n busy +10000 +0 +0 +0 +0 +10000 *\n/m, 'qml-top.sql: the busiest queue');
like($page, qr/^ JOB .*\n [0-9a-f-]{36} u +m +enqueued +0 /m, 'qml-top.sql: the newest job');
unlike($page, qr/ERROR/, 'qml-top.sql: no error');
like(psql('worker', '-v', 'once=', '-f', $top), qr/ERROR:  permission denied .*\n(.*\n)*HINT: .*qml_grant\('worker', 'monitor'/,
	'qml-top.sql: who may not monitor is told how to');
{
	my $out = '';
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres', PGUSER => 'watcher');
	my $watch = IPC::Run::start([ 'psql', '-X', '-v', 'interval=0.1', '-P', 'pager=off' ],
		'<', \"\\i $top\n", '>&', \$out, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$watch->pump until $out =~ /(?:^ QUEUE.*?){3}/ms || $out =~ /ERROR/;
	$watch->kill_kill;
	like($out, qr/every 0\.1s/, 'qml-top.sql: and again, by \watch');
}

$node->stop;
done_testing();
