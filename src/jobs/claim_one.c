/*
 * claim_one.c
 *		Claiming one job by its id.
 *
 * The job becomes processing as by a fetch (jobs/claim.c), with the lease of its queue.  What a
 * fetch would pass over in silence is an error here, because the caller has named the job: it is
 * not ready (QM002), or its queue is paused (55000).  The call waits for others that are changing
 * the job, and judges what it has become, like all functions that name a job.
 *
 * Where a job may be taken early, one that is scheduled or waits for its retry becomes enqueued
 * first, in a change of its own: hooks and counters see the same transitions as with promotion.
 *
 * The list of ready jobs that has the job is not told: an entry whose row is not ready is dropped
 * by the next claim that meets it.  All of it is the caller's transaction.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "core/state.h"
#include "errcodes.h"
#include "ipc/fetches.h"
#include "ipc/waiters.h"
#include "jobs/claim_one.h"
#include "jobs/transition.h"
#include "jobs/writer.h"
#include "model/acl.h"
#include "model/catalog.h"
#include "model/lineage.h"
#include "model/queue.h"
#include "userfn/hook_job.h"

/* One call. */
typedef struct ClaimRequest
{
	const QmlClaimOne *claim;
	bool lenient;		   /* a job that cannot be claimed is left, without an error */
	MemoryContext context; /* of the result */
	QmlJob *claimed;	   /* NULL: none was */
} ClaimRequest;

/*
 * Raises 42501 unless the current user may work the job; QM001 to one who sees nothing of its
 * queue.  Jobs that call hooks are for workers only.
 */
static void
check_right(const QmlJob *job, const QmlQueue *queue)
{
	if (queue->own || !qml_acl_see_queue(queue->name))
		qml_job_raise_missing(&job->id);
	qml_acl_require(QML_CAN_WORK, queue->name);
}

static bool
is_early(const QmlJob *job)
{
	return job->state == QML_SCHEDULED || job->state == QML_AWAITING_RETRY;
}

/* The job is in a state from which it cannot be claimed. */
pg_noreturn static void
raise_not_ready(const QmlJob *job)
{
	ereport(ERROR,
			(errcode(ERRCODE_QML_INVALID_STATE_TRANSITION),
			 errmsg("job %s cannot be claimed", qml_job_id_string(&job->id)),
			 job->state == QML_PROCESSING ?
				 errdetail("Attempt %d is processing it.", job->attempt) :
				 errdetail("The job is %s.", qml_state_label(job->state)),
			 is_early(job) || job->state == QML_FAILED ?
				 errhint("%s() makes it ready.", qml_acl_qualify("qml_retry")) :
				 0));
}

/* Whether the job may be claimed once it is ready; raises an error unless the call is lenient. */
static bool
may_claim(const QmlJob *job, const ClaimRequest *request)
{
	const QmlQueue *queue = qml_queue_require(job->queue_id);

	if (request->lenient && (queue->own || !qml_acl_allow(QML_CAN_WORK, queue->name)))
		return false;
	check_right(job, queue);
	if (request->claim->check)
		request->claim->check(job);
	if (!queue->paused && !qml_catalog()->paused)
		return true;
	if (!request->lenient)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 queue->paused ? errmsg("queue \"%s\" is paused", queue->name) :
								 errmsg("all queues are paused"),
				 errhint("%s() lets jobs run again.",
						 qml_acl_qualify(queue->paused ? "qml_resume_queue" : "qml_resume_all"))));
	return false;
}

/* QmlChange: makes a job ready that is to be taken early; others are left to claim_job(). */
static bool
promote_job(QmlJob *job, void *arg)
{
	if (!may_claim(job, arg) || !is_early(job))
		return false;
	qml_transition_set(job, QML_ENQUEUED, GetCurrentTimestamp());
	return true;
}

/* QmlChange. */
static bool
claim_job(QmlJob *job, void *arg)
{
	ClaimRequest *request = arg;
	const QmlClaimOne *claim = request->claim;
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext oldcontext;

	request->claimed = NULL;
	if (!may_claim(job, request))
		return false;
	if (job->state != QML_ENQUEUED)
	{
		if (request->lenient)
			return false;
		raise_not_ready(job);
	}
	if (!qml_lineage_has_next(job))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("job %s has no attempt numbers left", qml_job_id_string(&job->id))));
	qml_transition_set(job, QML_PROCESSING, now);
	job->worker = claim->worker;
	job->server = claim->server;
	job->lease_expires_at = now + qml_queue_lease(qml_queue_require(job->queue_id));

	oldcontext = MemoryContextSwitchTo(request->context);
	request->claimed = palloc(sizeof(QmlJob));
	qml_job_copy(job, request->claimed);
	MemoryContextSwitchTo(oldcontext);
	return true;
}

/* Makes one change; false: there is no such job, or it is another transaction's. */
static bool
change_job(const pg_uuid_t *id, QmlChange change, ClaimRequest *request)
{
	QmlWriter writer;
	bool changed;

	qml_writer_open(&writer, false, false);
	changed = request->lenient ? qml_writer_try_change(&writer, id, change, request) :
								 qml_writer_change(&writer, id, change, request);
	if (!changed && !request->lenient)
		qml_job_raise_missing(id);
	qml_writer_close(&writer);
	return changed;
}

/*
 * A worker takes jobs of the queue: of this method, if it is one for workers outside.  Of others it
 * is not known that it would take those that nobody has asked it for.
 */
static void
note_fetch(const QmlJob *job)
{
	uint64 method = qml_job_hash_method_long(job->method);
	bool is_outside = qml_hook_job_handler(job) == NULL;

	if (qml_fetches_is_due(
			hash_combine64(hash_combine64(method, is_outside), (uint64) job->queue_id)))
		qml_fetches_note(job->queue_id, &method, is_outside ? 1 : 0);
}

static QmlJob *
claim_one(const pg_uuid_t *id, ClaimRequest *request)
{
	(void) qml_catalog_to_work();
	qml_acl_require_any(QML_CAN_WORK);
	request->context = CurrentMemoryContext;
	if (request->claim->early && !change_job(id, promote_job, request))
		return NULL;
	if (!change_job(id, claim_job, request) || request->claimed == NULL)
		return NULL;
	qml_waiters_claimed(request->claimed->queue_id);
	if (request->claim->fetches)
		note_fetch(request->claimed);
	return request->claimed;
}

/*
 * Claims a job, and returns it as it is then, in the current memory context.  Raises QM001, QM002,
 * 42501, 55000, or what claim->check() raises.
 */
QmlJob *
qml_claim_one(const pg_uuid_t *id, const QmlClaimOne *claim)
{
	ClaimRequest request = {.claim = claim};
	QmlJob *claimed = claim_one(id, &request);

	Assert(claimed != NULL);
	return claimed;
}

/* The same without waiting; NULL if another transaction has the job, or it cannot be claimed. */
QmlJob *
qml_claim_one_if_early(const pg_uuid_t *id, const QmlClaimOne *claim)
{
	ClaimRequest request = {.claim = claim, .lenient = true};

	return claim_one(id, &request);
}
