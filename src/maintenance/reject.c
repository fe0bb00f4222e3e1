/*
 * reject.c
 *		Failing ready jobs that no worker can run.
 *
 * A worker's session user is the role of the handlers that it calls.  If a role
 * cannot be that (it was dropped, may not log in, has lost a privilege), jobs for its
 * handlers would stay enqueued and nobody would know why.  They fail instead, for
 * good, with the reason as their error; qml_retry() brings them back.  All of it is
 * the caller's transaction.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "jobs/transition.h"
#include "maintenance/job_pass.h"
#include "maintenance/reject.h"
#include "model/catalog.h"
#include "userfn/handler.h"

typedef struct Rejection
{
	Oid role;
	const QmlProblem *problem;
} Rejection;

/* The role whose handler the job in a row of qml.live is for; InvalidOid: it has none. */
Oid
qml_reject_role_of(TupleTableSlot *slot)
{
	bool isnull;
	const QmlHandler *handler = qml_handler_of(slot_getattr(slot, LIVE_METHOD, &isnull));

	return handler ? handler->run_as : InvalidOid;
}

/* Whether a job is ready and for a handler of the role. */
static bool
is_for_role(QmlJobPass *pass, TupleTableSlot *slot)
{
	const Rejection *rejection = pass->arg;

	return qml_job_live_state(slot) == QML_ENQUEUED && qml_reject_role_of(slot) == rejection->role;
}

static void
reject_job(QmlJobPass *pass, QmlJob *job)
{
	const QmlProblem *problem = ((const Rejection *) pass->arg)->problem;
	QmlJobError error = {.error = CStringGetTextDatum(problem->message),
						 .error_type = CStringGetTextDatum(unpack_sql_state(problem->sqlerrcode))};

	qml_job_add_error(job, &error, pass->now);
	qml_transition_set(job, QML_FAILED, pass->now);
}

/* Fails up to max ready jobs of a role; returns how many. */
int
qml_reject_jobs(Oid role, const QmlProblem *problem, int max)
{
	Rejection rejection = {.role = role, .problem = problem};
	QmlJobPass pass = {.wants = is_for_role, .change = reject_job, .arg = &rejection, .max = max};

	(void) qml_catalog_to_work();
	qml_job_pass_over_all(&pass);
	return pass.count;
}
