/*
 * enqueue.c
 *		Adding jobs, as part of the caller's transaction.
 *
 * A job exists if and only if that transaction commits; a crash before leaves no job.
 * Rows go below the executor into the table of unfinished jobs; there is no subtransaction, no
 * NOTIFY, and nothing else that could not be part of a prepared transaction.
 *
 * What the request leaves open is settled here, once for all jobs of a call: by the
 * handler of the method, then by the queue, then by the settings.
 *
 * The queue is locked before qml.live, shared and to the end of the transaction, so that
 * it is not dropped before its new jobs can be seen.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"

#include "common/fault.h"
#include "common/uuid.h"
#include "ipc/wakeup.h"
#include "jobs/enqueue.h"
#include "jobs/own_id.h"
#include "jobs/partition.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "model/lineage.h"
#include "model/queue.h"
#include "userfn/handler.h"
#include "userfn/trace.h"

/* Rows written together. */
#define ROWS_AT_ONCE 256

/* The partitions of the history: now, so that they are there for the first job. */
static void
prepare_history(const QmlQueue *queue)
{
	(void) qml_partition_make_ahead(qml_queue_store(queue), qml_queue_ttls_of(queue), NULL);
}

/*
 * The queue to add jobs to, made when it is missing, and locked against being dropped.
 * named: by a caller, who is told if it is made.
 */
const QmlQueue *
qml_enqueue_lock_queue(const char *name, bool named)
{
	bool created;
	const QmlQueue *queue = qml_queue_to_enqueue(name, named, &created);

	if (created)
		prepare_history(queue);
	return queue;
}

/* The same for a schedule; NULL if somebody else is making or dropping the queue. */
const QmlQueue *
qml_enqueue_try_lock_queue(const char *name)
{
	bool created;
	const QmlQueue *queue = qml_queue_try_to_enqueue(name, &created);

	if (queue && created)
		prepare_history(queue);
	return queue;
}

/*
 * Whether a schedule makes the job.  Nobody waits for an answer then, and what the
 * request needs was checked before: the right of the schedule's owner when the tick
 * fires, the payload and the queue when the schedule was defined.
 */
static bool
is_by_schedule(const QmlEnqueue *request)
{
	return OidIsValid(request->created_by);
}

/* The handler as it is now, also within a transaction that began earlier. */
static const QmlHandler *
find_handler(const QmlEnqueue *request)
{
	qml_wakeup_read_rules();
	AcceptInvalidationMessages();
	return qml_handler_of(request->method);
}

/* A handler may have a queue of its own, for jobs that name no other. */
static const char *
choose_queue(const QmlEnqueue *request, const QmlHandler *handler)
{
	if (handler && handler->options.queue && !is_by_schedule(request) &&
		strcmp(request->queue, QML_DEFAULT_QUEUE) == 0)
		return handler->options.queue;
	return request->queue;
}

/* The first that is given: by the request, or by the handler; -1: neither. */
static int
first_given(int a, int b)
{
	return a >= 0 ? a : b;
}

/*
 * Fills in a job of the request, all but its id and payload; locks the queue, and returns where
 * its jobs are stored.
 */
static QmlStoreId
prepare_job(const QmlEnqueue *request, const QmlHandler *handler, QmlJob *job)
{
	const char *name = choose_queue(request, handler);
	const QmlQueue *queue;
	TimestampTz now = GetCurrentTimestamp();

	if (!is_by_schedule(request))
		qml_acl_require(QML_CAN_ENQUEUE, name);
	queue = qml_enqueue_lock_queue(name, !is_by_schedule(request));

	memset(job, 0, sizeof(*job));
	job->created_at = now;
	job->queue_id = queue->id;
	job->priority = request->priority;
	job->state = request->run_at > now ? QML_SCHEDULED : QML_ENQUEUED;
	job->max_retries = first_given(request->max_retries,
								   handler ? handler->options.common.max_retries : -1);
	if (job->max_retries < 0)
		job->max_retries = qml_queue_max_retries(queue);
	job->retries_asked = job->max_retries > 0 &&
						 (request->max_retries >= 0 || (handler && handler->command));
	job->timeout_ms = first_given(request->timeout_ms,
								  handler ? handler->options.common.timeout_ms : -1);
	if (job->timeout_ms < 0)
		job->timeout_ms = qml_queue_timeout_ms(queue);
	job->created_by = is_by_schedule(request) ? request->created_by : GetUserId();
	job->ready_at = QML_NO_TIME; /* when it is created */
	job->run_at = job->state == QML_SCHEDULED ? request->run_at : QML_NO_TIME;
	job->started_at = QML_NO_TIME;
	job->finished_at = QML_NO_TIME;
	job->expires_at = QML_NO_TIME;
	job->lease_expires_at = QML_NO_TIME;
	job->method = request->method;
	job->job_type = request->job_type;
	job->metadata = qml_trace_add_parent(request->metadata);
#ifdef QML_NEXT
	job->note = CStringGetTextDatum("made by " QML_VERSION);
#endif
	return qml_queue_store(queue);
}

/* If the handler changed since the schedule was defined, its job fails when it runs. */
static void
check_payload(const QmlEnqueue *request, const QmlHandler *handler, Datum payload)
{
	if (handler && !is_by_schedule(request))
		qml_handler_check(handler, payload);
}

/*
 * Adds one job.  own_id: the id is the caller's own, and may be there already; else
 * qml_uuid_generate() made it.
 */
QmlEnqueued
qml_enqueue_one(const QmlEnqueue *request, Datum payload, const pg_uuid_t *id, bool own_id)
{
	const QmlHandler *handler = find_handler(request);
	QmlEnqueued enqueued = {.created = true};
	QmlStoreId store;
	QmlWriter writer;
	QmlJob job;

	store = prepare_job(request, handler, &job);
	check_payload(request, handler, payload);
	job.id = *id;
	job.payload = payload;
	enqueued.state = job.state;

	qml_writer_open(&writer, false, is_by_schedule(request));
	qml_writer_turn(&writer, store);
	job.lineage = qml_lineage(job.queue_id);
	if (own_id)
		job.attempt = job.uncounted = qml_lineage_first(job.queue_id, store);
	if (own_id)
		enqueued.created = qml_own_id_insert(&writer, &job, handler,
											 request->options.on_duplicate_id, &enqueued.state);
	else
		qml_writer_insert(&writer, &job, handler, true);
	QML_FAULT("enqueue.after_insert");
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("enqueue.precommit");
	return enqueued;
}

/* Adds one job per payload, with new ids; fills ids in the same order.  Returns their state. */
QmlState
qml_enqueue_batch(const QmlEnqueue *request, const Datum *payloads, int count, pg_uuid_t *ids)
{
	const QmlHandler *handler = find_handler(request);
	QmlStoreId store;
	QmlWriter writer;
	QmlJob *jobs;
	TupleTableSlot **rows;
	int nrows = Min(count, ROWS_AT_ONCE);

	if (count == 0)
	{
		qml_acl_require(QML_CAN_ENQUEUE, choose_queue(request, handler));
		return QML_ENQUEUED;
	}
	jobs = palloc(sizeof(QmlJob) * nrows);
	rows = palloc(sizeof(TupleTableSlot *) * nrows);
	store = prepare_job(request, handler, &jobs[0]);
	qml_writer_open(&writer, true, is_by_schedule(request));
	qml_writer_turn(&writer, store);
	jobs[0].lineage = qml_lineage(jobs[0].queue_id);
	for (int i = 0; i < nrows; i++)
	{
		jobs[i] = jobs[0];
		rows[i] = MakeSingleTupleTableSlot(RelationGetDescr(writer.live->rel), &TTSOpsVirtual);
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
		qml_writer_insert_new(&writer, jobs, handler, rows, n);
		QML_FAULT("enqueue.after_insert");
		CHECK_FOR_INTERRUPTS();
		done += n;
	}

	for (int i = 0; i < nrows; i++)
		ExecDropSingleTupleTableSlot(rows[i]);
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("enqueue.precommit");
	return jobs[0].state;
}
