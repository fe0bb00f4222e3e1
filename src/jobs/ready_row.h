/*
 * ready_row.h
 *		Rows of qml.live as entries of the lists of ready jobs.
 */
#ifndef QML_READY_ROW_H
#define QML_READY_ROW_H

#include "executor/tuptable.h"

#include "ipc/ready_list.h"

extern QmlReadyKey qml_ready_row_key(int priority, const pg_uuid_t *id);
extern QmlReadyKey qml_ready_row_place(TupleTableSlot *slot);
extern int qml_ready_row_read(TupleTableSlot *slot, ItemPointerData root, QmlReadyEntry *entry);
extern void qml_ready_row_note_made(TupleTableSlot *slot, ItemPointerData root);

#endif
