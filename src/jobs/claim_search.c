/*
 * claim_search.c
 *		Claiming the ready jobs of a queue by the index.
 *
 * The index live_ready is walked in the order in which jobs are to be claimed, with one snapshot.  A
 * walk steps over the entries of all jobs that were finished since the last vacuum, and over those
 * that run.  So it begins behind what the list of the queue has, if that is known.
 *
 * A worker outside the database may pass over jobs because of their methods (jobs/claim_filter.c),
 * and then begins where it has not passed over them yet (jobs/claim_skip.c).  A background worker
 * passes over those that it has no handler for; a call of it has a time limit, and the next one goes
 * on where it stopped.
 */
#include "postgres.h"

#include "access/genam.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "common/fault.h"
#include "jobs/claim_search.h"
#include "jobs/claim_skip.h"
#include "jobs/ready_index.h"
#include "jobs/ready_row.h"

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

/* The time is over: remembers the job in live.slot, behind which the next call goes on. */
static void
end_behind_job(QmlClaimState *state, const QmlQueue *queue)
{
	state->end.in_queue = true;
	state->end.cursor.queue_id = queue->id;
	state->end.cursor.key = qml_ready_row_place(state->writer.live->slot);
}

/* Claims ready jobs of one queue, by these keys, until there are none or the call is done. */
static void
claim_by_keys(QmlClaimState *state, const QmlQueue *queue, ScanKey keys, int nkeys)
{
	TupleTableSlot *slot = state->writer.live->slot;
	IndexScanDesc scan = qml_ready_index_begin(&state->writer, state->ready, queue->id, keys,
											   nkeys);

	/* After the snapshot is taken: no job begins before the time at which it was due. */
	state->now = GetCurrentTimestamp();
	QML_FAULT("claim.search");
	while (!qml_claim_is_done(state) && qml_table_next(state->writer.live, scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (qml_job_live_state(slot) == QML_ENQUEUED)
		{
			if (state->full)
				qml_claim_look_for_more(state);
			else if (state->claim->kind)
				qml_claim_look_for_kind(state);
			else
				(void) qml_claim_row(state, queue);
		}
		if (qml_claim_count_visit(state))
			end_behind_job(state, queue);
	}
	index_endscan(scan);
}

/* The same for a claim with a filter; the walk says for how long. */
static WalkEnd
claim_filtered_by_keys(QmlClaimState *state, const QmlQueue *queue, ScanKey keys, int nkeys,
					   Walk *walk)
{
	TupleTableSlot *slot = state->writer.live->slot;
	IndexScanDesc scan = qml_ready_index_begin(&state->writer, state->ready, queue->id, keys,
											   nkeys);
	WalkEnd end = WALK_THROUGH;
	int looked = 0;
	int current = 0;

	state->now = GetCurrentTimestamp();
	QML_FAULT("claim.search");
	while (!qml_claim_is_done(state) && qml_table_next(state->writer.live, scan))
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
			(void) qml_claim_row(state, queue);
		if (walk->beyond && state->count == 0)
			qml_claim_skip_pass(&walk->trail, state->filter.key, queue->id, &key);
		if (++looked == walk->most)
		{
			end = WALK_STOPPED;
			break;
		}
	}
	index_endscan(scan);
	return qml_claim_is_done(state) ? WALK_CLAIMED : end;
}

/*
 * Looks again at some of the jobs that are skipped, which come before all others of theirs; not at
 * those before `from`, if that is given.
 */
static WalkEnd
claim_again(QmlClaimState *state, const QmlQueue *queue, const QmlSkip *skip,
			const QmlReadyKey *from)
{
	Walk walk = {.most = qml_claim_skip_sweep_rows(skip)};
	const QmlReadyKey *after = skip->sweeping ? &skip->swept : NULL;
	ScanKeyData keys[QML_READY_INDEX_KEYS];
	int nkeys;
	WalkEnd end;

	if (from && from->priority == skip->front.priority &&
		(after == NULL || qml_ready_compare(after, from) < 0))
		nkeys = qml_ready_index_between(keys, from, &skip->front);
	else
		nkeys = qml_ready_index_upto(keys, &skip->front, after);
	end = claim_filtered_by_keys(state, queue, keys, nkeys, &walk);
	qml_claim_skip_swept(skip, end == WALK_THROUGH ? NULL : &walk.last);
	state->skipped = state->skipped || skip->sweeping || end != WALK_THROUGH;
	return end;
}

/*
 * Claims from one queue with a filter, from a job on or (NULL) from its beginning: all but what
 * earlier claims have passed over.
 */
static void
claim_filtered(QmlClaimState *state, const QmlQueue *queue, const QmlReadyKey *from)
{
	ScanKeyData keys[QML_READY_INDEX_KEYS];
	bool stops = !state->claim->whole;
	bool has_below = from != NULL; /* lower priorities follow what the keys say */
	int nkeys = from ? qml_ready_index_rest(keys, from, true) : 1;

	for (;;)
	{
		Walk walk = {.beyond = stops, .stops = stops};
		Walk rest = {.beyond = true};
		const QmlSkip *skip = &walk.skip;
		WalkEnd end = claim_filtered_by_keys(state, queue, keys, nkeys, &walk);

		if (end == WALK_CLAIMED || (end == WALK_THROUGH && !has_below))
			return;
		if (end == WALK_THROUGH)
			nkeys = qml_ready_index_below(keys, from);
		else
		{
			if (claim_again(state, queue, skip, from) == WALK_CLAIMED)
				return;
			nkeys = qml_ready_index_rest(keys, &skip->front, false);
			if (claim_filtered_by_keys(state, queue, keys, nkeys, &rest) == WALK_CLAIMED)
				return;
			nkeys = qml_ready_index_below(keys, &skip->front);
		}
		has_below = false;
	}
}

/*
 * Claims from a queue by the index, behind a job or from it on: the rest of its priority, then lower
 * ones.
 */
void
qml_claim_search_from(QmlClaimState *state, const QmlQueue *queue, const QmlReadyKey *key,
					  bool with_key)
{
	ScanKeyData keys[QML_READY_INDEX_KEYS];

	claim_by_keys(state, queue, keys, qml_ready_index_rest(keys, key, with_key));
	if (!qml_claim_is_done(state))
		claim_by_keys(state, queue, keys, qml_ready_index_below(keys, key));
}

/* Claims from a queue by the index, from a job on or (NULL) from its beginning. */
void
qml_claim_search(QmlClaimState *state, const QmlQueue *queue, const QmlReadyKey *from)
{
	ScanKeyData keys[1];

	if (state->filter.key != 0)
		claim_filtered(state, queue, from);
	else if (from)
		qml_claim_search_from(state, queue, from, true);
	else
		claim_by_keys(state, queue, keys, lengthof(keys));
}
