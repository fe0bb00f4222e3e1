/*
 * sql_handler.c
 *		SQL functions of handlers: qml_register_handler (two forms), qml_register_command,
 *		qml_unregister_handler; and qml.handler_problem for the view.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "compat.h"
#include "maintenance/idle.h"
#include "model/acl.h"
#include "qml.h"
#include "userfn/handler.h"
#include "userfn/registry.h"
#include "userfn/statement.h"

QML_FUNCTION(qml_register_handler);
QML_FUNCTION(qml_register_handler_name);
QML_FUNCTION(qml_register_command);
QML_FUNCTION(qml_unregister_handler);
QML_FUNCTION(qml_handler_problem);

/* Both forms of qml_register_handler(): the function as a regprocedure, or by its name. */
static Datum
register_handler(FunctionCallInfo fcinfo, bool by_name)
{
	char *method;
	Jsonb *options;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	method = qml_args_name(fcinfo, 0, "method", QML_MAX_NAME);
	qml_args_require(fcinfo, 1, "function");
	options = qml_args_options(fcinfo, 2, "options");
	qml_registry_add_handler(method,
							 by_name ? qml_registry_handler_function(
										   text_to_cstring(PG_GETARG_TEXT_PP(1))) :
									   PG_GETARG_OID(1),
							 options);
	qml_idle_warn(QML_IDLE_HANDLER);
	PG_RETURN_BOOL(true);
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

/* The text of a command, of bounded length. */
static char *
read_command(FunctionCallInfo fcinfo, int arg)
{
	char *command;

	qml_args_require(fcinfo, arg, "command");
	command = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	if (strlen(command) > QML_MAX_COMMAND)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("argument \"%s\" is too large", "command"),
				 errdetail("It has %zu bytes; at most %d are allowed.", strlen(command),
						   QML_MAX_COMMAND)));
	return command;
}

Datum
qml_register_command(PG_FUNCTION_ARGS)
{
	char *method;
	char *command;
	Jsonb *options;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	method = qml_args_name(fcinfo, 0, "method", QML_MAX_NAME);
	command = read_command(fcinfo, 1);
	options = qml_args_options(fcinfo, 2, "options");
	qml_registry_add_command(method, command, options);
	qml_idle_warn(QML_IDLE_HANDLER);
	PG_RETURN_BOOL(true);
}

Datum
qml_unregister_handler(PG_FUNCTION_ARGS)
{
	char *method;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	method = qml_args_name(fcinfo, 0, "method", QML_MAX_NAME);
	PG_RETURN_BOOL(qml_registry_remove_handler(method, qml_args_flag(fcinfo, 1, "missing_ok")));
}

/* Why jobs of a method cannot run; NULL when they can. */
Datum
qml_handler_problem(PG_FUNCTION_ARGS)
{
	const QmlHandler *handler;
	QmlProblem problem;

	qml_acl_require_one(QML_MAY_WATCH, NULL);
	handler = qml_handler_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (handler == NULL || qml_handler_usable(handler, &problem))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(
		problem.detail ? psprintf("%s: %s", problem.message, problem.detail) : problem.message));
}
