/*
 * sandbox.h
 *		Keeps cursors and large objects apart between functions of different roles.
 */
#ifndef QML_SANDBOX_H
#define QML_SANDBOX_H

#include "nodes/pg_list.h"

extern void qml_sandbox_init(void);
extern List *qml_sandbox_hide_portals(void);
extern void qml_sandbox_close_other_portals(void);
extern void qml_sandbox_show_portals(List *hidden);
extern bool qml_sandbox_forbid_lobjects(bool forbid);

#endif
