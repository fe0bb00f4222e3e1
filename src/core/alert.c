/*
 * alert.c
 *		When an alert begins and ends.
 *
 * It begins when the value is above its bound.  It ends when the value has been low for some time:
 * it must come down to 8 of 10 parts of the bound, and not be above the bound again until the time
 * is over.  So a value that moves around its bound has one alert, not many.
 *
 * A value that gets worse is noted each time that it has doubled, which is seldom.
 */
#include "core/alert.h"

#define LOW	  0.8
#define WORSE 2.0

/* calm_needed: for so long the value must be low, in microseconds. */
QmlAlertChange
qml_alert_change(const QmlAlertState *state, double value, double bound, int64_t calm_needed)
{
	if (!state->active)
		return value > bound ? QML_ALERT_BEGINS : QML_ALERT_STAYS;
	if (value > bound)
	{
		if (state->calm)
			return QML_ALERT_BACK;
		return value >= state->noted * WORSE && value > state->noted ? QML_ALERT_WORSE :
																	   QML_ALERT_STAYS;
	}
	if (!state->calm)
		return value <= bound * LOW ? QML_ALERT_CALM : QML_ALERT_STAYS;
	return state->calm_for >= calm_needed ? QML_ALERT_ENDS : QML_ALERT_STAYS;
}
