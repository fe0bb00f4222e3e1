/*
 * uuid.h
 *		Job ids.
 */
#ifndef QML_UUID_H
#define QML_UUID_H

#include "utils/uuid.h"

extern void qml_uuid_generate(pg_uuid_t *id);

#endif
