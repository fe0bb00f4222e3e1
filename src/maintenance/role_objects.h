/*
 * role_objects.h
 *		Removing all that a role has in qml.
 */
#ifndef QML_ROLE_OBJECTS_H
#define QML_ROLE_OBJECTS_H

/* How many of each. */
typedef struct QmlRoleObjects
{
	int64 capabilities;
	int64 handlers;
	int64 hooks;
	int64 middleware;
	int64 schedules;
} QmlRoleObjects;

extern void qml_role_objects_drop(Oid role, QmlRoleObjects *dropped);

#endif
