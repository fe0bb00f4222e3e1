/*
 * audit_partitions.c
 *		Partitions of the record of acts (model/audit.c): made ahead of need, filled up, dropped.
 *
 * A partition has the acts of a month, in UTC.  Maintenance makes those of the present month and
 * of the next one.  Acts that found none are in the overflow, and are moved to their partition
 * here.  A partition is dropped when all of it is older than qml.audit_ttl.
 *
 * Locks are tried here, never queued for, because everybody else would queue up behind.  Making
 * a partition takes ShareUpdateExclusiveLock on the table, which stops neither readers nor
 * writers.  Dropping one takes AccessExclusiveLock on both, to the end of the transaction.
 *
 * What cannot be done to one partition is undone alone, told in a WARNING, and tried again by the
 * next call.  All of it is the caller's transaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "common/default_acl.h"
#include "common/guc.h"
#include "common/log.h"
#include "common/spi.h"
#include "common/subxact.h"
#include "jobs/partition.h"
#include "maintenance/audit_partitions.h"
#include "model/audit.h"
#include "model/catalog.h"

/* Rows of a month that one call moves out of the overflow. */
#define SETTLE_MAX 10000

/* All columns, as they are in each of the tables. */
#define COLUMNS                                                              \
	"at, action, object_type, object, queue, session_role, effective_role, " \
	"claimed_actor, client_address, before, after"

/* What is done to one partition, in a subtransaction. */
typedef struct PartitionWork
{
	TimestampTz at;			/* a time in its month */
	Oid leaf;				/* one that is there */
	TimestampTz keep_since; /* of QML_NO_TIME: all */
} PartitionWork;

static Oid
find_table(const char *name)
{
	return get_relname_relid(name, qml_catalog()->schema);
}

/* Works on a partition in a subtransaction; what cannot be done is told. */
static void
try_work(void (*run)(void *arg), PartitionWork *work)
{
	QmlFailure failure;

	if (qml_subxact_try(run, work, qml_subxact_ends_call, &failure))
		return;
	if (MyBackendType == B_BG_WORKER && !qml_log_is_due(QML_LOG_AUDIT))
		return;
	ereport(WARNING,
			(errcode(failure.sqlerrcode),
			 errmsg("could not make, fill or drop a partition of \"%s.%s\"", QML_SCHEMA,
					QML_AUDIT_TABLE),
			 errdetail("%s", failure.message), failure.hint ? errhint("%s", failure.hint) : 0));
}

/* A bound, which is the beginning of a day, without fractions of a second. */
static char *
format_bound(TimestampTz time)
{
	return psprintf("%.19s+00", qml_partition_bound(time));
}

/* ----- making ----- */

static void
create_partition(const char *name, TimestampTz at)
{
	TimestampTz lower;
	TimestampTz upper;
	QmlSpi spi;

	qml_audit_month(at, &lower, &upper);
	qml_spi_begin(&spi, qml_catalog()->owner);
	qml_spi_utility(psprintf("CREATE TABLE qml.%s (LIKE qml." QML_AUDIT_TABLE " INCLUDING COMMENTS "
							 "INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION)",
							 name));
	qml_default_acl_close_table(find_table(name));
	qml_spi_utility(psprintf("CREATE INDEX %s_at ON qml.%s (at)", name, name));
	qml_spi_utility(psprintf("CREATE INDEX %s_object ON qml.%s (object)", name, name));
	/* For publications: see the install script. */
	qml_spi_utility(psprintf("ALTER TABLE qml.%s REPLICA IDENTITY FULL", name));
	qml_spi_utility(psprintf("ALTER TABLE qml." QML_AUDIT_TABLE " ATTACH PARTITION qml.%s "
							 "FOR VALUES FROM ('%s') TO ('%s')",
							 name, format_bound(lower), format_bound(upper)));
	qml_spi_utility(psprintf("COMMENT ON TABLE qml.%s IS 'acts of control from %s to %s'", name,
							 format_bound(lower), format_bound(upper)));
	qml_spi_utility(psprintf("COMMENT ON INDEX qml.%s_at IS 'acts in the order of time'", name));
	qml_spi_utility(
		psprintf("COMMENT ON INDEX qml.%s_object IS 'finds the acts on an object'", name));
	qml_spi_end(&spi);
	CommandCounterIncrement();
}

/* Work: makes the partition of a month unless it is there, or others are making one. */
static void
make_partition(void *arg)
{
	PartitionWork *work = arg;
	char *name = qml_audit_partition_name(work->at);

	if (OidIsValid(find_table(name)) ||
		!ConditionalLockRelationOid(find_table(QML_AUDIT_TABLE), ShareUpdateExclusiveLock))
		return;
	/* Somebody else may have made it before the lock was taken. */
	if (!OidIsValid(find_table(name)))
		create_partition(name, work->at);
}

/* Makes the partitions of this month and of the next one, unless they are there. */
void
qml_audit_partitions_make(void)
{
	TimestampTz lower;
	TimestampTz next;
	PartitionWork work = {.at = GetCurrentTimestamp()};

	qml_audit_month(work.at, &lower, &next);
	if (!OidIsValid(find_table(qml_audit_partition_name(work.at))))
		try_work(make_partition, &work);
	work.at = next;
	if (!OidIsValid(find_table(qml_audit_partition_name(next))))
		try_work(make_partition, &work);
}

/* ----- filling up ----- */

static void *
read_month(uint64 row)
{
	TimestampTz *month = palloc(sizeof(TimestampTz));

	*month = DatumGetTimestampTz(qml_spi_value(SPI_tuptable, row, 1, TIMESTAMPTZOID, NULL));
	return month;
}

/* The months of the acts in the overflow, as times within them. */
static List *
list_months(void)
{
	MemoryContext context = CurrentMemoryContext;
	List *months;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("SELECT min(o.at) FROM qml." QML_AUDIT_OVERFLOW " o "
						   "GROUP BY date_trunc('month', o.at, 'UTC') ORDER BY 1",
						   0, NULL, NULL, NULL, SPI_OK_SELECT);
	months = qml_spi_rows(context, read_month);
	qml_spi_end(&spi);
	return months;
}

/* Work: moves acts of a month to its partition, or removes those that have expired. */
static void
settle_month(void *arg)
{
	PartitionWork *work = arg;
	char *name = qml_audit_partition_name(work->at);
	Oid types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	TimestampTz lower;
	TimestampTz upper;
	Datum values[lengthof(types)];
	bool expired;
	QmlSpi spi;

	qml_audit_month(work->at, &lower, &upper);
	expired = upper <= work->keep_since;
	if (!expired)
	{
		Oid leaf;

		make_partition(work);
		leaf = find_table(name);
		if (!OidIsValid(leaf) || !ConditionalLockRelationOid(leaf, RowExclusiveLock))
			return;
		if (!qml_audit_is_partition(leaf))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_TABLE),
					 errmsg("table \"%s.%s\" is no partition", QML_SCHEMA, name),
					 errhint("Attach it again, rename it, or move it to another schema.")));
	}
	values[0] = TimestampTzGetDatum(lower);
	values[1] = TimestampTzGetDatum(upper);
	qml_spi_begin(&spi, qml_catalog()->owner);
	/* Rows that somebody else is moving are passed over. */
	(void) qml_spi_execute(psprintf("WITH moved AS (DELETE FROM qml." QML_AUDIT_OVERFLOW
									" WHERE ctid = ANY (ARRAY("
									"SELECT o.ctid FROM qml." QML_AUDIT_OVERFLOW
									" o WHERE o.at >= $1 AND o.at < $2 "
									"LIMIT " CppAsString2(
										SETTLE_MAX) " FOR UPDATE SKIP LOCKED)) RETURNING " COLUMNS
													") %s",
									expired ? "SELECT count(*) FROM moved" :
											  psprintf("INSERT INTO qml.%s (" COLUMNS
													   ") SELECT " COLUMNS " FROM moved",
													   name)),
						   lengthof(types), types, values, NULL,
						   expired ? SPI_OK_SELECT : SPI_OK_INSERT);
	qml_spi_end(&spi);
}

/* Acts that ended before this time are kept no longer; QML_NO_TIME: all are kept. */
static TimestampTz
keep_since(void)
{
	return qml_audit_ttl < 0 ? QML_NO_TIME : GetCurrentTimestamp() - qml_audit_ttl * USECS_PER_SEC;
}

/* Moves acts from the overflow to their partitions, which are made where they are missing. */
void
qml_audit_partitions_settle(void)
{
	PartitionWork work = {.keep_since = keep_since()};
	ListCell *lc;

	if (!ConditionalLockRelationOid(find_table(QML_AUDIT_OVERFLOW), RowExclusiveLock))
		return;
	foreach(lc, list_months())
	{
		work.at = *(TimestampTz *) lfirst(lc);
		try_work(settle_month, &work);
	}
}

/* ----- dropping ----- */

/* The partitions; with their upper bounds, if asked for: pointers to TimestampTz. */
static List *
list_partitions(List **uppers)
{
	Oid relid = find_table(QML_AUDIT_TABLE);
	List *leaves = NIL;
	PartitionDesc desc;
	Relation rel;

	*uppers = NIL;
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return NIL;
	rel = table_open(relid, NoLock);
	desc = RelationGetPartitionDesc(rel, true);
	for (int i = 0; desc->nparts > 0 && i < desc->boundinfo->ndatums; i++)
	{
		/* indexes[i] is the partition whose upper bound is datum i. */
		int index = desc->boundinfo->indexes[i];
		TimestampTz *upper;

		if (index < 0)
			continue;
		upper = palloc(sizeof(TimestampTz));
		*upper = desc->boundinfo->kind[i][0] == PARTITION_RANGE_DATUM_VALUE ?
					 DatumGetTimestampTz(desc->boundinfo->datums[i][0]) :
					 DT_NOEND;
		leaves = lappend_oid(leaves, desc->oids[index]);
		*uppers = lappend(*uppers, upper);
	}
	table_close(rel, AccessShareLock);
	return leaves;
}

/* Work: drops a partition, if nobody is using it. */
static void
drop_partition(void *arg)
{
	PartitionWork *work = arg;
	QmlSpi spi;
	char *name;

	if (!ConditionalLockRelationOid(find_table(QML_AUDIT_TABLE), AccessExclusiveLock) ||
		!ConditionalLockRelationOid(work->leaf, AccessExclusiveLock))
		return;
	name = get_rel_name(work->leaf);
	if (name == NULL)
		return;
	qml_spi_begin(&spi, qml_catalog()->owner);
	qml_spi_utility(
		psprintf("DROP TABLE %s",
				 quote_qualified_identifier(get_namespace_name(get_rel_namespace(work->leaf)),
											name)));
	qml_spi_end(&spi);
}

/* Drops partitions all of which have expired. */
void
qml_audit_partitions_drop(void)
{
	TimestampTz since = keep_since();
	List *uppers;
	List *leaves;
	ListCell *lc;
	ListCell *upper;

	if (since == QML_NO_TIME)
		return;
	leaves = list_partitions(&uppers);
	forboth(lc, leaves, upper, uppers)
	{
		PartitionWork work = {.leaf = lfirst_oid(lc)};

		if (*(TimestampTz *) lfirst(upper) <= since)
			try_work(drop_partition, &work);
	}
}

/*
 * Revokes all privileges of other roles on partitions.  A restore makes them as ordinary tables,
 * to which the default privileges of the new database apply.
 */
void
qml_audit_partitions_revoke(void)
{
	List *uppers;
	List *leaves = list_partitions(&uppers);
	ListCell *lc;
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	foreach(lc, leaves)
		qml_default_acl_close_table(lfirst_oid(lc));
	qml_spi_end(&spi);
}
