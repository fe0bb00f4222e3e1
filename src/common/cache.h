/*
 * cache.h
 *		A small table that each backend remembers whole.
 */
#ifndef QML_CACHE_H
#define QML_CACHE_H

#include "access/htup.h"
#include "access/tupdesc.h"

/* The callbacks keep what they remember in memory of their own. */
typedef struct QmlCache
{
	void (*start)(void);						  /* before the first row */
	void (*add)(HeapTuple tuple, TupleDesc desc); /* for each row */
	Oid relid;									  /* the table, once looked up */
	bool valid;
} QmlCache;

extern void qml_cache_init(QmlCache *cache);
extern void qml_cache_refresh(QmlCache *cache, Oid relid);
extern void qml_cache_forget(QmlCache *cache);
extern void qml_cache_retire(MemoryContext context);
extern uint32 qml_cache_hash_name(const void *key, Size keysize);
extern int qml_cache_match_names(const void *a, const void *b, Size keysize);

#endif
