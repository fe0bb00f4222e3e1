/*
 * interval.h
 *		Intervals of schedules: parsing, and the next time at which one fires.
 */
#ifndef QML_INTERVAL_H
#define QML_INTERVAL_H

#include "core/cron.h"

/* The longest interval: ten years of 365 days, in seconds. */
#define QML_INTERVAL_MAX (INT64_C(3650) * 86400)

extern bool qml_interval_is_meant(const char *expression);
extern bool qml_interval_parse(const char *expression, int64_t *seconds, QmlCronError *error);
extern int64_t qml_interval_next(int64_t anchor, int64_t seconds, int64_t after);

#endif
