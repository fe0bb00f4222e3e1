/*
 * claim_state.c
 *		One call that claims, and what it does with each ready job that it finds.
 *
 * Where the jobs are found, in a list or by the index, makes no difference here.  The row is updated
 * on the spot; if another transaction has it, or was faster, the job is left and counted.
 */
#include "postgres.h"

#include "common/clock.h"
#include "common/fault.h"
#include "ipc/session_claim.h"
#include "ipc/waiters.h"
#include "jobs/claim_cursor.h"
#include "jobs/claim_state.h"
#include "jobs/ready_row.h"
#include "jobs/transition.h"
#include "model/lineage.h"

/* Jobs that are looked at behind a full batch, for one that another worker could have. */
#define MAX_LOOKED 100

/* Jobs of a queue that a session which found none looks at, for one that others may have. */
#define MAX_LOOKED_FOR_OTHERS 1000

/* Jobs or queues between two looks at the clock. */
#define VISITS_PER_LOOK 32

/*
 * The job in live.slot cannot be claimed, now or ever: it fails, so that somebody gets to
 * know.  The one case in which a claim needs a partition of the history.
 */
static TM_Result
give_up(QmlClaimState *state, QmlJob *job)
{
	qml_transition_give_up(job, "no attempt numbers are left", "attempts_exhausted", state->now);
	return qml_writer_put(&state->writer, job, false);
}

/* A job that the snapshot shows as ready cannot be had. */
static void
count_missed(QmlClaimState *state, TM_Result fate)
{
	if (fate == TM_BeingModified)
		state->held++;
	else
		state->lost++;
}

/*
 * There is a job, unless it was taken since the snapshot; if another transaction has its row,
 * it may claim it or not.
 */
static TM_Result
peek_row(QmlClaimState *state)
{
	TM_Result fate = qml_table_row_fate(state->writer.live->slot);

	if (fate != TM_Ok)
		count_missed(state, fate);
	state->full = fate == TM_Ok;
	if (state->full)
		state->more = QML_MORE;
	else if (fate == TM_BeingModified)
		state->more = QML_MAYBE_MORE;
	return fate;
}

/*
 * Claims the ready job in live.slot, unless the caller does not want it (TM_Invisible) or another
 * transaction has it, or was faster.
 */
TM_Result
qml_claim_row(QmlClaimState *state, const QmlQueue *queue)
{
	const QmlClaim *claim = state->claim;
	QmlChoice choice;
	TM_Result result;
	QmlJob job;

	Assert(!state->full && state->count < claim->batch);
	if (claim->peek)
		return peek_row(state);
	qml_job_from_live(state->writer.live->slot, &job);
	Assert(job.queue_id == queue->id);
	if (unlikely(!qml_lineage_has_next(&job)))
		return give_up(state, &job);
	choice = qml_claim_is_background(claim) ? claim->choose(&job, claim->arg) : QML_TAKE;
	if (choice == QML_STOP)
	{
		state->full = true;
		state->more = QML_MORE;
	}
	if (choice != QML_TAKE)
		return TM_Invisible;
	qml_transition_set(&job, QML_PROCESSING, state->now);
	job.worker = claim->worker;
	job.server = claim->server;
	if (claim->lease != QML_NO_LEASE)
		job.lease_expires_at = state->now +
							   (claim->lease > 0 ? claim->lease : qml_queue_lease(queue));
	result = qml_writer_put(&state->writer, &job, false);
	if (result != TM_Ok)
	{
		count_missed(state, result);
		return result;
	}
	QML_FAULT("claim.after_lock");
	if (claim->lease == QML_NO_LEASE)
		qml_session_claim_hold(&job.id);
	if (qml_claim_is_background(claim) && !state->listing)
		qml_claim_cursor_advance(&job);
	else if (!qml_claim_is_background(claim))
		qml_waiters_claimed(job.queue_id);
	claim->take(&job, claim->arg);
	state->count++;
	state->full = state->count == claim->batch;
	return TM_Ok;
}

/*
 * Whether the call is done.  A background worker whose batch is full goes on until it
 * knows whether there is more.
 */
bool
qml_claim_is_done(const QmlClaimState *state)
{
	if (state->late)
		return true;
	return state->full && (state->more != QML_NO_MORE || !qml_claim_is_background(state->claim));
}

/* Counts a job or a queue that was looked at; returns whether the time of the call is over. */
bool
qml_claim_count_visit(QmlClaimState *state)
{
	if (!qml_claim_is_background(state->claim) || ++state->visited % VISITS_PER_LOOK != 0)
		return false;
	state->late = qml_clock_ms_since(state->began) >= state->claim->limit_ms;
	return state->late;
}

/* The batch of a background worker is full: whether another one could have this job. */
void
qml_claim_look_for_more(QmlClaimState *state)
{
	QmlJob job;

	qml_job_from_live(state->writer.live->slot, &job);
	if (state->claim->wants(&job, state->claim->arg))
		state->more = QML_MORE;
	else if (++state->looked >= MAX_LOOKED)
		state->more = QML_MAYBE_MORE;
}

/* Whether this job is of the kind that is looked for. */
void
qml_claim_look_for_kind(QmlClaimState *state)
{
	QmlJob job;

	qml_job_from_live(state->writer.live->slot, &job);
	if (qml_job_hash_method(job.method) == state->claim->kind->method)
		(void) peek_row(state);
	else if (++state->looked >= MAX_LOOKED_FOR_OTHERS)
	{
		state->full = true;
		state->more = QML_MAYBE_MORE;
	}
}
