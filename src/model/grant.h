/*
 * grant.h
 *		Grants capabilities to roles, and revokes them.
 */
#ifndef QML_GRANT_H
#define QML_GRANT_H

#include "model/acl.h"

extern void qml_grant_capability(Oid grantee, QmlCapability capability, const char *queue);
extern void qml_grant_revoke(Oid grantee, QmlCapability capability, const char *queue);
extern void qml_grant_lock(void);
extern void qml_grant_adjust_role(Oid role);
extern void qml_grant_mark_role(Oid role);
extern void qml_grant_unmark_role(Oid role);
extern void qml_grant_lock_role(Oid role);
extern void qml_grant_forget_queue(const char *queue);

#endif
