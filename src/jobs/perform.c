/*
 * perform.c
 *		Performing a job: what a background worker (process/execute.c) and a session that runs
 *		jobs in its own transaction (jobs/session_run.c) have in common.
 *
 * Which handler runs the job and whether it can, the call within its middleware, and what the
 * attempt comes to when it returns.  Middleware stands around the handler unless the handler's
 * option `middleware` is false.  A procedure within middleware cannot commit.
 *
 * Nothing here begins or ends a (sub)transaction or handles an error: callers do.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "jobs/perform.h"
#include "userfn/current_job.h"
#include "userfn/hook_job.h"
#include "userfn/middleware.h"

/* ----- before the call ----- */

/* The handler of a job if it is this session's to run, which its role decides; or NULL. */
const QmlHandler *
qml_perform_handler(const QmlJob *job)
{
	const QmlHandler *handler = qml_hook_job_handler(job);

	return handler && handler->run_as == GetSessionUserId() && !qml_handler_is_revoked(handler) ?
			   handler :
			   NULL;
}

/* The handler, if the job can be run; otherwise NULL, and the attempt's state is set. */
const QmlHandler *
qml_perform_prepare(QmlAttempt *attempt)
{
	const QmlHandler *handler = qml_perform_handler(&attempt->job);
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
qml_perform_is_wrapped(const QmlHandler *handler)
{
	return !handler->options.no_middleware && qml_middleware_wanted();
}

/* ----- the call ----- */

/* What middleware calls in the end, and what is called without any. */
typedef struct HandlerCall
{
	const QmlHandler *handler;
	const QmlJob *job;
	QmlPerformFind find;
} HandlerCall;

/* The innermost call: the handler itself. */
static Datum
call_handler(void *arg)
{
	const HandlerCall *this = arg;

	if (qml_call_is_procedure(this->handler))
		return qml_call_procedure(this->handler, this->job, true);
	return qml_call_function(this->find(this->handler), this->job);
}

/*
 * Calls the handler, which cannot commit: a function, or anything that is wrapped.  Returns its
 * result, or 0.
 */
Datum
qml_perform_call(const QmlJob *job, const QmlHandler *handler, QmlPerformFind find)
{
	HandlerCall this = {.handler = handler, .job = job, .find = find};

	if (!qml_perform_is_wrapped(handler))
		return call_handler(&this);
	/*
	 * Middleware may undo a subtransaction around the call and call again: what the
	 * function remembers between calls must not outlive that, so it is made anew.
	 */
	this.find = qml_call_prepare;
	return qml_middleware_run(job, call_handler, &this);
}

/* ----- after the call ----- */

/* The handler has returned: keeps its result with the attempt. */
void
qml_perform_keep_result(QmlAttempt *attempt, Datum result)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(attempt->context);

	attempt->result = result == (Datum) 0 ? result : PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
	MemoryContextSwitchTo(oldcontext);
}

/* The job does not run any more: decides what it comes to, as the handler has requested. */
void
qml_perform_keep_wish(QmlAttempt *attempt)
{
	const QmlCurrent *said = qml_current_job_end();

	attempt->progress = said->progress;
	attempt->delay = said->delay;
	attempt->reason = said->reason;
	attempt->state = said->wish == QML_WISH_LATER	? QML_ATTEMPT_RETRY_LATER :
					 said->wish == QML_WISH_DISCARD ? QML_ATTEMPT_DISCARDED :
													  QML_ATTEMPT_SUCCEEDED;
}
