# shellcheck shell=bash
#
# Shell functions that the test driver, the demo and the benchmark share:
# messages, the unprivileged user, the private working directory, and running a
# long command so that a signal to the script ends it.  To be sourced; starts
# nothing by itself.

say()
{
	printf '== %s\n' "$*"
}

die()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# The server refuses to run as root, so root hands over to the user that the
# server's package made.
test_user()
{
	if [ "$(id -u)" -ne 0 ]; then
		id -un
	elif id postgres >/dev/null 2>&1; then
		echo postgres
	else
		die 'started by root, but there is no user "postgres" to run servers as'
	fi
}

# setpriv replaces itself by the command: signals need no relay, and no login
# session is opened.
as_test_user()
{
	if [ "$(id -u)" -ne 0 ]; then
		"$@"
	else
		setpriv --reuid="$(test_user)" --regid="$(id -gn "$(test_user)")" --init-groups \
			-- "$@"
	fi
}

# Prints the name of a new directory that belongs to the unprivileged user.
# Socket paths are limited to 107 bytes, hence /tmp when TMPDIR is long.
make_work_dir()
{
	local parent=${TMPDIR:-/tmp}

	if [ ${#parent} -gt 40 ] || ! as_test_user test -w "$parent"; then
		parent=/tmp
	fi
	as_test_user mktemp -d "$parent/qml.XXXXXX"
}

# Writes what building and testing needs of a checkout to stdout, as a tar archive.
pack_checkout()
{
	local from=$1 item
	local -a items=()

	for item in Makefile README.md qml.control META.json CHANGELOG.md sql src expected test; do
		[ ! -e "$from/$item" ] || items+=("$item")
	done
	tar -C "$from" --exclude='*.o' --exclude='*.d' --exclude='*.so' --exclude='.state' --exclude='test/client/build' -cf - "${items[@]}"
}

# The unprivileged user may not be able to read the checkout, and the checkout
# may change meanwhile, so everything works on a copy.
copy_checkout()
{
	local from=$1 to=$2

	as_test_user mkdir -p "$to"
	pack_checkout "$from" | as_test_user tar -C "$to" -xf -
}

# Ends the servers whose data directory lies below $1, and no others.
stop_servers_below()
{
	local bindir pidfile

	bindir=$("${PG_CONFIG:-pg_config}" --bindir)
	find "$1" -name postmaster.pid 2>/dev/null | while read -r pidfile; do
		as_test_user "$bindir/pg_ctl" -D "${pidfile%/*}" -m immediate -w stop \
			</dev/null >/dev/null 2>&1 || true
	done
}

# Runs a command in a process group of its own, in at most $1 seconds, and
# returns its status.  The shell waits in "wait", which a trapped signal
# interrupts; end_watched, called from the traps, then ends the group.
watched_pid=
guard_pid=
run_watched()
{
	local limit=$1 rc=0
	shift

	set -m
	"$@" </dev/null &
	watched_pid=$!
	guard "$limit" "$watched_pid" </dev/null >/dev/null &
	guard_pid=$!
	set +m
	wait "$watched_pid" || rc=$?
	watched_pid=
	end_group "$guard_pid"
	guard_pid=
	return "$rc"
}

guard()
{
	sleep "$1"
	echo "== no end after $1 seconds: ending it" >&2
	kill -TERM -- "-$2"
}

# Ends a process group, if there is one, and waits for its leader.
end_group()
{
	if [ -n "$1" ]; then
		{ kill -TERM -- "-$1" && wait "$1"; } 2>/dev/null || true
	fi
}

end_watched()
{
	end_group "$watched_pid"
	end_group "$guard_pid"
	watched_pid=
	guard_pid=
}
