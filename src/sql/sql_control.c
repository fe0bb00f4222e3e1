/*
 * sql_control.c
 *		SQL functions that look at jobs and change them by hand: qml_job,
 *		qml_counts, qml_queue_counts, qml_delete, qml_retry, qml_reschedule,
 *		qml_set_state, qml_can_transition; and qml.job_access for the view.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "compat.h"
#include "core/state.h"
#include "jobs/control.h"
#include "jobs/lookup.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/options.h"
#include "model/queue.h"

QML_FUNCTION(qml_can_transition);
QML_FUNCTION(qml_job);
QML_FUNCTION(qml_counts);
QML_FUNCTION(qml_queue_counts);
QML_FUNCTION(qml_job_access);
QML_FUNCTION(qml_delete);
QML_FUNCTION(qml_retry);
QML_FUNCTION(qml_reschedule);
QML_FUNCTION(qml_set_state);

/* Shows the table of core/state.c. */
Datum
qml_can_transition(PG_FUNCTION_ARGS)
{
	qml_args_require(fcinfo, 0, "from");
	qml_args_require(fcinfo, 1, "to");
	PG_RETURN_BOOL(qml_state_allowed(qml_catalog_state(PG_GETARG_OID(0)),
									 qml_catalog_state(PG_GETARG_OID(1))));
}

/* NULL if there is no such job that the caller may see. */
Datum
qml_job(PG_FUNCTION_ARGS)
{
	Datum row = qml_lookup_job(qml_args_uuid(fcinfo, 0, "id"));

	if (row == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(row);
}

Datum
qml_counts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	qml_lookup_counts(rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

Datum
qml_queue_counts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	qml_lookup_queue_counts(rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

/* For the view qml.job: what the current user sees of a job (QmlAccess). */
Datum
qml_job_access(PG_FUNCTION_ARGS)
{
	const QmlQueue *queue = qml_queue_by_id(PG_GETARG_INT32(0));

	if (queue == NULL)
		PG_RETURN_INT32(QML_ACCESS_NONE);
	PG_RETURN_INT32(qml_acl_access(queue->name, PG_GETARG_OID(1)));
}

Datum
qml_delete(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = qml_args_uuid(fcinfo, 0, "id");

	PG_RETURN_BOOL(qml_control_delete(id, qml_args_text(fcinfo, 1, QML_MAX_ERROR)));
}

Datum
qml_retry(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(qml_control_retry(qml_args_uuid(fcinfo, 0, "id")));
}

Datum
qml_reschedule(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = qml_args_uuid(fcinfo, 0, "id");

	qml_args_require(fcinfo, 1, "run_at");
	PG_RETURN_BOOL(qml_control_schedule(id, qml_args_time_or_null(fcinfo, 1, "run_at"),
										qml_args_text(fcinfo, 2, QML_MAX_ERROR)));
}

/* Makes any allowed transition; data holds what the new state needs. */
Datum
qml_set_state(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = qml_args_uuid(fcinfo, 0, "id");
	QmlState state;
	QmlStateData data;

	qml_args_require(fcinfo, 1, "state");
	qml_args_require(fcinfo, 2, "data");
	state = qml_catalog_state(PG_GETARG_OID(1));
	qml_options_parse_state(state, DatumGetJsonbP(qml_args_object(fcinfo, 2, "data")), &data);
	if (data.worker == (Datum) 0)
		data.worker = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	PG_RETURN_DATUM(qml_control_set_state(id, state, &data));
}
