# Fingerprints of errors, without a server: what messages become, also random ones.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use QmlTest;
use Test::More;

my ($out, $err) = ('', '');
local $ENV{SEED} = seed();
IPC::Run::run([ "$FindBin::RealBin/../fingerprint/run" ], '<', \undef, '>', \$out, '2>', \$err);
is($?, 0, 'test/fingerprint/run') or diag($out, $err);
like($out, qr/^[1-9]\d{3,} passed, 0 failed$/m, 'nothing failed');
done_testing();
