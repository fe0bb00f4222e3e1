/*
 * prepared.c
 *		Wake-ups of prepared transactions.
 *
 * A prepared transaction may be committed by any session, which does not know what
 * it made due.  So PREPARE TRANSACTION leaves in shared memory, under the transaction's
 * name, that it noted something (wakeup.c, ready_note.c), and what it does to the numbers of jobs
 * (counter_notes.c).  COMMIT PREPARED of that name says that anything may be due, and so does
 * ROLLBACK PREPARED if the transaction had taken ready jobs.
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
 * commits without a statement; what it makes due is found by looking (process/steps.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "tcop/utility.h"

#include "ipc/counter_notes.h"
#include "ipc/counters.h"
#include "ipc/prepared.h"
#include "ipc/ready_note.h"
#include "ipc/ready_queues.h"
#include "ipc/slots.h"
#include "ipc/wakeup.h"

static ProcessUtility_hook_type previous_utility = NULL;

/* Of the transaction that is being prepared. */
static char current_name[GIDSIZE];
static bool has_current_name = false;

/* Finds the entry of a prepared transaction, or (InvalidOid) a free one; NULL: none. */
static QmlPrepared *
find_prepared(Oid database, const char *name)
{
	Assert(LWLockHeldByMe(qml_shmem->lock));
	for (int i = 0; i < QML_MAX_PREPARED; i++)
	{
		if (qml_shmem->prepared[i].database == database &&
			(!OidIsValid(database) || strcmp(qml_shmem->prepared[i].name, name) == 0))
			return &qml_shmem->prepared[i];
	}
	return NULL;
}

/* Whether it does something to the numbers of jobs. */
static bool
does_count(const QmlPrepared *prepared)
{
	return prepared->ndeltas > 0 || prepared->uncounted;
}

/* The transaction that is being prepared noted something. */
static void
remember_prepared(const QmlPrepared *prepared)
{
	QmlPrepared *entry;
	bool is_lost;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	/* One of this name has ended, in a way that was not seen here, or is not seen yet. */
	entry = find_prepared(MyDatabaseId, current_name);
	is_lost = entry && does_count(entry);
	if (entry == NULL)
		entry = find_prepared(InvalidOid, NULL);
	if (entry)
	{
		*entry = *prepared;
		entry->database = MyDatabaseId;
		strlcpy(entry->name, current_name, sizeof(entry->name));
	}
	else
		qml_shmem->prepared_lost = ReadNextTransactionId();
	LWLockRelease(qml_shmem->lock);
	if (is_lost)
		qml_counters_forget();
}

/*
 * Forgets a prepared transaction that ended; xid: what it was before, if it was known.  False: it
 * was not known here, or its name has been used again.
 */
static bool
take_prepared(const char *name, TransactionId xid, QmlPrepared *prepared)
{
	QmlPrepared *entry;

	memset(prepared, 0, sizeof(*prepared));
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = find_prepared(MyDatabaseId, name);
	if (entry && TransactionIdIsValid(xid) && entry->xid != xid)
		entry = NULL;
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

/* Whether there may be a prepared transaction, in any database, that noted something and did not fit. */
static bool
has_lost_prepared(void)
{
	TransactionId lost = *(volatile TransactionId *) &qml_shmem->prepared_lost;
	bool has_another;

	if (!TransactionIdIsValid(lost))
		return false;
	/* It runs until it is committed or rolled back. */
	if (TransactionIdPrecedes(GetOldestActiveTransactionId(), lost))
		return true;
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	has_another = qml_shmem->prepared_lost != lost;
	if (!has_another)
		qml_shmem->prepared_lost = InvalidTransactionId;
	LWLockRelease(qml_shmem->lock);
	return has_another;
}

/*
 * Whether a prepared transaction that is not known may have written jobs: one of before the
 * start of the server holds its lock on a table of jobs, or one did not fit.  Looked up before
 * it ends.
 */
static bool
may_have_written(void)
{
	bool found = has_lost_prepared();

	/* Lists and numbers of the database may be begun before the transaction has ended. */
	if (!OidIsValid(qml_ready_queues_table(0)) && !OidIsValid(qml_counters_table(0)))
		return true;
	for (int i = 0; i < QML_READY_TABLES && !found; i++)
	{
		Oid live = OidIsValid(qml_ready_queues_table(i)) ? qml_ready_queues_table(i) :
														   qml_counters_table(i);
		VirtualTransactionId *holders;
		LOCKTAG tag;

		if (!OidIsValid(live))
			continue;
		SET_LOCKTAG_RELATION(tag, MyDatabaseId, live);
		holders = GetLockConflicts(&tag, ShareLock, NULL);
		for (; !found && VirtualTransactionIdIsValid(*holders); holders++)
			found = VirtualTransactionIdIsRecoveredPreparedXact(*holders);
	}
	return found;
}

/* It is going to be committed or rolled back: its id, if it is known; *counts: see does_count(). */
static TransactionId
id_of(const char *name, bool *counts)
{
	const QmlPrepared *entry;
	TransactionId xid;

	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	entry = find_prepared(MyDatabaseId, name);
	xid = entry ? entry->xid : InvalidTransactionId;
	*counts = entry && does_count(entry);
	LWLockRelease(qml_shmem->lock);
	return xid;
}

/* It is committed: adds what it did to the numbers of jobs. */
static void
add_to_counters(const QmlPrepared *prepared, bool may_have_written)
{
	if (may_have_written || prepared->uncounted)
		qml_counters_forget();
	else
		qml_counters_apply(prepared->xid, prepared->deltas, sizeof(QmlCounterDelta),
						   prepared->ndeltas);
	qml_counters_announce(InvalidTransactionId);
}

/*
 * COMMIT PREPARED is a transaction of its own: what is noted here is sent when that
 * commits, which is after the prepared one.
 */
static void
note_committed(const char *name, TransactionId xid, bool extension_was_there, bool may_have_written)
{
	QmlPrepared prepared;
	bool known = take_prepared(name, xid, &prepared);

	/* Its name has been used again, and what was known of it is lost. */
	may_have_written = may_have_written || (!known && TransactionIdIsValid(xid));

	/* It is done: whoever takes a snapshot now sees it. */
	if (known ? prepared.listed : may_have_written)
		qml_ready_queues_forget();
	add_to_counters(&prepared, !known && may_have_written);
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
note_rolled_back(const char *name, TransactionId xid, bool may_have_written)
{
	QmlPrepared prepared;
	bool known = take_prepared(name, xid, &prepared);

	/* The same as when it is committed. */
	may_have_written = may_have_written || (!known && TransactionIdIsValid(xid));

	if (known ? prepared.listed_taken : may_have_written)
		qml_ready_queues_forget();
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
	char name[GIDSIZE] = "";
	bool extension_was_there = kind == TRANS_STMT_COMMIT_PREPARED &&
							   OidIsValid(get_extension_oid("qml", true));
	bool has_written = (kind == TRANS_STMT_COMMIT_PREPARED ||
						kind == TRANS_STMT_ROLLBACK_PREPARED) &&
					   may_have_written();
	TransactionId xid = InvalidTransactionId;
	bool counts = false;

	/* A longer name is an error. */
	if (transaction && transaction->gid)
		strlcpy(name, transaction->gid, sizeof(name));
	if (kind == TRANS_STMT_PREPARE)
	{
		strlcpy(current_name, name, sizeof(current_name));
		has_current_name = true;
	}
	if (kind == TRANS_STMT_COMMIT_PREPARED || kind == TRANS_STMT_ROLLBACK_PREPARED)
		xid = id_of(name, &counts);
	if (counts && kind == TRANS_STMT_COMMIT_PREPARED)
		qml_counters_announce(xid); /* see counters.c */
	if (previous_utility)
		previous_utility(statement, query, readonly, context, params, environment, dest,
						 completion);
	else
		standard_ProcessUtility(statement, query, readonly, context, params, environment, dest,
								completion);
	/* The statement is done: a cancel that comes now must not make it look undone. */
	HOLD_INTERRUPTS();
	if (kind == TRANS_STMT_COMMIT_PREPARED)
		note_committed(name, xid, extension_was_there, has_written);
	if (kind == TRANS_STMT_ROLLBACK_PREPARED)
		note_rolled_back(name, xid, has_written);
	RESUME_INTERRUPTS();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	QmlPrepared prepared = {0};
	bool is_pending;

	/* COMMIT PREPARED may have failed. */
	if (event == XACT_EVENT_ABORT)
		qml_counters_announce(InvalidTransactionId);
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_PREPARE && has_current_name)
	{
		is_pending = qml_wakeup_is_pending(&prepared.call, &prepared.took, &prepared.rules);
		prepared.listed = qml_ready_note_is_pending(&prepared.listed_taken);
		prepared.xid = GetTopTransactionIdIfAny();
		prepared.uncounted = !qml_counter_notes_copy(prepared.deltas, QML_PREPARED_DELTAS,
													 &prepared.ndeltas);
		if (is_pending || prepared.listed || prepared.listed_taken || prepared.uncounted ||
			prepared.ndeltas > 0)
			remember_prepared(&prepared);
	}
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
