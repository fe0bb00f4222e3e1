/*
 * alert_pass.h
 *		Begins and ends alerts.
 */
#ifndef QML_ALERT_PASS_H
#define QML_ALERT_PASS_H

#include "diagnosis/alert_checks.h"

extern bool qml_alert_pass_run(QmlAlertChecks *checks, bool look_at_checks);

#endif
