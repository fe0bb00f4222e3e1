/*
 * record.c
 *		Recording how attempts ended: in their jobs' rows, now or later.
 *
 * The end of an attempt that had effects is recorded in the transaction of these
 * effects (qml_record_attempts): both commit, or neither.  The end of one whose
 * transaction was undone, or that was a command (command.c), is recorded in a transaction of
 * its own (qml_record_apart).
 *
 * A session that deletes a job holds its row locked until it commits, and may take its
 * time.  An attempt that has ended meanwhile and cannot be recorded is copied to the
 * list `unrecorded`, so that it holds up no other job; flushing tries it again.  Such
 * attempts have no effects left to commit.  When the process ends before they are
 * recorded, their jobs are reclaimed, and the attempts counted unless they were released.
 *
 * Locks: those of jobs/writer.c, in its order.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "common/clock.h"
#include "common/guc.h"
#include "errcodes.h"
#include "ipc/session_claim.h"
#include "jobs/writer.h"
#include "process/job_stop.h"
#include "process/process.h"
#include "process/record.h"
#include "process/session_reset.h"

#define FLUSH_INTERVAL_MS 1000

static List *unrecorded = NIL; /* of QmlAttempt, each in a context of its own */
static int64 flushed_at;	   /* monotonic, milliseconds: when that was tried last */

/* ----- recording ----- */

/*
 * In the transaction of the jobs: ends attempts.  Raises QM003 if one that had effects
 * belongs to somebody else by now.  catch_hook_errors: for qml_writer_open().
 *
 * A job's row may be locked for long by somebody who deletes it: after wait_ms, 55P03 is
 * raised, with runner->recording at the attempt.  A job that runs alone has its timers
 * armed until its end is recorded; these limit the wait then.
 */
void
qml_record_attempts(QmlRunner *runner, QmlAttempt *attempts, int count, int wait_ms,
					bool catch_hook_errors)
{
	bool in_job = qml_job_stop_is_running();
	char value[16];
	int guc_level;
	QmlWriter writer;

	Assert(IsTransactionState());
	qml_writer_open(&writer, true, catch_hook_errors);
	/* The attempts hold their jobs; the scheduler may have updated the progress of one. */
	writer.latest = true;

	/* An error undoes the transaction, and with it this setting. */
	guc_level = NewGUCNestLevel();
	snprintf(value, sizeof(value), "%d", in_job ? 0 : wait_ms);
	qml_guc_set("lock_timeout", value);
	for (int i = 0; i < count; i++)
	{
		QmlAttempt *attempt = &attempts[i];
		bool effects = qml_attempt_has_effects(attempt);

		runner->recording = attempt;
		if (!qml_writer_change(&writer, &attempt->job.id, qml_attempt_finish, attempt))
			attempt->state = QML_ATTEMPT_LOST;
		if (attempt->state == QML_ATTEMPT_LOST && effects)
			ereport(ERROR,
					(errcode(ERRCODE_QML_STALE_CLAIM),
					 errmsg("attempt %d does not hold job %s", attempt->job.attempt,
							qml_job_id_string(&attempt->job.id))));
	}
	runner->recording = NULL;
	AtEOXact_GUC(true, guc_level);

	/* The rest is not the job's: hooks have time limits of their own. */
	if (in_job)
	{
		qml_job_stop_disarm();
		qml_job_stop_end();
	}
	qml_writer_close(&writer);
}

/* After the commit: logs the attempts that were traced and have ended. */
void
qml_record_log(QmlRunner *runner, const QmlAttempt *attempts, int count)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(runner->job_context);

	/* The caller must get to note that they are committed, whatever signal arrives. */
	HOLD_INTERRUPTS();
	for (int i = 0; i < count; i++)
		qml_attempt_log(&attempts[i]);
	RESUME_INTERRUPTS();
	MemoryContextSwitchTo(oldcontext);
}

/* In a transaction of its own: ends an attempt.  False if its row stayed locked. */
static bool
record_alone(QmlRunner *runner, QmlAttempt *attempt, int wait_ms)
{
	volatile bool recorded = true;

	PG_TRY();
	{
		qml_process_begin("recording an attempt");
		qml_record_attempts(runner, attempt, 1, wait_ms, true);
		qml_process_commit();
		qml_record_log(runner, attempt, 1);
	}
	PG_CATCH();
	{
		ErrorData *error = qml_process_undo();

		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		recorded = false;
	}
	PG_END_TRY();
	return recorded;
}

/*
 * Ends an attempt whose own transaction was undone, or committed by itself.  The session is
 * reset first: what a procedure has set may stand in the way, such as
 * default_transaction_read_only.
 */
void
qml_record_apart(QmlRunner *runner, QmlAttempt *attempt)
{
	Assert(!IsTransactionState());
	attempt->ended = true;
	qml_process_begin("resetting the session");
	qml_session_reset_after_procedure();
	qml_process_commit();
	if (!record_alone(runner, attempt, QML_RECORD_WAIT_MS))
		qml_record_postpone(attempt);
}

/* ----- what is not recorded yet ----- */

/* Keeps a copy of an attempt that has ended, without effects, to be recorded later. */
void
qml_record_postpone(const QmlAttempt *attempt)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "qml unrecorded attempt",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	QmlAttempt *copy = palloc(sizeof(QmlAttempt));

	Assert(!qml_attempt_has_effects(attempt));
	qml_attempt_copy(attempt, copy);
	MemoryContextSwitchTo(TopMemoryContext);
	unrecorded = lappend(unrecorded, copy);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Records those whose rows are free by now; waits so long for the first of the others
 * only.  Returns how many are left.
 */
int
qml_record_flush(QmlRunner *runner, int wait_ms)
{
	ListCell *lc;

	foreach(lc, unrecorded)
	{
		QmlAttempt *attempt = lfirst(lc);

		if (!record_alone(runner, attempt, wait_ms))
		{
			wait_ms = QML_GROUP_MAX_MS;
			continue;
		}
		unrecorded = foreach_delete_current(unrecorded, lc);
		MemoryContextDelete(attempt->context);
	}
	flushed_at = qml_clock_monotonic_ms();
	return list_length(unrecorded);
}

/* The same, not more often than makes sense, and hardly waiting. */
void
qml_record_flush_if_due(QmlRunner *runner)
{
	if (unrecorded != NIL && qml_clock_monotonic_ms() - flushed_at >= FLUSH_INTERVAL_MS)
		(void) qml_record_flush(runner, QML_GROUP_MAX_MS);
}

bool
qml_record_has_unrecorded(void)
{
	return unrecorded != NIL;
}

/* From now on the session claims these jobs and no others: see ipc/session_claim.c. */
void
qml_record_hold_unrecorded(void)
{
	ListCell *lc;

	qml_session_claim_hold_none();
	foreach(lc, unrecorded)
		qml_session_claim_hold(&((QmlAttempt *) lfirst(lc))->job.id);
}

/*
 * While the process exits: these have run as well and are counted, unless they are
 * released.  Returns whether there are any.
 */
bool
qml_record_note_unrecorded(void)
{
	bool noted = false;
	ListCell *lc;

	foreach(lc, unrecorded)
	{
		const QmlAttempt *attempt = lfirst(lc);

		if (attempt->state == QML_ATTEMPT_RELEASED)
			continue;
		qml_session_claim_note_last_job(&attempt->job.id, attempt->job.attempt, QML_LOST_RUNNING);
		noted = true;
	}
	return noted;
}
