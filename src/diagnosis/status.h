/*
 * status.h
 *		Whether anything is missing for jobs to run here: qml_status().
 */
#ifndef QML_STATUS_H
#define QML_STATUS_H

#include "diagnosis/finding.h"

/* What a job may need; a check that fails may keep it from that. */
#define QML_NEEDS_ADVANCE 0x01 /* a job that is not ready becomes so, a lost one is taken back */
#define QML_NEEDS_WORKERS 0x02 /* a background worker runs it */
#define QML_NEEDS_CLAIM	  0x04 /* anybody claims it */

extern void qml_status_list(Tuplestorestate *store, TupleDesc desc);
extern void qml_status_explain(int needs, QmlReasons *reasons);

#endif
