/*
 * sandbox.h
 *		Keeps functions of different roles apart that share a session.
 */
#ifndef QML_SANDBOX_H
#define QML_SANDBOX_H

#include "nodes/pg_list.h"

/* Whose function runs, and so what it may not use; each forbids what the ones before do. */
typedef enum QmlSandbox
{
	QML_SANDBOX_NONE = 0,
	QML_SANDBOX_MIDDLEWARE,
	QML_SANDBOX_HOOK
} QmlSandbox;

extern void qml_sandbox_init(void);
extern List *qml_sandbox_hide_portals(void);
extern void qml_sandbox_close_other_portals(void);
extern void qml_sandbox_show_portals(List *hidden);
extern QmlSandbox qml_sandbox_enter(QmlSandbox sandbox);

#endif
