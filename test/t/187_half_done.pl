# A claim is cut off when it has taken a job out of its list, and has not touched the row: whoever
# has looked meanwhile found nothing, and is woken.  So it is after a claim of the same transaction
# during which a subtransaction was rolled back, by a function that an index calls.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlTest;
use Test::More;

my $node = new_node('half_done', variant => 'faults', conf => <<'CONF');
shared_preload_libraries = 'qml'
qml.enabled = off
autovacuum = off
fsync = off
CONF

my ($s, $gate, $waiter) = map { new_session($node, undef, on_error_stop => 0) } 1 .. 3;
my ($pid, $waiter_pid) = map { $_->query_safe('SELECT pg_backend_pid()') } $s, $waiter;

sub waits_for
{
	my ($process, $what) = @_;
	return ask($node, "SELECT wait_event_type || ' ' || wait_event FROM pg_stat_activity WHERE pid = $process AND state = 'active'") =~ $what;
}

# What is done first, in the transaction in which a claim of queue q is cut off.
sub wakes
{
	my ($name, $first) = @_;
	my $id = ask($node, q{SELECT qml_enqueue('m', queue => 'q')});

	$gate->query_safe('SELECT pg_advisory_lock(4711)');
	$s->query_safe("BEGIN; $first; SAVEPOINT a; SET qml.faults = 'list.taken:wait,list.taken:error'");
	$s->query_until(qr/^begun$/m, "\\echo begun\nSELECT id FROM qml_fetch('w', 'q');\n");
	wait_for('the claim to have taken its job', sub { waits_for($pid, qr/^Lock advisory/) });
	$waiter->query_until(qr/^begun$/m, "\\echo begun\nCALL qml_wait('q', '1 h');\n");
	wait_for('another session to wait', sub { waits_for($waiter_pid, qr/^Extension/) });
	$gate->query_safe('SELECT pg_advisory_unlock(4711)');
	wait_for("$name: the other session to be woken", sub { ask($node, "SELECT state FROM pg_stat_activity WHERE pid = $waiter_pid") eq 'idle' });
	like($waiter->query_safe('\echo'), qr/^t$/m, "$name: another session is woken");
	$s->query('ROLLBACK');
	like($s->{stderr}, qr/qml fault at "list\.taken"/, 'by a claim that was cut off');
	$s->{stderr} = '';
	is(ask($node, q{SELECT id FROM qml_fetch('w', 'q')}), $id, 'and the job is there');
	return;
}

query($node, q{SELECT qml_create_queue('q'), qml_create_queue('other')});
query($node, q{SELECT qml_enqueue('m', queue => q) FROM unnest('{q,other}'::text[]) q, generate_series(1, 3)});
# The lists have all that there is.
is(ask($node, q{SELECT count(*) FROM qml_fetch('w', 'q', 9)}), 3, 'the list is filled');
is(ask($node, q{SELECT count(*) FROM qml_fetch('w', 'other', 1)}), 1, 'so is the other one');

wakes('at first', 'SELECT 1');
wakes('after a claim', q{SELECT count(*) FROM qml_fetch('w', 'other', 2)});
query($node, <<'SQL');
CREATE FUNCTION caught(state qml.job_state) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN 1 / 0;
EXCEPTION WHEN division_by_zero THEN
	RETURN 0;
END $$;
CREATE INDEX caught ON qml.live (caught(state));
SQL
wakes('after a claim with a subtransaction that was rolled back', q{SELECT count(*) FROM qml_fetch('w', 'other', 2)});

# A function of the index that claims itself, and is rolled back.
query($node, <<'SQL');
DROP INDEX qml.caught;
CREATE FUNCTION claims(queue_id int, state qml.job_state) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF state = 'processing' AND queue_id::text = current_setting('t.outer', true) THEN
		PERFORM FROM qml_fetch('inner', 'inner', 2);
		PERFORM 1 / 0;
	END IF;
	RETURN 1;
EXCEPTION WHEN division_by_zero THEN
	RETURN 0;
END $$;
CREATE INDEX claims ON qml.live (claims(queue_id, state));
SELECT qml_create_queue('inner'), qml_enqueue('m', queue => 'inner'), qml_enqueue('m', queue => 'inner');
SQL
wakes('after a claim with one inside that was rolled back', <<'SQL');
SELECT set_config('t.outer', id::text, true) FROM qml.queue_data WHERE name = 'other';
SELECT count(*) FROM qml_fetch('w', 'other', 2)
SQL
is(ask($node, q{SELECT count(*) FROM qml_fetch('w', 'inner', 9)}), 2, 'whose jobs are there');

done_testing();
