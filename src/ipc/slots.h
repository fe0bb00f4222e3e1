/*
 * slots.h
 *		The slots of background processes: their life, and what all of them hold.
 */
#ifndef QML_SLOTS_H
#define QML_SLOTS_H

#include "ipc/shmem.h"

/* A slot as it was at one moment. */
typedef struct QmlSlotView
{
	QmlSlotState state;
	QmlKind kind;
	uint32 generation;
	Oid database;
	Oid role;
	int pid;
	bool connected;
	bool idle; /* of a scheduler: it sleeps */
	bool leave;
	QmlOutcome outcome;
	TimestampTz started_at;
	int64 started_ms; /* the same on the monotonic clock */
	TimestampTz heartbeat_at;
} QmlSlotView;

/* What a process leaves behind when it ends. */
typedef struct QmlLeft
{
	bool has_work;		  /* a worker was given work, maybe while it was leaving */
	bool had_concurrency; /* it held concurrency slots, which others may acquire now */
} QmlLeft;

/* By the launcher. */
extern QmlSlot *qml_slots_reserve(QmlKind kind, Oid database, Oid role);
extern void qml_slots_release(QmlSlot *slot);
extern void qml_slots_inspect(QmlSlot *slot, bool lost, QmlSlotView *view);
extern bool qml_slots_terminate_unconnected(QmlSlot *slot, uint32 generation);
extern bool qml_slots_ask_to_leave(QmlSlot *slot, uint32 generation);
extern void qml_slots_let_stay(QmlSlot *slot, uint32 generation);

/* By the process that has the slot. */
extern bool qml_slots_take(QmlSlot *slot, uint32 generation);
extern void qml_slots_set_connected(QmlSlot *slot);
extern void qml_slots_set_role(QmlSlot *slot, Oid role);
extern void qml_slots_set_ready(QmlSlot *slot);
extern void qml_slots_beat(QmlSlot *slot);
extern void qml_slots_hide(QmlSlot *slot);
extern void qml_slots_end(QmlSlot *slot, QmlOutcome outcome, QmlLeft *left);
extern void qml_slots_begin_job(QmlSlot *slot, const pg_uuid_t *job);
extern bool qml_slots_end_job(QmlSlot *slot);
extern void qml_slots_set_progress(QmlSlot *slot, const pg_uuid_t *job, int attempt,
								   const void *document, Size size);

/* By all. */
extern void qml_slots_copy_all(QmlSlotView *views);
extern QmlSlot *qml_slots_find_scheduler(Oid database);
extern void qml_slots_count_all(int *schedulers, int *workers);
extern int qml_slots_count_workers(Oid database, Oid role);
extern int qml_slots_count_idle(Oid database, Oid role);
extern bool qml_slots_is_surplus(const QmlSlot *worker, int most);
extern void qml_slots_cancel_job(const pg_uuid_t *job);
extern void qml_slots_cancel_all_jobs(void);
extern bool qml_slots_take_progress(QmlSlot *worker, QmlProgress *progress);

/* Concurrency slots. */
extern bool qml_slots_acquire_concurrency(QmlSlot *slot, uint32 method, int limit);
extern bool qml_slots_concurrency_is_free(Oid database, uint32 method, int limit,
										  const QmlSlot *except);
extern void qml_slots_release_concurrency(QmlSlot *slot, const uint32 *methods, int count);

#endif
