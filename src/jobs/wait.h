/*
 * wait.h
 *		Waiting for a ready job, or for the end of one.
 */
#ifndef QML_WAIT_H
#define QML_WAIT_H

#include "fmgr.h"
#include "utils/uuid.h"

#include "qml.h"

extern void qml_wait_check(FunctionCallInfo fcinfo, const char *procedure);
extern bool qml_wait_ready(char **queues, int nqueues, int64 timeout);
extern bool qml_wait_finished(const pg_uuid_t *id, int64 timeout, QmlState *state);

#endif
