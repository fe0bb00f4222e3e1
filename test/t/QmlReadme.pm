# Reads README.md for 080_readme.pl: its headings, fenced blocks and tables.

package QmlReadme;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(anchors links normalize_output normalize_signature read_readme
  rows_under sessions signatures);

# Blocks in these languages are not run.
my %NOT_RUN = map { $_ => 1 } qw(sh python);

# A list of blocks and text lines: hashes with kind (heading, block, line), text,
# number of the line and, of blocks, lang.
sub read_readme
{
	my ($file) = @_;
	my (@items, $block);

	open my $fh, '<', $file or die "could not open \"$file\": $!\n";
	while (my $line = <$fh>)
	{
		if ($block)
		{
			if ($line eq "```\n") { $block = undef; }
			else { $block->{text} .= $line; }
		}
		elsif ($line =~ /^```(.*)$/)
		{
			$block = { kind => 'block', lang => $1, text => '', number => $. };
			push @items, $block;
		}
		else
		{
			chomp $line;
			push @items,
			  {
				kind => $line =~ /^#+ / ? 'heading' : 'line',
				text => $line,
				number => $.
			  };
		}
	}
	close $fh;
	die "$file: the block at line $block->{number} does not end\n" if $block;
	return @items;
}

# The blocks to run, one list per section of level 2, each block with the output
# that is to follow it, if any.  Dies of blocks that are neither.
sub sessions
{
	my (@items) = @_;
	my (@sessions, $last);

	foreach my $item (@items)
	{
		if ($item->{kind} eq 'heading' && $item->{text} =~ /^## (.*)/)
		{
			push @sessions, { name => $1, blocks => [] };
		}
		next if $item->{kind} eq 'line' && $item->{text} eq '';

		my $lang = $item->{kind} eq 'block' ? $item->{lang} : undef;
		if (defined $lang && $lang eq 'sql')
		{
			push @{ $sessions[-1]{blocks} }, $item;
		}
		elsif (defined $lang && $lang eq 'text')
		{
			die "line $item->{number}: an output without an sql block before it\n"
			  unless $last && ($last->{lang} // '') eq 'sql';
			$last->{output} = $item->{text};
		}
		elsif (defined $lang && $lang ne '' && !$NOT_RUN{$lang})
		{
			die "line $item->{number}: unknown kind of block \"$lang\"\n";
		}
		$last = $item;
	}
	return grep { @{ $_->{blocks} } } @sessions;
}

# Output without what differs from run to run: ids, times, widths of columns.
sub normalize_output
{
	my ($text) = @_;

	$text =~ s/\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/UUID/g;
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
# that name; several of one that is overloaded.
sub signatures
{
	my (@items) = @_;
	my (%signatures, $heading);

	foreach my $item (@items)
	{
		$heading = $item->{text} if $item->{kind} eq 'heading';
		next unless $item->{kind} eq 'block' && $item->{lang} eq '';
		my ($name) = $item->{text} =~ /^(qml_\w+)\(/ or next;
		push @{ $signatures{$name} }, normalize_signature($item->{text})
		  if $heading =~ /^#+ `$name`/;
	}
	return %signatures;
}

# The rows of the tables whose first heading is $first, below the heading
# $heading where one is given; cells without their backquotes.
sub rows_under
{
	my ($first, $heading, @items) = @_;
	my ($here, $in_table) = (!defined $heading, 0);
	my @rows;

	foreach my $item (@items)
	{
		if ($item->{kind} eq 'heading')
		{
			$here = $item->{text} =~ /^#+ \Q$heading\E$/ if defined $heading;
		}
		if ($item->{kind} ne 'line' || $item->{text} !~ /^\|/) { $in_table = 0; next; }

		my @cells = map { s/^\s+|\s+$|`//gr } split /\|/, $item->{text}, -1;
		shift @cells;
		pop @cells;
		if (!$in_table) { $in_table = $here && $cells[0] eq $first ? 1 : -1; }
		elsif ($in_table == 1 && $cells[0] !~ /^-+$/) { push @rows, \@cells; }
	}
	return @rows;
}

# Where links within the file may lead, as GitHub names the headings.
sub anchors
{
	my (@items) = @_;
	return map { lc($_->{text} =~ s/^#+ //r) =~ s/[^\w\- ]//gr =~ s/ /-/gr }
	  grep { $_->{kind} eq 'heading' } @items;
}

# Targets of all links.
sub links
{
	my (@items) = @_;
	return map { $_->{text} =~ /\]\(([^)]+)\)/g } grep { $_->{kind} eq 'line' } @items;
}

1;
