/*
 * retries.c
 *		Whether another attempt may follow one that failed.
 *
 * max_retries bounds their number; the retry policy, of the handler or of the queue, may
 * allow none at all.  Those who end attempts (jobs/transition.c) and those who show jobs
 * (model/job.c, the view qml.job) ask here, so that retries_left is what happens.  The
 * policies are those that count now: they may have changed since the job was enqueued.
 *
 * The number of a job may come from a time at which something else ran its method, and be
 * the default of a queue or of a function.  That is no wish to run a command twice, so the job
 * then has no more retries than the command's option says, which are none by default.
 */
#include "postgres.h"

#include "model/job.h"
#include "model/queue.h"
#include "userfn/hook_job.h"
#include "userfn/retries.h"

/* The policy for jobs of a queue that have this handler, or NULL: the handler's or the queue's. */
const QmlRetryPolicy *
qml_retries_policy(int queue_id, const QmlHandler *handler)
{
	return handler && handler->options.common.has_retry ?
			   &handler->options.common.retry :
			   &qml_queue_require(queue_id)->options.retry;
}

/*
 * How many retries a job may have in all that has this handler, or NULL.  None if it was the call
 * of a hook that is gone: nobody would run it.
 */
int
qml_retries_most(const QmlJob *job, const QmlHandler *handler)
{
	if (qml_retries_policy(job->queue_id, handler)->strategy == QML_RETRY_NONE ||
		(handler == NULL && qml_queue_is_own(job->queue_id)))
		return 0;
	if (handler && handler->command && !job->retries_asked)
		return Min(job->max_retries, handler->options.common.max_retries);
	return job->max_retries;
}

static int
look_up_most(const QmlJob *job)
{
	return qml_retries_most(job, qml_hook_job_handler(job));
}

/* Rows of jobs are made in a layer that knows no handlers. */
void
qml_retries_init(void)
{
	qml_job_init(look_up_most);
}
