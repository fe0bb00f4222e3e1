/*
 * oldest_ready.h
 *		Since when jobs of a queue wait.
 */
#ifndef QML_OLDEST_READY_H
#define QML_OLDEST_READY_H

#include "common/table.h"
#include "model/queue.h"

/* Tables that are open for it, and the snapshot. */
typedef struct QmlOldestReady
{
	Snapshot snapshot;
	bool is_open[QML_STORES];
	QmlTable live[QML_STORES];
	Relation ready[QML_STORES];
} QmlOldestReady;

/* Since when jobs of a queue wait, and run; QML_NO_TIME: none does, or none was found. */
typedef struct QmlOldestJobs
{
	TimestampTz ready_at;
	TimestampTz started_at;
} QmlOldestJobs;

extern void qml_oldest_ready_begin(QmlOldestReady *search);
extern void qml_oldest_ready_look(QmlOldestReady *search, const QmlQueue *queue, const char *method,
								  QmlOldestJobs *found);
extern bool qml_oldest_ready_find(QmlOldestReady *search, const QmlQueue *queue,
								  TimestampTz *ready_at);
extern void qml_oldest_ready_end(QmlOldestReady *search);

#endif
