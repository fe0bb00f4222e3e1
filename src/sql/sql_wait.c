/*
 * sql_wait.c
 *		SQL procedures that wait: qml_wait, qml_wait_for.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"

#include "common/args.h"
#include "compat.h"
#include "jobs/wait.h"
#include "model/catalog.h"

QML_FUNCTION(qml_wait);
QML_FUNCTION(qml_wait_for);

/* The row of the one output argument. */
static Datum
make_row(FunctionCallInfo fcinfo, Datum value, bool isnull)
{
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value, &isnull));
}

static int64
read_timeout(FunctionCallInfo fcinfo)
{
	qml_args_require(fcinfo, 1, "timeout");
	return qml_args_duration(fcinfo, 1, "timeout");
}

Datum
qml_wait(PG_FUNCTION_ARGS)
{
	int nqueues = 0;
	char **queues = qml_args_queues(fcinfo, 0, "queues", &nqueues);
	int64 timeout = read_timeout(fcinfo);

	qml_wait_check(fcinfo, "qml_wait");
	return make_row(fcinfo, BoolGetDatum(qml_wait_ready(queues, nqueues, timeout)), false);
}

/* Returns the state when the wait ends; NULL if the job finished and was not kept. */
Datum
qml_wait_for(PG_FUNCTION_ARGS)
{
	pg_uuid_t id = *qml_args_uuid(fcinfo, 0, "id");
	int64 timeout = read_timeout(fcinfo);
	QmlState state;
	bool found;

	qml_wait_check(fcinfo, "qml_wait_for");
	found = qml_wait_finished(&id, timeout, &state);
	return make_row(fcinfo, found ? ObjectIdGetDatum(qml_catalog()->states[state]) : (Datum) 0,
					!found);
}
