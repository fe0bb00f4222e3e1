# Clients work through pgbouncer in transaction mode as they do without it:
# no call depends on its session.  The pooler gives each transaction to the server
# connection that has waited longest, so that one client's come to several.  (It would check
# those that have waited for half a minute first, and then give out the first that is checked.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QmlCalls;
use QmlTest;
use Test::More;

my $CLIENTS = 20;
my $SERVER_CONNECTIONS = 4;

my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}),
  '/usr/sbin', '/usr/local/sbin';
plan skip_all => 'pgbouncer is not installed' unless defined $pgbouncer;

my $node = new_node('pooler');
my $logs = make_log_dir();
my $dir = PostgreSQL::Test::Utils::tempdir;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $user = query($node, 'SELECT current_user');
my $pooled = "host=127.0.0.1 port=$port dbname=postgres user=$user";
my ($host, $server_port) = ($node->host, $node->port);

append_to_file("$dir/users", qq("$user" ""\n));
append_to_file("$dir/pgbouncer.ini", <<"INI");
[databases]
postgres = host=$host port=$server_port
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = trust
auth_file = $dir/users
admin_users = $user
pool_mode = transaction
server_round_robin = 1
server_check_delay = 3600
server_idle_timeout = 0
max_client_conn = 50
default_pool_size = $SERVER_CONNECTIONS
INI

my ($out, $err) = ('', '');
my $pooler =
  IPC::Run::start([ $pgbouncer, '-q', "$dir/pgbouncer.ini" ], '<', \undef, '>',
	\$out, '2>', \$err);
END { IPC::Run::kill_kill($pooler) if $pooler; }

# What the pooler says about its pool for the database, by column.
sub pool
{
	my (undef, $lines) = $node->psql(
		'postgres', 'SHOW POOLS',
		connstr => "host=127.0.0.1 port=$port dbname=pgbouncer user=$user",
		extra_params => [ '-P', 'tuples_only=off' ]);
	my ($names, @rows) = map { [ split /\|/, $_, -1 ] } split /\n/, $lines;
	my ($values) = grep { $_->[0] eq 'postgres' } @rows;
	return map { $names->[$_] => $values->[$_] // 0 } 0 .. $#$names;
}

wait_for('pgbouncer to answer', sub { defined try_query($node, 'SELECT 1', undef, connstr => $pooled) });

my @producers = map {
	start_client(
		$node, 'produce', $logs,
		'--conninfo', $pooled,
		'--jobs', 1000,
		'--queues', 'a,b',
		'--priorities', 3,
		'--many-fraction', 0.2,
		'--transaction', 0.3,
		'--delayed', 0.1)
} 1 .. 4;
finish_clients('the producers end', @producers);

# Nothing is given out before all are there.
query($node, "SELECT qml_pause_queue('a'), qml_pause_queue('b')");
my @workers = map {
	start_client(
		$node, 'work', $logs,
		'--conninfo', $pooled,
		'--drain',
		'--batch', 1 + $_ % 3,
		'--lease', '2 s',
		'--retry-ms', 20,
		'--fail', 0.05,
		'--fail-final', 0.01,
		'--release', 0.05,
		'--heartbeat', 0.2,
		'--stale', 0.05,
		'--hold-ms', 5,
		$_ == 1 ? ('--maintain-ms', 100) : (),
		$_ % 2 ? '--many' : ())
} 1 .. $CLIENTS;

my $most_servers = 0;
wait_for(
	'all clients to be connected',
	sub {
		my %pool = pool();
		my $servers = $pool{sv_active} + $pool{sv_idle} + $pool{sv_used};
		$most_servers = $servers if $servers > $most_servers;
		return $pool{cl_active} + $pool{cl_waiting} == $CLIENTS;
	});
query($node, "SELECT qml_resume_queue('a'), qml_resume_queue('b')");
finish_clients('the workers end with nothing live', @workers);
cmp_ok($most_servers, '<=', $SERVER_CONNECTIONS,
	"$CLIENTS clients shared $most_servers server connections");

check_ok($node, 'the checker finds nothing', $logs, final => 1);

# Every function there is: what it needs, the call, and the look at what it did.
sub pooled
{
	my (@statements) = @_;
	my ($rc, $out, $err) = $node->psql('postgres',
		join(";\n", '\set VERBOSITY sqlstate', @statements) =~ s/;//r,
		connstr => $pooled);
	return ($err =~ /ERROR:\s+(\w{5})/ ? $1 : '00000', $out);
}

my ($pids) = (pooled(('SELECT pg_backend_pid()') x 8))[1];
my %pids = map { $_ => 1 } split /\n/, $pids;
cmp_ok(scalar keys %pids, '>', 1, 'the transactions of a client come to several sessions');
set_up_calls($node);
calls_are_complete($node, qml_wait => 1, qml_wait_for => 1, qml_watch => 1);
foreach my $name (all_calls())
{
	my $call = for_call($name);

	is((pooled(@{ $call->{before} }))[0], '00000', "$name: what it needs") if @{ $call->{before} };
	is((pooled($call->{sql}))[0], $call->{code}, "$name through the pooler");
	is((pooled($call->{done}))[1], 't', "$name: it is done") if defined $call->{done};
	pooled($call->{after}) if defined $call->{after};
}
# Procedures that end their transaction are transactions of their own.  They sleep on
# shared memory.
my $deleted = '01890000-0000-7000-a000-000000000001';
query($node, <<"SQL");
SELECT qml_create_queue('quiet');
SELECT qml_delete(qml_enqueue('t', queue => 'quiet', id => '$deleted'));
SQL
$node->append_conf('postgresql.conf', 'shared_preload_libraries = qml');
$node->restart;
wait_for('the pooler to be connected again',
	sub { (try_query($node, 'SELECT 1', undef, connstr => $pooled) // '') eq '1' });
is_deeply([ pooled("CALL qml_wait('{quiet}', '10 ms')") ], [ '00000', 'f' ],
	'qml_wait through the pooler');
is_deeply([ pooled("CALL qml_wait_for('$deleted', '1 s')") ], [ '00000', 'deleted' ],
	'qml_wait_for through the pooler');
my ($code, $version) = pooled('CALL qml_watch()');
is($code, '00000', 'qml_watch through the pooler');
query($node, "SELECT qml_pause_queue('quiet')");
($code, my $later) = pooled("CALL qml_watch($version, '1 h')");
cmp_ok($later, '>', $version, 'and it is told of what has changed since, in whatever session');
is_deeply([ pooled("CALL qml_watch($later, '10 ms')") ], [ '00000', $later ], 'or that nothing has');

$pooler->signal('INT');
IPC::Run::finish($pooler);
undef $pooler;
done_testing();
