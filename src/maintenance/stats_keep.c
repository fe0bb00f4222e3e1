/*
 * stats_keep.c
 *		Storing statistics: each minute, and each ten minutes.
 *
 * The scheduler comes at the end of a minute in which something was counted, and writes a row for
 * each series that is concerned.  A row begins with the minute in which the first of it was counted,
 * and ends with the last full minute: usually one later.  If the scheduler was late, or there was
 * none, the row stands for the longer time.
 *
 * At the end of ten minutes it adds up the rows of the minutes into one row for each queue and
 * method.  Which rows it has added up, the last row of ten minutes tells after a restart.
 *
 * Where nothing is counted nothing is written, and the scheduler does not come.
 *
 * What is stored and what is not any more pending are one transaction: a crash at any point loses
 * what is pending in memory, and nothing else.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/fault.h"
#include "ipc/stats_store.h"
#include "maintenance/stats_keep.h"
#include "maintenance/stats_rows.h"
#include "model/catalog.h"

/* A series in which nothing happened for so long may make room for another one, in seconds. */
#define IDLE_AFTER ((TimestampTz) QML_FAULT_LIMIT("stats.idle_s", 3600) * USECS_PER_SEC)

/* No rows of minutes are left to be added up, as far as this process knows. */
static bool all_added = false;

static TimestampTz
floor_to(TimestampTz time, TimestampTz step)
{
	return Max(time, 0) / step * step;
}

/* ----- minutes ----- */

/*
 * Stores what is pending, if a minute has ended since.  Returns when it is to be tried again;
 * QML_NO_TIME: nothing is pending.  *again: the table is locked.
 */
static TimestampTz
store_minute(TimestampTz now, bool *again)
{
	TimestampTz until;
	TimestampTz since = qml_stats_store_take_since(&until);
	TimestampTz through = floor_to(now, QML_STATS_MINUTE);
	QmlStatsView view;
	QmlStatRows rows;

	if (since == QML_NO_TIME)
		return QML_NO_TIME;
	/* After the clock was set back, it is stored as that of the present. */
	since = Min(since, through);
	if (through == since)
		return since + QML_STATS_MINUTE;
	/* The server was down since. */
	if (until > since)
		through = Min(through, until);
	if (!qml_stats_store_read(qml_store(QML_STORE_LOGGED)->live, &view))
		return QML_NO_TIME;
	qml_stats_rows_begin(&rows);
	for (int i = 0; i < view.count; i++)
	{
		const QmlStatSeries *series = &view.series[i];
		QmlStatRow row = {.queue = series->queue,
						  .method = series->method,
						  .length = series->method_length,
						  .counts = series->pending};

		if (qml_stats_counts_any(&series->pending))
			qml_stats_rows_add(&rows, &row);
	}
	if (!qml_stats_rows_write(&rows, QML_STATS_MINUTES, since, through))
	{
		*again = true;
		return now + USECS_PER_SEC;
	}
	QML_FAULT("stats.stored");
	qml_stats_store_stored_at_commit(&view, through);
	all_added = false;
	return QML_NO_TIME;
}

/* ----- ten minutes ----- */

/* Rows that are added up, in the order of queues and methods. */
typedef struct Sum
{
	QmlStatRows rows;
	bool has_row;
	QmlStatRow row;
	char *method; /* of that */
	TimestampTz until;
	MemoryContext context;
} Sum;

static void
end_row(Sum *sum)
{
	if (sum->has_row)
		qml_stats_rows_add(&sum->rows, &sum->row);
	sum->has_row = false;
}

/* Adds a row of a minute. */
static void
add_row(const QmlStatRow *row, void *arg)
{
	Sum *sum = arg;

	sum->until = Max(sum->until, row->until);
	if (!sum->has_row || sum->row.queue != row->queue || sum->row.length != row->length ||
		memcmp(sum->row.method, row->method, row->length) != 0)
	{
		end_row(sum);
		sum->row = *row;
		sum->row.method = memcpy(MemoryContextAlloc(sum->context, Max(row->length, 1)), row->method,
								 row->length);
		sum->has_row = true;
	}
	else
		qml_stats_counts_add(&sum->row.counts, &row->counts);
}

/*
 * Adds up the first ten minutes that are over and have rows, behind those that were added up.
 * Returns when there may be more; QML_NO_TIME: there are no rows.  *again: the table is locked.
 */
static TimestampTz
add_up(TimestampTz now, bool *again)
{
	Sum sum = {.context = CurrentMemoryContext};
	TimestampTz last;
	TimestampTz begin = now - QML_STATS_KEEP_MINUTES;

	if (qml_stats_rows_last(QML_STATS_TENS, DT_NOEND, &last))
		begin = Max(begin, last + QML_STATS_TEN);
	if (!qml_stats_rows_first(QML_STATS_MINUTES, begin, &begin))
	{
		all_added = true;
		return QML_NO_TIME;
	}
	begin = floor_to(begin, QML_STATS_TEN);
	if (begin + QML_STATS_TEN > now)
		return begin + QML_STATS_TEN;
	qml_stats_rows_begin(&sum.rows);
	sum.until = begin;
	qml_stats_rows_read(QML_STATS_MINUTES, begin, begin + QML_STATS_TEN, DT_NOEND, true, add_row,
						&sum);
	end_row(&sum);
	if (qml_stats_rows_write(&sum.rows, QML_STATS_TENS, begin, sum.until))
		return now;
	*again = true;
	return now + USECS_PER_SEC;
}

/* ----- room ----- */

/* Forgets databases that there are not any more. */
static void
drop_databases(void)
{
	Oid *databases = palloc(sizeof(Oid) * QML_STATS_DATABASES);
	int count = qml_stats_store_databases(databases, QML_STATS_DATABASES);

	for (int i = 0; i < count; i++)
	{
		if (!SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(databases[i])))
			qml_stats_store_drop(databases[i]);
	}
	pfree(databases);
}

static TimestampTz
earlier(TimestampTz a, TimestampTz b)
{
	return a == QML_NO_TIME || (b != QML_NO_TIME && b < a) ? b : a;
}

/*
 * Stores what is due, in the caller's transaction; returns when something is due next.  *again: the
 * tables are locked, and it is to be tried again soon.
 */
TimestampTz
qml_stats_keep_run(bool *again)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next;

	*again = false;
	(void) qml_catalog_to_work();
	if (!qml_stats_store_exists())
		return QML_NO_TIME;
	next = store_minute(now, again);
	/* What is stored later would be missing in the sum. */
	if (!*again && !all_added)
		next = earlier(next, add_up(now, again));
	drop_databases();
	qml_stats_store_make_room(now - IDLE_AFTER, now - QML_STATS_KEEP_MINUTES);
	return next;
}
