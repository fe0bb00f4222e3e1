/*
 * timezone.h
 *		Time zones of recurring jobs, from the server's own zone data.
 */
#ifndef QML_TIMEZONE_H
#define QML_TIMEZONE_H

#include "pgtime.h"
#include "utils/timestamp.h"

#include "core/cron.h"

typedef struct QmlZone
{
	QmlCronZone base;
	pg_tz *tz;
} QmlZone;

extern bool qml_timezone_find(const char *name, QmlZone *zone);
extern const char *qml_timezone_guess(const char *name);
extern TimestampTz qml_timezone_next(const QmlCron *cron, const QmlZone *zone, TimestampTz after);

#endif
