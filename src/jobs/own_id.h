/*
 * own_id.h
 *		Adding a job whose id is the caller's own, and may be there already.
 */
#ifndef QML_OWN_ID_H
#define QML_OWN_ID_H

#include "jobs/writer.h"
#include "model/options.h"

extern bool qml_own_id_insert(QmlWriter *writer, QmlJob *job, const QmlHandler *handler,
							  QmlOnDuplicateId on_duplicate, QmlState *state);

#endif
