/*
 * cache.h
 *		A small table that each backend remembers whole.
 */
#ifndef QML_CACHE_H
#define QML_CACHE_H

#include "access/htup.h"
#include "access/tupdesc.h"

typedef struct QmlCache
{
	const char *name;
	void (*start)(void);						  /* makes the empty structures */
	void (*add)(HeapTuple tuple, TupleDesc desc); /* adds one row to them */
	Oid relid;									  /* the table, once looked up */
	bool valid;
	MemoryContext context; /* of all that is remembered */
} QmlCache;

extern void qml_cache_init(QmlCache *cache);
extern void qml_cache_refresh(QmlCache *cache, Oid relid);
extern void qml_cache_forget(QmlCache *cache);

#endif
