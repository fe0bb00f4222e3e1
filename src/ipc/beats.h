/*
 * beats.h
 *		Heartbeats that could not be written into their job's row.
 */
#ifndef QML_BEATS_H
#define QML_BEATS_H

#include "ipc/shmem.h"

extern bool qml_beats_keep(const pg_uuid_t *job, int attempt, TimestampTz row_end,
						   TimestampTz *end);
extern bool qml_beats_exist(void);
extern void qml_beats_forget(const pg_uuid_t *job, int attempt);
extern TimestampTz qml_beats_end(const pg_uuid_t *job, int attempt, TimestampTz row_end);

#endif
