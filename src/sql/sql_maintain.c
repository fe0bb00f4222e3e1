/*
 * sql_maintain.c
 *		SQL functions of maintenance: qml_promote_due, qml_reclaim, qml_cleanup,
 *		qml_maintain, qml_adopt; and the trigger qml.invalidate.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

#include "common/args.h"
#include "common/json.h"
#include "compat.h"
#include "ipc/wakeup.h"
#include "maintenance/adopt.h"
#include "maintenance/cleanup.h"
#include "maintenance/promote.h"
#include "maintenance/reclaim.h"
#include "maintenance/server.h"
#include "model/acl.h"
#include "schedule/tick.h"

QML_FUNCTION(qml_promote_due);
QML_FUNCTION(qml_reclaim);
QML_FUNCTION(qml_cleanup);
QML_FUNCTION(qml_maintain);
QML_FUNCTION(qml_adopt);
QML_FUNCTION(qml_invalidate);

/* Jobs that one call of qml_maintain promotes, reclaims or fires at most. */
#define MAINTAIN_MAX 100000

Datum
qml_promote_due(PG_FUNCTION_ARGS)
{
	int max = qml_args_int(fcinfo, 0, "max", 1, INT_MAX);
	TimestampTz as_of;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	PG_RETURN_INT32(qml_promote_jobs(max, &as_of));
}

/* Jobs whose lease has expired, and jobs of servers that stopped sending heartbeats. */
Datum
qml_reclaim(PG_FUNCTION_ARGS)
{
	int max = qml_args_int(fcinfo, 0, "max", 1, INT_MAX);
	TimestampTz next;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	PG_RETURN_INT32(qml_reclaim_expired(max, &next) + qml_server_reclaim_dead(INT_MAX, &next));
}

/* Returns how many jobs and locks were removed. */
Datum
qml_cleanup(PG_FUNCTION_ARGS)
{
	QmlCleanup done;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	qml_cleanup_expired(&done);
	PG_RETURN_INT64(done.jobs + done.locks);
}

/* All maintenance in one call, for cron and the like; the result counts each step. */
Datum
qml_maintain(PG_FUNCTION_ARGS)
{
	JsonbParseState *state = NULL;
	QmlCleanup done;
	QmlTicks ticks;
	TimestampTz next;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_int(&state, "promoted", qml_promote_jobs(MAINTAIN_MAX, &next));
	qml_json_push_int(&state, "reclaimed",
					  qml_reclaim_expired(MAINTAIN_MAX, &next) +
						  qml_server_reclaim_dead(INT_MAX, &next));
	qml_tick_poll(MAINTAIN_MAX, &ticks);
	qml_json_push_int(&state, "recurring", ticks.jobs);
	qml_cleanup_expired(&done);
	qml_json_push_int(&state, "expired_jobs", done.jobs);
	qml_json_push_int(&state, "expired_locks", done.locks);
	qml_json_push_int(&state, "partitions_dropped", done.partitions);
	qml_json_push_int(&state, "partitions_created", done.prepared);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* Lets a copy of a database work its jobs (maintenance/adopt.c). */
Datum
qml_adopt(PG_FUNCTION_ARGS)
{
	qml_acl_require(QML_CAN_ADMIN, NULL);
	qml_adopt_database();
	PG_RETURN_VOID();
}

/* A trigger: when this commits, all backends read the table again. */
Datum
qml_invalidate(PG_FUNCTION_ARGS)
{
	Relation rel;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"qml.invalidate\" must be called as a trigger")));
	rel = ((TriggerData *) fcinfo->context)->tg_relation;
	CacheInvalidateRelcache(rel);
	/* The extension was created, or a copy adopted: there is work to do. */
	if (strcmp(RelationGetRelationName(rel), "instance_data") == 0)
		qml_wakeup_launcher();
	PG_RETURN_POINTER(NULL);
}
