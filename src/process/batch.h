/*
 * batch.h
 *		The jobs in hand: claiming them, and giving back what is not begun.
 */
#ifndef QML_BATCH_H
#define QML_BATCH_H

#include "process/runner.h"

extern bool qml_batch_may_group(const QmlJob *job, int attempts);

extern void qml_batch_claim(QmlRunner *runner);
extern QmlBatch *qml_batch_claim_ahead(QmlRunner *runner, bool is_last);
extern bool qml_batch_undo_claim_ahead(QmlRunner *runner);
extern void qml_batch_advance(QmlRunner *runner, QmlBatch *next);

extern void qml_batch_release_from(QmlRunner *runner, int first, bool all);
extern void qml_batch_empty(QmlBatch *batch);

#endif
