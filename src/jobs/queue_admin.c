/*
 * queue_admin.c
 *		Managing queues: create, alter, drop, pause, resume.
 *
 * A dropped queue keeps its row, marked, because finished jobs name it.  Dropping takes
 * the lock on the queue exclusively (see model/queue.c), so that no job appears after it
 * has looked whether there are any.  The lock is tried for a while and not queued for:
 * behind a transaction that has added a job and stays open, all others who add jobs would
 * wait.  While it is held, little is read, however many jobs other queues have.
 *
 * Changes are made to the newest version of the row in any isolation level, and reach
 * other backends by the invalidation that a trigger registers.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/visibilitymap.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/clock.h"
#include "common/spi.h"
#include "common/table.h"
#include "compat.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "jobs/partition.h"
#include "jobs/queue_admin.h"
#include "model/catalog.h"
#include "model/grant.h"
#include "model/options.h"
#include "model/queue.h"

/* How long a queue that is in use is tried to be dropped, and how often. */
#define DROP_TRIES_MS 1000
#define DROP_PAUSE_MS 10

/*
 * Runs a statement about one queue as it is now: $1 is its name, $2 a value unless type
 * is InvalidOid.  It returns the ids of the rows that it changes, of which all backends are
 * told.  Returns the number of rows.
 */
static uint64
execute_for_queue(const char *sql, const char *name, Oid type, Datum value, int expected)
{
	Oid types[] = {TEXTOID, type};
	Datum values[] = {CStringGetTextDatum(name), value};
	QmlSpi spi;
	uint64 rows;

	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute_latest(sql, OidIsValid(type) ? 2 : 1, types, values, NULL, expected);
	if (expected != SPI_OK_SELECT)
		qml_queue_changed();
	qml_spi_end(&spi);
	return rows;
}

/* Raises QM005 where an option is unknown or has a bad value. */
static void
check_options(const char *name, Jsonb *options)
{
	QmlQueueOptions parsed;

	qml_options_parse_queue(options, &parsed);
	if (parsed.notify && strlen(QML_CHANNEL_PREFIX) + strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("option \"notify\" cannot be set for queue \"%s\"", name),
				 errdetail("The channel \"%s\" and the name together have at most %d bytes.",
						   QML_CHANNEL_PREFIX, NAMEDATALEN - 1),
				 errhint("Give a queue that notifies a shorter name.")));
}

/* Makes the partitions of the history that jobs of the queue will need soon. */
static void
make_partitions(const char *name)
{
	const QmlQueue *queue = qml_queue_by_name(name);

	/* A rule or trigger that somebody added may have undone the change. */
	if (queue)
		(void) qml_partition_make_ahead(qml_queue_ttls_of(queue), NULL);
}

/* Creates a queue, also one that was dropped before. */
void
qml_queue_admin_create(const char *name, Jsonb *options)
{
	check_options(name, options);
	qml_queue_lock_name(name);
	if (execute_for_queue(
			"INSERT INTO qml.queue_data AS q (name, options) "
			"VALUES ($1, pg_catalog.jsonb_strip_nulls($2)) "
			"ON CONFLICT (name) DO UPDATE SET dropped = false, paused = false, "
			"options = excluded.options, created_at = pg_catalog.now() WHERE q.dropped "
			"RETURNING id",
			name, JSONBOID, JsonbPGetDatum(options), SPI_OK_INSERT_RETURNING) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("queue \"%s\" already exists", name),
				 errhint("qml_alter_queue() changes its options.")));
	/* A TTL may need partitions of the history that do not exist yet. */
	make_partitions(name);
}

/* Options that are given replace those there; null goes back to the setting. */
void
qml_queue_admin_alter(const char *name, Jsonb *options)
{
	check_options(name, options);
	if (execute_for_queue(
			"UPDATE qml.queue_data SET options = pg_catalog.jsonb_strip_nulls(options || $2) "
			"WHERE name = $1 AND NOT dropped RETURNING id",
			name, JSONBOID, JsonbPGetDatum(options), SPI_OK_UPDATE_RETURNING) == 0)
		qml_queue_raise_missing(name);
	/* A new TTL may need other partitions of the history. */
	make_partitions(name);
}

/*
 * Pauses or resumes a queue; resuming wakes everybody who may have work again.  False when
 * there is none of that name and missing_ok; raises QM006 without it.
 */
bool
qml_queue_admin_pause(const char *name, bool paused, bool missing_ok)
{
	if (execute_for_queue("UPDATE qml.queue_data SET paused = $2 "
						  "WHERE name = $1 AND NOT dropped RETURNING id",
						  name, BOOLOID, BoolGetDatum(paused), SPI_OK_UPDATE_RETURNING) == 0)
	{
		if (!missing_ok)
			qml_queue_raise_missing(name);
		return false;
	}
	if (!paused)
		qml_wakeup_anything();
	return true;
}

/* The queue_id of a row of qml.live. */
static int
get_queue_id(TupleTableSlot *slot)
{
	bool isnull;

	return DatumGetInt32(slot_getattr(slot, LIVE_QUEUE_ID, &isnull));
}

/* Whether a queue has enqueued or processing jobs: the first entry of the index says so. */
static bool
has_ready_jobs(QmlTable *live, int queue_id, Snapshot snapshot)
{
	Relation ready = index_open(qml_catalog()->live_ready, AccessShareLock);
	IndexScanDesc scan = qml_index_beginscan(live->rel, ready, snapshot, 1);
	ScanKeyData key;
	bool found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_id));
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, live->slot);
	index_endscan(scan);
	index_close(ready, NoLock);
	return found;
}

/*
 * Whether a queue has jobs that wait for a time.  No index has these by queue, so the index of
 * all of them is walked.
 *
 * known: NULL, or an earlier snapshot that is still registered and showed none.  Pages on which
 * it sees all rows are not read then.  No row has come to a page since that is marked as visible
 * to all: adding one clears the mark, and no vacuum sets it again while the snapshot does not
 * see the row.  The mark is not read too early, as the lock on the queue was taken in between.
 */
static bool
has_waiting_jobs(QmlTable *live, int queue_id, Snapshot snapshot, Snapshot known)
{
	Relation due = index_open(qml_catalog()->live_due, AccessShareLock);
	IndexScanDesc scan = qml_index_beginscan(live->rel, due, snapshot, 0);
	Buffer visible = InvalidBuffer;
	ItemPointer tid;
	bool found = false;

	index_rescan(scan, NULL, 0, NULL, 0);
	while (!found && (tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (known && VM_ALL_VISIBLE(live->rel, ItemPointerGetBlockNumber(tid), &visible))
			continue;
		found = index_fetch_heap(scan, live->slot) && get_queue_id(live->slot) == queue_id;
	}
	if (BufferIsValid(visible))
		ReleaseBuffer(visible);
	index_endscan(scan);
	index_close(due, NoLock);
	return found;
}

/*
 * Raises 55006 if the queue has unfinished jobs.  The newest versions count, in any isolation
 * level.  known: see above.  Returns the snapshot, which the caller unregisters.
 */
static Snapshot
check_empty(const QmlQueue *queue, Snapshot known)
{
	Snapshot snapshot = qml_table_latest_snapshot();
	QmlTable live;
	bool found;

	qml_table_open(&live, qml_catalog()->live, AccessShareLock);
	found = has_ready_jobs(&live, queue->id, snapshot) ||
			has_waiting_jobs(&live, queue->id, snapshot, known);
	qml_table_close(&live);
	if (found)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("queue \"%s\" has unfinished jobs", queue->name),
				 errhint("Let them finish or delete them, then drop the queue.")));
	return snapshot;
}

/*
 * Takes all locks that dropping the queue needs, if they are free now; otherwise NULL, and
 * nothing that others could wait for is held.  *row_locked: its row was locked by an
 * earlier try.  Once the queue itself is locked, nothing more is waited for.
 */
static const QmlQueue *
try_lock_to_drop(const char *name, bool *row_locked)
{
	const QmlCatalog *cat = qml_catalog();
	const QmlQueue *queue;

	if (!*row_locked)
		*row_locked = execute_for_queue("SELECT FROM qml.queue_data WHERE name = $1 AND NOT "
										"dropped FOR UPDATE SKIP LOCKED",
										name, InvalidOid, (Datum) 0, SPI_OK_SELECT) > 0;
	if (!*row_locked || !ConditionalLockRelationOid(cat->acl, ShareRowExclusiveLock))
		return NULL;
	queue = qml_queue_try_lock(name, AccessExclusiveLock);
	if (queue == NULL)
		UnlockRelationOid(cat->acl, ShareRowExclusiveLock);
	return queue;
}

/* The same, tried for a while; NULL: there is none any more. */
static const QmlQueue *
lock_to_drop(const char *name)
{
	int64 end = qml_clock_monotonic_ms() + DROP_TRIES_MS;
	bool row_locked = false;

	for (;;)
	{
		const QmlQueue *queue = try_lock_to_drop(name, &row_locked);

		if (queue)
			return queue;
		if (qml_queue_by_name(name) == NULL)
			return NULL;
		if (qml_clock_monotonic_ms() >= end)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not drop queue \"%s\" because another transaction is using it",
							name),
					 errdetail("A transaction that is still open has added jobs to the queue, or "
							   "has changed it or the capabilities of roles."),
					 errhint("Try again when that transaction has ended.")));
		qml_clock_pause(DROP_PAUSE_MS);
	}
}

/* Drops a queue; false when there is none of that name. */
static bool
drop_queue(const char *name)
{
	const QmlQueue *queue = qml_queue_by_name(name);
	Snapshot known;
	int id;

	if (queue == NULL)
		return false;
	/* First without the lock, which stops all who add jobs; then what has come since. */
	id = queue->id;
	known = check_empty(queue, NULL);
	queue = lock_to_drop(name);
	if (queue)
		UnregisterSnapshot(check_empty(queue, queue->id == id ? known : NULL));
	UnregisterSnapshot(known);
	if (queue == NULL)
		return false;
	if (execute_for_queue(
			"UPDATE qml.queue_data SET dropped = true, paused = false, options = '{}' "
			"WHERE name = $1 RETURNING id",
			name, InvalidOid, (Datum) 0, SPI_OK_UPDATE_RETURNING) == 0)
		return false;
	qml_grant_forget_queue(name);
	return true;
}

/*
 * Drops a queue without unfinished jobs, and revokes what was granted on it.  False when
 * there is none of that name and missing_ok; raises QM006 without it.
 */
bool
qml_queue_admin_drop(const char *name, bool missing_ok)
{
	bool dropped;

	qml_table_require_write();
	dropped = drop_queue(name);
	if (!dropped && !missing_ok)
		qml_queue_raise_missing(name);
	return dropped;
}
