/*
 * bulk_run.h
 *		Doing bulk operations, a chunk at a time.
 */
#ifndef QML_BULK_RUN_H
#define QML_BULK_RUN_H

#include "utils/timestamp.h"

/* What one chunk did. */
typedef struct QmlBulkRun
{
	bool any;		  /* there was something to do */
	int64 changed;	  /* jobs */
	int64 met;		  /* jobs that it was to change */
	int64 looked;	  /* jobs that it looked at */
	TimestampTz next; /* when there is more to do; QML_NO_TIME: nothing is under way */
} QmlBulkRun;

extern void qml_bulk_run(int most_jobs, int most_looked, QmlBulkRun *run);

#endif
