/*
 * control.c
 *		Changing jobs by hand: delete, retry, schedule, any transition.
 *
 * Administrators of a queue may change its jobs; whoever may enqueue to it may
 * delete, retry and schedule his own.  These wait for whoever is changing the
 * job, and then judge what it has become.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "core/state.h"
#include "errcodes.h"
#include "jobs/control.h"
#include "jobs/transition.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "model/queue.h"

typedef struct Request
{
	const QmlControl *control;
	bool own; /* one's own job will do */
	bool changed;
	Datum row;
} Request;

static void
require_right(const QmlJob *job, bool own)
{
	const char *queue = qml_queue_by_id(job->queue_id)->name;

	if (own && qml_acl_own_job(queue, job->created_by))
		return;
	qml_acl_require(QML_CAN_ADMIN, queue);
}

static void
require_any_right(bool own)
{
	if (own && qml_acl_allow_any(QML_CAN_ENQUEUE))
		return;
	qml_acl_require_any(QML_CAN_ADMIN);
}

static void
run(const pg_uuid_t *id, QmlChange change, Request *request)
{
	QmlWriter writer;

	require_any_right(request->own);
	qml_writer_open(&writer, false, false);
	if (!qml_writer_change(&writer, id, change, request))
		ereport(ERROR,
				(errcode(ERRCODE_QML_JOB_NOT_FOUND),
				 errmsg("job %s does not exist", qml_job_id_string(id))));
	qml_writer_close(&writer);
}

static bool
delete_job(QmlJob *job, void *arg)
{
	Request *request = arg;

	require_right(job, true);
	request->changed = job->state != QML_DELETED;
	if (!request->changed)
		return false;
	qml_transition_set(job, QML_DELETED, GetCurrentTimestamp());
	job->reason = request->control->reason;
	return true;
}

/* False when the job is deleted already. */
bool
qml_control_delete(const pg_uuid_t *id, Datum reason)
{
	QmlControl control = {.reason = reason};
	Request request = {.control = &control, .own = true};

	run(id, delete_job, &request);
	return request.changed;
}

static bool
retry_job(QmlJob *job, void *arg)
{
	Request *request = arg;

	require_right(job, true);
	/* Giving back a claim is for the worker or the lease, not for a retry. */
	if (job->state == QML_PROCESSING)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_STATE_TRANSITION),
				 errmsg("job %s is being processed", qml_job_id_string(&job->id)),
				 errhint("Wait for attempt %d to end.", job->attempt)));
	request->changed = job->state != QML_ENQUEUED;
	if (!request->changed)
		return false;
	qml_transition_set(job, QML_ENQUEUED, GetCurrentTimestamp());
	return true;
}

/* False when the job is enqueued already. */
bool
qml_control_retry(const pg_uuid_t *id)
{
	Request request = {.own = true};

	run(id, retry_job, &request);
	return request.changed;
}

static bool
schedule_job(QmlJob *job, void *arg)
{
	Request *request = arg;
	TimestampTz run_at = request->control->run_at;

	require_right(job, true);
	/* Another time for a scheduled job is no transition. */
	if (job->state != QML_SCHEDULED)
		qml_transition_set(job, QML_SCHEDULED, GetCurrentTimestamp());
	request->changed = job->run_at != run_at;
	job->run_at = run_at;
	if (request->control->reason != (Datum) 0)
		job->reason = request->control->reason;
	return request->changed;
}

/* False when the job is scheduled for that time already. */
bool
qml_control_schedule(const pg_uuid_t *id, TimestampTz run_at, Datum reason)
{
	QmlControl control = {.run_at = run_at, .reason = reason};
	Request request = {.control = &control, .own = true};

	run(id, schedule_job, &request);
	return request.changed;
}

static void
fill_state(QmlJob *job, const QmlControl *control, TimestampTz now)
{
	switch (control->to)
	{
		case QML_SCHEDULED:
		case QML_AWAITING_RETRY:
			job->run_at = control->run_at == QML_NO_TIME ? now : control->run_at;
			break;
		case QML_PROCESSING:
			job->worker = control->worker;
			job->lease_expires_at = now + (control->lease >= 0 ?
											   control->lease :
											   qml_queue_lease(qml_queue_by_id(job->queue_id)));
			break;
		case QML_SUCCEEDED:
			job->result = control->result;
			break;
		default:
			break;
	}
	if (control->reason != (Datum) 0)
		job->reason = control->reason;
}

static bool
set_state(QmlJob *job, void *arg)
{
	Request *request = arg;
	const QmlControl *control = request->control;
	TimestampTz now = GetCurrentTimestamp();

	require_right(job, false);
	/* An attempt that ends this way leaves its error like any other. */
	if (control->error.error != (Datum) 0 && qml_state_allowed(job->state, control->to))
		qml_job_add_error(job, &control->error, now);
	qml_transition_set(job, control->to, now);
	fill_state(job, control, now);
	request->row = qml_job_to_row(job, true);
	return true;
}

/* Any transition that the table allows; returns the job as it is then. */
Datum
qml_control_set_state(const pg_uuid_t *id, const QmlControl *control)
{
	Request request = {.control = control};

	run(id, set_state, &request);
	return request.row;
}
