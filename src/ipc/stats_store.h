/*
 * stats_store.h
 *		Counts and durations of jobs by queue and method, in shared memory.
 */
#ifndef QML_STATS_STORE_H
#define QML_STATS_STORE_H

#include "utils/timestamp.h"

#include "ipc/stats_note.h"
#include "qml.h"

/* A series as it was at one moment. */
typedef struct QmlStatSeries
{
	QmlStatPlace place;
	int queue; /* 0: all that have no series of their own */
	int method_length;
	char method[QML_STAT_METHOD];
	QmlStatCounts total;   /* since it began */
	QmlStatCounts pending; /* of these, what is not stored yet */
} QmlStatSeries;

/* What is known of a database. */
typedef struct QmlStatsView
{
	int count;
	QmlStatSeries *series;
	TimestampTz since; /* when the first of what is pending began; QML_NO_TIME: nothing is */
	TimestampTz stored_through; /* what is before is stored */
	uint64 missed;				/* events for which there was no room, of all databases */
	int capacity;				/* series that there can be, of all databases */
} QmlStatsView;

extern void qml_stats_store_init(void);
extern bool qml_stats_store_exists(void);

/* For sessions that write jobs. */
extern QmlStatPlace qml_stats_store_find(Oid live, int queue, const char *method, int length);
extern bool qml_stats_store_is(QmlStatPlace place);
extern uint32 qml_stats_store_version(void);
extern void qml_stats_store_add(const QmlStatNote *notes, size_t step, int count);
extern void qml_stats_store_miss(uint64 count);

/* For readers, and whoever stores what is pending. */
extern bool qml_stats_store_read(Oid live, QmlStatsView *view);
extern TimestampTz qml_stats_store_take_since(TimestampTz *until);
extern void qml_stats_store_stored_at_commit(const QmlStatsView *view, TimestampTz through);
extern int qml_stats_store_databases(Oid *databases, int most);
extern void qml_stats_store_drop(Oid database);
extern void qml_stats_store_make_room(TimestampTz idle_since, TimestampTz left_since);

#endif
