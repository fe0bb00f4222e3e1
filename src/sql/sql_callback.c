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
#include "model/acl.h"
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

/* The second argument: a regprocedure, or the name of a function. */
static Oid
read_function(FunctionCallInfo fcinfo, bool by_name)
{
	qml_args_require(fcinfo, 1, "function");
	return by_name ? qml_args_function(fcinfo, 1) : PG_GETARG_OID(1);
}

/* Both forms of qml_register_hook(). */
static Datum
register_hook(FunctionCallInfo fcinfo, bool by_name)
{
	char *name = qml_args_name(fcinfo, 0, "name", QML_MAX_NAME);
	Datum states = (Datum) 0;
	Jsonb *options;

	qml_acl_require(QML_CAN_ADMIN, NULL);
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
	qml_registry_add_hook(name, read_function(fcinfo, by_name), states, options);
	PG_RETURN_VOID();
}

/* Both forms of qml_register_middleware(). */
static Datum
register_middleware(FunctionCallInfo fcinfo, bool by_name)
{
	char *name = qml_args_name(fcinfo, 0, "name", QML_MAX_NAME);
	Jsonb *options;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	qml_args_require(fcinfo, 2, "position");
	options = qml_args_options(fcinfo, 3, "options");
	qml_registry_add_middleware(name, read_function(fcinfo, by_name), PG_GETARG_INT32(2), options);
	PG_RETURN_VOID();
}

static Datum
unregister_callback(FunctionCallInfo fcinfo, QmlCallbackKind kind)
{
	char *name = qml_args_name(fcinfo, 0, "name", QML_MAX_NAME);

	qml_acl_require(QML_CAN_ADMIN, NULL);
	PG_RETURN_BOOL(
		qml_registry_remove_callback(kind, name, qml_args_flag(fcinfo, 1, "missing_ok")));
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
	Datum result = qml_middleware_next();

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
	const QmlCallback *callback = qml_callback_find(kind, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	QmlProblem problem;

	if (callback == NULL || OidIsValid(qml_callback_resolve(callback, &problem)))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s: %s", problem.message, problem.detail)));
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
