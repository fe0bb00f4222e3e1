/*
 * expiry.c
 *		The end of partitions of the history: those that have expired are dropped.
 *
 * Locks are tried here, never queued for, because everybody else would queue up behind.
 * Dropping a partition needs AccessExclusiveLock on it, on its indexes and its TOAST table, and
 * on qml.history.  All are tried at the same time: nobody waits for one while another is tried.
 *
 * Readers that overlap would keep both locked for ever.  So a partition that is not free is
 * marked as being detached, as DETACH CONCURRENTLY does first: queries that begin later
 * do not read it.  When all that began before have ended, it is detached and dropped in
 * one transaction, which needs AccessExclusiveLock on the partition alone.  The server
 * allows one partition at a time to be in that state.  So one that other objects depend on is
 * not marked, and if such an object came later, the partition is detached all the same: it
 * would hold up the others for ever.  With any other error it stays marked, and is tried again.
 *
 * The scheduler, which must not stand still for the seconds that freeing gigabytes takes,
 * marks a large partition in any case, and cuts pieces off it until the rest is small
 * (common/shrink.c): one in each step.  Meanwhile the mark says that the partition is to go:
 * nobody reads it, and after a crash the next step goes on with it.  While another partition
 * has the mark and waits for its readers, a large one waits, too, but not for long.
 *
 * Everything is done in the caller's transaction, but for what is cut off.  A crash before its
 * commit leaves the partitions as they were, and the next call does it again.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/shrink.h"
#include "common/spi.h"
#include "common/subxact.h"
#include "common/table.h"
#include "compat.h"
#include "jobs/expiry.h"
#include "jobs/history.h"
#include "jobs/partition.h"
#include "model/catalog.h"

/* How long a caller who waits for the answer tries to get an expired partition. */
#define LOCK_TRIES	  20
#define LOCK_PAUSE_MS 5

/* When an expired partition is still there after so long, that is told. */
#define TELL_AFTER (10 * USECS_PER_MINUTE)

/*
 * How long a partition that was marked waits for transactions that could read it, and a large
 * one for its turn.
 */
#define WAIT_MS QML_FAULT_LIMIT("expiry.wait_ms", 10 * 60 * 1000)

/* Pages of which the rows are counted; those of the other pages are as many on average. */
#define COUNTED_PAGES 128

/* What was done to a partition. */
typedef enum LeafEnd
{
	LEAF_KEPT = 0,
	LEAF_FAILED,   /* it cannot be dropped, which was told */
	LEAF_STARTED,  /* it is on its way: a later call goes on */
	LEAF_TAKEN,	   /* it is locked, and can be dropped */
	LEAF_DETACHED, /* that, too, and it is no partition any more */
	LEAF_DROPPED
} LeafEnd;

/* A partition that has expired, and what is done to it. */
typedef struct ExpiredLeaf
{
	QmlStoreId store;
	Oid history; /* of which it is a partition */
	Oid leaf;
	TimestampTz upper;		   /* its bound */
	Oid marked;				   /* the one that is marked as being detached; InvalidOid: none */
	bool detaching;			   /* it is that one: */
	TransactionId detached_by; /* since this transaction */
	bool in_pieces;			   /* to be dropped in pieces, if it is large */
	int tries;				   /* to lock it */
	List *locked;			   /* what is locked with it */
	int64 rows;				   /* its rows, if they are to be counted */
	LeafEnd end;
} ExpiredLeaf;

/*
 * Work: the number of rows of a partition: counted on the first pages, and estimated from these
 * for the others, because reading all of it could take long.  0 if somebody has locked it.
 */
static void
count_rows(void *arg)
{
	ExpiredLeaf *work = arg;
	Oid leaf = work->leaf;
	Relation rel;
	BlockNumber pages;
	TupleTableSlot *slot;
	TableScanDesc scan;
	Snapshot snapshot;
	ItemPointerData first;
	ItemPointerData last;
	int64 rows = 0;

	if (!ConditionalLockRelationOid(leaf, AccessShareLock))
		return;
	rel = try_table_open(leaf, NoLock);
	if (rel == NULL)
	{
		UnlockRelationOid(leaf, AccessShareLock);
		return;
	}
	/* Somebody may have attached a partition that is no ordinary table. */
	if (rel->rd_rel->relkind != RELKIND_RELATION)
	{
		table_close(rel, AccessShareLock);
		return;
	}
	pages = RelationGetNumberOfBlocks(rel);
	slot = table_slot_create(rel, NULL);
	snapshot = qml_table_snapshot();
	ItemPointerSet(&first, 0, FirstOffsetNumber);
	ItemPointerSet(&last, COUNTED_PAGES - 1, MaxOffsetNumber);
	scan = table_beginscan_tidrange(rel, snapshot, &first, &last);
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
		rows++;
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	if (pages > COUNTED_PAGES)
		rows = rows * pages / COUNTED_PAGES;
	work->rows = rows;
}

/*
 * Takes AccessExclusiveLock on the partition and on what is dropped with it, and a lock on
 * qml.history, if all are free at the same moment.  Nothing is held between two tries.
 */
static bool
lock_all(ExpiredLeaf *work, LOCKMODE history_mode)
{
	Oid history = work->history;

	for (int tries = work->tries;;)
	{
		if (ConditionalLockRelationOid(work->leaf, AccessExclusiveLock))
		{
			if (qml_shrink_lock(work->leaf, &work->locked))
			{
				if (ConditionalLockRelationOid(history, history_mode))
					return true;
				qml_shrink_unlock(work->locked);
			}
			UnlockRelationOid(work->leaf, AccessExclusiveLock);
		}
		if (--tries <= 0)
			return false;
		qml_clock_pause(LOCK_PAUSE_MS);
	}
}

/* Whether the partition is marked as being detached, and by which transaction. */
static bool
is_detaching(Oid history, Oid leaf, TransactionId *by)
{
	Relation inherits = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool detaching = false;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(leaf));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_inherits entry = (Form_pg_inherits) GETSTRUCT(tuple);

		if (entry->inhparent != history || !entry->inhdetachpending)
			continue;
		detaching = true;
		*by = HeapTupleHeaderGetXmin(tuple->t_data);
	}
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);
	return detaching;
}

/* Whether one of the partitions is marked as being detached, by whomever. */
static bool
any_detaching(Relation inherits, Oid history)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool found = false;

	ScanKeyInit(&key, Anum_pg_inherits_inhparent, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(history));
	scan = systable_beginscan(inherits, InheritsParentIndexId, true, NULL, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
		found = ((Form_pg_inherits) GETSTRUCT(tuple))->inhdetachpending;
	systable_endscan(scan);
	return found;
}

/* Whether a constraint is one of the table itself: of its columns it is a normal dependent, too. */
static bool
is_constraint_of(Oid constraint, Oid table)
{
	HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	bool own;

	if (!HeapTupleIsValid(tuple))
		return false;
	own = ((Form_pg_constraint) GETSTRUCT(tuple))->conrelid == table;
	ReleaseSysCache(tuple);
	return own;
}

static bool
is_referenced(Oid class, Oid object)
{
	Relation depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;
	bool found = false;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(class));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(object));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, keys);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend entry = (Form_pg_depend) GETSTRUCT(tuple);

		found = entry->deptype == DEPENDENCY_NORMAL &&
				!(class == RelationRelationId && entry->classid == ConstraintRelationId &&
				  is_constraint_of(entry->objid, object));
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return found;
}

/*
 * Whether other objects depend on a partition, which then cannot be dropped: a view that reads
 * it, or a function with an argument of its row type, or of an array of these.
 */
static bool
has_dependents(Oid leaf)
{
	Oid row = get_rel_type_id(leaf);
	Oid array = OidIsValid(row) ? get_array_type(row) : InvalidOid;

	return is_referenced(RelationRelationId, leaf) ||
		   (OidIsValid(row) && is_referenced(TypeRelationId, row)) ||
		   (OidIsValid(array) && is_referenced(TypeRelationId, array));
}

static void
check_no_dependents(Oid leaf)
{
	if (has_dependents(leaf))
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("other objects depend on expired partition \"%s.%s\"",
						get_namespace_name(get_rel_namespace(leaf)), get_rel_name(leaf)),
				 errhint("Drop them, such as a view that reads this partition alone.")));
}

/* Marks the partition, which is locked, as being detached; false: another one is. */
static bool
set_detaching(Oid history, Oid leaf)
{
	Relation inherits = table_open(InheritsRelationId, RowExclusiveLock);
	bool marked = false;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	/* Somebody else may have begun since it was looked for, before the lock was taken. */
	if (any_detaching(inherits, history))
	{
		table_close(inherits, RowExclusiveLock);
		return false;
	}
	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(leaf));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_inherits entry = (Form_pg_inherits) GETSTRUCT(tuple);
		HeapTuple changed;

		if (entry->inhparent != history || entry->inhdetachpending)
			continue;
		changed = heap_copytuple(tuple);
		((Form_pg_inherits) GETSTRUCT(changed))->inhdetachpending = true;
		CatalogTupleUpdate(inherits, &changed->t_self, changed);
		heap_freetuple(changed);
		marked = true;
	}
	systable_endscan(scan);
	table_close(inherits, RowExclusiveLock);
	CacheInvalidateRelcacheByRelid(history);
	/* Sessions that have remembered it to store jobs in it look again. */
	CacheInvalidateRelcacheByRelid(leaf);
	CommandCounterIncrement();
	return marked;
}

/* Work: begins to detach the partition, unless another one is being detached, or locks are held. */
static void
begin_detach(void *arg)
{
	ExpiredLeaf *work = arg;
	Oid history = work->history;

	if (!ConditionalLockRelationOid(history, ShareUpdateExclusiveLock))
		return;
	if (!ConditionalLockRelationOid(work->leaf, ShareUpdateExclusiveLock))
	{
		UnlockRelationOid(history, ShareUpdateExclusiveLock);
		return;
	}
	check_no_dependents(work->leaf);
	if (!set_detaching(history, work->leaf))
	{
		UnlockRelationOid(work->leaf, ShareUpdateExclusiveLock);
		UnlockRelationOid(history, ShareUpdateExclusiveLock);
		return;
	}
	QML_FAULT("cleanup.after_mark");
	work->end = LEAF_STARTED;
}

/* Whether a query may still read the partition, which it began before that was marked. */
static bool
has_old_readers(TransactionId marked_by)
{
	int count;

	/* As the server finds out for DETACH ... FINALIZE, which would wait for them. */
	pfree(GetCurrentVirtualXIDs(marked_by, true, false,
								PROC_IS_AUTOVACUUM | PROC_IN_VACUUM | PROC_IN_SAFE_IC, &count));
	return count > 0;
}

/*
 * Detaches a partition that was marked, and that nobody reads any more.  FINALIZE waits for
 * snapshots that are as old as the current one.  It needs to wait only for those from before
 * the mark, which are gone, and is told so by a snapshot that ends there.
 */
static void
finish_detach(ExpiredLeaf *work)
{
	PartitionCmd *command = makeNode(PartitionCmd);
	AlterTableCmd *alter = makeNode(AlterTableCmd);
	SnapshotData snapshot = *GetActiveSnapshot();
	Oid user;
	int security_context;

	command->name = makeRangeVar(get_namespace_name(get_rel_namespace(work->leaf)),
								 get_rel_name(work->leaf), -1);
	alter->subtype = AT_DetachPartitionFinalize;
	alter->def = (Node *) command;
	snapshot.copied = false;
	snapshot.active_count = 0;
	snapshot.regd_count = 0;
	if (TransactionIdPrecedes(work->detached_by, snapshot.xmin))
		snapshot.xmin = work->detached_by;
	GetUserIdAndSecContext(&user, &security_context);
	SetUserIdAndSecContext(qml_catalog()->owner, security_context | SECURITY_LOCAL_USERID_CHANGE |
													 SECURITY_RESTRICTED_OPERATION);
	PushActiveSnapshot(&snapshot);
	/* Below event triggers, as the drop is. */
	AlterTableInternal(work->history, list_make1(alter), false);
	PopActiveSnapshot();
	SetUserIdAndSecContext(user, security_context);
	CommandCounterIncrement();
}

/* Work: drops the table of a partition that is locked. */
static void
drop_table(void *arg)
{
	ExpiredLeaf *work = arg;
	ObjectAddress object;

	Assert(OidIsValid(work->leaf));
	ObjectAddressSet(object, RelationRelationId, work->leaf);
	performDeletion(&object, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	CommandCounterIncrement();
	QML_FAULT("cleanup.after_drop");
	work->end = LEAF_DROPPED;
}

/*
 * Whether this process has seen the partition wait for its readers, or others wait for it, for
 * long.  There is one at a time in each history.
 */
static bool
has_waited_long(QmlStoreId store, Oid marked)
{
	static Oid leaves[QML_STORES];
	static int64 since[QML_STORES];
	int64 now = qml_clock_monotonic_ms();

	if (leaves[store] != marked)
	{
		leaves[store] = marked;
		since[store] = now;
	}
	return now - since[store] >= WAIT_MS;
}

/*
 * A large partition, which is locked, is not to be dropped in one go: it is marked, or a piece
 * is cut off it.  False: it can be dropped now.
 */
static bool
start_in_pieces(ExpiredLeaf *work)
{
	if (!work->in_pieces || has_dependents(work->leaf) || !qml_shrink_is_large(work->leaf))
		return false;
	if (work->detaching)
	{
		if (!qml_shrink_step(work->leaf))
			return false;
		work->end = LEAF_STARTED;
		return true;
	}
	if (!OidIsValid(work->marked))
	{
		begin_detach(work);
		return true;
	}
	return !has_waited_long(work->store, work->marked);
}

/*
 * Work: takes the partition, to drop it, if nobody is using it.  One that was marked is
 * detached then.  If transactions that could read it stay open for long, but nobody has it
 * locked, it goes without that, as one that was not marked.
 */
static void
take_leaf(void *arg)
{
	ExpiredLeaf *work = arg;
	bool detach = work->detaching;
	LOCKMODE history_mode;

	if (work->detaching && has_old_readers(work->detached_by))
	{
		if (!has_waited_long(work->store, work->leaf))
			return;
		detach = false;
	}
	history_mode = detach ? ShareUpdateExclusiveLock : AccessExclusiveLock;
	if (!lock_all(work, history_mode))
		return;
	/*
	 * The locks let invalidations in: somebody else may have dropped or detached it.  What
	 * could still be read is not cut into pieces.
	 */
	if (!get_rel_relispartition(work->leaf) ||
		get_partition_parent(work->leaf, true) != work->history ||
		(detach == work->detaching && start_in_pieces(work)))
	{
		/* What was begun holds them to its end. */
		if (work->end == LEAF_STARTED)
			return;
		UnlockRelationOid(work->history, history_mode);
		qml_shrink_unlock(work->locked);
		UnlockRelationOid(work->leaf, AccessExclusiveLock);
		return;
	}
	if (detach)
		finish_detach(work);
	work->end = detach ? LEAF_DETACHED : LEAF_TAKEN;
}

/* Only for objects that depend on it is a partition detached without being dropped. */
static bool
must_stay_attached(int sqlerrcode)
{
	return sqlerrcode != ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST;
}

/*
 * Work: takes and drops a partition, or does neither.  Detaching it stays done if other objects
 * depend on it: the next one could not be detached otherwise.
 */
static void
take_and_drop(void *arg)
{
	ExpiredLeaf *work = arg;
	QmlFailure failure;
	char *schema;
	char *name;

	take_leaf(work);
	if (work->end == LEAF_TAKEN)
		drop_table(work);
	if (work->end != LEAF_DETACHED)
		return;
	schema = get_namespace_name(get_rel_namespace(work->leaf));
	name = get_rel_name(work->leaf);
	if (qml_subxact_try(drop_table, work, must_stay_attached, &failure))
		return;
	work->end = LEAF_FAILED;
	/* Once for each: nothing looks for it any more. */
	ereport(WARNING,
			(errcode(failure.sqlerrcode),
			 errmsg("expired partition \"%s.%s\" was detached, but could not be dropped", schema,
					name),
			 errdetail("%s.", failure.message),
			 errhint("Drop the table yourself, with what depends on it.")));
}

/* Drops the partition if nobody is using it. */
static LeafEnd
drop_leaf(ExpiredLeaf *work)
{
	work->end = LEAF_KEPT;
	return qml_partition_try(work->store, take_and_drop, work) ? work->end : LEAF_FAILED;
}

/*
 * Partitions that ended before now, in the order of time, as ExpiredLeaf; none if
 * the history is locked.  *marked: the one of these, or of the others, that is being detached.
 */
static List *
list_expired(QmlStoreId store, Oid *marked)
{
	Oid relid = qml_store(store)->history;
	Relation history;
	PartitionDesc desc;
	TimestampTz now = GetCurrentTimestamp();
	TransactionId marked_by = InvalidTransactionId;
	List *expired = NIL;

	*marked = InvalidOid;
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return NIL;
	QML_FAULT("cleanup.list");
	history = table_open(relid, NoLock);
	/* Those that are being detached, too. */
	desc = RelationGetPartitionDesc(history, false);
	for (int i = 0; desc->detached_exist && !OidIsValid(*marked) && i < desc->nparts; i++)
	{
		if (is_detaching(relid, desc->oids[i], &marked_by))
			*marked = desc->oids[i];
	}
	for (int i = 0; desc->nparts > 0 && i < desc->boundinfo->ndatums; i++)
	{
		int index = desc->boundinfo->indexes[i];
		ExpiredLeaf *work;

		/* indexes[i] is the partition whose upper bound is datum i. */
		if (index < 0 || qml_history_bound(desc->boundinfo, i) > now)
			continue;
		work = palloc0(sizeof(ExpiredLeaf));
		work->store = store;
		work->history = relid;
		work->leaf = desc->oids[index];
		work->upper = qml_history_bound(desc->boundinfo, i);
		work->marked = *marked;
		work->detaching = work->leaf == *marked;
		work->detached_by = marked_by;
		work->tries = 1;
		expired = lappend(expired, work);
	}
	table_close(history, AccessShareLock);
	return expired;
}

/*
 * The processes that have locked the partition, what is dropped with it, or the history, as
 * text; NULL: none.
 */
static char *
list_users(const ExpiredLeaf *work)
{
	Oid types[] = {OIDOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(work->leaf), ObjectIdGetDatum(work->history)};
	MemoryContext context = CurrentMemoryContext;
	List *pids;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute(
		"SELECT pg_catalog.string_agg(p.pid::text, ', ' ORDER BY p.pid) FROM "
		"(SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l "
		"WHERE l.locktype = 'relation' AND l.granted AND l.relation IN ("
		"WITH t AS (SELECT $1 AS oid UNION ALL SELECT c.reltoastrelid "
		"FROM pg_catalog.pg_class c WHERE c.oid = $1) "
		"SELECT $2 UNION ALL SELECT t.oid FROM t UNION ALL "
		"SELECT i.indexrelid FROM pg_catalog.pg_index i JOIN t ON t.oid = i.indrelid) "
		"AND l.pid <> pg_catalog.pg_backend_pid() AND l.database = "
		"(SELECT d.oid FROM pg_catalog.pg_database d "
		"WHERE d.datname = pg_catalog.current_database()) "
		"ORDER BY l.pid LIMIT 10) p HAVING pg_catalog.count(*) > 0",
		2, types, values, NULL, SPI_OK_SELECT);
	pids = qml_spi_strings(context);
	qml_spi_end(&spi);
	return pids == NIL ? NULL : linitial(pids);
}

/* Tells, not too often, of a partition that is still there long after it has expired. */
static void
tell_of_kept(const ExpiredLeaf *work)
{
	char *name = get_rel_name(work->leaf);
	char *users;

	if (name == NULL || GetCurrentTimestamp() - work->upper < TELL_AFTER ||
		!qml_log_is_due_after(QML_LOG_KEPT_PARTITION, TELL_AFTER / 1000))
		return;
	users = list_users(work);
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("expired partition \"%s.%s\" is in use and was not dropped", QML_SCHEMA, name),
			 users ? errdetail("These processes have locked it, or all of the history: %s.", users) :
					 errdetail("A prepared transaction has locked it, or a transaction with a "
							   "snapshot from before it was taken out of use is still open."),
			 errhint("Its disk space is released when these transactions have ended.")));
}

/*
 * Drops all partitions that are expired as a whole and not in use; returns the number of
 * their rows, and of the partitions.  For callers who wait for the answer.
 */
int64
qml_expiry_drop_all(QmlStoreId store, int *partitions)
{
	Oid marked;
	List *expired = list_expired(store, &marked);
	bool detaching = OidIsValid(marked);
	ExpiredLeaf *kept = NULL;
	int64 rows = 0;
	ListCell *lc;

	/* Counted before the first lock is taken, which stops everybody else. */
	foreach(lc, expired)
	{
		ExpiredLeaf *work = lfirst(lc);
		QmlFailure failure;

		/* One that cannot be read can be dropped all the same. */
		if (qml_subxact_try(count_rows, work, qml_subxact_ends_call, &failure))
			continue;
		ereport(WARNING,
				(errcode(failure.sqlerrcode),
				 errmsg("could not count the rows of an expired partition of \"%s.%s\"", QML_SCHEMA,
						qml_store(store)->names),
				 errdetail("%s.", failure.message)));
	}
	*partitions = 0;
	foreach(lc, expired)
	{
		ExpiredLeaf *work = lfirst(lc);
		LeafEnd end;

		/* From the first drop on, qml.history is locked to the end of the transaction. */
		work->tries = *partitions == 0 ? LOCK_TRIES : 1;
		end = drop_leaf(work);
		if (end == LEAF_DROPPED)
		{
			rows += work->rows;
			(*partitions)++;
			QML_FAULT("cleanup.mid_batch");
		}
		if (end != LEAF_KEPT)
			continue;
		if (kept == NULL)
			kept = work;
		/* The next call can drop it, unless somebody reads it for as long. */
		if (!detaching)
			detaching = qml_partition_try(store, begin_detach, work) && work->end == LEAF_STARTED;
	}
	if (kept)
		tell_of_kept(kept);
	return rows;
}

/*
 * The same in one short step, for the scheduler: drops one partition, or a part of it, or makes
 * it possible that a later call does.  Returns whether there is more to do: at once, or
 * (*waiting) as soon as the readers of a partition have gone.
 */
bool
qml_expiry_step(QmlStoreId store, bool *waiting)
{
	Oid marked;
	List *expired = list_expired(store, &marked);
	List *kept = NIL;
	ListCell *lc;

	*waiting = false;
	foreach(lc, expired)
	{
		ExpiredLeaf *work = lfirst(lc);
		LeafEnd end;

		work->in_pieces = true;
		end = drop_leaf(work);
		if (end == LEAF_DROPPED)
			QML_FAULT("cleanup.mid_batch");
		if (end == LEAF_DROPPED || end == LEAF_STARTED)
			return true;
		if (end == LEAF_KEPT)
			kept = lappend(kept, work);
	}
	if (kept == NIL)
		return false;
	tell_of_kept(linitial(kept));
	*waiting = OidIsValid(marked);
	foreach(lc, kept)
	{
		ExpiredLeaf *work = lfirst(lc);

		/* One that cannot be detached must not hold up the others. */
		*waiting = *waiting ||
				   (qml_partition_try(store, begin_detach, work) && work->end == LEAF_STARTED);
	}
	return *waiting;
}
