/*
 * prepared.c
 *		Wake-ups of prepared transactions.
 *
 * A prepared transaction may be committed by any session, which does not know what
 * it made due.  So PREPARE TRANSACTION leaves in shared memory, under a hash of the
 * transaction's name, that it noted something (wakeup.c).  COMMIT PREPARED of that name
 * says that anything may be due, and so does ROLLBACK PREPARED if the transaction had
 * taken ready jobs.  Two names with the same hash cost a needless wake-up.
 *
 * A name is not known if the transaction was prepared before the last start of the
 * server, if it did not fit, and also if the transaction did nothing in qml, which is not
 * remembered.  COMMIT PREPARED or ROLLBACK PREPARED of such a name says that anything may
 * be due.  The scheduler looks at everything then, but not more often than about once a
 * second in a database.  Sessions that wait are woken each time: there may be a job for
 * them, and a look costs them little.
 *
 * What COMMIT PREPARED has done cannot be undone, so nothing that follows it here may raise
 * an error, which would tell the client that it has failed: only shared memory is read and
 * written.  So it is not looked up whether the transaction has made the extension.  Where
 * there was none before, the launcher is asked to look, which it does now and then.
 *
 * The statements are seen by a ProcessUtility hook.  Logical replication prepares and
 * commits without a statement; what it makes due is found by looking (process/scheduler.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "tcop/utility.h"

#include "ipc/prepared.h"
#include "ipc/slots.h"
#include "ipc/wakeup.h"

static ProcessUtility_hook_type previous_utility = NULL;

/* Of the transaction that is being prepared. */
static uint32 current_name;
static bool has_current_name = false;

/* Finds the entry of a prepared transaction, or (InvalidOid) a free one; NULL: none. */
static QmlPrepared *
find_prepared(Oid database, uint32 name)
{
	Assert(LWLockHeldByMe(qml_shmem->lock));
	for (int i = 0; i < QML_MAX_PREPARED; i++)
	{
		if (qml_shmem->prepared[i].database == database &&
			(!OidIsValid(database) || qml_shmem->prepared[i].name == name))
			return &qml_shmem->prepared[i];
	}
	return NULL;
}

/* The transaction that is being prepared noted something. */
static void
remember_prepared(bool launcher, bool has_taken, bool rules)
{
	QmlPrepared *entry;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = find_prepared(InvalidOid, 0);
	if (entry)
	{
		entry->database = MyDatabaseId;
		entry->name = current_name;
		entry->call = launcher;
		entry->took = has_taken;
		entry->rules = rules;
	}
	LWLockRelease(qml_shmem->lock);
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
 * When the scheduler is to look at everything because of a transaction that is not known:
 * about a second after the last time.
 */
static TimestampTz
time_for_unknown(void)
{
	QmlSlot *scheduler = qml_slots_find_scheduler(MyDatabaseId);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last;

	/* A scheduler that starts looks at everything. */
	if (scheduler == NULL)
		return now;
	last = (TimestampTz) pg_atomic_read_u64(&scheduler->unknown_prepared_at);
	/* It is due already, because of another one. */
	if (last > now && last <= now + USECS_PER_SEC)
		return last;
	if (last <= now && last > now - USECS_PER_SEC)
		now = last + USECS_PER_SEC;
	pg_atomic_write_u64(&scheduler->unknown_prepared_at, (uint64) now);
	return now;
}

/*
 * COMMIT PREPARED is a transaction of its own: what is noted here is sent when that
 * commits, which is after the prepared one.
 */
static void
note_committed(uint32 name, bool extension_was_there)
{
	QmlPrepared prepared;
	bool known = take_prepared(name, &prepared);

	if (prepared.call)
		qml_wakeup_launcher(true);
	else if (!known && !extension_was_there)
		qml_wakeup_launcher(false);
	if (known || extension_was_there)
		qml_wakeup_anything_at(known ? GetCurrentTimestamp() : time_for_unknown());
	if (known ? prepared.rules : extension_was_there)
		qml_wakeup_rules_changed();
}

static void
note_rolled_back(uint32 name)
{
	QmlPrepared prepared;
	bool known = take_prepared(name, &prepared);

	if (!known)
		qml_wakeup_anything_at(time_for_unknown());
	else if (prepared.took)
		qml_wakeup_anything_at(GetCurrentTimestamp());
}

static void
process_utility(PlannedStmt *statement, const char *query, bool readonly,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
				DestReceiver *dest, QueryCompletion *completion)
{
	/* Everything is read before the call: the statement may be freed by it. */
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
		current_name = name;
		has_current_name = true;
	}
	if (previous_utility)
		previous_utility(statement, query, readonly, context, params, environment, dest,
						 completion);
	else
		standard_ProcessUtility(statement, query, readonly, context, params, environment, dest,
								completion);
	/* The statement is done: a cancel that comes now must not make it look undone. */
	HOLD_INTERRUPTS();
	if (kind == TRANS_STMT_COMMIT_PREPARED)
		note_committed(name, extension_was_there);
	if (kind == TRANS_STMT_ROLLBACK_PREPARED)
		note_rolled_back(name);
	RESUME_INTERRUPTS();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	bool launcher;
	bool has_taken;
	bool rules;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_PREPARE && has_current_name &&
		qml_wakeup_is_pending(&launcher, &has_taken, &rules))
		remember_prepared(launcher, has_taken, rules);
	has_current_name = false;
}

/*
 * Called while the server loads its preloaded libraries, after qml_wakeup_init(): a
 * callback that is registered later is called earlier, so that wakeup.c has not
 * forgotten yet what the transaction noted.
 */
void
qml_prepared_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
