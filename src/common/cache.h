/*
 * cache.h
 *		A small table that each backend remembers.
 */
#ifndef QML_CACHE_H
#define QML_CACHE_H

#include "access/htup.h"
#include "access/tupdesc.h"

/* So many rows that changed are read again one by one when the whole table is asked for. */
#define QML_CACHE_CHANGED_ROWS 64

/* The callbacks keep what they remember in memory of their own. */
typedef struct QmlCache
{
	void (*start)(void);						  /* before the first row of the whole table */
	void (*add)(HeapTuple tuple, TupleDesc desc); /* for each row */
	void (*row_changed)(int32 id); /* NULL unless told by row: that one is out of date */
	Oid relid;					   /* the table, once looked up */
	bool valid;					   /* all of it is remembered as it is */
	uint64 changes;				   /* of the table that the session knows of */
	uint64 reading;				   /* value of `changes` when it was read last */
	uint64 seen;				   /* the same, and of its rows */
	uint64 reading_seen;		   /* value of `seen` when it was read last */
	int nchanged;				   /* rows that changed while `valid`, and their ids */
	int32 changed[QML_CACHE_CHANGED_ROWS];
	int nsingle;		/* rows read one by one since the last change */
	int64 nsince_whole; /* the same since the whole table was read */
	int64 nrows;		/* that were there then */
} QmlCache;

/* The unique index by which single rows are found. */
typedef struct QmlCacheKey
{
	const char *index;
	AttrNumber attribute;
	RegProcedure equal;
} QmlCacheKey;

/* The same of an int4, to read all rows whose keys are within a range. */
typedef struct QmlCacheRange
{
	const QmlCacheKey *key;
	int32 from;
	int32 to;
} QmlCacheRange;

extern void qml_cache_init(QmlCache *cache);
extern void qml_cache_listen(void (*changed)(Oid relid));
extern void qml_cache_report_writes(void (*written)(Oid relid, int32 id));
extern void qml_cache_set_table(QmlCache *cache, Oid relid);
extern void qml_cache_refresh(QmlCache *cache, Oid relid);
extern bool qml_cache_read_row(QmlCache *cache, const QmlCacheKey *key, Datum value,
							   void (*add)(HeapTuple tuple, TupleDesc desc));
extern bool qml_cache_read_range(QmlCache *cache, const QmlCacheRange *range,
								 void (*add)(HeapTuple tuple, TupleDesc desc));
extern void qml_cache_forget(QmlCache *cache);
extern void qml_cache_changed(Oid relid);
extern void qml_cache_tell_table(Oid relid);
extern void qml_cache_tell_row(Oid relid, int32 id);
extern void qml_cache_row_changed(Oid relid, int32 id);
extern void qml_cache_retire(MemoryContext context);
extern uint32 qml_cache_hash_name(const void *key, Size keysize);
extern int qml_cache_match_names(const void *a, const void *b, Size keysize);

/* Whether nothing has changed since it was begun to be read. */
static inline bool
qml_cache_holds(const QmlCache *cache)
{
	return cache->reading_seen == cache->seen;
}

/*
 * Whether what is remembered of a row holds, read_at being cache->reading when it was read;
 * 0: it was not read, and is not in the table if all of that is remembered.
 */
static inline bool
qml_cache_is_current(const QmlCache *cache, uint64 read_at)
{
	return cache->valid || (read_at != 0 && read_at == cache->changes);
}

#endif
