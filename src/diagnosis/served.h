/*
 * served.h
 *		Whether anybody outside the database takes the jobs of a queue.
 */
#ifndef QML_SERVED_H
#define QML_SERVED_H

#include "model/queue.h"

extern int64 qml_served_window(void);
extern bool qml_served_is_recent(TimestampTz fetched_at);
extern bool qml_served_outside(const QmlQueue *queue, Datum method);
extern bool qml_served_perhaps(const QmlQueue *queue, uint64 hash);
extern bool qml_served_by_name(const QmlQueue *queue, Datum method);
extern bool qml_served_at_all(const QmlQueue *queue);
extern char *qml_served_since(const QmlQueue *queue);

#endif
