/*
 * reclaim.h
 *		Reclaiming jobs whose worker is lost.
 */
#ifndef QML_RECLAIM_H
#define QML_RECLAIM_H

#include "ipc/lease_table.h"
#include "maintenance/dead_server.h"
#include "maintenance/job_pass.h"

/* What a search for lost jobs knows; all zero when it begins. */
typedef struct QmlLostSearch
{
	QmlDeadServers *dead; /* NULL: not read yet */
	bool of_server;		  /* the job that was found last is lost with its server */
} QmlLostSearch;

extern int qml_reclaim_lost(int max);
extern int qml_reclaim_over(int max, bool of_servers, TimestampTz *next);
extern int qml_reclaim_of_sessions(const pg_uuid_t *ids, int count);
extern int qml_reclaim_of_server(const char *server);
extern void qml_reclaim_all(void);

/* By reading.c. */
extern bool qml_reclaim_is_over(QmlJobPass *pass, TupleTableSlot *slot);
extern void qml_reclaim_job(QmlJobPass *pass, QmlJob *job);
extern bool qml_reclaim_read_claim(TupleTableSlot *slot, QmlLease *claim);

#endif
