/*
 * partition.h
 *		Partitions of the history: made ahead of need, and kept in order.
 */
#ifndef QML_PARTITION_H
#define QML_PARTITION_H

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

extern bool qml_partition_make(TimestampTz at);
extern int qml_partition_make_ahead(List *ttls, bool *failed);
extern void qml_partition_mend(void);
extern void qml_partition_revoke(void);

/* For expiry.c. */
extern bool qml_partition_try(void (*run)(void *arg), void *work);

#endif
