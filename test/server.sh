# shellcheck shell=bash
#
# Throw-away servers from a private installation.  They listen on a Unix socket
# in a directory that only their user can enter, so they need neither a free
# port nor a password.  To be sourced after lib.sh; $WORK must be set.
#
# Each server leaves $WORK/data-NAME and $WORK/logs/server-NAME.log.
#
#   TEMPLATE=directory   keeps an initialized data directory for superuser postgres,
#                        which servers begin with a copy of

server_socket_dir()
{
	echo "$WORK/s"
}

# init_data DATA BINDIR SUPERUSER.  A template that is not complete never gets its
# name.
init_data()
{
	local data=$1 bindir=$2 superuser=$3
	local new
	local -a initdb=("$bindir/initdb" -U "$superuser" -A trust -E UTF8 --locale=C.UTF-8 -N)

	if [ -z "${TEMPLATE:-}" ] || [ "$superuser" != postgres ]; then
		"${initdb[@]}" -D "$data"
		return
	fi
	if [ ! -d "$TEMPLATE" ]; then
		new=$(mktemp -d "$TEMPLATE.XXXXXX") || return
		"${initdb[@]}" -D "$new" || return
		# Another server may have been faster.
		mv -T "$new" "$TEMPLATE" 2>/dev/null || rm -rf "$new"
	fi
	cp -R "$TEMPLATE" "$data"
}

# server_create NAME BINDIR SUPERUSER; settings for all servers of the tests,
# more of them from stdin.
server_create()
{
	local name=$1 bindir=$2 superuser=$3
	local data=$WORK/data-$name

	mkdir -p "$WORK/logs" "$(server_socket_dir)"
	chmod 700 "$(server_socket_dir)"
	init_data "$data" "$bindir" "$superuser" >"$WORK/logs/initdb-$name.log" 2>&1 || {
		cat "$WORK/logs/initdb-$name.log" >&2
		return 1
	}
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$(server_socket_dir)'"
		echo "timezone = 'UTC'"
		echo "log_timezone = 'UTC'"
		echo "lc_messages = 'C'"
		cat
	} >>"$data/postgresql.conf"
}

# server_start NAME BINDIR PORT: the port only names the socket.
server_start()
{
	local name=$1 bindir=$2 port=$3

	"$bindir/pg_ctl" -D "$WORK/data-$name" -l "$WORK/logs/server-$name.log" -w -t 180 \
		-o "-p $port" start </dev/null >"$WORK/logs/pg_ctl-$name.log" 2>&1 || {
		cat "$WORK/logs/pg_ctl-$name.log" "$WORK/logs/server-$name.log" >&2
		return 1
	}
}

server_stop()
{
	local name=$1 bindir=$2

	"$bindir/pg_ctl" -D "$WORK/data-$name" -m fast -w -t 180 stop \
		</dev/null >>"$WORK/logs/pg_ctl-$name.log" 2>&1
}

# The server's log must hold no sign of a crash.  Prints what it finds.
server_log_clean()
{
	! grep -nE 'PANIC:|TRAP:|runtime error:|was terminated by signal' "$WORK/logs/server-$1.log"
}
