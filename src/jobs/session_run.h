/*
 * session_run.h
 *		Runs jobs in the session and the transaction of the caller.
 */
#ifndef QML_SESSION_RUN_H
#define QML_SESSION_RUN_H

#include "model/job.h"

extern void qml_session_run_require(const char *function);
extern Datum qml_session_run_worker(void);
extern QmlJob *qml_session_run_one(const pg_uuid_t *id);
extern QmlJob *qml_session_run_claimed(const QmlJob *claimed);

#endif
