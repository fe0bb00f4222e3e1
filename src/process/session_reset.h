/*
 * session_reset.h
 *		Making the session as it was, between two jobs.
 */
#ifndef QML_SESSION_RESET_H
#define QML_SESSION_RESET_H

extern void qml_clean_init(void);
extern void qml_clean_begin(void);
extern void qml_clean_outside(void);
extern void qml_clean_session(void);
extern void qml_clean_committed(void);
extern bool qml_clean_constraints_set(void);

#endif
