/*
 * ring.c
 *		Tables that are used in turns, and emptied as a whole.
 *
 * Rows that are kept for a while go to the table of their time, and a table whose time is over is
 * emptied by TRUNCATE.  So no row is deleted by itself, nothing is left for vacuum, and a snapshot
 * that is held for long keeps nothing.
 *
 * To empty one takes AccessExclusiveLock on it and its indexes, tried, in the caller's
 * transaction; a crash before its commit leaves the rows where they were.
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "common/log.h"
#include "common/ring.h"
#include "common/shrink.h"
#include "common/spi.h"
#include "common/subxact.h"

/* Whether there is something to remove; false also if somebody is using the table. */
bool
qml_ring_has_rows(Oid relid)
{
	LOCKTAG tag;
	Relation rel;
	bool has;
	int others;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	rel = try_table_open(relid, NoLock);
	has = rel != NULL && RelationGetNumberOfBlocks(rel) > 0;
	if (rel)
		table_close(rel, NoLock);
	UnlockRelationOid(relid, AccessShareLock);
	if (!has)
		return false;
	/* To try for the lock takes a transaction id and writes it to the WAL, also in vain. */
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	(void) GetLockConflicts(&tag, AccessExclusiveLock, &others);
	return others == 0;
}

typedef struct Emptied
{
	Oid relid;
	Oid owner;
} Emptied;

/* Work: empties a table that nobody is using. */
static void
empty_table(void *arg)
{
	const Emptied *emptied = arg;
	char *name = get_rel_name(emptied->relid);
	char *schema = get_namespace_name(get_rel_namespace(emptied->relid));
	List *locked;
	QmlSpi spi;

	if (name == NULL || schema == NULL ||
		!ConditionalLockRelationOid(emptied->relid, AccessExclusiveLock))
		return;
	/* TRUNCATE would queue up for an index that is in use. */
	if (!qml_shrink_lock(emptied->relid, &locked))
	{
		UnlockRelationOid(emptied->relid, AccessExclusiveLock);
		return;
	}
	qml_spi_begin(&spi, emptied->owner);
	qml_spi_utility(psprintf("TRUNCATE ONLY %s", quote_qualified_identifier(schema, name)));
	qml_spi_end(&spi);
}

/*
 * Empties a table, unless somebody is reading it.  One that cannot be emptied (somebody made a
 * table refer to it) is told of, and stops nothing.  whole: what it is a part of, for people.
 */
void
qml_ring_empty(Oid relid, Oid owner, const char *whole)
{
	Emptied emptied = {.relid = relid, .owner = owner};
	QmlFailure failure;

	if (qml_subxact_run(empty_table, &emptied, &failure))
		return;
	if (MyBackendType != B_BG_WORKER || qml_log_is_due(QML_LOG_PARTITIONS))
		ereport(WARNING,
				(errcode(failure.sqlerrcode),
				 errmsg("could not empty a partition of \"%s\"", whole),
				 errdetail("%s", failure.message),
				 failure.hint ? errhint("%s", failure.hint) : 0));
}
