/*
 * shrink.h
 *		Releasing the disk space of a large table piece by piece, before it is dropped.
 */
#ifndef QML_SHRINK_H
#define QML_SHRINK_H

#include "nodes/pg_list.h"

extern bool qml_shrink_lock(Oid relid, List **locked);
extern void qml_shrink_unlock(List *locked);
extern bool qml_shrink_is_large(Oid relid);
extern bool qml_shrink_step(Oid relid);

#endif
