/*
 * session_reset.h
 *		Making the session as it was, between two jobs.
 */
#ifndef QML_SESSION_RESET_H
#define QML_SESSION_RESET_H

extern void qml_session_reset_init(void);
extern void qml_session_reset_begin(void);
extern void qml_session_reset_outside(void);
extern void qml_session_reset_session(void);
extern void qml_session_reset_committed(void);
extern bool qml_session_reset_constraints_set(void);

#endif
