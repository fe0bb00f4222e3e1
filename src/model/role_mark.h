/*
 * role_mark.h
 *		Marks of the roles that qml's tables name.
 */
#ifndef QML_ROLE_MARK_H
#define QML_ROLE_MARK_H

typedef enum QmlRoleMark
{
	QML_MARK_CAPABILITY = 0, /* the role has a capability */
	QML_MARK_REGISTRATION	 /* a handler, hook, middleware or schedule is the role's */
} QmlRoleMark;

#define QML_ROLE_MARKS 2

extern void qml_role_mark_init(void);
extern bool qml_role_mark_is_needless(Oid role);
extern bool qml_role_mark_has(QmlRoleMark mark, Oid role);
extern uint64 qml_role_mark_changes(void);
extern void qml_role_mark_set(QmlRoleMark mark, Oid role, bool wanted);
extern char *qml_role_mark_problem(QmlRoleMark mark, Oid role, const char *whose);

#endif
