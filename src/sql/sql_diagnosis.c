/*
 * sql_diagnosis.c
 *		SQL functions that say how the database is, and why jobs do not run: qml_status,
 *		qml_explain, qml_explain_queue; and qml.scheduler_alert for the view qml.alert.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "common/args.h"
#include "compat.h"
#include "diagnosis/alert_checks.h"
#include "diagnosis/explain.h"
#include "diagnosis/explain_queue.h"
#include "diagnosis/status.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "sql/sql_rights.h"

QML_FUNCTION(qml_status);
QML_FUNCTION(qml_explain);
QML_FUNCTION(qml_explain_queue);
QML_FUNCTION(qml_scheduler_alert);

#define SCHEDULER_COLUMNS 2

/* All of it for administrators of all queues; others see less (diagnosis/status.c). */
Datum
qml_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	qml_acl_require_one(QML_MAY_WATCH, NULL);
	InitMaterializedSRF(fcinfo, 0);
	qml_status_list(rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

static QmlReasons
begin_reasons(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	return (QmlReasons){.store = rsinfo->setResult, .desc = rsinfo->setDesc};
}

Datum
qml_explain(PG_FUNCTION_ARGS)
{
	QmlReasons reasons;
	pg_uuid_t *id;

	qml_acl_require_any(QML_CAN_MONITOR);
	id = qml_args_uuid(fcinfo, 0, "id");
	reasons = begin_reasons(fcinfo);
	qml_explain_id(id, &reasons);
	return (Datum) 0;
}

/* Who monitors any queue knows of all of them. */
Datum
qml_explain_queue(PG_FUNCTION_ARGS)
{
	QmlReasons reasons;
	const QmlQueue *queue;
	char *name;

	qml_sql_require_queue(fcinfo, QML_MAY_MONITOR, 0);
	name = qml_args_queue(fcinfo, 0, "queue");
	queue = qml_queue_by_name(name);
	if (queue == NULL)
		qml_queue_raise_missing(name);
	reasons = begin_reasons(fcinfo);
	qml_explain_queue_reasons(queue, &reasons);
	return (Datum) 0;
}

/* For the view qml.alert: a row if nobody works here who would begin alerts. */
Datum
qml_scheduler_alert(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz since;
	char *detail = NULL;

	qml_acl_require_any(QML_CAN_MONITOR);
	InitMaterializedSRF(fcinfo, 0);
	/* It is about all queues. */
	if (qml_acl_allow(QML_CAN_MONITOR, NULL) && qml_alert_checks_scheduler(&since, &detail))
	{
		Datum values[SCHEDULER_COLUMNS] = {TimestampTzGetDatum(since), CStringGetTextDatum(detail)};
		bool nulls[SCHEDULER_COLUMNS] = {false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
