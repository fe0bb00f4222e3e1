/*
 * stuck_hooks.c
 *		Hooks that could not be canceled and took their process with them.
 *
 * A process that ends because of a hook cannot write into a table any more.  It leaves
 * a hash of the hook's name here, and the next process of the database switches the
 * hook off (userfn/hook_failure.c).  Until then, background processes do not call it.  A crash
 * of the server forgets it, and the hook is called once more.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "ipc/stuck_hooks.h"

/* Where a hook of this database is in the list; -1: it is not. */
static int
find_stuck(uint32 hook)
{
	Assert(LWLockHeldByMe(qml_shmem->lock));
	for (int i = 0; i < qml_shmem->nstuck; i++)
	{
		if (qml_shmem->stuck[i].database == MyDatabaseId && qml_shmem->stuck[i].hook == hook)
			return i;
	}
	return -1;
}

/*
 * By a process that ends.  One that does not fit is lost: then the hook ends the next
 * process that calls it, too, and is added by that one.
 */
void
qml_stuck_hooks_add(uint32 hook)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	if (find_stuck(hook) < 0 && qml_shmem->nstuck < QML_MAX_STUCK)
	{
		QmlStuckHook *stuck = &qml_shmem->stuck[qml_shmem->nstuck++];

		stuck->database = MyDatabaseId;
		stuck->hook = hook;
	}
	LWLockRelease(qml_shmem->lock);
}

/* Whether a hook of this database is stuck, and not yet switched off. */
bool
qml_stuck_hooks_has(uint32 hook)
{
	bool found;

	/* The usual case; one that is added at this moment could as well be added later. */
	if (*(volatile int *) &qml_shmem->nstuck == 0)
		return false;
	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	found = find_stuck(hook) >= 0;
	LWLockRelease(qml_shmem->lock);
	return found;
}

/* The stuck hooks of this database, at most QML_MAX_STUCK; returns how many. */
int
qml_stuck_hooks_list(uint32 *hooks)
{
	int count = 0;

	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	for (int i = 0; i < qml_shmem->nstuck; i++)
	{
		if (qml_shmem->stuck[i].database == MyDatabaseId)
			hooks[count++] = qml_shmem->stuck[i].hook;
	}
	LWLockRelease(qml_shmem->lock);
	return count;
}

/* The hook has been switched off. */
void
qml_stuck_hooks_remove(uint32 hook)
{
	int i;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	i = find_stuck(hook);
	if (i >= 0)
		qml_shmem->stuck[i] = qml_shmem->stuck[--qml_shmem->nstuck];
	LWLockRelease(qml_shmem->lock);
}
