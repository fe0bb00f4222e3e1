/*
 * reading.h
 *		Reading all jobs for those that are lost.
 */
#ifndef QML_READING_H
#define QML_READING_H

#include "utils/timestamp.h"

#include "common/walk.h"

/* A reading, as the scheduler keeps it from piece to piece. */
typedef struct QmlReading
{
	QmlWalk walk;
	bool is_net;	  /* all claims were known when it began: it should find nothing */
	uint64 mark;	  /* see qml_lease_table_begin_reading() */
	TimestampTz next; /* the earliest end of a lease that was seen; QML_NO_TIME: none */
	int64 worked;	  /* milliseconds */
	int64 rows;		  /* written to qml.live until it began, as far as is counted; -1: not known */
	int64 complete;	  /* the same, of the last one that came to its end */
} QmlReading;

extern bool qml_reading_begin(QmlReading *reading);
extern bool qml_reading_go_on(QmlReading *reading, int max, int64 *pause);
extern bool qml_reading_is_slow(const QmlReading *reading);
extern int64 qml_reading_interval(int64 usual);

#endif
