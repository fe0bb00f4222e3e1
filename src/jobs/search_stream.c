/*
 * search_stream.c
 *		Jobs of a table in the order in which they are shown: the newest first.
 *
 * A stream walks backwards over an index in which the jobs that it gives are in this order: an index
 * with the order in it, or one with the id, if jobs with ids of their own are passed over.  Others
 * are lists of rows that were read before.
 *
 * Where several rows have the same order in the index, they are read together and sorted by their
 * ids; there may be many, so only where they are is kept, and each is read again.  Other rows are
 * copied, so that streams of one table can share the slot that rows are read into.
 *
 * A stream that has passed over too much is cut off: where the order changes, so that a search which
 * goes on from there does not begin with the same entries.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "core/search_order.h"
#include "ipc/beats.h"
#include "jobs/search_stream.h"
#include "model/columns.h"
#include "model/search_index.h"

/* A row that was read, and its place. */
typedef struct Row
{
	HeapTuple tuple; /* a copy; NULL: it is to be read again */
	ItemPointerData tid;
	QmlSearchPlace place;
} Row;

struct QmlSearchStream
{
	QmlSearchTable *table;
	IndexScanDesc scan; /* NULL: a list, or it has ended */
	QmlStreamFilter filter;
	int skipped;  /* entries that were passed over */
	bool has_tid; /* the first entry has been fetched already */

	/* Rows of the same order, sorted; the next one of another order, if it has been read. */
	Row *rows;
	int count;
	int room;
	int next; /* the one after the head */
	bool has_more;
	Row more;

	/* It ends behind what has this order, or by id this place; then nothing behind `cut` was looked at. */
	bool is_full;
	bool is_cut;
	QmlSearchPlace cut;
};

/* ----- places ----- */

static int
compare_places(const QmlSearchPlace *a, const QmlSearchPlace *b)
{
	if (a->order != b->order)
		return a->order < b->order ? -1 : 1;
	return memcmp(a->id.data, b->id.data, UUID_LEN);
}

static int
compare_rows(const void *a, const void *b)
{
	/* The newest first. */
	return compare_places(&((const Row *) b)->place, &((const Row *) a)->place);
}

static TimestampTz
get_time(TupleTableSlot *slot, int attnum)
{
	bool isnull;
	Datum value = slot_getattr(slot, attnum, &isnull);

	return isnull ? QML_NO_TIME : DatumGetTimestampTz(value);
}

static void
read_place(TupleTableSlot *slot, QmlSearchPlace *place)
{
	bool isnull;

	place->id = *DatumGetUUIDP(slot_getattr(slot, LIVE_ID, &isnull));
	place->order = qml_order_of(place->id.data, get_time(slot, LIVE_CREATED_AT));
}

static bool
is_in_bounds(const QmlSearchBounds *bounds, const QmlSearchPlace *place)
{
	return place->order <= bounds->last && place->order >= bounds->first &&
		   (!bounds->has_after || compare_places(place, &bounds->after) < 0);
}

/* ----- conditions on an index ----- */

/* The last order that a job can have which is behind a place. */
static int64
last_behind(const QmlSearchPlace *place)
{
	const pg_uuid_t none = {{0}};

	/* Where a stream was cut off, all of that order were looked at, and may be many. */
	return memcmp(&place->id, &none, UUID_LEN) == 0 ? place->order - 1 : place->order;
}

/* That the order, in a column of the index, is within the bounds; how many conditions. */
int
qml_stream_add_order_keys(ScanKeyData *keys, int attnum, const QmlSearchBounds *bounds)
{
	int64 last = bounds->last;

	if (bounds->has_after)
		last = Min(last, last_behind(&bounds->after));
	ScanKeyInit(&keys[0], attnum, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(last));
	if (bounds->first == QML_ORDER_FIRST)
		return 1;
	ScanKeyInit(&keys[1], attnum, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(bounds->first));
	return 2;
}

/* An id with these first 64 bits. */
static pg_uuid_t *
make_id(int64 head, unsigned char rest)
{
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));

	for (int i = 0; i < 8; i++)
		id->data[i] = (unsigned char) ((uint64) head >> (56 - 8 * i));
	memset(id->data + 8, rest, 8);
	return id;
}

/* The same where the index has the ids. */
int
qml_stream_add_id_keys(ScanKeyData *keys, int attnum, const QmlSearchBounds *bounds)
{
	int64 last = bounds->last_by_id;

	if (bounds->has_after)
		last = Min(last, bounds->after.order);
	ScanKeyInit(&keys[0], attnum, BTLessEqualStrategyNumber, F_UUID_LE,
				UUIDPGetDatum(make_id(Max(last, 0), 0xFF)));
	/* Ids have no sign. */
	ScanKeyInit(&keys[1], attnum, BTGreaterEqualStrategyNumber, F_UUID_GE,
				UUIDPGetDatum(make_id(Max(bounds->first, 0), 0)));
	return 2;
}

/* ----- reading ----- */

static QmlSearchStream *
make_stream(QmlSearchTable *table)
{
	QmlSearchStream *stream = palloc0(sizeof(QmlSearchStream));

	stream->table = table;
	return stream;
}

/* Opens a stream over an index, which stays open longer than it. */
QmlSearchStream *
qml_stream_open(QmlSearchTable *table, Relation index, const QmlStreamFilter *filter,
				ScanKeyData *keys, int nkeys)
{
	QmlSearchStream *stream = make_stream(table);

	Assert(nkeys <= QML_STREAM_MAX_KEYS);
	stream->filter = *filter;
	stream->scan = qml_index_beginscan(table->table.rel, index, table->bounds.snapshot, nkeys);
	stream->scan->xs_want_itup = filter->nqueues > 0 || filter->nmethods > 0 || filter->one_key ||
								 filter->by_id > 0;
	index_rescan(stream->scan, keys, nkeys, NULL, 0);
	return stream;
}

/* The number in a column of the entry that a scan is at. */
static int64
entry_number(IndexScanDesc scan, int attnum)
{
	bool isnull;

	return DatumGetInt64(index_getattr(scan->xs_itup, attnum, scan->xs_itupdesc, &isnull));
}

/*
 * Opens a stream over the last key from `first` to `last` in an index of (key, order), and *key is
 * that; NULL: there is none.  The search for the key is the beginning of the stream, unless the newest
 * jobs of the key are out of bounds.
 */
QmlSearchStream *
qml_stream_open_last_key(QmlSearchTable *table, Relation index, const QmlStreamFilter *filter,
						 int64 first, int64 last, int64 *key)
{
	const QmlSearchBounds *bounds = &table->bounds;
	QmlStreamFilter one = *filter;
	ScanKeyData keys[QML_STREAM_MAX_KEYS];
	QmlSearchStream *stream;

	one.one_key = true;
	ScanKeyInit(&keys[0], 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(last));
	ScanKeyInit(&keys[1], 1, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(first));
	stream = qml_stream_open(table, index, &one, keys, 2);
	if (index_getnext_tid(stream->scan, BackwardScanDirection) == NULL)
	{
		qml_stream_close(stream);
		return NULL;
	}
	*key = entry_number(stream->scan, 1);
	stream->filter.key = *key;
	stream->has_tid = true;
	if (bounds->first == QML_ORDER_FIRST &&
		entry_number(stream->scan, 2) <=
			(bounds->has_after ? Min(bounds->last, bounds->after.order) : bounds->last))
		return stream;
	qml_stream_close(stream);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(*key));
	return qml_stream_open(table, index, filter, keys,
						   1 + qml_stream_add_order_keys(&keys[1], 2, bounds));
}

static bool
has_queue(const QmlStreamFilter *filter, int queue)
{
	for (int i = 0; i < filter->nqueues; i++)
	{
		if (filter->queues[i] == queue)
			return true;
	}
	return filter->nqueues == 0;
}

static bool
has_method(const QmlStreamFilter *filter, uint32 method)
{
	for (int i = 0; i < filter->nmethods; i++)
	{
		if (filter->methods[i] == method)
			return true;
	}
	return filter->nmethods == 0;
}

/* The id in the entry. */
static const pg_uuid_t *
entry_id(QmlSearchStream *stream)
{
	IndexScanDesc scan = stream->scan;
	bool isnull;

	return DatumGetUUIDP(
		index_getattr(scan->xs_itup, stream->filter.by_id, scan->xs_itupdesc, &isnull));
}

/* Whether the entry that the scan is at can be of a job that is wanted. */
static bool
is_entry_wanted(QmlSearchStream *stream)
{
	int64 key;

	if (stream->filter.by_id > 0)
		return qml_order_is_in_id(entry_id(stream)->data);
	if (stream->filter.nqueues == 0 && stream->filter.nmethods == 0)
		return true;
	if (stream->filter.has_queue)
		return has_queue(&stream->filter, (int) entry_number(stream->scan, 2));
	key = entry_number(stream->scan, 3);
	return has_queue(&stream->filter, (int) (key >> 32)) &&
		   has_method(&stream->filter, (uint32) (key & PG_UINT32_MAX));
}

/* Whether the row that was read belongs to the stream. */
static bool
is_row_wanted(const QmlSearchStream *stream, TupleTableSlot *slot, const QmlSearchPlace *place)
{
	const QmlStreamFilter *filter = &stream->filter;

	if (filter->by_id > 0 && !qml_order_is_by_id(place->id.data, get_time(slot, LIVE_CREATED_AT)))
		return false;
	if (filter->only_ready && !slot_attisnull(slot, LIVE_RUN_AT))
		return false;
	return !filter->only_quick ||
		   !qml_order_is_slow(get_time(slot, LIVE_CREATED_AT), get_time(slot, HISTORY_FINISHED_AT));
}

/* Goes to the next entry; false: the stream has ended. */
static bool
next_entry(QmlSearchStream *stream)
{
	if (stream->has_tid)
		stream->has_tid = false;
	else if (index_getnext_tid(stream->scan, BackwardScanDirection) == NULL)
		return false;
	return !stream->filter.one_key || entry_number(stream->scan, 1) == stream->filter.key;
}

/* The place of the entry that the scan is at, by the entry alone, which has its order or its id. */
static void
read_entry_place(QmlSearchStream *stream, QmlSearchPlace *place)
{
	memset(place, 0, sizeof(*place));
	if (stream->filter.by_id > 0)
		place->id = *entry_id(stream);
	else
		place->order = entry_number(stream->scan, stream->filter.has_queue ? 1 : 2);
}

/* Where the stream is when it has looked at an entry: all that is not behind it has been read. */
static QmlSearchPlace
end_of_entry(const QmlSearchStream *stream, const QmlSearchPlace *place)
{
	QmlSearchPlace end = {.order = place->order};

	/* By id, one with an id of its own does not say how far this came. */
	if (stream->filter.by_id > 0)
	{
		end.order = Max(qml_order_head(place->id.data), 0);
		end.id = place->id;
	}
	return end;
}

/* A row is not wanted.  If many were not, the stream ends soon. */
static void
pass_over(QmlSearchStream *stream, const QmlSearchPlace *place)
{
	QmlSearchBounds *bounds = &stream->table->bounds;

	bounds->looked++;
	stream->is_full = bounds->most_looked > 0 && bounds->looked > bounds->most_looked;
	stream->cut = end_of_entry(stream, place);
}

/* Whether the stream has passed over so much that it ends in front of this entry. */
static bool
ends_before(const QmlSearchStream *stream, const QmlSearchPlace *place)
{
	QmlSearchPlace end;

	if (!stream->is_full)
		return false;
	end = end_of_entry(stream, place);
	return compare_places(&end, &stream->cut) != 0;
}

/* Reads the next row that belongs to the stream, into the slot of the table; false: there is none. */
static bool
read_row(QmlSearchStream *stream, Row *row)
{
	TupleTableSlot *slot = stream->table->table.slot;

	if (stream->scan == NULL)
		return false;
	while (next_entry(stream))
	{
		bool is_read = is_entry_wanted(stream);

		CHECK_FOR_INTERRUPTS();
		if (!is_read)
			read_entry_place(stream, &row->place);
		else if (index_fetch_heap(stream->scan, slot))
			read_place(slot, &row->place);
		else
			continue;
		if (ends_before(stream, &row->place))
		{
			stream->is_cut = true;
			break;
		}
		/* Those of the first order may have been looked at before: each time all of them would count. */
		if (is_read && !is_in_bounds(&stream->table->bounds, &row->place))
			continue;
		if (is_read && is_row_wanted(stream, slot, &row->place))
		{
			row->tuple = NULL;
			row->tid = slot->tts_tid;
			return true;
		}
		if (is_read || ++stream->skipped % QML_STREAM_ENTRIES == 0)
			pass_over(stream, &row->place);
	}
	index_endscan(stream->scan);
	stream->scan = NULL;
	return false;
}

static void
add_row(QmlSearchStream *stream, const Row *row)
{
	if (stream->count == stream->room)
	{
		stream->room = Max(stream->room * 2, 4);
		stream->rows = stream->rows ? repalloc_huge(stream->rows, sizeof(Row) * stream->room) :
									  palloc(sizeof(Row) * stream->room);
	}
	stream->rows[stream->count++] = *row;
}

/* Adds the row that was read just now. */
static void
add_read_row(QmlSearchStream *stream, Row *row)
{
	if (stream->count == 0)
		row->tuple = ExecCopySlotHeapTuple(stream->table->table.slot);
	else if (stream->rows[0].tuple)
	{
		heap_freetuple(stream->rows[0].tuple);
		stream->rows[0].tuple = NULL;
	}
	add_row(stream, row);
}

/* Reads the rows that have the next order. */
static void
read_rows(QmlSearchStream *stream)
{
	Row row;

	stream->count = stream->next = 0;
	if (stream->has_more)
		add_row(stream, &stream->more);
	else if (read_row(stream, &row))
		add_read_row(stream, &row);
	stream->has_more = false;
	/* By id no two rows have the same place; a list is complete. */
	if (stream->count == 0 || stream->scan == NULL || stream->filter.by_id > 0)
		return;
	while (read_row(stream, &row))
	{
		if (row.place.order != stream->rows[0].place.order)
		{
			row.tuple = ExecCopySlotHeapTuple(stream->table->table.slot);
			stream->more = row;
			stream->has_more = true;
			break;
		}
		add_read_row(stream, &row);
	}
	if (stream->count > 1)
		qsort(stream->rows, stream->count, sizeof(Row), compare_rows);
}

/* Reads a row again: the snapshot, which sees it, keeps it from being removed. */
static HeapTuple
read_again(QmlSearchStream *stream, Row *row)
{
	QmlTable *table = &stream->table->table;

	if (!table_tuple_fetch_row_version(table->rel, &row->tid, stream->table->bounds.snapshot,
									   table->slot))
		elog(ERROR, "a job of table \"%s\" that a search has found is gone",
			 RelationGetRelationName(table->rel));
	return ExecCopySlotHeapTuple(table->slot);
}

/* Goes to the next job; false: there is none. */
bool
qml_stream_next(QmlSearchStream *stream)
{
	Row *row;

	if (stream->next > 0)
		heap_freetuple(stream->rows[stream->next - 1].tuple);
	if (stream->next == stream->count)
		read_rows(stream);
	if (stream->next == stream->count)
		return stream->is_cut;
	row = &stream->rows[stream->next++];
	if (row->tuple == NULL)
		row->tuple = read_again(stream, row);
	stream->table->bounds.looked++;
	return true;
}

/* Whether the stream ends here because too much was looked at, and not with a job. */
bool
qml_stream_is_cut(const QmlSearchStream *stream)
{
	return stream->is_cut && stream->next == stream->count && stream->count == 0;
}

/* A stream of rows that were read already, and are its own now. */
QmlSearchStream *
qml_stream_of_rows(QmlSearchTable *table, HeapTuple *rows, int count)
{
	QmlSearchStream *stream = make_stream(table);

	for (int i = 0; i < count; i++)
	{
		Row row = {.tuple = rows[i]};

		ExecStoreHeapTuple(rows[i], table->head, false);
		read_place(table->head, &row.place);
		ExecClearTuple(table->head);
		if (is_in_bounds(&table->bounds, &row.place))
			add_row(stream, &row);
		else
			heap_freetuple(rows[i]);
	}
	if (stream->count > 1)
		qsort(stream->rows, stream->count, sizeof(Row), compare_rows);
	return stream;
}

/* Where the job that the stream is at stands, or where it was cut off. */
const QmlSearchPlace *
qml_stream_place(const QmlSearchStream *stream)
{
	if (qml_stream_is_cut(stream))
		return &stream->cut;
	Assert(stream->next > 0);
	return &stream->rows[stream->next - 1].place;
}

/* The row of the job that the stream is at. */
QmlSearchRow
qml_stream_row(const QmlSearchStream *stream)
{
	const QmlSearchTable *table = stream->table;
	QmlSearchRow row = {.store = table->store, .live = table->live};

	Assert(stream->next > 0);
	row.relid = RelationGetRelid(table->table.rel);
	row.tid = stream->rows[stream->next - 1].tuple->t_self;
	return row;
}

QmlSearchTable *
qml_stream_table(const QmlSearchStream *stream)
{
	return stream->table;
}

/* Reads the job that the stream is at; its values are valid until the next one of the table is read. */
void
qml_stream_read(const QmlSearchStream *stream, QmlJob *job)
{
	QmlSearchTable *table = stream->table;

	Assert(stream->next > 0);
	ExecStoreHeapTuple(stream->rows[stream->next - 1].tuple, table->head, false);
	if (!table->live)
	{
		qml_job_from_history(table->head, job);
		return;
	}
	qml_job_from_live(table->head, job);
	/* A heartbeat that could not be written counts. */
	if (job->lease_expires_at != QML_NO_TIME)
		job->lease_expires_at = qml_beats_end(&job->id, job->attempt, job->lease_expires_at);
}

void
qml_stream_close(QmlSearchStream *stream)
{
	if (stream->scan)
		index_endscan(stream->scan);
	stream->scan = NULL;
}
