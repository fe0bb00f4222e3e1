/*
 * service.h
 *		Which databases are served by background processes, and what the others lack.
 */
#ifndef QML_SERVICE_H
#define QML_SERVICE_H

#include "access/tupdesc.h"
#include "utils/tuplestore.h"

#include "ipc/databases.h"

/* How this database is served. */
typedef struct QmlService
{
	bool is_known; /* the launcher shows it */
	QmlDatabaseView view;
	const char *problem; /* what it lacks, as a sentence without a full stop; NULL: nothing */
	int workers;
	int processes;	/* that there can be in all databases; 0: not known yet */
	bool by_server; /* because the server has no slot for more */
	int databases;	/* that need a scheduler, of those that are known */
} QmlService;

extern void qml_service_find_own(QmlService *service);
extern void qml_service_list(bool all, Tuplestorestate *store, TupleDesc desc);

#endif
