/*
 * expiry.h
 *		The end of partitions of the history: those that have expired are dropped.
 */
#ifndef QML_EXPIRY_H
#define QML_EXPIRY_H

#include "model/catalog.h"

extern int64 qml_expiry_drop_all(QmlStoreId store, int *partitions);
extern bool qml_expiry_step(QmlStoreId store, bool *waiting);

#endif
