/*
 * wait_event.h
 *		Names of what processes of qml wait for.
 */
#ifndef QML_WAIT_EVENT_H
#define QML_WAIT_EVENT_H

extern uint32 qml_wait_event(const char *name);

#endif
