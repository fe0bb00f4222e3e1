/*
 * bulk_chunk.c
 *		Some of the jobs of a bulk operation, in one transaction.
 *
 * First jobs are sought, the newest first, from where the last chunk has ended; then each row that
 * was found is changed where it is, if it is still the same.  The place of a job never changes, so
 * each is met once however often it moves meanwhile.
 *
 * Rights are those of the current user: jobs of queues that it does not administer are left as they
 * are, and counted if it sees them.  What their contents are must not be told by that count, so
 * conditions on contents do not match them.
 *
 * Nothing is waited for: a row, partition or queue that others have makes the job one that is held,
 * for the caller to try again.  So a chunk takes part in no deadlock.  A job that cannot be
 * changed hides no other (common/row_pass.c), and hooks are called with their errors caught, because
 * nobody waits for an answer.
 *
 * All of it is the caller's transaction, and a crash leaves each job as it was.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/rel.h"

#include "common/fault.h"
#include "common/report.h"
#include "common/row_pass.h"
#include "jobs/bulk_chunk.h"
#include "jobs/search.h"
#include "jobs/writer.h"
#include "model/redact.h"

/* A job that was found. */
typedef struct Found
{
	QmlSearchRow row;
	pg_uuid_t id;
} Found;

typedef struct Pass
{
	QmlBulkChunk *chunk;
	QmlSearch search;
	bool is_full; /* there may be more jobs */
	Found *found;
	int nfound;
	int64 not_permitted;
	TimestampTz now;

	/* Of the changes. */
	QmlRowPass rows;
	QmlWriter writer;
	QmlTable leaf; /* the partition that was opened last */
	Oid leaf_oid;  /* InvalidOid: none is open */
	const Found *current;
	QmlBulkOutcome outcome; /* of that job */
} Pass;

/* ----- seeking ----- */

static bool
may_change(const QmlJob *job)
{
	const QmlQueue *queue = qml_queue_by_id(job->queue_id);

	return queue && qml_acl_allow(QML_CAN_ADMIN, queue->name);
}

/* QmlSearch.access */
static QmlAccess
get_access(const QmlJob *job, void *arg)
{
	const QmlQueue *queue;
	QmlAccess access;

	if (may_change(job))
		return QML_ACCESS_FULL;
	queue = qml_queue_by_id(job->queue_id);
	access = queue ? qml_acl_access(queue->name, job->created_by) : QML_ACCESS_NONE;
	return Min(access, QML_ACCESS_OUTLINE);
}

/* QmlSearch.use */
static bool
collect_job(const QmlJob *job, const QmlSearchPlace *place, QmlAccess access, void *arg)
{
	Pass *pass = arg;

	pass->chunk->reached = *place;
	/* Those who may change it see all of it. */
	if (access != QML_ACCESS_FULL)
		pass->not_permitted++;
	else
	{
		pass->found[pass->nfound].row = pass->search.row;
		pass->found[pass->nfound++].id = job->id;
	}
	pass->is_full = pass->nfound == pass->chunk->most_jobs;
	return !pass->is_full;
}

static void
seek_jobs(Pass *pass)
{
	QmlBulkChunk *chunk = pass->chunk;

	pass->search = (QmlSearch){.compiled = chunk->compiled,
							   .has_after = chunk->has_after,
							   .after = chunk->after,
							   .created_by = chunk->made_at,
							   .most_looked = chunk->most_looked,
							   .stops_for_all = true,
							   .states = chunk->action->states,
							   .ids = chunk->ids,
							   .nids = chunk->nids,
							   .access = get_access,
							   .use = collect_job,
							   .arg = pass};
	pass->found = palloc(sizeof(Found) * chunk->most_jobs);
	qml_search_run(&pass->search);
	chunk->looked = pass->search.looked;
	chunk->met = pass->nfound;
	chunk->over = !pass->is_full && !pass->search.is_partial;
	if (!pass->is_full && pass->search.is_partial)
		chunk->reached = pass->search.stopped;
}

/* ----- changing ----- */

/* Opens the partition of the current job to change it; false: it is locked, or gone. */
static bool
open_leaf(Pass *pass)
{
	Oid relid = pass->current->row.relid;

	if (pass->leaf_oid == relid)
		return true;
	if (OidIsValid(pass->leaf_oid))
		qml_table_close(&pass->leaf);
	pass->leaf_oid = InvalidOid;
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		return false;
	if (!qml_table_try_open(&pass->leaf, relid, RowExclusiveLock))
		return false;
	pass->leaf_oid = relid;
	return true;
}

/* Reads the row of the current job, of the tables that are open; false: it is another one now. */
static bool
read_row(const Pass *pass, QmlWriter *writer, QmlTable *table)
{
	ItemPointerData tid = pass->current->row.tid;

	return table_tuple_fetch_row_version(table->rel, &tid, qml_writer_snapshot(writer),
										 table->slot);
}

/* Changes the current job, whose row was read; leaf: NULL if it is not finished. */
static bool
change_job(Pass *pass, QmlWriter *writer, QmlTable *leaf)
{
	TM_Result result;
	QmlJob job;

	if (leaf)
		qml_job_from_history(leaf->slot, &job);
	else
		qml_job_from_live(writer->live->slot, &job);
	/* If the job has moved, and its place is another one's now, it is sought again. */
	pass->outcome = QML_BULK_HELD;
	if (memcmp(&job.id, &pass->current->id, sizeof(pg_uuid_t)) != 0)
		return false;
	pass->outcome = QML_BULK_GONE;
	if (job.expires_at != QML_NO_TIME && job.expires_at <= pass->now)
		return false;
	pass->outcome = qml_bulk_action_apply(pass->chunk->action, pass->chunk->queue, &job, pass->now);
	if (pass->outcome != QML_BULK_CHANGED)
		return false;
	result = leaf ? qml_writer_put_finished(writer, leaf, &job, false) :
					qml_writer_put(writer, &job, false);
	if (result != TM_Ok)
		pass->outcome = QML_BULK_HELD;
	return result == TM_Ok;
}

/* QmlRowPass.change */
static bool
change_in_pass(void *arg)
{
	Pass *pass = arg;

	return change_job(pass, &pass->writer, pass->current->row.live ? NULL : &pass->leaf);
}

/* QmlRowPass.change_alone */
static bool
change_alone(void *arg, ItemPointer tid)
{
	Pass *pass = arg;
	const QmlSearchRow *row = &pass->current->row;
	QmlWriter writer;
	QmlTable leaf;
	bool changed = false;

	pass->outcome = QML_BULK_HELD;
	qml_writer_open(&writer, false, true);
	qml_writer_turn(&writer, row->store);
	if (!row->live)
		qml_table_open(&leaf, row->relid, RowExclusiveLock);
	if (read_row(pass, &writer, row->live ? writer.live : &leaf))
		changed = change_job(pass, &writer, row->live ? NULL : &leaf);
	if (!row->live)
		qml_table_close(&leaf);
	qml_writer_close(&writer);
	return changed;
}

/* QmlRowPass.failed */
static void
note_failure(void *arg, TupleTableSlot *slot, const QmlFailure *failure)
{
	Pass *pass = arg;
	bool isnull;
	int queue_id = DatumGetInt32(slot_getattr(slot, LIVE_QUEUE_ID, &isnull));
	/* It may quote the job, and is shown also when a right was revoked since. */
	bool hidden = qml_redact_has(qml_queue_by_id(queue_id),
								 slot_getattr(slot, LIVE_METHOD, &isnull));
	char *text = psprintf("job %s: %s (SQLSTATE %s)", qml_job_id_string(&pass->current->id),
						  hidden ? QML_REDACTED : failure->message,
						  unpack_sql_state(failure->sqlerrcode));

	pass->outcome = QML_BULK_FAILED;
	pass->chunk->error = MemoryContextStrdup(GetMemoryChunkContext(pass->found), text);
}

/* Visits the row of the current job. */
static void
visit_job(Pass *pass)
{
	const QmlSearchRow *row = &pass->current->row;
	QmlTable *table;

	pass->outcome = QML_BULK_HELD;
	qml_writer_turn(&pass->writer, row->store);
	if (!row->live && !open_leaf(pass))
		return;
	table = row->live ? pass->writer.live : &pass->leaf;
	if (read_row(pass, &pass->writer, table))
		(void) qml_row_pass_visit(&pass->rows, table->slot);
}

/* QmlRowPass.walk */
static void
walk_found(void *arg)
{
	Pass *pass = arg;
	QmlBulkChunk *chunk = pass->chunk;

	memset(chunk->counts, 0, sizeof(chunk->counts));
	chunk->counts[QML_BULK_NOT_PERMITTED] = pass->not_permitted;
	chunk->nheld = 0;
	pass->leaf_oid = InvalidOid;
	qml_writer_open(&pass->writer, true, true);
	if (chunk->action->kind == QML_BULK_DELETE)
		qml_writer_expect_ends(&pass->writer);
	(void) qml_writer_snapshot(&pass->writer);
	pass->now = GetCurrentTimestamp();
	for (int i = 0; i < pass->nfound; i++)
	{
		CHECK_FOR_INTERRUPTS();
		QML_FAULT("bulk.job");
		pass->current = &pass->found[i];
		visit_job(pass);
		if (pass->outcome == QML_BULK_HELD)
			chunk->held[chunk->nheld++] = pass->current->id;
		else
			chunk->counts[pass->outcome]++;
	}
	if (OidIsValid(pass->leaf_oid))
		qml_table_close(&pass->leaf);
	qml_writer_close(&pass->writer);
}

/* Does the action to jobs of the chunk.  Results are in the current memory context. */
void
qml_bulk_chunk_run(QmlBulkChunk *chunk)
{
	Pass pass = {.chunk = chunk};

	Assert(chunk->most_jobs > 0 && chunk->most_looked > 0);
	seek_jobs(&pass);
	chunk->held = palloc(sizeof(pg_uuid_t) * Max(pass.nfound, 1));
	chunk->error = NULL;
	pass.rows = (QmlRowPass){.walk = walk_found,
							 .change = change_in_pass,
							 .change_alone = change_alone,
							 .failed = note_failure,
							 .arg = &pass};
	qml_row_pass_run(&pass.rows);
	/* Of named jobs, those that were not found do not match any more. */
	if (chunk->ids && chunk->over)
		chunk->counts[QML_BULK_GONE] += chunk->nids - pass.nfound - pass.not_permitted;
	pfree(pass.found);
}

/* ----- preview ----- */

typedef struct GroupKey
{
	uint64 method;
	int queue_id;
	int state;
} GroupKey;

typedef struct GroupEntry
{
	GroupKey key;
	QmlBulkGroup group;
} GroupEntry;

typedef struct Preview
{
	HTAB *groups;
	MemoryContext context;
} Preview;

/* QmlSearch.access: of others nothing is told. */
static QmlAccess
get_preview_access(const QmlJob *job, void *arg)
{
	return may_change(job) ? QML_ACCESS_FULL : QML_ACCESS_NONE;
}

/* QmlSearch.use */
static bool
count_job(const QmlJob *job, const QmlSearchPlace *place, QmlAccess access, void *arg)
{
	Preview *preview = arg;
	GroupKey key;
	GroupEntry *entry;
	bool found;

	CHECK_FOR_INTERRUPTS();
	memset(&key, 0, sizeof(key));
	key.method = qml_job_hash_method_long(job->method);
	key.queue_id = job->queue_id;
	key.state = job->state;
	entry = hash_search(preview->groups, &key, HASH_ENTER, &found);
	if (!found)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(preview->context);

		entry->group = (QmlBulkGroup){.queue_id = job->queue_id,
									  .state = job->state,
									  .method = TextDatumGetCString(job->method)};
		MemoryContextSwitchTo(oldcontext);
	}
	entry->group.count++;
	return true;
}

/*
 * Counts the jobs that the action would change now, by queue, method and state; how many groups.
 * It reads all that can match.
 */
int
qml_bulk_chunk_preview(const QmlBulkAction *action, const QmlSearchCompiled *compiled,
					   QmlBulkGroup **groups)
{
	HASHCTL control = {.keysize = sizeof(GroupKey),
					   .entrysize = sizeof(GroupEntry),
					   .hcxt = CurrentMemoryContext};
	Preview preview = {.context = CurrentMemoryContext};
	QmlSearch search = {.compiled = compiled,
						.states = action->states,
						.access = get_preview_access,
						.use = count_job,
						.arg = &preview};
	HASH_SEQ_STATUS status;
	GroupEntry *entry;
	int count = 0;

	preview.groups = hash_create("qml bulk preview", 64, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	qml_search_run(&search);
	*groups = palloc(sizeof(QmlBulkGroup) * Max(hash_get_num_entries(preview.groups), 1));
	hash_seq_init(&status, preview.groups);
	while ((entry = hash_seq_search(&status)) != NULL)
		(*groups)[count++] = entry->group;
	return count;
}
