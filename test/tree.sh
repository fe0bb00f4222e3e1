# shellcheck shell=bash
#
# Builds variants of qml and puts each into a private copy of the PostgreSQL
# installation.  A server finds its files relative to its own executable, so a
# copy of the executables among links to everything else is a complete
# installation, and nothing is ever written into the real one.
#
# For variant V below the directory W this leaves W/build-V (a copy of the
# sources, with objects) and W/inst-V<prefix> (the installation: bin/, lib/ and
# the real layout).  What is there already is brought up to date.  To be sourced
# after lib.sh.

pg_dir()
{
	"${PG_CONFIG:-pg_config}" "--$1"
}

# The deepest directory above the executables, the shared files and the
# libraries: what the server's relative paths start from.
installation_prefix()
{
	local prefix dir

	prefix=$(pg_dir bindir)
	for dir in "$(pg_dir sharedir)" "$(pg_dir pkglibdir)"; do
		while [[ $dir/ != "$prefix"/* ]]; do
			prefix=${prefix%/*}
		done
	done
	echo "$prefix"
}

tree_of()
{
	echo "$1/inst-$2$(installation_prefix)"
}

# The directory of the executables: the tree's bin/, whatever the layout.
tree_bindir()
{
	echo "$(tree_of "$1" "$2")/bin"
}

# Links each entry of directory $1 into directory $2, but none of qml's.
link_entries()
{
	local entry

	mkdir -p "$2"
	for entry in "$1"/*; do
		case ${entry##*/} in
			qml.* | qml--* | qml-top.sql) ;;
			*) ln -s "$entry" "$2/" ;;
		esac
	done
}

# A copy that was made from other files than those that are there now is made anew.
copy_installation()
{
	local dest=$1 tree=$2
	local bindir sharedir pkglibdir state

	bindir=$(pg_dir bindir)
	sharedir=$(pg_dir sharedir)
	pkglibdir=$(pg_dir pkglibdir)
	state=$(ls -lL --time-style=full-iso "$bindir" "$pkglibdir" "$sharedir" "$sharedir/extension" | cksum)
	if [ "$(cat "$dest/state" 2>/dev/null)" = "$state" ]; then
		return
	fi

	rm -rf "$dest"
	mkdir -p "$dest$bindir"
	cp -R "$bindir/." "$dest$bindir/"
	link_entries "$pkglibdir" "$dest$pkglibdir"
	link_entries "$sharedir" "$dest$sharedir"
	rm "$dest$sharedir/extension"
	link_entries "$sharedir/extension" "$dest$sharedir/extension"

	# PostgreSQL::Test::Cluster expects bin and lib below its install_path.
	[ -e "$tree/bin" ] || ln -s "$dest$bindir" "$tree/bin"
	[ -e "$tree/lib" ] || ln -s "$dest$pkglibdir" "$tree/lib"
	echo "$state" >"$dest/state"
}

# Sets the array make_args for a variant.  $COPT goes to all of them.
variant_make_args()
{
	local copt=${COPT:-}

	make_args=()
	case $1 in
		release) ;;
		faults) copt="-DQML_FAULTS $copt" ;;
		# The library that plays the next version, for upgrades.
		next) copt="-DQML_NEXT $copt" ;;
		# Debian's flags hold -fwrapv, with which an overflow is defined, and not reported.
		ubsan)
			make_args=(CC=gcc)
			copt="-fno-wrapv -fsanitize=undefined -fno-sanitize-recover=all -static-libubsan $copt"
			;;
		# Errors are told of with the line, and functions are not hidden in their callers.
		valgrind) copt="-O1 -fno-inline $copt" ;;
		*) die "unknown build variant \"$1\"" ;;
	esac
	make_args+=("COPT=$copt")
}

# build_variant SOURCES DIRECTORY VARIANT: also run as "the unprivileged user".
build_variant()
{
	local from=$1 work=$2 variant=$3
	local build=$work/build-$variant dest=$work/inst-$variant
	local -a make_args

	variant_make_args "$variant"
	tar -C "$from" --format=posix --exclude='*.[od]' -cf - Makefile qml.control sql src examples/qml-top.sql |
		unpack_exactly "$build" || return
	copy_installation "$dest" "$(tree_of "$work" "$variant")" || return
	env -u MAKEFLAGS -u MAKELEVEL -u REGRESS make -C "$build" -s -j2 "${make_args[@]}" all || return
	env -u MAKEFLAGS -u MAKELEVEL -u REGRESS make -C "$build" -s "${make_args[@]}" install "DESTDIR=$dest"
}

# As build_variant for the variant "release" that was built in place: SOURCES hold
# the library.
install_release()
{
	local from=$1 work=$2
	local dest=$work/inst-release

	copy_installation "$dest" "$(tree_of "$work" release)" || return
	rm -f "$dest$(pg_dir pkglibdir)"/qml.so "$dest$(pg_dir sharedir)"/extension/qml{.control,--*,-top.sql} || return
	cp "$from/qml.so" "$dest$(pg_dir pkglibdir)/" || return
	cp "$from/qml.control" "$from"/sql/qml--*.sql "$from/examples/qml-top.sql" "$dest$(pg_dir sharedir)/extension/"
}

# Puts valgrind before the server of the variant "valgrind" of DIRECTORY.  What it finds
# goes to a file for each process in $VALGRIND_LOGS.
wrap_in_valgrind()
{
	local work=$1 from=$2 bindir

	bindir=$(tree_bindir "$work" valgrind)
	[ -e "$bindir/postgres.real" ] || mv "$bindir/postgres" "$bindir/postgres.real"
	cat >"$bindir/postgres" <<-SH
		#!/bin/sh
		exec valgrind --quiet --tool=memcheck --leak-check=no --num-callers=30 \\
			--suppressions='$from/test/valgrind.supp' \\
			--log-file="\${VALGRIND_LOGS:?}/%p.log" '$bindir/postgres.real' "\$@"
	SH
	chmod 755 "$bindir/postgres"
}
