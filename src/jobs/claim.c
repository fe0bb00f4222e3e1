/*
 * claim.c
 *		Giving out jobs: ready ones become processing, each to one worker.
 *
 * There is no planner and no executor.  The index live_ready is walked in the order in
 * which jobs are to be claimed, and each enqueued row is updated on the spot without
 * waiting; a row that another transaction is changing is skipped.  So a claim never
 * sorts, never reads the backlog, never takes more than its batch, and never waits for
 * a row lock, whatever the statistics say.
 *
 * The update changes no indexed column: the index covers enqueued and processing
 * rows alike, and a claim is a HOT update while its page has room.
 *
 * A background worker that claims again and again resumes where it stopped
 * (jobs/claim_cursor.c), and wants to know whether it left jobs for other workers.
 *
 * A claim is the caller's transaction.  A crash before its commit leaves the jobs
 * enqueued and gives no attempt number away; after it they are processing, until their
 * lease or their session ends (maintenance/reclaim.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"

#include "common/clock.h"
#include "common/fault.h"
#include "compat.h"
#include "ipc/session_claim.h"
#include "jobs/claim.h"
#include "jobs/claim_cursor.h"
#include "jobs/transition.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"

/* Jobs that are looked at behind a full batch, for one that another worker could have. */
#define MAX_LOOKED 100

/* One call. */
typedef struct ClaimState
{
	const QmlClaim *claim;
	QmlWriter writer;
	Relation ready;
	TimestampTz now;
	int count;
	bool full;	   /* takes no more */
	QmlMore more;  /* whether there are jobs for others */
	int looked;	   /* how many were looked at for that */
	bool resuming; /* queues that have a cursor are done */
} ClaimState;

/* Where the last claim from all queues ended, so that no queue starves. */
static int last_queue_id = 0;

/* Whether a background worker claims, which needs no rights. */
static bool
is_background(const QmlClaim *claim)
{
	return claim->choose != NULL;
}

/*
 * Claims the ready job in live.slot, unless the caller does not want it or another
 * transaction has it.
 */
static void
claim_row(ClaimState *state, const QmlQueue *queue)
{
	const QmlClaim *claim = state->claim;
	QmlChoice choice;
	QmlJob job;

	Assert(!state->full && state->count < claim->batch);
	if (claim->peek)
	{
		/* Another transaction has it, and may claim it or not. */
		state->full = !qml_table_is_row_locked(state->writer.live.slot);
		state->more = state->full ? QML_MORE : QML_MAYBE_MORE;
		return;
	}
	qml_job_from_live(state->writer.live.slot, &job);
	Assert(job.queue_id == queue->id);
	choice = is_background(claim) ? claim->choose(&job, claim->arg) : QML_TAKE;
	if (choice == QML_STOP)
	{
		state->full = true;
		state->more = QML_MORE;
	}
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
		qml_session_claim_hold(&job.id);
	if (is_background(claim))
		qml_claim_cursor_advance(&job);
	claim->take(&job, claim->arg);
	state->count++;
	state->full = state->count == claim->batch;
}

/*
 * Whether the call is done.  A background worker whose batch is full goes on until it
 * knows whether there is more.
 */
static bool
is_done(const ClaimState *state)
{
	return state->full && (state->more != QML_NO_MORE || !is_background(state->claim));
}

/* The batch of a background worker is full: whether another one could have this job. */
static void
look_for_more(ClaimState *state)
{
	QmlJob job;

	qml_job_from_live(state->writer.live.slot, &job);
	if (state->claim->wants(&job, state->claim->arg))
		state->more = QML_MORE;
	else if (++state->looked >= MAX_LOOKED)
		state->more = QML_MAYBE_MORE;
}

/*
 * Claims ready jobs of one queue until there are none or the call is done.  keys[0] is
 * filled in here; the others say where in the queue to look.
 */
static void
claim_by_keys(ClaimState *state, const QmlQueue *queue, ScanKey keys, int nkeys)
{
	Snapshot snapshot = qml_writer_snapshot(&state->writer);
	TupleTableSlot *slot = state->writer.live.slot;
	IndexScanDesc scan = qml_index_beginscan(state->writer.live.rel, state->ready, snapshot, nkeys);

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->id));
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (!is_done(state) && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (qml_job_live_state(slot) != QML_ENQUEUED)
			continue;
		if (state->full)
			look_for_more(state);
		else
			claim_row(state, queue);
	}
	index_endscan(scan);
}

/* The same from the beginning of the queue. */
static void
claim_from_queue(ClaimState *state, const QmlQueue *queue)
{
	ScanKeyData keys[1];

	claim_by_keys(state, queue, keys, lengthof(keys));
}

/* The same behind a cursor: the rest of its priority, then lower ones. */
static void
claim_behind_cursor(ClaimState *state, const QmlQueue *queue, const QmlClaimCursor *cursor)
{
	ScanKeyData keys[3];

	Assert(cursor->queue_id == queue->id);
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(cursor->priority));
	ScanKeyInit(&keys[2], 3, BTGreaterStrategyNumber, F_UUID_GT, UUIDPGetDatum(&cursor->id));
	claim_by_keys(state, queue, keys, 3);
	if (is_done(state))
		return;
	ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT4LT, Int32GetDatum(cursor->priority));
	claim_by_keys(state, queue, keys, 2);
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

/* Claims from the queues that have jobs, with ids above `after`, up to `upto`. */
static void
claim_from_range(ClaimState *state, int after, int upto)
{
	int id = after;

	while (!is_done(state) && (id = next_queue_id(state, id)) != 0 && id <= upto)
	{
		const QmlQueue *queue = qml_queue_by_id(id);
		int before = state->count;

		/* The index also has entries of a new queue that is not committed. */
		if (queue == NULL || queue->paused)
			continue;
		/* Background workers ask for no rights. */
		if (!is_background(state->claim) && !qml_acl_allow(QML_CAN_WORK, queue->name))
			continue;
		if (state->resuming && qml_claim_cursor_has(id))
			continue;
		claim_from_queue(state, queue);
		if (state->count > before)
			last_queue_id = id;
	}
}

/* Claims from all queues that have jobs, beginning after the one that was served last. */
static void
claim_from_all(ClaimState *state)
{
	int start = last_queue_id;

	claim_from_range(state, start, INT_MAX);
	if (start > 0)
		claim_from_range(state, 0, start);
}

/* The same for a background worker, which remembers how long it takes. */
static void
walk_all(ClaimState *state, QmlWalk walk)
{
	instr_time start;

	INSTR_TIME_SET_CURRENT(start);
	claim_from_all(state);
	qml_claim_cursor_walked(walk, qml_clock_ms_since(start));
}

/*
 * Resumes in the queues that had jobs, beginning after the one that was served last.
 * Then, if the batch is full and they have no more: other queues may have jobs that no
 * other worker knows of.  If they were looked at lately, the answer is "maybe".
 */
static void
claim_resuming(ClaimState *state)
{
	QmlClaimCursor cursors[QML_MAX_CURSORS];
	int count = qml_claim_cursor_list(cursors);
	int first = 0;

	for (int i = 0; i < count; i++)
	{
		if (cursors[i].queue_id == last_queue_id)
			first = i + 1;
	}
	for (int i = 0; i < count && !is_done(state); i++)
	{
		const QmlClaimCursor *cursor = &cursors[(first + i) % count];
		const QmlQueue *queue = qml_queue_by_id(cursor->queue_id);
		int before = state->count;

		if (queue == NULL || queue->paused)
			continue;
		claim_behind_cursor(state, queue, cursor);
		if (state->count > before)
			last_queue_id = queue->id;
	}
	if (!state->full || is_done(state))
		return;
	if (qml_claim_cursor_is_recent(QML_WALK_TO_LOOK))
		state->more = QML_MAYBE_MORE;
	else
	{
		state->resuming = true;
		walk_all(state, QML_WALK_TO_LOOK);
		state->resuming = false;
	}
}

/* All queues, for a background worker. */
static void
claim_for_worker(ClaimState *state)
{
	if (qml_claim_cursor_is_recent(QML_WALK_TO_CLAIM))
		claim_resuming(state);
	if (state->count > 0)
		return;
	qml_claim_cursor_reset();
	walk_all(state, QML_WALK_TO_CLAIM);
}

/* The queues in the order given; claims end with a full batch. */
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

/*
 * Claims up to claim->batch jobs; returns how many.  *more, for a background worker and
 * for one who only peeks: whether there are others.
 */
int
qml_claim_batch(const QmlClaim *claim, QmlMore *more)
{
	ClaimState state = {.claim = claim};

	Assert(claim->batch > 0);
	Assert(!is_background(claim) || (claim->wants && claim->queues == NULL));
	(void) qml_catalog_to_work();
	if (!is_background(claim))
	{
		if (claim->queues == NULL)
			qml_acl_require_any(QML_CAN_WORK);
		for (int i = 0; i < claim->nqueues; i++)
			qml_acl_require(QML_CAN_WORK, claim->queues[i]);
	}
	qml_writer_open(&state.writer, false, is_background(claim));
	/* After the snapshot is taken: no job begins before the time at which it was due. */
	(void) qml_writer_snapshot(&state.writer);
	state.now = GetCurrentTimestamp();
	state.ready = index_open(qml_catalog()->live_ready, RowExclusiveLock);

	if (claim->queues)
		claim_from_list(&state);
	else if (is_background(claim))
		claim_for_worker(&state);
	else
		claim_from_all(&state);

	index_close(state.ready, NoLock);
	qml_writer_close(&state.writer);
	QML_FAULT_AT_COMMIT("claim.before_commit");
	*more = state.more;
	return state.count;
}
