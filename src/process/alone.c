/*
 * alone.c
 *		Running one job in a transaction of its own.
 *
 * The job's timers are armed: its timeout, and the watch of job_stop.c.  A function
 * runs, and its end is recorded, in one transaction.  If that fails, it is undone, and
 * the end of the attempt is recorded in another one (record.c), unless the error was
 * only that of the claim ahead: then the job runs again.
 *
 * A command cannot run in a transaction with anything else (command.c).  Its end is recorded
 * after it has committed.
 *
 * While the job runs, it stands in the worker's slot, so that a session which deletes it
 * can cancel it.  If the deletion is rolled back, the job is released and runs again.
 *
 * Locks: the row of the job, when its end is recorded, or earlier by the handler itself.
 * A crash leaves the job claimed, and what a procedure has committed.
 */
#include "postgres.h"

#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "jobs/perform.h"
#include "jobs/writer.h"
#include "process/alone.h"
#include "process/batch.h"
#include "process/command.h"
#include "process/execute.h"
#include "process/job_stop.h"
#include "process/pace.h"
#include "process/process.h"
#include "process/record.h"
#include "process/session_reset.h"
#include "process/slot.h"
#include "userfn/call.h"

/* Whether the job still belongs to the attempt: it may have been deleted since the claim. */
static bool
is_held(QmlAttempt *attempt)
{
	QmlWriter writer;

	qml_writer_open(&writer, false, false);
	if (!qml_writer_change(&writer, &attempt->job.id, qml_attempt_check_held, attempt))
		attempt->state = QML_ATTEMPT_LOST;
	qml_writer_close(&writer);
	return attempt->state != QML_ATTEMPT_LOST;
}

/* Runs a command, which needs the process to be outside of any transaction. */
static void
run_command(QmlRunner *runner, QmlAttempt *attempt, const QmlHandler *handler)
{
	/* The handler is valid until the transaction ends. */
	char *command = MemoryContextStrdup(runner->job_context, handler->command);

	qml_execute_commit();
	MemoryContextSwitchTo(runner->job_context);
	qml_command_run(runner, attempt, command);
}

/*
 * Calls the handler, records the end of the attempt and commits.  Returns the batch that
 * was claimed ahead, or NULL.  Of a command, the end remains to be recorded.
 */
static QmlBatch *
run_job(QmlRunner *runner, QmlAttempt *attempt)
{
	QmlBatch *batch = runner->batch;
	const QmlHandler *handler = is_held(attempt) ? qml_perform_prepare(attempt) : NULL;
	bool is_last = batch->done + 1 == batch->count;
	bool procedure;
	bool may_commit;
	QmlBatch *next;

	attempt->begun = true;
	if (handler && handler->command)
	{
		run_command(runner, attempt, handler);
		return NULL;
	}
	procedure = handler && qml_call_is_procedure(handler);
	may_commit = procedure && !qml_perform_is_wrapped(handler);
	if (handler)
	{
		double milliseconds;

		qml_job_stop_begin(&attempt->job, attempt->context);
		qml_job_stop_arm_job(&attempt->job);
		if (may_commit)
			qml_execute_procedure(runner, attempt, handler);
		else
			qml_execute_function(runner, attempt, handler);
		attempt->trace = qml_trace_take();
		/* It may have caught the cancel as if it were its own. */
		if (qml_job_stop_timer_reason() == QML_STOP_TIMEOUT)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("canceling a job because of its timeout")));
		milliseconds = qml_job_stop_elapsed_ms();
		runner->spent_ms += milliseconds;
		qml_pace_note(&attempt->job, milliseconds, !procedure);
		MemoryContextSwitchTo(batch->context);
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	qml_record_attempts(runner, attempt, 1, QML_RECORD_WAIT_MS, handler == NULL);
	PopActiveSnapshot();
	/* What has committed something must not run again because a claim failed. */
	next = qml_batch_claim_ahead(runner, is_last && !may_commit);
	qml_execute_commit();
	qml_record_log(runner, attempt, 1);
	return next;
}

/*
 * After an error: undoes the transaction and decides what becomes of the attempt.
 * Returns false if it is to run again.
 */
static bool
undo_job(QmlRunner *runner, QmlAttempt *attempt)
{
	QmlStop reason = qml_job_stop_reason();
	bool deleted;
	bool claim_failed;
	ErrorData *error;

	qml_job_stop_disarm();
	qml_execute_keep_progress(attempt);
	qml_job_stop_end();
	/* The error may have left from within a procedure's portal. */
	ActivePortal = NULL;
	PortalContext = NULL;
	error = qml_process_undo();
	if (attempt->state == QML_ATTEMPT_PENDING)
		attempt->trace = qml_trace_take();
	qml_execute_forget_calls();
	qml_session_reset_leftovers();
	claim_failed = qml_batch_undo_claim_ahead(runner);
	deleted = qml_job_stop_unpublish();

	if (claim_failed && !deleted)
	{
		attempt->state = QML_ATTEMPT_RUN_ALONE;
		return false;
	}
	/*
	 * Already decided, without a run or by the commit of a command: what kept it from being
	 * recorded is not its error.
	 */
	if (!attempt->committed && attempt->state != QML_ATTEMPT_RELEASED &&
		attempt->state != QML_ATTEMPT_FAILED)
		qml_attempt_judge(attempt, error, reason, deleted);
	return true;
}

/* Runs the next job of the batch alone, and records how it ended. */
void
qml_alone_run(QmlRunner *runner)
{
	QmlBatch *batch = runner->batch;
	QmlAttempt *attempt = &batch->attempts[batch->done];
	QmlBatch *volatile next = NULL;
	volatile bool again = false;

	Assert(batch->done < batch->count && !attempt->ended);
	attempt->state = QML_ATTEMPT_PENDING;
	attempt->begun = false;
	attempt->committed = false;
	attempt->trace.traced = false;
	qml_job_stop_publish(&attempt->job);
	MemoryContextSwitchTo(batch->context);
	PG_TRY();
	{
		qml_execute_begin(runner,
						  psprintf("running %s, job %s", TextDatumGetCString(attempt->job.method),
								   qml_job_id_string(&attempt->job.id)));
		next = run_job(runner, attempt);
		(void) qml_job_stop_unpublish();
	}
	PG_CATCH();
	{
		again = !undo_job(runner, attempt);
		/*
		 * It may have been canceled because the extension is being dropped: its end cannot
		 * be recorded then.  If the drop is rolled back it is reclaimed, and not counted.
		 */
		if (!again && attempt->state == QML_ATTEMPT_RELEASED)
			qml_slot_leave_if_blocking();
		if (!again)
			qml_record_apart(runner, attempt);
	}
	PG_END_TRY();
	if (!again && attempt->committed && !attempt->ended)
		qml_record_apart(runner, attempt);
	MemoryContextReset(runner->job_context);
	if (again)
		return;
	batch->done++;
	qml_batch_advance(runner, next);
}
