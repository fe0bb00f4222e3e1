/*
 * explain.h
 *		Why a job does not run, or a queue does not move.
 */
#ifndef QML_EXPLAIN_H
#define QML_EXPLAIN_H

#include "utils/uuid.h"

#include "diagnosis/finding.h"
#include "model/queue.h"

extern void qml_explain_id(const pg_uuid_t *id, QmlReasons *reasons);
extern void qml_explain_jobs_of(const QmlQueue *queue, QmlReasons *reasons);

#endif
