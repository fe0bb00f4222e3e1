/*
 * sql_queue.c
 *		SQL functions of queues: qml_create_queue, qml_alter_queue,
 *		qml_drop_queue, qml_pause_queue, qml_resume_queue; and qml.queue_access
 *		for the view.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "compat.h"
#include "jobs/queue_admin.h"
#include "model/acl.h"
#include "qml.h"
#include "sql/sql_rights.h"

QML_FUNCTION(qml_create_queue);
QML_FUNCTION(qml_alter_queue);
QML_FUNCTION(qml_drop_queue);
QML_FUNCTION(qml_pause_queue);
QML_FUNCTION(qml_resume_queue);
QML_FUNCTION(qml_queue_access);

/*
 * The name of a queue that the current user administers; qml's own are the owner's.  These
 * can be altered and paused, but not made or dropped.
 */
static char *
read_name(FunctionCallInfo fcinfo)
{
	char *name;

	qml_sql_require_queue(fcinfo, QML_MAY_ADMIN, 0);
	name = qml_args_name(fcinfo, 0, "name", QML_MAX_QUEUE_NAME);
	qml_acl_require(QML_CAN_ADMIN, name);
	return name;
}

Datum
qml_create_queue(PG_FUNCTION_ARGS)
{
	char *name = read_name(fcinfo);

	qml_args_check_queue(name);
	qml_queue_admin_create(name, qml_args_options(fcinfo, 1, "options"));
	PG_RETURN_BOOL(true);
}

Datum
qml_alter_queue(PG_FUNCTION_ARGS)
{
	char *name = read_name(fcinfo);

	qml_queue_admin_alter(name, qml_args_options(fcinfo, 1, "options"));
	PG_RETURN_BOOL(true);
}

Datum
qml_drop_queue(PG_FUNCTION_ARGS)
{
	char *name = read_name(fcinfo);

	qml_args_check_queue(name);
	PG_RETURN_BOOL(qml_queue_admin_drop(name, qml_args_flag(fcinfo, 1, "missing_ok")));
}

Datum
qml_pause_queue(PG_FUNCTION_ARGS)
{
	char *name = read_name(fcinfo);

	PG_RETURN_BOOL(qml_queue_admin_pause(name, true, qml_args_flag(fcinfo, 1, "missing_ok")));
}

Datum
qml_resume_queue(PG_FUNCTION_ARGS)
{
	char *name = read_name(fcinfo);

	PG_RETURN_BOOL(qml_queue_admin_pause(name, false, qml_args_flag(fcinfo, 1, "missing_ok")));
}

/* For the view qml.queue: whether the current user sees the queue. */
Datum
qml_queue_access(PG_FUNCTION_ARGS)
{
	bool seen = qml_acl_see_queue(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (!seen)
		qml_acl_require_one(QML_MAY_ANY, NULL);
	PG_RETURN_BOOL(seen);
}
