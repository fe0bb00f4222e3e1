/*
 * slot.h
 *		A process that works in a database, as a guest.
 */
#ifndef QML_SLOT_H
#define QML_SLOT_H

#include "compat.h"
#include "ipc/shmem.h"

extern QmlSlot *qml_slot_enter(int number, const char *name);
extern void qml_slot_appear(void);
pg_noreturn extern void qml_slot_leave(QmlOutcome why);
extern const char *qml_slot_database(void);
extern void qml_slot_make_way(void);
extern bool qml_slot_is_in_the_way(void);
extern void qml_slot_leave_if_disabled(void);
extern bool qml_slot_is_disabled(void);
extern void qml_slot_set_role(Oid role);
extern void qml_slot_check_extension(void);
extern bool qml_slot_found_extension(void);
extern void qml_slot_leave_if_dropped(void);

#endif
