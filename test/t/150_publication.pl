# Under a publication of all tables every row of qml can be changed and deleted, and
# subscribers go on: with qml, without it, by the history or by its partitions.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlTest;
use Test::More;

avoid_midnight();

my $publisher = new_node('publisher', init => { allows_streaming => 'logical' });
my $subscriber = new_node('subscriber', bare => 1, init => { allows_streaming => 'logical' });
query($publisher, 'CREATE ROLE alice; CREATE ROLE bob');
query($subscriber, 'CREATE ROLE alice; CREATE ROLE bob');

sub catalog
{
	return query($publisher, $_[0]);
}

# Every table says which row is meant, partitions too.
my $blind = <<'SQL';
SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c
WHERE c.relnamespace = 'qml'::regnamespace AND c.relkind IN ('r', 'p')
	AND NOT (c.relreplident = 'f' OR c.relreplident = 'd' AND EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary))
SQL
query($publisher, "SELECT qml_create_queue('q'), qml_create_queue('other')");
# The months of the audit.
query($publisher, 'SELECT qml_cleanup()');
cmp_ok(catalog("SELECT count(*) FROM pg_inherits WHERE inhparent = 'qml.history'::regclass"), '>', 1, 'there are partitions');
is(catalog($blind), '', 'each table has a replica identity');

query($publisher, 'CREATE PUBLICATION whole FOR ALL TABLES WITH (publish_via_partition_root = true)');
query($publisher, 'CREATE PUBLICATION parts FOR ALL TABLES');

# What the subscribers have: the same tables without anything of qml, and the extension, with
# a place for what its history has no partition for.
sub tables
{
	my ($condition) = @_;
	return catalog(<<"SQL");
SELECT format('CREATE TABLE qml.%I (%s);', relname,
	(SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
	FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped))
FROM pg_class c WHERE relnamespace = 'qml'::regnamespace AND $condition
SQL
}
my $schema = 'CREATE SCHEMA qml; CREATE TYPE qml.job_state AS ENUM ('
  . catalog("SELECT string_agg(quote_literal(l), ', ') FROM unnest(enum_range(NULL::qml.job_state)) l") . ");\n";
# Rows are found by the primary key of the publisher, and without an index by all columns.
my $keys = catalog(<<'SQL');
SELECT format('ALTER TABLE %s ADD %s;', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
WHERE contype = 'p' AND connamespace = 'qml'::regnamespace
SQL
query($subscriber, "CREATE DATABASE $_") foreach 'bare_whole', 'bare_parts', 'with_qml';
query($subscriber, $schema . tables("relkind IN ('r', 'p') AND NOT relispartition") . "\n$keys", 'bare_whole');
query($subscriber, $schema . tables("relkind = 'r'") . "\n$keys", 'bare_parts');
query($subscriber, 'CREATE VIEW qml.occurrence_data AS ' . join(' UNION ALL ', map { "SELECT * FROM qml.occurrence_$_" } 0 .. 7), 'bare_parts');
query($subscriber, 'CREATE EXTENSION qml; CREATE TABLE qml.history_default PARTITION OF qml.history DEFAULT; CREATE TABLE qml.audit_default PARTITION OF qml.audit_data DEFAULT', 'with_qml');
my %publication = (bare_whole => 'whole', bare_parts => 'parts', with_qml => 'whole');
my $connection = $publisher->connstr =~ s{'}{}gr . " dbname=postgres";
query($subscriber, "CREATE SUBSCRIPTION $_ CONNECTION '$connection' PUBLICATION $publication{$_}", $_)
  foreach sort keys %publication;
$subscriber->wait_for_subscription_sync($publisher, $_, $_) foreach sort keys %publication;

# One row in each table that can be in a publication, which unlogged ones cannot, and every one of them changes:
# as qml does it, and by hand.
query($publisher, <<'SQL');
SELECT qml_grant('alice', 'work', 'other'), qml_grant('alice', 'monitor'), qml_grant('bob', 'enqueue');
CREATE FUNCTION f(payload jsonb) RETURNS void LANGUAGE sql AS '';
SELECT qml_register_handler('f', 'f');
CREATE FUNCTION h(job qml.job, old qml.job_state, new qml.job_state) RETURNS void LANGUAGE sql AS '';
REVOKE EXECUTE ON FUNCTION h FROM PUBLIC;
SELECT qml_register_hook('h', 'h', '{failed}');
SELECT qml_register_middleware('tracing', 'qml_tracing');
SELECT qml_schedule_recurring('s', '* * * * * *', 'm', queue => 'q');
SELECT qml_register_server('outside');
SELECT qml_try_lock('lock', 'me', '1 h');
SELECT qml_enqueue('m', jsonb_build_object('n', n), 'q', metadata => jsonb_build_object('long', repeat(md5(n::text), 400)),
	id => ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid) FROM generate_series(1, 40) n;
SQL
query($publisher, 'SELECT pg_sleep(1.1); SELECT qml_poll_recurring()');
query($publisher, <<'SQL');
SELECT count(qml_succeed(id, attempt, '{"done": true}')) FROM qml_fetch('w', '{q}', 10);
SELECT count(qml_fail(id, attempt, 'oops', retry => false)) FROM qml_fetch('w', '{q}', 10);
SELECT count(qml_progress(id, attempt, '1')) FROM qml_fetch('w', '{q}', 5);
SELECT qml_pause_all();
SELECT qml_mark('deployed');
INSERT INTO qml.alert_data (id, kind, queue_id, method, since, value, bound, detail) VALUES (gen_random_uuid(), 'dead_servers', 0, '', now(), 1, 0, 'one died');
UPDATE qml.alert_data SET until = now();
SELECT qml_bulk('retry', 'queue:nothing');
SQL
my @rows = split /\n/, catalog(<<'SQL');
SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'qml'::regnamespace AND relkind = 'r' AND NOT relispartition
	AND relpersistence = 'p' AND relname NOT IN ('history_overflow', 'audit_overflow') AND relname NOT LIKE '%see_qml_drop_role_objects' ORDER BY 1
SQL
foreach my $table (@rows, 'qml.history', 'qml.occurrence_data', 'qml.audit_data')
{
	cmp_ok(query($publisher, "SELECT count(*) FROM $table"), '>', 0, "$table has rows");
	my $column = catalog("SELECT attname FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum > 0 AND attidentity = '' ORDER BY attnum LIMIT 1");
	my ($rc, undef, $err) = $publisher->psql('postgres', "BEGIN; UPDATE $table SET $column = $column; DELETE FROM $table; ROLLBACK;", on_error_stop => 1);
	is("$rc$err", '0', "$table: rows can be changed and deleted by hand");
}

query($publisher, 'SELECT qml_resume_all()');

my @finished = map { sprintf "'00000000-0000-7000-8000-%012d'", $_ } 1 .. 20;
query($publisher, $_)
  foreach (map { "SELECT qml_delete($_)" } @finished[ 0 .. 4 ]),    # succeeded
  (map { "SELECT qml_delete($_)" } @finished[ 10 .. 14 ]),          # failed
  (map { "SELECT qml_retry($_)" } @finished[ 15 .. 19 ]),
  "SELECT qml_alter_queue('q', '{\"max_retries\": 1}')",
  "SELECT qml_drop_queue('other')",
  "SELECT qml_revoke('alice', 'monitor')",
  "SELECT qml_unregister_handler('f'), qml_unregister_hook('h'), qml_unregister_middleware('tracing')",
  "SELECT qml_remove_recurring('s'), qml_unlock('lock', 'me')";
is(catalog("SELECT count(*) FROM qml.acl_data WHERE queue = 'other'"), 0, 'a queue is dropped, with its rights');

# A role that is dropped, of which the row stays; and a copy that is adopted.
query($publisher, 'DROP OWNED BY bob; DROP ROLE bob');
query($publisher, 'SELECT qml_cleanup()');
is(catalog("SELECT count(*) FROM qml.acl_data a WHERE NOT EXISTS (SELECT FROM pg_roles WHERE oid = a.grantee)"), 0,
	'the cleanup forgets a role');
query($publisher, 'UPDATE qml.instance_data SET database = 1');
query($publisher, 'SELECT qml_adopt()');
is(query($publisher, "SELECT count(*) FROM qml_fetch('w', '{q}', 3)"), 3, 'a copy is adopted and works');

my $rows = <<'SQL';
SELECT (SELECT md5(string_agg(t::text, E'\n' ORDER BY t::text)) FROM qml.live t),
	(SELECT md5(string_agg(t::text, E'\n' ORDER BY t::text)) FROM qml.queue_data t),
	(SELECT md5(string_agg(concat_ws(' ', capability, queue), E'\n' ORDER BY capability, queue)) FROM qml.acl_data t WHERE grantee = 'alice'::regrole),
	(SELECT count(*) FROM qml.recurring_data), (SELECT count(*) FROM qml.occurrence_data), (SELECT count(*) FROM qml.lock_data),
	(SELECT count(*) FROM qml.handler_data), (SELECT count(*) FROM qml.hook_data), (SELECT count(*) FROM qml.middleware_data)
SQL
my $history = "SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM %s t";

# Asserts that a subscriber has what the publisher has.
sub follows
{
	my ($dbname, $name) = @_;
	my $parts = catalog("SELECT string_agg(format('SELECT * FROM %s', inhrelid::regclass), ' UNION ALL ') FROM pg_inherits WHERE inhparent = 'qml.history'::regclass");

	$publisher->wait_for_catchup($dbname);
	is(query($subscriber, $rows, $dbname), query($publisher, $rows), "$dbname: $name: the tables are the same");
	is(query($subscriber, sprintf($history, $dbname eq 'bare_parts' ? "($parts)" : 'qml.history'), $dbname),
		query($publisher, sprintf($history, 'qml.history')), "$dbname: $name: the history is the same");
	return;
}
follows($_, 'changes') foreach sort keys %publication;

# A partition that subscribers do not have.  Only those of the whole history go on then.
query($subscriber, 'ALTER SUBSCRIPTION bare_parts DISABLE', 'bare_parts');
my $before = catalog("SELECT count(*) FROM pg_inherits WHERE inhparent = 'qml.history'::regclass");
query($publisher, q{SELECT qml_create_queue('long', '{"succeeded_ttl": "30 days", "failed_ttl": "30 days"}')});
cmp_ok(catalog("SELECT count(*) FROM pg_inherits WHERE inhparent = 'qml.history'::regclass"), '>', $before, 'there are new partitions');
is(catalog($blind), '', 'they have a replica identity, too');
query($publisher, <<'SQL');
SELECT count(qml_enqueue('m', queue => 'long')) FROM generate_series(1, 6);
SELECT count(qml_succeed(id, attempt)) FROM qml_fetch('w', '{long}', 3);
SELECT count(qml_fail(id, attempt, 'oops', retry => false)) FROM qml_fetch('w', '{long}', 3);
SELECT count(qml_retry(id)) FROM (SELECT id FROM qml.job WHERE queue = 'long' AND state = 'failed' LIMIT 1) j;
SELECT count(qml_delete(id)) FROM (SELECT id FROM qml.job WHERE queue = 'long' AND state = 'succeeded' LIMIT 1) j;
SQL
follows($_, 'a new partition') foreach 'bare_whole', 'with_qml';

# The subscriber with qml is a copy, which does not work, and shows the jobs.
is(query($subscriber, 'SELECT string_agg(concat_ws(\' \', state, count), \', \' ORDER BY state) FROM qml_counts()', 'with_qml'),
	query($publisher, 'SELECT string_agg(concat_ws(\' \', state, count), \', \' ORDER BY state) FROM qml_counts()'), 'the copy shows the same jobs');
fails_with($subscriber, '55000', 'SELECT * FROM qml_fetch()', 'and gives none out', dbname => 'with_qml');
is(join("\n", grep { /ERROR|FATAL|PANIC/ && !/terminating|SELECT \* FROM qml_fetch|are a copy/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($subscriber->logfile)),
	'', 'no subscriber was stopped by anything');

$subscriber->stop;
$publisher->stop;
done_testing();
