/*
 * served.h
 *		Whether anybody outside the database takes the jobs of a queue.
 */
#ifndef QML_SERVED_H
#define QML_SERVED_H

#include "model/queue.h"

/* Whether somebody takes such jobs. */
typedef enum QmlServed
{
	QML_SERVED_NOT = 0,
	QML_SERVED_PERHAPS, /* it is not known any more */
	QML_SERVED
} QmlServed;

extern int64 qml_served_window(void);
extern QmlServed qml_served_unnamed(const QmlQueue *queue);
extern QmlServed qml_served_outside(const QmlQueue *queue, Datum method);
extern QmlServed qml_served_hash(const QmlQueue *queue, uint64 hash);
extern QmlServed qml_served_by_name(const QmlQueue *queue, Datum method);
extern QmlServed qml_served_at_all(const QmlQueue *queue);
extern char *qml_served_since(const QmlQueue *queue);

#endif
