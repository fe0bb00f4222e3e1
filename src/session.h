/*
 * session.h
 *		Sessions that hold jobs for as long as they live.
 */
#ifndef QML_SESSION_H
#define QML_SESSION_H

#include "utils/uuid.h"

extern bool qml_session_can_hold(void);
extern char *qml_session_id(void);
extern void qml_session_hold(const pg_uuid_t *job);
extern void qml_session_hold_none(void);
extern bool qml_session_is_gone(const char *server, int length);
extern bool qml_session_went_with_server(const char *server);

#endif
