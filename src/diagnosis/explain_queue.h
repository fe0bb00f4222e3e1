/*
 * explain_queue.h
 *		Why a queue does not move.
 */
#ifndef QML_EXPLAIN_QUEUE_H
#define QML_EXPLAIN_QUEUE_H

#include "diagnosis/finding.h"
#include "model/queue.h"

extern void qml_explain_queue_reasons(const QmlQueue *queue, QmlReasons *reasons);

#endif
