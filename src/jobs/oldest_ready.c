/*
 * oldest_ready.c
 *		Since when jobs of a queue wait.
 *
 * Jobs of one priority are given out in the order of their ids, and ids grow with the time at which
 * they were made.  So the first ready job of each priority is looked at, by the index, and of these
 * the one that waits for longest counts.  A job that became ready later than others behind it
 * (it was scheduled, or is retried) hides these; it is to be given out before them.
 *
 * So that the look costs little whatever there is, it ends after some priorities and some entries of
 * the index, among which are jobs that run and those that are gone.
 *
 * Reads only.
 */
#include "postgres.h"

#include "access/genam.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "jobs/oldest_ready.h"
#include "model/job.h"

/* Of a queue: priorities, and entries of the index, that are looked at. */
#define MOST_PRIORITIES 16
#define MOST_ENTRIES	2000

void
qml_oldest_ready_begin(QmlOldestReady *search)
{
	memset(search, 0, sizeof(*search));
	search->snapshot = qml_table_snapshot();
}

static void
open_store(QmlOldestReady *search, QmlStoreId store)
{
	if (search->is_open[store])
		return;
	qml_table_open(&search->live[store], qml_store(store)->live, AccessShareLock);
	search->ready[store] = index_open(qml_store(store)->live_ready, AccessShareLock);
	search->is_open[store] = true;
}

/*
 * The next ready job of a walk, in the slot of the table; false: there is none.  *left: so many
 * entries may still be looked at.
 */
static bool
next_ready(IndexScanDesc scan, TupleTableSlot *slot, int *left)
{
	while (*left > 0 && index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		(*left)--;
		CHECK_FOR_INTERRUPTS();
		if (index_fetch_heap(scan, slot) && qml_job_live_state(slot) == QML_ENQUEUED)
			return true;
	}
	return false;
}

/* Since when the job in the slot is ready. */
static TimestampTz
ready_since(TupleTableSlot *slot, int *priority)
{
	bool isnull;
	Datum ready_at = slot_getattr(slot, LIVE_READY_AT, &isnull);

	if (isnull)
		ready_at = slot_getattr(slot, LIVE_CREATED_AT, &isnull);
	*priority = DatumGetInt32(slot_getattr(slot, LIVE_PRIORITY, &isnull));
	return DatumGetTimestampTz(ready_at);
}

/* Since when a job of the queue is ready; false: none is, or none was found. */
bool
qml_oldest_ready_find(QmlOldestReady *search, const QmlQueue *queue, TimestampTz *ready_at)
{
	QmlStoreId store = qml_queue_store(queue);
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData keys[2];
	int left = MOST_ENTRIES;
	int nkeys = 1;
	bool found = false;

	/* Of a class that has no jobs, and on a standby no tables that could be read. */
	if ((int) store >= qml_stores_in_use())
		return false;
	open_store(search, store);
	slot = search->live[store].slot;
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->id));
	for (int i = 0; i < MOST_PRIORITIES; i++)
	{
		TimestampTz since;
		int priority;
		bool any;

		scan = qml_index_beginscan(search->live[store].rel, search->ready[store], search->snapshot,
								   nkeys);
		index_rescan(scan, keys, nkeys, NULL, 0);
		any = next_ready(scan, slot, &left);
		if (any)
		{
			since = ready_since(slot, &priority);
			*ready_at = found ? Min(*ready_at, since) : since;
			found = true;
		}
		ExecClearTuple(slot);
		index_endscan(scan);
		if (!any)
			break;
		/* The next lower priority. */
		ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT4LT, Int32GetDatum(priority));
		nkeys = 2;
	}
	return found;
}

void
qml_oldest_ready_end(QmlOldestReady *search)
{
	for (int i = 0; i < QML_STORES; i++)
	{
		if (!search->is_open[i])
			continue;
		index_close(search->ready[i], NoLock);
		qml_table_close(&search->live[i]);
	}
	UnregisterSnapshot(search->snapshot);
}
