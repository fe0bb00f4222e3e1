/*
 * ready_index.c
 *		Walking over the index live_ready.
 *
 * Its order is that in which jobs are claimed: the queue, the higher priority, the lower id.  A
 * btree is searched by a range of one column behind equal ones.  So what stands behind a job of
 * a queue takes two walks: the rest of its priority, and all lower priorities.
 */
#include "postgres.h"

#include "access/relscan.h"
#include "utils/fmgroids.h"

#include "compat.h"
#include "jobs/ready_index.h"

/* Keys for the rest of a priority, behind a job, or from it on; returns how many. */
int
qml_ready_index_rest(ScanKey keys, const QmlReadyKey *key, bool with_key)
{
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(key->priority));
	ScanKeyInit(&keys[2], 3, with_key ? BTGreaterEqualStrategyNumber : BTGreaterStrategyNumber,
				with_key ? F_UUID_GE : F_UUID_GT, UUIDPGetDatum(&key->id));
	return 3;
}

/* Keys for a priority up to a job, from its first or (not NULL) behind another; returns how many. */
int
qml_ready_index_upto(ScanKey keys, const QmlReadyKey *key, const QmlReadyKey *after)
{
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(key->priority));
	ScanKeyInit(&keys[2], 3, BTLessEqualStrategyNumber, F_UUID_LE, UUIDPGetDatum(&key->id));
	if (after == NULL)
		return 3;
	ScanKeyInit(&keys[3], 3, BTGreaterStrategyNumber, F_UUID_GT, UUIDPGetDatum(&after->id));
	return 4;
}

/* Keys for a priority from a job up to another one; returns how many. */
int
qml_ready_index_between(ScanKey keys, const QmlReadyKey *from, const QmlReadyKey *to)
{
	int nkeys = qml_ready_index_upto(keys, to, NULL);

	ScanKeyInit(&keys[nkeys], 3, BTGreaterEqualStrategyNumber, F_UUID_GE, UUIDPGetDatum(&from->id));
	return nkeys + 1;
}

/* Keys for all priorities below that of a job; returns how many. */
int
qml_ready_index_below(ScanKey keys, const QmlReadyKey *key)
{
	ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT4LT, Int32GetDatum(key->priority));
	return 2;
}

/* Begins to walk over the part of a queue that the other keys say; with one key, all of it. */
IndexScanDesc
qml_ready_index_begin(QmlWriter *writer, Relation ready, int queue, ScanKey keys, int nkeys)
{
	Snapshot snapshot = qml_writer_snapshot(writer);
	IndexScanDesc scan = qml_index_beginscan(writer->live->rel, ready, snapshot, nkeys);

	Assert(nkeys <= QML_READY_INDEX_KEYS);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue));
	index_rescan(scan, keys, nkeys, NULL, 0);
	return scan;
}

/* The lowest queue id above `after` that the index has an entry for; 0: none. */
int
qml_ready_index_next_queue(QmlWriter *writer, Relation ready, int after)
{
	Snapshot snapshot = qml_writer_snapshot(writer);
	IndexScanDesc scan = qml_index_beginscan(writer->live->rel, ready, snapshot, 1);
	ScanKeyData key;
	int id = 0;

	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT4GT, Int32GetDatum(after));
	scan->xs_want_itup = true;
	index_rescan(scan, &key, 1, NULL, 0);
	if (index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		bool isnull;

		id = DatumGetInt32(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull));
	}
	index_endscan(scan);
	return id;
}
