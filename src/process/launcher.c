/*
 * launcher.c
 *		The process that keeps a scheduler in each database that has the extension.
 *
 * One per server, connected to no database, so that it is in nobody's way.  It
 * does not run on a standby, and starts when one is promoted.
 *
 * A database that may be connected to is looked at once: a process connects,
 * finds out who owns the extension's tables, and exits; the launcher then starts
 * the scheduler with that role as its session user.  A database without the
 * extension is left alone until CREATE EXTENSION calls at its commit
 * (ipc/wakeup.c).  New databases are noticed by reading pg_database again when it
 * changed.
 *
 *	 what is known of a database		what starts next
 *	 nothing, or somebody called		a look
 *	 the owner							the scheduler
 *	 no extension, a copy				nothing, until somebody calls
 *
 * A process that ends says why in its slot (ipc/slots.c).  Those that fail are started
 * again ever later, up to a minute; there is no process that is not started again.
 * The launcher's own memory may be lost: it takes over the slots it finds.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "common/clock.h"
#include "common/guc.h"
#include "common/log.h"
#include "common/subxact.h"
#include "compat.h"
#include "ipc/slots.h"
#include "ipc/wakeup.h"
#include "process/launcher.h"
#include "process/process.h"
#include "process/worker_pool.h"

extern PGDLLEXPORT void qml_launcher_main(Datum arg);

/* All times in milliseconds. */
#define RESTART_SECONDS		 1
#define LOOK_INTERVAL		 10000 /* at pg_database, if it changed */
#define RETRY_SLOT			 2000  /* when there is no free slot */
#define RETRY_WORKER		 200   /* when another one has to leave first */
#define RETRY_TERMINATED	 1000
#define MAX_TERMINATED		 4000
#define RETRY_MADE_WAY		 2000
#define MAX_MADE_WAY		 10000
#define RETRY_EARLY			 5000
#define RETRY_FAILED		 60000
#define MAX_BACKOFF			 60000
#define PROVEN				 60000 /* that a worker can be at work */
#define START_TIMEOUT		 30000 /* for a slot whose launcher is gone */
#define SLOW_START			 5000  /* waits for its database's lock, and does not count */
#define STUCK_START			 10000 /* gives up its place among the server's processes */
#define MAX_STARTING		 2	   /* processes that start at the same time */
#define LONG_ENOUGH_TO_TRUST 60000

/* What is to be started for a database. */
typedef enum Next
{
	NEXT_NOTHING = 0, /* until somebody calls */
	NEXT_LOOK,
	NEXT_SCHEDULER
} Next;

typedef struct Database
{
	Oid oid;
	char name[NAMEDATALEN];
	bool listed; /* seen in pg_database in this round */
	Oid role;	 /* owner of the extension's tables */
	Next next;
	int64 not_before; /* monotonic, milliseconds */
	int failures;	  /* in a row */
	bool running;	  /* has a slot */
	bool called;	  /* since its process started */
	int64 started;	  /* monotonic */
} Database;

/* A slot that this launcher has filled. */
typedef struct Started
{
	BackgroundWorkerHandle *handle;
	int64 since; /* monotonic */
	bool stuck;	 /* was ended because it could not connect */
} Started;

static MemoryContext round_context; /* reset after each round */
static List *databases = NIL;		/* in order of their last start: the oldest first */
static Started *started;			/* by slot */
static bool databases_changed = true;

static void
database_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	databases_changed = true;
}

static Database *
find_database(Oid oid)
{
	ListCell *lc;

	foreach(lc, databases)
	{
		Database *database = lfirst(lc);

		if (database->oid == oid)
			return database;
	}
	return NULL;
}

static Database *
add_database(Oid oid)
{
	Database *database = MemoryContextAllocZero(TopMemoryContext, sizeof(Database));
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

	database->oid = oid;
	database->next = NEXT_LOOK;
	databases = lappend(databases, database);
	MemoryContextSwitchTo(oldcontext);
	return database;
}

static void
forget_unlisted(void)
{
	ListCell *lc;

	foreach(lc, databases)
	{
		Database *database = lfirst(lc);

		/* A process that still runs there ends by itself. */
		if (database->listed || database->running)
			continue;
		databases = foreach_delete_current(databases, lc);
		pfree(database);
	}
}

static void
note_database(Form_pg_database entry)
{
	Database *database;

	/* Templates are to be copied, not to be worked in; the drop of some was cut off. */
	if (!entry->datallowconn || entry->datistemplate || qml_database_is_invalid(entry))
		return;
	database = find_database(entry->oid);
	if (database == NULL)
		database = add_database(entry->oid);
	strlcpy(database->name, NameStr(entry->datname), NAMEDATALEN);
	database->listed = true;
}

/* Reads pg_database. */
static void
list_databases(void)
{
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;
	ListCell *lc;

	foreach(lc, databases)
		((Database *) lfirst(lc))->listed = false;

	databases_changed = false;
	qml_process_begin("reading pg_database");
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
		note_database((Form_pg_database) GETSTRUCT(tuple));
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	qml_process_commit();
	forget_unlisted();
}

static int64
backoff(const Database *database, int64 first)
{
	int shift = Max(Min(database->failures - 1, 10), 0);

	return Min(first << shift, MAX_BACKOFF);
}

/* What follows from the end of a process. */
static void
decide(Database *database, QmlOutcome outcome, Oid role, int64 now)
{
	bool failed = outcome == QML_ENDED_EARLY || outcome == QML_ENDED_FAILED ||
				  (outcome == QML_ENDED_TERMINATED &&
				   now - database->started < LONG_ENOUGH_TO_TRUST) ||
				  (outcome == QML_ENDED_MADE_WAY && now - database->started < MAX_MADE_WAY);

	database->running = false;
	/* What was found is not yet at work. */
	if (outcome != QML_ENDED_FOUND)
		database->failures = failed ? database->failures + 1 : 0;
	switch (outcome)
	{
		case QML_ENDED_NO_EXTENSION:
		case QML_ENDED_COPY:
			database->role = InvalidOid;
			database->next = NEXT_NOTHING;
			break;
		case QML_ENDED_IDLE: /* not a scheduler's */
		case QML_ENDED_DISABLED:
			database->not_before = now;
			break;
		case QML_ENDED_FOUND:
			database->role = role;
			database->next = NEXT_SCHEDULER;
			database->not_before = now;
			break;
		case QML_ENDED_MADE_WAY:
			/* Whoever wanted it may have dropped it: pg_database tells. */
			databases_changed = true;
			database->not_before = now + Min(backoff(database, RETRY_MADE_WAY), MAX_MADE_WAY);
			break;
		case QML_ENDED_TERMINATED:
			database->not_before = now + Min(backoff(database, RETRY_TERMINATED), MAX_TERMINATED);
			break;
		case QML_ENDED_EARLY:
			databases_changed = true;
			database->next = NEXT_LOOK;
			database->not_before = now + backoff(database, RETRY_EARLY);
			break;
		case QML_ENDED_FAILED:
			database->next = NEXT_LOOK;
			database->not_before = now + RETRY_FAILED;
			break;
	}
	/* What the process saw may have changed since. */
	if (database->called && database->next == NEXT_NOTHING)
		database->next = NEXT_LOOK;
	if (database->called && !failed)
		database->not_before = now;
}

/* Whether a slot is lost: its process never came, and nobody else can tell. */
static bool
is_lost(int number, int64 now)
{
	pid_t pid;

	if (started[number].handle)
		return GetBackgroundWorkerPid(started[number].handle, &pid) == BGWH_STOPPED;
	if (started[number].since == 0)
		started[number].since = now;
	return now - started[number].since > START_TIMEOUT;
}

/*
 * Ends a process that waits for its database: it would have a place that another
 * one needs, for as long as somebody copies or drops the database.
 */
static void
end_stuck(QmlSlot *slot, uint32 generation, Started *process, int64 now)
{
	if (process->since == 0)
		process->since = now;
	if (now - process->since <= STUCK_START || process->stuck)
		return;
	process->stuck = qml_slots_terminate(slot, generation);
}

/* Looks at a slot, and takes it back if its process ended. */
static void
see_slot(int number, int64 now, QmlSlotView *seen)
{
	QmlSlot *slot = &qml_shmem->slots[number];
	/* Read without the lock: only the launcher makes a slot starting. */
	bool lost = slot->state == QML_SLOT_STARTING && is_lost(number, now);

	qml_slots_inspect(slot, lost, seen);
	if (seen->state == QML_SLOT_RUNNING && !seen->connected)
		end_stuck(slot, seen->generation, &started[number], now);
	if (seen->state != QML_SLOT_ENDED)
		return;
	/* Whoever had the database to himself may have dropped it. */
	if (started[number].stuck && seen->outcome == QML_ENDED_EARLY)
		seen->outcome = QML_ENDED_MADE_WAY;
	if (started[number].handle)
		pfree(started[number].handle);
	memset(&started[number], 0, sizeof(Started));
}

/* Whether the process of a slot has been at work for a while. */
static bool
is_proven(const QmlSlotView *seen)
{
	return seen->state == QML_SLOT_RUNNING && seen->connected &&
		   TimestampDifferenceExceeds(seen->started_at, GetCurrentTimestamp(), PROVEN);
}

/* Takes slots back whose processes ended, and sees which databases have one. */
static void
look_at_slots(int64 now)
{
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		Database *database;
		QmlSlotView seen;

		see_slot(i, now, &seen);
		if (seen.state == QML_SLOT_ENDED && seen.kind == QML_WORKER)
			qml_worker_pool_note_ended(seen.database, seen.role, seen.outcome, now);
		if (seen.kind == QML_WORKER && is_proven(&seen))
			qml_worker_pool_note_working(seen.database, seen.role, seen.started_at);
		if (seen.state == QML_SLOT_FREE || seen.kind == QML_WORKER)
			continue;
		database = find_database(seen.database);
		if (database == NULL)
			database = add_database(seen.database);
		database->running = true;
		if (OidIsValid(seen.role))
		{
			database->role = seen.role;
			database->next = NEXT_SCHEDULER;
		}
		if (seen.state == QML_SLOT_ENDED)
			decide(database, seen.outcome, seen.role, now);
	}
}

static void
look_soon(Database *database)
{
	database->called = true;
	if (database->running)
		return;
	if (database->next == NEXT_NOTHING)
		database->next = NEXT_LOOK;
	database->failures = 0;
	database->not_before = 0;
}

/* Somebody created the extension, or adopted a copy. */
static void
answer_calls(void)
{
	Oid calls[QML_MAX_CALLS];
	bool all;
	int ncalls = qml_wakeup_take_calls(calls, &all);
	ListCell *lc;

	for (int i = 0; i < ncalls; i++)
	{
		Database *database = find_database(calls[i]);

		if (database)
			look_soon(database);
		else
			databases_changed = true;
	}
	if (!all)
		return;
	foreach(lc, databases)
		look_soon(lfirst(lc));
}

/* What the kinds of processes are called, and where they begin. */
static const struct
{
	const char *type;
	const char *title; /* in their names, before that of the database */
	const char *function;
} kinds[] = {
	[QML_LOOK] = {"qml look", "qml scheduler", "qml_scheduler_main"},
	[QML_SCHEDULER] = {"qml scheduler", "qml scheduler", "qml_scheduler_main"},
	[QML_WORKER] = {"qml worker", "qml worker", "qml_worker_main"},
};

static void
describe(const QmlSlot *slot, const char *database, BackgroundWorker *worker)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART; /* the launcher sees to it */
	strlcpy(worker->bgw_library_name, "qml", BGW_MAXLEN);
	strlcpy(worker->bgw_function_name, kinds[slot->kind].function, BGW_MAXLEN);
	snprintf(worker->bgw_name, BGW_MAXLEN, "%s: %s", kinds[slot->kind].title, database);
	strlcpy(worker->bgw_type, kinds[slot->kind].type, BGW_MAXLEN);
	worker->bgw_main_arg = Int32GetDatum((int) (slot - qml_shmem->slots));
	memcpy(worker->bgw_extra, &slot->generation, sizeof(slot->generation));
	worker->bgw_notify_pid = MyProcPid;
}

/* Starts a process; false when the server has no place for it. */
static bool
start_process(QmlKind kind, const Database *database, Oid role, int64 now)
{
	QmlSlot *slot = qml_slots_reserve(kind, database->oid, role);
	BackgroundWorker worker;
	MemoryContext oldcontext;
	bool registered;
	int number;

	if (slot == NULL)
		return false;
	number = (int) (slot - qml_shmem->slots);
	describe(slot, database->name, &worker);
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &started[number].handle);
	MemoryContextSwitchTo(oldcontext);
	if (!registered)
	{
		started[number].handle = NULL;
		qml_slots_release(slot);
		return false;
	}
	started[number].since = now;
	return true;
}

/* Starts what is next for a database; false when the server has no place for it. */
static bool
start(Database *database, int64 now)
{
	MemoryContext oldcontext;
	bool look = database->next != NEXT_SCHEDULER;

	if (!start_process(look ? QML_LOOK : QML_SCHEDULER, database,
					   look ? InvalidOid : database->role, now))
		return false;
	database->running = true;
	database->called = false;
	database->started = now;
	/* To the end of the list: those that waited longer come first. */
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	databases = lappend(list_delete_ptr(databases, database), database);
	MemoryContextSwitchTo(oldcontext);
	return true;
}

static int
count_starting(int64 now)
{
	QmlSlotView *slots = palloc(sizeof(QmlSlotView) * qml_shmem->nslots);
	int count = 0;

	qml_slots_copy_all(slots);
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		/* A look is short: it counts until it has ended. */
		if ((slots[i].state == QML_SLOT_STARTING ||
			 (slots[i].state == QML_SLOT_RUNNING && slots[i].kind == QML_LOOK)) &&
			now - started[i].since < SLOW_START)
			count++;
	}
	pfree(slots);
	return count;
}

static void
tell_no_place(const Database *database)
{
	if (qml_log_is_due(QML_LOG_SLOTS))
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("qml launcher: no free background worker slot for database \"%s\"",
						database->name),
				 errhint("Increase max_worker_processes, or list fewer databases in "
						 "qml.databases.")));
}

/*
 * Starts workers that are wanted; returns how long to sleep until there may be more.
 * When the server is full the next one waits, and all others behind it.
 */
static int64
start_workers(int64 now)
{
	int64 sleep = LOOK_INTERVAL;
	bool full = false;
	QmlWanted *wanted;

	qml_worker_pool_poll(now);
	while (!full && (wanted = qml_worker_pool_next(now)) != NULL)
	{
		Database *database = find_database(wanted->database);
		bool may_start = database && database->listed;
		bool allowed = qml_slots_count_workers(wanted->database, InvalidOid) < qml_workers;

		/* Whoever asked may have read settings that have not come here yet. */
		if (may_start && qml_workers == 0)
		{
			wanted->tried = true;
			continue;
		}
		if (!may_start || (allowed && start_process(QML_WORKER, database, wanted->role, now)))
		{
			qml_worker_pool_note_started(wanted);
			continue;
		}
		if (allowed)
			tell_no_place(database);
		if (qml_worker_pool_make_room(wanted, allowed, now))
		{
			sleep = RETRY_WORKER;
			/* One that has some already holds up nobody. */
			full = allowed && qml_slots_count_workers(wanted->database, wanted->role) == 0;
		}
		else if (allowed)
			wanted->tried = true; /* until somebody else leaves the server's last place */
		else
			qml_worker_pool_note_started(wanted);
	}
	return Min(sleep, qml_worker_pool_time_left(now));
}

/* Starts what may start now; returns how long to sleep until there may be more. */
static int64
start_all(int64 now)
{
	int64 sleep = LOOK_INTERVAL;
	int starting = count_starting(now);
	List *waiting = list_copy(databases);
	ListCell *lc;

	foreach(lc, waiting)
	{
		Database *database = lfirst(lc);

		if (database->running || database->next == NEXT_NOTHING || !database->listed ||
			!qml_process_works_database(database->name))
			continue;
		if (database->not_before > now)
		{
			sleep = Min(sleep, database->not_before - now);
			continue;
		}
		/* One that has started wakes the launcher. */
		if (starting >= MAX_STARTING)
			break;
		if (!start(database, now))
		{
			tell_no_place(database);
			qml_worker_pool_make_room_for_scheduler(now);
			sleep = Min(sleep, RETRY_SLOT);
			break;
		}
		starting++;
	}
	list_free(waiting);
	return sleep;
}

static void
leave(int code, Datum arg)
{
	pg_atomic_write_u32(&qml_shmem->launcher, 0);
}

/* One round; returns how long to sleep, in milliseconds. */
static int64
work(void)
{
	int64 now = qml_clock_monotonic_ms();
	int64 sleep;

	AcceptInvalidationMessages();
	look_at_slots(now);
	if (!qml_enabled)
		return LOOK_INTERVAL;
	answer_calls();
	if (databases_changed)
		list_databases();
	sleep = start_all(now);
	return Min(sleep, start_workers(now));
}

static void
run(void)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = qml_wait_event("QmlLauncherMain");
	for (;;)
	{
		int64 sleep;

		qml_process_handle_signals();
		sleep = work();
		/* The end of a transaction leaves another one current. */
		MemoryContextSwitchTo(round_context);
		MemoryContextReset(round_context);
		qml_process_sleep(sleep, wait_event);
	}
}

void
qml_launcher_main(Datum arg)
{
	qml_process_start(NULL);
	before_shmem_exit(leave, (Datum) 0);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	qml_process_pin_settings();
	CacheRegisterSyscacheCallback(DATABASEOID, database_changed, (Datum) 0);
	started = MemoryContextAllocZero(TopMemoryContext, sizeof(Started) * qml_shmem->nslots);
	round_context = AllocSetContextCreate(TopMemoryContext, "qml launcher", ALLOCSET_DEFAULT_SIZES);
	pg_atomic_write_u32(&qml_shmem->launcher, qml_shmem_my_process());
	pgstat_report_appname("qml launcher");
	ereport(LOG, (errmsg("qml launcher started")));

	for (;;)
	{
		PG_TRY();
		{
			MemoryContextSwitchTo(round_context);
			run();
		}
		PG_CATCH();
		{
			qml_process_log_error("qml launcher", QML_LOG_PROCESS, qml_process_undo());
			/* It may have been reading the list. */
			databases_changed = true;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(round_context);
		MemoryContextReset(round_context);
		qml_process_sleep(RETRY_TERMINATED, PG_WAIT_EXTENSION);
	}
}

/* While the server loads its preloaded libraries. */
void
qml_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_SECONDS;
	strlcpy(worker.bgw_library_name, "qml", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "qml_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "qml launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "qml launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
