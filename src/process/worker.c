/*
 * worker.c
 *		The process that runs jobs in a database.
 *
 * Its session user is the role of the handlers that it runs, so that nothing that a job
 * does to the session leads to more privileges than the role has.  What qml itself does
 * in it goes below the executor, or runs as the owner of qml's tables with a pinned
 * search_path.
 *
 * It claims and runs jobs (run.c) until there are none, then sleeps until a commit that
 * makes jobs ready wakes it (ipc/dispatch.c).  It ends after qml.worker_idle_timeout, when
 * a setting says so, or between two jobs when the launcher needs its slot for another
 * role.  The claims of its jobs are bound to its session: however it ends, those that
 * it has not finished are reclaimed by the scheduler.
 *
 * Between jobs it holds no transaction and no lock.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/postmaster.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

#include "common/clock.h"
#include "common/guc.h"
#include "common/wait_event.h"
#include "compat.h"
#include "ipc/dispatch.h"
#include "ipc/slots.h"
#include "process/job_stop.h"
#include "process/process.h"
#include "process/record.h"
#include "process/run.h"
#include "process/slot.h"
#include "userfn/hook_failure.h"
#include "userfn/hook_limit.h"

extern PGDLLEXPORT void qml_worker_main(Datum arg);

/* Milliseconds. */
#define PROBE_INTERVAL 1000
#define RETRY_INTERVAL 1000

/* Errors in a row that are no job's, after which the worker ends. */
#define MAX_FAILURES 3

/* What the transactions of jobs rely on; all other settings are as the role has them. */
static const QmlSetting pinned[] = {
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"session_replication_role", "origin"},
	QML_PINNED_LATER{"exit_on_error", "off"},
};

static QmlSlot *slot;
static int failures = 0; /* in a row */
static volatile sig_atomic_t terminated = false;

/*
 * SIGTERM from the postmaster is a shutdown: the job may end.  From anybody else, such as
 * pg_terminate_backend(), it ends the process at once.
 */
static void
on_terminate(int number, siginfo_t *info, void *context)
{
	int saved = errno;

	if (info->si_pid == PostmasterPid)
	{
		terminated = true;
		qml_job_stop_shut_down();
		SetLatch(MyLatch);
	}
	else
		die(number);
	errno = saved;
}

/* Before signals are unblocked: qml_process_start() has installed the usual handlers. */
static void
install_terminate_handler(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_terminate;
	action.sa_flags = SA_RESTART | SA_SIGINFO;
	sigemptyset(&action.sa_mask);
	if (sigaction(SIGTERM, &action, NULL) != 0)
		elog(FATAL, "could not install the handler of SIGTERM: %m");
}

/*
 * Ends the process in good order: what it has claimed and not begun is given back.
 * asks_again: its role still has work, and gets another worker when it has its turn.
 */
pg_noreturn static void
end_worker(QmlOutcome outcome, bool asks_again)
{
	qml_run_end();
	if (asks_again)
		qml_dispatch_set_work(slot);
	qml_slot_leave(outcome);
}

/* Between two jobs: ends the worker if there is a reason.  busy: there may be jobs left. */
static void
check_between_jobs(bool busy)
{
	qml_process_handle_signals();
	qml_slots_beat(slot);
	if (terminated)
		end_worker(QML_ENDED_TERMINATED, false);
	if (qml_slot_is_disabled())
		end_worker(QML_ENDED_DISABLED, false);
	if (slot->leave || qml_slots_is_surplus(slot, qml_workers))
		end_worker(QML_ENDED_DISABLED, busy && qml_workers > 0);
	if (qml_slot_is_blocking())
		end_worker(QML_ENDED_MADE_WAY, false);
}

/* Sleeps until there is more to do.  Returns false when there was nothing for too long. */
static bool
wait_for_work(int64 idle_since, uint32 wait_event)
{
	int64 left = idle_since + (int64) qml_worker_idle_timeout * 1000 - qml_clock_monotonic_ms();

	if (qml_record_has_unrecorded())
		left = Max(left, PROBE_INTERVAL);
	/* First say that it sleeps, then look again: see ipc/dispatch.c. */
	qml_dispatch_begin_idle(slot);
	if (qml_clock_monotonic_ms() - idle_since >= PROBE_INTERVAL)
		qml_dispatch_stay_idle(slot);
	if (!qml_dispatch_has_work(slot) && left > 0)
		qml_process_sleep(Min(left, PROBE_INTERVAL), wait_event);
	qml_dispatch_end_idle(slot);
	return left > 0 || qml_dispatch_has_work(slot);
}

/*
 * A worker that sleeps does not see that the extension is dropped, if that takes no longer than its
 * sleep.  The scheduler does, and leaves: where there is none, the worker looks itself.
 */
static void
leave_if_alone(void)
{
	if (qml_slots_find_scheduler(MyDatabaseId) == NULL)
		qml_slot_leave_if_dropped();
}

/* Runs jobs, and waits for more, until the worker ends or an error that is no job's. */
static void
run_jobs(void)
{
	static uint32 wait_event = 0;
	int64 idle_since = qml_clock_monotonic_ms();

	if (wait_event == 0)
		wait_event = qml_wait_event("QmlWorkerMain");
	qml_process_begin("looking for the extension");
	qml_slot_leave_unless_extension();
	qml_hook_failure_disable_stuck();
	qml_process_commit();
	for (;;)
	{
		bool found;

		check_between_jobs(true);
		/* What comes while it searches may be behind it: then it searches once more. */
		if (!qml_run_is_searching())
			qml_dispatch_clear_work(slot);
		found = qml_run_next();
		failures = 0;
		if (found)
			idle_since = qml_clock_monotonic_ms();
		if (found || qml_run_is_searching())
			continue;
		while (!qml_dispatch_has_work(slot))
		{
			if (!wait_for_work(idle_since, wait_event))
				qml_slot_leave(QML_ENDED_IDLE);
			check_between_jobs(false);
			leave_if_alone();
			qml_run_flush();
		}
	}
}

/* Where the postmaster starts the process.  arg: the number of its slot. */
void
qml_worker_main(Datum arg)
{
	qml_process_start(install_terminate_handler);
	slot = qml_slot_enter(DatumGetInt32(arg), "qml worker");
	Assert(slot->kind == QML_WORKER && slot->role == GetSessionUserId());
	qml_hook_limit_init(qml_job_stop_is_requested, qml_process_is_late);
	qml_process_pin(pinned, lengthof(pinned));
	qml_run_init(slot);
	qml_slot_set_ready();
	for (;;)
	{
		PG_TRY();
		{
			run_jobs();
		}
		PG_CATCH();
		{
			ErrorData *error = qml_process_undo();

			qml_slot_leave_if_dropped();
			qml_process_log_error("qml worker", QML_LOG_PROCESS, error);
			/* What is wrong may be so for long: the launcher starts others later and later. */
			if (++failures >= MAX_FAILURES)
			{
				qml_dispatch_set_work(slot);
				qml_slot_leave(QML_ENDED_FAILED);
			}
		}
		PG_END_TRY();
		MemoryContextSwitchTo(TopMemoryContext);
		qml_process_sleep(RETRY_INTERVAL, qml_wait_event("QmlWorkerMain"));
	}
}
