/*
 * drain_cursor.h
 *		Where a drain goes on.
 */
#ifndef QML_DRAIN_CURSOR_H
#define QML_DRAIN_CURSOR_H

#include "ipc/ready_store.h"
#include "model/job.h"

/* From where a queue is searched for ready jobs. */
typedef enum QmlDrainFrom
{
	QML_DRAIN_BEGINNING = 0,
	QML_DRAIN_KEY,	  /* this one and what comes behind it */
	QML_DRAIN_NOTHING /* it has none */
} QmlDrainFrom;

/* By jobs/drain.c. */
extern void qml_drain_cursor_begin(MemoryContext context);
extern void qml_drain_cursor_end(void);
extern bool qml_drain_cursor_forget(void);
extern void qml_drain_cursor_mute(bool on);
extern TimestampTz qml_drain_cursor_due(void);
extern void qml_drain_cursor_set_due(TimestampTz run_at);
extern TimestampTz qml_drain_cursor_written(void);

/* By claims of a drain, and by itself. */
extern QmlDrainFrom qml_drain_cursor_find(int queue, QmlReadyKey *key);
extern void qml_drain_cursor_set(int queue, const QmlReadyKey *key);

/* By whoever writes a job. */
extern void qml_drain_cursor_wrote(const QmlJob *job);

#endif
