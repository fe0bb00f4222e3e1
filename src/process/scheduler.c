/*
 * scheduler.c
 *		The process that does what is due in a database: it promotes jobs, reclaims
 *		lost ones, fires recurring ones, asks for workers, and cleans up.
 *
 * Its session user is the owner of qml's tables.  Who that is stands in the database's
 * catalogs, so a first process of the same kind, started without a role, only reads the
 * catalogs, leaves the owner in its slot, and exits (run_look).
 *
 * The work is a list of steps.  Each has its own transaction and its own errors: one that
 * fails is logged and tried again later, and stops no other.  What can be long, such as
 * reading all jobs, is made in pieces, one a round (common/walk.c).  A crash at any point
 * leaves a transaction undone.
 *
 * Between rounds it sleeps until the next time that it knows of, from the indexes or from
 * commits that make something due (ipc/due.c).  It also looks once in each poll
 * interval, because replication and changes by hand wake nobody.  While it sleeps it
 * holds nothing, and it leaves when somebody needs the database alone (slot.c).
 *
 * Where databases take turns, a scheduler may live for a second.  Its successor goes on
 * where it was: with its walks, its pauses, and what it has told the log (Turn).  One that
 * ends in any other way leaves nothing, and its successor begins anew.
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
#include "common/guc.h"
#include "common/log.h"
#include "common/wait_event.h"
#include "compat.h"
#include "ipc/databases.h"
#include "ipc/due.h"
#include "ipc/lease_table.h"
#include "ipc/session_claim.h"
#include "ipc/slots.h"
#include "ipc/wakeup.h"
#include "jobs/ack.h"
#include "maintenance/cleanup.h"
#include "maintenance/list_check.h"
#include "maintenance/promote.h"
#include "maintenance/reading.h"
#include "maintenance/reclaim.h"
#include "maintenance/server.h"
#include "model/catalog.h"
#include "process/notify.h"
#include "process/process.h"
#include "process/slot.h"
#include "process/worker_demand.h"
#include "schedule/tick.h"
#include "userfn/hook.h"
#include "userfn/hook_failure.h"
#include "userfn/hook_limit.h"

extern PGDLLEXPORT void qml_scheduler_main(Datum arg);

/* Milliseconds. */
#define NOTIFY_INTERVAL	  100
#define PROGRESS_INTERVAL 100
#define LOOK_INTERVAL	  100
#define PROBE_INTERVAL	  1000
#define HISTORY_INTERVAL  100
#define FALLBACK_POLL	  60000 /* for what woke nobody */
#define SERVER_POLL		  10000
#define REFRESH_INTERVAL  (24 * 3600 * 1000)
#define MAX_STEP_BACKOFF  60000

/* Rows of one transaction; fewer if hooks take long. */
#define PROMOTE_BATCH 1000
#define RECLAIM_BATCH 1000
#define TICK_BATCH	  256

/* Long before the machine started. */
#define NEVER (PG_INT64_MIN / 2)

#define MAX_STEPS (QML_LOG_LAST_STEP - QML_LOG_STEP + 1)

/* How far the wall clock may differ from the other one between two rounds. */
#define CLOCK_TOLERANCE 5000

/* A kind of work.  The wall clock may jump, so intervals are on the monotonic one. */
typedef struct Step
{
	const char *activity; /* as pg_stat_activity shows it */
	const char *name;	  /* as the log shows it */
	bool *enabled;
	int wake;				  /* QmlWake that makes it due; -1: none */
	const TimestampTz *asked; /* when another step asks for it; NULL: none does */

	/* How long it may go without a run, if nothing makes it due, in milliseconds: one of these. */
	int64 every;
	const int *setting;
	int64 (*interval)(void);

	TimestampTz (*run)(struct Step *step); /* in a transaction; returns when it is due next */
	TimestampTz due;					   /* on the wall clock; QML_NO_TIME: not known */
	bool unfinished;					   /* a piece of it is done, and the next is due */
	bool owed;							   /* to others: it runs before the scheduler leaves */
	const bool *urgent;					   /* if it points to true: due, and without a pause */
	int64 last;							   /* when it ran last, milliseconds */
	int64 not_before;					   /* after an error, or to save time */
	int failures;						   /* in a row */
	int64 looked;						   /* when it read all rows last, milliseconds */
} Step;

/* What the next scheduler goes on with, if this one leaves because its turn is over. */
typedef struct Turn
{
	struct
	{
		int64 last;
		int64 not_before;
		int64 looked;
		int failures;
		bool unfinished;
	} steps[MAX_STEPS];
	QmlReading reading;
	bool servers_died; /* some were given up since the last look of reclaim_jobs() */
	bool read_now;	   /* all jobs, without a pause */
	QmlWorkerDemand demand;
	int workers; /* qml.workers when workers were asked for last */
	QmlCleanupState cleanup;
	QmlWalk refresh;
	double hook_average;
	QmlLogTimes told;
} Turn;

StaticAssertDecl(sizeof(Turn) <= QML_TURN_BYTES, "there is room for it in shared memory");

static QmlSlot *slot;
static int64 round_began;	/* one time for all steps, so that they are due together */
static Turn turn;			/* the steps use their parts of it in place */
static bool begins = false; /* no scheduler before this one has kept its turn */

/* ----- looking ----- */

/* No background process can run as a role that may not log in or not connect here. */
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

/* Finds out who owns the extension, leaves that in the slot for the launcher, and exits. */
pg_noreturn static void
run_look(void)
{
	PG_TRY();
	{
		qml_process_begin("looking for the extension");
		qml_slot_leave_unless_extension();
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

/* Hooks that have ended a process because they could not be canceled. */
static TimestampTz
disable_stuck_hooks(Step *step)
{
	qml_hook_failure_disable_stuck();
	return QML_NO_TIME;
}

/* Jobs whose time has come become ready. */
static TimestampTz
promote_jobs(Step *step)
{
	int batch = qml_hook_batch_size(PROMOTE_BATCH);
	TimestampTz next;

	/* After a full batch there may be more, in the next round. */
	if (qml_promote_jobs(batch, &next) < batch)
		next = qml_promote_next_due(next);
	return next;
}

/* The earlier of two times, either of which may be missing. */
static TimestampTz
earlier(TimestampTz a, TimestampTz b)
{
	return a == QML_NO_TIME || (b != QML_NO_TIME && b < a) ? b : a;
}

/* When all jobs are to be read, because not all of the claims that run are known. */
static TimestampTz reading_due = QML_NO_TIME;

/*
 * Jobs whose lease is over, and all others that are lost, among the claims that are known.  The
 * jobs of dead servers are looked for when one has died, and now and then, as their rows may have
 * been locked.
 */
static TimestampTz
reclaim_jobs(Step *step)
{
	int64 begun = qml_clock_monotonic_ms();
	bool of_servers = turn.servers_died || next_multiple(step->looked, FALLBACK_POLL, begun) <= 0;
	TimestampTz next;

	if (!qml_lease_table_is_known())
	{
		reading_due = GetCurrentTimestamp();
		/* For jobs of dead servers; and what was begun when all were known has no haste. */
		turn.read_now = turn.read_now || turn.servers_died || qml_reading_is_slow(&turn.reading);
	}
	(void) qml_reclaim_over(qml_hook_batch_size(RECLAIM_BATCH), of_servers, &next);
	/* There may be more; those of servers come last. */
	if (next != QML_NO_TIME && next <= GetCurrentTimestamp())
		return next;
	if (of_servers)
		step->looked = begun;
	turn.servers_died = false;
	step->not_before = begun +
					   Max(LOOK_INTERVAL, (qml_clock_monotonic_ms() - begun) * QML_WALK_SHARE);
	return next;
}

/*
 * Reads all jobs for those that are lost, a piece of them.  What was begun slowly, because all
 * claims were known, begins anew if they are not any more.
 */
static TimestampTz
read_jobs(Step *step)
{
	int64 begun = qml_clock_monotonic_ms();
	bool is_known = qml_lease_table_is_known();
	int64 pause;

	if (!step->unfinished || step->failures > 0 ||
		(qml_reading_is_slow(&turn.reading) && !is_known))
	{
		reading_due = QML_NO_TIME;
		turn.read_now = false;
		step->unfinished = false;
		if (!qml_reading_begin(&turn.reading))
			return QML_NO_TIME;
	}
	step->unfinished = !qml_reading_go_on(&turn.reading, qml_hook_batch_size(RECLAIM_BATCH),
										  &pause);
	step->not_before = begun + pause;
	/* The claims that it has entered: nobody else may tell when they end. */
	if (turn.reading.next != QML_NO_TIME)
		qml_wakeup_at(QML_WAKE_LEASE, turn.reading.next);
	if (!step->unfinished && qml_lease_table_is_known())
	{
		reading_due = QML_NO_TIME;
		/* A server may have died behind it. */
		turn.servers_died = true;
	}
	/* Some claims find no room: the end of a lease is in the row alone. */
	return qml_lease_table_is_known() ? QML_NO_TIME : turn.reading.next;
}

/* Taken from the slot, and not looked at yet. */
static pg_uuid_t lost[QML_MAX_LOST];
static int nlost = 0;

/* The jobs that ended sessions have left in the slot; reclaim_jobs() finds any others. */
static TimestampTz
reclaim_session_jobs(Step *step)
{
	static bool any = false;
	int batch;

	/* First what is left from before: a part, or all of it after an error. */
	if (nlost == 0)
		nlost = qml_session_claim_take_lost(slot, lost, &any);
	if (any)
		qml_wakeup_at(QML_WAKE_LEASE, GetCurrentTimestamp());
	batch = qml_hook_batch_size(nlost);
	/* Some are locked by somebody who may roll back: so look again. */
	if (batch > 0 && qml_reclaim_of_sessions(lost, batch) > 0)
		qml_wakeup_at(QML_WAKE_LEASE, GetCurrentTimestamp() + USECS_PER_SEC);
	nlost -= batch;
	memmove(lost, lost + batch, sizeof(pg_uuid_t) * nlost);
	return nlost > 0 ? GetCurrentTimestamp() : QML_NO_TIME;
}

/* Writes the progress that running jobs have reported into their rows. */
static TimestampTz
write_progress(Step *step)
{
	QmlProgress *progress = palloc(sizeof(QmlProgress));

	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		QmlSlot *worker = &qml_shmem->slots[i];
		QmlAck ack = {.document = PointerGetDatum(progress->document)};

		if (!qml_slots_take_progress(worker, progress))
			continue;
		ack.attempt = progress->attempt;
		qml_ack_write_progress(&progress->job, &ack);
	}
	step->not_before = qml_clock_monotonic_ms() + PROGRESS_INTERVAL;
	return QML_NO_TIME;
}

/* At intervals, however many jobs there are. */
static TimestampTz
notify_listeners(Step *step)
{
	qml_notify_send(slot, step->failures > 0 || (begins && step->looked == NEVER));
	step->looked = round_began;
	step->not_before = qml_clock_monotonic_ms() + NOTIFY_INTERVAL;
	return QML_NO_TIME;
}

/*
 * Searching all ready jobs costs much: only at intervals, the longer the more it costs,
 * and when more workers are allowed.
 */
static TimestampTz
request_workers(Step *step)
{
	bool look = step->looked == NEVER || qml_workers > turn.workers ||
				(next_multiple(step->looked, FALLBACK_POLL, round_began) <= 0 &&
				 round_began - step->looked >= turn.demand.worked * QML_WALK_SHARE);
	int64 wait = PG_INT64_MAX;

	if (qml_workers > 0)
	{
		wait = qml_worker_demand_serve(&turn.demand, slot, look);
		if (look)
			step->looked = round_began;
	}
	turn.workers = qml_workers;
	step->unfinished = wait == 0;
	return wait == 0 || wait == PG_INT64_MAX ? QML_NO_TIME : GetCurrentTimestamp() + wait * 1000;
}

/*
 * Servers outside that have sent no heartbeat are given up.  Their jobs are looked for then, and
 * also when somebody else has given one up.
 */
static TimestampTz
reap_servers(Step *step)
{
	TimestampTz next;

	/* If it is due, a server has been silent for long, or somebody has given one up. */
	if (qml_server_give_up_silent(&next) > 0 ||
		(step->due != QML_NO_TIME && step->due <= GetCurrentTimestamp()))
		turn.servers_died = true;
	/* The rows of some may be locked just now. */
	step->not_before = qml_clock_monotonic_ms() + PROBE_INTERVAL;
	return next;
}

/* Recurring jobs whose time has come. */
static TimestampTz
fire_recurring(Step *step)
{
	QmlTicks ticks;

	qml_tick_poll(qml_hook_batch_size(TICK_BATCH), &ticks);
	return ticks.more ? ticks.as_of : qml_tick_next(ticks.as_of);
}

/* Partitions of the history that are needed next, and jobs that have finished without one. */
static TimestampTz
prepare_history(Step *step)
{
	bool failed;

	step->unfinished = qml_cleanup_prepare(&turn.cleanup, &failed);
	/* What keeps a partition from being made may do so for long. */
	if (!step->unfinished)
		step->not_before = qml_clock_monotonic_ms() + (failed ? FALLBACK_POLL : HISTORY_INTERVAL);
	return QML_NO_TIME;
}

/* One partition in a round, so that a large one holds up the other steps only once. */
static TimestampTz
remove_expired(Step *step)
{
	bool waiting;

	step->unfinished = qml_cleanup_step(&turn.cleanup, &waiting);
	if (waiting)
		step->not_before = qml_clock_monotonic_ms() + PROBE_INTERVAL;
	return QML_NO_TIME;
}

/* Zone data may have changed since next_run_at was computed. */
static TimestampTz
refresh_schedules(Step *step)
{
	step->unfinished = !qml_tick_refresh(&turn.refresh);
	return QML_NO_TIME;
}

/* Finds ready jobs that are missing in the lists of their queues; there should be none. */
static TimestampTz
check_lists(Step *step)
{
	static QmlListCheck check;

	step->unfinished = !qml_list_check_step(&check);
	if (step->unfinished)
		step->not_before = qml_clock_monotonic_ms() + PROBE_INTERVAL;
	return QML_NO_TIME;
}

/* Intervals that are neither fixed nor a setting. */

/* At once when qml.workers has changed: what was asked for before may be lost. */
static int64
worker_interval(void)
{
	return qml_workers != turn.workers ? 1 : FALLBACK_POLL;
}

/* Once a minute unless all claims are known. */
static int64
reading_interval(void)
{
	return qml_reading_interval(FALLBACK_POLL);
}

static int64
server_interval(void)
{
	return Min(SERVER_POLL, qml_dead_server_timeout * 500);
}

static int64
cleanup_interval(void)
{
	return (int64) qml_cleanup_interval * 1000;
}

static Step steps[] = {
	/* First, because any other step could call such a hook again. */
	{.activity = "disabling hooks",
	 .name = "qml scheduler: disabling hooks",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_HOOK,
	 .every = FALLBACK_POLL,
	 .run = disable_stuck_hooks},
	{.activity = "promoting due jobs",
	 .name = "qml scheduler: promotion",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_DUE,
	 .setting = &qml_scheduler_poll_interval,
	 .run = promote_jobs},
	{.activity = "firing recurring jobs",
	 .name = "qml scheduler: firing recurring jobs",
	 .enabled = &qml_recurring_enabled,
	 .wake = QML_WAKE_RECURRING,
	 .setting = &qml_recurring_poll_interval,
	 .run = fire_recurring},
	{.activity = "reclaiming lost jobs",
	 .name = "qml scheduler: reclaiming lost jobs",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_LEASE,
	 .every = FALLBACK_POLL,
	 .urgent = &turn.servers_died,
	 .run = reclaim_jobs},
	/* After it, as that asks for it. */
	{.activity = "reading all jobs",
	 .name = "qml scheduler: reading all jobs",
	 .enabled = &qml_scheduler_enabled,
	 .wake = -1,
	 .asked = &reading_due,
	 .interval = reading_interval,
	 .urgent = &turn.read_now,
	 .run = read_jobs},
	{.activity = "reclaiming jobs of ended sessions",
	 .name = "qml scheduler: reclaiming jobs of ended sessions",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_SESSION,
	 .every = FALLBACK_POLL,
	 .run = reclaim_session_jobs},
	{.activity = "writing progress",
	 .name = "qml scheduler: writing progress",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_PROGRESS,
	 .every = FALLBACK_POLL,
	 .owed = true,
	 .run = write_progress},
	{.activity = "asking for workers",
	 .name = "qml scheduler: asking for workers",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_WORK,
	 .interval = worker_interval,
	 .run = request_workers},
	{.activity = "notifying listeners",
	 .name = "qml scheduler: notifying listeners",
	 .enabled = &qml_enabled,
	 .wake = QML_WAKE_NOTIFY,
	 .every = FALLBACK_POLL,
	 .owed = true,
	 .run = notify_listeners},
	{.activity = "looking for dead servers",
	 .name = "qml scheduler: looking for dead servers",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_SERVER,
	 .interval = server_interval,
	 .run = reap_servers},
	{.activity = "preparing the history",
	 .name = "qml scheduler: preparing the history",
	 .enabled = &qml_scheduler_enabled,
	 .wake = QML_WAKE_HISTORY,
	 .every = FALLBACK_POLL,
	 .run = prepare_history},
	{.activity = "cleaning up",
	 .name = "qml scheduler: cleanup",
	 .enabled = &qml_cleanup_enabled,
	 .wake = -1,
	 .interval = cleanup_interval,
	 .run = remove_expired},
	{.activity = "checking the lists of ready jobs",
	 .name = "qml scheduler: checking the lists of ready jobs",
	 .enabled = &qml_scheduler_enabled,
	 .wake = -1,
	 .every = FALLBACK_POLL,
	 .run = check_lists},
	{.activity = "recomputing schedules",
	 .name = "qml scheduler: recomputing schedules",
	 .enabled = &qml_recurring_enabled,
	 .wake = -1,
	 .every = REFRESH_INTERVAL,
	 .run = refresh_schedules},
};

StaticAssertDecl(lengthof(steps) <= MAX_STEPS, "each step has a kind of log messages");

#define FOREACH_STEP(step) for (Step *step = steps; step < steps + lengthof(steps); step++)

/* Takes from the slot what commits have made due for the step. */
static void
poll_wakeup(Step *step)
{
	TimestampTz time;

	if (step->asked)
		step->due = earlier(step->due, *step->asked);
	if (step->wake < 0)
		return;
	time = qml_due_take(slot, (QmlWake) step->wake);
	if (time != QML_WAKE_NEVER && (step->due == QML_NO_TIME || time < step->due))
		step->due = time;
}

/* Whether a step is due, and no pause keeps it from being done. */
static bool
is_urgent(const Step *step)
{
	return step->urgent && *step->urgent && step->failures == 0;
}

/* How long a step may go without a run; settings may have changed. */
static int64
interval_of(const Step *step)
{
	if (step->setting)
		return *step->setting;
	return step->interval ? step->interval() : step->every;
}

/* Milliseconds until a step is due. */
static int64
time_left(const Step *step)
{
	int64 now = qml_clock_monotonic_ms();
	bool urgent = is_urgent(step);
	int64 left = next_multiple(step->last, interval_of(step), now);

	if (step->unfinished || urgent)
		left = 0;
	else if (step->due != QML_NO_TIME)
		left = Min(left, (step->due - GetCurrentTimestamp() + 999) / 1000);
	return urgent ? left : Max(left, step->not_before - now);
}

/* One run of a step, in its transaction; an error makes it due again, later each time. */
static void
run_step(Step *step)
{
	MemoryContext context = CurrentMemoryContext;

	Assert(*step->enabled && !IsTransactionState());
	step->last = round_began;
	PG_TRY();
	{
		qml_process_begin(step->activity);
		qml_slot_leave_unless_extension();
		step->due = step->run(step);
		qml_process_commit();
		step->failures = 0;
	}
	PG_CATCH();
	{
		ErrorData *error = qml_process_undo();
		/* What is wrong with the extension is logged once, not by each step. */
		QmlLogKind kind = qml_slot_found_extension() ?
							  (QmlLogKind) (QML_LOG_STEP + (step - steps)) :
							  QML_LOG_PROCESS;

		step->failures++;
		/* It is still to be done, and what was taken from the slot may be lost. */
		step->due = GetCurrentTimestamp();
		step->looked = NEVER;
		step->not_before = step->last +
						   Min(INT64CONST(1000) << Min(step->failures - 1, 10), MAX_STEP_BACKOFF);
		/* A step that meets a DROP EXTENSION has no error to log. */
		qml_slot_leave_if_dropped();
		qml_process_log_error(step->name, kind, error);
		/* Not a matter of this step: a new process looks when the extension has changed. */
		if (kind == QML_LOG_PROCESS &&
			error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
			qml_slot_leave(QML_ENDED_FAILED);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

/* ----- the loop ----- */

/* Warns if the clock was set: what is due comes early or late by as much. */
static void
check_clock(void)
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
		/* What was computed as far ahead may be due: run all steps. */
		if (jump > CLOCK_TOLERANCE || jump < -CLOCK_TOLERANCE)
		{
			FOREACH_STEP(step)
				step->last = NEVER;
		}
	}
	last_wall = wall;
	last_monotonic = monotonic;
}

/* For qml.server, at intervals. */
static void
send_heartbeat(void)
{
	static int64 last = NEVER;
	int64 now = qml_clock_monotonic_ms();

	if (next_multiple(last, (int64) qml_heartbeat_interval * 1000, now) > 0)
		return;
	last = now;
	qml_slots_beat(slot);
}

/* One round.  Returns how long to sleep, in milliseconds. */
static int64
do_round(void)
{
	int64 sleep;
	TimestampTz until;

	round_began = qml_clock_monotonic_ms();
	check_clock();
	send_heartbeat();
	FOREACH_STEP(step)
	{
		poll_wakeup(step);
		if (*step->enabled && time_left(step) <= 0)
		{
			qml_slot_leave_if_blocking();
			run_step(step);
			qml_process_handle_signals();
			qml_slot_leave_if_disabled();
		}
	}
	/* First say until when it sleeps, then look again: see ipc/due.c. */
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
		poll_wakeup(step);
		if (*step->enabled)
			sleep = Min(sleep, time_left(step));
	}
	return sleep;
}

/* ----- turns ----- */

/* Goes on where the last scheduler was when its turn was over. */
static void
resume_turn(void)
{
	begins = !qml_databases_take_turn(&turn, sizeof(turn));
	FOREACH_STEP(step)
	{
		step->last = NEVER;
		step->looked = NEVER;
		/* What is known outlives a scheduler. */
		if (step->run == read_jobs && qml_lease_table_is_known())
			step->last = qml_clock_monotonic_ms();
	}
	turn.reading.complete = begins ? -1 : turn.reading.complete;
	if (begins)
		return;
	FOREACH_STEP(step)
	{
		step->due = QML_NO_TIME;
		/* What sessions may have made due is looked at, unless it has to pause. */
		if (step->wake < 0)
			step->last = turn.steps[step - steps].last;
		step->not_before = turn.steps[step - steps].not_before;
		step->looked = turn.steps[step - steps].looked;
		step->failures = turn.steps[step - steps].failures;
		step->unfinished = turn.steps[step - steps].unfinished;
	}
	qml_hook_limit_resume(turn.hook_average);
	qml_log_resume(&turn.told);
}

/*
 * When a step is due that a commit or the step itself has asked for; QML_WAKE_NEVER: it has
 * not.  One that waits for others is looked at again in the next turn.
 */
static TimestampTz
due_at(const Step *step)
{
	int64 wait = step->not_before - qml_clock_monotonic_ms();
	TimestampTz due = step->due;

	if (!*step->enabled)
		return QML_WAKE_NEVER;
	if (is_urgent(step) || (step->unfinished && wait <= 0))
		return GetCurrentTimestamp();
	if (due == QML_NO_TIME)
		return QML_WAKE_NEVER;
	return wait > 0 ? Max(due, GetCurrentTimestamp() + wait * 1000) : due;
}

/* Does what others wait for, and what only a pause has kept from being done. */
static void
pay_debts(void)
{
	FOREACH_STEP(step)
	{
		poll_wakeup(step);
		if (step->owed && *step->enabled && step->failures == 0 && step->due != QML_NO_TIME &&
			step->due <= GetCurrentTimestamp())
			run_step(step);
	}
}

/* The slot is for another database: keeps for the next turn how far this one has come. */
pg_noreturn static void
leave_turn(void)
{
	FOREACH_STEP(step)
	{
		turn.steps[step - steps].last = step->last;
		turn.steps[step - steps].not_before = step->not_before;
		turn.steps[step - steps].looked = step->looked;
		turn.steps[step - steps].failures = step->failures;
		turn.steps[step - steps].unfinished = step->unfinished;
		/* What no commit makes due makes the database wait for its turn all the same. */
		qml_databases_note_due(step->wake >= 0 ? (QmlWake) step->wake : QML_WAKE_DUE, due_at(step));
	}
	turn.hook_average = qml_hook_limit_average();
	qml_log_copy(&turn.told);
	qml_session_claim_give_back_lost(lost, nlost);
	qml_databases_keep_turn(&turn, sizeof(turn));
	qml_slot_leave(QML_ENDED_TURN);
}

/* Rounds, until an error. */
static void
run_rounds(MemoryContext context)
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
		sleep = do_round();
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		/* What polls find waits for the next turn, which comes within a minute. */
		if (slot->leave)
		{
			pay_debts();
			leave_turn();
		}
		if (sleep > 0)
			qml_process_sleep(sleep, wait_event);
		qml_due_awake(slot);
	}
}

/* Rounds for ever: an error outside of the steps is logged, and the next round begins. */
static void
run_scheduler(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "qml scheduler",
												  ALLOCSET_DEFAULT_SIZES);
	resume_turn();
	for (;;)
	{
		PG_TRY();
		{
			MemoryContextSwitchTo(context);
			run_rounds(context);
		}
		PG_CATCH();
		{
			qml_process_log_error("qml scheduler", QML_LOG_PROCESS, qml_process_undo());
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		qml_process_sleep(PROBE_INTERVAL, qml_wait_event("QmlSchedulerMain"));
	}
}

/* Where the postmaster starts the process, also for a look.  arg: the number of its slot. */
void
qml_scheduler_main(Datum arg)
{
	qml_process_start(NULL);
	slot = qml_slot_enter(DatumGetInt32(arg), "qml scheduler");
	Assert(slot->kind == QML_LOOK || slot->role == GetSessionUserId());
	qml_hook_limit_init(NULL, qml_process_is_late);
	qml_process_pin_settings();
	if (slot->kind == QML_LOOK)
		run_look();
	qml_slot_set_ready();
	run_scheduler();
}
