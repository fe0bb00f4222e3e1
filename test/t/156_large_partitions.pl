# The scheduler drops a large partition in pieces, each in a transaction of its own, between
# which it does what is due; wherever that is interrupted, it goes on, and what is left of the
# partition can be looked at.  Several who clean up at once do not disturb each other.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;

avoid_midnight();

my $PIECE = 128; # blocks, a megabyte

my $node = background_node('large', variant => 'faults', conf => <<'CONF');
qml.cleanup_interval = 1
qml.enable_cleanup = off
autovacuum = off
wal_level = replica
wal_keep_size = 1GB
CONF

# Pieces of a megabyte, and further faults.
sub arm
{
	my (@faults) = @_;
	set_config($node, 'qml.faults' => join(',', 'shrink.piece_mb:limit:1', @faults));
	return;
}

sub cleanup
{
	my ($on) = @_;
	set_config($node, 'qml.enable_cleanup' => $on ? 'on' : 'off');
	return;
}

# An expired partition of some megabytes, with a TOAST table of some more; $part: of the rows.
# Rows with values there are all over the table.
sub large_leaf
{
	my ($days_ago, $part) = @_;
	my $leaf = expired_leaf($node, $days_ago, ($part // 1) * 25_000);
	my $toasted = ($part // 1) * 1000;

	query($node, <<"SQL");
UPDATE qml.$leaf SET payload = (SELECT jsonb_build_object('n', string_agg(md5(n::text || id::text), '')) FROM generate_series(1, 200) n)
WHERE id IN (SELECT id FROM qml.$leaf LIMIT $toasted);
CLUSTER qml.$leaf USING ${leaf}_id;
SQL
	return $leaf;
}

sub is_there
{
	my ($leaf) = @_;
	return query($node, "SELECT to_regclass('qml.$leaf') IS NOT NULL") eq 't';
}

sub toast_of
{
	my ($leaf) = @_;
	return query($node, "SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'qml.$leaf'::regclass");
}

# Everything in the middle of it can be read, dumped and vacuumed.
sub is_sound
{
	my ($leaf, $when) = @_;
	my $dump = PostgreSQL::Test::Utils::tempdir . '/dump.sql';

	query($node, "VACUUM qml.$leaf; ANALYZE qml.$leaf");
	$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], "$when: pg_dump reads it");
	$node->command_ok([ 'pg_amcheck', '--install-missing', '--heapallindexed', 'postgres' ], "$when: it is sound");
	# As pg_upgrade asks for it.
	is(query($node, "SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = '@{[toast_of($leaf)]}'::regclass"), 't', "$when: the TOAST table has its index");
	return $dump;
}

sub marked
{
	return query($node, 'SELECT count(*) FROM pg_inherits WHERE inhdetachpending');
}

# ---- What is written

arm();
my $leaf = large_leaf(3);
my %files; # number of the file: name, blocks
foreach my $row (split /\n/, query($node, <<"SQL"))
SELECT pg_relation_filenode(oid), relname, pg_relation_size(oid) / current_setting('block_size')::int FROM pg_class c
WHERE oid = 'qml.$leaf'::regclass OR oid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'qml.$leaf'::regclass)
	OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN ('qml.$leaf'::regclass, (SELECT reltoastrelid FROM pg_class WHERE oid = 'qml.$leaf'::regclass)))
SQL
{
	my ($file, $name, $blocks) = split /\|/, $row;
	$files{$file} = { name => $name, blocks => $blocks };
}
is(scalar(keys %files), 4, 'a table, its TOAST table, and an index of each');
my $total = 0;
$total += $_->{blocks} foreach values %files;
cmp_ok($total, '>', 10 * $PIECE, "with $total blocks");
query($node, 'CHECKPOINT');
my $begin = query($node, 'SELECT pg_current_wal_insert_lsn()');
cleanup(1);
wait_for('the partition to go', sub { !is_there($leaf) });
my $end = query($node, 'SELECT pg_current_wal_flush_lsn()');
cleanup(0);
my $bin = query($node, "SELECT setting FROM pg_config WHERE name = 'BINDIR'");
# Without a file it looks at any, also at one that is made ahead and has nothing in it.
my $file = query($node, "SELECT pg_walfile_name(pg_lsn '$begin' + 1)");
my ($out, $error) = run_command([ "$bin/pg_waldump", '-p', $node->data_dir . '/pg_wal', '-s', $begin, '-e', $end, $file ]);
is($error, '', 'the WAL is read');
my ($pieces, $since, $largest) = (0, 0, 0);
foreach my $line (split /\n/, $out)
{
	$since = 0 if $line =~ /desc: COMMIT/;
	next unless $line =~ m{desc: TRUNCATE base/\d+/(\d+) to (\d+) blocks} && $files{$1};
	my ($file, $to) = ($files{$1}, $2);
	my $cut = $file->{blocks} - $to;
	$largest = $cut if $cut > $largest;
	$since++;
	fail("two pieces in one transaction") if $since > 1;
	$file->{blocks} = $to;
	$pieces++;
}
cmp_ok($largest, '<=', $PIECE, 'no piece is larger than a megabyte');
cmp_ok($pieces, '>=', $total / $PIECE - 2, "cut off in $pieces pieces");
my $left = 0;
$left += $_->{blocks} foreach values %files;
cmp_ok($left, '<=', $PIECE, "what was dropped at the end is small ($left blocks)");
is(marked(), 0, 'nothing is left of the mark');
is(query($node, "SELECT qml_enqueue('m'); SELECT count(*) FROM qml.job") =~ s/.*\n//r, 1, 'and all goes on');

# ---- In the middle

# Three pieces, and no more: there are rows in those behind them.
$leaf = large_leaf(3, 1.2);
my $id = query($node, "SELECT id FROM qml.$leaf LIMIT 1");
my $size = query($node, "SELECT pg_relation_size('qml.$leaf')");
arm('shrink.before_piece:always:4');
my $offset = -s $node->logfile;
cleanup(1);
wait_for('a few pieces to be cut off', sub { slurp_file($node->logfile, $offset) =~ /qml fault point "shrink.before_piece" reached/ });
cleanup(0);
cmp_ok(query($node, "SELECT pg_relation_size('qml.$leaf')"), '<', $size, 'the partition is smaller');
is(marked(), 1, 'and marked');
is(query($node, "SELECT bool_or(indislive) FROM pg_index WHERE indrelid = 'qml.$leaf'::regclass"), 'f', 'no index of it is used');
my $rows = query($node, "SELECT count(*) FROM qml.$leaf");
cmp_ok($rows, '>', 0, "the $rows rows that are left can be read");
cmp_ok($rows, '<', 25_000, 'others are gone');
cmp_ok(query($node, "SET enable_seqscan = off; SELECT count(*) FROM qml.$leaf WHERE id = '$id'"), '<=', 1, 'also by id');
cmp_ok(query($node, "SELECT count(*) FROM qml.$leaf WHERE length(payload::text) > 6000"), '>', 0, 'with values of the TOAST table');
query($node, "UPDATE qml.$leaf SET priority = 1 WHERE id = '$id'");
my $dump = is_sound($leaf, 'some rows left');
is(query($node, 'SELECT count(*) FROM qml.job'), 1, 'nobody else reads it');
is(query($node, "SELECT count(id) FROM qml_job('$id')"), 0, 'nor looks for a job there');
is(query($node, "SET default_transaction_isolation = 'repeatable read'; SELECT count(id) FROM qml_job('$id')"), 0, 'with no snapshot');

# A restore makes an ordinary partition of it, without the indexes.
query($node, 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-o', PostgreSQL::Test::Utils::tempdir . '/restore.out', '-d', $node->connstr('restored'), '-f', $dump ], 'the dump is restored');
query($node, 'SELECT qml_adopt()', 'restored');
is(query($node, "SELECT count(*) FROM pg_index WHERE indrelid = 'qml.$leaf'::regclass", 'restored'), 0, 'the partition has no index there');
foreach my $level ('read committed', 'repeatable read')
{
	is(query($node, "SET default_transaction_isolation = '$level'; SELECT count(id) FROM qml_job('$id')", 'restored'), 0, "$level: nobody looks for a job in it");
	fails_with($node, 'QM001', "SET default_transaction_isolation = '$level'; SELECT qml_retry('$id')", "$level: nor to change it", dbname => 'restored');
}
my $restored = query($node, 'SELECT qml_cleanup()', 'restored');
cmp_ok($restored, '>', 0, "the cleanup there drops it ($restored rows)");
is(query($node, "SELECT to_regclass('qml.$leaf') IS NULL", 'restored'), 't', 'it is gone');
end_sessions($node);
query($node, 'DROP DATABASE restored WITH (FORCE)');

# So does pg_upgrade, here to the same version.
{
	my $upgraded = background_node('upgraded', variant => 'faults', stopped => 1, conf => "qml.enable_cleanup = off\n");
	my $bindir = $node->config_data('--bindir');
	my ($out, $err) = ('', '');

	$node->stop;
	my $ok = IPC::Run::run([ 'pg_upgrade', '--no-sync', '-b', $bindir, '-B', $bindir, '-d', $node->data_dir, '-D', $upgraded->data_dir,
			'-s', $upgraded->host, '-p', $node->port, '-P', $upgraded->port ],
		'<', \undef, '>', \$out, '2>', \$err, init => sub { chdir PostgreSQL::Test::Utils::tempdir });
	ok($ok, 'pg_upgrade in the middle of it') or diag(substr "$out$err", -2000);
	$upgraded->start;
	query($upgraded, 'SELECT qml_adopt()');
	is(query($upgraded, 'SELECT count(*) FROM pg_inherits WHERE inhdetachpending'), 0, 'pg_upgrade: no partition is marked there');
	is(query($upgraded, "SELECT count(*) FROM qml.$leaf"), query($upgraded, "SELECT count(*) FROM qml.history"), 'pg_upgrade: the rest is an ordinary partition');
	is(query($upgraded, "SELECT count(*) FROM pg_index WHERE indrelid = 'qml.$leaf'::regclass"), 0, 'pg_upgrade: without indexes');
	is(query($upgraded, "SELECT count(id) FROM qml_job('$id')"), 0, 'pg_upgrade: nobody looks for a job in it');
	is(query($upgraded, "SELECT count(*) FROM qml.job WHERE method = 'm'"), 1, 'pg_upgrade: jobs are as they were');
	set_config($upgraded, 'qml.enable_cleanup' => 'on', 'qml.cleanup_interval' => 1, 'qml.faults' => 'shrink.piece_mb:limit:1');
	wait_for('the partition to go', sub { query($upgraded, "SELECT to_regclass('qml.$leaf') IS NULL") eq 't' });
	is(query($upgraded, 'SELECT count(*) FROM pg_inherits WHERE inhdetachpending'), 0, 'pg_upgrade: the scheduler drops it there');
	unlike(slurp_file($upgraded->logfile), qr/could not make or drop|PANIC|TRAP|XX\d{3}/, 'pg_upgrade: and meets no error');
	$upgraded->stop;
	$node->start;
}
# A crash below is not to drop it again.
query($node, 'CHECKPOINT');

# A view that came meanwhile keeps the table, but not the mark.
query($node, "CREATE VIEW kept AS SELECT id FROM qml.$leaf");
arm();
cleanup(1);
wait_for('the log to say so', sub { slurp_file($node->logfile, $offset) =~ /expired partition "qml.$leaf" was detached, but could not be dropped/ });
is(marked(), 0, 'a view that came in the middle holds up no other partition');
cleanup(0);
query($node, "DROP TABLE qml.$leaf CASCADE");

# When all rows are gone, the values in the TOAST table are cut.
$leaf = large_leaf(3);
my $toast = toast_of($leaf);
my $values = query($node, "SELECT pg_relation_size('$toast')");
$offset = -s $node->logfile;
arm('shrink.before_piece:always:7');
cleanup(1);
wait_for('values to be cut off', sub { slurp_file($node->logfile, $offset) =~ /qml fault point "shrink.before_piece" reached/ });
cleanup(0);
is(query($node, "SELECT pg_relation_size('qml.$leaf')"), 0, 'no row is left');
my $values_left = query($node, "SELECT pg_relation_size('$toast')");
ok(0 < $values_left && $values_left < $values, "some of the values are ($values_left of $values bytes)");
is_sound($leaf, 'no row left');
arm();
cleanup(1);
wait_for('the partition to go', sub { !is_there($leaf) });
cleanup(0);

# What others use stays whole, also if they use no more than the type of its rows.
foreach my $type ('', '[]')
{
	$leaf = large_leaf(3);
	query($node, "CREATE FUNCTION user_of(job qml.$leaf$type) RETURNS int LANGUAGE sql AS 'SELECT 1'");
	cleanup(1);
	foreach (1 .. 2)
	{
		query($node, q{SELECT qml_try_lock('round', 'me', '1 ms')});
		wait_for('a round', sub { query($node, 'SELECT count(*) FROM qml.lock_data') == 0 });
	}
	cleanup(0);
	is(query($node, "SELECT count(*) FROM qml.$leaf"), 25_000, "a function of qml.leaf$type: all rows are there");
	is(marked(), 0, "a function of qml.leaf$type: nothing is marked");
	query($node, "DROP FUNCTION user_of(qml.$leaf$type)");
	cleanup(1);
	wait_for('the partition to go', sub { !is_there($leaf) });
	cleanup(0);
}

# A client that cleans up takes what is left at once.
$leaf = large_leaf(3);
$offset = -s $node->logfile;
arm(('shrink.after_mark:error:1') x 20);
cleanup(1);
wait_for('the indexes to be marked', sub { slurp_file($node->logfile, $offset) =~ /qml fault point "shrink.after_mark" reached/ });
cleanup(0);
is(query($node, "SELECT bool_and(indislive) FROM pg_index WHERE indrelid = 'qml.$leaf'::regclass"), 't', 'with an error the indexes are as they were');
cmp_ok(query($node, 'SELECT qml_cleanup()'), '>', 20_000, 'a client drops it in one go');
ok(!is_there($leaf), 'it is gone');

# An index on the whole history, of which each partition has a part.
query($node, 'CREATE INDEX by_method ON qml.history (method)');
arm();
$leaf = large_leaf(3);
cleanup(1);
wait_for('the partition to go', sub { !is_there($leaf) });
is(query($node, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'qml.by_method'::regclass"), 't', 'an index on the history is kept');
is(query($node, "SELECT count(*) FROM pg_class WHERE relname LIKE '$leaf%'"), 0, 'its part goes with the partition');
query($node, 'DROP INDEX qml.by_method');

# ---- Readers

# While another partition waits for its readers, a large one waits for its turn.  Both go in
# one go if nobody has locked them, but others could read them, for long.
cleanup(0);
arm('expiry.wait_ms:limit:3600000');
my $reader = new_session($node);
my $other = expired_leaf($node, 4, 10);
$reader->query_safe("BEGIN; LOCK TABLE qml.$other IN ACCESS SHARE MODE");
cleanup(1);
wait_for('the first to be marked', sub { marked() == 1 });
$leaf = large_leaf(3);
is(query($node, 'SELECT inhrelid::regclass FROM pg_inherits WHERE inhdetachpending'), "qml.$other", 'the one that is in use has the mark');
query($node, q{SELECT qml_try_lock('round', 'me', '1 ms')});
wait_for('another round', sub { query($node, 'SELECT count(*) FROM qml.lock_data') == 0 });
ok(is_there($leaf), 'the large one is there');
$reader->query_safe("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
wait_for('the first to go', sub { !is_there($other) });
wait_for('the large one to be marked', sub { marked() == 1 });
query($node, q{SELECT qml_try_lock('round', 'me', '1 ms')});
wait_for('another round', sub { query($node, 'SELECT count(*) FROM qml.lock_data') == 0 });
ok(is_there($leaf), 'it waits for a transaction that could read it') or diag(query($node, 'SELECT pid, backend_xmin, query FROM pg_stat_activity'));
$size = query($node, "SELECT pg_relation_size('qml.$leaf')");
cmp_ok($size, '>', 2 * $PIECE * 8192, 'and is whole');
arm('expiry.wait_ms:limit:100');
wait_for('the large one to go', sub { !is_there($leaf) });
is($reader->query_safe('SELECT count(*) FROM qml.job'), 1, 'the reader goes on');
$reader->query_safe('COMMIT');

# ---- Several at once

cleanup(0);
my ($first, $second) = (expired_leaf($node, 4, 10), expired_leaf($node, 3, 10));
my $one = new_session($node);
my $two = new_session($node);
$_->query_safe('SET client_min_messages = error') foreach $one, $two;
$reader->query_safe("BEGIN; LOCK TABLE qml.$first, qml.$second IN ACCESS SHARE MODE");
$one->query_safe('BEGIN; SELECT qml_cleanup()');
$two->query_safe("SET statement_timeout = '20 s'; SELECT qml_cleanup()");
is(marked(), 0, 'a mark is not seen before its commit');
$one->query_safe('ROLLBACK');
is(marked(), 0, 'nor after a rollback');
$one->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT qml_cleanup()');
$two->query_safe('BEGIN; SELECT qml_cleanup()');
$one->query_safe('COMMIT');
$two->query_safe('SELECT qml_cleanup(); COMMIT; SELECT qml_cleanup()');
is(query($node, 'SELECT inhrelid::regclass FROM pg_inherits WHERE inhdetachpending'), "qml.$first", 'one partition is marked, whoever else tries');
$reader->query_safe('COMMIT');
is(query($node, 'SELECT qml_cleanup()'), 20, 'both go when they are free');
# Two that mark at the same time.
($first, $second) = (expired_leaf($node, 4, 10), expired_leaf($node, 3, 10));
$reader->query_safe("BEGIN; LOCK TABLE qml.$first, qml.$second IN ACCESS SHARE MODE");
$node->pgbench('--no-vacuum --client=4 --transactions=25', 0, [qr/processed: 100\/100/], [qr/^(?!.*ERROR)/s], 'four clean up at once',
	{ '156_cleanup' => 'SELECT qml_cleanup();' });
is(marked(), 1, 'one is marked');
$reader->query_safe('COMMIT');
is(query($node, 'SELECT qml_cleanup()'), 20, 'nothing is in the way');
$_->quit foreach $reader, $one, $two;

# ---- Faults

my @POINTS = qw(cleanup.after_mark shrink.after_mark shrink.after_piece cleanup.after_drop);
foreach my $point (@POINTS)
{
	foreach my $action (qw(error fatal abort))
	{
		my $fault = "$point:$action:" . ($point eq 'shrink.after_piece' ? 2 : 1);
		$leaf = large_leaf(3, 0.3);
		$offset = -s $node->logfile;
		arm($fault);
		cleanup(1);
		wait_for("$fault: the fault", sub { slurp_file($node->logfile, $offset) =~ /qml fault point "\Q$point\E" reached/ });
		arm();
		wait_for("$fault: the server to answer", sub { defined try_query($node, 'SELECT true') });
		wait_for("$fault: the partition to go", sub { (try_query($node, "SELECT to_regclass('qml.$leaf') IS NULL") // '') eq 't' });
		is(marked(), 0, "$fault: the partition goes");
		is(query($node, 'SELECT count(*) FROM qml.job'), 1, "$fault: jobs are as they were");
		my $log = slurp_file($node->logfile, $offset);
		is(scalar(() = $log =~ /was terminated by signal 6/g), $action eq 'abort' ? 1 : 0, "$fault: the server ended only if it was to");
		is(join("\n", grep { /PANIC|TRAP:|could not (open|read|truncate)|XX\d{3}/ && !/qml fault|\Q$point\E|could not make or drop/ } split /\n/, $log), '', "$fault: nothing worse");
		cleanup(0);
	}
}
$node->command_ok([ 'pg_amcheck', '--install-missing', '--heapallindexed', 'postgres' ], 'the database is sound');
end_sessions($node);
$node->stop;
done_testing();
