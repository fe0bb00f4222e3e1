/*
 * ready_list.h
 *		The next ready jobs of each queue, in shared memory.
 */
#ifndef QML_READY_LIST_H
#define QML_READY_LIST_H

#include "ipc/ready_store.h"

/* What a list has for a claim. */
typedef struct QmlReadyAnswer
{
	int count;			 /* entries that it gave */
	int has;			 /* entries that it has; 0 also of no list */
	bool all;			 /* it has all ready jobs of the queue */
	bool is_low;		 /* it has few that are wanted, and there may be more in the index */
	QmlReadyBound bound; /* of the list; it has nothing behind it */
} QmlReadyAnswer;

/* Where the entry of a ready job is. */
typedef enum QmlReadyFound
{
	QML_READY_LISTED = 0,
	QML_READY_BEYOND, /* the list does not reach so far, or there is none */
	QML_READY_MISSING /* it should be there, unless somebody has just taken it */
} QmlReadyFound;

/* Of one who adds what is behind the bound of a list. */
typedef struct QmlReadyFill
{
	int queue;
	uint32 number;
	int most; /* entries */
	QmlReadyBound from;
} QmlReadyFill;

extern QmlReadyAnswer qml_ready_list_take(int queue, const QmlReadyPart *part,
										  QmlReadyEntry *entries, int most);
extern QmlReadyAnswer qml_ready_list_look(int queue, const QmlReadyPart *part,
										  QmlReadyEntry *entries, int most);
extern bool qml_ready_list_is_empty(int queue);
extern QmlReadyFound qml_ready_list_find(int queue, const QmlReadyKey *key);
extern void qml_ready_list_add(int queue, const QmlReadyEntry *entries, int count);
extern bool qml_ready_list_remove(int queue, const QmlReadyKey *key, QmlReadyEntry *removed);

extern bool qml_ready_list_begin_fill(int queue, QmlReadyFill *fill);
extern void qml_ready_list_end_fill(const QmlReadyFill *fill, const QmlReadyEntry *entries,
									int count, const QmlReadyBound *bound);
extern void qml_ready_list_cancel_fill(void);

#endif
