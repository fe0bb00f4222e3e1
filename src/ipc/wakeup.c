/*
 * wakeup.c
 *		What a transaction makes due or ready, and whom it wakes when it ends.
 *
 * A transaction notes the earliest time of each kind that it makes due, the queues and
 * roles of the jobs that it makes ready, and the jobs that it finishes or deletes.  When
 * it commits, the times go into the slot of the scheduler (due.c), workers, listeners and
 * waiting sessions are woken (dispatch.c), and deleted jobs that run are canceled.
 *
 * When it is rolled back nothing has become due, but the ready jobs that it had taken
 * (claimed or deleted) are ready again: others that looked meanwhile have passed
 * over them, and sleep.  They are woken at once.
 *
 * What a subtransaction noted before it was rolled back is not forgotten, which costs a
 * needless wake-up.  Only the deletion of a job is forgotten with it, since a
 * job must not be canceled that is still there.
 *
 * Others are woken at the very end of the commit, after the invalidation messages were
 * sent.  A process that is woken earlier could still take a queue for paused, or not
 * know it, find no job and sleep again.  Transaction callbacks run before the
 * messages, hence the callback for the release of resources.
 *
 * Who runs a job, workers of which role or sessions that name no method, is noted with the
 * job.  Handlers may be registered and unregistered before the transaction ends, and whoever
 * does that wakes all before it does.  So such changes are counted (qml_shmem->rules): a
 * transaction reads the number before it looks a handler up, and again when it sends, and if
 * there has been one, anybody may be concerned.
 *
 * Transactions that are prepared: see prepared.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "ipc/beats.h"
#include "ipc/databases.h"
#include "ipc/dispatch.h"
#include "ipc/due.h"
#include "ipc/slots.h"
#include "ipc/wakeup.h"

/* Finished jobs that a transaction remembers one by one; if there are more, "anything". */
#define MAX_FINISHED 64

/* A job that was deleted, and by which subtransaction. */
typedef struct DeletedJob
{
	pg_uuid_t job;
	SubTransactionId subxact;
} DeletedJob;

/* An attempt that has ended, and in which subtransaction. */
typedef struct EndedAttempt
{
	pg_uuid_t job;
	int attempt;
	SubTransactionId subxact;
} EndedAttempt;

/* Sent if the transaction commits. */
static bool noted_any = false;
static TimestampTz noted[QML_WAKES];
static bool noted_launcher = false;
static bool noted_sure = false; /* it is known that the launcher has something to do */
static bool noted_rules = false;
static QmlReadyWork ready;
static pg_uuid_t finished_jobs[MAX_FINISHED];
static int nfinished_jobs = 0;
static List *deleted_jobs = NIL;   /* of DeletedJob, in TopTransactionContext */
static List *ended_attempts = NIL; /* of EndedAttempt, there too */

/* Sent if the transaction, or a part of it, is rolled back. */
static QmlReadyWork taken;
static SubTransactionId last_taker = InvalidSubTransactionId; /* that added to `taken` */

/* The number of changes of who runs which jobs, before the transaction looked a handler up. */
static bool has_rules = false;
static uint32 rules = 0;

static bool committed = false; /* and nothing is sent yet */

static void
forget_ready(void)
{
	for (int i = 0; i < QML_WAKES; i++)
		noted[i] = QML_WAKE_NEVER;
	noted_any = false;
	noted_launcher = false;
	noted_sure = false;
	noted_rules = false;
	qml_dispatch_reset(&ready);
	nfinished_jobs = 0;
	deleted_jobs = NIL;
	ended_attempts = NIL;
	committed = false;
}

static void
forget_all(void)
{
	forget_ready();
	qml_dispatch_reset(&taken);
	last_taker = InvalidSubTransactionId;
	has_rules = false;
}

/* ----- sending ----- */

/* Leaves the times that the transaction noted for the scheduler, or for the next one. */
static void
send_due(void)
{
	QmlSlot *scheduler = qml_slots_find_scheduler(MyDatabaseId);
	TimestampTz earliest = QML_WAKE_NEVER;

	for (int i = 0; i < QML_WAKES; i++)
	{
		if (noted[i] == QML_WAKE_NEVER)
			continue;
		if (scheduler)
			qml_due_lower(scheduler, (QmlWake) i, noted[i]);
		earliest = Min(earliest, noted[i]);
	}
	if (earliest == QML_WAKE_NEVER || (scheduler && qml_due_wake_before(scheduler, earliest)))
		return;
	for (int i = 0; i < QML_WAKES; i++)
		qml_databases_note_due((QmlWake) i, noted[i]);
}

/* Asks the launcher to look at this database. */
static void
call_launcher(bool sure)
{
	QmlCall call = {.database = MyDatabaseId, .sure = sure};
	bool is_there = false;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int i = 0; i < qml_shmem->ncalls; i++)
	{
		if (qml_shmem->calls[i].database == MyDatabaseId)
		{
			qml_shmem->calls[i].sure = qml_shmem->calls[i].sure || sure;
			is_there = true;
		}
	}
	if (!is_there && qml_shmem->ncalls < QML_MAX_CALLS)
		qml_shmem->calls[qml_shmem->ncalls++] = call;
	else if (!is_there)
		qml_shmem->call_all = true;
	LWLockRelease(qml_shmem->lock);
	qml_shmem_wake_launcher();
}

/*
 * Anybody may be concerned by these jobs, if who runs which has changed since they were noted.
 * The end of this transaction is visible before the number is read, and the change before it
 * is counted: whoever was woken because of a change that is not counted yet sees the jobs.
 */
static void
check_rules(QmlReadyWork *work)
{
	if (work->njobs == 0 && !work->anything)
		return;
	Assert(has_rules || work->njobs == 0);
	pg_memory_barrier();
	if (has_rules && pg_atomic_read_u32(&qml_shmem->rules) != rules)
	{
		work->any_role = true;
		work->anything = true;
	}
}

/* The transaction has committed. */
static void
send_committed(void)
{
	TimestampTz all_at = noted[QML_WAKE_WORK];
	ListCell *lc;

	/* Before others are woken because of it; the invalidation messages were sent before. */
	if (noted_rules)
		(void) pg_atomic_fetch_add_u32(&qml_shmem->rules, 1);
	check_rules(&ready);
	if (all_at == QML_WAKE_NEVER)
		all_at = GetCurrentTimestamp();
	qml_dispatch_send(&ready, all_at, finished_jobs, nfinished_jobs);
	send_due();
	foreach(lc, deleted_jobs)
		qml_slots_cancel_job(&((DeletedJob *) lfirst(lc))->job);
	foreach(lc, ended_attempts)
	{
		const EndedAttempt *ended = lfirst(lc);

		qml_beats_forget(&ended->job, ended->attempt);
	}
	if (noted_launcher)
		call_launcher(noted_sure);
}

/* The transaction, or a part of it, was rolled back. */
static void
send_rolled_back(void)
{
	if (taken.njobs == 0)
		return;
	check_rules(&taken);
	qml_dispatch_send(&taken, GetCurrentTimestamp(), NULL, 0);
}

/* Ready jobs were out of sight for a moment, and are back: anybody may have missed them. */
void
qml_wakeup_for_returned(void)
{
	static QmlReadyWork anything;

	qml_dispatch_reset(&anything);
	anything.any_role = true;
	anything.anything = true;
	qml_dispatch_send(&anything, GetCurrentTimestamp(), NULL, 0);
}

/*
 * Another transaction has committed, which had nobody to tell of that: anything may be due, and any
 * jobs ready or finished.  Nothing waits for the end of the transaction of this session.
 */
void
qml_wakeup_now(bool launcher, bool rules_changed)
{
	if (rules_changed)
		(void) pg_atomic_fetch_add_u32(&qml_shmem->rules, 1);
	qml_wakeup_for_returned();
	for (int i = 0; i < QML_WAKES; i++)
		qml_due_now((QmlWake) i);
	if (launcher)
		call_launcher(true);
}

/* ----- callbacks of transactions ----- */

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	/* The rest is done at the very end: see after_commit(). */
	committed = event == XACT_EVENT_COMMIT && noted_any;
	if (committed)
		return;
	if (event == XACT_EVENT_ABORT)
		send_rolled_back();
	forget_all();
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	ListCell *lc;

	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	/* Its own subtransactions have ids above its own, and end with it. */
	foreach(lc, deleted_jobs)
	{
		if (((DeletedJob *) lfirst(lc))->subxact >= mine)
			deleted_jobs = foreach_delete_current(deleted_jobs, lc);
	}
	foreach(lc, ended_attempts)
	{
		if (((EndedAttempt *) lfirst(lc))->subxact >= mine)
			ended_attempts = foreach_delete_current(ended_attempts, lc);
	}
	if (last_taker >= mine)
		send_rolled_back();
}

/*
 * The last thing that a commit does.  The transaction can no longer be undone, so an error
 * would end the server (PANIC), here and in all callbacks that run at or after the commit.
 * Therefore nothing is allocated and no table is read: all that is sent was noted before.
 * The critical section says so to servers with assertions, which then check it.
 */
static void
after_commit(ResourceReleasePhase phase, bool commit, bool top_level, void *arg)
{
	if (!committed || phase != RESOURCE_RELEASE_AFTER_LOCKS || !top_level)
		return;
	committed = false;
	START_CRIT_SECTION();
	send_committed();
	forget_all();
	END_CRIT_SECTION();
}

/* Called while the server loads its preloaded libraries: otherwise there is nobody to wake. */
void
qml_wakeup_init(void)
{
	forget_all();
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	RegisterResourceReleaseCallback(after_commit, NULL);
}

/* ----- noting ----- */

/*
 * The transaction is about to look up who runs jobs that it will make ready, or take.  After
 * this it knows of all changes that are counted by now.
 */
void
qml_wakeup_read_rules(void)
{
	if (qml_shmem == NULL || has_rules)
		return;
	Assert(IsTransactionState());
	rules = pg_atomic_read_u32(&qml_shmem->rules);
	has_rules = true;
	pg_memory_barrier();
	AcceptInvalidationMessages();
}

/* The scheduler has something to do at this time, if the transaction commits. */
void
qml_wakeup_at(QmlWake kind, TimestampTz time)
{
	if (qml_shmem == NULL)
		return;
	Assert(IsTransactionState());
	Assert(kind >= 0 && kind < QML_WAKES);
	if (time < noted[kind])
		noted[kind] = time;
	noted_any = true;
}

/*
 * The launcher must look at this database, if the transaction commits.  Unless sure, it does
 * so now and then only.
 */
void
qml_wakeup_launcher(bool sure)
{
	if (qml_shmem == NULL)
		return;
	Assert(IsTransactionState());
	noted_launcher = true;
	noted_sure = noted_sure || sure;
	noted_any = true;
}

/*
 * Jobs are ready if the transaction commits: for a handler of the role, or (InvalidOid) for
 * workers outside of the database.  notify: their queue has listeners.
 */
void
qml_wakeup_ready(const QmlReadyJobs *jobs, Oid role, bool notify)
{
	if (qml_shmem == NULL)
		return;
	Assert(IsTransactionState());
	qml_dispatch_add(&ready, jobs, role, notify);
	noted_any = true;
}

/* Such jobs were ready, and will be again if the transaction is rolled back. */
void
qml_wakeup_taken(const QmlReadyJobs *jobs, Oid role, bool notify)
{
	if (qml_shmem == NULL)
		return;
	Assert(IsTransactionState());
	qml_dispatch_add(&taken, jobs, role, notify);
	last_taker = Max(last_taker, GetCurrentSubTransactionId());
}

/* Any jobs may be ready, or finished, if the transaction commits. */
void
qml_wakeup_anything(void)
{
	if (qml_shmem == NULL)
		return;
	Assert(IsTransactionState());
	ready.any_role = true;
	ready.anything = true;
	noted_any = true;
}

/* The same; who runs which jobs has changed, also those of transactions that are open. */
void
qml_wakeup_rules_changed(void)
{
	qml_wakeup_anything();
	noted_rules = true;
}

/* The same as "anything", and anything else may be due; the scheduler looks at this time. */
void
qml_wakeup_anything_at(TimestampTz time)
{
	for (int i = 0; i < QML_WAKES; i++)
		qml_wakeup_at((QmlWake) i, time);
	qml_wakeup_anything();
}

/* A job is finished if the transaction commits. */
void
qml_wakeup_finished(const pg_uuid_t *job)
{
	if (qml_shmem == NULL)
		return;
	Assert(IsTransactionState());
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
	DeletedJob *deleted;

	if (qml_shmem == NULL)
		return;
	Assert(IsTransactionState());
	oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	deleted = palloc(sizeof(DeletedJob));
	deleted->job = *job;
	deleted->subxact = GetCurrentSubTransactionId();
	deleted_jobs = lappend(deleted_jobs, deleted);
	MemoryContextSwitchTo(oldcontext);
	noted_any = true;
}

/*
 * An attempt has ended if the transaction commits: what heartbeats left for it is forgotten
 * then.  There is nothing to do while no heartbeat has left anything.
 */
void
qml_wakeup_ended(const pg_uuid_t *job, int attempt)
{
	MemoryContext oldcontext;
	EndedAttempt *ended;

	if (!qml_beats_exist())
		return;
	Assert(IsTransactionState());
	oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	ended = palloc(sizeof(EndedAttempt));
	ended->job = *job;
	ended->attempt = attempt;
	ended->subxact = GetCurrentSubTransactionId();
	ended_attempts = lappend(ended_attempts, ended);
	MemoryContextSwitchTo(oldcontext);
	noted_any = true;
}

/*
 * Whether the transaction has anything to send when it ends.  *launcher: also to the
 * launcher; *has_taken: also if it is rolled back; *changed: it changes who runs which jobs.
 */
bool
qml_wakeup_is_pending(bool *launcher, bool *has_taken, bool *changed)
{
	*changed = noted_rules;
	*launcher = noted_launcher;
	*has_taken = taken.njobs > 0;
	return noted_any || *has_taken;
}

/*
 * By the launcher: takes the databases that it must look at, QML_MAX_CALLS at most;
 * returns how many.  *all: it must look at all of them.
 */
int
qml_wakeup_take_calls(QmlCall *calls, bool *all)
{
	int count;

	Assert(pg_atomic_read_u32(&qml_shmem->launcher) == qml_shmem_my_process());
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	count = qml_shmem->ncalls;
	memcpy(calls, qml_shmem->calls, sizeof(QmlCall) * count);
	*all = qml_shmem->call_all;
	qml_shmem->ncalls = 0;
	qml_shmem->call_all = false;
	LWLockRelease(qml_shmem->lock);
	return count;
}
