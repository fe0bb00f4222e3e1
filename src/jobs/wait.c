/*
 * wait.c
 *		Waiting for a ready job, or for the end of one.
 *
 * The session writes into its entry in shared memory what it waits for, then looks, and
 * sleeps on its latch until another one wakes it (ipc/waiters.c).  The entry comes before the
 * look, so nothing is missed, and nothing is polled: but where another transaction has the row
 * of a ready job, which it may give back without waking anybody, a look a second follows.
 *
 * A look begins behind the jobs that earlier ones have passed over because of their methods
 * (jobs/claim_skip.c).  If it finds nothing there, one at all jobs follows, because that which
 * this session is woken for may have come in before them.  Where the backlog is long, looks at
 * all take a bounded share of the time, and the session sleeps no longer than until the next.
 *
 * Each look is a transaction of its own, and the sleep is in one that has no snapshot
 * and no lock (session_sleep.c).
 *
 * The entry is cleared in whatever way the call or the process ends; a wake-up that is not used
 * goes to another session.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "common/clock.h"
#include "common/wait_event.h"
#include "compat.h"
#include "core/state.h"
#include "ipc/waiters.h"
#include "jobs/claim.h"
#include "jobs/lookup.h"
#include "jobs/session_sleep.h"
#include "jobs/wait.h"
#include "model/acl.h"
#include "model/job.h"
#include "model/queue.h"
#include "userfn/handler.h"

/* Milliseconds.  A transaction that only had a job locked wakes nobody when it ends. */
#define LOOK_AGAIN 1000

/* After a look at all jobs there is none for so many times as long as it took. */
#define REST_FACTOR 4

/* One call. */
typedef struct Wait
{
	QmlWaitKind kind;
	const QmlWaitFor *what;
	pg_uuid_t job;
	int64 deadline; /* monotonic, milliseconds */
	bool came;
	int64 look_at;	/* look again then, unwoken: there may be a ready job; 0: there is none */
	int64 whole_at; /* no look at all jobs before */
	bool seen;		/* the job was there */
	QmlState state;
} Wait;

/* Fills this session's entry. */
static void
publish_wait(const Wait *wait)
{
	const QmlWaitFor *what = wait->what;
	uint32 *queues;
	uint32 *methods;
	int nmethods;

	if (wait->kind == QML_WAITS_FINISHED)
	{
		qml_waiters_begin_finished(&wait->job);
		return;
	}
	/* By name: a queue may come into being, or be created again, while it is waited for. */
	queues = palloc(sizeof(uint32) * (what->nqueues + 1));
	for (int i = 0; i < what->nqueues; i++)
		queues[i] = qml_queue_hash_name(what->queues[i]);
	nmethods = what->methods ? what->methods->count : 0;
	methods = palloc(sizeof(uint32) * (nmethods + 1));
	for (int i = 0; i < nmethods; i++)
		methods[i] = qml_job_hash_method(CStringGetTextDatum(what->methods->methods[i]));
	qml_waiters_begin_ready(queues, what->nqueues, methods, nmethods);
	pfree(queues);
	pfree(methods);
}

/* Clears this session's entry; also called when the process exits. */
static void
clear_wait(int code, Datum arg)
{
	qml_waiters_end();
}

/*
 * Whether there is a ready job of this kind although this session has found none.  Not asked
 * where it would have found it: the job has been taken by somebody since.  Who names no method
 * passes over jobs that have a handler, which may be newer than the wake-up.
 */
static bool
is_for_others(const QmlReadyJobs *ready, void *arg)
{
	const QmlWaitFor *what = ((Wait *) arg)->what;
	const QmlQueue *queue = qml_queue_by_id(ready->queue);
	bool looked = false;

	if (queue && what->queues == NULL)
		looked = qml_acl_allow(QML_CAN_WORK, queue->name);
	for (int i = 0; queue && i < what->nqueues && !looked; i++)
		looked = strcmp(queue->name, what->queues[i]) == 0;
	looked = looked && what->methods == NULL && !qml_handler_exist();
	return !looked && qml_claim_is_ready(ready);
}

/* Looks by a claim that takes nothing: what it sees, a fetch may get. */
static QmlMore
peek(const QmlWaitFor *what, bool whole)
{
	QmlClaim claim = {.queues = what->queues,
					  .nqueues = what->nqueues,
					  .methods = what->methods,
					  .batch = 1,
					  .peek = true,
					  .whole = whole};
	QmlMore more;

	(void) qml_claim_batch(&claim, &more);
	return more;
}

static void
look_for_ready(Wait *wait)
{
	QmlMore more = peek(wait->what, false);
	int64 now = qml_clock_monotonic_ms();

	if (more == QML_SKIPPED && now >= wait->whole_at)
	{
		int64 began = now;

		more = peek(wait->what, true);
		Assert(more != QML_SKIPPED);
		now = qml_clock_monotonic_ms();
		wait->whole_at = now + REST_FACTOR * (now - began);
	}
	wait->came = more == QML_MORE;
	wait->look_at = 0;
	if (more == QML_MAYBE_MORE)
		wait->look_at = now + LOOK_AGAIN;
	else if (more == QML_SKIPPED)
		wait->look_at = wait->whole_at;
	if (wait->came)
		qml_waiters_found(now);
	else if (more == QML_NO_MORE)
		qml_waiters_found_nothing(is_for_others, wait);
}

/* Looks for the state of the job; raises QM001 if it was never there. */
static void
look_for_end(Wait *wait)
{
	bool found = qml_lookup_state(&wait->job, &wait->state);

	/* One that was there and is not any more is finished and not kept. */
	if (!found && !wait->seen)
		qml_job_raise_missing(&wait->job);
	wait->came = !found || qml_state_is_final(wait->state);
	wait->seen = found;
}

/*
 * Sleeps until there is a reason to look: another session has woken this one, it is to look
 * for others, the last look left a doubt, or its time is over.
 */
static void
sleep_until_woken(const Wait *wait)
{
	static uint32 wait_event = 0;
	int64 end = wait->deadline;

	if (wait_event == 0)
		wait_event = qml_wait_event("QmlWait");
	if (wait->look_at != 0)
		end = Min(end, wait->look_at);
	for (;;)
	{
		int64 now = qml_clock_monotonic_ms();
		int64 until = Min(end, qml_waiters_next_look());

		if (qml_waiters_take(now) || now >= end)
			return;
		/* One that is due was taken, or has come since. */
		qml_session_sleep(Max(until - now, 0), wait_event);
	}
}

/* Looks, each time in a transaction that ends with the look, and sleeps in between. */
static void
look_and_sleep(Wait *wait)
{
	MemoryContext call = CurrentMemoryContext;
	MemoryContext look = AllocSetContextCreate(call, "qml look", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		int64 left = wait->deadline - qml_clock_monotonic_ms();

		MemoryContextSwitchTo(look);
		if (wait->kind == QML_WAITS_READY)
			look_for_ready(wait);
		else
			look_for_end(wait);
		SPI_commit();
		MemoryContextSwitchTo(call);
		MemoryContextReset(look);
		if (wait->came || left <= 0)
			return;
		sleep_until_woken(wait);
	}
}

/* Waits for at most `timeout` microseconds; the entry is cleared on each way out. */
static void
run_wait(Wait *wait, int64 timeout)
{
	wait->deadline = qml_clock_monotonic_ms() + (timeout + 999) / 1000;
	qml_session_begin_call();
	PG_ENSURE_ERROR_CLEANUP(clear_wait, (Datum) 0);
	{
		/* Who only looks answers for nothing. */
		if (timeout > 0)
			publish_wait(wait);
		/*
		 * The first look must see what was committed before the entry was filled.  In
		 * REPEATABLE READ the snapshot of the call's own transaction would not.
		 */
		SPI_commit();
		look_and_sleep(wait);
	}
	PG_END_ENSURE_ERROR_CLEANUP(clear_wait, (Datum) 0);
	clear_wait(0, (Datum) 0);
	qml_session_end_call();
}

/*
 * Waits until a job may be ready.  False when the time, in microseconds, is over.
 */
bool
qml_wait_ready(const QmlWaitFor *what, int64 timeout)
{
	Wait wait = {.kind = QML_WAITS_READY, .what = what};

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
