/*
 * sql_stats.c
 *		SQL functions of statistics: qml_stats, qml_metrics, qml_mark; and qml.stats_access
 *		and qml.stats_quantile for the view qml.stats_minute.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/args.h"
#include "compat.h"
#include "core/histogram.h"
#include "maintenance/marks.h"
#include "maintenance/metrics.h"
#include "maintenance/stats_query.h"
#include "maintenance/stats_rows.h"
#include "model/acl.h"
#include "model/queue.h"
#include "qml.h"
#include "sql/sql_rights.h"

QML_FUNCTION(qml_stats);
QML_FUNCTION(qml_metrics);
QML_FUNCTION(qml_mark);
QML_FUNCTION(qml_stats_access);
QML_FUNCTION(qml_stats_quantile);

#define STATS_COLUMNS 22

static Datum
interval_of(int64 usecs)
{
	Interval *interval = palloc0(sizeof(Interval));

	interval->time = usecs;
	return IntervalPGetDatum(interval);
}

/* Three columns: of half, of 95 and of 99 of 100 durations. */
static void
set_quantiles(const uint64 *bins, Datum *values, bool *nulls)
{
	static const double quantiles[] = {0.5, 0.95, 0.99};

	for (int i = 0; i < (int) lengthof(quantiles); i++)
	{
		int64 usecs = qml_histogram_quantile(bins, quantiles[i]);

		nulls[i] = usecs < 0;
		values[i] = usecs < 0 ? (Datum) 0 : interval_of(usecs);
	}
}

/* The columns of what was counted. */
static void
set_past(const QmlStatCounts *counts, double seconds, Datum *values, bool *nulls)
{
	static const QmlStat stats[] = {QML_STAT_SUCCEEDED, QML_STAT_FAILED,   QML_STAT_DELETED,
									QML_STAT_RETRIED,	QML_STAT_RELEASED, QML_STAT_LOST};
	const uint64 *counters = counts->counters;
	double failed = (double) (counters[QML_STAT_FAILED] + counters[QML_STAT_RETRIED]);
	double judged = failed + (double) counters[QML_STAT_SUCCEEDED];
	double finished = (double) (counters[QML_STAT_SUCCEEDED] + counters[QML_STAT_FAILED] +
								counters[QML_STAT_DELETED]);

	values[2] = Int64GetDatum((int64) counters[QML_STAT_ENQUEUED]);
	values[3] = Int64GetDatum((int64) qml_stats_counts_sum(counts->waits));
	for (int i = 0; i < (int) lengthof(stats); i++)
		values[4 + i] = Int64GetDatum((int64) counters[stats[i]]);
	values[10] = Float8GetDatum((double) counters[QML_STAT_ENQUEUED] / seconds);
	values[11] = Float8GetDatum(finished / seconds);
	nulls[12] = judged == 0;
	values[12] = judged == 0 ? (Datum) 0 : Float8GetDatum(failed / judged);
	set_quantiles(counts->waits, &values[13], &nulls[13]);
	set_quantiles(counts->runs, &values[16], &nulls[16]);
}

static void
store_line(ReturnSetInfo *rsinfo, const QmlStatsLine *line, double seconds)
{
	static const QmlStatCounts none = {0};
	Datum values[STATS_COLUMNS] = {0};
	bool nulls[STATS_COLUMNS] = {false};

	nulls[0] = line->queue == NULL;
	nulls[1] = line->method == NULL;
	if (line->queue)
		values[0] = CStringGetTextDatum(line->queue);
	if (line->method)
		values[1] = CStringGetTextDatum(line->method);
	set_past(line->counts ? line->counts : &none, seconds, values, nulls);
	nulls[19] = nulls[20] = !line->has_now;
	values[19] = Int64GetDatum(line->depth);
	values[20] = Int64GetDatum(line->running);
	nulls[21] = !line->has_now || line->ready_at == QML_NO_TIME;
	if (!nulls[21])
		values[21] = interval_of(Max(GetCurrentTimestamp() - line->ready_at, 0));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static int64
read_since(FunctionCallInfo fcinfo)
{
	int64 since;

	qml_args_require(fcinfo, 0, "since");
	since = qml_args_duration(fcinfo, 0, "since");
	if (since > QML_STATS_KEEP_TENS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is out of range", "since"),
				 errdetail("It must be at most 7 days: statistics are kept for so long.")));
	return since;
}

Datum
qml_stats(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	QmlStatsAnswer answer;
	int64 since;
	char *queue;
	char *method;

	qml_sql_require_queue(fcinfo, QML_MAY_MONITOR, 1);
	since = read_since(fcinfo);
	queue = qml_args_name_or_null(fcinfo, 1, "queue", QML_MAX_QUEUE_NAME);
	method = qml_args_name_or_null(fcinfo, 2, "method", QML_MAX_NAME);
	if (queue)
	{
		qml_args_check_queue(queue);
		qml_acl_require(QML_CAN_MONITOR, queue);
		if (qml_queue_by_name(queue) == NULL)
			qml_queue_raise_missing(queue);
	}
	InitMaterializedSRF(fcinfo, 0);
	qml_stats_query(since, queue, method, &answer);
	for (int i = 0; i < answer.count; i++)
		store_line(rsinfo, &answer.lines[i], answer.seconds);
	return (Datum) 0;
}

Datum
qml_metrics(PG_FUNCTION_ARGS)
{
	StringInfoData text;

	qml_acl_require_any(QML_CAN_MONITOR);
	initStringInfo(&text);
	qml_metrics_write(&text);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(text.data, text.len));
}

Datum
qml_mark(PG_FUNCTION_ARGS)
{
	qml_acl_require(QML_CAN_ADMIN, NULL);
	PG_RETURN_TIMESTAMPTZ(qml_marks_add(qml_args_name(fcinfo, 0, "label", QML_MAX_NAME)));
}

/* For the view qml.stats_minute: whether the current user sees the rows of a queue. */
Datum
qml_stats_access(PG_FUNCTION_ARGS)
{
	bool may_see = qml_stats_query_may_see(PG_GETARG_INT32(0));

	/* It is called for each row, so who sees it is not asked again. */
	if (!may_see)
		qml_acl_require_any(QML_CAN_MONITOR);
	PG_RETURN_BOOL(may_see);
}

/* For the same: a quantile of a packed histogram; NULL if it is empty, or no histogram. */
Datum
qml_stats_quantile(PG_FUNCTION_ARGS)
{
	uint64 counts[QML_HISTOGRAM_BINS] = {0};
	bytea *packed;
	double quantile;
	int64 usecs;

	qml_acl_require_any(QML_CAN_MONITOR);
	packed = PG_GETARG_BYTEA_PP(0);
	quantile = PG_GETARG_FLOAT8(1);
	if (!(quantile >= 0 && quantile <= 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is out of range", "quantile"),
				 errdetail("It must be from 0 to 1.")));
	if (!qml_histogram_unpack((unsigned char *) VARDATA_ANY(packed), VARSIZE_ANY_EXHDR(packed),
							  counts))
		PG_RETURN_NULL();
	usecs = qml_histogram_quantile(counts, quantile);
	if (usecs < 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(interval_of(usecs));
}
