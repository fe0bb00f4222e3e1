/*
 * failure_log.h
 *		Lines in the server's log for jobs that failed for good.
 */
#ifndef QML_FAILURE_LOG_H
#define QML_FAILURE_LOG_H

#include "model/job.h"

extern void qml_failure_log_init(void);
extern void qml_failure_log_note(const QmlJob *job);

#endif
