/*
 * grant.h
 *		Giving capabilities to roles and taking them back.
 */
#ifndef QML_GRANT_H
#define QML_GRANT_H

#include "model/acl.h"

extern void qml_grant_give(Oid grantee, QmlCapability capability, const char *queue);
extern void qml_grant_take(Oid grantee, QmlCapability capability, const char *queue);
extern void qml_grant_follow_handlers(Oid role);
extern void qml_grant_forget_queue(const char *queue);

#endif
