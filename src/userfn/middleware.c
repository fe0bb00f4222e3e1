/*
 * middleware.c
 *		Middleware: functions of users that wrap the handlers of jobs.
 *
 * All middleware of a job forms a chain that ends with the handler.  The first one is
 * called in place of the handler.  It calls qml_next() to run the rest of the chain and
 * get its result.  It may skip the rest, or run it again after it caught an error.
 * Everything in the chain is part of the job: its transaction, its timeout, its error.
 *
 * A middleware runs as the role that registered it, in a security-restricted operation
 * (userfn/callback_call.c).  The handler within is called as if there were no middleware:
 * as its own role, unrestricted, with its own search_path and other settings that decide
 * what it does (userfn/settings.c), and without access to the open cursors of others,
 * because each of these could be used against it.  Other settings are passed on, so that a
 * middleware can hand values to a handler.
 *
 * Middleware of roles with the privileges of the extension's owner stands around all
 * handlers, that of other roles around the handlers that run as the very same role
 * (userfn/callback.c).  The others are not in the chain.
 *
 * The state is that of one job, on the stack of qml_middleware_run(); an error anywhere
 * leaves the chain as it was before the call that failed.
 */
#include "postgres.h"

#include "libpq/be-fsstubs.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/portal.h"

#include "common/args.h"
#include "userfn/callback_call.h"
#include "userfn/hook.h"
#include "userfn/middleware.h"
#include "userfn/sandbox.h"
#include "userfn/settings.h"

/* The middleware of the job that runs. */
typedef struct Chain
{
	MemoryContext context; /* holds results */
	QmlCallable *callables;
	int count;
	int next; /* index of what qml_next() calls; count: the handler */
	Datum job;
	Datum (*handler)(void *arg);
	void *arg;

	/* What holds for the handler. */
	Oid user;
	int security;
	QmlSettings settings;
} Chain;

/* NULL: no job runs in a chain. */
static Chain *chain = NULL;

/* The middleware that stands around the handlers of this session's role, in its order. */
static List *
list_allowed(void)
{
	List *allowed = NIL;
	ListCell *lc;

	foreach(lc, qml_callback_all(QML_MIDDLEWARE))
	{
		if (qml_callback_is_allowed(lfirst(lc), GetSessionUserId()))
			allowed = lappend(allowed, lfirst(lc));
	}
	return allowed;
}

/* Whether there is any. */
bool
qml_middleware_wanted(void)
{
	ListCell *lc;

	foreach(lc, qml_callback_all(QML_MIDDLEWARE))
	{
		if (qml_callback_is_allowed(lfirst(lc), GetSessionUserId()))
			return true;
	}
	return false;
}

/*
 * Calls the handler as if there were no middleware.  After an error, the abort of the
 * (sub)transaction restores the user and the settings.
 */
static Datum
call_handler(void)
{
	int guc_level = NewGUCNestLevel();
	List *cursors = qml_sandbox_hide_portals();
	QmlSandbox outer = qml_sandbox_enter(QML_SANDBOX_NONE);
	Oid user;
	int security;
	volatile Datum result;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(chain->user, chain->security);
	qml_settings_restore(&chain->settings);
	PG_TRY();
	{
		result = chain->handler(chain->arg);
		/* Cursors and large objects that it left open must not be used by others. */
		PortalHashTableDeleteAll();
		AtEOXact_LargeObject(true);
	}
	PG_FINALLY();
	{
		(void) qml_sandbox_enter(outer);
		qml_sandbox_show_portals(cursors);
	}
	PG_END_TRY();
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(user, security);
	return result;
}

static Datum
call_middleware(int number)
{
	NullableDatum job = {.value = chain->job};
	/*
	 * Looked up for each call: what a function keeps in fn_extra can belong to a
	 * subtransaction that the middleware around it has rolled back.
	 */
	QmlCallable callable = {.callback = chain->callables[number].callback};
	bool isnull;
	Datum result;

	fmgr_info(chain->callables[number].function.fn_oid, &callable.function);
	result = qml_callback_call_run(&callable, &job, &isnull);

	return isnull ? (Datum) 0 : result;
}

/* Runs the chain from `next` on; returns its result, or 0. */
static Datum
run_rest(void)
{
	int number = chain->next;
	MemoryContext oldcontext = MemoryContextSwitchTo(chain->context);
	volatile Datum result = (Datum) 0;

	Assert(number >= 0 && number <= chain->count);
	PG_TRY();
	{
		chain->next = number + 1;
		result = number < chain->count ? call_middleware(number) : call_handler();
		MemoryContextSwitchTo(chain->context);
		if (result != (Datum) 0)
			result = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
	}
	PG_FINALLY();
	{
		chain->next = number;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
	return result;
}

/*
 * Runs the handler of a job within all middleware.  Returns what the outermost one
 * returns, a jsonb in the current memory context, or 0.  Raises 54000 if it is too large.
 */
Datum
qml_middleware_run(const QmlJob *job, Datum (*handler)(void *arg), void *arg)
{
	List *callbacks = list_allowed();
	Chain this = {.context = CurrentMemoryContext,
				  .count = list_length(callbacks),
				  .handler = handler,
				  .arg = arg};
	volatile Datum result = (Datum) 0;

	Assert(chain == NULL);
	qml_settings_save(&this.settings);
	this.callables = palloc0(sizeof(QmlCallable) * this.count);
	for (int i = 0; i < this.count; i++)
		qml_callback_call_prepare(list_nth(callbacks, i), &this.callables[i]);
	this.job = qml_job_row(job, QML_ACCESS_FULL);
	GetUserIdAndSecContext(&this.user, &this.security);
	chain = &this;
	PG_TRY();
	{
		result = run_rest();
	}
	PG_FINALLY();
	{
		chain = NULL;
	}
	PG_END_TRY();
	if (result != (Datum) 0)
		qml_args_check_document(result, "result");
	return result;
}

/* Runs the rest of the chain for the middleware that asks; returns its result, or 0. */
Datum
qml_middleware_next(void)
{
	/* Neither the handler, nor a hook that runs because of a middleware, may ask. */
	if (chain == NULL || chain->next == 0 || chain->next > chain->count || qml_hook_is_running())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() can only be called by a middleware while a job runs",
						"qml_next")));
	return run_rest();
}
