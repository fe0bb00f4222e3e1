/*
 * ready_walk.h
 *		Looking at the ready jobs of a queue in the order in which they are claimed.
 */
#ifndef QML_READY_WALK_H
#define QML_READY_WALK_H

#include "executor/tuptable.h"

#include "model/queue.h"

extern bool qml_ready_walk(const QmlQueue *queue, int *room,
						   bool (*visit)(TupleTableSlot *slot, void *arg), void *arg);

#endif
