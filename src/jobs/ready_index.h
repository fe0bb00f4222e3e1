/*
 * ready_index.h
 *		Walking over the index live_ready.
 */
#ifndef QML_READY_INDEX_H
#define QML_READY_INDEX_H

#include "access/genam.h"

#include "ipc/ready_store.h"
#include "jobs/writer.h"

/* Keys of a walk; the first one is for the queue, and filled in by qml_ready_index_begin(). */
#define QML_READY_INDEX_KEYS 4

extern int qml_ready_index_rest(ScanKey keys, const QmlReadyKey *key, bool with_key);
extern int qml_ready_index_upto(ScanKey keys, const QmlReadyKey *key, const QmlReadyKey *after);
extern int qml_ready_index_below(ScanKey keys, const QmlReadyKey *key);
extern int qml_ready_index_between(ScanKey keys, const QmlReadyKey *from, const QmlReadyKey *to);
extern IndexScanDesc qml_ready_index_begin(QmlWriter *writer, Relation ready, int queue,
										   ScanKey keys, int nkeys);
extern int qml_ready_index_next_queue(QmlWriter *writer, Relation ready, int after);

#endif
