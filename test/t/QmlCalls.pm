# A call of every function and view of the extension, for tests of what must hold
# for all of them: the stricter isolation levels, prepared transactions, poolers.

package QmlCalls;

use strict;
use warnings;

use Exporter 'import';
use QmlTest;
use Test::More;

our @EXPORT = qw(all_calls calls_are_complete for_call set_up_calls);

my $serial = 0;

# Statements of more than one call.  ID and NAME are a job's id and a name, new ones for
# each call.
my $ENQUEUE = "SELECT qml_enqueue('t', queue => 'NAME', id => 'ID')";
my $LATER = "SELECT qml_enqueue('t', queue => 'NAME', id => 'ID', run_at => now() + interval '1 h')";
my $CLAIM = "SELECT id FROM qml_fetch('w', ARRAY['NAME'], 1, '1 h')";
my $CREATE = "SELECT qml_create_queue('NAME')";
my $RECUR = "SELECT qml_schedule_recurring('NAME', '0 0 0 1 1 *', 't', queue => 'NAME') > now()";
my $LOCK = "SELECT qml_try_lock('NAME', 'w', '1 h') IS NOT NULL";
my $EXPIRED = "SELECT qml_try_lock('NAME', 'w', '1 us') IS NOT NULL";
my $GRANT = "SELECT qml_grant('calls_role', 'work', 'NAME')";
my $SERVER = "SELECT qml_register_server('NAME') IS NOT NULL";
my $RENAME = "UPDATE qml.server_data SET id = 'NAME:1', heartbeat_at = now() - interval '50 s' WHERE name = 'NAME'";
my $HANDLER = "SELECT qml_register_handler('NAME', 'calls_handler')";
my $HANDLED = "SELECT qml_enqueue('NAME', queue => 'NAME', id => 'ID')";
my $HANDLED_LATER = "SELECT qml_enqueue('NAME', queue => 'NAME', id => 'ID', delay => '1 h')";
my $HOOK = "SELECT qml_register_hook('NAME', 'calls_hook', '{failed}')";
my $MIDDLEWARE = "SELECT qml_register_middleware('NAME', 'calls_middleware')";

# One that nothing is done of meanwhile.
my $BULK = "INSERT INTO qml.bulk_data (id, made_at, state_at, not_before, made_by, state, action, timezone, query, options) "
  . "VALUES ('ID', now(), now(), 'infinity', current_user::regrole, 'running', 'retry', 'UTC', 'queue:NAME', '{}')";

my @HELD = ($ENQUEUE, $CLAIM);

sub job_is { return "SELECT $_[0] FROM qml.job WHERE id = 'ID'"; }
sub is_in { return job_is("state = '$_[0]'"); }
sub rows { return "SELECT count(*) = $_[1] FROM qml.$_[0]"; }

# By name, or by signature where several have the name; what follows a comma tells
# several calls of one function apart.
#   sql      the call
#   before   what it needs: statements of others
#   done     a query that is true when it is done, and was not before
#   after    what undoes it, where it would be in the way of other calls
#   unasked  takes what it sees, and passes over the rest
#   code     the SQLSTATE it ends with, where it has nothing to do
my %CALLS = (
	# producers
	qml_enqueue => { sql => $ENQUEUE, done => is_in('enqueued') },
	qml_enqueue_job => {
		sql => "CALL qml_enqueue_job('t', queue => 'NAME', id => 'ID')",
		done => is_in('enqueued')
	},
	'qml_enqueue, delayed' => {
		sql => "SELECT qml_enqueue('t', queue => 'NAME', id => 'ID', delay => '1 h')",
		done => is_in('scheduled')
	},
	'qml_enqueue, again' => {
		before => [$ENQUEUE],
		sql => "SELECT qml_enqueue('t', queue => 'NAME', id => 'ID', options => '{\"on_duplicate_id\": \"return\"}')"
	},
	qml_try_enqueue => {
		sql => "SELECT created FROM qml_try_enqueue('t', queue => 'NAME', id => 'ID', options => '{\"on_duplicate_id\": \"return\"}')",
		done => is_in('enqueued')
	},
	qml_enqueue_many => {
		sql => "SELECT count(*) FROM qml_enqueue_many('t', ARRAY['1', '2']::jsonb[], 'NAME')",
		done => rows("job WHERE queue = 'NAME'", 2)
	},

	# workers
	qml_fetch => { before => [$ENQUEUE], sql => $CLAIM, done => is_in('processing'), unasked => 1 },
	'qml_fetch, of a method' => {
		before => [$ENQUEUE],
		sql => "SELECT id FROM qml_fetch('w', 'NAME', methods => '{t}')",
		done => is_in('processing'),
		unasked => 1
	},
	qml_fetch_job => {
		before => [$ENQUEUE],
		sql => "SELECT attempt FROM qml_fetch_job('ID', 'w')",
		done => is_in('processing')
	},
	qml_heartbeat => {
		before => \@HELD,
		sql => "SELECT qml_heartbeat('ID', 1, '2 h') IS NOT NULL",
		done => job_is("lease_expires_at > now() + interval '90 min'")
	},
	qml_heartbeat_many => {
		before => \@HELD,
		sql => "SELECT count(*) FROM qml_heartbeat_many(ARRAY['ID'::uuid], ARRAY[1], '2 h')",
		done => job_is("lease_expires_at > now() + interval '90 min'")
	},
	'qml_progress(uuid,integer,jsonb)' => {
		before => \@HELD,
		sql => "SELECT qml_progress('ID', 1, '7')",
		done => job_is("progress = '7'")
	},
	qml_succeed =>
	  { before => \@HELD, sql => "SELECT qml_succeed('ID', 1)", done => is_in('succeeded') },
	qml_succeed_many => {
		before => \@HELD,
		sql => "SELECT count(*) FROM qml_succeed_many(ARRAY['ID'::uuid], ARRAY[1])",
		done => is_in('succeeded')
	},
	qml_succeed_fetch => {
		before => \@HELD,
		sql => "SELECT count(*) FROM qml_succeed_fetch('ID', 1, queues => 'NAME')",
		done => is_in('succeeded')
	},
	'qml_succeed_fetch, of another job' => {
		before => [ @HELD, "SELECT qml_enqueue('t', queue => 'NAME')" ],
		sql => "SELECT count(*) FROM qml_succeed_fetch('ID', 1, queues => 'NAME')",
		done => rows("job WHERE queue = 'NAME' AND state IN ('succeeded', 'processing')", 2)
	},
	qml_succeed_fetch_many => {
		before => \@HELD,
		sql => "SELECT count(*) FROM qml_succeed_fetch_many(ARRAY['ID'::uuid], ARRAY[1], queues => 'NAME')",
		done => is_in('succeeded')
	},
	qml_fail => {
		before => \@HELD,
		sql => "SELECT qml_fail('ID', 1, 'oops')",
		done => is_in('awaiting_retry')
	},
	'qml_fail, for good' => {
		before => \@HELD,
		sql => "SELECT qml_fail('ID', 1, 'oops', retry => false)",
		done => is_in('failed')
	},
	qml_fail_many => {
		before => \@HELD,
		sql => "SELECT count(*) FROM qml_fail_many(ARRAY['ID'::uuid], ARRAY[1], '{oops}')",
		done => is_in('awaiting_retry')
	},
	'qml_fail_many, for good' => {
		before => \@HELD,
		sql => "SELECT count(*) FROM qml_fail_many(ARRAY['ID'::uuid], ARRAY[1], NULL, retry => false)",
		done => is_in('failed')
	},
	qml_release =>
	  { before => \@HELD, sql => "SELECT qml_release('ID', 1)", done => is_in('enqueued') },
	'qml_release, for later' => {
		before => \@HELD,
		sql => "SELECT qml_release('ID', 1, now() + interval '1 h', 'busy')",
		done => is_in('awaiting_retry')
	},
	qml_release_many => {
		before => \@HELD,
		sql => "SELECT count(*) FROM qml_release_many(ARRAY['ID'::uuid], ARRAY[1])",
		done => is_in('enqueued')
	},
	'qml_release_many, for later' => {
		before => \@HELD,
		sql => "SELECT count(*) FROM qml_release_many(ARRAY['ID'::uuid], ARRAY[1], now() + interval '1 h')",
		done => is_in('awaiting_retry')
	},
	'qml_discard(uuid,integer,text)' => {
		before => \@HELD,
		sql => "SELECT qml_discard('ID', 1, 'enough')",
		done => is_in('deleted')
	},
	qml_progress_job => {
		before => \@HELD,
		sql => "CALL qml_progress_job('ID', 1, '7')",
		done => job_is("progress = '7'")
	},
	qml_succeed_job =>
	  { before => \@HELD, sql => "CALL qml_succeed_job('ID', 1)", done => is_in('succeeded') },
	qml_fail_job => {
		before => \@HELD,
		sql => "CALL qml_fail_job('ID', 1, 'oops')",
		done => is_in('awaiting_retry')
	},
	qml_release_job =>
	  { before => \@HELD, sql => "CALL qml_release_job('ID', 1)", done => is_in('enqueued') },
	qml_discard_job =>
	  { before => \@HELD, sql => "CALL qml_discard_job('ID', 1)", done => is_in('deleted') },

	# control and reading
	qml_can_transition => { sql => "SELECT qml_can_transition('failed', 'enqueued')" },
	qml_job => { before => [$ENQUEUE], sql => "SELECT (qml_job('ID')).state" },
	qml_search => { before => [$ENQUEUE], sql => "SELECT count(*) FROM qml_search('queue:NAME')" },
	qml_counts => { sql => 'SELECT count(*) FROM qml_counts()' },
	qml_queue_counts => { sql => 'SELECT count(*) FROM qml_queue_counts()' },
	qml_explain => { before => [$ENQUEUE], sql => "SELECT count(*) > 0 FROM qml_explain('ID')" },
	qml_explain_queue => { before => [$ENQUEUE], sql => "SELECT count(*) > 0 FROM qml_explain_queue('NAME')" },
	qml_status => { sql => 'SELECT count(*) > 0 FROM qml_status()' },
	qml_queue_depth => { before => [$ENQUEUE], sql => "SELECT qml_queue_depth('NAME')" },
	qml_stats => { sql => 'SELECT count(*) >= 0 FROM qml_stats()' },
	qml_metrics => { sql => "SELECT qml_metrics() <> ''" },
	qml_mark => { sql => "SELECT qml_mark('NAME') IS NOT NULL", done => rows("mark WHERE label = 'NAME'", 1) },
	qml_delete =>
	  { before => [$ENQUEUE], sql => "SELECT qml_delete('ID')", done => is_in('deleted') },
	'qml_delete, out of history' => {
		before => [ @HELD, "SELECT qml_succeed('ID', 1)" ],
		sql => "SELECT qml_delete('ID')",
		done => is_in('deleted')
	},
	qml_cancel =>
	  { before => [$ENQUEUE], sql => "SELECT qml_cancel('ID', 'enough')", done => is_in('deleted') },
	qml_retry => { before => [$LATER], sql => "SELECT qml_retry('ID')", done => is_in('enqueued') },
	'qml_retry, out of history' => {
		before => [ @HELD, "SELECT qml_fail('ID', 1, 'oops', retry => false)" ],
		sql => "SELECT qml_retry('ID')",
		done => is_in('enqueued')
	},
	qml_reschedule => {
		before => [$ENQUEUE],
		sql => "SELECT qml_reschedule('ID', now() + interval '1 h')",
		done => is_in('scheduled')
	},
	qml_set_state => {
		before => [$ENQUEUE],
		sql => "SELECT (qml_set_state('ID', 'scheduled')).state",
		done => is_in('scheduled')
	},

	qml_update_job => {
		before => [$LATER],
		sql => q(SELECT qml_update_job('ID', '{"priority": 7, "run_at": null}')),
		done => job_is("state = 'enqueued' AND priority = 7")
	},
	'qml_update_job, into another queue' => {
		before => [ $ENQUEUE, q(SELECT qml_create_queue('NAME b', '{"storage": "unlogged"}')) ],
		sql => q(SELECT qml_update_job('ID', '{"queue": "NAME b"}')),
		done => job_is("queue = 'NAME b'")
	},
	'qml_update_job, in history' => {
		before => [ @HELD, "SELECT qml_fail('ID', 1, 'oops', retry => false)" ],
		sql => q(SELECT qml_update_job('ID', '{"payload": 7}')),
		done => job_is("payload = '7'")
	},
	qml_peek => { before => [$ENQUEUE], sql => "SELECT id FROM qml_peek('NAME')" },

	# bulk operations
	qml_bulk => {
		sql => "SELECT qml_bulk('retry', 'queue:NAME') IS NOT NULL",
		done => rows("bulk WHERE query = 'queue:NAME'", 1)
	},
	qml_bulk_preview => {
		before => [$ENQUEUE],
		sql => "SELECT count FROM qml_bulk_preview('delete', 'queue:NAME')"
	},
	qml_pause_bulk => {
		before => [$BULK],
		sql => "SELECT qml_pause_bulk('ID')",
		done => "SELECT state = 'paused' FROM qml.bulk WHERE id = 'ID'"
	},
	qml_resume_bulk => {
		before => [ $BULK, "SELECT qml_pause_bulk('ID')" ],
		sql => "SELECT qml_resume_bulk('ID')",
		done => "SELECT state <> 'paused' FROM qml.bulk WHERE id = 'ID'"
	},
	qml_cancel_bulk => {
		before => [$BULK],
		sql => "SELECT qml_cancel_bulk('ID')",
		done => "SELECT state = 'canceled' FROM qml.bulk WHERE id = 'ID'"
	},

	# queues
	qml_create_queue => { sql => $CREATE, done => rows("queue WHERE name = 'NAME'", 1) },
	qml_alter_queue => {
		before => [$CREATE],
		sql => q(SELECT qml_alter_queue('NAME', '{"max_retries": 1}')),
		done => q(SELECT options = '{"max_retries": 1}' FROM qml.queue WHERE name = 'NAME')
	},
	qml_drop_queue => {
		before => [$CREATE],
		sql => "SELECT qml_drop_queue('NAME')",
		done => rows("queue WHERE name = 'NAME'", 0)
	},
	qml_pause_queue => {
		before => [$CREATE],
		sql => "SELECT qml_pause_queue('NAME')",
		done => "SELECT paused FROM qml.queue WHERE name = 'NAME'"
	},
	qml_resume_queue => {
		before => [ $CREATE, "SELECT qml_pause_queue('NAME')" ],
		sql => "SELECT qml_resume_queue('NAME')",
		done => "SELECT NOT paused FROM qml.queue WHERE name = 'NAME'"
	},
	qml_purge_queue => {
		before => [$ENQUEUE],
		sql => "SELECT qml_purge_queue('NAME')",
		done => is_in('deleted'),
		unasked => 1
	},
	qml_pause_all => {
		sql => "SELECT qml_pause_all('NAME')",
		done => "SELECT pause_reason = 'NAME' FROM qml.pause WHERE queue IS NULL",
		after => 'SELECT qml_resume_all()'
	},
	qml_resume_all => {
		before => ["SELECT qml_pause_all()"],
		sql => 'SELECT qml_resume_all()',
		done => rows('pause WHERE queue IS NULL', 0),
		after => 'SELECT qml_resume_all()'
	},

	# maintenance
	qml_promote_due => {
		before =>
		  [ $LATER, "UPDATE qml.live SET run_at = now() - interval '1 s' WHERE id = 'ID'" ],
		sql => 'SELECT qml_promote_due()',
		done => is_in('enqueued'),
		unasked => 1
	},
	qml_reclaim => {
		before => [
			@HELD, "UPDATE qml.live SET lease_expires_at = now() - interval '1 s' WHERE id = 'ID'"
		],
		sql => 'SELECT qml_reclaim()',
		done => is_in('enqueued'),
		unasked => 1
	},
	qml_cleanup => {
		before => [$EXPIRED],
		sql => 'SELECT qml_cleanup() > 0',
		done => rows("lock_data WHERE resource = 'NAME'", 0),
		unasked => 1
	},
	qml_maintain => {
		before => [$EXPIRED],
		sql => 'SELECT qml_maintain() IS NOT NULL',
		done => rows("lock_data WHERE resource = 'NAME'", 0),
		unasked => 1
	},
	qml_adopt => {
		before => ['UPDATE qml.instance_data SET database = 1'],
		sql => 'SELECT qml_adopt()',
		done => 'SELECT bool_and(database <> 1) FROM qml.instance_data',
		after => 'SELECT qml_adopt()'
	},

	# recurring jobs
	qml_schedule_recurring => { sql => $RECUR, done => rows("recurring WHERE id = 'NAME'", 1) },
	'qml_schedule_recurring, another' => {
		before => [$RECUR],
		sql => "SELECT qml_schedule_recurring('NAME', '0 0 0 1 2 *', 't') > now()",
		done => "SELECT cron = '0 0 0 1 2 *' FROM qml.recurring WHERE id = 'NAME'"
	},
	qml_remove_recurring => {
		before => [$RECUR],
		sql => "SELECT qml_remove_recurring('NAME')",
		done => rows("recurring WHERE id = 'NAME'", 0)
	},
	qml_pause_recurring => {
		before => [$RECUR],
		sql => "SELECT qml_pause_recurring('NAME', 'holidays')",
		done => "SELECT NOT enabled AND pause_reason = 'holidays' FROM qml.recurring WHERE id = 'NAME'"
	},
	qml_resume_recurring => {
		before => [ $RECUR, "SELECT qml_pause_recurring('NAME')" ],
		sql => "SELECT qml_resume_recurring('NAME')",
		done => "SELECT enabled FROM qml.recurring WHERE id = 'NAME'"
	},
	qml_run_recurring => {
		before => [$RECUR],
		sql => "SELECT qml_run_recurring('NAME') IS NOT NULL",
		done => rows("job WHERE queue = 'NAME'", 1)
	},
	qml_cron_next => { sql => q(SELECT count(*) FROM qml_cron_next('@hourly')) },
	qml_poll_recurring => {
		before => [
			$RECUR, "UPDATE qml.recurring_data SET next_run_at = now() - interval '1 s' WHERE id = 'NAME'"
		],
		sql => 'SELECT qml_poll_recurring()',
		done => rows("job WHERE queue = 'NAME'", 1),
		unasked => 1
	},
	# without pg_cron, which 097_pg_cron.pl is about
	qml_pg_cron_schedule => { sql => 'SELECT qml_pg_cron_schedule()', code => '55000' },
	qml_pg_cron_unschedule => { sql => 'SELECT qml_pg_cron_unschedule()', code => '55000' },
	qml_import_pg_cron => { sql => 'SELECT qml_import_pg_cron()', code => '55000' },

	# servers
	qml_register_server =>
	  { sql => $SERVER, done => rows("server_data WHERE name = 'NAME'", 1) },
	qml_heartbeat_server => {
		before => [ $SERVER, $RENAME ],
		sql => "SELECT qml_heartbeat_server('NAME:1')",
		done => rows(
			"server_data WHERE name = 'NAME' AND heartbeat_at > now() - interval '25 s'", 1)
	},
	qml_unregister_server => {
		before => [ $SERVER, $RENAME ],
		sql => "SELECT qml_unregister_server('NAME:1')",
		done => rows("server_data WHERE name = 'NAME'", 0)
	},
	qml_reclaim_server => {
		before => [ $SERVER, $RENAME ],
		sql => "SELECT qml_reclaim_server('NAME:1')",
		done => rows("server_data WHERE name = 'NAME' AND dead_at IS NOT NULL", 1)
	},

	# handlers, hooks, middleware
	'qml_register_handler(text,text,jsonb)' =>
	  { sql => $HANDLER, done => rows("handler WHERE method = 'NAME'", 1) },
	'qml_register_handler(text,regprocedure,jsonb)' => {
		sql => "SELECT qml_register_handler('NAME', 'calls_handler(jsonb)'::regprocedure)",
		done => rows("handler WHERE method = 'NAME'", 1)
	},
	'qml_register_handler(text,text,jsonb), another' => {
		before => [$HANDLER],
		sql => q(SELECT qml_register_handler('NAME', 'calls_handler', '{"run_as": "calls_role"}')),
		done => rows("handler WHERE method = 'NAME' AND run_as = 'calls_role'", 1)
	},
	qml_register_command => {
		sql => "SELECT qml_register_command('NAME', 'VACUUM')",
		done => rows("handler WHERE method = 'NAME' AND command = 'VACUUM'", 1)
	},
	qml_unregister_handler => {
		before => [$HANDLER],
		sql => "SELECT qml_unregister_handler('NAME')",
		done => rows("handler WHERE method = 'NAME'", 0)
	},
	'qml_register_hook(text,text,qml.job_state[],jsonb)' => {
		sql => $HOOK,
		done => rows("hook WHERE name = 'NAME'", 1),
		after => "SELECT qml_unregister_hook('NAME', true)"
	},
	'qml_register_hook(text,regprocedure,qml.job_state[],jsonb)' => {
		sql => "SELECT qml_register_hook('NAME', 'calls_hook(qml.job,qml.job_state,qml.job_state)'::regprocedure)",
		done => rows("hook WHERE name = 'NAME'", 1),
		after => "SELECT qml_unregister_hook('NAME', true)"
	},
	qml_unregister_hook => {
		before => [$HOOK],
		sql => "SELECT qml_unregister_hook('NAME')",
		done => rows("hook WHERE name = 'NAME'", 0),
		after => "SELECT qml_unregister_hook('NAME', true)"
	},
	'qml_register_middleware(text,text,integer,jsonb)' =>
	  { sql => $MIDDLEWARE, done => rows("middleware WHERE name = 'NAME'", 1) },
	'qml_register_middleware(text,regprocedure,integer,jsonb)' => {
		sql => "SELECT qml_register_middleware('NAME', 'calls_middleware(qml.job)'::regprocedure)",
		done => rows("middleware WHERE name = 'NAME'", 1)
	},
	qml_unregister_middleware => {
		before => [$MIDDLEWARE],
		sql => "SELECT qml_unregister_middleware('NAME')",
		done => rows("middleware WHERE name = 'NAME'", 0)
	},

	# in the caller's transaction
	qml_run => {
		before => [ $HANDLER, $HANDLED ],
		sql => "SELECT state FROM qml_run('ID')",
		done => is_in('succeeded')
	},
	qml_drain => {
		before => [ $HANDLER, $HANDLED ],
		sql => "SELECT qml_drain('NAME')",
		done => is_in('succeeded'),
		unasked => 1
	},
	'qml_drain, of what is delayed' => {
		before => [ $HANDLER, $HANDLED_LATER ],
		sql => "SELECT qml_drain('NAME', scheduled => true)",
		done => is_in('succeeded'),
		unasked => 1
	},

	# inside of jobs only
	qml_next => { sql => 'SELECT qml_next()', code => '55000' },
	qml_tracing => {
		sql => "SELECT qml_tracing(qml_job(qml_enqueue('t', queue => 'NAME')))",
		code => '55000'
	},
	qml_current_job => { sql => 'SELECT qml_current_job() IS NULL' },
	'qml_progress(jsonb)' => { sql => "SELECT qml_progress('7')", code => '55000' },
	qml_retry_later => { sql => "SELECT qml_retry_later('1 s')", code => '55000' },
	'qml_discard(text)' => { sql => 'SELECT qml_discard()', code => '55000' },

	# locks
	qml_try_lock => { sql => $LOCK, done => rows("lock WHERE resource = 'NAME'", 1) },
	'qml_try_lock, again' => {
		before => [$LOCK],
		sql => "SELECT qml_try_lock('NAME', 'w', '3 h') IS NOT NULL",
		done => "SELECT expires_at > now() + interval '2 h' FROM qml.lock WHERE resource = 'NAME'"
	},
	qml_unlock => {
		before => [$LOCK],
		sql => "SELECT qml_unlock('NAME', 'w')",
		done => rows("lock WHERE resource = 'NAME'", 0)
	},

	# rights
	qml_grant => { sql => $GRANT, done => rows("acl WHERE queue = 'NAME'", 1) },
	qml_revoke => {
		before => [$GRANT],
		sql => "SELECT qml_revoke('calls_role', 'work', 'NAME')",
		done => rows("acl WHERE queue = 'NAME'", 0)
	},
	qml_drop_role_objects => {
		before => [$GRANT],
		sql => "SELECT qml_drop_role_objects('calls_role')",
		done => rows("acl WHERE queue = 'NAME'", 0)
	},
	'qml_drop_queue, with its rights' => {
		before => [ $CREATE, $GRANT ],
		sql => "SELECT qml_drop_queue('NAME')",
		done => rows("acl WHERE queue = 'NAME'", 0)
	},

	map { ("qml.$_" => { sql => "SELECT count(*) FROM qml.$_" }) }
	  qw(job recent queue pause audit lock recurring recurring_tick server database handler hook middleware acl stats_minute mark alert bulk dead_letter)
);

# What they need in a database.
sub set_up_calls
{
	my ($node) = @_;
	query($node, <<'SQL');
CREATE ROLE calls_role LOGIN;
CREATE FUNCTION calls_handler(payload jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION calls_hook(job qml.job, old qml.job_state, new qml.job_state) RETURNS void
	LANGUAGE sql AS '';
CREATE FUNCTION calls_middleware(job qml.job) RETURNS jsonb LANGUAGE sql AS 'SELECT public.qml_next()';
REVOKE EXECUTE ON FUNCTION calls_hook, calls_middleware FROM PUBLIC;
SQL
	return;
}

# The names of all of them.
sub all_calls { return sort keys %CALLS; }

# A call with an id and a name of its own.
sub for_call
{
	my ($name) = @_;
	my $n = ++$serial;
	my $id = sprintf '01890000-0000-7000-9000-%012d', $n;
	my $fill = sub { return $_[0] =~ s/\bID\b/$id/gr =~ s/\bNAME\b/call $n/gr; };
	my %call = %{ $CALLS{$name} };

	$call{before} = [ map { $fill->($_) } @{ $call{before} // [] } ];
	$call{$_} = $fill->($call{$_}) foreach grep { defined $call{$_} } qw(sql done after);
	$call{code} //= '00000';
	return \%call;
}

# Asserts that no function or view of the extension is left out, but those that are
# given.  Functions in schema qml are called by the views.
sub calls_are_complete
{
	my ($node, %left_out) = @_;
	my %called = map { s/, .*//r => 1 } all_calls();
	my $members = query($node, <<'SQL');
SELECT CASE WHEN count(*) OVER (PARTITION BY p.proname) > 1 THEN p.oid::regprocedure::text ELSE p.proname END
FROM pg_depend d
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
WHERE e.extname = 'qml' AND d.deptype = 'e' AND p.pronamespace = e.extnamespace
UNION
SELECT c.oid::regclass::text
FROM pg_depend d
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
JOIN pg_class c ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
WHERE e.extname = 'qml' AND d.deptype = 'e' AND c.relkind = 'v'
SQL

	is_deeply([ sort keys %called, keys %left_out ], [ sort split /\n/, $members ],
		'every function and view is called, but: ' . join(', ', sort keys %left_out));
	return;
}

1;
