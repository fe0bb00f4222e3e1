/*
 * recurring.h
 *		Recurring jobs: defining, changing, pausing and removing schedules.
 */
#ifndef QML_RECURRING_H
#define QML_RECURRING_H

#include "schedule/tick.h"
#include "schedule/times.h"

extern void qml_recurring_parse(const char *expression, QmlTimes *times);
extern void qml_recurring_zone(const char *name, QmlZone *zone);

extern TimestampTz qml_recurring_put(const QmlRecurring *recurring);
extern bool qml_recurring_find(const char *id, QmlRecurring *recurring, Oid *created_by,
							   Datum *imported);
extern void qml_recurring_import(const QmlRecurring *recurring, Datum imported, Datum reason);
extern bool qml_recurring_remove(const char *id, bool missing_ok);
extern bool qml_recurring_pause(const char *id, Datum reason, bool missing_ok);
extern bool qml_recurring_resume(const char *id, bool missing_ok);
extern void qml_recurring_run(const char *id, pg_uuid_t *job);
extern int qml_recurring_list(const char *expression, const char *timezone, TimestampTz anchor,
							  TimestampTz next_run_at, Datum *ticks, int max);

#endif
