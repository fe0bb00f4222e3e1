/*
 * job_audit.h
 *		What an act of control changes of a job, for the record.
 */
#ifndef QML_JOB_AUDIT_H
#define QML_JOB_AUDIT_H

#include "model/audit.h"
#include "model/job.h"

extern void qml_job_audit_note(QmlAuditAct *act, const QmlJob *before, const QmlJob *after);

#endif
