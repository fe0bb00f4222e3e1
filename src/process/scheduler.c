/*
 * scheduler.c
 *		The process that does in a database what is due: promotes jobs, takes lost
 *		ones back, fires recurring ones, lets what is expired go.
 *
 * Its session user is the owner of qml's tables.  Who that is, is found out by the
 * same process with nobody's rights used: started without a role it looks at the
 * catalogs, says what it found, and exits (look_around).
 *
 * It sleeps until the next time that it knows of, from the indexes or told at
 * commit (ipc/due.c), and looks without being told once in each poll interval,
 * because replication and others that write the tables tell nobody.  While it
 * sleeps it holds nothing.
 *
 * It is a guest in the database.  Once a second it probes the database's lock: if
 * DROP, RENAME or CREATE ... TEMPLATE has it, it leaves, so that the owner need
 * not be allowed to end it.  When the extension is gone it exits.
 *
 * Each step has its own transaction and its own errors: one that fails is told
 * and tried again later, and stops no other.  A crash at any point leaves a
 * transaction undone.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/guc.h"
#include "common/log.h"
#include "common/subxact.h"
#include "compat.h"
#include "ipc/due.h"
#include "ipc/session_claim.h"
#include "ipc/slots.h"
#include "ipc/wakeup.h"
#include "jobs/ack.h"
#include "maintenance/cleanup.h"
#include "maintenance/promote.h"
#include "maintenance/reclaim.h"
#include "maintenance/server.h"
#include "model/catalog.h"
#include "process/notify.h"
#include "process/process.h"
#include "process/slot.h"
#include "process/worker_demand.h"
#include "schedule/tick.h"
#include "userfn/current_job.h"
#include "userfn/hook.h"
#include "userfn/hook_failure.h"
#include "userfn/hook_limit.h"

extern PGDLLEXPORT void qml_scheduler_main(Datum arg);

/* Milliseconds. */
#define ANNOUNCE_INTERVAL 100
#define PROGRESS_INTERVAL 100
#define PROBE_INTERVAL	  1000
#define LEASE_POLL		  60000 /* for leases that nobody told of */
#define SERVER_POLL		  10000
#define REFRESH_INTERVAL  (24 * 3600 * 1000)
#define MAX_STEP_BACKOFF  60000
/* Share of the time that looking for lost jobs may take: one in so many parts. */
#define RECLAIM_SHARE 50

/* Rows of one transaction; fewer if hooks take long. */
#define PROMOTE_BATCH 1000
#define RECLAIM_BATCH 1000
#define TICK_BATCH	  256

/* Long before the machine started. */
#define NEVER (PG_INT64_MIN / 2)

/* How far the wall clock may differ from the other one between two rounds. */
#define CLOCK_TOLERANCE 5000

/* A kind of work.  Wall-clock times may jump, so intervals are on the other clock. */
typedef struct Step
{
	const char *activity; /* as pg_stat_activity shows it */
	const char *name;	  /* as the log shows it */
	bool *enabled;
	int wake; /* QmlWake that it answers; -1: none */
	int64 (*interval)(void);
	TimestampTz (*run)(struct Step *step); /* in a transaction; returns when it is due next */
	TimestampTz due;					   /* wall clock; QML_NO_TIME: not known */
	int64 last;							   /* run began, milliseconds */
	int64 not_before;					   /* after an error, or to save time */
	int failures;						   /* in a row */
	int64 looked;						   /* at all there is, milliseconds */
} Step;

static QmlSlot *slot;
static int64 round_began; /* one time for all steps: they wake together */

/* ----- looking ----- */

/* The server lets no background process be a role that may not log in, or not here. */
static void
check_login(Oid role)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool allowed;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "role %u does not exist", role);
	allowed = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	if (!allowed)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\", which owns the tables of extension \"qml\", may not log in",
						GetUserNameFromId(role, false))));
	if (!qml_database_allows(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\", which owns the tables of extension \"qml\", has no privilege "
						"CONNECT on database \"%s\"",
						GetUserNameFromId(role, false), get_database_name(MyDatabaseId))));
}

/* Finds out who owns the extension, tells the launcher, and exits. */
static void
look_around(void)
{
	PG_TRY();
	{
		qml_process_begin("looking for the extension");
		qml_slot_check_extension();
		check_login(qml_catalog()->owner);
		qml_slot_set_role(qml_catalog()->owner);
		qml_process_commit();
	}
	PG_CATCH();
	{
		qml_process_log_error("qml scheduler", QML_LOG_PROCESS, qml_process_undo());
		qml_slot_leave(QML_ENDED_FAILED);
	}
	PG_END_TRY();
	qml_slot_leave(QML_ENDED_FOUND);
}

/* ----- the steps ----- */

/*
 * Milliseconds from now to the next multiple of an interval after `last`: what is
 * done at intervals is done together, in one wake-up.
 */
static int64
next_multiple(int64 last, int64 interval, int64 now)
{
	return last == NEVER ? 0 : (last / interval + 1) * interval - now;
}

static TimestampTz
switch_off_hooks(Step *step)
{
	qml_hook_failure_disable_stuck();
	return QML_NO_TIME;
}

static TimestampTz
promote(Step *step)
{
	int batch = qml_hook_batch(PROMOTE_BATCH);
	TimestampTz next;

	/* A full batch: there may be more, after the other steps had their turn. */
	if (qml_promote_jobs(batch, &next) < batch)
		next = qml_promote_next_due(next);
	return next;
}

static TimestampTz
reclaim(Step *step)
{
	int64 begun = qml_clock_monotonic_ms();
	int batch = qml_hook_batch(RECLAIM_BATCH);
	TimestampTz next;

	if (qml_reclaim_expired(batch, &next) == batch)
		next = GetCurrentTimestamp();
	/* It reads all jobs, so not too often. */
	step->not_before = begun +
					   Max(PROBE_INTERVAL, (qml_clock_monotonic_ms() - begun) * RECLAIM_SHARE);
	return next;
}

/* Jobs whose session is gone, as far as it told which; the next reclaim sees to all. */
static TimestampTz
take_back(Step *step)
{
	static pg_uuid_t jobs[QML_MAX_LOST];
	static int count = 0;
	static bool any = false;
	int batch;

	/* What is left from before: a part, or all of it after an error. */
	if (count == 0)
		count = qml_session_claim_take_lost(slot, jobs, &any);
	if (any)
		qml_wakeup_at(QML_WAKE_LEASE, GetCurrentTimestamp());
	batch = qml_hook_batch(count);
	/* The others are over, or just being changed by somebody, who may leave them as they were. */
	if (batch > 0 && qml_reclaim_of_sessions(jobs, batch) < batch)
		qml_wakeup_at(QML_WAKE_LEASE, GetCurrentTimestamp() + USECS_PER_SEC);
	count -= batch;
	memmove(jobs, jobs + batch, sizeof(pg_uuid_t) * count);
	return count > 0 ? GetCurrentTimestamp() : QML_NO_TIME;
}

/* What jobs that run say of how far they are. */
static TimestampTz
show_progress(Step *step)
{
	QmlProgress *progress = palloc(sizeof(QmlProgress));

	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		QmlSlot *worker = &qml_shmem->slots[i];
		QmlAck ack = {.document = PointerGetDatum(progress->document)};

		if (!qml_slots_take_progress(worker, progress))
			continue;
		ack.attempt = progress->attempt;
		qml_ack_show_progress(&progress->job, &ack);
	}
	step->not_before = qml_clock_monotonic_ms() + PROGRESS_INTERVAL;
	return QML_NO_TIME;
}

/* Seldom, however many jobs there are. */
static TimestampTz
tell_listeners(Step *step)
{
	qml_notify_send(slot);
	step->not_before = qml_clock_monotonic_ms() + ANNOUNCE_INTERVAL;
	return QML_NO_TIME;
}

/* How many workers were allowed when roles were served last. */
static int served_workers = 0;

/* Looking at all ready jobs is dear: only at intervals, and when more may be done. */
static TimestampTz
serve_roles(Step *step)
{
	bool look = step->looked == NEVER || qml_workers > served_workers ||
				next_multiple(step->looked, LEASE_POLL, round_began) <= 0;

	if (qml_workers > 0)
	{
		qml_worker_demand_serve(slot, look);
		if (look)
			step->looked = round_began;
	}
	served_workers = qml_workers;
	return QML_NO_TIME;
}

static TimestampTz
bury_servers(Step *step)
{
	TimestampTz next;

	(void) qml_server_reclaim_dead(qml_hook_batch(INT_MAX), &next);
	/* Some may be in other hands just now. */
	step->not_before = qml_clock_monotonic_ms() + PROBE_INTERVAL;
	return next;
}

static TimestampTz
fire(Step *step)
{
	QmlTicks ticks;

	qml_tick_poll(qml_hook_batch(TICK_BATCH), &ticks);
	return ticks.more ? ticks.as_of : qml_tick_next(ticks.as_of);
}

static TimestampTz
clean_up(Step *step)
{
	QmlCleanup done;

	qml_cleanup_expired(&done);
	return QML_NO_TIME;
}

/* Zone data may have changed since next_run_at was computed. */
static TimestampTz
refresh(Step *step)
{
	(void) qml_tick_refresh();
	return QML_NO_TIME;
}

static int64
refresh_interval(void)
{
	return REFRESH_INTERVAL;
}

static int64
scheduler_interval(void)
{
	return qml_scheduler_poll_interval;
}

/* At once when another number of workers is allowed: what was told before is lost. */
static int64
role_interval(void)
{
	return qml_workers != served_workers ? 1 : LEASE_POLL;
}

static int64
lease_interval(void)
{
	return LEASE_POLL;
}

static int64
server_interval(void)
{
	return Min(SERVER_POLL, qml_dead_server_timeout * 500);
}

static int64
recurring_interval(void)
{
	return qml_recurring_poll_interval;
}

static int64
cleanup_interval(void)
{
	return (int64) qml_cleanup_interval * 1000;
}

static Step steps[] = {
	/* Before all that could call one again. */
	{.activity = "switching off hooks",
	 .name = "qml scheduler: switching off hooks",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_HOOK,
	 .interval = lease_interval,
	 .run = switch_off_hooks},
	{.activity = "promoting due jobs",
	 .name = "qml scheduler: promotion",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_DUE,
	 .interval = scheduler_interval,
	 .run = promote},
	{.activity = "firing recurring jobs",
	 .name = "qml scheduler: firing recurring jobs",
	 .enabled = &qml_recurring_enabled,
	 .wake = QML_WAKE_RECURRING,
	 .interval = recurring_interval,
	 .run = fire},
	{.activity = "taking lost jobs back",
	 .name = "qml scheduler: taking lost jobs back",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_LEASE,
	 .interval = lease_interval,
	 .run = reclaim},
	{.activity = "taking jobs of lost sessions back",
	 .name = "qml scheduler: taking jobs of lost sessions back",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_SESSION,
	 .interval = lease_interval,
	 .run = take_back},
	{.activity = "showing progress",
	 .name = "qml scheduler: showing progress",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_PROGRESS,
	 .interval = lease_interval,
	 .run = show_progress},
	{.activity = "asking for workers",
	 .name = "qml scheduler: asking for workers",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_WORK,
	 .interval = role_interval,
	 .run = serve_roles},
	{.activity = "telling listeners",
	 .name = "qml scheduler: telling listeners",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_NOTIFY,
	 .interval = lease_interval,
	 .run = tell_listeners},
	{.activity = "looking for dead servers",
	 .name = "qml scheduler: looking for dead servers",
	 .enabled = &qml_scheduler_enabled,
	 .wake = -1,
	 .interval = server_interval,
	 .run = bury_servers},
	{.activity = "cleaning up",
	 .name = "qml scheduler: cleanup",
	 .enabled = &qml_cleanup_enabled,
	 .wake = -1,
	 .interval = cleanup_interval,
	 .run = clean_up},
	{.activity = "computing schedules anew",
	 .name = "qml scheduler: computing schedules anew",
	 .enabled = &qml_recurring_enabled,
	 .wake = -1,
	 .interval = refresh_interval,
	 .run = refresh},
};

#define FOREACH_STEP(step) for (Step *step = steps; step < steps + lengthof(steps); step++)

/* Takes what was told into account. */
static void
hear(Step *step)
{
	TimestampTz told;

	if (step->wake < 0)
		return;
	told = qml_due_take(slot, (QmlWake) step->wake);
	if (told != QML_WAKE_NEVER && (step->due == QML_NO_TIME || told < step->due))
		step->due = told;
}

/* Milliseconds until a step wants to run. */
static int64
time_left(const Step *step)
{
	int64 now = qml_clock_monotonic_ms();
	int64 left = next_multiple(step->last, step->interval(), now);

	if (step->due != QML_NO_TIME)
		left = Min(left, (step->due - GetCurrentTimestamp() + 999) / 1000);
	return Max(left, step->not_before - now);
}

static void
run_step(Step *step)
{
	MemoryContext context = CurrentMemoryContext;

	step->last = round_began;
	PG_TRY();
	{
		qml_process_begin(step->activity);
		qml_slot_check_extension();
		step->due = step->run(step);
		qml_process_commit();
		step->failures = 0;
	}
	PG_CATCH();
	{
		ErrorData *error = qml_process_undo();
		/* What is wrong with the extension is told once, not by each step. */
		QmlLogKind kind = qml_slot_found_extension() ?
							  (QmlLogKind) (QML_LOG_STEP + (step - steps)) :
							  QML_LOG_PROCESS;

		step->failures++;
		/* It still has to be done, and what was told may be forgotten. */
		step->due = GetCurrentTimestamp();
		step->looked = NEVER;
		step->not_before = step->last +
						   Min(INT64CONST(1000) << Min(step->failures - 1, 10), MAX_STEP_BACKOFF);
		/* What was dropped under its hands is no error. */
		qml_slot_leave_if_dropped();
		qml_process_log_error(step->name, kind, error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

/* ----- the loop ----- */

/* Tells if somebody set the clock: what is due comes early or late by as much. */
static void
watch_clock(void)
{
	static TimestampTz last_wall = 0;
	static int64 last_monotonic;
	TimestampTz wall = GetCurrentTimestamp();
	int64 monotonic = qml_clock_monotonic_ms();

	if (last_wall != 0)
	{
		int64 jump = (wall - last_wall) / 1000 - (monotonic - last_monotonic);

		if ((jump > CLOCK_TOLERANCE || jump < -CLOCK_TOLERANCE) && qml_log_is_due(QML_LOG_CLOCK))
			ereport(WARNING,
					(errmsg("the clock jumped by %lld seconds", (long long) (jump / 1000)),
					 errdetail("Leases and due times follow the server's clock.")));
		/* Everything may be due, or not for long: look again. */
		if (jump > CLOCK_TOLERANCE || jump < -CLOCK_TOLERANCE)
		{
			FOREACH_STEP(step)
				step->last = NEVER;
		}
	}
	last_wall = wall;
	last_monotonic = monotonic;
}

static void
beat(void)
{
	static int64 last = NEVER;
	int64 now = qml_clock_monotonic_ms();

	if (next_multiple(last, (int64) qml_heartbeat_interval * 1000, now) > 0)
		return;
	last = now;
	qml_slots_beat(slot);
}

/* One round; returns how long to sleep, in milliseconds. */
static int64
work(void)
{
	int64 sleep;
	TimestampTz until;

	round_began = qml_clock_monotonic_ms();
	watch_clock();
	beat();
	FOREACH_STEP(step)
	{
		hear(step);
		if (*step->enabled && time_left(step) <= 0)
		{
			qml_slot_leave_if_blocking();
			run_step(step);
			qml_process_handle_signals();
			qml_slot_leave_if_disabled();
		}
	}
	/* First say how long, then see what was told meanwhile: see ipc/due.c. */
	sleep = next_multiple(round_began, PROBE_INTERVAL, qml_clock_monotonic_ms());
	FOREACH_STEP(step)
	{
		if (*step->enabled)
			sleep = Min(sleep, time_left(step));
	}
	until = GetCurrentTimestamp() + Max(sleep, 0) * 1000;
	qml_due_sleep_until(slot, until);
	FOREACH_STEP(step)
	{
		hear(step);
		if (*step->enabled)
			sleep = Min(sleep, time_left(step));
	}
	return sleep;
}

static void
run(MemoryContext context)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = qml_wait_event("QmlSchedulerMain");
	for (;;)
	{
		int64 sleep;

		qml_process_handle_signals();
		qml_slot_leave_if_disabled();
		qml_slot_leave_if_blocking();
		sleep = work();
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		if (sleep > 0)
			qml_process_sleep(sleep, wait_event);
		qml_due_awake(slot);
	}
}

static void
schedule(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "qml scheduler",
												  ALLOCSET_DEFAULT_SIZES);
	FOREACH_STEP(step)
	{
		step->last = NEVER;
		step->looked = NEVER;
	}
	for (;;)
	{
		PG_TRY();
		{
			MemoryContextSwitchTo(context);
			run(context);
		}
		PG_CATCH();
		{
			qml_process_log_error("qml scheduler", QML_LOG_PROCESS, qml_process_undo());
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		qml_process_sleep(PROBE_INTERVAL, PG_WAIT_EXTENSION);
	}
}

void
qml_scheduler_main(Datum arg)
{
	qml_process_start(NULL);
	slot = qml_slot_enter(DatumGetInt32(arg), "qml scheduler");
	qml_hook_limit_init(NULL, qml_process_is_late);
	qml_process_pin_settings();
	if (slot->kind == QML_LOOK)
		look_around();
	qml_slot_set_ready();
	schedule();
}
