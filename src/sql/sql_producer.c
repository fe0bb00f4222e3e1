/*
 * sql_producer.c
 *		SQL functions of producers: qml_enqueue, qml_try_enqueue,
 *		qml_enqueue_many; and the procedure qml_enqueue_job, which does what qml_enqueue does.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "common/srf.h"
#include "common/uuid.h"
#include "compat.h"
#include "jobs/enqueue.h"
#include "maintenance/idle.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "qml.h"
#include "sql/sql_rights.h"

QML_FUNCTION(qml_enqueue);
QML_FUNCTION(qml_try_enqueue);
QML_FUNCTION(qml_enqueue_job);
QML_FUNCTION(qml_enqueue_many);

/* Where a function has the arguments that the others have in other places. */
typedef struct Places
{
	int id; /* -1: there is none */
	int delay;
	int options;
} Places;

static const Places one_places = {.id = 9, .delay = 10, .options = 11};
/* The id comes last in the procedure, because it is returned as well. */
static const Places job_places = {.id = 11, .delay = 9, .options = 10};
static const Places many_places = {.id = -1, .delay = 9, .options = 10};

/* When the job becomes ready: at a time, after a delay, or (QML_NO_TIME) now. */
static TimestampTz
read_run_at(FunctionCallInfo fcinfo, int delay)
{
	TimestampTz run_at = qml_args_time_or_null(fcinfo, 4, "run_at");

	if (PG_ARGISNULL(delay))
		return run_at;
	if (run_at != QML_NO_TIME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arguments \"run_at\" and \"delay\" exclude each other"),
				 errhint("Give the time, or how long to wait from now on.")));
	return qml_args_time_after(fcinfo, delay, "delay");
}

static bool
has_id(FunctionCallInfo fcinfo, const Places *places)
{
	return places->id >= 0 && !PG_ARGISNULL(places->id);
}

/* Reads the arguments that all of these functions have, most of them in the same places. */
static void
read_request(FunctionCallInfo fcinfo, const Places *places, QmlEnqueue *request)
{
	char *job_type;

	request->method = CStringGetTextDatum(qml_args_name(fcinfo, 0, "method", QML_MAX_NAME));
	request->queue = qml_args_queue(fcinfo, 2, "queue");
	request->priority = qml_args_int(fcinfo, 3, "priority", INT_MIN, INT_MAX);
	request->run_at = read_run_at(fcinfo, places->delay);
	request->max_retries = PG_ARGISNULL(5) ?
							   -1 :
							   qml_args_int(fcinfo, 5, "max_retries", 0, QML_MAX_RETRIES);
	request->timeout_ms = qml_args_timeout_ms(fcinfo, 6, "timeout");
	request->metadata = qml_args_object(fcinfo, 7, "metadata");
	job_type = qml_args_name_or_null(fcinfo, 8, "job_type", QML_MAX_NAME);
	request->job_type = job_type ? CStringGetTextDatum(job_type) : (Datum) 0;
	request->created_by = InvalidOid;
	memset(&request->options, 0, sizeof(request->options));
	if (!PG_ARGISNULL(places->options))
		qml_options_parse_enqueue(qml_args_options(fcinfo, places->options, "options"),
								  has_id(fcinfo, places), &request->options);
}

/* Adds one job; *id: that of the job. */
static QmlEnqueued
enqueue_one(FunctionCallInfo fcinfo, const Places *places, pg_uuid_t *id)
{
	QmlEnqueue request;
	QmlEnqueued enqueued;
	Datum payload;
	bool own_id;

	qml_sql_require_queue(fcinfo, QML_MAY_ENQUEUE, 2);
	own_id = has_id(fcinfo, places);
	read_request(fcinfo, places, &request);
	qml_args_require(fcinfo, 1, "payload");
	payload = qml_args_document(fcinfo, 1, "payload");
	if (own_id)
		*id = *PG_GETARG_UUID_P(places->id);
	else
		qml_uuid_generate(id);
	enqueued = qml_enqueue_one(&request, payload, id, own_id);
	if (enqueued.state == QML_SCHEDULED)
		qml_idle_warn(QML_IDLE_DELAYED);
	return enqueued;
}

Datum
qml_enqueue(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));

	(void) enqueue_one(fcinfo, &one_places, id);
	PG_RETURN_UUID_P(id);
}

/* One row: the id, whether the job was made, and its state. */
Datum
qml_try_enqueue(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	pg_uuid_t id;
	QmlEnqueued enqueued;
	Datum values[3];
	bool nulls[3] = {false, false, false};

	qml_sql_require_queue(fcinfo, QML_MAY_ENQUEUE, 2);
	InitMaterializedSRF(fcinfo, 0);
	enqueued = enqueue_one(fcinfo, &one_places, &id);
	values[0] = UUIDPGetDatum(&id);
	values[1] = BoolGetDatum(enqueued.created);
	values[2] = ObjectIdGetDatum(qml_catalog()->states[enqueued.state]);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}

/* A procedure with the arguments of qml_enqueue(). */
Datum
qml_enqueue_job(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));

	(void) enqueue_one(fcinfo, &job_places, id);
	return qml_args_output(fcinfo, UUIDPGetDatum(id), false);
}

/* The rows of qml_enqueue_many(): the ids of the new jobs, in the order of the payloads. */
static QmlSrfRows *
enqueue_many(FunctionCallInfo fcinfo)
{
	QmlEnqueue request;
	Datum *payloads;
	bool *nulls;
	int count;
	pg_uuid_t *ids;
	QmlSrfRows *rows;

	qml_sql_require_queue(fcinfo, QML_MAY_ENQUEUE, 2);
	read_request(fcinfo, &many_places, &request);
	qml_args_array(fcinfo, 1, "payloads", JSONBOID, &payloads, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of argument \"payloads\" must not be null", i + 1)));
		qml_args_check_document(payloads[i], "payloads");
	}
	ids = palloc(sizeof(pg_uuid_t) * Max(count, 1));
	if (qml_enqueue_batch(&request, payloads, count, ids) == QML_SCHEDULED)
		qml_idle_warn(QML_IDLE_DELAYED);

	rows = qml_srf_alloc(count);
	for (rows->count = 0; rows->count < count; rows->count++)
		rows->values[rows->count] = UUIDPGetDatum(&ids[rows->count]);
	return rows;
}

Datum
qml_enqueue_many(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, enqueue_many);
}
