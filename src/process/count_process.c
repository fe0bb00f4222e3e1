/*
 * count_process.c
 *		The process that counts all jobs of a database.
 *
 * A count can take minutes, in one transaction (maintenance/counting.c), and the scheduler must
 * not do anything for so long.  So it starts this process, which counts once, and exits.
 *
 * It is the only process of qml without a slot: nobody wakes it or leaves work with it, and the
 * launcher need not know of it.  One at a time is asked for in a server (ipc/counters.c).  So it is
 * one more than qml.max_workers: if it had to be one of those, databases whose schedulers take
 * turns, or whose workers are always busy, would never be counted.  Where the server has no process
 * for it, the scheduler tries again.
 *
 * The scheduler that has started it may end meanwhile.  What the next one has to know is in shared
 * memory: whether somebody counts, and when that may be done next.  A process that comes too late
 * finds that somebody else was asked for, or no extension to work for, and exits.  One that cannot
 * connect, because a session has locked the database, ends after some seconds.
 *
 * It gives way as the others do: twice a second it looks whether somebody needs the database alone
 * or drops the extension, and whether a setting says that it has nothing to do.  A signal ends it
 * at once.  However it ends, its transaction is undone, which gives the count up.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"

#include "common/guc.h"
#include "compat.h"
#include "ipc/counters.h"
#include "ipc/session_claim.h"
#include "maintenance/counting.h"
#include "model/catalog.h"
#include "process/count_process.h"
#include "process/process.h"
#include "process/slot.h"

/* How long a process may take to connect, in milliseconds. */
#define CONNECT_MS 10000

/* What the process is given. */
typedef struct Order
{
	Oid role;
	uint64 asked; /* qml_counters_ask() */
} Order;

StaticAssertDecl(sizeof(Order) <= BGW_EXTRALEN, "an order is given with the process");

extern PGDLLEXPORT void qml_count_process_main(Datum arg);

/* ----- in the scheduler ----- */

/* The process that this scheduler has started; NULL: none. */
static BackgroundWorkerHandle *handle = NULL;
static uint64 handle_asked;

/* Whether the process that this scheduler has started is still there. */
bool
qml_count_process_runs(void)
{
	pid_t pid;

	if (handle == NULL)
		return false;
	if (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
		return true;
	pfree(handle);
	handle = NULL;
	/* If it never came. */
	qml_counters_release(handle_asked);
	return false;
}

/*
 * Starts the process for this database, in a transaction, unless somebody else was first; false:
 * the server has none to spare.
 */
bool
qml_count_process_start(void)
{
	Order order = {.role = GetSessionUserId()};
	BackgroundWorker worker;
	MemoryContext oldcontext;
	bool registered;

	Assert(handle == NULL);
	order.asked = qml_counters_ask();
	if (order.asked == 0)
		return true;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART; /* the scheduler does that */
	strlcpy(worker.bgw_library_name, "qml", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "qml_count_process_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "qml count: %s", get_database_name(MyDatabaseId));
	strlcpy(worker.bgw_type, "qml count", BGW_MAXLEN);
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	memcpy(worker.bgw_extra, &order, sizeof(order));
	worker.bgw_notify_pid = MyProcPid;
	/* First, as it may be over before this process goes on. */
	qml_counting_note_start();
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(oldcontext);
	handle_asked = order.asked;
	if (!registered)
	{
		handle = NULL;
		qml_counting_note_no_process();
		qml_counters_release(order.asked);
	}
	return registered;
}

/* ----- the process ----- */

static Order order;
static Oid extension; /* that this process works for */

/* On every exit, when the transaction has been undone: another process may be asked for. */
static void
end_count(int code, Datum arg)
{
	qml_counters_release(order.asked);
}

/* It takes too long to connect. */
static void
give_up(void)
{
	kill(MyProcPid, SIGTERM);
}

static void
connect_as(Oid database, Oid role)
{
	TimeoutId timer = RegisterTimeout(USER_TIMEOUT, give_up);

	enable_timeout_after(timer, CONNECT_MS);
	BackgroundWorkerInitializeConnectionByOid(database, role, 0);
	disable_timeout(timer, false);
}

/* Whether somebody waits for the extension, which this transaction has locked, to drop it. */
static bool
is_extension_wanted(void)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 0);
	return LockHasWaiters(&tag, AccessShareLock, false);
}

/* Ends the process if it is in the way of others, or has nothing to do any more. */
static void
leave_if_asked(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (qml_slot_is_blocking() || is_extension_wanted() || qml_slot_is_disabled() ||
		!qml_scheduler_enabled)
		proc_exit(0);
}

/* Ends the process unless there is an extension to work for; locks it, without waiting. */
static void
leave_unless_extension(void)
{
	extension = get_extension_oid("qml", true);
	if (!OidIsValid(extension) ||
		!qml_catalog_try_lock(ExtensionRelationId, extension, 0, AccessShareLock) ||
		get_extension_oid("qml", true) != extension || !qml_catalog()->adopted ||
		qml_catalog()->owner != GetSessionUserId())
		proc_exit(0);
}

/* Where the postmaster starts the process.  arg: the database. */
void
qml_count_process_main(Datum arg)
{
	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	qml_process_start(NULL);
	before_shmem_exit(end_count, (Datum) 0);
	connect_as(DatumGetObjectId(arg), order.role);
	qml_session_claim_set_background();
	qml_process_pin_settings();
	pgstat_report_appname("qml count");
	PG_TRY();
	{
		qml_process_begin_long("counting jobs");
		leave_unless_extension();
		leave_if_asked();
		if (!qml_counters_answer(order.asked))
			proc_exit(0);
		qml_counting_run(leave_if_asked);
		qml_process_commit();
	}
	PG_CATCH();
	{
		qml_process_log_error("qml count", QML_LOG_PROCESS, qml_process_undo());
		qml_counting_note_error();
	}
	PG_END_TRY();
	proc_exit(0);
}
