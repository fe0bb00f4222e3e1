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
 * Most claims find the jobs without the index, in the lists of ready jobs in shared memory
 * (jobs/claim_list.c).  What follows is about those that cannot.
 *
 * A background worker that claims again and again resumes where it stopped
 * (jobs/claim_cursor.c), and wants to know whether it left jobs for other workers.  It passes
 * over the jobs of methods that it has no handler for.  There can be any number of them, so
 * a call of it has a time limit: what is behind is looked at by the next one, which is
 * another transaction.
 *
 * A worker outside the database may pass over jobs because of their methods
 * (jobs/claim_filter.c), and then begins where it has not passed over them yet
 * (jobs/claim_skip.c).
 *
 * A claim is the caller's transaction.  A crash before its commit leaves the jobs
 * enqueued and gives no attempt number away; after it, which is not before the WAL is on
 * the disk (jobs/writer.c), they are processing, until their lease or their session ends
 * (maintenance/reclaim.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"

#include "common/clock.h"
#include "common/fault.h"
#include "compat.h"
#include "ipc/ready_note.h"
#include "ipc/ready_queues.h"
#include "ipc/session_claim.h"
#include "ipc/waiters.h"
#include "jobs/claim.h"
#include "jobs/claim_cursor.h"
#include "jobs/claim_filter.h"
#include "jobs/claim_list.h"
#include "jobs/claim_skip.h"
#include "jobs/ready_index.h"
#include "jobs/ready_row.h"
#include "jobs/transition.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/lineage.h"
#include "model/queue.h"

/* Jobs that are looked at behind a full batch, for one that another worker could have. */
#define MAX_LOOKED 100

/* Jobs of a queue that a session which found none looks at, for one that others may have. */
#define MAX_LOOKED_FOR_OTHERS 1000

/* Jobs or queues between two looks at the clock. */
#define VISITS_PER_LOOK 32

/* One call. */
typedef struct ClaimState
{
	const QmlClaim *claim;
	QmlClaimFilter filter;
	QmlWriter writer;
	Relation ready;				  /* of the tables that the writer works on */
	Relation indexes[QML_STORES]; /* NULL: not open yet */
	TimestampTz now;
	int count;
	bool has_lists;	 /* queues have lists of ready jobs */
	bool incomplete; /* some did not have all */
	bool skipped;	 /* some jobs were not looked at, because of what earlier claims saw */
	bool full;		 /* takes no more */
	QmlMore more;	 /* whether there are jobs for others */
	int looked;		 /* how many were looked at for that */
	bool resuming;	 /* queues that have a cursor are done */

	/* Of a background worker. */
	instr_time began;
	unsigned visited;  /* jobs and queues */
	bool late;		   /* its time is over */
	QmlClaimPlace end; /* how far it has come then */
} ClaimState;

/* A walk over a part of a queue, for a claim with a filter. */
typedef struct Walk
{
	int most;	 /* rows to look at; 0: no limit */
	bool beyond; /* what it passes over was not looked at before */
	bool stops;	 /* at a priority of which some is skipped: written to `skip` */
	QmlSkip skip;
	QmlSkipTrail trail;
	QmlReadyKey last; /* looked at */
} Walk;

/* How it ended. */
typedef enum WalkEnd
{
	WALK_THROUGH = 0, /* there is nothing more */
	WALK_STOPPED,	  /* as told */
	WALK_CLAIMED	  /* the call is done */
} WalkEnd;

/* Where the last claim from all queues ended, so that no queue starves. */
static int last_queue_id = 0;

/* Goes to the tables of a storage class. */
static void
turn_to_store(ClaimState *state, QmlStoreId store)
{
	if (state->indexes[store] == NULL || state->writer.store != store)
		qml_writer_turn(&state->writer, store);
	if (state->indexes[store] == NULL)
		state->indexes[store] = index_open(qml_store(store)->live_ready, state->writer.lockmode);
	state->ready = state->indexes[store];
}

/* Goes to the tables that have the jobs of a queue. */
static void
turn_to_queue(ClaimState *state, const QmlQueue *queue)
{
	turn_to_store(state, qml_queue_store(queue));
}

/* Whether a background worker claims, which needs no rights. */
static bool
is_background(const QmlClaim *claim)
{
	return claim->choose != NULL;
}

/*
 * The job in live.slot cannot be claimed, now or ever: it fails, so that somebody gets to
 * know.  The one case in which a claim needs a partition of the history.
 */
static TM_Result
give_up(ClaimState *state, QmlJob *job)
{
	qml_transition_give_up(job, "no attempt numbers are left", "attempts_exhausted", state->now);
	return qml_writer_put(&state->writer, job, false);
}

/*
 * There is a job, unless it was taken since the snapshot; if another transaction has its row,
 * it may claim it or not.
 */
static TM_Result
peek_row(ClaimState *state)
{
	TM_Result fate = qml_table_row_fate(state->writer.live->slot);

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
static TM_Result
claim_row(ClaimState *state, const QmlQueue *queue)
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
	choice = is_background(claim) ? claim->choose(&job, claim->arg) : QML_TAKE;
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
		return result;
	QML_FAULT("claim.after_lock");
	if (claim->lease == QML_NO_LEASE)
		qml_session_claim_hold(&job.id);
	if (is_background(claim) && !state->has_lists)
		qml_claim_cursor_advance(&job);
	else if (!is_background(claim))
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
static bool
is_done(const ClaimState *state)
{
	if (state->late)
		return true;
	return state->full && (state->more != QML_NO_MORE || !is_background(state->claim));
}

/* Counts a job or a queue that was looked at; returns whether the time of the call is over. */
static bool
count_visit(ClaimState *state)
{
	if (!is_background(state->claim) || ++state->visited % VISITS_PER_LOOK != 0)
		return false;
	state->late = qml_clock_ms_since(state->began) >= state->claim->limit_ms;
	return state->late;
}

/* The time is over: remembers the job in live.slot, behind which the next call goes on. */
static void
end_behind_job(ClaimState *state, const QmlQueue *queue)
{
	state->end.in_queue = true;
	state->end.cursor.queue_id = queue->id;
	state->end.cursor.key = qml_ready_row_place(state->writer.live->slot);
}

/* The batch of a background worker is full: whether another one could have this job. */
static void
look_for_more(ClaimState *state)
{
	QmlJob job;

	qml_job_from_live(state->writer.live->slot, &job);
	if (state->claim->wants(&job, state->claim->arg))
		state->more = QML_MORE;
	else if (++state->looked >= MAX_LOOKED)
		state->more = QML_MAYBE_MORE;
}

/* Whether this job is of the kind that is looked for. */
static void
look_for_kind(ClaimState *state)
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

/* Claims ready jobs of one queue, by these keys, until there are none or the call is done. */
static void
claim_by_keys(ClaimState *state, const QmlQueue *queue, ScanKey keys, int nkeys)
{
	TupleTableSlot *slot = state->writer.live->slot;
	IndexScanDesc scan = qml_ready_index_begin(&state->writer, state->ready, queue->id, keys,
											   nkeys);

	/* After the snapshot is taken: no job begins before the time at which it was due. */
	state->now = GetCurrentTimestamp();
	while (!is_done(state) && qml_table_next(state->writer.live, scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (qml_job_live_state(slot) == QML_ENQUEUED)
		{
			if (state->full)
				look_for_more(state);
			else if (state->claim->kind)
				look_for_kind(state);
			else
				(void) claim_row(state, queue);
		}
		if (count_visit(state))
			end_behind_job(state, queue);
	}
	index_endscan(scan);
}

/* The same for a claim with a filter; the walk says for how long. */
static WalkEnd
claim_filtered_by_keys(ClaimState *state, const QmlQueue *queue, ScanKey keys, int nkeys,
					   Walk *walk)
{
	TupleTableSlot *slot = state->writer.live->slot;
	IndexScanDesc scan = qml_ready_index_begin(&state->writer, state->ready, queue->id, keys,
											   nkeys);
	WalkEnd end = WALK_THROUGH;
	int looked = 0;
	int current = 0;

	state->now = GetCurrentTimestamp();
	while (!is_done(state) && qml_table_next(state->writer.live, scan))
	{
		QmlReadyKey key;

		CHECK_FOR_INTERRUPTS();
		key = qml_ready_row_place(slot);
		if (walk->stops && (looked == 0 || key.priority != current) &&
			qml_claim_skip_find(state->filter.key, queue->id, key.priority, &walk->skip) &&
			qml_ready_compare(&key, &walk->skip.front) <= 0)
		{
			end = WALK_STOPPED;
			break;
		}
		current = key.priority;
		walk->last = key;
		if (qml_job_live_state(slot) == QML_ENQUEUED &&
			qml_claim_filter_passes(&state->filter, slot))
			(void) claim_row(state, queue);
		if (walk->beyond && state->count == 0)
			qml_claim_skip_pass(&walk->trail, state->filter.key, queue->id, &key);
		if (++looked == walk->most)
		{
			end = WALK_STOPPED;
			break;
		}
	}
	index_endscan(scan);
	return is_done(state) ? WALK_CLAIMED : end;
}

/* Looks again at some of the jobs that are skipped, which come before all others of theirs. */
static WalkEnd
claim_again(ClaimState *state, const QmlQueue *queue, const QmlSkip *skip)
{
	Walk walk = {.most = qml_claim_skip_sweep_rows(skip)};
	ScanKeyData keys[QML_READY_INDEX_KEYS];
	int nkeys = qml_ready_index_upto(keys, &skip->front, skip->sweeping ? &skip->swept : NULL);
	WalkEnd end;

	end = claim_filtered_by_keys(state, queue, keys, nkeys, &walk);
	qml_claim_skip_swept(skip, end == WALK_THROUGH ? NULL : &walk.last);
	state->skipped = state->skipped || skip->sweeping || end != WALK_THROUGH;
	return end;
}

/*
 * Claims from one queue with a filter: as claim_from_queue(), but for what earlier claims
 * have passed over.
 */
static void
claim_filtered(ClaimState *state, const QmlQueue *queue)
{
	ScanKeyData keys[3];
	int nkeys = 1;

	for (;;)
	{
		Walk walk = {.beyond = true, .stops = true};
		Walk rest = {.beyond = true};
		const QmlSkip *skip = &walk.skip;

		if (claim_filtered_by_keys(state, queue, keys, nkeys, &walk) != WALK_STOPPED ||
			claim_again(state, queue, skip) == WALK_CLAIMED)
			return;
		nkeys = qml_ready_index_rest(keys, &skip->front, false);
		if (claim_filtered_by_keys(state, queue, keys, nkeys, &rest) == WALK_CLAIMED)
			return;
		nkeys = qml_ready_index_below(keys, &skip->front);
	}
}

/* How the list of a queue is gone through, and by which match. */
static void
begin_list(ClaimState *state, const QmlQueue *queue, QmlClaimList *list)
{
	QmlListPass pass = QML_LIST_TAKE;
	QmlReadyMatch match = NULL;
	void *arg = NULL;

	if (state->claim->peek)
		pass = QML_LIST_PEEK;
	else if (is_background(state->claim))
		pass = QML_LIST_CHOOSE;
	if (state->filter.key != 0)
	{
		match = qml_claim_filter_passes_hash;
		arg = &state->filter;
	}
	else if (is_background(state->claim) && !queue->own)
	{
		match = state->claim->could_choose;
		arg = state->claim->arg;
	}
	qml_claim_list_begin(list, &state->writer, state->ready, queue->id, pass, match, arg);
}

/*
 * Claims from a queue by its list; false: there may be more, for which the index is searched.  A
 * background worker whose batch is full looks at the jobs behind it.
 */
static bool
claim_by_list(ClaimState *state, const QmlQueue *queue, QmlReadyBound *bound)
{
	QmlClaimList list;
	bool all;

	begin_list(state, queue, &list);
	while (!is_done(state) &&
		   qml_claim_list_next(&list, Max(1, state->claim->batch - state->count)))
	{
		TM_Result result = TM_Invisible;

		/* No job begins before the time at which it was due. */
		state->now = GetCurrentTimestamp();
		if (state->full)
			look_for_more(state);
		else if (state->filter.key == 0 ||
				 qml_claim_filter_passes(&state->filter, state->writer.live->slot))
			result = claim_row(state, queue);
		qml_claim_list_judge(&list, result);
		(void) count_visit(state);
	}
	all = qml_claim_list_end(&list);
	*bound = list.bound;
	return all;
}

/*
 * Claims from a queue by the index, behind a job or from it on: the rest of its priority, then lower
 * ones.
 */
static void
claim_from_place(ClaimState *state, const QmlQueue *queue, const QmlReadyKey *key, bool with_key)
{
	ScanKeyData keys[QML_READY_INDEX_KEYS];

	claim_by_keys(state, queue, keys, qml_ready_index_rest(keys, key, with_key));
	if (!is_done(state))
		claim_by_keys(state, queue, keys, qml_ready_index_below(keys, key));
}

/* Whether there are lists of queues whose jobs are in the tables at work. */
static bool
has_lists_here(ClaimState *state)
{
	return state->has_lists &&
		   (state->writer.store == QML_STORE_LOGGED || qml_claim_list_usable(&state->writer));
}

/* Claims from the beginning of a queue. */
static void
claim_from_queue(ClaimState *state, const QmlQueue *queue)
{
	ScanKeyData keys[1];
	Walk whole = {.most = 0};

	turn_to_queue(state, queue);
	/* No list has yet what this transaction has made. */
	if (has_lists_here(state) && !qml_ready_note_has_made(queue->id))
	{
		QmlReadyBound bound;

		if (claim_by_list(state, queue, &bound) || is_done(state))
			return;
		/* Workers search the index by their cursors: see claim_for_worker(). */
		if (is_background(state->claim))
		{
			state->incomplete = true;
			return;
		}
		/* It sees what was claimed already. */
		(void) qml_writer_new_snapshot(&state->writer);
		if (state->filter.key == 0 && bound.reach == QML_REACH_KEY)
		{
			claim_from_place(state, queue, &bound.key, true);
			return;
		}
	}
	if (state->filter.key != 0 && state->claim->whole)
		(void) claim_filtered_by_keys(state, queue, keys, lengthof(keys), &whole);
	else if (state->filter.key != 0)
		claim_filtered(state, queue);
	else
		claim_by_keys(state, queue, keys, lengthof(keys));
}

/* The lowest queue id above `after` that an index has an entry for; 0: none. */
static int
search_next_queue(ClaimState *state, int after)
{
	int lowest = 0;

	for (int i = 0; i < qml_stores_in_use(); i++)
	{
		int id;

		turn_to_store(state, i);
		id = qml_ready_index_next_queue(&state->writer, state->ready, after);
		if (id != 0 && (lowest == 0 || id < lowest))
			lowest = id;
	}
	return lowest;
}

/* The lowest queue id above `after` that may have ready jobs; 0: none. */
static int
next_queue_id(ClaimState *state, int after)
{
	int id;

	if (state->has_lists && !qml_ready_note_has_made(0) && qml_ready_queues_next(after, &id))
		return id;
	return search_next_queue(state, after);
}

/* Goes through the indexes once, so that they need not be searched for queues any more. */
static void
learn_queues(ClaimState *state)
{
	uint32 generation;
	int id = 0;

	if (!qml_ready_queues_begin(&generation))
		return;
	/* Whoever commits from now on tells of the queues himself; where their jobs are is heard now. */
	AcceptInvalidationMessages();
	(void) qml_writer_new_snapshot(&state->writer);
	while ((id = search_next_queue(state, id)) != 0)
	{
		CHECK_FOR_INTERRUPTS();
		qml_ready_queues_found(generation, id);
	}
	qml_ready_queues_complete(generation);
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

		/* There may be jobs of a new queue that is not committed. */
		if (queue == NULL && state->has_lists)
			qml_claim_list_look_once(&state->writer, state->ready, id);
		if (queue == NULL || queue->paused)
			continue;
		/* Background workers ask for no rights; qml's own queue is theirs alone. */
		if (!is_background(state->claim) &&
			(queue->own || !qml_acl_allow(QML_CAN_WORK, queue->name)))
			continue;
		if (state->resuming && qml_claim_cursor_has(id))
			continue;
		claim_from_queue(state, queue);
		if (state->count > before)
			last_queue_id = id;
		if (!state->late && count_visit(state))
		{
			state->end.in_queue = false;
			state->end.cursor.queue_id = id;
		}
	}
}

/* Claims from all queues that have jobs, beginning after the one that was served last. */
static void
claim_from_all(ClaimState *state)
{
	int start = last_queue_id;
	int id;

	if (state->has_lists && !qml_ready_note_has_made(0) && !qml_ready_queues_next(0, &id))
		learn_queues(state);
	claim_from_range(state, start, INT_MAX);
	if (start > 0)
		claim_from_range(state, 0, start);
}

/* Claims behind a cursor, from a queue that may be gone or paused by now. */
static void
claim_resuming_at(ClaimState *state, const QmlClaimCursor *cursor)
{
	const QmlQueue *queue = qml_queue_by_id(cursor->queue_id);
	int before = state->count;

	if (queue == NULL || queue->paused)
		return;
	turn_to_queue(state, queue);
	claim_from_place(state, queue, &cursor->key, false);
	if (state->count > before)
		last_queue_id = queue->id;
}

/* Walks over all queues, for a background worker: from where the last call ended, if it did. */
static void
walk_to_claim(ClaimState *state)
{
	QmlClaimWalk *walk = qml_claim_cursor_walk(last_queue_id);
	QmlClaimPlace place = walk->place;
	instr_time start;

	INSTR_TIME_SET_CURRENT(start);
	if (place.in_queue)
		claim_resuming_at(state, &place.cursor);
	if (!walk->wrapped)
		claim_from_range(state, place.cursor.queue_id, INT_MAX);
	if (!walk->wrapped && !is_done(state))
	{
		walk->wrapped = true;
		place.cursor.queue_id = 0;
	}
	if (walk->wrapped)
		claim_from_range(state, place.cursor.queue_id, walk->first);
	walk->place = state->end;
	qml_claim_cursor_walked(QML_WALK_TO_CLAIM, qml_clock_ms_since(start),
							!state->late || state->count > 0);
}

/* Walks over the queues without a cursor for jobs that others could have. */
static void
walk_to_look(ClaimState *state)
{
	instr_time start;

	INSTR_TIME_SET_CURRENT(start);
	state->resuming = true;
	claim_from_all(state);
	state->resuming = false;
	qml_claim_cursor_walked(QML_WALK_TO_LOOK, qml_clock_ms_since(start), true);
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
		claim_resuming_at(state, &cursors[(first + i) % count]);
	}
	/* Behind the jobs that it has passed over there are none for this worker. */
	if (state->late && !state->full)
		qml_claim_cursor_set(&state->end.cursor);
	if (!state->full || is_done(state))
		return;
	if (qml_claim_cursor_is_recent(QML_WALK_TO_LOOK))
		state->more = QML_MAYBE_MORE;
	else
		walk_to_look(state);
}

/*
 * All queues by their lists, for a background worker; false: the index must be searched.  It is
 * also now and then while lists do not have all, or their queues would wait as long as others
 * have jobs.
 */
static bool
claim_by_lists(ClaimState *state)
{
	static bool was_incomplete = false;

	if (qml_claim_cursor_is_walking() ||
		(was_incomplete && !qml_claim_cursor_is_recent(QML_WALK_TO_CLAIM)))
	{
		was_incomplete = false;
		return false;
	}
	claim_from_all(state);
	was_incomplete = state->incomplete;
	if (state->late && state->count == 0)
	{
		/* The next call searches the index, and that goes on where it stops. */
		(void) qml_claim_cursor_walk(last_queue_id);
		state->more = QML_UNFINISHED;
	}
	else if (state->count == 0 && state->incomplete && !is_done(state))
		return false;
	/* What is missing in a list, or was not looked at, may be for others. */
	else if (state->more == QML_NO_MORE && (state->late || (state->full && state->incomplete)))
		state->more = QML_MAYBE_MORE;
	return true;
}

/* All queues, for a background worker. */
static void
claim_for_worker(ClaimState *state)
{
	INSTR_TIME_SET_CURRENT(state->began);
	if (state->has_lists && claim_by_lists(state))
		return;
	state->has_lists = false;
	if (qml_claim_cursor_is_recent(QML_WALK_TO_CLAIM))
		claim_resuming(state);
	if (state->count == 0 && !state->late)
		walk_to_claim(state);
	if (state->late && state->count == 0)
		state->more = QML_UNFINISHED;
	else if (state->late && state->more == QML_NO_MORE)
		state->more = QML_MAYBE_MORE;
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

/* Whoever only peeks may do so in a transaction that is read-only. */
static void
open_tables(ClaimState *state)
{
	if (state->claim->peek)
		qml_writer_open_to_read(&state->writer);
	else
		qml_writer_open(&state->writer, false, is_background(state->claim));
	turn_to_store(state, QML_STORE_LOGGED);
}

static void
close_tables(ClaimState *state)
{
	for (int i = 0; i < QML_STORES; i++)
	{
		if (state->indexes[i])
			index_close(state->indexes[i], NoLock);
	}
	if (state->claim->peek)
		qml_writer_close_after_read(&state->writer);
	else
		qml_writer_close(&state->writer);
}

/*
 * Claims up to claim->batch jobs; returns how many.  *more, for a background worker and
 * for one who only peeks: whether there are others ("maybe" if some of those that could be
 * claimed were not looked at), or whether it has to be called again, or to look at all.
 */
int
qml_claim_batch(const QmlClaim *claim, QmlMore *more)
{
	ClaimState state = {.claim = claim};

	Assert(claim->batch > 0);
	Assert(claim->peek || !claim->whole);
	Assert(!is_background(claim) ||
		   (claim->wants && claim->queues == NULL && claim->methods == NULL));
	(void) qml_catalog_to_work();
	if (!is_background(claim))
	{
		if (claim->queues == NULL)
			qml_acl_require_any(QML_CAN_WORK);
		for (int i = 0; i < claim->nqueues; i++)
			qml_acl_require(QML_CAN_WORK, claim->queues[i]);
		qml_claim_filter_init(&state.filter, claim->methods);
	}
	open_tables(&state);
	state.has_lists = qml_claim_list_usable(&state.writer);

	if (claim->queues)
		claim_from_list(&state);
	else if (is_background(claim))
		claim_for_worker(&state);
	else
		claim_from_all(&state);

	close_tables(&state);
	qml_claim_filter_tell(&state.filter);
	if (!claim->peek && !is_background(claim))
		qml_waiters_fetched();
	QML_FAULT_AT_COMMIT("claim.before_commit");
	if (claim->peek && state.more != QML_MORE && state.skipped)
		state.more = QML_SKIPPED;
	/* The fetch that follows must find it, too. */
	if (claim->whole && state.more == QML_MORE)
		qml_claim_skip_forget();
	*more = state.more;
	return state.count;
}

/*
 * Whether there is a job of this kind that is ready, for whomever; perhaps, if it would take
 * long to find out.
 */
bool
qml_claim_is_ready(const QmlReadyJobs *kind)
{
	QmlClaim claim = {.batch = 1, .peek = true, .kind = kind};
	ClaimState state = {.claim = &claim};
	const QmlQueue *queue = qml_queue_by_id(kind->queue);

	if (queue == NULL || queue->paused)
		return false;
	open_tables(&state);
	claim_from_queue(&state, queue);
	close_tables(&state);
	return state.more != QML_NO_MORE;
}
