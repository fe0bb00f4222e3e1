/*
 * hook.h
 *		State hooks: functions of users that are told of each transition.
 */
#ifndef QML_HOOK_H
#define QML_HOOK_H

#include "model/job.h"

/* Transitions of one call that hooks are to be told of. */
typedef struct QmlHookCalls
{
	List *list;
	MemoryContext context; /* where they are kept */
	bool carefully;		   /* the error of a hook is not the caller's */
} QmlHookCalls;

extern void qml_hook_start(QmlHookCalls *calls, bool carefully);
extern void qml_hook_note(QmlHookCalls *calls, const QmlJob *job, bool is_new);
extern void qml_hook_run(QmlHookCalls *calls);
extern bool qml_hook_wanted(QmlState state);
extern int qml_hook_batch(int most);
extern bool qml_hook_is_running(void);
extern void qml_hook_switch_off_stuck(void);

#endif
