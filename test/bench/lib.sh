# shellcheck shell=bash
#
# What the benchmarks share: they start as any user, go on as the one that may run
# servers, in a private copy of the checkout, and measure on one throw-away server with
# the release build.  To be sourced; the script itself is its argument.

top=$(cd "$(dirname "$1")/../.." && pwd)
# shellcheck source=test/lib.sh
. "$top/test/lib.sh"
# shellcheck source=test/tree.sh
. "$top/test/tree.sh"
# shellcheck source=test/server.sh
. "$top/test/server.sh"

if [ -z "${WORK:-}" ]; then
	WORK=$(make_work_dir)
	trap 'stop_servers_below "$WORK"; rm -rf "$WORK"' EXIT
	trap 'exit 143' INT TERM HUP
	copy_checkout "$top" "$WORK/checkout"
	cd "$WORK" || exit
	as_test_user env HOME="$WORK" TMPDIR="$WORK" WORK="$WORK" "$WORK/checkout/test/bench/${1##*/}"
	exit
fi
trap 'stop_servers_below "$WORK"' EXIT

# Builds qml, and starts a server with the settings on stdin and the extension.
start_server()
{
	local bin conf

	conf=$(cat)
	unset "${!PG@}"
	build_variant "$top" "$WORK" release >"$WORK/build.log" 2>&1 || {
		tail -n 40 "$WORK/build.log"
		die 'could not build qml'
	}
	bin=$(tree_bindir "$WORK" release)
	server_create bench "$bin" postgres <<<"$conf"
	server_start bench "$bin" 5432
	PGHOST=$(server_socket_dir)
	export PGHOST PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
	PATH=$bin:$PATH
	sql -c 'CREATE EXTENSION qml'
}

sql()
{
	psql -XAtq -v ON_ERROR_STOP=1 "$@"
}

# The WAL position in bytes.
wal_position()
{
	sql -c "SELECT pg_current_wal_insert_lsn() - '0/0'"
}
