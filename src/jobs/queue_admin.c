/*
 * queue_admin.c
 *		Managing queues: create, alter, drop, pause, resume; and the pause of all.
 *
 * A dropped queue keeps its row, marked, because finished jobs name it.  Two things are done to
 * a queue without unfinished jobs only: dropping it, and changing how its jobs are stored.  Both
 * take the lock on the queue exclusively (see model/queue.c), so that no job appears after they
 * have looked whether there are any, and none is added before they commit by somebody who knows
 * the queue as it was.  The lock is tried for a while and not queued for: behind a transaction
 * that has added a job and stays open, all others who add jobs would wait.  While it is held,
 * little is read, however many jobs other queues have.
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
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/cache.h"
#include "common/clock.h"
#include "common/lazy_commit.h"
#include "common/spi.h"
#include "common/table.h"
#include "compat.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "jobs/partition.h"
#include "jobs/queue_admin.h"
#include "model/audit.h"
#include "model/catalog.h"
#include "model/grant.h"
#include "model/options.h"
#include "model/queue.h"

/* How long the lock on a queue that is in use is tried, and how often. */
#define TRIES_MS 1000
#define PAUSE_MS 10

/* An error says how many jobs there are up to this. */
#define MAX_COUNTED 1000

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
check_options(const char *name, Jsonb *options, QmlQueueOptions *parsed)
{
	qml_options_parse_queue(options, parsed);
	if (parsed->notify && strlen(QML_CHANNEL_PREFIX) + strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_OPTION),
				 errmsg("option \"notify\" cannot be set for queue \"%s\"", name),
				 errdetail("The channel \"%s\" and the name together have at most %d bytes.",
						   QML_CHANNEL_PREFIX, NAMEDATALEN - 1),
				 errhint("Give a queue that notifies a shorter name.")));
}

/* Tells that jobs of the queue outlive more than was asked for, and are slower for it. */
static void
tell_storage(const char *name, QmlStorage storage)
{
	if (storage == QML_ASYNC && !qml_lazy_commit_possible())
		ereport(NOTICE,
				(errmsg("jobs of queue \"%s\" are as durable as those of other queues", name),
				 errdetail("Option \"storage\" counts only where qml is in "
						   "shared_preload_libraries.")));
}

/* Makes the partitions of the history that jobs of the queue will need soon. */
static void
make_partitions(const char *name)
{
	const QmlQueue *queue = qml_queue_by_name(name);

	/* A rule or trigger that somebody added may have undone the change. */
	if (queue)
		(void) qml_partition_make_ahead(qml_queue_store(queue), qml_queue_ttls_of(queue), NULL);
}

/*
 * Creates a queue, also one that was dropped before: what was hidden in its jobs stays so, unless the
 * options say something of it.
 */
void
qml_queue_admin_create(const char *name, Jsonb *options)
{
	QmlQueueOptions parsed;

	check_options(name, options, &parsed);
	qml_queue_lock_name(name);
	if (execute_for_queue("INSERT INTO qml.queue_data AS q (name, options) "
						  "VALUES ($1, pg_catalog.jsonb_strip_nulls($2)) "
						  "ON CONFLICT (name) DO UPDATE SET dropped = false, paused = false, "
						  "paused_at = NULL, paused_by = NULL, pause_reason = NULL, "
						  "options = CASE WHEN $2 ? 'redact' THEN excluded.options "
						  "ELSE " QML_QUEUE_KEPT_OPTIONS " || excluded.options END, "
						  "created_at = pg_catalog.now() WHERE q.dropped RETURNING id",
						  name, JSONBOID, JsonbPGetDatum(options), SPI_OK_INSERT_RETURNING) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("queue \"%s\" already exists", name),
				 errhint("qml_alter_queue() changes its options.")));
	qml_audit_change("qml_create_queue", QML_AUDIT_QUEUE, name, name, (Datum) 0);
	/* A TTL may need partitions of the history that do not exist yet. */
	make_partitions(name);
	tell_storage(name, parsed.storage);
}

/* As above with more values, of types text: who pauses, and why (0: not said). */
static uint64
pause_rows(const char *sql, const char *name, Datum reason, int expected)
{
	Oid types[] = {TEXTOID, TEXTOID, TEXTOID};
	Datum values[] = {name ? CStringGetTextDatum(name) : (Datum) 0,
					  CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)), reason};
	bool nulls[] = {name == NULL, false, reason == (Datum) 0};
	QmlSpi spi;
	uint64 rows;

	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute_latest(sql, 3, types, values, nulls, expected);
	if (rows > 0 && name)
		qml_queue_changed();
	qml_spi_end(&spi);
	return rows;
}

/* Locks the row of a queue that is there, to change it; false, or QM006: there is none. */
static bool
lock_row(const char *name, bool missing_ok)
{
	if (execute_for_queue("SELECT FROM qml.queue_data WHERE name = $1 AND NOT dropped FOR UPDATE",
						  name, InvalidOid, (Datum) 0, SPI_OK_SELECT) > 0)
		return true;
	if (!missing_ok)
		qml_queue_raise_missing(name);
	return false;
}

/*
 * Pauses a queue, for a reason, a text, or for none (0).  One that is paused stays as it is, but
 * gets another reason if there is one.  False when there is none of that name and missing_ok;
 * raises QM006 without it.
 */
bool
qml_queue_admin_pause(const char *name, Datum reason, bool missing_ok)
{
	Datum before;

	if (!lock_row(name, missing_ok))
		return false;
	before = qml_audit_look(QML_AUDIT_QUEUE, name);
	(void) pause_rows("UPDATE qml.queue_data SET paused = true, "
					  "paused_at = pg_catalog.clock_timestamp(), paused_by = $2, "
					  "pause_reason = $3 WHERE name = $1 AND (NOT paused OR $3 IS NOT NULL) "
					  "RETURNING id",
					  name, reason, SPI_OK_UPDATE_RETURNING);
	qml_audit_change("qml_pause_queue", QML_AUDIT_QUEUE, name, name, before);
	return true;
}

/* Resumes a queue, and wakes everybody who may have work again; results as above. */
bool
qml_queue_admin_resume(const char *name, bool missing_ok)
{
	Datum before;

	if (!lock_row(name, missing_ok))
		return false;
	before = qml_audit_look(QML_AUDIT_QUEUE, name);
	(void) execute_for_queue("UPDATE qml.queue_data SET paused = false, paused_at = NULL, "
							 "paused_by = NULL, pause_reason = NULL WHERE name = $1 "
							 "RETURNING id",
							 name, InvalidOid, (Datum) 0, SPI_OK_UPDATE_RETURNING);
	qml_audit_change("qml_resume_queue", QML_AUDIT_QUEUE, name, name, before);
	qml_wakeup_anything();
	return true;
}

/*
 * Of those who pause or resume all queues, one transaction at a time: what was there before must
 * be known.  It does not keep anybody from reading.
 */
static void
lock_pause(void)
{
	qml_table_require_write();
	LockRelationOid(qml_catalog()->pause, ShareUpdateExclusiveLock);
}

/*
 * Pauses all queues, also qml's own and those that are made later; reason as above.  False: they
 * were, and it gave no other reason.
 */
bool
qml_queue_admin_pause_all(Datum reason)
{
	Datum before;

	lock_pause();
	before = qml_audit_look(QML_AUDIT_DATABASE, NULL);
	if (before != (Datum) 0 && reason == (Datum) 0)
		return false;
	(void) pause_rows("INSERT INTO qml.pause_data AS p (paused_at, paused_by, pause_reason) "
					  "SELECT pg_catalog.clock_timestamp(), $2, $3 WHERE $1::text IS NULL "
					  "ON CONFLICT (single) DO UPDATE SET paused_at = excluded.paused_at, "
					  "paused_by = excluded.paused_by, pause_reason = excluded.pause_reason",
					  NULL, reason, SPI_OK_INSERT);
	qml_cache_changed(qml_catalog()->pause);
	qml_audit_change("qml_pause_all", QML_AUDIT_DATABASE, NULL, NULL, before);
	return before == (Datum) 0;
}

/* Ends the pause of all queues, and wakes everybody.  False: there was none. */
bool
qml_queue_admin_resume_all(void)
{
	Datum before;
	QmlSpi spi;

	lock_pause();
	before = qml_audit_look(QML_AUDIT_DATABASE, NULL);
	if (before == (Datum) 0)
		return false;
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute_latest("DELETE FROM qml.pause_data", 0, NULL, NULL, NULL, SPI_OK_DELETE);
	qml_spi_end(&spi);
	qml_cache_changed(qml_catalog()->pause);
	qml_audit_change("qml_resume_all", QML_AUDIT_DATABASE, NULL, NULL, before);
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

/* How many enqueued or processing jobs a queue has, up to max, which the index says. */
static int
count_ready_jobs(QmlTable *live, const QmlQueue *queue, Snapshot snapshot, int max)
{
	Relation ready = index_open(qml_store(qml_queue_store(queue))->live_ready, AccessShareLock);
	IndexScanDesc scan = qml_index_beginscan(live->rel, ready, snapshot, 1);
	ScanKeyData key;
	int count = 0;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->id));
	index_rescan(scan, &key, 1, NULL, 0);
	while (count < max && index_getnext_slot(scan, ForwardScanDirection, live->slot))
		count++;
	index_endscan(scan);
	index_close(ready, NoLock);
	return count;
}

/*
 * How many jobs that wait for a time a queue has, up to max.  No index has these by queue, so the
 * index of all of them is walked.
 *
 * known: NULL, or an earlier snapshot that is still registered and showed none.  Pages on which
 * it sees all rows are not read then.  No row has come to a page since that is marked as visible
 * to all: adding one clears the mark, and no vacuum sets it again while the snapshot does not
 * see the row.  The mark is not read too early, as the lock on the queue was taken in between.
 */
static int
count_waiting_jobs(QmlTable *live, const QmlQueue *queue, Snapshot snapshot, Snapshot known,
				   int max)
{
	Relation due = index_open(qml_store(qml_queue_store(queue))->live_due, AccessShareLock);
	IndexScanDesc scan = qml_index_beginscan(live->rel, due, snapshot, 0);
	Buffer visible = InvalidBuffer;
	ItemPointer tid;
	int count = 0;

	index_rescan(scan, NULL, 0, NULL, 0);
	while (count < max && (tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (known && VM_ALL_VISIBLE(live->rel, ItemPointerGetBlockNumber(tid), &visible))
			continue;
		if (index_fetch_heap(scan, live->slot) && get_queue_id(live->slot) == queue->id)
			count++;
	}
	if (BufferIsValid(visible))
		ReleaseBuffer(visible);
	index_endscan(scan);
	index_close(due, NoLock);
	return count;
}

/*
 * Looks for unfinished jobs of a queue; count: how many there are, up to max.  The newest versions
 * count, in any isolation level.  known: see above.  Returns the snapshot, which the caller
 * unregisters.
 */
static Snapshot
count_jobs(const QmlQueue *queue, Snapshot known, int max, int *count)
{
	Snapshot snapshot = qml_table_latest_snapshot();
	QmlTable live;

	qml_table_open(&live, qml_store(qml_queue_store(queue))->live, AccessShareLock);
	*count = count_ready_jobs(&live, queue, snapshot, max);
	*count += count_waiting_jobs(&live, queue, snapshot, known, max - *count);
	qml_table_close(&live);
	return snapshot;
}

/* Raises 55006 if a queue that is to be dropped has unfinished jobs; otherwise as above. */
static Snapshot
check_droppable(const QmlQueue *queue, Snapshot known)
{
	int count;
	Snapshot snapshot = count_jobs(queue, known, 1, &count);

	if (count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("queue \"%s\" has unfinished jobs", queue->name),
				 errhint("Let them finish or delete them, then drop the queue.")));
	return snapshot;
}

/* The same if its jobs are to be stored in another way. */
static Snapshot
check_changeable(const QmlQueue *queue, Snapshot known)
{
	int count;
	Snapshot snapshot = count_jobs(queue, known, MAX_COUNTED, &count);

	if (count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("storage of queue \"%s\" cannot be changed because it has unfinished jobs",
						queue->name),
				 count < MAX_COUNTED ? errdetail_plural("There is %d.", "There are %d.", count, count) :
									   errdetail("There are %d or more.", count),
				 errhint("Let them finish or delete them, or create another queue.")));
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

/* A lock on a queue is not free: waits a little before the next try, or raises 55P03. */
static void
pause_or_give_up(const char *name, const char *action, int64 end)
{
	if (qml_clock_monotonic_ms() >= end)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not %s queue \"%s\" because another transaction is using it", action,
						name),
				 errdetail("A transaction that is still open has added jobs to the queue, or "
						   "has changed it or the capabilities of roles."),
				 errhint("Try again when that transaction has ended.")));
	qml_clock_pause(PAUSE_MS);
}

/* try_lock_to_drop() for a while; NULL: there is none any more. */
static const QmlQueue *
lock_to_drop(const char *name)
{
	int64 end = qml_clock_monotonic_ms() + TRIES_MS;
	bool row_locked = false;

	for (;;)
	{
		const QmlQueue *queue = try_lock_to_drop(name, &row_locked);

		if (queue)
			return queue;
		if (qml_queue_by_name(name) == NULL)
			return NULL;
		pause_or_give_up(name, "drop", end);
	}
}

/* Drops a queue; false when there is none of that name. */
static bool
drop_queue(const char *name)
{
	const QmlQueue *queue = qml_queue_by_name(name);
	QmlStoreId store;
	Snapshot known;
	Datum before;
	bool same;
	int id;

	if (queue == NULL)
		return false;
	/* First without the lock, which stops all who add jobs; then what has come since. */
	id = queue->id;
	store = qml_queue_store(queue);
	known = check_droppable(queue, NULL);
	queue = lock_to_drop(name);
	same = queue && queue->id == id && qml_queue_store(queue) == store;
	if (queue)
		UnregisterSnapshot(check_droppable(queue, same ? known : NULL));
	UnregisterSnapshot(known);
	if (queue == NULL)
		return false;
	before = qml_audit_look(QML_AUDIT_QUEUE, name);
	if (execute_for_queue(
			"UPDATE qml.queue_data AS q SET dropped = true, paused = false, paused_at = NULL, "
			"paused_by = NULL, pause_reason = NULL, options = " QML_QUEUE_KEPT_OPTIONS " "
			"WHERE q.name = $1 RETURNING id",
			name, InvalidOid, (Datum) 0, SPI_OK_UPDATE_RETURNING) == 0)
		return false;
	qml_grant_forget_queue(name);
	qml_audit_change("qml_drop_queue", QML_AUDIT_QUEUE, name, name, before);
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

/* Locks a queue whose row is locked, so that nobody adds jobs to it. */
static void
lock_alone(const char *name)
{
	int64 end = qml_clock_monotonic_ms() + TRIES_MS;

	while (qml_queue_try_lock(name, AccessExclusiveLock) == NULL)
		pause_or_give_up(name, "alter", end);
}

/*
 * The jobs of a queue, whose row is locked, are going to be stored in this way.  If they are now
 * stored in another one, there must be none, and there will be none before the commit.
 */
static void
prepare_storage(const char *name, QmlStorage storage)
{
	const QmlQueue *queue;
	Snapshot known;

	AcceptInvalidationMessages();
	queue = qml_queue_by_name(name);
	if (queue == NULL)
		qml_queue_raise_missing(name);
	if (queue->options.storage == storage)
		return;
	known = check_changeable(queue, NULL);
	lock_alone(name);
	UnregisterSnapshot(check_changeable(queue, known));
	UnregisterSnapshot(known);
	tell_storage(name, storage);
}

/* Options that are given replace those there; null goes back to the setting. */
void
qml_queue_admin_alter(const char *name, Jsonb *options)
{
	QmlQueueOptions parsed;
	Datum before;

	check_options(name, options, &parsed);
	/* What it says now is true as long as the row is locked. */
	(void) lock_row(name, false);
	before = qml_audit_look(QML_AUDIT_QUEUE, name);
	if (qml_options_give_storage(options))
		prepare_storage(name, parsed.storage);
	if (execute_for_queue(
			"UPDATE qml.queue_data SET options = pg_catalog.jsonb_strip_nulls(options || $2) "
			"WHERE name = $1 AND NOT dropped RETURNING id",
			name, JSONBOID, JsonbPGetDatum(options), SPI_OK_UPDATE_RETURNING) == 0)
		qml_queue_raise_missing(name);
	qml_audit_change("qml_alter_queue", QML_AUDIT_QUEUE, name, name, before);
	/* A new TTL may need other partitions of the history. */
	make_partitions(name);
}
