/*
 * registrations.h
 *		Checks of what users have registered: handlers, hooks, middleware and schedules.
 */
#ifndef QML_REGISTRATIONS_H
#define QML_REGISTRATIONS_H

#include "diagnosis/finding.h"

extern void qml_registrations_check_handlers(QmlFinding *finding);
extern void qml_registrations_check_hooks(QmlFinding *finding);
extern void qml_registrations_check_middleware(QmlFinding *finding);
extern void qml_registrations_check_recurring(QmlFinding *finding);
extern void qml_registrations_check_ticks(QmlFinding *finding);

#endif
