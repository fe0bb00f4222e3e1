/*
 * acl.h
 *		Who may do what to which queue.
 */
#ifndef QML_ACL_H
#define QML_ACL_H

#include "nodes/pg_list.h"

#include "compat.h"

/* What a role may do to a queue. */
typedef enum QmlCapability
{
	QML_CAN_ENQUEUE = 0,
	QML_CAN_WORK,
	QML_CAN_MONITOR,
	QML_CAN_ADMIN
} QmlCapability;

#define QML_CAPABILITIES 4

/* Sets of capabilities.  admin includes the others, so it is named only where it is alone. */
#define QML_MAY_ENQUEUE (1 << QML_CAN_ENQUEUE)
#define QML_MAY_WORK	(1 << QML_CAN_WORK)
#define QML_MAY_MONITOR (1 << QML_CAN_MONITOR)
#define QML_MAY_ADMIN	(1 << QML_CAN_ADMIN)
#define QML_MAY_WATCH	(QML_MAY_WORK | QML_MAY_MONITOR)
#define QML_MAY_ANY		(QML_MAY_ENQUEUE | QML_MAY_WORK | QML_MAY_MONITOR)

/* In rows of qml.acl_data that are not about a capability: see model/grant.c. */
#define QML_ACL_USAGE "usage"
#define QML_ACL_OPEN  "open"

/* A condition of SQL on such rows. */
#define QML_ACL_IS_CAPABILITY "capability NOT IN ('" QML_ACL_USAGE "', '" QML_ACL_OPEN "')"

/* How much of a job a user sees. */
typedef enum QmlAccess
{
	QML_ACCESS_NONE = 0,
	QML_ACCESS_OUTLINE,	 /* all but payload, result, progress, errors, metadata, reason */
	QML_ACCESS_REDACTED, /* these too, without what is to be hidden (model/redact.c) */
	QML_ACCESS_FULL
} QmlAccess;

extern const char *const qml_capability_names[QML_CAPABILITIES];

extern void qml_acl_init(void);
extern bool qml_acl_allow(QmlCapability capability, const char *queue);
extern bool qml_acl_allow_any(QmlCapability capability);
extern bool qml_acl_allow_one(int capabilities, const char *queue);
extern bool qml_acl_see_queue(const char *name);
extern List *qml_acl_queues(QmlCapability capability);
extern const char *qml_acl_qualify(const char *name);
pg_noreturn extern void qml_acl_refuse(int capabilities, const char *queue);
pg_noreturn extern void qml_acl_refuse_advising(int capabilities, QmlCapability advised,
												const char *queue);
extern void qml_acl_require(QmlCapability capability, const char *queue);
extern void qml_acl_require_any(QmlCapability capability);
extern void qml_acl_require_one(int capabilities, const char *queue);
extern bool qml_acl_is_owner(void);
extern void qml_acl_require_owner(const char *action);
extern QmlAccess qml_acl_access(const char *queue, Oid created_by);
extern bool qml_acl_role_may(Oid role, QmlCapability capability, const char *queue);
extern bool qml_acl_role_may_enqueue(Oid role, const char *queue);
extern bool qml_acl_own_job(const char *queue, Oid created_by);

#endif
