/*
 * recurring.h
 *		Recurring jobs: defining, changing, pausing and removing schedules.
 */
#ifndef QML_RECURRING_H
#define QML_RECURRING_H

#include "core/cron.h"
#include "schedule/tick.h"
#include "schedule/timezone.h"

extern void qml_recurring_parse(const char *expression, QmlCron *cron);
extern void qml_recurring_zone(const char *name, QmlZone *zone);

extern TimestampTz qml_recurring_put(const QmlRecurring *recurring);
extern bool qml_recurring_remove(const char *id, bool missing_ok);
extern bool qml_recurring_pause(const char *id, Datum reason);
extern bool qml_recurring_resume(const char *id);
extern void qml_recurring_run(const char *id, pg_uuid_t *job);

#endif
