# The record of acts of control: every function that steers leaves a row, no other does; what is
# rolled back, or lost in a crash, leaves none; partitions come and go, and none is waited for.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlCalls;
use QmlTest;
use Test::More;

# What producers, workers and maintenance do all the time, and what only looks.  Every other function
# is an act of control, also one that is added.
my %NO_ACT = map { $_ => 1 } qw(
  qml_enqueue qml_try_enqueue qml_enqueue_job qml_enqueue_many
  qml_fetch qml_fetch_job qml_run qml_drain qml_succeed_fetch qml_succeed_fetch_many qml_heartbeat qml_heartbeat_many qml_progress
  qml_search qml_watch
  qml_succeed qml_succeed_many qml_fail qml_fail_many qml_release qml_release_many qml_discard
  qml_progress_job qml_succeed_job qml_fail_job qml_release_job qml_discard_job qml_wait qml_wait_for
  qml_register_server qml_heartbeat_server qml_unregister_server qml_try_lock qml_unlock
  qml_promote_due qml_reclaim qml_cleanup qml_maintain qml_poll_recurring
  qml_can_transition qml_job qml_counts qml_queue_counts qml_queue_depth qml_peek qml_cron_next
  qml_bulk_preview qml_status qml_explain qml_explain_queue qml_stats qml_metrics qml_next qml_tracing qml_current_job qml_retry_later);

# These need pg_cron: 097_pg_cron.pl and 171_pg_cron_import.pl.
my @ELSEWHERE = qw(qml_pg_cron_schedule qml_pg_cron_unschedule qml_import_pg_cron);

my $node = new_node('audit', conf => "listen_addresses = '127.0.0.1'\n");
set_up_calls($node);
calls_are_complete($node, qml_wait => 1, qml_wait_for => 1, qml_watch => 1);

sub acts { return query($node, "SELECT string_agg(action, ' ' ORDER BY at, action) FROM qml.audit $_[0]"); }

# What a call leaves that ends in this way; %s is its statement.
sub left_by
{
	my ($name, $how, @more) = @_;
	my $call = for_call($name);
	my @left;

	query($node, $_) foreach @{ $call->{before} };
	query($node, 'TRUNCATE qml.audit_data, qml.audit_overflow');
	foreach my $statement ($how, @more)
	{
		try_query($node, sprintf $statement, $call->{sql});
		push @left, acts('');
	}
	try_query($node, $_) foreach grep { defined } $call->{after};
	return @left;
}

foreach my $name (all_calls())
{
	my $function = $name =~ s/[,(].*//r;

	next if grep { $_ eq $function } @ELSEWHERE;
	if ($NO_ACT{$function} || $function =~ /^qml\./)
	{
		is_deeply([ left_by($name, '%s') ], [''], "$name is no act of control");
		next;
	}
	is_deeply([ left_by($name, '%s') ], [$function], "$name leaves one row, under its name");
	is_deeply([ left_by($name, 'BEGIN; %s; ROLLBACK') ], [''], "rolled back, it leaves none");
	is_deeply([ left_by($name, "BEGIN; %s; PREPARE TRANSACTION 'act'", "COMMIT PREPARED 'act'") ],
		[ '', $function ], 'prepared, it leaves its row when that is committed');
}

# ---- who

query($node, <<'SQL');
DO $$
DECLARE
	leaf regclass;
BEGIN
	FOR leaf IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'qml.audit_data'::regclass LOOP
		EXECUTE format('DROP TABLE %s', leaf);
	END LOOP;
END $$;
SQL
query($node, q{SELECT qml_create_queue('q'); TRUNCATE qml.audit_data, qml.audit_overflow});
query($node, q{ALTER DATABASE postgres SET qml.actor = 'the page'});
is( $node->safe_psql('postgres', q{SELECT qml_pause_queue('q')}, connstr => 'host=127.0.0.1 port=' . $node->port . ' dbname=postgres'),
	't', 'an act over the network');
query($node, q{ALTER DATABASE postgres RESET qml.actor});
is(query($node, 'SELECT client_address, claimed_actor, session_role = session_user FROM qml.audit'), '127.0.0.1|the page|t', 'says from where, and what the client says of itself');
fails_with($node, '22023', q{LOAD 'qml'; SET qml.actor = E'a\tb'}, 'but no control characters');

# ---- a crash

query($node, q{SELECT qml_resume_queue('q')});
my $open = new_session($node);
$open->query_safe(q{BEGIN; SELECT qml_pause_queue('q', 'lost')});
kill_server($node);
$open->{run}->kill_kill;
start_again($node);
is(query($node, q{SELECT string_agg(action, ' ' ORDER BY at) FROM qml.audit}), 'qml_pause_queue qml_resume_queue', 'a crash keeps what was committed, and nothing else');
is(query($node, q{SELECT paused FROM qml.queue WHERE name = 'q'}), 'f', 'as of what was done');

# ---- partitions: of this month and the next one; no act waits for one

my $month = query($node, q{SELECT to_char(now() AT TIME ZONE 'UTC', '"audit_y"YYYY"m"MM')});
is(query($node, 'SELECT count(*) FROM qml.audit_overflow'), 2, 'acts without a partition are in the overflow');
query($node, 'SELECT qml_maintain()');
is(query($node, 'SELECT count(*) FROM qml.audit_overflow'), 0, 'maintenance moves them');
is(query($node, q{SELECT count(*) FROM pg_inherits WHERE inhparent = 'qml.audit_data'::regclass}), 2, 'to partitions that it makes');
is(query($node, "SELECT count(*) FROM qml.$month"), 2, 'that of their month');
is(query($node, q{SELECT qml_maintain() -> 'failed'}), '[]', 'again there is nothing to do');
my $lock = new_session($node);
$lock->query_safe("BEGIN; LOCK TABLE qml.$month");
is(query($node, q{SET statement_timeout = '20s'; SELECT qml_pause_queue('q', 'locked')}), 't', 'an act does not wait for a partition that somebody has locked');
is(query($node, 'SELECT count(*) FROM qml.audit_overflow'), 1, 'its row is in the overflow');
is(query($node, q{SET statement_timeout = '20s'; SELECT qml_maintain() -> 'failed'}), '[]', 'nor does maintenance');
$lock->query_safe('COMMIT; BEGIN; LOCK TABLE ONLY qml.audit_data');
is(query($node, q{SET statement_timeout = '20s'; SELECT qml_pause_queue('q', 'locked again')}), 't', 'nor for the table of all partitions');
is(query($node, 'SELECT count(*) FROM qml.audit_overflow'), 2, 'the row is in the overflow as well');
$lock->query_safe('COMMIT');
query($node, 'SELECT qml_cleanup()');
is(query($node, 'SELECT count(*) FROM qml.audit_overflow'), 0, 'which moves it afterwards');
is(acts("WHERE action LIKE '%queue'"), 'qml_pause_queue qml_resume_queue qml_pause_queue qml_pause_queue', 'nothing is lost, or there twice');
is( query($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'audit\\_y%' AND relkind = 'r' AND relreplident <> 'f'"),
	0, 'partitions have a replica identity');

# A month that is over goes when its last day is older than qml.audit_ttl.
query($node, <<'SQL');
CREATE TABLE qml.audit_y2001m01 PARTITION OF qml.audit_data FOR VALUES FROM ('2001-01-01 00:00+00') TO ('2001-02-01 00:00+00');
INSERT INTO qml.audit_data (at, action, object_type, session_role, effective_role) VALUES ('2001-01-31', 'old', 'queue', 'x', 'x');
SQL
set_config($node, 'qml.audit_ttl' => '-1');
$node->poll_query_until('postgres', 'SHOW qml.audit_ttl', '-1');
query($node, 'SELECT qml_cleanup()');
is(acts("WHERE action = 'old'"), 'old', 'with -1 it is kept for ever');
set_config($node, 'qml.audit_ttl' => '30d');
$node->poll_query_until('postgres', 'SHOW qml.audit_ttl', '30d');
my $reader = new_session($node);
$reader->query_safe('BEGIN; SELECT count(*) FROM qml.audit');
is(query($node, q{SET statement_timeout = '20s'; SELECT qml_maintain() -> 'failed'}), '[]', 'a reader is not waited for');
is(acts("WHERE action = 'old'"), 'old', 'and keeps it');
$reader->query_safe('COMMIT');
query($node, 'SELECT qml_cleanup()');
is(query($node, q{SELECT to_regclass('qml.audit_y2001m01') IS NULL}), 't', 'it is dropped then');

# What cannot be done is told, and stops nothing else.
query($node, q{SELECT qml_try_lock('expired', 'w', '1 us')});
query($node, "ALTER TABLE qml.audit_data DETACH PARTITION qml.$month; SELECT qml_resume_queue('q')");
my (undef, undef, $stderr) = $node->psql('postgres', 'SELECT qml_maintain()');
is(query($node, 'SELECT count(*) FROM qml.audit_overflow'), 1, 'the name of a partition that was detached is taken: rows stay in the overflow');
like($stderr, qr/DETAIL:  table "qml\.$month" is no partition\nHINT:  Attach it again/, 'and that is told');
is(query($node, q{SELECT count(*) FROM qml.lock_data WHERE resource = 'expired'}), 0, 'all else is done');
query($node, "DROP TABLE qml.$month; SELECT qml_cleanup()");
is(query($node, 'SELECT count(*) FROM qml.audit_overflow'), 0, 'until it is free');
query($node, q{CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not here''; END'; CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION no()});
query($node, q{INSERT INTO qml.audit_overflow (at, action, object_type, session_role, effective_role) VALUES (now() - interval '1 month', 'before', 'queue', 'x', 'x')});
(undef, undef, $stderr) = $node->psql('postgres', 'SELECT qml_cleanup()');
like($stderr, qr/WARNING:  could not make, fill or drop a partition of "qml.audit_data"\nDETAIL:  not here/, 'a partition that cannot be made is told');
query($node, 'DROP EVENT TRIGGER no; SELECT qml_cleanup()');
is(query($node, 'SELECT count(*) FROM qml.audit_overflow'), 0, 'and made later');

# ---- a dump keeps it, and the pauses

query($node, q{CREATE ROLE stranger; SELECT qml_pause_queue('q', 'for long'); SELECT qml_pause_all('the move')});
query($node, 'TRUNCATE qml.audit_overflow');
query($node, q{INSERT INTO qml.audit_overflow (at, action, object_type, session_role, effective_role) VALUES (now(), 'left', 'queue', 'x', 'x')});
my $all = 'SELECT count(*), md5(string_agg(a::text, E\'\n\' ORDER BY a::text)) FROM qml.audit a';
my $pauses = 'SELECT * FROM qml.pause ORDER BY queue';
my $was = query($node, $all);
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
query($node, 'CREATE DATABASE copy; ');
query($node, 'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO stranger', 'copy');
command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], 'pg_restore');
is(query($node, $all, 'copy'), $was, 'the record is the same in a copy');
is(query($node, $pauses, 'copy'), query($node, $pauses), 'and so are the pauses');
query($node, 'SELECT qml_adopt()', 'copy');
is(query($node, q{SELECT count(*) FROM pg_class c WHERE relname LIKE 'audit%' AND has_table_privilege('stranger', c.oid, 'SELECT')}, 'copy'), 1, 'a copy that is adopted opens the record to nobody: the view asks');
is(query($node, q{SELECT count(*) FROM qml.audit WHERE action = 'qml_adopt'}, 'copy'), 1, 'the adoption is an act');
query($node, q{SELECT qml_enqueue('m')}, 'copy');
is(query($node, q{SELECT count(*) FROM qml_fetch('w')}, 'copy'), 0, 'the copy is paused');
is(query($node, q{SELECT qml_resume_all()}, 'copy'), 't', 'until it is resumed');
is(query($node, q{SELECT count(*) FROM qml_fetch('w')}, 'copy'), 1, 'and then works');
is(query($node, q{SELECT qml_resume_all()}), 't', 'which the original is by itself');

# ---- a standby, and a scheduler

my $primary = background_node('primary', init => { allows_streaming => 1 });
wait_for_process($primary, 'scheduler', 'postgres');
query($primary, q{SELECT qml_enqueue('m', queue => 'q'); SELECT qml_create_queue('u', '{"storage": "unlogged"}'); SELECT qml_enqueue('m', queue => 'u')});
query($primary, q{SELECT qml_pause_queue('q', 'first')});
wait_for('the partitions', sub { query($primary, q{SELECT count(*) FROM pg_inherits WHERE inhparent = 'qml.audit_data'::regclass}) == 2 });
wait_for('the overflow to be empty', sub { query($primary, 'SELECT count(*) FROM qml.audit_overflow') == 0 });
is(query($primary, q{SELECT action FROM qml.audit ORDER BY at DESC LIMIT 1}), 'qml_pause_queue', 'a scheduler makes partitions, and moves what had none');
$primary->backup('copy');
my $standby = node_of_backup('standby', $primary, 'copy', has_streaming => 1);
$standby->start;
query($primary, q{SELECT qml_resume_queue('q'); SELECT qml_pause_queue('u', 'second')});
$primary->wait_for_catchup($standby, 'replay');
is(query($standby, 'SELECT count(*) FROM qml.audit'), query($primary, 'SELECT count(*) FROM qml.audit'), 'a standby shows the record');
is(query($standby, 'SELECT queue, pause_reason FROM qml.pause'), 'u|second', 'the pauses');
is(query($standby, q{SELECT string_agg(queue, ' ') FROM qml_peek()}), 'q', 'and what would be given out');
query($primary, q{SELECT qml_pause_all()});
$primary->wait_for_catchup($standby, 'replay');
is(query($standby, q{SELECT count(*) FROM qml_peek('q')}), 0, 'which is nothing while all is paused');

# ---- the pause of all and background workers

query($primary, q{CREATE TABLE ran (n int); CREATE FUNCTION run(n int) RETURNS void LANGUAGE sql AS 'INSERT INTO ran VALUES (n)'; SELECT qml_register_handler('run', 'run')});
query($primary, q{SELECT qml_enqueue('run', jsonb_build_object('n', n)) FROM generate_series(1, 20) n});
my $waiter = new_session($primary);
is($waiter->query_safe(q{CALL qml_wait('q', '200 ms')}), 'f', 'who waits for a job is given none');
is(query($primary, 'SELECT count(*) FROM ran'), 0, 'no worker takes one');
query($primary, 'SELECT qml_resume_all()');
wait_for('the jobs', sub { query($primary, 'SELECT count(*) FROM ran') == 20 });
is($waiter->query_safe(q{CALL qml_wait('q', '20 s')}), 't', 'until all is resumed');
is(query($primary, 'SELECT count(*) FROM ran'), 20, 'and then all are done, once');


done_testing();
