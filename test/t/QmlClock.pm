# Servers whose clock the test sets, by libfaketime under the postmaster.
#
# The clock is the real one plus an offset that all processes of the server read
# from a file each time they look.  The monotonic clock is left alone.
# statement_timeout does not work in such a server when the offset is positive.

package QmlClock;

use strict;
use warnings;

use Exporter 'import';
use File::Spec;
use POSIX ();
use PostgreSQL::Test::Utils;
use QmlChecker;
use QmlTest;
use Test::More;
use Time::HiRes qw(time);
use Time::Local qw(timegm);

our @EXPORT = qw(
  clock_epoch clock_offset clock_text log_is_clean new_clock_node set_clock
  start_with_clock unchecked_log
);

my $LIBRARY = '/usr/lib/*/faketime/libfaketime.so.1';
my %offset;
my %checked; # bytes of the log, by name of the server

# Absolute, because the server is in another directory: from PostgreSQL 16 on
# basedir() may be relative.
sub offset_file
{
	my ($node) = @_;
	return File::Spec->rel2abs($node->basedir . '/clock');
}

# The seconds that the server's clock is ahead of the real one.
sub clock_offset
{
	my ($node) = @_;
	return $offset{ $node->name };
}

sub write_offset
{
	my ($node, $seconds) = @_;
	my $file = offset_file($node);

	$offset{ $node->name } = $seconds;
	append_to_file("$file.new", sprintf("%+.3f\n", $seconds));
	rename "$file.new", $file or die "could not rename \"$file.new\": $!";
	return;
}

# Lets the clock of the server say a time now: seconds since 1970.
sub set_clock
{
	my ($node, $epoch) = @_;
	write_offset($node, $epoch - time);
	return;
}

sub start_with_clock
{
	my ($node) = @_;
	my ($library) = glob $LIBRARY;

	die 'no libfaketime: test/setup.sh' unless defined $library && -e $library;
	local %ENV = (
		%ENV,
		LD_PRELOAD => client_file('real_select.so') . " $library",
		FAKETIME_TIMESTAMP_FILE => offset_file($node),
		FAKETIME_NO_CACHE => 1,
		DONT_FAKE_MONOTONIC => 1);
	$node->start;

	# libfaketime does not complain of a file that it cannot read.
	my $wrong = query($node, 'SELECT extract(epoch FROM clock_timestamp())') - time
	  - clock_offset($node);
	die "the clock of the server is wrong by $wrong s" if abs($wrong) > 10;
	return;
}

# As new_node(), with a clock that shows $epoch at its start.
sub new_clock_node
{
	my ($name, $epoch, %opt) = @_;
	my $node = new_node($name, %opt, bare => 1, stopped => 1);

	set_clock($node, $epoch);
	start_with_clock($node);
	query($node, 'CREATE EXTENSION qml') unless $opt{bare};
	return $node;
}

# What was logged since the last call of log_is_clean().
sub unchecked_log
{
	my ($node) = @_;
	return slurp_file($node->logfile, $checked{ $node->name } // 0);
}

# Nothing that ought not to be was logged since the last call, but for what is
# allowed.
sub log_is_clean
{
	my ($node, $name, @allowed) = @_;
	my $from = $checked{ $node->name } // 0;

	$checked{ $node->name } = -s $node->logfile;
	is_deeply(
		[
			QmlChecker::check_server_log([ $node->logfile, $from ],
				{ allow => [ qr/^the clock jumped by/, @allowed ] })
		],
		[],
		$name);
	return;
}

# "2026-03-29 00:59:58", UTC, as seconds since 1970, and back.
sub clock_epoch
{
	my ($year, $month, $day, $hour, $minute, $second) =
	  $_[0] =~ /^(\d+)-(\d+)-(\d+) (\d+):(\d+)(?::(\d+))?$/
	  or die "no time: \"$_[0]\"";
	return timegm($second // 0, $minute, $hour, $day, $month - 1, $year);
}

sub clock_text
{
	return POSIX::strftime('%Y-%m-%d %H:%M:%S', gmtime $_[0]);
}

1;
