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

#include "core/retention.h"
#include "core/retry.h"
#include "core/state.h"
#include "errcodes.h"
#include "jobs/transition.h"
#include "model/lineage.h"
#include "model/queue.h"
#include "userfn/hook_job.h"
#include "userfn/retries.h"

/* Which states may follow one, for a hint. */
static char *
describe_next(QmlState from)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int to = 0; to < QML_STATES; to++)
	{
		if (qml_state_allowed(from, (QmlState) to))
			appendStringInfo(&list, "%s%s", list.len ? ", " : "", qml_state_label((QmlState) to));
	}
	if (list.len == 0)
		return psprintf("No state may follow %s.", qml_state_label(from));
	return psprintf("%s may be followed by: %s.", qml_state_label(from), list.data);
}

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
				 errhint("%s", describe_next(from))));

	job->state = to;
	job->changed_at = now;
	/* A delayed job has been ready since it was due, however late it was promoted. */
	if (job->run_at != QML_NO_TIME)
		job->ready_at = job->run_at;
	if (to == QML_ENQUEUED && (job->run_at == QML_NO_TIME || job->run_at > now))
		job->ready_at = now;
	job->run_at = QML_NO_TIME;
	job->lease_expires_at = QML_NO_TIME;
	if (qml_state_is_final(to))
	{
		/* A finished job that is deleted stays in the partition it is in. */
		if (!qml_state_is_final(from))
			job->expires_at = qml_retention_end(now, qml_queue_ttl(qml_queue_require(job->queue_id),
																   to == QML_FAILED));
		job->finished_at = now;
		return;
	}

	job->worker = (Datum) 0;
	job->server = (Datum) 0;
	if (to == QML_PROCESSING)
	{
		/* Counted when it begins, so that a job which kills its worker ends. */
		qml_lineage_next_attempt(job);
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

/* Whether a failed attempt may be followed by another one. */
static bool
has_retry_left(const QmlJob *job, const QmlHandler *handler)
{
	return qml_job_tries(job) <= qml_retries_most(job, handler);
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
	const QmlHandler *handler = qml_hook_job_handler(job);
	const QmlRetryPolicy *policy = qml_retries_policy(job->queue_id, handler);
	int failures = qml_job_tries(job);

	qml_job_add_error(job, error, now);
	if (!retry || !has_retry_left(job, handler) ||
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

/*
 * Ends an attempt that gives its claim back, and does not count.  The job is ready at once,
 * or waits if run_at is still to come.  A reason replaces the one that the job has.
 */
void
qml_transition_release(QmlJob *job, TimestampTz run_at, Datum reason, TimestampTz now)
{
	bool later = run_at != QML_NO_TIME && run_at > now;

	/* The same as for a handler that wants to run again later: the job has been begun. */
	qml_transition_set(job, later ? QML_AWAITING_RETRY : QML_ENQUEUED, now);
	if (later)
		job->run_at = run_at;
	job->uncounted++;
	job->released = true;
	if (reason != (Datum) 0)
		job->reason = reason;
}

/* Deletes the job, whatever it is doing, for this reason or for none. */
void
qml_transition_delete(QmlJob *job, Datum reason, TimestampTz now)
{
	qml_transition_set(job, QML_DELETED, now);
	job->reason = reason;
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
	job->lost = true;
}

/*
 * Ends an attempt whose worker is lost: enqueued again without backoff, because it is
 * not known to have failed; failed if no retry is left.
 */
void
qml_transition_lose(QmlJob *job, const char *reason, const char *error_type, TimestampTz now)
{
	const QmlHandler *handler = qml_hook_job_handler(job);
	bool again = has_retry_left(job, handler);

	end_lost_attempt(job, reason, error_type, again ? QML_ENQUEUED : QML_FAILED, now);
}

/* The same for a job that must not be tried again: failed, whatever retries are left. */
void
qml_transition_give_up(QmlJob *job, const char *reason, const char *error_type, TimestampTz now)
{
	end_lost_attempt(job, reason, error_type, QML_FAILED, now);
}
