/*
 * claim_cursor.h
 *		Where the last claims of a background worker stopped.
 */
#ifndef QML_CLAIM_CURSOR_H
#define QML_CLAIM_CURSOR_H

#include "model/job.h"

/* Queues whose position is kept. */
#define QML_MAX_CURSORS 16

/* Behind the last job that was claimed from a queue, in the order of live_ready. */
typedef struct QmlClaimCursor
{
	int queue_id;
	int priority;
	pg_uuid_t id;
} QmlClaimCursor;

/* Why all queues are walked from their beginning. */
typedef enum QmlWalk
{
	QML_WALK_TO_CLAIM = 0,
	QML_WALK_TO_LOOK, /* whether other workers could have more */
	QML_WALKS
} QmlWalk;

extern bool qml_claim_cursor_has(int queue_id);
extern int qml_claim_cursor_list(QmlClaimCursor *cursors);
extern void qml_claim_cursor_advance(const QmlJob *job);
extern void qml_claim_cursor_reset(void);
extern void qml_claim_cursor_walked(QmlWalk walk, double ms);
extern bool qml_claim_cursor_is_recent(QmlWalk walk);

#endif
