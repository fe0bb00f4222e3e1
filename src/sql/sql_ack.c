/*
 * sql_ack.c
 *		SQL functions by which workers speak of the jobs that they hold: qml_heartbeat,
 *		qml_heartbeat_many, qml_progress, qml_succeed, qml_succeed_many, qml_fail,
 *		qml_fail_many, qml_release, qml_release_many, qml_discard; and qml.lease_end for the
 *		view qml.job.
 *
 * Procedures do what the functions of the same name do, and have no result row:
 * qml_progress_job, qml_succeed_job, qml_fail_job, qml_release_job, qml_discard_job.  They
 * do not end the caller's transaction.
 *
 * The n-th argument means the same in the forms for one job and for many.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"

#include "common/args.h"
#include "common/report.h"
#include "common/srf.h"
#include "compat.h"
#include "ipc/beats.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "qml.h"
#include "sql/sql_ack.h"
#include "sql/sql_rights.h"
#include "userfn/current_job.h"

QML_FUNCTION(qml_heartbeat);
QML_FUNCTION(qml_heartbeat_many);
QML_FUNCTION(qml_lease_end);
QML_FUNCTION(qml_progress);
QML_FUNCTION(qml_succeed);
QML_FUNCTION(qml_succeed_many);
QML_FUNCTION(qml_fail);
QML_FUNCTION(qml_fail_many);
QML_FUNCTION(qml_release);
QML_FUNCTION(qml_release_many);
QML_FUNCTION(qml_discard);
QML_FUNCTION(qml_progress_job);
QML_FUNCTION(qml_succeed_job);
QML_FUNCTION(qml_fail_job);
QML_FUNCTION(qml_release_job);
QML_FUNCTION(qml_discard_job);

static void
set_token(QmlAck *ack, QmlAckKind kind, int attempt)
{
	memset(ack, 0, sizeof(*ack));
	ack->kind = kind;
	ack->attempt = attempt;
	ack->run_at = QML_NO_TIME;
}

/* Reads the first arguments of the functions for one job: attempt, and id, which is returned. */
static pg_uuid_t *
read_token(FunctionCallInfo fcinfo, QmlAckKind kind, QmlAck *ack)
{
	set_token(ack, kind, qml_args_int(fcinfo, 1, "attempt", INT_MIN, INT_MAX));
	return qml_args_uuid(fcinfo, 0, "id");
}

/* ----- arguments of the functions for many jobs ----- */

/* An argument that has an element for each job. */
typedef struct Elements
{
	Datum *values; /* NULL: the argument is null, and so is each element */
	bool *nulls;
} Elements;

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

/* Reads an argument that may be null. */
static void
read_elements(FunctionCallInfo fcinfo, int arg, const char *name, Oid type, int expected,
			  Elements *elements)
{
	int count;

	elements->values = NULL;
	if (PG_ARGISNULL(arg))
		return;
	qml_args_array(fcinfo, arg, name, type, &elements->values, &elements->nulls, &count);
	require_same_length(name, count, expected);
}

/* The element for the i-th job; 0 when null. */
static Datum
element_of(const Elements *elements, int i)
{
	return elements->values == NULL || elements->nulls[i] ? (Datum) 0 : elements->values[i];
}

/* Reads the arguments ids and attempts; returns how many. */
static int
read_tokens(FunctionCallInfo fcinfo, pg_uuid_t **ids, int **attempts)
{
	Datum *id_values;
	Datum *attempt_values;
	bool *id_nulls;
	bool *attempt_nulls;
	int count;
	int other;

	qml_args_array(fcinfo, 0, "ids", UUIDOID, &id_values, &id_nulls, &count);
	qml_args_array(fcinfo, 1, "attempts", INT4OID, &attempt_values, &attempt_nulls, &other);
	require_same_length("attempts", other, count);
	if (count > QML_MAX_TOKENS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("argument \"ids\" has too many elements"),
				 errdetail("It has %d elements; one call takes %d.", count, QML_MAX_TOKENS),
				 errhint("Make several calls.")));
	*ids = palloc(sizeof(pg_uuid_t) * Max(count, 1));
	*attempts = palloc(sizeof(int) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		require_not_null("ids", id_nulls, i);
		require_not_null("attempts", attempt_nulls, i);
		(*ids)[i] = *DatumGetUUIDP(id_values[i]);
		(*attempts)[i] = DatumGetInt32(attempt_values[i]);
	}
	return count;
}

/* The same, as acknowledgements that say nothing else yet. */
static int
read_acks(FunctionCallInfo fcinfo, QmlAckKind kind, pg_uuid_t **ids, QmlAck **acks)
{
	int *attempts;
	int count = read_tokens(fcinfo, ids, &attempts);

	*acks = palloc(sizeof(QmlAck) * Max(count, 1));
	for (int i = 0; i < count; i++)
		set_token(&(*acks)[i], kind, attempts[i]);
	return count;
}

/* Acknowledges; the rows are the ids of the jobs whose attempt was still valid. */
static QmlSrfRows *
acknowledge_many(pg_uuid_t *ids, QmlAck *acks, int count)
{
	QmlSrfRows *rows = qml_srf_alloc(count);

	qml_ack_many(ids, acks, count);
	for (int i = 0; i < count; i++)
	{
		if (acks[i].accepted)
			rows->values[rows->count++] = UUIDPGetDatum(&ids[i]);
	}
	return rows;
}

/* ----- heartbeats ----- */

/* Extends the lease; returns its new end, NULL if it was not extended. */
Datum
qml_heartbeat(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id;
	QmlHeartbeat beat = {.attempt = 0};

	qml_acl_require_any(QML_CAN_WORK);
	id = qml_args_uuid(fcinfo, 0, "id");
	beat.attempt = qml_args_int(fcinfo, 1, "attempt", INT_MIN, INT_MAX);
	beat.lease = qml_args_duration(fcinfo, 2, "lease");
	qml_ack_heartbeat(id, &beat);
	if (beat.lease_end == QML_NO_TIME)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(beat.lease_end);
}

/* Rows: the jobs that are not lost, in the order given, with the new ends of their leases. */
Datum
qml_heartbeat_many(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	pg_uuid_t *ids;
	int *attempts;
	int count;
	int64 lease;
	QmlHeartbeat *beats;

	qml_acl_require_any(QML_CAN_WORK);
	count = read_tokens(fcinfo, &ids, &attempts);
	lease = qml_args_duration(fcinfo, 2, "lease");
	beats = palloc0(sizeof(QmlHeartbeat) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		beats[i].attempt = attempts[i];
		beats[i].lease = lease;
	}
	InitMaterializedSRF(fcinfo, 0);
	qml_ack_heartbeat_many(ids, beats, count);
	for (int i = 0; i < count; i++)
	{
		Datum values[] = {UUIDPGetDatum(&ids[i]), TimestampTzGetDatum(beats[i].lease_end)};
		bool nulls[] = {false, beats[i].lease_end == QML_NO_TIME};

		if (beats[i].accepted)
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* For the view qml.job: when the lease of an attempt ends whose end in the row is given. */
Datum
qml_lease_end(PG_FUNCTION_ARGS)
{
	qml_acl_require_one(QML_MAY_ANY, NULL);
	PG_RETURN_TIMESTAMPTZ(
		qml_beats_end(PG_GETARG_UUID_P(0), PG_GETARG_INT32(1), PG_GETARG_TIMESTAMPTZ(2)));
}

/* ----- progress ----- */

Datum
qml_progress(PG_FUNCTION_ARGS)
{
	QmlAck ack;
	pg_uuid_t *id;

	qml_sql_require_work_or_handler();
	id = read_token(fcinfo, QML_ACK_PROGRESS, &ack);
	qml_args_require(fcinfo, 2, "progress");
	ack.document = qml_args_document(fcinfo, 2, "progress");
	/* For the job that runs in this session: others see it before its transaction commits. */
	if (qml_current_job_is(id, ack.attempt))
		qml_current_job_set_progress(ack.document);
	else
		qml_ack_one(id, &ack);
	PG_RETURN_BOOL(true);
}

/* ----- success ----- */

/* Reads id, attempt and result. */
pg_uuid_t *
qml_sql_ack_read_success(FunctionCallInfo fcinfo, QmlAck *ack)
{
	pg_uuid_t *id = read_token(fcinfo, QML_ACK_SUCCEED, ack);

	ack->document = qml_args_document(fcinfo, 2, "result");
	return id;
}

/* Reads ids, attempts and results; returns how many. */
int
qml_sql_ack_read_successes(FunctionCallInfo fcinfo, pg_uuid_t **ids, QmlAck **acks)
{
	int count = read_acks(fcinfo, QML_ACK_SUCCEED, ids, acks);
	Elements results;

	read_elements(fcinfo, 2, "results", JSONBOID, count, &results);
	for (int i = 0; i < count; i++)
	{
		Datum result = element_of(&results, i);

		if (result != (Datum) 0)
			qml_args_check_document(result, "results");
		(*acks)[i].document = result;
	}
	return count;
}

Datum
qml_succeed(PG_FUNCTION_ARGS)
{
	QmlAck ack;
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_WORK);
	id = qml_sql_ack_read_success(fcinfo, &ack);
	qml_ack_one(id, &ack);
	PG_RETURN_BOOL(true);
}

static QmlSrfRows *
succeed_many(FunctionCallInfo fcinfo)
{
	pg_uuid_t *ids;
	QmlAck *acks;
	int count;

	qml_acl_require_any(QML_CAN_WORK);
	count = qml_sql_ack_read_successes(fcinfo, &ids, &acks);
	return acknowledge_many(ids, acks, count);
}

Datum
qml_succeed_many(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, succeed_many);
}

/* ----- failure ----- */

/*
 * Sets what is said of a failure, where 0 is null; retry and retry_at are arguments.  Nothing
 * of it is refused: how the failure is told must not keep it back.
 */
static void
set_failure(FunctionCallInfo fcinfo, QmlAck *ack, Datum error, Datum error_type, Datum stack_trace)
{
	ack->error.error = qml_report_error(error);
	ack->error.error_type = qml_report_error_type(error_type);
	ack->error.stack_trace = qml_report_text(stack_trace, QML_MAX_STACK_TRACE);
	ack->retry = PG_ARGISNULL(5) || PG_GETARG_BOOL(5);
	if (!PG_ARGISNULL(6) && !TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(6)))
		ack->run_at = PG_GETARG_TIMESTAMPTZ(6);
}

static Datum
value_or_0(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? (Datum) 0 : PG_GETARG_DATUM(arg);
}

Datum
qml_fail(PG_FUNCTION_ARGS)
{
	QmlAck ack;
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_WORK);
	id = read_token(fcinfo, QML_ACK_FAIL, &ack);
	set_failure(fcinfo, &ack, value_or_0(fcinfo, 2), value_or_0(fcinfo, 3), value_or_0(fcinfo, 4));
	qml_ack_one(id, &ack);
	PG_RETURN_OID(qml_catalog()->states[ack.state]);
}

static QmlSrfRows *
fail_many(FunctionCallInfo fcinfo)
{
	pg_uuid_t *ids;
	QmlAck *acks;
	int count;
	Elements errors;
	Elements error_types;
	Elements stack_traces;

	qml_acl_require_any(QML_CAN_WORK);
	count = read_acks(fcinfo, QML_ACK_FAIL, &ids, &acks);
	read_elements(fcinfo, 2, "errors", TEXTOID, count, &errors);
	read_elements(fcinfo, 3, "error_types", TEXTOID, count, &error_types);
	read_elements(fcinfo, 4, "stack_traces", TEXTOID, count, &stack_traces);
	for (int i = 0; i < count; i++)
		set_failure(fcinfo, &acks[i], element_of(&errors, i), element_of(&error_types, i),
					element_of(&stack_traces, i));
	return acknowledge_many(ids, acks, count);
}

Datum
qml_fail_many(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, fail_many);
}

/* ----- release ----- */

/* Reads run_at and reason. */
static void
read_release(FunctionCallInfo fcinfo, QmlAck *ack)
{
	ack->run_at = qml_args_time_or_null(fcinfo, 2, "run_at");
	ack->reason = qml_args_text(fcinfo, 3, QML_MAX_ERROR);
}

Datum
qml_release(PG_FUNCTION_ARGS)
{
	QmlAck ack;
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_WORK);
	id = read_token(fcinfo, QML_ACK_RELEASE, &ack);
	read_release(fcinfo, &ack);
	qml_ack_one(id, &ack);
	PG_RETURN_BOOL(true);
}

static QmlSrfRows *
release_many(FunctionCallInfo fcinfo)
{
	pg_uuid_t *ids;
	QmlAck *acks;
	int count;
	QmlAck all;

	qml_acl_require_any(QML_CAN_WORK);
	count = read_acks(fcinfo, QML_ACK_RELEASE, &ids, &acks);
	read_release(fcinfo, &all);
	for (int i = 0; i < count; i++)
	{
		acks[i].run_at = all.run_at;
		acks[i].reason = all.reason;
	}
	return acknowledge_many(ids, acks, count);
}

Datum
qml_release_many(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, release_many);
}

/* ----- discard ----- */

/* qml_discard() of a claim; the form for the job that runs in this session is in sql_current.c. */
Datum
qml_discard(PG_FUNCTION_ARGS)
{
	QmlAck ack;
	pg_uuid_t *id;

	qml_sql_require_work_or_handler();
	id = read_token(fcinfo, QML_ACK_DISCARD, &ack);
	ack.reason = qml_args_text(fcinfo, 2, QML_MAX_ERROR);
	qml_ack_one(id, &ack);
	PG_RETURN_BOOL(true);
}

/* ----- procedures ----- */

Datum
qml_progress_job(PG_FUNCTION_ARGS)
{
	(void) qml_progress(fcinfo);
	PG_RETURN_VOID();
}

Datum
qml_succeed_job(PG_FUNCTION_ARGS)
{
	(void) qml_succeed(fcinfo);
	PG_RETURN_VOID();
}

Datum
qml_fail_job(PG_FUNCTION_ARGS)
{
	(void) qml_fail(fcinfo);
	PG_RETURN_VOID();
}

Datum
qml_release_job(PG_FUNCTION_ARGS)
{
	(void) qml_release(fcinfo);
	PG_RETURN_VOID();
}

Datum
qml_discard_job(PG_FUNCTION_ARGS)
{
	(void) qml_discard(fcinfo);
	PG_RETURN_VOID();
}
