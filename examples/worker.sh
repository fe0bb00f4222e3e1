#!/bin/bash
#
# A worker for qml, with psql:
#
#   worker.sh NAME QUEUE COMMAND [ARGUMENT ...]
#
# Runs COMMAND for each job of QUEUE, with two more arguments: the method and the
# payload.  What COMMAND prints becomes the result of the job or, if COMMAND fails, its
# error.  The connection comes from PGDATABASE, PGHOST and so on.
#
# SIGTERM ends the worker after its current job.

name=$1
queue=$2
shift 2
separator=$'\x1f' # neither a method nor JSON contains it
stop=
trap 'stop=1' TERM INT

# Runs the SQL in $1, with psql variables as in the other arguments, and sets "answer"
# to what it returns.  As long as there is no connection, tries again each second.
sql()
{
	local script=$1 status
	shift
	while true; do
		answer=$(psql -XqAt -F "$separator" -v ON_ERROR_STOP=1 "$@" <<<"$script")
		status=$?
		if [ "$status" -ne 2 ] || [ -n "$stop" ]; then
			return "$status"
		fi
		sleep 1
	done
}

while [ -z "$stop" ]; do
	sql "SELECT id, attempt, method, payload FROM qml_fetch(:'name', ARRAY[:'queue'])" \
		-v name="$name" -v queue="$queue" || exit
	if [ -z "$answer" ]; then
		# SIGTERM takes effect after the wait, so the wait is short.
		sql "CALL qml_wait(ARRAY[:'queue'], '5 seconds')" -v queue="$queue" || exit
		continue
	fi
	IFS=$separator read -r id attempt method payload <<<"$answer"

	# Extends the lease each minute, on a connection of its own, until the work is done.
	psql -Xq -v ON_ERROR_STOP=1 -v id="$id" -v attempt="$attempt" >/dev/null 2>&1 \
		<<<"SELECT qml_heartbeat(:'id', :attempt) \\watch 60" &
	heartbeat=$!

	# The end of the output is kept, without bytes that are not valid in a text.
	output=$(
		"$@" "$method" "$payload" 2>&1 </dev/null | tail -c 8000 | tr -d '\0' | iconv -c -f UTF-8 -t UTF-8
		exit "${PIPESTATUS[0]}"
	)
	status=$?
	kill "$heartbeat" 2>/dev/null
	wait "$heartbeat" 2>/dev/null

	# If the server refuses this with QM003, the job is not ours any more, and there is
	# nothing left to do; psql prints the error.
	if [ "$status" -eq 0 ]; then
		sql "SELECT qml_succeed(:'id', :attempt, to_jsonb(:'output'::text))" \
			-v id="$id" -v attempt="$attempt" -v output="$output"
	else
		sql "SELECT qml_fail(:'id', :attempt, :'output', 'status ' || :'status')" \
			-v id="$id" -v attempt="$attempt" -v output="$output" -v status="$status"
	fi
done
