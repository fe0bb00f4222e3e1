/*
 * registry.h
 *		Registers and unregisters handlers, state hooks and middleware.
 */
#ifndef QML_REGISTRY_H
#define QML_REGISTRY_H

#include "utils/jsonb.h"

#include "userfn/callback.h"

extern Oid qml_registry_handler_function(const char *name);
extern Oid qml_registry_callback_function(QmlCallbackKind kind, const char *name);
extern void qml_registry_add_handler(const char *method, Oid function, Jsonb *options);
extern void qml_registry_add_command(const char *method, const char *command, Jsonb *options);
extern bool qml_registry_remove_handler(const char *method, bool missing_ok);
extern bool qml_registry_add_hook(const char *name, Oid function, Datum states, Jsonb *options);
extern void qml_registry_add_middleware(const char *name, Oid function, int position,
										Jsonb *options);
extern bool qml_registry_remove_callback(QmlCallbackKind kind, const char *name, bool missing_ok);

#endif
