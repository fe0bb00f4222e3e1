/*
 * worker_pool.h
 *		Which worker the launcher starts next.
 */
#ifndef QML_WORKER_POOL_H
#define QML_WORKER_POOL_H

#include "ipc/shmem.h"

/* A role of a database that wants one more worker. */
typedef struct QmlWanted
{
	Oid database;
	Oid role;
	bool open;			   /* is wanted; if not, it is kept for its failures */
	bool tried;			   /* in this round: it waits until there is room */
	int64 since;		   /* monotonic, milliseconds */
	int64 not_before;	   /* the same */
	int failures;		   /* of its workers to start or to work, in a row */
	TimestampTz failed_at; /* the last of them */
} QmlWanted;

extern void qml_worker_pool_poll(int64 now);
extern int qml_worker_pool_count_waiting(Oid database);
extern QmlWanted *qml_worker_pool_next(int64 now);
extern void qml_worker_pool_note_started(QmlWanted *wanted);
extern void qml_worker_pool_note_working(Oid database, Oid role, TimestampTz started_at);
extern void qml_worker_pool_note_ended(Oid database, Oid role, QmlOutcome outcome, int64 now);
extern void qml_worker_pool_retry(Oid database);
extern int64 qml_worker_pool_time_left(int64 now);
extern bool qml_worker_pool_make_room(QmlWanted *wanted, bool server_is_full, int64 now);
extern void qml_worker_pool_make_room_for_scheduler(int64 now);
extern void qml_worker_pool_end_round(void);

#endif
