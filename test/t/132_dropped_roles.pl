# A role that loses its objects or is dropped: jobs of its handlers wait, and say why; nothing
# of them fails, and nobody else's work is held up.  They run when the handler is registered
# again.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $node = background_node('dropped', conf => "qml.workers = 2\nlog_error_verbosity = terse\n");
wait_for_process($node, 'scheduler', 'postgres');

# The application of a role: functions, a table, a handler, a schedule.
sub install
{
	query($node, <<'SQL');
CREATE ROLE app LOGIN;
CREATE SCHEMA app AUTHORIZATION app;
SET ROLE app;
CREATE TABLE app.done (n int);
CREATE FUNCTION app.work(n int) RETURNS void LANGUAGE sql AS 'INSERT INTO app.done VALUES (n)';
RESET ROLE;
SELECT qml_grant('app', 'admin');
SET ROLE app;
SELECT qml_register_handler('work', 'app.work');
SELECT qml_schedule_recurring('often', '* * * * * *', 'beat', queue => 'beats', misfire => 'skip');
RESET ROLE;
SQL
	return;
}

# Of somebody else, who is not concerned.
query($node, <<'SQL');
CREATE ROLE other LOGIN;
CREATE SCHEMA other AUTHORIZATION other;
SET ROLE other;
CREATE FUNCTION other.work(n int) RETURNS void LANGUAGE sql AS '';
RESET ROLE;
SELECT qml_register_handler('other', 'other.work', '{"run_as": "other"}');
SQL

my $serial = 0;

# Jobs of the handler wait while others run; and what the views say.
sub waits
{
	my ($name, $problem, $error) = @_;
	my @ids = map { enqueue($node, 'work', qq({"n": $_})) } 1 .. 3;

	like(outcome_of($node, enqueue($node, 'other', '{"n": 1}')), qr/^succeeded/, "$name: others run") for 1 .. 3;
	# Whatever would fail them has had its turn: the scheduler has looked at all jobs, and so has maintenance.
	query($node, "SELECT qml_maintain()");
	my $scheduler = wait_for_process($node, 'scheduler', 'postgres');
	query($node, "SELECT pg_terminate_backend($scheduler)");
	wait_for_process($node, 'scheduler', 'postgres', $scheduler);
	like(outcome_of($node, enqueue($node, 'other', '{"n": 2}')), qr/^succeeded/, "$name: others still run");
	is(ask($node, "SELECT string_agg(DISTINCT concat_ws(' ', state, attempt, errors), ', ') FROM qml.job WHERE id IN ('" . join("', '", @ids) . "')"),
		'enqueued 0', "$name: its jobs wait");
	like(ask($node, "SELECT problem FROM qml.handler WHERE method = 'work'"), $problem, "$name: the handler says why");
	like(ask($node, "SELECT error FROM qml.recurring WHERE id = 'often'"), $error, "$name: so does the schedule");
	is(ask($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'qml worker' AND usename = 'app'"), 0,
		"$name: no worker is started for it")
	  if $name =~ /dropped/;
	return @ids;
}

# Afterwards all of them run.
sub run_again
{
	my ($name, @ids) = @_;

	like(outcome_of($node, $_), qr/^succeeded\|1/, "$name: then it runs") foreach @ids;
	return;
}

install();
like(outcome_of($node, enqueue($node, 'work', '{"n": 0}')), qr/^succeeded/, 'it works');
my $beats = sub { ask($node, "SELECT count(*) FROM qml.job WHERE method = 'beat'") };
wait_for('its schedule fires', sub { $beats->() > 0 });

# DROP ROLE is refused, and the message leads on.
{
	my (undef, undef, $message) = $node->psql('postgres', 'DROP ROLE app');
	like($message, qr/privileges for table qml\.capabilities_see_qml_drop_role_objects\n.*privileges for table qml\.registrations_see_qml_drop_role_objects/s,
		'DROP ROLE names the marks');
	cmp_ok(index($message, 'see_qml_drop_role_objects'), '<', 250, 'before all else');
}

# DROP OWNED alone: the role is there, and a worker of it too.
query($node, 'DROP OWNED BY app');
my @waiting = waits('after DROP OWNED', qr/^handler "work" is revoked, and its jobs wait: The role that it runs as, "app", has lost it by DROP OWNED\.$/,
	qr/^its owner, "app", has lost it by DROP OWNED$/);
my $before = $beats->();
query($node, 'DROP ROLE app');
like(ask($node, "SELECT problem FROM qml.handler WHERE method = 'work'"), qr/: The role that it runs as was dropped/, 'the role is dropped');
# Maintenance removes the number of the role.
push @waiting, waits('dropped', qr/: The role that it runs as was dropped, or has lost it by DROP OWNED\.$/,
	qr/^its owner was dropped, or has lost it by DROP OWNED$/);
is($beats->(), $before, 'its schedule does not fire');

# A new role of the name is another one, until somebody registers for it.
query($node, <<'SQL');
CREATE ROLE app LOGIN;
CREATE SCHEMA app AUTHORIZATION app;
SET ROLE app;
CREATE TABLE app.done (n int);
CREATE FUNCTION app.work(n int) RETURNS void LANGUAGE sql AS 'INSERT INTO app.done VALUES (n)';
SQL
push @waiting, waits('a new role of that name', qr/^handler "work" is revoked/, qr/^its owner was dropped/);
query($node, q{SELECT qml_register_handler('work', 'app.work', '{"run_as": "app"}')});
run_again('registered again', @waiting);
is(ask($node, 'SELECT count(*) FROM app.done'), scalar @waiting, 'each once');

# The orderly way: nothing is left, and jobs wait for another handler or worker.
query($node, "SELECT qml_grant('app', 'admin')");
query($node, "SET ROLE app; SELECT qml_schedule_recurring('often', '* * * * * *', 'beat', queue => 'beats', misfire => 'skip')");
wait_for('its schedule fires again', sub { $beats->() > $before });
is(query($node, "SELECT qml_drop_role_objects('app')"), '{"hooks": 0, "handlers": 1, "schedules": 1, "middleware": 0, "capabilities": 1}',
	'qml_drop_role_objects removes all');
my $id = enqueue($node, 'work', '{"n": 9}');
query($node, 'DROP OWNED BY app; DROP ROLE app');
like(outcome_of($node, enqueue($node, 'other', '{"n": 1}')), qr/^succeeded/, 'others run');
is(outcome($node, $id), 'enqueued|0', 'a job without a handler waits');
is(ask($node, "SELECT count(*) FROM qml_fetch('client', '{default}') f, LATERAL (SELECT qml_succeed(f.id, f.attempt)) s WHERE f.id = '$id'"), 1,
	'and a worker outside the database may have it');

# What somebody has granted by hand stays, also where qml grants the same.  The member registers
# by the capability of a group, and has none of its own.
query($node, <<'SQL');
CREATE ROLE team;
CREATE ROLE member LOGIN IN ROLE team;
CREATE ROLE friend;
CREATE ROLE reader LOGIN;
CREATE SCHEMA member AUTHORIZATION member;
SET ROLE member;
CREATE FUNCTION member.work(n int) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION member.after(event jsonb) RETURNS void LANGUAGE sql AS '';
RESET ROLE;
SELECT qml_grant('team', 'admin');
GRANT USAGE ON SCHEMA qml TO member, friend;
GRANT USAGE ON TYPE qml.job_state TO member WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION qml_job TO member;
GRANT EXECUTE ON FUNCTION qml_current_job TO member WITH GRANT OPTION;
GRANT SELECT ON qml.job TO member WITH GRANT OPTION;
GRANT ALL ON TABLE qml.registrations_see_qml_drop_role_objects TO member;
GRANT REFERENCES ON TABLE qml.registrations_see_qml_drop_role_objects TO friend WITH GRANT OPTION;
SET ROLE friend;
GRANT REFERENCES ON TABLE qml.registrations_see_qml_drop_role_objects TO reader;
SET ROLE member;
GRANT EXECUTE ON FUNCTION qml_current_job TO friend;
GRANT SELECT ON qml.job TO friend;
GRANT USAGE ON TYPE qml.job_state TO friend;
RESET ROLE;
SQL

# All privileges on objects of qml that were granted to a role, and by whom.
sub privileges
{
	my ($role) = @_;
	return query($node, <<"SQL");
SELECT string_agg(concat_ws(' ', what, privilege_type, grantor::regrole, is_grantable), ', ' ORDER BY what, privilege_type, grantor)
FROM (SELECT 'schema' AS what, nspacl AS acl FROM pg_namespace WHERE nspname = 'qml'
	UNION ALL SELECT typname::text, typacl FROM pg_type WHERE oid = 'qml.job_state'::regtype
	UNION ALL SELECT relname::text, relacl FROM pg_class WHERE relnamespace = 'qml'::regnamespace
	UNION ALL SELECT proname::text, proacl FROM pg_proc WHERE proname LIKE 'qml%') o, aclexplode(acl) a
WHERE a.grantee = '$role'::regrole
SQL
}
{
	my %before = map { $_ => privileges($_) } qw(member friend reader);
	my @registrations = (
		[ q{qml_register_hook('h', 'member.after', options => '{"after_commit": true}')}, q{qml_unregister_hook('h')} ],
		[ q{qml_schedule_recurring('mine', '@yearly', 'm') > now()}, q{qml_remove_recurring('mine')} ],
		[ q{qml_register_middleware('mine', 'qml_tracing')}, q{qml_unregister_middleware('mine')} ],
		[ q{qml_register_handler('mine', 'member.work')}, q{qml_unregister_handler('mine')} ]);
	foreach my $registration (@registrations)
	{
		my ($register, $unregister) = @$registration;
		# The role of a handler needs USAGE, and qml gives and takes it.
		if ($register =~ /handler/)
		{
			query($node, 'GRANT USAGE ON SCHEMA qml TO member WITH GRANT OPTION');
			$before{member} = privileges('member');
		}
		query($node, "SET ROLE member; SELECT $register");
		query($node, "SET ROLE member; SELECT $unregister");
		is(privileges('member'), $before{member}, "granted by hand, stays: $unregister");
	}
	# A capability that comes and goes takes what belongs to it, and nothing else.
	query($node, q{SELECT qml_grant('reader', 'work'), qml_grant('member', 'enqueue', 'q'), qml_grant('member', 'monitor')});
	query($node, 'GRANT EXECUTE ON FUNCTION qml_counts TO reader; GRANT SELECT ON qml.live TO reader');
	query($node, q{SELECT qml_revoke('reader', 'work'), qml_revoke('member', 'enqueue', 'q'), qml_revoke('member', 'monitor')});
	is(privileges('member'), $before{member}, 'granted by hand and by qml');
	like(privileges('reader'), qr/^live SELECT \w+ f, qml_counts EXECUTE \w+ f, registrations_\w+ REFERENCES friend f$/, 'granted by hand for another capability');
	is(privileges('friend'), $before{friend}, 'and by those to whom it was granted');
}
query($node, 'DROP OWNED BY member, friend, reader, team; DROP ROLE member, friend, reader, team');

# Whoever hands the extension over keeps working: the bootstrap superuser has needed no mark.
query($node, <<'SQL');
CREATE FUNCTION mine(n int) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_handler('mine', 'mine');
CREATE ROLE keeper LOGIN SUPERUSER;
SQL
give_extension($node, 'postgres', 'keeper');
like(outcome_of($node, enqueue($node, 'mine', '{"n": 1}')), qr/^succeeded/, 'a handler of the former owner runs');

run_log_clean($node);
$node->stop;
done_testing();
