/*
 * scheduler.c
 *		The process that does what is due in a database: it promotes jobs, reclaims
 *		lost ones, fires recurring ones, asks for workers, and cleans up (steps.c).
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
 * where it was: with its walks, its pauses, and what it has told the log (QmlTurn).  One that
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
#include "common/wait_event.h"
#include "compat.h"
#include "ipc/databases.h"
#include "ipc/due.h"
#include "ipc/slots.h"
#include "model/catalog.h"
#include "process/process.h"
#include "process/slot.h"
#include "process/steps.h"
#include "userfn/hook_limit.h"

extern PGDLLEXPORT void qml_scheduler_main(Datum arg);

/* Milliseconds. */
#define MAX_STEP_BACKOFF 60000

/* How far the wall clock may differ from the other one between two rounds. */
#define CLOCK_TOLERANCE 5000

QmlScheduler qml_scheduler = {NULL, 0, false};

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

/* Takes from the slot what commits have made due for the step. */
static void
poll_wakeup(QmlStep *step)
{
	TimestampTz time;

	if (step->asked)
		step->due = qml_steps_earlier(step->due, *step->asked);
	if (step->wake < 0)
		return;
	time = qml_due_take(qml_scheduler.slot, (QmlWake) step->wake);
	if (time != QML_WAKE_NEVER && (step->due == QML_NO_TIME || time < step->due))
		step->due = time;
}

/* Whether a step is due, and no pause keeps it from being done. */
static bool
is_urgent(const QmlStep *step)
{
	return step->urgent && *step->urgent && step->failures == 0;
}

/* How long a step may go without a run; settings may have changed. */
static int64
interval_of(const QmlStep *step)
{
	if (step->setting)
		return *step->setting;
	return step->interval ? step->interval() : step->every;
}

/* Milliseconds until a step is due. */
static int64
time_left(const QmlStep *step)
{
	int64 now = qml_clock_monotonic_ms();
	bool urgent = is_urgent(step);
	int64 left = qml_steps_next_multiple(step->last, interval_of(step), now);

	if (step->unfinished || urgent)
		left = 0;
	else if (step->due != QML_NO_TIME)
		left = Min(left, (step->due - GetCurrentTimestamp() + 999) / 1000);
	return urgent ? left : Max(left, step->not_before - now);
}

/* One run of a step, in its transaction; an error makes it due again, later each time. */
static void
run_step(QmlStep *step)
{
	MemoryContext context = CurrentMemoryContext;

	Assert(*step->enabled && !IsTransactionState());
	step->last = qml_scheduler.round_began;
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
							  (QmlLogKind) (QML_LOG_STEP + (step - qml_steps)) :
							  QML_LOG_PROCESS;

		step->failures++;
		/* It is still to be done, and what was taken from the slot may be lost. */
		step->due = GetCurrentTimestamp();
		step->looked = QML_STEP_NEVER;
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
			FOREACH_QML_STEP(step)
			step->last = QML_STEP_NEVER;
		}
	}
	last_wall = wall;
	last_monotonic = monotonic;
}

/* For qml.server, at intervals. */
static void
send_heartbeat(void)
{
	static int64 last = QML_STEP_NEVER;
	int64 now = qml_clock_monotonic_ms();

	if (qml_steps_next_multiple(last, (int64) qml_heartbeat_interval * 1000, now) > 0)
		return;
	last = now;
	qml_slots_beat(qml_scheduler.slot);
}

/* One round.  Returns how long to sleep, in milliseconds. */
static int64
do_round(void)
{
	int64 sleep;
	TimestampTz until;

	qml_scheduler.round_began = qml_clock_monotonic_ms();
	check_clock();
	send_heartbeat();
	FOREACH_QML_STEP(step)
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
	sleep = qml_steps_next_multiple(qml_scheduler.round_began, QML_STEP_PROBE,
									qml_clock_monotonic_ms());
	FOREACH_QML_STEP(step)
	{
		if (*step->enabled)
			sleep = Min(sleep, time_left(step));
	}
	until = GetCurrentTimestamp() + Max(sleep, 0) * 1000;
	qml_due_sleep_until(qml_scheduler.slot, until);
	FOREACH_QML_STEP(step)
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
	qml_scheduler.begins = !qml_databases_take_turn(&qml_turn, sizeof(qml_turn));
	FOREACH_QML_STEP(step)
	{
		step->last = QML_STEP_NEVER;
		step->looked = QML_STEP_NEVER;
		/* What is known outlives a scheduler. */
		if (step->is_done && step->is_done())
			step->last = qml_clock_monotonic_ms();
	}
	qml_turn.reading.complete = qml_scheduler.begins ? -1 : qml_turn.reading.complete;
	if (qml_scheduler.begins)
		return;
	FOREACH_QML_STEP(step)
	{
		step->due = QML_NO_TIME;
		/* What sessions may have made due is looked at, unless it has to pause. */
		if (step->wake < 0)
			step->last = qml_turn.steps[step - qml_steps].last;
		step->not_before = qml_turn.steps[step - qml_steps].not_before;
		step->looked = qml_turn.steps[step - qml_steps].looked;
		step->failures = qml_turn.steps[step - qml_steps].failures;
		step->unfinished = qml_turn.steps[step - qml_steps].unfinished;
	}
	qml_hook_limit_resume(qml_turn.hook_average);
	qml_log_resume(&qml_turn.told);
}

/*
 * When a step is due that a commit or the step itself has asked for; QML_WAKE_NEVER: it has
 * not.  One that waits for others is looked at again in the next turn.
 */
static TimestampTz
due_at(const QmlStep *step)
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
	FOREACH_QML_STEP(step)
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
	FOREACH_QML_STEP(step)
	{
		qml_turn.steps[step - qml_steps].last = step->last;
		qml_turn.steps[step - qml_steps].not_before = step->not_before;
		qml_turn.steps[step - qml_steps].looked = step->looked;
		qml_turn.steps[step - qml_steps].failures = step->failures;
		qml_turn.steps[step - qml_steps].unfinished = step->unfinished;
		/* What no commit makes due makes the database wait for its turn all the same. */
		qml_databases_note_due(step->wake >= 0 ? (QmlWake) step->wake : QML_WAKE_DUE, due_at(step));
	}
	qml_turn.hook_average = qml_hook_limit_average();
	qml_log_copy(&qml_turn.told);
	qml_steps_give_back();
	qml_databases_keep_turn(&qml_turn, sizeof(qml_turn));
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
		if (qml_scheduler.slot->leave)
		{
			pay_debts();
			leave_turn();
		}
		if (sleep > 0)
			qml_process_sleep(sleep, wait_event);
		qml_due_awake(qml_scheduler.slot);
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
		qml_process_sleep(QML_STEP_PROBE, qml_wait_event("QmlSchedulerMain"));
	}
}

/* Where the postmaster starts the process, also for a look.  arg: the number of its slot. */
void
qml_scheduler_main(Datum arg)
{
	qml_process_start(NULL);
	qml_scheduler.slot = qml_slot_enter(DatumGetInt32(arg), "qml scheduler");
	Assert(qml_scheduler.slot->kind == QML_LOOK || qml_scheduler.slot->role == GetSessionUserId());
	qml_hook_limit_init(NULL, qml_process_is_late);
	qml_process_pin_settings();
	if (qml_scheduler.slot->kind == QML_LOOK)
		run_look();
	qml_slot_set_ready();
	run_scheduler();
}
