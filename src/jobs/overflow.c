/*
 * overflow.c
 *		Finished jobs that no partition took: moved to one later.
 *
 * A job whose partition is missing or locked when it finishes goes to
 * qml.history_overflow, an ordinary table that is read wherever the history is.  Here
 * these rows are moved to their partitions, which are made when they are missing, and
 * those that have expired are deleted.  A row that somebody is changing, or whose partition
 * cannot be made, is locked, or takes no rows (it has a trigger, say), stays and is tried
 * again by the next walk.  Nothing here waits.  Partitions that take no rows now are
 * remembered for one call, so that they are tried once and not for each row.
 *
 * A row that its partition does not take, because an index cannot compute its entry, say, stays
 * too, and hides none behind it (common/row_pass.c).  All of that is told in one warning a
 * call.
 *
 * A row is deleted here and inserted there in one transaction, so every snapshot sees the
 * job in exactly one place, and a crash leaves it where it was.
 *
 * The table is not a default partition of the history: attaching a partition would lock
 * that one exclusively, and wait for everybody who reads the history.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/log.h"
#include "common/row_pass.h"
#include "jobs/history.h"
#include "jobs/overflow.h"
#include "jobs/partition.h"
#include "jobs/pass_failures.h"
#include "model/catalog.h"

/* The partition that rows are being moved to. */
typedef struct Target
{
	QmlStoreId store;
	Oid oid; /* InvalidOid: none is open */
	QmlTable table;
	List *refused; /* of QmlLeaf: no rows can be moved there now */
} Target;

/* One call. */
typedef struct OverflowPass
{
	QmlRowPass rows;
	QmlOverflow *done;
	int max;
	QmlWalk *walk;	 /* NULL: the whole table */
	QmlWalk reached; /* how far it has come */
	QmlTable overflow;
	Snapshot snapshot;
	Target target;
	bool expired; /* the row that has just been read: it is to be deleted */
	QmlPassFailures failures;
} OverflowPass;

static void
close_target(Target *target)
{
	if (OidIsValid(target->oid))
		qml_table_close(&target->table);
	target->oid = InvalidOid;
}

/* Work: an error if a partition, which is locked, cannot be written. */
static void
probe_leaf(void *arg)
{
	QmlTable table;

	qml_table_open(&table, *(Oid *) arg, RowExclusiveLock);
	qml_table_close(&table);
}

/* Locks the indexes of a partition as writing does; false if that would have to wait. */
static bool
try_lock_indexes(Oid leaf)
{
	Relation rel = table_open(leaf, NoLock);
	List *indexes = RelationGetIndexList(rel);
	bool locked = true;
	ListCell *lc;

	foreach(lc, indexes)
		locked = locked && ConditionalLockRelationOid(lfirst_oid(lc), RowExclusiveLock);
	table_close(rel, NoLock);
	return locked;
}

/* Whether a partition can be written now; that it cannot must not stop the others. */
static bool
can_write(QmlStoreId store, Oid leaf)
{
	QmlFailure failure;

	if (qml_subxact_run(probe_leaf, &leaf, &failure))
		return try_lock_indexes(leaf);
	if (MyBackendType != B_BG_WORKER || qml_log_is_due(QML_LOG_OVERFLOW))
		ereport(WARNING,
				(errcode(failure.sqlerrcode),
				 errmsg("could not move finished jobs to a partition of \"%s.%s\"", QML_SCHEMA,
						qml_store(store)->names),
				 errdetail("%s", failure.message),
				 failure.hint ? errhint("%s", failure.hint) : 0));
	return false;
}

/* Whether rows that expire then were refused in this call. */
static bool
is_refused(const Target *target, TimestampTz expires_at)
{
	ListCell *lc;

	foreach(lc, target->refused)
	{
		const QmlLeaf *leaf = lfirst(lc);

		if (leaf->lower <= expires_at && expires_at < leaf->upper)
			return true;
	}
	return false;
}

/* Remembers that rows of the partition, or of the gap, for this time cannot be moved now. */
static void
refuse(Target *target, TimestampTz expires_at)
{
	QmlLeaf *leaf = palloc(sizeof(QmlLeaf));

	if (!qml_history_find_leaf(target->store, expires_at, false, leaf))
	{
		/* All of the history is locked. */
		leaf->lower = DT_NOBEGIN;
		leaf->upper = DT_NOEND;
	}
	target->refused = lappend(target->refused, leaf);
}

/* Opens the partition for rows that expire then; false if there is none that takes them. */
static bool
open_target(Target *target, TimestampTz expires_at, QmlOverflow *done)
{
	Oid leaf;

	if (is_refused(target, expires_at))
		return false;
	leaf = qml_history_partition_for(target->store, expires_at, target->oid);
	/* If one cannot be made, the others cannot either: once is enough. */
	if (!OidIsValid(leaf) && !done->failed)
	{
		done->failed = !qml_partition_make(target->store, expires_at);
		leaf = qml_history_partition_for(target->store, expires_at, target->oid);
	}
	if (OidIsValid(leaf) && leaf == target->oid)
		return true;
	if (!OidIsValid(leaf) || !can_write(target->store, leaf))
	{
		refuse(target, expires_at);
		return false;
	}
	close_target(target);
	qml_table_open(&target->table, leaf, RowExclusiveLock);
	target->oid = leaf;
	return true;
}

/* Inserts the row that the slot holds into the partition. */
static void
copy_row(TupleTableSlot *slot, QmlTable *table)
{
	TupleTableSlot *row = table->row;

	ExecClearTuple(row);
	qml_columns_copy(row, HISTORY_NUMBERED, slot);
	ExecStoreVirtualTuple(row);
	qml_table_insert(table, row);
	ExecClearTuple(row);
}

/*
 * Deletes the row that the slot of the overflow holds, and inserts it into its partition;
 * leaf: NULL if it has expired.  False: somebody else is changing it.
 */
static bool
settle_row(QmlTable *overflow, ItemPointer tid, Snapshot snapshot, QmlTable *leaf)
{
	if (qml_table_delete(overflow, tid, snapshot, false) != TM_Ok)
		return false;
	if (leaf)
		copy_row(overflow->slot, leaf);
	return true;
}

/* QmlRowPass: change. */
static bool
settle_in_pass(void *arg)
{
	OverflowPass *pass = arg;

	return settle_row(&pass->overflow, &pass->overflow.slot->tts_tid, pass->snapshot,
					  pass->expired ? NULL : &pass->target.table);
}

/* QmlRowPass: change_alone. */
static bool
settle_alone(void *arg, ItemPointer tid)
{
	OverflowPass *pass = arg;
	Snapshot snapshot = qml_table_latest_snapshot();
	QmlTable overflow;
	QmlTable leaf;
	bool settled;

	qml_table_open(&overflow, qml_store(pass->target.store)->overflow, RowExclusiveLock);
	if (!pass->expired)
		qml_table_open(&leaf, pass->target.oid, RowExclusiveLock);
	settled = table_tuple_fetch_row_version(overflow.rel, tid, snapshot, overflow.slot) &&
			  settle_row(&overflow, tid, snapshot, pass->expired ? NULL : &leaf);
	if (!pass->expired)
		qml_table_close(&leaf);
	qml_table_close(&overflow);
	UnregisterSnapshot(snapshot);
	return settled;
}

/* QmlRowPass: failed. */
static void
note_failure(void *arg, TupleTableSlot *slot, const QmlFailure *failure)
{
	OverflowPass *pass = arg;

	qml_pass_failures_note(&pass->failures, slot, failure);
}

/* QmlRowPass: walk. */
static void
walk_overflow(void *arg)
{
	OverflowPass *pass = arg;
	QmlOverflow *done = pass->done;
	QmlWalkPiece piece;

	/* What a walk before did was undone, but what it has found out of partitions holds. */
	done->moved = done->expired = 0;
	pass->target.oid = InvalidOid;
	if (pass->walk)
		pass->reached = *pass->walk;
	qml_table_open(&pass->overflow, qml_store(pass->target.store)->overflow, RowExclusiveLock);
	pass->snapshot = qml_table_latest_snapshot();
	qml_walk_open(&piece, pass->walk ? &pass->reached : NULL, &pass->overflow, pass->snapshot);
	while (done->moved + done->expired < pass->max && qml_walk_next_row(&piece))
	{
		bool isnull;
		TimestampTz expires_at = DatumGetTimestampTz(
			slot_getattr(pass->overflow.slot, HISTORY_EXPIRES_AT, &isnull));

		CHECK_FOR_INTERRUPTS();
		pass->expired = expires_at <= GetCurrentTimestamp();
		if (!pass->expired && !open_target(&pass->target, expires_at, done))
			continue;
		if (!qml_row_pass_visit(&pass->rows, pass->overflow.slot))
			continue;
		if (pass->expired)
			done->expired++;
		else
			done->moved++;
	}
	done->more = !qml_walk_close(&piece);
	UnregisterSnapshot(pass->snapshot);
	close_target(&pass->target);
	qml_table_close(&pass->overflow);
}

/* Whether there is nothing to read, as nearly always. */
static bool
is_empty(Oid relid)
{
	Relation rel = table_open(relid, NoLock);
	bool empty = RelationGetNumberOfBlocks(rel) == 0;

	table_close(rel, NoLock);
	return empty;
}

/*
 * Moves or removes up to max rows, in the caller's transaction; walk: in a piece that ends
 * soon, and the next one goes on there (NULL: of the whole table).
 */
void
qml_overflow_empty(QmlStoreId store, int max, QmlWalk *walk, QmlOverflow *done)
{
	Oid relid = qml_store(store)->overflow;
	OverflowPass pass = {.failures = {.context = CurrentMemoryContext},
						 .target = {.store = store},
						 .done = done,
						 .max = max,
						 .walk = walk,
						 .rows = {.walk = walk_overflow,
								  .change = settle_in_pass,
								  .change_alone = settle_alone,
								  .failed = note_failure,
								  .arg = &pass}};

	memset(done, 0, sizeof(*done));
	qml_table_require_write();
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		return;
	if (is_empty(relid))
	{
		if (walk)
			memset(walk, 0, sizeof(*walk));
		return;
	}
	qml_row_pass_run(&pass.rows);
	if (walk)
		*walk = pass.reached;
	if (pass.failures.count > 0 &&
		(MyBackendType != B_BG_WORKER || qml_log_is_due(QML_LOG_OVERFLOW)))
		ereport(WARNING,
				(errcode(pass.failures.first.sqlerrcode),
				 errmsg("could not move finished jobs to a partition of \"%s.%s\"", QML_SCHEMA,
						qml_store(store)->names),
				 qml_pass_failures_detail(&pass.failures,
										  psprintf("%d of the jobs stay for now.  ", pass.failures.count))));
}
