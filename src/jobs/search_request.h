/*
 * search_request.h
 *		What is sought, and what became of it.
 */
#ifndef QML_SEARCH_REQUEST_H
#define QML_SEARCH_REQUEST_H

#include "storage/itemptr.h"

#include "core/search_query.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/job.h"

/* Where a job stands among all: see core/search_order.h. */
typedef struct QmlSearchPlace
{
	int64 order;
	pg_uuid_t id;
} QmlSearchPlace;

/* The row of a job that was found: it may have changed since. */
typedef struct QmlSearchRow
{
	QmlStoreId store;
	bool live; /* not finished */
	Oid relid;
	ItemPointerData tid;
} QmlSearchRow;

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
	bool stops_for_all;		/* it ends where either is reached, and has left out nothing before */
	int states;				/* only jobs in these states, a bit each; 0: in any */
	const pg_uuid_t *ids;	/* only these jobs, each named once; NULL: all */
	int nids;

	/* What a job shows of itself; NULL: everything. */
	QmlAccess (*access)(const QmlJob *job, void *arg);

	/*
	 * Called for each job that matches.  Its values are valid until it returns; false ends the search.
	 * It must not change jobs.
	 */
	bool (*use)(const QmlJob *job, const QmlSearchPlace *place, QmlAccess access, void *arg);
	void *arg;

	QmlSearchRow row; /* for `use`: that of the job */

	/* Results. */
	int64 looked;	 /* how many jobs were looked at */
	bool is_partial; /* not at those that could match and are behind this place: */
	QmlSearchPlace stopped;
	bool is_live_partial; /* not at unfinished ones behind this place: */
	QmlSearchPlace live_stopped;
} QmlSearch;

#endif
