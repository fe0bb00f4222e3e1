/*
 * failure_log.c
 *		Lines in the server's log for jobs that failed for good.
 *
 * A job that gets into the state failed is logged once, whatever brought it there: its worker,
 * a handler in the database, the loss of its last attempt, an administrator.  The line has the
 * id, queue, method and attempt and the beginning of the error, unless something is hidden in the
 * job (model/redact.c), and never the payload; the
 * setting qml.log_failures turns it off.  Attempts that are retried are not logged.
 *
 * The line is written after the commit, so that nothing is logged that was rolled back.  It is
 * made before, when the job is changed: all that remains then is to write it, for an error
 * after the commit would end the server.  A crash between the two loses the line, and not
 * the job.  A transaction that is prepared is logged then, as the session that commits it knows
 * nothing of it: a line stays when that is rolled back.  So does the line of a job that failed
 * and was retried in one transaction; it tells of the failure all the same.
 *
 * A transaction that fails very many jobs logs the first of them, and one line says how many more
 * there are.  These are only counted, for each subtransaction, as it may be rolled back.  The
 * end of a subtransaction looks at nothing but what was noted in it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "common/guc.h"
#include "common/report.h"
#include "jobs/failure_log.h"
#include "model/redact.h"

/* Jobs of one transaction that have a line of their own. */
#define MAX_LINES 100

/* Bytes of an error in a line. */
#define MAX_ERROR 500

/* A job that failed, or a count of them, and in which subtransaction. */
typedef struct Failure
{
	SubTransactionId subxact;
	char *line; /* NULL: a count of jobs without a line */
	int more;	/* the count */
} Failure;

/*
 * In TopTransactionContext.  Outer subtransactions come before inner ones; behind the lines, once
 * there are MAX_LINES, comes at most one count for each subtransaction.
 */
static List *failures = NIL;
static int nlines = 0; /* of them are lines */

static void
write_lines(void)
{
	int more = 0;
	ListCell *lc;

	foreach(lc, failures)
	{
		const Failure *failure = lfirst(lc);

		more += failure->more;
		/* Not to the client, who may not be allowed to see the job. */
		if (failure->line)
			ereport(LOG_SERVER_ONLY,
					(errhidestmt(true), errhidecontext(true),
					 errmsg_internal("%s", failure->line)));
	}
	if (more > 0)
		ereport(LOG_SERVER_ONLY,
				(errhidestmt(true), errhidecontext(true),
				 errmsg_plural("%d more job failed for good in the same transaction",
							   "%d more jobs failed for good in the same transaction", more,
							   more)));
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (failures == NIL)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			write_lines();
			break;
		case XACT_EVENT_ABORT:
			break;
		default:
			return; /* it has not ended */
	}
	/* The memory goes with the transaction. */
	failures = NIL;
	nlines = 0;
}

/* The last of them, if it was noted in the subtransaction; otherwise NULL. */
static Failure *
last_of(SubTransactionId subxact)
{
	Failure *last = failures == NIL ? NULL : llast(failures);

	Assert(last == NULL || last->subxact <= GetCurrentSubTransactionId());
	return last && last->subxact == subxact ? last : NULL;
}

/* The subtransaction was rolled back. */
static void
forget(SubTransactionId mine)
{
	Failure *failure;

	while ((failure = last_of(mine)) != NULL)
	{
		if (failure->line)
			nlines--;
		failures = list_delete_last(failures);
		if (failure->line)
			pfree(failure->line);
		pfree(failure);
	}
}

/* What was noted in the subtransaction is its parent's from now on. */
static void
hand_over(SubTransactionId mine, SubTransactionId parent)
{
	Failure *count = last_of(mine);
	Failure *before;

	for (int i = list_length(failures) - 1; i >= 0; i--)
	{
		Failure *failure = list_nth(failures, i);

		if (failure->subxact != mine)
			break;
		failure->subxact = parent;
	}
	/* One count for a subtransaction. */
	if (count == NULL || count->line || list_length(failures) < 2)
		return;
	before = list_nth(failures, list_length(failures) - 2);
	if (before->line == NULL && before->subxact == parent)
	{
		before->more += count->more;
		failures = list_delete_last(failures);
		pfree(count);
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (failures == NIL)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget(mine);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		hand_over(mine, parent);
}

/* Called when the library is loaded. */
void
qml_failure_log_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* The beginning of the last error, on one line. */
static char *
describe_error(const QmlJob *job)
{
	Datum error = qml_job_last_error(job);
	char *beginning;

	if (error == (Datum) 0)
		return pstrdup(QML_REPORT_NO_ERROR);
	beginning = TextDatumGetCString(qml_report_text(error, MAX_ERROR));
	for (char *c = beginning; *c;)
	{
		int length = qml_report_control_length(c);

		memset(c, ' ', length);
		c += length > 0 ? length : pg_mblen(c);
	}
	return beginning;
}

static char *
make_line(const QmlJob *job)
{
	const QmlQueue *queue = qml_queue_by_id(job->queue_id);

	return psprintf(_("job %s (queue \"%s\", method \"%s\", attempt %d) failed for good: %s"),
					qml_job_id_string(&job->id), queue ? queue->name : "?",
					TextDatumGetCString(job->method), job->attempt,
					qml_redact_has(queue, job->method) ? QML_REDACTED : describe_error(job));
}

/* Notes a line of the current subtransaction; NULL: that there is one more job. */
static void
note(const char *line)
{
	SubTransactionId mine = GetCurrentSubTransactionId();
	Failure *last = last_of(mine);
	Failure *failure;
	MemoryContext oldcontext;

	if (line == NULL && last && last->line == NULL)
	{
		last->more++;
		return;
	}
	Assert(line == NULL || nlines == list_length(failures));
	oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	failure = palloc(sizeof(Failure));
	failure->subxact = mine;
	failure->line = line ? pstrdup(line) : NULL;
	failure->more = line ? 0 : 1;
	failures = lappend(failures, failure);
	MemoryContextSwitchTo(oldcontext);
	if (line)
		nlines++;
}

/* A job has failed for good, if the transaction commits. */
void
qml_failure_log_note(const QmlJob *job)
{
	Assert(job->state == QML_FAILED);
	if (qml_log_failures)
		note(nlines < MAX_LINES ? make_line(job) : NULL);
}
