/*
 * reclaim.h
 *		Reclaiming jobs whose worker is lost.
 */
#ifndef QML_RECLAIM_H
#define QML_RECLAIM_H

#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "common/walk.h"

extern int qml_reclaim_lost(QmlWalk *walk, int max, bool *over, TimestampTz *next);
extern int qml_reclaim_of_sessions(const pg_uuid_t *ids, int count);
extern int qml_reclaim_of_server(const char *server);
extern void qml_reclaim_all(void);

#endif
