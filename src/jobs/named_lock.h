/*
 * named_lock.h
 *		Named locks.
 */
#ifndef QML_NAMED_LOCK_H
#define QML_NAMED_LOCK_H

extern bool qml_named_lock_take(const char *resource, const char *owner, int64 ttl, int64 *fence);
extern bool qml_named_lock_release(const char *resource, const char *owner);

#endif
