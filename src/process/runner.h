/*
 * runner.h
 *		The state that the files share which run jobs: one of it in each worker.
 *
 * Each field names the file that writes it; the others only read it.  What signal
 * handlers touch is not here but in job_stop.c.
 */
#ifndef QML_RUNNER_H
#define QML_RUNNER_H

#include "jobs/attempt.h"
#include "process/concurrency.h"

/*
 * Jobs of a group, and of a claim.  Each has a subtransaction, and a snapshot remembers
 * 64 of each process (PGPROC_MAX_CACHED_SUBXIDS); a few are left for the commit.
 */
#define QML_GROUP_MAX_JOBS 60

/* How long a group may delay the first of its jobs, not counting the commit. */
#define QML_GROUP_MAX_MS 8

/* Jobs that were claimed together. */
typedef struct QmlBatch
{
	MemoryContext context; /* of the values of its attempts; reset when it is emptied */
	QmlAttempt attempts[QML_GROUP_MAX_JOBS];
	int count; /* batch.c */
	int done;  /* the first ones are over and recorded; run.c, group.c, alone.c */
	QmlConcurrency concurrency;
} QmlBatch;

typedef struct QmlRunner
{
	QmlSlot *slot;			   /* of this process; set once */
	QmlBatch batches[2];	   /* the one that is being run, and the next */
	QmlBatch *batch;		   /* the one that is being run; batch.c */
	int batch_size;			   /* how many jobs to claim; run.c */
	double spent_ms;		   /* in handlers, in this step; reset by run.c, added to by group.c
								* and alone.c */
	MemoryContext job_context; /* what a job allocates; reset after it, by group.c and alone.c */
	QmlAttempt *recording;	   /* whose end is being written; record.c; reset by execute.c,
								* group.c */
	bool claiming_ahead;	 /* an error is the claim's, not that of the jobs before it; batch.c */
	bool claim_ahead_failed; /* none is made until a claim succeeds; batch.c */
	bool searching;			 /* the last claim has not come to the end of the jobs; batch.c */
} QmlRunner;

#endif
