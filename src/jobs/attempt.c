/*
 * attempt.c
 *		An attempt of a job: how it ends, and what of that is written into the job.
 *
 * attempt.state is decided in memory first: by the handler's return, by an error
 * (qml_attempt_judge), or by what keeps the job from being run.  qml_attempt_finish()
 * then writes it into the job's row, if the row still belongs to the attempt: it is
 * processing, with the same attempt number, which is the fencing token of a claim.
 * Nothing here takes a lock or begins a transaction; a crash loses the decision, and
 * the job is reclaimed.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datum.h"

#include "common/fault.h"
#include "common/report.h"
#include "errcodes.h"
#include "jobs/attempt.h"
#include "jobs/transition.h"
#include "userfn/call.h"

/* Whether the job's row still belongs to the attempt.  If not, it never will again. */
static bool
is_held(QmlAttempt *attempt, const QmlJob *job)
{
	if (job->state == QML_PROCESSING && job->attempt == attempt->job.attempt)
		return true;
	attempt->state = QML_ATTEMPT_LOST;
	return false;
}

/* Whether the end of the attempt commits effects of the handler with it. */
bool
qml_attempt_has_effects(const QmlAttempt *attempt)
{
	return !attempt->committed &&
		   (attempt->state == QML_ATTEMPT_SUCCEEDED || attempt->state == QML_ATTEMPT_RETRY_LATER ||
			attempt->state == QML_ATTEMPT_DISCARDED);
}

/* A QmlChange that changes nothing: only finds out whether the attempt is lost. */
bool
qml_attempt_check_held(QmlJob *job, void *arg)
{
	(void) is_held(arg, job);
	return false;
}

/* A QmlChange: ends the attempt in its job's row, unless the attempt is lost. */
bool
qml_attempt_finish(QmlJob *job, void *arg)
{
	QmlAttempt *attempt = arg;
	TimestampTz now = GetCurrentTimestamp();

	if (!is_held(attempt, job))
		return false;
	if (attempt->progress != (Datum) 0)
		job->progress = attempt->progress;
	switch (attempt->state)
	{
		case QML_ATTEMPT_SUCCEEDED:
			qml_transition_set(job, QML_SUCCEEDED, now);
			job->result = attempt->result;
			break;
		case QML_ATTEMPT_RETRY_LATER:
			Assert(attempt->delay > 0);
			qml_transition_release(job, now + attempt->delay, attempt->reason, now);
			break;
		case QML_ATTEMPT_DISCARDED:
			qml_transition_delete(job, attempt->reason, now);
			break;
		case QML_ATTEMPT_FAILED:
			qml_transition_fail(job, &attempt->error, attempt->retry, attempt->retry_at, now);
			break;
		default:
			Assert(attempt->state == QML_ATTEMPT_RELEASED);
			qml_transition_release(job, QML_NO_TIME, (Datum) 0, now);
			break;
	}
	job->told = true;
	QML_FAULT("finish.before_update");
	return true;
}

/*
 * The attempt has failed.  message: NULL, if the error has none; type: as it stands in the
 * job's errors.
 */
void
qml_attempt_fail(QmlAttempt *attempt, const char *message, const char *type, Datum stack_trace,
				 bool retry)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(attempt->context);

	attempt->state = QML_ATTEMPT_FAILED;
	attempt->retry = retry;
	attempt->retry_at = QML_NO_TIME;
	attempt->error.error = qml_report_message(message);
	attempt->error.error_type = CStringGetTextDatum(type);
	attempt->error.stack_trace = stack_trace;
	MemoryContextSwitchTo(oldcontext);
}

/* Appends a part of an error, if it has it, or what of it can be kept: it may be very long. */
static void
append_part(StringInfo buffer, const char *name, const char *text)
{
	if (text)
		appendStringInfo(buffer, "%s: %.*s\n", name,
						 pg_mbcliplen(text, strlen(text), QML_MAX_STACK_TRACE), text);
}

/* The attempt has failed with an error of the handler: keeps what the server says of it. */
static void
fail_with_error(QmlAttempt *attempt, const ErrorData *error)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(attempt->context);
	StringInfoData buffer;
	Datum stack_trace = (Datum) 0;
	bool retry;

	initStringInfo(&buffer);
	append_part(&buffer, "DETAIL", error->detail);
	append_part(&buffer, "HINT", error->hint);
	append_part(&buffer, "CONTEXT", error->context);
	if (buffer.len > 0)
		stack_trace = qml_report_cut(buffer.data, buffer.len, QML_MAX_STACK_TRACE);
	MemoryContextSwitchTo(oldcontext);
	/*
	 * A payload that does not fit the handler will not fit the next time either.  The
	 * same error from inside the handler may be about another job's payload.
	 */
	retry = error->sqlerrcode != ERRCODE_QML_PAYLOAD_MISMATCH || !qml_call_was_binding();
	qml_attempt_fail(attempt, error->message, unpack_sql_state(error->sqlerrcode), stack_trace,
					 retry);
}

/*
 * Decides what follows from an error that ended an attempt.  A job that was told to stop
 * may have turned the cancel into another error, so the reason for the stop decides first.
 */
void
qml_attempt_judge(QmlAttempt *attempt, const ErrorData *error, QmlStop reason, bool deleted)
{
	/*
	 * A job that somebody else has ended fails with the error, which is then written
	 * nowhere.  If the handler itself ended its job, that is undone too, and the error
	 * is written: so it has to say what was wrong.
	 */
	if (error->sqlerrcode == ERRCODE_QML_STALE_CLAIM && attempt->state == QML_ATTEMPT_LOST)
	{
		qml_attempt_fail(attempt, "the handler ended its job itself", "QM003", (Datum) 0, false);
		return;
	}
	switch (reason)
	{
		case QML_STOP_GROUP:
			attempt->state = QML_ATTEMPT_RUN_ALONE;
			break;
		case QML_STOP_TIMEOUT:
			qml_attempt_fail(attempt, qml_job_timeout_message(&attempt->job), QML_TIMEOUT,
							 (Datum) 0, true);
			break;
		case QML_STOP_SHUTDOWN:
			attempt->state = QML_ATTEMPT_RELEASED;
			break;
		case QML_STOP_NOT:
			/* The deletion may be rolled back: then the job is to run again. */
			if (deleted && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
				attempt->state = QML_ATTEMPT_RELEASED;
			else
				fail_with_error(attempt, error);
			break;
	}
}

static Datum
copy_datum(Datum value)
{
	return value == (Datum) 0 ? value : datumCopy(value, false, -1);
}

/* Copies all of it into the current memory context. */
void
qml_attempt_copy(const QmlAttempt *attempt, QmlAttempt *copy)
{
	*copy = *attempt;
	copy->context = CurrentMemoryContext;
	qml_job_copy(&attempt->job, &copy->job);
	copy->result = copy_datum(attempt->result);
	copy->error.error = copy_datum(attempt->error.error);
	copy->error.error_type = copy_datum(attempt->error.error_type);
	copy->error.stack_trace = copy_datum(attempt->error.stack_trace);
	copy->reason = copy_datum(attempt->reason);
	copy->progress = copy_datum(attempt->progress);
}

/* How the log calls an attempt that has ended; the others are not logged. */
static const char *const ended_words[] = {
	[QML_ATTEMPT_SUCCEEDED] = "succeeded",
	[QML_ATTEMPT_FAILED] = "failed",
	[QML_ATTEMPT_RETRY_LATER] = "to be run later",
	[QML_ATTEMPT_DISCARDED] = "discarded",
};

/* After the commit: logs the attempt, if it was traced and has ended. */
void
qml_attempt_log(const QmlAttempt *attempt)
{
	const QmlTrace *trace = &attempt->trace;

	if (!trace->traced || attempt->state >= lengthof(ended_words) ||
		ended_words[attempt->state] == NULL)
		return;
	ereport(LOG,
			(errmsg("job %s: \"%s\" in queue \"%s\", attempt %d: %s in %.3f ms",
					qml_job_id_string(&attempt->job.id), TextDatumGetCString(attempt->job.method),
					trace->queue, attempt->job.attempt, ended_words[attempt->state],
					trace->milliseconds),
			 errdetail("traceparent %s%s%s", trace->traceparent, trace->parent[0] ? ", of " : "",
					   trace->parent),
			 errhidestmt(true)));
}
