/*
 * prepared.c
 *		Prepared transactions: what they will do when they end.
 *
 * A prepared transaction may be committed or rolled back by any session, which does not know
 * what it did.  So PREPARE TRANSACTION keeps in shared memory what there is to do at its end:
 *
 * - the ready jobs that it made, which are added to their lists when it is committed, and those
 *   that it took, which are put back when it is rolled back (ready_note.c),
 * - what it does to the numbers of jobs (counter_notes.c), and counts for statistics
 *   (stats_notes.c),
 * - whether others are to be woken (wakeup.c).  It is not kept for what: anything may be due.
 * - whether it has changed more than jobs, for those who watch (watch_notes.c).  It is not kept
 *   what: anything may have changed.
 *
 * There is room for each prepared transaction, and for each session that prepares one.  Room is
 * found before the transaction is prepared, while an error can still undo it.
 *
 * COMMIT PREPARED and ROLLBACK PREPARED are seen by a ProcessUtility hook: when the statement is
 * done, the end of the transaction can be seen, and what is kept of it is done before the client
 * hears of it.  Processes that sleep are woken when the transaction of the statement ends.
 *
 * Nobody tells of the end of some transactions:
 *
 * - those that logical replication prepares, without a statement and a name that is known here;
 * - those that were prepared before the server was started, or promoted.  They are found by the
 *   locks that they hold on tables of jobs, before lists or numbers of these tables are begun.
 *   What they did is not known: lists and numbers are forgotten when they have ended;
 * - those whose statement failed, which may have ended all the same.
 *
 * They are unheard: whoever uses the lists or the numbers of their database looks first whether
 * they have ended (qml_prepared_settle).  So does a process of logical replication when its
 * transaction commits, by which it has ended one.  All others are looked at in this way now
 * and then, because an extension can end any of them without a statement.  One has ended when
 * its id is not locked any more: the last thing that it does is to let go of its locks.
 *
 * Whoever takes an entry does what it says.  It is in one place at a time, so this is done once.
 * An entry is named by the id of its transaction.  Names are used again, even before the session
 * that has ended the transaction comes to it.
 *
 * A transaction that did nothing in qml is not kept.  COMMIT PREPARED or ROLLBACK PREPARED of a
 * name that is not known says that anything may be due.  The scheduler looks at everything then,
 * but not more often than about once a second in a database.  Sessions that wait are woken each
 * time: there may be a job for them, and a look costs them little.
 *
 * What COMMIT PREPARED has done cannot be undone, so nothing that follows it here may raise
 * an error, which would tell the client that it has failed: only shared memory is read and
 * written.  So it is not looked up whether the transaction has made the extension.  Where
 * there was none before, the launcher is asked to look, which it does now and then.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/xid8.h"

#include "common/fault.h"
#include "ipc/counter_notes.h"
#include "ipc/counters.h"
#include "ipc/prepared.h"
#include "ipc/ready_note.h"
#include "ipc/ready_queues.h"
#include "ipc/slots.h"
#include "ipc/stats_notes.h"
#include "ipc/stats_store.h"
#include "ipc/wakeup.h"
#include "ipc/watch.h"
#include "ipc/watch_notes.h"

/* As many as are used of those that there are. */
#define ENTRIES Min(qml_shmem->nprepared, QML_FAULT_LIMIT("prepared.entries", INT_MAX))

static ProcessUtility_hook_type previous_utility = NULL;

/* The transaction that is being prepared: its name, if it has one, and its entry. */
static char current_name[GIDSIZE];
static bool has_current_name = false;
static QmlPrepared *reserved = NULL;

/* The transaction that this session is ending by a statement; invalid: none that is kept. */
static FullTransactionId ending;

/* How a transaction has ended. */
typedef enum End
{
	COMMITTED,
	ROLLED_BACK,
	UNKNOWN /* so long ago that the server has forgotten it */
} End;

/* ----- entries ----- */

/* Whether it is kept: it is of a transaction that is prepared. */
static bool
is_kept(const QmlPrepared *entry)
{
	return OidIsValid(entry->database) && FullTransactionIdIsValid(entry->xid);
}

/* Finds what is kept of a transaction; NULL: nothing. */
static QmlPrepared *
find_kept(FullTransactionId xid)
{
	Assert(LWLockHeldByMe(qml_shmem->lock));
	for (int i = 0; i < qml_shmem->nprepared; i++)
	{
		QmlPrepared *entry = &qml_shmem->prepared[i];

		if (is_kept(entry) && FullTransactionIdEquals(entry->xid, xid))
			return entry;
	}
	return NULL;
}

/* The same by name. */
static QmlPrepared *
find_named(const char *name)
{
	Assert(LWLockHeldByMe(qml_shmem->lock));
	for (int i = 0; i < qml_shmem->nprepared; i++)
	{
		QmlPrepared *entry = &qml_shmem->prepared[i];

		if (is_kept(entry) && entry->database == MyDatabaseId && entry->has_name &&
			strcmp(entry->name, name) == 0)
			return entry;
	}
	return NULL;
}

/* Nobody may tell of its end, from now on; the lock is held exclusively. */
static void
set_unheard(QmlPrepared *entry)
{
	if (!entry->unheard)
		(void) pg_atomic_fetch_add_u32(&qml_shmem->nunheard, 1);
	entry->unheard = true;
}

static void
free_entry(QmlPrepared *entry)
{
	Assert(LWLockHeldByMeInMode(qml_shmem->lock, LW_EXCLUSIVE));
	if (entry->unheard)
		(void) pg_atomic_fetch_sub_u32(&qml_shmem->nunheard, 1);
	entry->unheard = false;
	entry->database = InvalidOid;
}

/*
 * Takes what is kept of a transaction that has ended.  False: nothing, or (unheard) a session is
 * about to take it.
 */
static bool
take(FullTransactionId xid, bool unheard, QmlPrepared *prepared)
{
	QmlPrepared *entry;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = find_kept(xid);
	if (entry && unheard && entry->nending > 0)
		entry = NULL;
	if (entry)
	{
		*prepared = *entry;
		free_entry(entry);
	}
	LWLockRelease(qml_shmem->lock);
	return entry != NULL;
}

/* Tells those who watch the database what a transaction has changed, which has not been rolled back. */
static void
tell_watchers(const QmlPrepared *prepared, End end)
{
	if (end == UNKNOWN || prepared->uncounted || prepared->changed)
		qml_watch_tell_everything(prepared->database);
	else
	{
		for (int i = 0; i < prepared->ndeltas; i++)
			qml_watch_tell_queue(prepared->deltas[i].queue);
	}
}

/* Does what is kept of a transaction, whose end can be seen. */
static void
tell_lists_and_counters(const QmlPrepared *prepared, End end)
{
	if (end == UNKNOWN)
		qml_ready_queues_forget(prepared->database);
	else
		qml_ready_note_tell_kept(&prepared->ready, end == COMMITTED);
	if (end == UNKNOWN || (end == COMMITTED && prepared->uncounted))
		qml_counters_forget(prepared->database);
	else if (end == COMMITTED)
		qml_counters_apply(XidFromFullTransactionId(prepared->xid), prepared->deltas,
						   sizeof(QmlCounterDelta), prepared->ndeltas);
	if (end != ROLLED_BACK)
		tell_watchers(prepared, end);
	if (end != COMMITTED)
		return;
	qml_stats_store_add(prepared->stats, sizeof(QmlStatNote), prepared->nstats);
	qml_stats_store_miss(prepared->missed_stats);
}

/* ----- transactions whose end nobody has told ----- */

/* Whether a transaction has ended, and has let go of all that it held. */
static bool
has_ended(FullTransactionId xid)
{
	LOCKTAG tag;

	SET_LOCKTAG_TRANSACTION(tag, XidFromFullTransactionId(xid));
	if (LockAcquire(&tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	(void) LockRelease(&tag, ShareLock, false);
	return true;
}

/* How it has ended. */
static End
find_end(FullTransactionId xid)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum status;
	char *word;
	End end = ROLLED_BACK;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = FullTransactionIdGetDatum(xid);
	fcinfo->args[0].isnull = false;
	status = pg_xact_status(fcinfo);
	if (fcinfo->isnull)
		return UNKNOWN;
	word = TextDatumGetCString(status);
	if (strcmp(word, "committed") == 0)
		end = COMMITTED;
	pfree(word);
	return end;
}

/* It has ended, and is done with now unless somebody else is at it. */
static void
settle(FullTransactionId xid)
{
	End end = find_end(xid);
	QmlPrepared prepared;
	/* Whoever counts all rows finds the entry, or waits for this. */
	TransactionId announced = qml_counters_announce(XidFromFullTransactionId(xid));

	if (take(xid, true, &prepared))
	{
		tell_lists_and_counters(&prepared, end);
		if (end != ROLLED_BACK || prepared.took)
			qml_wakeup_now(prepared.call, prepared.rules);
	}
	(void) qml_counters_announce(announced);
}

/*
 * One of another database has ended: its lists and numbers are forgotten, as only its own
 * sessions can add to these.
 */
static void
drop_foreign(FullTransactionId xid)
{
	QmlPrepared prepared;

	if (take(xid, true, &prepared))
		tell_lists_and_counters(&prepared, UNKNOWN);
}

/* The ids of entries, of this database or of all others; returns how many. */
static int
list_kept(bool unheard, bool foreign, FullTransactionId *xids)
{
	int count = 0;

	LWLockAcquire(qml_shmem->lock, LW_SHARED);
	for (int i = 0; i < qml_shmem->nprepared; i++)
	{
		const QmlPrepared *entry = &qml_shmem->prepared[i];

		if (is_kept(entry) && (entry->database != MyDatabaseId) == foreign &&
			(entry->unheard || !unheard) && entry->nending == 0)
			xids[count++] = entry->xid;
	}
	LWLockRelease(qml_shmem->lock);
	return count;
}

static void
settle_listed(bool unheard, bool foreign)
{
	FullTransactionId *xids = palloc(sizeof(FullTransactionId) * qml_shmem->nprepared);
	int count = list_kept(unheard, foreign, xids);

	for (int i = 0; i < count; i++)
	{
		if (!has_ended(xids[i]))
			continue;
		if (foreign)
			drop_foreign(xids[i]);
		else
			settle(xids[i]);
	}
	pfree(xids);
}

/*
 * Does what is kept of transactions of this database that have ended, and of whose end nobody may
 * have told; all: of any that has ended without that.
 */
void
qml_prepared_settle(bool all)
{
	if (qml_shmem == NULL || qml_shmem->nprepared == 0 ||
		(!all && pg_atomic_read_u32(&qml_shmem->nunheard) == 0))
		return;
	settle_listed(!all, false);
}

/* ----- room ----- */

/* An entry for a transaction of this database; NULL: there is none. */
static QmlPrepared *
reserve(void)
{
	QmlPrepared *found = NULL;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	for (int i = 0; found == NULL && i < ENTRIES; i++)
	{
		if (!OidIsValid(qml_shmem->prepared[i].database))
			found = &qml_shmem->prepared[i];
	}
	if (found)
	{
		memset(found, 0, sizeof(*found));
		found->database = MyDatabaseId;
	}
	LWLockRelease(qml_shmem->lock);
	return found;
}

/* The same; if there is none, those go that have ended. */
static QmlPrepared *
reserve_or_settle(void)
{
	QmlPrepared *entry = reserve();

	if (entry)
		return entry;
	settle_listed(false, false);
	settle_listed(false, true);
	entry = reserve();
	if (entry == NULL)
		elog(ERROR, "there are more prepared transactions than there can be");
	return entry;
}

/* ----- transactions of before the start of the server ----- */

/* Keeps one of which nothing is known, unless it is kept. */
static void
keep_unknown(FullTransactionId xid)
{
	QmlPrepared *entry = reserve_or_settle();

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	if (find_kept(xid))
		free_entry(entry);
	else
	{
		entry->xid = xid;
		entry->took = true;
		entry->rules = true;
		entry->call = true;
		entry->ready.unknown = true;
		entry->uncounted = true;
		entry->changed = true;
		set_unheard(entry);
	}
	LWLockRelease(qml_shmem->lock);
}

/* The id of a transaction that is prepared: it is one of the last two thousand million. */
static FullTransactionId
widen(TransactionId xid)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32 epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return FullTransactionIdFromEpochAndXid(epoch, xid);
}

/*
 * Lists or numbers of a table of jobs are going to be begun: finds the transactions that may have
 * written it, and were prepared before the server was started.  There will be no more of them.
 */
void
qml_prepared_find_old(Oid table)
{
	VirtualTransactionId *holders;
	LOCKTAG tag;

	if (qml_shmem == NULL || qml_shmem->nprepared == 0 || !OidIsValid(table))
		return;
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, table);
	holders = GetLockConflicts(&tag, ShareLock, NULL);
	for (; VirtualTransactionIdIsValid(*holders); holders++)
	{
		if (VirtualTransactionIdIsRecoveredPreparedXact(*holders))
			keep_unknown(widen(holders->localTransactionId));
	}
}

/* QmlReadyUse: lists of this database are going to be used, or begun. */
static void
before_lists(const QmlReadyTable *tables, int count, bool begins)
{
	if (!begins)
		qml_prepared_settle(false);
	for (int i = 0; begins && i < count; i++)
		qml_prepared_find_old(tables[i].live);
}

/* ----- PREPARE TRANSACTION ----- */

/* What the transaction will do when it ends; false: nothing. */
static bool
read_notes(QmlPrepared *prepared)
{
	bool is_pending = qml_wakeup_is_pending(&prepared->call, &prepared->took, &prepared->rules);
	bool has_ready = qml_ready_note_keep(&prepared->ready);

	prepared->uncounted = !qml_counter_notes_copy(prepared->deltas, QML_PREPARED_DELTAS,
												  &prepared->ndeltas);
	prepared->changed = qml_watch_notes_exist();
	prepared->nstats = qml_stats_notes_copy(prepared->stats, QML_PREPARED_STATS,
											&prepared->missed_stats);
	return is_pending || has_ready || prepared->uncounted || prepared->ndeltas > 0 ||
		   prepared->changed || prepared->nstats > 0;
}

/* Errors are possible for the last time. */
static void
begin_prepare(void)
{
	QmlPrepared prepared;

	if (qml_shmem->nprepared > 0 && read_notes(&prepared))
		reserved = reserve_or_settle();
}

/* The transaction is prepared, and nobody can end it yet. */
static void
keep(void)
{
	FullTransactionId xid = GetTopFullTransactionIdIfAny();
	QmlPrepared *older;

	/* As long as it has no id, nobody else reads it. */
	(void) read_notes(reserved);
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	/* One of this name has ended: in a way that was not seen, or a session is about to take it. */
	older = has_current_name ? find_named(current_name) : NULL;
	if (older)
	{
		older->has_name = false;
		set_unheard(older);
	}
	reserved->xid = xid;
	reserved->has_name = has_current_name;
	if (has_current_name)
		strlcpy(reserved->name, current_name, sizeof(reserved->name));
	else
		set_unheard(reserved);
	LWLockRelease(qml_shmem->lock);
	reserved = NULL;
}

/* It was not prepared. */
static void
give_up_reserved(void)
{
	if (reserved == NULL)
		return;
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	free_entry(reserved);
	LWLockRelease(qml_shmem->lock);
	reserved = NULL;
}

/* ----- COMMIT PREPARED and ROLLBACK PREPARED ----- */

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
 * A statement is going to end a transaction: it will take what is kept of it.  As long as nobody
 * else may take that, its id is announced (counters.c).
 */
static void
begin_end(const char *name)
{
	QmlPrepared *entry;

	ending = InvalidFullTransactionId;
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = find_named(name);
	if (entry)
	{
		ending = entry->xid;
		(void) qml_counters_announce(XidFromFullTransactionId(ending));
		entry->nending++;
	}
	LWLockRelease(qml_shmem->lock);
}

/* The statement failed; nearly always, the transaction is still prepared. */
static void
give_up_end(void)
{
	QmlPrepared *entry;

	if (!FullTransactionIdIsValid(ending))
		return;
	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = find_kept(ending);
	if (entry)
	{
		entry->nending--;
		set_unheard(entry);
	}
	LWLockRelease(qml_shmem->lock);
	(void) qml_counters_announce(InvalidTransactionId);
	ending = InvalidFullTransactionId;
	/* Whoever looks finds out. */
	if (entry)
		qml_wakeup_now(false, false);
}

/* The name belonged to another transaction by then: that is the one that has ended. */
static void
hear_later(const char *name)
{
	QmlPrepared *entry;

	LWLockAcquire(qml_shmem->lock, LW_EXCLUSIVE);
	entry = find_named(name);
	if (entry)
		set_unheard(entry);
	LWLockRelease(qml_shmem->lock);
}

/* The statement is done.  False: it is not known what the transaction did. */
static bool
end_prepared(const char *name, End end, QmlPrepared *prepared)
{
	bool known = FullTransactionIdIsValid(ending) && take(ending, false, prepared);

	ending = InvalidFullTransactionId;
	if (known)
		tell_lists_and_counters(prepared, end);
	else
		hear_later(name);
	(void) qml_counters_announce(InvalidTransactionId);
	return known;
}

/*
 * COMMIT PREPARED is a transaction of its own: what is noted here is sent when that
 * commits, which is after the prepared one.
 */
static void
note_committed(const char *name, bool extension_was_there)
{
	QmlPrepared prepared;
	bool known = end_prepared(name, COMMITTED, &prepared);

	if (known && prepared.call)
		qml_wakeup_launcher(true);
	else if (!known && !extension_was_there)
		qml_wakeup_launcher(false);
	if (known || extension_was_there)
		qml_wakeup_anything_at(known ? GetCurrentTimestamp() : time_for_unknown());
	if (known ? prepared.rules : extension_was_there)
		qml_wakeup_rules_changed();
	if (!known && extension_was_there)
		qml_watch_note_everything();
}

static void
note_rolled_back(const char *name)
{
	QmlPrepared prepared;

	if (!end_prepared(name, ROLLED_BACK, &prepared))
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
	bool commits = kind == TRANS_STMT_COMMIT_PREPARED;
	bool ends = commits || kind == TRANS_STMT_ROLLBACK_PREPARED;
	char name[GIDSIZE] = "";
	bool extension_was_there = commits && OidIsValid(get_extension_oid("qml", true));

	/* A longer name is an error. */
	if (transaction && transaction->gid)
		strlcpy(name, transaction->gid, sizeof(name));
	if (kind == TRANS_STMT_PREPARE)
	{
		strlcpy(current_name, name, sizeof(current_name));
		has_current_name = true;
	}
	if (ends)
		begin_end(name);
	if (previous_utility)
		previous_utility(statement, query, readonly, context, params, environment, dest,
						 completion);
	else
		standard_ProcessUtility(statement, query, readonly, context, params, environment, dest,
								completion);
	if (ends)
		QML_FAULT("prepared.ended");
	/* The statement is done: a cancel that comes now must not make it look undone. */
	HOLD_INTERRUPTS();
	if (commits)
		note_committed(name, extension_was_there);
	else if (ends)
		note_rolled_back(name);
	RESUME_INTERRUPTS();
}

/* ----- callbacks of transactions ----- */

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			begin_prepare();
			break;
		case XACT_EVENT_PREPARE:
			if (reserved)
				keep();
			break;
		case XACT_EVENT_PRE_COMMIT:
			if (IsLogicalWorker())
				qml_prepared_settle(false);
			break;
		case XACT_EVENT_ABORT:
			give_up_reserved();
			give_up_end();
			break;
		default:
			break;
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
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
	qml_ready_queues_call_before_use(before_lists);
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
