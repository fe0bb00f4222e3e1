/*
 * job_stop.c
 *		The job that is running, and telling it to stop.
 *
 * A job is stopped by canceling its statement.  `reason` says why: its timeout is
 * over, its group has waited long enough, or the server is shutting down.  A job that
 * is deleted gets the cancel from the session that deletes it (ipc/slots.c), which also
 * sets has_cancel in the slot.
 *
 * A job can catch the cancel and go on.  From the first request to stop, the watch
 * timer counts seconds; after GRACE_SECONDS the process ends, and the scheduler
 * reclaims the job with its attempt counted.  The watch timer also sends the heartbeat
 * of a process whose job runs for long.
 *
 * What is meant for one job must never hit the next:
 *
 *	 - a timer does nothing unless in_job is set, and qml_job_stop_end() clears what
 *	   a timer has requested;
 *	 - a session that deletes a job sends the signal before qml_slots_end_job() returns
 *	   true, so qml_job_stop_unpublish() lets it be delivered and forgets it.
 *
 * When the process ends under a job, qml_job_stop_note_last_job() leaves in shared
 * memory which job it was.  A crash of the server loses that: then every job that was
 * claimed is treated as a suspect.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "utils/timeout.h"

#include "common/clock.h"
#include "common/guc.h"
#include "ipc/session_claim.h"
#include "ipc/slots.h"
#include "process/job_stop.h"
#include "process/process.h"
#include "userfn/current_job.h"

#define WATCH_INTERVAL_MS 1000

/* How many times a stopped job is watched before its process ends: seconds. */
#define GRACE_SECONDS 5

static struct
{
	QmlSlot *slot; /* of this process; set once, as are the timers */
	TimeoutId group_timer;
	TimeoutId job_timer;
	TimeoutId watch_timer;

	/* The job that runs, or ran last: by begin(). */
	const QmlJob *job;
	instr_time began;

	/*
	 * Shared with signal handlers.  in_job is written outside of them, after the two
	 * fields above; the others as noted.
	 */
	volatile sig_atomic_t in_job;
	volatile sig_atomic_t reason;			/* QmlStop: by handlers; reset outside */
	volatile sig_atomic_t group_is_late;	/* by a handler; reset outside */
	volatile sig_atomic_t shutting_down;	/* by a handler; never reset */
	volatile sig_atomic_t shutdown_watched; /* by a handler: seconds since then, in jobs */
	volatile sig_atomic_t stop_watched;		/* by a handler: seconds since the stop */
} state;

/* By signal handlers too.  The first reason stays. */
static void
request_stop(QmlStop reason)
{
	if (!state.in_job)
		return;
	if (state.reason == QML_STOP_NOT)
		state.reason = reason;
	InterruptPending = true;
	QueryCancelPending = true;
}

static void
on_group_timer(void)
{
	state.group_is_late = true;
	request_stop(QML_STOP_GROUP);
}

static void
on_job_timer(void)
{
	request_stop(QML_STOP_TIMEOUT);
}

/*
 * Once a second while a job runs alone, or holds up its group: sends the heartbeat,
 * stops the job when a shutdown has waited for it long enough, and ends the process if
 * the job goes on although it was told to stop.
 */
static void
on_watch_timer(void)
{
	if (!state.in_job)
		return;
	qml_slots_beat(state.slot);
	if (state.shutting_down && ++state.shutdown_watched > qml_shutdown_timeout)
		request_stop(QML_STOP_SHUTDOWN);
	/* Again each time: the job may have caught the first cancel as if it were its own. */
	if (state.reason == QML_STOP_GROUP)
		request_stop(QML_STOP_GROUP);
	if ((state.reason != QML_STOP_NOT || state.slot->has_cancel) &&
		++state.stop_watched > GRACE_SECONDS)
	{
		InterruptPending = true;
		ProcDiePending = true;
	}
}

void
qml_job_stop_init(QmlSlot *slot)
{
	state.slot = slot;
	state.group_timer = RegisterTimeout(USER_TIMEOUT, on_group_timer);
	state.job_timer = RegisterTimeout(USER_TIMEOUT, on_job_timer);
	state.watch_timer = RegisterTimeout(USER_TIMEOUT, on_watch_timer);
}

/* ----- the running job ----- */

/* Publishes in the slot which job the process runs, so that a deletion can cancel it. */
void
qml_job_stop_publish(const QmlJob *job)
{
	Assert(!state.in_job);
	state.reason = QML_STOP_NOT;
	qml_slots_begin_job(state.slot, &job->id);
}

/*
 * After the job: takes it out of the slot.  Returns whether it was canceled because
 * somebody deleted it; that cancel cannot hit the next job any more.
 */
bool
qml_job_stop_unpublish(void)
{
	sigset_t none;

	Assert(!state.in_job);
	if (!qml_slots_end_job(state.slot))
		return false;
	/* The signal has been sent: this delivers it, if it is pending, before it returns. */
	sigemptyset(&none);
	(void) sigprocmask(SIG_BLOCK, &none, NULL);
	QueryCancelPending = false;
	return true;
}

/*
 * From now on the process works for the job: it can be told to stop.  context lives as
 * long as the job's attempt.
 */
void
qml_job_stop_begin(const QmlJob *job, MemoryContext context)
{
	Assert(!state.in_job);
	state.job = job;
	INSTR_TIME_SET_CURRENT(state.began);
	state.reason = QML_STOP_NOT;
	state.in_job = true;
	qml_current_job_begin(job, context);
	/* The timer may have fired just before. */
	if (state.group_is_late)
		request_stop(QML_STOP_GROUP);
}

/* The job has ended, or none was begun: a stop that was meant for it is forgotten. */
void
qml_job_stop_end(void)
{
	state.in_job = false;
	(void) qml_current_job_end();
	if (state.reason != QML_STOP_NOT)
		QueryCancelPending = false;
}

bool
qml_job_stop_is_running(void)
{
	return state.in_job;
}

/* Since the job began; also right after it has ended. */
double
qml_job_stop_elapsed_ms(void)
{
	return qml_clock_ms_since(state.began);
}

/* ----- timers ----- */

/* For a group, which may delay the first of its jobs by so much. */
void
qml_job_stop_arm_group(int milliseconds)
{
	EnableTimeoutParams params[] = {
		{.id = state.group_timer, .type = TMPARAM_AFTER, .delay_ms = milliseconds},
		{.id = state.watch_timer, .type = TMPARAM_EVERY, .delay_ms = WATCH_INTERVAL_MS},
	};

	state.group_is_late = false;
	state.stop_watched = 0;
	enable_timeouts(params, lengthof(params));
}

/* For a job that runs alone. */
void
qml_job_stop_arm_job(const QmlJob *job)
{
	EnableTimeoutParams params[] = {
		{.id = state.job_timer, .type = TMPARAM_AFTER, .delay_ms = job->timeout_ms},
		{.id = state.watch_timer, .type = TMPARAM_EVERY, .delay_ms = WATCH_INTERVAL_MS},
	};

	state.stop_watched = 0;
	enable_timeouts(params, lengthof(params));
}

/* After either; also when none is armed. */
void
qml_job_stop_disarm(void)
{
	DisableTimeoutParams params[] = {
		{.id = state.group_timer},
		{.id = state.job_timer},
		{.id = state.watch_timer},
	};

	disable_timeouts(params, lengthof(params));
	state.group_is_late = false;
}

/* Whether the group must begin no further job. */
bool
qml_job_stop_group_is_late(void)
{
	return state.group_is_late;
}

/* ----- reasons ----- */

/*
 * By a signal handler: the server is shutting down.  The running job may go on for
 * qml.shutdown_timeout; no other begins.
 */
void
qml_job_stop_shut_down(void)
{
	state.shutting_down = true;
	qml_process_stop_waiting();
}

bool
qml_job_stop_is_shutting_down(void)
{
	return state.shutting_down;
}

/* Whether a job runs and was told to stop. */
bool
qml_job_stop_is_requested(void)
{
	return state.in_job && (state.reason != QML_STOP_NOT || state.slot->has_cancel);
}

/* The reason that a timer gave; the job may have caught the cancel. */
QmlStop
qml_job_stop_timer_reason(void)
{
	return state.reason;
}

/*
 * Why a job failed with an error.  A shutdown also ends what the job uses, such as
 * parallel workers and programs, so any error after it began is due to it.
 */
QmlStop
qml_job_stop_reason(void)
{
	if (state.reason == QML_STOP_NOT && state.shutting_down)
		return QML_STOP_SHUTDOWN;
	return state.reason;
}

/*
 * While the process exits under a job: the session that reclaims its jobs must know
 * which one ran, and whether it had run too long.
 */
void
qml_job_stop_note_last_job(void)
{
	QmlLoss loss = QML_LOST_RUNNING;

	Assert(state.in_job);
	if (state.reason == QML_STOP_TIMEOUT)
		loss = QML_LOST_OVERDUE;
	else if (state.reason == QML_STOP_GROUP)
		/* In a group the job's own timeout is not armed. */
		loss = qml_job_stop_elapsed_ms() >= state.job->timeout_ms ? QML_LOST_OVERDUE :
																	QML_LOST_IN_GROUP;
	qml_session_claim_note_last_job(&state.job->id, state.job->attempt, loss);
}
