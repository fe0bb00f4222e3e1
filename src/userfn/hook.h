/*
 * hook.h
 *		State hooks: functions of users that run on every transition of a job.
 */
#ifndef QML_HOOK_H
#define QML_HOOK_H

#include "model/job.h"

/* The transitions of one operation, for which hooks have yet to be called. */
typedef struct QmlHookCalls
{
	List *list;
	MemoryContext context; /* where they are kept */
	bool guarded;		   /* the error of a hook is not the caller's */
} QmlHookCalls;

extern void qml_hook_start(QmlHookCalls *calls, bool guarded);
extern void qml_hook_note(QmlHookCalls *calls, const QmlJob *job, bool is_new);
extern void qml_hook_run(QmlHookCalls *calls);
extern bool qml_hook_exist(void);
extern bool qml_hook_wanted(QmlState state);
extern int qml_hook_batch_size(int most);
extern bool qml_hook_is_running(void);

#endif
