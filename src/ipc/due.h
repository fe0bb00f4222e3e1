/*
 * due.h
 *		What is due in a database, and how its scheduler sleeps until then.
 */
#ifndef QML_DUE_H
#define QML_DUE_H

#include "ipc/shmem.h"

/* By any session. */
extern void qml_due_lower(QmlSlot *scheduler, QmlWake kind, TimestampTz time);
extern bool qml_due_wake_before(QmlSlot *scheduler, TimestampTz time);
extern void qml_due_at(QmlSlot *scheduler, QmlWake kind, TimestampTz time);
extern void qml_due_now(QmlWake kind);

/* By the scheduler. */
extern TimestampTz qml_due_take(QmlSlot *scheduler, QmlWake kind);
extern void qml_due_hand_over(QmlSlot *scheduler);
extern void qml_due_sleep_until(QmlSlot *scheduler, TimestampTz until);
extern void qml_due_awake(QmlSlot *scheduler);

#endif
