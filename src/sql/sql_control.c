/*
 * sql_control.c
 *		SQL functions that look at jobs and change them by hand: qml_job,
 *		qml_counts, qml_queue_counts, qml_queue_depth, qml_delete, qml_cancel, qml_retry,
 *		qml_reschedule, qml_set_state, qml_update_job, qml_peek, qml_can_transition; and
 *		qml.unlogged_jobs, qml.job_access, qml.job_document, qml.job_text and qml.retries_left for
 *		the view.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "common/srf.h"
#include "compat.h"
#include "core/state.h"
#include "jobs/control.h"
#include "jobs/counts.h"
#include "jobs/lookup.h"
#include "jobs/peek.h"
#include "jobs/unlogged_rows.h"
#include "jobs/update.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/options.h"
#include "model/redact.h"
#include "sql/sql_rights.h"

QML_FUNCTION(qml_can_transition);
QML_FUNCTION(qml_job);
QML_FUNCTION(qml_counts);
QML_FUNCTION(qml_queue_counts);
QML_FUNCTION(qml_queue_depth);
QML_FUNCTION(qml_unlogged_jobs);
QML_FUNCTION(qml_job_access);
QML_FUNCTION(qml_job_document);
QML_FUNCTION(qml_job_text);
QML_FUNCTION(qml_retries_left);
QML_FUNCTION(qml_delete);
QML_FUNCTION(qml_cancel);
QML_FUNCTION(qml_retry);
QML_FUNCTION(qml_reschedule);
QML_FUNCTION(qml_set_state);
QML_FUNCTION(qml_update_job);
QML_FUNCTION(qml_peek);

/* Shows the table of core/state.c. */
Datum
qml_can_transition(PG_FUNCTION_ARGS)
{
	qml_acl_require_one(QML_MAY_ANY, NULL);
	qml_args_require(fcinfo, 0, "from");
	qml_args_require(fcinfo, 1, "to");
	PG_RETURN_BOOL(qml_state_allowed(qml_catalog_state(PG_GETARG_OID(0)),
									 qml_catalog_state(PG_GETARG_OID(1))));
}

/* The row of qml_job(); none if there is no such job that the caller may see. */
static QmlSrfRows *
find_job(FunctionCallInfo fcinfo)
{
	QmlSrfRows *rows;

	qml_acl_require_one(QML_MAY_ANY, NULL);
	rows = qml_srf_alloc(1);
	rows->values[0] = qml_lookup_job(qml_args_uuid(fcinfo, 0, "id"), qml_srf_expected(fcinfo));
	rows->count = rows->values[0] == (Datum) 0 ? 0 : 1;
	return rows;
}

Datum
qml_job(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, find_job);
}

Datum
qml_counts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	qml_acl_require_any(QML_CAN_MONITOR);
	InitMaterializedSRF(fcinfo, 0);
	qml_counts_by_state(rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

Datum
qml_queue_counts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	qml_acl_require_any(QML_CAN_MONITOR);
	InitMaterializedSRF(fcinfo, 0);
	qml_counts_by_queue(rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

/* For whoever has any capability on the queue. */
Datum
qml_queue_depth(PG_FUNCTION_ARGS)
{
	char *name;
	bool missing_ok;
	const QmlQueue *queue;

	qml_sql_require_queue(fcinfo, QML_MAY_ANY, 0);
	name = qml_args_queue(fcinfo, 0, "queue");
	missing_ok = qml_args_flag(fcinfo, 1, "missing_ok");
	qml_acl_require_one(QML_MAY_ANY, name);
	queue = qml_queue_by_name(name);
	if (queue == NULL)
	{
		if (!missing_ok)
			qml_queue_raise_missing(name);
		PG_RETURN_NULL();
	}
	PG_RETURN_INT64(qml_counts_depth(queue));
}

/* For the view qml.job: jobs of unlogged queues. */
Datum
qml_unlogged_jobs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	qml_acl_require_one(QML_MAY_ANY, NULL);
	InitMaterializedSRF(fcinfo, 0);
	qml_unlogged_rows_store(rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

/* For the view qml.job: what the current user sees of a job in which nothing is hidden (QmlAccess). */
Datum
qml_job_access(PG_FUNCTION_ARGS)
{
	const QmlQueue *queue = qml_queue_by_id(PG_GETARG_INT32(0));
	QmlAccess access = queue ? qml_acl_access(queue->name, PG_GETARG_OID(1)) : QML_ACCESS_NONE;

	/* It is called for each row, so who sees the job is not asked again. */
	if (access == QML_ACCESS_NONE)
		qml_acl_require_one(QML_MAY_ANY, NULL);
	PG_RETURN_INT32(access);
}

/*
 * For the view qml.job: what the current user sees of a column of a job of this queue, method and
 * role, which is contents.
 */
static Datum
show_contents(FunctionCallInfo fcinfo)
{
	int queue_id = PG_GETARG_INT32(0);
	Datum method = PG_GETARG_DATUM(1);
	QmlAccess access = qml_redact_access(queue_id, method, PG_GETARG_OID(2));
	Datum shown = qml_redact_show(access, qml_queue_by_id(queue_id), method,
								  text_to_cstring(PG_GETARG_TEXT_PP(3)), PG_GETARG_DATUM(4));

	if (shown == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(shown);
}

Datum
qml_job_document(PG_FUNCTION_ARGS)
{
	return show_contents(fcinfo);
}

Datum
qml_job_text(PG_FUNCTION_ARGS)
{
	return show_contents(fcinfo);
}

/*
 * For the view qml.job: how many retries may still follow to an unfinished job of this queue,
 * method and role, with this stored max_retries and after so many tries; 0 for jobs that the
 * caller does not see.
 */
Datum
qml_retries_left(PG_FUNCTION_ARGS)
{
	QmlJob job = {.queue_id = PG_GETARG_INT32(0),
				  .method = PG_GETARG_DATUM(1),
				  .created_by = PG_GETARG_OID(2),
				  .attempt = PG_GETARG_INT32(4),
				  .state = QML_ENQUEUED};
	const QmlQueue *queue;

	qml_acl_require_one(QML_MAY_ANY, NULL);
	queue = qml_queue_by_id(job.queue_id);
	if (queue == NULL || qml_acl_access(queue->name, job.created_by) == QML_ACCESS_NONE)
		PG_RETURN_INT32(0);
	qml_job_set_stored_retries(&job, PG_GETARG_INT32(3));
	PG_RETURN_INT32(qml_job_retries_left(&job));
}

Datum
qml_delete(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_ENQUEUE);
	id = qml_args_uuid(fcinfo, 0, "id");
	PG_RETURN_BOOL(qml_control_delete(id, qml_args_text(fcinfo, 1, QML_MAX_ERROR)));
}

/* The same under the name that people look for, as an administrator. */
Datum
qml_cancel(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_ADMIN);
	id = qml_args_uuid(fcinfo, 0, "id");
	PG_RETURN_BOOL(qml_control_cancel(id, qml_args_text(fcinfo, 1, QML_MAX_ERROR)));
}

Datum
qml_retry(PG_FUNCTION_ARGS)
{
	qml_acl_require_any(QML_CAN_ENQUEUE);
	PG_RETURN_BOOL(qml_control_retry(qml_args_uuid(fcinfo, 0, "id")));
}

Datum
qml_reschedule(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_ENQUEUE);
	id = qml_args_uuid(fcinfo, 0, "id");
	qml_args_require(fcinfo, 1, "run_at");
	PG_RETURN_BOOL(qml_control_schedule(id, qml_args_time_or_null(fcinfo, 1, "run_at"),
										qml_args_text(fcinfo, 2, QML_MAX_ERROR)));
}

/* Makes any allowed transition; data holds what the new state needs. */
Datum
qml_set_state(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id;
	QmlState state;
	QmlStateData data;

	qml_acl_require_any(QML_CAN_ADMIN);
	id = qml_args_uuid(fcinfo, 0, "id");
	qml_args_require(fcinfo, 1, "state");
	qml_args_require(fcinfo, 2, "data");
	state = qml_catalog_state(PG_GETARG_OID(1));
	qml_options_parse_state(state, DatumGetJsonbP(qml_args_object(fcinfo, 2, "data")), &data);
	if (data.worker == (Datum) 0)
		data.worker = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	PG_RETURN_DATUM(qml_control_set_state(id, state, &data));
}

/* Changes what a job is; false if it is so already. */
Datum
qml_update_job(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id;
	QmlJobChanges changes;

	qml_acl_require_any(QML_CAN_ADMIN);
	id = qml_args_uuid(fcinfo, 0, "id");
	qml_args_require(fcinfo, 1, "changes");
	qml_options_parse_changes(PG_GETARG_JSONB_P(1), &changes);
	PG_RETURN_BOOL(qml_update_by_id(id, &changes));
}

/* The rows of qml_peek(), and the columns that its caller expects. */
typedef struct Peeked
{
	QmlSrfRows *rows;
	TupleDesc expected;
} Peeked;

/* QmlPeekTake. */
static void
collect_job(const QmlJob *job, void *arg)
{
	Peeked *peeked = arg;
	QmlSrfRows *rows = peeked->rows;

	rows->values[rows->count++] = qml_job_expected_row(job, qml_job_visibility(job),
													   peeked->expected);
}

static QmlSrfRows *
peek_jobs(FunctionCallInfo fcinfo)
{
	Peeked peeked;
	char **queues;
	int nqueues = 0;
	int limit;

	qml_acl_require_any(QML_CAN_MONITOR);
	queues = qml_args_queues(fcinfo, 0, "queues", &nqueues);
	limit = qml_args_int(fcinfo, 1, "lim", 1, QML_MAX_BATCH);
	peeked.expected = qml_srf_expected(fcinfo);
	peeked.rows = qml_srf_alloc(limit);
	qml_peek_jobs(queues, nqueues, limit, collect_job, &peeked);
	return peeked.rows;
}

/* Shows what would be fetched, and claims nothing. */
Datum
qml_peek(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, peek_jobs);
}
