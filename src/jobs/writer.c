/*
 * writer.c
 *		Writing changed jobs back into their tables.
 *
 * An unfinished job is a row of qml.live, a finished one a row of a partition of
 * qml.history, or of the tables that stand for these two in another storage class
 * (model/catalog.h); what is said here of the two holds for all of them.  A writer inserts new
 * jobs, updates the row of a changed one, or moves it between the two: a DELETE there and an
 * INSERT here.  All of it is the caller's transaction, so a crash at any point leaves each job
 * where it was.
 *
 * Rows are changed optimistically: found by a snapshot, and replaced only if nobody
 * changed them since.
 * - A caller that names a job waits for others that are changing it, and judges the
 *   newest version (qml_writer_change).  In REPEATABLE READ and SERIALIZABLE a version
 *   that the transaction's snapshot does not see is error 40001.
 * - A caller that works through many jobs (claim, promotion, reclaim) does not wait:
 *   it leaves a row alone that somebody else is changing, or has changed
 *   (qml_writer_put with wait = false).  So it takes part in no deadlock.
 *
 * Locks are taken in this order: queue, qml.history and the partition, job row.  Finishing
 * a job waits for none of the first three.  A retry of a finished job whose queue was dropped
 * goes against the order, which is rare.  A deadlock there is error 40P01.
 *
 * State hooks run, or jobs are made that call them after the commit, and the scheduler and
 * workers are told at commit, whatever path made the change.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/lazy_commit.h"
#include "compat.h"
#include "core/state.h"
#include "ipc/lease_notes.h"
#include "ipc/ready_note.h"
#include "ipc/ready_queues.h"
#include "ipc/session_claim.h"
#include "ipc/wakeup.h"
#include "jobs/count_note.h"
#include "jobs/drain_cursor.h"
#include "jobs/failure_log.h"
#include "jobs/history.h"
#include "jobs/job_stats.h"
#include "jobs/ready_row.h"
#include "jobs/writer.h"
#include "model/catalog.h"
#include "model/life.h"
#include "model/queue.h"
#include "userfn/hook_job.h"

/* Rows gathered for history before they are written. */
#define MAX_PENDING 128

static QmlWriterTables *
current_tables(QmlWriter *writer)
{
	return &writer->tables[writer->store];
}

/*
 * Goes to the tables of a storage class: jobs are looked for and written there from now on, if
 * the writer was not opened to read.
 */
void
qml_writer_turn(QmlWriter *writer, QmlStoreId store)
{
	QmlWriterTables *tables = &writer->tables[store];
	MemoryContext oldcontext;

	writer->store = store;
	writer->live = &tables->live;
	if (tables->is_open)
		return;
	oldcontext = MemoryContextSwitchTo(writer->context);
	if (store == QML_STORE_UNLOGGED && writer->lockmode != AccessShareLock)
	{
		qml_table_require_write();
		qml_life_begin_unlogged();
	}
	qml_table_open(&tables->live, qml_store(store)->live, writer->lockmode);
	/* Each row is in a new place, and the transaction's own; if it is rolled back, none is. */
	if (qml_relation_is_rewritten(tables->live.rel))
		qml_ready_note_sql();
	tables->is_open = true;
	MemoryContextSwitchTo(oldcontext);
}

static void
open_tables(QmlWriter *writer, LOCKMODE lockmode)
{
	memset(writer, 0, sizeof(*writer));
	writer->context = CurrentMemoryContext;
	writer->lockmode = lockmode;
	qml_writer_turn(writer, QML_STORE_LOGGED);
}

/*
 * Room for the new version of a row, which its page is pruned for.  With less than that, rows with
 * larger payloads would move to other pages; with more, pages are pruned more often than once
 * for all their rows.
 */
#define ROOM_TO_CHANGE (BLCKSZ / 4)

/*
 * Opens qml.live for writing.  catch_hook_errors: nobody asked for these changes, so the
 * error of a state hook must not undo them.
 */
void
qml_writer_open(QmlWriter *writer, bool batch, bool catch_hook_errors)
{
	Assert(IsTransactionState());
	qml_wakeup_read_rules();
	open_tables(writer, RowExclusiveLock);
	writer->batch = batch;
	writer->room = ROOM_TO_CHANGE;
	qml_hook_start(&writer->transitions, catch_hook_errors);
	qml_after_commit_start(&writer->after_commit);
}

/* Rows that are changed leave their page, or get a version for which others do as well. */
void
qml_writer_expect_ends(QmlWriter *writer)
{
	writer->room = 0;
}

/* Makes the jobs that call hooks, where the queue of these has its jobs. */
static void
write_calls(QmlWriter *writer)
{
	QmlStoreId store = writer->store;

	qml_writer_turn(writer, QML_STORE_LOGGED);
	qml_after_commit_write(&writer->after_commit, writer->live);
	qml_writer_turn(writer, store);
}

/*
 * A row was written: tells a drain, and notes the transition for the hooks.  Jobs of qml's own queue have none;
 * without any hook, nobody has to know which queue that is.
 */
static void
note_transition(QmlWriter *writer, const QmlJob *job, bool is_new)
{
	qml_drain_cursor_wrote(job);
	if (!qml_hook_exist() || (!is_new && job->state == job->was))
		return;
	qml_after_commit_note(&writer->after_commit, job, is_new);
	if (qml_after_commit_is_full(&writer->after_commit))
		write_calls(writer);
	if (!qml_queue_is_own(job->queue_id))
		qml_hook_note(&writer->transitions, job, is_new);
}

/* The snapshot that jobs are looked for by; taken when first needed. */
Snapshot
qml_writer_snapshot(QmlWriter *writer)
{
	if (writer->snapshot == NULL)
		writer->snapshot = qml_table_snapshot();
	return writer->snapshot;
}

/* The next read takes a new one; the scan by id depends on it. */
static void
drop_snapshot(QmlWriter *writer)
{
	for (int i = 0; i < QML_STORES; i++)
	{
		QmlWriterTables *tables = &writer->tables[i];

		if (tables->by_id)
			index_endscan(tables->by_id);
		tables->by_id = NULL;
	}
	if (writer->snapshot)
		UnregisterSnapshot(writer->snapshot);
	writer->snapshot = NULL;
}

/* What is read from now on is seen by a snapshot that is taken now. */
Snapshot
qml_writer_new_snapshot(QmlWriter *writer)
{
	drop_snapshot(writer);
	return qml_writer_snapshot(writer);
}

/* What is written next into the table is of this job. */
static void
choose_commit(QmlTable *table, const QmlJob *job)
{
	table->is_lazy = qml_queue_storage(job->queue_id) != QML_DURABLE;
}

/* Writes the rows gathered for the open partition. */
static void
flush_pending(QmlWriterTables *tables)
{
	tables->leaf.is_lazy = tables->pending_lazy;
	if (tables->npending == 1)
		qml_table_insert(&tables->leaf, tables->pending[0]);
	else if (tables->npending > 1)
		qml_table_insert_many(&tables->leaf, tables->pending, tables->npending);
	for (int i = 0; i < tables->npending; i++)
		ExecClearTuple(tables->pending[i]);
	tables->npending = 0;
}

/* Writes what is gathered for the open partition, and closes it. */
static void
close_leaf(QmlWriterTables *tables)
{
	if (!tables->leaf_open)
		return;
	flush_pending(tables);
	for (int i = 0; i < tables->nslots; i++)
		ExecDropSingleTupleTableSlot(tables->pending[i]);
	tables->nslots = 0;
	qml_table_close(&tables->leaf);
	tables->leaf_open = false;
}

static void
close_tables(QmlWriter *writer)
{
	for (int i = 0; i < QML_STORES; i++)
	{
		QmlWriterTables *tables = &writer->tables[i];

		Assert(tables->npending == 0 && tables->nslots == 0);
		if (tables->pkey)
			index_close(tables->pkey, NoLock);
		if (tables->is_open)
			qml_table_close(&tables->live);
	}
}

/*
 * Ends the writer, and calls the state hooks: not before, because a hook may change
 * jobs itself, and must meet neither an open scan nor rows that are still gathered.
 */
void
qml_writer_close(QmlWriter *writer)
{
	for (int i = 0; i < QML_STORES; i++)
		close_leaf(&writer->tables[i]);
	drop_snapshot(writer);
	write_calls(writer);
	close_tables(writer);
	qml_after_commit_record(&writer->after_commit);
	qml_hook_run(&writer->transitions);
}

/* Opens qml.live for one who only looks at rows. */
void
qml_writer_open_to_read(QmlWriter *writer)
{
	open_tables(writer, AccessShareLock);
}

void
qml_writer_close_after_read(QmlWriter *writer)
{
	drop_snapshot(writer);
	close_tables(writer);
}

/* Opens the partition for rows that expire then, or the overflow if none takes them now. */
static void
open_leaf(QmlWriter *writer, TimestampTz expires_at)
{
	QmlWriterTables *tables = current_tables(writer);
	Oid leaf = qml_history_place_for(writer->store, expires_at,
									 tables->leaf_open ? tables->leaf_oid : InvalidOid);
	MemoryContext oldcontext;

	if (tables->leaf_open && tables->leaf_oid == leaf)
		return;
	close_leaf(tables);
	oldcontext = MemoryContextSwitchTo(writer->context);
	/* A partition is locked already, and cannot be dropped any more. */
	qml_table_open(&tables->leaf, leaf, RowExclusiveLock);
	tables->leaf_oid = leaf;
	tables->leaf_open = true;
	if (tables->pending == NULL)
		tables->pending = palloc(sizeof(TupleTableSlot *) * MAX_PENDING);
	MemoryContextSwitchTo(oldcontext);
}

/* Puts a finished job, whose row is gone from qml.live, into the open partition. */
static void
store_finished(QmlWriter *writer, const QmlJob *job)
{
	QmlWriterTables *tables = current_tables(writer);
	TupleTableSlot *row;

	Assert(tables->leaf_open && tables->npending < MAX_PENDING);
	if (tables->npending == tables->nslots)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(writer->context);
		TupleDesc desc = RelationGetDescr(tables->leaf.rel);

		tables->pending[tables->nslots++] = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
		MemoryContextSwitchTo(oldcontext);
	}
	tables->pending_lazy = (tables->npending == 0 || tables->pending_lazy) &&
						   qml_queue_storage(job->queue_id) != QML_DURABLE;
	row = tables->pending[tables->npending++];
	qml_job_to_history(job, row);
	if (writer->batch)
		ExecMaterializeSlot(row); /* outlives the row it was read from */
	if (!writer->batch || tables->npending == MAX_PENDING)
		flush_pending(tables);
}

/*
 * So many like the job will be ready in the queue when the transaction commits, or is undone, as
 * `note` says.
 */
static void
note_ready(const QmlJob *job, int queue_id, int count, const QmlHandler *handler,
		   void (*note)(const QmlReadyJobs *jobs, Oid role, bool notify))
{
	const QmlQueue *queue = qml_queue_by_id(queue_id);
	/* A queue that is missing is an error for callers that need it, not for this one. */
	QmlReadyJobs ready = {.queue = queue_id,
						  .name = queue ? queue->name_hash : 0,
						  .method = qml_job_hash_method(job->method),
						  .handled = handler != NULL,
						  .count = count};

	note(&ready, qml_handler_role(handler), queue && queue->options.notify);
}

/*
 * So many jobs like this one were written into qml.live.  At commit workers are told that they
 * are ready, and the scheduler when they are due.
 */
static void
note_times(const QmlJob *job, int count, const QmlHandler *handler)
{
	if (job->state == QML_ENQUEUED)
		note_ready(job, job->queue_id, count, handler, qml_wakeup_ready);
	if (job->run_at != QML_NO_TIME)
		qml_wakeup_at(QML_WAKE_DUE, job->run_at);
	if (job->lease_expires_at != QML_NO_TIME)
		qml_wakeup_at(QML_WAKE_LEASE, job->lease_expires_at);
}

static void
note_added(const QmlJob *job, int count)
{
	qml_count_note(job->queue_id, count, QML_NOT_COUNTED, QML_NO_TIME, job->state, QML_NO_TIME);
}

/*
 * Inserts a job, for which there may be a handler: a new one, or one that comes back out
 * of the history.
 */
void
qml_writer_insert(QmlWriter *writer, const QmlJob *job, const QmlHandler *handler, bool is_new)
{
	Assert(!qml_state_is_final(job->state));
	qml_job_to_live(job, writer->live->row);
	choose_commit(writer->live, job);
	qml_table_insert(writer->live, writer->live->row);
	note_added(job, 1);
	if (is_new)
		qml_job_stats_made(job, 1);
	qml_ready_row_note_made(writer->live->row, writer->live->row->tts_tid);
	note_transition(writer, job, is_new);
	note_times(job, 1, handler);
}

/*
 * Inserts the row of a new job unless there is one with its id; waits for others that are
 * adding it.  Either qml_writer_note_new() or qml_writer_take_back() must follow.
 */
bool
qml_writer_try_insert(QmlWriter *writer, const QmlJob *job)
{
	Assert(!qml_state_is_final(job->state));
	qml_job_to_live(job, writer->live->row);
	choose_commit(writer->live, job);
	return qml_table_try_insert(writer->live, writer->live->row,
								qml_store(writer->store)->live_pkey);
}

/* Removes that row, of which nobody has been told yet. */
void
qml_writer_take_back(QmlWriter *writer)
{
	TM_Result result;

	/* What this command has written can be changed by the next one. */
	CommandCounterIncrement();
	result = qml_table_delete(writer->live, &writer->live->row->tts_tid, InvalidSnapshot, true);
	if (result != TM_Ok)
		elog(ERROR, "unexpected result of deleting a new row: %d", result);
}

/* That row stays: tells of the new job. */
void
qml_writer_note_new(QmlWriter *writer, const QmlJob *job, const QmlHandler *handler)
{
	note_added(job, 1);
	qml_job_stats_made(job, 1);
	qml_ready_row_note_made(writer->live->row, writer->live->row->tts_tid);
	note_transition(writer, job, true);
	note_times(job, 1, handler);
}

/*
 * Inserts new jobs of one call, which differ in id and payload alone; rows holds them as
 * rows of qml.live.
 */
void
qml_writer_insert_new(QmlWriter *writer, const QmlJob *jobs, const QmlHandler *handler,
					  TupleTableSlot **rows, int count)
{
	Assert(count > 0);
	choose_commit(writer->live, &jobs[0]);
	qml_table_insert_many(writer->live, rows, count);
	note_added(&jobs[0], count);
	qml_job_stats_made(&jobs[0], count);
	for (int i = 0; i < count; i++)
	{
		Assert(jobs[i].queue_id == jobs[0].queue_id && jobs[i].state == jobs[0].state);
		qml_ready_row_note_made(rows[i], rows[i]->tts_tid);
		note_transition(writer, &jobs[i], true);
	}
	note_times(&jobs[0], count, handler);
}

/*
 * An attempt begins in this transaction.  Its number leaves the database with the commit,
 * so a crash after that must not lose it, or it would be given again: the commit waits for
 * the disk, whatever synchronous_commit says.
 *
 * In queues that are not durable, numbers are skipped after a crash instead, once for all claims
 * of a life: so the first one of a job from an earlier life waits.  And in a background
 * worker the job itself may crash the server, and would do so for ever if its attempts were lost.
 * An unlogged job does not outlive a crash, and no other one gets its numbers (model/life.c).
 */
static void
keep_number(const QmlWriter *writer, const QmlJob *job)
{
	TupleTableSlot *before = writer->live->slot;
	bool isnull;

	if (writer->store == QML_STORE_UNLOGGED)
		return;
	if (MyBackendType == B_BG_WORKER || !qml_lazy_commit_possible() ||
		qml_queue_storage(job->queue_id) == QML_DURABLE ||
		DatumGetInt16(slot_getattr(before, LIVE_LINEAGE, &isnull)) != job->lineage)
		ForceSyncCommit();
}

/* The job in live->slot, which was ready before, can be claimed again. */
void
qml_writer_note_free(QmlWriter *writer)
{
	QmlJob job;

	qml_job_from_live(writer->live->slot, &job);
	note_ready(&job, job.queue_id, 1, qml_hook_job_handler(&job), qml_wakeup_ready);
}

/* A ready job that is about to be taken, for the list of its queue. */
typedef struct ReadyJob
{
	bool is_noted; /* by the writer; if not, there is nothing to be told */
	int queue;
	QmlReadyEntry entry;
} ReadyJob;

/*
 * The job in live->slot, if it is ready, is going to be changed: whoever sleeps must be told if it
 * is ready again, and its list.  Before it is touched, because an error may come at any time after
 * that, as when an index calls a function of a user; and who fills the list up meanwhile passes over
 * the row.
 */
static ReadyJob
begin_taking(QmlWriter *writer, const QmlJob *job)
{
	TupleTableSlot *slot = writer->live->slot;
	ReadyJob ready = {.is_noted = qml_job_live_state(slot) == QML_ENQUEUED};

	if (ready.is_noted)
		note_ready(job, job->was_queue, 1, qml_hook_job_handler(job), qml_wakeup_taken);
	ready.is_noted = ready.is_noted && !writer->is_taken && qml_ready_queues_exist();
	writer->is_taken = false;
	if (!ready.is_noted)
		return ready;
	ready.queue = qml_ready_row_read(slot, qml_table_read_root(writer->live), &ready.entry);
	qml_ready_note_taking(ready.queue, &ready.entry);
	return ready;
}

/* It has been changed, or (not TM_Ok) left as it was. */
static void
end_taking(const ReadyJob *ready, TM_Result result)
{
	if (!ready->is_noted)
		return;
	if (result == TM_Ok)
		qml_ready_note_taken(ready->queue, &ready->entry);
	else
		qml_ready_note_left(ready->queue, &ready->entry);
}

/* A row was written: what becomes of the claim, for those who look for lost jobs. */
static void
note_claim(QmlWriter *writer, const QmlJob *job)
{
	QmlLease lease = {.job = job->id, .attempt = job->attempt, .end = job->lease_expires_at};

	if (job->state != QML_PROCESSING)
	{
		if (job->was == QML_PROCESSING)
			qml_lease_notes_end(&job->id, job->attempt);
		return;
	}
	lease.place.root = qml_table_row_root(writer->live);
	lease.place.store = writer->store;
	lease.bound = job->lease_expires_at == QML_NO_TIME;
	/* Who reads all jobs may miss a row that moves: so that is told as well. */
	if (lease.bound && job->was == QML_PROCESSING)
		lease.bound = job->server != (Datum) 0 &&
					  qml_session_claim_find(VARDATA_ANY(DatumGetPointer(job->server)),
											 VARSIZE_ANY_EXHDR(DatumGetPointer(job->server)),
											 &lease.session, &lease.token);
	else if (lease.bound && qml_shmem)
		qml_session_claim_holder(&lease.session, &lease.token);
	else if (job->server != (Datum) 0)
		lease.server = qml_lease_table_hash_server(VARDATA_ANY(DatumGetPointer(job->server)),
												   VARSIZE_ANY_EXHDR(DatumGetPointer(job->server)));
	qml_lease_notes_claim(&lease);
}

/* Whether a job that is not finished goes to a queue whose jobs are in other tables. */
static bool
leaves_store(const QmlWriter *writer, const QmlJob *job)
{
	return job->queue_id != job->was_queue &&
		   qml_queue_store(qml_queue_require(job->queue_id)) != writer->store;
}

/*
 * Moves such a job, whose row live->slot holds.  It keeps its number and its attempts.  Of an
 * unlogged one nothing is on the disk: so a crash must not bring back the one that was left when
 * another attempt may have begun.
 */
static TM_Result
put_elsewhere(QmlWriter *writer, const QmlJob *job, bool wait)
{
	ItemPointer tid = &writer->live->slot->tts_tid;
	Snapshot snapshot = qml_writer_snapshot(writer);
	ReadyJob ready = begin_taking(writer, job);
	QmlStoreId from = writer->store;
	QmlStoreId to = qml_queue_store(qml_queue_require(job->queue_id));
	TM_Result result = qml_table_delete(writer->live, tid, snapshot, wait);

	Assert(job->was != QML_PROCESSING);
	end_taking(&ready, result);
	if (result != TM_Ok)
		return result;
	qml_count_note(job->was_queue, 1, job->was, QML_NO_TIME, QML_NOT_COUNTED, QML_NO_TIME);
	if (from == QML_STORE_LOGGED)
		ForceSyncCommit();
	qml_writer_turn(writer, to);
	qml_writer_insert(writer, job, qml_hook_job_handler(job), false);
	qml_writer_turn(writer, from);
	return TM_Ok;
}

/*
 * Writes a changed job back whose row live->slot holds.  TM_Ok, or what somebody else did
 * to the row; nothing is changed then.
 */
TM_Result
qml_writer_put(QmlWriter *writer, const QmlJob *job, bool wait)
{
	ItemPointer tid = &writer->live->slot->tts_tid;
	Snapshot snapshot = qml_writer_snapshot(writer);
	bool is_kept = job->expires_at > job->finished_at; /* a time to live of 0: it is not */
	ReadyJob ready;
	TM_Result result;

	Assert(!TTS_EMPTY(writer->live->slot) && ItemPointerIsValid(tid));
	Assert(CheckRelationLockedByMe(writer->live->rel, RowExclusiveLock, true));
	if (!qml_state_is_final(job->state) && leaves_store(writer, job))
		return put_elsewhere(writer, job, wait);
	ready = begin_taking(writer, job);
	if (!qml_state_is_final(job->state))
	{
		qml_job_to_live(job, writer->live->row);
		choose_commit(writer->live, job);
		result = qml_table_update(writer->live, tid, writer->live->row, snapshot, wait);
		end_taking(&ready, result);
		if (result != TM_Ok)
			return result;
		if (job->state == QML_PROCESSING && job->was != QML_PROCESSING)
			keep_number(writer, job);
		else if (job->was == QML_PROCESSING && job->state != QML_PROCESSING)
			qml_wakeup_ended(&job->id, job->attempt);
		note_claim(writer, job);
		if (job->state != job->was || !writer->unwatched)
			qml_count_note_job(job, job->was, QML_NO_TIME, job->state, QML_NO_TIME);
		qml_job_stats_changed(job);
		if (job->state == QML_ENQUEUED)
			qml_ready_row_note_made(writer->live->row, qml_table_row_root(writer->live));
		note_transition(writer, job, false);
		note_times(job, 1, job->state == QML_ENQUEUED ? qml_hook_job_handler(job) : NULL);
		return result;
	}
	/* First the partition: a lock on a table comes before that of a row. */
	if (is_kept)
		open_leaf(writer, job->expires_at);
	choose_commit(writer->live, job);
	result = qml_table_delete(writer->live, tid, snapshot, wait);
	end_taking(&ready, result);
	if (result != TM_Ok)
		return result;
	qml_wakeup_finished(&job->id);
	note_claim(writer, job);
	qml_count_note_job(job, job->was, QML_NO_TIME, is_kept ? job->state : QML_NOT_COUNTED,
					   job->expires_at);
	qml_job_stats_changed(job);
	if (job->was == QML_PROCESSING)
		qml_wakeup_ended(&job->id, job->attempt);
	/* At commit, a worker in the database that is running the job is canceled. */
	if (job->was == QML_PROCESSING && job->state == QML_DELETED)
		qml_wakeup_deleted(&job->id);
	note_transition(writer, job, false);
	if (job->state == QML_FAILED)
		qml_failure_log_note(job);
	if (is_kept)
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

/*
 * Reads the row of a running job into live->slot, from where it was last, and turns to its tables;
 * false: it is not there.
 */
static bool
find_by_place(QmlWriter *writer, const pg_uuid_t *id)
{
	QmlRowPlace place;
	bool isnull;

	if (!qml_lease_table_place(id, &place) || place.store >= qml_stores_in_use())
		return false;
	qml_writer_turn(writer, place.store);
	return qml_table_fetch(writer->live, &place.root, writer->snapshot, writer->room) &&
		   memcmp(DatumGetUUIDP(slot_getattr(writer->live->slot, LIVE_ID, &isnull)), id,
				  sizeof(pg_uuid_t)) == 0;
}

/* The same for any unfinished job, by the index. */
static bool
find_by_id(QmlWriter *writer, const pg_uuid_t *id)
{
	QmlWriterTables *tables = current_tables(writer);
	ScanKeyData key;

	if (tables->pkey == NULL)
		tables->pkey = index_open(qml_store(writer->store)->live_pkey, RowExclusiveLock);
	if (tables->by_id == NULL)
		tables->by_id = qml_index_beginscan(writer->live->rel, tables->pkey, writer->snapshot, 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(tables->by_id, &key, 1, NULL, 0);
	return qml_table_next(writer->live, tables->by_id);
}

/*
 * Finds an unfinished job, and turns to its tables; its row is in live->slot then.  An id is in one
 * storage class only: where the last job was, the next one often is, too.
 */
static bool
find_live(QmlWriter *writer, const pg_uuid_t *id, QmlJob *job)
{
	int first;
	bool found;

	/* The newest version counts: whether a token is stale does not depend on snapshots. */
	if (writer->snapshot == NULL)
		writer->snapshot = qml_table_latest_snapshot();
	found = find_by_place(writer, id) || find_by_id(writer, id);
	first = (int) writer->store;
	for (int i = 0; !found && i < qml_stores_in_use(); i++)
	{
		if (i == first)
			continue;
		qml_writer_turn(writer, i);
		found = find_by_id(writer, id);
	}
	if (!found)
		return false;
	check_unchanged(writer, writer->live);
	qml_job_from_live(writer->live->slot, job);
	return true;
}

/*
 * Writes back a job that was finished, whose row leaf->slot holds: in its partition if it
 * still is finished, and into qml.live otherwise.  The result is that of qml_writer_put().
 */
TM_Result
qml_writer_put_finished(QmlWriter *writer, QmlTable *leaf, const QmlJob *job, bool wait)
{
	ItemPointer tid = &leaf->slot->tts_tid;
	Snapshot snapshot = qml_writer_snapshot(writer);
	const QmlQueue *queue;
	TM_Result result;
	TimestampTz expires_at;
	bool created;
	bool isnull;

	Assert(CheckRelationLockedByMe(leaf->rel, RowExclusiveLock, true));
	expires_at = DatumGetTimestampTz(slot_getattr(leaf->slot, HISTORY_EXPIRES_AT, &isnull));
	if (qml_state_is_final(job->state))
	{
		qml_job_to_history(job, leaf->row);
		choose_commit(leaf, job);
		result = qml_table_update(leaf, tid, leaf->row, snapshot, wait);
		if (result == TM_Ok)
		{
			qml_count_note_job(job, job->was, expires_at, job->state, job->expires_at);
			note_transition(writer, job, false);
		}
		return result;
	}
	/* Finished jobs do not keep their queue: it is made again if it was dropped. */
	queue = qml_queue_require(job->queue_id);
	queue = wait ? qml_queue_to_enqueue(queue->name, false, &created) :
				   qml_queue_try_to_enqueue(queue->name, &created);
	if (queue == NULL)
		return TM_BeingModified;
	choose_commit(leaf, job);
	result = qml_table_delete(leaf, tid, snapshot, wait);
	if (result != TM_Ok)
		return result;
	qml_count_note(job->was_queue, 1, job->was, expires_at, QML_NOT_COUNTED, QML_NO_TIME);
	/*
	 * Nor its storage class.  A crash must not bring back the finished job when attempts of the
	 * unlogged one, of which nothing is on the disk, may have begun.
	 */
	if (qml_queue_store(queue) == QML_STORE_UNLOGGED && RelationNeedsWAL(leaf->rel))
		ForceSyncCommit();
	qml_writer_turn(writer, qml_queue_store(queue));
	qml_writer_insert(writer, job, qml_hook_job_handler(job), false);
	return result;
}

/*
 * Finds a finished job, and turns to the tables where it is: to change it if we may wait, and
 * otherwise to read it.  *looked: false if part of the history was locked, and the job was not
 * found elsewhere.
 */
static bool
find_finished(QmlWriter *writer, const pg_uuid_t *id, bool wait, QmlTable *leaf, QmlJob *job,
			  bool *looked)
{
	bool found = false;

	*looked = true;
	for (int i = 0; !found && i < qml_stores_in_use(); i++)
	{
		bool all = true;

		qml_writer_turn(writer, i);
		found = wait ? qml_history_find(i, id, writer->snapshot, RowExclusiveLock, leaf, job) :
					   qml_history_try_find(i, id, writer->snapshot, leaf, job, &all);
		*looked = *looked && all;
	}
	return found;
}

/* Changes one job, wherever it is. */
static QmlChanged
change_job(QmlWriter *writer, const pg_uuid_t *id, QmlChange change, void *arg, bool wait)
{
	for (;;)
	{
		TM_Result result = TM_Ok;
		bool looked;
		QmlTable leaf;
		QmlJob job;

		if (find_live(writer, id, &job))
		{
			if (change(&job, arg))
				result = qml_writer_put(writer, &job, wait);
			if (result == TM_BeingModified)
				return QML_HELD;
		}
		else if (find_finished(writer, id, wait, &leaf, &job, &looked))
		{
			check_unchanged(writer, &leaf);
			if (change(&job, arg))
			{
				Assert(wait);
				result = qml_writer_put_finished(writer, &leaf, &job, true);
			}
			qml_table_close(&leaf);
		}
		else
			return looked ? QML_NO_SUCH_JOB : QML_UNSEEN;
		if (result == TM_Ok)
			return QML_CHANGED;

		/*
		 * Somebody else was faster, and has committed: look for the job again, with a new
		 * snapshot.  A transaction that keeps its snapshot must not see what there is now.
		 */
		if (result != TM_SelfModified && IsolationUsesXactSnapshot() && !writer->latest)
			raise_serialization_failure();
		CHECK_FOR_INTERRUPTS();

		/*
		 * It may have been this writer itself, as qml_ack_many() can be given a job twice.
		 * Then the row must be written, so that the job is found in the history.
		 */
		for (int i = 0; i < QML_STORES; i++)
			flush_pending(&writer->tables[i]);
		drop_snapshot(writer);
	}
}

/*
 * Changes one job, wherever it is, and waits for others that are changing it.  False
 * when there is no such job.
 */
bool
qml_writer_change(QmlWriter *writer, const pg_uuid_t *id, QmlChange change, void *arg)
{
	return change_job(writer, id, change, arg, true) == QML_CHANGED;
}

/*
 * The same without waiting: a job whose row another transaction has is left as it is, and
 * one that is not in qml.live is not looked for in what is locked of the history.  A finished
 * job must not be changed so.
 */
QmlChanged
qml_writer_change_unless_held(QmlWriter *writer, const pg_uuid_t *id, QmlChange change, void *arg)
{
	return change_job(writer, id, change, arg, false);
}

/*
 * The same for a job that is not finished, in one try.  False also when somebody else is
 * changing it, or has just changed it.
 */
bool
qml_writer_try_change(QmlWriter *writer, const pg_uuid_t *id, QmlChange change, void *arg)
{
	QmlJob job;

	return find_live(writer, id, &job) &&
		   (!change(&job, arg) || qml_writer_put(writer, &job, false) == TM_Ok);
}
