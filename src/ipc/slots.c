/*
 * slots.c
 *		The slots of background processes: their life, and what all of them hold.
 *
 * A slot is free, then starting (reserved by the launcher), running (taken by the
 * process that was started for it), ended (by that process, on every exit, with the
 * reason), and free again (by the launcher).  A process knows the generation that the
 * slot had when it was reserved.  If it comes so late that the launcher has given the
 * slot to another one, the generations differ, and it does not take it.
 *
 * Slots change only under the lock.  Some functions read them without it, and say
 * so: they count or find processes in order to wake them or to ask for others, and
 * a slot that changes meanwhile costs a needless wake-up, or one more look.
 *
 * If the launcher is lost, its successor finds the slots as they are.  If the server
 * crashes, they are created again.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/proc.h"

#include "common/clock.h"
#include "ipc/slots.h"
#include "ipc/watch.h"

/* ----- the launcher ----- */

/* Forgets what was left for the process that had the slot before. */
static void
reset_slot(QmlSlot *slot)
{
	Assert(LWLockHeldByMeInMode(qml_shmem->lock, LW_EXCLUSIVE));
	Assert(slot->state == QML_SLOT_FREE);
	slot->pid = 0;
	slot->connected = false;
	slot->outcome = QML_ENDED_EARLY;
	for (int kind = 0; kind < QML_WAKES; kind++)
		pg_atomic_write_u64(&slot->due[kind], QML_WAKE_NEVER);
	memset(&slot->pending, 0, sizeof(slot->pending));
	slot->nlost = 0;
	slot->any_lost = false;
	pg_atomic_write_u32(&slot->has_work, 0);
	pg_atomic_write_u32(&slot->idle, 0);
	slot->leave = false;
	slot->has_job = false;
	slot->has_cancel = false;
	slot->progress.length = 0;
	slot->nconcurrency_slots = 0;
}

/* Reserves a free slot for a process that is about to be started; NULL: there is none. */
QmlSlot *
qml_slots_reserve(QmlKind kind, Oid database, Oid role)
{
	QmlSlot *slot = NULL;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int i = 0; i < qml_shmem->nslots && slot == NULL; i++)
	{
		if (qml_shmem->slots[i].state != QML_SLOT_FREE)
			continue;
		slot = &qml_shmem->slots[i];
		reset_slot(slot);
		slot->state = QML_SLOT_STARTING;
		slot->kind = kind;
		slot->generation++;
		slot->database = database;
		slot->role = role;
	}
	LWLockRelease(qml_shmem->lock);
	return slot;
}

static void
free_slot(QmlSlot *slot)
{
	Assert(LWLockHeldByMeInMode(qml_shmem->lock, LW_EXCLUSIVE));
	slot->state = QML_SLOT_FREE;
	slot->database = InvalidOid;
}

/* Gives a slot back whose process could not be started. */
void
qml_slots_release(QmlSlot *slot)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	Assert(slot->state == QML_SLOT_STARTING);
	free_slot(slot);
	LWLockRelease(qml_shmem->lock);
}

static void
view_slot(QmlSlot *slot, QmlSlotView *view)
{
	Assert(LWLockHeldByMe(qml_shmem->lock));
	view->state = slot->state;
	view->kind = slot->kind;
	view->generation = slot->generation;
	view->database = slot->database;
	view->role = slot->role;
	view->pid = slot->pid;
	view->connected = slot->connected;
	view->idle = slot->kind == QML_SCHEDULER ? pg_atomic_read_u64(&slot->asleep_until) != 0 :
											   pg_atomic_read_u32(&slot->idle) != 0;
	view->leave = slot->leave;
	view->outcome = slot->outcome;
	view->started_at = slot->started_at;
	view->started_ms = slot->started_ms;
	view->heartbeat_at = (TimestampTz) pg_atomic_read_u64(&slot->heartbeat_at);
}

/*
 * Looks at a slot, and frees it if its process ended; view->state is QML_SLOT_ENDED
 * then.  lost: a process that is still starting will never come, and counts as ended.
 */
void
qml_slots_inspect(QmlSlot *slot, bool lost, QmlSlotView *view)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	if (lost && slot->state == QML_SLOT_STARTING)
	{
		slot->state = QML_SLOT_ENDED;
		slot->outcome = QML_ENDED_EARLY;
	}
	view_slot(slot, view);
	if (slot->state == QML_SLOT_ENDED)
		free_slot(slot);
	LWLockRelease(qml_shmem->lock);
}

/*
 * Sends SIGTERM to a process that is not connected yet; false if it is, has ended or
 * cannot be signaled.  Under the lock, so that the pid is still that of the process.
 */
bool
qml_slots_terminate_unconnected(QmlSlot *slot, uint32 generation)
{
	bool sent;

	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	sent = slot->state == QML_SLOT_RUNNING && slot->generation == generation && !slot->connected &&
		   kill(slot->pid, SIGTERM) == 0;
	LWLockRelease(qml_shmem->lock);
	return sent;
}

/* Asks a worker to end after its job, or a scheduler after its round; false if it has ended. */
bool
qml_slots_ask_to_leave(QmlSlot *slot, uint32 generation)
{
	bool running;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	running = slot->state == QML_SLOT_RUNNING && slot->generation == generation;
	if (running)
	{
		Assert(slot->kind != QML_LOOK);
		slot->leave = true;
		qml_shmem_set_latch(&slot->process);
	}
	LWLockRelease(qml_shmem->lock);
	return running;
}

/* A worker need not leave any more; one that is leaving already has given back its jobs. */
void
qml_slots_let_stay(QmlSlot *slot, uint32 generation)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	if (slot->state == QML_SLOT_RUNNING && slot->generation == generation)
	{
		Assert(slot->kind == QML_WORKER);
		slot->leave = false;
	}
	LWLockRelease(qml_shmem->lock);
}

/* ----- the process that has the slot ----- */

/*
 * Takes the slot that the launcher reserved for this process; false if it has been
 * given to another one.
 */
bool
qml_slots_take(QmlSlot *slot, uint32 generation)
{
	bool mine;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	mine = slot->state == QML_SLOT_STARTING && slot->generation == generation;
	if (mine)
	{
		slot->state = QML_SLOT_RUNNING;
		slot->pid = MyProcPid;
		slot->started_at = GetCurrentTimestamp();
		slot->started_ms = qml_clock_monotonic_ms();
		pg_atomic_write_u64(&slot->heartbeat_at, (uint64) slot->started_at);
		pg_atomic_write_u64(&slot->asleep_until, 0);
	}
	LWLockRelease(qml_shmem->lock);
	return mine;
}

/* The process is connected; until now it may have waited for an exclusive lock on the database. */
void
qml_slots_set_connected(QmlSlot *slot)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	Assert(slot->state == QML_SLOT_RUNNING && slot->pid == MyProcPid);
	slot->connected = true;
	LWLockRelease(qml_shmem->lock);
}

/* What a look found: the owner of the extension. */
void
qml_slots_set_role(QmlSlot *slot, Oid role)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	Assert(slot->state == QML_SLOT_RUNNING && slot->pid == MyProcPid);
	slot->role = role;
	LWLockRelease(qml_shmem->lock);
}

/* The process is ready: from now on others may wake it. */
void
qml_slots_set_ready(QmlSlot *slot)
{
	Assert(slot->state == QML_SLOT_RUNNING && slot->pid == MyProcPid && slot->connected);
	pg_atomic_write_u32(&slot->process, qml_shmem_my_process());
	if (slot->kind != QML_LOOK)
		qml_watch_tell_common(slot->database);
}

/* The process is alive.  Also called from signal handlers. */
void
qml_slots_beat(QmlSlot *slot)
{
	pg_atomic_write_u64(&slot->heartbeat_at, (uint64) GetCurrentTimestamp());
}

/*
 * The process ends: from now on nobody wakes it, or leaves anything with it.  Under the lock,
 * so that whoever holds that knows.
 */
void
qml_slots_hide(QmlSlot *slot)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	Assert(slot->state == QML_SLOT_RUNNING && slot->pid == MyProcPid);
	pg_atomic_write_u32(&slot->process, 0);
	LWLockRelease(qml_shmem->lock);
	pg_memory_barrier();
}

/* The process has ended: the launcher may free the slot. */
void
qml_slots_end(QmlSlot *slot, QmlOutcome outcome, QmlLeft *left)
{
	Oid database;
	bool shown;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	Assert(slot->state == QML_SLOT_RUNNING && slot->pid == MyProcPid);
	Assert(pg_atomic_read_u32(&slot->process) == 0);
	/* A session that gives it work sets `has_work`, and then finds that it is not idle. */
	left->has_work = pg_atomic_read_u32(&slot->has_work) != 0;
	left->had_concurrency = slot->nconcurrency_slots > 0;
	slot->state = QML_SLOT_ENDED;
	slot->outcome = outcome;
	shown = slot->kind != QML_LOOK;
	database = slot->database;
	LWLockRelease(qml_shmem->lock);
	/* The launcher may have given the slot to another one by now. */
	if (shown)
		qml_watch_tell_common(database);
}

/* ----- the job of a worker, and its cancellation ----- */

/* A worker begins a job: a session that deletes it can cancel it now. */
void
qml_slots_begin_job(QmlSlot *slot, const pg_uuid_t *job)
{
	Assert(slot->kind == QML_WORKER && slot->pid == MyProcPid && !slot->has_job);
	SpinLockAcquire(&slot->mutex);
	slot->job = *job;
	slot->has_job = true;
	slot->has_cancel = false;
	SpinLockRelease(&slot->mutex);
}

/*
 * A worker ends its job; true if the job was deleted and therefore canceled.  Then the
 * signal that canceled it has arrived, or been sent, before this returns.
 *
 * The mutex alone does not guarantee that, because the signal is sent after it was
 * released.  But the session that sends it holds the lock meanwhile: once the worker
 * has got the lock exclusively, no signal for this job can follow.
 */
bool
qml_slots_end_job(QmlSlot *slot)
{
	bool canceled;

	SpinLockAcquire(&slot->mutex);
	canceled = slot->has_cancel;
	slot->has_job = false;
	slot->has_cancel = false;
	SpinLockRelease(&slot->mutex);
	if (canceled)
	{
		LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
		LWLockRelease(qml_shmem->lock);
	}
	return canceled;
}

/* Cancels a job in the worker of this database that runs it; NULL: all that run. */
static void
cancel_jobs(const pg_uuid_t *job)
{
	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];
		bool running;

		if (slot->kind != QML_WORKER || slot->database != MyDatabaseId ||
			slot->state != QML_SLOT_RUNNING)
			continue;
		SpinLockAcquire(&slot->mutex);
		running = slot->has_job && (job == NULL || memcmp(&slot->job, job, sizeof(pg_uuid_t)) == 0);
		if (running)
			slot->has_cancel = true;
		SpinLockRelease(&slot->mutex);
		if (running)
			(void) kill(slot->pid, SIGINT);
	}
	LWLockRelease(qml_shmem->lock);
}

/* A job was deleted. */
void
qml_slots_cancel_job(const pg_uuid_t *job)
{
	cancel_jobs(job);
}

/* The extension is being dropped: all jobs that run in this database are canceled. */
void
qml_slots_cancel_all_jobs(void)
{
	cancel_jobs(NULL);
}

/* ----- the progress of a job ----- */

/* The job of this worker reports its progress; the scheduler writes it into the job. */
void
qml_slots_set_progress(QmlSlot *slot, const pg_uuid_t *job, int attempt, const void *document,
					   Size size)
{
	Assert(slot->kind == QML_WORKER && slot->pid == MyProcPid);
	Assert(size > 0 && size <= QML_MAX_SHOWN_PROGRESS);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	slot->progress.job = *job;
	slot->progress.attempt = attempt;
	slot->progress.length = (int) size;
	memcpy(slot->progress.document, document, size);
	LWLockRelease(qml_shmem->lock);
}

/* By the scheduler: takes what a worker of its database reported; false: nothing new. */
bool
qml_slots_take_progress(QmlSlot *worker, QmlProgress *progress)
{
	bool found;

	/* Most slots are of others: what is read without the lock is read again below. */
	if (worker->kind != QML_WORKER || worker->database != MyDatabaseId)
		return false;
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	found = worker->kind == QML_WORKER && worker->database == MyDatabaseId &&
			worker->progress.length > 0;
	if (found)
	{
		memcpy(progress, &worker->progress, sizeof(*progress));
		worker->progress.length = 0;
	}
	LWLockRelease(qml_shmem->lock);
	return found;
}

/* ----- finding and counting ----- */

/* All slots as they are at one moment; views has room for qml_shmem->nslots. */
void
qml_slots_copy_all(QmlSlotView *views)
{
	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	for (int i = 0; i < qml_shmem->nslots; i++)
		view_slot(&qml_shmem->slots[i], &views[i]);
	LWLockRelease(qml_shmem->lock);
}

/* The slot of a database's scheduler, if one is at work; NULL otherwise.  Without the lock. */
QmlSlot *
qml_slots_find_scheduler(Oid database)
{
	for (int i = 0; qml_shmem && i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];

		if (slot->kind == QML_SCHEDULER && slot->database == database &&
			pg_atomic_read_u32(&slot->process) != 0)
			return slot;
	}
	return NULL;
}

/* How many schedulers and looks there are, and how many workers.  Without the lock. */
void
qml_slots_count_all(int *schedulers, int *workers)
{
	*schedulers = *workers = 0;
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		const QmlSlot *slot = &qml_shmem->slots[i];

		if (slot->state != QML_SLOT_STARTING && slot->state != QML_SLOT_RUNNING)
			continue;
		if (slot->kind == QML_WORKER)
			(*workers)++;
		else
			(*schedulers)++;
	}
}

static bool
is_worker_of(const QmlSlot *slot, Oid database)
{
	return slot->kind == QML_WORKER && slot->database == database &&
		   (slot->state == QML_SLOT_STARTING || slot->state == QML_SLOT_RUNNING);
}

/* How many workers a database has, of one role or (InvalidOid) of all.  Without the lock. */
int
qml_slots_count_workers(Oid database, Oid role)
{
	int count = 0;

	for (int i = 0; qml_shmem && i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];

		if (is_worker_of(slot, database) && (!OidIsValid(role) || slot->role == role))
			count++;
	}
	return count;
}

/* How many of the workers of a role wait for work, or will soon.  Without the lock. */
int
qml_slots_count_idle(Oid database, Oid role)
{
	int count = 0;

	for (int i = 0; qml_shmem && i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];

		if (is_worker_of(slot, database) && slot->role == role &&
			(slot->state == QML_SLOT_STARTING || pg_atomic_read_u32(&slot->idle) != 0))
			count++;
	}
	return count;
}

/*
 * Whether a worker is one too many: its database has `most` workers in the slots
 * before it.  Without the lock.
 */
bool
qml_slots_is_surplus(const QmlSlot *worker, int most)
{
	int before = 0;

	for (int i = 0; i < worker - qml_shmem->slots; i++)
	{
		if (is_worker_of(&qml_shmem->slots[i], worker->database))
			before++;
	}
	return before >= most;
}

/* ----- concurrency slots ----- */

static bool
holds_concurrency(const QmlSlot *slot, uint32 method)
{
	for (int i = 0; i < slot->nconcurrency_slots; i++)
	{
		if (slot->concurrency_slots[i] == method)
			return true;
	}
	return false;
}

/* How many workers of a database, except for one, hold a concurrency slot of a method. */
static int
count_concurrency(Oid database, uint32 method, const QmlSlot *except)
{
	int count = 0;

	Assert(LWLockHeldByMe(qml_shmem->lock));
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		const QmlSlot *slot = &qml_shmem->slots[i];

		if (slot != except && slot->kind == QML_WORKER && slot->state == QML_SLOT_RUNNING &&
			slot->database == database && holds_concurrency(slot, method))
			count++;
	}
	return count;
}

/* Whether a worker could get a concurrency slot of a method; `except` is not counted. */
bool
qml_slots_concurrency_is_free(Oid database, uint32 method, int limit, const QmlSlot *except)
{
	int count;

	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	count = count_concurrency(database, method, except);
	LWLockRelease(qml_shmem->lock);
	return count < limit;
}

/*
 * Acquires one of the `limit` concurrency slots that a database has for a method; false
 * if all are taken.  A worker that has one can acquire it again.
 */
bool
qml_slots_acquire_concurrency(QmlSlot *slot, uint32 method, int limit)
{
	bool acquired;

	Assert(slot->kind == QML_WORKER && slot->pid == MyProcPid);
	Assert(limit > 0);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	acquired = count_concurrency(slot->database, method, slot) < limit &&
			   slot->nconcurrency_slots < QML_MAX_CONCURRENCY_SLOTS;
	if (acquired)
		slot->concurrency_slots[slot->nconcurrency_slots++] = method;
	LWLockRelease(qml_shmem->lock);
	return acquired;
}

/* Releases concurrency slots: each as often as it was acquired. */
void
qml_slots_release_concurrency(QmlSlot *slot, const uint32 *methods, int count)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	Assert(count <= slot->nconcurrency_slots);
	for (int n = 0; n < count; n++)
	{
		for (int i = 0; i < slot->nconcurrency_slots; i++)
		{
			if (slot->concurrency_slots[i] != methods[n])
				continue;
			slot->concurrency_slots[i] = slot->concurrency_slots[--slot->nconcurrency_slots];
			break;
		}
	}
	LWLockRelease(qml_shmem->lock);
}
