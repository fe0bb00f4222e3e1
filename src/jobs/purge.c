/*
 * purge.c
 *		Deleting all jobs of a queue that wait.
 *
 * Jobs that run are left to their workers, and jobs that are added meanwhile stay.  Nothing is
 * waited for: a row that another transaction is changing, as one that claims its job, is left as
 * it is.  So a purge takes part in no deadlock.
 *
 * Ready jobs are found by the queue, in live_ready.  No index has those that wait for a time by
 * queue, so live_due is walked as a whole.  All of it is the caller's transaction, in which hooks
 * run, and has one line in the record: a crash before the commit leaves all jobs.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"

#include "common/json.h"
#include "common/table.h"
#include "compat.h"
#include "jobs/purge.h"
#include "jobs/transition.h"
#include "jobs/writer.h"
#include "model/audit.h"
#include "model/catalog.h"
#include "model/queue.h"

/*
 * So many jobs are deleted, then hooks are called for them, which are in memory until then.  As
 * they must meet no open scan, the next ones are looked for anew, behind the last one.
 */
#define PART QML_MAX_BATCH

/* One call. */
typedef struct Purge
{
	const QmlQueue *queue;
	Datum reason;
	TimestampTz now; /* jobs that hooks add are made later */
	QmlWriter writer;
	MemoryContext scratch; /* of one job */
	int64 count;

	/* The last row that was looked at in the index, and how many were deleted in this part. */
	bool begun;
	int priority;
	pg_uuid_t id;
	TimestampTz run_at;
	int part;
} Purge;

/* Deletes the job in the writer's slot, unless it runs or somebody else is changing it. */
static void
delete_job(Purge *purge)
{
	MemoryContext oldcontext;
	QmlState state = qml_job_live_state(purge->writer.live->slot);
	QmlJob job;

	CHECK_FOR_INTERRUPTS();
	/* A label that qml does not know must not hide the other rows. */
	if (state == QML_PROCESSING || state == (QmlState) QML_STATES)
		return;
	oldcontext = MemoryContextSwitchTo(purge->scratch);
	qml_job_from_live(purge->writer.live->slot, &job);
	purge->begun = true;
	purge->priority = job.priority;
	purge->id = job.id;
	purge->run_at = job.run_at;
	if (job.created_at <= purge->now)
	{
		qml_transition_delete(&job, purge->reason, purge->now);
		if (qml_writer_put(&purge->writer, &job, false) == TM_Ok)
		{
			purge->count++;
			purge->part++;
		}
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(purge->scratch);
}

/* Deletes what an index finds by these keys; false: the part is full before its end. */
static bool
delete_by(Purge *purge, Relation index, ScanKey keys, int nkeys)
{
	QmlTable *live = purge->writer.live;
	IndexScanDesc scan = qml_index_beginscan(live->rel, index, qml_writer_snapshot(&purge->writer),
											 nkeys);

	index_rescan(scan, keys, nkeys, NULL, 0);
	while (purge->part < PART && qml_table_next(live, scan))
	{
		bool isnull;

		CHECK_FOR_INTERRUPTS();
		if (DatumGetInt32(slot_getattr(live->slot, LIVE_QUEUE_ID, &isnull)) == purge->queue->id)
			delete_job(purge);
	}
	index_endscan(scan);
	return purge->part < PART;
}

/* Deletes ready jobs, by queue, priority and id; false: there may be more. */
static bool
delete_ready(Purge *purge)
{
	Relation index = index_open(qml_store(purge->writer.store)->live_ready, RowExclusiveLock);
	ScanKeyData keys[3];
	bool done = true;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(purge->queue->id));
	if (!purge->begun)
		done = delete_by(purge, index, keys, 1);
	else
	{
		Datum priority = Int32GetDatum(purge->priority);
		pg_uuid_t id = purge->id;

		ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, priority);
		ScanKeyInit(&keys[2], 3, BTGreaterStrategyNumber, F_UUID_GT, UUIDPGetDatum(&id));
		done = delete_by(purge, index, keys, 3);
		ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT4LT, priority);
		done = done && delete_by(purge, index, keys, 2);
	}
	index_close(index, NoLock);
	return done;
}

/* The same of those that wait for a time. */
static bool
delete_waiting(Purge *purge)
{
	Relation index = index_open(qml_store(purge->writer.store)->live_due, RowExclusiveLock);
	ScanKeyData key;
	bool done;

	ScanKeyInit(&key, 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(purge->run_at));
	done = delete_by(purge, index, &key, purge->begun ? 1 : 0);
	index_close(index, NoLock);
	return done;
}

/* Deletes all that one of these finds. */
static void
delete_all(Purge *purge, bool (*delete_part)(Purge *purge))
{
	bool done;

	purge->begun = false;
	do
	{
		purge->part = 0;
		qml_writer_open(&purge->writer, true, false);
		qml_writer_turn(&purge->writer, qml_queue_store(purge->queue));
		qml_writer_expect_ends(&purge->writer);
		done = delete_part(purge);
		qml_writer_close(&purge->writer);
	} while (!done);
}

/* Records what was done. */
static void
record_purge(const Purge *purge)
{
	QmlAuditAct act = {.action = "qml_purge_queue",
					   .kind = QML_AUDIT_QUEUE,
					   .object = purge->queue->name,
					   .queue = purge->queue->name,
					   .is_lazy = purge->queue->options.storage != QML_DURABLE};
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	qml_json_push_int(&state, "deleted_jobs", purge->count);
	qml_json_push_text(&state, "reason", purge->reason);
	act.after = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	qml_audit_write(&act);
}

/*
 * Deletes all jobs of a queue that wait, for a reason, a text, or for none (0); returns how many.
 * 0 when there is no such queue and missing_ok; raises QM006 without it.
 */
int64
qml_purge_queue_jobs(const char *name, Datum reason, bool missing_ok)
{
	Purge purge = {.queue = qml_queue_by_name(name), .reason = reason};

	qml_table_require_write();
	if (purge.queue == NULL)
	{
		if (!missing_ok)
			qml_queue_raise_missing(name);
		return 0;
	}
	purge.scratch = AllocSetContextCreate(CurrentMemoryContext, "qml purge", ALLOCSET_SMALL_SIZES);
	purge.now = GetCurrentTimestamp();
	delete_all(&purge, delete_ready);
	delete_all(&purge, delete_waiting);
	MemoryContextDelete(purge.scratch);
	if (purge.count > 0)
		record_purge(&purge);
	return purge.count;
}
