/*
 * counters.h
 *		The numbers of jobs by queue and state, in shared memory.
 */
#ifndef QML_COUNTERS_H
#define QML_COUNTERS_H

#include "utils/snapshot.h"

#include "ipc/counter_store.h"

/* Tables of unfinished jobs: one a storage class. */
#define QML_COUNTER_TABLES 2

/* Which rows are counted: tables, and the versions of the triggers that tell of SQL. */
typedef struct QmlCounterSource
{
	Oid live[QML_COUNTER_TABLES]; /* InvalidOid: there is no such table */
	TransactionId trigger[QML_COUNTER_TABLES];
} QmlCounterSource;

/* When a database was counted, and may be again: monotonic, in milliseconds. */
typedef struct QmlCounterTimes
{
	int64 made_at;	  /* when the last count came to its end; 0: none did */
	int64 not_before; /* when the next one may begin */
	int failures;	  /* counts in a row that came to nothing */
} QmlCounterTimes;

/* A number that was found to be wrong, the first of them. */
typedef struct QmlCounterDefect
{
	int found; /* so many are wrong */
	int queue;
	QmlState state;
	int64 counted;
	int64 real;
} QmlCounterDefect;

extern void qml_counters_init(void);

/* For sessions. */
extern bool qml_counters_read(const QmlCounterSource *source, QmlCounterRow **rows, int *count);
extern bool qml_counters_read_queue(const QmlCounterSource *source, int queue, QmlCounterRow *row);
extern TransactionId qml_counters_announce(TransactionId xid);
extern void qml_counters_apply(TransactionId xid, const QmlCounterDelta *deltas, size_t step,
							   int count);
extern void qml_counters_forget(Oid database);
extern bool qml_counters_are_valid(void);
extern bool qml_counters_are_made(void);
extern bool qml_counters_have_room(void);
extern void qml_counters_get_times(QmlCounterTimes *times);
extern void qml_counters_set_times(const QmlCounterTimes *times);

/* For whoever counts all rows. */
extern bool qml_counters_begin(const QmlCounterSource *source, Snapshot *snapshot);
extern bool qml_counters_put(const QmlCounterDelta *delta, bool *has_room);
extern bool qml_counters_wait(void (*settle)(bool all));
extern bool qml_counters_finish(QmlCounterDefect *defect);
extern void qml_counters_cancel(void);

#endif
