/*
 * maintain.c
 *		What has to be done from time to time: promote due jobs, take back those
 *		whose lease is over, let history expire; and adopt a copy.
 *
 * Any number of callers may do this at once.  None waits for a row that somebody
 * else is changing: it is passed over, and found by the next call if it still
 * needs anything.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "fault.h"
#include "history.h"
#include "maintain.h"
#include "spi.h"
#include "transition.h"

static MemoryContext
create_row_context(void)
{
	return AllocSetContextCreate(CurrentMemoryContext, "qml row", ALLOCSET_DEFAULT_SIZES);
}

/* Changes the job in live.slot; false if somebody else is faster. */
static bool
change_row(QmlWriter *writer, MemoryContext row_context,
		   void (*change)(QmlJob *job, TimestampTz now), TimestampTz now)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(row_context);
	QmlJob job;
	bool changed;

	CHECK_FOR_INTERRUPTS();
	qml_job_from_live(writer->live.slot, &job);
	change(&job, now);
	changed = qml_writer_put(writer, &job, false) == TM_Ok;
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(row_context);
	return changed;
}

static void
enqueue_again(QmlJob *job, TimestampTz now)
{
	qml_transition_set(job, QML_ENQUEUED, now);
}

/* Enqueues up to max jobs that are due, the longest due first; returns how many. */
int
qml_maintain_promote(int max)
{
	TimestampTz now = GetCurrentTimestamp();
	QmlWriter writer;
	Relation due;
	IndexScanDesc scan;
	ScanKeyData key;
	MemoryContext row_context = create_row_context();
	int count = 0;

	(void) qml_catalog_to_work();
	qml_writer_open(&writer, false);
	due = index_open(qml_catalog()->live_due, RowExclusiveLock);
	scan = qml_index_beginscan(writer.live.rel, due, qml_writer_snapshot(&writer), 1);
	ScanKeyInit(&key, 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(now));
	index_rescan(scan, &key, 1, NULL, 0);
	while (count < max && index_getnext_slot(scan, ForwardScanDirection, writer.live.slot))
	{
		QML_FAULT("promote.after_select");
		if (change_row(&writer, row_context, enqueue_again, now))
			count++;
	}
	index_endscan(scan);
	index_close(due, NoLock);
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("promote.before_commit");
	return count;
}

static bool
lease_is_over(TupleTableSlot *slot, TimestampTz now)
{
	bool isnull;
	Datum lease = slot_getattr(slot, LIVE_LEASE_EXPIRES_AT, &isnull);

	return !isnull && DatumGetTimestampTz(lease) <= now;
}

/*
 * Takes back every claim that `over` says is over, at most max; returns how many.
 * Leases are in no index, because a heartbeat would then not be a HOT update: the
 * table is read through.
 */
static int
take_back(int max, bool (*over)(TupleTableSlot *slot, TimestampTz now),
		  void (*change)(QmlJob *job, TimestampTz now))
{
	TimestampTz now = GetCurrentTimestamp();
	QmlWriter writer;
	TableScanDesc scan;
	MemoryContext row_context = create_row_context();
	int count = 0;

	qml_writer_open(&writer, false);
	scan = table_beginscan(writer.live.rel, qml_writer_snapshot(&writer), 0, NULL);
	while (count < max && table_scan_getnextslot(scan, ForwardScanDirection, writer.live.slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (!over(writer.live.slot, now))
			continue;
		QML_FAULT("reclaim.after_select");
		if (change_row(&writer, row_context, change, now))
			count++;
	}
	table_endscan(scan);
	qml_writer_close(&writer);
	QML_FAULT_AT_COMMIT("reclaim.before_commit");
	return count;
}

/* Takes back up to max jobs whose lease is over; returns how many. */
int
qml_maintain_reclaim(int max)
{
	(void) qml_catalog_to_work();
	return take_back(max, lease_is_over, qml_transition_lose);
}

static int64
delete_expired_locks(const QmlCatalog *cat)
{
	QmlSpi spi;
	uint64 deleted;

	qml_spi_begin(&spi, cat->owner);
	/* Passes over a lock that somebody is taking over just now. */
	deleted = qml_spi_execute("DELETE FROM qml.lock WHERE resource IN "
							  "(SELECT l.resource FROM qml.lock l "
							  "WHERE l.expires_at <= pg_catalog.clock_timestamp() "
							  "FOR UPDATE SKIP LOCKED)",
							  0, NULL, NULL, NULL, SPI_OK_DELETE);
	qml_spi_end(&spi);
	return (int64) deleted;
}

/*
 * Rows of roles that were dropped give nobody anything, but a dump would carry
 * them as numbers, which may be another role where it is restored.
 */
static void
forget_dropped_roles(const QmlCatalog *cat)
{
	QmlSpi spi;

	qml_spi_begin(&spi, cat->owner);
	/* Looks first: a DELETE would tell all backends that rights changed. */
	if (qml_spi_execute("SELECT FROM qml.acl a WHERE NOT EXISTS "
						"(SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.grantee)",
						0, NULL, NULL, NULL, SPI_OK_SELECT) > 0)
		(void) qml_spi_execute("DELETE FROM qml.acl a WHERE NOT EXISTS "
							   "(SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.grantee)",
							   0, NULL, NULL, NULL, SPI_OK_DELETE);
	qml_spi_end(&spi);
}

/* Lets expired jobs and locks go, and makes the partitions that come next. */
void
qml_maintain_cleanup(QmlCleanup *done)
{
	const QmlCatalog *cat = qml_catalog_to_work();

	forget_dropped_roles(cat);
	done->locks = delete_expired_locks(cat);
	done->jobs = qml_history_expire(&done->partitions);
	done->prepared = qml_history_prepare();
}

static bool
is_processing(TupleTableSlot *slot, TimestampTz now)
{
	return qml_job_live_state(slot) == QML_PROCESSING;
}

/*
 * Makes this database the home of its jobs.  Claims were made in the original:
 * those jobs are enqueued again, with their attempts counted.
 */
void
qml_maintain_adopt(void)
{
	const QmlCatalog *cat = qml_catalog();
	Oid types[] = {INT8OID, OIDOID};
	Datum values[] = {Int64GetDatum((int64) GetSystemIdentifier()), ObjectIdGetDatum(MyDatabaseId)};
	QmlSpi spi;

	if (cat->adopted)
		return;
	(void) take_back(INT_MAX, is_processing, enqueue_again);
	qml_spi_begin(&spi, cat->owner);
	(void) qml_spi_execute("DELETE FROM qml.instance", 0, NULL, NULL, NULL, SPI_OK_DELETE);
	(void) qml_spi_execute("INSERT INTO qml.instance (system_identifier, database) "
						   "VALUES ($1, $2)",
						   2, types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
}
