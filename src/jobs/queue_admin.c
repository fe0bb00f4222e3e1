/*
 * queue_admin.c
 *		Managing queues: create, alter, drop, pause, resume.
 *
 * A dropped queue keeps its row, marked, because finished jobs name it.  Dropping takes
 * the lock on the queue exclusively (see model/queue.c): it waits for transactions that
 * are adding jobs, and new ones wait for it.  So no job appears after it has looked
 * whether there are any.
 *
 * Changes are made to the newest version of the row in any isolation level, and reach
 * other backends by the invalidation that a trigger registers.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "common/spi.h"
#include "common/table.h"
#include "errcodes.h"
#include "ipc/wakeup.h"
#include "jobs/history.h"
#include "jobs/queue_admin.h"
#include "model/catalog.h"
#include "model/grant.h"
#include "model/options.h"
#include "model/queue.h"

static void
raise_not_found(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_QUEUE_NOT_FOUND),
			 errmsg("queue \"%s\" does not exist", name)));
}

/*
 * Runs a statement about one queue as it is now: $1 is its name, $2 a value unless type
 * is InvalidOid.  Returns the number of rows.
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
						   QML_CHANNEL_PREFIX, NAMEDATALEN - 1)));
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
			"options = excluded.options, created_at = pg_catalog.now() WHERE q.dropped",
			name, JSONBOID, JsonbPGetDatum(options), SPI_OK_INSERT) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("queue \"%s\" already exists", name),
				 errhint("qml_alter_queue() changes its options.")));
	/* A TTL may need partitions of the history that do not exist yet. */
	(void) qml_history_make_ahead();
}

/* Options that are given replace those there; null goes back to the setting. */
void
qml_queue_admin_alter(const char *name, Jsonb *options)
{
	check_options(name, options);
	if (execute_for_queue(
			"UPDATE qml.queue_data SET options = pg_catalog.jsonb_strip_nulls(options || $2) "
			"WHERE name = $1 AND NOT dropped",
			name, JSONBOID, JsonbPGetDatum(options), SPI_OK_UPDATE) == 0)
		raise_not_found(name);
	/* A new TTL may need other partitions of the history. */
	(void) qml_history_make_ahead();
}

/* Pauses or resumes a queue; resuming wakes everybody who may have work again. */
void
qml_queue_admin_pause(const char *name, bool paused)
{
	if (execute_for_queue("UPDATE qml.queue_data SET paused = $2 WHERE name = $1 AND NOT dropped",
						  name, BOOLOID, BoolGetDatum(paused), SPI_OK_UPDATE) == 0)
		raise_not_found(name);
	if (!paused)
		qml_wakeup_anything();
}

/*
 * Whether a queue has unfinished jobs.  The caller holds its lock exclusively, so that
 * nobody can add any; the newest versions count, in any isolation level.
 */
static bool
has_live_jobs(int queue_id)
{
	const QmlCatalog *cat = qml_catalog();
	Snapshot snapshot = qml_table_latest_snapshot();
	QmlTable live;
	TableScanDesc scan;
	bool found = false;

	qml_table_open(&live, cat->live, AccessShareLock);
	scan = table_beginscan(live.rel, snapshot, 0, NULL);
	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, live.slot))
	{
		bool isnull;

		CHECK_FOR_INTERRUPTS();
		found = DatumGetInt32(slot_getattr(live.slot, LIVE_QUEUE_ID, &isnull)) == queue_id;
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	qml_table_close(&live);
	return found;
}

/* Drops a queue without unfinished jobs, and revokes what was granted on it. */
void
qml_queue_admin_drop(const char *name)
{
	const QmlQueue *queue;

	qml_table_require_write();
	queue = qml_queue_lock(name, AccessExclusiveLock);
	if (queue == NULL)
		raise_not_found(name);
	if (has_live_jobs(queue->id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("queue \"%s\" has unfinished jobs", name),
				 errhint("Let them finish or delete them, then drop the queue.")));
	if (execute_for_queue(
			"UPDATE qml.queue_data SET dropped = true, paused = false, options = '{}' "
			"WHERE name = $1",
			name, InvalidOid, (Datum) 0, SPI_OK_UPDATE) == 0)
		raise_not_found(name);
	qml_grant_forget_queue(name);
}
