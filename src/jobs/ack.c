/*
 * ack.c
 *		What a worker says about the jobs it holds: done, failed, given back,
 *		still alive, this far.
 *
 * Each word carries the number of the attempt, the fencing token of its claim,
 * and counts only while the job is processing under that very attempt.  A lease
 * that is over but was not reclaimed yet is still good.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/fault.h"
#include "core/state.h"
#include "errcodes.h"
#include "jobs/ack.h"
#include "jobs/transition.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"

/* An acknowledgement on its way. */
typedef struct Pending
{
	QmlAck *ack;
	void (*apply)(QmlJob *job, struct Pending *pending);
	bool strict; /* a stale token is an error */
	bool accepted;
	TimestampTz now;
	QmlState state; /* afterwards */
	TimestampTz lease_expires_at;
} Pending;

static void
raise_stale(const QmlJob *job, int attempt)
{
	const char *id = qml_job_id_string(&job->id);

	if (job->state != QML_PROCESSING)
		ereport(ERROR,
				(errcode(ERRCODE_QML_STALE_CLAIM),
				 errmsg("attempt %d of job %s does not hold the job", attempt, id),
				 errdetail("The job is %s, after attempt %d.", qml_state_label(job->state),
						   job->attempt),
				 errhint("The claim was finished or lost; undo what this attempt did.")));
	ereport(ERROR,
			(errcode(ERRCODE_QML_STALE_CLAIM),
			 errmsg("attempt %d of job %s does not hold the job", attempt, id),
			 errdetail("Attempt %d is processing it.", job->attempt),
			 errhint("The claim was finished or lost; undo what this attempt did.")));
}

/* QmlChange: checks right and token, then lets the acknowledgement have its way. */
static bool
acknowledge(QmlJob *job, void *arg)
{
	Pending *pending = arg;

	qml_acl_require(QML_CAN_WORK, qml_queue_by_id(job->queue_id)->name);
	pending->accepted = job->state == QML_PROCESSING && job->attempt == pending->ack->attempt;
	if (!pending->accepted)
	{
		if (pending->strict)
			raise_stale(job, pending->ack->attempt);
		return false;
	}
	pending->now = GetCurrentTimestamp();
	pending->apply(job, pending);
	pending->state = job->state;
	pending->lease_expires_at = job->lease_expires_at;
	QML_FAULT("finish.before_update");
	return true;
}

static void
run_one(const pg_uuid_t *id, Pending *pending)
{
	QmlWriter writer;

	qml_acl_require_any(QML_CAN_WORK);
	pending->strict = true;
	qml_writer_open(&writer, false, false);
	if (!qml_writer_change(&writer, id, acknowledge, pending))
		ereport(ERROR,
				(errcode(ERRCODE_QML_JOB_NOT_FOUND),
				 errmsg("job %s does not exist", qml_job_id_string(id))));
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("finish.before_commit");
}

static void
apply_succeed(QmlJob *job, Pending *pending)
{
	qml_transition_set(job, QML_SUCCEEDED, pending->now);
	job->result = pending->ack->document;
}

void
qml_ack_succeed(const pg_uuid_t *id, QmlAck *ack)
{
	Pending pending = {.ack = ack, .apply = apply_succeed};

	run_one(id, &pending);
}

/* By id, then by place: of several words about one job the first counts. */
static int
compare_ids(const void *a, const void *b, void *ids)
{
	const pg_uuid_t *all = ids;
	int left = *(const int *) a;
	int right = *(const int *) b;
	int order = memcmp(&all[left], &all[right], sizeof(pg_uuid_t));

	return order != 0 ? order : left - right;
}

/*
 * Finishes many jobs; says which were accepted, and how many.  Rows are locked in
 * the order of their ids, so that two calls with the same jobs cannot deadlock.
 */
int
qml_ack_succeed_many(const pg_uuid_t *ids, QmlAck *acks, int count, bool *accepted)
{
	int *order = palloc(sizeof(int) * Max(count, 1));
	int total = 0;
	QmlWriter writer;

	qml_acl_require_any(QML_CAN_WORK);
	for (int i = 0; i < count; i++)
		order[i] = i;
	qsort_arg(order, count, sizeof(int), compare_ids, unconstify(pg_uuid_t *, ids));

	qml_writer_open(&writer, true, false);
	for (int i = 0; i < count; i++)
	{
		Pending pending = {.ack = &acks[order[i]], .apply = apply_succeed};

		(void) qml_writer_change(&writer, &ids[order[i]], acknowledge, &pending);
		accepted[order[i]] = pending.accepted;
		total += pending.accepted ? 1 : 0;
	}
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("finish.before_commit");
	return total;
}

static void
apply_fail(QmlJob *job, Pending *pending)
{
	QmlAck *ack = pending->ack;

	qml_transition_fail(job, &ack->error, ack->retry, ack->retry_at, pending->now);
}

/* Returns the state that follows: awaiting_retry or failed. */
QmlState
qml_ack_fail(const pg_uuid_t *id, QmlAck *ack)
{
	Pending pending = {.ack = ack, .apply = apply_fail};

	run_one(id, &pending);
	return pending.state;
}

static void
apply_release(QmlJob *job, Pending *pending)
{
	qml_transition_set(job, QML_ENQUEUED, pending->now);
	job->uncounted++;
}

void
qml_ack_release(const pg_uuid_t *id, QmlAck *ack)
{
	Pending pending = {.ack = ack, .apply = apply_release};

	run_one(id, &pending);
}

static void
apply_heartbeat(QmlJob *job, Pending *pending)
{
	int64 lease = pending->ack->lease >= 0 ? pending->ack->lease :
											 qml_queue_lease(qml_queue_by_id(job->queue_id));

	/* One that is bound to its session stays so. */
	if (job->lease_expires_at != QML_NO_TIME)
		job->lease_expires_at = pending->now + lease;
	QML_FAULT("lease.renew");
}

/* Returns the new end of the lease; QML_NO_TIME: it has none, and gets none. */
TimestampTz
qml_ack_heartbeat(const pg_uuid_t *id, QmlAck *ack)
{
	Pending pending = {.ack = ack, .apply = apply_heartbeat};

	run_one(id, &pending);
	return pending.lease_expires_at;
}

static void
apply_progress(QmlJob *job, Pending *pending)
{
	job->progress = pending->ack->document;
}

void
qml_ack_progress(const pg_uuid_t *id, QmlAck *ack)
{
	Pending pending = {.ack = ack, .apply = apply_progress};

	run_one(id, &pending);
}

/* What a job in the database said; nothing if it has ended since. */
static bool
show_progress(QmlJob *job, void *arg)
{
	const QmlAck *ack = arg;

	if (job->state != QML_PROCESSING || job->attempt != ack->attempt)
		return false;
	job->progress = ack->document;
	return true;
}

/* The same by the scheduler, for a worker whose transaction is not to be waited for. */
void
qml_ack_show_progress(const pg_uuid_t *id, QmlAck *ack)
{
	QmlWriter writer;

	qml_writer_open(&writer, false, false);
	/* Nor is somebody else who has the row: the next one that it says is shown. */
	(void) qml_writer_try_change(&writer, id, show_progress, ack);
	qml_writer_close(&writer);
}
