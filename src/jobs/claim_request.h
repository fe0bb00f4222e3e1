/*
 * claim_request.h
 *		What a claim asks for.
 */
#ifndef QML_CLAIM_REQUEST_H
#define QML_CLAIM_REQUEST_H

#include "ipc/ready_list.h"
#include "ipc/shmem.h"
#include "jobs/method_set.h"
#include "model/job.h"

#define QML_LEASE_OF_QUEUE (-1)
/* A claim without a lease is bound to the session: see ipc/session_claim.c. */
#define QML_NO_LEASE 0

/* What to do about a ready job. */
typedef enum QmlChoice
{
	QML_TAKE,
	QML_PASS_OVER,
	QML_STOP /* this one and all behind it */
} QmlChoice;

/* Whether a full batch left jobs for other workers. */
typedef enum QmlMore
{
	QML_NO_MORE = 0,
	QML_MORE,
	QML_MAYBE_MORE, /* it would take long to find out */
	QML_UNFINISHED, /* it has claimed nothing within its time, and goes on with the next call */
	QML_SKIPPED		/* of a peek: none was seen, but some jobs were skipped, see claim_skip.c */
} QmlMore;

typedef struct QmlClaim
{
	Datum worker;  /* text */
	Datum server;  /* text, 0: none */
	char **queues; /* NULL: all that the caller may work */
	int nqueues;
	const QmlMethodSet *methods; /* NULL: all that have no handler; a background worker's: all */
	int batch;
	int64 lease; /* microseconds, or one of the above */
	bool peek;	 /* only say whether there is a job; nothing is claimed */
	bool whole;	 /* of a peek: nothing is skipped */
	bool drains; /* of jobs/drain.c: it is no worker's, and goes on at jobs/drain_cursor.c */

	const QmlReadyJobs *kind; /* peek for one of this kind; NULL: for any */

	/*
	 * Of background workers, which need no rights and claim from all queues; NULL for
	 * all others.  wants: whether another worker could have a job that this one leaves.
	 * limit_ms: how long the call may look at jobs.
	 */
	int limit_ms;
	QmlReadyMatch could_choose; /* by the hash of the method; not for jobs that call hooks */
	QmlChoice (*choose)(const QmlJob *job, void *arg);
	bool (*wants)(const QmlJob *job, void *arg);

	/* Gets each job that is claimed; the job's values hold until it returns. */
	void (*take)(const QmlJob *job, void *arg);
	void *arg; /* of all of them */
} QmlClaim;

#endif
