/*
 * wakeup.h
 *		What a transaction makes due or ready, and whom it wakes when it ends.
 */
#ifndef QML_WAKEUP_H
#define QML_WAKEUP_H

#include "ipc/shmem.h"

extern void qml_wakeup_init(void);
extern void qml_wakeup_read_rules(void);
extern void qml_wakeup_at(QmlWake kind, TimestampTz time);
extern void qml_wakeup_launcher(bool sure);
extern void qml_wakeup_ready(const QmlReadyJobs *jobs, Oid role, bool notify);
extern void qml_wakeup_taken(const QmlReadyJobs *jobs, Oid role, bool notify);
extern void qml_wakeup_for_returned(void);
extern void qml_wakeup_now(bool launcher, bool rules_changed);
extern void qml_wakeup_rules_changed(void);
extern void qml_wakeup_anything(void);
extern void qml_wakeup_anything_at(TimestampTz time);
extern void qml_wakeup_finished(const pg_uuid_t *job);
extern void qml_wakeup_deleted(const pg_uuid_t *job);
extern void qml_wakeup_ended(const pg_uuid_t *job, int attempt);
extern bool qml_wakeup_is_pending(bool *launcher, bool *has_taken, bool *rules);
extern int qml_wakeup_take_calls(QmlCall *calls, bool *all);

#endif
