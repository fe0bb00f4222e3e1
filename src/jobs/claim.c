/*
 * claim.c
 *		Giving out jobs: ready ones become processing, each to one worker.
 *
 * There is no planner and no executor.  A claim finds ready jobs in the list of a queue in shared
 * memory (jobs/claim_list.c), or else by the index (jobs/claim_search.c), in the order in which jobs
 * are to be claimed.  Each row is updated on the spot without waiting; a row that another
 * transaction is changing is skipped (jobs/claim_state.c).  So a claim never sorts, never reads the
 * backlog, never takes more than its batch, and never waits for a row lock, whatever the statistics
 * say.
 *
 * A claim that gives nothing says that the queue is empty.  So it looks again if others have taken
 * all that it has seen: what became ready meanwhile is there for it.
 *
 * The update changes no indexed column: the index covers enqueued and processing
 * rows alike, and a claim is a HOT update while its page has room.
 *
 * A background worker that claims again and again resumes where its search stopped
 * (jobs/claim_cursor.c), and wants to know whether it left jobs for other workers.  It passes
 * over the jobs of methods that it has no handler for.  There can be any number of them, so
 * a call of it has a time limit: what is behind is looked at by the next one, which is
 * another transaction.
 *
 * A claim is the caller's transaction.  A crash before its commit leaves the jobs
 * enqueued and gives no attempt number away; after it they are processing (keep_number() in
 * jobs/writer.c says when a commit waits for the disk), until their lease or their session ends
 * (maintenance/reclaim.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/rel.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/hash_set.h"
#include "common/table.h"
#include "ipc/fetches.h"
#include "ipc/ready_note.h"
#include "ipc/ready_queues.h"
#include "ipc/waiters.h"
#include "jobs/claim.h"
#include "jobs/claim_list.h"
#include "jobs/claim_search.h"
#include "jobs/claim_skip.h"
#include "jobs/claim_state.h"
#include "jobs/drain_cursor.h"
#include "jobs/ready_index.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"

/* Where the last claim from all queues ended, so that no queue starves. */
static int last_queue_id = 0;

/* Goes to the tables of a storage class. */
static void
turn_to_store(QmlClaimState *state, QmlStoreId store)
{
	if (state->indexes[store] == NULL || state->writer.store != store)
		qml_writer_turn(&state->writer, store);
	if (state->indexes[store] == NULL)
		state->indexes[store] = index_open(qml_store(store)->live_ready, state->writer.lockmode);
	state->ready = state->indexes[store];
}

/* Goes to the tables that have the jobs of a queue. */
static void
turn_to_queue(QmlClaimState *state, const QmlQueue *queue)
{
	turn_to_store(state, qml_queue_store(queue));
}

/* How the list of a queue is gone through, and by which match. */
static void
begin_list(QmlClaimState *state, const QmlQueue *queue, QmlClaimList *list)
{
	QmlListPass pass = QML_LIST_TAKE;
	QmlReadyMatch match = NULL;
	void *arg = NULL;

	if (state->claim->peek)
		pass = QML_LIST_PEEK;
	else if (qml_claim_is_background(state->claim))
		pass = QML_LIST_CHOOSE;
	if (state->filter.key != 0)
	{
		match = qml_claim_filter_passes_hash;
		arg = &state->filter;
	}
	else if (qml_claim_is_background(state->claim) && !queue->own)
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
claim_by_list(QmlClaimState *state, const QmlQueue *queue, QmlReadyBound *bound)
{
	QmlClaimList list;
	bool all;

	begin_list(state, queue, &list);
	state->listing = true;
	while (!qml_claim_is_done(state) &&
		   qml_claim_list_next(&list, Max(1, state->claim->batch - state->count)))
	{
		TM_Result result = TM_Invisible;

		/* No job begins before the time at which it was due. */
		state->now = GetCurrentTimestamp();
		if (state->full)
			qml_claim_look_for_more(state);
		else if (state->filter.key == 0 ||
				 qml_claim_filter_passes(&state->filter, state->writer.live->slot))
			result = qml_claim_row(state, queue);
		qml_claim_list_judge(&list, result);
		/* A search goes on where it stopped, which is no place in a list. */
		if (!state->searches)
			(void) qml_claim_count_visit(state);
	}
	state->listing = false;
	all = qml_claim_list_end(&list);
	*bound = list.bound;
	state->has_moved = list.has_moved;
	return all;
}

/* Whether there are lists of queues whose jobs are in the tables at work. */
static bool
has_lists_here(QmlClaimState *state)
{
	return state->has_lists &&
		   (state->writer.store == QML_STORE_LOGGED || qml_claim_list_usable(&state->writer));
}

/*
 * Claims from a queue by its list, if it has one.  False: the index must be searched, from the
 * bound on, because what is wanted of the jobs before that was in the list.  What this transaction
 * has made is behind it.
 */
static bool
claim_listed(QmlClaimState *state, const QmlQueue *queue, QmlReadyBound *bound)
{
	bound->reach = QML_REACH_NOTHING;
	if (!has_lists_here(state))
		return false;
	if (claim_by_list(state, queue, bound) || qml_claim_is_done(state))
		return true;
	if (qml_claim_is_background(state->claim) && !state->searches)
	{
		state->incomplete = true;
		return true;
	}
	/* It sees what was claimed already. */
	(void) qml_writer_new_snapshot(&state->writer);
	return false;
}

/*
 * Whether a search has claimed nothing because others were faster.  They may have taken all that
 * its snapshot shows, and other jobs may be ready since.  Those whose rows others have are the
 * same as before, unless there are more.  Background workers are told of what becomes ready.
 */
static bool
was_overtaken(const QmlClaimState *state, int held_before)
{
	if (state->count > 0 || qml_claim_is_done(state) || state->more != QML_NO_MORE ||
		qml_claim_is_background(state->claim) || IsolationUsesXactSnapshot())
		return false;
	return state->lost > 0 || state->held > held_before;
}

/* Claims one job of a queue for a drain, which goes on behind the one that it has claimed last. */
static void
claim_for_drain(QmlClaimState *state, const QmlQueue *queue)
{
	QmlReadyKey key;
	QmlDrainFrom from = qml_drain_cursor_find(queue->id, &key);

	Assert(state->claim->batch == 1);
	if (from == QML_DRAIN_NOTHING)
		return;
	qml_claim_search(state, queue, from == QML_DRAIN_KEY ? &key : NULL);
	if (state->count == 0)
		qml_drain_cursor_set(queue->id, NULL);
}

/* Claims from the beginning of a queue. */
static void
claim_from_queue(QmlClaimState *state, const QmlQueue *queue)
{
	QmlReadyBound bound;
	int held = 0;

	turn_to_queue(state, queue);
	if (state->claim->drains)
	{
		claim_for_drain(state, queue);
		return;
	}
	while (!claim_listed(state, queue, &bound))
	{
		if (state->has_moved)
		{
			/* Its storage class was changed when it was empty, which is known by now. */
			state->has_moved = false;
			turn_to_queue(state, queue);
			continue;
		}
		state->lost = 0;
		state->held = 0;
		qml_claim_search(state, queue, bound.reach == QML_REACH_KEY ? &bound.key : NULL);
		if (!was_overtaken(state, held))
			return;
		held = state->held;
		(void) qml_writer_new_snapshot(&state->writer);
	}
}

/* The lowest queue id above `after` that an index has an entry for; 0: none. */
static int
search_next_queue(QmlClaimState *state, int after)
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
next_queue_id(QmlClaimState *state, int after)
{
	int id;
	int own;

	if (!state->has_lists || !qml_ready_queues_next(after, &id))
		return search_next_queue(state, after);
	own = qml_ready_note_next_queue(after);
	return own != 0 && (id == 0 || own < id) ? own : id;
}

/* Goes through the indexes once, so that they need not be searched for queues any more. */
static void
learn_queues(QmlClaimState *state)
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
claim_from_range(QmlClaimState *state, int after, int upto)
{
	int id = after;

	while (!qml_claim_is_done(state) && (id = next_queue_id(state, id)) != 0 && id <= upto)
	{
		const QmlQueue *queue = qml_queue_by_id(id);
		int before = state->count;

		/* There may be jobs of a new queue that is not committed. */
		if (queue == NULL && state->has_lists)
			qml_claim_list_look_once(&state->writer, state->ready, id);
		if (queue == NULL || queue->paused)
			continue;
		/* Background workers ask for no rights; qml's own queue is theirs alone. */
		if (!qml_claim_is_background(state->claim) &&
			(queue->own || !qml_acl_allow(QML_CAN_WORK, queue->name)))
			continue;
		if (state->resuming && qml_claim_cursor_has(id))
			continue;
		claim_from_queue(state, queue);
		if (state->count > before)
			last_queue_id = id;
		if (!state->late && qml_claim_count_visit(state))
		{
			state->end.in_queue = false;
			state->end.cursor.queue_id = id;
		}
	}
}

/* Claims from all queues that have jobs, beginning after the one that was served last. */
static void
claim_from_all(QmlClaimState *state)
{
	int start = last_queue_id;
	int id;

	if (state->has_lists && !qml_ready_queues_next(0, &id))
		learn_queues(state);
	claim_from_range(state, start, INT_MAX);
	if (start > 0)
		claim_from_range(state, 0, start);
}

/* Claims behind a cursor, from a queue that may be gone or paused by now. */
static void
claim_resuming_at(QmlClaimState *state, const QmlClaimCursor *cursor)
{
	const QmlQueue *queue = qml_queue_by_id(cursor->queue_id);
	int before = state->count;

	if (queue == NULL || queue->paused)
		return;
	turn_to_queue(state, queue);
	qml_claim_search_from(state, queue, &cursor->key, false);
	if (state->count > before)
		last_queue_id = queue->id;
}

/* Walks over all queues, for a background worker: from where the last call ended, if it did. */
static void
walk_to_claim(QmlClaimState *state)
{
	QmlClaimWalk *walk = qml_claim_cursor_walk(last_queue_id);
	QmlClaimPlace place = walk->place;
	instr_time start;

	INSTR_TIME_SET_CURRENT(start);
	if (place.in_queue)
		claim_resuming_at(state, &place.cursor);
	if (!walk->wrapped)
		claim_from_range(state, place.cursor.queue_id, INT_MAX);
	if (!walk->wrapped && !qml_claim_is_done(state))
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
walk_to_look(QmlClaimState *state)
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
claim_resuming(QmlClaimState *state)
{
	QmlClaimCursor cursors[QML_MAX_CURSORS];
	int count = qml_claim_cursor_list(cursors);
	int first = 0;

	for (int i = 0; i < count; i++)
	{
		if (cursors[i].queue_id == last_queue_id)
			first = i + 1;
	}
	for (int i = 0; i < count && !qml_claim_is_done(state); i++)
	{
		claim_resuming_at(state, &cursors[(first + i) % count]);
	}
	/* Behind the jobs that it has passed over there are none for this worker. */
	if (state->late && !state->full)
		qml_claim_cursor_set(&state->end.cursor);
	if (!state->full || qml_claim_is_done(state))
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
claim_by_lists(QmlClaimState *state)
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
	else if (state->count == 0 && state->incomplete && !qml_claim_is_done(state))
		return false;
	/* What is missing in a list, or was not looked at, may be for others. */
	else if (state->more == QML_NO_MORE && (state->late || (state->full && state->incomplete)))
		state->more = QML_MAYBE_MORE;
	return true;
}

/* All queues, for a background worker. */
static void
claim_for_worker(QmlClaimState *state)
{
	INSTR_TIME_SET_CURRENT(state->began);
	if (state->has_lists && claim_by_lists(state))
		return;
	state->searches = true;
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
claim_from_list(QmlClaimState *state)
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
open_tables(QmlClaimState *state)
{
	if (state->claim->peek)
		qml_writer_open_to_read(&state->writer);
	else
		qml_writer_open(&state->writer, false, qml_claim_is_background(state->claim));
	turn_to_store(state, QML_STORE_LOGGED);
}

static void
close_tables(QmlClaimState *state)
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
 * Whether the lists say that none of the queues has ready jobs.  So one who asks again and again
 * opens no table; a claim that finds some of its queues like that does.
 */
static bool
is_known_empty(const QmlClaim *claim)
{
	QmlReadyKey own;
	int id;

	if (!qml_claim_list_usable(NULL))
		return false;
	if (claim->queues == NULL)
		return qml_ready_queues_next(0, &id) && id == 0 && qml_ready_note_next_queue(0) == 0;
	for (int i = 0; i < claim->nqueues; i++)
	{
		const QmlQueue *queue = qml_queue_by_name(claim->queues[i]);

		if (queue == NULL || queue->paused)
			continue;
		if (!qml_ready_list_is_empty(queue->id) || qml_ready_note_first_made(queue->id, &own))
			return false;
	}
	return true;
}

/* ----- telling of fetches ----- */

/* A hash of all that a claim asks for, and of whom it is. */
static uint64
hash_claim(const QmlClaim *claim)
{
	uint64 hash = claim->methods ? claim->methods->hash | 1 : 0;

	/* What all queues are depends on the rights of the role. */
	if (claim->queues == NULL)
		hash = hash_combine64(hash, GetUserId());
	for (int i = 0; i < claim->nqueues; i++)
		hash = hash_combine64(hash, qml_hash_name(claim->queues[i], strlen(claim->queues[i])));
	return hash;
}

static void
note_fetch_from(const QmlClaim *claim, int queue)
{
	if (claim->methods)
		qml_fetches_note(queue, claim->methods->hashes, claim->methods->count);
	else
		qml_fetches_note(queue, NULL, 0);
}

/*
 * A worker outside looks for jobs: whoever explains why they wait must know.  It tells of all queues
 * that it would take jobs from, also of those that this call does not come to because its batch is
 * full before.
 */
static void
note_fetch(const QmlClaim *claim)
{
	ListCell *lc;

	if (claim->drains || qml_claim_is_background(claim) || !qml_fetches_is_due(hash_claim(claim)))
		return;
	for (int i = 0; i < claim->nqueues; i++)
	{
		const QmlQueue *queue = qml_queue_by_name(claim->queues[i]);

		if (queue)
			note_fetch_from(claim, queue->id);
	}
	if (claim->queues)
		return;
	if (qml_acl_allow(QML_CAN_WORK, NULL))
	{
		note_fetch_from(claim, QML_FETCHES_ALL);
		return;
	}
	foreach(lc, qml_queue_all())
	{
		const QmlQueue *queue = lfirst(lc);

		if (!queue->own && !queue->dropped && qml_acl_allow(QML_CAN_WORK, queue->name))
			note_fetch_from(claim, queue->id);
	}
}

/* ----- the call ----- */

/* Claims from the tables. */
static void
claim_from_tables(QmlClaimState *state)
{
	open_tables(state);
	state->has_lists = qml_claim_list_usable(&state->writer);

	if (state->claim->queues)
		claim_from_list(state);
	else if (qml_claim_is_background(state->claim))
		claim_for_worker(state);
	else
		claim_from_all(state);

	close_tables(state);
	qml_claim_filter_tell(&state->filter);
}

/*
 * Claims up to claim->batch jobs; returns how many.  *more, for a background worker and
 * for one who only peeks: whether there are others ("maybe" if some of those that could be
 * claimed were not looked at), or whether it has to be called again, or to look at all.
 */
int
qml_claim_batch(const QmlClaim *claim, QmlMore *more)
{
	QmlClaimState state = {.claim = claim};
	const QmlCatalog *cat;

	Assert(claim->batch > 0);
	Assert(claim->peek || !claim->whole);
	Assert(!qml_claim_is_background(claim) ||
		   (claim->wants && claim->queues == NULL && claim->methods == NULL));
	cat = qml_catalog_to_work();
	if (!qml_claim_is_background(claim))
	{
		if (claim->queues == NULL)
			qml_acl_require_any(QML_CAN_WORK);
		for (int i = 0; i < claim->nqueues; i++)
			qml_acl_require(QML_CAN_WORK, claim->queues[i]);
	}
	note_fetch(claim);
	if (!cat->paused && (qml_claim_is_background(claim) || !is_known_empty(claim)))
	{
		if (!qml_claim_is_background(claim))
			qml_claim_filter_init(&state.filter, claim->methods);
		claim_from_tables(&state);
	}
	else if (!claim->peek)
		qml_table_require_write();
	if (!claim->peek && !qml_claim_is_background(claim))
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
	QmlClaimState state = {.claim = &claim};
	const QmlQueue *queue = qml_queue_by_id(kind->queue);

	if (queue == NULL || queue->paused || qml_catalog()->paused)
		return false;
	open_tables(&state);
	claim_from_queue(&state, queue);
	close_tables(&state);
	return state.more != QML_NO_MORE;
}
