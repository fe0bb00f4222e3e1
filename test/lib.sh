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

# Whether servers for tests have room in memory, where files cost less than on a disk.
# Programs may not be allowed to run there.
memory_has_room()
{
	local probe ok=no

	[ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)" -gt $((4 << 20)) ] &&
		[ "$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)" -gt $((8 << 20)) ] &&
		probe=$(as_test_user mktemp /dev/shm/qml.XXXXXX) || return
	if as_test_user sh -c 'echo "#!/bin/sh" >"$1" && chmod 700 "$1" && "$1"' - "$probe"; then
		ok=yes
	fi 2>/dev/null
	as_test_user rm -f "$probe"
	[ "$ok" = yes ]
}

# Prints the name of a new directory that belongs to the unprivileged user; with
# "fast" as its argument it is in memory if there is room.
# Socket paths are limited to 107 bytes, hence /tmp when TMPDIR is long.
make_work_dir()
{
	local parent=${TMPDIR:-/tmp}

	if [ -z "${TMPDIR:-}" ] && [ "${1:-}" = fast ] && memory_has_room; then
		parent=/dev/shm
	elif [ ${#parent} -gt 40 ] || ! as_test_user test -w "$parent"; then
		parent=/tmp
	fi
	as_test_user mktemp -d "$parent/qml.XXXXXX"
}

# Writes what building and testing needs of a checkout to stdout, as a tar archive;
# more files can be named.  The times of the files are exact (tar's own format
# would cut them to seconds), so that make can compare them with its objects.
pack_checkout()
{
	local from=$1 item
	local -a items=()
	shift

	for item in Makefile README.md CONTRIBUTING.md SECURITY.md LICENSE qml.control META.json CHANGELOG.md \
		sql src expected test doc examples "$@"; do
		[ ! -e "$from/$item" ] || items+=("$item")
	done
	tar -C "$from" --format=posix --exclude='*.o' --exclude='*.d' --exclude='src/*.so' \
		--exclude='.state' --exclude='test/client/build' --exclude='__pycache__' -cf - "${items[@]}"
}

# Makes the directory $1 equal to the tar archive on stdin: what the archive does
# not hold goes, except what compilers made.
unpack_exactly()
{
	local to=$1

	mkdir -p "$to"
	tar -C "$to" -xvf - | LC_ALL=C sort >"$to.list"
	(cd "$to" && find . ! -type d ! -name '*.[od]' ! -name '*.so' ! -name '.*' -printf '%P\n') | LC_ALL=C sort |
		LC_ALL=C comm -13 "$to.list" - | while read -r file; do rm "$to/$file"; done
	rm "$to.list"
}

# The unprivileged user may not be able to read the checkout, and the checkout
# may change meanwhile, so everything works on a copy.
copy_checkout()
{
	local from=$1 to=$2

	as_test_user mkdir -p "$to"
	pack_checkout "$from" | as_test_user tar -C "$to" -xf -
}

# Prints the directory that keeps builds of the checkout $1 and what else is costly
# to make between runs; makes it where it is not there.  It belongs to the
# unprivileged user, and there is one for each path of a checkout and each server.
#
#   QML_CACHE=directory   where to make it (default $XDG_CACHE_HOME or /var/tmp)
cache_of()
{
	local user root tree server

	user=$(test_user)
	root=${QML_CACHE:-${XDG_CACHE_HOME:-/var/tmp}}
	if ! as_test_user test -w "$root"; then
		root=/var/tmp
	fi
	root=$root/qml-$user
	server=$("${PG_CONFIG:-pg_config}" --version --bindir | cksum | cut -d' ' -f1)
	tree=$root/$(basename "$1")-$(printf '%s' "$1" | cksum | cut -d' ' -f1)
	as_test_user mkdir -p -m 700 "$root"
	# Anybody can make a directory of this name in /var/tmp.
	if [ "$(stat -c %U "$root")" != "$user" ]; then
		die "\"$root\" belongs to somebody else"
	fi
	as_test_user mkdir -p "$tree/$server"
	as_test_user touch "$tree/lock" "$tree"
	echo "$tree/$server"
}

# Removes what the cache keeps of checkouts that were not tested for two weeks.
prune_cache()
{
	local old

	as_test_user find "$1" -mindepth 1 -maxdepth 1 -name '*-*' -mtime +14 | while read -r old; do
		as_test_user flock -n "$old/lock" rm -rf "$old" || true
	done
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
	end_guard
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
		{ kill "-${2:-TERM}" -- "-$1" && wait "$1"; } 2>/dev/null || true
	fi
}

# By a signal that cannot be caught: a shell that has only just been forked has the traps
# of its parent, and would do what the parent does at its end.
end_guard()
{
	end_group "$guard_pid" KILL
	guard_pid=
}

end_watched()
{
	end_group "$watched_pid"
	watched_pid=
	end_guard
}
