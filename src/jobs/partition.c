/*
 * partition.c
 *		Partitions of the history: made ahead of need, and kept in order.
 *
 * A partition covers a day of expires_at, or thirty days where that lies more
 * than 45 days ahead; days begin at midnight UTC.  Neighbours never overlap: a
 * new partition is cut to the gap it is made for.  Partitions are made by maintenance and
 * by functions that create or alter a queue, never by those that finish jobs.  How they end is
 * in expiry.c.
 *
 * Locks are tried here, never queued for, because everybody else would queue up behind.
 * Making a partition takes ShareUpdateExclusiveLock on the history, which stops neither
 * readers nor writers.
 *
 * What cannot be done to one partition is undone alone, told in a WARNING, and tried again by
 * the next call.  Everything happens in the caller's transaction: a crash before its commit
 * leaves the partitions as they were.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "common/default_acl.h"
#include "common/log.h"
#include "common/spi.h"
#include "common/subxact.h"
#include "jobs/history.h"
#include "jobs/partition.h"
#include "model/catalog.h"

#define NEAR_WIDTH	 USECS_PER_DAY
#define FAR_WIDTH	 (30 * USECS_PER_DAY)
#define FAR_DISTANCE (45 * USECS_PER_DAY)

/* How far beyond the need of today maintenance makes partitions. */
#define AHEAD_DAYS 2

/* What is done to one partition, in a subtransaction. */
typedef struct PartitionWork
{
	QmlStoreId store;
	TimestampTz at; /* a time to make one for */
	Oid leaf;		/* one that is there */
	bool done;
} PartitionWork;

/*
 * Works on a partition in a subtransaction.  One that cannot be made, altered or dropped (a
 * view depends on it, an event trigger forbids it, the disk is full) must not stop the rest:
 * that is undone, and reported in a warning: by background processes not at every try.
 * False: so it was.
 */
bool
qml_partition_try(QmlStoreId store, void (*run)(void *arg), void *work)
{
	QmlFailure failure;

	if (qml_subxact_try(run, work, qml_subxact_ends_call, &failure))
		return true;
	if (MyBackendType == B_BG_WORKER && !qml_log_is_due(QML_LOG_PARTITIONS))
		return false;
	ereport(WARNING,
			(errcode(failure.sqlerrcode),
			 errmsg("could not make or drop a partition of \"%s.%s\"", QML_SCHEMA,
					qml_store(store)->names),
			 errdetail("%s", failure.message),
			 failure.hint ? errhint("%s", failure.hint) : 0));
	return false;
}

/* A time as a literal that means the same in every session. */
char *
qml_partition_bound(TimestampTz time)
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

/* The indexes of a partition, for model/search_index.c and for finding a job by its id. */
static const struct
{
	const char *suffix;
	const char *definition;
	const char *condition;
	const char *comment;
} leaf_indexes[] = {
	{"id", "(id)", "", "finds a finished job by id"},
	{"search", "(qml.search_key(queue_id, method), qml.search_order(id, created_at))", "",
	 "finished jobs by queue and method, in the order of their creation"},
	{"state", "(state, qml.search_order(id, created_at), qml.search_key(queue_id, method))",
	 "WHERE state <> 'succeeded'", "failed and deleted jobs in the order of their creation"},
	{"own", "(qml.search_order(id, created_at))", "WHERE qml.search_own(id, created_at)",
	 "finished jobs whose id does not say when they were created"},
	{"end", "(finished_at)", "WHERE qml.search_slow(created_at, finished_at)",
	 "finished jobs that took long, in the order of their end"},
};

/* Whether the schema has the name of a partition, or of one of its indexes. */
static bool
is_taken(const char *name, Oid schema)
{
	if (OidIsValid(get_relname_relid(name, schema)))
		return true;
	for (int i = 0; i < (int) lengthof(leaf_indexes); i++)
	{
		if (OidIsValid(get_relname_relid(psprintf("%s_%s", name, leaf_indexes[i].suffix), schema)))
			return true;
	}
	return false;
}

/* A name by the day of the lower bound that nothing in the schema has. */
static char *
choose_name(QmlStoreId store, const char *lower)
{
	Oid schema = qml_catalog()->schema;
	char *base = psprintf("%s_p%.4s%.2s%.2s", qml_store(store)->names, lower, lower + 5, lower + 8);
	char *name = base;

	for (int i = 2; is_taken(name, schema); i++)
		name = psprintf("%s_%d", base, i);
	return name;
}

/*
 * A query over the history that is open in this session keeps it from being
 * altered; PostgreSQL's own message would not say what to do.
 */
static void
check_not_in_use(QmlStoreId store)
{
	Relation history = table_open(qml_store(store)->history, NoLock);
	bool in_use = history->rd_refcnt > 1;

	Assert(CheckRelationLockedByMe(history, ShareUpdateExclusiveLock, true));
	table_close(history, NoLock);
	if (in_use)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot make a partition of \"%s.%s\" while a query over it is open "
						"in this session",
						QML_SCHEMA, qml_store(store)->names),
				 errhint("It is made by the next qml_cleanup() in another session.")));
}

/*
 * Where a new partition goes, and its index: to the tablespace that the history has, if any.
 */
static const char *
tablespace_clause(Relation history)
{
	Oid tablespace = history->rd_rel->reltablespace;

	return OidIsValid(tablespace) ?
			   psprintf("TABLESPACE %s", quote_identifier(get_tablespace_name(tablespace))) :
			   "";
}

/* How it is stored: as the history says, which it can from 17 on. */
static const char *
method_clause(Relation history)
{
	Oid method = history->rd_rel->relam;

	return OidIsValid(method) ? psprintf("USING %s", quote_identifier(get_am_name(method))) : "";
}

/* Makes the indexes of a partition that has no rows yet. */
static void
create_indexes(const char *name, const char *tablespace)
{
	for (int i = 0; i < (int) lengthof(leaf_indexes); i++)
	{
		const char *suffix = leaf_indexes[i].suffix;
		const char *condition = leaf_indexes[i].condition;

		qml_spi_utility(psprintf("CREATE INDEX %s_%s ON qml.%s %s %s %s", name, suffix, name,
								 leaf_indexes[i].definition, tablespace, condition));
		qml_spi_utility(
			psprintf("COMMENT ON INDEX qml.%s_%s IS '%s'", name, suffix, leaf_indexes[i].comment));
	}
}

/* The caller holds the lock on the history that keeps others from making one. */
static void
create_leaf(QmlStoreId store, TimestampTz lower, TimestampTz upper)
{
	Relation history = table_open(qml_store(store)->history, NoLock);
	const char *parent = qml_store(store)->names;
	const char *tablespace = tablespace_clause(history);
	const char *method = method_clause(history);
	char *from = qml_partition_bound(lower);
	char *to = qml_partition_bound(upper);
	char *name = choose_name(store, from);
	QmlSpi spi;

	table_close(history, NoLock);

	Assert(lower < upper);
	check_not_in_use(store);
	qml_spi_begin(&spi, qml_catalog()->owner);
	/* Rows are added once and go with the partition: nothing to vacuum but for age. */
	qml_spi_utility(psprintf("CREATE %s qml.%s (LIKE qml.%s INCLUDING COMMENTS "
							 "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE "
							 "INCLUDING COMPRESSION) %s "
							 "WITH (autovacuum_vacuum_insert_threshold = -1) %s",
							 store == QML_STORE_UNLOGGED ? "UNLOGGED TABLE" : "TABLE", name, parent,
							 method, tablespace));
	qml_default_acl_close_table(get_relname_relid(name, qml_catalog()->schema));
	create_indexes(name, tablespace);
	/* For publications: see the install script. */
	qml_spi_utility(psprintf("ALTER TABLE qml.%s REPLICA IDENTITY FULL", name));
	qml_spi_utility(psprintf("ALTER TABLE qml.%s ATTACH PARTITION qml.%s "
							 "FOR VALUES FROM ('%s') TO ('%s')",
							 parent, name, from, to));
	qml_spi_utility(psprintf("COMMENT ON TABLE qml.%s IS 'finished jobs that expire from %s to %s'",
							 name, from, to));
	qml_spi_end(&spi);
	CommandCounterIncrement();
}

/*
 * Makes the partition for a time unless it is there; leaves it to others who are
 * making one, and to the next call if the history is locked.
 */
static void
make_leaf(void *arg)
{
	PartitionWork *work = arg;
	Oid history = qml_store(work->store)->history;
	int64 width = work->at - GetCurrentTimestamp() > FAR_DISTANCE ? FAR_WIDTH : NEAR_WIDTH;
	TimestampTz lower = work->at - work->at % width;
	QmlLeaf gap;

	if (!ConditionalLockRelationOid(history, ShareUpdateExclusiveLock))
		return;
	/* Somebody else may have made it before the lock was taken. */
	(void) qml_history_find_leaf(work->store, work->at, true, &gap);
	if (!OidIsValid(gap.leaf))
	{
		create_leaf(work->store, Max(lower, gap.lower), Min(lower + width, gap.upper));
		work->done = true;
	}
}

/* Makes the partition for a time; false if that was not possible just now. */
bool
qml_partition_make(QmlStoreId store, TimestampTz at)
{
	PartitionWork work = {.store = store, .at = at};

	return qml_partition_try(store, make_leaf, &work) && work.done;
}

/*
 * Makes the partitions that jobs with these times to live (a list of int64 pointers) will
 * need soon and that nobody else is making; returns how many.  *failed, if it is asked for:
 * one could not be made; the others were not tried then.
 */
int
qml_partition_make_ahead(QmlStoreId store, List *ttls, bool *failed)
{
	TimestampTz now = GetCurrentTimestamp();
	int made = 0;
	bool stop = false;
	ListCell *lc;

	foreach(lc, ttls)
	{
		int64 ttl = *(int64 *) lfirst(lc);

		for (int day = 0; day <= AHEAD_DAYS && ttl > 0 && !stop; day++)
		{
			PartitionWork work = {.store = store, .at = now + ttl + day * USECS_PER_DAY};
			QmlLeaf leaf;

			if (!qml_history_find_leaf(store, work.at, false, &leaf) || OidIsValid(leaf.leaf))
				continue;
			stop = !qml_partition_try(store, make_leaf, &work);
			if (!stop && work.done)
				made++;
		}
	}
	if (failed)
		*failed = stop;
	return made;
}

/* Work: a partition that somebody else has attached gets the replica identity of ours. */
static void
set_identity(void *arg)
{
	PartitionWork *work = arg;
	char *name;
	QmlSpi spi;

	if (!ConditionalLockRelationOid(work->leaf, AccessExclusiveLock))
		return;
	name = get_rel_name(work->leaf);
	if (name == NULL)
		return;
	qml_spi_begin(&spi, qml_catalog()->owner);
	qml_spi_utility(
		psprintf("ALTER TABLE %s REPLICA IDENTITY FULL",
				 quote_qualified_identifier(get_namespace_name(get_rel_namespace(work->leaf)),
											name)));
	qml_spi_end(&spi);
	work->done = true;
}

/*
 * Publications refuse changes of rows without a replica identity.  Partitions made here
 * have one; those that were attached by hand may not.
 */
void
qml_partition_mend(QmlStoreId store)
{
	Oid history = qml_store(store)->history;
	Oid *oids;
	int count;

	if (!ConditionalLockRelationOid(history, AccessShareLock))
		return;
	count = qml_history_list(store, &oids);
	UnlockRelationOid(history, AccessShareLock);
	for (int i = 0; i < count; i++)
	{
		PartitionWork work = {.leaf = oids[i]};
		HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(oids[i]));
		char identity;

		if (!HeapTupleIsValid(tuple))
			continue;
		identity = ((Form_pg_class) GETSTRUCT(tuple))->relreplident;
		ReleaseSysCache(tuple);
		if (identity == REPLICA_IDENTITY_DEFAULT || identity == REPLICA_IDENTITY_NOTHING)
			(void) qml_partition_try(store, set_identity, &work);
	}
}

/*
 * Revokes all privileges of other roles on partitions.  A restore makes them as ordinary
 * tables, to which the default privileges of the new database apply.
 */
void
qml_partition_revoke(QmlStoreId store)
{
	Oid *oids;
	int count = qml_history_list(store, &oids);
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	for (int i = 0; i < count; i++)
		qml_default_acl_close_table(oids[i]);
	qml_spi_end(&spi);
}
