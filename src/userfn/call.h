/*
 * call.h
 *		Calls the handler of a job.
 */
#ifndef QML_CALL_H
#define QML_CALL_H

#include "model/job.h"
#include "userfn/handler.h"

/* A handler that is a function, prepared for the jobs of one transaction. */
typedef struct QmlCall QmlCall;

extern QmlCall *qml_call_prepare(const QmlHandler *handler);
extern bool qml_call_is_of(const QmlCall *call, const QmlHandler *handler);
extern bool qml_call_is_procedure(const QmlHandler *handler);
extern Datum qml_call_function(QmlCall *call, const QmlJob *job);
extern bool qml_call_was_binding(void);
extern Datum qml_call_procedure(const QmlHandler *handler, const QmlJob *job, bool atomic);

#endif
