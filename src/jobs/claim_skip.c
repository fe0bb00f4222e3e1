/*
 * claim_skip.c
 *		Where the jobs begin that a claim with a filter has not passed over yet.
 *
 * A claim that wants only some methods may have a long backlog of others before the first
 * job of its own.  It reads that once, and the session remembers up to where, for each
 * filter, queue and priority: the front.  Later claims begin there.  Each priority has a
 * front of its own, so that jobs of a higher priority come first as ever.
 *
 * A job may also come in before the front: it was delayed, retried or given back, its caller
 * chose its id, or its transaction took long.  None is missed for ever, because there are two
 * safeguards:
 * - The front stays some hundred rows behind what was looked at.  So jobs that come in at
 *   about the same time are found in the next claim, whatever their order, and short
 *   backlogs are not skipped at all.
 * - Each claim looks again at some of what it skips, and goes on from there in the next one
 *   until it reaches the front, and then from the beginning again: at few rows if it was
 *   called a moment ago, and at all that SWEEP_ROWS_PER_MS adds up to if it was not.
 *
 * Who waits (jobs/wait.c) cannot rely on the second one, which would be polling: it looks at
 * all before it sleeps, and if there is a job before a front, all fronts are forgotten.
 *
 * What a session itself has claimed and gives back, because its transaction is undone, is not
 * skipped at all: it forgets the fronts that were moved meanwhile.
 *
 * So a claim reads a bounded number of rows that it does not want, but for the first one of a
 * session.  That one is not bounded: sessions that fetch once and end would never get there.
 *
 * All of it is private to the session and only a hint; to lose it costs one walk.
 */
#include "postgres.h"

#include "access/xact.h"

#include "common/clock.h"
#include "jobs/claim_skip.h"

#define MAX_SKIPS 64

/* Rows between the front and what was looked at last: once to twice as many. */
#define LAG 256

/* Rows that a claim looks at again. */
#define MIN_SWEEP_ROWS	  100
#define MAX_SWEEP_ROWS	  20000
#define SWEEP_ROWS_PER_MS 50

static QmlSkip skips[MAX_SKIPS];
static int nskips = 0;
static uint64 uses = 0;

/* A front was moved in this transaction, perhaps over jobs that it has claimed. */
static bool moved = false;

/* The claims of a transaction that is undone are ready again. */
static void
forget_undone(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT && moved)
		nskips = 0;
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
		moved = false;
}

static void
forget_undone_part(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && moved)
		nskips = 0;
}

/* Called when the library is loaded. */
void
qml_claim_skip_init(void)
{
	RegisterXactCallback(forget_undone, NULL);
	RegisterSubXactCallback(forget_undone_part, NULL);
}

/* Nothing is skipped any more: a job came in before a front. */
void
qml_claim_skip_forget(void)
{
	nskips = 0;
}

static QmlSkip *
find_skip(uint64 filter, int queue_id, int priority)
{
	for (int i = 0; i < nskips; i++)
	{
		QmlSkip *skip = &skips[i];

		if (skip->filter == filter && skip->queue_id == queue_id &&
			skip->front.priority == priority)
			return skip;
	}
	return NULL;
}

/* An entry for what has none yet: a free one, or that which was not used for longest. */
static QmlSkip *
make_skip(uint64 filter, int queue_id)
{
	QmlSkip *skip = &skips[0];

	if (nskips < MAX_SKIPS)
		skip = &skips[nskips++];
	else
	{
		for (int i = 1; i < nskips; i++)
		{
			if (skips[i].used < skip->used)
				skip = &skips[i];
		}
	}
	memset(skip, 0, sizeof(*skip));
	skip->filter = filter;
	skip->queue_id = queue_id;
	INSTR_TIME_SET_CURRENT(skip->looked);
	return skip;
}

/* Copies what is skipped of a priority; false: nothing. */
bool
qml_claim_skip_find(uint64 filter, int queue_id, int priority, QmlSkip *copy)
{
	QmlSkip *skip = find_skip(filter, queue_id, priority);

	if (skip == NULL)
		return false;
	skip->used = ++uses;
	*copy = *skip;
	return true;
}

/*
 * A claim has passed over a row behind the front, and has claimed none so far: what follows
 * is looked at by the next one.
 */
void
qml_claim_skip_pass(QmlSkipTrail *trail, uint64 filter, int queue_id, const QmlReadyKey *key)
{
	QmlSkip *skip;

	if (trail->priority != key->priority)
	{
		memset(trail, 0, sizeof(*trail));
		trail->priority = key->priority;
	}
	if (++trail->passed < LAG)
		return;
	trail->older = trail->newer;
	trail->has_older = trail->has_newer;
	trail->newer = *key;
	trail->has_newer = true;
	trail->passed = 0;
	if (!trail->has_older)
		return;
	skip = find_skip(filter, queue_id, key->priority);
	Assert(skip == NULL || qml_ready_compare(&skip->front, &trail->older) < 0);
	if (skip == NULL)
		skip = make_skip(filter, queue_id);
	skip->front = trail->older;
	skip->used = ++uses;
	moved = true;
}

/* How many rows a claim is to look at again. */
int
qml_claim_skip_sweep_rows(const QmlSkip *skip)
{
	double rows = qml_clock_ms_since(skip->looked) * SWEEP_ROWS_PER_MS;

	return (int) Max(Min(rows, MAX_SWEEP_ROWS), MIN_SWEEP_ROWS);
}

/* It has done so, up to the last one; NULL: up to the front. */
void
qml_claim_skip_swept(const QmlSkip *copy, const QmlReadyKey *last)
{
	QmlSkip *skip = find_skip(copy->filter, copy->queue_id, copy->front.priority);

	if (skip == NULL)
		return;
	INSTR_TIME_SET_CURRENT(skip->looked);
	skip->sweeping = last != NULL;
	if (last)
		skip->swept = *last;
}
