/*
 * sql_wait.c
 *		SQL procedures that wait: qml_wait, qml_wait_for.
 */
#include "postgres.h"

#include "fmgr.h"

#include "common/args.h"
#include "compat.h"
#include "jobs/wait.h"
#include "model/acl.h"
#include "model/catalog.h"

QML_FUNCTION(qml_wait);
QML_FUNCTION(qml_wait_for);

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
	qml_wait_check(fcinfo, "qml_wait");
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
	qml_wait_check(fcinfo, "qml_wait_for");
	found = qml_wait_finished(&id, timeout, &state);
	return qml_args_output(fcinfo,
						   found ? ObjectIdGetDatum(qml_catalog()->states[state]) : (Datum) 0,
						   !found);
}
