# Reads the documents for 080_documents.pl: their headings, fenced blocks, tables and
# links; and the log messages of the sources.

package QmlDocuments;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);
use File::Find ();

our @EXPORT = qw(broken_links log_messages normalize_output normalize_signature
  read_documents rows_under sessions signatures unlinked_documents);

# Documents whose blocks are run, and those in which only the links are checked.
my @RUN = qw(README.md doc/*.md doc/reference/*.md examples/README.md CONTRIBUTING.md SECURITY.md);
my @LINKS_ONLY = qw(doc/internals/*.md CHANGELOG.md src/README.md src/*/README.md);

# Blocks in these languages are not run.
my %NOT_RUN = map { $_ => 1 } qw(sh bash python javascript typescript go java ruby php csharp
  rust c perl ini json yaml);

# All documents below $top, by the name of the file: hashes with file, runs (whether
# its blocks are run) and items.
sub read_documents
{
	my ($top) = @_;
	my %documents;

	foreach my $set ([ 1, @RUN ], [ 0, @LINKS_ONLY ])
	{
		my ($runs, @patterns) = @$set;
		foreach my $path (map { glob "$top/$_" } @patterns)
		{
			next unless -e $path;
			my $file = substr $path, length "$top/";
			$documents{$file} = {
				file => $file,
				runs => $runs,
				items => [ read_items($path, $file) ]
			};
		}
	}
	return map { $documents{$_} } sort keys %documents;
}

# A list of blocks and text lines: hashes with kind (heading, block, line), text,
# where (file and line) and, of blocks, lang.
sub read_items
{
	my ($path, $file) = @_;
	my (@items, $block);

	open my $fh, '<', $path or die "could not open \"$path\": $!\n";
	while (my $line = <$fh>)
	{
		if ($block)
		{
			if ($line eq "```\n") { $block = undef; }
			else { $block->{text} .= $line; }
		}
		elsif ($line =~ /^```(.*)$/)
		{
			$block = { kind => 'block', lang => $1, text => '', where => "$file:$." };
			push @items, $block;
		}
		else
		{
			chomp $line;
			push @items,
			  {
				kind => $line =~ /^#+ / ? 'heading' : 'line',
				text => $line,
				where => "$file:$."
			  };
		}
	}
	close $fh;
	die "$block->{where}: the block does not end\n" if $block;
	return @items;
}

# The blocks to run, one list per section of level 2 and one for what stands before the
# first, each block with the output that is to follow it, if any.  Dies of blocks that
# are neither.
sub sessions
{
	my (@items) = @_;
	my @sessions = ({ blocks => [] });
	my $last;

	foreach my $item (@items)
	{
		if ($item->{kind} eq 'heading' && $item->{text} =~ /^## /)
		{
			push @sessions, { blocks => [] };
		}
		next if $item->{kind} eq 'line' && $item->{text} eq '';

		my $lang = $item->{kind} eq 'block' ? $item->{lang} : undef;
		if (defined $lang && $lang eq 'sql')
		{
			push @{ $sessions[-1]{blocks} }, $item;
		}
		elsif (defined $lang && $lang eq 'text')
		{
			die "$item->{where}: an output without an sql block before it\n"
			  unless $last && ($last->{lang} // '') eq 'sql';
			$last->{output} = $item->{text};
		}
		elsif (defined $lang && $lang ne '' && !$NOT_RUN{$lang})
		{
			die "$item->{where}: unknown kind of block \"$lang\"\n";
		}
		$last = $item;
	}
	return grep { @{ $_->{blocks} } } @sessions;
}

# Output without what differs from run to run: times, widths of columns, and ids.  The
# latter become numbers, in the order in which they first come; $ids, a hash that is kept for
# a session, has those of before.  So the same job has the same id in all of its outputs.
sub normalize_output
{
	my ($text, $ids) = @_;

	$text =~ s/\b([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b/'UUID' . ($ids->{$1} \/\/ ($ids->{$1} = 1 + keys %$ids))/ge;
	$text =~ s/\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d(:\d\d)?)?\b/TIME/g;
	$text =~ s/\b\d\d:\d\d:\d\d\.\d+\b/INTERVAL/g;
	$text =~ s/-{2,}/--/g;
	$text =~ s/[ \t]+/ /g;
	$text =~ s/^ | $//mg;
	$text =~ s/\n\n+/\n/g;
	$text =~ s/\A\n|\n\z//g;
	return $text;
}

# The same for a signature as the catalog has it and as people write it.
sub normalize_signature
{
	my ($text) = @_;

	$text =~ s/::[a-z._]+( with time zone)?(\[\])?//g;
	$text =~ s/\bIN //g;
	$text =~ s/ RETURNS $//;
	$text =~ s/\btimestamptz\b/timestamp with time zone/g;
	$text =~ s/\bint\b/integer/g;
	$text =~ s/\s+/ /g;
	$text =~ s/^ | $//g;
	return $text;
}

# Signatures, by the name of the function, each below a heading that begins with
# that name: hashes from the signature to where it stands.
sub signatures
{
	my (@items) = @_;
	my %signatures;
	my $heading = '';

	foreach my $item (@items)
	{
		$heading = $item->{text} if $item->{kind} eq 'heading';
		next unless $item->{kind} eq 'block' && $item->{lang} eq '';
		my ($name) = $item->{text} =~ /^(qml_\w+)\(/ or next;
		$signatures{$name}{ normalize_signature($item->{text}) } = $item->{where}
		  if $heading =~ /^#+ `$name`/;
	}
	return %signatures;
}

# The rows of the tables whose first heading is $first, below the heading $heading
# where one is given: hashes with cells, which have no backquotes, line and where.
sub rows_under
{
	my ($first, $heading, @items) = @_;
	my ($here, $in_table) = (!defined $heading, 0);
	my @rows;

	foreach my $item (@items)
	{
		if ($item->{kind} eq 'heading')
		{
			$here = $item->{text} =~ /^#+ `?\Q$heading\E`?$/ if defined $heading;
		}
		if ($item->{kind} ne 'line' || $item->{text} !~ /^\|/) { $in_table = 0; next; }

		my @cells = map { s/^\s+|\s+$|`//gr } split /\|/, $item->{text}, -1;
		shift @cells;
		pop @cells;
		if (!$in_table) { $in_table = $here && $cells[0] eq $first ? 1 : -1; }
		elsif ($in_table == 1 && $cells[0] !~ /^-+$/)
		{
			push @rows, { cells => \@cells, line => $item->{text}, where => $item->{where} };
		}
	}
	return @rows;
}

# Where links to a document may lead, as GitHub names the headings.
sub anchors
{
	my (@items) = @_;
	my (%anchors, %seen);

	foreach my $item (@items)
	{
		$anchors{$1} = 1 if $item->{kind} eq 'line' && $item->{text} =~ /<a (?:id|name)="([^"]+)"/;
		next unless $item->{kind} eq 'heading';
		my $name = lc($item->{text} =~ s/^#+ //r) =~ s/[^\w\- ]//gr =~ s/ /-/gr;
		$anchors{ $seen{$name}++ ? "$name-" . ($seen{$name} - 1) : $name } = 1;
	}
	return \%anchors;
}

# Links and pictures of a document: pairs of target and where.
sub links
{
	my (@items) = @_;
	my @links;

	foreach my $item (grep { $_->{kind} ne 'block' } @items)
	{
		my $text = $item->{text} =~ s/`[^`]*`//gr;
		push @links, map { [ $_, $item->{where} ] } $text =~ /\]\(([^)]+)\)/g,
		  $text =~ /<(?:img|source) [^>]*?src(?:set)?="([^"]+)"/g, $text =~ /<a href="([^"]+)"/g;
	}
	return @links;
}

# The file that a path in a document means, by its name below the top directory.
sub resolve_path
{
	my ($document, $path) = @_;
	return $document->{file} if $path eq '';

	my $file = dirname($document->{file}) . "/$path";
	$file =~ s{(^|/)\./}{$1}g;
	1 while $file =~ s{(^|/)(?!\.\./)[^/]+/\.\./}{$1};
	return $file;
}

# The documents that are to be run but that $from does not link to.
sub unlinked_documents
{
	my ($from, @documents) = @_;
	my ($document) = grep { $_->{file} eq $from } @documents;
	my %linked = map { resolve_path($document, $_->[0] =~ s/#.*//r) => 1 } links(@{ $document->{items} });

	return grep { $_ ne $from && !$linked{$_} } map { $_->{file} } grep { $_->{runs} } @documents;
}

# The links between files, and within one, that lead nowhere, with where they stand.
sub broken_links
{
	my ($top, @documents) = @_;
	my %anchors = map { $_->{file} => anchors(@{ $_->{items} }) } @documents;
	my @broken;

	foreach my $document (@documents)
	{
		foreach my $link (links(@{ $document->{items} }))
		{
			my ($target, $where) = @$link;
			next if $target =~ /^[a-z]+:/;
			my ($path, $anchor) = split /#/, $target, 2;
			my $file = resolve_path($document, $path);

			push @broken, "$where: $target"
			  if !-e "$top/$file" || defined $anchor && !$anchors{$file}{$anchor};
		}
	}
	return @broken;
}

# The messages that the sources give as LOG or WARNING: hashes with where and pattern,
# in which anything may stand for a directive.
sub log_messages
{
	my ($top) = @_;
	my $literals = qr/(?:"(?:[^"\\]|\\.)*"\s*)+/;
	my (@files, @messages);

	File::Find::find(sub { push @files, $File::Find::name if /\.c$/ }, "$top/src");
	foreach my $file (sort @files)
	{
		my $text = do { local (@ARGV, $/) = ($file); <> };
		while ($text =~ /\bereport\((?:LOG|WARNING),(.*?)\);\n/gs)
		{
			my $where = substr($file, length "$top/") . ':' . (1 + substr($text, 0, $-[0]) =~ tr/\n//);
			my ($plural, @formats) = $1 =~ /\berrmsg(_plural)?\(\s*($literals)(?:,\s*($literals))?/
			  or die "$where: a message without a text\n";
			pop @formats if !defined $plural;
			push @messages,
			  { where => $where, pattern => join '|', map { format_pattern($_) } @formats };
		}
	}
	return @messages;
}

# A pattern for what a format of printf, given as literals of C, may become.
sub format_pattern
{
	my ($literals) = @_;
	my $format = join '', map { s/\\(.)/$1/gr } $literals =~ /"((?:[^"\\]|\\.)*)"/g;

	return join '.+', map { quotemeta } split /%[-0-9.*l]*[a-z]/, $format, -1;
}

1;
