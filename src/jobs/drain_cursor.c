/*
 * drain_cursor.c
 *		Where a drain goes on.
 *
 * A drain (jobs/drain.c) ends jobs one by one in one transaction, whose rows and index entries stay
 * until it is over.  Each search from the beginning of a queue would go over all of them.  So the
 * drain remembers for each queue the job that it has claimed last, and goes on from there; and the
 * same for those that are put off, by their times.  Whatever this session writes meanwhile takes a
 * cursor back if it comes before it.
 *
 * What others commit meanwhile, or give back, is not told.  So a drain that finds nothing any more
 * forgets its cursors and looks once more.
 *
 * All of it is memory of the call; without one nothing is remembered.
 */
#include "postgres.h"

#include "utils/hsearch.h"

#include "jobs/drain_cursor.h"
#include "jobs/ready_row.h"

/* Of a queue. */
typedef struct Cursor
{
	int queue; /* hash key */
	bool at_end;
	QmlReadyKey key; /* unless it is at the end */
} Cursor;

/* NULL: no drain is at work. */
static HTAB *cursors = NULL;
static TimestampTz due_from;
static TimestampTz written; /* the earliest time of jobs that were put off since it was set */
static bool muted;

/* A drain begins; the memory context lives as long as it. */
void
qml_drain_cursor_begin(MemoryContext context)
{
	HASHCTL control = {.keysize = sizeof(int), .entrysize = sizeof(Cursor), .hcxt = context};

	Assert(cursors == NULL);
	cursors = hash_create("qml drained queues", 16, &control,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	due_from = DT_NOBEGIN;
	written = DT_NOEND;
	muted = false;
}

/* It has ended, or an error ends it: its memory may be gone. */
void
qml_drain_cursor_end(void)
{
	cursors = NULL;
}

/* Goes back to the beginning; false: all of it was there. */
bool
qml_drain_cursor_forget(void)
{
	bool had_any = hash_get_num_entries(cursors) > 0 || due_from > DT_NOBEGIN;
	HASH_SEQ_STATUS scan;
	Cursor *cursor;

	hash_seq_init(&scan, cursors);
	while ((cursor = hash_seq_search(&scan)) != NULL)
		(void) hash_search(cursors, &cursor->queue, HASH_REMOVE, NULL);
	due_from = DT_NOBEGIN;
	written = DT_NOBEGIN;
	return had_any;
}

/* Whether what is written is the drain's own, which it runs next. */
void
qml_drain_cursor_mute(bool on)
{
	muted = on;
}

/* The time from which jobs that are put off are looked for. */
TimestampTz
qml_drain_cursor_due(void)
{
	return due_from;
}

void
qml_drain_cursor_set_due(TimestampTz run_at)
{
	due_from = run_at;
	written = DT_NOEND;
}

/* The earliest time of the jobs that were put off since then. */
TimestampTz
qml_drain_cursor_written(void)
{
	return written;
}

/* From where a queue is searched. */
QmlDrainFrom
qml_drain_cursor_find(int queue, QmlReadyKey *key)
{
	const Cursor *cursor = hash_search(cursors, &queue, HASH_FIND, NULL);

	if (cursor == NULL)
		return QML_DRAIN_BEGINNING;
	*key = cursor->key;
	return cursor->at_end ? QML_DRAIN_NOTHING : QML_DRAIN_KEY;
}

/* This job was claimed; NULL: there was none. */
void
qml_drain_cursor_set(int queue, const QmlReadyKey *key)
{
	Cursor *cursor = hash_search(cursors, &queue, HASH_ENTER, NULL);

	cursor->at_end = key == NULL;
	if (key)
		cursor->key = *key;
	else
		memset(&cursor->key, 0, sizeof(cursor->key));
}

/* A job was written: it may be one that a cursor is already behind of. */
void
qml_drain_cursor_wrote(const QmlJob *job)
{
	QmlReadyKey key;
	Cursor *cursor;

	if (cursors == NULL || muted)
		return;
	if (job->run_at != QML_NO_TIME)
		written = Min(written, job->run_at);
	if (job->state != QML_ENQUEUED)
		return;
	cursor = hash_search(cursors, &job->queue_id, HASH_FIND, NULL);
	key = qml_ready_row_key(job->priority, &job->id);
	if (cursor && (cursor->at_end || qml_ready_compare(&key, &cursor->key) < 0))
		qml_drain_cursor_set(job->queue_id, &key);
}
