/*
 * bulks.h
 *		Whether bulk operations go on.
 */
#ifndef QML_BULKS_H
#define QML_BULKS_H

#include "diagnosis/finding.h"

extern void qml_bulks_check(QmlFinding *finding);

#endif
