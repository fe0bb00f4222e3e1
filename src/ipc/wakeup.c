/*
 * wakeup.c
 *		Telling others, at the end of a transaction, of what is due or will be.
 *
 * A transaction notes the earliest time of each kind that it makes due.  When it
 * commits, the times go into the slot of the database, and the scheduler is
 * woken if it means to sleep longer.  What a rolled back subtransaction noted costs a
 * needless wake-up.
 *
 * When it is undone, nothing has become due, but the ready jobs that it had claimed or
 * deleted are there again: whoever looked meanwhile has passed them over, and sleeps.
 * Those are told of at once.
 *
 * It is told at the very end of the commit, when others have been sent word of what
 * changed in the tables that they remember: whoever is woken before that may look
 * for the jobs of a queue that it knows as paused, or not at all, and sleep again.
 *
 * A prepared transaction may be committed by any session: that it noted something is
 * kept in shared memory under its name, and COMMIT PREPARED of that name says that
 * anything may be due, as ROLLBACK PREPARED does if it took ready jobs.  After a restart
 * the names are not known; then it is told of any, but not more often than about once a
 * second in a database.
 *
 * No wake-up is lost: whoever ends a transaction lowers `told` and then reads
 * `asleep_until`; the scheduler sets `asleep_until` and then reads `told`.  Both
 * with full barriers, so that at least one sees the other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "common/guc.h"
#include "ipc/wakeup.h"

/* How long a worker may be idle while another role waits, microseconds. */
#define TURN USECS_PER_SEC

/* Finished jobs that a transaction tells of by name. */
#define MAX_FINISHED 64

/* A job that is deleted by a subtransaction. */
typedef struct Deleted
{
	pg_uuid_t job;
	SubTransactionId subxact;
} Deleted;

/* Ready jobs. */
typedef struct Work
{
	Oid roles[QML_MAX_ROLES]; /* of their handlers */
	int nroles;
	bool any_role; /* more than fit, or not known which */
	int queues[QML_MAX_WAIT_QUEUES];
	int nqueues;
	int announced[QML_MAX_WAIT_QUEUES]; /* of those queues, the ones with listeners */
	int nannounced;
	bool anything; /* more than fits, or not known what; finished jobs, too */
} Work;

static TimestampTz noted[QML_WAKES];
static bool noted_any = false;
static bool committed = false; /* and not yet told */
static bool call_launcher = false;
static Work ready; /* if it commits */
static Work taken; /* that was ready before; if it is undone */
static pg_uuid_t finished_jobs[MAX_FINISHED];
static int nfinished_jobs = 0;
static List *deleted_jobs = NIL; /* of Deleted, in TopTransactionContext */
static ProcessUtility_hook_type previous_utility = NULL;
static uint32 prepared_name; /* of the transaction that is being prepared */
static bool has_prepared_name = false;
static SubTransactionId last_taker = InvalidSubTransactionId; /* that added to `taken` */

static void
forget_work(Work *work)
{
	work->nroles = 0;
	work->any_role = false;
	work->nqueues = 0;
	work->nannounced = 0;
	work->anything = false;
}

static void
forget_commit(void)
{
	for (int i = 0; i < QML_WAKES; i++)
		noted[i] = QML_WAKE_NEVER;
	noted_any = false;
	call_launcher = false;
	forget_work(&ready);
	nfinished_jobs = 0;
	deleted_jobs = NIL;
	committed = false;
}

static void
forget(void)
{
	forget_commit();
	forget_work(&taken);
	last_taker = InvalidSubTransactionId;
	has_prepared_name = false;
}

/* Lowers the time that was told, if this one is earlier. */
static void
lower(QmlSlot *slot, QmlWake kind, TimestampTz time)
{
	uint64 old = pg_atomic_read_u64(&slot->told[kind]);

	while (time < (TimestampTz) old &&
		   !pg_atomic_compare_exchange_u64(&slot->told[kind], &old, (uint64) time))
		;
}

/* Adds a role to a list of those that have work; *any: there are more. */
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

static bool
works_for(QmlSlot *slot, Oid role)
{
	return slot->kind == QML_WORKER && slot->database == MyDatabaseId && slot->role == role &&
		   pg_atomic_read_u32(&slot->process) != 0;
}

/*
 * Tells all workers of a role that there is work, and wakes one that is idle; false
 * when there is none.  A worker that goes to sleep says so first and then looks
 * whether it was told, as the scheduler does.
 */
static bool
wake_worker(Oid role)
{
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		if (works_for(&qml_shmem->slots[i], role))
			pg_atomic_write_u32(&qml_shmem->slots[i].more, 1);
	}
	pg_memory_barrier();
	for (int i = 0; i < qml_shmem->nslots; i++)
	{
		QmlSlot *slot = &qml_shmem->slots[i];
		uint32 idle = 1;

		if (works_for(slot, role) && pg_atomic_compare_exchange_u32(&slot->idle, &idle, 0))
		{
			qml_shmem_set_latch(&slot->process);
			return true;
		}
	}
	return false;
}

/* Whether a worker of another role has nothing to do. */
static bool
other_is_idle(Oid role)
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

/* Whether another worker of the role would be allowed for. */
static bool
wants_worker(Oid role)
{
	return qml_shmem_count_workers(MyDatabaseId, InvalidOid) < qml_workers ||
		   qml_shmem_count_workers(MyDatabaseId, role) == 0;
}

/* The scheduler shall see to a role when it sees to any. */
static void
add_waiting(QmlSlot *scheduler, Oid role)
{
	/* Often it is there: this is what each commit does while all workers are busy. */
	for (int i = 0; i < scheduler->nroles && i < QML_MAX_ROLES; i++)
	{
		if (scheduler->roles[i] == role)
			return;
	}
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	add_role(scheduler->roles, &scheduler->nroles, &scheduler->any_role, role);
	LWLockRelease(qml_shmem->lock);
}

/* The same for all roles that have work. */
static void
add_all_waiting(QmlSlot *scheduler)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	scheduler->any_role = true;
	LWLockRelease(qml_shmem->lock);
}

/* The scheduler sees to the roles that wait, at this time. */
static void
see_to_waiting(QmlSlot *scheduler, TimestampTz time)
{
	lower(scheduler, QML_WAKE_WORK, time);
	pg_memory_barrier();
	if (time < (TimestampTz) pg_atomic_read_u64(&scheduler->asleep_until))
		qml_shmem_set_latch(&scheduler->process);
}

/*
 * A free worker of the role, or one more, is asked for.  Where neither is to be had at
 * once, but a worker of another role has nothing to do, the scheduler looks a moment
 * later whether that is still so: roles shall not take each other's places all the time.
 * Where there is none, the role waits until there is.
 */
static void
ask_for_worker(QmlSlot *scheduler, Oid role)
{
	if (wake_worker(role) || scheduler == NULL)
		return;
	add_waiting(scheduler, role);
	if (wants_worker(role))
		see_to_waiting(scheduler, GetCurrentTimestamp());
	else if (other_is_idle(role))
		see_to_waiting(scheduler, GetCurrentTimestamp() + TURN);
}

/* Work for workers: what nobody can do at once, the scheduler sees to. */
static void
tell_workers(QmlSlot *scheduler, const Work *work)
{
	for (int i = 0; i < work->nroles; i++)
		ask_for_worker(scheduler, work->roles[i]);
	if (scheduler == NULL || !work->any_role)
		return;
	add_all_waiting(scheduler);
	if (noted[QML_WAKE_WORK] == QML_WAKE_NEVER)
		qml_wakeup_at(QML_WAKE_WORK, GetCurrentTimestamp());
}

/* Adds a queue to a list of them; *any: there are more. */
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

/* The scheduler shall tell those who listen. */
static void
tell_listeners(QmlSlot *scheduler, const Work *work)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int i = 0; i < work->nannounced; i++)
		add_queue(scheduler->announced, &scheduler->nannounced, &scheduler->announce_all,
				  work->announced[i]);
	scheduler->announce_all = scheduler->announce_all || work->anything;
	LWLockRelease(qml_shmem->lock);
	if (work->nannounced > 0 || noted[QML_WAKE_ANNOUNCE] == QML_WAKE_NEVER)
		qml_wakeup_at(QML_WAKE_ANNOUNCE, GetCurrentTimestamp());
}

/*
 * Whoever runs a job that was deleted shall stop.  The lock tells him when no signal
 * is on its way any more (process/run.c).
 */
static void
cancel_deleted(void)
{
	ListCell *lc;

	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	foreach(lc, deleted_jobs)
	{
		const Deleted *deleted = lfirst(lc);

		for (int i = 0; i < qml_shmem->nslots; i++)
		{
			QmlSlot *slot = &qml_shmem->slots[i];
			bool running;

			if (slot->kind != QML_WORKER || slot->database != MyDatabaseId ||
				slot->state != QML_SLOT_RUNNING)
				continue;
			SpinLockAcquire(&slot->mutex);
			running = slot->has_job && memcmp(&slot->job, &deleted->job, sizeof(pg_uuid_t)) == 0;
			if (running)
			{
				slot->cancel = slot->job;
				slot->has_cancel = true;
			}
			SpinLockRelease(&slot->mutex);
			if (running)
				(void) kill(slot->pid, SIGINT);
		}
	}
	LWLockRelease(qml_shmem->lock);
}

/* Whether this is what somebody waits for. */
static bool
waits_for_this(const QmlWaiter *waiter, uint32 kind, const Work *work)
{
	if (work->anything)
		return true;
	if (kind == QML_WAITS_READY && waiter->nqueues == 0)
		return work->nqueues > 0;
	for (int i = 0; kind == QML_WAITS_READY && i < work->nqueues; i++)
	{
		for (int j = 0; j < waiter->nqueues; j++)
		{
			if (waiter->queues[j] == work->queues[i])
				return true;
		}
	}
	for (int i = 0; kind == QML_WAITS_FINISHED && i < nfinished_jobs; i++)
	{
		if (memcmp(&waiter->job, &finished_jobs[i], sizeof(pg_uuid_t)) == 0)
			return true;
	}
	return false;
}

/* A session that begins to wait says so first and then looks, as the scheduler does. */
static void
wake_waiters(const Work *work)
{
	pg_memory_barrier();
	if (pg_atomic_read_u32(&qml_shmem->nwaiting) == 0)
		return;
	for (int i = 0; i < qml_shmem->nsessions; i++)
	{
		QmlWaiter *waiter = &qml_shmem->waiters[i];
		uint32 kind = pg_atomic_read_u32(&waiter->kind);

		if (kind != QML_WAITS_NOT && waiter->database == MyDatabaseId &&
			waits_for_this(waiter, kind, work))
			SetLatch(&ProcGlobal->allProcs[i].procLatch);
	}
}

static void
tell_scheduler(QmlSlot *slot)
{
	TimestampTz earliest = QML_WAKE_NEVER;

	for (int i = 0; i < QML_WAKES; i++)
	{
		if (noted[i] == QML_WAKE_NEVER)
			continue;
		lower(slot, (QmlWake) i, noted[i]);
		earliest = Min(earliest, noted[i]);
	}
	pg_memory_barrier();
	if (earliest < (TimestampTz) pg_atomic_read_u64(&slot->asleep_until))
		qml_shmem_set_latch(&slot->process);
}

static void
tell_launcher(void)
{
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	if (qml_shmem->ncalls < QML_MAX_CALLS)
		qml_shmem->calls[qml_shmem->ncalls++] = MyDatabaseId;
	else
		qml_shmem->call_all = true;
	LWLockRelease(qml_shmem->lock);
	qml_shmem_set_latch(&qml_shmem->launcher);
}

/* Finds the entry of a prepared transaction, or a free one; NULL: there is none. */
static QmlPrepared *
find_prepared(Oid database, uint32 name)
{
	for (int i = 0; i < QML_MAX_PREPARED; i++)
	{
		if (qml_shmem->prepared[i].database == database &&
			(!OidIsValid(database) || qml_shmem->prepared[i].name == name))
			return &qml_shmem->prepared[i];
	}
	return NULL;
}

/* The transaction that is prepared noted something. */
static void
remember_prepared(void)
{
	QmlPrepared *entry;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = find_prepared(InvalidOid, 0);
	/* One too many is told of as those from before a restart are. */
	if (entry)
	{
		entry->database = MyDatabaseId;
		entry->name = prepared_name;
		entry->call = call_launcher;
		entry->took = taken.nqueues > 0;
	}
	LWLockRelease(qml_shmem->lock);
}

/* Of ready jobs; what is for the scheduler is noted for tell_scheduler(). */
static void
tell_work(QmlSlot *scheduler, const Work *work)
{
	if (work->nroles > 0 || work->any_role)
		tell_workers(scheduler, work);
	if (scheduler && (work->nannounced > 0 || work->anything))
		tell_listeners(scheduler, work);
	if (work->nqueues > 0 || nfinished_jobs > 0 || work->anything)
		wake_waiters(work);
}

static void
tell(void)
{
	QmlSlot *scheduler = qml_shmem_scheduler(MyDatabaseId);

	tell_work(scheduler, &ready);
	if (scheduler)
		tell_scheduler(scheduler);
	if (deleted_jobs != NIL)
		cancel_deleted();
	if (call_launcher)
		tell_launcher();
}

/* All of the transaction, or a part, is undone. */
static void
tell_undone(void)
{
	QmlSlot *scheduler = qml_shmem_scheduler(MyDatabaseId);

	if (taken.nqueues == 0)
		return;
	tell_work(scheduler, &taken);
	if (scheduler)
		tell_scheduler(scheduler);
}

static void
at_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	committed = event == XACT_EVENT_COMMIT && noted_any;
	if (committed)
		return;
	/* Logical replication prepares and commits without a statement, and no name is known. */
	if (event == XACT_EVENT_PREPARE && has_prepared_name && (noted_any || taken.nqueues > 0))
		remember_prepared();
	if (event == XACT_EVENT_ABORT)
	{
		forget_commit();
		tell_undone();
	}
	forget();
}

/*
 * To wake somebody in vain does no harm, but a job must not be cancelled because it was
 * nearly deleted.
 */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	ListCell *lc;

	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	/* Those below it have ids above its own. */
	foreach(lc, deleted_jobs)
	{
		if (((Deleted *) lfirst(lc))->subxact >= mine)
			deleted_jobs = foreach_delete_current(deleted_jobs, lc);
	}
	/* Those below it, and it, again; not what came before. */
	if (last_taker >= mine)
		tell_undone();
}

/*
 * The last that a commit does: others have been sent what their caches must forget.
 * Who is woken looks at once, and must not find a queue paused that no longer is.
 */
static void
after_commit(ResourceReleasePhase phase, bool commit, bool top_level, void *arg)
{
	if (!committed || phase != RESOURCE_RELEASE_AFTER_LOCKS || !top_level)
		return;
	committed = false;
	tell();
	forget();
}

/* The scheduler has something to do at this time, if the transaction commits. */
void
qml_wakeup_at(QmlWake kind, TimestampTz time)
{
	if (qml_shmem == NULL)
		return;
	if (time < noted[kind])
		noted[kind] = time;
	noted_any = true;
}

/* The launcher shall look at this database, if the transaction commits. */
void
qml_wakeup_launcher(void)
{
	if (qml_shmem == NULL)
		return;
	call_launcher = true;
	noted_any = true;
}

static void
add_work(Work *work, int queue, Oid role, bool announce)
{
	if (OidIsValid(role))
		add_role(work->roles, &work->nroles, &work->any_role, role);
	add_queue(work->queues, &work->nqueues, &work->anything, queue);
	if (announce)
		add_queue(work->announced, &work->nannounced, &work->anything, queue);
}

/*
 * A job of the queue is ready if the transaction commits; for a handler of the role, or
 * with InvalidOid for none.  announce: those who listen to the queue shall be told.
 */
void
qml_wakeup_ready(int queue, Oid role, bool announce)
{
	if (qml_shmem == NULL)
		return;
	add_work(&ready, queue, role, announce);
	noted_any = true;
}

/* Such a job was ready, and is again if the transaction is undone. */
void
qml_wakeup_taken(int queue, Oid role, bool announce)
{
	if (qml_shmem == NULL)
		return;
	add_work(&taken, queue, role, announce);
	last_taker = Max(last_taker, GetCurrentSubTransactionId());
}

/* Any jobs may be ready, or finished, if the transaction commits. */
void
qml_wakeup_anything(void)
{
	if (qml_shmem == NULL)
		return;
	ready.any_role = true;
	ready.anything = true;
	noted_any = true;
}

/* A job is finished if the transaction commits. */
void
qml_wakeup_finished(const pg_uuid_t *job)
{
	if (qml_shmem == NULL)
		return;
	if (nfinished_jobs < MAX_FINISHED)
		finished_jobs[nfinished_jobs++] = *job;
	else
		ready.anything = true;
	noted_any = true;
}

/* A job that may be running is deleted if the transaction commits. */
void
qml_wakeup_deleted(const pg_uuid_t *job)
{
	MemoryContext oldcontext;
	Deleted *deleted;

	if (qml_shmem == NULL)
		return;
	oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	deleted = palloc(sizeof(Deleted));
	deleted->job = *job;
	deleted->subxact = GetCurrentSubTransactionId();
	deleted_jobs = lappend(deleted_jobs, deleted);
	MemoryContextSwitchTo(oldcontext);
	noted_any = true;
}

/* By a worker, at once: there is work for another one of its role. */
void
qml_wakeup_helper(Oid role)
{
	if (!wants_worker(role))
		ask_for_worker(qml_shmem_scheduler(MyDatabaseId), role);
	else if (!wake_worker(role))
		qml_shmem_request(MyDatabaseId, role);
}

/*
 * By the scheduler, at once: the same, and it may get the place of one that is idle, or
 * goes on waiting.
 */
void
qml_wakeup_worker(QmlSlot *scheduler, Oid role)
{
	if (wake_worker(role))
		return;
	/* Until it has one: the idle one may be busy before the launcher looks. */
	if (!wants_worker(role))
		add_waiting(scheduler, role);
	if (wants_worker(role) || other_is_idle(role))
		qml_shmem_request(MyDatabaseId, role);
}

/*
 * By a worker: others may have passed jobs of the role over, or of any if it is
 * InvalidOid, because of what it had and did not need.  They look again, but later:
 * whoever comes to the same end would otherwise wake them at once, and so on.
 */
void
qml_wakeup_later(Oid role)
{
	QmlSlot *scheduler = qml_shmem_scheduler(MyDatabaseId);

	if (scheduler == NULL)
		return;
	if (OidIsValid(role))
		add_waiting(scheduler, role);
	else
		add_all_waiting(scheduler);
	see_to_waiting(scheduler, GetCurrentTimestamp() + TURN);
}

/* By a worker: others may have its place, or soon, if it is only idle. */
void
qml_wakeup_waiting(bool idle)
{
	QmlSlot *scheduler = qml_shmem_scheduler(MyDatabaseId);

	if (scheduler && (scheduler->nroles > 0 || scheduler->any_role))
		see_to_waiting(scheduler, GetCurrentTimestamp() + (idle ? TURN : 0));
}

/* At once: the scheduler has something to do. */
void
qml_wakeup_now(QmlWake kind)
{
	QmlSlot *scheduler = qml_shmem_scheduler(MyDatabaseId);

	if (scheduler == NULL)
		return;
	lower(scheduler, kind, GetCurrentTimestamp());
	qml_shmem_set_latch(&scheduler->process);
}

/* At once: the scheduler looks which roles have ready jobs. */
void
qml_wakeup_all_roles(void)
{
	QmlSlot *scheduler = qml_shmem_scheduler(MyDatabaseId);

	if (scheduler == NULL)
		return;
	add_all_waiting(scheduler);
	qml_wakeup_now(QML_WAKE_WORK);
}

/* At once: jobs that this session, which ends, may have held; any: and others. */
void
qml_wakeup_lost(const pg_uuid_t *jobs, int count, bool any)
{
	QmlSlot *scheduler = qml_shmem_scheduler(MyDatabaseId);

	if (scheduler == NULL || count == 0)
		return;
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int i = 0; i < count; i++)
	{
		if (scheduler->nlost < QML_MAX_LOST)
			scheduler->lost[scheduler->nlost++] = jobs[i];
		else
			any = true;
	}
	scheduler->any_lost = scheduler->any_lost || any;
	LWLockRelease(qml_shmem->lock);
	qml_wakeup_now(QML_WAKE_SESSION);
}

/* Forgets a prepared transaction that ended; false: it was not known here. */
static bool
take_prepared(uint32 name, QmlPrepared *prepared)
{
	QmlPrepared *entry;

	memset(prepared, 0, sizeof(*prepared));
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = find_prepared(MyDatabaseId, name);
	if (entry)
	{
		*prepared = *entry;
		entry->database = InvalidOid;
	}
	LWLockRelease(qml_shmem->lock);
	return entry != NULL;
}

/*
 * When to tell of a prepared transaction that may be from before a restart: about once a
 * second at most, since everything is looked at.
 */
static TimestampTz
time_for_unknown(void)
{
	QmlSlot *slot = qml_shmem_scheduler(MyDatabaseId);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last;

	/* A scheduler that starts looks at everything. */
	if (slot == NULL)
		return now;
	last = (TimestampTz) pg_atomic_read_u64(&slot->unknown_told);
	/* It is to be told of others, for whom it waits already. */
	if (last > now && last <= now + USECS_PER_SEC)
		return last;
	if (last <= now && last > now - USECS_PER_SEC)
		now = last + USECS_PER_SEC;
	pg_atomic_write_u64(&slot->unknown_told, (uint64) now);
	return now;
}

/*
 * COMMIT PREPARED and ROLLBACK PREPARED are transactions of their own, and tell when
 * those commit.
 */
static void
note_anything(TimestampTz time)
{
	for (int i = 0; i < QML_WAKES; i++)
		qml_wakeup_at((QmlWake) i, time);
	qml_wakeup_anything();
}

static void
note_committed(uint32 name, bool extension_was_there)
{
	QmlPrepared prepared;
	bool known = take_prepared(name, &prepared);

	/* From 18 on the catalog's cache remembers that the extension was not there. */
	AcceptInvalidationMessages();
	if (!OidIsValid(get_extension_oid("qml", true)))
		return;
	if (prepared.call || !extension_was_there)
		qml_wakeup_launcher();
	note_anything(known ? GetCurrentTimestamp() : time_for_unknown());
}

static void
note_rolled_back(uint32 name)
{
	QmlPrepared prepared;
	bool known = take_prepared(name, &prepared);

	if (!known)
		note_anything(time_for_unknown());
	else if (prepared.took)
		note_anything(GetCurrentTimestamp());
}

static void
utility(PlannedStmt *statement, const char *query, bool readonly, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest,
		QueryCompletion *completion)
{
	/* Asked first: a statement that ends a transaction may be freed by the end. */
	TransactionStmt *transaction = IsA(statement->utilityStmt, TransactionStmt) ?
									   (TransactionStmt *) statement->utilityStmt :
									   NULL;
	TransactionStmtKind kind = transaction ? transaction->kind : TRANS_STMT_BEGIN;
	uint32 name = transaction && transaction->gid ?
					  hash_bytes((const unsigned char *) transaction->gid,
								 strlen(transaction->gid)) :
					  0;
	bool extension_was_there = kind == TRANS_STMT_COMMIT_PREPARED &&
							   OidIsValid(get_extension_oid("qml", true));

	if (kind == TRANS_STMT_PREPARE)
	{
		prepared_name = name;
		has_prepared_name = true;
	}
	if (previous_utility)
		previous_utility(statement, query, readonly, context, params, environment, dest,
						 completion);
	else
		standard_ProcessUtility(statement, query, readonly, context, params, environment, dest,
								completion);
	/* It is done: whatever is sent now must not make it look as if it were not. */
	HOLD_INTERRUPTS();
	if (kind == TRANS_STMT_COMMIT_PREPARED)
		note_committed(name, extension_was_there);
	if (kind == TRANS_STMT_ROLLBACK_PREPARED)
		note_rolled_back(name);
	RESUME_INTERRUPTS();
}

/* Only with shared memory is there anybody to tell. */
void
qml_wakeup_init(void)
{
	forget();
	RegisterXactCallback(at_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	RegisterResourceReleaseCallback(after_commit, NULL);
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}

/* The earliest time told since this was asked last; QML_WAKE_NEVER: none. */
TimestampTz
qml_wakeup_take(QmlSlot *slot, QmlWake kind)
{
	if ((TimestampTz) pg_atomic_read_u64(&slot->told[kind]) == QML_WAKE_NEVER)
		return QML_WAKE_NEVER;
	return (TimestampTz) pg_atomic_exchange_u64(&slot->told[kind], QML_WAKE_NEVER);
}
