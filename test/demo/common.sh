# shellcheck shell=bash
#
# What show and check share: printing, and asking the server.  To be sourced.

# Longer than any step takes on any machine.
limit=120

# shellcheck disable=SC2034 # used where this is sourced
unfinished="state NOT IN ('succeeded', 'failed', 'deleted')"

heading()
{
	if [ -t 1 ]; then
		printf '\e[1m== %s\e[0m\n' "$*"
	else
		printf '== %s\n' "$*"
	fi
}

# 1234567.89 is printed as 1,234,567.89.
grouped()
{
	sed -E ':again; s/^([0-9]+)([0-9]{3})/\1,\2/; t again' <<<"$1"
}

query()
{
	psql -XqAt -v ON_ERROR_STOP=1 -c "$1"
}

# Waits until a query has a result, and prints it.
wait_for()
{
	local what=$1 sql=$2 result
	local end=$((SECONDS + limit))

	while result=$(query "$sql") && [ -z "$result" ]; do
		[ "$SECONDS" -lt "$end" ] || die "waited $limit seconds for $what"
		sleep 0.05
	done
	[ -n "$result" ] || die "the server does not answer while waiting for $what"
	echo "$result"
}
