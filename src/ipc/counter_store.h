/*
 * counter_store.h
 *		Memory for the numbers of jobs by queue and state.
 */
#ifndef QML_COUNTER_STORE_H
#define QML_COUNTER_STORE_H

#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "qml.h"

/* In place of a state: there is no such job before, or behind, a change. */
#define QML_NOT_COUNTED QML_STATES

/* So many jobs of a queue go from a state to another one. */
typedef struct QmlCounterDelta
{
	int queue;
	int count;
	uint8 from;
	uint8 to;
	uint32 from_until; /* of final states, when such jobs expire: qml_counter_store_until() */
	uint32 to_until;
} QmlCounterDelta;

/* The jobs of a queue. */
typedef struct QmlCounterRow
{
	int queue;
	int64 counts[QML_STATES];
} QmlCounterRow;

/* A number that was found to be wrong, the first of them. */
typedef struct QmlCounterDefect
{
	int found; /* so many are wrong */
	int queue;
	QmlState state;
	int64 counted;
	int64 real;
} QmlCounterDefect;

/* Partitions, with a lock each, and the queues that each has room for. */
#define QML_COUNTER_PARTITIONS 16
#define QML_COUNTER_QUEUES	   4096

typedef struct QmlCounterPartition QmlCounterPartition;

/* Where a change is to be counted. */
typedef struct QmlCounterPlace
{
	struct QmlCounterQueue *queue;
	struct QmlCounterExpiry *from; /* NULL: not a final state */
	struct QmlCounterExpiry *to;
} QmlCounterPlace;

extern Size qml_counter_store_request(void);
extern Size qml_counter_store_size(void);
extern void qml_counter_store_init(void *memory, bool found);
extern uint32 qml_counter_store_until(TimestampTz expires_at);
extern bool qml_counter_store_is_over(uint32 until, TimestampTz now);

extern QmlCounterPartition *qml_counter_store_partition(int number);
extern QmlCounterPartition *qml_counter_store_of(Oid database, int queue);
extern void qml_counter_store_lock(QmlCounterPartition *partition, LWLockMode mode);
extern void qml_counter_store_unlock(QmlCounterPartition *partition);
extern void qml_counter_store_lock_all(void);
extern void qml_counter_store_unlock_all(void);

extern void qml_counter_store_make_room(QmlCounterPartition *partition);
extern bool qml_counter_store_find(QmlCounterPartition *partition, uint32 generation,
								   const QmlCounterDelta *delta, bool make, QmlCounterPlace *place);
extern void qml_counter_store_add(const QmlCounterPlace *place, const QmlCounterDelta *delta);
extern int qml_counter_store_read(QmlCounterPartition *partition, uint32 generation,
								  TimestampTz now, QmlCounterRow *rows);
extern bool qml_counter_store_read_queue(QmlCounterPartition *partition, uint32 generation,
										 int queue, TimestampTz now, QmlCounterRow *row);
extern void qml_counter_store_compare(QmlCounterPartition *partition, uint32 current, uint32 next,
									  QmlCounterRow *rows, QmlCounterDefect *defect);
extern void qml_counter_store_sweep(QmlCounterPartition *partition,
									bool (*is_used)(uint32 generation));

#endif
