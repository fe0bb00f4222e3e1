/*
 * catalog.c
 *		The oids of qml's own objects.
 *
 * C code never looks a name up through search_path.  The objects that it uses are
 * found once, by schema and name and as objects of the extension, and cached by oid.
 * The invalidation callback only sets a flag; the next call looks them up again.
 *
 * Also checked here, before anything else is done: the SQL objects have a version that
 * the library serves, the tables the columns that it knows (model/columns.c), and nothing
 * was done to them by hand that it cannot work with (model/shape.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "common/sequence.h"
#include "common/table.h"
#include "core/state.h"
#include "model/catalog.h"
#include "model/shape.h"

static QmlCatalog catalog;
static bool catalog_valid = false;

static QmlKnownLives known_lives; /* as long as the catalog is valid */

/* A partition of the history that is as it must be, since it was changed last. */
static Oid checked_leaf = InvalidOid;

/* The number of a partition of the ledger of ticks; -1: it is another table. */
static int
occurrence_partition(Oid relid)
{
	for (int i = 0; i < QML_OCCURRENCE_PARTITIONS; i++)
	{
		if (relid == catalog.occurrences[i])
			return i;
	}
	return -1;
}

/* Whether it is a table of jobs that are not finished, or of those that are in no partition. */
static bool
is_job_table(Oid relid)
{
	for (int i = 0; i < QML_STORES; i++)
	{
		if (relid == catalog.stores[i].live || relid == catalog.stores[i].overflow)
			return true;
	}
	return false;
}

static bool
is_history(Oid relid)
{
	for (int i = 0; i < QML_STORES; i++)
	{
		if (relid == catalog.stores[i].history)
			return true;
	}
	return false;
}

/* A relation changed; InvalidOid stands for all of them. */
static void
forget_catalog(Oid relid)
{
	if (relid == InvalidOid || relid == checked_leaf)
		checked_leaf = InvalidOid;
	if (relid == InvalidOid || is_job_table(relid) || is_history(relid) || relid == catalog.queue ||
		relid == catalog.handler || relid == catalog.hook || relid == catalog.middleware ||
		relid == catalog.acl || relid == catalog.instance || relid == catalog.pause ||
		relid == catalog.recurring || relid == catalog.occurrence || relid == catalog.lock ||
		relid == catalog.server || relid == catalog.job || occurrence_partition(relid) >= 0)
		catalog_valid = false;
}

/* Whether it is a table of qml that is no partition. */
static bool
is_own_table(Oid relid)
{
	return is_job_table(relid) || relid == catalog.recurring || relid == catalog.queue ||
		   relid == catalog.handler || relid == catalog.hook || relid == catalog.middleware ||
		   relid == catalog.acl || relid == catalog.instance;
}

/* Checks a partition of the ledger of ticks, once. */
static void
check_occurrences(Relation rel, int partition)
{
	if (catalog.occurrences_checked[partition])
		return;
	qml_columns_check_open(QML_TABLE_OCCURRENCE, rel);
	qml_shape_check(rel, QML_SHAPE_OCCURRENCE);
	catalog.occurrences_checked[partition] = true;
}

/*
 * Those that nobody has locked.  One that is being emptied, for as long as a transaction is
 * open or prepared, is checked when it is opened: no call but those that use it waits.
 */
static void
check_free_occurrences(void)
{
	for (int i = 0; i < QML_OCCURRENCE_PARTITIONS; i++)
	{
		Relation rel;

		if (!ConditionalLockRelationOid(catalog.occurrences[i], AccessShareLock))
			continue;
		rel = table_open(catalog.occurrences[i], NoLock);
		check_occurrences(rel, i);
		table_close(rel, AccessShareLock);
	}
}

/* Checks a partition of the history: once, as all sessions write to the same one. */
static void
check_leaf(Relation leaf)
{
	if (RelationGetRelid(leaf) == checked_leaf)
		return;
	/* A change that arrives meanwhile clears it. */
	checked_leaf = RelationGetRelid(leaf);
	PG_TRY();
	{
		qml_columns_check_leaf(leaf);
		qml_shape_check(leaf, QML_SHAPE_LEAF);
	}
	PG_CATCH();
	{
		checked_leaf = InvalidOid;
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* What was added to a history is meant for its partitions, and not always on them. */
static void
require_plain_history(QmlStore *store)
{
	Relation history;

	if (store->history_is_plain || !ConditionalLockRelationOid(store->history, AccessShareLock))
		return;
	history = table_open(store->history, NoLock);
	qml_shape_require_plain(history, catalog.live_trigger, catalog.states);
	store->history_is_plain = true;
	table_close(history, AccessShareLock);
}

/* QmlTableCheck: also for partitions. */
static void
check_open_table(Relation rel, bool write)
{
	int partition;

	/* If a table was altered meanwhile, this looks at all of them again. */
	(void) qml_catalog();
	partition = occurrence_partition(RelationGetRelid(rel));
	if (partition >= 0)
		check_occurrences(rel, partition);
	else if (!is_own_table(RelationGetRelid(rel)))
	{
		check_leaf(rel);
		for (int i = 0; write && i < QML_STORES; i++)
		{
			QmlStore *store = &catalog.stores[i];

			/* That is so nearly always. */
			if (!store->history_is_plain &&
				get_partition_parent(RelationGetRelid(rel), true) == store->history)
				require_plain_history(store);
		}
	}
	if (write)
		qml_shape_require_plain(rel, catalog.live_trigger, catalog.states);
}

void
qml_catalog_init(void)
{
	qml_cache_listen(forget_catalog);
	qml_table_init(check_open_table);
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
				 errhint("%s", qml_columns_hint())));
	return relid;
}

/* Reads MAJOR.MINOR, also if more follows; false if it is no version. */
static bool
parse_version(const char *version, int *major, int *minor)
{
	return sscanf(version, "%d.%d", major, minor) == 2;
}

/*
 * The library serves all SQL objects of its major version.  Of newer ones it knows only a
 * part; whether that is there is checked table by table.
 */
static void
check_version(const char *version)
{
	int major;
	bool valid = parse_version(version, &major, &catalog.sql_minor);

	if (!valid || major != QML_VERSION_MAJOR)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"qml\" has version %s, but the library has version %s",
						version, QML_VERSION),
				 valid && major < QML_VERSION_MAJOR ?
					 errhint("Run ALTER EXTENSION qml UPDATE.") :
					 errhint("Restart the server to load the new library, or reconnect if qml is "
							 "not preloaded.")));
}

/* For scripts that need a library of this version: 55000 if this one is older. */
void
qml_catalog_require_library(const char *version)
{
	int major;
	int minor;

	if (!parse_version(version, &major, &minor))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid version \"%s\"", version)));
	if (major > QML_VERSION_MAJOR || (major == QML_VERSION_MAJOR && minor > QML_VERSION_MINOR))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("version %s of extension \"qml\" needs the library of that version, but "
						"version %s is loaded",
						version, QML_VERSION),
				 errhint("Install the new library if it is not there.  Then restart the server, or "
						 "reconnect if qml is not preloaded, and run the command again.")));
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

/* Checks what was done to a table by hand. */
static void
check_shape(Oid relid, QmlShape shape)
{
	Relation rel = table_open(relid, AccessShareLock);

	qml_shape_check(rel, shape);
	/* The owner of the tables: that of qml.live counts. */
	if (relid == catalog.stores[QML_STORE_LOGGED].live)
		catalog.owner = rel->rd_rel->relowner;
	table_close(rel, AccessShareLock);
}

/*
 * An index that is built anew beside the old one takes its name when it is ready.  Where that
 * happens between the look for the name and this one, the catalog is loaded again.
 */
static void
check_index(Oid table, Oid index, QmlIndexShape shape)
{
	if (!qml_shape_is_index(table, index, shape) && catalog_valid)
		qml_shape_raise_index(table, index, shape);
}

/* Of all tables, and of the indexes that are searched without a plan. */
static void
check_shapes(void)
{
	for (int i = 0; i < QML_STORES; i++)
	{
		const QmlStore *store = &catalog.stores[i];

		check_shape(store->live, QML_SHAPE_LIVE);
		check_shape(store->overflow, QML_SHAPE_OVERFLOW);
		check_index(store->live, store->live_pkey, QML_INDEX_LIVE_PKEY);
		check_index(store->live, store->live_ready, QML_INDEX_LIVE_READY);
		check_index(store->live, store->live_due, QML_INDEX_LIVE_DUE);
	}
	check_shape(catalog.recurring, QML_SHAPE_RECURRING);
	check_shape(catalog.queue, QML_SHAPE_QUEUE);
	check_shape(catalog.handler, QML_SHAPE_HANDLER);
	check_shape(catalog.hook, QML_SHAPE_HOOK);
	check_shape(catalog.middleware, QML_SHAPE_MIDDLEWARE);
	check_shape(catalog.acl, QML_SHAPE_ACL);
	check_shape(catalog.instance, QML_SHAPE_INSTANCE);
	check_shape(catalog.pause, QML_SHAPE_OTHER);
	check_shape(catalog.lock, QML_SHAPE_OTHER);
	check_shape(catalog.server, QML_SHAPE_OTHER);
	check_index(catalog.recurring, catalog.recurring_due, QML_INDEX_RECURRING_DUE);
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
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("type \"%s.job_state\" has no label \"%s\"", QML_SCHEMA,
							qml_state_label(i)),
					 errhint("Rename what was renamed back, or restore the extension from a "
							 "backup.")));
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

/* Whether all queues are paused: the table has a row then, whatever it says. */
static bool
load_paused(void)
{
	Relation rel = table_open(catalog.pause, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	bool paused = HeapTupleIsValid(systable_getnext(scan));

	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return paused;
}

/* A function in the schema of the tables; InvalidOid: the owner of the extension has dropped it. */
static Oid
lookup_function(const char *name, int nargs, Oid first, Oid second)
{
	Oid types[] = {first, second};
	oidvector *arguments = buildoidvector(types, nargs);

	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
						   PointerGetDatum(arguments), ObjectIdGetDatum(catalog.schema));
}

/* A trigger function of qml; InvalidOid: it was dropped. */
Oid
qml_catalog_trigger_function(const char *name)
{
	(void) qml_catalog();
	return lookup_function(name, 0, InvalidOid, InvalidOid);
}

/* The functions that indexes are made of. */
static void
load_search_functions(void)
{
	catalog.search_order = lookup_function("search_order", 2, UUIDOID, TIMESTAMPTZOID);
	catalog.search_key = lookup_function("search_key", 2, INT4OID, TEXTOID);
	catalog.search_own = lookup_function("search_own", 2, UUIDOID, TIMESTAMPTZOID);
	catalog.search_slow = lookup_function("search_slow", 2, TIMESTAMPTZOID, TIMESTAMPTZOID);
}

/* Whether the function of a trigger is called before each statement that writes, whoever runs it. */
static bool
sees_all_statements(HeapTuple tuple, TupleDesc desc)
{
	Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
	int16 events = TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE |
				   TRIGGER_TYPE_TRUNCATE;

	return !TRIGGER_FOR_ROW(trigger->tgtype) && TRIGGER_FOR_BEFORE(trigger->tgtype) &&
		   (trigger->tgtype & events) == events && trigger->tgattr.dim1 == 0 &&
		   heap_attisnull(tuple, Anum_pg_trigger_tgqual, desc) &&
		   trigger->tgenabled == TRIGGER_FIRES_ALWAYS;
}

/*
 * Which version of the trigger tells of SQL that writes a table of jobs: the transaction that has
 * changed it last; 0: not of all SQL.  Between two versions somebody may have written without it.
 */
static TransactionId
load_trigger_version(Oid live)
{
	Relation rel = table_open(TriggerRelationId, AccessShareLock);
	TransactionId version = InvalidTransactionId;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(live));
	scan = systable_beginscan(rel, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (OidIsValid(catalog.live_trigger) &&
			((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid == catalog.live_trigger &&
			sees_all_statements(tuple, RelationGetDescr(rel)))
			version = HeapTupleHeaderGetRawXmin(tuple->t_data);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

/* The tables of a storage class; live: the name of that of unfinished jobs. */
static void
load_store(QmlStore *store, const char *live, const char *history, const char *overflow)
{
	store->live = lookup_relation(live);
	store->live_pkey = lookup_relation(psprintf("%s_pkey", live));
	store->live_ready = lookup_relation(psprintf("%s_ready", live));
	store->live_due = lookup_relation(psprintf("%s_due", live));
	store->live_trigger_version = load_trigger_version(store->live);
	store->history = lookup_relation(history);
	store->overflow = lookup_relation(overflow);
	store->names = history;
}

static void
check_store(QmlStore *store)
{
	qml_columns_check(QML_TABLE_LIVE, store->live);
	/*
	 * Nobody waits for somebody who has locked all of the history: its partitions are checked
	 * when they are opened.
	 */
	if (ConditionalLockRelationOid(store->history, AccessShareLock))
	{
		Relation history;

		qml_columns_check(QML_TABLE_HISTORY, store->history);
		check_shape(store->history, QML_SHAPE_HISTORY);
		history = table_open(store->history, NoLock);
		store->history_is_plain = qml_shape_is_plain(history, catalog.live_trigger, catalog.states);
		table_close(history, AccessShareLock);
	}
	qml_columns_check(QML_TABLE_HISTORY, store->overflow);
}

static void
load_catalog(void)
{
	Oid extension;
	Oid live;

	memset(&catalog, 0, sizeof(catalog));
	extension = load_extension();
	qml_columns_begin(catalog.sql_minor, InvalidOid);
	catalog.schema = get_namespace_oid(QML_SCHEMA, false);
	live = lookup_relation("live");
	/* A schema named qml that is not the extension's must not be taken for it. */
	if (getExtensionOfObject(RelationRelationId, live) != extension)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.live\" does not belong to extension \"qml\"", QML_SCHEMA)));
	catalog.live_trigger = lookup_function("note_sql", 0, InvalidOid, InvalidOid);
	load_search_functions();
	load_store(&catalog.stores[QML_STORE_LOGGED], "live", "history", "history_overflow");
	load_store(&catalog.stores[QML_STORE_UNLOGGED], "live_unlogged", "history_unlogged",
			   "history_unlogged_overflow");
	catalog.lives = lookup_relation("lives");
	catalog.unlogged_life = lookup_relation("unlogged_life");
	catalog.async_life = lookup_relation("async_life");
	/* A standby cannot read it, and has no rows of these tables. */
	memset(&known_lives, 0, sizeof(known_lives));
	if (!RecoveryInProgress())
		known_lives.unlogged = qml_sequence_read(catalog.unlogged_life, NULL);
	catalog.queue = lookup_relation("queue_data");
	catalog.handler = lookup_relation("handler_data");
	catalog.hook = lookup_relation("hook_data");
	catalog.middleware = lookup_relation("middleware_data");
	catalog.acl = lookup_relation("acl_data");
	catalog.capability_mark = lookup_relation(QML_CAPABILITY_MARK);
	catalog.registration_mark = lookup_relation(QML_REGISTRATION_MARK);
	catalog.lock = lookup_relation("lock_data");
	catalog.instance = lookup_relation("instance_data");
	catalog.pause = lookup_relation("pause_data");
	catalog.recurring = lookup_relation("recurring_data");
	catalog.recurring_due = lookup_relation("recurring_due");
	catalog.occurrence = lookup_relation("occurrence_data");
	for (int i = 0; i < QML_OCCURRENCE_PARTITIONS; i++)
		catalog.occurrences[i] = lookup_relation(psprintf("occurrence_%d", i));
	catalog.server = lookup_relation("server_data");
	catalog.job = lookup_relation("job");
	catalog.job_type = get_rel_type_id(catalog.job);
	load_states();
	qml_columns_begin(catalog.sql_minor, catalog.state_type);
	for (int i = 0; i < QML_STORES; i++)
		check_store(&catalog.stores[i]);
	qml_columns_check(QML_TABLE_RECURRING, catalog.recurring);
	check_free_occurrences();
	qml_columns_check(QML_TABLE_QUEUE, catalog.queue);
	qml_columns_check(QML_TABLE_HANDLER, catalog.handler);
	qml_columns_check(QML_TABLE_HOOK, catalog.hook);
	qml_columns_check(QML_TABLE_MIDDLEWARE, catalog.middleware);
	qml_columns_check(QML_TABLE_ACL, catalog.acl);
	qml_columns_check(QML_TABLE_LOCK, catalog.lock);
	qml_columns_check(QML_TABLE_INSTANCE, catalog.instance);
	qml_columns_check(QML_TABLE_SERVER, catalog.server);
	qml_columns_check(QML_VIEW_JOB, catalog.job);
	check_shapes();
	catalog.adopted = load_adopted();
	catalog.paused = load_paused();
}

/* The objects of this database, up to date.  The pointer is valid for the session. */
const QmlCatalog *
qml_catalog(void)
{
	while (!catalog_valid)
	{
		/* An invalidation that arrives meanwhile clears the flag: it is loaded again. */
		catalog_valid = true;
		checked_leaf = InvalidOid;
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
		/* By the next call, if a server for tests makes one arrive all the time. */
		if (debug_discard_caches > 0)
			break;
	}
	return &catalog;
}

/* The tables of a storage class. */
const QmlStore *
qml_store(QmlStoreId store)
{
	Assert(store >= 0 && store < QML_STORES);
	return &qml_catalog()->stores[store];
}

/*
 * How many storage classes may have jobs: those behind have none.  That is told before anybody can
 * see the first job, but a transaction that has all its locks hears nothing by itself: so this
 * listens, as long as there is one class only.  Who looks for jobs by a snapshot asks when the
 * snapshot has been taken.
 */
int
qml_stores_in_use(void)
{
	if (qml_catalog_known_lives()->unlogged == 0)
		AcceptInvalidationMessages();
	return qml_catalog_known_lives()->unlogged == 0 ? QML_STORE_UNLOGGED : QML_STORES;
}

/* What is known of lives, and may be added to. */
QmlKnownLives *
qml_catalog_known_lives(void)
{
	(void) qml_catalog();
	return &known_lives;
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

/* The state that an enum value stands for; QML_STATES for one that somebody added. */
QmlState
qml_catalog_state_or_none(Oid label)
{
	const QmlCatalog *cat = qml_catalog();

	for (int i = 0; i < QML_STATES; i++)
	{
		if (cat->states[i] == label)
			return (QmlState) i;
	}
	return (QmlState) QML_STATES;
}

/* The same; raises 55000 for a label that somebody added. */
QmlState
qml_catalog_state(Oid label)
{
	QmlState state = qml_catalog_state_or_none(label);

	if (state == (QmlState) QML_STATES)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a row has a value of type \"%s.job_state\" that qml does not know",
						QML_SCHEMA),
				 errdetail("The value has OID %u.", label),
				 errhint("Change the row, or delete it.")));
	return state;
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
