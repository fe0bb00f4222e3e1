# shellcheck shell=bash
#
# What the benchmarks share: they start as any user, go on as the one that may run
# servers, in a private copy of the checkout, and measure on one throw-away server with
# the release build.  To be sourced; the script itself is its argument.

# One version of the driver for all; the peers need a newer Node than Debian's.
npm_packages=(graphile-worker@0.18.0 pg-boss@12.38.0 pg@8.23.1 node@22.20.0)

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

# start_server [NAME]: builds qml, and starts a server with the settings on stdin and the
# extension.
start_server()
{
	local name=${1:-bench} bin conf

	conf=$(cat)
	unset "${!PG@}"
	build_variant "$top" "$WORK" release >"$WORK/build.log" 2>&1 || {
		tail -n 40 "$WORK/build.log"
		die 'could not build qml'
	}
	bin=$(tree_bindir "$WORK" release)
	server_create "$name" "$bin" postgres <<<"$conf"
	server_start "$name" "$bin" 5432
	PGHOST=$(server_socket_dir)
	export PGHOST PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
	PATH=$bin:$PATH
	sql -c 'CREATE EXTENSION qml'
}

sql()
{
	psql -XAtq -v ON_ERROR_STOP=1 "$@"
}

wait_until()
{
	until [ "$(sql -c "$1")" = t ]; do
		sleep 0.2
	done
}

# Puts the peers and the programs that measure them into a directory of their own; false, and
# why, when there is no npm or no registry.
install_node_programs()
{
	[ ! -e "$WORK/node/installed" ] || return 0
	mkdir -p "$WORK/node"
	cp "$top"/test/bench/node/*.mjs "$WORK/node"
	(cd "$WORK/node" && echo '{"private": true}' >package.json &&
		npm install --silent --no-fund --no-audit "${npm_packages[@]}") \
		>"$WORK/npm.log" 2>&1 || {
		tail -n 3 "$WORK/npm.log"
		return 1
	}
	touch "$WORK/node/installed"
}

# node_program NAME ARGUMENT...: runs test/bench/node/NAME.mjs, and prints what it prints.
node_program()
{
	local name=$1
	shift

	(cd "$WORK/node" && timeout 300 node_modules/.bin/node "$name.mjs" "$@" 2>"$WORK/node.log") || {
		tail -n 20 "$WORK/node.log" >&2
		die "failed or took more than 300 s: $name.mjs $*"
	}
}

# The median of the numbers on stdin.
median()
{
	sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# The WAL position in bytes.
wal_position()
{
	sql -c "SELECT pg_current_wal_insert_lsn() - '0/0'"
}
