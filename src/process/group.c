/*
 * group.c
 *		Running a group of short jobs in one transaction.
 *
 * Each job has its own subtransaction, so that its error undoes nothing of the others.
 * The transaction then records how all of them ended, and claims what comes next: a
 * group costs one commit.  Of a group:
 *
 *	 - it has at most QML_GROUP_MAX_JOBS, so that their subtransactions fit into what a
 *	   snapshot remembers of this process;
 *	 - nobody waits for it longer than QML_GROUP_MAX_MS: when that time is over, the job
 *	   that is running is undone and runs again, alone, and the others commit;
 *	 - a job that was deleted or reclaimed while it ran undoes the whole group, whose
 *	   jobs then run again, each alone;
 *	 - a job that somebody is deleting, and does not commit, undoes it too: then only
 *	   this one runs alone, and the others again as a group.
 *
 * Locks: the rows of the group's jobs, in the order of the batch, until the commit.  A
 * crash leaves all of them claimed and unchanged.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "jobs/perform.h"
#include "process/batch.h"
#include "process/execute.h"
#include "process/group.h"
#include "process/job_stop.h"
#include "process/pace.h"
#include "process/process.h"
#include "process/record.h"
#include "process/session_reset.h"
#include "userfn/call.h"
#include "userfn/handler.h"
#include "userfn/hook_limit.h"

/* Whether a job may be in a group, as far as can be told without asking the catalogs. */
bool
qml_group_looks_short(const QmlAttempt *attempt)
{
	return attempt->state != QML_ATTEMPT_RUN_ALONE && qml_batch_may_group(&attempt->job, 1);
}

/*
 * The same, in a transaction: a procedure may commit, and so cannot be in a group, nor can a
 * command.
 */
static bool
may_be_in_group(const QmlAttempt *attempt)
{
	const QmlHandler *handler;

	if (!qml_group_looks_short(attempt))
		return false;
	handler = qml_perform_handler(&attempt->job);
	if (handler && handler->command)
		return false;
	return handler == NULL || qml_handler_signature(handler) == NULL ||
		   !qml_call_is_procedure(handler);
}

/* Runs a job in its subtransaction; its state says what came of it. */
static void
run_job(QmlRunner *runner, QmlAttempt *attempt, const QmlHandler *handler)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	double milliseconds;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(runner->job_context);
	qml_job_stop_begin(&attempt->job, attempt->context);
	PG_TRY();
	{
		QML_FAULT("group.before_call");
		qml_execute_function(runner, attempt, handler);
		QML_FAULT("group.after_call");
		/* A cancel that it left behind is its own. */
		CHECK_FOR_INTERRUPTS();
		/* It was told to stop, and caught the cancel as if it were its own. */
		if (qml_job_stop_timer_reason() != QML_STOP_NOT)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("canceling a job for its group")));
		qml_job_stop_end();
		attempt->trace = qml_trace_take();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;
		QmlStop reason = qml_job_stop_reason();

		qml_execute_keep_progress(attempt);
		qml_job_stop_end();
		MemoryContextSwitchTo(runner->job_context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		qml_session_reset_leftovers();
		qml_execute_forget_calls();
		attempt->trace = qml_trace_take();
		qml_attempt_judge(attempt, error, reason, false);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	MemoryContextReset(runner->job_context);

	milliseconds = qml_job_stop_elapsed_ms();
	runner->spent_ms += milliseconds;
	qml_pace_note(&attempt->job, milliseconds, attempt->state != QML_ATTEMPT_RUN_ALONE);
}

/*
 * Runs jobs from batch->done on as long as they may be in a group.  Returns the end of
 * those that are to be recorded.
 */
static int
run_jobs(QmlRunner *runner)
{
	QmlBatch *batch = runner->batch;
	int i = batch->done;
	/* Hooks are called when all have run. */
	int end = Min(batch->count, i + qml_hook_limit_room(QML_GROUP_MAX_MS));

	qml_job_stop_arm_group(QML_GROUP_MAX_MS);
	for (; i < end; i++)
	{
		QmlAttempt *attempt = &batch->attempts[i];
		const QmlHandler *handler;

		if (qml_job_stop_group_is_late() || qml_job_stop_is_shutting_down() ||
			qml_session_reset_constraints_set())
			break;
		/* Handlers have subtransactions too: a snapshot must be able to hold all of them. */
		if (MyProc->subxidStatus.overflowed || MyProc->subxidStatus.count >= QML_GROUP_MAX_JOBS)
			break;
		if (!may_be_in_group(attempt))
		{
			/* Its handler has changed since the claim. */
			attempt->state = QML_ATTEMPT_RUN_ALONE;
			break;
		}
		handler = qml_perform_prepare(attempt);
		attempt->begun = true;
		if (handler)
			run_job(runner, attempt, handler);
		if (attempt->state == QML_ATTEMPT_RUN_ALONE)
			break;
	}
	qml_job_stop_disarm();
	return i;
}

/* After the error of a group, which has undone it: how its jobs [done, end) run again. */
static void
undo_group(QmlRunner *runner, const ErrorData *error, int end)
{
	QmlBatch *batch = runner->batch;
	QmlAttempt *blocked = NULL;

	(void) qml_batch_undo_claim_ahead(runner);
	/* If a row was waited for, it is known whose: the others can do without that job. */
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		blocked = runner->recording;
	for (int i = batch->done; i < end; i++)
	{
		batch->attempts[i].state = blocked ? QML_ATTEMPT_PENDING : QML_ATTEMPT_RUN_ALONE;
		batch->attempts[i].begun = false;
	}
	if (blocked)
		blocked->state = QML_ATTEMPT_RUN_ALONE;
	runner->recording = NULL;
	ereport(DEBUG1, (errmsg("a group of jobs is rolled back: %s", error->message)));
}

/* Runs the next jobs of the batch as a group, and records how they ended. */
void
qml_group_run(QmlRunner *runner)
{
	QmlBatch *batch = runner->batch;
	int first = batch->done;
	volatile int end = first;
	QmlBatch *volatile next = NULL;
	volatile bool done = false;

	Assert(first < batch->count);
	MemoryContextSwitchTo(batch->context);
	PG_TRY();
	{
		qml_execute_begin(runner, psprintf("running %s",
										   TextDatumGetCString(batch->attempts[first].job.method)));
		PushActiveSnapshot(GetTransactionSnapshot());
		end = run_jobs(runner);
		QML_FAULT("group.before_finish");
		qml_record_attempts(runner, &batch->attempts[first], end - first, QML_GROUP_MAX_MS, false);
		PopActiveSnapshot();
		QML_FAULT("group.before_claim");
		next = qml_batch_claim_ahead(runner, end == batch->count);
		QML_FAULT("group.before_commit");
		qml_execute_commit();
		done = true;
		qml_record_log(runner, &batch->attempts[first], end - first);
	}
	PG_CATCH();
	{
		qml_job_stop_disarm();
		qml_job_stop_end();
		qml_execute_forget_calls();
		/*
		 * The error is not due to a job, and is the loop's to handle.  Jobs before it may
		 * have run; they are undone with the transaction, so none has begun.
		 */
		if (end == first)
		{
			for (int i = first; i < batch->count; i++)
				batch->attempts[i].begun = false;
			PG_RE_THROW();
		}
		undo_group(runner, qml_process_undo(), end);
	}
	PG_END_TRY();
	if (!done)
		return;
	batch->done = end;
	qml_batch_advance(runner, next);
}
