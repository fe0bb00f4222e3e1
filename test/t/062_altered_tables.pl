# No state of qml's tables that their owner can make crashes a process, ends in an internal
# error, or makes a call run for ever: tables altered, constraints dropped, rows with any
# value in any column.  And nothing that is added to a table that is written below the
# executor is passed over in silence.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use QmlBackground;
use QmlCalls;
use QmlTest;
use Test::More;

# With shared memory, but no processes that would take the rows away.
my $node = background_node('altered', conf => "qml.enabled = off\n");
my $started = query($node, 'SELECT pg_postmaster_start_time()');

# Rows in every table, for the calls to meet.
set_up_calls($node);
query($node, <<'SQL');
CREATE FUNCTION t_handler(payload jsonb) RETURNS void LANGUAGE sql AS '';
SELECT qml_create_queue('q');
SELECT qml_register_hook('h', 'calls_hook', '{deleted}');
SELECT qml_register_middleware('m', 'calls_middleware');
SELECT qml_grant('calls_role', 'work', 'q');
SELECT qml_try_lock('l', 'o', '1 day');
SELECT qml_register_server('s') AS server \gset
SELECT qml_enqueue('t', queue => 'q', id => ('01890000-0000-7000-a000-00000000000' || n)::uuid) FROM generate_series(1, 8) n;
SELECT qml_enqueue('t', queue => 'q', id => '01890000-0000-7000-a000-000000000009', run_at => now() + interval '1 h');
SELECT count(*) FROM qml_fetch('w', '{q}', 3, '1 h');
SELECT count(*) FROM qml_fetch(:'server' || '/w', '{q}', 1, '1 h');
SELECT qml_succeed('01890000-0000-7000-a000-000000000001', 1);
SELECT qml_fail('01890000-0000-7000-a000-000000000002', 1, 'oops', retry => false);
SELECT qml_fail('01890000-0000-7000-a000-000000000003', 1, 'oops', retry_at => now() + interval '1 h');
SELECT qml_schedule_recurring('r', '@yearly', 't', queue => 'q', metadata => '{}') IS NOT NULL;
UPDATE qml.recurring_data SET last_run_at = now() - interval '1 day', last_job = gen_random_uuid();
INSERT INTO qml.occurrence_data VALUES (date_trunc('hour', now()), 'r', gen_random_uuid(), now(), 0, 'late');
SELECT qml_register_handler('t', 't_handler', '{"run_as": "calls_role"}');
SELECT qml_bulk('retry', 'queue:q state:failed created:>1s');
UPDATE qml.bulk_data SET held = ARRAY['01890000-0000-7000-a000-000000000002'::uuid], cursor_order = 1, cursor_id = id, held_until = now();
SQL

# Runs the statements of each call after an alteration; everything is undone.  Returns those
# that ended in an internal error, or did not end as they must.
query($node, <<'SQL');
CREATE FUNCTION probe(alteration text, calls text[], must text[], OUT bad text[]) LANGUAGE plpgsql AS $$
DECLARE
	code text;
	message text;
BEGIN
	bad := '{}';
	BEGIN
		EXECUTE alteration;
		FOR i IN 1 .. COALESCE(array_length(calls, 1), 0) LOOP
			code := '00000';
			message := '';
			BEGIN
				EXECUTE calls[i];
				RAISE EXCEPTION USING ERRCODE = 'ZZ001';
			EXCEPTION
				WHEN SQLSTATE 'ZZ001' THEN NULL;
				WHEN OTHERS THEN
					code := SQLSTATE;
					message := SQLERRM;
			END;
			IF code = 'XX000' OR (code <> must[i] AND must[i] <> '') THEN
				bad := bad || format('%s: %s: %s', code, message, calls[i]);
			END IF;
		END LOOP;
		RAISE EXCEPTION USING ERRCODE = 'ZZ002';
	EXCEPTION
		WHEN SQLSTATE 'ZZ002' THEN NULL;
	END;
END $$;
SQL

my $session = new_session($node, 'postgres');
$session->query_safe("SET client_min_messages = error; SET statement_timeout = '60s'");
my $probes = 0;

# Asserts that after the alteration no call ends in an internal error; those in `must` end
# with the given SQLSTATE.
sub probe
{
	my ($name, $alteration, $calls, %must) = @_;
	my @calls = (@$calls, sort keys %must);
	my $list = join ', ', map { "\$call\$$_\$call\$" } @calls;
	my $codes = join ', ', map { "'" . ($must{$_} // '') . "'" } @calls;
	my $bad = $session->query_safe(
		"SELECT array_to_string(probe(\$alter\$$alteration\$alter\$, ARRAY[$list]::text[], ARRAY[$codes]::text[]), E'\\n')");

	$probes++;
	return $bad eq '' ? 1 : fail($name) && 0 || diag($bad) && 0;
}

# Of many alterations, one assertion.
sub probe_all
{
	my ($name, $calls, @alterations) = @_;
	my $good = 0;

	$good += probe("$name: $_", $_, $calls) foreach @alterations;
	is($good, scalar @alterations, sprintf '%s: %d alterations, %d calls after each', $name,
		scalar @alterations, scalar @$calls);
	return;
}

# Every function and view, with what it needs before.
my @all = map { my $call = for_call($_); join '; ', @{ $call->{before} }, $call->{sql} } all_calls();
# Those that meet all rows, and the jobs and schedules from above one by one.
my @meeting = (
	(map { "SELECT qml_$_" } 'promote_due()', 'reclaim()', 'cleanup()', 'maintain()', 'poll_recurring()',
		"reclaim_server((SELECT id FROM qml.server_data LIMIT 1))",
		"unregister_server((SELECT id FROM qml.server_data LIMIT 1))",
		"run_recurring('r')", "pause_recurring('r')", "remove_recurring('r')", "unlock('l', 'o')",
		"try_lock('l', 'o', '1 h')", "grant('calls_role', 'admin')", "drop_queue('q')"),
	"SELECT qml_pause_recurring('r'); SELECT qml_resume_recurring('r')",
	"SELECT qml_schedule_recurring('r', '\@daily', 't', queue => 'q')",
	"SELECT * FROM qml_fetch('w', NULL, 100, '1 h')", "SELECT * FROM qml_fetch('w', '{q}', 100, '1 h')",
	"SELECT qml_pause_bulk(id), qml_resume_bulk(id), qml_cancel_bulk(id) FROM qml.bulk; SELECT * FROM qml_status()",
	"SELECT * FROM qml_counts(); SELECT * FROM qml_queue_counts()",
	"SELECT qml_enqueue('t', queue => 'q')",
	"SELECT qml_register_handler('t', 't_handler'); SELECT qml_unregister_handler('t')",
	"SELECT qml_register_hook('h', 'calls_hook'); SELECT qml_delete(qml_enqueue('t')); SELECT qml_unregister_hook('h')",
	"SELECT qml_register_middleware('m', 'calls_middleware'); SELECT qml_unregister_middleware('m')",
	(map { "SELECT * FROM qml.$_" } qw(job recent dead_letter bulk queue pause lock recurring recurring_tick server handler hook middleware acl audit)),
	map {
		my $id = "id => '01890000-0000-7000-a000-00000000000$_'";
		("SELECT qml_job($id)", "SELECT qml_delete($id)", "SELECT qml_retry($id)",
			"SELECT qml_reschedule($id, run_at => now())",
			"SELECT qml_fail($id, attempt => 1, error => 'x')", "SELECT qml_succeed($id, attempt => 1)",
			"SELECT qml_heartbeat($id, attempt => 1)")
	  } 1 .. 5, 9);

ok(probe('nothing', 'SELECT', [], map { $_ => '' } @all), 'the calls as they are');

# ---- any value in any column

my %values = (
	int2 => [ 0, -1, 32767, -32768 ],
	int4 => [ 0, -1, 2147483647, -2147483648 ],
	int8 => [ 0, -1, '9223372036854775807', '-9223372036854775808' ],
	float8 => [ 0, -1, "'NaN'", "'Infinity'", "'-Infinity'", '1e308' ],
	oid => [ 0, 4711, 4294967295 ],
	regrole => [ 0, 4711, 4294967295 ],
	bool => [ 'true', 'false' ],
	text => [ "''", "'x'", 'repeat(chr(228), 50000)', "E'\\n'" ],
	timestamptz => [ "'infinity'", "'-infinity'", "'4713-01-01 BC'", "'294276-12-31'" ],
	jsonb => [
		"'5'", "'[]'", "'{}'", "'null'", "'[1, null, {}]'",
		"(SELECT jsonb_agg(n) FROM generate_series(1, 150) n)",
		"(SELECT jsonb_object_agg(n, n) FROM generate_series(1, 150) n)",
		"'{\"lease\": -1, \"queue\": 5, \"run_as\": [], \"notify\": true, \"concurrency\": 1e999}'" ],
	inet => [ "'::1'", "'0.0.0.0/0'" ],
	bytea => [ "''", "'\\x00'", "'\\xffffff'", "decode(repeat('0a01', 20000), 'hex')" ],
	uuid => ["'00000000-0000-0000-0000-000000000000'"],
	_uuid => [ "'{}'", "'{NULL}'", "'{{00000000-0000-0000-0000-000000000000},{00000000-0000-0000-0000-000000000001}}'" ],
	_text => [ "'{}'", "'{NULL}'", "'{{a,b},{c,d}}'", "array_fill('int'::text, ARRAY[2000])" ],
	job_state => [ map { "'$_'" } qw(scheduled enqueued processing awaiting_retry succeeded failed deleted awaiting_parents) ],
	_job_state => [ "'{}'", "'{NULL}'", "'{{failed},{deleted}}'" ]);

my @columns = map { [ split /\|/ ] } split /\n/, query($node, <<'SQL');
SELECT c.relname, a.attname, t.typname, a.attnotnull
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relnamespace = 'qml'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0
	AND NOT a.attisdropped
ORDER BY 1, a.attnum
SQL
cmp_ok(scalar @columns, '>', 100, 'the columns of all tables');
is(join(' ', grep { !$values{$_} } map { $_->[2] } @columns), '', 'and values for all types');

# An identity column can be written, and be without a value.
my $NO_IDENTITY = 'ALTER EXTENSION qml DROP SEQUENCE qml.queue_data_id_seq; ALTER TABLE qml.queue_data ALTER id DROP IDENTITY;';

my $ANY_STATE = 'ALTER TABLE qml.live DROP CONSTRAINT live_state; ALTER TABLE qml.history DROP CONSTRAINT history_state;';

# Writes a value into all rows or, where that is against a key, into one.
sub damage
{
	my ($table, $column, $value) = @_;
	my $quoted = $column eq 'position' ? '"position"' : $column;
	my $identity = $table eq 'queue_data' && $column eq 'id' ? $NO_IDENTITY : '';
	return <<"SQL";
ALTER TABLE qml.acl_data DROP CONSTRAINT acl_data_capability_check;
$ANY_STATE
$identity
DO \$do\$ BEGIN
	UPDATE qml.$table SET $quoted = $value;
EXCEPTION
	WHEN unique_violation THEN
		UPDATE qml.$table SET $quoted = $value WHERE ctid = (SELECT ctid FROM qml.$table LIMIT 1);
	-- A partition does not take it, or an index has no room; a row of ticks stays in its partition.
	WHEN check_violation OR program_limit_exceeded THEN
		NULL;
END \$do\$
SQL
}

foreach my $table (sort keys %{ { map { $_->[0] => 1 } @columns } })
{
	probe_all("rows of $table", \@meeting,
		map { my $c = $_; map { damage($table, $c->[1], $_) } @{ $values{ $c->[2] } } }
		grep { $_->[0] eq $table } @columns);
}
probe_all('labels that qml does not know', \@meeting,
	map { "SET LOCAL session_replication_role = origin; $ANY_STATE UPDATE qml.$_" }
	"live SET state = 'strange'", "history SET state = 'strange'", "hook_data SET states = '{strange}'")
  if query($node, "ALTER TYPE qml.job_state ADD VALUE 'strange'; SELECT 1");

# ---- constraints dropped, and what they kept away

probe_all('columns that can be NULL', \@meeting,
	map { my $c = $_->[1] eq 'position' ? '"position"' : $_->[1];
		my $identity = $_->[0] eq 'queue_data' && $c eq 'id' ? $NO_IDENTITY : '';
		my $key = $_->[0] =~ /^(live|history|acl_data|instance_data)$/ && $_->[1] ne 'id' || $_->[0] eq 'history' ? '' :
		  "DO \$do\$ DECLARE k text; BEGIN FOR k IN SELECT conname FROM pg_constraint"
		  . " WHERE conrelid = 'qml.$_->[0]'::regclass AND contype = 'p' LOOP"
		  . " EXECUTE format('ALTER TABLE qml.$_->[0] DROP CONSTRAINT %I', k); END LOOP; END \$do\$;";
		# A row whose expires_at is NULL fits into no partition, nor one of ticks without its number.
		my $value = $c eq 'expires_at' && $_->[0] eq 'history' || $c eq 'partition' ? $c : 'NULL';
		"$identity $key ALTER TABLE qml.$_->[0] ALTER COLUMN $c DROP NOT NULL; UPDATE qml.$_->[0] SET $c = $value" }
	grep { $_->[3] eq 't' } @columns);

probe_all('two rows of one key', \@meeting,
	map { my ($table, $key) = @$_;
		"DO \$do\$ DECLARE k text; BEGIN FOR k IN SELECT conname FROM pg_constraint"
		  . " WHERE conrelid = 'qml.$table'::regclass AND contype IN ('p', 'u') LOOP"
		  . " EXECUTE format('ALTER TABLE qml.$table DROP CONSTRAINT %I', k); END LOOP; END \$do\$;"
		  . ($table eq 'acl_data' ? 'DROP INDEX qml.acl_queue, qml.acl_all;' : '')
		  . ($table eq 'queue_data' ? $NO_IDENTITY : '')
		  . ($key ? "CREATE INDEX ${table}_pkey ON qml.$table ($key);" : '')
		  . "INSERT INTO qml.$table SELECT * FROM qml.$table" }
	[ 'queue_data', '' ], [ 'handler_data', '' ], [ 'hook_data', '' ], [ 'middleware_data', '' ], [ 'acl_data', '' ],
	[ 'instance_data', '' ], [ 'server_data', '' ], [ 'lock_data', '' ], [ 'recurring_data', '' ],
	[ 'recurring_data', 'id' ], [ 'occurrence_data', '' ], [ 'occurrence_data', 'occurrence, recurring' ],
	[ 'live', '' ], [ 'live', 'id' ]);

# ---- indexes that are searched without a plan

my @refused = ("SELECT qml_enqueue('t')", "SELECT qml_job('01890000-0000-7000-a000-000000000004')");
ok(probe("another index of that name: $_", $_, \@meeting, map { $_ => '55000' } @refused), "refused: $_")
  foreach 'ALTER TABLE qml.live DROP CONSTRAINT live_pkey; CREATE INDEX live_pkey ON qml.live (payload)',
  'ALTER TABLE qml.live DROP CONSTRAINT live_pkey; CREATE INDEX live_pkey ON qml.live (id)',
  'ALTER TABLE qml.live DROP CONSTRAINT live_pkey; CREATE INDEX live_pkey ON qml.live USING hash (id)',
  'ALTER TABLE qml.live DROP CONSTRAINT live_pkey; CREATE VIEW qml.live_pkey AS SELECT 1',
  'ALTER TABLE qml.live DROP CONSTRAINT live_pkey; CREATE UNIQUE INDEX live_pkey ON qml.recurring_data (last_job)',
  'DROP INDEX qml.live_due; CREATE INDEX live_due ON qml.live (method)',
  'DROP INDEX qml.live_due; CREATE INDEX live_due ON qml.live USING brin (run_at)',
  'DROP INDEX qml.live_ready; CREATE INDEX live_ready ON qml.live (queue_id, priority, id)',
  'DROP INDEX qml.live_ready; CREATE INDEX live_ready ON qml.live (queue_id, priority DESC)',
  'DROP INDEX qml.recurring_due; CREATE INDEX recurring_due ON qml.recurring_data (priority)',
  'DROP INDEX qml.live_ready', 'DROP INDEX qml.live_due';
my ($leaf) = query($node, 'SELECT tableoid::regclass FROM qml.history LIMIT 1');
ok(probe("another index on id: $_", "DROP INDEX ${leaf}_id; $_", \@meeting), "no index to find a job by: $_")
  foreach "CREATE INDEX ON $leaf USING brin (id)", "CREATE INDEX ON $leaf USING hash (id)", "CREATE INDEX ON $leaf ((id::text))",
  "CREATE INDEX ON $leaf (id) WHERE priority > 0", 'SELECT';

# ---- partitions

my $between = q(FROM ('2000-01-01') TO ('2000-01-02'));
probe_all('partitions', \@meeting,
	"CREATE TABLE qml.x PARTITION OF qml.history FOR VALUES $between PARTITION BY RANGE (id)",
	"CREATE TABLE qml.x PARTITION OF qml.history FOR VALUES $between PARTITION BY RANGE (id);"
	  . " CREATE TABLE qml.y PARTITION OF qml.x DEFAULT",
	"CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nothing FOREIGN DATA WRAPPER nothing;"
	  . " CREATE FOREIGN TABLE qml.x PARTITION OF qml.history FOR VALUES $between SERVER nothing",
	'CREATE TABLE qml.x PARTITION OF qml.history DEFAULT',
	"CREATE TABLE qml.x PARTITION OF qml.history FOR VALUES FROM (MINVALUE) TO ('2000-01-01')",
	"ALTER TABLE qml.history DETACH PARTITION $leaf",
	"DROP TABLE $leaf", 'TRUNCATE qml.history',
	# The same columns under other numbers.
	"CREATE TABLE qml.x (gone int, LIKE qml.history INCLUDING CONSTRAINTS); ALTER TABLE qml.x DROP COLUMN gone; CREATE INDEX ON qml.x (id);"
	  . " INSERT INTO qml.x SELECT * FROM qml.history; UPDATE qml.x SET expires_at = '2000-01-01';"
	  . " ALTER TABLE qml.history DETACH PARTITION $leaf; ALTER TABLE qml.history ATTACH PARTITION qml.x FOR VALUES $between",
	"UPDATE $leaf SET reason = ''; ALTER TABLE $leaf ALTER COLUMN reason SET NOT NULL");

# The partition that a tick of the schedule would be written to.
my $ticks = query($node, <<'SQL');
SELECT 'qml.occurrence_' || 4 + floor(extract(epoch FROM now() - '2000-01-01 UTC') / 86400 + 30)::int / 10 % 6
SQL
my $due = q(UPDATE qml.recurring_data SET next_run_at = now(), last_run_at = NULL);
probe_all('partitions of ticks', \@meeting, map { ("$_", "$due; $_") }
	"ALTER TABLE qml.occurrence_data DETACH PARTITION $ticks", 'ALTER TABLE qml.occurrence_data RENAME TO moved',
	"ALTER TABLE $ticks RENAME TO moved", "ALTER TABLE $ticks SET SCHEMA public", 'DELETE FROM qml.occurrence_data', 'TRUNCATE qml.occurrence_data',
	"DROP INDEX ${ticks}_tick", "DROP INDEX ${ticks}_tick; CREATE INDEX ON $ticks (recurring, occurrence) WHERE job IS NOT NULL",
	"DROP INDEX ${ticks}_tick; CREATE INDEX ON $ticks USING hash (recurring)",
	"ALTER TABLE qml.occurrence_data DETACH PARTITION $ticks; ALTER EXTENSION qml DROP TABLE $ticks; DROP TABLE $ticks; CREATE VIEW $ticks AS SELECT 1",
	"ALTER TABLE qml.occurrence_data DETACH PARTITION $ticks; ALTER TABLE $ticks DROP COLUMN through",
	"ALTER TABLE $ticks ADD UNIQUE (job); CREATE TABLE refers (job uuid REFERENCES $ticks (job))",
	"ALTER TABLE qml.occurrence_data ADD extra int, ADD more int NOT NULL DEFAULT 7", 'ALTER TABLE qml.occurrence_data ADD extra int NOT NULL DEFAULT random()',
	"CREATE TABLE qml.occurrence_10 PARTITION OF qml.occurrence_data FOR VALUES IN (10)", 'CREATE TABLE qml.x PARTITION OF qml.occurrence_data DEFAULT');

# ---- columns of other types, with other names, and fewer of them: in a table without views

sub replaced
{
	my ($t, $change) = @_;
	# Indexes of the same names, on what is there then.
	my $indexes = $t eq 'live' ? 'CREATE INDEX live_ready ON qml.live (queue_id, priority DESC, id) WHERE run_at IS NULL;'
	  . ' CREATE INDEX live_due ON qml.live (run_at) WHERE run_at IS NOT NULL;'
	  : $t eq 'recurring_data' ? 'CREATE INDEX recurring_due ON qml.recurring_data (next_run_at);' : '';
	my $key = { live => 'id', recurring_data => 'id' }->{$t};
	$indexes .= "ALTER TABLE qml.$t ADD CONSTRAINT ${t}_pkey PRIMARY KEY ($key);" if defined $key;
	return "ALTER EXTENSION qml DROP TABLE qml.$t; ALTER TABLE qml.$t SET SCHEMA public;"
	  . " CREATE TABLE qml.$t (LIKE public.$t INCLUDING DEFAULTS); INSERT INTO qml.$t SELECT * FROM public.$t;"
	  . " ALTER EXTENSION qml ADD TABLE qml.$t; $indexes ALTER TABLE qml.$t $change";
}

my @few = @meeting[ 0 .. 24 ];
foreach my $t (grep { !/^(history|occurrence_data)$/ } sort keys %{ { map { $_->[0] => 1 } @columns } })
{
	probe_all("columns of $t", \@few, replaced($t, 'ADD extra int'), replaced($t, 'ADD extra int NOT NULL DEFAULT random()'),
		map { my $c = $_->[1] eq 'position' ? '"position"' : $_->[1];
			my $type = $_->[2] =~ /^(text|_text)$/ ? 'bytea USING NULL' : $_->[2] eq 'bool' ? 'text' : 'text USING ' . "$c\::text";
			$type = "bytea USING '\\x00'" if $_->[2] =~ /text/ && $_->[3] eq 't';
			(replaced($t, "ALTER $c DROP DEFAULT, ALTER $c TYPE $type"), replaced($t, "RENAME $c TO other"), replaced($t, "DROP COLUMN $c")) }
		grep { $_->[0] eq $t } @columns);
}

# ---- tables that are something else

probe_all('tables', \@meeting,
	map { my $t = $_;
		("ALTER TABLE qml.$t DISABLE TRIGGER USER",
			"ALTER TABLE qml.$t RENAME TO moved", "ALTER TABLE qml.$t SET UNLOGGED",
			"CREATE TABLE child () INHERITS (qml.$t); INSERT INTO child SELECT * FROM qml.$t",
			"CREATE TABLE parent (LIKE qml.$t); ALTER TABLE qml.$t INHERIT parent",
			"ALTER EXTENSION qml DROP TABLE qml.$t; ALTER TABLE qml.$t RENAME TO moved; CREATE VIEW qml.$t AS SELECT * FROM qml.moved",
			"ALTER EXTENSION qml DROP TABLE qml.$t; ALTER TABLE qml.$t RENAME TO moved;"
			  . " CREATE TABLE qml.$t (LIKE qml.moved) PARTITION BY HASH (" . ($t eq 'instance_data' ? 'database' : '"' . (grep { $_->[0] eq $t } @columns)[0][1] . '"') . ')',
			"TRUNCATE qml.$t", "ALTER TABLE qml.$t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
			"ALTER TABLE qml.$t SET SCHEMA public", "DELETE FROM qml.$t",
			"CREATE RULE nothing AS ON INSERT TO qml.$t DO INSTEAD NOTHING",
			"CREATE RULE nothing AS ON UPDATE TO qml.$t DO INSTEAD NOTHING",
			"CREATE RULE nothing AS ON DELETE TO qml.$t DO INSTEAD NOTHING",
			"CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS \$f\$ BEGIN RETURN NULL; END \$f\$;"
			  . " CREATE TRIGGER nothing BEFORE INSERT OR UPDATE OR DELETE ON qml.$t FOR EACH ROW EXECUTE FUNCTION nothing()")
	  } qw(queue_data handler_data hook_data middleware_data acl_data instance_data server_data lock_data
	  recurring_data live));

# ---- what writing below the executor would pass over

# One call of each kind that writes the table, and all that do not.
my $known = '01890000-0000-7000-a000-00000000000';
my @on_live = ("SELECT qml_enqueue('t')", "SELECT qml_enqueue_many('t', '{1,2}'::jsonb[])",
	"SELECT * FROM qml_fetch('w', '{q}')", "SELECT qml_delete('${known}5')", "SELECT qml_promote_due()",
	"SELECT qml_reclaim()", "SELECT qml_heartbeat('${known}4', 1)", "SELECT qml_retry('${known}2')",
	"SELECT qml_run_recurring('r')");
my @on_history = ("SELECT qml_delete('${known}5')", "SELECT qml_succeed('${known}4', 1)",
	"SELECT qml_retry('${known}2')", "SELECT qml_delete('${known}2')");
my @on_schedules = ('SELECT qml_poll_recurring()');
my @reads = ("SELECT qml_job('${known}4')", "SELECT qml_job('${known}2')", 'SELECT * FROM qml_counts()',
	'SELECT count(*) FROM qml.job', 'SELECT count(*) FROM qml.recurring', "SELECT qml_create_queue('other')",
	"SELECT qml_schedule_recurring('other', '\@yearly', 't') IS NOT NULL");

my $function = 'CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN COALESCE(NEW, OLD); END $f$;';
my %additions = (
	'a trigger for rows' => sub { "$function CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON $_[0] FOR EACH ROW EXECUTE FUNCTION f()" },
	'a trigger for statements' => sub { "$function CREATE TRIGGER x BEFORE UPDATE ON $_[0] EXECUTE FUNCTION f()" },
	'a check constraint' => sub { "ALTER TABLE $_[0] ADD CONSTRAINT x CHECK ($_[1] IS NOT NULL)" },
	'a check constraint that old rows need not meet' => sub { "ALTER TABLE $_[0] ADD CONSTRAINT x CHECK ($_[1] < '') NOT VALID" },
	'a foreign key' => sub { "CREATE TABLE other AS SELECT DISTINCT $_[1] FROM $_[0]; ALTER TABLE other ADD PRIMARY KEY ($_[1]);"
		  . " ALTER TABLE $_[0] ADD CONSTRAINT x FOREIGN KEY ($_[1]) REFERENCES other" },
	'row-level security' => sub { "ALTER TABLE $_[0] ENABLE ROW LEVEL SECURITY" },
	'a rule' => sub { "CREATE RULE x AS ON DELETE TO $_[0] DO ALSO SELECT 1" });

# Asserts that the writes are refused, and what is not a write is not.
sub refused
{
	my ($name, $alteration, $writes, $others) = @_;
	ok(probe($name, $alteration, [], (map { $_ => '55000' } @$writes), map { $_ => '00000' } @$others), $name);
	return;
}

my $poll = 'SELECT qml_poll_recurring(); SELECT';
is(query($node, "BEGIN; $due; $poll (next_run_at = now()), last_run_at = now() FROM qml.recurring_data; ROLLBACK"), "1\nf|t", 'a schedule fires otherwise');
my @others_of_history = (@reads, grep { !/known|qml_(delete|retry)/ } @on_live);
foreach my $kind (sort keys %additions)
{
	my $add = $additions{$kind};
	refused("$kind on qml.live", $add->('qml.live', 'method'), \@on_live, [@reads]);
	refused("$kind on the history", $add->('qml.history', 'method'), \@on_history, \@others_of_history);
	refused("$kind on a partition", $add->($leaf, 'method'), \@on_history, \@others_of_history);
	refused("$kind on schedules", $add->('qml.recurring_data', 'method'), \@on_schedules, [ "SELECT qml_enqueue('t')" ]);
	refused("$kind on ticks", $add->('qml.occurrence_data', 'recurring'), \@on_schedules, [ "SELECT qml_enqueue('t')" ]);
	# A schedule that cannot record its tick is left as it is, with a warning.
	refused("$kind on a partition of ticks", "$due; " . $add->($ticks, 'recurring'), [],
		[ "$poll 1 / (next_run_at = now() AND last_run_at IS NULL)::int FROM qml.recurring_data" ]);
}
refused('a foreign key that refers to qml.live',
	'CREATE TABLE other (job uuid REFERENCES qml.live)', \@on_live, [@reads]);
refused('a constraint that can be deferred',
	'ALTER TABLE qml.live ADD CONSTRAINT x UNIQUE (id) DEFERRABLE', \@on_live, [@reads]);
refused('NOT NULL', "UPDATE qml.live SET reason = ''; ALTER TABLE qml.live ALTER COLUMN reason SET NOT NULL",
	[ @on_live, @reads[ 0, 1 ] ], []);
refused($_, $_, [], [ @on_live[ 0, 1, 2, 4, 5 ], @reads ])
  foreach "$function CREATE TRIGGER x AFTER INSERT ON qml.live FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE qml.live DISABLE TRIGGER x",
  "$function CREATE TRIGGER x AFTER INSERT ON qml.live FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE qml.live ENABLE REPLICA TRIGGER x",
  "CREATE RULE x AS ON DELETE TO qml.live DO ALSO SELECT 1; ALTER TABLE qml.live DISABLE RULE x",
  'CREATE INDEX ON qml.live (method); CREATE UNIQUE INDEX ON qml.live (id, method)',
  'CREATE PUBLICATION everything FOR ALL TABLES; ALTER TABLE qml.live REPLICA IDENTITY FULL',
  'CREATE POLICY nobody ON qml.live USING (false)';
# Columns of somebody's own, also such that are gone again, are in nobody's way.
foreach my $t (sort keys %{ { map { $_->[0] => 1 } @columns } })
{
	refused("$t: $_", "ALTER TABLE qml.$t $_", [], [ @on_live, @on_history, @on_schedules, @reads ])
	  foreach 'ADD COLUMN mine text', 'ADD COLUMN mine int NOT NULL DEFAULT 7', "ADD COLUMN mine text; ALTER TABLE qml.$t DROP COLUMN mine",
	  "ADD COLUMN gone text, ADD COLUMN mine text; ALTER TABLE qml.$t DROP COLUMN gone";
}
like(fails_with($node, '55000', "BEGIN; ALTER TABLE qml.live ADD CONSTRAINT mine CHECK (priority < 10); SELECT qml_enqueue('t')",
		'and it says what is in the way'),
	qr/table "qml\.live" has the check constraint "mine", which qml would pass over.*HINT:  Drop it/s, 'by its name');

$session->quit;
note("$probes alterations");

# ---- triggers disabled, as pg_restore --disable-triggers does, by an owner who is no superuser

query($node, 'CREATE ROLE dba LOGIN; GRANT CREATE ON SCHEMA public TO dba; ALTER TYPE qml.job_state OWNER TO dba');
give_extension($node, 'postgres', 'dba');
query($node, <<'SQL');
SELECT format('ALTER ROUTINE %s OWNER TO dba', p.oid::regprocedure)
FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'qml')
\gexec
SET ROLE dba;
CREATE FUNCTION typed(a int) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION other(b int) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION own_hook(job qml.job, old qml.job_state, new qml.job_state) RETURNS void
	LANGUAGE plpgsql AS $$ BEGIN RAISE 'called' USING ERRCODE = 'ZZ003'; END $$;
REVOKE EXECUTE ON FUNCTION own_hook FROM PUBLIC;
CREATE FUNCTION own_after(event jsonb) RETURNS void LANGUAGE sql AS '';
ALTER TABLE qml.handler_data DISABLE TRIGGER USER;
ALTER TABLE qml.hook_data DISABLE TRIGGER USER;
ALTER TABLE qml.middleware_data DISABLE TRIGGER USER;
ALTER TABLE qml.queue_data DISABLE TRIGGER USER;
ALTER TABLE qml.acl_data DISABLE TRIGGER USER;
SQL

# What other sessions remember is brought up to date all the same.
sub knows
{
	my ($name, $code, $sql) = @_;
	is(ask($node, "SELECT attempt('$sql')"), $code, $name);
	return;
}
query($node, <<'SQL');
CREATE FUNCTION attempt(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE call;
	RETURN '00000';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SQL
my $enqueue = q(SELECT qml_enqueue(''m'', ''{"a": 1}''));
sub by_dba { return query($node, "SET ROLE dba; SELECT $_[0]"); }
knows('no handler', '00000', $enqueue);
by_dba("qml_register_handler('m', 'other')");
knows('a handler', 'QM008', $enqueue);
by_dba("qml_register_handler('m', 'typed')");
knows('another handler', '00000', $enqueue);
by_dba("qml_register_handler('m', 'other')");
by_dba("qml_unregister_handler('m')");
knows('none again', '00000', $enqueue);
my $delete = q(SELECT qml_delete(qml_enqueue(''x'')));
by_dba("qml_register_hook('mine', 'own_hook', '{deleted}')");
knows('a hook', 'ZZ003', $delete);
by_dba("qml_unregister_hook('mine')");
knows('no hook', '00000', $delete);
my $leaf_of_x = query($node, "SELECT DISTINCT tableoid::regclass FROM qml.history WHERE method = 'x'");
query($node, "UPDATE $leaf_of_x SET reason = '' WHERE reason IS NULL; ALTER TABLE $leaf_of_x ALTER COLUMN reason SET NOT NULL");
knows('a partition that was altered', '55000', $delete);
query($node, "ALTER TABLE $leaf_of_x ALTER COLUMN reason DROP NOT NULL");
knows('one that is as before', '00000', $delete);
query($node, "UPDATE $leaf_of_x SET reason = '' WHERE reason IS NULL; ALTER TABLE $leaf_of_x ALTER COLUMN reason SET NOT NULL");
knows('altered again', '55000', $delete);
query($node, "ALTER TABLE $leaf_of_x ALTER COLUMN reason DROP NOT NULL");
knows('as before again', '00000', $delete);
knows('no queue', 'QM006', q(SELECT qml_pause_queue(''late'')));
by_dba("qml_create_queue('late')");
knows('a queue', '00000', q(SELECT qml_pause_queue(''late'')));
my $as_role = q(SET LOCAL ROLE calls_role; SELECT qml_enqueue(''x'', queue => ''late''));
knows('no right', '42501', $as_role);
by_dba("qml_grant('calls_role', 'enqueue', 'late')");
knows('a right', '00000', $as_role);
by_dba("qml_revoke('calls_role', 'enqueue', 'late')");
knows('no right again', '42501', $as_role);
# All that a role has, at once; and the queue that comes with the first hook after the commit.
query($node, 'GRANT CONNECT ON DATABASE postgres TO dba');
by_dba("qml_register_handler('m', 'other')");
by_dba("qml_register_hook('mine', 'own_hook', '{deleted}')");
knows('a handler and a hook', 'QM008', $enqueue);
knows('and a hook', 'ZZ003', $delete);
by_dba("qml_drop_role_objects('dba')");
knows('no handler of the role', '00000', $enqueue);
knows('nor a hook', '00000', $delete);
my $calls = q(SELECT count(*) FROM qml.live l JOIN qml.queue_data q ON q.id = l.queue_id WHERE q.name = 'qml.hooks');
is(query($node, "SELECT count(*) FROM qml.queue_data WHERE name = 'qml.hooks'"), 0, 'there is no queue for calls of hooks');
by_dba("qml_register_hook('after', 'own_after', '{deleted}', '{\"after_commit\": true}')");
knows('a hook after the commit', '00000', $delete);
is(query($node, $calls), 1, 'which is called');
by_dba("qml_drop_role_objects('dba')");
knows('none', '00000', $delete);
is(query($node, $calls), 1, 'which is not');
query($node, "ALTER TABLE qml.$_ ENABLE ALWAYS TRIGGER invalidate; ALTER TABLE qml.$_ ENABLE ALWAYS TRIGGER invalidate_all")
  foreach qw(handler_data hook_data middleware_data queue_data acl_data);

# ---- the processes in the background meet it, too, and live

set_config($node, 'qml.enabled' => 'on');
my $scheduler = wait_for_process($node, 'scheduler', 'postgres');
query($node, q(SELECT qml_unregister_middleware('m'); SELECT qml_register_handler('t', 't_handler')));
sub works
{
	my ($name) = @_;
	my $id = query($node, "SELECT qml_enqueue('t', run_at => clock_timestamp() + interval '0.1 s')");
	ok($node->poll_query_until('postgres', "SELECT state = 'succeeded' FROM qml.job WHERE id = '$id'"), $name);
	return;
}
works('jobs are run');
sub told
{
	my ($message, $change) = @_;
	my $offset = -s $node->logfile;
	query($node, "BEGIN; SELECT qml_enqueue('t', run_at => clock_timestamp() + interval '0.1 s'); $change; COMMIT");
	wait_for("\"$message\" in the log", sub { log_count($node, $message, $offset) > 0 });
	return;
}
told('which qml would pass over', 'ALTER TABLE qml.live ADD CONSTRAINT x CHECK (true)');
is(process($node, 'scheduler', 'postgres'), $scheduler, 'the scheduler lives');
query($node, 'ALTER TABLE qml.live DROP CONSTRAINT x');
works('and goes on when it is dropped');
# It ends with this error, and is started again a while later.
told('was altered, and qml cannot work with it',
	'ALTER TABLE qml.live ALTER COLUMN method DROP NOT NULL; UPDATE qml.live SET method = NULL');

is(query($node, 'SELECT pg_postmaster_start_time()'), $started, 'the server is the same');
is(log_count($node, 'terminated by signal|PANIC|TRAP', 0), 0, 'and no process has crashed');

done_testing();
