# A transaction that makes, changes or removes many queues, capabilities, handlers, hooks,
# middleware, schedules or named locks takes about as long for each of them as for the
# first ones.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;

my ($FEW, $MANY) = (500, 2000);
# As many times as much work is in proportion; the square of that is what this finds.
my $LIMIT = 2 * $MANY / $FEW;

my $node = new_node('many_names', conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.enabled = off
autovacuum = off
fsync = off
max_locks_per_transaction = 256
CONF
query($node, <<'SQL');
CREATE ROLE app LOGIN;
CREATE FUNCTION handle(payload jsonb) RETURNS void LANGUAGE sql AS $$ SELECT $$;
CREATE FUNCTION watch(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS $$ SELECT $$;
REVOKE EXECUTE ON FUNCTION watch FROM PUBLIC;
SQL

my $pid = ask($node, 'SELECT pg_backend_pid()');

# Milliseconds of CPU that the session has used.
sub cpu
{
	my ($nanoseconds) = slurp_file("/proc/$pid/schedstat") =~ /^(\d+)/;
	return $nanoseconds / 1e6;
}

# What one transaction uses for so many calls, with i from 1 on, after what was there before.
sub cost
{
	my ($count, $call, $before) = @_;

	ask($node, 'BEGIN');
	ask($node, $before =~ s/COUNT/$count/gr) if defined $before;
	my $start = cpu();
	is(ask($node, "SELECT count(*) FROM (SELECT $call FROM generate_series(1, $count) i OFFSET 0) calls"),
		$count, "$count of them");
	my $used = cpu() - $start;
	ask($node, 'ROLLBACK');
	return $used;
}

my $queues = q{INSERT INTO qml.queue_data (name) SELECT 'q' || i FROM generate_series(1, COUNT) i};
my @kinds = (
	[ 'creating queues', q{qml_create_queue('q' || i)} ],
	[ 'queues that come with their first job', q{qml_enqueue('m', queue => 'q' || i)} ],
	[ 'altering queues', q{qml_alter_queue('q' || i, '{"max_retries": 3}')}, $queues ],
	[ 'pausing queues', q{qml_pause_queue('q' || i)}, $queues ],
	[ 'dropping queues', q{qml_drop_queue('q' || i)}, $queues ],
	[ 'granting', q{qml_grant('app', 'work', 'q' || i)} ],
	[
		'revoking',
		q{qml_revoke('app', 'work', 'q' || i)},
		q{SELECT qml_grant('app', 'work', 'q'); INSERT INTO qml.acl_data (grantee, capability, queue, grantor)
			SELECT 'app'::regrole, 'work', 'q' || i, 'postgres'::regrole FROM generate_series(1, COUNT) i}
	],
	[ 'registering handlers', q{qml_register_handler('m' || i, 'handle')} ],
	[
		'unregistering handlers',
		q{qml_unregister_handler('m' || i)},
		q{SELECT count(*) FROM (SELECT qml_register_handler('m' || i, 'handle') FROM generate_series(1, COUNT) i OFFSET 0) x}
	],
	[ 'registering hooks', q{qml_register_hook('h' || i, 'watch')} ],
	[ 'registering middleware', q{qml_register_middleware('h' || i, 'qml_tracing')} ],
	[ 'schedules', q{qml_schedule_recurring('s' || i, '0 3 * * *', 'm')} ],
	[ 'schedules with queues of their own', q{qml_schedule_recurring('s' || i, '0 3 * * *', 'm', queue => 'q' || i)} ],
	[ 'named locks', q{qml_try_lock('l' || i, 'o', '1 min')} ],);

foreach my $kind (@kinds)
{
	my ($name, $call, $before) = @$kind;

	# What is read for the first time is not of these.
	cost(20, $call, $before);
	my $few = cost($FEW, $call, $before);
	my $many = cost($MANY, $call, $before);
	cmp_ok($many / $few, '<', $LIMIT, sprintf '%s: %d take %.1f times as much as %d (%.0f ms)',
		$name, $MANY, $many / $few, $FEW, $many);
}

end_sessions($node);
done_testing();
