# README.md: every SQL block runs as written and prints what stands below it, and
# nothing that users can reach is missing.
#
# A block marked sql is input of psql; a block marked text right after it is its
# output.  Each section of level 2 is a session of its own, all in one database.
# An error fails the test unless the output shows it.  QML_README names another
# file to check.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use QmlReadme;
use QmlTest;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $file = $ENV{QML_README} // "$top/README.md";
my (@items, @sessions);
eval { @items = read_readme($file); @sessions = sessions(@items); };
if (!is($@, '', 'README.md can be read'))
{
	done_testing();
	exit 1;
}
my $all = do { local (@ARGV, $/) = ($file); <> };

# What qml_maintain() is shown to have made would be another number.
avoid_midnight();

# pg_cron for the section on it; what it schedules there cannot connect, because
# the server listens on a Unix socket only.
my $node = new_node(
	'readme',
	bare => 1,
	conf => <<'CONF');
shared_preload_libraries = 'qml, pg_cron'
cron.database_name = 'postgres'
timezone = 'UTC'
datestyle = 'iso'
intervalstyle = 'postgres'
lc_messages = 'C'
CONF

# Runs blocks as one session of psql; returns the output of each.
sub run_session
{
	my (@blocks) = @_;
	my $mark = 'end of block of README';
	my $script = join '', map { "$_->{text}\\echo $mark\n" } @blocks;
	my $out = '';

	IPC::Run::run([ 'psql', '--no-psqlrc', '--dbname', $node->connstr('postgres') ],
		'<', \$script, '>&', \$out);
	my @outputs = split /^\Q$mark\E\n/m, $out, -1;
	push @outputs, '' while @outputs < @blocks;
	return @outputs;
}

# The first error in an output, psql's own included.
sub first_error
{
	my ($output) = @_;
	my ($error) = $output =~
	  /^((?:psql:.*)?(?:ERROR|FATAL|PANIC|error):.*|invalid command.*|.*returned for \\gset|\\\w+: .*)$/m;
	return $error // '';
}

foreach my $session (@sessions)
{
	my @blocks = @{ $session->{blocks} };
	my @outputs = run_session(@blocks);

	foreach my $block (@blocks)
	{
		my $output = shift @outputs;
		my $name = "$session->{name}: block at line $block->{number}";

		if (defined $block->{output})
		{
			is(normalize_output($output), normalize_output($block->{output}), $name);
		}
		else
		{
			is(first_error($output), '', $name);
		}
	}
}

# What follows compares with the catalogs of a fresh database.
$node->safe_psql('postgres', 'CREATE DATABASE catalogs');
query($node, 'CREATE EXTENSION qml', 'catalogs');

# The rows of a query, as lists.
sub catalog
{
	my ($sql) = @_;
	return map { [ split /\|/, $_, -1 ] } split /\n/, query($node, "LOAD 'qml'; $sql", 'catalogs');
}

# The hint of an error, after its first words.
sub hint_of
{
	my ($sql) = @_;
	my (undef, undef, $stderr) = $node->psql('catalogs', $sql);
	my ($list) = $stderr =~ /^HINT:  .* are: (.*)\.$/m;
	return split /, /, $list // '';
}

# Asserts that the lists hold the same, whatever the order.
sub same
{
	my ($got, $expected, $name) = @_;
	cmp_ok(scalar @$expected, '>', 0, "$name: there are some");
	is_deeply([ sort @$got ], [ sort @$expected ], $name);
	return;
}

# The first cells of a table.
sub first_cells
{
	return map { $_->[0] } @_;
}

# A subquery: the members of the extension in a catalog.
sub members
{
	my ($catalog) = @_;
	return "SELECT objid FROM pg_depend WHERE classid = '$catalog'::regclass AND deptype = 'e'"
	  . " AND refclassid = 'pg_extension'::regclass"
	  . " AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'qml')";
}

# Functions: those for users with their signatures, the others by name.
my %documented = signatures(@items);
my %functions;
foreach my $row (
	catalog(
		'SELECT pronamespace::regnamespace, proname,'
		  . " format('%s(%s) RETURNS %s', proname, pg_get_function_arguments(oid),"
		  . ' pg_get_function_result(oid))'
		  . ' FROM pg_proc WHERE oid IN (' . members('pg_proc') . ') ORDER BY 2'))
{
	my ($schema, $name, $signature) = @$row;
	if ($schema eq 'qml')
	{
		like($all, qr/`qml\.$name`/, "function qml.$name is named");
		next;
	}
	push @{ $functions{$name} }, normalize_signature($signature);
}
foreach my $name (sort keys %functions)
{
	same($documented{$name} // [], $functions{$name}, "signature of $name");
	like($all, qr/^```sql\n(?:(?!```).*\n)*.*\b$name\(/m, "$name is in an example");
}
same([ keys %documented ], [ keys %functions ], 'all functions described exist');

# Views, with their columns.
foreach my $row (
	catalog(
		'SELECT oid::regclass FROM pg_class'
		  . " WHERE relkind = 'v' AND oid IN (" . members('pg_class') . ') ORDER BY 1'))
{
	my ($view) = @$row;
	my @columns = map { "$_->[0] " . normalize_signature($_->[1]) }
	  rows_under('Column', $view, @items);
	same(
		\@columns,
		[
			map { $_->[0] } catalog(
				"SELECT attname || ' ' || format_type(atttypid, NULL) FROM pg_attribute"
				  . " WHERE attrelid = '$view'::regclass AND attnum > 0 AND NOT attisdropped")
		],
		"columns of $view");
}

# Settings, as SHOW has them.
same(
	[ map { join '|', @$_[ 0 .. 4 ] } rows_under('Setting', undef, @items) ],
	[
		map { join '|', @$_ } catalog(
			'SELECT name, current_setting(name), unit, '
			  . " CASE WHEN vartype = 'integer' THEN min_val || ' to ' || max_val END, context"
			  . " FROM pg_settings WHERE name LIKE 'qml.%'")
	],
	'settings');

# The state table.
my @transitions;
foreach my $row (rows_under('From', undef, @items))
{
	my ($from, $to) = @$row;
	push @transitions, map { "$from $_" } split /, /, $to;
}
same(
	\@transitions,
	[
		map { $_->[0] } catalog('SELECT f || \' \' || t FROM'
			  . ' unnest(enum_range(NULL::qml.job_state)) f,'
			  . ' unnest(enum_range(NULL::qml.job_state)) t WHERE qml_can_transition(f, t)')
	],
	'transitions');
same(
	[ first_cells(rows_under('From', undef, @items)) ],
	[ map { $_->[0] } catalog('SELECT unnest(enum_range(NULL::qml.job_state))') ],
	'states');

# Error codes, which only the sources list.
my $errcodes = do { local (@ARGV, $/) = ("$top/src/errcodes.h"); <> };
my %codes;
while ($errcodes =~ /ERRCODE_QML_(\w+)\s+MAKE_SQLSTATE\(([^)]*)\)/g)
{
	$codes{ join '', $2 =~ /'(.)'/g } = lc $1;
}
same(
	[ map { "$_->[0] $_->[1]" } rows_under('SQLSTATE', 'Error codes', @items) ],
	[ map { "$_ $codes{$_}" } keys %codes ],
	'error codes');

# Options, which the hints of their errors list.
same(
	[ first_cells(rows_under('Option', undef, @items)) ],
	[ hint_of(q{SELECT qml_create_queue('q', '{"nonesuch": 1}')}) ],
	'options of a queue');
same(
	[ first_cells(rows_under('Member of retry', undef, @items)) ],
	[ hint_of(q{SELECT qml_create_queue('q', '{"retry": {"nonesuch": 1}}')}) ],
	'options of retry');
same(
	[ first_cells(rows_under('Option of a handler', undef, @items)) ],
	[ hint_of(q{SELECT qml_register_handler('m', 'now', '{"nonesuch": 1}')}) ],
	'options of a handler');
my $no_job = '00000000-0000-0000-0000-000000000000';
foreach my $row (rows_under('State', undef, @items))
{
	my ($state, $data) = @$row;
	same(
		[ split /, /, $data =~ s/ \([^)]*\)//gr ],
		[ hint_of(qq{SELECT qml_set_state('$no_job', '$state', '{"nonesuch": 1}')}) ],
		"data of qml_set_state for $state");
}

# What each capability opens.
my @rights = rows_under('Capability', undef, @items);
same([ first_cells(@rights) ], [ hint_of(q{SELECT qml_grant('pg_monitor', 'nonesuch')}) ],
	'capabilities');
my ($common) = $all =~ /^Each of them opens (.*?) as well\./ms;
foreach my $row (@rights)
{
	my ($capability, $opens) = @$row;
	my $role = "has_$capability";

	# an administrator may do what stands in the other rows too
	$opens = join ' ', map { $_->[1] } @rights if $capability eq 'admin';
	my %names = map { $_ => 1 } "$opens $common" =~ /\b(qml[_.]\w+)/g;
	query($node, "CREATE ROLE $role; SELECT qml_grant('$role', '$capability')", 'catalogs');
	same(
		[ keys %names ],
		[
			map { $_->[0] } catalog(
				"SELECT DISTINCT proname FROM pg_proc WHERE oid IN (" . members('pg_proc') . ')'
				  . " AND pronamespace <> 'qml'::regnamespace"
				  . " AND has_function_privilege('$role', oid, 'EXECUTE')"
				  . ' UNION ALL SELECT oid::regclass::text FROM pg_class'
				  . " WHERE relkind IN ('v', 'r') AND oid IN (" . members('pg_class') . ')'
				  . " AND has_table_privilege('$role', oid, 'SELECT')")
		],
		"what $capability opens");
}

# Links within the file lead somewhere.
my %anchors = map { $_ => 1 } anchors(@items);
is(join(' ', grep { /^#/ && !$anchors{ substr $_, 1 } } links(@items)), '', 'links');

$node->stop;
done_testing();
