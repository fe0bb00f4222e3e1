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

QML_FUNCTION(qml_create_queue);
QML_FUNCTION(qml_alter_queue);
QML_FUNCTION(qml_drop_queue);
QML_FUNCTION(qml_pause_queue);
QML_FUNCTION(qml_resume_queue);
QML_FUNCTION(qml_queue_access);

/* The name of a queue that the current user administers. */
static char *
read_name(FunctionCallInfo fcinfo)
{
	char *name = qml_args_name(fcinfo, 0, "name", QML_MAX_QUEUE_NAME);

	qml_acl_require(QML_CAN_ADMIN, name);
	return name;
}

Datum
qml_create_queue(PG_FUNCTION_ARGS)
{
	char *name = read_name(fcinfo);

	qml_queue_admin_create(name, qml_args_options(fcinfo, 1, "options"));
	PG_RETURN_VOID();
}

Datum
qml_alter_queue(PG_FUNCTION_ARGS)
{
	char *name = read_name(fcinfo);

	qml_queue_admin_alter(name, qml_args_options(fcinfo, 1, "options"));
	PG_RETURN_VOID();
}

Datum
qml_drop_queue(PG_FUNCTION_ARGS)
{
	qml_queue_admin_drop(read_name(fcinfo));
	PG_RETURN_VOID();
}

Datum
qml_pause_queue(PG_FUNCTION_ARGS)
{
	qml_queue_admin_pause(read_name(fcinfo), true);
	PG_RETURN_VOID();
}

Datum
qml_resume_queue(PG_FUNCTION_ARGS)
{
	qml_queue_admin_pause(read_name(fcinfo), false);
	PG_RETURN_VOID();
}

/* For the view qml.queue: whether the current user sees the queue. */
Datum
qml_queue_access(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_BOOL(qml_acl_allow_any(QML_CAN_MONITOR) || qml_acl_allow(QML_CAN_ENQUEUE, name) ||
				   qml_acl_allow(QML_CAN_WORK, name));
}
