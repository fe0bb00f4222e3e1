/*
 * cache.c
 *		A small table that each backend remembers whole.
 *
 * The table is read with a catalog snapshot, so that what others committed is
 * seen in every isolation level; again after each change, of which the trigger
 * qml.invalidate tells all backends.  The callback only sets a flag.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "common/cache.h"

/* Memory that is out of date, but may be in use until the transaction ends. */
static List *retired_contexts = NIL;

/* A relation changed; InvalidOid stands for all of them. */
static void
relation_changed(Datum arg, Oid relid)
{
	QmlCache *cache = (QmlCache *) DatumGetPointer(arg);

	if (relid == InvalidOid || relid == cache->relid)
		cache->valid = false;
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

/* Called when the library is loaded. */
void
qml_cache_init(QmlCache *cache)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(delete_retired, NULL);
	registered = true;
	CacheRegisterRelcacheCallback(relation_changed, PointerGetDatum(cache));
}

void
qml_cache_forget(QmlCache *cache)
{
	cache->valid = false;
}

static void
load_table(QmlCache *cache)
{
	Relation rel;
	SysScanDesc scan;
	HeapTuple tuple;

	cache->start();
	rel = try_table_open(cache->relid, AccessShareLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"qml\" was dropped or changed by another session"),
				 errhint("Try again.")));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		cache->add(tuple, RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Makes sure that what is remembered is the table as it is. */
void
qml_cache_refresh(QmlCache *cache, Oid relid)
{
	if (cache->relid != relid)
		cache->valid = false;
	cache->relid = relid;
	while (!cache->valid)
	{
		/* A change that arrives while it is read makes it be read again. */
		cache->valid = true;
		PG_TRY();
		{
			load_table(cache);
		}
		PG_CATCH();
		{
			cache->valid = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
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
