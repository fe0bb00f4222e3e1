/*
 * job_stats.c
 *		What is counted of jobs for statistics, when their rows are written.
 *
 *		enqueued			a new job, ready or not; no job that comes back out of the history
 *		started				an attempt began: it had waited since the job was ready
 *		succeeded, failed	a job has ended so
 *		deleted				a job that had not ended was deleted
 *		retried				an attempt failed, or was lost, and another one is to come
 *		released			an attempt was given back, and does not count
 *		lost				nobody has told of the end of an attempt; it is also one of the above
 *
 * How long an attempt ran is counted if whoever had the claim has told of its end: of one that
 * somebody else ended, by deleting the job or giving it another state, it is not known.
 *
 * All of this is noted in memory, and counted when the transaction has committed
 * (ipc/stats_notes.c).  Without the shared memory nothing is.
 */
#include "postgres.h"

#include "core/state.h"
#include "ipc/stats_notes.h"
#include "jobs/job_stats.h"
#include "model/catalog.h"

static Oid
live_of_tables(void)
{
	return qml_store(QML_STORE_LOGGED)->live;
}

/* So many like this one are new. */
void
qml_job_stats_made(const QmlJob *job, int count)
{
	if (qml_stats_notes_wanted())
		qml_stats_notes_count(live_of_tables(), job->queue_id, job->method, QML_STAT_ENQUEUED,
							  count);
}

/* How an attempt has ended, or (QML_STAT_NO_COUNTER) a job that was waiting was changed. */
static int
counter_of(const QmlJob *job)
{
	switch (job->state)
	{
		case QML_SUCCEEDED:
			return QML_STAT_SUCCEEDED;
		case QML_FAILED:
			return QML_STAT_FAILED;
		case QML_DELETED:
			return QML_STAT_DELETED;
		default:
			if (job->was != QML_PROCESSING)
				return QML_STAT_NO_COUNTER;
			return job->released ? QML_STAT_RELEASED : QML_STAT_RETRIED;
	}
}

/* The row of an unfinished job was written with another state, or the same. */
void
qml_job_stats_changed(const QmlJob *job)
{
	TimestampTz ready_at = job->ready_at == QML_NO_TIME ? job->created_at : job->ready_at;
	int counter;

	if (job->state == job->was || !qml_stats_notes_wanted())
		return;
	if (job->state == QML_PROCESSING)
	{
		qml_stats_notes_time(live_of_tables(), job->queue_id, job->method, QML_STAT_NO_COUNTER,
							 false, job->started_at - ready_at);
		return;
	}
	counter = counter_of(job);
	if (job->was == QML_PROCESSING && job->told)
		qml_stats_notes_time(live_of_tables(), job->queue_id, job->method, counter, true,
							 job->changed_at - job->started_at);
	else if (counter != QML_STAT_NO_COUNTER)
		qml_stats_notes_count(live_of_tables(), job->queue_id, job->method, counter, 1);
	if (job->was == QML_PROCESSING && job->lost)
		qml_stats_notes_count(live_of_tables(), job->queue_id, job->method, QML_STAT_LOST, 1);
}
