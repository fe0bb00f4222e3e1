/*
 * sql_bulk.c
 *		SQL functions of bulk operations: qml_bulk, qml_bulk_preview, qml_pause_bulk,
 *		qml_resume_bulk, qml_cancel_bulk; and qml.bulk_access and qml.error_fingerprint for
 *		the views.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/args.h"
#include "common/uuid.h"
#include "compat.h"
#include "jobs/bulk_chunk.h"
#include "jobs/search.h"
#include "maintenance/bulk.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "model/redact.h"
#include "qml.h"
#include "sql/sql_rights.h"

QML_FUNCTION(qml_bulk);
QML_FUNCTION(qml_bulk_preview);
QML_FUNCTION(qml_pause_bulk);
QML_FUNCTION(qml_resume_bulk);
QML_FUNCTION(qml_cancel_bulk);
QML_FUNCTION(qml_bulk_access);
QML_FUNCTION(qml_error_fingerprint);

#define PREVIEW_COLUMNS 4

static char *
read_string(FunctionCallInfo fcinfo, int arg, const char *name)
{
	qml_args_require(fcinfo, arg, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

Datum
qml_bulk(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));
	char *action;
	char *query;
	Jsonb *options;

	qml_acl_require_any(QML_CAN_ADMIN);
	action = read_string(fcinfo, 0, "action");
	query = read_string(fcinfo, 1, "query");
	qml_args_require(fcinfo, 2, "options");
	options = DatumGetJsonbP(qml_args_object(fcinfo, 2, "options"));
	qml_bulk_make(action, query, options, id);
	PG_RETURN_UUID_P(id);
}

static int
compare_groups(const void *a, const void *b)
{
	const QmlBulkGroup *one = a;
	const QmlBulkGroup *other = b;
	int order = strcmp(qml_queue_require(one->queue_id)->name,
					   qml_queue_require(other->queue_id)->name);

	if (order == 0)
		order = strcmp(one->method, other->method);
	return order != 0 ? order : (int) one->state - (int) other->state;
}

static void
put_group(Tuplestorestate *store, TupleDesc desc, const QmlBulkGroup *group)
{
	bool nulls[PREVIEW_COLUMNS] = {false};
	Datum values[] = {CStringGetTextDatum(qml_queue_require(group->queue_id)->name),
					  CStringGetTextDatum(group->method),
					  ObjectIdGetDatum(qml_catalog()->states[group->state]),
					  Int64GetDatum(group->count)};

	Assert(desc->natts == PREVIEW_COLUMNS);
	tuplestore_putvalues(store, desc, values, nulls);
}

/* What an operation would do now: how many jobs it would change. */
Datum
qml_bulk_preview(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	QmlBulkAction action;
	QmlSearchCompiled *compiled;
	QmlBulkGroup *groups;
	ListCell *lc;
	int count;

	qml_acl_require_any(QML_CAN_ADMIN);
	InitMaterializedSRF(fcinfo, 0);
	qml_bulk_action_begin(read_string(fcinfo, 0, "action"), &action);
	compiled = qml_search_compile(read_string(fcinfo, 1, "query"), GetCurrentTimestamp());
	foreach(lc, qml_search_queues(compiled))
		qml_acl_require(QML_CAN_ADMIN, lfirst(lc));
	count = qml_bulk_chunk_preview(&action, compiled, &groups);
	qsort(groups, count, sizeof(QmlBulkGroup), compare_groups);
	for (int i = 0; i < count; i++)
		put_group(rsinfo->setResult, rsinfo->setDesc, &groups[i]);
	return (Datum) 0;
}

Datum
qml_pause_bulk(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_ADMIN);
	id = qml_args_uuid(fcinfo, 0, "id");
	PG_RETURN_BOOL(qml_bulk_pause(id, qml_args_text(fcinfo, 1, QML_MAX_ERROR)));
}

Datum
qml_resume_bulk(PG_FUNCTION_ARGS)
{
	qml_acl_require_any(QML_CAN_ADMIN);
	PG_RETURN_BOOL(qml_bulk_resume(qml_args_uuid(fcinfo, 0, "id")));
}

Datum
qml_cancel_bulk(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_ADMIN);
	id = qml_args_uuid(fcinfo, 0, "id");
	PG_RETURN_BOOL(qml_bulk_cancel(id, qml_args_text(fcinfo, 1, QML_MAX_ERROR)));
}

/* For the view qml.bulk: whether the current user sees the operations of a role. */
Datum
qml_bulk_access(PG_FUNCTION_ARGS)
{
	qml_acl_require_one(QML_MAY_ANY, NULL);
	PG_RETURN_BOOL(qml_bulk_may_see(PG_GETARG_OID(0)));
}

/*
 * For the view qml.dead_letter: the fingerprint of the last error of a job, if the current user sees
 * all of the job; NULL otherwise.
 */
Datum
qml_error_fingerprint(PG_FUNCTION_ARGS)
{
	QmlJob job = {.queue_id = PG_GETARG_INT32(0),
				  .method = PG_GETARG_DATUM(1),
				  .created_by = PG_GETARG_OID(2),
				  .errors = PG_GETARG_DATUM(3)};
	char *fingerprint;

	qml_acl_require_one(QML_MAY_ANY, NULL);
	if (qml_redact_access(job.queue_id, job.method, job.created_by) != QML_ACCESS_FULL)
		PG_RETURN_NULL();
	fingerprint = qml_job_fingerprint(&job);
	if (fingerprint == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(fingerprint));
}
