/*
 * dispatch.h
 *		Which workers, listeners and waiting sessions are woken for ready jobs.
 */
#ifndef QML_DISPATCH_H
#define QML_DISPATCH_H

#include "ipc/shmem.h"

/* Kinds of jobs that a transaction remembers one by one. */
#define QML_MAX_READY_KINDS 16

/* Jobs that are ready, or will be when a transaction ends. */
typedef struct QmlReadyWork
{
	Oid roles[QML_MAX_ROLES]; /* of their handlers */
	int nroles;
	bool any_role;							/* more than fit, or not known which */
	QmlReadyJobs jobs[QML_MAX_READY_KINDS]; /* by queue and method */
	int njobs;
	int notify[QML_MAX_WAIT_QUEUES]; /* ids of the queues that have listeners */
	int nnotify;
	bool anything; /* more than fits, or not known what; finished jobs, too */
} QmlReadyWork;

/* By the session whose transaction made jobs ready. */
extern void qml_dispatch_reset(QmlReadyWork *work);
extern void qml_dispatch_add(QmlReadyWork *work, const QmlReadyJobs *ready, Oid role, bool notify);
extern void qml_dispatch_send(const QmlReadyWork *work, TimestampTz all_at,
							  const pg_uuid_t *finished, int nfinished);

/* By a worker, of itself. */
extern void qml_dispatch_clear_work(QmlSlot *worker);
extern void qml_dispatch_set_work(QmlSlot *worker);
extern bool qml_dispatch_has_work(QmlSlot *worker);
extern void qml_dispatch_begin_idle(QmlSlot *worker);
extern void qml_dispatch_stay_idle(QmlSlot *worker);
extern void qml_dispatch_end_idle(QmlSlot *worker);

/* By a worker, for others. */
extern void qml_dispatch_wake_helper(Oid role);
extern void qml_dispatch_offer_slot(bool idle);
extern void qml_dispatch_recheck_later(Oid role);
extern void qml_dispatch_recheck_all(void);

/* By the scheduler. */
extern void qml_dispatch_serve_role(QmlSlot *scheduler, Oid role);
extern bool qml_dispatch_take_roles(QmlSlot *scheduler, Oid *roles, int *nroles);
extern void qml_dispatch_hand_over(QmlSlot *scheduler);
extern bool qml_dispatch_take_notify(QmlSlot *scheduler, int *queues, int *nqueues);

/* From schedulers and workers to the launcher. */
extern void qml_dispatch_request_worker(Oid database, Oid role);
extern int qml_dispatch_take_requests(QmlRequest *requests);
extern void qml_dispatch_set_waiting(bool waiting);

#endif
