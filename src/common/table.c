/*
 * table.c
 *		Reading and writing rows of qml's tables below the executor.
 *
 * Rows go through the table access method and indexes through
 * ExecInsertIndexTuples, so that indexes which an administrator adds are kept
 * too.  Triggers, check constraints and row security are ignored: the tables
 * that are written here have none.  Locks are held to the end of the transaction, as in SQL.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/table.h"
#include "compat.h"
#include "qml.h"

static void
init_table(QmlTable *table, Relation rel)
{
	table->context = CurrentMemoryContext;
	table->rel = rel;
	table->slot = table_slot_create(rel, NULL);
	table->row = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	table->estate = NULL;
	table->indexes = NULL;
}

/*
 * What the executor checks for SQL that writes.  Also before locks are taken that
 * a standby does not give.
 */
void
qml_table_require_write(void)
{
	PreventCommandIfReadOnly("a function that changes jobs");
	PreventCommandIfParallelMode("a function that changes jobs");
	PreventCommandDuringRecovery("a function that changes jobs");
}

/* Opens a table; false when it is gone.  To write, lockmode is RowExclusiveLock. */
bool
qml_table_try_open(QmlTable *table, Oid relid, LOCKMODE lockmode)
{
	Relation rel;

	Assert(lockmode == AccessShareLock || lockmode == RowExclusiveLock);
	if (lockmode != AccessShareLock)
		qml_table_require_write();
	rel = try_table_open(relid, lockmode);
	if (rel == NULL)
		return false;
	init_table(table, rel);
	return true;
}

/* The same for a table that must be there. */
void
qml_table_open(QmlTable *table, Oid relid, LOCKMODE lockmode)
{
	if (!qml_table_try_open(table, relid, lockmode))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"qml\" was dropped or changed by another session"),
				 errhint("Try again.")));
}

/* Closes a table; its lock is held to the end of the transaction. */
void
qml_table_close(QmlTable *table)
{
	ExecDropSingleTupleTableSlot(table->slot);
	ExecDropSingleTupleTableSlot(table->row);
	if (table->indexes)
	{
		ExecCloseIndices(table->indexes);
		FreeExecutorState(table->estate);
	}
	table_close(table->rel, NoLock);
}

static void
open_indexes(QmlTable *table)
{
	MemoryContext oldcontext;

	if (table->indexes)
		return;
	oldcontext = MemoryContextSwitchTo(table->context);
	table->estate = CreateExecutorState();
	MemoryContextSwitchTo(table->estate->es_query_cxt);
	table->indexes = makeNode(ResultRelInfo);
	InitResultRelInfo(table->indexes, table->rel, 0, NULL, 0);
	ExecOpenIndices(table->indexes, false);
	MemoryContextSwitchTo(oldcontext);
}

/* Enters a row that has just been stored into all indexes. */
static void
insert_index_entries(QmlTable *table, TupleTableSlot *row)
{
	MemoryContext oldcontext;

	open_indexes(table);
	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));
	(void) qml_exec_insert_index_tuples(table->indexes, row, table->estate);
	MemoryContextSwitchTo(oldcontext);
	ResetPerTupleExprContext(table->estate);
}

/* Inserts a row. */
void
qml_table_insert(QmlTable *table, TupleTableSlot *row)
{
	table_tuple_insert(table->rel, row, GetCurrentCommandId(true), 0, NULL);
	insert_index_entries(table, row);
}

/* Several rows at once: one WAL record a page instead of one a row. */
void
qml_table_insert_many(QmlTable *table, TupleTableSlot **rows, int count)
{
	MemoryContext scratch;
	MemoryContext oldcontext;

	/* The access method leaves its copies of the rows behind. */
	open_indexes(table);
	scratch = AllocSetContextCreate(CurrentMemoryContext, "qml rows", ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(scratch);
	table_multi_insert(table->rel, rows, count, GetCurrentCommandId(true), 0, NULL);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(scratch);

	for (int i = 0; i < count; i++)
		insert_index_entries(table, rows[i]);
}

/*
 * Before a row is changed without waiting for others.  If heap_update() must not wait and
 * the row is being changed it returns at once, but it asserts that nobody asks for that.
 * So with assertions, which only tests use, the row is acquired by a lock that does not
 * wait, and *wait becomes true: it is this transaction's then.  A row that was locked so
 * has to be deleted the same way.  Without assertions the WAL record of the lock is saved.
 */
static TM_Result
lock_without_waiting(QmlTable *table, ItemPointer tid, Snapshot snapshot, LockTupleMode mode,
					 bool *wait)
{
#ifdef USE_ASSERT_CHECKING
	TupleTableSlot *locked = table_slot_create(table->rel, NULL);
	TM_FailureData failure;
	TM_Result result;

	result = table_tuple_lock(table->rel, tid, snapshot, locked, GetCurrentCommandId(true), mode,
							  LockWaitSkip, 0, &failure);
	ExecDropSingleTupleTableSlot(locked);
	*wait = true;
	return result;
#else
	return TM_Ok;
#endif
}

/*
 * Replaces the row at tid.  TM_Ok, or the reason why not: somebody else changed
 * it (TM_Updated, TM_Deleted), is changing it and wait is false
 * (TM_BeingModified, TM_WouldBlock), or this command did already
 * (TM_SelfModified).
 */
TM_Result
qml_table_update(QmlTable *table, ItemPointer tid, TupleTableSlot *row, Snapshot snapshot,
				 bool wait)
{
	TM_FailureData failure;
	LockTupleMode lockmode;
	QmlUpdateIndexes update_indexes;
	TM_Result result;

	if (!wait)
	{
		result = lock_without_waiting(table, tid, snapshot, LockTupleNoKeyExclusive, &wait);
		if (result != TM_Ok)
			return result;
	}
	result = table_tuple_update(table->rel, tid, row, GetCurrentCommandId(true), snapshot,
								InvalidSnapshot, wait, &failure, &lockmode, &update_indexes);
	if (result == TM_Ok && update_indexes != QML_UPDATE_NO_INDEXES)
		insert_index_entries(table, row);
	return result;
}

/* Deletes the row at tid; results as above. */
TM_Result
qml_table_delete(QmlTable *table, ItemPointer tid, Snapshot snapshot, bool wait)
{
	TM_FailureData failure;

	if (!wait)
	{
		TM_Result result = lock_without_waiting(table, tid, snapshot, LockTupleExclusive, &wait);

		if (result != TM_Ok)
			return result;
	}
	return table_tuple_delete(table->rel, tid, GetCurrentCommandId(true), snapshot, InvalidSnapshot,
							  wait, &failure, false);
}

/*
 * Whether another transaction that is running has changed or locked the row in a slot
 * that a scan has filled.  A hint: it may end, or begin, at any moment.
 */
bool
qml_table_is_row_locked(TupleTableSlot *slot)
{
	HeapTupleHeader header;
	TransactionId xmax;

	if (!TTS_IS_BUFFERTUPLE(slot))
		return false;
	header = ((BufferHeapTupleTableSlot *) slot)->base.tuple->t_data;
	if (header->t_infomask & HEAP_XMAX_INVALID)
		return false;
	xmax = HeapTupleHeaderGetRawXmax(header);
	if (header->t_infomask & HEAP_XMAX_IS_MULTI)
		return MultiXactIdIsRunning(xmax, HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask));
	return !TransactionIdIsCurrentTransactionId(xmax) && TransactionIdIsInProgress(xmax);
}

/*
 * The first time after `after` in an index whose only column is a time;
 * QML_NO_TIME: none.
 */
TimestampTz
qml_table_first_after(Oid relid, Oid indexid, TimestampTz after)
{
	QmlTable table;
	Relation index;
	Snapshot snapshot = qml_table_snapshot();
	IndexScanDesc scan;
	ScanKeyData key;
	TimestampTz found = QML_NO_TIME;

	qml_table_open(&table, relid, AccessShareLock);
	index = index_open(indexid, AccessShareLock);
	scan = qml_index_beginscan(table.rel, index, snapshot, 1);
	scan->xs_want_itup = true;
	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT, TimestampTzGetDatum(after));
	index_rescan(scan, &key, 1, NULL, 0);
	if (index_getnext_slot(scan, ForwardScanDirection, table.slot))
	{
		bool isnull;

		found = DatumGetTimestampTz(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull));
	}
	index_endscan(scan);
	index_close(index, AccessShareLock);
	UnregisterSnapshot(snapshot);
	qml_table_close(&table);
	return found;
}

/*
 * A snapshot for the next read: it sees everything that is committed, and what this
 * transaction did before.  In REPEATABLE READ and SERIALIZABLE it is the snapshot of the
 * transaction.  The caller unregisters it.
 */
Snapshot
qml_table_snapshot(void)
{
	PreventCommandIfParallelMode("a function of qml");
	CommandCounterIncrement();
	if (IsolationUsesXactSnapshot())
		return RegisterSnapshot(GetTransactionSnapshot());
	return RegisterSnapshot(GetLatestSnapshot());
}

/*
 * A snapshot that sees everything that is committed, in any isolation level: for what
 * must hold for everybody.  The caller unregisters it.
 */
Snapshot
qml_table_latest_snapshot(void)
{
	CommandCounterIncrement();
	return RegisterSnapshot(GetLatestSnapshot());
}
