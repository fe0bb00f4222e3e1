/*
 * stats_keep.h
 *		Storing statistics: each minute, and each ten minutes.
 */
#ifndef QML_STATS_KEEP_H
#define QML_STATS_KEEP_H

#include "utils/timestamp.h"

extern TimestampTz qml_stats_keep_run(bool *again);

#endif
