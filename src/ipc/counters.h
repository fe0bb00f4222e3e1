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

/* What became of a count. */
typedef enum QmlCounterOutcome
{
	QML_COUNTED = 0,
	QML_COUNT_ENDED,	 /* nobody has told: its process ended, or is still at work */
	QML_COUNT_DISTURBED, /* somebody came between */
	QML_COUNT_FAILED,	 /* with an error */
	QML_COUNT_NO_ROOM,
	QML_COUNT_NO_PROCESS
} QmlCounterOutcome;

/* When a database was counted, and may be again.  Times with "ms" are monotonic. */
typedef struct QmlCounterTimes
{
	int64 made_ms;			   /* when the last count came to its end; 0: none did */
	int64 not_before_ms;	   /* when the next one may begin */
	uint64 written;			   /* rows written in the database until then; 0: not known */
	int tries;				   /* counts in a row that came to nothing, with one at work */
	TimestampTz trying_since;  /* when the first of those began */
	QmlCounterOutcome outcome; /* of the last one */
	TimestampTz counted_at;	   /* as made_ms */
	TimestampTz begun_at;	   /* since when a process counts; 0: none does */
	int pid;				   /* of that process */
} QmlCounterTimes;

extern void qml_counters_init(void);

/* For sessions. */
extern bool qml_counters_read(const QmlCounterSource *source, QmlCounterRow **rows, int *count);
extern bool qml_counters_read_queue(const QmlCounterSource *source, int queue, QmlCounterRow *row);
extern TransactionId qml_counters_announce(TransactionId xid);
extern void qml_counters_apply(TransactionId xid, const QmlCounterDelta *deltas, size_t step,
							   int count);
extern void qml_counters_forget(Oid database);
extern bool qml_counters_are_valid(void);

/* For the scheduler, and the process that counts. */
extern void qml_counters_get_times(QmlCounterTimes *times);
extern void qml_counters_set_times(const QmlCounterTimes *times);
extern void qml_counters_keep(void);
extern bool qml_counters_have_room(void);
extern bool qml_counters_are_made(void);
extern uint64 qml_counters_ask(void);
extern bool qml_counters_answer(uint64 asked);
extern void qml_counters_release(uint64 asked);

/* For whoever counts all rows. */
extern bool qml_counters_begin(const QmlCounterSource *source, Snapshot *snapshot);
extern bool qml_counters_put(const QmlCounterDelta *delta, bool *has_room);
extern bool qml_counters_wait(void (*settle)(bool all));
extern bool qml_counters_finish(QmlCounterDefect *defect);
extern void qml_counters_cancel(void);

#endif
