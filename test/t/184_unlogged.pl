# Queues whose jobs are unlogged.  Everything works as for others, with next to nothing in the WAL;
# a crash, or the promotion of a standby, leaves none of their jobs, all of the others, and no number of
# an attempt that is given twice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlTest;
use Test::More;
use Time::HiRes qw(sleep);

my $MOST_WAL = 40;    # bytes a job, from enqueue to done
my $dir = PostgreSQL::Test::Utils::tempdir;

my $node = background_node('unlogged', init => { allows_streaming => 1 }, conf => <<'CONF');
autovacuum = off
qml.workers = 0
CONF
wait_for_process($node, 'scheduler', 'postgres');

sub uuid
{
	my ($n) = @_;
	return sprintf '00000000-0000-7000-8000-%012d', $n;
}

sub count_of
{
	my ($sql, $server) = @_;
	return query($server // $node, "SELECT count(*) FROM $sql");
}

# ---- Nothing of them is there before one is needed.

is(count_of(q{pg_class WHERE relname LIKE 'history\_unlogged\_p%'}), 0, 'without such queues their history has no partitions');
is(query($node, 'SELECT is_called FROM qml.unlogged_life'), 'f', 'and their tables were not written');
# The first call of a session reads what all others find open.
ask($node, 'SELECT * FROM qml.unlogged_jobs()');
my $plan = ask($node, 'EXPLAIN (ANALYZE, BUFFERS, TIMING off, SUMMARY off) SELECT * FROM qml.unlogged_jobs()');
unlike($plan, qr/Buffers: .*(hit|read)=[1-9]\d/, 'the view of all jobs reads nothing for them');

query($node, <<'SQL');
SELECT qml_create_queue('u', '{"storage": "unlogged"}');
SELECT qml_create_queue('none', '{"storage": "unlogged", "succeeded_ttl": 0}');
SELECT qml_create_queue('d');
SELECT qml_create_queue('a', '{"storage": "async"}');
SQL
cmp_ok(count_of(q{pg_class WHERE relname LIKE 'history\_unlogged\_p%' AND relkind = 'r'}), '>', 0, 'with one it has');
is(count_of(q{pg_class WHERE relname LIKE '%unlogged%' AND relkind IN ('r', 'i') AND relpersistence <> 'u'}), 0, 'all of them are unlogged');

# ---- What the jobs do.

ask($node, "SELECT qml_enqueue('m', format('{\"n\": %s}', n)::jsonb, q, run_at => CASE WHEN n = 4 THEN now() + interval '1 h' END) FROM generate_series(1, 4) n, unnest('{d,u,a}'::text[]) q");
is(ask($node, q{SELECT string_agg(format('%s %s %s', queue, state, count), ', ' ORDER BY queue, state) FROM qml_queue_counts()}),
	'a scheduled 1, a enqueued 3, d scheduled 1, d enqueued 3, u scheduled 1, u enqueued 3', 'they are counted');
is(ask($node, 'SELECT count(*) FROM qml.live_unlogged'), 4, 'in a table of their own');
is(ask($node, q{SELECT qml_queue_depth('u')}), 3, 'the depth of the queue');
is(ask($node, q{SELECT string_agg(queue || (payload ->> 'n'), ' ') FROM qml_fetch('w', '{u,d,a}', 5)}), 'u1 u2 u3 d1 d2', 'a fetch takes the queues in their order');
is(ask($node, q{SELECT string_agg(queue || (payload ->> 'n'), ' ') FROM qml_fetch('w', '{a,u,d}', 5)}), 'a1 a2 a3 d3', 'whatever class comes first');
is(ask($node, q{SELECT count(*) FROM qml_succeed_many((SELECT array_agg(id ORDER BY payload) FROM qml.job WHERE state = 'processing' AND payload ->> 'n' <> '3'), array_fill(1, ARRAY[6]))}),
	6, 'one call ends jobs of all classes');
is(ask($node, q{SELECT string_agg(queue, ' ' ORDER BY queue) FROM qml.job WHERE state = 'succeeded' AND payload ->> 'n' = '2'}), 'a d u', 'the view has all of them');
is(ask($node, 'SELECT count(*) FROM qml.history_unlogged'), 2, 'those of the queue in a history of its own');
my ($job) = ask($node, q{SELECT id FROM qml.job WHERE queue = 'u' AND payload ->> 'n' = '3'});
is(ask($node, "SELECT qml_heartbeat('$job', 1) > now()"), 't', 'a heartbeat');
is(ask($node, "SELECT qml_fail('$job', 1, 'no', retry => false)"), 'failed', 'a failure');
is(ask($node, "SELECT state, queue, error FROM qml_job('$job')"), 'failed|u|no', 'is found by its id');
is(ask($node, "SELECT qml_retry('$job')"), 't', 'it can be retried');
is(ask($node, q{SELECT attempt FROM qml_fetch('w', '{u}', lease => '10 ms')}), 2, 'is ready');
ok($node->poll_query_until('postgres', "SELECT state = 'enqueued' FROM qml_job('$job')"), 'and comes back when its lease is over');
ask($node, "SELECT qml_delete('$job')");
is(ask($node, "SELECT state FROM qml_job('$job')"), 'deleted', 'it can be deleted');
my $later = ask($node, q{SELECT id FROM qml.job WHERE queue = 'u' AND state = 'scheduled'});
ask($node, "SELECT qml_reschedule('$later', now())");
ok($node->poll_query_until('postgres', "SELECT state = 'enqueued' FROM qml_job('$later')"), 'a delayed job becomes ready when it is due');
fails_with($node, '55006', q{SELECT qml_alter_queue('u', '{"storage": "durable"}')}, 'the class is fixed while there are jobs');
fails_with($node, '55006', q{SELECT qml_drop_queue('u')}, 'so is the queue');
ask($node, q{SELECT qml_enqueue('m', queue => 'none')});
is(ask($node, q{SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', '{none}')}), 1, 'a job that is not kept');
is(ask($node, q{SELECT count(*) FROM qml.job WHERE queue = 'none'}), 0, 'is gone');
is(ask($node, q{SELECT attempt, count(*) OVER () FROM qml_fetch('w', NULL::text, 10)}), '1|1', 'a fetch over all queues');

# The class can be changed when it is empty, and finished jobs stay.
ask($node, q{SELECT qml_succeed(id, attempt) FROM qml.job WHERE state = 'processing'});
ask($node, q{SELECT qml_create_queue('s', '{"storage": "unlogged"}'), qml_enqueue('m', queue => 's')});
my $first = ask($node, q{SELECT id FROM qml_fetch('w', '{s}')});
ask($node, "SELECT qml_fail('$first', 1, 'no', retry => false)");
ask($node, q{SELECT qml_alter_queue('s', '{"storage": "durable"}')});
ask($node, q{SELECT qml_enqueue('m', queue => 's')});
is(ask($node, q{SELECT count(*) FROM qml_fetch('w', '{s}', 10)}), 1, 'a queue that is durable now');
is(ask($node, q{SELECT count(*) FROM qml.live WHERE queue_id = (SELECT id FROM qml.queue_data WHERE name = 's')}), 1, 'has its jobs where others have them');
is(ask($node, "SELECT state FROM qml_job('$first')"), 'failed', 'what has finished before is there');
ask($node, "SELECT qml_retry('$first')");
is(ask($node, "SELECT count(*) FROM qml.live WHERE id = '$first'"), 1, 'if it is retried, it is one of them');

# SQL that writes the table is noticed.
ask($node, q{SELECT qml_enqueue('m', queue => 'u') FROM generate_series(1, 3)});
is(ask($node, q{SELECT count(*) FROM qml_fetch('w', '{u}')}), 1, 'one of three');
ask($node, 'VACUUM FULL qml.live_unlogged');
is(ask($node, q{SELECT count(*) FROM qml_fetch('w', '{u}')}), 1, 'another one, from a table that was written anew');
ask($node, q{UPDATE qml.live_unlogged SET state = 'enqueued', worker = NULL, lease_expires_at = NULL WHERE state = 'processing'});
is(ask($node, q{SELECT count(*) FROM qml_fetch('w', '{u}', 10)}), 3, 'those that SQL gave back');
ask($node, 'TRUNCATE qml.live_unlogged');
is(ask($node, q{SELECT count(*) FROM qml_fetch('w', '{u}', 10)}), 0, 'none after a TRUNCATE');

# Fetches of both classes in turn take their jobs from lists.
sub buffers
{
	my ($sql) = @_;
	my $top = json(ask($node, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) $sql"))->[0]{Plan};
	return $top->{'Shared Hit Blocks'} + $top->{'Shared Read Blocks'};
}

ask($node, "SELECT count(*) FROM qml_enqueue_many('m', array_fill('{}'::jsonb, ARRAY[1500]), '$_')") foreach 'u', 'd';
ask($node, "SELECT count(*) FROM qml_fetch('w', '$_', 1000)") foreach 'u', 'd';
my @buffers;
foreach my $n (1 .. 20)
{
	push @buffers, buffers("SELECT qml_fetch('w', '$_')") foreach 'u', 'd', '{u,d}';
}
my @most = sort { $b <=> $a } @buffers;
cmp_ok($most[2], '<=', 6, "a fetch of either class behind 1,000 running jobs touches $most[2] pages, but for two that fill a list");
ask($node, 'TRUNCATE qml.live_unlogged, qml.live');

# ---- One id is on one side.

my $id = uuid(1);
ask($node, "SELECT qml_enqueue('m', queue => 'u', id => '$id')");
fails_with($node, '23505', "SELECT qml_enqueue('m', queue => 'd', id => '$id')", 'an id of an unlogged job is refused in a durable queue');
fails_with($node, '23505', "SELECT qml_enqueue('m', queue => 'd', id => '$id', options => '{\"on_duplicate_id\": \"return\"}')", 'also where the same job would be returned');
is(ask($node, "SELECT qml_enqueue('m', queue => 'u', id => '$id', options => '{\"on_duplicate_id\": \"return\"}')"), $id, 'which it is in its queue');
ask($node, "SELECT qml_succeed(id, attempt) FROM qml_fetch('w', '{u}')");
fails_with($node, '23505', "SELECT qml_enqueue('m', queue => 'd', id => '$id')", 'also when it has finished');
$id = uuid(2);
ask($node, "SELECT qml_enqueue('m', queue => 'd', id => '$id')");
fails_with($node, '23505', "SELECT qml_enqueue('m', queue => 'u', id => '$id')", 'and one of a durable job in an unlogged queue');
ask($node, "SELECT qml_delete('$id')");
fails_with($node, '23505', "SELECT qml_enqueue('m', queue => 'u', id => '$id')", 'finished or not');

# Two at once: the second waits for the first.
my $case_id = 10;
foreach my $case ([ 'd', 'u', 'COMMIT', 'refused' ], [ 'u', 'd', 'COMMIT', 'refused' ], [ 'd', 'u', 'ROLLBACK', 'added' ], [ 'u', 'd', 'ROLLBACK', 'added' ])
{
	my ($first, $second, $end, $outcome) = @$case;
	my $waiter = new_session($node, undef, on_error_stop => 0);
	$id = uuid(++$case_id);
	ask($node, "BEGIN; SELECT qml_enqueue('m', queue => '$first', id => '$id')");
	my $pid = $waiter->query_safe('SELECT pg_backend_pid()');
	$waiter->query_until(qr/^/, "SELECT qml_try_enqueue('m', queue => '$second', id => '$id') IS NOT NULL;\n");
	ok($node->poll_query_until('postgres', "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid"), "$second waits for $first");
	ask($node, $end);
	ok($node->poll_query_until('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid"), 'until it has ended');
	is(query($node, "SELECT queue FROM qml_job('$id')"), $outcome eq 'added' ? $second : $first, "after $end the second one is $outcome");
	is(query($node, "SELECT count(*) FROM qml.job WHERE id = '$id'"), 1, 'there is one');
	$waiter->quit;
}

# ---- The WAL.

sub wal_of
{
	my ($queue, $jobs) = @_;
	query($node, 'CHECKPOINT');
	my $before = query($node, 'SELECT pg_current_wal_insert_lsn()');
	ask($node, <<"SQL");
DO \$\$
BEGIN
	FOR i IN 1 .. $jobs / 100
	LOOP
		PERFORM qml_enqueue_many('m', array_fill('{"n": 1, "text": "some text"}'::jsonb, ARRAY[100]), '$queue');
		COMMIT;
		PERFORM f.id FROM qml_fetch('w', '$queue', 100) f;
		COMMIT;
		PERFORM count(*) FROM (SELECT array_agg(id) AS ids, array_agg(attempt) AS attempts FROM qml.live_unlogged WHERE worker = 'w') c,
			LATERAL qml_succeed_many(c.ids, c.attempts);
		COMMIT;
	END LOOP;
END \$\$
SQL
	return query($node, "SELECT (pg_current_wal_insert_lsn() - '$before') / $jobs");
}

ask($node, 'TRUNCATE qml.live_unlogged');
wal_of('u', 1000);
my $wal = wal_of('u', 5000);
cmp_ok($wal, '<=', $MOST_WAL, "a job writes $wal bytes of WAL");
cmp_ok(count_of(q{qml.history_unlogged WHERE state = 'succeeded'}), '>=', 6000, 'all are in the history');
is(count_of(q{qml.live_unlogged}), 0, 'and none is left');

# ---- A standby.

ask($node, "SELECT qml_enqueue('m', queue => q) FROM unnest('{u,d}'::text[]) q, generate_series(1, 3)");
end_sessions($node);
$node->backup('copy');
my $standby = node_of_backup('unlogged_standby', $node, 'copy', has_streaming => 1);
$standby->start;
# What replication alone has brought there, and no checkpoint has written.
$node->safe_psql('postgres', 'CREATE DATABASE late');
$node->safe_psql('late', q{CREATE EXTENSION qml; SELECT qml_create_queue('u', '{"storage": "unlogged"}')});
$node->wait_for_catchup($standby, 'replay');
is(query($standby, q{SELECT count(*) FILTER (WHERE queue = 'd' AND state = 'enqueued') > 0, count(*) FILTER (WHERE queue = 'u') FROM qml.job}), 't|0',
	'on a standby the view shows the jobs of other queues');
is(query($standby, q{SELECT count(*) FROM qml_queue_counts() WHERE queue = 'u'}), 0, 'counts have no other jobs either');
is(query($standby, q{SELECT count(*) FROM qml.queue WHERE name = 'u'}), 1, 'the queue is there');
is(query($standby, "SELECT count(*) FROM qml_job('$later')"), 0, 'no job of it is found');
is(query($standby, "SELECT qml_queue_depth('u'), qml_queue_depth('d') > 0"), '0|t', 'nor any that waits');
my $reader = new_session($standby);
is($reader->query_safe(q{SELECT count(*) FROM qml.job WHERE queue = 'u'}), 0, 'for a session that stays');
my ($dump, $error) = run_command([ $standby->config_data('--bindir') . '/pg_dump', '-d', $standby->connstr('postgres') ]);
is($error, '', 'a standby can be dumped');
$standby->promote;
wait_for_process($standby, 'scheduler', 'postgres');
is($reader->query_safe(q{SELECT count(*) FROM qml.job WHERE queue = 'u'}), 0, 'promoted, it has none');
query($standby, q{SELECT qml_enqueue('m', queue => 'u') FROM generate_series(1, 2)});
is($reader->query_safe(q{SELECT count(*) FROM qml.job WHERE queue = 'u'}), 2, 'and works at once');
is(query($standby, q{SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', '{u}', 10)}), 2, 'jobs are claimed and end there');
is(query($standby, q{SELECT count(*) FROM qml.job WHERE queue = 'u' AND state = 'succeeded'}), 2, 'and are kept');
is($standby->safe_psql('late', q{SELECT count(qml_enqueue('m', queue => 'u')) FROM generate_series(1, 2)}), 2, 'so it does where the extension came by replication alone');
is($standby->safe_psql('late', q{SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', '{u}', 10)}), 2, 'and jobs are claimed');
$reader->quit;
$standby->stop('immediate');

# ---- A crash under load.

# Jobs with ids of the caller's own, the same after each crash; what the sessions were told is in their files.
my $SESSIONS = 3;
my $OWN = 400;
query($node, 'TRUNCATE qml.live_unlogged');
foreach my $s (1 .. $SESSIONS)
{
	open my $file, '>', "$dir/load$s.sql" or die $!;
	foreach my $n (1 .. $OWN)
	{
		my $own = uuid(1000 * $s + $n);
		my $durable = uuid(1000000 + 1000 * $s + $n);
		print $file <<"SQL";
SELECT 'enqueued ' || qml_enqueue('own', queue => 'u', id => '$own');
SELECT 'given ' || id || ' ' || attempt FROM qml_fetch('w', '{u}', 2);
SELECT 'durable ' || qml_enqueue('kept', queue => 'd', id => '$durable', options => '{"on_duplicate_id": "return"}');
SELECT qml_release(id, attempt) FROM qml_fetch('v', '{u}');
SELECT qml_enqueue('made', queue => 'u');
SQL
	}
	close $file;
}

my %given;
my $twice = 0;
my $told = 0;
my %kept;
foreach my $round (1 .. 3)
{
	my @loads;
	foreach my $s (1 .. $SESSIONS)
	{
		unlink "$dir/out$s";
		push @loads, IPC::Run::start([ $node->config_data('--bindir') . '/psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', "$dir/load$s.sql" ],
			'<', '/dev/null', '>', "$dir/out$s", '2>', '/dev/null');
	}
	wait_for('some jobs to be given', sub { my $size = 0; $size += -s "$dir/out$_" // 0 foreach 1 .. $SESSIONS; $size > 20000 * $round / 2 });
	kill_server($node);
	$_->finish foreach @loads;
	foreach my $s (1 .. $SESSIONS)
	{
		foreach my $line (split /\n/, slurp_file("$dir/out$s"))
		{
			$kept{$1} = 1 if $line =~ /^durable (\S{36})$/;
			next unless $line =~ /^given (\S{36}) (\d+)$/;
			$told++;
			$twice++ if $given{"$1 $2"}++;
		}
	}
	start_again($node);
	wait_for_process($node, 'scheduler', 'postgres');
	is(count_of('qml.live_unlogged') . count_of('qml.history_unlogged') . count_of('qml.history_unlogged_overflow'), '000',
		"crash $round leaves no unlogged job");
	is(query($node, q{SELECT count(*) FROM qml.job WHERE queue IN ('u', 'none')}), 0, 'nor does the view show one');
	my $ids = join ',', keys %kept;
	is(query($node, "SELECT count(*) FROM qml.job WHERE id = ANY ('{$ids}')"), scalar keys %kept, sprintf 'all %d durable jobs that were acknowledged are there', scalar keys %kept);
	is(query($node, q{SELECT qml_enqueue('m', queue => 'u') IS NOT NULL}), 't', 'an unlogged queue works at once');
	is(query($node, q{SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', '{u}')}), 1, 'its job is claimed and ends');
	is(query($node, q{SELECT count(*) FROM qml.job WHERE queue = 'u' AND state = 'succeeded'}), 1, 'and is kept');
}
cmp_ok($told, '>', 100, "$told attempts were given");
is($twice, 0, 'no number of an attempt twice');
is(query($node, 'SELECT last_value >= 4 FROM qml.lives'), 't', 'each crash began another life');

# A job that is claimed more often than a life has numbers comes to those of lives that have not begun.
{
	my $often = uuid(900000);
	query($node, "SELECT qml_enqueue('often', queue => 'u', id => '$often')");
	query($node, "UPDATE qml.live_unlogged SET attempt = attempt + 3 * 65536 - 3, uncounted = uncounted + 3 * 65536 - 3 WHERE id = '$often'");
	my $last;
	foreach (1 .. 6)
	{
		$last = ask($node, q{SELECT attempt FROM qml_fetch('w', '{u}', methods => '{often}')});
		ask($node, "SELECT qml_release('$often', $last)");
	}
	kill_server($node);
	start_again($node);
	wait_for_process($node, 'scheduler', 'postgres');
	query($node, "SELECT qml_enqueue('often', queue => 'u', id => '$often')");
	cmp_ok(ask($node, q{SELECT attempt FROM qml_fetch('w', '{u}', methods => '{often}')}), '>', $last, "after a crash the job has other numbers than up to $last");
	fails_with($node, 'QM003', "SELECT qml_succeed('$often', $last)", 'and the late worker is refused');
}

# A clean restart leaves them all.
query($node, q{SELECT qml_enqueue('m', queue => 'u') FROM generate_series(1, 5)});
$node->restart;
is(query($node, q{SELECT count(*) FROM qml.job WHERE queue = 'u' AND state = 'enqueued'}), 5, 'a restart leaves the jobs');
is(query($node, q{SELECT count(*) FROM qml_fetch('w', '{u}', 10)}), 5, 'which can be fetched');

# ---- A dump.

my $own = uuid(77);
query($node, "SELECT qml_enqueue('m', queue => 'u', id => '$own')");
my $state = q{SELECT string_agg(format('%s %s %s', queue, state, count), ', ' ORDER BY queue, state) FROM qml_queue_counts()};
my $before = query($node, $state);
foreach my $case ([ 'whole', '' ], [ 'bare', '--no-unlogged-table-data' ])
{
	my ($name, $option) = @$case;
	$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/$name", ($option ? $option : ()), 'postgres' ], "a dump: $name");
	query($node, "CREATE DATABASE $name TEMPLATE template0");
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $name, "$dir/$name" ], 'it is restored');
	query($node, 'SELECT qml_adopt()', $name);
	is(query($node, q{SELECT count(*) FROM qml.job WHERE queue = 'u'}, $name) > 0 ? 'jobs' : 'none', $option ? 'none' : 'jobs', 'with unlogged jobs, or without');
	query($node, q{SELECT qml_enqueue('m', queue => 'u')}, $name);
	cmp_ok(query($node, q{SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', '{u}', 100)}, $name), '>=', 1, 'it works');
}
is(query($node, "SELECT attempt = 65536 * (SELECT last_value FROM qml.unlogged_life) FROM qml_job('$own')"), 't', 'an id of the caller has the numbers of this life');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|qml (launcher|scheduler).* failed/, 'nothing failed');
done_testing();
