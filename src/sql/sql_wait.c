/*
 * sql_wait.c
 *		SQL procedures that wait: qml_wait, qml_wait_for, qml_watch.
 */
#include "postgres.h"

#include "fmgr.h"

#include "common/args.h"
#include "compat.h"
#include "jobs/session_sleep.h"
#include "jobs/wait.h"
#include "jobs/watching.h"
#include "model/acl.h"
#include "model/catalog.h"

QML_FUNCTION(qml_wait);
QML_FUNCTION(qml_wait_for);
QML_FUNCTION(qml_watch);

#define NO_JOBS_HERE "Jobs become ready and end on the primary, and nobody is woken here."

/* Microseconds; 0 is to look, and not to wait. */
static int64
read_timeout(FunctionCallInfo fcinfo)
{
	qml_args_require(fcinfo, 1, "timeout");
	return qml_args_wait_time(fcinfo, 1, "timeout");
}

Datum
qml_wait(PG_FUNCTION_ARGS)
{
	QmlWaitFor what = {.nqueues = 0};
	char **methods;
	int nmethods;
	int64 timeout;

	qml_acl_require_any(QML_CAN_WORK);
	what.queues = qml_args_queues(fcinfo, 0, "queues", &what.nqueues);
	timeout = read_timeout(fcinfo);
	methods = qml_args_methods(fcinfo, 2, "methods", &nmethods);
	if (methods)
		what.methods = qml_method_set_make(methods, nmethods);
	qml_session_check_wait(fcinfo, "qml_wait", NO_JOBS_HERE);
	return qml_args_output(fcinfo, BoolGetDatum(qml_wait_ready(&what, timeout)), false);
}

/* Returns the state when the wait ends; NULL if the job finished and was not kept. */
Datum
qml_wait_for(PG_FUNCTION_ARGS)
{
	pg_uuid_t id;
	int64 timeout;
	QmlState state;
	bool found;

	qml_acl_require_one(QML_MAY_ANY, NULL);
	id = *qml_args_uuid(fcinfo, 0, "id");
	timeout = read_timeout(fcinfo);
	qml_session_check_wait(fcinfo, "qml_wait_for", NO_JOBS_HERE);
	found = qml_wait_finished(&id, timeout, &state);
	return qml_args_output(fcinfo,
						   found ? ObjectIdGetDatum(qml_catalog()->states[state]) : (Datum) 0,
						   !found);
}

/* Returns another version when something has changed since this one; NULL: at once. */
Datum
qml_watch(PG_FUNCTION_ARGS)
{
	bool has_version = !PG_ARGISNULL(0);
	int64 since = has_version ? PG_GETARG_INT64(0) : 0;
	int64 version = since;
	int64 timeout;
	bool changed;

	qml_acl_require_any(QML_CAN_MONITOR);
	timeout = read_timeout(fcinfo);
	qml_session_check_wait(fcinfo, "qml_watch",
						   "What changes on the primary is replayed, and nobody is woken here.");
	changed = qml_watching_wait(has_version ? &since : NULL, timeout, &version);
	Assert(changed || has_version);
	return qml_args_output(fcinfo, Int64GetDatum(changed ? version : since), false);
}
