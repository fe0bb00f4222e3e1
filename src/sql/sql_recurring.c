/*
 * sql_recurring.c
 *		SQL functions of recurring jobs: qml_schedule_recurring,
 *		qml_remove_recurring, qml_pause_recurring, qml_resume_recurring, qml_run_recurring,
 *		qml_poll_recurring, qml_cron_next, qml_pg_cron_schedule,
 *		qml_pg_cron_unschedule; and qml.recurring_access for the view.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "common/srf.h"
#include "compat.h"
#include "model/acl.h"
#include "qml.h"
#include "schedule/misfire.h"
#include "schedule/pgcron.h"
#include "schedule/recurring.h"

QML_FUNCTION(qml_schedule_recurring);
QML_FUNCTION(qml_remove_recurring);
QML_FUNCTION(qml_pause_recurring);
QML_FUNCTION(qml_resume_recurring);
QML_FUNCTION(qml_run_recurring);
QML_FUNCTION(qml_poll_recurring);
QML_FUNCTION(qml_cron_next);
QML_FUNCTION(qml_pg_cron_schedule);
QML_FUNCTION(qml_pg_cron_unschedule);
QML_FUNCTION(qml_recurring_access);

static char *
read_misfire(FunctionCallInfo fcinfo, int arg)
{
	char *misfire = qml_args_name(fcinfo, arg, "misfire", QML_MAX_NAME);

	if (!qml_misfire_is_policy(misfire))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized misfire policy \"%s\"", misfire),
				 errhint("Policies are: fire_once, skip, fire_all.")));
	return misfire;
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

	recurring.id = qml_args_name(fcinfo, 0, "id", QML_MAX_NAME);
	recurring.cron = read_cron(fcinfo, 1);
	recurring.method = qml_args_name(fcinfo, 2, "method", QML_MAX_NAME);
	qml_args_require(fcinfo, 3, "payload");
	recurring.payload = qml_args_document(fcinfo, 3, "payload");
	recurring.queue = qml_args_name(fcinfo, 4, "queue", QML_MAX_QUEUE_NAME);
	recurring.timezone = qml_args_name(fcinfo, 5, "timezone", QML_MAX_NAME);
	recurring.priority = qml_args_int(fcinfo, 6, "priority", INT_MIN, INT_MAX);
	recurring.max_retries = PG_ARGISNULL(7) ?
								-1 :
								qml_args_int(fcinfo, 7, "max_retries", 0, QML_MAX_RETRIES);
	recurring.timeout_ms = qml_args_timeout_ms(fcinfo, 8, "timeout");
	recurring.misfire = read_misfire(fcinfo, 9);
	recurring.metadata = qml_args_object(fcinfo, 10, "metadata");
	next = qml_recurring_put(&recurring);
	if (next == QML_NO_TIME)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}

/* The id of a schedule; schedule/recurring.c checks the capability for its queue. */
static char *
read_id(FunctionCallInfo fcinfo)
{
	char *id = qml_args_name(fcinfo, 0, "id", QML_MAX_NAME);

	qml_acl_require_any(QML_CAN_ENQUEUE);
	return id;
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

	PG_RETURN_BOOL(qml_recurring_pause(id, qml_args_text(fcinfo, 1, QML_MAX_ERROR)));
}

Datum
qml_resume_recurring(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(qml_recurring_resume(read_id(fcinfo)));
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
	int max = qml_args_int(fcinfo, 0, "max", 1, INT_MAX);
	QmlTicks ticks;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	qml_tick_poll(max, &ticks);
	PG_RETURN_INT32(ticks.jobs);
}

/* The rows of qml_cron_next(): the next n ticks, or fewer if it never fires again. */
static QmlSrfRows *
list_ticks(FunctionCallInfo fcinfo)
{
	char *expression = read_cron(fcinfo, 0);
	TimestampTz tick;
	char *timezone;
	int n;
	QmlCron cron;
	QmlZone zone;
	QmlSrfRows *rows;

	qml_args_require(fcinfo, 1, "after");
	tick = qml_args_time_or_null(fcinfo, 1, "after");
	timezone = qml_args_name(fcinfo, 2, "timezone", QML_MAX_NAME);
	n = qml_args_int(fcinfo, 3, "n", 1, QML_MAX_BATCH);
	qml_recurring_parse(expression, &cron);
	qml_recurring_zone(timezone, &zone);

	rows = qml_srf_alloc(n);
	while (rows->count < n)
	{
		CHECK_FOR_INTERRUPTS();
		tick = qml_timezone_next(&cron, &zone, tick);
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
	QmlSrfRows *rows = qml_srf_alloc(QML_PGCRON_JOBS);

	qml_acl_require(QML_CAN_ADMIN, NULL);
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

/* For the view qml.recurring: what the current user sees of a schedule (QmlAccess). */
Datum
qml_recurring_access(PG_FUNCTION_ARGS)
{
	char *queue = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_INT32(qml_acl_access(queue, PG_GETARG_OID(1)));
}
