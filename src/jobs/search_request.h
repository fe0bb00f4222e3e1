/*
 * search_request.h
 *		What is sought, and what became of it.
 */
#ifndef QML_SEARCH_REQUEST_H
#define QML_SEARCH_REQUEST_H

#include "core/search_query.h"
#include "model/acl.h"
#include "model/job.h"

/* Where a job stands among all: see core/search_order.h. */
typedef struct QmlSearchPlace
{
	int64 order;
	pg_uuid_t id;
} QmlSearchPlace;

/* A query that has been read; it can be used for several searches. */
typedef struct QmlSearchCompiled
{
	QmlSearchQuery query; /* its texts are within it: it must not be moved */
	TimestampTz now;	  /* of its relative times */
} QmlSearchCompiled;

/* A search; what is not given is 0. */
typedef struct QmlSearch
{
	/* Given by the caller. */
	const QmlSearchCompiled *compiled;
	bool has_after;
	QmlSearchPlace after;	/* only jobs behind this one */
	TimestampTz created_by; /* only jobs that were created by then; 0: no bound */
	int most_looked;		/* so many unfinished and so many finished jobs; 0: no limit */

	/* What a job shows of itself; NULL: everything. */
	QmlAccess (*access)(const QmlJob *job, void *arg);

	/*
	 * Called for each job that matches.  Its values are valid until it returns; false ends the search.
	 * It must not change jobs.
	 */
	bool (*use)(const QmlJob *job, const QmlSearchPlace *place, QmlAccess access, void *arg);
	void *arg;

	/* Results. */
	int64 looked;			/* how many jobs were looked at */
	bool is_partial;		/* not at all jobs that could match: */
	bool is_live_partial;	/* - only unfinished ones were left out */
	QmlSearchPlace stopped; /* - those behind this one */
} QmlSearch;

#endif
