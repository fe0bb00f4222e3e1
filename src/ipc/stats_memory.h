/*
 * stats_memory.h
 *		How the memory of stats_store.c is laid out, for it and for stats_file.c.
 */
#ifndef QML_STATS_MEMORY_H
#define QML_STATS_MEMORY_H

#include "port/atomics.h"
#include "utils/timestamp.h"

#include "ipc/stats_note.h"

#define QML_STATS_BUCKETS 4096

/* A series.  Written with the lock held exclusively, but for the atomic fields. */
typedef struct QmlStatsEntry
{
	pg_atomic_uint32 generation; /* 0: free */
	pg_atomic_uint32 users;		 /* sessions that are adding to it */
	int database;				 /* by number */
	int queue;					 /* 0: of all that have no series of their own */
	uint32 hash;
	uint32 next; /* of its bucket, or the next free one; as all numbers from 1 on, 0: none */
	TimestampTz active_at; /* when something was last stored of it, or it was made */
	int length;			   /* of its method */
	char method[QML_STAT_METHOD];
	pg_atomic_uint64 now[QML_STAT_NUMBERS];
	uint64 stored[QML_STAT_NUMBERS];
} QmlStatsEntry;

typedef struct QmlStatsDatabase
{
	Oid oid; /* InvalidOid: free.  Last to be written, as sessions read it without the lock */
	Oid live;
	uint32 nameless;			/* the series of all that have none */
	pg_atomic_uint64 since;		/* TimestampTz; 0: nothing is pending */
	TimestampTz stored_through; /* what was before this is stored */
	TimestampTz until;			/* what is pending was counted before; 0: it may be of any time */
} QmlStatsDatabase;

typedef struct QmlStatsMemory
{
	int capacity; /* set at start */
	int count;	  /* series with a queue */
	int used;	  /* entries behind these were never used */
	uint32 free;
	uint32 generation; /* the last one that was given */
	int ndatabases;	   /* entries behind these were never used */
	pg_atomic_uint32 version;
	pg_atomic_uint64 missed;
	uint32 buckets[QML_STATS_BUCKETS];
	QmlStatsDatabase databases[QML_STATS_DATABASES];
	QmlStatsEntry series[FLEXIBLE_ARRAY_MEMBER];
} QmlStatsMemory;

extern uint32 qml_stats_memory_hash(int database, int queue, const char *method, int length);
extern uint32 qml_stats_memory_make(QmlStatsMemory *store, int database, int queue,
									const char *method, int length, TimestampTz now);

#endif
