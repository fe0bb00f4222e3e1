/*
 * oldest_ready.c
 *		Since when jobs of a queue wait, and run.
 *
 * Jobs of one priority are given out in the order of their ids, and ids grow with the time at which
 * they were made.  So the first ready job of each priority is looked at, by the index, and of these
 * the one that waits for longest counts.  A job that became ready later than others behind it
 * (it was scheduled, or is retried) hides these; it is to be given out before them.
 *
 * Jobs that run were given out before those that wait, so the look passes by them, and sees since
 * when each of these runs.
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

/* What one look has seen so far. */
typedef struct Look
{
	TupleTableSlot *slot;
	const char *method; /* only jobs of this one; NULL: of all */
	size_t length;		/* of it */
	int left;			/* so many entries may still be looked at */
	QmlOldestJobs *found;
} Look;

static bool
is_wanted(const Look *look)
{
	bool isnull;
	Datum value;
	text *method;
	bool same;

	if (look->method == NULL)
		return true;
	value = slot_getattr(look->slot, LIVE_METHOD, &isnull);
	method = DatumGetTextPP(value);
	same = VARSIZE_ANY_EXHDR(method) == look->length &&
		   memcmp(VARDATA_ANY(method), look->method, look->length) == 0;
	if ((Pointer) method != DatumGetPointer(value))
		pfree(method);
	return same;
}

static void
note_earlier(TimestampTz *earliest, TimestampTz time)
{
	if (*earliest == QML_NO_TIME || time < *earliest)
		*earliest = time;
}

/*
 * The next ready job of a walk, in the slot of the table; false: there is none.  Jobs that run are
 * noted on the way.
 */
static bool
next_ready(IndexScanDesc scan, Look *look)
{
	while (look->left > 0 && index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		QmlState state;
		bool isnull;
		Datum started_at;

		look->left--;
		CHECK_FOR_INTERRUPTS();
		if (!index_fetch_heap(scan, look->slot))
			continue;
		state = qml_job_live_state(look->slot);
		if ((state != QML_ENQUEUED && state != QML_PROCESSING) || !is_wanted(look))
			continue;
		if (state == QML_ENQUEUED)
			return true;
		started_at = slot_getattr(look->slot, LIVE_STARTED_AT, &isnull);
		if (!isnull)
			note_earlier(&look->found->started_at, DatumGetTimestampTz(started_at));
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

/* Since when jobs of the queue are ready, and run.  method: only jobs of this one; NULL: of all. */
void
qml_oldest_ready_look(QmlOldestReady *search, const QmlQueue *queue, const char *method,
					  QmlOldestJobs *found)
{
	QmlStoreId store = qml_queue_store(queue);
	Look look = {.method = method,
				 .length = method ? strlen(method) : 0,
				 .left = MOST_ENTRIES,
				 .found = found};
	IndexScanDesc scan;
	ScanKeyData keys[2];
	int nkeys = 1;

	found->ready_at = found->started_at = QML_NO_TIME;
	/* Of a class that has no jobs, and on a standby no tables that could be read. */
	if ((int) store >= qml_stores_in_use())
		return;
	open_store(search, store);
	look.slot = search->live[store].slot;
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->id));
	for (int i = 0; i < MOST_PRIORITIES; i++)
	{
		int priority;
		bool any;

		scan = qml_index_beginscan(search->live[store].rel, search->ready[store], search->snapshot,
								   nkeys);
		index_rescan(scan, keys, nkeys, NULL, 0);
		any = next_ready(scan, &look);
		if (any)
			note_earlier(&found->ready_at, ready_since(look.slot, &priority));
		ExecClearTuple(look.slot);
		index_endscan(scan);
		if (!any)
			break;
		/* The next lower priority. */
		ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT4LT, Int32GetDatum(priority));
		nkeys = 2;
	}
}

/* Since when a job of the queue is ready; false: none is, or none was found. */
bool
qml_oldest_ready_find(QmlOldestReady *search, const QmlQueue *queue, TimestampTz *ready_at)
{
	QmlOldestJobs found;

	qml_oldest_ready_look(search, queue, NULL, &found);
	*ready_at = found.ready_at;
	return found.ready_at != QML_NO_TIME;
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
