/*
 * overflow.h
 *		Finished jobs that no partition took: moved to one later.
 */
#ifndef QML_OVERFLOW_H
#define QML_OVERFLOW_H

#include "common/walk.h"
#include "model/catalog.h"

/* What one call did. */
typedef struct QmlOverflow
{
	int moved;	 /* to a partition */
	int expired; /* removed */
	bool more;	 /* it has not come to the end of the table */
	bool failed; /* a partition could not be made */
} QmlOverflow;

extern void qml_overflow_empty(QmlStoreId store, int max, QmlWalk *walk, QmlOverflow *done);

#endif
