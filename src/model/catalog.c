/*
 * catalog.c
 *		The oids of qml's own objects.
 *
 * C code never looks a name up through search_path.  The objects that it uses are
 * found once, by schema and name and as objects of the extension, and cached by oid.
 * The invalidation callback only sets a flag; the next call looks them up again.
 *
 * Also checked here, before anything else is done: the SQL objects have the version of
 * the library, the tables the columns that it expects.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "core/state.h"
#include "model/catalog.h"

static QmlCatalog catalog;
static bool catalog_valid = false;

/* Invalidation callback; InvalidOid stands for all relations. */
static void
forget_catalog(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == catalog.live || relid == catalog.history ||
		relid == catalog.queue || relid == catalog.handler || relid == catalog.hook ||
		relid == catalog.middleware || relid == catalog.acl || relid == catalog.instance ||
		relid == catalog.recurring || relid == catalog.occurrence)
		catalog_valid = false;
}

void
qml_catalog_init(void)
{
	CacheRegisterRelcacheCallback(forget_catalog, (Datum) 0);
}

/* A relation of qml's schema, or an error. */
static Oid
lookup_relation(const char *name)
{
	Oid relid = get_relname_relid(name, catalog.schema);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relation \"%s.%s\" of extension \"qml\" is missing", QML_SCHEMA, name),
				 errhint("Drop and create the extension, or restore it from a backup.")));
	return relid;
}

static void
check_version(const char *version)
{
	if (strcmp(version, QML_VERSION) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"qml\" has version %s, but the library has version %s",
						version, QML_VERSION),
				 errhint("Run ALTER EXTENSION qml UPDATE, or reconnect if the library is the older one.")));
}

/* Reads the extension's row: checks its version, and finds the schema of its functions. */
static Oid
load_extension(void)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	Oid extension;
	Datum version;
	bool isnull;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("qml"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"qml\" does not exist in this database"),
				 errhint("Run CREATE EXTENSION qml.")));

	extension = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
	catalog.function_schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	version = heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull);
	check_version(TextDatumGetCString(version));

	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return extension;
}

/* Checks that a table has as many columns as the library expects. */
static void
check_columns(Oid relid, int natts)
{
	Relation rel = table_open(relid, AccessShareLock);

	if (RelationGetDescr(rel)->natts != natts)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" has %d columns, but the library expects %d",
						QML_SCHEMA, RelationGetRelationName(rel),
						RelationGetDescr(rel)->natts, natts)));
	table_close(rel, AccessShareLock);
}

/* The owner of the tables: that of qml.live counts. */
static void
load_owner(void)
{
	Relation rel = table_open(catalog.live, AccessShareLock);

	catalog.owner = rel->rd_rel->relowner;
	table_close(rel, AccessShareLock);
}

/* The labels of qml.job_state. */
static void
load_states(void)
{
	catalog.state_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
										 CStringGetDatum("job_state"),
										 ObjectIdGetDatum(catalog.schema));
	for (int i = 0; i < QML_STATES; i++)
	{
		catalog.states[i] = GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
											ObjectIdGetDatum(catalog.state_type),
											CStringGetDatum(qml_state_label(i)));
		if (!OidIsValid(catalog.states[i]))
			elog(ERROR, "type qml.job_state has no label \"%s\"", qml_state_label(i));
	}
}

/*
 * Whether these rows belong to this database of this server.  A restore adds the
 * row of the database that was dumped to the one that CREATE EXTENSION made, so
 * one row that differs is enough.
 */
static bool
load_adopted(void)
{
	Relation rel = table_open(catalog.instance, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	bool adopted = true;
	HeapTuple tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool isnull;
		int64 system = DatumGetInt64(
			heap_getattr(tuple, INSTANCE_SYSTEM_IDENTIFIER, RelationGetDescr(rel), &isnull));
		Oid database = DatumGetObjectId(
			heap_getattr(tuple, INSTANCE_DATABASE, RelationGetDescr(rel), &isnull));

		if ((uint64) system != GetSystemIdentifier() || database != MyDatabaseId)
			adopted = false;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return adopted;
}

static void
load_catalog(void)
{
	Oid extension;

	memset(&catalog, 0, sizeof(catalog));
	extension = load_extension();
	catalog.schema = get_namespace_oid(QML_SCHEMA, false);
	catalog.live = lookup_relation("live");
	/* A schema named qml that is not the extension's must not be taken for it. */
	if (getExtensionOfObject(RelationRelationId, catalog.live) != extension)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.live\" does not belong to extension \"qml\"", QML_SCHEMA)));
	catalog.live_pkey = lookup_relation("live_pkey");
	catalog.live_ready = lookup_relation("live_ready");
	catalog.live_due = lookup_relation("live_due");
	catalog.history = lookup_relation("history");
	catalog.queue = lookup_relation("queue_data");
	catalog.handler = lookup_relation("handler_data");
	catalog.hook = lookup_relation("hook_data");
	catalog.middleware = lookup_relation("middleware_data");
	catalog.acl = lookup_relation("acl_data");
	catalog.lock = lookup_relation("lock_data");
	catalog.instance = lookup_relation("instance_data");
	catalog.recurring = lookup_relation("recurring_data");
	catalog.recurring_due = lookup_relation("recurring_due");
	catalog.occurrence = lookup_relation("occurrence_data");
	catalog.occurrence_pkey = lookup_relation("occurrence_data_pkey");
	catalog.job_type = get_rel_type_id(lookup_relation("job"));
	check_columns(catalog.live, LIVE_NATTS);
	check_columns(catalog.history, HISTORY_NATTS);
	check_columns(catalog.handler, HANDLER_NATTS);
	check_columns(catalog.hook, HOOK_NATTS);
	check_columns(catalog.middleware, MIDDLEWARE_NATTS);
	check_columns(catalog.recurring, RECURRING_NATTS);
	check_columns(catalog.occurrence, OCCURRENCE_NATTS);
	load_owner();
	load_states();
	catalog.adopted = load_adopted();
}

/* The objects of this database, up to date.  The pointer is valid for the session. */
const QmlCatalog *
qml_catalog(void)
{
	while (!catalog_valid)
	{
		/* An invalidation that arrives meanwhile clears the flag: it is loaded again. */
		catalog_valid = true;
		PG_TRY();
		{
			load_catalog();
		}
		PG_CATCH();
		{
			catalog_valid = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	return &catalog;
}

/*
 * The same for callers that hand out jobs, or change them unasked: an error if the
 * database is a copy that is not adopted.  Also accepts invalidations, so that a queue
 * that was paused or a right that was revoked meanwhile counts within a transaction.
 */
const QmlCatalog *
qml_catalog_to_work(void)
{
	const QmlCatalog *cat;

	Assert(IsTransactionState());
	AcceptInvalidationMessages();
	cat = qml_catalog();
	if (!cat->adopted)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the jobs in this database are a copy from another one"),
				 errdetail("A restored or copied database does not run its jobs, because the "
						   "original may be running them, too."),
				 errhint("Call qml_adopt() to run the jobs of this copy.")));
	return cat;
}

/* The state that an enum value stands for. */
QmlState
qml_catalog_state(Oid label)
{
	const QmlCatalog *cat = qml_catalog();

	for (int i = 0; i < QML_STATES; i++)
	{
		if (cat->states[i] == label)
			return (QmlState) i;
	}
	elog(ERROR, "unexpected value %u of type qml.job_state", label);
}

/*
 * LockDatabaseObject() that does not wait: false if the lock is not available.
 */
bool
qml_catalog_try_lock(Oid class, uint32 object, uint16 sub, LOCKMODE mode)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, class, object, sub);
	if (LockAcquire(&tag, mode, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return true;
}
