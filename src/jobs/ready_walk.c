/*
 * ready_walk.c
 *		Looking at the ready jobs of a queue in the order in which they are claimed.
 *
 * Nothing is changed, and no lock is taken but AccessShareLock.  The walk sees what is committed, at
 * any isolation level, and reads a row for each job that is ready or in work; its caller ends it.
 * Between these it steps over the entries of all jobs that were finished since the last vacuum.
 */
#include "postgres.h"

#include "access/genam.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/table.h"
#include "compat.h"
#include "jobs/ready_walk.h"
#include "model/catalog.h"

/*
 * Calls `visit` for each job that is enqueued or processing, with its row in a slot, until that
 * returns false.  *room: entries of the index that it may look at, less those that it did; NULL: no
 * limit.  False: there may be more.
 */
bool
qml_ready_walk(const QmlQueue *queue, int *room, bool (*visit)(TupleTableSlot *slot, void *arg),
			   void *arg)
{
	const QmlStore *store;
	Relation ready;
	Snapshot snapshot;
	IndexScanDesc scan;
	ScanKeyData key;
	QmlTable live;
	bool goes_on = true;

	/* Of a class that has no jobs, and on a standby no tables that could be read. */
	if ((int) qml_queue_store(queue) >= qml_stores_in_use())
		return true;
	store = qml_store(qml_queue_store(queue));
	/* Who empties the table, or writes it anew, does so before the snapshot, or after the walk. */
	qml_table_open(&live, store->live, AccessShareLock);
	ready = index_open(store->live_ready, AccessShareLock);
	snapshot = qml_table_latest_snapshot();
	scan = qml_index_beginscan(live.rel, ready, snapshot, 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->id));
	index_rescan(scan, &key, 1, NULL, 0);
	/* Not index_getnext_slot(), which does not return before it has found a row. */
	while (goes_on && index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (room && (*room)-- <= 0)
			goes_on = false;
		else if (index_fetch_heap(scan, live.slot))
			goes_on = visit(live.slot, arg);
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	index_close(ready, NoLock);
	qml_table_close(&live);
	return goes_on;
}
