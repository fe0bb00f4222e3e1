/*
 * sql_recurring.c
 *		SQL functions of recurring jobs: qml_schedule_recurring,
 *		qml_remove_recurring, qml_pause_recurring, qml_resume_recurring, qml_run_recurring,
 *		qml_poll_recurring, qml_cron_next, qml_pg_cron_schedule,
 *		qml_pg_cron_unschedule, qml_import_pg_cron; and, for the views, qml.recurring_access,
 *		qml.recurring_document and qml.next_runs.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "common/srf.h"
#include "common/suggest.h"
#include "compat.h"
#include "maintenance/idle.h"
#include "model/acl.h"
#include "model/redact.h"
#include "qml.h"
#include "schedule/import.h"
#include "schedule/misfire.h"
#include "schedule/overlap.h"
#include "schedule/pgcron.h"
#include "schedule/recurring.h"
#include "sql/sql_rights.h"

QML_FUNCTION(qml_schedule_recurring);
QML_FUNCTION(qml_remove_recurring);
QML_FUNCTION(qml_pause_recurring);
QML_FUNCTION(qml_resume_recurring);
QML_FUNCTION(qml_run_recurring);
QML_FUNCTION(qml_poll_recurring);
QML_FUNCTION(qml_cron_next);
QML_FUNCTION(qml_pg_cron_schedule);
QML_FUNCTION(qml_pg_cron_unschedule);
QML_FUNCTION(qml_import_pg_cron);
QML_FUNCTION(qml_recurring_access);
QML_FUNCTION(qml_recurring_document);
QML_FUNCTION(qml_next_runs);

/* Ticks that the view qml.recurring shows of each schedule. */
#define NEXT_RUNS 5

static const char *
guess_policy(const char *wanted, const char *const *names, int count)
{
	QmlSuggestion suggestion;

	qml_suggest_begin(&suggestion, wanted);
	for (int i = 0; i < count; i++)
		qml_suggest_consider(&suggestion, names[i]);
	return qml_suggest_question(&suggestion);
}

static char *
read_misfire(FunctionCallInfo fcinfo, int arg)
{
	static const char *const names[] = {"fire_once", "skip", "fire_all"};
	char *misfire = qml_args_name(fcinfo, arg, "misfire", QML_MAX_NAME);

	if (!qml_misfire_is_policy(misfire))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized misfire policy \"%s\"", misfire),
				 errhint("%sPolicies are: fire_once, skip, fire_all.",
						 guess_policy(misfire, names, lengthof(names)))));
	return misfire;
}

static char *
read_overlap(FunctionCallInfo fcinfo, int arg)
{
	static const char *const names[] = {"allow", "skip", "queue_one"};
	char *overlap = qml_args_name(fcinfo, arg, "overlap", QML_MAX_NAME);

	if (!qml_overlap_is_policy(overlap))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized overlap policy \"%s\"", overlap),
				 errhint("%sPolicies are: allow, skip, queue_one.",
						 guess_policy(overlap, names, lengthof(names)))));
	return overlap;
}

/* Any text but NULL: the parser checks it. */
static char *
read_cron(FunctionCallInfo fcinfo, int arg)
{
	qml_args_require(fcinfo, arg, "cron");
	return text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

/* Creates or replaces a schedule; returns its next tick, NULL if it never fires. */
Datum
qml_schedule_recurring(PG_FUNCTION_ARGS)
{
	QmlRecurring recurring;
	TimestampTz next;
	char *job_type;

	qml_sql_require_queue(fcinfo, QML_MAY_ENQUEUE, 4);
	recurring.id = qml_args_name(fcinfo, 0, "id", QML_MAX_NAME);
	recurring.cron = read_cron(fcinfo, 1);
	recurring.method = qml_args_name(fcinfo, 2, "method", QML_MAX_NAME);
	qml_args_require(fcinfo, 3, "payload");
	recurring.payload = qml_args_document(fcinfo, 3, "payload");
	recurring.queue = qml_args_queue(fcinfo, 4, "queue");
	recurring.timezone = qml_args_name(fcinfo, 5, "timezone", QML_MAX_NAME);
	recurring.priority = qml_args_int(fcinfo, 6, "priority", INT_MIN, INT_MAX);
	recurring.max_retries = PG_ARGISNULL(7) ?
								-1 :
								qml_args_int(fcinfo, 7, "max_retries", 0, QML_MAX_RETRIES);
	recurring.timeout_ms = qml_args_timeout_ms(fcinfo, 8, "timeout");
	recurring.misfire = read_misfire(fcinfo, 9);
	recurring.metadata = qml_args_object(fcinfo, 10, "metadata");
	recurring.overlap = read_overlap(fcinfo, 11);
	job_type = qml_args_name_or_null(fcinfo, 12, "job_type", QML_MAX_NAME);
	recurring.job_type = job_type ? CStringGetTextDatum(job_type) : (Datum) 0;
	next = qml_recurring_put(&recurring);
	qml_idle_warn(QML_IDLE_RECURRING);
	if (next == QML_NO_TIME)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}

/* The id of a schedule; schedule/recurring.c checks the capability for its queue. */
static char *
read_id(FunctionCallInfo fcinfo)
{
	qml_acl_require_any(QML_CAN_ENQUEUE);
	return qml_args_name(fcinfo, 0, "id", QML_MAX_NAME);
}

Datum
qml_remove_recurring(PG_FUNCTION_ARGS)
{
	char *id = read_id(fcinfo);

	PG_RETURN_BOOL(qml_recurring_remove(id, qml_args_flag(fcinfo, 1, "missing_ok")));
}

Datum
qml_pause_recurring(PG_FUNCTION_ARGS)
{
	char *id = read_id(fcinfo);

	PG_RETURN_BOOL(qml_recurring_pause(id, qml_args_text(fcinfo, 1, QML_MAX_ERROR),
									   qml_args_flag(fcinfo, 2, "missing_ok")));
}

Datum
qml_resume_recurring(PG_FUNCTION_ARGS)
{
	char *id = read_id(fcinfo);

	PG_RETURN_BOOL(qml_recurring_resume(id, qml_args_flag(fcinfo, 1, "missing_ok")));
}

Datum
qml_run_recurring(PG_FUNCTION_ARGS)
{
	pg_uuid_t *job = palloc(sizeof(pg_uuid_t));

	qml_recurring_run(read_id(fcinfo), job);
	PG_RETURN_UUID_P(job);
}

/* Fires the schedules that are due, as the scheduler does. */
Datum
qml_poll_recurring(PG_FUNCTION_ARGS)
{
	int max;
	QmlTicks ticks;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	max = qml_args_int(fcinfo, 0, "max", 1, INT_MAX);
	qml_tick_poll(max, &ticks);
	PG_RETURN_INT32(ticks.jobs);
}

/* The rows of qml_cron_next(): the next n ticks, or fewer if it never fires again. */
static QmlSrfRows *
list_ticks(FunctionCallInfo fcinfo)
{
	char *expression;
	TimestampTz tick;
	char *timezone;
	int n;
	QmlTimes times;
	QmlSrfRows *rows;

	qml_acl_require_one(QML_MAY_ANY, NULL);
	expression = read_cron(fcinfo, 0);
	qml_args_require(fcinfo, 1, "after");
	tick = qml_args_time_or_null(fcinfo, 1, "after");
	timezone = qml_args_name(fcinfo, 2, "timezone", QML_MAX_NAME);
	n = qml_args_int(fcinfo, 3, "n", 1, QML_MAX_BATCH);
	qml_recurring_parse(expression, &times);
	qml_recurring_zone(timezone, &times.zone);
	times.anchor = tick;

	rows = qml_srf_alloc(n);
	while (rows->count < n)
	{
		CHECK_FOR_INTERRUPTS();
		tick = qml_times_next(&times, tick);
		if (tick == QML_NO_TIME)
			break;
		rows->values[rows->count++] = TimestampTzGetDatum(tick);
	}
	return rows;
}

Datum
qml_cron_next(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, list_ticks);
}

/* The rows of qml_pg_cron_schedule(): the ids of the jobs in pg_cron. */
static QmlSrfRows *
pg_cron_schedule(FunctionCallInfo fcinfo)
{
	QmlSrfRows *rows;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	rows = qml_srf_alloc(QML_PGCRON_JOBS);
	rows->count = qml_pgcron_schedule(rows->values);
	return rows;
}

Datum
qml_pg_cron_schedule(PG_FUNCTION_ARGS)
{
	return qml_srf_return(fcinfo, pg_cron_schedule);
}

Datum
qml_pg_cron_unschedule(PG_FUNCTION_ARGS)
{
	qml_acl_require(QML_CAN_ADMIN, NULL);
	PG_RETURN_INT32(qml_pgcron_unschedule());
}

/* Imports the jobs of pg_cron; a row for each. */
Datum
qml_import_pg_cron(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List *imports;
	ListCell *lc;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	InitMaterializedSRF(fcinfo, 0);
	imports = qml_import_jobs();
	foreach(lc, imports)
	{
		const QmlImport *import = lfirst(lc);
		const char *texts[] = {import->jobname, import->schedule, import->problem};
		Datum values[1 + lengthof(texts)] = {Int64GetDatum(import->jobid)};
		bool nulls[1 + lengthof(texts)] = {false};

		for (int i = 0; i < (int) lengthof(texts); i++)
		{
			nulls[1 + i] = texts[i] == NULL;
			values[1 + i] = texts[i] ? CStringGetTextDatum(texts[i]) : (Datum) 0;
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	qml_idle_warn(QML_IDLE_HANDLER);
	return (Datum) 0;
}

/* For the view qml.recurring: what the current user sees of a schedule (QmlAccess). */
Datum
qml_recurring_access(PG_FUNCTION_ARGS)
{
	char *queue = text_to_cstring(PG_GETARG_TEXT_PP(0));
	QmlAccess access = qml_acl_access(queue, PG_GETARG_OID(1));

	if (access == QML_ACCESS_NONE)
		qml_acl_require_one(QML_MAY_ANY, NULL);
	PG_RETURN_INT32(access);
}

/* For the view qml.recurring: what the current user sees of the payload or the metadata. */
Datum
qml_recurring_document(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum method = PG_GETARG_DATUM(1);
	Oid created_by = PG_GETARG_OID(2);
	const QmlQueue *queue = qml_queue_by_name_or_dropped(name);
	QmlAccess access = qml_redact_limit(qml_acl_access(name, created_by), queue, name, created_by,
										method);
	Datum shown = qml_redact_show(access, queue, method, text_to_cstring(PG_GETARG_TEXT_PP(3)),
								  PG_GETARG_DATUM(4));

	if (shown == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(shown);
}

/* For the view qml.recurring: the next ticks of a schedule; NULL if it is paused, or has none. */
Datum
qml_next_runs(PG_FUNCTION_ARGS)
{
	Datum ticks[NEXT_RUNS];
	int count;

	qml_acl_require_one(QML_MAY_ANY, NULL);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(3) || PG_ARGISNULL(4) ||
		!PG_GETARG_BOOL(4))
		PG_RETURN_NULL();
	count = qml_recurring_list(text_to_cstring(PG_GETARG_TEXT_PP(0)),
							   text_to_cstring(PG_GETARG_TEXT_PP(1)),
							   PG_ARGISNULL(2) ? QML_NO_TIME : PG_GETARG_TIMESTAMPTZ(2),
							   PG_GETARG_TIMESTAMPTZ(3), ticks, NEXT_RUNS);
	PG_RETURN_ARRAYTYPE_P(
		construct_array(ticks, count, TIMESTAMPTZOID, sizeof(TimestampTz), true, TYPALIGN_DOUBLE));
}
