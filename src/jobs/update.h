/*
 * update.h
 *		Changing what a job is: its queue, priority, payload and the like.
 */
#ifndef QML_UPDATE_H
#define QML_UPDATE_H

#include "model/job.h"
#include "model/options.h"
#include "model/queue.h"

extern bool qml_update_by_id(const pg_uuid_t *id, const QmlJobChanges *changes);

/* For those who change many jobs. */
extern bool qml_update_apply(QmlJob *job, const QmlQueue *queue, const QmlJobChanges *changes,
							 TimestampTz now);

#endif
