/*
 * sql_queue.c
 *		SQL functions of queues: qml_create_queue, qml_alter_queue,
 *		qml_drop_queue, qml_pause_queue, qml_resume_queue, qml_pause_all, qml_resume_all,
 *		qml_purge_queue;
 *		and qml.queue_access for the views.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "compat.h"
#include "jobs/purge.h"
#include "jobs/queue_admin.h"
#include "model/acl.h"
#include "qml.h"
#include "sql/sql_rights.h"

QML_FUNCTION(qml_create_queue);
QML_FUNCTION(qml_alter_queue);
QML_FUNCTION(qml_drop_queue);
QML_FUNCTION(qml_pause_queue);
QML_FUNCTION(qml_resume_queue);
QML_FUNCTION(qml_pause_all);
QML_FUNCTION(qml_resume_all);
QML_FUNCTION(qml_purge_queue);
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

	PG_RETURN_BOOL(qml_queue_admin_pause(name, qml_args_text(fcinfo, 1, QML_MAX_ERROR),
										 qml_args_flag(fcinfo, 2, "missing_ok")));
}

Datum
qml_resume_queue(PG_FUNCTION_ARGS)
{
	char *name = read_name(fcinfo);

	PG_RETURN_BOOL(qml_queue_admin_resume(name, qml_args_flag(fcinfo, 1, "missing_ok")));
}

Datum
qml_pause_all(PG_FUNCTION_ARGS)
{
	qml_acl_require(QML_CAN_ADMIN, NULL);
	PG_RETURN_BOOL(qml_queue_admin_pause_all(qml_args_text(fcinfo, 0, QML_MAX_ERROR)));
}

Datum
qml_resume_all(PG_FUNCTION_ARGS)
{
	qml_acl_require(QML_CAN_ADMIN, NULL);
	PG_RETURN_BOOL(qml_queue_admin_resume_all());
}

/* Returns how many jobs were deleted. */
Datum
qml_purge_queue(PG_FUNCTION_ARGS)
{
	char *name = read_name(fcinfo);

	PG_RETURN_INT64(qml_purge_queue_jobs(name, qml_args_text(fcinfo, 1, QML_MAX_ERROR),
										 qml_args_flag(fcinfo, 2, "missing_ok")));
}

/* For the views qml.queue and qml.pause: whether the current user sees the queue. */
Datum
qml_queue_access(PG_FUNCTION_ARGS)
{
	bool seen = qml_acl_see_queue(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (!seen)
		qml_acl_require_one(QML_MAY_ANY, NULL);
	PG_RETURN_BOOL(seen);
}
