/*
 * job_pass.c
 *		Passes over unfinished jobs that change those that need it.
 *
 * Any number of callers may do this at once.  None waits for a row that somebody
 * else is changing: it is left out, and found by the next call if it still needs
 * anything.  So a pass takes part in no deadlock, whatever the order of its rows.
 *
 * A job that cannot be changed hides no other (common/row_pass.c); one warning
 * tells how many there were, and why the first of them could not.  Hooks are called
 * with their errors caught, because nobody asked for these changes.
 *
 * All of a pass is one transaction, the caller's.
 */
#include "postgres.h"

#include "access/genam.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"

#include "common/fault.h"
#include "common/log.h"
#include "compat.h"
#include "ipc/session_claim.h"
#include "maintenance/job_pass.h"
#include "model/catalog.h"

/* Changes the job in the slot of the writer's table. */
static bool
change_job(QmlJobPass *pass, QmlWriter *writer)
{
	QmlJob job;

	qml_job_from_live(writer->live->slot, &job);
	pass->change(pass, &job);
	return qml_writer_put(writer, &job, false) == TM_Ok;
}

/* QmlRowPass: change. */
static bool
change_in_pass(void *arg)
{
	QmlJobPass *pass = arg;

	return change_job(pass, &pass->writer);
}

/* QmlRowPass: change_alone.  Hooks run when its writer is closed, in the subtransaction. */
static bool
change_alone(void *arg, ItemPointer tid)
{
	const QmlJobPass *pass = arg;
	QmlWriter writer;
	bool changed;

	qml_writer_open(&writer, false, true);
	qml_writer_turn(&writer, pass->writer.store);
	changed = table_tuple_fetch_row_version(writer.live->rel, tid, qml_writer_snapshot(&writer),
											writer.live->slot) &&
			  change_job(arg, &writer);
	qml_writer_close(&writer);
	return changed;
}

/* QmlRowPass: failed. */
static void
note_failure(void *arg, TupleTableSlot *slot, const QmlFailure *failure)
{
	QmlJobPass *pass = arg;

	qml_pass_failures_note(&pass->failures, slot, failure);
}

/* Opens the writer, and forgets what a walk before did that was undone. */
static void
start_walk(QmlJobPass *pass)
{
	pass->count = 0;
	pass->missed = 0;
	pass->over = false;
	pass->next_lease = QML_NO_TIME;
	qml_writer_open(&pass->writer, false, true);
	/* The time is taken after the snapshot, and so after all that this shows. */
	(void) qml_writer_snapshot(&pass->writer);
	pass->now = GetCurrentTimestamp();
	qml_session_claim_begin_search();
}

/* Changes the job in the writer's slot; false: it was left as it is. */
static bool
visit_job(QmlJobPass *pass)
{
	bool changed = qml_row_pass_visit(&pass->rows, pass->writer.live->slot);

	if (changed)
		pass->count++;
	else
		pass->missed++;
	return changed;
}

/* Runs the pass, and warns of jobs that were left out. */
static void
run_pass(QmlJobPass *pass, void (*walk)(void *arg))
{
	pass->failures = (QmlPassFailures){.context = CurrentMemoryContext};
	pass->rows = (QmlRowPass){.walk = walk,
							  .change = change_in_pass,
							  .change_alone = change_alone,
							  .failed = note_failure,
							  .arg = pass};
	qml_row_pass_run(&pass->rows);
	if (pass->failures.count > 0 && qml_log_is_due(QML_LOG_JOBS))
		ereport(WARNING,
				(errcode(pass->failures.first.sqlerrcode),
				 errmsg_plural("%d job cannot be changed and is skipped",
							   "%d jobs cannot be changed and are skipped", pass->failures.count,
							   pass->failures.count),
				 qml_pass_failures_detail(&pass->failures, "")));
}

static void
walk_due_in_store(QmlJobPass *pass, QmlStoreId store)
{
	Relation due;
	IndexScanDesc scan;
	ScanKeyData key;

	qml_writer_turn(&pass->writer, store);
	due = index_open(qml_store(store)->live_due, RowExclusiveLock);
	scan = qml_index_beginscan(pass->writer.live->rel, due, qml_writer_snapshot(&pass->writer), 1);
	ScanKeyInit(&key, 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(pass->now));
	index_rescan(scan, &key, 1, NULL, 0);
	while (pass->count < pass->max && qml_table_next(pass->writer.live, scan))
	{
		QML_FAULT("promote.after_select");
		(void) visit_job(pass);
	}
	index_endscan(scan);
	index_close(due, NoLock);
}

/*
 * Each call begins with another storage class: one that always has more due jobs than a call
 * changes does not keep those of the others from being changed.
 */
static void
walk_due(void *arg)
{
	static int first = 0;
	int count = qml_stores_in_use();
	QmlJobPass *pass = arg;

	start_walk(pass);
	first = (first + 1) % count;
	for (int i = 0; i < count && pass->count < pass->max; i++)
		walk_due_in_store(pass, (first + i) % count);
	qml_writer_close(&pass->writer);
}

/* Over up to max jobs whose run_at has come, the longest due first; wants is not asked. */
void
qml_job_pass_over_due(QmlJobPass *pass)
{
	Assert(pass->wants == NULL);
	run_pass(pass, walk_due);
}

/* Reads the tables at work, or a piece of them; returns whether they were read to the end. */
static bool
walk_store(QmlJobPass *pass)
{
	QmlWalkPiece piece;

	qml_walk_open(&piece, pass->walk ? &pass->reached : NULL, pass->writer.live,
				  qml_writer_snapshot(&pass->writer));
	while (pass->count < pass->max && qml_walk_next_row(&piece))
	{
		CHECK_FOR_INTERRUPTS();
		if (!pass->wants(pass, pass->writer.live->slot))
			continue;
		QML_FAULT("reclaim.after_select");
		(void) visit_job(pass);
	}
	return qml_walk_close(&piece);
}

static void
walk_all(void *arg)
{
	QmlJobPass *pass = arg;
	int count = qml_stores_in_use();
	int store = 0;

	start_walk(pass);
	/* A copy: the pass may start anew, or fail. */
	if (pass->walk)
	{
		pass->reached = *pass->walk;
		store = pass->reached.number;
	}
	/* A piece of one table, or all of them; one that is not in use any more has no jobs. */
	for (pass->over = true; pass->over && store < count; store++)
	{
		qml_writer_turn(&pass->writer, store);
		pass->over = walk_store(pass);
		if (pass->walk && pass->over && store + 1 < count)
		{
			memset(&pass->reached, 0, sizeof(pass->reached));
			pass->reached.number = store + 1;
			pass->over = false;
		}
	}
	if (pass->walk && pass->over)
		memset(&pass->reached, 0, sizeof(pass->reached));
	qml_writer_close(&pass->writer);
}

/*
 * Over all jobs, or a piece of them, for up to max that are wanted.  Leases, for one, are
 * in no index: a heartbeat would not be a HOT update then.
 */
void
qml_job_pass_over_all(QmlJobPass *pass)
{
	Assert(pass->wants && pass->max > 0);
	run_pass(pass, walk_all);
	if (pass->walk)
		*pass->walk = pass->reached;
}

/* Looks for an unfinished job of the tables at work; its row is in their slot then. */
static bool
find_here(QmlJobPass *pass, Relation pkey, const pg_uuid_t *id, IndexScanDesc *scan)
{
	ScanKeyData key;

	if (*scan == NULL)
		*scan = qml_index_beginscan(pass->writer.live->rel, pkey,
									qml_writer_snapshot(&pass->writer), 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(*scan, &key, 1, NULL, 0);
	return qml_table_next(pass->writer.live, *scan);
}

static void
walk_ids(void *arg)
{
	QmlJobPass *pass = arg;
	int count = qml_stores_in_use();
	Relation pkeys[QML_STORES] = {NULL};
	IndexScanDesc scans[QML_STORES] = {NULL};

	start_walk(pass);
	for (int i = 0; i < count; i++)
		pkeys[i] = index_open(qml_store(i)->live_pkey, RowExclusiveLock);
	for (pass->at = 0; pass->at < pass->nids; pass->at++)
	{
		bool changed = false;
		bool found = false;

		if (pass->max > 0 && pass->count >= pass->max)
			break;
		for (int i = 0; i < count && !found; i++)
		{
			qml_writer_turn(&pass->writer, i);
			found = find_here(pass, pkeys[i], &pass->ids[pass->at], &scans[i]);
		}
		if (found && pass->wants(pass, pass->writer.live->slot))
		{
			QML_FAULT("reclaim.after_select");
			changed = visit_job(pass);
		}
		if (pass->changed)
			pass->changed[pass->at] = changed;
	}
	for (int i = 0; i < count; i++)
	{
		if (scans[i])
			index_endscan(scans[i]);
		index_close(pkeys[i], NoLock);
	}
	qml_writer_close(&pass->writer);
}

/* Over the jobs of these ids that are wanted. */
void
qml_job_pass_by_id(QmlJobPass *pass, const pg_uuid_t *ids, int count)
{
	Assert(pass->wants);
	pass->ids = ids;
	pass->nids = count;
	run_pass(pass, walk_ids);
}
