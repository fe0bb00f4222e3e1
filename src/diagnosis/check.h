/*
 * check.h
 *		The checks of qml_status(), by what they look at.
 *
 * A check fills in a finding.  It reads no jobs, waits for no lock of theirs, and works on a
 * standby and without shared memory.
 */
#ifndef QML_CHECK_H
#define QML_CHECK_H

#include "diagnosis/finding.h"

/* processes.c */
extern void qml_check_preloaded(QmlFinding *finding);
extern void qml_check_primary(QmlFinding *finding);
extern void qml_check_enabled(QmlFinding *finding);
extern void qml_check_database(QmlFinding *finding);
extern void qml_check_adopted(QmlFinding *finding);
extern void qml_check_launcher(QmlFinding *finding);
extern void qml_check_scheduler(QmlFinding *finding);
extern void qml_check_promotion(QmlFinding *finding);
extern void qml_check_cleanup(QmlFinding *finding);
extern void qml_check_workers(QmlFinding *finding);
extern void qml_check_process_slots(QmlFinding *finding);

/* registrations.c */
extern void qml_check_handlers(QmlFinding *finding);
extern void qml_check_hooks(QmlFinding *finding);
extern void qml_check_middleware(QmlFinding *finding);
extern void qml_check_recurring(QmlFinding *finding);
extern void qml_check_ticks(QmlFinding *finding);

/* traffic.c */
extern void qml_check_paused(QmlFinding *finding);
extern void qml_check_queues(QmlFinding *finding);
extern void qml_check_servers(QmlFinding *finding);
extern void qml_check_leases(QmlFinding *finding);
extern void qml_check_locks(QmlFinding *finding);

/* storage.c */
extern void qml_check_vacuum(QmlFinding *finding);
extern void qml_check_autovacuum(QmlFinding *finding);
extern void qml_check_triggers(QmlFinding *finding);

#endif
