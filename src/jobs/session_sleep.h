/*
 * session_sleep.h
 *		Sleep of a session within a call.
 */
#ifndef QML_SESSION_SLEEP_H
#define QML_SESSION_SLEEP_H

#include "fmgr.h"

extern void qml_session_check_wait(FunctionCallInfo fcinfo, const char *procedure,
								   const char *on_standby);
extern void qml_session_begin_call(void);
extern void qml_session_end_call(void);
extern void qml_session_sleep(int64 milliseconds, uint32 wait_event);

#endif
