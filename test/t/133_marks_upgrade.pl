# pg_upgrade, here to the same version, keeps the marks of roles: the server still refuses to
# drop who has something of qml's, and what was revoked stays revoked.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlTest;
use Test::More;

my $old = new_node('old');
my $new = new_node('new', stopped => 1);

query($old, <<'SQL');
CREATE ROLE app LOGIN;
CREATE ROLE worker LOGIN;
CREATE ROLE lost LOGIN;
CREATE FUNCTION work(jsonb) RETURNS void LANGUAGE sql AS '';
SELECT qml_grant(r::regrole, 'admin') FROM unnest(ARRAY['app', 'lost']) r;
SELECT qml_register_handler('work', 'work', '{"run_as": "worker"}');
SELECT qml_register_handler('lost', 'work', '{"run_as": "lost"}');
SET ROLE app;
SELECT qml_schedule_recurring('yearly', '@yearly', 'm');
RESET ROLE;
DROP OWNED BY lost;
SQL

# Who is marked, and what counts.
my $STATE = <<'SQL';
SELECT string_agg(concat_ws(' ', left(relname, 3), grantee::regrole), ', ' ORDER BY relname, grantee::regrole::text)
FROM pg_class, aclexplode(relacl) WHERE relname LIKE '%see_qml_drop_role_objects' AND grantee <> relowner
UNION ALL SELECT string_agg(concat_ws(' ', grantee, capability, problem), ', ' ORDER BY grantee) FROM qml.acl
UNION ALL SELECT string_agg(concat_ws(' ', method, run_as, problem), ', ' ORDER BY method) FROM qml.handler
UNION ALL SELECT string_agg(concat_ws(' ', id, created_by, error), ', ' ORDER BY id) FROM qml.recurring
SQL
my $before = query($old, $STATE);
like($before, qr/^cap app, reg app, reg worker$/m, 'roles are marked');
like($before, qr/lost lost handler "lost" is revoked/, 'and one is not any more');

$old->stop;
{
	local %ENV = $new->_get_env();
	my $bindir = $new->config_data('--bindir');
	my ($out, $err) = ('', '');

	chdir PostgreSQL::Test::Utils::tempdir;
	my $ok = IPC::Run::run([ "$bindir/pg_upgrade", '--no-sync', '-b', $bindir, '-B', $bindir, '-d', $old->data_dir, '-D', $new->data_dir,
			'-p', $old->port, '-P', $new->port, '-s', $new->host ], '<', \undef, '>', \$out, '2>', \$err);
	ok($ok, 'pg_upgrade') or diag(substr "$out$err", -2000);
}
$new->start;
is(query($new, $STATE), $before, 'all is as it was');
foreach my $role ('app', 'worker')
{
	my (undef, undef, $message) = $new->psql('postgres', "DROP ROLE $role");
	like($message, qr/privileges for table qml\.\w+_see_qml_drop_role_objects/, "$role is not dropped by mistake");
	query($new, "SELECT qml_adopt()");
	query($new, "SELECT qml_drop_role_objects('$role')");
	is(query($new, "DROP ROLE $role; SELECT 'dropped'"), 'dropped', 'but in the way that it says');
}
query($new, 'DROP ROLE lost');
done_testing();
