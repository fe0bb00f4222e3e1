#!/usr/bin/perl
#
# coverage.pl DIRECTORY: adds up what gcov says about the builds build-* below it, and
# about the programs of test/cron.  A
# line that several builds hold counts once, as run if it ran in one of them.  Prints the
# files of src of which less than 90 % was run, with the lines that were not, and at the end the
# share of all lines.

use strict;
use warnings;

use JSON::PP qw(decode_json);

my $LEAST = 90; # per cent

my ($dir) = @ARGV;
my %runs; # by file and line

foreach my $notes (split /\n/, qx(find '$dir' -path '*/build-*/src/*.gcno' -o -path '*/cron/*.gcno'))
{
	my $json = qx(gcov --json-format --stdout '$notes' 2>/dev/null);
	foreach my $report (grep { /\S/ } split /\n/, $json)
	{
		foreach my $file (@{ decode_json($report)->{files} })
		{
			my ($name) = $file->{file} =~ m{(?:^|/)(src/.*\.[ch])$} or next;
			$runs{$name}{ $_->{line_number} } += $_->{count} foreach @{ $file->{lines} };
		}
	}
}
die "no build that counts below $dir\n" unless %runs;

# Numbers as "3-5 8".
sub ranges
{
	my @ranges;
	foreach my $n (@_)
	{
		if (@ranges && $ranges[-1][1] == $n - 1)
		{
			$ranges[-1][1] = $n;
		}
		else
		{
			push @ranges, [ $n, $n ];
		}
	}
	return join ' ', map { $_->[0] == $_->[1] ? $_->[0] : "$_->[0]-$_->[1]" } @ranges;
}

my ($all, $run) = (0, 0);
foreach my $name (sort keys %runs)
{
	my @lines = sort { $a <=> $b } keys %{ $runs{$name} };
	my @missed = grep { $runs{$name}{$_} == 0 } @lines;
	my $share = 100 * (1 - @missed / @lines);

	$all += @lines;
	$run += @lines - @missed;
	printf "   %5.1f %%  %s: %s\n", $share, $name, ranges(@missed) if $share < $LEAST;
}
printf "%.1f %% of %d lines in %d files of src were run\n", 100 * $run / $all, $all, scalar keys %runs;
