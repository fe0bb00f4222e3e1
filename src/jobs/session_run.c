/*
 * session_run.c
 *		Runs jobs in the session and the transaction of the caller: for tests of users, which
 *		see what a job does and roll it back.
 *
 * What happens is what a background worker does (process/alone.c), as far as one transaction
 * allows it: the job is claimed, its handler is called within its middleware, and the end of the
 * attempt is written into the row, with its hooks.  An error of the handler, of a hook or of a
 * middleware fails the attempt, which is retried or not as ever; it is not the caller's.
 *
 *	 the caller's transaction		the claim
 *	   a subtransaction				the handler; the end of an attempt that had effects
 *	 the caller's transaction		after an error: the end of the attempt, which has failed
 *
 * So effects and end are kept or undone together.  What is different from a worker:
 *
 *	 - Cancels and timeouts of the caller's statement, and in REPEATABLE READ and SERIALIZABLE
 *	   conflicts with other transactions, end the call: they are no errors of the job, and the next
 *	   attempt could not succeed in this transaction either.
 *	 - Nothing commits.  A procedure that commits gets 2D000, as within middleware.  A command
 *	   (process/command.c) is refused, because it can only be the one statement of a transaction.
 *	 - What is deferred to the end of the transaction happens at its end.  But it is tried after the
 *	   handler, and undone, so that a constraint which the job has violated fails the attempt
 *	   (try_deferred).
 *	 - The session is the caller's.  Settings are restored and cursors closed after the handler;
 *	   temporary tables, prepared statements and advisory locks stay.
 *
 * Only handlers whose role is both the current and the session user may run (check_handler): so no
 * function gets at the rights of another role.  If somebody else has authenticated, and became
 * that role by SET SESSION AUTHORIZATION, the handler may not change roles at all, or it could
 * become who that was.
 *
 * A job that runs ends in each case before the function returns, or the transaction is undone.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "errcodes.h"
#include "ipc/waiters.h"
#include "jobs/claim_one.h"
#include "jobs/perform.h"
#include "jobs/session_run.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "userfn/current_job.h"
#include "userfn/hook.h"
#include "userfn/hook_job.h"
#include "userfn/sandbox.h"

/* A job that is to stop and goes on is canceled again after so long. */
#define CANCEL_AGAIN_MS 1000

/* One attempt. */
typedef struct SessionRun
{
	QmlAttempt attempt;
	MemoryContext job_context; /* what the job allocates */
	MemoryContext context;	   /* of what is returned */
	QmlJob *ended;			   /* the job as it was written last */
	bool tries_deferred;	   /* what is deferred: all of it was fine before the job */
} SessionRun;

static TimeoutId timer;
static volatile sig_atomic_t in_job = false;
static volatile sig_atomic_t is_late = false; /* the timer has canceled the job; by a handler */

/* ----- the timeout of the job ----- */

/* Signal handler. */
static void
cancel_job(void)
{
	if (!in_job)
		return;
	is_late = true;
	InterruptPending = true;
	QueryCancelPending = true;
}

static void
begin_job(SessionRun *run)
{
	static bool registered = false;
	const QmlJob *job = &run->attempt.job;

	if (!registered)
		timer = RegisterTimeout(USER_TIMEOUT, cancel_job);
	registered = true;
	qml_current_job_begin(job, run->attempt.context);
	in_job = true;
	enable_timeout_every(timer, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), job->timeout_ms),
						 CANCEL_AGAIN_MS);
}

/* Returns whether the job was canceled because it took too long; that cancel is forgotten. */
static bool
end_job(void)
{
	in_job = false;
	disable_timeout(timer, false);
	if (is_late)
		QueryCancelPending = false;
	return is_late;
}

/* ----- the end of an attempt ----- */

static void
keep_job(SessionRun *run, const QmlJob *job)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(run->context);

	run->ended = palloc(sizeof(QmlJob));
	qml_job_copy(job, run->ended);
	MemoryContextSwitchTo(oldcontext);
}

/* QmlChange. */
static bool
check_held(QmlJob *job, void *arg)
{
	SessionRun *run = arg;

	keep_job(run, job);
	return qml_attempt_check_held(job, &run->attempt);
}

/* QmlChange. */
static bool
finish_attempt(QmlJob *job, void *arg)
{
	SessionRun *run = arg;
	bool changed = qml_attempt_finish(job, &run->attempt);

	keep_job(run, job);
	return changed;
}

/*
 * Whether the job still belongs to the attempt: a hook that the claim has called may have ended
 * or deleted it.
 */
static bool
is_held(SessionRun *run)
{
	QmlWriter writer;

	qml_writer_open(&writer, false, false);
	if (!qml_writer_change(&writer, &run->attempt.job.id, check_held, run))
		run->attempt.state = QML_ATTEMPT_LOST;
	qml_writer_close(&writer);
	return run->attempt.state != QML_ATTEMPT_LOST;
}

/*
 * Writes how the attempt ended.  Raises QM003 if it had effects and does not hold the job any
 * more.  catch_hook_errors: for qml_writer_open().
 */
static void
record_end(SessionRun *run, bool catch_hook_errors)
{
	QmlAttempt *attempt = &run->attempt;
	bool effects = qml_attempt_has_effects(attempt);
	QmlWriter writer;

	qml_writer_open(&writer, false, catch_hook_errors);
	if (!qml_writer_change(&writer, &attempt->job.id, finish_attempt, run))
		attempt->state = QML_ATTEMPT_LOST;
	if (attempt->state == QML_ATTEMPT_LOST && effects)
		ereport(ERROR,
				(errcode(ERRCODE_QML_STALE_CLAIM),
				 errmsg("attempt %d does not hold job %s", attempt->job.attempt,
						qml_job_id_string(&attempt->job.id))));
	qml_writer_close(&writer);
}

/* ----- what is deferred ----- */

/*
 * Whether an error is the caller's, and not the job's.  The server raises cancels, timeouts and the
 * end of a session where it looks for interrupts; anybody may raise an error of the same SQLSTATE.
 */
static bool
is_callers(const ErrorData *error)
{
	int category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	if (category == ERRCODE_OPERATOR_INTERVENTION)
		return error->funcname && strcmp(error->funcname, "ProcessInterrupts") == 0;
	return category == ERRCODE_TRANSACTION_ROLLBACK && IsolationUsesXactSnapshot();
}

static bool
is_any(const ErrorData *error)
{
	return true;
}

/*
 * Takes the error that was caught, and says whether it is to be raised again.  It is copied into the
 * current memory context then or, as some strings of an error that is raised again are not
 * copied, into one that lives longer.
 */
static ErrorData *
take_error(bool (*must_reraise)(const ErrorData *error), bool *reraise)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ErrorData *error = CopyErrorData();

	*reraise = must_reraise && must_reraise(error);
	if (*reraise)
	{
		MemoryContextSwitchTo(TopTransactionContext);
		error = CopyErrorData();
		MemoryContextSwitchTo(oldcontext);
	}
	FlushErrorState();
	return error;
}

/*
 * Tries deferred constraints and triggers, and undoes what they did: the server can do that only
 * for all that the transaction has deferred, and most of it may not be the job's.  False if there is
 * an error, unless it is to be raised.
 */
static bool
try_deferred(bool (*must_reraise)(const ErrorData *error))
{
	ConstraintsSetStmt all = {.type = T_ConstraintsSetStmt, .constraints = NIL, .deferred = false};
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	volatile bool fine = true;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		AfterTriggerSetState(&all);
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		bool reraise;
		ErrorData *error;

		MemoryContextSwitchTo(oldcontext);
		error = take_error(must_reraise, &reraise);
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(oldcontext);
		CurrentResourceOwner = oldowner;
		if (reraise)
			ReThrowError(error);
		fine = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	return fine;
}

/* ----- the attempt ----- */

/* Calls the handler.  It sees no cursor of the caller. */
static void
call_handler(SessionRun *run, const QmlHandler *handler)
{
	int guc_level = NewGUCNestLevel();
	List *cursors;
	Oid user;
	int security;

	GetUserIdAndSecContext(&user, &security);
	if (GetAuthenticatedUserId() != user)
		SetUserIdAndSecContext(user, security | SECURITY_LOCAL_USERID_CHANGE);
	PushActiveSnapshot(GetTransactionSnapshot());
	cursors = qml_sandbox_hide_portals();
	PG_TRY();
	{
		qml_perform_keep_result(&run->attempt,
								qml_perform_call(&run->attempt.job, handler, qml_call_prepare));
		if (run->tries_deferred)
			(void) try_deferred(is_any);
		qml_sandbox_close_other_portals();
	}
	PG_FINALLY();
	{
		qml_sandbox_show_portals(cursors);
	}
	PG_END_TRY();
	PopActiveSnapshot();
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(user, security);
	qml_perform_keep_wish(&run->attempt);
}

/* In a subtransaction: calls the handler, and writes how the attempt ended. */
static void
run_handler(SessionRun *run, const QmlHandler *handler)
{
	begin_job(run);
	call_handler(run, handler);
	/* A cancel that it left behind is its own, or the caller's. */
	CHECK_FOR_INTERRUPTS();
	/* It may have caught the cancel as if it were its own. */
	if (end_job())
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling a job because of its timeout")));
	(void) qml_trace_take();
	record_end(run, false);
}

/* Runs the handler.  False: it is undone, and the attempt has failed, which remains to be written. */
static bool
try_handler(SessionRun *run, const QmlHandler *handler)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	ErrorContextCallback *callbacks = error_context_stack;
	volatile bool done = false;

	is_late = false;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(run->job_context);
	PG_TRY();
	{
		/* What is recorded of an error has no context of the caller. */
		error_context_stack = NULL;
		run_handler(run, handler);
		error_context_stack = callbacks;
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		bool was_late = in_job ? end_job() : is_late;
		bool reraise;
		ErrorData *error;

		if (qml_current_job_or_null())
			run->attempt.progress = qml_current_job_end()->progress;
		MemoryContextSwitchTo(run->attempt.context);
		error = take_error(was_late ? NULL : is_callers, &reraise);
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(oldcontext);
		CurrentResourceOwner = oldowner;
		(void) qml_trace_take();
		if (reraise)
			ReThrowError(error);
		qml_attempt_judge(&run->attempt, error, was_late ? QML_STOP_TIMEOUT : QML_STOP_NOT, false);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	CurrentResourceOwner = oldowner;
	return done;
}

/*
 * Runs a job that this transaction has claimed.  Returns it as it is afterwards, in the current
 * memory context.
 */
QmlJob *
qml_session_run_claimed(const QmlJob *claimed)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "qml attempt",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	SessionRun run = {.attempt = {.context = context, .job = *claimed},
					  .job_context = AllocSetContextCreate(context, "qml job",
														   ALLOCSET_DEFAULT_SIZES),
					  .context = oldcontext};

	Assert(IsTransactionState() && claimed->state == QML_PROCESSING);
	if (is_held(&run))
	{
		const QmlHandler *handler = qml_perform_prepare(&run.attempt);

		run.tries_deferred = handler && try_deferred(is_callers);
		if (handler == NULL || !try_handler(&run, handler))
			record_end(&run, true);
		qml_waiters_ended();
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
	return run.ended;
}

/* ----- whether it may run ----- */

/* Raises 55000 where no job can be run, in the name of the SQL function. */
void
qml_session_run_require(const char *function)
{
	if (qml_hook_is_running())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() cannot be called in a hook", function)));
	if (qml_current_job_or_null())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() cannot be called in a job", function),
				 errhint("A job can enqueue other jobs, which run after it.")));
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot run a job within security-restricted operation")));
}

/* The name that the attempts of this session have, as those of a fetch without a name. */
Datum
qml_session_run_worker(void)
{
	return CStringGetTextDatum(psprintf("%s-%d", GetUserNameFromId(GetUserId(), false), MyProcPid));
}

/* Raises an error unless this session may run the job. */
static void
check_handler(const QmlJob *job)
{
	const QmlHandler *handler = qml_hook_job_handler(job);
	char *method = TextDatumGetCString(job->method);
	char *role;
	QmlProblem problem;

	if (handler == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_QML_HANDLER_NOT_FOUND),
				 errmsg("method \"%s\" has no handler", method),
				 errhint("%s() registers one; %s() claims the job for a worker outside the database.",
						 qml_acl_qualify("qml_register_handler"),
						 qml_acl_qualify("qml_fetch_job"))));
	role = GetUserNameFromId(handler->run_as, true);
	if (role == NULL || handler->run_as != GetUserId() || handler->run_as != GetSessionUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to run handler \"%s\"", method),
				 role ? errdetail("It runs as role \"%s\", which must be the current and the session "
								  "user.",
								  role) :
						errdetail("The role that it runs as does not exist."),
				 role ? errhint("SET SESSION AUTHORIZATION %s;", quote_identifier(role)) : 0));
	if (handler->command)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("command \"%s\" cannot be run in a transaction", method),
				 errdetail("A command is the only statement of its transaction, and commits."),
				 errhint("Let a worker run the job, or execute the statement by itself.")));
	if (qml_handler_is_revoked(handler) && !qml_handler_usable(handler, &problem))
		ereport(ERROR,
				(errcode(problem.sqlerrcode), errmsg("%s", problem.message),
				 problem.detail ? errdetail("%s", problem.detail) : 0));
}

/*
 * Runs a job, which may also be scheduled or wait for its retry.  Returns it as it is afterwards,
 * in the current memory context.
 */
QmlJob *
qml_session_run_one(const pg_uuid_t *id)
{
	QmlClaimOne claim = {.worker = qml_session_run_worker(), .early = true, .check = check_handler};

	return qml_session_run_claimed(qml_claim_one(id, &claim));
}
