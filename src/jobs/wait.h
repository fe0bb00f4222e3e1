/*
 * wait.h
 *		Waiting for a ready job, or for the end of one.
 */
#ifndef QML_WAIT_H
#define QML_WAIT_H

#include "utils/uuid.h"

#include "jobs/method_set.h"
#include "qml.h"

/* The ready jobs that are waited for. */
typedef struct QmlWaitFor
{
	char **queues; /* NULL: all that the user may work */
	int nqueues;
	const QmlMethodSet *methods; /* NULL: as a fetch that names none */
} QmlWaitFor;

extern bool qml_wait_ready(const QmlWaitFor *what, int64 timeout);
extern bool qml_wait_finished(const pg_uuid_t *id, int64 timeout, QmlState *state);

#endif
