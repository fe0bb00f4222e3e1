/*
 * bulk_chunk.h
 *		Some of the jobs of a bulk operation, in one transaction.
 */
#ifndef QML_BULK_CHUNK_H
#define QML_BULK_CHUNK_H

#include "jobs/bulk_action.h"
#include "jobs/search_request.h"

typedef struct QmlBulkChunk
{
	/* Given by the caller. */
	const QmlBulkAction *action;
	const QmlQueue *queue; /* that the action names, locked; NULL: none */
	const QmlSearchCompiled *compiled;
	TimestampTz made_at; /* jobs that were created later are not meant */
	bool has_after;
	QmlSearchPlace after;
	const pg_uuid_t *ids; /* only these jobs; NULL: all */
	int nids;
	int most_jobs;
	int most_looked;

	/* Results. */
	bool over;				/* there are no more jobs */
	QmlSearchPlace reached; /* if not: jobs behind this one follow */
	int64 looked;
	int met;						 /* jobs that were to be changed */
	int64 counts[QML_BULK_OUTCOMES]; /* without jobs that others have */
	pg_uuid_t *held;				 /* those */
	int nheld;
	char *error; /* of the last job that could not be changed; NULL: none */
} QmlBulkChunk;

/* How many jobs of a queue, method and state an action would change. */
typedef struct QmlBulkGroup
{
	int queue_id;
	QmlState state;
	char *method;
	int64 count;
} QmlBulkGroup;

extern void qml_bulk_chunk_run(QmlBulkChunk *chunk);
extern int qml_bulk_chunk_preview(const QmlBulkAction *action, const QmlSearchCompiled *compiled,
								  QmlBulkGroup **groups);

#endif
