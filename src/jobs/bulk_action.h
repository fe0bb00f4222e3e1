/*
 * bulk_action.h
 *		What a bulk operation does to a job.
 */
#ifndef QML_BULK_ACTION_H
#define QML_BULK_ACTION_H

#include "utils/jsonb.h"

#include "model/job.h"
#include "model/options.h"
#include "model/queue.h"

typedef enum QmlBulkKind
{
	QML_BULK_RETRY = 0,
	QML_BULK_DELETE,
	QML_BULK_MOVE,
	QML_BULK_PRIORITY,
	QML_BULK_REDRIVE
} QmlBulkKind;

typedef struct QmlBulkAction
{
	QmlBulkKind kind;
	int states; /* in which it can be done to a job: a bit each */
	bool all;	/* a query that names nothing is meant */
	QmlJobChanges changes;
	Datum patch;  /* of the payload, jsonb; 0: none */
	Datum reason; /* of a deletion, text; 0: none */
} QmlBulkAction;

/* What became of a job. */
typedef enum QmlBulkOutcome
{
	QML_BULK_CHANGED = 0,
	QML_BULK_UNCHANGED,		/* it was so already */
	QML_BULK_NOT_PERMITTED, /* the role may not administer its queue */
	QML_BULK_GONE,			/* it has changed meanwhile, and is not meant any more */
	QML_BULK_HELD,			/* others had its row, or what it lies in, all the time */
	QML_BULK_FAILED,		/* with an error */
	QML_BULK_OUTCOMES
} QmlBulkOutcome;

extern const char *const qml_bulk_outcome_names[QML_BULK_OUTCOMES];

extern void qml_bulk_action_begin(const char *name, QmlBulkAction *action);
extern void qml_bulk_action_parse(const char *name, Jsonb *options, QmlBulkAction *action);
extern QmlBulkOutcome qml_bulk_action_apply(const QmlBulkAction *action, const QmlQueue *queue,
											QmlJob *job, TimestampTz now);

#endif
