/*
 * slot.h
 *		This process's slot: entering a database, and leaving it.
 */
#ifndef QML_SLOT_H
#define QML_SLOT_H

#include "compat.h"
#include "ipc/shmem.h"

extern QmlSlot *qml_slot_enter(int number, const char *name);
extern void qml_slot_set_ready(void);
extern void qml_slot_set_role(Oid role);
pg_noreturn extern void qml_slot_leave(QmlOutcome outcome);

extern bool qml_slot_is_blocking(void);
extern bool qml_slot_is_disabled(void);
extern void qml_slot_leave_if_blocking(void);
extern void qml_slot_leave_if_disabled(void);
extern void qml_slot_leave_if_dropped(void);

extern void qml_slot_leave_unless_extension(void);
extern bool qml_slot_found_extension(void);

#endif
