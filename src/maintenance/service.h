/*
 * service.h
 *		Which databases are served by background processes, and what the others lack.
 */
#ifndef QML_SERVICE_H
#define QML_SERVICE_H

#include "access/tupdesc.h"
#include "utils/tuplestore.h"

extern void qml_service_list(bool all, Tuplestorestate *store, TupleDesc desc);

#endif
