/*
 * history.c
 *		Finished jobs, in partitions by time of expiry.
 *
 * A partition covers a day of expires_at, or thirty days where that lies more
 * than 45 days ahead; days begin at midnight UTC.  Neighbours never overlap: a
 * new partition is cut to the gap it is made for.  Partitions are made ahead of need by
 * maintenance and by functions that create or alter a queue.  A transaction that
 * finishes a job and finds none makes it then, as the owner of the tables.
 *
 * Locks: qml.history before the partition.  Making one takes ShareUpdateExclusiveLock on
 * qml.history, which stops neither readers nor writers.  Dropping an expired one needs
 * AccessExclusiveLock on both; each is tried for a tenth of a second, never queued for,
 * because everybody else would queue up behind it.
 *
 * Rows past their expires_at do not exist for qml: readers skip them and nothing is
 * moved out of them, so a partition that is expired as a whole can be dropped.
 *
 * Each partition has its own index on id, not a part of one on qml.history: pg_dump
 * writes partitions as ordinary tables, and would write that index too.
 *
 * Partitions are made and dropped in the caller's transaction.  A crash before its commit
 * leaves all of them as they were, and the next call does it again.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/default_acl.h"
#include "common/fault.h"
#include "common/spi.h"
#include "common/subxact.h"
#include "compat.h"
#include "jobs/history.h"
#include "model/catalog.h"
#include "model/queue.h"

#define NEAR_WIDTH	 USECS_PER_DAY
#define FAR_WIDTH	 (30 * USECS_PER_DAY)
#define FAR_DISTANCE (45 * USECS_PER_DAY)

/* How far beyond the need of today maintenance makes partitions. */
#define AHEAD_DAYS 2

/* How long an expired partition that is in use is tried for. */
#define LOCK_TRIES	  20
#define LOCK_PAUSE_MS 5

/* A partition and its bounds; leaf is InvalidOid if there is none between the bounds. */
typedef struct Leaf
{
	Oid leaf;
	TimestampTz lower;
	TimestampTz upper;
} Leaf;

/* The partition that was needed last; most jobs finish into the same one. */
static Leaf last_leaf;

/* Relcache callback. */
static void
forget_leaf(Datum arg, Oid relid)
{
	/* New partitions do not change old ones: only its own removal matters. */
	if (relid == InvalidOid || relid == last_leaf.leaf)
		last_leaf.leaf = InvalidOid;
}

/* Called once a process, when the library is loaded. */
void
qml_history_init(void)
{
	CacheRegisterRelcacheCallback(forget_leaf, (Datum) 0);
}

/* The bound that is datum `offset`; before the first and after the last: infinity. */
static TimestampTz
bound_at(PartitionBoundInfo bounds, int offset)
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

/* The partition that a time falls into, or the gap between two. */
static Leaf
find_leaf(TimestampTz at)
{
	Relation history = table_open(qml_catalog()->history, AccessShareLock);
	PartitionKey key = RelationGetPartitionKey(history);
	PartitionDesc desc = RelationGetPartitionDesc(history, true);
	Leaf found = {InvalidOid, DT_NOBEGIN, DT_NOEND};

	if (desc->nparts > 0)
	{
		Datum value = TimestampTzGetDatum(at);
		bool equal;
		int offset = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
												   desc->boundinfo, 1, &value, &equal);
		int index = desc->boundinfo->indexes[offset + 1];

		if (index >= 0)
			found.leaf = desc->oids[index];
		found.lower = bound_at(desc->boundinfo, offset);
		found.upper = bound_at(desc->boundinfo, offset + 1);
	}
	/* Not held to the end, so that dropping an expired partition finds it free. */
	table_close(history, AccessShareLock);
	Assert(!OidIsValid(found.leaf) || (found.lower <= at && at < found.upper));
	return found;
}

/* A time as a literal that means the same in every session. */
static char *
format_bound(TimestampTz time)
{
	struct pg_tm tm;
	fsec_t fsec;

	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return psprintf("%04d-%02d-%02d %02d:%02d:%02d.%06d+00", tm.tm_year, tm.tm_mon, tm.tm_mday,
					tm.tm_hour, tm.tm_min, tm.tm_sec, (int) fsec);
}

/* A name by the day of the lower bound that nothing in the schema has. */
static char *
choose_name(const char *lower)
{
	Oid schema = qml_catalog()->schema;
	char *base = psprintf("history_p%.4s%.2s%.2s", lower, lower + 5, lower + 8);
	char *name = base;

	for (int i = 2; OidIsValid(get_relname_relid(name, schema)) ||
					OidIsValid(get_relname_relid(psprintf("%s_id", name), schema));
		 i++)
		name = psprintf("%s_%d", base, i);
	return name;
}

/*
 * A query over qml.history that is open in this session keeps it from being
 * altered; PostgreSQL's own message would not say what to do.
 */
static void
check_not_in_use(void)
{
	Relation history = table_open(qml_catalog()->history, NoLock);
	bool in_use = history->rd_refcnt > 1;

	Assert(CheckRelationLockedByMe(history, ShareUpdateExclusiveLock, true));
	table_close(history, NoLock);
	if (in_use)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot make a partition of \"%s.history\" while a query over it is open "
						"in this session",
						QML_SCHEMA),
				 errhint("Call qml_cleanup() first: it makes partitions ahead of need.")));
}

/* The caller holds the lock on qml.history that keeps others from making one. */
static void
create_leaf(TimestampTz lower, TimestampTz upper)
{
	char *from = format_bound(lower);
	char *to = format_bound(upper);
	char *name = choose_name(from);
	QmlSpi spi;

	Assert(lower < upper);
	check_not_in_use();
	qml_spi_begin(&spi, qml_catalog()->owner);
	/* Rows are added once and go with the partition: nothing to vacuum but for age. */
	(void) qml_spi_execute(psprintf("CREATE TABLE qml.%s (LIKE qml.history INCLUDING COMMENTS) "
									"WITH (autovacuum_vacuum_insert_threshold = -1)",
									name),
						   0, NULL, NULL, NULL, SPI_OK_UTILITY);
	qml_default_acl_close_table(get_relname_relid(name, qml_catalog()->schema));
	(void) qml_spi_execute(psprintf("CREATE INDEX %s_id ON qml.%s (id)", name, name), 0, NULL, NULL,
						   NULL, SPI_OK_UTILITY);
	(void) qml_spi_execute(psprintf("ALTER TABLE qml.history ATTACH PARTITION qml.%s "
									"FOR VALUES FROM ('%s') TO ('%s')",
									name, from, to),
						   0, NULL, NULL, NULL, SPI_OK_UTILITY);
	(void) qml_spi_execute(psprintf("COMMENT ON TABLE qml.%s IS 'finished jobs that expire from "
									"%s to %s'",
									name, from, to),
						   0, NULL, NULL, NULL, SPI_OK_UTILITY);
	(void) qml_spi_execute(psprintf("COMMENT ON INDEX qml.%s_id IS 'finds a finished job by id'",
									name),
						   0, NULL, NULL, NULL, SPI_OK_UTILITY);
	qml_spi_end(&spi);
	CommandCounterIncrement();
}

/*
 * Makes the partition for a time unless it is there; true if it was made.  If others are
 * making one, waits for them or leaves it to them.
 */
static bool
make_leaf(TimestampTz at, bool wait)
{
	Oid history = qml_catalog()->history;
	int64 width = at - GetCurrentTimestamp() > FAR_DISTANCE ? FAR_WIDTH : NEAR_WIDTH;
	TimestampTz lower = at - at % width;
	Leaf gap = find_leaf(at);

	if (OidIsValid(gap.leaf))
		return false;
	if (wait)
		LockRelationOid(history, ShareUpdateExclusiveLock);
	else if (!ConditionalLockRelationOid(history, ShareUpdateExclusiveLock))
		return false;
	/* Somebody else may have made it while this one waited. */
	gap = find_leaf(at);
	if (OidIsValid(gap.leaf))
		return false;
	create_leaf(Max(lower, gap.lower), Min(lower + width, gap.upper));
	return true;
}

/*
 * The partition that takes rows which expire then; made when missing.  A waiting lock on
 * qml.history is taken only then.
 */
Oid
qml_history_leaf_for(TimestampTz expires_at)
{
	if (!OidIsValid(last_leaf.leaf) || expires_at < last_leaf.lower ||
		expires_at >= last_leaf.upper)
	{
		Leaf leaf = find_leaf(expires_at);

		if (!OidIsValid(leaf.leaf))
		{
			(void) make_leaf(expires_at, true);
			leaf = find_leaf(expires_at);
		}
		last_leaf = leaf;
	}
	Assert(OidIsValid(last_leaf.leaf));
	return last_leaf.leaf;
}

/* The partition's index on id. */
static Oid
find_id_index(Relation leaf)
{
	List *indexes = RelationGetIndexList(leaf);
	ListCell *lc;

	foreach(lc, indexes)
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);
		bool fits = index->rd_index->indkey.values[0] == LIVE_ID && index->rd_index->indisvalid &&
					RelationGetIndexPredicate(index) == NIL;

		index_close(index, AccessShareLock);
		if (fits)
			return lfirst_oid(lc);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("partition \"%s.%s\" has no index on column \"id\"", QML_SCHEMA,
					RelationGetRelationName(leaf)),
			 errhint("Create one: each partition of \"%s.history\" needs it.", QML_SCHEMA)));
}

/*
 * An id may be there more than once, but unexpired only once.  The lock on the index is
 * not kept: dropping the partition must not have to wait for it.
 */
static bool
find_in_leaf(QmlTable *leaf, const pg_uuid_t *id, Snapshot snapshot, QmlJob *job)
{
	Relation index = index_open(find_id_index(leaf->rel), AccessShareLock);
	IndexScanDesc scan = qml_index_beginscan(leaf->rel, index, snapshot, 1);
	TimestampTz now = GetCurrentTimestamp();
	ScanKeyData key;
	bool found = false;

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
static int
list_leaves(Oid **oids)
{
	Relation history = table_open(qml_catalog()->history, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(history, true);
	int nparts = desc->nparts;

	*oids = palloc(sizeof(Oid) * (nparts + 1));
	if (nparts > 0)
		memcpy(*oids, desc->oids, sizeof(Oid) * nparts);
	table_close(history, AccessShareLock);
	return nparts;
}

/*
 * Finds an unexpired job.  True: leaf is open, locked in lockmode, and its slot
 * holds the row; the caller closes it.
 */
bool
qml_history_find(const pg_uuid_t *id, Snapshot snapshot, LOCKMODE lockmode, QmlTable *leaf,
				 QmlJob *job)
{
	Oid *oids;
	int nparts = list_leaves(&oids);

	Assert(lockmode == AccessShareLock || lockmode == RowExclusiveLock);
	for (int i = 0; i < nparts; i++)
	{
		if (!qml_table_try_open(leaf, oids[i], lockmode))
			continue;
		if (find_in_leaf(leaf, id, snapshot, job))
			return true;
		qml_table_close(leaf);
		UnlockRelationOid(oids[i], lockmode);
	}
	return false;
}

/* What maintenance does to one partition. */
typedef struct PartitionWork
{
	TimestampTz at; /* a time to make one for */
	Oid leaf;		/* the one to drop */
	int64 rows;		/* of that */
	bool done;
} PartitionWork;

/*
 * Makes or drops a partition in a subtransaction.  One that cannot be made or dropped (a
 * view depends on it, an event trigger forbids it) must not stop the rest: that is
 * undone, and reported in a warning.
 */
static bool
run_partition_work(void (*run)(void *arg), PartitionWork *work)
{
	QmlFailure failure;

	work->done = false;
	if (qml_subxact_run(run, work, &failure))
		return work->done;
	ereport(WARNING,
			(errcode(failure.sqlerrcode),
			 errmsg("could not make or drop a partition of \"%s.history\"", QML_SCHEMA),
			 errdetail("%s", failure.message),
			 failure.hint ? errhint("%s", failure.hint) : 0));
	return false;
}

/* Work of qml_subxact_run(); leaves it to others who are making one. */
static void
make_leaf_ahead(void *arg)
{
	PartitionWork *work = arg;

	work->done = make_leaf(work->at, false);
}

/*
 * Makes the partitions that will be needed soon and that nobody else is making; returns
 * how many.
 */
int
qml_history_make_ahead(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int made = 0;
	ListCell *lc;

	foreach(lc, qml_queue_ttls())
	{
		int64 ttl = *(int64 *) lfirst(lc);

		if (ttl == 0)
			continue;
		for (int day = 0; day <= AHEAD_DAYS; day++)
		{
			PartitionWork work = {.at = now + ttl + day * USECS_PER_DAY};

			if (!OidIsValid(find_leaf(work.at).leaf) && run_partition_work(make_leaf_ahead, &work))
				made++;
		}
	}
	return made;
}

/* The number of rows of a partition, estimated where counting would take long. */
static int64
count_rows(Oid leaf)
{
	Relation rel = try_table_open(leaf, AccessShareLock);
	TupleTableSlot *slot;
	TableScanDesc scan;
	Snapshot snapshot;
	int64 rows = 0;

	if (rel == NULL)
		return 0;
	/* A gigabyte; past that the statistics will do. */
	if (RelationGetNumberOfBlocks(rel) > 131072 && rel->rd_rel->reltuples >= 0)
	{
		rows = (int64) rel->rd_rel->reltuples;
		table_close(rel, AccessShareLock);
		return rows;
	}
	slot = table_slot_create(rel, NULL);
	snapshot = qml_table_snapshot();
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		rows++;
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return rows;
}

/*
 * Takes AccessExclusiveLock if it is free, or becomes free in a moment: tried
 * again and again, never queued for, so that nobody has to wait behind this.
 */
static bool
lock_if_free(Oid relid)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = qml_wait_event("QmlPartitionLock");
	for (int i = 0; i < LOCK_TRIES; i++)
	{
		if (ConditionalLockRelationOid(relid, AccessExclusiveLock))
			return true;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOCK_PAUSE_MS,
						 wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/* Drops one partition if nobody is using it. */
static void
drop_leaf(void *arg)
{
	PartitionWork *work = arg;
	Oid history = qml_catalog()->history;
	ObjectAddress object;

	if (!lock_if_free(history))
		return;
	if (!lock_if_free(work->leaf))
	{
		UnlockRelationOid(history, AccessExclusiveLock);
		return;
	}
	/* The locks let invalidations in: somebody else may have dropped or detached it. */
	if (!get_rel_relispartition(work->leaf) || get_partition_parent(work->leaf, true) != history)
	{
		UnlockRelationOid(work->leaf, AccessExclusiveLock);
		UnlockRelationOid(history, AccessExclusiveLock);
		return;
	}

	ObjectAddressSet(object, RelationRelationId, work->leaf);
	performDeletion(&object, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	CommandCounterIncrement();
	work->done = true;
}

/* Partitions that ended before now, in the order of time. */
static List *
expired_leaves(void)
{
	Relation history = table_open(qml_catalog()->history, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(history, true);
	TimestampTz now = GetCurrentTimestamp();
	List *expired = NIL;

	for (int i = 0; desc->nparts > 0 && i < desc->boundinfo->ndatums; i++)
	{
		int index = desc->boundinfo->indexes[i];

		/* indexes[i] is the partition whose upper bound is datum i. */
		if (index >= 0 && bound_at(desc->boundinfo, i) <= now)
			expired = lappend_oid(expired, desc->oids[index]);
	}
	table_close(history, AccessShareLock);
	return expired;
}

/*
 * Drops all partitions that are expired as a whole and not in use; returns the number of
 * their rows, and of the partitions.
 */
int64
qml_history_expire(int *partitions)
{
	List *leaves = expired_leaves();
	int nleaves = list_length(leaves);
	PartitionWork *works = palloc0(sizeof(PartitionWork) * Max(nleaves, 1));
	int64 rows = 0;

	/* Counted before the first lock is taken, which stops everybody else. */
	for (int i = 0; i < nleaves; i++)
	{
		works[i].leaf = list_nth_oid(leaves, i);
		works[i].rows = count_rows(works[i].leaf);
	}
	*partitions = 0;
	for (int i = 0; i < nleaves; i++)
	{
		if (!run_partition_work(drop_leaf, &works[i]))
			continue;
		rows += works[i].rows;
		(*partitions)++;
		QML_FAULT("cleanup.mid_batch");
	}
	return rows;
}

/*
 * Revokes all privileges of other roles on partitions.  A restore makes them as ordinary
 * tables, to which the default privileges of the new database apply.
 */
void
qml_history_revoke(void)
{
	Oid *oids;
	int nparts = list_leaves(&oids);
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	for (int i = 0; i < nparts; i++)
		qml_default_acl_close_table(oids[i]);
	qml_spi_end(&spi);
}
