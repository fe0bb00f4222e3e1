/*
 * perform.h
 *		Performing a job: what a background worker and a session have in common.
 */
#ifndef QML_PERFORM_H
#define QML_PERFORM_H

#include "jobs/attempt.h"
#include "userfn/call.h"
#include "userfn/handler.h"

/* Makes the function of a handler ready to be called, or finds it. */
typedef QmlCall *(*QmlPerformFind)(const QmlHandler *handler);

extern const QmlHandler *qml_perform_handler(const QmlJob *job);
extern const QmlHandler *qml_perform_prepare(QmlAttempt *attempt);
extern bool qml_perform_is_wrapped(const QmlHandler *handler);
extern Datum qml_perform_call(const QmlJob *job, const QmlHandler *handler, QmlPerformFind find);
extern void qml_perform_keep_result(QmlAttempt *attempt, Datum result);
extern void qml_perform_keep_wish(QmlAttempt *attempt);

#endif
