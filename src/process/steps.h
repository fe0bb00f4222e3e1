/*
 * steps.h
 *		What a scheduler does, step by step.
 */
#ifndef QML_STEPS_H
#define QML_STEPS_H

#include "common/log.h"
#include "common/walk.h"
#include "diagnosis/alert_checks.h"
#include "ipc/shmem.h"
#include "maintenance/cleanup.h"
#include "maintenance/reading.h"
#include "process/worker_demand.h"

/* Long before the machine started. */
#define QML_STEP_NEVER (PG_INT64_MIN / 2)

#define QML_MAX_STEPS (QML_LOG_LAST_STEP - QML_LOG_STEP + 1)

/* Milliseconds: what no commit makes due is looked at so often. */
#define QML_STEP_POLL 60000

/* The same, of what may have changed soon. */
#define QML_STEP_PROBE 1000

/* A kind of work.  The wall clock may jump, so intervals are on the monotonic one. */
typedef struct QmlStep
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

	TimestampTz (*run)(struct QmlStep *step); /* in a transaction; returns when it is due next */
	TimestampTz due;						  /* on the wall clock; QML_NO_TIME: not known */
	bool unfinished;						  /* a piece of it is done, and the next is due */
	bool owed;								  /* to others: it runs before the scheduler leaves */
	bool (*is_done)(void);					  /* whether a new scheduler need not begin with it */
	const bool *urgent;						  /* if it points to true: due, and without a pause */
	int64 last;								  /* when it ran last, milliseconds */
	int64 not_before;						  /* after an error, or to save time */
	int failures;							  /* in a row */
	int64 looked;							  /* when it read all rows last, milliseconds */
} QmlStep;

/* What the next scheduler goes on with, if this one leaves because its turn is over. */
typedef struct QmlTurn
{
	struct
	{
		int64 last;
		int64 not_before;
		int64 looked;
		int failures;
		bool unfinished;
	} steps[QML_MAX_STEPS];
	QmlReading reading;
	bool servers_died; /* some were given up since the last look of reclaim_jobs() */
	bool read_now;	   /* all jobs, without a pause */
	QmlWorkerDemand demand;
	int workers; /* qml.workers when workers were asked for last */
	QmlCleanupState cleanup;
	QmlWalk refresh;
	QmlAlertChecks alerts;
	double hook_average;
	QmlLogTimes told;
} QmlTurn;

StaticAssertDecl(sizeof(QmlTurn) <= QML_TURN_BYTES, "there is room for it in shared memory");

/* What the loop tells the steps. */
typedef struct QmlScheduler
{
	QmlSlot *slot;
	int64 round_began; /* one time for all steps, so that they are due together */
	bool begins;	   /* no scheduler before this one has kept its turn */
} QmlScheduler;

extern QmlScheduler qml_scheduler;
extern QmlTurn qml_turn; /* the steps use their parts of it in place */
extern QmlStep qml_steps[];
extern const int qml_steps_count;

#define FOREACH_QML_STEP(step) \
	for (QmlStep *step = qml_steps; step < qml_steps + qml_steps_count; step++)

extern int64 qml_steps_next_multiple(int64 last, int64 interval, int64 now);
extern TimestampTz qml_steps_earlier(TimestampTz a, TimestampTz b);
extern void qml_steps_give_back(void);

#endif
