/*
 * acl.h
 *		Who may do what to which queue.
 */
#ifndef QML_ACL_H
#define QML_ACL_H

/* What a role may do to a queue. */
typedef enum QmlCapability
{
	QML_CAN_ENQUEUE = 0,
	QML_CAN_WORK,
	QML_CAN_MONITOR,
	QML_CAN_ADMIN
} QmlCapability;

#define QML_CAPABILITIES 4

/* In rows of qml.acl_data that are not about a capability: see model/grant.c. */
#define QML_ACL_USAGE "usage"

/* How much of a job a user sees. */
typedef enum QmlAccess
{
	QML_ACCESS_NONE = 0,
	QML_ACCESS_OUTLINE, /* all but payload, result, progress, errors, metadata */
	QML_ACCESS_FULL
} QmlAccess;

extern const char *const qml_capability_names[QML_CAPABILITIES];

extern void qml_acl_init(void);
extern bool qml_acl_allow(QmlCapability capability, const char *queue);
extern bool qml_acl_allow_any(QmlCapability capability);
extern void qml_acl_require(QmlCapability capability, const char *queue);
extern void qml_acl_require_any(QmlCapability capability);
extern void qml_acl_require_owner(const char *action);
extern QmlAccess qml_acl_access(const char *queue, Oid created_by);
extern bool qml_acl_role_may_enqueue(Oid role, const char *queue);
extern bool qml_acl_own_job(const char *queue, Oid created_by);

#endif
