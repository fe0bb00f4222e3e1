/*
 * execute.h
 *		Calling the handler of a job, within the transaction of its attempt.
 */
#ifndef QML_EXECUTE_H
#define QML_EXECUTE_H

#include "process/runner.h"
#include "userfn/handler.h"

extern void qml_execute_init(void);
extern void qml_execute_begin(QmlRunner *runner, const char *activity);
extern void qml_execute_commit(void);
extern void qml_execute_forget_calls(void);

extern void qml_execute_function(QmlRunner *runner, QmlAttempt *attempt, const QmlHandler *handler);
extern void qml_execute_procedure(QmlRunner *runner, QmlAttempt *attempt,
								  const QmlHandler *handler);
extern void qml_execute_keep_result(QmlRunner *runner, QmlAttempt *attempt, Datum result);
extern void qml_execute_keep_progress(QmlAttempt *attempt);

#endif
