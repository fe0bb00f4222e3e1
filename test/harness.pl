#!/usr/bin/perl
#
# Runs TAP tests, as many at a time as the second argument says, as prove does, and
# writes "PASSED FAILED" in assertions to the file named first, and the names of the
# tests that failed below.  A .sql file is a pgTAP test and goes
# through psql, which takes its connection from the environment.
#
# An assertion that was planned but did not run counts as failed, and so does a
# program that ends badly without a failed assertion.

use strict;
use warnings;

use File::Basename qw(basename);
use TAP::Harness;

my ($count_file, $jobs, @tests) = @ARGV;
die "usage: harness.pl COUNT_FILE JOBS TEST...\n" unless @tests;

my @psql = qw(psql --no-psqlrc --no-align --tuples-only --quiet --set ON_ERROR_STOP=1
  --set VERBOSITY=verbose --file);

my $harness = TAP::Harness->new(
	{
		timer => 1,
		jobs => $jobs,
		failures => 1,
		# pgTAP tells in comments what it found instead.
		comments => (grep { /\.sql$/ } @tests) ? 1 : 0,
		lib => [ split(/:/, $ENV{PERL5LIB} // '') ],
		exec => sub { return $_[1] =~ /\.sql$/ ? [ @psql, $_[1] ] : undef; },
	});
my $aggregate = $harness->runtests(map { [ $_, basename($_) ] } @tests);

my ($passed, $failed, @names) = (0, 0);
foreach my $name ($aggregate->descriptions)
{
	my ($parser) = $aggregate->parsers($name);
	my $good = () = $parser->passed;
	my $bad = () = $parser->failed;
	my $missing = ($parser->tests_planned // 0) - ($parser->tests_run // 0);

	$bad += $missing if $missing > 0;
	$bad = 1 if $bad == 0 && $parser->has_problems;
	$passed += $good;
	$failed += $bad;
	push @names, $name if $bad > 0;
}

open my $fh, '>', $count_file or die "could not write $count_file: $!\n";
print $fh "$passed $failed\n", map { "$_\n" } @names;
close $fh;
exit($failed == 0 ? 0 : 1);
