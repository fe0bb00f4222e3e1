#!/bin/bash
#
# Brings in what building and testing qml needs.  Root gets the missing Debian
# packages installed; anybody else is told which are missing.  With "lint" as
# its argument also what only the lint needs.
#
# Leaves packages behind and, where PostgreSQL was not installed before, a
# setting that keeps its package from making a cluster.  No server is created,
# started or changed.

set -euo pipefail

packages=(gcc make libpq-dev postgresql-15 postgresql-server-dev-15 postgresql-15-cron
	postgresql-15-pgtap libipc-run-perl tini pgbouncer)
lint_packages=(clang-format binutils python3-pglast clang libclang-rt-14-dev)

is_installed()
{
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# A package of that name for which apt knows a version to install.
is_known()
{
	[ -n "$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([^(].*\)/\1/p')" ]
}

# Appends to the administrator's file if there is one, and never replaces it.
prevent_cluster()
{
	local conf=/etc/postgresql-common/createcluster.conf

	if ! is_installed postgresql-15 && ! grep -qs '^ *create_main_cluster' "$conf"; then
		mkdir -p "${conf%/*}"
		echo 'create_main_cluster = false' >>"$conf"
	fi
}

install_missing()
{
	local package

	export DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1
	for package in "$@"; do
		if ! is_known "$package"; then
			echo '== setup: apt-get update'
			apt-get update -q
			break
		fi
	done
	prevent_cluster
	echo "== setup: apt-get install $*"
	# A changed createcluster.conf is ours: keep it without asking.
	apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
}

main()
{
	local package
	local -a missing=()

	if [ "${1:-}" = lint ]; then
		packages+=("${lint_packages[@]}")
	fi
	if ! command -v dpkg-query >/dev/null; then
		echo "== setup: not a Debian system, so these are assumed to be there: ${packages[*]}"
		return
	fi
	for package in "${packages[@]}"; do
		is_installed "$package" || missing+=("$package")
	done
	if [ ${#missing[@]} -eq 0 ]; then
		echo '== setup: nothing is missing'
	elif [ "$(id -u)" -eq 0 ]; then
		install_missing "${missing[@]}"
	else
		echo "setup.sh: missing packages: ${missing[*]}" >&2
		echo "setup.sh: run as root: apt-get install ${missing[*]}" >&2
		return 1
	fi
}

main "$@"
