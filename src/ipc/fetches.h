/*
 * fetches.h
 *		Who has fetched lately: from which queues, and jobs of which methods.
 */
#ifndef QML_FETCHES_H
#define QML_FETCHES_H

#include "utils/timestamp.h"

/* In place of the hash of a method. */
#define QML_FETCHES_UNNAMED 0 /* all methods that have no handler */
#define QML_FETCHES_ANY		1 /* whichever: of each fetch from the queue */

extern void qml_fetches_init(void);
extern void qml_fetches_note(int queue, uint64 filter, const uint64 *methods, int count);
extern TimestampTz qml_fetches_last(int queue, uint32 method);
extern TimestampTz qml_fetches_since(void);
extern uint32 qml_fetches_method(uint64 hash);

#endif
