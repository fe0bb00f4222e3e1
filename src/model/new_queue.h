/*
 * new_queue.h
 *		What is said of a queue that a caller names, and that is not there.
 */
#ifndef QML_NEW_QUEUE_H
#define QML_NEW_QUEUE_H

extern void qml_new_queue_allow(const char *name);
extern void qml_new_queue_tell(const char *name);
extern void qml_new_queue_tell_missing(const char *name);

#endif
