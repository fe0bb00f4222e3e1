/*
 * claim_state.h
 *		One call that claims, and what it does with each ready job that it finds.
 */
#ifndef QML_CLAIM_STATE_H
#define QML_CLAIM_STATE_H

#include "portability/instr_time.h"

#include "jobs/claim_cursor.h"
#include "jobs/claim_filter.h"
#include "jobs/claim_request.h"
#include "jobs/writer.h"
#include "model/catalog.h"
#include "model/queue.h"

/* One call. */
typedef struct QmlClaimState
{
	const QmlClaim *claim;
	QmlClaimFilter filter;
	QmlWriter writer;
	Relation ready;				  /* of the tables that the writer works on */
	Relation indexes[QML_STORES]; /* NULL: not open yet */
	TimestampTz now;
	int count;
	bool has_lists;	 /* queues have lists of ready jobs */
	bool listing;	 /* the jobs of one are gone through */
	bool searches;	 /* a background worker searches the index for what lists do not have */
	bool incomplete; /* some did not have all */
	bool has_moved;	 /* the jobs of the queue at work are in other tables by now */
	int lost;		 /* ready in the snapshot of a search, and taken by others since */
	int held;		 /* another transaction has the row */
	bool skipped;	 /* some jobs were not looked at, because of what earlier claims saw */
	bool full;		 /* takes no more */
	QmlMore more;	 /* whether there are jobs for others */
	int looked;		 /* how many were looked at for that */
	bool resuming;	 /* queues that have a cursor are done */

	/* Of a background worker. */
	instr_time began;
	unsigned visited;  /* jobs and queues */
	bool late;		   /* its time is over */
	QmlClaimPlace end; /* how far it has come then */
} QmlClaimState;

/* Whether a background worker claims, which needs no rights. */
static inline bool
qml_claim_is_background(const QmlClaim *claim)
{
	return claim->choose != NULL;
}

extern TM_Result qml_claim_row(QmlClaimState *state, const QmlQueue *queue);
extern bool qml_claim_is_done(const QmlClaimState *state);
extern bool qml_claim_count_visit(QmlClaimState *state);
extern void qml_claim_look_for_more(QmlClaimState *state);
extern void qml_claim_look_for_kind(QmlClaimState *state);

#endif
