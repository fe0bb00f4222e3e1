/*
 * reject.c
 *		Finding the roles that have work, and failing ready jobs that no worker can run.
 *
 * A worker's session user is the role of the handlers that it calls.  If a role
 * cannot be that (it may not log in, has lost a privilege), jobs for its handlers would
 * stay enqueued and nobody would know why.  They fail instead, for good, with the reason
 * as their error; qml_retry() brings them back.  Jobs of a handler that is revoked, because
 * its role was dropped, wait: qml.handler says why.
 *
 * Both need all ready jobs, so it is one search, made in pieces (common/walk.c).  A job
 * that becomes ready behind it leaves its role with the scheduler (ipc/dispatch.c).  Each
 * piece is the caller's transaction.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "common/report.h"
#include "jobs/transition.h"
#include "maintenance/job_pass.h"
#include "maintenance/reject.h"
#include "model/catalog.h"
#include "userfn/hook_job.h"

/* What a piece has found out about a role. */
typedef struct RoleState
{
	Oid role;
	bool usable;
	QmlProblem problem; /* if it is not */
} RoleState;

typedef struct RoleSearch
{
	List *states;			/* of RoleState, of all roles that were met */
	const RoleState *state; /* of the job that was found last */
	MemoryContext context;	/* of these */
} RoleSearch;

/*
 * The role whose handler or hook the job in a row of qml.live is for; InvalidOid: none, or one
 * that is revoked, and waits.
 */
static Oid
role_of(TupleTableSlot *slot)
{
	bool isnull;
	const QmlHandler *
		handler = qml_hook_job_handler_of(DatumGetInt32(slot_getattr(slot, LIVE_QUEUE_ID, &isnull)),
										  slot_getattr(slot, LIVE_METHOD, &isnull),
										  DatumGetObjectId(
											  slot_getattr(slot, LIVE_CREATED_BY, &isnull)));

	return qml_handler_role(handler);
}

/* What is known of a role; asked of the catalogs once a piece. */
static const RoleState *
look_up_role(RoleSearch *search, Oid role)
{
	MemoryContext oldcontext;
	RoleState *state;
	ListCell *lc;

	foreach(lc, search->states)
	{
		if (((RoleState *) lfirst(lc))->role == role)
			return lfirst(lc);
	}
	oldcontext = MemoryContextSwitchTo(search->context);
	state = palloc0(sizeof(RoleState));
	state->role = role;
	state->usable = qml_handler_role_usable(role, &state->problem);
	search->states = lappend(search->states, state);
	MemoryContextSwitchTo(oldcontext);
	return state;
}

/* Whether a job is ready, and for a handler of a role that no worker can be of. */
static bool
is_without_worker(QmlJobPass *pass, TupleTableSlot *slot)
{
	RoleSearch *search = unconstify(void *, pass->arg);
	Oid role;

	if (qml_job_live_state(slot) != QML_ENQUEUED)
		return false;
	role = role_of(slot);
	if (!OidIsValid(role))
		return false;
	search->state = look_up_role(search, role);
	return !search->state->usable;
}

static void
reject_job(QmlJobPass *pass, QmlJob *job)
{
	const QmlProblem *problem = &((const RoleSearch *) pass->arg)->state->problem;
	QmlJobError error = {.error = qml_report_message(problem->message),
						 .error_type = CStringGetTextDatum(unpack_sql_state(problem->sqlerrcode))};

	qml_job_add_error(job, &error, pass->now);
	qml_transition_set(job, QML_FAILED, pass->now);
}

/*
 * Looks at a piece of the walk over all jobs: *roles becomes those that have ready jobs
 * there and can have workers.  Up to max jobs of the others fail.  Returns whether the walk
 * is over.
 */
bool
qml_reject_search(QmlWalk *walk, int max, List **roles)
{
	RoleSearch search = {.context = CurrentMemoryContext};
	QmlJobPass pass = {.wants = is_without_worker,
					   .change = reject_job,
					   .arg = &search,
					   .max = max,
					   .walk = walk};
	ListCell *lc;

	(void) qml_catalog_to_work();
	qml_job_pass_over_all(&pass);
	*roles = NIL;
	foreach(lc, search.states)
	{
		const RoleState *state = lfirst(lc);

		if (state->usable)
			*roles = lappend_oid(*roles, state->role);
	}
	return pass.over;
}
