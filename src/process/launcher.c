/*
 * launcher.c
 *		The process that keeps a scheduler in each database that has the extension.
 *
 * There is one in a server, connected to no database, so that it blocks nobody who needs
 * one alone.  It does not run on a standby, and starts when one is promoted.
 *
 * A database that accepts connections is looked at once: a process connects, finds out
 * who owns the extension's tables, and exits; the launcher then starts the scheduler
 * with that role as its session user.  A database without the extension is left alone
 * until a commit of CREATE EXTENSION or qml_adopt() calls the launcher (ipc/wakeup.c).
 * New databases are found by reading pg_database again after an invalidation.
 *
 *	 what is known of a database			what starts next
 *	 nothing, or the launcher was called	a look
 *	 the owner								the scheduler
 *	 no extension, a copy					nothing, until the launcher is called
 *
 * It also starts the workers that schedulers ask for; worker_pool.c says which is next.
 *
 * A process that ends leaves its outcome in its slot (ipc/slots.c).  Those that fail are
 * started again after a growing delay, up to a minute; none is given up.  The
 * launcher's own memory may be lost: it takes over the slots that it finds.
 * It has a transaction only to read pg_database.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/clock.h"
#include "common/guc.h"
#include "common/log.h"
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
#define PROVEN				 60000 /* at work for so long: the role's workers can start */
#define START_TIMEOUT		 30000 /* for a slot whose launcher is gone */
#define SLOW_START			 5000  /* waits for its database's lock, and does not count */
#define STUCK_START			 10000 /* after so long it is ended, for others need its slot */
#define MAX_STARTING		 2	   /* processes that start at the same time */
#define LONG_ENOUGH_TO_TRUST 60000

/* What to start for a database. */
typedef enum Next
{
	NEXT_NOTHING = 0, /* until the launcher is called */
	NEXT_LOOK,
	NEXT_SCHEDULER
} Next;

/* What the launcher knows of a database. */
typedef struct Database
{
	Oid oid;
	char name[NAMEDATALEN];
	bool listed; /* seen in pg_database in this round */
	Oid role;	 /* owner of the extension's tables */
	Next next;
	int64 not_before; /* monotonic, milliseconds */
	int failures;	  /* in a row */
	bool running;	  /* its look or scheduler has a slot */
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

/* Invalidation of pg_database; hashvalue 0 stands for all of it. */
static void
on_database_change(Datum arg, int cacheid, uint32 hashvalue)
{
	databases_changed = true;
}

/* What is known of a database; NULL if nothing is. */
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

/* A database that is new to us is looked at first. */
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

/* Forgets the databases that are gone, or must not be worked in. */
static void
remove_unlisted(void)
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

/* A row of pg_database. */
static void
note_database(Form_pg_database entry)
{
	Database *database;

	/* A template must stay free to be copied; the DROP of some databases was interrupted. */
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
read_databases(void)
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
	remove_unlisted();
}

/* The delay after so many failures in a row: doubled for each, MAX_BACKOFF at most. */
static int64
backoff_ms(const Database *database, int64 first)
{
	int shift = Max(Min(database->failures - 1, 10), 0);

	return Min(first << shift, MAX_BACKOFF);
}

/* A look or scheduler has ended: what to start next, and when. */
static void
plan_next(Database *database, QmlOutcome outcome, Oid role, int64 now)
{
	bool failed = outcome == QML_ENDED_EARLY || outcome == QML_ENDED_FAILED ||
				  (outcome == QML_ENDED_TERMINATED &&
				   now - database->started < LONG_ENOUGH_TO_TRUST) ||
				  (outcome == QML_ENDED_MADE_WAY && now - database->started < MAX_MADE_WAY);

	database->running = false;
	/* A look that found the owner proves nothing about the scheduler. */
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
			/* The database may be dropped by now. */
			databases_changed = true;
			database->not_before = now + Min(backoff_ms(database, RETRY_MADE_WAY), MAX_MADE_WAY);
			break;
		case QML_ENDED_TERMINATED:
			database->not_before = now +
								   Min(backoff_ms(database, RETRY_TERMINATED), MAX_TERMINATED);
			break;
		case QML_ENDED_EARLY:
			databases_changed = true;
			database->next = NEXT_LOOK;
			database->not_before = now + backoff_ms(database, RETRY_EARLY);
			break;
		case QML_ENDED_FAILED:
			database->next = NEXT_LOOK;
			database->not_before = now + RETRY_FAILED;
			break;
	}
	/* The launcher was called since it started: what it saw may have changed. */
	if (database->called && database->next == NEXT_NOTHING)
		database->next = NEXT_LOOK;
	if (database->called && !failed)
		database->not_before = now;
}

/*
 * Whether the process of a starting slot will never come: it has stopped, or an earlier
 * launcher asked for it, and it takes too long.
 */
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

/* Reads a slot, and frees it if its process has ended. */
static void
read_slot(int number, int64 now, QmlSlotView *seen)
{
	QmlSlot *slot = &qml_shmem->slots[number];
	Started *process = &started[number];
	/* Read without the lock: only the launcher makes a slot starting. */
	bool lost = slot->state == QML_SLOT_STARTING && is_lost(number, now);

	qml_slots_inspect(slot, lost, seen);
	if (seen->state == QML_SLOT_RUNNING && !seen->connected)
	{
		/*
		 * If it has waited too long to connect, it is terminated: it would keep a slot
		 * that others need for as long as somebody copies or drops its database.
		 */
		if (process->since == 0)
			process->since = now;
		if (now - process->since > STUCK_START && !process->stuck)
			process->stuck = qml_slots_terminate_unconnected(slot, seen->generation);
	}
	if (seen->state != QML_SLOT_ENDED)
		return;
	/* It was we who ended it: somebody had the database alone, and may have dropped it. */
	if (process->stuck && seen->outcome == QML_ENDED_EARLY)
		seen->outcome = QML_ENDED_MADE_WAY;
	if (process->handle)
		pfree(process->handle);
	memset(process, 0, sizeof(Started));
}

/* Whether the process of a slot has been at work for a while. */
static bool
is_proven(const QmlSlotView *seen)
{
	return seen->state == QML_SLOT_RUNNING && seen->connected &&
		   TimestampDifferenceExceeds(seen->started_at, GetCurrentTimestamp(), PROVEN);
}

/* Frees the slots of processes that have ended, and notes which databases have one. */
static void
reap_slots(int64 now)
{
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		Database *database;
		QmlSlotView seen;

		read_slot(i, now, &seen);
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
			plan_next(database, seen.outcome, seen.role, now);
	}
}

/* Has the database looked at again, as soon as its process has ended. */
static void
request_look(Database *database)
{
	database->called = true;
	if (database->running)
		return;
	if (database->next == NEXT_NOTHING)
		database->next = NEXT_LOOK;
	database->failures = 0;
	database->not_before = 0;
}

/* Somebody created the extension, or adopted a copy: looks at those databases. */
static void
take_calls(void)
{
	Oid calls[QML_MAX_CALLS];
	bool all;
	int ncalls = qml_wakeup_take_calls(calls, &all);
	ListCell *lc;

	for (int i = 0; i < ncalls; i++)
	{
		Database *database = find_database(calls[i]);

		if (database)
			request_look(database);
		else
			databases_changed = true;
	}
	if (!all)
		return;
	foreach(lc, databases)
		request_look(lfirst(lc));
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

/* What the postmaster needs to know of the process of a slot. */
static void
describe_process(const QmlSlot *slot, const char *database, BackgroundWorker *worker)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART; /* the launcher does that */
	strlcpy(worker->bgw_library_name, "qml", BGW_MAXLEN);
	strlcpy(worker->bgw_function_name, kinds[slot->kind].function, BGW_MAXLEN);
	snprintf(worker->bgw_name, BGW_MAXLEN, "%s: %s", kinds[slot->kind].title, database);
	strlcpy(worker->bgw_type, kinds[slot->kind].type, BGW_MAXLEN);
	worker->bgw_main_arg = Int32GetDatum((int) (slot - qml_shmem->slots));
	memcpy(worker->bgw_extra, &slot->generation, sizeof(slot->generation));
	worker->bgw_notify_pid = MyProcPid;
}

/* Starts a process; false when no slot is free, or the server has none for its process. */
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
	Assert(started[number].handle == NULL);
	describe_process(slot, database->name, &worker);
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

/* Starts what is next for a database; false as above. */
static bool
start_next(Database *database, int64 now)
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

/* How many processes are starting, but for those that wait for their database. */
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
log_no_slot(const Database *database)
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
 * Starts workers that schedulers have asked for.  Returns how long to sleep until there
 * may be more to start.  When the server is full, the next one waits for its turn, and
 * all others behind it.
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

		/* The scheduler may have read a new qml.workers before we did. */
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
			log_no_slot(database);
		/* One that is allowed and could not be started: the server is full. */
		if (qml_worker_pool_make_room(wanted, allowed, now))
		{
			sleep = RETRY_WORKER;
			/* A role that has workers does not hold up the others. */
			full = allowed && qml_slots_count_workers(wanted->database, wanted->role) == 0;
		}
		else if (allowed)
			wanted->tried = true; /* until another process leaves a slot */
		else
			qml_worker_pool_note_started(wanted);
	}
	return Min(sleep, qml_worker_pool_time_left(now));
}

/* Starts looks and schedulers that are due.  Returns how long to sleep until others are. */
static int64
start_schedulers(int64 now)
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
		/* Each wakes the launcher when it has started. */
		if (starting >= MAX_STARTING)
			break;
		if (!start_next(database, now))
		{
			log_no_slot(database);
			qml_worker_pool_make_room_for_scheduler(now);
			sleep = Min(sleep, RETRY_SLOT);
			break;
		}
		starting++;
	}
	list_free(waiting);
	return sleep;
}

/* From now on nobody tries to wake the launcher. */
static void
on_exit_launcher(int code, Datum arg)
{
	qml_shmem_clear_launcher();
}

/* One round.  Returns how long to sleep, in milliseconds. */
static int64
do_round(void)
{
	int64 now = qml_clock_monotonic_ms();
	int64 sleep;

	AcceptInvalidationMessages();
	reap_slots(now);
	if (!qml_enabled)
		return LOOK_INTERVAL;
	take_calls();
	if (databases_changed)
		read_databases();
	sleep = start_schedulers(now);
	return Min(sleep, start_workers(now));
}

/* Rounds, until an error. */
static void
run_rounds(void)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = qml_wait_event("QmlLauncherMain");
	for (;;)
	{
		int64 sleep;

		qml_process_handle_signals();
		sleep = do_round();
		/* The end of a transaction leaves another context current. */
		MemoryContextSwitchTo(round_context);
		MemoryContextReset(round_context);
		qml_process_sleep(sleep, wait_event);
	}
}

/* Where the postmaster starts the process. */
void
qml_launcher_main(Datum arg)
{
	qml_process_start(NULL);
	before_shmem_exit(on_exit_launcher, (Datum) 0);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	qml_process_pin_settings();
	CacheRegisterSyscacheCallback(DATABASEOID, on_database_change, (Datum) 0);
	started = MemoryContextAllocZero(TopMemoryContext, sizeof(Started) * qml_shmem->nslots);
	round_context = AllocSetContextCreate(TopMemoryContext, "qml launcher", ALLOCSET_DEFAULT_SIZES);
	qml_shmem_set_launcher();
	pgstat_report_appname("qml launcher");
	ereport(LOG, (errmsg("qml launcher started")));

	for (;;)
	{
		PG_TRY();
		{
			MemoryContextSwitchTo(round_context);
			run_rounds();
		}
		PG_CATCH();
		{
			qml_process_log_error("qml launcher", QML_LOG_PROCESS, qml_process_undo());
			/* It may have happened while the list was read. */
			databases_changed = true;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(round_context);
		MemoryContextReset(round_context);
		qml_process_sleep(RETRY_TERMINATED, qml_wait_event("QmlLauncherMain"));
	}
}

/* In the postmaster, while it loads the preloaded libraries. */
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
