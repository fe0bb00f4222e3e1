/*
 * wakeup.c
 *		Telling the scheduler, at commit, of what will be due.
 *
 * A transaction notes the earliest time of each kind that it makes due.  When it
 * commits, the times go into the slot of the database, and the scheduler is
 * woken if it means to sleep longer.  Nothing is told when the transaction
 * aborts.  What a rolled back subtransaction noted costs a needless wake-up.
 *
 * A prepared transaction may be committed by any session: that it noted something is
 * kept in shared memory under its name, and COMMIT PREPARED of that name says that
 * anything may be due.  After a restart the names are not known; then it is told of
 * any, but once a second at most in a database.
 *
 * No wake-up is lost: whoever commits lowers `told` and then reads
 * `asleep_until`; the scheduler sets `asleep_until` and then reads `told`.  Both
 * with full barriers, so that at least one sees the other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "tcop/utility.h"
#include "utils/inval.h"

#include "wakeup.h"

static TimestampTz noted[QML_WAKES];
static bool noted_any = false;
static bool call_launcher = false;
static ProcessUtility_hook_type previous_utility = NULL;
static uint32 prepared_name; /* of the transaction that is being prepared */

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
	}
	LWLockRelease(qml_shmem->lock);
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
	if (event == XACT_EVENT_PREPARE && (noted_any || call_launcher))
		remember_prepared();
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

/* Forgets a prepared transaction that ended; whether it was known here. */
static bool
take_prepared(uint32 name, bool *call)
{
	QmlPrepared *entry;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = find_prepared(MyDatabaseId, name);
	*call = entry && entry->call;
	if (entry)
		entry->database = InvalidOid;
	LWLockRelease(qml_shmem->lock);
	return entry != NULL;
}

/* Whether to tell of one that may be from before a restart: once a second at most. */
static bool
may_tell_unknown(void)
{
	QmlSlot *slot = qml_shmem_slot(MyDatabaseId);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last;

	/* A scheduler that starts looks at everything. */
	if (slot == NULL)
		return false;
	last = (TimestampTz) pg_atomic_read_u64(&slot->unknown_told);
	if (now - last <= USECS_PER_SEC && now >= last)
		return false;
	pg_atomic_write_u64(&slot->unknown_told, (uint64) now);
	return true;
}

/* COMMIT PREPARED is a transaction of its own, and tells when that commits. */
static void
note_prepared(uint32 name, bool extension_was_there)
{
	bool call;
	bool known = take_prepared(name, &call);

	/* From 18 on the catalog's cache remembers that the extension was not there. */
	AcceptInvalidationMessages();
	if (!OidIsValid(get_extension_oid("qml", true)))
		return;
	if (call || !extension_was_there)
		qml_wakeup_launcher();
	if (!known && !may_tell_unknown())
		return;
	for (int i = 0; i < QML_WAKES; i++)
		qml_wakeup_at((QmlWake) i, GetCurrentTimestamp());
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
		prepared_name = name;
	if (previous_utility)
		previous_utility(statement, query, readonly, context, params, environment, dest,
						 completion);
	else
		standard_ProcessUtility(statement, query, readonly, context, params, environment, dest,
								completion);
	if (kind == TRANS_STMT_COMMIT_PREPARED)
		note_prepared(name, extension_was_there);
	if (kind == TRANS_STMT_ROLLBACK_PREPARED)
	{
		bool call;

		(void) take_prepared(name, &call);
	}
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
