/*
 * job_pass.h
 *		Passes over unfinished jobs that change those that need it.
 */
#ifndef QML_JOB_PASS_H
#define QML_JOB_PASS_H

#include "common/row_pass.h"
#include "common/walk.h"
#include "jobs/pass_failures.h"
#include "jobs/writer.h"

typedef struct QmlJobPass
{
	/* Given by the caller. */
	bool (*wants)(struct QmlJobPass *pass, TupleTableSlot *slot); /* a row of qml.live */
	void (*change)(struct QmlJobPass *pass, QmlJob *job);
	const void *arg; /* of these two */
	int max;		 /* jobs to change; 0: all, by id */
	QmlWalk *walk;	 /* of qml_job_pass_over_all: this is a piece of it; NULL: all at once */

	bool *changed; /* of qml_job_pass_by_id: which of them were; NULL: nobody asks */

	/* Results.  A pass may start anew: all are reset then. */
	int at; /* of qml_job_pass_by_id, for `wants`: the number of the id; then how many were looked at */
	int count;				/* jobs changed */
	int missed;				/* jobs that are wanted, and could not be changed */
	bool over;				/* the end of the table was reached */
	TimestampTz now;		/* of the walk, not before anything that its snapshot shows */
	TimestampTz next_lease; /* written by `wants`: the earliest one that is not over */

	/* Used by job_pass.c alone. */
	QmlRowPass rows;
	QmlWriter writer;
	const pg_uuid_t *ids; /* of qml_job_pass_by_id */
	int nids;
	QmlWalk reached;		  /* how far this piece has come */
	QmlPassFailures failures; /* for the warning */
} QmlJobPass;

extern void qml_job_pass_over_due(QmlJobPass *pass);
extern void qml_job_pass_over_all(QmlJobPass *pass);
extern void qml_job_pass_by_id(QmlJobPass *pass, const pg_uuid_t *ids, int count);

#endif
