/*
 * shrink.c
 *		Releasing the disk space of a large table piece by piece, before it is dropped.
 *
 * A table is dropped in one go, and freeing gigabytes takes the file system seconds.  A
 * process that has other work to do takes a large table apart first: each step, in a
 * transaction of its own, cuts PIECE bytes off the end.  When no more than that is left, the
 * table can be dropped quickly.
 *
 * The caller holds AccessExclusiveLock on the table and on all that is stored with it
 * (qml_shrink_lock), and knows that nobody has to read it any more.  Between two steps others
 * may do that all the same, or vacuum it: so its indexes are marked as dead first, as DROP INDEX
 * CONCURRENTLY does before it drops one.  Nobody opens them then, and a look at the table shows
 * the rows that are left, with all their values.  Rows go first, then the values in the TOAST
 * table, of which no row is left, then indexes.
 *
 * The index of the TOAST table stays as it is to the end: rows that are left need it, and
 * pg_upgrade looks for it even when no row is left.  Who vacuums the TOAST table reads it, so it
 * is not cut.  It is about a hundredth of the size of the values, and goes with the table.
 *
 * Truncating is not undone by a rollback.  The mark is committed before anything is cut off,
 * because the step that sets it does nothing else.  After a crash at any point the table is
 * marked or not, and as long as it was after the last step: the next one goes on there.  On
 * standbys a step meets the same readers as the drop would, as a conflict of locks.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/storage.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "common/fault.h"
#include "common/shrink.h"

/* So much is cut off at once: tens of milliseconds. */
#define PIECE_MB	 QML_FAULT_LIMIT("shrink.piece_mb", 128)
#define PIECE_BLOCKS ((BlockNumber) (PIECE_MB * (1024 * 1024 / BLCKSZ)))

/* A table, its TOAST table, or an index. */
typedef struct Part
{
	Oid oid;
	bool is_index;
	bool is_live; /* of an index: it is used and kept up to date */
} Part;

/* Appends the indexes of a table, also those that are dead. */
static List *
add_indexes(List *parts, Oid relid)
{
	Relation pg_index = table_open(IndexRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_index_indrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(pg_index, IndexIndrelidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);
		Part *part = palloc(sizeof(Part));

		*part = (Part){.oid = index->indexrelid, .is_index = true, .is_live = index->indislive};
		parts = lappend(parts, part);
	}
	systable_endscan(scan);
	table_close(pg_index, AccessShareLock);
	return parts;
}

static List *
add_table(List *parts, Oid relid)
{
	Part *part = palloc(sizeof(Part));

	*part = (Part){.oid = relid};
	return lappend(parts, part);
}

static bool
try_lock(Oid oid, List **locked)
{
	if (!ConditionalLockRelationOid(oid, AccessExclusiveLock))
		return false;
	*locked = lappend_oid(*locked, oid);
	return true;
}

static bool
lock_indexes(Oid relid, List **locked)
{
	List *indexes = add_indexes(NIL, relid);
	ListCell *lc;

	foreach(lc, indexes)
	{
		const Part *index = lfirst(lc);

		if (!try_lock(index->oid, locked))
			return false;
	}
	return true;
}

/* What a locked table has; each list is looked up when nobody can change it any more. */
static bool
lock_parts(Oid relid, List **locked)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	List *children;
	Oid toast;
	char kind;
	ListCell *lc;

	/* Somebody dropped it before it was locked. */
	if (!HeapTupleIsValid(tuple))
		return true;
	toast = ((Form_pg_class) GETSTRUCT(tuple))->reltoastrelid;
	kind = ((Form_pg_class) GETSTRUCT(tuple))->relkind;
	ReleaseSysCache(tuple);
	if (OidIsValid(toast) && (!try_lock(toast, locked) || !lock_indexes(toast, locked)))
		return false;
	if (!lock_indexes(relid, locked))
		return false;
	if (kind != RELKIND_PARTITIONED_TABLE)
		return true;
	children = find_inheritance_children_extended(relid, false, NoLock, NULL, NULL);
	foreach(lc, children)
	{
		if (!try_lock(lfirst_oid(lc), locked) || !lock_parts(lfirst_oid(lc), locked))
			return false;
	}
	return true;
}

/*
 * Locks what is dropped with a table, which is locked: its TOAST table, indexes, and partitions
 * below it.  False: something is in use, and nothing is locked.  Without this the drop would
 * queue up for each of them, with the table locked.
 */
bool
qml_shrink_lock(Oid relid, List **locked)
{
	*locked = NIL;
	if (lock_parts(relid, locked))
		return true;
	qml_shrink_unlock(*locked);
	*locked = NIL;
	return false;
}

void
qml_shrink_unlock(List *locked)
{
	ListCell *lc;

	foreach(lc, locked)
		UnlockRelationOid(lfirst_oid(lc), AccessExclusiveLock);
}

/*
 * What is cut, in that order; NIL if the table is not stored in the way that this file knows,
 * as one may be that somebody has attached.
 */
static List *
list_parts(Oid relid)
{
	Relation rel = table_open(relid, NoLock);
	Oid toast = rel->rd_rel->reltoastrelid;
	bool known = rel->rd_rel->relkind == RELKIND_RELATION &&
				 rel->rd_tableam == GetHeapamTableAmRoutine();
	List *parts = NIL;

	Assert(CheckRelationLockedByMe(rel, AccessExclusiveLock, false));
	table_close(rel, NoLock);
	if (!known)
		return NIL;
	parts = add_table(parts, relid);
	if (OidIsValid(toast))
		parts = add_table(parts, toast);
	return add_indexes(parts, relid);
}

static BlockNumber
count_blocks(const Part *part)
{
	Relation rel = relation_open(part->oid, NoLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	Assert(CheckRelationLockedByMe(rel, AccessExclusiveLock, false));
	relation_close(rel, NoLock);
	return blocks;
}

static bool
are_large(List *parts)
{
	uint64 blocks = 0;
	ListCell *lc;

	foreach(lc, parts)
		blocks += count_blocks(lfirst(lc));
	return blocks > PIECE_BLOCKS;
}

/* Whether the table has so much disk space that it is better released in steps. */
bool
qml_shrink_is_large(Oid relid)
{
	return are_large(list_parts(relid));
}

/* Takes the indexes out of use; false: they were, before this transaction. */
static bool
mark_indexes(Oid relid, List *parts)
{
	bool marked = false;
	ListCell *lc;

	foreach(lc, parts)
	{
		const Part *part = lfirst(lc);

		if (!part->is_index || !part->is_live)
			continue;
		/* Two steps, because the second one asks for the first. */
		index_set_state_flags(part->oid, INDEX_DROP_CLEAR_VALID);
		CommandCounterIncrement();
		index_set_state_flags(part->oid, INDEX_DROP_SET_DEAD);
		CommandCounterIncrement();
		CacheInvalidateRelcacheByRelid(IndexGetRelation(part->oid, false));
		marked = true;
	}
	return marked;
}

/* Cuts a piece off the end of a part; false: it has nothing. */
static bool
truncate_part(const Part *part)
{
	Relation rel = relation_open(part->oid, NoLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	Assert(CheckRelationLockedByMe(rel, AccessExclusiveLock, false));
	Assert(!part->is_index || !part->is_live);
	if (blocks > 0)
	{
		QML_FAULT("shrink.before_piece");
		RelationTruncate(rel, blocks > PIECE_BLOCKS ? blocks - PIECE_BLOCKS : 0);
	}
	relation_close(rel, NoLock);
	return blocks > 0;
}

/*
 * One step, which the caller commits.  False: no more than a piece is left, and the table can
 * be dropped.
 */
bool
qml_shrink_step(Oid relid)
{
	List *parts = list_parts(relid);
	ListCell *lc;

	if (!are_large(parts))
		return false;
	if (mark_indexes(relid, parts))
	{
		QML_FAULT("shrink.after_mark");
		return true;
	}
	foreach(lc, parts)
	{
		if (truncate_part(lfirst(lc)))
		{
			QML_FAULT("shrink.after_piece");
			return true;
		}
	}
	return false;
}
