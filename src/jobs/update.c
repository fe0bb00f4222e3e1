/*
 * update.c
 *		Changing what a job is: its queue, priority, payload and the like.
 *
 * A job that runs is its worker's, and one that has succeeded or was deleted is over: neither
 * changes.  One that has failed does, because it can be retried.  Whoever changes the payload or
 * the queue becomes the one who made the job, since it is not any more what the other one asked
 * for.
 *
 * Administrators of its queue may change a job; to move it, they need the right to enqueue to the
 * other one.  That queue is locked first, as by those who enqueue: a queue comes before the rows
 * of jobs.  A change waits for others that are changing the job, and then judges what it has
 * become.  All of it is the caller's transaction, with the record of what was done.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/jsonb.h"

#include "core/state.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "jobs/control.h"
#include "jobs/enqueue.h"
#include "jobs/job_audit.h"
#include "jobs/transition.h"
#include "jobs/update.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "userfn/hook_job.h"

/* One call. */
typedef struct Update
{
	const QmlJobChanges *changes;
	const QmlQueue *queue; /* to move it to; NULL: none */
	bool changed;
	QmlAuditAct act;
} Update;

/* Raises an error unless a job in this state can be changed. */
static void
check_state(const QmlJob *job, const QmlJobChanges *changes)
{
	if (job->state == QML_PROCESSING)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_STATE_TRANSITION),
				 errmsg("job %s is being processed", qml_job_id_string(&job->id)),
				 errhint("Wait for attempt %d to end.", job->attempt)));
	if (job->state == QML_SUCCEEDED || job->state == QML_DELETED)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_STATE_TRANSITION),
				 errmsg("job %s is in state %s, and is not changed any more", qml_job_id_string(&job->id),
						qml_state_label(job->state)),
				 errhint("Enqueue a new job.")));
	if (changes->has_run_at && job->state != QML_SCHEDULED && job->state != QML_ENQUEUED &&
		job->state != QML_AWAITING_RETRY)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_STATE_TRANSITION),
				 errmsg("\"run_at\" of job %s cannot be changed in state %s",
						qml_job_id_string(&job->id), qml_state_label(job->state)),
				 job->state == QML_FAILED ? errhint("qml_retry() enqueues it again.") : 0));
	if (qml_queue_is_own(job->queue_id) &&
		(changes->queue || changes->payload != (Datum) 0 || changes->has_metadata))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("job %s calls a hook", qml_job_id_string(&job->id)),
				 errdetail("Its queue, payload and metadata are not for others to change.")));
}

/* The time at which the job is to run; none, or one that has come, is now. */
static void
set_run_at(QmlJob *job, TimestampTz run_at, TimestampTz now)
{
	bool later = run_at != QML_NO_TIME && run_at > now;

	if (!later)
	{
		if (job->state != QML_ENQUEUED)
			qml_transition_set(job, QML_ENQUEUED, now);
		return;
	}
	/* Another time for a job that waits for one is no transition. */
	if (job->state == QML_ENQUEUED)
		qml_transition_set(job, QML_SCHEDULED, now);
	job->run_at = run_at;
}

/* As a new job would have it: that of the handler, of the queue, or of the settings. */
static void
set_retries(QmlJob *job, const QmlJobChanges *changes, const QmlHandler *handler)
{
	int asked = changes->max_retries;

	if (asked < 0 && handler)
		asked = handler->options.common.max_retries;
	job->max_retries = asked >= 0 ? asked : qml_queue_max_retries(qml_queue_require(job->queue_id));
	job->retries_asked = job->max_retries > 0 &&
						 (changes->max_retries >= 0 || (handler && handler->command));
}

static void
set_timeout(QmlJob *job, const QmlJobChanges *changes, const QmlHandler *handler)
{
	int asked = changes->timeout_ms;

	if (asked < 0 && handler)
		asked = handler->options.common.timeout_ms;
	job->timeout_ms = asked >= 0 ? asked : qml_queue_timeout_ms(qml_queue_require(job->queue_id));
}

static bool
is_same_document(Datum a, Datum b)
{
	if (a == (Datum) 0 || b == (Datum) 0)
		return a == b;
	return compareJsonbContainers(&DatumGetJsonbP(a)->root, &DatumGetJsonbP(b)->root) == 0;
}

/*
 * Changes a job in memory, which the caller may change; queue: the one that the changes name,
 * locked.  Raises an error if that cannot be; false: it is so already.
 */
bool
qml_update_apply(QmlJob *job, const QmlQueue *queue, const QmlJobChanges *changes, TimestampTz now)
{
	QmlJob before = *job;
	const QmlHandler *handler;
	bool remade = false;

	check_state(job, changes);
	handler = qml_hook_job_handler(job);
	if (queue && queue->id != job->queue_id)
	{
		job->queue_id = queue->id;
		remade = true;
	}
	if (changes->payload != (Datum) 0 && !is_same_document(changes->payload, job->payload))
	{
		if (handler)
			qml_handler_check(handler, changes->payload);
		job->payload = changes->payload;
		remade = true;
	}
	if (changes->has_metadata && !is_same_document(changes->metadata, job->metadata))
		job->metadata = changes->metadata;
	if (changes->has_priority)
		job->priority = changes->priority;
	if (changes->has_max_retries)
		set_retries(job, changes, handler);
	if (changes->has_timeout)
		set_timeout(job, changes, handler);
	if (changes->has_run_at)
		set_run_at(job, changes->run_at, now);
	if (remade)
		job->created_by = GetUserId();
	return remade || job->metadata != before.metadata || job->priority != before.priority ||
		   job->max_retries != before.max_retries || job->retries_asked != before.retries_asked ||
		   job->timeout_ms != before.timeout_ms || job->state != before.state ||
		   job->run_at != before.run_at;
}

/* QmlChange. */
static bool
update_job(QmlJob *job, void *arg)
{
	Update *update = arg;
	QmlJob before = *job;

	qml_control_check_admin(job);
	update->changed = qml_update_apply(job, update->queue, update->changes, GetCurrentTimestamp());
	if (update->changed)
		qml_job_audit_note(&update->act, &before, job);
	return update->changed;
}

/* Changes a job; false: it is so already.  Raises QM001 when there is none. */
bool
qml_update_by_id(const pg_uuid_t *id, const QmlJobChanges *changes)
{
	Update update = {.changes = changes, .act.action = "qml_update_job"};
	QmlWriter writer;

	/* The handler and the rights as they are now, also within a transaction. */
	qml_wakeup_read_rules();
	AcceptInvalidationMessages();
	if (changes->queue)
	{
		qml_acl_require(QML_CAN_ENQUEUE, changes->queue);
		update.queue = qml_enqueue_lock_queue(changes->queue, true);
	}
	qml_writer_open(&writer, false, false);
	if (!qml_writer_change(&writer, id, update_job, &update))
		qml_job_raise_missing(id);
	qml_writer_close(&writer);
	if (update.changed)
		qml_audit_write(&update.act);
	return update.changed;
}
