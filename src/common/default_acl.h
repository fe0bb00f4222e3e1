/*
 * default_acl.h
 *		Revokes privileges that default privileges granted on qml's objects.
 */
#ifndef QML_DEFAULT_ACL_H
#define QML_DEFAULT_ACL_H

extern void qml_default_acl_close_table(Oid table);
extern void qml_default_acl_close_extension(Oid extension);

#endif
