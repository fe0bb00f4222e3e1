/*
 * session_reset.h
 *		Making the session as it was, between two jobs.
 */
#ifndef QML_SESSION_RESET_H
#define QML_SESSION_RESET_H

extern void qml_session_reset_init(void);
extern void qml_session_reset_at_begin(void);
extern void qml_session_reset_leftovers(void);
extern void qml_session_reset_after_function(void);
extern void qml_session_reset_after_procedure(void);
extern bool qml_session_reset_constraints_set(void);

#endif
