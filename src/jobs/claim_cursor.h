/*
 * claim_cursor.h
 *		Where the last claims of a background worker stopped.
 */
#ifndef QML_CLAIM_CURSOR_H
#define QML_CLAIM_CURSOR_H

#include "ipc/ready_store.h"
#include "model/job.h"

/* Queues whose position is kept. */
#define QML_MAX_CURSORS 16

/* Behind the last job that was claimed from a queue, in the order of live_ready. */
typedef struct QmlClaimCursor
{
	int queue_id;
	QmlReadyKey key;
} QmlClaimCursor;

/* How far a claim has come in the order of queues. */
typedef struct QmlClaimPlace
{
	bool in_queue; /* behind a job of the queue; if not, behind the queue */
	QmlClaimCursor cursor;
} QmlClaimPlace;

/* A walk over all queues that is to claim. */
typedef struct QmlClaimWalk
{
	bool running; /* it goes on with the next claim */
	int first;	  /* it begins behind this queue, */
	bool wrapped; /* and has gone on with the first one */
	QmlClaimPlace place;
	double ms; /* that it has taken so far */
} QmlClaimWalk;

/* Why all queues are walked from their beginning. */
typedef enum QmlClaimWalkKind
{
	QML_WALK_TO_CLAIM = 0,
	QML_WALK_TO_LOOK, /* whether other workers could have more */
	QML_WALKS
} QmlClaimWalkKind;

extern bool qml_claim_cursor_has(int queue_id);
extern int qml_claim_cursor_list(QmlClaimCursor *cursors);
extern void qml_claim_cursor_advance(const QmlJob *job);
extern void qml_claim_cursor_set(const QmlClaimCursor *place);
extern QmlClaimWalk *qml_claim_cursor_walk(int first);
extern bool qml_claim_cursor_is_walking(void);
extern void qml_claim_cursor_walked(QmlClaimWalkKind kind, double ms, bool over);
extern bool qml_claim_cursor_is_recent(QmlClaimWalkKind kind);

#endif
