# A worker fails, loses its session or crashes the server before a command runs, after it has
# committed, and while its end is recorded: what was done stays done, and is not done again
# unless retries are asked for.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlJobs;
use QmlTest;
use Test::More;

my $node = background_node('command_faults', variant => 'faults', conf => 'qml.workers = 1');
wait_for_process($node, 'scheduler', 'postgres');
query($node, <<'SQL');
SELECT qml_create_queue('default');
CREATE TABLE done (at timestamptz DEFAULT clock_timestamp());
SELECT qml_register_command('once', 'INSERT INTO done DEFAULT VALUES');
SELECT qml_register_command('again', 'INSERT INTO done DEFAULT VALUES', '{"max_retries": 20, "retry": {"strategy": "fixed", "delay": "1 s", "jitter": 0}}');
SQL

# A job of a method meets a fault; how it ends, how often the command was done.  A retry that comes before
# the fault is disarmed meets it again.
sub met
{
	my ($method, $fault) = @_;
	my $offset = -s $node->logfile;
	my $id = query($node, "TRUNCATE done; SELECT qml_pause_queue('default'); SELECT qml_enqueue('$method')") =~ s/^.*\n//sr;
	my ($point) = $fault =~ /^([^:]+)/;

	set_config($node, 'qml.faults' => $fault);
	wait_for('the fault to be armed', sub { query($node, 'SHOW qml.faults') eq $fault });
	# Its answer may be lost in a crash.
	try_query($node, q{SELECT qml_resume_queue('default')});
	wait_for("$fault to be met", sub { log_count($node, "qml fault point \"$point\" reached", $offset) > 0 });
	set_config($node, 'qml.faults' => undef);
	wait_for('the job to end',
		sub { (try_query($node, "SELECT state IN ('succeeded', 'failed') FROM qml_job('$id')") // '') eq 't' });
	return query($node, <<"SQL");
SELECT concat_ws('|', state, errors -> -1 ->> 'error_type', (SELECT least(count(*), 2) FROM done)) FROM qml_job('$id')
SQL
}

my %lost = (fatal => 'session_gone', abort => 'server_down');
is(met('once', 'command.before_run:error'), 'failed|XX000|0', 'an error before the command fails the attempt');
is(met('once', 'command.after_commit:error'), 'succeeded|1', 'an error after its commit does not');
is(met('again', 'command.after_commit:error'), 'succeeded|1', 'nor is it done again');
is(met('once', 'finish.before_update:error'), 'succeeded|1', 'an error while its end is recorded does not fail it either');
foreach my $action (sort keys %lost)
{
	is(met('once', "command.before_run:$action"), "failed|$lost{$action}|0", "$action before the command");
	is(met('once', "command.after_commit:$action"), "failed|$lost{$action}|1", "$action after its commit: it was done, and the job does not know");
	is(met('again', "command.after_commit:$action"), "succeeded|$lost{$action}|2", "$action: it is done again where that is asked for");
	is(met('once', "finish.before_update:$action"), "failed|$lost{$action}|1", "$action while its end is recorded: the same");
}

done_testing();
