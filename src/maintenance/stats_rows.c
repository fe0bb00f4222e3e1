/*
 * stats_rows.c
 *		Statistics as rows of qml.stats_data.
 *
 * The table has two rings of four partitions (common/ring.c).  Rows of a minute go to the first
 * one, whose partitions stand for twelve hours each, and rows of ten minutes to the second one,
 * whose partitions stand for half a week.  One of a ring is written, two hold what is kept, and the
 * fourth is over and is emptied.  So rows are kept for at least two of these times: 24 hours, 7
 * days.
 *
 * Histograms are packed (core/histogram.c).  One that cannot be read was written by somebody else:
 * it counts for nothing.
 *
 * Locks: whoever writes waits for nobody.  The table and its partition are tried.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/ring.h"
#include "common/spi.h"
#include "common/table.h"
#include "maintenance/stats_rows.h"
#include "model/catalog.h"

#define RING 4

/* Rows that are read at once. */
#define ROWS_AT_ONCE 1000

/* Columns of the statements below: what is counted, then the histograms. */
#define COUNTED \
	"enqueued, started, succeeded, failed, deleted, retried, released, lost, waited, ran"

enum
{
	COLUMN_QUEUE = 0,
	COLUMN_METHOD,
	COLUMN_FIRST_COUNT,
	COLUMN_WAITS = COLUMN_FIRST_COUNT + 10,
	COLUMN_RUNS,
	COLUMNS
};

/* The counters in the order of COUNTED; -1: the sum of waits. */
static const int counted[] = {
	QML_STAT_ENQUEUED,	-1,
	QML_STAT_SUCCEEDED, QML_STAT_FAILED,
	QML_STAT_DELETED,	QML_STAT_RETRIED,
	QML_STAT_RELEASED,	QML_STAT_LOST,
	QML_STAT_WAITED,	QML_STAT_RAN,
};

StaticAssertDecl(lengthof(counted) == COLUMN_WAITS - COLUMN_FIRST_COUNT &&
					 lengthof(counted) == QML_STATS + 1,
				 "each counter has a column");

/* How long a partition is written. */
static const TimestampTz breadths[] = {
	[QML_STATS_MINUTES] = QML_STATS_KEEP_MINUTES / 2,
	[QML_STATS_TENS] = QML_STATS_KEEP_TENS / 2,
};

/* ----- counts ----- */

void
qml_stats_counts_add(QmlStatCounts *counts, const QmlStatCounts *more)
{
	uint64 *to = (uint64 *) counts;
	const uint64 *from = (const uint64 *) more;

	for (int i = 0; i < QML_STAT_NUMBERS; i++)
		to[i] += from[i];
}

/* How many durations a histogram has. */
uint64
qml_stats_counts_sum(const uint64 *bins)
{
	uint64 sum = 0;

	for (int i = 0; i < QML_HISTOGRAM_BINS; i++)
		sum += bins[i];
	return sum;
}

/* Whether anything was counted. */
bool
qml_stats_counts_any(const QmlStatCounts *counts)
{
	const uint64 *numbers = (const uint64 *) counts;

	for (int i = 0; i < QML_STAT_NUMBERS; i++)
	{
		if (numbers[i] != 0)
			return true;
	}
	return false;
}

/* ----- partitions ----- */

/* The partition for rows that begin then. */
static int
partition_for(QmlStatsSpan span, TimestampTz at)
{
	return (int) span * RING + (int) (Max(at, 0) / breadths[span] % RING);
}

static Oid
partition_relid(int partition)
{
	return get_relname_relid(psprintf("stats_%d", partition), qml_catalog()->schema);
}

/* Empties partitions whose time is over, unless somebody is reading them. */
void
qml_stats_rows_forget(void)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int span = QML_STATS_MINUTES; span <= QML_STATS_TENS; span++)
	{
		int over = partition_for((QmlStatsSpan) span, now + breadths[span]);
		Oid relid = partition_relid(over);

		/* An idle server writes nothing. */
		if (OidIsValid(relid) && qml_ring_has_rows(relid))
			qml_ring_empty(relid, qml_catalog()->owner, QML_SCHEMA ".stats_data");
	}
}

/* ----- writing ----- */

/* Begins to gather rows, in the current memory context. */
void
qml_stats_rows_begin(QmlStatRows *rows)
{
	rows->count = 0;
	rows->room = 64;
	rows->context = CurrentMemoryContext;
	rows->columns = palloc(sizeof(Datum *) * COLUMNS);
	for (int i = 0; i < COLUMNS; i++)
		rows->columns[i] = palloc(sizeof(Datum) * rows->room);
}

static Datum
pack(const uint64 *bins)
{
	unsigned char packed[QML_HISTOGRAM_PACKED];
	size_t size = qml_histogram_pack(bins, packed);
	bytea *result = palloc(VARHDRSZ + size);

	SET_VARSIZE(result, VARHDRSZ + size);
	memcpy(VARDATA(result), packed, size);
	return PointerGetDatum(result);
}

void
qml_stats_rows_add(QmlStatRows *rows, const QmlStatRow *row)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(rows->context);
	int n = rows->count++;

	if (n == rows->room)
	{
		rows->room *= 2;
		for (int i = 0; i < COLUMNS; i++)
			rows->columns[i] = repalloc(rows->columns[i], sizeof(Datum) * rows->room);
	}
	rows->columns[COLUMN_QUEUE][n] = Int32GetDatum(row->queue);
	rows->columns[COLUMN_METHOD][n] = PointerGetDatum(
		cstring_to_text_with_len(row->method, row->length));
	for (int i = 0; i < (int) lengthof(counted); i++)
	{
		uint64 count = counted[i] < 0 ? qml_stats_counts_sum(row->counts.waits) :
										row->counts.counters[counted[i]];

		rows->columns[COLUMN_FIRST_COUNT + i][n] = Int64GetDatum((int64) count);
	}
	rows->columns[COLUMN_WAITS][n] = pack(row->counts.waits);
	rows->columns[COLUMN_RUNS][n] = pack(row->counts.runs);
	MemoryContextSwitchTo(oldcontext);
}

static Oid
type_of(int column)
{
	switch (column)
	{
		case COLUMN_QUEUE:
			return INT4OID;
		case COLUMN_METHOD:
			return TEXTOID;
		case COLUMN_WAITS:
		case COLUMN_RUNS:
			return BYTEAOID;
		default:
			return INT8OID;
	}
}

/* The column of all rows, as a parameter. */
static Datum
array_of(const QmlStatRows *rows, int column, Oid *type)
{
	Oid element = type_of(column);
	int16 length;
	bool byval;
	char align;

	get_typlenbyvalalign(element, &length, &byval, &align);
	*type = get_array_type(element);
	return PointerGetDatum(
		construct_array(rows->columns[column], rows->count, element, length, byval, align));
}

/* The table cannot be written just now. */
static bool
try_lock(Oid partition)
{
	Oid parent = get_relname_relid("stats_data", qml_catalog()->schema);

	return OidIsValid(parent) && OidIsValid(partition) &&
		   ConditionalLockRelationOid(parent, AccessShareLock) &&
		   ConditionalLockRelationOid(partition, RowExclusiveLock);
}

/*
 * Writes the rows that were gathered, all of them of one time.  False: somebody has locked the
 * table, and nothing was written.
 */
bool
qml_stats_rows_write(QmlStatRows *rows, QmlStatsSpan span, TimestampTz at, TimestampTz until)
{
	int partition = partition_for(span, at);
	Oid types[COLUMNS + 3] = {TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID};
	Datum values[COLUMNS + 3] = {TimestampTzGetDatum(at), TimestampTzGetDatum(until),
								 Int32GetDatum(partition)};
	QmlSpi spi;

	if (rows->count == 0)
		return true;
	if (!try_lock(partition_relid(partition)))
		return false;
	for (int i = 0; i < COLUMNS; i++)
		values[i + 3] = array_of(rows, i, &types[i + 3]);
	qml_spi_begin(&spi, qml_catalog()->owner);
	(void) qml_spi_execute(
		psprintf("INSERT INTO qml.stats_%d (at, until, partition, queue_id, method, " COUNTED
				 ", waits, runs) SELECT $1, $2, $3::smallint, u.* "
				 "FROM unnest($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) u",
				 partition),
		lengthof(values), types, values, NULL, SPI_OK_INSERT);
	qml_spi_end(&spi);
	return true;
}

/* ----- reading ----- */

static void
unpack(const SPITupleTable *table, uint64 n, int column, uint64 *bins)
{
	bytea *packed = DatumGetByteaPP(qml_spi_value(table, n, column, BYTEAOID, NULL));

	if (!qml_histogram_unpack((unsigned char *) VARDATA_ANY(packed), VARSIZE_ANY_EXHDR(packed),
							  bins))
		memset(bins, 0, sizeof(uint64) * QML_HISTOGRAM_BINS);
}

/* Row n of the last query: at, until, and the columns. */
static void
read_row(const SPITupleTable *table, uint64 n, QmlStatRow *row)
{
	text *method = DatumGetTextPP(qml_spi_value(table, n, 4, TEXTOID, NULL));

	memset(&row->counts, 0, sizeof(row->counts));
	row->at = DatumGetTimestampTz(qml_spi_value(table, n, 1, TIMESTAMPTZOID, NULL));
	row->until = DatumGetTimestampTz(qml_spi_value(table, n, 2, TIMESTAMPTZOID, NULL));
	row->queue = DatumGetInt32(qml_spi_value(table, n, 3, INT4OID, NULL));
	row->method = VARDATA_ANY(method);
	row->length = VARSIZE_ANY_EXHDR(method);
	for (int i = 0; i < (int) lengthof(counted); i++)
	{
		if (counted[i] >= 0)
			row->counts.counters[counted[i]] = (uint64) DatumGetInt64(
				qml_spi_value(table, n, 3 + COLUMN_FIRST_COUNT + i, INT8OID, NULL));
	}
	unpack(table, n, 3 + COLUMN_WAITS, row->counts.waits);
	unpack(table, n, 3 + COLUMN_RUNS, row->counts.runs);
}

/*
 * Reads rows that begin in a range of times and end by `stored_through`, as they are now in any
 * isolation level.  in_order: by queue and method.
 */
void
qml_stats_rows_read(QmlStatsSpan span, TimestampTz from, TimestampTz before,
					TimestampTz stored_through, bool in_order,
					void (*take)(const QmlStatRow *row, void *arg), void *arg)
{
	Oid types[] = {INT4OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum values[] = {Int32GetDatum((int) span * RING), Int32GetDatum((int) (span + 1) * RING),
					  TimestampTzGetDatum(from), TimestampTzGetDatum(before),
					  TimestampTzGetDatum(stored_through)};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "qml stats",
												  ALLOCSET_DEFAULT_SIZES);
	QmlSpi spi;
	Portal portal;
	Snapshot latest = qml_table_latest_snapshot();

	qml_spi_begin(&spi, qml_catalog()->owner);
	/* The cursor is read with the snapshot that is active when it is opened. */
	PushActiveSnapshot(latest);
	portal =
		SPI_cursor_open_with_args(NULL,
								  psprintf("SELECT s.at, s.until, s.queue_id, s.method, " COUNTED
										   ", s.waits, s.runs FROM qml.stats_data s "
										   "WHERE s.partition >= $1 AND s.partition < $2 "
										   "AND s.at >= $3 AND s.at < $4 AND s.until <= $5%s",
										   in_order ? " ORDER BY s.queue_id, s.method" : ""),
								  lengthof(types), types, values, NULL, true, 0);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, ROWS_AT_ONCE);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext oldcontext = MemoryContextSwitchTo(context);
			QmlStatRow row;

			read_row(SPI_tuptable, i, &row);
			take(&row, arg);
			MemoryContextSwitchTo(oldcontext);
		}
		MemoryContextReset(context);
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(portal);
	PopActiveSnapshot();
	qml_spi_end(&spi);
	UnregisterSnapshot(latest);
	MemoryContextDelete(context);
}

/* When the first or the last row begins, of those that begin from a time on and end by another. */
static bool
read_time(bool last, QmlStatsSpan span, TimestampTz from, TimestampTz stored_through,
		  TimestampTz *at)
{
	Oid types[] = {INT4OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum values[] = {Int32GetDatum((int) span * RING), Int32GetDatum((int) (span + 1) * RING),
					  TimestampTzGetDatum(from), TimestampTzGetDatum(stored_through)};
	QmlSpi spi;
	bool found;

	qml_spi_begin(&spi, qml_catalog()->owner);
	found =
		qml_spi_execute_latest(psprintf("SELECT s.at FROM qml.stats_data s WHERE s.partition >= $1 "
										"AND s.partition < $2 AND s.at >= $3 AND s.until <= $4 "
										"ORDER BY s.at %s LIMIT 1",
										last ? "DESC" : "ASC"),
							   lengthof(types), types, values, NULL, SPI_OK_SELECT) > 0;
	if (found)
		*at = DatumGetTimestampTz(qml_spi_value(SPI_tuptable, 0, 1, TIMESTAMPTZOID, NULL));
	qml_spi_end(&spi);
	return found;
}

/* When the first row from a time on begins; false: there is none. */
bool
qml_stats_rows_first(QmlStatsSpan span, TimestampTz from, TimestampTz *at)
{
	return read_time(false, span, from, DT_NOEND, at);
}

/* When the last row begins that ends by `stored_through`; false: there is none. */
bool
qml_stats_rows_last(QmlStatsSpan span, TimestampTz stored_through, TimestampTz *at)
{
	return read_time(true, span, DT_NOBEGIN, stored_through, at);
}
