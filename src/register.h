/*
 * register.h
 *		Registering handlers for methods.
 */
#ifndef QML_REGISTER_H
#define QML_REGISTER_H

#include "utils/jsonb.h"

extern void qml_register_handler(const char *method, Oid function, Jsonb *options);
extern bool qml_register_remove(const char *method);

#endif
