/*
 * sweep.h
 *		Jobs whose time has come.
 */
#ifndef QML_SWEEP_H
#define QML_SWEEP_H

#include "executor/tuptable.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "userfn/handler.h"

extern int qml_sweep_promote(int max, TimestampTz *as_of);
extern int qml_sweep_reclaim(int max, TimestampTz *next);
extern int qml_sweep_reclaim_server(const char *server, int max);
extern int qml_sweep_reclaim_ids(const pg_uuid_t *ids, int count);
extern Oid qml_sweep_role_of(TupleTableSlot *slot);
extern int qml_sweep_reject(Oid role, const QmlProblem *problem, int max);
extern void qml_sweep_requeue(void);
extern TimestampTz qml_sweep_next_due(TimestampTz after);

#endif
