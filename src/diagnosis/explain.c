/*
 * explain.c
 *		Why a job does not run: qml_explain().
 *
 * The table at the end is the list of reasons, by the state of a job: each function adds what it
 * finds, so that several reasons that hold at once are all told.  It is never empty: of a job that
 * nothing keeps from running it says so.  To add a reason, write a function, and an entry there;
 * what concerns all jobs of a database is a check of status.c instead.
 *
 * The job is looked at as it is now, at any isolation level, and its row is asked who has it.  A job
 * that the caller may not see, or whose transaction has not committed, is answered as one that does
 * not exist.  Where the caller sees only an outline of the job, so does the answer.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/table.h"
#include "core/state.h"
#include "diagnosis/explain.h"
#include "diagnosis/holder.h"
#include "diagnosis/status.h"
#include "diagnosis/work.h"
#include "ipc/session_claim.h"
#include "jobs/lookup.h"
#include "jobs/ready_walk.h"
#include "model/columns.h"
#include "qml.h"

/* Rows before a job that are counted. */
#define MOST_BEFORE 10000

/* What was found of a job. */
typedef struct FoundJob
{
	bool is_there;
	QmlJob job;	 /* a copy */
	bool is_own; /* this transaction has written its row */
	QmlHolders holders;
} FoundJob;

typedef struct Explanation
{
	QmlCase about;
	const FoundJob *found;
} Explanation;

/* The job's id as an argument of a function. */
static char *
quote_id(const Explanation *explanation)
{
	return qml_finding_quote(qml_job_id_string(&explanation->about.job->id));
}

static char *
call_for_job(const Explanation *explanation, const char *function)
{
	return qml_finding_call(function, quote_id(explanation));
}

/* ": " and a text of the job that is part of its contents; nothing if there is none to be seen. */
static char *
show_content(const Explanation *explanation, Datum content)
{
	if (!explanation->about.contents || content == (Datum) 0)
		return "";
	return psprintf(": %s", TextDatumGetCString(content));
}

/* ----- jobs that are finished ----- */

/* Between two times of the job. */
static char *
show_run_time(const QmlJob *job)
{
	if (job->started_at == QML_NO_TIME)
		return "without having run";
	return psprintf("after running for %s",
					qml_finding_duration(job->finished_at - job->started_at));
}

static char *
show_worker(const QmlJob *job)
{
	return job->worker == (Datum) 0 ?
			   "" :
			   psprintf(" by worker \"%s\"", TextDatumGetCString(job->worker));
}

static void
explain_succeeded(Explanation *explanation)
{
	const QmlJob *job = explanation->about.job;

	qml_finding_add_reason(explanation->about.reasons, "succeeded",
						   psprintf("it succeeded at %s, in attempt %d%s, %s",
									qml_finding_time(job->finished_at), job->attempt,
									show_worker(job), show_run_time(job)),
						   NULL);
}

static void
explain_failed(Explanation *explanation)
{
	const QmlJob *job = explanation->about.job;
	int tries = qml_job_tries(job);

	qml_finding_add_reason(explanation->about.reasons, "failed",
						   psprintf("it failed for good at %s, after %s%s%s",
									qml_finding_time(job->finished_at),
									qml_finding_count(tries, "try", "tries"), show_worker(job),
									show_content(explanation, qml_job_last_error(job))),
						   call_for_job(explanation, "qml_retry"));
}

static void
explain_deleted(Explanation *explanation)
{
	const QmlJob *job = explanation->about.job;

	qml_finding_add_reason(explanation->about.reasons, "deleted",
						   psprintf("it was deleted or discarded at %s%s",
									qml_finding_time(job->finished_at),
									show_content(explanation, job->reason)),
						   NULL);
}

/* ----- jobs that run ----- */

/* Which worker has the job, since when. */
static char *
describe_run(const QmlJob *job)
{
	TimestampTz now = GetCurrentTimestamp();

	return psprintf("attempt %d%s since %s (%s)", job->attempt, show_worker(job),
					qml_finding_time(job->started_at), qml_finding_duration(now - job->started_at));
}

/* A claim that is bound to a session; false: it is none. */
static bool
explain_session(Explanation *explanation)
{
	const QmlJob *job = explanation->about.job;
	char *server = job->server == (Datum) 0 ? NULL : TextDatumGetCString(job->server);
	int length = server ? (int) strlen(server) : 0;
	int pid;

	if (job->lease_expires_at != QML_NO_TIME || server == NULL)
		return false;
	if (RecoveryInProgress())
	{
		qml_finding_add_reason(explanation->about.reasons, "running",
							   psprintf("it runs on the primary: %s", describe_run(job)), NULL);
		return true;
	}
	qml_session_claim_begin_search();
	if (qml_session_claim_is_gone(server, length))
	{
		qml_finding_add_reason(
			explanation->about.reasons, "worker is gone",
			psprintf("the session that had claimed it has ended, and it was not taken "
					 "back yet: %s",
					 describe_run(job)),
			qml_finding_call("qml_reclaim", ""));
		qml_status_explain(QML_NEEDS_ADVANCE, explanation->about.reasons);
		return true;
	}
	pid = qml_session_claim_pid(server, length);
	qml_finding_add_reason(explanation->about.reasons, "running",
						   pid == 0 ? psprintf("it runs: %s", describe_run(job)) :
									  psprintf("it runs in the session with pid %d: %s", pid,
											   describe_run(job)),
						   NULL);
	return true;
}

static void
explain_processing(Explanation *explanation)
{
	const QmlJob *job = explanation->about.job;
	TimestampTz now = explanation->about.now;

	if (explain_session(explanation))
		return;
	if (job->lease_expires_at != QML_NO_TIME && job->lease_expires_at <= now)
	{
		qml_finding_add_reason(
			explanation->about.reasons, "lease is over",
			psprintf("its lease ended at %s (%s ago), and it was not taken back yet: %s",
					 qml_finding_time(job->lease_expires_at),
					 qml_finding_duration(now - job->lease_expires_at), describe_run(job)),
			qml_finding_call("qml_reclaim", ""));
		qml_status_explain(QML_NEEDS_ADVANCE, explanation->about.reasons);
		return;
	}
	qml_finding_add_reason(explanation->about.reasons, "running",
						   psprintf("it runs: %s; its lease ends at %s", describe_run(job),
									qml_finding_time(job->lease_expires_at)),
						   NULL);
}

/* ----- jobs that wait ----- */

/* Its row is new in this transaction. */
static void
explain_own(Explanation *explanation)
{
	if (explanation->found->is_own)
		qml_finding_add_reason(
			explanation->about.reasons, "not committed",
			"this transaction has made or changed it: nobody else sees that before it "
			"commits",
			"COMMIT;");
}

/* Somebody else has its row. */
static void
explain_holders(Explanation *explanation)
{
	ListCell *lc;

	if (explanation->found->holders.count == 0)
		return;
	foreach(lc, qml_holder_groups(&explanation->found->holders))
	{
		const QmlHolderGroup *group = lfirst(lc);

		qml_finding_add_reason(
			explanation->about.reasons, "held by an open transaction",
			explanation->about.job->state == QML_PROCESSING ?
				psprintf("what its worker said of it, or its deletion, is not committed: %s "
						 "has its row",
						 group->who) :
				psprintf("it is claimed, changed or locked by %s", group->who),
			group->remedy);
	}
}

/* A job that is delayed, or waits for its next attempt. */
static void
explain_due(Explanation *explanation)
{
	const QmlJob *job = explanation->about.job;
	TimestampTz now = explanation->about.now;
	bool retry = job->state == QML_AWAITING_RETRY;
	char *why = retry ? psprintf("; attempt %d ended%s", job->attempt,
								 show_content(explanation, job->errors == (Datum) 0 ?
															   job->reason :
															   qml_job_last_error(job))) :
						show_content(explanation, job->reason);

	if (job->run_at > now)
		qml_finding_add_reason(explanation->about.reasons,
							   retry ? "waits for its retry" : "not due",
							   psprintf("it is due at %s, in %s%s", qml_finding_time(job->run_at),
										qml_finding_duration(job->run_at - now), why),
							   call_for_job(explanation, "qml_retry"));
	else
		qml_finding_add_reason(explanation->about.reasons, "due but not ready",
							   psprintf("it has been due for %s, and nothing has made it ready%s",
										qml_finding_duration(now - job->run_at), why),
							   qml_finding_call("qml_promote_due", ""));
}

static void
explain_parents(Explanation *explanation)
{
	qml_finding_add_reason(explanation->about.reasons, "waits for parents",
						   "it waits for the end of other jobs", NULL);
}

/* What is missing in this database for such a job. */
static void
explain_status(Explanation *explanation)
{
	int needs = qml_work_needs(&explanation->about);

	if (explanation->about.job->state != QML_ENQUEUED)
		needs |= QML_NEEDS_ADVANCE;
	qml_status_explain(needs, explanation->about.reasons);
}

static void
explain_pause(Explanation *explanation)
{
	qml_work_explain_pause(&explanation->about);
}

static void
explain_handler(Explanation *explanation)
{
	qml_work_explain_handler(&explanation->about);
}

static void
explain_fetches(Explanation *explanation)
{
	qml_work_explain_fetches(&explanation->about);
}

static void
explain_limits(Explanation *explanation)
{
	qml_work_explain_limits(&explanation->about);
}

static void
explain_workers(Explanation *explanation)
{
	qml_work_explain_workers(&explanation->about);
}

/* Jobs before one, for the same workers. */
typedef struct Before
{
	QmlCase *about;
	int64 higher; /* of a higher priority */
	int64 older;  /* of the same */
	int highest;  /* priority */
	int looked;
	bool more; /* not all were looked at */
} Before;

static bool
count_before(TupleTableSlot *slot, void *arg)
{
	Before *before = arg;
	const QmlJob *job = before->about->job;
	int priority;
	pg_uuid_t id;
	bool isnull;

	qml_job_live_place(slot, &priority, &id);
	if (priority < job->priority ||
		(priority == job->priority && memcmp(&id, &job->id, sizeof(id)) >= 0))
		return false;
	before->more = ++before->looked >= MOST_BEFORE;
	if (qml_job_live_state(slot) == QML_ENQUEUED &&
		qml_work_is_same_kind(before->about, qml_job_live_method(slot),
							  DatumGetObjectId(slot_getattr(slot, LIVE_CREATED_BY, &isnull))))
	{
		if (before->higher + before->older == 0)
			before->highest = priority;
		if (priority > job->priority)
			before->higher++;
		else
			before->older++;
	}
	return !before->more;
}

/* Its turn has not come. */
static void
explain_place(Explanation *explanation)
{
	Before before = {.about = &explanation->about};

	(void) qml_ready_walk(explanation->about.queue, NULL, count_before, &before);
	if (before.higher + before.older > 0)
		qml_finding_add_reason(explanation->about.reasons, "behind other jobs",
							   psprintf("%s%s for the same workers come first: " INT64_FORMAT
										" of a higher priority, " INT64_FORMAT " older ones",
										before.more ? "at least " : "",
										qml_finding_count(before.higher + before.older, "job",
														  "jobs"),
										before.higher, before.older),
							   before.highest == PG_INT32_MAX ?
								   NULL :
								   qml_finding_call("qml_update_job",
													psprintf("%s, '{\"priority\": %d}'",
															 quote_id(explanation),
															 before.highest + 1)));
}

#define IN(state) (1 << (state))
#define UNSTARTED \
	(IN(QML_SCHEDULED) | IN(QML_ENQUEUED) | IN(QML_AWAITING_RETRY) | IN(QML_AWAITING_PARENTS))
#define UNFINISHED (UNSTARTED | IN(QML_PROCESSING))

/* The reasons, by the states of the jobs that they are for, in the order in which they are told. */
static const struct
{
	int states;
	void (*explain)(Explanation *explanation);
} causes[] = {
	{IN(QML_SUCCEEDED), explain_succeeded},
	{IN(QML_FAILED), explain_failed},
	{IN(QML_DELETED), explain_deleted},
	{IN(QML_PROCESSING), explain_processing},
	{UNFINISHED, explain_own},
	{UNFINISHED, explain_holders},
	{IN(QML_SCHEDULED) | IN(QML_AWAITING_RETRY), explain_due},
	{IN(QML_AWAITING_PARENTS), explain_parents},
	{UNSTARTED, explain_pause},
	{UNSTARTED, explain_status},
	{UNSTARTED, explain_handler},
	{UNSTARTED, explain_fetches},
	{IN(QML_ENQUEUED), explain_limits},
	{IN(QML_ENQUEUED), explain_workers},
	{IN(QML_ENQUEUED), explain_place},
};

/* ----- finding it ----- */

static void
use_job(const QmlJob *job, void *arg)
{
	FoundJob *found = arg;

	found->is_there = true;
	if (!qml_state_is_final(job->state))
	{
		found->is_own = qml_table_row_is_own(job->source);
		(void) qml_holder_note(&found->holders, job->source);
	}
	qml_job_copy(job, &found->job);
}

/* Adds the reasons why a job does not run. */
void
qml_explain_id(const pg_uuid_t *id, QmlReasons *reasons)
{
	FoundJob found = {false};
	Explanation explanation = {.found = &found};
	QmlAccess access = QML_ACCESS_NONE;
	const QmlQueue *queue = NULL;

	qml_lookup_latest(id, use_job, &found);
	if (found.is_there)
	{
		queue = qml_queue_require(found.job.queue_id);
		access = qml_job_visibility(&found.job);
	}
	if (access == QML_ACCESS_NONE)
	{
		qml_finding_add_reason(
			reasons, "no such job",
			"there is no job of this id that you may see: it may have expired, or not be "
			"committed yet",
			NULL);
		return;
	}
	qml_work_init(&explanation.about, queue, found.job.method, found.job.created_by, reasons);
	explanation.about.job = &found.job;
	explanation.about.contents = access == QML_ACCESS_FULL;
	for (int i = 0; i < (int) lengthof(causes); i++)
	{
		if (causes[i].states & IN(found.job.state))
			causes[i].explain(&explanation);
	}
	if (reasons->count == 0)
		qml_finding_add_reason(reasons, "ready",
							   psprintf("it has been ready since %s, and is the next for %s",
										qml_finding_time(found.job.ready_at != QML_NO_TIME ?
															 found.job.ready_at :
															 found.job.created_at),
										explanation.about.handler && !explanation.about.is_named ?
											"a background worker" :
											"a worker that fetches"),
							   NULL);
}
