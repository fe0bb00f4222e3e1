/*
 * bulk_step.h
 *		In the scheduler: bulk operations, beside all else.
 */
#ifndef QML_BULK_STEP_H
#define QML_BULK_STEP_H

#include "utils/timestamp.h"

extern TimestampTz qml_bulk_step_run(int64 *pause);

#endif
