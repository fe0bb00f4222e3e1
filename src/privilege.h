/*
 * privilege.h
 *		Takes back what default privileges gave away.
 */
#ifndef QML_PRIVILEGE_H
#define QML_PRIVILEGE_H

extern void qml_privilege_close_table(Oid table);
extern void qml_privilege_close_extension(Oid extension);

#endif
