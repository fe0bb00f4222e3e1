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
 * `created:` bounds the walk, and so does `finished:`, because no job ends before it is created.  How
 * long before its end a job was created is not known, but most are quick: those that took long are in an
 * index of their own by their end, and the others cannot have been created earlier than a minute
 * before the first end that is sought.
 *
 * States that no job has, as the counters in shared memory know it, are not sought.  They are of the
 * present, as is what is known of running claims: neither is asked in REPEATABLE READ.
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
#include "jobs/search_plan.h"
#include "model/columns.h"
#include "model/queue.h"
#include "model/search_index.h"

#define BIT(state)	 (1 << (state))
#define ALL_STATES	 ((1 << QML_STATES) - 1)
#define READY_STATES (BIT(QML_ENQUEUED) | BIT(QML_PROCESSING))
#define LATER_STATES (BIT(QML_SCHEDULED) | BIT(QML_AWAITING_RETRY) | BIT(QML_AWAITING_PARENTS))
#define LIVE_STATES	 (READY_STATES | LATER_STATES)

/* Streams for queues and methods that a search has at most. */
#define MOST_STREAMS 512

/* Running jobs that are read one by one, and slow jobs that are read and sorted. */
#define MOST_RUNNING 2000
#define MOST_SLOW	 2000

/* What the query demands of every job. */
typedef struct Demand
{
	int states; /* bits */
	bool has_ids;
	int nids;
	const pg_uuid_t **ids;
	bool has_queues;
	int nqueues;
	int *queues;
	int nmethods; /* 0: any */
	uint32 *methods;
	bool has_end; /* it is finished, and */
	TimestampTz first_end;
	TimestampTz last_end;
	TimestampTz first_created;
	TimestampTz last_created;
} Demand;

typedef struct Planner
{
	QmlSearchPlan *plan;
	Demand demand;
	bool is_present; /* what shared memory says counts */
	bool has_counts;
	int64 counts[QML_STATES];
} Planner;

/* ----- what the query demands ----- */

static void
demand_states(Demand *demand, const QmlSearchQuery *query, const QmlSearchTerm *term)
{
	int states = 0;

	for (int i = 0; i < term->nvalues; i++)
		states |= BIT(query->values[term->first_value + i].state);
	demand->states &= term->negated ? ~states : states;
}

static void
demand_ids(Demand *demand, const QmlSearchQuery *query, const QmlSearchTerm *term)
{
	if (demand->has_ids)
		return;
	demand->has_ids = true;
	demand->ids = palloc(sizeof(pg_uuid_t *) * term->nvalues);
	for (int i = 0; i < term->nvalues; i++)
	{
		const pg_uuid_t *id = (const pg_uuid_t *) query->values[term->first_value + i].id;
		bool known = false;

		for (int j = 0; j < demand->nids; j++)
			known = known || memcmp(demand->ids[j], id, UUID_LEN) == 0;
		if (!known)
			demand->ids[demand->nids++] = id;
	}
}

/* Queues that were dropped have finished jobs. */
static void
demand_queues(Demand *demand, const QmlSearchQuery *query, const QmlSearchTerm *term)
{
	List *queues = qml_queue_all();
	ListCell *lc;

	if (demand->has_queues)
		return;
	demand->has_queues = true;
	demand->queues = palloc(sizeof(int) * list_length(queues));
	foreach(lc, queues)
	{
		const QmlQueue *queue = lfirst(lc);
		bool wanted = false;

		for (int i = 0; i < term->nvalues; i++)
			wanted = wanted || strcmp(queue->name, query->values[term->first_value + i].text) == 0;
		if (wanted)
			demand->queues[demand->nqueues++] = queue->id;
	}
}

static void
demand_methods(Demand *demand, const QmlSearchQuery *query, const QmlSearchTerm *term)
{
	if (demand->nmethods > 0)
		return;
	demand->methods = palloc(sizeof(uint32) * term->nvalues);
	for (int i = 0; i < term->nvalues; i++)
	{
		uint32 method = qml_search_index_method(
			CStringGetTextDatum(query->values[term->first_value + i].text));
		bool known = false;

		for (int j = 0; j < demand->nmethods; j++)
			known = known || demand->methods[j] == method;
		if (!known)
			demand->methods[demand->nmethods++] = method;
	}
}

static void
demand_times(const QmlSearchQuery *query, const QmlSearchTerm *term, TimestampTz *first,
			 TimestampTz *last)
{
	TimestampTz low = PG_INT64_MAX;
	TimestampTz high = PG_INT64_MIN;

	for (int i = 0; i < term->nvalues; i++)
	{
		low = Min(low, query->values[term->first_value + i].low);
		high = Max(high, query->values[term->first_value + i].high);
	}
	*first = Max(*first, low);
	*last = Min(*last, high);
}

static void
read_demand(Demand *demand, const QmlSearch *search)
{
	const QmlSearchQuery *query = &search->compiled->query;

	demand->states = search->states != 0 ? search->states : ALL_STATES;
	if (search->ids)
	{
		demand->has_ids = true;
		demand->nids = search->nids;
		demand->ids = palloc(sizeof(pg_uuid_t *) * Max(search->nids, 1));
		for (int i = 0; i < search->nids; i++)
			demand->ids[i] = &search->ids[i];
	}
	demand->first_end = demand->first_created = PG_INT64_MIN;
	demand->last_end = demand->last_created = PG_INT64_MAX;
	if (search->created_by != 0)
		demand->last_created = search->created_by;
	for (int i = 0; i < query->nterms; i++)
	{
		const QmlSearchTerm *term = &query->terms[i];

		if (term->field == QML_SEARCH_STATE)
			demand_states(demand, query, term);
		if (term->negated)
			continue;
		if (term->field == QML_SEARCH_ID)
			demand_ids(demand, query, term);
		else if (term->field == QML_SEARCH_QUEUE)
			demand_queues(demand, query, term);
		else if (term->field == QML_SEARCH_METHOD)
			demand_methods(demand, query, term);
		else if (term->field == QML_SEARCH_CREATED)
			demand_times(query, term, &demand->first_created, &demand->last_created);
		else if (term->field == QML_SEARCH_FINISHED)
		{
			demand->has_end = true;
			demand_times(query, term, &demand->first_end, &demand->last_end);
		}
	}
	if (demand->has_end)
		demand->states &= ~LIVE_STATES;
}

/* Whether no job can match. */
static bool
is_impossible(const Demand *demand)
{
	return demand->states == 0 || (demand->has_queues && demand->nqueues == 0) ||
		   demand->first_end > demand->last_end || demand->first_created > demand->last_created;
}

/* ----- tables and streams ----- */

static QmlSearchTable *
open_table(Planner *planner, QmlStoreId store, Oid relid, bool live)
{
	QmlSearchPlan *plan = planner->plan;
	const QmlSearch *search = plan->search;
	const Demand *demand = &planner->demand;
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
	bounds->last = qml_order_latest(Min(demand->last_created, demand->last_end));
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
				 errhint("Create one: CREATE INDEX ON %s.%s (qml.search_order(id, created_at)) "
						 "WHERE qml.search_own(id, created_at).",
						 QML_SCHEMA, RelationGetRelationName(table->table.rel))));
	add_stream(planner, qml_stream_open(table, index, filter, keys,
										qml_stream_add_order_keys(keys, 1, &table->bounds)));
}

/* The walk over all jobs of the table. */
static void
add_walk(Planner *planner, QmlSearchTable *table, Relation ids, const QmlStreamFilter *filter)
{
	QmlStreamFilter by_id = *filter;
	ScanKeyData keys[QML_STREAM_MAX_KEYS];

	by_id.by_id = true;
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
	const Demand *demand = &planner->demand;
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
	const QmlStreamFilter filter = {.by_id = true};
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
	const QmlStreamFilter only_ready = {.only_ready = true};
	const Demand *demand = &planner->demand;
	int first = planner->plan->nstreams;
	bool done = true;

	if (states & LATER_STATES)
	{
		Relation later = open_kind(planner, table, QML_SEARCH_LIVE_LATER);

		done = later != NULL;
		if (done && !demand->has_queues)
			done = add_all_later(planner, table, later);
		for (int i = 0; done && i < demand->nqueues; i++)
			done = add_later(planner, table, later, demand->queues[i]);
	}
	if (done && (states & READY_STATES))
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
 * Jobs that run, by what is known of running claims; false: that is not all, or too much.  What this
 * transaction has claimed itself is not known there.
 */
static bool
add_running(Planner *planner, QmlSearchTable *table, Relation ids)
{
	pg_uuid_t *jobs;
	const pg_uuid_t **wanted;
	int count;

	if (!planner->is_present || qml_lease_notes_exist() || !qml_lease_table_is_known())
		return false;
	jobs = palloc(sizeof(pg_uuid_t) * (MOST_RUNNING + 1));
	count = qml_lease_table_jobs(jobs, MOST_RUNNING + 1);
	if (count > MOST_RUNNING)
		return false;
	wanted = palloc(sizeof(pg_uuid_t *) * Max(count, 1));
	for (int i = 0; i < count; i++)
		wanted[i] = &jobs[i];
	add_ids(planner, table, ids, wanted, count);
	return true;
}

static int64
count_states(const Planner *planner, int states)
{
	int64 count = 0;

	for (int state = 0; state < QML_STATES; state++)
		count += states & BIT(state) ? planner->counts[state] : 0;
	return count;
}

/*
 * Whether jobs in these states are all ready, or all not, and few of the unfinished ones: the walk
 * would pass over all others.
 */
static bool
are_few(const Planner *planner, int states)
{
	if ((states & READY_STATES) && (states & LATER_STATES))
		return false;
	if (!planner->has_counts)
		return states == (states & LATER_STATES);
	return count_states(planner, LIVE_STATES) > 8 * count_states(planner, states);
}

static void
plan_live(Planner *planner, QmlStoreId store)
{
	const QmlStreamFilter none = {0};
	const Demand *demand = &planner->demand;
	int states = demand->states & LIVE_STATES;
	QmlSearchTable *table;
	Relation ids;
	Relation ready;
	Relation by_key = NULL;

	for (int state = 0; planner->has_counts && state < QML_STATES; state++)
	{
		if (planner->counts[state] <= 0)
			states &= ~BIT(state);
	}
	if (states == 0)
		return;
	table = open_table(planner, store, qml_store(store)->live, true);
	ids = keep_index(planner->plan, index_open(qml_store(store)->live_pkey, AccessShareLock));
	if (demand->has_ids)
	{
		add_ids(planner, table, ids, demand->ids, demand->nids);
		return;
	}
	if (states == BIT(QML_PROCESSING) && add_running(planner, table, ids))
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
	const Demand *demand = &planner->demand;
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
	const Demand *demand = &planner->demand;
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

		if (!qml_state_is_final(state) || (demand->states & BIT(state)) == 0)
			continue;
		ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_ENUM_EQ,
					ObjectIdGetDatum(qml_catalog()->states[state]));
		add_stream(planner,
				   qml_stream_open(table, index, &with_keys, keys,
								   1 + qml_stream_add_order_keys(&keys[1], 2, &table->bounds)));
	}
	return true;
}

/* Of a partition, or of the overflow. */
static void
plan_finished(Planner *planner, QmlStoreId store, Oid relid)
{
	const Demand *demand = &planner->demand;
	QmlSearchTable *table = open_table(planner, store, relid, false);
	QmlStreamFilter filter = {0};
	Relation ids;
	Relation by_key = NULL;

	if (table == NULL)
		return;
	if (demand->has_ids)
	{
		ids = keep_index(planner->plan, qml_history_open_index(store, table->table.rel));
		add_ids(planner, table, ids, demand->ids, demand->nids);
		return;
	}
	filter.only_quick = add_slow(planner, table);
	if ((demand->states & BIT(QML_SUCCEEDED)) == 0 && add_states(planner, table, &filter))
		return;
	if (demand->has_queues || demand->nmethods > 0)
		by_key = open_kind(planner, table, QML_SEARCH_BY_KEY);
	if (by_key && add_keys(planner, table, by_key, &filter))
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

/*
 * Opens the streams, in the current memory context.  The snapshot was taken before tables are looked
 * up: a partition that is made afterwards has nothing that it sees.
 */
QmlSearchPlan *
qml_search_plan(const QmlSearch *search, Snapshot snapshot)
{
	Planner planner = {.is_present = !IsolationUsesXactSnapshot()};
	QmlSearchPlan *plan = palloc0(sizeof(QmlSearchPlan));
	bool finished;

	plan->search = search;
	plan->snapshot = snapshot;
	planner.plan = plan;
	read_demand(&planner.demand, search);
	if (is_impossible(&planner.demand))
		return plan;
	finished = (planner.demand.states & ~LIVE_STATES) != 0;
	if ((planner.demand.states & LIVE_STATES) && !planner.demand.has_ids && planner.is_present)
		planner.has_counts = qml_counts_states(planner.counts);
	plan->room = 64;
	plan->streams = palloc(sizeof(QmlSearchStream *) * plan->room);
	for (int i = 0; i < qml_stores_in_use(); i++)
	{
		plan_live(&planner, i);
		if (finished)
			plan_history(&planner, i);
	}
	return plan;
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
