/*
 * stats_note.h
 *		What is counted of jobs, and how a transaction notes it; limits: see stats_store.c.
 */
#ifndef QML_STATS_NOTE_H
#define QML_STATS_NOTE_H

#include "common/fault.h"
#include "core/histogram.h"

/* What is counted of a series. */
typedef enum QmlStat
{
	QML_STAT_ENQUEUED = 0, /* jobs that were made */
	QML_STAT_SUCCEEDED,	   /* jobs that have ended so */
	QML_STAT_FAILED,
	QML_STAT_DELETED,  /* before they had ended */
	QML_STAT_RETRIED,  /* attempts that failed, with another one to come */
	QML_STAT_RELEASED, /* attempts that were given back, and do not count */
	QML_STAT_LOST,	   /* attempts whose worker was lost; each is in one of the others as well */
	QML_STAT_WAITED,   /* microseconds, of all that were started */
	QML_STAT_RAN,	   /* microseconds, of all whose worker has told of their end */
	QML_STATS
} QmlStat;

/* Numbers of a series: attempts that were started are in `waits`, those that have ended in `runs`. */
typedef struct QmlStatCounts
{
	uint64 counters[QML_STATS];
	uint64 waits[QML_HISTOGRAM_BINS];
	uint64 runs[QML_HISTOGRAM_BINS];
} QmlStatCounts;

/* The same as one array. */
#define QML_STAT_NUMBERS ((int) (sizeof(QmlStatCounts) / sizeof(uint64)))

/* Names that are longer are not told apart from others. */
#define QML_STAT_METHOD 1024

/* A series, as long as it has this generation; number 0: there is no room for it. */
typedef struct QmlStatPlace
{
	uint32 number;
	uint32 generation;
} QmlStatPlace;

/* Adds to a series. */
typedef struct QmlStatNote
{
	QmlStatPlace place;
	uint32 count;
	int16 counter;	 /* a QmlStat; -1: none */
	int16 histogram; /* 0: none; 1 + bin of waits, or behind those 1 + bin of runs */
	uint64 duration; /* of all of them, microseconds */
} QmlStatNote;

#define QML_STAT_NO_COUNTER	  (-1)
#define QML_STAT_NO_HISTOGRAM 0
#define QML_STAT_WAIT(bin)	  (1 + (bin))
#define QML_STAT_RUN(bin)	  (1 + QML_HISTOGRAM_BINS + (bin))

/* What is stored at once is that of a minute, but in tests. */
#define QML_STATS_MINUTE ((TimestampTz) QML_FAULT_LIMIT("stats.minute_s", 60) * USECS_PER_SEC)

/* The most databases that there are numbers of. */
#define QML_STATS_DATABASES 1024

#endif
