/*
 * misfire.h
 *		Which ticks of a schedule fire: those on time, and those that were missed.
 */
#ifndef QML_MISFIRE_H
#define QML_MISFIRE_H

#include "schedule/timezone.h"

/* What a schedule that is due has to do. */
typedef struct QmlDueTicks
{
	TimestampTz *ticks; /* to fire, in the order of time */
	int count;
	TimestampTz next; /* the first after now; QML_NO_TIME: there is none */
} QmlDueTicks;

extern bool qml_misfire_is_policy(const char *name);
extern void qml_misfire_choose(const char *policy, const QmlCron *cron, const QmlZone *zone,
							   TimestampTz next_run_at, TimestampTz now, QmlDueTicks *due);

#endif
