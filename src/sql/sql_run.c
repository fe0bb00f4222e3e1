/*
 * sql_run.c
 *		SQL functions that run jobs in the transaction of the caller: qml_run, qml_drain.
 */
#include "postgres.h"

#include "fmgr.h"

#include "common/args.h"
#include "common/srf.h"
#include "compat.h"
#include "jobs/drain.h"
#include "jobs/session_run.h"
#include "model/acl.h"
#include "qml.h"

QML_FUNCTION(qml_run);
QML_FUNCTION(qml_drain);

/* Jobs that one call runs at most: one transaction should not hold more. */
#define MAX_DRAINED 1000000

Datum
qml_run(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_WORK);
	id = qml_args_uuid(fcinfo, 0, "id");
	qml_session_run_require("qml_run");
	PG_RETURN_DATUM(
		qml_job_expected_row(qml_session_run_one(id), QML_ACCESS_FULL, qml_srf_expected(fcinfo)));
}

Datum
qml_drain(PG_FUNCTION_ARGS)
{
	char **queues;
	int nqueues;
	int most;
	bool scheduled;

	qml_acl_require_any(QML_CAN_WORK);
	queues = qml_args_queues(fcinfo, 0, "queues", &nqueues);
	most = qml_args_int(fcinfo, 1, "max", 1, MAX_DRAINED);
	scheduled = qml_args_flag(fcinfo, 2, "scheduled");
	qml_session_run_require("qml_drain");
	PG_RETURN_INT32(qml_drain_jobs(queues, queues ? nqueues : 0, most, scheduled));
}
