/*
 * search_plan.h
 *		By which indexes jobs are sought.
 */
#ifndef QML_SEARCH_PLAN_H
#define QML_SEARCH_PLAN_H

#include "jobs/search_stream.h"

/* Streams that give all jobs which can match, each job once. */
typedef struct QmlSearchPlan
{
	const QmlSearch *search;
	TimestampTz now;
	Snapshot snapshot;
	List *tables;  /* of QmlSearchTable */
	List *indexes; /* open ones */
	QmlSearchStream **streams;
	int nstreams;
	int room;

	/* Claims that run, as memory knows them; some are there twice. */
	bool knows_running;
	int nrunning;
	pg_uuid_t *running;
} QmlSearchPlan;

extern QmlSearchPlan *qml_search_plan_begin(const QmlSearch *search, TimestampTz now);
extern void qml_search_plan_open(QmlSearchPlan *plan, Snapshot snapshot);
extern void qml_search_plan_close(QmlSearchPlan *plan);

#endif
