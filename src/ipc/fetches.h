/*
 * fetches.h
 *		Who has fetched lately: from which queues, and jobs of which methods.
 */
#ifndef QML_FETCHES_H
#define QML_FETCHES_H

#include "utils/timestamp.h"

/* In place of a queue: all of them. */
#define QML_FETCHES_ALL 0

/* When somebody has fetched so. */
typedef struct QmlFetched
{
	TimestampTz last;	 /* 0: it is not known that anybody did */
	TimestampTz perhaps; /* until then somebody may have, of whom nothing is known; 0: nobody */
} QmlFetched;

extern void qml_fetches_init(void);
extern bool qml_fetches_is_due(uint64 what);
extern void qml_fetches_note(int queue, const uint64 *methods, int count);
extern QmlFetched qml_fetches_of_queue(int queue, bool unnamed);
extern QmlFetched qml_fetches_of_method(int queue, uint64 hash);
extern TimestampTz qml_fetches_since(void);

#endif
