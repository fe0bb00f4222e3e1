/*
 * alert_checks.h
 *		Alerts that are about the database as a whole.
 */
#ifndef QML_ALERT_CHECKS_H
#define QML_ALERT_CHECKS_H

#include "nodes/pg_list.h"

#include "diagnosis/alert_values.h"

#define QML_ALERT_MAX_CHECKS 12

/* Since when each check fails, by the number of the check; 0: it does not. */
typedef struct QmlAlertChecks
{
	TimestampTz failing_since[QML_ALERT_MAX_CHECKS];
} QmlAlertChecks;

/* Kind of the alert that the view shows while there is no scheduler, who would begin it. */
#define QML_ALERT_SCHEDULER "scheduler"

extern void qml_alert_checks_collect(QmlAlertValues *values, QmlAlertChecks *checks, List *active);
extern bool qml_alert_checks_has(const char *kind);
extern bool qml_alert_checks_scheduler(TimestampTz *since, char **detail);

#endif
