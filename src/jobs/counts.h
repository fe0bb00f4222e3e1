/*
 * counts.h
 *		How many jobs there are.
 */
#ifndef QML_COUNTS_H
#define QML_COUNTS_H

#include "utils/hsearch.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "ipc/counters.h"
#include "model/queue.h"

extern void qml_counts_by_state(Tuplestorestate *store, TupleDesc desc);
extern void qml_counts_by_queue(Tuplestorestate *store, TupleDesc desc);
extern HTAB *qml_counts_queues(bool *from_memory);
extern int64 qml_counts_depth(const QmlQueue *queue);
extern bool qml_counts_of_queues(QmlCounterRow **rows, int *count);

/* For maintenance/counting.c. */
extern bool qml_counts_source(QmlCounterSource *source);
extern bool qml_counts_rows(Snapshot snapshot, bool (*must_stop)(Relation rel),
							bool (*put)(const QmlCounterDelta *delta, bool *has_room),
							bool *has_room);

#endif
