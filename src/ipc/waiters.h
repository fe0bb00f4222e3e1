/*
 * waiters.h
 *		Sessions that wait for a ready job, or for the end of one.
 */
#ifndef QML_WAITERS_H
#define QML_WAITERS_H

#include "ipc/shmem.h"

extern void qml_waiters_begin(QmlWaitKind kind, const int *queues, int nqueues,
							  const pg_uuid_t *job);
extern void qml_waiters_end(void);
extern void qml_waiters_wake_all(void);
extern void qml_waiters_wake(const int *queues, int nqueues, const pg_uuid_t *finished,
							 int nfinished);

#endif
