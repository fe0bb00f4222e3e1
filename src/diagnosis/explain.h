/*
 * explain.h
 *		Why a job does not run.
 */
#ifndef QML_EXPLAIN_H
#define QML_EXPLAIN_H

#include "utils/uuid.h"

#include "diagnosis/finding.h"

extern void qml_explain_id(const pg_uuid_t *id, QmlReasons *reasons);

#endif
