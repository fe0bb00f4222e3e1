/*
 * process.c
 *		What the background processes have in common: signals, settings,
 *		transactions, errors and sleep.
 *
 * A process does its work in transactions of its own, each with a time limit (but for the
 * one that only counts), and between them holds nothing: no transaction, no snapshot, no
 * lock.  An error undoes the transaction and is logged in one line with its SQLSTATE; its
 * detail and context, which may hold a payload, are not logged.
 *
 * All processes have one shape: install the signal handlers, unblock signals, take the
 * slot, connect, pin settings; then handle signals, do a round, and sleep on the latch to
 * a computed deadline.  Sleep ends with the postmaster.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/varlena.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/guc.h"
#include "common/log.h"
#include "compat.h"
#include "process/process.h"

/* No step may hold up the others for longer; what takes long is done in several. */
#define STEP_TIMEOUT_MS QML_FAULT_LIMIT("process.timeout_ms", 60 * 1000)

/*
 * Settings that would change what qml's own statements mean, or make them wait.  ALTER
 * DATABASE and ALTER ROLE ... SET reach background processes too, and others than the
 * extension's owner may use them.
 */
static const QmlSetting pinned[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"row_security", "on"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"default_tablespace", ""},
	{"default_table_access_method", "heap"},
	{"statement_timeout", "0"},
	{"lock_timeout", "2s"}, /* no step is to wait long for others */
	{"exit_on_error", "off"},
	QML_PINNED_LATER{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"session_replication_role", "origin"},
	{"check_function_bodies", "on"},
	{"TimeZone", "UTC"},
	{"DateStyle", "ISO"},
	{"IntervalStyle", "postgres"},
	{"standard_conforming_strings", "on"},
	{"client_min_messages", "error"},
	{"jit", "off"},
	{"max_parallel_workers_per_gather", "0"},
	{"enable_seqscan", "on"},
	{"enable_indexscan", "on"},
};

/* Of the transaction with a time limit. */
static int64 transaction_began; /* monotonic, milliseconds */
static bool is_limited = false;
static bool undone_late = false; /* the one that was undone last had used up its time */

static bool ending = false; /* qml commits, not a procedure */

/* Shared with signal handlers. */
static volatile sig_atomic_t committing = false;	/* past pre-commit; not by handlers */
static volatile sig_atomic_t must_not_wait = false; /* the server shuts down; by a handler */

/* Of the last error: FreeErrorData() leaves parts of what CopyErrorData() makes. */
static MemoryContext error_context;

/*
 * From here on a commit waits for nothing but synchronous standbys, and a cancel ends
 * just this wait.  Earlier, a cancel would undo here what other callbacks of the commit,
 * such as that of postgres_fdw, may have committed elsewhere.
 */
static void
on_pre_commit(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_PRE_COMMIT || !ending)
		return;
	committing = true;
	if (must_not_wait)
		InterruptPending = QueryCancelPending = true;
}

/*
 * Before anything else in a process, while signals are blocked: installs the usual
 * handlers, then those of the process itself (or NULL), and unblocks signals.
 */
void
qml_process_start(void (*install_handlers)(void))
{
	/* Callbacks that are registered later are called before this one. */
	RegisterXactCallback(on_pre_commit, NULL);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	if (install_handlers)
		install_handlers();
	BackgroundWorkerUnblockSignals();
	error_context = AllocSetContextCreate(TopMemoryContext, "qml error", ALLOCSET_SMALL_SIZES);
	/* The signal of a reload was ignored until now. */
	ConfigReloadPending = true;
}

/* Fixes settings: no ALTER DATABASE, ALTER ROLE or reload changes them afterwards. */
void
qml_process_pin(const QmlSetting *settings, int count)
{
	Assert(!IsTransactionState());
	for (int i = 0; i < count; i++)
		SetConfigOption(settings[i].name, settings[i].value, PGC_SUSET, PGC_S_OVERRIDE);
}

/* After connecting, in a process that does qml's own work and no jobs. */
void
qml_process_pin_settings(void)
{
	qml_process_pin(pinned, lengthof(pinned));
}

/* Begins a transaction with a snapshot and without a time limit: for who does nothing else. */
void
qml_process_begin_long(const char *activity)
{
	Assert(!IsTransactionState());
	transaction_began = qml_clock_monotonic_ms();
	pgstat_report_activity(STATE_RUNNING, activity);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

/* Begins a transaction with a snapshot and a time limit. */
void
qml_process_begin(const char *activity)
{
	qml_process_begin_long(activity);
	enable_timeout_after(STATEMENT_TIMEOUT, STEP_TIMEOUT_MS);
	is_limited = true;
}

/*
 * Commits.  An advisory lock that a hook has taken for the session is released: nobody
 * could unlock it, and the session may go on for months.
 */
void
qml_process_end_transaction(void)
{
	Assert(IsTransactionState() && !ending);
	ending = true;
	CommitTransactionCommand();
	ending = false;
	committing = false;
	/* The cancel was meant for the wait for standbys alone. */
	if (must_not_wait)
		QueryCancelPending = false;
	LockReleaseSession(USER_LOCKMETHOD);
}

/*
 * By a signal handler, when the server shuts down: from now on no commit of this process
 * waits for a standby.  The server does the same for clients.
 */
void
qml_process_stop_waiting(void)
{
	must_not_wait = true;
	if (committing)
		InterruptPending = QueryCancelPending = true;
}

/* Commits a transaction of qml_process_begin() or qml_process_begin_long(). */
void
qml_process_commit(void)
{
	PopActiveSnapshot();
	if (is_limited)
		disable_timeout(STATEMENT_TIMEOUT, false);
	is_limited = false;
	qml_process_end_transaction();
	/* Autovacuum depends on this. */
	(void) pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * In PG_CATCH: undoes the transaction, if there is one, and disables all timers.  Returns
 * the error, which is valid until the next one.  Leaves TopMemoryContext current.
 */
ErrorData *
qml_process_undo(void)
{
	ErrorData *error;

	HOLD_INTERRUPTS();
	undone_late = qml_process_is_late();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	MemoryContextReset(error_context);
	MemoryContextSwitchTo(error_context);
	error = CopyErrorData();
	FlushErrorState();
	LWLockReleaseAll();
	AbortOutOfAnyTransaction();
	LockReleaseSession(USER_LOCKMETHOD);
	is_limited = false;
	ending = false;
	committing = false;
	MemoryContextSwitchTo(TopMemoryContext);
	(void) pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	RESUME_INTERRUPTS();
	return error;
}

/* Whether the transaction has used up its time, so that any error is due to that. */
bool
qml_process_is_late(void)
{
	return is_limited && qml_clock_monotonic_ms() - transaction_began >= STEP_TIMEOUT_MS;
}

/* Logs the error of the transaction that was undone last.  what: the subject of the message. */
void
qml_process_log_error(const char *what, QmlLogKind kind, ErrorData *error)
{
	/* Somebody canceled it by hand, and knows why. */
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && !undone_late)
		ereport(DEBUG1, (errmsg("%s: canceled", what)));
	else if (!qml_log_is_due(kind))
		return;
	else if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("%s failed: it did not end within %d seconds (SQLSTATE %s)", what,
						STEP_TIMEOUT_MS / 1000, unpack_sql_state(error->sqlerrcode))));
	else
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("%s failed: %s (SQLSTATE %s)", what, error->message,
						unpack_sql_state(error->sqlerrcode))));
}

/* Between transactions: ends the process, or reloads the configuration, if asked to. */
void
qml_process_handle_signals(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* Sleeps until the latch is set or the time is over; exits when the postmaster is gone. */
void
qml_process_sleep(int64 milliseconds, uint32 wait_event)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 (long) Max(milliseconds, 0), wait_event);
	ResetLatch(MyLatch);
}

/* The names in qml.databases, as copies in the current memory context; not for "*". */
List *
qml_process_listed_databases(void)
{
	char *copy = pstrdup(qml_databases);
	List *parts;
	List *names = NIL;
	ListCell *lc;

	if (SplitIdentifierString(copy, ',', &parts))
	{
		foreach(lc, parts)
			names = lappend(names, pstrdup(lfirst(lc)));
		list_free(parts);
	}
	pfree(copy);
	return names;
}

bool
qml_process_works_all_databases(void)
{
	return strcmp(qml_databases, "*") == 0;
}

/* Whether qml.databases names a database, or all. */
bool
qml_process_works_database(const char *name)
{
	List *names;
	ListCell *lc;
	bool found = false;

	if (qml_process_works_all_databases())
		return true;
	names = qml_process_listed_databases();
	foreach(lc, names)
		found = found || strcmp(lfirst(lc), name) == 0;
	list_free_deep(names);
	return found;
}
