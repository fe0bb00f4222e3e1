/*
 * pauses.h
 *		What is paused, by whom, since when and why.
 */
#ifndef QML_PAUSES_H
#define QML_PAUSES_H

#include "diagnosis/finding.h"
#include "model/queue.h"

extern char *qml_pauses_describe(const QmlQueue *queue);
extern void qml_pauses_check_all(QmlFinding *finding);
extern void qml_pauses_check_queues(QmlFinding *finding);

#endif
