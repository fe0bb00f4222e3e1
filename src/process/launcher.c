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
 * until a commit of CREATE EXTENSION or qml_adopt() calls the launcher (ipc/wakeup.c).  So
 * does one of ALTER EXTENSION, after which processes may be able to work that were not.
 * New databases are found by reading pg_database again after an invalidation.
 *
 *	 what is known of a database			what starts next
 *	 nothing, or the launcher was called	a look
 *	 the owner								the scheduler
 *	 no extension, a copy					nothing, until the launcher is called
 *
 * Where there are more databases than slots for schedulers (capacity.c), they take
 * turns: one that wants a scheduler, because something is due (ipc/databases.c) or it had
 * none for a minute, gets the slot of the one that has been there longest.  That one
 * ends after its round, once it has been at work for a turn.
 *
 * It also starts the workers that schedulers ask for; worker_pool.c says which is next.
 *
 * A process that ends leaves its outcome in its slot (ipc/slots.c).  Those that fail are
 * started again after a growing delay, up to a minute; none is given up.  The
 * launcher's own memory may be lost: it takes over the slots that it finds.
 * It has a transaction only to read pg_database.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/guc.h"
#include "common/wait_event.h"
#include "compat.h"
#include "ipc/databases.h"
#include "ipc/slots.h"
#include "ipc/wakeup.h"
#include "process/capacity.h"
#include "process/known_databases.h"
#include "process/launcher.h"
#include "process/process.h"
#include "process/worker_pool.h"

extern PGDLLEXPORT void qml_launcher_main(Datum arg);

/* All times in milliseconds. */
#define RESTART_SECONDS		 1
#define LOOK_INTERVAL		 10000 /* at pg_database, if it changed */
#define RETRY_SLOT			 200   /* when another process has to leave first */
#define TURN				 QML_FAULT_LIMIT("launcher.turn_ms", 1000) /* of a scheduler, while others wait */
#define REST				 60000 /* between turns, when nothing is known to be due */
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

/* A slot that this launcher has filled. */
typedef struct Started
{
	BackgroundWorkerHandle *handle;
	int64 since; /* monotonic */
	bool stuck;	 /* was ended because it could not connect */
} Started;

static MemoryContext round_context; /* reset after each round */
static Started *started;			/* by slot */

/* The delay after so many failures in a row: doubled for each, MAX_BACKOFF at most. */
static int64
backoff_ms(const QmlKnownDatabase *database, int64 first)
{
	int shift = Max(Min(database->failures - 1, 10), 0);

	return Min(first << shift, MAX_BACKOFF);
}

/* A look or scheduler has ended: what to start next, and when. */
static void
plan_next(QmlKnownDatabase *database, QmlOutcome outcome, Oid role, int64 now)
{
	bool failed = outcome == QML_ENDED_EARLY || outcome == QML_ENDED_FAILED ||
				  (outcome == QML_ENDED_TERMINATED &&
				   now - database->started < LONG_ENOUGH_TO_TRUST) ||
				  (outcome == QML_ENDED_MADE_WAY && now - database->started < MAX_MADE_WAY);

	database->running = false;
	database->ended = now;
	database->rested = outcome == QML_ENDED_TURN;
	database->is_copy = outcome == QML_ENDED_COPY;
	/* A look that found the owner proves nothing about the scheduler. */
	if (outcome != QML_ENDED_FOUND)
		database->failures = failed ? database->failures + 1 : 0;
	switch (outcome)
	{
		case QML_ENDED_NO_EXTENSION:
		case QML_ENDED_COPY:
			database->role = InvalidOid;
			database->next = QML_NEXT_NOTHING;
			break;
		case QML_ENDED_IDLE: /* not a scheduler's */
		case QML_ENDED_DISABLED:
		case QML_ENDED_TURN:
			database->not_before = now;
			break;
		case QML_ENDED_FOUND:
			database->role = role;
			database->next = QML_NEXT_SCHEDULER;
			database->not_before = now;
			break;
		case QML_ENDED_MADE_WAY:
			/* The database may be dropped by now. */
			qml_known_databases_forget();
			database->not_before = now + Min(backoff_ms(database, RETRY_MADE_WAY), MAX_MADE_WAY);
			break;
		case QML_ENDED_TERMINATED:
			database->not_before = now +
								   Min(backoff_ms(database, RETRY_TERMINATED), MAX_TERMINATED);
			break;
		case QML_ENDED_EARLY:
			qml_known_databases_forget();
			database->next = QML_NEXT_LOOK;
			database->not_before = now + backoff_ms(database, RETRY_EARLY);
			break;
		case QML_ENDED_FAILED:
			database->next = QML_NEXT_LOOK;
			database->not_before = now + RETRY_FAILED;
			break;
	}
	/* The launcher was called since it started: what it saw may have changed. */
	if (database->called && database->next == QML_NEXT_NOTHING)
		database->next = QML_NEXT_LOOK;
	if (database->called)
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
		   qml_clock_monotonic_ms() - seen->started_ms > PROVEN;
}

/* Frees the slots of processes that have ended, and notes which databases have one. */
static void
reap_slots(int64 now)
{
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		QmlKnownDatabase *database;
		QmlSlotView seen;

		read_slot(i, now, &seen);
		if (seen.state == QML_SLOT_ENDED && seen.kind == QML_WORKER)
			qml_worker_pool_note_ended(seen.database, seen.role, seen.outcome, now);
		if (seen.kind == QML_WORKER && is_proven(&seen))
			qml_worker_pool_note_working(seen.database, seen.role, seen.started_at);
		if (seen.state == QML_SLOT_FREE || seen.kind == QML_WORKER)
			continue;
		database = qml_known_databases_find(seen.database);
		if (database == NULL)
			database = qml_known_databases_add(seen.database);
		database->running = true;
		if (seen.kind == QML_SCHEDULER && seen.connected)
			database->served_at = GetCurrentTimestamp();
		if (OidIsValid(seen.role))
		{
			database->role = seen.role;
			database->next = QML_NEXT_SCHEDULER;
		}
		if (seen.state == QML_SLOT_ENDED)
			plan_next(database, seen.outcome, seen.role, now);
	}
}

/* Has the database looked at again, as soon as its process has ended. */
static void
request_look(QmlKnownDatabase *database)
{
	database->called = true;
	database->rested = false;
	if (database->running)
		return;
	if (database->next == QML_NEXT_NOTHING)
		database->next = QML_NEXT_LOOK;
	database->failures = 0;
	database->not_before = 0;
}

/* Databases that perhaps have the extension now: looks at those that it has not looked at lately. */
static void
look_at_asked(int64 now)
{
	ListCell *lc;

	foreach(lc, qml_known_databases_all())
	{
		QmlKnownDatabase *database = lfirst(lc);

		if (!database->asked || database->running || now - database->ended < LOOK_INTERVAL)
			continue;
		database->asked = false;
		if (database->next == QML_NEXT_NOTHING)
			request_look(database);
	}
}

/* Somebody created or updated the extension, or adopted a copy: looks at those databases. */
static void
take_calls(int64 now)
{
	QmlCall calls[QML_MAX_CALLS];
	bool all;
	int ncalls = qml_wakeup_take_calls(calls, &all);
	ListCell *lc;

	for (int i = 0; i < ncalls; i++)
	{
		QmlKnownDatabase *database = qml_known_databases_find(calls[i].database);

		if (calls[i].sure)
			qml_worker_pool_retry(calls[i].database);
		if (database == NULL)
			qml_known_databases_forget();
		else if (calls[i].sure)
			request_look(database);
		else
			database->asked = true;
	}
	look_at_asked(now);
	if (!all)
		return;
	qml_worker_pool_retry(InvalidOid);
	foreach(lc, qml_known_databases_all())
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

/*
 * What the postmaster needs to know of the process of a slot.  quiet: the log does not tell
 * of its start.
 */
static void
describe_process(const QmlSlot *slot, const char *database, bool quiet, BackgroundWorker *worker)
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
	worker->bgw_extra[sizeof(slot->generation)] = quiet;
	worker->bgw_notify_pid = MyProcPid;
}

/* Starts a process; false when as many as there can be are there. */
static bool
start_process(QmlKind kind, const QmlKnownDatabase *database, Oid role, int64 now)
{
	QmlSlot *slot;
	BackgroundWorker worker;
	MemoryContext oldcontext;
	int schedulers;
	int workers;
	bool registered;
	int number;

	qml_slots_count_all(&schedulers, &workers);
	if (schedulers + workers >= qml_capacity_processes() ||
		(kind == QML_WORKER ? workers >= qml_capacity_workers() :
							  schedulers >= qml_capacity_schedulers()))
		return false;
	slot = qml_slots_reserve(kind, database->oid, role);
	if (slot == NULL)
		return false;
	number = (int) (slot - qml_shmem->slots);
	Assert(started[number].handle == NULL);
	/* Turns come too often to tell of each. */
	describe_process(slot, database->name, kind == QML_SCHEDULER && database->rested, &worker);
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &started[number].handle);
	MemoryContextSwitchTo(oldcontext);
	if (!registered)
	{
		started[number].handle = NULL;
		qml_slots_release(slot);
		qml_capacity_note_refused(now);
		return false;
	}
	started[number].since = now;
	qml_capacity_note_started();
	return true;
}

/* Starts what is next for a database; false as above. */
static bool
start_next(QmlKnownDatabase *database, int64 now)
{
	bool look = database->next != QML_NEXT_SCHEDULER;

	if (!start_process(look ? QML_LOOK : QML_SCHEDULER, database,
					   look ? InvalidOid : database->role, now))
		return false;
	database->running = true;
	database->called = false;
	database->started = now;
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
		QmlKnownDatabase *database = qml_known_databases_find(wanted->database);
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
		/* One that is allowed and could not be started: the server is full. */
		if (qml_worker_pool_make_room(wanted, allowed, now))
		{
			sleep = RETRY_SLOT;
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

/* Milliseconds until a database wants a scheduler; those that waited longer come first. */
static int64
time_until_wanted(const QmlKnownDatabase *database, int64 now)
{
	TimestampTz due = qml_databases_due(database->entry);
	int64 left = database->ended + REST - now;

	if (!database->rested)
		return Min(database->ended - now, 0);
	if (due != QML_WAKE_NEVER)
		left = Min(left, (due - GetCurrentTimestamp()) / 1000);
	return left;
}

static int
compare_time_left(const ListCell *a, const ListCell *b)
{
	const QmlKnownDatabase *first = lfirst(a);
	const QmlKnownDatabase *second = lfirst(b);

	return first->time_left < second->time_left ? -1 : first->time_left > second->time_left;
}

/*
 * Asks schedulers to leave for so many others, those first that have been there longest.
 * Each has a turn at least, and another one if it is busy.  One that has not left within
 * a turn, because a step takes long, does not count.
 */
static void
ask_schedulers_to_leave(int count)
{
	QmlSlotView *slots = palloc(sizeof(QmlSlotView) * qml_shmem->nslots);
	static int64 asked_at = 0;
	int64 now = qml_clock_monotonic_ms();

	qml_slots_copy_all(slots);
	for (int i = 0; i < qml_shmem->nslots && now - asked_at < TURN; i++)
	{
		if (slots[i].kind == QML_SCHEDULER && slots[i].state == QML_SLOT_RUNNING && slots[i].leave)
			count--;
	}
	while (count-- > 0)
	{
		int64 longest = TURN - 1;
		int victim = -1;

		for (int i = 0; i < qml_shmem->nslots; i++)
		{
			const QmlSlotView *slot = &slots[i];
			int64 at_work = now - slot->started_ms - (slot->idle ? 0 : TURN);

			if (slot->kind == QML_SCHEDULER && slot->state == QML_SLOT_RUNNING && slot->connected &&
				!slot->leave && at_work > longest)
			{
				longest = at_work;
				victim = i;
			}
		}
		if (victim < 0)
			break;
		if (qml_slots_ask_to_leave(&qml_shmem->slots[victim], slots[victim].generation))
			asked_at = now;
		slots[victim].leave = true;
	}
	pfree(slots);
}

/* Makes room for the schedulers of so many databases. */
static void
make_room(int waiting, int64 now)
{
	int schedulers;
	int workers;

	qml_slots_count_all(&schedulers, &workers);
	if (schedulers < qml_capacity_schedulers())
	{
		/* The slot that shrink() makes free is for one of them. */
		if (workers <= qml_capacity_workers())
			qml_worker_pool_make_room_for_scheduler(now);
	}
	else
		ask_schedulers_to_leave(waiting);
}

/* Starts looks and schedulers that are wanted.  Returns how long to sleep until others are. */
static int64
start_schedulers(int64 now)
{
	int64 sleep = LOOK_INTERVAL;
	int starting = count_starting(now);
	List *wanting = NIL;
	int waiting = 0;
	ListCell *lc;

	foreach(lc, qml_known_databases_all())
	{
		QmlKnownDatabase *database = lfirst(lc);

		database->time_left = PG_INT64_MAX;
		if (database->running || !qml_known_databases_wants_process(database))
			continue;
		if (database->not_before > now)
		{
			sleep = Min(sleep, database->not_before - now);
			continue;
		}
		database->time_left = time_until_wanted(database, now);
		wanting = lappend(wanting, database);
	}
	list_sort(wanting, compare_time_left);
	foreach(lc, wanting)
	{
		QmlKnownDatabase *database = lfirst(lc);

		/* Each wakes the launcher when it has started, and then the next can. */
		if (starting >= MAX_STARTING && waiting == 0)
		{
			database->time_left = PG_INT64_MAX;
			continue;
		}
		/* While a slot is free nobody has to wait until something is due. */
		if (waiting == 0 && start_next(database, now))
		{
			starting++;
			continue;
		}
		if (database->time_left > 0)
		{
			sleep = Min(sleep, database->time_left);
			break;
		}
		waiting++;
	}
	list_free(wanting);
	if (waiting > 0)
	{
		make_room(Min(waiting, MAX_STARTING), now);
		sleep = Min(sleep, RETRY_SLOT);
	}
	return sleep;
}

/* Settings or the server allow fewer processes than there are, or more databases came. */
static void
shrink(int64 now)
{
	int schedulers;
	int workers;

	qml_slots_count_all(&schedulers, &workers);
	for (int i = qml_capacity_workers(); i < workers; i++)
		qml_worker_pool_make_room_for_scheduler(now);
	if (schedulers > qml_capacity_schedulers())
		ask_schedulers_to_leave(schedulers - qml_capacity_schedulers());
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
	{
		qml_known_databases_hide();
		return LOOK_INTERVAL;
	}
	take_calls(now);
	qml_known_databases_read_if_changed();
	qml_capacity_update(qml_known_databases_count_wanting(), now);
	shrink(now);
	sleep = start_schedulers(now);
	sleep = Min(sleep, start_workers(now));
	qml_worker_pool_end_round();
	qml_known_databases_show(now);
	return sleep;
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
	qml_known_databases_init();
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
			qml_known_databases_forget();
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
