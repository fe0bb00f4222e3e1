/*
 * counter_notes.h
 *		What a transaction does to the numbers of jobs.
 */
#ifndef QML_COUNTER_NOTES_H
#define QML_COUNTER_NOTES_H

#include "ipc/counter_store.h"

extern void qml_counter_notes_init(void);
extern void qml_counter_notes_add(const QmlCounterDelta *delta);
extern void qml_counter_notes_sql(void);

extern bool qml_counter_notes_are_unknown(void);
extern bool qml_counter_notes_next(int *place, QmlCounterDelta *delta);
extern bool qml_counter_notes_copy(QmlCounterDelta *deltas, int most, int *count);

#endif
