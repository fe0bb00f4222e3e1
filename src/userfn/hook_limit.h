/*
 * hook_limit.h
 *		Limits the time that hooks take in a background process.
 */
#ifndef QML_HOOK_LIMIT_H
#define QML_HOOK_LIMIT_H

#include "userfn/callback.h"

extern void qml_hook_limit_init(bool (*stops)(void), bool (*is_late)(void));
extern bool qml_hook_limit_is_on(void);
extern void qml_hook_limit_run(const QmlCallback *hook, void (*work)(void *arg), void *arg);
extern bool qml_hook_limit_is_own(int sqlerrcode);
extern void qml_hook_limit_note_transition(double milliseconds);
extern void qml_hook_limit_check(void);
extern void qml_hook_limit_forget(void);
extern double qml_hook_limit_average(void);
extern void qml_hook_limit_resume(double milliseconds);
extern int qml_hook_limit_room(int milliseconds);
extern int qml_hook_limit_batch(int most);
extern uint32 qml_hook_limit_hash(const QmlCallback *hook);
extern bool qml_hook_limit_is_stuck(const QmlCallback *hook);

#endif
