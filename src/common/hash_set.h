/*
 * hash_set.h
 *		Names by hash.
 */
#ifndef QML_HASH_SET_H
#define QML_HASH_SET_H

extern uint64 qml_hash_name(const char *name, int length);
extern void qml_hash_set_sort(uint64 *hashes, int count);
extern bool qml_hash_set_has(const uint64 *hashes, int count, uint64 hash);

#endif
