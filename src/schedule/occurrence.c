/*
 * occurrence.c
 *		The ledger of ticks that have fired.
 *
 * A row says that a schedule fired at an instant, and which job that made.  It is written
 * in the transaction that advances the schedule and enqueues the job; schedule and instant
 * are its primary key.
 *
 * Two callers that fire at the same time do not need it: the row of the schedule keeps
 * them apart.  It keeps a tick from firing again where next_run_at was set back: by hand,
 * or by removing a schedule and defining it anew after the clock was set back.  It is kept
 * for a day, which is longer than clocks are usually wrong.
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/spi.h"
#include "compat.h"
#include "model/catalog.h"
#include "schedule/occurrence.h"

/* Rows that one statement deletes. */
#define MAX_FORGET "10000"

/* For writing; held to the end of the transaction. */
void
qml_occurrence_open(QmlOccurrences *occurrences)
{
	qml_table_open(&occurrences->table, qml_catalog()->occurrence, RowExclusiveLock);
	occurrences->pkey = index_open(qml_catalog()->occurrence_pkey, RowExclusiveLock);
}

void
qml_occurrence_close(QmlOccurrences *occurrences)
{
	index_close(occurrences->pkey, NoLock);
	qml_table_close(&occurrences->table);
}

/* Whether a schedule has fired at an instant; the newest rows count, at any isolation level. */
bool
qml_occurrence_find(QmlOccurrences *occurrences, const char *recurring, TimestampTz tick)
{
	Snapshot snapshot = qml_table_latest_snapshot();
	IndexScanDesc scan = qml_index_beginscan(occurrences->table.rel, occurrences->pkey, snapshot,
											 2);
	ScanKeyData keys[2];
	bool found;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ, TimestampTzGetDatum(tick));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(recurring));
	/* The order of the index is that of the database's collation, not of C. */
	keys[1].sk_collation = occurrences->pkey->rd_indcollation[1];
	index_rescan(scan, keys, 2, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, occurrences->table.slot);
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	return found;
}

/* Records a tick; the primary key refuses one that is there. */
void
qml_occurrence_record(QmlOccurrences *occurrences, const char *recurring, TimestampTz tick,
					  const pg_uuid_t *job)
{
	TupleTableSlot *row = occurrences->table.row;

	ExecClearTuple(row);
	memset(row->tts_isnull, false, sizeof(bool) * OCCURRENCE_NATTS);
	row->tts_values[OCCURRENCE_AT - 1] = TimestampTzGetDatum(tick);
	row->tts_values[OCCURRENCE_RECURRING - 1] = CStringGetTextDatum(recurring);
	row->tts_values[OCCURRENCE_JOB - 1] = UUIDPGetDatum(job);
	ExecStoreVirtualTuple(row);
	qml_table_insert(&occurrences->table, row);
}

/* Deletes what is a day old; what others are deleting is left to them. */
void
qml_occurrence_forget(void)
{
	Oid type = TIMESTAMPTZOID;
	Datum before = TimestampTzGetDatum(GetCurrentTimestamp() - USECS_PER_DAY);
	QmlSpi spi;

	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute("DELETE FROM qml.occurrence_data o WHERE (o.occurrence, o.recurring) IN "
						   "(SELECT p.occurrence, p.recurring FROM qml.occurrence_data p "
						   "WHERE p.occurrence < $1 LIMIT " MAX_FORGET " FOR UPDATE SKIP LOCKED)",
						   1, &type, &before, NULL, SPI_OK_DELETE);
	qml_spi_end(&spi);
}
