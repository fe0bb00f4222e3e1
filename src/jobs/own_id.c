/*
 * own_id.c
 *		Adding a job whose id is the caller's own, and may be there already.
 *
 * An id is given once among the jobs that are unfinished, or finished and not expired.  For
 * the former the primary key of qml.live sees to that; the latter are looked for after the
 * row was inserted, so that a job of this id which finishes meanwhile is seen.  As with any
 * unique key, the call waits for another transaction that is adding the id.
 *
 * In which storage class that is does not matter, and no index is over all of them.  So when the row
 * is there, the other classes are looked at: first at rows of any transaction, which is waited
 * for, then with one snapshot at unfinished and finished jobs.  Of two that add the id in two
 * classes at once, at least the one that looks later sees the row of the other.
 *
 * They must not wait for each other.  So where other classes are in use, one at a time inserts its
 * row and looks, with a lock on the hash of the id; the second one sees the row of the first before
 * it inserts its own, and waits without the lock.  The lock is given back at once: a transaction may
 * add any number of jobs.  Only if a class comes into use at this very moment, the server has to
 * find out that two wait for each other (40P01).
 *
 * If the caller wants it, a standing job that is the same is returned.  Otherwise, and for
 * any other job, the error is 23505.  Two jobs are the same if they have the same queue,
 * method, payload and job_type: what is to be done.  When, how often and how urgently it is
 * done may have been changed since, and the metadata is about the call.  The newest version
 * of the standing job counts; in REPEATABLE READ and SERIALIZABLE one that the snapshot does
 * not see is error 40001.
 *
 * Who does not see all contents of the standing job is told no more than that the id is
 * taken, so that payloads cannot be guessed, and nothing is learned of the state of jobs of
 * others.
 *
 * A row that was inserted, and is not to stay, is deleted again before anybody is told of it.
 * A crash leaves nothing but what the transaction leaves.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "compat.h"
#include "core/state.h"
#include "jobs/history.h"
#include "jobs/lookup.h"
#include "jobs/own_id.h"
#include "model/queue.h"

pg_noreturn static void
raise_exists(const QmlJob *job, char *detail, bool hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("job %s already exists", qml_job_id_string(&job->id)),
			 errdetail_internal("%s", detail),
			 hint ? errhint("With options => '{\"on_duplicate_id\": \"return\"}', the id of a job "
							"that is the same is returned instead.") :
					0));
}

static char *
describe_key(const QmlJob *job)
{
	return psprintf("Key (id)=(%s)", qml_job_id_string(&job->id));
}

static char *
describe_unfinished(const QmlJob *job)
{
	return psprintf(_("%s belongs to a job that is not finished."), describe_key(job));
}

static char *
describe_finished(const QmlJob *job)
{
	return psprintf(_("%s belongs to a finished job; the id is free again when it has expired."),
					describe_key(job));
}

static char *
describe_taken(const QmlJob *job)
{
	return psprintf(_("%s is taken."), describe_key(job));
}

/* Whether the current user sees all contents of the standing job. */
static bool
is_visible(const QmlJob *standing)
{
	return qml_job_visibility(standing) == QML_ACCESS_FULL;
}

static bool
same_text(Datum a, Datum b)
{
	if (a == (Datum) 0 || b == (Datum) 0)
		return a == b;
	return strcmp(TextDatumGetCString(a), TextDatumGetCString(b)) == 0;
}

static bool
same_document(Datum a, Datum b)
{
	return compareJsonbContainers(&DatumGetJsonbP(a)->root, &DatumGetJsonbP(b)->root) == 0;
}

/* What the standing job has that the new one has not; NULL: they are the same. */
static const char *
find_difference(const QmlJob *job, const QmlJob *standing)
{
	if (job->queue_id != standing->queue_id)
		return "queue";
	if (!same_text(job->method, standing->method))
		return "method";
	if (!same_document(job->payload, standing->payload))
		return "payload";
	if (!same_text(job->job_type, standing->job_type))
		return "job_type";
	return NULL;
}

/* Raises an error unless the standing job, a row in the slot of the table, can be returned. */
static void
judge_standing(const QmlJob *job, const QmlJob *standing, const QmlTable *table)
{
	const char *difference;

	if (!is_visible(standing))
		raise_exists(job, describe_taken(job), false);
	difference = find_difference(job, standing);
	if (difference)
		raise_exists(job,
					 psprintf(_("%s belongs to a job with another %s."), describe_key(job),
							  difference),
					 false);
	if (IsolationUsesXactSnapshot() &&
		!table_tuple_satisfies_snapshot(table->rel, table->slot, GetTransactionSnapshot()))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
}

/* Looks for a finished job of the id, judges it if it may be returned, and raises otherwise. */
static bool
find_finished(QmlStoreId store, const QmlJob *job, Snapshot snapshot, QmlOnDuplicateId on_duplicate,
			  QmlState *state)
{
	QmlTable leaf;
	QmlJob standing;

	if (!qml_history_find(store, &job->id, snapshot, AccessShareLock, &leaf, &standing))
		return false;
	if (on_duplicate == QML_DUPLICATE_ID_ERROR)
		raise_exists(job, is_visible(&standing) ? describe_finished(job) : describe_taken(job),
					 true);
	judge_standing(job, &standing, &leaf);
	*state = standing.state;
	qml_table_close(&leaf);
	return true;
}

/* The same for any job of the tables that the writer works on. */
static bool
find_standing_here(QmlWriter *writer, const QmlJob *job, Snapshot snapshot, QmlState *state)
{
	QmlJob standing;

	if (!qml_lookup_live(writer->store, writer->live, &job->id, snapshot, &standing))
		return find_finished(writer->store, job, snapshot, QML_DUPLICATE_ID_RETURN, state);
	judge_standing(job, &standing, writer->live);
	*state = standing.state;
	return true;
}

/*
 * The same for any job; one snapshot sees each job in exactly one place.  One of another storage
 * class is in another queue.
 */
static bool
find_standing(QmlWriter *writer, const QmlJob *job, QmlState *state)
{
	Snapshot snapshot = qml_table_latest_snapshot();
	QmlStoreId own = writer->store;
	bool found = false;

	for (int i = 0; i < qml_stores_in_use() && !found; i++)
	{
		qml_writer_turn(writer, i);
		found = find_standing_here(writer, job, snapshot, state);
	}
	qml_writer_turn(writer, own);
	UnregisterSnapshot(snapshot);
	return found;
}

/* A job has the id, which was not to be so.  It may finish, or vanish, before it is read. */
pg_noreturn static void
raise_unfinished(QmlWriter *writer, const QmlJob *job)
{
	Snapshot snapshot = qml_table_latest_snapshot();
	QmlJob standing;
	bool told = qml_lookup_live(writer->store, writer->live, &job->id, snapshot, &standing) &&
				is_visible(&standing);

	raise_exists(job, told ? describe_unfinished(job) : describe_taken(job), true);
}

/* The row of the job is there: whether a job of the id has finished meanwhile. */
static bool
has_finished(const QmlWriter *writer, const QmlJob *job, QmlOnDuplicateId on_duplicate,
			 QmlState *state)
{
	Snapshot snapshot = qml_table_latest_snapshot();
	bool found = find_finished(writer->store, job, snapshot, on_duplicate, state);

	UnregisterSnapshot(snapshot);
	return found;
}

/* Waits for the transaction that has written, or is deleting, the row that a dirty snapshot found. */
static void
wait_for_writer(const SnapshotData *dirty)
{
	TransactionId writer = TransactionIdIsValid(dirty->xmin) ? dirty->xmin : dirty->xmax;

	if (dirty->speculativeToken != 0)
		SpeculativeInsertionWait(dirty->xmin, dirty->speculativeToken);
	else
		XactLockTableWait(writer, NULL, NULL, XLTW_None);
}

/* Whether somebody else is adding or removing an unfinished job of the id; *dirty: who. */
static bool
find_writer(QmlStoreId store, QmlTable *live, const pg_uuid_t *id, SnapshotData *dirty)
{
	Relation pkey = index_open(qml_store(store)->live_pkey, AccessShareLock);
	IndexScanDesc scan;
	ScanKeyData key;
	bool found;

	InitDirtySnapshot(*dirty);
	scan = qml_index_beginscan(live->rel, pkey, dirty, 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, live->slot) &&
			(TransactionIdIsValid(dirty->xmin) || TransactionIdIsValid(dirty->xmax));
	ExecClearTuple(live->slot);
	index_endscan(scan);
	index_close(pkey, NoLock);
	return found;
}

/* Waits until nobody is. */
static void
wait_for_others(QmlStoreId store, QmlTable *live, const pg_uuid_t *id)
{
	SnapshotData dirty;

	while (find_writer(store, live, id, &dirty))
	{
		wait_for_writer(&dirty);
		CHECK_FOR_INTERRUPTS();
	}
}

/* The same in any storage class. */
static bool
find_writer_anywhere(const pg_uuid_t *id, SnapshotData *dirty)
{
	bool found = false;

	for (int i = 0; !found && i < qml_stores_in_use(); i++)
	{
		QmlTable live;

		qml_table_open(&live, qml_store(i)->live, AccessShareLock);
		found = find_writer(i, &live, id, dirty);
		qml_table_close(&live);
	}
	return found;
}

/* The lock on an id that is being added. */
typedef struct IdLock
{
	bool is_held;
	Oid class;
	uint32 hash;
} IdLock;

static void
unlock_id(IdLock *lock)
{
	if (lock->is_held)
		UnlockDatabaseObject(lock->class, lock->hash, 0, ExclusiveLock);
	lock->is_held = false;
}

/*
 * Locks the id, if jobs are in several storage classes, when nobody else is adding or removing a job
 * of it.  Who waits does not have the lock: whom it waits for may want it.
 */
static void
lock_id(IdLock *lock, const pg_uuid_t *id)
{
	SnapshotData dirty;

	lock->is_held = false;
	if (qml_stores_in_use() == 1)
		return;
	lock->class = qml_store(QML_STORE_LOGGED)->live;
	lock->hash = hash_bytes(id->data, UUID_LEN);
	for (;;)
	{
		LockDatabaseObject(lock->class, lock->hash, 0, ExclusiveLock);
		lock->is_held = true;
		if (!find_writer_anywhere(id, &dirty))
			return;
		unlock_id(lock);
		wait_for_writer(&dirty);
		CHECK_FOR_INTERRUPTS();
	}
}

/* A job of another storage class has the id. */
pg_noreturn static void
raise_standing(const QmlJob *job, const QmlJob *standing)
{
	char *detail = qml_state_is_final(standing->state) ? describe_finished(job) :
														 describe_unfinished(job);

	if (!is_visible(standing))
		detail = describe_taken(job);
	/* A finished one may be of the same queue, whose storage was changed since. */
	raise_exists(job, detail, standing->queue_id == job->queue_id);
}

/* Raises an error if a job of the id is in another storage class. */
static void
check_in(QmlStoreId store, const QmlJob *job)
{
	QmlTable live;
	QmlTable leaf;
	QmlJob standing;
	Snapshot snapshot;

	qml_table_open(&live, qml_store(store)->live, AccessShareLock);
	wait_for_others(store, &live, &job->id);
	/* Whoever adds one from now on sees ours.  What was there is seen in one place. */
	snapshot = qml_table_latest_snapshot();
	if (qml_lookup_live(store, &live, &job->id, snapshot, &standing) ||
		qml_history_find(store, &job->id, snapshot, AccessShareLock, &leaf, &standing))
		raise_standing(job, &standing);
	UnregisterSnapshot(snapshot);
	qml_table_close(&live);
}

/* The row of the job is there: no other storage class may have one of the id. */
static void
check_elsewhere(const QmlWriter *writer, const QmlJob *job)
{
	for (int i = 0; i < qml_stores_in_use(); i++)
	{
		if (i != (int) writer->store)
			check_in(i, job);
	}
}

/*
 * Inserts a job.  False: one that is the same was there, and is in *state; only if
 * on_duplicate allows it.
 */
bool
qml_own_id_insert(QmlWriter *writer, QmlJob *job, const QmlHandler *handler,
				  QmlOnDuplicateId on_duplicate, QmlState *state)
{
	IdLock lock;

	for (;;)
	{
		/* Before anything is written: it is there most of the time, if this is asked for. */
		if (on_duplicate == QML_DUPLICATE_ID_RETURN && find_standing(writer, job, state))
			return false;
		lock_id(&lock, &job->id);
		if (qml_writer_try_insert(writer, job))
			break;
		if (on_duplicate == QML_DUPLICATE_ID_ERROR)
			raise_unfinished(writer, job);
		unlock_id(&lock);
		CHECK_FOR_INTERRUPTS();
	}
	QML_FAULT("own_id.inserted");
	if (has_finished(writer, job, on_duplicate, state))
	{
		qml_writer_take_back(writer);
		unlock_id(&lock);
		return false;
	}
	check_elsewhere(writer, job);
	unlock_id(&lock);
	qml_writer_note_new(writer, job, handler);
	return true;
}
