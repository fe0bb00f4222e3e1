/*
 * job_stop.h
 *		The job that is running, and telling it to stop.
 */
#ifndef QML_JOB_STOP_H
#define QML_JOB_STOP_H

#include "ipc/shmem.h"
#include "jobs/attempt.h"

extern void qml_job_stop_init(QmlSlot *slot);

extern void qml_job_stop_publish(const QmlJob *job);
extern bool qml_job_stop_unpublish(void);
extern void qml_job_stop_begin(const QmlJob *job, MemoryContext context);
extern void qml_job_stop_end(void);
extern bool qml_job_stop_is_running(void);
extern double qml_job_stop_elapsed_ms(void);

extern void qml_job_stop_arm_group(int milliseconds);
extern void qml_job_stop_arm_job(const QmlJob *job);
extern void qml_job_stop_disarm(void);
extern bool qml_job_stop_group_is_late(void);

extern void qml_job_stop_shut_down(void);
extern bool qml_job_stop_is_shutting_down(void);
extern bool qml_job_stop_is_requested(void);
extern QmlStop qml_job_stop_timer_reason(void);
extern QmlStop qml_job_stop_reason(void);
extern void qml_job_stop_note_last_job(void);

#endif
