/*
 * list_check.h
 *		Ready jobs that are missing in the list of their queue.
 */
#ifndef QML_LIST_CHECK_H
#define QML_LIST_CHECK_H

#include "ipc/ready_list.h"

/* Jobs that may be missing, and are looked at again. */
#define QML_MAX_SUSPECTS 64

/* How far a check has come; all zero: it begins. */
typedef struct QmlListCheck
{
	int queue;	  /* that it is in; 0: in none */
	bool has_key; /* it has come to a key of the queue */
	QmlReadyKey key;
	int nsuspects;
	int queues[QML_MAX_SUSPECTS];
	QmlReadyEntry suspects[QML_MAX_SUSPECTS];
} QmlListCheck;

extern bool qml_list_check_step(QmlListCheck *check);

#endif
