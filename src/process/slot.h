/*
 * slot.h
 *		A process that works in a database, as a guest.
 */
#ifndef QML_SLOT_H
#define QML_SLOT_H

#include "compat.h"
#include "ipc/shmem.h"

extern QmlSlot *qml_guest_enter(int number, const char *name);
extern void qml_guest_appear(void);
pg_noreturn extern void qml_guest_leave(QmlOutcome why);
extern const char *qml_guest_database(void);
extern void qml_guest_make_way(void);
extern bool qml_guest_is_in_the_way(void);
extern void qml_guest_leave_if_disabled(void);
extern bool qml_guest_is_disabled(void);
extern void qml_guest_set_role(Oid role);
extern void qml_guest_check_extension(void);
extern bool qml_guest_found_extension(void);
extern void qml_guest_leave_if_dropped(void);

#endif
