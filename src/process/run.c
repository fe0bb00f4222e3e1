/*
 * run.c
 *		The loop's step of a worker: claim, run, record.
 *
 * A job is claimed in one transaction and run in another, which also records its end:
 * its effects and its end commit together, or not at all.  The claim is committed first,
 * so that an attempt that kills the process is counted.
 *
 * Jobs of methods that have been short lately run in groups (group.c), all others alone
 * (alone.c).  How many are claimed at a time doubles as long as they are short.
 *
 *	 runner.h		the state that these files share
 *	 batch.c		claiming, and giving back
 *	 concurrency.c	concurrency slots of the jobs in hand
 *	 pace.c			which methods are short
 *	 execute.c		calling a handler, by jobs/perform.c
 *	 job_stop.c		telling the running job to stop
 *	 jobs/attempt.c	how an attempt ends
 *	 record.c		writing that down, now or later
 *
 * An error that is no job's is raised to worker.c, which undoes the transaction and
 * calls qml_run_next() again; the batch and its jobs' states are valid at any point.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "ipc/dispatch.h"
#include "ipc/session_claim.h"
#include "process/alone.h"
#include "process/batch.h"
#include "process/execute.h"
#include "process/group.h"
#include "process/job_stop.h"
#include "process/pace.h"
#include "process/record.h"
#include "process/run.h"
#include "process/session_reset.h"
#include "userfn/current_job.h"

static QmlRunner runner;

/*
 * Notes the attempts of the batch that have begun and are being recorded: they have run,
 * and are counted.  Returns whether there are any.
 */
static bool
note_begun(const QmlBatch *batch)
{
	bool noted = false;

	for (int i = batch->done; i < batch->count; i++)
	{
		const QmlAttempt *attempt = &batch->attempts[i];

		/* The end of an attempt that is undone or released is not counted either. */
		if (!attempt->begun || attempt->state == QML_ATTEMPT_RUN_ALONE ||
			attempt->state == QML_ATTEMPT_RELEASED)
			continue;
		qml_session_claim_note_last_job(&attempt->job.id, attempt->job.attempt, QML_LOST_RUNNING);
		noted = true;
	}
	return noted;
}

/*
 * On every exit: sessions that reclaim the jobs must know which of them have begun.  Those
 * that have not keep their attempts, also if none has.
 */
static void
note_last_jobs(int code, Datum arg)
{
	const QmlBatch *batches = runner.batches;
	bool noted = qml_record_note_unrecorded();

	if (qml_job_stop_is_running())
		qml_job_stop_note_last_job();
	else if (!note_begun(runner.batch) && !noted &&
			 (batches[0].done < batches[0].count || batches[1].done < batches[1].count ||
			  qml_record_has_unrecorded()))
		qml_session_claim_note_none();
	/* The timers read the slot, which another process may get from now on. */
	qml_job_stop_disarm();
}

/*
 * Records the end of the next job of the batch, if it has run already: an error of
 * qml's own kept it from being recorded, and it must not run again.  Returns whether
 * there was one.
 */
static bool
record_ended(void)
{
	QmlBatch *batch = runner.batch;

	if (batch->done == batch->count || !batch->attempts[batch->done].ended)
		return false;
	qml_record_apart(&runner, &batch->attempts[batch->done]);
	batch->done++;
	return true;
}

/*
 * Runs jobs: the next group of those that are claimed, or the next one alone.  Returns
 * false when there are none.
 */
bool
qml_run_next(void)
{
	QmlBatch *batch = runner.batch;

	if (batch->done == batch->count)
		qml_batch_claim(&runner);
	if (batch->count == 0)
		return false;
	runner.spent_ms = 0;
	qml_record_flush_if_due(&runner);
	if (!record_ended())
	{
		bool in_group = qml_group_looks_short(&batch->attempts[batch->done]);

		/* A job that runs alone may take long: others get what is behind it. */
		if (!in_group)
			qml_batch_release_from(&runner, batch->done + 1, false);
		/*
		 * A commit of the claim, or of what was recorded or released, may have waited for
		 * a standby, and been told to end: before a job begins.
		 */
		CHECK_FOR_INTERRUPTS();
		if (in_group)
			qml_group_run(&runner);
		else
			qml_alone_run(&runner);
	}
	/* More at a time while they are short: nobody else can run what is claimed here. */
	runner.batch_size = runner.spent_ms <= QML_GROUP_MAX_MS ?
							Min(runner.batch_size * 2, QML_GROUP_MAX_JOBS) :
							1;
	if (runner.batch_size == 1)
		qml_batch_release_from(&runner, runner.batch->done, false);
	return true;
}

/*
 * Whether the last claim found nothing, and has not come to the end of the jobs: it goes on with
 * qml_run_next().
 */
bool
qml_run_is_searching(void)
{
	return runner.searching;
}

/* Between jobs: records what could not be recorded before, if it is time. */
void
qml_run_flush(void)
{
	qml_record_flush_if_due(&runner);
}

/*
 * Before the process ends: records what is over, gives back what is claimed and not
 * begun.  A job that somebody is deleting all that time is lost with the process.
 */
void
qml_run_end(void)
{
	QmlBatch *batch = runner.batch;
	int left;

	(void) record_ended();
	qml_batch_release_from(&runner, batch->done, true);
	for (; batch->done < batch->count; batch->done++)
	{
		batch->attempts[batch->done].state = QML_ATTEMPT_RELEASED;
		qml_record_postpone(&batch->attempts[batch->done]);
	}
	left = qml_record_flush(&runner, QML_RECORD_WAIT_MS);
	if (left > 0)
		ereport(LOG, (errmsg("qml worker exits with jobs that another transaction is deleting: %d",
							 left)));
	/* Others of its role may need the slots, and are woken when it has gone. */
	if (batch->concurrency.nheld > 0)
		qml_dispatch_set_work(runner.slot);
	qml_batch_empty(batch);
}

/* Once in a worker, when it has its slot and is connected. */
void
qml_run_init(QmlSlot *slot)
{
	Assert(runner.slot == NULL && !IsTransactionState());
	runner.slot = slot;
	runner.batch = &runner.batches[0];
	runner.batch_size = 1;
	runner.job_context = AllocSetContextCreate(TopMemoryContext, "qml job", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < (int) lengthof(runner.batches); i++)
	{
		runner.batches[i].context = AllocSetContextCreate(TopMemoryContext, "qml jobs",
														  ALLOCSET_DEFAULT_SIZES);
		runner.batches[i].concurrency.worker = slot;
	}
	before_shmem_exit(note_last_jobs, (Datum) 0);
	qml_session_reset_init();
	qml_current_job_init(slot);
	qml_job_stop_init(slot);
	qml_pace_init();
	qml_execute_init();
}
