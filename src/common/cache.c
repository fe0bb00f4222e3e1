/*
 * cache.c
 *		A small table that each backend remembers.
 *
 * The table is read with a catalog snapshot, so that what others committed is
 * seen in every isolation level; again after each change, of which the trigger
 * qml.invalidate tells all backends.  The callback only counts.  What qml writes itself it
 * tells without the trigger, which the owner of the tables can disable, as pg_restore
 * --disable-triggers does.
 *
 * After a change the rows that are asked for are read one by one, by an index, and only
 * when they are many the whole table.  So a transaction that adds many rows does not
 * read all of them again after each.  What was read before the last change that the
 * session knows of is out of date.
 *
 * A table of many rows (QmlCache.row_changed) tells which of them changed, so that all others
 * stay as they are remembered, and so do the catalog and the plans of all backends.  The server
 * has no message for that, but one that names a relation by an oid, and nothing asks whether
 * there is such a relation: what a backend does not know it passes over.  So a row is told as
 * the relation ROW_BIT + its id.  Like all messages it arrives when the transaction commits,
 * in this backend also after each command, and again when a subtransaction is rolled back.
 * Should there be a relation of that oid, or another table of the kind, something is read again
 * that need not be.
 *
 * A server has room for ten callbacks of this kind in a process, its own and those of all
 * libraries together; a process that needs more ends.  So qml registers one, and passes on
 * what it hears.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "common/hashfn.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "common/cache.h"
#include "common/table.h"

/*
 * So many rows are read one by one after a change; then the table is read whole.  So it is
 * when as many rows as it had, or these, were read since: what is no longer in the table
 * is forgotten then.
 */
#define MAX_SINGLE_ROWS 16
#define MIN_SINCE_WHOLE 64

/* What stands for a row of a table that is told by row. */
#define ROW_BIT ((Oid) 0x80000000)

/*
 * So many rows that one command changes are told one by one.  The server looks through those
 * that it has noted for the command, each time.
 */
#define MAX_ROWS_OF_COMMAND 64

/* Memory that is out of date, but may be in use until the transaction ends. */
static List *retired_contexts = NIL;

/* Who is told of changed relations.  Entered while the library is loaded. */
#define MAX_CACHES	  8
#define MAX_LISTENERS 4

static QmlCache *caches[MAX_CACHES];
static int ncaches = 0;
static void (*listeners[MAX_LISTENERS])(Oid relid);
static int nlisteners = 0;

/* Who is told of what this session writes. */
static void (*report_written)(Oid relid, int32 id) = NULL;

/* One row is out of date, or new, or no more. */
static void
forget_row(QmlCache *cache, int32 id)
{
	cache->seen++;
	cache->row_changed(id);
	if (!cache->valid)
		return;
	for (int i = 0; i < cache->nchanged; i++)
	{
		if (cache->changed[i] == id)
			return;
	}
	if (cache->nchanged < QML_CACHE_CHANGED_ROWS)
		cache->changed[cache->nchanged++] = id;
	else
		cache->valid = false;
}

/* A relation changed; InvalidOid stands for all of them. */
static void
relation_changed(Datum arg, Oid relid)
{
	for (int i = 0; i < ncaches; i++)
	{
		if (relid == InvalidOid || relid == caches[i]->relid)
			qml_cache_forget(caches[i]);
		else if ((relid & ROW_BIT) && caches[i]->row_changed)
			forget_row(caches[i], (int32) (relid & ~ROW_BIT));
	}
	for (int i = 0; i < nlisteners; i++)
		listeners[i](relid);
}

/* Triggers and hooks can still run at the PRE events; at all others, nothing is in use. */
static void
delete_retired(XactEvent event, void *arg)
{
	ListCell *lc;

	if (retired_contexts == NIL || event == XACT_EVENT_PRE_COMMIT ||
		event == XACT_EVENT_PRE_PREPARE || event == XACT_EVENT_PARALLEL_PRE_COMMIT)
		return;
	foreach(lc, retired_contexts)
		MemoryContextDelete(lfirst(lc));
	list_free(retired_contexts);
	retired_contexts = NIL;
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	RegisterXactCallback(delete_retired, NULL);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	registered = true;
}

/* Called when the library is loaded. */
void
qml_cache_init(QmlCache *cache)
{
	Assert(ncaches < MAX_CACHES);
	caches[ncaches++] = cache;
	register_callbacks();
}

/*
 * The same for what is no such table: the function is called with each relation that
 * changed, and InvalidOid for all.  It must not raise.
 */
void
qml_cache_listen(void (*changed)(Oid relid))
{
	Assert(nlisteners < MAX_LISTENERS);
	listeners[nlisteners++] = changed;
	register_callbacks();
}

/*
 * The function is called when this session has written a row of a table, by its id, or (-1) some
 * rows; the transaction has not ended.
 */
void
qml_cache_report_writes(void (*written)(Oid relid, int32 id))
{
	Assert(report_written == NULL);
	report_written = written;
}

/* All that was read is out of date. */
void
qml_cache_forget(QmlCache *cache)
{
	cache->valid = false;
	cache->changes++;
	cache->seen++;
	cache->nsingle = 0;
}

/* The next command, of this backend too: only one that has written something has a next one. */
static void
begin_next_command(void)
{
	(void) GetCurrentCommandId(true);
	CommandCounterIncrement();
}

/* Tells of a table, with the end of the current command. */
void
qml_cache_tell_table(Oid relid)
{
	CacheInvalidateRelcacheByRelid(relid);
	if (report_written)
		report_written(relid, -1);
}

/* This transaction has written rows of a table: makes all backends read it again. */
void
qml_cache_changed(Oid relid)
{
	qml_cache_tell_table(relid);
	begin_next_command();
}

/*
 * Tells of one row of a table that is told by row, with the end of the current command.  For
 * a command that changes many rows it tells of the table.
 */
void
qml_cache_tell_row(Oid relid, int32 id)
{
	static TransactionId last_xid = InvalidTransactionId;
	static CommandId last_command = InvalidCommandId;
	static int nrows = 0;
	TransactionId xid = GetTopTransactionId();
	CommandId command = GetCurrentCommandId(true);
	Size offset = MAXALIGN(SizeofHeapTupleHeader);
	HeapTuple tuple;
	Form_pg_class class;

	if (xid != last_xid || command != last_command)
	{
		last_xid = xid;
		last_command = command;
		nrows = 0;
	}
	/* An id that somebody wrote by hand may be negative. */
	if (id < 0)
	{
		qml_cache_tell_table(relid);
		return;
	}
	if (report_written)
		report_written(relid, id);
	if (nrows >= MAX_ROWS_OF_COMMAND)
	{
		CacheInvalidateRelcacheByRelid(relid);
		return;
	}
	nrows++;

	/* The row of pg_class as far as it is looked at. */
	tuple = palloc0(HEAPTUPLESIZE + offset + sizeof(FormData_pg_class));
	tuple->t_len = offset + sizeof(FormData_pg_class);
	tuple->t_data = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);
	tuple->t_data->t_hoff = offset;
	class = (Form_pg_class) GETSTRUCT(tuple);
	class->oid = ROW_BIT | (Oid) id;
	class->relisshared = false;
	CacheInvalidateRelcacheByTuple(tuple);
	pfree(tuple);
}

/* qml_cache_changed() for one row of a table that is told by row. */
void
qml_cache_row_changed(Oid relid, int32 id)
{
	qml_cache_tell_row(relid, id);
	begin_next_command();
}

/* The table is this one: another one after the extension was created again. */
void
qml_cache_set_table(QmlCache *cache, Oid relid)
{
	if (cache->relid == relid)
		return;
	cache->relid = relid;
	qml_cache_forget(cache);
}

/* Opens the table; what changes from now on makes what is read out of date. */
static Relation
open_table(QmlCache *cache)
{
	Relation rel = try_table_open(cache->relid, AccessShareLock);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"qml\" was dropped or changed by another session"),
				 errhint("Try again.")));
	qml_table_check(rel, false);
	cache->reading = cache->changes;
	cache->reading_seen = cache->seen;
	return rel;
}

/*
 * Makes sure that what is remembered is the table as it is.  If it changes while it is
 * read, the caller gets what was there before, and the next one reads again.
 */
void
qml_cache_refresh(QmlCache *cache, Oid relid)
{
	Relation rel;
	SysScanDesc scan;
	HeapTuple tuple;

	qml_cache_set_table(cache, relid);
	if (cache->valid)
		return;
	rel = open_table(cache);
	cache->nrows = 0;
	cache->nsince_whole = 0;
	cache->nchanged = 0;
	cache->start();
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		cache->add(tuple, RelationGetDescr(rel));
		cache->nrows++;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	cache->valid = qml_cache_holds(cache);
}

/* The unique index of that name, if it is on this column alone; InvalidOid otherwise. */
static Oid
find_index(Relation rel, const char *name, AttrNumber attribute)
{
	Oid index = get_relname_relid(name, RelationGetNamespace(rel));
	HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	bool fits;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	{
		Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);

		fits = form->indrelid == RelationGetRelid(rel) && form->indisvalid && form->indisunique &&
			   form->indnatts == 1 && form->indkey.values[0] == attribute &&
			   heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
	}
	ReleaseSysCache(tuple);
	return fits ? index : InvalidOid;
}

/* Adds the rows that the keys select by the index; false: the index is not as it should be. */
static bool
read_rows(QmlCache *cache, const QmlCacheKey *key, ScanKeyData *keys, int nkeys,
		  void (*add)(HeapTuple tuple, TupleDesc desc))
{
	Relation rel = open_table(cache);
	Oid index = find_index(rel, key->index, key->attribute);

	if (OidIsValid(index))
	{
		Oid collation = TupleDescAttr(RelationGetDescr(rel), key->attribute - 1)->attcollation;
		SysScanDesc scan;
		HeapTuple tuple;

		for (int i = 0; i < nkeys; i++)
			keys[i].sk_collation = collation;
		scan = systable_beginscan(rel, index, true, NULL, nkeys, keys);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
			add(tuple, RelationGetDescr(rel));
		systable_endscan(scan);
		cache->nsingle++;
		cache->nsince_whole++;
	}
	table_close(rel, AccessShareLock);
	return OidIsValid(index);
}

/*
 * Reads the row with this key, and adds it by `add`; the table is not valid as a whole.
 * False: the rows that were asked for are so many, or the index is not as it should be, that
 * the caller must read all of it.
 */
bool
qml_cache_read_row(QmlCache *cache, const QmlCacheKey *key, Datum value,
				   void (*add)(HeapTuple tuple, TupleDesc desc))
{
	ScanKeyData equal;

	Assert(OidIsValid(cache->relid));
	/* Where rows are told one by one, each is read once and need not be again. */
	if (cache->row_changed == NULL && (cache->nsingle >= MAX_SINGLE_ROWS ||
									   cache->nsince_whole >= Max(cache->nrows, MIN_SINCE_WHOLE)))
		return false;
	ScanKeyInit(&equal, key->attribute, BTEqualStrategyNumber, key->equal, value);
	return read_rows(cache, key, &equal, 1, add);
}

/* The same for all rows of a range, of a table that is told by row. */
bool
qml_cache_read_range(QmlCache *cache, const QmlCacheRange *range,
					 void (*add)(HeapTuple tuple, TupleDesc desc))
{
	AttrNumber attribute = range->key->attribute;
	ScanKeyData bounds[2];

	Assert(OidIsValid(cache->relid) && cache->row_changed);
	ScanKeyInit(&bounds[0], attribute, BTGreaterEqualStrategyNumber, F_INT4GE,
				Int32GetDatum(range->from));
	ScanKeyInit(&bounds[1], attribute, BTLessEqualStrategyNumber, F_INT4LE,
				Int32GetDatum(range->to));
	return read_rows(cache, range->key, bounds, 2, add);
}

/* Deletes the context when the transaction ends: until then, callers may point into it. */
void
qml_cache_retire(MemoryContext context)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

	Assert(IsTransactionState());
	retired_contexts = lappend(retired_contexts, context);
	MemoryContextSwitchTo(oldcontext);
}

/* For a hash table whose key is a pointer to a name: the name counts. */
uint32
qml_cache_hash_name(const void *key, Size keysize)
{
	const char *name = *(const char *const *) key;

	return hash_bytes((const unsigned char *) name, strlen(name));
}

int
qml_cache_match_names(const void *a, const void *b, Size keysize)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}
