/*
 * lineage.h
 *		Where numbers of attempts are given.
 */
#ifndef QML_LINEAGE_H
#define QML_LINEAGE_H

#include "model/catalog.h"
#include "model/job.h"

extern int16 qml_lineage(int queue_id);
extern int qml_lineage_first(int queue_id, QmlStoreId store);
extern bool qml_lineage_has_next(const QmlJob *job);
extern void qml_lineage_next_attempt(QmlJob *job);

#endif
