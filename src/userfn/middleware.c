/*
 * middleware.c
 *		Middleware: functions of users around the handlers of jobs.
 *
 * The first one is called in place of the handler, and calls qml_next() to run the
 * rest: the next one, or the handler at the end.  What it returns is the result of
 * the rest.  It may leave the rest out, or run it again after an error that it
 * caught.  All of it is part of the job: its transaction, its timeout, its error.
 *
 * A middleware runs as the role that registered it (userfn/callback.c), and the handler
 * inside of it as its own role again, unrestricted, with the search_path that it
 * would have without: what may be a weapon against the other one is not handed on.
 * Its open cursors are out of the handler's reach.
 * Other settings are handed on: so a middleware can tell a handler something.
 */
#include "postgres.h"

#include "libpq/be-fsstubs.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/portal.h"

#include "common/args.h"
#include "userfn/callback.h"
#include "userfn/hook.h"
#include "userfn/middleware.h"
#include "userfn/sandbox.h"

/* The middlewares around the job that runs. */
typedef struct Chain
{
	MemoryContext context; /* of results */
	QmlCallable *callables;
	int count;
	int next; /* that qml_next() calls; count: the handler */
	Datum job;
	Datum (*handler)(void *arg);
	void *arg;
	Oid user; /* the handler's */
	int security;
	char *search_path;
} Chain;

static Chain *chain = NULL;

/* Whether there is any. */
bool
qml_middleware_wanted(void)
{
	return qml_callback_all(QML_MIDDLEWARE) != NIL;
}

/* As if there were no middleware. */
static Datum
call_handler(void)
{
	int guc_level = NewGUCNestLevel();
	List *cursors = qml_sandbox_hide_portals();
	bool forbidden = qml_sandbox_forbid_lobjects(false);
	Oid user;
	int security;
	volatile Datum result;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(chain->user, chain->security);
	(void) set_config_option("search_path", chain->search_path, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	PG_TRY();
	{
		result = chain->handler(chain->arg);
		/* What it left open is nobody else's. */
		PortalHashTableDeleteAll();
		AtEOXact_LargeObject(true);
	}
	PG_FINALLY();
	{
		(void) qml_sandbox_forbid_lobjects(forbidden);
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
	/* Anew each time: what a call remembers does not outlive a subtransaction that fails. */
	QmlCallable callable = {.callback = chain->callables[number].callback};
	bool isnull;
	Datum result;

	fmgr_info(chain->callables[number].function.fn_oid, &callable.function);
	result = qml_callback_call(&callable, &job, &isnull);

	return isnull ? (Datum) 0 : result;
}

/* Runs the rest of the chain; its result, or 0. */
static Datum
run_rest(void)
{
	int number = chain->next;
	MemoryContext oldcontext = MemoryContextSwitchTo(chain->context);
	volatile Datum result = (Datum) 0;

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
 * Runs the handler of a job within all middlewares; returns what the first of them
 * does, a jsonb, or 0; in the current memory context.  Raises 54000 if that is too large.
 */
Datum
qml_middleware_run(const QmlJob *job, Datum (*handler)(void *arg), void *arg)
{
	List *callbacks = qml_callback_all(QML_MIDDLEWARE);
	Chain this = {.context = CurrentMemoryContext,
				  .count = list_length(callbacks),
				  .handler = handler,
				  .arg = arg,
				  .search_path = pstrdup(GetConfigOption("search_path", false, false))};
	volatile Datum result = (Datum) 0;

	this.callables = palloc0(sizeof(QmlCallable) * this.count);
	for (int i = 0; i < this.count; i++)
		qml_callback_prepare(list_nth(callbacks, i), &this.callables[i]);
	this.job = qml_job_to_row(job, true);
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

/* qml_next(): its result, or 0. */
Datum
qml_middleware_next(void)
{
	/* The handler itself is not a middleware, nor is a hook of what one does. */
	if (chain == NULL || chain->next == 0 || chain->next > chain->count || qml_hook_is_running())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() can only be called by a middleware, while a job runs",
						"qml_next")));
	return run_rest();
}
