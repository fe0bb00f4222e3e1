/*
 * alert_values.c
 *		The values that alerts are about, and their bounds.
 *
 *	 max_wait			of the attempts that began lately, how long 95 of 100 jobs had waited at most
 *	 max_age			how long the oldest ready job has waited; 0 while the queue is paused
 *	 max_run			of the attempts that ended lately, how long 95 of 100 ran at most; or how long
 *						the oldest one has run that runs, if that is more
 *	 max_failure_rate	which part of the attempts that ended lately failed, if there were enough
 *
 * `lately` is the last minutes.  A queue has its bounds from its options, or from the settings; a
 * method in a queue has those of its handler.
 *
 * What happened lately comes from statistics; how many jobs there are, from the counters in shared
 * memory, if they are known.  The oldest jobs are looked for by the index, in queues that have a bound and jobs to which
 * it applies, as long as the time for it lasts; the next look goes on with the queue that follows.  Of
 * the others it is not known in this look.  So a look costs a bounded time, however many queues
 * there are.  While nothing is counted, statistics are not read either.
 *
 * Reads only.  All is in the current memory context.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/guc.h"
#include "diagnosis/alert_values.h"
#include "diagnosis/finding.h"
#include "jobs/counts.h"
#include "jobs/oldest_ready.h"
#include "maintenance/stats_query.h"
#include "maintenance/stats_rows.h"
#include "model/catalog.h"
#include "userfn/handler.h"

/* What is `lately`. */
#define MINUTES 5
#define LATELY	(MINUTES * QML_STATS_MINUTE)

/* The part of durations that is compared with a bound. */
#define MOST_DURATIONS 0.95

/* With fewer attempts there is no failure rate. */
#define LEAST_ATTEMPTS 10

/* So many attempts lately whose worker was lost are usual. */
#define USUAL_LOST 10

/* For the look at the oldest jobs, in milliseconds. */
#define LOOK_TIME QML_FAULT_LIMIT("alerts.look_ms", 100)

/* ----- values ----- */

static uint32
hash_key(const void *data, Size size)
{
	const QmlAlertKey *key = data;
	uint32 hash = hash_combine(string_hash(key->kind, strlen(key->kind) + 1),
							   murmurhash32((uint32) key->queue));

	return hash_combine(hash,
						hash_bytes((const unsigned char *) key->method, (int) strlen(key->method)));
}

static int
match_keys(const void *a, const void *b, Size size)
{
	const QmlAlertKey *one = a;
	const QmlAlertKey *other = b;

	return one->queue != other->queue || strcmp(one->kind, other->kind) != 0 ||
		   strcmp(one->method, other->method) != 0;
}

void
qml_alert_values_begin(QmlAlertValues *values)
{
	HASHCTL control = {.keysize = sizeof(QmlAlertKey),
					   .entrysize = sizeof(QmlAlertValue),
					   .hash = hash_key,
					   .match = match_keys,
					   .hcxt = CurrentMemoryContext};

	memset(values, 0, sizeof(*values));
	values->now = GetCurrentTimestamp();
	values->values = hash_create("qml values of alerts", 64, &control,
								 HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/* NULL: there is no bound for it, or nothing that it could exceed. */
QmlAlertValue *
qml_alert_values_find(QmlAlertValues *values, const QmlAlertKey *key)
{
	return hash_search(values->values, key, HASH_FIND, NULL);
}

/*
 * Notes a value; the highest one of a key counts.  Returns it if a detail is missing, which the
 * caller gives it: it is above the bound, and the highest so far.
 */
QmlAlertValue *
qml_alert_values_add(QmlAlertValues *values, const QmlAlertKey *key, double value, double bound)
{
	bool found;
	QmlAlertValue *entry = hash_search(values->values, key, HASH_ENTER, &found);

	if (found && entry->value >= value)
		return NULL;
	if (!found)
	{
		memset((char *) entry + sizeof(QmlAlertKey), 0, sizeof(*entry) - sizeof(QmlAlertKey));
		entry->key.method = pstrdup(key->method);
	}
	entry->value = value;
	entry->bound = bound;
	return value > bound ? entry : NULL;
}

const char *const qml_alert_queue_kinds[QML_ALERT_QUEUE_KINDS] = {
	QML_ALERT_MAX_WAIT,
	QML_ALERT_MAX_AGE,
	QML_ALERT_MAX_RUN,
	QML_ALERT_MAX_FAILURE_RATE,
};

/* The number of a kind among those that are about queues; -1: it is none of them. */
int
qml_alert_values_queue_kind(const char *kind)
{
	for (int i = 0; i < QML_ALERT_QUEUE_KINDS; i++)
	{
		if (strcmp(kind, qml_alert_queue_kinds[i]) == 0)
			return i;
	}
	return -1;
}

/* Whether it is known that a key which has no value is not over its bound. */
bool
qml_alert_values_are_known(const QmlAlertValues *values, const QmlAlertKey *key)
{
	if (strcmp(key->kind, QML_ALERT_MAX_AGE) != 0 && strcmp(key->kind, QML_ALERT_MAX_RUN) != 0)
		return true;
	return !bms_is_member(key->queue, values->not_looked);
}

/* ----- words ----- */

static char *
describe_duration(int64 usecs)
{
	if (usecs < 2 * USECS_PER_SEC)
		return psprintf("%.3g seconds", (double) usecs / USECS_PER_SEC);
	return qml_finding_duration(usecs);
}

static char *
describe_key(const QmlQueue *queue, const char *method)
{
	if (*method == '\0')
		return psprintf("queue \"%s\"", queue->name);
	return psprintf("method \"%s\" in queue \"%s\"", method, queue->name);
}

/* ----- what happened lately ----- */

/* What was counted of a queue and a method; bounds: those that hold for it. */
static void
add_past(QmlAlertValues *values, const QmlQueue *queue, const char *method,
		 const QmlStatCounts *counts, const QmlBounds *bounds)
{
	double failed = (double) (counts->counters[QML_STAT_FAILED] +
							  counts->counters[QML_STAT_RETRIED]);
	double judged = failed + (double) counts->counters[QML_STAT_SUCCEEDED];
	int64 waited = qml_histogram_quantile(counts->waits, MOST_DURATIONS);
	int64 ran = qml_histogram_quantile(counts->runs, MOST_DURATIONS);
	QmlAlertKey key = {.queue = queue->id, .method = method};
	QmlAlertValue *over;

	key.kind = QML_ALERT_MAX_WAIT;
	if (bounds->max_wait >= 0 && waited >= 0 &&
		(over = qml_alert_values_add(values, &key, (double) waited / USECS_PER_SEC,
									 (double) bounds->max_wait / USECS_PER_SEC)) != NULL)
		over->detail = psprintf(
			"5 of 100 jobs of %s that began in the last %d minutes had waited longer than %s",
			describe_key(queue, method), MINUTES, describe_duration(waited));
	key.kind = QML_ALERT_MAX_RUN;
	if (bounds->max_run >= 0 && ran >= 0 &&
		(over = qml_alert_values_add(values, &key, (double) ran / USECS_PER_SEC,
									 (double) bounds->max_run / USECS_PER_SEC)) != NULL)
		over->detail =
			psprintf("5 of 100 jobs of %s that ended in the last %d minutes had run longer than %s",
					 describe_key(queue, method), MINUTES, describe_duration(ran));
	key.kind = QML_ALERT_MAX_FAILURE_RATE;
	if (bounds->max_failure_rate >= 0 && judged >= LEAST_ATTEMPTS &&
		(over = qml_alert_values_add(values, &key, failed / judged, bounds->max_failure_rate)) !=
			NULL)
		over->detail = psprintf("%.0f of %.0f attempts of %s failed in the last %d minutes", failed,
								judged, describe_key(queue, method), MINUTES);
}

/* The bounds of a queue as a whole. */
static QmlBounds
bounds_of(const QmlQueue *queue)
{
	QmlBounds bounds = queue->options.bounds;

	if (bounds.max_age < 0 && qml_alert_max_age > 0)
		bounds.max_age = qml_alert_max_age * USECS_PER_SEC;
	if (bounds.max_failure_rate < 0)
		bounds.max_failure_rate = qml_alert_max_failure_rate;
	return bounds;
}

/* Handlers that have bounds. */
static List *
find_bounded_handlers(void)
{
	List *bounded = NIL;
	ListCell *lc;

	foreach(lc, qml_handler_all())
	{
		const QmlBounds *bounds = &((const QmlHandler *) lfirst(lc))->options.common.bounds;

		if (bounds->max_wait >= 0 || bounds->max_age >= 0 || bounds->max_run >= 0 ||
			bounds->max_failure_rate >= 0)
			bounded = lappend(bounded, lfirst(lc));
	}
	return bounded;
}

/* How many events were counted in all; false: nothing is known. */
static bool
count_events(uint64 *events)
{
	QmlStatsView view;

	*events = 0;
	if (!qml_stats_store_read(qml_store(QML_STORE_LOGGED)->live, &view))
		return false;
	for (int i = 0; i < view.count; i++)
	{
		for (int stat = 0; stat < QML_STATS; stat++)
			*events += view.series[i].total.counters[stat];
		*events += qml_stats_counts_sum(view.series[i].total.waits);
	}
	pfree(view.series);
	return true;
}

/* Whether something was counted lately, as far as this process knows. */
static bool
is_anything_counted(TimestampTz now)
{
	static bool known = false;
	static uint64 last;
	static TimestampTz changed_at;
	uint64 events;

	if (!count_events(&events))
		return false;
	if (!known || events != last || changed_at > now)
	{
		known = true;
		last = events;
		changed_at = now;
	}
	/* Rows begin and end with minutes. */
	return now - changed_at < LATELY + 2 * QML_STATS_MINUTE;
}

static void
collect_past(QmlAlertValues *values, List *handlers)
{
	QmlAlertKey lost = {.kind = "lost_attempts", .method = ""};
	QmlStatsAnswer answer;
	QmlAlertValue *over;
	uint64 all_lost = 0;

	if (!is_anything_counted(values->now))
		return;
	qml_stats_query_past(LATELY, &answer);
	for (int i = 0; i < answer.count; i++)
	{
		const QmlStatsLine *line = &answer.lines[i];
		const QmlQueue *queue = line->queue ? qml_queue_by_name(line->queue) : NULL;
		ListCell *lc;

		CHECK_FOR_INTERRUPTS();
		if (line->counts == NULL)
			continue;
		if (line->method == NULL)
			all_lost += line->counts->counters[QML_STAT_LOST];
		if (queue && line->method == NULL)
		{
			QmlBounds bounds = bounds_of(queue);

			add_past(values, queue, "", line->counts, &bounds);
		}
		if (queue == NULL || line->method == NULL)
			continue;
		foreach(lc, handlers)
		{
			const QmlHandler *handler = lfirst(lc);

			if (strcmp(handler->method, line->method) == 0)
				add_past(values, queue, handler->method, line->counts,
						 &handler->options.common.bounds);
		}
	}
	over = qml_alert_values_add(values, &lost, (double) all_lost, USUAL_LOST);
	if (over)
		over->detail = psprintf("the workers of %s were lost in the last %d minutes",
								qml_finding_count((int64) all_lost, "attempt", "attempts"),
								MINUTES);
}

/* ----- what is there now ----- */

/* The oldest jobs of a queue, or of a method in it. */
static void
add_present(QmlAlertValues *values, const QmlQueue *queue, const char *method,
			const QmlBounds *bounds, bool waits, const QmlOldestJobs *oldest)
{
	QmlAlertKey key = {.queue = queue->id, .method = method};
	QmlAlertValue *over;

	if (waits && bounds->max_age >= 0 && oldest->ready_at != QML_NO_TIME)
	{
		int64 age = Max(values->now - oldest->ready_at, 0);

		key.kind = QML_ALERT_MAX_AGE;
		over = qml_alert_values_add(values, &key, (double) age / USECS_PER_SEC,
									(double) bounds->max_age / USECS_PER_SEC);
		if (over)
			over->detail = psprintf("the oldest ready job of %s has waited for %s",
									describe_key(queue, method), describe_duration(age));
	}
	if (bounds->max_run >= 0 && oldest->started_at != QML_NO_TIME)
	{
		int64 run = Max(values->now - oldest->started_at, 0);

		key.kind = QML_ALERT_MAX_RUN;
		over = qml_alert_values_add(values, &key, (double) run / USECS_PER_SEC,
									(double) bounds->max_run / USECS_PER_SEC);
		if (over)
			over->detail = psprintf("a job of %s has run for %s", describe_key(queue, method),
									describe_duration(run));
	}
}

/* Whether a bound is about jobs that there are. */
static bool
is_of_interest(const QmlBounds *bounds, bool waits, const QmlCounterRow *row)
{
	return (waits && bounds->max_age >= 0 && row->counts[QML_ENQUEUED] > 0) ||
		   (bounds->max_run >= 0 && row->counts[QML_PROCESSING] > 0);
}

/* Looks at a queue, if it has a bound for jobs that it has. */
static void
look_at(QmlAlertValues *values, QmlOldestReady *search, const QmlCounterRow *row, List *handlers)
{
	const QmlQueue *queue = qml_queue_by_id(row->queue);
	QmlOldestJobs oldest;
	QmlBounds bounds;
	bool waits;
	ListCell *lc;

	if (queue == NULL || queue->own || queue->dropped || queue->gone)
		return;
	/* What is paused waits because somebody wants it to. */
	waits = !queue->paused && !qml_catalog()->paused;
	bounds = bounds_of(queue);
	if (is_of_interest(&bounds, waits, row))
	{
		qml_oldest_ready_look(search, queue, NULL, &oldest);
		add_present(values, queue, "", &bounds, waits, &oldest);
	}
	foreach(lc, handlers)
	{
		const QmlHandler *handler = lfirst(lc);
		const QmlBounds *own = &handler->options.common.bounds;

		if (!is_of_interest(own, waits, row))
			continue;
		qml_oldest_ready_look(search, queue, handler->method, &oldest);
		add_present(values, queue, handler->method, own, waits, &oldest);
	}
}

static int
compare_rows(const void *a, const void *b)
{
	const QmlCounterRow *one = a;
	const QmlCounterRow *other = b;

	return one->queue < other->queue ? -1 : one->queue > other->queue;
}

/* Queues that may have jobs: where numbers of jobs are not known, all of them. */
static QmlCounterRow *
find_queues(int *count)
{
	QmlCounterRow *rows;
	List *all;
	ListCell *lc;

	if (qml_counts_of_queues(&rows, count))
		return rows;
	all = qml_queue_all();
	rows = palloc0(sizeof(QmlCounterRow) * (list_length(all) + 1));
	*count = 0;
	foreach(lc, all)
	{
		QmlCounterRow *row = &rows[(*count)++];

		row->queue = ((const QmlQueue *) lfirst(lc))->id;
		row->counts[QML_ENQUEUED] = row->counts[QML_PROCESSING] = 1;
	}
	return rows;
}

static void
collect_present(QmlAlertValues *values, List *handlers)
{
	static int last = 0; /* the queue that was looked at last, if the time was over then */
	int64 begun = qml_clock_monotonic_ms();
	QmlOldestReady search;
	QmlCounterRow *rows;
	int count;
	int first = 0;

	rows = find_queues(&count);
	qsort(rows, count, sizeof(QmlCounterRow), compare_rows);
	while (first < count && rows[first].queue <= last)
		first++;
	last = 0;
	qml_oldest_ready_begin(&search);
	for (int i = 0; i < count; i++)
	{
		const QmlCounterRow *row = &rows[(first + i) % count];

		CHECK_FOR_INTERRUPTS();
		/* At least one in each look. */
		if (i > 0 && qml_clock_monotonic_ms() - begun >= LOOK_TIME)
		{
			if (last == 0)
				last = rows[(first + i - 1) % count].queue;
			values->not_looked = bms_add_member(values->not_looked, row->queue);
			continue;
		}
		look_at(values, &search, row, handlers);
	}
	qml_oldest_ready_end(&search);
}

/* Collects the values of queues and methods. */
void
qml_alert_values_collect(QmlAlertValues *values)
{
	List *handlers = find_bounded_handlers();

	collect_past(values, handlers);
	collect_present(values, handlers);
}
