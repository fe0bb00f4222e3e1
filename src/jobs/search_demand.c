/*
 * search_demand.c
 *		What a query demands of every job: what its indexes are asked for.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "jobs/search_demand.h"
#include "model/queue.h"
#include "model/search_index.h"

/* The states in which jobs can match. */
int
qml_search_demand_states(const QmlSearch *search)
{
	const QmlSearchQuery *query = &search->compiled->query;
	int demanded = search->states != 0 ? search->states : QML_ALL_STATES;

	for (int i = 0; i < query->nterms; i++)
	{
		const QmlSearchTerm *term = &query->terms[i];
		int states = 0;

		if (term->field == QML_SEARCH_FINISHED && !term->negated)
			demanded &= ~QML_LIVE_STATES;
		if (term->field != QML_SEARCH_STATE)
			continue;
		for (int j = 0; j < term->nvalues; j++)
			states |= QML_STATE_BIT(query->values[term->first_value + j].state);
		demanded &= term->negated ? ~states : states;
	}
	return demanded;
}

static void
demand_ids(QmlSearchDemand *demand, const QmlSearchQuery *query, const QmlSearchTerm *term)
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
demand_queues(QmlSearchDemand *demand, const QmlSearchQuery *query, const QmlSearchTerm *term)
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
demand_methods(QmlSearchDemand *demand, const QmlSearchQuery *query, const QmlSearchTerm *term)
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

void
qml_search_demand_read(QmlSearchDemand *demand, const QmlSearch *search)
{
	const QmlSearchQuery *query = &search->compiled->query;

	memset(demand, 0, sizeof(*demand));
	demand->states = qml_search_demand_states(search);
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
}

/* Whether no job can match. */
bool
qml_search_demand_is_impossible(const QmlSearchDemand *demand)
{
	return demand->states == 0 || (demand->has_queues && demand->nqueues == 0) ||
		   demand->first_end > demand->last_end || demand->first_created > demand->last_created;
}
