/*
 * alert_values.h
 *		The values that alerts are about, and their bounds.
 */
#ifndef QML_ALERT_VALUES_H
#define QML_ALERT_VALUES_H

#include "nodes/bitmapset.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

/* Kinds of alerts that are about a queue, or about a method in it. */
#define QML_ALERT_MAX_WAIT		   "max_wait"
#define QML_ALERT_MAX_AGE		   "max_age"
#define QML_ALERT_MAX_RUN		   "max_run"
#define QML_ALERT_MAX_FAILURE_RATE "max_failure_rate"
#define QML_ALERT_QUEUE_KINDS	   4

/* What an alert is about. */
typedef struct QmlAlertKey
{
	const char *kind;
	int queue;			/* 0: none */
	const char *method; /* empty: none */
} QmlAlertKey;

typedef struct QmlAlertValue
{
	QmlAlertKey key;
	bool unknown; /* it cannot be told */
	double value;
	double bound;
	char *detail; /* a sentence without a full stop, if the value is above the bound; else NULL */
	bool is_used; /* for alert_pass.c: there is an alert for it */
} QmlAlertValue;

typedef struct QmlAlertValues
{
	HTAB *values; /* of QmlAlertValue */
	TimestampTz now;

	Bitmapset *not_looked; /* of these queues it is not known how old jobs are */
} QmlAlertValues;

extern void qml_alert_values_begin(QmlAlertValues *values);
extern void qml_alert_values_collect(QmlAlertValues *values);
extern QmlAlertValue *qml_alert_values_find(QmlAlertValues *values, const QmlAlertKey *key);
extern QmlAlertValue *qml_alert_values_add(QmlAlertValues *values, const QmlAlertKey *key,
										   double value, double bound);
extern const char *const qml_alert_queue_kinds[QML_ALERT_QUEUE_KINDS];
extern int qml_alert_values_queue_kind(const char *kind);
extern bool qml_alert_values_are_known(const QmlAlertValues *values, const QmlAlertKey *key);

#endif
