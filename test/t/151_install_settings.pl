# No setting of the session, the role or the database changes what CREATE EXTENSION makes,
# nor where the partitions of the history go later; and the script leaves no setting behind.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use QmlTest;
use Test::More;

my $node = new_node('settings', bare => 1);
my $version = query($node, 'SHOW server_version_num');

# Another place and another way to store tables; and what unqualified names would find.
query($node, $_)
  foreach "SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION ''",
  'CREATE DATABASE plain',
  'CREATE DATABASE hostile';
query($node, <<'SQL', 'hostile');
CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
CREATE SCHEMA trap;
CREATE DOMAIN trap.text AS pg_catalog.text;
CREATE DOMAIN trap.int4 AS pg_catalog.int4;
CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';
SQL

# Everything that belongs to the extension, by name: tables with all that hangs on them,
# views, functions, types, comments and privileges.
sub made
{
	my ($dbname) = @_;
	return query($node, <<'SQL', $dbname);
WITH member AS (
	SELECT classid, objid FROM pg_depend
	WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'qml')),
relation AS (
	SELECT objid AS oid FROM member WHERE classid = 'pg_class'::regclass
	UNION SELECT indexrelid FROM pg_index WHERE indrelid IN (SELECT objid FROM member WHERE classid = 'pg_class'::regclass))
SELECT * FROM (
	SELECT 'relation', concat_ws(' ', c.oid::regclass, relkind, relpersistence, relreplident, reltablespace, amname,
		reloptions, relacl, relrowsecurity, relispartition, obj_description(c.oid, 'pg_class'),
		(SELECT concat_ws(' ', t.reltablespace, a.amname) FROM pg_class t JOIN pg_am a ON a.oid = t.relam WHERE t.oid = c.reltoastrelid))
	FROM relation JOIN pg_class c USING (oid) LEFT JOIN pg_am m ON m.oid = c.relam
	UNION ALL SELECT 'column', concat_ws(' ', attrelid::regclass, attname, attnum, format_type(atttypid, atttypmod), attnotnull,
		attstorage, attcompression::text, attidentity, attgenerated, attstattarget, attcollation::regcollation, attacl,
		(SELECT string_agg(o, ' ') FROM unnest(attoptions) o WHERE o !~ '^pg_attver='), -- the server's own, another each time
		pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
	FROM relation JOIN pg_attribute ON attrelid = oid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attnum > 0
	UNION ALL SELECT 'constraint', concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(c.oid))
	FROM relation r JOIN pg_constraint c ON conrelid = r.oid
	UNION ALL SELECT 'index', pg_get_indexdef(oid) FROM relation JOIN pg_index ON indexrelid = oid
	UNION ALL SELECT 'trigger', concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled, obj_description(t.oid, 'pg_trigger'))
	FROM relation r JOIN pg_trigger t ON tgrelid = r.oid
	UNION ALL SELECT 'view', concat_ws(' ', oid::regclass, pg_get_viewdef(oid)) FROM relation JOIN pg_class USING (oid) WHERE relkind = 'v'
	UNION ALL SELECT 'sequence', concat_ws(' ', seqrelid::regclass, seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle)
	FROM relation JOIN pg_sequence ON seqrelid = oid
	UNION ALL SELECT 'function', concat_ws(' ', pg_get_functiondef(p.oid), proacl, obj_description(p.oid, 'pg_proc'))
	FROM member JOIN pg_proc p ON p.oid = objid WHERE classid = 'pg_proc'::regclass
	UNION ALL SELECT 'type', concat_ws(' ', objid::regtype, typacl, (SELECT array_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = objid))
	FROM member JOIN pg_type t ON t.oid = objid WHERE classid = 'pg_type'::regclass
	UNION ALL SELECT 'schema', concat_ws(' ', nspname, nspacl) FROM member JOIN pg_namespace n ON n.oid = objid WHERE classid = 'pg_namespace'::regclass
	UNION ALL SELECT 'dumped', concat_ws(' ', extversion, extnamespace::regnamespace, extconfig::regclass[], extcondition) FROM pg_extension WHERE extname = 'qml'
) x (kind, what) ORDER BY kind COLLATE "C", what COLLATE "C"
SQL
}

# Asserts that the same was made; what differs is shown.
sub made_same
{
	my ($plain, $name) = @_;
	my %plain = map { $_ => 1 } split /\n/, $plain;
	my $made = made('hostile');
	my @other = grep { !$plain{$_} } split /\n/, $made;
	ok($made eq $plain, $name) or diag(join "\n", splice @other, 0, 5);
	return;
}

my %hostile = (
	default_tablespace => 'elsewhere',
	temp_tablespaces => 'elsewhere',
	default_table_access_method => 'other',
	default_toast_compression => query($node, "SELECT enumvals[array_length(enumvals, 1)] FROM pg_settings WHERE name = 'default_toast_compression'"),
	standard_conforming_strings => 'off',
	backslash_quote => 'on',
	escape_string_warning => 'on',
	TimeZone => 'Asia/Kathmandu',
	DateStyle => 'SQL, DMY',
	IntervalStyle => 'sql_standard',
	bytea_output => 'escape',
	extra_float_digits => -15,
	xmloption => 'document',
	array_nulls => 'off',
	transform_null_equals => 'on',
	quote_all_identifiers => 'on',
	row_security => 'off',
	check_function_bodies => 'on',
	search_path => 'trap, public, pg_catalog',
	default_transaction_isolation => 'serializable',
	default_transaction_deferrable => 'on',
	session_replication_role => 'replica',
	default_statistics_target => 10000,
	default_text_search_config => 'simple',
	client_min_messages => 'error',
	plan_cache_mode => 'force_generic_plan',
	enable_seqscan => 'off',
	enable_indexscan => 'off',
	jit => 'on',
	jit_above_cost => 0,
	lo_compat_privileges => 'on',
	synchronous_commit => 'off',
	($version >= 160000 ? 'debug_parallel_query' : 'force_parallel_mode') => 'on',
);

sub assign
{
	my ($what) = @_;
	return map {
		my $value = $_ eq 'search_path' || $_ eq 'temp_tablespaces' ? $hostile{$_} : "'$hostile{$_}'";
		"$what SET $_ = $value;"
	} sort keys %hostile;
}

query($node, 'CREATE EXTENSION qml', 'plain');
my $plain = made('plain');
cmp_ok(($plain =~ tr/\n//), '>', 300, 'there is something to compare');

# In the session, and as the defaults of the database and of the role.
my %by = (
	session => [ [], [ assign('') ], [] ],
	database => [ [ assign('ALTER DATABASE hostile') ], [], ['ALTER DATABASE hostile RESET ALL'] ],
	role => [ [ assign('ALTER ROLE CURRENT_USER') ], [], ['ALTER ROLE CURRENT_USER RESET ALL'] ],
);
foreach my $by (sort keys %by)
{
	my ($before, $within, $after) = @{ $by{$by} };
	query($node, join "\n", @$before) if @$before;
	query($node, join("\n", @$within, 'CREATE EXTENSION qml SCHEMA public;'), 'hostile');
	query($node, join "\n", @$after) if @$after;
	made_same($plain, "settings of the $by change nothing");
	query($node, 'DROP EXTENSION qml', 'hostile');
}

# One by one: also those that would hide each other.
foreach my $name (sort keys %hostile)
{
	my $value = $name eq 'search_path' || $name eq 'temp_tablespaces' ? $hostile{$name} : "'$hostile{$name}'";
	query($node, "SET $name = $value; CREATE EXTENSION qml SCHEMA public", 'hostile');
	made_same($plain, "nor does $name alone");
	query($node, 'DROP EXTENSION qml', 'hostile');
}
query($node, 'SET default_tablespace = pg_default; CREATE EXTENSION qml', 'hostile');
made_same($plain, 'nor the tablespace of the database by its name');
query($node, 'DROP EXTENSION qml', 'hostile');

# Nothing is left of what the script sets, in the transaction and after it.
my $show = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE name NOT LIKE 'qml.%'";
my ($first, $second, $third) = split /\n/,
  query($node, join("\n", assign(''), "BEGIN ISOLATION LEVEL READ COMMITTED; $show; CREATE EXTENSION qml SCHEMA public; $show; COMMIT;", 'BEGIN ISOLATION LEVEL READ COMMITTED;', "$show; COMMIT;"),
	'hostile');
is($second, $first, 'the transaction has its settings back');
is($third, $first, 'and the session');

# Partitions are where the history is, whatever the settings are.
sub places
{
	return query($node, <<'SQL', 'hostile');
SELECT DISTINCT coalesce(t.spcname, 'default'), coalesce(it.spcname, 'default'), a.amname, c.relreplident
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_am a ON a.oid = c.relam JOIN pg_index x ON x.indrelid = c.oid
JOIN pg_class ic ON ic.oid = x.indexrelid LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace LEFT JOIN pg_tablespace it ON it.oid = ic.reltablespace
WHERE i.inhparent = 'qml.history'::regclass
SQL
}

sub drop_leaves
{
	query($node, "SELECT format('DROP TABLE %s', inhrelid::regclass) FROM pg_inherits WHERE inhparent = 'qml.history'::regclass \\gexec", 'hostile');
	return;
}

my $settings = join "\n", assign('');
query($node, "$settings SELECT qml_create_queue('q');", 'hostile');
is(places(), 'default|default|heap|f', 'partitions are where the history is');
drop_leaves();
query($node, "ALTER TABLE qml.history SET TABLESPACE elsewhere; ALTER TABLE qml.history ALTER payload SET STORAGE EXTERNAL;"
	  . " SELECT qml_cleanup()", 'hostile');
is(places(), 'elsewhere|elsewhere|heap|f', 'also in another tablespace');
is(query($node, "SELECT DISTINCT attstorage FROM pg_attribute JOIN pg_inherits ON inhrelid = attrelid WHERE inhparent = 'qml.history'::regclass AND attname = 'payload'",
		'hostile'), 'e', 'columns are stored as those of the history');
SKIP:
{
	skip 'a partitioned table has no access method before 17', 1 if $version < 170000;
	drop_leaves();
	query($node, "ALTER TABLE qml.history SET ACCESS METHOD other; SELECT qml_cleanup()", 'hostile');
	is(places(), 'elsewhere|elsewhere|other|f', 'and with another access method');
}

done_testing();
