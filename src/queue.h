/*
 * queue.h
 *		Queues: their names, options and state, remembered by each backend.
 */
#ifndef QML_QUEUE_H
#define QML_QUEUE_H

#include "storage/lockdefs.h"

#include "option.h"

/* Pointers hold to the end of the transaction, also when the queue changes. */
typedef struct QmlQueue
{
	int id;
	char *name;
	bool paused;
	bool dropped;
	QmlQueueOptions options;
} QmlQueue;

extern void qml_queue_init(void);
extern const QmlQueue *qml_queue_by_name(const char *name);
extern const QmlQueue *qml_queue_find(int id);
extern const QmlQueue *qml_queue_by_id(int id);
extern const QmlQueue *qml_queue_to_enqueue(const char *name);
extern const QmlQueue *qml_queue_lock(const char *name, LOCKMODE mode);
extern void qml_queue_keep(int id);

extern int qml_queue_max_retries(const QmlQueue *queue);
extern int qml_queue_timeout_ms(const QmlQueue *queue);
extern int64 qml_queue_lease(const QmlQueue *queue);
extern int64 qml_queue_ttl(const QmlQueue *queue, bool failed);
extern List *qml_queue_ttls(void);

#endif
