/*
 * claim.c
 *		Giving out jobs: ready ones become processing, each to one worker.
 *
 * No planner and no executor: the index live_ready is walked in the order in
 * which jobs are to be claimed, and each enqueued row is updated on the spot
 * without waiting.  A row that somebody else has is passed over.  So a claim
 * never sorts, never reads the backlog, never takes more than its batch and never
 * waits for a lock, whatever the statistics say.
 *
 * The update changes no indexed column: the index covers enqueued and processing
 * rows alike, and a claim is a HOT update while its page has room.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "catalog.h"
#include "claim.h"
#include "compat.h"
#include "fault.h"
#include "queue.h"
#include "rights.h"
#include "session.h"
#include "transition.h"

/* One call. */
typedef struct ClaimState
{
	const QmlClaim *claim;
	QmlWriter writer;
	Relation ready;
	TimestampTz now;
	int count;
	bool full; /* takes no more */
	bool more; /* there are others */
} ClaimState;

/* Where the last fetch from all queues ended, so that no queue starves. */
static int last_queue_id = 0;

/* Takes the job in live.slot, unless somebody else has it. */
static void
claim_row(ClaimState *state, const QmlQueue *queue)
{
	const QmlClaim *claim = state->claim;
	QmlChoice choice;
	QmlJob job;

	if (claim->look)
	{
		state->full = state->more = true;
		return;
	}
	qml_job_from_live(state->writer.live.slot, &job);
	choice = claim->choose ? claim->choose(&job, claim->arg) : QML_TAKE;
	if (choice == QML_STOP)
		state->full = state->more = true;
	if (choice != QML_TAKE)
		return;
	qml_transition_set(&job, QML_PROCESSING, state->now);
	job.worker = claim->worker;
	job.server = claim->server;
	if (claim->lease != QML_NO_LEASE)
		job.lease_expires_at = state->now +
							   (claim->lease > 0 ? claim->lease : qml_queue_lease(queue));
	if (qml_writer_put(&state->writer, &job, false) != TM_Ok)
		return;
	QML_FAULT("claim.after_lock");
	if (claim->lease == QML_NO_LEASE)
		qml_session_hold(&job.id);
	claim->take(&job, claim->arg);
	state->count++;
	state->full = state->count == claim->batch;
}

/* A worker in the background also wants to know whether there is more. */
static bool
is_over(const ClaimState *state)
{
	return state->full && (state->more || state->claim->choose == NULL);
}

/* For a background worker whose batch is full: whether there is one more for it. */
static bool
is_more(ClaimState *state)
{
	QmlJob job;

	qml_job_from_live(state->writer.live.slot, &job);
	return state->claim->choose(&job, state->claim->arg) != QML_PASS_OVER;
}

/* Takes ready jobs of one queue until there are none or the batch is full. */
static void
claim_from_queue(ClaimState *state, const QmlQueue *queue)
{
	Snapshot snapshot = qml_writer_snapshot(&state->writer);
	TupleTableSlot *slot = state->writer.live.slot;
	IndexScanDesc scan = qml_index_beginscan(state->writer.live.rel, state->ready, snapshot, 1);
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->id));
	index_rescan(scan, &key, 1, NULL, 0);
	while (!is_over(state) && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (qml_job_live_state(slot) != QML_ENQUEUED)
			continue;
		if (state->full)
			state->more = is_more(state);
		else
			claim_row(state, queue);
	}
	index_endscan(scan);
}

/* The lowest queue id above `after` that the index has an entry for; 0: none. */
static int
next_queue_id(ClaimState *state, int after)
{
	Snapshot snapshot = qml_writer_snapshot(&state->writer);
	IndexScanDesc scan = qml_index_beginscan(state->writer.live.rel, state->ready, snapshot, 1);
	ScanKeyData key;
	int id = 0;

	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT4GT, Int32GetDatum(after));
	scan->xs_want_itup = true;
	index_rescan(scan, &key, 1, NULL, 0);
	if (index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		bool isnull;

		id = DatumGetInt32(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull));
	}
	index_endscan(scan);
	return id;
}

static bool
may_work(const ClaimState *state, const QmlQueue *queue)
{
	return state->claim->choose || qml_rights_allow(QML_CAN_WORK, queue->name);
}

static void
claim_from_range(ClaimState *state, int after, int upto)
{
	int id = after;

	while (!state->full && (id = next_queue_id(state, id)) != 0 && id <= upto)
	{
		const QmlQueue *queue = qml_queue_find(id);

		/* The index also has entries of a new queue that is not committed. */
		if (queue == NULL || queue->paused || !may_work(state, queue))
			continue;
		claim_from_queue(state, queue);
		if (state->count > 0)
			last_queue_id = id;
	}
}

/* All queues that have jobs, beginning after the one that was served last. */
static void
claim_from_all(ClaimState *state)
{
	int start = last_queue_id;

	claim_from_range(state, start, INT_MAX);
	if (start > 0)
		claim_from_range(state, 0, start);
}

static void
claim_from_list(ClaimState *state)
{
	for (int i = 0; i < state->claim->nqueues && !state->full; i++)
	{
		const QmlQueue *queue = qml_queue_by_name(state->claim->queues[i]);

		if (queue && !queue->paused)
			claim_from_queue(state, queue);
	}
}

static void
check_rights(const QmlClaim *claim)
{
	if (claim->choose)
		return;
	if (claim->queues == NULL)
		qml_rights_require_any(QML_CAN_WORK);
	for (int i = 0; i < claim->nqueues; i++)
		qml_rights_require(QML_CAN_WORK, claim->queues[i]);
}

/*
 * Claims up to claim->batch jobs; returns how many.  *more, of those who choose:
 * whether there are others in the last queue.
 */
int
qml_claim_batch(const QmlClaim *claim, bool *more)
{
	ClaimState state = {.claim = claim};

	(void) qml_catalog_to_work();
	check_rights(claim);
	qml_writer_open(&state.writer, false, claim->choose != NULL);
	/* After the snapshot is taken: no job begins before the time at which it was due. */
	(void) qml_writer_snapshot(&state.writer);
	state.now = GetCurrentTimestamp();
	state.ready = index_open(qml_catalog()->live_ready, RowExclusiveLock);

	if (claim->queues)
		claim_from_list(&state);
	else
		claim_from_all(&state);

	index_close(state.ready, NoLock);
	qml_writer_close(&state.writer);
	QML_FAULT_AT_COMMIT("claim.before_commit");
	*more = state.more;
	return state.count;
}
