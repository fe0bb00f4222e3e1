/*
 * times.h
 *		The times of a schedule: a cron expression in a time zone, or an interval.
 */
#ifndef QML_TIMES_H
#define QML_TIMES_H

#include "schedule/timezone.h"

/* What a schedule's column "cron" says, parsed.  Who parses it sets the zone and the anchor. */
typedef struct QmlTimes
{
	QmlCron cron;
	QmlZone zone;
	int64 interval;		/* seconds; 0: it is a cron expression */
	TimestampTz anchor; /* from which the interval is counted */
} QmlTimes;

extern bool qml_times_parse(const char *expression, QmlTimes *times, QmlCronError *error);
extern TimestampTz qml_times_next(const QmlTimes *times, TimestampTz after);
extern int qml_times_days_for(const QmlTimes *times, int ticks, TimestampTz from);
extern TimestampTz qml_times_anchor(const char *expression);

#endif
