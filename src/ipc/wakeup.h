/*
 * wakeup.h
 *		Telling others, at the end of a transaction, of what is due or will be.
 */
#ifndef QML_WAKEUP_H
#define QML_WAKEUP_H

#include "ipc/shmem.h"

extern void qml_wakeup_init(void);
extern void qml_wakeup_at(QmlWake kind, TimestampTz time);
extern void qml_wakeup_launcher(void);
extern void qml_wakeup_ready(int queue, Oid role, bool announce);
extern void qml_wakeup_taken(int queue, Oid role, bool announce);
extern void qml_wakeup_anything(void);
extern void qml_wakeup_finished(const pg_uuid_t *job);
extern void qml_wakeup_deleted(const pg_uuid_t *job);
extern void qml_wakeup_helper(Oid role);
extern void qml_wakeup_worker(QmlSlot *scheduler, Oid role);
extern void qml_wakeup_waiting(bool idle);
extern void qml_wakeup_later(Oid role);
extern void qml_wakeup_now(QmlWake kind);
extern void qml_wakeup_all_roles(void);
extern void qml_wakeup_lost(const pg_uuid_t *jobs, int count, bool any);
extern TimestampTz qml_wakeup_take(QmlSlot *slot, QmlWake kind);

#endif
