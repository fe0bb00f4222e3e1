/*
 * stats_file.h
 *		The file that keeps counts and durations while the server is down.
 */
#ifndef QML_STATS_FILE_H
#define QML_STATS_FILE_H

#include "ipc/stats_memory.h"

extern void qml_stats_file_save(QmlStatsMemory *memory);
extern void qml_stats_file_load(QmlStatsMemory *memory);

#endif
