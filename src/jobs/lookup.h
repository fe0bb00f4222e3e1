/*
 * lookup.h
 *		Looking at jobs.
 */
#ifndef QML_LOOKUP_H
#define QML_LOOKUP_H

#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "qml.h"

extern Datum qml_lookup_job(const pg_uuid_t *id);
extern bool qml_lookup_state(const pg_uuid_t *id, QmlState *state);
extern void qml_lookup_counts(Tuplestorestate *store, TupleDesc desc);
extern void qml_lookup_queue_counts(Tuplestorestate *store, TupleDesc desc);

#endif
