/*
 * waiters.h
 *		Sessions that wait for a ready job, or for the end of one.
 */
#ifndef QML_WAITERS_H
#define QML_WAITERS_H

#include "ipc/shmem.h"

/* By a session that waits. */
extern void qml_waiters_begin_ready(const uint32 *queues, int nqueues, const uint32 *methods,
									int nmethods);
extern void qml_waiters_begin_finished(const pg_uuid_t *job);
extern int64 qml_waiters_next_look(void);
extern bool qml_waiters_take(int64 now);
extern void qml_waiters_found(int64 now);
extern void qml_waiters_found_nothing(bool (*is_for_others)(const QmlReadyJobs *ready, void *arg),
									  void *arg);
extern void qml_waiters_end(void);

/* By a session that fetches, and ends what it fetched. */
extern void qml_waiters_claimed(int queue);
extern void qml_waiters_ended(void);
extern void qml_waiters_fetched(void);

/* By whoever explains why a job does not run. */
extern bool qml_waiters_expect(const QmlReadyJobs *ready, bool any_method);

/* By a session whose transaction has ended. */
extern void qml_waiters_wake_all(void);
extern void qml_waiters_wake(const QmlReadyJobs *ready, int nready, const pg_uuid_t *finished,
							 int nfinished);

#endif
