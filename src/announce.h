/*
 * announce.h
 *		NOTIFY for queues whose option says so.
 */
#ifndef QML_ANNOUNCE_H
#define QML_ANNOUNCE_H

#include "shmem.h"

extern void qml_announce(QmlSlot *scheduler);

#endif
