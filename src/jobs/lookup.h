/*
 * lookup.h
 *		Looking at jobs.
 */
#ifndef QML_LOOKUP_H
#define QML_LOOKUP_H

#include "utils/tuplestore.h"

#include "common/table.h"
#include "model/job.h"
#include "model/queue.h"

extern bool qml_lookup_live(QmlStoreId store, QmlTable *live, const pg_uuid_t *id,
							Snapshot snapshot, QmlJob *job);
extern Datum qml_lookup_job(const pg_uuid_t *id, TupleDesc expected);
extern bool qml_lookup_state(const pg_uuid_t *id, QmlState *state);
extern int64 qml_lookup_depth(const QmlQueue *queue);
extern bool qml_lookup_unfinished(const pg_uuid_t *id, QmlState *state);
extern void qml_lookup_counts(Tuplestorestate *store, TupleDesc desc);
extern void qml_lookup_queue_counts(Tuplestorestate *store, TupleDesc desc);

#endif
