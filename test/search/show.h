/*
 * show.h
 *		Queries of the tests: a clock, and a query as text.
 */
#ifndef SHOW_H
#define SHOW_H

#include "core/search_query.h"

/* Room for what show_query() and write_query() make of the longest query. */
#define SHOWN_LENGTH (16 * QML_SEARCH_MAX_LENGTH + 16 * 200)

/* It is noon on 2026-12-01 in UTC. */
#define TEST_NOW (INT64_C(1796126400) * 1000000)

/* Times without a zone are those of a zone that was two hours ahead of UTC from 2026-03-29 01:00 UTC
 * to 2026-10-25 01:00 UTC, and else one hour. */
extern const QmlSearchClock test_clock;

/* Times without a zone are UTC. */
extern const QmlSearchClock utc_clock;

extern void show_query(const QmlSearchQuery *query, char *out);
extern void show_error(const char *query, const QmlSearchError *error, char *out);
extern void show_time(int64_t at, char *out);
extern bool write_query(const QmlSearchQuery *query, char *out);

#endif
