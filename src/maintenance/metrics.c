/*
 * metrics.c
 *		Statistics and numbers of jobs in the text format of Prometheus (version 0.0.4).
 *
 * Counters and histograms are of the memory of stats_store.c: by queue and method, at most
 * qml.stats_series of them in the server, and all others in a series with empty labels.  They begin
 * with the server's first start, or with its last crash.  Numbers of jobs are by queue and state;
 * of so many queues, those that were made first, the others are added up under an empty label.
 *
 * The text is bounded, as a value of the database is: series are left out beyond a size of it, the
 * last ones by queue and method, and their number is said.  Their numbers are not added up: series
 * come and go, and a sum of others would not only grow.  Queues are bounded by their number.
 *
 * Of the bins of a histogram every second or third is shown: 1 and 2.5 of each decade.  Counts
 * of buckets are cumulative, so nothing is missing in them.
 *
 * Only queues that the current user monitors are shown, and all others to those who monitor
 * all of them.  Values of labels are escaped.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"

#include "common/fault.h"
#include "common/guc.h"
#include "core/state.h"
#include "ipc/slots.h"
#include "ipc/stats_store.h"
#include "jobs/counts.h"
#include "jobs/oldest_ready.h"
#include "maintenance/alert_rows.h"
#include "maintenance/metrics.h"
#include "maintenance/stats_query.h"
#include "maintenance/stats_rows.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "qml.h"

/* Queues that are shown, where no statistics are kept. */
#define USUAL_QUEUES 1000

/*
 * Bytes that series may take.  A text may have a gigabyte, and some more must be left for queues
 * and for the conversion to the encoding of a client.
 */
#define MOST_BYTES ((Size) QML_FAULT_LIMIT("metrics.most_kb", 256 * 1024) * 1024)

/* Bytes that a line may take beside the queue and the method, and most queues that are shown. */
#define LINE_BYTES	100
#define MOST_QUEUES 20000

/* A queue, or (NULL) all others. */
typedef struct Queue
{
	const QmlQueue *queue;
	int64 counts[QML_STATES];
	TimestampTz ready_at; /* QML_NO_TIME: none is ready */
} Queue;

typedef struct Metrics
{
	StringInfo text;
	QmlStatsView view;
	QmlStatSeries **series; /* that are shown */
	int nseries;
	int left_out; /* series for which the text has no room */
	Queue *queues;
	int nqueues;
} Metrics;

/* ----- the format ----- */

static void
begin_family(StringInfo text, const char *name, const char *type, const char *help)
{
	appendStringInfo(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void
append_label(StringInfo text, const char *name, const char *value, int length)
{
	appendStringInfo(text, "%s=\"", name);
	for (int i = 0; i < length; i++)
	{
		if (value[i] == '\n')
			appendStringInfoString(text, "\\n");
		else
		{
			if (value[i] == '\\' || value[i] == '"')
				appendStringInfoChar(text, '\\');
			appendStringInfoChar(text, value[i]);
		}
	}
	appendStringInfoChar(text, '"');
}

static void
append_queue(StringInfo text, const QmlQueue *queue)
{
	append_label(text, "queue", queue ? queue->name : "", queue ? (int) strlen(queue->name) : 0);
}

static void
append_series(StringInfo text, const QmlStatSeries *series)
{
	append_queue(text, series->queue == 0 ? NULL : qml_queue_by_id(series->queue));
	appendStringInfoChar(text, ',');
	append_label(text, "method", series->method, series->method_length);
}

static void
write_number(StringInfo text, const char *name, const char *type, const char *help, uint64 number)
{
	begin_family(text, name, type, help);
	appendStringInfo(text, "%s " UINT64_FORMAT "\n", name, number);
}

/* ----- series ----- */

static void
write_counter(Metrics *metrics, const char *name, const char *help, QmlStat stat)
{
	begin_family(metrics->text, name, "counter", help);
	for (int i = 0; i < metrics->nseries; i++)
	{
		appendStringInfo(metrics->text, "%s{", name);
		append_series(metrics->text, metrics->series[i]);
		appendStringInfo(metrics->text, "} " UINT64_FORMAT "\n",
						 metrics->series[i]->total.counters[stat]);
	}
}

static void
write_finished(Metrics *metrics)
{
	static const struct
	{
		const char *state;
		QmlStat stat;
	} ends[] = {{"succeeded", QML_STAT_SUCCEEDED},
				{"failed", QML_STAT_FAILED},
				{"deleted", QML_STAT_DELETED}};
	const char *name = "qml_jobs_finished_total";

	begin_family(metrics->text, name, "counter",
				 "Jobs that have ended, by the state that they ended in.");
	for (int i = 0; i < metrics->nseries; i++)
	{
		for (int end = 0; end < (int) lengthof(ends); end++)
		{
			appendStringInfo(metrics->text, "%s{", name);
			append_series(metrics->text, metrics->series[i]);
			appendStringInfo(metrics->text, ",state=\"%s\"} " UINT64_FORMAT "\n", ends[end].state,
							 metrics->series[i]->total.counters[ends[end].stat]);
		}
	}
}

/* Whether the bound of a bin is shown. */
static bool
is_shown(int bin)
{
	return bin % 5 == 0 || bin % 5 == 2;
}

static void
write_buckets(StringInfo text, const char *name, const QmlStatSeries *series, const uint64 *bins,
			  uint64 duration)
{
	uint64 count = 0;

	for (int bin = 0; bin < QML_HISTOGRAM_BINS; bin++)
	{
		bool is_last = bin == QML_HISTOGRAM_BINS - 1;

		count += bins[bin];
		if (!is_last && !is_shown(bin))
			continue;
		appendStringInfo(text, "%s_bucket{", name);
		append_series(text, series);
		if (is_last)
			appendStringInfoString(text, ",le=\"+Inf\"");
		else
			appendStringInfo(text, ",le=\"%g\"",
							 (double) qml_histogram_bounds[bin] / USECS_PER_SEC);
		appendStringInfo(text, "} " UINT64_FORMAT "\n", count);
	}
	appendStringInfo(text, "%s_sum{", name);
	append_series(text, series);
	appendStringInfo(text, "} " UINT64_FORMAT ".%06d\n%s_count{", duration / USECS_PER_SEC,
					 (int) (duration % USECS_PER_SEC), name);
	append_series(text, series);
	appendStringInfo(text, "} " UINT64_FORMAT "\n", count);
}

static void
write_histogram(Metrics *metrics, const char *name, const char *help, bool ran)
{
	begin_family(metrics->text, name, "histogram", help);
	for (int i = 0; i < metrics->nseries; i++)
	{
		const QmlStatCounts *total = &metrics->series[i]->total;

		CHECK_FOR_INTERRUPTS();
		write_buckets(metrics->text, name, metrics->series[i], ran ? total->runs : total->waits,
					  total->counters[ran ? QML_STAT_RAN : QML_STAT_WAITED]);
	}
}

static int
compare_series(const void *a, const void *b)
{
	const QmlStatSeries *one = *(QmlStatSeries *const *) a;
	const QmlStatSeries *other = *(QmlStatSeries *const *) b;
	int order;

	if (one->queue != other->queue)
		return one->queue < other->queue ? -1 : 1;
	order = memcmp(one->method, other->method, Min(one->method_length, other->method_length));
	return order != 0 ? order : one->method_length - other->method_length;
}

/* Lines of a series: seven counters, and of each histogram the buckets, the sum and the count. */
static int
series_lines(void)
{
	int buckets = 1;

	for (int bin = 0; bin < QML_HISTOGRAM_BINS - 1; bin++)
		buckets += is_shown(bin) ? 1 : 0;
	return 7 + 2 * (buckets + 2);
}

/* Bytes that the lines of a series take at most. */
static Size
series_bytes(const QmlStatSeries *series, int lines)
{
	StringInfoData labels;
	Size bytes;

	initStringInfo(&labels);
	append_series(&labels, series);
	bytes = (Size) lines * (labels.len + LINE_BYTES);
	pfree(labels.data);
	return bytes;
}

/* Leaves out the last ones, if there are more than the text has room for. */
static void
bound_series(Metrics *metrics)
{
	int lines = series_lines();
	Size bytes = 0;

	for (int i = 0; i < metrics->nseries; i++)
	{
		bytes += series_bytes(metrics->series[i], lines);
		if (bytes > MOST_BYTES)
		{
			metrics->left_out = metrics->nseries - i;
			metrics->nseries = i;
		}
	}
}

/* Those that the current user may see and that have counted something. */
static void
choose_series(Metrics *metrics)
{
	metrics->series = palloc(sizeof(QmlStatSeries *) * (metrics->view.count + 1));
	for (int i = 0; i < metrics->view.count; i++)
	{
		QmlStatSeries *series = &metrics->view.series[i];

		if (qml_stats_counts_any(&series->total) && qml_stats_query_may_see(series->queue))
			metrics->series[metrics->nseries++] = series;
	}
	qsort(metrics->series, metrics->nseries, sizeof(QmlStatSeries *), compare_series);
	bound_series(metrics);
}

static void
write_series(Metrics *metrics)
{
	if (!qml_stats_store_read(qml_store(QML_STORE_LOGGED)->live, &metrics->view))
		return;
	choose_series(metrics);
	write_counter(metrics, "qml_jobs_enqueued_total", "Jobs that were enqueued.",
				  QML_STAT_ENQUEUED);
	write_finished(metrics);
	write_counter(metrics, "qml_attempts_retried_total",
				  "Attempts that failed or were lost, and are followed by another one.",
				  QML_STAT_RETRIED);
	write_counter(metrics, "qml_attempts_released_total",
				  "Attempts that were given back, and do not count.", QML_STAT_RELEASED);
	write_counter(metrics, "qml_attempts_lost_total", "Attempts whose worker was lost.",
				  QML_STAT_LOST);
	write_histogram(metrics, "qml_job_wait_seconds",
					"How long jobs were ready before their attempts began.", false);
	write_histogram(metrics, "qml_job_run_seconds",
					"How long attempts ran, without those that were lost or that others ended.",
					true);
	write_number(metrics->text, "qml_stats_missed_total", "counter",
				 "Events for which there was no room in any series, of all databases.",
				 metrics->view.missed);
	write_number(metrics->text, "qml_stats_series_limit", "gauge",
				 "The setting qml.stats_series: beyond it, queue and method are empty.",
				 (uint64) metrics->view.capacity);
	write_number(metrics->text, "qml_stats_series_left_out", "gauge",
				 "Series that are not in this text, as it would be too large.",
				 (uint64) metrics->left_out);
}

/* ----- queues ----- */

static int
compare_queues(const void *a, const void *b)
{
	const Queue *one = a;
	const Queue *other = b;

	return one->queue->id < other->queue->id ? -1 : one->queue->id > other->queue->id;
}

/* All queues that the current user monitors, by id; the last ones become one if they are too many. */
static void
choose_queues(Metrics *metrics, HTAB *counts)
{
	List *all = qml_queue_all();
	int most = qml_stats_series > 0 ? Min(qml_stats_series, MOST_QUEUES) : USUAL_QUEUES;
	ListCell *lc;

	metrics->queues = palloc0(sizeof(Queue) * (list_length(all) + 1));
	foreach(lc, all)
	{
		const QmlQueue *queue = lfirst(lc);
		const QmlCounterRow *row = hash_search(counts, &queue->id, HASH_FIND, NULL);
		Queue *shown = &metrics->queues[metrics->nqueues];

		/* One that was dropped may have finished jobs; there are any number of them. */
		if (queue->dropped || !qml_stats_query_may_see(queue->id))
			continue;
		metrics->nqueues++;
		shown->queue = queue;
		if (row)
			memcpy(shown->counts, row->counts, sizeof(shown->counts));
	}
	qsort(metrics->queues, metrics->nqueues, sizeof(Queue), compare_queues);
	if (metrics->nqueues <= most)
		return;
	for (int i = most + 1; i < metrics->nqueues; i++)
	{
		for (int state = 0; state < QML_STATES; state++)
			metrics->queues[most].counts[state] += metrics->queues[i].counts[state];
	}
	metrics->queues[most].queue = NULL;
	metrics->nqueues = most + 1;
}

static void
write_ages(Metrics *metrics)
{
	const char *name = "qml_oldest_ready_age_seconds";
	QmlOldestReady search;

	begin_family(metrics->text, name, "gauge",
				 "How long the oldest job that is ready has waited; 0 if none is.");
	qml_oldest_ready_begin(&search);
	for (int i = 0; i < metrics->nqueues; i++)
	{
		const Queue *shown = &metrics->queues[i];
		TimestampTz ready_at;
		double age = 0;

		if (shown->queue == NULL)
			continue;
		if (shown->counts[QML_ENQUEUED] > 0 &&
			qml_oldest_ready_find(&search, shown->queue, &ready_at))
			age = (double) Max(GetCurrentTimestamp() - ready_at, 0) / USECS_PER_SEC;
		appendStringInfo(metrics->text, "%s{", name);
		append_queue(metrics->text, shown->queue);
		appendStringInfo(metrics->text, "} %.3f\n", age);
	}
	qml_oldest_ready_end(&search);
}

static void
write_queues(Metrics *metrics)
{
	bool from_memory;
	HTAB *counts = qml_counts_queues(&from_memory);

	choose_queues(metrics, counts);
	begin_family(metrics->text, "qml_jobs", "gauge",
				 from_memory ? "Jobs that there are, by state." :
							   "Jobs that there are, by state; their rows were counted.");
	for (int i = 0; i < metrics->nqueues; i++)
	{
		for (int state = 0; state < QML_STATES; state++)
		{
			appendStringInfoString(metrics->text, "qml_jobs{");
			append_queue(metrics->text, metrics->queues[i].queue);
			appendStringInfo(metrics->text, ",state=\"%s\"} " INT64_FORMAT "\n",
							 qml_state_label((QmlState) state),
							 Max(metrics->queues[i].counts[state], 0));
		}
	}
	begin_family(metrics->text, "qml_queue_paused", "gauge", "Whether a queue is paused.");
	for (int i = 0; i < metrics->nqueues; i++)
	{
		if (metrics->queues[i].queue == NULL)
			continue;
		appendStringInfoString(metrics->text, "qml_queue_paused{");
		append_queue(metrics->text, metrics->queues[i].queue);
		appendStringInfo(metrics->text, "} %d\n", metrics->queues[i].queue->paused ? 1 : 0);
	}
	write_ages(metrics);
	write_number(metrics->text, "qml_counts_from_memory", "gauge",
				 "Whether the numbers of jobs come from shared memory; 0: rows were counted.",
				 from_memory ? 1 : 0);
}

/* ----- processes ----- */

static void
write_processes(StringInfo text)
{
	if (qml_shmem == NULL)
		return;
	write_number(text, "qml_scheduler_up", "gauge", "Whether this database has a scheduler.",
				 qml_slots_find_scheduler(MyDatabaseId) ? 1 : 0);
	write_number(text, "qml_background_workers", "gauge",
				 "Background workers that this database has.",
				 (uint64) qml_slots_count_workers(MyDatabaseId, InvalidOid));
}

/* ----- alerts ----- */

static void
write_alerts(StringInfo text)
{
	const char *name = "qml_alert_active";
	ListCell *lc;

	begin_family(text, name, "gauge", "Alerts that are active, 1 for each.");
	foreach(lc, qml_alert_rows_active())
	{
		const QmlAlert *alert = lfirst(lc);

		if (!qml_stats_query_may_see(alert->queue))
			continue;
		appendStringInfo(text, "%s{kind=\"%s\",", name, alert->kind);
		append_queue(text, alert->queue == 0 ? NULL : qml_queue_by_id(alert->queue));
		appendStringInfoChar(text, ',');
		append_label(text, "method", alert->method, (int) strlen(alert->method));
		appendStringInfoString(text, "} 1\n");
	}
}

/* Appends all of it. */
void
qml_metrics_write(StringInfo text)
{
	Metrics metrics = {.text = text};

	begin_family(text, "qml_info", "gauge", "The version of qml.");
	appendStringInfo(text, "qml_info{version=\"%s\"} 1\n", QML_VERSION);
	write_series(&metrics);
	write_queues(&metrics);
	write_processes(text);
	write_alerts(text);
}
