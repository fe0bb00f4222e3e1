/*
 * wait.c
 *		Waiting for a ready job, or for the end of one.
 *
 * The session writes into its entry in shared memory what it waits for, then looks, and
 * sleeps on its latch until the transaction that brings it commits and sets the latch
 * (ipc/waiters.c).  The entry comes before the look, so nothing is missed, and nothing is
 * polled.
 *
 * Each look is a transaction of its own, and the sleep is in one that has no snapshot
 * and no lock.  That is why these are procedures: a function cannot end its caller's
 * transaction.  They are refused within a transaction that they cannot end.
 *
 * The entry is cleared in whatever way the call or the process ends.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/snapmgr.h"

#include "common/clock.h"
#include "compat.h"
#include "core/state.h"
#include "errcodes.h"
#include "ipc/waiters.h"
#include "jobs/claim.h"
#include "jobs/lookup.h"
#include "jobs/wait.h"
#include "model/job.h"
#include "model/queue.h"

/* Milliseconds.  A transaction that only had a job locked wakes nobody when it ends. */
#define LOOK_AGAIN 1000

/* One call. */
typedef struct Wait
{
	QmlWaitKind kind;
	char **queues;
	int nqueues;
	pg_uuid_t job;
	int64 deadline; /* monotonic, milliseconds */
	bool came;
	bool doubtful; /* there is a ready job, but another transaction has its row */
	bool seen;	   /* the job was there */
	QmlState state;
} Wait;

/* Raises an error where the procedure cannot wait. */
void
qml_wait_check(FunctionCallInfo fcinfo, const char *procedure)
{
	if (qml_shmem == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() can wait only if qml is preloaded", procedure),
				 errhint("Add qml to shared_preload_libraries.")));
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s() cannot be called within a transaction block", procedure),
				 errdetail("It ends its transaction, so that it holds nothing while it waits.")));
}

/* Fills this session's entry. */
static void
publish_wait(const Wait *wait)
{
	int queues[QML_MAX_WAIT_QUEUES];
	int nqueues = 0;

	/* With too many queues, or one that is not there yet, all are waited for. */
	for (int i = 0; i < wait->nqueues && wait->nqueues <= QML_MAX_WAIT_QUEUES; i++)
	{
		const QmlQueue *queue = qml_queue_by_name(wait->queues[i]);

		if (queue == NULL)
		{
			nqueues = 0;
			break;
		}
		queues[nqueues++] = queue->id;
	}
	qml_waiters_begin(wait->kind, queues, nqueues, &wait->job);
}

/* Clears this session's entry; also called when the process exits. */
static void
clear_wait(int code, Datum arg)
{
	qml_waiters_end();
}

/* Looks by a claim that takes nothing: what it sees, a fetch may get. */
static void
look_for_ready(Wait *wait)
{
	QmlClaim claim = {.queues = wait->queues, .nqueues = wait->nqueues, .batch = 1, .peek = true};
	QmlMore more;

	(void) qml_claim_batch(&claim, &more);
	wait->came = more == QML_MORE;
	wait->doubtful = more == QML_MAYBE_MORE;
}

/* Looks for the state of the job; raises QM001 if it was never there. */
static void
look_for_end(Wait *wait)
{
	bool found = qml_lookup_state(&wait->job, &wait->state);

	/* One that was there and is not any more is finished and not kept. */
	if (!found && !wait->seen)
		ereport(ERROR,
				(errcode(ERRCODE_QML_JOB_NOT_FOUND),
				 errmsg("job %s does not exist", qml_job_id_string(&wait->job))));
	wait->came = !found || qml_state_is_final(wait->state);
	wait->seen = found;
}

/* Looks, each time in a transaction that ends with the look, and sleeps in between. */
static void
look_and_sleep(Wait *wait)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = qml_wait_event("QmlWait");
	for (;;)
	{
		int64 left = wait->deadline - qml_clock_monotonic_ms();

		clear_wait(0, (Datum) 0);
		publish_wait(wait);
		if (wait->kind == QML_WAITS_READY)
			look_for_ready(wait);
		else
			look_for_end(wait);
		SPI_commit();
		Assert(!HaveRegisteredOrActiveSnapshot());
		if (wait->came || left <= 0)
			return;
		if (wait->doubtful)
			left = Min(left, LOOK_AGAIN);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) Min(left, INT_MAX), wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Waits for at most `timeout` microseconds; the entry is cleared on each way out. */
static void
run_wait(Wait *wait, int64 timeout)
{
	wait->deadline = qml_clock_monotonic_ms() + (timeout + 999) / 1000;
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PG_ENSURE_ERROR_CLEANUP(clear_wait, (Datum) 0);
	{
		look_and_sleep(wait);
	}
	PG_END_ENSURE_ERROR_CLEANUP(clear_wait, (Datum) 0);
	clear_wait(0, (Datum) 0);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
}

/*
 * Waits until a job of the queues may be ready; NULL: of all that the user may work.
 * False when the time, in microseconds, is over.
 */
bool
qml_wait_ready(char **queues, int nqueues, int64 timeout)
{
	Wait wait = {.kind = QML_WAITS_READY, .queues = queues, .nqueues = nqueues};

	run_wait(&wait, timeout);
	return wait.came;
}

/*
 * Waits until a job is finished or the time is over; *state is the state it is in then.
 * False when the job is not there any more.
 */
bool
qml_wait_finished(const pg_uuid_t *id, int64 timeout, QmlState *state)
{
	Wait wait = {.kind = QML_WAITS_FINISHED, .job = *id};

	run_wait(&wait, timeout);
	*state = wait.state;
	return wait.seen;
}
