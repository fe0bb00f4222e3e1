/*
 * sql_control.c
 *		SQL functions that look at jobs and change them by hand: qml_job,
 *		qml_counts, qml_queue_counts, qml_delete, qml_retry, qml_schedule,
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
#include "errcodes.h"
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
QML_FUNCTION(qml_schedule);
QML_FUNCTION(qml_set_state);

Datum
qml_can_transition(PG_FUNCTION_ARGS)
{
	qml_args_require(fcinfo, 0, "from");
	qml_args_require(fcinfo, 1, "to");
	PG_RETURN_BOOL(qml_state_allowed(qml_catalog_state(PG_GETARG_OID(0)),
									 qml_catalog_state(PG_GETARG_OID(1))));
}

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

Datum
qml_job_access(PG_FUNCTION_ARGS)
{
	const QmlQueue *queue = qml_queue_find(PG_GETARG_INT32(0));

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
qml_schedule(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = qml_args_uuid(fcinfo, 0, "id");

	qml_args_require(fcinfo, 1, "run_at");
	PG_RETURN_BOOL(qml_control_schedule(id, qml_args_time_or_null(fcinfo, 1, "run_at"),
										qml_args_text(fcinfo, 2, QML_MAX_ERROR)));
}

static void
read_run_at(const char *path, JsonbValue *value, void *into)
{
	((QmlControl *) into)->run_at = qml_options_time(path, value);
}

static void
read_lease(const char *path, JsonbValue *value, void *into)
{
	((QmlControl *) into)->lease = qml_options_lease(path, value);
}

static void
read_worker(const char *path, JsonbValue *value, void *into)
{
	((QmlControl *) into)->worker = PointerGetDatum(qml_options_name(path, value));
}

static void
read_reason(const char *path, JsonbValue *value, void *into)
{
	((QmlControl *) into)->reason = PointerGetDatum(qml_options_text(path, value, QML_MAX_ERROR));
}

static void
read_result(const char *path, JsonbValue *value, void *into)
{
	((QmlControl *) into)->result = JsonbPGetDatum(JsonbValueToJsonb(value));
}

static void
read_error(const char *path, JsonbValue *value, void *into)
{
	((QmlControl *) into)->error.error = PointerGetDatum(
		qml_options_text(path, value, QML_MAX_ERROR));
}

static void
read_error_type(const char *path, JsonbValue *value, void *into)
{
	((QmlControl *) into)->error.error_type = PointerGetDatum(qml_options_name(path, value));
}

static void
read_stack_trace(const char *path, JsonbValue *value, void *into)
{
	((QmlControl *) into)->error.stack_trace = PointerGetDatum(
		qml_options_text(path, value, QML_MAX_STACK_TRACE));
}

/* What each state takes; the error table serves both ends of a failed attempt. */
static const QmlOption schedule_data[] = {{"run_at", read_run_at},
										  {"reason", read_reason},
										  {NULL, NULL}};
static const QmlOption processing_data[] = {{"worker", read_worker},
											{"lease", read_lease},
											{NULL, NULL}};
static const QmlOption retry_data[] = {{"run_at", read_run_at},
									   {"error", read_error},
									   {"error_type", read_error_type},
									   {"stack_trace", read_stack_trace},
									   {NULL, NULL}};
static const QmlOption failed_data[] = {{"error", read_error},
										{"error_type", read_error_type},
										{"stack_trace", read_stack_trace},
										{NULL, NULL}};
static const QmlOption succeeded_data[] = {{"result", read_result}, {NULL, NULL}};
static const QmlOption reason_data[] = {{"reason", read_reason}, {NULL, NULL}};

static const QmlOption *const state_data[QML_STATES] = {
	[QML_SCHEDULED] = schedule_data,	[QML_ENQUEUED] = reason_data,
	[QML_PROCESSING] = processing_data, [QML_AWAITING_RETRY] = retry_data,
	[QML_SUCCEEDED] = succeeded_data,	[QML_FAILED] = failed_data,
	[QML_DELETED] = reason_data,
};

Datum
qml_set_state(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = qml_args_uuid(fcinfo, 0, "id");
	QmlControl control = {.run_at = QML_NO_TIME, .lease = -1};
	Datum data;

	qml_args_require(fcinfo, 1, "state");
	qml_args_require(fcinfo, 2, "data");
	control.to = qml_catalog_state(PG_GETARG_OID(1));
	data = qml_args_object(fcinfo, 2, "data");
	qml_options_read_object("", &DatumGetJsonbP(data)->root, state_data[control.to], &control);
	if (control.error.error == (Datum) 0 &&
		(control.error.error_type != (Datum) 0 || control.error.stack_trace != (Datum) 0))
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("options \"error_type\" and \"stack_trace\" require option \"error\"")));
	if (control.worker == (Datum) 0)
		control.worker = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	PG_RETURN_DATUM(qml_control_set_state(id, &control));
}
