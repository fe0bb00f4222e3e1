/*
 * partition.h
 *		Partitions of the history: made ahead of need, and kept in order.
 */
#ifndef QML_PARTITION_H
#define QML_PARTITION_H

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

#include "model/catalog.h"

extern bool qml_partition_make(QmlStoreId store, TimestampTz at);
extern int qml_partition_make_ahead(QmlStoreId store, List *ttls, bool *failed);
extern void qml_partition_mend(QmlStoreId store);
extern void qml_partition_revoke(QmlStoreId store);

extern char *qml_partition_bound(TimestampTz time);

/* For expiry.c. */
extern bool qml_partition_try(QmlStoreId store, void (*run)(void *arg), void *work);

#endif
