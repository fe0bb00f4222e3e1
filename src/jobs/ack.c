/*
 * ack.c
 *		Acknowledgements: what workers say about the jobs they hold.
 *
 * Each one names the number of the attempt, the fencing token of its claim, and counts
 * only while the job is processing under that very attempt.  A lease that is over but
 * was not reclaimed yet is still good.  A stale token is error QM003 where one job is
 * acknowledged, so that what its attempt did is rolled back with it; where there are
 * many it is left out.
 *
 * Acknowledgements wait for others that are changing the job.  Where there are many,
 * rows are locked in the order of their ids, so that two calls about the same jobs
 * cannot deadlock.  A crash before the commit leaves the job processing.
 */
#include "postgres.h"

#include "common/fault.h"
#include "core/state.h"
#include "errcodes.h"
#include "jobs/ack.h"
#include "jobs/transition.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "model/queue.h"

/* QmlChange: does what the acknowledgement says, if its attempt holds the job. */
static bool
apply_ack(QmlJob *job, void *arg)
{
	QmlAck *ack = arg;
	const QmlQueue *queue = qml_queue_require(job->queue_id);
	TimestampTz now;

	qml_acl_require(QML_CAN_WORK, queue->name);
	ack->accepted = job->state == QML_PROCESSING && job->attempt == ack->attempt;
	if (!ack->accepted)
		return false;
	now = GetCurrentTimestamp();
	switch (ack->kind)
	{
		case QML_ACK_SUCCEED:
			qml_transition_set(job, QML_SUCCEEDED, now);
			job->result = ack->document;
			break;
		case QML_ACK_FAIL:
			qml_transition_fail(job, &ack->error, ack->retry, ack->retry_at, now);
			break;
		case QML_ACK_RELEASE:
			qml_transition_set(job, QML_ENQUEUED, now);
			job->uncounted++;
			break;
		case QML_ACK_HEARTBEAT:
			/* A claim that is bound to its session stays so. */
			if (job->lease_expires_at != QML_NO_TIME)
				job->lease_expires_at = now +
										(ack->lease >= 0 ? ack->lease : qml_queue_lease(queue));
			QML_FAULT("lease.renew");
			break;
		case QML_ACK_PROGRESS:
			job->progress = ack->document;
			break;
	}
	Assert(job->attempt == ack->attempt);
	ack->state = job->state;
	ack->lease_expires_at = job->lease_expires_at;
	QML_FAULT("finish.before_update");
	return true;
}

/* QmlChange: the same, but a stale token is an error. */
static bool
apply_ack_or_raise(QmlJob *job, void *arg)
{
	QmlAck *ack = arg;

	if (!apply_ack(job, ack))
		ereport(ERROR,
				(errcode(ERRCODE_QML_STALE_CLAIM),
				 errmsg("attempt %d of job %s does not hold the job", ack->attempt,
						qml_job_id_string(&job->id)),
				 job->state == QML_PROCESSING ?
					 errdetail("Attempt %d is processing it.", job->attempt) :
					 errdetail("The job is %s, after attempt %d.", qml_state_label(job->state),
							   job->attempt),
				 errhint("The claim was finished or lost; undo what this attempt did.")));
	return true;
}

/* Acknowledges one job; raises QM001 or QM003 if the attempt does not hold it. */
void
qml_ack_one(const pg_uuid_t *id, QmlAck *ack)
{
	QmlWriter writer;

	qml_acl_require_any(QML_CAN_WORK);
	qml_writer_open(&writer, false, false);
	if (!qml_writer_change(&writer, id, apply_ack_or_raise, ack))
		ereport(ERROR,
				(errcode(ERRCODE_QML_JOB_NOT_FOUND),
				 errmsg("job %s does not exist", qml_job_id_string(id))));
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("finish.before_commit");
}

/* By id, then by place: of several acknowledgements of one job the first counts. */
static int
compare_ids(const void *a, const void *b, void *ids)
{
	const pg_uuid_t *all = ids;
	int left = *(const int *) a;
	int right = *(const int *) b;
	int order = memcmp(&all[left], &all[right], sizeof(pg_uuid_t));

	return order != 0 ? order : left - right;
}

/* Acknowledges many jobs; `accepted` of each says whether its attempt held the job. */
void
qml_ack_many(const pg_uuid_t *ids, QmlAck *acks, int count)
{
	int *order = palloc(sizeof(int) * Max(count, 1));
	QmlWriter writer;

	qml_acl_require_any(QML_CAN_WORK);
	for (int i = 0; i < count; i++)
		order[i] = i;
	qsort_arg(order, count, sizeof(int), compare_ids, unconstify(pg_uuid_t *, ids));

	qml_writer_open(&writer, true, false);
	for (int i = 0; i < count; i++)
	{
		QmlAck *ack = &acks[order[i]];

		Assert(i == 0 || memcmp(&ids[order[i - 1]], &ids[order[i]], sizeof(pg_uuid_t)) <= 0);
		if (!qml_writer_change(&writer, &ids[order[i]], apply_ack, ack))
			ack->accepted = false;
	}
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("finish.before_commit");
}

/* QmlChange: progress, unless the attempt has ended since. */
static bool
write_progress(QmlJob *job, void *arg)
{
	const QmlAck *ack = arg;

	if (job->state != QML_PROCESSING || job->attempt != ack->attempt)
		return false;
	job->progress = ack->document;
	return true;
}

/*
 * Writes the progress of a job that runs in a background worker, whose transaction must
 * not be waited for.  For the scheduler, which needs no right.
 */
void
qml_ack_write_progress(const pg_uuid_t *id, QmlAck *ack)
{
	QmlWriter writer;

	qml_writer_open(&writer, false, false);
	/* If somebody else has the row, the next progress is shown. */
	(void) qml_writer_try_change(&writer, id, write_progress, ack);
	qml_writer_close(&writer);
}
