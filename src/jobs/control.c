/*
 * control.c
 *		Changing jobs by hand: delete, retry, reschedule, any transition.
 *
 * Administrators of a queue may change its jobs.  Roles that may enqueue to it may
 * delete, retry and reschedule their own jobs.
 *
 * These functions wait for others that are changing the job, and then judge what it has
 * become.  Asking for the state that a job is in already is no transition: they answer
 * false.  All of it is the caller's transaction, with the record of what was done.
 */
#include "postgres.h"

#include "core/state.h"
#include "errcodes.h"
#include "jobs/control.h"
#include "jobs/job_audit.h"
#include "jobs/transition.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "model/queue.h"

/* One call. */
typedef struct ControlRequest
{
	QmlState to;			  /* of qml_control_set_state() */
	const QmlStateData *data; /* NULL: none */
	bool own_suffices;		  /* a right to enqueue is enough for one's own job */
	bool changed;
	Datum row;		 /* the job afterwards */
	QmlAuditAct act; /* with the name of the function */
} ControlRequest;

/*
 * Raises 42501 unless the current user may change the job; QM001 to one who sees nothing of its
 * queue, and therefore is not told that it is there.
 */
static void
check_right(const QmlJob *job, const ControlRequest *request)
{
	const char *queue = qml_queue_require(job->queue_id)->name;

	if (request->own_suffices && qml_acl_own_job(queue, job->created_by))
		return;
	if (!qml_acl_see_queue(queue))
		qml_job_raise_missing(&job->id);
	qml_acl_require(QML_CAN_ADMIN, queue);
}

/* Raises the same errors unless the current user administers the queue of the job. */
void
qml_control_check_admin(const QmlJob *job)
{
	ControlRequest request = {.own_suffices = false};

	check_right(job, &request);
}

/* Changes a job, or raises QM001. */
static void
change_job(const pg_uuid_t *id, QmlChange change, ControlRequest *request)
{
	QmlWriter writer;

	/* Without any right there is no answer, not even whether the job exists. */
	if (!request->own_suffices || !qml_acl_allow_any(QML_CAN_ENQUEUE))
		qml_acl_require_any(QML_CAN_ADMIN);
	qml_writer_open(&writer, false, false);
	if (!qml_writer_change(&writer, id, change, request))
		qml_job_raise_missing(id);
	qml_writer_close(&writer);
	if (request->changed)
		qml_audit_write(&request->act);
}

/* QmlChange. */
static bool
delete_job(QmlJob *job, void *arg)
{
	ControlRequest *request = arg;
	QmlJob before = *job;

	check_right(job, request);
	request->changed = job->state != QML_DELETED;
	if (!request->changed)
		return false;
	qml_transition_delete(job, request->data->reason, GetCurrentTimestamp());
	qml_job_audit_note(&request->act, &before, job);
	return true;
}

/* False when the job is deleted already. */
bool
qml_control_delete(const pg_uuid_t *id, Datum reason)
{
	QmlStateData data = {.reason = reason};
	ControlRequest request = {.data = &data, .own_suffices = true, .act.action = "qml_delete"};

	change_job(id, delete_job, &request);
	return request.changed;
}

/* The same for administrators alone. */
bool
qml_control_cancel(const pg_uuid_t *id, Datum reason)
{
	QmlStateData data = {.reason = reason};
	ControlRequest request = {.data = &data, .act.action = "qml_cancel"};

	change_job(id, delete_job, &request);
	return request.changed;
}

/* QmlChange. */
static bool
retry_job(QmlJob *job, void *arg)
{
	ControlRequest *request = arg;
	QmlJob before = *job;

	check_right(job, request);
	/* The table allows it, but only the worker or the end of its lease gives a claim back. */
	if (job->state == QML_PROCESSING)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_STATE_TRANSITION),
				 errmsg("job %s is being processed", qml_job_id_string(&job->id)),
				 errhint("Wait for attempt %d to end.", job->attempt)));
	request->changed = job->state != QML_ENQUEUED;
	if (!request->changed)
		return false;
	qml_transition_set(job, QML_ENQUEUED, GetCurrentTimestamp());
	qml_job_audit_note(&request->act, &before, job);
	return true;
}

/* False when the job is enqueued already. */
bool
qml_control_retry(const pg_uuid_t *id)
{
	ControlRequest request = {.own_suffices = true, .act.action = "qml_retry"};

	change_job(id, retry_job, &request);
	return request.changed;
}

/* QmlChange. */
static bool
schedule_job(QmlJob *job, void *arg)
{
	ControlRequest *request = arg;
	TimestampTz run_at = request->data->run_at;
	QmlJob before = *job;

	check_right(job, request);
	/* Another time for a scheduled job is no transition. */
	if (job->state != QML_SCHEDULED)
		qml_transition_set(job, QML_SCHEDULED, GetCurrentTimestamp());
	request->changed = job->run_at != run_at;
	job->run_at = run_at;
	if (request->data->reason != (Datum) 0)
		job->reason = request->data->reason;
	if (request->changed)
		qml_job_audit_note(&request->act, &before, job);
	return request->changed;
}

/* False when the job is scheduled for that time already. */
bool
qml_control_schedule(const pg_uuid_t *id, TimestampTz run_at, Datum reason)
{
	QmlStateData data = {.run_at = run_at, .reason = reason};
	ControlRequest request = {.data = &data, .own_suffices = true, .act.action = "qml_reschedule"};

	change_job(id, schedule_job, &request);
	return request.changed;
}

/* QmlChange. */
static bool
set_job_state(QmlJob *job, void *arg)
{
	ControlRequest *request = arg;
	const QmlStateData *data = request->data;
	TimestampTz now = GetCurrentTimestamp();
	QmlJob before = *job;

	check_right(job, request);
	/* An attempt that ends this way leaves its error like any other. */
	if (data->error != (Datum) 0 && qml_state_allowed(job->state, request->to))
	{
		QmlJobError error = {.error = data->error,
							 .error_type = data->error_type,
							 .stack_trace = data->stack_trace};

		qml_job_add_error(job, &error, now);
	}
	qml_transition_set(job, request->to, now);

	/* Sets what else belongs to the state, if given. */
	switch (request->to)
	{
		case QML_SCHEDULED:
		case QML_AWAITING_RETRY:
			job->run_at = data->run_at == QML_NO_TIME ? now : data->run_at;
			break;
		case QML_PROCESSING:
			job->worker = data->worker;
			job->lease_expires_at = now + (data->lease >= 0 ?
											   data->lease :
											   qml_queue_lease(qml_queue_require(job->queue_id)));
			break;
		case QML_SUCCEEDED:
			job->result = data->result;
			break;
		default:
			break;
	}
	if (data->reason != (Datum) 0)
		job->reason = data->reason;
	request->row = qml_job_row(job, QML_ACCESS_FULL);
	request->changed = true;
	qml_job_audit_note(&request->act, &before, job);
	return true;
}

/* Makes any transition that the table allows; returns the job as it is then. */
Datum
qml_control_set_state(const pg_uuid_t *id, QmlState state, const QmlStateData *data)
{
	ControlRequest request = {.to = state, .data = data, .act.action = "qml_set_state"};

	change_job(id, set_job_state, &request);
	return request.row;
}
