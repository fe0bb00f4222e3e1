/*
 * traffic.h
 *		Checks of the jobs on their way.
 */
#ifndef QML_TRAFFIC_H
#define QML_TRAFFIC_H

#include "diagnosis/finding.h"

extern void qml_traffic_check_queues(QmlFinding *finding);
extern void qml_traffic_check_servers(QmlFinding *finding);
extern void qml_traffic_check_leases(QmlFinding *finding);
extern void qml_traffic_check_locks(QmlFinding *finding);
extern void qml_traffic_check_alerts(QmlFinding *finding);

#endif
