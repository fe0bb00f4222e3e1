/*
 * server.h
 *		Registered servers: groups of workers outside the database.
 */
#ifndef QML_SERVER_H
#define QML_SERVER_H

#include "utils/timestamp.h"
#include "utils/tuplestore.h"

extern char *qml_server_register(const char *name, int workers, Datum queues);
extern bool qml_server_heartbeat(const char *id, bool missing_ok);
extern bool qml_server_unregister(const char *id, bool missing_ok);
extern int qml_server_reclaim(const char *id, bool missing_ok);
extern int qml_server_give_up_silent(TimestampTz *next);
extern void qml_server_forget(void);
extern bool qml_server_is_alive(TimestampTz heartbeat_at);
extern void qml_server_list_background(Tuplestorestate *store, TupleDesc desc);

#endif
