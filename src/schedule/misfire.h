/*
 * misfire.h
 *		Which ticks of a schedule fire: those on time, and those that were missed.
 */
#ifndef QML_MISFIRE_H
#define QML_MISFIRE_H

#include "utils/uuid.h"

#include "schedule/times.h"

/* What became of a tick; see qml_occurrence_record(). */
typedef enum QmlTickOutcome
{
	QML_TICK_ON_TIME = 0, /* a job, within the grace */
	QML_TICK_LATE,		  /* a job */
	QML_TICK_MISSED,	  /* passed over by the misfire policy */
	QML_TICK_SKIPPED,	  /* passed over by the overlap policy */
	QML_TICK_ERROR		  /* the schedule could not make a job */
} QmlTickOutcome;

typedef struct QmlTick
{
	TimestampTz at;
	TimestampTz through; /* missed: also those after it, up to then; QML_NO_TIME: it alone */
	QmlTickOutcome outcome;
	pg_uuid_t job; /* of one that fires; set by tick.c */
} QmlTick;

/* What a schedule that is due has to do. */
typedef struct QmlDueTicks
{
	QmlTick *ticks; /* that fire or were missed, in the order of time */
	int count;
	TimestampTz next; /* the first after now; QML_NO_TIME: there is none */
} QmlDueTicks;

/* Whether a tick makes a job. */
static inline bool
qml_misfire_fires(const QmlTick *tick)
{
	return tick->outcome == QML_TICK_ON_TIME || tick->outcome == QML_TICK_LATE;
}

extern bool qml_misfire_is_policy(const char *name);
extern void qml_misfire_choose(const char *policy, const QmlTimes *times, TimestampTz next_run_at,
							   TimestampTz now, QmlDueTicks *due);

#endif
