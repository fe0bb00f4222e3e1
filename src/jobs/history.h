/*
 * history.h
 *		Finished jobs: the partition that one goes to, and finding one by its id.
 */
#ifndef QML_HISTORY_H
#define QML_HISTORY_H

#include "partitioning/partdefs.h"

#include "common/table.h"
#include "model/catalog.h"
#include "model/job.h"

/* A partition and its bounds; leaf is InvalidOid if there is none between the bounds. */
typedef struct QmlLeaf
{
	Oid leaf;
	TimestampTz lower;
	TimestampTz upper;
} QmlLeaf;

extern void qml_history_init(void);
extern Oid qml_history_place_for(QmlStoreId store, TimestampTz expires_at, Oid held);
extern bool qml_history_find(QmlStoreId store, const pg_uuid_t *id, Snapshot snapshot,
							 LOCKMODE lockmode, QmlTable *leaf, QmlJob *job);
extern bool qml_history_try_find(QmlStoreId store, const pg_uuid_t *id, Snapshot snapshot,
								 QmlTable *leaf, QmlJob *job, bool *looked);

/* For partition.c, expiry.c, overflow.c, unlogged_rows.c and search_plan.c. */
extern Relation qml_history_open_index(QmlStoreId store, Relation leaf);
extern TimestampTz qml_history_bound(PartitionBoundInfo bounds, int offset);
extern bool qml_history_find_leaf(QmlStoreId store, TimestampTz at, bool wait, QmlLeaf *leaf);
extern Oid qml_history_partition_for(QmlStoreId store, TimestampTz expires_at, Oid held);
extern int qml_history_places(QmlStoreId store, Oid **oids);
extern int qml_history_list(QmlStoreId store, Oid **oids);

#endif
