/*
 * dead_server.h
 *		The servers that were given up: which jobs are lost with them.
 */
#ifndef QML_DEAD_SERVER_H
#define QML_DEAD_SERVER_H

#include "utils/timestamp.h"

/* A server that was given up. */
typedef struct QmlDeadServer
{
	char *id;
	TimestampTz dead_at;
} QmlDeadServer;

typedef struct QmlDeadServers
{
	int count;
	QmlDeadServer servers[FLEXIBLE_ARRAY_MEMBER]; /* by id */
} QmlDeadServers;

extern QmlDeadServers *qml_dead_server_read(void);
extern bool qml_dead_server_find(const QmlDeadServers *dead, const char *id, int length,
								 TimestampTz after);

#endif
