/*
 * lookup.h
 *		Looking at jobs.
 */
#ifndef QML_LOOKUP_H
#define QML_LOOKUP_H

#include "common/table.h"
#include "model/job.h"
#include "model/queue.h"

extern bool qml_lookup_live(QmlStoreId store, QmlTable *live, const pg_uuid_t *id,
							Snapshot snapshot, QmlJob *job);
extern Datum qml_lookup_job(const pg_uuid_t *id, TupleDesc expected);
extern bool qml_lookup_state(const pg_uuid_t *id, QmlState *state);
extern void qml_lookup_latest(const pg_uuid_t *id, void (*use)(const QmlJob *job, void *arg),
							  void *arg);
extern bool qml_lookup_unfinished(const pg_uuid_t *id, QmlState *state);

#endif
