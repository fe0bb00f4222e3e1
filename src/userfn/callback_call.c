/*
 * callback_call.c
 *		Calls a state hook or a middleware in somebody else's session.
 *
 * Callbacks run in the sessions of clients, of the scheduler and of workers.  Two sides
 * must be protected from each other: the session's user must not gain the rights of the
 * role that registered the callback, and that role must not gain those of the session's
 * user.  Therefore, during a call:
 *
 *	 - the current user is the role that registered the callback;
 *	 - it is a security-restricted operation: the function cannot become another role,
 *	   make temporary objects, or leave triggers and cursors that would run later as the
 *	   session's user;
 *	 - search_path and other settings that decide what the function does are pinned
 *	   (userfn/settings.c), because the session's user chose their values;
 *	 - open cursors are hidden, and what would stay with the session is forbidden
 *	   (userfn/sandbox.c);
 *	 - nobody else may execute a function of the owner that runs in sessions of others.  A
 *	   session keeps what it has compiled of a function, so who calls it first, under a
 *	   search_path and with types of their choice, decides what it does here
 *	   (userfn/callback.c).
 *
 * None of this protects the session from the function: what others have compiled or planned
 * in a session cannot be undone.  Therefore only callbacks of roles that the session
 * trusts are called at all (userfn/callback.c).
 *
 * All of this, and what the function sets with SET, is undone after the call.  After an
 * error, the abort of the (sub)transaction restores the user and the settings.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "userfn/callback_call.h"
#include "userfn/sandbox.h"
#include "userfn/settings.h"

/* Raises QM007 if it cannot be called.  Allocates in the current memory context. */
void
qml_callback_call_prepare(const QmlCallback *callback, QmlCallable *callable)
{
	QmlProblem problem;
	Oid function = qml_callback_resolve(callback, &problem);

	if (!OidIsValid(function))
		ereport(ERROR,
				(errcode(problem.sqlerrcode), errmsg("%s", problem.message),
				 errdetail("%s", problem.detail)));
	callable->callback = callback;
	fmgr_info(function, &callable->function);
	Assert(callable->function.fn_nargs <= QML_CALLBACK_ARGS);
}

static void
add_context(void *arg)
{
	const QmlCallback *callback = arg;

	errcontext("qml %s \"%s\"", qml_callback_word(callback->kind), callback->name);
}

/*
 * A strict function is not called with null, as everywhere.  The arguments of callbacks are
 * of types without a collation, so most other callers have InvalidOid as the input
 * collation, and share nothing that is compiled with this call.  An aggregate can have the
 * default one, too: this keeps calls of the same role apart, and protects nobody.
 */
static Datum
call_function(QmlCallable *callable, const NullableDatum *args, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, QML_CALLBACK_ARGS);
	int nargs = callable->function.fn_nargs;
	Datum result;

	InitFunctionCallInfoData(*fcinfo, &callable->function, nargs, DEFAULT_COLLATION_OID, NULL,
							 NULL);
	for (int i = 0; i < nargs; i++)
	{
		fcinfo->args[i] = args[i];
		if (args[i].isnull && callable->function.fn_strict)
		{
			*isnull = true;
			return (Datum) 0;
		}
	}
	result = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;
	return result;
}

/*
 * A cursor or large object that is open works with the rights of the role that opened
 * it, no matter who uses it.  So those of the session are out of reach during the call, and
 * what the callback leaves open is closed.
 */
static Datum
call_in_sandbox(QmlCallable *callable, const NullableDatum *args, bool *isnull)
{
	List *cursors = qml_sandbox_hide_portals();
	QmlSandbox outer = qml_sandbox_enter(
		callable->callback->kind == QML_HOOK ? QML_SANDBOX_HOOK : QML_SANDBOX_MIDDLEWARE);
	volatile Datum result = (Datum) 0;

	PG_TRY();
	{
		result = call_function(callable, args, isnull);
		qml_sandbox_close_other_portals();
	}
	PG_FINALLY();
	{
		(void) qml_sandbox_enter(outer);
		qml_sandbox_show_portals(cursors);
	}
	PG_END_TRY();
	return result;
}

/* Calls it with as many of the arguments as the function takes. */
Datum
qml_callback_call_run(QmlCallable *callable, const NullableDatum *args, bool *isnull)
{
	ErrorContextCallback context = {.previous = error_context_stack,
									.callback = add_context,
									.arg = unconstify(QmlCallback *, callable->callback)};
	int guc_level = NewGUCNestLevel();
	Oid user;
	int security;
	Datum result;

	Assert(IsTransactionState());
	error_context_stack = &context;
	qml_settings_pin();
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(callable->callback->role,
						   security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	PushActiveSnapshot(GetTransactionSnapshot());
	result = call_in_sandbox(callable, args, isnull);
	PopActiveSnapshot();
	/* The function cannot have become another role: it was restricted. */
	Assert(GetUserId() == callable->callback->role);
	SetUserIdAndSecContext(user, security);
	AtEOXact_GUC(false, guc_level);
	error_context_stack = context.previous;
	return result;
}
