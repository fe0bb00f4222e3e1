/*
 * group.h
 *		Running a group of short jobs in one transaction.
 */
#ifndef QML_GROUP_H
#define QML_GROUP_H

#include "process/runner.h"

extern bool qml_group_looks_short(const QmlAttempt *attempt);
extern void qml_group_run(QmlRunner *runner);

#endif
