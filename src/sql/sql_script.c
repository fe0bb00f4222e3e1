/*
 * sql_script.c
 *		Functions that the scripts of the extension create, call and drop:
 *		qml.begin_script, qml.revoke_default_privileges and qml.check_service.
 *
 * A script may run where an older library is loaded than the one that came with it: in a
 * server that was not started again after the files were installed.  A script that needs
 * more than that library has says so by qml.begin_script, rather than by a symbol that is
 * not found.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "common/default_acl.h"
#include "common/spi.h"
#include "compat.h"
#include "ipc/wakeup.h"
#include "maintenance/idle.h"
#include "model/catalog.h"

QML_FUNCTION(qml_begin_script);
QML_FUNCTION(qml_revoke_default_privileges);
QML_FUNCTION(qml_check_service);

/* Raises 0A000 outside of a script of an extension. */
static void
require_script(const char *function)
{
	if (!creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s can only be called from an SQL script executed by CREATE EXTENSION "
						"or ALTER EXTENSION",
						function)));
}

/* What is altered and replaced: tables, partitions, views and sequences of qml's schema. */
static List *
list_relations(Oid schema)
{
	Relation rel = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	List *relations = NIL;

	ScanKeyInit(&key, Anum_pg_class_relnamespace, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(schema));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		if (form->relkind == RELKIND_RELATION || form->relkind == RELKIND_PARTITIONED_TABLE ||
			form->relkind == RELKIND_VIEW || form->relkind == RELKIND_SEQUENCE)
			relations = lappend_oid(relations, form->oid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return relations;
}

static void
unlock_first(const List *relations, int count)
{
	for (int i = 0; i < count; i++)
		UnlockRelationOid(list_nth_oid(relations, i), AccessExclusiveLock);
}

/* Locks all relations of the schema, or none if somebody has locked one; returns that one. */
static Oid
try_lock_all(Oid schema)
{
	List *relations = list_relations(schema);
	int count = 0;
	Oid busy = InvalidOid;

	while (count < list_length(relations) &&
		   ConditionalLockRelationOid(list_nth_oid(relations, count), AccessExclusiveLock))
		count++;
	if (count < list_length(relations))
		busy = list_nth_oid(relations, count);
	else
	{
		/* No partition can come any more, but one may have come meanwhile. */
		List *added = list_difference_oid(list_relations(schema), relations);

		busy = added ? linitial_oid(added) : InvalidOid;
	}
	if (OidIsValid(busy))
		unlock_first(relations, count);
	list_free(relations);
	return busy;
}

/*
 * Locks all of them, or waits without a lock on any: there is no order in which all others lock
 * them.  Who adds a queue with a job has the table of queues before that of jobs, and who looks
 * up the queue of a job the other way round.  The table of jobs is waited for with nothing else
 * locked: somebody always has it where there is traffic.
 */
static void
lock_all(Oid schema, Oid live)
{
	for (;;)
	{
		Oid busy;

		LockRelationOid(live, AccessExclusiveLock);
		busy = try_lock_all(schema);
		if (!OidIsValid(busy))
			return;
		UnlockRelationOid(live, AccessExclusiveLock);
		LockRelationOid(busy, AccessExclusiveLock);
		UnlockRelationOid(busy, AccessExclusiveLock);
	}
}

/*
 * For the rest of the script: what is made must not depend on the session's settings.  They
 * are in the script's nest level of settings, which the server ends with the script.
 *
 * library: the oldest one that can run the script and serve what it makes; 55000 if this
 * one is older.  An update finds all relations locked, so it meets no deadlock.  When the
 * script commits, all sessions look at the tables anew, and the
 * launcher at the database: there may be processes that could not work in it.
 */
Datum
qml_begin_script(PG_FUNCTION_ARGS)
{
	Oid schema = get_namespace_oid(QML_SCHEMA, true);
	Oid live = OidIsValid(schema) ? get_relname_relid("live", schema) : InvalidOid;

	require_script("qml.begin_script()");
	qml_catalog_require_library(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	qml_spi_pin_for_script();
	if (OidIsValid(live))
	{
		lock_all(schema, live);
		CacheInvalidateRelcacheByRelid(live);
	}
	qml_wakeup_launcher(true);
	PG_RETURN_VOID();
}

/*
 * The script that creates the extension calls this and drops it: an update would
 * revoke what has been granted since.
 */
Datum
qml_revoke_default_privileges(PG_FUNCTION_ARGS)
{
	QmlSpi spi;

	require_script("qml.revoke_default_privileges()");
	qml_spi_begin(&spi, GetUserId());
	qml_default_acl_close_extension(CurrentExtensionObject);
	qml_spi_end(&spi);
	PG_RETURN_VOID();
}

/* Called by the script that creates the extension: warns if nothing will work here. */
Datum
qml_check_service(PG_FUNCTION_ARGS)
{
	require_script("qml.check_service()");
	qml_idle_warn(QML_IDLE_INSTALL);
	PG_RETURN_VOID();
}
