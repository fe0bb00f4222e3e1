/*
 * alone.h
 *		Running one job in a transaction of its own.
 */
#ifndef QML_ALONE_H
#define QML_ALONE_H

#include "process/runner.h"

extern void qml_alone_run(QmlRunner *runner);

#endif
