/*
 * alert.h
 *		When an alert begins and ends.
 */
#ifndef QML_ALERT_H
#define QML_ALERT_H

#include <stdbool.h>
#include <stdint.h>

/* What a look at a value does to its alert. */
typedef enum QmlAlertChange
{
	QML_ALERT_STAYS = 0,
	QML_ALERT_BEGINS,
	QML_ALERT_WORSE, /* far worse than what was noted last */
	QML_ALERT_CALM,	 /* it ends, if the value stays low */
	QML_ALERT_BACK,	 /* it does not, as the value is over its bound again */
	QML_ALERT_ENDS
} QmlAlertChange;

/* An alert, or that there is none. */
typedef struct QmlAlertState
{
	bool active;
	bool calm;
	int64_t calm_for; /* microseconds */
	double noted;	  /* the worst value, as far as noted */
} QmlAlertState;

extern QmlAlertChange qml_alert_change(const QmlAlertState *state, double value, double bound,
									   int64_t calm_needed);

#endif
