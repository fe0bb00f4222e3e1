/*
 * hook_failure.h
 *		Counts the errors of state hooks, and disables those that keep failing.
 */
#ifndef QML_HOOK_FAILURE_H
#define QML_HOOK_FAILURE_H

#include "common/subxact.h"
#include "userfn/callback.h"

/* So many errors in a row disable a hook. */
#define QML_HOOK_MAX_ERRORS 5

/* How the calls of a hook for the transitions of one operation went. */
typedef struct QmlHookResult
{
	const QmlCallback *hook;
	int errors;			/* in a row, up to now */
	bool succeeded;		/* at least once: earlier errors do not count */
	bool failed;		/* at least once */
	QmlFailure failure; /* the last one */
	bool hidden;		/* it may quote what is hidden in the job */
} QmlHookResult;

extern bool qml_hook_failure_record(const QmlHookResult *result);
extern void qml_hook_failure_record_job(Datum name, Oid role, Datum error);
extern void qml_hook_failure_disable_stuck(void);

#endif
