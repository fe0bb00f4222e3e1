/*
 * search_stream.h
 *		Jobs of a table in the order in which they are shown.
 */
#ifndef QML_SEARCH_STREAM_H
#define QML_SEARCH_STREAM_H

#include "access/skey.h"

#include "common/table.h"
#include "jobs/search_request.h"
#include "model/catalog.h"

/* Which jobs of a table a search can show at all. */
typedef struct QmlSearchBounds
{
	Snapshot snapshot;
	bool has_after;
	QmlSearchPlace after;
	int64 last;		   /* the order of the newest that can match */
	int64 last_by_id;  /* the same where it is sought by id: see search_plan.c */
	int64 first;	   /* and of the oldest */
	int64 looked;	   /* counts those that were looked at, whether they were wanted or not */
	int64 most_looked; /* a stream is cut off when there are more; 0: no limit */
} QmlSearchBounds;

/* A table that is searched. */
typedef struct QmlSearchTable
{
	QmlTable table;
	TupleTableSlot *head; /* for a row that was copied */
	QmlStoreId store;
	bool live;
	QmlSearchBounds bounds;
} QmlSearchTable;

/* To look at so many entries of an index is as much as to look at a job. */
#define QML_STREAM_ENTRIES 16

/* Most conditions of a stream on its index. */
#define QML_STREAM_MAX_KEYS 4

typedef struct QmlSearchStream QmlSearchStream;

/* What of the entries, and of the rows that they lead to, belongs to a stream. */
typedef struct QmlStreamFilter
{
	int by_id; /* the column with the id; not jobs with ids of their own, which stand elsewhere */
	bool only_ready; /* not jobs with run_at */
	bool only_quick; /* not finished jobs that took long */

	/*
	 * The index has (order, queue), or the key in its third column: of one of these queues, and of one
	 * of these methods.
	 */
	bool has_queue;
	int nqueues;
	const int *queues;
	int nmethods;
	const uint32 *methods;
	bool one_key; /* all entries have this key in the first column: */
	int64 key;
} QmlStreamFilter;

extern QmlSearchStream *qml_stream_open(QmlSearchTable *table, Relation index,
										const QmlStreamFilter *filter, ScanKeyData *keys,
										int nkeys);
extern QmlSearchStream *qml_stream_of_rows(QmlSearchTable *table, HeapTuple *rows, int count);
extern QmlSearchStream *qml_stream_open_last_key(QmlSearchTable *table, Relation index,
												 const QmlStreamFilter *filter, int64 first,
												 int64 last, int64 *key);
extern bool qml_stream_next(QmlSearchStream *stream);
extern bool qml_stream_is_cut(const QmlSearchStream *stream);
extern const QmlSearchPlace *qml_stream_place(const QmlSearchStream *stream);
extern QmlSearchRow qml_stream_row(const QmlSearchStream *stream);
extern QmlSearchTable *qml_stream_table(const QmlSearchStream *stream);
extern void qml_stream_read(const QmlSearchStream *stream, QmlJob *job);
extern void qml_stream_close(QmlSearchStream *stream);

extern int qml_stream_add_order_keys(ScanKeyData *keys, int attnum, const QmlSearchBounds *bounds);
extern int qml_stream_add_id_keys(ScanKeyData *keys, int attnum, const QmlSearchBounds *bounds);

#endif
