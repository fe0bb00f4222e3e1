/*
 * storage.h
 *		Checks of what keeps the tables of jobs small and claims fast.
 */
#ifndef QML_STORAGE_H
#define QML_STORAGE_H

#include "diagnosis/finding.h"

extern void qml_storage_check_vacuum(QmlFinding *finding);
extern void qml_storage_check_autovacuum(QmlFinding *finding);
extern void qml_storage_check_triggers(QmlFinding *finding);

#endif
