/*
 * waiters.c
 *		Sessions that wait for a ready job, or for the end of one.
 *
 * A session that waits (jobs/wait.c) publishes in shared memory what it waits for, looks,
 * and sleeps on its latch.  A session that commits reads all entries and sets the
 * latches of those that it concerns.  No wake-up is lost: the first one publishes and then
 * looks, the other one's commit is visible before it reads, with full barriers between.
 * An entry that is read while its session changes it costs a needless wake-up, or
 * belongs to a session that is about to look.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"

#include "ipc/waiters.h"

static QmlWaiter *
my_entry(void)
{
	int number = (int) (MyProc - ProcGlobal->allProcs);

	Assert(number < qml_shmem->nsessions);
	return &qml_shmem->waiters[number];
}

/*
 * This session waits, until qml_waiters_end(): for a ready job of the queues (none: of
 * any queue), or for the end of the job.  It must look after this, and before it sleeps.
 */
void
qml_waiters_begin(QmlWaitKind kind, const int *queues, int nqueues, const pg_uuid_t *job)
{
	QmlWaiter *entry = my_entry();

	Assert(kind != QML_WAITS_NOT && nqueues <= QML_MAX_WAIT_QUEUES);
	Assert(pg_atomic_read_u32(&entry->kind) == QML_WAITS_NOT);
	entry->database = MyDatabaseId;
	entry->job = *job;
	entry->nqueues = nqueues;
	for (int i = 0; i < nqueues; i++)
		entry->queues[i] = queues[i];
	pg_write_barrier();
	pg_atomic_write_u32(&entry->kind, kind);
	pg_atomic_fetch_add_u32(&qml_shmem->nwaiting, 1);
	pg_memory_barrier();
}

/* This session no longer waits; it may not have waited. */
void
qml_waiters_end(void)
{
	if (pg_atomic_exchange_u32(&my_entry()->kind, QML_WAITS_NOT) != QML_WAITS_NOT)
		pg_atomic_fetch_sub_u32(&qml_shmem->nwaiting, 1);
}

/* Whether a session waits for a job of one of the queues, or for one of the jobs. */
static bool
waits_for_any(const QmlWaiter *waiter, uint32 kind, const int *queues, int nqueues,
			  const pg_uuid_t *finished, int nfinished)
{
	if (kind == QML_WAITS_FINISHED)
	{
		for (int i = 0; i < nfinished; i++)
		{
			if (memcmp(&waiter->job, &finished[i], sizeof(pg_uuid_t)) == 0)
				return true;
		}
		return false;
	}
	if (waiter->nqueues == 0)
		return nqueues > 0;
	for (int i = 0; i < nqueues; i++)
	{
		for (int j = 0; j < waiter->nqueues; j++)
		{
			if (waiter->queues[j] == queues[i])
				return true;
		}
	}
	return false;
}

/* Sets the latch of each session of this database that waits, if what happened concerns it. */
static void
wake_waiters(bool all, const int *queues, int nqueues, const pg_uuid_t *finished, int nfinished)
{
	pg_memory_barrier();
	if (pg_atomic_read_u32(&qml_shmem->nwaiting) == 0)
		return;
	for (int i = 0; i < qml_shmem->nsessions; i++)
	{
		QmlWaiter *waiter = &qml_shmem->waiters[i];
		uint32 kind = pg_atomic_read_u32(&waiter->kind);

		if (kind != QML_WAITS_NOT && waiter->database == MyDatabaseId &&
			(all || waits_for_any(waiter, kind, queues, nqueues, finished, nfinished)))
			SetLatch(&ProcGlobal->allProcs[i].procLatch);
	}
}

/* Anything may have happened. */
void
qml_waiters_wake_all(void)
{
	wake_waiters(true, NULL, 0, NULL, 0);
}

/* Jobs of these queues are ready, and these jobs are finished. */
void
qml_waiters_wake(const int *queues, int nqueues, const pg_uuid_t *finished, int nfinished)
{
	wake_waiters(false, queues, nqueues, finished, nfinished);
}
