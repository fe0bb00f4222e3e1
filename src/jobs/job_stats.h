/*
 * job_stats.h
 *		What is counted of jobs for statistics.
 */
#ifndef QML_JOB_STATS_H
#define QML_JOB_STATS_H

#include "model/job.h"

extern void qml_job_stats_made(const QmlJob *job, int count);
extern void qml_job_stats_changed(const QmlJob *job);

#endif
