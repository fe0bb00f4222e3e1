# qml/Makefile
#
# Built with PGXS: PG_CONFIG names the server to build for.  The targets in
# DRIVER_GOALS work in private copies and start on a machine without PGXS.

PG_CONFIG ?= pg_config
export PG_CONFIG

MODULE_big = qml
SOURCES = $(sort $(wildcard src/*.c src/*/*.c))
OBJS = $(SOURCES:.c=.o)

EXTENSION = qml
DATA = $(sort $(wildcard sql/qml--*.sql))

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

EXTRA_CLEAN = $(OBJS:.o=.d) tmp_check test/client/build

# Backends call C functions from a plan; inlining bitcode would gain nothing.
override with_llvm := no

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

DRIVER_GOALS = check check-quick check-versions demo demo-stop bench lint fuzz format
driver_goals := $(filter $(DRIVER_GOALS),$(MAKECMDGOALS))
pgxs_goals := $(filter-out $(DRIVER_GOALS),$(or $(MAKECMDGOALS),all))

ifeq ($(pgxs_goals),)

.PHONY: $(DRIVER_GOALS)

check:
	test/setup.sh
	test/run

check-quick:
	+test/run quick

check-versions:
	test/versions/run

demo:
	@test/setup.sh demo
	@test/demo/run

demo-stop:
	@test/demo/stop

bench:
	test/setup.sh
	test/bench/run

lint:
	test/lint/run

fuzz:
	test/cron/fuzz

format:
	clang-format -i $(wildcard src/*.[ch] src/*/*.[ch] test/client/*.c test/cron/*.[ch])

else ifneq ($(driver_goals),)

# Both kinds at once, such as "make clean check": one make each, in order.
.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)
$(MAKECMDGOALS):
	$(MAKE) $@

else ifeq ($(wildcard $(PGXS)),)

# Only the targets that need no server.
.PHONY: $(pgxs_goals)
$(pgxs_goals):
	@echo 'qml needs the server development files of PostgreSQL 15 or later, but' >&2
	@echo '"$(PG_CONFIG) --pgxs" names no file.  On Debian: apt-get install postgresql-server-dev-15' >&2
	@echo 'A server elsewhere: make PG_CONFIG=/path/to/bin/pg_config' >&2
	@exit 1

else

include $(PGXS)

# Which headers an object was made from: written by the compiler, beside it.
-include $(OBJS:.o=.d)

endif
