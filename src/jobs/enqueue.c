/*
 * enqueue.c
 *		Adding jobs, as part of the caller's transaction.
 *
 * Rows go below the executor into qml.live; no subtransaction, no NOTIFY, nothing
 * that could not be part of a prepared transaction.  A job exists if and only if
 * the transaction commits.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "common/table.h"
#include "common/uuid.h"
#include "ipc/wakeup.h"
#include "jobs/enqueue.h"
#include "jobs/history.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "userfn/handler.h"
#include "userfn/hook.h"
#include "userfn/trace.h"

/* Rows written together. */
#define ROWS_AT_ONCE 256

/*
 * The queue to add jobs to, made when it is missing, and locked against being
 * dropped.  NULL if it is being made or dropped by somebody who is not waited for.
 */
const QmlQueue *
qml_enqueue_queue(const char *name, bool wait)
{
	bool created;
	const QmlQueue *queue = wait ? qml_queue_to_enqueue(name, &created) :
								   qml_queue_try_to_enqueue(name, &created);

	/* Before the first of its jobs is finished, so that no worker has to. */
	if (queue && created)
		(void) qml_history_prepare();
	return queue;
}

/*
 * Where jobs of the request go: a handler may say so for those that nobody sends
 * elsewhere.  What a schedule says was settled when it was made.
 */
static const char *
choose_queue(const QmlEnqueue *request, const QmlHandler *handler)
{
	if (handler && handler->options.queue && !OidIsValid(request->created_by) &&
		strcmp(request->queue, QML_DEFAULT_QUEUE) == 0)
		return handler->options.queue;
	return request->queue;
}

/* The first that says something, or -1. */
static int
first_given(int a, int b)
{
	return a >= 0 ? a : b;
}

/* The rest of what the request leaves open. */
static void
choose_limits(const QmlEnqueue *request, const QmlHandler *handler, const QmlQueue *queue,
			  QmlJob *job)
{
	job->max_retries = first_given(request->max_retries,
								   handler ? handler->options.common.max_retries : -1);
	if (job->max_retries < 0)
		job->max_retries = qml_queue_max_retries(queue);
	job->timeout_ms = first_given(request->timeout_ms,
								  handler ? handler->options.common.timeout_ms : -1);
	if (job->timeout_ms < 0)
		job->timeout_ms = qml_queue_timeout_ms(queue);
}

/* A job of the request, all but its id and payload. */
static void
prepare_job(const QmlEnqueue *request, const QmlHandler *handler, QmlJob *job)
{
	const char *name = choose_queue(request, handler);
	const QmlQueue *queue;
	TimestampTz now = GetCurrentTimestamp();

	/* A schedule's owner was asked for by whoever fires it. */
	if (!OidIsValid(request->created_by))
		qml_acl_require(QML_CAN_ENQUEUE, name);
	queue = qml_enqueue_queue(name, true);

	memset(job, 0, sizeof(*job));
	job->created_at = now;
	job->queue_id = queue->id;
	job->priority = request->priority;
	job->state = request->run_at > now ? QML_SCHEDULED : QML_ENQUEUED;
	choose_limits(request, handler, queue, job);
	job->created_by = OidIsValid(request->created_by) ? request->created_by : GetUserId();
	job->run_at = job->state == QML_SCHEDULED ? request->run_at : QML_NO_TIME;
	job->started_at = QML_NO_TIME;
	job->finished_at = QML_NO_TIME;
	job->expires_at = QML_NO_TIME;
	job->lease_expires_at = QML_NO_TIME;
	job->method = request->method;
	job->job_type = request->job_type;
	job->metadata = qml_trace_carry(request->metadata);
	if (job->state == QML_SCHEDULED)
		qml_wakeup_at(QML_WAKE_DUE, job->run_at);
	else
		qml_wakeup_ready(queue->id, handler ? handler->run_as : InvalidOid, queue->options.notify);
}

/* What a schedule makes was checked with it; what changed since, the job will find. */
static void
check_payload(const QmlEnqueue *request, const QmlHandler *handler, Datum payload)
{
	if (handler && !OidIsValid(request->created_by))
		qml_handler_check(handler, payload);
}

/*
 * qml.live's primary key sees to unfinished jobs; the id of one that is finished
 * and still to be seen must not come again either.
 */
static void
check_own_id(const pg_uuid_t *id)
{
	Snapshot snapshot = qml_table_latest_snapshot();
	QmlTable leaf;
	QmlJob job;

	if (qml_history_find(id, snapshot, AccessShareLock, &leaf, &job))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("job %s exists already", qml_job_id_string(id)),
				 errdetail("It is finished; its id is free again when it has expired.")));
	UnregisterSnapshot(snapshot);
}

/* By a schedule: its owner was asked for by whoever fires it. */
static bool
is_unasked(const QmlEnqueue *request)
{
	return OidIsValid(request->created_by);
}

/* As it is by now, within a transaction too. */
static const QmlHandler *
find_handler(const QmlEnqueue *request)
{
	AcceptInvalidationMessages();
	return qml_handler_of(request->method);
}

static void
add_job(const QmlEnqueue *request, Datum payload, const pg_uuid_t *id, bool own_id)
{
	const QmlHandler *handler = find_handler(request);
	QmlHookCalls transitions;
	QmlTable live;
	QmlJob job;

	qml_hook_start(&transitions, is_unasked(request));
	prepare_job(request, handler, &job);
	check_payload(request, handler, payload);
	job.id = *id;
	job.payload = payload;

	qml_table_open(&live, qml_catalog()->live, RowExclusiveLock);
	qml_job_to_live(&job, live.row);
	qml_table_insert(&live, live.row);
	qml_hook_note(&transitions, &job, true);
	QML_FAULT("enqueue.after_insert");
	/* After the insert: whoever finishes the same id meanwhile is seen then. */
	if (own_id)
		check_own_id(id);
	qml_table_close(&live);
	qml_hook_run(&transitions);
	QML_FAULT_AT_COMMIT("enqueue.precommit");
}

/* Adds one job under an id that qml_uuid_generate made. */
void
qml_enqueue_one(const QmlEnqueue *request, Datum payload, const pg_uuid_t *id)
{
	add_job(request, payload, id, false);
}

/* Adds one job under the caller's own id. */
void
qml_enqueue_own(const QmlEnqueue *request, Datum payload, const pg_uuid_t *id)
{
	add_job(request, payload, id, true);
}

/* Adds one job per payload; fills ids in the same order. */
void
qml_enqueue_batch(const QmlEnqueue *request, const Datum *payloads, int count, pg_uuid_t *ids)
{
	const QmlHandler *handler = find_handler(request);
	QmlHookCalls transitions;
	QmlTable live;
	QmlJob *jobs;
	TupleTableSlot **rows;
	int nrows = Min(count, ROWS_AT_ONCE);

	if (count == 0)
	{
		qml_acl_require(QML_CAN_ENQUEUE, choose_queue(request, handler));
		return;
	}
	jobs = palloc(sizeof(QmlJob) * nrows);
	rows = palloc(sizeof(TupleTableSlot *) * nrows);
	qml_hook_start(&transitions, is_unasked(request));
	prepare_job(request, handler, &jobs[0]);
	qml_table_open(&live, qml_catalog()->live, RowExclusiveLock);
	for (int i = 0; i < nrows; i++)
	{
		jobs[i] = jobs[0];
		rows[i] = MakeSingleTupleTableSlot(RelationGetDescr(live.rel), &TTSOpsVirtual);
	}

	for (int done = 0; done < count;)
	{
		int n = Min(count - done, nrows);

		for (int i = 0; i < n; i++)
		{
			qml_uuid_generate(&ids[done + i]);
			jobs[i].id = ids[done + i];
			jobs[i].payload = payloads[done + i];
			check_payload(request, handler, payloads[done + i]);
			qml_job_to_live(&jobs[i], rows[i]);
		}
		qml_table_insert_many(&live, rows, n);
		for (int i = 0; i < n; i++)
			qml_hook_note(&transitions, &jobs[i], true);
		QML_FAULT("enqueue.after_insert");
		CHECK_FOR_INTERRUPTS();
		done += n;
	}

	for (int i = 0; i < nrows; i++)
		ExecDropSingleTupleTableSlot(rows[i]);
	qml_table_close(&live);
	qml_hook_run(&transitions);
	QML_FAULT_AT_COMMIT("enqueue.precommit");
}
