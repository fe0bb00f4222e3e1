/*
 * transition.c
 *		Changing jobs: the state machine at work on stored rows.
 *
 * qml_transition_set() is the only place that changes the state of a job, and
 * with it the columns that belong to a state.  A writer brings the changed job
 * back: it updates the row in qml.live, or moves it between there and
 * qml.history, in the caller's transaction.
 *
 * Rows are changed optimistically: found by a snapshot, replaced only if nobody
 * changed them since.  A caller that names a job and waits (qml_writer_run) judges
 * the newest version, and looks again after somebody was faster; in a REPEATABLE
 * READ transaction a version that its snapshot does not see is error 40001.  A caller that must not wait (claim,
 * promotion, reclaim) passes over the row.  Locks are taken in the order queue,
 * job row, history partition.
 *
 * A crash at any point leaves the transaction undone: the job is where it was.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "core/retry.h"
#include "core/state.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "jobs/history.h"
#include "jobs/transition.h"
#include "model/catalog.h"
#include "model/queue.h"
#include "userfn/handler.h"

/* Rows gathered for history before they are written. */
#define MAX_PENDING 128

/*
 * Gives the job another state, or raises QM002.  What depends on the caller
 * (run_at, lease, worker, result, reason) is set by it afterwards.
 */
void
qml_transition_set(QmlJob *job, QmlState to, TimestampTz now)
{
	QmlState from = job->state;

	if (!qml_state_allowed(from, to))
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_STATE_TRANSITION),
				 errmsg("job %s cannot go from state %s to %s", qml_job_id_string(&job->id),
						qml_state_label(from), qml_state_label(to)),
				 errhint("qml_can_transition() tells which transitions there are.")));

	/* Whoever is at it need not go on. */
	if (from == QML_PROCESSING && to == QML_DELETED)
		qml_wakeup_deleted(&job->id);
	job->state = to;
	job->run_at = QML_NO_TIME;
	job->lease_expires_at = QML_NO_TIME;
	if (qml_state_is_final(to))
	{
		/* A finished job that is deleted stays in the partition it is in. */
		if (!qml_state_is_final(from))
			job->expires_at = now + qml_queue_ttl(qml_queue_by_id(job->queue_id), to == QML_FAILED);
		job->finished_at = now;
		return;
	}

	job->worker = (Datum) 0;
	job->server = (Datum) 0;
	if (to == QML_PROCESSING)
	{
		/* Counted when it begins, so that a job which kills its worker ends. */
		job->attempt++;
		job->started_at = now;
	}
	if (from == QML_FAILED)
	{
		/*
		 * All retries are there again.  The number of the attempt goes on: it is
		 * the token of a claim, and an old one must never be valid again.
		 */
		job->uncounted = job->attempt;
		qml_job_forgive(job, QML_SERVER_DOWN);
		job->finished_at = QML_NO_TIME;
		job->expires_at = QML_NO_TIME;
		job->result = (Datum) 0;
	}
}

/* The handler's, if it has one, or the queue's. */
static const QmlRetryPolicy *
retry_policy(const QmlJob *job)
{
	const QmlHandler *handler = qml_handler_of(job->method);

	return handler && handler->options.common.retries ?
			   &handler->options.common.retry :
			   &qml_queue_by_id(job->queue_id)->options.retry;
}

/* Whether a failed attempt may be followed by another one. */
static bool
has_retry_left(const QmlJob *job)
{
	return job->attempt - job->uncounted <= job->max_retries &&
		   retry_policy(job)->strategy != QML_RETRY_NONE;
}

/* Whether the handler says that an error of this type is final. */
static bool
is_final_error(const QmlJob *job, const QmlJobError *error)
{
	const QmlHandler *handler = qml_handler_of(job->method);

	return handler && error->error_type != (Datum) 0 &&
		   qml_handler_never_retries(handler, TextDatumGetCString(error->error_type));
}

/*
 * Ends an attempt with an error: awaiting_retry while retries are left and
 * wanted, failed otherwise.  retry_at overrides the backoff.
 */
void
qml_transition_fail(QmlJob *job, const QmlJobError *error, bool retry, TimestampTz retry_at,
					TimestampTz now)
{
	const QmlRetryPolicy *policy = retry_policy(job);
	int failures = job->attempt - job->uncounted;

	qml_job_add_error(job, error, now);
	if (!retry || !has_retry_left(job) || is_final_error(job, error))
	{
		qml_transition_set(job, QML_FAILED, now);
		return;
	}
	if (retry_at == QML_NO_TIME)
		retry_at = now + (int64) (qml_retry_delay(policy, failures, qml_random()) * USECS_PER_SEC);
	qml_transition_set(job, QML_AWAITING_RETRY, now);
	job->run_at = retry_at;
}

static void
end_lost(QmlJob *job, const char *reason, const char *error_type, QmlState state, TimestampTz now)
{
	QmlJobError error = {.error = CStringGetTextDatum(reason),
						 .error_type = CStringGetTextDatum(error_type)};

	qml_job_add_error(job, &error, now);
	qml_transition_set(job, state, now);
}

/* Ends an attempt whose worker is lost: enqueued again, or failed. */
void
qml_transition_lose(QmlJob *job, const char *reason, const char *error_type, TimestampTz now)
{
	end_lost(job, reason, error_type, has_retry_left(job) ? QML_ENQUEUED : QML_FAILED, now);
}

/* The same, for good. */
void
qml_transition_give_up(QmlJob *job, const char *reason, const char *error_type, TimestampTz now)
{
	end_lost(job, reason, error_type, QML_FAILED, now);
}

/* carefully: nobody asked for the changes, and the error of a hook must not stop them. */
void
qml_writer_open(QmlWriter *writer, bool batch, bool carefully)
{
	memset(writer, 0, sizeof(*writer));
	qml_table_open(&writer->live, qml_catalog()->live, RowExclusiveLock);
	writer->batch = batch;
	qml_hook_start(&writer->transitions, carefully);
}

/* The snapshot that jobs are looked for by; taken when first needed. */
Snapshot
qml_writer_snapshot(QmlWriter *writer)
{
	if (writer->snapshot == NULL)
		writer->snapshot = qml_table_snapshot();
	return writer->snapshot;
}

static void
drop_snapshot(QmlWriter *writer)
{
	if (writer->by_id)
		index_endscan(writer->by_id);
	writer->by_id = NULL;
	if (writer->snapshot)
		UnregisterSnapshot(writer->snapshot);
	writer->snapshot = NULL;
}

/* Writes the rows gathered for the open partition. */
static void
flush_pending(QmlWriter *writer)
{
	if (writer->npending == 1)
		qml_table_insert(&writer->leaf, writer->pending[0]);
	else if (writer->npending > 1)
		qml_table_insert_many(&writer->leaf, writer->pending, writer->npending);
	for (int i = 0; i < writer->npending; i++)
		ExecClearTuple(writer->pending[i]);
	writer->npending = 0;
}

static void
close_leaf(QmlWriter *writer)
{
	if (!writer->leaf_open)
		return;
	flush_pending(writer);
	for (int i = 0; i < writer->nslots; i++)
		ExecDropSingleTupleTableSlot(writer->pending[i]);
	writer->nslots = 0;
	qml_table_close(&writer->leaf);
	writer->leaf_open = false;
}

void
qml_writer_close(QmlWriter *writer)
{
	close_leaf(writer);
	drop_snapshot(writer);
	if (writer->pkey)
		index_close(writer->pkey, NoLock);
	qml_table_close(&writer->live);
	qml_hook_run(&writer->transitions);
}

static void
open_leaf(QmlWriter *writer, TimestampTz expires_at)
{
	Oid leaf = qml_history_leaf_for(expires_at);
	MemoryContext oldcontext;

	if (writer->leaf_open && writer->leaf_oid == leaf)
		return;
	close_leaf(writer);
	oldcontext = MemoryContextSwitchTo(writer->live.context);
	/* Cannot be dropped before it is locked: it is not expired. */
	qml_table_open(&writer->leaf, leaf, RowExclusiveLock);
	writer->leaf_oid = leaf;
	writer->leaf_open = true;
	if (writer->pending == NULL)
		writer->pending = palloc(sizeof(TupleTableSlot *) * MAX_PENDING);
	MemoryContextSwitchTo(oldcontext);
}

/* An empty slot for a row of the open partition. */
static TupleTableSlot *
next_pending(QmlWriter *writer)
{
	if (writer->npending == writer->nslots)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(writer->live.context);

		writer->pending[writer->nslots++] = MakeSingleTupleTableSlot(RelationGetDescr(
																		 writer->leaf.rel),
																	 &TTSOpsVirtual);
		MemoryContextSwitchTo(oldcontext);
	}
	return writer->pending[writer->npending++];
}

/* A time to live of 0: not kept. */
static bool
is_kept(const QmlJob *job)
{
	return job->expires_at > job->finished_at;
}

/* Puts a finished job, whose row is gone from qml.live, into the open partition. */
static void
store_finished(QmlWriter *writer, const QmlJob *job)
{
	TupleTableSlot *row = next_pending(writer);

	qml_job_to_history(job, row);
	if (writer->batch)
		ExecMaterializeSlot(row); /* outlives the row it was read from */
	if (!writer->batch || writer->npending == MAX_PENDING)
		flush_pending(writer);
}

/* The job is ready if the transaction commits, or is undone: tell says which. */
static void
note_ready(const QmlJob *job, void (*tell)(int queue, Oid role, bool announce))
{
	const QmlHandler *handler = qml_handler_of(job->method);
	const QmlQueue *queue = qml_queue_find(job->queue_id);

	/* A queue that is missing is for those to find who need it. */
	tell(job->queue_id, handler ? handler->run_as : InvalidOid, queue && queue->options.notify);
}

/*
 * The job was written.  Hooks shall know of its state, workers that it is ready, the
 * scheduler when it needs it next.
 */
static void
note_news(QmlWriter *writer, const QmlJob *job)
{
	qml_hook_note(&writer->transitions, job, false);
	if (job->state == QML_ENQUEUED)
		note_ready(job, qml_wakeup_ready);
	if (job->run_at != QML_NO_TIME)
		qml_wakeup_at(QML_WAKE_DUE, job->run_at);
	if (job->lease_expires_at != QML_NO_TIME)
		qml_wakeup_at(QML_WAKE_LEASE, job->lease_expires_at);
}

/*
 * Brings a job back whose row live.slot holds.  TM_Ok, or what somebody else did
 * to it; nothing is changed then.
 */
TM_Result
qml_writer_put(QmlWriter *writer, const QmlJob *job, bool wait)
{
	ItemPointer tid = &writer->live.slot->tts_tid;
	Snapshot snapshot = qml_writer_snapshot(writer);
	TM_Result result;

	/* Before it is touched: an error may come at any time after that. */
	if (qml_job_live_state(writer->live.slot) == QML_ENQUEUED)
		note_ready(job, qml_wakeup_taken);
	if (!qml_state_is_final(job->state))
	{
		qml_job_to_live(job, writer->live.row);
		result = qml_table_update(&writer->live, tid, writer->live.row, snapshot, wait);
		if (result == TM_Ok)
			note_news(writer, job);
		return result;
	}
	/* First the partition: making one may wait, and should not while it holds the job. */
	if (is_kept(job))
		open_leaf(writer, job->expires_at);
	result = qml_table_delete(&writer->live, tid, snapshot, wait);
	if (result != TM_Ok)
		return result;
	qml_wakeup_finished(&job->id);
	qml_hook_note(&writer->transitions, job, false);
	if (is_kept(job))
		store_finished(writer, job);
	return result;
}

static void
raise_serialization_failure(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent update")));
}

/* A job that changed after the transaction's one snapshot cannot be judged by it. */
static void
check_unchanged(const QmlWriter *writer, QmlTable *table)
{
	if (IsolationUsesXactSnapshot() && !writer->latest &&
		!table_tuple_satisfies_snapshot(table->rel, table->slot, GetTransactionSnapshot()))
		raise_serialization_failure();
}

static bool
find_live(QmlWriter *writer, const pg_uuid_t *id, QmlJob *job)
{
	ScanKeyData key;

	/* The newest version counts: whether a token is stale is no matter of snapshots. */
	if (writer->snapshot == NULL)
		writer->snapshot = qml_table_latest_snapshot();

	if (writer->pkey == NULL)
		writer->pkey = index_open(qml_catalog()->live_pkey, RowExclusiveLock);
	if (writer->by_id == NULL)
		writer->by_id = qml_index_beginscan(writer->live.rel, writer->pkey, writer->snapshot, 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(writer->by_id, &key, 1, NULL, 0);
	if (!index_getnext_slot(writer->by_id, ForwardScanDirection, writer->live.slot))
		return false;
	check_unchanged(writer, &writer->live);
	qml_job_from_live(writer->live.slot, job);
	return true;
}

/* Brings a finished job back: deleted stays in history, anything else is live. */
static TM_Result
put_finished(QmlWriter *writer, QmlTable *leaf, const QmlJob *job)
{
	ItemPointer tid = &leaf->slot->tts_tid;
	TM_Result result;
	bool created;

	if (qml_state_is_final(job->state))
	{
		qml_job_to_history(job, leaf->row);
		result = qml_table_update(leaf, tid, leaf->row, writer->snapshot, true);
		if (result == TM_Ok)
			qml_hook_note(&writer->transitions, job, false);
		return result;
	}
	/* Revives the queue if it was dropped; finished jobs do not keep it. */
	(void) qml_queue_to_enqueue(qml_queue_by_id(job->queue_id)->name, &created);
	result = qml_table_delete(leaf, tid, writer->snapshot, true);
	if (result == TM_Ok)
	{
		qml_job_to_live(job, writer->live.row);
		qml_table_insert(&writer->live, writer->live.row);
		note_news(writer, job);
	}
	return result;
}

static bool
run_finished(QmlWriter *writer, const pg_uuid_t *id, QmlChange change, void *arg, TM_Result *result)
{
	QmlTable leaf;
	QmlJob job;

	if (!qml_history_find(id, writer->snapshot, RowExclusiveLock, &leaf, &job))
		return false;
	check_unchanged(writer, &leaf);
	*result = change(&job, arg) ? put_finished(writer, &leaf, &job) : TM_Ok;
	qml_table_close(&leaf);
	return true;
}

/* After somebody was faster: look again with fresh eyes. */
static void
look_again(QmlWriter *writer, TM_Result result)
{
	if (result != TM_SelfModified && IsolationUsesXactSnapshot() && !writer->latest)
		raise_serialization_failure();
	CHECK_FOR_INTERRUPTS();
	if (writer->leaf_open)
		flush_pending(writer);
	drop_snapshot(writer);
}

/*
 * Changes one job, wherever it is, waiting for whoever is changing it.  False
 * when there is no such job.
 */
bool
qml_writer_run(QmlWriter *writer, const pg_uuid_t *id, QmlChange change, void *arg)
{
	for (;;)
	{
		TM_Result result;
		QmlJob job;

		if (find_live(writer, id, &job))
			result = change(&job, arg) ? qml_writer_put(writer, &job, true) : TM_Ok;
		else if (!run_finished(writer, id, change, arg, &result))
			return false;
		if (result == TM_Ok)
			return true;
		look_again(writer, result);
	}
}

/*
 * The same for a job that is not finished, without waiting.  False also when somebody
 * else is changing it.
 */
bool
qml_writer_try(QmlWriter *writer, const pg_uuid_t *id, QmlChange change, void *arg)
{
	QmlJob job;

	return find_live(writer, id, &job) &&
		   (!change(&job, arg) || qml_writer_put(writer, &job, false) == TM_Ok);
}
