/*
 * batch.c
 *		The jobs in hand: claiming them, and giving back what is not begun.
 *
 * A batch is jobs of methods that have been short lately, or one other job: nothing
 * waits here behind a long job while another worker is free.  A worker has two batches:
 * the one that it runs, and the next, which may be claimed in the transaction that ends
 * the jobs of the first, so that a group costs one commit.
 *
 * A claim without a lease is bound to the session (ipc/session_claim.c): if the process
 * ends in whatever way, its jobs are reclaimed.  A batch also holds the concurrency
 * slots of its jobs (concurrency.c).  They are in shared memory and not transactional:
 * after an error of a claim they are released by the next claim, or with the process.
 *
 * Before a job that may take long, and when the process ends, the jobs behind it are
 * released.  A job that somebody is deleting is not waited for: it stays in the batch,
 * to be run alone if the deletion is rolled back.
 *
 * Locks: rows of jobs; the functions of ipc/ take the lock of shared memory for a moment.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "ipc/dispatch.h"
#include "ipc/session_claim.h"
#include "jobs/claim.h"
#include "jobs/perform.h"
#include "jobs/writer.h"
#include "process/batch.h"
#include "process/execute.h"
#include "process/job_stop.h"
#include "process/pace.h"
#include "process/process.h"
#include "process/record.h"
#include "userfn/handler.h"
#include "userfn/hook.h"

/* How long a claim may look at jobs. */
#define CLAIM_MS QML_FAULT_LIMIT("claim.ms", 100)

/* ----- which jobs ----- */

/*
 * Whether a job may be in a group.  attempts: how many it has had, this one included if
 * it is claimed.  One that failed or was lost before must not take others with it.
 */
bool
qml_batch_may_group(const QmlJob *job, int attempts)
{
	return job->attempt - job->uncounted <= attempts && job->errors == (Datum) 0 &&
		   job->timeout_ms > QML_GROUP_MAX_MS && qml_pace_is_short(job) &&
		   !(job->uncounted > 0 && qml_session_claim_held_up_group(&job->id));
}

/* Whether the job was claimed when the server went down, and may have been the cause. */
static bool
is_poison_suspect(const QmlJob *job)
{
	return qml_job_count_errors(job, QML_SERVER_DOWN) > 0;
}

/*
 * A callback of a claim: whether this worker may take a job of a method with this hash.  It reads
 * nothing, so locks may be held.
 */
static bool
could_choose(uint64 method, void *arg)
{
	const QmlBatch *batch = arg;

	return qml_handler_runs_hash(method) &&
		   !qml_concurrency_is_refused(&batch->concurrency, (uint32) method);
}

/* A callback of a claim: whether this worker takes a job. */
static QmlChoice
choose_job(const QmlJob *job, void *arg)
{
	QmlBatch *batch = arg;
	QmlConcurrency *concurrency = &batch->concurrency;
	const QmlHandler *handler = qml_perform_handler(job);
	bool limited;
	uint32 method;
	bool suspect;

	if (handler == NULL)
		return QML_PASS_OVER;
	if (batch->count > 0 &&
		(!qml_batch_may_group(&batch->attempts[0].job, 1) || !qml_batch_may_group(job, 0) ||
		 qml_concurrency_holds(concurrency, QML_CONCURRENCY_SUSPECT)))
		return QML_STOP;
	limited = handler->options.concurrency > 0;
	method = limited ? qml_concurrency_hash(handler->method) : QML_CONCURRENCY_SUSPECT;
	if (limited && qml_concurrency_is_refused(concurrency, method))
		return QML_PASS_OVER;
	/* A suspect of a limited method needs both slots, or takes none. */
	suspect = is_poison_suspect(job);
	if (suspect && !qml_concurrency_may_acquire_suspect(concurrency))
		return QML_PASS_OVER;
	if (limited && !qml_concurrency_acquire(concurrency, method, handler->options.concurrency))
		return QML_PASS_OVER;
	if (suspect && !qml_concurrency_acquire(concurrency, QML_CONCURRENCY_SUSPECT, 1))
		return QML_PASS_OVER;
	return QML_TAKE;
}

/* A callback of a claim: whether a job that it leaves is one for another worker. */
static bool
could_be_claimed(const QmlJob *job, void *arg)
{
	QmlConcurrency *concurrency = &((QmlBatch *) arg)->concurrency;
	const QmlHandler *handler = qml_perform_handler(job);

	if (handler == NULL)
		return false;
	if (handler->options.concurrency > 0 &&
		!qml_concurrency_has_room(concurrency, qml_concurrency_hash(handler->method),
								  handler->options.concurrency))
		return false;
	return !is_poison_suspect(job) ||
		   qml_concurrency_has_room(concurrency, QML_CONCURRENCY_SUSPECT, 1);
}

/* A callback of a claim: keeps a job that was claimed. */
static void
add_job(const QmlJob *job, void *arg)
{
	QmlBatch *batch = arg;
	MemoryContext oldcontext = MemoryContextSwitchTo(batch->context);
	QmlAttempt *attempt = &batch->attempts[batch->count++];

	Assert(batch->count <= QML_GROUP_MAX_JOBS);
	memset(attempt, 0, sizeof(*attempt));
	attempt->context = batch->context;
	qml_job_copy(job, &attempt->job);
	MemoryContextSwitchTo(oldcontext);
}

/* Whether a job of the batch that is not done needs the concurrency slot. */
static bool
needs_concurrency_slot(uint32 method, void *arg)
{
	const QmlBatch *batch = arg;

	for (int i = batch->done; i < batch->count; i++)
	{
		const QmlJob *job = &batch->attempts[i].job;

		if (method == QML_CONCURRENCY_SUSPECT ?
				is_poison_suspect(job) :
				qml_concurrency_hash(TextDatumGetCString(job->method)) == method)
			return true;
	}
	return false;
}

/* ----- claiming ----- */

/* Forgets its jobs and releases their concurrency slots; the jobs' rows stay as they are. */
void
qml_batch_empty(QmlBatch *batch)
{
	qml_concurrency_release(&batch->concurrency);
	MemoryContextReset(batch->context);
	batch->count = 0;
	batch->done = 0;
}

/* In a transaction: claims jobs into a batch, which is emptied first, within so many ms. */
static void
claim_into(QmlRunner *runner, QmlBatch *batch, int limit_ms)
{
	QmlSlot *slot = runner->slot;
	QmlClaim claim = {
		.worker = CStringGetTextDatum(psprintf("qml worker %d", MyProcPid)),
		.server = CStringGetTextDatum(qml_session_claim_id()),
		.batch = qml_hook_batch_size(runner->batch_size),
		.lease = QML_NO_LEASE,
		.limit_ms = limit_ms,
		.could_choose = could_choose,
		.choose = choose_job,
		.wants = could_be_claimed,
		.take = add_job,
		.arg = batch,
	};
	QmlMore more;
	Oid role;

	Assert(IsTransactionState());
	qml_batch_empty(batch);
	if (qml_job_stop_is_shutting_down() || slot->leave)
	{
		/* It has not looked: the jobs that there may be are for itself or its successor. */
		qml_dispatch_set_work(slot);
		return;
	}
	qml_handler_know_hashes(GetSessionUserId());
	(void) qml_claim_batch(&claim, &more);
	runner->searching = more == QML_UNFINISHED;
	/*
	 * Slots of jobs that somebody else claimed first.  Two workers that wake each other
	 * at once for what neither gets would do so all the time.
	 */
	if (qml_concurrency_release_unneeded(&batch->concurrency, needs_concurrency_slot, batch, &role))
		qml_dispatch_recheck_later(role);
	if (more == QML_MORE)
		qml_dispatch_wake_helper(slot->role);
	else if (more == QML_MAYBE_MORE)
		qml_dispatch_recheck_later(slot->role);
}

/* In a transaction of its own: claims what the worker runs next. */
void
qml_batch_claim(QmlRunner *runner)
{
	QmlBatch *batch = runner->batch;

	Assert(batch->done == batch->count);
	qml_record_hold_unrecorded();
	qml_process_begin("claiming jobs");
	PG_TRY();
	{
		claim_into(runner, batch, CLAIM_MS);
		qml_process_commit();
		runner->claim_ahead_failed = false;
	}
	PG_CATCH();
	{
		/* None of them is claimed; the next claim releases their concurrency slots. */
		batch->count = batch->done = 0;
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* The batch that is not being run. */
static QmlBatch *
other_batch(QmlRunner *runner)
{
	return runner->batch == &runner->batches[0] ? &runner->batches[1] : &runner->batches[0];
}

/*
 * In the transaction that ends jobs: claims what comes next, if the jobs are the last of
 * their batch; NULL if it claims nothing now.
 */
QmlBatch *
qml_batch_claim_ahead(QmlRunner *runner, bool is_last)
{
	QmlBatch *next = other_batch(runner);

	/* What does not run at once is left to others. */
	if (!is_last || runner->batch_size == 1 || runner->spent_ms > QML_GROUP_MAX_MS ||
		runner->claim_ahead_failed)
		return NULL;
	/* Hooks for claimed jobs may take long, and their errors would undo the jobs before. */
	if (qml_hook_wanted(QML_PROCESSING))
		return NULL;
	runner->claiming_ahead = true;
	PushActiveSnapshot(GetTransactionSnapshot());
	claim_into(runner, next, QML_GROUP_MAX_MS);
	PopActiveSnapshot();
	runner->claiming_ahead = false;
	return next;
}

/*
 * After an error that undid the jobs' transaction: nothing is claimed ahead.  Returns
 * whether the error was that of a claim ahead; then none is made for now.
 */
bool
qml_batch_undo_claim_ahead(QmlRunner *runner)
{
	bool failed = runner->claiming_ahead;

	qml_batch_empty(other_batch(runner));
	runner->claim_ahead_failed = runner->claim_ahead_failed || failed;
	runner->claiming_ahead = false;
	return failed;
}

/* After the commit: goes on with the batch that was claimed ahead, if one was. */
void
qml_batch_advance(QmlRunner *runner, QmlBatch *next)
{
	const QmlConcurrency *held = &runner->batch->concurrency;
	bool released = false;

	if (next == NULL)
		return;
	Assert(next == other_batch(runner));
	for (int i = 0; i < held->nheld; i++)
		released = released || !qml_concurrency_holds(&next->concurrency, held->held[i]);
	qml_batch_empty(runner->batch);
	runner->batch = next;
	/* Others have passed over jobs that need a slot which is free only now. */
	if (released)
		qml_dispatch_wake_helper(runner->slot->role);
	qml_record_hold_unrecorded();
	for (int i = 0; i < next->count; i++)
		qml_session_claim_hold(&next->attempts[i].job.id);
}

/* ----- giving back ----- */

/*
 * In a transaction: releases jobs [first, end), also those that are to run alone if
 * `all`.  One whose row is locked stays, to be run alone.
 */
static void
release_jobs(QmlBatch *batch, int first, int end, bool all)
{
	QmlWriter writer;

	Assert(IsTransactionState());
	qml_writer_open(&writer, true, true);
	for (int i = first; i < end; i++)
	{
		QmlAttempt *attempt = &batch->attempts[i];

		if (attempt->state == QML_ATTEMPT_RUN_ALONE && !all)
			continue;
		attempt->state = QML_ATTEMPT_RELEASED;
		if (!qml_writer_try_change(&writer, &attempt->job.id, qml_attempt_finish, attempt))
			attempt->state = QML_ATTEMPT_RUN_ALONE;
	}
	qml_writer_close(&writer);
}

/* After the commit: closes the gaps in [first, end).  Returns where the rest begins. */
static int
remove_released(QmlBatch *batch, int first, int end)
{
	int kept = first;
	int left = batch->count - end;

	for (int i = first; i < end; i++)
	{
		if (batch->attempts[i].state == QML_ATTEMPT_RUN_ALONE)
			batch->attempts[kept++] = batch->attempts[i];
	}
	memmove(&batch->attempts[kept], &batch->attempts[end], left * sizeof(QmlAttempt));
	batch->count = kept + left;
	return kept;
}

/*
 * Gives back the jobs of the batch from one on, which are not begun; those that are to
 * run alone only if `all`.
 */
void
qml_batch_release_from(QmlRunner *runner, int first, bool all)
{
	QmlBatch *batch = runner->batch;

	Assert(first >= batch->done);
	while (first < batch->count)
	{
		int end;
		Oid role;

		if (batch->attempts[first].state == QML_ATTEMPT_RUN_ALONE && !all)
		{
			first++;
			continue;
		}
		qml_process_begin("releasing jobs");
		end = first + qml_hook_batch_size(batch->count - first);
		release_jobs(batch, first, end, all);
		qml_process_commit();
		first = remove_released(batch, first, end);
		/* At the commit, others were woken for the jobs when their slots were not free yet. */
		if (!qml_concurrency_release_unneeded(&batch->concurrency, needs_concurrency_slot, batch,
											  &role))
			continue;
		if (OidIsValid(role))
			qml_dispatch_wake_helper(role);
		else
			qml_dispatch_recheck_all();
	}
}
