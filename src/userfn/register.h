/*
 * register.h
 *		Registering handlers, state hooks and middleware.
 */
#ifndef QML_REGISTER_H
#define QML_REGISTER_H

#include "utils/jsonb.h"

#include "userfn/callback.h"

extern void qml_register_handler(const char *method, Oid function, Jsonb *options);
extern bool qml_register_remove(const char *method);
extern void qml_register_hook(const char *name, Oid function, Datum states);
extern void qml_register_middleware(const char *name, Oid function, int position);
extern bool qml_register_remove_callback(QmlCallbackKind kind, const char *name);

#endif
