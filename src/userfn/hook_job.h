/*
 * hook_job.h
 *		Jobs that call after-commit hooks.
 */
#ifndef QML_HOOK_JOB_H
#define QML_HOOK_JOB_H

#include "model/job.h"
#include "userfn/callback.h"
#include "userfn/handler.h"

extern bool qml_hook_job_wanted(QmlState state);
extern bool qml_hook_job_wants(const QmlCallback *hook, QmlState state);
extern bool qml_hook_job_wants_alerts(const QmlCallback *hook);
extern const QmlHandler *qml_hook_job_handler_of(int queue_id, Datum method, Oid created_by);
extern const QmlHandler *qml_hook_job_handler(const QmlJob *job);
extern bool qml_hook_job_is_allowed(const QmlJob *job, QmlProblem *problem);

#endif
