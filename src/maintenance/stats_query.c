/*
 * stats_query.c
 *		What happened to jobs lately, and what there is of them now.
 *
 * What happened is added up from the rows of qml.stats_data and from what is pending in shared
 * memory.  Memory is read first, and says through which time it is stored: of the rows that are
 * read after that, later ones are left out, as what they have is in what was read as pending.  So
 * nothing is counted twice, and nothing is missing.
 *
 * Long times are read from the rows of ten minutes, as far as there are any.  One ends with the
 * last of the minutes that it is the sum of.  So where memory has what is in one of them as
 * pending, it is left out, and its minutes are read.
 *
 * What is there now comes from the numbers in shared memory, or from counted rows (jobs/counts.c);
 * the oldest ready job is looked for by the index.
 *
 * Only queues that the current user monitors are shown; what has no series of its own is of
 * any queues, and shown to those who monitor all of them.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/varlena.h"

#include "jobs/counts.h"
#include "jobs/oldest_ready.h"
#include "maintenance/stats_query.h"
#include "maintenance/stats_rows.h"
#include "model/acl.h"
#include "model/catalog.h"

/* Times that are longer are read from rows of ten minutes. */
#define LONG (12 * QML_STATS_TEN)

/* A queue and a method; length -1: all methods. */
typedef struct Key
{
	int queue;
	int length;
	const char *method;
} Key;

typedef struct Entry
{
	Key key;
	QmlStatCounts *counts;
} Entry;

/* A query. */
typedef struct Search
{
	HTAB *entries;
	MemoryContext context;
	int queue;			/* 0: all of them */
	const char *method; /* NULL: all */
	int length;
} Search;

static uint32
hash_key(const void *data, Size size)
{
	const Key *key = data;

	return hash_combine(murmurhash32(key->queue),
						key->length <= 0 ?
							(uint32) key->length :
							hash_bytes((const unsigned char *) key->method, key->length));
}

static int
match_keys(const void *a, const void *b, Size size)
{
	const Key *one = a;
	const Key *other = b;

	return one->queue != other->queue || one->length != other->length ||
		   (one->length > 0 && memcmp(one->method, other->method, one->length) != 0);
}

/* Whether the current user monitors a queue; 0: all of them. */
bool
qml_stats_query_may_see(int queue_id)
{
	const QmlQueue *queue;

	if (queue_id == 0)
		return qml_acl_allow(QML_CAN_MONITOR, NULL);
	queue = qml_queue_by_id(queue_id);
	return queue && !queue->own && qml_acl_allow(QML_CAN_MONITOR, queue->name);
}

static Entry *
entry_of(Search *query, Key key)
{
	bool found;
	Entry *entry = hash_search(query->entries, &key, HASH_ENTER, &found);

	if (found)
		return entry;
	if (key.length > 0)
		entry->key.method = memcpy(MemoryContextAlloc(query->context, key.length), key.method,
								   key.length);
	entry->counts = NULL;
	return entry;
}

static void
add_to(Search *query, Key key, const QmlStatCounts *counts)
{
	Entry *entry = entry_of(query, key);

	if (entry->counts == NULL)
		entry->counts = MemoryContextAllocZero(query->context, sizeof(QmlStatCounts));
	qml_stats_counts_add(entry->counts, counts);
}

/* Adds what was counted of a queue and a method, if it is asked for. */
static void
add_counts(Search *query, int queue, const char *method, int length, const QmlStatCounts *counts)
{
	Key key = {.queue = queue, .length = length, .method = method};
	Key all = {.queue = queue, .length = -1};

	if (!qml_stats_counts_any(counts) || (query->queue != 0 && queue != query->queue) ||
		(query->method &&
		 (queue == 0 || length != query->length || memcmp(method, query->method, length) != 0)))
		return;
	if (queue != 0)
		add_to(query, key, counts);
	if (query->method == NULL)
		add_to(query, all, counts);
}

static void
add_row(const QmlStatRow *row, void *arg)
{
	add_counts(arg, row->queue, row->method, row->length, &row->counts);
}

/* Adds what happened; returns the seconds that it is about. */
static double
add_past(Search *query, int64 since)
{
	bool is_long = since > LONG;
	TimestampTz step = is_long ? QML_STATS_TEN : QML_STATS_MINUTE;
	TimestampTz now;
	TimestampTz from;
	TimestampTz stored_through = DT_NOEND;
	QmlStatsView view;

	if (qml_stats_store_read(qml_store(QML_STORE_LOGGED)->live, &view))
	{
		for (int i = 0; i < view.count; i++)
			add_counts(query, view.series[i].queue, view.series[i].method,
					   view.series[i].method_length, &view.series[i].pending);
		pfree(view.series);
		if (view.stored_through != QML_NO_TIME)
			stored_through = view.stored_through;
	}
	now = GetCurrentTimestamp();
	from = Max(now - since, 0) / step * step;
	if (is_long)
	{
		TimestampTz last;
		TimestampTz tens = qml_stats_rows_last(QML_STATS_TENS, stored_through, &last) ?
							   Max(last + QML_STATS_TEN, from) :
							   from;

		qml_stats_rows_read(QML_STATS_TENS, from, tens, stored_through, false, add_row, query);
		qml_stats_rows_read(QML_STATS_MINUTES, tens, DT_NOEND, stored_through, false, add_row,
							query);
	}
	else
		qml_stats_rows_read(QML_STATS_MINUTES, from, DT_NOEND, stored_through, false, add_row,
							query);
	return (double) (now - from) / USECS_PER_SEC;
}

/* Queues that have jobs now have lines, too, unless a method is asked for. */
static void
add_present(Search *query, HTAB *queues)
{
	HASH_SEQ_STATUS scan;
	const QmlCounterRow *row;

	hash_seq_init(&scan, queues);
	while ((row = hash_seq_search(&scan)) != NULL)
	{
		Key all = {.queue = row->queue, .length = -1};

		if ((query->queue == 0 || row->queue == query->queue) &&
			(row->counts[QML_ENQUEUED] > 0 || row->counts[QML_PROCESSING] > 0))
			(void) entry_of(query, all);
	}
}

static int
compare_texts(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	return varstr_cmp(a, (int) strlen(a), b, (int) strlen(b), DEFAULT_COLLATION_OID);
}

/* What has no series comes last. */
static int
compare_lines(const void *a, const void *b)
{
	const QmlStatsLine *one = a;
	const QmlStatsLine *other = b;
	int order = -compare_texts(one->queue, other->queue);

	if (one->queue && other->queue)
		order = -order;
	return order != 0 ? order : compare_texts(one->method, other->method);
}

static void
set_present(QmlStatsLine *line, int id, HTAB *queues, QmlOldestReady *search)
{
	const QmlQueue *queue = qml_queue_by_id(id);
	const QmlCounterRow *row = hash_search(queues, &id, HASH_FIND, NULL);

	line->has_now = true;
	line->depth = row ? Max(row->counts[QML_ENQUEUED], 0) : 0;
	line->running = row ? Max(row->counts[QML_PROCESSING], 0) : 0;
	line->ready_at = QML_NO_TIME;
	if (queue == NULL || line->depth == 0 || !qml_oldest_ready_find(search, queue, &line->ready_at))
		line->ready_at = QML_NO_TIME;
}

/* queues: their numbers of jobs; NULL: what is there now is not asked for. */
static void
make_lines(Search *query, HTAB *queues, QmlStatsAnswer *answer)
{
	QmlOldestReady search;
	HASH_SEQ_STATUS scan;
	const Entry *entry;

	answer->lines = palloc0(sizeof(QmlStatsLine) * (hash_get_num_entries(query->entries) + 1));
	answer->count = 0;
	qml_oldest_ready_begin(&search);
	hash_seq_init(&scan, query->entries);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		QmlStatsLine *line = &answer->lines[answer->count];
		const QmlQueue *queue;

		/* Rows were read as the owner of the tables: who asks is looked at here. */
		if (!qml_stats_query_may_see(entry->key.queue))
			continue;
		answer->count++;
		queue = entry->key.queue == 0 ? NULL : qml_queue_by_id(entry->key.queue);
		line->queue = queue ? queue->name : NULL;
		line->counts = entry->counts;
		if (entry->key.length >= 0)
			line->method = pnstrdup(entry->key.method, entry->key.length);
		else if (queue && queues)
			set_present(line, queue->id, queues, &search);
	}
	qml_oldest_ready_end(&search);
	qsort(answer->lines, answer->count, sizeof(QmlStatsLine), compare_lines);
}

static void
begin_search(Search *query, const char *method)
{
	HASHCTL control = {.keysize = sizeof(Key),
					   .entrysize = sizeof(Entry),
					   .hash = hash_key,
					   .match = match_keys,
					   .hcxt = CurrentMemoryContext};

	*query = (Search){.context = CurrentMemoryContext, .method = method};
	query->entries = hash_create("qml statistics", 256, &control,
								 HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	query->length = method ? (int) strlen(method) : 0;
}

/*
 * What happened in the last `since` microseconds, at least, and what is there now.  queue, method:
 * of these only; the queue is there.  All is in the current memory context.
 */
void
qml_stats_query(int64 since, const char *queue, const char *method, QmlStatsAnswer *answer)
{
	Search query;
	bool from_memory;
	HTAB *queues;

	begin_search(&query, method);
	if (queue)
	{
		Key all = {.length = -1};

		query.queue = all.queue = qml_queue_by_name(queue)->id;
		if (method == NULL)
			(void) entry_of(&query, all);
	}
	answer->seconds = add_past(&query, since);
	queues = qml_counts_queues(&from_memory);
	if (method == NULL)
		add_present(&query, queues);
	make_lines(&query, queues, answer);
}

/* The same of all queues and methods, without what is there now. */
void
qml_stats_query_past(int64 since, QmlStatsAnswer *answer)
{
	Search query;

	begin_search(&query, NULL);
	answer->seconds = add_past(&query, since);
	make_lines(&query, NULL, answer);
}
