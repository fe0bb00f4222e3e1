/*
 * worker_demand.h
 *		Asking for workers for the roles that have work.
 */
#ifndef QML_WORKER_DEMAND_H
#define QML_WORKER_DEMAND_H

#include "common/walk.h"
#include "ipc/shmem.h"

/* What reads all jobs may take one in so many parts of the time. */
#define QML_WALK_SHARE 50

/* The search of all ready jobs; all zero: none was made yet. */
typedef struct QmlWorkerDemand
{
	QmlWalk walk;
	bool running; /* it has not come to its end */
	bool wanted;  /* once more, from the beginning */
	int share;	  /* of the time that the one that is wanted may take; 0: it is at once */
	int64 worked; /* by it, or the last one, milliseconds */
	int64 ended;  /* monotonic, milliseconds */
} QmlWorkerDemand;

extern int64 qml_worker_demand_serve(QmlWorkerDemand *demand, QmlSlot *scheduler, bool look);

#endif
