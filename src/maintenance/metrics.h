/*
 * metrics.h
 *		Statistics and numbers of jobs in the text format of Prometheus.
 */
#ifndef QML_METRICS_H
#define QML_METRICS_H

#include "lib/stringinfo.h"

extern void qml_metrics_write(StringInfo text);

#endif
