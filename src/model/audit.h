/*
 * audit.h
 *		The record of what was done by hand.
 */
#ifndef QML_AUDIT_H
#define QML_AUDIT_H

#include "utils/timestamp.h"

/* What an act is about. */
typedef enum QmlAuditKind
{
	QML_AUDIT_JOB = 0,
	QML_AUDIT_QUEUE,
	QML_AUDIT_SCHEDULE,
	QML_AUDIT_HANDLER,
	QML_AUDIT_HOOK,
	QML_AUDIT_MIDDLEWARE,
	QML_AUDIT_ROLE,
	QML_AUDIT_SERVER,
	QML_AUDIT_BULK,
	QML_AUDIT_DATABASE
} QmlAuditKind;

/* An act of control.  Documents are jsonb, 0 where there is nothing. */
typedef struct QmlAuditAct
{
	const char *action; /* name of the SQL function */
	QmlAuditKind kind;
	const char *object; /* its id or name; NULL: the database as a whole */
	const char *queue;	/* the queue that it is about; NULL: none, or all */
	Datum before;
	Datum after;
	bool is_lazy; /* what it did may be lost in a crash after its commit, and this with it */
} QmlAuditAct;

extern void qml_audit_write(const QmlAuditAct *act);
extern Datum qml_audit_look(QmlAuditKind kind, const char *object);
extern void qml_audit_change(const char *action, QmlAuditKind kind, const char *object,
							 const char *queue, Datum before);
extern Datum qml_audit_count(const char *name, int64 count);

/* Where rows go; for maintenance/audit_partitions.c. */
#define QML_AUDIT_TABLE	   "audit_data"
#define QML_AUDIT_OVERFLOW "audit_overflow"

extern void qml_audit_month(TimestampTz at, TimestampTz *lower, TimestampTz *upper);
extern char *qml_audit_partition_name(TimestampTz at);
extern bool qml_audit_is_partition(Oid leaf);

#endif
