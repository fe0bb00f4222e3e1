/*
 * tick.h
 *		Recurring jobs: firing schedules that are due.
 */
#ifndef QML_TICK_H
#define QML_TICK_H

#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "common/walk.h"

/* What a schedule makes jobs of, and when.  Datums are 0 when null. */
typedef struct QmlRecurring
{
	const char *id;
	const char *cron; /* or an interval: see schedule/times.c */
	const char *method;
	const char *queue;
	const char *timezone;
	const char *misfire;
	const char *overlap;
	Datum payload;
	Datum metadata;
	Datum job_type; /* text */
	int priority;
	int max_retries; /* -1: as the handler or the queue says */
	int timeout_ms;	 /* -1: as the handler or the queue says */
} QmlRecurring;

/* What one call of qml_tick_poll did. */
typedef struct QmlTicks
{
	int schedules;	   /* fired, or found to have a problem */
	int jobs;		   /* enqueued */
	bool more;		   /* there may be more that are due */
	TimestampTz as_of; /* the time by which they were due */
} QmlTicks;

extern void qml_tick_enqueue(const QmlRecurring *recurring, TimestampTz tick, Oid created_by,
							 const pg_uuid_t *job);
extern void qml_tick_poll(int max, QmlTicks *ticks);
extern TimestampTz qml_tick_next(TimestampTz after);
extern bool qml_tick_refresh(QmlWalk *walk);

#endif
