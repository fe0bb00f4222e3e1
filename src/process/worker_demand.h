/*
 * worker_demand.h
 *		Asking for workers for the roles that have work.
 */
#ifndef QML_WORKER_DEMAND_H
#define QML_WORKER_DEMAND_H

#include "ipc/shmem.h"

extern void qml_worker_demand_serve(QmlSlot *scheduler, bool look);

#endif
