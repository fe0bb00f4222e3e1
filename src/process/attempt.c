/*
 * attempt.c
 *		What becomes of an attempt: how it fails, and what is written into its job.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datum.h"

#include "common/fault.h"
#include "errcodes.h"
#include "jobs/transition.h"
#include "process/attempt.h"
#include "userfn/call.h"

/* Whether the job is still the attempt's own; it is gone if not. */
static bool
holds(QmlAttempt *attempt, const QmlJob *job)
{
	if (job->state == QML_PROCESSING && job->attempt == attempt->job.attempt)
		return true;
	attempt->fate = QML_FATE_GONE;
	return false;
}

/* A QmlChange that changes nothing: only finds out whether the attempt is gone. */
bool
qml_attempt_look(QmlJob *job, void *arg)
{
	(void) holds(arg, job);
	return false;
}

/* A QmlChange: ends the attempt in its job, unless it is gone. */
bool
qml_attempt_finish(QmlJob *job, void *arg)
{
	QmlAttempt *attempt = arg;
	TimestampTz now = GetCurrentTimestamp();

	if (!holds(attempt, job))
		return false;
	if (attempt->progress != (Datum) 0)
		job->progress = attempt->progress;
	switch (attempt->fate)
	{
		case QML_FATE_SUCCEEDED:
			qml_transition_set(job, QML_SUCCEEDED, now);
			job->result = attempt->result;
			break;
		case QML_FATE_LATER:
			qml_transition_set(job, QML_AWAITING_RETRY, now);
			job->run_at = now + attempt->delay;
			job->reason = attempt->reason;
			job->uncounted++;
			break;
		case QML_FATE_DISCARDED:
			qml_transition_set(job, QML_DELETED, now);
			job->reason = attempt->reason;
			break;
		case QML_FATE_FAILED:
			qml_transition_fail(job, &attempt->error, attempt->retry, attempt->retry_at, now);
			break;
		default:
			qml_transition_set(job, QML_ENQUEUED, now);
			job->uncounted++;
			break;
	}
	QML_FAULT("finish.before_update");
	return true;
}

static Datum
cut_text(const char *text, int maxbytes)
{
	return PointerGetDatum(
		cstring_to_text_with_len(text, pg_mbcliplen(text, strlen(text), maxbytes)));
}

static Datum
stack_trace_of(const ErrorData *error)
{
	StringInfoData buffer;

	initStringInfo(&buffer);
	if (error->detail)
		appendStringInfo(&buffer, "DETAIL: %s\n", error->detail);
	if (error->hint)
		appendStringInfo(&buffer, "HINT: %s\n", error->hint);
	if (error->context)
		appendStringInfo(&buffer, "CONTEXT: %s\n", error->context);
	return buffer.len > 0 ? cut_text(buffer.data, QML_MAX_STACK_TRACE) : (Datum) 0;
}

/* It failed; type: as in the job's errors. */
void
qml_attempt_fail(QmlAttempt *attempt, const char *message, const char *type, Datum stack_trace,
				 bool retry)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(attempt->context);

	attempt->fate = QML_FATE_FAILED;
	attempt->retry = retry;
	attempt->retry_at = QML_NO_TIME;
	attempt->error.error = cut_text(message, QML_MAX_ERROR);
	attempt->error.error_type = CStringGetTextDatum(type);
	attempt->error.stack_trace = stack_trace;
	MemoryContextSwitchTo(oldcontext);
}

static void
fail_with(QmlAttempt *attempt, const ErrorData *error)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(attempt->context);
	Datum stack_trace = stack_trace_of(error);

	MemoryContextSwitchTo(oldcontext);
	/* A payload that does not fit will not fit the next time; that of another job may. */
	qml_attempt_fail(attempt, error->message, unpack_sql_state(error->sqlerrcode), stack_trace,
					 error->sqlerrcode != ERRCODE_QML_PAYLOAD_MISMATCH || !qml_call_was_binding());
}

/*
 * What follows from an error that ended an attempt.  One that was told to stop may have
 * made another error of that.
 */
void
qml_attempt_judge(QmlAttempt *attempt, const ErrorData *error, QmlStop why, bool deleted)
{
	switch (why)
	{
		case QML_STOP_DELAY:
			attempt->fate = QML_FATE_ALONE;
			break;
		case QML_STOP_TIMEOUT:
			qml_attempt_fail(attempt, qml_job_timeout_message(&attempt->job), QML_TIMEOUT,
							 (Datum) 0, true);
			break;
		case QML_STOP_SHUTDOWN:
			attempt->fate = QML_FATE_RELEASED;
			break;
		default:
			/* If it is not somebody else's after all, it is to be run again. */
			if (deleted && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
				attempt->fate = QML_FATE_RELEASED;
			else
				fail_with(attempt, error);
			break;
	}
}

static Datum
copy_datum(Datum value)
{
	return value == (Datum) 0 ? value : datumCopy(value, false, -1);
}

/* All of it into the current memory context. */
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

static const char *const words[] = {
	[QML_FATE_SUCCEEDED] = "succeeded",
	[QML_FATE_FAILED] = "failed",
	[QML_FATE_LATER] = "to be run later",
	[QML_FATE_DISCARDED] = "discarded",
};

/* After the commit: tells of it, if it was traced and is over. */
void
qml_attempt_log(const QmlAttempt *attempt)
{
	const QmlTrace *trace = &attempt->trace;

	if (!trace->traced || attempt->fate >= lengthof(words) || words[attempt->fate] == NULL)
		return;
	ereport(LOG,
			(errmsg("job %s: \"%s\" in queue \"%s\", attempt %d: %s in %.3f ms",
					qml_job_id_string(&attempt->job.id), TextDatumGetCString(attempt->job.method),
					trace->queue, attempt->job.attempt, words[attempt->fate],
					trace->milliseconds),
			 errdetail("traceparent %s%s%s", trace->traceparent, trace->parent[0] ? ", of " : "",
					   trace->parent),
			 errhidestmt(true)));
}
