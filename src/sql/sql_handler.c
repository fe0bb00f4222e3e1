/*
 * sql_handler.c
 *		SQL functions of handlers: qml_register_handler (two forms), qml_unregister_handler; and
 *		qml.handler_problem for the view.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "compat.h"
#include "model/acl.h"
#include "qml.h"
#include "userfn/handler.h"
#include "userfn/registry.h"

QML_FUNCTION(qml_register_handler);
QML_FUNCTION(qml_register_handler_name);
QML_FUNCTION(qml_unregister_handler);
QML_FUNCTION(qml_handler_problem);

/* Both forms of qml_register_handler(): the function as a regprocedure, or by its name. */
static Datum
register_handler(FunctionCallInfo fcinfo, bool by_name)
{
	char *method = qml_args_name(fcinfo, 0, "method", QML_MAX_NAME);
	Jsonb *options;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	qml_args_require(fcinfo, 1, "function");
	options = qml_args_options(fcinfo, 2, "options");
	qml_registry_add_handler(method, by_name ? qml_args_function(fcinfo, 1) : PG_GETARG_OID(1),
							 options);
	PG_RETURN_VOID();
}

Datum
qml_register_handler(PG_FUNCTION_ARGS)
{
	return register_handler(fcinfo, false);
}

Datum
qml_register_handler_name(PG_FUNCTION_ARGS)
{
	return register_handler(fcinfo, true);
}

Datum
qml_unregister_handler(PG_FUNCTION_ARGS)
{
	char *method = qml_args_name(fcinfo, 0, "method", QML_MAX_NAME);

	qml_acl_require(QML_CAN_ADMIN, NULL);
	PG_RETURN_BOOL(qml_registry_remove_handler(method, qml_args_flag(fcinfo, 1, "missing_ok")));
}

/* Why jobs of a method cannot run; NULL when they can. */
Datum
qml_handler_problem(PG_FUNCTION_ARGS)
{
	const QmlHandler *handler = qml_handler_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	QmlProblem problem;

	if (handler == NULL || qml_handler_usable(handler, &problem))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(
		problem.detail ? psprintf("%s: %s", problem.message, problem.detail) : problem.message));
}
