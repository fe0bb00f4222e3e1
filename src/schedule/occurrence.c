/*
 * occurrence.c
 *		The ledger of ticks: what became of each.
 *
 * A row says what a schedule did with a tick: which job that made, or why it made none.  It
 * is written in the transaction that advances the schedule and enqueues the job.  People
 * read it through the view qml.recurring_tick: the last thousand ticks of a schedule, of the
 * last thirty days.
 *
 * Two callers that fire at the same time do not need it: the row of the schedule keeps
 * them apart.  It keeps a tick from firing again where next_run_at was set back: by hand,
 * or by removing a schedule and defining it anew after the clock was set back.  So every row
 * is kept for a day at least, which is longer than clocks are usually wrong; and also where
 * the clock was ahead when it was written, by a day at most.
 *
 * Rows are never deleted one by one.  Each is kept for as many days as the schedule may take
 * for a thousand more ticks, from 1 to 30, and goes to the partition of the day on which
 * that ends.  A partition whose days are over is emptied by TRUNCATE.  There are two rings
 * of partitions, which are used in turns:
 *
 *	- for rows that are kept for a day (of schedules with a thousand ticks a day, which fire
 *	  tomorrow): 4, of a day each.  One is written, rows in another expire today, the third is
 *	  that of tomorrow, the fourth is over.
 *	- for the others: 6, of ten days each.  Four hold what expires from now to thirty days
 *	  ahead, the fifth comes next, the sixth is over.
 *
 * The one that comes next is empty, unless the clock was set back since: then it holds the
 * ticks that are still to come, and have fired.
 *
 * So there is always a partition to write to, and none is made or dropped.  (The history
 * makes them ahead of need, because an administrator chooses how long jobs are kept.)  A
 * schedule of every second has at most two days of rows, and up to a month longer the rows of
 * days that no day on which it fires follows.
 *
 * Locks: RowExclusiveLock to write a partition, and to look for a tick, both on partitions
 * that are not over, and tried: who fires waits for nothing.  Nobody empties these, whose
 * clock is right; but a transaction that emptied one may still be open, or prepared, when it
 * comes into use.  (A look would do with less, but not while an index is being built anew.)
 * To empty one, AccessExclusiveLock on it and its indexes, tried, in the caller's transaction; a
 * crash before its commit leaves the rows where they were.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/ring.h"
#include "compat.h"
#include "model/shape.h"
#include "qml.h"
#include "schedule/occurrence.h"

/* What people see of a schedule, and for how long. */
#define KEPT_TICKS 1000
#define KEPT_DAYS  30

/* The two rings: which partitions, and how many days of expiry each of them covers. */
#define DAY_RING	  4
#define MONTH_RING	  (QML_OCCURRENCE_PARTITIONS - DAY_RING)
#define MONTH_BREADTH 10

StaticAssertDecl(MONTH_RING == KEPT_DAYS / MONTH_BREADTH + 3,
				 "four partitions of the second ring are written, one is next, and one is over");

static const char *const outcomes[] = {
	[QML_TICK_ON_TIME] = "on_time", [QML_TICK_LATE] = "late",	[QML_TICK_MISSED] = "missed",
	[QML_TICK_SKIPPED] = "skipped", [QML_TICK_ERROR] = "error",
};

/* Days from 2000-01-01 on; earlier times count as that day. */
static int64
day_of(TimestampTz time)
{
	return Max(time, 0) / USECS_PER_DAY;
}

/* The partition for rows that are written now and kept for so many days. */
static int
partition_for(TimestampTz now, int days)
{
	int64 end = day_of(now) + days;

	Assert(days >= 1 && days <= KEPT_DAYS);
	if (days == 1)
		return (int) (end % DAY_RING);
	return DAY_RING + (int) (end / MONTH_BREADTH % MONTH_RING);
}

/* Whether rows in a partition may not have expired yet, or may be of tomorrow. */
static bool
is_in_use(TimestampTz now, int partition)
{
	int64 today = day_of(now);

	if (partition < DAY_RING)
		return partition != (today + DAY_RING - 1) % DAY_RING;
	return partition - DAY_RING != (today / MONTH_BREADTH + MONTH_RING - 1) % MONTH_RING;
}

/* For writing; locks are held to the end of the transaction. */
void
qml_occurrence_open(QmlOccurrences *occurrences, TimestampTz now)
{
	Oid relid = qml_catalog()->occurrence;

	memset(occurrences->open, false, sizeof(occurrences->open));
	occurrences->context = CurrentMemoryContext;
	occurrences->now = now;
	occurrences->readable = false;
	occurrences->available = ConditionalLockRelationOid(relid, AccessShareLock);
	if (occurrences->available)
	{
		Relation parent = table_open(relid, NoLock);

		/* What was added to it is meant for its partitions, and not always on them. */
		qml_shape_require_plain(parent, InvalidOid, NULL);
		table_close(parent, NoLock);
	}
}

void
qml_occurrence_close(QmlOccurrences *occurrences)
{
	for (int i = 0; i < QML_OCCURRENCE_PARTITIONS; i++)
	{
		if (occurrences->open[i])
			qml_table_close(&occurrences->tables[i]);
	}
}

/* The index on schedule and tick; NULL: the table has none. */
static Relation
open_index(Relation table)
{
	bool locked;
	Relation index = qml_shape_open_index(table, QML_INDEX_OCCURRENCE, true, &locked);

	if (index != NULL)
		return index;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("partition \"%s.%s\" has no index on columns \"recurring\" and \"occurrence\"",
					QML_SCHEMA, RelationGetRelationName(table)),
			 errhint("Create one: each partition of \"%s.occurrence_data\" needs a btree index.",
					 QML_SCHEMA)));
}

/*
 * The newest tick in a range of times at which a schedule has made a job, by a partition;
 * QML_NO_TIME: there is none.
 */
static TimestampTz
last_fired_in(QmlTable *table, const char *recurring, TimestampTz from, TimestampTz until)
{
	Snapshot snapshot = qml_table_latest_snapshot();
	Relation index = open_index(table->rel);
	IndexScanDesc scan = qml_index_beginscan(table->rel, index, snapshot, 3);
	ScanKeyData keys[3];
	TimestampTz found = QML_NO_TIME;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(recurring));
	/* The order of the index is that of the database's collation, not of C. */
	keys[0].sk_collation = index->rd_indcollation[0];
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from));
	ScanKeyInit(&keys[2], 2, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(until));
	index_rescan(scan, keys, 3, NULL, 0);
	/* All of them: an index that somebody made may be in the other order. */
	while (index_getnext_slot(scan, ForwardScanDirection, table->slot))
	{
		bool isnull;
		TimestampTz tick;

		CHECK_FOR_INTERRUPTS();
		(void) slot_getattr(table->slot, OCCURRENCE_JOB, &isnull);
		if (isnull)
			continue;
		tick = DatumGetTimestampTz(slot_getattr(table->slot, OCCURRENCE_AT, &isnull));
		found = Max(found, tick);
		if (found == until)
			break;
	}
	index_endscan(scan);
	index_close(index, NoLock);
	UnregisterSnapshot(snapshot);
	return found;
}

/* The same by all partitions; the newest rows count, at any isolation level. */
static TimestampTz
last_fired(QmlOccurrences *occurrences, const char *recurring, TimestampTz from, TimestampTz until)
{
	TimestampTz found = QML_NO_TIME;

	Assert(occurrences->readable);
	for (int i = 0; i < QML_OCCURRENCE_PARTITIONS && found != until; i++)
	{
		QmlTable table;

		if (!is_in_use(occurrences->now, i))
			continue;
		qml_table_open(&table, qml_catalog()->occurrences[i], AccessShareLock);
		if (RelationGetNumberOfBlocks(table.rel) > 0)
			found = Max(found, last_fired_in(&table, recurring, from, until));
		qml_table_close(&table);
	}
	return found;
}

/* Whether a schedule has made a job at an instant.  After qml_occurrence_try_read(). */
bool
qml_occurrence_has_fired(QmlOccurrences *occurrences, const char *recurring, TimestampTz tick)
{
	return last_fired(occurrences, recurring, tick, tick) == tick;
}

/*
 * The newest tick from a time on at which a schedule has made a job; QML_NO_TIME: there is
 * none.  After qml_occurrence_try_read().
 */
TimestampTz
qml_occurrence_last_fired(QmlOccurrences *occurrences, const char *recurring, TimestampTz from)
{
	/* Not infinity, which somebody may have written by hand. */
	return last_fired(occurrences, recurring, from, END_TIMESTAMP - 1);
}

/* Locks the partitions in use for looking; false if somebody has locked one. */
bool
qml_occurrence_try_read(QmlOccurrences *occurrences)
{
	if (!occurrences->available)
		return false;
	for (int i = 0; i < QML_OCCURRENCE_PARTITIONS && !occurrences->readable; i++)
	{
		if (is_in_use(occurrences->now, i) &&
			!ConditionalLockRelationOid(qml_catalog()->occurrences[i], RowExclusiveLock))
			return false;
	}
	occurrences->readable = true;
	return true;
}

/* The partition for rows of a schedule that are written now. */
static int
partition_of(const QmlOccurrences *occurrences, const QmlTimes *times)
{
	int days = qml_times_days_for(times, KEPT_TICKS, occurrences->now);

	return partition_for(occurrences->now, Max(1, Min(days, KEPT_DAYS)));
}

/* Locks the partition that qml_occurrence_record() writes; false if somebody has locked it. */
bool
qml_occurrence_try_write(QmlOccurrences *occurrences, const QmlTimes *times)
{
	int partition = partition_of(occurrences, times);

	return occurrences->available &&
		   (occurrences->open[partition] ||
			ConditionalLockRelationOid(qml_catalog()->occurrences[partition], RowExclusiveLock));
}

/* Records what became of a tick, after qml_occurrence_try_write(). */
void
qml_occurrence_record(QmlOccurrences *occurrences, const char *recurring, const QmlTimes *times,
					  const QmlTick *tick)
{
	int partition = partition_of(occurrences, times);
	QmlTable *table = &occurrences->tables[partition];
	TupleTableSlot *row;

	if (!occurrences->open[partition])
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(occurrences->context);

		qml_table_open(table, qml_catalog()->occurrences[partition], RowExclusiveLock);
		occurrences->open[partition] = true;
		MemoryContextSwitchTo(oldcontext);
	}
	row = table->row;
	ExecClearTuple(row);
	memset(row->tts_isnull, false, sizeof(bool) * OCCURRENCE_NUMBERED);
	row->tts_values[OCCURRENCE_AT - 1] = TimestampTzGetDatum(tick->at);
	row->tts_values[OCCURRENCE_RECURRING - 1] = CStringGetTextDatum(recurring);
	row->tts_values[OCCURRENCE_JOB - 1] = UUIDPGetDatum(&tick->job);
	row->tts_isnull[OCCURRENCE_JOB - 1] = !qml_misfire_fires(tick);
	row->tts_values[OCCURRENCE_FIRED_AT - 1] = TimestampTzGetDatum(occurrences->now);
	row->tts_values[OCCURRENCE_PARTITION - 1] = Int16GetDatum((int16) partition);
	row->tts_values[OCCURRENCE_OUTCOME - 1] = CStringGetTextDatum(outcomes[tick->outcome]);
	row->tts_values[OCCURRENCE_THROUGH - 1] = TimestampTzGetDatum(tick->through);
	row->tts_isnull[OCCURRENCE_THROUGH - 1] = tick->through == QML_NO_TIME;
	qml_columns_fill_unknown(QML_TABLE_OCCURRENCE, row, OCCURRENCE_NUMBERED, NULL);
	ExecStoreVirtualTuple(row);
	qml_table_insert(table, row);
}

/*
 * Empties partitions whose days are over, unless somebody is reading them.  One that cannot
 * be emptied (somebody made a table refer to it) does not stop the rest of the cleanup.
 */
void
qml_occurrence_forget(void)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < QML_OCCURRENCE_PARTITIONS; i++)
	{
		Oid relid = qml_catalog()->occurrences[i];

		/* An idle server writes nothing. */
		if (!is_in_use(now, i) && qml_ring_has_rows(relid))
			qml_ring_empty(relid, qml_catalog()->owner, QML_SCHEMA ".occurrence_data");
	}
}
