# qml/Makefile
#
# Built with PGXS: PG_CONFIG names the server to build for.  The targets in
# DRIVER_GOALS work in private copies and start on a machine without PGXS.  "make help"
# lists them.

PG_CONFIG ?= pg_config
export PG_CONFIG

MODULE_big = qml
SOURCES = $(sort $(wildcard src/*.c src/*/*.c))
OBJS = $(SOURCES:.c=.o)

EXTENSION = qml
# What a user calls in psql lies where its path is known.
DATA = $(sort $(wildcard sql/qml--*.sql)) examples/qml-top.sql

REGRESS ?= $(patsubst sql/%.sql,%,$(sort $(filter-out sql/qml--%,$(wildcard sql/*.sql))))
ISOLATION ?= $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=qml

# Nothing is exported but what the loader and SQL look up by name.
PG_CFLAGS = -fvisibility=hidden
PG_CPPFLAGS = -I$(srcdir)/src -MMD -MP
# For CI.  The server's headers are not ours to clean, and a function with a
# prescribed signature need not use every parameter.
ifdef WERROR
PG_CPPFLAGS += -isystem $(shell $(PG_CONFIG) --includedir-server)
PG_CFLAGS += -Wall -Wextra -Wno-unused-parameter -Werror
endif

EXTRA_CLEAN = $(OBJS:.o=.d) .build_flags tmp_check test/client/build tmp_bench

# Backends call C functions from a plan; inlining bitcode would gain nothing.
override with_llvm := no

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
server_header := $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)/postgres.h

DRIVER_GOALS = help check test check-quick check-long check-assert check-versions stress coverage valgrind demo demo-stop \
	bench lint fuzz format
driver_goals := $(filter $(DRIVER_GOALS),$(MAKECMDGOALS))
pgxs_goals := $(filter-out $(DRIVER_GOALS),$(or $(MAKECMDGOALS),all))

ifeq ($(pgxs_goals),)

.PHONY: $(DRIVER_GOALS)

help:
	@echo 'Building and installing'
	@echo '  all (default)    build qml.so for the server of PG_CONFIG'
	@echo '  install          install it there; uninstall removes it'
	@echo '  installcheck     run the pg_regress tests and isolation specs on a running server'
	@echo '  clean            remove what was built'
	@echo 'Trying it'
	@echo '  demo             build it and show it at work on a throw-away server, in a minute or two;'
	@echo '                   demo-stop ends that server'
	@echo '  bench            compare it with hand-written SQL and with peers, in three quarters of an hour; QUICK=1: in'
	@echo '                   three minutes; BENCH_ONLY="name ...": parts of it'
	@echo 'Testing'
	@echo '  check-quick      after each edit: the short suites on an incremental build, below 30 s;'
	@echo '                   TESTS="05_acks fetch_fetch 110_workers.pl": only these tests'
	@echo '  check, test      before each commit that lands: every suite, in a private copy, in about'
	@echo '                   20 minutes'
	@echo '  check-long       before a release: fuzzing, kills, valgrind, assertions, versions; hours (root)'
	@echo '  check-assert     the tests on a server with assertions, which is built the first time'
	@echo '  check-versions   check on the PostgreSQL versions of other Debian releases (root)'
	@echo '  stress           ten million jobs, random calls and crashes; an hour'
	@echo '  lint             format, warnings of two compilers, include rules, SQL scripts, symbols'
	@echo '  fuzz             fuzz the code of cron expressions and queries for a minute each'
	@echo '  coverage         lines of src that the tests run'
	@echo '  valgrind         the regression tests under valgrind'
	@echo '  format           format the C sources in place'
	@echo 'As root, what these need and is missing is installed by apt; otherwise it is listed.'
	@echo 'Variables: PG_CONFIG=/path/to/pg_config, COPT=compiler options, WERROR=1;'
	@echo 'of the tests: see the heads of test/run and of the scripts that it names.'

check test:
	test/setup.sh
	test/run

check-quick:
	@test/setup.sh
	+@test/run quick

check-long:
	test/setup.sh lint
	test/setup.sh valgrind
	test/setup.sh assert
	test/setup.sh versions
	test/long

coverage:
	test/setup.sh
	test/coverage

valgrind:
	test/setup.sh valgrind
	SUITES=valgrind test/run

check-assert:
	test/assert/run

check-versions:
	test/versions/run

stress:
	test/setup.sh
	QML_STRESS_JOBS=$${QML_STRESS_JOBS:-10000000} SUITE_TIMEOUT=86400 SUITES=tap TESTS=185_list_stress.pl test/run

demo:
	@test/setup.sh demo
	@test/demo/run

demo-stop:
	@test/demo/stop

bench:
	test/setup.sh bench
	test/bench/run

lint:
	@test/setup.sh lint
	test/lint/run

fuzz:
	@test/setup.sh lint
	test/cron/fuzz
	test/search/fuzz

format:
	clang-format -i $(wildcard src/*.[ch] src/*/*.[ch] test/client/*.c test/cron/*.[ch] test/search/*.[ch] test/histogram/*.c test/fingerprint/*.c test/alert/*.c test/bench/*.c examples/*.[ch])

else ifneq ($(driver_goals),)

# Both kinds at once, such as "make clean check": one make each, in order.
.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)
$(MAKECMDGOALS):
	$(MAKE) $@

else ifeq ($(and $(wildcard $(PGXS)),$(wildcard $(server_header))),)

# Only the targets that need no server.  A client's package can bring pg_config, and
# even pgxs.mk, without the headers.
major := $(or $(shell $(PG_CONFIG) --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p'),15)
.PHONY: $(pgxs_goals)
$(pgxs_goals):
	@echo 'qml needs the server development files of PostgreSQL 15 or later, but' >&2
ifeq ($(wildcard $(PGXS)),)
	@echo '"$(PG_CONFIG) --pgxs" names no file.  On Debian: apt-get install postgresql-server-dev-$(major)' >&2
else
	@echo 'there is no $(server_header).  On Debian: apt-get install postgresql-server-dev-$(major)' >&2
endif
	@echo 'A server elsewhere: make PG_CONFIG=/path/to/bin/pg_config' >&2
	@exit 1

else

include $(PGXS)

# Which headers an object was made from: written by the compiler, beside it.
-include $(OBJS:.o=.d)

# Objects that another compiler made, or for another server, or with other options than
# warnings, are made anew.
build_flags := $(strip $(CC) $(VERSION) $(includedir_server) $(filter-out -W%,$(CFLAGS)))
ifneq ($(build_flags),$(shell cat .build_flags 2>/dev/null))
.build_flags: force
endif
.build_flags:
	@echo '$(subst ','\'',$(build_flags))' >$@
$(OBJS): .build_flags
.PHONY: force

endif
