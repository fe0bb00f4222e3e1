/*
 * sql_current.c
 *		SQL functions for jobs that run in the database: qml_current_job,
 *		qml_progress and qml_discard of one argument, qml_retry_later.
 */
#include "postgres.h"

#include "fmgr.h"

#include "common/args.h"
#include "common/srf.h"
#include "compat.h"
#include "qml.h"
#include "sql/sql_rights.h"
#include "userfn/current_job.h"
#include "userfn/hook.h"

QML_FUNCTION(qml_current_job);
QML_FUNCTION(qml_show_progress);
QML_FUNCTION(qml_retry_later);
QML_FUNCTION(qml_discard_current);

/*
 * Raises 42501 for a role that has nothing to do with handlers, and 55000 outside of one.  A
 * hook that the handler causes is not part of it.  workers: workers outside may have meant the
 * form for claims, so they are told that there is no job.
 */
static void
require_job(const char *function, bool workers)
{
	if (workers)
		qml_sql_require_work_or_handler();
	else
		qml_sql_require_handler();
	if (qml_hook_is_running())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() cannot be called in a hook", function)));
	(void) qml_current_job_require(function);
}

/* NULL outside of a handler. */
Datum
qml_current_job(PG_FUNCTION_ARGS)
{
	const QmlJob *job;

	qml_sql_require_handler();
	job = qml_hook_is_running() ? NULL : qml_current_job_or_null();
	if (job == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(qml_job_expected_row(job, QML_ACCESS_FULL, qml_srf_expected(fcinfo)));
}

/* qml_progress() of one argument; the other form is in sql_ack.c. */
Datum
qml_show_progress(PG_FUNCTION_ARGS)
{
	require_job("qml_progress", true);
	qml_args_require(fcinfo, 0, "progress");
	qml_current_job_set_progress(qml_args_document(fcinfo, 0, "progress"));
	PG_RETURN_BOOL(true);
}

Datum
qml_retry_later(PG_FUNCTION_ARGS)
{
	require_job("qml_retry_later", false);
	qml_args_require(fcinfo, 0, "delay");
	qml_current_job_later(qml_args_duration(fcinfo, 0, "delay"),
						  qml_args_text(fcinfo, 1, QML_MAX_ERROR));
	PG_RETURN_BOOL(true);
}

/* qml_discard() of the job that runs; the form for a claim is in sql_ack.c. */
Datum
qml_discard_current(PG_FUNCTION_ARGS)
{
	require_job("qml_discard", true);
	qml_current_job_discard(qml_args_text(fcinfo, 0, QML_MAX_ERROR));
	PG_RETURN_BOOL(true);
}
