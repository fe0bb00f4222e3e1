/*
 * transition.c
 *		The state machine at work on a job in memory.
 *
 * qml_transition_set() is the only function that changes the state of a job.  It asks
 * the one transition table (core/state.c) and sets the columns that belong to the new
 * state.  The other functions here end an attempt and decide which state follows:
 * they read the retry policy of the handler or the queue.
 *
 * Nothing is written and no lock is taken: jobs/writer.c brings the changed job back
 * into its table.  If another transaction was faster, the change is made again from
 * what is stored, so a change that was not written leaves nothing behind.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/builtins.h"

#include "core/retry.h"
#include "core/state.h"
#include "errcodes.h"
#include "jobs/transition.h"
#include "model/queue.h"
#include "userfn/handler.h"

/*
 * Gives the job another state, or raises QM002.  What depends on the caller (run_at,
 * lease, worker, result, reason) is set by the caller afterwards.
 */
void
qml_transition_set(QmlJob *job, QmlState to, TimestampTz now)
{
	QmlState from = job->state;

	if (!qml_state_allowed(from, to))
		ereport(ERROR,
				(errcode(ERRCODE_QML_INVALID_STATE_TRANSITION),
				 errmsg("job %s cannot go from state %s to %s", qml_job_id_string(&job->id),
						qml_state_label(from), qml_state_label(to)),
				 errhint("qml_can_transition() shows which transitions are allowed.")));

	job->state = to;
	job->run_at = QML_NO_TIME;
	job->lease_expires_at = QML_NO_TIME;
	if (qml_state_is_final(to))
	{
		/* A finished job that is deleted stays in the partition it is in. */
		if (!qml_state_is_final(from))
			job->expires_at = now +
							  qml_queue_ttl(qml_queue_require(job->queue_id), to == QML_FAILED);
		job->finished_at = now;
		return;
	}

	job->worker = (Datum) 0;
	job->server = (Datum) 0;
	if (to == QML_PROCESSING)
	{
		/* Counted when it begins, so that a job which kills its worker ends. */
		job->attempt++;
		job->started_at = now;
	}
	if (from == QML_FAILED)
	{
		/*
		 * All retries are there again.  The number of the attempt goes on: it is
		 * the token of a claim, and an old one must never be valid again.
		 */
		job->uncounted = job->attempt;
		qml_job_forgive(job, QML_SERVER_DOWN);
		job->finished_at = QML_NO_TIME;
		job->expires_at = QML_NO_TIME;
		job->result = (Datum) 0;
	}
}

/* The handler's, if it has one, or the queue's. */
static const QmlRetryPolicy *
retry_policy(const QmlJob *job, const QmlHandler *handler)
{
	return handler && handler->options.common.has_retry ?
			   &handler->options.common.retry :
			   &qml_queue_require(job->queue_id)->options.retry;
}

/* Whether a failed attempt may be followed by another one. */
static bool
has_retry_left(const QmlJob *job, const QmlRetryPolicy *policy)
{
	return job->attempt - job->uncounted <= job->max_retries && policy->strategy != QML_RETRY_NONE;
}

/*
 * Ends an attempt with an error: awaiting_retry while retries are left and wanted and
 * the handler does not call this type of error final; failed otherwise.  retry_at, if
 * given, replaces the backoff.
 */
void
qml_transition_fail(QmlJob *job, const QmlJobError *error, bool retry, TimestampTz retry_at,
					TimestampTz now)
{
	const QmlHandler *handler = qml_handler_of(job->method);
	const QmlRetryPolicy *policy = retry_policy(job, handler);
	int failures = job->attempt - job->uncounted;

	qml_job_add_error(job, error, now);
	if (!retry || !has_retry_left(job, policy) ||
		(handler && error->error_type != (Datum) 0 &&
		 qml_handler_never_retries(handler, TextDatumGetCString(error->error_type))))
	{
		qml_transition_set(job, QML_FAILED, now);
		return;
	}
	/* What core/retry.c, which has no assertions, relies on. */
	Assert(failures >= 1 && policy->strategy != QML_RETRY_NONE);
	if (retry_at == QML_NO_TIME)
		retry_at = now + (int64) (qml_retry_delay(policy, failures,
												  pg_prng_double(&pg_global_prng_state)) *
								  USECS_PER_SEC);
	qml_transition_set(job, QML_AWAITING_RETRY, now);
	job->run_at = retry_at;
}

/* The attempt ends with an error that says how it was lost. */
static void
end_lost_attempt(QmlJob *job, const char *reason, const char *error_type, QmlState state,
				 TimestampTz now)
{
	QmlJobError error = {.error = CStringGetTextDatum(reason),
						 .error_type = CStringGetTextDatum(error_type)};

	qml_job_add_error(job, &error, now);
	qml_transition_set(job, state, now);
}

/*
 * Ends an attempt whose worker is lost: enqueued again without backoff, because it is
 * not known to have failed; failed if no retry is left.
 */
void
qml_transition_lose(QmlJob *job, const char *reason, const char *error_type, TimestampTz now)
{
	const QmlRetryPolicy *policy = retry_policy(job, qml_handler_of(job->method));

	end_lost_attempt(job, reason, error_type,
					 has_retry_left(job, policy) ? QML_ENQUEUED : QML_FAILED, now);
}

/* The same for a job that must not be tried again: failed, whatever retries are left. */
void
qml_transition_give_up(QmlJob *job, const char *reason, const char *error_type, TimestampTz now)
{
	end_lost_attempt(job, reason, error_type, QML_FAILED, now);
}
