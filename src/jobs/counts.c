/*
 * counts.c
 *		How many jobs there are.
 *
 * Where the numbers in shared memory are in use (ipc/counters.c), they are the answer, with what
 * the caller's transaction has done itself.  They are of the present, in any isolation level.
 * Otherwise rows are counted, as the caller's snapshot shows them.
 *
 * The numbers in shared memory begin with a count of all rows (qml_counts_rows), which waits for
 * no lock.
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "common/fault.h"
#include "common/spi.h"
#include "common/walk.h"
#include "compat.h"
#include "core/state.h"
#include "ipc/counter_notes.h"
#include "ipc/prepared.h"
#include "jobs/counts.h"
#include "jobs/history.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/job.h"
#include "model/queue.h"

/* Most columns of a query below. */
#define MAX_COLUMNS 3

/* Kinds of jobs that a count of all rows can tell apart; there is no room for more of them. */
#define MOST_KINDS 300000

/* How often it is looked whether it has to pause, or to stop. */
#define ROWS_BETWEEN_LOOKS QML_FAULT_LIMIT("counting.rows", 256)

/* ----- the numbers in shared memory ----- */

/*
 * Which rows they are of now; false: they cannot be relied on, as not all SQL is told.  The numbers
 * have what prepared transactions did that have ended by now.
 */
bool
qml_counts_source(QmlCounterSource *source)
{
	int count = qml_stores_in_use();
	bool told = !qml_counter_notes_are_unknown();

	StaticAssertStmt(QML_STORES <= QML_COUNTER_TABLES, "there is room for each");
	qml_prepared_settle(false);
	/* Whoever knows of other ones gives up the numbers. */
	AcceptInvalidationMessages();
	memset(source, 0, sizeof(*source));
	for (int i = 0; i < count; i++)
	{
		const QmlStore *store = qml_store(i);

		source->live[i] = store->live;
		source->trigger[i] = store->live_trigger_version;
		told = told && TransactionIdIsValid(store->live_trigger_version);
	}
	return told;
}

/* Adds one side of what this transaction has done. */
static void
add_side(int64 *counts, int state, uint32 until, int count, TimestampTz now)
{
	if (state == QML_NOT_COUNTED ||
		(qml_state_is_final((QmlState) state) && qml_counter_store_is_over(until, now)))
		return;
	counts[state] += count;
}

static void
add_own(int64 *counts, const QmlCounterDelta *delta, TimestampTz now)
{
	add_side(counts, delta->from, delta->from_until, -delta->count, now);
	add_side(counts, delta->to, delta->to_until, delta->count, now);
}

/* The number of all jobs by state, without those of a queue; false: not known. */
static bool
read_states(int64 *counts, int own)
{
	TimestampTz now;
	QmlCounterSource source;
	QmlCounterDelta delta;
	QmlCounterRow *rows;
	int place = 0;
	int count;

	if (!qml_counts_source(&source) || !qml_counters_read(&source, &rows, &count))
		return false;
	now = GetCurrentTimestamp();
	memset(counts, 0, sizeof(int64) * QML_STATES);
	for (int i = 0; i < count; i++)
	{
		for (int state = 0; rows[i].queue != own && state < QML_STATES; state++)
			counts[state] += rows[i].counts[state];
	}
	while (qml_counter_notes_next(&place, &delta))
	{
		if (delta.queue != own)
			add_own(counts, &delta, now);
	}
	pfree(rows);
	return true;
}

/* A queue of the answer. */
typedef struct QueueCounts
{
	const char *name;
	int64 *counts;
} QueueCounts;

static int
compare_names(const void *a, const void *b)
{
	const char *one = ((const QueueCounts *) a)->name;
	const char *other = ((const QueueCounts *) b)->name;

	return varstr_cmp(one, (int) strlen(one), other, (int) strlen(other), DEFAULT_COLLATION_OID);
}

/* Queues by id, with their numbers and what this transaction has done; NULL: not known. */
static HTAB *
read_queues(void)
{
	HASHCTL control = {.keysize = sizeof(int),
					   .entrysize = sizeof(QmlCounterRow),
					   .hcxt = CurrentMemoryContext};
	QmlCounterSource source;
	QmlCounterDelta delta;
	QmlCounterRow *rows;
	TimestampTz now;
	HTAB *queues;
	int place = 0;
	int count;

	if (!qml_counts_source(&source) || !qml_counters_read(&source, &rows, &count))
		return NULL;
	now = GetCurrentTimestamp();
	queues = hash_create("qml counts", count + 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < count; i++)
		memcpy(hash_search(queues, &rows[i].queue, HASH_ENTER, NULL), &rows[i], sizeof(rows[i]));
	while (qml_counter_notes_next(&place, &delta))
	{
		bool found;
		QmlCounterRow *row = hash_search(queues, &delta.queue, HASH_ENTER, &found);

		if (!found)
			memset(row->counts, 0, sizeof(row->counts));
		add_own(row->counts, &delta, now);
	}
	pfree(rows);
	return queues;
}

/* The queues in the order of their names. */
static QueueCounts *
sort_queues(HTAB *queues, int *count)
{
	QueueCounts *sorted = palloc(sizeof(QueueCounts) * (hash_get_num_entries(queues) + 1));
	int own = qml_queue_own_id();
	HASH_SEQ_STATUS scan;
	QmlCounterRow *row;

	*count = 0;
	hash_seq_init(&scan, queues);
	while ((row = hash_seq_search(&scan)) != NULL)
	{
		const QmlQueue *queue = row->queue == own ? NULL : qml_queue_by_id(row->queue);

		if (queue == NULL)
			continue;
		sorted[*count].name = queue->name;
		sorted[(*count)++].counts = row->counts;
	}
	qsort(sorted, *count, sizeof(QueueCounts), compare_names);
	return sorted;
}

/*
 * The numbers of all queues that have jobs, from shared memory, by their ids; false: they are not
 * known there.  No capability is asked for.
 */
bool
qml_counts_of_queues(QmlCounterRow **rows, int *count)
{
	HTAB *queues = read_queues();
	HASH_SEQ_STATUS scan;
	QmlCounterRow *row;

	if (queues == NULL)
		return false;
	*rows = palloc(sizeof(QmlCounterRow) * (hash_get_num_entries(queues) + 1));
	*count = 0;
	hash_seq_init(&scan, queues);
	while ((row = hash_seq_search(&scan)) != NULL)
		(*rows)[(*count)++] = *row;
	hash_destroy(queues);
	return true;
}

static Datum
state_datum(int state)
{
	return ObjectIdGetDatum(qml_catalog()->states[state]);
}

/* The answers from shared memory; false: rows must be counted. */
static bool
store_states(Tuplestorestate *store, TupleDesc desc)
{
	int64 counts[QML_STATES];

	if (!read_states(counts, qml_queue_own_id()))
		return false;
	for (int state = 0; state < QML_STATES; state++)
	{
		Datum values[] = {state_datum(state), Int64GetDatum(Max(counts[state], 0))};
		bool nulls[] = {false, false};

		tuplestore_putvalues(store, desc, values, nulls);
	}
	return true;
}

static bool
store_queues(Tuplestorestate *store, TupleDesc desc)
{
	HTAB *queues = read_queues();
	QueueCounts *sorted;
	int count;

	if (queues == NULL)
		return false;
	sorted = sort_queues(queues, &count);
	for (int i = 0; i < count; i++)
	{
		for (int state = 0; state < QML_STATES; state++)
		{
			Datum values[] = {(Datum) 0, state_datum(state),
							  Int64GetDatum(sorted[i].counts[state])};
			bool nulls[] = {false, false, false};

			if (sorted[i].counts[state] <= 0)
				continue;
			values[0] = CStringGetTextDatum(sorted[i].name);
			tuplestore_putvalues(store, desc, values, nulls);
		}
	}
	hash_destroy(queues);
	return true;
}

/* ----- rows, for a caller ----- */

/* Runs a query as the owner of qml's tables, and puts its rows into the store. */
static void
store_query(Tuplestorestate *store, TupleDesc desc, const char *sql)
{
	QmlSpi spi;
	uint64 rows;

	if (desc->natts > MAX_COLUMNS)
		elog(ERROR, "unexpected number of columns: %d", desc->natts);
	qml_spi_begin(&spi, qml_catalog()->owner);
	rows = qml_spi_execute(sql, 0, NULL, NULL, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < rows; i++)
	{
		Datum values[MAX_COLUMNS];
		bool nulls[MAX_COLUMNS];

		for (int a = 0; a < desc->natts; a++)
			values[a] = qml_spi_value(SPI_tuptable, i, a + 1, TupleDescAttr(desc, a)->atttypid,
									  &nulls[a]);
		tuplestore_putvalues(store, desc, values, nulls);
	}
	qml_spi_end(&spi);
}

/* Queue and state of every job that there is.  The tables may differ in columns of somebody's own. */
#define ALL_JOBS(live, history, overflow)                           \
	"SELECT l.queue_id, l.state FROM qml." live " l UNION ALL "     \
	"SELECT h.queue_id, h.state FROM qml." history " h "            \
	"WHERE h.expires_at > pg_catalog.statement_timestamp() "        \
	"UNION ALL SELECT o.queue_id, o.state FROM qml." overflow " o " \
	"WHERE o.expires_at > pg_catalog.statement_timestamp()"

/* The same of all storage classes that are in use; a standby cannot read unlogged tables. */
static const char *
all_jobs(void)
{
	const char *logged = ALL_JOBS("live", "history", "history_overflow");

	if (qml_stores_in_use() <= QML_STORE_UNLOGGED)
		return logged;
	return psprintf("%s UNION ALL %s", logged,
					ALL_JOBS("live_unlogged", "history_unlogged", "history_unlogged_overflow"));
}

/* state, count: every state, also those that no job is in.  Without qml's own queue. */
void
qml_counts_by_state(Tuplestorestate *store, TupleDesc desc)
{
	qml_acl_require_any(QML_CAN_MONITOR);
	if (store_states(store, desc))
		return;
	store_query(
		store, desc,
		psprintf("SELECT s.state, COALESCE(c.count, 0) "
				 "FROM pg_catalog.unnest(pg_catalog.enum_range(NULL::qml.job_state)) s (state) "
				 "LEFT JOIN (SELECT j.state, pg_catalog.count(*) AS count FROM (%s) j "
				 "WHERE j.queue_id <> %d GROUP BY j.state) c USING (state) ORDER BY s.state",
				 all_jobs(), qml_queue_own_id()));
}

/* queue, state, count: where there are jobs.  Without qml's own queue. */
void
qml_counts_by_queue(Tuplestorestate *store, TupleDesc desc)
{
	qml_acl_require_any(QML_CAN_MONITOR);
	if (store_queues(store, desc))
		return;
	store_query(
		store, desc,
		psprintf("SELECT q.name, c.state, c.count FROM (SELECT j.queue_id, j.state, "
				 "pg_catalog.count(*) AS count FROM (%s) j "
				 "WHERE j.queue_id <> %d "
				 "GROUP BY j.queue_id, j.state) c JOIN qml.queue_data q ON q.id = c.queue_id "
				 "ORDER BY q.name, c.state",
				 all_jobs(), qml_queue_own_id()));
}

/* Queues by id, with the numbers of jobs that rows show. */
static HTAB *
count_queues(void)
{
	HASHCTL control = {.keysize = sizeof(int),
					   .entrysize = sizeof(QmlCounterRow),
					   .hcxt = CurrentMemoryContext};
	HTAB *queues = hash_create("qml counts", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	QmlSpi spi;
	uint64 count;

	qml_spi_begin(&spi, qml_catalog()->owner);
	count = qml_spi_execute(psprintf("SELECT j.queue_id, j.state, pg_catalog.count(*) "
									 "FROM (%s) j GROUP BY j.queue_id, j.state",
									 all_jobs()),
							0, NULL, NULL, NULL, SPI_OK_SELECT);
	for (uint64 i = 0; i < count; i++)
	{
		int queue = DatumGetInt32(qml_spi_value(SPI_tuptable, i, 1, INT4OID, NULL));
		QmlState state = qml_catalog_state_or_none(
			DatumGetObjectId(qml_spi_value(SPI_tuptable, i, 2, qml_catalog()->state_type, NULL)));
		bool found;
		QmlCounterRow *row = hash_search(queues, &queue, HASH_ENTER, &found);

		if (!found)
			memset(row->counts, 0, sizeof(row->counts));
		/* Somebody may have added a state. */
		if ((int) state < QML_STATES)
			row->counts[state] = DatumGetInt64(qml_spi_value(SPI_tuptable, i, 3, INT8OID, NULL));
	}
	qml_spi_end(&spi);
	return queues;
}

/*
 * The numbers of jobs by queue and state, as QmlCounterRow by the id of the queue, with those of
 * qml's own one.  from_memory: no rows were counted.
 */
HTAB *
qml_counts_queues(bool *from_memory)
{
	HTAB *queues = read_queues();

	*from_memory = queues != NULL;
	return queues ? queues : count_queues();
}

/* How many jobs of a queue are ready, by its rows.  Reads all of them, and those in work. */
static int64
count_depth(const QmlQueue *queue)
{
	const QmlStore *store = qml_store(qml_queue_store(queue));
	Relation ready;
	Snapshot snapshot;
	IndexScanDesc scan;
	ScanKeyData key;
	QmlTable live;
	int64 count = 0;

	qml_table_open(&live, store->live, AccessShareLock);
	ready = index_open(store->live_ready, AccessShareLock);
	snapshot = qml_table_snapshot();
	scan = qml_index_beginscan(live.rel, ready, snapshot, 1);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue->id));
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, live.slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (qml_job_live_state(live.slot) == QML_ENQUEUED)
			count++;
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	index_close(ready, NoLock);
	qml_table_close(&live);
	return count;
}

/* How many jobs of a queue are ready. */
int64
qml_counts_depth(const QmlQueue *queue)
{
	QmlCounterSource source;
	QmlCounterDelta delta;
	QmlCounterRow row;
	int place = 0;

	/* Of a class that has no jobs, and on a standby no tables that could be read. */
	if ((int) qml_queue_store(queue) >= qml_stores_in_use())
		return 0;
	if (!qml_counts_source(&source) || !qml_counters_read_queue(&source, queue->id, &row))
		return count_depth(queue);
	while (qml_counter_notes_next(&place, &delta))
	{
		if (delta.queue == queue->id)
			add_own(row.counts, &delta, GetCurrentTimestamp());
	}
	return Max(row.counts[QML_ENQUEUED], 0);
}

/* ----- rows, all of them ----- */

/* Jobs of a queue in a state that expire at the same time. */
typedef struct KindKey
{
	int queue;
	uint32 state;
	uint32 until;
} KindKey;

typedef struct Kind
{
	KindKey key;
	int count;
} Kind;

/* One count. */
typedef struct Count
{
	HTAB *kinds;
	Snapshot snapshot;
	TimestampTz began_at;
	bool (*must_stop)(Relation rel);
	bool *has_room;
	int64 rows;
} Count;

/* Counts the row in the slot; false: there are too many kinds (*has_room), or it has to stop. */
static bool
count_row(Count *count, const QmlTable *table, bool finished)
{
	TupleTableSlot *slot = table->slot;
	KindKey key = {0};
	bool isnull;
	bool found;
	Kind *kind;

	if (++count->rows % ROWS_BETWEEN_LOOKS == 0 && count->must_stop(table->rel))
		return false;
	/* Both tables have the first columns in common. */
	key.queue = DatumGetInt32(slot_getattr(slot, LIVE_QUEUE_ID, &isnull));
	key.state = (uint32) qml_job_live_state(slot);
	if (finished)
	{
		TimestampTz expires_at = DatumGetTimestampTz(
			slot_getattr(slot, HISTORY_EXPIRES_AT, &isnull));

		if (expires_at <= count->began_at)
			return true;
		key.until = qml_counter_store_until(expires_at);
	}
	else
		key.until = qml_counter_store_until(DT_NOEND);
	/* Somebody has added a state. */
	if (key.state >= QML_STATES)
		return true;
	if (!qml_state_is_final((QmlState) key.state))
		key.until = 0;
	kind = hash_search(count->kinds, &key, HASH_ENTER, &found);
	if (!found)
		kind->count = 0;
	kind->count++;
	*count->has_room = hash_get_num_entries(count->kinds) <= MOST_KINDS;
	return *count->has_room;
}

/*
 * Whether a table was altered after the snapshot was taken.  If it was rewritten, its rows are
 * those of the transaction that did so, and the snapshot does not see them.
 */
static bool
is_altered_since(Relation rel, Snapshot snapshot)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(RelationGetRelid(rel)));
	bool altered;

	if (!HeapTupleIsValid(tuple))
		return true;
	altered = XidInMVCCSnapshot(HeapTupleHeaderGetXmin(tuple->t_data), snapshot);
	ReleaseSysCache(tuple);
	return altered;
}

/*
 * Counts the rows of a table.  False: it is locked, not one of rows, or altered meanwhile, or as
 * above.
 */
static bool
count_table(Count *count, Oid relid, bool finished)
{
	QmlWalkPiece piece;
	QmlTable table;
	bool done;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	/* It is locked twice, and the second lock is held to the end. */
	if (!qml_table_try_open(&table, relid, AccessShareLock))
		return true;
	UnlockRelationOid(relid, AccessShareLock);
	done = table.rel->rd_rel->relkind == RELKIND_RELATION &&
		   !is_altered_since(table.rel, count->snapshot);
	if (done)
	{
		qml_walk_open(&piece, NULL, &table, count->snapshot);
		while (done && qml_walk_next_row(&piece))
			done = count_row(count, &table, finished);
		(void) qml_walk_close(&piece);
	}
	qml_table_close(&table);
	/* A partition must not be kept from being dropped. */
	UnlockRelationOid(relid, AccessShareLock);
	return done;
}

/* Counts the rows of a storage class.  False: it cannot be done now. */
static bool
count_store(Count *count, QmlStoreId id)
{
	const QmlStore *store = qml_store(id);
	Oid *partitions;
	bool done;
	int npartitions;

	/* After the snapshot was taken: what it sees in a partition is in one of these. */
	if (!ConditionalLockRelationOid(store->history, AccessShareLock))
		return false;
	npartitions = qml_history_list(id, &partitions);
	UnlockRelationOid(store->history, AccessShareLock);
	done = count_table(count, store->live, false) && count_table(count, store->overflow, true);
	for (int i = 0; done && i < npartitions; i++)
		done = count_table(count, partitions[i], true);
	return done;
}

/*
 * Counts all rows that the snapshot sees, and hands them on.  must_stop is called now and then, and
 * may sleep.  False: a table is locked or was altered, there is no room (*has_room), or one of the
 * functions has said so.
 */
bool
qml_counts_rows(Snapshot snapshot, bool (*must_stop)(Relation rel),
				bool (*put)(const QmlCounterDelta *delta, bool *has_room), bool *has_room)
{
	HASHCTL control = {.keysize = sizeof(KindKey),
					   .entrysize = sizeof(Kind),
					   .hcxt = CurrentMemoryContext};
	HTAB *kinds = hash_create("qml kinds of jobs", 256, &control,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	Count count = {.kinds = kinds,
				   .snapshot = snapshot,
				   .began_at = GetCurrentTimestamp(),
				   .must_stop = must_stop,
				   .has_room = has_room};
	HASH_SEQ_STATUS scan;
	int nstores = qml_stores_in_use();
	bool done = true;
	Kind *kind;

	*has_room = true;
	for (int i = 0; done && i < nstores; i++)
		done = count_store(&count, i);
	if (done)
		hash_seq_init(&scan, kinds);
	while (done && (kind = hash_seq_search(&scan)) != NULL)
	{
		QmlCounterDelta delta = {.queue = kind->key.queue,
								 .count = kind->count,
								 .from = QML_NOT_COUNTED,
								 .to = (uint8) kind->key.state,
								 .to_until = kind->key.until};

		done = put(&delta, has_room);
		if (!done)
			hash_seq_term(&scan);
	}
	hash_destroy(kinds);
	return done;
}
