/*
 * cleanup.h
 *		What has to be done from time to time.
 */
#ifndef QML_CLEANUP_H
#define QML_CLEANUP_H

typedef struct QmlCleanup
{
	int64 jobs;		/* expired, dropped with their partitions */
	int partitions; /* dropped */
	int prepared;	/* partitions made ahead of need */
	int64 locks;	/* expired */
} QmlCleanup;

extern void qml_cleanup_expired(QmlCleanup *done);
extern void qml_cleanup_adopt(void);

#endif
