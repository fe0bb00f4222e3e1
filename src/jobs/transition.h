/*
 * transition.h
 *		The state machine at work on a job in memory.
 */
#ifndef QML_TRANSITION_H
#define QML_TRANSITION_H

#include "model/job.h"

extern void qml_transition_set(QmlJob *job, QmlState to, TimestampTz now);
extern void qml_transition_fail(QmlJob *job, const QmlJobError *error, bool retry,
								TimestampTz retry_at, TimestampTz now);
extern void qml_transition_release(QmlJob *job, TimestampTz run_at, Datum reason, TimestampTz now);
extern void qml_transition_delete(QmlJob *job, Datum reason, TimestampTz now);
extern void qml_transition_lose(QmlJob *job, const char *reason, const char *error_type,
								TimestampTz now);
extern void qml_transition_give_up(QmlJob *job, const char *reason, const char *error_type,
								   TimestampTz now);

#endif
