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

/* One call. */
typedef struct Purge
{
	const QmlQueue *queue;
	Datum reason;
	TimestampTz now;
	QmlWriter writer;
	MemoryContext scratch; /* of one job */
	int64 count;
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
	qml_transition_delete(&job, purge->reason, purge->now);
	if (qml_writer_put(&purge->writer, &job, false) == TM_Ok)
		purge->count++;
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(purge->scratch);
}

/* Deletes those that are ready. */
static void
delete_ready(Purge *purge)
{
	QmlTable *live = purge->writer.live;
	Relation ready = index_open(qml_store(purge->writer.store)->live_ready, RowExclusiveLock);
	IndexScanDesc scan = qml_index_beginscan(live->rel, ready, qml_writer_snapshot(&purge->writer),
											 1);
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(purge->queue->id));
	index_rescan(scan, &key, 1, NULL, 0);
	while (qml_table_next(live, scan))
		delete_job(purge);
	index_endscan(scan);
	index_close(ready, NoLock);
}

/* Deletes those that wait for a time. */
static void
delete_waiting(Purge *purge)
{
	QmlTable *live = purge->writer.live;
	Relation due = index_open(qml_store(purge->writer.store)->live_due, RowExclusiveLock);
	IndexScanDesc scan = qml_index_beginscan(live->rel, due, qml_writer_snapshot(&purge->writer),
											 0);

	index_rescan(scan, NULL, 0, NULL, 0);
	while (qml_table_next(live, scan))
	{
		bool isnull;

		CHECK_FOR_INTERRUPTS();
		if (DatumGetInt32(slot_getattr(live->slot, LIVE_QUEUE_ID, &isnull)) == purge->queue->id)
			delete_job(purge);
	}
	index_endscan(scan);
	index_close(due, NoLock);
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
	qml_writer_open(&purge.writer, true, false);
	qml_writer_turn(&purge.writer, qml_queue_store(purge.queue));
	qml_writer_expect_ends(&purge.writer);
	(void) qml_writer_snapshot(&purge.writer);
	purge.now = GetCurrentTimestamp();
	delete_ready(&purge);
	delete_waiting(&purge);
	qml_writer_close(&purge.writer);
	MemoryContextDelete(purge.scratch);
	if (purge.count > 0)
		record_purge(&purge);
	return purge.count;
}
