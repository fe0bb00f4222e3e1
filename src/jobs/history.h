/*
 * history.h
 *		Finished jobs, in partitions by time of expiry.
 */
#ifndef QML_HISTORY_H
#define QML_HISTORY_H

#include "common/table.h"
#include "model/job.h"

extern void qml_history_init(void);
extern Oid qml_history_leaf_for(TimestampTz expires_at);
extern bool qml_history_find(const pg_uuid_t *id, Snapshot snapshot, LOCKMODE lockmode,
							 QmlTable *leaf, QmlJob *job);
extern int qml_history_make_ahead(void);
extern int64 qml_history_expire(int *partitions);
extern void qml_history_revoke(void);

#endif
