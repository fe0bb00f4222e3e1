/*
 * dispatch.c
 *		Which workers, listeners and waiting sessions are woken for ready jobs.
 *
 * A worker runs the jobs of one role.  A session that makes jobs ready sets `has_work` of all
 * workers of the role, and wakes one that is idle.  If none is idle, the role is added to
 * the roles that wait for the scheduler, which serves them: it asks the launcher for one
 * more worker, or for the slot of an idle worker of another role.  While a database has no
 * scheduler they wait for the next one (databases.c).
 *
 * No work is forgotten.  A worker clears `has_work`, claims until there is nothing, sets
 * `idle`, and sleeps only if `has_work` is still clear; the other side sets `has_work` and
 * then reads `idle`, with full barriers on both sides.  A worker that ends looks at
 * `has_work` after it has left its slot (slots.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "common/guc.h"
#include "ipc/databases.h"
#include "ipc/dispatch.h"
#include "ipc/due.h"
#include "ipc/slots.h"
#include "ipc/waiters.h"

/*
 * How long a worker is left idle while another role waits, microseconds: roles must not
 * take each other's slots all the time.
 */
#define IDLE_GRACE USECS_PER_SEC

/* ----- lists ----- */

/* Adds a role to a list of roles; *any: there are more. */
static void
add_role(Oid *roles, int *nroles, bool *any, Oid role)
{
	for (int i = 0; i < *nroles; i++)
	{
		if (roles[i] == role)
			return;
	}
	if (*nroles < QML_MAX_ROLES)
		roles[(*nroles)++] = role;
	else
		*any = true;
}

/* Adds ready jobs to those of other kinds; anything: there are more. */
static void
add_jobs(QmlReadyWork *work, const QmlReadyJobs *ready)
{
	for (int i = work->njobs - 1; i >= 0; i--)
	{
		QmlReadyJobs *jobs = &work->jobs[i];

		if (jobs->queue == ready->queue && jobs->method == ready->method)
		{
			jobs->count = jobs->count < INT_MAX - ready->count ? jobs->count + ready->count :
																 INT_MAX;
			return;
		}
	}
	if (work->njobs < QML_MAX_READY_KINDS)
		work->jobs[work->njobs++] = *ready;
	else
		work->anything = true;
}

/* Adds a queue to a list of queues; *any: there are more. */
static void
add_queue(int *queues, int *nqueues, bool *any, int queue)
{
	for (int i = 0; i < *nqueues; i++)
	{
		if (queues[i] == queue)
			return;
	}
	if (*nqueues < QML_MAX_WAIT_QUEUES)
		queues[(*nqueues)++] = queue;
	else
		*any = true;
}

/* ----- workers ----- */

static bool
is_worker_for(QmlSlot *slot, Oid role)
{
	return slot->kind == QML_WORKER && slot->database == MyDatabaseId && slot->role == role &&
		   pg_atomic_read_u32(&slot->process) != 0;
}

/* Sets `has_work` of all workers of a role, and wakes one that is idle; false: none is. */
static bool
wake_idle_worker(Oid role)
{
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		if (is_worker_for(&qml_shmem->slots[i], role))
			pg_atomic_write_u32(&qml_shmem->slots[i].has_work, 1);
	}
	pg_memory_barrier();
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];
		uint32 idle = 1;

		/* Two sessions that commit at the same time wake two workers. */
		if (is_worker_for(slot, role) && pg_atomic_compare_exchange_u32(&slot->idle, &idle, 0))
		{
			qml_shmem_set_latch(&slot->process);
			return true;
		}
	}
	return false;
}

/* Whether a worker of another role is idle. */
static bool
other_role_is_idle(Oid role)
{
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];

		if (slot->kind == QML_WORKER && slot->database == MyDatabaseId && slot->role != role &&
			pg_atomic_read_u32(&slot->process) != 0 && pg_atomic_read_u32(&slot->idle))
			return true;
	}
	return false;
}

/* Whether the role may have one more worker; the first one is always allowed. */
static bool
may_have_worker(Oid role)
{
	return qml_slots_count_workers(MyDatabaseId, InvalidOid) < qml_workers ||
		   qml_slots_count_workers(MyDatabaseId, role) == 0;
}

/* What waits for the scheduler, or (NULL) the next one; NULL: nobody knows.  Without the lock. */
static const QmlPending *
look_at_pending(QmlSlot *scheduler)
{
	QmlDatabase *entry;

	if (scheduler)
		return &scheduler->pending;
	entry = qml_databases_find_own();
	return entry ? &entry->pending : NULL;
}

/* Adds a role to those that wait for a worker. */
static void
add_waiting_role(QmlSlot *scheduler, Oid role)
{
	const QmlPending *seen = look_at_pending(scheduler);
	QmlPending *pending;

	/*
	 * Without the lock first: while all workers are busy each commit comes here, and
	 * finds that the role is there.  The scheduler may take the list meanwhile; then it
	 * looks for workers after this session has found none.
	 */
	for (int i = 0; seen && i < seen->nroles && i < QML_MAX_ROLES; i++)
	{
		if (seen->roles[i] == role)
			return;
	}
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	pending = qml_databases_pending(scheduler);
	if (pending)
		add_role(pending->roles, &pending->nroles, &pending->any_role, role);
	LWLockRelease(qml_shmem->lock);
}

/* All roles that have ready jobs may wait for a worker. */
static void
add_all_waiting_roles(QmlSlot *scheduler)
{
	QmlPending *pending;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	pending = qml_databases_pending(scheduler);
	if (pending)
		pending->any_role = true;
	LWLockRelease(qml_shmem->lock);
}

/*
 * Wakes a worker for ready jobs of a role.  If none is idle the role waits, and the
 * scheduler serves it: at once if there may be one more worker, a moment later if one
 * of another role is idle.  Otherwise the role waits until a worker becomes idle or ends.
 */
static void
wake_or_wait(QmlSlot *scheduler, Oid role)
{
	if (wake_idle_worker(role))
		return;
	add_waiting_role(scheduler, role);
	if (may_have_worker(role))
		qml_due_at(scheduler, QML_WAKE_WORK, GetCurrentTimestamp());
	else if (other_role_is_idle(role))
		qml_due_at(scheduler, QML_WAKE_WORK, GetCurrentTimestamp() + IDLE_GRACE);
}

/* ----- ready jobs ----- */

void
qml_dispatch_reset(QmlReadyWork *work)
{
	work->nroles = 0;
	work->any_role = false;
	work->njobs = 0;
	work->nnotify = 0;
	work->anything = false;
}

/*
 * Adds jobs, for a handler of the role, or (InvalidOid) for workers outside of the database.
 * notify: their queue has listeners.
 */
void
qml_dispatch_add(QmlReadyWork *work, const QmlReadyJobs *ready, Oid role, bool notify)
{
	if (OidIsValid(role))
		add_role(work->roles, &work->nroles, &work->any_role, role);
	add_jobs(work, ready);
	if (notify)
		add_queue(work->notify, &work->nnotify, &work->anything, ready->queue);
}

/* Has the scheduler send a notification to those who listen to the queues. */
static void
send_notify(QmlSlot *scheduler, const QmlReadyWork *work, TimestampTz all_at)
{
	QmlPending *pending;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	pending = qml_databases_pending(scheduler);
	for (int i = 0; pending && i < work->nnotify; i++)
		add_queue(pending->notify, &pending->nnotify, &pending->notify_all, work->notify[i]);
	if (pending && work->anything)
		pending->notify_all = true;
	LWLockRelease(qml_shmem->lock);
	qml_due_at(scheduler, QML_WAKE_NOTIFY, work->nnotify > 0 ? GetCurrentTimestamp() : all_at);
}

/*
 * These jobs are ready, and others are finished: wakes everybody whom that concerns.  If
 * it is not known which jobs are ready, the scheduler looks at all of them, at `all_at`.
 */
void
qml_dispatch_send(const QmlReadyWork *work, TimestampTz all_at, const pg_uuid_t *finished,
				  int nfinished)
{
	QmlSlot *scheduler = qml_slots_find_scheduler(MyDatabaseId);

	Assert(!LWLockHeldByMe(qml_shmem->lock));
	for (int i = 0; i < work->nroles; i++)
		wake_or_wait(scheduler, work->roles[i]);
	if (work->any_role)
	{
		add_all_waiting_roles(scheduler);
		qml_due_at(scheduler, QML_WAKE_WORK, all_at);
	}
	if (work->nnotify > 0 || work->anything)
		send_notify(scheduler, work, all_at);
	if (work->anything)
		qml_waiters_wake_all();
	else if (work->njobs > 0 || nfinished > 0)
		qml_waiters_wake(work->jobs, work->njobs, finished, nfinished);
}

/* ----- by a worker, of itself ----- */

/* It looks for jobs now: what is given to it from now on is new. */
void
qml_dispatch_clear_work(QmlSlot *worker)
{
	Assert(worker->kind == QML_WORKER && worker->pid == MyProcPid);
	pg_atomic_write_u32(&worker->has_work, 0);
	pg_memory_barrier();
}

/* It leaves work behind, and a worker of its role must be asked for when it has ended. */
void
qml_dispatch_set_work(QmlSlot *worker)
{
	Assert(worker->kind == QML_WORKER && worker->pid == MyProcPid);
	pg_atomic_write_u32(&worker->has_work, 1);
}

bool
qml_dispatch_has_work(QmlSlot *worker)
{
	return pg_atomic_read_u32(&worker->has_work) != 0;
}

/*
 * It found no job, and can be woken, or lose its slot to another role.  It may sleep
 * if qml_dispatch_has_work() is false after this.
 */
void
qml_dispatch_begin_idle(QmlSlot *worker)
{
	Assert(worker->kind == QML_WORKER && worker->pid == MyProcPid);
	Assert(!IsTransactionState());
	pg_atomic_write_u32(&worker->idle, 1);
	pg_memory_barrier();
	qml_dispatch_offer_slot(true);
}

/*
 * It has been idle for a moment: if roles wait for a worker, of this database or of another one,
 * the launcher gives its slot to one of them.
 */
void
qml_dispatch_stay_idle(QmlSlot *worker)
{
	Assert(worker->kind == QML_WORKER && worker->pid == MyProcPid);
	if (pg_atomic_read_u32(&qml_shmem->has_waiting))
		qml_shmem_wake_launcher();
}

void
qml_dispatch_end_idle(QmlSlot *worker)
{
	pg_atomic_write_u32(&worker->idle, 0);
}

/* ----- by a worker, for others ----- */

/* There is work for another worker of the role: wakes one, or asks for one. */
void
qml_dispatch_wake_helper(Oid role)
{
	if (!may_have_worker(role))
		wake_or_wait(qml_slots_find_scheduler(MyDatabaseId), role);
	else if (!wake_idle_worker(role))
		qml_dispatch_request_worker(MyDatabaseId, role);
}

/*
 * Roles that wait can have the slot of this worker: now, because it ends, or a moment
 * later, because it is idle.
 */
void
qml_dispatch_offer_slot(bool idle)
{
	QmlSlot *scheduler = qml_slots_find_scheduler(MyDatabaseId);
	const QmlPending *pending = look_at_pending(scheduler);

	if (pending && (pending->nroles > 0 || pending->any_role))
		qml_due_at(scheduler, QML_WAKE_WORK, GetCurrentTimestamp() + (idle ? IDLE_GRACE : 0));
}

/*
 * Workers may have passed over jobs of the role, or (InvalidOid) of any, because of a
 * concurrency slot that this one held and did not need.  They look again, but not at
 * once: if they found nothing again they would wake this one, which would wake them,
 * endlessly.
 */
void
qml_dispatch_recheck_later(Oid role)
{
	QmlSlot *scheduler = qml_slots_find_scheduler(MyDatabaseId);

	if (OidIsValid(role))
		add_waiting_role(scheduler, role);
	else
		add_all_waiting_roles(scheduler);
	qml_due_at(scheduler, QML_WAKE_WORK, GetCurrentTimestamp() + IDLE_GRACE);
}

/* At once: the scheduler looks which roles have ready jobs. */
void
qml_dispatch_recheck_all(void)
{
	add_all_waiting_roles(qml_slots_find_scheduler(MyDatabaseId));
	qml_due_now(QML_WAKE_WORK);
}

/* ----- by the scheduler ----- */

/*
 * A role has ready jobs: wakes a worker that is idle, or asks the launcher for one, which
 * may have to take the slot of one that is idle.  Until it has one the role waits, since
 * the idle one may be busy again before the launcher looks.
 */
void
qml_dispatch_serve_role(QmlSlot *scheduler, Oid role)
{
	Assert(OidIsValid(role));
	if (wake_idle_worker(role))
		return;
	if (!may_have_worker(role))
		add_waiting_role(scheduler, role);
	if (may_have_worker(role) || other_role_is_idle(role))
		qml_dispatch_request_worker(MyDatabaseId, role);
}

/* Moves the roles of one list to another. */
static void
move_roles(QmlPending *from, QmlPending *to)
{
	Assert(LWLockHeldByMeInMode(qml_shmem->lock, LW_EXCLUSIVE));
	for (int i = 0; i < from->nroles; i++)
		add_role(to->roles, &to->nroles, &to->any_role, from->roles[i]);
	to->any_role = to->any_role || from->any_role;
	from->nroles = 0;
	from->any_role = false;
}

/* The same for queues with listeners. */
static void
move_notify(QmlPending *from, QmlPending *to)
{
	Assert(LWLockHeldByMeInMode(qml_shmem->lock, LW_EXCLUSIVE));
	for (int i = 0; i < from->nnotify; i++)
		add_queue(to->notify, &to->nnotify, &to->notify_all, from->notify[i]);
	to->notify_all = to->notify_all || from->notify_all;
	from->nnotify = 0;
	from->notify_all = false;
}

/* Takes the roles that wait; true: there are others. */
bool
qml_dispatch_take_roles(QmlSlot *scheduler, Oid *roles, int *nroles)
{
	QmlDatabase *entry;
	QmlPending taken = {0};

	Assert(scheduler->kind == QML_SCHEDULER && scheduler->pid == MyProcPid);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	move_roles(&scheduler->pending, &taken);
	entry = qml_databases_find_own();
	if (entry)
		move_roles(&entry->pending, &taken);
	LWLockRelease(qml_shmem->lock);
	*nroles = taken.nroles;
	memcpy(roles, taken.roles, sizeof(Oid) * taken.nroles);
	return taken.any_role;
}

/* Takes the queues whose listeners must be notified; true: it may be any queue. */
bool
qml_dispatch_take_notify(QmlSlot *scheduler, int *queues, int *nqueues)
{
	QmlDatabase *entry;
	QmlPending taken = {0};

	Assert(scheduler->kind == QML_SCHEDULER && scheduler->pid == MyProcPid);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	move_notify(&scheduler->pending, &taken);
	entry = qml_databases_find_own();
	if (entry)
		move_notify(&entry->pending, &taken);
	LWLockRelease(qml_shmem->lock);
	*nqueues = taken.nnotify;
	memcpy(queues, taken.notify, sizeof(int) * taken.nnotify);
	return taken.notify_all;
}

/*
 * The scheduler has left, and nobody finds it any more: what it has not taken is for the next
 * one.  Roles wait until something can be done for them, listeners do not.
 */
void
qml_dispatch_hand_over(QmlSlot *scheduler)
{
	QmlDatabase *entry;
	bool notify = false;

	Assert(pg_atomic_read_u32(&scheduler->process) == 0);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = qml_databases_find_own();
	if (entry)
	{
		move_roles(&scheduler->pending, &entry->pending);
		move_notify(&scheduler->pending, &entry->pending);
		notify = entry->pending.nnotify > 0 || entry->pending.notify_all;
	}
	LWLockRelease(qml_shmem->lock);
	if (notify)
		qml_databases_note_due(QML_WAKE_NOTIFY, GetCurrentTimestamp());
}

/* ----- requests to the launcher ----- */

/*
 * Asks the launcher for one more worker.  Several requests for the same role count
 * as one.  One that does not fit is lost: the scheduler looks at all roles now and
 * then (process/worker_demand.c).
 */
void
qml_dispatch_request_worker(Oid database, Oid role)
{
	bool found = false;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int i = 0; i < qml_shmem->nrequests && !found; i++)
		found = qml_shmem->requests[i].database == database && qml_shmem->requests[i].role == role;
	if (!found && qml_shmem->nrequests < QML_MAX_REQUESTS)
	{
		qml_shmem->requests[qml_shmem->nrequests].database = database;
		qml_shmem->requests[qml_shmem->nrequests++].role = role;
	}
	LWLockRelease(qml_shmem->lock);
	qml_shmem_wake_launcher();
}

/* By the launcher: whether roles that it was asked for wait for a worker. */
void
qml_dispatch_set_waiting(bool waiting)
{
	Assert(pg_atomic_read_u32(&qml_shmem->launcher) == qml_shmem_my_process());
	pg_atomic_write_u32(&qml_shmem->has_waiting, waiting);
}

/* By the launcher: takes the requests, at most QML_MAX_REQUESTS; returns how many. */
int
qml_dispatch_take_requests(QmlRequest *requests)
{
	int count;

	Assert(pg_atomic_read_u32(&qml_shmem->launcher) == qml_shmem_my_process());
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	count = qml_shmem->nrequests;
	memcpy(requests, qml_shmem->requests, sizeof(QmlRequest) * count);
	qml_shmem->nrequests = 0;
	LWLockRelease(qml_shmem->lock);
	return count;
}
