/*
 * numbers.h
 *		Check of the process that counts all jobs.
 */
#ifndef QML_NUMBERS_H
#define QML_NUMBERS_H

#include "diagnosis/finding.h"

extern void qml_numbers_check(QmlFinding *finding);

#endif
