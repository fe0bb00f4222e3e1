/*
 * sweep.h
 *		Jobs whose time has come.
 */
#ifndef QML_SWEEP_H
#define QML_SWEEP_H

#include "utils/timestamp.h"

extern int qml_sweep_promote(int max, TimestampTz *as_of);
extern int qml_sweep_reclaim(int max, TimestampTz *next);
extern int qml_sweep_reclaim_server(const char *server);
extern void qml_sweep_requeue(void);
extern TimestampTz qml_sweep_next_due(TimestampTz after);

#endif
