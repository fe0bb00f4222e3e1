/*
 * portal.h
 *		Cursors that are out of reach for a while.
 */
#ifndef QML_PORTAL_H
#define QML_PORTAL_H

#include "nodes/pg_list.h"

extern List *qml_portal_hide(void);
extern void qml_portal_close_others(void);
extern void qml_portal_show(List *hidden);

#endif
