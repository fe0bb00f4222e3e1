/*
 * sql_producer.c
 *		SQL functions of producers: qml_enqueue, qml_enqueue_many.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "common/srf.h"
#include "common/uuid.h"
#include "compat.h"
#include "jobs/enqueue.h"
#include "qml.h"

QML_FUNCTION(qml_enqueue);
QML_FUNCTION(qml_enqueue_many);

/* Reads the arguments that both functions have in the same places. */
static void
read_request(FunctionCallInfo fcinfo, QmlEnqueue *request)
{
	char *job_type;

	request->method = CStringGetTextDatum(qml_args_name(fcinfo, 0, "method", QML_MAX_NAME));
	request->queue = qml_args_name(fcinfo, 2, "queue", QML_MAX_QUEUE_NAME);
	request->priority = qml_args_int(fcinfo, 3, "priority", INT_MIN, INT_MAX);
	request->run_at = qml_args_time_or_null(fcinfo, 4, "run_at");
	request->max_retries = PG_ARGISNULL(5) ?
							   -1 :
							   qml_args_int(fcinfo, 5, "max_retries", 0, QML_MAX_RETRIES);
	request->timeout_ms = qml_args_timeout_ms(fcinfo, 6, "timeout");
	request->metadata = qml_args_object(fcinfo, 7, "metadata");
	job_type = qml_args_name_or_null(fcinfo, 8, "job_type", QML_MAX_NAME);
	request->job_type = job_type ? CStringGetTextDatum(job_type) : (Datum) 0;
	request->created_by = InvalidOid;
}

Datum
qml_enqueue(PG_FUNCTION_ARGS)
{
	QmlEnqueue request;
	pg_uuid_t *id;
	Datum payload;

	read_request(fcinfo, &request);
	qml_args_require(fcinfo, 1, "payload");
	payload = qml_args_document(fcinfo, 1, "payload");
	if (!PG_ARGISNULL(9))
	{
		id = PG_GETARG_UUID_P(9);
		qml_enqueue_one(&request, payload, id, true);
	}
	else
	{
		id = palloc(sizeof(pg_uuid_t));
		qml_uuid_generate(id);
		qml_enqueue_one(&request, payload, id, false);
	}
	PG_RETURN_UUID_P(id);
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

	read_request(fcinfo, &request);
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
	qml_enqueue_batch(&request, payloads, count, ids);

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
