/*
 * stuck_hooks.h
 *		Hooks that could not be canceled and took their process with them.
 */
#ifndef QML_STUCK_HOOKS_H
#define QML_STUCK_HOOKS_H

#include "ipc/shmem.h"

extern void qml_stuck_hooks_add(uint32 hook);
extern bool qml_stuck_hooks_has(uint32 hook);
extern int qml_stuck_hooks_list(uint32 *hooks);
extern void qml_stuck_hooks_remove(uint32 hook);

#endif
