/*
 * stats_rows.h
 *		Statistics as rows of qml.stats_data.
 */
#ifndef QML_STATS_ROWS_H
#define QML_STATS_ROWS_H

#include "ipc/stats_store.h"

/* How long rows of each kind stand for, and how long they are kept. */
typedef enum QmlStatsSpan
{
	QML_STATS_MINUTES = 0,
	QML_STATS_TENS /* of minutes */
} QmlStatsSpan;

#define QML_STATS_TEN		   (10 * QML_STATS_MINUTE)
#define QML_STATS_KEEP_MINUTES (24 * USECS_PER_HOUR)
#define QML_STATS_KEEP_TENS	   (7 * USECS_PER_DAY)

/* What was counted of a queue and a method from a time on, up to another one. */
typedef struct QmlStatRow
{
	TimestampTz at;
	TimestampTz until;
	int queue;			/* 0: all that have no series of their own */
	const char *method; /* not terminated */
	int length;
	QmlStatCounts counts;
} QmlStatRow;

/* Rows that are gathered to be written. */
typedef struct QmlStatRows
{
	int count;
	int room;
	Datum **columns; /* by column of the statement, then by row */
	MemoryContext context;
} QmlStatRows;

extern void qml_stats_rows_begin(QmlStatRows *rows);
extern void qml_stats_rows_add(QmlStatRows *rows, const QmlStatRow *row);
extern bool qml_stats_rows_write(QmlStatRows *rows, QmlStatsSpan span, TimestampTz at,
								 TimestampTz until);
extern void qml_stats_rows_read(QmlStatsSpan span, TimestampTz from, TimestampTz before,
								TimestampTz stored_through, bool in_order,
								void (*take)(const QmlStatRow *row, void *arg), void *arg);
extern bool qml_stats_rows_first(QmlStatsSpan span, TimestampTz from, TimestampTz *at);
extern bool qml_stats_rows_last(QmlStatsSpan span, TimestampTz stored_through, TimestampTz *at);
extern void qml_stats_rows_forget(void);

extern void qml_stats_counts_add(QmlStatCounts *counts, const QmlStatCounts *more);
extern uint64 qml_stats_counts_sum(const uint64 *bins);
extern bool qml_stats_counts_any(const QmlStatCounts *counts);

#endif
