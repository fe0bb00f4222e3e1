/*
 * search.h
 *		Searching jobs: the newest first.
 */
#ifndef QML_SEARCH_H
#define QML_SEARCH_H

#include "nodes/pg_list.h"
#include "pgtime.h"

#include "jobs/search_request.h"

extern QmlSearchCompiled *qml_search_compile(const char *query, TimestampTz now);
extern QmlSearchCompiled *qml_search_compile_in_zone(const char *query, TimestampTz now,
													 pg_tz *zone);
extern List *qml_search_queues(const QmlSearchCompiled *compiled);
extern bool qml_search_is_empty(const QmlSearchCompiled *compiled);
extern QmlSearchPlace qml_search_place(const QmlJob *job);
extern bool qml_search_find_place(const pg_uuid_t *id,
								  QmlAccess (*access)(const QmlJob *job, void *arg), void *arg,
								  QmlSearchPlace *place);
extern void qml_search_run(QmlSearch *search);

#endif
