/*
 * search_plan.c
 *		By which indexes jobs are sought.
 *
 * For each table there are streams which together give all jobs that can match, each once; the whole
 * query is asked of each job afterwards.  Which streams they are follows from what the query demands:
 *
 *	demanded			unfinished jobs						finished jobs
 *	an id				that job							that job
 *	a queue				live_ready by priority, live_later	(key, order), for each method
 *	a method			the walk							(key, order), for each queue
 *	only processing		claims that run, in memory
 *	only ones that are	live_later, for each queue
 *	not ready
 *	only failed or deleted									(state, order, key)
 *	nothing of these	the walk							the walk
 *
 * The walk goes backwards over the index on the ids, and beside it over that of jobs with ids
 * of their own.  It is also what is done where streams would be too many, or an index is missing.  An
 * index of (key, order) on qml.live, which an administrator can make, is used for methods.
 *
 * `created:` bounds the walk, and so does `finished:`, because jobs end after they are created, or little
 * before, if the clock was set back meanwhile.  How long before its end a job was created is not
 * known, but most are quick: those that took long are in an index of their own by their end, and the
 * others cannot have been created earlier than a minute before the first end that is sought.
 *
 * The index on ids has those of their own, too, and random ones among them would stand in front of all
 * others.  A walk begins at the ids of jobs that are created in a year, unless future ones are sought, and
 * passes over what is not of version 7 without reading the job.
 *
 * What is known of running claims is of the present, so it is not asked in REPEATABLE READ.  The
 * claims are read before the snapshot is taken and after that: one that the snapshot shows has begun
 * before it, and is removed from memory after its end can be seen.  A job can be missing only if
 * it was claimed after the first reading and has ended before the second one.
 *
 * The numbers of jobs in shared memory are of the present, too, and some commits are not in them yet.  They
 * only decide which of several ways is taken.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "core/search_order.h"
#include "core/state.h"
#include "ipc/lease_notes.h"
#include "ipc/lease_table.h"
#include "jobs/counts.h"
#include "jobs/history.h"
#include "jobs/search_demand.h"
#include "jobs/search_plan.h"
#include "model/columns.h"
#include "model/queue.h"
#include "model/search_index.h"

/* Streams for queues and methods that a search has at most. */
#define MOST_STREAMS 512

/* A clock that was set back may have put the end of a job so long before its creation. */
#define CLOCK_MARGIN USECS_PER_HOUR

/* Jobs with ids of a time later than that from now are found only where future ones are sought. */
#define LATEST_CREATION (366 * USECS_PER_DAY)

/* Running jobs that are read one by one, and slow jobs that are read and sorted. */
#define MOST_RUNNING 2000
#define MOST_SLOW	 2000

typedef struct Planner
{
	QmlSearchPlan *plan;
	QmlSearchDemand demand;
	bool has_running; /* running claims were read after the snapshot, too */

	/* The numbers of jobs by queue, when they have been asked for; NULL: they are not known. */
	bool has_asked;
	const QmlCounterRow *counts;
	int ncounts;
} Planner;

/* ----- how many jobs there are ----- */

static bool
has_counts(Planner *planner)
{
	QmlCounterRow *rows;

	if (!planner->has_asked && qml_counts_of_queues(&rows, &planner->ncounts))
		planner->counts = rows;
	planner->has_asked = true;
	return planner->counts != NULL;
}

/* The jobs in these states, if numbers are known: of the queues that are demanded, or of all. */
static int64
count_jobs(const Planner *planner, int states, bool of_queues)
{
	const QmlSearchDemand *demand = &planner->demand;
	int64 count = 0;

	for (int i = 0; i < planner->ncounts; i++)
	{
		bool wanted = !of_queues;

		for (int j = 0; !wanted && j < demand->nqueues; j++)
			wanted = demand->queues[j] == planner->counts[i].queue;
		for (int state = 0; wanted && state < QML_STATES; state++)
			count += states & QML_STATE_BIT(state) ? planner->counts[i].counts[state] : 0;
	}
	return count;
}

/* ----- tables and streams ----- */

static TimestampTz
later(TimestampTz time, int64 span)
{
	return time > PG_INT64_MAX - span ? PG_INT64_MAX : time + span;
}

static QmlSearchTable *
open_table(Planner *planner, QmlStoreId store, Oid relid, bool live)
{
	QmlSearchPlan *plan = planner->plan;
	const QmlSearch *search = plan->search;
	const QmlSearchDemand *demand = &planner->demand;
	QmlSearchTable *table = palloc0(sizeof(QmlSearchTable));
	QmlSearchBounds *bounds = &table->bounds;

	/* A partition may have been dropped meanwhile. */
	if (!qml_table_try_open(&table->table, relid, AccessShareLock))
	{
		if (!live)
			return NULL;
		qml_table_open(&table->table, relid, AccessShareLock);
	}
	table->head = MakeSingleTupleTableSlot(RelationGetDescr(table->table.rel), &TTSOpsHeapTuple);
	table->store = store;
	table->live = live;
	bounds->snapshot = plan->snapshot;
	bounds->has_after = search->has_after;
	bounds->after = search->after;
	bounds->most_looked = search->most_looked;
	bounds->first = demand->first_created == PG_INT64_MIN ?
						QML_ORDER_FIRST :
						qml_order_earliest(demand->first_created);
	bounds->last = qml_order_latest(
		Min(demand->last_created, later(demand->last_end, CLOCK_MARGIN)));
	bounds->last_by_id = bounds->last;
	if (demand->first_created <= plan->now)
		bounds->last_by_id = Min(bounds->last, qml_order_latest(later(plan->now, LATEST_CREATION)));
	plan->tables = lappend(plan->tables, table);
	return table;
}

static Relation
keep_index(QmlSearchPlan *plan, Relation index)
{
	if (index)
		plan->indexes = lappend(plan->indexes, index);
	return index;
}

/* The index of this kind; NULL: there is none. */
static Relation
open_kind(Planner *planner, QmlSearchTable *table, QmlSearchIndex kind)
{
	return keep_index(planner->plan, qml_search_index_open(table->table.rel, kind));
}

static void
add_stream(Planner *planner, QmlSearchStream *stream)
{
	QmlSearchPlan *plan = planner->plan;

	if (plan->nstreams == plan->room)
	{
		plan->room *= 2;
		plan->streams = repalloc(plan->streams, sizeof(QmlSearchStream *) * plan->room);
	}
	plan->streams[plan->nstreams++] = stream;
}

/* Whether there may be one more, if there need not: each keeps a page of the buffers pinned. */
static bool
has_room(const Planner *planner)
{
	return planner->plan->nstreams < Min(MOST_STREAMS, NBuffers / 4);
}

/* Gives up the streams of a table, of which there are too many. */
static void
drop_streams(Planner *planner, int first)
{
	QmlSearchPlan *plan = planner->plan;

	while (plan->nstreams > first)
		qml_stream_close(plan->streams[--plan->nstreams]);
}

static void
add_own(Planner *planner, QmlSearchTable *table, const QmlStreamFilter *filter)
{
	Relation index = open_kind(planner, table,
							   table->live ? QML_SEARCH_LIVE_BY_OWN : QML_SEARCH_BY_OWN);
	ScanKeyData keys[QML_STREAM_MAX_KEYS];

	if (index == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" has no index of jobs with ids of their own", QML_SCHEMA,
						RelationGetRelationName(table->table.rel)),
				 errhint("Create one: CREATE INDEX ON %s.%s (qml.search_order(id, created_at)%s) "
						 "WHERE qml.search_own(id, created_at).",
						 QML_SCHEMA, RelationGetRelationName(table->table.rel),
						 table->live ? ", queue_id" : "")));
	add_stream(planner, qml_stream_open(table, index, filter, keys,
										qml_stream_add_order_keys(keys, 1, &table->bounds)));
}

/* The walk over all jobs of the table. */
static void
add_walk(Planner *planner, QmlSearchTable *table, Relation ids, const QmlStreamFilter *filter)
{
	QmlStreamFilter by_id = *filter;
	ScanKeyData keys[QML_STREAM_MAX_KEYS];

	by_id.by_id = 1;
	add_stream(planner, qml_stream_open(table, ids, &by_id, keys,
										qml_stream_add_id_keys(keys, 1, &table->bounds)));
	add_own(planner, table, filter);
}

/* Jobs of these ids, by the index on ids. */
static void
add_ids(Planner *planner, QmlSearchTable *table, Relation ids, const pg_uuid_t **wanted, int count)
{
	HeapTuple *rows = NULL;
	int nrows = 0;
	int room = 0;
	IndexScanDesc scan = qml_index_beginscan(table->table.rel, ids, table->bounds.snapshot, 1);

	for (int i = 0; i < count; i++)
	{
		ScanKeyData key;

		CHECK_FOR_INTERRUPTS();
		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(wanted[i]));
		index_rescan(scan, &key, 1, NULL, 0);
		/* An id may be there more than once, but unexpired only once. */
		while (index_getnext_slot(scan, ForwardScanDirection, table->table.slot))
		{
			if (nrows == room)
			{
				room = Max(room * 2, 16);
				rows = rows ? repalloc(rows, sizeof(HeapTuple) * room) :
							  palloc(sizeof(HeapTuple) * room);
			}
			rows[nrows++] = ExecCopySlotHeapTuple(table->table.slot);
		}
	}
	index_endscan(scan);
	add_stream(planner, qml_stream_of_rows(table, rows, nrows));
}

/* ----- by queue and method ----- */

/* One stream for a key of (key, order). */
static void
add_key(Planner *planner, QmlSearchTable *table, Relation index, const QmlStreamFilter *filter,
		int64 key)
{
	ScanKeyData keys[QML_STREAM_MAX_KEYS];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(key));
	add_stream(planner,
			   qml_stream_open(table, index, filter, keys,
							   1 + qml_stream_add_order_keys(&keys[1], 2, &table->bounds)));
}

/* All keys of a queue; false: there are too many. */
static bool
add_keys_of_queue(Planner *planner, QmlSearchTable *table, Relation index,
				  const QmlStreamFilter *filter, int queue)
{
	int64 first = qml_search_index_first_key(queue);
	int64 key = qml_search_index_last_key(queue);

	for (;;)
	{
		QmlSearchStream *stream;

		if (!has_room(planner))
			return false;
		stream = qml_stream_open_last_key(table, index, filter, first, key, &key);
		if (stream == NULL)
			return true;
		add_stream(planner, stream);
		if (key == first)
			return true;
		key--;
	}
}

/* The given methods in a queue; false: there is no room. */
static bool
add_methods_of_queue(Planner *planner, QmlSearchTable *table, Relation index,
					 const QmlStreamFilter *filter, int queue)
{
	for (int i = 0; i < planner->demand.nmethods; i++)
	{
		if (!has_room(planner))
			return false;
		add_key(planner, table, index, filter,
				qml_search_index_first_key(queue) + planner->demand.methods[i]);
	}
	return true;
}

/* The last queue in an index of (key, order) that is at most this one; false: none. */
static bool
find_queue(QmlSearchTable *table, Relation index, int64 last_key, int *queue)
{
	IndexScanDesc scan = qml_index_beginscan(table->table.rel, index, table->bounds.snapshot, 1);
	ScanKeyData key;
	bool found;
	bool isnull;

	scan->xs_want_itup = true;
	ScanKeyInit(&key, 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(last_key));
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_tid(scan, BackwardScanDirection) != NULL;
	if (found)
		*queue = (int) (DatumGetInt64(
							index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull)) >>
						32);
	index_endscan(scan);
	return found;
}

/* The given methods in whatever queues they are; false: there are too many. */
static bool
add_methods(Planner *planner, QmlSearchTable *table, Relation index, const QmlStreamFilter *filter)
{
	int64 key = PG_INT64_MAX;
	int queue;

	while (find_queue(table, index, key, &queue))
	{
		if (!add_methods_of_queue(planner, table, index, filter, queue))
			return false;
		key = qml_search_index_first_key(queue);
		if (key == PG_INT64_MIN)
			break;
		key--;
	}
	return true;
}

/* By an index of (key, order); false: streams would be too many, and none is there. */
static bool
add_keys(Planner *planner, QmlSearchTable *table, Relation index, const QmlStreamFilter *filter)
{
	const QmlSearchDemand *demand = &planner->demand;
	int first = planner->plan->nstreams;
	bool done = true;

	if (!demand->has_queues)
		done = add_methods(planner, table, index, filter);
	for (int i = 0; done && i < demand->nqueues; i++)
	{
		if (demand->nmethods > 0)
			done = add_methods_of_queue(planner, table, index, filter, demand->queues[i]);
		else
			done = add_keys_of_queue(planner, table, index, filter, demand->queues[i]);
	}
	if (!done)
		drop_streams(planner, first);
	return done;
}

/* ----- unfinished jobs ----- */

/*
 * Goes on to the next priority of a queue, or to the first of the next queue, in the index of ready
 * jobs, unless `only` that queue; false: there is none.
 */
static bool
next_segment(QmlSearchTable *table, Relation ready, bool only, bool *begun, int *queue,
			 int *priority)
{
	IndexScanDesc scan = qml_index_beginscan(table->table.rel, ready, table->bounds.snapshot, 2);
	ScanKeyData keys[2];
	ItemPointer found = NULL;
	bool isnull;

	scan->xs_want_itup = true;
	ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, F_INT4LE,
				Int32GetDatum(*begun ? *priority - 1 : PG_INT32_MAX));
	if ((*begun || only) && !(*begun && *priority == PG_INT32_MIN))
	{
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(*queue));
		index_rescan(scan, keys, 2, NULL, 0);
		found = index_getnext_tid(scan, ForwardScanDirection);
	}
	if (found == NULL && !only && !(*begun && *queue == PG_INT32_MAX))
	{
		ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_INT4GE,
					Int32GetDatum(*begun ? *queue + 1 : PG_INT32_MIN));
		ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, F_INT4LE, Int32GetDatum(PG_INT32_MAX));
		index_rescan(scan, keys, 2, NULL, 0);
		found = index_getnext_tid(scan, ForwardScanDirection);
	}
	if (found)
	{
		*queue = DatumGetInt32(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull));
		*priority = DatumGetInt32(index_getattr(scan->xs_itup, 2, scan->xs_itupdesc, &isnull));
		*begun = true;
	}
	index_endscan(scan);
	return found != NULL;
}

/* Ready jobs of one queue, or of all; false: there are too many priorities. */
static bool
add_ready(Planner *planner, QmlSearchTable *table, Relation ready, const int *only)
{
	const QmlStreamFilter filter = {.by_id = 3};
	int queue = only ? *only : 0;
	int priority = 0;
	bool begun = false;

	while (next_segment(table, ready, only != NULL, &begun, &queue, &priority))
	{
		ScanKeyData keys[QML_STREAM_MAX_KEYS];

		if (!has_room(planner))
			return false;
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue));
		ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(priority));
		add_stream(planner,
				   qml_stream_open(table, ready, &filter, keys,
								   2 + qml_stream_add_id_keys(&keys[2], 3, &table->bounds)));
	}
	return true;
}

/* Jobs of a queue that are not ready; false: there is no room. */
static bool
add_later(Planner *planner, QmlSearchTable *table, Relation later, int queue)
{
	const QmlStreamFilter filter = {0};
	ScanKeyData keys[QML_STREAM_MAX_KEYS];

	if (!has_room(planner))
		return false;
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue));
	add_stream(planner,
			   qml_stream_open(table, later, &filter, keys,
							   1 + qml_stream_add_order_keys(&keys[1], 2, &table->bounds)));
	return true;
}

/* The same of all queues. */
static bool
add_all_later(Planner *planner, QmlSearchTable *table, Relation later)
{
	IndexScanDesc scan = qml_index_beginscan(table->table.rel, later, table->bounds.snapshot, 1);
	bool done = true;
	int queue = PG_INT32_MIN;

	scan->xs_want_itup = true;
	while (done)
	{
		ScanKeyData key;
		bool isnull;

		ScanKeyInit(&key, 1, BTGreaterEqualStrategyNumber, F_INT4GE, Int32GetDatum(queue));
		index_rescan(scan, &key, 1, NULL, 0);
		if (index_getnext_tid(scan, ForwardScanDirection) == NULL)
			break;
		queue = DatumGetInt32(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull));
		done = add_later(planner, table, later, queue);
		if (queue == PG_INT32_MAX)
			break;
		queue++;
	}
	index_endscan(scan);
	return done;
}

/* Those that are ready, and those that are not, of the queues that are demanded, or of all. */
static bool
add_live_parts(Planner *planner, QmlSearchTable *table, Relation ready, int states)
{
	const QmlSearchDemand *demand = &planner->demand;
	const QmlStreamFilter only_ready = {.only_ready = true,
										.nqueues = demand->nqueues,
										.queues = demand->queues,
										.has_queue = true};
	int first = planner->plan->nstreams;
	bool done = true;

	if (states & QML_LATER_STATES)
	{
		Relation later = open_kind(planner, table, QML_SEARCH_LIVE_LATER);

		done = later != NULL;
		if (done && !demand->has_queues)
			done = add_all_later(planner, table, later);
		for (int i = 0; done && i < demand->nqueues; i++)
			done = add_later(planner, table, later, demand->queues[i]);
	}
	if (done && (states & QML_READY_STATES))
	{
		if (!demand->has_queues)
			done = add_ready(planner, table, ready, NULL);
		for (int i = 0; done && i < demand->nqueues; i++)
			done = add_ready(planner, table, ready, &demand->queues[i]);
		if (done)
			add_own(planner, table, &only_ready);
	}
	if (!done)
		drop_streams(planner, first);
	return done;
}

/*
 * Adds the jobs that run, as far as they are known, to those of the plan; false: they are not all
 * known, or too many.  What this transaction has claimed itself is not known there.
 */
static bool
read_running(QmlSearchPlan *plan)
{
	int count;

	if (IsolationUsesXactSnapshot() || qml_lease_notes_exist() || !qml_lease_table_is_known())
		return false;
	if (plan->running == NULL)
		plan->running = palloc(sizeof(pg_uuid_t) * 2 * (MOST_RUNNING + 1));
	count = qml_lease_table_jobs(plan->running + plan->nrunning, MOST_RUNNING + 1);
	plan->nrunning += count;
	return count <= MOST_RUNNING;
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(pg_uuid_t));
}

/* Jobs that run, by what is known of running claims; false: that is not all, or too much. */
static bool
add_running(Planner *planner, QmlSearchTable *table, Relation ids)
{
	QmlSearchPlan *plan = planner->plan;
	const pg_uuid_t **wanted;
	int count = 0;

	if (plan->knows_running && !planner->has_running)
	{
		plan->knows_running = read_running(plan);
		qsort(plan->running, plan->nrunning, sizeof(pg_uuid_t), compare_ids);
		planner->has_running = true;
	}
	if (!plan->knows_running)
		return false;
	wanted = palloc(sizeof(pg_uuid_t *) * Max(plan->nrunning, 1));
	for (int i = 0; i < plan->nrunning; i++)
	{
		if (i == 0 || compare_ids(&plan->running[i], &plan->running[i - 1]) != 0)
			wanted[count++] = &plan->running[i];
	}
	add_ids(planner, table, ids, wanted, count);
	return true;
}

/*
 * Whether jobs in these states are all ready, or all not, and few of the unfinished ones: the walk
 * would pass over all others.
 */
static bool
are_few(Planner *planner, int states)
{
	if ((states & QML_READY_STATES) && (states & QML_LATER_STATES))
		return false;
	if (!has_counts(planner))
		return states == (states & QML_LATER_STATES);
	return count_jobs(planner, QML_LIVE_STATES, false) > 8 * count_jobs(planner, states, false);
}

static void
plan_live(Planner *planner, QmlStoreId store)
{
	const QmlStreamFilter none = {0};
	const QmlSearchDemand *demand = &planner->demand;
	int states = demand->states & QML_LIVE_STATES;
	QmlSearchTable *table;
	Relation ids;
	Relation ready;
	Relation by_key = NULL;

	if (states == 0)
		return;
	table = open_table(planner, store, qml_store(store)->live, true);
	ids = keep_index(planner->plan, index_open(qml_store(store)->live_pkey, AccessShareLock));
	if (demand->has_ids)
	{
		add_ids(planner, table, ids, demand->ids, demand->nids);
		return;
	}
	if (states == QML_STATE_BIT(QML_PROCESSING) && add_running(planner, table, ids))
		return;
	if (demand->nmethods > 0)
		by_key = open_kind(planner, table, QML_SEARCH_LIVE_BY_KEY);
	if (by_key && add_keys(planner, table, by_key, &none))
		return;
	ready = keep_index(planner->plan, index_open(qml_store(store)->live_ready, AccessShareLock));
	if ((demand->has_queues || are_few(planner, states)) &&
		add_live_parts(planner, table, ready, states))
		return;
	add_walk(planner, table, ids, &none);
}

/* ----- finished jobs ----- */

/*
 * Jobs that took long and ended when it is demanded, as a list, so that the others need not be sought
 * further back than a minute before.  False: there are too many, or no index.
 */
static bool
add_slow(Planner *planner, QmlSearchTable *table)
{
	const QmlSearchDemand *demand = &planner->demand;
	Relation index;
	HeapTuple *rows;
	IndexScanDesc scan;
	ScanKeyData keys[2];
	int count = 0;

	if (demand->first_end == PG_INT64_MIN)
		return false;
	index = open_kind(planner, table, QML_SEARCH_BY_END);
	if (index == NULL)
		return false;
	rows = palloc(sizeof(HeapTuple) * (MOST_SLOW + 1));
	scan = qml_index_beginscan(table->table.rel, index, table->bounds.snapshot, 2);
	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(demand->first_end));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(demand->last_end));
	index_rescan(scan, keys, 2, NULL, 0);
	while (count <= MOST_SLOW && index_getnext_slot(scan, ForwardScanDirection, table->table.slot))
	{
		CHECK_FOR_INTERRUPTS();
		rows[count++] = ExecCopySlotHeapTuple(table->table.slot);
	}
	index_endscan(scan);
	if (count > MOST_SLOW)
	{
		for (int i = 0; i < count; i++)
			heap_freetuple(rows[i]);
		return false;
	}
	add_stream(planner, qml_stream_of_rows(table, rows, count));
	table->bounds.first = Max(table->bounds.first,
							  qml_order_earliest(demand->first_end - QML_ORDER_SLOW));
	return true;
}

/* Failed and deleted jobs. */
static bool
add_states(Planner *planner, QmlSearchTable *table, const QmlStreamFilter *filter)
{
	const QmlSearchDemand *demand = &planner->demand;
	Relation index = open_kind(planner, table, QML_SEARCH_BY_STATE);
	QmlStreamFilter with_keys = *filter;

	if (index == NULL)
		return false;
	with_keys.nqueues = demand->nqueues;
	with_keys.queues = demand->queues;
	with_keys.nmethods = demand->nmethods;
	with_keys.methods = demand->methods;
	for (int state = 0; state < QML_STATES; state++)
	{
		ScanKeyData keys[QML_STREAM_MAX_KEYS];

		if (!qml_state_is_final(state) || (demand->states & QML_STATE_BIT(state)) == 0)
			continue;
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_ENUM_EQ,
					ObjectIdGetDatum(qml_catalog()->states[state]));
		add_stream(planner,
				   qml_stream_open(table, index, &with_keys, keys,
								   1 + qml_stream_add_order_keys(&keys[1], 2, &table->bounds)));
	}
	return true;
}

/*
 * Whether the jobs of the demanded queues, whatever became of them, are less to read than what the
 * index by state has, most of which may be of other queues.
 */
static bool
are_queues_less(Planner *planner)
{
	const QmlSearchDemand *demand = &planner->demand;
	int finished = QML_ALL_STATES & ~QML_LIVE_STATES;

	return demand->has_queues && has_counts(planner) &&
		   count_jobs(planner, finished, true) <
			   count_jobs(planner, demand->states & finished, false) / QML_STREAM_ENTRIES;
}

/* Of a partition, or of the overflow. */
static void
plan_finished(Planner *planner, QmlStoreId store, Oid relid)
{
	const QmlSearchDemand *demand = &planner->demand;
	QmlSearchTable *table = open_table(planner, store, relid, false);
	QmlStreamFilter filter = {0};
	Relation ids;
	Relation by_key = NULL;
	bool by_state;

	if (table == NULL)
		return;
	if (demand->has_ids)
	{
		ids = keep_index(planner->plan, qml_history_open_index(store, table->table.rel));
		add_ids(planner, table, ids, demand->ids, demand->nids);
		return;
	}
	filter.only_quick = add_slow(planner, table);
	by_state = (demand->states & QML_STATE_BIT(QML_SUCCEEDED)) == 0;
	if (by_state && !are_queues_less(planner) && add_states(planner, table, &filter))
		return;
	if (demand->has_queues || demand->nmethods > 0)
		by_key = open_kind(planner, table, QML_SEARCH_BY_KEY);
	if (by_key && add_keys(planner, table, by_key, &filter))
		return;
	if (by_state && add_states(planner, table, &filter))
		return;
	ids = keep_index(planner->plan, qml_history_open_index(store, table->table.rel));
	add_walk(planner, table, ids, &filter);
}

static void
plan_history(Planner *planner, QmlStoreId store)
{
	Oid *places;
	int count = qml_history_places(store, &places);

	for (int i = 0; i < count; i++)
		plan_finished(planner, store, places[i]);
}

/* Begins a plan, in the current memory context, before the snapshot is taken. */
QmlSearchPlan *
qml_search_plan_begin(const QmlSearch *search, TimestampTz now)
{
	QmlSearchPlan *plan = palloc0(sizeof(QmlSearchPlan));
	int states = qml_search_demand_states(search) & QML_LIVE_STATES;

	plan->search = search;
	plan->now = now;
	if (states == QML_STATE_BIT(QML_PROCESSING))
		plan->knows_running = read_running(plan);
	return plan;
}

/*
 * Opens the streams.  The snapshot was taken before tables are looked up: a partition that is made
 * afterwards has nothing that it sees.
 */
void
qml_search_plan_open(QmlSearchPlan *plan, Snapshot snapshot)
{
	Planner planner = {.plan = plan};
	bool finished;

	plan->snapshot = snapshot;
	qml_search_demand_read(&planner.demand, plan->search);
	if (qml_search_demand_is_impossible(&planner.demand))
		return;
	finished = (planner.demand.states & ~QML_LIVE_STATES) != 0;
	plan->room = 64;
	plan->streams = palloc(sizeof(QmlSearchStream *) * plan->room);
	for (int i = 0; i < qml_stores_in_use(); i++)
	{
		plan_live(&planner, i);
		if (finished)
			plan_history(&planner, i);
	}
}

/* Closes all that was opened.  The locks on partitions are given back, so that they can be dropped. */
void
qml_search_plan_close(QmlSearchPlan *plan)
{
	ListCell *lc;

	for (int i = 0; i < plan->nstreams; i++)
		qml_stream_close(plan->streams[i]);
	foreach(lc, plan->indexes)
		index_close(lfirst(lc), AccessShareLock);
	foreach(lc, plan->tables)
	{
		QmlSearchTable *table = lfirst(lc);
		Oid relid = RelationGetRelid(table->table.rel);

		ExecDropSingleTupleTableSlot(table->head);
		qml_table_close(&table->table);
		if (!table->live)
			UnlockRelationOid(relid, AccessShareLock);
	}
}
