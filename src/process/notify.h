/*
 * notify.h
 *		NOTIFY for queues whose option says so.
 */
#ifndef QML_NOTIFY_H
#define QML_NOTIFY_H

#include "ipc/shmem.h"

extern void qml_notify_send(QmlSlot *scheduler, bool lost);

#endif
