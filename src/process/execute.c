/*
 * execute.c
 *		Calling the handler of a job, within the transaction of its attempt.
 *
 * A function is called with a level of settings and a snapshot of its own; middleware
 * stands around it unless the handler's option `middleware` is false.  When it returns,
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
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "model/catalog.h"
#include "process/execute.h"
#include "process/process.h"
#include "process/session_reset.h"
#include "userfn/call.h"
#include "userfn/current_job.h"
#include "userfn/hook_job.h"
#include "userfn/middleware.h"

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

/* ----- preparing ----- */

/* The handler of a job if it is this worker's to run, which its role decides; or NULL. */
const QmlHandler *
qml_execute_handler(const QmlJob *job)
{
	const QmlHandler *handler = qml_hook_job_handler(job);

	return handler && handler->run_as == GetSessionUserId() && !qml_handler_is_revoked(handler) ?
			   handler :
			   NULL;
}

/* The handler, if the job can be run; otherwise NULL, and the attempt's state is set. */
const QmlHandler *
qml_execute_prepare(QmlAttempt *attempt)
{
	const QmlHandler *handler = qml_execute_handler(&attempt->job);
	QmlProblem problem;
	bool allowed;

	if (handler == NULL)
	{
		/* It was unregistered or revoked since the claim, or given to another role. */
		attempt->state = QML_ATTEMPT_RELEASED;
		return NULL;
	}
	allowed = qml_hook_job_is_allowed(&attempt->job, &problem);
	if (allowed && qml_handler_usable(handler, &problem))
	{
		if (!qml_handler_ignores(handler, attempt->job.payload))
			return handler;
		/* It was enqueued before the command was registered. */
		qml_attempt_fail(attempt, "a command takes no payload", "QM008", (Datum) 0, false);
		return NULL;
	}
	/* A function may be repaired; a right that was lost is not for the job to wait for. */
	qml_attempt_fail(attempt,
					 problem.detail ? psprintf("%s: %s", problem.message, problem.detail) :
									  problem.message,
					 unpack_sql_state(problem.sqlerrcode), (Datum) 0, allowed);
	return NULL;
}

/* Whether middleware stands around the handler. */
bool
qml_execute_is_wrapped(const QmlHandler *handler)
{
	return !handler->options.no_middleware && qml_middleware_wanted();
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

/* What middleware calls in the end, and what is called without any. */
typedef struct HandlerCall
{
	const QmlHandler *handler;
	const QmlJob *job;
	bool wrapped;
} HandlerCall;

/* The innermost call: the handler itself. */
static Datum
call_handler(void *arg)
{
	HandlerCall *this = arg;

	if (qml_call_is_procedure(this->handler))
		return qml_call_procedure(this->handler, this->job, true);
	/*
	 * Middleware may undo a subtransaction around the call and call again: what the
	 * function remembers between calls must not outlive that, so it is made anew.
	 */
	if (this->wrapped)
		return qml_call_function(qml_call_prepare(this->handler), this->job);
	return qml_call_function(find_call(this->handler), this->job);
}

/* The handler has returned: keeps its result, or what it requested instead. */
void
qml_execute_keep_result(QmlRunner *runner, QmlAttempt *attempt, Datum result)
{
	const QmlCurrent *said;
	MemoryContext oldcontext = MemoryContextSwitchTo(attempt->context);

	attempt->result = result == (Datum) 0 ? result : PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
	MemoryContextSwitchTo(runner->job_context);
	AfterTriggerFireDeferred();
	MemoryContextSwitchTo(attempt->context);
	said = qml_current_job_end();
	attempt->progress = said->progress;
	attempt->delay = said->delay;
	attempt->reason = said->reason;
	attempt->state = said->wish == QML_WISH_LATER	? QML_ATTEMPT_RETRY_LATER :
					 said->wish == QML_WISH_DISCARD ? QML_ATTEMPT_DISCARDED :
													  QML_ATTEMPT_SUCCEEDED;
	MemoryContextSwitchTo(oldcontext);
}

/* Calls a handler that cannot commit: a function, or anything that is wrapped. */
void
qml_execute_function(QmlRunner *runner, QmlAttempt *attempt, const QmlHandler *handler)
{
	HandlerCall this = {.handler = handler,
						.job = &attempt->job,
						.wrapped = qml_execute_is_wrapped(handler)};
	int guc_level = NewGUCNestLevel();

	Assert(qml_job_stop_is_running());
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(runner->job_context);
	QML_FAULT("run.before_call");
	qml_execute_keep_result(runner, attempt,
							this.wrapped ? qml_middleware_run(&attempt->job, call_handler, &this) :
										   call_handler(&this));
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
