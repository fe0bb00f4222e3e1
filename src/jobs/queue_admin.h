/*
 * queue_admin.h
 *		Managing queues.
 */
#ifndef QML_QUEUE_ADMIN_H
#define QML_QUEUE_ADMIN_H

#include "utils/jsonb.h"

extern void qml_queue_admin_create(const char *name, Jsonb *options);
extern void qml_queue_admin_alter(const char *name, Jsonb *options);
extern bool qml_queue_admin_drop(const char *name, bool missing_ok);
extern bool qml_queue_admin_pause(const char *name, Datum reason, bool missing_ok);
extern bool qml_queue_admin_resume(const char *name, bool missing_ok);
extern bool qml_queue_admin_pause_all(Datum reason);
extern bool qml_queue_admin_resume_all(void);

#endif
