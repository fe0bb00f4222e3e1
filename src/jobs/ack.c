/*
 * ack.c
 *		Acknowledgements: what workers say about the jobs they hold.
 *
 * Each one names the number of the attempt, the fencing token of its claim, and counts
 * only while the job is processing under that very attempt.  A lease that is over but
 * was not reclaimed yet is still good.  A stale token is error QM003 where one job is
 * acknowledged, so that what its attempt did is rolled back with it; where there are
 * many it is left out.  So is a job whose queue the role may not work any more: it must not
 * keep the others from ending.
 *
 * Acknowledgements wait for others that are changing the job.  Where there are many,
 * rows are locked in the order of their ids, so that two calls about the same jobs
 * cannot deadlock.  A crash before the commit leaves the job processing.
 *
 * Heartbeats never wait: a worker's other jobs would lose their leases meanwhile.  That
 * of a job whose row another transaction has is kept in shared memory (ipc/beats.c).
 */
#include "postgres.h"

#include "miscadmin.h"

#include "common/fault.h"
#include "core/state.h"
#include "errcodes.h"
#include "ipc/beats.h"
#include "ipc/waiters.h"
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
	TimestampTz now;

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
			qml_transition_fail(job, &ack->error, ack->retry, ack->run_at, now);
			break;
		case QML_ACK_RELEASE:
			qml_transition_release(job, ack->run_at, ack->reason, now);
			break;
		case QML_ACK_DISCARD:
			qml_transition_delete(job, ack->reason, now);
			break;
		case QML_ACK_PROGRESS:
			job->progress = ack->document;
			break;
	}
	Assert(job->attempt == ack->attempt);
	job->told = true;
	ack->state = job->state;
	QML_FAULT("finish.before_update");
	return true;
}

/* The row is written: whether the attempt has ended counts for whom a wake-up reaches. */
static void
tell_end(const QmlAck *ack)
{
	if (ack->accepted && ack->state != QML_PROCESSING)
		qml_waiters_ended();
}

/* The attempt does not hold the job, which is as it was found. */
static void
raise_stale(const QmlJob *job, int attempt)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_STALE_CLAIM),
			 errmsg("attempt %d of job %s does not hold the job", attempt,
					qml_job_id_string(&job->id)),
			 job->state == QML_PROCESSING ?
				 errdetail("Attempt %d is processing it.", job->attempt) :
				 errdetail("The job is %s, after attempt %d.", qml_state_label(job->state),
						   job->attempt),
			 errhint("The claim was finished or lost; undo what this attempt did.")));
}

/* QmlChange: the same, but a stale token is an error. */
static bool
apply_ack_or_raise(QmlJob *job, void *arg)
{
	QmlAck *ack = arg;

	qml_acl_require(QML_CAN_WORK, qml_queue_require(job->queue_id)->name);
	if (!apply_ack(job, ack))
		raise_stale(job, ack->attempt);
	return true;
}

/* QmlChange: the same among many; a job that the caller may not work is as one that is lost. */
static bool
apply_ack_or_skip(QmlJob *job, void *arg)
{
	QmlAck *ack = arg;

	ack->accepted = false;
	ack->forbidden = !qml_acl_allow(QML_CAN_WORK, qml_queue_require(job->queue_id)->name);
	return !ack->forbidden && apply_ack(job, ack);
}

/* Acknowledges one job; raises QM001 or QM003 if the attempt does not hold it. */
void
qml_ack_one(const pg_uuid_t *id, QmlAck *ack)
{
	QmlWriter writer;

	qml_acl_require_any(QML_CAN_WORK);
	qml_writer_open(&writer, false, false);
	if (ack->kind != QML_ACK_PROGRESS)
		qml_writer_expect_ends(&writer);
	if (!qml_writer_change(&writer, id, apply_ack_or_raise, ack))
		qml_job_raise_missing(id);
	qml_writer_close(&writer);
	tell_end(ack);
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
	int accepted = -1; /* the last one */
	QmlWriter writer;

	qml_acl_require_any(QML_CAN_WORK);
	for (int i = 0; i < count; i++)
		order[i] = i;
	qsort_arg(order, count, sizeof(int), compare_ids, unconstify(pg_uuid_t *, ids));

	qml_writer_open(&writer, true, false);
	qml_writer_expect_ends(&writer);
	for (int i = 0; i < count; i++)
	{
		QmlAck *ack = &acks[order[i]];

		CHECK_FOR_INTERRUPTS();
		Assert(i == 0 || memcmp(&ids[order[i - 1]], &ids[order[i]], sizeof(pg_uuid_t)) <= 0);
		if (!qml_writer_change(&writer, &ids[order[i]], apply_ack_or_skip, ack))
			ack->accepted = false;
		tell_end(ack);
		if (ack->accepted)
			accepted = order[i];
		else
			ack->repeated = accepted >= 0 && acks[accepted].attempt == ack->attempt &&
							memcmp(&ids[accepted], &ids[order[i]], sizeof(pg_uuid_t)) == 0;
	}
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("finish.before_commit");
}

/* ----- heartbeats ----- */

/*
 * QmlChange: extends the lease, if the attempt holds the job.  One that has succeeded with
 * it has nothing to extend, and nothing to worry about: its heartbeat crossed its end.
 */
static bool
apply_beat(QmlJob *job, QmlHeartbeat *beat)
{
	const QmlQueue *queue = qml_queue_require(job->queue_id);

	beat->lease_end = QML_NO_TIME;
	beat->accepted = job->attempt == beat->attempt &&
					 (job->state == QML_PROCESSING || job->state == QML_SUCCEEDED);
	/* A claim that is bound to its session stays so. */
	if (!beat->accepted || job->lease_expires_at == QML_NO_TIME)
		return false;
	beat->row_end = job->lease_expires_at;
	job->lease_expires_at = GetCurrentTimestamp() +
							(beat->lease >= 0 ? beat->lease : qml_queue_lease(queue));
	beat->lease_end = job->lease_expires_at;
	QML_FAULT("lease.renew");
	QML_FAULT("finish.before_update");
	return true;
}

/* QmlChange: the same; a job that is lost is an error. */
static bool
apply_beat_or_raise(QmlJob *job, void *arg)
{
	QmlHeartbeat *beat = arg;
	bool extended;

	qml_acl_require(QML_CAN_WORK, qml_queue_require(job->queue_id)->name);
	extended = apply_beat(job, beat);
	if (!beat->accepted)
		raise_stale(job, beat->attempt);
	return extended;
}

/* QmlChange: the same among many; so is a job that the caller may not work any more. */
static bool
apply_beat_or_skip(QmlJob *job, void *arg)
{
	QmlHeartbeat *beat = arg;

	beat->accepted = false;
	return qml_acl_allow(QML_CAN_WORK, qml_queue_require(job->queue_id)->name) &&
		   apply_beat(job, beat);
}

/* Sends one heartbeat; returns what there is of the job. */
static QmlChanged
send_beat(QmlWriter *writer, const pg_uuid_t *id, QmlChange apply, QmlHeartbeat *beat)
{
	QmlChanged changed = qml_writer_change_unless_held(writer, id, apply, beat);

	if (changed == QML_HELD)
	{
		if (!qml_beats_keep(id, beat->attempt, beat->row_end, &beat->lease_end))
			beat->lease_end = QML_NO_TIME;
	}
	else if (changed == QML_UNSEEN)
	{
		/* It has ended, if it was there; a later heartbeat tells how. */
		beat->accepted = true;
		beat->lease_end = QML_NO_TIME;
	}
	else if (changed == QML_CHANGED && beat->accepted && beat->lease_end != QML_NO_TIME)
		/* An earlier one may have extended it for longer. */
		beat->lease_end = qml_beats_end(id, beat->attempt, beat->lease_end);
	return changed;
}

/* Extends the lease of one job; raises QM001 or QM003 if the job is lost. */
void
qml_ack_heartbeat(const pg_uuid_t *id, QmlHeartbeat *beat)
{
	QmlWriter writer;

	qml_acl_require_any(QML_CAN_WORK);
	qml_writer_open(&writer, false, false);
	writer.latest = true; /* as below */
	writer.unwatched = true;
	if (send_beat(&writer, id, apply_beat_or_raise, beat) == QML_NO_SUCH_JOB)
		qml_job_raise_missing(id);
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("finish.before_commit");
}

/* Extends the leases of many jobs; `accepted` of each says whether the job is not lost. */
void
qml_ack_heartbeat_many(const pg_uuid_t *ids, QmlHeartbeat *beats, int count)
{
	QmlWriter writer;

	qml_acl_require_any(QML_CAN_WORK);
	qml_writer_open(&writer, false, false);
	/* A lease is nothing that a transaction could have read: one conflict must not end all. */
	writer.latest = true;
	/* A heartbeat says that nothing has changed. */
	writer.unwatched = true;
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (send_beat(&writer, &ids[i], apply_beat_or_skip, &beats[i]) == QML_NO_SUCH_JOB)
			beats[i].accepted = false;
	}
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("finish.before_commit");
}

/* ----- progress of jobs in the database ----- */

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
