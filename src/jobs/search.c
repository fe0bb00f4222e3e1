/*
 * search.c
 *		Searching jobs: the newest first.
 *
 * The streams that search_plan.c has chosen are merged, so that jobs come in one order over all tables, and
 * each is asked whether it matches.  Everything is read with one snapshot: a job that moves between
 * tables meanwhile is seen once.  Nothing is changed, and it works on a standby.
 *
 * The order of a job never changes, so a page that begins behind a job of the page before neither
 * repeats nor leaves out what changes meanwhile.
 *
 * A search can look at so many unfinished jobs, and at so many finished ones.  It ends where it has looked
 * at as many finished ones; what it has shown by then is complete up to that place.  Unfinished ones
 * are given up there alone, if finished ones are sought, too: a backlog must not hide what has
 * finished.  Either is told.
 */
#include "postgres.h"

#include "lib/binaryheap.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "storage/lmgr.h"
#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/fault.h"
#include "common/suggest.h"
#include "core/search_order.h"
#include "core/state.h"
#include "errcodes.h"
#include "jobs/history.h"
#include "jobs/lookup.h"
#include "jobs/search.h"
#include "jobs/search_match.h"
#include "jobs/search_plan.h"
#include "model/catalog.h"
#include "model/queue.h"

/* Bytes of a part of a query that are shown when it is wrong. */
#define MOST_SHOWN 63

/* ----- reading a query ----- */

/* QmlSearchClock.instant */
static bool
find_instant(const QmlSearchClock *clock, const QmlSearchCivil *civil, int64_t *at)
{
	struct pg_tm tm = {.tm_year = civil->year,
					   .tm_mon = civil->month,
					   .tm_mday = civil->day,
					   .tm_hour = civil->hour,
					   .tm_min = civil->minute,
					   .tm_sec = civil->second};
	int west = civil->has_zone ? -civil->offset : DetermineTimeZoneOffset(&tm, clock->zone);
	Timestamp time;

	if (tm2timestamp(&tm, civil->microsecond, &west, &time) != 0)
		return false;
	*at = time;
	return true;
}

/* The part of a query that is wrong, in whole characters, perhaps cut; empty: none. */
static char *
copy_part(const char *query, const QmlSearchError *error)
{
	const char *part = query + error->position;
	int length = 0;

	while (length < error->length)
		length += pg_mblen(part + length);
	return pnstrdup(part, pg_mbcliplen(part, length, MOST_SHOWN));
}

static void
raise_invalid(const char *query, const QmlSearchError *error)
{
	int position = pg_mbstrlen_with_len(query, error->position) + 1;
	char *part = copy_part(query, error);
	const char *question = "";

	if (error->names)
	{
		QmlSuggestion suggestion;

		qml_suggest_begin(&suggestion, part);
		for (int i = 0; error->names[i]; i++)
			qml_suggest_consider(&suggestion, error->names[i]);
		question = qml_suggest_question(&suggestion);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 *part ? errmsg("invalid query at position %d, \"%s\": %s", position, part,
							error->reason) :
					 errmsg("invalid query at position %d: %s", position, error->reason),
			 error->allowed || *question ?
				 errhint("%s%s", question, error->allowed ? error->allowed : "") :
				 0,
			 /* Programs find the position here, and psql points to it. */
			 internalerrquery(query), internalerrposition(position)));
}

/*
 * Reads a query, in the current memory context.  now: what its relative times are counted from;
 * zone: that of its local times.
 */
QmlSearchCompiled *
qml_search_compile_in_zone(const char *query, TimestampTz now, pg_tz *zone)
{
	QmlSearchCompiled *compiled = palloc(sizeof(QmlSearchCompiled));
	QmlSearchClock clock = {.now = now, .instant = find_instant, .zone = zone};
	QmlSearchError error;

	compiled->now = now;
	if (!qml_search_parse(query, &clock, &compiled->query, &error))
		raise_invalid(query, &error);
	return compiled;
}

/* The same in the zone of the session. */
QmlSearchCompiled *
qml_search_compile(const char *query, TimestampTz now)
{
	return qml_search_compile_in_zone(query, now, session_timezone);
}

/* Whether all jobs match. */
bool
qml_search_is_empty(const QmlSearchCompiled *compiled)
{
	return compiled->query.nterms == 0;
}

/* The names of the queues in which alone jobs can match; NIL: the query names none. */
List *
qml_search_queues(const QmlSearchCompiled *compiled)
{
	const QmlSearchQuery *query = &compiled->query;
	List *names = NIL;

	for (int i = 0; i < query->nterms && names == NIL; i++)
	{
		const QmlSearchTerm *term = &query->terms[i];

		for (int j = 0; term->field == QML_SEARCH_QUEUE && !term->negated && j < term->nvalues; j++)
			names = lappend(names, pstrdup(query->values[term->first_value + j].text));
	}
	return names;
}

/* ----- places ----- */

/* Where a job stands. */
QmlSearchPlace
qml_search_place(const QmlJob *job)
{
	QmlSearchPlace place = {.order = qml_order_of(job->id.data, job->created_at), .id = job->id};

	return place;
}

/* Reads the job of this id; false: there is none. */
static bool
read_job(const pg_uuid_t *id, Snapshot snapshot, QmlAccess (*access)(const QmlJob *job, void *arg),
		 void *arg, QmlSearchPlace *place)
{
	bool found = false;

	for (int i = 0; !found && i < qml_stores_in_use(); i++)
	{
		QmlTable live;
		QmlTable leaf;
		QmlJob job;

		qml_table_open(&live, qml_store(i)->live, AccessShareLock);
		found = qml_lookup_live(i, &live, id, snapshot, &job);
		if (found)
		{
			*place = qml_search_place(&job);
			found = access == NULL || access(&job, arg) != QML_ACCESS_NONE;
			qml_table_close(&live);
			return found;
		}
		qml_table_close(&live);
		if (!qml_history_find(i, id, snapshot, AccessShareLock, &leaf, &job))
			continue;
		*place = qml_search_place(&job);
		found = access == NULL || access(&job, arg) != QML_ACCESS_NONE;
		qml_table_close(&leaf);
		return found;
	}
	return false;
}

/*
 * Where the job of this id stands, or stood: that is in ids that qml makes.  False: it is not known,
 * because there is no such job any more, or none that the caller sees.
 */
bool
qml_search_find_place(const pg_uuid_t *id, QmlAccess (*access)(const QmlJob *job, void *arg),
					  void *arg, QmlSearchPlace *place)
{
	Snapshot snapshot = qml_table_snapshot();
	bool found = read_job(id, snapshot, access, arg, place);
	TimestampTz created_at;

	UnregisterSnapshot(snapshot);
	if (found)
		return true;
	/* As if it was created when its id says. */
	created_at = (qml_order_head(id->data) >> 16) * 1000 - QML_ORDER_EPOCH;
	if (!qml_order_is_by_id(id->data, created_at) ||
		created_at > GetCurrentTimestamp() + USECS_PER_MINUTE)
		return false;
	place->order = qml_order_head(id->data);
	place->id = *id;
	return true;
}

/* ----- merging ----- */

/* A search that runs. */
typedef struct Run
{
	QmlSearch *search;
	QmlSearchMatcher *matcher;
	binaryheap *heads; /* of streams that have a job */
	int64 looked[2];   /* at finished jobs, and at unfinished ones */
	int nheads[2];	   /* streams of them that have not ended */
	bool given_up;	   /* unfinished jobs are not looked at any more */
	TimestampTz now;
	MemoryContext scratch; /* for one job */
} Run;

/* The newest comes first. */
static int
compare_heads(Datum a, Datum b, void *arg)
{
	const QmlSearchPlace *one = qml_stream_place((QmlSearchStream *) DatumGetPointer(a));
	const QmlSearchPlace *other = qml_stream_place((QmlSearchStream *) DatumGetPointer(b));

	if (one->order != other->order)
		return one->order > other->order ? 1 : -1;
	return memcmp(one->id.data, other->id.data, UUID_LEN);
}

/* Goes to the next job of a stream; false: there is none. */
static bool
advance(Run *run, QmlSearchStream *stream)
{
	QmlSearchTable *table = qml_stream_table(stream);
	int64 before = table->bounds.looked;
	bool more = qml_stream_next(stream);

	run->looked[table->live] += table->bounds.looked - before;
	return more;
}

/*
 * Ends the search for unfinished jobs, or all of it, at a place behind which nothing was looked at.
 * True: all of it.
 */
static bool
stop_at(Run *run, bool live, const QmlSearchPlace *place)
{
	QmlSearch *search = run->search;

	if (live && run->nheads[0] > 0 && !search->stops_for_all)
	{
		run->given_up = search->is_live_partial = true;
		search->live_stopped = *place;
		return false;
	}
	search->is_partial = true;
	search->stopped = *place;
	return true;
}

static bool
is_limit_reached(const Run *run, bool live)
{
	int most = run->search->most_looked;

	return most > 0 && run->looked[live] >= most;
}

/* Looks at the job that a stream is at; false: the caller wants no more. */
static bool
look_at(Run *run, QmlSearchStream *stream)
{
	QmlSearch *search = run->search;
	MemoryContext caller = MemoryContextSwitchTo(run->scratch);
	QmlAccess access = QML_ACCESS_FULL;
	bool go_on = true;
	bool matches;
	QmlJob job;

	qml_stream_read(stream, &job);
	matches = job.expires_at == QML_NO_TIME || job.expires_at > run->now;
	if (matches && search->created_by != 0)
		matches = job.created_at <= search->created_by;
	if (matches && search->states != 0)
		matches = (search->states & (1 << job.state)) != 0;
	if (matches && search->access)
		access = search->access(&job, search->arg);
	matches = matches && access != QML_ACCESS_NONE && qml_search_match(run->matcher, &job, access);
	MemoryContextSwitchTo(caller);
	if (matches)
	{
		search->row = qml_stream_row(stream);
		go_on = search->use(&job, qml_stream_place(stream), access, search->arg);
	}
	MemoryContextReset(run->scratch);
	return go_on;
}

static void
begin_heads(Run *run, const QmlSearchPlan *plan)
{
	run->heads = binaryheap_allocate(Max(plan->nstreams, 1), compare_heads, NULL);
	for (int i = 0; i < plan->nstreams; i++)
	{
		if (!advance(run, plan->streams[i]))
			continue;
		run->nheads[qml_stream_table(plan->streams[i])->live]++;
		binaryheap_add_unordered(run->heads, PointerGetDatum(plan->streams[i]));
	}
	binaryheap_build(run->heads);
}

static void
merge(Run *run)
{
	while (!binaryheap_empty(run->heads))
	{
		QmlSearchStream *stream = (QmlSearchStream *) DatumGetPointer(binaryheap_first(run->heads));
		bool live = qml_stream_table(stream)->live;
		QmlSearchPlace place = *qml_stream_place(stream);
		bool ends = qml_stream_is_cut(stream);

		CHECK_FOR_INTERRUPTS();
		if (live && run->given_up)
		{
			(void) binaryheap_remove_first(run->heads);
			continue;
		}
		if (!ends && !look_at(run, stream))
			return;
		/* What comes next may be looked at, or it is the last one. */
		ends = ends || (is_limit_reached(run, live) && advance(run, stream));
		if (ends)
		{
			if (stop_at(run, live, &place))
				return;
			continue;
		}
		if (!is_limit_reached(run, live) && advance(run, stream))
		{
			binaryheap_replace_first(run->heads, PointerGetDatum(stream));
			continue;
		}
		run->nheads[live]--;
		(void) binaryheap_remove_first(run->heads);
	}
}

/*
 * Searches.  The caller's function gets the jobs, in its own memory context, and can end the search.
 */
void
qml_search_run(QmlSearch *search)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "qml search",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Run run = {.search = search, .now = GetCurrentTimestamp()};
	Snapshot snapshot;
	QmlSearchPlan *plan;

	search->looked = 0;
	search->is_partial = search->is_live_partial = false;
	/* Who empties the table, or writes it anew, does so before the snapshot, or after the call. */
	LockRelationOid(qml_store(QML_STORE_LOGGED)->live, AccessShareLock);
	plan = qml_search_plan_begin(search, run.now);
	snapshot = qml_table_snapshot();
	QML_FAULT("search.snapshot");
	run.scratch = AllocSetContextCreate(context, "qml search job", ALLOCSET_DEFAULT_SIZES);
	run.matcher = qml_search_matcher(search->compiled);
	qml_search_plan_open(plan, snapshot);
	begin_heads(&run, plan);
	MemoryContextSwitchTo(caller);
	merge(&run);
	MemoryContextSwitchTo(context);
	search->looked = run.looked[0] + run.looked[1];
	qml_search_plan_close(plan);
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}
