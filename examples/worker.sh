#!/bin/bash
#
# A worker for qml, with psql:
#
#   worker.sh NAME QUEUE METHODS COMMAND [ARGUMENT ...]
#
# METHODS are those that COMMAND knows, such as "send_receipt,check_log".  Runs COMMAND for
# each of these jobs of QUEUE, with two more arguments: the method and the payload.  The
# variables QML_JOB and QML_ATTEMPT are the id of the job and the attempt.  What COMMAND prints
# becomes the result of the job or, if COMMAND fails, its error.  The connection comes from
# PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.
#
# A COMMAND that writes to the database calls qml_succeed itself, in the same transaction.
#
# SIGTERM ends the worker after its current job.  A producer is one line:
#
#   psql -XqAtc "SELECT qml_enqueue('send_receipt', '{\"order\": 1}', queue => 'mail')"

name=$1
queue=$2
methods=$3
shift 3
lease=${QML_LEASE:-60}
separator=$'\x1f' # neither a method nor JSON contains it
stop=
trap 'stop=1' TERM INT

# Runs the SQL in $1, with psql variables as in the other arguments, and sets "answer"
# to what it returns.  As long as there is no connection, tries again, with pauses that
# grow.  Each call is a session of its own.
sql()
{
	local script=$1 status pause=1
	shift
	while true; do
		answer=$(psql -XqAt -F "$separator" -v ON_ERROR_STOP=1 -v VERBOSITY=verbose "$@" <<<"$script")
		status=$?
		if [ "$status" -ne 2 ] || [ -n "$stop" ]; then
			return "$status"
		fi
		sleep "$pause"
		pause=$((pause < 8 ? 2 * pause : 10))
	done
}

# Extends the lease each third of it, until the worker is gone or ends this.
beat()
{
	while sleep "$((lease < 3 ? 1 : lease / 3))" && kill -0 $$; do
		psql -Xq -v id="$1" -v attempt="$2" -v lease="$lease" \
			<<<"SELECT qml_heartbeat(:'id', :attempt, make_interval(secs => :lease))"
	done
}

while [ -z "$stop" ]; do
	sql "SELECT id, attempt, method, payload
		FROM qml_fetch(:'name', ARRAY[:'queue'], 1, make_interval(secs => :lease), string_to_array(:'methods', ','))" \
		-v name="$name" -v queue="$queue" -v lease="$lease" -v methods="$methods" || exit
	if [ -z "$answer" ]; then
		# SIGTERM takes effect after the wait, so the wait is short.
		sql "CALL qml_wait(ARRAY[:'queue'], '5 seconds', string_to_array(:'methods', ','))" \
			-v queue="$queue" -v methods="$methods" || exit
		continue
	fi
	IFS=$separator read -r id attempt method payload <<<"$answer"

	beat "$id" "$attempt" </dev/null >/dev/null 2>&1 &
	heartbeat=$!

	# The end of the output is kept, without bytes that are not valid in a text.  By way of
	# UTF-16, because UTF-8 of iconv goes beyond U+10FFFF.
	output=$(
		QML_JOB=$id QML_ATTEMPT=$attempt "$@" "$method" "$payload" 2>&1 </dev/null |
			tail -c 8000 | tr -d '\0' |
			iconv -c -f UTF-8 -t UTF-16LE | iconv -f UTF-16LE -t UTF-8
		exit "${PIPESTATUS[0]}"
	)
	status=$?
	kill "$heartbeat" 2>/dev/null
	wait "$heartbeat" 2>/dev/null

	# These pass over a job that COMMAND ended itself, or that is not ours any more.
	if [ "$status" -eq 0 ]; then
		sql "SELECT qml_succeed_many(ARRAY[:'id'::uuid], ARRAY[:attempt], ARRAY[to_jsonb(:'output'::text)])" \
			-v id="$id" -v attempt="$attempt" -v output="$output"
	else
		sql "SELECT qml_fail_many(ARRAY[:'id'::uuid], ARRAY[:attempt], ARRAY[:'output'], ARRAY['status ' || :'status'])" \
			-v id="$id" -v attempt="$attempt" -v output="$output" -v status="$status"
	fi
done
