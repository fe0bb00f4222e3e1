/*
 * cleanup.h
 *		Removing what has expired.
 */
#ifndef QML_CLEANUP_H
#define QML_CLEANUP_H

#include "common/walk.h"
#include "model/catalog.h"

/* What one call did. */
typedef struct QmlCleanup
{
	int64 jobs;		/* expired, most of them dropped with their partitions */
	int partitions; /* dropped */
	int prepared;	/* partitions made ahead of need */
	int64 locks;	/* expired */
} QmlCleanup;

/* A part of it, which stands alone; run is called with a QmlCleanup, and adds to it. */
typedef struct QmlCleanupPart
{
	const char *name;
	void (*run)(void *done);
} QmlCleanupPart;

#define QML_CLEANUP_PARTS 6
extern const QmlCleanupPart qml_cleanup_parts[QML_CLEANUP_PARTS];

/* How far the steps of a scheduler have come; all zero: they begin. */
typedef struct QmlCleanupState
{
	bool forgot;   /* the last step emptied partitions of ticks */
	int64 removed; /* when it removed all but partitions; monotonic, milliseconds */
	bool dropping; /* the last step left partitions, and removed all else */
	/* Of the overflow of each storage class. */
	bool settled[QML_STORES]; /* rows of it were, in this walk */
	QmlWalk walks[QML_STORES];
} QmlCleanupState;

extern void qml_cleanup_expired(QmlCleanup *done);
extern bool qml_cleanup_step(QmlCleanupState *state, bool *waiting);
extern bool qml_cleanup_prepare(QmlCleanupState *state, bool *failed);

#endif
