/*
 * history.c
 *		Finished jobs: the partition that one goes to, and finding one by its id.
 *
 * qml.history is partitioned by time of expiry.  Maintenance makes partitions ahead of need
 * (partition.c) and drops those that have expired (expiry.c).  Finishing a job makes none, and
 * waits for nothing that has to do with them: a job whose partition is missing, or locked, goes
 * to the table qml.history_overflow, from where it is moved later (overflow.c).  So a job
 * can be finished whatever keeps partitions from being made, and its end takes no longer
 * than an INSERT.
 *
 * Rows past their expires_at do not exist for qml: readers skip them and nothing is
 * moved out of them, so a partition that is expired as a whole can be dropped.
 *
 * Each partition has its own index on id, not a part of one on qml.history: pg_dump
 * writes partitions as ordinary tables, and would write that index too.
 *
 * Jobs of each storage class have a history, an overflow and partitions of their own.
 *
 * Locks: to store, RowExclusiveLock on the partition, tried; to look, AccessShareLock on
 * qml.history, not held, and then the caller's lock on each partition and the overflow.  Who
 * must not wait tries these, and is told if something could not be looked at.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/partcache.h"
#include "utils/rel.h"

#include "common/cache.h"
#include "compat.h"
#include "ipc/wakeup.h"
#include "jobs/history.h"
#include "model/catalog.h"
#include "model/shape.h"

/* The partition, or the gap, that was needed last; most jobs finish into the same one. */
typedef struct LastLeaf
{
	QmlLeaf leaf;
	bool known;
} LastLeaf;

static LastLeaf last_leaves[QML_STORES];

/* A relation changed; InvalidOid stands for all of them. */
static void
forget_leaf(Oid relid)
{
	for (int i = 0; i < QML_STORES; i++)
	{
		LastLeaf *last = &last_leaves[i];

		/* New partitions do not change old ones, but they fill gaps. */
		if (relid == InvalidOid || relid == last->leaf.leaf || !OidIsValid(last->leaf.leaf))
			last->known = false;
	}
}

/* Called once a process, when the library is loaded. */
void
qml_history_init(void)
{
	qml_cache_listen(forget_leaf);
}

/* The bound that is datum `offset`; before the first and after the last: infinity. */
TimestampTz
qml_history_bound(PartitionBoundInfo bounds, int offset)
{
	if (offset < 0)
		return DT_NOBEGIN;
	if (offset >= bounds->ndatums)
		return DT_NOEND;
	switch (bounds->kind[offset][0])
	{
		case PARTITION_RANGE_DATUM_MINVALUE:
			return DT_NOBEGIN;
		case PARTITION_RANGE_DATUM_MAXVALUE:
			return DT_NOEND;
		default:
			return DatumGetTimestampTz(bounds->datums[offset][0]);
	}
}

/*
 * The partition that a time falls into, or the gap between two; *leaf.  Unless wait: false
 * if somebody has locked the history.
 */
bool
qml_history_find_leaf(QmlStoreId store, TimestampTz at, bool wait, QmlLeaf *leaf)
{
	Oid relid = qml_store(store)->history;
	Relation history;
	PartitionKey key;
	PartitionDesc desc;
	QmlLeaf found = {InvalidOid, DT_NOBEGIN, DT_NOEND};

	if (!wait && !ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	history = table_open(relid, wait ? AccessShareLock : NoLock);
	key = RelationGetPartitionKey(history);
	desc = RelationGetPartitionDesc(history, true);
	if (desc->nparts > 0)
	{
		Datum value = TimestampTzGetDatum(at);
		bool equal;
		int offset = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
												   desc->boundinfo, 1, &value, &equal);
		int index = desc->boundinfo->indexes[offset + 1];

		if (index >= 0)
			found.leaf = desc->oids[index];
		found.lower = qml_history_bound(desc->boundinfo, offset);
		found.upper = qml_history_bound(desc->boundinfo, offset + 1);
	}
	/* Not held to the end, so that dropping an expired partition finds it free. */
	table_close(history, AccessShareLock);
	Assert(!OidIsValid(found.leaf) || (found.lower <= at && at < found.upper));
	*leaf = found;
	return true;
}

/* Locks a partition to store rows in it; false if it is gone, or that would have to wait. */
static bool
lock_to_store(Oid leaf)
{
	Relation rel;
	bool fits;

	if (!ConditionalLockRelationOid(leaf, RowExclusiveLock))
		return false;
	rel = try_table_open(leaf, NoLock);
	/* It may have been dropped or detached before it was locked. */
	fits = rel && rel->rd_rel->relispartition;
	if (rel)
		table_close(rel, NoLock);
	if (!fits)
		UnlockRelationOid(leaf, RowExclusiveLock);
	return fits;
}

/*
 * The partition for rows that expire then, locked to store them; InvalidOid if there is
 * none that takes them at once.  held: one that the caller has locked already.
 */
Oid
qml_history_partition_for(QmlStoreId store, TimestampTz expires_at, Oid held)
{
	LastLeaf *last = &last_leaves[store];

	if (!last->known || expires_at < last->leaf.lower || expires_at >= last->leaf.upper)
	{
		QmlLeaf leaf;

		last->known = false;
		if (!qml_history_find_leaf(store, expires_at, false, &leaf))
			return InvalidOid;
		/* Before it is used: locking it may bring news of it. */
		last->leaf = leaf;
		last->known = true;
	}
	if (!OidIsValid(last->leaf.leaf) || last->leaf.leaf == held)
		return last->leaf.leaf;
	held = last->leaf.leaf;
	return lock_to_store(held) ? held : InvalidOid;
}

/*
 * The same for a finished job, which otherwise goes to the overflow, for which the
 * scheduler is told to look: once a second is enough.
 */
Oid
qml_history_place_for(QmlStoreId store, TimestampTz expires_at, Oid held)
{
	static TimestampTz told = 0;
	Oid leaf = qml_history_partition_for(store, expires_at, held);
	TimestampTz now;

	if (OidIsValid(leaf))
		return leaf;
	now = GetCurrentTimestamp();
	if (now - told >= USECS_PER_SEC || now < told)
	{
		qml_wakeup_at(QML_WAKE_HISTORY, now);
		told = now;
	}
	return qml_store(store)->overflow;
}

/*
 * Opens the partition's btree index on id.  Unless wait: NULL if an index of it is locked
 * against readers, and no other is the one.
 */
static Relation
open_id_index(QmlStoreId store, Relation leaf, bool wait)
{
	bool locked;
	Relation index = qml_shape_open_index(leaf, QML_INDEX_LEAF_ID, wait, &locked);

	if (index != NULL)
		return index;
	if (locked)
		return NULL;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("partition \"%s.%s\" has no index on column \"id\"", QML_SCHEMA,
					RelationGetRelationName(leaf)),
			 errhint("Create one: each partition of \"%s.%s\" needs a btree index.", QML_SCHEMA,
					 qml_store(store)->names)));
}

/* The same, which waits; the caller closes it. */
Relation
qml_history_open_index(QmlStoreId store, Relation leaf)
{
	return open_id_index(store, leaf, true);
}

/*
 * An id may be there more than once, but unexpired only once.  The lock on the index is
 * not kept: dropping the partition must not have to wait for it.  looked: NULL to wait for
 * that lock; otherwise it becomes false if the index is locked.
 */
static bool
find_in_leaf(QmlStoreId store, QmlTable *leaf, const pg_uuid_t *id, Snapshot snapshot, bool *looked,
			 QmlJob *job)
{
	Relation index = open_id_index(store, leaf->rel, looked == NULL);
	IndexScanDesc scan;
	TimestampTz now = GetCurrentTimestamp();
	ScanKeyData key;
	bool found = false;

	if (index == NULL)
	{
		*looked = false;
		return false;
	}
	scan = qml_index_beginscan(leaf->rel, index, snapshot, 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(scan, &key, 1, NULL, 0);
	while (!found && index_getnext_slot(scan, ForwardScanDirection, leaf->slot))
	{
		qml_job_from_history(leaf->slot, job);
		found = job->expires_at > now;
	}
	index_endscan(scan);
	index_close(index, AccessShareLock);
	return found;
}

/* The partitions there are; how many. */
int
qml_history_list(QmlStoreId store, Oid **oids)
{
	Relation history = table_open(qml_store(store)->history, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(history, true);
	int nparts = desc->nparts;

	*oids = palloc(sizeof(Oid) * (nparts + 1));
	if (nparts > 0)
		memcpy(*oids, desc->oids, sizeof(Oid) * nparts);
	table_close(history, AccessShareLock);
	return nparts;
}

/*
 * Where a job can be that has not expired; how many.  The restore of a dump may bring back, as
 * an ordinary partition without indexes, one that was being dropped.
 */
int
qml_history_places(QmlStoreId store, Oid **oids)
{
	Relation history = table_open(qml_store(store)->history, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(history, true);
	TimestampTz now = GetCurrentTimestamp();
	int count = 0;

	*oids = palloc(sizeof(Oid) * (desc->nparts + 1));
	for (int i = 0; desc->nparts > 0 && i < desc->boundinfo->ndatums; i++)
	{
		/* indexes[i] is the partition whose upper bound is datum i. */
		int index = desc->boundinfo->indexes[i];

		if (index >= 0 && qml_history_bound(desc->boundinfo, i) > now)
			(*oids)[count++] = desc->oids[index];
	}
	if (desc->nparts > 0 && partition_bound_has_default(desc->boundinfo))
		(*oids)[count++] = desc->oids[desc->boundinfo->default_index];
	Assert(count <= desc->nparts);
	table_close(history, AccessShareLock);
	(*oids)[count++] = qml_store(store)->overflow;
	return count;
}

/*
 * Finds an unexpired job, in a partition or in the overflow.  True: leaf is open, locked in
 * lockmode, and its slot holds the row; the caller closes it.
 */
bool
qml_history_find(QmlStoreId store, const pg_uuid_t *id, Snapshot snapshot, LOCKMODE lockmode,
				 QmlTable *leaf, QmlJob *job)
{
	Oid *oids;
	int count = qml_history_places(store, &oids);

	Assert(lockmode == AccessShareLock || lockmode == RowExclusiveLock);
	for (int i = 0; i < count; i++)
	{
		if (!qml_table_try_open(leaf, oids[i], lockmode))
			continue;
		if (find_in_leaf(store, leaf, id, snapshot, NULL, job))
			return true;
		qml_table_close(leaf);
		UnlockRelationOid(oids[i], lockmode);
	}
	return false;
}

/*
 * The same to read the job, without waiting for a lock.  *looked: false if it was not found,
 * but something was locked and could not be looked at.
 */
bool
qml_history_try_find(QmlStoreId store, const pg_uuid_t *id, Snapshot snapshot, QmlTable *leaf,
					 QmlJob *job, bool *looked)
{
	Oid history = qml_store(store)->history;
	Oid *oids;
	int count;

	*looked = false;
	if (!ConditionalLockRelationOid(history, AccessShareLock))
		return false;
	count = qml_history_places(store, &oids);
	UnlockRelationOid(history, AccessShareLock);
	*looked = true;
	for (int i = 0; i < count; i++)
	{
		if (!ConditionalLockRelationOid(oids[i], AccessShareLock))
		{
			*looked = false;
			continue;
		}
		/* Held already: this does not wait. */
		if (qml_table_try_open(leaf, oids[i], AccessShareLock))
		{
			UnlockRelationOid(oids[i], AccessShareLock);
			if (find_in_leaf(store, leaf, id, snapshot, looked, job))
				return true;
			qml_table_close(leaf);
		}
		UnlockRelationOid(oids[i], AccessShareLock);
	}
	return false;
}
