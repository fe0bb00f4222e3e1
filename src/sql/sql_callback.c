/*
 * sql_callback.c
 *		SQL functions of state hooks and middleware: qml_register_hook, qml_register_middleware
 *		(two forms each), qml_unregister_hook, qml_unregister_middleware, qml_next,
 *		qml_tracing; and those of the views.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "compat.h"
#include "jobs/after_commit.h"
#include "model/acl.h"
#include "model/redact.h"
#include "qml.h"
#include "userfn/callback.h"
#include "userfn/middleware.h"
#include "userfn/registry.h"
#include "userfn/trace.h"

QML_FUNCTION(qml_register_hook);
QML_FUNCTION(qml_register_hook_name);
QML_FUNCTION(qml_unregister_hook);
QML_FUNCTION(qml_register_middleware);
QML_FUNCTION(qml_register_middleware_name);
QML_FUNCTION(qml_unregister_middleware);
QML_FUNCTION(qml_next);
QML_FUNCTION(qml_tracing);
QML_FUNCTION(qml_hook_problem);
QML_FUNCTION(qml_middleware_problem);
QML_FUNCTION(qml_hook_access);

/* The second argument: a regprocedure, or the name of a function. */
static Oid
read_function(FunctionCallInfo fcinfo, QmlCallbackKind kind, bool by_name)
{
	qml_args_require(fcinfo, 1, "function");
	return by_name ? qml_registry_callback_function(kind, text_to_cstring(PG_GETARG_TEXT_PP(1))) :
					 PG_GETARG_OID(1);
}

/* Both forms of qml_register_hook(). */
static Datum
register_hook(FunctionCallInfo fcinfo, bool by_name)
{
	char *name;
	Datum states = (Datum) 0;
	Jsonb *options;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	name = qml_args_name(fcinfo, 0, "name", QML_MAX_NAME);
	if (!PG_ARGISNULL(2))
	{
		ArrayType *array = PG_GETARG_ARRAYTYPE_P(2);

		if (ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) == 0 || array_contains_nulls(array))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"%s\" must not be empty or contain nulls", "states"),
					 errhint("NULL stands for all states.")));
		states = PointerGetDatum(array);
	}
	options = qml_args_options(fcinfo, 3, "options");
	if (qml_registry_add_hook(name, read_function(fcinfo, QML_HOOK, by_name), states, options))
		qml_after_commit_make_queue();
	/* Those of a hook of this name that another role had. */
	(void) qml_after_commit_forget();
	PG_RETURN_BOOL(true);
}

/* Both forms of qml_register_middleware(). */
static Datum
register_middleware(FunctionCallInfo fcinfo, bool by_name)
{
	char *name;
	Jsonb *options;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	name = qml_args_name(fcinfo, 0, "name", QML_MAX_NAME);
	qml_args_require(fcinfo, 2, "position");
	options = qml_args_options(fcinfo, 3, "options");
	qml_registry_add_middleware(name, read_function(fcinfo, QML_MIDDLEWARE, by_name),
								PG_GETARG_INT32(2), options);
	PG_RETURN_BOOL(true);
}

static Datum
unregister_callback(FunctionCallInfo fcinfo, QmlCallbackKind kind)
{
	char *name;
	bool found;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	name = qml_args_name(fcinfo, 0, "name", QML_MAX_NAME);
	found = qml_registry_remove_callback(kind, name, qml_args_flag(fcinfo, 1, "missing_ok"));
	if (found && kind == QML_HOOK)
		(void) qml_after_commit_forget();
	PG_RETURN_BOOL(found);
}

Datum
qml_register_hook(PG_FUNCTION_ARGS)
{
	return register_hook(fcinfo, false);
}

Datum
qml_register_hook_name(PG_FUNCTION_ARGS)
{
	return register_hook(fcinfo, true);
}

Datum
qml_unregister_hook(PG_FUNCTION_ARGS)
{
	return unregister_callback(fcinfo, QML_HOOK);
}

Datum
qml_register_middleware(PG_FUNCTION_ARGS)
{
	return register_middleware(fcinfo, false);
}

Datum
qml_register_middleware_name(PG_FUNCTION_ARGS)
{
	return register_middleware(fcinfo, true);
}

Datum
qml_unregister_middleware(PG_FUNCTION_ARGS)
{
	return unregister_callback(fcinfo, QML_MIDDLEWARE);
}

/* For middleware: runs the rest of the chain. */
Datum
qml_next(PG_FUNCTION_ARGS)
{
	Datum result;

	qml_acl_require_any(QML_CAN_ADMIN);
	result = qml_middleware_next();
	if (result == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}

/*
 * A middleware that traces the job (userfn/trace.c).  The worker logs the trace after the
 * commit, when the outcome is known.
 */
Datum
qml_tracing(PG_FUNCTION_ARGS)
{
	HeapTupleHeader job;
	Datum result;
	Datum id;
	Datum queue;
	Datum metadata;
	bool isnull[3];

	qml_acl_require_any(QML_CAN_ADMIN);
	qml_args_require(fcinfo, 0, "job");
	job = PG_GETARG_HEAPTUPLEHEADER(0);
	id = GetAttributeByName(job, "id", &isnull[0]);
	queue = GetAttributeByName(job, "queue", &isnull[1]);
	metadata = GetAttributeByName(job, "metadata", &isnull[2]);
	if (isnull[0] || isnull[1])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is not a job", "job")));
	result = qml_trace_run(DatumGetUUIDP(id), queue, isnull[2] ? (Datum) 0 : metadata,
						   qml_middleware_next);
	if (result == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}

static Datum
show_problem(FunctionCallInfo fcinfo, QmlCallbackKind kind)
{
	const QmlCallback *callback;
	char *problem;

	qml_acl_require_one(QML_MAY_WATCH, NULL);
	callback = qml_callback_find(kind, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	problem = callback ? qml_callback_problem(callback) : NULL;
	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

/* Why a hook cannot be called; NULL when it can. */
Datum
qml_hook_problem(PG_FUNCTION_ARGS)
{
	return show_problem(fcinfo, QML_HOOK);
}

/* The same for a middleware. */
Datum
qml_middleware_problem(PG_FUNCTION_ARGS)
{
	return show_problem(fcinfo, QML_MIDDLEWARE);
}

/*
 * Whether the current user sees the errors of a hook, which may quote jobs of any queue.  The
 * calls of an after-commit hook are jobs of its role.
 */
Datum
qml_hook_access(PG_FUNCTION_ARGS)
{
	bool after_commit = PG_GETARG_BOOL(1);

	qml_acl_require_one(QML_MAY_WATCH, NULL);
	PG_RETURN_BOOL(after_commit ?
					   qml_acl_access(QML_HOOK_QUEUE, PG_GETARG_OID(0)) == QML_ACCESS_FULL :
					   qml_redact_allow_contents());
}
