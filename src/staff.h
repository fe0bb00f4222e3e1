/*
 * staff.h
 *		Workers for the roles that have work.
 */
#ifndef QML_STAFF_H
#define QML_STAFF_H

#include "shmem.h"

extern void qml_staff_serve(QmlSlot *scheduler, bool look);
extern int qml_staff_take_lost(QmlSlot *scheduler, pg_uuid_t *jobs, bool *any);

#endif
