/*
 * unlogged_rows.h
 *		The jobs of unlogged queues, for the view of all jobs.
 */
#ifndef QML_UNLOGGED_ROWS_H
#define QML_UNLOGGED_ROWS_H

#include "utils/tuplestore.h"

extern void qml_unlogged_rows_store(Tuplestorestate *store, TupleDesc desc);

#endif
