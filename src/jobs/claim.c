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
 *
 * What was finished leaves index entries behind, to the next vacuum, and the jobs of
 * other roles stand before its own.  A worker in the background that claims again and
 * again would step over all of them each time: it goes on where it was, for
 * RESUME_TIME, and then looks from the beginning, for what came in before that place;
 * also before it says that there is nothing.  Where that takes long, it goes on for
 * longer, so that it spends its time on jobs.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "common/clock.h"
#include "common/fault.h"
#include "compat.h"
#include "ipc/session_claim.h"
#include "jobs/claim.h"
#include "jobs/transition.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"

/* One call. */
typedef struct ClaimState
{
	const QmlClaim *claim;
	QmlWriter writer;
	Relation ready;
	TimestampTz now;
	int count;
	bool full;	  /* takes no more */
	QmlMore more; /* others */
	int looked;	  /* at jobs, for that */
	bool resumed; /* in the queues that have a place */
} ClaimState;

/* Where a background worker was in a queue. */
typedef struct Place
{
	int queue_id;
	int priority;
	pg_uuid_t id;
} Place;

#define MAX_PLACES 16

/* Jobs that nobody can have now, behind a full batch, until others look for more. */
#define MAX_LOOKED 100

/* Milliseconds; and how many times as long as it took to look from the beginning. */
#define RESUME_TIME		20
#define MAX_RESUME_TIME 1000
#define RESUME_FACTOR	5

/* The queues in which the last claims from the beginning, and after, found jobs. */
static Place places[MAX_PLACES];
static int nplaces = 0;
static instr_time looked_at; /* from the beginning */
static double resume_time = RESUME_TIME;

/* Where the last fetch from all queues ended, so that no queue starves. */
static int last_queue_id = 0;

static Place *
find_place(int queue_id)
{
	for (int i = 0; i < nplaces; i++)
	{
		if (places[i].queue_id == queue_id)
			return &places[i];
	}
	return NULL;
}

static void
remember_place(const QmlJob *job)
{
	Place *place = find_place(job->queue_id);

	if (place == NULL)
	{
		if (nplaces == MAX_PLACES)
			return;
		place = &places[nplaces++];
		place->queue_id = job->queue_id;
	}
	place->priority = job->priority;
	place->id = job->id;
}

/* Takes the job in live.slot, unless somebody else has it. */
static void
claim_row(ClaimState *state, const QmlQueue *queue)
{
	const QmlClaim *claim = state->claim;
	QmlChoice choice;
	QmlJob job;

	if (claim->look)
	{
		/* Whoever has it may take it, or leave it as it is. */
		state->full = !qml_table_in_hands(state->writer.live.slot);
		state->more = state->full ? QML_MORE : QML_MAYBE_MORE;
		return;
	}
	qml_job_from_live(state->writer.live.slot, &job);
	choice = claim->choose ? claim->choose(&job, claim->arg) : QML_TAKE;
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
	if (claim->choose)
		remember_place(&job);
	claim->take(&job, claim->arg);
	state->count++;
	state->full = state->count == claim->batch;
}

/* A worker in the background also wants to know whether there is more. */
static bool
is_over(const ClaimState *state)
{
	return state->full && (state->more != QML_NO_MORE || state->claim->choose == NULL);
}

/* For a background worker whose batch is full: whether the job is one for another. */
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

/* Takes ready jobs of one queue, by its key and more, until the batch is full. */
static void
claim_by_keys(ClaimState *state, const QmlQueue *queue, ScanKey keys, int nkeys)
{
	Snapshot snapshot = qml_writer_snapshot(&state->writer);
	TupleTableSlot *slot = state->writer.live.slot;
	IndexScanDesc scan = qml_index_beginscan(state->writer.live.rel, state->ready, snapshot, nkeys);

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->id));
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (!is_over(state) && index_getnext_slot(scan, ForwardScanDirection, slot))
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

/* Takes ready jobs of one queue until there are none or the batch is full. */
static void
claim_from_queue(ClaimState *state, const QmlQueue *queue)
{
	ScanKeyData keys[1];

	claim_by_keys(state, queue, keys, lengthof(keys));
}

/* The same behind a place: of its priority, and then of lower ones. */
static void
claim_behind(ClaimState *state, const QmlQueue *queue, const Place *place)
{
	Place from = *place; /* it moves on */
	ScanKeyData keys[3];

	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(from.priority));
	ScanKeyInit(&keys[2], 3, BTGreaterStrategyNumber, F_UUID_GT, UUIDPGetDatum(&from.id));
	claim_by_keys(state, queue, keys, 3);
	if (is_over(state))
		return;
	ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT4LT, Int32GetDatum(from.priority));
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

static bool
may_work(const ClaimState *state, const QmlQueue *queue)
{
	return state->claim->choose || qml_acl_allow(QML_CAN_WORK, queue->name);
}

static void
claim_from_range(ClaimState *state, int after, int upto)
{
	int id = after;

	while (!is_over(state) && (id = next_queue_id(state, id)) != 0 && id <= upto)
	{
		const QmlQueue *queue = qml_queue_find(id);
		int before = state->count;

		/* The index also has entries of a new queue that is not committed. */
		if (queue == NULL || queue->paused || !may_work(state, queue))
			continue;
		if (state->resumed && find_place(id))
			continue;
		claim_from_queue(state, queue);
		if (state->count > before)
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

/* Claims from all; when that ended, and how many milliseconds it shall not be done again. */
static double
walk_all(ClaimState *state, instr_time *ended)
{
	instr_time start;
	double pause;

	INSTR_TIME_SET_CURRENT(start);
	claim_from_all(state);
	pause = RESUME_FACTOR * qml_clock_ms_since(start);
	INSTR_TIME_SET_CURRENT(*ended);
	return Min(pause, MAX_RESUME_TIME);
}

static bool
may_resume(const ClaimState *state)
{
	return state->claim->choose && nplaces > 0 && qml_clock_ms_since(looked_at) < resume_time;
}

/* Goes on in the queues that had jobs, beginning after the one that was served last. */
static void
claim_resumed(ClaimState *state)
{
	int first = 0;

	for (int i = 0; i < nplaces; i++)
	{
		if (places[i].queue_id == last_queue_id)
			first = i + 1;
	}
	for (int i = 0; i < nplaces && !is_over(state); i++)
	{
		const Place *place = &places[(first + i) % nplaces];
		const QmlQueue *queue = qml_queue_find(place->queue_id);
		int before = state->count;

		if (queue == NULL || queue->paused)
			continue;
		claim_behind(state, queue, place);
		if (state->count > before)
			last_queue_id = queue->id;
	}
}

static void
claim_from_beginning(ClaimState *state)
{
	if (state->claim->choose == NULL)
	{
		claim_from_all(state);
		return;
	}
	nplaces = 0;
	resume_time = walk_all(state, &looked_at);
	resume_time = Max(resume_time, RESUME_TIME);
}

/*
 * The batch is full, and the queues that had jobs have no more: whether others have,
 * which nobody else may know of.  Not always at once, as above; then there may be.
 */
static void
look_elsewhere(ClaimState *state)
{
	static instr_time walked_at;
	static double walk_time = 0;

	if (qml_clock_ms_since(walked_at) < walk_time)
		state->more = QML_MAYBE_MORE;
	else
		walk_time = walk_all(state, &walked_at);
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
		qml_acl_require_any(QML_CAN_WORK);
	for (int i = 0; i < claim->nqueues; i++)
		qml_acl_require(QML_CAN_WORK, claim->queues[i]);
}

/*
 * Claims up to claim->batch jobs; returns how many.  *more, of those who choose:
 * whether there are others, if the batch is full.
 */
int
qml_claim_batch(const QmlClaim *claim, QmlMore *more)
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
	{
		state.resumed = may_resume(&state);
		if (state.resumed)
			claim_resumed(&state);
		if (state.resumed && state.full && !is_over(&state))
			look_elsewhere(&state);
		state.resumed = false;
		if (state.count == 0)
			claim_from_beginning(&state);
	}

	index_close(state.ready, NoLock);
	qml_writer_close(&state.writer);
	QML_FAULT_AT_COMMIT("claim.before_commit");
	*more = state.more;
	return state.count;
}
