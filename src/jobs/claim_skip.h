/*
 * claim_skip.h
 *		Where the jobs begin that a claim with a filter has not passed over yet.
 */
#ifndef QML_CLAIM_SKIP_H
#define QML_CLAIM_SKIP_H

#include "portability/instr_time.h"

#include "ipc/ready_store.h"

/* Jobs of one priority in a queue, up to `front`: the claims of a filter passed over them. */
typedef struct QmlSkip
{
	uint64 filter;
	int queue_id;
	QmlReadyKey front;
	QmlReadyKey swept; /* the second look has come so far */
	bool sweeping;	   /* otherwise it begins at the first job of the priority */
	instr_time looked; /* when it was continued last */
	uint64 used;	   /* when the entry was used last, counted in uses */
} QmlSkip;

/* How far a claim has come beyond what is skipped; all zero at its beginning. */
typedef struct QmlSkipTrail
{
	int priority;
	int passed; /* rows of this priority since `newer` */
	bool has_older;
	bool has_newer;
	QmlReadyKey older;
	QmlReadyKey newer;
} QmlSkipTrail;

extern void qml_claim_skip_init(void);
extern void qml_claim_skip_forget(void);
extern bool qml_claim_skip_find(uint64 filter, int queue_id, int priority, QmlSkip *skip);
extern void qml_claim_skip_pass(QmlSkipTrail *trail, uint64 filter, int queue_id,
								const QmlReadyKey *key);
extern int qml_claim_skip_sweep_rows(const QmlSkip *skip);
extern void qml_claim_skip_swept(const QmlSkip *skip, const QmlReadyKey *last);

#endif
