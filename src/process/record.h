/*
 * record.h
 *		Recording how attempts ended: in their jobs' rows, now or later.
 */
#ifndef QML_RECORD_H
#define QML_RECORD_H

#include "process/runner.h"

/* How long to wait for a job's row, as all of qml's own transactions do. */
#define QML_RECORD_WAIT_MS 2000

extern void qml_record_attempts(QmlRunner *runner, QmlAttempt *attempts, int count, int wait_ms,
								bool catch_hook_errors);
extern void qml_record_log(QmlRunner *runner, const QmlAttempt *attempts, int count);
extern void qml_record_apart(QmlRunner *runner, QmlAttempt *attempt);

extern void qml_record_postpone(const QmlAttempt *attempt);
extern int qml_record_flush(QmlRunner *runner, int wait_ms);
extern void qml_record_flush_if_due(QmlRunner *runner);
extern bool qml_record_has_unrecorded(void);
extern void qml_record_hold_unrecorded(void);
extern bool qml_record_note_unrecorded(void);

#endif
