/*
 * ready_queues.h
 *		Which queues of a database have ready jobs.
 */
#ifndef QML_READY_QUEUES_H
#define QML_READY_QUEUES_H

#include "port/atomics.h"
#include "utils/timestamp.h"

/* Databases with lists of ready jobs; in others the index is searched. */
#define QML_READY_DATABASES 64

/* Queues beyond this id have lists, but are not told of here. */
#define QML_READY_QUEUES 65536

/* Tables of unfinished jobs of a database: see model/catalog.h. */
#define QML_READY_TABLES 2

typedef struct QmlReadyTable
{
	Oid live;
	Oid file;			   /* of it: row numbers are those of this file; InvalidOid: not known */
	TransactionId trigger; /* the version that tells of SQL */
} QmlReadyTable;

/* A database; its number is the place in this array, and in that of the oids. */
typedef struct QmlReadyDatabase
{
	/* Written with all stores locked. */
	QmlReadyTable tables[QML_READY_TABLES];
	pg_atomic_uint32 generation; /* what lists of earlier ones have does not count */

	TimestampTz begun_at; /* since when it counts */
	TimestampTz previous; /* since when what was forgotten then had counted */

	pg_atomic_uint64 used_at; /* TimestampTz, by any session */

	/* Written with a store locked: whether all queues with ready jobs are told of below. */
	pg_atomic_uint32 is_complete;
	bool has_high; /* a queue that has no bit has, or had, ready jobs */

	/*
	 * A bit for each queue that may have ready jobs.  Written with the store of the queue
	 * locked, read without.  `end`: the words from here on were never written.
	 */
	pg_atomic_uint32 end;
	pg_atomic_uint64 words[QML_READY_QUEUES / 64];
} QmlReadyDatabase;

/* Called before lists of these tables are used, or (begins) begun. */
typedef void (*QmlReadyUse)(const QmlReadyTable *tables, int count, bool begins);

extern void qml_ready_queues_init(void);
extern void qml_ready_queues_call_before_use(QmlReadyUse callback);
extern bool qml_ready_queues_exist(void);
extern QmlReadyDatabase *qml_ready_queues_mine(void);
extern bool qml_ready_queues_know(const QmlReadyTable *tables, int count);
extern bool qml_ready_queues_open(const QmlReadyTable *tables, int count);
extern Oid qml_ready_queues_table(int number);
extern void qml_ready_queues_forget(Oid database);
extern void qml_ready_queues_set(QmlReadyDatabase *database, int queue);
extern void qml_ready_queues_clear(QmlReadyDatabase *database, int queue);
extern bool qml_ready_queues_has(QmlReadyDatabase *database, int queue);
extern bool qml_ready_queues_next(int after, int *queue);
extern bool qml_ready_queues_begin(uint32 *generation);
extern void qml_ready_queues_found(uint32 generation, int queue);
extern void qml_ready_queues_complete(uint32 generation);

#endif
