/*
 * dispatch.c
 *		Which workers, listeners and waiting sessions are woken for ready jobs.
 *
 * A worker runs the jobs of one role.  A session that makes jobs ready sets `has_work` of all
 * workers of the role, and wakes one that is idle.  If none is idle, the role is added to
 * the roles that wait, in the slot of the scheduler, which serves them: it asks the
 * launcher for one more worker, or for the slot of an idle worker of another role.
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

/* Adds a role to those that wait for a worker. */
static void
add_waiting_role(QmlSlot *scheduler, Oid role)
{
	/*
	 * Without the lock first: while all workers are busy each commit comes here, and
	 * finds that the role is there.  The scheduler may take the list meanwhile; then it
	 * looks for workers after this session has found none.
	 */
	for (int i = 0; i < scheduler->nroles && i < QML_MAX_ROLES; i++)
	{
		if (scheduler->roles[i] == role)
			return;
	}
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	add_role(scheduler->roles, &scheduler->nroles, &scheduler->any_role, role);
	LWLockRelease(qml_shmem->lock);
}

/* All roles that have ready jobs may wait for a worker. */
static void
add_all_waiting_roles(QmlSlot *scheduler)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	scheduler->any_role = true;
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
	if (wake_idle_worker(role) || scheduler == NULL)
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
	work->nqueues = 0;
	work->nnotify = 0;
	work->anything = false;
}

/*
 * Adds a job of a queue, for a handler of the role, or (InvalidOid) for workers outside
 * of the database.  notify: the queue has listeners.
 */
void
qml_dispatch_add(QmlReadyWork *work, int queue, Oid role, bool notify)
{
	if (OidIsValid(role))
		add_role(work->roles, &work->nroles, &work->any_role, role);
	add_queue(work->queues, &work->nqueues, &work->anything, queue);
	if (notify)
		add_queue(work->notify, &work->nnotify, &work->anything, queue);
}

/* Has the scheduler send a notification to those who listen to the queues. */
static void
send_notify(QmlSlot *scheduler, const QmlReadyWork *work, TimestampTz all_at)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int i = 0; i < work->nnotify; i++)
		add_queue(scheduler->notify, &scheduler->nnotify, &scheduler->notify_all, work->notify[i]);
	scheduler->notify_all = scheduler->notify_all || work->anything;
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
	if (scheduler && work->any_role)
	{
		add_all_waiting_roles(scheduler);
		qml_due_at(scheduler, QML_WAKE_WORK, all_at);
	}
	if (scheduler && (work->nnotify > 0 || work->anything))
		send_notify(scheduler, work, all_at);
	if (work->anything)
		qml_waiters_wake_all();
	else if (work->nqueues > 0 || nfinished > 0)
		qml_waiters_wake(work->queues, work->nqueues, finished, nfinished);
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

	if (scheduler && (scheduler->nroles > 0 || scheduler->any_role))
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

	if (scheduler == NULL)
		return;
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
	QmlSlot *scheduler = qml_slots_find_scheduler(MyDatabaseId);

	if (scheduler == NULL)
		return;
	add_all_waiting_roles(scheduler);
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

/* Takes the roles that wait; true: there are others. */
bool
qml_dispatch_take_roles(QmlSlot *scheduler, Oid *roles, int *nroles)
{
	bool any;

	Assert(scheduler->kind == QML_SCHEDULER && scheduler->pid == MyProcPid);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	*nroles = scheduler->nroles;
	memcpy(roles, scheduler->roles, sizeof(Oid) * scheduler->nroles);
	any = scheduler->any_role;
	scheduler->nroles = 0;
	scheduler->any_role = false;
	LWLockRelease(qml_shmem->lock);
	return any;
}

/* Takes the queues whose listeners must be notified; true: it may be any queue. */
bool
qml_dispatch_take_notify(QmlSlot *scheduler, int *queues, int *nqueues)
{
	bool all;

	Assert(scheduler->kind == QML_SCHEDULER && scheduler->pid == MyProcPid);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	*nqueues = scheduler->nnotify;
	memcpy(queues, scheduler->notify, sizeof(int) * scheduler->nnotify);
	all = scheduler->notify_all;
	scheduler->nnotify = 0;
	scheduler->notify_all = false;
	LWLockRelease(qml_shmem->lock);
	return all;
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
