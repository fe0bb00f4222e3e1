/*
 * retries.h
 *		Whether another attempt may follow one that failed.
 */
#ifndef QML_RETRIES_H
#define QML_RETRIES_H

#include "core/retry.h"
#include "model/job.h"
#include "userfn/handler.h"

extern void qml_retries_init(void);
extern const QmlRetryPolicy *qml_retries_policy(int queue_id, const QmlHandler *handler);
extern int qml_retries_most(const QmlJob *job, const QmlHandler *handler);

#endif
