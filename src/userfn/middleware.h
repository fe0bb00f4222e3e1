/*
 * middleware.h
 *		Middleware: functions of users that wrap the handlers of jobs.
 */
#ifndef QML_MIDDLEWARE_H
#define QML_MIDDLEWARE_H

#include "model/job.h"

extern bool qml_middleware_wanted(void);
extern Datum qml_middleware_run(const QmlJob *job, Datum (*handler)(void *arg), void *arg);
extern Datum qml_middleware_next(void);

#endif
