# The documents: every SQL block runs as written and prints what stands below it,
# every link leads somewhere, and nothing that users can reach is missing.
#
# A block marked sql is input of psql; a block marked text right after it is its
# output.  Each section of level 2 is a session of its own.  Each document has a
# fresh database; the extension is there already unless the document creates it.
# An error fails the test unless the output shows it.
#
# QML_DOCUMENTS="doc/faq.md ..." names the documents whose blocks are run; the rest
# is compared over all of them anyway.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use QmlDocuments;
use QmlTest;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my @documents;
eval {
	@documents = read_documents($top);
	$_->{sessions} = [ sessions(@{ $_->{items} }) ] foreach grep { $_->{runs} } @documents;
};
if (!is($@, '', 'the documents can be read'))
{
	done_testing();
	exit 1;
}
my @items = map { @{ $_->{items} } } grep { $_->{runs} } @documents;

# What qml_maintain() is shown to have made would be another number.
avoid_midnight();

# pg_cron for the section on it; what it schedules there cannot connect, because
# the server listens on a Unix socket only.
my $node = new_node(
	'documents',
	bare => 1,
	conf => <<'CONF');
shared_preload_libraries = 'qml, pg_cron'
cron.database_name = 'postgres'
timezone = 'UTC'
datestyle = 'iso'
intervalstyle = 'postgres'
lc_messages = 'C'
CONF

# Makes the server as if no document had been run.
sub start_afresh
{
	$node->safe_psql('template1', <<'SQL');
DROP DATABASE postgres WITH (FORCE);
SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE oid >= 16384 \gexec
ALTER SYSTEM RESET ALL;
SELECT pg_reload_conf();
CREATE DATABASE postgres TEMPLATE template0;
SQL
	return;
}

# As most documents expect it: with the extension and its scheduler.
sub create_extension
{
	query($node, 'CREATE EXTENSION qml');
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity"
		  . " WHERE backend_type = 'qml scheduler' AND datname = 'postgres'")
	  or die 'timed out waiting for the scheduler';
	return;
}

# Runs blocks as one session of psql; returns the output of each.
sub run_session
{
	my (@blocks) = @_;
	my $mark = 'end of block of a document';
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

# Runs a document; asserts that each block prints what it is said to print.
sub run_document
{
	my ($document) = @_;

	create_extension() unless grep { $_->{text} =~ /^CREATE EXTENSION qml\b/m }
	  map { @{ $_->{blocks} } } @{ $document->{sessions} };
	foreach my $session (@{ $document->{sessions} })
	{
		my @blocks = @{ $session->{blocks} };
		my @outputs = run_session(@blocks);
		my (%printed, %documented);

		foreach my $block (@blocks)
		{
			my $output = shift @outputs;

			if (defined $block->{output})
			{
				is(normalize_output($output, \%printed), normalize_output($block->{output}, \%documented), $block->{where});
			}
			else
			{
				is(first_error($output), '', $block->{where});
			}
		}
	}
	return;
}

my %chosen = map { $_ => 1 } split ' ', $ENV{QML_DOCUMENTS} // '';
foreach my $document (grep { @{ $_->{sessions} // [] } } @documents)
{
	next if %chosen && !$chosen{ $document->{file} };
	start_afresh();
	run_document($document);
}
start_afresh();

is(join("\n", broken_links($top, @documents)), '', 'links');
is(join("\n", unlinked_documents('README.md', @documents)), '', 'README.md links to every document');

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
	# Members of an option stand behind it.
	$list =~ s/ \([^)]*\)//g if defined $list;
	return split /, /, $list // '';
}

# Asserts that the documents say what is expected, in whatever order; $got has what they
# say and where.
sub same
{
	my ($got, $expected, $name) = @_;
	my %expected = map { $_ => 1 } @$expected;
	my @wrong = (
		(map { "nowhere: $_" } grep { !exists $got->{$_} } sort keys %expected),
		(map { "$got->{$_}: $_" } grep { !$expected{$_} } sort keys %$got));

	cmp_ok(scalar @$expected, '>', 0, "$name: there are some");
	is(join("\n", @wrong), '', $name);
	return;
}

# The first cells of rows, and where they stand.
sub first_cells
{
	return { map { $_->{cells}[0] => $_->{where} } @_ };
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
		ok((grep { $_->{kind} eq 'line' && $_->{text} =~ /`qml\.$name`/ } @items),
			"function qml.$name is named");
		next;
	}
	push @{ $functions{$name} }, normalize_signature($signature);
}
foreach my $name (sort keys %functions)
{
	same($documented{$name} // {}, $functions{$name}, "signature of $name");
	ok((grep { $_->{kind} eq 'block' && $_->{lang} eq 'sql' && $_->{text} =~ /\b$name\(/ } @items),
		"$name is in an example");
}
same({ map { $_ => (values %{ $documented{$_} })[0] } keys %documented },
	[ keys %functions ], 'all functions described exist');

# Views, with their columns.
foreach my $row (
	catalog(
		'SELECT oid::regclass FROM pg_class'
		  . " WHERE relkind = 'v' AND oid IN (" . members('pg_class') . ') ORDER BY 1'))
{
	my ($view) = @$row;
	my %columns = map { join(' ', $_->{cells}[0], normalize_signature($_->{cells}[1])) => $_->{where} }
	  rows_under('Column', $view, @items);
	same(
		\%columns,
		[
			map { $_->[0] } catalog(
				"SELECT attname || ' ' || format_type(atttypid, NULL) FROM pg_attribute"
				  . " WHERE attrelid = '$view'::regclass AND attnum > 0 AND NOT attisdropped")
		],
		"columns of $view");
}

# Settings, as SHOW has them.
same(
	{ map { join('|', @{ $_->{cells} }[ 0 .. 4 ]) => $_->{where} } rows_under('Setting', undef, @items) },
	[
		map { join '|', @$_ } catalog(
			q{SELECT name, CASE WHEN name IN ('qml.new_queues', 'qml.warn_idle') THEN boot_val ELSE current_setting(name) END, unit, }
			  . " CASE WHEN vartype IN ('integer', 'real') THEN min_val || ' to ' || max_val END, context"
			  . " FROM pg_settings WHERE name LIKE 'qml.%'")
	],
	'settings');

# The state table.
my %transitions;
foreach my $row (rows_under('From', undef, @items))
{
	my ($from, $to) = @{ $row->{cells} };
	$transitions{"$from $_"} = $row->{where} foreach split /, /, $to;
}
my @states = map { $_->[0] } catalog('SELECT unnest(enum_range(NULL::qml.job_state))');
same(
	\%transitions,
	[
		map { $_->[0] } catalog('SELECT f || \' \' || t FROM'
			  . ' unnest(enum_range(NULL::qml.job_state)) f,'
			  . ' unnest(enum_range(NULL::qml.job_state)) t WHERE qml_can_transition(f, t)')
	],
	'transitions');
same(first_cells(rows_under('From', undef, @items)), \@states, 'states');

# Error codes, which only the sources list.
my $errcodes = do { local (@ARGV, $/) = ("$top/src/errcodes.h"); <> };
my %codes;
while ($errcodes =~ /ERRCODE_QML_(\w+)\s+MAKE_SQLSTATE\(([^)]*)\)/g)
{
	$codes{ join '', $2 =~ /'(.)'/g } = lc $1;
}
same(
	{
		map { join(' ', @{ $_->{cells} }[ 0, 1 ]) => $_->{where} }
		  rows_under('SQLSTATE', 'Error codes', @items)
	},
	[ map { "$_ $codes{$_}" } keys %codes ],
	'error codes');

# Options, which the hints of their errors list.
same(
	first_cells(rows_under('Option', undef, @items)),
	[ hint_of(q{SELECT qml_create_queue('q', '{"nonesuch": 1}')}) ],
	'options of a queue');
same(
	first_cells(rows_under('Member of retry', undef, @items)),
	[ hint_of(q{SELECT qml_create_queue('q', '{"retry": {"nonesuch": 1}}')}) ],
	'options of retry');
same(
	first_cells(rows_under('Option of a handler', undef, @items)),
	[ hint_of(q{SELECT qml_register_handler('m', 'now', '{"nonesuch": 1}')}) ],
	'options of a handler');
same(
	first_cells(rows_under('Option of a hook', undef, @items)),
	[ hint_of(q{CREATE FUNCTION h(event jsonb) RETURNS void LANGUAGE sql AS ''; SELECT qml_register_hook('h', 'h', NULL, '{"nonesuch": 1}')}) ],
	'options of a hook');
my $no_job = '00000000-0000-0000-0000-000000000000';
my @data = rows_under('State', 'qml_set_state', @items);
same(first_cells(@data), \@states, 'states that qml_set_state has data for');
foreach my $row (@data)
{
	my ($state, $members) = @{ $row->{cells} };
	my @members = hint_of(qq{SELECT qml_set_state('$no_job', '$state', '{"nonesuch": 1}')});
	if ($members eq '')
	{
		is("@members", '', "no data of qml_set_state for $state ($row->{where})");
		next;
	}
	same(
		{ map { $_ => $row->{where} } split /, /, $members =~ s/ \([^)]*\)//gr },
		\@members,
		"data of qml_set_state for $state ($row->{where})");
}

# What each capability opens: by the row of it, and by what is said of all.
my @capabilities = hint_of(q{SELECT qml_grant('pg_monitor', 'nonesuch')});
query($node, "CREATE ROLE has_$_; SELECT qml_grant('has_$_', '$_')", 'catalogs') foreach @capabilities;
# Whoever lacks the right gets 42501, and others some other error: NULL is no argument.
query($node, <<'SQL', 'catalogs');
CREATE FUNCTION is_let_in(role name, call text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	EXECUTE call;
	RAISE EXCEPTION USING errcode = 'T0000';
EXCEPTION WHEN insufficient_privilege THEN RETURN false;
	WHEN OTHERS THEN RETURN true;
END $$;
CREATE FUNCTION is_let_in(role name, function oid) RETURNS boolean LANGUAGE sql AS $$
	SELECT is_let_in(role, format(CASE prokind WHEN 'p' THEN 'CALL %s(%s)' ELSE 'SELECT * FROM %s(%s)' END, oid::regproc,
		(SELECT string_agg('NULL::' || replace(format_type(t, NULL), 'anycompatible', 'text'), ', ' ORDER BY n)
			FROM unnest(proargtypes) WITH ORDINALITY a (t, n))))
	FROM pg_proc WHERE oid = function
$$;
SQL
same(first_cells(rows_under('Capability', undef, @items)), \@capabilities, 'capabilities');
foreach my $document (@documents)
{
	my @rights = rows_under('Capability', undef, @{ $document->{items} }) or next;
	my $text = join "\n", map { $_->{text} } @{ $document->{items} };
	my ($common) = $text =~ /^Each of them opens (.*?) as well\./ms;
	ok(defined $common, "$document->{file} says what each capability opens as well") or next;

	foreach my $row (@rights)
	{
		my ($capability, $opens) = @{ $row->{cells} };

		# an administrator may do what stands in the other rows too
		$opens = join ' ', map { $_->{cells}[1] } @rights if $capability eq 'admin';
		same(
			{ map { $_ => $row->{where} } "$opens $common" =~ /\b(qml[_.]\w+)/g },
			[
				map { $_->[0] } catalog(
					"SELECT DISTINCT proname FROM pg_proc WHERE oid IN (" . members('pg_proc') . ')'
					  . " AND pronamespace <> 'qml'::regnamespace"
					  . " AND is_let_in('has_$capability', oid)"
					  . ' UNION ALL SELECT oid::regclass::text FROM pg_class'
					  . " WHERE relkind IN ('v', 'r') AND oid IN (" . members('pg_class') . ')'
					  . " AND is_let_in('has_$capability', format('SELECT FROM %s LIMIT 1', oid::regclass))")
			],
			"what $capability opens ($document->{file})");
	}
}

# Messages in the log: each that is listed can come, and each that can come is listed.
my @messages = log_messages($top);
my @listed = map { { where => $_->{where}, texts => [ (split /\|/, $_->{line})[1] =~ /`([^`]+)`/g ] } }
  rows_under('Message', undef, @items);
cmp_ok(scalar @messages, '>', 10, 'log messages: there are some');
foreach my $row (@listed)
{
	foreach my $text (@{ $row->{texts} })
	{
		ok((grep { $text =~ /^(?:$_->{pattern})$/ } @messages), "$row->{where}: $text");
	}
}
foreach my $message (@messages)
{
	ok((grep { /^(?:$message->{pattern})$/ } map { @{ $_->{texts} } } @listed),
		"$message->{where}: the message is documented");
}

$node->stop;
done_testing();
