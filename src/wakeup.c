/*
 * wakeup.c
 *		Telling the scheduler, at commit, of what will be due.
 *
 * A transaction notes the earliest time of each kind that it makes due.  When it
 * commits, the times go into the slot of the database, and the scheduler is
 * woken if it means to sleep longer.  Nothing is told when the transaction
 * aborts.  What a rolled back subtransaction noted costs a needless wake-up.
 *
 * What a prepared transaction noted is forgotten, for it may be committed by any
 * session, after a restart even: COMMIT PREPARED says that anything may be due.
 *
 * No wake-up is lost: whoever commits lowers `told` and then reads
 * `asleep_until`; the scheduler sets `asleep_until` and then reads `told`.  Both
 * with full barriers, so that at least one sees the other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "tcop/utility.h"

#include "wakeup.h"

static TimestampTz noted[QML_WAKES];
static bool noted_any = false;
static bool call_launcher = false;
static ProcessUtility_hook_type previous_utility = NULL;

static void
forget(void)
{
	for (int i = 0; i < QML_WAKES; i++)
		noted[i] = QML_WAKE_NEVER;
	noted_any = false;
	call_launcher = false;
}

/* Lowers the time that was told, if this one is earlier. */
static void
tell(QmlSlot *slot, QmlWake kind, TimestampTz time)
{
	uint64 old = pg_atomic_read_u64(&slot->told[kind]);

	while (time < (TimestampTz) old &&
		   !pg_atomic_compare_exchange_u64(&slot->told[kind], &old, (uint64) time))
		;
}

static void
tell_scheduler(void)
{
	QmlSlot *slot = qml_shmem_slot(MyDatabaseId);
	TimestampTz earliest = QML_WAKE_NEVER;

	if (slot == NULL)
		return;
	for (int i = 0; i < QML_WAKES; i++)
	{
		if (noted[i] == QML_WAKE_NEVER)
			continue;
		tell(slot, (QmlWake) i, noted[i]);
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

static void
at_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && noted_any)
		tell_scheduler();
	if (event == XACT_EVENT_COMMIT && call_launcher)
		tell_launcher();
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
	if (qml_shmem)
		call_launcher = true;
}

/* COMMIT PREPARED is a transaction of its own, and tells when that commits. */
static void
note_all(void)
{
	if (!OidIsValid(get_extension_oid("qml", true)))
		return;
	for (int i = 0; i < QML_WAKES; i++)
		qml_wakeup_at((QmlWake) i, GetCurrentTimestamp());
	/* It may have created the extension. */
	if (qml_shmem_slot(MyDatabaseId) == NULL)
		qml_wakeup_launcher();
}

static void
utility(PlannedStmt *statement, const char *query, bool readonly, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest,
		QueryCompletion *completion)
{
	Node *node = statement->utilityStmt;
	/* Asked first: a statement that ends a transaction may be freed by then. */
	bool noteworthy = IsA(node, TransactionStmt) &&
					  ((TransactionStmt *) node)->kind == TRANS_STMT_COMMIT_PREPARED;

	if (previous_utility)
		previous_utility(statement, query, readonly, context, params, environment, dest,
						 completion);
	else
		standard_ProcessUtility(statement, query, readonly, context, params, environment, dest,
								completion);
	if (noteworthy)
		note_all();
}

/* Only with shared memory is there anybody to tell. */
void
qml_wakeup_init(void)
{
	forget();
	RegisterXactCallback(at_end, NULL);
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
