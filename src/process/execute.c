/*
 * execute.c
 *		Calling the handler of a job, within the transaction of its attempt.
 *
 * A function is called with a level of settings and a snapshot of its own, by jobs/perform.c,
 * which a session that runs jobs itself uses as well.  When it returns,
 * its result or what it requested instead is in the attempt, and the session is reset
 * (session_reset.c).  What was deferred to the end of the transaction is part of the
 * job: deferred triggers fire here, so that their errors are the job's.
 *
 * A procedure may end the transaction and begin others.  What it committed stays, even
 * if it fails later.
 *
 * An error is the caller's to handle (group.c, alone.c).  A crash leaves the transaction
 * undone, the claim as it was.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "pgstat.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "jobs/perform.h"
#include "model/catalog.h"
#include "process/execute.h"
#include "process/job_stop.h"
#include "process/process.h"
#include "process/session_reset.h"
#include "userfn/call.h"
#include "userfn/current_job.h"

/* Handlers' functions made ready for this transaction: QmlCall, all in the context. */
static List *calls = NIL;
static MemoryContext call_context;

void
qml_execute_init(void)
{
	call_context = AllocSetContextCreate(TopMemoryContext, "qml calls", ALLOCSET_DEFAULT_SIZES);
}

/* ----- the transaction ----- */

/* Begins a transaction for jobs; it has none of the time limits of qml's own steps. */
void
qml_execute_begin(QmlRunner *runner, const char *activity)
{
	Assert(!IsTransactionState());
	pgstat_report_activity(STATE_RUNNING, activity);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	runner->recording = NULL;
	qml_session_reset_at_begin();
	(void) qml_catalog_to_work();
	MemoryContextSwitchTo(runner->batch->context);
}

/* Commits a transaction of qml_execute_begin(), or the last one that a procedure began. */
void
qml_execute_commit(void)
{
	Assert(!qml_job_stop_is_running());
	qml_execute_forget_calls();
	qml_process_end_transaction();
	(void) pgstat_report_stat(true);
}

/* At the end of the transaction, and after each error: the calls are of no use then. */
void
qml_execute_forget_calls(void)
{
	calls = NIL;
	MemoryContextReset(call_context);
}

/* ----- calling ----- */

/* The handler's function made ready; a handler that changed is another one. */
static QmlCall *
find_call(const QmlHandler *handler)
{
	MemoryContext oldcontext;
	QmlCall *call;
	ListCell *lc;

	foreach(lc, calls)
	{
		if (qml_call_is_of(lfirst(lc), handler))
			return lfirst(lc);
	}
	oldcontext = MemoryContextSwitchTo(call_context);
	call = qml_call_prepare(handler);
	calls = lappend(calls, call);
	MemoryContextSwitchTo(oldcontext);
	return call;
}

/* The handler has returned: keeps its result, or what it requested instead. */
void
qml_execute_keep_result(QmlRunner *runner, QmlAttempt *attempt, Datum result)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(runner->job_context);

	qml_perform_keep_result(attempt, result);
	AfterTriggerFireDeferred();
	qml_perform_keep_wish(attempt);
	MemoryContextSwitchTo(oldcontext);
}

/* Calls a handler that cannot commit: a function, or anything that is wrapped. */
void
qml_execute_function(QmlRunner *runner, QmlAttempt *attempt, const QmlHandler *handler)
{
	int guc_level = NewGUCNestLevel();

	Assert(qml_job_stop_is_running());
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(runner->job_context);
	QML_FAULT("run.before_call");
	qml_execute_keep_result(runner, attempt, qml_perform_call(&attempt->job, handler, find_call));
	QML_FAULT("run.after_call");
	PopActiveSnapshot();
	AtEOXact_GUC(false, guc_level);
	qml_session_reset_after_function();
}

/* Calls a procedure, which may end the transaction and begin others. */
void
qml_execute_procedure(QmlRunner *runner, QmlAttempt *attempt, const QmlHandler *handler)
{
	Assert(qml_job_stop_is_running());
	MemoryContextSwitchTo(runner->job_context);
	QML_FAULT("run.before_call");
	qml_execute_keep_result(runner, attempt, qml_call_procedure(handler, &attempt->job, false));
	QML_FAULT("run.after_call");
	qml_session_reset_after_procedure();
}

/* After an error: the progress that the handler reported before stays with the job. */
void
qml_execute_keep_progress(QmlAttempt *attempt)
{
	if (qml_job_stop_is_running())
		attempt->progress = qml_current_job_end()->progress;
}
