/*
 * sql_worker.c
 *		SQL functions of workers: qml_fetch, qml_heartbeat, qml_progress,
 *		qml_succeed, qml_succeed_many, qml_fail, qml_release.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "common/srf.h"
#include "compat.h"
#include "ipc/session_claim.h"
#include "jobs/ack.h"
#include "jobs/claim.h"
#include "model/catalog.h"
#include "qml.h"
#include "userfn/current_job.h"

QML_FUNCTION(qml_fetch);
QML_FUNCTION(qml_heartbeat);
QML_FUNCTION(qml_progress);
QML_FUNCTION(qml_succeed);
QML_FUNCTION(qml_succeed_many);
QML_FUNCTION(qml_fail);
QML_FUNCTION(qml_release);

/* The lease in microseconds; 0 binds the claim to the session, NULL is that of the queue. */
static int64
read_lease(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return QML_LEASE_OF_QUEUE;
	if (qml_args_interval_usecs(PG_GETARG_INTERVAL_P(arg)) != 0)
		return qml_args_duration(fcinfo, arg, "lease");
	if (!qml_session_claim_can_hold())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a claim can be bound to its session only if qml is preloaded"),
				 errhint("Add qml to shared_preload_libraries, or give a lease that is longer "
						 "than 0.")));
	return QML_NO_LEASE;
}

static void
collect_job(const QmlJob *job, void *arg)
{
	QmlSrfRows *rows = arg;

	rows->values[rows->count++] = qml_job_to_row(job, true);
}

/*
 * The rows of qml_fetch().  The name of a worker may begin with the id of its server and a
 * slash; by default it is made of the user and the process.
 */
static QmlSrfRows *
fetch_jobs(FunctionCallInfo fcinfo)
{
	char *worker = qml_args_name_or_null(fcinfo, 0, "worker", QML_MAX_NAME);
	const char *slash;
	QmlClaim claim = {.server = (Datum) 0};
	QmlSrfRows *rows;
	QmlMore more;

	if (worker == NULL)
		worker = psprintf("%s-%d", GetUserNameFromId(GetUserId(), false), MyProcPid);
	claim.worker = CStringGetTextDatum(worker);
	slash = strchr(worker, '/');
	if (slash && slash != worker)
		claim.server = PointerGetDatum(cstring_to_text_with_len(worker, slash - worker));
	claim.queues = qml_args_queues(fcinfo, 1, "queues", &claim.nqueues);
	claim.batch = qml_args_int(fcinfo, 2, "batch", 1, QML_MAX_BATCH);
	claim.lease = read_lease(fcinfo, 3);
	if (claim.lease == QML_NO_LEASE)
		claim.server = CStringGetTextDatum(qml_session_claim_id());
	rows = qml_srf_alloc(claim.batch);
	claim.take = collect_job;
	claim.arg = rows;
	(void) qml_claim_batch(&claim, &more);
	return rows;
}

Datum
qml_fetch(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, fetch_jobs);
}

/* Reads the first arguments of all acknowledgements: attempt, and id, which is returned. */
static pg_uuid_t *
read_token(FunctionCallInfo fcinfo, QmlAckKind kind, QmlAck *ack)
{
	memset(ack, 0, sizeof(*ack));
	ack->kind = kind;
	ack->retry_at = QML_NO_TIME;
	ack->attempt = qml_args_int(fcinfo, 1, "attempt", INT_MIN, INT_MAX);
	return qml_args_uuid(fcinfo, 0, "id");
}

/* Extends the lease; returns its new end, NULL for a claim that has no lease. */
Datum
qml_heartbeat(PG_FUNCTION_ARGS)
{
	QmlAck ack;
	pg_uuid_t *id = read_token(fcinfo, QML_ACK_HEARTBEAT, &ack);

	ack.lease = qml_args_duration(fcinfo, 2, "lease");
	qml_ack_one(id, &ack);
	if (ack.lease_expires_at == QML_NO_TIME)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(ack.lease_expires_at);
}

Datum
qml_progress(PG_FUNCTION_ARGS)
{
	QmlAck ack;
	pg_uuid_t *id = read_token(fcinfo, QML_ACK_PROGRESS, &ack);

	qml_args_require(fcinfo, 2, "progress");
	ack.document = qml_args_document(fcinfo, 2, "progress");
	/* For the job that runs in this session: others see it before its transaction commits. */
	if (qml_current_job_is(id, ack.attempt))
		qml_current_job_set_progress(ack.document);
	else
		qml_ack_one(id, &ack);
	PG_RETURN_VOID();
}

Datum
qml_succeed(PG_FUNCTION_ARGS)
{
	QmlAck ack;
	pg_uuid_t *id = read_token(fcinfo, QML_ACK_SUCCEED, &ack);

	ack.document = qml_args_document(fcinfo, 2, "result");
	qml_ack_one(id, &ack);
	PG_RETURN_VOID();
}

Datum
qml_fail(PG_FUNCTION_ARGS)
{
	QmlAck ack;
	pg_uuid_t *id = read_token(fcinfo, QML_ACK_FAIL, &ack);

	qml_args_require(fcinfo, 2, "error");
	ack.error.error = qml_args_text(fcinfo, 2, QML_MAX_ERROR);
	(void) qml_args_name_or_null(fcinfo, 3, "error_type", QML_MAX_NAME);
	ack.error.error_type = qml_args_text(fcinfo, 3, QML_MAX_ERROR);
	ack.error.stack_trace = qml_args_text(fcinfo, 4, QML_MAX_STACK_TRACE);
	ack.retry = qml_args_flag(fcinfo, 5, "retry");
	ack.retry_at = qml_args_time_or_null(fcinfo, 6, "retry_at");
	qml_ack_one(id, &ack);
	PG_RETURN_OID(qml_catalog()->states[ack.state]);
}

Datum
qml_release(PG_FUNCTION_ARGS)
{
	QmlAck ack;
	pg_uuid_t *id = read_token(fcinfo, QML_ACK_RELEASE, &ack);

	qml_ack_one(id, &ack);
	PG_RETURN_VOID();
}

static void
require_same_length(const char *name, int count, int expected)
{
	if (count != expected)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("arguments \"ids\" and \"%s\" must have the same length", name),
				 errdetail("They have %d and %d elements.", expected, count)));
}

static void
require_not_null(const char *name, const bool *nulls, int i)
{
	if (nulls[i])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("element %d of argument \"%s\" must not be null", i + 1, name)));
}

/* The rows of qml_succeed_many(): the ids of the jobs whose attempt was still valid. */
static QmlSrfRows *
succeed_many(FunctionCallInfo fcinfo)
{
	QmlSrfRows *rows;
	Datum *id_values;
	Datum *attempt_values;
	Datum *result_values = NULL;
	bool *id_nulls;
	bool *attempt_nulls;
	bool *result_nulls = NULL;
	int count;
	int other;
	pg_uuid_t *ids;
	QmlAck *acks;

	qml_args_array(fcinfo, 0, "ids", UUIDOID, &id_values, &id_nulls, &count);
	qml_args_array(fcinfo, 1, "attempts", INT4OID, &attempt_values, &attempt_nulls, &other);
	require_same_length("attempts", other, count);
	if (!PG_ARGISNULL(2))
	{
		qml_args_array(fcinfo, 2, "results", JSONBOID, &result_values, &result_nulls, &other);
		require_same_length("results", other, count);
	}

	ids = palloc(sizeof(pg_uuid_t) * Max(count, 1));
	acks = palloc0(sizeof(QmlAck) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		require_not_null("ids", id_nulls, i);
		require_not_null("attempts", attempt_nulls, i);
		ids[i] = *DatumGetUUIDP(id_values[i]);
		acks[i].kind = QML_ACK_SUCCEED;
		acks[i].attempt = DatumGetInt32(attempt_values[i]);
		if (result_values && !result_nulls[i])
		{
			qml_args_check_document(result_values[i], "results");
			acks[i].document = result_values[i];
		}
	}
	rows = qml_srf_alloc(count);
	qml_ack_many(ids, acks, count);
	for (int i = 0; i < count; i++)
	{
		if (acks[i].accepted)
			rows->values[rows->count++] = UUIDPGetDatum(&ids[i]);
	}
	return rows;
}

Datum
qml_succeed_many(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, succeed_many);
}
