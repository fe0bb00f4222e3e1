/*
 * sql_maintain.c
 *		SQL functions of maintenance: qml_promote_due, qml_reclaim, qml_cleanup,
 *		qml_maintain, qml_adopt; and the triggers qml.invalidate and qml.note_sql.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

#include "common/args.h"
#include "common/cache.h"
#include "common/json.h"
#include "common/subxact.h"
#include "compat.h"
#include "ipc/counter_notes.h"
#include "ipc/lease_notes.h"
#include "ipc/ready_note.h"
#include "ipc/wakeup.h"
#include "maintenance/adopt.h"
#include "maintenance/bulk_run.h"
#include "maintenance/cleanup.h"
#include "maintenance/promote.h"
#include "maintenance/reclaim.h"
#include "maintenance/server.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/life.h"
#include "schedule/tick.h"

QML_FUNCTION(qml_promote_due);
QML_FUNCTION(qml_reclaim);
QML_FUNCTION(qml_cleanup);
QML_FUNCTION(qml_maintain);
QML_FUNCTION(qml_adopt);
QML_FUNCTION(qml_invalidate);
QML_FUNCTION(qml_note_sql);

/* Jobs that one call of qml_maintain promotes, reclaims or fires at most. */
#define MAINTAIN_MAX 100000

/* Of bulk operations, whose jobs are more: those of a call, and of a chunk. */
#define BULK_MAX	20000
#define BULK_CHUNK	1000
#define BULK_LOOKED 100000

Datum
qml_promote_due(PG_FUNCTION_ARGS)
{
	int max;
	TimestampTz as_of;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	max = qml_args_int(fcinfo, 0, "max", 1, INT_MAX);
	PG_RETURN_INT32(qml_promote_jobs(max, &as_of));
}

/* Jobs whose lease has expired, whose session is gone, or whose server sends no heartbeats. */
Datum
qml_reclaim(PG_FUNCTION_ARGS)
{
	int max;
	TimestampTz next;

	qml_acl_require(QML_CAN_ADMIN, NULL);
	max = qml_args_int(fcinfo, 0, "max", 1, INT_MAX);
	(void) qml_server_give_up_silent(&next);
	PG_RETURN_INT32(qml_reclaim_lost(max));
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

/* What the steps of qml_maintain() have done. */
typedef struct Maintenance
{
	int promoted;
	int reclaimed;
	QmlTicks ticks;
	int64 bulk_jobs;
	QmlCleanup cleanup;
} Maintenance;

static void
promote(void *arg)
{
	TimestampTz as_of;

	((Maintenance *) arg)->promoted = qml_promote_jobs(MAINTAIN_MAX, &as_of);
}

static void
give_up_servers(void *arg)
{
	TimestampTz next;

	(void) qml_server_give_up_silent(&next);
}

static void
reclaim(void *arg)
{
	((Maintenance *) arg)->reclaimed = qml_reclaim_lost(MAINTAIN_MAX);
}

static void
fire_recurring(void *arg)
{
	qml_tick_poll(MAINTAIN_MAX, &((Maintenance *) arg)->ticks);
}

/* Chunks of bulk operations, until there is nothing to do now, or they are enough for one call. */
static void
do_bulk(void *arg)
{
	Maintenance *done = arg;
	QmlBulkRun run;

	do
	{
		CHECK_FOR_INTERRUPTS();
		qml_bulk_run(BULK_CHUNK, BULK_LOOKED, &run);
		done->bulk_jobs += run.changed;
	} while (run.any && done->bulk_jobs < BULK_MAX);
}

/* In this order, before the parts of the cleanup; the names are in the result and the warning. */
static const struct
{
	const char *name;
	void (*run)(void *arg);
} maintain_steps[] = {
	{"promote", promote}, {"servers", give_up_servers},
	{"reclaim", reclaim}, {"recurring", fire_recurring},
	{"bulk", do_bulk},
};

#define MAINTAIN_STEPS ((int) lengthof(maintain_steps))
#define ALL_STEPS	   (MAINTAIN_STEPS + QML_CLEANUP_PARTS)

static const char *
step_name(int step)
{
	return step < MAINTAIN_STEPS ? maintain_steps[step].name :
								   qml_cleanup_parts[step - MAINTAIN_STEPS].name;
}

/* Runs a step in a subtransaction; false: it failed. */
static bool
try_step(int step, Maintenance *done, QmlFailure *failure)
{
	Maintenance before = *done;
	bool good = step < MAINTAIN_STEPS ?
					qml_subxact_try(maintain_steps[step].run, done, qml_subxact_ends_call,
									failure) :
					qml_subxact_try(qml_cleanup_parts[step - MAINTAIN_STEPS].run, &done->cleanup,
									qml_subxact_ends_call, failure);

	/* What it did is undone. */
	if (!good)
		*done = before;
	return good;
}

/* A step has failed: warns, and adds it to the result. */
static void
report_failed_step(JsonbParseState **failed, const char *name, const QmlFailure *failure)
{
	ereport(WARNING,
			(errcode(failure->sqlerrcode),
			 errmsg("step \"%s\" of qml_maintain() failed: %s (SQLSTATE %s)", name,
					failure->message, unpack_sql_state(failure->sqlerrcode)),
			 errdetail("It is undone; the other steps are not.")));
	(void) pushJsonbValue(failed, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_text(failed, "step", CStringGetTextDatum(name));
	qml_json_push_text(failed, "sqlstate",
					   CStringGetTextDatum(unpack_sql_state(failure->sqlerrcode)));
	qml_json_push_text(failed, "error", CStringGetTextDatum(failure->message));
	(void) pushJsonbValue(failed, WJB_END_OBJECT, NULL);
}

/*
 * All maintenance in one call, for cron and the like.  Each step stands alone: one that
 * fails undoes no other.  The result counts what was done, and has the errors.
 */
Datum
qml_maintain(PG_FUNCTION_ARGS)
{
	JsonbParseState *state = NULL;
	Maintenance done;
	QmlFailure failures[ALL_STEPS];
	bool has_failed[ALL_STEPS];

	qml_acl_require(QML_CAN_ADMIN, NULL);
	/* A copy of a database: none of the steps would work. */
	(void) qml_catalog_to_work();
	memset(&done, 0, sizeof(done));
	for (int i = 0; i < ALL_STEPS; i++)
		has_failed[i] = !try_step(i, &done, &failures[i]);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_int(&state, "promoted", done.promoted);
	qml_json_push_int(&state, "reclaimed", done.reclaimed);
	qml_json_push_int(&state, "recurring", done.ticks.jobs);
	qml_json_push_int(&state, "bulk_jobs", done.bulk_jobs);
	qml_json_push_int(&state, "expired_jobs", done.cleanup.jobs);
	qml_json_push_int(&state, "expired_locks", done.cleanup.locks);
	qml_json_push_int(&state, "partitions_dropped", done.cleanup.partitions);
	qml_json_push_int(&state, "partitions_created", done.cleanup.prepared);
	qml_json_push_key(&state, "failed");
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < ALL_STEPS; i++)
	{
		if (has_failed[i])
			report_failed_step(&state, step_name(i), &failures[i]);
	}
	(void) pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* Lets a copy of a database work its jobs (maintenance/adopt.c). */
Datum
qml_adopt(PG_FUNCTION_ARGS)
{
	qml_acl_require(QML_CAN_ADMIN, NULL);
	qml_adopt_database();
	PG_RETURN_BOOL(true);
}

/* Tells of one version of a row of qml.queue_data; of the whole table if it was altered. */
static void
tell_queue_row(Relation rel, HeapTuple tuple)
{
	TupleDesc desc = RelationGetDescr(rel);
	int column = SPI_fnumber(desc, "id");
	bool isnull = true;
	Datum id = (Datum) 0;

	if (column > 0 && SPI_gettypeid(desc, column) == INT4OID)
		id = heap_getattr(tuple, column, desc, &isnull);
	if (isnull)
		qml_cache_tell_table(RelationGetRelid(rel));
	else
		qml_cache_tell_row(RelationGetRelid(rel), DatumGetInt32(id));
}

/*
 * A trigger: when this commits, all backends read the table again; of the queues, the row that
 * has changed.
 */
Datum
qml_invalidate(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Relation rel;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"qml.invalidate\" must be called as a trigger")));
	rel = trigger->tg_relation;
	if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event) &&
		strcmp(RelationGetRelationName(rel), "queue_data") == 0)
	{
		tell_queue_row(rel, trigger->tg_trigtuple);
		if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
			tell_queue_row(rel, trigger->tg_newtuple);
	}
	else
		qml_cache_tell_table(RelationGetRelid(rel));
	/* The extension was created, or a copy adopted: there is work to do. */
	if (strcmp(RelationGetRelationName(rel), "instance_data") == 0)
		qml_wakeup_launcher(true);
	PG_RETURN_POINTER(NULL);
}

/*
 * A trigger before statements: SQL is going to write rows of jobs.  Tables are told by name, since
 * who repairs them by hand must not be stopped by the check of their columns.
 */
Datum
qml_note_sql(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *table;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"qml.note_sql\" must be called as a trigger")));
	table = RelationGetRelationName(trigger->tg_relation);
	qml_counter_notes_sql();
	/* Finished jobs are counted, and nothing else is known of them. */
	if (strcmp(table, "history") == 0 || strcmp(table, "history_unlogged") == 0)
		PG_RETURN_POINTER(NULL);
	if (strcmp(table, "live_unlogged") == 0)
		qml_life_begin_unlogged_by_sql(trigger->tg_relation);
	qml_ready_note_sql();
	qml_lease_notes_unknown();
	qml_wakeup_at(QML_WAKE_LEASE, GetCurrentTimestamp());
	PG_RETURN_POINTER(NULL);
}
