/*
 * concurrency.c
 *		The concurrency slots that the jobs in hand of a worker hold.
 *
 * Of a method with the option `concurrency`, at most so many workers of a database have
 * jobs in hand at a time: each of them holds a concurrency slot of the method, however
 * many jobs of it are in its batch.  A job that was claimed when the server went down
 * is a poison suspect: suspects share one slot in a database, so that they run one
 * at a time.
 *
 * The slots are in shared memory, in the worker's QmlSlot (ipc/slots.c), and are
 * released with it when the process ends.  Here is what a batch knows of them.  It
 * asks shared memory once for each method: what was refused stays so until the batch
 * is filled anew, or every job of a claim would take the lock again.
 */
#include "postgres.h"

#include "common/hash_set.h"
#include "ipc/dispatch.h"
#include "ipc/slots.h"
#include "process/concurrency.h"

/* What stands for a method in shared memory.  Two methods of one hash share their slots. */
uint32
qml_concurrency_hash(const char *method)
{
	return (uint32) qml_hash_name(method, strlen(method));
}

static bool
is_among(uint32 method, const uint32 *methods, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (methods[i] == method)
			return true;
	}
	return false;
}

/* Whether the batch holds a slot of the method. */
bool
qml_concurrency_holds(const QmlConcurrency *concurrency, uint32 method)
{
	return is_among(method, concurrency->held, concurrency->nheld);
}

/* Whether shared memory has refused one since the batch was filled. */
bool
qml_concurrency_is_refused(const QmlConcurrency *concurrency, uint32 method)
{
	return is_among(method, concurrency->refused, concurrency->nrefused);
}

/* Remembers that the method had no slot left; returns false for the caller's sake. */
static bool
refuse(QmlConcurrency *concurrency, uint32 method)
{
	if (concurrency->nrefused < QML_MAX_CONCURRENCY_SLOTS)
		concurrency->refused[concurrency->nrefused++] = method;
	return false;
}

/* Whether the batch holds a slot of the method, or gets one now. */
bool
qml_concurrency_acquire(QmlConcurrency *concurrency, uint32 method, int limit)
{
	Assert(limit > 0);
	if (qml_concurrency_holds(concurrency, method))
		return true;
	if (qml_concurrency_is_refused(concurrency, method))
		return false;
	if (concurrency->nheld == QML_MAX_CONCURRENCY_SLOTS ||
		!qml_slots_acquire_concurrency(concurrency->worker, method, limit))
		return refuse(concurrency, method);
	concurrency->held[concurrency->nheld++] = method;
	return true;
}

/* Whether the batch holds the slot of suspects, or would get it. */
bool
qml_concurrency_may_acquire_suspect(QmlConcurrency *concurrency)
{
	QmlSlot *worker = concurrency->worker;

	if (qml_concurrency_holds(concurrency, QML_CONCURRENCY_SUSPECT))
		return true;
	if (qml_concurrency_is_refused(concurrency, QML_CONCURRENCY_SUSPECT))
		return false;
	return qml_slots_concurrency_is_free(worker->database, QML_CONCURRENCY_SUSPECT, 1, worker) ||
		   refuse(concurrency, QML_CONCURRENCY_SUSPECT);
}

/* Whether another worker would get a slot of the method. */
bool
qml_concurrency_has_room(QmlConcurrency *concurrency, uint32 method, int limit)
{
	if (qml_concurrency_is_refused(concurrency, method))
		return false;
	return qml_slots_concurrency_is_free(concurrency->worker->database, method, limit, NULL) ||
		   refuse(concurrency, method);
}

/*
 * Releases the slots that no job of the batch needs.  Returns whether there were any;
 * *role: whose workers may now claim jobs that they passed over, InvalidOid for all.
 */
bool
qml_concurrency_release_unneeded(QmlConcurrency *concurrency,
								 bool (*needs)(uint32 method, void *arg), void *arg, Oid *role)
{
	int kept = 0;
	bool released_suspect = false;
	bool released;

	for (int i = 0; i < concurrency->nheld; i++)
	{
		uint32 method = concurrency->held[i];

		if (needs(method, arg))
		{
			concurrency->held[kept++] = method;
			continue;
		}
		qml_slots_release_concurrency(concurrency->worker, &method, 1);
		released_suspect = released_suspect || method == QML_CONCURRENCY_SUSPECT;
	}
	released = kept < concurrency->nheld;
	concurrency->nheld = kept;
	*role = released_suspect ? InvalidOid : concurrency->worker->role;
	return released;
}

/* Releases all, and forgets what was refused. */
void
qml_concurrency_release(QmlConcurrency *concurrency)
{
	bool had_suspect = qml_concurrency_holds(concurrency, QML_CONCURRENCY_SUSPECT);

	if (concurrency->nheld > 0)
		qml_slots_release_concurrency(concurrency->worker, concurrency->held, concurrency->nheld);
	concurrency->nheld = 0;
	concurrency->nrefused = 0;
	/* The next suspect may be for a worker of another role, which has passed it over. */
	if (had_suspect)
		qml_dispatch_recheck_all();
}
