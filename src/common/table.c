/*
 * table.c
 *		Reading and writing rows of qml's tables below the executor.
 *
 * Rows go through the table access method and indexes through
 * ExecInsertIndexTuples, so that indexes which an administrator adds are kept
 * too.  Entries of indexes that model/ knows are made here, without the executor.  Triggers, check constraints, rules and row security would be passed over: a table
 * that has any is refused when it is opened.  Locks are held to the end of the transaction,
 * as in SQL.
 *
 * Versions of a row that differ in no indexed column form a chain (HOT), of which the indexes
 * have the first line pointer, its root.  Who knows the root finds the version that a snapshot
 * sees without the index, as long as the row is there: afterwards the root may be that of another
 * row.  So it is remembered with the row that is read.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/multixact.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "common/lazy_commit.h"
#include "common/table.h"
#include "compat.h"
#include "qml.h"

/* What model/ knows of the tables. */
static QmlTableCheck check_table = NULL;
static const QmlTableIndexes *own_indexes = NULL;

/* These two are called when the library is loaded. */
void
qml_table_init(QmlTableCheck check)
{
	check_table = check;
}

void
qml_table_set_indexes(const QmlTableIndexes *indexes)
{
	own_indexes = indexes;
}

/*
 * Whoever opens a table of qml calls this with the lock that keeps it from being altered: to
 * have looked before, while the lock was waited for, would not do.
 */
void
qml_table_check(Relation rel, bool write)
{
	Assert(check_table != NULL);
	check_table(rel, write);
}

static void
init_table(QmlTable *table, Relation rel)
{
	table->context = CurrentMemoryContext;
	table->rel = rel;
	table->slot = table_slot_create(rel, NULL);
	table->row = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	table->estate = NULL;
	table->indexes = NULL;
	table->own = NULL;
	table->nown = 0;
	table->is_hot = false;
	table->is_lazy = false;
	table->page = InvalidBuffer;
	table->blocks = 0;
	ItemPointerSetInvalid(&table->root);
	ItemPointerSetInvalid(&table->member);
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
	qml_table_check(rel, lockmode != AccessShareLock);
	init_table(table, rel);
	return true;
}

pg_noreturn static void
raise_changed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("extension \"qml\" was dropped or changed by another session"),
			 errhint("Try again.")));
}

/* The same for a table that must be there. */
void
qml_table_open(QmlTable *table, Oid relid, LOCKMODE lockmode)
{
	if (!qml_table_try_open(table, relid, lockmode))
		raise_changed();
}

/* Closes a table; its lock is held to the end of the transaction. */
void
qml_table_close(QmlTable *table)
{
	if (BufferIsValid(table->page))
		ReleaseBuffer(table->page);
	ExecDropSingleTupleTableSlot(table->slot);
	ExecDropSingleTupleTableSlot(table->row);
	for (int i = 0; i < table->nown; i++)
	{
		if (table->own[i].rel)
			index_close(table->own[i].rel, RowExclusiveLock);
	}
	if (table->indexes)
	{
		ExecCloseIndices(table->indexes);
		FreeExecutorState(table->estate);
	}
	table_close(table->rel, NoLock);
}

static bool
is_users_function(Oid function, void *arg)
{
	return function >= FirstNormalObjectId;
}

/* Whether an expression calls a function that is not the server's. */
static bool
find_users_function(Node *node, void *arg)
{
	return node && (check_functions_in_node(node, is_users_function, NULL) ||
					expression_tree_walker(node, find_users_function, NULL));
}

/* Whether indexes have expressions, or conditions, that call functions of users. */
static bool
call_users(const ResultRelInfo *indexes)
{
	for (int i = 0; i < indexes->ri_NumIndices; i++)
	{
		const IndexInfo *index = indexes->ri_IndexRelationInfo[i];

		if (find_users_function((Node *) index->ii_Expressions, NULL) ||
			find_users_function((Node *) index->ii_Predicate, NULL))
			return true;
	}
	return false;
}

/* Opens an index for the executor, as ExecOpenIndices() does for all of them. */
static void
open_index(ResultRelInfo *indexes, Oid oid, bool speculative)
{
	Relation rel = index_open(oid, RowExclusiveLock);
	IndexInfo *info = BuildIndexInfo(rel);

	if (speculative && info->ii_Unique && !rel->rd_index->indisexclusion)
		BuildSpeculativeIndexInfo(rel, info);
	indexes->ri_IndexRelationDescs[indexes->ri_NumIndices] = rel;
	indexes->ri_IndexRelationInfo[indexes->ri_NumIndices++] = info;
}

/*
 * Opens the indexes that the executor sees to; the others are opened by the first row that has an
 * entry in them.  speculative: also to insert rows that may meet others with the same key.
 */
static void
open_indexes(QmlTable *table, bool speculative)
{
	MemoryContext oldcontext;
	List *oids;
	ListCell *lc;

	if (table->indexes)
		return;
	oldcontext = MemoryContextSwitchTo(table->context);
	table->estate = CreateExecutorState();
	MemoryContextSwitchTo(table->estate->es_query_cxt);
	oids = RelationGetIndexList(table->rel);
	table->own = palloc(sizeof(QmlTableIndex) * (list_length(oids) + 1));
	table->indexes = makeNode(ResultRelInfo);
	InitResultRelInfo(table->indexes, table->rel, 0, NULL, 0);
	table->indexes->ri_IndexRelationDescs = palloc(sizeof(Relation) * (list_length(oids) + 1));
	table->indexes->ri_IndexRelationInfo = palloc(sizeof(IndexInfo *) * (list_length(oids) + 1));
	foreach(lc, oids)
	{
		int kind = own_indexes->kind(table->rel, lfirst_oid(lc));

		if (kind == 0)
			open_index(table->indexes, lfirst_oid(lc), speculative);
		else
			table->own[table->nown++] = (QmlTableIndex){.oid = lfirst_oid(lc), .kind = kind};
	}
	list_free(oids);
	MemoryContextSwitchTo(oldcontext);
}

/* Enters a row that has just been stored into the indexes that need no executor. */
static void
insert_own_entries(QmlTable *table, TupleTableSlot *row, bool is_update)
{
	bool nulls[QML_TABLE_MAX_KEYS] = {false};

	for (int i = 0; i < table->nown; i++)
	{
		QmlTableIndex *index = &table->own[i];
		Datum values[QML_TABLE_MAX_KEYS];

		if (own_indexes->entry(index->kind, row, values) == 0)
			continue;
		if (index->rel == NULL)
			index->rel = index_open(index->oid, RowExclusiveLock);
		/* A btree asks nothing of the structure that the executor would pass. */
		(void) index_insert(index->rel, values, nulls, &row->tts_tid, table->rel, UNIQUE_CHECK_NO,
							is_update, NULL);
	}
}

/* A row, or several, were written; what that took counts if the caller has said so. */
static void
end_write(QmlTable *table, uint64 begun)
{
	if (table->is_lazy && !(table->indexes && call_users(table->indexes)))
		qml_lazy_commit_end_write(begun);
	table->is_lazy = false;
}

/*
 * Enters a row that has just been stored into the indexes that need it.  is_update: it is a
 * new version of a row, which lets btree look for dead versions before it splits a page.
 */
static void
insert_index_entries(QmlTable *table, TupleTableSlot *row, bool is_update, QmlUpdateIndexes indexes)
{
	MemoryContext oldcontext;

	open_indexes(table, false);
	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));
	(void) qml_exec_insert_index_tuples(table->indexes, row, table->estate, is_update, indexes);
	if (indexes == QML_UPDATE_ALL_INDEXES)
		insert_own_entries(table, row, is_update);
	MemoryContextSwitchTo(oldcontext);
	ResetPerTupleExprContext(table->estate);
}

/* Inserts a row. */
void
qml_table_insert(QmlTable *table, TupleTableSlot *row)
{
	uint64 begun = qml_lazy_commit_begin();

	table_tuple_insert(table->rel, row, GetCurrentCommandId(true), 0, NULL);
	table->is_hot = false;
	insert_index_entries(table, row, false, QML_UPDATE_ALL_INDEXES);
	end_write(table, begun);
}

/*
 * Inserts a row unless there is one with its key, a unique index, as INSERT ... ON CONFLICT DO
 * NOTHING does: it waits for others that are adding or removing one.  False: there is one.  The
 * table must not have been written before.
 */
bool
qml_table_try_insert(QmlTable *table, TupleTableSlot *row, Oid key)
{
	List *arbiters = list_make1_oid(key);
	MemoryContext oldcontext;
	bool conflicts = true;
	uint64 begun = qml_lazy_commit_begin();

	table->is_hot = false;
	open_indexes(table, true);
	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));
	while (conflicts && qml_exec_key_is_free(table->indexes, row, table->estate, arbiters))
	{
		uint32 token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());

		conflicts = false;
		table_tuple_insert_speculative(table->rel, row, GetCurrentCommandId(true), 0, NULL, token);
		(void) qml_exec_try_insert_index_tuples(table->indexes, row, table->estate, &conflicts,
												arbiters);
		table_tuple_complete_speculative(table->rel, row, token, !conflicts);
		SpeculativeInsertionLockRelease(GetCurrentTransactionId());
		if (!conflicts)
			insert_own_entries(table, row, false);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(oldcontext);
	ResetPerTupleExprContext(table->estate);
	end_write(table, begun);
	return !conflicts;
}

/* Several rows at once: one WAL record a page instead of one a row. */
void
qml_table_insert_many(QmlTable *table, TupleTableSlot **rows, int count)
{
	MemoryContext scratch;
	MemoryContext oldcontext;
	uint64 begun = qml_lazy_commit_begin();

	/* The access method leaves its copies of the rows behind. */
	open_indexes(table, false);
	scratch = AllocSetContextCreate(CurrentMemoryContext, "qml rows", ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(scratch);
	table_multi_insert(table->rel, rows, count, GetCurrentCommandId(true), 0, NULL);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(scratch);

	for (int i = 0; i < count; i++)
		insert_index_entries(table, rows[i], false, QML_UPDATE_ALL_INDEXES);
	end_write(table, begun);
}

static bool
read_next(QmlTable *table, IndexScanDesc scan)
{
	for (;;)
	{
		if (!scan->xs_heap_continue)
		{
			ItemPointer root = index_getnext_tid(scan, ForwardScanDirection);

			if (root == NULL)
				return false;
			/* The scan moves on to the version that it finds. */
			table->root = *root;
		}
		if (index_fetch_heap(scan, table->slot))
		{
			table->member = table->slot->tts_tid;
			return true;
		}
	}
}

/* Reads the next row of a scan into table->slot, as index_getnext_slot(), with its root. */
bool
qml_table_next(QmlTable *table, IndexScanDesc scan)
{
	uint64 begun = qml_lazy_commit_begin();
	bool found = read_next(table, scan);

	qml_lazy_commit_end_read(begun);
	return found;
}

/* Pins the page of a row; false: the table does not reach so far. */
static bool
pin_page(QmlTable *table, BlockNumber block, Size room)
{
	Buffer before = table->page;
	Page page;

	/* Vacuum may have cut the table off since, but does not while it is locked. */
	if (block >= table->blocks)
		table->blocks = RelationGetNumberOfBlocks(table->rel);
	if (block >= table->blocks)
		return false;
	table->page = ReleaseAndReadBuffer(before, table->rel, block);
	if (table->page == before)
		return true;
	/* Both are hints, as they are for heap_page_prune_opt() itself. */
	page = BufferGetPage(table->page);
	if (room > 0 && (PageIsFull(page) || PageGetHeapFreeSpace(page) < room))
		heap_page_prune_opt(table->rel, table->page);
	return true;
}

/*
 * Reads the version that a snapshot sees of the row with this root into table->slot.  False:
 * there is none.  It may be another row than that for which the root was remembered.
 *
 * Whoever is going to write another version of it says how much room that needs: the page is pruned
 * if it has less.  An index scan prunes whenever a page is fuller than the table's fillfactor, which
 * pages of qml.live are from the start.  It would do so for each row that changes, and each time
 * with a record in the WAL.
 */
bool
qml_table_fetch(QmlTable *table, const ItemPointerData *root, Snapshot snapshot, Size room)
{
	BufferHeapTupleTableSlot *row = (BufferHeapTupleTableSlot *) table->slot;
	ItemPointerData tid = *root;
	uint64 begun = qml_lazy_commit_begin();
	bool found;

	Assert(TTS_IS_BUFFERTUPLE(table->slot) && IsMVCCSnapshot(snapshot));
	if (!pin_page(table, ItemPointerGetBlockNumber(root), room))
		return false;
	LockBuffer(table->page, BUFFER_LOCK_SHARE);
	found = heap_hot_search_buffer(&tid, table->rel, table->page, snapshot, &row->base.tupdata,
								   NULL, true);
	row->base.tupdata.t_self = tid;
	LockBuffer(table->page, BUFFER_LOCK_UNLOCK);
	qml_lazy_commit_end_read(begun);
	if (!found)
		return false;
	table->slot->tts_tableOid = RelationGetRelid(table->rel);
	ExecStoreBufferHeapTuple(&row->base.tupdata, table->slot, table->page);
	table->root = *root;
	table->member = table->slot->tts_tid;
	return true;
}

/* Looks for the root of a row in its page; invalid: it has none. */
static ItemPointerData
find_root(Relation rel, ItemPointer tid)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);
	Buffer buffer = ReadBuffer(rel, block);
	OffsetNumber roots[MaxHeapTuplesPerPage];
	OffsetNumber offset;
	ItemPointerData root;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	heap_get_root_tuples(BufferGetPage(buffer), roots);
	UnlockReleaseBuffer(buffer);
	offset = roots[ItemPointerGetOffsetNumber(tid) - 1];
	if (offset == InvalidOffsetNumber)
		ItemPointerSetInvalid(&root);
	else
		ItemPointerSet(&root, block, offset);
	return root;
}

/* The root of the row that was read last; invalid: it is not known. */
ItemPointerData
qml_table_read_root(const QmlTable *table)
{
	ItemPointerData none;

	if (ItemPointerIsValid(&table->member) &&
		ItemPointerEquals(unconstify(ItemPointerData *, &table->member), &table->slot->tts_tid))
		return table->root;
	ItemPointerSetInvalid(&none);
	return none;
}

/* The root of the row that was written last, and whose place is in table->row. */
ItemPointerData
qml_table_row_root(QmlTable *table)
{
	ItemPointerData root;

	if (!table->is_hot)
		return table->row->tts_tid;
	root = qml_table_read_root(table);
	return ItemPointerIsValid(&root) ? root : find_root(table->rel, &table->row->tts_tid);
}

/*
 * What has become of the row in a slot that a scan has filled: TM_BeingModified if another
 * transaction that is running has changed or locked it, TM_Updated or TM_Deleted if one that has
 * committed since has changed it.  heap_update() and heap_delete() decide by the same function
 * whether they have to wait.  The lock on the page keeps the header of the row from changing
 * meanwhile; afterwards the transaction may end, or another one begin, at any moment.
 */
TM_Result
qml_table_row_fate(TupleTableSlot *slot)
{
	BufferHeapTupleTableSlot *row = (BufferHeapTupleTableSlot *) slot;
	uint64 begun = qml_lazy_commit_begin();
	TM_Result result;

	if (!TTS_IS_BUFFERTUPLE(slot) || !BufferIsValid(row->buffer))
		return TM_Ok;
	LockBuffer(row->buffer, BUFFER_LOCK_SHARE);
	result = HeapTupleSatisfiesUpdate(row->base.tuple, GetCurrentCommandId(false), row->buffer);
	LockBuffer(row->buffer, BUFFER_LOCK_UNLOCK);
	qml_lazy_commit_end_read(begun);
	return result;
}

/* Whether the one that is in the header of the row has more than a lock. */
static bool
is_changed(TupleTableSlot *slot)
{
	BufferHeapTupleTableSlot *row = (BufferHeapTupleTableSlot *) slot;
	uint16 mask;

	LockBuffer(row->buffer, BUFFER_LOCK_SHARE);
	mask = row->base.tuple->t_data->t_infomask;
	LockBuffer(row->buffer, BUFFER_LOCK_UNLOCK);
	/* Of several, the one that has changed it may have been rolled back long ago. */
	return (mask & HEAP_XMAX_IS_MULTI) == 0 && !HEAP_XMAX_IS_LOCKED_ONLY(mask);
}

/* Whether this transaction has written the row in a slot that a scan has filled. */
bool
qml_table_row_is_own(TupleTableSlot *slot)
{
	BufferHeapTupleTableSlot *row = (BufferHeapTupleTableSlot *) slot;

	return TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(row->base.tuple->t_data));
}

/*
 * Whether another transaction that is running has changed or deleted the row in a slot that a scan
 * has filled, and not only locked it.
 */
bool
qml_table_row_is_replaced(TupleTableSlot *slot)
{
	return qml_table_row_fate(slot) == TM_BeingModified && is_changed(slot);
}

/* Adds a transaction, or subtransaction, to a list if it is another one that is running. */
static int
add_holder(TransactionId xid, TransactionId *xids, int count, int most)
{
	if (count < most && TransactionIdIsValid(xid) && !TransactionIdIsCurrentTransactionId(xid) &&
		TransactionIdIsInProgress(xid))
		xids[count++] = xid;
	return count;
}

/*
 * The other transactions that are running and have changed or locked the row in a slot that a scan
 * has filled; returns how many, `most` at most.  Each may be a subtransaction.
 */
int
qml_table_row_holders(TupleTableSlot *slot, TransactionId *xids, int most)
{
	BufferHeapTupleTableSlot *row = (BufferHeapTupleTableSlot *) slot;
	MultiXactMember *members;
	TransactionId xmax;
	uint16 mask;
	int nmembers;
	int count = 0;

	if (!TTS_IS_BUFFERTUPLE(slot) || !BufferIsValid(row->buffer))
		return 0;
	LockBuffer(row->buffer, BUFFER_LOCK_SHARE);
	mask = row->base.tuple->t_data->t_infomask;
	xmax = HeapTupleHeaderGetRawXmax(row->base.tuple->t_data);
	LockBuffer(row->buffer, BUFFER_LOCK_UNLOCK);
	if ((mask & HEAP_XMAX_INVALID) != 0 || HEAP_LOCKED_UPGRADED(mask))
		return 0;
	if ((mask & HEAP_XMAX_IS_MULTI) == 0)
		return add_holder(xmax, xids, 0, most);
	nmembers = GetMultiXactIdMembers(xmax, &members, false, HEAP_XMAX_IS_LOCKED_ONLY(mask));
	for (int i = 0; i < nmembers; i++)
		count = add_holder(members[i].xid, xids, count, most);
	return count;
}

/*
 * Replaces the row at tid.  TM_Ok, or the reason why not: somebody else changed it
 * (TM_Updated, TM_Deleted), is changing it and wait is false (TM_BeingModified), or this
 * command did already (TM_SelfModified).  If wait is false, the row is that in table->slot.
 *
 * heap_update() returns TM_BeingModified if it must not wait, but asserts that this does not
 * happen.  So the row is looked at first.  Somebody may begin to change it between the look
 * and the update: heap_update() notices, and returns what it should.  Only with assertions
 * that would end the server, and therefore the update waits in this case.  It then returns
 * what the other transaction did, which callers treat in the same way.
 */
TM_Result
qml_table_update(QmlTable *table, ItemPointer tid, TupleTableSlot *row, Snapshot snapshot,
				 bool wait)
{
	TM_FailureData failure;
	LockTupleMode lockmode;
	QmlUpdateIndexes update_indexes;
	TM_Result result;
	uint64 begun;

	if (!wait)
	{
		Assert(ItemPointerEquals(tid, &table->slot->tts_tid));
		if (qml_table_row_fate(table->slot) == TM_BeingModified)
		{
			table->is_lazy = false;
			return TM_BeingModified;
		}
#ifdef USE_ASSERT_CHECKING
		wait = true;
#endif
	}
	begun = qml_lazy_commit_begin();
	result = table_tuple_update(table->rel, tid, row, GetCurrentCommandId(true), snapshot,
								InvalidSnapshot, wait, &failure, &lockmode, &update_indexes);
	if (result == TM_Ok)
	{
		table->is_hot = update_indexes != QML_UPDATE_ALL_INDEXES;
		QML_FAULT("table.updated");
	}
	if (result == TM_Ok && update_indexes != QML_UPDATE_NO_INDEXES)
		insert_index_entries(table, row, true, update_indexes);
	end_write(table, begun);
	return result;
}

/* Deletes the row at tid; results as above.  heap_delete() asserts nothing about waiting. */
TM_Result
qml_table_delete(QmlTable *table, ItemPointer tid, Snapshot snapshot, bool wait)
{
	TM_FailureData failure;
	uint64 begun = qml_lazy_commit_begin();
	TM_Result result = table_tuple_delete(table->rel, tid, GetCurrentCommandId(true), snapshot,
										  InvalidSnapshot, wait, &failure, false);

	end_write(table, begun);
	return result;
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
	index = try_index_open(indexid, AccessShareLock);
	if (index == NULL)
		raise_changed();
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
