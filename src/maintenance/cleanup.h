/*
 * cleanup.h
 *		Removing what has expired.
 */
#ifndef QML_CLEANUP_H
#define QML_CLEANUP_H

/* What one call did. */
typedef struct QmlCleanup
{
	int64 jobs;		/* expired, dropped with their partitions */
	int partitions; /* dropped */
	int prepared;	/* partitions made ahead of need */
	int64 locks;	/* expired */
} QmlCleanup;

extern void qml_cleanup_expired(QmlCleanup *done);

#endif
