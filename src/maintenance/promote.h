/*
 * promote.h
 *		Promotion: jobs whose time has come become ready.
 */
#ifndef QML_PROMOTE_H
#define QML_PROMOTE_H

#include "utils/timestamp.h"

extern int qml_promote_jobs(int max, TimestampTz *as_of);
extern TimestampTz qml_promote_next_due(TimestampTz after);

#endif
