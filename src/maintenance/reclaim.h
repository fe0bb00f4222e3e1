/*
 * reclaim.h
 *		Reclaiming jobs whose worker is lost.
 */
#ifndef QML_RECLAIM_H
#define QML_RECLAIM_H

#include "utils/timestamp.h"
#include "utils/uuid.h"

extern int qml_reclaim_expired(int max, TimestampTz *next);
extern int qml_reclaim_of_sessions(const pg_uuid_t *ids, int count);
extern int qml_reclaim_of_server(const char *server, int max);
extern void qml_reclaim_all(void);

#endif
