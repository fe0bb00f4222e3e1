/*
 * claim_cursor.c
 *		Where the last claims of a background worker stopped.
 *
 * Jobs that were finished leave index entries behind, up to the next vacuum, and jobs
 * for other roles may stand before a worker's own.  A worker that claims again and
 * again from the beginning would step over all of them each time.  So it resumes where
 * its last claim stopped, for RESUME_TIME.  Then it walks from the beginning again, for
 * jobs that came in before that place; it also does so before it says that there is
 * nothing to do.  If such a walk takes long, the worker resumes for longer, so that it
 * spends its time on jobs.
 *
 * A walk that finds nothing within the time of one claim goes on with the next one, behind
 * the last job that it has passed over.  What comes in before that place meanwhile is told
 * to the worker as usual (ipc/dispatch.c), which then walks once more.
 *
 * All of it is private to the process and only a hint: to lose it costs one walk.
 * A transaction that is undone leaves it too far ahead, until the next walk.
 */
#include "postgres.h"

#include "common/clock.h"
#include "jobs/claim_cursor.h"
#include "jobs/ready_row.h"

/* Milliseconds; and how many times as long as the walk took. */
#define RESUME_TIME		20
#define MAX_RESUME_TIME 1000
#define RESUME_FACTOR	5

static QmlClaimCursor cursors[QML_MAX_CURSORS];
static int ncursors = 0;

/* The walk that is to claim. */
static QmlClaimWalk walk;

/* The last walk of each kind: when it ended, and how long it is not to be repeated. */
static struct
{
	instr_time ended;
	double pause; /* milliseconds */
} walks[QML_WALKS];

/* NULL: claims from the queue begin at its beginning. */
static QmlClaimCursor *
find_cursor(int queue_id)
{
	for (int i = 0; i < ncursors; i++)
	{
		if (cursors[i].queue_id == queue_id)
			return &cursors[i];
	}
	return NULL;
}

/* Whether claims resume in a queue. */
bool
qml_claim_cursor_has(int queue_id)
{
	return find_cursor(queue_id) != NULL;
}

/* Copies all cursors, because claiming moves them; returns how many there are. */
int
qml_claim_cursor_list(QmlClaimCursor *copy)
{
	memcpy(copy, cursors, sizeof(QmlClaimCursor) * ncursors);
	return ncursors;
}

/* A job was claimed: the next claim from its queue resumes behind it. */
void
qml_claim_cursor_advance(const QmlJob *job)
{
	QmlClaimCursor *cursor = find_cursor(job->queue_id);

	if (cursor == NULL)
	{
		/* The queue is walked from its beginning then. */
		if (ncursors == QML_MAX_CURSORS)
			return;
		cursor = &cursors[ncursors++];
		cursor->queue_id = job->queue_id;
	}
	cursor->key = qml_ready_row_key(job->priority, &job->id);
}

/* The next claim from the queue resumes there, if it resumes in it at all. */
void
qml_claim_cursor_set(const QmlClaimCursor *place)
{
	QmlClaimCursor *cursor = find_cursor(place->queue_id);

	if (cursor)
		*cursor = *place;
}

/*
 * A walk over all queues is about to claim: the one that has not come to its end, or a new one,
 * which begins behind the queue `first`.
 */
QmlClaimWalk *
qml_claim_cursor_walk(int first)
{
	if (walk.running)
		return &walk;
	ncursors = 0;
	memset(&walk, 0, sizeof(walk));
	walk.running = true;
	walk.first = first;
	walk.place.cursor.queue_id = first;
	return &walk;
}

/* Whether a walk has begun and not ended. */
bool
qml_claim_cursor_is_walking(void)
{
	return walk.running;
}

/* A walk has just taken so many milliseconds; over: it has ended, or is not to go on. */
void
qml_claim_cursor_walked(QmlClaimWalkKind kind, double ms, bool over)
{
	Assert(kind < QML_WALKS && ms >= 0);
	if (kind == QML_WALK_TO_CLAIM)
	{
		walk.running = !over;
		walk.ms += ms;
		ms = walk.ms;
	}
	if (!over)
		return;
	INSTR_TIME_SET_CURRENT(walks[kind].ended);
	walks[kind].pause = Min(RESUME_FACTOR * ms, MAX_RESUME_TIME);
	if (kind == QML_WALK_TO_CLAIM)
		walks[kind].pause = Max(walks[kind].pause, RESUME_TIME);
}

/* Whether the last walk of this kind ended so recently that it is not repeated yet. */
bool
qml_claim_cursor_is_recent(QmlClaimWalkKind kind)
{
	if (kind == QML_WALK_TO_CLAIM && walk.running)
		return false;
	return qml_clock_ms_since(walks[kind].ended) < walks[kind].pause;
}
