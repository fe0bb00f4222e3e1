#!/bin/bash
#
# Brings in what building and testing qml needs.  Root gets the missing Debian
# packages installed; anybody else is told which are missing.  The argument can be
#
#   demo       only what building qml and running a server needs
#   lint       also what only the lint needs
#   examples   also the large toolchains of some examples, which the tests skip otherwise
#   valgrind   also what "make valgrind" needs
#   versions   only what test/versions/run needs
#   assert     also what building PostgreSQL needs
#   bench      also what the benchmark needs: valgrind, Redis, PgQ
#   absent     print the names of the packages that apt does not know, install nothing
#
# What apt says is shown only if it fails.  Where npm is installed, it brings in what the examples
# for Node need, because Debian's packages fit no Node but Debian's.
#
#   QML_PG_MAJOR=version              of PostgreSQL (default 15, that of Debian 12)
#   QML_WITHOUT_PACKAGES="name ..."   packages to do without
#
# Leaves packages behind and, where PostgreSQL was not installed before, a
# setting that keeps its package from making a cluster.  No server is created,
# started or changed: packages that would start one, such as Redis, may not.

set -euo pipefail

server=postgresql-${QML_PG_MAJOR:-15}
packages=(gcc libc6-dev make "$server" "postgresql-server-dev-${QML_PG_MAJOR:-15}")
test_packages=(libpq-dev "$server-cron" "$server-pgtap" libipc-run-perl tini pgbouncer libfaketime
	python3-psycopg python3-asyncpg ruby ruby-pg php-cli php-pgsql libdbd-pg-perl nodejs
	prometheus curl libpostgresql-jdbc-java ruby-activejob ruby-activerecord php-illuminate-queue php-illuminate-events
	python3-pytest ruby-rspec)
# About 200 MB of archives, and 900 MB on the disk.
examples_packages=(golang-go golang-github-jackc-pgx-v4-dev
	cargo librust-tokio-postgres-dev librust-tokio-dev librust-serde-json-dev)
node_driver=pg@8.11.3
node_tests=jest@29.7.0
lint_packages=(shellcheck clang-format binutils python3-pglast clang libclang-rt-14-dev)
versions_packages=(debootstrap)
valgrind_packages=(valgrind libc6-dbg)
bench_packages=(valgrind libc6-dbg redis-server "$server-pgq3")
assert_packages=(dpkg-dev bzip2 xz-utils patch bison flex pkg-config zlib1g-dev libicu-dev libxml2-dev)

is_installed()
{
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# A package of that name for which apt knows a version to install.
is_known()
{
	[ -n "$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([^(].*\)/\1/p')" ]
}

# A file of its own, which createcluster.conf includes: clusters that are made later get
# the package's other settings.  An administrator's createcluster.conf that does not
# include it is appended to, and never replaced.
prevent_cluster()
{
	local conf=/etc/postgresql-common/createcluster.conf
	local own=/etc/postgresql-common/createcluster.d/qml.conf

	if is_installed "$server" || grep -qs '^ *create_main_cluster' "$conf" "${own%/*}"/*.conf; then
		return
	fi
	if [ -e "$conf" ] && ! grep -q '^ *include_dir' "$conf"; then
		own=$conf
	fi
	mkdir -p "${own%/*}"
	echo 'create_main_cluster = false' >>"$own"
}

# Packages ask this file whether they may start what they bring; where somebody has one already,
# it decides.
prevent_start()
{
	local policy=/usr/sbin/policy-rc.d

	[ ! -e "$policy" ] || return 0
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	# shellcheck disable=SC2064 # the name is known now
	trap "rm -f '$policy'" EXIT
}

# Runs a command, and shows what it said if it fails.
run_quietly()
{
	local log rc=0

	log=$(mktemp "${TMPDIR:-/tmp}/qml-setup.XXXXXX")
	"$@" >"$log" 2>&1 || rc=$?
	[ "$rc" -eq 0 ] || cat "$log" >&2
	rm -f "$log"
	return "$rc"
}

# Installs a package for Node, unless the command says that it is there.  Without it the tests skip
# what needs it.
install_for_node()
{
	local package=$1
	shift

	if "$@" >/dev/null 2>&1; then
		return
	elif [ "$(id -u)" -eq 0 ]; then
		echo "== setup: npm install $package"
		run_quietly npm install -g "$package" || echo "== setup: no $package: examples for Node are skipped"
	else
		echo "== setup: no $package; run as root: npm install -g $package"
	fi
}

install_node_packages()
{
	local -x NODE_PATH

	NODE_PATH=$(npm root -g)
	install_for_node "$node_driver" node -e 'require("pg")'
	install_for_node "$node_tests" jest --version
}

install_missing()
{
	local package

	export DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1
	echo "== setup: apt-get install $* (takes a minute or two)"
	for package in "$@"; do
		if ! is_known "$package"; then
			run_quietly apt-get update -q
			break
		fi
	done
	prevent_cluster
	prevent_start
	# Configuration that was changed stays as it is, without a question.
	run_quietly apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
}

# Prints the packages that cannot be had; what apt says goes to stderr.
print_absent()
{
	local package
	local updated=false

	for package in "${packages[@]}"; do
		is_installed "$package" && continue
		"$updated" || apt-get update -q >&2
		updated=true
		is_known "$package" || echo "$package"
	done
}

main()
{
	local package
	local -a missing=()

	command -v npm >/dev/null || { test_packages+=(node-pg) examples_packages+=(jest); }
	command -v javac >/dev/null || test_packages+=(default-jdk-headless)
	case ${1:-} in
		demo) ;;
		lint) packages+=("${test_packages[@]}" "${lint_packages[@]}") ;;
		examples) packages+=("${test_packages[@]}" "${examples_packages[@]}") ;;
		versions) packages=("${versions_packages[@]}") ;;
		bench) packages+=("${test_packages[@]}" "${bench_packages[@]}") ;;
		assert) packages+=("${test_packages[@]}" "${assert_packages[@]}") ;;
		valgrind) packages+=("${test_packages[@]}" "${valgrind_packages[@]}") ;;
		absent)
			packages+=("${test_packages[@]}")
			print_absent
			return
			;;
		'') packages+=("${test_packages[@]}") ;;
		*)
			echo "setup.sh: unknown argument \"$1\"" >&2
			return 2
			;;
	esac
	if ! command -v dpkg-query >/dev/null; then
		echo "== setup: not a Debian system, so these are assumed to be there: ${packages[*]}"
		return
	fi
	for package in "${packages[@]}"; do
		if [[ " ${QML_WITHOUT_PACKAGES:-} " != *" $package "* ]] && ! is_installed "$package"; then
			missing+=("$package")
		fi
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
	if [[ " ${packages[*]} " == *' nodejs '* ]] && command -v npm >/dev/null; then
		install_node_packages
	fi
}

main "$@"
