/*
 * fingerprint.h
 *		What errors have in common that differ in numbers, ids and quoted values only.
 */
#ifndef QML_FINGERPRINT_H
#define QML_FINGERPRINT_H

#include <stddef.h>
#include <stdint.h>

extern size_t qml_fingerprint_normalize(const char *message, size_t length, char *normal);
extern uint64_t qml_fingerprint_begin(void);
extern uint64_t qml_fingerprint_add(uint64_t fingerprint, const char *bytes, size_t length);

#endif
