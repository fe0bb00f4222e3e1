/*
 * count_note.c
 *		What a changed job does to the numbers of jobs, noted for the end of the transaction.
 *
 * Whatever writes a row of a job without SQL notes it here: ipc/counter_notes.c adds it to the
 * numbers when the transaction has committed.
 */
#include "postgres.h"

#include "ipc/watch_notes.h"
#include "jobs/count_note.h"

/*
 * So many jobs of a queue go from a state to another one; the times are those when finished
 * ones expire.
 */
void
qml_count_note(int queue, int count, int from, TimestampTz from_expires, int to,
			   TimestampTz to_expires)
{
	QmlCounterDelta delta = {.queue = queue,
							 .count = count,
							 .from = (uint8) from,
							 .to = (uint8) to,
							 .from_until = qml_counter_store_until(from_expires),
							 .to_until = qml_counter_store_until(to_expires)};

	if (from != to)
		qml_counter_notes_add(&delta);
	else /* something else of them has changed */
		qml_watch_note_queue(queue);
}

/* The same of one job, which may have left its queue. */
void
qml_count_note_job(const QmlJob *job, int from, TimestampTz from_expires, int to,
				   TimestampTz to_expires)
{
	if (job->queue_id == job->was_queue)
	{
		qml_count_note(job->queue_id, 1, from, from_expires, to, to_expires);
		return;
	}
	qml_count_note(job->was_queue, 1, from, from_expires, QML_NOT_COUNTED, QML_NO_TIME);
	qml_count_note(job->queue_id, 1, QML_NOT_COUNTED, QML_NO_TIME, to, to_expires);
}
