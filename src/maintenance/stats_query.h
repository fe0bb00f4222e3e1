/*
 * stats_query.h
 *		What happened to jobs lately, and what there is of them now.
 */
#ifndef QML_STATS_QUERY_H
#define QML_STATS_QUERY_H

#include "ipc/stats_store.h"
#include "model/queue.h"

/* A queue, or a queue and a method. */
typedef struct QmlStatsLine
{
	const char *queue;	   /* NULL: all that have no series of their own */
	const char *method;	   /* NULL: of all methods */
	QmlStatCounts *counts; /* NULL: nothing was counted */

	/* Of all methods of a queue, what is there now. */
	bool has_now;
	int64 depth;
	int64 running;
	TimestampTz ready_at; /* QML_NO_TIME: none is ready */
} QmlStatsLine;

typedef struct QmlStatsAnswer
{
	double seconds; /* that it is about */
	int count;
	QmlStatsLine *lines; /* by queue, the queue itself before its methods */
} QmlStatsAnswer;

extern void qml_stats_query(int64 since, const char *queue, const char *method,
							QmlStatsAnswer *answer);
extern void qml_stats_query_past(int64 since, QmlStatsAnswer *answer);
extern bool qml_stats_query_may_see(int queue_id);

#endif
