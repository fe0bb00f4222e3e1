/*
 * processes.h
 *		Checks of what background work needs: the library, settings, processes and their slots.
 */
#ifndef QML_PROCESSES_H
#define QML_PROCESSES_H

#include "diagnosis/finding.h"

extern bool qml_processes_may_work(void);
extern void qml_processes_check_preloaded(QmlFinding *finding);
extern void qml_processes_check_version(QmlFinding *finding);
extern void qml_processes_check_primary(QmlFinding *finding);
extern void qml_processes_check_enabled(QmlFinding *finding);
extern void qml_processes_check_database(QmlFinding *finding);
extern void qml_processes_check_adopted(QmlFinding *finding);
extern void qml_processes_check_launcher(QmlFinding *finding);
extern void qml_processes_check_scheduler(QmlFinding *finding);
extern void qml_processes_check_promotion(QmlFinding *finding);
extern void qml_processes_check_cleanup(QmlFinding *finding);
extern void qml_processes_check_workers(QmlFinding *finding);
extern void qml_processes_check_slots(QmlFinding *finding);

#endif
